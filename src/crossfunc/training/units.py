"""A comparison as a list of runs that know nothing of each other: made one by one, in any order, and each once.

One unit is one run, a method with a seed. It goes on from its checkpoint when it was stopped, and when it is done its
numbers and what its models predict are two small files of their own, from which the run is read back: its models are
not needed any more, unless other units start from them. Units are given to joblib, so they spread over cores or a
cluster.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfunc.errors import InputError
from crossfunc.potential.recorded import RecordedModel
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.result import FinetuneResult
from crossfunc.training.run_folder import HISTORY_FILE, identify_given

if TYPE_CHECKING:
    import pandas as pd

RUN_FOLDER, RESULT_SUFFIX, RECORD_SUFFIX = "runs", ".json", ".npz"
PRETRAINED = "0.3.0"
"""The pretrained model where none is named. An identity does not hold it: units are older than a choice of models."""

STATES = ("whole", "stopped", "waiting")
"""Of a unit: its result is there; it has begun and goes on from its checkpoint; nothing of it is there yet."""


@dataclass(frozen=True)
class Unit:
    """One run: what `finetune` is called with, and a name for its file.

    Attributes
    ----------
    name : str
        Letters, digits, dashes, dots and underscores.
    method : str
    seed : int
    split : dict of str to ndarray
        Indices of `train`, `validation` and, optionally, `test`.
    references, prior : optional
        As for `finetune`.
    settings : dict
        Fields of `Settings` but the seed.
    start : Unit, optional
        The unit whose model it starts from; None for the pretrained model that `run_units` is given.
    frames : LabelledFrames, optional
        What the split points into, where that is not what `run_units` is given: the same crystals with other labels.
    fit_to : ndarray of int, optional
        Rows that the method's references are fitted to, where these are not its training rows: all points of a learning
        curve have one table, which a start that is not made yet has a part in.
    keep : {"best", "last"}
        Which weights the unit stands for: those with the lowest validation loss, or those at the end, in which no
        validation label has had a part.
    learning_rates : sequence of float, optional
        One for each optimiser step in place of the cosine's, the last one for any after it.
    source : LabelledFrames, optional
        As for `finetune`: frames of the functional that the start comes from, to hold on to and to judge by.
    prototypes : dict of str to str, optional
        As for `split_source`: structure types by which some of the source frames are told apart.
    options : dict, optional
        As for `finetune`: other values of the fields of the method's strategy.
    frozen : bool
        In place of training, a kernel ridge beside the network where the method starts (see `fit_frozen_model`).
    also : LabelledFrames, optional
        What its record answers for beside the frames of the split. It decides no number of the unit.
    """

    name: str
    method: str
    seed: int
    split: Mapping[str, np.ndarray] = field(repr=False)
    references: Any = None
    prior: Any = "trend"
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: "Unit | None" = field(default=None, repr=False)
    frames: LabelledFrames | None = field(default=None, repr=False)
    fit_to: np.ndarray | None = field(default=None, repr=False)
    keep: str = "best"
    learning_rates: Sequence[float] | None = field(default=None, repr=False)
    source: LabelledFrames | None = field(default=None, repr=False)
    prototypes: Mapping[str, str] | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: bool = False
    also: LabelledFrames | None = field(default=None, repr=False)

    def model_of(self, run: FinetuneResult):
        """Return the model that the unit stands for."""
        return run.last_model if self.keep == "last" else run.model


@dataclass(frozen=True)
class UnitState:
    """How far a unit is."""

    name: str
    state: str
    step: int
    n_steps: int | None
    seconds: float


def run_units(
    units: Sequence[Unit],
    frames: LabelledFrames,
    folder: str | os.PathLike | None = None,
    *,
    pretrained=PRETRAINED,
    n_jobs: int = 1,
    report=None,
    made: Mapping[str, FinetuneResult] | None = None,
    with_results: bool = True,
) -> list[FinetuneResult]:
    """Make every unit that is not whole yet, and return the runs in the order of the units.

    Parameters
    ----------
    units : sequence of Unit
        Those that they start from are made first, whether they are among them or not.
    frames : LabelledFrames
    folder : str or path, optional
        Where runs and results are kept; None keeps nothing, and nothing can be resumed.
    pretrained
        As for `finetune`; where units without a start of their own begin. What another one has made is not read back.
    n_jobs : int
        Runs side by side, one CPU thread each; inside `crossfunc.cluster.use_cluster` the cluster's workers take them,
        and have to see the folder.
    report : callable, optional
        Called with the name of each unit as it ends.
    made : dict of str to FinetuneResult, optional
        Runs of an earlier call by the name of their unit, which are not made again where no folder keeps them.
    with_results : bool
        False: keep the runs alone, with their models, without judging them for a result file.

    Returns
    -------
    list of FinetuneResult
        With a folder and results, as they are read back from there, also those of this call: their models are a
        `RecordedModel` each.

    Raises
    ------
    RunError
        The folder holds a run of this name that was made with other data, settings or another pretrained model; names
        the difference.
    InputError
        Two different units of one name.
    """
    from joblib import Parallel, delayed

    folder = None if folder is None else Path(folder)
    every = with_starts(units, frames)
    made = made or {}
    origin = identify_given(pretrained)  # a file is read once, not for every unit
    runs: dict[str, FinetuneResult] = {unit.name: made[unit.name] for unit in every if unit.name in made}
    if folder is not None and with_results:
        there = {unit.name: read_unit(unit, frames, folder, origin) for unit in every if unit.name not in runs}
        runs |= {name: run for name, run in there.items() if run is not None}
    missing = [unit for unit in every if unit.name not in runs]
    for unit in with_starts(missing, frames):  # a start is trained again where others need more than its record
        if unit.name in runs and isinstance(unit.model_of(runs[unit.name]), RecordedModel):
            del runs[unit.name]
    while len(runs) < len(every):  # each wave starts from models of the waves before it
        wave = [unit for unit in every if unit.name not in runs and (unit.start is None or unit.start.name in runs)]
        models = [pretrained if u.start is None else u.start.model_of(runs[u.start.name]) for u in wave]
        found = Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(run_unit)(
                unit, frames, folder and folder.absolute(), model, origin=origin, with_results=with_results
            )
            for unit, model in zip(wave, models, strict=True)
        )
        for unit, run in zip(wave, found, strict=True):
            runs[unit.name] = run
            if report:
                report(unit.name)
    if folder is not None and with_results:
        runs = {unit.name: read_unit(unit, frames, folder, origin) or runs[unit.name] for unit in every}
    return [runs[unit.name] for unit in units]


def with_starts(units: Sequence[Unit], frames: LabelledFrames) -> list[Unit]:
    """Return the units with those that they start from before them, each once.

    Raises
    ------
    InputError
        Two different units of one name.
    """
    names = [unit.name for unit in units]
    if len(set(names)) < len(names):
        raise InputError(f"two units share the name {next(n for n in names if names.count(n) > 1)!r}.")
    every: dict[str, Unit] = {}
    for unit in units:
        line = [unit]
        while line[-1].start is not None:
            line.append(line[-1].start)
        for one in reversed(line):
            there = every.setdefault(one.name, one)
            if there is not one and identify(there, frames) != identify(one, frames):
                raise InputError(f"two units share the name {one.name!r}.")
    return list(every.values())


def run_unit(
    unit: Unit,
    frames: LabelledFrames,
    folder: Path | None,
    pretrained=PRETRAINED,
    *,
    origin=None,
    with_results: bool = True,
) -> FinetuneResult:
    """Make one unit from a pretrained model, or go on with it, or read its run back; write its files at the end.

    Parameters
    ----------
    unit : Unit
    frames : LabelledFrames
    folder : path or None
    pretrained
        Where the unit begins: with a start, the start's model.
    origin : optional
        As `pretrained` of `identify`, which a unit with a start needs; None: the same as `pretrained`.
    with_results : bool
        As for `run_units`.
    """
    from crossfunc.training.fit import finetune
    from crossfunc.training.module import GivenRates

    began = time.perf_counter()
    out = None if folder is None else folder / RUN_FOLDER / unit.name
    rows = None if out is None else _history_so_far(out)
    earlier = 0.0 if rows is None else float(rows["seconds"].sum())  # of sessions that were stopped
    run = finetune(
        unit.method,
        _frames_of(unit, frames),
        out=out,
        split=unit.split,
        pretrained=pretrained,
        references=_references_of(unit, frames, pretrained),
        prior=unit.prior,
        source=None if unit.frozen else _source_of(unit, frames),  # what the network alone has forgotten is not asked
        options=unit.options,
        seed=unit.seed,
        callbacks=() if unit.learning_rates is None else (GivenRates(unit.learning_rates),),
        progress=False,
        **unit.settings,
    )
    if unit.frozen:
        run = _with_ridge(unit, _frames_of(unit, frames), run, pretrained)
    seconds = earlier + time.perf_counter() - began
    run = replace(run, seconds_in_all=seconds)
    if folder is None or not with_results:
        return run
    origin = pretrained if origin is None else origin
    if read_unit(unit, frames, folder, origin) is None:
        _write_result(folder, unit, frames, run, pretrained, seconds, identify(unit, frames, origin))
    return run


def _with_ridge(unit: Unit, frames: LabelledFrames, run: FinetuneResult, pretrained) -> FinetuneResult:
    """The run with a kernel ridge beside its untrained network, fitted to the training frames."""
    from crossfunc.training.fit import measure_run
    from crossfunc.training.frozen import fit_frozen_model

    model = fit_frozen_model(run.model, frames.take(unit.split["train"]), seed=unit.seed)
    done = replace(run, model=model, last_model=model)
    origin = _source_of(unit, frames)
    return done if origin is None else measure_run(done, origin, pretrained)


def _source_of(unit: Unit, frames: LabelledFrames):
    """The unit's source frames, parted by its split."""
    from crossfunc.training.settings import Settings
    from crossfunc.training.source import split_source

    if unit.source is None:
        return None
    seed = unit.settings.get("split_seed", Settings.split_seed)
    own = _frames_of(unit, frames)
    return split_source(unit.source, own, None, own, unit.split, seed=seed, prototypes=unit.prototypes)


def read_unit(
    unit: Unit, frames: LabelledFrames, folder: str | os.PathLike, pretrained=PRETRAINED
) -> FinetuneResult | None:
    """Return a whole unit from its two files, with a `RecordedModel` for each model; None if it is not whole.

    A unit that another pretrained model has made is not the one that is asked for, and so not whole.

    Raises
    ------
    InputError
        The files are damaged; says which.
    """
    from crossfunc.training.records import unpack_run

    folder = Path(folder)
    document = _read(_result_file(folder, unit), identify(unit, frames, pretrained))
    if document is None:
        return None
    data = (folder / f"{unit.name}{RECORD_SUFFIX}").read_bytes()
    settings = {"seed": unit.seed, **unit.settings}
    return unpack_run(document["run"], data, method=unit.method, settings=settings, split=unit.split, name=unit.name)


def _references_of(unit: Unit, frames: LabelledFrames, pretrained):
    from crossfunc.training.methods import start_model

    if unit.fit_to is None:
        return unit.references
    others = _frames_of(unit, frames).take(unit.fit_to)
    return start_model(unit.method, others, pretrained=pretrained, prior=unit.prior).references


def identify(unit: Unit, frames: LabelledFrames, pretrained=PRETRAINED) -> str:
    """Return a sha256 of what decides a unit's numbers: frames, split, method, references, settings, where it begins.

    Parameters
    ----------
    unit : Unit
    frames : LabelledFrames
    pretrained
        As for `finetune`, or what `identify_given` says of it: where a unit without a start begins, and with it all
        that start from that unit. `PRETRAINED` adds nothing.

    Returns
    -------
    str
    """
    given = unit.references
    energies = getattr(given, "energies_ev", None)
    plain = [
        unit.method,
        unit.seed,
        str(given) if energies is None else "",
        str(unit.prior),
        sorted(unit.settings.items()),
    ]
    digest = hashlib.sha256(json.dumps(plain, default=str).encode())
    digest.update(_frames_of(unit, frames).fingerprint().encode())
    if unit.start is not None:
        digest.update(b"start" + identify(unit.start, frames, pretrained).encode())
    elif (begins_with := identify_given(pretrained)) != PRETRAINED:
        digest.update(b"pretrained" + str(begins_with).encode())
    digest.update(b"" if unit.keep == "best" else unit.keep.encode())
    if unit.fit_to is not None:
        digest.update(b"fit to" + np.ascontiguousarray(unit.fit_to, dtype=np.int64).tobytes())
    for part in sorted(unit.split):
        digest.update(part.encode() + np.ascontiguousarray(unit.split[part], dtype=np.int64).tobytes())
    digest.update(b"" if energies is None else np.ascontiguousarray(energies).tobytes())
    if unit.learning_rates is not None:
        digest.update(b"rates" + np.ascontiguousarray(unit.learning_rates, dtype=np.float64).tobytes())
    if unit.source is not None:
        digest.update(b"source" + unit.source.fingerprint().encode())
        digest.update(json.dumps(sorted((unit.prototypes or {}).items())).encode())
    if unit.options or unit.frozen:
        digest.update(json.dumps([sorted(unit.options.items()), unit.frozen]).encode())
    return digest.hexdigest()


def _frames_of(unit: Unit, frames: LabelledFrames) -> LabelledFrames:
    return frames if unit.frames is None else unit.frames


def _result_file(folder: Path, unit: Unit) -> Path:
    return folder / f"{unit.name}{RESULT_SUFFIX}"


def _write_result(
    folder: Path, unit: Unit, frames: LabelledFrames, run: FinetuneResult, pretrained, seconds: float, identity: str
) -> None:
    """Write a unit's files: what its models predict, then its history and errors, frame by frame for intervals."""
    from crossfunc.potential.checkpoints import write_bytes
    from crossfunc.training.methods import as_model
    from crossfunc.training.records import pack_run

    plain, record = pack_run(run, _frames_of(unit, frames), as_model(pretrained), keep=unit.keep, also=unit.also)
    part = "test" if len(unit.split.get("test", ())) else "validation"
    document = {
        "unit": unit.name,
        "identity": identity,
        "method": unit.method,
        "seed": unit.seed,
        "references": unit.references if isinstance(unit.references, str) else None,
        "start": unit.start and unit.start.name,
        "n_train_frames": len(unit.split["train"]),
        "n_steps": int(run.history["step"].iloc[-1]),
        "seconds": round(seconds, 1),
        "part": part,
        **score(replace(run, model=unit.model_of(run)), _frames_of(unit, frames), part),
        "run": plain,
        "record": hashlib.sha256(record).hexdigest(),
    }
    write_bytes(folder / f"{unit.name}{RECORD_SUFFIX}", record)  # first: without it the document is not whole
    write_bytes(_result_file(folder, unit), (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def score(run: FinetuneResult, frames: LabelledFrames, part: str = "test") -> dict[str, Any]:
    """Errors of a run on a part of its split, as plain values.

    Parameters
    ----------
    run : FinetuneResult
    frames : LabelledFrames
        The frames that `run.split` points into.
    part : str

    Returns
    -------
    dict
        `errors`: those of `evaluate`. `refitted_energy_mae_mev_per_atom`: the energy error after a last refit of the
        references on the training frames. `force_slope`, `force_cosine`: of predicted against labelled components,
        None without labels. `by_frame`: material ids and each frame's errors, for `crossfunc.bootstrap`.
    """
    from crossfunc.training.baselines import frame_errors, last_refit_ev, refitted_energy_errors, slope_and_cosine
    from crossfunc.training.evaluate import predict_frames

    rows = np.asarray(run.split[part])
    seen = predict_frames(run.model, frames.take(rows))
    refitted = refitted_energy_errors(seen, last_refit_ev(run.model, frames.take(run.split["train"])))
    slope, cosine = (None if np.isnan(value) else value for value in slope_and_cosine(seen))
    errors = seen.metrics()
    by_frame = {
        "material_id": seen.frames.material_ids.tolist(),
        "energy": _plain(frame_errors(seen, "energy")),
        "refitted_energy": _plain(refitted),
        "forces": _plain(frame_errors(seen, "forces")),
    }
    return {
        "errors": errors,
        "refitted_energy_mae_mev_per_atom": None if np.isnan(refitted).all() else float(np.nanmean(refitted)),
        "force_slope": slope,
        "force_cosine": cosine,
        "by_frame": by_frame,
    }


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 4) for v in values]


def read_results(
    units: Sequence[Unit], frames: LabelledFrames, folder: str | os.PathLike, pretrained=PRETRAINED
) -> list[dict]:
    """Return the result files of units that were made from a pretrained model.

    Raises
    ------
    ValueError
        A unit without a whole result; names it and how many others lack one.
    """
    folder = Path(folder)
    origin = identify_given(pretrained)
    found = [_read(_result_file(folder, unit), identify(unit, frames, origin)) for unit in units]
    lacking = [unit.name for unit, document in zip(units, found, strict=True) if document is None]
    if lacking:
        raise InputError(
            f"{folder}: {len(lacking)} of {len(units)} units are not whole, first of all {lacking[0]}; "
            "make them with: crossfunc units LESSON --profile PROFILE"
        )
    return [document for document in found if document is not None]


def progress(
    units: Sequence[Unit], frames: LabelledFrames, folder: str | os.PathLike, pretrained=PRETRAINED
) -> list[UnitState]:
    """Return how far each unit is, without touching anything.

    A result of other data or settings, or of another pretrained model, does not count.
    """
    origin = identify_given(pretrained)
    return [_state(unit, frames, Path(folder), origin) for unit in units]


def progress_table(states: Sequence[UnitState]):
    """Return the states as a pandas table, indexed by the name of the unit."""
    import pandas as pd

    return pd.DataFrame([asdict(state) for state in states]).set_index("name")


def _state(unit: Unit, frames: LabelledFrames, folder: Path, origin) -> UnitState:
    result = _read(_result_file(folder, unit), identify(unit, frames, origin))
    if result is not None:
        return UnitState(unit.name, STATES[0], result["n_steps"], result["n_steps"], result["seconds"])
    n_steps = unit.settings.get("max_steps")
    rows = _history_so_far(folder / RUN_FOLDER / unit.name)
    if rows is None:
        return UnitState(unit.name, STATES[2], 0, n_steps, 0.0)
    return UnitState(unit.name, STATES[1], int(rows["step"].max()), n_steps, float(rows["seconds"].sum()))


def _history_so_far(run_folder: Path) -> "pd.DataFrame | None":
    """Return the history of a run that has begun; None of any other."""
    import pandas as pd

    history = run_folder / HISTORY_FILE
    return pd.read_csv(history) if history.is_file() else None


def _read(path: Path, identity: str) -> dict | None:
    """The document of a result file; None if there is none, or one that is not whole or of another run."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        record = hashlib.sha256(path.with_suffix(RECORD_SUFFIX).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None
    whole = isinstance(document, dict) and {"unit", "errors", "by_frame", "run"} <= set(document)
    return document if whole and (document.get("identity"), document.get("record")) == (identity, record) else None
