"""The tables' schema: what passes, and for each kind of bad input an error that names file, row and remedy."""

import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from crossfunc.datasets import schema
from crossfunc.datasets.schema import (
    ELEMENTS,
    FRAMES,
    PAIRS,
    REJECTED_COLUMNS,
    TABLES,
    DatasetError,
    unknown_symbols,
)

NAN, INF = math.nan, math.inf
FILE = "made/frames.parquet"


def validate_table(table, kind, **options):
    """Of a dataset of these two functionals."""
    return schema.validate_table(table, kind, functionals=("gga", "r2scan"), **options)


def rock_salt(**changes):
    """One frame of a two-atom cell."""
    return {
        "frame_id": "f0",
        "material_id": "m0",
        "functional": "r2scan",
        "energy_kind": "raw",
        "atomic_numbers": [3, 9],
        "lattice_a": [0.0, 2.0, 2.0, 2.0, 0.0, 2.0, 2.0, 2.0, 0.0],
        "frac_coords": [0.0, 0.0, 0.0, 0.5, 0.5, 0.5],
        "energy_per_atom_ev": -5.0,
        "forces_ev_per_a": [0.0, 0.0, 0.1, 0.0, 0.0, -0.1],
        "stress_gpa": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        "magmoms_mub": [0.0, 0.5],
        "source": "by hand",
    } | changes


def frames_table(*rows):
    """Frames in the schema's types."""
    return pa.Table.from_pylist([rock_salt(**row) for row in rows], schema=pa.schema([c.field for c in FRAMES]))


def good_frames(n_frames=3):
    return frames_table(*({"frame_id": f"f{k}"} for k in range(n_frames)))


def retyped(table, column, dtype, values=None):
    """The table with one column of another type."""
    place = table.column_names.index(column)
    array = pa.array(table[column].to_pylist() if values is None else values, type=dtype)
    return table.set_column(place, pa.field(column, dtype), array)


def pairs_frame(**changes):
    return pd.DataFrame(
        {
            "material_id": ["m0", "m1", "m2"],
            "composition": ["Li2O", "Ni6N2", "W"],
            "n_atoms": [3, 8, 1],
            "low_energy_per_atom_ev": [-4.0, -5.0, -13.0],
            "high_energy_per_atom_ev": [-8.0, -9.0, -60.0],
        }
        | changes
    )


def elements_frame(**changes):
    return pd.DataFrame(
        {
            "element": ["Li", "O", "Li"],
            "functional": ["gga", "gga", "r2scan"],
            "energy_kind": ["mp2020", "mp2020", "raw"],
            "energy_per_atom_ev": [-1.9, -4.9, -2.3],
        }
        | changes
    )


def arrow(frame):
    return pa.Table.from_pandas(frame, preserve_index=False)


# What passes


@pytest.mark.parametrize(
    ("kind", "table"),
    [("frames", good_frames()), ("pairs", arrow(pairs_frame())), ("elements", arrow(elements_frame()))],
)
def test_a_good_table_passes_whole_with_an_empty_ledger(kind, table):
    good, rejected = validate_table(table, kind, file=FILE)
    assert good.num_rows == 3
    assert good.column_names == [c.name for c in TABLES[kind]]
    assert good.schema.types == [c.dtype for c in TABLES[kind]]
    assert list(rejected.columns) == REJECTED_COLUMNS
    assert len(rejected) == 0


def test_units_travel_in_the_metadata_of_the_fields():
    good, _ = validate_table(good_frames().replace_schema_metadata(None), "frames", file=FILE)
    units = {f.name: f.metadata[b"unit"].decode() for f in good.schema if f.metadata}
    assert units == {
        "lattice_a": "Å",
        "energy_per_atom_ev": "eV/atom",
        "forces_ev_per_a": "eV/Å",
        "stress_gpa": "GPa, tension positive",
        "magmoms_mub": "µB",
    }


def test_every_energy_column_has_its_unit_in_its_name_and_in_the_schema():
    energies = [c for c in (*FRAMES, *PAIRS, *ELEMENTS) if "energy" in c.name and c.name != "energy_kind"]
    assert len(energies) == 8
    assert all(c.name.endswith("_per_atom_ev") and c.unit == "eV/atom" for c in energies)


def test_validating_twice_changes_nothing_more():
    once, _ = validate_table(arrow(pairs_frame(tier=["a", "b", "c"])), "pairs", file=FILE)
    twice, _ = validate_table(once, "pairs", file=FILE)
    assert twice.equals(once, check_metadata=True)


def test_columns_may_come_in_any_order_and_extra_ones_follow():
    table = good_frames().append_column("temperature_k", pa.array([300.0, 300.0, 300.0]))
    good, _ = validate_table(table.select(table.column_names[::-1]), "frames", file=FILE)
    assert good.column_names == [*(c.name for c in FRAMES), "temperature_k"]
    assert good.select(good_frames().column_names).equals(good_frames())


def test_labels_that_are_not_there_are_null_not_zero():
    required = [c.name for c in FRAMES if c.required]
    good, _ = validate_table(good_frames().select(required), "frames", file=FILE)
    for name in ("forces_ev_per_a", "stress_gpa", "magmoms_mub", "source"):
        assert good[name].null_count == 3
    table = frames_table({}, {"frame_id": "f1", "forces_ev_per_a": None, "stress_gpa": None, "magmoms_mub": None})
    good, _ = validate_table(table, "frames", file=FILE)
    assert good["forces_ev_per_a"].to_pylist() == [[0.0, 0.0, 0.1, 0.0, 0.0, -0.1], None]


def test_an_optional_energy_may_be_nan_or_null():
    table = arrow(pairs_frame(low_uncorrected_energy_per_atom_ev=[-4.5, NAN, None]))
    good, rejected = validate_table(table, "pairs", file=FILE)
    assert np.isnan(good["low_uncorrected_energy_per_atom_ev"].to_numpy()).tolist() == [False, True, True]
    assert rejected.empty


NUMBERS = [[3, 9], [3, 9]]
CELLS = [rock_salt()["lattice_a"]] * 2
SAME_VALUES_OTHER_TYPES = {
    "whole numbers as floats": ("atomic_numbers", pa.list_(pa.float64()), NUMBERS),
    "64-bit atomic numbers": ("atomic_numbers", pa.list_(pa.int64()), NUMBERS),
    "long lists": ("atomic_numbers", pa.large_list(pa.int64()), NUMBERS),
    "float32 energies": ("energy_per_atom_ev", pa.float32(), [-5.0, -5.0]),
    "whole energies": ("energy_per_atom_ev", pa.int64(), [-5, -5]),
    "cells as plain lists": ("lattice_a", pa.list_(pa.float64()), CELLS),
    "cells as long lists": ("lattice_a", pa.large_list(pa.float64()), CELLS),
    "cells of float32": ("lattice_a", pa.list_(pa.float32()), CELLS),
    "cells of fixed float32": ("lattice_a", pa.list_(pa.float32(), 9), CELLS),
    "fixed stress": ("stress_gpa", pa.list_(pa.float64(), 9), [rock_salt()["stress_gpa"]] * 2),
    "categories": ("functional", pa.dictionary(pa.int8(), pa.string()), ["r2scan", "r2scan"]),
    "long strings": ("frame_id", pa.large_string(), ["f0", "f1"]),
    "string views": ("frame_id", pa.string_view(), ["f0", "f1"]),
}


@pytest.mark.parametrize("case", SAME_VALUES_OTHER_TYPES)
def test_the_same_values_in_another_type_become_the_same_table(case):
    column, dtype, values = SAME_VALUES_OTHER_TYPES[case]
    good, _ = validate_table(retyped(good_frames(2), column, dtype, values), "frames", file=FILE)
    assert good.equals(good_frames(2), check_metadata=True)


def test_a_column_without_any_value_may_have_the_null_type():
    table = good_frames(2)
    for name in ("forces_ev_per_a", "stress_gpa", "magmoms_mub", "source"):
        table = retyped(table, name, pa.null(), [None, None])
    good, _ = validate_table(table, "frames", file=FILE)
    assert good.schema.types == [c.dtype for c in FRAMES]
    assert good["source"].null_count == 2


@pytest.mark.parametrize("n_chunks", [1, 2, 5])
def test_chunks_and_slices_do_not_change_what_is_found(n_chunks):
    rows = [{"frame_id": f"f{k}", "forces_ev_per_a": None if k % 2 else [0.0] * 6} for k in range(10)]
    rows[7]["lattice_a"] = None
    rows[8]["magmoms_mub"] = [0.0, NAN]
    table = frames_table(*rows)
    pieces = pa.concat_tables([table.slice(k * 10 // n_chunks, 10 // n_chunks) for k in range(n_chunks)])
    padded = pa.concat_tables([table.slice(0, 1), pieces]).slice(1)
    good, rejected = validate_table(padded, "frames", file=FILE, strict=False)
    assert rejected["row"].tolist() == [7, 8]
    assert good["frame_id"].to_pylist() == [f"f{k}" for k in (0, 1, 2, 3, 4, 5, 6, 9)]


# What is wrong with a column raises in both modes

COLUMN_FAULTS = {
    "a missing column": (
        "frames",
        good_frames().drop_columns("frac_coords"),
        r"missing column 'frac_coords'; found .*Rename or convert",
    ),
    "a wrong name": (
        "frames",
        good_frames().rename_columns({"material_id": "materialid"}),
        r"missing column 'material_id' \(is it 'materialid'\? .*Rename",
    ),
    "a wrong unit in the name": (
        "frames",
        good_frames().rename_columns({"energy_per_atom_ev": "energy_per_atom_mev"}),
        r"missing column 'energy_per_atom_ev' \(is it 'energy_per_atom_mev'\? mind the unit in the name\).*Rename",
    ),
    "a wrong unit in the name of forces": (
        "frames",
        good_frames().rename_columns({"forces_ev_per_a": "forces_ry_per_bohr"}),
        r"missing column 'forces_ev_per_a' \(is it 'forces_ry_per_bohr'\? mind the unit",
    ),
    "a wrong unit in the name of stresses": (
        "frames",
        good_frames().rename_columns({"stress_gpa": "stress_kbar"}),
        r"missing column 'stress_gpa' \(is it 'stress_kbar'\? mind the unit",
    ),
    "no unit in the name of magnetic moments": (
        "frames",
        good_frames().rename_columns({"magmoms_mub": "magmoms"}),
        r"missing column 'magmoms_mub' \(is it 'magmoms'\? mind the unit",
    ),
    "a wrong unit in the name of an optional energy": (
        "pairs",
        arrow(pairs_frame(low_formation_energy_per_atom_mev=[1.0, 2.0, 3.0])),
        r"missing column 'low_formation_energy_per_atom_ev' \(is it 'low_formation_energy_per_atom_mev'\?",
    ),
    "a wrong unit in the metadata": (
        "frames",
        good_frames().set_column(
            7, pa.field("energy_per_atom_ev", pa.float64(), metadata={"unit": "meV/atom"}), pa.array([1.0, 2.0, 3.0])
        ),
        r"column 'energy_per_atom_ev' is marked as 'meV/atom', expected 'eV/atom'; convert the values",
    ),
    "a unit that is no text": (
        "frames",
        good_frames().set_column(
            7, pa.field("energy_per_atom_ev", pa.float64(), metadata={"unit": b"\xff"}), pa.array([1.0, 2.0, 3.0])
        ),
        r"column 'energy_per_atom_ev' is marked as .* expected 'eV/atom'",
    ),
    "energies as text": (
        "frames",
        retyped(good_frames(), "energy_per_atom_ev", pa.string(), ["-5.0", "-5.0", "-5.0"]),
        r"column 'energy_per_atom_ev' has type string, expected double; convert the column",
    ),
    "ids as numbers": (
        "frames",
        retyped(good_frames(), "frame_id", pa.int64(), [1, 2, 3]),
        r"column 'frame_id' has type int64, expected string; convert the column",
    ),
    "ids as true and false": (
        "elements",
        arrow(elements_frame(element=[True, False, True])),
        r"column 'element' has type bool, expected string",
    ),
    "energies as dates": (
        "frames",
        retyped(good_frames(), "energy_per_atom_ev", pa.timestamp("s"), [0, 0, 0]),
        r"column 'energy_per_atom_ev' has type timestamp\[s\], expected double",
    ),
    "symbols instead of atomic numbers": (
        "frames",
        retyped(good_frames(), "atomic_numbers", pa.list_(pa.string()), [["Li", "F"]] * 3),
        r"column 'atomic_numbers' has type list<.*string>, expected list<.*int16>",
    ),
    "one atomic number a row": (
        "frames",
        retyped(good_frames(), "atomic_numbers", pa.int64(), [3, 3, 3]),
        r"column 'atomic_numbers' has type int64, expected list",
    ),
    "a list of energies a row": (
        "frames",
        retyped(good_frames(), "energy_per_atom_ev", pa.list_(pa.float64()), [[1.0], [1.0], [1.0]]),
        r"column 'energy_per_atom_ev' has type list<.*double>, expected double",
    ),
    "nested cells": (
        "frames",
        retyped(good_frames(), "lattice_a", pa.list_(pa.list_(pa.float64())), [[[1.0] * 3] * 3] * 3),
        r"column 'lattice_a' has type list<.*list<.*expected fixed_size_list",
    ),
    "cells of six numbers": (
        "frames",
        retyped(good_frames(), "lattice_a", pa.list_(pa.float64(), 6), [[1.0] * 6] * 3),
        r"column 'lattice_a' has type fixed_size_list<.*\[6\], expected fixed_size_list<.*\[9\]",
    ),
    "the same column twice": (
        "frames",
        good_frames().append_column("source", pa.array(["x", "y", "z"])),
        r"column source occurs twice; keep one",
    ),
    "no rows": ("frames", good_frames().slice(0, 0), r"the table holds no rows; write at least one frame"),
    "no rows and no types": (
        "pairs",
        arrow(pd.DataFrame(columns=pairs_frame().columns)),
        r"the table holds no rows; write at least one pair",
    ),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", COLUMN_FAULTS)
def test_a_fault_of_a_whole_column_names_file_column_and_remedy(case, strict):
    kind, table, message = COLUMN_FAULTS[case]
    with pytest.raises(DatasetError, match=f"^{re.escape(FILE)}: {message}"):
        validate_table(table, kind, file=FILE, strict=strict)


def test_an_extra_column_with_a_similar_name_is_no_wrong_unit():
    table = arrow(pairs_frame(experiment_formation_energy_per_atom_ev=[-1.0, -2.0, NAN]))
    good, _ = validate_table(table, "pairs", file=FILE)
    assert good.column_names[-1] == "experiment_formation_energy_per_atom_ev"


# What is wrong with a row raises in strict mode, and goes to the ledger in tolerant mode

FRAME_FAULTS = {
    "a NaN energy": ({"energy_per_atom_ev": NAN}, "energy_per_atom_ev is NaN or infinite"),
    "an infinite energy": ({"energy_per_atom_ev": INF}, "energy_per_atom_ev is NaN or infinite"),
    "a minus infinite energy": ({"energy_per_atom_ev": -INF}, "energy_per_atom_ev is NaN or infinite"),
    "no energy": ({"energy_per_atom_ev": None}, "energy_per_atom_ev is empty"),
    "no id": ({"frame_id": None}, "frame_id is empty"),
    "an empty id": ({"frame_id": ""}, "frame_id is empty"),
    "an id that is taken": ({"frame_id": "f0"}, "frame_id occurs twice; ids must be unique"),
    "no material": ({"material_id": None}, "material_id is empty"),
    "an empty material": ({"material_id": ""}, "material_id is empty"),
    "no functional": ({"functional": None}, "functional is empty"),
    "an unknown functional": ({"functional": "pbe"}, "functional is none of gga, r2scan"),
    "an unknown energy kind": ({"energy_kind": "mp2021"}, "energy_kind is none of raw, mp2020"),
    "atomic number 0": ({"atomic_numbers": [0, 9]}, "unknown element; only 1 to 94"),
    "atomic number 95": ({"atomic_numbers": [3, 95]}, "unknown element; only 1 to 94"),
    "a negative atomic number": ({"atomic_numbers": [-3, 9]}, "unknown element; only 1 to 94"),
    "null among the atomic numbers": ({"atomic_numbers": [3, None]}, "unknown element"),
    "no atomic numbers": ({"atomic_numbers": None}, "atomic_numbers is empty"),
    "no atoms": ({"atomic_numbers": []}, "atomic_numbers is empty"),
    "no cell": ({"lattice_a": None}, "lattice_a is empty or has the wrong length"),
    "NaN in the cell": ({"lattice_a": [NAN, *[1.0] * 8]}, "lattice_a holds NaN or infinity"),
    "infinity in the cell": ({"lattice_a": [INF, *[1.0] * 8]}, "lattice_a holds NaN or infinity"),
    "null in the cell": ({"lattice_a": [None, *[1.0] * 8]}, "lattice_a holds NaN or infinity"),
    "a flat cell": ({"lattice_a": [4.0, 0, 0, 0, 4.0, 0, 4.0, 4.0, 0]}, "lattice_a spans no volume"),
    "an almost flat cell": ({"lattice_a": [4.0, 0, 0, 0, 4.0, 0, 4.0, 4.0, 1e-5]}, "lattice_a spans no volume"),
    "a cell of zeros": ({"lattice_a": [0.0] * 9}, "lattice_a spans no volume"),
    "a coordinate too few": ({"frac_coords": [0.0] * 5}, "frac_coords needs 3 values per atom"),
    "an atom too many": ({"frac_coords": [0.0] * 9}, "frac_coords needs 3 values per atom"),
    "no coordinates": ({"frac_coords": None}, "frac_coords is empty"),
    "an empty list of coordinates": ({"frac_coords": []}, "frac_coords needs 3 values per atom"),
    "NaN in the coordinates": ({"frac_coords": [NAN, *[0.0] * 5]}, "frac_coords holds NaN or infinity"),
    "null in the coordinates": ({"frac_coords": [None, *[0.0] * 5]}, "frac_coords holds NaN or infinity"),
    "forces of one atom": ({"forces_ev_per_a": [0.0] * 3}, "forces_ev_per_a needs 3 values per atom"),
    "no list of forces but an empty one": ({"forces_ev_per_a": []}, "forces_ev_per_a needs 3 values per atom"),
    "NaN in the forces": ({"forces_ev_per_a": [0.0, NAN, *[0.0] * 4]}, "forces_ev_per_a holds NaN or infinity"),
    "infinity in the forces": ({"forces_ev_per_a": [0.0, -INF, *[0.0] * 4]}, "forces_ev_per_a holds NaN or infinity"),
    "null in the forces": ({"forces_ev_per_a": [0.0, None, *[0.0] * 4]}, "forces_ev_per_a holds NaN or infinity"),
    "a Voigt stress": ({"stress_gpa": [0.0] * 6}, "stress_gpa needs 9 values"),
    "NaN in the stress": ({"stress_gpa": [NAN] * 9}, "stress_gpa holds NaN or infinity"),
    "magnetic moments with three components": ({"magmoms_mub": [0.0] * 6}, "magmoms_mub needs 1 values? per atom"),
    "NaN in the magnetic moments": ({"magmoms_mub": [0.0, NAN]}, "magmoms_mub holds NaN or infinity"),
    "null in the magnetic moments": ({"magmoms_mub": [None, 0.0]}, "magmoms_mub holds NaN or infinity"),
}
PAIR_FAULTS = {
    "a NaN energy": ({"high_energy_per_atom_ev": NAN}, "high_energy_per_atom_ev is (empty|NaN)"),
    "an infinite energy": ({"low_energy_per_atom_ev": INF}, "low_energy_per_atom_ev is NaN or infinite"),
    "an infinite optional energy": (
        {"low_uncorrected_energy_per_atom_ev": INF},
        "low_uncorrected_energy_per_atom_ev is NaN or infinite",
    ),
    "a material that is taken": ({"material_id": "m0"}, "material_id occurs twice; ids must be unique"),
    "an unknown element": ({"composition": "Li2Xx"}, "composition names an unknown element"),
    "an element past plutonium": ({"composition": "AmO2"}, "composition names an unknown element"),
    "a lower case element": ({"composition": "ni6N2"}, "composition names an unknown element"),
    "an amount before its element": ({"composition": "2Li"}, "composition names an unknown element"),
    "no composition": ({"composition": None}, "composition is empty"),
    "an empty composition": ({"composition": ""}, "composition is empty"),
    "no atoms": ({"n_atoms": 0}, "n_atoms is below 1"),
    "fewer than no atoms": ({"n_atoms": -2}, "n_atoms is below 1"),
    "half an atom": ({"n_atoms": 7.5}, "n_atoms does not fit int32: a fraction"),
    "infinitely many atoms": ({"n_atoms": INF}, "n_atoms does not fit int32"),
    "an unknown number of atoms": ({"n_atoms": None}, "n_atoms is empty"),
}
ELEMENT_FAULTS = {
    "an unknown symbol": ({"element": "Xx"}, "element is not one of the 94 symbols H to Pu"),
    "an atomic number for a symbol": ({"element": "8"}, "element is not one of the 94 symbols"),
    "no symbol": ({"element": None}, "element is empty"),
    "the same element again": (
        {"element": "Li", "functional": "r2scan", "energy_kind": "raw"},
        "element \\+ functional \\+ energy_kind occurs twice",
    ),
    "no energy": ({"energy_per_atom_ev": None}, "energy_per_atom_ev is empty"),
    "an infinite energy": ({"energy_per_atom_ev": INF}, "energy_per_atom_ev is NaN or infinite"),
    "an unknown functional": ({"functional": "scan"}, "functional is none of gga, r2scan"),
}


def table_with_fault(kind, fault):
    """Three good rows with the fault in row 1; for elements the good twin of a repeated row comes first."""
    if kind == "frames":
        return frames_table({}, {"frame_id": "f1", **fault}, {"frame_id": "f2"})
    if kind == "pairs":
        rows = pairs_frame(low_uncorrected_energy_per_atom_ev=[-4.0, -5.0, -13.0]).astype(object).to_dict("records")
    else:
        rows = elements_frame().iloc[[2, 0, 1]].to_dict("records")
    rows[1] |= fault
    return pa.Table.from_pylist(rows)


ROW_FAULTS = [
    pytest.param(kind, *cases[name], id=f"{kind}: {name}")
    for kind, cases in (("frames", FRAME_FAULTS), ("pairs", PAIR_FAULTS), ("elements", ELEMENT_FAULTS))
    for name in cases
]


@pytest.mark.parametrize(("kind", "fault", "reason"), ROW_FAULTS)
def test_a_bad_row_raises_with_file_row_and_remedy(kind, fault, reason):
    with pytest.raises(DatasetError) as error:
        validate_table(table_with_fault(kind, fault), kind, file=FILE)
    first, row, remedy = str(error.value).split("\n")
    assert first == f"{FILE}: 1 unusable row"
    assert re.match(rf"  row 1 \(.*\): .*{reason}", row)
    assert remedy == "Correct these rows, or use strict=False to leave them out and list them in rejected.parquet."


@pytest.mark.parametrize(("kind", "fault", "reason"), ROW_FAULTS)
def test_in_tolerant_mode_a_bad_row_goes_to_the_ledger_and_the_others_stay(kind, fault, reason):
    table = table_with_fault(kind, fault)
    good, rejected = validate_table(table, kind, file=FILE, strict=False)
    assert rejected["table"].tolist() == [kind]
    assert rejected["row"].tolist() == [1]
    assert re.search(reason, rejected["reason"].item())
    without, _ = validate_table(pa.concat_tables([table.slice(0, 1), table.slice(2)]), kind, file=FILE)
    assert good.equals(without)


FLOAT_NUMBERS = {
    "a fraction": ([3.5, 9.0], "atomic_numbers does not fit list<.*int16>: a fraction"),
    "NaN": ([NAN, 9.0], "atomic_numbers does not fit|unknown element"),
    "more than an int16": ([70000.0, 9.0], "atomic_numbers does not fit|unknown element"),
    "infinity": ([INF, 9.0], "atomic_numbers does not fit"),
    "zero": ([0.0, 9.0], "unknown element"),
}


@pytest.mark.parametrize("as_type", [pa.list_(pa.float64()), pa.large_list(pa.float64())])
@pytest.mark.parametrize("case", FLOAT_NUMBERS)
def test_a_row_of_float_atomic_numbers_that_are_no_elements_is_named(case, as_type):
    numbers, reason = FLOAT_NUMBERS[case]
    table = retyped(good_frames(), "atomic_numbers", as_type, [[3.0, 9.0], numbers, [3.0, 9.0]])
    with pytest.raises(DatasetError, match=rf"row 1 \(f1\): .*({reason})"):
        validate_table(table, "frames", file=FILE)
    good, rejected = validate_table(table, "frames", file=FILE, strict=False)
    assert good["atomic_numbers"].to_pylist() == [[3, 9], [3, 9]]
    assert rejected["row"].tolist() == [1]


def test_a_cell_of_another_length_is_named_by_its_row():
    cells = [rock_salt()["lattice_a"], [4.0, 4.0, 4.0], rock_salt()["lattice_a"]]
    table = retyped(good_frames(), "lattice_a", pa.list_(pa.float64()), cells)
    with pytest.raises(DatasetError, match=r"row 1 \(f1\): lattice_a is empty or has the wrong length"):
        validate_table(table, "frames", file=FILE)
    good, _ = validate_table(table, "frames", file=FILE, strict=False)
    assert good.equals(good_frames().take([0, 2]))


def test_a_missing_count_is_not_taken_for_a_fraction_beside_it():
    table = pa.Table.from_pandas(pairs_frame(n_atoms=[3.0, None, 1.5]), preserve_index=False)
    _, rejected = validate_table(table, "pairs", file=FILE, strict=False)
    assert rejected["reason"].str.extract(r"(empty|fraction)")[0].tolist() == ["empty", "fraction"]


def test_a_left_handed_cell_is_a_cell():
    good, _ = validate_table(frames_table({"lattice_a": [-4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]}), "frames", file=FILE)
    assert good.num_rows == 1


def test_a_row_with_two_faults_is_listed_once_with_the_more_basic_one():
    table = frames_table({}, {"frame_id": "f1", "energy_per_atom_ev": NAN, "functional": "pbe"})
    _, rejected = validate_table(table, "frames", file=FILE, strict=False)
    assert rejected.to_dict("records") == [
        {"table": "frames", "row": 1, "id": "f1", "reason": "functional is none of gga, r2scan"}
    ]


def test_bad_rows_next_to_each_other_are_told_apart():
    """Ragged lists: a fault in one row must never be charged to its neighbour."""
    rows = [{"frame_id": f"f{k}", "forces_ev_per_a": None} for k in range(6)]
    rows[1]["forces_ev_per_a"] = [0.0] * 5 + [NAN]
    rows[2]["forces_ev_per_a"] = [0.0] * 6
    rows[4]["forces_ev_per_a"] = [NAN] + [0.0] * 5
    _, rejected = validate_table(frames_table(*rows), "frames", file=FILE, strict=False)
    assert rejected["row"].tolist() == [1, 4]


def test_a_long_list_of_bad_rows_is_cut_with_a_count():
    table = frames_table(*({"frame_id": f"f{k}", "energy_per_atom_ev": NAN if k else 0.0} for k in range(8)))
    with pytest.raises(
        DatasetError, match=r"7 unusable rows\n  row 1 .*\n  row 2 .*\n  row 3 .*\n  \.\.\. and 4 more\n"
    ):
        validate_table(table, "frames", file=FILE)


def test_when_no_row_is_left_even_tolerant_mode_raises_with_the_reasons():
    with pytest.raises(DatasetError, match=r"1 unusable row\n  row 0 \(f0\): .*NaN.*\nThat is every row"):
        validate_table(frames_table({"energy_per_atom_ev": NAN}), "frames", file=FILE, strict=False)


def test_an_id_of_another_functional_is_another_element_row():
    table = arrow(elements_frame(element=["Li", "Li", "Li"], energy_kind=["raw", "mp2020", "raw"]))
    good, _ = validate_table(table, "elements", file=FILE)
    assert good.num_rows == 3


def test_an_unknown_kind_of_table_is_no_silent_pass():
    with pytest.raises(KeyError, match="bands"):
        validate_table(good_frames(), "bands", file=FILE)


@pytest.mark.parametrize("formula", ["Li2O", "Ni6 N2", "Ca(OH)2", "Li0.5CoO2", "Pu", "K2[PtCl4]"])
def test_formulas_of_known_elements_leave_nothing_unknown(formula):
    assert unknown_symbols(formula) == []


@pytest.mark.parametrize(
    ("formula", "unknown"),
    [
        ("Xx2O", ["Xx"]),
        ("AmO2", ["Am"]),
        ("D2O", ["D"]),
        ("li2O", ["li2"]),
        ("2Li", ["2"]),
        ("Li2..3", [".3"]),
        ("H2O·NaCl", ["·"]),
        ("", [""]),
        (None, ["None"]),
        ("()", ["()"]),
    ],
)
def test_what_is_no_element_in_a_formula_is_returned(formula, unknown):
    assert unknown_symbols(formula) == unknown


@pytest.mark.parametrize("formula", ["Li2O", "Ni6 N2", "Ca(OH)2", "Li0.5CoO2", "2Li", "Xx", "li2O", "Li2..3", "D2O"])
def test_a_formula_that_passes_here_is_one_that_compositions_can_read(formula):
    from crossfunc.energies.composition import CompositionError, composition_matrix

    if unknown_symbols(formula):
        with pytest.raises(CompositionError):
            composition_matrix([formula])
    else:
        assert composition_matrix([formula]).sum() == pytest.approx(1)


def test_a_row_that_is_rejected_takes_nobodys_id():
    """The first usable row of an id stays, wherever a batch ends."""
    rows = rock_salt(frame_id="a", energy_per_atom_ev=None), rock_salt(frame_id="a"), rock_salt(frame_id="a")
    _, reasons = schema.split_rows(frames_table(*rows), "frames", file="x")
    assert "empty" in reasons[0] or "NaN" in reasons[0]
    assert reasons[1] == ""
    assert "occurs twice" in reasons[2]
