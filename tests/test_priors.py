"""What references are pulled to: a shift that is known, and the shifts of free atoms where it is not."""

import gzip
import json

import numpy as np
import pytest

from crossfunc.energies import free_atom_shifts_ev, published_atomref, published_shift
from crossfunc.energies.priors import FREE_ATOM_SHIFT_EV
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS


def test_the_shift_is_the_difference_of_the_two_published_tables_where_both_have_data():
    prior = published_shift()
    expected = published_atomref("MP-r2SCAN").energies_ev - published_atomref("MPtrj").energies_ev
    known = np.isfinite(expected)
    np.testing.assert_array_equal(prior.shift_ev[known], expected[known])
    assert known.sum() == 88
    assert {prior.origin[k] for k in np.flatnonzero(known)} == {"published"}


def test_no_element_is_left_open_and_each_says_where_its_shift_comes_from():
    prior = published_shift()
    assert np.isfinite(prior.shift_ev).all()
    by_symbol = dict(zip(ELEMENT_SYMBOLS, prior.origin, strict=True))
    assert {s for s, origin in by_symbol.items() if origin == "free atom"} == {"Po", "Rn", "Fr", "Ra"}
    assert {s for s, origin in by_symbol.items() if origin == "between its neighbours"} == {"Yb", "At"}
    assert prior.describe(["Yb", "O", "Ra", "Rn"]) == "Yb: between its neighbours; O: published; Ra, Rn: free atom"


def test_elements_that_chgnet_stores_as_zero_are_not_taken_for_unshifted():
    """Each lies between neighbours that move by 30 eV and more."""
    shift = published_shift().shift_ev
    for symbol in ("Yb", "Po", "At", "Rn", "Fr", "Ra"):
        z = ATOMIC_NUMBERS[symbol]
        assert shift[z - 1] < -30
        assert shift[z - 2] - 3 < shift[z - 1] + 3
        assert abs(shift[z - 1] - (shift[z - 2] + shift[z]) / 2) < 1.0


def test_a_prior_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        published_shift().shift_ev[0] = 1.0


def test_free_atom_shifts_are_half_the_difference_of_far_dimers():
    near = {"distances": [1.0], "energies": [0.0]}  # never far enough to be two atoms
    curves = {
        "PBE": {"H-H": {"distances": [1.0, 6.0], "energies": [-6.0, -2.2]}, "He-He": near, "Li-Li": near},
        "r2SCAN": {"H-H": {"distances": [6.0, 1.0], "energies": [-2.6, -6.4]}, "He-He": near},
    }
    assert free_atom_shifts_ev(curves) == {"H": pytest.approx(-0.2)}


@pytest.mark.real_data
def test_published_shifts_are_those_of_free_atoms_within_half_an_ev(real_data_folder):
    file = real_data_folder / "dimers_pbe_r2scan.json.gz"
    if not file.is_file():
        pytest.skip(f"{file.name}: not there")
    with gzip.open(file, "rt") as stream:
        atoms = free_atom_shifts_ev(json.load(stream))
    prior = published_shift()
    both = [s for s in atoms if prior.origin[ATOMIC_NUMBERS[s] - 1] == "published"]
    shifts = np.array([(atoms[s], prior.shift_ev[ATOMIC_NUMBERS[s] - 1]) for s in both])
    assert len(both) == 70
    assert np.corrcoef(*shifts.T)[0, 1] > 0.999
    assert np.abs(np.subtract(*shifts.T)).mean() < 0.6
    for symbol, value in FREE_ATOM_SHIFT_EV.items():
        assert atoms[symbol] == pytest.approx(value, abs=0.01)
