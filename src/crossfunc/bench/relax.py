"""Time of relaxing many crystals at once, against chgnet's `StructOptimizer` one after another.

Rattled and strained crystals of the embedded dataset, the same checkpoint, the same optimiser and force limit, one
BLAS thread for both: numpy's and torch's would fight over the cores otherwise.
"""

import io
import statistics
import time
import warnings
from contextlib import redirect_stdout

import numpy as np

from crossfunc.bench.progress import tell
from crossfunc.datasets import open_dataset
from crossfunc.potential import load_model
from crossfunc.potential.crystals import Crystals
from crossfunc.stability.relax import CONVERGED, relax
from crossfunc.vendor import import_chgnet

_SOURCES = ("dense: rattled", "dense: strained")
_SAME_BASIN_EV = 1e-3


def embedded_frames(n_structures: int, seed: int = 0):
    """Distorted frames of the surrogate dataset, each of another material, half rattled and half strained.

    Parameters
    ----------
    n_structures : int
    seed : int

    Returns
    -------
    pyarrow.Table
        As a dataset's frames.
    """
    import pyarrow.compute as pc

    frames = open_dataset("surrogate", verify=False).need_frames()
    frames = frames.filter((pc.field("functional") == "r2scan") & pc.field("source").isin(_SOURCES))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.unique(frames["material_id"].to_numpy()))[:n_structures]
    wanted = {(name, _SOURCES[k % len(_SOURCES)]): k for k, name in enumerate(chosen)}
    rows = zip(frames["material_id"].to_pylist(), frames["source"].to_pylist(), strict=True)
    places = {wanted[key]: row for row, key in enumerate(rows) if key in wanted}
    return frames.take([places[k] for k in sorted(places)])


def run(
    n_structures: int = 24,
    fmax: float = 0.05,
    max_steps: int = 500,
    repeats: int = 3,
    model: str = "r2scan",
    seed: int = 0,
) -> dict:
    """Measure `relax` on all structures, and chgnet's `StructOptimizer` on one after another, in turns.

    Parameters
    ----------
    n_structures : int
        The book's figures are those of 64.
    fmax : float
        eV/Å, for both.
    max_steps : int
        For both.
    repeats : int
        Timings of ours; chgnet's structures are relaxed once, a part of them between any two of ours.
    model : str
        Checkpoint, as `load_model` takes it.
    seed : int
        Draws the structures.

    Returns
    -------
    dict
        `seconds` (ours, mean), `seconds_of_each_run`, `chgnet_seconds`, `speedup`, `n_steps` and `chgnet_n_steps`
        (sums), `n_converged` and `chgnet_n_converged`, `largest_difference_ev_per_atom` within a basin, `other_basin`,
        sizes, threads and versions. `other_basin` has a row for each structure whose energies differ by more than
        1 meV/atom, or that one of the two did not finish: energies, volumes, and the energy that `relax` reaches from
        where chgnet ended.
    """
    from importlib.metadata import version

    import torch
    from threadpoolctl import threadpool_limits

    frames = embedded_frames(n_structures, seed)
    crystals = Crystals.from_frames(frames)
    network = load_model(model)
    with threadpool_limits(limits=1, user_api="blas"):
        one_by_one = _OneByOne(network, crystals, fmax, max_steps)
        relax(network, crystals.take([0]), fmax=fmax, max_steps=2)  # first calls are slower, in both
        one_by_one.relax(0, max_steps=2)
        seconds, theirs = [], []
        for part in np.array_split(np.arange(len(crystals)), repeats):
            clock = time.perf_counter()
            ours = relax(network, crystals, fmax=fmax, max_steps=max_steps)
            seconds.append(time.perf_counter() - clock)
            theirs += [one_by_one.relax(k) for k in part]
            share = sum(row["seconds"] for row in theirs) / len(theirs) * len(crystals)
            tell(f"round {len(seconds)} of {repeats}: ours {seconds[-1]:.1f} s, chgnet at {share:.1f} s for all")
    chgnet_seconds = sum(row["seconds"] for row in theirs)
    rows = _compare(frames, ours, theirs)
    apart = [row for row in rows if not row["same"]]
    _start_where_chgnet_ended(network, apart, theirs, fmax, max_steps)
    return {
        "model": model,
        "n_structures": len(crystals),
        "n_atoms": len(crystals.atomic_numbers),
        "fmax_ev_per_a": fmax,
        "max_steps": max_steps,
        "seconds": statistics.mean(seconds),  # a stall of the machine counts on either side
        "seconds_of_each_run": seconds,
        "chgnet_seconds": chgnet_seconds,
        "speedup": chgnet_seconds / statistics.mean(seconds),
        "n_steps": int(ours.n_steps.sum()),
        "chgnet_n_steps": sum(row["n_steps"] for row in theirs),
        "n_converged": int((ours.status == CONVERGED).sum()),
        "chgnet_n_converged": sum(row["converged"] for row in theirs),
        "largest_difference_ev_per_atom": max((row["difference"] for row in rows if row["same"]), default=None),
        "other_basin": [
            {key: value for key, value in row.items() if key not in ("same", "difference", "place")} for row in apart
        ],
        "repeats": repeats,
        "blas_threads": 1,
        "torch_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("ase", "chgnet", "torch")},
    }


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    largest = report["largest_difference_ev_per_atom"]
    lines = {
        "structures": f"{report['n_structures']} with {report['n_atoms']:,} atoms, from surrogate; "
        f"{report['model']}, fmax {report['fmax_ev_per_a']} eV/Å",
        "together": f"{report['seconds']:.1f} s, {report['n_steps']:,} steps, {report['n_converged']} converged",
        "chgnet": f"{report['chgnet_seconds']:.1f} s, {report['chgnet_n_steps']:,} steps, "
        f"{report['chgnet_n_converged']} converged, one after another",
        "ratio": f"{report['speedup']:.1f} x",
        "same basin": "none" if largest is None else f"energies differ by at most {largest * 1e3:.3f} meV/atom",
        "another basin": f"{len(report['other_basin'])} of {report['n_structures']}",
        "threads": f"{report['blas_threads']} for BLAS, {report['torch_threads']} for torch",
    }
    text = [f"{name:<16}{value}" for name, value in lines.items()]
    text += [
        f"  {row['frame_id']}: {row['status']}, {row['energy_per_atom_ev']:.4f} eV/atom; chgnet "
        f"{row['chgnet_energy_per_atom_ev']:.4f}, {'converged' if row['chgnet_converged'] else 'not converged'}; from "
        f"there, ours {row['energy_from_there_per_atom_ev']:.4f}"
        for row in report["other_basin"]
    ]
    return "\n".join(text)


class _OneByOne:
    """chgnet's optimiser on the same crystals."""

    def __init__(self, model, crystals: Crystals, fmax: float, max_steps: int):
        dynamics = import_chgnet("chgnet.model.dynamics")
        with redirect_stdout(io.StringIO()):  # its constructor prints
            self.optimiser = dynamics.StructOptimizer(model=model, optimizer_class="FIRE", use_device="cpu")
        self.structures = crystals.to_structures()
        self.fmax, self.max_steps = fmax, max_steps

    def relax(self, k: int, *, max_steps: int | None = None) -> dict:
        """Relax one crystal; energy, steps and seconds."""
        steps = self.max_steps if max_steps is None else max_steps
        structure = self.structures[k].copy()
        clock = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self.optimiser.relax(structure, fmax=self.fmax, steps=steps, verbose=False, assign_magmoms=False)
        seconds = time.perf_counter() - clock
        observed = result["trajectory"]
        n_steps = len(observed.energies) - 2  # one before the first step, one more at the end
        return {
            "seconds": seconds,
            "n_steps": n_steps,
            "converged": n_steps < steps,
            "structure": result["final_structure"],
            "energy_per_atom_ev": float(observed.energies[-1]) / len(structure),
        }


def _compare(frames, ours, theirs: list[dict]) -> list[dict]:
    """A row for each structure: both energies, and whether both ended in the same basin."""
    rows = []
    volumes = np.abs(np.linalg.det(ours.crystals.lattices_a)) / ours.crystals.n_atoms
    for k, (name, their) in enumerate(zip(frames["frame_id"].to_pylist(), theirs, strict=True)):
        difference = abs(float(ours.energy_per_atom_ev[k]) - their["energy_per_atom_ev"])
        finished = ours.status[k] == CONVERGED and their["converged"]
        rows.append(
            {
                "frame_id": name,
                "status": str(ours.status[k]),
                "energy_per_atom_ev": float(ours.energy_per_atom_ev[k]),
                "chgnet_energy_per_atom_ev": their["energy_per_atom_ev"],
                "chgnet_converged": their["converged"],
                "volume_per_atom_a3": float(volumes[k]),
                "chgnet_volume_per_atom_a3": their["structure"].volume / len(their["structure"]),
                "place": k,
                "difference": difference,
                "same": bool(finished and difference <= _SAME_BASIN_EV),
            }
        )
    return rows


def _start_where_chgnet_ended(network, rows: list[dict], theirs: list[dict], fmax: float, max_steps: int) -> None:
    """Add the energy that `relax` reaches from chgnet's last geometry: chgnet's own, if that is another minimum."""
    if rows:
        starts = [theirs[row["place"]]["structure"] for row in rows]
        found = relax(network, starts, fmax=fmax, max_steps=max_steps)
        for row, energy in zip(rows, found.energy_per_atom_ev, strict=True):
            row["energy_from_there_per_atom_ev"] = float(energy)
