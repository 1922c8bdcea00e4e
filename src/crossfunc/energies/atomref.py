"""Element references: the energy per atom that composition alone accounts for.

A linear model, y = X c: rows of X are atomic fractions, c holds one energy per element. Two functionals (and the
pseudopotentials used with them) mostly differ in c; subtracting each one's own c puts their energies on one scale.
"""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crossfunc.energies.composition import as_composition_matrix, element_symbols, present_columns
from crossfunc.energies.least_squares import residual_variance, solve
from crossfunc.errors import InputError
from crossfunc.files import write_atomically
from crossfunc.symbols import ATOMIC_NUMBERS, N_ELEMENTS


class AtomRefError(ValueError):
    """Element references that are missing or cannot be fitted; the message names the elements and the remedy."""


_NAMED_AT_MOST = 20  # a longer list of absent elements is no longer read


@dataclass(frozen=True, eq=False)
class AtomRefFit:
    """Element references with what is known about them.

    Per-element arrays have shape (94,), element Z at index Z - 1, and are read-only.
    """

    energies_ev: np.ndarray  # eV/atom; NaN where there is no reference: absent is not zero
    std_error_ev: np.ndarray  # eV/atom; NaN where absent or unknown, inf where the data do not determine the element
    determined: np.ndarray  # bool: the data fix this element on its own (it takes no part in the null space)
    frames_per_element: np.ndarray | None  # rows containing the element; None for published tables
    materials_per_element: np.ndarray | None  # distinct materials containing it; None without material ids
    null_space: np.ndarray = field(repr=False)  # (n_elements - rank, 94): changes of c that X cannot see
    rank: int | None  # of the composition matrix; None for published tables
    n_frames: int | None
    n_materials: int | None
    rmse_ev_per_atom: float  # of the fit on its own (weighted) data
    mae_ev_per_atom: float
    source: str  # where the numbers come from

    def __post_init__(self):
        """Make the arrays read-only."""
        for array in (self.energies_ev, self.std_error_ev, self.determined, self.null_space):
            array.setflags(write=False)

    @property
    def seen(self) -> np.ndarray:
        """Which elements are in the fitted data (of a published table: have a reference); bool, shape (94,)."""
        return np.isfinite(self.energies_ev) if self.frames_per_element is None else self.frames_per_element > 0

    @property
    def n_elements(self) -> int:
        """Number of elements in the fitted data (for a published table: that have a reference)."""
        return int(np.count_nonzero(self.seen))

    @property
    def null_space_elements(self) -> tuple[str, ...]:
        """Elements in the data whose reference is fixed only together with others (or by the prior)."""
        if self.frames_per_element is None:
            return ()
        return _symbols((self.frames_per_element > 0) & ~self.determined)

    def predict(self, X) -> np.ndarray:
        """Reference energy per atom, X c, in eV/atom; raise AtomRefError if an element has no reference."""
        X = as_composition_matrix(X)
        return X @ _complete(self.energies_ev, X)

    def remove(self, X, energy_per_atom_ev) -> np.ndarray:
        """Energy per atom less its reference, y - X c, in eV/atom; raise AtomRefError as `predict` does."""
        return _energies(energy_per_atom_ev, "energy_per_atom_ev") - self.predict(X)

    def apply(self, X, scaled_energy_per_atom_ev) -> np.ndarray:
        """Undo `remove`: scaled energy plus its reference, e + X c, in eV/atom; AtomRefError for an absent element."""
        return _energies(scaled_energy_per_atom_ev, "scaled_energy_per_atom_ev") + self.predict(X)

    def is_determined_for(self, X) -> np.ndarray:
        """Which rows of X have a reference energy that the data (not the prior) fix; bool, shape (n_rows,)."""
        X = as_composition_matrix(X)
        known = np.asarray(X @ np.isfinite(self.energies_ev).astype(float)) > 1 - 1e-9
        if self.frames_per_element is None:
            return known & (X @ self.determined.astype(float) > 1 - 1e-9)
        seen = X @ (self.frames_per_element > 0).astype(float) > 1 - 1e-9
        return known & seen & (np.abs(X @ self.null_space.T) < 1e-6).all(axis=1)

    def report(self):
        """Table of the elements that have a reference or occur in the data (pandas DataFrame, index: symbol)."""
        import pandas as pd

        columns = {
            "atomic_number": np.arange(1, N_ELEMENTS + 1),
            "energy_ev": self.energies_ev,
            "std_error_ev": self.std_error_ev,
            "determined": self.determined,
        }
        if self.frames_per_element is not None:
            columns["n_frames"] = self.frames_per_element
        if self.materials_per_element is not None:
            columns["n_materials"] = self.materials_per_element
        table = pd.DataFrame(columns, index=pd.Index(element_symbols, name="element"))
        seen = np.isfinite(self.energies_ev)
        return table[seen if self.frames_per_element is None else seen | (self.frames_per_element > 0)]

    def summary(self) -> str:
        """One paragraph: source, coverage, rank, and what the data do not determine."""
        without = _symbols(~np.isfinite(self.energies_ev))
        named = ", ".join(without) if len(without) <= _NAMED_AT_MOST else f"the {len(without)} other elements"
        ending = f" No reference for {named}." if without else ""
        if self.rank is None:
            doubtful = _symbols(np.isfinite(self.energies_ev) & ~self.determined)
            if doubtful:
                ending += f" Not backed by data: {', '.join(doubtful)}."
            return f"{self.source}. {self.n_elements} elements.{ending}"
        materials = "" if self.n_materials is None else f" of {self.n_materials} materials"
        text = (
            f"{self.source}. {self.n_frames} frames{materials}, {self.n_elements} elements, rank {self.rank}; "
            f"RMSE {self.rmse_ev_per_atom:.4f}, MAE {self.mae_ev_per_atom:.4f} eV/atom on its own data."
        )
        if self.rank < self.n_elements:
            text += (
                f" Rank deficient by {self.n_elements - self.rank}: {', '.join(self.null_space_elements)} are fixed "
                "only in combination; their split is the one closest to the prior (0 eV without one), so do not "
                "use them for compositions unlike the fitted ones."
            )
        scarce = self.frames_per_element if self.materials_per_element is None else self.materials_per_element
        once = _symbols(scarce == 1)
        if once:
            text += f" Seen in one {'frame' if self.materials_per_element is None else 'material'} only: "
            text += f"{', '.join(once)}."
        return text + ending

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """Write the references as JSON text, elements keyed by symbol; with `path`, also to that file (atomically)."""
        elements = {}
        for column, symbol in enumerate(element_symbols):
            entry = {
                "energy_ev": _to_json_number(self.energies_ev[column]),
                "std_error_ev": _to_json_number(self.std_error_ev[column]),
                "determined": bool(self.determined[column]),
            }
            if self.frames_per_element is not None:
                entry["n_frames"] = int(self.frames_per_element[column])
            if self.materials_per_element is not None:
                entry["n_materials"] = int(self.materials_per_element[column])
            elements[symbol] = entry
        document = {
            "format": "crossfunc element references",
            "version": 1,
            "source": self.source,
            "rank": self.rank,
            "n_frames": self.n_frames,
            "n_materials": self.n_materials,
            "rmse_ev_per_atom": _to_json_number(self.rmse_ev_per_atom),
            "mae_ev_per_atom": _to_json_number(self.mae_ev_per_atom),
            "elements": elements,
            "null_space": [
                {symbol: float(value) for symbol, value in zip(element_symbols, row, strict=True) if value}
                for row in self.null_space
            ],
        }
        text = json.dumps(document, indent=1, allow_nan=False)
        if path is not None:
            write_atomically(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, source: str | os.PathLike) -> "AtomRefFit":
        """Read references from a file, or from JSON text as `to_json` returns it.

        Raises
        ------
        AtomRefError
            If the text is not such a document; names the file.
        """
        text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
        name = str(source) if text is None else "JSON text"
        try:
            document = json.loads(Path(source).read_text(encoding="utf-8") if text is None else text)
            if document["format"] != "crossfunc element references" or document["version"] != 1:
                raise KeyError("format")
            unknown = set(document["elements"]) - set(element_symbols)
            if unknown:
                raise AtomRefError(f"{name}: unknown elements {', '.join(sorted(unknown))}")
            entries = [document["elements"].get(symbol, {}) for symbol in element_symbols]
            null_space = np.zeros((len(document["null_space"]), N_ELEMENTS))
            for row, vector in zip(null_space, document["null_space"], strict=True):
                for symbol, value in vector.items():
                    row[ATOMIC_NUMBERS[symbol] - 1] = value

            def counts(key):
                if not any(key in entry for entry in entries):
                    return None
                return np.array([entry.get(key, 0) for entry in entries], dtype=np.int64)

            return cls(
                energies_ev=np.array([_from_json_number(entry.get("energy_ev")) for entry in entries]),
                std_error_ev=np.array([_from_json_number(entry.get("std_error_ev")) for entry in entries]),
                determined=np.array([entry.get("determined", False) for entry in entries], dtype=bool),
                frames_per_element=counts("n_frames"),
                materials_per_element=counts("n_materials"),
                null_space=null_space,
                rank=document["rank"],
                n_frames=document["n_frames"],
                n_materials=document["n_materials"],
                rmse_ev_per_atom=_from_json_number(document["rmse_ev_per_atom"]),
                mae_ev_per_atom=_from_json_number(document["mae_ev_per_atom"]),
                source=document["source"],
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise AtomRefError(
                f"{name} does not hold element references ({type(error).__name__}: {error}): "
                "write them with AtomRefFit.to_json"
            ) from error


def fit_atomref(
    X,
    energy_per_atom_ev,
    *,
    material_ids=None,
    weights=None,
    ridge: float = 0.0,
    prior=None,
    absent: str = "nan",
    source: str | None = None,
) -> AtomRefFit:
    """Least-squares element references, c = argmin Σ w (X c - y)² + ridge |c - prior|².

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
        Atomic fractions, from `composition_matrix`.
    energy_per_atom_ev : array_like, shape (n_rows,)
        eV/atom.
    material_ids : array_like, shape (n_rows,), optional
        With ids each material counts once: the weights of its rows are divided by their sum, so that a long
        relaxation does not outvote a short one. Standard errors then count materials, not frames.
    weights : array_like, shape (n_rows,), optional
        Non-negative; 0 leaves a row out.
    ridge : float
        Strength of the pull towards the prior, in units of rows (with ids: of materials).
    prior : AtomRefFit or array_like, shape (94,), optional
        eV/atom; 0 if not given. Directions that the data do not determine stay at the prior.
    absent : "nan" or "prior"
        What elements without data get.
    source : str, optional
        Provenance to record; by default a description of the fit.

    Returns
    -------
    AtomRefFit

    Raises
    ------
    AtomRefError
        If energies or weights are missing, negative or not finite (names the row), or the prior lacks a value that
        is needed (names the elements).

    Notes
    -----
    Lesson 3; paper Fig. 2a. In float64 throughout. A well-conditioned X is solved from its column-scaled normal
    equations, refined against X itself; any other by QR in blocks of rows and the SVD of the triangle, cut at
    NumPy's `lstsq` tolerance. chgnet inverts float32 normal equations instead, which goes wrong by up to 10²
    eV/atom on small subsets. Standard errors assume independent rows (materials) of equal scatter for equal weight.
    """
    X = as_composition_matrix(X)
    y = _energies(energy_per_atom_ev, "energy_per_atom_ev")
    if len(y) != X.shape[0]:
        raise AtomRefError(f"X has {X.shape[0]} rows but energy_per_atom_ev has {len(y)}: they must match row by row")
    if absent not in ("nan", "prior"):
        raise AtomRefError(f"absent={absent!r}: choose 'nan' or 'prior'")
    if absent == "prior" and prior is None:
        raise AtomRefError("absent='prior' needs a prior: pass prior=published_atomref(...) or an array")
    if not (np.isfinite(ridge) and ridge >= 0):
        raise AtomRefError(f"ridge={ridge}: give a number >= 0")

    w, group, n_groups = _row_weights(len(y), material_ids, weights)
    used = w > 0
    if not used.all():
        X, y, w = X[used], y[used], w[used]
        group = None if group is None else group[used]
        if group is not None:
            ids, group = np.unique(group, return_inverse=True)
            n_groups = len(ids)
    if not len(y):
        raise AtomRefError("no rows to fit: give at least one frame with a positive weight")

    columns = present_columns(X)
    prior_ev = _prior(prior)
    start = np.nan_to_num(prior_ev[columns]) if prior is not None else np.zeros(len(columns))
    solution = solve(X[:, columns], y, w, ridge, start)
    determined = np.zeros(N_ELEMENTS, dtype=bool)
    determined[columns] = solution.determined
    if prior is not None:
        needed = np.isnan(prior_ev[columns]) & (~solution.determined | (ridge > 0))
        if needed.any():
            raise AtomRefError(
                f"the prior has no value for {', '.join(element_symbols[c] for c in columns[needed])}, which the data "
                "alone do not settle: give it one, or fit without a prior"
            )

    energies = prior_ev.copy() if absent == "prior" else np.full(N_ELEMENTS, np.nan)
    energies[columns] = start + solution.change
    residual = y - X @ np.nan_to_num(energies)
    variance = residual_variance(residual, w, group, n_groups, solution.degrees_of_freedom)
    std_error = np.full(N_ELEMENTS, np.nan)
    std_error[columns] = np.where(solution.determined, np.sqrt(variance * solution.unit_variance), np.inf)

    row_of_entry = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    materials_per_element = None
    if group is not None:
        met = np.zeros((n_groups, N_ELEMENTS), dtype=bool)
        met[group[row_of_entry], X.indices] = True
        materials_per_element = met.sum(axis=0)
    null_space = np.zeros((len(columns) - solution.rank, N_ELEMENTS))
    null_space[:, columns] = solution.null_space
    return AtomRefFit(
        energies_ev=energies,
        std_error_ev=std_error,
        determined=determined,
        frames_per_element=np.bincount(X.indices, minlength=N_ELEMENTS),
        materials_per_element=materials_per_element,
        null_space=null_space,
        rank=solution.rank,
        n_frames=len(y),
        n_materials=n_groups if group is not None else None,
        rmse_ev_per_atom=float(np.sqrt(np.average(residual**2, weights=w))),
        mae_ev_per_atom=float(np.average(np.abs(residual), weights=w)),
        source=source or _describe_fit(material_ids is not None, ridge, prior),
    )


def fit_model_aware_atomref(
    X,
    target_per_atom_ev,
    model_prediction_per_atom_ev,
    model_atomref,
    *,
    material_ids=None,
    weights=None,
    ridge: float = 0.0,
    absent: str = "nan",
) -> AtomRefFit:
    """Element references for a trained model, c = c_model + argmin Σ w (X d - (target - prediction))².

    The references that make the *model* right on average for each element, rather than composition alone: what the
    model already knows is not fitted again.

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
    target_per_atom_ev, model_prediction_per_atom_ev : array_like, shape (n_rows,)
        Labels, and the model's total energies with `model_atomref` in it; eV/atom.
    model_atomref : AtomRefFit or array_like, shape (94,)
        The references inside the model, eV/atom.
    material_ids, weights, ridge
        As in `fit_atomref`; the ridge, and every direction that the data do not determine, keeps the model's values.
    absent : "nan" or "model"
        Whether elements without data get NaN or keep the model's reference.

    Returns
    -------
    AtomRefFit
        Errors and residuals are those of the fitted change.

    Raises
    ------
    AtomRefError
        As `fit_atomref`, and if the model has no reference for an element in the data (names it).

    Notes
    -----
    Lesson 4 compares this with Method 4's refit.
    """
    if absent not in ("nan", "model"):
        raise AtomRefError(f"absent={absent!r}: choose 'nan' or 'model'")
    X = as_composition_matrix(X)
    model_ev = _prior(model_atomref)
    missing = np.isnan(model_ev[present_columns(X)])
    if missing.any():
        names = ", ".join(element_symbols[c] for c in present_columns(X)[missing])
        raise AtomRefError(
            f"the model has no element reference for {names}: pass the number it did add (chgnet adds 0 for elements "
            "that were not in its data), or leave these rows out"
        )
    target = _energies(target_per_atom_ev, "target_per_atom_ev")
    prediction = _energies(model_prediction_per_atom_ev, "model_prediction_per_atom_ev")
    if len(target) != len(prediction):
        raise AtomRefError(f"{len(target)} targets but {len(prediction)} predictions: they must match row by row")
    change = fit_atomref(X, target - prediction, material_ids=material_ids, weights=weights, ridge=ridge)
    energies = np.where(np.isnan(change.energies_ev), model_ev if absent == "model" else np.nan, 0.0)
    seen = ~np.isnan(change.energies_ev)
    energies[seen] = model_ev[seen] + change.energies_ev[seen]
    name = model_atomref.source if isinstance(model_atomref, AtomRefFit) else "given array"
    return replace(change, energies_ev=energies, source=f"model-aware refit on top of: {name}")


def held_out_error(
    X, energy_per_atom_ev, material_ids, seed: int = 0, fraction: float = 0.2, *, ridge: float = 0.0, prior=None
) -> dict:
    """Error of element references on materials that they were not fitted to.

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
    energy_per_atom_ev : array_like, shape (n_rows,)
    material_ids : array_like, shape (n_rows,)
        All rows of a material are held out together; each material counts once, in the fit and in the error.
    seed, fraction
        The split: which share of the materials is held out.
    ridge, prior
        As in `fit_atomref`.

    Returns
    -------
    dict
        `mae_ev_per_atom` and `rmse_ev_per_atom` over held-out materials that can be judged (NaN if none can),
        `n_materials_judged`, `n_materials_not_judged`, `elements_absent` (in held-out rows but not in the fitted
        ones), `elements_not_determined` (fitted, but only in combinations that a held-out row breaks), and `fit`.

    Raises
    ------
    InputError
        From the split if there are too few materials, from the fit as `fit_atomref`.
    """
    from crossfunc.datasets.splits import split_by_material

    X = as_composition_matrix(X)
    y = _energies(energy_per_atom_ev, "energy_per_atom_ev")
    ids = np.asarray(material_ids)
    parts = split_by_material(ids, (1 - fraction, 0, fraction), seed=seed)
    train, test = parts["train"], parts["test"]
    fit = fit_atomref(X[train], y[train], material_ids=ids[train], ridge=ridge, prior=prior)
    residual, judged, absent, loose = judge(fit, X[test], y[test])
    _, material = np.unique(ids[test], return_inverse=True)
    n_materials = material.max() + 1
    n_rows = np.bincount(material[judged], minlength=n_materials)
    some = n_rows > 0
    mean_abs = np.bincount(material[judged], np.abs(residual), minlength=n_materials)[some] / n_rows[some]
    mean_square = np.bincount(material[judged], residual**2, minlength=n_materials)[some] / n_rows[some]
    return {
        "mae_ev_per_atom": float(mean_abs.mean()) if some.any() else float("nan"),
        "rmse_ev_per_atom": float(np.sqrt(mean_square.mean())) if some.any() else float("nan"),
        "n_materials_judged": int(some.sum()),
        "n_materials_not_judged": int((~some).sum()),
        "elements_absent": absent,
        "elements_not_determined": loose,
        "fit": fit,
    }


def judge(fit: AtomRefFit, X, energy_per_atom_ev):
    """Residuals of the rows that a fit can be held to, and what kept it from the others.

    Returns
    -------
    residual : ndarray
        y - X c of the judged rows, eV/atom.
    judged : ndarray of bool, shape (n_rows,)
        Rows whose elements were all fitted and whose reference energy the fitted data determine.
    elements_absent, elements_not_determined : tuple of str
        The elements to blame for the other rows.
    """
    X = as_composition_matrix(X)
    y = _energies(energy_per_atom_ev, "energy_per_atom_ev")
    judged = fit.is_determined_for(X)
    blamed = np.zeros(N_ELEMENTS, dtype=bool)
    blamed[present_columns(X[~judged])] = True
    seen = np.isfinite(fit.energies_ev) if fit.frames_per_element is None else fit.frames_per_element > 0
    return fit.remove(X[judged], y[judged]), judged, _symbols(blamed & ~seen), _symbols(blamed & seen & ~fit.determined)


def material_folds(material_ids, n_splits: int, seed: int) -> np.ndarray:
    """Fold number of each row for cross-validation; all rows of a material share one, folds differ by one material.

    Raises
    ------
    InputError
        If there are fewer materials than folds, or fewer than two folds.
    """
    materials, group = np.unique(np.asarray(material_ids), return_inverse=True)
    if not 2 <= n_splits <= len(materials):
        raise InputError(f"n_splits={n_splits} with {len(materials)} materials: give 2 to {len(materials)} folds")
    fold = np.empty(len(materials), dtype=int)
    fold[np.random.default_rng(seed).permutation(len(materials))] = np.arange(len(materials)) % n_splits
    return fold[group]


def _row_weights(n_rows, material_ids, weights):
    """Weight and material number of each row, and the number of materials."""
    if weights is None:
        w = np.ones(n_rows)
    else:
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != (n_rows,):
            raise AtomRefError(f"weights have shape {w.shape}, not ({n_rows},): give one per row")
        wrong = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
        if wrong.size:
            raise AtomRefError(f"row {wrong[0]}: weight is {w[wrong[0]]}: give finite numbers >= 0")
    if material_ids is None:
        return w, None, n_rows
    import pandas as pd

    if len(material_ids) != n_rows:
        raise AtomRefError(f"{len(material_ids)} material ids for {n_rows} rows: give one per row")
    group, materials = pd.factorize(np.asarray(material_ids))
    if (group < 0).any():
        raise AtomRefError(f"row {np.flatnonzero(group < 0)[0]}: material id is missing: fill it in or drop the row")
    total = np.bincount(group, w)[group]
    return np.divide(w, total, out=np.zeros(n_rows), where=total > 0), group, len(materials)


def _energies(values, name):
    """One-dimensional float64 energies; raise for the first that is missing or not finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise AtomRefError(f"{name} has shape {values.shape}: give each row one energy per atom")
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise AtomRefError(f"row {wrong[0]}: {name} is {values[wrong[0]]} ({wrong.size} such rows): drop these rows")
    return values


def _prior(prior):
    """Prior as a (94,) float64 array; NaN where it has no value."""
    if prior is None:
        return np.zeros(N_ELEMENTS)
    values = np.asarray(getattr(prior, "energies_ev", prior), dtype=np.float64)
    if values.shape != (N_ELEMENTS,) or np.isinf(values).any():
        raise AtomRefError(f"references have shape {values.shape}: give {N_ELEMENTS} finite energies or NaN, H to Pu")
    return values


def _complete(energies_ev, X):
    """References with the absent ones set to 0, after making sure that no row of X needs one of those."""
    missing = ~np.isfinite(energies_ev)
    if missing.any():
        columns = np.intersect1d(present_columns(X), np.flatnonzero(missing))
        if columns.size:
            rows = np.flatnonzero(X @ missing.astype(float))
            first = ", ".join(map(str, rows[:3])) + (", ..." if rows.size > 3 else "")
            raise AtomRefError(
                f"no element reference for {', '.join(element_symbols[c] for c in columns)} "
                f"({'row' if rows.size == 1 else 'rows'} {first}; {rows.size} of {X.shape[0]}): drop these rows, fit "
                "on data that hold the element, or fit with prior=... and absent='prior'"
            )
    return np.where(missing, 0.0, energies_ev)


def _symbols(mask):
    """Symbols of the elements for which the mask is true."""
    return tuple(element_symbols[column] for column in np.flatnonzero(mask))


def _describe_fit(per_material, ridge, prior):
    """Default provenance of a fit."""
    text = "least squares, " + ("each material counted once" if per_material else "each frame counted once")
    if ridge:
        text += f", ridge {ridge:g}"
    if prior is not None:
        text += f", about {getattr(prior, 'source', 'a given prior')}"
    return text


def _to_json_number(value):
    """Float for strict JSON: NaN as null, infinity as text."""
    return None if np.isnan(value) else "inf" if np.isinf(value) else float(value)


def _from_json_number(value):
    """Inverse of `_to_json_number`."""
    return float("nan") if value is None else float(value)
