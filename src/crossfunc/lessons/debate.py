"""The debate of a course: claims to argue about, with the verdicts and numbers of the book's page of claims.

Those who argue get slips with everything but the verdicts.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crossfunc.lessons import claims as rules
from crossfunc.lessons import declared, printed_pages, wording
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.results import ResultsError, load_if_recorded
from crossfunc.lessons.sources import LessonError

__all__ = ["Ruling", "Verdict", "debate_text", "rulings", "sheet_lines", "slips_page"]

RULE_OF_VERDICTS = (
    "A claim holds where the whole interval is on its side, it does not hold here where the whole interval is on the "
    "other side, and it is unclear where the interval reaches across or where the run cannot judge it."
)
_RESULT = re.compile(r"\{result\}`([^:`]+):(\w+)@([\w-]+)`")
_NEGATION = re.compile(r"\b(?:not|no) ")
"""What stands in every reason behind a need, and makes it the reverse of what the need asks for."""
_UNCLEAR = rules.VERDICTS[1]
RULE = "It holds if"
"""How the line of the sheet begins that has a claim's rule."""
BEST = ("- best for: ", "- best against: ")
"""How the lines of the sheet begin that help a side that is stuck."""
_HEAD = f"""# Claims to argue about

One half of a group speaks for the claim, the other against it; then both say which verdict the interval allows.
{RULE_OF_VERDICTS}
The slips (`print/debate-slips.html`) have the claim, its rule and its numbers for both halves, whether each run meets
what the claim needs, and no verdict: that one stands here, on lines of its own, and on the running sheet.
"""
_SOURCE = """
Rules, numbers and verdicts are those of the book's page of claims, made with the lessons of this course and with runs
that the book keeps: "converged" is one that went on until every method had arrived, a "longer run" one in which some
method was still on its way at the end, with reasons on the book's page of longer runs; every other training had few
steps. What stands behind a number is what its interval is over.
"""


class Verdict(NamedTuple):
    """A verdict on a claim: of which labels, which of the three, why where it is unclear, and the run's number."""

    labels: str
    verdict: str
    reason: str = ""
    number: str = ""


class Ruling(NamedTuple):
    """What there is to say about a claim: when it holds, numbers, the verdict on each, what else the labels can say.

    The rule in few words is what is measured, and what its whole interval has to be.
    """

    rule: str = ""
    numbers: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    limits: str = ""
    measured: str = ""
    wanted: str = ""


def debate_text(debate: Sequence[Mapping[str, Any]], found: Mapping[str, Ruling]) -> str:
    """Return the rows of the page of claims that can be argued both ways, a section each, with verdicts and arguments.

    Parameters
    ----------
    debate : sequence of mapping
        Claim, arguments `for` and `against` it, and the sentence to `close` with.
    found : mapping
        Claim to its ruling, from `rulings`; nothing where the checkout has no claims.
    """
    lines = [_HEAD + (_SOURCE if found else "")]
    for one in debate:
        ruling = found.get(one["claim"], Ruling())
        lines += [f"## {one['claim']}", ""]
        lines += _of_both(ruling)
        lines += ["Verdict:", "", *(_line_of(one) for one in ruling.verdicts), ""] if ruling.verdicts else []
        lines += [ruling.limits, ""] if ruling.limits else []
        lines += ["For the claim:", "", *(f"- {text}" for text in one["for"]), ""]
        lines += ["Against it:", "", *(f"- {text}" for text in one["against"]), ""]
        lines += [f"To close: {one['close']}", ""]
    return "\n".join(lines)


def _line_of(one: Verdict) -> str:
    return f"- {one.labels}: **{one.verdict}**" + (f", {one.reason}" if one.reason else "")


def sheet_lines(debate: Sequence[Mapping[str, Any]], found: Mapping[str, Ruling]) -> list[str]:
    """Return what a running sheet has of each claim, so that nobody opens `debate.md` for it.

    A claim has what is measured, the verdict on each kind of labels with its number and why, the first argument of each
    side, and the sentence to close with.

    Parameters
    ----------
    debate, found
        As for `debate_text`.
    """
    lines = []
    for k, one in enumerate(debate, start=1):
        ruling = found.get(one["claim"], Ruling())
        lines += [f"### {k}. {one['claim']}", ""]
        lines += [f"{RULE} “{ruling.measured}” is {ruling.wanted}.", ""] if ruling.measured else []
        lines += _verdict_lines(ruling)
        lines += [f"{BEST[0]}{one['for'][0]}", f"{BEST[1]}{one['against'][0]}"]
        lines += [f"- to close: {one['close']}", ""]
    return lines


def _verdict_lines(ruling: Ruling) -> list[str]:
    """A line for each verdict and its reason, with the number of every kind of labels that it is on."""
    if not ruling.verdicts:
        return [f"- {ruling.rule}"] if ruling.rule else []
    numbers: dict[tuple[str, str], list[str]] = {}
    for one in ruling.verdicts:
        numbers.setdefault((one.verdict, one.reason or _why(one.verdict, ruling)), []).append(
            f"{one.labels} {one.number}".strip()
        )
    return [f"- {'; '.join(those)}: **{verdict}**, {why}" for (verdict, why), those in numbers.items()]


def _why(verdict: str, ruling: Ruling) -> str:
    """Why a verdict that is not unclear is what it is."""
    return f"the whole interval is {'' if verdict == rules.VERDICTS[0] else 'not '}{ruling.wanted}"


def slips_page(debate: Sequence[Mapping[str, Any]], found: Mapping[str, Ruling]) -> str:
    """Return a page of HTML with a sheet for each claim, to be cut in the middle: for it above, against it below.

    Both halves have the claim, when it holds, the numbers and the rule of verdicts; neither has a verdict.
    """
    sides = {"for": "You speak for this claim", "against": "You speak against this claim"}
    sheets = [[_slip(one, side, words, found) for one in debate] for side, words in sides.items()]
    return printed_pages.page("Slips for the debate", printed_pages.halves(*sheets), _OF_SLIPS)


def _slip(one: Mapping[str, Any], side: str, words: str, found: Mapping[str, Ruling]) -> str:
    lines = [f"# {one['claim']}", "", *_of_both(found.get(one["claim"], Ruling()))]
    lines += [f"**{words}:**", "", *(f"- {text}" for text in one[side]), ""]
    return "\n".join([*lines, f"*Then say which verdict the interval allows. {RULE_OF_VERDICTS}*"])


def _of_both(ruling: Ruling) -> list[str]:
    """When a claim holds, and its numbers: what both halves of a group know."""
    numbers = [f"- {number}" for number in ruling.numbers]
    return [*([ruling.rule, ""] if ruling.rule else []), *([*numbers, ""] if numbers else [])]


_OF_SLIPS = """
section { font-size: 10pt; line-height: 1.3; } section + section { break-before: page; }
section > div { min-height: 11cm; break-inside: avoid; } h1 { font-size: 13pt; margin: 0 0 0.5em; }
section > div:first-child { border-bottom: 2px dashed #999; margin-bottom: 0.5cm; }
section p, section ul { margin: 0.5em 0; }
"""


def rulings(
    root: Path, claims: Iterable[str], plans: Iterable[Plan], titles: Mapping[str, str] | None = None
) -> dict[str, Ruling]:
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
        own = {plan.lesson.stem: load_if_recorded(plan.results, plan.lesson.stem) for plan in plans}
        for claim in claims:
            if claim not in known:
                raise LessonError(f"debate: {rules.FILE} has no claim {claim!r}: write it as it stands there.")
            found[claim] = _ruling(root, known[claim], own, titles)
    except ResultsError as error:
        raise LessonError(f"debate: {error}") from error
    return found


def _ruling(root: Path, claim: Mapping[str, Any], own: Mapping[str, Any], titles) -> Ruling:
    lesson, _, key = claim["result"].partition(":")
    on = rules.results_for(root, claim, own.get(lesson))
    if not on:
        return Ruling(f"No run has judged it here: execute {lesson}.")
    content = next(iter(on.values()))
    other = functools.partial(rules.find_result, content, lesson=lesson)
    row, rule = other(key), str(claim["holds"])
    title = wording.as_words(row["title"], titles)
    wanted = _with_minus(wording.as_words(rules.rule_text(rule, other), titles))
    paper = rules.paper_cell(row, rule, other)
    paper = "" if paper == "—" else f"; the paper's number is {paper}"
    said = _with_minus(f"It holds if “{title}” is {wanted}. Where it is made: {claim['where']}{paper}.")
    if short := list(dict.fromkeys(claim.get("needs", {}).values())):
        said += f" A run cannot judge it if {', or if '.join(wording.as_words(reason, titles) for reason in short)}."
    named = declared.read_declarations(root / "notebooks" / declared.FILE).get(lesson, {})
    numbers, verdicts = [], []
    for kind in [kind for kind in rules.KINDS if kind in on]:
        found = rules.find_result(on[kind], key, lesson)
        about = rules.about_run(on[kind])
        about += [wording.as_words(found["note"], titles)] if found["note"] else []
        behind = f" ({'; '.join(about)})" if about else ""
        met = "".join(f". {fact}" for fact in _facts(claim, on[kind], titles))
        numbers.append(f"{rules.KINDS[kind]}: {rules.number_of(claim, on[kind])}{behind}{met}")
        verdict, reason = rules.verdict_and_reason(claim, on[kind])
        if verdict == _UNCLEAR and not reason:
            reason = "the interval reaches across" if found["interval"] else "the number has no interval"
        far = rules.how_far(on[kind])
        number = rules.number_of(claim, on[kind]) + (f" ({far})" if far else "")
        verdicts.append(Verdict(rules.KINDS[kind], verdict, _with_titles(reason, named, titles), number))
    limits = ""
    if "surrogate" in on:
        limits = _RESULT.sub(functools.partial(_number, root), rules.limits_of(claim, on["surrogate"]))
        limits = f"What surrogate labels can say: {wording.as_words(limits, titles)}"
    return Ruling(said, numbers, verdicts, limits, title, wanted)


def _with_minus(text: str) -> str:
    return re.sub(r"(?<= )-(?=\d)", "−", text)


def _facts(claim: Mapping[str, Any], content: Mapping[str, Any], titles: Mapping[str, str] | None) -> list[str]:
    """Whether a run meets each need of a claim, in the need's own words without their "not": a fact, no verdict."""
    said: dict[str, str] = {}
    for reason, met, lacking in rules.needs_met(claim, content):
        fact = wording.as_words(_NEGATION.sub("", reason, count=1), titles)
        if met:
            said.setdefault(fact, "yes")
        elif said.get(fact) != "no":
            said[fact] = "not recorded" if lacking else "no"
    return [f"{fact[0].upper()}{fact[1:]}: {answer}" for fact, answer in said.items()]


def _with_titles(text: str, named: Mapping[str, declared.Declared], titles: Mapping[str, str] | None) -> str:
    """Return text in which a result that is named by its key has its title instead."""
    return re.sub(
        r"\w+", lambda key: f"“{wording.as_words(named[key[0]].title, titles)}”" if key[0] in named else key[0], text
    )


def _number(root: Path, asked: re.Match) -> str:
    """A number of a kept run in the place of its role."""
    lesson, key, profile = asked.groups()
    return rules.value_text(rules.find_result(rules.kept_results(root, profile, lesson), key, lesson))
