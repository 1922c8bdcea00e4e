"""CHGNet: the same numbers, over flat batches of crystals; and any other potential behind ASE's interface."""

from crossfunc.potential.ase_model import AseModel, as_model, load_calculator
from crossfunc.potential.calculator_source import CalculatorError
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
    "AseModel",
    "CalculatorError",
    "CheckpointError",
    "Crystals",
    "as_model",
    "crystal_features",
    "element_references",
    "load_calculator",
    "load_model",
    "predict",
    "read_provenance",
    "save_model",
    "scratch_model",
    "set_element_references",
]
