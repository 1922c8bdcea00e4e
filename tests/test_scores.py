"""Mean and spread over seeds, as the lessons print them."""

from types import SimpleNamespace

import numpy as np
import pytest

from crossfunc.lessons.scores import QUANTITIES, explained_in_words, mean_by_students_t, over_seeds, spread_text
from crossfunc.training.labels import METRICS


def test_mean_and_one_standard_deviation_to_either_side():
    assert over_seeds([1.0, 3.0]) == (2.0, (2.0 - np.sqrt(2), 2.0 + np.sqrt(2)))  # n - 1 = 1 in the denominator


def test_a_mean_has_the_interval_of_students_t():
    mean, (low, high) = mean_by_students_t([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2, pytest.approx(4.303 / np.sqrt(3), rel=1e-3))  # of any table, for two degrees
    assert mean - low == pytest.approx(high - mean)
    assert mean_by_students_t([1.0, 3.0], level=0.5)[1] == pytest.approx((1, 3))  # two hold the mean every other time


@pytest.mark.parametrize("function", [over_seeds, mean_by_students_t])
def test_one_seed_has_no_interval_and_none_is_an_error(function):
    assert function([5.0]) == (5.0, None)
    with pytest.raises(ValueError, match="nothing to average"):
        function([])


def test_a_spread_is_written_with_the_digits_it_deserves():
    assert spread_text([10.0, 14.0]) == "12 ± 3"
    assert spread_text([0.5]) == "0.5"
    assert spread_text([0.5, np.nan]) == "undefined"


def test_metrics_are_those_that_an_evaluation_reports():
    assert list(QUANTITIES) == list(METRICS.values())


@pytest.mark.parametrize(
    ("corrected", "raw", "much"),
    [
        ([0.50, 0.52, 0.51], [0.78, 0.80, 0.79], "less"),
        ([0.90, 0.92, 0.91], [0.78, 0.80, 0.79], "more"),
        ([0.79, 0.79, 0.79], [0.78, 0.80, 0.81], "neither clearly less nor clearly more"),
        ([0.50, 0.52], [0.78, 0.80], "neither clearly less nor clearly more"),
    ],
)
def test_of_which_difference_composition_explains_less_is_said_where_three_seeds_agree(corrected, raw, much):
    named = {"with corrections": corrected, "without corrections": raw}
    said = explained_in_words({name: SimpleNamespace(r2_per_seed=values) for name, values in named.items()})
    assert said.startswith(
        f"Composition explains {much} of the difference with corrections than of the one without corrections: "
        f"cross-validated R² {spread_text(corrected)} against {spread_text(raw)}."
    )
    assert ("shares of different amounts" in said) == (much in ("less", "more"))
