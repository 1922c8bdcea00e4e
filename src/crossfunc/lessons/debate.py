"""The debate of a course: claims to argue about, each with the verdicts and numbers of the book's page of claims."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossfunc.lessons import claims as rules
from crossfunc.lessons import wording
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.results import ResultsError, load_results
from crossfunc.lessons.sources import LessonError

__all__ = ["debate_text", "verdict_lines"]

_RESULT = re.compile(r"\{result\}`([^:`]+):(\w+)@([\w-]+)`")
_HEAD = """# Claims to argue about

One half of a group speaks for the claim, the other against it; then both say which verdict the interval allows: holds,
does not hold here, or unclear. Rule and numbers are for both sides, so read them out at the start; keep the verdict in
bold type to yourself until both have said theirs.
{source}"""
_SOURCE = """
They are those of the book's page of claims, made with the lessons of this course and with runs that the book keeps:
"converged" is one that went on until every method had arrived, a "longer run" one in which some method was still on its
way at the end, with reasons on the book's page of longer runs; every other training had few steps. What stands behind a
number is what its interval is over.
"""


def debate_text(debate: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[str]]) -> str:
    """Return the rows of the page of claims that can be argued both ways, a section each, with arguments.

    Parameters
    ----------
    debate : sequence of mapping
        Claim, and arguments `for` and `against` it.
    found : mapping
        Claim to what its section begins with, from `verdict_lines`; nothing where the checkout has no claims.
    """
    lines = [_HEAD.format(source=_SOURCE if found else "")]
    for one in debate:
        lines += [f"## {one['claim']}", "", *found.get(one["claim"], ())]
        lines += ["For the claim:", "", *(f"- {text}" for text in one["for"]), ""]
        lines += ["Against it:", "", *(f"- {text}" for text in one["against"]), ""]
    return "\n".join(lines)


def verdict_lines(
    root: Path, claims: Iterable[str], plans: Iterable[Plan], titles: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Return when each claim holds, the paper's number, and the verdict on each kind of labels with its number.

    Parameters
    ----------
    root : path
        The checkout; without `book/claims.yml` in it nothing is returned.
    claims : iterable of str
        Rows of the page of claims, in its words.
    plans : iterable of Plan
        Executed lessons: their results stand beside those of kept runs.
    titles : mapping, optional
        Titles of the book's pages.

    Raises
    ------
    LessonError
        A claim that the page does not have, or one without its rule or number; says which.
    """
    if not (root / rules.FILE).is_file():
        return {}
    found = {}
    try:
        known = {claim["claim"]: claim for claim in rules.read_claims(root)}
        own = _own_results(plans)
        for claim in claims:
            if claim not in known:
                raise LessonError(f"debate: {rules.FILE} has no claim {claim!r}: write it as it stands there.")
            found[claim] = _lines_of(root, known[claim], own, titles)
    except ResultsError as error:
        raise LessonError(f"debate: {error}") from error
    return found


def _own_results(plans: Iterable[Plan]) -> dict[str, Any]:
    """Results of executed lessons, by stem; a lesson that recorded none has none."""
    stems = [(plan, plan.lesson.stem) for plan in plans]
    there = [(plan, stem) for plan, stem in stems if (plan.results / f"{stem}.json").is_file()]
    return {stem: load_results(plan.results, [stem])[stem] for plan, stem in there}


def _lines_of(root: Path, claim: Mapping[str, Any], own: Mapping[str, Any], titles) -> list[str]:
    lesson, _, key = claim["result"].partition(":")
    on = rules.results_for(root, claim, own.get(lesson))
    if not on:
        return [f"No run has judged it here: execute {lesson}.", ""]
    content = next(iter(on.values()))
    other = functools.partial(rules.find_result, content, lesson=lesson)
    row, rule = other(key), str(claim["holds"])
    title = wording.as_words(row["title"], titles)
    wanted = wording.as_words(rules.rule_text(rule, other), titles)
    paper = rules.paper_cell(row, rule, other)
    paper = "" if paper == "—" else f"; the paper's number is {paper}"
    lines = [f"It holds if “{title}” is {wanted}. Where it is made: {claim['where']}{paper}."]
    lines = [re.sub(r"(?<= )-(?=\d)", "−", lines[0]), ""]
    for kind in [kind for kind in rules.KINDS if kind in on]:
        found = rules.find_result(on[kind], key, lesson)
        note = f"; {wording.as_words(found['note'], titles)}" if found["note"] else ""
        lines.append(f"- {rules.KINDS[kind]}, {rules.judged(claim, on[kind])[1]}{note}")
    if "surrogate" in on:
        limits = _RESULT.sub(functools.partial(_number, root), rules.limits_of(claim, on["surrogate"]))
        lines += ["", f"What surrogate labels can say: {wording.as_words(limits, titles)}"]
    return [*lines, ""]


def _number(root: Path, asked: re.Match) -> str:
    """A number of a kept run in the place of its role."""
    lesson, key, profile = asked.groups()
    return rules.value_text(rules.find_result(rules.kept_results(root, profile, lesson), key, lesson))
