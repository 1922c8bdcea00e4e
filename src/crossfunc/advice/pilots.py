r"""Short fine-tunings beside the stand-in for training, on the same materials: how much better, or worse, training is.

The stand-in regresses energies on what a frozen network knows. A pilot trains that network for a few epochs on the same
materials and is judged on the same held-out ones, both on energies of which references have been taken, so that
:math:`\log r = \overline{\log e_\text{trained} - \log e_\text{stand-in}}` over a few draws says what training does
beyond the stand-in, and an element that is met for the first time hides nothing.
"""

from dataclasses import asdict, dataclass

import numpy as np

from crossfunc.advice.curves import HELD_OUT, EnergyTask
from crossfunc.advice.offsets import material_means
from crossfunc.potential import predict
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.source import replace_labels

__all__ = ["Pilot", "run_pilot", "trained_error"]

N_DRAWS = 3


@dataclass(frozen=True)
class Pilot:
    """What short fine-tunings came to.

    Attributes
    ----------
    n_epochs, n_draws : int
    error, stand_in : float
        Geometric means over the draws, meV/atom.
    ratio : float
        The first over the second.
    seconds : float
        Time of all draws.
    n_train_frames : int
        Training frames of one draw, on average.
    """

    n_epochs: int
    n_draws: int
    error: float
    stand_in: float
    ratio: float
    seconds: float
    n_train_frames: float

    def to_dict(self) -> dict:
        """Return plain values."""
        return asdict(self)


def trained_error(
    model, frames: LabelledFrames, task: EnergyTask, train, held, *, n_epochs: int, seed: int = 0
) -> tuple[float, float, int]:
    """Fine-tune a model on materials, and measure it on others.

    Parameters
    ----------
    model : CHGNet
    frames : LabelledFrames
        What the task was made from.
    task : EnergyTask
        Its residuals are what the model leaves once references are taken.
    train, held : array_like of str
        Materials.
    n_epochs : int
    seed : int

    Returns
    -------
    error : float
        Mean over the held-out materials of their mean absolute energy error, meV/atom.
    seconds : float
    n_train_frames : int
    """
    from crossfunc.training.fit import finetune

    chosen = np.flatnonzero(np.isin(task.material_ids, np.concatenate([train, held])))
    some = frames.take(task.rows[chosen])
    begun = predict(model, some.crystals, derivatives=False)["energy_per_atom_ev"]
    some = replace_labels(some, energy_per_atom_ev=begun + task.residual_ev[chosen])
    is_held = np.isin(task.material_ids[chosen], held)
    rows = {"train": np.flatnonzero(~is_held), "validation": np.flatnonzero(is_held)}
    given = {"pretrained": model, "n_epochs": n_epochs, "validate_every_n_epochs": n_epochs, "progress": False}
    run = finetune("3", some, split=rows, seed=seed, **given)
    judged = some.take(rows["validation"])
    after = predict(run.last_model, judged.crystals, derivatives=False)["energy_per_atom_ev"]
    error = np.abs(after - judged.energy_per_atom_ev)
    return float(1000 * material_means(error, judged.material_ids).mean()), run.seconds, len(rows["train"])


def run_pilot(
    model, frames: LabelledFrames, task: EnergyTask, materials, *, n_epochs: int, n_draws: int = N_DRAWS, seed: int = 0
) -> Pilot:
    """Fine-tune a model for a few epochs on four fifths of some materials, beside the stand-in, a few times.

    Parameters
    ----------
    model, frames, task, n_epochs
        As of `trained_error`.
    materials : array_like of str
        All that may be looked at.
    n_draws, seed : int

    Returns
    -------
    Pilot
    """
    materials = np.unique(materials)
    n_held = max(1, round(HELD_OUT * len(materials)))
    rng = np.random.default_rng(seed)
    rows = []
    for draw in range(n_draws):
        order = rng.permutation(materials)
        held, train = order[:n_held], order[n_held:]
        error, seconds, n = trained_error(model, frames, task, train, held, n_epochs=n_epochs, seed=seed + draw)
        rows.append((np.log(error), np.log(task.errors(train, held, seed + draw).mean()), seconds, n))
    error, stand_in, seconds, n = np.mean(rows, axis=0)
    errors = float(np.exp(error)), float(np.exp(stand_in))
    return Pilot(n_epochs, n_draws, *errors, float(np.exp(error - stand_in)), float(n_draws * seconds), float(n))
