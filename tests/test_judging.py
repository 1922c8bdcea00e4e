"""Models side by side: errors of several seeds, intervals over materials and differences in pairs."""

import numpy as np
import pytest

from crossfunc.datasets import open_dataset
from crossfunc.lessons import LessonResults, four_methods
from crossfunc.lessons.judging import ENERGY, FORCE, MAGMOM, REFITTED, STRESS, Judged, short_name
from crossfunc.potential import load_model
from crossfunc.training import LabelledFrames, evaluate


@pytest.fixture(scope="module")
def judged():
    every = LabelledFrames.from_dataset(open_dataset("surrogate"))
    small = np.flatnonzero(every.labelled("forces") & np.isin(every.crystals.n_atoms, (2, 4)))
    frames = every.take(small[::8])
    even, odd = np.arange(len(frames))[::2], np.arange(len(frames))[1::2]  # both halves hold most of the elements
    splits = {0: {"train": even, "test": odd}, 1: {"train": odd, "test": even}}
    table = Judged(frames, splits)
    for seed in splits:
        table.add("GGA", seed, load_model("0.3.0"))
        table.add("labeller", seed, load_model("r2scan"))
    table.add_zero("predict zero")
    return table


def test_errors_are_those_of_evaluate(judged):
    expected = evaluate(load_model("0.3.0"), judged.frames, rows=judged.splits[0]["test"])
    for metric in (ENERGY, FORCE, STRESS):
        assert judged.scores.loc[("GGA", 0), metric] == pytest.approx(expected[metric])


def test_a_last_refit_takes_the_offset_out_and_leaves_forces(judged):
    mean = judged.scores.groupby(level=0).mean()
    assert mean.loc["GGA", REFITTED] < 0.8 * mean.loc["GGA", ENERGY]  # few frames: not all elements are among them
    assert mean.loc["GGA", "slope"] == pytest.approx(1.0, abs=0.6)
    assert mean.loc["labeller", "cosine"] == pytest.approx(1.0, abs=1e-3)


def test_the_labeller_is_clearly_ahead_and_nothing_is_ahead_of_itself(judged):
    assert judged.difference("labeller", "GGA", ENERGY).verdict == "lower"
    assert judged.difference("GGA", "labeller", FORCE).verdict == "higher"
    same = judged.difference("GGA", "GGA", ENERGY)
    assert (same.value, same.verdict) == (0.0, "unclear")


@pytest.mark.parametrize("metric", [ENERGY, REFITTED, FORCE, STRESS, MAGMOM])
@pytest.mark.parametrize("name", ["GGA", "predict zero"])
def test_an_estimate_holds_the_mean_over_the_seeds(judged, name, metric):
    e, mean = judged.estimate(name, metric), judged.scores.loc[name][metric].mean()
    if name == "predict zero" and metric in (ENERGY, REFITTED):
        assert e is None
    else:
        assert e.low < e.value < e.high
        assert e.value == pytest.approx(mean, rel=1e-6)  # the number of the table, in the middle of its interval


def test_a_mean_over_seeds_is_that_of_all_of_them(judged):
    few = Judged(judged.frames, judged.splits)
    few._rows = {("one", 0): {ENERGY: 0.1, FORCE: 1.0}, ("one", 1): {FORCE: 3.0}, ("other", 1): {FORCE: 2.0}}
    assert np.isnan(few.mean.loc["one", ENERGY])
    assert few.mean.loc["one", FORCE] == 2
    assert np.isnan(few.mean.loc["other", FORCE])
    assert list(few.mean.index) == ["one", "other"]
    assert list(four_methods.shown_metrics(few)) == [FORCE]
    results = LessonResults("04_four_methods")
    few._rows = {(one, s): {ENERGY: 0.1, FORCE: [0.1, None][s]} for one in "12" for s in (0, 1)}
    four_methods.record_errors(results, few, "2 seeds")
    assert [one["key"] for one in results.to_dict()["results"]] == ["energy_mae_method_1", "energy_mae_method_2"]


def test_predicting_zero_has_no_energy(judged):
    rows = judged.scores.loc["predict zero"]
    assert rows[ENERGY].isna().all()
    assert (rows[FORCE] > 0).all()


def test_names_of_results():
    assert short_name("4") == "method_4"
    assert short_name("model-aware, then trained") == "model_aware_then_trained"
    assert short_name("published r²SCAN checkpoint") == "published_r_scan_checkpoint"  # keys are plain letters
