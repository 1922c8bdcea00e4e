"""Lesson 4's and 5's tables: who is compared with whom, what moved, and sentences that say what the numbers say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import crossfunc as xf
from crossfunc.datasets import open_dataset
from crossfunc.lessons import LessonResults, first_epoch, four_methods
from crossfunc.lessons.judging import ENERGY, FORCE, REFITTED, Judged
from crossfunc.lessons.units import (
    SCRATCH_ON_GGA,
    TAUGHT,
    method_splits,
    of_known_elements,
    usable_frames,
    watched_split,
)
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.training.evaluate import predict_frames
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
    walk = {"median": 2.0, "largest": 5.0, "went": 0.1, "n_steps": 100, "reach": 1.0, "needed": 3.0, "n_elements": 10}
    assert "its steps do not reach" in four_methods.walk_in_words(walk | {"n_arriving": 4})
    assert "enough for most elements" in four_methods.walk_in_words(walk | {"n_arriving": 9})
    assert "no want of budget" in four_methods.walk_in_words(walk | {"n_arriving": 10})


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
    table = four_methods.start_errors({TAUGHT: xf.load_model("0.3.0")}, low, frames, ("PBE", "r²SCAN"))
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
    assert {len(e) for e in (*found.before.values(), *found.after.values())} == {len(found.material_ids)}
    assert 0 < len(found.material_ids) <= 60


def test_what_a_harder_split_costs_is_paired_and_said(tmp_path):
    ids = np.array([f"m{k}" for k in range(12)])
    easy = np.linspace(0.01, 0.03, 12)
    after = {
        "by material": easy,
        "leave composition out": easy + np.linspace(0.015, 0.025, 12),
        "leave prototype out": easy[::-1],
    }
    found = four_methods.split_estimates(four_methods.FrozenErrors(ids, dict.fromkeys(after, easy), after))
    assert found["leave composition out"][2].value == pytest.approx(20)
    assert found["leave composition out"][2].interval == pytest.approx((20, 20), abs=3)
    said = four_methods.splits_in_words(found)
    assert said.startswith(
        "Beside the split *by material*, *leave composition out* costs 20.0 ± 1.8 meV/atom and whether "
    )
    assert "*leave prototype out* costs more is unclear (" in said
    table = four_methods.split_table(found)
    assert table.loc["by material"].iloc[-1] == "–"
    assert table.columns[-1] == "more than by material"
    results = LessonResults("04_four_methods", tmp_path)
    four_methods.record_splits(results, found)
    recorded = {one["key"]: one for one in results.to_dict()["results"]}
    assert recorded["split_leave_composition_out_rise"]["value"] == pytest.approx(20)
    assert "split_by_material_rise" not in recorded


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

    runs = {("4", 0): run([0, 4, 8, 9]), ("4", 1): run([0, 4, 7]), ("3", 0): run([0, 4])}
    table = four_methods.histories(runs, ENERGY)
    assert table[table["method"] == "4"].groupby("seed")["epoch"].apply(list).tolist() == [[0, 4, 8], [0, 4, 8]]
    assert table[table["method"] == "3"]["epoch"].tolist() == [0, 4]


def test_lines_of_what_costs_nothing_are_means_over_seeds(frames):
    def run(energy, force, rows):
        history = pd.DataFrame([{f"validation_{ENERGY}": energy, f"validation_{FORCE}": force}])
        return SimpleNamespace(history=history, split={"validation": np.array(rows)})

    runs = {("references-only", 0): run(600.0, 70.0, [0, 1]), ("references-only", 1): run(400.0, 90.0, [2])}
    runs |= {("model-aware", 0): run(80.0, 70.0, [0, 1])}
    energies, forces = four_methods.free_histories(runs, frames).values()
    assert energies == {"references-only, untrained": 500.0, "model-aware, untrained": 80.0}
    by_hand = [np.abs(frames.take(np.array(rows)).forces_ev_per_a).mean() for rows in ([0, 1], [2])]
    assert forces == {"untrained": 80.0, "predict zero": pytest.approx(1000 * np.mean(by_hand))}


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


def test_scratch_is_compared_column_by_column():
    def run(energy, force):
        return SimpleNamespace(metrics={"test": {ENERGY: energy, FORCE: force}})

    cases = {"1": (100.0, 50.0), SCRATCH_ON_GGA: (400.0, 60.0), "4": (1.0, 1.0)}
    runs = {(name, seed): run(*values) for name, values in cases.items() for seed in (0, 1)}
    table = four_methods.scratch_table(runs)
    assert table.columns.tolist() == ["energy (meV/atom)", "force (meV/Å)"]
    assert table.loc["Method 1 on GGA references"].tolist() == [400.0, 60.0]
    said = four_methods.scratch_in_words(table)
    assert "energy 4.00 and force 1.20. So here beside energy, the error is larger in force;" in said
    table.iloc[1, 1] = 40.0
    assert "no error but that of energy is larger" in four_methods.scratch_in_words(table)


def test_what_moved_is_said_beside_the_published_checkpoint():
    change = {"3": pd.DataFrame({"a": [0.01, 0.03], "b": [0.1, 0.1]}), "4": pd.DataFrame({"a": [0.02], "b": [0.01]})}
    said = four_methods.moved_in_words(change, pd.Series({"a": 0.1, "b": 0.14}))
    assert "Method 3 6 % and Method 4 1.5 %; the paper's own Method 4 12 %" in said
    assert "b in Method 3 and a in Method 4" in said


def test_runs_start_from_what_was_taught_or_from_the_model_as_it_comes():
    unit = SimpleNamespace(split={}, model_of=lambda run: run)
    planned = {(case, seed): unit for case in ("4", TAUGHT) for seed in (0, 1)}
    runs = {(TAUGHT, 0): "taught 0", (TAUGHT, 1): "taught 1", ("4", 0): "four", ("4", 1): "four"}
    base = object()
    assert four_methods.starts_of(planned, runs, base) == {0: "taught 0", 1: "taught 1"}
    assert four_methods.starts_of(planned, {("4", 0): "four"}, base) == {0: base, 1: base}


# --- lesson 5 ---


def histories(**last):
    """Force errors of two seeds, 10 before training, and after it as given."""
    rows = [
        {"start": start, "seed": seed, "epoch": epoch, first_epoch.FORCE: 10.0 if epoch == 0 else values[seed]}
        for start, values in last.items()
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    table = pd.DataFrame(rows).replace({"start": {"gga": "3", "refit": "4", "aware": "model-aware"}})
    return table.assign(**{first_epoch.ENERGY: 100.0})


def test_the_answer_follows_the_seeds():
    said = first_epoch.answer_in_words(histories(gga=[15, 16], refit=[8, 9], aware=[20, 25]))
    assert "worse than with refitted references and better than with model-aware" in said
    assert "no clear verdict beside with refitted" in first_epoch.answer_in_words(
        histories(gga=[15, 8], refit=[9, 9], aware=[1, 1])
    )
    course = first_epoch.course_in_words(histories(gga=[15, 8], refit=[8, 9], aware=[20, 25]))
    assert "1.15 with GGA (seeds disagree), 0.85 with refitted (better for every seed)" in course


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
