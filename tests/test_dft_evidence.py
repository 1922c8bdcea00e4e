"""What the tables say of our own DFT, against numbers worked out by hand."""

import dataclasses
import sys
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from small_frames import small_frames

from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.datasets.coverage import materials_per_element
from crossfunc.dft import evidence
from crossfunc.dft.checks import BETWEEN, CONVERGENCE_MATERIALS, DERIVATIVE_FRAMES
from crossfunc.dft.labels import read_records, records_table
from crossfunc.dft.plan import plan_materials
from crossfunc.dft.solids import SOLIDS
from crossfunc.energies import composition_matrix, published_atomref
from crossfunc.energies.free_atoms import vasp_free_atoms
from crossfunc.training import LabelledFrames
from crossfunc.training.baselines import slope_and_cosine
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
    assert materials_per_element(TABLE).to_dict() == {"Cl": 2, "Cs": 1}


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
    forces = 0.8 * true + np.random.default_rng(1).normal(0, 0.1, true.shape)
    seen = FramePredictions(frames, np.arange(6), energy, forces, stress, moments)
    found = evidence._agreement(seen, seed=0, n=200)
    assert (found["slope"], found["cosine"]) == pytest.approx(slope_and_cosine(seen))
    assert found["mae"] == pytest.approx(np.abs(forces - true).mean())
    for name in ("mae", "slope", "cosine"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    of_zero = evidence._agreement(dataclasses.replace(seen, forces_ev_per_a=0 * true), 0, 10)
    assert of_zero["mae"] == pytest.approx(np.abs(true).mean())
    assert np.isnan([of_zero["slope"], of_zero["cosine"]]).all()


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


@pytest.fixture
def without_minima(monkeypatch):
    none = evidence.kept_check("minima").iloc[:0]
    monkeypatch.setattr(evidence, "kept_check", lambda name: none)


def test_published_solids_are_held_against_the_functional_they_were_computed_in(without_minima):
    ours = [("MgO-rock-salt", 9.6245, 9.0, 297.96, 1.0), ("Si-diamond", 1.0, 1.01 * 5.446090894**3 / 8, 1.0, 1.0)]
    ours += [("Pt-fcc", 1.0, 15.3221, 1.0, 0.9 * 272.3)]
    table = evidence.published_solids(pairs_with([*ours, ("NaCl-rock-salt", 1.0, 1.0, 1.0, 1.0)]))
    assert sorted(table["functional"]) == ["pbe", "r2scan", "r2scan"]
    assert table.loc["MgO-rock-salt", "volume_off"] == pytest.approx(0)
    assert table.loc["MgO-rock-salt", "bulk_off"] == pytest.approx(100)
    assert table.loc["Si-diamond", "volume_off"] == pytest.approx(1, abs=1e-3)
    assert np.isnan(table.loc["Si-diamond", "bulk_off"])
    found = evidence.published_errors(table)
    assert set(found) == {"volume_pbe", "bulk_pbe", "volume_r2scan", "bulk_r2scan"}
    assert found["bulk_pbe"].value == pytest.approx(100)
    assert found["bulk_r2scan"].value == pytest.approx(10)


def test_no_published_solid_is_an_empty_table_and_no_figure(without_minima):
    table = evidence.published_solids(pairs_with([("NaCl-rock-salt", 1.0, 1.0, 1.0, 1.0)]))
    assert table.empty
    assert evidence.published_errors(table) == {}


def test_metals_that_the_dataset_lacks_come_from_the_kept_check():
    table = evidence.published_solids(pairs_with([("NaCl-rock-salt", 1.0, 1.0, 1.0, 1.0)]))
    assert set(table.index) == set(SOLIDS)
    kept = evidence.kept_check("minima").set_index(["material_id", "functional"])
    row = table[table["functional"] == "r2scan"].loc["Ag-fcc"]
    assert row["bulk_modulus_gpa"] == kept.loc[("Ag-fcc", "r2scan"), "bulk_modulus_gpa"]
    assert row["bulk_off"] == pytest.approx(100 * (row["bulk_modulus_gpa"] / 104.4 - 1))


def test_tungsten_is_furthest_off_in_r2scan_alone_as_lesson_10_says():
    table = evidence.published_solids(open_dataset("pbe-r2scan"))
    of = {name: rows["bulk_off"].abs() for name, rows in table.groupby("functional")}
    assert max((off.max(), off.idxmax(), name) for name, off in of.items())[1:] == ("W-bcc", "r2scan")
    assert of["pbe"]["W-bcc"] < of["pbe"].mean()


def test_a_metal_of_the_dataset_stands_before_that_of_the_kept_check():
    table = evidence.published_solids(pairs_with([("W-bcc", 16.1394, 15.9225, 301.62, 331.2)]))
    of_w = table.loc["W-bcc"].set_index("functional")
    assert of_w[["volume_off", "bulk_off"]].abs().to_numpy().max() < 1e-9


def test_every_published_solid_is_one_of_the_plan_or_of_the_check():
    from importlib import resources

    with resources.files("crossfunc.dft").joinpath("published_solids.csv").open(encoding="utf-8") as file:
        known = pd.read_csv(file)
    assert set(known["material_id"]) <= {m.material_id for m in plan_materials()} | set(SOLIDS)


def test_kept_derivatives_are_of_the_frames_that_the_check_names_and_within_the_bar():
    table = evidence.kept_check("derivatives")
    assert list(dict.fromkeys(table["frame_id"])) == list(DERIVATIVE_FRAMES)
    assert set(table["functional"]) == {"pbe", "r2scan"}
    worst = table.assign(size=table["difference"].abs()).groupby("unit")["size"].max()
    assert worst["eV/Å"] <= 3e-3
    assert worst["GPa"] <= 0.05


def test_kept_convergence_is_of_the_materials_that_the_check_names_and_within_the_bar():
    table = evidence.kept_check("convergence")
    assert list(dict.fromkeys(table["material_id"])) == list(CONVERGENCE_MATERIALS)
    assert table.groupby("material_id")["finer"].nunique().eq(2).all()  # cutoff and k-points
    over = (table[list(evidence.CONVERGENCE_BARS)] > pd.Series(evidence.CONVERGENCE_BARS)).any(axis=1)
    assert not over.any(), "finer settings change a difference by more than the page promises"
    for _, rows in table.groupby(["material_id", "finer"]):
        assert set(rows["functional"]) == {"pbe", "r2scan", BETWEEN}
    said = evidence.convergence_in_words(table)
    assert said.startswith("No finer setting changes a functional by more than")
    assert said.endswith("what settings leave out is in both alike.")


def test_a_setting_that_is_too_coarse_is_named_with_what_it_leaves():
    """The mesh that LiAu had in an earlier plan, 7x7x7."""
    rows = [
        ("LiAu-B2", "pbe", "k-points 11x11x11", 1.2, 2.0, 0.957),
        ("LiAu-B2", "r2scan", "k-points 11x11x11", 0.9, 1.2, 1.061),
        ("MgO-rock-salt", "pbe", "k-points 6x6x6", 0.1, 0.2, 0.01),
        ("MgO-rock-salt", "r2scan", "k-points 6x6x6", 0.1, 0.2, 0.01),
    ]
    columns = ["material_id", "functional", "finer", *evidence.CONVERGENCE_BARS]
    said = evidence.convergence_in_words(pd.DataFrame(rows, columns=columns))
    assert "- LiAu-B2, k-points 11x11x11: 0.96 GPa (PBE) and 1.06 GPa (r²SCAN)" in said
    assert "MgO" not in said


def test_settings_that_are_fine_are_said_to_be():
    rows = [("m", name, "cutoff", 0.5, 5.0, 0.1) for name in ("pbe", "r2scan")]
    columns = ["material_id", "functional", "finer", *evidence.CONVERGENCE_BARS]
    fine = pd.DataFrame(rows, columns=columns)
    assert evidence.convergence_in_words(fine) == (
        "No finer setting changes a functional by more than 2.0 meV/atom, 10 meV/Å, 0.30 GPa."
    )
    apart = pd.DataFrame([*rows, ("m", BETWEEN, "cutoff", 0.5, 20.0, 0.1)], columns=columns)
    assert evidence.convergence_in_words(apart).endswith("changes by 0.5 meV/atom, 20 meV/Å, 0.10 GPa at most.")
    assert evidence.worst_convergence(apart) == {
        "energy": 0.5, "force": 5.0, "stress": 0.1, "between_energy": 0.5, "between_force": 20.0, "between_stress": 0.1,
    }  # fmt: skip


# --- what is read from the records ---

GPA = 160.21766208
MINIMA_EV = {"pbe": (-10.0, 1.0), "r2scan": (-30.0, 2.0)}
"""Energy of the cell, and bulk modulus in eV/Å³, of two atoms in 40 Å³."""


def record(number, kind, x=1.0, atoms=(14, 14), cpu_s=(1.0, 2.0), memory_gb=0.5):
    """A cube with (40 Å³ / V)^(2/3) = x: with B' = 4 its E is E0 + 45 B (x - 1)^2 and its P is 1.5 B (x - 1) x^2.5."""
    labels = {}
    for (name, (lowest, bulk)), seconds in zip(MINIMA_EV.items(), cpu_s, strict=True):
        energy = lowest + 45 * bulk * (x - 1) ** 2
        labels[name] = {
            "energy_ev": energy,
            "free_energy_ev": energy,
            "forces_ev_per_a": [0.0] * 3 * len(atoms),
            "raw_stress_gpa": (-1.5 * bulk * GPA * (x - 1) * x**2.5 * np.eye(3)).ravel().tolist(),
            "net_force_ev_per_a": 0.0,
            "iterations": 9,
            "k_points": 10,
            "cpu_s": seconds,
        } | ({"de_dcutoff": 0.0} if kind == "equilibrium" else {})
    return labels | {
        "frame_id": f"Si-diamond-{number:02d}",
        "material_id": "Si-diamond",
        "atomic_numbers": list(atoms),
        "frac_coords": [0.0] * 3 * len(atoms),
        "lattice_a": (np.cbrt(40 * x**-1.5) * np.eye(3)).ravel().tolist(),
        "kind": kind,
        "settings": {"cutoff_ev": 500.0},
        "peak_memory_gb": memory_gb,
        "wall_s": 1.0,
    }


def dataset_of(*records):
    return types.SimpleNamespace(name="toy", records=records_table(list(records), []))


def test_an_energy_curve_goes_through_its_points_and_is_above_its_own_minimum():
    volumes = [record(0, "equilibrium"), record(1, "volume", 1.1), record(2, "volume", 0.9)]
    dataset = dataset_of(*volumes, record(3, "rattled", 1.05))
    points, curves, minima = evidence.energy_curve(dataset, "Si-diamond")
    assert list(points.columns) == ["functional", "volume_a3_per_atom", "energy_mev_per_atom"]
    for name, (_, bulk) in MINIMA_EV.items():
        dots, line = (table[table["functional"] == name].set_index("volume_a3_per_atom") for table in (points, curves))
        assert dots.index.to_numpy() == pytest.approx([20, 20 * 1.1**-1.5, 20 * 0.9**-1.5])
        assert dots["energy_mev_per_atom"].to_numpy() == pytest.approx([0, 225 * bulk, 225 * bulk], abs=1e-3)
        assert (line.index[0], line.index[-1]) == pytest.approx((20 * 1.1**-1.5, 20 * 0.9**-1.5))
        assert line["energy_mev_per_atom"].iloc[[0, -1]].to_numpy() == pytest.approx([225 * bulk] * 2)
        assert 0 <= line["energy_mev_per_atom"].min() < 0.1
        expected = {"volume_a3_per_atom": 20.0, "bulk_modulus_gpa": bulk * GPA, "derivative": 4.0}
        assert minima.loc[name].to_dict() == pytest.approx(expected, rel=1e-4)


def test_two_volumes_are_no_energy_curve():
    dataset = dataset_of(record(0, "equilibrium"), record(1, "volume", 1.1), record(2, "rattled", 0.9))
    with pytest.raises(DatasetError, match="Si-diamond: 2 volumes in toy; a curve needs three"):
        evidence.energy_curve(dataset, "Si-diamond")
    with pytest.raises(DatasetError, match="Ge-diamond: 0 volumes"):
        evidence.energy_curve(dataset, "Ge-diamond")


def test_costs_are_of_both_functionals_together():
    dataset = dataset_of(record(0, "equilibrium"), record(1, "atom", atoms=[14], cpu_s=(30.0, 60.0), memory_gb=0.25))
    table = evidence.costs(dataset)
    assert table["kind"].tolist() == ["equilibrium", "atom"]
    assert table[["n_atoms", "k_points", "size"]].to_numpy().tolist() == [[2, 10, 20], [1, 10, 10]]
    assert table["cpu_s"].tolist() == [3.0, 90.0]
    assert table["peak_memory_gb"].tolist() == [0.5, 0.25]


def test_costs_are_summed_up_as_median_hours_and_largest_memory():
    table = pd.DataFrame({"cpu_s": [100.0, 200.0, 6900.0], "peak_memory_gb": [1.0, 3.0, 2.0]})
    assert evidence.cost_summary(table) == pytest.approx({"cpu_median": 200.0, "cpu_hours": 2.0, "memory": 3.0})


def costs_of(seconds, *, noise=0.0):
    """Crystals of 1 to 8 atoms and 1 to 9 k-points, two frames each, and an atom in a box that is no crystal."""
    rng = np.random.default_rng(0)
    sizes = [(n, k) for n in (1, 2, 4, 8) for k in (1, 3, 9)]
    rows = [
        {"material_id": f"m{i}", "kind": "equilibrium", "is_crystal": True, "n_atoms": n, "k_points": k,
         "cpu_s": seconds(n, k) * np.exp(noise * rng.normal()), "peak_memory_gb": 1.0 + i + j}
        for i, (n, k) in enumerate(sizes) for j in range(2)
    ]  # fmt: skip
    box = {"material_id": "O-atom", "is_crystal": False, "n_atoms": 1, "k_points": 1, "cpu_s": 1e6}
    return pd.DataFrame([*rows, box | {"kind": "equilibrium", "peak_memory_gb": 0.1}])


def test_exponents_of_the_time_are_those_it_was_made_with():
    found = evidence.cost_exponents(costs_of(lambda n, k: 7 * n**1.5 * k**0.5), n=50)
    assert found["atoms"].value == pytest.approx(1.5)
    assert found["k_points"].value == pytest.approx(0.5)
    assert found["atoms"].interval == pytest.approx((1.5, 1.5))
    assert found["atoms"].n_materials == 12
    noisy = evidence.cost_exponents(costs_of(lambda n, k: 7 * n**1.5 * k**0.5, noise=0.3), n=200)
    low, high = noisy["atoms"].interval
    assert low < 1.5 < high
    assert 0.05 < high - low < 1
    one_size = costs_of(lambda n, k: 1.0).query("n_atoms == 2")
    assert evidence.cost_exponents(one_size) == {}


def test_the_smallest_record_of_a_crystal_bounds_its_memory():
    table = evidence.memory_bounds(costs_of(lambda n, k: 1.0))
    assert table["crystals"].to_dict() == {"1 or 2": 6, "3 or 4": 3, "5 or more": 3, "all": 12}
    assert table["median_gb"].tolist() == [3.5, 8.0, 11.0, 6.5]  # m0 to m11 have 1 to 12 GB; the box has no say


def test_frames_are_counted_by_kind_with_their_largest_labels():
    rows = [
        ("a-00", "a", "equilibrium", [0.0, 0.01, 0.0], 1.0), ("a-01", "a", "rattled", [0.0, -3.0, 1.0], -20.0),
        ("b-00", "b", "equilibrium", [0.0, 0.0, 0.0], 2.0),
    ]  # fmt: skip
    table = pd.DataFrame(
        [
            {"frame_id": f"{i}/{key}", "material_id": m, "source": kind, "forces_ev_per_a": np.array(f) * (1 + k),
             "stress_gpa": [s] * 9, "atomic_numbers": [3] * len(m)}
            for i, m, kind, f, s in rows for k, key in enumerate(("pbe", "r2scan"))
        ]
    )  # fmt: skip
    found = evidence.frames_by_kind(table)
    assert found["structures"].to_dict() == {"equilibrium": 2, "rattled": 1, "all": 3}
    assert found["materials"].to_dict() == {"equilibrium": 2, "rattled": 1, "all": 2}
    assert found.loc["all", "largest_force_in"] == "a-01"
    assert found.drop(columns="largest_force_in").loc["all"].tolist()[2:] == pytest.approx([6.0, 20.0, 200 / 3])
    assert found.loc["equilibrium", "without_force"] == 100  # 0.02 eV/Å itself is none above it
    still = evidence.without_rattled(table)
    assert still.loc["other"].to_dict() == {"materials": 2, "without_rattled": 1, "of_one_atom": 1}


def test_what_was_computed_adds_up_in_the_shipped_dataset():
    from crossfunc.datasets import open_dataset

    dataset = open_dataset("pbe-r2scan", verify=False)
    found, (_, failures) = evidence.account(dataset), read_records(dataset.records)
    assert found.drop("all").sum() == found["all"] == dataset.records.num_rows - len(failures)
    assert found["shipped"] == evidence.count(dataset.frames.to_pandas())["structures"]
    assert found["in_ledger"] == len(dataset.rejected) - len(failures)
    assert f"{found['all']} structures of the plan" in dataset.meta["provenance"]


# --- against measurements, and checks that were kept ---


def test_elemental_solids_are_percent_off_and_in_order_of_atomic_number():
    from ase.collections import dcdft

    si, al = dcdft.data["Si"], dcdft.data["Al"]
    rows = [
        ("Si-diamond", 1.01 * si["wien2k_volume"], 1.02 * si["exp_volume"], 0.9 * si["wien2k_B"], 1.1 * si["exp_B"]),
        ("MgO-rock-salt", 9.0, 9.0, 100.0, 100.0),
        ("C-graphite", 9.0, 9.0, 100.0, 100.0),
        ("Al-fcc", 0.97 * al["exp_volume"], al["exp_volume"], 1.2 * al["exp_B"], al["exp_B"]),
    ]
    table = evidence.elemental_solids(pairs_with(rows))
    assert list(table.index) == ["Al", "Si"]
    assert table.loc["Si", "pbe_minus_all_electron"] == pytest.approx(1)
    assert table.loc["Si", "r2scan_minus_measured"] == pytest.approx(2)
    assert table.loc["Si", "pbe_minus_all_electron_bulk"] == pytest.approx(-10)
    assert table.loc["Si", "r2scan_minus_measured_bulk"] == pytest.approx(10)
    assert table.loc["Al", ["pbe_minus_measured", "pbe_minus_measured_bulk"]].tolist() == pytest.approx([-3, 20])
    assert evidence.elemental_solids(pairs_with(rows[1:3])).empty


def test_net_forces_are_of_each_functional_in_mev():
    frames = pa.table({"functional": ["pbe", "r2scan", "pbe"], "net_force_ev_per_a": [0.001, 0.02, 0.003]})
    found = evidence.net_forces_mev_per_a(types.SimpleNamespace(need_frames=lambda: frames))
    assert {key: values.tolist() for key, values in found.items()} == {
        "pbe": pytest.approx([1, 3]),
        "r2scan": pytest.approx([20]),
    }
    assert pytest.approx(20) == evidence.LARGEST_NET_FORCE_MEV_PER_A


def test_a_check_that_was_kept_is_its_table_and_another_is_refused():
    table = evidence.kept_check("grid")
    columns = ["frame_id", "functional", "clamped", "points", "net_force_mev_per_a", "force_mev_per_a"]
    assert list(table.columns) == columns
    assert table["points"].tolist() == 2 * [24, 24, 28, 28, 36, 36]
    assert table["clamped"].tolist() == 6 * [True] + 6 * [False]
    assert set(evidence.kept_check("derivatives")["quantity"]) == {"force x", "force z", "mean stress"}
    with pytest.raises(DatasetError, match=r"check 'phonons' is not kept; those that are: .*grid"):
        evidence.kept_check("phonons")


def test_libxcs_clamp_changes_no_net_force_as_lesson_10_says():
    by_library = [rows for _, rows in evidence.kept_check("grid").groupby("clamped")]
    without, with_clamp = (rows["net_force_mev_per_a"].to_numpy() for rows in by_library)
    assert np.abs(with_clamp - without).max() < 1e-3


def test_net_forces_of_grids_are_named_by_functional_points_and_what_libxc_does():
    rows = [("pbe", True, 24, 6.0), ("r2scan", True, 36, 1.5), ("r2scan", False, 36, 1.25)]
    table = pd.DataFrame(rows, columns=["functional", "clamped", "points", "net_force_mev_per_a"])
    assert evidence.grid_net_forces(table) == {"pbe_24": 6.0, "r2scan_36": 1.5, "r2scan_36_unclamped": 1.25}


def test_the_worst_of_each_quantity_may_be_of_different_settings():
    table = pd.DataFrame({"energy_mev_per_atom": [1.0, 2.0], "force_mev_per_a": [4.0, 3.0], "stress_gpa": [0.1, 0.2]})
    table["functional"] = ["pbe", "r2scan"]
    assert evidence.worst_convergence(table) == {"energy": 2.0, "force": 4.0, "stress": 0.2}


# --- shifts and forces ---


def test_shifts_have_three_sources_and_an_interval_where_materials_are_enough():
    formulas = ["Li", "Li2O", "LiO", "Li3O", "Li4O", "LiF"]
    rows = np.array([0, 1, 2, 3, 4, 5, 5])  # five materials with lithium beside oxygen or alone, one with fluorine
    fits = {name: np.full(94, np.nan) for name in ("pbe", "r2scan")}
    fits["pbe"][[2, 7, 8]] = (-1.0, -4.0, -2.0)
    fits["r2scan"][[2, 7, 8]] = (-3.0, -5.0, -2.5)
    fits = {name: types.SimpleNamespace(energies_ev=energies) for name, energies in fits.items()}
    draws = np.full((41, 94), np.nan)
    draws[:, 2] = np.linspace(-4, 0, 41)
    draws[:, 7] = -1.0  # of oxygen there are four materials: too few for an interval
    energies = {
        "frame_id": ["O-atom-00", "LiF-rock-salt-00"],
        "pbe_energy_ev": [-1.0, 7],
        "r2scan_energy_ev": [-3.0, 7],
    }
    dataset = types.SimpleNamespace(records=pa.table(energies))
    table = evidence.shifts_three_ways(dataset, fits, draws, composition_matrix(formulas)[rows], rows)
    assert list(table.index) == ["Li", "O", "F"]
    assert table["ours"].tolist() == [-2.0, -1.0, -0.5]
    assert table["n_materials"].tolist() == [6, 4, 1]
    assert table.loc["Li", ["low", "high"]].tolist() == pytest.approx([-3.9, -0.1])
    assert table.loc[["O", "F"], ["low", "high"]].isna().all(axis=None)
    assert table.loc["O", "free_atom"] == -2.0
    assert table.loc[["Li", "F"], "free_atom"].isna().all()
    of_vasp = vasp_free_atoms().loc["O"]
    assert table.loc["O", "free_atom_vasp"] == pytest.approx(of_vasp["r2scan"] - of_vasp["pbe"])
    low, high = (published_atomref(name).energies_ev[7] for name in ("MPtrj", "MP-r2SCAN"))
    assert table.loc["O", "published"] == pytest.approx(high - low)


def test_forces_of_a_model_are_held_against_both_functionals_and_those_against_each_other(monkeypatch):
    frames = small_frames(4)
    owners = frames.crystals.owners
    forces = np.where(owners == 1, 0.0, 1.0)[:, None] * np.array([[0.3, -0.6, 0.9]])  # nothing moves in frame 1
    labels = {name: replace_labels(frames, forces_ev_per_a=n * forces) for name, n in (("pbe", 1), ("r2scan", 2))}

    def predict(model, given):
        assert model == "the model of name"
        seen = given.take([1, 2])  # it refuses the first
        nothing = [np.full(getattr(seen, n).shape, np.nan) for n in ("energy_per_atom_ev", "stress_gpa", "magmoms_mub")]
        predicted = 0.5 * seen.forces_ev_per_a
        return FramePredictions(seen, np.array([1, 2]), nothing[0], predicted, *nothing[1:])

    monkeypatch.setattr(LabelledFrames, "from_dataset", lambda _dataset, name: labels[name])
    monkeypatch.setattr("crossfunc.potential.load_model", lambda name: f"the model of {name}")
    monkeypatch.setattr(sys.modules[FramePredictions.__module__], "predict_frames", predict)
    table = evidence.force_agreement(None, "name", n=20)
    assert list(table.index) == ["model_pbe", "model_r2scan", "functionals", "zero"]
    # forces of 0.6 eV/Å on average: half of it is missing against PBE, all of it and half of it against r2SCAN
    assert table["mae"].tolist() == pytest.approx([0.3, 0.9, 0.6, 0.6])
    assert table["slope"].tolist()[:3] == pytest.approx([0.5, 0.25, 0.5])
    assert table["cosine"].tolist()[:3] == pytest.approx([1, 1, 1])
    assert np.isnan(table.loc["zero", "slope"])


def test_energies_that_denser_k_points_change_are_listed_worst_first_whatever_their_sign():
    table = pd.DataFrame({"material_id": list("abcd"), "energy_mev_per_atom": [5.0, -7.0, 30.0, 1.0]})
    found, over = evidence.energies_off(table.assign(force_mev_per_a=0.0, stress_gpa=0.0))
    assert found == {"crystals": 4.0, "over": 2.0, "derivatives_over": 0.0, "median": 6.0}
    assert over["material_id"].tolist() == ["c", "b"]


def test_first_frames_whose_forces_or_stress_denser_k_points_change_are_listed_though_their_energy_is_right():
    table = pd.DataFrame({"material_id": list("abcd"), "energy_mev_per_atom": [0.5, -7.0, 0.1, 4.0]})
    table = table.assign(force_mev_per_a=[24.0, 0.0, 10.0, 0.0], stress_gpa=[0.1, 0.0, 0.3, 0.32])
    found, over = evidence.energies_off(table)
    assert found == {"crystals": 4.0, "over": 1.0, "derivatives_over": 2.0, "median": 2.25}
    assert over["material_id"].tolist() == ["b", "d", "a"]


def test_k_points_are_summed_up_and_those_over_a_bar_listed_worst_force_first():
    table = pd.DataFrame(
        [
            ("a", 0.5, 12.0, 0.1),
            ("b", 0.1, 1.0, 0.01),
            ("c", 3.0, 15.0, 0.02),
            ("d", 2.0, 10.0, 0.3),
            ("e", 0.0, 0.0, 0.4),
        ],
        columns=["material_id", "energy_mev_per_atom", "force_mev_per_a", "stress_gpa"],
    )
    assert evidence.over_bars(table)["material_id"].tolist() == ["c", "a", "e"]
    assert evidence.k_points_summary(table) == {
        "crystals": 5.0,
        "over": 3.0,
        "median_energy": 0.5,
        "median_force": 10.0,
        "median_stress": 0.1,
    }
