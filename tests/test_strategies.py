"""Methods after the paper: each starts at the pretrained model, pulls as its equation says, and saves plainly."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_frames import small_frames, thirds

import crossfunc as xf
from crossfunc.potential import Crystals, element_references, load_model, predict
from crossfunc.potential.checkpoints import CheckpointError
from crossfunc.potential.correction import SmallNetwork, add_correction
from crossfunc.potential.forward import forward
from crossfunc.potential.low_rank import LowRankLinear, share_of_low_rank
from crossfunc.training import METHODS, STARTS, finetune
from crossfunc.training.batches import MicroBatch, step_loader
from crossfunc.training.loss import LossSettings, batch_loss
from crossfunc.training.methods import start_model
from crossfunc.training.run_folder import RunError, find_model_file
from crossfunc.training.source import label_with_model, make_source, replace_labels, without_labels
from crossfunc.training.steps import differentiate_parts
from crossfunc.training.strategies import (
    READOUT,
    ElasticWeights,
    LoRA,
    Pull,
    PullToStart,
    SoftFreezing,
    StrategyError,
    change_strategy,
    depth,
    gauss_newton_diagonal,
    readout_for,
    source_view,
)
from crossfunc.vendor import import_chgnet

LATER = [key for key in METHODS if key not in STARTS]
OUTPUTS = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")
SPLIT = thirds(12)


@pytest.fixture(scope="module")
def pretrained():
    return load_model("0.3.0")


@pytest.fixture(scope="module")
def frames():
    return small_frames(12, max_atoms=2)


@pytest.fixture(scope="module")
def source(frames, pretrained):
    return make_source(without_labels(frames.take(SPLIT["train"])), pretrained)


def flat(predicted):
    return [np.concatenate([np.ravel(part) for part in predicted[key]]) for key in OUTPUTS]


# --- identity at the start ---


@pytest.mark.parametrize("key", LATER)
def test_every_method_starts_at_the_pretrained_model_to_the_last_bit(key, frames, source, pretrained):
    model = start_model(key, frames, pretrained=pretrained, references="pretrained", source=source).model
    for one, two in zip(flat(predict(model, frames.crystals)), flat(predict(pretrained, frames.crystals)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("key", LATER)
def test_with_its_references_it_starts_where_the_model_aware_refit_does(key, frames, source, pretrained):
    plain = start_model("model-aware", frames, pretrained=pretrained)
    model, references, _ = start_model(key, frames, pretrained=pretrained, source=source)
    np.testing.assert_array_equal(references.energies_ev, plain.references.energies_ev)
    for one, two in zip(
        flat(predict(model, frames.crystals)), flat(predict(plain.model, frames.crystals)), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_the_second_readout_starts_as_the_pretrained_model_with_the_references_of_the_source(
    frames, source, pretrained
):
    model = start_model("two-readouts", frames, pretrained=pretrained, source=source).model
    assert source.labelled_by == "model"
    theirs = predict(source_view(model), frames.crystals)
    for one, two in zip(flat(theirs), flat(predict(pretrained, frames.crystals)), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(element_references(model), element_references(source_view(model)))


def test_methods_that_read_source_frames_say_so_where_there_are_none(frames, pretrained):
    for key in ("ewc", "replay", "two-readouts"):
        with pytest.raises(StrategyError, match=f"method {key} needs frames of the source functional"):
            start_model(key, frames, pretrained=pretrained)


# --- what moves, and how fast ---


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_readout_only_trains_the_readouts(frames, pretrained):
    model = start_model("readout-only", frames, pretrained=pretrained).model
    names = trainable(model)
    assert names == {n for n, _ in model.named_parameters() if n.startswith(READOUT)}
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 12_545 + 128 + 65


def test_soft_freezing_halves_the_rate_with_every_layer_towards_the_input():
    strategy = SoftFreezing(decay=0.5)
    names = (
        "mlp.layers.0.weight",
        "atom_conv_layers.3.mlp_out.layers.0.weight",
        "bond_conv_layers.0.x",
        "site_wise.bias",
    )
    assert [depth(name) for name in names] == [5, 4, 1, 5]
    assert [strategy.rate_factor(name) for name in names] == [1, 1 / 2, 1 / 16, 1]
    assert strategy.rate_factor("atom_embedding.embedding.weight") == 1 / 32


def test_in_training_the_rate_of_a_layer_is_the_schedules_times_its_factor(frames):
    moved = {}
    for decay in (1.0, 0.0):
        options = {"decay": decay}
        result = finetune("soft-freezing", frames, split=SPLIT, options=options, max_steps=2, progress=False)
        start = load_model("0.3.0").state_dict()
        now = result.last_model.state_dict()
        moved[decay] = {n for n in now if not torch.equal(now[n], start[n]) and not n.startswith("composition")}
    plain = finetune("model-aware-trained", frames, split=SPLIT, max_steps=2, progress=False)
    one = finetune("soft-freezing", frames, split=SPLIT, options={"decay": 1.0}, max_steps=2, progress=False)
    for name, tensor in plain.last_model.state_dict().items():
        assert torch.equal(tensor, one.last_model.state_dict()[name]), name
    assert moved[0.0] <= {n for n in moved[1.0] if n.startswith(READOUT)}
    assert moved[0.0] < moved[1.0]


def test_lora_trains_two_thin_matrices_a_layer_and_nothing_else(frames, pretrained):
    model = start_model(METHODS["lora"].with_options({"rank": 4}), frames, pretrained=pretrained).model
    layers = [layer for layer in model.modules() if isinstance(layer, LowRankLinear)]
    plain = [m for n, m in pretrained.named_modules() if isinstance(m, torch.nn.Linear) and "composition" not in n]
    assert len(layers) == len(plain)
    assert all(name.endswith((".a", ".b")) for name in trainable(model))
    n = sum(min(4, *m.weight.shape) * sum(m.weight.shape) for m in plain)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == n


# --- closed forms on a toy, and finite differences on CHGNet ---


def test_the_pull_has_the_value_and_gradient_of_its_parabola():
    start, now = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, -2.0, 0.0])
    pull = Pull(start, torch.tensor([3.0, 7.0, 2.0]))
    assert pull.value(now).item() == 0.5 * (3 * 1 + 7 * 0 + 2 * 0.25)
    assert pull.gradient(now).tolist() == [3.0, 0.0, -1.0]
    assert Pull(start, 0.1).gradient(now).tolist() == pytest.approx([0.1, 0, -0.05])


def test_lora_on_one_layer_has_the_gradients_of_the_chain_rule():
    layer = LowRankLinear(torch.nn.Linear(3, 2).double(), 2, torch.Generator().manual_seed(0))
    x, g = torch.rand(4, 3).double(), torch.rand(4, 2).double()
    layer.b.data = torch.rand(2, 2).double()
    (layer(x) * g).sum().backward()  # dL/dW = g^T x
    torch.testing.assert_close(layer.a.grad, layer.b.detach().T @ (g.T @ x))
    torch.testing.assert_close(layer.b.grad, (g.T @ x) @ layer.a.detach().T)
    assert layer.original.grad is None
    torch.testing.assert_close(layer.merged()(x), layer(x), rtol=0, atol=0)


def loss_at(model, batch, settings):
    with torch.no_grad():
        return sum(
            float(batch_loss(forward(readout_for(model, part), part.graphs), part.labels, batch.n_labels, settings)[0])
            for part in batch.micro
        )


@pytest.mark.parametrize("key", ["lora", "delta", "two-readouts"])
def test_gradients_on_chgnet_are_those_of_finite_differences(key, frames, source, pretrained):
    model = start_model(key, frames, pretrained=pretrained, source=source).model.double()
    torch.manual_seed(0)
    with torch.no_grad():  # away from zero matrices, where half of the gradients vanish
        for p in model.parameters():
            if p.requires_grad:
                p += 0.01 * torch.randn_like(p)
    settings = LossSettings(kind="mse")
    (batch,) = step_loader(frames, range(3), batch_size=3)
    batch = batch.to("cpu", torch.float64)
    if key == "two-readouts":
        micro = [MicroBatch(p.graphs, p.labels, p.indices, is_source=True) for p in batch.micro]
        batch = type(batch)(micro, batch.n_labels, batch.n_frames)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) for p in parameters]
    for part in differentiate_parts(model, batch, parameters, settings):
        for total, g in zip(gradients, part.gradients, strict=True):
            total += 0 if g is None else g
    direction = [torch.randn_like(p) for p in parameters]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    step, values = 1e-5, []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
        values.append(loss_at(model, batch, settings))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)


class Gradients(Callback):
    """Keeps the gradient, the trained parameters and the stiffness before every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        parameters = torch.cat([p.detach().flatten() for p in pl_module._trainable]).clone()
        stiffness = pl_module.pull_stiffness.clone() if pl_module.is_pulled else None
        self.seen.append((pl_module._gradient.clone(), parameters, stiffness))


def gradients_of(key, frames, n_steps=2, options=None, **settings):
    callback = Gradients()
    settings = {"max_steps": n_steps, "optimizer": "adam", "progress": False, "callbacks": [callback], **settings}
    finetune(key, frames, split=SPLIT, options=options, **settings)
    return callback.seen


@pytest.mark.parametrize("key", ["l2-sp", "ewc"])
def test_the_pull_moves_the_first_step_of_chgnet_by_its_gradient(key, frames, source):
    free, pulled = (gradients_of(key, frames, options={"strength": strength}) for strength in (0.0, 2.0))
    (free_1, start, _), (free_2, moved, _) = free
    (pulled_1, _, stiffness), (pulled_2, moved_too, _) = pulled
    assert torch.equal(free_1, pulled_1)  # at the start there is nothing to pull
    assert torch.equal(moved, moved_too)
    expected = 2.0 * torch.ones_like(start)
    if key == "ewc":
        model = start_model(key, frames.take(SPLIT["train"]), source=source).model
        diagonal = gauss_newton_diagonal(model, source.frames, LossSettings(), seed=source.seed)
        expected = 2.0 * torch.cat([values.flatten() for values in diagonal.values()])
        torch.testing.assert_close(stiffness, expected)
        assert (expected > 0).float().mean() > 0.5
    pull = expected * (moved - start)
    torch.testing.assert_close(pulled_2 - free_2, pull, rtol=1e-4, atol=1e-6 * max(1.0, float(free_2.abs().max())))
    assert pull.abs().max() > 1e-4  # far above that tolerance


def test_a_frame_counts_the_same_in_a_step_with_source_frames_and_in_one_without(frames):
    """Steps of one frame: a share of a half joins the second alone, and has no error at the start."""
    settings = {"batch_size": 1, "learning_rate": 1e-12}
    settings |= {"force_weight": 0.0, "stress_weight": 0.0, "magmom_weight": 0.0}
    plain = [gradient for gradient, *_ in gradients_of("model-aware-trained", frames, **settings)]
    replayed = [gradient for gradient, *_ in gradients_of("replay", frames, options={"share": 0.5}, **settings)]
    for one, other in zip(replayed, plain, strict=True):
        torch.testing.assert_close(1.5 * one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
        assert other.abs().max() > 0


@pytest.mark.parametrize("key", ["l2-sp", "ewc"])
def test_the_gradient_of_the_pull_is_that_of_finite_differences_on_chgnet(key, frames, source, pretrained):
    model = start_model(key, frames, pretrained=pretrained, source=source).model.double()
    stiffness = METHODS[key].strategy.stiffness(model, source, LossSettings())
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = torch.cat([p.detach().flatten() for p in parameters]).clone()
    pull = Pull(start, stiffness)
    generator = torch.Generator().manual_seed(0)
    now, direction = (0.1 * torch.randn(len(start), generator=generator, dtype=torch.float64) for _ in range(2))
    now += start
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(now, parameters)
    there = torch.cat([p.detach().flatten() for p in parameters])
    step = 1e-4
    slope = (pull.value(there + step * direction) - pull.value(there - step * direction)) / (2 * step)
    expected = float(pull.gradient(there) @ direction)
    assert slope.item() == pytest.approx(expected, rel=1e-6)
    assert float((stiffness * (now - start) * direction).sum()) == pytest.approx(expected, rel=1e-12)
    assert abs(expected) > 1e-6


# --- the Gauss-Newton diagonal ---


def exact_diagonal(model, frames, loss):
    """Σ_t w_t/N_t Σ_k (∂ŷ/∂θ)², one backward pass for every single prediction, averaged over frames."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    outputs = dict(zip(("energy", "forces", "stress", "magmoms"), OUTPUTS, strict=True))
    for batch in step_loader(frames, range(len(frames)), batch_size=1, shuffle=False):
        (part,) = batch.to("cpu", torch.float32).micro
        output = forward(model, part.graphs, create_graph=True)
        for target, name in outputs.items():
            for value in output[name].flatten():
                found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
                for sums, g in zip(total, found, strict=True):
                    if g is not None:
                        sums += loss.weights[target] / batch.n_labels[target] * g.square()
    return torch.cat([sums.flatten() for sums in total]) / len(frames)


def test_random_signs_give_the_exact_diagonal_on_average(frames, pretrained):
    model = start_model("readout-only", frames, pretrained=pretrained).model  # fewer parameters, the same formula
    two, loss = frames.take([0, 5]), LossSettings()
    exact = exact_diagonal(model, two, loss)
    found = gauss_newton_diagonal(model, two, loss, seed=1, n_probes=200)
    found = torch.cat([values.flatten() for values in found.values()])
    assert found.sum().item() == pytest.approx(exact.sum().item(), rel=0.1)
    large = exact > exact.max() / 100
    assert (found[large] / exact[large]).median().item() == pytest.approx(1, abs=0.1)
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.98


def test_the_diagonal_is_there_where_squared_gradients_of_the_loss_vanish(frames, source, pretrained):
    few = source.frames.take([0, 1])
    model = start_model("model-aware", frames, pretrained=pretrained, references="pretrained").model
    (batch,) = step_loader(few, range(2), batch_size=2)
    batch = batch.to("cpu", torch.float32)
    parameters = [p for p in model.parameters() if p.requires_grad]
    (part,) = list(differentiate_parts(model, batch, parameters, LossSettings()))
    empirical = sum(float(g.square().sum()) for g in part.gradients if g is not None)
    diagonal = gauss_newton_diagonal(model, few, LossSettings())
    total = sum(float(values.sum()) for values in diagonal.values())
    assert empirical < 1e-6 * total
    assert list(diagonal) == [name for name, p in model.named_parameters() if p.requires_grad]
    again = ElasticWeights(strength=3.0).stiffness(model, source, LossSettings())
    assert torch.equal(again, ElasticWeights(strength=3.0).stiffness(model, source, LossSettings()))


def test_without_labels_there_is_nothing_to_weigh(frames, pretrained):
    with pytest.raises(StrategyError, match="none of the source frames has a label"):
        gauss_newton_diagonal(pretrained, without_labels(frames), LossSettings())


# --- replay ---


def test_every_step_gets_its_share_of_source_frames_each_of_them_in_turn(frames):
    loader = step_loader(
        frames, range(8), batch_size=4, source=np.array([8, 9, 10]), source_share=0.5, source_apart=True, seed=3
    )
    seen = []
    for epoch in (0, 1, 2):
        loader.set_epoch(epoch)
        for batch in loader:
            drawn = np.concatenate([part.indices for part in batch.micro if part.is_source])
            others = np.concatenate([part.indices for part in batch.micro if not part.is_source])
            assert len(drawn) == 2
            assert len(others) == 4
            assert batch.n_frames == 6
            assert batch.n_labels["energy"] == 6
            assert batch.weight == 1
            seen += drawn.tolist()
    assert [sorted(seen[k : k + 3]) for k in range(0, 12, 3)] == [[8, 9, 10]] * 4
    loader.set_epoch(1)
    again = [p.indices.tolist() for batch in loader for p in batch.micro if p.is_source]
    assert [k for rows in again for k in rows] == seen[4:8]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.29, 1.0, 1.7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 16])
def test_the_share_of_source_frames_is_the_asked_one_at_every_batch_size(frames, batch_size, share):
    """Over every epoch to one frame, and each source frame in turn, also where a step has room for a part of one."""
    source, n_epochs = np.array([9, 10, 11]), 12
    loader = step_loader(
        frames, range(9), batch_size=batch_size, source=source, source_share=share, source_apart=True, seed=3
    )
    drawn, targets, weights = [], [], 0.0
    for epoch in range(n_epochs):
        loader.set_epoch(epoch)
        before, n_seen = len(drawn), len(targets)
        for batch in loader:
            of_step = [int(k) for part in batch.micro if part.is_source for k in part.indices]
            others = [int(k) for part in batch.micro if not part.is_source for k in part.indices]
            assert abs(len(of_step) - share * len(others)) < 1
            assert batch.n_frames == len(of_step) + len(others)
            assert batch.weight == pytest.approx(batch.n_frames / (len(others) * (1 + share)))
            weights += batch.weight * len(others) / batch.n_frames  # of the mean over a step, what its target has
            drawn += of_step
            targets += others
        assert sorted(targets[n_seen:]) == list(range(9))
        assert abs(len(drawn) - before - share * 9) <= 1
    assert len(drawn) == int(round(share * 9 * n_epochs, 6))
    assert weights == pytest.approx(len(list(loader)) * n_epochs / (1 + share))
    times = [drawn.count(frame) for frame in source]
    assert max(times) - min(times) <= 1
    ranks = [
        list(
            step_loader(
                frames, range(9), batch_size=batch_size, source=source, source_share=share, rank=r, world_size=2, seed=3
            )
        )
        for r in (0, 1)
    ]
    loader.set_epoch(0)
    for batch, pair in zip(loader, zip(*ranks, strict=True), strict=True):
        assert sorted(k for part in batch.micro for k in part.indices) == sorted(
            k for one in pair for part in one.micro for k in part.indices
        )
        assert [one.weight for one in pair] == [batch.weight] * 2


def test_source_frames_share_batches_with_the_others_where_one_readout_reads_all(frames):
    options = {"batch_size": 4, "source": np.array([8, 9, 10]), "source_share": 0.5}
    apart = list(step_loader(frames, range(8), source_apart=True, **options))
    for one, two in zip(step_loader(frames, range(8), **options), apart, strict=True):
        assert not any(part.is_source for part in one.micro)
        assert len(one.micro) == 1 < len(two.micro)
        assert sorted(one.micro[0].indices) == sorted(k for part in two.micro for k in part.indices)
        assert one.n_labels == two.n_labels


def test_shares_of_several_processes_make_up_the_step(frames):
    options = {"batch_size": 4, "source": np.array([8, 9, 10]), "source_share": 0.6, "source_apart": True}
    whole = [sorted(k for p in b.micro for k in p.indices) for b in step_loader(frames, range(8), **options)]
    ranks = [list(step_loader(frames, range(8), rank=r, world_size=2, **options)) for r in (0, 1)]
    both = [sorted(k for b in pair for p in b.micro for k in p.indices) for pair in zip(*ranks, strict=True)]
    assert both == whole


def test_replayed_energies_are_moved_to_the_references_of_the_target(frames, source, pretrained):
    model = start_model("replay", frames, pretrained=pretrained, source=source).model
    moved = source.moved_to(element_references(model))
    predicted = predict(model, moved.crystals)["energy_per_atom_ev"]
    np.testing.assert_allclose(predicted, moved.energy_per_atom_ev, atol=2e-5)  # zero loss at the start
    np.testing.assert_array_equal(moved.forces_ev_per_a, source.frames.forces_ev_per_a)


def test_real_labels_are_kept_and_get_references_of_their_own(frames, pretrained):
    real = label_with_model(pretrained, frames)
    shifted = real.energy_per_atom_ev + 0.3
    source = make_source(replace_labels(real, energy_per_atom_ev=shifted), pretrained)
    assert source.labelled_by == "data"
    np.testing.assert_array_equal(source.frames.energy_per_atom_ev, shifted)
    change = frames.composition @ (source.references_ev - np.nan_to_num(element_references(pretrained)))
    np.testing.assert_allclose(change, 0.3, atol=0.02)  # a pull of a hundredth of a material to the prior


# --- files ---


@pytest.fixture(scope="module", params=LATER)
def run(request, frames, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    return request.param, finetune(
        request.param, frames, split=SPLIT, max_steps=3, batch_size=4, out=out, progress=False
    )


def test_stock_chgnet_loads_what_is_a_chgnet_and_gives_the_same_numbers(run, frames):
    key, result = run
    tensors = load_model(result.out / "best.safetensors")
    for one, two in zip(
        flat(predict(tensors, frames.crystals)), flat(predict(result.model, frames.crystals)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    if key == "delta":
        assert not (result.out / "best.pt").exists()
        with pytest.raises(CheckpointError, match="no place for a correction network"):
            xf.save_model(result.model, result.out.parent / "delta.pt")
        return
    with contextlib.redirect_stdout(io.StringIO()):
        stock = import_chgnet("chgnet.model").CHGNet.from_file(str(result.out / "best.pt"))
    structure = frames.crystals.take([0]).to_structures()[0]
    theirs, ours = stock.predict_structure(structure), predict(result.model, [structure])
    assert theirs["e"] == pytest.approx(ours["energy_per_atom_ev"][0], abs=1e-4)
    np.testing.assert_allclose(theirs["f"], ours["forces_ev_per_a"][0], atol=2e-4)
    np.testing.assert_allclose(theirs["s"], ours["stress_gpa"][0], atol=5e-3)
    names = set(load_model("0.3.0").state_dict())
    assert set(result.model.state_dict()) == names


def test_training_has_moved_something_and_a_finished_run_is_read_back(run, frames):
    key, result = run
    start = start_model("model-aware", frames.take(SPLIT["train"])).model
    before, after = (predict(m, frames.crystals)["energy_per_atom_ev"] for m in (start, result.last_model))
    assert not np.array_equal(before, after)
    again = finetune(key, frames, split=SPLIT, max_steps=3, batch_size=4, out=result.out, progress=False)
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    assert again.metrics == result.metrics
    assert (again.forgetting is None) == (result.forgetting is None)
    if result.forgetting is not None:
        assert again.forgetting.to_dict() == result.forgetting.to_dict()


def test_other_options_are_another_run(run, frames):
    key, result = run
    options = {"lora": {"rank": 2}, "replay": {"share": 0.5}, "l2-sp": {"strength": 0.5}}.get(key)
    if options is None:
        pytest.skip("one of each kind")
    settings = {"split": SPLIT, "max_steps": 3, "batch_size": 4, "out": result.out, "progress": False}
    with pytest.raises(RunError, match=r"options\."):
        finetune(key, frames, options=options, **settings)


def test_each_readout_has_its_file(frames, tmp_path):
    result = finetune(
        "two-readouts", frames, split=SPLIT, max_steps=2, batch_size=4, out=tmp_path / "run", progress=False
    )
    about = json.loads((result.out / "run.json").read_text())
    assert about["functional"] == "high"  # frames given as such have no other name for it
    source = load_model(result.out / "best-source.pt")
    for one, two in zip(
        flat(predict(source, frames.crystals)), flat(predict(result.source_model, frames.crystals)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    for name, tensor in source.state_dict().items():  # one backbone
        same = torch.equal(tensor, result.model.state_dict()[name])
        assert same or name.startswith((*READOUT, "composition_model.")), name
    assert find_model_file(result.out, "high").name == "best.pt"
    with pytest.raises(RunError, match="no model for 'hse06'; the run has high"):
        find_model_file(result.out, "hse06")


def test_a_model_in_training_is_not_saved(frames, source, tmp_path):
    for key in ("lora", "two-readouts"):
        model = start_model(key, frames, source=source).model
        with pytest.raises(CheckpointError, match="one in training"):
            xf.save_model(model, tmp_path / "model.pt")


# --- options ---


def test_options_are_fields_of_the_strategy():
    assert METHODS["lora"].with_options({"rank": 2}).strategy == LoRA(2)
    assert METHODS["l2-sp"].with_options({"strength": 1}).strategy == PullToStart(1)
    assert METHODS["4"].with_options({}) is METHODS["4"]
    for strategy, options, words in (
        (LoRA(), {"rnk": 2}, "no option 'rnk'; it has rank"),
        (LoRA(), {"rank": 2.5}, "rank: expected a whole number, got 2.5"),
        (PullToStart(), {"strength": -1.0}, "strength: expected a number at least 0, got -1"),
        (None, {"rank": 2}, "no option 'rank'; it has none"),
    ):
        with pytest.raises(StrategyError, match=words):
            change_strategy(strategy, options)


# --- other corrections ---


def test_any_correction_of_the_frozen_features_has_forces_that_are_its_slope(frames, pretrained, tmp_path):
    class OnFeatures(torch.nn.Module):
        """A stand-in for a regression on frozen features."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.linspace(-0.1, 0.1, 64))

        def forward(self, inputs):
            site = torch.tanh(inputs.features @ self.weight)
            return site, torch.zeros_like(site)

    model = start_model("model-aware", frames, pretrained=pretrained, references="pretrained").model
    crystals = frames.crystals.take([1])
    plain = predict(model, crystals)
    add_correction(model, OnFeatures())
    model = model.double()
    there = predict(model, crystals)
    assert abs(there["energy_per_atom_ev"][0] - plain["energy_per_atom_ev"][0]) > 1e-3
    step, n_atoms = 1e-4, int(crystals.n_atoms[0])
    energies = []
    for sign in (1, -1):
        coords = crystals.frac_coords.copy()
        coords[0] += sign * step * np.array([1, 0, 0]) @ np.linalg.inv(crystals.lattices_a[0])
        moved = Crystals(crystals.atomic_numbers, coords, crystals.lattices_a, crystals.n_atoms)
        energies.append(n_atoms * predict(model, moved)["energy_per_atom_ev"][0])
    slope = (energies[0] - energies[1]) / (2 * step)
    assert -slope == pytest.approx(there["forces_ev_per_a"][0][0, 0], abs=1e-5)
    with pytest.raises(CheckpointError, match="a file can hold a SmallNetwork as correction, not OnFeatures"):
        xf.save_model(model, tmp_path / "model.safetensors")


def test_the_share_of_a_rank_is_that_of_the_leading_singular_values():
    before = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(1, 4))
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[0].weight += torch.diag(torch.tensor([3.0, 4.0, 0.0, 0.0]))
        after[2].weight += 1  # one input: of rank one whatever it is
    share = share_of_low_rank(before, after, 1)
    assert list(share.index) == ["0"]  # the second has not moved
    assert share["0"] == pytest.approx(16 / 25)
    assert share_of_low_rank(before, after, 2)["0"] == pytest.approx(1)


def test_squared_errors_curve_twice_as_much_and_absolute_ones_not_at_all(frames, pretrained):
    model, few = start_model("readout-only", frames, pretrained=pretrained).model, frames.take([0])
    huber, squared = (gauss_newton_diagonal(model, few, LossSettings(kind=kind)) for kind in ("huber", "mse"))
    assert all(torch.equal(2 * huber[name], squared[name]) for name in huber)
    with pytest.raises(StrategyError, match="'mae' has no curvature at zero error"):
        gauss_newton_diagonal(model, few, LossSettings(kind="mae"))


def test_a_new_network_draws_from_the_cpus_generator_alone(monkeypatch):
    """`torch.manual_seed` would seed the generators of all GPUs too, and not give them back."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.default_generator.get_state()
    one, other = SmallNetwork(4, seed=7), SmallNetwork(4, seed=7)
    assert torch.equal(torch.default_generator.get_state(), before)
    assert torch.equal(one.elements.weight, other.elements.weight)
    assert not torch.equal(one.elements.weight, SmallNetwork(4, seed=8).elements.weight)
    assert seeded == []


def test_a_start_in_double_precision_is_made_single(frames, pretrained):
    made = start_model("3", frames, pretrained=copy.deepcopy(pretrained).double()).model
    assert {p.dtype for p in made.parameters()} == {torch.float32}
