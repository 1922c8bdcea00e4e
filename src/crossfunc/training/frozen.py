"""A frozen network with a regression on top: energies corrected by kernel ridge on what the network knows.

No optimiser, no schedule, no budget: whatever references a method starts from, the regression is solved at its optimum
in seconds, so methods can be compared where training them all to the end would take a night. It says nothing about
forces, nor about a network that may move. As a model of its own (`FrozenModel`) it is delta learning without training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfunc.energies import material_folds
from crossfunc.errors import InputError
from crossfunc.potential import Crystals, crystal_features, element_references, predict
from crossfunc.potential.direct import DirectModel

if TYPE_CHECKING:
    from sklearn.kernel_ridge import KernelRidge

WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Candidate widths of the kernel, in units of the median distance between training crystals."""
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Candidate ridges, as shares of the kernel's diagonal."""


@dataclass(frozen=True, eq=False)
class FrozenCorrection:
    """A fitted correction to energies per atom, from features of crystals.

    Attributes
    ----------
    width, ridge : float
        Chosen by cross-validation over the training materials.
    n_crystals : int
        Fitted to.
    """

    width: float
    ridge: float
    n_crystals: int
    _regressor: "KernelRidge"
    _centre: np.ndarray
    _scale: np.ndarray
    _mean_ev: float

    def predict(self, features) -> np.ndarray:
        """Correction of the energy, eV/atom, shape (n_crystals,)."""
        return self._regressor.predict((np.asarray(features) - self._centre) / self._scale) + self._mean_ev


def fit_frozen_correction(
    features, residual_per_atom_ev, material_ids, *, n_splits: int = 4, seed: int = 0
) -> FrozenCorrection:
    r"""Kernel ridge regression of what a model leaves of the energies, on its own features of the crystals.

    :math:`\Delta(x) = \bar r + \sum_i a_i \exp(-|x - x_i|^2 / 2 w^2)` with :math:`a = (K + \lambda)^{-1}(r - \bar r)`;
    features are scaled to unit variance, width :math:`w` and ridge :math:`\lambda` chosen on folds of the materials.

    Parameters
    ----------
    features : ndarray, shape (n_crystals, n_features)
        From `crystal_features`.
    residual_per_atom_ev : array_like, shape (n_crystals,)
        Label minus prediction.
    material_ids : array_like, shape (n_crystals,)
        A material is in one fold only.
    n_splits, seed : int
        Inner folds.

    Returns
    -------
    FrozenCorrection

    Raises
    ------
    ValueError
        Arrays of different lengths, values that are not finite, or fewer materials than folds.
    """
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import euclidean_distances

    x, r, ids = np.asarray(features, float), np.asarray(residual_per_atom_ev, float), np.asarray(material_ids)
    if not (len(x) == len(r) == len(ids)) or not (np.isfinite(x).all() and np.isfinite(r).all()):
        raise InputError(
            f"{len(x)} crystals, {len(r)} residuals and {len(ids)} ids must match row by row and be finite: leave out "
            "crystals without a graph or a label."
        )
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-9] = 1.0  # a feature that never changes says nothing
    x = (x - centre) / scale
    mean = float(r.mean())
    fold = material_folds(ids, n_splits, seed)
    median = _median_distance(x)
    squared = euclidean_distances(x, squared=True)  # once: all candidates share it

    def gamma(width):
        return 1 / (2 * (width * median) ** 2)

    def errors(width):
        """Mean absolute error of each ridge on held-out crystals, all ridges from one diagonalisation per fold."""
        kernel, left = np.exp(-gamma(width) * squared), np.empty((len(RIDGES), len(r)))
        for k in range(n_splits):
            train, held = fold != k, fold == k
            values, vectors = np.linalg.eigh(kernel[np.ix_(train, train)])
            along, outer = vectors.T @ (r[train] - mean), kernel[np.ix_(held, train)] @ vectors
            shrunk = along / (values + np.array(RIDGES)[:, None])
            left[:, held] = r[held] - mean - shrunk @ outer.T
        return np.abs(left).mean(axis=1)

    tried = {(w, a): error for w in WIDTHS for a, error in zip(RIDGES, errors(w), strict=True)}
    width, ridge = min(tried, key=tried.__getitem__)
    regressor = KernelRidge(kernel="rbf", gamma=gamma(width), alpha=ridge).fit(x, r - mean)
    return FrozenCorrection(width, ridge, len(r), regressor, centre, scale, mean)


@dataclass(frozen=True, eq=False)
class FrozenModel(DirectModel):
    """A network that stays as it is, and a regression beside it: E = E_0 + Delta(x), with the forces of E_0.

    Attributes
    ----------
    network : CHGNet
    correction : FrozenCorrection
        What is added to the energies alone: forces, stresses and moments are the network's.
    """

    network: Any
    correction: FrozenCorrection

    @property
    def references_ev(self) -> np.ndarray:
        """Element references of the network, eV/atom."""
        return element_references(self.network)

    def predict(
        self, crystals: Crystals, *, derivatives: bool = True, strict: bool = True, progress: bool = False
    ) -> dict:
        """As `crossfunc.potential.predict`."""
        result = predict(self.network, crystals, derivatives=derivatives, strict=strict, progress=progress)
        known = np.setdiff1d(np.arange(len(crystals)), list(result["refused"]))
        features = crystal_features(self.network, crystals.take(known))
        result["energy_per_atom_ev"][known] += self.correction.predict(features)
        return result


def fit_frozen_model(network, frames, *, seed: int = 0) -> FrozenModel:
    """Fit a regression beside a network to what it leaves of the energies of frames.

    Parameters
    ----------
    network : CHGNet
        With references for the labels' functional; see `start_model`.
    frames : LabelledFrames
        Those without an energy are passed over.
    seed : int
        Seed of the folds that choose the kernel.

    Returns
    -------
    FrozenModel
    """
    some = frames.take(np.flatnonzero(frames.labelled("energy")))
    left = some.energy_per_atom_ev - predict(network, some.crystals, derivatives=False)["energy_per_atom_ev"]
    features = crystal_features(network, some.crystals)
    return FrozenModel(network, fit_frozen_correction(features, left, some.material_ids, seed=seed))


def cross_validate_frozen(
    features, residual_of, material_ids, *, groups=None, n_splits: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals of held-out crystals after the correction, eV/atom, each from a fold it was not fitted to.

    Parameters
    ----------
    features : ndarray, shape (n_crystals, n_features)
    residual_of : callable
        Gets a mask of the training crystals, returns label minus prediction of *all* crystals, eV/atom: whatever the
        start fits, element references for one, it fits to these alone.
    material_ids : array_like, shape (n_crystals,)
    groups : array_like, shape (n_crystals,), optional
        What is held out whole, also where width and ridge are chosen: formulas, say, or structure types. Default: the
        materials.
    n_splits, seed : int
        Outer folds.

    Returns
    -------
    before, after, fold : ndarray, shape (n_crystals,) each
        Residuals without and with the correction, and the fold in which each crystal was held out.
    """
    ids = np.asarray(material_ids if groups is None else groups)
    fold = material_folds(ids, n_splits, seed)
    before, after = np.empty(len(ids)), np.empty(len(ids))
    for k in range(n_splits):
        train, held = fold != k, fold == k
        residual = np.asarray(residual_of(train), float)
        fit = fit_frozen_correction(features[train], residual[train], ids[train], seed=seed)
        before[held] = residual[held]
        after[held] = residual[held] - fit.predict(features[held])
    return before, after, fold


def _median_distance(x: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    distances = pdist(x[:: max(1, len(x) // 1000)])
    return float(np.median(distances)) if len(distances) and np.median(distances) > 0 else 1.0
