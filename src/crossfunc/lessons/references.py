"""What lesson 3 knows of element references beside its own fits: free atoms and published tables."""

from typing import Any

import numpy as np
import pandas as pd

from crossfunc.datasets import Dataset
from crossfunc.dft.labels import free_atoms
from crossfunc.energies import (
    AtomRefFit,
    composition_matrix,
    correlation_report,
    fit_atomref,
    fit_model_aware_atomref,
    material_folds,
    published_atomref,
    published_tables_apply,
)
from crossfunc.energies.free_atoms import vasp_free_atoms
from crossfunc.symbols import ELEMENT_SYMBOLS

SOURCES = ("free_atom", "published", "published_atom")
"""Columns of `shift_evidence` beside the fit."""

HEADINGS = {
    "fitted": "fitted here (eV)",
    "std_error": "standard error (eV)",
    "free_atom": "free atom, same code (eV)",
    "published": "published tables, VASP (eV)",
    "published_atom": "free atom, VASP (eV)",
}
"""Columns of `shift_evidence` as people read them."""


def free_atom_references(dataset: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the energies of free atoms, in the code that made the labels, as references of both functionals.

    Returns
    -------
    dict of str to (ndarray, ndarray), each of shape (94,)
        Under "free atoms", those of the low and of the high functional, eV: from the dataset's own records, or VASP's
        where `published_tables_apply`. NaN for elements whose atom is not known. Empty where no atom of that code is.
    """
    atoms = free_atoms(dataset)
    keys = [functional.key for functional in dataset.functionals]
    if published_tables_apply(dataset):
        atoms, keys = vasp_free_atoms(), ["pbe", "r2scan"]
    if atoms.empty or not set(keys) <= set(atoms.columns):
        return {}
    low, high = (atoms[key].reindex(list(ELEMENT_SYMBOLS)).to_numpy() for key in keys)
    return {"free atoms": (low, high)}


def shift_evidence(dataset: Dataset, fit: AtomRefFit) -> pd.DataFrame:
    """Return the shift of each element's reference between the functionals, by where it comes from.

    Parameters
    ----------
    dataset : Dataset
    fit : AtomRefFit
        Fit to the difference of the energies, high minus low.

    Returns
    -------
    pandas.DataFrame
        Index: symbols of the elements that the fit determines, in order of atomic number; columns in eV: `fitted`,
        `std_error`, `free_atom` (from the dataset's own records), `published` (chgnet's tables, VASP) and
        `published_atom` (free atoms in VASP). NaN where a source lacks the element; the last two are NaN where the
        dataset goes between other functionals than they.
    """
    table = pd.DataFrame(
        {"fitted": fit.energies_ev, "std_error": fit.std_error_ev}, index=pd.Index(ELEMENT_SYMBOLS, name="element")
    )
    low, high = (functional.key for functional in dataset.functionals)
    atoms = free_atoms(dataset)
    if {low, high} <= set(atoms.columns):
        table["free_atom"] = atoms[high] - atoms[low]
    if low in ("gga", "pbe") and high == "r2scan":
        table["published"] = published_atomref("MP-r2SCAN").energies_ev - published_atomref("MPtrj").energies_ev
        table["published_atom"] = vasp_free_atoms()["r2scan"] - vasp_free_atoms()["pbe"]
    return table[fit.determined].reindex(columns=["fitted", "std_error", *SOURCES])


def correlations(dataset: Dataset, **options) -> pd.DataFrame:
    """Return `correlation_report` of a dataset's pairs, with the references that apply to them.

    Parameters
    ----------
    dataset : Dataset
        Published tables are subtracted where they are on the scale of its energies, free atoms where those of its
        code are known.
    options
        For `correlation_report`.

    Returns
    -------
    pandas.DataFrame
    """
    pairs: Any = dataset.pairs  # the lesson has stopped where there is none
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


def counted_twice(X, low, material_ids, old: AtomRefFit, *, n_splits: int, seed: int) -> pd.Series:
    """What a plain refit counts twice, X (c_low - c_old), with c_low fitted to the low energies of other folds.

    It is how far this set's average bonding is from that of the set that `old` was fitted to, with whatever else
    separates the two sets in the low functional. On a set like the old one it is zero.

    Parameters
    ----------
    X, low, material_ids, old, n_splits, seed
        As for `untrained`, whose plain refit minus its model-aware one this is, because least squares is linear.

    Returns
    -------
    pandas.Series
        eV/atom; the index is the row of X. Rows that the other folds do not determine are left out.
    """
    folds, parts = material_folds(material_ids, n_splits, seed), []
    for k in range(n_splits):
        ours, test = fit_atomref(X[folds != k], low[folds != k]), np.flatnonzero(folds == k)
        test = test[ours.is_determined_for(X[test])]
        parts.append(pd.Series(ours.predict(X[test]) - old.predict(X[test]), test))
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


def two_elements(formulas, X, difference_ev, shift_ev, n_most: int = 150) -> tuple[pd.DataFrame, tuple[str, str]]:
    """Return what is left of the difference of two functionals for the two most frequent elements to explain.

    Parameters
    ----------
    formulas : sequence of str, length n_rows
    X : sparse array, shape (n_rows, 94)
    difference_ev : array_like, shape (n_rows,)
        High minus low, eV/atom.
    shift_ev : array_like, shape (94,)
        Fitted shift of each element, eV; taken off for all elements but the two.
    n_most : int
        Materials at most.

    Returns
    -------
    DataFrame
        For `figures.widgets.two_references`: `formula`, the fraction of each of the two, `difference_ev`; materials
        that hold one of them at least, those with most of the two first.
    (str, str)
        The two elements.
    """
    fractions = X.toarray()
    two = np.sort(np.argsort(-(fractions > 0).sum(axis=0), kind="stable")[:2])
    others = np.nan_to_num(np.asarray(shift_ev, float)).copy()
    others[two] = 0.0
    symbols = (ELEMENT_SYMBOLS[two[0]], ELEMENT_SYMBOLS[two[1]])
    table = pd.DataFrame({"formula": list(formulas), **dict(zip(symbols, fractions[:, two].T, strict=True))})
    table["difference_ev"] = np.asarray(difference_ev, float) - fractions @ others
    share = fractions[:, two].sum(axis=1)
    order = np.argsort(-share, kind="stable")
    return table.iloc[order[share[order] > 0][:n_most]].reset_index(drop=True), symbols
