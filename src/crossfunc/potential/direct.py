"""What predicts crystals by itself: anything but a CHGNet, whose graphs the library builds and batches."""

from abc import ABC, abstractmethod

import numpy as np

from crossfunc.potential.crystals import Crystals
from crossfunc.symbols import N_ELEMENTS

__all__ = ["DirectModel"]


class DirectModel(ABC):
    """A model that `predict` and `evaluate` hand crystals to as they are.

    Attributes
    ----------
    references_ev : ndarray, shape (94,)
        Element references that the model adds to its energies, eV/atom; NaN where it has none, or they are not known.
    """

    references_ev: np.ndarray = np.full(N_ELEMENTS, np.nan)

    @abstractmethod
    def predict(self, crystals: Crystals, *, derivatives: bool = True, strict: bool = True, progress: bool = False):
        """As `crossfunc.potential.predict`."""
