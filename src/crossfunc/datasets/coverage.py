"""What a dataset covers: structures, materials, elements and how often, and systems of three elements."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets.functionals import Functional
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

__all__ = [
    "ENOUGH_MATERIALS",
    "HEAVY_Z",
    "FrameCounts",
    "count_frames",
    "count_structures",
    "describe_systems",
    "known_elements",
    "materials_per_element",
    "ternary_systems",
]

HEAVY_Z = 55
"""From caesium on, where the shift between functionals is largest."""
ENOUGH_MATERIALS = 6
"""In so many materials an element's reference does not hang on one or two compounds."""


def count_structures(frames: pa.Table) -> int:
    """Count the structures of a frames table: the same atoms in the same cell with two labels are one."""
    columns = [
        frames[name].combine_chunks().to_pylist()
        for name in ("material_id", "atomic_numbers", "lattice_a", "frac_coords")
    ]
    return len({hash((row[0], *map(tuple, row[1:]))) for row in zip(*columns, strict=True)})


class FrameCounts(NamedTuple):
    """What the frames of a dataset are of: structures, materials, heavy elements, and elements in enough materials."""

    n_structures: int
    n_materials: int
    heavy: list[str]
    enough: list[str]

    @property
    def n_heavy_in_enough(self) -> int:
        """Heavy elements among those in enough materials."""
        return len(set(self.heavy) & set(self.enough))


def count_frames(frames: pa.Table) -> FrameCounts:
    """Count what the frames of a dataset are of; see `HEAVY_Z` and `ENOUGH_MATERIALS`."""
    per_element = materials_per_element(frames.select(["material_id", "atomic_numbers"]).to_pandas())
    return FrameCounts(
        count_structures(frames),
        len(pc.unique(frames["material_id"])),
        [symbol for symbol in per_element.index if ATOMIC_NUMBERS[symbol] >= HEAVY_Z],
        list(per_element.index[per_element >= ENOUGH_MATERIALS]),
    )


def materials_per_element(frames: pd.DataFrame) -> pd.Series:
    """Return how many materials hold each element; index symbol, in order of atomic number."""
    first = frames.drop_duplicates("material_id")
    numbers = np.concatenate([np.unique(row) for row in first["atomic_numbers"]])
    found, counts = np.unique(numbers, return_counts=True)
    return pd.Series(counts, index=[ELEMENT_SYMBOLS[z - 1] for z in found], name="n_materials")


def known_elements(elements: pd.DataFrame, functionals: Iterable[Functional]) -> set[str]:
    """Return the elements that have an energy in each of the functionals.

    Parameters
    ----------
    elements : DataFrame
        The table of a dataset.
    functionals : iterable of Functional
    """
    of_each = []
    for one in functionals:
        rows = elements[elements["functional"] == one.key]
        rows = rows[rows["energy_kind"] == one.energy_kind]
        of_each.append(set(rows.loc[rows["energy_per_atom_ev"].notna(), "element"]))
    return set.intersection(*of_each) if of_each else set()


def ternary_systems(
    compositions: Iterable[str], known: Iterable[str], also: Iterable[frozenset[str]] = ()
) -> pd.DataFrame:
    """List the systems of three elements that compounds span.

    Parameters
    ----------
    compositions : iterable of str
        Formulas of materials.
    known : iterable of str
        Elements with an energy of their own.
    also : iterable of frozenset of str
        Systems to list whether a material spans them or not.

    Returns
    -------
    DataFrame
        `system` (tuple of symbols by atomic number), `n_compounds` of these elements and `missing` (tuple of the
        symbols that are not `known`); those that lack nothing first, then by compounds.
    """
    counts = Counter(frozenset(re.findall(r"[A-Z][a-z]?", formula)) for formula in compositions)
    there = set(known)
    rows: list[dict[str, Any]] = []
    for system in {s for s in {*counts, *also} if len(s) == 3}:
        symbols = tuple(sorted(system, key=ATOMIC_NUMBERS.__getitem__))
        within = [system, *map(frozenset, itertools.combinations(symbols, 2))]
        missing = tuple(symbol for symbol in symbols if symbol not in there)
        rows.append({"system": symbols, "n_compounds": sum(counts[one] for one in within), "missing": missing})
    rows.sort(key=lambda row: (bool(row["missing"]), -row["n_compounds"], len(row["missing"]), row["system"]))
    return pd.DataFrame(rows, columns=["system", "n_compounds", "missing"])


def describe_systems(systems: pd.DataFrame, n_shown: int = 4) -> str:
    """Say how many systems of `ternary_systems` lack no element, and how many phases the first ones have."""
    whole = systems[[not missing for missing in systems["missing"]]]
    if whole.empty:
        return ""
    shown = ", ".join(f"{'-'.join(row.system)} {row.n_compounds + 3}" for row in whole.head(n_shown).itertuples())
    return f"{len(whole)} systems of three elements with all three; phases, elements included: {shown}"
