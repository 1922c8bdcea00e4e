"""Frames with labels in flat arrays: read as they are stored, NaN where nothing is stored."""

import numpy as np
import pyarrow as pa
import pytest
from small_frames import small_frames

import crossfunc as xf
from crossfunc.datasets import DatasetError, describe_functionals, open_dataset, write_dataset
from crossfunc.potential import Crystals
from crossfunc.potential.crystals import CrystalError
from crossfunc.training import labels
from crossfunc.training.evaluate import EvaluationError
from crossfunc.training.inputs import read_split
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.settings import Settings, SettingsError

META = {
    "name": "two",
    "version": "1",
    "licence": "CC0",
    "citation": "none",
    "provenance": "made up",
    "functionals": describe_functionals("GGA", "r²SCAN"),
    "label_notice": "made up, not DFT",
}


def frames_table(**changed):
    """Two r2SCAN frames (He, then MgO with all labels) with one GGA frame between them."""
    columns = {
        "frame_id": ["he", "gga-he", "mgo"],
        "material_id": ["m1", "m1", "m2"],
        "functional": ["r2scan", "gga", "r2scan"],
        "energy_kind": ["raw", "mp2020", "raw"],
        "atomic_numbers": pa.array([[2], [2], [12, 8]], pa.list_(pa.int16())),
        "lattice_a": [[4.0, 0, 0, 0, 4, 0, 0, 0, 4], [5.0, 0, 0, 0, 5, 0, 0, 0, 5], [3.0, 0, 0, 0, 3, 0, 0, 0, 3]],
        "frac_coords": [[0.0, 0, 0], [0.0, 0, 0], [0.0, 0, 0, 0.5, 0.5, 0.5]],
        "energy_per_atom_ev": [-1.0, -2.0, -6.0],
        "forces_ev_per_a": [None, None, [0.1, 0.2, 0.3, -0.1, -0.2, -0.3]],
        "stress_gpa": [None, [0.0] * 9, [1.0, 2, 3, 4, 5, 6, 7, 8, 9]],
        "magmoms_mub": [[0.5], None, [-1.5, 0.0]],
        "source": ["test"] * 3,
    }
    return pa.table(columns | changed)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "two", meta=META, frames=frames_table())


def test_labels_are_those_of_the_table_and_nan_where_it_has_none(dataset):
    frames = LabelledFrames.from_dataset(dataset)
    assert list(frames.frame_ids) == ["he", "mgo"]
    assert list(frames.material_ids) == ["m1", "m2"]
    np.testing.assert_array_equal(frames.crystals.atomic_numbers, [2, 12, 8])
    np.testing.assert_array_equal(frames.crystals.lattices_a[1], 3 * np.eye(3))
    np.testing.assert_array_equal(frames.energy_per_atom_ev, [-1, -6])
    assert np.isnan(frames.forces_ev_per_a[0]).all()
    np.testing.assert_array_equal(frames.forces_ev_per_a[2], np.float32([-0.1, -0.2, -0.3]))
    assert np.isnan(frames.stress_gpa[0]).all()
    np.testing.assert_array_equal(frames.stress_gpa[1], np.arange(1, 10).reshape(3, 3))
    np.testing.assert_array_equal(frames.magmoms_mub, [0.5, -1.5, 0.0])


def test_label_counts_say_how_many_numbers_each_frame_has(dataset):
    frames = LabelledFrames.from_dataset(dataset)
    counts = {target: list(frames.label_counts[target]) for target in TARGETS}
    assert counts == {"energy": [1, 1], "forces": [0, 6], "stress": [0, 9], "magmoms": [1, 2]}
    assert list(frames.labelled("forces")) == [False, True]
    with pytest.raises(ValueError, match="target 'force': choose one of energy, forces, stress, magmoms"):
        frames.labelled("force")


def test_a_table_in_memory_and_its_file_give_the_same_frames_in_any_number_of_batches(tmp_path, dataset, monkeypatch):
    from_file = LabelledFrames.from_dataset(dataset)
    held = open_dataset(tmp_path / "two")
    assert held.frames.num_rows == 3  # now it is in memory
    monkeypatch.setattr(labels, "_BATCH_ROWS", 1)
    for other in (LabelledFrames.from_dataset(held), LabelledFrames.from_dataset(open_dataset(tmp_path / "two"))):
        assert other.fingerprint() == from_file.fingerprint()


def test_the_embedded_dataset_is_read_as_its_table_says():
    dataset = open_dataset("surrogate")
    frames = LabelledFrames.from_dataset(dataset)
    rows = dataset.frames.filter(pa.compute.equal(dataset.frames["functional"], "r2scan")).to_pylist()
    assert len(frames) == len(rows)
    for k in np.random.default_rng(0).integers(len(rows), size=50):
        one, row = frames.take([k]), rows[k]
        assert one.frame_ids[0] == row["frame_id"]
        np.testing.assert_array_equal(one.crystals.frac_coords.ravel(), row["frac_coords"])
        for values, name in (
            (one.forces_ev_per_a, "forces_ev_per_a"),
            (one.stress_gpa, "stress_gpa"),
            (one.magmoms_mub, "magmoms_mub"),
        ):
            stored = np.full(values.size, np.nan) if row[name] is None else row[name]
            np.testing.assert_array_equal(values.ravel(), np.float32(stored))


def test_taking_frames_takes_their_atoms_along(dataset):
    frames = LabelledFrames.from_dataset(dataset).take([1, 0, 1])
    assert list(frames.frame_ids) == ["mgo", "he", "mgo"]
    np.testing.assert_array_equal(frames.crystals.atomic_numbers, [12, 8, 2, 12, 8])
    np.testing.assert_array_equal(frames.magmoms_mub, [-1.5, 0.0, 0.5, -1.5, 0.0])
    np.testing.assert_allclose(frames.composition.toarray()[:, [1, 7, 11]], [[0, 0.5, 0.5], [1, 0, 0], [0, 0.5, 0.5]])
    assert frames.elements() == ("He", "O", "Mg")
    assert list(frames.frames_with("O")) == [0, 2]
    assert len(frames.take([])) == 0


def test_the_fingerprint_sees_a_changed_label_and_a_changed_order(dataset):
    frames = LabelledFrames.from_dataset(dataset)
    prints = {frames.fingerprint(), frames.take([1, 0]).fingerprint(), frames.take([0]).fingerprint()}
    moved = frames.take([0, 1])
    assert moved.fingerprint() in prints
    moved.magmoms_mub[0] = 0.6
    assert len(prints | {moved.fingerprint()}) == 4


def test_rows_restrict_what_is_read(dataset):
    assert list(LabelledFrames.from_dataset(dataset, rows=[2]).frame_ids) == ["mgo"]
    assert list(LabelledFrames.from_dataset(dataset, rows=np.array([True, True, False])).frame_ids) == ["he"]
    with pytest.raises(DatasetError, match="none of the 1 rows given is a 'r2scan' frame"):
        LabelledFrames.from_dataset(dataset, rows=[1])


def test_a_dataset_without_frames_of_the_functional_says_what_it_has(tmp_path, dataset):
    with pytest.raises(DatasetError, match=r"no functional 'pbe'; it has gga \(low: GGA\) and r2scan \(high: r²SCAN\)"):
        LabelledFrames.from_dataset(dataset, "pbe")
    import pandas as pd

    elements = pd.DataFrame(
        {"element": ["H"], "functional": ["gga"], "energy_kind": ["raw"], "energy_per_atom_ev": [-3.0]}
    )
    bare = write_dataset(tmp_path / "bare", meta=META | {"name": "bare"}, elements=elements)
    with pytest.raises(DatasetError, match="bare: has no frames"):
        LabelledFrames.from_dataset(bare)


def test_energies_of_two_kinds_are_not_mixed(tmp_path):
    mixed = write_dataset(tmp_path / "two", meta=META, frames=frames_table(energy_kind=["raw", "raw", "mp2020"]))
    with pytest.raises(DatasetError, match=r"mp2020 \(frame mgo\) and raw \(frame he\).*remove_mp2020"):
        LabelledFrames.from_dataset(mixed)
    assert len(LabelledFrames.from_dataset(mixed, rows=[0])) == 1


def test_an_unlabelled_dataset_is_refused_and_a_single_missing_energy_is_nan(dataset):
    for energies in (None, [None, -2.0, None], [float("nan"), -2.0, float("nan")]):
        table = frames_table().drop_columns("energy_per_atom_ev")
        if energies:
            table = frames_table(energy_per_atom_ev=pa.array(energies, pa.float64()))
        vars(dataset)["frames"] = table  # no file can be written without energies
        with pytest.raises(DatasetError, match="two: none of its 2 r2scan frames has an energy"):
            LabelledFrames.from_dataset(dataset)
    vars(dataset)["frames"] = frames_table(energy_per_atom_ev=pa.array([None, -2.0, -6.0], pa.float64()))
    assert list(LabelledFrames.from_dataset(dataset).labelled("energy")) == [False, True]


def test_arrays_that_do_not_fit_the_crystals_are_refused():
    crystals = Crystals.from_arrays([([1, 1], np.zeros((2, 3)), 5 * np.eye(3))])
    with pytest.raises(DatasetError, match=r"forces_ev_per_a has shape \(1, 3\), not \(2, 3\)"):
        LabelledFrames(
            crystals, np.zeros(1), np.zeros((1, 3)), np.zeros((1, 3, 3)), np.zeros(2), np.array(["a"]), np.array(["a"])
        )


def test_a_mask_takes_the_frames_where_it_is_true():
    frames = small_frames(6, max_atoms=2)
    mask = np.array([False, False, True, True, False, False])
    for rows in (mask, mask.tolist()):
        assert frames.take(rows).frame_ids.tolist() == frames.frame_ids[2:4].tolist()
        assert len(frames.crystals.take(rows)) == 2
    assert len(frames.take([])) == 0
    with pytest.raises(CrystalError, match=r"a mask of shape \(3,\) does not choose among 6 rows"):
        frames.take(mask[:3])
    with pytest.raises(CrystalError, match=r"rows are whole numbers, got 1\.5"):
        frames.take([1.5])


def test_masks_are_taken_as_masks_by_an_evaluation_and_by_a_split():
    frames = small_frames(6, max_atoms=2)
    mask = np.array([False, False, True, True, False, False])
    assert xf.evaluate("0.3.0", frames, rows=mask)["n_frames"] == 2
    found = xf.evaluate("0.3.0", frames, split={"a": mask, "b": [2, 3]})["by_split"]
    assert found["a"] == found["b"]
    with pytest.raises(EvaluationError, match="split 'a': a mask of shape"):
        xf.evaluate("0.3.0", frames, split={"a": mask[:2]})
    parts = read_split(frames, {"train": mask, "validation": ~mask}, Settings())
    assert {part: rows.tolist() for part, rows in parts.items()} == {"train": [2, 3], "validation": [0, 1, 4, 5]}
    with pytest.raises(SettingsError, match="split: a mask of shape"):
        read_split(frames, {"train": mask[:2], "validation": ~mask}, Settings())
