"""The importer of MatPES: units, the order of Voigt's stress, pairs of the same structure, ledger."""

import gzip
import json

import pytest

from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.datasets.importers.matpes import import_matpes


def record(number=1, functional="PBE", energy=-10.0, edge=4.0, origin="mp-1", **changes):
    """LiF in a cube as MatPES holds it; stress in kBar as xx, yy, zz, yz, xz, xy."""
    sites = [{"species": [{"element": e, "occu": 1}], "abc": [x] * 3} for e, x in (("Li", 0.0), ("F", 0.5))]
    lattice = {"matrix": [[edge, 0, 0], [0, edge, 0], [0, 0, edge]]}
    return {
        "nsites": 2,
        "structure": {"lattice": lattice, "sites": sites},
        "energy": energy,
        "forces": [[0.1, 0, 0], [-0.1, 0, 0]],
        "stress": [10.0, 20.0, 30.0, 1.0, 2.0, 3.0],
        "matpes_id": f"matpes-{number}",
        "functional": functional,
        "bader_magmoms": [0.5, -0.5],
        "provenance": {"original_mp_id": origin},
    } | changes


def write(path, records, *, lines=False):
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def both(tmp_path):
    """Three structures of two materials in PBE; two of them, and another one, in r2SCAN."""
    low = [record(1, energy=-10.0), record(2, energy=-9.0), record(3, energy=-8.0, origin="mp-2")]
    high = [record(1, "r2SCAN", -30.0), record(3, "r2SCAN", -28.0, origin="mp-2"), record(4, "r2SCAN", -20.0)]
    return write(tmp_path / "pbe.json", low), write(tmp_path / "r2scan.json", high)


def test_totals_become_energies_per_atom_and_voigt_becomes_a_tensor_in_gpa(tmp_path):
    summary = import_matpes([write(tmp_path / "a.json", [record()])], tmp_path / "out")
    (row,) = open_dataset(summary.path).frames.to_pylist()
    assert (row["frame_id"], row["material_id"], row["functional"], row["energy_kind"]) == (
        *("matpes-1/pbe", "mp-1", "pbe", "raw"),
    )
    assert row["energy_per_atom_ev"] == -5.0
    assert row["stress_gpa"] == pytest.approx([-1, -0.3, -0.2, -0.3, -2, -0.1, -0.2, -0.1, -3])
    assert row["magmoms_mub"] is None
    assert row["structure_id"] == "matpes-1"


def test_bader_moments_are_taken_when_asked_for(tmp_path):
    summary = import_matpes([write(tmp_path / "a.json", [record()])], tmp_path / "out", magmoms="bader")
    assert open_dataset(summary.path).frames["magmoms_mub"][0].as_py() == [0.5, -0.5]


@pytest.mark.parametrize(("name", "lines"), [("a.json.gz", False), ("a.jsonl", True), ("a.jsonl.gz", True)])
def test_arrays_and_lines_zipped_or_not_give_the_same_frames(tmp_path, name, lines):
    records = [record(k, energy=-10.0 - k) for k in range(5)]
    plain = import_matpes([write(tmp_path / "a.json", records)], tmp_path / "plain")
    other = import_matpes([write(tmp_path / name, records, lines=lines)], tmp_path / "other")
    tables = [open_dataset(s.path).frames.drop_columns("source") for s in (plain, other)]
    assert tables[0].equals(tables[1])


def test_one_structure_in_both_functionals_is_a_pair_of_its_material(tmp_path, both):
    summary = import_matpes(both, tmp_path / "out")
    assert (summary.n_frames, summary.n_materials, summary.n_pairs) == (6, 2, 2)
    pairs = open_dataset(summary.path).pairs.set_index("material_id")
    assert pairs.loc["mp-1", ["low_energy_per_atom_ev", "high_energy_per_atom_ev"]].tolist() == [
        -5.0,
        -15.0,
    ]
    assert pairs.loc["mp-2", "high_energy_per_atom_ev"] == -14.0
    assert set(pairs["pairing"]) == {"same structure"}
    assert pairs["composition"].tolist() == ["Li1F1", "Li1F1"]
    low = open_dataset(summary.path).functional("low")
    assert (low.name, low.key, low.energy_kind) == ("PBE", "pbe", "raw")


def test_the_order_of_the_files_does_not_matter_for_the_pairs(tmp_path, both):
    pairs = [open_dataset(import_matpes(f, tmp_path / f"o{k}").path).pairs for k, f in enumerate((both, both[::-1]))]
    assert pairs[0].equals(pairs[1])


def test_one_id_on_two_cells_is_not_paired_but_told(tmp_path):
    files = [
        write(tmp_path / "a.json", [record(1), record(2)]),
        write(tmp_path / "b.json", [record(1, "r2SCAN", edge=4.4), record(2, "r2SCAN", -12.0)]),
    ]
    dataset = open_dataset(import_matpes(files, tmp_path / "out").path)
    assert dataset.frames.num_rows == 4
    (row,) = dataset.rejected.to_dict("records")
    assert (row["table"], row["id"]) == ("pairs", "matpes-1")
    assert "two different cells" in row["reason"]


def test_two_files_of_one_functional_are_refused(tmp_path):
    files = [write(tmp_path / name, [record()]) for name in ("a.json", "b.json")]
    files[1].write_text(json.dumps([record(2)]))
    with pytest.raises(DatasetError, match="are both pbe: give the PBE and the r²SCAN release"):
        import_matpes(files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_with_the_same_energies_are_refused(tmp_path):
    low = [record(k, energy=-10.0 - k, origin=f"mp-{k}") for k in range(12)]
    files = [write(tmp_path / "a.json", low), write(tmp_path / "b.json", [r | {"functional": "r2SCAN"} for r in low])]
    with pytest.raises(DatasetError, match="12 of 12 structures have the same energy in both functionals"):
        import_matpes(files, tmp_path / "out")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (record(9, "r2SCAN"), "functionals are mixed"),
        (record(9, "HSE06"), "neither PBE nor r2SCAN"),
        (record(9, nsites=3), "nsites is 3, but the structure has 2"),
        (record(9, stress=[1, 2, 3]), "stress is not a list of rows"),
        (record(9, stress=None), "stress is null"),
        (record(9, stress=[1, 2, 3, 4, 5, "6"]), "stress holds text"),
        (record(9, forces=None), "forces is null"),
        (record(9, energy=None), "energy is null"),
        (record(9, matpes_id=7), "matpes_id is no text"),
        (record(1), "frame_id occurs twice"),
        ({"matpes_id": "x"}, "energy, forces, functional, stress, structure missing"),
        (5, "5 where a frame"),
        ([1], "where a frame"),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
def test_a_bad_record_is_in_the_ledger_and_the_good_ones_survive(tmp_path, bad, reason, lines):
    file = write(tmp_path / "a.json", [record(1), record(2), bad, record(3)], lines=lines)
    dataset = open_dataset(import_matpes([file], tmp_path / "out").path)
    assert dataset.frames["structure_id"].to_pylist() == ["matpes-1", "matpes-2", "matpes-3"]
    (row,) = dataset.rejected.to_dict("records")
    assert reason in row["reason"]
    assert row["row"] == 2


def test_a_file_cut_off_is_an_error(tmp_path):
    file = write(tmp_path / "a.json", [record(1), record(2)], lines=True)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DatasetError, match="cut off"):
        import_matpes([file], tmp_path / "out")
