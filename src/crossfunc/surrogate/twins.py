"""No crystal under two names: drop twins from the embedded dataset, and what follows from it for its tables."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets import Dataset, DatasetError, open_dataset, write_dataset
from crossfunc.datasets.schema import REJECTED_COLUMNS
from crossfunc.datasets.twins import find_twin_materials
from crossfunc.surrogate.formation import FORMATION, TOTAL, elements_of, with_formation_energies


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
        Version of the dataset that is written; by default that of the one given.
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
    kept = {"rejected": dataset.rejected, "records": dataset.records}
    return write_without_twins(out, meta=meta, **tables, **kept, overwrite=overwrite)


def write_without_twins(
    out, *, meta: dict, frames, pairs, elements, rejected, records=None, overwrite: bool = False
) -> Dataset:
    """`write_dataset` of what `without_twins` leaves, with the dropped ones in the ledger and their number in words."""
    pairs, frames, elements, dropped = without_twins(pairs, frames, elements)
    if len(dropped):
        meta = meta | {"provenance": f"{meta['provenance']}; {len(dropped)} twins of others dropped (the same crystal)"}
        rejected = pd.concat([rejected, dropped], ignore_index=True)
    tables = {"frames": frames, "pairs": pairs, "elements": elements, "rejected": rejected, "records": records}
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
    kept, all_frames = pairs[~gone].reset_index(drop=True), frames
    frames = frames.filter(pc.invert(pc.is_in(frames["material_id"], value_set=pa.array(list(twin_of), pa.string()))))
    dropped = [
        ("pairs", row, name, f"the same crystal as {twin_of[name]}")
        for row, name in pairs.loc[gone, "material_id"].items()
    ]
    unpaired = [name for name in twin_of if name not in set(pairs["material_id"])]
    dropped += [
        ("frames", row, name, f"the same crystal as {twin_of[name]}")
        for name in unpaired
        for row in np.flatnonzero(pc.equal(all_frames["material_id"], name).to_numpy(zero_copy_only=False))
    ]
    ledger = pd.DataFrame(dropped, columns=REJECTED_COLUMNS)
    if not _are_from_pairs(elements, pairs):  # of other crystals, perhaps, than the pairs': they stay what they are
        return kept, frames, elements, ledger
    return with_formation_energies(kept, _totals(kept)), frames, _ground_states(elements, pairs, kept), ledger


_HIGH = ("high_energy_per_atom_ev", "r2scan_energy_per_atom_ev")


def _choose(groups: list[tuple[str, ...]], pairs: pd.DataFrame) -> dict[str, str]:
    """Id that is dropped -> its twin that stays: one of the pairs where some frames of the crystal are in none."""
    known = pairs.set_index("material_id")
    high = next(name for name in _HIGH if name in known)
    is_element = elements_of(known["composition"]).notna()
    order = {name: k for k, name in enumerate(known.index)}
    twin_of: dict[str, str] = {}
    for group in groups:
        paired = sorted((name for name in group if name in order), key=order.__getitem__)
        if not paired:
            stays = group[0]
        elif is_element[paired[0]]:
            stays = known.loc[paired, high].idxmin()
        else:
            stays = paired[0]
        twin_of |= {name: stays for name in group if name != stays}
    return twin_of


def _totals(pairs: pd.DataFrame) -> list[str]:
    """Columns of total energies that have formation energies beside them."""
    names = [name.removesuffix(FORMATION) + TOTAL for name in pairs if name.endswith(FORMATION)]
    return [name for name in names if name in pairs]


def _ground_states(elements: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The table of elements, each row the lowest elemental crystal that stayed, in the row's functional."""
    rows = []
    for _, table in elements.groupby("functional", sort=False):
        # The functional's column of the pairs is the one that these very energies come from.
        total = next(name for name in _totals(before) if _holds(before, name, table))
        symbol = elements_of(after["composition"])
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
    lowest = pairs[total].groupby(elements_of(pairs["composition"])).min()
    return bool(np.allclose(lowest.reindex(elements["element"]), elements["energy_per_atom_ev"], atol=1e-9, rtol=0))
