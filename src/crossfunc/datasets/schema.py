"""The tables of a dataset: columns, units, dtypes, and what makes a row unusable.

A dataset is a folder with `dataset.json` and up to three tables. It holds two functionals: the *low* one to start from
and the *high* one to get to. Which these are, and what their energies are, `dataset.json` says; nothing is assumed::

    "functionals": {
        "low":  {"name": "GGA/GGA+U", "key": "gga",    "energy_kind": "mp2020"},
        "high": {"name": "r²SCAN",    "key": "r2scan", "energy_kind": "raw"}
    }

`name` is for prose, `key` for tables and options, and `energy_kind` what the energies of the pairs table are: "raw" as
the calculation gives them, "mp2020" with the Materials Project's corrections. In Python: `dataset.functional("low")`,
which has these as attributes, and `dataset.functional("low").column()`, which names the column of its energies.

frames, one row a labelled structure
    `frame_id`; `material_id` (the group that no split takes apart); `functional` (the *key*: "gga", "r2scan", "pbe");
    `energy_kind` of this row's energy; `atomic_numbers`; `lattice_a`; `frac_coords`; `energy_per_atom_ev`;
    `forces_ev_per_a`, `stress_gpa`, `magmoms_mub` (null where there is no such label); `source`.
pairs, one row per material
    `material_id`, `composition`, `n_atoms`; `low_energy_per_atom_ev` and `high_energy_per_atom_ev`, of the kinds that
    `dataset.json` says; `low_formation_energy_per_atom_ev` and `high_formation_energy_per_atom_ev` (may be null). Where
    the low energies are corrected, `low_uncorrected_energy_per_atom_ev` and
    `low_uncorrected_formation_energy_per_atom_ev` are the same without corrections, kind "raw" (may be null; null
    throughout where the low energies are raw themselves). Each of these columns repeats `functional`, `functional_key`
    and `energy_kind` in the file's own metadata, and a table that contradicts `dataset.json` is refused.
elements, one row per element and functional
    `element`, `functional` (the key), `energy_kind`, `energy_per_atom_ev` of the ground state.

Extra columns are kept. Folders with columns called `gga_...` and `r2scan_...` are older:
`crossfunc data migrate DIR` brings them up to date.
"""

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.symbols import ATOMIC_NUMBERS, N_ELEMENTS

SIDES = ("low", "high")
"""The functional to start from, and the one to get to."""
ENERGY_KINDS = ("raw", "mp2020")
"""As calculated, or with the Materials Project's corrections of 2020."""


class DatasetError(ValueError):
    """A dataset that cannot be used as it is; the message names the file, the row and the remedy."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its Arrow type, its unit, and whether every row needs a value."""

    name: str
    dtype: pa.DataType
    unit: str = ""
    required: bool = True

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with the unit in its metadata so that it travels with the file."""
        return pa.field(self.name, self.dtype, metadata={"unit": self.unit} if self.unit else None)


_FLOATS = pa.list_(pa.float64())

FRAMES = (
    Column("frame_id", pa.string()),
    Column("material_id", pa.string()),
    Column("functional", pa.string()),
    Column("energy_kind", pa.string()),
    Column("atomic_numbers", pa.list_(pa.int16())),
    Column("lattice_a", pa.list_(pa.float64(), 9), "Å"),
    Column("frac_coords", _FLOATS),
    Column("energy_per_atom_ev", pa.float64(), "eV/atom"),
    Column("forces_ev_per_a", _FLOATS, "eV/Å", required=False),
    Column("stress_gpa", _FLOATS, "GPa, tension positive", required=False),
    Column("magmoms_mub", _FLOATS, "µB", required=False),
    Column("source", pa.string(), required=False),
)
PAIRS = (
    Column("material_id", pa.string()),
    Column("composition", pa.string()),
    Column("n_atoms", pa.int32()),
    Column("low_energy_per_atom_ev", pa.float64(), "eV/atom"),
    Column("high_energy_per_atom_ev", pa.float64(), "eV/atom"),
    Column("low_formation_energy_per_atom_ev", pa.float64(), "eV/atom", required=False),
    Column("high_formation_energy_per_atom_ev", pa.float64(), "eV/atom", required=False),
    Column("low_uncorrected_energy_per_atom_ev", pa.float64(), "eV/atom", required=False),
    Column("low_uncorrected_formation_energy_per_atom_ev", pa.float64(), "eV/atom", required=False),
)
ELEMENTS = (
    Column("element", pa.string()),
    Column("functional", pa.string()),
    Column("energy_kind", pa.string()),
    Column("energy_per_atom_ev", pa.float64(), "eV/atom"),
)
TABLES = {"frames": FRAMES, "pairs": PAIRS, "elements": ELEMENTS}
_ROW_KEYS = {
    "frames": ["frame_id"],
    "pairs": ["material_id"],
    "elements": ["element", "functional", "energy_kind"],
}

REJECTED_COLUMNS = ["table", "row", "id", "reason"]
_LISTED_ROWS = 3


def validate_table(
    table: pa.Table, kind: str, *, file: str, strict: bool = True, functionals: Sequence[str] | None = None
) -> tuple[pa.Table, pd.DataFrame]:
    """Check a table against its schema: what is wrong with a column raises, what is wrong with a row is listed.

    Parameters
    ----------
    table : pyarrow.Table
    kind : {"frames", "pairs", "elements"}
    file : str
        Name used in messages.
    strict : bool
        True: any bad row raises. False: bad rows are left out and returned with their reasons.
    functionals : sequence of str, optional
        The keys of the dataset's functionals: a row of another one is bad.

    Returns
    -------
    good : pyarrow.Table
        The rows that passed, in the schema's column order and types; extra columns follow.
    rejected : pandas.DataFrame
        `table, row, id, reason` of every row left out.

    Raises
    ------
    DatasetError
        A column that is missing or has the wrong type or unit, an empty table, or (strict) a bad row.
    """
    table, reasons = split_rows(table, kind, file=file, functionals=functionals)
    if table.num_rows == 0:
        raise DatasetError(f"{file}: the table holds no rows; write at least one {kind[:-1]} or leave the table out.")
    rejected = _ledger(table, kind, reasons)
    if rejected.empty:
        return table, rejected
    if strict:
        remedy = "Correct these rows, or use strict=False to leave them out and list them in rejected.parquet."
        raise DatasetError(_describe_rejected(rejected, file, remedy))
    if len(rejected) == table.num_rows:
        raise DatasetError(_describe_rejected(rejected, file, "That is every row: correct the table."))
    return table.filter(pa.array((reasons == "").to_numpy())), rejected


def split_rows(
    table: pa.Table, kind: str, *, file: str, functionals: Sequence[str] | None = None
) -> tuple[pa.Table, pd.Series]:
    """Return the table in the schema's columns and types, and of each row why it is unusable ("" for a good one).

    Raises
    ------
    DatasetError
        A column that is missing or has the wrong type or unit.
    """
    table, misfits = _cast_columns(table, kind, file)
    reasons = pd.Series("", index=range(table.num_rows), dtype=object)
    for bad, reason in itertools.chain(misfits, _row_checks(table, kind, functionals)):
        bad = np.asarray(bad, dtype=bool) & (reasons == "").to_numpy()
        reasons[bad] = reason
    good = np.flatnonzero((reasons == "").to_numpy())  # a row that is rejected takes nobody's id
    again = good[_repeats(table.take(pa.array(good)), _ROW_KEYS[kind])]
    reasons.iloc[again] = f"{' + '.join(_ROW_KEYS[kind])} occurs twice; ids must be unique"
    return table, reasons


def _cast_columns(table: pa.Table, kind: str, file: str) -> tuple[pa.Table, list[tuple[np.ndarray, str]]]:
    """Return the table in the schema's columns and types, and the rows with a value that fits no such type."""
    columns, found = TABLES[kind], table.column_names
    repeated = sorted({name for name in found if found.count(name) > 1})
    if repeated:
        raise DatasetError(f"{file}: column {', '.join(repeated)} occurs twice; keep one and write the table again.")
    extra = [name for name in found if name not in {c.name for c in columns}]
    missing = [c for c in columns if c.name not in found and (c.required or _other_unit(c.name, extra))]
    if missing:
        raise DatasetError(_describe_missing([c.name for c in missing], found, kind, file))
    arrays, misfits = [], []
    for column in columns:
        if column.name not in found:
            arrays.append(pa.nulls(table.num_rows, column.dtype))
            continue
        values, misfit = _cast_column(table, column, file)
        arrays.append(values)
        misfits.append((misfit, f"{column.name} does not fit {column.dtype}: a fraction, or a number out of range"))
    fields = [c.field for c in columns]
    for name in extra:
        field = table.schema.field(name)
        if pa.types.is_large_string(field.type):  # pandas' strings: equal data get equal files, whoever held them
            field = field.with_type(pa.string())
        arrays.append(table[name].cast(field.type))
        fields.append(field)
    return pa.table(arrays, schema=pa.schema(fields)), misfits


def _cast_column(table: pa.Table, column: Column, file: str) -> tuple[pa.ChunkedArray | pa.Array, np.ndarray]:
    """Return the values in the schema's type, null in the rows that do not fit it, and those rows."""
    found = table.schema.field(column.name)
    unit = (found.metadata or {}).get(b"unit", column.unit.encode()).decode(errors="replace")
    if unit != column.unit:
        raise DatasetError(
            f"{file}: column {column.name!r} is marked as {unit!r}, expected {column.unit!r}; "
            "convert the values (crossfunc.units) and write the table again."
        )
    values = table[column.name]
    if _family(found.type) not in (_family(column.dtype), "null"):
        raise _wrong_dtype(file, column, found.type)
    try:
        if pa.types.is_fixed_size_list(column.dtype) and not pa.types.is_fixed_size_list(found.type):
            return _fix_list_size(values, column), np.zeros(len(values), dtype=bool)
        return _cast_rows(values, column.dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise _wrong_dtype(file, column, found.type, str(error)) from error


def _cast_rows(values: pa.ChunkedArray, dtype: pa.DataType) -> tuple[pa.ChunkedArray, np.ndarray]:
    try:
        return values.cast(dtype), np.zeros(len(values), dtype=bool)
    except pa.ArrowInvalid:
        misfit = _misfits(values, dtype)
        if not misfit.any():
            raise
    return pc.if_else(pa.array(misfit), pa.scalar(None, values.type), values).cast(dtype), misfit


def _misfits(values: pa.ChunkedArray, dtype: pa.DataType) -> np.ndarray:
    """Return the rows with a number that an integer type cannot hold."""
    is_list = pa.types.is_list(dtype)
    leaf = dtype.value_type if is_list else dtype
    if not pa.types.is_integer(leaf):
        return np.zeros(len(values), dtype=bool)
    numbers = np.asarray(_flat(values) if is_list else values.to_numpy(), dtype=float)
    limits = np.iinfo(leaf.to_pandas_dtype())
    bad = ~((numbers == np.rint(numbers)) & (numbers >= limits.min) & (numbers <= limits.max))
    return _any_per_row(bad, _lengths(values)) if is_list else bad & ~_is_null(values)


def _family(dtype: pa.DataType) -> str:
    """Return "number" or "text" for what a column or its lists hold, "null" for nothing, else Arrow's own name."""
    while hasattr(dtype, "value_type"):  # lists and dictionaries
        dtype = dtype.value_type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "number"
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return "text"
    return str(dtype)


def _fix_list_size(values: pa.ChunkedArray, column: Column) -> pa.Array:
    """Lists of nine become a fixed-size column; a row of another length becomes null and is named later."""
    values = values.combine_chunks().cast(_FLOATS)
    size = column.dtype.list_size
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    if (lengths == size).all():
        return pa.FixedSizeListArray.from_arrays(values.flatten(), size)
    rows = [row if row is not None and len(row) == size else None for row in values.to_pylist()]
    return pa.array(rows, type=column.dtype)


def _wrong_dtype(file: str, column: Column, found: pa.DataType, detail: str = "") -> DatasetError:
    detail = f" ({detail})" if detail else ""
    return DatasetError(
        f"{file}: column {column.name!r} has type {found}, expected {column.dtype}{detail}; "
        "convert the column and write the table again."
    )


def _describe_missing(missing: list[str], found: list[str], kind: str, file: str) -> str:
    parts = []
    extra = sorted(set(found) - {c.name for c in TABLES[kind]})
    for name in missing:
        close = _other_unit(name, extra) or difflib.get_close_matches(name, extra, n=1, cutoff=0.5)
        parts.append(f"{name!r}" + (f" (is it {close[0]!r}? mind the unit in the name)" if close else ""))
    return (
        f"{file}: missing column {', '.join(parts)}; found {', '.join(found)}. "
        f"Rename or convert the columns to those of the {kind} table (crossfunc.datasets.schema.{kind.upper()})."
    )


def _other_unit(name: str, extra: list[str]) -> list[str]:
    """Return the extra columns that are called like this one but for the unit: stress_kbar for stress_gpa."""
    stem = re.sub(r"_(ev_per_a|ev|gpa|mub)$", "", name)
    return [e for e in extra if stem != name and (e == stem or e.startswith(f"{stem}_"))]


def _ledger(table: pa.Table, kind: str, reasons: pd.Series) -> pd.DataFrame:
    rows = np.flatnonzero((reasons != "").to_numpy())
    keys = table.select(_ROW_KEYS[kind]).take(pa.array(rows)).to_pandas().astype(object)
    ids = ["/".join(str(v) for v in key) for key in keys.itertuples(index=False)]
    return pd.DataFrame({"table": kind, "row": rows, "id": ids, "reason": reasons.iloc[rows].to_numpy()})


def _describe_rejected(rejected: pd.DataFrame, file: str, remedy: str) -> str:
    lines = [f"row {r.row} ({r.id}): {r.reason}" for r in rejected.head(_LISTED_ROWS).itertuples()]
    more = len(rejected) - len(lines)
    if more > 0:
        lines.append(f"... and {more} more")
    head = f"{file}: {len(rejected)} unusable row{'s' if len(rejected) > 1 else ''}"
    return "\n  ".join([head, *lines]) + f"\n{remedy}"


def _row_checks(table: pa.Table, kind: str, functionals: Sequence[str] | None) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (rows, reason), most basic first; a row keeps the first reason that hits it."""
    for column in TABLES[kind]:
        if column.required:
            yield _is_empty(table[column.name]), f"{column.name} is empty or has the wrong length"
    for name, allowed in (("functional", functionals), ("energy_kind", ENERGY_KINDS)):
        if allowed is not None and name in {c.name for c in TABLES[kind]}:
            known = pc.is_in(table[name], value_set=pa.array(allowed)).to_numpy()
            yield ~known, f"{name} is none of {', '.join(allowed)}"
    for column in TABLES[kind]:
        if pa.types.is_floating(column.dtype):
            yield _not_finite(table[column.name], column.required), f"{column.name} is NaN or infinite"
    yield from {"frames": _frame_checks, "pairs": _pair_checks, "elements": _element_checks}[kind](table)


def _frame_checks(table: pa.Table) -> Iterator[tuple[np.ndarray, str]]:
    n_atoms = _lengths(table["atomic_numbers"])
    yield n_atoms == 0, "atomic_numbers is empty"
    numbers = _flat(table["atomic_numbers"])
    bad_z = ~((numbers >= 1) & (numbers <= N_ELEMENTS))
    yield (
        _any_per_row(bad_z, n_atoms),
        f"atomic_numbers hold an unknown element; only 1 to {N_ELEMENTS} (H to Pu) are known",
    )
    for name, per_atom in (("frac_coords", 3), ("forces_ev_per_a", 3), ("magmoms_mub", 1)):
        lengths, null = _lengths(table[name]), _is_null(table[name])
        yield ~null & (lengths != per_atom * n_atoms), f"{name} needs {per_atom} values per atom"
    stress = table["stress_gpa"]
    yield ~_is_null(stress) & (_lengths(stress) != 9), "stress_gpa needs 9 values"
    for name in ("lattice_a", "frac_coords", "forces_ev_per_a", "stress_gpa", "magmoms_mub"):
        yield _any_per_row(~np.isfinite(_flat(table[name])), _lengths(table[name])), f"{name} holds NaN or infinity"
    volume_a3 = np.ones(table.num_rows)
    cells = _flat(table["lattice_a"]).reshape(-1, 3, 3)
    with np.errstate(invalid="ignore"):  # NaN and infinity have been named above
        volume_a3[~_is_null(table["lattice_a"])] = np.linalg.det(cells)
    yield np.abs(volume_a3) < 1e-3, "lattice_a spans no volume"


def _pair_checks(table: pa.Table) -> Iterator[tuple[np.ndarray, str]]:
    unknown = np.array([bool(unknown_symbols(f)) for f in table["composition"].to_pylist()], dtype=bool)
    yield unknown, f"composition names an unknown element; only {N_ELEMENTS} elements (H to Pu) are known"
    yield (pc.fill_null(table["n_atoms"], 0).to_numpy() < 1), "n_atoms is below 1"


def _element_checks(table: pa.Table) -> Iterator[tuple[np.ndarray, str]]:
    symbols = table["element"].to_pandas()
    yield ~symbols.isin(ATOMIC_NUMBERS).to_numpy(), f"element is not one of the {N_ELEMENTS} symbols H to Pu"


def unknown_symbols(formula: str | None) -> list[str]:
    """Return what in a formula such as "Li2FeO3" is not an element symbol or an amount; empty when all is known."""
    if not formula:
        return [str(formula)]
    symbols = re.findall(r"[A-Z][a-z]?", formula)
    rest = re.sub(r"([A-Z][a-z]?|[()\[\]{}])(\d+\.?\d*|\.\d+)?", "", formula).replace(" ", "")
    return [s for s in symbols if s not in ATOMIC_NUMBERS] + ([rest] if rest else []) + ([] if symbols else [formula])


def _is_null(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy()


def _is_empty(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_string(column.type):
        return pc.fill_null(pc.equal(column, ""), True).to_numpy()
    return _is_null(column)


def _not_finite(column: pa.ChunkedArray, required: bool) -> np.ndarray:
    values = column.to_numpy()  # nulls become NaN
    return ~np.isfinite(values) if required else np.isinf(values)


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        return np.where(_is_null(column), 0, column.type.list_size)
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy()


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks] or [np.empty(0)])


def _any_per_row(bad: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    hit = np.zeros(len(lengths), dtype=bool)
    hit[np.searchsorted(np.cumsum(lengths, dtype=np.int64), np.flatnonzero(bad), side="right")] = True
    return hit


def _repeats(table: pa.Table, names: list[str]) -> np.ndarray:
    return table.select(names).to_pandas().duplicated(keep="first").to_numpy()
