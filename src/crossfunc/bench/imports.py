"""Time and memory of importing a JSON of MP-r2SCAN's size, against `json.load` + `Structure.from_dict` of each frame.

The file is made up here: its layout, its number of frames and their size are those of the paper's data, its labels are
random numbers.
"""

import gc
import json
import os
import time
from pathlib import Path

import numpy as np

from crossfunc.bench.progress import in_fresh_process, scratch_folder, status_gb, tell
from crossfunc.symbols import ELEMENT_SYMBOLS

N_FRAMES = 238_247
"""Frames of MP-r2SCAN."""
_FRAMES_PER_MATERIAL = 7
_MEAN_ATOMS = 31
_DISTINCT = 3_000  # bodies that are made; more frames than that repeat them under new ids


def write_synthetic_json(path: Path, n_frames: int, seed: int = 0, n_distinct: int = _DISTINCT) -> int:
    """Write `{material: {frame: {structure, energy_per_atom, force, stress, magmom, ...}}}` with random content.

    Parameters
    ----------
    path : Path
    n_frames : int
    seed : int
    n_distinct : int
        Different frames; a longer file repeats them under new ids (the reader neither knows nor gains by it).

    Returns
    -------
    int
        Bytes written.
    """
    rng = np.random.default_rng(seed)
    sizes = np.clip(rng.lognormal(np.log(_MEAN_ATOMS) - 0.18, 0.6, n_distinct).astype(int), 1, 200)
    bodies = [json.dumps(_frame(rng, int(n))).encode()[1:] for n in sizes[: min(n_distinct, n_frames)]]
    with path.open("wb") as file:
        file.write(b"{")
        for start in range(0, n_frames, _FRAMES_PER_MATERIAL):
            name = f"mp-{start // _FRAMES_PER_MATERIAL}".encode()
            file.write(b'%s"%s": {' % (b", " if start else b"", name))
            for k in range(start, min(start + _FRAMES_PER_MATERIAL, n_frames)):
                comma = b", " if k > start else b""
                file.write(b'%s"%s-0-%d": {"mp_id": "%s", ' % (comma, name, k - start, name) + bodies[k % len(bodies)])
            file.write(b"}")
        file.write(b"}")
    return path.stat().st_size


def _frame(rng: np.random.Generator, n: int) -> dict:
    """One frame as pymatgen and VASP write it: full double digits in the structure, eight in the labels."""
    per_side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n] / per_side
    coords = grid + rng.uniform(0, 0.1, (n, 3)) / per_side
    matrix = np.eye(3) * 2.4 * per_side + rng.normal(0, 0.1, (3, 3))
    symbols = rng.choice(ELEMENT_SYMBOLS[:83], size=3)
    sites = [
        {
            "species": [{"element": str(symbols[k % 3]), "occu": 1}],
            "abc": abc.tolist(),
            "properties": {},
            "label": str(symbols[k % 3]),
            "xyz": (abc @ matrix).tolist(),
        }
        for k, abc in enumerate(coords)
    ]
    lattice = {"matrix": matrix.tolist(), "pbc": [True] * 3, "volume": float(np.linalg.det(matrix))}
    lattice |= dict(zip("abc", np.linalg.norm(matrix, axis=1).tolist(), strict=True))
    structure = {"@module": "pymatgen.core.structure", "@class": "Structure", "charge": 0.0}
    energy = float(np.round(rng.uniform(-80, -5) * n, 8))
    return {
        "structure": {**structure, "lattice": lattice, "properties": {}, "sites": sites},
        "uncorrected_total_energy": energy,
        "energy_per_atom": energy / n,
        "force": np.round(rng.normal(0, 0.1, (n, 3)), 8).tolist(),
        "stress": np.round(rng.normal(0, 10, (3, 3)), 8).tolist(),
        "magmom": np.round(rng.normal(0, 1, n), 3).tolist(),
        "bandgap": 0.0,
    }


def run(n_frames: int = 20_000, slice_frames: int = 2_000, *, folder: Path | None = None, repeats: int = 3) -> dict:
    """Import a synthetic file in a fresh process, and read a slice of it both ways in turns.

    Parameters
    ----------
    n_frames : int
        238,247 for the real size: about 2 GB in `folder`, removed afterwards.
    slice_frames : int
        Frames of the file that is read both ways; `json.load` holds all of it in memory.
    folder : Path, optional
    repeats : int
        Runs of the slice, taken alternately; medians are reported.

    Returns
    -------
    dict
        `seconds`, `mb_per_s`, `peak_rss_gb` of the import (None where the system does not tell), its output's size,
        `check_seconds` and `check_peak_rss_gb` of `crossfunc data check --no-model` on the output, `slice_seconds` and
        `slice_baseline_seconds`, and their ratio `speedup`.
    """
    with scratch_folder(folder) as scratch:
        whole, part = scratch / "whole.json", scratch / "slice.json"
        n_bytes = write_synthetic_json(whole, n_frames)
        tell(f"file of {n_frames:,} frames, {n_bytes / 1e6:.0f} MB; importing it")
        slice_frames = min(slice_frames, n_frames)
        write_synthetic_json(part, slice_frames)
        measured = in_fresh_process(_measure_import, str(whole), str(scratch / "whole"))
        checked = in_fresh_process(_measure_check, str(scratch / "whole"))
        ours, theirs = [], []
        for k in range(repeats):
            ours.append(_measure_import(str(part), str(scratch / f"slice{k}"))["seconds"])
            theirs.append(_measure_baseline(part))
            tell(f"round {k + 1} of {repeats}, {slice_frames:,} frames: {ours[-1]:.3g} s, json.load {theirs[-1]:.3g} s")
        seconds = measured["seconds"]
        return {
            "n_frames": n_frames,
            "n_bytes": n_bytes,
            "seconds": seconds,
            "mb_per_s": n_bytes / 1e6 / seconds,
            "ms_per_frame": seconds / n_frames * 1e3,
            "peak_rss_gb": measured["peak_rss_gb"],
            "output_bytes": measured["output_bytes"],
            "check_seconds": checked["seconds"],
            "check_peak_rss_gb": checked["peak_rss_gb"],
            "slice_frames": slice_frames,
            "slice_seconds": float(np.median(ours)),
            "slice_baseline_seconds": float(np.median(theirs)),
            "speedup": float(np.median(theirs) / np.median(ours)),
            "repeats": repeats,
            "n_cores": os.cpu_count(),
        }


def _measure_import(file: str, out: str) -> dict:
    from crossfunc.datasets.importers.mp_r2scan import import_mp_frames

    clock = time.perf_counter()
    import_mp_frames(file, out)
    seconds = time.perf_counter() - clock
    size = sum(f.stat().st_size for f in Path(out).iterdir())
    return {"seconds": seconds, "peak_rss_gb": _peak_rss_gb(), "output_bytes": size}


def _measure_check(folder: str) -> dict:
    """Every row and what frames say of themselves; a model would look at a few hundred frames, whatever the size."""
    from crossfunc.datasets import check_dataset, open_dataset
    from crossfunc.label_checks import add_label_findings

    clock = time.perf_counter()
    add_label_findings(check_dataset(folder), open_dataset(folder, verify=False), use_model=False)
    return {"seconds": time.perf_counter() - clock, "peak_rss_gb": _peak_rss_gb()}


def _measure_baseline(path: Path) -> float:
    """Seconds that chgnet's dataset class spends before its first graph: `json.load`, then a Structure each frame."""
    from pymatgen.core import Structure

    gc.collect()
    clock = time.perf_counter()
    with path.open("rb") as file:
        content = json.load(file)
    for frames in content.values():
        for frame in frames.values():
            Structure.from_dict(frame["structure"])
    return time.perf_counter() - clock


def _peak_rss_gb() -> float | None:
    """Largest resident memory this process ever had; the child of a spawn pool starts afresh."""
    try:
        return status_gb("VmHWM")
    except OSError:
        return None


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    peak = "not measured" if report["peak_rss_gb"] is None else f"{report['peak_rss_gb']:.2f} GB"
    checked = report["check_peak_rss_gb"]
    lines = {
        "made-up file": f"{report['n_frames']:,} frames, {report['n_bytes'] / 1e9:.2f} GB",
        "import": f"{report['seconds']:.1f} s, {report['mb_per_s']:.0f} MB/s, {report['ms_per_frame']:.3f} ms/frame",
        "peak memory": peak,
        "on disk": f"{report['output_bytes'] / 1e6:.0f} MB",
        "check of all rows": f"{report['check_seconds']:.1f} s" + (f", {checked:.2f} GB" if checked else ""),
        "slice": f"{report['slice_frames']:,} frames, {report['slice_seconds']:.2f} s",
        "json.load + from_dict": f"{report['slice_baseline_seconds']:.2f} s for the same slice",
        "ratio": f"{report['speedup']:.1f} x",
    }
    return "\n".join(f"{name:<24}{value}" for name, value in lines.items())
