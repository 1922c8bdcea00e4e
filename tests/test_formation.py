"""Formation energies from each functional's own elements."""

import numpy as np
import pandas as pd
import pytest

import crossfunc as xf
from crossfunc.stability import FormationError, element_energies_ev
from crossfunc.stability.formation import missing_elements

ELEMENTS = {"Li": -2.0, "O": -5.0, "Fe": -8.0}


def test_a_formation_energy_by_hand():
    # Li2O: -4.5 - (2 * -2 - 5) / 3 = -1.5 eV/atom
    found = xf.formation_energy_per_atom_ev(["Li2O", "FeO", "Fe"], [-4.5, -8.0, -8.0], ELEMENTS)
    assert found == pytest.approx([-1.5, -1.5, 0.0])


def test_the_lowest_of_each_elements_entries_is_its_ground_state():
    names = ["Li", "Li2", "O2", "Li2O"]
    entries = xf.EntryTable.from_columns(names, names, [-1.9, -2.0, -5.0, -4.5])
    found = element_energies_ev(entries)
    assert found[[2, 7]].tolist() == [-2.0, -5.0]
    assert np.isnan(found).sum() == 92
    assert xf.formation_energy_per_atom_ev(entries.X, entries.energy_per_atom_ev, entries) == pytest.approx(
        [0.1, 0.0, 0.0, -1.5]
    )


def test_shifts_of_the_elements_cancel():
    rng = np.random.default_rng(0)
    formulas = ["Li2O", "FeO", "LiFeO2", "Fe3O4"]
    energies, shift = rng.normal(-5, 1, 4), {"Li": 3.0, "O": -40.0, "Fe": 17.0}
    moved = energies + xf.composition_matrix(formulas)[:, [2, 7, 25]] @ np.array(list(shift.values()))
    elements = {symbol: ELEMENTS[symbol] + shift[symbol] for symbol in ELEMENTS}
    np.testing.assert_allclose(
        xf.formation_energy_per_atom_ev(formulas, moved, elements),
        xf.formation_energy_per_atom_ev(formulas, energies, ELEMENTS),
        atol=1e-12,
    )


def test_a_missing_element_is_named_with_the_rows_that_need_it():
    with pytest.raises(FormationError, match="no ground state of Na, which rows 1 need"):
        xf.formation_energy_per_atom_ev(["Li2O", "Na2O"], [-4.5, -4.0], ELEMENTS)
    X = xf.composition_matrix(["Li2O", "Na2O"])
    assert missing_elements(X, element_energies_ev(ELEMENTS)) == ["Na"]


def test_a_row_with_a_missing_element_is_left_empty_where_that_is_asked_for():
    found = xf.formation_energy_per_atom_ev(["Li2O", "Na2O", "FeO"], [-4.5, -4.0, np.nan], ELEMENTS, missing="nan")
    assert found == pytest.approx([-1.5, np.nan, np.nan], nan_ok=True)  # not -4.0, as with a zero for sodium
    assert np.isnan(xf.formation_energy_per_atom_ev(["Li2O"], [-4.5], {}, missing="nan")).all()


@pytest.mark.parametrize(
    ("energies", "elements", "message"),
    [
        ([-4.5], ELEMENTS, "2 compositions but energies of shape"),
        ([-4.5, np.inf], ELEMENTS, "rows 1: the energy is not finite"),
        ([-4.5, -4.0], np.zeros(3), r"elements have shape \(3,\)"),
        ([-4.5, -4.0], {"Li": -2.0, "Qq": -1.0}, "Qq: unknown element"),
    ],
)
def test_what_cannot_be_right_is_refused(energies, elements, message):
    with pytest.raises(FormationError, match=message):
        xf.formation_energy_per_atom_ev(["Li2O", "FeO"], energies, elements)


def test_functionals_and_energy_kinds_are_not_mixed():
    table = pd.DataFrame(
        {
            "element": ["Li", "Li", "O"],
            "functional": ["gga", "r2scan", "gga"],
            "energy_kind": ["mp2020", "raw", "mp2020"],
            "energy_per_atom_ev": [-1.9, -2.3, -4.9],
        }
    )
    with pytest.raises(FormationError, match=r"several functionals \(gga, r2scan\)"):
        element_energies_ev(table)
    assert element_energies_ev(table, functional="gga")[[2, 7]].tolist() == [-1.9, -4.9]
    with pytest.raises(FormationError, match="no elements of functional hf"):
        element_energies_ev(table, functional="hf")
    labels = {"functional": "gga", "energy_kind": ["raw", "mp2020"]}
    mixed = xf.EntryTable.from_columns(["a", "b"], ["Li", "O2"], [-1.0, -2.0], **labels)
    with pytest.raises(FormationError, match=r"several energy kinds \(mp2020, raw\)"):
        element_energies_ev(mixed)


def test_the_surrogates_pairs_and_elements_agree_with_each_other():
    surrogate = xf.open_dataset("surrogate")
    for functional, kind in (("gga", "low"), ("r2scan", "high")):
        zero = element_energies_ev(surrogate.elements, functional=functional)
        pairs = surrogate.pairs
        found = xf.formation_energy_per_atom_ev(pairs, pairs[f"{kind}_energy_per_atom_ev"], zero)
        np.testing.assert_allclose(found, pairs[f"{kind}_formation_energy_per_atom_ev"], atol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(("functional", "kind", "mae_mev_per_atom"), [("gga", "low", 157), ("r2scan", "high", 79)])
def test_real_formation_energies_against_experiment(real_data_folder, functional, kind, mae_mev_per_atom):
    dataset = xf.open_dataset(real_data_folder / "mp_thermo_pairs.csv")
    pairs = dataset.pairs
    zero = element_energies_ev(dataset.elements, functional=functional)
    known = ~np.array([bool(missing_elements(xf.composition_matrix([f]), zero)) for f in pairs["composition"]])
    pairs = pairs[known]
    found = xf.formation_energy_per_atom_ev(pairs, pairs[f"{kind}_energy_per_atom_ev"], zero)
    np.testing.assert_allclose(found, pairs[f"{kind}_formation_energy_per_atom_ev"], atol=2e-3)
    error = (found - pairs["experiment_nbs_formation_energy_per_atom_ev"]).abs()
    assert error.mean() * 1000 == pytest.approx(mae_mev_per_atom, abs=1)
