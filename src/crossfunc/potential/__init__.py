"""CHGNet: the same numbers, over flat batches of crystals."""

from crossfunc.potential.checkpoints import (
    CheckpointError,
    element_references,
    read_provenance,
    save_model,
    scratch_model,
    set_element_references,
)
from crossfunc.potential.chgnet import load_model, predict
from crossfunc.potential.crystals import Crystals
from crossfunc.potential.features import crystal_features

__all__ = [
    "CheckpointError",
    "Crystals",
    "crystal_features",
    "element_references",
    "load_model",
    "predict",
    "read_provenance",
    "save_model",
    "scratch_model",
    "set_element_references",
]
