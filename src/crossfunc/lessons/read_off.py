"""Words at a figure that are read off the run which the slide shows: the rows that lie below another."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from crossfunc.lessons.plans import Plan
from crossfunc.lessons.results import listed, load_if_recorded

__all__ = ["read_off"]

_BELOW = re.compile(r"\{rows below ((\w+?_mae_)\w+)\}")
_DIGITS = 6
"""Values that agree to so many are the same: three sets of references on one network have one force error."""


def read_off(figures: Mapping[str, Mapping[str, Any]], plans: Iterable[Plan]) -> dict[str, Mapping[str, Any]]:
    """Return what there is to say at figures, with the rows of the lessons' own runs for each "{rows below KEY}".

    Rows are results of KEY's error with lower values, by their names: "Method 4" of "Energy error: Method 4".

    Parameters
    ----------
    figures : mapping of str to mapping
        Name of a figure ("fig-04-errors") to its words, from `course.yml`.
    plans : iterable of Plan
        Executed lessons, to which figures belong by their numbers.
    """
    recorded = {plan.lesson.number: load_if_recorded(plan.results, plan.lesson.stem) for plan in plans}
    rows = {number: content["results"] for number, content in recorded.items() if content}

    def said(words: Any, name: str) -> Any:
        if not isinstance(words, str):
            return words
        return _BELOW.sub(lambda asked: _lower(rows.get(name.split("-")[1], ()), *asked.groups()), words)

    return {name: {kind: said(words, name) for kind, words in about.items()} for name, about in figures.items()}


def _lower(rows: Iterable[Mapping[str, Any]], key: str, error: str) -> str:
    """Names of results of one error that are below that of `key`."""
    values = {row["key"]: (round(row["value"], _DIGITS), row["title"]) for row in rows if row["key"].startswith(error)}
    if key not in values:
        return "this run did not record it"
    below = [f"“{title.partition(': ')[2] or title}”" for value, title in values.values() if value < values[key][0]]
    return listed(below) if below else "none"
