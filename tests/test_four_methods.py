"""Lesson 4's and 5's tables: who is compared with whom, what moved, and sentences that say what the numbers say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import crossfunc as xf
from crossfunc.datasets import open_dataset
from crossfunc.lessons import first_epoch, four_methods
from crossfunc.lessons.judging import ENERGY, FORCE, REFITTED
from crossfunc.lessons.units import TAUGHT, method_splits, of_known_elements, usable_frames, watched_split
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
    walk = {"median": 2.0, "largest": 5.0, "went": 0.1, "n_steps": 100}
    assert "its steps do not reach" in four_methods.walk_in_words(walk | {"reach": 0.05})
    assert "enough for most elements" in four_methods.walk_in_words(walk | {"reach": 3.0})
    assert "no want of budget" in four_methods.walk_in_words(walk | {"reach": 6.0})


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


def test_splits_hold_out_what_they_say(dft, frames):
    found = four_methods.ways_to_hold_out(frames, dft.pairs)
    formula = np.array([frames.crystals.formula(k) for k in range(len(frames))])
    parts = found["leave composition out"]
    assert not set(formula[parts["train"]]) & set(formula[parts["test"]])
    assert {"by material", "leave composition out"} <= set(found)


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
