"""Splits that never put one material in two parts, and nested training subsets for scaling laws.

Three kinds, in the order in which they ask more of a model: `split_by_material` (new crystals, perhaps of a formula and
a structure type that were trained on), `leave_composition_out` (new formulas) and `leave_prototype_out` (new structure
types).
"""

import numpy as np

PARTS = ("train", "validation", "test")


class SplitError(ValueError):
    """A split or a subset that these materials do not allow; the message says why."""


def _draw(seed: int) -> np.random.Generator:
    if seed < 0:
        raise SplitError(f"seed {seed}: give a whole number from 0 on.")
    return np.random.default_rng(seed)


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
    _check_fractions(fractions)
    materials, group = np.unique(ids, return_inverse=True)
    order = _draw(seed).permutation(len(materials))
    ends = np.rint(np.cumsum(fractions) * len(materials)).astype(int)
    part_of = np.empty(len(materials), dtype=int)
    part_of[order] = np.searchsorted(ends, np.arange(len(materials)), side="right")
    parts = {name: np.flatnonzero(part_of[group] == k) for k, name in enumerate(PARTS)}
    _check_parts(parts, fractions, len(materials), "material")
    return parts


def leave_composition_out(
    material_ids, compositions, fractions=(0.8, 0.1, 0.1), seed: int = 0
) -> dict[str, np.ndarray]:
    """Split rows so that all polymorphs of a reduced formula land in one part.

    Parameters
    ----------
    material_ids : array_like, shape (n_rows,)
    compositions : array_like of str, shape (n_rows,)
        Formula of each row; "MgTi2O4" and "Ti4Mg2O8" are one.
    fractions, seed
        As for `split_by_material`; shares of the *materials*, met as well as whole groups allow.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        As `split_by_material`; a material with two compositions, or one without (names it).
    """
    from pymatgen.core import Composition

    formulas = np.asarray(compositions)
    known = {text: Composition(text).reduced_composition.alphabetical_formula for text in np.unique(formulas)}
    return split_by_group([known[text] for text in formulas], material_ids, fractions, seed)


def leave_prototype_out(material_ids, prototypes, fractions=(0.8, 0.1, 0.1), seed: int = 0) -> dict[str, np.ndarray]:
    """Split rows so that all crystals of a structure type land in one part.

    Parameters
    ----------
    material_ids : array_like, shape (n_rows,)
    prototypes : array_like of str, shape (n_rows,)
        Structure type of each row, as in the column `prototype` of the pairs of the embedded datasets.
    fractions, seed
        As for `leave_composition_out`.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        As `leave_composition_out`.
    """
    return split_by_group(prototypes, material_ids, fractions, seed)


def split_by_group(groups, material_ids, fractions=(0.8, 0.1, 0.1), seed: int = 0) -> dict[str, np.ndarray]:
    """Split rows so that whole groups of materials land in one part, parts near their share of the materials.

    Parameters
    ----------
    groups : array_like of str, shape (n_rows,)
        The group of each row's material.
    material_ids : array_like, shape (n_rows,)
    fractions, seed
        As for `split_by_material`.

    Returns
    -------
    dict of str to ndarray
        Sorted row indices; every row is in exactly one part.

    Raises
    ------
    ValueError
        As `split_by_material`, with "groups" for materials; or a material in two groups, or in none (names it).

    Notes
    -----
    Groups come in random order, and each goes to the part that lacks most of its share. Those too large for the
    smallest part come first: later they might find no part with room.
    """
    ids, labels = np.asarray(material_ids), np.asarray(groups, dtype=object)
    _check_fractions(fractions)
    absent = [name for name, label in zip(ids, labels, strict=True) if label is None or label != label or label == ""]
    if absent:
        raise SplitError(f"material {absent[0]} has no group: give one to each row, or leave these rows out")
    materials, first, of_row = np.unique(ids, return_index=True, return_inverse=True)
    label = labels[first].astype(str)
    torn = np.flatnonzero(label[of_row] != labels.astype(str))
    if len(torn):
        raise SplitError(f"material {ids[torn[0]]} is in two groups, {label[of_row][torn[0]]} and {labels[torn[0]]}")
    names, group, size = np.unique(label, return_inverse=True, return_counts=True)
    wanted = np.array(fractions) * len(materials)
    got, part_of = np.zeros(3), np.empty(len(names), dtype=int)
    order = _draw(seed).permutation(len(names))
    too_large = size[order] > min(share for share in wanted if share > 0)
    for k in [*order[too_large], *order[~too_large]]:
        part_of[k] = int(np.argmax(np.where(np.array(fractions) > 0, wanted - got, -np.inf)))
        got[part_of[k]] += size[k]
    parts = {name: np.flatnonzero(part_of[group][of_row] == k) for k, name in enumerate(PARTS)}
    _check_parts(parts, fractions, len(names), "group")
    return parts


def _check_fractions(fractions) -> None:
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):  # NaN too
        raise SplitError(f"fractions must be three shares >= 0 that add up to 1, got {fractions}")


def _check_parts(parts: dict[str, np.ndarray], fractions, n: int, noun: str) -> None:
    empty = [name for name, share in zip(PARTS, fractions, strict=True) if share > 0 and len(parts[name]) == 0]
    if empty:
        raise SplitError(
            f"{n} {noun}{'s' * (n != 1)}: too few for a {fractions} split, {', '.join(empty)} is empty; use more of "
            "them or other fractions."
        )


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
        Sorted row indices, one array per size.

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
    rank = _draw(seed).permutation(len(materials))[group]
    rows = np.argsort(rank, kind="stable")
    return [np.sort(rows[:size]) for size in sizes]
