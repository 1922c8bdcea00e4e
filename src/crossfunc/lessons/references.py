"""What lesson 3 knows of element references beside its own fits: free atoms, published tables, real pairs."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd

from crossfunc.datasets import Dataset, DatasetError
from crossfunc.dft.labels import free_atoms
from crossfunc.energies import (
    AtomRefFit,
    composition_matrix,
    correlation_report,
    fit_atomref,
    fit_model_aware_atomref,
    free_atom_shifts_ev,
    material_folds,
    published_atomref,
    published_tables_apply,
)
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.training.dimers import find_dimers

SOURCES = ("free_atom", "published", "published_atom")
"""Columns of `shift_evidence` beside the fit."""


def free_atom_references(dataset: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the energies of free atoms as references of the low and of the high functional.

    Returns
    -------
    dict of str to (ndarray, ndarray), each of shape (94,)
        Under "free atoms", eV; NaN for elements whose atom is not in the dataset's records. Empty without any.
    """
    atoms = free_atoms(dataset)
    keys = [functional.key for functional in dataset.functionals]
    if atoms.empty or not set(keys) <= set(atoms.columns):
        return {}
    low, high = (atoms[key].reindex(list(ELEMENT_SYMBOLS)).to_numpy() for key in keys)
    return {"free atoms": (low, high)}


def shift_evidence(dataset: Dataset, fit: AtomRefFit, dimers: Path | None = None) -> pd.DataFrame:
    """Return the shift of each element's reference between the functionals, by where it comes from.

    Parameters
    ----------
    dataset : Dataset
    fit : AtomRefFit
        Of the difference of the energies, high minus low.
    dimers : path, optional
        Curves of dimers in VASP; by default those of a folder of CROSSFUNC_DATA, if one has them.

    Returns
    -------
    pandas.DataFrame
        Index: symbols of the elements that the fit determines, in order of atomic number; columns in eV: `fitted`,
        `std_error`, `free_atom` (from the dataset's own records), `published` (chgnet's tables, VASP) and
        `published_atom` (half a dimer at 6 Å, VASP). NaN where a source lacks the element; the last two are NaN where
        the dataset goes to another functional than they.
    """
    table = pd.DataFrame(
        {"fitted": fit.energies_ev, "std_error": fit.std_error_ev}, index=pd.Index(ELEMENT_SYMBOLS, name="element")
    )
    for name, (low, high) in free_atom_references(dataset).items():
        table[name.replace(" ", "_").removesuffix("s")] = high - low
    if _is_the_published_pair(dataset):
        table["published"] = published_atomref("MP-r2SCAN").energies_ev - published_atomref("MPtrj").energies_ev
        if dimers := dimers or find_dimers():
            table["published_atom"] = pd.Series(_dimer_shifts(dimers))
    return table[fit.determined].reindex(columns=["fitted", "std_error", *SOURCES])


def _is_the_published_pair(dataset: Dataset) -> bool:
    low, high = dataset.functionals
    return low.key in ("gga", "pbe") and high.key == "r2scan"


def _dimer_shifts(path: Path) -> dict[str, float]:
    try:
        data = Path(path).read_bytes()
        return free_atom_shifts_ev(json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DatasetError(f"{path}: not readable as curves of dimers in PBE and r2SCAN ({error}).") from error


def correlations(dataset: Dataset, **options) -> pd.DataFrame:
    """Return `correlation_report` of a dataset's pairs, with the references that apply to them.

    Parameters
    ----------
    dataset : Dataset
        Published tables are subtracted where they are on the scale of its energies, free atoms where its records hold
        some.
    options
        For `correlation_report`.

    Returns
    -------
    pandas.DataFrame
    """
    pairs = dataset.pairs
    low, high = (pairs[functional.column()].to_numpy() for functional in dataset.functionals)
    tables = [published_atomref(name) for name in ("MPtrj", "MP-r2SCAN")] if published_tables_apply(dataset) else []
    options |= {"material_ids": pairs["material_id"].to_numpy(), "others": free_atom_references(dataset)}
    return correlation_report(composition_matrix(pairs), low, high, *tables, **options)


def untrained(X, low, high, material_ids, old: AtomRefFit, *, n_splits: int, seed: int) -> pd.DataFrame:
    """Return what the best GGA model imaginable, the low functional itself, predicts with new references.

    Parameters
    ----------
    X : sparse array, shape (n_rows, 94)
    low, high : ndarray, shape (n_rows,)
        eV/atom; the first plays the model.
    material_ids : ndarray, shape (n_rows,)
    old : AtomRefFit
        References inside the model: what it adds to them is the low energy less these.
    n_splits, seed : int
        Folds of the cross-validation over materials; every row is predicted with references of the other folds.

    Returns
    -------
    pandas.DataFrame
        eV/atom; columns "as it is", "refit (Method 4)" and "model-aware"; the index is the row of X. Rows that the
        other folds do not determine are left out.
    """
    folds, network = material_folds(material_ids, n_splits, seed), old.remove(X, low)
    parts = []
    for k in range(n_splits):
        train, test = folds != k, np.flatnonzero(folds == k)
        refit = fit_atomref(X[train], high[train])
        aware = fit_model_aware_atomref(X[train], high[train], low[train], old)
        test = test[refit.is_determined_for(X[test])]
        columns = [low[test], network[test] + refit.predict(X[test]), network[test] + aware.predict(X[test])]
        parts.append(pd.DataFrame(np.column_stack(columns), test, ["as it is", "refit (Method 4)", "model-aware"]))
    return pd.concat(parts).sort_index()


def agreements(table: pd.DataFrame) -> dict[str, float]:
    """Return how far sources of a shift agree, median |difference| in eV, by the keys of the results file.

    Parameters
    ----------
    table : pandas.DataFrame
        From `shift_evidence`.

    Returns
    -------
    dict of str to float
        `agreement` (fitted against published), `free_atom` (fitted against free atoms of the same code) and
        `vasp_atom` (published against VASP's free atoms); without those that have no element in common.
    """
    compared = {
        "agreement": ("fitted", "published"),
        "free_atom": ("fitted", "free_atom"),
        "vasp_atom": ("published", "published_atom"),
    }
    found = {key: typical_deviation(table, *columns) for key, columns in compared.items()}
    return {key: off for key, off in found.items() if np.isfinite(off)}


def typical_deviation(table: pd.DataFrame, one: str, other: str) -> float:
    """Return the median |difference| of two columns over the rows that have both, NaN if none has."""
    return float((table[one] - table[other]).abs().median())
