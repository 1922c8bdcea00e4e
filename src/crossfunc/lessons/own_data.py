"""What lessons do with data that are not the book's: say what these cannot show, and go on.

The lessons were written on the embedded dataset. Anyone's own data may lack labels, elements or a whole table, and need
not bear out what the lesson says of its own.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from crossfunc.lessons.results import LessonResults

BOOKS_DATASET = "surrogate"
ENERGIES = ("low_energy_per_atom_ev", "high_energy_per_atom_ev")
"""Columns of `pairs` with the energies of the low and of the high functional."""

FEW = 24
"""Fewer frames than this cannot be split and trained on."""


def stop_here(reason: str, results: LessonResults | None = None) -> None:
    """Say why these data end the lesson early, and let every cell that follows do nothing.

    Parameters
    ----------
    reason : str
        A sentence; what was recorded so far is saved.
    results : LessonResults, optional

    Raises
    ------
    SystemExit
        Outside of a notebook, where a script ends.
    """
    sys.stdout.write(f"{reason}\nThe lesson ends here with these data; restart the kernel to take others.\n")
    if results is not None:
        results.save()
    shell = _shell()
    if shell is None:
        raise SystemExit(0)
    shell.input_transformers_cleanup.append(_nothing)


def check_claim(holds: bool, claim: str, dataset) -> None:
    """Hold the book's own dataset to what the lesson says; on other data, say so where it does not hold.

    Parameters
    ----------
    holds : bool
    claim : str
        What the lesson says, as the beginning of a sentence.
    dataset : Dataset

    Raises
    ------
    AssertionError
        On the embedded dataset, when the claim does not hold.
    """
    if holds:
        return
    if dataset.name == BOOKS_DATASET:
        raise AssertionError(claim)
    sys.stdout.write(f"On {dataset.name} this does not hold: {claim}.\n")


def describe_lack(dataset, *targets: str, functional: str = "high") -> str:
    """Say what the frames of a functional lack for a lesson; an empty text if nothing.

    Parameters
    ----------
    dataset : Dataset
    targets : str
        Labels that some of the frames must have: "forces", "stress", "magmoms".
    functional : str
        "high", "low", or a functional's key or name.

    Returns
    -------
    str
        A sentence.
    """
    chosen = dataset.functional(functional)
    name = chosen.name
    if dataset.frames is None:
        return f"These data are energies of materials; the lesson needs frames in {name}, crystals with labels."
    mine = np.asarray(dataset.frames["functional"]) == chosen.key
    if not mine.any():
        return f"These data have no frames in {name}."
    frames = dataset.frames.filter(mine)
    missing = [t for t in targets if frames[_COLUMNS[t]].null_count == len(frames)]
    return f"No frame in {name} has {' or '.join(missing)} here, which the lesson needs." if missing else ""


_COLUMNS = {"forces": "forces_ev_per_a", "stress": "stress_gpa", "magmoms": "magmoms_mub"}


def energy_table(dataset) -> pd.DataFrame:
    """Return the energies of both functionals per material; where no material has both, say so and list the frames."""
    if dataset.pairs is not None:
        return dataset.pairs[["composition", *ENERGIES]]
    sys.stdout.write("No material has both functionals in these data; their frames:\n")
    return dataset.frames.select(["material_id", "functional", "energy_per_atom_ev"]).to_pandas()


def rows_of(dataset, functional: str = "high"):
    """Return what there is to count: the frames in a functional, or the pairs of a dataset without frames.

    Parameters
    ----------
    dataset : Dataset
    functional : str
        "high", "low", or a functional's key or name.

    Returns
    -------
    rows : pyarrow.Table or DataFrame
    unit : str
        "n_frames" or "n_materials", a key of the figures' labels.
    """
    if dataset.frames is None:
        return dataset.pairs, "n_materials"
    key = dataset.functional(functional).key
    return dataset.frames.filter(np.asarray(dataset.frames["functional"]) == key), "n_frames"


def as_series(column) -> pd.Series:
    """Return a column of either kind of table for pandas."""
    return column.to_pandas() if hasattr(column, "to_pandas") else column


def formation_energies(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the formation energies in both functionals, eV/atom, where both are known; no rows if there are none."""
    names = [name.replace("_energy", "_formation_energy") for name in ENERGIES]
    known = pairs.reindex(columns=names).dropna()
    if len(known) < 3:
        sys.stdout.write("These data have no formation energies in both functionals.\n")
    return known


def describe_lack_of_formation(dataset, at_least: int) -> str:
    """Say that too few materials have formation energies in both functionals; an empty text if enough have."""
    n_known = 0
    names = [name.replace("_energy", "_formation_energy") for name in ENERGIES]
    if dataset.pairs is not None and set(names) <= set(dataset.pairs.columns):
        n_known = int(dataset.pairs[names].notna().all(axis=1).sum())
    if n_known >= at_least:
        return ""
    return (
        f"{n_known} materials have formation energies in both functionals (they need the elements' ground states); "
        f"trees and their cross-validation need {at_least} at least."
    )


def find_real_file(name: str) -> Path | None:
    """Return the first file of this name in the folders that `CROSSFUNC_DATA` lists, None if none has it."""
    folders = [Path(folder) for folder in os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep) if folder]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def open_if_there(name: str, *tables: str):
    """Return a dataset that has these tables, None if it is not here or lacks one of them.

    Raises
    ------
    DatasetError
        It is here, and damaged.
    """
    from crossfunc.datasets import DatasetError, find_dataset, open_dataset

    try:
        find_dataset(name)
    except DatasetError:
        return None
    dataset = open_dataset(name)
    return None if any(getattr(dataset, table) is None for table in tables) else dataset


def fit_size_limit(n_atoms: np.ndarray, max_atoms: int, n_wanted: int) -> int:
    """Raise a limit on the size of crystals that leaves too few of them, and say so.

    Parameters
    ----------
    n_atoms : ndarray of int
        Number of atoms of every crystal that could be used.
    max_atoms : int
        Kept if it leaves `FEW` of them, or `n_wanted` if that is less.
    n_wanted : int
        How many crystals a raised limit is to leave.

    Returns
    -------
    int
    """
    sizes = np.sort(np.asarray(n_atoms))
    n_left = int((sizes <= max_atoms).sum())
    if n_left >= min(FEW, n_wanted) or n_left == len(sizes):
        return max_atoms
    limit = int(sizes[min(n_wanted, len(sizes)) - 1])
    sys.stdout.write(f"{n_left} frames have at most {max_atoms} atoms, so the limit is raised to {limit}.\n")
    return limit


def _shell():
    """The notebook's shell, None in a script."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


def _nothing(lines: list[str]) -> list[str]:  # noqa: ARG001
    """Stand in for a cell."""
    return ["pass\n"]
