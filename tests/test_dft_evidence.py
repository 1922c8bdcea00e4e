"""What the tables say of our own DFT, against numbers worked out by hand."""

import dataclasses
import types

import numpy as np
import pandas as pd
import pytest
from small_frames import small_frames

from crossfunc.dft import evidence
from crossfunc.dft.checks import CONVERGENCE_MATERIALS, DERIVATIVE_FRAMES
from crossfunc.dft.plan import plan_materials
from crossfunc.energies import composition_matrix
from crossfunc.training.evaluate import FramePredictions
from crossfunc.training.source import replace_labels


def frames(rows):
    return pd.DataFrame(rows, columns=["frame_id", "material_id", "functional", "atomic_numbers", "energy_per_atom_ev"])


TABLE = frames(
    [
        ("CsCl-b2-00/pbe", "CsCl-b2", "pbe", [55, 17], -1.0),
        ("CsCl-b2-00/r2scan", "CsCl-b2", "r2scan", [55, 17], -9.0),
        ("CsCl-b2-01/pbe", "CsCl-b2", "pbe", [55, 17], -0.9),
        ("CsCl-b2-01/r2scan", "CsCl-b2", "r2scan", [55, 17], -8.8),
        ("Cl-x-00/pbe", "Cl-x", "pbe", [17, 17], -2.0),
    ]
)


def test_free_atoms_explain_a_gap_or_do_not():
    table = pd.DataFrame({"ours": [1.0, 2.0, 3.0], "free_atom": [0.5, 0.5, np.nan], "free_atom_vasp": [1.5, 3.5, 9.0]})
    found = evidence.explained_by_atoms(table.assign(published=[2.0, 5.0, 0.0]))
    assert found == {"n_atoms": 2, "slope": pytest.approx(1), "cosine": pytest.approx(1)}
    found = evidence.explained_by_atoms(table.assign(published=[4.0, 1.0, 0.0]))
    assert found["cosine"] == pytest.approx(0, abs=1e-12)
    assert evidence.explained_by_atoms(table.assign(published=np.nan))["n_atoms"] == 0


def test_structures_are_counted_once_and_caesium_is_heavy():
    assert evidence.count(TABLE) == {"structures": 3, "materials": 2, "elements": 2, "heavy_elements": 1}
    assert evidence.materials_per_element(TABLE).to_dict() == {"Cl": 2, "Cs": 1}


def test_same_structures_leaves_out_what_one_functional_lacks():
    pair = evidence.same_structures(TABLE)
    assert list(pair.index) == ["CsCl-b2-00", "CsCl-b2-01"]
    assert (pair["r2scan"] - pair["pbe"]).tolist() == pytest.approx([-8.0, -7.9])


def test_worst_deviations_are_in_the_units_of_the_results():
    table = pd.DataFrame({"quantity": ["force x", "force z", "mean stress"], "difference": [-0.002, 0.001, -0.03]})
    found = evidence.worst_derivatives(table)
    assert found == pytest.approx({"force": 2.0, "stress": 0.03})


def test_agreement_of_forces_has_slope_cosine_and_an_interval_over_materials():
    frames = small_frames(6)
    true = np.random.default_rng(0).normal(0, 1, frames.forces_ev_per_a.shape)
    frames = replace_labels(frames, forces_ev_per_a=true)
    nothing = [np.full(getattr(frames, n).shape, np.nan) for n in ("energy_per_atom_ev", "stress_gpa", "magmoms_mub")]
    energy, stress, moments = nothing
    seen = FramePredictions(frames, np.arange(6), energy, 0.8 * true, stress, moments)
    found = evidence._agreement(seen, seed=0, n=200)
    assert found["slope"] == pytest.approx(0.8)
    assert found["cosine"] == pytest.approx(1.0)
    assert found["mae"] == pytest.approx(0.2 * np.abs(true).mean())
    assert found["low"] < found["mae"] < found["high"]
    assert np.isnan(evidence._agreement(dataclasses.replace(seen, forces_ev_per_a=0 * true), 0, 10)["cosine"])


def test_the_collected_solids_are_those_of_the_plans_structure():
    from ase.collections import dcdft

    known = {m.material_id: evidence._collected(dcdft, m) for m in plan_materials() if len(m.elements) == 1}
    assert known["Si-diamond"]["wien2k_volume"] == pytest.approx(20.453)
    assert known["Al-fcc"]["exp_volume"] == pytest.approx(16.27, abs=0.01)
    assert known["C-graphite"] is None
    assert known["P-black-phosphorus"] is None


SHIFTS = pd.DataFrame(
    {"ours": [-1.0, -2.0, -5.0, -10.0], "published": [-1.0, -2.0, -15.0, -30.0], "free_atom": np.nan},
    ["Li", "O", "Sr", "Au"],
)


def draws_of(*rows):
    """Shifts of the four elements above as `shift_draws` has them."""
    draws = np.full((len(rows), 94), np.nan)
    draws[:, [2, 7, 37, 78]] = rows
    return draws


def test_shifts_are_compared_up_to_and_after_krypton():
    found = evidence.compare_shifts(SHIFTS, draws_of(SHIFTS["ours"], 2 * SHIFTS["ours"]), n_materials=9)
    assert found["rank_correlation"].value == pytest.approx(1.0)
    assert found["slope_light"].value == pytest.approx(1.0)
    assert found["slope_heavy"].value == pytest.approx(3.0)
    assert found["slope_heavy"].interval == pytest.approx((1.5, 3.0), abs=0.05)
    few = evidence.compare_shifts(SHIFTS, draws_of(SHIFTS["ours"]), n_materials=4)
    assert few["slope_heavy"].interval is None


def test_an_element_that_a_draw_lacks_is_left_out_of_it():
    draws = draws_of(SHIFTS["ours"], [-1.0, np.nan, -5.0, -10.0])
    found = evidence.compare_shifts(SHIFTS, draws, n_materials=9)
    assert found["slope_light"].interval == pytest.approx((1.0, 1.0))


def test_drawn_shifts_scatter_about_the_fit_and_know_what_they_cannot_determine():
    rng = np.random.default_rng(0)
    formulas = [f"Li{a}O{b}" for a in range(1, 5) for b in range(1, 5)] + ["Au"]
    X = composition_matrix(formulas)
    shift = np.zeros(94)
    shift[[2, 7, 78]] = (-1.0, -2.0, -10.0)
    rows = np.repeat(np.arange(len(formulas)), 2)
    difference = X[rows] @ shift + rng.normal(0, 0.01, len(rows))
    draws = evidence.shift_draws(X[rows], difference, rows, n=50)
    assert np.nanmean(draws[:, 2]) == pytest.approx(-1.0, abs=0.02)
    assert 0 < np.nanstd(draws[:, 7]) < 0.05
    missing = np.isnan(draws[:, 78]).mean()  # the one material with gold is in 1 - 1/e of the draws
    assert 0.1 < missing < 0.7
    assert np.isnan(draws[:, 0]).all()


def test_mean_deviations_of_solids_have_an_interval_where_there_are_enough():
    columns = ("pbe_minus_measured", "r2scan_minus_measured", "pbe_minus_all_electron", "pbe_minus_all_electron_bulk")
    solids = pd.DataFrame({c: [-2.0, 1.0, 3.0, -1.0, 2.0] for c in columns}, list("ABCDE"))
    found = evidence.solid_errors(solids)
    assert found["volume_pbe"].value == pytest.approx(1.8)
    assert found["volume_pbe"].low < 1.8 < found["volume_pbe"].high
    assert evidence.solid_errors(solids[:3])["bulk_all_electron"].interval is None
    assert evidence.solid_errors(solids[:0]) == {}


def pairs_with(rows):
    columns = ("low_volume_a3_per_atom", "high_volume_a3_per_atom", "low_bulk_modulus_gpa", "high_bulk_modulus_gpa")
    table = pd.DataFrame([dict(zip(("material_id", *columns), row, strict=True)) for row in rows])
    return types.SimpleNamespace(need_pairs=lambda: table)


def test_published_solids_are_held_against_the_functional_they_were_computed_in():
    ours = [("MgO-rock-salt", 9.6245, 9.0, 297.96, 1.0), ("Si-diamond", 1.0, 1.01 * 5.446090894**3 / 8, 1.0, 1.0)]
    table = evidence.published_solids(pairs_with([*ours, ("NaCl-rock-salt", 1.0, 1.0, 1.0, 1.0)]))
    assert list(table["functional"]) == ["pbe", "r2scan"]
    assert table.loc["MgO-rock-salt", "volume_off"] == pytest.approx(0)
    assert table.loc["MgO-rock-salt", "bulk_off"] == pytest.approx(100)
    assert table.loc["Si-diamond", "volume_off"] == pytest.approx(1, abs=1e-3)
    assert np.isnan(table.loc["Si-diamond", "bulk_off"])
    found = evidence.published_errors(table)
    assert set(found) == {"volume_pbe", "bulk_pbe", "volume_r2scan"}
    assert found["bulk_pbe"].value == pytest.approx(100)


def test_no_published_solid_is_an_empty_table_and_no_figure():
    table = evidence.published_solids(pairs_with([("NaCl-rock-salt", 1.0, 1.0, 1.0, 1.0)]))
    assert table.empty
    assert evidence.published_errors(table) == {}


def test_every_published_solid_is_one_of_the_plan():
    from importlib import resources

    with resources.files("crossfunc.dft").joinpath("published_solids.csv").open(encoding="utf-8") as file:
        known = pd.read_csv(file)
    assert set(known["material_id"]) <= {m.material_id for m in plan_materials()}


def test_kept_derivatives_are_of_the_frames_that_the_check_names_and_within_the_bar():
    table = evidence.kept_check("derivatives")
    assert list(dict.fromkeys(table["frame_id"])) == list(DERIVATIVE_FRAMES)
    assert set(table["functional"]) == {"pbe", "r2scan"}
    worst = table.assign(size=table["difference"].abs()).groupby("unit")["size"].max()
    assert worst["eV/Å"] <= 3e-3
    assert worst["GPa"] <= 0.05


def test_kept_convergence_is_of_materials_that_the_check_names_and_within_the_bar():
    table = evidence.kept_check("convergence")
    kept = list(dict.fromkeys(table["material_id"]))
    assert [name for name in CONVERGENCE_MATERIALS if name in kept] == kept
    assert table.groupby("material_id")["finer"].nunique().eq(2).all()  # cutoff and k-points
    assert table["energy_mev_per_atom"].max() <= 2
    assert table["force_mev_per_a"].max() <= 10
    assert table["stress_gpa"].max() <= 0.3
