"""Cost of predicting through ASE's interface: the route of `predict`, against ASE itself, and in several processes."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from crossfunc.bench.progress import tell
from crossfunc.bench.relax import embedded_frames
from crossfunc.potential import load_calculator, load_model, predict
from crossfunc.potential.crystals import Crystals

_STOCK = "chgnet.model.dynamics:CHGNetCalculator"


def run(n_structures: int = 32, repeats: int = 3, n_jobs: int = 2, checkpoint: str = "0.3.0", seed: int = 0) -> dict:
    """Measure chgnet's own calculator by hand, through the route, in processes, and the flat forward pass beside them.

    Parameters
    ----------
    n_structures : int
        Distorted crystals of the embedded dataset.
    repeats : int
        Measurements of each model, taken in turns; medians count.
    n_jobs : int
        Processes.
    checkpoint : str
        Which CHGNet.
    seed : int
        Draws the structures.

    Returns
    -------
    dict
        Seconds of each way; `route_over_ase`; `largest_energy_difference_ev_per_atom` and
        `largest_force_difference_ev_per_a` of the route against the flat pass; versions.
    """
    from importlib.metadata import version

    import torch

    crystals = Crystals.from_frames(embedded_frames(n_structures, seed))
    network = load_model(checkpoint)
    route = load_calculator(_STOCK, {"use_device": "cpu"})
    ways: dict[str, Callable[[], Any]] = {
        "ase_one_by_one": lambda: _by_hand(route.calculator, crystals),
        "route": lambda: predict(route, crystals),
        f"route_in_{n_jobs}_processes": lambda: predict(route.with_jobs(n_jobs), crystals),
        "flat_forward": lambda: predict(network, crystals),
    }
    found = {name: way() for name, way in ways.items()}  # first calls are slower, in all
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            clock = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - clock)
            tell(f"round {len(seconds[name])} of {repeats}: {name} {seconds[name][-1]:.3g} s")
    medians = {f"{name}_seconds": statistics.median(values) for name, values in seconds.items()}
    forces = [np.concatenate(found[name]["forces_ev_per_a"]) for name in ("route", "flat_forward")]
    energies = [found[name]["energy_per_atom_ev"] for name in ("route", "flat_forward")]
    return {
        "n_structures": len(crystals),
        "n_atoms": len(crystals.atomic_numbers),
        **medians,
        "route_over_ase": medians["route_seconds"] / medians["ase_one_by_one_seconds"],
        "largest_energy_difference_ev_per_atom": float(np.abs(np.subtract(*energies)).max()),
        "largest_force_difference_ev_per_a": float(np.abs(np.subtract(*forces)).max()),
        "repeats": repeats,
        "n_jobs": n_jobs,
        "torch_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("ase", "chgnet", "torch")},
    }


def _by_hand(calculator, crystals: Crystals) -> list:
    """What a script does: attach the calculator, ask for energy, forces and stress."""
    from crossfunc.potential.ase_model import to_atoms

    found = []
    for atoms in to_atoms(crystals):
        atoms.calc = calculator
        found.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    return found


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    lines = {name.removesuffix("_seconds"): f"{value:.2f} s" for name, value in report.items() if "_seconds" in name}
    lines["route / ase"] = f"{report['route_over_ase']:.2f}"
    lines["same numbers"] = (
        f"energies within {report['largest_energy_difference_ev_per_atom']:.1e} eV/atom, forces within "
        f"{report['largest_force_difference_ev_per_a']:.1e} eV/Å"
    )
    return "\n".join(f"{name:<24}{value}" for name, value in lines.items())
