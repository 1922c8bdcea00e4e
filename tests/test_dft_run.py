"""A run of our own DFT: one file a frame, killed at any time, never the same work twice. The engine is a stand-in."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossfunc.dft.engine import NotConverged
from crossfunc.dft.labels import by_material, read_records, records_table
from crossfunc.dft.plan import plan_frames
from crossfunc.dft.run import FrameError, compute_frames, load_failures, load_records
from crossfunc.endings import describe_ending
from crossfunc.files import FolderInUse, locked_folder

FRAMES = plan_frames(n_steps=1)[:20]


def stand_in(frame):
    """Numbers that depend on the structure alone, in the layout of the engine's."""
    time.sleep(0.02)
    if frame.frame_id.startswith("Pt-"):
        raise NotConverged("did not converge in 250 iterations")
    volume = abs(np.linalg.det(np.reshape(frame.lattice_a, (3, 3))))
    n_atoms = len(frame.atomic_numbers)
    labels = {
        "energy_ev": -volume,
        "free_energy_ev": -volume - 0.01,
        "forces_ev_per_a": [0.25] * (3 * n_atoms),
        "raw_stress_gpa": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0],
        "net_force_ev_per_a": 0.001,
        "iterations": 9,
        "k_points": 4,
        "cpu_s": 0.0,
        "de_dcutoff": -1e-4,
        "cutoff_cpu_s": 0.0,
    }
    return {"frame_id": frame.frame_id, "pbe": labels, "r2scan": dict(labels), "peak_memory_gb": 0.1}


def without_times(records):
    return [{k: v for k, v in record.items() if k != "wall_s"} for record in records]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dft") / "run"
    progress = compute_frames(FRAMES, folder, engine=stand_in, progress=False)
    assert (progress.done, progress.failed, progress.planned, progress.computed) == (19, 1, 20, 20)
    assert progress.complete
    return folder


def test_frames_that_do_not_converge_go_to_the_ledger_with_their_reason(undisturbed):
    (failure,) = load_failures(undisturbed)
    assert failure["frame_id"] == "Pt-fcc-00"
    assert failure["reason"] == "did not converge in 250 iterations"


def without_gpaw(frame):
    raise ModuleNotFoundError("No module named 'gpaw'")


def without_memory(frame):
    raise MemoryError


def full_disk(frame):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the record")


def broken(frame):
    return {"pbe": object()}


@pytest.mark.parametrize(
    ("n_jobs", "ending", "said"),
    [
        (1, without_gpaw, "ModuleNotFoundError: No module named 'gpaw'"),
        (1, without_memory, "not enough memory; give it more"),
        (1, full_disk, "the record: No space left on device; make room"),
        (1, broken, "TypeError: Object of type object is not JSON serializable"),
        (2, without_memory, "not enough memory; give it more"),
    ],
)
def test_what_is_not_the_frames_doing_ends_the_run_and_is_not_in_the_ledger(tmp_path, n_jobs, ending, said):
    """Else one bad worker would mark every frame failed for good, and the run would end with status 0."""
    bad = FRAMES[5].frame_id

    def engine(frame):
        return ending(frame) if frame.frame_id == bad else stand_in(frame)

    with pytest.raises(FrameError, match=f"{bad}: {re.escape(said)}.*the same command goes on") as caught:
        compute_frames(FRAMES[:8], tmp_path, engine=engine, n_jobs=n_jobs, progress=False)
    assert describe_ending(caught.value) == str(caught.value)  # the command prints it, with status 1
    assert load_failures(tmp_path) == []
    kept = [record["frame_id"] for record in load_records(tmp_path)]
    assert len(kept) >= 6 - n_jobs  # five are before it, and another worker may be at one of them
    assert bad not in kept
    again = compute_frames(FRAMES[:8], tmp_path, engine=stand_in, progress=False)
    assert again.complete
    assert again.computed == 8 - len(kept)


def test_a_second_call_computes_nothing(undisturbed):
    assert compute_frames(FRAMES, undisturbed, engine=stand_in, progress=False).computed == 0


def test_a_frame_of_another_plan_is_computed_again(undisturbed, tmp_path):
    record = json.loads((undisturbed / "frames" / "Li-bcc-00.json").read_text())
    record["settings"]["cutoff_ev"] = 300.0
    progress = compute_frames(FRAMES[:1], tmp_path, known=[record], engine=stand_in, progress=False)
    assert progress.computed == 1


def test_what_an_earlier_run_computed_is_taken_over(undisturbed, tmp_path):
    known, failures = read_records(records_table(load_records(undisturbed), load_failures(undisturbed)))
    progress = compute_frames(FRAMES, tmp_path, known=[*known, *failures], engine=stand_in, progress=False)
    assert progress.computed == 0
    assert load_records(tmp_path) == load_records(undisturbed)
    assert load_failures(tmp_path) == load_failures(undisturbed)


def test_records_say_their_material_and_older_ones_have_the_plans(undisturbed):
    (record, *_) = [r for r in load_records(undisturbed) if r["frame_id"] == "Li-bcc-00"]
    assert record["material_id"] == "Li-bcc"
    older = {key: value for key, value in record.items() if key != "material_id"}
    renamed = record | {"frame_id": "x-y-z", "material_id": "Li-bcc"}
    assert list(by_material([older, renamed])) == ["Li-bcc"]
    assert list(by_material([older | {"frame_id": "Xx-bcc-00"}])) == ["Xx-bcc-00"]  # of no plan
    again, _ = read_records(records_table([older], []))
    assert again[0]["material_id"] == "Li-bcc"


def test_the_time_limit_ends_a_run_between_frames(tmp_path):
    progress = compute_frames(FRAMES, tmp_path, max_minutes=0.1 / 60, engine=stand_in, progress=False)
    assert 0 < progress.computed < 20
    assert not progress.complete


def test_no_minute_is_no_frame(tmp_path):
    assert compute_frames(FRAMES, tmp_path, max_minutes=0, engine=stand_in, progress=False).computed == 0


def test_two_runs_on_one_folder_refuse_each_other(tmp_path):
    with locked_folder(tmp_path), pytest.raises(FolderInUse, match="another process"):
        compute_frames(FRAMES, tmp_path, engine=stand_in, progress=False)


def test_two_workers_give_the_rows_of_one(undisturbed, tmp_path):
    compute_frames(FRAMES, tmp_path, n_jobs=2, engine=stand_in, progress=False)
    assert without_times(load_records(tmp_path)) == without_times(load_records(undisturbed))


def test_ten_kills_lose_nothing(undisturbed, tmp_path):
    """SIGKILL while frames are written, after one to three new ones; the end is the undisturbed run's."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from test_dft_run import FRAMES, stand_in;"
        "from crossfunc.dft.run import compute_frames;"
        "compute_frames(FRAMES, sys.argv[1], engine=stand_in, progress=False)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    rng, there = random.Random(0), []
    for _ in range(10):
        wanted = len(load_records(tmp_path)) + rng.choice([1, 1, 2])
        process = subprocess.Popen(command)
        while process.poll() is None and len(list(tmp_path.glob("frames/*.json"))) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL or len(load_records(tmp_path)) == 19
        there.append(len(load_records(tmp_path)))  # reads every file: each is whole
    assert there == sorted(there)
    assert len(set(there)) >= 5
    assert compute_frames(FRAMES, tmp_path, engine=stand_in, progress=False).complete
    assert without_times(load_records(tmp_path)) == without_times(load_records(undisturbed))
