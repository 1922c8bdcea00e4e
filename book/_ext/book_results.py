"""Numbers and figures of the lessons, on other pages: read from the lessons' own files, never typed.

``{claims}``           table of every result of every lesson: here, in the paper, and why they differ
``{result}``           one value inline: {result}`03_atomref_correlation:pearson_scaled`
``{lesson-figure}``    a figure that a lesson showed under a name

All three also read runs that were kept (book_kept.py).

A results file or key that is missing fails the build: a page must not fall silent about a number it promises.
"""

import functools
from pathlib import Path
from typing import ClassVar

from book_fresh import lessons
from book_kept import kept_figure, kept_folder, static_figures, stops_the_build
from book_tables import list_table, parse_lines
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from crossfunc.lessons import claims
from crossfunc.lessons.claims import paper_text, value_text

find_result = stops_the_build(claims.find_result)
WIDE_PX = 700  # a figure of several panels


def read_results(root, profile, lesson, *, kept=None):
    """Return the results file of a lesson, or of its kept run; one that is missing or empty stops the build.

    A file is read once, and again when it has changed; what comes back is shared, so it is only to be looked at.
    """
    folder = kept_folder(root, kept) if kept else root / "build" / profile / "results"
    files = (folder / f"{lesson}.json", root / "notebooks" / "results.yml")
    return _read_once(root, folder, lesson, bool(kept), tuple(_stamp(file) for file in files))


def _stamp(file):
    """Return what changes whenever a file is written; nothing for one that is not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@functools.cache
def _read_once(root, folder, lesson, is_kept, _stamps):
    from crossfunc.lessons import ResultsError, load_results

    try:
        content = load_results(folder, [lesson])[lesson]
    except ResultsError as error:
        raise ExtensionError(str(error)) from error
    if not content["results"]:
        raise ExtensionError(f"lesson {lesson!r} recorded no result; each lesson has at least one claim to make.")
    if not is_kept and (unused := unused_keys(root, content, lesson)):
        message = f"did not record {', '.join(unused)}, which notebooks/results.yml declares"
        raise ExtensionError(f"lesson {lesson!r} {message}.")
    return claims.with_papers_numbers(root, content, lesson) if is_kept else content


def unused_keys(root, content, lesson):
    """Return the keys that `notebooks/results.yml` promises in every run of a lesson, and that are not recorded."""
    from crossfunc.lessons import declared

    file = declared.read_declarations(root / "notebooks" / declared.FILE)
    return declared.unused_keys(lesson, [result["key"] for result in content["results"]], file)


def lesson_figure(root, profile, lesson, name):
    """Return the PNG of a figure that a lesson showed under a name, and what the lesson noted on it."""
    path = root / "build" / profile / "notebooks" / f"{lesson}.ipynb"
    if not path.is_file():
        raise LookupError(f"{path}: missing; execute the lesson first: crossfunc run {lesson} --profile {profile}")
    found = {shown: (png, note) for shown, png, note in static_figures(path)}
    if name not in found:
        known = ", ".join(found) or "none"
        raise LookupError(f"{path}: no static figure is shown under the name {name!r}; named figures: {known}.")
    return found[name]


def on_real_data(root, profile, lesson, dataset):
    """Return the folder in build/ that holds the lesson as executed on another dataset, or None if it is not fresh."""
    from crossfunc.lessons import LessonError, check_fresh
    from crossfunc.lessons.plans import plan_run

    if not dataset:
        return None
    values = {"dataset": dataset}
    try:
        fresh = not check_fresh(root, profile, names=[lesson], overrides=values)
        return plan_run(root, profile, [lesson], values)[0].folder.name if fresh else None
    except LessonError:
        return None  # the profile runs on this dataset anyway, or cannot


def _home(config):
    return Path(config.crossfunc_root), config.crossfunc_profile


class Claims(SphinxDirective):
    """Tables of results, one per lesson; `:lessons:` and `:keys:` narrow them, `:kept:` takes those of kept runs."""

    option_spec: ClassVar = dict.fromkeys(("lessons", "keys", "kept"), directives.unchanged)

    def run(self):
        """Write the tables as MyST and let MyST parse them, so that titles may hold math and links."""
        root, profile = _home(self.config)
        lines = []
        for lesson in self.options.get("lessons", "").split() or lessons(root):
            content = read_results(root, profile, lesson, kept=self.options.get("kept"))
            keys = self.options.get("keys", "").split()
            rows = [find_result(content, key, lesson) for key in keys] or content["results"]
            lines += claims_table(lesson, content, rows)
        return parse_lines(self, lines, "xf-claims")


def claims_table(lesson, content, rows):
    """Return the MyST lines of one lesson's table."""
    from crossfunc.plain_text import in_code, in_markdown

    notice = in_markdown(content.get("label_notice") or "")
    data = f"Dataset `{in_code(content['dataset'] or 'none')}`" + (f" ({notice})" if notice else "") + "."
    table = [("Claim", "Here", "Paper", "Why they differ")]
    for row in rows:
        note = f" ({row['note']})" if row["note"] else ""
        table.append((row["title"], value_text(row) + note, paper_text(row), row["why"] or "—"))
    # A column of dashes says nothing.
    shown = [k for k in range(4) if k < 2 or any(cells[k] != "—" for cells in table[1:])]
    widths = " ".join(str((32, 22, 14, 32)[k]) for k in shown)
    header, *cells = ([line[k] for k in shown] for line in table)
    return ["", f"**{{doc}}`/notebooks/{lesson}`**", "", data, "", *list_table(header, cells, widths=widths)]


class Result(SphinxRole):
    """One value inline, with unit and interval: {result}`lesson:key`, or {result}`lesson:key@profile` of a kept run."""

    def run(self):
        """Look the value up; a name that does not exist fails the build."""
        lesson, _, key = self.text.partition(":")
        key, _, kept = key.partition("@")
        content = read_results(*_home(self.config), lesson, kept=kept)
        text = value_text(find_result(content, key, lesson))
        return [nodes.inline(self.rawtext, text, classes=["xf-result"])], []


class LessonFigure(SphinxDirective):
    """A figure of a lesson on another page: ```{lesson-figure} 03_atomref_correlation fig-03-story```.

    With `:real: DATASET` the figure is that of the lesson on this dataset, if it was executed on it and is fresh; with
    `:kept: PROFILE` it is that of a kept run.
    """

    required_arguments = 2
    option_spec: ClassVar = {"real": directives.unchanged, "kept": directives.unchanged}

    def run(self):
        """Put the PNG of the executed lesson on this page, with its alternative text and caption."""
        lesson, name = self.arguments
        root, profile = _home(self.config)
        if real := on_real_data(root, profile, lesson, self.options.get("real")):
            profile = real
        kept = self.options.get("kept")
        try:
            png, note = (kept_figure if kept else lesson_figure)(root, kept or profile, lesson, name)
        except LookupError as error:
            raise ExtensionError(str(error)) from error
        name += f"-{kept}" if kept else ""
        target = Path(self.env.srcdir) / "_figures" / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(png)
        lines = [f"```{{figure}} /_figures/{name}.png", f":alt: {' '.join(note['alt'].split())}"]
        if float(note["width"].removesuffix("px")) > WIDE_PX:
            lines.append(":class: xf-wide")  # on a phone it scrolls instead of shrinking
        lines += [f":width: {note['width']}", "", f"{note['caption']} From {{doc}}`/notebooks/{lesson}`.", "```"]
        return parse_lines(self, lines)


def setup(app):
    """Register the directives and the role."""
    app.add_directive("claims", Claims)
    app.add_directive("lesson-figure", LessonFigure)
    app.add_role("result", Result())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
