"""Time of predicting for one crystal, small to large, and of molecular dynamics, beside chgnet's own calculator.

Rock salt, displaced at random for each call. Both calculators take turns in one process and minima count; cells too
large for that get a fresh process each, which also tells the peak of its memory.
"""

import contextlib
import io
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from crossfunc.bench.memory import BenchError
from crossfunc.bench.progress import in_fresh_process, status_gb, tell
from crossfunc.potential import load_model
from crossfunc.potential.calculator import CHGNetCalculator
from crossfunc.potential.crystals import Crystals
from crossfunc.potential.graphs import find_bonds
from crossfunc.vendor import import_chgnet

SMALL = (2, 8, 64, 216)
LARGE = (1_000, 4_096, 10_000)
_REPEATS = {2: None, 8: (1, 1, 1), 64: (2, 2, 2), 216: (3, 3, 3), 1_000: (5, 5, 5), 4_096: (8, 8, 8)}
_REPEATS[10_000] = (5, 10, 25)
_CONSTANT_A = 5.69
_AWAY_A = 0.02
_TIMESTEP_FS = 2.0
_STATUS = Path("/proc/self/status")


def rock_salt(n_atoms: int, seed: int = 0):
    """NaCl of so many atoms, 2 in the primitive cell, each 0.02 Å away from its place.

    Parameters
    ----------
    n_atoms : int
        One of `SMALL` or `LARGE`.
    seed : int

    Returns
    -------
    ase.Atoms
    """
    from ase.build import bulk

    repeats = _REPEATS[n_atoms]
    atoms = bulk("NaCl", "rocksalt", _CONSTANT_A, cubic=repeats is not None)
    atoms = atoms if repeats is None else atoms * repeats
    atoms.rattle(_AWAY_A, seed=seed)
    return atoms


def run(
    small: tuple[int, ...] = SMALL,
    large: tuple[int, ...] = LARGE,
    *,
    threads: tuple[int, ...] = (1, 2),
    seconds: float = 6.0,
    n_steps: int = 10,
    full: bool = False,
) -> dict:
    """Measure one crystal of each size with both calculators.

    Parameters
    ----------
    small : tuple of int
        Atoms of cells that take turns in this process.
    large : tuple of int
        Atoms of cells that get a process of their own, with the last number of threads; chgnet has the first of them.
    threads : tuple of int
        Threads of PyTorch.
    seconds : float
        For each size and number of threads; three turns at least.
    n_steps : int
        Molecular dynamics between two looks at the clock.
    full : bool
        Measure chgnet at 4,096 atoms as well, which takes 21 GB.

    Returns
    -------
    dict
        `one_crystal`: by size, time of energy and forces (ms) of both, and their ratio, for each number of threads, and
        our time on one thread over that on the most. `molecular_dynamics`: ns/day of both, 2 fs per step, on the most
        threads. `large_cells`: seconds, seconds of all cores together, and peak memory (GB) of the process.
        `time_over_linear`, `cpu_time_over_linear`: per atom, the largest large cell against the first.
        `load_average_at_start`: where it is above the number of `cores`, others were working, too, and times and gains
        of threads are not those of a machine of one's own.

    Raises
    ------
    BenchError
        The system does not tell its memory (Linux does, in /proc).
    """
    from importlib.metadata import version

    import torch

    if large and not _STATUS.exists():
        raise BenchError(f"{_STATUS} does not exist: memory is measured on Linux only.")
    before, load = torch.get_num_threads(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    ours, theirs = CHGNetCalculator(load_model("0.3.0")), _chgnets_calculator()
    crystals: dict[str, dict] = {f"{n:,} atoms": {} for n in small}
    try:
        for n_threads in threads:
            torch.set_num_threads(n_threads)
            for n in small:
                row = _beside(n, ours, theirs, seconds)
                name = f"{n_threads} thread{'s' * (n_threads > 1)}".replace(" ", "_")
                crystals[f"{n:,} atoms"] |= {f"{key}_{name}": value for key, value in row.items()}
                tell(f"{n} atoms, {name}: {row['ms']:.3g} ms, chgnet {row['chgnet_ms']:.3g} ms, {row['ratio']:.2f} x")
        for row in crystals.values():
            times = [value for key, value in row.items() if key.startswith("ms_")]
            row["one_thread_over_most"] = times[0] / times[-1]
        for n in small:
            crystals[f"{n:,} atoms"]["neighbours_ms"] = _neighbours_ms(n)
        dynamics = {f"{n:,} atoms": _dynamics(n, ours, theirs, n_steps, seconds) for n in small[1:3]}
    finally:
        torch.set_num_threads(before)
    cells = {f"{n:,} atoms": _alone(n, threads[-1], k < 1 + full) for k, n in enumerate(large)}

    def over_linear(key: str) -> float | None:
        per_atom = [row[key] / n for n, row in zip(large, cells.values(), strict=True)]
        return per_atom[-1] / per_atom[0] if len(per_atom) > 1 else None

    return {
        "model": "0.3.0",
        "crystal": "NaCl, displaced",
        "cores": os.cpu_count(),
        "load_average_at_start": load,
        "torch_threads_of_large_cells": threads[-1],
        "time_over_linear": over_linear("seconds"),
        "cpu_time_over_linear": over_linear("cpu_seconds"),
        "versions": {name: version(name) for name in ("ase", "chgnet", "torch")},
        "one_crystal": crystals,
        "molecular_dynamics": dynamics,
        "large_cells": cells,
    }


def _chgnets_calculator():
    with contextlib.redirect_stdout(io.StringIO()):  # its constructor prints
        return import_chgnet("chgnet.model.dynamics").CHGNetCalculator(load_model("0.3.0"), use_device="cpu")


def _energy_and_forces(calculator, atoms) -> float:
    """Seconds for both, of atoms that the calculator has not seen."""
    atoms.calc = calculator
    clock = time.perf_counter()
    atoms.get_forces()
    atoms.get_potential_energy()
    return time.perf_counter() - clock


def _in_turns(ways: dict[str, Callable[[int], float]], seconds: float) -> dict[str, float]:
    """Smallest of what each way returns, in turns until so many seconds are over; the first turn does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # chgnet warns with every call
        for way in ways.values():
            way(0)
        best, turn, end = dict.fromkeys(ways, np.inf), 0, time.perf_counter() + seconds
        while turn < 3 or time.perf_counter() < end:
            turn += 1
            best = {name: min(best[name], way(turn)) for name, way in ways.items()}
    return best


def _beside(n_atoms: int, ours, theirs, seconds: float) -> dict:
    best = _in_turns(
        {
            "ms": lambda turn: _energy_and_forces(ours, rock_salt(n_atoms, turn)),
            "chgnet_ms": lambda turn: _energy_and_forces(theirs, rock_salt(n_atoms, turn)),
        },
        seconds,
    )
    return {key: 1e3 * value for key, value in best.items()} | {"ratio": best["chgnet_ms"] / best["ms"]}


def _neighbours_ms(n_atoms: int) -> float:
    """What looking for neighbours takes of a call: a list that is kept could save no more."""
    found = [Crystals.from_structures([rock_salt(n_atoms, turn)]) for turn in range(20)]
    seconds = []
    for crystals in found:
        clock = time.perf_counter()
        find_bonds(crystals, 0)
        seconds.append(time.perf_counter() - clock)
    return 1e3 * min(seconds)


def _dynamics(n_atoms: int, ours, theirs, n_steps: int, seconds: float) -> dict:
    """Nanoseconds a day of velocity Verlet from 300 K: ASE's with our calculator, and chgnet's MolecularDynamics."""
    from ase import units
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    atoms = rock_salt(n_atoms)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    copy = atoms.copy()
    atoms.calc = ours
    run_ours = VelocityVerlet(atoms, timestep=_TIMESTEP_FS * units.fs)
    with contextlib.redirect_stdout(io.StringIO()):
        module = import_chgnet("chgnet.model.dynamics")
        run_theirs = module.MolecularDynamics(copy, model=theirs, ensemble="nve", timestep=_TIMESTEP_FS)

    def timed(run) -> float:
        clock = time.perf_counter()
        run(n_steps)
        return time.perf_counter() - clock

    best = _in_turns({"ours": lambda _: timed(run_ours.run), "theirs": lambda _: timed(run_theirs.run)}, seconds)
    ns_per_day = {name: n_steps * _TIMESTEP_FS * 1e-6 / value * 86_400 for name, value in best.items()}
    tell(f"molecular dynamics of {n_atoms} atoms: {ns_per_day['ours']:.3g} ns/day, chgnet {ns_per_day['theirs']:.3g}")
    return {
        "ns_per_day": ns_per_day["ours"],
        "chgnet_ns_per_day": ns_per_day["theirs"],
        "ratio": best["theirs"] / best["ours"],
    }


def _alone(n_atoms: int, n_threads: int, with_chgnet: bool) -> dict:
    """Seconds and peak memory in a process of its own, for each side."""
    row: dict[str, float] = {}
    for prefix in ("", "chgnet_") if with_chgnet else ("",):
        measured = in_fresh_process(_in_this_process, n_atoms, n_threads, bool(prefix))
        row |= {prefix + key: value for key, value in measured.items()}
        tell(f"{prefix}{n_atoms:,} atoms: {measured['seconds']:.3g} s, peak {measured['peak_gb']:.2f} GB")
    return row


def _in_this_process(n_atoms: int, n_threads: int, chgnets: bool) -> dict:
    import torch

    torch.set_num_threads(n_threads)
    calculator = _chgnets_calculator() if chgnets else CHGNetCalculator(load_model("0.3.0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _energy_and_forces(calculator, rock_salt(64))
        cpu = time.process_time()
        times = [_energy_and_forces(calculator, rock_salt(n_atoms, seed)) for seed in range(1 if chgnets else 2)]
        cpu_seconds = (time.process_time() - cpu) / len(times)
    return {"seconds": min(times), "cpu_seconds": cpu_seconds, "peak_gb": status_gb("VmHWM")}


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    lines = []
    for name, row in report["one_crystal"].items():
        threads = [key.removeprefix("ratio_") for key in row if key.startswith("ratio_")]
        parts = [
            f"{t.replace('_', ' ')} {row[f'ms_{t}']:.1f} ms, chgnet {row[f'chgnet_ms_{t}']:.1f} ms, "
            f"{row[f'ratio_{t}']:.1f} x"
            for t in threads
        ]
        lines.append(f"{name:<14}{'; '.join(parts)}; threads gain {row['one_thread_over_most']:.2f} x")
    for name, row in report["molecular_dynamics"].items():
        lines.append(
            f"{name:<14}dynamics {row['ns_per_day']:.3g} ns/day, chgnet {row['chgnet_ns_per_day']:.3g}, "
            f"{row['ratio']:.1f} x"
        )
    for name, row in report["large_cells"].items():
        theirs = ""
        if "chgnet_seconds" in row:
            theirs = f"; chgnet {row['chgnet_seconds']:.1f} s, {row['chgnet_peak_gb']:.1f} GB"
        lines.append(f"{name:<14}{row['seconds']:.2f} s, peak {row['peak_gb']:.2f} GB{theirs}")
    if report["time_over_linear"] is not None:
        lines.append(
            f"{'time / linear':<14}{report['time_over_linear']:.2f}, of cores {report['cpu_time_over_linear']:.2f}"
        )
    return "\n".join(lines)
