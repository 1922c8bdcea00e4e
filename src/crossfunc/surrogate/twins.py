"""No crystal under two names: drop twins from the embedded dataset, and what follows from it for its tables."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets import Dataset, DatasetError, open_dataset, write_dataset
from crossfunc.datasets.schema import REJECTED_COLUMNS
from crossfunc.datasets.twins import find_twin_materials
from crossfunc.energies import composition_matrix
from crossfunc.symbols import ELEMENT_SYMBOLS


def drop_twins(
    dataset: Dataset | str | os.PathLike,
    out: str | os.PathLike,
    *,
    version: str | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset again in which no two materials are one crystal.

    Parameters
    ----------
    dataset : Dataset, str or path
        With frames and pairs.
    out : str or path
        Folder to write; may be the dataset's own with `overwrite`.
    version : str, optional
        Of the dataset that is written; by default that of the one given.
    overwrite : bool

    Returns
    -------
    Dataset
        Of each group of twins the first material stays; of an element, its ground state in the high functional. The
        others go to `rejected.parquet`, each with the name of its twin. Ground states and formation energies are taken
        again from what stays, where they are of crystals among the pairs.

    Raises
    ------
    DatasetError
        No frames to compare, or an existing folder without `overwrite`.

    Notes
    -----
    The generator ends with this step, so a dataset made anew and the one made before, without its twins, are equal.
    Applied twice, it changes nothing.
    """
    dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    meta = {key: value for key, value in dataset.meta.items() if key != "files"}
    meta["version"] = version or meta["version"]
    tables = {"frames": dataset.frames, "pairs": dataset.pairs, "elements": dataset.elements}
    return write_without_twins(out, meta=meta, **tables, rejected=dataset.rejected, overwrite=overwrite)


def write_without_twins(out, *, meta: dict, frames, pairs, elements, rejected, overwrite: bool = False) -> Dataset:
    """`write_dataset` of what `without_twins` leaves, with the dropped ones in the ledger and their number in words."""
    pairs, frames, elements, dropped = without_twins(pairs, frames, elements)
    if len(dropped):
        meta = meta | {"provenance": f"{meta['provenance']}; {len(dropped)} twins of others dropped (the same crystal)"}
        rejected = pd.concat([rejected, dropped], ignore_index=True)
    tables = {"frames": frames, "pairs": pairs, "elements": elements, "rejected": rejected}
    return write_dataset(out, meta=meta, **tables, overwrite=overwrite)


def without_twins(
    pairs: pd.DataFrame, frames: pa.Table, elements: pd.DataFrame
) -> tuple[pd.DataFrame, pa.Table, pd.DataFrame, pd.DataFrame]:
    """Tables without twins, and the ledger of what was dropped; see `drop_twins`."""
    if pairs is None or frames is None:
        raise DatasetError(
            "twins are sought among pairs of both functionals that have frames, and this dataset has none."
        )
    twin_of = _choose(find_twin_materials(frames), pairs)
    gone = pairs["material_id"].isin(list(twin_of))
    kept = pairs[~gone].reset_index(drop=True)
    frames = frames.filter(pc.invert(pc.is_in(frames["material_id"], value_set=pa.array(list(twin_of), pa.string()))))
    dropped = [
        ("pairs", row, name, f"the same crystal as {twin_of[name]}")
        for row, name in pairs.loc[gone, "material_id"].items()
    ]
    ledger = pd.DataFrame(dropped, columns=REJECTED_COLUMNS)
    if not _are_from_pairs(elements, pairs):  # of other crystals, perhaps, than the pairs': they stay what they are
        return kept, frames, elements, ledger
    return _formation_energies(kept), frames, _ground_states(elements, pairs, kept), ledger


_FORMATION = "_formation_energy_per_atom_ev"
_HIGH = ("high_energy_per_atom_ev", "r2scan_energy_per_atom_ev")


def _choose(groups: list[tuple[str, ...]], pairs: pd.DataFrame) -> dict[str, str]:
    """Id that is dropped -> its twin that stays."""
    known = pairs.set_index("material_id")
    high = next(name for name in _HIGH if name in known)
    is_element = dict(zip(known.index, _elements_of(known["composition"]), strict=True))
    order = {name: k for k, name in enumerate(known.index)}
    twin_of = {}
    for group in groups:
        stays = known.loc[list(group), high].idxmin() if is_element[group[0]] else min(group, key=order.__getitem__)
        twin_of |= {name: stays for name in group if name != stays}
    return twin_of


def _elements_of(compositions) -> list[str | None]:
    """Symbol of each composition that is a single element, None for a compound."""
    X = composition_matrix(list(compositions))
    one = np.diff(X.indptr) == 1
    return [ELEMENT_SYMBOLS[X.indices[X.indptr[k]]] if one[k] else None for k in range(X.shape[0])]


def _totals(pairs: pd.DataFrame) -> list[str]:
    """Columns of total energies that have formation energies beside them."""
    names = [name.replace(_FORMATION, "_energy_per_atom_ev") for name in pairs if name.endswith(_FORMATION)]
    return [name for name in names if name in pairs]


def _formation_energies(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs with formation energies above the lowest elemental crystals among them, eV/atom to six digits."""
    elemental = pd.Series(_elements_of(pairs["composition"]), pairs.index)
    X = composition_matrix(list(pairs["composition"]))
    pairs = pairs.copy()
    for total in _totals(pairs):
        ground = pairs[total].groupby(elemental).min().reindex(ELEMENT_SYMBOLS).fillna(0.0).to_numpy()
        pairs[total.replace("_energy_per_atom_ev", _FORMATION)] = (pairs[total] - X @ ground).round(6)
    return pairs


def _ground_states(elements: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The table of elements, each row the lowest elemental crystal that stayed, in the row's functional."""
    rows = []
    for _, table in elements.groupby("functional", sort=False):
        # The functional's column of the pairs is the one that these very energies come from.
        total = next(name for name in _totals(before) if _holds(before, name, table))
        symbol = pd.Series(_elements_of(after["composition"]), after.index)
        lowest = after.loc[after[total].groupby(symbol).idxmin()]
        lowest = lowest.set_index(symbol[lowest.index]).loc[table["element"]]
        energies, types = lowest[total].to_numpy(), lowest["prototype"].to_numpy()
        rows.append(table.assign(energy_per_atom_ev=energies, structure_type=types))
    return pd.concat(rows).reindex(elements.index)


def _are_from_pairs(elements: pd.DataFrame | None, pairs: pd.DataFrame) -> bool:
    """Whether every ground state is an elemental crystal among the pairs, as in the embedded dataset."""
    if elements is None or "prototype" not in pairs:
        return False
    tables = [table for _, table in elements.groupby("functional", sort=False)]
    return all(any(_holds(pairs, name, table) for name in _totals(pairs)) for table in tables)


def _holds(pairs: pd.DataFrame, total: str, elements: pd.DataFrame) -> bool:
    """Whether the elements' energies are the lowest of their elemental crystals in this column."""
    lowest = pairs[total].groupby(pd.Series(_elements_of(pairs["composition"]), pairs.index)).min()
    return bool(np.allclose(lowest.reindex(elements["element"]), elements["energy_per_atom_ev"], atol=1e-9, rtol=0))
