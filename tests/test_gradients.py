"""Gradients that a person can add up, those of the model against one backward pass, and the recorder in training."""

import copy
import json

import numpy as np
import pytest
import torch
from recorders import PowerCut, frames_of_ten_materials, split_of

import crossfunc as xf
from crossfunc.lessons import LessonResults, first_epoch
from crossfunc.potential.forward import forward
from crossfunc.training.batches import step_loader
from crossfunc.training.fit import finetune
from crossfunc.training.gradients import (
    DEAD_LAYERS,
    PAPER_LAYERS,
    GradientError,
    GradientRecorder,
    summarise_gradients,
    term_gradients,
    total_gradient,
)
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.loss import LossSettings, batch_loss

COLUMNS = ["step", "epoch", "fraction", "layer", "term", "norm", "mean_abs", "cosine_with_energy"]


@pytest.fixture(scope="module")
def frames():
    return frames_of_ten_materials()


@pytest.fixture(scope="module")
def split(frames):
    return split_of(frames)


def batch_of(frames, dtype=torch.float64, **options):
    (batch,) = step_loader(frames, range(len(frames)), batch_size=len(frames), shuffle=False, **options)
    return batch.to("cpu", dtype)


def trainable(name="0.3.0", dtype=torch.float64):
    return xf.load_model(name).to(dtype)


def by_hand(energy, forces):
    """Gradients of one layer "a" of two parameters."""
    zero = torch.zeros(2)
    named = {"energy": torch.tensor(energy), "forces": torch.tensor(forces), "stress": zero, "magmoms": zero}
    return {term: {"a": g} for term, g in named.items()}


# --- summaries ---


def test_norm_mean_and_cosine_are_what_they_are_called():
    table = summarise_gradients(by_hand([3.0, 4.0], [4.0, -3.0]), {"A": "a"}).set_index(["layer", "term"])
    assert table.loc["A", "energy"].tolist() == [5, 3.5, 1]
    assert table.loc["A", "forces"].tolist() == [5, 3.5, 0]
    assert table.loc["A", "total"].tolist() == pytest.approx([50**0.5, 4, 0.5**0.5])
    assert table.loc["A", "stress"].tolist()[:2] == [0, 0]
    assert np.isnan(table.loc["A", "stress"]["cosine_with_energy"])


def test_opposed_terms_have_cosine_minus_one_whatever_their_sizes():
    for factor in (0.1, 1.0, 100.0):
        table = summarise_gradients(by_hand([1.0, 2.0], [-factor, -2 * factor]), {"A": "a"})
        cosine = table.set_index(["layer", "term"])["cosine_with_energy"]
        assert cosine["A", "forces"] == pytest.approx(-1)


def test_layers_may_have_several_parameters():
    gradients = {term: {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])} for term in TARGETS}
    table = summarise_gradients(gradients, {"both": ["a", "b"]}).set_index(["layer", "term"])
    assert table.loc["both", "energy"]["norm"] == 5
    assert table.loc["network", "total"]["norm"] == 20


@pytest.mark.parametrize(
    ("layers", "message"),
    [({"A": "c"}, "layer 'A': c is not among the 1 trained"), ({"A": []}, "layer 'A': no parameter")],
)
def test_layers_that_the_model_does_not_train_are_refused(layers, message):
    with pytest.raises(GradientError, match=message):
        summarise_gradients(by_hand([1.0, 0.0], [0.0, 1.0]), layers)


# --- gradients of the model ---


def test_terms_add_up_to_the_gradient_of_the_loss(frames):
    model, batch, settings = trainable(), batch_of(frames.take(range(6))), LossSettings()
    total = total_gradient(term_gradients(model, batch, settings))
    (part,) = batch.micro
    loss, _, _ = batch_loss(forward(model, part.graphs, create_graph=True), part.labels, batch.n_labels, settings)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(total[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(frames):
    model, settings = trainable(), LossSettings()
    whole = batch_of(frames.take(range(6)))
    parts = batch_of(frames.take(range(6)), max_angles=1)
    assert len(parts.micro) > len(whole.micro)
    one, other = (total_gradient(term_gradients(model, batch, settings)) for batch in (whole, parts))
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-8, atol=1e-11, msg=name)


def test_the_papers_layers_are_parameters_of_chgnet_that_every_energy_reaches(frames):
    model = trainable()
    assert set(PAPER_LAYERS.values()) <= {name for name, p in model.named_parameters() if p.requires_grad}
    gradients = term_gradients(model, batch_of(frames.take(range(6))), LossSettings())
    norms = summarise_gradients(gradients).set_index(["layer", "term"])["norm"]
    for term in ("energy", "forces", "stress"):
        assert all(norms[layer, term] > 0 for layer in PAPER_LAYERS)


def test_what_no_output_depends_on_gets_no_gradient(frames):
    model = trainable()
    gradients = term_gradients(model, batch_of(frames.take(range(6))), LossSettings())
    total = total_gradient(gradients)
    dead = {name for name, gradient in total.items() if not gradient.any()}
    assert dead == {name for name in total if name.startswith(DEAD_LAYERS)}
    norms = summarise_gradients(gradients).set_index(["layer", "term"])["norm"]
    assert all(norms[layer, "magmoms"] == 0 for layer in ("AtomConv3_W3", "BondConv2_W3", "MLP_Layer0"))
    assert norms["BondConv0_W0", "magmoms"] > 0


def test_weights_scale_their_own_term_only(frames):
    model, batch = trainable(), batch_of(frames.take(range(3)))
    one = term_gradients(model, batch, LossSettings(forces=1))
    two = term_gradients(model, batch, LossSettings(forces=2))
    none = term_gradients(model, batch, LossSettings(forces=0, stress=0))
    name = PAPER_LAYERS["AtomEmb"]
    torch.testing.assert_close(two["forces"][name], 2 * one["forces"][name])
    assert torch.equal(two["energy"][name], one["energy"][name])
    assert not none["forces"][name].any()
    torch.testing.assert_close(none["energy"][name], one["energy"][name])


def test_an_unlabelled_term_has_gradient_zero_and_not_nan(frames):
    few = frames.take(range(3))
    silent = LabelledFrames(
        few.crystals,
        few.energy_per_atom_ev,
        np.full_like(few.forces_ev_per_a, np.nan),
        few.stress_gpa,
        few.magmoms_mub,
        few.frame_ids,
        few.material_ids,
    )
    gradients = term_gradients(trainable(), batch_of(silent), LossSettings())
    assert not any(gradient.any() for gradient in gradients["forces"].values())
    assert all(torch.isfinite(gradient).all() for term in gradients.values() for gradient in term.values())


def test_looking_leaves_gradients_and_weights_alone(frames):
    model = trainable()
    before = copy.deepcopy(model.state_dict())
    term_gradients(model, batch_of(frames.take(range(3))), LossSettings())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_trained_references_are_a_layer_of_their_own(frames):
    model, batch = trainable(), batch_of(frames.take(range(3)))
    layers = set(summarise_gradients(term_gradients(model, batch, LossSettings()))["layer"])
    assert layers == {*PAPER_LAYERS, "network"}
    model.composition_model.requires_grad_(True)
    table = summarise_gradients(term_gradients(model, batch, LossSettings())).set_index(["layer", "term"])
    assert table.loc["references", "energy"]["norm"] > 0
    assert table.loc["references", "forces"]["norm"] == 0


def test_a_model_without_trainable_parameters_is_refused(frames):
    with pytest.raises(GradientError, match="no trainable parameter"):
        term_gradients(trainable().requires_grad_(False), batch_of(frames.take(range(3))), LossSettings())


# --- the recorder ---


def train(frames, split, recorder=None, method="4", callbacks=(), **options):
    options = {"n_epochs": 1, "batch_size": 1, "progress": False, "accelerator": "cpu"} | options
    callbacks = [*callbacks, *([recorder] if recorder else [])]
    return finetune(method, frames, split=split, callbacks=callbacks, **options)


def test_the_first_epoch_is_recorded_every_tenth(frames, split):
    recorder = GradientRecorder()
    train(frames, split, recorder, n_epochs=2)
    table = recorder.table()
    assert list(table.columns) == COLUMNS
    n = len(split["train"])
    assert sorted(set(table["step"])) == sorted({k * n // 10 for k in range(10)})
    assert (table["fraction"] == table["step"] / n).all()
    assert set(table["term"]) == {*TARGETS, "total"}
    assert len(table) == 10 * 9 * 5


def test_epochs_shorter_than_ten_batches_are_recorded_at_each(frames, split):
    recorder = GradientRecorder(per_epoch=10, n_epochs=2)
    train(frames, split, recorder, batch_size=len(split["train"]), n_epochs=2)
    assert sorted(set(recorder.table()["step"])) == [0, 1]


def test_the_first_record_is_the_gradient_before_any_step(frames, split):
    recorder = GradientRecorder(per_epoch=1)
    everything = len(split["train"])
    train(frames, split, recorder, method="3", batch_size=everything)
    batch = batch_of(frames.take(split["train"]), torch.float32)
    expected = summarise_gradients(term_gradients(xf.load_model("0.3.0"), batch, LossSettings()))
    norms = recorder.table()["norm"].to_numpy()
    np.testing.assert_allclose(norms, expected["norm"], rtol=1e-3, atol=1e-6)


def test_references_of_the_other_functional_make_the_energy_gradient_large(frames, split):
    norms = {}
    for method in ("3", "4"):
        recorder = GradientRecorder(per_epoch=1)
        train(frames, split, recorder, method=method, batch_size=len(split["train"]))
        norms[method] = recorder.table().set_index(["layer", "term"])["norm"]
    for layer in PAPER_LAYERS:
        assert norms["3"][layer, "energy"] > norms["4"][layer, "energy"]
        # forces do not know about references
        assert norms["3"][layer, "forces"] == pytest.approx(norms["4"][layer, "forces"], rel=1e-3)


def test_recording_does_not_change_the_training(frames, split):
    plain = train(frames, split).last_model.state_dict()
    watched = train(frames, split, GradientRecorder()).last_model.state_dict()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_a_run_that_is_cut_and_resumed_has_the_records_of_one_that_was_not(frames, split, tmp_path):
    options = {"n_epochs": 2, "batch_size": 3}
    whole = GradientRecorder(per_epoch=4, n_epochs=2)
    train(frames, split, whole, **options)
    recorder = GradientRecorder(per_epoch=4, n_epochs=2)
    with pytest.raises(KeyError, match="power cut"):
        train(frames, split, recorder, callbacks=[PowerCut()], out=tmp_path / "run", **options)
    resumed = GradientRecorder(per_epoch=4, n_epochs=2)
    train(frames, split, resumed, out=tmp_path / "run", **options)
    assert resumed.table().equals(whole.table())


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_whose_steps_are_done_gives_the_records_that_it_kept(frames, split, tmp_path, is_finished):
    """Finished, or killed after its last checkpoint: no step is made again that could record anything."""
    whole = GradientRecorder(per_epoch=4)
    train(frames, split, whole, out=tmp_path / "run")
    if not is_finished:
        file = tmp_path / "run" / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": None}))
    again, other = GradientRecorder(per_epoch=4), GradientRecorder(per_epoch=2)
    other.rows = [{"of": "another run"}]
    for recorder in (again, other):
        train(frames, split, recorder, out=tmp_path / "run")
    assert len(whole.rows) > 0
    assert again.table().equals(whole.table())
    assert other.rows == []


def test_recorders_that_differ_keep_their_own_records():
    one, other = GradientRecorder(), GradientRecorder(per_epoch=5)
    assert one.state_key != other.state_key
    one.rows.append({"step": 0, "layer": "AtomEmb", "term": "energy", "norm": 1.0})
    other.load_state_dict(one.state_dict())
    assert other.table()["norm"].tolist() == [1.0]


def test_a_recorder_that_never_records_is_refused():
    with pytest.raises(GradientError, match="per_epoch=0"):
        GradientRecorder(per_epoch=0)


def test_the_runs_from_the_published_model_are_recorded_and_said(frames, split):
    settings = {"seed": 0, "n_seeds": 2, "n_epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    results = LessonResults("05_gradient_diagnostics")
    said = first_epoch.record_from_published(results, frames, frames, split, settings)
    rows = {row["key"]: (row["value"], row["interval"]) for row in results.to_dict()["results"]}
    assert set(rows) == {"force_after_epochs_gga_published", "force_after_epochs_refit_published"}
    untrained = xf.evaluate(xf.load_model("0.3.0"), frames.take(split["validation"]))["force_mae_mev_per_a"]
    assert f"is {untrained:.0f} meV/Å before any training, force error after 1 epochs over that before: " in said
    for method, short in (("3", "gga"), ("4", "refit")):
        errors = [
            xf.finetune(
                method, frames, split=split, pretrained="0.3.0", seed=k, n_epochs=1, batch_size=4, progress=False
            ).history[first_epoch.FORCE]
            for k in (0, 1)
        ]
        times = [float(error.iloc[-1] / error.iloc[0]) for error in errors]
        value, ends = rows[f"force_after_epochs_{short}_published"]
        assert (value, *ends) == pytest.approx((np.mean(times), min(times), max(times)))
        assert f"{value:.2f} with" in said


def test_nothing_is_trained_twice_where_the_start_is_the_published_model(frames, split):
    results = LessonResults("05_gradient_diagnostics")
    said = first_epoch.record_from_published(results, None, frames, split, {})
    assert said.startswith("These runs start from the published model as it comes already")
    assert results.to_dict()["results"] == []
