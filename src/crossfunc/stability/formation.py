"""Formation energies: each functional, or model, against its own elemental ground states."""

from typing import Literal

import numpy as np

from crossfunc.energies.composition import as_composition_matrix, composition_matrix
from crossfunc.stability.entries import EntryTable, named
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS, N_ELEMENTS


class FormationError(ValueError):
    """Formation energies that have no zero; the message names the element or the row."""


def element_energies_ev(source, *, functional: str | None = None, energy_kind: str | None = None) -> np.ndarray:
    """Ground-state energy per atom of each element, μ(Z) = min E over the entries that are that element alone.

    Parameters
    ----------
    source : EntryTable, pandas.DataFrame or mapping
        Entries, of which the lowest of each element counts; a dataset's `elements` table; or symbol to eV/atom.
    functional, energy_kind : str, optional
        Which rows of an `elements` table; needed where it holds several.

    Returns
    -------
    ndarray, shape (94,)
        eV/atom; NaN where there is no such element.

    Raises
    ------
    FormationError
        Several functionals or energy kinds at once, an unknown element, or no row of the kind that is asked for.

    Notes
    -----
    Paper, Table 1, last column; lesson 6.
    """
    if isinstance(source, EntryTable):
        alone = np.diff(source.X.indptr) == 1
        rows, columns = np.flatnonzero(alone), source.X.indices[source.X.indptr[:-1][alone]]
        _refuse_mixture(source.functional[rows], source.energy_kind[rows])
        return _lowest(columns, source.energy_per_atom_ev[rows])
    if hasattr(source, "columns"):
        chosen = np.ones(len(source), dtype=bool)
        for name, value in (("functional", functional), ("energy_kind", energy_kind)):
            if value is not None:
                chosen &= (source[name] == value).to_numpy()
        table = source[chosen]
        if table.empty:
            raise FormationError(f"no elements of functional {functional}, energy kind {energy_kind} in the table.")
        _refuse_mixture(table["functional"].to_numpy(), table["energy_kind"].to_numpy())
        symbols, energies = table["element"].tolist(), table["energy_per_atom_ev"].to_numpy(dtype=np.float64)
    else:
        symbols, energies = list(source), np.array(list(source.values()), dtype=np.float64)
    unknown = [symbol for symbol in symbols if symbol not in ATOMIC_NUMBERS]
    if unknown:
        raise FormationError(f"{named(unknown)}: unknown element; symbols run from H to Pu.")
    return _lowest(np.array([ATOMIC_NUMBERS[symbol] - 1 for symbol in symbols], dtype=int), energies)


def formation_energy_per_atom_ev(
    compositions, energy_per_atom_ev, elements, *, missing: Literal["raise", "nan"] = "raise"
) -> np.ndarray:
    """Formation energies, E_f = E - X μ, in eV/atom: the energy set free in making a compound from its elements.

    Parameters
    ----------
    compositions : sparse array (n, 94), or sequence of str, or table
        Composition matrix, or what `composition_matrix` makes one of.
    energy_per_atom_ev : array_like, shape (n,)
        Total energies of one functional or model.
    elements : array_like (94,), mapping, or EntryTable
        Ground states of the same functional or model, as `element_energies_ev` takes or returns them.
    missing : {"raise", "nan"}
        What becomes of rows with an element that has no ground state, or without an energy: refuse, or leave empty.

    Returns
    -------
    ndarray, shape (n,)
        With `missing="nan"`, NaN where it cannot be known.

    Raises
    ------
    FormationError
        Columns of different lengths; unless `missing="nan"`, an element without a ground state (names it and the rows
        that need it) or an energy that is not finite.

    Notes
    -----
    Paper, Table 1; lesson 6. Ground states of another functional would put errors of tens of eV/atom into the result.
    """
    X = as_composition_matrix(compositions) if hasattr(compositions, "indptr") else composition_matrix(compositions)
    energies = np.asarray(energy_per_atom_ev, dtype=np.float64)
    if energies.shape != (X.shape[0],):
        raise FormationError(f"{X.shape[0]} compositions but energies of shape {energies.shape}; give one each.")
    if isinstance(elements, np.ndarray):
        zero = np.asarray(elements, dtype=np.float64)
        if zero.shape != (N_ELEMENTS,):
            raise FormationError(
                f"elements have shape {zero.shape}, not ({N_ELEMENTS},): one energy for each of H to Pu."
            )
    else:
        zero = element_energies_ev(elements)
    formation = energies - X @ zero
    if missing == "raise" and not np.isfinite(formation).all():
        raise FormationError(_why_not_finite(X, energies, zero, formation))
    return formation


def missing_elements(X, elements_ev: np.ndarray) -> list[str]:
    """Symbols of the elements that occur in X but have no ground state."""
    there = np.unique(X.indices)
    return [ELEMENT_SYMBOLS[column] for column in there[np.isnan(elements_ev[there])]]


def _why_not_finite(X, energies, zero, formation) -> str:
    rows = np.flatnonzero(~np.isfinite(formation)).tolist()
    absent = missing_elements(X, zero)
    if absent:
        return (
            f"no ground state of {', '.join(absent)}, which rows {named(rows)} need; "
            "give its energy per atom in the same functional, or leave these rows out."
        )
    return f"rows {named(np.flatnonzero(~np.isfinite(energies)).tolist())}: the energy is not finite; leave them out."


def _lowest(columns: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Lowest energy of each element, NaN where there is none."""
    lowest = np.full(N_ELEMENTS, np.inf)
    np.minimum.at(lowest, columns, energies)
    return np.where(np.isfinite(lowest), lowest, np.nan)


def _refuse_mixture(functionals: np.ndarray, kinds: np.ndarray) -> None:
    for name, values in (("functionals", functionals), ("energy kinds", kinds)):
        distinct = sorted({str(value) for value in values})
        if len(distinct) > 1:
            raise FormationError(
                f"elements of several {name} ({', '.join(distinct)}) share no zero of energy; choose one of them."
            )
