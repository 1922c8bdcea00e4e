"""The loss on whatever labels are there: closed forms, chgnet's own, parts that add up, and never NaN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfunc.training.labels import TARGETS
from crossfunc.training.loss import LossError, LossSettings, batch_loss
from crossfunc.vendor import import_chgnet

N_ATOMS = (2, 1, 3)
KEYS = dict(zip(TARGETS, ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub"), strict=True))


def made_up(seed=0, scale=1.0):
    """Predictions that require gradients, and labels, of three crystals of 2, 1 and 3 atoms."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"energy": (3,), "forces": (6, 3), "stress": (3, 3, 3), "magmoms": (6,)}

    def draw(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64) * scale

    output = {KEYS[t]: draw(shape).abs() if t == "magmoms" else draw(shape) for t, shape in shapes.items()}
    labels = {t: draw(shape) for t, shape in shapes.items()}
    return {key: value.requires_grad_() for key, value in output.items()}, labels


def count(labels):
    return {target: int((~torch.isnan(label)).sum()) for target, label in labels.items()}


def part_of(output, labels, crystals):
    """The same predictions and labels, of some of the crystals only."""
    atoms = torch.cat([torch.arange(6).split(N_ATOMS)[k] for k in crystals])
    rows = {"energy": crystals, "forces": atoms, "stress": crystals, "magmoms": atoms}
    return {KEYS[t]: output[KEYS[t]][rows[t]] for t in TARGETS}, {t: labels[t][rows[t]] for t in TARGETS}


def gradients(loss, output):
    found = torch.autograd.grad(loss, list(output.values()), allow_unused=True)
    return [torch.zeros_like(o) if g is None else g for g, o in zip(found, output.values(), strict=True)]


def test_one_frame_has_the_loss_that_a_hand_computes():
    output = {
        "energy_per_atom_ev": torch.tensor([-1.0]),
        "forces_ev_per_a": torch.tensor([[0.05, 0.0, 0.0]]),
        "stress_gpa": torch.zeros(1, 3, 3),
        "magmoms_mub": torch.tensor([2.0]),
    }
    labels = {
        "energy": torch.tensor([-1.5]),  # error 0.5: Huber 0.1 (0.5 - 0.05) = 0.045
        "forces": torch.zeros(1, 3),  # one of three components off by 0.05: 0.05² / 2 / 3
        "stress": torch.full((1, 3, 3), 1.05),  # 0.1 (1.05 - 0.05) = 0.1
        "magmoms": torch.tensor([-2.0]),  # the sign does not count
    }
    loss, parts, abs_errors = batch_loss(output, labels, count(labels), LossSettings())
    expected = {"energy": 3 * 0.045, "forces": 0.00125 / 3, "stress": 0.1 * 0.1, "magmoms": 0.0}
    assert {t: float(part) for t, part in parts.items()} == pytest.approx(expected, abs=1e-8)
    assert loss.item() == pytest.approx(sum(expected.values()))
    assert {t: float(e) for t, e in abs_errors.items()} == pytest.approx(
        {"energy": 0.5, "forces": 0.05, "stress": 9 * 1.05, "magmoms": 0}
    )


@pytest.mark.parametrize(("kind", "theirs"), [("huber", "Huber"), ("mse", "MSE"), ("mae", "MAE")])
def test_a_fully_labelled_batch_has_the_loss_of_chgnet(kind, theirs):
    output, labels = made_up(scale=0.2)
    chosen = LossSettings(kind=kind, delta=0.15, energy=3, forces=1.5, stress=0.1, magmoms=0.7)
    loss, _, abs_errors = batch_loss(output, labels, count(labels), chosen)
    criterion = import_chgnet("chgnet.trainer.trainer").CombinedLoss(
        target_str="efsm",
        criterion=theirs,
        energy_loss_ratio=3,
        force_loss_ratio=1.5,
        stress_loss_ratio=0.1,
        mag_loss_ratio=0.7,
        delta=0.15,
    )
    split = {"f": "forces", "m": "magmoms"}
    targets = {k: list(labels[t].split(N_ATOMS)) for k, t in split.items()}
    targets["m"] = [m.abs() for m in targets["m"]]  # its dataset takes them
    targets |= {"e": labels["energy"], "s": list(labels["stress"])}
    predicted = {k: list(output[KEYS[t]].split(N_ATOMS)) for k, t in split.items()}
    predicted |= {"e": output["energy_per_atom_ev"], "s": list(output["stress_gpa"])}
    reference = criterion(targets, predicted)
    assert loss.item() == pytest.approx(reference["loss"].item(), rel=1e-12)
    assert float(abs_errors["forces"]) / 18 == pytest.approx(float(reference["f_MAE"]), rel=1e-12)
    for ours, chgnets in zip(gradients(loss, output), gradients(reference["loss"], output), strict=True):
        torch.testing.assert_close(ours, chgnets, rtol=1e-12, atol=1e-15)


@given(mask=st.lists(st.booleans(), min_size=54, max_size=54), kind=st.sampled_from(["huber", "mse", "mae"]))
@settings(max_examples=50, deadline=None)
def test_micro_batches_add_up_to_the_joined_batch_whatever_is_labelled(mask, kind):
    output, labels = made_up(seed=1)
    start = 0
    for target in TARGETS:
        hidden = torch.tensor(mask[start : start + labels[target].numel()]).reshape(labels[target].shape)
        labels[target][hidden] = float("nan")
        start += labels[target].numel()
    chosen, n_labels = LossSettings(kind=kind), count(labels)
    joined, parts, abs_errors = batch_loss(output, labels, n_labels, chosen)
    pieces = [batch_loss(*part_of(output, labels, crystals), n_labels, chosen) for crystals in ([2], [0, 1])]
    torch.testing.assert_close(pieces[0][0] + pieces[1][0], joined, rtol=1e-12, atol=0)
    for target in TARGETS:
        torch.testing.assert_close(pieces[0][1][target] + pieces[1][1][target], parts[target], rtol=1e-12, atol=0)
        torch.testing.assert_close(pieces[0][2][target] + pieces[1][2][target], abs_errors[target], rtol=1e-12, atol=0)
    whole = gradients(joined, output)
    for ours, one, two in zip(whole, *(gradients(p[0], output) for p in pieces), strict=True):
        torch.testing.assert_close(one + two, ours, rtol=1e-12, atol=0)
        assert torch.isfinite(ours).all()


def test_missing_labels_count_neither_in_the_sum_nor_in_the_mean():
    output, labels = made_up()
    labels["forces"][2:] = float("nan")  # of the second and third crystal
    _, parts, abs_errors = batch_loss(output, labels, count(labels), LossSettings(kind="mae"))
    difference = (output["forces_ev_per_a"] - labels["forces"])[:2].abs()
    assert float(parts["forces"]) == pytest.approx(float(difference.mean()))
    assert float(abs_errors["forces"]) == pytest.approx(float(difference.sum()))


@pytest.mark.parametrize("kind", ["huber", "mse", "mae"])
def test_without_any_label_loss_and_gradients_are_zero_not_nan(kind):
    output, labels = made_up()
    labels = {target: torch.full_like(label, float("nan")) for target, label in labels.items()}
    loss, parts, abs_errors = batch_loss(output, labels, count(labels), LossSettings(kind=kind))
    assert loss.item() == 0
    assert all(float(v) == 0 for v in (*parts.values(), *abs_errors.values()))
    assert loss.requires_grad
    for gradient in torch.autograd.grad(loss, list(output.values())):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_prediction_that_overflows_where_nothing_is_labelled_does_no_harm():
    output, labels = made_up()
    with torch.no_grad():
        output["stress_gpa"][1] = float("inf")
    labels["stress"][1] = float("nan")
    loss, _, _ = batch_loss(output, labels, count(labels), LossSettings())
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients(loss, output))


def test_a_weight_of_zero_leaves_a_target_out_of_the_loss_but_not_out_of_the_errors():
    output, labels = made_up()
    loss, parts, abs_errors = batch_loss(output, labels, count(labels), LossSettings(forces=0, stress=0))
    assert float(parts["forces"]) == 0
    assert float(abs_errors["forces"]) > 0
    assert torch.autograd.grad(loss, output["forces_ev_per_a"], allow_unused=True) == (None,)


def test_without_derivatives_forces_and_stress_count_as_not_labelled():
    output, labels = made_up()
    kept = {key: output[key] for key in ("energy_per_atom_ev", "magmoms_mub")}
    loss, parts, _ = batch_loss(kept, labels, count(labels), LossSettings())
    assert float(parts["forces"]) == float(parts["stress"]) == 0
    assert loss.item() == pytest.approx(float(parts["energy"] + parts["magmoms"]))


def test_half_precision_predictions_are_summed_in_float32():
    output, labels = made_up()
    half = {key: value.detach().bfloat16() for key, value in output.items()}
    single = {target: label.float() for target, label in labels.items()}
    loss, _, _ = batch_loss(half, single, count(labels), LossSettings())
    assert loss.dtype == torch.float32


def test_labels_of_another_shape_are_refused_not_broadcast():
    output, labels = made_up()
    labels["energy"] = labels["energy"][:, None]
    with pytest.raises(LossError, match=r"energy: predictions have shape \(3,\), labels \(3, 1\)"):
        batch_loss(output, labels, count(labels), LossSettings())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "l2"}, "loss 'l2': choose one of huber, mse, mae"),
        ({"delta": 0}, "delta=0: give a number > 0"),
        ({"forces": -1}, "weight of forces is -1"),
        ({"stress": float("nan")}, "weight of stress is nan"),
    ],
)
def test_settings_that_define_no_loss_are_refused(wrong, message):
    with pytest.raises(LossError, match=message):
        LossSettings(**wrong)


def test_default_weights_are_those_of_the_papers_method_4():
    assert LossSettings().weights == {"energy": 3, "forces": 1, "stress": 0.1, "magmoms": 1}
    np.testing.assert_equal((LossSettings().kind, LossSettings().delta), ("huber", 0.1))
