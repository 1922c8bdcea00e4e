"""A course from the lessons: editions with and without solutions, checks, quizzes, slides, a sheet for each group.

Everything comes from the lessons' own files and from `notebooks/course.yml`; nothing is typed twice.
"""

import base64
import builtins
import copy
import hashlib
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import yaml

from crossfunc.datasets import open_dataset
from crossfunc.files import write_atomically
from crossfunc.lessons import debate, wording
from crossfunc.lessons.exports import PLOTLY
from crossfunc.lessons.freshness import check_lesson, require_fresh
from crossfunc.lessons.laboratory import one_file
from crossfunc.lessons.plans import Plan, public_parameters
from crossfunc.lessons.profiles import DEFAULT_PROFILE
from crossfunc.lessons.slides import (
    Slide,
    cell_text,
    draw_interactive,
    figures_without_slide,
    lesson_title,
    slide_titles,
    write_handout,
    write_page_slides,
    write_slides,
)
from crossfunc.lessons.sources import LessonError, spoken_number
from crossfunc.lessons.written_folder import check_own, draft_folder, move_in

__all__ = ["Course", "check", "read_course", "write_course"]

FILE = "course.yml"
ANSWERS_FILE = "answers.json"
SOLUTION_TAG = "hide-cell"
GROUP_LESSON = "06"
PRIMER = "functionals.md"
LIVE = "laboratory.md"
_EXERCISE = re.compile(r":::\{admonition\} Exercise (\d+)")
_FIELDS = {
    "exercises": {"minutes", "ask", "choices", "right", "answer"},
    "quiz": {"ask", "choices", "right", "because"},
    "groups": {"name", "elements", "binary", "by_hand"},
    "figures": {"say", "ask", "answer"},
    "plans": {"from", "to", "what", "lessons", "exercises"},
    "debate": {"claim", "for", "against"},
}
_OPTIONAL = {"figures": {"skip", "before", "headline", "needs"}, "exercises": {"value"}, "plans": {"skip", "tasks"}}
_TASK_MINUTES = (25, 20, 10)
"""Minutes of the tasks on the sheet of a group."""
_OF_VALUE = ({"ask", "expression", "absolute"}, {"ask", "expression", "relative"})


@dataclass(frozen=True)
class Course:
    """What `course.yml` says beside the lessons.

    Attributes
    ----------
    exercises : dict of str to dict
        "LESSON.EXERCISE" to minutes, ask, choices, right, answer; where a number is asked for as well, `value` with
        ask, expression (Python, of names that the lesson has bound by then) and its tolerance, absolute or relative.
    quiz : dict of str to list of dict
        Number of the lesson to questions: ask, choices, right, because.
    groups : list of dict
        Name and parameters of lesson 6 for each group.
    handout : dict of str to int
        Number of the lesson to the point of its recap that the hand-out shows, from 1.
    figures : dict of str to dict
        Name of a figure to what to say at it, what to ask and the answer; `skip` where a day has no time for it,
        `before` where the question comes before the figure is seen, `headline` where the caption's would answer it,
        `needs` for data without which no lesson draws it.
    plans : dict of str to list of dict
        Name of a plan ("One day") to its parts: from, to, what, lessons and exercises of each; `tasks` for how many of
        the tasks on a group's sheet, `skip` for what goes first where time is short.
    debate : list of dict
        Claim, and arguments `for` and `against` it.
    """

    exercises: Mapping[str, Mapping[str, Any]]
    quiz: Mapping[str, Sequence[Mapping[str, Any]]]
    groups: Sequence[Mapping[str, Any]]
    handout: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plans: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    debate: Sequence[Mapping[str, Any]] = ()


def read_course(path: Path) -> Course:
    """Read `course.yml`.

    Raises
    ------
    LessonError
        Fields that are missing or unknown, or a right answer that is not among the choices; names the entry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise LessonError(f"{path}: cannot be read ({error}).") from error
    given = {name: content[name] for name in ("handout", "figures", "plans", "debate") if content.get(name)}
    course = Course(content["exercises"], content["quiz"], content["groups"], **given)
    entries = [("exercises", key, one) for key, one in course.exercises.items()]
    entries += [("quiz", f"quiz of lesson {number}", one) for number, several in course.quiz.items() for one in several]
    entries += [("groups", str(one.get("name")), one) for one in course.groups]
    entries += [("figures", name, one) for name, one in course.figures.items()]
    entries += [
        ("plans", f"{name} from {one.get('from')}", one) for name, parts in course.plans.items() for one in parts
    ]
    entries += [("debate", str(one.get("claim")), one) for one in course.debate]
    for kind, name, entry in entries:
        if set(entry) - _OPTIONAL.get(kind, set()) != _FIELDS[kind]:
            raise LessonError(f"{path}: {name}: needs the fields {', '.join(sorted(_FIELDS[kind]))}, and no others.")
        if "right" in entry and entry["right"] not in entry["choices"]:
            raise LessonError(f"{path}: {name}: the right answer {entry['right']!r} is not among the choices.")
        if "value" in entry:
            _check_value(entry["value"], f"{path}: {name}")
    for name, parts in course.plans.items():
        _check_plan(parts, course, f"{path}: {name}")
    return course


def _check_plan(parts: Sequence[Mapping[str, Any]], course: Course, where: str) -> None:
    """Raise LessonError unless parts follow on each other and each has the time of its exercises and tasks."""
    before = None
    for part in parts:
        said = f"{where}, from {part['from']} to {part['to']}"
        minutes = _minutes(part["to"], said) - _minutes(part["from"], said)
        if before not in {None, part["from"]} or minutes <= 0:
            raise LessonError(f"{said}: each part begins when the one before it ends, and ends later.")
        if unknown := [key for key in part["exercises"] if key not in course.exercises]:
            raise LessonError(f"{said}: there is no exercise {', '.join(unknown)}.")
        if (needed := _work_minutes(part, course)) > minutes:
            raise LessonError(f"{said}: its exercises and tasks take {needed} minutes, and there are {minutes}.")
        before = part["to"]


def _minutes(clock: Any, where: str) -> int:
    """Minutes since midnight of "9:05"."""
    found = re.fullmatch(r"(\d{1,2}):([0-5]\d)", str(clock))
    if not found:
        raise LessonError(f'{where}: {clock!r} is no time; write it in quotes, as in "9:05".')
    return 60 * int(found[1]) + int(found[2])


def _work_minutes(part: Mapping[str, Any], course: Course) -> int:
    """Minutes that the exercises of a part and its tasks on a group's sheet take."""
    tasks = _TASK_MINUTES[: part.get("tasks", 0)]
    return sum(course.exercises[key]["minutes"] for key in part["exercises"]) + sum(tasks)


def _check_value(value: Mapping[str, Any], where: str) -> None:
    """Raise LessonError unless a number is asked for, can be computed, and has one tolerance."""
    if set(value) not in _OF_VALUE:
        raise LessonError(f"{where}: value needs ask, expression and one of absolute and relative, and no others.")
    near = value.get("absolute", value.get("relative"))
    if not isinstance(near, int | float) or not near > 0:
        raise LessonError(
            f"{where}: the tolerance of value must be a number above zero, not {near!r} (1.0e-6, not 1e-6)."
        )
    try:
        compile(str(value["expression"]), FILE, "eval")
    except SyntaxError as error:
        raise LessonError(f"{where}: the expression of value is no Python ({error}).") from error


def write_course(
    plans: Iterable[Plan], out: Path, course: Course, *, students: Iterable[Plan] | None = None
) -> tuple[list[Path], str]:
    """Write the editions, checks, quizzes, slides and sheets of executed lessons.

    Parameters
    ----------
    plans : iterable of Plan
        From `plan_run`; their lessons must be fresh.
    out : path
        Folder to write; made if it is not there.
    course : Course
    students : iterable of Plan, optional
        The same lessons at the sizes that students run them at; left out, those of `plans`. They need not be executed.

    Returns
    -------
    written : list of Path
        `README.md` (what is what), `students/` (notebooks without solutions, answers and outputs, `answers.json` for
        `check`, `START.md`, `quiz.md` and one per lesson, the page on functionals, and `laboratory.html`, the heart of
        lessons 1 to 3 for a browser without Python), `instructors/` (executed
        notebooks with solutions in sight, `running-sheet.md`, `answers.md`, `quiz.md` with answers, `groups.md` with
        those of the sheets, `debate.md`), `slides/` (a deck per lesson, `all.pptx`, and one on functionals), `groups/`
        (a folder for each, with its sheet and its notebook, and `sheets.html`, all sheets to be printed),
        `handout.pdf`.
    notice : str
        Why interactive figures are words on the slides; empty where they are drawn.

    Raises
    ------
    LessonError
        A lesson that is not fresh, an exercise that `course.yml` does not know, a folder of others, or one with files
        that somebody has changed since they were written.
    """
    plans = list(plans)
    own = list(students) if students is not None else plans
    require_fresh(plans, "a course is made")
    check_own(out)
    draft = draft_folder(out)
    try:
        written, notice = _make(plans, own, draft, course)
        move_in(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return [out / path.relative_to(draft) for path in written], notice


def _make(plans: list[Plan], own: list[Plan], out: Path, course: Course) -> tuple[list[Path], str]:
    book = plans[0].lesson.path.parents[1] / "book" if plans else Path("book")
    titles = wording.page_titles(book)
    drawn, notice = draw_interactive(plans)
    written = []
    for plan, of_students in zip(plans, own, strict=True):
        stem = plan.lesson.stem
        written.append(_write(out / "students" / f"{stem}.ipynb", _dump(student_notebook(of_students, course, titles))))
        executed = json.loads(plan.notebook.read_text(encoding="utf-8"))
        written.append(_write(out / "instructors" / f"{stem}.ipynb", _dump(unfold(executed, titles))))
        written.append(write_slides([plan], out / "slides" / f"{stem}.pptx", titles, drawn, course.figures))
    written.append(write_slides(plans, out / "slides" / "all.pptx", titles, drawn, course.figures))
    numbers = [plan.lesson.number for plan in plans]
    written.append(_write(out / "students" / ANSWERS_FILE, _dump(answers(course, numbers))))
    for number in [n for n in numbers if n in course.quiz]:
        name = f"quiz-{spoken_number(number)}.md"
        written.append(_write(out / "students" / name, quiz_text(course, [number])))
    written.append(_write(out / "students" / "quiz.md", quiz_text(course, numbers)))
    if (primer := book / PRIMER).is_file():
        text = primer.read_text(encoding="utf-8")
        written.append(_write(out / "students" / PRIMER, wording.as_markdown(wording.without_answers(text), titles)))
        written.append(_write(out / "instructors" / PRIMER, wording.as_markdown(text, titles)))
        written.append(write_page_slides(text, out / "slides" / f"{primer.stem}.pptx", titles))
    if (live := book / LIVE).is_file():
        page = one_file(live.read_text(encoding="utf-8"), titles)
        written.append(_write(out / "students" / live.with_suffix(".html").name, page))
    written.append(_write(out / "instructors" / "quiz.md", quiz_text(course, numbers, with_answers=True)))
    written.append(_write(out / "instructors" / "answers.md", answers_text(course, plans, own)))
    written.append(_write(out / "instructors" / "running-sheet.md", running_sheet(course, plans, titles)))
    if course.debate:
        found = debate.verdict_lines(book.parent, [one["claim"] for one in course.debate], plans, titles)
        written.append(_write(out / "instructors" / "debate.md", debate.debate_text(course.debate, found)))
    written.append(_write(out / "students" / "START.md", _START))
    written.append(_write(out / "README.md", _CONTENTS))
    for plan in [one for one in own if one.lesson.number == GROUP_LESSON]:
        written += _write_groups(plan, course, out, titles)
    return [*written, write_handout(plans, out / "handout.pdf", titles, course.handout)], notice


_CONTENTS = """# A course

Begin with `instructors/running-sheet.md`: what there is to show, to ask and to answer, lesson by lesson.

- `students/` and `groups/`: hand these out, as folders.
- `slides/`: a deck per lesson, all of them in one, and one on functionals.
- `handout.pdf`: one page for the wall.
- `instructors/`: yours alone, with solutions, answers, and the debate with its verdicts.
"""


_START = """# Start

1. Open this folder in JupyterLab, with the kernel that your instructor names (the environment of the course).
2. Begin with the lesson that is on the screen: *Run*, *Run All Cells*. At these sizes a lesson takes a minute or two;
   times in its text are those of the book's own sizes.
3. Under each exercise is an empty cell for you, and a check. `check("03.2")` lists the choices, and
   `check("03.2", "a little")` says whether an answer is right. It reads `answers.json` in this folder.
   Where a number is asked for as well, `check("03.2", value=0.5)` compares yours with that of this notebook's own run.
4. At these sizes the order of the methods in lessons 4, 4b and 7 is luck: what it comes to is on the slides.
   Nothing is lost by running a cell again, in whatever order.
5. Without Python, `laboratory.html` opens in any browser: the heart of lessons 1 to 3, computed in the page.
"""


def _write_groups(plan: Plan, course: Course, out: Path, titles: Mapping[str, str]) -> list[Path]:
    """Write a folder for each group: its sheet, the lesson on its system without solutions, and the checks."""
    from crossfunc.lessons import verdicts

    dataset, written, sheets = open_dataset(plan.dataset), [], []
    key = [_OF_GROUPS.format(*_TASK_MINUTES), ""]
    for letter, group in zip(ascii_uppercase, course.groups, strict=False):
        folder = out / "groups" / f"{letter}-{'-'.join(group['elements'])}"
        its_own = {"elements": group["elements"], "binary": group["binary"], "ternary": group["elements"]}
        of_group = replace(plan, parameters={**plan.parameters, **its_own, "by_hand": group["by_hand"]})
        notebook = student_notebook(of_group, course, titles)
        written.append(_write(folder / f"{plan.lesson.stem}.ipynb", _dump(notebook)))
        written.append(_write(folder / ANSWERS_FILE, _dump(answers(course, [plan.lesson.number]))))
        phases = verdicts.lowest_phases(dataset, group["binary"])
        sheets.append(group_text(letter, group, plan.lesson.stem, phases))
        written.append(_write(folder / "sheet.md", sheets[-1]))
        left, right, energy = verdicts.decompose(phases, group["by_hand"])
        key.append(f"- **{letter}**: {group['by_hand']} → {left} + {right}, {energy:+.3f} eV/atom")
    written.append(_write(out / "groups" / "sheets.html", printable(sheets)))
    return [*written, _write(out / "instructors" / "groups.md", "\n".join([*key, ""]))]


def printable(sheets: Sequence[str]) -> str:
    """Return Markdown sheets as one page of HTML that a browser prints, each on paper of its own, with a grid below."""
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    pages = [f"<section>{render(sheet)}<div class='grid'></div></section>" for sheet in sheets]
    return "\n".join([_PRINTED, *pages, "</body></html>", ""])


_PRINTED = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Sheets of the groups</title><style>
body { font: 11pt/1.4 sans-serif; margin: 2em; }
section { page-break-after: always; }
td, th { border: 1px solid #999; padding: 2px 8px; } table { border-collapse: collapse; }
.grid { height: 9cm; margin-top: 1em; border: 1px solid #999;
  background: linear-gradient(#ccc 1px, transparent 1px) 0 0 / 5mm 5mm,
  linear-gradient(90deg, #ccc 1px, transparent 1px) 0 0 / 5mm 5mm; -webkit-print-color-adjust: exact; }
</style></head><body>"""


_OF_GROUPS = """# Groups: what to expect

- Task 1, {0} minutes: the numbers below; with a ruler, within 0.02 eV/atom or so, from the sheet's rounded table within
  0.002. Where a well-known oxide lies above the hull, or an odd one on it, the labels are why: they are predictions of
  a network, and only the phases of the list compete.
- Task 2, {1} minutes, two of them for the notebook: the answer is what their own run prints. At the students' sizes
  most models print the same one or two names, or none, because a few steps moved nothing that a hull sees; Method 1,
  from random weights, calls nearly every compound zero and so misjudges most. Good answers look up the named
  compound's decomposition energy on both sides and say *why*: the reference is a label, a compound a few meV/atom from
  the hull is undecided, and many relaxations stop before they have arrived.
- Task 3, {2} minutes: a number of the lesson's table with its interval. Good sentences on what it cannot show name the
  labels, the number of compounds, or the one seed.

## The first task
"""


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def _dump(content) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# --- editions ---


def student_notebook(plan: Plan, course: Course, titles: Mapping[str, str] | None = None) -> dict:
    """Return the lesson without solutions, answers and outputs; each exercise with an empty cell and its check.

    Its words are Markdown that any Jupyter shows: roles and admonitions are the book's.
    """
    import nbformat

    source = json.loads(nbformat.writes(plan.lesson.notebook()))
    cells, exercise = [], None
    for cell in source["cells"]:
        text = cell_text(cell)
        if cell["cell_type"] == "markdown":
            if found := _EXERCISE.search(text):
                exercise = f"{plan.lesson.number}.{found[1]}"
            cells.append({**cell, "source": wording.as_markdown(wording.without_answers(text), titles)})
        elif exercise and SOLUTION_TAG in cell["metadata"].get("tags", []):
            if exercise not in course.exercises:
                raise LessonError(f"{plan.lesson.stem}: exercise {exercise} is not in {FILE}: say there what it asks.")
            cells += _to_do(cell, exercise, course.exercises[exercise])
            exercise = None
        else:
            cells.append({**cell, "outputs": [], "execution_count": None})
            if "parameters" in cell["metadata"].get("tags", []) and (values := _other_values(plan)):
                cells.append({**cells[-1], "id": "values", "metadata": {}, "source": values})
    return {**source, "cells": cells}


def _other_values(plan: Plan) -> str:
    """Assign the profile's values where they are not the lesson's own: a class runs at the size it was given."""
    declared = plan.lesson.parameters
    lines = [
        f"{name} = {value!r}"
        for name, value in public_parameters(plan.parameters).items()
        if name in declared and value != declared[name].default
    ]
    if not lines:
        return ""
    said = [f"# Values of the profile {plan.profile} in place of the lesson's own."]
    if plan.profile != DEFAULT_PROFILE:
        said += [f"# The text was written for {DEFAULT_PROFILE}: where your figure differs, its size may be why."]
    return "\n".join([*said, *lines])


def _to_do(cell: dict, exercise: str, about: Mapping[str, Any]) -> list[dict]:
    """An empty cell to work in, one that checks the answer, and one for a number where there is one."""
    choices = "\n".join(f"#   {choice}" for choice in shuffled(about["choices"], exercise))
    checked = f"# {about['ask']}\n{choices}\nfrom crossfunc.lessons.course import check\n\ncheck({exercise!r}, ...)"
    common: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [
        {**common, "id": f"{cell.get('id', exercise)}-own", "source": f"# About {about['minutes']} minutes.\n"},
        {**common, "id": f"{cell.get('id', exercise)}-check", "source": checked},
    ]
    if "value" in about:
        number = f"# {about['value']['ask']}\ncheck({exercise!r}, value=...)"
        cells.append({**common, "id": f"{cell.get('id', exercise)}-value", "source": number})
    return cells


def unfold(notebook: dict, titles: Mapping[str, str] | None = None) -> dict:
    """Return an executed notebook with every folded cell in sight, and words that any Jupyter shows."""
    shown = copy.deepcopy(notebook)
    for cell in shown["cells"]:
        tags = cell["metadata"].get("tags", [])
        cell["metadata"]["tags"] = [tag for tag in tags if not tag.startswith("hide-")]
        if cell["cell_type"] == "markdown":
            cell["source"] = wording.as_markdown(cell_text(cell), titles)
    return shown


# --- checks ---


def answers(course: Course, numbers: Sequence[str]) -> dict:
    """Return what `check` compares with: hashes and code, so that nobody reads an answer by accident."""
    found = {}
    for key, one in course.exercises.items():
        if key.partition(".")[0] in numbers:
            found[key] = {
                "ask": one["ask"],
                "choices": shuffled(one["choices"], key),
                "right": _hash(key, one["right"]),
            }
            if "value" in one:
                code = base64.b64encode(str(one["value"]["expression"]).encode()).decode()
                found[key]["value"] = {**one["value"], "expression": code}
    return found


def shuffled(choices: Sequence[str], key: str) -> list[str]:
    """Return the choices in an order that depends on the exercise alone."""
    return random.Random(key).sample(list(choices), len(choices))  # noqa: S311, no secret


def _hash(key: str, answer: str) -> str:
    return hashlib.sha256(f"{key}: {_bare(answer)}".encode()).hexdigest()


def _bare(answer: Any) -> str:
    """An answer without capitals, marks and spaces that do not matter."""
    return " ".join(re.sub(r"[^\w\s]", " ", str(answer).lower()).split())


def check(
    exercise: str,
    answer: Any = ...,
    *,
    value: Any = None,
    file: str | Path = ANSWERS_FILE,
    names: Mapping[str, Any] | None = None,
) -> str:
    """Say whether an answer to an exercise is right.

    Parameters
    ----------
    exercise : str
        "LESSON.EXERCISE", as in "03.2".
    answer : str
        One of the choices; left out, the question and the choices are returned.
    value : float
        The number that an exercise asks for, compared with what the notebook's own run comes to; with `...` the
        question is returned.
    file : str or path
        The `answers.json` that came with the notebook.
    names : mapping of str, optional
        What the notebook has bound; default: the names of whoever calls.

    Returns
    -------
    str
        "right", or "not yet" with what to do.

    Raises
    ------
    LessonError
        No such file or exercise, or an answer that is none of the choices; lists them. A number where none is asked
        for, what is no number, or a notebook that has not come as far.
    """
    if names is None:
        names = sys._getframe(1).f_globals
    try:
        known = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LessonError(f"{file}: no answers here ({error}); run the notebook in the folder it came in.") from error
    if exercise not in known:
        raise LessonError(f"no exercise {exercise!r}; there are: {', '.join(known)}.")
    about = known[exercise]
    if value is not None:
        return _check_number(exercise, about.get("value"), value, names)
    listed = "; ".join(about["choices"])
    if answer is ...:
        return f"{about['ask']} {listed}"
    said = _bare(answer)
    if said not in [_bare(choice) for choice in about["choices"]]:
        raise LessonError(f"exercise {exercise}: {answer!r} is none of the choices: {listed}.")
    return "right" if _hash(exercise, said) == about["right"] else "not yet: read question and findings once more"


def _check_number(exercise: str, about: Mapping[str, Any] | None, value: Any, names: Mapping[str, Any]) -> str:
    """Compare a number with that of the run whose names are given."""
    if about is None:
        raise LessonError(f"exercise {exercise}: asks for no number; give one of its choices.")
    if value is ...:
        return about["ask"]
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise LessonError(f"exercise {exercise}: {value!r} is no number.") from None
    expected = expected_number(exercise, base64.b64decode(about["expression"]).decode(), names)
    near = about["absolute"] if "absolute" in about else about["relative"] * abs(expected)
    return "right" if abs(found - expected) <= near else "not yet: read the question and your run once more"


def expected_number(exercise: str, expression: str, names: Mapping[str, Any]) -> float:
    """Return what an expression of `course.yml` comes to in a lesson's run.

    Parameters
    ----------
    exercise, expression : str
    names : mapping of str
        What the lesson has bound.

    Raises
    ------
    LessonError
        A run that has not come as far, or whose data have no such number.
    """
    try:
        expected = float(eval(expression, {"__builtins__": builtins, **names}))  # noqa: S307, the course's own file
    except Exception as error:
        raise LessonError(
            f"exercise {exercise}: this notebook has no such number yet ({type(error).__name__}: {error}); run all "
            "cells above the exercise first."
        ) from error
    if not math.isfinite(expected):
        raise LessonError(f"exercise {exercise}: these data have no such number.")
    return expected


# --- words ---


def quiz_text(course: Course, numbers: Sequence[str], *, with_answers: bool = False) -> str:
    """Return the quiz as Markdown: choices with letters, and with answers and reasons for those who teach."""
    lines = ["# Quiz" + (" with answers" if with_answers else ""), ""]
    for number in [n for n in numbers if n in course.quiz]:
        lines += [f"## Lesson {spoken_number(number)}", ""]
        for k, one in enumerate(course.quiz[number], start=1):
            choices = shuffled(one["choices"], f"{number}-{k}")
            lines += [f"{k}. {one['ask']}", ""]
            lines += [f"   - {chr(ord('a') + i)}) {choice}" for i, choice in enumerate(choices)]
            if with_answers:
                letter = chr(ord("a") + choices.index(one["right"]))
                lines += ["", f"   **{letter}**: {one['because']}"]
            lines.append("")
    return "\n".join(lines)


def answers_text(course: Course, plans: Sequence[Plan], students: Sequence[Plan] = ()) -> str:
    """Return a sheet for those who teach: minutes and expected answer of each exercise, and the sum per lesson.

    What solutions print stands below: at the sizes of `plans`, and at those of `students` where these are fresh.
    """
    lines = ["# Exercises: minutes and expected answers", ""]
    for plan in plans:
        own = {key: one for key, one in course.exercises.items() if key.startswith(f"{plan.lesson.number}.")}
        if not own:
            continue
        total = sum(one["minutes"] for one in own.values())
        lines += [f"## {lesson_title(plan)} ({total} minutes of exercises)", ""]
        lines += ["| exercise | minutes | expected answer | right choice |", "|---|---|---|---|"]
        lines += [f"| {key} | {one['minutes']} | {one['answer']} | {one['right']} |" for key, one in own.items()]
        lines += ["", *_number_lines(own)]
        same = [one for one in students if one.lesson.number == plan.lesson.number and one.profile != plan.profile]
        for run in [plan, *(one for one in same if check_lesson(one) is None)]:
            for key, printed in _printed_by_solutions(run).items():
                lines += [f"The solution of {key} prints, at the sizes of the profile {run.profile}:", ""]
                lines += ["```text", printed, "```", ""]
    return "\n".join(lines)


def _number_lines(exercises: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Exercises that ask for a number, with the tolerance of the check and what computes it in the notebook."""
    lines = []
    for key, one in exercises.items():
        if value := one.get("value"):
            near = f"{value['absolute']:g}" if "absolute" in value else f"{value['relative']:.0%}"
            lines.append(f"- {key}, as a number (within {near}): {value['ask']} `{value['expression']}`")
    return [*lines, ""] if lines else []


def _printed_by_solutions(plan: Plan) -> dict[str, str]:
    """What the solution of each exercise printed and what its last line returned, as text; pictures are left out."""
    found: dict[str, str] = {}
    exercise = None
    for cell in json.loads(plan.notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown" and (number := _EXERCISE.search(cell_text(cell))):
            exercise = f"{plan.lesson.number}.{number[1]}"
        elif exercise and SOLUTION_TAG in cell["metadata"].get("tags", []):
            texts = [_as_text(output) for output in cell["outputs"]]
            if printed := "\n".join(text for text in texts if text):
                found[exercise] = printed
            exercise = None
    return found


def _as_text(output: Mapping[str, Any]) -> str:
    data = output.get("data", {})
    lines = output.get("text", "") if "text" in output else data.get("text/plain", "")
    is_picture = any(kind.startswith("image/") or kind == PLOTLY for kind in data)
    return "" if is_picture or output.get("name") == "stderr" else "".join(lines).strip("\n")


def running_sheet(course: Course, plans: Sequence[Plan], titles: Mapping[str, str] | None = None) -> str:
    """Return what to show, to say, to ask and to answer: plans of a day first, then lesson by lesson.

    Slides have their numbers in `all.pptx`; exercises stand in full, those of a plan marked. A plan stands in front
    where all its lessons are among those taught.
    """
    slides: dict[str, list[tuple[int, Slide]]] = {}
    counter = count(1)
    for plan in plans:
        slides[plan.lesson.number] = [(next(counter), slide) for slide in slide_titles(plan, course.figures)]
    numbers = {plan.lesson.number for plan in plans}
    fitting = {
        name: parts
        for name, parts in course.plans.items()
        if {number for part in parts for number in part["lessons"]} <= numbers
    }
    lines = ["# Running sheet", "", *_OF_SHEET, ""]
    for name, parts in fitting.items():
        lines += [*_plan_lines(name, parts, course, slides), ""]
    lines += [*_SMALL_RUNS, ""] if fitting else []
    for plan in plans:
        lines += [f"## Lesson {lesson_title(plan)}", ""]
        for number, slide in slides[plan.lesson.number][1:]:
            about = course.figures.get(slide.figure, {})
            lines.append(f"- slide {number}: {slide.title}" + (" (may be skipped)" if about.get("skip") else ""))
            lines += [f"  - {kind}: {about[kind]}" for kind in slide.remarks]
        lines += _without_slide(plan, course)
        texts = _exercise_texts(plan, titles)
        for key, one in course.exercises.items():
            if key.startswith(f"{plan.lesson.number}."):
                within = [name for name, parts in fitting.items() if any(key in part["exercises"] for part in parts)]
                when = f"; {', '.join(within).lower()}" if within else ""
                lines += ["", f"**{key}** ({one['minutes']} min{when}). {texts.get(key, one['ask'])}", ""]
                lines.append(f"→ {one['answer']}")
        lines.append("")
    return "\n".join(lines)


def _without_slide(plan: Plan, course: Course) -> list[str]:
    """Say which figures of a lesson have no slide here, and why; nothing is said or asked at them."""
    missing = figures_without_slide(plan, course.figures)
    why = {name: course.figures[name].get("needs") for name in missing}
    return [
        f"- no slide: `{name}`, " + (f"which needs {why[name]}" if why[name] else "which this run did not draw")
        for name in missing
    ]


def _plan_lines(
    name: str, parts: Sequence[Mapping[str, Any]], course: Course, slides: Mapping[str, Sequence[tuple[int, Slide]]]
) -> list[str]:
    """A plan as a table: when, what, which slides, which exercises and how long they take."""
    lines = [f"## {name}", "", "| from | to | what | slides | exercises |", "|---|---|---|---|---|"]
    for part in parts:
        shown = [number for lesson in part["lessons"] for number, _ in slides[lesson]]
        of_slides = f"{shown[0]} to {shown[-1]}" if shown else "–"
        what = part["what"] + (" (may be skipped)" if part.get("skip") else "")
        tasks = part.get("tasks", 0)
        work = [*part["exercises"], *([f"the sheet's task{'s 1 to ' if tasks > 1 else ' '}{tasks}"] if tasks else [])]
        minutes = f" ({_work_minutes(part, course)} min)" if work else ""
        cells = (part["from"], part["to"], what, of_slides, (", ".join(work) or "–") + minutes)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_OF_SHEET = [
    "Numbers are those of the slides in `all.pptx`; behind the minutes of an exercise stand the plans that have it.",
    "Where a question comes before its figure it has a slide of its own, and the answer stands at the figure.",
]
_SMALL_RUNS = [
    "Students' notebooks run at sizes at which lessons 4, 4b and 7 have taken a few steps: the order of methods on",
    "their screens is luck, and often the reverse of what there is to say. Say so, and look at the slides together;",
    "what training comes to in the end is on the slide of lesson 4 that begins with “Longer run”.",
]


def _exercise_texts(plan: Plan, titles: Mapping[str, str] | None) -> dict[str, str]:
    """What each exercise of a lesson asks, in one line, by its number."""
    found = {}
    for cell in plan.lesson.notebook().cells:
        if cell.cell_type == "markdown" and (number := _EXERCISE.search(cell.source)):
            body = cell.source[number.end() :].replace(":::", "")
            found[f"{plan.lesson.number}.{number[1]}"] = wording.as_words(" ".join(body.split()), titles)
    return found


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
    ruler, model, others = (f"({minutes} minutes" for minutes in _TASK_MINUTES)
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
            f"2. {model}; start the notebook before you draw.) Which compounds does each model call stable that",
            "   the reference does not, or the reverse? Why do several models give one list, and by how many meV/atom?",
            "   After the cell that fills `points` with compounds that no training has seen:",
            "   `{name: sorted(r.loc[(r.model_ev < 0) != (r.reference_ev < 0), 'id']) for name, r in points.items()}`",
            f"3. {others}) For the others: one number of the lesson's table with its interval, the figure that it",
            "   belongs to, and one sentence on what it cannot show.",
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
