"""Which functionals a dataset holds and what its energies are: data that are read, shown and held to."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.datasets import DatasetError, describe_functionals, open_dataset, store, write_dataset
from crossfunc.datasets.functionals import check_columns, functional_key, label_of, mark_columns, parse_functionals
from crossfunc.datasets.migrate import migrate_dataset

MP = describe_functionals("GGA/GGA+U", "r²SCAN", energy_kinds=("mp2020", "raw"))
HYBRID = describe_functionals("PBEsol", "HSE06")
WORDS = dict.fromkeys(("name", "version", "licence", "citation", "provenance", "label_notice"), "toy")


def pairs_frame(**more):
    frame = {
        "material_id": ["a", "b", "c"],
        "composition": ["Na", "Cl2", "NaCl"],
        "n_atoms": [1, 2, 2],
        "low_energy_per_atom_ev": [-1.0, -2.0, -3.5],
        "high_energy_per_atom_ev": [-11.0, -12.0, -13.6],
    }
    return pd.DataFrame(frame | more)


def elements_frame(keys=("pbesol", "hse06"), kinds=("raw", "raw")):
    rows = [
        {"element": e, "functional": key, "energy_kind": kind, "energy_per_atom_ev": energy - 10 * side}
        for side, (key, kind) in enumerate(zip(keys, kinds, strict=True))
        for e, energy in (("Na", -1.0), ("Cl", -2.0))
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def hybrid(tmp_path):
    """PBEsol and HSE06, both raw."""
    meta = WORDS | {"functionals": HYBRID}
    return write_dataset(tmp_path / "hybrid", meta=meta, pairs=pairs_frame(), elements=elements_frame())


# --- names and keys ---


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("r²SCAN", "r2scan"),
        ("R2SCAN", "r2scan"),
        ("GGA/GGA+U", "gga"),
        ("PBE", "pbe"),
        ("PBE+U", "pbe+u"),
        ("PBE sol, 520 eV", "pbe-sol-520-ev"),
        ("ωB97M-V", "b97m-v"),
        ("low functional", "low"),
    ],
)
def test_a_name_gives_a_key_for_tables_and_options(name, key):
    assert functional_key(name) == key


def test_a_name_of_nothing_but_signs_is_refused():
    with pytest.raises(DatasetError, match=r"functional '\*\*': the name needs a letter or a digit"):
        functional_key("**")


@pytest.mark.parametrize("which", ["low", "pbesol", "PBEsol"])
def test_side_key_and_name_find_the_same_functional(hybrid, which):
    low = hybrid.functional(which)
    assert (low.side, low.name, low.key, low.energy_kind) == ("low", "PBEsol", "pbesol", "raw")


def pairs_of(functionals, column="low_energy_per_atom_ev", values=(-1.0, None)):
    """A table of pairs whose columns say which functional and kind they hold."""
    return mark_columns(pa.table({"material_id": ["a", "b"], column: pa.array(values, pa.float64())}), functionals)


def test_columns_that_say_what_the_description_says_are_taken():
    for described in (MP, HYBRID):
        functionals = parse_functionals(described, "dataset.json")
        check_columns(pairs_of(functionals), functionals, "pairs.parquet")
    plain = pa.table({"low_energy_per_atom_ev": [1.0]})  # says nothing, as a table of somebody else's
    check_columns(plain, parse_functionals(MP, "dataset.json"), "pairs.parquet")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            HYBRID,
            r"pairs.parquet: column low_energy_per_atom_ev says it holds raw energies of pbesol, .* mp2020 ones of gga",
        ),
        (describe_functionals("GGA/GGA+U", "r²SCAN"), r"says it holds raw energies of gga, dataset.json says mp2020"),
    ],
    ids=["functional", "kind"],
)
def test_columns_of_another_functional_or_kind_are_refused(other, said):
    table = pairs_of(parse_functionals(other, "dataset.json"))
    with pytest.raises(DatasetError, match=said):
        check_columns(table, parse_functionals(MP, "dataset.json"), "pairs.parquet")


def test_uncorrected_energies_beside_raw_ones_are_refused_unless_the_column_is_empty():
    functionals, column = parse_functionals(HYBRID, "dataset.json"), "low_uncorrected_energy_per_atom_ev"
    check_columns(pa.table({column: pa.array([None, None], pa.float64())}), functionals, "pairs.parquet")
    with pytest.raises(DatasetError, match=f"{column} holds values although the energies of PBEsol are raw"):
        check_columns(pa.table({column: [None, -1.0]}), functionals, "pairs.parquet")


def test_a_functional_that_is_not_there_is_refused_with_those_that_are(hybrid):
    with pytest.raises(DatasetError, match=r"no functional 'gga'; it has pbesol \(low: PBEsol\) and hse06 \(high"):
        hybrid.functional("gga")


@pytest.mark.parametrize(
    ("low", "high"), [("PBE", "pbe"), ("high functional", "HSE06"), ("PBE", "low functional")], ids=str
)
def test_two_functionals_that_cannot_be_told_apart_are_refused(low, high):
    with pytest.raises(DatasetError, match="cannot be told apart in the tables; give them different names"):
        describe_functionals(low, high)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"low": MP["low"]},
        {**MP, "high": {**MP["high"], "energy_kind": "corrected"}},
        {**MP, "high": {**MP["high"], "key": "r²SCAN"}},
        {**MP, "low": {**MP["low"], "name": ""}},
        {**MP, "middle": MP["low"]},
    ],
)
def test_an_incomplete_description_is_refused_with_an_example(entry):
    with pytest.raises(DatasetError, match="functionals must describe `low` and `high`, each as"):
        parse_functionals(entry, "dataset.json")


# --- columns ---


def test_a_column_is_asked_for_by_kind_and_never_guessed(hybrid):
    corrected, high = parse_functionals(MP, "x")
    assert corrected.column() == corrected.column("mp2020") == "low_energy_per_atom_ev"
    assert corrected.column("raw", formation=True) == "low_uncorrected_formation_energy_per_atom_ev"
    assert high.column("raw") == "high_energy_per_atom_ev"
    assert hybrid.functional("low").column("raw") == "low_energy_per_atom_ev"
    with pytest.raises(DatasetError, match="PBEsol: its energies are of kind raw, none of kind mp2020"):
        hybrid.functional("low").column("mp2020")


def test_axis_texts_name_functional_and_kind(hybrid):
    functionals = parse_functionals(MP, "x")
    texts = {c: label_of(c, functionals) for c in ("low_energy_per_atom_ev", "low_uncorrected_energy_per_atom_ev")}
    assert list(texts.values()) == ["GGA/GGA+U energy, MP2020 corrected (eV/atom)", "GGA/GGA+U energy (eV/atom)"]
    assert hybrid.label("high_formation_energy_per_atom_ev") == "HSE06 formation energy (eV/atom)"
    assert hybrid.label("low_scaled_energy_per_atom_ev") == "PBEsol energy − element references (eV/atom)"
    with pytest.raises(DatasetError, match="'n_atoms' is no column of energies"):
        hybrid.label("n_atoms")


def test_the_file_itself_says_what_each_column_holds(tmp_path):
    meta = WORDS | {"functionals": MP}
    uncorrected = {"low_uncorrected_energy_per_atom_ev": [-1.0, -2.0, -3.2]}
    dataset = write_dataset(tmp_path / "mp", meta=meta, pairs=pairs_frame(**uncorrected))
    schema = pq.read_schema(dataset.path / "pairs.parquet")
    said = {
        name: tuple(schema.field(name).metadata[k].decode() for k in (b"unit", b"functional", b"energy_kind"))
        for name in schema.names
        if name.endswith("_ev")
    }
    assert said == {
        "low_energy_per_atom_ev": ("eV/atom", "GGA/GGA+U", "mp2020"),
        "low_formation_energy_per_atom_ev": ("eV/atom", "GGA/GGA+U", "mp2020"),
        "low_uncorrected_energy_per_atom_ev": ("eV/atom", "GGA/GGA+U", "raw"),
        "low_uncorrected_formation_energy_per_atom_ev": ("eV/atom", "GGA/GGA+U", "raw"),
        "high_energy_per_atom_ev": ("eV/atom", "r²SCAN", "raw"),
        "high_formation_energy_per_atom_ev": ("eV/atom", "r²SCAN", "raw"),
    }


def test_a_description_that_contradicts_the_columns_is_refused(hybrid):
    file = hybrid.path / "dataset.json"
    meta = json.loads(file.read_text())
    meta["functionals"]["low"]["energy_kind"] = "mp2020"  # raw energies called corrected
    file.write_text(json.dumps(meta))
    with pytest.raises(
        DatasetError, match=r"low_energy_per_atom_ev says it holds raw energies of pbesol, .* mp2020 ones"
    ):
        open_dataset(hybrid.path)
    assert CliRunner().invoke(app, ["data", "check", str(hybrid.path), "--no-labels"]).exit_code == 1


def test_uncorrected_energies_beside_raw_ones_are_refused(tmp_path):
    meta = WORDS | {"functionals": HYBRID}
    pairs = pairs_frame(low_uncorrected_energy_per_atom_ev=[-1.0, np.nan, np.nan])
    with pytest.raises(DatasetError, match="holds values although the energies of PBEsol are raw themselves"):
        write_dataset(tmp_path / "own", meta=meta, pairs=pairs)
    assert not (tmp_path / "own").exists()


def test_rows_of_a_third_functional_are_refused(tmp_path):
    meta = WORDS | {"functionals": HYBRID}
    with pytest.raises(DatasetError, match="functional is none of pbesol, hse06"):
        write_dataset(tmp_path / "own", meta=meta, elements=elements_frame(keys=("pbesol", "scan")))


# --- readers ---


def hull(folder, *options):
    return CliRunner().invoke(app, ["hull", str(folder), *options])


def test_the_hull_of_raw_energies_is_not_given_out_as_corrected(hybrid):
    for functional in ("low", "pbesol", "high"):
        assert hull(hybrid.path, "--functional", functional).exit_code == 0
        refused = hull(hybrid.path, "--functional", functional, "--energy-kind", "mp2020")
        assert (refused.exit_code, "are of kind raw, none of kind mp2020" in refused.output) == (1, True)
    assert "no functional 'gga'" in hull(hybrid.path, "--functional", "gga").output


def test_entries_carry_the_functional_and_kind_of_their_dataset(hybrid):
    entries = xf.read_entries(hybrid.path, functional="low")
    assert (set(entries.functional), set(entries.energy_kind)) == ({"pbesol"}, {"raw"})
    assert dict(zip(entries.ids, entries.energy_per_atom_ev, strict=True))["c"] == -3.5
    surrogate = xf.read_entries("surrogate", functional="low", energy_kind="raw")
    assert (set(surrogate.functional), set(surrogate.energy_kind)) == ({"gga"}, {"raw"})
    pairs = xf.open_dataset("surrogate").pairs
    assert surrogate.energy_per_atom_ev[0] == pairs["low_uncorrected_energy_per_atom_ev"][0]


def test_atomref_and_check_name_the_functionals_of_the_data(hybrid):
    fitted = CliRunner().invoke(app, ["atomref", str(hybrid.path), "--functional", "low"]).output
    assert "From PBEsol to HSE06" in fitted
    checked = CliRunner().invoke(app, ["data", "check", str(hybrid.path), "--no-labels"]).output
    assert "high functional: HSE06 (hse06)" in checked


def test_raw_energies_are_filled_in_for_corrected_data_only(hybrid, tmp_path):
    from crossfunc.energies import add_raw_gga

    assert add_raw_gga(hybrid)["low_uncorrected_energy_per_atom_ev"].isna().all()
    oxide = pairs_frame(composition=["Li2O", "Na", "Cl2"])
    corrected = write_dataset(tmp_path / "mp", meta=WORDS | {"functionals": MP}, pairs=oxide)
    filled = add_raw_gga(corrected)["low_uncorrected_energy_per_atom_ev"]
    assert filled.tolist() == pytest.approx([-1.0 + 0.687 / 3, -2.0, -3.5])  # MP2020: -0.687 eV an oxygen


# --- older folders ---

_OLD = {
    "low_energy_per_atom_ev": "gga_mp2020_energy_per_atom_ev",
    "high_energy_per_atom_ev": "r2scan_energy_per_atom_ev",
    "low_formation_energy_per_atom_ev": "gga_mp2020_formation_energy_per_atom_ev",
    "high_formation_energy_per_atom_ev": "r2scan_formation_energy_per_atom_ev",
    "low_uncorrected_energy_per_atom_ev": "gga_energy_per_atom_ev",
    "low_uncorrected_formation_energy_per_atom_ev": "gga_formation_energy_per_atom_ev",
}


def write_old(folder, *, names=("GGA/GGA+U", "r²SCAN"), kind="mp2020", raw=None, corrections=None):
    """A folder as crossfunc wrote it before columns said what they hold."""
    folder.mkdir()
    pairs = pairs_frame(low_uncorrected_energy_per_atom_ev=raw or [np.nan] * 3).rename(columns=_OLD)
    elements = elements_frame(("gga", "r2scan"), (kind, "raw"))
    files = {}
    for name, table in (("pairs", pairs), ("elements", elements)):
        file = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file)
        files[file.name] = {"sha256": store._sha256(file), "rows": len(table)}
    meta = WORDS | {"functionals": dict(zip(("gga", "r2scan"), names, strict=True)), "files": files}
    meta |= {"corrections": corrections} if corrections else {}
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


def test_an_older_folder_is_refused_with_the_command_that_helps(tmp_path):
    old = write_old(tmp_path / "old")
    with pytest.raises(DatasetError, match=r"bring it up to date with `crossfunc data migrate .*/old`"):
        open_dataset(old)


def test_the_command_brings_an_older_folder_up_to_date_and_keeps_every_number(tmp_path):
    old = write_old(tmp_path / "old", raw=[-1.0, -2.0, -3.1])
    (old / "NOTES.txt").write_text("mine")
    done = CliRunner().invoke(app, ["data", "migrate", str(old)])
    assert done.exit_code == 0, done.output
    assert "low is GGA/GGA+U with MP2020 corrections (gga), high is r²SCAN (r2scan)" in done.output
    dataset = open_dataset(old)
    expected = pairs_frame(low_uncorrected_energy_per_atom_ev=[-1.0, -2.0, -3.1])
    for name in expected:
        assert dataset.pairs[name].tolist() == expected[name].tolist()
    assert (old / "NOTES.txt").read_text() == "mine"
    again = CliRunner().invoke(app, ["data", "migrate", str(old)])
    assert "up to date already" in again.output


def test_imported_raw_energies_become_raw_under_their_own_names(tmp_path):
    old = write_old(
        tmp_path / "old", names=("PBEsol", "HSE06"), kind="raw", raw=[-1.0, -2.0, -3.5], corrections="none: x"
    )
    dataset = migrate_dataset(old).dataset
    assert dataset.meta["functionals"] == HYBRID
    assert "corrections" not in dataset.meta
    assert dataset.pairs["low_energy_per_atom_ev"].tolist() == [-1.0, -2.0, -3.5]
    assert dataset.pairs["low_uncorrected_energy_per_atom_ev"].isna().all()
    assert set(dataset.elements["functional"]) == {"pbesol", "hse06"}


def test_raw_elements_beside_corrected_pairs_do_not_make_the_pairs_raw(tmp_path):
    old = write_old(tmp_path / "old", kind="raw", raw=[-1.0, -2.0, -3.1])
    assert migrate_dataset(old).dataset.functional("low").energy_kind == "mp2020"


@pytest.mark.parametrize("fault", ["one name", "mixed kinds", "edited", "no JSON"])
def test_what_cannot_be_migrated_stays_as_it_was(tmp_path, fault):
    old = write_old(tmp_path / "old", names=("PBE", "PBE") if fault == "one name" else ("PBE", "SCAN"))
    if fault == "edited":
        table = pq.read_table(old / "pairs.parquet")
        pq.write_table(table.slice(0, 2), old / "pairs.parquet")
    if fault == "no JSON":
        (old / "dataset.json").write_text("{")
    if fault == "mixed kinds":
        mixed = elements_frame(("gga", "gga"), ("raw", "mp2020"))
        pq.write_table(pa.Table.from_pandas(mixed, preserve_index=False), old / "elements.parquet")
        meta = json.loads((old / "dataset.json").read_text())
        meta["files"]["elements.parquet"] = {"sha256": store._sha256(old / "elements.parquet"), "rows": 4}
        (old / "dataset.json").write_text(json.dumps(meta))
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    words = {"one name": "different names", "mixed kinds": "several kinds", "edited": "checksum", "no JSON": "JSON"}
    with pytest.raises(DatasetError, match=words[fault]):
        migrate_dataset(old)
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before
    assert [folder.name for folder in tmp_path.iterdir()] == ["old"]


def test_the_embedded_dataset_is_of_today_and_opens_untouched():
    surrogate = xf.open_dataset("surrogate")
    assert surrogate.meta["functionals"] == MP
    assert migrate_dataset(surrogate.path).changed is False


def test_a_migration_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    from crossfunc.datasets import migrate

    old = write_old(tmp_path / "old")
    kept = shutil.copytree(old, tmp_path / "copy")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(migrate, "_replace_folder", full)
    with pytest.raises(OSError, match="No space"):
        migrate_dataset(old)
    assert {f.name: f.read_bytes() for f in old.iterdir()} == {f.name: f.read_bytes() for f in kept.iterdir()}
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["copy", "old"]
