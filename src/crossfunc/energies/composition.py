"""Compositions as a matrix: one row per frame or material, one column per element.

Everything the book says about element references is linear algebra on this matrix: the reference energy of a
material is its row times the vector of element references (paper, Fig. 2a).
"""

import functools
import itertools
import re

import numpy as np
from scipy import sparse

from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS, N_ELEMENTS

element_symbols = ELEMENT_SYMBOLS

_NUMBERS_COLUMN = "atomic_numbers"
_FORMULA_COLUMNS = ("composition", "formula")
_NAME_COLUMNS = ("frame_id", "material_id", "mp_id")
_TOKEN = re.compile(r"([A-Z][a-z]?|[()\[\]{}])(\d+\.?\d*|\.\d+)?")
_BLOCK_ATOMS = 2**18  # atoms counted at a time: small enough to stay in cache
_PAIRED = {")": "(", "]": "[", "}": "{"}


class CompositionError(ValueError):
    """A composition that cannot be read; the message names the row and the remedy."""


def composition_matrix(table) -> sparse.csr_array:
    """Atomic fractions, X[i, Z - 1] = n_i(Z) / n_i, one row per frame or material.

    Parameters
    ----------
    table : pyarrow.Table, pyarrow.RecordBatch, pandas.DataFrame, or sequence
        A table with a column ``atomic_numbers`` (a list of integers per row), or else ``composition`` or ``formula``
        (strings such as "Ni6N2", "Li0.5CoO2" or "Ca(OH)2"; the first of the two that is there). A plain sequence
        holds formulas, lists of atomic numbers, or objects with an attribute ``atomic_numbers`` (pymatgen structures).

    Returns
    -------
    scipy.sparse.csr_array, shape (n_rows, 94), float64
        Rows sum to 1. Column indices are sorted and only elements that are there are stored.

    Raises
    ------
    CompositionError
        If a row is null or empty, a symbol is unknown, or an atomic number lies outside 1 to 94. Names the row.

    Notes
    -----
    Lesson 3, paper Fig. 2a. Arrow lists are counted from their flat buffer, without a Python object per atom.
    """
    library = type(table).__module__.partition(".")[0]  # pyarrow and pandas are imported only where they are used
    if library == "pyarrow" and hasattr(table, "schema"):
        return _from_arrow(table)
    if library == "pandas" and table.ndim == 2:
        return _from_pandas(table)
    return _from_sequence(table)


def elements_present(X) -> tuple[str, ...]:
    """Symbols of the elements that occur in at least one row of X, in the order of their atomic numbers."""
    return tuple(element_symbols[column] for column in present_columns(X))


def present_columns(X) -> np.ndarray:
    """Column indices (Z - 1) with a non-zero entry in X, ascending."""
    X = as_composition_matrix(X, check=False)
    return np.flatnonzero(np.bincount(X.indices[X.data != 0], minlength=N_ELEMENTS))


def as_composition_matrix(X, *, check: bool = True) -> sparse.csr_array:
    """X as a float64 csr array of shape (n, 94) without stored zeros; raise unless rows are atomic fractions.

    Parameters
    ----------
    X : sparse or dense array, shape (n, 94)
    check : bool
        False skips the look at the values (rows of fractions that sum to 1), never the one at the shape.

    Raises
    ------
    CompositionError
        If the shape is wrong, an entry is negative or not finite, or a row does not sum to 1 within 1e-6.
    """
    if not (sparse.issparse(X) and X.format == "csr" and X.dtype == np.float64):
        X = sparse.csr_array(X, dtype=np.float64)
    elif not isinstance(X, sparse.csr_array):
        X = sparse.csr_array(X)
    if X.ndim != 2 or X.shape[1] != N_ELEMENTS:
        raise CompositionError(
            f"a composition matrix has shape (n, {N_ELEMENTS}), not {X.shape}; make it with composition_matrix(...)"
        )
    if not X.has_canonical_format or not np.all(X.data):
        X = X.copy()
        X.sum_duplicates()
        X.eliminate_zeros()
    if check and X.shape[0]:
        sums = X @ np.ones(N_ELEMENTS)
        wrong = np.flatnonzero(~(np.abs(sums - 1) <= 1e-6))
        if wrong.size:
            row = wrong[0]
            raise CompositionError(
                f"row {row} of the composition matrix sums to {sums[row]:g}, not 1 ({wrong.size} such rows): "
                "divide atom counts by the number of atoms, or use composition_matrix(...)"
            )
        if X.data.min() < 0:
            row = np.searchsorted(X.indptr, np.flatnonzero(X.data < 0)[0], side="right") - 1
            raise CompositionError(f"row {row} of the composition matrix holds a negative atomic fraction")
    return X


@functools.lru_cache(maxsize=65_536)
def parse_formula(formula: str) -> tuple[tuple[int, float], ...]:
    """Amounts of each element in a chemical formula, as a tuple of (column, amount) pairs sorted by column.

    Brackets nest, amounts may be fractional, spaces are ignored: "Ca(OH)2", "Li0.5 Co O2". Charges and hydrate dots
    are not read: write "CuSO4(H2O)5".

    Raises
    ------
    CompositionError
        If the text is not a formula, or names an element outside H to Pu.
    """
    text = re.sub(r"\s+", "", formula)
    stack: list[dict[int, float]] = [{}]
    brackets, position = [], 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            charge = " without charges and spins" if text[position] in "+-," else ""
            raise CompositionError(
                f"cannot read {formula!r} from {text[position:]!r}: write element symbols and amounts{charge}, as in "
                "'LiCoO2'"
            )
        name, amount = token[1], float(token[2]) if token[2] else 1.0
        position = token.end()
        if name in "([{":
            if token[2]:
                raise CompositionError(f"cannot read {formula!r}: an amount follows the element or group it counts")
            stack.append({})
            brackets.append(name)
        elif name in ")]}":
            if not brackets or brackets.pop() != _PAIRED[name]:
                raise CompositionError(f"cannot read {formula!r}: {name!r} closes nothing")
            for column, inner in stack.pop().items():
                stack[-1][column] = stack[-1].get(column, 0.0) + inner * amount
        elif name not in ATOMIC_NUMBERS:
            raise CompositionError(f"unknown element {name!r} in {formula!r}: symbols run from H to Pu (Z = 1 to 94)")
        else:
            column = ATOMIC_NUMBERS[name] - 1
            stack[-1][column] = stack[-1].get(column, 0.0) + amount
    if brackets:
        raise CompositionError(f"cannot read {formula!r}: {brackets[-1]!r} is never closed")
    amounts = tuple(sorted((column, amount) for column, amount in stack[0].items() if amount > 0))
    if not amounts:
        raise CompositionError(f"{formula!r} holds no atoms: drop the row or give its formula")
    return amounts


def _from_arrow(table):
    """Composition matrix of an Arrow table or record batch."""
    names = table.schema.names
    if table.num_rows == 0:
        raise CompositionError("the table has no rows: a composition matrix needs at least one frame")

    def row_name(row):
        for name in _NAME_COLUMNS:
            if name in names:
                return f"row {row} ({name} {table.column(name)[row].as_py()})"
        return f"row {row}"

    if _NUMBERS_COLUMN in names:
        values, lengths = _flat_numbers(table.column(_NUMBERS_COLUMN), row_name)
        return _from_numbers(values, lengths, row_name)
    return _from_formulas(table.column(_formula_column(names)).to_pylist(), row_name)


def _from_pandas(table):
    """Composition matrix of a pandas table."""
    import pandas as pd

    names = list(table.columns)
    if len(table) == 0:
        raise CompositionError("the table has no rows: a composition matrix needs at least one frame")

    def row_name(row):
        for name in _NAME_COLUMNS:
            if name in names:
                return f"row {row} ({name} {table[name].iloc[row]})"
        return f"row {row} (index {table.index[row]})"

    if _NUMBERS_COLUMN not in names:
        return _from_formulas(table[_formula_column(names)].tolist(), row_name)
    series = table[_NUMBERS_COLUMN]
    if isinstance(series.dtype, pd.ArrowDtype):
        return _from_numbers(*_flat_numbers(series.array.__arrow_array__(), row_name), row_name)
    return _from_lists(series.tolist(), row_name)


def _from_sequence(items):
    """Composition matrix of a sequence of formulas, lists of atomic numbers, or structures."""
    if isinstance(items, (str, bytes)) or not hasattr(items, "__iter__"):
        raise CompositionError(
            f"cannot make a composition matrix of {type(items).__name__}: give a table, or a list such as ['LiCoO2']"
        )
    items = list(items)
    if not items:
        raise CompositionError("no compositions: a composition matrix needs at least one row")
    if isinstance(items[0], str):
        return _from_formulas(items, "row {}".format)
    return _from_lists([getattr(item, _NUMBERS_COLUMN, item) for item in items], "row {}".format)


def _formula_column(names):
    """The formula column of a table, or an error that lists what is there."""
    for name in _FORMULA_COLUMNS:
        if name in names:
            return name
    raise CompositionError(
        f"no column {_NUMBERS_COLUMN!r}, 'composition' or 'formula' among {list(names)}: rename the one that holds them"
    )


def _from_formulas(formulas, row_name):
    """Composition matrix of formula strings; each distinct string is read once."""
    parsed = []
    for row, formula in enumerate(formulas):
        if not isinstance(formula, str):
            raise CompositionError(
                f"{row_name(row)}: formula is {formula!r}, not text: drop the row or fill it in{_as_text(formula)}"
            )
        try:
            parsed.append(parse_formula(formula))
        except CompositionError as error:
            raise CompositionError(f"{row_name(row)}: {error}") from None
    indptr = np.concatenate([[0], np.cumsum([len(amounts) for amounts in parsed])])
    flat = np.array([pair for amounts in parsed for pair in amounts], dtype=np.float64)
    totals = np.add.reduceat(flat[:, 1], indptr[:-1])
    fractions = flat[:, 1] / np.repeat(totals, np.diff(indptr))
    return _canonical(fractions, flat[:, 0].astype(np.int32), indptr.astype(np.int32))


def _as_text(formula):
    """How to keep a formula that a table reader takes for something else."""
    if isinstance(formula, (float, bool)):
        return (
            "; a table reader takes NaN, InF and TRUE for values: read the file with dtype=str, keep_default_na=False"
        )
    return ""


def _from_lists(lists, row_name):
    """Composition matrix of Python or NumPy lists of atomic numbers, one per row."""
    arrays = []
    for row, numbers in enumerate(lists):
        array = np.asarray(numbers) if hasattr(numbers, "__len__") and not isinstance(numbers, str) else None
        if array is None or array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise CompositionError(
                f"{row_name(row)}: atomic numbers are {numbers!r}, not a list of integers: drop the row or fill it in"
            )
        arrays.append(array)
    lengths = np.fromiter(map(len, arrays), dtype=np.int64, count=len(arrays))
    _refuse_empty(lengths, row_name)
    return _from_numbers(np.concatenate(arrays), lengths, row_name)


def _flat_numbers(column, row_name):
    """Flat values and list lengths of an Arrow list column, chunked or sliced, without a Python object per atom."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) and not (
        pa.types.is_fixed_size_list(column.type)
    ):
        raise CompositionError(f"column {_NUMBERS_COLUMN!r} is {column.type}, not a list of integers per row")
    if not pa.types.is_integer(column.type.value_type):
        raise CompositionError(f"column {_NUMBERS_COLUMN!r} holds {column.type.value_type}, not integers: cast it")
    if column.null_count:
        row = np.flatnonzero(np.asarray(pc.is_null(column)))[0]
        raise CompositionError(f"{row_name(row)}: atomic numbers are null: drop the row or fill it in")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    values, lengths = [], []
    for chunk in chunks:
        flat = chunk.flatten()
        count = np.asarray(pc.list_value_length(chunk)).astype(np.int64)
        if flat.null_count:
            inside = np.flatnonzero(np.asarray(flat.is_null()))[0]
            row = sum(map(len, lengths)) + np.searchsorted(np.cumsum(count), inside, side="right")
            raise CompositionError(f"{row_name(row)}: an atomic number is null: drop the row or fill it in")
        values.append(flat.to_numpy())
        lengths.append(count)
    if len(chunks) == 1:
        return values[0], lengths[0]
    return np.concatenate(values), np.concatenate(lengths)


def _from_numbers(values, lengths, row_name):
    """Composition matrix of flat atomic numbers and the number of atoms in each row."""
    _refuse_empty(lengths, row_name)
    if values.min() < 1 or values.max() > N_ELEMENTS:
        first = np.flatnonzero((values < 1) | (values > N_ELEMENTS))[0]
        row = np.searchsorted(np.cumsum(lengths), first, side="right")
        raise CompositionError(
            f"{row_name(row)}: atomic number {values[first]} is outside 1 to {N_ELEMENTS} (H to Pu), "
            "the elements CHGNet knows: drop the row"
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    edges = np.unique(np.searchsorted(offsets, np.arange(0, offsets[-1] + _BLOCK_ATOMS, _BLOCK_ATOMS)))
    edges = np.unique(np.concatenate([[0], edges[edges < len(lengths)], [len(lengths)]]))
    blocks = [
        _count(values[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first])
        for first, last in itertools.pairwise(edges)
    ]
    n_distinct = np.concatenate([np.diff(block.indptr) for block in blocks])
    fractions = np.concatenate([block.data for block in blocks]) / np.repeat(lengths, n_distinct)
    indptr = np.concatenate([[0], np.cumsum(n_distinct)]).astype(np.int32)
    return _canonical(fractions, np.concatenate([block.indices for block in blocks]), indptr)


def _count(values, offsets):
    """Atoms of each element in each row, from flat atomic numbers."""
    index = np.int32 if values.size < 2**31 else np.int64
    # One stored 1 per atom, times the matrix that maps Z to column Z - 1: counting left to compiled code.
    atoms = sparse.csr_array(
        (np.ones(values.size, dtype=np.int32), values.astype(index), offsets.astype(index)),
        shape=(len(offsets) - 1, N_ELEMENTS + 1),
    )
    counts = atoms @ sparse.csr_array(sparse.eye_array(N_ELEMENTS + 1, N_ELEMENTS, k=-1, dtype=np.int32))
    counts.sort_indices()
    return counts


def _canonical(fractions, indices, indptr):
    """A csr array of atomic fractions whose indices are sorted and distinct."""
    X = sparse.csr_array((fractions, indices, indptr), shape=(len(indptr) - 1, N_ELEMENTS))
    X.has_canonical_format = True
    return X


def _refuse_empty(lengths, row_name):
    """Raise for the first row without atoms."""
    empty = np.flatnonzero(lengths == 0)
    if empty.size:
        raise CompositionError(
            f"{row_name(empty[0])}: no atoms ({empty.size} such rows): drop the row or give its atomic numbers"
        )
