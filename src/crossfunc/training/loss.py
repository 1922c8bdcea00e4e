"""The loss: a weighted mean per target over whatever labels are present, in parts that add up.

Labels of one optimiser step may lie in several micro-batches and on several devices. Each of them divides its sums by
the label counts of the *whole* step, so that losses and gradients of the parts add up to those of the joined batch.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from crossfunc.training.labels import TARGETS

KINDS = ("huber", "mse", "mae")

OUTPUTS = {
    "energy": "energy_per_atom_ev",
    "forces": "forces_ev_per_a",
    "stress": "stress_gpa",
    "magmoms": "magmoms_mub",
}


class LossError(ValueError):
    """Loss settings or labels that cannot be used; the message says which and what to give."""


@dataclass(frozen=True)
class LossSettings:
    """Kind of loss and the weight of each target; the defaults are those of the paper's Method 4.

    Attributes
    ----------
    kind : "huber", "mse" or "mae"
        Loss of an error e: Huber, e²/2 for |e| <= δ, else δ (|e| - δ/2); squared, e²; absolute, |e|.
    delta : float
        δ of the Huber loss, the same number for all targets: eV/atom, eV/Å, GPa and μB.
    energy, forces, stress, magmoms : float
        Weights; 0 leaves a target out of the loss, but not out of the errors.
    """

    kind: str = "huber"
    delta: float = 0.1
    energy: float = 3.0
    forces: float = 1.0
    stress: float = 0.1
    magmoms: float = 1.0

    def __post_init__(self):
        """Refuse a kind, δ or weight that defines no loss."""
        if self.kind not in KINDS:
            raise LossError(f"loss {self.kind!r}: choose one of {', '.join(KINDS)}.")
        if not (math.isfinite(self.delta) and self.delta > 0):
            raise LossError(f"delta={self.delta}: give a number > 0.")
        for target, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise LossError(f"weight of {target} is {weight}: give a number >= 0.")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each target in the loss."""
        return {target: getattr(self, target) for target in TARGETS}


def batch_loss(
    output: dict[str, torch.Tensor],
    labels: dict[str, torch.Tensor],
    n_labels: dict[str, int],
    settings: LossSettings,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Loss of one micro-batch, Σ_t w_t Σ_i l(prediction_ti - label_ti) / N_t, over the labels i that are present.

    Parameters
    ----------
    output : dict of Tensor
        As `forward` returns it; without derivatives, forces and stress count as not labelled.
    labels : dict of Tensor
        Target to labels in the shape of the prediction, NaN where there is none. Moments are compared as |m|.
    n_labels : dict of int
        N_t, numbers labelled in the whole step: all its micro-batches, on all devices.
    settings : LossSettings

    Returns
    -------
    loss : Tensor
        0 where nothing is labelled, with gradients that are 0, not NaN.
    parts : dict of Tensor
        Each target's weighted contribution; they sum to `loss` and keep their graph.
    abs_errors : dict of Tensor
        Each target's Σ_i |prediction - label|, detached and unweighted, in the label's unit.

    Raises
    ------
    LossError
        Labels of another shape than the prediction; names the target.

    Notes
    -----
    With every label present this is chgnet's `CombinedLoss`, which is NaN where all labels of a target are missing.
    Lesson 4.
    """
    parts, abs_errors = {}, {}
    for target in TARGETS:
        predicted = output.get(OUTPUTS[target])
        weight = getattr(settings, target)
        if predicted is None:
            parts[target] = abs_errors[target] = output["energy_per_atom_ev"].new_zeros(())
            continue
        error = _masked_error(target, predicted if weight else predicted.detach(), labels[target])
        parts[target] = _total(error, settings) * (weight / max(n_labels[target], 1))
        abs_errors[target] = error.detach().abs().sum()
    return sum(parts.values()), parts, abs_errors


def _masked_error(target: str, predicted: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Prediction minus label, 0 where there is no label; masked before the arithmetic, so its gradient is 0 too."""
    if predicted.shape != label.shape:
        raise LossError(f"{target}: predictions have shape {tuple(predicted.shape)}, labels {tuple(label.shape)}.")
    present = ~torch.isnan(label)
    dtype = torch.promote_types(predicted.dtype, torch.float32)  # half precision has no digits for sums
    label = torch.where(present, label.abs() if target == "magmoms" else label, 0).to(dtype)
    return torch.where(present, predicted.to(dtype), 0) - label


def _total(error: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    zero = torch.zeros_like(error)
    if settings.kind == "huber":
        return functional.huber_loss(error, zero, reduction="sum", delta=settings.delta)
    if settings.kind == "mse":
        return functional.mse_loss(error, zero, reduction="sum")
    return functional.l1_loss(error, zero, reduction="sum")
