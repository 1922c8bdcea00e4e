"""Units of a lesson that the checkout keeps: taken where a lesson would make the same, and only there."""

from dataclasses import replace
from pathlib import Path

import pytest

from crossfunc.lessons import kept_units
from crossfunc.lessons.kept_units import fetch_units, keep_unit, kept_units_folder
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.sources import Lesson, LessonError
from crossfunc.lessons.units import units_folder


@pytest.fixture
def plan(tmp_path):
    """A lesson with two kept units, of which the first is also among its own."""
    path = tmp_path / "checkout" / "notebooks" / "04_four_methods.py"
    made = Plan(Lesson(path), "converged", {"keep_runs": True}, {}, tmp_path / "build")
    kept, own = kept_units_folder(made), units_folder(made.results, "04_four_methods")
    for folder, names in ((kept, ("method-1-seed0", "method-2-seed0")), (own, ("method-1-seed0",))):
        folder.mkdir(parents=True)
        for name in names:
            for suffix in (".json", ".npz"):
                (folder / f"{name}{suffix}").write_text(f"{folder.parent.name}: {name}")
    return made


@pytest.fixture
def own_whole(monkeypatch):
    """Names of the lesson's own units that are whole and of its plan, as the reader of units would find them."""
    whole: set[str] = {"method-1-seed0"}
    monkeypatch.setattr(kept_units, "_whole_units", lambda *_: frozenset(whole))
    return whole


def own_units(plan: Plan) -> dict[str, str]:
    folder: Path = units_folder(plan.results, "04_four_methods")
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_an_own_unit_that_is_not_of_the_plan_gives_way_to_the_kept_one(plan, own_whole):
    """After a new version of the labels, a build folder has units of the old one, and the checkout those of the new."""
    own_whole.clear()
    assert fetch_units(plan) == ["method-1-seed0", "method-2-seed0"]
    assert own_units(plan)["method-1-seed0.json"].startswith("converged: ")


def test_units_of_other_values_are_not_kept_under_the_profiles_name(plan):
    kept = kept_units_folder(plan) / "method-1-seed0.json"
    before = kept.read_text()
    with pytest.raises(LessonError, match="max_steps is another: leave out --keep"):
        keep_unit(replace(plan, overridden=("max_steps",)), "method-1-seed0")
    assert kept.read_text() == before


def test_kept_units_come_to_a_lesson_that_lacks_them_and_replace_none_of_its_own(plan, own_whole):
    before = own_units(plan)
    assert fetch_units(plan) == ["method-2-seed0"]
    after = own_units(plan)
    assert set(after) == {f"method-{n}-seed0{suffix}" for n in (1, 2) for suffix in (".json", ".npz")}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("change", [{"overridden": ("n_epochs",)}, {"parameters": {"keep_runs": False}}])
def test_a_lesson_of_other_values_or_that_keeps_no_runs_gets_none(plan, change):
    before = own_units(plan)
    assert fetch_units(replace(plan, **change)) == []
    assert own_units(plan) == before


def test_a_unit_that_is_kept_is_fetched_by_another_checkout_as_it_was(plan):
    for file in kept_units_folder(plan).iterdir():
        file.unlink()
    folder = keep_unit(plan, "method-1-seed0")
    assert folder == kept_units_folder(plan)
    assert {file.name: file.read_text() for file in folder.iterdir()} == own_units(plan)
