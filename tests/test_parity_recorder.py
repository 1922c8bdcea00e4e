"""The recorder of parity plots: what it keeps is what the models predict, and training does not notice it."""

import numpy as np
import pytest
import torch
from recorders import PowerCut, frames_of_ten_materials, split_of

import crossfunc as xf
from crossfunc.training.evaluate import predict_frames
from crossfunc.training.fit import finetune
from crossfunc.training.parity import ParityRecorder

OPTIONS = {"batch_size": 3, "progress": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def frames():
    return frames_of_ten_materials()


@pytest.fixture(scope="module")
def split(frames):
    return split_of(frames)


@pytest.fixture(scope="module")
def held_out(frames, split):
    return frames.take(split["validation"])


@pytest.fixture(scope="module")
def watched(frames, split, held_out):
    recorder = ParityRecorder(held_out, per_epoch=2)
    return recorder, finetune("4", frames, split=split, callbacks=[recorder], n_epochs=2, **OPTIONS)


def test_it_records_at_even_times_and_at_the_end(watched):
    recorder, _ = watched
    assert [row["epoch"] for row in recorder.rows] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_the_first_and_last_rows_are_what_the_models_predict(watched, frames, split, held_out):
    recorder, run = watched
    start = xf.start_model("4", frames.take(split["train"])).model
    for model, row in ((start, recorder.rows[0]), (run.last_model, recorder.rows[-1])):
        for kind, values in zip(("energy", "forces"), predictions(model, held_out), strict=True):
            np.testing.assert_allclose(row[kind], values, atol=1e-4)


def predictions(model, held_out):
    seen = predict_frames(model, held_out)
    return seen.parity("energy")[1], seen.parity("forces")[1]


def test_labels_stand_in_the_order_of_the_predictions(watched, held_out):
    recorder, run = watched
    seen = predict_frames(run.last_model, held_out)
    error = np.abs(np.array(recorder.rows[-1]["forces"]) - recorder.labels["forces"]).mean()
    assert 1000 * error == pytest.approx(seen.metrics()["force_mae_mev_per_a"], rel=1e-3)


def test_watching_does_not_change_the_training(watched, frames, split):
    plain = finetune("4", frames, split=split, n_epochs=2, **OPTIONS).last_model.state_dict()
    seen = watched[1].last_model.state_dict()
    assert all(torch.equal(plain[name], seen[name]) for name in plain)


def test_a_run_that_goes_on_has_the_rows_of_one_that_was_not_cut(watched, frames, split, held_out, tmp_path):
    options = OPTIONS | {"split": split, "n_epochs": 2, "out": tmp_path / "run"}
    with pytest.raises(KeyError, match="power cut"):
        finetune("4", frames, callbacks=[ParityRecorder(held_out, 2), PowerCut()], **options)
    resumed = ParityRecorder(held_out, 2)
    finetune("4", frames, callbacks=[resumed], **options)
    assert resumed.rows == watched[0].rows


def test_a_recorder_that_watches_a_second_run_has_the_rows_of_that_run_alone(watched, frames, split, held_out):
    recorder = ParityRecorder(held_out, per_epoch=2)
    for changed in ({"n_epochs": 3, "learning_rate": 1e-2}, {"n_epochs": 2}):
        finetune("4", frames, split=split, callbacks=[recorder], **changed, **OPTIONS)
    assert recorder.rows == watched[0].rows


def test_recorders_of_other_frames_keep_their_own_rows(held_out):
    assert ParityRecorder(held_out).state_key != ParityRecorder(held_out, 2).state_key
    assert ParityRecorder(held_out).state_key != ParityRecorder(held_out.take([0])).state_key


def test_a_recorder_that_never_records_is_refused(held_out):
    with pytest.raises(ValueError, match="per_epoch=0"):
        ParityRecorder(held_out, per_epoch=0)
