"""Checks of our own labels, as far as nothing is computed: which frames, what is refused, and tables as text."""

import pandas as pd
import pytest

from crossfunc.datasets import DatasetError
from crossfunc.dft import checks
from crossfunc.dft.plan import plan_frames


def test_a_frame_of_the_plan_is_found_by_its_id():
    frame = checks.find_frame("MgO-rock-salt-01")
    assert frame.frame_id == "MgO-rock-salt-01"
    assert sorted(frame.atomic_numbers) == [8, 12]
    with pytest.raises(DatasetError, match="no frame 'MgO-rock-salt-99' in the plan; ids are MATERIAL-NN"):
        checks.find_frame("MgO-rock-salt-99")


def test_every_check_is_applied_to_frames_of_the_plan():
    of_frames = checks.DERIVATIVE_FRAMES + checks.GRID_FRAMES
    of_materials = [f"{m}-{k:02d}" for m in checks.CONVERGENCE_MATERIALS + checks.RECOMPUTED for k in (0, 1)]
    assert {*of_frames, *of_materials} <= {frame.frame_id for frame in plan_frames()}


def test_an_unknown_check_is_refused_before_the_engine_is_looked_for(monkeypatch):
    monkeypatch.setattr(checks, "check_engine", lambda: pytest.fail("looked for the engine"))
    with pytest.raises(DatasetError, match="no check bands, phonons: choose from derivatives, convergence, grid, reco"):
        checks.run_checks(("grid", "phonons", "bands"))


def test_checks_run_case_by_case_and_say_so(monkeypatch):
    told = []
    monkeypatch.setattr(checks, "check_engine", lambda: told.append("engine"))
    twice = (lambda case: pd.DataFrame({"case": [case] * 2, "off": [0.0, 1.0]}), ("a", "b"))
    monkeypatch.setattr(checks, "CHECKS", {"one": twice, "other": (None, ("c",))})
    tables = checks.run_checks(("one",), report=told.append)
    assert told == ["engine", "one: a", "one: b"]
    assert tables == {"one": [{"case": c, "off": off} for c in "ab" for off in (0.0, 1.0)]}


def test_tables_are_text_with_four_digits_each_under_its_name():
    text = checks.as_text({"grid": [{"points": 24, "off": 1.23456}], "recompute": [{"off": 0.5}]})
    first, second = text.split("\n\n")
    assert [line.split() for line in first.splitlines()] == [["grid"], ["points", "off"], ["24", "1.2346"]]
    assert [line.split() for line in second.splitlines()] == [["recompute"], ["off"], ["0.5000"]]
