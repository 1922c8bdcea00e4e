"""What to do before a model is taken to another functional: refit, method, frames, which ones, and hours."""

import json
import math
import os
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np

from crossfunc.advice.curves import (
    MIN_MATERIALS,
    EnergyTask,
    ForceTask,
    energy_task,
    force_task,
    halvings,
    learning_curve,
)
from crossfunc.advice.forecast import LEVEL, Forecast, fit_forecast
from crossfunc.advice.next_frames import Pool, choose_next
from crossfunc.advice.offsets import Sample, nearest_zero
from crossfunc.advice.pilots import run_pilot
from crossfunc.advice.spoken import label_sets
from crossfunc.advice.verdict import Verdict, judge_predictions, plain_values
from crossfunc.advice.words import advise_report
from crossfunc.datasets import Dataset, list_datasets, open_dataset
from crossfunc.datasets.functionals import functional_key
from crossfunc.errors import InputError
from crossfunc.potential import AseModel, CheckpointError, as_model, crystal_features, load_model, predict
from crossfunc.training.evaluate import FramePredictions, predict_frames
from crossfunc.training.labels import LabelledFrames

__all__ = ["Advice", "advise"]

MODELS = {"gga": "0.3.0", "pbe": "0.3.0", "gga-gga-u": "0.3.0", "r2scan": "r2scan"}
"""Which published CHGNet speaks a functional."""
FEATURES_OF = "0.3.0"
AHEAD = (2, 4, 8)
MOST_CANDIDATES = 400
MOST_MATERIALS = 400
_TIMED_FRAMES = 32
_SAME_MODEL_EV = 1e-4
"""Energies per atom of two models that never differ by more are those of one model."""


@dataclass(frozen=True, eq=False)
class Advice:
    """What to do, in plain values; `str()` is the report.

    Attributes
    ----------
    model, dataset, label_notice : str
    n_frames, n_materials : int
        With labels of the functional that is the goal and a prediction of the model.
    error_ev_per_atom : float
        Wanted.
    verdict : Verdict
        What the model as it comes gets wrong, and of which kind that is.
    refit : dict
        `refit`, `reason`, and the errors `before` and `after` new references, eV/atom, on materials not fitted.
    method : dict
        `key` of `METHODS` (None: nothing to do) and `reason`.
    forecasts : dict
        "energy" and, with force labels and predictions, "forces": what was `seen`, the errors `ahead`, and for the
        energy `needed`, the materials and frames for the error that is wanted; each number with the ends of its
        interval.
    left_out : dict
        Why a forecast is not given though there are labels for it.
    next_frames : list of dict
    cost : dict
        Seconds and hours, or why they are not known.
    """

    model: str
    dataset: str
    label_notice: str
    n_frames: int
    n_materials: int
    error_ev_per_atom: float
    verdict: Verdict
    refit: dict
    method: dict
    forecasts: dict
    left_out: dict = field(default_factory=dict)
    next_frames: list = field(default_factory=list)
    cost: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Return plain values, for JSON; numbers without an end are None."""
        plain = {name: value for name, value in vars(self).items() if name != "verdict"}
        return plain_values(plain | {"level": LEVEL, "verdict": self.verdict.advice})

    def to_json(self) -> str:
        """Return the advice as JSON text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        return advise_report(self.to_dict())


def advise(
    low,
    high: Dataset | str | os.PathLike,
    *,
    error_ev_per_atom: float = 0.03,
    functional: str = "high",
    low_functional: str | None = None,
    candidates: Dataset | str | os.PathLike | None = None,
    n_next: int = 10,
    pilot_epochs: int = 0,
    keep_source: bool = False,
    seed: int = 0,
) -> Advice:
    """Advise how to take a model to the functional of some labels.

    Parameters
    ----------
    low : str, CHGNet, AseModel or ASE Calculator
        Where to start: a functional ("PBE": the published CHGNet that speaks it), a checkpoint, or a model.
    high : Dataset, str or path
        A dataset with a few labelled frames of the goal; or a functional ("r2SCAN"), for which an embedded dataset with
        its labels stands in, calculated ones before surrogates.
    error_ev_per_atom : float
        Wanted for the energy, on materials not trained on.
    functional : str
        Whose labels of the dataset.
    low_functional : str, optional
        Which functional a model speaks that is given itself: of the embedded datasets that stand in for `high`, those
        that begin with it come first. By default what `low` says, where it is a functional.
    candidates : Dataset, str or path, optional
        Crystals to choose from; default: those of the dataset that have no label of the functional.
    n_next : int
        How many crystals to name.
    pilot_epochs : int
        Epochs of short fine-tunings on the labels at hand, which correct the stand-in; 0 for none.
    keep_source : bool
        Whether the model is to stay good in the functional that it comes from.
    seed : int

    Returns
    -------
    Advice

    Raises
    ------
    InputError
        An error that is not above zero, no labels of the functional, or fewer materials than a curve needs, with labels
        or with predictions.
    DatasetError, CalculatorError, VerdictError
        As `open_dataset`, `load_calculator`, `verdict`.
    """
    if not (np.isfinite(error_ev_per_atom) and error_ev_per_atom > 0):
        raise InputError(f"error {error_ev_per_atom!r}: give one above zero, in eV/atom.")
    model, name = _model(low)
    dataset = _labelled(low if low_functional is None else low_functional, high)
    reader = load_model(FEATURES_OF)
    found = _predicted(model, dataset, functional)
    frames = found.frames
    n_materials = len(np.unique(frames.material_ids))
    sets = label_sets(dataset, frames)
    origin = {"dataset": dataset.name, "label_notice": dataset.label_notice}
    judged = judge_predictions(found, sets, model=name, seed=seed, **origin)
    features = crystal_features(reader, frames.crystals)
    sample = Sample(frames.composition, frames.energy_per_atom_ev, found.energy_per_atom_ev, frames.material_ids)
    prior = nearest_zero(sample, sets[0].zeros) if sets[0].zeros else None
    energies = energy_task(features, frames.composition, sample.difference_ev, frames.material_ids, prior, seed=seed)
    forecasts, left_out = _forecasts(reader, found, energies, seed)
    pilot = _pilot(model, frames, energies, pilot_epochs, seed)
    refit = _refit(judged)
    per_material = len(frames) / n_materials
    told = {key: _told(one, per_material, pilot if key == "energy" else None) for key, one in forecasts.items()}
    told["energy"]["needed"] = _needed(forecasts["energy"], error_ev_per_atom, per_material, pilot)
    method = _method(judged, refit, told["energy"], error_ev_per_atom, keep_source=keep_source)
    nexts = _next_frames(model, reader, dataset, functional, candidates, features, frames, refit, n_next, seed)
    return Advice(
        model=name,
        n_frames=len(frames),
        n_materials=n_materials,
        error_ev_per_atom=error_ev_per_atom,
        verdict=judged,
        refit=refit,
        method=method,
        forecasts=told,
        left_out=left_out,
        next_frames=nexts,
        cost=_cost(model, dataset, frames, told["energy"]["needed"], pilot, seed),
        **origin,
    )


def _model(low) -> tuple:
    """The model that is meant, and what to call it."""
    if isinstance(low, str):
        checkpoint = MODELS.get(functional_key(low), low)
        try:
            return load_model(checkpoint), f"CHGNet {checkpoint}"
        except CheckpointError as error:
            known = "GGA, PBE, GGA/GGA+U (CHGNet 0.3.0) and r2SCAN (its r2scan checkpoint)"
            raise CheckpointError(f"{error} As functionals, there are models of {known}.") from error
    model = as_model(low)
    return model, model.name if isinstance(model, AseModel) else type(model).__name__


def _predicted(model, dataset: Dataset, functional: str) -> FramePredictions:
    """Predictions of the labelled frames; refuses fewer materials than advice needs, before and after."""
    frames = LabelledFrames.from_dataset(dataset, functional)
    n_labelled = len(np.unique(frames.material_ids))
    if n_labelled < MIN_MATERIALS:
        raise InputError(f"{dataset.name}: {n_labelled} labelled materials; advice needs {MIN_MATERIALS}: label more.")
    found = predict_frames(model, frames)
    n_left = len(np.unique(found.frames.material_ids))
    if n_left < MIN_MATERIALS:
        name, reason = next(iter(found.refused.items()))
        raise InputError(
            f"{dataset.name}: the model predicts {n_left} of {n_labelled} labelled materials; advice needs "
            f"{MIN_MATERIALS}. It refuses {len(found.refused)} frames; the first, {name}: {reason}"
        )
    return found


def _labelled(low, high) -> Dataset:
    """The dataset that is meant by a name, a folder or a functional."""
    if isinstance(high, Dataset):
        return high
    names = list_datasets()
    if str(high) in names or os.path.exists(high):  # noqa: PTH110 - a path or a name
        return open_dataset(high)
    key = functional_key(str(high))
    fitting = []
    for name in names:
        one = open_dataset(name, verify=False)
        if one.functional("high").key == key and one.frames is not None:
            fitting.append((one.is_surrogate, one.functional("low").key != functional_key(str(low)), name))
    if not fitting:
        raise InputError(
            f"{high}: neither a dataset ({', '.join(names)}) nor a functional that one of them has labels of; label a "
            "few frames and give their dataset."
        )
    return open_dataset(min(fitting)[-1])


def _forecasts(reader, found: FramePredictions, energies: EnergyTask, seed: int) -> tuple[dict[str, Forecast], dict]:
    """Forecasts by name, and the reasons why one is left out."""
    forces, left_out = _force_task(reader, found)
    tasks: dict[str, EnergyTask | ForceTask] = {"energy": energies} | ({} if forces is None else {"forces": forces})
    forecasts = {}
    for name, task in tasks.items():
        materials = np.unique(task.material_ids)
        if len(materials) < MIN_MATERIALS:
            raise InputError(
                f"the other materials fix the references of {len(materials)} materials; a forecast needs "
                f"{MIN_MATERIALS}: label more materials of the same elements."
            )
        some = np.random.default_rng(seed).permutation(materials)[:MOST_MATERIALS]
        forecasts[name] = fit_forecast(learning_curve(task, some, halvings(len(some)), seed=seed).seen)
    return forecasts, left_out


def _force_task(reader, found: FramePredictions) -> tuple[ForceTask | None, dict[str, str]]:
    """What a forecast of the forces of the model asked about starts from, or why there is none."""
    if not found.frames.labelled("forces").any():
        return None, {}
    task = force_task(reader, found.frames, found.forces_ev_per_a)
    n = len(task.material_ids)
    if n >= MIN_MATERIALS:
        return task, {}
    if n == 0:
        return None, {"forces": "the model predicts none"}
    few = f"labels and predictions of {n} material{'s' * (n > 1)}; a forecast needs {MIN_MATERIALS}"
    return None, {"forces": few}


def _refit(judged: Verdict) -> dict:
    rows = {row["references"]: row["mae_ev_per_atom"] for row in judged.errors}
    everywhere = {row["references"]: row["mae_of_all_ev_per_atom"] for row in judged.errors}
    kinds = [name for name in ("model-aware references", "with a prior") if rows.get(name) is not None]
    kinds = kinds or [name for name in ("with a prior",) if everywhere.get(name) is not None]
    table = rows if rows.get("as it is") is not None else everywhere
    best = min(kinds, key=lambda name: table[name]) if kinds else None
    return {
        "refit": judged.linear["refit"],
        "reason": judged.linear["reason"],
        "before_ev_per_atom": table.get("as it is"),
        "after_ev_per_atom": table[best] if best else None,
        "references": best,
    }


def _told(forecast: Forecast, per_material: float, pilot: dict | None) -> dict:
    ratio = pilot["ratio"] if pilot else 1.0
    seen = forecast.seen
    ahead = []
    for times in AHEAD:
        middle, low, high = (ratio * value for value in forecast.at(times * seen.n))
        frames = round(times * seen.n * per_material)
        ahead.append({"n_materials": times * seen.n, "n_frames": frames, "error": middle, "low": low, "high": high})
    return {
        "seen": {"n_materials": seen.n, "n_frames": round(seen.n * per_material), "error": ratio * seen.error},
        "exponent": forecast.exponent,
        "ahead": ahead,
        "pilot": pilot,
    }


def _needed(forecast: Forecast, error_ev: float, per_material: float, pilot: dict | None) -> dict:
    """Materials and frames for the wanted error; the interval's first end is the lucky one."""
    ratio = pilot["ratio"] if pilot else 1.0
    middle, first, last = forecast.needed_for(1000 * error_ev / ratio)
    return {
        "n_materials": {"middle": middle, "low": first, "high": last},
        "n_frames": {k: v * per_material for k, v in (("middle", middle), ("low", first), ("high", last))},
        "frames_per_material": per_material,
        "is_there_already": middle <= forecast.seen.n,
    }


def _method(judged: Verdict, refit: dict, energy: dict, wanted: float, *, keep_source: bool = False) -> dict:
    before, after = refit["before_ev_per_atom"], refit["after_ev_per_atom"]
    if before is not None and before <= wanted:
        return {"key": None, "reason": "the model as it comes is within the error that is wanted"}
    if after is not None and after <= wanted:
        return {"key": "model-aware", "reason": "new references alone reach it: no training", "train": False}
    spoken = judged.functional["spoken"]
    same = spoken is not None and spoken == judged.labels
    if keep_source:
        key = "replay"
        reason = (
            "train the network from new references, and go on showing it frames of the functional that it comes from"
        )
    elif refit["refit"]:
        key, reason = "model-aware-trained", "train the network from new references that know the model"
    else:
        key, reason = "3", "train the network and leave its references: new ones would take too little away"
    if same:
        reason += "; the model speaks this functional already, so look at its outliers first"
    if math.isinf(energy["needed"]["n_materials"]["middle"]):
        reason += "; at this rate no number of frames below ten million reaches the error"
    return {"key": key, "reason": reason, "train": True}


def _pilot(model, frames: LabelledFrames, energies: EnergyTask, n_epochs: int, seed: int) -> dict | None:
    """Short fine-tunings beside the stand-in, on materials that it looked at."""
    if not n_epochs or isinstance(model, AseModel):
        return None
    some = np.random.default_rng(seed).permutation(np.unique(energies.material_ids))[:MOST_MATERIALS]
    return run_pilot(model, frames, energies, some, n_epochs=n_epochs, seed=seed).to_dict()


def _next_frames(model, reader, dataset, functional, candidates, features, frames, refit, n, seed) -> list[dict]:
    pool = _candidates(dataset, functional, candidates, frames)
    if pool is None or not n:
        return []
    _, first = np.unique(pool.material_ids, return_index=True)  # one crystal of a material says most of it
    rows = np.random.default_rng(seed).permutation(first)[:MOST_CANDIDATES]
    pool = pool.take(np.sort(rows))
    X = pool.composition.toarray()
    left = refit["after_ev_per_atom"] or 0.1
    chosen = choose_next(
        Pool(features, frames.composition.toarray(), frames.material_ids),
        Pool(crystal_features(reader, pool.crystals), X, pool.material_ids),
        n,
        left_ev=left,
        disagreement=_disagreement(_models_apart(model, reader, pool.crystals), X),
    )
    return [
        {
            "frame_id": str(pool.frame_ids[c["row"]]),
            "material_id": str(pool.material_ids[c["row"]]),
            "formula": pool.crystals.formula(c["row"]),
            "unknown_ev_per_atom": c["unknown_ev_per_atom"],
            "reason": c["reason"],
        }
        for c in chosen
    ]


def _models_apart(model, reader, crystals) -> np.ndarray:
    """The model asked about minus a published model that is another one, eV/atom."""
    energy = predict(model, crystals, derivatives=False)["energy_per_atom_ev"]
    for other in (load_model("r2scan"), reader):
        difference = energy - predict(other, crystals, derivatives=False)["energy_per_atom_ev"]
        if np.abs(difference).max() > _SAME_MODEL_EV:
            break
    return difference


def _disagreement(difference_ev, X) -> np.ndarray:
    """What element references leave of the difference of two models, eV/atom."""
    offsets, *_ = np.linalg.lstsq(X, difference_ev, rcond=None)
    return np.abs(difference_ev - X @ offsets)


def _candidates(dataset: Dataset, functional: str, candidates, frames: LabelledFrames) -> LabelledFrames | None:
    """Crystals whose material has no label yet."""
    if candidates is not None:
        given = candidates if isinstance(candidates, Dataset) else open_dataset(candidates)
        keys = {one.key for one in given.functionals} & set(given.need_frames()["functional"].to_pylist())
        pool = LabelledFrames.from_dataset(given, sorted(keys)[0])
    else:
        high = dataset.functional(functional).key
        others = [one.key for one in dataset.functionals if one.key != high]
        others = [key for key in others if key in set(dataset.need_frames()["functional"].to_pylist())]
        if not others:
            return None
        pool = LabelledFrames.from_dataset(dataset, others[0])
    fresh = np.flatnonzero(~np.isin(pool.material_ids, frames.material_ids))
    return pool.take(fresh) if len(fresh) else None


def _cost(model, dataset: Dataset, frames: LabelledFrames, needed: dict, pilot: dict | None, seed: int) -> dict:
    """Hours of training for the frames that are needed, and of calculation where the dataset says what one took."""
    cost = {"label_hours_a_frame": _label_hours(dataset)}
    if isinstance(model, AseModel):
        return cost | {"why_not": "training is for CHGNet; a calculator is trained by its own toolkit"}
    if find_spec("lightning") is None:
        return cost | {"why_not": "training needs Lightning: pip install 'crossfunc[train]'"}
    from crossfunc.training.settings import Settings

    if pilot:
        seconds = pilot["seconds"] / pilot["n_draws"] / pilot["n_epochs"] / pilot["n_train_frames"]
    else:
        seconds = _seconds_a_frame(model, frames, seed)
    n_epochs = Settings().n_epochs
    hours = {k: v * seconds * n_epochs / 3600 for k, v in needed["n_frames"].items()}
    return cost | {"seconds_a_frame_and_epoch": seconds, "n_epochs": n_epochs, "training_hours": hours}


def _seconds_a_frame(model, frames: LabelledFrames, seed: int) -> float:
    """Time of an epoch over a few frames, per frame; the first epoch loads and compiles, so the second counts."""
    from crossfunc.training.fit import finetune

    rows = np.random.default_rng(seed).permutation(len(frames))[: _TIMED_FRAMES + 4]
    some = frames.take(np.sort(rows))
    parts = {"train": np.arange(4, len(some)), "validation": np.arange(min(4, len(some) - 1))}
    run = finetune("3", some, split=parts, pretrained=model, n_epochs=2, progress=False)
    return float(run.history["seconds"].iloc[-1] / len(parts["train"]))


def _label_hours(dataset: Dataset) -> float | None:
    """Mean CPU hours of a frame in both functionals, from the records of a dataset that was calculated here."""
    records = dataset.records
    if records is None or not {"pbe_cpu_s", "r2scan_cpu_s"} <= set(records.column_names):
        return None
    seconds = sum(np.nan_to_num(records[name].to_numpy()) for name in ("pbe_cpu_s", "r2scan_cpu_s"))
    return float(np.mean(seconds[seconds > 0]) / 3600) if (seconds > 0).any() else None
