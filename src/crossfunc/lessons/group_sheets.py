"""Sheets of the groups of lesson 6: a system of their own with pencil and ruler, and what to expect of each."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from crossfunc.lessons.course_file import TASK_MINUTES
from crossfunc.lessons.run import kernel_manager_class
from crossfunc.lessons.slides import cell_text
from crossfunc.lessons.sources import LessonError

__all__ = ["group_text", "key_lines", "key_text", "outcome_of"]

_FILLED = "points[name] ="
"""What the last cell that the second task needs has in it."""
_LIMIT_S = 1800
"""Seconds after which a cell is given up; all cells of a group's lesson take a minute or two at the students' sizes."""


def group_text(letter: str, group: Mapping[str, Any], stem: str, phases) -> str:
    """Return the sheet of one group: its chemical system, a table for pencil and ruler, what to bring back.

    Parameters
    ----------
    letter : str
    group : mapping
        A group of `course.yml`.
    stem : str
        The lesson's file.
    phases : DataFrame
        From `verdicts.lowest_phases`: the phases of the group's binary.
    """
    second = group["binary"][1]
    ruler, model, others = (f"({minutes} minutes" for minutes in TASK_MINUTES)
    return "\n".join(
        [
            f"# Group {letter}: {group['name']}",
            "",
            f"Lesson 6 on a chemical system of your own: `{stem}.ipynb` in this folder, made for it.",
            "",
            f"1. {ruler}) Leave {group['by_hand']} out of the table and draw formation energies over the share",
            f"   of {second}, in pencil. Stretch a band under the other points, from one element to the other, and",
            f"   measure from it to {group['by_hand']}: that is its decomposition energy, negative below the band.",
            "   If the distance is too small for a ruler, calculate with the phases at the two ends of that piece.",
            "   Compare with what the notebook prints.",
            f"2. {model}; start the notebook before you draw.) In a new cell after the one that fills `points` with",
            "   compounds that no training has seen, say `verdicts.close_calls(points)`. For each model it names the",
            "   compounds that the model calls stable and the reference does not, or the reverse, and the model's",
            "   closest call: the compound whose decomposition energy it puts nearest to zero. Which model would have",
            "   an experimenter look for something that falls apart, or miss something? How many meV/atom would turn",
            "   the closest call? Which models agree, and what do they have in common? The published r²SCAN model made",
            "   the surrogate labels: its own row is right by construction, and no success.",
            f"3. {others}: four to prepare, one for each group to report) For the others: one number of the lesson's",
            "   table with its interval, the figure that it belongs to, and one sentence on what it cannot show.",
            "",
            f"| phase | share of {second} | formation energy (eV/atom) |",
            "|---|---|---|",
            *(f"| {name} | {_fraction(share)} | {energy:.3f} |" for name, share, energy in phases.to_numpy()),
            "",
            phases.attrs["label_notice"].strip(),
            "",
        ]
    )


def _fraction(share: float) -> str:
    """A share of atoms as it can be drawn: "3/5 (0.600)"."""
    exact = Fraction(share).limit_denominator(60)
    return str(exact) if exact.denominator == 1 else f"{exact} ({share:.3f})"


def key_text(found: Sequence[tuple[str, str, str, str]], outcomes: Mapping[str, str]) -> str:
    """Return what to expect of the groups: the answers of their first task, and of the second where it is known.

    Parameters
    ----------
    found : sequence of (str, str, str, str)
        Letter of a group, its compound, what it would decompose into, and its decomposition energy with the unit.
    outcomes : mapping of str to str
        Letter of a group to what `verdicts.close_calls` prints at the students' sizes.
    """
    lines = [_HEAD.format(*TASK_MINUTES)]
    lines += [f"- {line}" for line in key_lines(found)]
    lines += ["", "## The second task", ""]
    if not outcomes:
        lines += [
            "With `--groups`, the command that made this course executes lesson 6 for each group, which takes a",
            "minute or two each, and writes here what their notebooks print.",
        ]
    for letter, printed in outcomes.items():
        lines += [f"Group {letter} sees:", "", "```text", printed, "```", ""]
    return "\n".join([*lines, ""])


def key_lines(found: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Return the answer of each group's first task in a line, of what `key_text` takes."""
    return [f"**{letter}**: {compound} → {products}, {energy}" for letter, compound, products, energy in found]


def outcome_of(notebook: Mapping[str, Any], letter: str) -> str:
    """Run a group's notebook as far as its second task needs, and return what that task prints.

    Parameters
    ----------
    notebook : mapping
        As the group gets it.
    letter : str
        The group, for messages.

    Raises
    ------
    LessonError
        A notebook that ends before the task, or does not have what it needs; names the group.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    cells = notebook["cells"]
    last = next((k for k, cell in enumerate(cells) if _FILLED in cell_text(cell)), None)
    if last is None:
        raise LessonError(f"group {letter}: no cell of the lesson fills `points`, which the second task needs.")
    asked = {**cells[last], "id": "second-task", "source": "print(verdicts.close_calls(points).to_string())"}
    # As a file has it: texts may be lists of lines, which reading joins.
    short = nbformat.reads(json.dumps({**notebook, "cells": [*cells[: last + 1], asked]}), as_version=4)
    try:
        with tempfile.TemporaryDirectory() as folder:
            own = {"timeout": _LIMIT_S, "kernel_manager_class": kernel_manager_class(Path(folder))}
            NotebookClient(short, resources={"metadata": {"path": folder}}, **own).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        said = str(error).strip().splitlines()
        raise LessonError(f"group {letter}: its notebook does not run as far as the second task: {said[-1]}") from error
    return "".join(output.get("text", "") for output in short.cells[-1].outputs).rstrip()


_HEAD = """# Groups: what to expect

- Task 1, {0} minutes: the numbers below; with a ruler, within 0.02 eV/atom or so, from the sheet's rounded table within
  0.002. Where a well-known oxide lies above the hull, or an odd one on it, the labels are why: they are predictions of
  a network, and only the phases of the list compete.
- Task 2, {1} minutes, two of them for the notebook: what each group sees stands below, or what makes it. At the
  students' sizes most models judge like the model that they started from and make the same closest call, because a few
  steps moved nothing that a hull sees; Method 1, from random weights, puts nearly every compound at zero and so
  misjudges most. Good answers say *why*: the reference is a label, a compound a few meV/atom from the hull is
  undecided, and many relaxations stop before they have arrived. The published r²SCAN model made the surrogate labels,
  so its row agrees with the reference by construction: that is no success.
- Task 3, {2} minutes, four to prepare and one for each group to report: a number of the lesson's table with its
  interval. Good sentences on what it cannot show name the labels, the number of compounds, or the one seed.

## The first task
"""
