"""The memory benchmark, at a size for tests."""

import multiprocessing
import os
import sys
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

import numpy as np
import pytest

from crossfunc.bench import memory
from crossfunc.bench.progress import in_fresh_process
from crossfunc.datasets import open_dataset
from crossfunc.endings import describe_ending
from crossfunc.training.labels import LabelledFrames


def test_a_measuring_process_that_is_killed_ends_the_measurement():
    with pytest.raises(BrokenExecutor) as raised:
        in_fresh_process(os._exit, 1)
    assert "worker process was killed" in describe_ending(raised.value)


def test_made_up_frames_are_a_dataset_that_opens_and_passes_every_check(tmp_path):
    path = memory.write_frames(tmp_path / "made-up", 2_003)
    frames = LabelledFrames.from_dataset(open_dataset(path))
    assert len(frames) == 2_003
    assert set(frames.crystals.n_atoms) == {31}
    assert all(frames.labelled(target).all() for target in ("energy", "forces", "stress", "magmoms"))
    assert len(np.unique(frames.material_ids)) == -(-2_003 // 7)


def test_every_atom_has_neighbours_and_angles(tmp_path):
    from crossfunc.potential.graphs import build_graphs

    frames = LabelledFrames.from_dataset(open_dataset(memory.write_frames(tmp_path / "made-up", 2)))
    ((_, batch),) = build_graphs(frames.crystals)
    assert len(batch.bond_atoms) > 31 * 10
    assert batch.n_angles > 31


def test_a_system_without_proc_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    with pytest.raises(memory.BenchError, match="measured on Linux only"):
        memory.run(n_frames=20)


def rise_gb():
    """How far the peak rises for a block that is gone again before anyone asks."""
    with memory._PeakMemory() as watched:
        before = watched.now_gb()
        block = np.ones(40_000_000)
        time.sleep(0.1)
        del block
    return watched.peak_gb - before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_seen_although_it_has_passed():
    # In a process of its own: this one may have gigabytes of freed memory to reuse, or to give back meanwhile.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(rise_gb).result() > 0.3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_small_run_reports_every_figure(capsys):
    report = memory.run(n_frames=300, n_steps=2, batch_size=4)
    assert report["n_frames"] == 300
    assert 0 < report["imports_gb"] < report["peak_gb"] < report["bar_gb"]
    assert 0 < report["frames_gb"] < 0.01
    assert capsys.readouterr().out == ""  # printing is the command line's
    assert "300 of 31 atoms" in memory.format_report(report)


def test_a_fresh_process_answers_raises_or_is_said_to_have_ended():
    assert in_fresh_process(divmod, 7, 2) == (3, 1)
    assert in_fresh_process(sorted, [2, 1], reverse=True) == [2, 1]
    with pytest.raises(ZeroDivisionError):
        in_fresh_process(divmod, 1, 0)
    with pytest.raises(BrokenExecutor, match="ended with status 3"):
        in_fresh_process(os._exit, 3)
