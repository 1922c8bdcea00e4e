"""The part of a model's error that element references take away, and what is left of it on materials not fitted.

With p the predictions, y the labels and X the atomic fractions, the offsets are d = argmin Σ w |X d - (y - p)|²: what
to add to the model for each atom of an element. A model with these added has the labels' zero of energy.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from crossfunc.energies import AtomRefFit, fit_atomref, material_folds, published_atomref
from crossfunc.energies.atomref import judge

RIDGE = 0.01
"""Pull of offsets towards the prior, in materials: nothing beside ten materials with an element."""
N_FOLDS = 5
_BASELINE = "composition alone"


@dataclass(frozen=True)
class Sample:
    """What one set of labels and a model's predictions have in common, a row per frame.

    Attributes
    ----------
    X : csr array, shape (n_rows, 94)
        Atomic fractions.
    label_ev, predicted_ev : ndarray, shape (n_rows,)
        eV/atom.
    material_ids : ndarray of str, shape (n_rows,)
    """

    X: csr_array
    label_ev: np.ndarray
    predicted_ev: np.ndarray
    material_ids: np.ndarray

    @property
    def difference_ev(self) -> np.ndarray:
        """Label minus prediction, eV/atom."""
        return self.label_ev - self.predicted_ev

    @property
    def n_materials(self) -> int:
        """Number of distinct materials."""
        return len(np.unique(self.material_ids))

    def take(self, rows) -> "Sample":
        """Return some of the rows."""
        return Sample(self.X[rows], self.label_ev[rows], self.predicted_ev[rows], self.material_ids[rows])


def offset_sample(model, dataset, *functional: str) -> tuple[Sample, dict[str, str]]:
    """Energies of a dataset's frames and of a model, and the frames that it refused with the reason."""
    from crossfunc.training.evaluate import predict_frames
    from crossfunc.training.labels import LabelledFrames

    found = predict_frames(model, LabelledFrames.from_dataset(dataset, *functional))
    frames = found.frames
    rows = np.flatnonzero(np.isfinite(frames.energy_per_atom_ev))
    energies = frames.energy_per_atom_ev[rows], found.energy_per_atom_ev[rows]
    return Sample(frames.composition[rows], *energies, frames.material_ids[rows]), found.refused


def fit_offsets(sample: Sample, *, ridge: float = 0.0, prior=None, absent: str = "nan") -> AtomRefFit:
    """Offset per element with its standard error, d = argmin Σ w |X d - (y - p)|² + ridge |d - prior|².

    Each material counts once. Parameters are those of `fit_atomref`.
    """
    return fit_atomref(
        sample.X,
        sample.difference_ev,
        material_ids=sample.material_ids,
        ridge=ridge,
        prior=prior,
        absent=absent,
        source="offsets to add to the model: label - prediction",
    )


_ZEROS = {
    "MP-r2SCAN": "r²SCAN of the Materials Project",
    "MPtrj": "GGA/GGA+U of the Materials Project, MP2020-corrected",
    "MPF": "GGA/GGA+U of the Materials Project, uncorrected",
}
_TABLE_OF_LABELS = {("r2scan", "raw"): "MP-r2SCAN", ("gga", "mp2020"): "MPtrj", ("gga", "raw"): "MPF"}


def published_zeros(functional: str, energy_kind: str) -> dict[str, np.ndarray]:
    """Offsets to expect of models with one of the published zeros of energy, if the labels have theirs.

    Parameters
    ----------
    functional, energy_kind : str
        Functional of the labels, and kind of their energies.

    Returns
    -------
    dict of str to ndarray, shape (94,)
        Name of the zero to table of the labels less table of the zero, eV/atom; empty for labels without a published
        table. Elements that a table lacks follow the trend of the others with Z².
    """
    own = _TABLE_OF_LABELS.get((functional, energy_kind))
    if own is None:
        return {}
    return {name: _shift(table, own) for table, name in _ZEROS.items()}


def _shift(low: str, high: str) -> np.ndarray:
    """Shift of element references between two published tables."""
    first, second = published_atomref(low), published_atomref(high)
    shift = second.energies_ev - first.energies_ev
    known = np.isfinite(shift) & first.determined & second.determined
    z_squared = np.arange(1, len(shift) + 1, dtype=np.float64) ** 2
    slope = shift[known] @ z_squared[known] / (z_squared[known] @ z_squared[known])
    return np.where(known, shift, slope * z_squared)


def nearest_zero(sample: Sample, zeros: dict[str, np.ndarray]) -> np.ndarray:
    """The expected offsets that fit best, each material counted once; zero is always among them."""
    candidates = [np.zeros(sample.X.shape[1]), *zeros.values()]
    weight = _weights(sample.material_ids)
    left = [weight @ np.abs(sample.difference_ev - sample.X @ shift) for shift in candidates]
    return candidates[int(np.argmin(left))]


def held_out_residuals(sample: Sample, zeros: dict, inside: np.ndarray | None, seed: int = 0) -> dict:
    """Residuals with each kind of references, always of materials that these were not fitted to, eV/atom.

    Parameters
    ----------
    sample : Sample
    zeros : dict of str to ndarray, shape (94,)
        Offsets that published tables let one expect, from `published_zeros`: the nearest one is the prior.
    inside : ndarray, shape (94,), or None
        The references inside the model, where they are known.
    seed : int
        Seed of the folds.

    Returns
    -------
    dict of str to ndarray, shape (n_rows,)
        NaN where the other materials do not fix a row's references.
    """
    folds = material_folds(sample.material_ids, min(N_FOLDS, sample.n_materials), seed)
    kinds = [*([] if inside is None else ["plain references"]), "model-aware references", "with a prior", _BASELINE]
    found = {name: np.full(len(folds), np.nan) for name in kinds}
    for k in np.unique(folds):
        train, test = sample.take(folds != k), sample.take(folds == k)
        for name, residual in found.items():
            residual[folds == k] = _residual(name, train, test, zeros, inside)
    return {"as it is": sample.difference_ev} | found


def _residual(name: str, train: Sample, test: Sample, zeros: dict, inside) -> np.ndarray:
    """Residuals of the test rows with references fitted to the training rows."""
    if name == "model-aware references":
        return judged_residuals(fit_offsets(train), test.X, test.difference_ev)
    if name == "with a prior":
        fit = fit_offsets(train, ridge=RIDGE, prior=nearest_zero(train, zeros), absent="prior")
        return fit.remove(test.X, test.difference_ev)
    # "plain": references refitted to the labels, as if the network added nothing for an element.
    network = test.predicted_ev - test.X @ inside if name == "plain references" else 0.0
    plain = fit_atomref(train.X, train.label_ev, material_ids=train.material_ids)
    return judged_residuals(plain, test.X, test.label_ev - network)


def judged_residuals(fit: AtomRefFit, X, energy_ev: np.ndarray) -> np.ndarray:
    """Residuals of the rows that the fitted data can be held to, NaN for the others."""
    residual, judged, _, _ = judge(fit, X, energy_ev)
    found = np.full(len(energy_ev), np.nan)
    found[judged] = residual
    return found


def error_table(residuals: dict, material_ids: np.ndarray) -> list[dict]:
    """A row for each kind of references: mean and median absolute error over materials, all on the same materials."""
    common = np.isfinite(np.stack(list(residuals.values()))).all(axis=0)
    rows = []
    for name, residual in residuals.items():
        means = material_means(np.abs(residual[common]), material_ids[common])
        there = np.isfinite(residual)
        everywhere = material_means(np.abs(residual[there]), material_ids[there])
        error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        rows.append(
            {
                "references": name,
                "mae_ev_per_atom": _or_none(means.mean() if len(means) else np.nan),
                "std_error_ev_per_atom": _or_none(error),
                "median_ev_per_atom": _or_none(np.median(means) if len(means) else np.nan),
                "n_materials": len(means),
                "mae_of_all_ev_per_atom": _or_none(everywhere.mean() if len(everywhere) else np.nan),
                "n_materials_of_all": len(everywhere),
            }
        )
    return rows


def material_means(values: np.ndarray, material_ids: np.ndarray) -> np.ndarray:
    """Mean of the values of each material, in the order of the sorted ids."""
    _, group, count = np.unique(material_ids, return_inverse=True, return_counts=True)
    return np.bincount(group, values, minlength=len(count)) / count


def _weights(material_ids: np.ndarray) -> np.ndarray:
    """Weight of each row, so that each material counts once."""
    _, group, count = np.unique(material_ids, return_inverse=True, return_counts=True)
    return 1.0 / count[group]


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
