"""Lessons 1 to 3 for a reader who has a browser and nothing else: what the page needs, and the library's own answers.

The page computes for itself (``figures/laboratory.js``), from the energies that stand here.
"""

import bisect
import functools
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfunc.datasets import Dataset, open_dataset
from crossfunc.energies import composition_matrix, correlation_text, elements_present, fit_atomref, pearson
from crossfunc.energies.atomref import judge
from crossfunc.errors import InputError
from crossfunc.lessons import wording
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

if TYPE_CHECKING:
    from crossfunc.lessons.figures.widgets import Widget

__all__ = ["DATASETS", "answers", "energies_for_page", "interactive", "one_file", "table_place"]

FENCE = "```{laboratory}\n```\n"
END = "(laboratory-labels)="
"""Where the book's page shows the interactive, and where what follows is about the book."""

DATASETS = ("pbe-r2scan", "surrogate")
"""What the page offers: the labels that the question is asked on, then the many elements."""

_PLAIN = re.compile(r"(?:[A-Z][a-z]?\d*)+")
_NOBLE = (0, 2, 10, 18, 36, 54, 86)
_DECIMALS = 7
_N_DRAWS = 20


def energies_for_page(dataset: Dataset) -> dict[str, Any]:
    """Return formulas and energies of a dataset's materials for the page, short enough to be written into it.

    Parameters
    ----------
    dataset : Dataset
        One with pairs, their formation energies among them.

    Returns
    -------
    dict
        `name`, `notice`, `names` of the functionals, `elements` (symbol, row, column), `formulas` in one text,
        `prototypes` and each material's `prototype`, `low` and `high` (eV/atom), and `ground`, the energies of the
        elements that formation energies are measured from.

    Raises
    ------
    InputError
        No pairs or no formation energies, or a formula with brackets or parts of atoms; names it.
    """
    pairs = dataset.pairs
    if pairs is None:
        raise InputError(f"{dataset.name}: no table of pairs, so there is nothing to compare: take a dataset with one")
    formulas = [str(formula) for formula in pairs["composition"]]
    if odd := [formula for formula in formulas if not _PLAIN.fullmatch(formula)]:
        raise InputError(f"{dataset.name}: {odd[0]!r}: write formulas for the page with whole numbers and no brackets")
    X = composition_matrix(formulas)
    ground = {}
    for functional in dataset.functionals:
        of_elements = (pairs[functional.column()] - pairs[functional.column(formation=True)]).to_numpy()
        if not np.isfinite(of_elements).all():
            raise InputError(f"{dataset.name}: not every material has a formation energy: leave the others out")
        ground[functional.side] = _rounded(fit_atomref(X, of_elements).energies_ev[_columns(X)])
    low, high = dataset.functionals
    labels = dataset.label_notice or "density-functional theory"
    prototypes = list(dict.fromkeys(pairs["prototype"])) if "prototype" in pairs else [""]
    index = {name: k for k, name in enumerate(prototypes)}
    return {
        "name": dataset.name,
        "notice": f"{low.full_name} and {high.full_name}. {labels[:1].upper()}{labels[1:]}.",
        "names": {functional.side: functional.name for functional in dataset.functionals},
        "elements": [[symbol, *table_place(symbol)] for symbol in elements_present(X)],
        "formulas": " ".join(formulas),
        "prototypes": prototypes,
        "prototype": [index[name] for name in pairs["prototype"]] if "prototype" in pairs else [0] * len(formulas),
        "ground": ground,
        **{f.side: _rounded(pairs[f.column()].to_numpy()) for f in dataset.functionals},
    }


def table_place(symbol: str) -> tuple[int, int]:
    """Return row and column of an element in the periodic table; lanthanides and actinides in rows 8 and 9."""
    number = ATOMIC_NUMBERS[symbol]
    period = bisect.bisect_left(_NOBLE, number)
    place, length = number - _NOBLE[period - 1], {1: 2, 2: 8, 3: 8, 4: 18, 5: 18}.get(period, 32)
    if length == 32 and 3 <= place <= 17:
        return period + 2, place
    return period, place if place < 3 and (period > 1 or place == 1) else place + 18 - length


def _columns(X) -> np.ndarray:
    return np.array([ATOMIC_NUMBERS[symbol] - 1 for symbol in elements_present(X)])


def _rounded(values) -> list[float]:
    return np.round(np.asarray(values, dtype=float), _DECIMALS).tolist()


@functools.cache
def interactive() -> "Widget":
    """Return what a reader moves, with the energies of `DATASETS` in it."""
    from crossfunc.lessons.figures.widgets import laboratory

    return laboratory([energies_for_page(open_dataset(name)) for name in DATASETS])


def one_file(text: str, titles: Mapping[str, str] | None = None) -> str:
    """Return the book's page, without its answers, as one file of HTML that needs nothing else.

    Parameters
    ----------
    text : str
        The page in MyST, with a fence for the interactive.
    titles : mapping, optional
        Titles of the book's pages, from `wording.page_titles`.

    Raises
    ------
    InputError
        A page without that fence.
    """
    from markdown_it import MarkdownIt

    before, fence, after = text.partition(FENCE)
    if not fence:
        raise InputError("the page shows no laboratory: write its fence, {laboratory}, where it is to stand")
    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    parts = (wording.as_markdown(wording.without_answers(part), titles) for part in (before, after.partition(END)[0]))
    first, last = (render(part) for part in parts)
    title = escape(text.partition("\n")[0].removeprefix("# "))
    return f"{_HEAD.replace('TITLE', title)}{first}{interactive().html}{last}</body></html>\n"


_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title><style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 sans-serif; max-width: 54rem; margin: 1rem auto; padding: 0 0.8rem; }
</style></head><body>
"""


@functools.cache
def answers() -> dict[str, str]:
    """Return the numbers of the page's answers by name, as text, computed by the library on the first dataset."""
    dataset = open_dataset(DATASETS[0])
    pairs = dataset.pairs
    assert pairs is not None
    X = composition_matrix(pairs)
    low, high = (pairs[f.column()].to_numpy() for f in dataset.functionals)
    formation = [pairs[f.column(formation=True)].to_numpy() for f in dataset.functionals]
    return {**_of_totals(X, low, high), **_of_formation(X, *formation), **_of_references(X, low, high)}


def _of_totals(X, low, high) -> dict[str, str]:
    """Lesson 1: total energies of all materials, and of those without an element beyond chlorine."""
    light = np.asarray(X[:, ATOMIC_NUMBERS["Cl"] :].sum(axis=1)).ravel() == 0
    found = {"n": str(len(low)), "light_n": str(light.sum())}
    for name, rows in (("all", light | True), ("light", light)):
        found[f"{name}_r"] = correlation_text(pearson(low[rows], high[rows]).r)
        found[f"{name}_difference"] = f"{np.abs(high - low)[rows].mean():.2f} eV/atom"
    return found


def _of_formation(X, low, high) -> dict[str, str]:
    """Lesson 2: what formation energies leave, the element with most of it, and the one whose removal takes most."""
    difference, holds = np.abs(high - low), X.toarray() > 0
    columns = _columns(X)
    with_it = {j: difference[holds[:, j]].mean() for j in columns}
    without_it = {j: difference[~holds[:, j]].mean() for j in columns}
    found = {"formation_r": correlation_text(pearson(low, high).r), "formation_difference": _in_mev(difference.mean())}
    chosen = {"most": max(columns, key=lambda j: with_it[j]), "key": min(columns, key=lambda j: without_it[j])}
    for name, j in chosen.items():
        found[f"{name}_symbol"] = ELEMENT_SYMBOLS[j]
        found[f"{name}_n"] = str(holds[:, j].sum())
        found[f"{name}_left"] = _in_mev(with_it[j])
        found[f"{name}_without"] = _in_mev(without_it[j])
    return found


def _of_references(X, low, high) -> dict[str, str]:
    """Lesson 3: references fitted to most materials and to a tenth of them, each over some draws."""
    n, found = len(low), {"n_draws": str(_N_DRAWS)}
    for name, n_fitted in (("many", int(0.8 * n + 0.5)), ("few", int(0.1 * n + 0.5))):
        rows, errors, correlations = [], [], []
        for seed in range(_N_DRAWS):
            dealt = np.random.default_rng(seed).permutation(n)
            some, others = dealt[:n_fitted], dealt[n_fitted:]
            fits = [fit_atomref(X[some], energy[some]) for energy in (low, high)]
            left = [judge(f, X[others], e[others])[0] for f, e in zip(fits, (low, high), strict=True)]
            rows.append(len(left[0]))
            if rows[-1] > 2:
                errors.append(1000 * np.abs(left[1] - left[0]).mean())
                correlations.append(pearson(*left).r)
        found[f"{name}_fitted"] = str(n_fitted)
        found[f"{name}_difference"] = _between(f"{min(errors):.0f}", f"{max(errors):.0f} meV/atom")
        if name == "many":
            found["many_r"] = _between(*(correlation_text(end(correlations)) for end in (min, max)))
        else:
            found |= {"few_judged": _between(min(rows), max(rows)), "few_others": str(n - n_fitted)}
    return found


def _in_mev(energy_ev) -> str:
    return f"{1000 * energy_ev:.0f} meV/atom"


def _between(first, last) -> str:
    return f"{first} to {last}"
