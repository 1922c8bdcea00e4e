"""What costs nothing: the errors that any training has to beat, and when a curve may be quoted."""

import copy

import numpy as np

from crossfunc.bootstrap import Estimate, estimate_of_sums, mean_error
from crossfunc.potential import predict
from crossfunc.potential.checkpoints import element_references, set_element_references
from crossfunc.training.evaluate import FramePredictions
from crossfunc.training.labels import METRIC_SCALES, METRICS, LabelledFrames

REFIT_RIDGE = 1e-6
"""Pull of a final refit towards the references that the model has, in materials: it decides what the frames leave open,
and nothing else. A pull that can be felt leaves part of an offset of many eV, and judges the references after all."""


def predict_zero(frames: LabelledFrames) -> FramePredictions:
    """Predict no force, no stress and no moment for every frame; NaN for the energy, of which zero says nothing.

    Parameters
    ----------
    frames : LabelledFrames

    Returns
    -------
    FramePredictions
    """
    n, n_atoms = len(frames), len(frames.crystals.atomic_numbers)
    nothing = np.zeros((n_atoms, 3)), np.zeros((n, 3, 3)), np.zeros(n_atoms)
    return FramePredictions(frames, np.arange(n), np.full(n, np.nan), *nothing)


def zero_errors(frames: LabelledFrames) -> dict[str, float | None]:
    """Errors of predicting no force, no stress and no moment: the means of the labels' absolute values.

    Parameters
    ----------
    frames : LabelledFrames

    Returns
    -------
    dict
        The names of `evaluate`; None for the energy, where zero is no prediction anyone would make, and where nothing
        is labelled.
    """
    errors = predict_zero(frames).metrics()
    return {name: errors[name] for name in METRICS.values()}


def refit_references(model, frames_train: LabelledFrames, *, ridge: float = REFIT_RIDGE):
    """Copy of a trained model whose references are fitted to what it leaves of its own training energies.

    What composition explains is taken out of the comparison: what remains is what the network has learned, or lost.

    Parameters
    ----------
    model : CHGNet
    frames_train : LabelledFrames
        The frames it was trained on; each material counts once.
    ridge : float
        Pull towards the references the model has, in materials.

    Returns
    -------
    CHGNet
        Forces, stresses and moments are those of the model to the last bit.

    Raises
    ------
    AtomRefError
        No frame with an energy.
    """
    change = last_refit_ev(model, frames_train, ridge=ridge)
    refitted = copy.deepcopy(model)
    energies = np.nan_to_num(element_references(model)) + change
    set_element_references(refitted, energies, source=f"last refit of a trained model to {len(frames_train)} frames")
    return refitted


def last_refit_ev(model, frames_train: LabelledFrames, *, ridge: float = REFIT_RIDGE) -> np.ndarray:
    """Change of a trained model's references that its own training energies ask for, eV/atom, shape (94,).

    Zero for elements that the frames do not hold. Parameters and errors as for `refit_references`.
    """
    from crossfunc.energies import AtomRefError, fit_atomref

    rows = np.flatnonzero(frames_train.labelled("energy"))
    if not len(rows):
        raise AtomRefError(f"none of the {len(frames_train)} training frames has an energy to fit references to.")
    some = frames_train.take(rows)
    residual = some.energy_per_atom_ev - predict(model, some.crystals, derivatives=False)["energy_per_atom_ev"]
    fit = fit_atomref(some.composition, residual, material_ids=some.material_ids, ridge=ridge)
    return np.nan_to_num(fit.energies_ev)


def refitted_energy_errors(predictions: FramePredictions, change_ev: np.ndarray) -> np.ndarray:
    """Absolute energy error of each frame after a last refit, meV/atom, from predictions without it.

    Parameters
    ----------
    predictions : FramePredictions
    change_ev : ndarray, shape (94,)
        From `last_refit_ev`.

    Returns
    -------
    ndarray, shape (n_frames,)
    """
    labels, predicted = predictions.pairs("energy")
    return 1000 * np.abs(labels - predicted - predictions.frames.composition @ change_ev)


def frame_errors(predictions: FramePredictions, target: str) -> np.ndarray:
    """Mean absolute error of each frame in one target, in the unit of its metric; NaN where it has no label.

    Parameters
    ----------
    predictions : FramePredictions
    target : str
        "energy", "forces", "stress" or "magmoms".

    Returns
    -------
    ndarray, shape (n_frames,)
        What `crossfunc.bootstrap` resamples, material by material.
    """
    labels, predicted = predictions.pairs(target)
    error = METRIC_SCALES[target] * np.abs(np.subtract(labels, predicted, dtype=np.float64))
    n = len(predictions.frames)
    owner = np.arange(n) if len(error) == n and target in ("energy", "stress") else predictions.frames.crystals.owners
    flat = error.reshape(len(error), -1)
    there = ~np.isnan(flat)
    sums = np.bincount(owner, np.where(there, flat, 0.0).sum(axis=1), minlength=n)
    counts = np.bincount(owner, there.sum(axis=1), minlength=n)
    return np.divide(sums, counts, out=np.full(n, np.nan), where=counts > 0)


def slope_and_cosine(predictions: FramePredictions) -> tuple[float, float]:
    """How large predicted forces are and whether they point the right way.

    Returns
    -------
    slope : float
        Slope of predicted against labelled force components through the origin, F·F̂ / F·F: below 1 they are too small.
    cosine : float
        F·F̂ / |F||F̂| over all components: 0 for forces that know nothing.

    Notes
    -----
    Over the components that are labelled and predicted. Both are NaN without one, and where symmetry makes all of them
    zero.
    """
    labels, predicted = predictions.parity("forces")
    there = ~np.isnan(predicted)
    return slope_and_cosine_of(labels[there], predicted[there])


def slope_and_cosine_of(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return `slope_and_cosine` of values against labels, component by component; shape (n,) each."""
    labels, predicted = labels.astype(np.float64), predicted.astype(np.float64)
    dot, length, other = float(labels @ predicted), float(np.linalg.norm(labels)), float(np.linalg.norm(predicted))
    if not length or not other:
        return float("nan"), float("nan")
    return dot / length**2, dot / (length * other)


def force_agreement(predictions: FramePredictions, *, n_bootstrap: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """How well predicted forces agree with labelled ones, with intervals over materials.

    Parameters
    ----------
    predictions : FramePredictions
    n_bootstrap, seed : int
        As for `crossfunc.bootstrap.mean_error`.

    Returns
    -------
    dict of str to Estimate
        `mae` over components, eV/Å; `slope` and `cosine` as `slope_and_cosine` has them; all three over the same
        atoms, those with a label and a prediction. Where either side is zero everywhere there is an error alone, and
        where a resample may be, a value without an interval.

    Raises
    ------
    crossfunc.BootstrapError
        No atom with a label and a prediction.
    """
    labels, predicted = (np.asarray(values, np.float64) for values in predictions.pairs("forces"))
    there = ~(np.isnan(labels) | np.isnan(predicted)).any(axis=1)
    owners = predictions.frames.material_ids[predictions.frames.crystals.owners][there]
    labels, predicted = labels[there], predicted[there]
    pairs = ((labels, predicted), (labels, labels), (predicted, predicted))
    sums = np.column_stack([np.einsum("ij,ij->i", a, b) for a, b in pairs])
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    found = {"mae": mean_error(np.abs(predicted - labels).mean(axis=1), owners, **options)}
    if labels.any() and predicted.any():
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample of undisplaced crystals alone
            found["slope"] = estimate_of_sums(sums, owners, lambda s: s[0] / s[1], **options)
            found["cosine"] = estimate_of_sums(sums, owners, lambda s: s[0] / np.sqrt(s[1] * s[2]), **options)
    return found


def why_not_quote(n, error, free_baseline: float, *, what: str = "the curve") -> str:
    """Why no factor and no exponent may be quoted from a learning curve; an empty text if they may.

    A curve above what costs nothing does not measure how fast a property is learned, but how fast something misplaced
    is unlearned, or nothing at all.

    Parameters
    ----------
    n, error : array_like, shape (n_points,)
        The points to be fitted; a size may appear once for each seed.
    free_baseline : float
        Lowest error that needs no training: of predicting zero, or of references alone.
    what : str
        Name of the curve, for the sentence.

    Returns
    -------
    str
        A sentence that names the sizes, by the mean error of their seeds.
    """
    n, error = np.asarray(n, float), np.asarray(error, float)
    sizes, group = np.unique(n, return_inverse=True)
    mean = np.bincount(group, error) / np.bincount(group)
    above = sizes[~(mean < free_baseline)]
    if not len(above):
        return ""
    named = ", ".join(f"{size:,.0f}" for size in above)
    return (
        f"{what} is not below an error that costs nothing ({free_baseline:.3g}) at N = {named}: no exponent and no "
        "factor is quoted from it"
    )
