"""Sheets of the groups: what the second task prints, and what those who teach have of it."""

import sys

import pandas as pd
import pytest

from crossfunc.lessons import group_sheets, verdicts
from crossfunc.lessons.sources import LessonError, find_lessons, own_lessons


def cell(source):
    return {"cell_type": "code", "id": "x", "metadata": {}, "outputs": [], "execution_count": None, "source": source}


def notebook(*sources):
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [cell(s) for s in sources], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


TOY = "import pandas as pd\nclass verdicts:\n    close_calls = staticmethod(lambda p: pd.Series(p))\npoints = {}"


def test_a_closest_call_is_named_where_no_verdict_is_wrong():
    report = pd.DataFrame({"id": ["A", "B", "C"], "reference_ev": [-0.2, 0.1, 0.3], "model_ev": [-0.1, 0.002, None]})
    right, wrong = report, report.assign(model_ev=[0.05, -0.04, 0.001])
    table = verdicts.close_calls({"right": right, "wrong": wrong, "empty": report.iloc[:0]})
    assert table.loc["right"].tolist() == ["none", "B", 2.0, 100.0]
    assert table.loc["wrong"].tolist() == ["A, B", "C", 1.0, 300.0]
    assert table.loc["empty", "judged otherwise"] == "none"
    many = pd.DataFrame({"id": [*"ABCDE"], "reference_ev": [-0.2] * 5, "model_ev": [0.1] * 5})
    assert verdicts.close_calls({"many": many}).loc["many", "judged otherwise"] == "A, B, 3 more"
    assert list(table.columns[2:]) == ["model (meV/atom)", "reference (meV/atom)"]


@pytest.mark.parametrize("as_lines", [False, True])
def test_a_groups_notebook_runs_as_far_as_its_second_task(as_lines):
    given = notebook(
        TOY,
        "import sys\nfor name in ('a', sys.executable):\n    points[name] = 7",
        "raise SystemError('beyond the task')",
    )
    for one in given["cells"] if as_lines else []:
        one["source"] = one["source"].splitlines(keepends=True)  # as in a file
    printed = group_sheets.outcome_of(given, "A")
    assert [line.split() for line in printed.splitlines()] == [["a", "7"], [sys.executable, "7"]]
    assert len(given["cells"]) == 3  # what is handed out is as it was


def test_a_notebook_that_does_not_come_as_far_is_named():
    with pytest.raises(LessonError, match="group B: no cell of the lesson fills `points`"):
        group_sheets.outcome_of(notebook(TOY), "B")
    with pytest.raises(LessonError, match=r"group C: its notebook does not run as far as the second task: .*no more"):
        group_sheets.outcome_of(notebook("raise RuntimeError('no more')\npoints[name] = 1"), "C")


def test_lesson_6_fills_points_in_one_cell_and_the_sheet_asks_for_what_it_imports():
    (lesson,) = [one for one in find_lessons(own_lessons()) if one.number == "06"]
    cells = [one.source for one in lesson.notebook().cells if one.cell_type == "code"]
    assert len([source for source in cells if group_sheets._FILLED in source]) == 1
    assert any("    verdicts,\n" in source for source in cells)
    group = {"name": "an oxide", "binary": ["Fe", "O"], "by_hand": "Fe2O3"}
    phases = pd.DataFrame({"phase": [], "share": [], "energy": []})
    phases.attrs["label_notice"] = ""
    assert "`verdicts.close_calls(points)`" in group_sheets.group_text("A", group, "06_x", phases)


def test_the_key_has_what_each_group_sees_or_how_to_get_it():
    found = [("A", "Fe2O3", "Fe + O", "-1.000 eV/atom")]
    known = group_sheets.key_text(found, {"A": "model  none  FeO"})
    assert "- **A**: Fe2O3 → Fe + O, -1.000 eV/atom" in known
    assert "Group A sees:\n\n```text\nmodel  none  FeO\n```" in known
    assert "`--groups`" not in known
    assert "With `--groups`, the command that made this course executes lesson 6" in group_sheets.key_text(found, {})
