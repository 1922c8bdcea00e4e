"""Lesson 4's and 5's tables: who is compared with whom, what moved, and sentences that say what the numbers say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from small_frames import small_frames, with_labels

import crossfunc as xf
from crossfunc.bootstrap import Estimate
from crossfunc.datasets import open_dataset
from crossfunc.lessons import LessonResults, first_epoch, four_methods, verdicts
from crossfunc.lessons.judging import COLUMNS, ENERGY, FORCE, REFITTED, Judged
from crossfunc.lessons.units import (
    AWARE,
    PAPERS_TABLE,
    SCRATCH_ON_GGA,
    TAUGHT,
    method_splits,
    of_known_elements,
    usable_frames,
    watched_split,
)
from crossfunc.potential.recorded import RecordedModel
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.training.evaluate import FramePredictions, predict_frames
from crossfunc.training.settings import Settings
from crossfunc.training.taught import low_labels


@pytest.fixture(scope="module")
def dft():
    return open_dataset("pbe-r2scan")


@pytest.fixture(scope="module")
def frames(dft):
    return usable_frames(dft, 4, 40, need_forces=True)


def judged(**means):
    """Stand in for `Judged`: means alone."""
    names = [*four_methods.FREE, *"1234"]
    mean = pd.DataFrame(0.0, names, [ENERGY, REFITTED, FORCE, "slope", "cosine"])
    for name, value in means.items():
        mean.loc[name.replace("_", "-").removeprefix("m"), ENERGY] = value
    mean[FORCE] = 50.0
    mean.loc[four_methods.ZERO, FORCE] = 100.0
    return SimpleNamespace(mean=mean, names=set(names))


def recorded(results):
    """What was recorded, by key."""
    return {one["key"]: one for one in results.to_dict()["results"]}


VERDICTS = {f"{q}_4_minus_{m}": "lower" for q in ("energy", "refitted") for m in "321"} | {
    **{f"force_4_minus_{m}": "unclear" for m in "31"},
    **{f"force_{m}_minus_untrained": v for m, v in zip("234", ("higher", "higher", "lower"), strict=True)},
    "energy_aware_minus_references": "unclear",
    **{f"{q}_{m}_minus_plain": "unclear" for q in ("refitted", "force") for m in "34"},
}


def test_findings_say_what_the_verdicts_say_and_nothing_else():
    said = four_methods.findings(judged(m4=20.0, m1=90.0, m2=70.0, m3=70.0), VERDICTS | {"energy_4_minus_1": "unclear"})
    assert "lower than those of Method 3 and Method 2, and not clearly different from that of Method 1" in said
    assert "worse with Method 2, worse with Method 3 and better with Method 4" in said
    assert "does not clearly change the error" in said
    turned = four_methods.findings(judged(), dict.fromkeys(VERDICTS, "higher"))
    assert "the error of Method 4 is higher than those of Method 3, Method 2 and Method 1" in turned
    assert "lower than" not in turned
    assert "raises the error" in turned


def test_a_method_without_forces_is_said_to_have_none():
    given = judged()
    given.mean.loc["1", FORCE] = 99.0
    assert "hardly learned any forces yet" in four_methods.findings(given, VERDICTS)
    given.mean.loc["1", FORCE] = 40.0
    assert "hardly" not in four_methods.findings(given, VERDICTS)


def test_how_far_references_walk_decides_what_is_said():
    walk = {"median": 2.0, "largest": 5.0, "went": 0.4, "n_steps": 100, "reach": 1.0, "needed": 3.0, "n_elements": 10}
    assert "its steps do not reach" in four_methods.walk_in_words(walk | {"n_arriving": 4})
    assert "enough for most elements" in four_methods.walk_in_words(walk | {"n_arriving": 9})
    assert "no want of budget" in four_methods.walk_in_words(walk | {"n_arriving": 10})
    said = four_methods.walk_in_words(walk | {"n_arriving": 4, "went": 0.1})  # of 2/3 eV that the steps allow
    assert "They went 15% of what the steps allow" in said
    assert "its steps do not reach" not in said


def test_a_reference_that_few_steps_show_needs_more_of_them():
    every = xf.LabelledFrames.from_dataset("surrogate", "high")
    frames = every.take(np.flatnonzero(every.crystals.n_atoms <= 2)[:60])
    given = {"split": {"train": np.arange(50), "validation": np.arange(50, 60)}, "progress": False, "prior": "trend"}
    run, other = (xf.finetune("4", frames, n_epochs=0, batch_size=b, **given) for b in (1, 8))
    start = xf.load_model("0.3.0")
    needed, with_more = (four_methods.rates_needed(one, start, frames) for one in (run, other))
    holds = np.asarray((frames.take(np.arange(50)).composition > 0).mean(axis=0)).ravel()
    way = np.abs(run.references.energies_ev - xf.element_references(start))
    k = int(np.argmax(holds))
    symbol = ELEMENT_SYMBOLS[k]
    assert needed[symbol] == pytest.approx(way[k] / np.sqrt(holds[k]))
    assert with_more[symbol] == pytest.approx(way[k] / np.sqrt(1 - (1 - holds[k]) ** 8))
    assert set(needed.index) == {ELEMENT_SYMBOLS[j] for j in np.flatnonzero(holds)}


def test_blocks_cover_every_weight_that_is_no_reference():
    model = xf.load_model("0.3.0")
    prefixes = tuple(
        p for given in four_methods.BLOCKS.values() for p in ((given,) if isinstance(given, str) else given)
    )
    left = [name for name, _ in model.named_parameters() if not name.startswith((*prefixes, "composition_model"))]
    assert all(name.startswith("angle_layers.2") for name in left), left  # reaches no output
    change = four_methods.block_changes({0: model}, {0: model})
    assert (change == 0).all(axis=None)


def test_the_gap_between_functionals_is_that_of_their_labels(dft, frames):
    low = low_labels(dft, frames)
    seen = four_methods.predict_starts({TAUGHT: xf.load_model("0.3.0")}, low, frames, ("PBE", "r²SCAN"))
    table = four_methods.start_errors(seen)
    by_hand = 1000 * np.abs(low.forces_ev_per_a.astype(float) - frames.forces_ev_per_a).mean()
    assert table.loc["PBE labels", ("r²SCAN", "force")] == pytest.approx(by_hand)
    assert np.isnan(table.loc["PBE labels", ("PBE", "force")])
    own = table.loc[TAUGHT, ("PBE", "force")]
    said = four_methods.gap_in_words(table)
    assert f"{own:.1f} meV/Å" in said
    assert ("and not the functional" in said) == (own > by_hand)


def test_whole_groups_are_held_out_and_all_kinds_are_judged_on_the_same_frames(dft, frames, monkeypatch):
    kinds = four_methods.ways_to_hold_out(frames, dft.pairs)
    formula = np.array([frames.crystals.formula(k) for k in range(len(frames))])
    assert np.array_equal(kinds["leave composition out"], formula)
    assert "rock-salt" in set(kinds["leave prototype out"])
    without = four_methods.ways_to_hold_out(frames, dft.pairs.drop(columns="prototype"))
    assert list(without) == ["by material", "leave composition out"]

    seen = []
    inner = four_methods.cross_validate_frozen

    def watched(features, residual_of, ids, **options):
        found = inner(features, residual_of, ids, **options)
        for group in np.unique(options["groups"]):
            assert len(set(found[2][options["groups"] == group])) == 1
        seen.append(len(features))
        return found

    monkeypatch.setattr(four_methods, "cross_validate_frozen", watched)
    found = four_methods.frozen_errors(xf.load_model("0.3.0"), frames, kinds, 60)
    assert seen == [60, 60, 60]
    n = len(found.groups["by material"])
    assert 0 < n <= 60
    for part in found:
        assert {kind: len(of_frames) for kind, of_frames in part.items()} == dict.fromkeys(kinds, n)
    of_material = pd.Series(formula, frames.material_ids).groupby(level=0).first()
    of_frames = of_material[found.groups["by material"]]
    assert np.array_equal(of_frames, found.groups["leave composition out"])  # row by row


def test_what_a_harder_split_costs_is_paired_and_said(tmp_path):
    ids = np.array([f"m{k}" for k in range(12)])
    easy = np.linspace(0.01, 0.03, 12)
    after = {
        "by material": easy,
        "leave composition out": easy + np.linspace(0.015, 0.025, 12),
        "leave prototype out": easy[::-1],
    }
    groups = dict.fromkeys(after, ids)
    found = four_methods.split_estimates(four_methods.FrozenErrors(groups, dict.fromkeys(after, easy), after))
    assert found["leave composition out"][2].value == pytest.approx(20)
    assert found["leave composition out"][2].interval == pytest.approx((20, 20), abs=3)
    said = four_methods.splits_in_words(found)
    assert said.startswith(
        "Beside the split *by material*, *leave composition out* costs 20 ± 2 meV/atom (over 12 formulas) and whether "
    )
    assert "*leave prototype out* costs more is unclear (" in said
    assert said.endswith(" meV/atom, over 12 structure types).")
    table = four_methods.split_table(found)
    assert table.loc["by material"].iloc[-1] == "–"
    assert table.columns[-1] == "more than by material"
    results = LessonResults("04_four_methods", tmp_path)
    four_methods.record_splits(results, found)
    recorded = {one["key"]: one for one in results.to_dict()["results"]}
    assert recorded["split_leave_composition_out_rise"]["value"] == pytest.approx(20)
    assert recorded["split_leave_composition_out_rise"]["note"] == "five-fold; paired, 95 % over 12 formulas"
    assert "split_by_material_rise" not in recorded


def test_what_is_held_out_whole_is_drawn_whole():
    rng = np.random.default_rng(1)
    formula = np.repeat([f"f{k}" for k in range(12)], 20)
    materials = np.array([f"m{k}" for k in range(len(formula))])
    groups = {"by material": materials, "leave composition out": formula}
    easy = np.full(len(formula), 0.1)
    after = {"by material": easy, "leave composition out": easy + np.repeat(rng.normal(0, 0.02, 12), 20)}
    found = four_methods.split_estimates(four_methods.FrozenErrors(groups, after, after))
    for estimate in found["leave composition out"]:
        assert estimate.n_materials == 12
    rise, of_formulas = found["leave composition out"][2], 1000 * (after["leave composition out"] - easy)[::20]
    half_width = 1.96 * of_formulas.std() / np.sqrt(12)
    assert (rise.high - rise.low) / 2 == pytest.approx(half_width, rel=0.15)
    assert rise.verdict == "unclear"
    assert found["by material"][1].n_materials == 240


def test_nothing_is_judged_on_an_element_that_training_lacks(frames):
    parameters = {"seed": 0, "n_seeds": 2, "n_train_frames": 20, "n_eval_frames": 30}
    splits = [*method_splits(frames, parameters).values(), watched_split(frames, 20, 30, 0)]
    for split in splits:
        seen = set(frames.take(split["train"]).elements())
        for part in set(split) - {"train"}:
            assert set(frames.take(split[part]).elements()) <= seen
            assert not set(frames.material_ids[split[part]]) & set(frames.material_ids[split["train"]])
    only_oxides = frames.frames_with("O")
    others = np.setdiff1d(np.arange(len(frames)), only_oxides)
    assert set(of_known_elements(frames, only_oxides, others)) == set(only_oxides)  # nothing would be left


def test_the_lowest_error_and_what_cannot_be_told_from_it_are_bold(frames):
    tested = Judged(frames, {0: {"train": np.arange(20), "test": np.arange(20, len(frames))}})
    for name in "34":
        tested.add(name, 0, xf.load_model("0.3.0"))
    tested.add_zero(four_methods.ZERO)
    assert four_methods.best_of(tested, FORCE) == ["3", "4"]  # one model under two names; predicting zero is worse
    table = four_methods.table_1(tested, LessonResults("04_four_methods"))
    marks = four_methods.mark_best(table, tested)._compute().ctx
    row = list(table.index).index(four_methods.title_of(four_methods.ZERO))
    bold = {(r, c) for (r, c), css in marks.items() if ("font-weight", "bold") in css}
    assert bold
    assert row not in {r for r, _ in bold}


def test_runs_that_end_at_different_epochs_are_drawn_to_one_end():
    def run(epochs):
        return SimpleNamespace(
            history=pd.DataFrame({"epoch": epochs, f"validation_{ENERGY}": 1.0, f"train_{ENERGY}": 2.0})
        )

    runs = {("4", 0): run([0, 4, 8, 10]), ("4", 1): run([0, 4, 7]), ("3", 0): run([0, 4])}
    table = four_methods.histories(runs, ENERGY)
    assert table[table["method"] == "4"].groupby("seed")["epoch"].apply(list).tolist() == [[0, 4, 8.5], [0, 4, 8.5]]
    assert table[table["method"] == "3"]["epoch"].tolist() == [0, 4]


def test_lines_of_what_costs_nothing_are_means_over_seeds(frames):
    def run(energy, force, rows):
        history = pd.DataFrame([{f"validation_{ENERGY}": energy, f"validation_{FORCE}": force}])
        return SimpleNamespace(history=history, split={"validation": np.array(rows)})

    runs = {("references-only", 0): run(600.0, 70.0, [0, 1]), ("references-only", 1): run(400.0, 90.0, [2])}
    runs |= {("model-aware", 0): run(80.0, 70.0, [0, 1])}
    energies, forces = four_methods.free_histories(runs, frames).values()
    assert energies == {"refitted, untrained": 500.0, "model-aware, untrained": 80.0}
    by_hand = [np.abs(frames.take(np.array(rows)).forces_ev_per_a).mean() for rows in ([0, 1], [2])]
    assert forces == {"untrained": 80.0, "predict zero": pytest.approx(1000 * np.mean(by_hand))}


def test_methods_are_told_apart_by_their_start_and_by_what_they_train():
    table = four_methods.methods_table()
    assert table["method"].tolist() == [1, 2, 3, 4, "–", "–"]
    assert table["weights"].tolist() == ["scratch"] + ["pretrained"] * 5
    assert table["references"].tolist() == ["refit", "pretrained", "pretrained", "refit", "refit", "model-aware"]
    assert table["trains"].tolist() == ["network", "network and references", "network", "network", "nothing", "nothing"]
    assert four_methods.methods_table(["model-aware"])["name"].tolist() == ["model-aware references"]


def test_what_a_taught_start_knows_is_recorded_with_intervals_where_there_are_labels(frames):
    def off_by(mev_per_a):
        forces = frames.forces_ev_per_a + mev_per_a / 1000
        return FramePredictions(
            frames, np.arange(len(frames)), frames.energy_per_atom_ev, forces, frames.stress_gpa, frames.magmoms_mub
        )

    seen = {
        ("as published", "PBE"): off_by(10),
        ("as published", "r²SCAN"): off_by(30),
        (TAUGHT, "PBE"): off_by(5),
        (TAUGHT, "r²SCAN"): off_by(25),
        ("PBE labels", "r²SCAN"): off_by(20),
    }
    results = LessonResults("04_four_methods")
    four_methods.record_starts(results, seen)
    found = recorded(results)
    errors = {key: one["value"] for key, one in found.items() if not key.endswith(("slope", "cosine"))}
    assert {key: value for key, value in errors.items() if "slope" not in key and "cosine" not in key} == pytest.approx(
        {
            "published_start_force_mae_low": 10,
            "taught_start_force_mae_low": 5,
            "published_start_force_mae_high": 30,
            "taught_start_force_mae_high": 25,
            "functionals_force_difference": 20,
        },
        rel=1e-4,
    )
    low, high = found["taught_start_force_slope_high"]["interval"]
    assert low < found["taught_start_force_slope_high"]["value"] < high
    assert 0 < found["functionals_force_cosine"]["value"] <= 1

    del seen["PBE labels", "r²SCAN"]
    results = LessonResults("04_four_methods")
    four_methods.record_starts(results, seen)
    assert len(recorded(results)) == 12
    assert "functionals_force_difference" not in recorded(results)


class Added:
    """Stand in for `Judged`: who was added with what."""

    def __init__(self, frames, splits, seed):
        self.given, self.models, self.without_energies, self.zero = (frames, splits, seed), {}, [], None
        self.splits, self.predictions = splits, {}

    def add(self, name, seed, model, *, energies=True):
        self.models[name, seed] = model
        self.predictions[name, seed] = SimpleNamespace(forces_ev_per_a=getattr(model, "forces", np.zeros((2, 3))))
        self.without_energies += [] if energies else [(name, seed)]

    def add_zero(self, name):
        self.zero = name


def labelled_by(code, high="r2scan"):
    """Stand in for a dataset: whose labels they are."""
    functionals = tuple(SimpleNamespace(key=key) for key in ("pbe", high))
    return SimpleNamespace(
        functionals=functionals,
        functional=lambda side: functionals[side == "high"],
        labelled_by=code,
        is_surrogate=code.startswith("model"),
    )


def test_every_run_is_judged_beside_the_model_as_it_comes_and_the_published_one(monkeypatch):
    monkeypatch.setattr(four_methods, "Judged", Added)
    monkeypatch.setattr(four_methods, "load_model", lambda name: f"loaded {name}")
    monkeypatch.setattr(four_methods.run_histories, "check_one_start", lambda *_: None)
    planned = {
        (case, seed): SimpleNamespace(split=f"split {seed}", model_of=lambda run: f"model of {run}")
        for case in "14"
        for seed in (5, 6)
    }
    runs = {(case, seed): f"run {case} {seed}" for case, seed in planned}
    found = four_methods.judge_runs(labelled_by("DFT, GPAW"), "frames", planned, runs, "base", 7)
    assert found.given == ("frames", {5: "split 5", 6: "split 6"}, 7)
    assert found.models == {key: f"model of {run}" for key, run in runs.items()} | {
        (name, seed): model
        for name, model in ((four_methods.AS_IT_IS, "base"), (four_methods.PUBLISHED, "loaded r2scan"))
        for seed in (5, 6)
    }
    assert found.without_energies == [(four_methods.PUBLISHED, 5), (four_methods.PUBLISHED, 6)]  # another zero
    assert found.zero == four_methods.ZERO
    of_vasp = four_methods.judge_runs(labelled_by("DFT, VASP"), "frames", planned, runs, "base")
    assert of_vasp.without_energies == []
    assert of_vasp.given[2] == 0
    for dataset in (labelled_by("model, CHGNet"), labelled_by("DFT, VASP", high="hse06")):  # its own labels; others
        alone = four_methods.judge_runs(dataset, "frames", planned, runs, "base")
        assert {name for name, _ in alone.models} == {"1", "4", four_methods.AS_IT_IS}


@pytest.mark.parametrize(("apart", "is_refused"), [(1e-6, False), (1.4e-3, True)])
def test_units_of_one_seed_that_began_with_different_networks_are_refused(monkeypatch, apart, is_refused):
    """As after a start was taught again on another machine: its references-only run has other forces than the start."""
    monkeypatch.setattr(four_methods, "Judged", Added)
    monkeypatch.setattr(four_methods, "load_model", lambda name: name)
    held = []
    monkeypatch.setattr(four_methods.run_histories, "check_one_start", lambda *given: held.append(given))
    forces = {(case, seed): np.ones((2, 3)) for case in (TAUGHT, "references-only", "4") for seed in (0, 1)}
    forces["4", 1] = np.zeros((2, 3))  # a trained network is another one
    forces["references-only", 1] = np.ones((2, 3)) + apart
    planned = {
        key: SimpleNamespace(split=f"split {key[1]}", model_of=lambda run: SimpleNamespace(forces=run))
        for key in forces
    }
    if not is_refused:
        assert four_methods.judge_runs(labelled_by("DFT, GPAW"), "frames", planned, forces, "base")
        assert list(held[0][0].values()) == list(planned.values())  # histories are held against each other as well
        assert list(held[0][1]) == list(forces.values())
        return
    with pytest.raises(ValueError, match=r"seed 1: forces of 'taught start' and 'references-only' are up to 1.4 meV/Å"):
        four_methods.judge_runs(labelled_by("DFT, GPAW"), "frames", planned, forces, "base")


def test_errors_are_drawn_with_their_intervals_and_the_papers_numbers():
    names = [four_methods.ZERO, "model-aware", "1", PAPERS_TABLE, four_methods.PUBLISHED]
    mean = pd.DataFrame({ENERGY: [np.nan, 40.0, 30.0, 20.0, np.nan]}, names)
    estimates = {"model-aware": Estimate(40.0, 35.0, 46.0, 9), "1": Estimate(30.0, np.nan, np.nan, 3)}
    tested = SimpleNamespace(mean=mean, names=set(names), estimate=lambda name, _: estimates.get(name))
    papers = {"energy_mae_method_1": 27, "energy_mae_4_on_the_published_table": "not given"}
    table = four_methods.errors_to_draw(tested, ENERGY, SimpleNamespace(paper=papers.get))
    assert list(table.index[:4]) == [
        "predict zero",
        "model-aware, untrained",
        "Method 1",
        "Method 4 on the published table",
    ]
    np.testing.assert_equal(table["value"].to_numpy(), [np.nan, 40, 30, 20, np.nan])
    np.testing.assert_equal(table["low"].to_numpy()[:4], [np.nan, 35, np.nan, np.nan])  # one has too few materials
    np.testing.assert_equal(table["high"].to_numpy()[:4], [np.nan, 46, np.nan, np.nan])
    assert table["trained"].tolist() == [False, False, True, True, False]  # the published one by others, elsewhere
    np.testing.assert_equal(table["paper"].to_numpy()[:4], [np.nan, np.nan, 27, np.nan])


def over_seeds(**seeds):
    """Scores of each seed: every error that of the method, in every metric."""
    methods = {"m1": "1", "m3": "3", "m4": "4", "start": four_methods.AS_IT_IS, "aware": "model-aware"}
    rows = {
        (methods[name], seed): dict.fromkeys(COLUMNS, value) | {"slope": value / 100, "cosine": value / 200}
        for name, values in seeds.items()
        for seed, value in enumerate(values)
    }
    scores = pd.DataFrame(rows).T[list(COLUMNS)]
    names, splits = {name for name, _ in rows}, dict.fromkeys(range(len(seeds["m3"])))
    return SimpleNamespace(scores=scores, names=names, splits=splits, mean=scores.groupby(level=0).mean())


def test_what_has_no_error_frame_by_frame_is_recorded_with_its_range_over_seeds():
    tested = over_seeds(m1=[100, 100], m3=[60, 90], m4=[30, 30], start=[20, 15], aware=[80, 80])
    tested.scores.loc[("1", 1), "slope"] = np.nan
    training = {("3", 0): [9, 5, 7], ("3", 1): [8, 7, 9], ("4", 0): [4, 3], ("4", 1): [2, 1]}
    training |= {(m, seed): [50, 40] for m in "12" for seed in (0, 1)}
    runs = {key: SimpleNamespace(history=pd.DataFrame({f"train_{ENERGY}": values})) for key, values in training.items()}
    results = LessonResults("04_four_methods")
    four_methods.record_over_seeds(results, tested, runs)
    found = {key: (one["value"], one["interval"]) for key, one in recorded(results).items()}
    assert found["train_energy_mae_method_1"] == (40, (40, 40))
    assert found["train_energy_mae_method_3"] == (6, (5, 7))
    assert found["train_energy_mae_method_4"] == (2, (1, 3))
    mean, ends = found["train_energy_4_minus_3"]  # of -6 and -2
    assert (mean, ends) == (-4, pytest.approx((-4 - 12.706 * 2, -4 + 12.706 * 2), rel=1e-3))
    assert recorded(results)["train_energy_4_minus_3"]["note"].startswith("2 seeds, the same training frames")
    assert found["ratio_3_to_4"] == (2.5, (2, 3))
    assert found["force_3_to_untrained"] == (4.5, (3, 6))
    assert found["force_slope_method_3"] == (pytest.approx(0.75), pytest.approx((0.6, 0.9)))
    assert found["force_cosine_method_4"] == (pytest.approx(0.15), pytest.approx((0.15, 0.15)))
    assert found["force_cosine_method_1"][0] == pytest.approx(0.5)
    assert found["force_slope_gga_model_as_it_comes"] == (pytest.approx(0.175), pytest.approx((0.15, 0.2)))
    assert "force_slope_method_1" not in found  # a seed has none
    assert recorded(results)["ratio_3_to_4"]["note"] == "mean and range of 2 seeds"


def test_one_seed_has_no_range_and_data_without_forces_none_of_their_ratios():
    tested = over_seeds(m1=[100], m3=[60], m4=[30], start=[20], aware=[61])
    tested.scores[[FORCE, "slope", "cosine"]] = np.nan
    runs = {(m, 0): SimpleNamespace(history=pd.DataFrame({f"train_{ENERGY}": [5.0]})) for m in "1234"}
    results = LessonResults("04_four_methods")
    four_methods.record_over_seeds(results, tested, runs)
    found = recorded(results)
    assert set(found) == {*(f"train_energy_mae_method_{m}" for m in "1234"), "train_energy_4_minus_3", "ratio_3_to_4"}
    assert (found["ratio_3_to_4"]["value"], found["ratio_3_to_4"]["interval"]) == (2, None)
    assert (found["train_energy_4_minus_3"]["value"], found["train_energy_4_minus_3"]["interval"]) == (0, None)
    assert found["ratio_3_to_4"]["note"] == "1 seed"


@pytest.mark.parametrize(("m3", "m4"), [(60, 30), (30, 60), (60, 60)])
def test_no_factor_is_recorded_where_a_method_ends_above_what_costs_nothing(m3, m4):
    tested = over_seeds(m1=[100], m3=[m3], m4=[m4], start=[20], aware=[60])
    runs = {(m, 0): SimpleNamespace(history=pd.DataFrame({f"train_{ENERGY}": [5.0]})) for m in "1234"}
    results = LessonResults("04_four_methods")
    four_methods.record_over_seeds(results, tested, runs)
    assert "ratio_3_to_4" not in recorded(results)


def test_scratch_is_held_against_predicting_zero_frame_by_frame(monkeypatch):
    monkeypatch.setattr(four_methods, "shown_metrics", lambda _: {ENERGY: (), FORCE: (), four_methods.STRESS: ()})
    gaps = {FORCE: -3.0, four_methods.STRESS: 0.5}

    def difference(one, other, metric):
        value = gaps[metric] if (one, other) == ("1", four_methods.ZERO) else 9.0
        return Estimate(value, value - 1, value + 1, 12)

    tested = SimpleNamespace(names={four_methods.ZERO, "1"}, difference=difference)
    results = LessonResults("04_four_methods")
    verdicts = four_methods.record_differences(results, tested)
    assert verdicts == {"force_1_minus_zero": "lower", "stress_1_minus_zero": "unclear"}
    assert recorded(results)["force_1_minus_zero"]["value"] == -3


def test_the_first_and_the_last_epoch_are_means_over_seeds():
    rows = [("4", 0, 9.0), ("4", 0, 5.0), ("4", 0, np.nan), ("4", 1, 11.0), ("4", 1, 8.0), ("4", 1, 3.0)]
    rows += [("3", 0, 100.0), ("3", 1, 100.0)]
    table = pd.DataFrame(rows, columns=["method", "seed", "validation"])
    assert four_methods.at_epoch(table, "4", 0) == 10
    assert four_methods.at_epoch(table, "4", -1) == 4  # where a seed's last epoch was validated


def test_runs_that_are_records_leave_no_models_and_later_lessons_train_their_own(tmp_path):
    results = LessonResults("04_four_methods", tmp_path)
    few = SimpleNamespace(material_ids=np.array(["a"]))
    assert four_methods.keep_models(results, SimpleNamespace(name="x"), few, {}, {}) == 0
    assert verdicts.kept_models(tmp_path, 1, "x") is None


def test_models_are_kept_for_later_lessons_with_what_they_have_seen(tmp_path):
    plain = xf.load_model("0.3.0")
    record = RecordedModel("a record", np.array([]), {}, np.array([]), np.zeros(94))
    history = pd.DataFrame({f"train_{ENERGY}": [np.nan, 9.0, 7.0]})
    run = SimpleNamespace(metrics={"test": {ENERGY: 12.0}}, history=history)
    split = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3])}
    cases = ("4", "references-only", TAUGHT, PAPERS_TABLE, AWARE, "3")
    models = dict.fromkeys(cases, plain) | {"3": record}
    planned = {(c, 2): SimpleNamespace(split=split, model_of=lambda _, model=m: model) for c, m in models.items()}
    frames = SimpleNamespace(material_ids=np.array(["b", "b", "a", "c"]))
    given = SimpleNamespace(name="mine"), frames, planned, dict.fromkeys(planned, run)
    assert four_methods.keep_models(LessonResults("04_four_methods"), *given) == 0
    assert four_methods.keep_models(LessonResults("04_four_methods", tmp_path), *given) == 4
    kept = pd.read_csv(tmp_path / "04_four_methods.models.csv")
    assert kept["file"].tolist() == [
        f"04_four_methods.method_{name}_seed_2.pt"
        for name in ("4", "references_only", "taught_start", "model_aware_then_trained")
    ]
    assert kept["method"].tolist() == ["4", "references-only", TAUGHT, AWARE]
    np.testing.assert_equal(kept[ENERGY].to_numpy(), [12, 12, np.nan, 12])
    assert {path.name for path in tmp_path.glob("*.pt")} == set(kept["file"])
    parts = pd.read_csv(tmp_path / "04_four_methods.split.csv")
    assert parts.to_numpy().tolist() == [[2, "train", "b"], [2, "validation", "a"], [2, "test", "c"]]
    found = verdicts.kept_models(tmp_path, 1, "mine")
    assert found.models == {
        ("Method 4", "2"): tmp_path / "04_four_methods.method_4_seed_2.pt",
        (AWARE, "2"): tmp_path / "04_four_methods.method_model_aware_then_trained_seed_2.pt",
    }
    assert found.seen == {"2": {"a", "b"}}
    assert found.train_mae == dict.fromkeys(found.models, 7.0)


# --- the second page of lesson 4 ---


def test_a_seeds_two_parts_are_told_apart(frames, monkeypatch, tmp_path):
    energies = {"a": 100.0, "b": 130.0, "c": 104.0}
    monkeypatch.setattr(four_methods, "evaluate", lambda model, _: {ENERGY: energies[model], FORCE: 50.0})
    runs = {("4", seed): SimpleNamespace(model=m, split={"test": np.arange(2)}) for seed, m in enumerate("ab")}
    again = {("4", 1): SimpleNamespace(model="c", split={"test": np.arange(2)})}
    spread = four_methods.spread_of_seeds(runs | {("1", 0): runs["4", 0]}, again, frames)
    assert list(spread.index) == ["Method 4"]
    of_energy = spread.loc["Method 4", "energy, meV/atom"]
    assert of_energy["splits"] == pytest.approx(30 / np.sqrt(2))
    assert of_energy["orders"] == pytest.approx(4 / np.sqrt(2))
    said = four_methods.spread_in_words(spread)
    assert "the energy error of Method 4 moves by 21.2 meV/atom from split to split and by 2.83 meV/atom from" in said
    results = LessonResults("04b_what_moved", tmp_path)
    four_methods.record_spread(results, spread)
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert found["energy_spread_orders_method_4"]["value"] == pytest.approx(4 / np.sqrt(2))
    assert found["energy_spread_splits_method_4"]["note"] == "2 runs"
    alone = four_methods.spread_of_seeds({("4", 0): runs["4", 0]}, again, frames)
    assert np.isnan(alone.loc["Method 4", ("energy, meV/atom", "splits")])
    assert "from split to split" not in four_methods.spread_in_words(alone)


def test_an_offset_is_told_from_a_scatter(frames):
    seen = predict_frames(xf.load_model("0.3.0"), frames.take(np.arange(4)))
    labels, predicted = seen.parity("energy")
    error = 1000 * (predicted - labels)
    said = four_methods.offsets_in_words({"4": seen})
    assert f"**Method 4**: energies are off by {error.mean():+,.0f} ± {error.std():,.0f} meV/atom" in said
    run_4 = SimpleNamespace(references=SimpleNamespace(energies_ev=np.full(94, -2.0)))
    points = four_methods.parity_points({"4": seen}, run_4)
    np.testing.assert_allclose(points["4", "energy"][0], labels + 2.0)
    assert points["4", "forces"][0].shape == points["4", "forces"][1].shape


def test_frames_are_counted_that_steps_have_shown():
    assert four_methods.frames_seen(100, 1, 64) == 100
    assert four_methods.frames_seen(0, 4, 10) == 0
    assert [four_methods.frames_seen(n, 4, 10) for n in (1, 2, 3, 4, 6)] == [4, 8, 10, 14, 20]
    assert four_methods.frames_seen(3, 16, 10) == 30
    history = pd.DataFrame({"step": [0, 100], "epoch": [0, 2]})
    run = SimpleNamespace(history=history, split={"train": np.arange(64)}, settings=Settings(batch_size=1), seconds=5.0)
    assert four_methods.costs({("4", 0): run}).loc["4"].tolist() == [100, 100, 5, 50]


def test_scratch_is_compared_column_by_column():
    def run(energy, force):
        return SimpleNamespace(metrics={"test": {ENERGY: energy, FORCE: force}})

    cases = {"1": (100.0, 50.0), SCRATCH_ON_GGA: (400.0, 60.0), "4": (1.0, 1.0)}
    runs = {(name, seed): run(*values) for name, values in cases.items() for seed in (0, 1)}
    after = {key: {"1": 90.0, SCRATCH_ON_GGA: 99.0, "4": 1.0}[key[0]] for key in runs}
    table = four_methods.scratch_table(runs, after)
    assert table.columns.tolist() == ["energy (meV/atom)", "energy, last refit (meV/atom)", "force (meV/Å)"]
    assert table.loc["Method 1 on GGA references"].tolist() == [400.0, 99.0, 60.0]
    said = four_methods.scratch_in_words(table)
    assert "energy 4.00, energy after a last refit 1.10 and force 1.20. So here beside energy, the error is" in said
    table.iloc[1, 2] = 40.0
    assert "no error but that of energy is larger" in four_methods.scratch_in_words(table)


def test_what_moved_is_said_beside_the_published_checkpoint():
    change = {"3": pd.DataFrame({"a": [0.01, 0.03], "b": [0.1, 0.1]}), "4": pd.DataFrame({"a": [0.02], "b": [0.01]})}
    said = four_methods.moved_in_words(change, pd.Series({"a": 0.1, "b": 0.14}))
    assert "Method 3 6 % and Method 4 1.5 %; the paper's own Method 4 12 %" in said
    assert "b in Method 3 and a in Method 4" in said


def test_what_moved_stands_beside_errors_without_and_with_a_last_refit():
    change = {"3": pd.DataFrame({"a": [0.01, 0.03], "b": [0.1, 0.1]})}
    runs = {("3", seed): SimpleNamespace(metrics={"test": {ENERGY: mae}}) for seed, mae in enumerate((300.0, 500.0))}
    table = four_methods.moved_table(change, runs, {("3", 0): 40.0, ("3", 1): 50.0})
    assert table.loc["Method 3"].to_dict() == {
        "weights moved (%)": "6",
        "most": "b",
        "energy (meV/atom)": "400",
        "energy, last refit (meV/atom)": "45",
    }


def test_an_error_after_a_last_refit_is_that_of_the_first_page(frames):
    split = {"train": np.arange(12), "test": np.arange(12, 18)}
    run, unit = SimpleNamespace(split=split), SimpleNamespace(model_of=lambda _: xf.load_model("0.3.0"))
    keys = (("4", 0), ("references-only", 0))
    found = four_methods.errors_after_refit(dict.fromkeys(keys, unit), dict.fromkeys(keys, run), frames)
    tested = Judged(frames, {0: split})
    tested.add("4", 0, xf.load_model("0.3.0"))
    assert found == {("4", 0): pytest.approx(tested.mean.loc["4", REFITTED], rel=1e-4)}


def test_runs_start_from_what_was_taught_or_from_the_model_as_it_comes():
    unit = SimpleNamespace(split={}, model_of=lambda run: run)
    planned = {(case, seed): unit for case in ("4", TAUGHT) for seed in (0, 1)}
    runs = {(TAUGHT, 0): "taught 0", (TAUGHT, 1): "taught 1", ("4", 0): "four", ("4", 1): "four"}
    base = object()
    assert four_methods.starts_of(planned, runs, base) == {0: "taught 0", 1: "taught 1"}
    assert four_methods.starts_of(planned, {("4", 0): "four"}, base) == {0: base, 1: base}


def weighing(value):
    """A network whose every block has one weight, of this value; a value for each block if it is a mapping."""
    firsts = {b: prefixes if isinstance(prefixes, str) else prefixes[-1] for b, prefixes in four_methods.BLOCKS.items()}
    values = value if isinstance(value, dict) else dict.fromkeys(firsts, value)
    named = [(f"{first}.weight", torch.tensor([float(values[b])])) for b, first in firsts.items()]
    return SimpleNamespace(named_parameters=lambda: named)


def test_how_far_blocks_moved_is_that_of_each_method_and_seed_from_its_own_start():
    starts = {0: weighing(2), 3: weighing(4)}
    ends = {("2", 0): 3, ("2", 3): 4, ("3", 0): 1, ("3", 3): 6, ("4", 0): 6, ("4", 3): 5}
    runs = {key: SimpleNamespace(last_model=weighing(value), model=None) for key, value in ends.items()}
    change = four_methods.changes_of(runs | {("1", 0): None}, starts)
    assert list(change) == ["2", "3", "4"]
    for method, of_seeds in {"2": [0.5, 0], "3": [0.5, 0.5], "4": [2, 0.25]}.items():
        assert list(change[method].index) == [0, 3]
        assert list(change[method].columns) == list(four_methods.BLOCKS)
        assert (change[method].to_numpy() == np.array(of_seeds)[:, None]).all()


def test_the_papers_own_change_is_that_between_its_two_checkpoints(monkeypatch):
    before = {block: k + 1 for k, block in enumerate(four_methods.BLOCKS)}
    after = {block: 2 * value for block, value in before.items()} | {"moments": before["moments"]}
    checkpoints = {"0.3.0": weighing(before), "r2scan": weighing(after)}
    monkeypatch.setattr(four_methods, "load_model", checkpoints.get)
    change = four_methods.published_change()
    assert change["moments"] == 0
    assert (change.drop("moments") == 1).all()
    assert list(change.index) == list(four_methods.BLOCKS)


WAYS = {"H": (-1.0, -1.5), "O": (-4.0, -6.0), "Fe": (-8.0, -5.0), "Na": (-2.0, -9.0)}
"""References of the start and of the refit, eV."""

SHOWN = {"H": 1.0, "O": 0.25, "Fe": 1.0, "Na": 0.0}
"""Share of the training frames that hold an element; nobody sees sodium."""


def walkers(moved, n_steps, rate, factor=1.0):
    """Methods 4 and 2, their start and the frames, as far as `reference_walk` looks at them."""

    def of_elements(values, otherwise=np.nan):
        return np.array([values.get(symbol, otherwise) for symbol in ELEMENT_SYMBOLS])

    start = SimpleNamespace(references_ev=of_elements({e: old for e, (old, _) in WAYS.items()}))
    aims = {e: old + factor * (new - old) for e, (old, new) in WAYS.items()}
    fit = SimpleNamespace(
        energies_ev=of_elements(aims), frames_per_element=of_elements({e: 4 * s for e, s in SHOWN.items()}, 0)
    )
    settings = Settings(learning_rate=rate, final_learning_rate_fraction=1.0, batch_size=1)
    run_4 = SimpleNamespace(references=fit, split={"train": np.arange(4)}, settings=settings)
    ends = {e: old + moved.get(e, 0) for e, (old, _) in WAYS.items()}
    run_2 = SimpleNamespace(
        last_model=SimpleNamespace(references_ev=of_elements(ends)),
        history=pd.DataFrame({"step": [0, n_steps // 2, n_steps]}),
        settings=settings,
    )
    held = np.array([of_elements({e: float(k < 4 * s) for e, s in SHOWN.items()}, 0) for k in range(4)])
    every = SimpleNamespace(take=lambda rows: SimpleNamespace(composition=csr_array(held[rows])))
    return run_4, run_2, start, every


@pytest.fixture
def of_stand_ins(monkeypatch):
    monkeypatch.setattr(four_methods, "element_references", lambda model: model.references_ev)


@pytest.mark.usefixtures("of_stand_ins")
def test_a_walk_is_measured_over_the_elements_in_training():
    moved = {"H": 0.1, "O": -0.3, "Fe": 0.2, "Na": 50.0}
    walk = four_methods.reference_walk(*walkers(moved, n_steps=100, rate=0.035))
    assert (walk["median"], walk["largest"]) == (2, 3)  # ways of 0.5, 2 and 3 eV
    assert walk["went"] == pytest.approx(0.2)
    assert walk["reach"] == pytest.approx(3.5)
    assert walk["needed"] == pytest.approx(3)  # 0.5, 3, and twice 2: a quarter of the steps shows oxygen
    assert (walk["n_elements"], walk["n_arriving"], walk["n_steps"]) == (3, 2, 100)
    assert four_methods.reference_walk(*walkers(moved, n_steps=100, rate=0.05))["n_arriving"] == 3


@pytest.mark.usefixtures("of_stand_ins")
def test_the_way_that_steps_allow_is_recorded_in_percent_with_its_range():
    run_4, run_2, start, every = walkers({}, n_steps=100, rate=0.015)
    far_4 = walkers({}, n_steps=100, rate=0.015, factor=2)[0]
    runs = {("4", 0): run_4, ("2", 0): run_2, ("4", 1): far_4, ("2", 1): run_2}
    results = LessonResults("04_four_methods")
    four_methods.record_way(results, runs, {0: start, 1: start}, every)
    found = recorded(results)["reference_way"]
    assert found["value"] == pytest.approx(37.5)  # 1.5 eV of 3, and of 6
    assert found["interval"] == pytest.approx((25, 50))
    four_methods.record_way(results, runs, {0: start}, every)
    assert recorded(results)["reference_way"]["interval"] is None


# --- lesson 5 ---


def histories(**last):
    """Force errors of a seed for each value, 10 before training, and after it as given."""
    rows = [
        {
            "start": start,
            "seed": seed,
            "epoch": epoch,
            "step": 16 * epoch,
            first_epoch.FORCE: 10.0 if epoch == 0 else values[seed],
        }
        for start, values in last.items()
        for seed in range(len(values))
        for epoch in (0, 1, 2)
    ]
    table = pd.DataFrame(rows).replace({"start": {"gga": "3", "refit": "4", "aware": "model-aware"}})
    return table.assign(**{first_epoch.ENERGY: 100.0})


def test_the_answer_follows_the_seeds():
    said = first_epoch.answer_in_words(histories(gga=[15, 16, 17], refit=[8, 9, 9], aware=[20, 25, 20]))
    assert "worse than with refitted references and better than with model-aware" in said
    assert said.endswith(", where a verdict is one that all seeds share.")
    assert "no clear verdict beside with refitted" in first_epoch.answer_in_words(
        histories(gga=[15, 8, 8], refit=[9, 9, 9], aware=[1, 1, 1])
    )
    course = first_epoch.course_in_words(histories(gga=[15, 8, 11.5], refit=[8, 9, 8.5], aware=[20, 25, 20]))
    assert "1.15 with GGA (seeds disagree), 0.85 with refitted (better for every seed)" in course
    assert "cannot tell" not in course


@pytest.mark.parametrize(("n", "few"), [(1, "one seed"), (2, "two seeds")])
def test_one_or_two_seeds_cannot_tell(n, few):
    table = histories(gga=[15, 16][:n], refit=[8, 9][:n], aware=[20, 25][:n])
    said = first_epoch.answer_in_words(table)
    assert said == (
        f"So {few} cannot tell whether forces of the run without new references are better or worse after 2 epochs "
        "than with refitted or model-aware ones."
    )
    *lines, last = first_epoch.course_in_words(table).splitlines()
    assert last == f"- {few.capitalize()} cannot tell which of these changes are more than chance."
    window = first_epoch.window_in_words(table)
    assert window.endswith(f"(32 steps). {few.capitalize()} cannot tell what an offset does to the forces.")
    assert "before training: 1.5" in window
    assert "times the error after the first epoch (16 steps), 1.5" in window
    for words in (said, *lines, window):
        assert not any(
            verdict in words for verdict in ("worse for", "better for", "worse than", "better than", "disag")
        )


@pytest.mark.parametrize(
    ("early", "late", "said"),
    [
        (
            [8, 9, 9],
            [15, 16, 16],
            "better for every seed after the first epoch (16 steps), worse for every seed after 2 epochs",
        ),
        (
            [8, 9, 9],
            [15, 16, 16],
            "(32 steps). Who stops watching after the first epoch will say that an offset does no harm",
        ),
        ([8, 9, 9], [7, 6, 6], "This window ends before any harm to the forces"),
        ([8, 12, 8], [7, 6, 6], "seeds disagree after the first epoch (16 steps), better for every seed after 2 epoch"),
        ([8, 12, 8], [7, 6, 6], "did to the forces of some seeds, the later ones made good"),
        ([12, 13, 13], [15, 16, 16], "the later ones do not make it good"),
        ([8, 12, 8], [15, 16, 16], "The harm is not clear after one epoch"),
        ([12, 13, 13], [8, 9, 9], "the later ones made good"),
        ([8, 9, 9], [15, 6, 6], "this window does not say what an offset does"),
        ([12, 13, 13], [15, 6, 6], "this window does not say what an offset does"),
    ],
)
def test_what_later_epochs_do_to_the_forces_is_said_from_the_numbers_alone(early, late, said):
    table = histories(gga=late, refit=[1, 1, 1], aware=[1, 1, 1])
    first = (table["start"] == "3") & (table["epoch"] == 1)
    table.loc[first, first_epoch.FORCE] = np.array(early, dtype=float)
    words = first_epoch.window_in_words(table)
    assert said in words
    harm = [sentence for sentence in (*first_epoch._TURNS.values(), first_epoch._NO_VERDICT) if sentence in words]
    assert len(set(harm)) == 1  # no promise beside another


def test_a_window_of_one_epoch_says_so():
    table = histories(gga=[8, 9], refit=[1, 1], aware=[1, 1])
    assert "One epoch (16 steps) was watched" in first_epoch.window_in_words(table[table["epoch"] < 2])


def test_ratios_are_geometric_means_over_the_steps_of_each_seed():
    rows = [
        {"start": start, "seed": seed, "step": step, "layer": layer, "term": "total", "norm": norm * (1 + seed)}
        for layer in first_epoch.SHOWN_LAYERS
        for seed in (0, 1)
        for step in (0, 1)
        for start, norm in (("3", 4.0 if step else 1.0), ("4", 1.0))
    ]
    ratio = first_epoch.ratio_by_layer(pd.DataFrame(rows))
    assert ratio.loc["network"].tolist() == pytest.approx([2.0, 2.0])
    assert "larger in 8 of the 8 layers, in 8 of them for every seed" in first_epoch.layers_in_words(ratio)


def test_a_factor_is_the_headline_only_below_what_costs_nothing():
    said = four_methods.headline_of_errors(judged(mmodel_aware=100.0, m3=60.0, m4=30.0))
    assert said.startswith("Without new references, 2.0 times the energy error")
    said = four_methods.headline_of_errors(judged(mmodel_aware=50.0, m3=60.0, m4=30.0))
    assert said.startswith("In energy, Method 3 ends above model-aware references")
    assert "times" not in said
    said = four_methods.headline_of_errors(judged(mmodel_aware=20.0, m3=60.0, m4=30.0))
    assert said.startswith("In energy, Method 3 and Method 4 end above")


def test_neighbours_that_cannot_be_told_apart_share_a_rank():
    of_four = judged(m1=40.0, m2=21.0, m3=20.0, m4=10.0)
    clear = {("4", "3"), ("2", "1")}
    of_four.difference = lambda one, other, _: SimpleNamespace(verdict="lower" if (one, other) in clear else "unclear")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(four_methods, "shown_metrics", lambda _: {ENERGY: ("energy", "meV/atom")})
        assert four_methods.rankings(of_four).to_dict() == {"energy": "4 < 3 = 2 < 1"}


def test_a_run_has_arrived_when_its_last_fifth_changes_little(tmp_path):
    def run(*errors):
        steps = np.arange(len(errors)) * 10
        return SimpleNamespace(history=pd.DataFrame({"step": steps, f"validation_{ENERGY}": errors}))

    runs = {("3", 0): run(100, 90, 80, 70, 60, 30), ("3", 1): run(100, 90, 80, 70, 60, 60)}
    runs |= {("4", 0): run(9, 8, 8, 8, 8, 8), ("4", 1): run(*[9] * 6), ("references-only", 0): run(5)}
    fallen = four_methods.last_fifth(runs)
    assert fallen.loc["3"].tolist() == [0.5, 0.0]
    assert fallen.loc["4"].tolist() == [0.0, 0.0]
    results = LessonResults("04_four_methods")
    said = four_methods.record_last_fifth(results, fallen)
    assert "25% (Method 3), 0% (Method 4)" in said
    assert "the errors of Method 3 measure the budget as well" in said
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert (found["last_fifth_method_3"]["value"], *found["last_fifth_method_3"]["interval"]) == (25, 0, 50)
    assert "None falls by more" in four_methods.record_last_fifth(LessonResults("04_four_methods"), fallen.loc[["4"]])
    runs["3", 1] = run(100, 90, 80)  # one seed of two is no mean
    fallen = four_methods.last_fifth(runs)
    assert fallen.index.tolist() == ["4"]
    nothing = LessonResults("04_four_methods")
    said = four_methods.record_last_fifth(nothing, four_methods.last_fifth({("3", 0): run(100, 90, 80)}))
    assert said == "No method's runs were all validated 5 times, so whether they have arrived cannot be said."
    assert nothing.to_dict()["results"] == []


def test_errors_and_norms_at_the_start_are_those_of_each_start():
    errors = dict(zip(first_epoch.STARTS, (5e3, 600.0, 60.0), strict=True))
    before = {key: {"energy_mae_mev_per_atom": e, "force_mae_mev_per_a": 70.0} for key, e in errors.items()}
    table = first_epoch.errors_at_start(before)
    assert table["energy MAE (meV/atom)"].tolist() == [5e3, 600, 60]
    assert list(table.index) == list(first_epoch.STARTS.values())
    rows = [
        {"start": start, "term": "energy", "layer": "network", "seed": s, "step": t, "norm": 10 * k + s + 100 * t}
        for k, start in enumerate(first_epoch.STARTS)
        for s in (0, 2)
        for t in (0, 1)
    ]
    assert list(first_epoch.norms_at_start(pd.DataFrame(rows), "energy").values()) == [1, 11, 21]


def test_norms_are_those_of_one_start_and_one_term():
    rows = [("3", "energy", "network", 0, 5, 2.0), ("3", "forces", "network", 0, 5, 9.0)]
    rows += [("4", "energy", "network", 0, 5, 8.0), ("3", "energy", "AtomEmb", 1, 7, 4.0)]
    records = pd.DataFrame(rows, columns=["start", "term", "layer", "seed", "step", "norm"])
    norms = first_epoch.norms_of(records, "3", "energy")
    assert norms.to_dict() == {("network", 0, 5): 2, ("AtomEmb", 1, 7): 4}
    assert norms.index.names == ["layer", "seed", "step"]


def test_predicting_zero_errs_by_the_validation_labels_where_there_are_any():
    frames = small_frames(6, max_atoms=2)
    n_atoms = len(frames.crystals.atomic_numbers)
    forces = np.full((n_atoms, 3), [0.1, -0.3, 0.2], np.float32)
    forces[frames.crystals.owners == 0] = 5.0
    split = {"train": np.array([0]), "validation": np.arange(1, 6)}
    assert first_epoch.zero_force(with_labels(frames, forces_ev_per_a=forces), split) == pytest.approx(200)
    assert np.isnan(first_epoch.zero_force(with_labels(frames, forces_ev_per_a=np.nan * forces), split))


PULLS = pd.DataFrame(
    {"saturated": [1.0, 0.75, 0.25], "same direction": [0.9, 0.6, 0.0]}, index=list(first_epoch.STARTS.values())
)


def test_pulls_are_recorded_in_percent_and_what_cancels_is_the_rest():
    results = LessonResults("05_gradient_diagnostics")
    first_epoch.record_pulls(results, PULLS)
    assert {key: one["value"] for key, one in recorded(results).items()} == pytest.approx(
        {"saturated_gga": 100, "saturated_refit": 75, "saturated_aware": 25}
        | {"coherence_gga": 90, "coherence_refit": 60, "coherence_aware": 0}
    )
    assert first_epoch.pulls_in_words(PULLS) == (
        "On the plateau lie 100% with GGA, 75% with refitted and 25% with model-aware references. Of the pull of all "
        "frames together, 10% with GGA, 40% with refitted and 100% with model-aware references cancels."
    )


def test_layers_are_counted_in_the_mean_where_it_is_clear_and_where_it_may_be():
    layers = [[2.0, 2.0]] * 3 + [[3.0, 0.5]] * 2 + [[1.2, 0.5]] + [[0.5, 0.5]] * 2
    ratio = pd.DataFrame([*layers, [4.0, 2.0]], index=list(first_epoch.SHOWN_LAYERS))
    results = LessonResults("05_gradient_diagnostics")
    first_epoch.record_ratios(results, ratio)
    found = {key: (one["value"], one["interval"], one["note"]) for key, one in recorded(results).items()}
    assert found["gradient_ratio"] == (3, (2, 4), "geometric mean over the epoch; range over 2 seeds")
    assert found["layers_with_larger_gradient"][:2] == (5, (3, 6))
    first_epoch.record_ratios(results, ratio[[0]])
    assert recorded(results)["gradient_ratio"]["note"].endswith("range over 1 seed")
    assert [(one["value"], one["interval"]) for one in recorded(results).values()] == [(4, None), (6, None)]


def test_shares_of_loss_and_gradient_are_recorded_by_start():
    table = pd.DataFrame({"loss": [90.0, 50.0, 10.0], "gradient": [80.0, 40.0, 20.0]}, index=list(first_epoch.STARTS))
    results = LessonResults("05_gradient_diagnostics")
    first_epoch.record_shares(results, table)
    assert {key: one["value"] for key, one in recorded(results).items()} == {
        f"energy_share_of_{what}_{short}": value
        for what, values in (("loss", (90, 50, 10)), ("gradient", (80, 40, 20)))
        for short, value in zip(("gga", "refit", "aware"), values, strict=True)
    }


def cosines(**highest):
    """Cosines of each start: with the forces 0.1, 0.2 and 0.3 in the mean, energy against forces up to a highest."""
    pairs = ("energy and forces", "whole and energy", "whole and forces")
    columns = pd.MultiIndex.from_product([pairs, ("mean", "min", "max")])
    rows = [
        [high - 0.2, high - 0.4, high, 0.9, 0.8, 1.0, mean, mean - 0.05, mean + 0.5]
        for high, mean in zip(highest.values(), (0.1, 0.2, 0.3), strict=True)
    ]
    return pd.DataFrame(rows, list(first_epoch.STARTS), columns)


def test_angles_are_recorded_with_their_range_over_batches():
    table = cosines(gga=-0.1, refit=0.0, aware=0.4)
    results = LessonResults("05_gradient_diagnostics")
    first_epoch.record_angles(results, table, 4)
    found = recorded(results)
    assert len(found) == 6
    assert found["cosine_energy_and_forces_gga"]["value"] == pytest.approx(-0.3)
    assert found["cosine_energy_and_forces_gga"]["interval"] == pytest.approx((-0.5, -0.1))
    assert found["cosine_whole_and_forces_aware"]["value"] == pytest.approx(0.3)
    assert found["cosine_whole_and_forces_aware"]["interval"] == pytest.approx((0.25, 0.8))
    assert found["cosine_whole_and_forces_refit"]["note"] == "whole network; range over 4 batches"
    first_epoch.record_angles(results, table, 1)
    assert {one["interval"] for one in recorded(results).values()} == {None}


def test_energy_and_forces_oppose_each_other_only_where_every_batch_says_so():
    said = first_epoch.angles_in_words(cosines(gga=-0.1, refit=0.0, aware=-0.2))
    assert said == (
        "Energy and forces oppose each other in every batch with GGA and model-aware references. The cosine of the "
        "whole gradient with that of the forces is +0.10 with GGA, +0.20 with refitted and +0.30 with model-aware "
        "references."
    )
    said = first_epoch.angles_in_words(cosines(gga=0.1, refit=0.1, aware=0.1))
    assert said.startswith("From no start do energy and forces oppose each other in every batch. The cosine")


def test_a_cosine_has_a_sign_and_reads_as_one_only_where_it_is():
    assert [first_epoch.cosine_text(value) for value in (0.324, -0.5, 1.0, 0.9996)] == [
        *("+0.32", "-0.50", "+1.00"),
        "+0.9996",
    ]


def test_force_errors_are_held_against_those_of_their_own_seed_and_start():
    table = histories(gga=[15, 20], refit=[8, 9], aware=[10, 5])
    table.loc[(table["start"] == "3") & (table["seed"] == 1) & (table["epoch"] == 0), first_epoch.FORCE] = 5.0
    table.loc[(table["start"] == "4") & (table["epoch"] == 2), first_epoch.FORCE] = 40.0
    times = first_epoch.times_force(table, 1)
    assert list(times.index) == ["3", "4", "model-aware"]
    assert times.to_numpy().tolist() == [[1.5, 4.0], [0.8, 0.9], [1.0, 0.5]]
    assert first_epoch.times_force(table, 2).loc["4"].tolist() == [4.0, 4.0]
    results = LessonResults("05_gradient_diagnostics")
    first_epoch.record_forces(results, table)
    found = {key: (one["value"], one["interval"], one["note"]) for key, one in recorded(results).items()}
    assert found["force_change_gga"] == (pytest.approx(175), pytest.approx((50, 300)), "range over 2 seeds")
    assert found["force_change_refit"][:2] == (pytest.approx(-15), pytest.approx((-20, -10)))
    assert found["force_after_epochs_refit"][:2] == (4, (4, 4))
    assert found["force_after_epochs_aware"][:2] == (0.75, (0.5, 1))
    assert recorded(results)["force_after_epochs_gga"]["title"].startswith("Validation force error after 2 epochs")
    first_epoch.record_forces(results, table[table["seed"] == 0])
    assert {one["interval"] for one in recorded(results).values()} == {None}
    assert recorded(results)["force_change_aware"]["note"] == "range over 1 seed"
