"""Which elements decide where two functionals disagree."""

import types

import numpy as np
import pytest

from crossfunc.energies.composition import composition_matrix
from crossfunc.energies.importance import element_importance, share_change

MEASURES = ("gain", "permutation", "shap")
SMALL = {"n_seeds": 2, "n_splits": 3, "n_trees": 60, "max_depth": 3, "learning_rate": 0.2}


def materials(n_materials=240, seed=0):
    """Ternary materials whose difference comes from O (strong) and Cl (weak), with a little noise."""
    rng = np.random.default_rng(seed)
    symbols = ["Li", "Na", "O", "Cl", "Fe", "Zn"]
    formulas = []
    for _ in range(n_materials):
        chosen = rng.choice(symbols, size=3, replace=False)
        formulas.append("".join(f"{symbol}{rng.integers(1, 6)}" for symbol in chosen))
    X = composition_matrix(formulas)
    dense = X.toarray()
    return X, 1.0 * dense[:, 7] + 0.3 * dense[:, 16] + rng.normal(0, 0.01, n_materials)


@pytest.fixture(scope="module")
def result():
    return element_importance(*materials(), **SMALL)


def test_every_measure_finds_the_elements_that_decide(result):
    for measure in MEASURES:
        assert result.ranked(measure).index[0] == "O", measure
    for measure in ("permutation", "shap"):  # gain per split ranks elements by their best splits, not by their share
        assert result.ranked(measure).index[1] == "Cl", measure


def test_the_model_predicts_materials_it_has_not_seen(result):
    assert result.r2_per_seed.shape == (2,)
    assert (result.r2_per_seed > 0.9).all()
    assert (result.mae_per_seed_ev_per_atom < 0.05).all()
    assert "6 elements; 3-fold R²" in result.summary()
    assert "shap: O, Cl" in result.summary()


def test_noise_cannot_be_predicted():
    X, y = materials()
    noise = np.random.default_rng(1).permutation(y)
    assert element_importance(X, noise, **SMALL).r2_per_seed.max() < 0.2


def test_elements_that_are_not_in_the_data_are_nan(result):
    absent = result.table.drop(["Li", "Na", "O", "Cl", "Fe", "Zn"])
    assert len(absent) == 88
    for measure in MEASURES:
        assert absent[f"{measure}_mean"].isna().all()
        assert absent[f"{measure}_std"].isna().all()
        assert result.table.loc[["Li", "Zn"], f"{measure}_mean"].notna().all()
    assert (absent["n_rows"] == 0).all()
    assert len(result.ranked()) == 6


def test_gain_sums_to_one_and_shap_is_in_ev_per_atom(result):
    assert result.table["gain_mean"].sum() == pytest.approx(1)
    X, y = materials()
    # For an additive difference, mean |contribution| of O is that of 1.0 * (x_O - mean x_O).
    oxygen = X.toarray()[:, 7]
    expected = np.abs(oxygen - oxygen.mean()).mean()
    assert result.table.loc["O", "shap_mean"] == pytest.approx(expected, rel=0.15)
    doubled = element_importance(X, 2 * y, **SMALL)
    assert doubled.table.loc["O", "shap_mean"] == pytest.approx(2 * result.table.loc["O", "shap_mean"], rel=0.05)
    assert doubled.table.loc["O", "gain_mean"] == pytest.approx(result.table.loc["O", "gain_mean"], rel=0.1)


def test_the_same_seed_gives_the_same_result_and_another_does_not(result):
    again = element_importance(*materials(), **SMALL)
    np.testing.assert_array_equal(again.table.to_numpy(), result.table.to_numpy())
    other = element_importance(*materials(), seed=7, **SMALL)
    assert not np.array_equal(other.r2_per_seed, result.r2_per_seed)


def test_a_constant_added_to_the_difference_changes_nothing(result):
    X, y = materials()
    moved = element_importance(X, y + 5, **SMALL)
    for measure in ("permutation", "shap"):
        np.testing.assert_allclose(
            moved.table[f"{measure}_mean"], result.table[f"{measure}_mean"], atol=2e-3, equal_nan=True
        )


def test_rows_of_one_material_share_a_fold():
    X, _ = materials(30)
    noise = np.random.default_rng(0).normal(size=30)
    rows = np.repeat(np.arange(30), 8)
    leaked = element_importance(X[rows], noise[rows], **SMALL).r2_per_seed.mean()
    grouped = element_importance(X[rows], noise[rows], material_ids=rows, **SMALL)
    assert leaked > 0.5
    assert grouped.r2_per_seed.mean() < 0.2
    assert grouped.n_materials == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"difference_per_atom_ev": [1.0, np.nan, 2.0]}, r"row 1: the difference is nan \(1 such rows\)"),
        ({"difference_per_atom_ev": [1.0]}, "X has 3 rows"),
        ({"n_splits": 5}, "n_splits=5 with 3 materials"),
        ({"n_seeds": 0}, "n_seeds=0"),
    ],
)
def test_unusable_input_says_what_to_do(arguments, message):
    arguments = {"difference_per_atom_ev": [1.0, 2.0, 3.0], "n_splits": 2} | arguments
    with pytest.raises(ValueError, match=message):
        element_importance(composition_matrix(["Li", "O", "Li2O"]), **arguments)


def test_an_unknown_measure_is_refused(result):
    with pytest.raises(ValueError, match="choose one of gain, permutation, shap"):
        result.ranked("cover")


def contributions(rows):
    """Fits as far as `share_change` looks at them: what moves H, O and Fe in each row."""
    shap = np.zeros((len(rows), 94))
    shap[:, [0, 7, 25]] = rows
    return types.SimpleNamespace(shap_per_row_ev=shap)


def test_a_change_of_shares_is_the_first_fits_less_the_others():
    one, other = contributions([[1, 6, 3]] * 5), contributions([[1, 1, 8]] * 5)
    found = share_change(one, other, ["O", "H"])
    assert found.value == pytest.approx(0.7 - 0.2)
    assert found.interval == pytest.approx((0.5, 0.5))
    assert share_change(other, one, ["Fe"]).value == pytest.approx(0.8 - 0.3)


def test_shares_are_of_sums_over_rows_and_rows_of_one_material_are_drawn_together():
    one, other = contributions([[0, 1, 0], [0, 0, 3], [0, 4, 0]]), contributions([[1, 1, 0]] * 3)
    found = share_change(one, other, ["O"], ["a", "a", "b"])
    assert found.value == pytest.approx(5 / 8 - 1 / 2)
    assert found.n_materials == 2
    assert share_change(one, other, ["O"]).n_materials == 3
