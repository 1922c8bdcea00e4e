"""Compositions as a matrix of atomic fractions."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from crossfunc.energies import composition
from crossfunc.energies.composition import (
    CompositionError,
    as_composition_matrix,
    composition_matrix,
    element_symbols,
    elements_present,
    parse_formula,
)

NUMBERS = [[3, 27, 8, 8], [8], [11, 17, 11, 17]]  # LiCoO2, O, NaCl twice
FORMULAS = ["LiCoO2", "O", "NaCl"]


def fractions(X, row):
    """One row as {symbol: fraction}."""
    return {element_symbols[c]: v for c, v in enumerate(X[[row]].toarray()[0]) if v}


def table_of(numbers, **columns):
    return pa.table({"atomic_numbers": pa.array(numbers, pa.list_(pa.int16())), **columns})


def assert_same(X, Y):
    np.testing.assert_array_equal(X.toarray(), Y.toarray())


def test_licoo2_is_a_quarter_lithium_a_quarter_cobalt_and_half_oxygen():
    X = composition_matrix(table_of(NUMBERS))
    assert X.shape == (3, 94)
    assert X.dtype == np.float64
    assert fractions(X, 0) == {"Li": 0.25, "O": 0.5, "Co": 0.25}
    assert fractions(X, 1) == {"O": 1.0}
    assert fractions(X, 2) == {"Na": 0.5, "Cl": 0.5}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("Ni6N2", {"N": 0.25, "Ni": 0.75}),
        ("Li0.5CoO2", {"Li": 0.5 / 3.5, "Co": 1 / 3.5, "O": 2 / 3.5}),
        ("Ca(OH)2", {"Ca": 0.2, "O": 0.4, "H": 0.4}),
        ("[Co(NH3)6]Cl3", {"Co": 1 / 28, "N": 6 / 28, "H": 18 / 28, "Cl": 3 / 28}),
        ("CO", {"C": 0.5, "O": 0.5}),
        ("Co", {"Co": 1.0}),
        ("Li2 Fe4 O8", {"Li": 2 / 14, "Fe": 4 / 14, "O": 8 / 14}),
        ("NaCl Na", {"Na": 2 / 3, "Cl": 1 / 3}),
        ("Fe0O1", {"O": 1.0}),
        ("Pu.5O.5", {"Pu": 0.5, "O": 0.5}),
    ],
)
def test_formula_is_read(formula, expected):
    assert fractions(composition_matrix([formula]), 0) == pytest.approx(expected)


def test_every_form_of_the_same_frames_gives_the_same_matrix():
    X = composition_matrix(table_of(NUMBERS))

    class Structure:
        def __init__(self, numbers):
            self.atomic_numbers = tuple(numbers)

    for same in (
        FORMULAS,
        pd.Series(FORMULAS),
        NUMBERS,
        [np.array(numbers, dtype=np.int8) for numbers in NUMBERS],
        [Structure(numbers) for numbers in NUMBERS],
        pd.DataFrame({"atomic_numbers": NUMBERS}),
        pd.DataFrame({"composition": FORMULAS, "formula": ["X", "X", "X"]}),
        pd.DataFrame({"formula": FORMULAS}, index=[7, 7, 9]),
        pa.table({"composition": FORMULAS}),
        table_of(NUMBERS).to_batches()[0],
        table_of(NUMBERS).to_pandas(types_mapper=pd.ArrowDtype),
        pa.table({"atomic_numbers": pa.array(NUMBERS, pa.large_list(pa.uint8()))}),
    ):
        assert_same(composition_matrix(same), X)


def test_fixed_size_lists_are_read():
    column = pa.array([[3, 9], [11, 17]], pa.list_(pa.int64(), 2))
    assert_same(composition_matrix(pa.table({"atomic_numbers": column})), composition_matrix(["LiF", "NaCl"]))


def test_chunks_and_slices_do_not_change_the_rows():
    whole = composition_matrix(table_of(NUMBERS))
    chunked = pa.concat_tables([table_of(NUMBERS[:1]), table_of([]), table_of(NUMBERS[1:])])
    assert chunked.column("atomic_numbers").num_chunks == 3
    assert_same(composition_matrix(chunked), whole)
    assert_same(composition_matrix(chunked.slice(1, 2)), whole[1:])
    assert_same(composition_matrix(table_of(NUMBERS).slice(2)), whole[2:])


def test_counting_in_small_blocks_does_not_change_the_rows(monkeypatch):
    rng = np.random.default_rng(0)
    numbers = [rng.integers(1, 95, size=size) for size in rng.integers(1, 60, size=50)]
    X = composition_matrix(numbers)
    monkeypatch.setattr(composition, "_BLOCK_ATOMS", 17)
    assert_same(composition_matrix(numbers), X)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 94), min_size=1, max_size=30), min_size=1, max_size=12))
def test_rows_sum_to_one_whatever_the_order_of_atoms_and_the_size_of_the_cell(numbers):
    X = composition_matrix(table_of(numbers))
    np.testing.assert_allclose(X.sum(axis=1), 1)
    assert X.has_sorted_indices
    assert (X.data > 0).all()
    assert_same(composition_matrix([row[::-1] for row in numbers]), X)
    supercells = composition_matrix([row * 3 for row in numbers])
    np.testing.assert_allclose(supercells.toarray(), X.toarray(), rtol=1e-15)
    by_hand = np.array([np.bincount(row, minlength=95)[1:] / len(row) for row in numbers])
    np.testing.assert_array_equal(X.toarray(), by_hand)


def test_elements_present_are_in_the_order_of_the_periodic_table():
    assert elements_present(composition_matrix(["PuO2", "LiF"])) == ("Li", "O", "F", "Pu")
    assert element_symbols[0] == "H"
    assert element_symbols[93] == "Pu"
    assert len(element_symbols) == 94


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("LiXx2", "unknown element 'Xx'.*H to Pu"),
        ("AmO2", "unknown element 'Am'"),
        ("Ca(OH", "'\\(' is never closed"),
        ("CaOH)2", "'\\)' closes nothing"),
        ("(OH]2", "']' closes nothing"),
        ("Fe+3", "cannot read 'Fe\\+3' from '\\+3'"),
        ("CuSO4·5H2O", "cannot read .* from '·5H2O'"),
        ("2LiF", "cannot read '2LiF'"),
        ("(2OH)", "cannot read"),
        ("", "holds no atoms"),
        ("Fe0", "holds no atoms"),
        (None, "not text"),
        (float("nan"), "not text"),
    ],
)
def test_a_bad_formula_names_its_row(formula, message):
    table = pd.DataFrame({"material_id": ["mp-1", "mp-2"], "composition": ["LiF", formula]})
    with pytest.raises(CompositionError, match=message) as caught:
        composition_matrix(table)
    assert "row 1 (material_id mp-2)" in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([[3], [9, 95]], "row 1.*atomic number 95 is outside 1 to 94"),
        ([[3], [8], [0]], "row 2.*atomic number 0 is outside"),
        ([[3], []], "row 1.*no atoms"),
        ([[3], None], "row 1.*null"),
        ([[3], [9], [9, None]], "row 2.*an atomic number is null"),
    ],
)
def test_bad_atomic_numbers_name_their_row(numbers, message):
    names = pa.array([f"frame-{i}" for i in range(len(numbers))])
    with pytest.raises(CompositionError, match=message) as caught:
        composition_matrix(table_of(numbers, frame_id=names))
    assert "frame_id frame-" in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (table_of([]), "no rows"),
        (pd.DataFrame({"composition": []}), "no rows"),
        ([], "no compositions"),
        ("LiCoO2", "give a table, or a list"),
        (3, "give a table, or a list"),
        (pd.DataFrame({"energy": [1.0]}), "no column 'atomic_numbers', 'composition' or 'formula' among .'energy'"),
        (pa.table({"atomic_numbers": [1, 2]}), "not a list of integers per row"),
        (pa.table({"atomic_numbers": [[1.0]]}), "not integers"),
        (pd.DataFrame({"atomic_numbers": [[1.5]]}), "not a list of integers"),
        (pd.DataFrame({"atomic_numbers": [[1], None]}), "row 1.*not a list of integers"),
        (pd.DataFrame({"atomic_numbers": [[1], []]}), "row 1.*no atoms"),
    ],
)
def test_an_unusable_table_says_what_to_do(table, message):
    with pytest.raises(CompositionError, match=message):
        composition_matrix(table)


def test_a_matrix_of_counts_or_of_another_width_is_refused():
    with pytest.raises(CompositionError, match=r"row 1 .*sums to 4, not 1"):
        as_composition_matrix(sparse.csr_array(np.array([[1.0] + [0] * 93, [1.0, 3.0] + [0] * 92])))
    with pytest.raises(CompositionError, match=r"shape .n, 94., not .2, 89."):
        as_composition_matrix(np.ones((2, 89)) / 89)
    with pytest.raises(CompositionError, match=r"row 0 .*negative"):
        as_composition_matrix(np.array([[1.5, -0.5] + [0] * 92]))


def test_stored_zeros_and_duplicates_are_tidied_without_touching_the_input():
    X = sparse.csr_array((np.array([0.5, 0.0, 0.5]), np.array([2, 3, 2]), np.array([0, 3])), shape=(1, 94))
    tidy = as_composition_matrix(X)
    assert tidy.nnz == 1
    assert X.nnz == 3
    assert elements_present(X) == ("Li",)


def test_a_formula_is_parsed_once():
    parse_formula.cache_clear()
    composition_matrix(["LiCoO2"] * 100)
    assert parse_formula.cache_info().misses == 1
