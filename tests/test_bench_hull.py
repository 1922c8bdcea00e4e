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
    sizes = [row["median_entries_in_system"] for row in report["growth_with_entries"]]
    assert sizes == sorted(sizes)  # the same targets among more and more entries
    assert [row["n_entries"] for row in report["growth_with_entries"]] == [200, 375, 750, 1_500]


def test_the_report_prints_both_tables(report):
    printed = hull.format_report(report)
    assert "1,500 of 89 elements" in printed
    assert "ratio" in printed
    assert len(printed.splitlines()) == 9 + 6 + 8


def test_a_result_that_differs_from_pymatgens_stops_the_benchmark(monkeypatch):
    entries = hull.synthetic_entries(300)
    beside = hull._Beside(entries)
    real = hull.hull_report
    column = "decomposition_energy_ev_per_atom"
    monkeypatch.setattr(hull, "hull_report", lambda *a: real(*a).assign(**{column: lambda t: t[column] + 1e-5}))
    with pytest.raises(AssertionError, match="against pymatgen's"):
        beside.measure(entries.take([100]))


def test_a_mixture_of_pymatgens_that_costs_more_than_the_cheapest_is_counted_if_highs_agrees(monkeypatch):
    entries = hull.synthetic_entries(300)
    rows = [100, 200]
    report = hull.hull_report(entries.take(rows), entries)
    energies = [hull._cheapest_by_highs(entries, row) for row in rows]
    assert energies == pytest.approx(report["decomposition_energy_ev_per_atom"].tolist(), abs=1e-9)
    beside = hull._Beside(entries)
    real = beside._pymatgen

    def early(name, part):
        seconds, expected, size = real(name, part)
        return seconds, expected - [0.0, 5e-6], size

    monkeypatch.setattr(beside, "_pymatgen", early)
    measured = beside.measure(entries.take(rows))
    assert measured["n_pymatgen_stopped_early"] == 2
    assert measured["largest_excess_of_pymatgen_ev_per_atom"] == pytest.approx(5e-6, rel=1e-3)
    monkeypatch.setattr(beside, "_pymatgen", lambda *a: (0.0, real(*a)[1] + [0.0, 5e-6], 1))  # below the optimum
    with pytest.raises(AssertionError, match="and HiGHS'"):
        beside.measure(entries.take(rows))
