"""Units, signs and slopes of what a model predicts, measured against labels: energies, forces, stresses."""

import numpy as np

from crossfunc.advice.offsets import Sample, fit_offsets
from crossfunc.bootstrap import FEWEST
from crossfunc.label_checks import scale_against_model
from crossfunc.training.evaluate import FramePredictions
from crossfunc.units import EV_PER_A3_TO_GPA, EV_PER_HARTREE

_EV_PER_KCAL_PER_MOL, _A_PER_BOHR = 0.0433641, 0.529177
WITHIN = 1.8
"""A scale within this factor of a unit's is that unit's."""
N_BOOTSTRAP = 1000

# What comes out too large by this factor was returned in that unit, where ASE wants eV, eV/Å and eV/Å³.
ENERGY_FACTORS = {
    "eV": 1.0,
    "meV": 1000.0,
    "kcal/mol": 1 / _EV_PER_KCAL_PER_MOL,
    "kJ/mol": 4.184 / _EV_PER_KCAL_PER_MOL,
    "Hartree": 1 / EV_PER_HARTREE,
    "Rydberg": 2 / EV_PER_HARTREE,
}
FORCE_FACTORS = {
    "eV/Å": 1.0,
    "eV/Å of the gradient (opposite sign)": -1.0,
    "kcal/mol/Å": 1 / _EV_PER_KCAL_PER_MOL,
    "Hartree/Bohr": _A_PER_BOHR / EV_PER_HARTREE,
    "Rydberg/Bohr": 2 * _A_PER_BOHR / EV_PER_HARTREE,
    "meV/Å": 1000.0,
}
STRESS_FACTORS = {
    "eV/Å³": 1.0,
    "eV/Å³, compression positive": -1.0,
    "GPa": EV_PER_A3_TO_GPA,
    "GPa, compression positive": -EV_PER_A3_TO_GPA,
    "kbar": 10 * EV_PER_A3_TO_GPA,
    "kbar, compression positive": -10 * EV_PER_A3_TO_GPA,
}


def energy_unit(sample: Sample, n_atoms: np.ndarray) -> dict:
    """Unit of the predicted energies: that which leaves least after offsets per element.

    Returns
    -------
    dict
        `unit` (one of `ENERGY_FACTORS`, "eV per atom" where the energy of the atom comes for that of the cell, None
        where there are too few materials to tell), `is_right`, and `median_ev_per_atom`, the median left by each.
    """
    n_elements = int(np.count_nonzero(np.diff(sample.X.tocsc().indptr)))
    if sample.n_materials < n_elements + 8:
        return {"unit": None, "is_right": None, "median_ev_per_atom": {}}
    left = {}
    for name, factor in ENERGY_FACTORS.items():
        left[name] = _median_left(sample, sample.predicted_ev / factor)
    if len(np.unique(n_atoms)) > 1:
        left["eV per atom"] = _median_left(sample, sample.predicted_ev * n_atoms)
    best = min(left, key=left.__getitem__)
    unit = best if left[best] < 0.2 * left["eV"] else "eV"
    return {"unit": unit, "is_right": unit == "eV", "median_ev_per_atom": left}


def _median_left(sample: Sample, predicted_ev: np.ndarray) -> float:
    """Median |residual| after offsets per element, of other predictions."""
    other = Sample(sample.X, sample.label_ev, predicted_ev, sample.material_ids)
    return float(np.median(np.abs(fit_offsets(other).remove(other.X, other.difference_ev))))


def derivative_scale(predictions: FramePredictions, target: str) -> dict | None:
    """Unit, slope and error of forces or stresses; None without labels or predictions.

    Parameters
    ----------
    predictions : FramePredictions
    target : {"forces", "stress"}

    Returns
    -------
    dict
        `unit` (None where it cannot be told), `is_right`, `slope` of prediction on label through the origin with its
        bootstrap interval over materials (below 1: too soft; NaN with fewer than `crossfunc.bootstrap.FEWEST`),
        `cosine`, `mae`, `mae_of_zero` (what predicting nothing would give), `n_frames`, `n_materials`; eV/Å or GPa.
    """
    labels, predicted = predictions.pairs(target)
    if target == "forces":
        labels, predicted = (predictions.frames.crystals.split(array) for array in (labels, predicted))
    pairs = [(np.asarray(y, dtype=float), np.asarray(p, dtype=float)) for y, p in zip(labels, predicted, strict=True)]
    rows = [k for k, (y, p) in enumerate(pairs) if np.isfinite(y).all() and np.isfinite(p).all()]
    if not rows:
        return None
    materials = predictions.frames.material_ids[rows]
    factors = FORCE_FACTORS if target == "forces" else STRESS_FACTORS
    scale = scale_against_model([pairs[k][1] for k in rows], [pairs[k][0] for k in rows], materials)
    unit = _nearest(scale.factor, factors) if scale.is_conclusive else None
    sums = np.array([[np.sum(y * p), np.sum(y * y), np.sum(p * p), np.sum(np.abs(p - y)), np.sum(np.abs(y)), y.size]
                     for y, p in (pairs[k] for k in rows)])  # fmt: skip
    _, group = np.unique(materials, return_inverse=True)
    by_material = np.stack([np.bincount(group, column) for column in sums.T], axis=1)
    yp, yy, pp, error, size, count = by_material.sum(axis=0)
    if not yy:
        return None
    low, high = _slope_ends(by_material)
    return {
        "unit": unit,
        "is_right": None if unit is None else factors[unit] == 1.0,
        "slope": float(yp / yy),
        "slope_low": low,
        "slope_high": high,
        "cosine": float(yp / np.sqrt(yy * pp)) if pp else 0.0,
        "mae": float(error / count),
        "mae_of_zero": float(size / count),
        "n_frames": len(rows),
        "n_materials": len(by_material),
    }


def _slope_ends(by_material: np.ndarray) -> tuple[float, float]:
    """Ends of the slope's interval from resampled materials; NaN where these are too few for one."""
    if len(by_material) < FEWEST:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(0).integers(len(by_material), size=(N_BOOTSTRAP, len(by_material)))
    resampled = by_material[drawn].sum(axis=1)
    slopes = np.divide(resampled[:, 0], resampled[:, 1], out=np.full(N_BOOTSTRAP, np.nan), where=resampled[:, 1] > 0)
    low, high = np.nanpercentile(slopes, [2.5, 97.5])
    return float(low), float(high)


def _nearest(factor: float, factors: dict[str, float]) -> str | None:
    """The unit whose factor is nearest, None where none is near."""
    near = {name: abs(np.log(factor / value)) for name, value in factors.items() if factor * value > 0}
    best = min(near, key=near.__getitem__, default=None)
    return best if best is not None and near[best] <= np.log(WITHIN) else None
