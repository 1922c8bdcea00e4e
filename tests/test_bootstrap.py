"""Intervals over materials: against what theory says, and where nothing may be said."""

import numpy as np
import pytest

from crossfunc.bootstrap import (
    FEWEST,
    BootstrapError,
    Estimate,
    estimate_of_sums,
    mean_error,
    mean_over_seeds,
    paired_difference,
    paired_over_seeds,
    ratio_difference,
)


def materials(n, frames_each=1):
    return np.repeat([f"m{k}" for k in range(n)], frames_each)


def test_the_interval_of_independent_materials_is_that_of_the_standard_error():
    error = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = mean_error(error, materials(400))
    half = 1.96 * error.std() / np.sqrt(400)
    assert found.value == pytest.approx(error.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_copies_of_a_frame_do_not_narrow_the_interval():
    error = np.random.default_rng(1).normal(5.0, 2.0, 60)
    once, often = mean_error(error, materials(60)), mean_error(np.repeat(error, 25), materials(60, 25))
    assert often.value == pytest.approx(once.value)
    assert often.interval == pytest.approx(once.interval)
    assert often.n_materials == 60


def test_ninety_five_percent_of_the_intervals_hold_the_true_mean():
    rng = np.random.default_rng(2)
    held = [mean_error(rng.normal(1.0, 1.0, 50), materials(50), n_bootstrap=400, seed=k) for k in range(300)]
    share = np.mean([e.low <= 1.0 <= e.high for e in held])
    assert 0.90 < share < 0.98


def test_pairing_sees_a_difference_that_two_separate_intervals_hide():
    rng = np.random.default_rng(3)
    hard = rng.lognormal(3, 1, 80)  # some materials are hard for both methods
    one, two = hard + rng.normal(0, 1, 80), hard + 3 + rng.normal(0, 1, 80)
    ids = materials(80)
    assert mean_error(one, ids).high > mean_error(two, ids).low  # apart, they overlap
    assert paired_difference(one, two, ids).verdict == "lower"
    assert paired_difference(two, one, ids).verdict == "higher"
    assert paired_difference(one, two, ids).value == pytest.approx((one - two).mean())


def test_no_difference_is_unclear_and_so_are_too_few_materials():
    error = np.random.default_rng(4).normal(0, 1, 100)
    assert paired_difference(error, error[::-1], materials(100)).verdict == "unclear"
    few = mean_error(np.full(FEWEST - 1, -9.0), materials(FEWEST - 1))
    assert few.interval is None
    assert few.verdict == "unclear"
    assert mean_error(np.full(FEWEST, -9.0), materials(FEWEST)).verdict == "lower"


def test_the_seed_decides_and_repeats():
    error = np.random.default_rng(5).normal(0, 1, 30)
    first, again, other = (mean_error(error, materials(30), seed=k) for k in (0, 0, 1))
    assert first == again
    assert first.interval != other.interval


def test_several_seeds_are_drawn_each_on_its_own():
    rng = np.random.default_rng(6)
    errors, others = rng.normal(1, 1, (3, 40)), rng.normal(2, 1, (3, 40))
    found = paired_over_seeds(errors, others, [materials(40)] * 3)
    assert found.value == pytest.approx((errors - others).mean())
    assert found.n_materials == 40  # the same ones in each seed
    assert found.verdict == "lower"
    alone = paired_difference(errors[0], others[0], materials(40))
    assert found.high - found.low < alone.high - alone.low


def test_a_material_in_the_test_sets_of_several_seeds_counts_once():
    error, nothing = np.random.default_rng(7).normal(5.0, 2.0, 60), np.zeros(60)
    once = paired_difference(error, nothing, materials(60))
    copied = paired_over_seeds([error] * 4, [nothing] * 4, [materials(60)] * 4)
    assert copied.interval == pytest.approx(once.interval, rel=1e-9)
    error, halves = np.sort(error), [slice(0, 60, 2), slice(1, 60, 2)]  # alike, so that runs add nothing
    apart = paired_over_seeds([error[s] for s in halves], [nothing[:30]] * 2, [materials(60)[s] for s in halves])
    assert apart.n_materials == 60
    assert apart.high - apart.low == pytest.approx(once.high - once.low, rel=0.1)


@pytest.mark.parametrize("n_materials", [6, 60])
@pytest.mark.parametrize("of_runs", [0.0, 1.0])
def test_two_like_methods_are_told_apart_in_few_cases_however_much_runs_scatter(n_materials, of_runs):
    rng, ids = np.random.default_rng(9), materials(n_materials)
    wrong, over_materials_alone = 0, 0
    for _ in range(200):
        common = rng.normal(0, 1, n_materials)
        errors = [common + rng.normal(0, 1, n_materials) + rng.normal(0, of_runs) for _ in range(3)]
        nothing = [np.zeros(n_materials)] * 3
        wrong += paired_over_seeds(errors, nothing, [ids] * 3, n_bootstrap=300).verdict != "unclear"
        alone = mean_error(np.mean(errors, axis=0), ids, n_bootstrap=300)
        over_materials_alone += alone.verdict != "unclear"
    assert wrong / 200 < 0.11
    assert over_materials_alone / 200 > 0.15 or not of_runs  # what a run adds is not seen in one mean


def test_runs_that_agree_better_than_materials_explain_add_nothing_and_one_run_says_nothing_of_others():
    error, nothing = np.random.default_rng(10).normal(1.0, 2.0, 40), np.zeros(40)
    alone = paired_difference(error, nothing, materials(40))
    assert paired_over_seeds([error], [nothing], [materials(40)]).interval == pytest.approx(alone.interval)
    three = paired_over_seeds([error] * 3, [nothing] * 3, [materials(40)] * 3)
    assert three.interval == pytest.approx(alone.interval)
    scattered = paired_over_seeds([error - 1, error, error + 1], [nothing] * 3, [materials(40)] * 3)
    assert scattered.value == pytest.approx(three.value)
    assert scattered.high - scattered.low > 2 * (three.high - three.low)


def test_a_mean_over_seeds_is_a_difference_from_nothing():
    errors, nothing = np.random.default_rng(3).normal(2.0, 1.0, (3, 30)), np.zeros((3, 30))
    assert mean_over_seeds(errors, [materials(30)] * 3) == paired_over_seeds(errors, nothing, [materials(30)] * 3)


def test_materials_that_agree_leave_the_interval_to_the_runs():
    runs, nothing = [np.full(8, value) for value in (1.0, 2.0, 3.0)], np.zeros(8)
    found = paired_over_seeds(runs, [nothing] * 3, [materials(8)] * 3)
    half = 4.303 / np.sqrt(3)  # t(2) of 97.5 %, standard deviation of one
    assert found.interval == pytest.approx((2 - half, 2 + half), rel=1e-3)


def test_a_row_that_lacks_a_part_of_a_ratio_counts_in_none_of_its_sums():
    whole = np.column_stack([np.arange(1.0, 21), 2 * np.arange(1.0, 21)])
    part = whole.copy()
    part[::2, 0] = np.nan
    ids = materials(20)
    assert estimate_of_sums(part, ids, lambda s: s[0] / s[1]).value == 0.5
    assert ratio_difference(part.T, whole.T, ids).value == pytest.approx(0)


def test_a_difference_of_ratios_has_the_interval_of_its_closed_form():
    rng = np.random.default_rng(11)
    ones, a, b = np.ones(300), rng.normal(2, 0.5, 300), rng.normal(1, 0.5, 300)
    found = ratio_difference((a, ones), (b, ones), materials(300))  # with denominators of one: a paired mean
    same = paired_difference(a, b, materials(300))
    assert found.value == pytest.approx(same.value)
    assert found.interval == pytest.approx(same.interval)
    assert ratio_difference((a, b + 9), (a, b + 9), materials(300)).interval == (0, 0)


def test_a_statistic_of_sums_has_the_interval_of_the_mean_that_it_may_be():
    rng = np.random.default_rng(12)
    errors = rng.normal(2, 0.5, 300)
    rows = np.column_stack([errors, np.ones(300)])
    found = estimate_of_sums(rows, materials(300), lambda s: s[0] / s[1])
    same = mean_error(errors, materials(300))
    assert (found.value, *found.interval) == pytest.approx((same.value, *same.interval), rel=1e-12)


def test_the_interval_of_a_cosine_holds_the_cosine_of_all_that_was_drawn_from():
    rng = np.random.default_rng(13)
    labels = rng.normal(0, 1, 20_000)
    predicted = 0.5 * labels + rng.normal(0, 0.5, 20_000)
    rows = np.column_stack([labels * predicted, labels**2, predicted**2])
    whole = rows.sum(axis=0)
    few = estimate_of_sums(rows[:400], materials(400), lambda s: s[0] / np.sqrt(s[1] * s[2]))
    assert few.low < whole[0] / np.sqrt(whole[1] * whole[2]) < few.high
    assert few.high - few.low < 0.15


def test_a_seed_with_few_materials_does_not_end_the_draw():
    error = np.random.default_rng(8).normal(5.0, 1.0, 8)
    found = paired_over_seeds([error, error[:1]], [np.zeros(8), np.zeros(1)], [materials(8), materials(1)])
    assert np.isfinite(found.interval).all()


def test_rows_without_a_label_are_left_out_and_must_be_the_same_for_both():
    error = np.array([1.0, np.nan, 3.0, 2.0, 2.0, 2.0])
    assert mean_error(error, materials(6)).value == pytest.approx(2.0)
    with pytest.raises(BootstrapError, match="the same rows"):
        paired_difference(error, np.ones(6), materials(6))
    with pytest.raises(BootstrapError, match="the same rows"):
        paired_difference(np.ones(6), np.ones(5), materials(6))
    with pytest.raises(BootstrapError, match="nothing is labelled"):
        mean_error([np.nan], ["a"])
    with pytest.raises(BootstrapError, match="one id per row"):
        mean_error([1.0, 2.0], ["a"])
    with pytest.raises(BootstrapError, match="finite"):
        mean_error([np.inf], ["a"])


def test_an_estimate_without_an_interval_says_so():
    assert Estimate(1.0, float("nan"), float("nan"), 2).interval is None


def test_a_row_that_is_the_mean_of_many_labels_counts_for_as_many():
    rng = np.random.default_rng(0)
    counts, ids = rng.integers(1, 9, 60), materials(20, 3)
    labels = [rng.exponential(1.0, n) for n in counts]
    means, each, owners = np.array([x.mean() for x in labels]), np.concatenate(labels), np.repeat(ids, counts)
    rows, every = mean_error(means, ids, weights=counts), mean_error(each, owners)
    assert (rows.value, rows.low, rows.high) == pytest.approx((every.value, every.low, every.high))
    with pytest.raises(BootstrapError, match="one weight per row"):
        mean_error(means, ids, weights=counts[1:])


def test_a_statistic_that_some_resample_does_not_have_is_given_without_an_interval():
    rows = np.column_stack([[1.0, 2.0, *[0.0] * 6], [1.0, 1.0, *[0.0] * 6]])  # some resamples hold neither
    with np.errstate(invalid="ignore"):
        found = estimate_of_sums(rows, materials(8), lambda s: s[0] / s[1])
    assert (found.value, found.interval, found.verdict) == (1.5, None, "unclear")
