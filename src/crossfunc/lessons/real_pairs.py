"""Real crystals with energies in both functionals, for the sections of lessons that stand on DFT.

None ship with the package: a lesson shows these sections where a folder of CROSSFUNC_DATA holds the file.
"""

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from crossfunc.datasets import DatasetError
from crossfunc.energies import composition_matrix, published_shift
from crossfunc.potential import Crystals, crystal_features, element_references, predict
from crossfunc.training.frozen import cross_validate_frozen
from crossfunc.training.methods import fit_references

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
    """

    material_ids: np.ndarray
    composition: csr_array
    high_ev: np.ndarray
    low_ev: np.ndarray
    predicted_ev: np.ndarray
    features: np.ndarray
    base_ev: np.ndarray

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.material_ids)

    def left(self, references_ev) -> np.ndarray:
        """Label minus the model with other references, eV/atom, shape (n,)."""
        change = np.nan_to_num(np.asarray(references_ev)) - np.nan_to_num(self.base_ev)
        return self.high_ev - self.predicted_ev - self.composition @ change

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
        For each of `FROZEN_STARTS`: `before`, `after` (mean over the folds, meV/atom), `scatter` (standard deviation
        over the folds) and `error` (absolute error of each crystal after, meV/atom).
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
        of_folds = [1000 * np.abs(after[fold == k]).mean() for k in range(n_splits)]
        found[name] = {
            "before": 1000 * np.abs(before).mean(),
            "after": float(np.mean(of_folds)),
            "scatter": float(np.std(of_folds, ddof=1)),
            "error": 1000 * np.abs(after),
        }
    return found
