"""Inputs that once went wrong without a word, with the values that are right; skipped where they are not at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import open_dataset
from crossfunc.potential.calculator import CHGNetCalculator

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cases():
    """Folder with the files of these cases: CROSSFUNC_CASES, or ../shared/cases beside the checkout."""
    for folder in filter(None, (os.environ.get("CROSSFUNC_CASES"), ROOT.parent / "shared" / "cases")):
        if (Path(folder) / "nep_train.xyz").is_file():
            return Path(folder)
    pytest.skip("cases from use: set CROSSFUNC_CASES to a folder with nep_train.xyz")


def call(*words, status=0):
    called = CliRunner().invoke(app, [str(word) for word in words])
    assert called.exit_code == status, (called.output, called.exception)
    assert called.exception is None or isinstance(called.exception, SystemExit)
    return " ".join(called.output.split())


def import_(tmp_path, low, high, *options, status=0):
    return call("data", "import", "extxyz", low, high, "--out", tmp_path / "o", *options, status=status)


def test_labels_of_a_nep_file_are_named_before_anything_is_written(cases, tmp_path):
    said = import_(tmp_path, "-", cases / "nep_train.xyz", status=1)
    for words in ("force", "virial", "--forces-key force", "--stress-key virial", "--leave-out"):
        assert words in said
    assert not (tmp_path / "o").exists()


def test_a_virial_is_no_stress_and_is_read_as_what_it_is(cases, tmp_path):
    keys = ("--forces-key", "force", "--stress-key", "virial")
    said = import_(tmp_path, "-", cases / "nep_train.xyz", *keys, status=1)
    assert "virial" in said
    assert "--stress-unit ev-virial" in said
    assert not (tmp_path / "o").exists()
    import_(tmp_path, "-", cases / "nep_train.xyz", *keys, "--stress-unit", "ev-virial")
    import ase.io

    frames = open_dataset(tmp_path / "o").frames
    given = ase.io.read(cases / "nep_train.xyz", ":")
    assert frames.num_rows == len(given) == 48
    by_energy = {round(e, 6): k for k, e in enumerate(frames["energy_per_atom_ev"].to_pylist())}
    for atoms in given:
        row = by_energy[round(atoms.get_potential_energy() / len(atoms), 6)]
        stress = np.reshape(frames["stress_gpa"][row].as_py(), (3, 3))
        right = -np.reshape(atoms.info["virial"], (3, 3)) / atoms.get_volume() / ase.units.GPa
        np.testing.assert_allclose(stress, right, rtol=1e-6, atol=1e-6)
        forces = np.reshape(frames["forces_ev_per_a"][row].as_py(), (-1, 3))
        np.testing.assert_allclose(forces, atoms.arrays["force"], rtol=1e-6, atol=1e-6)


def test_isolated_atoms_are_no_ground_states(cases, tmp_path):
    said = import_(tmp_path, cases / "isolated_low.xyz", cases / "isolated_high.xyz")
    assert "isolated" in said
    pairs = open_dataset(tmp_path / "o").pairs
    assert pairs["composition"].tolist() == ["Li1F1"]
    assert pairs[["low_energy_per_atom_ev", "high_energy_per_atom_ev"]].to_numpy().tolist() == [[-4.85, -9.85]]
    assert pairs.filter(like="formation").isna().all(axis=None)
    assert "no entry of the element" in call("hull", tmp_path / "o", status=1)


def test_an_id_of_two_numbers_is_its_text(cases, tmp_path):
    import_(tmp_path, "-", cases / "material_array.xyz", "--material-key", "material", "--no-check")
    assert open_dataset(tmp_path / "o").frames["material_id"].to_pylist() == ["225 1", "225 2"]


def test_ids_with_underscores_are_not_numbers(cases, tmp_path):
    files = (cases / "underscore_low.xyz", cases / "underscore_high.xyz")
    import_(tmp_path, *files, "--material-key", "material", "--no-check")
    pairs = open_dataset(tmp_path / "o").pairs.set_index("material_id")
    assert pairs["low_energy_per_atom_ev"].to_dict() == {"1_10": -4.85, "11_0": -6.0}


def test_a_key_of_different_compositions_is_refused_with_both(cases, tmp_path):
    files = (cases / "config_low.xyz", cases / "config_high.xyz")
    said = import_(tmp_path, *files, "--material-key", "config_type", "--no-check", status=1)
    assert "NaCl" in said
    assert "MgO" in said


def test_what_stands_after_p_reaches_the_lesson_whole(tmp_path):
    from crossfunc.overrides import parse_overrides

    assert parse_overrides(["high_name=PBEsol #2"]) == {"high_name": "PBEsol #2"}


def test_a_split_of_one_material_is_a_sentence(cases, tmp_path):
    import_(tmp_path, "-", cases / "one_material.xyz", "--no-check")
    words = ("--dataset", tmp_path / "o", "--epochs", "1", "--out", tmp_path / "r")
    said = "1 material: too few for a"
    assert call("finetune", "--method", "4", *words, status=1).startswith(f"error: {said}")
    by_split = ("--dataset", tmp_path / "o", "--by-split")
    assert call("evaluate", "--model", "r2scan", *by_split, status=1).startswith(f"error: {said}")


def test_sodium_nitride_is_a_compound(cases):
    rows = json.loads(call("hull", cases / "nan_formula.csv", "--json"))
    above_hull = {row["formula"]: row["e_above_hull_ev_per_atom"] for row in rows}
    assert above_hull["NaN"] == pytest.approx(2 / 15)  # 0.1333 eV/atom


def test_a_pointer_of_a_large_file_store_is_said_to_be_one(cases):
    said = call("evaluate", "--model", cases / "lfs_pointer.pth.tar", "--dataset", "surrogate", status=1)
    assert "pointer of a large-file store" in said
    assert "git lfs pull" in said
    assert "weights_only" not in said


def test_moments_of_three_numbers_have_a_way_out(cases, tmp_path):
    said = import_(tmp_path, "-", cases / "noncollinear.xyz", "--no-check", status=1)
    assert "--moments length" in said
    import_(tmp_path, "-", cases / "noncollinear.xyz", "--no-check", "--moments", "length")
    for row in open_dataset(tmp_path / "o").frames["magmoms_mub"].to_pylist():
        np.testing.assert_allclose(row, np.sqrt(0.1**2 + 0.2**2 + 2.2**2), rtol=1e-6)  # Bohr magnetons


@pytest.mark.parametrize("symbol", ["Am", "Og", "X"])
def test_an_element_beyond_the_model_is_named(symbol):
    from ase import Atoms

    from crossfunc.potential import load_model, predict

    atoms = Atoms([symbol, "Li"], scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3] * 3, pbc=True)
    with pytest.raises(ValueError, match="atom 0") as caught:
        predict(load_model("0.3.0"), [atoms])
    assert type(caught.value).__module__.startswith("crossfunc.")
    with pytest.raises(ValueError, match="no atoms"):
        predict(load_model("0.3.0"), [Atoms(cell=[3] * 3, pbc=True)])
    with pytest.raises(ValueError, match="atom 0"):
        CHGNetCalculator(load_model("0.3.0")).get_potential_energy(atoms)


def test_a_kind_that_is_not_stated_has_its_option_named(tmp_path):
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    entries = [
        ComputedEntry(Composition("Li"), -1.9, parameters={"run_type": "GGA"}, entry_id="a"),
        ComputedEntry(Composition("O2"), -9.8, parameters={"run_type": "GGA"}, correction=-0.6, entry_id="b"),
        ComputedEntry(Composition("Li2O"), -14.2, parameters={"run_type": "GGA"}, correction=-0.6, entry_id="c"),
    ]
    (tmp_path / "e.json").write_text(json.dumps([entry.as_dict() for entry in entries]))
    assert "--energy-kind" in call("hull", tmp_path / "e.json", status=1)
    call("hull", tmp_path / "e.json", "--energy-kind", "mp2020")


def test_raw_energies_are_not_taken_for_corrected_ones(cases, tmp_path):
    files = (cases / "underscore_low.xyz", cases / "underscore_high.xyz")
    names = ("--low-name", "PBEsol", "--high-name", "HSE06", "--material-key", "material")
    import_(tmp_path, *files, *names, "--no-check")
    low = open_dataset(tmp_path / "o").functional("low")
    assert (low.name, low.energy_kind) == ("PBEsol", "raw")
    assert "raw" in call("hull", tmp_path / "o", "--functional", "low", "--energy-kind", "mp2020", status=1)
