"""Entries whose energies a model predicts: the model's own hull, from the structures in a file of pymatgen entries.

The file is read as plain JSON: nothing that it names is imported.
"""

import os
from pathlib import Path

import numpy as np

from crossfunc.energies import composition_matrix
from crossfunc.potential import Crystals, as_model, predict
from crossfunc.stability.entries import EntryTable, HullError, _fractions, named
from crossfunc.stability.entry_sources import _facts_of_json, _read_json
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

__all__ = ["entries_by_model"]

SAME_FRACTION = 1e-4
"""Atomic fractions that differ by no more are one composition with rounded amounts."""


def entries_by_model(model, path: str | os.PathLike, *, name: str = "the model") -> tuple[EntryTable, dict[str, str]]:
    """Entries of a file with a model's energies for their structures, as these stand (not relaxed).

    Parameters
    ----------
    model : CHGNet, AseModel or ASE Calculator
    path : str or path
        JSON of `ComputedStructureEntry`, also gzipped.
    name : str
        What to call the model.

    Returns
    -------
    entries : EntryTable
        `functional` says by which model; so no hull mixes them with DFT's energies.
    refused : dict of str to str
        Entry to the reason why there is no prediction: it is left out.

    Raises
    ------
    HullError
        Entries without an ordered structure, entries whose structure is of another composition than they say (names
        them), or none that the model can predict.
    """
    path = Path(path)
    rows = _read_json(path)
    facts = [_facts_of_json(k, row, path) for k, row in enumerate(rows)]
    ids = np.array([fact.id for fact in facts], dtype=object)
    triples = [_crystal_of(row.get("structure")) for row in rows]
    whole = [triple for triple in triples if triple is not None]
    without = np.array([triple is None for triple in triples])
    if without.any():
        raise HullError(
            f"{path}: {named(ids[without])} has no ordered structure, so no model can predict its energy; write "
            "pymatgen's ComputedStructureEntry.as_dict(), or leave it out."
        )
    _refuse_other_compositions(path, ids, tuple(fact.formula for fact in facts), [numbers for numbers, _, _ in whole])
    found = predict(as_model(model), Crystals.from_arrays(whole), derivatives=False, strict=False)
    kept = np.setdiff1d(np.arange(len(ids)), list(found["refused"]))
    refused = {str(ids[k]): reason for k, reason in found["refused"].items()}
    if not len(kept):
        first = next(iter(refused.items()))
        raise HullError(f"{path}: {name} can predict none of {len(ids)} entries; the first, {first[0]}: {first[1]}")
    table = EntryTable.from_columns(
        ids[kept],
        [facts[k].formula for k in kept],
        found["energy_per_atom_ev"][kept],
        functional=f"predicted by {name}",
        energy_kind="raw",
        source=str(path),
    )
    return table, refused


def _refuse_other_compositions(path: Path, ids: np.ndarray, formulas: tuple[str, ...], numbers: list) -> None:
    """Raise where an entry says one composition and holds the structure of another: the energy would be of neither."""
    difference = abs(_fractions(ids, formulas, str(path)) - composition_matrix(numbers)).max(axis=1).toarray().ravel()
    wrong = np.flatnonzero(difference > SAME_FRACTION)
    if len(wrong):
        kinds, counts = np.unique(numbers[wrong[0]], return_counts=True)
        held = "".join(f"{ELEMENT_SYMBOLS[z - 1]}{n}" for z, n in zip(kinds, counts, strict=True))
        raise HullError(
            f"{path}: {named(ids[wrong])} says another composition than its structure has (the first: "
            f"{formulas[wrong[0]]}, and the structure is {held}): put right the one that is wrong, or leave it out."
        )


def _crystal_of(structure) -> tuple | None:
    """Atomic numbers, fractional coordinates and cell from the JSON of a structure; None where it has none."""
    try:
        sites = structure["sites"]
        species = [site["species"] for site in sites]
        if any(len(some) != 1 or some[0].get("occu", 1) != 1 for some in species):
            return None
        numbers = [ATOMIC_NUMBERS[_symbol(some[0]["element"])] for some in species]
        return numbers, np.array([site["abc"] for site in sites], dtype=float), structure["lattice"]["matrix"]
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        return None


def _symbol(element: str) -> str:
    """The element of a species that may carry an oxidation state: "Fe3+"."""
    return element[: 1 + (len(element) > 1 and element[1].islower())]
