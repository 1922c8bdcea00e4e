"""One functional against the other: how far they agree, before and after element references are subtracted."""

from dataclasses import dataclass, field, replace

import numpy as np

from crossfunc.bootstrap import FEWEST, estimate_of_sums, interval_ends
from crossfunc.energies.atomref import AtomRefError, AtomRefFit, fit_atomref, judge, material_folds
from crossfunc.energies.composition import as_composition_matrix, element_symbols
from crossfunc.errors import InputError

#: Below this an offset is left to fine-tuning. Dispersion corrections move energies by 0.05 to 0.3 eV/atom;
#: another functional with other pseudopotentials by 1 to 75 eV/atom. The limit lies between the two.
REFIT_THRESHOLD_EV_PER_ATOM = 0.5


@dataclass(frozen=True)
class Pearson:
    """Pearson correlation with a bootstrap interval over materials."""

    r: float
    low: float  # NaN without bootstrap, and with fewer materials than `crossfunc.bootstrap.FEWEST`
    high: float
    n_points: int
    n_materials: int
    level: float = 0.95

    def __str__(self):
        """Correlation, interval and sample in one line."""
        low, high = (correlation_text(end) for end in (self.low, self.high))
        interval = f" [{low}, {high}]" if np.isfinite(self.low) else ""
        few = ", too few for an interval" if self.n_materials < FEWEST else ""
        return f"{correlation_text(self.r)}{interval}, {self.n_materials} materials{few}"


@dataclass(frozen=True)
class RefitAdvice:
    """Whether element references should be refitted before fine-tuning, and the numbers behind it."""

    refit: bool
    reason: str
    explained_variance: float  # share of the variance of the difference that composition explains
    explained_offset: float  # share of its mean square, so with the part that is common to all materials
    explained_offset_interval: tuple[float, float]  # 95 % over the materials that it is of; NaN where it is in sample
    initial_mae_ev_per_atom: float  # with the references as they are
    refitted_mae_ev_per_atom: float  # with refitted references
    is_held_out: bool  # the shares and the refitted error come from materials that were not fitted
    n_materials: int
    n_judged: int  # materials that the shares and the errors are of; all of them where these are in sample
    elements: object = field(repr=False)  # pandas.DataFrame, most important element first
    fit: AtomRefFit = field(repr=False)  # references of the difference, all materials

    def __str__(self):
        """The reason, which starts with the advice."""
        return self.reason


def correlation_text(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """Return a correlation or a cosine in words: as many digits as it takes not to read as perfect where it is not.

    Parameters
    ----------
    value : float
        Between -1 and 1.
    digits : int
        After the point; up to eight where fewer would round to 1 what is less.
    sign : bool
        Write the plus sign, too.

    Returns
    -------
    str
        "0.340"; 0.99962 is "0.9996", and "1.000" stands for 1 alone (or for what differs from it by rounding).
    """
    if 1 - abs(value) > 5e-9:
        while digits < 8 and round(abs(value), digits) == 1:
            digits += 1
    return f"{value:{'+' if sign else ''}.{digits}f}"


def pearson(x, y, *, material_ids=None, n_bootstrap: int = 0, level: float = 0.95, seed: int = 0) -> Pearson:
    """Pearson correlation, r = cov(x, y) / (σ_x σ_y), with an interval from resampled materials.

    Parameters
    ----------
    x, y : array_like, shape (n_points,)
    material_ids : array_like, shape (n_points,), optional
        Points of a material are resampled together; without ids each point is a material.
    n_bootstrap : int
        Number of resamples; 0 leaves the interval NaN, as fewer than `crossfunc.bootstrap.FEWEST` materials do.
    level : float
        Coverage of the interval: percentiles of resamples, stretched for few materials on Fisher's scale, artanh r.
    seed : int

    Returns
    -------
    Pearson

    Raises
    ------
    InputError
        Fewer than two points, different lengths, a value that is not finite (names the row), or x or y constant.

    Notes
    -----
    Lesson 3; paper Figs. 1b and 2b.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise InputError(f"x and y have shapes {x.shape} and {y.shape}: give two lists of equal length, at least 2")
    wrong = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if wrong.size:
        row = wrong[0]
        raise InputError(f"row {row}: x = {x[row]}, y = {y[row]} ({wrong.size} such rows): drop these rows")
    constant = [name for name, values in (("x", x), ("y", y)) if np.ptp(values) == 0]
    if constant:
        raise InputError(f"{' and '.join(constant)} constant: no correlation is defined")
    group = np.arange(len(x)) if material_ids is None else np.unique(np.asarray(material_ids), return_inverse=True)[1]
    if len(group) != len(x):
        raise InputError(f"{len(group)} material ids for {len(x)} points: give one per point")
    n_materials = int(group.max()) + 1
    x, y = x - x.mean(), y - y.mean()
    moments = np.column_stack(
        [np.bincount(group, values, minlength=n_materials) for values in (np.ones_like(x), x, y, x * x, y * y, x * y)]
    )
    low = high = float("nan")
    if n_bootstrap and n_materials >= FEWEST:
        rng = np.random.default_rng(seed)
        resampled = np.empty(n_bootstrap)
        for k in range(n_bootstrap):
            drawn = np.bincount(rng.integers(n_materials, size=n_materials), minlength=n_materials)
            resampled[k] = _correlation(drawn.astype(np.float64) @ moments)
        # Fisher's transform makes the scatter even on both sides, so that what few materials lack can be made up for.
        own = np.arctanh(np.clip(_correlation(moments.sum(axis=0)), -_NEARLY_ONE, _NEARLY_ONE))
        turned = np.arctanh(np.clip(resampled[np.isfinite(resampled)], -_NEARLY_ONE, _NEARLY_ONE))
        low, high = (float(np.tanh(end)) for end in interval_ends(turned, own, level, n_materials))
    return Pearson(float(_correlation(moments.sum(axis=0))), low, high, len(x), n_materials, level)


_NEARLY_ONE = 1 - 1e-12


def correlation_report(
    X,
    low,
    high,
    refs_low: AtomRefFit | None = None,
    refs_high: AtomRefFit | None = None,
    *,
    others=None,
    material_ids=None,
    n_splits: int = 5,
    n_bootstrap: int = 1000,
    seed: int = 0,
):
    """Correlation of two functionals' energies, before and after element references are subtracted.

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
    low, high : array_like, shape (n_rows,)
        Energies per atom of the same materials in the low (GGA/GGA+U) and high (r2SCAN) functional, eV/atom.
    refs_low, refs_high : AtomRefFit, optional
        Published references of each, from `published_atomref`; leave them out for energies of another code, whose zero
        is another one (`published_tables_apply`).
    others : dict of str to (array_like, array_like), each of shape (94,), optional
        Further references of the low and of the high functional by name, eV/atom; NaN for elements that have none.
        Rows with such an element are left out.
    material_ids : array_like, shape (n_rows,), optional
    n_splits : int
        Folds of the cross-validation over materials behind the held-out row.
    n_bootstrap, seed
        As in `pearson`.

    Returns
    -------
    pandas.DataFrame
        One row per `references`: "none", "published" (where they are given), those of `others` that three rows have,
        "low only" (the low functional's subtracted from both: published, or without these fitted to other materials),
        "refitted" (own fit, in sample) and "refitted, held out"; a row that fewer than two materials could be judged
        for, or whose energies are all one, is left out. Columns `pearson`, `interval_low`, `interval_high`,
        NaN with fewer than `crossfunc.bootstrap.FEWEST` materials, `n_points` (rows that could be judged),
        `mad_ev_per_atom` (mean |high - low - its mean|) and `note`.

    Raises
    ------
    AtomRefError
        If a published reference is missing for an element in X; names it.

    Notes
    -----
    Lesson 3; paper Figs. 1b, 2a and 2b.
    """
    import pandas as pd

    X = as_composition_matrix(X)
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    ids = np.arange(X.shape[0]) if material_ids is None else np.asarray(material_ids)
    fit_low, fit_high = (fit_atomref(X, energy, material_ids=ids) for energy in (low, high))
    held_low, held_high, judged, blamed = _held_out_scaled(X, low, high, ids, n_splits, seed)
    left_out = int((~judged).sum())
    held_note = f"{n_splits}-fold cross-validation over materials"
    if left_out:
        held_note += f"; {left_out} rows left out, whose references other materials do not fix ({', '.join(blamed)})"
    everything = np.ones(len(low), dtype=bool)
    stages = {"none": (low, high, everything, "total energies")}
    low_only = (held_low, high - low + held_low, judged, "the low functional's from both; " + held_note)
    if (refs_low is None) != (refs_high is None):
        raise InputError("refs_low or refs_high alone: give published references of both functionals, or of none")
    if refs_low is not None and refs_high is not None:
        scaled = refs_low.remove(X, low), refs_high.remove(X, high)
        stages["published"] = (*scaled, everything, "each functional's own")
        low_only = (scaled[0], refs_low.remove(X, high), everything, "the low functional's from both")
    for name, (other_low, other_high) in (others or {}).items():
        scaled = low - X @ np.nan_to_num(other_low), high - X @ np.nan_to_num(other_high)
        known = X @ np.isfinite(np.asarray(other_low) + np.asarray(other_high)).astype(float) > 1 - 1e-9
        if known.sum() > 2:
            stages[name] = (*scaled, known, f"{int(known.sum())} rows whose elements all have one")
    stages |= {
        "low only": low_only,
        "refitted": (fit_low.remove(X, low), fit_high.remove(X, high), everything, "in sample: fitted to these rows"),
        "refitted, held out": (held_low, held_high, judged, held_note),
    }
    rows = []
    for name, (scaled_low, scaled_high, kept, note) in stages.items():
        if kept.sum() < 2 or not (np.ptp(scaled_low[kept]) and np.ptp(scaled_high[kept])):
            continue
        result = pearson(
            scaled_low[kept], scaled_high[kept], material_ids=ids[kept], n_bootstrap=n_bootstrap, seed=seed
        )
        difference = scaled_high[kept] - scaled_low[kept]
        mad = float(np.abs(difference - difference.mean()).mean())
        rows.append((name, result.r, result.low, result.high, result.n_points, mad, note))
    columns = ["references", "pearson", "interval_low", "interval_high", "n_points", "mad_ev_per_atom", "note"]
    return pd.DataFrame(rows, columns=columns).set_index("references")


def scale_held_out(X, low, high, *, material_ids=None, n_splits: int = 5, seed: int = 0):
    """Energies of two functionals minus references of each that were fitted to other materials.

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
    low, high : array_like, shape (n_rows,)
        eV/atom.
    material_ids : array_like, shape (n_rows,), optional
    n_splits, seed
        Folds of the cross-validation over materials.

    Returns
    -------
    pandas.DataFrame
        Columns `low` and `high`, eV/atom; the index is the row of X. Rows that hold an element which the other
        materials do not determine are left out.

    Notes
    -----
    Lesson 3.
    """
    import pandas as pd

    X = as_composition_matrix(X)
    ids = np.arange(X.shape[0]) if material_ids is None else np.asarray(material_ids)
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    held_low, held_high, judged, _ = _held_out_scaled(X, low, high, ids, n_splits, seed)
    return pd.DataFrame({"low": held_low, "high": held_high})[judged]


def element_shifts(low_fit: AtomRefFit, high_fit: AtomRefFit):
    """Shift of each element's reference, Δ = c_high - c_low, with its standard error.

    Parameters
    ----------
    low_fit, high_fit : AtomRefFit

    Returns
    -------
    pandas.DataFrame
        Index `element`; columns `atomic_number`, `low_ev`, `high_ev`, `shift_ev`, `std_error_ev`, `determined`; the
        elements with a reference in both, largest |shift| first.

    Raises
    ------
    AtomRefError
        If the two have no element in common.

    Notes
    -----
    Errors are added as if independent, σ² = σ_low² + σ_high². When both were fitted to the *same* materials they
    share most of their scatter: `fit_atomref(X, high - low)` gives the same shifts and their proper, smaller errors.
    Lesson 3.
    """
    import pandas as pd

    shift = high_fit.energies_ev - low_fit.energies_ev
    common = np.isfinite(shift)
    if not common.any():
        raise AtomRefError("the two sets of element references have no element in common")
    table = pd.DataFrame(
        {
            "atomic_number": np.arange(1, len(shift) + 1),
            "low_ev": low_fit.energies_ev,
            "high_ev": high_fit.energies_ev,
            "shift_ev": shift,
            "std_error_ev": np.hypot(low_fit.std_error_ev, high_fit.std_error_ev),
            "determined": low_fit.determined & high_fit.determined,
        },
        index=pd.Index(element_symbols, name="element"),
    )[common]
    return table.sort_values("shift_ev", key=np.abs, ascending=False, kind="stable")


def refit_advice(
    X,
    difference_per_atom_ev,
    *,
    material_ids=None,
    threshold_ev_per_atom: float = REFIT_THRESHOLD_EV_PER_ATOM,
    n_splits: int = 5,
    seed: int = 0,
) -> RefitAdvice:
    """Advise whether to refit element references before fine-tuning, from target minus what the model starts with.

    Parameters
    ----------
    X : sparse or dense array, shape (n_rows, 94)
    difference_per_atom_ev : array_like, shape (n_rows,)
        Label minus the starting model's prediction; or, for two functionals of the same materials, high minus low.
    material_ids : array_like, shape (n_rows,), optional
        Each material counts once, in the fit and in the errors.
    threshold_ev_per_atom : float
        How much of the initial error refitted references must take away to be worth it.
    n_splits, seed
        Cross-validation over materials: the errors are those of materials not fitted whose references the others fix.
        With fewer than `crossfunc.bootstrap.FEWEST` of these, all errors are in sample, and nothing is advised unless
        there are as many materials more than references, or one shift of all materials explains half of the mean square
        of each that the shift was not taken from.

    Returns
    -------
    RefitAdvice
        `refit` is True if a refit takes away at least the threshold *and* at least half of the mean square. `n_judged`
        and the reason say of how many materials this holds.

    Raises
    ------
    AtomRefError
        If a difference is missing or not finite; names the row.

    Notes
    -----
    Lesson 3. A large difference that composition does not explain is no reason to refit but one to look for a
    mistake in units, sign or kind of energy.
    """
    import pandas as pd

    X = as_composition_matrix(X)
    ids = np.arange(X.shape[0]) if material_ids is None else np.asarray(material_ids)
    fit = fit_atomref(X, difference_per_atom_ev, material_ids=ids, source="references of the difference")
    d = np.asarray(difference_per_atom_ev, dtype=np.float64)
    _, group, count = np.unique(ids, return_inverse=True, return_counts=True)
    w = 1 / count[group]

    n_materials = len(count)
    folds = min(n_splits, n_materials)
    judged = np.zeros(len(d), dtype=bool)
    if folds >= 2:
        residual, _, judged, _ = _held_out_scaled(X, d, d, ids, folds, seed)
    is_held_out = len(np.unique(ids[judged])) >= FEWEST  # a handful says little of the rest
    if not is_held_out:
        residual, judged = fit.remove(X, d), np.ones(len(d), dtype=bool)

    wj, dj, rj = w[judged], d[judged], residual[judged]
    before, after = np.average(np.abs(dj), weights=wj), np.average(np.abs(rj), weights=wj)
    mean_square, left = np.average(dj**2, weights=wj), np.average(rj**2, weights=wj)
    variance = np.average((dj - np.average(dj, weights=wj)) ** 2, weights=wj)
    explained_offset = 1 - left / mean_square if mean_square else 0.0
    of_offset = (float("nan"), float("nan"))
    if is_held_out and mean_square:
        squares = np.column_stack([wj * rj**2, wj * dj**2])
        found = estimate_of_sums(squares, ids[judged], lambda sums: 1 - sums[0] / sums[1], seed=seed)
        of_offset = (found.low, found.high)
    explained_variance = 1 - left / variance if variance > 1e-12 * mean_square else float("nan")
    # A fit of as many numbers as there are materials leaves nothing, of noise either; a shift of all can be told apart.
    can_tell = is_held_out or n_materials - (fit.rank or 0) >= FEWEST or _is_common_shift(d, group, count)
    refit = bool(can_tell and before - after >= threshold_ev_per_atom and explained_offset >= 0.5)

    contribution = abs(X).T @ w / w.sum() * np.abs(np.nan_to_num(fit.energies_ev))
    elements = pd.DataFrame(
        {
            "atomic_number": np.arange(1, len(contribution) + 1),
            "shift_ev": fit.energies_ev,
            "std_error_ev": fit.std_error_ev,
            "contribution_ev_per_atom": contribution,
            "n_materials": fit.materials_per_element,
        },
        index=pd.Index(element_symbols, name="element"),
    )[np.isfinite(fit.energies_ev)].sort_values("contribution_ev_per_atom", ascending=False, kind="stable")
    advice = RefitAdvice(
        refit=refit,
        reason="",
        explained_variance=float(explained_variance),
        explained_offset=float(explained_offset),
        explained_offset_interval=of_offset,
        initial_mae_ev_per_atom=float(before),
        refitted_mae_ev_per_atom=float(after),
        is_held_out=is_held_out,
        n_materials=n_materials,
        n_judged=len(np.unique(ids[judged])),
        elements=elements,
        fit=fit,
    )
    return replace(advice, reason=_advice_text(advice, threshold_ev_per_atom, can_tell=can_tell))


def _is_common_shift(difference: np.ndarray, group: np.ndarray, count: np.ndarray) -> bool:
    """Whether the mean over the other materials is nearer to each material than zero is, in the mean square by half."""
    means, n = np.bincount(group, difference) / count, len(count)
    left = (means - means.mean()) * n / max(n - 1, 1)
    return n == 1 or bool((left**2).sum() <= 0.5 * (means**2).sum())


def _advice_text(advice, threshold, *, can_tell=True):
    """One or two sentences a user can act on."""
    before, after, variance = advice.initial_mae_ev_per_atom, advice.refitted_mae_ev_per_atom, advice.explained_variance
    share = f"{100 * variance:.1f} % of the variance of the difference" if variance > 0 else "an equal shift"
    where = "on held-out materials" if advice.is_held_out else "in sample, too few materials to hold any out"
    if advice.is_held_out and advice.n_judged < advice.n_materials:
        where = f"on the {advice.n_judged} of {advice.n_materials} materials whose references the others fix"
    change = f"initial error {before:.3f} eV/atom, with refitted references {after:.3f} {where}"
    fixed = advice.elements[advice.fit.determined[advice.elements["atomic_number"] - 1]]
    if not can_tell:
        text = (
            f"Too few materials to tell: {advice.n_materials}, for references of {len(advice.elements)} elements, "
            f"leave hardly anything that a fit could miss (initial error {before:.3f} eV/atom). Refit only for a "
            "reason of another kind, such as another zero of energy."
        )
    elif advice.refit:
        text = f"Refit: the references explain {share} ({change})."
        if len(fixed):
            largest = fixed["shift_ev"].abs().idxmax()
            text += (
                f" {', '.join(_signed(fixed, symbol) for symbol in fixed.index[:3])} eV/atom decide it, by shift times "
                f"share of the atoms; the largest shift is {_signed(fixed, largest)}."
            )
    elif advice.explained_offset < 0.5 and before >= threshold:
        text = (
            "Do not refit: the difference is large, but the references explain only "
            f"{100 * max(advice.explained_offset, 0):.1f} % of its mean square ({change}). "
            "Look for a mistake in units, sign or kind of energy first."
        )
    else:
        text = (
            f"Do not refit: it would take {max(before - after, 0):.3f} eV/atom off the initial error, less than the "
            f"{threshold:g} eV/atom that is left to fine-tuning ({change})."
        )
    if advice.fit.null_space_elements:
        text += (
            f" The data fix {', '.join(advice.fit.null_space_elements)} only in combination: a refit by "
            "fit_model_aware_atomref leaves the rest at the model's values."
        )
    return text


def _signed(table, symbol):
    """An element and its shift, such as "W −39.0"."""
    return f"{symbol} {table['shift_ev'][symbol]:+.1f}".replace("-", "−")


def _held_out_scaled(X, low, high, ids, n_splits, seed):
    """Energies less references fitted to the other folds; which rows could be judged, and the elements to blame."""
    fold = material_folds(ids, n_splits, seed)
    scaled = np.full((2, len(ids)), np.nan)
    judged_all, blamed = np.zeros(len(ids), dtype=bool), set()
    for k in range(n_splits):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        for values, energy in zip(scaled, (low, high), strict=True):
            fit = fit_atomref(X[train], energy[train], material_ids=ids[train])
            residual, judged, absent, loose = judge(fit, X[test], energy[test])
            values[test[judged]] = residual
        judged_all[test[judged]] = True
        blamed.update(absent + loose)
    return scaled[0], scaled[1], judged_all, [symbol for symbol in element_symbols if symbol in blamed]


def _correlation(moments):
    """Pearson correlation from summed n, x, y, x², y², xy; NaN where a resample is constant."""
    n, sx, sy, sxx, syy, sxy = moments
    spread = (n * sxx - sx * sx) * (n * syy - sy * sy)
    return (n * sxy - sx * sy) / np.sqrt(spread) if spread > 0 else np.nan
