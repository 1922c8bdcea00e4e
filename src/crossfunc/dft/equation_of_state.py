"""The minimum of E(V): a third-order Birch-Murnaghan curve through energies and pressures."""

from dataclasses import dataclass

import numpy as np

from crossfunc.datasets.schema import DatasetError
from crossfunc.units import EV_PER_A3_TO_GPA

__all__ = ["EquationOfState", "fit_bond", "fit_equation_of_state"]

ENERGY_ERROR_EV, PRESSURE_ERROR_GPA = 1e-3, 0.1
"""Weights of the two kinds of data: what the finite cutoff leaves in each."""


@dataclass(frozen=True)
class EquationOfState:
    """Minimum and curvature of the energy of a cell against its volume.

    Attributes
    ----------
    energy_ev : float
        Energy of the cell at the minimum.
    volume_a3 : float
    bulk_modulus_gpa : float
    derivative : float
        Derivative of the bulk modulus with pressure.
    largest_residual_ev : float
        Largest distance of an energy from the curve.
    inside : bool
        Whether the minimum lies between the smallest and the largest volume that were computed.
    """

    energy_ev: float
    volume_a3: float
    bulk_modulus_gpa: float
    derivative: float
    largest_residual_ev: float
    inside: bool


def fit_equation_of_state(
    volumes_a3: np.ndarray, energies_ev: np.ndarray, pressures_gpa: np.ndarray
) -> EquationOfState:
    """Fit E(V) = E0 + 9/16 V0 B0 [B0' (x - 1)^3 + (x - 1)^2 (6 - 4x)], x = (V0/V)^(2/3), and P = -dE/dV together.

    Parameters
    ----------
    volumes_a3, energies_ev, pressures_gpa : ndarray, shape (n,)
        At least three volumes of one cell; pressure is minus the mean stress (tension positive).

    Returns
    -------
    EquationOfState
        The best curve always has a minimum, also through energies that only fall: then it is extrapolated, its numbers
        say nothing of the crystal, and `inside` is False.

    Raises
    ------
    DatasetError
        Fewer than three volumes.

    Notes
    -----
    F. Birch, Phys. Rev. 71, 809 (1947). Three volumes give six data for four parameters.
    """
    from scipy.optimize import least_squares

    volumes_a3, energies_ev, pressures_gpa = (np.asarray(a, float) for a in (volumes_a3, energies_ev, pressures_gpa))
    if len(np.unique(volumes_a3)) < 3:
        raise DatasetError(f"{len(np.unique(volumes_a3))} volumes fix no equation of state; compute at least three.")
    lowest = int(np.argmin(energies_ev))
    scale = np.array([1.0, volumes_a3[lowest], 100 / EV_PER_A3_TO_GPA, 4.0])
    start = np.array([energies_ev[lowest], 1.0, 1.0, 1.0])

    def misfit(parameters: np.ndarray) -> np.ndarray:
        energy, pressure = _birch_murnaghan(volumes_a3, *(parameters * scale))
        return np.concatenate(
            [
                (energy - energies_ev) / ENERGY_ERROR_EV,
                (pressure * EV_PER_A3_TO_GPA - pressures_gpa) / PRESSURE_ERROR_GPA,
            ]
        )

    fit = least_squares(misfit, start, bounds=([-np.inf, 0.3, 1e-3, -5.0], [np.inf, 3.0, 20.0, 5.0]), x_scale="jac")
    e0, v0, b0, b1 = fit.x * scale
    residual = np.abs(_birch_murnaghan(volumes_a3, e0, v0, b0, b1)[0] - energies_ev).max()
    inside = bool(volumes_a3.min() <= v0 <= volumes_a3.max())
    return EquationOfState(float(e0), float(v0), float(b0 * EV_PER_A3_TO_GPA), float(b1), float(residual), inside)


def _birch_murnaghan(volume, e0, v0, b0, b1) -> tuple[np.ndarray, np.ndarray]:
    """Energy and pressure in eV and eV/Å³."""
    x = (v0 / volume) ** (2 / 3)
    energy = e0 + 9 / 16 * v0 * b0 * (b1 * (x - 1) ** 3 + (x - 1) ** 2 * (6 - 4 * x))
    pressure = 3 / 2 * b0 * (x**3.5 - x**2.5) * (1 + 3 / 4 * (b1 - 4) * (x - 1))
    return energy, pressure


def fit_bond(lengths_a: np.ndarray, energies_ev: np.ndarray) -> tuple[float, float]:
    """Return length (Å) and energy (eV) of the minimum of a cubic polynomial in 1/d through a diatomic's energies."""
    inverse = 1 / np.asarray(lengths_a, float)
    if len(inverse) < 4:
        raise DatasetError(f"{len(inverse)} bond lengths fix no minimum of a cubic; compute at least four.")
    curve = np.polynomial.Polynomial.fit(inverse, energies_ev, 3)
    slope, curvature = curve.deriv(), curve.deriv(2)
    real = np.array([r.real for r in slope.roots() if abs(r.imag) < 1e-9])
    for _ in range(3):  # one root of a cubic that is nearly a parabola is huge, and takes the other's digits
        real = real - slope(real) / np.where(curvature(real) == 0, 1.0, curvature(real))
    minima = [r for r in real if curvature(r) > 0 and inverse.min() <= r <= inverse.max()]
    if not minima:
        raise DatasetError("the energies of the molecule have no minimum between the shortest and the longest bond.")
    best = min(minima, key=curve)
    return float(1 / best), float(curve(best))
