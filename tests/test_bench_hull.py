"""The benchmark of hulls, at a size for tests."""

import numpy as np
import pytest

from crossfunc.bench import hull


def test_entries_hold_every_element_and_up_to_six_in_a_formula():
    entries = hull.synthetic_entries(3_000)
    assert len(entries) == 3_000
    sizes = np.diff(entries.X.indptr)
    assert (sizes[:89] == 1).all()
    assert len(np.unique(entries.X.indices)) == 89
    assert set(sizes) == {1, 2, 3, 4, 5, 6}
    counts = np.bincount(entries.X.indices)
    assert counts.max() > 5 * np.median(counts[counts > 0])  # some elements are far more frequent


def test_the_seed_decides_all():
    entries = hull.synthetic_entries(300, seed=3).to_pandas()
    assert entries.equals(hull.synthetic_entries(300, seed=3).to_pandas())
    assert not entries.equals(hull.synthetic_entries(300, seed=4).to_pandas())


@pytest.fixture(scope="module")
def report():
    return hull.run(n_entries=1_500, n_targets=120, n_compared=20, n_per_row=3, n_jobs=1)


def test_a_small_run_reports_every_figure(report):
    assert report["n_entries"] == 1_500
    assert report["n_elements"] == 89
    assert report["n_targets"] == 120
    assert report["n_compared"] == 20
    assert report["seconds"] > 0
    assert report["largest_difference_ev_per_atom"] < 1e-9
    assert report["speedup"] == pytest.approx(report["pymatgen_seconds_per_target"] / report["seconds_per_target"])
    assert report["peak_rss_gb"] is None or 0 < report["peak_rss_gb"] < 4
    assert [row["n_elements"] for row in report["growth_with_elements"]] == [1, 2, 3, 4, 5, 6]
    assert [row["n_entries"] for row in report["growth_with_entries"]] == [200, 300, 750, 1_500]


def test_the_report_prints_both_tables(report):
    printed = hull.format_report(report)
    assert "1,500 of 89 elements" in printed
    assert "ratio" in printed
    assert len(printed.splitlines()) == 8 + 6 + 8


def test_a_result_that_differs_from_pymatgens_stops_the_benchmark(monkeypatch):
    entries = hull.synthetic_entries(300)
    beside = hull._Beside(entries)
    real = hull.hull_report
    column = "decomposition_energy_ev_per_atom"
    monkeypatch.setattr(hull, "hull_report", lambda *a: real(*a).assign(**{column: lambda t: t[column] + 1e-5}))
    with pytest.raises(AssertionError, match="against pymatgen's"):
        beside.measure(entries.take([100]))
