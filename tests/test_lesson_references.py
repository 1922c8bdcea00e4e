"""What lesson 3 asks of a dataset: shifts by source, correlations with the references that apply, models untrained."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from crossfunc.datasets import open_dataset
from crossfunc.energies import composition_matrix, fit_atomref, published_atomref
from crossfunc.lessons import references
from crossfunc.symbols import ATOMIC_NUMBERS

FORMULAS = ["Li", "O", "Li2O", "LiO", "Ba", "BaO", "BaLi", "BaO2", "Li3O"]
ATOMS_EV = {"Li": (-0.2, -0.7), "O": (-1.5, -2.7), "Ba": (0.0, -15.4)}
"""Of a free atom in the low and in the high functional."""


def made_up(keys=("pbe", "r2scan"), labelled_by="DFT, GPAW", atoms=("Li", "O", "Ba")):
    """Crystals that are their free atoms and a bonding energy that both functionals share."""
    X = composition_matrix(FORMULAS)
    bonding = np.random.default_rng(0).normal(-3, 0.5, len(FORMULAS))
    low, high = (X[:, [ATOMIC_NUMBERS[e] - 1 for e in ATOMS_EV]] @ np.array(list(ATOMS_EV.values()))).T + bonding
    functionals = [
        SimpleNamespace(key=key, column=lambda side=side: f"{side}_energy_per_atom_ev")
        for key, side in zip(keys, ("low", "high"), strict=True)
    ]
    rows = [
        {"frame_id": f"{e}-atom-00", "pbe_energy_ev": ATOMS_EV[e][0], "r2scan_energy_ev": ATOMS_EV[e][1]} for e in atoms
    ]
    pairs = {"material_id": FORMULAS, "composition": FORMULAS}
    return SimpleNamespace(
        pairs=pd.DataFrame(pairs | {"low_energy_per_atom_ev": low, "high_energy_per_atom_ev": high}),
        functionals=functionals,
        labelled_by=labelled_by,
        records=pa.Table.from_pylist(rows) if rows else None,
    )


def shift_of(dataset):
    both = (dataset.pairs[f"{side}_energy_per_atom_ev"].to_numpy() for side in ("high", "low"))
    high, low = both
    return fit_atomref(composition_matrix(FORMULAS), high - low)


def test_shifts_of_crystals_free_atoms_and_published_tables_stand_side_by_side():
    dataset = made_up()
    table = references.shift_evidence(dataset, shift_of(dataset))
    assert list(table.index) == ["Li", "O", "Ba"]
    assert table["fitted"].to_dict() == pytest.approx({e: high - low for e, (low, high) in ATOMS_EV.items()})
    np.testing.assert_allclose(table["free_atom"], table["fitted"])
    assert table.loc["Ba", "published"] == pytest.approx(-24.71, abs=0.01)
    assert table.loc["O", "published_atom"] == pytest.approx(-1.313, abs=0.01)
    found = references.agreements(table)
    assert found["free_atom"] == pytest.approx(0, abs=1e-9)
    assert set(found) == {"agreement", "free_atom", "vasp_atom"}


def test_another_pair_of_functionals_has_no_published_shift():
    dataset = made_up(keys=("pbesol", "hse06"), atoms=())
    table = references.shift_evidence(dataset, shift_of(dataset))
    assert table[["free_atom", "published", "published_atom"]].isna().all(axis=None)
    assert references.agreements(table) == {}


def test_an_element_without_a_free_atom_has_none():
    (low, high) = references.free_atom_references(made_up(atoms=("Li",)))["free atoms"]
    assert (low[2], high[2]) == ATOMS_EV["Li"]
    assert np.isnan(low).sum() == np.isnan(high).sum() == 93
    assert references.free_atom_references(made_up(atoms=())) == {}
    (_, of_vasp) = references.free_atom_references(made_up(labelled_by="DFT, VASP", atoms=()))["free atoms"]
    assert of_vasp[7] == pytest.approx(-3.22, abs=0.01)  # VASP's oxygen


def test_correlations_use_published_tables_only_where_they_apply():
    options = {"n_splits": 9, "n_bootstrap": 0, "seed": 0}
    ours = references.correlations(made_up(), **options)
    assert "published" not in ours.index
    assert ours.loc["free atoms", "pearson"] == pytest.approx(1)
    assert ours.loc["free atoms", "mad_ev_per_atom"] == pytest.approx(0, abs=1e-9)
    vasp = references.correlations(made_up(labelled_by="DFT, VASP", atoms=()), **options)
    assert {"published", "free atoms"} <= set(vasp.index)
    unknown = references.correlations(made_up(labelled_by="", atoms=()), **options)
    assert not {"published", "free atoms"} & set(unknown.index)


def test_the_embedded_datasets_have_what_the_claims_page_judges():
    for name in ("surrogate", "pbe-r2scan"):
        report = references.correlations(open_dataset(name), n_splits=5, n_bootstrap=0, seed=0)
        assert report.loc["refitted, held out", "pearson"] > report.loc["none", "pearson"]


def test_a_plain_refit_counts_the_low_functionals_bonding_twice_and_a_model_aware_one_does_not():
    dataset = made_up()
    X, ids = composition_matrix(FORMULAS), np.array(FORMULAS)
    low, high = (dataset.pairs[f"{side}_energy_per_atom_ev"].to_numpy() for side in ("low", "high"))
    old = published_atomref("MPtrj")
    found = references.untrained(X, low, high, ids, old, n_splits=9, seed=0)
    missed = found.sub(high[found.index], axis=0).abs().mean()
    assert missed["model-aware"] == pytest.approx(0, abs=1e-8)
    twice = np.abs(fit_atomref(X, low).predict(X) - old.predict(X))[found.index].mean()
    assert missed["refit (Method 4)"] == pytest.approx(twice, rel=0.3)
    assert missed["as it is"] > 2


def test_what_is_counted_twice_is_the_difference_of_both_refits_material_by_material():
    dataset = open_dataset("pbe-r2scan")
    low, high = (dataset.pairs[f"{side}_energy_per_atom_ev"].to_numpy() for side in ("low", "high"))
    ids, X = dataset.pairs["material_id"].to_numpy(), composition_matrix(dataset.pairs["composition"])
    old, folds = published_atomref("MPtrj"), {"n_splits": 5, "seed": 0}
    predicted = references.untrained(X, low, high, ids, old, **folds)
    twice = references.counted_twice(X, low, ids, old, **folds)
    assert list(twice.index) == list(predicted.index)
    np.testing.assert_allclose(twice, predicted["refit (Method 4)"] - predicted["model-aware"], atol=1e-10)
    assert twice.abs().mean() > 0.1  # a difference to be seen


def test_what_two_elements_are_left_to_explain_is_theirs_alone():
    X = composition_matrix(FORMULAS)
    shift = np.full(94, np.nan)
    for symbol, (low, high) in ATOMS_EV.items():
        shift[ATOMIC_NUMBERS[symbol] - 1] = high - low
    table, two = references.two_elements(FORMULAS, X, X @ np.nan_to_num(shift), shift)
    assert two == ("Li", "O")  # in five and six of nine
    assert "Ba" not in table["formula"].tolist()
    explained = table["Li"] * -0.5 + table["O"] * -1.2
    np.testing.assert_allclose(table["difference_ev"], explained, atol=1e-12)
    assert (table["Li"] + table["O"]).is_monotonic_decreasing
