"""What pages say in words of kept runs is so in their numbers: a run that is kept anew cannot leave a false sentence.

Each check names the sentence that it holds; one whose sentence is not on the page any more fails as well.
"""

import json
from itertools import pairwise

import pandas as pd
import pytest
import yaml

from crossfunc.lessons.run_histories import STILL_FALLING
from crossfunc.lessons.verdicts import FITTED_MEV_PER_ATOM

METHODS = "1234"
LITTLE = 0.1
"""A change by less than this share is "little", or "nearly the same"."""
KNOWS_FORCES = 0.8
"""A model with more than this share of the force error of predicting zero has learned hardly any."""


class Kept:
    """Numbers of one kept run: `value`, `low` and `high` of a key, and what it was made with."""

    def __init__(self, root, profile, lesson):
        folder = root / "book" / "kept" / profile
        content = json.loads((folder / f"{lesson}.json").read_text(encoding="utf-8"))
        self.rows = {row["key"]: row for row in content["results"]}
        self.parameters = json.loads((folder / f"{lesson}.run.json").read_text(encoding="utf-8"))["parameters"]
        self.folder, self.lesson = folder, lesson

    def value(self, key):
        return self.rows[key]["value"]

    def low(self, key):
        return self.rows[key]["interval"][0]

    def high(self, key):
        return self.rows[key]["interval"][1]

    def table(self, name):
        return pd.read_csv(self.folder / f"{self.lesson}.{name}.csv")


@pytest.fixture(scope="module")
def four(root):
    return Kept(root, "converged", "04_four_methods")


@pytest.fixture(scope="module")
def moved(root):
    return Kept(root, "converged", "04b_what_moved")


@pytest.fixture(scope="module")
def curves(root):
    return Kept(root, "long", "07_scaling_laws")


@pytest.fixture(scope="module")
def papers(root):
    declared = yaml.safe_load((root / "notebooks" / "results.yml").read_text(encoding="utf-8"))["04_four_methods"]
    return {key: row["paper"] for key, row in declared.items() if "paper" in row}


def of_the_paper(papers, quantity):
    return {m: papers[f"{quantity}_mae_method_{m}"] for m in METHODS}


def is_best(run, quantity):
    errors = {m: run.value(f"{quantity}_mae_method_{m}") for m in METHODS}
    return min(errors, key=errors.get) == "4"


LONG_RUN = {
    "20,000 steps of one frame, on our own {term}`DFT`, with three seeds": lambda four, **_: (
        (four.parameters["max_steps"], four.parameters["batch_size"], four.parameters["n_seeds"]) == (20000, 1, 3)
    ),
    "validation has long been flat: what is left is not a lack of steps": lambda four, **_: all(
        four.value(f"last_fifth_method_{m}") < 100 * STILL_FALLING for m in METHODS
    ),
    "until every method has fitted its training frames": lambda four, **_: all(
        four.value(f"train_energy_mae_method_{m}") < LITTLE * four.value(f"energy_mae_method_{m}") for m in METHODS
    ),
    "The energy error of Method 4 is lower than that of each of the others": lambda four, **_: all(
        four.high(f"energy_4_minus_{m}") < 0 for m in "321"
    ),
    "A last refit of every network's references changes little of that": lambda four, **_: (
        abs(four.value("refitted_4_minus_3") / four.value("energy_4_minus_3") - 1) < LITTLE
    ),
    "what Methods 2 and 3 have got wrong by then is no offset": lambda four, **_: all(
        four.value(f"refitted_energy_mae_method_{m}") > (1 - LITTLE) * four.value(f"energy_mae_method_{m}")
        for m in "23"
    ),
    "training makes forces worse than no training**, and these steps do not bring them back": lambda four, **_: all(
        four.low(f"force_{m}_minus_untrained") > 0 for m in "23"
    ),
    "Adam would let its references go": lambda four, **_: four.value("reference_way") < 100,
    "**Method 2 is no way out.**": lambda four, moved, **_: (
        moved.value("reference_shift_method_2") < LITTLE * moved.value("reference_shift_needed")
        and four.low("energy_mae_method_2") > four.high("energy_mae_model_aware")
    ),
    "the network takes an offset up sooner": lambda four, moved, **_: (
        100 * moved.value("reference_shift_method_2") / moved.value("reference_shift_needed")
        < four.value("reference_way")
    ),
    "less than any of the four methods": lambda four, **_: all(
        four.high("energy_mae_model_aware") < four.low(f"energy_mae_method_{m}") for m in METHODS
    ),
    "The training materials of such a run are fewer than a hundred": lambda four, **_: (
        (split := four.table("split"))[split["part"] == "train"].groupby("seed")["material_id"].nunique().max() < 100
    ),
    "The order is the paper's at the top only.": lambda four, papers, **_: (
        is_best(four, "energy")
        and is_best(four, "force")
        and not all(
            four.value(f"energy_mae_method_{one}") <= four.value(f"energy_mae_method_{other}")
            for one, other in pairwise(sorted(METHODS, key=of_the_paper(papers, "energy").get))
        )
    ),
    "There naive transfer and scratch come to the same energy error": lambda papers, **_: all(
        abs(papers[f"energy_mae_method_{m}"] - papers["energy_mae_method_1"]) <= 1 for m in "23"
    ),
    "and in forces scratch is ahead of naive transfer": lambda papers, **_: all(
        papers["force_mae_method_1"] < papers[f"force_mae_method_{m}"] for m in "23"
    ),
    "Here scratch is behind Method 4 in energy and has learned hardly any forces": lambda four, **_: (
        four.high("energy_4_minus_1") < 0
        and four.value("force_mae_method_1") > KNOWS_FORCES * four.value("force_mae_predict_zero")
    ),
    "yet naive transfer is behind scratch in energy": lambda four, **_: four.low("energy_3_minus_1") > 0,
    "*which* materials are drawn, for training and for the test, matters more than their order": (
        lambda moved, **_: (
            moved.value("energy_spread_splits_method_4") > 2 * moved.value("energy_spread_orders_method_4")
        )
    ),
    "and Method 4 does not reach it with the largest training set either": lambda curves, **_: (
        curves.low("energy_largest_transfer") > curves.value("energy_n0_model_aware")
    ),
    "They fall from {result}`07_scaling_laws:force_n0_refitted@long` without training": lambda curves, **_: (
        curves.value("force_largest_transfer") < curves.value("force_n0_refitted")
    ),
    "Beyond that the curve is nearly flat, and the interval of its exponent holds zero": lambda curves, **_: (
        curves.low("force_exponent_transfer") < 0 < curves.high("force_exponent_transfer")
    ),
    "and at the smaller ones it is larger still": lambda curves, **_: bool(
        (mean := force_of_scratch(curves)).iloc[:-1].min() > mean.iloc[-1]
    ),
}
"""Sentences of the page on longer runs, and what has to be so in the kept numbers."""


def force_of_scratch(curves):
    runs = curves.table("runs")
    return runs[runs["method"] == "scratch"].groupby("n")["validation_force_mae_mev_per_a"].mean()


@pytest.mark.parametrize("sentence", LONG_RUN)
def test_what_the_page_on_longer_runs_says_is_so_in_the_kept_numbers(root, four, moved, curves, papers, sentence):
    page = (root / "book" / "long_run.md").read_text(encoding="utf-8")
    assert sentence in page, "the sentence is gone: take its check along"
    assert LONG_RUN[sentence](four=four, moved=moved, curves=curves, papers=papers), f"not so any more: {sentence}"


def test_a_kept_run_with_other_numbers_would_fail_the_sentences(four, papers):
    """A check that cannot fail holds nothing: with the sign of every difference turned, those of order fall."""
    turned = Kept.__new__(Kept)
    turned.rows = {
        key: row | {"value": -row["value"], "interval": row["interval"] and [-row["interval"][1], -row["interval"][0]]}
        for key, row in four.rows.items()
    }
    of_order = "The energy error of", "training makes forces", "Here scratch", "yet naive transfer", "less than any"
    sentences = [sentence for sentence in LONG_RUN if sentence.startswith(of_order)]
    assert len(sentences) == len(of_order)
    assert not any(LONG_RUN[one](four=turned, moved=None, curves=None, papers=papers) for one in sentences)


def test_lesson_4_says_how_long_the_kept_run_beside_it_was(root, four):
    lesson = (root / "notebooks" / "04_four_methods.py").read_text(encoding="utf-8")
    assert "executed once with 20,000 steps per run and three seeds, and kept" in lesson
    assert (four.parameters["max_steps"], four.parameters["n_seeds"]) == (20000, 3)


def test_lesson_6_says_how_many_seeds_the_kept_run_has(root):
    lesson = (root / "notebooks" / "06_hull_workflow.py").read_text(encoding="utf-8")
    assert "The rendered page has one seed" in lesson
    assert "n_seeds = 1 " in lesson
    assert "the kept run on our own DFT, whose verdicts stand in {doc}`../claims`, has two" in lesson
    assert Kept(root, "dft", "06_hull_workflow").parameters["n_seeds"] == 2


def test_on_our_own_dft_a_method_that_has_not_fitted_its_training_energies_is_said_to_give_no_verdict(root):
    page = (root / "book" / "claims.md").read_text(encoding="utf-8")
    assert "a method that has not come down to its own training energies by then gives none" in page
    run = Kept(root, "dft", "06_hull_workflow")
    assert all(run.value(f"train_energy_mae_method_{k}") > FITTED_MEV_PER_ATOM for k in METHODS)


def test_on_our_own_dft_compounds_fall_apart_into_their_elements(root):
    page = (root / "book" / "claims.md").read_text(encoding="utf-8")
    assert "mostly formation energies, and both columns of that run say nearly the same" in page
    run = Kept(root, "dft", "06_hull_workflow")
    for k in METHODS:
        decomposition, formation = (run.value(f"{what}_mae_method_{k}") for what in ("decomposition", "formation"))
        assert decomposition == pytest.approx(formation, rel=0.1)
