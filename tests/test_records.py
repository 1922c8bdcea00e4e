"""A run as a small file: what a comparison asks of it comes back, its models answer for its own frames alone."""

from dataclasses import replace

import numpy as np
import pytest
from recorders import frames_of_ten_materials, split_of

import crossfunc as xf
from crossfunc.errors import InputError
from crossfunc.potential.recorded import NotRecordedError
from crossfunc.training.evaluate import predict_frames
from crossfunc.training.records import pack_run, unpack_run

SETTINGS = {"n_epochs": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def frames():
    return frames_of_ten_materials()


@pytest.fixture(scope="module")
def run(frames):
    return xf.finetune("4", frames, split=split_of(frames), progress=False, accelerator="cpu", **SETTINGS)


@pytest.fixture(scope="module")
def packed(run, frames):
    return {keep: pack_run(run, frames, xf.load_model("0.3.0"), keep=keep) for keep in ("best", "last")}


def unpacked(packed, run):
    return unpack_run(*packed, method="4", settings=SETTINGS, split=run.split, name="method-4-seed0")


def test_what_comes_back_is_what_went_in(packed, run, frames):
    back = unpacked(packed["best"], run)
    assert back.metrics == run.metrics
    assert back.seconds == run.seconds
    assert back.notes == run.notes
    assert back.history["train_loss"].tolist() == pytest.approx(run.history["train_loss"].tolist(), nan_ok=True)
    np.testing.assert_allclose(back.references.energies_ev, run.references.energies_ev)
    test = frames.take(run.split["test"] if len(run.split["test"]) else run.split["validation"])
    for which in ("model", "last_model"):
        theirs, ours = (predict_frames(getattr(one, which), test) for one in (back, run))
        np.testing.assert_allclose(theirs.energy_per_atom_ev, ours.energy_per_atom_ev, rtol=0, atol=1e-12)
        np.testing.assert_allclose(theirs.forces_ev_per_a, ours.forces_ev_per_a, rtol=0, atol=1e-6)


def test_it_is_a_small_part_of_the_weights(packed, run):
    weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    assert len(packed["best"][1]) < weights / 10


def test_of_a_run_that_keeps_its_last_model_the_best_is_not_asked(packed, run, frames):
    back = unpacked(packed["last"], run)
    validation = frames.take(run.split["validation"])
    predict_frames(back.last_model, validation)
    with pytest.raises(NotRecordedError):
        predict_frames(back.model, validation)


def test_frames_beside_the_split_are_answered_where_they_were_asked_about(run, frames):
    trained = replace(run, split={"train": run.split["train"]})
    validation, start = frames.take(run.split["validation"]), xf.load_model("0.3.0")
    without = unpacked(pack_run(trained, frames, start, keep="last"), trained)
    with pytest.raises(NotRecordedError):
        predict_frames(without.last_model, validation)
    with_them = unpacked(pack_run(trained, frames, start, keep="last", also=validation), trained)
    theirs, ours = (predict_frames(one.last_model, validation) for one in (with_them, run))
    np.testing.assert_allclose(theirs.energy_per_atom_ev, ours.energy_per_atom_ev, rtol=0, atol=1e-12)


def test_how_far_each_weight_has_gone_is_kept(packed, run):
    changes = unpacked(packed["last"], run).last_model.weight_changes
    start = dict(xf.load_model("0.3.0").named_parameters())
    for name, weights in run.last_model.named_parameters():
        moved = ((weights.detach().double() - start[name].detach().double()) ** 2).sum()
        assert changes[name][0] == pytest.approx(float(moved))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_is_not_whole_is_refused_by_its_name(packed, run, share):
    plain, data = packed["best"]
    with pytest.raises(InputError, match=r"the record of method-4-seed0 is not whole \(.*\); delete it"):
        unpacked((plain, data[: int(share * len(data))]), run)
