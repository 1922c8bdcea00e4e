"""Runs too long to repeat for every book: executed once, kept in ``book/kept/PROFILE/`` and shown from there.

``{kept-run} PROFILE LESSON``   how the run was made, and what its parameters are
``:kept: PROFILE``              makes ``{claims}`` and ``{lesson-figure}`` read from it
``LESSON:KEY@PROFILE``          is one number of it, for the role ``{result}``

``python book/build.py --profile PROFILE --keep LESSON`` (``make keep``) copies a fresh run there: results, tables,
and those static figures, with their words, that a page shows: write the page first. Nothing in the folder is written by
hand.
"""

import base64
import functools
import json
import re
from pathlib import Path

from book_tables import list_table, parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from crossfunc.lessons import ResultsError, claims
from crossfunc.lessons.claims import kept_folder, recipe

_SHOWN = re.compile(r"\{lesson-figure\} (\S+) (fig-[\w-]+)\n(?:# )?:kept: (\S+)$", re.M)


def stops_the_build(function):
    """Return a function whose complaints about claims and results stop the build."""

    @functools.wraps(function)
    def stopping(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except ResultsError as error:
            raise ExtensionError(str(error)) from error

    return stopping


read_kept = stops_the_build(claims.read_kept)


def keep_run(root, profile, lesson):
    """Copy a fresh run of one lesson to where the book finds it, and return the folder."""
    from crossfunc.files import write_atomically
    from crossfunc.lessons import LessonError, check_fresh
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.timings import read_timings

    (plan,) = plan_run(root, profile, [lesson])
    if found := check_fresh(root, profile, names=[lesson]):
        raise LessonError(f"only a fresh run is kept: {found[0]}")
    units = check_units(plan)
    stem, folder = plan.lesson.stem, kept_folder(root, profile)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{stem}.*"):
        old.unlink()
    for file in plan.results_files:
        if file.suffix in {".json", ".csv"}:
            write_atomically(folder / file.name, file.read_bytes())
    figures = {}
    shown = shown_figures(root, profile, stem)
    for name, png, note in static_figures(plan.notebook) if shown else []:
        if name not in shown:
            continue
        write_atomically(folder / f"{stem}.{name}.png", png)
        figures[name] = {key: note[key] for key in ("alt", "caption", "width") if key in note}
    about = {
        "parameters": plan.shown,
        "timing": read_timings(plan.folder)[stem],
        "figures": figures,
        **({"units": units} if units else {}),
        **({"data": data} if (data := claims.data_of(plan.parameters["dataset"])) else {}),
    }
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / f"{stem}.run.json", text)
    return folder


def shown_figures(root, profile, lesson):
    """Return the names of the figures of a kept run that pages and lessons show; no other is worth its bytes."""
    pages = [*(Path(root) / "book").glob("*.md"), *(Path(root) / "notebooks").glob("[0-9]*.py")]
    found = [match for page in sorted(pages) for match in _SHOWN.findall(page.read_text(encoding="utf-8"))]
    return {name for of_lesson, name, kept in found if (of_lesson, kept) == (lesson, profile)}


def older_labels(about):
    """Say that a kept run is of another version of its labels than this book has; "" where it is not."""
    if not (versions := claims.other_version(about)):
        return ""
    return (
        f"Made on version {versions[0]} of the labels `{about['data']['name']}`; this book has version {versions[1]}."
    )


def check_units(plan):
    """Refuse a run that is made of units unless each of them is whole; return their number and training seconds."""
    from crossfunc.datasets import open_dataset
    from crossfunc.lessons import LessonError
    from crossfunc.lessons.lesson_runs import OF_UNITS, runs_of
    from crossfunc.lessons.units import units_folder
    from crossfunc.training.units import progress, read_unit

    if not plan.parameters.get("keep_runs") or plan.lesson.stem not in OF_UNITS:
        return None
    frames, units = runs_of(plan.lesson.stem, open_dataset(plan.dataset), plan.parameters)
    folder = units_folder(plan.results, plan.lesson.stem)
    states = progress(units, frames, folder)
    open_ones = [state.name for state in states if state.state != "whole"]
    if open_ones:
        number = plan.lesson.number
        raise LessonError(
            f"{len(open_ones)} of {len(states)} units are not whole, first of all {open_ones[0]}: "
            f"crossfunc units {number} --profile {plan.profile} makes them."
        )
    seconds = sum(float(read_unit(unit, frames, folder).history["seconds"].sum()) for unit in units)
    return {"n": len(units), "seconds": round(seconds)}


def static_figures(notebook):
    """Yield name, PNG and note of each figure that an executed lesson showed under a name."""
    from crossfunc.lessons.exports import named_figures

    for note, data in named_figures(notebook):
        if "image/png" in data:
            yield note["name"], base64.b64decode(data["image/png"]), note


def kept_figure(root, profile, lesson, name):
    """Return PNG and note of a figure of a kept run."""
    about = read_kept(root, profile, lesson)
    notes = about["figures"]
    if name not in notes:
        raise LookupError(
            f"{lesson}, kept from {profile}: no figure {name!r}; there are: {', '.join(notes) or 'none'}. Only figures "
            "that a page shows are kept, so once this page is written, keep the run again: "
            f"{recipe(profile, lesson)}"
        )
    png, note = (kept_folder(root, profile) / f"{lesson}.{name}.png").read_bytes(), notes[name]
    if older := older_labels(about):
        note = note | {"caption": f"{note['caption']} {older}"}
    return png, note


class KeptRun(SphinxDirective):
    """What a reader has to know about a kept run: its time, and the parameters that differ from the lesson's."""

    required_arguments = 2

    def run(self):
        """Write it as MyST."""
        from book_files import duration

        profile, lesson = self.arguments
        about = read_kept(self.config.crossfunc_root, profile, lesson)
        took = f"it took {duration(about['timing']['seconds'])} on {about['timing']['cores']} cores"
        if units := about.get("units"):
            took = f"its {units['n']} units trained for {duration(units['seconds'])} on one core each"
        rows = [(f"`{name}`", f"`{value}`") for name, value in about["parameters"].items()]
        lines = list_table(("parameter", "value"), rows, caption=f"Other values than the lesson's own; {took}")
        if older := older_labels(about):
            lines += ["", older]
        return parse_lines(self, lines, "xf-datasheet")


def setup(app):
    """Register the directive."""
    app.add_directive("kept-run", KeptRun)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
