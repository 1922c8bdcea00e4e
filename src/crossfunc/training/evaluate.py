"""How far a model is from the labels: mean absolute errors, by element and by split, and the pairs behind them."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from crossfunc.potential.ase_model import as_model
from crossfunc.potential.chgnet import load_model, predict
from crossfunc.potential.crystals import CrystalError, row_numbers
from crossfunc.potential.direct import DirectModel
from crossfunc.symbols import ELEMENT_SYMBOLS, N_ELEMENTS
from crossfunc.training.labels import METRIC_SCALES, METRICS, LabelledFrames

_ARRAYS = {"forces": "forces_ev_per_a", "stress": "stress_gpa", "magmoms": "magmoms_mub"}
_CHUNK = 512  # frames whose graphs are in memory at a time


class EvaluationError(ValueError):
    """A model or a set of frames that cannot be evaluated; the message names the frame or the split."""


@dataclass(frozen=True, eq=False)
class FramePredictions:
    """What a model predicts for labelled frames, beside the labels.

    Attributes
    ----------
    frames : LabelledFrames
        The frames that were evaluated: those given, without the refused ones.
    positions : ndarray of int64, shape (n_frames,)
        Where each of them stood among the frames given.
    energy_per_atom_ev : ndarray, shape (n_frames,)
    forces_ev_per_a : ndarray, shape (n_atoms, 3)
        NaN, as stress, for frames that have neither a force nor a stress label.
    stress_gpa : ndarray, shape (n_frames, 3, 3)
        Tension positive.
    magmoms_mub : ndarray, shape (n_atoms,)
        Absolute values.
    refused : dict of str to str
        Frame id to the reason, for frames that CHGNet has no graph for or that a calculator fails on.
    """

    frames: LabelledFrames
    positions: np.ndarray
    energy_per_atom_ev: np.ndarray
    forces_ev_per_a: np.ndarray
    stress_gpa: np.ndarray
    magmoms_mub: np.ndarray
    refused: dict[str, str] = field(default_factory=dict)

    def pairs(self, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions of one target ("energy", "forces", "stress", "magmoms"), in the model's layout."""
        labels, predicted = {
            "energy": (self.frames.energy_per_atom_ev, self.energy_per_atom_ev),
            "forces": (self.frames.forces_ev_per_a, self.forces_ev_per_a),
            "stress": (self.frames.stress_gpa, self.stress_gpa),
            "magmoms": (np.abs(self.frames.magmoms_mub), self.magmoms_mub),
        }[target]
        return labels, predicted

    def parity(self, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions of one target where there is a label, flat: the points of a parity plot."""
        labels, predicted = self.pairs(target)
        there = ~np.isnan(labels)
        return labels[there], predicted[there]

    def metrics(self, chosen=None) -> dict:
        """Mean absolute errors over the frames, or over those that the mask `chosen` (n_frames,) keeps."""
        chosen = np.ones(len(self.frames), dtype=bool) if chosen is None else chosen
        atoms = chosen[self.frames.crystals.owners]
        rows = {"energy": chosen, "forces": atoms, "stress": chosen, "magmoms": atoms}
        errors = self._absolute_errors()
        means = {name: _mean(errors[target][rows[target]]) for target, name in METRICS.items()}
        return {"n_frames": int(chosen.sum()), **means}

    def by_element(self):
        """Errors element by element, a pandas table indexed by symbol.

        Columns: `n_frames` that hold the element and `n_atoms` of it, the energy error of those frames, the force and
        moment errors of those atoms; NaN where there is no label.
        """
        import pandas as pd

        numbers = self.frames.crystals.atomic_numbers
        errors = self._absolute_errors()
        holds = self.frames.composition > 0  # (n_frames, 94), sparse
        labelled = ~np.isnan(errors["energy"])
        columns = {
            "n_frames": np.asarray(holds.sum(axis=0)).ravel(),
            "n_atoms": np.bincount(numbers, minlength=N_ELEMENTS + 1)[1:],
            METRICS["energy"]: _divide(holds.T @ np.nan_to_num(errors["energy"]), holds.T @ labelled.astype(float)),
            METRICS["forces"]: _mean_by_element(errors["forces"], numbers),
            METRICS["magmoms"]: _mean_by_element(errors["magmoms"], numbers),
        }
        table = pd.DataFrame(columns, index=pd.Index(ELEMENT_SYMBOLS, name="element"))
        return table[table["n_atoms"] > 0]

    def _absolute_errors(self) -> dict[str, np.ndarray]:
        """|label - prediction| in the unit of the metrics, NaN where there is no label."""
        return {
            target: np.abs(np.subtract(*self.pairs(target), dtype=np.float64)) * scale
            for target, scale in METRIC_SCALES.items()
        }


def predict_frames(model, frames: LabelledFrames, *, progress: bool = False) -> FramePredictions:
    """Predict what the frames are labelled with; frames without a graph are listed under `refused`.

    Parameters
    ----------
    model : CHGNet, AseModel, ASE Calculator, or name or path
        A name or path is one that `load_model` takes.
    frames : LabelledFrames
    progress : bool
        Show a bar.

    Returns
    -------
    FramePredictions
        What a calculator does not have (stress, moments) is NaN.

    Raises
    ------
    EvaluationError
        No frame at all has a graph, or the model predicts something that is not finite; names a frame.
    """
    from tqdm import tqdm

    model = as_model(load_model(model) if isinstance(model, str | os.PathLike) else model)
    n_frames, n_atoms = len(frames), len(frames.crystals.atomic_numbers)
    shapes = {"energy_per_atom_ev": (n_frames,), "stress_gpa": (n_frames, 3, 3)}
    shapes |= {"forces_ev_per_a": (n_atoms, 3), "magmoms_mub": (n_atoms,)}
    arrays = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    refused: dict[int, str] = {}
    tasks = list(_tasks(frames))
    outputs = _outputs(model, [(frames.crystals.take(rows), slope) for rows, slope in tasks])
    with tqdm(total=n_frames, desc="evaluate", disable=not progress) as bar:
        for (rows, _), output in zip(tasks, outputs, strict=True):
            refused |= _fill(frames, rows, output, arrays)
            bar.update(len(rows))
    kept = np.setdiff1d(np.arange(n_frames), list(refused))
    named = {str(frames.frame_ids[k]): refused[k] for k in sorted(refused)}
    if len(kept) == 0:
        reason = "; the first, " + ": ".join(next(iter(named.items()))) if named else ""
        raise EvaluationError(f"none of {n_frames} frames can be evaluated{reason}")
    atoms = frames.crystals.atom_indices(kept)
    of_atoms = ("forces_ev_per_a", "magmoms_mub")
    chosen = {name: array[atoms if name in of_atoms else kept] for name, array in arrays.items()}
    return FramePredictions(frames.take(kept), kept, **chosen, refused=named)


def _outputs(model, tasks: list) -> Iterator[dict]:
    """Predictions of each task; a calculator spreads its frames itself, a CHGNet's tasks go to a cluster whole."""
    if isinstance(model, DirectModel):
        return (predict(model, crystals, derivatives=slope, strict=False) for crystals, slope in tasks)
    from joblib import Parallel, delayed

    # One after another here, where a prediction has all cores; at the same time on a cluster (crossfunc.cluster).
    return Parallel(n_jobs=1, return_as="generator")(
        delayed(predict)(model, crystals, derivatives=slope, strict=False) for crystals, slope in tasks
    )


def evaluate(
    model,
    frames,
    *,
    functional: str = "high",
    rows=None,
    by_element: bool = False,
    split: dict | None = None,
    with_predictions: bool = False,
    progress: bool = False,
) -> dict:
    """Mean absolute errors of a model on labelled frames, mean |prediction - label| over everything labelled.

    Parameters
    ----------
    model : CHGNet, AseModel, ASE Calculator, or name or path
        A name or path is one that `load_model` takes.
        From `load_model` or `load_calculator`.
    frames : LabelledFrames, Dataset, str or path
        A dataset is read with `LabelledFrames.from_dataset`.
    functional : str
        Whose frames of a dataset: "high", "low", or a functional's key or name; ignored for `LabelledFrames`.
    rows : array_like of int, optional
        Rows of the dataset's frames table, or positions in `LabelledFrames`, to keep.
    by_element : bool
        Add `by_element`, the table of `FramePredictions.by_element`.
    split : dict of str to array_like of int, optional
        Add `by_split`: the same errors for each part; positions among the frames evaluated, as of `split_by_material`.
    with_predictions : bool
        Add `predictions`, a `FramePredictions`, for parity plots.
    progress : bool
        Show a bar.

    Returns
    -------
    dict
        `n_frames`; `energy_mae_mev_per_atom`, over frames; `force_mae_mev_per_a`, over Cartesian components;
        `stress_mae_gpa`, over the 9 components; `magmom_mae_mub`, over atoms, of absolute values as CHGNet predicts no
        sign; None where nothing is labelled or predicted. `refused` maps the frames that have no graph or that a
        calculator fails on, which no error counts, to the reason. `not_predicted`, where there are any, names errors
        that labels are there for and the model says nothing about.

    Raises
    ------
    EvaluationError
        No frame can be evaluated, a prediction is not finite, or a split points beyond the frames.
    DatasetError
        From `LabelledFrames.from_dataset`.

    Notes
    -----
    Table 1 of the paper has these errors of the four methods on the test set; lesson 4.
    """
    frames = _read_frames(frames, functional, rows)
    masks = _split_masks(split or {}, len(frames))
    predictions = predict_frames(model, frames, progress=progress)
    result = predictions.metrics() | {"refused": predictions.refused}
    missing = [m for t, m in METRICS.items() if result[m] is None and predictions.frames.labelled(t).any()]
    if missing:
        result["not_predicted"] = missing
    if by_element:
        result["by_element"] = predictions.by_element()
    if split is not None:
        result["by_split"] = {name: predictions.metrics(mask[predictions.positions]) for name, mask in masks.items()}
    if with_predictions:
        result["predictions"] = predictions
    return result


def _read_frames(frames, functional: str, rows) -> LabelledFrames:
    if not isinstance(frames, LabelledFrames):
        return LabelledFrames.from_dataset(frames, functional, rows=rows)
    return frames if rows is None else frames.take(rows)


def _split_masks(split: dict, n_frames: int) -> dict[str, np.ndarray]:
    masks = {}
    for name, indices in split.items():
        try:
            indices = row_numbers(indices, n_frames)
        except CrystalError as error:
            raise EvaluationError(f"split {name!r}: {error}") from None
        outside = indices[(indices < 0) | (indices >= n_frames)]
        if len(outside):
            raise EvaluationError(
                f"split {name!r} points at frame {outside[0]} of {n_frames}; it was made for other frames."
            )
        masks[name] = np.isin(np.arange(n_frames), indices)
    return masks


def _tasks(frames: LabelledFrames) -> Iterator[tuple[np.ndarray, bool]]:
    """Rows to predict at a time, and whether they need forces and stresses."""
    needs_slope = frames.labelled("forces") | frames.labelled("stress")
    for derivatives in (True, False):
        rows = np.flatnonzero(needs_slope == derivatives)
        for start in range(0, len(rows), _CHUNK):
            yield rows[start : start + _CHUNK], derivatives


def _fill(frames: LabelledFrames, rows: np.ndarray, output: dict, arrays: dict) -> dict[int, str]:
    """Fill the rows of `arrays`; return those without a graph, with the reason."""
    crystals = frames.crystals.take(rows)
    refused = {int(rows[k]): re.sub(r"^crystal \d+ ", "", reason) for k, reason in output.pop("refused").items()}
    ran = ~np.isin(rows, list(refused))
    atoms = frames.crystals.atom_indices(rows)
    absent = {_ARRAYS[target] for target in output.pop("absent", ())}
    for name, values in output.items():
        if name in absent:
            continue
        flat = np.concatenate(values) if isinstance(values, list) else values
        per_atom = isinstance(values, list)
        if name == "magmoms_mub" and np.isnan(flat).all():  # a calculator may say it has moments, and have none
            continue
        bad = ~np.isfinite(flat).reshape(len(flat), -1).all(axis=1) & (ran[crystals.owners] if per_atom else ran)
        if bad.any():
            first = crystals.owners[bad][0] if per_atom else np.flatnonzero(bad)[0]
            raise EvaluationError(
                f"frame {frames.frame_ids[rows[first]]} ({crystals.formula(first)}): the model's {name} is not finite; "
                "its weights have diverged, or the crystal is far from anything it was trained on."
            )
        arrays[name][atoms if per_atom else rows] = flat
    return refused


def _mean(errors: np.ndarray) -> float | None:
    there = errors[~np.isnan(errors)]
    return float(there.mean()) if len(there) else None


def _divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _mean_by_element(errors: np.ndarray, atomic_numbers: np.ndarray) -> np.ndarray:
    """Mean of an array with one row per atom over the atoms of each element, shape (94,)."""
    rows = errors.reshape(len(errors), -1)
    sums = np.bincount(atomic_numbers, weights=np.nansum(rows, axis=1), minlength=N_ELEMENTS + 1)
    counts = np.bincount(atomic_numbers, weights=(~np.isnan(rows)).sum(axis=1), minlength=N_ELEMENTS + 1)
    return _divide(sums[1:], counts[1:])
