"""Element references: fit, coverage, uncertainty."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from threadpoolctl import threadpool_limits

from crossfunc.energies.atomref import (
    AtomRefError,
    AtomRefFit,
    fit_atomref,
    fit_model_aware_atomref,
    held_out_error,
    material_folds,
)
from crossfunc.energies.composition import composition_matrix
from crossfunc.energies.published import published_atomref

LI, OX, FE, YB = 2, 7, 25, 69  # columns, Z - 1
R2SCAN = published_atomref("MP-r2SCAN").energies_ev


@pytest.fixture(autouse=True)
def _one_blas_thread():
    """Matrices here are small: more threads only wait for each other."""
    with threadpool_limits(1, user_api="blas"):
        yield


def few_materials(n_materials, seed, n_frames=10):
    """Ternary materials of 89 elements with r2SCAN-like energies; all frames of a material share its composition."""
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(np.isfinite(R2SCAN))
    numbers = [1 + rng.choice(known, size=3)[rng.integers(3, size=12)] for _ in range(n_materials)]
    X = composition_matrix([row for row in numbers for _ in range(n_frames)])
    y = X @ np.nan_to_num(R2SCAN) + np.repeat(rng.normal(0, 0.3, n_materials), n_frames)
    return X, y + rng.normal(0, 0.02, len(y)), np.repeat(np.arange(n_materials), n_frames)


def lstsq_errors(X, y):
    """Training MAE and RMSE of NumPy's float64 least squares on the dense matrix."""
    dense = X.toarray()
    residual = y - dense @ np.linalg.lstsq(dense, y)[0]
    return np.abs(residual).mean(), np.sqrt((residual**2).mean())


def test_known_references_are_recovered():
    X = composition_matrix(["Li", "O2", "Li2O", "LiO2"])
    fit = fit_atomref(X, X[:, [LI, OX]] @ np.array([-2.0, -5.0]))
    assert fit.energies_ev[LI] == pytest.approx(-2)
    assert fit.energies_ev[OX] == pytest.approx(-5)
    assert np.isnan(np.delete(fit.energies_ev, [LI, OX])).all()
    assert (fit.rank, fit.n_elements, fit.n_frames, fit.null_space_elements) == (2, 2, 4, ())
    assert fit.rmse_ev_per_atom == pytest.approx(0, abs=1e-12)
    assert fit.frames_per_element[[LI, OX]].tolist() == [3, 3]


def test_standard_error_of_a_mean_is_sigma_over_root_n():
    X = composition_matrix(["Li"] * 4)
    fit = fit_atomref(X, [1.0, 2.0, 3.0, 4.0])  # mean 2.5, sample standard deviation sqrt(5/3)
    assert fit.energies_ev[LI] == pytest.approx(2.5)
    assert fit.std_error_ev[LI] == pytest.approx(np.sqrt(5 / 3) / 2)


def test_standard_errors_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    X = composition_matrix(["Li2O", "LiO", "LiO2", "Li2FeO3", "FeO", "Fe2O3", "Fe", "LiFeO2"] * 3)
    truth = X @ np.nan_to_num(R2SCAN)
    hits = []
    for _ in range(400):
        fit = fit_atomref(X, truth + rng.normal(0, 0.1, len(truth)))
        z = (fit.energies_ev - R2SCAN)[[LI, OX, FE]] / fit.std_error_ev[[LI, OX, FE]]
        hits.append(np.abs(z) < 2.08)  # 95 % of Student's t with 24 - 3 degrees of freedom
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_each_material_counts_once_with_material_ids():
    X = composition_matrix(["Li"] * 4)
    y, ids = [0.0, 0.0, 0.0, 4.0], ["a", "a", "a", "b"]
    assert fit_atomref(X, y).energies_ev[LI] == pytest.approx(1)
    fit = fit_atomref(X, y, material_ids=ids)
    assert fit.energies_ev[LI] == pytest.approx(2)
    assert fit.std_error_ev[LI] == pytest.approx(2)  # means 0 and 4: sample deviation sqrt(8), over sqrt(2)
    assert (fit.n_materials, fit.n_frames) == (2, 4)
    assert fit.materials_per_element[LI] == 2
    assert fit.frames_per_element[LI] == 4


def test_repeating_the_frames_of_a_material_changes_nothing_with_ids():
    X = composition_matrix(["Li2O", "LiO", "FeO", "Fe2O3", "LiFeO2"])
    y = np.array([-1.0, -2.0, -3.5, -4.0, -2.0])
    ids = np.arange(5)
    once = fit_atomref(X, y, material_ids=ids)
    rows = np.array([0, 1, 1, 1, 2, 3, 4, 4])
    again = fit_atomref(X[rows], y[rows], material_ids=ids[rows])
    np.testing.assert_allclose(again.energies_ev, once.energies_ev, rtol=1e-12)
    np.testing.assert_allclose(again.std_error_ev, once.std_error_ev, rtol=1e-10)


def test_a_weight_of_two_is_a_row_given_twice_and_zero_leaves_it_out():
    X = composition_matrix(["Li2O", "LiO", "LiO2", "FeO"])
    y = np.array([-1.0, -2.0, -3.5, -9.0])
    fit = fit_atomref(X, y, weights=[2, 1, 1, 0])
    rows = np.array([0, 0, 1, 2])
    np.testing.assert_allclose(fit.energies_ev, fit_atomref(X[rows], y[rows]).energies_ev, rtol=1e-12)
    assert np.isnan(fit.energies_ev[FE])
    assert fit.n_frames == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 5, 20, 60]))
def test_the_order_of_rows_does_not_matter_and_a_shift_moves_every_reference(seed, n_materials):
    X, y, ids = few_materials(n_materials, seed, n_frames=2)
    fit = fit_atomref(X, y, material_ids=ids)
    order = np.random.default_rng(seed).permutation(len(y))
    shuffled = fit_atomref(X[order], y[order], material_ids=ids[order])
    np.testing.assert_allclose(shuffled.energies_ev, fit.energies_ev, atol=1e-7)
    assert shuffled.rank == fit.rank
    np.testing.assert_allclose(fit_atomref(X, y + 3, material_ids=ids).predict(X), fit.predict(X) + 3, atol=1e-7)


@pytest.mark.parametrize("n_materials", [1, 20, 40, 60, 80, 120])
@pytest.mark.parametrize("seed", range(10))
def test_training_error_is_never_above_lstsq_on_rank_deficient_subsets(n_materials, seed):
    X, y, _ = few_materials(n_materials, seed)
    mae, rmse = lstsq_errors(X, y)
    fit = fit_atomref(X, y)
    residual = fit.remove(X, y)
    assert np.abs(residual).mean() <= mae + 1e-6
    assert np.sqrt((residual**2).mean()) <= rmse + 1e-6
    assert fit.rank == np.linalg.matrix_rank(X.toarray())
    assert fit.mae_ev_per_atom == pytest.approx(np.abs(residual).mean())
    assert np.nanmax(np.abs(fit.energies_ev)) < 1000
    if n_materials == 20:
        assert fit.rank < fit.n_elements


def test_chgnet_fails_where_this_does_not():
    """The reason for this module: float32 normal equations invert their own rounding."""
    from crossfunc.vendor import import_chgnet

    class Graph:
        def __init__(self, atomic_number):
            self.atomic_number = atomic_number

    import torch

    atomref = import_chgnet("chgnet.model.composition_model").AtomRef
    worse = []
    for seed in range(5):
        X, y, _ = few_materials(20, seed)
        counts = np.rint(X.toarray() * 12).astype(int)
        model = atomref()
        numbers = [torch.tensor(np.repeat(np.arange(1, 95), row)) for row in counts]
        model.fit([Graph(row) for row in numbers], list(y))
        theirs = np.abs(y - X @ model.fc.weight.detach().numpy().ravel().astype(float)).mean()
        worse.append(theirs - fit_atomref(X, y).mae_ev_per_atom)
    assert min(worse) > 0.01
    assert max(worse) > 1  # eV/atom


def test_full_rank_data_agree_with_lstsq_and_with_chgnets_own_table_size():
    rng = np.random.default_rng(0)
    X = composition_matrix([1 + rng.choice(94, size=3)[rng.integers(3, size=12)] for _ in range(2000)])
    y = X @ rng.uniform(-80, -1, 94) + rng.normal(0, 0.1, 2000)
    fit = fit_atomref(X, y)
    assert fit.rank == 94
    np.testing.assert_allclose(fit.energies_ev, np.linalg.lstsq(X.toarray(), y)[0], atol=1e-10)


def test_two_elements_in_a_fixed_ratio_are_reported_and_share_the_minimum_norm():
    X = composition_matrix(["Li2O3", "Li2O3", "Fe", "Fe2Li2O3"])
    fit = fit_atomref(X, X[:, [LI, OX, FE]] @ np.array([-1.0, -2.0, -8.0]))
    assert (fit.rank, fit.n_elements) == (2, 3)
    assert fit.null_space_elements == ("Li", "O")
    assert fit.determined[FE]
    assert fit.energies_ev[FE] == pytest.approx(-8)
    # 2 Li + 3 O = -8: the shortest (Li, O) is along (2, 3), -8 / 13 of it
    assert fit.energies_ev[[LI, OX]] == pytest.approx([-16 / 13, -24 / 13])
    assert np.isinf(fit.std_error_ev[[LI, OX]]).all()
    assert np.isfinite(fit.std_error_ev[FE])
    np.testing.assert_array_equal(
        fit.is_determined_for(composition_matrix(["Li4O6", "Li2O", "FeLi2O3", "F"])), [1, 0, 1, 0]
    )


def test_null_directions_stay_at_the_prior():
    X = composition_matrix(["Li2O3"] * 3)
    prior = np.full(94, -4.0)
    fit = fit_atomref(X, [-5.0] * 3, prior=prior)  # along (2, 3) the prior moves by -1 in the mean
    assert fit.energies_ev[[LI, OX]] == pytest.approx(-4 - np.array([2, 3]) * 5 / 13)
    assert fit.predict(X) == pytest.approx([-5.0] * 3)
    np.testing.assert_allclose(fit_atomref(X, X @ R2SCAN_FILLED, prior=R2SCAN).energies_ev[[LI, OX]], R2SCAN[[LI, OX]])


R2SCAN_FILLED = np.nan_to_num(R2SCAN)


@pytest.mark.parametrize("formulas", [["Li", "Li2O", "O"], ["Li2O3"] * 3])
def test_ridge_is_the_ridge_formula_about_the_prior(formulas):
    X = composition_matrix(formulas)
    y, prior = np.array([-1.0, -4.0, -6.0]), np.full(94, -3.0)
    A = X[:, [LI, OX]].toarray()
    expected = np.linalg.solve(A.T @ A + 0.5 * np.eye(2), A.T @ y + 0.5 * prior[[LI, OX]])
    fit = fit_atomref(X, y, ridge=0.5, prior=prior)
    np.testing.assert_allclose(fit.energies_ev[[LI, OX]], expected, rtol=1e-10)
    np.testing.assert_allclose(fit_atomref(X, y, ridge=1e9, prior=prior).energies_ev[[LI, OX]], -3, atol=1e-6)


def test_absent_elements_take_the_prior_only_if_asked():
    X, y = composition_matrix(["Li", "O"]), [-2.0, -5.0]
    assert np.isnan(fit_atomref(X, y, prior=R2SCAN).energies_ev[FE])
    fit = fit_atomref(X, y, prior=R2SCAN, absent="prior")
    assert fit.energies_ev[FE] == R2SCAN[FE]
    assert np.isnan(fit.energies_ev[YB])
    assert np.isnan(fit.std_error_ev[FE])
    assert not fit.determined[FE]
    assert fit.n_elements == 2
    assert not fit.is_determined_for(composition_matrix(["Fe"]))[0]


def test_one_frame_is_fitted_without_an_uncertainty():
    fit = fit_atomref(composition_matrix(["O"]), [-5.0])
    assert fit.energies_ev[OX] == pytest.approx(-5)
    assert np.isnan(fit.std_error_ev[OX])
    assert "one frame only: O" in fit.summary()


def test_remove_and_apply_undo_each_other():
    X, y, _ = few_materials(30, 0)
    fit = fit_atomref(X, y)
    np.testing.assert_allclose(fit.apply(X, fit.remove(X, y)), y, rtol=1e-14)
    np.testing.assert_allclose(fit.remove(X, y), y - fit.predict(X))


def test_an_absent_element_is_refused_by_name():
    fit = fit_atomref(composition_matrix(["Li", "O"]), [-2.0, -5.0])
    X = composition_matrix(["Li2O", "FeO", "LiFeF3"])
    for call in (lambda: fit.predict(X), lambda: fit.remove(X, [0, 0, 0]), lambda: fit.apply(X, [0, 0, 0])):
        with pytest.raises(AtomRefError, match=r"no element reference for F, Fe \(rows 1, 2; 2 of 3\).*prior"):
            call()


def test_a_stored_zero_of_an_absent_element_does_not_count():
    X = sparse.csr_array((np.array([1.0, 0.0]), np.array([LI, FE]), np.array([0, 2])), shape=(1, 94))
    fit = fit_atomref(X, [-2.0])
    assert fit.predict(X) == pytest.approx([-2.0])
    assert np.isnan(fit.energies_ev[FE])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"energy_per_atom_ev": [1.0, np.nan]}, "row 1: energy_per_atom_ev is nan .*drop these rows"),
        ({"energy_per_atom_ev": [1.0, np.inf]}, "row 1: .*inf"),
        ({"energy_per_atom_ev": [1.0]}, "X has 2 rows but energy_per_atom_ev has 1"),
        ({"energy_per_atom_ev": [[1.0], [2.0]]}, "shape"),
        ({"weights": [1, -1]}, "row 1: weight is -1"),
        ({"weights": [1]}, "weights have shape"),
        ({"weights": [0, 0]}, "no rows to fit"),
        ({"material_ids": ["a"]}, "1 material ids for 2 rows"),
        ({"material_ids": ["a", None]}, "row 1: material id is missing"),
        ({"ridge": -1}, "ridge=-1"),
        ({"absent": "zero"}, "choose 'nan' or 'prior'"),
        ({"absent": "prior"}, "needs a prior"),
        ({"prior": np.zeros(89)}, "give 94 finite energies"),
        ({"prior": np.full(94, np.nan), "ridge": 1.0}, "the prior has no value for Li, O"),
    ],
)
def test_unusable_input_says_what_to_do(arguments, message):
    arguments = {"energy_per_atom_ev": [-2.0, -5.0]} | arguments
    with pytest.raises(AtomRefError, match=message):
        fit_atomref(composition_matrix(["Li", "O"]), **arguments)


def test_a_prior_without_a_needed_value_is_refused_only_where_it_is_needed():
    X = composition_matrix(["Yb", "O", "YbO"])
    assert fit_atomref(X, X @ R2SCAN_FILLED - 1, prior=R2SCAN).energies_ev[YB] == pytest.approx(-1)
    with pytest.raises(AtomRefError, match="the prior has no value for Yb"):
        fit_atomref(composition_matrix(["YbO"]), [-20.0], prior=R2SCAN)


def test_report_and_summary_tell_rank_and_coverage():
    X = composition_matrix(["Li2O3", "Li2O3", "Fe", "Fe"])
    fit = fit_atomref(X, [-1.0, -1.1, -8.0, -8.2], material_ids=["a", "b", "c", "c"])
    report = fit.report()
    assert report.index.tolist() == ["Li", "O", "Fe"]
    assert report["n_materials"].tolist() == [2, 2, 1]
    assert report["n_frames"].tolist() == [2, 2, 2]
    assert report["determined"].tolist() == [False, False, True]
    text = fit.summary()
    assert "4 frames of 3 materials, 3 elements, rank 2" in text
    assert "Rank deficient by 1: Li, O" in text
    assert "one material only: Fe" in text


def test_a_fit_cannot_be_changed():
    fit = fit_atomref(composition_matrix(["Li"]), [-2.0])
    with pytest.raises(ValueError, match="read-only"):
        fit.energies_ev[0] = 1
    with pytest.raises(AttributeError):
        fit.rank = 3


@pytest.mark.parametrize("ids", [None, list("aabb")])
def test_json_keeps_everything(tmp_path, ids):
    X = composition_matrix(["Li2O3", "Li2O3", "Fe", "Fe"])
    fit = fit_atomref(X, [-1.0, -1.1, -8.0, -8.2], material_ids=ids)
    path = tmp_path / "references.json"
    text = fit.to_json(path)
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(text)["elements"]["Yb"]["energy_ev"] is None
    for copy in (AtomRefFit.from_json(path), AtomRefFit.from_json(str(path)), AtomRefFit.from_json(text)):
        for name in ("energies_ev", "std_error_ev", "determined", "null_space", "frames_per_element"):
            np.testing.assert_array_equal(getattr(copy, name), getattr(fit, name))
        assert copy.summary() == fit.summary()
        assert copy.null_space_elements == fit.null_space_elements
        pd.testing.assert_frame_equal(copy.report(), fit.report())


def test_json_of_a_published_table_keeps_what_is_unknown():
    fit = published_atomref("r2scan")
    copy = AtomRefFit.from_json(fit.to_json())
    np.testing.assert_array_equal(copy.energies_ev, fit.energies_ev)
    assert copy.rank is None
    assert copy.frames_per_element is None


@pytest.mark.parametrize("text", ["{}", "{not json", '{"format": "crossfunc element references", "version": 2}'])
def test_other_json_is_refused_by_file_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(AtomRefError, match=r"other.json does not hold element references"):
        AtomRefFit.from_json(path)
    with pytest.raises(AtomRefError, match="JSON text does not hold"):
        AtomRefFit.from_json(text)


def test_held_out_error_of_an_exactly_linear_energy_is_zero():
    X, y, ids = few_materials(300, 0, n_frames=2)
    result = held_out_error(X, X @ R2SCAN_FILLED, ids, seed=0)
    assert result["mae_ev_per_atom"] == pytest.approx(0, abs=1e-8)
    assert result["n_materials_judged"] + result["n_materials_not_judged"] == 60
    noisy = held_out_error(X, y, ids, seed=0)
    assert noisy["mae_ev_per_atom"] > noisy["fit"].mae_ev_per_atom
    assert noisy["rmse_ev_per_atom"] >= noisy["mae_ev_per_atom"]


def test_held_out_elements_that_were_not_fitted_are_named():
    X = composition_matrix(["Li", "Li", "Li", "O"])
    ids = ["a", "b", "c", "d"]
    results = [held_out_error(X, [-2.0, -2.0, -2.0, -5.0], ids, seed=seed, fraction=0.25) for seed in range(20)]
    unlucky = [result for result in results if result["elements_absent"] == ("O",)]
    assert unlucky
    assert unlucky[0]["n_materials_not_judged"] == 1
    assert np.isnan(unlucky[0]["mae_ev_per_atom"])


def test_held_out_rows_that_break_a_fixed_ratio_are_not_judged():
    X = composition_matrix(["Li2O3"] * 8 + ["LiO"])
    results = [held_out_error(X, [-1.0] * 8 + [-9.0], range(9), seed=seed, fraction=1 / 9) for seed in range(40)]
    unlucky = [result for result in results if result["elements_not_determined"] == ("Li", "O")]
    assert unlucky
    assert unlucky[0]["elements_absent"] == ()
    assert unlucky[0]["n_materials_judged"] == 0


def test_folds_keep_materials_together_and_differ_by_one():
    ids = np.repeat(np.arange(11), 3)
    fold = material_folds(ids, 4, seed=1)
    assert all(len(set(fold[ids == material])) == 1 for material in range(11))
    assert sorted(np.bincount(fold) // 3) == [2, 3, 3, 3]
    np.testing.assert_array_equal(fold, material_folds(ids, 4, seed=1))
    with pytest.raises(ValueError, match="n_splits=5 with 3 materials"):
        material_folds([1, 2, 3], 5, seed=0)


def test_model_aware_references_add_the_mean_error_of_the_model():
    X = composition_matrix(["Li", "O", "Li2O", "LiO2"])
    model = fit_atomref(X, X[:, [LI, OX]] @ np.array([-2.0, -5.0]), prior=np.full(94, -7.0), absent="prior")
    bonding = np.array([0.0, 0.0, -0.5, -0.3])
    prediction = model.predict(X) + bonding
    target = X[:, [LI, OX]] @ np.array([-12.0, -8.0]) + bonding
    fit = fit_model_aware_atomref(X, target, prediction, model)
    assert fit.energies_ev[[LI, OX]] == pytest.approx([-12, -8])
    assert np.isnan(fit.energies_ev[FE])
    assert fit.rmse_ev_per_atom == pytest.approx(0, abs=1e-12)
    kept = fit_model_aware_atomref(X, target, prediction, model, absent="model")
    assert kept.energies_ev[FE] == -7
    plain = fit_atomref(X, target)
    assert plain.rmse_ev_per_atom > 0.05  # composition alone leaves the bonding in


def test_model_aware_null_directions_stay_at_the_model():
    X = composition_matrix(["Li2O3"] * 3)
    fit = fit_model_aware_atomref(X, [-5.0] * 3, [-5.0] * 3, R2SCAN)
    assert fit.energies_ev[[LI, OX]] == pytest.approx(R2SCAN[[LI, OX]])
    assert fit.null_space_elements == ("Li", "O")


def test_a_model_without_a_needed_reference_is_refused():
    X = composition_matrix(["YbO"])
    with pytest.raises(AtomRefError, match=r"the model has no element reference for Yb.*chgnet adds 0"):
        fit_model_aware_atomref(X, [-20.0], [-6.0], published_atomref("r2scan"))
    with pytest.raises(AtomRefError, match="choose 'nan' or 'model'"):
        fit_model_aware_atomref(X, [-20.0], [-6.0], R2SCAN, absent="prior")
    with pytest.raises(AtomRefError, match="2 targets but 1 predictions"):
        fit_model_aware_atomref(composition_matrix(["O", "O"]), [1.0, 2.0], [1.0], R2SCAN)


def test_chgnet_leaves_the_warning_filters_alone():
    import subprocess
    import sys

    code = (
        "import warnings, torch, pymatgen.core; from crossfunc.vendor import import_chgnet; "
        "before = warnings.filters[:]; import_chgnet('chgnet.model.composition_model'); "
        "assert warnings.filters == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        published_atomref("MPF")
        warnings.warn("still heard", UserWarning, stacklevel=1)
    assert len(caught) == 1


def test_a_missing_checkpoint_names_those_there_are():
    from crossfunc.vendor import chgnet_checkpoint_path

    assert chgnet_checkpoint_path("r2scan").name.startswith("chgnet_r2scan")
    for name in ("0.9", ""):
        with pytest.raises(FileNotFoundError, match=r"it has 0.2.0, 0.3.0, r2scan"):
            chgnet_checkpoint_path(name)


@pytest.mark.real_data
def test_real_r2scan_energies_are_linear_in_composition_to_half_an_ev(real_data_folder):
    pairs = pd.read_csv(real_data_folder / "mp_thermo_pairs.csv")
    pairs = pairs.rename(columns={"r2scan_energy_per_atom_ev": "high_energy_per_atom_ev"})
    pairs = pairs.dropna(subset=["high_energy_per_atom_ev"])
    X = composition_matrix(pairs)
    result = held_out_error(X, pairs["high_energy_per_atom_ev"], pairs["mp_id"], seed=0)
    assert result["mae_ev_per_atom"] < 0.5
    fit = fit_atomref(X, pairs["high_energy_per_atom_ev"])
    assert (fit.rank, fit.n_elements) == (79, 79)
