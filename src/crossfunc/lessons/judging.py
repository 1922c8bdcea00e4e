"""Models side by side on the same test frames, over seeds: errors, intervals over materials, paired differences."""

from collections.abc import Mapping

import numpy as np

from crossfunc.bootstrap import Estimate, mean_over_seeds, paired_over_seeds
from crossfunc.training.baselines import (
    frame_errors,
    last_refit_ev,
    predict_zero,
    refitted_energy_errors,
    slope_and_cosine,
)
from crossfunc.training.evaluate import FramePredictions, predict_frames
from crossfunc.training.labels import METRICS, LabelledFrames

ENERGY, FORCE, STRESS, MAGMOM = METRICS.values()
REFITTED = "refitted_energy_mae_mev_per_atom"
COLUMNS = (ENERGY, REFITTED, FORCE, STRESS, MAGMOM, "slope", "cosine")
TARGET_OF = {name: target for target, name in METRICS.items()} | {REFITTED: "energy"}
"""Errors that are kept frame by frame, so that materials can be drawn again, and what they are errors in."""


class Judged:
    """What models get wrong on test frames, one model for each (name, seed).

    Parameters
    ----------
    frames : LabelledFrames
    splits : dict of int to dict of str to ndarray
        `train` and `test` of each seed.
    seed : int
        Random numbers of the resampling.
    """

    def __init__(self, frames: LabelledFrames, splits: Mapping[int, Mapping[str, np.ndarray]], seed: int = 0):
        self.frames, self.splits, self.seed = frames, splits, seed
        self.predictions: dict[tuple[str, int], FramePredictions] = {}
        self._rows: dict[tuple[str, int], dict] = {}
        self._errors: dict[tuple[str, int], dict[str, np.ndarray]] = {}

    def add(self, name: str, seed: int, model, *, energies: bool = True) -> None:
        """Let a model predict the test frames of a seed; its references are refitted to the seed's training frames.

        Parameters
        ----------
        name : str
        seed : int
        model : CHGNet
        energies : bool
            False where the model counts energies from another zero than the labels: only those after a last refit
            are then judged.
        """
        train, test = (self.frames.take(self.splits[seed][part]) for part in ("train", "test"))
        seen = predict_frames(model, test)
        after = refitted_energy_errors(seen, last_refit_ev(model, train))
        slope, cosine = slope_and_cosine(seen)
        self.predictions[name, seed] = seen
        self._rows[name, seed] = seen.metrics() | {REFITTED: np.nanmean(after), "slope": slope, "cosine": cosine}
        self._errors[name, seed] = {m: frame_errors(seen, target) for target, m in METRICS.items()} | {REFITTED: after}
        if not energies:
            self._errors[name, seed][ENERGY] = np.full_like(after, np.nan)
            self._rows[name, seed][ENERGY] = np.nan

    def add_zero(self, name: str) -> None:
        """Add the errors of predicting no force, stress and moment, for every seed."""
        for seed, split in self.splits.items():
            seen = self.predictions[name, seed] = predict_zero(self.frames.take(split["test"]))
            self._rows[name, seed] = seen.metrics()
            self._errors[name, seed] = {m: frame_errors(seen, target) for target, m in METRICS.items()}

    @property
    def scores(self):
        """Errors as a pandas table, a row for each name and seed; NaN where nothing is labelled."""
        import pandas as pd

        return pd.DataFrame(self._rows).T.reindex(columns=COLUMNS).astype(float)

    @property
    def mean(self):
        """Errors of each name, mean over all seeds; NaN where a seed has none."""
        import pandas as pd

        scores = self.scores
        every = pd.MultiIndex.from_product([scores.index.unique(level=0), self.splits])
        return scores.reindex(every).groupby(level=0, sort=False).agg(lambda of_seeds: of_seeds.mean(skipna=False))

    @property
    def names(self) -> set[str]:
        """All that was added."""
        return {name for name, _ in self._rows}

    def estimate(self, name: str, metric: str) -> Estimate | None:
        """Mean over the seeds with an interval over test materials; None where a seed has no such error."""
        errors = [self._errors.get((name, seed), {}).get(metric) for seed in self.splits]
        if any(error is None or np.isnan(error).all() for error in errors):
            return None
        return mean_over_seeds(errors, **self._drawn(name, metric))

    def difference(self, name: str, other: str, metric: str) -> Estimate:
        """Error of one model minus that of another on the same frames, drawn by material; see `Estimate.verdict`."""
        errors, others = ([self._errors[m, seed][metric] for seed in self.splits] for m in (name, other))
        return paired_over_seeds(errors, others, **self._drawn(name, metric))

    def _drawn(self, name: str, metric: str) -> dict:
        """What is drawn, for means over labels, as in the table of errors: many atoms have many force components."""
        frames = [self.predictions[name, seed].frames for seed in self.splits]
        ids, weights = [f.material_ids for f in frames], [f.label_counts[TARGET_OF[metric]] for f in frames]
        return {"material_ids": ids, "weights": weights, "seed": self.seed}


def short_name(name: str) -> str:
    """Key of a model in a results file: method_4 for "4", words joined by underscores for all others."""
    import re

    return f"method_{name}" if len(name) == 1 else re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
