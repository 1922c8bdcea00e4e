"""The runs behind lessons 4 and 7, from the lessons' own parameters: for the notebooks, and for running them apart.

`crossfunc units 04 --profile converged` makes them one by one beside the notebook; the lesson then finds them whole.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from crossfunc.datasets import Dataset, nested_subsets, split_by_material
from crossfunc.energies import published_tables_apply
from crossfunc.lessons.own_data import fit_size_limit
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.methods import as_model
from crossfunc.training.result import FinetuneResult
from crossfunc.training.settings import chgnet_learning_rates
from crossfunc.training.taught import TEACHING_METHOD, labels_to_teach
from crossfunc.training.units import Unit, identify, run_units

LESSON_4, LESSON_4B = "04_four_methods", "04b_what_moved"
"""The page that trains, and the one that reads its runs."""

LESSON_7, LESSON_9 = "07_scaling_laws", "09_what_is_forgotten"

SCRATCH_ON_GGA = "1 on GGA references"
PAPERS_TABLE = "4 on the published table"
AWARE = "model-aware, then trained"
CASES: Mapping[str, tuple[str, str | None]] = {
    "1": ("1", None),
    "2": ("2", None),
    "3": ("3", None),
    "4": ("4", None),
    "references-only": ("references-only", None),
    "model-aware": ("model-aware", None),
    SCRATCH_ON_GGA: ("1", "pretrained"),
    PAPERS_TABLE: ("4", "MP-r2SCAN"),
    AWARE: ("model-aware", None),
}
"""Runs of lesson 4 by name: method, and other references than its own."""

TAUGHT = "taught start"
"""A unit of lesson 4 or 7 that teaches the low functional's labels, for others to start from."""

AS_PUBLISHED = ", start as published"
PLAIN_CASES: Mapping[str, tuple[str, str | None]] = {
    "3" + AS_PUBLISHED: ("3", None),
    "4" + AS_PUBLISHED: ("4", None),
    AWARE + AS_PUBLISHED: ("model-aware", None),
}
"""Runs of lesson 4 from the pretrained model as it comes, where all others start from a taught one."""

PLAIN_START = "plain start"
"""Model-aware references on the pretrained model as it comes, where the other curves begin with a taught start."""

STARTS: Mapping[str, tuple[str, str]] = {
    "transfer": ("4", "given"),
    "model-aware": ("model-aware", "own"),
    PLAIN_START: ("model-aware", "own"),
    "published": ("4", "MP-r2SCAN"),
    "scratch": ("1", "given"),
}
"""Curves of lesson 7: method, and where its references come from: given (refitted once to all training frames), fitted
by the method itself, again to all of them, or a published table. Where a start can be taught, all but the plain one
and scratch begin with it."""

VANISHING_EV_PER_A = 1e-3
"""Forces below this are zero by symmetry, but for rounding."""

A_HANDFUL = 5

FEW_MATERIALS = 300
"""With fewer materials a tenth of them is too small a test."""


def choose_frames(frames: LabelledFrames, rows, n: int, rng: np.random.Generator) -> np.ndarray:
    """At most n of these frames, spread over materials and elements.

    First one frame of each material, those that bring elements seen least so far in front, then a second of each.
    """
    import pandas as pd

    rows = rng.permutation(rows)
    ids = frames.material_ids[rows]
    turn = pd.Series(ids).groupby(ids).cumcount()  # 0: first of its own
    has = frames.composition[rows].toarray() > 0
    seen = np.where(has, has.cumsum(axis=0), len(rows) + 1)
    order = np.lexsort([seen.min(axis=1), turn])
    return np.sort(rows[order[:n]])


def usable_frames(dataset: Dataset, max_atoms: int, n_wanted: int, *, need_forces: bool) -> LabelledFrames:
    """The r²SCAN frames of a lesson: small enough, with an energy; with forces if any has them or it needs them."""
    every = LabelledFrames.from_dataset(dataset, "high")
    usable, n_atoms = every.labelled("energy"), every.crystals.n_atoms
    if need_forces or every.labelled("forces").any():
        usable &= every.labelled("forces")
    usable &= n_atoms <= fit_size_limit(n_atoms[usable], max_atoms, n_wanted)
    return every.take(np.flatnonzero(usable))


def method_splits(frames: LabelledFrames, parameters: Mapping[str, Any]) -> dict[int, dict[str, np.ndarray]]:
    """Split of each seed of lesson 4: materials first, then frames of each part.

    Where there are few materials, a fifth of them is for the test: verdicts are drawn over materials. Validation and
    test keep frames of elements that training shows: no reference can be known for any other.
    """
    fractions = _fractions(frames)
    sizes = [parameters["n_train_frames"], parameters["n_eval_frames"], parameters["n_eval_frames"]]
    splits = {}
    for seed in range(parameters["seed"], parameters["seed"] + parameters["n_seeds"]):
        parts = split_by_material(frames.material_ids, fractions, seed=seed)
        rng = np.random.default_rng(seed)
        split: dict[str, np.ndarray] = {}
        for (part, rows), n in zip(parts.items(), sizes, strict=True):
            known = rows if part == "train" else of_known_elements(frames, rows, split["train"])
            split[part] = choose_frames(frames, known, n, rng)
        splits[seed] = split
    return splits


def watched_split(frames: LabelledFrames, n_train: int, n_validation: int, seed: int) -> dict[str, np.ndarray]:
    """Training frames of lesson 5, and frames of all other materials to measure the outcome on."""
    parts = split_by_material(frames.material_ids, _fractions(frames), seed=seed)
    rng = np.random.default_rng(seed)
    train = choose_frames(frames, parts["train"], n_train, rng)
    others = of_known_elements(frames, np.concatenate([parts["validation"], parts["test"]]), train)
    return {"train": train, "validation": choose_frames(frames, others, n_validation, rng)}


def begin(frames: LabelledFrames, low: LabelledFrames | None, split, parameters: Mapping[str, Any]):
    """Model that a lesson's runs start from: taught the low labels of the training frames, or as it comes without any.

    Parameters
    ----------
    frames : LabelledFrames
    low : LabelledFrames or None
        From `taught_labels`.
    split : dict of str to ndarray
    parameters : mapping
        As for `start_unit`, and `seed`; optionally `pretrained`.

    Returns
    -------
    CHGNet
    """
    pretrained = parameters.get("pretrained", "0.3.0")
    if low is None:
        return as_model(pretrained)
    unit = start_unit(low, split, parameters["seed"], parameters)
    (run,) = run_units([unit], frames, pretrained=pretrained)
    return unit.model_of(run)


def _fractions(frames: LabelledFrames) -> tuple[float, float, float]:
    is_small = len(np.unique(frames.material_ids)) < FEW_MATERIALS
    return (0.7, 0.1, 0.2) if is_small else (0.8, 0.1, 0.1)


def has_known_elements(frames: LabelledFrames, rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Whether all elements of each of these rows occur in the training rows."""
    seen = np.asarray((frames.composition[train] > 0).sum(axis=0)).ravel() > 0
    return np.asarray(frames.composition[rows] @ ~seen).ravel() == 0


def of_known_elements(frames: LabelledFrames, rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Rows whose elements all occur in the training rows; every row where none would be left."""
    known = rows[has_known_elements(frames, rows, train)]
    return known if len(known) else rows


def start_unit(low: LabelledFrames, split: Mapping[str, np.ndarray], seed: int, parameters: Mapping[str, Any]) -> Unit:
    """Unit that teaches the low functional's labels of a split's training frames, for other units to start from.

    Parameters
    ----------
    low : LabelledFrames
        From `crossfunc.training.labels_to_teach`: frame by frame those that the split points into.
    split : dict of str to ndarray
    seed : int
    parameters : mapping
        `n_start_epochs`, `batch_size`, `learning_rate`; optionally `n_workers`.

    Returns
    -------
    Unit
        It keeps its last weights, so validation labels of the low functional have no part in them.
    """
    there = low.labelled("energy")
    known = ("batch_size", "learning_rate", "n_workers")
    budget = {name: parameters[name] for name in known if name in parameters}
    n_epochs = parameters["n_start_epochs"]
    return Unit(
        name=unit_name(TAUGHT, seed),
        method=TEACHING_METHOD,
        seed=seed,
        split={part: rows[there[rows]] for part, rows in split.items()},
        settings=budget | {"n_epochs": n_epochs, "validate_every_n_epochs": max(1, n_epochs // 4)},
        frames=low,
        keep="last",
    )


def case_units(
    frames: LabelledFrames,
    parameters: Mapping[str, Any],
    low: LabelledFrames | None = None,
    *,
    has_papers_table: bool = True,
) -> dict[tuple[str, int], Unit]:
    """Units of lesson 4, (case, seed) -> Unit: all with the same frames, order, steps and learning rates.

    Parameters
    ----------
    frames : LabelledFrames
    parameters : mapping
    low : LabelledFrames, optional
        From `crossfunc.training.labels_to_teach`. With it every case starts from a model that was taught these labels,
        itself the case `TAUGHT`, and `PLAIN_CASES` show what the pretrained model gives as it comes.
    has_papers_table : bool
        Whether the published references apply to the labels; see `published_tables_apply`.
    """
    budget = {name: parameters[name] for name in ("batch_size", "learning_rate", "n_workers")}
    budget |= (
        {"max_steps": parameters["max_steps"]} if parameters["max_steps"] else {"n_epochs": parameters["n_epochs"]}
    )
    budget["validate_every_n_epochs"] = parameters["validate_every_n_epochs"]
    cases = {case: given for case, given in CASES.items() if has_papers_table or case != PAPERS_TABLE}
    units: dict[tuple[str, int], Unit] = {}
    for seed, split in method_splits(frames, parameters).items():
        start = None if low is None else start_unit(low, split, seed, parameters)
        if start is not None:
            units[TAUGHT, seed] = start
        for case, (method, references) in (cases if low is None else {**cases, **PLAIN_CASES}).items():
            units[case, seed] = Unit(
                name=unit_name(case, seed),
                method=method,
                seed=seed,
                split=split,
                references=references,
                settings={} if case in ("references-only", "model-aware") else budget,
                start=None if case in PLAIN_CASES else start,
            )
    return units


REORDERED = ("1", "4")
"""Cases of lesson 4 whose first split is trained on in other orders as well: all new weights, and none."""


def order_units(planned: Mapping[tuple[str, int], Unit], n_orders: int) -> dict[tuple[str, int], Unit]:
    """Units of lesson 4 that differ from those of the first split in the order of frames, and random weights, alone.

    Parameters
    ----------
    planned : dict
        From `case_units`.
    n_orders : int
        More orders than the one that is planned.

    Returns
    -------
    dict
        (case, seed of the order) to its unit.
    """
    firsts: dict[str, Unit] = {}
    for (case, _), unit in planned.items():
        if case in REORDERED:
            firsts.setdefault(case, unit)
    return {
        (case, unit.seed + k): replace(unit, name=f"{unit.name}-order{unit.seed + k}", seed=unit.seed + k)
        for case, unit in firsts.items()
        for k in range(1, n_orders + 1)
    }


def plan_methods(dataset: Dataset, parameters: Mapping[str, Any]) -> tuple[LabelledFrames, dict[tuple[str, int], Unit]]:
    """Frames and units of lesson 4 from its parameters, (case, seed) -> Unit; see `case_units`."""
    n_wanted = parameters["n_train_frames"] + 2 * parameters["n_eval_frames"]
    frames = usable_frames(dataset, parameters["max_atoms"], n_wanted, need_forces=False)
    low, has_table = taught_labels(dataset, frames, parameters), published_tables_apply(dataset)
    return frames, case_units(frames, parameters, low, has_papers_table=has_table)


def taught_labels(dataset: Dataset, frames: LabelledFrames, parameters: Mapping[str, Any]) -> LabelledFrames | None:
    """Labels that a start is taught in a lesson; None where there is nothing to teach, or no epoch to do it in."""
    if not parameters["n_start_epochs"]:
        return None
    return labels_to_teach(dataset, frames, parameters.get("pretrained", "0.3.0"))


def unit_name(case: str, seed: int, size: int | None = None) -> str:
    """File name of a unit: case, size if there are several, seed."""
    words = case.lower().replace(",", "").split()
    return "-".join(
        ["method" if words[0].isdigit() else "", *words, *([f"n{size}"] if size else []), f"seed{seed}"]
    ).strip("-")


def scaling_start(
    dataset: Dataset, frames: LabelledFrames, pool: np.ndarray, validation: np.ndarray, parameters: Mapping[str, Any]
) -> Unit | None:
    """Unit of lesson 7 that teaches the low functional's labels of all training frames: cheap labels are not counted.

    Returns
    -------
    Unit or None
        None where there is nothing to teach; see `taught_labels`.
    """
    low = taught_labels(dataset, frames, {"n_start_epochs": 0, **parameters})
    split = {"train": pool, "validation": validation}
    return None if low is None else start_unit(low, split, parameters["seed"], parameters)


def scaling_units(
    frames: LabelledFrames,
    pool: np.ndarray,
    validation: np.ndarray,
    references,
    parameters: Mapping[str, Any],
    start: Unit | None = None,
) -> dict[tuple[str, int, int], Unit]:
    """Units of lesson 7, (curve, N, seed) -> Unit: nested subsets, equal budgets, one table of references per curve.

    Parameters
    ----------
    frames, pool, validation, references
        From `plan_scaling`; curves without references there are left out.
    parameters : mapping
    start : Unit, optional
        From `scaling_start`: what all curves but `PLAIN_START` and those from scratch begin with. Without it
        `PLAIN_START` is left out, since all of them begin with the pretrained model.
    """
    budget = {name: parameters[name] for name in ("max_steps", "batch_size", "learning_rate")}
    units = {}
    for seed in range(parameters["seed"], parameters["seed"] + parameters["n_seeds"]):
        for rows in nested_subsets(frames.material_ids[pool], parameters["sizes"], seed=seed):
            for curve in curves_of(parameters["curves"], references, start):
                method, source = STARTS[curve]
                n_epochs = -(-budget["max_steps"] // -(-len(rows) // budget["batch_size"]))
                looks = {"validate_every_n_epochs": max(1, n_epochs // parameters["n_looks"])}
                own_start = None if method == "1" or curve == PLAIN_START else start
                own_table = own_start is not None and source == "own"
                units[curve, len(rows), seed] = Unit(
                    name=unit_name(curve, seed, len(rows)),
                    method=method,
                    seed=seed,
                    split={"train": pool[rows], "validation": validation},
                    references=None if own_table else references[curve],
                    settings=budget | looks,
                    start=own_start,
                    fit_to=pool if own_table else None,
                    keep="last",
                )
    return units


def untrained_units(
    pool: np.ndarray, validation: np.ndarray, references, parameters: Mapping[str, Any], start: Unit | None = None
) -> dict[str, Unit]:
    """Units of lesson 7 that train nothing, by name: references of each kind on what the curves begin with.

    Parameters
    ----------
    pool, validation, references
        From `plan_scaling`.
    parameters : mapping
        `seed` and `curves`: the published table is among them where its curve is.
    start : Unit, optional
        From `scaling_start`; with it, `PLAIN_START` has model-aware references on the pretrained model as it comes.
    """
    kinds: dict[str, tuple] = {
        "refitted": ("references-only", references["transfer"], start),
        "model-aware": ("model-aware", None, start),
    }
    if start is not None:
        kinds[PLAIN_START] = ("model-aware", None, None)
    if "published" in curves_of(parameters["curves"], references, start):
        kinds["published"] = ("references-only", references["published"], start)
    return {
        kind: Unit(
            name=unit_name(f"untrained {kind}", parameters["seed"]),
            method=method,
            seed=parameters["seed"],
            split={"train": pool, "validation": validation},
            references=table,
            start=begins_with,
            keep="last",
        )
        for kind, (method, table, begins_with) in kinds.items()
    }


def smallest_units(planned: Mapping[tuple[str, int, int], Unit]) -> list[Unit]:
    """Return the units of transfer at its smallest N, in the order of their seeds."""
    smallest = min((n for curve, n, _ in planned if curve == "transfer"), default=0)
    return [unit for (curve, n, _), unit in planned.items() if (curve, n) == ("transfer", smallest)]


def units_at_chgnets_rates(planned: Mapping[tuple[str, int, int], Unit]) -> list[Unit]:
    """Return the units of transfer at its smallest N with the learning rates of chgnet's Trainer.

    Parameters
    ----------
    planned : dict
        From `scaling_units`.
    """
    return [
        replace(unit, name=f"{unit.name}-at-chgnets-rates", learning_rates=_chgnets_rates(unit))
        for unit in smallest_units(planned)
    ]


def _chgnets_rates(unit: Unit) -> np.ndarray:
    n_batches = -(-len(unit.split["train"]) // unit.settings["batch_size"])
    n_epochs = -(-unit.settings["max_steps"] // n_batches)
    return unit.settings["learning_rate"] * chgnet_learning_rates(n_batches, n_epochs)


def unit_of_few(planned: Mapping[tuple[str, int, int], Unit], untrained: Mapping[str, Unit]) -> Unit:
    """Return the unit whose references are fitted to the smallest subset alone; nothing is trained.

    Parameters
    ----------
    planned, untrained : dict
        From `scaling_units` and `untrained_units`.
    """
    refitted, smallest = untrained["refitted"], smallest_units(planned)[0]
    name = unit_name("untrained of few", refitted.seed)
    return replace(refitted, name=name, references=None, split=smallest.split)


def curves_of(curves, references, start: Unit | None) -> list[str]:
    """Return the curves of lesson 7 that these data can have: with references, and with a taught start a plain one."""
    return [curve for curve in curves if curve in references and (start is not None or curve != PLAIN_START)]


def rows_to_judge(frames: LabelledFrames, rows: np.ndarray, references) -> np.ndarray:
    """Rows that tell something of forces and of energies; all of them where fewer than a handful do.

    Parameters
    ----------
    frames : LabelledFrames
    rows : ndarray of int
    references : AtomRefFit
        Fitted to the training frames.

    Returns
    -------
    ndarray of int
        Those whose forces do not vanish by symmetry, for these are right in any model, and whose composition the
        references fix, for the error of an element that nothing was fitted to hides all others. If a handful is not
        left, the second is not asked for.
    """
    of_rows = frames.take(rows)
    largest = np.array([np.abs(forces).max() for forces in of_rows.crystals.split(of_rows.forces_ev_per_a)])
    moved, fixed = largest > VANISHING_EV_PER_A, references.is_determined_for(of_rows.composition)
    return next((rows[telling] for telling in (moved & fixed, moved) if telling.sum() >= A_HANDFUL), rows)


def plan_scaling(dataset: Dataset, parameters: Mapping[str, Any]):
    """Frames, pool of training rows, validation rows, sizes that fit and references of lesson 7.

    Where the pool holds fewer frames than the larger sizes ask for, all of it is the last size. With few materials
    those of the test join the validation, on which every point is measured and nothing is chosen; see `rows_to_judge`
    for the frames that count there.
    """
    from crossfunc.training.methods import start_model

    sizes, n_validation = parameters["sizes"], parameters["n_validation"]
    frames = usable_frames(dataset, parameters["max_atoms"], sizes[-1] + n_validation, need_forces=True)
    parts = split_by_material(frames.material_ids, seed=parameters["seed"])
    pool, others = parts["train"], parts["validation"]
    if len(np.unique(frames.material_ids)) < FEW_MATERIALS:
        others = np.concatenate([others, parts["test"]])
    train = frames.take(pool)
    references = {
        "given": start_model("4", train, prior="trend").references,
        "own": start_model("model-aware", train, prior="trend").references,
    }
    others = rows_to_judge(frames, others, references["given"])
    validation = np.sort(np.random.default_rng(parameters["seed"]).permutation(others)[:n_validation])
    of_curve = {curve: references.get(source, source) for curve, (_, source) in STARTS.items()}
    if not published_tables_apply(dataset):
        del of_curve["published"]
    fitting = [n for n in sizes if n <= len(pool)]
    if len(fitting) < len(sizes) and len(pool) > 1.5 * (fitting or [0])[-1]:
        fitting.append(len(pool))
    return frames, pool, validation, fitting, of_curve


def make_runs(
    planned: Mapping[tuple[str, int], Unit],
    frames: LabelledFrames,
    results_dir,
    parameters: Mapping[str, Any],
    *,
    cases=None,
    others: Mapping[tuple[str, int], Unit] | None = None,
    anew: bool = False,
) -> dict[tuple[str, int], FinetuneResult]:
    """Make the runs of lesson 4 for one of its pages; what the other page has made with these values is read back.

    Parameters
    ----------
    planned : dict
        From `case_units`.
    frames : LabelledFrames
    results_dir : path or None
        None shares nothing.
    parameters : mapping
        `pretrained`, `n_jobs`, and `keep_runs`: whether the runs are units that may be made apart from the pages.
    cases : collection of str, optional
        Make these alone.
    others : dict, optional
        Make these in place of the planned ones, whose folder and starts they share.
    anew : bool
        Train whatever is shared once more, as the first page does.

    Returns
    -------
    dict
        (case, seed) to its run.
    """
    chosen = {key: unit for key, unit in planned.items() if cases is None or key[0] in cases}
    chosen = chosen if others is None else dict(others)
    pretrained, is_kept = parameters["pretrained"], parameters["keep_runs"]
    if is_kept:
        folder = units_folder(results_dir, LESSON_4)
    else:
        folder = _shared_folder(results_dir, planned, frames, pretrained, anew=anew)
    options = {"pretrained": pretrained, "n_jobs": parameters["n_jobs"]}
    done = run_units(list(chosen.values()), frames, folder, with_results=is_kept, **options)
    return dict(zip(chosen, done, strict=True))


def _shared_folder(results_dir, planned, frames: LabelledFrames, pretrained, *, anew: bool):
    """Folder through which two pages share runs, named after all that decides their numbers but the code."""
    import hashlib
    import shutil
    from pathlib import Path

    if results_dir is None:
        return None
    everything = [str(pretrained), *(identify(unit, frames, pretrained) for unit in planned.values())]
    shared = Path(results_dir).parent / "shared" / LESSON_4
    if anew:
        shutil.rmtree(shared, ignore_errors=True)
    return shared / hashlib.sha256(" ".join(everything).encode()).hexdigest()[:16]


def units_folder(results_dir, lesson: str):
    """Folder of a lesson's units, beside the results of its profile; None where nothing is kept."""
    from pathlib import Path

    whose = LESSON_4 if lesson == LESSON_4B else lesson
    return None if results_dir is None else Path(results_dir).parent / "units" / whose
