"""A file of a few kilobytes does not fill the memory, however it says so; honest tables of any kind are read."""

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfunc.datasets import open_dataset
from crossfunc.datasets.parquet_sizes import UnpacksTooLarge, check_unpacked_size
from crossfunc.stability import read_entries
from crossfunc.stability.entries import HullError

LONG = "x" * 200_000


def text_column(n_rows):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, dtype=np.int32)), pa.array([LONG]))


BOMBS = {
    "one long text for all rows": {"id": text_column(50_000)},
    "the same, in lists": {"ids": pa.ListArray.from_arrays(pa.array([0, 50_000], pa.int32()), text_column(50_000))},
    "the same, in a struct": {"about": pa.StructArray.from_arrays([text_column(50_000)], ["id"])},
    "runs of one number in one row": {"forces": pa.array([np.zeros(40_000_000)], pa.list_(pa.float64()))},
    "nothing, many times": {name: pa.nulls(3_000_000, pa.float64()) for name in "abcdefgh"},
    "lists of lists": {"x": pa.array([[np.zeros(10_000_000)]] * 3, pa.list_(pa.list_(pa.float64())))},
    "values of fixed length": {"x": pa.array([b"y" * 5000] * 50_000, pa.binary(5000))},
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, case):
    table = pa.table(BOMBS[case])
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 120_000
    before, clock = pa.total_allocated_bytes(), time.perf_counter()
    with pytest.raises(UnpacksTooLarge, match="bytes"):
        check_unpacked_size(tmp_path / "bomb.parquet")
    assert pa.total_allocated_bytes() - before < 20_000_000
    assert time.perf_counter() - clock < 20


HONEST = {
    "numbers": {"x": np.random.default_rng(0).normal(size=1000)},
    "texts": {"id": [f"material-{k}" for k in range(1000)]},
    "texts of few kinds": {"source": ["a", "b"] * 500, "x": np.random.default_rng(0).normal(size=1000)},
    "lists": {"x": [[1.0, 2.0, 0.3], [], None]},
    "lists of texts": {"tags": [["a", "b"], [], None, ["c"]]},
    "structs": {"about": [{"id": "a", "n": 1}, None]},
    "an empty table": {"x": pa.array([], pa.float64())},
    "truth values": {"x": [True, False, None]},
    "times": {"when": pd.date_range("2026-01-01", periods=5)},
}


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("case", HONEST)
def test_an_honest_table_passes(tmp_path, case, store_schema):
    table = pa.table(HONEST[case])
    pq.write_table(table, tmp_path / "table.parquet", store_schema=store_schema)
    check_unpacked_size(tmp_path / "table.parquet", table.num_rows)
    with pytest.raises(UnpacksTooLarge, match=r"where dataset\.json says 77 rows"):
        check_unpacked_size(tmp_path / "table.parquet", 77)


def test_the_embedded_dataset_passes_with_a_wide_margin():
    dataset = open_dataset("surrogate", verify=False)
    for name, entry in dataset.meta["files"].items():
        check_unpacked_size(dataset.path / name, entry["rows"])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 5, b"x" * 100, b"\xff\xff\xff\x7fPAR1" * 3])
def test_what_is_no_parquet_file_is_said_to_be_unreadable(tmp_path, content):
    (tmp_path / "entries.parquet").write_bytes(content)
    with pytest.raises(pa.ArrowInvalid):
        check_unpacked_size(tmp_path / "entries.parquet")
    with pytest.raises(HullError, match=r"entries\.parquet: not readable as a table"):
        read_entries(tmp_path / "entries.parquet")


def test_a_table_of_entries_that_is_a_bomb_is_refused(tmp_path):
    pq.write_table(pa.table(BOMBS["one long text for all rows"]), tmp_path / "entries.parquet")
    with pytest.raises(HullError, match=r"entries\.parquet: not readable as a table \(its texts unpack to more than"):
        read_entries(tmp_path / "entries.parquet")
