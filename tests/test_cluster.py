"""The same results on a Dask cluster, also when half of it is killed on the way."""

import json
import os
import signal
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.cluster import ClusterError, use_cluster
from crossfunc.stability import EntryTable, hull, hull_report
from crossfunc.training import LabelledFrames

distributed = pytest.importorskip("distributed", reason="Dask: pip install 'crossfunc[cluster]'")


class Killer(distributed.diagnostics.plugin.SchedulerPlugin):
    """Kills the process of the worker that has finished the n-th task."""

    name = "killer"

    def __init__(self, after, scheduler):
        self.after, self.scheduler, self.killed, self.finished = after, scheduler, None, 0

    def transition(self, key, start, finish, *args, worker=None, **kwargs):
        if (start, finish) == ("processing", "memory"):
            self.finished += 1
            if self.finished == self.after:
                self.killed = self.scheduler.workers[worker].pid  # a nanny may not know it yet
                os.kill(self.killed, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes on this machine."""
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        yield cluster


@pytest.fixture
def kill_one_worker(cluster):
    """Have the worker that finishes the third task killed; says afterwards whether it was."""
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)  # one may still be on its way back
    killer = Killer(3, cluster.scheduler)
    cluster.scheduler.add_plugin(killer)
    yield killer
    cluster.scheduler.remove_plugin("killer")


# --- hulls ---


@pytest.fixture(scope="module")
def entries():
    """Some hundred phases of five elements with made-up energies, the elements among them."""
    rng = np.random.default_rng(0)
    symbols = ["Li", "Mg", "Fe", "Co", "O"]
    formulas = list(symbols)
    for _ in range(400):
        some = rng.choice(symbols, size=rng.integers(2, 5), replace=False)
        formulas.append("".join(f"{s}{rng.integers(1, 5)}" for s in some))
    energies = np.where(np.arange(len(formulas)) < 5, 0.0, -rng.uniform(0, 2, len(formulas)))
    ids = [f"m{k}" for k in range(len(formulas))]
    return EntryTable.from_columns(ids, formulas, energies, functional="r2scan", energy_kind="raw", source="made up")


def test_hulls_of_a_cluster_whose_worker_is_killed_half_way_are_those_without_a_cluster(
    cluster, kill_one_worker, entries, monkeypatch
):
    monkeypatch.setattr(hull, "_TARGETS_PER_PIECE", 4)
    monkeypatch.setattr(hull, "_PIECES_PER_TASK", 3)
    alone = hull_report(None, entries)
    with use_cluster(cluster.scheduler_address):
        together = hull_report(None, entries)
    assert kill_one_worker.killed is not None
    assert kill_one_worker.finished > 10  # it died half-way, not at the end
    pd.testing.assert_frame_equal(together, alone, check_exact=True)


# --- predictions ---


@pytest.fixture(scope="module")
def frames():
    """Small frames with forces and stresses, and a few with energies only."""
    every = LabelledFrames.from_dataset("surrogate", "r2scan")
    small = every.crystals.n_atoms <= 4
    with_forces = np.flatnonzero(small & every.labelled("forces"))[:36]
    without = np.flatnonzero(small & ~every.labelled("forces"))[:12]
    return every.take(np.concatenate([with_forces, without]))


def test_predictions_of_a_cluster_whose_worker_is_killed_half_way_are_those_without_a_cluster(
    cluster, kill_one_worker, frames, monkeypatch
):
    from crossfunc.potential import load_model

    evaluation = sys.modules["crossfunc.training.evaluate"]  # the function of that name hides it
    monkeypatch.setattr(evaluation, "_CHUNK", 6)
    model = load_model("r2scan").double()  # in float32 batches of another size differ in the last digit
    alone = evaluation.predict_frames(model, frames)
    with use_cluster(cluster.scheduler_address):
        together = evaluation.predict_frames(model, frames)
    assert kill_one_worker.killed is not None
    assert kill_one_worker.finished >= 8
    for name in ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub"):
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name), rtol=0, atol=1e-9)
    assert together.metrics() == pytest.approx(alone.metrics(), rel=1e-9)


# --- the embedded dataset ---


def test_crystals_made_on_a_cluster_whose_worker_is_killed_half_way_are_the_same(cluster, kill_one_worker, tmp_path):
    from crossfunc.surrogate import generate
    from crossfunc.surrogate.plan import plan_materials

    chunks = [[m] for m in plan_materials(seed=0) if len(m.elements) == 1][:8]  # elements relax in a few steps
    made = {}
    for name, address in (("alone", None), ("together", cluster.scheduler_address)):
        (tmp_path / name).mkdir()
        with use_cluster(address):
            made[name] = generate._run_chunks(chunks, tmp_path / name, 0, n_jobs=1, progress=False)
    assert kill_one_worker.killed is not None
    assert kill_one_worker.finished >= 8
    assert json.loads(json.dumps(made["together"])) == json.loads(json.dumps(made["alone"]))


# --- our own DFT ---


def small_labels(frame):
    """Labels of a stand-in, in the layout of the engine's."""
    in_box, n_atoms = frame.material.binding in ("molecule", "atom"), len(frame.atomic_numbers)
    labels = {
        "energy_ev": -1.0, "free_energy_ev": -1.0, "forces_ev_per_a": [0.0] * (3 * n_atoms),
        "raw_stress_gpa": None if in_box else [0.0] * 9, "net_force_ev_per_a": 0.0, "iterations": 9, "k_points": 4,
        "cpu_s": 0.1, "de_dcutoff": -1e-4,
    }  # fmt: skip
    return {"pbe": labels, "r2scan": dict(labels), "peak_memory_gb": 0.1, "where": os.getcwd()}  # noqa: PTH109


def test_frames_of_a_relative_folder_are_written_there_by_workers_that_are_elsewhere(tmp_path, monkeypatch):
    from crossfunc.dft.make import make_dft
    from crossfunc.dft.run import load_records

    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(here)
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(n_workers=2, **options) as apart:
        with distributed.Client(apart, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=30)
            client.run(os.chdir, str(elsewhere))
        with use_cluster(apart.scheduler_address):
            done = make_dft("out", only=("MgO-",), n_steps=3, fresh=True, engine=small_labels, progress=False)
    assert (done.done, done.computed) == (3, 3)
    records = load_records(here / "out-run")
    assert {record["where"] for record in records} == {str(elsewhere)}
    assert not list(elsewhere.rglob("*.json"))


def test_records_of_another_seed_are_not_taken_into_the_dataset(tmp_path):
    """A run folder may hold structures of an earlier seed, or of settings that have changed."""
    from crossfunc.datasets import open_dataset
    from crossfunc.dft.labels import read_records
    from crossfunc.dft.make import make_dft
    from crossfunc.dft.plan import plan_run
    from crossfunc.dft.run import is_record_of, load_records

    options = {"only": ("MgO-",), "fresh": True, "engine": small_labels, "progress": False, "overwrite": True}
    make_dft(tmp_path / "out", seed=0, n_steps=8, **options)
    make_dft(tmp_path / "out", seed=1, n_steps=2, **options)
    plan = {frame.frame_id: frame for frame in plan_run(1)}
    rows = [row for several in read_records(open_dataset(tmp_path / "out").records) for row in several]
    assert rows
    assert all(is_record_of(row, plan[row["frame_id"]]) for row in rows)
    other = {frame.frame_id: frame for frame in plan_run(0)}  # a frame of the first seed alone is among those left out
    left = [r for r in load_records(tmp_path / "out-run") if not is_record_of(r, plan[r["frame_id"]])]
    assert left
    assert all(is_record_of(row, other[row["frame_id"]]) for row in left)


# --- the option ---


@pytest.mark.parametrize("command", [["hull"], ["evaluate"], ["data", "make-surrogate"]])
def test_the_commands_that_parallelise_take_the_option(command):
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert "--cluster" in shown.output


def test_a_local_cluster_of_the_command_line_prints_the_same_hull(tmp_path):
    table = tmp_path / "phases.csv"
    table.write_text("id,composition,energy_per_atom_ev\na,Li,0\nb,O,0\nc,Li2O,-2\nd,Li2O2,-1.5\n")
    command = ["hull", str(table), "--functional", "r2scan", "--energy-kind", "raw", "--json"]
    alone, together = (CliRunner().invoke(app, [*command, *more]) for more in ([], ["--cluster", "local"]))
    assert together.exit_code == alone.exit_code == 0, together.output
    assert json.loads(together.stdout) == json.loads(alone.stdout)


def test_no_cluster_leaves_joblib_as_it_is():
    from joblib import parallel_config
    from joblib.parallel import get_active_backend

    with parallel_config(backend="threading"), use_cluster(None) as client:
        assert client is None
        assert type(get_active_backend()[0]).__name__ == "ThreadingBackend"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere.json", "neither an address"),
        ("broken.json", "no scheduler file of Dask"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers"),
    ],
)
def test_a_cluster_that_is_not_there_is_an_error_that_says_what_to_give(tmp_path, monkeypatch, address, said):
    monkeypatch.setattr("crossfunc.cluster._SECONDS_TO_CONNECT", 1)
    (tmp_path / "broken.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClusterError, match=said), use_cluster(address):
        pass


def test_the_file_that_a_scheduler_writes_is_an_address(cluster, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address, "type": "Scheduler"}))
    with use_cluster(str(file)) as client:
        assert len(client.ncores()) == 2
