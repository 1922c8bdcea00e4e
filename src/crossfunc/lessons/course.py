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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

from crossfunc.datasets import open_dataset
from crossfunc.files import write_atomically
from crossfunc.lessons import debate, group_outcomes, group_sheets, printed_pages, running_sheet, wording
from crossfunc.lessons.course_file import FILE, GROUP_LESSON, Course, lessons_of, of_plan, read_course, tasks_asked
from crossfunc.lessons.course_texts import MAIL, START, contents_text
from crossfunc.lessons.exports import PLOTLY
from crossfunc.lessons.freshness import check_lesson, require_fresh
from crossfunc.lessons.laboratory import one_file
from crossfunc.lessons.plans import Plan, public_parameters
from crossfunc.lessons.profiles import DEFAULT_PROFILE
from crossfunc.lessons.read_off import read_off
from crossfunc.lessons.slides import (
    cell_text,
    draw_interactive,
    figure_pictures,
    lesson_title,
    write_handout,
    write_page_slides,
    write_slides,
)
from crossfunc.lessons.sources import LessonError, spoken_number
from crossfunc.lessons.written_folder import check_own, draft_folder, move_in
from crossfunc.plain_text import fenced

__all__ = [
    "FILE",
    "Course",
    "check",
    "expected_number",
    "lessons_of",
    "needs_outcomes",
    "of_plan",
    "read_course",
    "write_course",
]

ANSWERS_FILE = "answers.json"
SOLUTION_TAG = "hide-cell"
LIVE = "laboratory.md"
SECOND = 2
"""Task of a group's sheet whose key only its executed notebook has."""


def write_course(
    plans: Iterable[Plan],
    out: Path,
    course: Course,
    *,
    students: Iterable[Plan] | None = None,
    day: str | None = None,
    run_groups: bool = False,
    report: Callable[[str], None] = lambda _: None,
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
    day : str, optional
        A plan of the course: running sheet and answers have that plan and its exercises alone.
    run_groups : bool
        Execute the lesson of the groups for each of them, for what their second task comes to; what an earlier call
        kept of these is taken in any case.
    report : callable
        Called with a line for people as each group is done.

    Returns
    -------
    written : list of Path
        `README.md` (what is what, what to print and to bring, the room), `students-mail.md` (for a week before),
        `students/` (notebooks without solutions, answers and outputs, `answers.json` for `check`, `START.md`, `quiz.md`
        and one per lesson, the page on functionals, and `laboratory.html`, the heart of lessons 1 to 3 for a browser
        without Python), `instructors/` (executed notebooks with solutions in sight, the running sheet as
        `running-sheet.html` with figures and as Markdown, `answers.md`, `quiz.md` with answers, `groups.md` with those
        of the sheets, `debate.md`), `slides/` (a deck per lesson, `all.pptx`, and one on functionals), `groups/` (a
        folder for each, with its sheet and its notebook), `print/` (sheets of the groups, slips of the debate, the
        quiz, `handout.pdf`).
    notice : str
        Why interactive figures are words on the slides; empty where they are drawn.

    Raises
    ------
    LessonError
        A lesson that is not fresh, an exercise that `course.yml` does not know, a plan that it does not have or whose
        lessons are not among those taught, a folder of others, or one with files that somebody has changed since they
        were written.
    """
    plans = list(plans)
    own = list(students) if students is not None else plans
    shown = course if day is None else _shown(course, day, plans)
    require_fresh(plans, "a course is made")
    check_own(out)
    figures = read_off(course.figures, plans)
    course, shown = replace(course, figures=figures), replace(shown, figures=figures)
    draft = draft_folder(out)
    try:
        written, notice = _make(plans, own, draft, course, shown, run_groups, report)
        move_in(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return [out / path.relative_to(draft) for path in written], notice


def _shown(course: Course, day: str, plans: Sequence[Plan]) -> Course:
    """The course with one plan alone, whose lessons are all taught."""
    shown = of_plan(course, day)
    if missing := [number for number in lessons_of(course, day) if number not in {p.lesson.number for p in plans}]:
        raise LessonError(f"the plan {day!r} teaches lessons {', '.join(missing)} too: name them, or no lesson at all.")
    return shown


def needs_outcomes(course: Course, day: str) -> bool:
    """Return whether a plan of the course has the groups do the task whose key only their notebooks have."""
    return tasks_asked(of_plan(course, day)) >= SECOND


def _make(
    plans: list[Plan],
    own: list[Plan],
    out: Path,
    course: Course,
    shown: Course,
    run_groups: bool,
    report: Callable[[str], None],
) -> tuple[list[Path], str]:
    book = plans[0].lesson.path.parents[1] / "book" if plans else Path("book")
    titles = wording.page_titles(book)
    rooms = [_prepare_groups(p, course, titles, run_groups, report) for p in own if p.lesson.number == GROUP_LESSON]
    drawn, notice = draw_interactive(plans)
    written, spoken = [], (course.figures, course.slides)
    for plan, of_students in zip(plans, own, strict=True):
        stem = plan.lesson.stem
        written.append(_write(out / "students" / f"{stem}.ipynb", _dump(student_notebook(of_students, course, titles))))
        executed = json.loads(plan.notebook.read_text(encoding="utf-8"))
        written.append(_write(out / "instructors" / f"{stem}.ipynb", _dump(unfold(executed, titles))))
        written.append(write_slides([plan], out / "slides" / f"{stem}.pptx", titles, drawn, *spoken))
    written.append(write_slides(plans, out / "slides" / "all.pptx", titles, drawn, *spoken))
    numbers = [plan.lesson.number for plan in plans]
    written.append(_write(out / "students" / ANSWERS_FILE, _dump(answers(course, numbers))))
    written += _write_quizzes(course, numbers, out)
    written += _write_pages(book, out, titles, course.primer)
    found = debate.rulings(book.parent, [one["claim"] for one in course.debate], plans, titles) if course.debate else {}
    quiz = {number: quiz_key(course, number) for number in numbers if number in course.quiz}
    keys = [block for room in rooms for block in _sheet_of_groups(room, shown)]
    printed = {key: text for plan in plans for key, text in _printed_by_solutions(plan).items()}
    aside = running_sheet.read_asides(book, titles)
    aside = aside._replace(groups=tuple(keys), quiz=quiz, rulings=found, printed=printed)
    written += _write_sheet(shown, plans, own, out, aside, titles, drawn)
    written.append(_write(out / "instructors" / "answers.md", answers_text(shown, plans, own)))
    if course.debate:
        written.append(_write(out / "instructors" / "debate.md", debate.debate_text(course.debate, found)))
        written.append(_write(out / "print" / "debate-slips.html", debate.slips_page(course.debate, found)))
    written.append(_write(out / "students" / "START.md", START))
    written.append(_write(out / "students-mail.md", MAIL))
    for room in rooms:
        written += _write_groups(room, course, out)
    written.append(write_handout(plans, out / "print" / "handout.pdf", titles, course.handout))
    files = {path.relative_to(out).as_posix() for path in written}
    return [*written, _write(out / "README.md", contents_text(course, files))], notice


def _write_quizzes(course: Course, numbers: Sequence[str], out: Path) -> list[Path]:
    """Write the quiz whole and lesson by lesson, for a printer, and with answers."""
    taught = [number for number in numbers if number in course.quiz]
    text, folder = quiz_text(course, numbers), out / "students"
    parts = [_write(folder / f"quiz-{spoken_number(n)}.md", quiz_text(course, [n])) for n in taught]
    key = _write(out / "instructors" / "quiz.md", quiz_text(course, numbers, with_answers=True))
    paper = _write(out / "print" / "quiz.html", printed_pages.sheets("Quiz", [text]))
    return [*parts, _write(folder / "quiz.md", text), key, paper]


def _write_pages(book: Path, out: Path, titles: Mapping[str, str], say: Mapping[str, str]) -> list[Path]:
    """Write the pages of the book that a course hands out: the one on functionals, and the lessons in a browser."""
    written = []
    if (primer := book / running_sheet.PRIMER).is_file():
        text, name = primer.read_text(encoding="utf-8"), primer.name
        written.append(_write(out / "students" / name, wording.as_markdown(wording.without_answers(text), titles)))
        written.append(_write(out / "instructors" / name, wording.as_markdown(text, titles)))
        written.append(write_page_slides(text, out / "slides" / f"{primer.stem}.pptx", titles, say))
    if (live := book / LIVE).is_file():
        page = one_file(live.read_text(encoding="utf-8"), titles)
        written.append(_write(out / "students" / live.with_suffix(".html").name, page))
    return written


def _write_sheet(
    course: Course, plans: list[Plan], own: list[Plan], out: Path, aside: running_sheet.Aside, titles, drawn
) -> list:
    """Write the running sheet as Markdown and as a page with the slides' figures."""
    blocks = running_sheet.running_blocks(course, plans, titles, students=own, aside=aside)
    pictures = {name: png for plan in plans for name, png in figure_pictures(plan, drawn).items()}
    folder = out / "instructors"
    page = _write(folder / "running-sheet.html", running_sheet.running_page(blocks, pictures))
    return [page, _write(folder / "running-sheet.md", running_sheet.as_text(blocks))]


class _Group(NamedTuple):
    """A group: its entry in `course.yml`, its notebook, the key of its first task, phases of its binary, the sum."""

    about: Mapping[str, Any]
    notebook: dict
    key: tuple[str, str, str, str]
    phases: Any
    lever: str

    @property
    def letter(self) -> str:
        return self.key[0]


class _Room(NamedTuple):
    """The lesson of the groups, the groups, and what their second task comes to where that is known."""

    plan: Plan
    groups: list[_Group]
    outcomes: Mapping[str, group_outcomes.Outcome]


def _prepare_groups(
    plan: Plan, course: Course, titles: Mapping[str, str], run_them: bool, report: Callable[[str], None]
) -> _Room:
    """Make each group's notebook and keys; what their second task comes to is executed where `run_them`."""
    from crossfunc.lessons import verdicts

    dataset, groups = open_dataset(plan.dataset), []
    for letter, about in zip(ascii_uppercase, course.groups, strict=False):
        its_own = {"elements": about["elements"], "binary": about["binary"], "ternary": about["elements"]}
        of_group = replace(plan, parameters={**plan.parameters, **its_own, "by_hand": about["by_hand"]})
        phases = verdicts.lowest_phases(dataset, about["binary"])
        left, right, energy = verdicts.decompose(phases, about["by_hand"])
        key = (letter, about["by_hand"], f"{left} + {right}", f"{energy:+.3f} eV/atom")
        lever = group_sheets.lever_line(phases, about["by_hand"], left, right, energy)
        groups.append(_Group(about, student_notebook(of_group, course, titles), key, phases, lever))
    notebooks = {group.letter: group.notebook for group in groups}
    return _Room(plan, groups, group_outcomes.find_outcomes(plan, notebooks, run=run_them, report=report))


def _sheet_of_groups(room: _Room, shown: Course) -> list[running_sheet.Block]:
    """The keys of the groups' tasks for the running sheet, of those that a plan has; the first group's in full."""
    if not room.groups:
        return []
    keys = group_sheets.key_lines([group.key for group in room.groups])
    mine, *others = [f"- {key}\n  - {group.lever}" for key, group in zip(keys, room.groups, strict=True)]
    tasks, front = tasks_asked(shown), room.groups[0]
    brief = [f"{k}. {words}" for k, words in enumerate(group_sheets.IN_BRIEF[:tasks], start=1)]
    lines = [group_sheets.LEVER, "", "On the sheet of each group:", "", *brief, ""]
    lines += [_OF_FIRST.format(front.letter, front.key[1]), ""]
    lines += [*group_sheets.phase_lines(front.about["binary"][1], front.phases), "", mine, ""]
    blocks = running_sheet.black([*lines, group_sheets.FIRST_ANSWER, ""])
    blocks += running_sheet.grey([_OF_OTHERS, "", *others, ""] if others else [])
    if tasks >= SECOND:
        blocks += running_sheet.grey(group_sheets.second_task_lines(room.outcomes))
        unknown = group_sheets.unknown_lines([group.letter for group in room.groups], room.outcomes)
        blocks += running_sheet.black([*unknown, group_sheets.GOOD_ANSWER, ""])
    if tasks > SECOND:
        blocks += running_sheet.black([f"{_OF_THIRD} {group_sheets.THIRD_ANSWER}", ""])
    return blocks


_OF_FIRST = "Group {}'s first task, to do by hand before you teach; {} is what is left out of the drawing:"
_OF_OTHERS = "What the first task of the other groups comes to, with the numbers on their sheets (eV/atom):"
_OF_THIRD = "The third task, for all: a number with its interval, and a sentence on it."


def _write_groups(room: _Room, course: Course, out: Path) -> list[Path]:
    """Write a folder for each group: its sheet, the lesson on its system without solutions, and the checks."""
    written, sheets, lesson = [], [], room.plan.lesson
    for group in room.groups:
        folder = out / "groups" / f"{group.letter}-{'-'.join(group.about['elements'])}"
        written.append(_write(folder / f"{lesson.stem}.ipynb", _dump(group.notebook)))
        written.append(_write(folder / ANSWERS_FILE, _dump(answers(course, [lesson.number]))))
        sheets.append(group_sheets.group_text(group.letter, group.about, lesson.stem, group.phases))
        written.append(_write(folder / "sheet.md", sheets[-1]))
    paper = printed_pages.sheets("Sheets of the groups", sheets, grid=True)
    written.append(_write(out / "print" / "group-sheets.html", paper))
    key = group_sheets.key_text([group.key for group in room.groups], room.outcomes)
    return [*written, _write(out / "instructors" / "groups.md", key)]


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
            if found := running_sheet.EXERCISE.search(text):
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


def quiz_key(course: Course, number: str) -> list[str]:
    """Return the key of a lesson's quiz, a line for each question, with the options that are wrong at its end.

    "**1 b**: The error goes ... **down**. A mean. *not: a) up; c) nowhere*".
    """
    found = []
    for k, one in enumerate(course.quiz[number], start=1):
        choices = dict(zip(ascii_lowercase, shuffled(one["choices"], f"{number}-{k}"), strict=False))
        letter = next(at for at, choice in choices.items() if choice == one["right"])
        others = "; ".join(f"{at}) {choice}" for at, choice in choices.items() if at != letter)
        found.append(f"**{k} {letter}**: {one['ask']} **{one['right']}**. {one['because']} *not: {others}*")
    return found


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
            printed_by = _printed_by_solutions(run)
            for key, printed in [(key, printed_by[key]) for key in own if key in printed_by]:
                lines += [f"The solution of {key} prints, at the sizes of the profile {run.profile}:", ""]
                lines += [*fenced(printed), ""]
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
        if cell["cell_type"] == "markdown" and (number := running_sheet.EXERCISE.search(cell_text(cell))):
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
