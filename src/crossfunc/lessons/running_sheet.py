"""The running sheet: what to show, to say, to ask and to answer, as Markdown and as a page with the figures."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count, groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from crossfunc.lessons import debate, printed_pages, wording
from crossfunc.lessons.claims import value_text
from crossfunc.lessons.course_file import GROUP_LESSON, Course, inside, work_minutes
from crossfunc.lessons.freshness import check_lesson
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.results import listed, load_if_recorded
from crossfunc.lessons.slides import (
    MORE,
    RECAP,
    Slide,
    figures_without_slide,
    lesson_title,
    page_slide_titles,
    slide_titles,
)
from crossfunc.lessons.sources import LessonError, spoken_number
from crossfunc.plain_text import fenced, visible

__all__ = ["EXERCISE", "Aside", "Block", "as_text", "black", "grey", "read_asides", "running_blocks", "running_page"]

EXERCISE = re.compile(r":::\{admonition\} Exercise (\d+)")
TEACHING = "teach.md"
PRIMER = "functionals.md"
_BOARD = re.compile(r"^\*\*The board (before|in) lesson (\w+)\.\*\* (.*?)\n\n", re.M | re.S)
_LOOK_UPS = re.compile(r"^\*\*Who and what, in a line each\.\*\* (.*?)\n\n", re.M | re.S)
_LESSONS = re.compile(r"\blessons? (\d+b?(?:(?:, | and )\d+b?)*)")
_SLIDE = re.compile(r"\{slide ([\w-]+)\}")
_LABELS = re.compile(r"^\d\. (Say once, early, which labels .*)$", re.M)
_PRINTED = 2
_NUMBERED = re.compile(r"^\d+\. (.*)$", re.M)


class Block(NamedTuple):
    """A piece of the sheet as Markdown, and the figure that stands beside it on the page.

    What is for `later` need not be read in preparation: the page has it in grey.
    """

    text: str
    figure: str = ""
    later: bool = False


class Aside(NamedTuple):
    """What stands on the sheet beside lessons, from the pages of the book and from the course's other papers.

    Lines on a board by lesson, those before it and those within, what to say once, questions, who and what a day speaks
    of, slides of the page on functionals; then the keys of the groups' tasks, that of the quiz by lesson, the rulings
    of the debate, and what the solutions of exercises print.
    """

    boards: Mapping[str, Sequence[str]] = {}
    boards_within: Mapping[str, Sequence[str]] = {}
    labels: str = ""
    questions: tuple[tuple[str, str], ...] = ()
    look_ups: tuple[str, ...] = ()
    primer: tuple[str, ...] = ()
    groups: tuple[Block, ...] = ()
    quiz: Mapping[str, Sequence[str]] = {}
    rulings: Mapping[str, debate.Ruling] = {}
    printed: Mapping[str, str] = {}


NO_ASIDE = Aside()


def read_asides(book: Path, titles: Mapping[str, str] | None = None) -> Aside:
    """Return what the page for those who teach and the one on functionals have for the sheet; other fields are empty.

    Parameters
    ----------
    book : path
        The book's folder; what it lacks is left out.
    titles : mapping, optional
        Titles of the book's pages.

    Raises
    ------
    LessonError
        A page without its board, without what to say once or who and what there is, or questions without answers.
    """
    boards: dict[str, dict[str, list[str]]] = {"before": {}, "in": {}}
    labels = ""
    look_ups: tuple[str, ...] = ()
    primer: tuple[str, ...] = ()
    questions: tuple[tuple[str, str], ...] = ()
    if (page := book / TEACHING).is_file():
        text = page.read_text(encoding="utf-8")
        for when, lesson, body in _BOARD.findall(text):
            boards[when][_number_of(lesson)] = [wording.as_words(line, titles) for line in body.splitlines()]
        said, lines = _LABELS.search(text), _LOOK_UPS.search(text)
        if not boards["before"] or not said or not lines:
            raise LessonError(
                f"{page}: the running sheet takes a paragraph “**The board before lesson N.**”, one “**Who and what, "
                "in a line each.**” and a point “Say once, early, which labels …” from here: keep their first words."
            )
        look_ups = tuple(wording.as_words(line, titles) for line in lines[1].splitlines())
        labels = wording.as_words(said[1], titles)
    if (page := book / PRIMER).is_file():
        primer = tuple(page_slide_titles(page.read_text(encoding="utf-8")))
        asked, answered = (
            [wording.as_words(line, titles) for line in _NUMBERED.findall(body)]
            for body in _admonitions(page.read_text(encoding="utf-8"))
        )
        if len(asked) != len(answered):
            raise LessonError(f"{page}: {len(asked)} questions and {len(answered)} answers.")
        questions = tuple(zip(asked, answered, strict=True))
    return Aside(boards["before"], boards["in"], labels, questions, look_ups, primer)


def _number_of(spoken: str) -> str:
    """A lesson's number from how it is spoken of: "04b" of "4b"."""
    return spoken.zfill(2 + (not spoken.isdigit()))


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
    if any(block.later for block in blocks):
        blocks = [blocks[0], Block(f"\n{_OF_GREY}\n"), *blocks[1:]]
    parts: list[str] = []
    for (later, figure, _), those in groupby(blocks, lambda one: _on_page(one, pictures)):
        words = _rendered("".join(f"{block.text}\n" for block in those))
        if figure:
            words = printed_pages.beside(printed_pages.thumbnail(pictures[figure]), words)
        parts.append(f'<div class="later">{words}</div>' if later else words)
    return printed_pages.page("Running sheet", "\n".join(parts), _STYLE)


def _on_page(block: Block, pictures: Mapping[str, bytes]) -> tuple[bool, str, str]:
    """What blocks have in common that stand together on the page; a block with a figure stands alone."""
    figure = block.figure if block.figure in pictures else ""
    return block.later, figure, block.text if figure else ""


def _rendered(words: str) -> str:
    """Markdown as HTML: what there is to say, to ask and to answer bold, what waits grey, and wrong options small."""
    page = printed_pages.render(re.sub(_KEYS, r"\1**\2**:", words, flags=re.M))
    page = page.replace(f"<li>{MORE}: ", f'<li class="later">{MORE}: ')
    return page.replace("<em>not: ", '<em class="not">not: ')


_OF_GREY = "What is grey is for the room: read it tomorrow at its slide, and today only what is black."
_POINTS = "on the slide"
_KEYS = rf"^( *- )(say|ask|answer|best for|best against|to close|the board|{_POINTS}|slide \d+):"
_STYLE = """
body { font-size: 10pt; line-height: 1.35; }
p, ul, ol { margin: 0.5em 0; } li ul { margin: 0; } ul, ol { padding-left: 1.4em; }
h2 { border-bottom: 2px solid #333; margin-top: 1.2em; }
.beside { display: grid; grid-template-columns: 10cm 1fr; gap: 0.6cm; border-top: 1px solid #ccc; padding: 0.2cm 0;
  break-inside: avoid; }
.not { font-size: 0.85em; font-style: normal; color: #555; }
h3 { font-size: 1em; margin: 1em 0 0.3em; } h3 ~ p, h3 ~ ul { margin: 0.2em 0; }
h3 + p { break-after: avoid; } h3 ~ ul { break-inside: avoid; }
pre { margin: 0.2em 0; font-size: 0.9em; }
.later { color: #767676; font-size: 0.85em; }
.beside img { width: 100%; max-height: 8cm; object-fit: contain; object-position: top; }
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
        slides[plan.lesson.number] = [(next(counter), slide) for slide in _slides_of(plan, course, titles)]
    numbers = {plan.lesson.number for plan in plans}
    fitting = {
        name: parts
        for name, parts in course.plans.items()
        if {number for part in parts for number in part["lessons"]} <= numbers
    }
    own = {one.lesson.number: one for one in students}
    lines = ["# Running sheet", "", *_OF_SHEET, *(_OF_PLANS if len(fitting) > 1 else []), ""]
    for name, parts in fitting.items():
        lines += [*_plan_lines(name, parts, course, slides), ""]
    lines += [*_SMALL_RUNS, ""] if fitting else []
    lines += [*_missing_screens(course, plans, own)]
    lines += ["## Who and what", "", *(f"- {line}" for line in aside.look_ups), ""] if aside.look_ups else []
    at_slide = {slide.figure: f"slide {at}" for shown in slides.values() for at, slide in shown if slide.figure}
    blocks = [*black(lines), *_before_lessons(aside, course, numbers)]
    for plan in plans:
        number = plan.lesson.number
        blocks += black([f"## Lesson {lesson_title(plan)}", "", *_when_taught(number, fitting, course)])
        before = _before_slides(plan, course, own.get(number), aside)
        blocks += [*before, *black(["The slides:", ""])] if before else []
        blocks += _slide_blocks(slides[number], course, aside.boards_within.get(number, ()))
        blocks += grey(_without_slide(plan, course))
        blocks += [*_exercise_blocks(plan, course, fitting, at_slide, titles, aside.printed), Block("")]
    return [*blocks, *_after_lessons(aside, fitting, course, numbers)]


def black(lines: Iterable[str]) -> list[Block]:
    """Return lines that are read in preparation, a block each."""
    return [Block(line) for line in lines]


def grey(lines: Iterable[str]) -> list[Block]:
    """Return lines that are for the room, a block each."""
    return [Block(line, later=True) for line in lines]


def _before_slides(plan: Plan, course: Course, own: Plan | None, aside: Aside) -> list[Block]:
    """What there is to a lesson before its slides: numbers on screens, a board, the keys of the groups' tasks."""
    blocks = grey(_screen_lines(course, plan, own))
    if board := aside.boards.get(plan.lesson.number):
        blocks += black(["On the board first:", "", *(f"- {line}" for line in board), ""])
    if aside.groups and plan.lesson.number == GROUP_LESSON:
        blocks += aside.groups
    return blocks


def _slides_of(plan: Plan, course: Course, titles: Mapping[str, str] | None) -> list[Slide]:
    return slide_titles(plan, course.figures, course.slides.get(plan.lesson.number), titles)


def _slide_blocks(shown: Sequence[tuple[int, Slide]], course: Course, board: Sequence[str]) -> list[Block]:
    """A lesson's slides, its goal where something is said at it, a board in front of the recap, whose list is grey."""
    (first, front), *others = shown
    goal = [(first, front._replace(title="the goal"))] if front.say else []
    blocks = [_slide_block(at, slide, course) for at, slide in [*goal, *others] if slide.title != RECAP]
    if board:
        blocks.append(Block("\n".join(["- the board:", *(f"  - {line}" for line in board)])))
    for at, recap in [(at, slide) for at, slide in others if slide.title == RECAP]:
        blocks.append(_slide_block(at, recap._replace(points=()), course))
        blocks += grey([f"  - {_POINTS}: {' '.join(recap.points)}"] if recap.points else [])
    return blocks


def _slide_block(at: int, slide: Slide, course: Course) -> Block:
    """A slide's number and title, with what there is to say, to ask and to answer, and its figure once it is shown."""
    about = course.figures.get(slide.figure, {})
    lines = [f"- slide {at}: {slide.title}" + (" (may be skipped)" if about.get("skip") else "")]
    lines += [f"  - say: {slide.say}"] if slide.say else []
    lines += [f"  - {kind}: {about[kind]}" for kind in slide.remarks]
    lines += [f"  - {MORE}: {about['more']}"] if "more" in about and "answer" in slide.remarks else []
    lines += [f"  - {_POINTS}:", *(f"    - {point}" for point in slide.points)] if slide.points else []
    return Block("\n".join(lines), "" if slide.remarks == ("ask",) else slide.figure, bool(about.get("skip")))


def _exercise_blocks(
    plan: Plan,
    course: Course,
    fitting: Mapping[str, Sequence[Mapping[str, Any]]],
    at_slide: Mapping[str, str],
    titles: Mapping[str, str] | None,
    printed: Mapping[str, str],
) -> list[Block]:
    """A lesson's exercises in full, with minutes, the plans that have them where there are several, and answers.

    With an answer stand the right choice, where it does not have its words, and the first that the solution prints.
    """
    texts, blocks = _exercise_texts(plan, titles), []
    for key, one in course.exercises.items():
        if not key.startswith(f"{plan.lesson.number}."):
            continue
        within = [name for name, parts in fitting.items() if any(key in part["exercises"] for part in parts)]
        when = f"; {', '.join(within).lower()}" if within and len(fitting) > 1 else ""
        when = "; in no plan" if fitting and not within else when
        asked = one["paper"] if "paper" in one else texts.get(key, one["ask"])
        asked = _SLIDE.sub(lambda found: at_slide.get(found[1], "in the book"), asked)
        blocks += [Block(""), Block(f"**{key}** ({one['minutes']} min{when}). {asked}", later=True)]
        said = re.search(rf"\b{re.escape(one['right'])}\b", one["answer"], re.I)
        choice = "" if said else f" Right choice: **{one['right']}**."
        blocks += grey(["", f"→ {one['answer']}{choice}", *_printed_lines(printed.get(key, ""))])
    return blocks


def _printed_lines(printed: str) -> list[str]:
    """The first two lines that a solution prints, up to a table in pieces, whose rows say nothing alone."""
    whole = [line.rstrip() for line in visible(printed).splitlines() if line.strip()]
    lines = list(takewhile(lambda line: not line.endswith("\\"), whole))[:_PRINTED]
    if not lines:
        return []
    return ["", "It prints:" if len(lines) == len(whole) else "It prints first:", "", *fenced("\n".join(lines))]


def _when(
    fitting: Mapping[str, Sequence[Mapping[str, Any]]], course: Course, wanted: Callable[[Mapping[str, Any]], Any]
) -> list[str]:
    """When parts of the plans are, and what their minutes go to; a plan is named where there is another."""
    times = []
    for name, part in [(name, part) for name, parts in fitting.items() for part in parts if wanted(part)]:
        within = inside(part, course)
        named = f"{name.lower()}, " if len(fitting) > 1 else ""
        times.append(f"{named}{part['from']} to {part['to']}" + (f" ({within})" if within else ""))
    return [f"When: {'; '.join(times)}.", ""] if times else []


def _when_taught(number: str, fitting: Mapping[str, Sequence[Mapping[str, Any]]], course: Course) -> list[str]:
    return _when(fitting, course, lambda part: number in part["lessons"])


def _after_lessons(
    aside: Aside, fitting: Mapping[str, Sequence[Mapping[str, Any]]], course: Course, numbers: Collection[str]
) -> list[Block]:
    """The key of the quiz and the claims of the debate, where a plan has them."""
    blocks = []
    if (when := _when(fitting, course, lambda part: part.get("quiz"))) and aside.quiz:
        blocks += black(["## The quiz", "", *when])
        for number, key in aside.quiz.items():
            if number in numbers:
                blocks += grey([f"- lesson {spoken_number(number)}", *(f"  - {line}" for line in key)])
        blocks.append(Block(""))
    if (when := _when(fitting, course, lambda part: part.get("debate"))) and course.debate:
        blocks += black(["## The debate", "", *when, *_OF_DEBATE, ""])
        claims = debate.sheet_lines(course.debate, aside.rulings)
        blocks += [Block(line, later=line.startswith((debate.RULE, *debate.BEST))) for line in claims]
    return blocks


def _of_taught(text: str, numbers: Collection[str]) -> str:
    """Return text in which a list of lessons has those that are taught; a list of others stays."""

    def kept(found: re.Match) -> str:
        named = re.findall(r"\d+b?", found[1])
        taught = {spoken_number(number) for number in numbers}
        those = [number for number in named if number in taught] or named
        return f"lesson{'s' if len(those) > 1 else ''} {listed(those)}"

    return _LESSONS.sub(kept, text)


def _before_lessons(aside: Aside, course: Course, numbers: Collection[str]) -> list[Block]:
    """What is said and asked before the first lesson."""
    if not aside.labels and not aside.questions:
        return []
    lines = ["## Before the first lesson", ""]
    lines += [_of_taught(aside.labels, numbers), ""] if aside.labels else []
    if course.primer and aside.primer:
        lines += ["The slides of `functionals.pptx`:", ""]
        for k, title in enumerate(aside.primer, start=1):
            lines += [
                f"- slide {k}: {title}",
                *([f"  - say: {course.primer[title]}"] if title in course.primer else []),
            ]
        lines.append("")
    blocks = black(lines)
    if aside.questions:
        blocks += grey([f"The questions of the page on functionals ({PRIMER}; the deck's last slide):", ""])
        for k, (asked, answered) in enumerate(aside.questions, start=1):
            blocks += grey([f"{k}. {asked}", "", f"   → {answered}", ""])
    return blocks


def _missing_screens(course: Course, plans: Sequence[Plan], own: Mapping[str, Plan]) -> list[str]:
    """Say which lessons were not executed at the students' sizes, and what does it."""
    lacking = [
        own[plan.lesson.number]
        for plan in plans
        if plan.lesson.number in own
        and course.screens.get(plan.lesson.number)
        and _unseen(plan, own[plan.lesson.number])
    ]
    if not lacking:
        return []
    which = " ".join(one.lesson.number for one in lacking)
    return [
        f"Of lessons {which} this sheet does not know what students will see: "
        f"`crossfunc run {which} --profile {lacking[0].profile}`, and then the command that made this sheet.",
        "",
    ]


def _unseen(plan: Plan, own: Plan) -> bool:
    """Whether nobody knows what students will see: their sizes are not those of the slides, and were not executed."""
    return own.profile != plan.profile and check_lesson(own) is not None


def _screen_lines(course: Course, plan: Plan, own: Plan | None) -> list[str]:
    """The numbers that students will see, beside those of the slides where their sizes are others."""
    keys = course.screens.get(plan.lesson.number, ())
    if own is None or not keys or _unseen(plan, own):
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
    of_group = "; group A's system, each other group sees its own" if plan.lesson.number == GROUP_LESSON else ""
    return [f"On their screens (for the room; profile {own.profile}{of_group}):", "", *lines, ""]


def _recorded(plan: Plan) -> dict[str, Mapping[str, Any]]:
    content = load_if_recorded(plan.results, plan.lesson.stem)
    return {row["key"]: row for row in content["results"]} if content else {}


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
    lines = [f"## {name}", "", "| from | to | what | slides | exercises and minutes |", "|---|---|---|---|---|"]
    for part in parts:
        shown = [number for lesson in part["lessons"] for number, _ in slides[lesson]]
        of_slides = f"{shown[0]} to {shown[-1]}" if shown else "–"
        what = part["what"] + (" (may be skipped)" if part.get("skip") else "")
        tasks = part.get("tasks", 0)
        work = [*part["exercises"], *([f"the sheet's task{'s 1 to ' if tasks > 1 else ' '}{tasks}"] if tasks else [])]
        work += ["the page's questions, aloud"] if part.get("questions") else []
        minutes = f" ({work_minutes(part, course)} min)" if work and (part["exercises"] or tasks) else ""
        within = inside(part, course)
        doing = "; ".join(filter(None, [", ".join(work) + ("" if within else minutes), within])) or "–"
        cells = (part["from"], part["to"], what, of_slides, doing)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_OF_SHEET = [
    "Numbers are those of the slides in `all.pptx`.",
    "Where a question comes before its figure it has a slide of its own, and the answer stands at the figure.",
]
_OF_PLANS = ["Behind the minutes of an exercise stand the plans that have it."]
_OF_DEBATE = [
    "Each group takes a slip of `print/debate-slips.html`, half of it for the claim and half against, and in its three",
    "minutes has one argument for, one against, and the verdict that the group itself gives. A side that is stuck gets",
    "its best point from here; then read out the verdicts, and close with the sentence. " + debate.RULE_OF_VERDICTS,
    "Claims on energies are judged only where training errors are small, so that steps cannot be the reason. Behind a",
    "number, “converged” is a run in which every method had arrived and “longer run” one in which some still fell; a",
    "number without either is of another run, and the reason behind its verdict says what that lacks.",
]
_SMALL_RUNS = [
    "Students' notebooks run at sizes at which lessons 4, 4b and 7 have taken a few steps: the order of methods on",
    "their screens is luck, and may be the reverse of what there is to say. Say so, and look at the slides together;",
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
