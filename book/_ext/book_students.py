"""Another network's comparison of references, from the runs that ``crossfunc bench students`` kept in book/students."""

from pathlib import Path

from book_tables import list_table, parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

_TARGETS = {"energy": "energy, meV/atom", "forces": "force, meV/Å", "stress": "stress, GPa"}
_SHORT = {"2": "Method 2", "3": "Method 3", "4": "Method 4"}


def student_lines(runs):
    """Return the MyST lines: errors of each method with intervals, then differences with their verdicts."""
    from crossfunc.bench.students import METHODS, differences, mean_errors

    some = next(iter(runs.values()))
    about, n_seeds = some[0], len(some)
    zero = mean_errors(some, "errors_of_zero")
    rows = [("predicting zero", *(_shown(zero[target]) if target in zero else "—" for target in _TARGETS))]
    for method, of_method in runs.items():
        found = mean_errors(of_method)
        rows.append((_named(method, METHODS), *(_shown(found[target]) for target in _TARGETS)))
    caption = (
        f"{about['student']} on `{about['dataset']}`: mean absolute errors on test materials, {n_seeds} seeds, "
        f"{about['settings']['n_steps']} steps of {about['settings']['batch_size']} frames, with 95 % intervals over "
        f"materials and runs. {about['label_notice'][:1].upper()}{about['label_notice'][1:]}"
    )
    lines = [*list_table(("Student", *_TARGETS.values()), rows, "34 22 22 22", caption=caption), ""]
    compared = differences(runs)
    rows = [
        (f"{_SHORT.get(one, one)} less {_SHORT.get(other, other)}", *(_verdict(made[target]) for target in _TARGETS))
        for (one, other), made in compared.items()
    ]
    table = list_table(("Difference", *_TARGETS.values()), rows, "34 22 22 22", caption="On equal frames")
    return [*lines, *table, "", answer(compared), ""]


def answer(made):
    """Say, from the paired differences, whether the paper's conclusion holds for this network within these steps."""
    parts = []
    for pair, beginning in (
        (("4", "3"), "Against frozen references (Method 3), refitted ones (Method 4) end"),
        (("4", "references only"), "Against new references without any training, Method 4 ends"),
        (("model-aware", "4"), "Against Method 4, training from model-aware references ends"),
    ):
        if pair in made:
            parts.append(f"{beginning} {_in_words(made[pair])}.")
    return " ".join(parts)


def _in_words(of_targets):
    """Return "lower in energy, higher in forces and unclear in stress"."""
    said = [f"{estimate.verdict} in {target}" for target, estimate in of_targets.items()]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def not_made(name):
    """Return what stands on the page while no run is kept."""
    return f"Not measured: no run on `{name}` is kept yet."


def _named(method, methods):
    return f"{_SHORT.get(method, method)}: {methods[method]}" if method in methods else method


def _shown(estimate):
    if estimate.interval is None:
        return _number(estimate.value)
    return f"{_number(estimate.value)} ({_number(estimate.low)} to {_number(estimate.high)})"


def _number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(estimate):
    return f"**{estimate.verdict}**: {_shown(estimate)}".replace("-", "−")


class Students(SphinxDirective):
    """The runs of one dataset."""

    required_arguments = 1

    def run(self):
        """Nest the tables where the directive stands."""
        from crossfunc.bench.students import read_runs
        from crossfunc.errors import InputError

        name = self.arguments[0]
        folder = Path(self.config.crossfunc_root) / "book" / "students" / name
        try:
            lines = student_lines(read_runs(folder)) if folder.is_dir() else [not_made(name)]
        except InputError as error:
            raise ExtensionError(str(error)) from error
        return parse_lines(self, lines, "xf-datasheet")


def setup(app):
    """Register the directive."""
    app.add_directive("students", Students)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
