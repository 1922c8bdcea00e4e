"""Which elements decide where two functionals disagree: XGBoost on atomic fractions, and three ways to read it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from crossfunc.bootstrap import Estimate, ratio_difference
from crossfunc.energies.atomref import material_folds
from crossfunc.energies.composition import N_ELEMENTS, as_composition_matrix, element_symbols, present_columns
from crossfunc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_MEASURES = ("gain", "permutation", "shap")


@dataclass(frozen=True)
class ElementImportance:
    """Importance of each element for an energy difference, over several seeds."""

    table: "pd.DataFrame" = field(repr=False)  # 94 rows; NaN for elements that are not in the data
    r2_per_seed: np.ndarray  # cross-validated R²
    mae_per_seed_ev_per_atom: np.ndarray  # cross-validated
    n_materials: int
    n_elements: int
    n_splits: int
    shap_per_row_ev: np.ndarray = field(repr=False, default=None)  # |SHAP| of held-out rows, mean over seeds, (n, 94)

    def ranked(self, measure: str = "shap"):
        """Table of the elements that are in the data, most important first by "gain", "permutation" or "shap"."""
        if measure not in _MEASURES:
            raise InputError(f"measure={measure!r}: choose one of {', '.join(_MEASURES)}")
        name = f"{measure}_mean"
        return self.table.dropna(subset=[name]).sort_values(name, ascending=False, kind="stable")

    def summary(self) -> str:
        """One line: how well the model does, and the first five elements of each measure."""
        first = "; ".join(f"{measure}: {', '.join(self.ranked(measure).index[:5])}" for measure in _MEASURES)
        return (
            f"{self.n_materials} materials, {self.n_elements} elements; {self.n_splits}-fold R² "
            f"{self.r2_per_seed.mean():.3f} ± {self.r2_per_seed.std():.3f} over {len(self.r2_per_seed)} seeds, MAE "
            f"{self.mae_per_seed_ev_per_atom.mean():.4f} eV/atom. First by {first}."
        )


def element_importance(
    X,
    difference_per_atom_ev,
    *,
    material_ids=None,
    n_seeds: int = 5,
    n_splits: int = 5,
    n_trees: int = 300,
    max_depth: int = 5,
    learning_rate: float = 0.08,
    seed: int = 0,
    n_threads: int = 1,
) -> ElementImportance:
    """Importance of each element for an energy difference, from boosted trees on atomic fractions.

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
        Atomic fractions, one row per material.
    difference_per_atom_ev : array_like, shape (n_rows,)
        For instance formation energy in GGA minus in r2SCAN, eV/atom.
    material_ids : array_like, shape (n_rows,), optional
        Rows of one material share a fold; without ids each row is a material.
    n_seeds, n_splits : int
        Repeats, each with its own folds and its own trees; folds of the cross-validation.
    n_trees, max_depth, learning_rate
        Number, depth and learning rate of the boosted trees.
    seed : int
        First seed; the result is the same for the same seed, whatever the number of threads.
    n_threads : int
        Fits side by side, one thread each: threads inside a fit would wait for each other at every level of a tree.

    Returns
    -------
    ElementImportance
        `table` (index: element) with mean and standard deviation over seeds of

        - `gain`: mean loss that a split on the element takes away, all rows, scaled to sum to 1 over the elements
          (XGBoost's own default importance),
        - `permutation`: rise of the held-out MAE, eV/atom, when the element's column is shuffled,
        - `shap`: mean |contribution| to a held-out prediction, eV/atom (exact tree SHAP values, by XGBoost itself).

    Raises
    ------
    InputError
        If X and the difference do not match, a difference is not finite (names the row), or there are fewer
        materials than folds.

    Notes
    -----
    Lesson 2; paper Fig. 1c and d. Gain is an average over splits, so a few good splits on a rare element rank high;
    a shuffled column breaks Σ x = 1, so permutation tests materials that cannot exist; SHAP shares credit among
    elements that occur together. Where the three agree, believe them.
    """
    import pandas as pd

    X = as_composition_matrix(X)
    y = np.asarray(difference_per_atom_ev, dtype=np.float64)
    if y.shape != (X.shape[0],):
        raise InputError(f"X has {X.shape[0]} rows, difference_per_atom_ev has shape {y.shape}: give one value per row")
    wrong = np.flatnonzero(~np.isfinite(y))
    if wrong.size:
        raise InputError(f"row {wrong[0]}: the difference is {y[wrong[0]]} ({wrong.size} such rows): drop these rows")
    if n_seeds < 1:
        raise InputError(f"n_seeds={n_seeds}: give at least 1")
    ids = np.arange(len(y)) if material_ids is None else np.asarray(material_ids)
    columns = present_columns(X)
    dense = X[:, columns].toarray()  # zeros are values here; XGBoost reads absent entries of a sparse X as missing
    parameters = {
        "objective": "reg:squarederror",
        "eta": learning_rate,
        "max_depth": max_depth,
        "min_child_weight": 2,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "tree_method": "hist",
        "nthread": 1,
    }
    values = {measure: np.zeros((n_seeds, len(columns))) for measure in _MEASURES}
    r2, mae = np.zeros(n_seeds), np.zeros(n_seeds)
    per_row = np.zeros((len(y), N_ELEMENTS), dtype=np.float32)
    folds = [material_folds(ids, n_splits, seed + k) for k in range(n_seeds)]

    def fit(task):
        k, part = task
        rows = slice(None) if part is None else folds[k] != part
        return _train(dense[rows], y[rows], parameters | {"seed": seed + k}, n_trees)

    with ThreadPoolExecutor(n_threads) as pool:
        boosters = pool.map(fit, [(k, part) for k in range(n_seeds) for part in (None, *range(n_splits))])
        for k, fold in enumerate(folds):
            rng = np.random.default_rng([seed + k, 1])
            values["gain"][k] = _gain(next(boosters), len(columns))
            prediction, rise, shap = np.zeros_like(y), np.zeros(len(columns)), np.zeros(len(columns))
            for part in range(n_splits):
                booster, test = next(boosters), fold == part
                prediction[test] = _predict(booster, dense[test])
                moved = np.abs(_predict(booster, dense[test], pred_contribs=True)[:, :-1])
                per_row[np.ix_(test, columns)] += moved / n_seeds
                shap += moved.sum(axis=0)
                rise += _shuffled_error(booster, dense[test], y[test], rng) - np.abs(y[test] - prediction[test]).sum()
            values["permutation"][k], values["shap"][k] = rise / len(y), shap / len(y)
            mae[k] = np.abs(y - prediction).mean()
            spread = np.sum((y - y.mean()) ** 2)
            r2[k] = 1 - np.sum((y - prediction) ** 2) / spread if spread > 0 else np.nan
    table = {"atomic_number": np.arange(1, N_ELEMENTS + 1), "n_rows": np.bincount(X.indices, minlength=N_ELEMENTS)}
    for measure, per_seed in values.items():
        for name, statistic in (("mean", per_seed.mean(axis=0)), ("std", per_seed.std(axis=0))):
            full = np.full(N_ELEMENTS, np.nan)
            full[columns] = statistic
            table[f"{measure}_{name}"] = full
    return ElementImportance(
        table=pd.DataFrame(table, index=pd.Index(element_symbols, name="element")),
        r2_per_seed=r2,
        mae_per_seed_ev_per_atom=mae,
        n_materials=len(np.unique(ids)),
        n_elements=len(columns),
        n_splits=n_splits,
        shap_per_row_ev=per_row,
    )


def share_change(one: ElementImportance, other: ElementImportance, elements, material_ids=None, **options) -> Estimate:
    """How much larger the share of some elements in the SHAP importance is in one fit than in another of the same rows.

    Parameters
    ----------
    one, other : ElementImportance
    elements : sequence of str
    material_ids : array_like, shape (n_rows,), optional
        Left out, each row is a material of its own.
    **options
        `n_bootstrap`, `level`, `seed` as for `crossfunc.bootstrap.mean_error`.

    Returns
    -------
    Estimate
        Share in `one` minus share in `other`, with an interval from materials that are drawn again and again.
    """
    columns = [element_symbols.index(symbol) for symbol in elements]
    ids = np.arange(len(one.shap_per_row_ev)) if material_ids is None else np.asarray(material_ids)
    # Of each fit: what moves the elements, and what moves all of them, material by material.
    parts = [(fit.shap_per_row_ev[:, columns].sum(axis=1), fit.shap_per_row_ev.sum(axis=1)) for fit in (one, other)]
    return ratio_difference(parts[0], parts[1], ids, **options)


def _train(X, y, parameters, n_trees):
    """Boosted trees on a dense matrix, starting from the mean of y."""
    import xgboost

    data = xgboost.DMatrix(X, label=y, nthread=1)
    return xgboost.train(parameters | {"base_score": float(y.mean())}, data, num_boost_round=n_trees)


def _predict(booster, X, **options):
    """Predictions (or contributions) in float64."""
    import xgboost

    return booster.predict(xgboost.DMatrix(X, nthread=1), **options).astype(np.float64)


def _gain(booster, n_columns):
    """Mean gain of the splits on each column, scaled to sum to 1; 0 for columns no tree splits on."""
    gain = np.zeros(n_columns)
    for name, value in booster.get_score(importance_type="gain").items():
        gain[int(name[1:])] = value
    return gain / gain.sum() if gain.sum() else gain


def _shuffled_error(booster, X, y, rng, block=32):
    """Sum of |y - prediction| with each column shuffled in turn, shape (n_columns,)."""
    n_rows, n_columns = X.shape
    error = np.empty(n_columns)
    for first in range(0, n_columns, block):
        columns = range(first, min(first + block, n_columns))
        copies = np.repeat(X[None], len(columns), axis=0)  # (n_columns_here, n_rows, n_columns)
        for copy, column in zip(copies, columns, strict=True):
            copy[:, column] = rng.permutation(copy[:, column])
        prediction = _predict(booster, copies.reshape(-1, n_columns)).reshape(-1, n_rows)
        error[first : first + len(columns)] = np.abs(y - prediction).sum(axis=1)
    return error
