"""Build the book from lessons that papermill has executed: stage, build strictly, publish.

    python book/build.py --profile laptop      # -> build/html/index.html
    python book/build.py --profile smoke       # -> build/smoke/html/index.html, the reader's book stays as it is

The sources meet in ``build/<profile>/site-src``: the pages of ``book/``, the executed lessons, and the two scripts a
page needs (MathJax, plotly.js) from the packages that ship them. A page therefore asks no other host for anything.
"""

import argparse
import functools
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from book_assets import SERVED  # noqa: E402
from book_files import FILES, files_cell, offered_files, with_measured_time  # noqa: E402
from book_fresh import complaint, lessons  # noqa: E402
from book_kept import keep_run  # noqa: E402
from book_results import (  # noqa: E402
    WIDE_PX,
    lesson_figure,
)

READER_PROFILE = "laptop"
REAL_DATASET = "mp-thermo-pairs"  # the landing page's figure is of it, where a folder in CROSSFUNC_DATA has it
STORY_LESSON, STORY_FIGURE = "03_atomref_correlation", "fig-03-story"
# What tex-svg.js may load later: TeX packages on demand (\ce, \cancel ...), and the speech a reader can switch on.
MATHJAX_PARTS = ("tex-svg.js", "input/tex/extensions", "a11y", "sre/mathmaps/base.json", "sre/mathmaps/en.json")


class BuildError(RuntimeError):
    """The book cannot be built; the message says what to do."""


def build(root=ROOT, profile=READER_PROFILE):
    """Build the book of one profile and return the folder that holds its ``index.html``."""
    # The same check stops Sphinx; asked here as well, it answers without a traceback around it.
    if found := complaint(root, profile):
        raise BuildError(found)
    from crossfunc.lessons import LessonError

    try:
        source = stage(root, profile)
    except LessonError as error:
        raise BuildError(str(error)) from error
    output = root / "build" / profile / "site"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        *(str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(output)),
        *("-n", "-W", "--keep-going", "-q"),
    ]
    # Warnings and errors come on stderr; what remains is a box naming a folder that is about to move.
    done = subprocess.run(command, cwd=root, check=False, stdout=subprocess.DEVNULL)  # noqa: S603
    if done.returncode:
        raise BuildError(f"the book of profile {profile!r} was not built: see the warnings and errors above.")
    published = publish(output / "_build" / "html", site(root, profile))
    for folder in (output, source):  # the sources name the checkout's folder
        shutil.rmtree(folder)
    return published


def site(root, profile):
    """Folder of the finished pages: the reader's book at build/html, any other profile's beside its own results."""
    return root / "build" / "html" if profile == READER_PROFILE else root / "build" / profile / "html"


def stage(root, profile):
    """Copy everything the book is made of into one folder and return it."""
    source = root / "build" / profile / "site-src"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source, ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    shutil.copy2(root / "CHANGELOG.md", source / "changelog.md")
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["config"] |= {"crossfunc_root": str(root), "crossfunc_profile": profile}
    (source / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    stage_lessons(root, profile, source)
    number_lessons(source)
    stage_scripts(source / SERVED)
    return source


def stage_lessons(root, profile, source):
    """Copy the executed lessons, each output of ``figures.show`` made a numbered figure with alternative text.

    Each says how long it took, and offers its source, the notebook as it was executed and its results for download.
    """
    from crossfunc.lessons.timings import read_timings

    (source / "notebooks").mkdir()
    timings = read_timings(root / "build" / profile)
    for lesson in lessons(root):
        path = root / "build" / profile / "notebooks" / f"{lesson}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            dress_figures(cell, path.name)
        with_measured_time(notebook["cells"], lesson, timings, profile)
        files = offered_files(root, profile, lesson)
        for file in files:
            target = source / FILES / lesson / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        notebook["cells"].append(files_cell(lesson, files, profile))
        (source / "notebooks" / path.name).write_text(json.dumps(notebook, indent=1), encoding="utf-8")


def number_lessons(source):
    """Give the lessons their numbers in the table of contents: the text says "lesson 3", and so must the page."""
    from crossfunc.lessons.sources import spoken_number

    path = source / "_toc.yml"
    toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    chapters = next(part["chapters"] for part in toc["parts"] if part["caption"] == "Lessons")
    for chapter in [one for one in chapters if one["file"].startswith("notebooks/")]:
        notebook = json.loads((source / f"{chapter['file']}.ipynb").read_text(encoding="utf-8"))
        title = "".join(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
        chapter["title"] = f"{spoken_number(Path(chapter['file']).name)}. {title}"
    path.write_text(yaml.safe_dump(toc, allow_unicode=True, sort_keys=False), encoding="utf-8")


def dress_figures(cell, file):
    """Turn what ``figures.show`` noted on an output into the cell metadata that myst-nb reads."""
    outputs = cell.get("outputs", [])
    notes = [output.get("metadata", {}).get("crossfunc", {}) for output in outputs]
    figures = [note for note in notes if "alt" in note]
    if len(figures) > 1:
        raise BuildError(f"{file}: one cell shows {len(figures)} figures; show each in a cell of its own.")
    # The caption line is for JupyterLab; here it is part of the figure.
    cell_outputs = [o for o, note in zip(outputs, notes, strict=True) if note.get("role") != "caption"]
    if "outputs" in cell:
        cell["outputs"] = cell_outputs
    for note in figures:
        options = cell["metadata"].setdefault("mystnb", {})
        options["image"] = {"alt": note["alt"]} | ({"width": note["width"]} if "width" in note else {})
        if float(note.get("width", "0px").removesuffix("px")) > WIDE_PX:
            options["image"]["classes"] = "xf-wide"  # on a phone it scrolls instead of shrinking
        if note["caption"]:
            options["figure"] = {"caption": note["caption"]} | ({"name": note["name"]} if note["name"] else {})


def stage_scripts(served):
    """Copy MathJax and plotly.js from the packages that ship them."""
    import plotly

    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        raise BuildError("sphinx-mathjax-offline is not installed: run `make book`, which installs it.")
    mathjax = Path(spec.origin).parent / "static" / "mathjax"
    for part in MATHJAX_PARTS:
        target = served / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (mathjax / part).is_dir():
            shutil.copytree(mathjax / part, target)
        else:
            shutil.copy2(mathjax / part, target)
    shutil.copy2(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", served / "plotly.min.js")


def publish(built, target):
    """Put the pages just built in the place of the published ones, which are there until then."""
    former = target.with_name(f".{target.name}-before")
    if not target.exists() and former.exists():  # killed between the two names
        former.rename(target)
    shutil.rmtree(former, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(former)
    built.rename(target)
    shutil.rmtree(former, ignore_errors=True)
    return target


def run_on_real_data(root, profile):
    """Execute lesson 3 on real data for the landing page's figure, if the reader has both."""
    from crossfunc.datasets import list_datasets
    from crossfunc.lessons import run_lessons
    from crossfunc.lessons.plans import plan_run

    if REAL_DATASET in list_datasets() and STORY_LESSON in lessons(root):
        (run,) = run_lessons(plan_run(root, profile, [STORY_LESSON], {"dataset": REAL_DATASET}))
        if not run.ok:
            raise BuildError(f"{run.lesson} on {REAL_DATASET}: {run.message}")


def story_figure(root, profile):
    """Write the README's figure: the one lesson 3 shows under the name `fig-03-story`."""
    from crossfunc.files import write_atomically

    png, _ = lesson_figure(root, profile, STORY_LESSON, STORY_FIGURE)
    target = root / "book" / "_static" / "story.png"
    return write_atomically(target, png)


def main():
    """Command line: see the module's first lines."""
    from sphinx.errors import SphinxError

    from crossfunc.endings import describe_ending, signals_raise, status_of
    from crossfunc.files import locked_folder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default=READER_PROFILE)
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to build (default: this one)")
    parser.add_argument("--story-figure", action="store_true", help="only renew book/_static/story.png")
    parser.add_argument("--keep", metavar="LESSON", help="only copy the results of a long run to book/kept")
    parser.add_argument("--real-data", action="store_true", help=f"open with lesson 3 on {REAL_DATASET}, if it is here")
    options = parser.parse_args()
    job = story_figure if options.story_figure else build
    if options.keep:
        job = functools.partial(keep_run, lesson=options.keep)
    try:
        with signals_raise():
            if options.real_data:
                run_on_real_data(options.root.resolve(), options.profile)
            with locked_folder(options.root.resolve() / "build" / options.profile):
                made = job(options.root.resolve(), options.profile)
    except (BuildError, LookupError, SphinxError) as error:
        sys.exit(f"error: {error}")
    except (Exception, KeyboardInterrupt) as error:
        message = describe_ending(error, how_to_go_on="The same command goes on where it was.")
        if message is None:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(status_of(error))
    sys.stdout.write(f"Ready: {made / 'index.html' if job is build else made}\n")


if __name__ == "__main__":
    main()
