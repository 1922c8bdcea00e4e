"""The minimum of E(V) against closed forms."""

import numpy as np
import pytest

from crossfunc.datasets import DatasetError
from crossfunc.dft.equation_of_state import fit_bond, fit_equation_of_state
from crossfunc.units import EV_PER_A3_TO_GPA


def curve(volumes, e0=-10.0, v0=40.0, b0_gpa=160.0, b1=4.5):
    """Energies and pressures of a Birch-Murnaghan solid, written from the finite strain f = ((V0/V)^(2/3) - 1) / 2."""
    b0 = b0_gpa / EV_PER_A3_TO_GPA
    f = ((v0 / volumes) ** (2 / 3) - 1) / 2
    energy = e0 + 9 / 2 * b0 * v0 * f**2 * (1 + (b1 - 4) * f)
    pressure = 3 * b0 * f * (1 + 2 * f) ** 2.5 * (1 + 1.5 * (b1 - 4) * f) * EV_PER_A3_TO_GPA
    return energy, pressure


@pytest.mark.parametrize("shift", [0.95, 1.0, 1.06])
def test_three_volumes_with_pressures_recover_the_curve(shift):
    volumes = 40.0 * shift * np.array([0.97, 1.0, 1.03]) ** 3
    energies, pressures = curve(volumes)
    fit = fit_equation_of_state(volumes, energies, pressures)
    assert fit.energy_ev == pytest.approx(-10.0, abs=1e-6)
    assert fit.volume_a3 == pytest.approx(40.0, rel=1e-5)
    assert fit.bulk_modulus_gpa == pytest.approx(160.0, rel=1e-3)
    assert fit.derivative == pytest.approx(4.5, rel=1e-2)
    assert fit.inside
    assert fit.largest_residual_ev < 1e-6


def test_a_minimum_outside_the_volumes_is_said_to_be_outside():
    volumes = 40.0 * np.array([1.1, 1.15, 1.2])
    assert not fit_equation_of_state(volumes, *curve(volumes)).inside


def test_energies_that_only_fall_have_an_extrapolated_minimum_and_are_no_error():
    fit = fit_equation_of_state([90, 95, 100, 105, 110], [-1.0, -1.5, -2.0, -2.5, -3.0], [16.0] * 5)
    assert not fit.inside
    assert fit.volume_a3 > 110


def test_two_volumes_are_refused():
    with pytest.raises(DatasetError, match="at least three"):
        fit_equation_of_state([40, 41], *curve(np.array([40.0, 41.0])))


def test_the_bond_of_a_morse_molecule_is_found():
    lengths = 1.10 * np.array([0.94, 0.97, 1.0, 1.03, 1.06, 1.10])
    energies = 9.8 * (1 - np.exp(-2.5 * (lengths - 1.12))) ** 2 - 9.8
    length, energy = fit_bond(lengths, energies)
    assert length == pytest.approx(1.12, abs=2e-3)
    assert energy == pytest.approx(-9.8, abs=5e-3)


def test_a_molecule_without_a_minimum_is_refused():
    with pytest.raises(DatasetError, match="no minimum"):
        fit_bond([1.0, 1.1, 1.2, 1.3], [-1.0, -2.0, -3.0, -4.0])
