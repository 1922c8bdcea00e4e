"""Measurements in book/benchmarks/NAME.json, made by ``crossfunc bench NAME --json``.

``{benchmark} NAME``          tables of all figures
``{benchmark-growth} NAME``   how time per target grows, drawn from the lists ``growth_with_...``
"""

import json
import re
from pathlib import Path

from book_tables import list_table, parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


def benchmark_tables(path):
    """Return (caption, header, rows) of each table of a measurement; a file that is missing stops the build.

    Single numbers share the first table; figures by batch and by step get one each.
    """
    return list(_tables(read_benchmark(path)))


def read_benchmark(path):
    """Return a measurement; a file that is missing stops the build."""
    if not path.is_file():
        raise ExtensionError(f"{path}: missing; make it with: crossfunc bench {path.stem} --json > {path}")
    return json.loads(path.read_text(encoding="utf-8"))


def _tables(measured, outer=""):
    single = [(_words(key), _inline(value)) for key, value in measured.items() if not _is_nested(value)]
    if single:
        yield outer, ("measured", ""), single
    for key, value in measured.items():
        if not _is_nested(value):
            continue
        caption = f"{outer}, {_words(key)}" if outer else _words(key)
        if isinstance(value, list):
            # energies are told apart by their last digits
            digits = {name: 6 if "energy" in name else 3 for name in value[0]}
            lines = [(_words(name), *(_digits(one.get(name), n) for one in value)) for name, n in digits.items()]
            yield caption, lines[0], lines[1:]  # few measurements of many figures: a column for each
            continue
        if not all(isinstance(inner, dict) for inner in value.values()):
            yield from _tables(value, caption)
            continue
        flat = {name: dict(_flatten(inner)) for name, inner in value.items()}
        columns = list(dict.fromkeys(column for row in flat.values() for column in row))
        rows = [(name, *(_digits(row.get(column)) for column in columns)) for name, row in flat.items()]
        yield caption, ("", *columns), rows


def _flatten(measured, outer=""):
    for key, value in measured.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{outer}{_words(key)}, ")
        else:
            yield outer + _words(key), value


def _is_nested(value):
    if isinstance(value, list):
        return bool(value) and all(isinstance(row, dict) for row in value)
    return isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values())


def _inline(value):
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_digits(inner)}" for name, inner in value.items())
    return _digits(value)


_UNITS = {
    "_ev_per_atom": "eV/atom",
    "_per_atom_ev": "eV/atom",
    "_per_atom_a3": "Å³/atom",
    "_ev_per_a": "eV/Å",
    "_gb": "GB",
    "_bytes": "bytes",
    "_ev": "eV",
}
_RATES = {"mb": "MB/s", "gflop": "GFLOP/s"}
_TIMES = {"ms": "ms", "seconds": "s"}


def _words(name):
    """A measurement's key as people read it: "n_frames" is "number of frames", "peak_rss_gb" "peak memory (GB)"."""
    name = str(name)
    if name.endswith("_per_s"):
        what, _, unit = name.removesuffix("_per_s").rpartition("_")
        return f"{_plain(what)} speed ({_RATES.get(unit, unit)})".strip()
    for key, unit in _TIMES.items():
        if found := re.fullmatch(rf"(?:(.*)_)?{key}(?:_(.*))?", name):
            before, after = (_plain(part) for part in found.groups(default=""))
            if after and not after.startswith(("per ", "to ", "of ")):
                before, after = f"{before} {after}".strip(), ""  # seconds_fit is the fit's time
            return " ".join(part for part in (before, "time", after, f"({unit})") if part)
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return f"{_plain(name.removesuffix(suffix))} ({unit})".strip()
    return _plain(name)


def _plain(name):
    words = re.sub(r"(^|_)n_", r"\1number of ", name).replace("_", " ")
    return words.replace("rss", "memory")


def _digits(value, significant=3):
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_digits, value)) or "none"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{significant}g}" if isinstance(value, float) else str(value)


def growth_figure(measured):
    """Draw median time per target against what it grows with, a panel for each; return figure and alternative text."""
    import matplotlib.pyplot as plt

    from crossfunc.lessons import figures

    figures.use_style()
    growths = {key.removeprefix("growth_with_"): rows for key, rows in measured.items() if key.startswith("growth_")}
    fig, axes = plt.subplots(1, len(growths), figsize=figures.wide(), sharey=True, squeeze=False)
    said = []
    for ax, (noun, rows) in zip(axes[0], growths.items(), strict=True):
        numbers = [row[f"n_{noun}"] for row in rows]
        for key, (name, look) in _SIDES.items():
            times = [1e3 * row[key] for row in rows]
            ax.plot(numbers, times, label=name, **look)
            said.append(f"{name}, from {_digits(times[0])} to {_digits(times[-1])} ms between {_ends(numbers)} {noun}")
        ax.set(yscale="log", xlabel=f"number of {noun}")
        ax.yaxis.set_major_formatter("{x:g}")
        if numbers[-1] > 10 * numbers[0]:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:,.0f}")
        else:
            ax.set_xticks(numbers)
    axes[0, 0].set_ylabel("time per target, median (ms)")
    axes[0, 0].legend()
    fig.tight_layout()
    return fig, f"{len(growths)} panels, logarithmic time per target. {'; '.join(said)}."


def stages_figure(measured):
    """Draw time and memory of every stage against its size, both logarithmic; return figure and alternative text."""
    import matplotlib.pyplot as plt

    from crossfunc.lessons import figures

    figures.use_style()
    fig, axes = plt.subplots(1, 2, figsize=(9.2, 5.6), layout="constrained")
    said = []
    for (name, stage), look in zip(measured["stages"].items(), _LOOKS, strict=False):
        rows = stage["rows"]
        label = f"{name} ({stage['of']}): {stage['time_exponent']:.2f}"
        axes[0].plot([row["size"] for row in rows], [row["seconds"] for row in rows], label=label, **look)
        there = [row for row in rows if row["memory_gb"]]
        axes[1].plot([row["size"] for row in there], [1e3 * row["memory_gb"] for row in there], **look)
        said.append(f"{name}, time as size to the {stage['time_exponent']:.2f}")
    for ax, label in zip(axes, ("time (s)", "memory above what was held before (MB)"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="size", ylabel=label)
    fig.legend(loc="outside lower center", ncols=2, title="stage (what its size counts): power of the time")
    return fig, f"Two panels, time and memory against size, logarithmic. {'; '.join(said)}."


_LOOKS = [
    {"color": color, "marker": marker, "ls": line}
    for color, marker, line in zip(
        ("#000000", "#7a7a7a", "#0072b2", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#e69f00"),
        "osD^v<>P",
        ("-", "--") * 4,
        strict=True,
    )
]
_SIDES = {
    "median_seconds_per_target": ("this library", {"color": "black", "marker": "o"}),
    "pymatgen_median_seconds_per_target": ("pymatgen", {"color": "#7a7a7a", "marker": "s", "ls": "--"}),
}


def _ends(numbers):
    return f"{numbers[0]:,} and {numbers[-1]:,}"


def _path(directive):
    return Path(directive.config.crossfunc_root) / "book" / "benchmarks" / f"{directive.arguments[0]}.json"


class Benchmark(SphinxDirective):
    """Tables of a committed measurement."""

    required_arguments = 1

    def run(self):
        """List what was measured under the names that the benchmark prints."""
        lines = []
        for caption, header, rows in benchmark_tables(_path(self)):
            lines += list_table(header, rows, caption=caption)
        return parse_lines(self, lines, "xf-datasheet")


class BenchmarkGrowth(SphinxDirective):
    """Figure of the growth of a committed measurement; the content is its caption."""

    required_arguments = 1
    has_content = True

    def run(self):
        """Draw the figure beside the pages, and show it under the name fig-NAME-growth."""
        import matplotlib.pyplot as plt

        name = f"{self.arguments[0]}-growth"
        measured = read_benchmark(_path(self))
        figure, alt = (stages_figure if "stages" in measured else growth_figure)(measured)
        folder = Path(self.env.srcdir) / "benchmarks"
        folder.mkdir(exist_ok=True)
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        options = [f":alt: {alt}", f":name: fig-{name}"]
        lines = [f"```{{figure}} /benchmarks/{name}.svg", *options, "", *self.content, "```"]
        return parse_lines(self, lines)


def setup(app):
    """Register the directives."""
    app.add_directive("benchmark", Benchmark)
    app.add_directive("benchmark-growth", BenchmarkGrowth)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
