"""Sheets of the groups of lesson 6: a system of their own with pencil and ruler, and what to expect of each."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from crossfunc.lessons.course_file import TASK_MINUTES
from crossfunc.lessons.group_outcomes import Outcome
from crossfunc.lessons.results import listed
from crossfunc.plain_text import fenced, in_markdown

__all__ = [
    "FIRST_ANSWER",
    "GOOD_ANSWER",
    "IN_BRIEF",
    "LEVER",
    "THIRD_ANSWER",
    "group_text",
    "key_lines",
    "key_text",
    "lever_line",
    "phase_lines",
    "second_task_lines",
    "unknown_lines",
]


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
            *phase_lines(second, phases),
            "",
            phases.attrs["label_notice"].strip(),
            "",
        ]
    )


def phase_lines(second: str, phases) -> list[str]:
    """Return the table of a group's phases, for pencil and ruler, as Markdown.

    Parameters
    ----------
    second : str
        Element whose share of the atoms is the axis.
    phases : DataFrame
        From `verdicts.lowest_phases`.
    """
    return [
        f"| phase | share of {second} | formation energy (eV/atom) |",
        "|---|---|---|",
        *(f"| {name} | {_fraction(share)} | {energy:.3f} |" for name, share, energy in phases.to_numpy()),
    ]


def _fraction(share: float) -> str:
    """A share of atoms as it can be drawn: "3/5 (0.600)"."""
    exact = _exact(share)
    return str(exact) if exact.denominator == 1 else f"{exact} ({share:.3f})"


def _exact(share: float) -> Fraction:
    return Fraction(share).limit_denominator(60)


def key_text(found: Sequence[tuple[str, str, str, str]], outcomes: Mapping[str, Outcome]) -> str:
    """Return what to expect of the groups: the answers of their first task, and of the second where it is known.

    Parameters
    ----------
    found : sequence of (str, str, str, str)
        Letter of a group, its compound, what it would decompose into, and its decomposition energy with the unit.
    outcomes : mapping of str to Outcome
        Letter of a group to what its second task comes to at the students' sizes.
    """
    good, odd, third = (text.replace("\n", "\n  ") for text in (GOOD_ANSWER, FIRST_ANSWER, THIRD_ANSWER))
    lines = [_HEAD.format(*TASK_MINUTES, good=good, odd=odd, third=third)]
    lines += [f"- {line}" for line in key_lines(found)]
    lines += ["", "## The second task", ""]
    lines += unknown_lines([letter for letter, *_ in found], outcomes)
    for letter, (printed, _) in outcomes.items():
        lines += [f"Group {letter} sees:", "", *fenced(printed), ""]
    return "\n".join([*lines, ""])


def key_lines(found: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Return the answer of each group's first task in a line, of what `key_text` takes."""
    return [
        f"**{letter}**: {in_markdown(compound)} → {in_markdown(products)}, {energy}"
        for letter, compound, products, energy in found
    ]


def lever_line(phases, compound: str, left: str, right: str, energy: float) -> str:
    """Return the first task as a sum: the lever rule, shares of two phases times energies, the compound minus the band.

    Numbers are those of the group's sheet, so that a calculator gives the same; where the rounding shows, the
    decomposition energy stands behind.

    Parameters
    ----------
    phases : DataFrame
        From `verdicts.lowest_phases`.
    compound, left, right : str
        Phases: the one that decomposes, and the two next to it on the band.
    energy : float
        Decomposition energy in eV/atom, from `verdicts.decompose`.
    """
    places = {name: _exact(share) for name, share, _ in phases.to_numpy()}
    energies = {name: _rounded(value) for name, _, value in phases.to_numpy()}
    of_left = (places[right] - places[compound]) / (places[right] - places[left])
    band = _rounded(of_left * Fraction(energies[left]) + (1 - of_left) * Fraction(energies[right]))
    found, exact = energies[compound] - band, _rounded(energy)
    terms = [f"{_share(of_left)} × {_signed(energies[left])}", f"{_share(1 - of_left)} × {_signed(energies[right])}"]
    lever = f"of {left} ({places[right]} − {places[compound]}) / ({places[right]} − {places[left]}) = {_share(of_left)}"
    summed = f"{in_markdown(lever)}; {' + '.join(terms)} = {_minus(band)}"
    behind = "" if found == exact else f" ({_minus(exact)} before rounding)"
    return f"{summed}; {_minus(energies[compound])} − {_signed(band)} = {_minus(found)}{behind}"


def _share(exact: Fraction) -> str:
    """A share with three digits where these are all, and as a fraction elsewhere: a third digit would be felt."""
    return f"{float(exact):.3f}" if 1000 % exact.denominator == 0 else str(exact)


def _rounded(number: float | Fraction) -> Decimal:
    """A number with three digits, and no minus before a zero."""
    return Decimal(f"{float(number):.3f}") + 0


def _minus(number: Decimal) -> str:
    return str(number).replace("-", "−")


def _signed(number: Decimal) -> str:
    return f"({_minus(number)})" if number < 0 else str(number)


def second_task_lines(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return the key of the second task as Markdown, a line for each group whose outcome is known."""
    known = []
    for letter, outcome in outcomes.items():
        verdicts, *closest = _words(outcome)
        known += [f"- **{letter}**: {verdicts}", *(f"  - {line}" for line in closest)]
    return [*_OF_SECOND, "", *known, ""] if known else []


def unknown_lines(letters: Sequence[str], outcomes: Collection[str]) -> list[str]:
    """Return lines that say of which groups the second task is not known, and what does it."""
    unknown = [letter for letter in letters if letter not in outcomes]
    if not unknown:
        return []
    return [
        f"What the second task comes to in group{'s' if len(unknown) > 1 else ''} {listed(unknown)} is not known yet: "
        "give the command that made this course with `--groups`, which takes a minute or two for each.",
        "",
    ]


def _words(outcome: Outcome) -> list[str]:
    """A sentence on what a group's models judge otherwise than the reference, and one on their closest calls."""
    from crossfunc.lessons.verdicts import CALLS, CLOSEST, PUBLISHED

    # The published model made the labels that it is judged by: that it agrees says nothing.
    models = {name: row for name, row in outcome.calls.items() if name != PUBLISHED}
    otherwise = {name: row for name, row in outcome.calls.items() if any(row[column] != "none" for column in CALLS)}
    said = [
        f"{_named(names, models)} {_verb(names, *calls)}"
        for calls, names in _alike(otherwise, lambda row: tuple(row[column] for column in CALLS))
    ]
    if not otherwise:
        said = ["no model judges otherwise than the reference"]
    elif models.keys() - otherwise.keys():
        said.append("no other model judges otherwise")
    closest = {name: row for name, row in models.items() if row.get(CLOSEST[0]) is not None}
    calls = [
        f"of {_named(names, models)}: {in_markdown(compound)}, {_by(names, models, CLOSEST[1])} meV/atom "
        f"(reference: {_by(names, models, CLOSEST[2])})"
        for compound, names in _alike(closest, lambda row: row[CLOSEST[0]])
    ]
    return [_sentence("; ".join(said)), *([_sentence(f"closest call {'; '.join(calls)}")] if calls else [])]


def _alike(rows: Mapping[str, Mapping], key: Callable[[Mapping], Hashable]) -> list[tuple[Any, list[str]]]:
    """Names of rows with the same key, those that most share first."""
    found: dict[Hashable, list[str]] = {}
    for name, row in rows.items():
        found.setdefault(key(row), []).append(name)
    return sorted(found.items(), key=lambda one: -len(one[1]))


def _named(names: Sequence[str], everyone: Collection[str]) -> str:
    """Models in few words: "all but Method 1", "Method 1", "Method 2 and model-aware"."""
    short = {name: in_markdown(name.partition(",")[0]) for name in [*everyone, *names]}
    left = [short[name] for name in everyone if name not in names]
    if set(names) >= set(everyone) and len(names) > 1:
        return "all"
    if set(names) <= set(everyone) and 0 < len(left) <= 2 < len(names):
        return f"all but {listed(left)}"
    return listed([short[name] for name in names])


def _verb(names: Sequence[str], in_vain: str, missed: str) -> str:
    end = "" if len(names) > 1 else "s"
    one = [f"miss{'es' if end else ''} {in_markdown(missed)}"] if missed != "none" else []
    other = [f"look{end} in vain for {in_markdown(in_vain)}"] if in_vain != "none" else []
    return " and ".join([*one, *other])


def _by(names: Sequence[str], rows: Mapping[str, Mapping], column: str) -> str:
    """By how much a compound is stable or not: "stable by 34.7 to 37.9"; a positive decomposition energy is not."""
    energies = sorted(rows[name][column] for name in names)
    sides = {"stable": [-e for e in energies if e < 0][::-1], "unstable": [e for e in energies if e >= 0]}
    return " or ".join(
        f"{side} by {own[0]:.1f}" + (f" to {own[-1]:.1f}" if own[-1] > own[0] else "")
        for side, own in sides.items()
        if own
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


_OF_SECOND = [
    "What the second task comes to at the students' sizes (for the room): a model misses what the reference alone",
    "calls stable, and looks in vain for what it alone does; its closest call is the verdict that the least error",
    "would turn. The published model is left out where it agrees, and tables as the groups see them are in",
    "`groups.md`.",
]
LEVER = """On the board before they draw: a composition between two phases of the band falls apart into both, in shares
like the opposite arms of a lever, of the left one (right − own) / (right − left), where places are shares of an
element."""
"""What a group has to know before its first task."""
IN_BRIEF = (
    "leave one compound out, draw the others over the share of an element, stretch a band under them, and measure or "
    "calculate from it to the compound",
    "`verdicts.close_calls(points)` in the notebook: which model misses a stable compound or looks in vain for one, "
    "and how little would turn its closest call",
    "one number of the lesson's table with its interval, and what it cannot show",
)
"""What each of the three tasks is, for the sheet of who teaches."""
GOOD_ANSWER = """At the students' sizes most models judge like the model that they started from and make the same
closest call, because a few steps moved nothing that a hull sees. Good answers say *why*: the reference is a label, a
compound a few meV/atom from the hull is undecided, and many relaxations stop before they have arrived. Method 1, from
random weights, puts nearly every compound at zero and so misses much of what is stable; the published r²SCAN model
made the surrogate labels, so its row agrees with the reference by construction: that is no success."""
"""What a good answer to the second task is, for the sheet and for the page on groups."""
FIRST_ANSWER = """With a ruler it comes out within 0.02 eV/atom or so, from the sheet's rounded table within
0.002. Where a well-known oxide lies above the hull, or an odd one on it, the labels are why: they are predictions of
a network, and only the phases of the list compete."""
"""What to expect of the first task, for both."""
THIRD_ANSWER = """Good sentences on what it cannot show name the labels, the number of compounds, or the one seed."""
"""What a good answer to the third task is, for both."""
_HEAD = """# Groups: what to expect

- Task 1, {0} minutes: the numbers below.
  {odd}
- Task 2, {1} minutes, two of them for the notebook: what each group sees stands below, or what makes it.
  {good}
- Task 3, {2} minutes, four to prepare and one for each group to report: a number of the lesson's table with its
  interval.
  {third}

## The first task
"""
