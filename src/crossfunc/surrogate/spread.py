"""How far two teachers' labels of the same crystals lie apart: the error bar of labels that are no calculation."""

import numpy as np
import pandas as pd

from crossfunc.datasets import Dataset, open_dataset
from crossfunc.energies import composition_matrix, fit_atomref
from crossfunc.errors import InputError
from crossfunc.surrogate.formation import FORMATION

__all__ = ["teacher_spread"]


def teacher_spread(first, second) -> pd.DataFrame:
    """Compare two datasets with the same crystals and other labels, property by property.

    Parameters
    ----------
    first, second : Dataset, str or path

    Returns
    -------
    pandas.DataFrame
        A row for each property: `property`, `unit`, `mean` and `median` of |second - first|, `size` (mean of |first|,
        for what has a zero of its own, else NaN), `slope` of second on first through the origin (NaN likewise), `n`.

    Raises
    ------
    InputError
        No crystal is in both.
    """
    a, b = (one if isinstance(one, Dataset) else open_dataset(one) for one in (first, second))
    low, high = a.functionals
    pairs = a.need_pairs().merge(b.need_pairs(), on="material_id", suffixes=("_a", "_b"))
    if pairs.empty:
        raise InputError(f"{a.name} and {b.name}: no material is in both, so there is nothing to compare.")
    X = composition_matrix(list(pairs["composition_a"]))
    rows = []
    for side in (low, high):
        difference = (pairs[f"{side.column()}_b"] - pairs[f"{side.column()}_a"]).to_numpy()
        left = fit_atomref(X, difference).remove(X, difference)
        rows.append(_row(f"{side.name} energy", "eV/atom", difference))
        rows.append(_row(f"{side.name} energy after offsets per element", "eV/atom", left))
    shift = [pairs[f"{high.column()}_{k}"] - pairs[f"{low.column()}_{k}"] for k in "ab"]
    difference = (shift[1] - shift[0]).to_numpy()
    left = fit_atomref(X, difference).remove(X, difference)
    rows.append(_row(f"{high.name} minus {low.name}, after offsets per element", "eV/atom", left))
    formation = [pairs[f"{high.column(formation=True)}_{k}"].to_numpy() for k in "ab"]
    rows.append(_row(f"{high.name} formation energy", "eV/atom", formation[1] - formation[0], formation))
    forces, stress = _derivatives(a, b, high.key)
    rows.append(_row(f"{high.name} force component", "eV/Å", forces[1] - forces[0], forces))
    rows.append(_row(f"{high.name} stress component", "GPa", stress[1] - stress[0], stress))
    return pd.DataFrame([*rows, *_third_rows(a, b, pairs)])


def _third_rows(first: Dataset, second: Dataset, pairs: pd.DataFrame) -> list[dict]:
    """Rows of a teacher that was added to the second dataset, beside each of the two."""
    high, rows = second.functionals[1], []
    for key, about in second.meta.get("generator", {}).items():
        column = f"{key}{FORMATION}"
        if column not in pairs:
            continue
        for suffix, one in (("a", first), ("b", second)):
            beside = f"{about['name']} against {one.labelled_by.removeprefix('model, ')}"
            theirs, own = (pairs[name].to_numpy() for name in (f"{high.column(formation=True)}_{suffix}", column))
            rows.append(_row(f"{high.name} formation energy, {beside}", "eV/atom", own - theirs, [theirs, own]))
            forces = about["forces_beside"].get(one.labelled_by, {"n": 0})
            if forces["n"]:
                found = {name: forces[f"{name}_ev_per_a"] for name in ("mean", "median", "size")}
                what = {"property": f"{high.name} force component, {beside}", "unit": "eV/Å"}
                rows.append(what | found | {"slope": forces["slope"], "n": forces["n"]})
    return rows


def _row(name: str, unit: str, difference: np.ndarray, values=None) -> dict:
    difference = difference[np.isfinite(difference)]
    row = {"property": name, "unit": unit, "mean": np.abs(difference).mean(), "median": np.median(np.abs(difference))}
    size = slope = np.nan
    if values is not None:
        one, two = (v[np.isfinite(values[0]) & np.isfinite(values[1])] for v in values)
        size, slope = np.abs(one).mean(), one @ two / (one @ one)
    return row | {"size": size, "slope": slope, "n": len(difference)}


def _derivatives(a: Dataset, b: Dataset, key: str) -> tuple[list, list]:
    """Force and stress components of the frames that have them in both, flat."""
    columns = ["frame_id", "functional", "forces_ev_per_a", "stress_gpa"]
    tables = []
    for one in (a, b):
        table = one.need_frames().select(columns).to_pandas()
        table = table[(table["functional"] == key) & table["forces_ev_per_a"].notna()]
        tables.append(table.set_index("frame_id"))
    both = tables[0].index.intersection(tables[1].index)
    if not len(both):
        return [np.zeros(0)] * 2, [np.zeros(0)] * 2
    forces, stress = (
        [np.concatenate(table.loc[both, name].to_numpy()) for table in tables]
        for name in ("forces_ev_per_a", "stress_gpa")
    )
    return forces, stress
