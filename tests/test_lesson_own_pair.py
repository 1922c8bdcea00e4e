"""What lesson 8 does around one's own files."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_frames import small_frames

from crossfunc.datasets import split_by_material
from crossfunc.datasets.functionals import Functional
from crossfunc.datasets.report import Finding
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


def test_the_report_is_a_table_of_all_findings_those_of_the_labels_last(monkeypatch):
    monkeypatch.setattr(own_pair, "check_dataset", lambda path: SimpleNamespace(findings=[Finding("info", path, "3")]))
    monkeypatch.setattr(own_pair, "open_dataset", lambda path: f"dataset in {path}")
    monkeypatch.setattr(
        "crossfunc.label_checks.add_label_findings",
        lambda report, dataset: report.findings.append(Finding("warning", "stress", dataset)),
    )
    table = own_pair.report_table("mine")
    assert table.data.columns.tolist() == ["level", "what", "finding"]
    assert table.data.to_numpy().tolist() == [["info", "mine", "3"], ["warning", "stress", "dataset in mine"]]
    page = table.to_html()
    assert "text-align: left" in page
    assert "row_heading" not in page


def test_functionals_of_a_dataset_are_named_low_first_with_the_kinds_of_their_energies():
    pair = Functional("low", "GGA/GGA+U", "gga", "mp2020"), Functional("high", "r²SCAN", "r2scan", "raw")
    found = own_pair.names_and_kinds(SimpleNamespace(functionals=pair))
    assert found == (("GGA/GGA+U", "r²SCAN"), ("mp2020", "raw"))


def test_energy_errors_are_those_of_each_model():
    assert own_pair.energy_errors(ERRORS) == {"as it comes": 7000, "new references": 80, "fine-tuned": 60}


@pytest.mark.parametrize("max_atoms", [None, 2])
def test_a_model_is_measured_before_after_new_references_and_after_training(monkeypatch, max_atoms):
    frames, calls = small_frames(80), {}

    def finetune(method, given, **options):
        calls[method] = given, options
        return SimpleNamespace(metrics={"test": f"errors of {method}", "train": None})

    def evaluate(model, given, rows):
        calls["evaluate"] = given, rows
        return f"errors of {model}"

    monkeypatch.setattr(
        "crossfunc.training.LabelledFrames.from_dataset", lambda *asked: {("folder", "high"): frames}[asked]
    )
    monkeypatch.setattr("crossfunc.training.finetune", finetune)
    monkeypatch.setattr("crossfunc.training.evaluate", evaluate)
    monkeypatch.setattr("crossfunc.potential.load_model", lambda name: f"loaded {name}")
    settings = {"seed": 3, "batch_size": 4}
    run, errors = own_pair.tune("folder", "run", n_epochs=2, pretrained="0.3.0", max_atoms=max_atoms, **settings)
    assert run.metrics["test"] == "errors of 4"
    assert errors == {
        "as it comes": "errors of loaded 0.3.0",
        "new references": "errors of references-only",
        "fine-tuned": "errors of 4",
    }
    (used, options), (same, of_references), (judged, rows) = (calls[k] for k in ("4", "references-only", "evaluate"))
    assert used is same is judged
    small = frames.crystals.n_atoms <= (max_atoms or 4)
    assert used.frame_ids.tolist() == frames.frame_ids[small].tolist()
    split = options.pop("split")
    assert np.array_equal(split["test"], rows)
    assert not set(used.material_ids[split["train"]]) & set(used.material_ids[rows])
    other = split_by_material(used.material_ids, seed=3)
    assert all(np.array_equal(split[part], other[part]) for part in split)
    plain = settings | {"pretrained": "0.3.0", "progress": False}
    assert options == plain | {"out": "run", "n_epochs": 2}
    assert of_references.pop("split") is split
    assert of_references == plain
    assert settings == {"seed": 3, "batch_size": 4}
