"""A dataset folder: round trips, checksums, all-or-nothing writes, where names are looked up, and bad files."""

import contextlib
import hashlib
import json
import math
import os
import random
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import crossfunc.datasets.store as store
from crossfunc.datasets import (
    Dataset,
    DatasetError,
    dataset_fingerprint,
    describe_functionals,
    find_dataset,
    list_datasets,
    open_dataset,
    write_dataset,
)
from crossfunc.datasets.schema import REJECTED_COLUMNS

META = {
    "name": "tiny",
    "version": "1",
    "licence": "MIT",
    "citation": "none",
    "provenance": "made by a test",
    "functionals": describe_functionals("GGA/GGA+U", "r²SCAN", energy_kinds=("mp2020", "raw")),
    "label_notice": "labels invented by a test",
}


def frames_table(n_frames=4, **changes):
    """Frames of a two-atom cell, two frames a material, forces on every other one; `changes` hold for frame 1."""
    rows = [
        {
            "frame_id": f"f{k}",
            "material_id": f"m{k // 2}",
            "functional": "r2scan",
            "energy_kind": "raw",
            "atomic_numbers": [3, 9],
            "lattice_a": [0.0, 2.0, 2.0, 2.0, 0.0, 2.0, 2.0, 2.0, 0.0],
            "frac_coords": [0.0, 0.0, 0.0, 0.5, 0.5, 0.5 + 0.01 * k],
            "energy_per_atom_ev": -5.0 - 0.1 * k,
            "forces_ev_per_a": None if k % 2 else [0.0, 0.0, 0.1, 0.0, 0.0, -0.1],
            "stress_gpa": [0.1 * k] * 9,
            "magmoms_mub": None,
            "source": "by hand",
        }
        for k in range(n_frames)
    ]
    rows[1] |= changes
    return pa.Table.from_pylist(rows)


def pairs_frame():
    return pd.DataFrame(
        {
            "material_id": ["m0", "m1"],
            "composition": ["LiF", "Ni6N2"],
            "n_atoms": [2, 8],
            "low_uncorrected_energy_per_atom_ev": [-4.0, math.nan],
            "low_energy_per_atom_ev": [-4.3, -6.5],
            "high_energy_per_atom_ev": [-8.0, -11.3],
            "prototype": ["rock salt", "other"],
        }
    )


def elements_frame():
    return pd.DataFrame(
        {
            "element": ["Li", "F"],
            "functional": ["r2scan", "r2scan"],
            "energy_kind": ["raw", "raw"],
            "energy_per_atom_ev": [-2.3, -3.4],
        }
    )


def write_tiny(path, **changes):
    return write_dataset(
        path,
        **({"meta": META, "frames": frames_table(), "pairs": pairs_frame(), "elements": elements_frame()} | changes),
    )


@pytest.fixture
def tiny(tmp_path):
    """Folder of a written dataset."""
    return write_tiny(tmp_path / "tiny").path


@pytest.fixture
def search(monkeypatch, tmp_path):
    """Set the folders that names are looked up in: CROSSFUNC_DATA, and an empty place for packaged datasets."""
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    monkeypatch.setattr(store, "PACKAGED", packaged)

    def use(*folders):
        monkeypatch.setenv("CROSSFUNC_DATA", os.pathsep.join(str(f) for f in folders))
        return packaged

    use()
    return use


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes; folders end in a slash."""
    return {
        str(f.relative_to(folder)) + ("/" if f.is_dir() else ""): b"" if f.is_dir() else f.read_bytes()
        for f in sorted(folder.rglob("*"))
    }


def edit_meta(folder: Path, change) -> None:
    """Change dataset.json the way a hand would."""
    file = folder / "dataset.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    changed = change(meta)
    file.write_text(json.dumps(meta if changed is None else changed), encoding="utf-8")


def bless(folder: Path, name: str, **entry) -> None:
    """Record a table's present checksum, so that what is in it gets looked at."""
    sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edit_meta(folder, lambda meta: meta["files"][name].update(sha256=sha256, **entry))


# Round trips


def test_what_was_written_is_what_opens(tmp_path):
    written = write_tiny(tmp_path / "tiny")
    opened = open_dataset(tmp_path / "tiny")
    for dataset in (written, opened):
        assert isinstance(dataset, Dataset)
        assert dataset.name == "tiny"
        assert dataset.path == tmp_path / "tiny"
        assert {key: dataset.meta[key] for key in META} == META
        assert dataset.label_notice == "labels invented by a test"
        assert dataset.frames.to_pylist() == frames_table().to_pylist()
        pd.testing.assert_frame_equal(dataset.pairs[list(pairs_frame())], pairs_frame(), check_dtype=False)
        pd.testing.assert_frame_equal(dataset.elements, elements_frame())
        assert dataset.rejected.empty
        assert list(dataset.rejected.columns) == REJECTED_COLUMNS


def test_units_are_still_in_the_fields_after_a_round_trip(tiny):
    units = {f.name: f.metadata[b"unit"].decode() for f in open_dataset(tiny).frames.schema if f.metadata}
    assert units["energy_per_atom_ev"] == "eV/atom"
    assert units["forces_ev_per_a"] == "eV/Å"
    assert units["stress_gpa"] == "GPa, tension positive"
    assert units["lattice_a"] == "Å"
    assert units["magmoms_mub"] == "µB"


def test_energies_keep_every_bit(tmp_path):
    energies = np.nextafter(-5.0, [-6.0, -4.0, -6.0, -4.0]) * np.array([1.0, 1e-300, 1e10, 1.0])
    table = frames_table()
    table = table.set_column(7, "energy_per_atom_ev", pa.array(energies))
    opened = open_dataset(write_tiny(tmp_path / "tiny", frames=table).path)
    assert (opened.frames["energy_per_atom_ev"].to_numpy() == energies).all()


@pytest.mark.parametrize("kind", ["frames", "pairs", "elements"])
def test_a_dataset_may_hold_one_table_only(tmp_path, kind):
    given = {"frames": frames_table(), "pairs": pairs_frame(), "elements": elements_frame()}
    dataset = write_dataset(tmp_path / "one", meta=META, **{kind: given[kind]})
    assert sorted(f.name for f in dataset.path.iterdir()) == ["dataset.json", f"{kind}.parquet"]
    assert [k for k in given if getattr(dataset, k) is not None] == [kind]


def test_tables_are_read_once_and_only_when_asked_for(tiny, monkeypatch):
    dataset = open_dataset(tiny, verify=False)
    (tiny / "pairs.parquet").unlink()
    assert dataset.frames is dataset.frames
    assert dataset.frames.num_rows == 4


def test_dataset_json_lists_rows_and_checksums_and_keeps_more_than_is_asked_for(tmp_path):
    path = write_tiny(tmp_path / "tiny", meta=META | {"doi": "10.0/x"}).path
    meta = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
    assert meta["doi"] == "10.0/x"
    assert {name: entry["rows"] for name, entry in meta["files"].items()} == {
        "frames.parquet": 4,
        "pairs.parquet": 2,
        "elements.parquet": 2,
    }
    for name, entry in meta["files"].items():
        assert entry["sha256"] == hashlib.sha256((path / name).read_bytes()).hexdigest()


# Equal data, equal files


def test_equal_data_give_equal_files(tmp_path):
    first, second = write_tiny(tmp_path / "a").path, write_tiny(tmp_path / "b").path
    assert contents(first) == contents(second)
    assert dataset_fingerprint(first) == dataset_fingerprint(second)


def test_writing_what_was_opened_gives_the_same_files(tiny, tmp_path):
    opened = open_dataset(tiny)
    again = write_tiny(tmp_path / "again", frames=opened.frames, pairs=opened.pairs, elements=opened.elements).path
    assert contents(again) == contents(tiny)


def test_how_rows_arrive_does_not_show_in_the_files(tiny, tmp_path):
    frames, pairs = frames_table(), pa.Table.from_pandas(pairs_frame(), preserve_index=False)
    chunked = pa.concat_tables([frames.slice(0, 1), frames.slice(1)])
    text = pa.array(["rock salt", "other"], type=pa.string())
    pairs = pairs.set_column(pairs.column_names.index("prototype"), "prototype", text)
    indexed = elements_frame().set_index(pd.Index([7, 3]))
    again = write_tiny(tmp_path / "again", frames=chunked, pairs=pairs, elements=indexed).path
    assert contents(again) == contents(tiny)


def test_a_table_in_many_chunks_is_written_like_one_in_a_single_chunk(tmp_path):
    spectra = np.random.default_rng(0).random((1500, 200))  # more than one page of parquet, 1 MiB
    whole = frames_table(1500).append_column("spectrum", pa.array(list(spectra)))
    chunked = pa.concat_tables([whole.slice(k, 7) for k in range(0, 1500, 7)])
    first = write_dataset(tmp_path / "a", meta=META, frames=whole).path
    assert contents(write_dataset(tmp_path / "b", meta=META, frames=chunked).path) == contents(first)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": frames_table(energy_per_atom_ev=-5.1000001)},
        {"frames": frames_table().slice(0, 3)},
        {"pairs": None},
        {"meta": META | {"version": "2"}},
    ],
    ids=["an energy", "a row less", "a table less", "the version"],
)
def test_other_data_give_another_fingerprint(tiny, tmp_path, change):
    assert dataset_fingerprint(write_tiny(tmp_path / "other", **change).path) != dataset_fingerprint(tiny)


# All or nothing


def test_an_existing_folder_is_only_replaced_when_told_to(tiny):
    before = contents(tiny.parent)
    with pytest.raises(DatasetError, match=f"{re.escape(str(tiny))} exists; choose another folder, or replace it"):
        write_tiny(tiny)
    assert contents(tiny.parent) == before


def test_overwriting_replaces_the_whole_folder(tiny):
    write_dataset(tiny, meta=META | {"version": "2"}, pairs=pairs_frame(), overwrite=True)
    assert sorted(contents(tiny.parent)) == ["tiny/", "tiny/dataset.json", "tiny/pairs.parquet"]
    assert open_dataset(tiny).meta["version"] == "2"
    assert open_dataset(tiny).frames is None


@pytest.mark.parametrize("name", ["notes.txt", ".git", "other"])
def test_overwriting_deletes_nothing_that_is_no_dataset(tiny, name):
    if name == "other":
        write_tiny(tiny / name)
    else:
        (tiny / name).write_text("years of work")
    before = contents(tiny.parent)
    with pytest.raises(DatasetError, match=f"not replaced: it holds {re.escape(name)}, .*move it elsewhere first"):
        write_tiny(tiny, overwrite=True)
    assert contents(tiny.parent) == before


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_tiny(tmp_path / "empty", overwrite=True).pairs is not None


def test_what_is_no_dataset_is_not_replaced_even_when_told_to(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "notes.txt").write_text("more work")
    before = contents(tmp_path)
    for name in ("thesis", "notes.txt"):
        with pytest.raises(DatasetError, match=f"{name} exists and is no dataset .*not replaced"):
            write_tiny(tmp_path / name, overwrite=True)
    assert contents(tmp_path) == before


class Killed(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def stop_at(monkeypatch, owner, name, call, error):
    """Make the n-th call of a function raise."""
    original, calls = getattr(owner, name), []

    def stopped(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, stopped)
    return calls


STOPS = {
    "in the first table": (pq, "write_table", 1),
    "in the last table": (pq, "write_table", 3),
    "in dataset.json": (Path, "write_text", 1),
    "at the last step": (Path, "rename", 1),
}


@pytest.mark.parametrize("error", [OSError("disk full"), Killed(), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", STOPS)
def test_a_write_that_stops_leaves_nothing_behind(tmp_path, monkeypatch, where, error):
    calls = stop_at(monkeypatch, *STOPS[where], error)
    with pytest.raises(type(error)):
        write_tiny(tmp_path / "tiny")
    assert len(calls) == STOPS[where][2]
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("error", [OSError("disk full"), Killed(), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", [*STOPS, "between the old and the new"])
def test_an_overwrite_that_stops_leaves_the_old_dataset_as_it_was(tiny, monkeypatch, where, error):
    before = contents(tiny.parent)
    monkeypatch.setattr(store, "_exchange", lambda *_: False)  # as where the system cannot exchange two folders
    stop = STOPS.get(where, (Path, "rename", 2))
    calls = stop_at(monkeypatch, *stop, error)
    with pytest.raises(type(error)):
        write_tiny(tiny, pairs=pairs_frame().iloc[:1], overwrite=True)
    assert len(calls) >= stop[2]
    monkeypatch.undo()
    assert contents(tiny.parent) == before


def test_an_old_dataset_that_cannot_be_put_back_is_never_deleted(tiny, monkeypatch):
    monkeypatch.setattr(store, "_exchange", lambda *_: False)
    before = contents(tiny)
    original, calls = Path.rename, []

    def rename(self, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError("the disk is gone")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="the disk is gone"):
        write_tiny(tiny, overwrite=True)
    (kept,) = tiny.parent.glob(".tiny-old-*/previous")
    assert contents(kept) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_two_folders_exchange_their_names_in_one_step(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not store._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange names")
    assert (tmp_path / "one" / "file").read_text() == "other"
    assert (tmp_path / "other" / "file").read_text() == "one"
    assert not store._exchange(tmp_path / "one", tmp_path / "nowhere")


def test_an_overwrite_follows_a_link_and_strands_nothing(tiny):
    link = tiny.parent / "link"
    link.symlink_to(tiny.name)
    write_tiny(link, pairs=pairs_frame().iloc[:1], overwrite=True)
    assert link.is_symlink()
    assert len(open_dataset(tiny).pairs) == 1
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["link", "tiny"]


def test_a_link_to_nowhere_is_followed_and_a_circle_refused(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write_tiny(tmp_path / "link")
    assert (tmp_path / "target" / "dataset.json").exists()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(DatasetError, match="circle: no dataset can be written there"):
        write_tiny(tmp_path / "circle")


def test_names_too_long_for_the_hidden_folder_beside_are_refused_and_shorter_ones_work(tmp_path):
    with pytest.raises(DatasetError, match="the name is too long"):
        write_tiny(tmp_path / ("x" * 250))
    assert not list(tmp_path.iterdir())
    write_tiny(tmp_path / ("ä" * 120))  # 240 bytes


def test_meta_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="licence, label_notice must be text"):
        write_tiny(tmp_path / "tiny", meta=META | {"label_notice": ["a"], "licence": 3})
    with pytest.raises(DatasetError, match="functionals must describe"):
        write_tiny(tmp_path / "tiny", meta=META | {"functionals": {"low": ["x"], "high": "y"}})


BAD_WRITES = {
    "a NaN energy": ({"frames": frames_table(energy_per_atom_ev=math.nan)}, r"new/frames.parquet: .*row 1 \(f1\)"),
    "an infinite energy": (
        {"frames": frames_table(energy_per_atom_ev=math.inf)},
        r"new/frames.parquet: .*row 1 \(f1\)",
    ),
    "a repeated id": ({"frames": frames_table(frame_id="f0")}, r"row 1 \(f0\): frame_id occurs twice"),
    "atomic number 95": ({"frames": frames_table(atomic_numbers=[3, 95])}, r"row 1 \(f1\): .*1 to 94"),
    "NaN in the forces": ({"frames": frames_table(forces_ev_per_a=[math.nan] * 6)}, r"row 1 \(f1\): forces_ev_per_a"),
    "ragged forces": ({"frames": frames_table(forces_ev_per_a=[0.0] * 3)}, r"row 1 \(f1\): forces_ev_per_a needs 3"),
    "a missing column": ({"pairs": pairs_frame().drop(columns="n_atoms")}, r"new/pairs.parquet: missing .*'n_atoms'"),
    "an unknown element": ({"elements": elements_frame().assign(element=["Li", "Xx"])}, r"elements.parquet: .*row 1"),
    "an empty table": ({"pairs": pairs_frame().iloc[:0]}, r"new/pairs.parquet: the table holds no rows"),
    "mixed types": (
        {"pairs": pairs_frame().astype(object).assign(n_atoms=[2, "eight"])},
        r"new/pairs.parquet: .*n_atoms.*same type",
    ),
    "no table at all": ({"frames": None, "pairs": None, "elements": None}, "needs at least one table"),
    "no licence": ({"meta": {k: v for k, v in META.items() if k != "licence"}}, r"dataset.json: licence missing. Add"),
    "an empty licence": ({"meta": META | {"licence": ""}}, r"dataset.json: licence missing. Add it \(licence: under"),
    "one functional": (
        {"meta": META | {"functionals": {"low": META["functionals"]["low"]}}},
        "must describe `low` and `high`",
    ),
    "a ledger without reasons": (
        {"rejected": pd.DataFrame({"id": ["x"]})},
        "the rejected rows need columns table, row, id, reason",
    ),
}


@pytest.mark.parametrize("case", BAD_WRITES)
def test_bad_input_is_named_and_writes_nothing(tmp_path, case):
    changes, message = BAD_WRITES[case]
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        write_tiny(tmp_path / "new", **changes)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("case", BAD_WRITES)
def test_bad_input_does_not_touch_the_dataset_it_was_to_replace(tiny, case):
    before = contents(tiny.parent)
    with pytest.raises(DatasetError):
        write_tiny(tiny, **BAD_WRITES[case][0], overwrite=True)
    assert contents(tiny.parent) == before


# The ledger


def test_tolerant_mode_keeps_the_good_rows_and_lists_the_others_beside_them(tmp_path):
    frames = frames_table(energy_per_atom_ev=math.nan)
    pairs = pairs_frame().assign(composition=["LiF", "Xx2"])
    dataset = write_tiny(tmp_path / "tiny", frames=frames, pairs=pairs, strict=False)
    assert dataset.frames["frame_id"].to_pylist() == ["f0", "f2", "f3"]
    assert dataset.pairs["material_id"].tolist() == ["m0"]
    ledger = pd.read_parquet(tmp_path / "tiny" / "rejected.parquet")
    pd.testing.assert_frame_equal(dataset.rejected, ledger)
    assert ledger[["table", "row", "id"]].to_numpy().tolist() == [["frames", 1, "f1"], ["pairs", 1, "m1"]]
    assert ledger["reason"].tolist() == [
        "energy_per_atom_ev is NaN or infinite",
        "composition names an unknown element; only 94 elements (H to Pu) are known",
    ]
    assert dataset.meta["files"]["rejected.parquet"]["rows"] == 2


def test_what_an_importer_left_out_comes_before_what_the_schema_leaves_out(tmp_path):
    before = pd.DataFrame({"table": ["frames"], "row": [9], "id": ["f9"], "reason": ["not converged"]})
    frames = frames_table(energy_per_atom_ev=None)
    dataset = write_tiny(tmp_path / "tiny", frames=frames, rejected=before, strict=False)
    assert dataset.rejected["id"].tolist() == ["f9", "f1"]
    assert dataset.rejected["row"].tolist() == [9, 1]


def test_no_ledger_is_written_when_nothing_was_left_out(tmp_path):
    assert not (write_tiny(tmp_path / "tiny", strict=False).path / "rejected.parquet").exists()


def test_tolerant_mode_still_writes_nothing_when_no_row_is_usable(tmp_path):
    frames = frames_table().set_column(7, "energy_per_atom_ev", pa.array([math.nan] * 4))
    with pytest.raises(DatasetError, match="4 unusable rows"):
        write_tiny(tmp_path / "tiny", frames=frames, strict=False)
    assert contents(tmp_path) == {}


# Where names are looked up


def test_folders_of_crossfunc_data_come_in_their_order_and_before_the_package(search, tmp_path):
    packaged = search()
    for folder in (tmp_path / "one", tmp_path / "two", packaged):
        write_tiny(folder / "tiny", meta=META | {"provenance": folder.name})
    assert open_dataset("tiny").meta["provenance"] == "packaged"
    search(tmp_path / "two")
    assert open_dataset("tiny").meta["provenance"] == "two"
    search(tmp_path / "one", tmp_path / "two")
    assert open_dataset("tiny").meta["provenance"] == "one"
    assert find_dataset("tiny") == list_datasets()["tiny"] == tmp_path / "one" / "tiny"


def test_a_folder_of_crossfunc_data_may_be_missing_or_empty(search, tmp_path):
    packaged = search(tmp_path / "nowhere", "", tmp_path)
    write_tiny(packaged / "tiny")
    assert find_dataset("tiny") == packaged / "tiny"


def test_a_path_wins_over_a_name(search, tmp_path, monkeypatch):
    write_tiny(search() / "tiny")
    write_tiny(tmp_path / "here" / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    assert find_dataset("tiny") == Path("tiny")
    assert open_dataset(Path("tiny")).name == "tiny"


def test_a_folder_here_that_is_no_dataset_does_not_hide_a_name(search, tmp_path, monkeypatch):
    packaged = search()
    write_tiny(packaged / "tiny")
    (tmp_path / "here" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert find_dataset("tiny") == packaged / "tiny"


def test_a_mistyped_path_does_not_end_at_a_packaged_dataset_of_that_name(search, tmp_path):
    write_tiny(search() / "tiny")
    with pytest.raises(DatasetError, match=r"no dataset .*mistyped/tiny"):
        find_dataset(tmp_path / "mistyped" / "tiny")


def test_an_unknown_name_lists_what_there_is_and_where_it_looked(search, tmp_path):
    packaged = search(tmp_path / "mine")
    write_tiny(tmp_path / "mine" / "tiny")
    with pytest.raises(DatasetError, match=r"no dataset 'tiney': .*\(tiny\)\. Looked in ") as error:
        open_dataset("tiney")
    assert f"Looked in {tmp_path / 'mine'}, {packaged}; add a folder to CROSSFUNC_DATA" in str(error.value)


def test_a_folder_without_dataset_json_says_so(search, tmp_path):
    with pytest.raises(DatasetError, match=r"the folder holds no dataset.json; import the data with `crossfunc data"):
        open_dataset(tmp_path)


def test_without_any_dataset_the_list_is_empty(search):
    assert list_datasets() == {}
    with pytest.raises(DatasetError, match=r"known names \(none\)"):
        find_dataset("surrogate")


# Bad files


def truncate(folder):
    data = (folder / "frames.parquet").read_bytes()
    (folder / "frames.parquet").write_bytes(data[: len(data) // 2])


def edit(folder):
    table = pq.read_table(folder / "frames.parquet")
    energies = pa.array(table["energy_per_atom_ev"].to_numpy() + 0.001)
    pq.write_table(table.set_column(7, table.schema.field(7), energies), folder / "frames.parquet")


def edit_and_bless(folder, **changes):
    table = frames_table(**changes)
    pq.write_table(table, folder / "frames.parquet")
    bless(folder, "frames.parquet")


def flip_a_byte_and_bless(folder):
    data = bytearray((folder / "frames.parquet").read_bytes())
    data[100] ^= 0xFF
    (folder / "frames.parquet").write_bytes(data)
    bless(folder, "frames.parquet")


def truncate_and_bless(folder):
    truncate(folder)
    bless(folder, "frames.parquet")


BAD_FILES = {
    "a truncated table": (truncate, r"frames.parquet: the checksum differs .*truncated or edited.*import it again"),
    "an edited table": (edit, r"frames.parquet: the checksum differs .*write changes with .*write_dataset"),
    "an empty table file": (lambda d: (d / "frames.parquet").write_bytes(b""), r"frames.parquet: the checksum differs"),
    "a missing table": (lambda d: (d / "pairs.parquet").unlink(), r"pairs.parquet: listed .*missing; fetch or import"),
    "a truncated table with its checksum": (truncate_and_bless, r"frames.parquet: not readable as parquet .*again"),
    "a damaged table with its checksum": (flip_a_byte_and_bless, r"frames.parquet: not readable as parquet .*again"),
    "a NaN energy with its checksum": (
        lambda d: edit_and_bless(d, energy_per_atom_ev=math.nan),
        r"frames.parquet: 1 unusable row\n  row 1 \(f1\): energy_per_atom_ev is NaN",
    ),
    "another number of rows": (
        lambda d: edit_meta(d, lambda meta: meta["files"]["frames.parquet"].update(rows=5)),
        r"frames.parquet: says it holds 4 rows .* says 5 rows .*corrupt; fetch or import",
    ),
    "no JSON": (lambda d: (d / "dataset.json").write_text("name: tiny"), r"dataset.json: not readable as JSON .*again"),
    "half a JSON": (
        lambda d: (d / "dataset.json").write_text((d / "dataset.json").read_text(encoding="utf-8")[:50]),
        r"dataset.json: not readable as JSON",
    ),
    "bytes for JSON": (lambda d: (d / "dataset.json").write_bytes(b"\xff\xfe\x00"), r"dataset.json: not readable as"),
    "endless JSON": (lambda d: (d / "dataset.json").write_text("[" * 10**6), r"dataset.json: not readable as JSON"),
    "a list for JSON": (lambda d: edit_meta(d, lambda _: ["tiny"]), r"dataset.json: expected an object with name"),
    "no licence": (
        lambda d: edit_meta(d, lambda meta: {k: v for k, v in meta.items() if k != "licence"}),
        r"dataset.json: licence missing. Add it \(licence: under which terms",
    ),
    "no files": (lambda d: edit_meta(d, lambda meta: meta | {"files": {}}), r"dataset.json: `files` must list"),
    "no key for files": (
        lambda d: edit_meta(d, lambda meta: {k: v for k, v in meta.items() if k != "files"}),
        r"dataset.json: `files` must list which of .*frames.parquet",
    ),
    "a file outside": (
        lambda d: edit_meta(d, lambda meta: meta["files"].update({"../frames.parquet": {"sha256": "0", "rows": 1}})),
        r"dataset.json: `files` must list which of",
    ),
    "no checksum": (
        lambda d: edit_meta(d, lambda meta: meta["files"]["pairs.parquet"].pop("sha256") and None),
        r"dataset.json: pairs.parquet has no sha256 and rows",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_a_remedy_when_the_dataset_opens(tiny, case):
    spoil, message = BAD_FILES[case]
    spoil(tiny)
    before = contents(tiny.parent)
    with pytest.raises(DatasetError, match=f"(?s)^{re.escape(str(tiny))}/{message}"):
        open_dataset(tiny)
    assert contents(tiny.parent) == before


@pytest.mark.parametrize("name", ["dataset.json", "frames.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_has_no_end_is_not_read(tiny, name, kind):
    file = tiny / name
    file.unlink()
    {"pipe": lambda: os.mkfifo(file), "device": lambda: file.symlink_to("/dev/zero"), "folder": file.mkdir}[kind]()
    for verify in (True, False):
        with pytest.raises(DatasetError, match=f"{name}: no file but a folder, pipe or device"):
            open_dataset(tiny, verify=verify).frames  # noqa: B018


def test_a_table_that_dataset_json_does_not_list_is_not_read(tiny):
    edit_meta(tiny, lambda meta: meta["files"].pop("elements.parquet") and None)
    assert open_dataset(tiny).elements is None


def test_a_damaged_ledger_is_named_as_well(tmp_path):
    path = write_tiny(tmp_path / "tiny", frames=frames_table(energy_per_atom_ev=None), strict=False).path
    (path / "rejected.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"rejected.parquet: the checksum differs"):
        open_dataset(path)


def test_without_verification_a_damaged_table_is_still_named_when_it_is_read(tiny):
    truncate(tiny)
    dataset = open_dataset(tiny, verify=False)
    assert len(dataset.pairs) == 2
    with pytest.raises(DatasetError, match=r"frames.parquet: not readable as parquet"):
        _ = dataset.frames


_POOLS = []  # a pool has to outlive what was allocated from it


@contextlib.contextmanager
def arrow_memory():
    """Count what Arrow allocates meanwhile; `max_memory()` of what is yielded is the peak in bytes."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    _POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


def test_a_small_file_cannot_claim_a_large_table(tiny):
    n_rows, names = 3_000_000, "abcdefgh"
    table = pa.table({name: pa.nulls(n_rows, pa.float64()) for name in names})
    pq.write_table(table, tiny / "frames.parquet", compression="zstd")
    bless(tiny, "frames.parquet", rows=n_rows)
    size, claim = (tiny / "frames.parquet").stat().st_size, 8 * n_rows * len(names)
    assert claim > 2000 * size
    message = rf"frames.parquet: says it holds {n_rows} rows in {claim} bytes.* has {size} bytes: corrupt"
    with arrow_memory() as memory, pytest.raises(DatasetError, match=message):
        open_dataset(tiny)
    assert memory.max_memory() < 1_000_000


@pytest.mark.parametrize("blessed", [False, True], ids=["unverified", "with its checksum"])
def test_random_damage_to_a_table_ends_in_a_dataset_error_and_little_memory(tmp_path, blessed):
    """The bytes are flipped anywhere, and mostly in the footer, where sizes and offsets are."""
    path = write_dataset(tmp_path / "tiny", meta=META, frames=frames_table(100)).path
    file = path / "frames.parquet"
    whole, expected, chance = file.read_bytes(), open_dataset(path).frames, random.Random(0)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    outcomes = {"refused": 0, "unharmed": 0, "changed": 0}
    for k in range(150):
        damaged = bytearray(whole)
        damaged[chance.randrange(footer if k % 3 else 0, len(whole))] = chance.randrange(256)
        file.write_bytes(damaged[: chance.randrange(len(whole))] if k % 10 == 0 else damaged)
        if blessed:
            bless(path, "frames.parquet")
        try:
            with arrow_memory() as memory:
                frames = open_dataset(path, verify=blessed).frames
        except DatasetError as error:
            assert str(file) in str(error)  # noqa: PT017 - either outcome is fine, but a refusal names the file
            outcomes["refused"] += 1
        else:
            outcomes["unharmed" if frames.equals(expected) else "changed"] += 1
        assert memory.max_memory() < 1000 * len(whole)
    assert outcomes["refused"] > 100, outcomes
    assert outcomes["unharmed"] > 0, outcomes  # bytes that carry nothing, or were replaced by themselves


@pytest.mark.parametrize(
    ("said", "is_surrogate"), [("model, CHGNet", True), ("DFT, GPAW", False), (None, False)], ids=["model", "DFT", "no"]
)
def test_a_dataset_says_what_made_its_labels(tmp_path, said, is_surrogate):
    meta = META | ({"labelled_by": said} if said else {})
    dataset = write_tiny(tmp_path / "tiny", meta=meta)
    assert (dataset.labelled_by, dataset.is_surrogate) == (said or "", is_surrogate)


def test_the_embedded_datasets_say_what_made_their_labels():
    assert [open_dataset(name).labelled_by for name in ("surrogate", "pbe-r2scan")] == ["model, CHGNet", "DFT, GPAW"]


def test_a_table_that_is_needed_and_not_there_is_named(tmp_path):
    dataset = Dataset("mine", {}, tmp_path)
    with pytest.raises(DatasetError, match=r"^mine: no table of frames"):
        dataset.need_frames()
    with pytest.raises(DatasetError, match=r"^mine: no table of pairs"):
        dataset.need_pairs()
