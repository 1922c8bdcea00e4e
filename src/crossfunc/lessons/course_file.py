"""What `course.yml` says beside the lessons: exercises, quizzes, groups, words at figures, plans, a debate."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from crossfunc.lessons.sources import LessonError

__all__ = [
    *("FILE", "GROUP_LESSON", "TASK_MINUTES", "Course"),
    *("clock_minutes", "inside", "lessons_of", "of_plan", "read_course", "tasks_asked", "work_minutes"),
]

FILE = "course.yml"
GROUP_LESSON = "06"
TASK_MINUTES = (25, 20, 10)
"""Minutes of the tasks on the sheet of a group."""
_FIELDS = {
    "exercises": {"minutes", "ask", "choices", "right", "answer"},
    "quiz": {"ask", "choices", "right", "because"},
    "groups": {"name", "elements", "binary", "by_hand"},
    "figures": {"say", "ask", "answer"},
    "plans": {"from", "to", "what", "lessons", "exercises"},
    "debate": {"claim", "for", "against", "close"},
    "slides": {"goal"},
}
_OPTIONAL = {
    "figures": {"skip", "before", "headline", "needs", "more"},
    "exercises": {"value", "paper"},
    "slides": {"recap", "lists"},
    "plans": {"skip", "tasks", "questions", "minutes", "quiz", "debate"},
}
_OF_VALUE = ({"ask", "expression", "absolute"}, {"ask", "expression", "relative"})


@dataclass(frozen=True)
class Course:
    """What `course.yml` says beside the lessons.

    Attributes
    ----------
    exercises : dict of str to dict
        "LESSON.EXERCISE" to minutes, ask, choices, right, answer; where a number is asked for as well, `value` with
        ask, expression (Python, of names that the lesson has bound by then) and its tolerance, absolute or relative;
        `paper` for the words of an exercise where it is done on paper, with "{slide FIGURE}" for a slide's number.
    quiz : dict of str to list of dict
        Number of the lesson to questions: ask, choices, right, because.
    groups : list of dict
        Name and parameters of lesson 6 for each group.
    handout : dict of str to int
        Number of the lesson to the point of its recap that the hand-out shows, from 1.
    figures : dict of str to dict
        Name of a figure to what to say at it, what to ask and the answer; `skip` where a day has no time for it,
        `before` where the question comes before the figure is seen, `headline` where the caption's would answer it,
        `needs` for data without which no lesson draws it, `more` for what waits until somebody asks.
    plans : dict of str to list of dict
        Name of a plan ("One day") to its parts: from, to, what, lessons and exercises of each; `tasks` for how many of
        the tasks on a group's sheet, `questions` where those of the page on functionals are asked, `quiz` and `debate`
        where these are, `minutes` for what the time beside exercises and tasks goes to, `skip` for what goes first
        where time is short.
    debate : list of dict
        Claim, arguments `for` and `against` it with the best of each first, and the sentence to `close` with.
    screens : dict of str to list of str
        Number of the lesson to the results that the sheet has at the students' sizes, by their keys.
    primer : dict of str to str
        Title of a slide of the page on functionals to what to say at it.
    slides : dict of str to dict
        Number of the lesson to what to say at its slides without a figure: at its `goal`, at its `recap`, and at its
        `lists`, by their headings.
    """

    exercises: Mapping[str, Mapping[str, Any]]
    quiz: Mapping[str, Sequence[Mapping[str, Any]]]
    groups: Sequence[Mapping[str, Any]]
    handout: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plans: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    debate: Sequence[Mapping[str, Any]] = ()
    screens: Mapping[str, Sequence[str]] = field(default_factory=dict)
    primer: Mapping[str, str] = field(default_factory=dict)
    slides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
    names = ("handout", "figures", "plans", "debate", "screens", "primer", "slides")
    given = {name: content[name] for name in names if content.get(name)}
    course = Course(content["exercises"], content["quiz"], content["groups"], **given)
    entries = [("exercises", key, one) for key, one in course.exercises.items()]
    entries += [("quiz", f"quiz of lesson {number}", one) for number, several in course.quiz.items() for one in several]
    entries += [("groups", str(one.get("name")), one) for one in course.groups]
    entries += [("figures", name, one) for name, one in course.figures.items()]
    entries += [
        ("plans", f"{name} from {one.get('from')}", one) for name, parts in course.plans.items() for one in parts
    ]
    entries += [("debate", str(one.get("claim")), one) for one in course.debate]
    entries += [("slides", f"slides of lesson {number}", one) for number, one in course.slides.items()]
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


def of_plan(course: Course, name: str) -> Course:
    """Return the course with one of its plans and the exercises of that plan alone.

    Raises
    ------
    LessonError
        No such plan; lists those that there are.
    """
    if name not in course.plans:
        raise LessonError(f"no plan {name!r}; {FILE} has: {', '.join(course.plans)}.")
    within = {key for part in course.plans[name] for key in part["exercises"]}
    exercises = {key: one for key, one in course.exercises.items() if key in within}
    return replace(course, plans={name: course.plans[name]}, exercises=exercises)


def lessons_of(course: Course, name: str) -> list[str]:
    """Return the numbers of the lessons that a plan of the course teaches, in its order."""
    parts = of_plan(course, name).plans[name]
    return list(dict.fromkeys(number for part in parts for number in part["lessons"]))


def tasks_asked(course: Course) -> int:
    """Return how many of the tasks on a group's sheet the plans of a course have at most; all where it has no plan."""
    if not course.plans:
        return len(TASK_MINUTES)
    parts = [part for parts in course.plans.values() for part in parts if GROUP_LESSON in part["lessons"]]
    return max((part.get("tasks", 0) for part in parts), default=0)


def _check_plan(parts: Sequence[Mapping[str, Any]], course: Course, where: str) -> None:
    """Raise LessonError unless parts follow on each other and each has the time of its exercises and tasks."""
    before = None
    for part in parts:
        said = f"{where}, from {part['from']} to {part['to']}"
        minutes = clock_minutes(part["to"], said) - clock_minutes(part["from"], said)
        if before not in {None, part["from"]} or minutes <= 0:
            raise LessonError(f"{said}: each part begins when the one before it ends, and ends later.")
        if unknown := [key for key in part["exercises"] if key not in course.exercises]:
            raise LessonError(f"{said}: there is no exercise {', '.join(unknown)}.")
        if (needed := work_minutes(part, course)) > minutes:
            raise LessonError(f"{said}: its exercises and tasks take {needed} minutes, and there are {minutes}.")
        beside = sum(part.get("minutes", {}).values())
        if "minutes" in part and beside + needed != minutes:
            raise LessonError(f"{said}: its minutes come to {beside + needed}, exercises included, of {minutes}.")
        before = part["to"]


def clock_minutes(clock: Any, where: str) -> int:
    """Minutes since midnight of "9:05"."""
    found = re.fullmatch(r"(\d{1,2}):([0-5]\d)", str(clock))
    if not found:
        raise LessonError(f'{where}: {clock!r} is no time; write it in quotes, as in "9:05".')
    return 60 * int(found[1]) + int(found[2])


def work_minutes(part: Mapping[str, Any], course: Course) -> int:
    """Minutes that the exercises of a part and its tasks on a group's sheet take."""
    tasks = TASK_MINUTES[: part.get("tasks", 0)]
    return sum(course.exercises[key]["minutes"] for key in part["exercises"]) + sum(tasks)


def inside(part: Mapping[str, Any], course: Course) -> str:
    """Say what the minutes of a part go to: "the board 12, figures 23, exercises 25 min"; "" where nothing is said."""
    steps = dict(part.get("minutes", {}))
    if steps and (work := work_minutes(part, course)):
        steps["tasks" if part.get("tasks") else "exercises"] = work
    return ", ".join(f"{what} {minutes}" for what, minutes in steps.items()) + (" min" if steps else "")


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
