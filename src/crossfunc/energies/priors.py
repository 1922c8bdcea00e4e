"""How far element references move from GGA/GGA+U to r2SCAN, known before any fit: a prior for few materials.

A refit on a dozen materials sees most elements once or never. What they should then be pulled to is known for this pair
of functionals: the difference of the two tables that chgnet publishes, fitted to over 200,000 r2SCAN frames. Elements
that were not among them take the shift of the free atom, which the table follows within 0.5 eV on average (70 elements
in both; lesson 3), or lie between their neighbours in Z.
"""

import functools
from dataclasses import dataclass

import numpy as np

from crossfunc.energies.published import published_atomref
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS, N_ELEMENTS

FREE_ATOM_SHIFT_EV = {"Po": -56.44, "Rn": -60.16, "Fr": -61.64, "Ra": -62.99}
"""r2SCAN minus PBE, half of a dimer at 6 Å, VASP on one set of PAW potentials (PBE_64), eV/atom.

From the diatomic curves of matbench-discovery (J. Riebesell et al., MIT licence). The PAW sets of MPtrj and MP-r2SCAN
are others; where the published tables have the element too, the two shifts differ by 0.5 eV on average.
"""

PUBLISHED_RIDGE = 0.1
"""Pull towards the published shift, in materials: the variance of what is left of an energy (0.1 eV/atom) over that of
the shift's own error (0.3 eV)."""


@dataclass(frozen=True, eq=False)
class ShiftPrior:
    """Shift of every element's reference from GGA/GGA+U to r2SCAN, with the origin of each.

    Attributes
    ----------
    shift_ev : ndarray, shape (94,)
        eV/atom, element Z at index Z - 1; a value for each element.
    origin : tuple of str
        "published", "free atom" or "between its neighbours", element by element.
    """

    shift_ev: np.ndarray
    origin: tuple[str, ...]

    def describe(self, symbols) -> str:
        """Say where the shifts of some elements come from, those of one origin together."""
        found: dict[str, list[str]] = {}
        for symbol in symbols:
            found.setdefault(self.origin[ATOMIC_NUMBERS[symbol] - 1], []).append(symbol)
        return "; ".join(f"{', '.join(those)}: {origin}" for origin, those in found.items())


@functools.cache
def published_shift() -> ShiftPrior:
    """Return the shift between chgnet's published tables, MP-r2SCAN minus MPtrj, with no element left open.

    Raises
    ------
    AtomRefError
        From `published_atomref`.

    Notes
    -----
    chgnet stores numbers near zero for the six elements without r2SCAN data (Yb, Po, At, Rn, Fr, Ra); taken as shifts
    these would be wrong by 30 to 65 eV. Here four of them have the shift of the free atom, `FREE_ATOM_SHIFT_EV`, and
    Yb and At lie between their neighbours.
    """
    shift = published_atomref("MP-r2SCAN").energies_ev - published_atomref("MPtrj").energies_ev
    origin = np.where(np.isfinite(shift), "published", "between its neighbours").astype(object)
    for symbol, value in FREE_ATOM_SHIFT_EV.items():
        shift[ATOMIC_NUMBERS[symbol] - 1], origin[ATOMIC_NUMBERS[symbol] - 1] = value, "free atom"
    known = np.flatnonzero(np.isfinite(shift))
    shift = np.interp(np.arange(N_ELEMENTS), known, shift[known])
    shift.setflags(write=False)
    return ShiftPrior(shift, tuple(origin))


def free_atom_shifts_ev(curves: dict, low: str = "PBE", high: str = "r2SCAN") -> dict[str, float]:
    """Shift of free atoms between two functionals, half the difference of dimers at their largest common distance.

    Parameters
    ----------
    curves : dict
        `{functional: {"Au-Au": {"distances": [...], "energies": [...]}}}`, Å and eV, as in the diatomic curves of
        matbench-discovery.
    low, high : str
        Keys of the functionals.

    Returns
    -------
    dict of str to float
        Symbol to high minus low, eV/atom, for dimers in both that reach a common distance of 5 Å.
    """
    shifts = {}
    for name in curves[low].keys() & curves[high].keys():
        symbol = name.partition("-")[0]
        energies = [
            dict(zip(c[name]["distances"], c[name]["energies"], strict=True)) for c in (curves[low], curves[high])
        ]
        common = energies[0].keys() & energies[1].keys()
        if symbol in ELEMENT_SYMBOLS and common and max(common) >= _FREE_FROM_A:
            shifts[symbol] = (energies[1][max(common)] - energies[0][max(common)]) / 2
    return shifts


_FREE_FROM_A = 5.0
