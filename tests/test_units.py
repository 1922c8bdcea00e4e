"""Conversions between units: each factor against a number that can be looked up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfunc import units

FINITE = st.floats(-1e6, 1e6)


def test_one_ev_per_cubic_angstrom_is_the_elementary_charge_in_gpa():
    # 1 eV/Å³ = 1.602176...e-19 J / 1e-30 m³ = 1.602176...e11 Pa; the last digits are CODATA 2014's.
    assert units.gpa_from_ev_per_a3(1.0) == pytest.approx(160.2176634, rel=1e-7)
    assert units.gpa_from_ev_per_a3(1.0) == 160.21766208


def test_the_stress_factor_agrees_with_ase():
    import ase.units

    assert units.ev_per_a3_from_gpa(1.0) == pytest.approx(ase.units.GPa, rel=1e-7)


def test_an_electronvolt_is_a_thousand_millielectronvolt():
    assert units.mev_per_atom(0.025) == 25.0
    assert units.mev_per_atom(-1) == -1000.0


def test_vasp_prints_compression_as_positive_kbar():
    assert units.gpa_from_vasp_kbar(10.0) == -1.0
    assert units.gpa_from_vasp_kbar(-25.0) == 2.5


@settings(deadline=None)
@given(FINITE)
def test_stress_comes_back_from_a_round_trip(stress_gpa):
    assert units.gpa_from_ev_per_a3(units.ev_per_a3_from_gpa(stress_gpa)) == pytest.approx(stress_gpa, rel=1e-15)


@pytest.mark.parametrize(
    "convert", [units.mev_per_atom, units.gpa_from_vasp_kbar, units.gpa_from_ev_per_a3, units.ev_per_a3_from_gpa]
)
def test_arrays_convert_element_by_element_and_nan_stays_nan(convert):
    values = np.array([[0.0, 1.0], [-2.5, np.nan]])
    converted = convert(values)
    assert converted.shape == (2, 2)
    assert converted[0, 0] == 0
    assert converted[1, 0] == convert(-2.5)
    assert np.isnan(converted[1, 1])


@pytest.mark.parametrize(
    "convert", [units.mev_per_atom, units.gpa_from_vasp_kbar, units.gpa_from_ev_per_a3, units.ev_per_a3_from_gpa]
)
def test_text_is_not_a_number(convert):
    with pytest.raises(TypeError):
        convert("1.0")
