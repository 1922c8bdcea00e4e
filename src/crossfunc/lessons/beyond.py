"""What training has made of the target where it holds no training frame: other structures, large forces, volumes.

A method forgets in the target as well. Where a trained model is further off than the untrained one with new references,
it has lost something that would have been right in the functional it was trained for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from crossfunc.bootstrap import Estimate
from crossfunc.dft.equation_of_state import fit_equation_of_state
from crossfunc.lessons.judging import Judged
from crossfunc.lessons.units import has_known_elements
from crossfunc.potential.recorded import crystal_keys
from crossfunc.training.evaluate import predict_frames
from crossfunc.training.labels import METRICS, LabelledFrames
from crossfunc.training.source import KINDS, SourceSplit

MIN_VOLUMES = 3
"""Volumes of one cell that fix an equation of state."""

_SAME_SHAPE = 1e-4  # largest difference of a lattice, each scaled to the same volume, or of a coordinate
_METRICS = {"energy": METRICS["energy"], "force": METRICS["forces"]}


@dataclass(frozen=True)
class Beyond:
    """Frames of the target to judge trained models by, none of a material of training or validation.

    Attributes
    ----------
    frames : LabelledFrames
        Every frame of the target with an energy and forces.
    splits : dict of int to dict of str to ndarray
        By seed, rows of `frames`: `train`; `test`, other structures, chemistries and large forces; `volumes`, one cell
        of each test material at several volumes, with a minimum of the labels between them.
    """

    frames: LabelledFrames = field(repr=False)
    splits: Mapping[int, Mapping[str, np.ndarray]] = field(repr=False)

    def of_seed(self, seed: int) -> LabelledFrames | None:
        """All that a seed's models are asked about; None where there is nothing."""
        split = self.splits[seed]
        rows = np.union1d(split["test"], split["volumes"])
        return self.frames.take(rows) if len(rows) else None

    @property
    def has_far(self) -> bool:
        """Whether every seed has frames that are unlike those of training."""
        return all(len(split["test"]) for split in self.splits.values())

    @property
    def has_volumes(self) -> bool:
        """Whether every seed has a material at several volumes."""
        return all(len(split["volumes"]) for split in self.splits.values())


def find_beyond(
    every: LabelledFrames,
    target: LabelledFrames,
    splits: Mapping[int, Mapping[str, np.ndarray]],
    origins: Mapping[int, SourceSplit],
) -> Beyond:
    """Find the target's labels of the source frames that are judged by, and the test materials at several volumes.

    Parameters
    ----------
    every : LabelledFrames
        All frames of the target's functional, also those that the lesson leaves out for their size.
    target : LabelledFrames
    splits : dict of int to dict of str to ndarray
        By seed, rows of `target`.
    origins : dict of int to SourceSplit
        By seed, as the runs have it: crystals of all kinds but the nearest are taken, as far as the target labels the
        same crystals, training knows their elements, and their material is none of training or validation.

    Returns
    -------
    Beyond
    """
    labelled = every.labelled("energy") & every.labelled("forces")
    frames = every.take(np.flatnonzero(labelled))
    place = {key: k for k, key in enumerate(crystal_keys(frames.crystals).tolist())}
    found = {}
    for seed, split in splits.items():
        train = _rows_of(target.take(split["train"]), place)
        far = [_rows_of(of_kind, place) for kind, of_kind in origins[seed].held_out.items() if kind != KINDS[0]]
        rows = np.unique(np.concatenate([*far, np.array([], dtype=np.int64)]))
        seen = target.material_ids[np.concatenate([split["train"], split["validation"]])]  # its labels chose the epoch
        rows = rows[~np.isin(frames.material_ids[rows], seen)]
        tested = np.unique(target.material_ids[split["test"]])
        found[seed] = {
            "train": train,
            "test": rows[has_known_elements(frames, rows, train)],
            "volumes": _rows_with_minimum(frames, volume_series(frames, tested)),
        }
    return Beyond(frames, found)


def _rows_with_minimum(frames: LabelledFrames, series: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of the series whose labels have their minimum between the volumes: no other one has a volume to miss."""
    found = [np.array([], dtype=np.int64)]
    for rows in series.values():
        some = frames.take(rows)
        if _labelled_equations_of_state(some).notna().all(axis=None):
            found.append(rows)
    return np.concatenate(found)


def _rows_of(some: LabelledFrames, place: Mapping[int, int]) -> np.ndarray:
    keys = crystal_keys(some.crystals).tolist()
    return np.array([place[key] for key in keys if key in place], dtype=np.int64)


def volume_series(frames: LabelledFrames, material_ids) -> dict[str, np.ndarray]:
    """Rows of the largest set of frames of each material that are one cell at several volumes.

    Parameters
    ----------
    frames : LabelledFrames
    material_ids : sequence of str

    Returns
    -------
    dict of str to ndarray
        Materials with `MIN_VOLUMES` volumes or more.
    """
    crystals = frames.crystals
    volumes = np.abs(np.linalg.det(crystals.lattices_a))
    coords = crystals.split(crystals.frac_coords)
    numbers = crystals.split(crystals.atomic_numbers)
    found = {}
    for material in material_ids:
        groups: list[list[int]] = []
        for k in np.flatnonzero((frames.material_ids == material) & frames.labelled("stress")):
            shape = crystals.lattices_a[k] / volumes[k] ** (1 / 3)
            for group in groups:
                first = group[0]
                if (
                    np.array_equal(numbers[k], numbers[first])
                    and np.allclose(shape, crystals.lattices_a[first] / volumes[first] ** (1 / 3), atol=_SAME_SHAPE)
                    and np.allclose(coords[k], coords[first], atol=_SAME_SHAPE)
                ):
                    group.append(k)
                    break
            else:
                groups.append([k])
        n_volumes = [len(np.unique(volumes[group].round(6))) for group in groups]
        if groups and max(n_volumes) >= MIN_VOLUMES:
            found[str(material)] = np.array(groups[int(np.argmax(n_volumes))], dtype=np.int64)
    return found


def volume_errors(model, frames: LabelledFrames, labels: pd.DataFrame | None = None) -> pd.DataFrame:
    """Deviations of a model's equation of state from that of the labels, by material.

    Parameters
    ----------
    model : CHGNet or RecordedModel
    frames : LabelledFrames
        Materials at several volumes each, as `volume_series` finds them.
    labels : DataFrame, optional
        `equations_of_state` of the labels, where several models are held against them.

    Returns
    -------
    DataFrame
        By material, `volume` and `bulk`: the volume at the minimum and the bulk modulus, minus those of a fit to the
        labels of the same cells, in per cent of the latter. Without the materials whose labels have no minimum between
        the volumes; NaN where the model has none there.
    """
    seen = predict_frames(model, frames)
    found = equations_of_state(seen.frames, seen.energy_per_atom_ev, seen.stress_gpa)
    labels = (_labelled_equations_of_state(frames) if labels is None else labels).dropna()
    return 100 * (found.loc[labels.index] / labels - 1)


def equations_of_state(frames: LabelledFrames, energy_per_atom_ev: np.ndarray, stress_gpa: np.ndarray) -> pd.DataFrame:
    """Return `volume` (Å³ of the cell) and `bulk` modulus (GPa) at the minimum of E(V), by material of the frames.

    Both are NaN where the minimum is not between the smallest and the largest volume: it would be extrapolated.
    """
    volumes = np.abs(np.linalg.det(frames.crystals.lattices_a))
    energies = energy_per_atom_ev * frames.crystals.n_atoms
    pressures = -np.trace(stress_gpa, axis1=1, axis2=2) / 3
    rows = {}
    for material in np.unique(frames.material_ids):
        k = np.flatnonzero(frames.material_ids == material)
        fit = fit_equation_of_state(volumes[k], energies[k], pressures[k])
        rows[material] = (fit.volume_a3, fit.bulk_modulus_gpa) if fit.inside else (np.nan, np.nan)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["volume", "bulk"], dtype=float)


def _labelled_equations_of_state(frames: LabelledFrames) -> pd.DataFrame:
    return equations_of_state(frames, frames.energy_per_atom_ev, frames.stress_gpa)


class JudgedBeyond:
    """Errors of models beyond their training frames, over seeds.

    Parameters
    ----------
    beyond : Beyond
    models : dict of (str, int) to model
        By method and seed.
    """

    def __init__(self, beyond: Beyond, models: Mapping):
        self.beyond = beyond
        self._judged = Judged(beyond.frames, beyond.splits)
        self.volumes: dict[tuple[str, int], pd.DataFrame] = {}
        series = {s: beyond.frames.take(split["volumes"]) for s, split in beyond.splits.items() if beyond.has_volumes}
        labels = {seed: _labelled_equations_of_state(some) for seed, some in series.items()}
        for (method, seed), model in models.items():
            if beyond.has_far:
                self._judged.add(method, seed, model)
            if beyond.has_volumes:
                self.volumes[method, seed] = volume_errors(model, series[seed], labels[seed])
        self.methods = list(dict.fromkeys(method for method, _ in models))

    def difference(self, what: str, one: str, other: str) -> Estimate:
        """Error of one method minus that of another on the same frames; see `Estimate.verdict`."""
        return self._judged.difference(one, other, _METRICS[what])

    def median_deviations(self) -> pd.DataFrame:
        """Return the median over materials of the absolute deviations of `volume` and `bulk`, %, by method and seed.

        Over the materials where the model has its minimum between the volumes, see `count_fits`; NaN without any.
        """
        return pd.DataFrame({case: off.abs().median() for case, off in self.volumes.items()}).T

    def count_fits(self) -> pd.DataFrame:
        """Return how many equations of state there are by method, over all seeds.

        Columns `inside`, those with the model's minimum between the volumes, which the medians are over, and `all`.
        """
        counts = {c: (off["volume"].notna().sum(), len(off)) for c, off in self.volumes.items()}
        table = pd.DataFrame.from_dict(counts, orient="index", columns=["inside", "all"])
        return table.groupby([method for method, _ in counts], sort=False).sum()

    def table(self) -> pd.DataFrame:
        """Return the mean over seeds by method.

        Columns `energy` (meV/atom) and `force` (meV/Å) beyond the training frames, `slope` of predicted on labelled
        forces there, `volume` and `bulk`: the median over materials of the absolute deviation, %. A column without
        anything to judge by is left out; a deviation is NaN where a seed's model has no minimum between the volumes of
        any material.
        """
        columns: dict[str, pd.Series] = {}
        if self.beyond.has_far:
            mean = self._judged.mean
            columns |= {what: mean[metric] for what, metric in _METRICS.items()} | {"slope": mean["slope"]}
        if self.beyond.has_volumes:
            of_seeds = self.median_deviations().groupby(level=0, sort=False)
            columns |= dict(of_seeds.agg(lambda medians: medians.mean(skipna=False)).items())
        return pd.DataFrame(columns, index=self.methods, dtype=float)
