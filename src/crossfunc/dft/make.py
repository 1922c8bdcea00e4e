"""The dataset `pbe-r2scan` from the plan, in one call: compute what is missing, then write the labels."""

import os
from pathlib import Path

from crossfunc.datasets import DatasetError, list_datasets, open_dataset
from crossfunc.datasets.store import check_target
from crossfunc.dft.engine import check_engine, compute_frame
from crossfunc.dft.labels import NAME, read_records, write_labels
from crossfunc.dft.plan import RECIPE, Frame, plan_run
from crossfunc.dft.run import Engine, Progress, compute_frames, is_record_of, load_failures, load_records

__all__ = ["make_dft"]


def make_dft(
    out: str | os.PathLike,
    *,
    seed: int = 0,
    n_steps: int = len(RECIPE),
    only: tuple[str, ...] = (),
    max_minutes: float | None = None,
    fresh: bool = False,
    n_jobs: int = 1,
    overwrite: bool = False,
    engine: Engine = compute_frame,
    progress: bool = True,
) -> Progress:
    """Compute the frames of the plan that are missing and write all labels as a dataset.

    Parameters
    ----------
    out : str or path
        Folder of the dataset. Records are kept in a folder beside it, with `-run` after the name.
    seed : int
    n_steps : int
        How far to go in the recipe.
    only : tuple of str
        Beginnings of material ids, or "-atom" for the free atoms; empty: everything.
    max_minutes : float, optional
        Begin no frame after this time; the labels that there are get written.
    fresh : bool
        Compute also what the shipped dataset holds.
    n_jobs : int
    overwrite : bool
        Replace a dataset that is there already.
    engine : callable
        From a frame to its record.
    progress : bool

    Returns
    -------
    Progress

    Raises
    ------
    EngineError
        GPAW is missing, before anything is computed.
    DatasetError
        The folder is in the way, `only` names nothing, or no frame could be labelled.
    """
    out = Path(out)
    check_target(out, overwrite)
    plan = plan_run(seed, n_steps)
    frames = _chosen(plan, only)
    versions = check_engine([f.material for f in frames]) if engine is compute_frame else {"stand-in": "1"}
    known, earlier = ([], {}) if fresh else _shipped(plan)
    run = out.with_name(f"{out.name}-run")
    done = compute_frames(
        frames, run, known=known, n_jobs=n_jobs, max_minutes=max_minutes, engine=engine, progress=progress
    )
    # A run of some frames only must not lose the others that are shipped, or that an earlier one has computed.
    recipe = {frame.frame_id: frame for frame in plan_run(seed)} | {frame.frame_id: frame for frame in plan}
    here = [r for r in [*load_failures(run), *load_records(run)] if _is_of(r, recipe)]
    records = {r["frame_id"]: r for r in known} | {r["frame_id"]: r for r in here}
    good, failed = ([r for r in records.values() if ("reason" in r) is is_failure] for is_failure in (False, True))
    if known and earlier != versions:
        versions = versions | {f"{name}, records before this run": version for name, version in earlier.items()}
    write_labels(good, failed, out, engine=versions, seed=seed, overwrite=overwrite)
    return done


def _is_of(record: dict, plan: dict[str, Frame]) -> bool:
    """Whether a record or a failure is of a frame of the plan, computed from the same structure and settings."""
    frame = plan.get(record["frame_id"])
    return frame is not None and is_record_of(record, frame)


def _chosen(frames: list[Frame], only: tuple[str, ...]) -> list[Frame]:
    if not only:
        return frames
    chosen = [
        f
        for f in frames
        if any(f.material.material_id.startswith(o) or (o == "-atom" and f.material.binding == "atom") for o in only)
    ]
    if not chosen:
        raise DatasetError(f"--only {', '.join(only)}: no material of the plan begins so; ids are like MgO-rock-salt.")
    return chosen


def _shipped(plan: list[Frame]) -> tuple[list[dict], dict[str, str]]:
    """Records and failures of the shipped dataset that are of this plan, and the versions that made them."""
    if NAME not in list_datasets():
        return [], {}
    dataset = open_dataset(NAME)
    if dataset.records is None:
        return [], {}
    by_id = {frame.frame_id: frame for frame in plan}
    same = [row for several in read_records(dataset.records) for row in several if _is_of(row, by_id)]
    return same, dataset.meta["generator"]["engine"]
