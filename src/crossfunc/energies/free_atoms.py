"""Energies of isolated atoms in PBE and r2SCAN, computed by others with VASP: element references without any crystal.

A reference fitted to crystals holds what an atom contributes and the average bonding of the set. An isolated atom has
no bonds, so its shift between two functionals is the atomic part alone: of functional and pseudopotential.
"""

import functools
from importlib import resources

__all__ = ["vasp_free_atoms"]

FILE = "vasp_atoms.csv"


@functools.cache
def vasp_free_atoms():
    """Return VASP's energies of isolated, spin-polarised atoms.

    Returns
    -------
    pandas.DataFrame
        Index `element`, in order of atomic number; columns `pbe` and `r2scan`, eV; on one set of PAW potentials for
        both functionals. 84 elements; not among them Po, At, Rn, Fr and Ra.

    Notes
    -----
    A. Kaplan, isolated_atomic_energies (2024), MIT licence. Energies count from VASP's own reference atoms, so only
    their differences between functionals compare with those of another code.
    """
    import pandas as pd

    with resources.files("crossfunc.energies").joinpath(FILE).open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#", index_col="element", keep_default_na=False, na_values=[])
