"""Splits by material and nested subsets: what must hold for any ids, sizes and seeds."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfunc.datasets import (
    leave_composition_out,
    leave_prototype_out,
    nested_subsets,
    split_by_group,
    split_by_material,
)
from crossfunc.datasets.splits import PARTS

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def groups(draw, min_materials=10):
    """Ids of rows: every material one to four times, in any order."""
    n_materials = draw(st.integers(min_materials, 60))
    repeats = draw(st.lists(st.integers(1, 4), min_size=n_materials, max_size=n_materials))
    ids = [f"m{k}" for k, n in enumerate(repeats) for _ in range(n)]
    return np.array(draw(st.permutations(ids)))


@settings(deadline=None)
@given(groups(), SEEDS)
def test_no_material_is_ever_in_two_parts(ids, seed):
    parts = split_by_material(ids, seed=seed)
    materials = {name: set(ids[rows]) for name, rows in parts.items()}
    assert materials["train"].isdisjoint(materials["validation"] | materials["test"])
    assert materials["validation"].isdisjoint(materials["test"])


@settings(deadline=None)
@given(groups(), SEEDS)
def test_every_row_is_in_exactly_one_part_and_parts_are_sorted(ids, seed):
    parts = split_by_material(ids, seed=seed)
    assert tuple(parts) == PARTS
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(ids)))
    assert all((np.diff(rows) > 0).all() for rows in parts.values())


@settings(deadline=None)
@given(groups(), SEEDS, st.randoms(use_true_random=False))
def test_the_split_of_materials_does_not_depend_on_the_order_of_the_rows(ids, seed, random):
    order = np.array(random.sample(range(len(ids)), len(ids)))
    before, after = split_by_material(ids, seed=seed), split_by_material(ids[order], seed=seed)
    for name in PARTS:
        assert set(ids[before[name]]) == set(ids[order][after[name]])
        assert set(before[name]) == set(order[after[name]])


@settings(deadline=None)
@given(groups(), SEEDS, st.integers(1, 4))
def test_the_split_of_materials_does_not_depend_on_how_many_rows_each_has(ids, seed, repeats):
    before, after = split_by_material(ids, seed=seed), split_by_material(np.repeat(ids, repeats), seed=seed)
    for name in PARTS:
        assert set(ids[before[name]]) == set(np.repeat(ids, repeats)[after[name]])


@settings(deadline=None)
@given(st.integers(10, 3000), st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)), SEEDS)
def test_parts_hold_their_share_of_the_materials_to_within_one(n_materials, weights, seed):
    fractions = tuple(w / sum(weights) for w in weights)
    if min(fractions) * n_materials < 1:
        return
    parts = split_by_material(np.arange(n_materials), fractions, seed)
    for name, share in zip(PARTS, fractions, strict=True):
        assert abs(len(parts[name]) - share * n_materials) <= 1


def test_a_thousand_materials_split_into_800_100_and_100():
    parts = split_by_material([f"mp-{k}" for k in range(1000)])
    assert [len(parts[name]) for name in PARTS] == [800, 100, 100]


def test_the_seed_decides_and_repeats():
    ids = [f"mp-{k}" for k in range(1000)]
    first, again, other = split_by_material(ids), split_by_material(ids, seed=0), split_by_material(ids, seed=1)
    assert (first["test"] == again["test"]).all()
    assert len(np.intersect1d(first["test"], other["test"])) < 40  # 10 by chance


@pytest.mark.parametrize("as_column", [list, np.array, pd.Series, pa.array, lambda ids: pa.chunked_array([ids, ids])])
def test_ids_may_be_a_list_an_array_or_a_column(as_column):
    ids = as_column(["a", "b", "c", "d"] * 3)
    parts = split_by_material(ids, (0.5, 0.25, 0.25))
    assert sum(len(rows) for rows in parts.values()) == len(ids)


def test_a_share_of_zero_gives_an_empty_part():
    parts = split_by_material(["a", "b", "c", "a"], (1.0, 0.0, 0.0))
    assert [len(parts[name]) for name in PARTS] == [4, 0, 0]
    parts = split_by_material(["a", "b", "c", "d"], (0.5, 0.5, 0.0))
    assert [len(parts[name]) for name in PARTS] == [2, 2, 0]


@pytest.mark.parametrize(
    "fractions", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0.5, 0.5), (8, 1, 1), (float("nan"), 0.5, 0.5)]
)
def test_fractions_that_are_no_shares_of_one_are_refused(fractions):
    with pytest.raises(ValueError, match="three shares >= 0 that add up to 1"):
        split_by_material(list("abcdefghij"), fractions)


@pytest.mark.parametrize("ids", [[], ["a"], ["a"] * 50, list("abc")])
def test_too_few_materials_for_three_parts_are_named_not_hidden(ids):
    with pytest.raises(ValueError, match=rf"{len(set(ids))} materials?: too few .* is empty"):
        split_by_material(ids)


@settings(deadline=None)
@given(groups(min_materials=1), st.data(), SEEDS)
def test_subsets_are_nested_and_of_the_exact_sizes(ids, data, seed):
    sizes = sorted(data.draw(st.lists(st.integers(0, len(ids)), min_size=1, max_size=6)))
    subsets = nested_subsets(ids, sizes, seed)
    assert [len(rows) for rows in subsets] == sizes
    assert all((np.diff(rows) > 0).all() for rows in subsets)
    for smaller, larger in itertools.pairwise(subsets):
        assert set(smaller) <= set(larger)


@settings(deadline=None)
@given(groups(min_materials=1), st.data(), SEEDS)
def test_subsets_take_whole_materials_and_at_most_one_in_part(ids, data, seed):
    size = data.draw(st.integers(0, len(ids)))
    (rows,) = nested_subsets(ids, [size], seed)
    partly = [m for m in set(ids[rows]) if (ids[rows] == m).sum() < (ids == m).sum()]
    assert len(partly) <= 1


@settings(deadline=None)
@given(groups(min_materials=1), st.data(), SEEDS)
def test_a_subset_does_not_depend_on_which_other_sizes_are_asked_for(ids, data, seed):
    size = data.draw(st.integers(0, len(ids)))
    (alone,) = nested_subsets(ids, [size], seed)
    assert (nested_subsets(ids, [0, size, len(ids)], seed)[1] == alone).all()


@settings(deadline=None)
@given(groups(min_materials=1), SEEDS, st.randoms(use_true_random=False))
def test_materials_enter_subsets_in_an_order_that_rows_do_not_change(ids, seed, random):
    order = np.array(random.sample(range(len(ids)), len(ids)))
    for size in (1, len(ids) // 2, len(ids)):
        (before,), (after,) = nested_subsets(ids, [size], seed), nested_subsets(ids[order], [size], seed)
        assert sorted(ids[before]) == sorted(ids[order][after])


def test_the_whole_set_is_its_own_last_subset():
    subsets = nested_subsets(["a", "b", "a"], [3])
    assert subsets[0].tolist() == [0, 1, 2]
    assert nested_subsets([], [0])[0].tolist() == []
    assert nested_subsets(["a"], []) == []


def test_different_seeds_start_from_different_materials():
    ids = [f"m{k}" for k in range(100)]
    starts = {int(nested_subsets(ids, [1], seed)[0][0]) for seed in range(20)}
    assert len(starts) > 10


@pytest.mark.parametrize("sizes", [[2, 1], [-1, 2], [1, 5], [5]])
def test_sizes_that_fall_or_lie_outside_the_rows_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must rise and lie between 0 and 4 rows"):
        nested_subsets(list("abcd"), sizes)


# --- whole groups of materials ---


@settings(deadline=None)
@given(groups(), st.integers(5, 20), SEEDS)
def test_no_group_is_ever_in_two_parts_and_every_row_is_in_one(ids, n_groups, seed):
    of_material = {name: f"g{k % n_groups}" for k, name in enumerate(sorted(set(ids)))}
    labels = np.array([of_material[name] for name in ids])
    parts = split_by_group(labels, ids, (0.6, 0.2, 0.2), seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(ids)))
    for one, other in itertools.combinations(PARTS, 2):
        assert not set(labels[parts[one]]) & set(labels[parts[other]])


def test_a_large_group_does_not_overfill_a_small_part():
    ids = np.arange(1000).astype(str)
    labels = np.where(np.arange(1000) < 300, "large", (np.arange(1000) % 100).astype(str))
    for seed in range(20):
        parts = split_by_group(labels, ids, (0.8, 0.1, 0.1), seed)
        assert abs(len(parts["train"]) - 800) <= 10  # the size of a small group
        assert "large" in set(labels[parts["train"]])


def test_polymorphs_stay_together_however_their_formula_is_written():
    ids = [f"m{k}" for k in range(20)]
    formulas = ["TiO2", "O4Ti2"] * 2 + [f"Li{n}O" for n in range(1, 17)]
    for seed in range(10):
        parts = leave_composition_out(ids, formulas, (0.5, 0.25, 0.25), seed)
        assert sum(bool({0, 1, 2, 3} & set(rows)) for rows in parts.values()) == 1


def test_structure_types_stay_together():
    ids = np.array([f"m{k}" for k in range(40)])
    types = np.array(["rock-salt", "spinel", "perovskite", "rutile"] * 10)
    parts = leave_prototype_out(ids, types, (0.5, 0.25, 0.25))
    assert [len(parts[name]) for name in PARTS] == [20, 10, 10]
    assert all(len(set(types[parts[name]])) == len(parts[name]) // 10 for name in PARTS)


def test_a_material_in_two_groups_or_in_none_is_named():
    with pytest.raises(ValueError, match="material a is in two groups, x and y"):
        split_by_group(["x", "y", "x"], ["a", "a", "b"])
    for nothing in (None, float("nan"), ""):
        with pytest.raises(ValueError, match="material b has no group"):
            split_by_group(["x", nothing, "x"], ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 group: too few"):
        split_by_group(["x"] * 20, np.arange(20))
