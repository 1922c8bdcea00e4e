"""The Materials Project pairs CSV as a dataset: a tiny one made here, and the real one where it is at hand."""

import math

import pandas as pd
import pytest

from crossfunc.datasets import (
    DatasetError,
    check_dataset,
    dataset_fingerprint,
    describe_functionals,
    list_datasets,
    open_dataset,
)
from crossfunc.datasets.importers.mp_thermo_csv import ELEMENTS_FILE_NAME, FILE_NAME, read_pairs, source_files

HEADER = (
    "mp_id,formula,composition,n_atoms_formula,gga_mp2020_energy_per_atom_ev,gga_mp2020_formation_energy_per_atom_ev,"
    "r2scan_energy_per_atom_ev,r2scan_formation_energy_per_atom_ev,experiment_nbs_formation_energy_per_atom_ev,chemistry"
)
ROWS = [
    "mp-1,Ni3N,Ni6N2,4.0,-6.5,-0.06,-11.25,0.015,0.002,nitride",
    "mp-2,AgClO2,Ag4Cl4O8,4.0,-3.9,-0.23,,,0.023,chlorate",
    "mp-3,NaCl,Na1Cl1,2.0,-3.4,-2.0,-9.1,-2.1,-2.13,halide",
    "mp-4,K2CO3·1.5H2O,K8C4O18H12,7.5,-5.5,-2.1,-10.0,,-2.2,carbonate|hydrate",
    "mp-5,W,W,1.0,,,,,,element",
]
ELEMENT_ROWS = ["element,mp_gga_gga_u_ev_per_atom,mp_r2scan_ev_per_atom", "Na,-1.3,-4.4", "W,-12.9,", "N,-8.3,-11.6"]


def write_csv(folder, rows=ROWS, header=HEADER):
    file = folder / FILE_NAME
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def write_elements(folder, rows=ELEMENT_ROWS):
    file = folder / ELEMENTS_FILE_NAME
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def test_rows_with_both_functionals_become_pairs(tmp_path):
    pairs = open_dataset(write_csv(tmp_path)).pairs
    assert pairs["material_id"].tolist() == ["mp-1", "mp-3", "mp-4"]
    assert pairs["composition"].tolist() == ["Ni6N2", "Na1Cl1", "K8C4O18H12"]
    assert pairs["low_energy_per_atom_ev"].tolist() == [-6.5, -3.4, -5.5]
    assert pairs["high_energy_per_atom_ev"].tolist() == [-11.25, -9.1, -10.0]
    assert pairs["low_formation_energy_per_atom_ev"].tolist() == [-0.06, -2.0, -2.1]
    assert pairs["high_formation_energy_per_atom_ev"].tolist()[:2] == [0.015, -2.1]


def test_what_the_csv_does_not_hold_stays_empty(tmp_path):
    dataset = open_dataset(write_csv(tmp_path))
    assert math.isnan(dataset.pairs["high_formation_energy_per_atom_ev"].iloc[2])
    assert (
        dataset.pairs["low_uncorrected_energy_per_atom_ev"].isna().all()
    )  # raw GGA: the CSV has corrected energies only
    assert dataset.pairs["low_uncorrected_formation_energy_per_atom_ev"].isna().all()
    assert dataset.frames is None
    assert dataset.elements is None


def test_atoms_are_counted_in_the_composition_not_in_the_rounded_formula(tmp_path):
    assert open_dataset(write_csv(tmp_path)).pairs["n_atoms"].tolist() == [8, 2, 42]


def test_formula_chemistry_and_experiment_come_along(tmp_path):
    pairs = open_dataset(write_csv(tmp_path)).pairs
    assert pairs["formula"].tolist() == ["Ni3N", "NaCl", "K2CO3·1.5H2O"]
    assert pairs["chemistry"].tolist() == ["nitride", "halide", "carbonate|hydrate"]
    assert pairs["experiment_nbs_formation_energy_per_atom_ev"].tolist() == [0.002, -2.13, -2.2]


def test_rows_without_both_functionals_are_in_the_ledger_with_the_reason(tmp_path):
    ledger = open_dataset(write_csv(tmp_path)).rejected
    assert ledger.to_dict("records") == [
        {"table": "pairs", "row": 1, "id": "mp-2", "reason": "no r2scan_energy_per_atom_ev"},
        {
            "table": "pairs",
            "row": 4,
            "id": "mp-5",
            "reason": "no gga_mp2020_energy_per_atom_ev and no r2scan_energy_per_atom_ev",
        },
    ]


def test_rows_that_break_the_schema_are_in_the_ledger_with_their_row_in_the_csv(tmp_path):
    bad = [
        "mp-1,,Ni6N2,4.0,-6.5,,-11.0,,,",  # an id that is taken
        "mp-6,,Xx2,2.0,-6.5,,-11.0,,,",
        "mp-7,,Li2,2.0,inf,,-11.0,,,",
        "mp-8,,,2.0,-1.0,,-11.0,,,",
        "mp-9,,H2O·Na,2.0,-1.0,,-11.0,,,",
    ]
    dataset = open_dataset(write_csv(tmp_path, [ROWS[1], *bad[:2], ROWS[0], *bad[2:], ROWS[2]]))
    # The first of two equal ids is kept, here the one that comes before.
    assert dataset.pairs["material_id"].tolist() == ["mp-1", "mp-3"]
    assert dict(zip(dataset.rejected["row"], dataset.rejected["id"], strict=True)) == {
        0: "mp-2",
        2: "mp-6",
        3: "mp-1",
        4: "mp-7",
        5: "mp-8",
        6: "mp-9",
    }
    reasons = dict(zip(dataset.rejected["id"], dataset.rejected["reason"], strict=True))
    assert "occurs twice" in reasons["mp-1"]
    assert "unknown element" in reasons["mp-6"]
    assert "NaN or infinite" in reasons["mp-7"]
    assert "composition is empty" in reasons["mp-8"]


def test_sodium_and_nobelium_like_words_are_not_missing_values(tmp_path):
    pairs = open_dataset(write_csv(tmp_path, ["NA,Na,Na,1.0,-1.3,0.0,-4.4,0.0,,None"])).pairs
    assert pairs[["material_id", "composition", "chemistry"]].to_numpy().tolist() == [["NA", "Na", "None"]]


@pytest.mark.parametrize(
    "rows",
    [
        ["mp-9,NaN,NaN,2,-4.7,0.1,-9.0,0.1,,nitride"],
        ["mp-9,InF,InF,2,-4.7,0.1,-9.0,0.1,,halide"],  # alone in its column, infinity to a table reader
        ["007,NaN,NaN,2,-4.7,0.1,-9.0,0.1,,TRUE"],
        ["1e5,InF,InF,2,-4.7,0.1,-9.0,0.1,,"],
        ["1_0,NaN,NaN,2,-4.7,0.1,-9.0,0.1,,nitride", "10,InF,InF,2,-4.7,0.1,-9.0,0.1,,halide"],
    ],
)
def test_ids_and_formulas_that_look_like_numbers_stay_text(tmp_path, rows):
    file = tmp_path / FILE_NAME
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    pairs = open_dataset(file).pairs
    assert pairs["material_id"].tolist() == [row.split(",")[0] for row in rows]
    assert pairs["composition"].tolist() == [row.split(",")[2] for row in rows]


def test_elements_beside_the_pairs_give_the_ground_states_they_have(tmp_path):
    write_elements(tmp_path)
    elements = open_dataset(write_csv(tmp_path)).elements
    assert elements.to_numpy().tolist() == [
        ["Na", "gga", "mp2020", -1.3],
        ["W", "gga", "mp2020", -12.9],
        ["N", "gga", "mp2020", -8.3],
        ["Na", "r2scan", "raw", -4.4],
        ["N", "r2scan", "raw", -11.6],
    ]


def test_a_bad_element_goes_to_the_ledger_with_its_row_in_its_csv(tmp_path):
    write_elements(tmp_path, [*ELEMENT_ROWS, "Xx,,-1.0"])
    ledger = open_dataset(write_csv(tmp_path)).rejected
    (row,) = ledger[ledger["table"] == "elements"].to_dict("records")
    assert (row["row"], row["id"]) == (3, "Xx/r2scan/raw")


def test_the_meta_names_licence_citation_and_that_the_labels_are_dft(tmp_path):
    dataset = open_dataset(write_csv(tmp_path))
    assert dataset.name == "mp-thermo-pairs"
    assert "CC-BY-4.0" in dataset.meta["licence"]
    assert dataset.label_notice.startswith("DFT labels: Materials Project")
    assert dataset.meta["functionals"] == describe_functionals("GGA/GGA+U", "r²SCAN", energy_kinds=("mp2020", "raw"))


def test_the_name_opens_the_csv_in_a_folder_of_crossfunc_data(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(tmp_path))
    file = write_csv(tmp_path)
    assert list_datasets()["mp-thermo-pairs"] == file
    assert len(open_dataset("mp-thermo-pairs").pairs) == 3
    assert check_dataset("mp-thermo-pairs").ok


def test_without_the_csv_the_name_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="no dataset 'mp-thermo-pairs'"):
        open_dataset("mp-thermo-pairs")
    with pytest.raises(DatasetError, match=f"no dataset .*{FILE_NAME}"):
        open_dataset(tmp_path / FILE_NAME)


def test_the_fingerprint_follows_both_files(tmp_path):
    file = write_csv(tmp_path)
    assert source_files(file) == [file]
    seen = {dataset_fingerprint(file)}
    elements = write_elements(tmp_path)
    assert source_files(file) == [file, elements]
    seen.add(dataset_fingerprint(file))
    write_elements(tmp_path, [*ELEMENT_ROWS, "O,-4.9,-6.0"])
    seen.add(dataset_fingerprint(file))
    write_csv(tmp_path, ROWS[:3])
    seen.add(dataset_fingerprint(file))
    assert len(seen) == 4


def test_reading_gives_tables_that_can_be_written_as_a_dataset(tmp_path):
    from crossfunc.datasets import write_dataset

    write_elements(tmp_path)
    meta, tables = read_pairs(write_csv(tmp_path))
    written = write_dataset(tmp_path / "folder", meta=meta, **tables)
    opened = open_dataset(tmp_path / FILE_NAME)
    for kind in ("pairs", "elements", "rejected"):
        pd.testing.assert_frame_equal(getattr(written, kind), getattr(opened, kind))


BAD_CSV = {
    "a missing column": (
        {"header": HEADER.replace("r2scan_energy_per_atom_ev", "scan_energy_per_atom_ev")},
        r"missing column r2scan_energy_per_atom_ev; found mp_id, ",
    ),
    "text for an energy": (
        {"rows": [ROWS[0], ROWS[2].replace("-9.1", "about -9")]},
        r"row 1 \(mp-3\): r2scan_energy_per_atom_ev is 'about -9', not a number; correct the file",
    ),
    "text for an experiment": (
        {"rows": [ROWS[0].replace("0.002", "n/a")]},
        r"row 0 \(mp-1\): experiment_nbs_formation_energy_per_atom_ev is 'n/a', not a number",
    ),
    "too many fields": ({"rows": [ROWS[0], ROWS[2] + ",1,2,3"]}, r"not readable as CSV .*fetch it again"),
    "no rows": ({"rows": []}, r"the table holds no rows"),
    "no pair": ({"rows": [ROWS[1]]}, r"the table holds no rows"),
    "no usable pair": ({"rows": [ROWS[0].replace("Ni6N2", "Xx")]}, r"1 unusable row.*every row: correct the table"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_is_named_with_row_and_remedy(tmp_path, case):
    changes, message = BAD_CSV[case]
    with pytest.raises(DatasetError, match=f"(?s){FILE_NAME}: {message}"):
        open_dataset(write_csv(tmp_path, **changes))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00\x01", b"PAR1\x00\x00"], ids=["empty", "not text", "parquet"])
def test_what_is_no_csv_is_named(tmp_path, data):
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(
        DatasetError, match=rf"{FILE_NAME}: (not readable as CSV .*fetch it again|missing column mp_id)"
    ):
        open_dataset(tmp_path / FILE_NAME)


def test_a_bad_elements_csv_is_named_not_the_pairs(tmp_path):
    write_csv(tmp_path)
    write_elements(tmp_path, [ELEMENT_ROWS[0], "Na,x,-4.4"])
    message = rf"{ELEMENTS_FILE_NAME}: row 0 \(Na\): mp_gga_gga_u_ev_per_atom is 'x', not a number"
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / FILE_NAME)


@pytest.mark.real_data
def test_the_real_csv_has_974_pairs_and_581_materials_in_the_ledger(real_data_folder):
    dataset = open_dataset(real_data_folder / FILE_NAME)
    assert len(dataset.pairs) == 974
    assert len(dataset.rejected) == 581
    assert set(dataset.rejected["reason"]) == {"no r2scan_energy_per_atom_ev"}
    energies = ["low_energy_per_atom_ev", "high_energy_per_atom_ev"]
    assert dataset.pairs[energies].notna().all(axis=None)
    assert dataset.pairs["material_id"].is_unique
    assert dataset.elements.groupby("functional").size().to_dict() == {"gga": 79, "r2scan": 79}


@pytest.mark.real_data
def test_the_real_formation_energies_are_as_far_from_experiment_as_its_readme_says(real_data_folder):
    pairs = open_dataset(real_data_folder / FILE_NAME).pairs
    measured = pairs["experiment_nbs_formation_energy_per_atom_ev"]
    error_mev = {
        f: 1000 * (pairs[f"{f}_formation_energy_per_atom_ev"] - measured).abs().mean() for f in ("low", "high")
    }
    assert error_mev["low"] == pytest.approx(157, abs=1)
    assert error_mev["high"] == pytest.approx(79, abs=1)


@pytest.mark.real_data
def test_the_real_atom_counts_are_whole_multiples_of_the_formula(real_data_folder):
    raw = pd.read_csv(real_data_folder / FILE_NAME).set_index("mp_id")["n_atoms_formula"]
    pairs = open_dataset(real_data_folder / FILE_NAME).pairs
    multiples = pairs["n_atoms"] / raw[pairs["material_id"]].to_numpy()
    assert (multiples % 1 == 0).mean() > 0.99  # a few formulas hold water that the crystal does not
