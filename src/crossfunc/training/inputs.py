"""What `finetune` is given, checked before any time is spent: settings, frames, split, labels."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from crossfunc.datasets import Dataset, DatasetError, open_dataset, split_by_material
from crossfunc.potential.crystals import CrystalError, row_numbers
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.methods import Method
from crossfunc.training.settings import Settings, SettingsError

PARTS = ("train", "validation", "test")


def read_settings(method: Method, given: Mapping[str, Any], out: str | os.PathLike | None) -> Settings:
    """Check the settings; methods that do not train take no steps unless they are told to."""
    if importlib.util.find_spec("lightning") is None:
        raise SettingsError("training runs on Lightning, which is not installed: pip install 'crossfunc[train]'.")
    asked = given.get("n_epochs") or given.get("max_steps")
    if not method.train_network and method.key == "references-only" and asked:
        raise SettingsError("method references-only does not train; method 4 is the one that goes on to train.")
    if not method.train_network and not asked:
        given = {**given, "n_epochs": 0}
    settings = Settings.from_dict(given)
    if settings.logger == "tensorboard" and out is None:
        raise SettingsError("logger: tensorboard writes into the run folder; give one with out.")
    return settings


def read_frames(dataset, functional: str) -> tuple[LabelledFrames, str, str]:
    """Return the frames of one functional, what to call them, and the functional's key."""
    if isinstance(dataset, LabelledFrames):
        return dataset, "frames", functional
    dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    return LabelledFrames.from_dataset(dataset, functional), dataset.name, dataset.functional(functional).key


def read_split(frames: LabelledFrames, split, settings: Settings) -> dict[str, np.ndarray]:
    """Indices of each part; parts that share a frame, or frames that do not exist, are refused."""
    if split is None or not isinstance(split, Mapping):
        fractions = (0.8, 0.1, 0.1) if split is None else tuple(split)
        return split_by_material(frames.material_ids, fractions, settings.split_seed)
    unknown = sorted(set(split) - set(PARTS))
    if unknown or not {"train", "validation"} <= set(split):
        raise SettingsError(f"split: expected train, validation and perhaps test, got {', '.join(map(str, split))}.")
    try:
        parts = {part: row_numbers(split[part], len(frames)) for part in PARTS if part in split}
    except CrystalError as error:
        raise SettingsError(f"split: {error}") from None
    everything = np.concatenate(list(parts.values()))
    if len(everything) and (everything.min() < 0 or everything.max() >= len(frames)):
        raise SettingsError(f"split: indices must lie between 0 and {len(frames) - 1}, the frames of this functional.")
    rows, counts = np.unique(everything, return_counts=True)
    if counts.max(initial=0) > 1:
        twice = frames.frame_ids[rows[counts > 1][0]]
        raise SettingsError(f"split: {np.sum(counts > 1)} frames are there more than once, first of all {twice}.")
    return parts


def refuse_unusable_parts(frames: LabelledFrames, parts: dict, settings: Settings, name: str) -> None:
    """Refuse what cannot be trained on before any time is spent: no frames, no labels, no graphs."""
    from crossfunc.training.batches import refuse_untrainable

    used = [target for target in TARGETS if settings.weights[target]]
    for part in ("train", "validation"):
        if not len(parts[part]):
            raise DatasetError(f"{name}: no {part} frames in the split.")
        if not any(frames.labelled(target)[parts[part]].any() for target in used):
            raise DatasetError(
                f"{name}: none of the {len(parts[part])} {part} frames has a label with a weight in the loss "
                f"({', '.join(used)}); label the frames, or give another label a weight."
            )
    used_rows = np.concatenate(list(parts.values()))
    refuse_untrainable(frames if len(used_rows) == len(frames) else frames.take(used_rows))
