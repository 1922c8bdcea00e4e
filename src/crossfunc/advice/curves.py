r"""Learning curves of cheap stand-ins for training: what an error becomes with more materials, in seconds.

The network stays as it is; what it knows of a crystal (`crystal_features`, `atom_features`) is regressed on what it
leaves of the labels. For energies that is kernel ridge regression after new element references, for forces a
correction of the network's own, :math:`f_a = (1 + w \cdot (1, v_a)) F_a`, which turns with the crystal. Both are
solved at their optimum, so a curve has no optimiser, no schedule and no budget in it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crossfunc.advice.forecast import SeenCurve
from crossfunc.advice.offsets import N_FOLDS, judged_residuals, material_means
from crossfunc.energies import fit_atomref, material_folds
from crossfunc.errors import InputError
from crossfunc.training.frozen import fit_frozen_correction
from crossfunc.training.labels import LabelledFrames

__all__ = ["EnergyTask", "ForceTask", "LearningCurve", "energy_task", "force_task", "halvings", "learning_curve"]

REFERENCE_RIDGE = 0.1
"""Pull of references towards the prior, in materials: an element of few materials stays near it."""
FORCE_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidate ridges of the force correction, as shares of the mean diagonal."""
HELD_OUT = 0.2
"""Share of the materials that judge a draw."""
MIN_MATERIALS = 6


@dataclass(frozen=True, eq=False)
class EnergyTask:
    """Energies to learn from features, a row for each frame.

    Attributes
    ----------
    features : ndarray, shape (n_frames, n_features)
    residual_ev : ndarray, shape (n_frames,)
        What is to be learnt, eV/atom: what references that were fitted to other materials leave.
    material_ids : ndarray of str, shape (n_frames,)
    rows : ndarray of int, shape (n_frames,)
        Which of the frames given they are.
    unit : str
        Unit of the errors.
    """

    features: np.ndarray
    residual_ev: np.ndarray
    material_ids: np.ndarray
    rows: np.ndarray
    unit: str = "meV/atom"

    def errors(self, train: np.ndarray, held: np.ndarray, seed: int = 0) -> np.ndarray:
        """Mean absolute error of each held-out material, meV/atom.

        Parameters
        ----------
        train, held : ndarray of str
            Materials.
        seed : int
            Seed of the inner folds.
        """
        fitted, judged = np.isin(self.material_ids, train), np.isin(self.material_ids, held)
        ids = self.material_ids[fitted]
        fit = fit_frozen_correction(
            self.features[fitted], self.residual_ev[fitted], ids, n_splits=min(4, len(train)), seed=seed
        )
        error = np.abs(self.residual_ev[judged] - fit.predict(self.features[judged]))
        return 1000 * material_means(error, self.material_ids[judged])


@dataclass(frozen=True, eq=False)
class ForceTask:
    """Forces to learn as a correction of the model's own, from the features of each atom.

    Attributes
    ----------
    atom_features : ndarray, shape (n_atoms, n_features)
    model_ev_per_a, label_ev_per_a : ndarray, shape (n_atoms, 3)
    atom_materials : ndarray of str, shape (n_atoms,)
    """

    atom_features: np.ndarray
    model_ev_per_a: np.ndarray
    label_ev_per_a: np.ndarray
    atom_materials: np.ndarray
    unit: str = "meV/Å"

    @cached_property
    def material_ids(self) -> np.ndarray:
        """Materials, one entry for each."""
        return np.unique(self.atom_materials)

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, dict]:
        """Design (3 n_atoms, n_features + 1), what is left (3 n_atoms,), and the rows of each material."""
        scale = self.atom_features.std(axis=0)
        x = (self.atom_features - self.atom_features.mean(axis=0)) / np.where(scale < 1e-9, 1.0, scale)
        x = np.hstack([np.ones((len(x), 1)), x])
        design = (self.model_ev_per_a[:, :, None] * x[:, None, :]).reshape(-1, x.shape[1])
        left = (self.label_ev_per_a - self.model_ev_per_a).ravel()
        owner = np.repeat(np.searchsorted(self.material_ids, self.atom_materials), 3)
        order = np.argsort(owner, kind="stable")
        rows = np.split(order, np.searchsorted(owner[order], np.arange(1, len(self.material_ids))))
        return design, left, dict(zip(self.material_ids, rows, strict=True))

    @cached_property
    def _normal(self) -> dict:
        """Gram matrix and right side of each material, each counted once however many atoms it has."""
        design, left, rows = self._rows
        return {
            name: (design[r].T @ design[r] / len(r), design[r].T @ left[r] / len(r), left[r] @ left[r] / len(r))
            for name, r in rows.items()
        }

    def errors(self, train: np.ndarray, held: np.ndarray, seed: int = 0) -> np.ndarray:
        """Mean absolute error of each held-out material, meV/Å; parameters as of `EnergyTask.errors`."""
        normal = [self._normal[name] for name in train]
        folds = material_folds(np.asarray(train), min(4, len(train)), seed)
        ridge = min(FORCE_RIDGES, key=lambda one: self._inner_error(normal, folds, one))
        weights = _solve(normal, ridge)
        design, left, rows = self._rows
        return 1000 * np.array([np.abs(left[rows[n]] - design[rows[n]] @ weights).mean() for n in held])

    @staticmethod
    def _inner_error(normal: list, folds: np.ndarray, ridge: float) -> float:
        total = 0.0
        for k in np.unique(folds):
            w = _solve([one for one, fold in zip(normal, folds, strict=True) if fold != k], ridge)
            held = [one for one, fold in zip(normal, folds, strict=True) if fold == k]
            total += sum(c - 2 * w @ b + w @ gram @ w for gram, b, c in held)
        return total


def _solve(normal: list, ridge: float) -> np.ndarray:
    gram, right = sum(one[0] for one in normal), sum(one[1] for one in normal)
    # In materials: few of them move the correction little, many as far as they say.
    pull = ridge * np.trace(gram) / len(gram) + 1e-12
    return np.linalg.solve(gram + pull * np.eye(len(gram)), right)


def energy_task(features, fractions, residual_ev, material_ids, prior_ev=None, *, seed: int = 0) -> EnergyTask:
    """Put together what an energy curve needs: references are taken off first, so that no curve has them in it.

    How references become better with more materials is a matter of which elements these hold, which can be counted;
    in a learning curve of few materials it would hide everything else.

    Parameters
    ----------
    features : ndarray, shape (n_frames, n_features)
    fractions : array of shape (n_frames, 94), may be sparse
        Atomic fractions.
    residual_ev : array_like, shape (n_frames,)
        Label minus prediction, eV/atom; frames where it is not finite are left out.
    material_ids : array_like of str, shape (n_frames,)
    prior_ev : array_like, shape (94,), optional
        Shift of element references that is known beforehand, which few materials are pulled to.
    seed : int
        Seed of the folds: each material's references are fitted to the other folds. One whose references these do
        not fix, and that has no prior, is left out.
    """
    X = fractions if not hasattr(fractions, "toarray") else fractions.toarray()
    residual, ids = np.asarray(residual_ev, float), np.asarray(material_ids)
    given = np.flatnonzero(np.isfinite(residual))
    X, residual, ids, features = X[given], residual[given], ids[given], np.asarray(features)[given]
    folds = material_folds(ids, min(N_FOLDS, len(np.unique(ids))), seed)
    left = np.full(len(residual), np.nan)
    for k in np.unique(folds):
        train, held = folds != k, folds == k
        if prior_ev is None:
            fit = fit_atomref(X[train], residual[train], material_ids=ids[train])
            left[held] = judged_residuals(fit, X[held], residual[held])
        else:
            options = {"ridge": REFERENCE_RIDGE, "prior": np.asarray(prior_ev), "absent": "prior"}
            fit = fit_atomref(X[train], residual[train], material_ids=ids[train], **options)
            left[held] = fit.remove(X[held], residual[held])
    there = np.isfinite(left)
    return EnergyTask(features[there], left[there], ids[there], given[there])


def force_task(model, frames: LabelledFrames, forces_ev_per_a=None) -> ForceTask:
    """Put together what a force curve needs, from the atoms that have a label and a prediction.

    Parameters
    ----------
    model : CHGNet
        Whose atom features are regressed on.
    frames : LabelledFrames
    forces_ev_per_a : array_like, shape (n_atoms, 3), optional
        Predictions to be corrected, of whichever model, NaN where it has none; by default those of `model`.
    """
    from crossfunc.potential import predict
    from crossfunc.potential.features import atom_features

    labelled = frames.labelled("forces")
    if forces_ev_per_a is not None:
        atoms = np.isfinite(np.asarray(forces_ev_per_a, float)).all(axis=1)
        labelled = labelled & (np.bincount(frames.crystals.owners, atoms, minlength=len(frames)) > 0)
    rows = np.flatnonzero(labelled)
    if not len(rows):
        return ForceTask(np.zeros((0, 1)), np.zeros((0, 3)), np.zeros((0, 3)), np.array([], dtype=str))
    some = frames.take(rows)
    if forces_ev_per_a is None:
        predicted = np.concatenate(predict(model, some.crystals)["forces_ev_per_a"])
    else:
        predicted = np.asarray(forces_ev_per_a, float)[frames.crystals.atom_indices(rows)]
    label, ids = some.forces_ev_per_a.astype(float), some.material_ids[some.crystals.owners]
    there = (np.isfinite(label) & np.isfinite(predicted)).all(axis=1)
    return ForceTask(atom_features(model, some.crystals)[there], predicted[there], label[there], ids[there])


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Errors of a stand-in for several numbers of training materials.

    Attributes
    ----------
    table : pandas.DataFrame
        `n_materials`, `draw` and `error`, the mean over the draw's held-out materials.
    n_looked_at : int
        Materials, training and held out.
    unit : str
        Unit of the errors.
    """

    table: object
    n_looked_at: int
    unit: str

    @property
    def seen(self) -> SeenCurve:
        """What a forecast starts from."""
        return SeenCurve.of(self.table, self.n_looked_at)


def learning_curve(task, materials, sizes, *, n_draws: int = 6, seed: int = 0) -> LearningCurve:
    """Errors of a stand-in on held-out materials, for several numbers of training materials.

    Parameters
    ----------
    task : EnergyTask or ForceTask
    materials : array_like of str
        Materials that training and held-out ones are drawn from: all that is looked at.
    sizes : sequence of int
        Numbers of training materials; those that leave too few to judge are passed over.
    n_draws, seed : int
        Each draw holds out a fifth of the materials and takes others from the rest, the smaller sets within the larger.

    Raises
    ------
    InputError
        Fewer than five materials.
    """
    import pandas as pd

    materials = np.unique(materials)
    if len(materials) < MIN_MATERIALS:
        raise InputError(f"{len(materials)} materials: a learning curve needs {MIN_MATERIALS}; label more.")
    n_held = max(1, round(HELD_OUT * len(materials)))
    usable = [int(size) for size in sorted(set(sizes)) if 2 <= size <= len(materials) - n_held]
    rng = np.random.default_rng(seed)
    rows = []
    for draw in range(n_draws):
        order = rng.permutation(materials)
        for size in usable:
            errors = task.errors(order[n_held : n_held + size], order[:n_held], seed + draw)
            rows.append((size, draw, float(errors.mean())))
    table = pd.DataFrame(rows, columns=["n_materials", "draw", "error"])
    return LearningCurve(table, len(materials), task.unit)


def halvings(n_materials: int, n_sizes: int = 4) -> list[int]:
    """Numbers of training materials for a curve: all that are not held out, half of them, and so on."""
    largest = n_materials - max(1, round(HELD_OUT * n_materials))
    return sorted({size for k in range(n_sizes) if (size := round(largest / 2**k)) >= 2})
