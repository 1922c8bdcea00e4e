"""The running sheet: what to show, to say, to ask and to answer, as Markdown and as a page with the figures."""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from crossfunc.lessons import printed_pages, wording
from crossfunc.lessons.claims import value_text
from crossfunc.lessons.course_file import Course, work_minutes
from crossfunc.lessons.freshness import check_lesson
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.results import load_results
from crossfunc.lessons.slides import (
    Slide,
    figures_without_slide,
    lesson_title,
    slide_titles,
)
from crossfunc.lessons.sources import LessonError

__all__ = ["EXERCISE", "Aside", "Block", "as_text", "read_asides", "running_blocks", "running_page"]

EXERCISE = re.compile(r":::\{admonition\} Exercise (\d+)")
TEACHING = "teach.md"
PRIMER = "functionals.md"
_BOARD = re.compile(r"^\*\*The board before lesson (\w+)\.\*\* (.*?)\n\n", re.M | re.S)
_LABELS = re.compile(r"^\d\. (Say once, early, which labels .*)$", re.M)
_NUMBERED = re.compile(r"^\d+\. (.*)$", re.M)


class Block(NamedTuple):
    """A piece of the sheet as Markdown, and the figure that stands beside it on the page."""

    text: str
    figure: str = ""


class Aside(NamedTuple):
    """What the pages of the book have for the sheet: lines on a board by lesson, what to say once, questions."""

    boards: Mapping[str, Sequence[str]] = {}
    labels: str = ""
    questions: tuple[tuple[str, str], ...] = ()


NO_ASIDE = Aside()


def read_asides(book: Path, titles: Mapping[str, str] | None = None) -> Aside:
    """Return what the page for those who teach and the one on functionals have for the sheet.

    Parameters
    ----------
    book : path
        The book's folder; what it lacks is left out.
    titles : mapping, optional
        Titles of the book's pages.

    Raises
    ------
    LessonError
        A page without its board or without what to say once, or questions without their answers.
    """
    boards: dict[str, list[str]] = {}
    labels = ""
    questions: tuple[tuple[str, str], ...] = ()
    if (page := book / TEACHING).is_file():
        text = page.read_text(encoding="utf-8")
        boards = {
            found[1].zfill(2): [wording.as_words(line, titles) for line in found[2].splitlines()]
            for found in _BOARD.finditer(text)
        }
        said = _LABELS.search(text)
        if not boards or not said:
            raise LessonError(
                f"{page}: the running sheet takes a paragraph “**The board before lesson N.**” and a point “Say once, "
                "early, which labels …” from here: keep their first words."
            )
        labels = wording.as_words(said[1], titles)
    if (page := book / PRIMER).is_file():
        asked, answered = (
            [wording.as_words(line, titles) for line in _NUMBERED.findall(body)]
            for body in _admonitions(page.read_text(encoding="utf-8"))
        )
        if len(asked) != len(answered):
            raise LessonError(f"{page}: {len(asked)} questions and {len(answered)} answers.")
        questions = tuple(zip(asked, answered, strict=True))
    return Aside(boards, labels, questions)


def _admonitions(text: str) -> tuple[str, str]:
    """The body of an admonition that asks questions, and of the one with their answers."""
    found = dict.fromkeys(("questions", "answers"), "")
    for title, body in re.findall(r"^:::\{admonition\} ([^\n]*)\n(.*?)^:::$", text, re.M | re.S):
        for kind in found:
            found[kind] = body if kind in title.lower() else found[kind]
    return found["questions"], found["answers"]


def as_text(blocks: Sequence[Block]) -> str:
    """Return the sheet as Markdown."""
    return "\n".join(block.text for block in blocks) + "\n"


def running_page(blocks: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """Return the sheet as one page of HTML, with each figure as a small picture beside its words.

    Parameters
    ----------
    blocks : sequence of Block
        From `running_blocks`.
    pictures : mapping of str to bytes
        Name of a figure to its PNG, from `slides.figure_pictures`.
    """
    parts: list[str] = []
    words = ""
    for block in blocks:
        if block.figure in pictures:
            small = printed_pages.thumbnail(pictures[block.figure])
            parts += [_rendered(words), printed_pages.beside(small, _rendered(block.text))]
            words = ""
        else:
            words += block.text + "\n"
    return printed_pages.page("Running sheet", "\n".join([*parts, _rendered(words)]), _STYLE)


def _rendered(words: str) -> str:
    """Markdown as HTML, with what there is to say, to ask and to answer in bold type."""
    return printed_pages.render(re.sub(r"^( *- )(say|ask|answer|slide \d+):", r"\1**\2**:", words, flags=re.M))


_STYLE = """
h2 { border-bottom: 2px solid #333; margin-top: 1.5em; }
.beside { display: grid; grid-template-columns: 7.5cm 1fr; gap: 0.6cm; border-top: 1px solid #ccc; padding: 0.3cm 0;
  break-inside: avoid; }
.beside img { width: 100%; max-height: 6.5cm; object-fit: contain; object-position: top; }
.beside ul { margin: 0; padding-left: 1em; } .beside > div > ul { list-style: none; padding: 0; }
"""


def running_blocks(
    course: Course,
    plans: Sequence[Plan],
    titles: Mapping[str, str] | None = None,
    *,
    students: Sequence[Plan] = (),
    aside: Aside = NO_ASIDE,
) -> list[Block]:
    """Return what to show, to say, to ask and to answer: plans of a day first, then lesson by lesson.

    Slides have their numbers in `all.pptx`; exercises stand in full, those of a plan marked. A plan stands in front
    where all its lessons are among those taught.

    Parameters
    ----------
    course : Course
    plans : sequence of Plan
        Executed lessons, whose slides are shown.
    titles : mapping, optional
        Titles of the book's pages.
    students : sequence of Plan
        The same lessons at the students' sizes; where these are fresh, the sheet has the numbers on their screens.
    aside : Aside
        From `read_asides`.
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
    own = {one.lesson.number: one for one in students}
    lines = ["# Running sheet", "", *_OF_SHEET, ""]
    for name, parts in fitting.items():
        lines += [*_plan_lines(name, parts, course, slides), ""]
    lines += [*_SMALL_RUNS, ""] if fitting else []
    lines += [*_missing_screens(course, plans, own), *_before_lessons(aside)]
    blocks = [Block(line) for line in lines]
    for plan in plans:
        number = plan.lesson.number
        lines = [f"## Lesson {lesson_title(plan)}", "", *_when(number, fitting)]
        lines += (seen := _screen_lines(course, plan, own.get(number)))
        if board := aside.boards.get(number):
            lines += ["On the board first:", "", *(f"- {line}" for line in board), ""]
        lines += ["The slides:", ""] if seen or board else []
        blocks += [Block(line) for line in lines]
        for at, slide in slides[number][1:]:
            about = course.figures.get(slide.figure, {})
            lines = [f"- slide {at}: {slide.title}" + (" (may be skipped)" if about.get("skip") else "")]
            lines += [f"  - {kind}: {about[kind]}" for kind in slide.remarks]
            blocks.append(Block("\n".join(lines), "" if slide.remarks == ("ask",) else slide.figure))
        lines = _without_slide(plan, course)
        texts = _exercise_texts(plan, titles)
        for key, one in course.exercises.items():
            if key.startswith(f"{number}."):
                within = [name for name, parts in fitting.items() if any(key in part["exercises"] for part in parts)]
                when = f"; {', '.join(within).lower()}" if within else ""
                lines += ["", f"**{key}** ({one['minutes']} min{when}). {texts.get(key, one['ask'])}", ""]
                lines.append(f"→ {one['answer']}")
        blocks += [Block(line) for line in [*lines, ""]]
    return blocks


def _when(number: str, fitting: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """When a lesson is taught, by each plan that has it."""
    times = [
        f"{name.lower()}, {part['from']} to {part['to']}"
        for name, parts in fitting.items()
        for part in parts
        if number in part["lessons"]
    ]
    return [f"When: {'; '.join(times)}.", ""] if times else []


def _before_lessons(aside: Aside) -> list[str]:
    """What is said and asked before the first lesson."""
    if not aside.labels and not aside.questions:
        return []
    lines = ["## Before the first lesson", ""]
    lines += [aside.labels, ""] if aside.labels else []
    if aside.questions:
        lines += [f"The questions of the page on functionals ({PRIMER}; the deck's last slide):", ""]
        for k, (asked, answered) in enumerate(aside.questions, start=1):
            lines += [f"{k}. {asked}", "", f"   → {answered}", ""]
    return lines


def _missing_screens(course: Course, plans: Sequence[Plan], own: Mapping[str, Plan]) -> list[str]:
    """Say which lessons were not executed at the students' sizes, and what does it."""
    lacking = [
        own[plan.lesson.number]
        for plan in plans
        if plan.lesson.number in own and course.screens.get(plan.lesson.number) and _stale(own[plan.lesson.number])
    ]
    if not lacking:
        return []
    which = " ".join(one.lesson.number for one in lacking)
    return [
        f"Of lessons {which} this sheet does not know what students will see: "
        f"`crossfunc run {which} --profile {lacking[0].profile}`, and then the command that made this sheet.",
        "",
    ]


def _stale(plan: Plan) -> bool:
    return check_lesson(plan) is not None


def _screen_lines(course: Course, plan: Plan, own: Plan | None) -> list[str]:
    """The numbers that students will see, beside those of the slides where their sizes are others."""
    keys = course.screens.get(plan.lesson.number, ())
    if own is None or not keys or (own.profile != plan.profile and _stale(own)):
        return []
    theirs = _recorded(own)
    slides = _recorded(plan) if own.profile != plan.profile else {}
    lines = []
    for key in keys:
        row, here = theirs.get(key), slides.get(key)
        if row is None:
            lines.append(f"- {wording.as_words(here['title']) if here else key}: not recorded at these sizes")
        else:
            beside = f" (slides: {value_text(here)})" if here else ""
            lines.append(f"- {wording.as_words(row['title'])}: {value_text(row)}{beside}")
    return [f"On their screens (profile {own.profile}):", "", *lines, ""]


def _recorded(plan: Plan) -> dict[str, Mapping[str, Any]]:
    stem = plan.lesson.stem
    if not (plan.results / f"{stem}.json").is_file():
        return {}
    return {row["key"]: row for row in load_results(plan.results, [stem])[stem]["results"]}


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
        work += ["the page's questions, aloud"] if part.get("questions") else []
        minutes = f" ({work_minutes(part, course)} min)" if work and (part["exercises"] or tasks) else ""
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
        if cell.cell_type == "markdown" and (number := EXERCISE.search(cell.source)):
            body = cell.source[number.end() :].replace(":::", "")
            found[f"{plan.lesson.number}.{number[1]}"] = wording.as_words(" ".join(body.split()), titles)
    return found
