"""Another student than CHGNet: references before training, with a network small enough to know by heart."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from crossfunc.bench import students
from crossfunc.bench.students import METHODS, UNTRAINED, batches_of, differences, mean_errors, read_runs
from crossfunc.errors import InputError


class Linear:
    """Energy per atom: references, and a term in the volume per atom that training can move; forces are zero."""

    name = "linear"

    def __init__(self):
        self.network = nn.ParameterDict({"references": torch.zeros(94), "slope": torch.zeros(1)})
        self.references = self.network["references"]

    def element_rows(self):
        return {z: z - 1 for z in range(1, 95)}

    def inputs(self, frames):
        crystals = frames.crystals
        volumes = np.abs(np.linalg.det(crystals.lattices_a)) / crystals.n_atoms
        return list(zip(volumes, crystals.split(crystals.atomic_numbers), strict=True))

    def outputs(self, inputs):
        volumes = torch.tensor([volume for volume, _ in inputs], dtype=torch.float32)
        elemental = torch.stack([self.references[torch.as_tensor(numbers) - 1].mean() for _, numbers in inputs])
        n_atoms = sum(len(numbers) for _, numbers in inputs)
        forces, stress = torch.zeros(n_atoms, 3), torch.zeros(len(inputs), 3, 3)
        energy = elemental + self.network["slope"] * volumes
        return {"energy_per_atom_ev": energy, "forces_ev_per_a": forces, "stress_gpa": stress}


OPTIONS = {"student": Linear, "n_seeds": 2, "n_steps": 4, "n_train_frames": 64, "n_test_frames": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out, said = tmp_path_factory.mktemp("students"), []
    files = students.run("pbe-r2scan", out, report=said.append, **OPTIONS)
    assert len(files) == len(said) == 2 * len(METHODS)
    return out


def test_references_alone_decide_the_untrained_energies(folder):
    runs = read_runs(folder)
    assert list(runs) == list(METHODS)
    mean = {method: mean_errors(some)["energy"].value for method, some in runs.items()}
    assert mean["untrained"] > 1000  # electronvolts lie between the zeros of the functionals
    assert mean["references only"] < 0.2 * mean["untrained"]
    assert mean["4"] < 0.2 * mean["3"]
    found = differences(runs)
    assert found["4", "3"]["energy"].verdict == "lower"
    assert found["3", "untrained"]["energy"].value == pytest.approx(mean["3"] - mean["untrained"], abs=1e-6)


def test_a_network_that_adds_nothing_gets_the_plain_refit_from_the_model_aware_one():
    from crossfunc.datasets import open_dataset
    from crossfunc.lessons.units import usable_frames
    from crossfunc.training.taught import low_labels

    dataset = open_dataset("pbe-r2scan")
    high = usable_frames(dataset, 4, 64, need_forces=True)
    low, made = low_labels(dataset, high), {}
    for method in ("4", "model-aware", "3"):
        student = Linear()
        students.set_references(student, method, high, low, student.inputs(high))
        energies = students.predict(student, high, student.inputs(high)).energy_per_atom_ev
        made[method] = energies
    assert made["4"] == pytest.approx(made["model-aware"], abs=2e-4)  # float32
    fitted = np.abs(made["3"] - low.energy_per_atom_ev).mean()
    assert fitted < 0.2 * np.abs(made["3"] - high.energy_per_atom_ev).mean()


def test_frozen_references_stay_and_trainable_ones_move():
    from crossfunc.datasets import open_dataset
    from crossfunc.lessons.units import usable_frames

    frames = usable_frames(open_dataset("pbe-r2scan"), 4, 64, need_forces=True)
    options = {"seed": 0, "n_steps": 3, "batch_size": 4, "learning_rate": 1e-3}
    for trains in (False, True):
        student, sizes = Linear(), []
        student.outputs = lambda some: sizes.append(len(some)) or Linear.outputs(student, some)  # noqa: B023
        rows = np.arange(8)
        losses = students.train_student(
            student, frames, student.inputs(frames), rows, trains_references=trains, **options
        )
        assert len(losses) == 3
        assert sizes == [4, 4, 4]
        assert bool(student.references.detach().any()) is trains
        assert student.network["slope"].detach().abs() > 0


def test_a_run_that_is_there_is_not_made_again(folder):
    said, at = [], {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    students.run("pbe-r2scan", folder, report=said.append, **OPTIONS)
    assert all("there already" in line for line in said)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == at


def test_runs_of_other_settings_are_not_mixed(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    one = json.loads((tmp_path / "4-seed0.json").read_text())
    one["settings"]["n_steps"] = 5
    (tmp_path / "4-seed0.json").write_text(json.dumps(one))
    with pytest.raises(InputError, match="different data or settings"):
        read_runs(tmp_path)
    with pytest.raises(InputError, match="no runs of a student; make them with: crossfunc bench students"):
        read_runs(tmp_path / "nowhere")


def test_a_seed_that_is_not_whole_is_left_out(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "3-seed1.json").unlink()
    assert [[one["seed"] for one in some] for some in read_runs(tmp_path).values()] == [[0]] * len(METHODS)
    (tmp_path / "4-seed0.json").unlink()
    with pytest.raises(InputError, match="no seed has a run of every method"):
        read_runs(tmp_path)


def test_every_frame_is_seen_before_any_is_seen_again():
    batches = batches_of(np.array([3, 5, 7, 9]), 2, 4, seed=1)
    assert sorted(np.concatenate(batches[:2])) == sorted(np.concatenate(batches[2:])) == [3, 5, 7, 9]


def test_data_in_one_functional_are_refused(tmp_path):
    from own_files import write_pair

    from crossfunc.datasets.importers.extxyz import Keys, import_extxyz

    _, high = write_pair(tmp_path, {"Li", "O"})
    import_extxyz(None, high, tmp_path / "one", keys=Keys(material_id="material"))
    with pytest.raises(InputError, match="needs the same crystals in both functionals"):
        students.run(str(tmp_path / "one"), tmp_path / "out", **OPTIONS | {"n_train_frames": 4, "n_test_frames": 2})


def test_without_sevennet_it_says_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sevenn", None)
    monkeypatch.setitem(sys.modules, "sevenn.util", None)
    with pytest.raises(InputError, match="pip install sevenn"):
        students.SevenNetStudent()


def test_the_untrained_are_not_trained(folder):
    runs = read_runs(folder)
    for method in METHODS:
        assert all(bool(one["loss"]) is (method not in UNTRAINED) for one in runs[method])
