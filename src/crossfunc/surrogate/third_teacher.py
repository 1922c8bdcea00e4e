"""A third opinion on the surrogate's crystals: a network that speaks the high functional alone.

It cannot label a dataset of two functionals, but its formation energies and forces say how far the two teachers that
can are to be trusted.
"""

import os
from importlib.metadata import version

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets import Dataset, open_dataset
from crossfunc.datasets.store import write_dataset
from crossfunc.errors import InputError
from crossfunc.surrogate.formation import FORMATION, TOTAL, with_formation_energies
from crossfunc.surrogate.teachers import SOURCE, SPREAD, Teacher, find_teacher, label_chunks

__all__ = ["add_teacher"]


def add_teacher(
    folder: str | os.PathLike | Dataset,
    labels: str = "diep",
    *,
    source: str | os.PathLike | Dataset = SOURCE,
    n_jobs: int = 1,
    progress: bool = True,
) -> Dataset:
    """Add a teacher's formation energies to the pairs of a dataset that another teacher labelled, in its place.

    Parameters
    ----------
    folder : str, path or Dataset
        From `label_again`.
    labels : str
        A teacher that speaks the high functional alone.
    source : Dataset, str or path
        Where the crystals came from, with the first teacher's labels.
    n_jobs : int
    progress : bool

    Returns
    -------
    Dataset
        The pairs have `LABELS_formation_energy_per_atom_ev`, and the spread over all three teachers; `generator` says
        who was added and how its forces on the displaced crystals differ from those of the other two.

    Raises
    ------
    InputError
        The teacher speaks two functionals, its package is missing, or the dataset is not of a second teacher.
    """
    teacher = find_teacher(labels)
    if teacher.low is not None:
        raise InputError(f"labels {labels!r}: {teacher.name} speaks both functionals; it makes a dataset of its own.")
    given = folder if isinstance(folder, Dataset) else open_dataset(folder)
    first = source if isinstance(source, Dataset) else open_dataset(source)
    if SPREAD not in given.need_pairs():
        raise InputError(f"{given.path}: no second teacher's dataset (its pairs have no column {SPREAD}).")
    high = given.functionals[1]
    frames = given.need_frames()
    what = pc.list_element(pc.split_pattern(frames["source"], ": "), 1)
    wanted = pc.is_in(what, value_set=pa.array(["relaxed", "rattled"]))
    chosen = frames.filter(pc.and_(pc.equal(frames["functional"], high.key), wanted))
    found = label_chunks(teacher, {"high": chosen}, n_jobs=n_jobs, progress=progress)
    pairs = _pairs(given, first, chosen, found, labels)
    meta = {key: value for key, value in given.meta.items() if key != "files"}
    meta["generator"] = meta["generator"] | {labels: _about(teacher, given, first, chosen, found)}
    return write_dataset(
        given.path,
        meta=meta,
        frames=frames,
        pairs=pairs,
        elements=given.elements,
        rejected=given.rejected,
        records=given.records,
        overwrite=True,
    )


def _pairs(given: Dataset, first: Dataset, chosen: pa.Table, found: dict, labels: str) -> pd.DataFrame:
    high = given.functionals[1].column(formation=True)
    rows = chosen.select(["frame_id", "material_id", "source"]).to_pylist()
    energies = {
        row["material_id"]: found[row["frame_id"]]["energy_per_atom_ev"][0]
        for row in rows
        if row["source"].endswith(": relaxed") and not isinstance(found[row["frame_id"]], str)
    }
    pairs = given.need_pairs().copy()
    total = f"{labels}{TOTAL}"
    pairs[total] = pairs["material_id"].map(energies)
    pairs = with_formation_energies(pairs, [total]).drop(columns=total)
    of_first = pairs["material_id"].map(first.need_pairs().set_index("material_id")[high])
    opinions = pd.concat([of_first, pairs[high], pairs[f"{labels}{FORMATION}"]], axis=1)
    spread = opinions.max(axis=1) - opinions.min(axis=1)
    return pairs.assign(**{SPREAD: spread.where(opinions.notna().sum(axis=1) > 1).round(6)})


def _about(teacher: Teacher, given: Dataset, first: Dataset, chosen: pa.Table, found: dict) -> dict:
    """Who was added, and its force components on the displaced crystals beside those of the other two."""
    rattled = chosen.filter(pc.match_substring(chosen["source"], "rattled"))["frame_id"].to_pylist()
    own = {name: found[name]["forces_ev_per_a"] for name in rattled if not isinstance(found[name], str)}
    return {
        "name": teacher.name,
        "calculator": teacher.calculator,
        "high": teacher.high,
        "licence": teacher.licence,
        "citation": teacher.citation,
        "made_with": {name: version(name) for name in (teacher.package, "torch", "ase")},
        "forces_beside": {one.labelled_by: _forces_beside(own, one) for one in (first, given)},
    }


def _forces_beside(own: dict[str, list[float]], dataset: Dataset) -> dict:
    """Mean distance of force components from those of a dataset, their size there, and the slope on them."""
    table = dataset.need_frames().select(["frame_id", "forces_ev_per_a"])
    table = table.filter(pc.is_in(table["frame_id"], value_set=pa.array(list(own))))
    theirs = {
        row["frame_id"]: row["forces_ev_per_a"] for row in table.to_pylist() if row["forces_ev_per_a"] is not None
    }
    if not theirs:
        return {"n": 0}
    one, two = (np.concatenate([np.asarray(of[name]) for name in theirs]) for of in (own, theirs))
    return {
        "n": len(one),
        "mean_ev_per_a": round(float(np.abs(one - two).mean()), 4),
        "median_ev_per_a": round(float(np.median(np.abs(one - two))), 4),
        "size_ev_per_a": round(float(np.abs(two).mean()), 4),
        "slope": round(float(one @ two / (two @ two)), 4),
    }
