"""Frames of the functional that a model comes from: for methods that hold on to it, and to judge what was forgotten."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crossfunc.datasets import Dataset, DatasetError, open_dataset
from crossfunc.potential import predict
from crossfunc.potential.checkpoints import element_references
from crossfunc.training.labels import LabelledFrames

FORMS = ("other prototype", "other stoichiometry")
"""Source frames of a structure that training lacks: the first where the data name prototypes, else the second."""

KINDS = ("held-out materials", "other chemistry", *FORMS, "far from equilibrium")
"""Kinds of source frames that a model is not trained on, from near to far; see `split_source`."""

_FAR_FORCE_EV_PER_A = 3.0  # the largest force of a frame far from equilibrium, or
_FAR_STRESS_GPA = 20.0  # its largest stress component
_ENOUGH = 20_000  # source frames to choose from; drawn at random from more
_HALF = 0.5  # of the materials of a kind that the target does not have: for replay, the others to judge by


@dataclass(frozen=True, eq=False)
class Source:
    """Source frames as a method reads them.

    Attributes
    ----------
    frames : LabelledFrames
        With labels of the source functional.
    references_ev : ndarray, shape (94,)
        Element references in the source functional, eV/atom.
    references_from : str
        Where these come from.
    labelled_by : str
        "model": the starting model itself, so that every residual is zero at the start; "data": the dataset.
    seed : int
        Seed of every draw.
    """

    frames: LabelledFrames
    references_ev: np.ndarray
    references_from: str
    labelled_by: str
    seed: int = 0

    def moved_to(self, references_ev: np.ndarray) -> LabelledFrames:
        """Return the frames with energies on other references, y + X (c_other - c_source)."""
        change = np.nan_to_num(references_ev) - np.nan_to_num(self.references_ev)
        return replace_labels(
            self.frames, energy_per_atom_ev=self.frames.energy_per_atom_ev + self.frames.composition @ change
        )


@dataclass(frozen=True, eq=False)
class SourceSplit:
    """Source frames to hold on to, and frames to judge by, no material in both.

    Attributes
    ----------
    pool : LabelledFrames
        Frames of materials that the target trains on, and of half of those that it does not have.
    held_out : dict of str to LabelledFrames
        Kind (one of `KINDS`) to frames; kinds without frames are not there.
    functional : str or None
        What the dataset calls the source functional; None where the frames are those of the target.
    """

    pool: LabelledFrames
    held_out: dict[str, LabelledFrames]
    functional: str | None


def replace_labels(frames: LabelledFrames, **labels) -> LabelledFrames:
    """Return the same crystals with other labels."""
    values = {name: getattr(frames, name) for name in LabelledFrames.__dataclass_fields__}
    return LabelledFrames(**values | labels)


def without_labels(frames: LabelledFrames) -> LabelledFrames:
    """Return the same crystals without labels."""
    names = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")
    return replace_labels(frames, **{name: np.full_like(getattr(frames, name), np.nan) for name in names})


def has_labels(frames: LabelledFrames) -> bool:
    """Whether frames can be judged or replayed by labels of their own: energies and forces."""
    return bool(frames.labelled("forces").any() and frames.labelled("energy").any())


def join_frames(*several: LabelledFrames) -> LabelledFrames:
    """Return the frames of several sets, one set after another."""
    from crossfunc.potential import Crystals

    def joined(kind, parts):
        return {n: np.concatenate([getattr(part, n) for part in parts]) for n in kind.__dataclass_fields__}

    crystals = Crystals(**joined(Crystals, [frames.crystals for frames in several]))
    names = [name for name in LabelledFrames.__dataclass_fields__ if name != "crystals"]
    return LabelledFrames(crystals, *(np.concatenate([getattr(f, name) for f in several]) for name in names))


def label_with_model(model, frames: LabelledFrames) -> LabelledFrames:
    """Return frames with what a model predicts for them as labels: energies, forces, stresses and moments."""
    labels = predict(model, frames.crystals)
    return replace_labels(
        frames,
        energy_per_atom_ev=np.asarray(labels["energy_per_atom_ev"], dtype=np.float64),
        forces_ev_per_a=np.concatenate(labels["forces_ev_per_a"]).astype(np.float32),
        stress_gpa=np.asarray(labels["stress_gpa"], dtype=np.float32),
        magmoms_mub=np.concatenate(labels["magmoms_mub"]).astype(np.float32),
    )


def other_functional(dataset: Dataset, functional: str | None = None) -> str | None:
    """Name of the dataset's one other functional with frames, None where it has no or several others."""
    import pyarrow.compute as pc

    if dataset.frames is None:
        return None
    key = dataset.functional(functional or "high").key
    others = [name for name in pc.unique(dataset.frames["functional"]).to_pylist() if name != key]
    return others[0] if len(others) == 1 else None


def split_source(
    source,
    dataset,
    functional: str | None,
    frames: LabelledFrames,
    parts: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
    prototypes: Mapping[str, str] | None = None,
) -> SourceSplit:
    """Find frames of the source functional, and set aside those to judge by.

    A frame to judge by is of the first of these kinds that it belongs to: "far from equilibrium" with a large force or
    stress; "held-out materials" where the target keeps its material for validation or test; "other prototype" with a
    structure type that no training frame has, whatever its elements; "other chemistry" with a combination of elements
    that no training frame has, in a structure type that training has; and again "held-out materials". The structure
    comes before the chemistry, because a new structure most often holds new elements as well: the other way round it
    would hardly ever be counted. Without prototypes "other stoichiometry" stands in for them: a ratio of counts that no
    training frame has.

    Parameters
    ----------
    source : LabelledFrames, Dataset, SourceSplit, str, path or None
        None: frames of the other functional of the target's dataset; where it has none, the target's own structures.
        A dataset that is given is read with its other functional, or with its only one. A split that is made already
        is returned as it is.
    dataset : Dataset, str, path or LabelledFrames
        The target's.
    functional : str or None
        The target's; None for the one that `LabelledFrames.from_dataset` takes.
    frames : LabelledFrames
        The target's, with `parts` of its split.
    seed : int
        Which half of the materials that the target does not have goes to the pool, half of each kind.
    prototypes : mapping of str to str, optional
        Material to the name of its structure type, from one list of names; left out, those in the pairs of the
        datasets. A source material without a name counts by its chemistry alone; where no training material has one,
        stoichiometry stands in.

    Returns
    -------
    SourceSplit

    Raises
    ------
    DatasetError
        A source without any frame that is not of a validation or test material.
    """
    if isinstance(source, SourceSplit):
        return source
    found, name, is_stand_in, named = _read_source(source, dataset, functional, frames)
    if len(found) > _ENOUGH:
        found = found.take(np.sort(np.random.default_rng([seed, len(found)]).permutation(len(found))[:_ENOUGH]))
    if is_stand_in:
        found = without_labels(found)
    pool, held_out = _divide(found, frames, parts, seed, named if prototypes is None else prototypes)
    if not len(pool):
        raise DatasetError(
            f"source: all of its {len(found)} frames are of materials that the split keeps for validation and test; "
            "give other source frames, or a smaller validation and test part."
        )
    return SourceSplit(found.take(pool), {kind: found.take(rows) for kind, rows in held_out.items()}, name)


def find_prototypes(*datasets) -> dict[str, str]:
    """Material to the name of its structure type, as the pairs of datasets name them.

    Parameters
    ----------
    *datasets : Dataset or LabelledFrames
        Frames, and datasets whose pairs have no column `prototype`, name none.
    """
    named: dict[str, str] = {}
    for dataset in datasets:
        pairs = dataset.pairs if isinstance(dataset, Dataset) else None
        if pairs is not None and "prototype" in pairs:
            known = pairs[["material_id", "prototype"]].dropna()
            named |= {m: p for m, p in known.itertuples(index=False) if p}
    return named


def _read_source(source, dataset, functional: str | None, frames: LabelledFrames) -> tuple:
    """Source frames, what the dataset calls their functional, whether they are the target's own, and prototypes."""
    given = _opened(dataset if source is None else source)
    named = find_prototypes(_opened(dataset), given)
    if isinstance(source, LabelledFrames):
        return source, None, False, named
    if source is None and isinstance(dataset, LabelledFrames):
        return frames, None, True, named
    name = other_functional(given, functional)
    if name is None and source is None:
        return frames, None, True, named
    return LabelledFrames.from_dataset(given, name or functional or "high"), name, False, named


def _opened(given):
    return given if isinstance(given, (Dataset, LabelledFrames)) else open_dataset(os.fspath(given))


def _divide(
    found: LabelledFrames, frames: LabelledFrames, parts, seed: int, prototypes: Mapping[str, str]
) -> tuple[np.ndarray, dict]:
    """Rows of the pool, and rows of each kind to judge by."""
    trained = np.unique(frames.material_ids[parts["train"]])
    kept = np.unique(np.concatenate([frames.material_ids[rows] for p, rows in parts.items() if p != "train"]))
    is_kept = np.isin(found.material_ids, kept)
    is_new = ~np.isin(found.material_ids, trained) & ~is_kept
    train = frames.take(parts["train"])
    form, is_of_form = _other_form(found, train, prototypes)
    is_of_form &= is_new
    is_of_chemistry = is_new & ~is_of_form & ~np.isin(_systems(found), _systems(train))
    drawn: list[str] = []
    for is_of_kind in (is_of_form, is_of_chemistry, is_new & ~is_of_form & ~is_of_chemistry):
        new = np.unique(found.material_ids[is_of_kind])
        drawn += list(np.random.default_rng([seed, len(new)]).permutation(new)[: int(_HALF * len(new))])
    in_pool = ~is_kept & (~is_new | np.isin(found.material_ids, drawn))
    judged, far = ~in_pool, _is_far(found)
    masks = {
        KINDS[0]: judged & ~far & ~is_of_form & ~is_of_chemistry,
        KINDS[1]: judged & ~far & is_of_chemistry,
        form: judged & ~far & is_of_form,
        KINDS[-1]: judged & far,
    }
    return np.flatnonzero(in_pool), {kind: np.flatnonzero(mask) for kind, mask in masks.items() if mask.any()}


def _other_form(found: LabelledFrames, train: LabelledFrames, prototypes: Mapping[str, str]) -> tuple[str, np.ndarray]:
    """Which of `FORMS` can be told, and which frames have a structure that training lacks."""
    trained = {prototypes[material] for material in np.unique(train.material_ids) if material in prototypes}
    if not trained:
        return FORMS[1], ~np.isin(_stoichiometries(found), _stoichiometries(train))
    of_frames = [prototypes.get(material) for material in found.material_ids]
    return FORMS[0], np.array([name is not None and name not in trained for name in of_frames], bool)


def _systems(frames: LabelledFrames) -> np.ndarray:
    """Elements of each frame, "8-12"."""
    per_frame = frames.crystals.split(frames.crystals.atomic_numbers)
    return np.array(["-".join(map(str, np.unique(numbers))) for numbers in per_frame])


def _stoichiometries(frames: LabelledFrames) -> np.ndarray:
    """Reduced counts of each frame without the elements, "1-1-3"."""
    counts = [np.unique(z, return_counts=True)[1] for z in frames.crystals.split(frames.crystals.atomic_numbers)]
    return np.array(["-".join(map(str, np.sort(n // np.gcd.reduce(n)))) for n in counts])


def _is_far(frames: LabelledFrames) -> np.ndarray:
    """Which frames have a force or a stress that no relaxation starts from."""
    largest = np.nan_to_num(np.abs(frames.forces_ev_per_a).max(axis=1))
    force = np.maximum.reduceat(largest, frames.crystals.starts)
    stress = np.nan_to_num(np.abs(frames.stress_gpa).max(axis=(1, 2)))
    return (force > _FAR_FORCE_EV_PER_A) | (stress > _FAR_STRESS_GPA)


def make_source(pool: LabelledFrames, pretrained, *, seed: int = 0, n_frames: int | None = None) -> Source:
    """Give source frames their labels: those of the dataset if there are forces among them, else the model's own.

    Parameters
    ----------
    pool : LabelledFrames
    pretrained : CHGNet
        The starting model.
    seed : int
    n_frames : int, optional
        Draw so many at most.

    Returns
    -------
    Source
        With real labels, the references are a model-aware refit to them; with the model's own, the model's.
    """
    from crossfunc.training.batches import refuse_untrainable
    from crossfunc.training.methods import start_model

    if n_frames is not None and n_frames < len(pool):
        drawn = np.sort(np.random.default_rng([seed, len(pool)]).permutation(len(pool))[:n_frames])
        pool = pool.take(drawn)
    refuse_untrainable(pool)
    refit = start_model("model-aware", pool, pretrained=pretrained).references if has_labels(pool) else None
    if refit is not None:
        return Source(pool, refit.energies_ev, refit.source, "data", seed)
    references = element_references(pretrained)
    return Source(label_with_model(pretrained, pool), references, "those of the starting model", "model", seed)
