"""The benchmark of several processes, at a size for tests."""

import pytest

from crossfunc.bench import devices as benchmark


def test_two_processes_are_timed_beside_one():
    report = benchmark.run(2, n_frames=4, n_steps=2, rounds=1)
    assert list(report["ms_per_step"]) == ["1 process", "2 processes"]
    one, two = report["ms_per_step"].values()
    assert report["alone_over_together"] == pytest.approx(one / two)
    printed = benchmark.format_report(report)
    assert f"alone over together: {one / two:.2f}" in printed
    assert "2 processes" in printed


def test_a_run_that_fails_says_why():
    with pytest.raises(benchmark.DevicesError, match="batch_size"):
        benchmark._run_script(1, 1, 0, 1)
