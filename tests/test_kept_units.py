"""Units of a lesson that the checkout keeps: taken where a lesson would make the same, and only there."""

from dataclasses import replace
from pathlib import Path

import pytest

from crossfunc.lessons.kept_units import fetch_units, keep_unit, kept_units_folder
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.sources import Lesson
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


def own_units(plan: Plan) -> dict[str, str]:
    folder: Path = units_folder(plan.results, "04_four_methods")
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_kept_units_come_to_a_lesson_that_lacks_them_and_replace_none_of_its_own(plan):
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
