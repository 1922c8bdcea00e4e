"""What methods are worth in the target beyond their training frames: which frames those are, errors, and volumes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import crossfunc as xf
from crossfunc.bootstrap import Estimate
from crossfunc.lessons import LessonResults, forgetting
from crossfunc.lessons.beyond import (
    Beyond,
    JudgedBeyond,
    equations_of_state,
    find_beyond,
    volume_errors,
    volume_series,
)
from crossfunc.potential import Crystals
from crossfunc.potential.recorded import RecordedModel, crystal_keys
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.source import SourceSplit, join_frames
from crossfunc.units import EV_PER_A3_TO_GPA


def frames_of(cells, *, forces=0.0):
    """Frames of (material, elements, edges in Å, displacement), with energy and stress of a spring in the volume."""
    numbers, lattices, coords, ids = [], [], [], []
    for material, elements, edges, shift in cells:
        numbers.append(elements)
        lattices.append(np.diag(edges))
        coords.append(np.array([[0, 0, 0], [0.5 + shift, 0.5, 0.5]]))
        ids.append(material)
    crystals = Crystals.from_arrays(zip(numbers, coords, lattices, strict=True))
    n = len(cells)
    energy, stress = spring(np.abs(np.linalg.det(crystals.lattices_a)), 40.0)
    return LabelledFrames(
        crystals,
        energy / 2,
        np.full((2 * n, 3), forces, dtype=np.float32),
        stress.astype(np.float32),
        np.full(2 * n, np.nan, dtype=np.float32),
        np.array([f"{material}/{k}" for k, material in enumerate(ids)]),
        np.array(ids),
    )


def spring(volumes, at_rest, stiffness=0.02):
    """Energy in eV and stress in GPa of a cell whose energy is a parabola in its volume."""
    pressure = -stiffness * (volumes - at_rest) * EV_PER_A3_TO_GPA
    return stiffness / 2 * (volumes - at_rest) ** 2, -pressure[:, None, None] * np.eye(3)


def answering(frames, energy, stress, forces=0.0):
    """A model that gives these answers for the frames."""
    n = len(frames)
    outputs = {
        "energy_per_atom_ev": energy / 2,
        "stress_gpa": stress,
        "forces_ev_per_a": np.full((2 * n, 3), forces),
        "magmoms_mub": np.full(2 * n, np.nan),
    }
    return RecordedModel(
        "a model", crystal_keys(frames.crystals), outputs, frames.crystals.n_atoms, np.zeros(xf.symbols.N_ELEMENTS)
    )


CUBES = [("A", (3, 9), (edge,) * 3, 0.0) for edge in (3.35, 3.42, 3.5)]


def test_a_series_is_one_cell_at_three_volumes_at_least():
    others = [
        ("A", (3, 9), (3.4, 3.5, 3.6), 0.0),  # another shape
        ("A", (3, 9), (3.6,) * 3, 0.01),  # displaced
        ("A", (3, 11), (3.6,) * 3, 0.0),  # other elements in the same cell
        ("B", (3, 9), (3.3,) * 3, 0.0),
        ("B", (3, 9), (3.5,) * 3, 0.0),
        ("B", (3, 9), (3.5,) * 3, 0.0),  # the same volume once more makes no third one
    ]
    frames = frames_of([*others[:3], *CUBES, *others[3:]])
    series = volume_series(frames, ["A", "B", "C"])
    assert {material: rows.tolist() for material, rows in series.items()} == {"A": [3, 4, 5]}
    no_stress = replace(frames, stress_gpa=np.full_like(frames.stress_gpa, np.nan))
    assert volume_series(no_stress, ["A"]) == {}


def test_deviations_are_those_of_the_two_fits_and_none_where_the_model_is_the_labels():
    frames = frames_of(CUBES)
    volumes = np.linalg.det(frames.crystals.lattices_a)
    same = volume_errors(answering(frames, *spring(volumes, 40.0)), frames)
    assert same.loc["A"].to_numpy() == pytest.approx([0, 0], abs=0.05)
    larger = volume_errors(answering(frames, *spring(volumes, 41.0)), frames).loc["A"]
    assert larger["volume"] == pytest.approx(2.5, abs=0.1)  # 41 against 40
    softer = volume_errors(answering(frames, *spring(volumes, 40.0, 0.01)), frames).loc["A"]
    assert softer["bulk"] == pytest.approx(-50, abs=2)
    assert softer["volume"] == pytest.approx(0, abs=0.1)


def falling(volumes):
    """Energy and stress of a cell that only wants to grow."""
    return spring(volumes, 400.0)


def test_a_minimum_that_is_not_between_the_volumes_is_none_of_labels_or_model():
    frames = frames_of([*CUBES, *[("B", *cube[1:3], 0.01) for cube in CUBES]])
    volumes = np.linalg.det(frames.crystals.lattices_a)
    (energy, stress), (wide_energy, wide_stress) = spring(volumes, 41.0), falling(volumes)
    is_b = frames.material_ids == "B"
    mixed = np.where(is_b, wide_energy, energy), np.where(is_b[:, None, None], wide_stress, stress)
    found = equations_of_state(frames, mixed[0] / 2, mixed[1])
    assert found.loc["A", "volume"] == pytest.approx(41, abs=0.1)
    assert found.loc["B"].isna().all()
    of_model = volume_errors(answering(frames, *mixed), frames)
    assert of_model.loc["A", "volume"] == pytest.approx(2.5, abs=0.1)
    assert of_model.loc["B"].isna().all()
    labels = replace(frames, energy_per_atom_ev=mixed[0] / 2, stress_gpa=mixed[1].astype(np.float32))
    of_labels = volume_errors(answering(frames, energy, stress), labels)
    assert of_labels.index.tolist() == ["A"]
    assert of_labels.loc["A"].to_numpy() == pytest.approx([0, 0], abs=0.05)


def test_frames_beyond_training_are_of_no_material_by_which_the_epoch_was_chosen():
    cells = [
        ("train", (3, 9), (3.45,) * 3, 0.02),
        ("watched", (3, 9), (3.4,) * 3, 0.0),
        ("watched", (3, 9), (3.0,) * 3, 0.1),
        ("test", (3, 9), (3.2,) * 3, 0.0),
        ("test", (3, 9), (3.0,) * 3, 0.1),
        *(("falls", *cube[1:]) for cube in CUBES),
    ]
    every = frames_of(cells)
    energy, stress = falling(np.linalg.det(every.crystals.lattices_a))
    falls = every.material_ids == "falls"
    every = replace(
        every,
        energy_per_atom_ev=np.where(falls, energy / 2, every.energy_per_atom_ev),
        stress_gpa=np.where(falls[:, None, None], stress, every.stress_gpa).astype(np.float32),
    )
    target = every.take(np.array([0, 1, 3, 5]))
    split = {"train": np.array([0]), "validation": np.array([1]), "test": np.array([2, 3])}
    origin = SourceSplit(every.take(np.array([0])), {"far from equilibrium": every.take(np.array([2, 4]))}, "pbe")
    found = find_beyond(every, target, {0: split}, {0: origin})
    assert found.frames.frame_ids[found.splits[0]["test"]].tolist() == ["test/4"]
    assert not found.has_volumes  # labels that only fall have no volume


def test_frames_beyond_training_are_of_no_training_material_and_of_elements_that_it_knows():
    every = frames_of(
        [
            *CUBES,
            ("train", (3, 9), (3.45,) * 3, 0.02),
            ("new", (3, 9), (3.0, 3.5, 4.0), 0.0),
            ("unknown", (3, 17), (3.0, 3.5, 4.0), 0.0),
            ("train", (3, 9), (3.1,) * 3, 0.1),
            ("unlabelled", (3, 9), (3.1, 3.5, 3.9), 0.0),
        ]
    )
    energies = every.energy_per_atom_ev.copy()
    energies[7] = np.nan
    every = replace(every, energy_per_atom_ev=energies)
    target = every.take(np.array([0, 1, 2, 3]))
    split = {"train": np.array([3]), "validation": np.array([0]), "test": np.array([1])}
    elsewhere = frames_of([("new", (3, 9), (2.0, 3.5, 4.0), 0.0)])  # a crystal that the target does not label
    held_out = {
        "held-out materials": every.take(np.array([0])),
        "other prototype": every.take(np.array([4, 5, 7])),
        "other chemistry": elsewhere,
        "far from equilibrium": every.take(np.array([4, 6])),
    }
    origin = SourceSplit(every.take(np.array([3])), held_out, "pbe")
    found = find_beyond(every, target, {5: split}, {5: origin})
    of_seed = {part: found.frames.frame_ids[rows].tolist() for part, rows in found.splits[5].items()}
    assert of_seed == {"train": ["train/3"], "test": ["new/4"], "volumes": ["A/0", "A/1", "A/2"]}
    assert sorted(found.of_seed(5).frame_ids) == ["A/0", "A/1", "A/2", "new/4"]
    assert found.has_far
    assert found.has_volumes
    nothing = find_beyond(every, target, {5: split | {"test": np.array([3])}}, {5: replace(origin, held_out={})})
    assert not nothing.has_far
    assert not nothing.has_volumes
    assert nothing.of_seed(5) is None


@pytest.fixture(scope="module")
def judged_frames():
    """One training frame, six materials beyond it with forces of 0.1 eV/Å, and a material at three volumes."""
    far = [(f"far {k}", (3, 9), (3.2 + 0.01 * k, 3.5, 3.9), 0.0) for k in range(6)]
    frames = frames_of([("train", (3, 9), (3.45,) * 3, 0.02), *far, *CUBES], forces=0.1)
    split = {"train": np.array([0]), "test": np.arange(1, 7), "volumes": np.arange(7, 10)}
    return Beyond(frames, {0: split})


@pytest.fixture(scope="module")
def learned(judged_frames):
    """Models whose energies are off by 10, 30 and 5 meV/atom and whose forces are half, a tenth and nine tenths."""
    frames = judged_frames.frames
    volumes = np.abs(np.linalg.det(frames.crystals.lattices_a))
    energy, stress = spring(volumes, 40.0)
    at_volumes = np.arange(len(frames)) >= 7
    wide_energy, wide_stress = spring(volumes, 41.0)
    larger = np.where(at_volumes, wide_energy, energy + 0.01), np.where(at_volumes[:, None, None], wide_stress, stress)
    models = {
        ("pretrained", 0): answering(frames, energy + 0.02, stress, 0.05),
        ("3", 0): answering(frames, energy + 0.06, stress, 0.01),
        ("replay", 0): answering(frames, *larger, 0.09),
    }
    of = SimpleNamespace(beyond=JudgedBeyond(judged_frames, models), splits=judged_frames.splits)
    return SimpleNamespace(**vars(of), methods=["3", "replay"])


def test_the_table_holds_means_slopes_and_deviations_by_method(learned):
    table = learned.beyond.table()
    assert list(table.index) == ["pretrained", "3", "replay"]
    assert table["energy"].tolist() == pytest.approx([10, 30, 5])
    assert table["force"].tolist() == pytest.approx([50, 90, 10], rel=1e-3)
    assert table["slope"].tolist() == pytest.approx([0.5, 0.1, 0.9], rel=1e-3)
    assert table.loc["pretrained", ["volume", "bulk"]].tolist() == pytest.approx([0, 0], abs=0.1)
    assert table.loc["replay", "volume"] == pytest.approx(2.5, abs=0.1)  # at rest at 41, and not at 40 Å³
    assert learned.beyond.difference("energy", "replay", "pretrained").value == pytest.approx(-5)


def test_what_is_recorded_is_the_difference_from_no_training_and_its_verdict_is_shown(learned, tmp_path):
    results = LessonResults("09_what_is_forgotten", tmp_path)
    shown = forgetting.record_beyond(results, learned)
    rows = {row["key"]: row["value"] for row in results.to_dict()["results"]}
    intervals = {row["key"]: row["interval"] for row in results.to_dict()["results"]}
    assert set(rows) == {
        *(f"beyond_{what}_{key}_minus_pretrained" for what in ("energy", "force") for key in ("3", "replay")),
        *(f"volume_{key}" for key in ("pretrained", "3", "replay")),
    }
    assert rows["beyond_energy_3_minus_pretrained"] == pytest.approx(20)
    assert intervals["volume_replay"] is None  # one seed has no range
    assert rows["beyond_force_replay_minus_pretrained"] == pytest.approx(-40, rel=1e-3)
    assert shown.loc["Method 3", "energy (meV/atom)"] == "30 (worse)"
    assert shown.loc["replay", "force (meV/Å)"] == "10 (better)"
    assert shown.loc["pretrained, not trained", "energy (meV/atom)"] == "10"
    assert shown.loc["replay", "slope of forces"] == "0.90"
    kept = pd.read_csv(tmp_path / "09_what_is_forgotten.beyond.csv", index_col="method")
    assert kept.loc["3", "energy"] == pytest.approx(30)


def test_what_is_said_is_who_is_better_and_who_has_forgotten(learned):
    energy, force = forgetting.beyond_in_words(learned).splitlines()
    assert "better than no training: replay; clearly worse, so that something was forgotten: Method 3." in energy
    assert force.startswith("- **Force**: clearly better than no training: replay; clearly worse")


def test_data_without_such_frames_have_nothing_to_say(judged_frames):
    split = {"train": np.array([0]), "test": np.array([], int), "volumes": np.array([], int)}
    beyond = replace(judged_frames, splits={0: split})
    model = answering(judged_frames.frames, *spring(np.full(10, 40.0), 40.0))
    judged = JudgedBeyond(beyond, {("pretrained", 0): model, ("3", 0): model})
    learned = SimpleNamespace(beyond=judged, splits=beyond.splits, methods=["3"])
    results = LessonResults("09_what_is_forgotten")
    shown = forgetting.record_beyond(results, learned)
    assert set(shown.to_numpy().ravel()) == {"–"}
    assert results.to_dict()["results"] == []
    assert "nothing to tell" in forgetting.beyond_in_words(learned)
    assert forgetting.record_beyond(results, SimpleNamespace(beyond=None)).empty
    assert isinstance(forgetting.NOTHING, Estimate)


def test_a_deviation_of_volumes_has_a_range_over_seeds(judged_frames):
    beyond = replace(judged_frames, splits={0: judged_frames.splits[0], 1: judged_frames.splits[0]})
    volumes = np.abs(np.linalg.det(beyond.frames.crystals.lattices_a))
    off = {0: answering(beyond.frames, *spring(volumes, 41.0)), 1: answering(beyond.frames, *spring(volumes, 41.5))}
    judged = JudgedBeyond(beyond, {(method, seed): off[seed] for method in ("pretrained", "3") for seed in (0, 1)})
    results = LessonResults("09_what_is_forgotten")
    forgetting.record_beyond(results, SimpleNamespace(beyond=judged, splits=beyond.splits, methods=["3"]))
    (row,) = [row for row in results.to_dict()["results"] if row["key"] == "volume_3"]
    assert row["interval"] == pytest.approx((2.5, 3.75), abs=0.1)
    assert row["value"] == pytest.approx(np.mean(row["interval"]))
    assert row["note"].endswith("of 2 seeds; 2 of 2 fits have a minimum between the volumes and count")


def test_a_models_fits_without_a_minimum_are_left_out_and_counted(judged_frames):
    cubes = frames_of([("B", *cube[1:3], 0.01) for cube in CUBES], forces=0.1)
    frames = join_frames(judged_frames.frames, cubes)
    beyond = Beyond(frames, {0: judged_frames.splits[0] | {"volumes": np.arange(7, 13)}})
    volumes = np.abs(np.linalg.det(frames.crystals.lattices_a))
    (energy, stress), (wide_energy, wide_stress) = spring(volumes, 41.0), falling(volumes)
    is_b = frames.material_ids == "B"
    half = np.where(is_b, wide_energy, energy), np.where(is_b[:, None, None], wide_stress, stress)
    models = {("pretrained", 0): (energy, stress), ("3", 0): half, ("replay", 0): falling(volumes)}
    judged = JudgedBeyond(beyond, {case: answering(frames, *answers) for case, answers in models.items()})
    assert judged.count_fits().to_numpy().tolist() == [[2, 2], [1, 2], [0, 2]]
    results = LessonResults("09_what_is_forgotten")
    learned = SimpleNamespace(beyond=judged, splits=beyond.splits, methods=["3", "replay"])
    shown = forgetting.record_beyond(results, learned)["volume (%)"]
    assert shown.tolist() == ["2.5", "2.5 (1 of 2 fits)", "–"]
    notes = {row["key"]: row["note"] for row in results.to_dict()["results"] if row["key"].startswith("volume_")}
    assert set(notes) == {"volume_pretrained", "volume_3"}
    assert "1 of 2 fits" in notes["volume_3"]
