"""Time and memory of element references at the size of MP-r2SCAN, against chgnet's `AtomRef.fit`.

Synthetic frames: random compositions and energies, as many frames and atoms as the paper's data, which are not needed.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from crossfunc.bench.progress import held_gb, in_fresh_process, status_gb, tell
from crossfunc.energies.atomref import fit_atomref
from crossfunc.energies.composition import composition_matrix
from crossfunc.symbols import ATOMIC_NUMBERS, N_ELEMENTS

_ABSENT = ("Po", "At", "Rn", "Fr", "Ra")  # leaves 89 elements, as in the pretraining data
_MEAN_ATOMS = 31
_FRAMES_PER_MATERIAL = 7


def synthetic_frames(n_frames: int, seed: int = 0):
    """Frames of random composition: about 31 atoms each, 1 to 5 of 89 elements, 7 frames per material.

    Parameters
    ----------
    n_frames : int
    seed : int

    Returns
    -------
    pyarrow.Table
        Columns `material_id`, `atomic_numbers` (list of int16) and `energy_per_atom_ev`: one made-up energy per
        element plus noise of 0.3 eV/atom per material and 0.02 per frame.
    """
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    allowed = np.array([z for symbol, z in ATOMIC_NUMBERS.items() if symbol not in _ABSENT], dtype=np.int16)
    n_materials = -(-n_frames // _FRAMES_PER_MATERIAL)
    sigma = 0.6
    size = np.clip(rng.lognormal(np.log(_MEAN_ATOMS) - sigma**2 / 2, sigma, n_materials).astype(np.int64), 1, 200)
    palette = allowed[rng.integers(len(allowed), size=(n_materials, 5))]
    n_kinds = rng.integers(1, 6, size=n_materials)
    owner = np.repeat(np.arange(n_materials), size)
    atoms = palette[owner, (rng.random(len(owner)) * n_kinds[owner]).astype(np.int64)]
    atoms = atoms[np.lexsort((atoms, owner))]
    start = np.concatenate([[0], np.cumsum(size)])
    material = np.arange(n_frames) // _FRAMES_PER_MATERIAL
    lengths = size[material]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start[material], lengths)
    numbers = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(atoms[position]))
    reference = -rng.uniform(1, 90, N_ELEMENTS)
    energy = composition_matrix(pa.table({"atomic_numbers": numbers})) @ reference
    energy += rng.normal(0, 0.3, n_materials)[material] + rng.normal(0, 0.02, n_frames)
    ids = pa.DictionaryArray.from_arrays(
        pa.array(material.astype(np.int32)), pa.array([f"m{i}" for i in range(n_materials)])
    )
    return pa.table({"material_id": ids, "atomic_numbers": numbers, "energy_per_atom_ev": energy})


def run(n_frames: int = 238_247, slice_frames: int = 5_000, repeats: int = 5, seed: int = 0) -> dict:
    """Measure composition matrix + fit on all frames, and chgnet's `AtomRef.fit` on the first of them, in turns.

    Parameters
    ----------
    n_frames, slice_frames : int
        All frames, and those given to chgnet, whose time per frame does not depend on their number.
    repeats : int
        Timings of each, taken alternately; medians are reported.
    seed : int

    Returns
    -------
    dict
        `seconds` (= `seconds_composition` + `seconds_fit`), `seconds_per_material_fit` (fit with material ids),
        `seconds_first` (first call), `peak_rss_gb` (whole fresh process, frames included; None where the system does
        not tell), `peak_rss_growth_gb` (above what the process held with its frames), `chgnet_slice_frames`,
        `chgnet_seconds_per_frame` (ready atomic-number tensors, no structure is built), `seconds_per_frame`,
        `speedup` (per frame), `largest_difference_ev` (of the references, against float64 `lstsq`, on the slice),
        sizes and versions.
    """
    table = synthetic_frames(n_frames, seed)
    slice_frames = min(slice_frames, n_frames)
    chgnet_seconds = _chgnet_timer(table.slice(0, slice_frames))
    compose, fit, per_material, theirs = [], [], [], []
    first = None
    for _ in range(repeats):
        clock = time.perf_counter()
        X = composition_matrix(table)
        compose.append(time.perf_counter() - clock)
        energy = table.column("energy_per_atom_ev").to_numpy()
        clock = time.perf_counter()
        result = fit_atomref(X, energy)
        fit.append(time.perf_counter() - clock)
        first = compose[0] + fit[0] if first is None else first
        theirs.append(chgnet_seconds())
        tell(f"round {len(fit)} of {repeats}: {compose[-1] + fit[-1]:.3g} s; chgnet, its slice {theirs[-1]:.3g} s")
    ids = table.column("material_id").combine_chunks().indices.to_numpy()
    for _ in range(repeats):
        clock = time.perf_counter()
        fit_atomref(X, energy, material_ids=ids)
        per_material.append(time.perf_counter() - clock)
    seconds = statistics.median(a + b for a, b in zip(compose, fit, strict=True))
    per_frame = statistics.median(theirs) / slice_frames
    peak, growth = _memory(table)
    return {
        "n_frames": n_frames,
        "n_atoms_per_frame": round(len(table.column("atomic_numbers").combine_chunks().flatten()) / n_frames, 2),
        "n_elements": result.n_elements,
        "rank": result.rank,
        "seconds": seconds,
        "seconds_composition": statistics.median(compose),
        "seconds_fit": statistics.median(fit),
        "seconds_per_material_fit": statistics.median(per_material),
        "seconds_first": first,
        "seconds_per_frame": seconds / n_frames,
        "peak_rss_gb": peak,
        "peak_rss_growth_gb": growth,
        "chgnet_slice_frames": slice_frames,
        "chgnet_seconds_per_frame": per_frame,
        "speedup": per_frame / (seconds / n_frames),
        "largest_difference_ev": _difference_from_lstsq(X[:slice_frames], energy[:slice_frames]),
        "repeats": repeats,
        "n_cores": os.cpu_count(),
    }


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    peak = "not measured" if report["peak_rss_gb"] is None else f"{report['peak_rss_gb']:.2f} GB"
    growth = (
        "" if report["peak_rss_growth_gb"] is None else f" ({report['peak_rss_growth_gb']:.2f} GB above the frames)"
    )
    lines = {
        "frames": f"{report['n_frames']:,}, {report['n_atoms_per_frame']} atoms each, {report['n_elements']} elements",
        "composition matrix": f"{report['seconds_composition'] * 1e3:.0f} ms",
        "fit": f"{report['seconds_fit'] * 1e3:.0f} ms",
        "fit, material ids": f"{report['seconds_per_material_fit'] * 1e3:.0f} ms",
        "together": f"{report['seconds']:.3f} s (first call {report['seconds_first']:.3f} s)",
        "peak memory": f"{peak}{growth}",
        "per frame": f"{report['seconds_per_frame'] * 1e6:.3f} µs",
        "chgnet AtomRef.fit": f"{report['chgnet_seconds_per_frame'] * 1e6:.1f} µs per frame, on the first "
        f"{report['chgnet_slice_frames']:,} frames as ready tensors",
        "ratio per frame": f"{report['speedup']:.0f} x",
        "against lstsq": f"references differ by at most {report['largest_difference_ev']:.1e} eV on the slice",
    }
    return "\n".join(f"{name:<20}{value}" for name, value in lines.items())


class _Graph:
    """The one attribute of a crystal graph that `AtomRef.fit` reads."""

    def __init__(self, atomic_number):
        self.atomic_number = atomic_number


def _chgnet_timer(table):
    """Function that fits chgnet's AtomRef to the frames of a table once and returns the seconds it took."""
    import torch

    from crossfunc.vendor import import_chgnet

    atomref = import_chgnet("chgnet.model.composition_model").AtomRef
    rows = table.column("atomic_numbers").to_pylist()
    graphs = [_Graph(torch.tensor(numbers, dtype=torch.int32)) for numbers in rows]
    energies = table.column("energy_per_atom_ev").to_pylist()

    def seconds():
        model = atomref()
        clock = time.perf_counter()
        model.fit(graphs, energies)
        return time.perf_counter() - clock

    return seconds


def _difference_from_lstsq(X, y):
    """Largest |difference| in eV between our references and NumPy's `lstsq`; NaN where the slice is rank deficient."""
    fit = fit_atomref(X, y)
    if fit.rank < fit.n_elements:
        return float("nan")
    there = np.isfinite(fit.energies_ev)
    return float(np.abs(np.linalg.lstsq(X[:, there].toarray(), y)[0] - fit.energies_ev[there]).max())


def _memory(table):
    """Peak memory of a fresh process that reads the frames and fits them, and its growth above the frames, in GB."""
    import pyarrow.feather

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "frames.feather")
        pyarrow.feather.write_feather(table, path, compression="uncompressed")
        return in_fresh_process(_measure_memory, path)


def _measure_memory(path):
    """In the fresh process: (peak, growth) in GB, or (None, None) where /proc does not tell."""
    import pyarrow.feather

    table = pyarrow.feather.read_table(path, memory_map=False)
    energy = table.column("energy_per_atom_ev").to_numpy()
    try:
        before = held_gb()
        fit_atomref(composition_matrix(table), energy)
        peak = status_gb("VmHWM")
    except OSError:
        return None, None
    return peak, peak - before
