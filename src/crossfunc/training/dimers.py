"""Curves of two atoms in a box, in two functionals: the shortest way to forces far from equilibrium."""

import gzip
import json
import os
from pathlib import Path

import numpy as np

from crossfunc.datasets import DatasetError
from crossfunc.potential import Crystals
from crossfunc.symbols import ATOMIC_NUMBERS
from crossfunc.training.labels import LabelledFrames

DIMERS_FILE = "dimers_pbe_r2scan.json.gz"
BOX_A = 15.0
"""Edge of the cube that a dimer stands in, so that it does not see its images."""
_MAX_FORCE_EV_PER_A = 10.0  # beyond, cores overlap and pseudopotentials end


def find_dimers() -> Path | None:
    """Path of the file with curves in one of the folders of CROSSFUNC_DATA, None where there is none."""
    folders = filter(None, os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep))
    return next((f for f in (Path(folder).expanduser() / DIMERS_FILE for folder in folders) if f.is_file()), None)


def read_dimers(
    path: str | os.PathLike, functional: str = "PBE", *, max_force_ev_per_a: float = _MAX_FORCE_EV_PER_A, elements=None
) -> LabelledFrames:
    """Read curves of homonuclear dimers: frames of two atoms with energy, forces and moments, without stress.

    Parameters
    ----------
    path : str or path
        JSON, also gzipped: `{functional: {"O-O": {distances, energies, forces, magmoms}}}` in Å, eV (total), eV/Å, μB.
    functional : str
        As the file calls it; "PBE" or "r2SCAN".
    max_force_ev_per_a : float
        Leave out points with larger forces, and those of 6 Å and more, where CHGNet sees no bond.
    elements : sequence of str, optional
        These only.

    Returns
    -------
    LabelledFrames
        `material_ids` is the dimer, "O-O".

    Raises
    ------
    DatasetError
        The file is no such file, or does not have the functional (lists those it has).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        curves = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: not readable as JSON of dimers ({error}); get the file again.") from error
    if not isinstance(curves, dict) or functional not in curves:
        there = ", ".join(map(str, curves)) if isinstance(curves, dict) else "no functionals"
        raise DatasetError(f"{path}: no dimers of {functional!r}; it has {there}.")
    wanted = None if elements is None else set(elements)
    points = [
        (dimer, *point)
        for dimer, curve in curves[functional].items()
        if wanted is None or dimer.split("-")[0] in wanted
        for point in _points(path, dimer, curve, max_force_ev_per_a)
    ]
    if not points:
        raise DatasetError(f"{path}: no {functional} point below {max_force_ev_per_a:g} eV/Å and 6 Å; allow more.")
    names, distances, energies, forces, moments = zip(*points, strict=True)
    n = len(points)
    crystals = Crystals.from_arrays(
        ([ATOMIC_NUMBERS[name.split("-")[0]]] * 2, [[0, 0, 0], [d / BOX_A, 0, 0]], BOX_A * np.eye(3))
        for name, d in zip(names, distances, strict=True)
    )
    return LabelledFrames(
        crystals,
        np.array(energies, dtype=np.float64) / 2,
        np.array(forces, dtype=np.float32).reshape(2 * n, 3),
        np.full((n, 3, 3), np.nan, dtype=np.float32),
        np.array([_pair(m) for m in moments], dtype=np.float32).reshape(2 * n),
        np.array([f"{name}/{d:g}/{functional}" for name, d in zip(names, distances, strict=True)]),
        np.array(names),
    )


def _pair(moments) -> list:
    return [np.nan, np.nan] if moments is None else moments


def _points(path: Path, dimer: str, curve: dict, max_force_ev_per_a: float) -> list[tuple]:
    from crossfunc.potential.graphs import ATOM_CUTOFF_A

    try:
        columns = [curve[key] for key in ("distances", "energies", "forces", "magmoms")]
        rows = list(zip(*columns, strict=True))
        one, *others = dimer.split("-")
        if one not in ATOMIC_NUMBERS or others != [one]:
            raise KeyError(f"dimer {dimer}, expected one element twice, as O-O")
        largest = [np.abs(np.array(row[2], dtype=float).reshape(2, 3)).max() for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path}: {dimer} is no curve of distances, energies, forces and magmoms ({error})."
        ) from error
    return [
        row for row, force in zip(rows, largest, strict=True) if row[0] < ATOM_CUTOFF_A and force < max_force_ev_per_a
    ]
