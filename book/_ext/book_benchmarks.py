"""Measurements in book/benchmarks/NAME.json, made by ``crossfunc bench NAME --json`` or what `COMMANDS` has for NAME.

``{benchmark-headline}``      one bar for each thing that is faster, from all measurements; the content is its caption
``{benchmark} NAME``          the first table, and all others folded
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


COMMANDS = {"devices": "train --devices 2", "methods": "train --methods", "peers": "train --peers"}
"""What makes a measurement that has no command of its own name."""


def read_benchmark(path):
    """Return a measurement; a file that is missing stops the build."""
    if not path.is_file():
        command = COMMANDS.get(path.stem, path.stem)
        raise ExtensionError(f"{path}: missing; make it with: crossfunc bench {command} --json > {path}")
    return json.loads(path.read_text(encoding="utf-8"))


def _tables(measured, outer=""):
    measured = {key: value for key, value in measured.items() if value is not None}  # a part that was left out
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
_TITLES = {
    "mflop_per_frame": "arithmetic per frame (MFLOP)",
    "share": "share of the speed of a matrix product of these sizes",
    "matmul_gflop_per_s": "speed of matrix products, thin and large (GFLOP/s)",
    "without_page_faults": "with an allocator that keeps freed memory",
    "speedup": "chgnet's time over ours",
    "speedup_of_medians": "pymatgen's median time over ours",
    "alone_over_together": "time of one process over that of two",
    "time_over_linear": "time of the largest cell over that of linear growth",
    "cpu_time_over_linear": "CPU time of the largest cell over that of linear growth",
    "one_thread_over_most": "one thread over two, ours",
    "ms_1_thread": "ours, 1 thread (ms)",
    "ms_2_threads": "ours, 2 threads (ms)",
    "chgnet_ms_1_thread": "chgnet, 1 thread (ms)",
    "chgnet_ms_2_threads": "chgnet, 2 threads (ms)",
    "ratio_1_thread": "ratio, 1 thread",
    "ratio_2_threads": "ratio, 2 threads",
    "neighbours_ms": "of which neighbours (ms)",
    "n_trained": "number of parameters trained",
    "bar_gb": "bar: as much memory may be used (GB)",
    "n_compared": "targets compared with pymatgen",
    "n_pymatgen_stopped_early": "targets for which pymatgen stopped early",
    "chgnet_slice_frames": "frames that chgnet's fit was timed on",
    "other_basin": "crystals that end in another basin",
    "seconds_index": "time to index the entries (s)",
    "seconds_first": "time of the first call (s)",
    "algorithm_of_chgnet": "chgnet's algorithm",
    "load_average_at_start": "load of the machine at the start",
    "fmax_ev_per_a": "limit on the forces (eV/Å)",
}
"""Keys whose own words would tell a reader nothing."""
_RATES = {"mb": "MB/s", "gflop": "GFLOP/s"}
_TIMES = {"ms": "ms", "seconds": "s"}


def _words(name):
    """A measurement's key as people read it: "n_frames" is "number of frames", "peak_rss_gb" "peak memory (GB)"."""
    name = str(name)
    if name in _TITLES:
        return _TITLES[name]
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
        first, *others = (list_table(h, rows, caption=c) for c, h, rows in benchmark_tables(_path(self)))
        if others:
            more = [f":::{{admonition}} {len(others)} more tables", ":class: dropdown", ""]
            first = [*first, *more, *(line for table in others for line in table), ":::", ""]
        return parse_lines(self, first, "xf-datasheet", "xf-benchmark")


HEADLINE = (
    ("training step", "chgnet's Trainer", "train", ("speedup",)),
    (
        "energy, forces and stress, 64 atoms",
        "chgnet's calculator",
        "predict",
        ("one_crystal", "64 atoms", "ratio_2_threads"),
    ),
    ("molecular dynamics, 64 atoms", "chgnet's own", "predict", ("molecular_dynamics", "64 atoms", "ratio")),
    ("graphs of 31 atoms", "chgnet's converter", "graphs", ("n_atoms", "31", "ratio")),
    ("relaxing {n_structures} crystals", "chgnet's relaxer", "relax", ("speedup",)),
    ("decomposition energy, median", "pymatgen's PhaseDiagram", "hull", ("speedup_of_medians",)),
    ("references of {n_frames:,} frames", "chgnet's AtomRef", "atomref", ("speedup",)),
)
"""What is timed (with figures of its measurement), beside whom, and where the ratio stands."""


def headline_rows(folder):
    """Return (what, beside whom, ratio) of each bar, from the measurements in a folder."""
    rows = []
    for what, peer, name, keys in HEADLINE:
        measured = value = read_benchmark(folder / f"{name}.json")
        for key in keys:
            value = value[key]
        rows.append((what.format(**measured), peer, value))
    return rows


def headline_figure(rows):
    """Draw a bar for each ratio of times; return figure and alternative text."""
    import matplotlib.pyplot as plt

    from crossfunc.lessons import figures

    figures.use_style()
    fig, ax = plt.subplots(figsize=(7.2, 0.42 * len(rows) + 0.9), layout="constrained")
    ratios = [ratio for *_, ratio in rows]
    ax.barh(range(len(rows)), ratios, color=figures.COLORS["r2scan"], height=0.62)
    for k, ratio in enumerate(ratios):
        ax.annotate(f"{ratio:.0f} ×", (ratio, k), xytext=(4, 0), textcoords="offset points", va="center")
    ax.axvline(1, color="black", lw=0.8)
    ax.set(xscale="log", xlim=(1, 2.2 * max(ratios)), xlabel="time of the other over ours")
    ax.set_yticks(range(len(rows)), [f"{what}\n({peer})" for what, peer, _ in rows], fontsize=8)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.invert_yaxis()
    said = "; ".join(f"{what}, beside {peer}: {ratio:.1f}" for what, peer, ratio in rows)
    return fig, f"Bars, logarithmic: time of the other over ours. {said}."


class BenchmarkHeadline(SphinxDirective):
    """Figure of the ratios of all measurements; the content is its caption."""

    has_content = True

    def run(self):
        """Draw the figure beside the pages, and show it under the name fig-speedups."""
        rows = headline_rows(Path(self.config.crossfunc_root) / "book" / "benchmarks")
        return _show(self, "speedups", *headline_figure(rows))


class BenchmarkGrowth(SphinxDirective):
    """Figure of the growth of a committed measurement; the content is its caption."""

    required_arguments = 1
    has_content = True

    def run(self):
        """Draw the figure beside the pages, and show it under the name fig-NAME-growth."""
        measured = read_benchmark(_path(self))
        drawn = (stages_figure if "stages" in measured else growth_figure)(measured)
        return _show(self, f"{self.arguments[0]}-growth", *drawn, "xf-wide")


def _show(directive, name, figure, alt, *classes):
    """Write a figure beside the pages and show it under the name fig-NAME, with the directive's content as caption."""
    import matplotlib.pyplot as plt

    folder = Path(directive.env.srcdir) / "benchmarks"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    options = [f":alt: {alt}", f":name: fig-{name}", *(f":class: {one}" for one in classes)]
    lines = [f"```{{figure}} /benchmarks/{name}.svg", *options, "", *directive.content, "```"]
    return parse_lines(directive, lines)


def setup(app):
    """Register the directives."""
    app.add_directive("benchmark", Benchmark)
    app.add_directive("benchmark-headline", BenchmarkHeadline)
    app.add_directive("benchmark-growth", BenchmarkGrowth)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
