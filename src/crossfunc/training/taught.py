"""A start that knows the low functional from the data at hand, so that the functional is all that is left to change.

A published model has learned the low functional from another code, with other pseudopotentials and settings. Where a
dataset has both functionals on the same structures, the model can be taught its low labels first.
"""

import numpy as np

from crossfunc.datasets import Dataset
from crossfunc.potential import predict
from crossfunc.training.labels import LabelledFrames, has_frames
from crossfunc.training.methods import as_model
from crossfunc.training.source import replace_labels, without_labels

TEACHING_METHOD = "model-aware-trained"
"""How a start is taught: references fitted to what the model leaves of the low energies, then all weights."""

OWN_LABELS_EV_PER_ATOM = 1e-3
"""A model whose energies differ from labels by less has made them itself: rounding alone is left."""

_LOOKED_AT = 16  # frames that tell whose labels they are
_ENOUGH = 0.5  # of the training frames must have labels of both functionals
_LABELS = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")


def low_labels(dataset: Dataset, frames: LabelledFrames, functional: str = "low") -> LabelledFrames | None:
    """Return the same crystals with the labels that a dataset has for them in its low functional.

    Parameters
    ----------
    dataset : Dataset
    frames : LabelledFrames
        Frames of the dataset's high functional.
    functional : str
        The other one: "low", "high", or a key or name.

    Returns
    -------
    LabelledFrames or None
        Frame by frame those of `frames`, so that a split of one is a split of the other; NaN where no frame of the
        other functional is the same crystal to the last bit. None where none is, as where the dataset has no frame of
        that functional.

    Raises
    ------
    DatasetError
        The dataset has no such functional, or frames of it that cannot be read: damaged, without any energy, or with
        energies of two kinds.
    """
    if not has_frames(dataset, functional):
        return None
    others = LabelledFrames.from_dataset(dataset, functional)
    at = {key: row for row, key in enumerate(_crystal_keys(others))}
    found = np.array([at.get(key, -1) for key in _crystal_keys(frames)])
    there = np.flatnonzero(found >= 0)
    if not len(there):
        return None
    other, empty = others.take(found[there]), without_labels(frames)
    atoms = frames.crystals.atom_indices(there)
    labels = {name: getattr(empty, name) for name in _LABELS}
    for name, rows in zip(_LABELS, (there, atoms, there, atoms), strict=True):
        labels[name][rows] = getattr(other, name)
    return replace_labels(frames, **labels)


def labels_to_teach(dataset: Dataset, frames: LabelledFrames, pretrained="0.3.0") -> LabelledFrames | None:
    """Return the low functional's labels of these crystals, None where a model has nothing to learn from them.

    Parameters
    ----------
    dataset : Dataset
    frames : LabelledFrames
        Frames of its high functional.
    pretrained : str, path or CHGNet
        The model that is to be taught.

    Returns
    -------
    LabelledFrames or None
        As from `low_labels`. None where fewer than half of the frames have low labels, where the high labels have
        forces and the low ones have none (energies alone would bend the forces), and where the low labels are those
        that the model itself gives.

    Raises
    ------
    DatasetError
        As from `low_labels`: labels that are there and cannot be read are no reason to begin without them.
    """
    low = low_labels(dataset, frames)
    if low is None:
        return None
    teaches = low.labelled("energy")
    if frames.labelled("forces").any():
        teaches &= low.labelled("forces")
    rows = np.flatnonzero(teaches)
    if len(rows) < _ENOUGH * len(frames):
        return None
    some = low.take(rows[np.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).astype(int)])
    own = predict(as_model(pretrained), some.crystals, derivatives=False)["energy_per_atom_ev"]
    is_own = np.median(np.abs(some.energy_per_atom_ev - own)) < OWN_LABELS_EV_PER_ATOM
    return None if is_own else low


def _crystal_keys(frames: LabelledFrames) -> list[bytes]:
    """What makes two frames the same crystal: elements, cell and coordinates, bit by bit."""
    crystals = frames.crystals
    per_atom = (crystals.split(crystals.atomic_numbers), crystals.split(crystals.frac_coords))
    return [
        np.ascontiguousarray(numbers).tobytes() + np.ascontiguousarray(at).tobytes() + cell.tobytes()
        for numbers, at, cell in zip(*per_atom, crystals.lattices_a, strict=True)
    ]
