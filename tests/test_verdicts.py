"""Judging models by their own hulls: numbers that can be checked in one's head."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

import crossfunc as xf
from crossfunc.datasets.functionals import Functional
from crossfunc.energies import composition_matrix
from crossfunc.lessons import LessonResults, figures, verdicts
from crossfunc.lessons.judging import ENERGY
from crossfunc.lessons.units import AWARE
from crossfunc.potential import element_references
from crossfunc.stability.entries import EntryTable

REPORT = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "reference_ev": [-0.1, 0.2, -0.3, 0.05],
        "model_ev": [-0.2, -0.1, -0.3, 0.01],  # b is called stable and is not
        "reference_formation_ev": [-1.0, -1.0, -1.0, -1.0],
        "model_formation_ev": [-1.1, -0.9, -1.0, -1.0],
        "reference_products": ["X + Y", "X", "Y", "X"],
        "model_products": ["X + Y", "Y", "Y", "X"],
        "total_ev": [5.0, 5.0, 5.0, 5.0],
    }
)


def test_score_counts_errors_in_mev_and_verdicts():
    found = verdicts.score(REPORT, {"a", "b", "c", "d"})
    assert found["total"] == 5000
    assert found["decomposition"] == pytest.approx(1000 * (0.1 + 0.3 + 0 + 0.04) / 4)
    assert found["formation"] == pytest.approx(50)
    assert found["same products"] == 75
    assert (found["precision"], found["recall"]) == (2 / 3, 1)
    assert found["F1"] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))  # harmonic mean of the two
    assert found["n"] == 4


def test_a_compound_without_a_hull_is_not_scored():
    wrong = REPORT[REPORT["id"] == "b"]
    lost = wrong.assign(id="e", reference_ev=np.nan, model_ev=np.nan, reference_products="", model_products="")
    found = verdicts.score(pd.concat([wrong, lost], ignore_index=True), {"b", "e"})
    assert (found["same products"], found["n"]) == (0, 1)
    assert found["decomposition"] == pytest.approx(300)
    report = pd.concat([REPORT, lost.assign(model_ev=0.1)], ignore_index=True)  # a hull on one side alone
    expected = verdicts.score(REPORT, set("abcd"))
    assert verdicts.score(report, set("abcde")) == expected


def test_score_of_a_model_that_calls_nothing_stable_has_no_precision():
    found = verdicts.score(REPORT.assign(model_ev=1.0), {"a", "b"})
    assert np.isnan(found["precision"])
    assert found["recall"] == 0


def test_a_model_is_scored_on_what_its_own_seed_has_not_seen():
    reports = {("published", None): REPORT, ("Method 4", "0"): REPORT}
    found = verdicts.score_all(reports, {"0": {"a"}, "1": {"a", "b"}})
    assert list(found.index) == [("published", "0"), ("published", "1"), ("Method 4", "0")]
    assert found["n"].tolist() == [1, 2, 1]


def test_the_relaxed_frame_is_the_one_that_the_pairs_list_or_else_the_lowest():
    frames = SimpleNamespace(
        energy_per_atom_ev=np.array([-1.0, -2.0, -3.0, -5.0]), material_ids=np.array(["a", "a", "b", "b"])
    )
    assert verdicts.relaxed_frames(frames).tolist() == [1, 3]
    pairs = pd.DataFrame({"material_id": ["a", "b"], "high_energy_per_atom_ev": [-1.0, -5.0]})
    assert verdicts.relaxed_frames(frames, pairs).tolist() == [0, 3]


def test_inside_a_system_means_no_other_element():
    X = composition_matrix(["Fe2O3", "LiFeO2", "O2", "Na"])
    assert verdicts.inside(X, ["Fe", "O"]).tolist() == [True, False, True, False]


FORMED = {
    "Li": 0.0,
    "O2": 0.0,
    "Fe": 0.0,
    "Li2O": -1.0,
    "Li2O2": -0.75 + 1e-11,
    "LiO3": -0.1,
    "Fe2O3": -1.0,
    "LiFeO2": -2,
}
"""Formation energies, eV/atom; Li2O2 lies on the line from Li2O to oxygen but for rounding, LiO3 above it."""


def entries(**more):
    formed = FORMED | more
    return EntryTable.from_columns([f"{name}-0" for name in formed], list(formed), list(formed.values()))


def test_entries_of_a_system_keep_their_energies_and_their_order():
    two = verdicts.of_system(entries(), ["O", "Fe"])
    assert two.compositions == ("O2", "Fe", "Fe2O3")
    assert two.ids.tolist() == ["O2-0", "Fe-0", "Fe2O3-0"]
    assert two.energy_per_atom_ev.tolist() == [0, 0, -1]


def test_stable_phases_of_a_system_are_named_once_and_rounding_takes_none_away():
    table = entries(Li4O2=-1.0)  # Li2O once more
    assert verdicts.on_hull(table, ["Li", "O"]) == ["Li", "Li2O", "Li2O2", "O2"]
    assert verdicts.on_hull(table, ["Fe", "O"]) == ["Fe", "Fe2O3", "O2"]
    assert verdicts.on_hull(entries(FeO=-0.799), ["Fe", "O"]) == ["Fe", "Fe2O3", "O2"]  # the line is at -0.833
    assert verdicts.on_hull(entries(FeO=-0.9), ["Fe", "O"]) == ["Fe", "Fe2O3", "FeO", "O2"]


def test_both_functionals_are_held_against_what_was_measured():
    column = "experiment_nbs_formation_energy_per_atom_ev"
    pairs = pd.DataFrame(
        {
            "material_id": ["a", "b", "c"],
            "composition": ["LiO", "Li3O", "LiO3"],
            "low_energy_per_atom_ev": [-3.0, -2.7, -9.0],  # of the elements alone: -2, -1.5
            "high_energy_per_atom_ev": [-3.95, -4.05, -9.0],  # -3, -2.5
            column: [-0.9, -1.5, np.nan],
        }
    )
    elements = pd.DataFrame(
        [("Li", "gga", -1.0), ("O", "gga", -3.0), ("Li", "r2scan", -2.0), ("O", "r2scan", -4.0)],
        columns=["element", "functional", "energy_per_atom_ev"],
    ).assign(energy_kind="raw")
    functionals = Functional("low", "GGA", "gga", "mp2020"), Functional("high", "r²SCAN", "r2scan", "raw")
    dataset = SimpleNamespace(pairs=pairs, elements=elements, functionals=functionals)
    results = LessonResults("06_hull_workflow")
    computed, experiment = verdicts.record_experiment(dataset, results)
    assert experiment.equals(pairs[column])
    (gga, formed), (scan, formed_scan) = computed.items()
    assert gga == ("gga", "GGA with MP2020 corrections: MAE 200, mean error +100 meV/atom")  # -100 and +300
    assert scan == ("r2scan", "r²SCAN: MAE 50, mean error -50 meV/atom")  # -50 twice
    assert formed == pytest.approx([-1, -1.2, -6.5])
    assert formed_scan == pytest.approx([-0.95, -1.55, -5.5])
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert {key: one["value"] for key, one in found.items()} == pytest.approx(
        {"experiment_mae_gga": 200, "experiment_bias_gga": 100}
        | {"experiment_mae_r2scan": 50, "experiment_bias_r2scan": -50}
    )
    assert found["experiment_bias_gga"]["title"].startswith("Formation energies of GGA with MP2020 corrections")
    assert found["experiment_mae_r2scan"]["note"].startswith("DFT, 2 materials")


def test_what_a_hull_lacks_is_named_with_the_options_that_mend_it():
    assert verdicts.describe_lack_of_phases(["Fe4", "O8", "Fe4O6"], ["Fe", "O"], "Fe2O3") == ""
    said = verdicts.describe_lack_of_phases(["Fe4", "Fe4O6"], ["Fe", "O"], "FeO")
    assert "no frames of FeO, O." in said
    assert "-p by_hand=" in said


def test_parts_by_distance_hold_equal_numbers_and_say_where_they_end():
    binned = verdicts.by_distance(REPORT, 2)
    assert list(binned.index) == ["50–100", "200–300"]  # |E_d| in meV/atom
    assert binned["wrong"].tolist() == [0, 50]
    assert binned["error"].tolist() == pytest.approx([70, 150])


def test_scores_stand_beside_the_papers_with_an_interval_where_compounds_allow_one():
    name = "Method 4"
    scores = pd.DataFrame([verdicts.score(REPORT, {"a", "b", "c", "d"})], index=[name])
    results = SimpleNamespace(paper={"decomposition_mae_method_4": 23.66}.get)
    few = verdicts.Compared({(name, "0"): REPORT}, {"0": {"a", "b", "c", "d"}})
    table = verdicts.beside_paper(scores, few, results)
    assert table["decomposition", "paper"].tolist() == ["23.66"]
    assert table["decomposition", "here"].tolist() == ["110"]  # four compounds give no interval
    assert table["verdict", "F1"].tolist() == ["0.80"]
    many = verdicts.Compared({(name, "0"): MANY}, {"0": set(MANY["id"])})
    (cell,) = verdicts.beside_paper(scores, many, results)["decomposition", "here"]
    assert "±" in cell or " to " in cell


MANY = pd.concat([REPORT.assign(id=REPORT["id"] + str(k)) for k in range(5)], ignore_index=True)


def test_models_are_compared_on_the_compounds_that_both_could_relax():
    worse = MANY.assign(model_ev=MANY["model_ev"] + 0.5 * np.sign(MANY["model_ev"] - MANY["reference_ev"] + 1e-9))
    reports = {("Method 4", "0"): MANY, ("Method 3", "0"): worse.iloc[:-1]}  # one exploded
    compared = verdicts.Compared(reports, {"0": set(MANY["id"])})
    found = compared.difference("Method 4", "Method 3", "decomposition")
    assert found.value == pytest.approx(-500)
    assert found.interval == pytest.approx((-500, -500))  # the same on every compound
    assert found.verdict == "lower"
    assert found.n_materials == len(MANY) - 1
    assert compared.difference("Method 4", "Method 3", "formation").verdict == "unclear"


def test_methods_stand_beside_what_costs_nothing_and_that_beside_no_model(tmp_path):
    worse = MANY.assign(model_ev=MANY["model_ev"] + 0.5 * np.sign(MANY["model_ev"] - MANY["reference_ev"] + 1e-9))
    reports = {(verdicts.GGA, None): MANY} | {(f"Method {k}", "0"): worse for k in "1234"} | {(AWARE, "0"): MANY}
    compared = verdicts.Compared(reports, {"0": set(MANY["id"])})
    zero = 1000 * MANY["reference_ev"].abs().mean()
    assert compared.estimate(verdicts.ZERO, "decomposition").value == pytest.approx(zero)
    gaps = verdicts.differences(compared)
    assert gaps["decomposition", "Method 4", verdicts.GGA].value == pytest.approx(500)
    own = compared.estimate(verdicts.GGA, "formation").value
    assert gaps["formation", verdicts.GGA, verdicts.ZERO].value == pytest.approx(own - 1000)
    table = verdicts.differences_table(gaps)
    assert table.loc["decomposition: Method 4 minus GGA model as it comes", "the first errs"] == "more"
    assert table.loc["formation: GGA model as it comes minus predict zero", "the first errs"] == "less"
    results = LessonResults("06_hull_workflow", tmp_path)
    verdicts.record_differences(results, gaps)
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert found["decomposition_4_minus_untrained"]["value"] == pytest.approx(500)
    assert found["formation_untrained_minus_zero"]["value"] == pytest.approx(own - 1000)
    pairs = "4_minus_3", "4_minus_2", "4_minus_1", "3_minus_2", "3_minus_1", "2_minus_1"
    assert {f"{metric}_{pair}" for metric in verdicts.JUDGED for pair in pairs} <= set(found)  # an order needs them all
    assert found["decomposition_aware_minus_4"]["value"] == pytest.approx(-500)
    assert found["decomposition_aware_minus_untrained"]["value"] == 0
    older = verdicts.Compared({key: r for key, r in reports.items() if key[0] != AWARE}, {"0": set(MANY["id"])})
    assert {pair for pair in gaps if AWARE not in pair} == set(verdicts.differences(older))


def test_every_model_has_a_look_of_its_own_and_a_key():
    looks = [(figures.COLORS[look], figures.MARKERS[look]) for look in verdicts.LOOKS.values()]
    assert len(set(looks)) == len(verdicts.LOOKS)
    assert set(verdicts.LOOKS) == {*verdicts.ORDER, verdicts.ZERO}
    assert set(verdicts.KEYS) == set(verdicts.ORDER)
    assert AWARE in verdicts.ORDER


def test_a_model_without_a_seed_is_compared_on_the_compounds_of_every_seed():
    compared = verdicts.Compared({("GGA", None): MANY}, {"0": {"a0", "b0"}, "1": {"c0", "d0", "a1", "b1"}})
    mae = compared.estimate("GGA", "decomposition")
    assert mae.value == pytest.approx((200 + (0 + 40 + 100 + 300) / 4) / 2)  # mean of the seeds' means
    assert mae.n_materials == 6


# --- the models of lesson 4, or of its methods ---


def left_models(folder, dataset="surrogate"):
    kept = [(0, "1", "m1.pt", 31.5), (0, "x", "mx.pt", 1.0), (0, AWARE, "ma.pt", 4.5), (1, "4", "m4.pt", 2.0)]
    models = pd.DataFrame(kept, columns=["seed", "method", "file", f"train_{ENERGY}"])
    models.to_csv(folder / "04_four_methods.models.csv", index=False)
    split = pd.DataFrame({"seed": [0, 0, 1], "part": ["train", "test", "train"], "material_id": ["a", "b", "c"]})
    split.to_csv(folder / "04_four_methods.split.csv", index=False)
    model = xf.load_model("0.3.0")
    for name in models["file"]:
        xf.save_model(model, folder / name, provenance={"dataset": dataset})


def test_no_models_of_lesson_4_is_no_error(tmp_path):
    assert verdicts.kept_models(None, 1, "surrogate") is None
    assert verdicts.kept_models(tmp_path, 1, "surrogate") is None


def test_models_of_lesson_4_come_with_what_they_have_seen(tmp_path):
    left_models(tmp_path)
    kept = verdicts.kept_models(tmp_path, 1, "surrogate")
    assert kept.models == {("Method 1", "0"): tmp_path / "m1.pt", (AWARE, "0"): tmp_path / "ma.pt"}
    assert kept.seen == {"0": {"a"}}
    assert kept.train_mae == {("Method 1", "0"): 31.5, (AWARE, "0"): 4.5}


def test_models_whose_training_errors_nobody_wrote_down_are_taken_and_said_to_be_so(tmp_path):
    left_models(tmp_path)
    table = tmp_path / "04_four_methods.models.csv"
    pd.read_csv(table).drop(columns=f"train_{ENERGY}").to_csv(table, index=False)
    kept = verdicts.kept_models(tmp_path, 1, "surrogate")
    assert set(kept.models) == {("Method 1", "0"), (AWARE, "0")}
    results = LessonResults("06_hull_workflow")
    assert "not written down" in verdicts.record_training(results, kept.train_mae)
    assert results.to_dict()["results"] == []


def test_models_of_other_labels_are_not_taken(tmp_path):
    left_models(tmp_path, dataset="pbe-r2scan")
    assert verdicts.kept_models(tmp_path, 2, "surrogate") is None


def test_methods_are_trained_where_none_are_kept_and_say_what_they_have_seen():
    given = {"seed": 3, "n_seeds": 1, "n_train_frames": 6, "n_eval_frames": 2, "n_epochs": 1, "batch_size": 3}
    dataset = xf.open_dataset("surrogate", verify=False)
    models, seen, errors = verdicts.train_models(dataset, given | {"max_atoms": 3})
    assert list(models) == [*((f"Method {k}", "3") for k in "1234"), (AWARE, "3")]
    assert len(seen["3"]) == 8  # a frame per material; those of the test are not seen
    start = element_references(xf.load_model("0.3.0"))
    references = {name: element_references(model) for (name, _), model in models.items()}
    moved = {name: np.nanmax(np.abs(values - start)) for name, values in references.items()}
    assert moved["Method 3"] == 0  # frozen
    assert moved["Method 4"] > 0.1  # refitted
    assert np.nanmax(np.abs(references[AWARE] - references["Method 4"])) > 0.1  # to what the network leaves over
    assert set(errors) == set(models)
    assert errors["Method 3", "3"] > errors[AWARE, "3"] > 0  # the offset is not learned in two steps


def test_who_has_not_fitted_its_own_training_energies_is_named_and_gives_no_verdict(root):
    results = LessonResults("06_hull_workflow")
    errors = {("Method 3", "0"): 90.0, ("Method 3", "1"): 110.0, ("Method 4", "0"): 19.0, ("Method 4", "1"): 9.0}
    said = verdicts.record_training(results, errors)
    assert "by 100 meV/atom (Method 3) and 14 meV/atom (Method 4)" in said
    assert said.endswith("has not fitted what it was shown: so it is with Method 3.")
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert found["train_energy_mae_method_3"]["interval"] == (90, 110)
    fitted = verdicts.record_training(LessonResults("06_hull_workflow"), {(AWARE, "0"): 4.0})
    assert "each model has fitted what it was shown" in fitted
    claims = yaml.safe_load((root / "book" / "claims.yml").read_text(encoding="utf-8"))
    needs = {c["result"]: c.get("needs", {}) for c in claims if c["result"].startswith("06_hull_workflow:")}
    for result, rules in needs.items():
        methods = set(result.partition(":")[2].split("_")) & set("1234")
        bounds = {f"train_energy_mae_method_{k} < {verdicts.FITTED_MEV_PER_ATOM}" for k in methods}
        assert methods
        assert set(rules) == bounds, result


def test_how_new_the_judged_compounds_are_is_counted():
    formulas = ["LiO", "Li2O2", "FeO", "Fe4O4", "LiFe", "LiFe"]
    ids = np.array(["a", "b", "c", "d", "e", "e"])
    n_atoms = np.array([2, 4, 2, 8, 6, 12])  # e has a supercell as well
    frames = SimpleNamespace(material_ids=ids, crystals=SimpleNamespace(n_atoms=n_atoms, formula=formulas.__getitem__))
    found = verdicts.how_far(frames, {"a", "e"}, {"b", "c", "d"})
    assert found == {"n": 3, "largest": 6, "larger": 1, "same_composition": 1}  # d; Li2O2, of which LiO is a form
    results = LessonResults("06_hull_workflow")
    said = verdicts.record_unseen(results, frames, {"0": {"a", "e"}, "1": {"d"}}, {"0": {"b", "c", "d"}, "1": {"a"}})
    assert "Seed 0: 3 compounds that no training has seen. 1 of them has more than 6 atoms" in said
    assert "Seed 1: 1 compounds that no training has seen. None of them have more than 8 atoms" in said
    assert said.endswith("; for none there is one of the same composition among these.")
    assert {one["key"]: one["value"] for one in results.to_dict()["results"]} == {
        "judged_larger": 0.5,
        "judged_same_composition": 0.5,
    }


def test_models_side_by_side_are_judged_as_one_by_one(monkeypatch):
    monkeypatch.setattr(verdicts, "judge", lambda model, *_, **limits: (model, limits))
    found = verdicts.judge_all({("a", None): "one", ("b", "0"): "two"}, None, None, fmax=0.1)
    assert found == {("a", None): ("one", {"fmax": 0.1}), ("b", "0"): ("two", {"fmax": 0.1})}


def test_predicting_zero_errs_by_the_energy_and_calls_nothing_stable():
    binned = verdicts.by_distance(verdicts.predict_zero(REPORT), 2)
    assert binned["error"].tolist() == pytest.approx([75, 250])
    assert binned["wrong"].tolist() == [50, 50]  # the stable ones


def test_compounds_of_an_element_whose_crystal_a_model_loses_have_no_energy_and_the_others_keep_theirs(monkeypatch):
    formulas, energies = ["Cs", "Cl", "Na", "CsCl", "NaCl"], [-1.0, -2.0, -1.5, -3.5, -3.8]
    reference = EntryTable.from_columns(formulas, formulas, energies)
    status = np.array(["exploded", *["converged"] * 4])
    found = SimpleNamespace(status=status, energy_per_atom_ev=np.array([np.nan, -2.1, -1.5, -3.4, -3.9]))
    monkeypatch.setattr(verdicts, "relax", lambda *_, **__: found)
    monkeypatch.setattr(verdicts, "as_model", lambda model: model)
    report = verdicts.judge(None, None, reference, fmax=0.1, max_steps=1).set_index("id")
    assert list(report.index) == formulas[1:]
    assert report.loc["CsCl", ["model_formation_ev", "reference_formation_ev", "model_ev", "reference_ev"]].isna().all()
    assert report.loc["NaCl", "model_formation_ev"] == pytest.approx(-3.9 + (2.1 + 1.5) / 2)
    assert report.loc["NaCl", "model_ev"] == pytest.approx(-3.9 + (2.1 + 1.5) / 2)
    assert np.isfinite(verdicts.score(report.reset_index(), ["CsCl", "NaCl"])["formation"])
