"""Models judged by their own hulls (lesson 6): phases, each model's verdicts on them, how often it errs."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from crossfunc.bootstrap import Estimate, mean_over_seeds, paired_over_seeds
from crossfunc.energies import composition_matrix
from crossfunc.lessons.judging import ENERGY, short_name
from crossfunc.lessons.results import format_value, listed, seed_range
from crossfunc.lessons.run_histories import training_error
from crossfunc.lessons.sources import LessonError
from crossfunc.lessons.units import AWARE, case_units, method_splits, usable_frames
from crossfunc.potential import read_provenance
from crossfunc.potential.crystals import Crystals
from crossfunc.stability import element_energies_ev, formation_energy_per_atom_ev, hull_report
from crossfunc.stability.entries import EntryTable
from crossfunc.stability.relax import relax
from crossfunc.symbols import ATOMIC_NUMBERS
from crossfunc.training.methods import as_model
from crossfunc.training.units import run_units

GGA, PUBLISHED = "GGA model as it comes", "published r²SCAN model"
ZERO = "predict zero"
METHODS = tuple(f"Method {k}" for k in "1234")
CASES = {name[-1]: name for name in METHODS} | {AWARE: AWARE}
"""Lesson 4's name of a case: what the case is called here, for those that are trained and judged."""

ORDER = (GGA, *CASES.values(), PUBLISHED)
"""Models in the order of tables and figures."""

KEYS = {GGA: "gga_model", PUBLISHED: "published"} | {name: short_name(case) for case, name in CASES.items()}
"""What results call a model."""

LOOKS = {ZERO: "identity", GGA: "gga", PUBLISHED: "r2scan", AWARE: "fit"} | {name: KEYS[name] for name in METHODS}
"""Colour and marker of a model, as keys of the figures' tables."""

E_D = "decomposition_energy_ev_per_atom"


def relaxed_frames(frames, pairs=None) -> np.ndarray:
    """Return the row of each material's relaxed frame.

    Parameters
    ----------
    frames : LabelledFrames
        Frames with labels of the high functional.
    pairs : DataFrame, optional
        The relaxed frame is the one whose energy `high_energy_per_atom_ev` lists; without it, the lowest.

    Returns
    -------
    ndarray of int, increasing
    """
    energy, ids = pd.Series(frames.energy_per_atom_ev), pd.Series(frames.material_ids)
    if pairs is None:
        expected = energy.groupby(ids).transform("min")
    else:
        expected = ids.map(pairs.set_index("material_id")["high_energy_per_atom_ev"])
    return np.sort((energy - expected).abs().dropna().groupby(ids).idxmin().to_numpy())


def of_system(table: EntryTable, symbols) -> EntryTable:
    """Return the entries that hold none but these elements."""
    return table.take(inside(table.X, symbols))


def inside(X, symbols) -> np.ndarray:
    """Return which compositions hold none but these elements; bool, shape (n_rows,)."""
    columns = [ATOMIC_NUMBERS[symbol] - 1 for symbol in symbols]
    return np.asarray(X[:, columns].sum(axis=1)).ravel() > 1 - 1e-9


def lowest_phases(dataset, binary) -> pd.DataFrame:
    """Return the lowest phase of each composition of a binary, from one element to the other.

    Parameters
    ----------
    dataset : Dataset
        Its pairs with formation energies; of materials that have frames, as the lesson takes them.
    binary : sequence of two str
        Symbols of the two elements.

    Returns
    -------
    DataFrame
        phase, share (of the second element), formation_energy_ev_per_atom in the high functional;
        `attrs["label_notice"]` says whose labels they are.
    """
    from pymatgen.core import Composition

    column = dataset.functional("high").column(formation=True)
    pairs = dataset.pairs.dropna(subset=column)
    pairs = pairs[pairs["material_id"].isin(dataset.frames["material_id"].to_pylist())]
    pairs = pairs[inside(composition_matrix(list(pairs["composition"])), binary)]
    found: dict[str, tuple[float, float]] = {}
    for composition, energy in zip(map(Composition, pairs["composition"]), pairs[column], strict=True):
        name = _phase_name(composition)
        if name not in found or energy < found[name][1]:
            found[name] = (composition.get_atomic_fraction(binary[1]), energy)
    rows = sorted((share, name, energy) for name, (share, energy) in found.items())
    table = pd.DataFrame(
        [(name, share, energy) for share, name, energy in rows],
        columns=["phase", "share", "formation_energy_ev_per_atom"],
    )
    table.attrs["label_notice"] = dataset.label_notice
    return table


def decompose(phases: pd.DataFrame, name: str) -> tuple[str, str, float]:
    """Return what a phase of a binary falls apart into, and its decomposition energy in eV/atom.

    Parameters
    ----------
    phases : DataFrame
        From `lowest_phases`.
    name : str
        The phase; all others may be its products.

    Raises
    ------
    LessonError
        The table has no such phase.
    """
    table = phases.set_index("phase")
    if name not in table.index:
        raise LessonError(f"no phase {name}; there are: {', '.join(table.index)}.")
    energies = table["formation_energy_ev_per_atom"]
    entries = EntryTable.from_columns(table.index, list(table.index), energies, energy_kind="formation")
    found = hull_report(entries.take([table.index.get_loc(name)]), entries).iloc[0]
    left, right = sorted((one["id"] for one in found["competitors"]), key=table["share"].get)
    return left, right, float(found[E_D])


def _phase_name(composition) -> str:
    """An element by its symbol, where pymatgen says O2; a compound by its reduced formula."""
    return composition.elements[0].symbol if len(composition) == 1 else composition.reduced_formula


def record_experiment(dataset, results) -> tuple[dict[tuple[str, str], pd.Series], pd.Series]:
    """Formation energies of both functionals beside measured ones; each error and its mean sign are recorded.

    Parameters
    ----------
    dataset : Dataset
        Its pairs with `experiment_nbs_formation_energy_per_atom_ev`, and its elements.
    results : LessonResults

    Returns
    -------
    computed : dict
        (key of the functional, its error in words) to formation energies, eV/atom.
    experiment : Series
        NaN where nothing was measured.
    """
    pairs = dataset.pairs
    experiment = pairs["experiment_nbs_formation_energy_per_atom_ev"]
    measured, computed = experiment.notna(), {}
    for one in dataset.functionals:
        zero = element_energies_ev(dataset.elements, functional=one.key)
        formation = formation_energy_per_atom_ev(pairs, pairs[one.column()], zero)
        error = 1000 * (formation - experiment)[measured]
        about = {"what": one.full_name, "n": int(measured.sum())}
        results.record(f"experiment_mae_{one.key}", error.abs().mean(), **about)
        results.record(f"experiment_bias_{one.key}", error.mean(), **about)
        words = f"{one.full_name}: MAE {error.abs().mean():.0f}, mean error {error.mean():+.0f} meV/atom"
        computed[one.key, words] = formation
    return computed, experiment


def describe_lack_of_phases(formulas, elements, compound: str) -> str:
    """Say which elements, or the compound, have no frames in the data; an empty text if all have."""
    from pymatgen.core import Composition

    there = {_phase_name(formula) for formula in map(Composition, formulas)}
    lacking = {*elements, Composition(compound).reduced_formula} - there
    if not lacking:
        return ""
    return (
        f"A hull starts from its elements, and the lesson from {compound}; these data have no frames of "
        f"{', '.join(sorted(lacking))}. Choose others with -p elements=[...] -p binary=[...] -p ternary=[...] "
        "-p by_hand=..."
    )


def phase_diagram(table: EntryTable):
    """Return the entries as pymatgen's PhaseDiagram, which counts energies per cell."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    entries = []
    for formula, energy, name in zip(table.compositions, table.energy_per_atom_ev, table.ids, strict=True):
        composition = Composition(formula)
        entries.append(PDEntry(composition, energy * composition.num_atoms, name))
    return PhaseDiagram(entries)


def on_hull(table: EntryTable, symbols) -> list[str]:
    """Return the formulas of the stable phases of a chemical system, sorted."""
    report = hull_report(None, of_system(table, symbols))
    return sorted(set(report.loc[report["e_above_hull_ev_per_atom"] < 1e-9, "formula"]))


class Trained(NamedTuple):
    """Models that were trained on some of a dataset's materials, and what is known of their training.

    Attributes
    ----------
    models : dict
        (name, seed) -> checkpoint file or CHGNet.
    seen : dict
        Seed -> materials that its models were trained or validated on.
    train_mae : dict
        (name, seed) -> lowest error in the energies of the training frames, meV/atom; NaN where nobody wrote it down.
    """

    models: dict[tuple[str, str], Any]
    seen: dict[str, set]
    train_mae: dict[tuple[str, str], float]


def kept_models(folder, n_seeds: int, dataset: str) -> Trained | None:
    """Return lesson 4's models of a dataset.

    Parameters
    ----------
    folder : path or None
        The results folder that lesson 4 wrote to.
    n_seeds : int
        Take so many seeds.
    dataset : str
        Name of the dataset whose labels the models must have been trained on.

    Returns
    -------
    Trained or None
        None where lesson 4 has left no models, or models of other labels.
    """
    table = None if folder is None else Path(folder) / "04_four_methods.models.csv"
    if table is None or not table.is_file():
        return None
    kept = pd.read_csv(table, dtype=str)
    kept = kept[kept["method"].isin(list(CASES))]
    seeds = sorted(kept["seed"].unique(), key=int)[:n_seeds]
    kept = kept[kept["seed"].isin(seeds)]
    files = [table.with_name(name) for name in kept["file"]]
    if kept.empty or any(read_provenance(file).get("dataset") != dataset for file in files):
        return None
    split = pd.read_csv(table.with_name("04_four_methods.split.csv"), dtype=str)
    used = split[split["part"] != "test"].groupby("seed")["material_id"]
    keys = list(zip(kept["method"].map(CASES), kept["seed"], strict=True))
    errors = kept.get(f"train_{ENERGY}", pd.Series(np.nan, kept.index)).astype(float)
    return Trained(
        dict(zip(keys, files, strict=True)),
        {seed: set(used.get_group(seed)) for seed in seeds},
        dict(zip(keys, errors, strict=True)),
    )


def train_models(dataset, parameters, pretrained="0.3.0", n_jobs: int = 1) -> Trained:
    """Train what is judged here as lesson 4 does, on its kind of split, where there are no kept models of a dataset.

    Parameters
    ----------
    dataset : Dataset
    parameters : mapping
        `seed`, `n_seeds`, `n_train_frames`, `n_epochs`, `batch_size`, `max_atoms`; a quarter of the training frames is
        the size of the validation and of the test.
    pretrained
        The model that all but Method 1 start from.
    n_jobs : int
        Runs side by side.

    Returns
    -------
    Trained
    """
    given: dict[str, Any] = {"learning_rate": 1e-3, "n_workers": 0, "max_steps": None}
    given |= {"validate_every_n_epochs": 1, "n_eval_frames": max(2, parameters["n_train_frames"] // 4), **parameters}
    n_wanted = given["n_train_frames"] + 2 * given["n_eval_frames"]
    frames = usable_frames(dataset, given["max_atoms"], n_wanted, need_forces=False)
    splits = method_splits(frames, given)
    units = {(CASES[k], str(s)): unit for (k, s), unit in case_units(frames, given).items() if k in CASES}
    runs = dict(zip(units, run_units(list(units.values()), frames, pretrained=pretrained, n_jobs=n_jobs), strict=True))
    seen = {
        str(seed): set(frames.material_ids[np.concatenate([split["train"], split["validation"]])])
        for seed, split in splits.items()
    }
    errors = {key: training_error(run.history) for key, run in runs.items()}
    return Trained({key: run.model for key, run in runs.items()}, seen, errors)


FITTED_MEV_PER_ATOM = 20
"""A model with a larger error in its own training energies has not fitted them; the claims have the same bound."""


def record_training(results, train_mae: Mapping[tuple[str, str], float]) -> str:
    """Record how well models fit their own training energies, and say which of them give no verdict.

    Parameters
    ----------
    results : LessonResults
    train_mae : mapping
        From `Trained`.

    Returns
    -------
    str
        Markdown.
    """
    errors = pd.Series(dict(train_mae), dtype=float).dropna().groupby(level=0, sort=False)
    for name, of_seeds in errors:
        ends = seed_range(of_seeds)
        repeats = f"mean and range of {len(of_seeds)} seeds" if ends else "1 seed"
        results.record(f"train_energy_mae_{KEYS[name]}", of_seeds.mean(), ends, repeats=repeats)
    mean = errors.mean()
    if mean.empty:
        return "How well these models fit their training energies was not written down."
    late = [name for name in mean.index if mean[name] >= FITTED_MEV_PER_ATOM]
    said = listed([f"{format_value(value, None, 'meV/atom')} ({name})" for name, value in mean.items()])
    verdict = (
        f"Above {FITTED_MEV_PER_ATOM} meV/atom a model has not fitted what it was shown: so it is with {listed(late)}."
        if late
        else f"All are below {FITTED_MEV_PER_ATOM} meV/atom: each model has fitted what it was shown."
    )
    return f"Their own training energies these models miss by {said}. {verdict}"


def record_unseen(results, frames, seen: Mapping[str, set], unseen: Mapping[str, set]) -> str:
    """Record how far from training the compounds to judge lie, and say it.

    Parameters
    ----------
    results : LessonResults
    frames : LabelledFrames
        All frames of the dataset.
    seen, unseen : mapping of str to set
        Seed -> materials that its models have seen, and those to judge by.

    Returns
    -------
    str
        A Markdown list with a line for each seed.
    """
    far = pd.DataFrame({seed: how_far(frames, seen[seed], unseen[seed]) for seed in unseen}).T
    for what in ("larger", "same_composition"):
        results.record(f"judged_{what}", far[what].mean(), seed_range(far[what]), n=f"{far['n'].mean():.0f}")
    return "\n".join(
        f"- Seed {seed}: {one['n']} compounds that no training has seen. {one['larger'] or 'None'} of them "
        f"{'has' if one['larger'] == 1 else 'have'} more than {one['largest']} atoms, more than any crystal that the "
        f"models were trained on or chosen by; for {one['same_composition'] or 'none'} there is one of the same "
        "composition among these."
        for seed, one in far.iterrows()
    )


def how_far(frames, seen: set, unseen: set) -> dict[str, int]:
    """Return how many unseen materials differ from all seen ones, in their size, and how many have a relative there.

    Returns
    -------
    dict of str to int
        `n` unseen materials; `largest`, atoms of the largest seen crystal; `larger`, unseen materials whose smallest
        crystal has more; `same_composition`, those with the reduced formula of a seen material.
    """
    from pymatgen.core import Composition

    table = pd.DataFrame({"id": frames.material_ids, "n_atoms": frames.crystals.n_atoms})
    table = table.assign(row=np.arange(len(table))).sort_values("n_atoms", kind="stable").groupby("id").first()
    known, new = table[table.index.isin(seen)], table[table.index.isin(unseen)]

    def formulas(rows) -> list[str]:
        return [_phase_name(Composition(frames.crystals.formula(row))) for row in rows]

    largest = int(known["n_atoms"].max())
    return {
        "n": len(new),
        "largest": largest,
        "larger": int((new["n_atoms"] > largest).sum()),
        "same_composition": int(np.isin(formulas(new["row"]), formulas(known["row"])).sum()),
    }


def judge_all(models: Mapping, crystals: Crystals, reference: EntryTable, n_jobs: int = 1, **limits) -> dict:
    """Return `judge` of each model, by the models' keys; `n_jobs` models side by side.

    Parameters
    ----------
    models : mapping
        Key -> CHGNet, checkpoint file or name of a published model.
    crystals, reference, limits
        As for `judge`.
    n_jobs : int
    """
    from joblib import Parallel, delayed

    found = Parallel(n_jobs=n_jobs)(delayed(judge)(m, crystals, reference, **limits) for m in models.values())
    return dict(zip(models, found, strict=True))


def judge(model, crystals: Crystals, reference: EntryTable, *, fmax: float, max_steps: int) -> pd.DataFrame:
    """Relax every phase with a model, build the model's own hull, and put it beside the reference.

    Phases whose relaxation has no result are left out of both hulls. Where that was the last crystal of an element, its
    compounds have no zero of energy: their decomposition and formation energies are NaN in both.

    Parameters
    ----------
    model : CHGNet, checkpoint file or name of a published model
    crystals : Crystals
        The phases, relaxed in the reference.
    reference : EntryTable
        Their reference energies, in the same order.
    fmax : float
        Relax until forces are below this, eV/Å.
    max_steps : int

    Returns
    -------
    DataFrame
        One row per phase: `id`, `formula`; decomposition energy `_ev`, competing phases `_products` and formation
        energy `_formation_ev` of `reference` and `model`; `total_ev`, model minus reference; `converged`. All energies
        in eV/atom.
    """
    found = relax(as_model(model), crystals, fmax=fmax, max_steps=max_steps)
    usable = np.isin(found.status, ["converged", "not converged"])
    ours = reference.take(usable)
    theirs = ours.with_energies(found.energy_per_atom_ev[usable])
    tables = {"reference": ours, "model": theirs}
    hulls = {name: hull_report(None, table) for name, table in tables.items()}
    report = hulls["reference"][["id", "formula"]].copy()
    for name, table in tables.items():
        report[f"{name}_ev"] = hulls[name][E_D]
        report[f"{name}_products"] = [_products(competitors) for competitors in hulls[name]["competitors"]]
        report[f"{name}_formation_ev"] = formation_energy_per_atom_ev(
            table.X, table.energy_per_atom_ev, element_energies_ev(table), missing="nan"
        )
    report["total_ev"] = theirs.energy_per_atom_ev - ours.energy_per_atom_ev
    report["converged"] = found.status[usable] == "converged"
    return report


def _products(competitors) -> str:
    return " + ".join(sorted(phase["formula"] for phase in competitors))


def score(report: pd.DataFrame, materials) -> dict[str, float]:
    """Return errors (meV/atom) and verdicts of one model on some of the phases.

    Counted are phases with a decomposition energy in both hulls; without one there are no products either, and nothing
    to judge. *Stable* means a decomposition energy below zero. Precision is NaN where the model calls nothing stable,
    recall where nothing is, F1 where both are so.
    """
    r = report[report["id"].isin(materials)].dropna(subset=["reference_ev", "model_ev"])
    stable, said = r["reference_ev"] < 0, r["model_ev"] < 0
    hits = (stable & said).sum()
    formation = r["model_formation_ev"] - r["reference_formation_ev"]
    return {
        "total": 1000 * r["total_ev"].abs().mean(),
        "decomposition": (1000 * (r["model_ev"] - r["reference_ev"]).abs()).mean(),
        "formation": 1000 * formation.abs().mean(),
        "same products": 100 * (r["reference_products"] == r["model_products"]).mean(),
        "precision": hits / said.sum() if said.any() else np.nan,
        "recall": hits / stable.sum() if stable.any() else np.nan,
        "F1": 2 * hits / (stable.sum() + said.sum()) if (stable | said).any() else np.nan,
        "n": len(r),
    }


def score_all(reports: dict, unseen: dict) -> pd.DataFrame:
    """Return `score` of every model on the compounds that each seed has not seen; index (name, seed)."""
    return pd.DataFrame(
        {
            (name, seed): score(report, materials)
            for (name, own), report in reports.items()
            for seed, materials in unseen.items()
            if own in (None, seed)
        }
    ).T


_NAMED = 2
"""Compounds that a cell of `close_calls` names."""
CALLS = ("stable for the model only", "stable for the reference only")
"""Columns of `close_calls` for verdicts that differ: what an experimenter would look for in vain, and would miss."""
CLOSEST = ("closest call", "model (meV/atom)", "reference (meV/atom)")
"""Columns of `close_calls` for the verdict that the least error would turn."""


def close_calls(points: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what each model judges otherwise than the reference, and which of its verdicts is the closest.

    Parameters
    ----------
    points : mapping of str to DataFrame
        Model to its compounds, as `judge` reports them.

    Returns
    -------
    DataFrame
        Index: model; `CALLS`, compounds that one of the two calls stable and the other does not, two by name, so that a
        row stays in one line, "none" where there are none; `CLOSEST`, the compound whose decomposition energy the model
        puts nearest to zero, with both energies.
    """
    rows = {}
    for name, report in points.items():
        known = report.dropna(subset=["model_ev", "reference_ev"])
        model, reference = known["model_ev"] < 0, known["reference_ev"] < 0
        alone = (model & ~reference, reference & ~model)
        row = {column: _few_names(known.loc[one, "id"]) for column, one in zip(CALLS, alone, strict=True)}
        if len(known):
            nearest = known.loc[known["model_ev"].abs().idxmin()]
            energies = (round(1000 * nearest[f"{side}_ev"], 1) for side in ("model", "reference"))
            row |= dict(zip(CLOSEST, (nearest["id"], *energies), strict=True))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _few_names(ids: pd.Series) -> str:
    names = sorted(ids)
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more]) or "none"


def predict_zero(report: pd.DataFrame) -> pd.DataFrame:
    """Return a report of `judge` with no bonding in the model: energies of decomposition and formation are zero."""
    return report.assign(model_ev=0.0, model_formation_ev=0.0, total_ev=np.nan)


class Compared:
    """Errors of models on the compounds that no training has seen, with intervals from resampled compounds.

    Parameters
    ----------
    reports : dict
        (name, seed or None) -> report of `judge`; None stands for a model that is the same for every seed. With that
        of `GGA`, errors of predicting zero (`ZERO`) are known as well.
    unseen : dict
        Seed -> materials to judge by.
    """

    def __init__(self, reports: dict, unseen: dict):
        self.unseen = unseen
        self._errors = {
            (name, seed): _errors(report, materials)
            for (name, own), report in reports.items()
            for seed, materials in unseen.items()
            if own in (None, seed)
        }
        if (GGA, None) in reports:
            zero = predict_zero(reports[GGA, None])
            self._errors |= {(ZERO, seed): _errors(zero, materials) for seed, materials in unseen.items()}

    def knows(self, name: str) -> bool:
        """Whether there are errors of this model."""
        return any(known == name for known, _ in self._errors)

    def estimate(self, name: str, metric: str) -> Estimate:
        """Mean error of a model in meV/atom: "total", "decomposition" or "formation"."""
        errors = [self._errors[name, seed][metric].dropna() for seed in self.unseen]
        return mean_over_seeds(errors, [e.index for e in errors])

    def difference(self, name: str, other: str, metric: str) -> Estimate:
        """Error of one model minus that of another on the same compounds, meV/atom; see `Estimate.verdict`."""
        both = [
            pd.concat([self._errors[name, seed][metric], self._errors[other, seed][metric]], axis=1).dropna()
            for seed in self.unseen
        ]
        errors, others = ([table.iloc[:, k] for table in both] for k in (0, 1))
        return paired_over_seeds(errors, others, [table.index for table in both])


JUDGED = ("decomposition", "formation")
PAIRED = (
    *combinations(METHODS[::-1], 2),
    (AWARE, "Method 4"),
    *((name, GGA) for name in (AWARE, "Method 4", "Method 3")),
    (GGA, ZERO),
)
"""Whose errors are compared with whose: methods, three with what costs no training, and that with no model at all."""

_SHORT = {**{name: name[-1] for name in METHODS}, AWARE: "aware", GGA: "untrained", ZERO: "zero"}


def differences(compared: Compared) -> dict[tuple[str, str, str], Estimate]:
    """Return paired differences of errors, meV/atom, by metric and the two models of `PAIRED` that there are."""
    known = [pair for pair in PAIRED if all(map(compared.knows, pair))]
    return {(metric, *pair): compared.difference(*pair, metric) for metric in JUDGED for pair in known}


def differences_table(gaps: Mapping[tuple[str, str, str], Estimate]) -> pd.DataFrame:
    """Return differences as people read them, a row for each, with the verdict on the first of the two models."""
    words = {"lower": "less", "higher": "more"}
    rows = {
        f"{metric}: {one} minus {other}": (format_value(gap.value, gap.interval), words.get(gap.verdict, "unclear"))
        for (metric, one, other), gap in gaps.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["difference (meV/atom)", "the first errs"])


def record_differences(results, gaps: Mapping[tuple[str, str, str], Estimate]) -> None:
    """Record differences, each with its interval over compounds."""
    for (metric, one, other), gap in gaps.items():
        results.record(f"{metric}_{_SHORT[one]}_minus_{_SHORT[other]}", gap.value, gap.interval, n=gap.n_materials)


def _errors(report: pd.DataFrame, materials) -> pd.DataFrame:
    """Absolute errors of each compound, meV/atom."""
    r = report[report["id"].isin(materials)].set_index("id")
    off = {
        "total": r["total_ev"],
        "decomposition": r["model_ev"] - r["reference_ev"],
        "formation": r["model_formation_ev"] - r["reference_formation_ev"],
    }
    return 1000 * pd.DataFrame(off).abs()


def beside_paper(mean: pd.DataFrame, compared: Compared, results) -> pd.DataFrame:
    """Return the scores as people read them, with the paper's numbers from `results.yml` beside ours.

    Parameters
    ----------
    mean : DataFrame
        Index: model; columns as `score` names them.
    compared : Compared
        The errors, with their intervals.
    results : LessonResults

    Returns
    -------
    DataFrame
        Predicting zero first where its errors are known, then the models.
    """
    table = pd.DataFrame(index=mean.index)
    table["total", "here"] = [_with_interval(compared.estimate(name, "total")) for name in mean.index]
    for metric in ("decomposition", "formation"):
        table[metric, "here"] = [_with_interval(compared.estimate(name, metric)) for name in mean.index]
        papers = (results.paper(f"{metric}_mae_{KEYS[name]}") for name in mean.index)
        table[metric, "paper"] = ["–" if paper is None else f"{paper:g}" for paper in papers]
    table["products", "same (%)"] = [f"{value:.0f}" for value in mean["same products"]]
    for metric in ("precision", "recall", "F1"):
        table["verdict", metric] = ["none" if np.isnan(value) else f"{value:.2f}" for value in mean[metric]]
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    if compared.knows(ZERO):
        zero = dict.fromkeys(table.columns, "–")
        zero |= {(metric, "here"): _with_interval(compared.estimate(ZERO, metric)) for metric in JUDGED}
        table = pd.concat([pd.DataFrame(zero, [ZERO]), table])
    return table


def _with_interval(estimate: Estimate) -> str:
    return format_value(estimate.value, estimate.interval)


def mean_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of `score_all` over seeds, models in the order of the tables; NaN where a seed has no value.

    A mean over those seeds alone that call anything stable would be of other compounds than its neighbour's.
    """
    by_model = scores.groupby(level=0, sort=False)
    mean = by_model.agg(lambda of_seeds: of_seeds.mean(skipna=False))
    return mean.loc[[name for name in ORDER if name in mean.index]]


def by_distance(report: pd.DataFrame, n_bins: int) -> pd.DataFrame:
    """Return mean error (meV/atom) and wrong verdicts (%) per part of the phases, cut by |E_d| of the reference."""
    size = 1000 * report["reference_ev"].abs()
    error = 1000 * (report["model_ev"] - report["reference_ev"]).abs()
    wrong = 100.0 * ((report["reference_ev"] < 0) != (report["model_ev"] < 0))
    parts = pd.DataFrame({"size": size, "error": error, "wrong": wrong}).groupby(
        pd.qcut(size, n_bins, labels=False, duplicates="drop").fillna(0)  # equal sizes have no edges between them
    )
    means = parts[["error", "wrong"]].mean()
    ends = zip(parts["size"].min(), parts["size"].max(), strict=True)
    means.index = [f"{low:.0f}–{high:.0f}" for low, high in ends]
    return means
