"""Errors that a person can add up, and the same numbers as chgnet's own predictions."""

import copy
import json
import warnings
from importlib import import_module

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.potential import Crystals
from crossfunc.training.evaluate import EvaluationError, FramePredictions, evaluate, predict_frames
from crossfunc.training.labels import METRICS as NAMES
from crossfunc.training.labels import LabelledFrames

NAN = np.nan
METRICS = tuple(NAMES.values())


def labelled(triples, ids, energy=0.0, forces=0.0, stress=0.0, magmoms=0.0):
    """Frames with the same label everywhere, or with the arrays given."""
    crystals = Crystals.from_arrays(triples)
    n_frames, n_atoms = len(crystals), len(crystals.atomic_numbers)
    return LabelledFrames(
        crystals,
        np.broadcast_to(energy, n_frames).astype(np.float64),
        np.broadcast_to(forces, (n_atoms, 3)).astype(np.float32),
        np.broadcast_to(stress, (n_frames, 3, 3)).astype(np.float32),
        np.broadcast_to(magmoms, n_atoms).astype(np.float32),
        np.array(ids),
        np.array(ids),
    )


def two_frames(**labels):
    """MgO and a cell of two Mg."""
    cell = 3 * np.eye(3)
    triples = [([12, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], cell), ([12, 12], [[0, 0, 0], [0.5, 0.5, 0.5]], cell)]
    return labelled(triples, ["a", "b"], **labels)


def predicted(frames, energy=0.0, forces=0.0, stress=0.0, magmoms=0.0):
    n_frames, n_atoms = len(frames), len(frames.crystals.atomic_numbers)
    return FramePredictions(
        frames,
        np.arange(n_frames),
        np.broadcast_to(np.asarray(energy, dtype=float), n_frames),
        np.broadcast_to(np.asarray(forces, dtype=float), (n_atoms, 3)),
        np.broadcast_to(np.asarray(stress, dtype=float), (n_frames, 3, 3)),
        np.broadcast_to(np.asarray(magmoms, dtype=float), n_atoms),
    )


@pytest.fixture(scope="module")
def model():
    return xf.load_model("0.3.0")


@pytest.fixture(scope="module")
def frames():
    """Ten frames of the packaged dataset: eight with every label, two with energies only."""
    everything = LabelledFrames.from_dataset("surrogate", "r2scan")
    dense = np.flatnonzero(everything.labelled("forces"))[::500]
    wide = np.flatnonzero(~everything.labelled("forces"))[::1300]
    return everything.take(np.concatenate([dense[:8], wide[:2]]))


# --- errors of given predictions ---


def test_errors_are_means_over_frames_components_and_atoms():
    forces = np.zeros((4, 3))
    forces[0, 0] = 0.012  # one of 12 components
    stress = np.zeros((2, 3, 3))
    stress[1] = 0.5
    found = predicted(two_frames(), energy=[0.001, -0.003], forces=forces, stress=stress, magmoms=[0, 0, 0, 0.4])
    assert found.metrics() == {
        "n_frames": 2,
        "energy_mae_mev_per_atom": pytest.approx(2),
        "force_mae_mev_per_a": pytest.approx(1),
        "stress_mae_gpa": pytest.approx(0.25),
        "magmom_mae_mub": pytest.approx(0.1),
    }


def test_perfect_predictions_have_no_error():
    metrics = predicted(two_frames(energy=-5, magmoms=2), energy=-5, magmoms=2).metrics()
    assert [metrics[name] for name in METRICS] == [0, 0, 0, 0]


def test_moments_are_compared_without_their_sign():
    found = predicted(two_frames(magmoms=[-2, 2, -2, 2]), magmoms=2)
    assert found.metrics()["magmom_mae_mub"] == 0
    np.testing.assert_array_equal(found.parity("magmoms")[0], [2, 2, 2, 2])


def test_what_has_no_label_is_counted_by_no_error():
    forces = np.array([[1, 1, 1], [NAN] * 3, [NAN] * 3, [NAN] * 3])
    metrics = predicted(two_frames(energy=[NAN, 1], forces=forces, stress=NAN), energy=2).metrics()
    assert metrics["energy_mae_mev_per_atom"] == 1000
    assert metrics["force_mae_mev_per_a"] == 1000
    assert metrics["stress_mae_gpa"] is None


def test_errors_of_some_frames_add_up_to_those_of_all():
    found = predicted(two_frames(energy=[1, 2], forces=[[1] * 3, [2] * 3, [3] * 3, [4] * 3]))
    first, second = (found.metrics(np.array(mask)) for mask in ([True, False], [False, True]))
    assert (first["energy_mae_mev_per_atom"], second["energy_mae_mev_per_atom"]) == (1000, 2000)
    assert (first["force_mae_mev_per_a"], second["force_mae_mev_per_a"]) == (1500, 3500)
    assert found.metrics(np.array([False, False]))["n_frames"] == 0


def test_elements_get_the_frames_that_hold_them_and_their_own_atoms():
    magmoms = [0, NAN, 0, 0]
    frames = two_frames(energy=[1, 3], forces=[[0] * 3, [3] * 3, [6] * 3, [0] * 3], magmoms=magmoms)
    table = predicted(frames, magmoms=0.2).by_element()
    assert list(table.index) == ["O", "Mg"]
    assert list(table["n_frames"]) == [1, 2]
    assert list(table["n_atoms"]) == [1, 3]
    assert list(table["energy_mae_mev_per_atom"]) == [1000, 2000]
    assert list(table["force_mae_mev_per_a"]) == [3000, 2000]
    assert np.isnan(table["magmom_mae_mub"]["O"])
    assert table["magmom_mae_mub"]["Mg"] == pytest.approx(0.2)


def test_frames_without_energy_do_not_dilute_an_elements_error():
    table = predicted(two_frames(energy=[NAN, 3])).by_element()
    assert np.isnan(table["energy_mae_mev_per_atom"]["O"])
    assert table["energy_mae_mev_per_atom"]["Mg"] == 3000


# --- errors of a model ---


def chgnet_errors(model, frames):
    """The errors as chgnet's own prediction of one structure after the other gives them."""
    errors = {name: [] for name in METRICS}
    starts, counts = frames.crystals.starts, frames.crystals.n_atoms
    for k, structure in enumerate(frames.crystals.to_structures()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = model.predict_structure(structure)
        atoms = slice(starts[k], starts[k] + counts[k])
        errors[METRICS[0]].append(1000 * abs(output["e"] - frames.energy_per_atom_ev[k]))
        errors[METRICS[1]].append(1000 * np.abs(output["f"] - frames.forces_ev_per_a[atoms]).ravel())
        errors[METRICS[2]].append(np.abs(output["s"] - frames.stress_gpa[k]).ravel())
        errors[METRICS[3]].append(np.abs(output["m"] - np.abs(frames.magmoms_mub[atoms])))
    return {name: np.nanmean(np.hstack(values)) for name, values in errors.items()}


@pytest.mark.parametrize("name", ["0.3.0", "r2scan"])
def test_errors_are_those_of_chgnets_own_predictions(name, frames):
    checkpoint = xf.load_model(name)
    ours, theirs = evaluate(checkpoint, frames), chgnet_errors(checkpoint, frames)
    assert list(ours) == ["n_frames", *METRICS, "refused"]
    assert ours["n_frames"] == 10
    # float32: 1e-6 of energies of tens of eV/atom, and of forces and stresses of single crystals
    assert ours[METRICS[0]] == pytest.approx(theirs[METRICS[0]], abs=0.01)
    assert ours[METRICS[1]] == pytest.approx(theirs[METRICS[1]], abs=0.05)
    assert ours[METRICS[2]] == pytest.approx(theirs[METRICS[2]], abs=5e-4)
    assert ours[METRICS[3]] == pytest.approx(theirs[METRICS[3]], abs=1e-4)


def test_order_of_the_frames_does_not_matter(model, frames):
    forwards, backwards = evaluate(model, frames), evaluate(model, frames, rows=np.arange(len(frames))[::-1])
    for name in METRICS:
        assert backwards[name] == pytest.approx(forwards[name], rel=1e-5)


def test_parts_of_a_split_add_up_to_the_whole(model, frames):
    split = {"train": [0, 1, 2, 3, 4, 5, 6], "test": [7, 8, 9], "empty": []}
    found = evaluate(model, frames, split=split)
    assert list(found["by_split"]) == ["train", "test", "empty"]
    train, test, empty = found["by_split"].values()
    mean = (7 * train["energy_mae_mev_per_atom"] + 3 * test["energy_mae_mev_per_atom"]) / 10
    assert mean == pytest.approx(found["energy_mae_mev_per_atom"])
    alone = {k: v for k, v in evaluate(model, frames, rows=[7, 8, 9]).items() if k != "refused"}
    assert test == pytest.approx(alone, rel=1e-5)  # float32 rounds differently in a batch of other crystals
    assert empty == {"n_frames": 0, **dict.fromkeys(METRICS)}


def test_predictions_come_with_the_errors_when_asked_for(model, frames):
    found = evaluate(model, frames, with_predictions=True, by_element=True)
    labels, predictions = found["predictions"].parity("forces")
    assert len(labels) == 3 * frames.crystals.n_atoms[:8].sum()
    assert 1000 * np.abs(labels - predictions).mean() == pytest.approx(found["force_mae_mev_per_a"])
    assert len(found["predictions"].parity("energy")[0]) == 10
    assert set(found["by_element"].index) == set(frames.elements())


def test_frames_without_slope_labels_need_no_derivatives(model, frames):
    found = predict_frames(model, frames)
    wide = frames.crystals.owners >= 8
    assert np.isnan(found.forces_ev_per_a[wide]).all()
    assert np.isfinite(found.forces_ev_per_a[~wide]).all()
    assert np.isfinite(found.energy_per_atom_ev).all()


def test_evaluating_leaves_the_model_as_it_was(model, frames):
    before = copy.deepcopy(model.state_dict())
    evaluate(model, frames)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_chunks_do_not_change_the_errors(model, frames, monkeypatch):
    whole = evaluate(model, frames)
    monkeypatch.setattr(import_module("crossfunc.training.evaluate"), "_CHUNK", 3)
    for name in METRICS:
        assert evaluate(model, frames)[name] == pytest.approx(whole[name], rel=1e-5)


# --- what goes wrong ---


def with_an_isolated_atom():
    crowd = ([12, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], 3 * np.eye(3))
    lonely = ([12, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], 20 * np.eye(3))
    return labelled([lonely, crowd], ["lonely-1", "crowd-1"], energy=[0, -5])


def test_frames_without_a_graph_are_listed_and_counted_by_no_error(model):
    frames = with_an_isolated_atom()
    found = evaluate(model, frames, split={"train": [0], "test": [1]}, with_predictions=True)
    assert found["n_frames"] == 1
    assert list(found["refused"]) == ["lonely-1"]
    assert "isolated" in found["refused"]["lonely-1"]
    assert not found["refused"]["lonely-1"].startswith("crystal")
    assert found["by_split"]["train"]["n_frames"] == 0
    alone = evaluate(model, frames, rows=[1])
    for name in METRICS:
        assert found[name] == alone[name] == found["by_split"]["test"][name]
    np.testing.assert_array_equal(found["predictions"].positions, [1])
    assert list(found["predictions"].frames.frame_ids) == ["crowd-1"]


def test_frames_that_all_lack_a_graph_are_an_error(model):
    with pytest.raises(EvaluationError, match=r"none of 1 frames can be evaluated; the first, lonely-1: .*isolated"):
        evaluate(model, with_an_isolated_atom(), rows=[0])


def test_no_frames_are_an_error(model, frames):
    with pytest.raises(EvaluationError, match="none of 0 frames"):
        evaluate(model, frames, rows=[])


def test_a_split_made_for_other_frames_is_an_error(model, frames):
    with pytest.raises(EvaluationError, match="split 'test' points at frame 10 of 10"):
        evaluate(model, frames, split={"test": [10]})


def test_a_model_that_has_diverged_is_an_error_that_names_the_frame(model, frames):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.mlp.layers[0].weight.fill_(NAN)
    with pytest.raises(EvaluationError, match=r"frame \S+ \(\w+\): the model's energy_per_atom_ev is not finite"):
        evaluate(broken, frames)


# --- the command ---


@pytest.fixture
def small_dataset(tmp_path, monkeypatch):
    """A folder with five r2SCAN frames of the packaged dataset, and one of a lonely pair of atoms."""
    surrogate = xf.open_dataset("surrogate")
    table = surrogate.frames.filter(np.asarray(surrogate.frames["functional"]) == "r2scan")
    small = table.take(np.r_[:5, 5]).to_pylist()
    small[5] |= {"frame_id": "lonely-1", "lattice_a": [40.0, 0, 0, 0, 40, 0, 0, 0, 40]}
    import pyarrow as pa

    folder = tmp_path / "small"
    xf.write_dataset(folder, meta=surrogate.meta, frames=pa.Table.from_pylist(small, schema=table.schema))
    return folder


def test_the_command_prints_the_errors_first(small_dataset):
    done = CliRunner().invoke(
        app, ["evaluate", "--model", "r2scan", "--dataset", str(small_dataset), "--by-element", "--json"]
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert list(printed)[:5] == ["n_frames", *METRICS]
    assert printed["n_frames"] == 5
    assert list(printed["refused"]) == ["lonely-1"]
    assert printed["energy_mae_mev_per_atom"] < 0.1  # the labeller itself
    assert "not DFT" in printed["label_notice"]
    assert all(row["n_atoms"] > 0 for row in printed["by_element"].values())


def test_the_command_tells_people_the_same(small_dataset):
    done = CliRunner().invoke(app, ["evaluate", "--model", "r2scan", "--dataset", str(small_dataset)])
    assert done.exit_code == 0, done.output
    assert "n_frames                 5" in done.stdout
    assert "refused lonely-1" in done.stderr
    assert "not DFT" in done.stdout


def test_the_command_says_in_one_block_what_is_wrong(small_dataset):
    done = CliRunner().invoke(
        app, ["evaluate", "--model", "r2scan", "--dataset", str(small_dataset), "--functional", "gga"]
    )
    assert done.exit_code == 1
    assert "no frames of functional 'gga'" in done.stderr
