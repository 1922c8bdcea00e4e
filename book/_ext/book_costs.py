"""``{paper-costs}``: what the paper profile costs, computed from its sizes and from committed measurements.

Numbers of frames and steps are read from the lessons and from notebooks/profiles/paper.yml, costs from
book/benchmarks/*.json. Nothing is typed here, so a faster training step or another profile changes the page.
"""

from pathlib import Path

from book_benchmarks import read_benchmark
from book_tables import list_table, parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

ATOMS_PER_FRAME = 31
"""Mean of MP-r2SCAN."""
LARGEST_BATCH = "MgAl2O4"  # of bench train: the one nearest in size to a frame of MP-r2SCAN
GPU_TFLOPS = (1, 5, 20)
RUNS_OF_LESSON_4 = {
    "Methods 1 to 4": 4,
    "scratch on GGA references": 1,
    "Method 4 with the published table": 1,
    "model-aware, then trained": 1,
}
STARTS_OF_LESSON_5 = 3
CURVES_OF_LESSON_7 = 3
RUNS_BESIDE_THE_CURVES = 1  # the smallest size again, under chgnet's schedule


def paper_parameters(root, lesson):
    """Values that the profile `paper` gives a lesson."""
    from crossfunc.lessons.profiles import load_profile, resolve_parameters
    from crossfunc.lessons.sources import find_lessons

    notebooks = Path(root) / "notebooks"
    for one in find_lessons(notebooks):
        if one.stem == lesson:
            return resolve_parameters(one, load_profile(notebooks, "paper"))
    raise ExtensionError(f"paper-costs: no lesson {lesson!r}")


def frames_trained(root):
    """Frames that each training stage of the paper profile takes through the network, by stage."""
    four, five, seven = (
        paper_parameters(root, name) for name in ("04_four_methods", "05_gradient_diagnostics", "07_scaling_laws")
    )
    per_run = four["n_train_frames"] * four["n_epochs"]
    runs = CURVES_OF_LESSON_7 * len(seven["sizes"]) + RUNS_BESIDE_THE_CURVES
    return {
        "one method, one seed": per_run,
        "Table 1 and Fig. 3 (lesson 4)": per_run * sum(RUNS_OF_LESSON_4.values()) * four["n_seeds"],
        "Fig. 3a (lesson 5)": STARTS_OF_LESSON_5 * five["n_seeds"] * five["n_train"] * five["n_epochs"],
        "Fig. 6 (lesson 7)": runs * seven["n_seeds"] * seven["max_steps"] * seven["batch_size"],
    }


def cost_per_frame(root):
    """Seconds here and floating-point operations of one frame of 31 atoms in a training step, from bench train.

    Measured on cells of 14 atoms and taken to grow with the number of atoms: an atom has the same neighbours in a
    larger cell.
    """
    train = read_benchmark(Path(root) / "book" / "benchmarks" / "train.json")
    larger = ATOMS_PER_FRAME / train["atoms_per_frame"][LARGEST_BATCH]
    seconds = train["ms_per_frame"][LARGEST_BATCH]["ours"] / 1000 * larger
    flop = train["mflop_per_frame"][LARGEST_BATCH]["ours"] * 1e6 * larger
    return seconds, flop


def measured_rows(root):
    """Stages that were run at their full size: (stage, time, memory, disk)."""
    found = {
        n: read_benchmark(Path(root) / "book" / "benchmarks" / f"{n}.json") for n in ("import", "atomref", "memory")
    }
    imported, atomref, memory = found.values()
    return [
        (
            f"import of {imported['n_frames']:,} frames",
            f"{duration(imported['seconds'])} ({imported['mb_per_s']:.0f} MB/s)",
            f"{imported['peak_rss_gb']:.2f} GB",
            f"{imported['n_bytes'] / 1e9:.2f} GB read, {imported['output_bytes'] / 1e9:.2f} GB written",
        ),
        (
            "check of every row, without a model",
            duration(imported["check_seconds"]),
            f"{imported['check_peak_rss_gb']:.2f} GB",
            "nothing",
        ),
        (
            f"element references of {atomref['n_frames']:,} frames",
            duration(atomref["seconds"]),
            f"{atomref['peak_rss_gb']:.2f} GB",
            "nothing",
        ),
        (
            f"training on {memory['n_frames']:,} frames of {memory['n_atoms_per_frame']} atoms",
            "see below",
            f"{memory['peak_gb']:.2f} GB besides the page cache",
            f"{memory['file_gb']:.2f} GB read",
        ),
    ]


def training_rows(root):
    """Training stages: (stage, frames, time here, arithmetic, hours at each assumed rate)."""
    seconds, flop = cost_per_frame(root)
    rows = []
    for stage, n in frames_trained(root).items():
        hours = (duration(n * flop / (rate * 1e12)) for rate in GPU_TFLOPS)
        rows.append((stage, f"{n:,}", duration(n * seconds), f"{n * flop:.1e}", *hours))
    return rows


def duration(seconds):
    """A time as people say it: 0.07 s, 81 s, 4 min, 3.2 h, 60 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


class PaperCosts(SphinxDirective):
    """Two tables: what was measured at full size, and what follows for training."""

    def run(self):
        """Write the tables as MyST."""
        root = self.config.crossfunc_root
        rates = [f"at {rate} TFLOP/s" for rate in GPU_TFLOPS]
        measured = ("stage", "time", "memory", "disk")
        extrapolated = ("stage", "frames through the network", "this machine", "FLOP", *rates)
        lines = list_table(measured, measured_rows(root), caption="Measured at the full size")
        lines += list_table(extrapolated, training_rows(root), caption="Extrapolated: training")
        return parse_lines(self, lines, "xf-datasheet")


def setup(app):
    """Register the directive."""
    app.add_directive("paper-costs", PaperCosts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
