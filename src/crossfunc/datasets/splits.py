"""Splits that never put one material in two parts, and nested training subsets for scaling laws."""

import numpy as np

PARTS = ("train", "validation", "test")


class SplitError(ValueError):
    """A split or a subset that these materials do not allow; the message says why."""


def split_by_material(material_ids, fractions=(0.8, 0.1, 0.1), seed: int = 0) -> dict[str, np.ndarray]:
    """Split rows into train, validation and test so that all rows of a material land in one part.

    Parameters
    ----------
    material_ids : array_like, shape (n_rows,)
        The group of each row.
    fractions : tuple of three floats
        Shares of the *materials*; they must add up to 1.
    seed : int
        The split depends on the set of ids and the seed only, not on the order of the rows.

    Returns
    -------
    dict of str to ndarray
        Sorted row indices of `train`, `validation` and `test`; every row is in exactly one.

    Raises
    ------
    SplitError
        Fractions that are negative or do not add up to 1, or a part that would get no material.

    Notes
    -----
    The paper splits MP-r2SCAN 8:1:1. Splitting by frame instead would put two frames of one relaxation on both sides.
    """
    ids = np.asarray(material_ids)
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):  # NaN too
        raise SplitError(f"fractions must be three shares >= 0 that add up to 1, got {fractions}")
    materials, group = np.unique(ids, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(materials))
    ends = np.rint(np.cumsum(fractions) * len(materials)).astype(int)
    part_of = np.empty(len(materials), dtype=int)
    part_of[order] = np.searchsorted(ends, np.arange(len(materials)), side="right")
    parts = {name: np.flatnonzero(part_of[group] == k) for k, name in enumerate(PARTS)}
    empty = [name for name, share in zip(PARTS, fractions, strict=True) if share > 0 and len(parts[name]) == 0]
    if empty:
        raise SplitError(
            f"{len(materials)} materials are too few for a {fractions} split: {', '.join(empty)} is empty; "
            "use more materials or other fractions."
        )
    return parts


def nested_subsets(material_ids, sizes, seed: int = 0) -> list[np.ndarray]:
    """Choose growing subsets of rows, each holding the one before, material after material in random order.

    Parameters
    ----------
    material_ids : array_like, shape (n_rows,)
    sizes : sequence of int
        Number of rows of each subset, in rising order; the last material of a subset may be there in part.
    seed : int

    Returns
    -------
    list of ndarray
        Sorted row indices, one array a size.

    Raises
    ------
    SplitError
        Sizes that do not rise, are negative, or exceed the number of rows.
    """
    ids = np.asarray(material_ids)
    sizes = list(sizes)
    if sizes != sorted(sizes) or (sizes and (sizes[0] < 0 or sizes[-1] > len(ids))):
        raise SplitError(f"sizes must rise and lie between 0 and {len(ids)} rows, got {sizes}")
    materials, group = np.unique(ids, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(materials))[group]
    rows = np.argsort(rank, kind="stable")
    return [np.sort(rows[:size]) for size in sizes]
