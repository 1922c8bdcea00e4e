"""Mean and spread over seeds, as the lessons print them."""

import numpy as np
import pytest

from crossfunc.lessons.scores import QUANTITIES, over_seeds, spread_text
from crossfunc.training.labels import METRICS


def test_mean_and_one_standard_deviation_to_either_side():
    assert over_seeds([1.0, 3.0]) == (2.0, (2.0 - np.sqrt(2), 2.0 + np.sqrt(2)))  # n - 1 = 1 in the denominator


def test_one_seed_has_an_interval_of_no_width_and_none_is_an_error():
    assert over_seeds([5.0]) == (5.0, (5.0, 5.0))
    with pytest.raises(ValueError, match="nothing to average"):
        over_seeds([])


def test_a_spread_is_written_with_the_digits_it_deserves():
    assert spread_text([10.0, 14.0]) == "12 ± 3"
    assert spread_text([0.5]) == "0.5"
    assert spread_text([0.5, np.nan]) == "undefined"


def test_metrics_are_those_that_an_evaluation_reports():
    assert list(QUANTITIES) == list(METRICS.values())
