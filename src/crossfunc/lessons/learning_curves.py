"""Lesson 7's tables: what costs no training, errors against N, which curves may be quoted, and in words what follows.

Nothing here knows how a curve runs. Sentences about its course are formed from the errors and from the rule of
`why_not_quote`: above what costs nothing, no exponent and no factor.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crossfunc.bootstrap import Estimate, mean_over_seeds, paired_over_seeds
from crossfunc.lessons import run_histories
from crossfunc.lessons.results import count_seeds, listed, seed_range
from crossfunc.lessons.scores import QUANTITIES
from crossfunc.lessons.units import PLAIN_START, STARTS
from crossfunc.training.baselines import (
    frame_errors,
    last_refit_ev,
    predict_zero,
    refitted_energy_errors,
    why_not_quote,
    zero_errors,
)
from crossfunc.training.evaluate import FramePredictions, evaluate, predict_frames
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.scaling import DataEfficiency, PowerLaw, ScalingError, data_efficiency, fit_power_law

TARGETS = {"energy": "energy", "force": "forces"}
DRAWN = tuple(TARGETS)
"""Errors that are drawn, and that laws are fitted to; what they are errors in."""

UNITS = dict(QUANTITIES.values())
COLUMNS = {quantity: name for name, (quantity, _) in QUANTITIES.items() if quantity != "magmom"}
"""Errors by the name that they have in an evaluation."""

TRANSFER, SCRATCH, ZERO = "transfer", "scratch", "predict zero"

REACH = 10
"""How far beyond the largest run from scratch its law is followed."""

STEPS_ARE_THE_LIMIT = 1.5
"""Below this ratio of validation to training error, more frames cannot help before more steps have."""


def key_of(name: str) -> str:
    """Return a curve's name as it stands in the key of a result."""
    return name.replace("-", "_").replace(" ", "_")


def counted(frames: LabelledFrames) -> str:
    """Return how many frames there are, of how many materials."""
    return f"{len(frames)} frames of {len(np.unique(frames.material_ids))} materials"


# --- what costs nothing ---


def errors_at_zero(untrained: Mapping[str, Any], validation: LabelledFrames) -> pd.DataFrame:
    """Errors without any training on the new functional, a row for each start and one for predicting zero.

    Parameters
    ----------
    untrained : dict of str to FinetuneResult
    validation : LabelledFrames

    Returns
    -------
    DataFrame
        `energy` (meV/atom), `force` (meV/Å) and `stress` (GPa); NaN where nothing is labelled, or predicted.
    """
    rows = {
        name: {m: run.history.iloc[0][f"validation_{c}"] for m, c in COLUMNS.items()} for name, run in untrained.items()
    }
    zero = zero_errors(validation)
    rows[ZERO] = {m: zero[c] for m, c in COLUMNS.items()}
    return pd.DataFrame(rows).T.astype(float)


def free_error(at_zero: pd.DataFrame, metric: str, curve: str) -> float:
    """Lowest error that costs a curve no training: of predicting zero, of references alone, of model-aware ones.

    Forces of scratch are held against zero alone: it does without the pretrained network that the other rows have.
    """
    column = at_zero[metric]
    return float(column[ZERO] if curve == SCRATCH and metric != "energy" else column.min())


# --- the curves ---


def predictions(units: Mapping[Any, Any], done: Sequence, validation: LabelledFrames) -> dict[Any, FramePredictions]:
    """What each run predicts for the validation frames after its last step.

    Parameters
    ----------
    units : dict
        (curve, N, seed) to unit, or name to unit where nothing is trained.
    done : sequence of FinetuneResult
        In the same order.
    validation : LabelledFrames
    """
    return {key: predict_frames(run.last_model, validation) for key, run in zip(units, done, strict=True)}


def last_errors(
    seen: Mapping[tuple, FramePredictions], done: Sequence, frames: LabelledFrames, n_own: int
) -> pd.DataFrame:
    """Last row of each run's history, with errors on at most `n_own` of its own training frames.

    Parameters
    ----------
    seen : dict
        From `predictions`.
    done : sequence of FinetuneResult
        In the same order.
    frames : LabelledFrames
    n_own : int

    Returns
    -------
    DataFrame
        The history's columns, `train_*_mae_*`, `refitted` (validation energies after a last refit of the references to
        those training frames, meV/atom), `method` (the curve), `seed` and `n`.
    """
    rows = []
    for ((name, n, k), predicted), run in zip(seen.items(), done, strict=True):
        some = np.random.default_rng(k).permutation(run.split["train"])[:n_own]
        own = evaluate(run.last_model, frames.take(some))
        own = {f"train_{m}": own[m] for m in own if "_mae_" in m}
        after = refitted_energy_errors(predicted, last_refit_ev(run.last_model, frames.take(some)))
        own["refitted"] = float(np.nanmean(after))
        rows.append(run.history.iloc[-1].to_dict() | own | {"method": name, "seed": k, "n": n})
    return pd.DataFrame(rows)


def short(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the validation errors of `last_errors` under short names: `method`, `n`, `seed`, `energy`, `force` ..."""
    names = {f"validation_{c}": m for m, c in COLUMNS.items()}
    return runs.rename(columns=names)[["method", "n", "seed", *names.values()]]


def mean_refitted(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the validation energy error after a last refit, mean over seeds, by N (rows) and curve."""
    return _by_n(runs, "refitted")


def mean_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """Return validation errors as people read them, mean over seeds: a row for each N, a column for each curve."""
    means = errors.pivot_table(list(DRAWN), "n", "method", sort=False).sort_index()
    means.columns = [f"{metric} ({UNITS[metric]}), {name}" for metric, name in means.columns]
    return means.rename_axis("N")


def of_curve(errors: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of one curve."""
    return errors[errors["method"] == name]


def at_largest(errors: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of one curve at its largest N."""
    curve = of_curve(errors, name)
    return curve[curve["n"] == curve["n"].max()]


# --- which of them may be quoted ---


def fit_laws(
    errors: pd.DataFrame, at_zero: pd.DataFrame, curves: Sequence[str], **options
) -> tuple[dict[tuple[str, str], PowerLaw | None], dict[tuple[str, str], str]]:
    """Fit a power law to each curve that may be quoted.

    Parameters
    ----------
    errors : DataFrame
        From `short`.
    at_zero : DataFrame
        From `errors_at_zero`.
    curves : sequence of str
    options
        As for `fit_power_law`.

    Returns
    -------
    laws, reasons : dict
        (metric, curve) to its law, None where none is quoted; and why not, empty where one is.
    """
    laws: dict[tuple[str, str], PowerLaw | None] = {}
    reasons: dict[tuple[str, str], str] = {}
    for metric in DRAWN:
        for name in curves:
            curve, key = of_curve(errors, name), (metric, name)
            reasons[key] = why_not_quote(curve["n"], curve[metric], free_error(at_zero, metric, name), what=name)
            laws[key] = None
            if not reasons[key]:
                laws[key], reasons[key] = _fit_law(curve["n"], curve[metric], runs=curve["seed"], **options)
    return laws, reasons


def _fit_law(n, error, **options) -> tuple[PowerLaw | None, str]:
    """A law that falls, or None and why there is none."""
    try:
        law = fit_power_law(n, error, **options)
    except ScalingError as failure:
        return None, str(failure)
    low, high = law.exponent_interval
    if low <= 0:
        why = f"its exponent would lie between {low:.2f} and {high:.2f}, so the error may not fall at all"
        return None, f"no law: {why}"
    return law, ""


def worth_of_frames(
    errors: pd.DataFrame, at_zero: pd.DataFrame, seen: Mapping[tuple, FramePredictions], **options
) -> tuple[dict[str, DataEfficiency | None], dict[str, pd.Series], dict[str, str]]:
    """How many scratch frames a transfer frame is worth: from laws, and from measurements as a lower limit.

    Parameters
    ----------
    errors, at_zero : DataFrame
    seen : dict
        From `predictions`.
    options
        As for `data_efficiency`.

    Returns
    -------
    worth, limits, reasons : dict
        Metric to a factor or None; to limits by transfer's N, possibly none; to why there is no factor from laws.
    """
    worth: dict[str, DataEfficiency | None] = {}
    limits: dict[str, pd.Series] = {}
    reasons: dict[str, str] = {}
    for metric in DRAWN:
        worth[metric], limits[metric], reasons[metric] = None, pd.Series(dtype=float), why_no_factor(errors, at_zero)
        if reasons[metric]:
            continue
        limits[metric] = measured_limits(errors, at_zero, seen, metric)
        try:
            worth[metric] = factor_within_reach(errors, at_zero, metric, **options)
        except ScalingError as failure:
            reasons[metric] = str(failure)
    return worth, limits, reasons


def why_no_factor(errors: pd.DataFrame, at_zero: pd.DataFrame) -> str:
    """Why transfer cannot be counted in frames of scratch at all; an empty text if it can.

    A model that is no better than predicting zero for every force, or every stress, is no potential, whatever its
    energies are.
    """
    if lacking := {TRANSFER, SCRATCH} - set(errors["method"]):
        return f"a factor takes the curves {TRANSFER} and {SCRATCH}; there is no {' and no '.join(sorted(lacking))}"
    last = at_largest(errors, SCRATCH)
    for metric in ("force", "stress"):
        free, error = at_zero.loc[ZERO, metric], last[metric].mean()
        if np.isfinite(free) and not error < free:
            return (
                f"scratch at its largest N = {last['n'].iloc[0]:,} errs by {error:.3g} {UNITS[metric]} in {metric}, "
                f"predicting zero by {free:.3g}: it is no potential yet, and nothing is worth so many of its frames"
            )
    return ""


def factor_within_reach(errors: pd.DataFrame, at_zero: pd.DataFrame, metric: str, **options) -> DataEfficiency:
    """Factor from two laws, at the N where the law of scratch is not stretched beyond `REACH` times its runs.

    Raises
    ------
    ScalingError
        A curve that may not be quoted, an exponent of scratch that may be zero, or no N within reach.
    """
    curves = [of_curve(errors, name) for name in (TRANSFER, SCRATCH)]
    for name, curve in zip((TRANSFER, SCRATCH), curves, strict=True):
        if why := why_not_quote(curve["n"], curve[metric], free_error(at_zero, metric, name), what=name):
            raise ScalingError(why)
    points = [curve[column] for curve in curves for column in ("n", metric)]
    options |= {"runs_transfer": curves[0]["seed"], "runs_scratch": curves[1]["seed"]}
    factor = data_efficiency(*points, **options)
    low, high = factor.scratch.exponent_interval
    if low <= 0:
        raise ScalingError(f"the exponent of scratch may be zero ({low:.2f} to {high:.2f})")
    near = factor.n_scratch <= REACH * curves[1]["n"].max()
    if not near.any():
        raise ScalingError(f"all answers lie beyond {REACH} times the largest run from scratch")
    return data_efficiency(*points, at=factor.n[near], **options)


def measured_limits(
    errors: pd.DataFrame, at_zero: pd.DataFrame, seen: Mapping[tuple, FramePredictions], metric: str
) -> pd.Series:
    """Lower limits that need no law: N_max / N where transfer at N is better than scratch at its largest N_max.

    Better is a paired difference whose whole interval, over validation materials and seeds, is below zero. Only where
    transfer lies below what costs nothing: a start that is better without its N frames owes them nothing.
    """
    means = of_curve(errors, TRANSFER).groupby("n")[metric].mean()
    below = means.index[means < free_error(at_zero, metric, TRANSFER)]
    n_max = at_largest(errors, SCRATCH)["n"].iloc[0]
    goal = of_point(seen, SCRATCH, n_max)
    sizes = [n for n in below if difference(of_point(seen, TRANSFER, n), goal, metric).verdict == "lower"]
    return pd.Series([n_max / n for n in sizes], sizes, dtype=float)


def of_point(seen: Mapping[tuple, FramePredictions], curve: str, n: int) -> list[FramePredictions]:
    """Return the predictions of all seeds at one point of a curve."""
    return [predicted for (name, size, _), predicted in seen.items() if (name, size) == (curve, n)]


def difference(ones: Sequence[FramePredictions], others: Sequence[FramePredictions], metric: str) -> Estimate:
    """Error of some runs minus that of others, seed by seed on the same frames, with an interval over both draws."""
    errors, of_others = ([frame_errors(one, TARGETS[metric]) for one in several] for several in (ones, others))
    return paired_over_seeds(errors, of_others, **_drawn(ones, metric))


def error_of(several: Sequence[FramePredictions], metric: str) -> Estimate:
    """Error of the runs of all seeds, mean over them, with an interval over validation materials and seeds."""
    return mean_over_seeds([frame_errors(one, TARGETS[metric]) for one in several], **_drawn(several, metric))


def _drawn(several: Sequence[FramePredictions], metric: str) -> dict:
    counts = [one.frames.label_counts[TARGETS[metric]] for one in several]
    return {"material_ids": [one.frames.material_ids for one in several], "weights": counts}


# --- data or steps ---


def overfit(runs: pd.DataFrame, n_seen: int) -> pd.DataFrame:
    """Force error in validation over that in training by N, a column for each curve, with how often frames were seen.

    Parameters
    ----------
    runs : DataFrame
        From `last_errors`.
    n_seen : int
        Frames that a run looks at, repeats counted.
    """
    force = COLUMNS["force"]
    table = runs.assign(ratio=runs[f"validation_{force}"] / runs[f"train_{force}"])
    table = _by_n(table, "ratio")
    table["times each frame is seen"] = n_seen / table.index
    return table


def _by_n(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column's mean over seeds: a row for each N, a column for each curve."""
    table = runs.pivot_table(column, "n", "method", sort=False).sort_index()
    return table.rename_axis("N").rename_axis(None, axis=1)


def last_fifths(units: Mapping[tuple, Any], done: Sequence) -> pd.DataFrame:
    """By how much of itself each run's errors fell in the last fifth of its steps: `method`, `n`, `seed`, `energy` ...

    Parameters
    ----------
    units : dict
        (curve, N, seed) to unit.
    done : sequence of FinetuneResult
        In the same order.

    Returns
    -------
    DataFrame
        NaN where `run_histories.last_fifth` has none.
    """
    rows = [
        {"method": name, "n": n, "seed": seed}
        | {metric: run_histories.last_fifth(run.history, COLUMNS[metric]) for metric in DRAWN}
        for (name, n, seed), run in zip(units, done, strict=True)
    ]
    return pd.DataFrame(rows)


def record_last_fifths(results, units: Mapping[tuple, Any], done: Sequence) -> str:
    """Record `last_fifths` at the largest N in percent, and say which runs have not arrived, if any."""
    fallen = last_fifths(units, done)
    if fallen[list(DRAWN)].isna().all(axis=None):
        few = f"fewer than {run_histories.FEWEST_LOOKS} times (`n_looks`)"
        return f"These runs were looked at {few}, so whether they have arrived cannot be said."
    limit, said = f"{run_histories.STILL_FALLING:.0%}", []
    for metric in DRAWN:
        for name in fallen["method"].unique():
            percent = 100 * at_largest(fallen, name)[metric]
            if percent.notna().all():
                ends = seed_range(percent)
                results.record(f"{metric}_last_fifth_{key_of(name)}", percent.mean(), ends, n=fallen["n"].max())
        mean = fallen.groupby(["method", "n"], sort=False)[metric].mean()
        late = mean[mean > run_histories.STILL_FALLING]
        whose = [f"{name} at N = {n:,} ({value:.0%})" for (name, n), value in late.items()]
        said.append(
            f"the {metric} error still falls by more than {limit} for {listed(whose)}"
            if whose
            else f"no {metric} error falls by more than {limit}"
        )
    return f"In the last fifth of the steps, mean over seeds, {'; '.join(said)}. More is not converged."


# --- the schedule ---


def schedule_changes(theirs: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Change of the error by the other schedule, % of ours: a row for each seed, a column for each metric.

    Parameters
    ----------
    theirs, ours : DataFrame
        As from `short`, of one curve at one N.
    """
    ours = ours.set_index("seed").loc[theirs["seed"], list(DRAWN)]
    return 100 * (theirs.set_index("seed")[list(DRAWN)] / ours - 1)


# --- what is recorded ---

IN_KEYS = {"metric": list(DRAWN), "key_of(name)": [key_of(name) for name in (*STARTS, "refitted")]}
"""What may stand in the keys that are recorded here, by the expression that puts it there."""


def record_errors(results, at_zero, untrained, errors, finals, **note) -> None:
    """Record errors without training and at the largest N, with intervals over validation materials and seeds.

    Parameters
    ----------
    results : LessonResults
    at_zero, errors : DataFrame
    untrained : dict of str to FramePredictions
        From `predictions`.
    finals : dict of str to list of FramePredictions
        Curve to what all seeds predict at the largest N.
    note
        `n_pool`, frames behind the references, and `n_steps` of every run.
    """
    zero = error_of([predict_zero(untrained["refitted"].frames)], "force")
    results.record("force_zero", zero.value, zero.interval)
    own_forces = [name for name in ("refitted", PLAIN_START) if name in untrained]  # of other rows they are the first's
    for metric, names in (("energy", list(untrained)), ("force", own_forces)):
        for name in names:
            ends = error_of([untrained[name]], metric).interval
            results.record(f"{metric}_n0_{key_of(name)}", at_zero.loc[name, metric], ends, n=note["n_pool"])
        for name, several in finals.items():
            end, ends = at_largest(errors, name), error_of(several, metric).interval
            about = {"n": end["n"].iloc[0], "n_steps": note["n_steps"], "seeds": seeds_of(errors)}
            results.record(f"{metric}_largest_{key_of(name)}", end[metric].mean(), ends, **about)


def record_refitted(results, runs: pd.DataFrame) -> None:
    """Record the energy error after a last refit at the largest N of each curve, mean and range over seeds."""
    for name, of_curve in runs.groupby("method", sort=False):
        values = of_curve.loc[of_curve["n"] == of_curve["n"].max(), "refitted"]
        results.record(f"refitted_largest_{key_of(name)}", values.mean(), seed_range(values), n=of_curve["n"].max())


def record_pairs(
    results, finals: Mapping[str, list[FramePredictions]], untrained: Mapping[str, FramePredictions]
) -> None:
    """Record what scratch at its largest N gets wrong beyond transfer, trained or not, and beyond predicting zero.

    Parameters
    ----------
    results : LessonResults
    finals : dict of str to list of FramePredictions
        Curve to what all seeds predict at the largest N.
    untrained : dict of str to FramePredictions
        From `predictions`.
    """
    if not {TRANSFER, SCRATCH} <= set(finals):
        return
    seen = {name: finals[name] for name in (TRANSFER, SCRATCH)}
    seen["n0"] = [untrained["refitted"]] * len(finals[TRANSFER])
    seen["zero"] = [predict_zero(one.frames) for one in seen["n0"]]
    pairs = [(SCRATCH, TRANSFER), (SCRATCH, "n0"), (TRANSFER, "n0")]
    of_forces = [*pairs, (SCRATCH, "zero")]  # zero is no answer to an energy
    for metric, compared in zip(DRAWN, (pairs, of_forces), strict=True):
        for one, other in compared:
            e = difference(seen[one], seen[other], metric)
            results.record(f"{metric}_{one}_minus_{other}", e.value, e.interval, n=e.n_materials)


def seeds_of(errors: pd.DataFrame) -> str:
    """Return how many seeds there are, in words: "2 seeds"."""
    return count_seeds(errors["seed"].nunique())


def record_laws(results, laws: Mapping[tuple[str, str], PowerLaw | None]) -> None:
    """Record the exponent of every law."""
    for (metric, name), law in laws.items():
        if law is not None:
            about = {"first": f"{law.n.min():.0f}", "last": f"{law.n.max():.0f}", "r2": f"{law.r2:.2f}"}
            results.record(f"{metric}_exponent_{key_of(name)}", law.exponent, law.exponent_interval, **about)


def record_worth(results, worth, limits, errors: pd.DataFrame) -> None:
    """Record factors, and lower limits that need no law."""
    for metric, factor in worth.items():
        if len(limits[metric]):
            largest = at_largest(errors, SCRATCH)["n"].iloc[0]
            about = {"n": limits[metric].idxmax(), "largest": largest, "seeds": seeds_of(errors)}
            results.record(f"{metric}_factor_at_least", limits[metric].max(), **about)
        if factor is None:
            continue
        low, high = factor.mean_factor_interval
        about = {"first": f"{factor.n.min():.0f}", "last": f"{factor.n.max():.0f}", "n": len(factor.n)}
        about["beyond"] = factor.extrapolated.sum()
        about["open"] = "" if np.isfinite(high) else f", from {low:.2g}, no upper end"
        results.record(f"{metric}_factor", factor.mean_factor, (low, high) if np.isfinite(high) else None, **about)


def record_schedule(results, changes: pd.DataFrame, unit) -> None:
    """Record what chgnet's schedule changes at the smallest N, and its last learning rate over the first.

    Parameters
    ----------
    results : LessonResults
    changes : DataFrame
        From `schedule_changes`.
    unit : Unit
        One of those at chgnet's rates.
    """
    n = len(unit.split["train"])
    n_batches = -(-n // unit.settings["batch_size"])
    repeats = count_seeds(len(changes))
    batches = f"{n_batches} batch{'es' * (n_batches > 1)}"
    for metric, more in changes.items():
        results.record(f"schedule_{metric}", more.mean(), seed_range(more), n=n, batches=batches, seeds=repeats)
    last, first = unit.learning_rates[-1], unit.settings["learning_rate"]
    results.record("schedule_final_rate", 100 * last / first)


# --- in words ---


def free_in_words(at_zero: pd.DataFrame) -> str:
    """Say what the rows without training leave, and which of them a curve has to get below."""
    energy, force = at_zero["energy"].drop(ZERO), at_zero["force"]
    best = energy.idxmin()
    return (
        f"References alone, refitted, leave {energy['refitted']:.0f} meV/atom, model-aware ones "
        f"{energy['model-aware']:.0f}. The lowest energy error without training is {energy[best]:.0f} meV/atom "
        f"(*{best}*), the lowest force error {force.drop(ZERO).min():.0f} meV/Å; predicting zero for every force errs "
        f"by {force[ZERO]:.0f}."
    )


def laws_in_words(laws: Mapping[tuple[str, str], PowerLaw | None], reasons: Mapping[tuple[str, str], str]) -> str:
    """Give each curve's law, or say why none is quoted, as a Markdown list."""
    lines = []
    for (metric, name), law in laws.items():
        if law is None:
            lines.append(f"- **{metric}, {name}**: {reasons[metric, name].rstrip('.')}.")
            continue
        low, high = law.exponent_interval
        lines.append(
            f"- **{metric}, {name}**: b = {law.exponent:.2f} ({low:.2f} to {high:.2f}), R² = {law.r2:.2f}, N from "
            f"{law.n.min():,.0f} to {law.n.max():,.0f}."
        )
    return "\n".join(lines)


def end_in_words(errors: pd.DataFrame, at_zero: pd.DataFrame, metric: str) -> str:
    """Say where curves end, and what costs nothing beside them, for a caption."""
    unit, n = UNITS[metric], errors["n"].max()
    ends = [f"{name} {at_largest(errors, name)[metric].mean():.0f}" for name in errors["method"].unique()]
    free, name = at_zero[metric].min(), at_zero[metric].idxmin()
    return f"{metric.capitalize()} errors at N = {n:,} ({unit}): {listed(ends)}; without training {free:.0f} ({name})"


def worth_in_words(worth, limits, reasons: Mapping[str, str]) -> str:
    """Say what a transfer frame is worth in each metric, or why nothing is said, as a Markdown list."""
    lines = []
    for metric, factor in worth.items():
        said = []
        if factor is not None:
            low, high = factor.mean_factor_interval
            upper = f"{high:.2g}" if np.isfinite(high) else "no upper end"
            said.append(f"by the two laws about {factor.mean_factor:.2g} frames of scratch ({low:.2g} to {upper})")
        if len(limits[metric]):
            at = limits[metric].idxmax()
            said.append(f"as measured more than {limits[metric].max():.0f} at N = {at:,}")
        text = f"a transfer frame is worth {listed(said)}" if said else "no factor"
        why = reasons[metric].rstrip(".")
        lines.append(f"- **{metric}**: {text}." + (f" {why[0].upper()}{why[1:]}." if why else ""))
    return "\n".join(lines)


def limits_in_words(limits: Mapping[str, pd.Series]) -> str:
    """Return the largest lower limit of each metric for a caption; an empty text without any."""
    there = {metric: limit for metric, limit in limits.items() if len(limit)}
    return "; ".join(f"{metric} more than {limit.max():.0f} at N = {limit.idxmax()}" for metric, limit in there.items())


def budget_in_words(table: pd.DataFrame) -> str:
    """Say whether data or steps limit each curve at its largest N, from `overfit`."""
    seen = table["times each frame is seen"].iloc[-1]
    if seen < 1:
        return f"At N = {table.index[-1]:,} a run looks at {seen:.0%} of its frames: steps are the limit, not frames."
    last, said = table.iloc[-1].drop("times each frame is seen").dropna(), []
    for limited, what in ((True, "steps are the limit, not frames"), (False, "more frames would still help")):
        names = [f"{name} ({r:.1f})" for name, r in last.items() if (r < STEPS_ARE_THE_LIMIT) == limited]
        if names:
            said.append(f"for {listed(names)} {what}")
    return f"At N = {table.index[-1]:,}, where each frame is seen {seen:.1f} times, {listed(said)}."


def schedule_in_words(changes: pd.DataFrame) -> str:
    """Say what the other schedule does to each error, and how many seeds agree on it."""
    said = []
    for metric, more in changes.items():
        sign = "lower" if (more < 0).all() else "higher" if (more > 0).all() else None
        agree = f"for each of {count_seeds(len(more))}" if len(more) > 1 else "for the one seed"
        ends = f"{sign} {agree}" if sign else "lower for some seeds and higher for others"
        said.append(f"the {metric} error by {more.mean():+.0f} % ({ends})")
    return f"Chgnet's schedule changes {listed(said)}."
