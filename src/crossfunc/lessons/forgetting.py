"""What methods have learned of the target beside what they have lost of the source (lesson 9)."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from crossfunc.bootstrap import Estimate, paired_over_seeds
from crossfunc.datasets import Dataset
from crossfunc.lessons.beyond import Beyond, JudgedBeyond, find_beyond
from crossfunc.lessons.four_methods import last_fifth, record_last_fifth
from crossfunc.lessons.judging import REFITTED, Judged
from crossfunc.lessons.own_data import fit_size_limit
from crossfunc.lessons.results import LessonResults, format_value, listed, seed_range
from crossfunc.lessons.run_histories import check_one_start
from crossfunc.lessons.units import (
    LESSON_9,
    TAUGHT,
    method_splits,
    start_unit,
    taught_labels,
    unit_name,
    units_folder,
)
from crossfunc.potential import predict
from crossfunc.potential.recorded import NotRecordedError
from crossfunc.training.baselines import zero_errors
from crossfunc.training.dimers import find_dimers, read_dimers
from crossfunc.training.forgetting import COUNTS, DIMERS
from crossfunc.training.labels import METRICS, LabelledFrames
from crossfunc.training.methods import METHODS
from crossfunc.training.source import KINDS, SourceSplit, find_prototypes, join_frames, other_functional, split_source
from crossfunc.training.units import Unit, run_units

ENERGY, FORCE = METRICS["energy"], METRICS["forces"]
LATER = (
    *("model-aware-trained", "readout-only", "soft-freezing", "lora"),
    *("l2-sp", "ewc", "replay", "two-readouts", "delta"),
)
"""Methods after the paper's, as keys of `crossfunc.METHODS`."""

CASES = ("1", "3", "4", *LATER)
PRETRAINED, REFIT, RIDGE = "pretrained", "references-only", "delta-ridge"
UNTRAINED = (PRETRAINED, REFIT, RIDGE)
"""Model-aware references, a plain refit, and a kernel ridge beside the former; no step is taken for any of them."""

ZERO = "predicting no force"
STIFF, STIFF_STRENGTH = "l2-sp, stiff", 0.1
"""Exercise 2: a pull to the start that is a hundred times as strong."""

LOOKS_EVERY = 2
"""Epochs from one validation to the next."""

SOURCE_MAX_ATOMS = 8
"""Atoms of a source cell at most, or the target's own limit where that is higher. The target trains on every material
within its limit, so that only larger cells can be of a chemistry or a prototype that it does not hold; of eight atoms
they still cost no more than a few cells of the target."""

DIMER_ELEMENTS = ("O", "Fe", "Na")
DIMERS_OF = ("3", "model-aware-trained", "replay")
"""Methods whose dimers lesson 9 draws, of its first seed."""

NAMES = {key: METHODS[key].name for key in LATER} | {
    "1": "Method 1 (scratch)",
    "3": "Method 3",
    "4": "Method 4",
    PRETRAINED: "pretrained, not trained",
    REFIT: "plain refit, not trained",
    RIDGE: "delta learning, kernel ridge",
}
"""What tables and legends call a method."""

QUANTITIES = {"energy": ENERGY, "force": FORCE}
UNITS = {"energy": "meV/atom", "force": "meV/Å"}
WHERE = ("target", "source")
BEYOND = {
    "energy": "energy (meV/atom)",
    "force": "force (meV/Å)",
    "slope": "slope of forces",
    "volume": "volume (%)",
    "bulk": "bulk modulus (%)",
}
"""Columns of the table of what methods are worth beyond their training frames."""

_BETTER_OR_WORSE = {"lower": "better", "higher": "worse", "unclear": "unclear"}

NOTHING = Estimate(np.nan, np.nan, np.nan, 0)
"""A difference on frames that are not there."""

PLAIN = "model-aware-trained"
"""Training without a remedy, from the same references as the later methods: what a remedy is compared with."""

PUBLISHED = {"replay": "source", "readout-only": "target", "lora": "target"}
"""Methods that others have published a claim on, and in which functional its error decides it. What replay keeps is
judged on frames far from training, of which the claim speaks."""


def draw_frames(
    dataset: Dataset, source_key: str, *, n_wanted: int, n_source: int, max_atoms: int, seed: int
) -> tuple[LabelledFrames, LabelledFrames]:
    """Frames of the target to choose from, and frames of the source.

    Parameters
    ----------
    dataset : Dataset
    source_key : str
        What the dataset calls the functional that the pretrained model comes from.
    n_wanted : int
        Frames of the target that the lesson needs; a limit on their size that leaves far fewer is raised.
    n_source : int
        Frames of the source at most: half of materials that the target does not have, where there are so many.
    max_atoms : int
        Largest cell of the target; `SOURCE_MAX_ATOMS` are allowed in a cell of the source.
    seed : int
        Seed of the draw from the source.

    Returns
    -------
    target, source : LabelledFrames
    """
    target, source = (LabelledFrames.from_dataset(dataset, key) for key in ("high", source_key))
    usable = target.labelled("forces") & target.labelled("energy")
    limit = fit_size_limit(target.crystals.n_atoms[usable], max_atoms, n_wanted)
    target = target.take(np.flatnonzero(usable & (target.crystals.n_atoms <= limit)))
    source = source.take(np.flatnonzero(source.crystals.n_atoms <= max(limit, SOURCE_MAX_ATOMS)))
    rows = np.random.default_rng(seed).permutation(len(source))
    is_near = np.isin(source.material_ids[rows], target.material_ids)
    far = rows[~is_near][: n_source // 2]
    near = rows[is_near][: n_source - len(far)]
    return target, source.take(np.sort(np.concatenate([near, far])))


def split_frames(target: LabelledFrames, seeds: Sequence[int], n_train: int, n_eval: int) -> dict:
    """Split of each seed as in lesson 4: so many frames of each part, of known elements."""
    sizes = {"n_train_frames": n_train, "n_eval_frames": n_eval}
    return method_splits(target, sizes | {"seed": min(seeds), "n_seeds": len(seeds)})


class Planned(NamedTuple):
    """What lesson 9 trains and judges by.

    Frames of both functionals, the split of each seed, (case, seed) -> Unit, material -> prototype, and frames of the
    target that are unlike those of training.
    """

    target: LabelledFrames
    source: LabelledFrames
    splits: dict[int, dict[str, np.ndarray]]
    units: dict[tuple[str, int], Unit]
    prototypes: dict[str, str]
    beyond: Beyond

    def origin(self, seed: int) -> SourceSplit:
        """Source frames to hold on to and to judge by, as the runs of a seed have them."""
        return _part_source(self.source, self.target, self.splits[seed], self.prototypes)


def _part_source(source: LabelledFrames, target: LabelledFrames, split: Mapping, prototypes: Mapping) -> SourceSplit:
    return split_source(source, target, None, target, split, prototypes=prototypes)


def plan_runs(dataset: Dataset, parameters: Mapping[str, Any]) -> Planned:
    """Frames, splits and units of lesson 9 from its parameters.

    Every run of a seed starts from a model that was taught the source's labels of the training frames, itself the case
    `TAUGHT`, or from CHGNet as it comes where there is nothing to teach: what a model does not know of the source's own
    code before training it cannot forget.

    Parameters
    ----------
    dataset : Dataset
        With frames in two functionals.
    parameters : mapping
        Values of the lesson.

    Returns
    -------
    Planned
        Units of `CASES`, of `UNTRAINED`, and for the first seed of `STIFF`.
    """
    seeds = range(parameters["seed"], parameters["seed"] + parameters["n_seeds"])
    n_train, n_eval = parameters["n_train"], parameters["n_eval"]
    target, source = draw_frames(
        dataset,
        str(other_functional(dataset)),
        n_wanted=n_train + 2 * n_eval,
        n_source=parameters["n_source"],
        max_atoms=parameters["max_atoms"],
        seed=parameters["seed"],
    )
    splits, low = split_frames(target, seeds, n_train, n_eval), taught_labels(dataset, target, parameters)
    units: dict[tuple[str, int], Unit] = {}
    prototypes = find_prototypes(dataset)
    origins = {seed: _part_source(source, target, split, prototypes) for seed, split in splits.items()}
    beyond = find_beyond(LabelledFrames.from_dataset(dataset, "high"), target, splits, origins)
    planned = Planned(target, source, splits, units, prototypes, beyond)
    first, dimers = seeds[0], _few_dimers()
    for seed, split in splits.items():
        start = None if low is None else replace(start_unit(low, split, seed, parameters), also=dimers)
        if start is not None:
            units[TAUGHT, seed] = start
        for case in (*UNTRAINED, *CASES, *([STIFF] if seed == first else [])):
            units[case, seed] = _unit_of(case, seed, planned, parameters, start)
    judged_by = next(iter(origins[first].held_out.values()))  # exercise 1 asks Method 3 about these
    for (case, seed), unit in units.items():
        if case in (TAUGHT, STIFF):
            continue
        asked = [beyond.of_seed(seed)]
        if seed == first:
            asked += [dimers if case in (PRETRAINED, *DIMERS_OF) else None, judged_by if case == "3" else None]
        units[case, seed] = replace(unit, also=_joined(asked))
    return planned


def _unit_of(case: str, seed: int, planned: Planned, parameters: Mapping, start: Unit | None) -> Unit:
    budget = {name: parameters[name] for name in ("n_epochs", "batch_size", "learning_rate")}
    trained = case not in UNTRAINED
    return Unit(
        name=unit_name(case, seed),
        method={STIFF: "l2-sp", PRETRAINED: "model-aware", RIDGE: "model-aware"}.get(case, case),
        seed=seed,
        split=planned.splits[seed],
        settings=budget | {"validate_every_n_epochs": LOOKS_EVERY} if trained else {},
        start=start,
        source=planned.source,
        prototypes=planned.prototypes,
        options={"strength": STIFF_STRENGTH} if case == STIFF else {},
        frozen=case == RIDGE,
    )


def _joined(several: Sequence[LabelledFrames | None]) -> LabelledFrames | None:
    there = [frames for frames in several if frames is not None]
    return join_frames(*there) if there else None


def _few_dimers() -> LabelledFrames | None:
    path = find_dimers()
    return None if path is None else read_dimers(path, elements=DIMER_ELEMENTS)


def make_runs(planned: Planned, parameters: Mapping[str, Any], results_dir=None) -> dict:
    """Make the runs of lesson 9, or read back those that are there; (case, seed) to run.

    Parameters
    ----------
    planned : Planned
    parameters : mapping
        `n_jobs`, and `keep_runs`: whether the runs are units that may be made apart from the page.
    results_dir : path, optional

    Raises
    ------
    LessonError
        Units of one start that began with different networks.
    """
    folder = units_folder(results_dir, LESSON_9) if parameters["keep_runs"] else None
    done = run_units(list(planned.units.values()), planned.target, folder, n_jobs=parameters["n_jobs"])
    runs = dict(zip(planned.units, done, strict=True))
    moved = {case: unit for case, unit in planned.units.items() if not unit.frozen}  # the regression adds forces
    check_one_start(moved, [runs[case] for case in moved])
    return runs


def model_before(planned: Planned, runs: Mapping, seed: int):
    """Return the model that the runs of a seed start from; with model-aware references where it is CHGNet's own."""
    unit = planned.units.get((TAUGHT, seed))
    return runs[PRETRAINED, seed].model if unit is None else unit.model_of(runs[TAUGHT, seed])


class Learned:
    """Errors of trained models in the target and in the source, over seeds.

    Parameters
    ----------
    runs : dict of (str, int) to FinetuneResult
        By case and seed; each with what it has forgotten. `TAUGHT` and `STIFF` are no methods and are passed over.
    target : LabelledFrames
    splits : dict
        Split of each seed.
    beyond : Beyond, optional
        Frames of the target unlike those of training, which the models are asked about as well.
    """

    def __init__(self, runs: Mapping, target: LabelledFrames, splits: Mapping, beyond: Beyond | None = None):
        self.runs = {case: run for case, run in runs.items() if case[0] not in (TAUGHT, STIFF)}
        self.splits = splits
        self.methods = [key for key in dict.fromkeys(key for key, _ in self.runs) if key != PRETRAINED]
        self._judged = Judged(target, splits)
        for (key, seed), run in self.runs.items():
            self._judged.add(key, seed, run.model)
        models = {case: run.model for case, run in self.runs.items()}
        self.beyond = None if beyond is None else JudgedBeyond(beyond, models)

    @property
    def points(self) -> pd.DataFrame:
        """One row per method and seed, the pretrained model first: errors in both, meV/atom and meV/Å.

        `target_refitted` is the energy error after a last refit of the references to the training frames.
        """
        scores, rows = self._judged.scores, []
        for method in (PRETRAINED, *self.methods):
            for seed in self.splits:
                of_run = self.runs[method, seed].forgetting.table
                row = {"method": method, "seed": seed}
                for what, column in QUANTITIES.items():
                    when = "before" if method == PRETRAINED else "after"
                    row[f"target_{what}"] = scores.loc[(method, seed), column]
                    row[f"source_{what}"] = lost(of_run, column, when)
                rows.append(row | {"target_refitted": scores.loc[(method, seed), REFITTED]})
        return pd.DataFrame(rows)

    @property
    def by_kind(self) -> pd.DataFrame:
        """Energy error in the source of each method by kind of frames, mean over seeds, meV/atom."""
        tables = {case: run.forgetting.table[f"{ENERGY}_after"] for case, run in self.runs.items()}
        table = pd.concat(tables, axis=1).T.drop(columns=DIMERS, errors="ignore")
        return table.groupby(level=0).mean().loc[self.methods]

    @property
    def zero(self) -> dict[str, float]:
        """Force errors of predicting none, `target_force` and `source_force`, mean over seeds; NaN without labels."""
        tests = [self._judged.frames.take(split["test"]) for split in self.splits.values()]
        of_target = [np.nan if (e := zero_errors(test)[FORCE]) is None else e for test in tests]
        of_source = [lost(self.runs[PRETRAINED, seed].forgetting.table, FORCE, "zero") for seed in self.splits]
        return {"target_force": float(np.mean(of_target)), "source_force": float(np.mean(of_source))}

    @property
    def dimers(self) -> pd.DataFrame:
        """Errors on dimers before training and after each method, mean over seeds; without rows where there are none.

        Columns `energy` (meV/atom, after a refit to each curve) and `force` (meV/Å).
        """
        rows: dict[str, list] = {}
        for (method, _), run in self.runs.items():
            table = run.forgetting.table
            if DIMERS not in table.index:
                continue
            name, when = ("before training", "before") if method == PRETRAINED else (NAMES[method], "after")
            row = [table.loc[DIMERS, f"{column}_{when}"] for column in QUANTITIES.values()]
            rows.setdefault(name, []).append(row)
        means = {name: np.mean(found, axis=0) for name, found in rows.items()}
        return pd.DataFrame.from_dict(means, orient="index", columns=list(QUANTITIES))

    def ranges(self) -> pd.DataFrame:
        """Mean and range over seeds in words, a row for each method by its name, and one for predicting no force."""
        grouped = self.points.drop(columns="seed").groupby("method", sort=False)
        mean, low, high = grouped.mean(), grouped.min(), grouped.max()
        table = {
            column.replace("_", " "): [
                f"{m:.0f} ({a:.0f}–{b:.0f})" for m, a, b in zip(mean[column], low[column], high[column], strict=True)
            ]
            for column in mean
        }
        found = pd.DataFrame(table, index=[NAMES[key] for key in mean.index])
        zero = {name.replace("_", " "): f"{value:.0f}" for name, value in self.zero.items()}
        found.loc[ZERO] = [zero.get(column, "–") for column in found]
        return found

    def difference(self, where: str, what: str, one: str, other: str, kinds: Sequence[str] | None = None) -> Estimate:
        """Error of one method minus that of another on the same frames, with an interval over materials.

        Parameters
        ----------
        where : {"target", "source"}
        what : {"energy", "force"}
        one, other : str
            Methods.
        kinds : sequence of str, optional
            Kinds of source frames; left out, all but dimers.

        Returns
        -------
        Estimate
            Difference of means over labels, as the errors of `points` are: a frame of many atoms has many force
            components. Nothing of no material, and unclear, where a seed has no label of these kinds.
        """
        column = QUANTITIES[what]
        if where == "target":
            return self._judged.difference(one, other, column)
        tables = {key: [self._of_frames(key, seed, kinds) for seed in self.splits] for key in (one, other)}
        ids, weights = ([table[name] for table in tables[one]] for name in ("material_id", COUNTS[column]))
        if not all(weight.sum() for weight in weights):
            return NOTHING
        errors, others = ([table[column] for table in tables[key]] for key in (one, other))
        return paired_over_seeds(errors, others, ids, weights=weights)

    def _of_frames(self, method: str, seed: int, kinds: Sequence[str] | None) -> pd.DataFrame:
        table = self.runs[method, seed].forgetting.frame_errors
        return table[table["kind"] != DIMERS if kinds is None else table["kind"].isin(kinds)]

    def far_kinds(self) -> list[str]:
        """Kinds of source frames, there in every run, that lie far from training: chemistry, structure, forces."""
        there = [set(run.forgetting.frame_errors["kind"]) for run in self.runs.values()]
        return [kind for kind in KINDS[1:] if all(kind in kinds for kinds in there)]

    def better_than(self, other: str, what: str) -> dict[str, str]:
        """How each later method's errors compare with another's: "better", "worse" or "unclear" in target and source.

        Parameters
        ----------
        other : str
            Method.
        what : {"energy", "force"}

        Returns
        -------
        dict
            Method to "better, unclear" (target first).
        """
        methods = [key for key in (*LATER, RIDGE) if key in self.methods and key != other]
        verdicts = {k: [self.difference(where, what, k, other).verdict for where in WHERE] for k in methods}
        return {key: ", ".join(_BETTER_OR_WORSE[verdict] for verdict in of_key) for key, of_key in verdicts.items()}


def record_errors(results: LessonResults, learned: Learned) -> None:
    """Record every method's errors in target and source, mean and range over seeds, and those of predicting no force.

    Parameters
    ----------
    results : LessonResults
    learned : Learned
    """
    n = len(learned.splits)
    grouped = learned.points.drop(columns="seed").groupby("method", sort=False)
    mean, low, high = grouped.mean(), grouped.min(), grouped.max()
    for key in mean.index:
        for name in mean:
            if np.isfinite(mean.loc[key, name]):
                ends = (low.loc[key, name], high.loc[key, name]) if n > 1 else None
                results.record(f"{name}_{key.replace('-', '_')}", mean.loc[key, name], ends, n=n)
    for name, value in learned.zero.items():
        if np.isfinite(value):
            results.record(f"{name}_zero", value)


def record_differences(results: LessonResults, learned: Learned, other: str = "4") -> None:
    """Record how far each later method's errors are from those of another, on the same frames, in target and source.

    Parameters
    ----------
    results : LessonResults
    learned : Learned
    other : str
        Method.
    """
    for key in [key for key in (*LATER, RIDGE) if key in learned.methods]:
        for where, what in itertools.product(WHERE, QUANTITIES):
            gap = learned.difference(where, what, key, other)
            if gap.n_materials:
                name = f"{where}_{what}_{key.replace('-', '_')}_minus_{other}"
                results.record(name, gap.value, gap.interval, n=gap.n_materials)


def compare_published(results: LessonResults, learned: Learned) -> pd.DataFrame:
    """Record the differences that published claims are about, and return them in words with their verdicts.

    Parameters
    ----------
    results : LessonResults
    learned : Learned

    Returns
    -------
    DataFrame
        A row for each claim and quantity. Where these data have no frames far from training, none is recorded of what
        is kept there, and the verdict is "unclear".
    """
    rows = {}
    for (key, where), (what, unit) in itertools.product(PUBLISHED.items(), UNITS.items()):
        kinds = learned.far_kinds() if where == "source" else None
        gap, said = learned.difference(where, what, key, PLAIN, kinds), "no such frames"
        if gap.n_materials:
            name = f"{where}_{what}_{key.replace('-', '_')}_minus_plain"
            results.record(name, gap.value, gap.interval, n=gap.n_materials)
            said = format_value(gap.value, gap.interval, unit)
        rows[f"{what} in the {where}: {NAMES[key]}"] = said, gap.verdict
    columns = ["error minus that of plain training", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def record_beyond(results: LessonResults, learned: Learned) -> pd.DataFrame:
    """Record what methods are worth in the target beyond their training frames, and return it as people read it.

    Parameters
    ----------
    results : LessonResults
    learned : Learned

    Returns
    -------
    DataFrame
        A row for each method: errors of energy and force with the verdict on their difference from those of the
        untrained model, the slope of force parity, and the deviations of volume and bulk modulus, with how many
        equations of state they are over where a model's minimum is not always between the volumes; "–" where there is
        nothing to judge by, or a seed's model has no such minimum at all.
    """
    judged = learned.beyond
    if judged is None:
        return pd.DataFrame()
    table = judged.table()
    results.save_table("beyond", table.rename_axis("method").reset_index())
    shown = pd.DataFrame("–", index=table.index, columns=list(BEYOND.values()))
    for key, row in table.iterrows():
        name = str(key).replace("-", "_")
        for what in [what for what in QUANTITIES if what in table]:
            shown.loc[key, BEYOND[what]] = f"{row[what]:.0f}"
            if key == PRETRAINED:
                continue
            gap = judged.difference(what, str(key), PRETRAINED)
            shown.loc[key, BEYOND[what]] += f" ({_BETTER_OR_WORSE[gap.verdict]})"
            results.record(f"beyond_{what}_{name}_minus_pretrained", gap.value, gap.interval, n=gap.n_materials)
        if "slope" in table:
            shown.loc[key, BEYOND["slope"]] = f"{row['slope']:.2f}"
        if "volume" in table and np.isfinite(row["volume"]):
            inside, fits = judged.count_fits().loc[key, ["inside", "all"]]
            among = "" if inside == fits else f" ({inside} of {fits} fits)"
            shown.loc[key, BEYOND["volume"]] = f"{row['volume']:.1f}{among}"
            shown.loc[key, BEYOND["bulk"]] = f"{row['bulk']:.0f}{among}"
            of_seeds = judged.median_deviations().loc[key, "volume"]
            counts = {"n": len(of_seeds), "inside": inside, "fits": fits}
            results.record(f"volume_{name}", of_seeds.mean(), seed_range(of_seeds), **counts)
    return shown.rename(index=NAMES)


def beyond_in_words(learned: Learned) -> str:
    """Say which methods are clearly better or worse than no training beyond their training frames."""
    judged = learned.beyond
    if judged is None or not judged.beyond.has_far:
        return "These data label no crystal beyond the training frames in the target: nothing to tell here."
    lines = []
    for what in QUANTITIES:
        of = {key: judged.difference(what, key, PRETRAINED).verdict for key in learned.methods if key != REFIT}
        better, worse = ([NAMES[k] for k, verdict in of.items() if verdict == which] for which in ("lower", "higher"))
        lines.append(
            f"- **{what.capitalize()}**: clearly better than no training: {listed(better or ['none'])}; clearly worse, "
            f"so that something was forgotten: {listed(worse or ['none'])}."
        )
    return "\n".join(lines)


def record_arrival(results: LessonResults, runs: Mapping) -> str:
    """Record by how much each method's validation error fell in the last fifth of its steps, and say who still falls.

    Parameters
    ----------
    results : LessonResults
    runs : dict of (str, int) to FinetuneResult

    Returns
    -------
    str
    """
    return record_last_fifth(results, last_fifth(runs, methods=CASES), NAMES, more="")


def best_in_words(learned: Learned) -> str:
    """Say which methods are clearly better than Method 4 in target and source at once, or that there is none."""
    lines = []
    for what in QUANTITIES:
        found = learned.better_than("4", what)
        both = [NAMES[key] for key, said in found.items() if said == "better, better"]
        half = [NAMES[key] for key, said in found.items() if "better" in said and "worse" not in said]
        half = [name for name in half if name not in both]
        text = (
            f"clearly lower than Method 4 in target *and* source: {listed(both)}"
            if both
            else ("no method is clearly lower than Method 4 in target *and* source")
        )
        if half:
            text += f"; in one of the two, and not clearly worse in the other: {listed(half)}"
        lines.append(f"- **{what.capitalize()}**: {text}.")
    return "\n".join(lines)


def choices(learned: Learned) -> pd.DataFrame:
    """Which method has the lowest error, and which others cannot be told from it on the same frames, by quantity.

    References alone, without a step of training, are what methods are measured against, and not among them.

    Returns
    -------
    DataFrame
        A row for each error in target and source, with `lowest` and `not clearly worse`, in words.
    """
    means = learned.points.drop(columns="seed").groupby("method", sort=False).mean()
    rows = {}
    for where in WHERE:
        for what in QUANTITIES:
            of = means[f"{where}_{what}"].drop([PRETRAINED, REFIT], errors="ignore").dropna()
            if of.empty:
                continue
            best = of.idxmin()
            others = [key for key in of.index if key != best]
            near = [key for key in others if learned.difference(where, what, key, best).verdict != "higher"]
            rows[f"{what}, {where}"] = {
                "lowest": NAMES[best],
                "not clearly worse": ", ".join(NAMES[key] for key in near) or "none",
            }
    return pd.DataFrame(rows).T


def lost(table: pd.DataFrame, column: str, when: str = "after") -> float:
    """Mean error over the labels of all kinds but dimers, from the table of a `Forgetting`; NaN without a label."""
    table = table.drop(index=DIMERS, errors="ignore")
    table = table[table[COUNTS[column]] > 0]
    return float(np.average(table[f"{column}_{when}"], weights=table[COUNTS[column]])) if len(table) else np.nan


def curves_of_dimers(path, models: Mapping, elements: Sequence[str]) -> dict:
    """Energy against distance of each element's dimer: the PBE labels, and several models.

    Parameters
    ----------
    path : path
        The file that `find_dimers` finds.
    models : mapping of str to CHGNet
        By label.
    elements : sequence of str

    Returns
    -------
    dict
        Dimer -> label -> (distances in Å, energies in eV).
    """
    curves = {}
    for element in elements:
        frames = read_dimers(path, elements=[element])
        pairs = frames.crystals.positions_a.reshape(-1, 2, 3)
        distance = np.linalg.norm(np.diff(pairs, axis=1), axis=(1, 2))
        energies = {"PBE": frames.energy_per_atom_ev}
        for label, model in models.items():
            with contextlib.suppress(NotRecordedError):  # made on a machine without these curves
                energies[label] = predict(model, frames.crystals, derivatives=False)["energy_per_atom_ev"]
        curves[f"{element}–{element}"] = {label: (distance, 2 * energy) for label, energy in energies.items()}
    return curves
