"""What a rerunner needs to know, read from the lessons themselves and from what was measured.

``{parameters}``   a table per lesson: each parameter with its meaning, range, default, other values, effect on the time
``{timings}``      how long each lesson took, for each profile that was executed here
"""

from pathlib import Path

from book_files import duration
from book_fresh import lessons
from book_tables import list_table, parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

PROFILES = ("laptop", "smoke", "gpu", "paper")
"""Profiles whose times are shown; the first is the book's own."""
HEADER = ("parameter", "meaning", "takes", "laptop (default)", "in other profiles", "run time")


def parameter_rows(lesson, profiles):
    """Return one row per parameter, as `HEADER` says; other profiles are named where they differ from the first."""
    from crossfunc.lessons.limits import TIMES
    from crossfunc.lessons.profiles import resolve_parameters
    from crossfunc.lessons.sources import RESULTS_PARAMETER

    values = {profile.name: resolve_parameters(lesson, profile) for profile in profiles}
    rows, meaning = [], ""
    for name, parameter in lesson.parameters.items():
        meaning = parameter.meaning or meaning  # two lines may share the comment of the first
        if not meaning:
            raise ExtensionError(f"{lesson.source_name}: parameter `{name}` has no comment that says what it is.")
        if name == RESULTS_PARAMETER:
            rows.append((f"`{name}`", meaning, "folder", "set by the runner", "", TIMES["none"]))
            continue
        default, *others = values
        usual = values[default][name]
        differing = [f"{p} `{values[p][name]}`" for p in others if values[p][name] != usual]
        takes, time = parameter.takes or "anything", TIMES[parameter.limits.time]
        rows.append((f"`{name}`", meaning, takes, f"`{usual}`", ", ".join(differing), time))
    return rows


def timing_table(root, built):
    """Return header and rows of the seconds each lesson took, by profile; `built` is the profile of this book."""
    from crossfunc.lessons.freshness import check_fresh
    from crossfunc.lessons.timings import TIMINGS_FILE, read_timings

    columns, cores = {}, {}
    for profile in PROFILES:
        folder = root / "build" / profile
        if profile != built and not (folder / TIMINGS_FILE).is_file():
            continue
        old = {problem.lesson for problem in check_fresh(root, profile)}
        timings = {name: entry for name, entry in read_timings(folder).items() if name not in old}
        if timings:
            columns[profile] = {name: entry["seconds"] for name, entry in timings.items()}
            cores[profile] = max(entry["cores"] for entry in timings.values())
    if missing := [name for name in lessons(root) if name not in columns.get(built, {})]:
        raise ExtensionError(f"{missing[0]}: no time is known; crossfunc run --profile {built} --force")
    header = ["lesson", *(f"{profile}, {cores[profile]} cores" for profile in columns)]
    rows = []
    for name in lessons(root):
        seconds = (column.get(name) for column in columns.values())
        rows.append([f"{{doc}}`/notebooks/{name}`", *("–" if s is None else duration(s) for s in seconds)])
    complete = (column if set(lessons(root)) <= set(column) else None for column in columns.values())
    rows.append(["all lessons", *("–" if c is None else duration(sum(c.values())) for c in complete)])
    return header, rows


class Parameters(SphinxDirective):
    """A table per lesson."""

    def run(self):
        """Read the `parameters` cells and the profiles."""
        from crossfunc.lessons.profiles import load_profile
        from crossfunc.lessons.sources import Lesson, spoken_number

        folder = Path(self.config.crossfunc_root) / "notebooks"
        names = [PROFILES[0], *sorted({path.stem for path in folder.glob("profiles/*.yml")} - {PROFILES[0]})]
        profiles = [load_profile(folder, name) for name in names]
        lines = []
        for name in lessons(folder.parent):
            rows = parameter_rows(Lesson(folder / f"{name}.py"), profiles)
            table = list_table(HEADER, rows, "16 30 16 14 16 8")
            lines += [f"**Lesson {spoken_number(name)}: {{doc}}`/notebooks/{name}`**", "", *table]
        return parse_lines(self, lines, "xf-datasheet", "xf-parameters")


class Timings(SphinxDirective):
    """A table of measured times."""

    def run(self):
        """Read what the runner noted."""
        table = timing_table(Path(self.config.crossfunc_root), self.config.crossfunc_profile)
        return parse_lines(self, list_table(*table), "xf-datasheet")


def setup(app):
    """Register the directives."""
    app.add_directive("parameters", Parameters)
    app.add_directive("timings", Timings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
