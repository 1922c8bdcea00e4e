"""Formation energies of a table of pairs, above the elemental crystals in the table itself."""

import numpy as np
import pandas as pd

from crossfunc.energies import composition_matrix
from crossfunc.stability import formation_energy_per_atom_ev
from crossfunc.symbols import ELEMENT_SYMBOLS

FORMATION = "_formation_energy_per_atom_ev"
TOTAL = "_energy_per_atom_ev"


def with_formation_energies(pairs: pd.DataFrame, totals: list[str]) -> pd.DataFrame:
    """Pairs with E_f = E - X μ beside each column of total energies, μ(Z) the lowest elemental crystal among the rows.

    Parameters
    ----------
    pairs : DataFrame
        `composition` and the columns of `totals`, eV/atom.
    totals : list of str
        Names that end with `_energy_per_atom_ev`.

    Returns
    -------
    DataFrame
        A copy; `..._formation_energy_per_atom_ev` in eV/atom to six digits, empty (NaN) where an element of the row has
        no crystal of its own in the table.
    """
    X = composition_matrix(list(pairs["composition"]))
    symbols = elements_of(pairs["composition"])
    found = {
        total.removesuffix(TOTAL) + FORMATION: formation_energy_per_atom_ev(
            X, pairs[total], pairs[total].groupby(symbols).min().to_dict(), missing="nan"
        ).round(6)
        for total in totals
    }
    return pairs.assign(**found)


def elements_of(compositions: pd.Series) -> pd.Series:
    """Symbol of each composition that is a single element, None for a compound."""
    X = composition_matrix(list(compositions))
    one = np.diff(X.indptr) == 1
    symbols = [ELEMENT_SYMBOLS[X.indices[X.indptr[k]]] if one[k] else None for k in range(X.shape[0])]
    return pd.Series(symbols, compositions.index, dtype=object)
