"""CHGNet: the same numbers, over flat batches of crystals."""

from crossfunc.potential.chgnet import load_model, predict
from crossfunc.potential.crystals import Crystals

__all__ = ["Crystals", "load_model", "predict"]
