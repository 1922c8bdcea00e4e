"""Refuse to build from lessons that are missing, failed, unfinished or older than what they were made from.

With execution off, a notebook whose last cell raised renders like any other and exits 0, even under ``-W``.
What counts as stale is decided in ``crossfunc.lessons.freshness``; here the answer stops the build.
"""

from pathlib import Path

import yaml
from sphinx.errors import ExtensionError


def lessons(root):
    """Return the names of the lessons, in the order of the table of contents."""
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [Path(file).name for file in files if file.startswith("notebooks/")]


def problems(root, profile):
    """Return one sentence per reason why the executed lessons of a profile must not be shown; empty if all is well."""
    from crossfunc.lessons import LessonError, check_fresh
    from crossfunc.lessons.sources import find_lessons

    listed, present = lessons(root), [lesson.stem for lesson in find_lessons(root / "notebooks")]
    found = [f"{name}: in book/_toc.yml, but there is no notebooks/{name}.py" for name in listed if name not in present]
    found += [f"{name}: a lesson, but book/_toc.yml does not list it" for name in present if name not in listed]
    try:
        return found + [str(problem) for problem in check_fresh(root, profile)]
    except LessonError as error:
        return [*found, str(error)]


def complaint(root, profile):
    """Return what to tell people about lessons that must not be shown, or None."""
    found = problems(root, profile)
    if not found:
        return None
    listed = "\n".join(f"  - {problem}" for problem in found)
    return (
        f"the lessons of profile {profile!r} are not fit to print:\n{listed}\n"
        f"Execute them again: crossfunc run --profile {profile}"
    )


def refuse_stale(app, config):
    """Stop the build before a page is read."""
    if not config.crossfunc_root:
        raise ExtensionError("build the book with `make book`: it stages the executed lessons that this needs.")
    if found := complaint(Path(config.crossfunc_root), config.crossfunc_profile):
        raise ExtensionError(found)


def setup(app):
    """Register the check and the two settings that book/build.py fills in."""
    app.add_config_value("crossfunc_root", "", "env")
    app.add_config_value("crossfunc_profile", "", "env")
    app.connect("config-inited", refuse_stale)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
