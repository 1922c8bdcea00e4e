"""What a training run can be told: one frozen value, checked once, written into every run folder."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np


class SettingsError(ValueError):
    """A setting that does not exist or cannot have this value; the message names it and what it can be."""


LOSSES = ("huber", "mse", "mae")
OPTIMIZERS = ("adam", "adamw")
PRECISIONS = ("32", "64", "tf32")
LOGGERS = ("csv", "tensorboard")
ACCELERATORS = ("auto", "cpu", "gpu")

MAY_CHANGE = frozenset({"devices", "n_nodes", "accelerator", "n_workers", "compile", "max_angles", "logger"})
"""Settings that say where and how fast a run computes, not what: a run may be resumed with others."""


@dataclass(frozen=True)
class Settings:
    """Everything about a training run but the method and the data.

    The defaults are those of the paper's fine-tuning: Huber loss (3 energy + 1 force + 0.1 stress + 1 magmom), Adam at
    1e-3 with a cosine schedule, 50 epochs; batch size 16.

    Attributes
    ----------
    n_epochs : int
        Passes over the training frames; 0 only fits the references and measures.
    max_steps : int, optional
        Take exactly this many optimiser steps instead, in as many epochs as they need: an equal optimisation budget
        for training sets of different size.
    batch_size : int
        Frames per optimiser step, over all devices together.
    learning_rate, final_learning_rate_fraction, warmup_steps
        Linear warm-up, then a cosine per optimiser step whose last step has `final_learning_rate_fraction` times
        `learning_rate`, however few steps there are. A fraction of 1 keeps it constant.
    optimizer, weight_decay
        "adam" or "adamw".
    loss, huber_delta, energy_weight, force_weight, stress_weight, magmom_weight
        See `crossfunc.training.loss`; `huber_delta` in eV/atom, eV/Å, GPa, μB alike, as in chgnet.
    gradient_clip : float, optional
        Largest norm of the whole gradient.
    ema_decay : float, optional
        Validate, keep and return the exponential moving average of the weights instead of the weights.
    precision : {"32", "64", "tf32"}
        "tf32" is mixed precision for GPUs with tensor cores: matrix products of float32 numbers rounded to 10 bits,
        all else in float32, validation included. Weights stay float32; elsewhere it is the same as "32".
    early_stopping_patience : int, optional
        Stop after this many validations in a row without a lower validation loss.
    validate_every_n_epochs : int
        A validation, a row of the history and a checkpoint always go together; the last epoch always has them.
    seed, split_seed : int
        Order of the frames (and the weights of method 1), and the split by material where none is given.
    compile : bool
        Let `torch.compile` fuse PyTorch's operations, for a GPU: slow to start, then faster. It changes nothing on a
        CPU that the library is compiled for anyway.
    max_angles : int, optional
        Bounds the memory of one forward pass; None takes the default of `build_graphs`. Larger steps are computed
        in parts that add up to the same gradient.
    n_workers : int
        Processes that build graphs ahead; 0 builds them in the training process.
    devices : int or "auto"
        Devices (or CPU processes) of each node.
    n_nodes : int
    accelerator : {"auto", "cpu", "gpu"}
        "auto" is the GPU where there is one.
    logger : {"csv", "tensorboard"}
        `history.csv` is always there; "tensorboard" writes its files beside it.
    """

    n_epochs: int = 50
    max_steps: int | None = None
    batch_size: int = 16
    learning_rate: float = 1e-3
    final_learning_rate_fraction: float = 0.01
    warmup_steps: int = 0
    optimizer: str = "adam"
    weight_decay: float = 0.0
    loss: str = "huber"
    huber_delta: float = 0.1
    energy_weight: float = 3.0
    force_weight: float = 1.0
    stress_weight: float = 0.1
    magmom_weight: float = 1.0
    gradient_clip: float | None = None
    ema_decay: float | None = None
    precision: str = "32"
    early_stopping_patience: int | None = None
    validate_every_n_epochs: int = 1
    seed: int = 0
    split_seed: int = 0
    compile: bool = False
    max_angles: int | None = None
    n_workers: int = 0
    devices: int | str = 1
    n_nodes: int = 1
    accelerator: str = "auto"
    logger: str = "csv"

    def __post_init__(self):
        """Refuse values that cannot mean anything."""
        object.__setattr__(self, "precision", str(self.precision))  # 64 is what a command line makes of it
        for name, (kind, low, high) in _NUMBERS.items():
            _check_number(name, getattr(self, name), kind, low, high)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name}: {getattr(self, name)!r} is none of {', '.join(allowed)}.")
        if not isinstance(self.compile, bool):
            raise SettingsError(f"compile: expected true or false, got {self.compile!r}.")
        if self.devices != "auto":
            _check_number("devices", self.devices, int, 1, math.inf)
        if not any(self.weights.values()):
            raise SettingsError("all four loss weights are 0: nothing would be learned; set energy_weight, for one.")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each target in the loss."""
        return {
            "energy": self.energy_weight,
            "forces": self.force_weight,
            "stress": self.stress_weight,
            "magmoms": self.magmom_weight,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values by name, as they are written to `run.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Build from values by name.

        Raises
        ------
        SettingsError
            A name that is no setting (the message suggests one), or a value that a setting cannot have.
        """
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}."
                raise SettingsError(f"no setting {name!r}; {hint}")
        return cls(**values)


_NUMBERS: dict[str, tuple[type, float, float]] = {  # smallest and largest value; None is allowed where it is default
    "n_epochs": (int, 0, math.inf),
    "max_steps": (int, 1, math.inf),
    "batch_size": (int, 1, math.inf),
    "learning_rate": (float, 0, math.inf),
    "final_learning_rate_fraction": (float, 0, 1),
    "warmup_steps": (int, 0, math.inf),
    "weight_decay": (float, 0, math.inf),
    "huber_delta": (float, 1e-12, math.inf),
    "energy_weight": (float, 0, math.inf),
    "force_weight": (float, 0, math.inf),
    "stress_weight": (float, 0, math.inf),
    "magmom_weight": (float, 0, math.inf),
    "gradient_clip": (float, 1e-12, math.inf),
    "ema_decay": (float, 0, 1),
    "early_stopping_patience": (int, 1, math.inf),
    "validate_every_n_epochs": (int, 1, math.inf),
    "seed": (int, 0, math.inf),
    "split_seed": (int, 0, math.inf),
    "max_angles": (int, 1, math.inf),
    "n_workers": (int, 0, math.inf),
    "n_nodes": (int, 1, math.inf),
}
_CHOICES = {
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "precision": PRECISIONS,
    "accelerator": ACCELERATORS,
    "logger": LOGGERS,
}


def _check_number(name: str, value, kind: type, low: float, high: float) -> None:
    if value is None and name in Settings.__dataclass_fields__ and getattr(Settings, name) is None:
        return
    allowed = int if kind is int else (int, float)
    # NaN fails both comparisons; infinity is no setting either
    if isinstance(value, bool) or not isinstance(value, allowed) or not (low <= value <= high and math.isfinite(value)):
        noun = "a whole number" if kind is int else "a number"
        bounds = f">= {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise SettingsError(f"{name}: expected {noun} {bounds}, got {value!r}.")


def learning_rate_at(step: int, n_steps: int, settings: Settings) -> float:
    r"""Learning rate of optimiser step `step` of `n_steps`, both counted from 0.

    After :math:`w` steps of linear warm-up, :math:`\eta_k = \eta\,[f + (1 - f)\,(1 + \cos \pi x)/2]` with
    :math:`x = (k - w)/(n - 1 - w)`: the first step after the warm-up has :math:`\eta`, the last one :math:`f\eta`.
    A pure function of the step, so that a resumed run needs no state of a scheduler; chgnet's own scheduler acts ten
    times per epoch and does not reach its minimum with fewer than ten batches (lesson 7).
    """
    warmup = min(settings.warmup_steps, n_steps - 1)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    x = (step - warmup) / max(1, n_steps - 1 - warmup)
    f = settings.final_learning_rate_fraction
    return settings.learning_rate * (f + (1 - f) * (1 + math.cos(math.pi * min(1.0, x))) / 2)


def chgnet_learning_rates(n_batches: int, n_epochs: int, fraction: float = 0.01) -> np.ndarray:
    r"""Learning rate before each step of chgnet's Trainer, over the first: a cosine that counts tenths of epochs.

    :math:`\eta_k / \eta_0 = f + (1 - f) (1 + \cos(\pi k / 10 n_\mathrm{epochs})) / 2`, where k is one more after the
    batches :math:`\lfloor i\, n_\mathrm{batches} / 10 \rfloor` of an epoch, i = 1 to 10; those of them that fall on
    one batch count once, and batch 0 does not exist.

    Parameters
    ----------
    n_batches : int
        Batches of an epoch.
    n_epochs : int
    fraction : float
        f, the rate that is meant to be the last over the first.

    Returns
    -------
    ndarray, shape (n_batches * n_epochs,)
    """
    acts = set(np.arange(1, 11) * n_batches // 10)  # batches, from 1
    is_followed = np.array([batch in acts for batch in range(1, n_batches + 1)] * n_epochs)
    k = np.cumsum(is_followed) - is_followed
    return fraction + (1 - fraction) * (1 + np.cos(np.pi * k / (10 * n_epochs))) / 2
