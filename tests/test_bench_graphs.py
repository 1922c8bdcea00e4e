"""The benchmark of graph building, at a size for tests."""

import pytest

from crossfunc.bench import graphs


def test_the_cells_have_the_sizes_that_their_names_promise():
    assert [len(graphs._structure(n)) for n in graphs.N_ATOMS] == list(graphs.N_ATOMS)
    with pytest.raises(ValueError, match="no cell of 7 atoms; there are 5, 14, 31, 60"):
        graphs._structure(7)


def test_a_small_run_reports_every_figure(capsys):
    report = graphs.run(n_atoms=(5, 60), n_crystals=3, repeats=2)
    assert list(report["n_atoms"]) == ["5", "60"]
    for size in report["n_atoms"].values():
        ms = size["ms_per_structure"]
        assert size["ratio"] == pytest.approx(ms["chgnet"] / ms["ours"])
        assert size["ratio"] > 1
    assert report["n_atoms"]["60"]["n_edges"] == pytest.approx(12 * report["n_atoms"]["5"]["n_edges"], rel=0.1)
    assert report["algorithm_of_chgnet"] == "fast"  # its C converter, not the slow one in Python
    assert capsys.readouterr().out == ""
    assert "per structure, batches of 3, median of 2" in graphs.format_report(report)


def test_rattled_crystals_are_drawn_by_the_seed():
    first, again, other = (graphs.rattled_crystals(graphs.perovskite(), 2, seed).frac_coords for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()
    assert (first[:5] != first[5:]).all()
