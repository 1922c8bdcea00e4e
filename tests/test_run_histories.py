"""Runs of one comparison began with one network, and how far they still fall is told by their histories."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_frames import small_frames

from crossfunc.lessons import run_histories
from crossfunc.lessons.sources import LessonError
from crossfunc.training.units import Unit

ROWS, OTHER_ROWS = np.arange(3), np.arange(3, 6)


def unit(name, method="4", start=None, rows=ROWS, frames=None):
    split = {"train": np.arange(9, 12), "validation": rows}
    return Unit(name=name, method=method, seed=0, split=split, start=start, frames=frames)


def run(force, column="validation_force_mae_mev_per_a"):
    return SimpleNamespace(history=pd.DataFrame({column: [force, 50.0], "step": [0, 10]}))


START = unit("taught-start-seed0", "model-aware")


def check(*pairs):
    units = {one.name: one for one, _ in pairs}
    run_histories.check_one_start(units, [run(force) for _, force in pairs])


def test_units_of_one_start_with_other_forces_before_training_are_refused():
    references = unit("untrained-refitted-seed0", "references-only", START)
    with pytest.raises(LessonError) as refusal:
        check((references, 110.0), (unit("transfer-n8-seed0", start=START), 110.0), (unit("b", start=START), 110.3))
    said = str(refusal.value)
    assert "units 'untrained-refitted-seed0' and 'b'" in said
    assert "110 and 110.3 meV/Å" in said
    assert "the start 'taught-start-seed0'" in said
    assert "Delete all units that begin with 'taught-start-seed0'" in said
    assert "on one machine" in said


def test_units_of_the_pretrained_model_are_held_against_each_other_too():
    with pytest.raises(LessonError, match="both say that they begin with the pretrained model"):
        check((unit("a"), 110.0), (unit("b", "model-aware"), 120.0))


def test_units_that_need_not_agree_are_not_held_against_each_other():
    low = small_frames(3)
    check(
        (unit("transfer", start=START), 110.0),
        (unit("as published"), 150.0),  # begins with the pretrained model
        (unit("scratch", "1"), 300.0),
        (unit("another seed", start=unit("taught-start-seed1", "model-aware")), 120.0),
        (unit("other frames", start=START, rows=OTHER_ROWS), 130.0),
        (unit("other labels", "model-aware", frames=low), 140.0),
        (unit("rounding", start=START), 110.0 + 0.1 * run_histories.SAME_MEV_PER_A),
        (unit("computed by PyTorch", "delta", start=START), 110.012),
    )
    with pytest.raises(LessonError, match="began with different networks"):
        check((unit("transfer", start=START), 110.0), (unit("by the library", "lora", start=START), 110.012))
    with pytest.raises(LessonError, match="began with different networks"):
        check((unit("transfer", start=START), 110.0), (unit("by PyTorch", "delta", start=START), 110.1))


def test_data_without_forces_have_nothing_to_differ_in():
    run_histories.check_one_start({"a": unit("a")}, [run(1.0, "validation_energy_mae_mev_per_atom")])


def test_the_last_fifth_begins_with_the_last_validation_of_the_first_four():
    history = pd.DataFrame({"step": np.arange(6) * 10, "validation_x": [100.0, 90, 80, 70, 60, 30]})
    assert run_histories.last_fifth(history, "x") == 0.5
    assert run_histories.last_fifth(history.assign(validation_x=[1.0] * 5 + [2.0]), "x") == -1
    later = history.iloc[1:]  # without a row before the first step
    assert run_histories.last_fifth(later, "x") == 0.5
    assert np.isnan(run_histories.last_fifth(history.iloc[:1], "x"))
    assert np.isnan(run_histories.last_fifth(history.assign(validation_x=np.nan), "x"))


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_run_that_was_looked_at_too_seldom_has_no_last_fifth(n):
    """Six epochs with a look every two, as lesson 9 has them by default, would compare the end with two thirds."""
    history = pd.DataFrame({"step": np.arange(n + 1) * 20, "validation_x": 100.0 - np.arange(n + 1)})
    assert np.isnan(run_histories.last_fifth(history, "x"))
    unlabelled = pd.DataFrame({"step": np.arange(8) * 20, "validation_x": [9.0] * (n + 1) + [np.nan] * (7 - n)})
    assert np.isnan(run_histories.last_fifth(unlabelled, "x"))
