"""What the groups' second task comes to: executed as far as it needs, kept, taken again only where nothing changed."""

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from crossfunc.files import FolderInUse, locked_folder
from crossfunc.lessons import group_outcomes, verdicts
from crossfunc.lessons.group_outcomes import FOLDER, Outcome, find_outcomes
from crossfunc.lessons.sources import LessonError


def cell(source, name):
    return {"cell_type": "code", "id": name, "metadata": {}, "outputs": [], "execution_count": None, "source": source}


def notebook(*sources):
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {
        "cells": [cell(s, f"c{k}") for k, s in enumerate(sources)],
        "metadata": kernel,
        "nbformat": 4,
        "nbformat_minor": 5,
    }


ROW = dict(zip([*verdicts.CALLS, *verdicts.CLOSEST], ("none", "Li<O>", "FeO", 1.5, -2), strict=True))
TOY = f"""
import sys
import pandas as pd
class verdicts:
    close_calls = staticmethod(lambda points: pd.DataFrame.from_dict({{n: {ROW!r} for n in points}}, orient="index"))
points = {{}}
print("a warning", file=sys.stderr)
"""
KNOWN = Outcome("a  none", {"a": ROW})


@pytest.fixture
def plan(tmp_path):
    lesson = SimpleNamespace(number="06")
    return SimpleNamespace(lesson=lesson, folder=tmp_path / "build" / "smoke", inputs={"package": "1", "data": "2"})


@pytest.fixture
def ran(monkeypatch):
    """Groups that were executed, in order; each comes to its letter."""
    letters = []

    def stand_in(task, letter, manager):
        letters.append(letter)
        return Outcome(letter, KNOWN.calls)

    monkeypatch.setattr(group_outcomes, "outcome_of", stand_in)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    return letters


def groups(*letters, source="1"):
    return {letter: notebook(TOY, f"name = {source}", f"points[name] = '{letter}'", "beyond") for letter in letters}


@pytest.mark.slow
@pytest.mark.parametrize("as_lines", [False, True])
def test_a_groups_notebook_runs_as_far_as_its_second_task(plan, as_lines):
    given = notebook(TOY, "for name in ('a', sys.executable):\n    points[name] = 7", "raise SystemError('beyond it')")
    for one in given["cells"] if as_lines else []:
        one["source"] = one["source"].splitlines(keepends=True)  # as in a file
    said = []
    outcome = find_outcomes(plan, {"A": given}, run=True, report=said.append)["A"]
    assert [line.split()[0] for line in outcome.printed.splitlines()[1:]] == ["a", sys.executable]
    assert outcome.calls == {"a": ROW, sys.executable: ROW}
    assert len(given["cells"]) == 3  # what is handed out is as it was
    assert [line.rpartition(" done in ")[0] or line[:31] for line in said] == [
        "executing lesson 6 for group A,",
        "group A:",
    ]
    assert find_outcomes(plan, {"A": given}) == {"A": outcome}


@pytest.mark.slow
def test_notebooks_that_do_not_come_as_far_are_named_once_the_others_are_kept(plan):
    with pytest.raises(LessonError, match=r"group B: no cell of the lesson fills `points`.* With --no-groups"):
        find_outcomes(plan, {"B": notebook(TOY)}, run=True)
    assert find_outcomes(plan, {"B": notebook(TOY)}) == {}
    given = {
        "A": notebook(TOY, "points[name] = 1"),
        "B": notebook(TOY, "verdicts.close_calls = lambda points: pd.Series([1])", "name = 1", "points[name] = 1"),
        "C": notebook(TOY, "name = 1", "points[name] = 1"),
    }
    with pytest.raises(LessonError) as raised:
        find_outcomes(plan, given, run=True)
    first, second, remedy = str(raised.value).splitlines()
    assert first == (
        "group A: its notebook does not run as far as the second task: NameError: name 'name' is not defined"
    )
    assert second == "group B: `verdicts.close_calls` of its notebook is another table than crossfunc's."
    assert "--no-groups" in remedy
    assert list(find_outcomes(plan, given)) == ["C"]


def test_outcomes_are_kept_and_not_executed_again(plan, ran):
    said = []
    first = find_outcomes(plan, groups("A", "B"), run=True, report=said.append)
    assert (list(first), ran) == (["A", "B"], ["A", "B"])
    assert said[0].startswith("executing lesson 6 for group A, B, one after another, a minute or two for each")
    assert said[1:] == ["group A: done in 0 s", "group B: done in 0 s"]
    said.clear()
    assert find_outcomes(plan, groups("A", "B", "C"), run=True, report=said.append)["A"] == first["A"]
    assert ran == ["A", "B", "C"]
    assert said[0] == "second task of group A, B: kept from an earlier call"
    said.clear()
    assert list(find_outcomes(plan, groups("A", "B", "C", "D"), report=said.append)) == ["A", "B", "C"]
    assert (ran, said) == (["A", "B", "C"], [])
    assert sorted(path.name for path in (plan.folder / FOLDER).iterdir()) == ["A.json", "B.json", "C.json"]


@pytest.mark.parametrize("what", ["package", "data", "cells"])
def test_an_outcome_of_other_inputs_is_neither_shown_nor_kept(plan, ran, what):
    find_outcomes(plan, groups("A"), run=True)
    if what != "cells":
        plan.inputs[what] += "0"
    now = groups("A", source="2" if what == "cells" else "1")
    assert find_outcomes(plan, now) == {}
    assert list(find_outcomes(plan, now, run=True)) == ["A"]
    assert ran == ["A", "A"]


def test_what_is_not_run_for_the_task_does_not_matter(plan, ran):
    find_outcomes(plan, groups("A"), run=True)
    now = groups("A")
    now["A"]["cells"][-1]["source"] = "something else beyond"
    now["A"]["cells"].insert(0, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "other words"})
    assert list(find_outcomes(plan, now)) == ["A"]


def change(**more):
    return lambda text: json.dumps(json.loads(text) | more)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: text.replace("FeO", "FeN"),
        lambda text: "[1]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        change(printed="something else"),
        change(sha256="0"),
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "sha256"}),
    ],
)
def test_a_damaged_or_foreign_file_is_made_anew(plan, ran, damage):
    first = find_outcomes(plan, groups("A"), run=True)
    file = plan.folder / FOLDER / "A.json"
    file.write_text(damage(file.read_text()))
    assert find_outcomes(plan, groups("A")) == {}
    assert find_outcomes(plan, groups("A"), run=True) == first
    assert ran == ["A", "A"]
    assert find_outcomes(plan, groups("A")) == first


@pytest.mark.parametrize(
    "calls",
    [[], {"a": 1}, {"a": {}}, {"a": ROW | {"closest call": 1}}, {"a": ROW | {"model (meV/atom)": "1"}},
     {"a": ROW | {"closest call": None}}],
)  # fmt: skip
def test_a_whole_file_of_another_table_is_not_taken(plan, tmp_path, calls):
    group_outcomes._write_kept(tmp_path / "A.json", "origin", Outcome("", calls))
    assert group_outcomes._read_kept(tmp_path / "A.json", "origin") is None
    group_outcomes._write_kept(tmp_path / "A.json", "origin", KNOWN)
    assert group_outcomes._read_kept(tmp_path / "A.json", "origin") == KNOWN
    assert group_outcomes._read_kept(tmp_path / "A.json", "other") is None


def test_a_call_that_is_stopped_keeps_what_was_finished_and_leaves_no_kernel(plan, monkeypatch):
    begun, said, ends, ended = threading.Event(), [], [], threading.Event()

    def end_kernels():
        ends.append(1)
        if len(ends) == 1:
            raise KeyboardInterrupt  # whoever is impatient presses it twice
        ended.set()

    def one_is_quick(task, letter, manager):
        if letter != "A":
            begun.set()
            assert ended.wait(20)
            raise LessonError("its kernel died")
        assert begun.wait(20)
        return Outcome("A", KNOWN.calls)

    def stop_after_the_first(line):
        said.append(line)
        if line.startswith("group A"):
            raise KeyboardInterrupt

    monkeypatch.setattr(group_outcomes, "kernel_manager_class", lambda _: SimpleNamespace(end_kernels=end_kernels))
    monkeypatch.setattr(group_outcomes, "outcome_of", one_is_quick)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        find_outcomes(plan, groups("A", "B", "C", "D", "E"), run=True, report=stop_after_the_first)  # some only wait
    assert ended.is_set()
    assert "two at a time" in said[0]
    assert list(find_outcomes(plan, groups("A", "B", "C"))) == ["A"]
    assert [path.name for path in (plan.folder / FOLDER).iterdir()] == ["A.json"]


def test_two_calls_do_not_execute_the_same_groups_at_one_time(plan, ran):
    find_outcomes(plan, groups("A"), run=True)
    with locked_folder(plan.folder / FOLDER):
        with pytest.raises(FolderInUse, match="another process is writing here now"):
            find_outcomes(plan, groups("A", "B"), run=True)
        assert list(find_outcomes(plan, groups("A"), run=True)) == ["A"]  # nothing to write


def test_drafts_of_writes_that_were_killed_are_removed(plan, ran):
    draft = Path(plan.folder / FOLDER / ".A.json.x.part")
    draft.parent.mkdir(parents=True)
    draft.touch()
    find_outcomes(plan, groups("A"), run=True)
    assert not draft.exists()
