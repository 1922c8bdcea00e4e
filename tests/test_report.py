"""The check of a dataset: every problem named, each table looked at, and coverage told."""

import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfunc.datasets import DatasetError, check_dataset, describe_functionals, write_dataset
from crossfunc.datasets.report import CheckReport, Finding

META = {
    "name": "tiny",
    "version": "1",
    "licence": "MIT",
    "citation": "none",
    "provenance": "made by a test",
    "functionals": describe_functionals("GGA/GGA+U", "r²SCAN", energy_kinds=("mp2020", "raw")),
    "label_notice": "labels invented by a test",
}
CUBE = [4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 4.0]


def frames_table(energies=(-5.0, -5.1)):
    return pa.Table.from_pylist(
        [
            {
                "frame_id": f"f{k}",
                "material_id": "m0",
                "functional": "r2scan",
                "energy_kind": "raw",
                "atomic_numbers": [3, 9],
                "lattice_a": CUBE,
                "frac_coords": [0.0] * 6,
                "energy_per_atom_ev": energy,
            }
            for k, energy in enumerate(energies)
        ]
    )


def pairs_frame():
    return pd.DataFrame(
        {
            "material_id": ["m0", "m1"],
            "composition": ["LiF", "Ni6N2"],
            "n_atoms": [2, 8],
            "low_energy_per_atom_ev": [-4.3, -6.5],
            "high_energy_per_atom_ev": [-8.0, -11.3],
        }
    )


def elements_frame(symbols=("Li", "F", "Ni", "N")):
    rows = [(s, f, k, -3.0) for f, k in (("gga", "mp2020"), ("r2scan", "raw")) for s in symbols]
    return pd.DataFrame(rows, columns=["element", "functional", "energy_kind", "energy_per_atom_ev"])


@pytest.fixture
def tiny(tmp_path):
    """Folder of a written dataset."""
    tables = {"frames": frames_table(), "pairs": pairs_frame(), "elements": elements_frame()}
    return write_dataset(tmp_path / "tiny", meta=META, **tables).path


def levels(report, level):
    return [f"{f.file}: {f.message}" for f in report.findings if f.level == level]


def spoil(folder, name, table):
    pq.write_table(table, folder / name)


def test_a_good_dataset_is_usable_and_told_in_numbers(tiny):
    report = check_dataset(tiny)
    assert report.ok
    assert levels(report, "error") == levels(report, "warning") == []
    assert levels(report, "info") == [
        "tiny: low functional: GGA/GGA+U with MP2020 corrections (gga)",
        "tiny: high functional: r²SCAN (r2scan)",
        "frames.parquet: 2 rows",
        "pairs.parquet: 2 rows",
        "elements.parquet: 8 rows",
        "tiny: 4 elements: Li N F Ni",
        "tiny: frames of 1 structures of 1 materials",  # one cell with two labels
        "tiny: 0 elements in 6 materials or more, 0 of them heavy",
    ]


def test_heavy_elements_and_whole_systems_of_three_are_told(tmp_path):
    pairs = pd.concat([pairs_frame(), pairs_frame().assign(material_id=["m2", "m3"], composition=["Ba2LiF4", "BaF2"])])
    elements = elements_frame(("Li", "F", "Ni", "N", "Ba"))
    report = check_dataset(write_dataset(tmp_path / "tiny", meta=META, pairs=pairs, elements=elements).path)
    told = levels(report, "info")
    assert "tiny: 1 of them heavy (Z >= 55): Ba" in told
    assert told[-1] == "tiny: 1 systems of three elements with all three; phases, elements included: Li-F-Ba 6"


def test_the_report_reads_as_lines_and_as_json(tiny):
    report = check_dataset(tiny)
    assert str(report).splitlines()[2] == "info    frames.parquet: 2 rows"
    assert str(report).splitlines()[-1] == f"{tiny}: usable"
    assert json.loads(json.dumps(report.to_dict())) == {
        "path": str(tiny),
        "ok": True,
        "findings": [{"level": f.level, "file": f.file, "message": f.message} for f in report.findings],
    }


def test_one_error_is_enough_and_warnings_are_not(tmp_path):
    report = CheckReport(tmp_path, [Finding("info", "a", "x"), Finding("warning", "b", "y")])
    assert report.ok
    report.findings.append(Finding("error", "c", "z"))
    assert not report.ok
    assert str(report).splitlines() == ["info    a: x", "warning b: y", "error   c: z", f"{tmp_path}: NOT usable"]


def test_a_table_that_is_not_there_is_no_error(tmp_path):
    report = check_dataset(write_dataset(tmp_path / "one", meta=META, pairs=pairs_frame()).path)
    assert report.ok
    assert "frames.parquet: not part of this dataset" in levels(report, "info")


def test_checking_changes_nothing(tiny):
    before = {f.name: f.read_bytes() for f in tiny.iterdir()}
    check_dataset(tiny)
    assert {f.name: f.read_bytes() for f in tiny.iterdir()} == before


def test_every_table_is_looked_at_also_after_an_error_in_another(tiny):
    spoil(tiny, "frames.parquet", frames_table((-5.0, math.nan)))
    bad_pairs = pairs_frame().assign(composition=["LiF", "Xx"])
    spoil(tiny, "pairs.parquet", pa.Table.from_pandas(bad_pairs, preserve_index=False))
    report = check_dataset(tiny)
    assert not report.ok
    checksum, *rows = levels(report, "error")
    assert "frames.parquet: the checksum differs" in checksum
    assert rows == [
        "frames.parquet: row 1 (f1): energy_per_atom_ev is NaN or infinite",
        "pairs.parquet: row 1 (m1): composition names an unknown element; only 94 elements (H to Pu) are known",
    ]
    assert "elements.parquet: 8 rows" in levels(report, "info")


def test_an_edited_table_is_an_error_even_when_every_row_is_good(tiny):
    spoil(tiny, "frames.parquet", frames_table((-5.0, -5.2)))
    report = check_dataset(tiny)
    (error,) = levels(report, "error")
    assert "the checksum differs from dataset.json: the file was truncated or edited" in error


@pytest.mark.parametrize("name", ["frames.parquet", "pairs.parquet", "elements.parquet"])
def test_a_truncated_table_is_an_error_and_the_others_are_still_counted(tiny, name):
    data = (tiny / name).read_bytes()
    (tiny / name).write_bytes(data[: len(data) // 2])
    report = check_dataset(tiny)
    assert len(levels(report, "error")) == 2
    assert all(name in line for line in levels(report, "error"))
    assert "not readable as parquet" in levels(report, "error")[1]
    assert sum(line.endswith(" rows") for line in levels(report, "info")) == 2


def test_a_missing_table_is_an_error_that_names_it(tiny):
    (tiny / "pairs.parquet").unlink()
    report = check_dataset(tiny)
    assert "pairs.parquet: listed in dataset.json but missing" in levels(report, "error")[0]
    assert "frames.parquet: 2 rows" in levels(report, "info")


def test_a_missing_column_is_told_once(tiny):
    table = frames_table().drop_columns("frac_coords")
    spoil(tiny, "frames.parquet", table)
    errors = [line for line in levels(check_dataset(tiny), "error") if "missing column" in line]
    assert len(errors) == 1
    assert "frames.parquet: missing column 'frac_coords'" in errors[0]


def test_a_bad_dataset_json_is_one_error(tiny):
    (tiny / "dataset.json").write_text("{")
    report = check_dataset(tiny)
    (error,) = levels(report, "error")
    assert "dataset.json: not readable as JSON" in error
    assert len(report.findings) == 1


def test_a_dataset_without_licence_is_not_usable(tiny):
    meta = json.loads((tiny / "dataset.json").read_text(encoding="utf-8"))
    del meta["licence"]
    (tiny / "dataset.json").write_text(json.dumps(meta))
    assert "licence missing" in str(check_dataset(tiny))
    assert not check_dataset(tiny).ok


def test_a_damaged_ledger_is_an_error_not_a_crash(tmp_path):
    frames = frames_table((-5.0, math.nan))
    path = write_dataset(tmp_path / "tiny", meta=META, frames=frames, strict=False).path
    (path / "rejected.parquet").write_bytes(b"PAR1")
    report = check_dataset(path)
    assert not report.ok
    assert "rejected.parquet: the checksum differs" in levels(report, "error")[0]


def test_rows_left_out_are_summed_up_by_reason(tmp_path):
    frames = frames_table((-5.0, math.nan, math.nan))
    before = pd.DataFrame({"table": ["frames"], "row": [9], "id": ["x"], "reason": ["not converged"]})
    path = write_dataset(tmp_path / "tiny", meta=META, frames=frames, rejected=before, strict=False).path
    report = check_dataset(path)
    assert report.ok
    assert levels(report, "info")[-1] == (
        "rejected: 3 rows were left out: 2 x energy_per_atom_ev is NaN or infinite; 1 x not converged"
    )


def test_a_long_list_of_bad_rows_is_cut_with_a_count(tiny):
    spoil(tiny, "frames.parquet", frames_table([-5.0] + [math.nan] * 50))
    meta = json.loads((tiny / "dataset.json").read_text(encoding="utf-8"))
    meta["files"]["frames.parquet"]["rows"] = 51
    (tiny / "dataset.json").write_text(json.dumps(meta))
    errors = levels(check_dataset(tiny), "error")
    assert sum("frames.parquet: row" in line for line in errors) == 20
    assert errors[-1] == "frames.parquet: and 30 more unusable rows"


def test_elements_without_a_ground_state_are_a_warning(tmp_path):
    elements = elements_frame(("Li", "F", "N"))
    path = write_dataset(tmp_path / "tiny", meta=META, pairs=pairs_frame(), elements=elements).path
    report = check_dataset(path)
    assert report.ok
    assert levels(report, "warning") == [
        f"elements.parquet: no {functional} ground state of Ni: no formation energies of their compounds"
        for functional in ("GGA/GGA+U", "r²SCAN")
    ]


def test_only_a_dataset_that_is_not_there_raises(tmp_path):
    with pytest.raises(DatasetError, match="no dataset"):
        check_dataset(tmp_path / "nowhere")
