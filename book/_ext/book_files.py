"""What each lesson's page offers beside its text: how long it took here, and its files for download."""

import re

from sphinx.errors import ExtensionError

FILES = "files"  # folder among the book's sources that holds what pages offer for download
_RUN_TIME = re.compile(r"\*\*Run time\*\*: [^.]*\.")
_KINDS = {".py": "the source of this page, a script that opens as a notebook", ".ipynb": "the notebook as executed"}
_MODELS = ".pt"


def with_measured_time(cells, lesson, timings, profile):
    """Write into the goal box how long the lesson took, in place of the estimate that its source has."""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and _RUN_TIME.search(source):
            cell["source"] = _RUN_TIME.sub(f"**Run time**: {time_text(lesson, timings, profile)}.", source, count=1)
            return
    raise ExtensionError(f"{lesson}: its goal box has no `**Run time**: ….`")


def time_text(lesson, timings, profile):
    """Return "48 s on 2 cores (profile smoke)" of a lesson that was timed; one that was not stops the build."""
    if lesson not in timings:
        raise ExtensionError(f"{lesson}: no time is known; crossfunc run {lesson} --profile {profile} --force")
    entry = timings[lesson]
    return f"{duration(entry['seconds'])} on {entry['cores']} cores (profile {profile}, when this book was made)"


def duration(seconds):
    """Return seconds as people say them: 48 s, 3 min 10 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def offered_files(root, profile, lesson):
    """Return the files of a lesson's page: source, executed notebook, results (models are left where they are)."""
    built = root / "build" / profile
    results = [p for p in sorted((built / "results").glob(f"{lesson}.*")) if p.suffix != _MODELS]
    return [root / "notebooks" / f"{lesson}.py", built / "notebooks" / f"{lesson}.ipynb", *results]


def files_cell(lesson, files, profile):
    """Return the Markdown cell that ends a lesson's page."""
    lines = ["## Files of this lesson", ""]
    for file in files:
        kind = _KINDS.get(file.suffix, "results" if file.stem == lesson else "a table of results")
        lines.append(f"- {{download}}`{file.name} <../{FILES}/{lesson}/{file.name}>`, {kind}")
    number = lesson.partition("_")[0]
    lines += [
        "",
        f"`crossfunc run {number} --profile {profile}` makes them again, in `build/{profile}/`; "
        "{doc}`/parameters` lists what can be changed.",
    ]
    return {"cell_type": "markdown", "id": f"{lesson[:50]}-files", "metadata": {}, "source": "\n".join(lines)}
