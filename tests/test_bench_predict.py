"""The benchmark of predictions, at a size for tests."""

import json

import numpy as np
import pytest
import torch

from crossfunc.bench import predict as benchmark


def test_cells_have_the_atoms_they_are_named_for():
    for n_atoms in (*benchmark.SMALL, *benchmark.LARGE):
        assert len(benchmark.rock_salt(n_atoms)) == n_atoms
    one, other = (benchmark.rock_salt(8, seed).positions for seed in (0, 1))
    assert 0 < np.abs(one - other).max() < 0.2


def test_a_small_run_reports_every_figure(capsys):
    before = torch.get_num_threads()
    report = benchmark.run((2, 8), (), seconds=0.0, n_steps=1)
    assert torch.get_num_threads() == before
    row = report["one_crystal"]["8 atoms"]
    for threads in ("1_thread", "2_threads"):
        assert row[f"ratio_{threads}"] == pytest.approx(row[f"chgnet_ms_{threads}"] / row[f"ms_{threads}"])
    assert row["one_thread_over_most"] == pytest.approx(row["ms_1_thread"] / row["ms_2_threads"])
    assert 0 < row["neighbours_ms"] < row["ms_1_thread"]
    dynamics = report["molecular_dynamics"]["8 atoms"]
    assert dynamics["ratio"] == pytest.approx(dynamics["ns_per_day"] / dynamics["chgnet_ns_per_day"])
    assert report["large_cells"] == {}
    assert report["time_over_linear"] is None
    assert json.loads(json.dumps(report)) == report
    assert capsys.readouterr().out == ""
    assert "8 atoms" in benchmark.format_report(report)


def test_a_cell_in_its_own_process_tells_its_memory():
    row = benchmark._alone(64, 1, with_chgnet=False)
    assert row["seconds"] > 0
    assert 0.1 < row["peak_gb"] < 2
