"""How time and memory grow with size: import, check, references, hull, graphs, training step, prediction, relaxation.

Each has a process of its own, which goes from small to large. Memory is what the process holds at most above what it
held when its libraries were loaded and the input of the size was made.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfunc.bench.atomref import synthetic_frames
from crossfunc.bench.graphs import perovskite, rattled_crystals
from crossfunc.bench.hull import synthetic_entries
from crossfunc.bench.imports import write_synthetic_json
from crossfunc.bench.predict import rock_salt
from crossfunc.bench.progress import held_gb, in_fresh_process, scratch_folder, status_gb, tell

_N_STEPS = 10  # of a relaxation
_REPEATS = 5
_ENOUGH_S = 0.5  # of calls of one size; the median counts


@dataclass(frozen=True)
class Stage:
    """What is measured.

    Attributes
    ----------
    of : str
        What its size counts.
    sizes : tuple of int
        Three decades where the data can be made.
    prepare : callable
        (size, folder) to the call that is measured.
    """

    of: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, Path], Callable]


def _import(size: int, folder: Path) -> Callable:
    from crossfunc.datasets.importers.mp_r2scan import import_mp_frames

    file = folder / f"{size}.json"
    write_synthetic_json(file, size)
    return lambda: import_mp_frames(file, folder / str(size))


def _check(size: int, folder: Path) -> Callable:
    from crossfunc.datasets import check_dataset

    _import(size, folder)()
    return lambda: check_dataset(folder / str(size))


def _references(size: int, folder: Path) -> Callable:  # noqa: ARG001, as all
    from crossfunc.energies.atomref import fit_atomref
    from crossfunc.energies.composition import composition_matrix

    table = synthetic_frames(size)
    return lambda: fit_atomref(composition_matrix(table), table.column("energy_per_atom_ev").to_numpy())


def _hull(size: int, folder: Path) -> Callable:  # noqa: ARG001
    from crossfunc.stability.hull import hull_report

    entries = synthetic_entries(size)
    return lambda: hull_report(entries, entries, n_jobs=1)


def _graphs(size: int, folder: Path) -> Callable:  # noqa: ARG001
    from crossfunc.potential.graphs import build_graphs

    crystals = rattled_crystals(perovskite(), size)
    return lambda: sum(len(indices) for indices, _ in build_graphs(crystals))


def _training_step(size: int, folder: Path) -> Callable:  # noqa: ARG001
    from crossfunc.bench.train import Step, frames_of

    return Step(frames_of("SrTiO3", size))


def _prediction(size: int, folder: Path) -> Callable:  # noqa: ARG001
    from crossfunc.potential import load_model, predict

    model, atoms = load_model("0.3.0"), rock_salt(size)
    return lambda: predict(model, [atoms])


def _relaxation(size: int, folder: Path) -> Callable:  # noqa: ARG001
    from crossfunc.potential import load_model
    from crossfunc.stability.relax import relax

    model, crystals = load_model("0.3.0"), rattled_crystals(perovskite(), size)
    return lambda: relax(model, crystals, fmax=1e-9, max_steps=_N_STEPS)


STAGES = {
    "import": Stage("frames of 31 atoms", (100, 1_000, 10_000, 100_000), _import),
    "check": Stage("frames of 31 atoms", (100, 1_000, 10_000, 100_000), _check),
    "references": Stage("frames", (1_000, 10_000, 100_000, 1_000_000), _references),
    "hull, all against all": Stage("phases", (200, 2_000, 20_000, 100_000), _hull),
    "graphs": Stage("crystals of 5 atoms", (10, 100, 1_000, 10_000), _graphs),
    "training step": Stage("crystals of 5 atoms", (1, 10, 100, 1_000), _training_step),
    "prediction": Stage("atoms of one crystal", (8, 64, 1_000, 10_000), _prediction),
    f"relaxation, {_N_STEPS} steps": Stage("crystals of 5 atoms", (1, 10, 100, 1_000), _relaxation),
}


def run(*, full: bool = False, stages: dict[str, Stage] | None = None, folder: str | Path | None = None) -> dict:
    """Measure time and memory of every stage at its sizes.

    Parameters
    ----------
    full : bool
        The largest sizes as well, with which it takes some minutes.
    stages : dict of str to Stage, optional
        By default all.
    folder : str or path, optional
        Where files are made; by default a temporary folder. They are deleted afterwards.

    Returns
    -------
    dict
        `stages`: by name, `of` and `rows` (`size`, `seconds`, `memory_gb`), and `time_exponent`, the slope of
        log time against log size between the last two sizes: 1 where twice the size takes twice the time.
    """
    import torch

    found = {}
    for name, stage in (stages or STAGES).items():
        sizes = stage.sizes if full or len(stage.sizes) < 3 else stage.sizes[:-1]
        with scratch_folder(folder) as scratch:
            rows = in_fresh_process(_measure, stage, sizes, scratch)
        found[name] = {"of": stage.of, "rows": rows, "time_exponent": exponent(rows[-2:])}
        tell(f"{name}: " + ", ".join(f"{row['size']:,} in {row['seconds']:.3g} s" for row in rows))
    return {"stages": found, "full": full, "threads": torch.get_num_threads()}


def exponent(rows: list[dict]) -> float | None:
    """Slope of log time against log size through the ends of some rows; None of fewer than two."""
    if len(rows) < 2:
        return None
    (size, seconds), (other, others) = ((rows[k]["size"], rows[k]["seconds"]) for k in (0, -1))
    return float(np.log(others / seconds) / np.log(other / size))


def _measure(stage: Stage, sizes: tuple[int, ...], folder: Path) -> list[dict]:
    """In the fresh process: a row for each size, after a call of the smallest that does not count."""
    _calls(stage, sizes[0], folder / "first", 1)  # loads libraries
    rows = []
    for size in sizes:
        times, memory_gb = _calls(stage, size, folder / str(size), _REPEATS)
        rows.append({"size": size, "seconds": statistics.median(times), "memory_gb": memory_gb})
    return rows


def _calls(stage: Stage, size: int, folder: Path, most: int) -> tuple[list[float], float | None]:
    """Seconds of each of some calls, of one that takes long, and the memory of the first."""
    times: list[float] = []
    memory_gb = None
    while len(times) < most and sum(times) < _ENOUGH_S:
        place = folder / str(len(times))
        place.mkdir(parents=True)
        call = stage.prepare(size, place)
        before = None
        with suppress(OSError):  # of a system that does not tell
            before = held_gb()
        clock = time.perf_counter()
        call()
        times.append(time.perf_counter() - clock)
        if memory_gb is None and before is not None:
            memory_gb = max(0.0, status_gb("VmHWM") - before)
    return times, memory_gb


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    lines = []
    for name, stage in report["stages"].items():
        lines.append(f"{name}, time as size to the {stage['time_exponent']:.2f}" if stage["time_exponent"] else name)
        for row in stage["rows"]:
            memory = "" if row["memory_gb"] is None else f"{row['memory_gb']:10.3f} GB"
            lines.append(f"{row['size']:>12,} {stage['of']:<24}{row['seconds']:10.3g} s{memory}")
    return "\n".join(lines)
