"""What lesson 8 does around one's own files."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from crossfunc.lessons import LessonResults, own_pair

ROW = {
    "atomic_numbers": [26, 8],
    "lattice_a": np.diag([2.0, 3.0, 4.0]).ravel(),
    "frac_coords": [0, 0, 0, 0.5, 0.5, 0.5],
    "material_id": "feo",
    "energy_per_atom_ev": -7.0,
    "forces_ev_per_a": [0.1, 0, 0, -0.1, 0, 0],
    "stress_gpa": [1.0, 6.0, 5.0, 6.0, 2.0, 4.0, 5.0, 4.0, 3.0],
    "magmoms_mub": [3.5, 0.0],
}
ERRORS = {
    model: {"energy_mae_mev_per_atom": e, "force_mae_mev_per_a": 85.4, "stress_mae_gpa": None, "magmom_mae_mub": np.nan}
    for model, e in (("as it comes", 7000.0), ("new references", 80.0), ("fine-tuned", 60.0))
}


def test_a_frame_becomes_atoms_with_the_total_energy_and_the_stress_in_voigt_order():
    atoms = own_pair.to_ase(ROW)
    assert atoms.get_chemical_formula() == "FeO"
    assert atoms.get_potential_energy() == -14.0
    assert atoms.get_stress() == pytest.approx(np.array([1, 2, 3, 4, 5, 6]) / 160.21766208)  # xx yy zz yz xz xy
    assert atoms.info["material"] == "feo"


def test_a_frame_with_an_energy_alone_has_no_other_label():
    atoms = own_pair.to_ase(ROW | {"forces_ev_per_a": None, "stress_gpa": None, "magmoms_mub": None})
    assert set(atoms.calc.results) == {"energy"}


def test_errors_are_a_table_of_text_with_dashes_where_nothing_is_labelled():
    table = own_pair.error_table(ERRORS)
    assert table.loc["as it comes"].tolist() == ["7,000", "85", "–", "–"]
    assert table.columns[1] == "force (meV/Å)"


def test_only_errors_with_a_label_are_recorded():
    results = LessonResults("08_own_pair")
    own_pair.record_errors(results, ERRORS, pretrained="0.3.0", n_epochs=2, n_train=54)
    found = {r["key"]: r["note"] for r in results.to_dict()["results"]}
    assert found["energy_mae_as_it_comes"] == "checkpoint 0.3.0"
    assert found["force_mae_fine_tuned"] == "2 epochs, 54 frames"
    assert not any(key.startswith("stress") for key in found)
    own_pair.record_fluorides(results, ERRORS, {"train": 21, "validation": 3, "test": 7})
    assert results.to_dict()["results"][-1]["note"] == "21 training and 7 test frames; r²SCAN, DFT"


def test_published_errors_are_means_over_frames_and_over_materials():
    frames = type("Frames", (), {"__len__": lambda _: 3, "material_ids": np.array(["a", "a", "b"])})()
    pairs = lambda _: (np.array([0.0, 0.0, 0.0]), np.array([0.010, 0.020, 0.060]))  # noqa: E731
    published = {"energy_mae_mev_per_atom": 30.0, "predictions": SimpleNamespace(frames=frames, pairs=pairs)}
    results = LessonResults("08_own_pair")
    assert own_pair.record_published(results, published) == (30.0, pytest.approx(37.5))  # (15 + 60) / 2
    assert results.to_dict()["results"][0]["note"] == "3 frames of 2 materials"


def test_stages_in_words():
    assert own_pair.in_words({"mine": {"a": 7000.4, "b": 80.0}}) == "mine 7000, 80"


def test_practice_files_hold_the_chosen_elements_one_file_per_functional(tmp_path):
    from ase.io import read

    from crossfunc.datasets import open_dataset

    files = own_pair.practice_files(open_dataset("surrogate"), tmp_path, ["Li", "O"])
    assert set(files) == {"low", "high"}
    for file in files.values():
        frames = read(file, ":")
        assert frames
        assert {s for atoms in frames for s in atoms.get_chemical_symbols()} <= {"Li", "O"}
    assert isinstance(own_pair.error_table(ERRORS), pd.DataFrame)
