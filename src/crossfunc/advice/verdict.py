"""A verdict on a model, given labels: which functional it speaks, what references would mend, and what to do.

Nothing is trained. One prediction per frame, then least squares; every error after a fit is of materials that were not
fitted.
"""

import json
import os
from dataclasses import dataclass, field

import numpy as np

from crossfunc.advice.offsets import Sample, error_table, fit_offsets, held_out_residuals
from crossfunc.advice.scales import derivative_scale, energy_unit
from crossfunc.advice.spoken import LabelSet, label_sets, spoken_functional
from crossfunc.advice.words import report, what_to_do
from crossfunc.datasets import Dataset, open_dataset
from crossfunc.energies import AtomRefFit, refit_advice
from crossfunc.potential import AseModel, as_model
from crossfunc.training.evaluate import FramePredictions, predict_frames
from crossfunc.training.labels import LabelledFrames

MIN_MATERIALS = 4
OUTLIER_EV_PER_ATOM = 0.1
_N_OUTLIERS = 10


class VerdictError(ValueError):
    """A model and a dataset of which nothing can be said; the message says what is missing."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a model and labels say of each other.

    Attributes
    ----------
    model, dataset, labels, label_notice : str
        Which model, which data, whose labels (in prose), and what these are.
    n_frames, n_materials : int
        That could be judged.
    offsets : AtomRefFit
        What to add to the model for each atom of an element, with standard errors.
    linear : dict
        How much of the differences offsets take away: `explained_variance`, `explained_offset` (of the mean square),
        `refit` (worth it), `reason`, `n_judged` (materials that it holds for).
    errors : list of dict
        A row for each kind of references, held out by material.
    functional : dict
        From `spoken_functional`.
    energy, forces, stress : dict or None
        Units and slopes.
    outliers : list of dict
        Frames far from what the others say, the farthest of each material, farthest first.
    refused : dict
        Frame to the reason why there is no prediction.
    """

    model: str
    dataset: str
    labels: str
    label_notice: str
    n_frames: int
    n_materials: int
    offsets: AtomRefFit
    linear: dict
    errors: list
    functional: dict
    energy: dict
    forces: dict | None
    stress: dict | None
    outliers: list
    refused: dict = field(default_factory=dict)

    @property
    def advice(self) -> str:
        """One paragraph that says what to do."""
        return what_to_do(self.to_dict())

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "offsets"}
        table = self.offsets.report()
        keys = ("energy_ev", "std_error_ev", "determined", "n_frames", "n_materials")
        elements = {
            symbol: {"offset_ev" if key == "energy_ev" else key: row[key] for key in keys}
            for symbol, row in table.iterrows()
            if row["n_frames"]
        }
        return plain_values(plain | {"elements": elements})

    def to_json(self) -> str:
        """Return the verdict and the advice as JSON text."""
        plain = self.to_dict()
        return json.dumps(plain | {"advice": what_to_do(plain)}, indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        plain = self.to_dict()
        return report(plain | {"advice": what_to_do(plain)})


def verdict(
    model,
    dataset: Dataset | str | os.PathLike,
    *,
    functional: str | None = None,
    inside=None,
    name: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Verdict:
    """Judge a model by the labels of a dataset.

    Parameters
    ----------
    model : CHGNet, AseModel or ASE Calculator
    dataset : Dataset, str or path
    functional : str, optional
        Whose labels; by default those of the high functional. Labels of other functionals for the same crystals tell
        which one the model speaks.
    inside : AtomRefFit or array_like, shape (94,), optional
        The element references inside the model, eV/atom, for the row "plain references"; a CHGNet tells its own.
    name : str, optional
        What to call the model.
    seed : int
        Seed of folds and bootstrap.
    progress : bool
        Show a bar.

    Returns
    -------
    Verdict

    Raises
    ------
    VerdictError
        Too few materials with an energy.
    DatasetError, EvaluationError, CalculatorError
        As `LabelledFrames.from_dataset` and `predict_frames`.
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    chosen = () if functional is None else (functional,)
    frames = LabelledFrames.from_dataset(opened, *chosen)
    model = as_model(model)
    if inside is None and hasattr(model, "composition_model"):
        from crossfunc.potential import element_references

        inside = np.nan_to_num(element_references(model))
    predictions = predict_frames(model, frames, progress=progress)
    sets = label_sets(opened, predictions.frames)
    called = name or (model.name if isinstance(model, AseModel) else type(model).__name__)
    origin = {"model": called, "dataset": opened.name, "label_notice": opened.label_notice}
    return judge_predictions(predictions, sets, inside=inside, seed=seed, **origin)


def judge_predictions(
    predictions: FramePredictions,
    sets: list[LabelSet],
    *,
    model: str,
    dataset: str,
    label_notice: str = "",
    inside=None,
    seed: int = 0,
) -> Verdict:
    """Judge predictions that are there already; parameters as of `verdict`, `sets` as from `label_sets`."""
    frames = predictions.frames
    rows = np.flatnonzero(np.isfinite(sets[0].energy_per_atom_ev))
    X, ids = frames.composition, frames.material_ids
    sample = Sample(X[rows], sets[0].energy_per_atom_ev[rows], predictions.energy_per_atom_ev[rows], ids[rows])
    if not len(rows) or sample.n_materials < MIN_MATERIALS:
        raise VerdictError(
            f"{dataset}: {sample.n_materials if len(rows) else 0} materials have an energy and a prediction; a verdict "
            f"needs {MIN_MATERIALS} at least, and more than elements."
        )
    inside = None if inside is None else np.asarray(getattr(inside, "energies_ev", inside), dtype=np.float64)
    residuals = held_out_residuals(sample, sets[0].zeros, inside, seed)
    advice = refit_advice(sample.X, sample.difference_ev, material_ids=sample.material_ids, seed=seed)
    offsets = fit_offsets(sample)
    return Verdict(
        model=model,
        dataset=dataset,
        labels=sets[0].name,
        label_notice=label_notice,
        n_frames=len(rows),
        n_materials=sample.n_materials,
        offsets=offsets,
        linear={
            "explained_variance": advice.explained_variance,
            "explained_offset": advice.explained_offset,
            "refit": advice.refit,
            "reason": advice.reason,
            "n_judged": advice.n_judged,
        },
        errors=error_table(residuals, sample.material_ids),
        functional=spoken_functional(X, predictions.energy_per_atom_ev, ids, sets, seed=seed),
        energy=energy_unit(sample, frames.crystals.n_atoms[rows]),
        forces=derivative_scale(predictions, "forces"),
        stress=derivative_scale(predictions, "stress"),
        outliers=_outliers(residuals, sample, frames.take(rows)),
        refused=predictions.refused,
    )


def _outliers(residuals: dict, sample: Sample, frames: LabelledFrames) -> list[dict]:
    """Frames whose residual is far out among those of the others: six robust deviations, and at least 0.1 eV/atom."""
    held_out = residuals["model-aware references"]
    in_sample = fit_offsets(sample).remove(sample.X, sample.difference_ev)
    left = np.where(np.isfinite(held_out), held_out, in_sample)
    middle = np.median(left)
    spread = 1.4826 * np.median(np.abs(left - middle))
    far = np.flatnonzero(np.abs(left - middle) > max(6 * spread, OUTLIER_EV_PER_ATOM))
    far = far[np.argsort(-np.abs(left[far] - middle), kind="stable")]
    _, first = np.unique(frames.material_ids[far], return_index=True)  # the farthest frame of each material
    far = far[np.sort(first)]
    return [
        {
            "frame_id": str(frames.frame_ids[k]),
            "material_id": str(frames.material_ids[k]),
            "formula": frames.crystals.formula(k),
            "label_minus_model_ev_per_atom": float(left[k]),
        }
        for k in far[:_N_OUTLIERS]
    ]


def plain_values(value):
    """Values as JSON has them: None for what is not finite, Python's own numbers."""
    if isinstance(value, dict):
        return {str(key): plain_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(inner) for inner in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
