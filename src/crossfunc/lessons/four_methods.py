"""Lesson 4's tables: who is compared, what each gets wrong, what its weights did, and in words what follows.

Nothing here knows how a comparison ends. Sentences about its outcome are formed from the verdicts.
"""

from collections.abc import Collection, Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from crossfunc.bootstrap import Estimate, mean_error, paired_difference
from crossfunc.datasets import Dataset
from crossfunc.energies import correlation_text, published_tables_apply
from crossfunc.lessons import run_histories
from crossfunc.lessons.judging import ENERGY, FORCE, MAGMOM, REFITTED, STRESS, Judged, short_name
from crossfunc.lessons.results import count_seeds, format_value, listed, seed_range
from crossfunc.lessons.run_histories import FEWEST_LOOKS, STILL_FALLING, training_error
from crossfunc.lessons.scores import QUANTITIES, mean_by_students_t
from crossfunc.lessons.sources import LessonError
from crossfunc.lessons.units import (
    AS_PUBLISHED,
    AWARE,
    CASES,
    PAPERS_TABLE,
    PLAIN_CASES,
    SCRATCH_ON_GGA,
    TAUGHT,
    choose_frames,
    has_known_elements,
)
from crossfunc.plain_text import in_markdown
from crossfunc.potential import crystal_features, load_model, predict, save_model
from crossfunc.potential.checkpoints import element_references
from crossfunc.potential.recorded import RecordedModel
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.training.baselines import force_agreement, last_refit_ev, predict_zero, slope_and_cosine, zero_errors
from crossfunc.training.evaluate import FramePredictions, evaluate, predict_frames
from crossfunc.training.frozen import cross_validate_frozen
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.methods import STARTS, find_method, fit_references
from crossfunc.training.settings import learning_rate_at

_LAST_REFIT = {REFITTED: ("energy, last refit", "meV/atom")}
TABLE_COLUMNS = {ENERGY: QUANTITIES[ENERGY], **_LAST_REFIT, **QUANTITIES}
"""Columns of Table 1, in the order of the paper, and one that it does not have."""

ZERO, AS_IT_IS, PUBLISHED = "predict zero", "GGA model as it comes", "published r²SCAN checkpoint"
UNTRAINED = {"references-only": "refitted", "model-aware": "model-aware"}
"""What tables and figures call references in front of a network that is not trained, as lesson 7 does at N = 0."""

FREE = (ZERO, AS_IT_IS, TAUGHT, *UNTRAINED)
"""Rows that no step of training on the new labels went into."""

ROWS = (*FREE, "1", *(c for c in CASES if c.startswith("1 ")), *"234", PAPERS_TABLE, AWARE, *PLAIN_CASES, PUBLISHED)
"""All rows of the table in their order, what costs nothing first."""

DRAWN = (*"1234", PAPERS_TABLE, AWARE)
"""Cases whose histories are drawn."""

SAME_EV_PER_A = 1e-4
"""Forces of one network agree to this, whether it predicts them or a record of it does."""

BLOCKS = {
    "atom embedding": "atom_embedding",
    "bond embedding": ("bond_basis", "bond_embedding", "bond_weights"),
    "angle embedding": ("angle_basis", "angle_embedding"),
    **{f"atom update {k + 1}": f"atom_conv_layers.{k}" for k in range(4)},
    **{f"bond update {k + 1}": f"bond_conv_layers.{k}" for k in range(3)},
    **{f"angle update {k + 1}": f"angle_layers.{k}" for k in range(2)},
    "moments": "site_wise",
    "energy readout": ("readout_norm", "mlp"),
}
"""Parts of CHGNet's network, and what the names of their weights begin with."""

_PAIRS = {
    ENERGY: ("energy", ("43", "42", "41", "32", "31", "21")),
    REFITTED: ("refitted", ("43", "42", "41", "32", "31", "21")),
    FORCE: ("force", ("43", "42", "41", "32", "31", "21")),
    STRESS: ("stress", ("43", "42", "14", "32", "31", "21")),
    MAGMOM: ("magmom", ("43", "42", "14", "32", "31", "21")),
}


# --- who is held out ---


class FrozenErrors(NamedTuple):
    """Energy errors of the same frames, eV/atom, each from a fold in which its group was held out.

    Attributes
    ----------
    groups : dict of str to ndarray of str, shape (n,)
        By what was held out: the material, formula or structure type of each frame, left out of training as a whole.
    before, after : dict of str to ndarray, shape (n,)
        By what was held out: of model-aware references alone, and with kernel ridge on the frozen network's features.
    """

    groups: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]


N_FOLDS = 5
BY_MATERIAL, NO_FORMULA, NO_PROTOTYPE = "by material", "leave composition out", "leave prototype out"
GROUPS = {BY_MATERIAL: "materials", NO_FORMULA: "formulas", NO_PROTOTYPE: "structure types"}
"""Kinds of splits, and what each holds out as a whole."""


def ways_to_hold_out(frames: LabelledFrames, pairs) -> dict[str, np.ndarray]:
    """Return the group of each frame, by what is held out whole: its material, its formula, its structure type.

    Parameters
    ----------
    frames : LabelledFrames
    pairs : DataFrame or None
        Table of pairs; its column `prototype`, where there is one, names structure types.

    Returns
    -------
    dict of str to ndarray of str, shape (n_frames,)
        An empty text where a structure type is not known. Only kinds with a group for each fold and more.
    """
    ids = frames.material_ids
    kinds = {
        BY_MATERIAL: np.asarray(ids, str),
        NO_FORMULA: np.array([frames.crystals.formula(k) for k in range(len(frames))]),
    }
    if pairs is not None and "prototype" in pairs:
        of_frames = pd.Series(ids).map(pairs.set_index("material_id")["prototype"])
        kinds[NO_PROTOTYPE] = of_frames.fillna("").to_numpy(str)
    return {kind: groups for kind, groups in kinds.items() if len(set(groups) - {""}) > N_FOLDS}


def frozen_errors(base, frames: LabelledFrames, kinds: Mapping[str, np.ndarray], n: int, seed: int = 0) -> FrozenErrors:
    """Energy errors without training the network, five-fold, whole groups held out, on the same frames for each kind.

    Parameters
    ----------
    base : CHGNet
    frames : LabelledFrames
    kinds : dict of str to ndarray
        From `ways_to_hold_out`.
    n : int
        At most so many frames, of those with a group of each kind.
    seed : int

    Returns
    -------
    FrozenErrors
        Errors of the frames whose elements occur in the other folds, whatever is held out.
    """
    grouped = np.flatnonzero(np.logical_and.reduce([groups != "" for groups in kinds.values()]))
    rows = choose_frames(frames, grouped, n, np.random.default_rng(seed))
    some = frames.take(rows)
    base_ev = element_references(base)
    predicted = predict(base, some.crystals, derivatives=False)["energy_per_atom_ev"]

    def left(train: np.ndarray) -> np.ndarray:
        labels = some.composition[train], some.energy_per_atom_ev[train], some.material_ids[train]
        fit = fit_references(*labels, base_ev, predicted_per_atom_ev=predicted[train], prior="trend")
        change = np.nan_to_num(fit.energies_ev) - np.nan_to_num(base_ev)
        return some.energy_per_atom_ev - predicted - some.composition @ change

    features, is_known = crystal_features(base, some.crystals), np.ones(len(some), bool)
    before, after = {}, {}
    for kind, groups in kinds.items():
        options = {"groups": groups[rows], "n_splits": N_FOLDS, "seed": seed}
        one, two, fold = cross_validate_frozen(features, left, some.material_ids, **options)
        before[kind], after[kind] = np.abs(one), np.abs(two)
        for k in range(N_FOLDS):
            is_known[fold == k] &= has_known_elements(some, np.flatnonzero(fold == k), np.flatnonzero(fold != k))
    return FrozenErrors(
        {kind: groups[rows][is_known] for kind, groups in kinds.items()},
        {kind: errors[is_known] for kind, errors in before.items()},
        {kind: errors[is_known] for kind, errors in after.items()},
    )


def split_estimates(found: FrozenErrors) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    """Return estimates in meV/atom by what is held out: of the references, with the network, and the latter's rise.

    The rise is over the first kind, frame by frame. Drawn is what was held out whole, and `n_materials` of an estimate
    counts that: one gap in what training was shown is behind all errors of a formula or of a structure type, so they
    rise and fall together.
    """
    first = next(iter(found.after.values()))
    return {
        kind: (
            mean_error(1000 * found.before[kind], found.groups[kind]),
            mean_error(1000 * after, found.groups[kind]),
            paired_difference(1000 * after, 1000 * first, found.groups[kind]),
        )
        for kind, after in found.after.items()
    }


def split_table(by_kind: Mapping[str, tuple]) -> pd.DataFrame:
    """Return the estimates of `split_estimates` as people read them, a row for each kind."""
    first = next(iter(by_kind))
    columns = ["references alone", "with the frozen network", f"more than {first}"]
    rows = [[format_value(e.value, e.interval, "meV/atom") for e in found] for found in by_kind.values()]
    rows[0][-1] = "–"
    return pd.DataFrame(rows, by_kind, columns)


def splits_in_words(by_kind: Mapping[str, tuple]) -> str:
    """Say what each harder split costs, where the paired interval knows."""
    first = next(iter(by_kind))
    said = []
    for kind, (_, _, rise) in list(by_kind.items())[1:]:
        number = format_value(rise.value, rise.interval, "meV/atom")
        drawn = f"over {rise.n_materials} {GROUPS[kind]}"
        is_clear = rise.verdict in ("higher", "lower")
        said.append(
            f"*{kind}* costs {number} ({drawn})"
            if is_clear
            else f"whether *{kind}* costs more is unclear ({number}, {drawn})"
        )
    return f"Beside the split *{first}*, {listed(said)}." if said else ""


def record_splits(results, by_kind: Mapping[str, tuple]) -> None:
    """Record the errors on a frozen network by what is held out, and what a harder split costs."""
    first = next(iter(by_kind))
    for kind, (_, after, rise) in by_kind.items():
        short = kind.replace(" ", "_")
        results.record(f"split_{short}", after.value, after.interval, n=after.n_materials)
        if kind != first:
            results.record(f"split_{short}_rise", rise.value, rise.interval, n=rise.n_materials)


# --- the start ---


def methods_table(keys=STARTS) -> pd.DataFrame:
    """Return what tells methods apart: weights and references at the start, and what training moves."""
    rows = [
        {
            "method": m.number or "–",
            "name": m.name,
            "weights": m.start,
            "references": m.references,
            "trains": " and ".join(m.trains) or "nothing",
        }
        for m in map(find_method, keys)
    ]
    return pd.DataFrame(rows)


def predict_starts(models: Mapping[str, object], low: LabelledFrames, high: LabelledFrames, names) -> dict:
    """Forces and stresses of models beside the labels of both functionals on the same crystals.

    Parameters
    ----------
    models : dict of str to CHGNet
    low, high : LabelledFrames
        The same test frames with labels of the low and of the high functional.
    names : tuple of two str
        What the functionals are called.

    Returns
    -------
    dict
        (Row, name of a functional) to FramePredictions: of each model, then of the labels of the low functional, held
        against those of the high one where both label forces, then of zero.
    """
    seen = {
        (name, side): predict_frames(model, labels)
        for name, model in models.items()
        for side, labels in zip(names, (low, high), strict=True)
    }
    both = np.isfinite(low.forces_ev_per_a) & np.isfinite(high.forces_ev_per_a)
    if both.any():
        theirs = (low.energy_per_atom_ev, low.forces_ev_per_a, low.stress_gpa, low.magmoms_mub)
        seen[f"{names[0]} labels", names[1]] = FramePredictions(high, np.arange(len(high)), *theirs)
    return seen | {(ZERO, side): predict_zero(labels) for side, labels in zip(names, (low, high), strict=True)}


def start_errors(seen: Mapping[tuple[str, str], FramePredictions]) -> pd.DataFrame:
    """Table of `predict_starts`: for each functional `force` (meV/Å), `slope`, `cosine` and `stress` (GPa)."""
    rows: dict[str, dict] = {}
    for (name, side), predictions in seen.items():
        errors, (slope, cosine) = predictions.metrics(), slope_and_cosine(predictions)
        found = {"force": errors[FORCE], "slope": slope, "cosine": cosine, "stress": errors[STRESS]}
        rows.setdefault(name, {}).update({(side, key): value for key, value in found.items()})
    sides = list(dict.fromkeys(side for _, side in seen))
    columns = pd.MultiIndex.from_product([sides, ("force", "slope", "cosine", "stress")])
    return pd.DataFrame(rows).T.astype(float).reindex(columns=columns)


def record_starts(results, seen: Mapping[tuple[str, str], FramePredictions]) -> None:
    """Record what a taught start knows of both functionals, and how far their labels are apart, with intervals."""
    low, high = dict.fromkeys(side for _, side in seen)
    agreement = {
        case: force_agreement(predictions)
        for case, predictions in seen.items()
        if case[0] != ZERO and predictions.metrics()[FORCE] is not None
    }

    def record(key: str, what: str, row: str, side: str) -> None:
        if (found := agreement.get((row, side), {}).get(what)) is not None:
            scale = 1000 if what == "mae" else 1  # meV/Å
            ends = found.interval and tuple(scale * end for end in found.interval)
            results.record(key, scale * found.value, ends, n=found.n_materials)

    for what in ("mae", "slope", "cosine"):
        for name, side in (("low", low), ("high", high)):
            record(f"published_start_force_{what}_{name}", what, "as published", side)
            record(f"taught_start_force_{what}_{name}", what, TAUGHT, side)
    record("functionals_force_difference", "mae", f"{low} labels", high)
    record("functionals_force_slope", "slope", f"{low} labels", high)
    record("functionals_force_cosine", "cosine", f"{low} labels", high)


# --- who wins ---


def judge_runs(dataset: Dataset, frames: LabelledFrames, planned, runs, base, seed: int = 0) -> Judged:
    """Let every model predict the test frames of its seed, with the rows that cost nothing.

    Parameters
    ----------
    dataset : Dataset
        The published checkpoint is judged too where its functional is the dataset's and the labels are not its own.
    frames : LabelledFrames
    planned, runs : dict
        (case, seed) to unit and to its run.
    base : CHGNet
        The pretrained model as it comes.
    seed : int
        Random numbers of the resampling.

    Raises
    ------
    LessonError
        Units of one seed that began with different networks.
    """
    run_histories.check_one_start({key: planned[key] for key in runs}, runs.values())
    splits = splits_of(planned)
    judged = Judged(frames, splits, seed)
    for (name, of_seed), run in runs.items():
        judged.add(name, of_seed, planned[name, of_seed].model_of(run))
    for s in splits:
        judged.add(AS_IT_IS, s, base)
        if "r2scan" in dataset.functional("high").key and not dataset.is_surrogate:
            judged.add(PUBLISHED, s, load_model("r2scan"), energies=published_tables_apply(dataset))
    judged.add_zero(ZERO)
    _check_one_start(judged)
    return judged


def _check_one_start(judged: Judged) -> None:
    """Refuse units of one seed that began with different networks: references cannot change a force."""
    of_start = (TAUGHT, *UNTRAINED)
    for seed in judged.splits:
        forces = {n: judged.predictions[n, seed].forces_ev_per_a for n in of_start if (n, seed) in judged.predictions}
        for name, other in pairwise(forces):
            apart = np.nanmax(np.abs(forces[name] - forces[other]), initial=0.0)
            if apart > SAME_EV_PER_A:
                raise LessonError(
                    f"seed {seed}: forces of {name!r} and {other!r} are up to {1000 * apart:.2g} meV/Å apart, so their "
                    "units began with different networks: a start that was taught on one machine was taught again on "
                    f"another. Delete the units of seed {seed} and make them on one machine."
                )


def splits_of(planned) -> dict[int, Mapping[str, np.ndarray]]:
    """Return the split of each seed."""
    return {seed: unit.split for (case, seed), unit in planned.items() if case == "4"}


def starts_of(planned, runs, base) -> dict[int, object]:
    """Return the model that the cases of each seed begin with: the taught one where there is one, else `base`."""
    base = load_model(base) if isinstance(base, str) else base
    taught = {s: (TAUGHT, s) for s in splits_of(planned) if (TAUGHT, s) in runs}
    return {s: planned[taught[s]].model_of(runs[taught[s]]) if s in taught else base for s in splits_of(planned)}


def untrained(judged: Judged) -> str:
    """Name of the model that all cases start from: the taught one where there is one, else the published one."""
    return TAUGHT if TAUGHT in judged.names else AS_IT_IS


def order_of(judged: Judged) -> list[str]:
    """Return the names of all rows of the table, what costs nothing first."""
    return [name for name in ROWS if name in judged.names]


def shown_metrics(judged: Judged) -> dict[str, tuple[str, str]]:
    """Return the metrics that the test frames of every seed are labelled with, with quantity and unit."""
    is_there = judged.scores.notna().groupby(level=0).all().any()
    return {metric: words for metric, words in TABLE_COLUMNS.items() if is_there[metric]}


def title_of(name: str) -> str:
    """Return a row's name for people: "Method 4"."""
    if name in UNTRAINED:
        return f"{UNTRAINED[name]}, untrained"
    return f"Method {name}" if name[0].isdigit() else name


def key_of(metric: str, name: str) -> str:
    """Return the key under which an error is recorded: `energy_mae_method_4`."""
    return f"{metric.split('_mae')[0]}_mae_{short_name(name)}"


IN_KEYS = {
    "key_of(metric, name)": [key_of(metric, name) for metric in TABLE_COLUMNS for name in ROWS],
    "short_name(name)": [short_name(name) for name in ROWS],
    "what": ["mae", "slope", "cosine"],
}
"""What may stand in the keys that are recorded here, by the expression that puts it there."""


def table_1(judged: Judged, results) -> pd.DataFrame:
    """Table 1 with the paper's numbers from `results.yml` beside ours, and rows that cost nothing above.

    Parameters
    ----------
    judged : Judged
    results : LessonResults
    """
    order, mean = order_of(judged), judged.mean
    table = pd.DataFrame(index=pd.Index([title_of(name) for name in order], name="method"))
    for metric, (quantity, unit) in shown_metrics(judged).items():
        column = f"{quantity} ({unit})"
        table[column, "here"] = [_cell(judged, mean.loc[name, metric], name, metric) for name in order]
        papers = [results.paper(key_of(metric, name)) for name in order]
        if any(paper is not None for paper in papers):
            table[column, "paper"] = ["–" if paper is None else f"{paper:g}" for paper in papers]
    for name, text in (("slope", "{:.2f}".format), ("cosine", partial(correlation_text, digits=2))):
        table["force components", name] = ["–" if np.isnan(v) else text(v) for v in mean.loc[order, name]]
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def best_of(judged: Judged, metric: str) -> list[str]:
    """Return the row with the lowest error, and those that paired differences cannot tell from it."""
    order = [name for name in order_of(judged) if np.isfinite(judged.mean.loc[name, metric])]
    lowest = min(order, key=lambda name: judged.mean.loc[name, metric])
    known = [name for name in order if judged.estimate(name, metric) is not None]
    return [
        name
        for name in order
        if name == lowest or (name in known and judged.difference(name, lowest, metric).verdict != "higher")
    ]


def mark_best(table: pd.DataFrame, judged: Judged):
    """Return `table_1` with the errors of `best_of` in bold.

    Returns
    -------
    pandas.io.formats.style.Styler
    """
    bold = pd.DataFrame("", table.index, table.columns)
    for metric, (quantity, unit) in shown_metrics(judged).items():
        rows = [title_of(name) for name in best_of(judged, metric)]
        bold.loc[rows, (f"{quantity} ({unit})", "here")] = "font-weight: bold"
    return table.style.apply(lambda _: bold, axis=None)


def _cell(judged: Judged, value: float, name: str, metric: str) -> str:
    if np.isnan(value):
        return "–"
    e = judged.estimate(name, metric)
    return format_value(value, e.interval) if e else f"{value:.3g}"


def errors_to_draw(judged: Judged, metric: str, results) -> pd.DataFrame:
    """One row per method as `figures.methods.draw_errors` takes them: value, interval, the paper's number.

    The published checkpoint was trained by others, and not on the labels of this run: it is not called trained.
    """
    order = order_of(judged)
    estimates = [judged.estimate(name, metric) for name in order]
    ends = [(e and e.interval) or (np.nan, np.nan) for e in estimates]
    return pd.DataFrame(
        {
            "value": judged.mean.loc[order, metric].to_numpy(),
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
            "trained": [name not in (*FREE, PUBLISHED) for name in order],
            "paper": [p if isinstance(p := results.paper(key_of(metric, n)), float | int) else np.nan for n in order],
        },
        index=[title_of(name) for name in order],
    )


def rankings(judged: Judged) -> pd.Series:
    """Return the order of the four methods in each metric, best first: "4 < 1 = 2 < 3".

    "=" stands between neighbours whose paired difference is unclear.
    """
    found = {}
    for metric, (quantity, _) in shown_metrics(judged).items():
        order = judged.mean.loc[list("1234"), metric].sort_values().index
        verdicts = [judged.difference(one, other, metric).verdict for one, other in pairwise(order)]
        later = zip(verdicts, order[1:], strict=True)
        found[quantity] = order[0] + "".join(f" {'<' if v == 'lower' else '='} {name}" for v, name in later)
    return pd.Series(found, name="order of the methods, here")


def has_factor(judged: Judged) -> bool:
    """Whether a factor of Methods 3 and 4 in energy may be quoted: both are below references that cost no training."""
    energy = judged.mean[ENERGY]
    return bool(max(energy["3"], energy["4"]) < energy["model-aware"])


def headline_of_errors(judged: Judged) -> str:
    """Say how far Method 3 is behind Method 4 in energy, or that what costs nothing is better than one of them."""
    energy = judged.mean[ENERGY]
    three, four, free = energy["3"], energy["4"], energy["model-aware"]
    if has_factor(judged):
        return f"Without new references, {three / four:.1f} times the energy error (Method 3 over 4); ticks: the paper"
    above = [f"Method {m}" for m in "34" if energy[m] >= free]
    end = "ends" if len(above) == 1 else "end"
    return f"In energy, {listed(above)} {end} above model-aware references, which cost no training; ticks: the paper"


_ON_REFERENCES = ", and not that references had steps enough: the next page compares the two ways"


def last_fifth(runs, metric: str = ENERGY, methods: Collection[str] = tuple("1234")) -> pd.DataFrame:
    """Return by how much of itself each run's validation error fell in the last fifth of its steps.

    Parameters
    ----------
    runs : dict of (str, int) to FinetuneResult
    metric : str
    methods : collection of str
        Those to look at; runs of others are passed over.

    Returns
    -------
    DataFrame
        A row for each of these methods, a column for each seed, as `run_histories.last_fifth` has it. Without the
        methods that have it of some seeds only, or of none: a mean over chosen seeds is not that of the others.
    """
    found: dict[str, dict[int, float]] = {}
    for (name, seed), run in runs.items():
        if name in methods:
            found.setdefault(name, {})[seed] = run_histories.last_fifth(run.history, metric)
    return pd.DataFrame({name: row for name, row in found.items() if np.isfinite(list(row.values())).all()}).T


def record_last_fifth(
    results, fallen: pd.DataFrame, names: Mapping[str, str] | None = None, more: str = _ON_REFERENCES
) -> str:
    """Record the mean over seeds in percent, and say which methods have not arrived, or that it cannot be told.

    Parameters
    ----------
    results : LessonResults
    fallen : DataFrame
        From `last_fifth`.
    names : mapping of str to str, optional
        What the text calls a method; left out, "Method 1" and so on.
    more : str, optional
        End of the sentence where all have arrived, after "so this says that the schedule is over".
    """
    if fallen.empty:
        return f"No method's runs were all validated {FEWEST_LOOKS} times, so whether they have arrived cannot be said."
    for name, row in fallen.iterrows():
        results.record(f"last_fifth_{short_name(name)}", 100 * row.mean(), seed_range(100 * row))
    mean, called = fallen.mean(axis=1), {name: f"Method {name}" for name in fallen.index} | dict(names or {})
    said = ", ".join(f"{round(100 * value) + 0:.0f}% ({called[name]})" for name, value in mean.items())
    late = [called[name] for name in mean.index[mean > STILL_FALLING]]
    verdict = (
        f"More than {STILL_FALLING:.0%} is not converged: the errors of {listed(late)} measure the budget as well."
        if late
        else f"None falls by more than {STILL_FALLING:.0%}. The learning rate has come down by then, so this says that "
        f"the schedule is over{more}."
    )
    return f"In the last fifth of its steps a run's validation energy error still falls by {said}. {verdict}"


def record_errors(results, judged: Judged, note: str) -> None:
    """Record every error of the table; `note` says how many seeds, frames and steps."""
    mean = judged.mean
    for metric in shown_metrics(judged):
        for name in order_of(judged):
            if np.isnan(mean.loc[name, metric]):
                continue
            e = judged.estimate(name, metric)
            results.record(key_of(metric, name), mean.loc[name, metric], e and e.interval, note=note)


def record_differences(results, judged: Judged) -> dict[str, str]:
    """Record differences of two methods, paired over test materials; return the verdict of each by key."""
    start, metrics = untrained(judged), shown_metrics(judged)
    verdicts: dict[str, str] = {}

    def record(key: str, one: str, other: str, metric: str) -> None:
        if metric not in metrics or not {one, other} <= judged.names:
            return
        e = judged.difference(one, other, metric)
        verdicts[key] = e.verdict
        results.record(key, e.value, e.interval, n=e.n_materials)

    for metric, (quantity, pairs) in _PAIRS.items():
        for pair in pairs:
            record(f"{quantity}_{pair[0]}_minus_{pair[1]}", pair[0], pair[1], metric)
    for m in "234":
        record(f"force_{m}_minus_untrained", m, start, FORCE)
    record("force_1_minus_zero", "1", ZERO, FORCE)
    record("stress_1_minus_zero", "1", ZERO, STRESS)
    record("force_aware_minus_untrained", AWARE, start, FORCE)
    record("force_aware_minus_4", AWARE, "4", FORCE)
    record("energy_table_minus_4", PAPERS_TABLE, "4", ENERGY)
    record("energy_aware_minus_4", AWARE, "4", ENERGY)
    record("energy_aware_minus_references", AWARE, "model-aware", ENERGY)
    for metric, quantity in ((REFITTED, "refitted"), (FORCE, "force")):
        for case in ("3", "4"):
            record(f"{quantity}_{case}_minus_plain", case, case + AS_PUBLISHED, metric)
    return verdicts


def record_over_seeds(results, judged: Judged, runs) -> None:
    """Record what has no error frame by frame: means over seeds, with their range where there are several.

    A claim is judged by the difference of training errors, which gets the interval of `mean_by_students_t` instead: the
    range of two or three values says little of what other seeds would give.
    """
    n_seeds = len(judged.splits)
    repeats = f"mean and range of {n_seeds} seeds" if n_seeds > 1 else "1 seed"
    scores, start, metrics = judged.scores, untrained(judged), shown_metrics(judged)

    def record(key: str, values) -> None:
        values = np.asarray(values, float)
        results.record(key, values.mean(), seed_range(values), repeats=repeats)

    training = {n: np.array([training_error(runs[n, s].history) for s in judged.splits]) for n in "1234"}
    for name, of_seeds in training.items():
        record(f"train_energy_mae_method_{name}", of_seeds)
    mean, ends = mean_by_students_t(training["4"] - training["3"])  # the same frames, seed by seed
    results.record("train_energy_4_minus_3", mean, ends, repeats=count_seeds(n_seeds))
    if has_factor(judged):
        record("ratio_3_to_4", scores.loc["3"][ENERGY] / scores.loc["4"][ENERGY])
    if FORCE in metrics:
        record("force_3_to_untrained", scores.loc["3"][FORCE] / scores.loc[start][FORCE])
        for name in ("1", "3", "4", start):
            for what in ("slope", "cosine"):
                if scores.loc[name][what].notna().all():
                    record(f"force_{what}_{short_name(name)}", scores.loc[name][what])


# --- in words ---

_THAN = {"lower": "lower than", "higher": "higher than", "unclear": "not clearly different from"}
_MOVES = {"lower": "lowers", "higher": "raises", "unclear": "does not clearly change"}
_BESIDE = {"lower": "better", "higher": "worse", "unclear": "not clearly different"}


def findings(judged: Judged, verdicts: Mapping[str, str]) -> str:
    """What the table shows, as a Markdown list: each sentence follows from a paired verdict or from the numbers.

    Parameters
    ----------
    judged : Judged
    verdicts : dict of str to str
        From `record_differences`.
    """
    mean = judged.mean
    of_4 = {
        quantity: _compare(verdicts, {f"{quantity}_4_minus_{m}": f"Method {m}" for m in "321"})
        for quantity in ("energy", "refitted", "force")
    }
    lines = [
        f"**Energy**: the error of Method 4 is {of_4['energy']}.",
        "**After a last refit**, which takes out what composition still explains of the training errors, it is "
        f"{of_4['refitted']}.",
    ]
    if of_4["force"]:
        lines += [f"**Forces**: the error of Method 4 is {of_4['force']}.", *_force_findings(judged, mean, verdicts)]
    free = mean.loc["model-aware", ENERGY]
    behind = [f"Method {m}" for m in "1234" if mean.loc[m, ENERGY] > free]
    lines.append(
        f"**What costs nothing**: model-aware references without any training leave {free:.0f} meV/atom; above that "
        f"{'is none of the four methods' if not behind else ('are ' if len(behind) > 1 else 'is ') + listed(behind)}. "
        f"Training from there {_MOVES[verdicts['energy_aware_minus_references']]} the error."
    )
    if TAUGHT in judged.names:
        lines.append(_start_finding(verdicts))
    return "\n".join(f"- {line}" for line in lines)


def gap_in_words(table: pd.DataFrame) -> str:
    """Say whether a start's force errors are larger than what the functional changes, from `start_errors`."""
    low, high = table.columns.get_level_values(0).unique()
    gap, own = table.loc[f"{low} labels", (high, "force")], table.loc[TAUGHT, (low, "force")]
    if not (np.isfinite(gap) and np.isfinite(own)):
        return ""
    what = (
        "So most of what training on the new labels can mend in forces is the model's own error on crystals whose "
        "labels it was not shown, and not the functional."
        if own > gap
        else "So the functional is the larger part of what training on the new labels can mend in forces."
    )
    low, high = in_markdown(low), in_markdown(high)
    return (
        f"On these frames the force labels of {low} and {high} differ by {gap:.1f} meV/Å. The taught start misses "
        f"those of {low} itself by {own:.1f} meV/Å, because it was not shown these materials. {what}"
    )


def _compare(verdicts: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """Say in words how one method compares with others, by key of the verdict; empty without any."""
    by_verdict: dict[str, list[str]] = {}
    for key, other in keys.items():
        if key in verdicts:
            by_verdict.setdefault(verdicts[key], []).append(other)
    return ", and ".join(
        f"{_THAN[v]} {'that' if len(others) == 1 else 'those'} of {listed(others)}" for v, others in by_verdict.items()
    )


def _force_findings(judged: Judged, mean: pd.DataFrame, verdicts: Mapping[str, str]) -> list[str]:
    start = untrained(judged)
    trained = {m: f"Method {m}" for m in "234"} | ({AWARE: AWARE} if AWARE in judged.names else {})
    keys = {m: f"force_{'aware' if m == AWARE else m}_minus_untrained" for m in trained}
    of = [f"{_BESIDE[verdicts[keys[m]]]} with {words}" for m, words in trained.items()]
    numbers = [f"{mean.loc[m, FORCE]:.0f} ({words})" for m, words in trained.items()]
    lines = [
        f"**Forces against no training at all**: {listed(of)}. The error is {mean.loc[start, FORCE]:.0f} meV/Å at the "
        f"start and {listed(numbers)} after training."
    ]
    slope = mean.loc["3", "slope"]
    cosine, before, known = (correlation_text(mean.loc[name, "cosine"], 2) for name in ("3", start, "1"))
    if np.isfinite(slope):
        lines.append(
            f"**Size and direction of Method 3's forces**: a slope of {slope:.2f} and a cosine of {cosine} with "
            f"their labels; at the start {mean.loc[start, 'slope']:.2f} and {before}."
        )
    share = mean.loc["1", FORCE] / mean.loc[ZERO, FORCE]
    is_ignorant = share > _KNOWS_FORCES
    lines.append(
        f"**Method 1** has {share:.2f} times the force error of predicting zero and a cosine of {known}: it has "
        + ("hardly learned any forces yet, and beating it proves nothing." if is_ignorant else "learned forces.")
    )
    return lines


_KNOWS_FORCES = 0.8
"""A model with more than this share of the force error of predicting zero has hardly learned any."""


def _start_finding(verdicts: Mapping[str, str]) -> str:
    parts = []
    for quantity, words in (("refitted", "energy error after a last refit"), ("force", "force error")):
        found = {case: verdicts.get(f"{quantity}_{case}_minus_plain") for case in "34"}
        parts += [f"the {words} of Method {case} is {_BESIDE[verdict]}" for case, verdict in found.items() if verdict]
    return f"**From the taught start**, beside runs from the published one, {listed(parts)}."


# --- what moved ---


def histories(runs, quantity: str) -> pd.DataFrame:
    """Histories of the cases that are drawn: `epoch`, `validation`, `train`, `method` and `seed`, one row per epoch.

    Runs of so many steps end at another epoch where a seed has another number of frames. Their last rows are set side
    by side, at the mean of these epochs, and rows in between that not every seed has are left out.
    """
    columns = {f"validation_{quantity}": "validation", f"train_{quantity}": "train"}
    every = pd.concat(
        run.history[["epoch", *columns]]
        .rename(columns=columns)
        .assign(method=name, seed=seed, is_last=run.history["epoch"] == run.history["epoch"].max())
        for case in DRAWN
        for (name, seed), run in runs.items()
        if name == case
    ).astype({"epoch": float})  # a mean of epochs need not be whole
    last = every["is_last"]
    every.loc[last, "epoch"] = every[last].groupby("method")["epoch"].transform("mean")
    n_seeds = every.groupby("method")["seed"].transform("nunique")
    shared = every.groupby(["method", "is_last", "epoch"])["seed"].transform("nunique") == n_seeds
    return every[shared].drop(columns="is_last")


def _of_case(runs: Mapping, case: str) -> list:
    """The runs of a case, in the order of their seeds."""
    return [run for (name, _), run in runs.items() if name == case]


def free_histories(runs, frames: LabelledFrames) -> dict[str, dict[str, float]]:
    """Validation errors that cost no training, mean over seeds: of references of either kind, and of predicting zero.

    Returns
    -------
    dict of str to dict
        Text of an axis to the errors that belong into its panel, by name.
    """
    kinds = tuple(UNTRAINED)
    of_kinds = {kind: pd.DataFrame([run.history.iloc[0] for run in _of_case(runs, kind)]).mean() for kind in kinds}
    validation = [frames.take(run.split["validation"]) for run in _of_case(runs, kinds[0])]
    zero = pd.DataFrame(map(zero_errors, validation), dtype=float).mean()
    energies = {title_of(kind): of_kinds[kind][f"validation_{ENERGY}"] for kind in kinds}
    forces = {"untrained": of_kinds[kinds[0]][f"validation_{FORCE}"], ZERO: zero[FORCE]}
    return {"energy MAE (meV/atom)": energies, "force MAE (meV/Å)": forces}


def at_epoch(table: pd.DataFrame, name: str, which: int) -> float:
    """Validation error of a case at its first (0) or last (-1) epoch, mean over seeds."""
    rows = table.dropna(subset="validation")
    return float(rows[rows["method"] == name].groupby("seed")["validation"].nth(which).mean())


def block_changes(models: Mapping[int, object], starts: Mapping[int, object]) -> pd.DataFrame:
    """Relative change of every block of the network, a row for each seed and a column for each block.

    Parameters
    ----------
    models, starts : dict of int to CHGNet
        Models of each seed, at the end and at the start.
    """
    rows = {seed: {b: _moved(model, starts[seed], p) for b, p in BLOCKS.items()} for seed, model in models.items()}
    return pd.DataFrame(rows).T


def changes_of(runs, starts: Mapping[int, object]) -> dict[str, pd.DataFrame]:
    """Return `block_changes` of Methods 2, 3 and 4 at the end of training."""
    return {m: block_changes({s: runs[m, s].last_model for s in starts}, starts) for m in "234"}


def published_change() -> pd.Series:
    """Return how far the paper's own Method 4 moved each block, from its two published checkpoints."""
    return block_changes({0: load_model("r2scan")}, {0: load_model("0.3.0")}).loc[0]


def _moved(model, start, prefixes) -> float:
    """Length of the change of these weights over their length at the start."""
    import torch

    if isinstance(model, RecordedModel):
        parts = [pair for name, pair in model.weight_changes.items() if name.startswith(prefixes)]
        change, length = np.sum(parts, axis=0)
        return float(np.sqrt(change / length))

    def weights(one):
        return torch.cat([p.detach().flatten() for name, p in one.named_parameters() if name.startswith(prefixes)])

    first = weights(start)
    return float((weights(model) - first).norm() / first.norm())


FOLLOWED = (TAUGHT, *"1234", SCRATCH_ON_GGA, "references-only", "model-aware")
"""Cases that the second page follows into the network, with those whose cost stands beside theirs."""


def spread_of_seeds(runs: Mapping, again: Mapping, frames: LabelledFrames) -> pd.DataFrame:
    """Standard deviations of test errors over seeds that draw a split, and over orders of the first split alone.

    Parameters
    ----------
    runs, again : dict
        (case, seed) to its run: of each split, and of the first split in other orders.
    frames : LabelledFrames

    Returns
    -------
    DataFrame
        A row for each case of `again`; columns (energy, meV/atom or force, meV/Å; "splits" or "orders"), and how many
        runs are behind each. NaN where one run is all there is.
    """
    rows = {}
    for case in dict.fromkeys(case for case, _ in again):
        of_splits = _of_case(runs, case)
        of_orders = [of_splits[0], *_of_case(again, case)]
        row = {}
        for drawn, several in (("splits", of_splits), ("orders", of_orders)):
            errors = pd.DataFrame([evaluate(run.model, frames.take(run.split["test"])) for run in several])
            for metric in (ENERGY, FORCE):
                name = ", ".join(QUANTITIES[metric])
                row[name, drawn] = errors[metric].astype(float).std(skipna=False) if metric in errors else np.nan
            row["runs", drawn] = len(several)
        rows[f"Method {case}"] = row
    return pd.DataFrame(rows).T.sort_index(axis=1, level=0, sort_remaining=False)


def spread_in_words(spread: pd.DataFrame) -> str:
    """Say which part of a seed moves errors more; standard deviations of a few runs are rough, and said to be."""
    said = []
    for case, row in spread.iterrows():
        for quantity, unit in (QUANTITIES[ENERGY], QUANTITIES[FORCE]):
            moves = {drawn: row[f"{quantity}, {unit}", f"{drawn}s"] for drawn in ("split", "order")}
            moves = {drawn: format_value(v, None, unit) for drawn, v in moves.items() if np.isfinite(v)}
            ways = [f"by {value} from {drawn} to {drawn}" for drawn, value in moves.items()]
            said += [f"the {quantity} error of {case} moves {' and '.join(ways)}"] if ways else []
    if not said:
        return "One run of a kind has no spread: give the lesson more seeds and orders."
    fewest = int(spread["runs"].min(axis=None))
    return f"In standard deviations, {listed(said)} ({fewest} runs or more behind each, so to a factor of two)."


def record_spread(results, spread: pd.DataFrame) -> None:
    """Record the standard deviations of `spread_of_seeds` that there are."""
    for case, row in spread.iterrows():
        for quantity, unit in (QUANTITIES[ENERGY], QUANTITIES[FORCE]):
            for drawn in ("splits", "orders"):
                if np.isfinite(value := row[f"{quantity}, {unit}", drawn]):
                    model = short_name(case.removeprefix("Method "))
                    results.record(f"{quantity}_spread_{drawn}_{model}", value, n=int(row["runs", drawn]))


def rates_needed(run_4, start, frames: LabelledFrames) -> pd.Series:
    """Return what learning rates have to add up to until each element's reference has arrived, eV; index symbols.

    A reference that a share p of the steps shows gets sqrt(p) of each learning rate from Adam: its gradient is zero in
    all others, so the mean of the gradient falls by p and the root of its mean square by sqrt(p).

    Parameters
    ----------
    run_4 : FinetuneResult
        Method 4, whose references are the aim.
    start : CHGNet
        Where the way begins.
    frames : LabelledFrames
        What the run's split points into.
    """
    way = _ways(run_4, start)
    holds = (frames.take(run_4.split["train"]).composition > 0).mean(axis=0)
    in_step = 1 - (1 - np.asarray(holds).ravel()) ** run_4.settings.batch_size
    return way / np.sqrt(pd.Series(in_step, list(ELEMENT_SYMBOLS))[way.index])


def _ways(run_4, start) -> pd.Series:
    """How far the reference of each element in training has to go, eV."""
    fit, old = run_4.references, element_references(start)
    known = (fit.frames_per_element > 0) & np.isfinite(old)
    return pd.Series(np.abs(fit.energies_ev - old), list(ELEMENT_SYMBOLS))[known]


def reference_walk(run_4, run_2, start, frames: LabelledFrames) -> dict[str, float]:
    """How far references have to move, how far training moved them, and how far its steps can bring them, eV.

    Parameters
    ----------
    run_4, run_2 : FinetuneResult
        Methods 4, whose references are the aim, and 2, which trains them.
    start : CHGNet
        Where both begin.
    frames : LabelledFrames

    Returns
    -------
    dict
        `median` and `largest` way over the elements in training, `went` (median of Method 2), `reach` (sum of the
        learning rates of all steps), `needed` (median of `rates_needed`), `n_elements`, `n_arriving` (those whose need
        is within reach) and `n_steps`.
    """
    way, needed = _ways(run_4, start), rates_needed(run_4, start, frames)
    moved = np.abs(element_references(run_2.last_model) - element_references(start))
    n_steps = int(run_2.history["step"].iloc[-1])
    reach = sum(learning_rate_at(k, n_steps, run_2.settings) for k in range(n_steps))
    return {
        "median": float(way.median()),
        "largest": float(way.max()),
        "went": float(pd.Series(moved, list(ELEMENT_SYMBOLS))[way.index].median()),
        "reach": float(reach),
        "needed": float(needed.median()),
        "n_elements": len(needed),
        "n_arriving": int((needed <= reach).sum()),
        "n_steps": n_steps,
    }


def record_way(results, runs, starts, frames: LabelledFrames) -> None:
    """Record what share of the way the steps allow the median reference to walk, in percent, with its range."""
    walks = [reference_walk(runs["4", seed], runs["2", seed], start, frames) for seed, start in starts.items()]
    share = [100 * walk["reach"] / walk["needed"] for walk in walks]
    results.record("reference_way", np.mean(share), (min(share), max(share)) if len(share) > 1 else None)


LITTLE = 0.25
"""Below this share of the way that the steps allow, references have not been held up by the steps."""


def walk_in_words(walk: Mapping[str, float]) -> str:
    """Say whether the steps there were could have brought references where they have to go."""
    n, arriving = walk["n_elements"], walk["n_arriving"]
    said = (
        f"References have to move by {walk['median']:.2f} eV in the median and {walk['largest']:.1f} eV at most. The "
        f"learning rates of {walk['n_steps']:,} steps add up to {walk['reach']:.3f} eV; with the steps that show each "
        f"element, {arriving} of {n} can arrive. Method 2 moved its references by {walk['went']:.3f} eV in the median. "
    )
    allowed = walk["median"] * min(1.0, walk["reach"] / walk["needed"])
    if walk["went"] < LITTLE * allowed:
        return said + (
            f"They went {100 * walk['went'] / allowed:.0f}% of what the steps allow: the network takes the offset up "
            "sooner, and what it has taken up pulls at the references no more. That, and not the number of steps, "
            "decides Method 2 here."
        )
    if arriving < n / 2:
        return said + "That decides Method 2 here: it may go where Method 4 starts, but its steps do not reach."
    if arriving < n:
        return said + "That is enough for most elements, and not for those that are rare or have furthest to go."
    return said + "So its steps reach every reference, and whatever Method 2 lacks is no want of budget."


def predictions_of(planned, runs, frames: LabelledFrames, seed: int) -> dict[str, FramePredictions]:
    """Let Methods 1 to 4 of one seed predict its test frames."""
    test = frames.take(splits_of(planned)[seed]["test"])
    return {m: predict_frames(planned[m, seed].model_of(runs[m, seed]), test) for m in "1234"}


def parity_points(predictions: Mapping[str, FramePredictions], run_4) -> dict[tuple[str, str], list[np.ndarray]]:
    """Labels and predictions of Methods 1 to 4, energies minus the references of Method 4, and force components.

    Parameters
    ----------
    predictions : dict of str to FramePredictions
        From `predictions_of`.
    run_4 : FinetuneResult
        Method 4 of the same seed.
    """
    c, points = np.nan_to_num(run_4.references.energies_ev), {}
    for name, seen in predictions.items():
        there = ~np.isnan(seen.frames.energy_per_atom_ev)
        shift = (seen.frames.composition @ c)[there]
        points[name, "energy"] = [e - shift for e in seen.parity("energy")]
        points[name, "forces"] = list(seen.parity("forces"))
    return points


def offsets_in_words(predictions: Mapping[str, FramePredictions]) -> str:
    """Say how much of each method's energy error is one shift of all frames, and what its forces' slope is."""
    lines = []
    for name, seen in predictions.items():
        labels, predicted = seen.parity("energy")
        error = 1000 * (predicted - labels)
        mean, scatter, slope = error.mean(), error.std(), slope_and_cosine(seen)[0]
        of_forces = f"; forces have a slope of {slope:.2f}" if np.isfinite(slope) else ""
        lines.append(f"- **Method {name}**: energies are off by {mean:+,.0f} ± {scatter:,.0f} meV/atom{of_forces}.")
    return "\n".join(lines)


def errors_after_refit(
    planned, runs, frames: LabelledFrames, cases: Collection[str] = (*"1234", SCRATCH_ON_GGA)
) -> dict[tuple[str, int], float]:
    """Energy errors on the test frames after a last refit to the training frames, meV/atom, by case and seed.

    Parameters
    ----------
    planned, runs : dict
        (case, seed) to unit and to its run.
    frames : LabelledFrames
    cases : collection of str
        Those to look at.
    """
    found = {}
    for (case, seed), run in runs.items():
        if case not in cases:
            continue
        model = planned[case, seed].model_of(run)
        train, test = (frames.take(run.split[part]) for part in ("train", "test"))
        predicted = predict(model, test.crystals, derivatives=False)["energy_per_atom_ev"]
        left = test.energy_per_atom_ev - predicted - test.composition @ last_refit_ev(model, train)
        found[case, seed] = 1000 * float(np.nanmean(np.abs(left)))
    return found


def moved_table(change: Mapping[str, pd.DataFrame], runs, after: Mapping[tuple[str, int], float]) -> pd.DataFrame:
    """How far each method moved the network and where most, beside its test energy error without and with a last refit.

    The weights are those of the end, the errors those of the best epoch.

    Parameters
    ----------
    change : dict of str to DataFrame
        From `changes_of`.
    runs : dict
    after : dict
        From `errors_after_refit`.

    Returns
    -------
    DataFrame
        A row for each method, means over seeds, as people read them.
    """
    energy, refitted = (f"{quantity} ({unit})" for quantity, unit in (TABLE_COLUMNS[ENERGY], TABLE_COLUMNS[REFITTED]))
    rows = {}
    for case, table in change.items():
        errors = _mean_metrics(runs, case, after)
        rows[title_of(case)] = {
            "weights moved (%)": f"{100 * table.mean().mean():.2g}",
            "most": table.mean().idxmax(),
            energy: format_value(errors[ENERGY]),
            refitted: format_value(errors[REFITTED]),
        }
    return pd.DataFrame(rows).T.rename_axis("method")


def scratch_table(runs, after: Mapping[tuple[str, int], float]) -> pd.DataFrame:
    """Test errors of scratch on refitted and on the start's references, mean over seeds: a row each, as people read it.

    Errors of the best epoch, for the targets that are labelled; `after` is from `errors_after_refit`.
    """
    rows = {name: _mean_metrics(runs, name, after) for name in ("1", SCRATCH_ON_GGA)}
    table = pd.DataFrame(rows).T.dropna(axis=1, how="all")
    of_table = {metric: f"{quantity} ({unit})" for metric, (quantity, unit) in TABLE_COLUMNS.items() if metric in table}
    return table[list(of_table)].rename(columns=of_table, index=title_of).rename_axis("method")


def _mean_metrics(runs, name: str, after: Mapping[tuple[str, int], float]) -> pd.Series:
    """Test errors of a case, mean over its seeds; NaN where one of them has none."""
    of_case = [run.metrics["test"] | {REFITTED: after[key]} for key, run in runs.items() if key[0] == name]
    return pd.DataFrame(of_case).reindex(columns=list(TABLE_COLUMNS)).astype(float).mean(skipna=False)


def scratch_in_words(table: pd.DataFrame) -> str:
    """Say in which columns scratch is worse on the start's references, from `scratch_table`."""
    times = table.iloc[1] / table.iloc[0]
    called = {column: column.split(" (")[0].replace(", last", " after a last") for column in times.index}
    said = [f"{called[column]} {ratio:.2f}" for column, ratio in times.items()]
    worse = [called[column] for column, ratio in times.items() if ratio > 1 and "energy" not in column]
    rest = (
        f"beside energy, the error is larger in {listed(worse)}" if worse else "no error but that of energy is larger"
    )
    return (
        f"Errors on the start's references over those on refitted ones: {listed(said)}. So here {rest}; a ratio near 1 "
        "is no difference, for these have no interval."
    )


def moved_in_words(change: Mapping[str, pd.DataFrame], published: pd.Series) -> str:
    """Say how far each method moved the network, beside the paper's own Method 4."""
    said = [f"Method {m} {100 * table.mean().mean():.2g} %" for m, table in change.items()]
    most = {m: table.mean().idxmax() for m, table in change.items()}
    where = [f"{block} in Method {m}" for m, block in most.items()]
    return (
        f"Mean over the blocks: {listed(said)}; the paper's own Method 4 {100 * published.mean():.2g} %. "
        f"What moved most is {listed(where)}."
    )


def frames_seen(n_steps: int, batch_size: int, n_frames: int) -> int:
    """How many frames so many steps show: all in each whole epoch, whose last batch may be smaller, then whole batches.

    Parameters
    ----------
    n_steps : int
        Steps from the first to the last.
    batch_size : int
    n_frames : int
        Training frames.
    """
    n_epochs, n_rest = divmod(n_steps, -(-n_frames // batch_size))
    return n_epochs * n_frames + n_rest * batch_size


def costs(runs) -> pd.DataFrame:
    """Steps, frames seen, seconds and milliseconds per frame and step of each case, mean over seeds."""
    rows = {
        key: {
            "steps": (n_steps := int(run.history["step"].iloc[-1])),
            "frames seen": frames_seen(n_steps, run.settings.batch_size, len(run.split["train"])),
            "seconds": run.seconds,
        }
        for key, run in runs.items()
    }
    table = pd.DataFrame(rows).T.astype(float)
    table["ms per frame and step"] = 1000 * table["seconds"] / table["frames seen"].replace(0, np.nan)
    return table.groupby(level=0, sort=False).mean()


def keep_models(results, dataset: Dataset, frames: LabelledFrames, planned, runs) -> int:
    """Keep the models that later lessons judge, with their errors and the materials of each part of their splits.

    Returns
    -------
    int
        How many models were kept; 0 without a results folder, and of units, whose models are records.
    """
    kept = []
    for (name, seed), run in runs.items():
        if name not in (*STARTS, AWARE, TAUGHT) or results.folder is None:
            continue
        file = f"{results.lesson}.method_{short_name(name).removeprefix('method_')}_seed_{seed}.pt"
        about = {"method": name, "seed": seed, "dataset": dataset.name}
        model = planned[name, seed].model_of(run)
        if isinstance(model, RecordedModel):
            continue
        save_model(model, results.folder / file, provenance=about)
        errors = {} if name == TAUGHT else run.metrics["test"] | {f"train_{ENERGY}": training_error(run.history)}
        kept.append({"file": file, "method": name, "seed": seed} | errors)
    parts = [
        {"seed": seed, "part": part, "material_id": material}
        for seed, split in splits_of(planned).items()
        for part, rows in split.items()
        for material in np.unique(frames.material_ids[rows])
    ]
    results.save_table("models", pd.DataFrame(kept) if kept else pd.DataFrame(columns=["file", "method", "seed"]))
    results.save_table("split", pd.DataFrame(parts))
    return len(kept)
