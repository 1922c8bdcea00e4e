"""One functional against the other: correlations, shifts, refit or not."""

import numpy as np
import pandas as pd
import pytest

from crossfunc.energies.atomref import AtomRefError, fit_atomref
from crossfunc.energies.composition import composition_matrix
from crossfunc.energies.published import published_atomref
from crossfunc.energies.shifts import (
    correlation_report,
    correlation_text,
    element_shifts,
    pearson,
    refit_advice,
    scale_held_out,
)
from crossfunc.errors import InputError

SYMBOLS = ["Li", "O", "F", "Fe", "W", "Au", "Pt"]


def materials(n_materials=200, seed=0):
    """Ternary materials of seven elements."""
    rng = np.random.default_rng(seed)
    formulas = []
    for _ in range(n_materials):
        chosen = rng.choice(SYMBOLS, size=3, replace=False)
        formulas.append("".join(f"{symbol}{rng.integers(1, 5)}" for symbol in chosen))
    return composition_matrix(formulas), rng


def references(**energies_ev):
    """Element references with the given values."""
    X = composition_matrix(list(energies_ev))
    return fit_atomref(X, list(energies_ev.values()))


LOW = references(Li=-2, O=-8, F=-5, Fe=-8, W=-12, Au=-3, Pt=-6)
HIGH = references(Li=-2.5, O=-9, F=-6, Fe=-15, W=-51, Au=-51, Pt=-52)


def test_pearson_of_a_line_is_one_and_of_three_points_is_known():
    assert pearson([1, 2, 3], [2, 4, 6]).r == pytest.approx(1)
    assert pearson([1, 2, 3], [1, -1, 1]).r == pytest.approx(0)
    result = pearson([0, 1, 2, 3], [0, 1, 1, 0.5])
    assert result.r == pytest.approx(np.corrcoef([0, 1, 2, 3], [0, 1, 1, 0.5])[0, 1])
    assert np.isnan(result.low)
    assert str(result) == f"{result.r:.3f}, 4 materials, too few for an interval"


@pytest.mark.parametrize(
    ("r", "text"),
    [
        (0.34, "0.340"),
        (0.998, "0.998"),
        (0.99962, "0.9996"),
        (-0.99996, "-0.99996"),
        (1.0, "1.000"),
        (1 - 1e-12, "1.000"),
    ],
)
def test_a_correlation_reads_as_perfect_only_where_it_is(r, text):
    assert correlation_text(r) == text


def test_a_cosine_has_two_digits_and_its_sign():
    assert [correlation_text(c, 2, sign=True) for c in (0.316, -0.316, 0.998)] == ["+0.32", "-0.32", "+0.998"]
    assert str(pearson([1, 2, 3, 4, 5], [1, 2, 3, 4, 5.1])) == "0.9998, 5 materials"


def test_pearson_keeps_its_value_under_shift_and_scale_even_far_from_zero():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=50), rng.normal(size=50)
    expected = np.corrcoef(x, x + noise)[0, 1]
    assert pearson(1e6 + x, -3e6 + 5 * (x + noise)).r == pytest.approx(expected, abs=1e-9)


def test_the_bootstrap_interval_is_seeded_and_as_wide_as_theory():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = 0.6 * x + 0.8 * rng.normal(size=400)
    result = pearson(x, y, n_bootstrap=2000, seed=1)
    assert result == pearson(x, y, n_bootstrap=2000, seed=1)
    assert result != pearson(x, y, n_bootstrap=2000, seed=2)
    assert result.low < result.r < result.high
    fisher = np.tanh(np.arctanh(result.r) + np.array([-1.96, 1.96]) / np.sqrt(397))
    assert [result.low, result.high] == pytest.approx(fisher, abs=0.015)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_a_correlation_of_few_materials_has_no_interval_however_many_frames(n):
    rng = np.random.default_rng(0)
    found = pearson(rng.normal(size=40), rng.normal(size=40), material_ids=np.arange(40) % n, n_bootstrap=100)
    assert np.isnan([found.low, found.high]).tolist() == [n < 5] * 2
    assert str(found).endswith(f"{n} materials, too few for an interval" if n < 5 else f"], {n} materials")


def test_frames_of_one_material_are_resampled_together():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    once = pearson(x, y, n_bootstrap=500)
    repeated = pearson(np.repeat(x, 20), np.repeat(y, 20), material_ids=np.repeat(np.arange(40), 20), n_bootstrap=500)
    assert repeated.r == pytest.approx(once.r)
    assert [repeated.low, repeated.high] == pytest.approx([once.low, once.high])
    assert (repeated.n_points, repeated.n_materials) == (800, 40)
    naive = pearson(np.repeat(x, 20), np.repeat(y, 20), n_bootstrap=500)
    assert naive.high - naive.low < (once.high - once.low) / 3


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, np.nan], [1, 2, 3], r"row 2: x = nan, y = 3\.0 \(1 such rows\): drop"),
        ([1, 1, 1], [1, 2, 3], "x constant"),
        ([1, 2], [1, 2, 3], "equal length"),
        ([1], [1], "at least 2"),
    ],
)
def test_pearson_refuses_what_has_no_correlation(x, y, message):
    with pytest.raises(ValueError, match=message):
        pearson(x, y)
    with pytest.raises(ValueError, match="1 material ids for 2 points"):
        pearson([1, 2], [2, 1], material_ids=["a"])


def test_references_restore_a_correlation_that_totals_hide():
    X, rng = materials()
    bonding = rng.normal(0, 0.5, 200)
    low = LOW.apply(X, bonding)
    high = HIGH.apply(X, bonding + rng.normal(0, 0.05, 200))
    report = correlation_report(X, low, high, LOW, HIGH, n_bootstrap=100)
    assert report.index.tolist() == ["none", "published", "low only", "refitted", "refitted, held out"]
    r = report["pearson"]
    assert r["none"] < 0.6
    assert r["low only"] < 0.6
    assert min(r["published"], r["refitted"], r["refitted, held out"]) > 0.98
    assert report.loc["published", "mad_ev_per_atom"] == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.2)
    assert (report["interval_low"] < r).all()
    assert (report["interval_high"] > r).all()
    assert "in sample" in report.loc["refitted", "note"]
    assert report.loc["refitted, held out", "n_points"] == 200


def test_without_published_tables_the_low_references_are_fitted_to_other_materials():
    X, rng = materials(120)
    bonding = rng.normal(0, 0.5, 120)
    low, high = LOW.apply(X, bonding), HIGH.apply(X, bonding + rng.normal(0, 0.05, 120))
    report = correlation_report(X, low, high, n_bootstrap=50)
    assert report.index.tolist() == ["none", "low only", "refitted", "refitted, held out"]
    assert report.loc["low only", "pearson"] < 0.6
    assert "cross-validation" in report.loc["low only", "note"]
    held = scale_held_out(X, low, high)
    r = np.corrcoef(held["low"], held["high"])[0, 1]
    assert report.loc["refitted, held out", "pearson"] == pytest.approx(r)
    assert report.loc["low only", "n_points"] == len(held)
    # the same linear function is taken from both, so their difference stays as it was
    assert report.loc["low only", "mad_ev_per_atom"] == pytest.approx(report.loc["none", "mad_ev_per_atom"])


def test_other_references_judge_the_materials_whose_elements_all_have_one():
    X, rng = materials()
    bonding = rng.normal(0, 0.5, 200)
    low, high = LOW.apply(X, bonding), HIGH.apply(X, bonding)
    atoms = [fit.energies_ev.copy() for fit in (LOW, HIGH)]
    report = correlation_report(X, low, high, others={"free atoms": atoms}, n_bootstrap=0)
    assert report.loc["free atoms", "pearson"] == pytest.approx(1)
    atoms[1][73] = np.nan  # no tungsten atom in one functional
    report = correlation_report(X, low, high, others={"free atoms": atoms}, n_bootstrap=0)
    assert report.loc["free atoms", "n_points"] == (X[:, [73]].toarray() == 0).sum() < 200
    assert report.loc["free atoms", "mad_ev_per_atom"] == pytest.approx(0, abs=1e-9)
    nothing = {"free atoms": (np.full(94, np.nan), np.full(94, np.nan))}
    assert "free atoms" not in correlation_report(X, low, high, others=nothing, n_bootstrap=0).index


def test_held_out_energies_leave_out_what_other_materials_do_not_fix():
    X = composition_matrix(["Li", "Li2O", "LiO", "O", "LiO2", "Li3O", "LiW"])
    energy = X @ np.nan_to_num(LOW.energies_ev)
    held = scale_held_out(X, energy, 2 * energy, n_splits=7)
    assert held.index.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(held, 0, atol=1e-9)


def test_the_report_does_not_change_when_both_functionals_shift():
    X, rng = materials(60)
    bonding = rng.normal(0, 0.5, 60)
    low, high = LOW.apply(X, bonding), HIGH.apply(X, bonding + rng.normal(0, 0.1, 60))
    one = correlation_report(X, low, high, LOW, HIGH, n_bootstrap=0)["pearson"]
    other = correlation_report(X, low + 4, high - 7, LOW, HIGH, n_bootstrap=0)["pearson"]
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_materials_that_no_other_one_can_judge_are_left_out_and_named():
    X = composition_matrix(["Li", "Li2O", "LiO", "O", "LiO2", "Li3O", "LiW"])
    e = np.array([-2.0, -5.0, -6.0, -8.0, -7.0, -4.0, -9.0])
    report = correlation_report(X, e, e + 0.1 * np.arange(7), LOW, HIGH, n_splits=7, n_bootstrap=0)
    assert report.loc["refitted, held out", "n_points"] == 6
    assert "1 rows left out" in report.loc["refitted, held out", "note"]
    assert "(W)" in report.loc["refitted, held out", "note"]


def test_a_missing_published_reference_is_refused_by_name():
    X = composition_matrix(["YbO", "LiO", "Li2O", "Li", "O", "YbO2"])
    e = np.arange(6.0)
    with pytest.raises(AtomRefError, match="no element reference for Yb"):
        correlation_report(X, e, e + 1, published_atomref("MPtrj"), published_atomref("r2scan"), n_splits=2)


def test_published_references_of_one_functional_alone_are_refused():
    X, rng = materials()
    low = rng.normal(size=200)
    with pytest.raises(InputError, match="refs_low or refs_high alone"):
        correlation_report(X, low, low + 1, LOW, n_bootstrap=0)
    with pytest.raises(InputError, match="refs_low or refs_high alone"):
        correlation_report(X, low, low + 1, refs_high=LOW, n_bootstrap=0)


def test_shifts_are_sorted_and_their_errors_add_in_squares():
    X, rng = materials()
    low = fit_atomref(X, LOW.apply(X, rng.normal(0, 0.3, 200)))
    high = fit_atomref(X, HIGH.apply(X, rng.normal(0, 0.4, 200)))
    table = element_shifts(low, high)
    assert table.index[:3].tolist() == ["Au", "Pt", "W"]
    assert sorted(table.index) == sorted(SYMBOLS)
    assert table.loc["W", "shift_ev"] == pytest.approx(-39, abs=4 * table.loc["W", "std_error_ev"])
    assert table.loc["W", "std_error_ev"] == pytest.approx(np.hypot(low.std_error_ev[73], high.std_error_ev[73]))
    assert table["determined"].all()
    np.testing.assert_allclose(element_shifts(high, low).loc[table.index, "shift_ev"], -table["shift_ev"])


def test_fitting_the_difference_gives_the_same_shifts_with_smaller_errors():
    X, rng = materials()
    bonding = rng.normal(0, 0.5, 200)
    low, high = LOW.apply(X, bonding), HIGH.apply(X, bonding + rng.normal(0, 0.05, 200))
    table = element_shifts(fit_atomref(X, low), fit_atomref(X, high))
    direct = fit_atomref(X, high - low)
    columns = table["atomic_number"] - 1
    np.testing.assert_allclose(direct.energies_ev[columns], table["shift_ev"], atol=1e-9)
    assert (direct.std_error_ev[columns] < table["std_error_ev"] / 3).all()


def test_shifts_of_published_tables_have_no_error_and_skip_absent_elements():
    table = element_shifts(published_atomref("MPtrj"), published_atomref("r2scan"))
    assert len(table) == 88
    assert "Yb" not in table.index
    assert table.loc["W", "shift_ev"] == pytest.approx(-39.4, abs=0.1)
    assert table["std_error_ev"].isna().all()
    with pytest.raises(AtomRefError, match="no element in common"):
        element_shifts(references(Li=-2), references(O=-5))


def test_another_functional_with_other_pseudopotentials_asks_for_a_refit():
    X, rng = materials()
    difference = HIGH.predict(X) - LOW.predict(X) + rng.normal(0, 0.05, 200)
    advice = refit_advice(X, difference)
    assert advice.refit is True
    assert advice.is_held_out
    assert advice.explained_variance > 0.99
    assert advice.initial_mae_ev_per_atom > 10
    assert advice.refitted_mae_ev_per_atom == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.2)
    assert set(advice.elements.index[:3]) == {"Au", "Pt", "W"}
    assert advice.elements["contribution_ev_per_atom"].is_monotonic_decreasing
    assert advice.reason.startswith("Refit: the references explain 100.0 % of the variance")
    assert "W −39" in advice.reason
    assert "decide it" in advice.reason
    assert str(advice) == advice.reason


def test_dispersion_on_top_of_the_same_functional_does_not():
    """PBE with van der Waals corrections (chgnet issue 205): composition explains it, but it is small."""
    X, rng = materials()
    dispersion = references(Li=-0.05, O=-0.06, F=-0.05, Fe=-0.2, W=-0.3, Au=-0.35, Pt=-0.3)
    advice = refit_advice(X, dispersion.predict(X) + rng.normal(0, 0.02, 200))
    assert advice.refit is False
    assert advice.explained_variance > 0.9
    assert advice.initial_mae_ev_per_atom < 0.35
    assert advice.reason.startswith("Do not refit: it would take 0.1")
    assert "less than the 0.5 eV/atom that is left to fine-tuning" in advice.reason
    assert refit_advice(X, dispersion.predict(X), threshold_ev_per_atom=0.05).refit is True


def test_a_large_difference_that_composition_does_not_explain_is_a_mistake_elsewhere():
    X, rng = materials()
    advice = refit_advice(X, rng.normal(0, 5, 200))
    assert advice.refit is False
    assert "Look for a mistake in units, sign or kind of energy" in advice.reason


def test_a_constant_shift_is_an_offset_without_variance():
    X, _ = materials()
    advice = refit_advice(X, np.full(200, -2.0))
    assert advice.refit is True
    assert np.isnan(advice.explained_variance)
    assert advice.explained_offset == pytest.approx(1)
    assert "an equal shift" in advice.reason
    assert refit_advice(X, np.zeros(200)).refit is False


def test_one_chemical_system_is_judged_in_sample_and_sent_to_the_model_aware_refit():
    X = composition_matrix(["LiFePO4"] * 5)
    advice = refit_advice(X, np.full(5, -6.0), material_ids=["a"] * 5)
    assert advice.refit is True
    assert not advice.is_held_out
    assert "in sample" in advice.reason
    assert "Li, O, P, Fe only in combination" in advice.reason
    assert "fit_model_aware_atomref" in advice.reason


def test_each_material_counts_once_in_the_advice():
    X, rng = materials(40)
    difference = HIGH.predict(X) - LOW.predict(X) + rng.normal(0, 0.05, 40)
    rows = np.concatenate([np.zeros(500, dtype=int), np.arange(1, 40)])
    advice = refit_advice(X[rows], difference[rows], material_ids=rows)
    once = refit_advice(X, difference)
    assert advice.initial_mae_ev_per_atom == pytest.approx(once.initial_mae_ev_per_atom)
    assert advice.refitted_mae_ev_per_atom == pytest.approx(once.refitted_mae_ev_per_atom)
    assert advice.n_materials == 40


def island_advice(n_shared):
    """Materials of which `n_shared` have the same two elements; each of the others has two of its own."""
    alone = [
        f"{a}{b}" for a, b in zip(*[iter("Li Be B C N F Na Mg Al Si P S Cl K Ca Sc Ti V".split())] * 2, strict=True)
    ]
    formulas = [("FeO", "Fe2O3")[k % 2] for k in range(n_shared)] + alone
    return refit_advice(composition_matrix(formulas), np.linspace(-6, -5, len(formulas)))


def test_advice_says_how_many_materials_it_was_judged_on():
    advice = island_advice(8)
    assert advice.is_held_out
    assert (advice.n_judged, advice.n_materials) == (8, 17)
    assert "on the 8 of 17 materials whose references the others fix" in advice.reason


def test_advice_on_a_handful_of_judged_materials_is_in_sample_and_says_so():
    advice = island_advice(4)
    assert not advice.is_held_out
    assert advice.n_judged == advice.n_materials == 13
    assert "in sample, too few materials to hold any out" in advice.reason
    assert advice.refit  # any differences of 13 materials of 20 elements are fitted, but these are one shift of all


def test_differences_that_mean_nothing_are_no_reason_to_refit_however_few_the_materials():
    formulas = ["LiF", "NaCl", "KBr", "MgO", "CaS", "BaSe", "AlN", "GaP", "ZnTe", "TiC"]
    for seed in range(3):
        difference = np.random.default_rng(seed).normal(0, 4, 10)
        advice = refit_advice(composition_matrix(formulas), difference)
        assert advice.refit is False
        assert advice.reason.startswith("Too few materials to tell: 10, for references of ")
    iron = refit_advice(composition_matrix(["Fe"] * 8), np.array([2.0, 2.1, 1.9, 2.0, 2.2, 1.8, 2.05, 1.95]))
    assert iron.refit
    assert "the references explain an equal shift (initial" in iron.reason  # and no share below zero


def test_the_share_of_the_offset_has_an_interval_over_materials():
    X, rng = materials(60)
    advice = refit_advice(X, HIGH.predict(X) - LOW.predict(X) + rng.normal(0, 0.3, 60))
    low, high = advice.explained_offset_interval
    assert low < advice.explained_offset < high
    assert np.isnan(island_advice(4).explained_offset_interval).all()


def test_a_correlations_interval_holds_as_often_as_it_says():
    """Percentiles alone hold 86 of 100 times with five materials."""
    rng, held = np.random.default_rng(0), 0
    for seed in range(400):
        x = rng.normal(size=5)
        y = 0.8 * x + 0.6 * rng.normal(size=5)
        found = pearson(x, y, n_bootstrap=300, seed=seed)
        held += found.low <= 0.8 <= found.high
    assert held / 400 > 0.9


def test_a_report_where_no_material_can_be_held_out_keeps_the_rows_that_there_are():
    formulas = ["LiF", "NaCl", "KBr", "MgO", "AlN", "GaP", "ZnS"]
    low = np.linspace(-3, -2, 7)
    report = correlation_report(composition_matrix(formulas), low, 2 * low + 0.1 * np.sin(np.arange(7)), n_bootstrap=0)
    assert "none" in report.index
    assert "refitted, held out" not in report.index


def test_advice_refuses_missing_differences():
    with pytest.raises(AtomRefError, match="row 1: energy_per_atom_ev is nan"):
        refit_advice(composition_matrix(["Li", "O"]), [1.0, np.nan])


@pytest.fixture(scope="module")
def real_pairs(real_data_folder):
    """The 974 materials with Materials Project energies in both functionals."""
    kinds = {"gga_mp2020": "low", "r2scan": "high"}
    names = {
        f"{old}_{what}_per_atom_ev": f"{new}_{what}_per_atom_ev"
        for old, new in kinds.items()
        for what in ("energy", "formation_energy")
    }
    pairs = pd.read_csv(real_data_folder / "mp_thermo_pairs.csv").rename(columns=names)
    return pairs.dropna(subset=["high_energy_per_atom_ev"])


@pytest.mark.real_data
def test_the_papers_central_figure_on_real_dft_energies(real_pairs):
    pairs = real_pairs
    assert len(pairs) == 974
    low, high = pairs["low_energy_per_atom_ev"], pairs["high_energy_per_atom_ev"]
    report = correlation_report(
        composition_matrix(pairs),
        low,
        high,
        published_atomref("MPtrj"),
        published_atomref("MP-r2SCAN"),
        n_bootstrap=100,
    )
    assert report["pearson"].round(3).drop("refitted, held out").to_dict() == {
        "none": 0.096,
        "published": 0.958,
        "low only": 0.141,
        "refitted": 0.981,
    }
    assert report.loc["refitted, held out", "pearson"] > 0.97


@pytest.mark.real_data
def test_real_r2scan_energies_ask_for_a_refit(real_pairs):
    pairs = real_pairs
    difference = pairs["high_energy_per_atom_ev"] - pairs["low_energy_per_atom_ev"]
    advice = refit_advice(composition_matrix(pairs), difference, material_ids=pairs["mp_id"])
    assert advice.refit is True
    assert advice.explained_variance > 0.99
    formation = pairs["high_formation_energy_per_atom_ev"] - pairs["low_formation_energy_per_atom_ev"]
    assert refit_advice(composition_matrix(pairs), formation).refit is False
