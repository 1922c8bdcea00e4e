"""Compute the frames of the plan, one file each; a run ended at any point goes on where it was."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from crossfunc.dft.engine import EngineError, NotConverged, check_engine, compute_frame, refuse_uncomputable
from crossfunc.dft.plan import Frame
from crossfunc.endings import describe_ending
from crossfunc.files import locked_folder, write_atomically

__all__ = ["FrameError", "Progress", "compute_frames", "labelled", "load_failures", "load_records"]

FRAMES, FAILED = "frames", "failed"
Engine = Callable[[Frame], dict]


class FrameError(EngineError):
    """A frame ended a run, for a reason that is not the frame's; names it, the reason and how to go on."""


@dataclass(frozen=True)
class Progress:
    """What a call of `compute_frames` leaves behind.

    Attributes
    ----------
    done, failed, planned : int
        Frames with labels, frames in the ledger, frames asked for.
    computed : int
        Frames that this call computed.
    """

    done: int
    failed: int
    planned: int
    computed: int

    @property
    def complete(self) -> bool:
        """Whether every frame asked for has labels or a reason."""
        return self.done + self.failed == self.planned


def compute_frames(
    frames: list[Frame],
    folder: str | os.PathLike,
    *,
    known: Iterable[dict] = (),
    n_jobs: int = 1,
    max_minutes: float | None = None,
    engine: Engine = compute_frame,
    progress: bool = True,
) -> Progress:
    """Compute what is not there yet.

    Parameters
    ----------
    frames : list of Frame
        In the order in which they are to be computed.
    folder : str or path
        Gets `frames/ID.json`, and `failed/ID.json` with the reason of frames that did not converge. Workers of a
        cluster need to see it under the same path.
    known : iterable of dict
        Records and failures of earlier runs: what they hold of the same structures and settings is not computed again.
    n_jobs : int
        Frames at the same time, each on one core.
    max_minutes : float, optional
        Begin no frame after this time.
    engine : callable
        From a frame to its record.
    progress : bool
        Show a bar.

    Returns
    -------
    Progress

    Raises
    ------
    EngineError
        GPAW is missing or lacks something, or a frame cannot be labelled, before anything is computed.
    FrameError
        A frame could not be computed or written for another reason than that it does not converge: a worker without
        GPAW, too little memory, a full disk. It is not in the ledger, and frames that were finished stay.
    FolderInUse
        Another run writes this folder.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    refuse_uncomputable(frames)
    if engine is compute_frame:
        check_engine([frame.material for frame in frames])
    folder = Path(folder).absolute()  # workers of a cluster are in a folder of their own
    with locked_folder(folder):
        for name in (FRAMES, FAILED):
            (folder / name).mkdir(exist_ok=True)
        _keep_known(frames, folder, known)
        todo = [frame for frame in frames if not _is_done(frame, folder)]
        until = time.monotonic() + 60 * max_minutes if max_minutes is not None else float("inf")
        jobs = Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1)(
            delayed(_compute_one)(frame, folder, engine) for frame in _until(todo, until)
        )
        bar = tqdm(jobs, total=len(todo), desc="DFT", unit="frame", disable=not progress, smoothing=0.05)
        computed = sum(bool(written) for written in bar)
        done = sum((folder / FRAMES / f"{f.frame_id}.json").exists() for f in frames)
        failed = sum((folder / FAILED / f"{f.frame_id}.json").exists() for f in frames)
    return Progress(done=done, failed=failed, planned=len(frames), computed=computed)


def _keep_known(frames: list[Frame], folder: Path, known: Iterable[dict]) -> None:
    """Put the records of earlier runs into the folder, those that are of the frames asked for."""
    earlier = {record["frame_id"]: record for record in known}
    for frame in frames:
        record = earlier.get(frame.frame_id)
        if record and is_record_of(record, frame) and not _is_done(frame, folder):
            where = FAILED if record.get("reason") else FRAMES
            write_atomically(folder / where / f"{frame.frame_id}.json", json.dumps(record))


def _until(frames: Iterable[Frame], when: float):
    for frame in frames:
        if time.monotonic() > when:
            return
        yield frame


def _compute_one(frame: Frame, folder: Path, engine: Engine) -> bool:
    """Write a frame whole, or the reason why it has no labels; anything else names the frame and ends the run."""
    try:
        if _is_done(frame, folder):  # by a worker of a run that was killed a moment ago
            return False
        start = time.monotonic()
        try:
            record, where = engine(frame), FRAMES
            record["wall_s"] = round(time.monotonic() - start, 2)
        except NotConverged as error:
            record, where = {"reason": " ".join(str(error).split())}, FAILED
        text = json.dumps(labelled(record, frame))
        write_atomically(folder / where / f"{frame.frame_id}.json", text)
    except Exception as error:
        said = describe_ending(error) or f"{type(error).__name__}: {' '.join(str(error).split())}."
        raise FrameError(
            f"{frame.frame_id}: {said} This is not the frame's doing, so it is not in the ledger; finished frames are "
            "kept, and the same command goes on once the cause is removed."
        ) from error
    return True


def labelled(record: dict, frame: Frame) -> dict:
    """Return what an engine found of a frame with the frame's names, kind and settings: a record of a run."""
    return {**record, **_names(frame), **_inputs(frame)}


def _names(frame: Frame) -> dict[str, str]:
    return {"frame_id": frame.frame_id, "material_id": frame.material.material_id}


def _inputs(frame: Frame) -> dict:
    """What the labels depend on, as it is compared when a run goes on."""
    settings = frame.settings
    return {
        "atomic_numbers": list(frame.atomic_numbers),
        "frac_coords": list(frame.frac_coords),
        "lattice_a": list(frame.lattice_a),
        "kind": frame.step.kind,
        "settings": {
            "cutoff_ev": settings.cutoff_ev,
            "k_mesh": list(settings.k_mesh),
            "grid": list(settings.grid),
            "width_ev": settings.width_ev,
            "moment_mub": settings.moment_mub,
        },
    }


def _is_done(frame: Frame, folder: Path) -> bool:
    """Whether the folder holds this frame, computed from the same structure with the same settings."""
    for name in (FRAMES, FAILED):
        file = folder / name / f"{frame.frame_id}.json"
        if file.exists():
            if is_record_of(json.loads(file.read_text(encoding="utf-8")), frame):
                return True
            file.unlink()  # of another plan: not what is asked for
    return False


def is_record_of(record: dict, frame: Frame) -> bool:
    """Whether a record is of this frame: of its atoms, cell and settings, and not only of its name."""
    return all(record.get(key) == value for key, value in _inputs(frame).items())


def load_records(folder: str | os.PathLike) -> list[dict]:
    """Return the records of a run's frames, sorted by id."""
    return _load(Path(folder) / FRAMES)


def load_failures(folder: str | os.PathLike) -> list[dict]:
    """Return the ledger of a run: frame id and reason of what has no labels."""
    return _load(Path(folder) / FAILED)


def _load(folder: Path) -> list[dict]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
