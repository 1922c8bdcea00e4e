"""Real crystals with energies in both functionals, for the sections of lessons that stand on DFT.

None ship with the package: a lesson shows these sections where a folder of CROSSFUNC_DATA holds the file.
"""

import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from crossfunc.bootstrap import Estimate
from crossfunc.datasets import DatasetError, split_by_material
from crossfunc.energies import composition_matrix, published_shift
from crossfunc.lessons.judging import ENERGY, REFITTED, Judged, short_name
from crossfunc.lessons.results import seed_range
from crossfunc.lessons.run_histories import training_error
from crossfunc.lessons.units import AWARE, PAPERS_TABLE, of_known_elements, unit_name
from crossfunc.potential import Crystals, crystal_features, element_references, predict
from crossfunc.training.frozen import cross_validate_frozen
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.methods import fit_references
from crossfunc.training.units import Unit, run_units

FILE = "mp_paired_structures.jsonl.gz"
_NEEDED = ("material_id", "structure", "r2scan_energy_per_atom_ev", "gga_mp2020_energy_per_atom_ev")


def find_file(name: str = FILE) -> Path | None:
    """Return a file of this name from the folders of CROSSFUNC_DATA; None where there is none."""
    folders = [Path(folder) for folder in os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep) if folder]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


@dataclass(frozen=True, eq=False)
class PairedCrystals:
    """Crystals with r²SCAN and GGA energies, and what a pretrained model says of them.

    Attributes
    ----------
    material_ids : ndarray of str, shape (n,)
    composition : csr array, shape (n, 94)
    high_ev, low_ev : ndarray, shape (n,)
        r²SCAN energies and GGA/GGA+U energies with MP2020 corrections, eV/atom.
    predicted_ev : ndarray, shape (n,)
        Energies by the model with its own references, eV/atom.
    features : ndarray, shape (n, 64)
        Features from `crystal_features`.
    base_ev : ndarray, shape (94,)
        References inside the model; NaN where it has none.
    crystals : Crystals or None
        What a network can be trained on; None where only energies are compared.
    """

    material_ids: np.ndarray
    composition: csr_array
    high_ev: np.ndarray
    low_ev: np.ndarray
    predicted_ev: np.ndarray
    features: np.ndarray
    base_ev: np.ndarray
    crystals: Crystals | None = None

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.material_ids)

    def left(self, references_ev) -> np.ndarray:
        """Label minus the model with other references, eV/atom, shape (n,)."""
        change = np.nan_to_num(np.asarray(references_ev)) - np.nan_to_num(self.base_ev)
        return self.high_ev - self.predicted_ev - self.composition @ change

    @property
    def frames(self) -> LabelledFrames:
        """The crystals with their r²SCAN energies as labels, and no other label."""
        if self.crystals is None:
            raise DatasetError("these pairs hold energies without crystals: read them from a file.")
        n, n_atoms = len(self), len(self.crystals.atomic_numbers)
        of_atoms, of_cells = np.full((n_atoms, 3), np.nan, np.float32), np.full((n, 3, 3), np.nan, np.float32)
        ids = self.material_ids
        return LabelledFrames(self.crystals, self.high_ev, of_atoms, of_cells, of_atoms[:, 0], ids, ids)

    def fit(self, train, *, aware: bool, prior: str):
        """References fitted to some of the crystals; see `fit_references`."""
        labels = self.composition[train], self.high_ev[train], self.material_ids[train]
        predicted = self.predicted_ev[train] if aware else None
        return fit_references(*labels, self.base_ev, predicted_per_atom_ev=predicted, prior=prior)


def read_paired_crystals(
    file: str | os.PathLike, model, *, max_atoms: int = 1000, with_features: bool = True
) -> PairedCrystals:
    """Read crystals and energies, and let a pretrained model predict them.

    Parameters
    ----------
    file : str or path
        A line of JSON each: material_id, structure (pymatgen), r2scan_energy_per_atom_ev and
        gga_mp2020_energy_per_atom_ev; may be gzipped.
    model : CHGNet
    max_atoms : int
        Larger cells are left out.
    with_features : bool
        False leaves `features` without columns, in half the time.

    Returns
    -------
    PairedCrystals

    Raises
    ------
    DatasetError
        A line that lacks one of them; names file and line.
    """
    from pymatgen.core import Structure

    file = Path(file)
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    for number, row in enumerate(rows, start=1):
        if lacks := [name for name in _NEEDED if row.get(name) is None]:
            raise DatasetError(f"{file}, line {number}: no {', '.join(lacks)}; leave the line out.")
    structures = [Structure.from_dict(row["structure"]) for row in rows]
    kept = [k for k, structure in enumerate(structures) if len(structure) <= max_atoms]
    crystals = Crystals.from_structures([structures[k] for k in kept])
    return PairedCrystals(
        material_ids=np.array([rows[k]["material_id"] for k in kept]),
        composition=composition_matrix([structures[k].composition.reduced_formula for k in kept]),
        high_ev=np.array([rows[k]["r2scan_energy_per_atom_ev"] for k in kept]),
        low_ev=np.array([rows[k]["gga_mp2020_energy_per_atom_ev"] for k in kept]),
        predicted_ev=predict(model, crystals, derivatives=False)["energy_per_atom_ev"],
        features=crystal_features(model, crystals) if with_features else np.zeros((len(kept), 0)),
        base_ev=element_references(model),
        crystals=crystals,
    )


def compare_few_materials(pairs: PairedCrystals, sizes, *, n_draws: int = 20, n_test: int = 89) -> pd.DataFrame:
    """Errors of references fitted to few materials, on others, by prior; meV/atom.

    Parameters
    ----------
    pairs : PairedCrystals
    sizes : sequence of int
        Materials fitted to; those for which there are too few are left out.
    n_draws : int
        Random draws of training and test materials.
    n_test : int
        Materials that each draw is judged on.

    Returns
    -------
    pandas.DataFrame
        One row for each size and draw; columns n, draw, `refit`, `trend` and `published` (model-aware with this
        prior), `table` (the published shift alone, nothing fitted).
    """
    table = pairs.left(np.nan_to_num(pairs.base_ev) + published_shift().shift_ev)
    rows = []
    for draw in range(n_draws):
        order = np.random.default_rng(draw).permutation(len(pairs))
        test = order[:n_test]
        for n in (n for n in sizes if n <= len(pairs) - n_test):
            train = order[n_test : n_test + n]
            fits = {
                "refit": pairs.fit(train, aware=False, prior="trend"),
                "trend": pairs.fit(train, aware=True, prior="trend"),
                "published": pairs.fit(train, aware=True, prior="published"),
            }
            errors = {name: 1000 * np.abs(pairs.left(fit.energies_ev)[test]).mean() for name, fit in fits.items()}
            rows.append({"n": n, "draw": draw, **errors, "table": 1000 * np.abs(table[test]).mean()})
    return pd.DataFrame(rows)


FROZEN_STARTS = {
    "3: GGA references": None,
    "4: plain refit": {"aware": False, "prior": "trend"},
    "4: published table": "published",
    "model-aware": {"aware": True, "prior": "trend"},
    "model-aware, published shift as prior": {"aware": True, "prior": "published"},
}
"""Where the references of `compare_frozen_starts` come from."""


def compare_frozen_starts(pairs: PairedCrystals, *, n_splits: int = 5, seed: int = 0) -> dict[str, dict]:
    """Errors of each start before and after kernel ridge on frozen features, five-fold by material.

    Returns
    -------
    dict of str to dict
        For each of `FROZEN_STARTS`: `before`, `after` (means over the folds, meV/atom), `scatter_before`, `scatter`
        (standard deviations over the folds) and `error` (absolute error of each crystal after, meV/atom).
    """
    found = {}
    for name, how in FROZEN_STARTS.items():

        def residual_of(train, how=how):
            if how is None:
                return pairs.left(pairs.base_ev)
            if how == "published":
                return pairs.left(np.nan_to_num(pairs.base_ev) + published_shift().shift_ev)
            return pairs.left(pairs.fit(train, **how).energies_ev)

        before, after, fold = cross_validate_frozen(
            pairs.features, residual_of, pairs.material_ids, n_splits=n_splits, seed=seed
        )
        folds = [fold == k for k in range(n_splits)]
        first, last = ([1000 * np.abs(left[held]).mean() for held in folds] for left in (before, after))
        found[name] = {
            "before": float(np.mean(first)),
            "scatter_before": float(np.std(first, ddof=1)),
            "after": float(np.mean(last)),
            "scatter": float(np.std(last, ddof=1)),
            "error": 1000 * np.abs(after),
        }
    return found


def frozen_table(found: Mapping[str, Mapping]):
    """Show `compare_frozen_starts` as a pandas Styler: each start before and after, with the scatter of the folds."""
    table = pd.DataFrame(found).T.drop(columns="error").astype(float)
    return table.rename_axis("meV/atom").style.format("{:,.0f}")


def record_frozen(results, found: Mapping[str, Mapping]) -> None:
    """Record every start before and after the regression, ± one standard deviation over the folds."""
    for name, row in found.items():
        for kind, value, scatter in (("n0", "before", "scatter_before"), ("frozen", "after", "scatter")):
            span = (row[value] - row[scatter], row[value] + row[scatter])
            results.record(f"real_{kind}_{short_name(name)}", row[value], span, n=len(row["error"]))


def record_advice(results, advice) -> None:
    """Record what a refit would take away, and how large a share of it where materials were held out.

    Parameters
    ----------
    results : LessonResults
    advice : RefitAdvice
    """
    results.record("initial_mae", advice.initial_mae_ev_per_atom)
    if advice.is_held_out:
        ends = [100 * end for end in advice.explained_offset_interval]
        results.record("explained_offset", 100 * advice.explained_offset, ends)


def record_few(results, few: pd.DataFrame) -> None:
    """Record what references from few materials leave, plainly refitted and model-aware, and the table without any.

    Parameters
    ----------
    results : LessonResults
    few : DataFrame
        From `compare_few_materials`.
    """

    def record(key: str, draws: pd.Series) -> None:
        most = draws.quantile(0.1), draws.quantile(0.9)
        results.record(key, draws.mean(), most, n_draws=draws.size)

    for size, rows in few.groupby("n"):
        record(f"real_few_{size}", rows["published"])
        record(f"real_few_refit_{size}", rows["refit"])
    record("real_few_table", rows["table"])  # the same materials are judged at every size


# --- the whole network, trained on energies alone ---

GGA, REFIT, TABLE, AWARE_START = "GGA references", "plain refit", "published table", "model-aware references"

UNTRAINED: Mapping[str, tuple[str, str | None, str]] = {
    GGA: ("references-only", "pretrained", "trend"),
    REFIT: ("references-only", None, "trend"),
    TABLE: ("references-only", "MP-r2SCAN", "trend"),
    AWARE_START: ("model-aware", None, "published"),
}
"""References on the pretrained network, no training: method, other references than its own, prior."""

TRAINED: Mapping[str, tuple[str, str]] = {
    "2": ("2", GGA),
    "3": ("3", GGA),
    "4": ("4", REFIT),
    PAPERS_TABLE: ("4", TABLE),
    AWARE: ("model-aware-trained", AWARE_START),
}
"""Methods that `compare_trained` trains, and which of `UNTRAINED` each of them starts from."""

DIFFERENCES: Mapping[str, tuple[str, str, str]] = {
    "refit_minus_3": ("4", "3", ENERGY),
    "table_minus_refit": (PAPERS_TABLE, "4", ENERGY),
    "aware_minus_table": (AWARE, PAPERS_TABLE, ENERGY),
    "refit_minus_start": ("4", REFIT, ENERGY),
    "table_minus_start": (PAPERS_TABLE, TABLE, ENERGY),
    "aware_minus_start": (AWARE, AWARE_START, ENERGY),
    "table_minus_3_refitted": (PAPERS_TABLE, "3", REFITTED),
    "aware_minus_table_refitted": (AWARE, PAPERS_TABLE, REFITTED),
}
"""Pairs of errors on the same test crystals, before or after a last refit."""

IN_KEYS = {
    "kind": ["n0", "frozen"],
    "size": ["10", "30", "60", "120", "240"],
    "short_name(name)": [short_name(name) for name in (*FROZEN_STARTS, *UNTRAINED, *TRAINED)],
    "key": list(DIFFERENCES),
}
"""What may stand in the keys that are recorded here, by the expression that puts it there."""


@dataclass(frozen=True, eq=False)
class TrainedOnEnergies:
    """What `compare_trained` finds.

    Attributes
    ----------
    judged : Judged
        Errors of all of `UNTRAINED` and `TRAINED` on the test crystals of each split.
    training : dict of str to list of float
        The lowest training error of each method, for each split, meV/atom.
    n_steps : int
        Optimiser steps of each run.
    """

    judged: Judged
    training: Mapping[str, list[float]]
    n_steps: int

    def left(self, name: str, metric: str = ENERGY) -> Estimate:
        """Test error, meV/atom, with an interval over materials."""
        found = self.judged.estimate(name, metric)
        assert found is not None  # every crystal has an energy
        return found


def compare_trained(
    pairs: PairedCrystals,
    model,
    n_epochs: int,
    *,
    n_seeds: int = 3,
    seed: int = 0,
    batch_size: int = 1,
    learning_rate: float = 1e-3,
    n_jobs: int = 1,
) -> TrainedOnEnergies | None:
    """Train the whole network on r²SCAN energies by several methods, and judge all on the same left-out materials.

    Parameters
    ----------
    pairs : PairedCrystals
        Read with the same model.
    model : CHGNet
        Where every method starts.
    n_epochs : int
        Passes over the training crystals; 0 trains nothing.
    n_seeds, seed : int
        Splits by material (7:1:2), orders of frames; the first seed.
    batch_size, learning_rate
        As for `Settings`; one crystal per step moves an offset furthest for its time.
    n_jobs : int
        Runs side by side.

    Returns
    -------
    TrainedOnEnergies or None
        None without epochs.
    """
    if not n_epochs:
        return None
    frames = pairs.frames
    splits: dict[int, dict[str, np.ndarray]] = {}
    for s in range(seed, seed + n_seeds):
        parts = split_by_material(frames.material_ids, (0.7, 0.1, 0.2), seed=s)
        splits[s] = {
            part: rows if part == "train" else of_known_elements(frames, rows, parts["train"])
            for part, rows in parts.items()
        }
    budget = {"n_epochs": n_epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    planned: dict[tuple[str, int], Unit] = {}
    for s, split in splits.items():
        for name, (method, references, prior) in UNTRAINED.items():
            planned[name, s] = Unit(unit_name(name, s), method, s, split, references, prior)
        for name, (method, start) in TRAINED.items():
            _, references, prior = UNTRAINED[start]
            planned[name, s] = Unit(unit_name(name, s), method, s, split, references, prior, settings=budget)
    done = run_units(list(planned.values()), frames, pretrained=model, n_jobs=n_jobs)
    judged = Judged(frames, splits, seed)
    training: dict[str, list[float]] = {}
    for (name, s), run in zip(planned, done, strict=True):
        judged.add(name, s, run.model)
        if name in TRAINED:
            training.setdefault(name, []).append(training_error(run.history))
    return TrainedOnEnergies(judged, training, int(done[-1].history["step"].iloc[-1]))


def trained_table(found: TrainedOnEnergies):
    """Show each method beside the references that it starts from, meV/atom; a pandas Styler.

    A last refit of the references, to what the trained network leaves of its training energies, takes out an offset
    that there were too few steps for; what is then left was learned, or lost.
    """
    rows = {}
    for name, (_, start) in TRAINED.items():
        before, after = found.left(start), found.left(name)
        difference = found.judged.difference(name, start, ENERGY)
        rows[f"Method {name}" if name[0].isdigit() else name] = {
            "starts from": start,
            "before": _with_interval(before),
            "trained": _with_interval(after),
            "change": _with_interval(difference),
            "after a last refit": _with_interval(found.left(name, REFITTED)),
            "on training crystals": f"{np.mean(found.training[name]):,.0f}",
        }
    caption = f"MAE on left-out materials, meV/atom, 95 % over materials; {found.n_steps} steps per run"
    return pd.DataFrame(rows).T.style.set_caption(caption)


def _with_interval(estimate: Estimate) -> str:
    ends = estimate.interval
    return f"{estimate.value:,.0f}" + ("" if ends is None else f" ({ends[0]:,.0f} to {ends[1]:,.0f})")


def record_trained(results, found: TrainedOnEnergies) -> None:
    """Record errors before, in and after training, after a last refit, and differences on the same crystals."""
    judged = found.judged
    about = {"n_steps": found.n_steps, "n_seeds": len(judged.splits)}
    for name in (*UNTRAINED, *TRAINED):
        error = found.left(name)
        more = about if name in TRAINED else {}
        results.record(f"real_trained_{short_name(name)}", error.value, error.interval, n=error.n_materials, **more)
    for name, errors in found.training.items():
        results.record(f"real_trained_fit_{short_name(name)}", np.mean(errors), seed_range(errors), **about)
        after = found.left(name, REFITTED)
        results.record(f"real_trained_refitted_{short_name(name)}", after.value, after.interval, n=after.n_materials)
    for key, pair in DIFFERENCES.items():
        difference = judged.difference(*pair)
        results.record(f"real_trained_{key}", difference.value, difference.interval, n=difference.n_materials)
