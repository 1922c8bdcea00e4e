"""A course from the lessons: editions with and without solutions, checks, quizzes, slides, a sheet for each group.

Everything comes from the lessons' own files and from `notebooks/course.yml`; nothing is typed twice.
"""

import base64
import copy
import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossfunc.files import write_atomically
from crossfunc.lessons.exports import named_figures
from crossfunc.lessons.freshness import require_fresh
from crossfunc.lessons.plans import Plan, public_parameters
from crossfunc.lessons.sources import LessonError, spoken_number

__all__ = ["Course", "check", "read_course", "write_course"]

FILE = "course.yml"
ANSWERS_FILE = "answers.json"
SOLUTION_TAG = "hide-cell"
STORY_FIGURE = "fig-03-story"
_EXERCISE = re.compile(r":::\{admonition\} Exercise (\d+)")
_ANSWER = re.compile(r"\n?:::\{admonition\} Answer\n.*?\n:::\n?", re.S)
_FIELDS = {
    "exercises": {"minutes", "ask", "choices", "right", "answer"},
    "quiz": {"ask", "choices", "right", "because"},
    "groups": {"name", "elements", "binary", "by_hand"},
}


@dataclass(frozen=True)
class Course:
    """What `course.yml` says beside the lessons.

    Attributes
    ----------
    exercises : dict of str to dict
        "LESSON.EXERCISE" to minutes, ask, choices, right, answer.
    quiz : dict of str to list of dict
        Number of the lesson to questions: ask, choices, right, because.
    groups : list of dict
        Name and parameters of lesson 6 for each group.
    """

    exercises: Mapping[str, Mapping[str, Any]]
    quiz: Mapping[str, Sequence[Mapping[str, Any]]]
    groups: Sequence[Mapping[str, Any]]


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
    course = Course(content["exercises"], content["quiz"], content["groups"])
    entries = [("exercises", key, one) for key, one in course.exercises.items()]
    entries += [("quiz", f"quiz of lesson {number}", one) for number, several in course.quiz.items() for one in several]
    entries += [("groups", str(one.get("name")), one) for one in course.groups]
    for kind, name, entry in entries:
        if set(entry) != _FIELDS[kind]:
            raise LessonError(f"{path}: {name}: needs the fields {', '.join(sorted(_FIELDS[kind]))}, and no others.")
        if "right" in entry and entry["right"] not in entry["choices"]:
            raise LessonError(f"{path}: {name}: the right answer {entry['right']!r} is not among the choices.")
    return course


def write_course(plans: Iterable[Plan], out: Path, course: Course) -> list[Path]:
    """Write the editions, checks, quizzes, slides and sheets of executed lessons.

    Parameters
    ----------
    plans : iterable of Plan
        From `plan_run`; their lessons must be fresh.
    out : path
        Folder to write; made if it is not there.
    course : Course

    Returns
    -------
    list of Path
        `students/` (notebooks without solutions, answers and outputs, `answers.json` for `check`, `quiz.md`),
        `instructors/` (executed notebooks with solutions in sight, `plan.md`, `quiz.md` with answers), `slides/`,
        `groups/`, `handout.pdf`.

    Raises
    ------
    LessonError
        A lesson that is not fresh, or an exercise that `course.yml` does not know.
    """
    plans = list(plans)
    require_fresh(plans, "a course is made")
    written = []
    for plan in plans:
        written.append(_write(out / "students" / f"{plan.lesson.stem}.ipynb", _dump(student_notebook(plan, course))))
        executed = json.loads(plan.notebook.read_text(encoding="utf-8"))
        written.append(_write(out / "instructors" / f"{plan.lesson.stem}.ipynb", _dump(unfold(executed))))
        written.append(write_slides(plan, out / "slides" / f"{plan.lesson.stem}.pptx"))
    numbers = [plan.lesson.number for plan in plans]
    written.append(_write(out / "students" / ANSWERS_FILE, _dump(answers(course, numbers))))
    written.append(_write(out / "students" / "quiz.md", quiz_text(course, numbers)))
    written.append(_write(out / "instructors" / "quiz.md", quiz_text(course, numbers, with_answers=True)))
    written.append(_write(out / "instructors" / "plan.md", plan_text(course, plans)))
    for k, group in enumerate(course.groups):
        name = f"{chr(ord('A') + k)}-{'-'.join(group['elements'])}"
        written.append(_write(out / "groups" / f"{name}.md", group_text(chr(ord("A") + k), group)))
    return [*written, write_handout(plans, out / "handout.pdf")]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def _dump(content) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# --- editions ---


def student_notebook(plan: Plan, course: Course) -> dict:
    """Return the lesson without solutions, answers and outputs; each exercise with an empty cell and its check."""
    import nbformat

    source = json.loads(nbformat.writes(plan.lesson.notebook()))
    cells, exercise = [], None
    for cell in source["cells"]:
        text = _text(cell)
        if cell["cell_type"] == "markdown":
            if found := _EXERCISE.search(text):
                exercise = f"{plan.lesson.number}.{found[1]}"
            cells.append({**cell, "source": _ANSWER.sub("\n", text)})
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
    return "\n".join([f"# Values of the profile {plan.profile} in place of the lesson's own.", *lines]) if lines else ""


def _to_do(cell: dict, exercise: str, about: Mapping[str, Any]) -> list[dict]:
    """An empty cell to work in, and one that checks the answer."""
    choices = "\n".join(f"#   {choice}" for choice in shuffled(about["choices"], exercise))
    checked = f"# {about['ask']}\n{choices}\nfrom crossfunc.lessons.course import check\n\ncheck({exercise!r}, ...)"
    common: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    return [
        {**common, "id": f"{cell.get('id', exercise)}-own", "source": f"# About {about['minutes']} minutes.\n"},
        {**common, "id": f"{cell.get('id', exercise)}-check", "source": checked},
    ]


def unfold(notebook: dict) -> dict:
    """Return an executed notebook with every folded cell in sight."""
    shown = copy.deepcopy(notebook)
    for cell in shown["cells"]:
        tags = cell["metadata"].get("tags", [])
        cell["metadata"]["tags"] = [tag for tag in tags if not tag.startswith("hide-")]
    return shown


def _text(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


# --- checks ---


def answers(course: Course, numbers: Sequence[str]) -> dict:
    """Return what `check` compares with: hashes, so that nobody reads an answer by accident."""
    return {
        key: {"ask": one["ask"], "choices": shuffled(one["choices"], key), "right": _hash(key, one["right"])}
        for key, one in course.exercises.items()
        if key.partition(".")[0] in numbers
    }


def shuffled(choices: Sequence[str], key: str) -> list[str]:
    """Return the choices in an order that depends on the exercise alone."""
    return random.Random(key).sample(list(choices), len(choices))  # noqa: S311, no secret


def _hash(key: str, answer: str) -> str:
    return hashlib.sha256(f"{key}: {' '.join(answer.lower().split())}".encode()).hexdigest()


def check(exercise: str, answer: Any = ..., *, file: str | Path = ANSWERS_FILE) -> str:
    """Say whether an answer to an exercise is right.

    Parameters
    ----------
    exercise : str
        "LESSON.EXERCISE", as in "03.2".
    answer : str
        One of the choices; left out, the question and the choices are returned.
    file : str or path
        The `answers.json` that came with the notebook.

    Returns
    -------
    str
        "right", or "not yet" with what to do.

    Raises
    ------
    LessonError
        No such file or exercise, or an answer that is none of the choices; lists them.
    """
    try:
        known = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LessonError(f"{file}: no answers here ({error}); run the notebook in the folder it came in.") from error
    if exercise not in known:
        raise LessonError(f"no exercise {exercise!r}; there are: {', '.join(known)}.")
    about = known[exercise]
    listed = "; ".join(about["choices"])
    if answer is ...:
        return f"{about['ask']} {listed}"
    said = " ".join(str(answer).lower().split())
    if said not in [" ".join(str(choice).lower().split()) for choice in about["choices"]]:
        raise LessonError(f"exercise {exercise}: {answer!r} is none of the choices: {listed}.")
    return "right" if _hash(exercise, said) == about["right"] else "not yet: look at what you computed once more"


# --- words ---


def quiz_text(course: Course, numbers: Sequence[str], *, with_answers: bool = False) -> str:
    """Return the quiz as Markdown: choices with letters, and with answers and reasons for those who teach."""
    lines = ["# Quiz" + (" with answers" if with_answers else ""), ""]
    for number in [n for n in numbers if n in course.quiz]:
        lines += [f"## Lesson {spoken_number(number)}", ""]
        for k, one in enumerate(course.quiz[number], start=1):
            choices = shuffled(one["choices"], f"{number}-{k}")
            lines += [f"{k}. {one['ask']}", ""]
            lines += [f"   {chr(ord('a') + i)}. {choice}" for i, choice in enumerate(choices)]
            if with_answers:
                letter = chr(ord("a") + choices.index(one["right"]))
                lines += ["", f"   **{letter}**: {one['because']}"]
            lines.append("")
    return "\n".join(lines)


def plan_text(course: Course, plans: Sequence[Plan]) -> str:
    """Return a sheet for those who teach: minutes and expected answer of each exercise, and the sum per lesson."""
    lines = ["# Exercises: minutes and expected answers", ""]
    for plan in plans:
        own = {key: one for key, one in course.exercises.items() if key.startswith(f"{plan.lesson.number}.")}
        if not own:
            continue
        total = sum(one["minutes"] for one in own.values())
        lines += [f"## {lesson_title(plan)} ({total} minutes of exercises)", ""]
        lines += ["| exercise | minutes | expected answer | right choice |", "|---|---|---|---|"]
        lines += [f"| {key} | {one['minutes']} | {one['answer']} | {one['right']} |" for key, one in own.items()]
        lines.append("")
    return "\n".join(lines)


def lesson_title(plan: Plan) -> str:
    """Return "3. Element references bring the functionals together"."""
    for cell in json.loads(plan.notebook.read_text(encoding="utf-8"))["cells"]:
        if _text(cell).startswith("# "):
            return f"{spoken_number(plan.lesson.stem)}. {_text(cell).splitlines()[0].removeprefix('# ')}"
    return plan.lesson.stem


def group_text(letter: str, group: Mapping[str, Any]) -> str:
    """Return the sheet of one group: its chemical system, the command, what to bring back."""
    listed = {"elements": group["elements"], "binary": group["binary"], "ternary": group["elements"]}
    options = [f"-p '{name}=[{', '.join(values)}]'" for name, values in listed.items()]
    options.append(f"-p by_hand={group['by_hand']}")
    command = " ".join([".venv/bin/crossfunc run 06 --profile smoke", *options, f"--out group-{letter}"])
    return "\n".join(
        [
            f"# Group {letter}: {group['name']}",
            "",
            "Lesson 6 on a chemical system of your own. Run it, then work through its notebook:",
            "",
            "```bash",
            command,
            "```",
            "",
            f"The executed notebook is `group-{letter}/notebooks/06_hull_workflow.ipynb`.",
            "",
            f"1. Compute the decomposition energy of {group['by_hand']} with pencil and ruler, then compare.",
            "2. Which phases does each model put on the hull, and which of them does the reference not have?",
            "3. One figure with its interval for the others, and one sentence on what it cannot show.",
            "",
        ]
    )


# --- slides and hand-out ---


def write_slides(plan: Plan, path: Path) -> Path:
    """Write a lesson's slides: its goal, a slide for each static figure with its caption as title, its recap.

    PowerPoint's format, which LibreOffice and Keynote read too, because slides are edited before they are shown. The
    figure's description is its alternative text and stands in the notes.
    """
    from pptx import Presentation

    deck = Presentation()
    cells = json.loads(plan.notebook.read_text(encoding="utf-8"))["cells"]
    front = deck.slides.add_slide(deck.slide_layouts[0])
    _fill(front.shapes.title, lesson_title(plan), 40)
    _fill(front.placeholders[1], plain(_goal(cells)), 24)
    for note, data in named_figures(plan.notebook):
        if "image/png" in data:
            _add_figure(deck, note, base64.b64decode(data["image/png"]))
    if points := _recap(cells):
        last = deck.slides.add_slide(deck.slide_layouts[1])
        _fill(last.shapes.title, "Recap", 32)
        _fill(last.placeholders[1], "\n".join(points), 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    deck.save(str(path))
    return path


def _add_figure(deck, note: Mapping[str, str], png: bytes) -> None:
    from io import BytesIO

    slide = deck.slides.add_slide(deck.slide_layouts[5])
    _fill(slide.shapes.title, plain(note["caption"]), 22)
    picture = slide.shapes.add_picture(BytesIO(png), 0, 0)
    top, margin = int(0.24 * deck.slide_height), int(0.04 * deck.slide_width)
    scale = min((deck.slide_width - 2 * margin) / picture.width, (deck.slide_height - top - margin) / picture.height)
    picture.width, picture.height = int(picture.width * scale), int(picture.height * scale)
    picture.left, picture.top = (deck.slide_width - picture.width) // 2, top
    picture._element.nvPicPr.cNvPr.set("descr", note["alt"])
    slide.notes_slide.notes_text_frame.text = note["alt"]


def _fill(shape, text: str, points: int) -> None:
    """Put text into a placeholder at a size that leaves room for the longest captions."""
    from pptx.util import Pt

    shape.text = text
    for paragraph in shape.text_frame.paragraphs:
        paragraph.font.size = Pt(points)


def _goal(cells: Sequence[Mapping[str, Any]]) -> str:
    found = re.search(r"\*\*Goal\*\*: (.*)", "\n".join(_text(cell) for cell in cells))
    return found[1] if found else ""


def _recap(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    for cell in cells:
        if cell["cell_type"] == "markdown" and _text(cell).startswith("## Recap"):
            return [plain(line[2:]) for line in _text(cell).splitlines() if line.startswith("- ")]
    return []


def plain(text: str) -> str:
    """Return Markdown as words for a slide: without roles, references and marks of emphasis."""
    text = re.sub(r"\s*\(?\{(?:numref|eq)\}`[^`]*`\)?", "", text)
    text = re.sub(r"\{\w+\}`([^`<]*?)(?: ?<[^`]*>)?`", lambda found: found[1], text)
    text = re.sub(r"\\mathbf|\\mathrm|\\hat|[$`*{}]", "", text)
    return " ".join(text.replace("\\", "").split())


def write_handout(plans: Sequence[Plan], path: Path) -> Path:
    """Write one page for the wall: the first points of each lesson's recap, and the figure of lesson 3's story."""
    from crossfunc.lessons.figures.handout import draw_handout

    sections, story = [], None
    for plan in plans:
        cells = json.loads(plan.notebook.read_text(encoding="utf-8"))["cells"]
        points = "  ".join(f"• {point}" for point in _recap(cells)[:2])
        sections.append((lesson_title(plan), points or plain(_goal(cells))))
        for note, data in named_figures(plan.notebook):
            if note["name"] == STORY_FIGURE and "image/png" in data:
                story = base64.b64decode(data["image/png"])
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_handout("Carrying a potential over to another functional", sections, story).savefig(path, format="pdf")
    return path
