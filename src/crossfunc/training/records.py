"""A run as a small file: history, errors, references and what its models predict, without the models.

What a comparison of runs asks of a model is what it predicts for the frames of its split, its references, and how far
its weights have moved. That is a fiftieth of the weights, and can be kept where models cannot.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from crossfunc.energies.atomref import AtomRefFit
from crossfunc.errors import InputError
from crossfunc.potential.checkpoints import element_references
from crossfunc.potential.recorded import RecordedModel, crystal_keys
from crossfunc.training.evaluate import predict_frames
from crossfunc.training.forgetting import Forgetting
from crossfunc.training.inputs import read_settings
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.methods import find_method
from crossfunc.training.result import FinetuneResult
from crossfunc.training.source import join_frames

__all__ = ["pack_run", "record_model", "unpack_run"]

_MODELS = ("model", "last_model")


def record_model(model, frames: LabelledFrames, *, start=None, name: str = "the model") -> RecordedModel:
    """Ask a model about frames and keep its answers in its place.

    Parameters
    ----------
    model : CHGNet
    frames : LabelledFrames
        Forces and stresses are asked for where they are labelled.
    start : CHGNet, optional
        What its weights are compared with.
    name : str

    Returns
    -------
    RecordedModel
    """
    seen = predict_frames(model, frames)
    names = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")
    crystals = seen.frames.crystals
    return RecordedModel(
        name,
        crystal_keys(crystals),
        {key: getattr(seen, key) for key in names},
        crystals.n_atoms,
        element_references(model),
        {} if start is None else _weight_changes(model, start),
    )


def _weight_changes(model, start) -> dict[str, tuple[float, float]]:
    """Square of each parameter's change and of its length at the start; those that both have in one shape."""
    before = dict(start.named_parameters())
    found = {}
    for name, weights in getattr(model, "network", model).named_parameters():  # of a `FrozenModel`, its network
        if name in before and before[name].shape == weights.shape:
            one, other = (tensor.detach().double().cpu() for tensor in (weights, before[name]))
            found[name] = (float(((one - other) ** 2).sum()), float((other**2).sum()))
    return found


def pack_run(
    run: FinetuneResult, frames: LabelledFrames, start, *, keep: str, also: LabelledFrames | None = None
) -> tuple[dict[str, Any], bytes]:
    """Return a run without its models: plain values for a JSON file, and arrays as the bytes of an .npz file.

    Parameters
    ----------
    run : FinetuneResult
    frames : LabelledFrames
        What its split points into.
    start : CHGNet
        The model that it started from.
    keep : {"best", "last"}
        With "last" the best weights are not asked.
    also : LabelledFrames, optional
        Frames beside those of the split that the models are asked about.
    """
    some = frames.take(np.unique(np.concatenate([np.asarray(rows, np.int64) for rows in run.split.values()])))
    some = some if also is None else join_frames(some, also)
    arrays: dict[str, np.ndarray] = {}
    for which in _MODELS if keep == "best" else _MODELS[1:]:
        model = record_model(getattr(run, which), some, start=start)
        arrays |= {f"{which}.{key}": value for key, value in model.to_arrays().items()}
    plain = {
        "history": run.history.astype(object).where(run.history.notna(), None).to_dict("list"),
        "metrics": run.metrics,
        "references_fit": None if run.references is None else json.loads(run.references.to_json()),
        "run_seconds": run.seconds,
        "seconds_in_all": run.seconds_in_all,
        "notes": list(run.notes),
        "forgetting": run.forgetting and run.forgetting.to_dict(with_frames=True),
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return plain, stream.getvalue()


def unpack_run(
    plain: Mapping[str, Any], data: bytes, *, method: str, settings: Mapping[str, Any], split, name: str
) -> FinetuneResult:
    """Return the run of `pack_run`; its models answer for the frames of its split alone.

    Parameters
    ----------
    plain, data
        From `pack_run`.
    method, settings, split
        What the run was made with.
    name : str
        For messages.

    Raises
    ------
    InputError
        A file that is not whole.
    """
    import pandas as pd

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
        last = _model_of("last_model", arrays, name)
        has_best = any(key.startswith("model.") for key in arrays)
        best = _model_of("model", arrays, name) if has_best else replace(last, keys=last.keys[:0])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"the record of {name} is not whole ({error}); delete it to make the unit again.") from error
    fit, found = plain["references_fit"], find_method(method)
    return FinetuneResult(
        best,
        last,
        pd.DataFrame(plain["history"]).apply(pd.to_numeric),
        plain["metrics"],
        fit and AtomRefFit.from_json(json.dumps(fit)),
        plain["run_seconds"],
        None,
        tuple(plain["notes"]),
        found,
        read_settings(found, settings, None),
        split,
        plain.get("forgetting") and Forgetting.from_dict(plain["forgetting"]),
        seconds_in_all=plain.get("seconds_in_all"),
    )


def _model_of(which: str, arrays: Mapping[str, np.ndarray], name: str) -> RecordedModel:
    own = {key.removeprefix(f"{which}."): value for key, value in arrays.items() if key.startswith(f"{which}.")}
    return RecordedModel.from_arrays(f"{which.replace('_', ' ')} of {name}", own)
