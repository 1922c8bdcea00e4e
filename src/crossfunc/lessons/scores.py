"""Numbers over seeds and models as the lessons print them: mean, spread, and the paper's beside ours."""

from collections.abc import Callable, Mapping

import numpy as np

from crossfunc.errors import InputError
from crossfunc.lessons.results import format_value
from crossfunc.training.labels import METRICS

_IN_WORDS = {
    "energy": ("energy", "meV/atom"),
    "forces": ("force", "meV/Å"),
    "stress": ("stress", "GPa"),
    "magmoms": ("magmom", "μB"),
}
QUANTITIES = {METRICS[target]: words for target, words in _IN_WORDS.items()}
"""The four errors that an evaluation reports, by name: what is meant, and the unit."""


def over_seeds(values) -> tuple[float, tuple[float, float] | None]:
    """Return the mean over seeds and the interval of one standard deviation on either side; None for one seed.

    Parameters
    ----------
    values : array_like, shape (n_seeds,)

    Raises
    ------
    ValueError
        No value at all.
    """
    return _about_mean(values, lambda spread, _: spread)


def mean_by_students_t(values, level: float = 0.95) -> tuple[float, tuple[float, float] | None]:
    """Return the mean over seeds and its confidence interval by Student's t; None for one seed.

    Parameters
    ----------
    values : array_like, shape (n_seeds,)
    level : float
        Probability of the interval, mean ± t(n - 1) s / √n, for seeds that scatter normally.

    Raises
    ------
    ValueError
        No value at all.
    """
    from scipy.stats import t

    return _about_mean(values, lambda spread, n: t.ppf((1 + level) / 2, n - 1) * spread / np.sqrt(n))


def _about_mean(values, half_width: Callable[[float, int], float]) -> tuple[float, tuple[float, float] | None]:
    """Mean, and the ends at `half_width` of the standard deviation and the number of seeds from it."""
    values = np.asarray(values, dtype=float)
    if not values.size:
        raise InputError("no seed has a value: there is nothing to average.")
    mean = values.mean()
    if len(values) == 1:
        return float(mean), None
    half = half_width(values.std(ddof=1), len(values))
    return float(mean), (float(mean - half), float(mean + half))


def spread_text(values) -> str:
    """Return mean and spread over seeds with the digits that they deserve, a word if a seed has no value."""
    if np.isnan(np.asarray(values, dtype=float)).any():
        return "undefined"
    mean, ends = over_seeds(values)
    return format_value(mean, ends)


def explained_in_words(fits: Mapping) -> str:
    """Say of which of two differences composition explains less, by the cross-validated R² of the same seeds.

    Parameters
    ----------
    fits : mapping of str to Importance
        Two, by what is said of the difference, such as "with corrections".

    Returns
    -------
    str
        "Less" and "more" are verdicts that three seeds or more share; two agree by luck every other time.
    """
    (one, first), (other, second) = ((name, np.asarray(fit.r2_per_seed)) for name, fit in fits.items())
    is_less, is_more = (len(first) > 2 and one_side.all() for one_side in (first < second, first > second))
    much = "less" if is_less else "more" if is_more else "neither clearly less nor clearly more"
    text = (
        f"Composition explains {much} of the difference {one} than of the one {other}: cross-validated R² "
        f"{spread_text(first)} against {spread_text(second)}."
    )
    if is_less or is_more:
        text += " So a share of importance with corrections and one without are shares of different amounts."
    return text
