"""The benchmark of element references, at a size for tests."""

import numpy as np
import pytest

from crossfunc.bench import atomref
from crossfunc.energies.composition import composition_matrix, elements_present


def test_frames_have_the_papers_size_and_89_elements():
    table = atomref.synthetic_frames(20_000)
    lengths = table.column("atomic_numbers").combine_chunks().value_lengths().to_numpy()
    assert lengths.mean() == pytest.approx(31, rel=0.05)
    X = composition_matrix(table)
    assert len(elements_present(X)) == 89
    assert table.num_rows == 20_000


def test_frames_of_a_material_share_its_atoms_and_the_seed_decides_all():
    table = atomref.synthetic_frames(50, seed=3)
    rows = table.column("atomic_numbers").to_pylist()
    assert rows[0] == rows[6]
    assert rows[0] != rows[7]
    assert table.column("material_id").to_pylist()[6:8] == ["m0", "m1"]
    assert table.equals(atomref.synthetic_frames(50, seed=3))
    assert not table.equals(atomref.synthetic_frames(50, seed=4))


def test_a_small_run_reports_every_figure(capsys):
    report = atomref.run(n_frames=7_000, slice_frames=2_000, repeats=2)
    assert report["n_frames"] == 7_000
    assert report["chgnet_slice_frames"] == 2_000
    assert report["rank"] == report["n_elements"] == 89
    assert report["seconds"] > 0
    assert report["speedup"] == pytest.approx(report["chgnet_seconds_per_frame"] / report["seconds_per_frame"])
    assert report["peak_rss_gb"] is None or 0 < report["peak_rss_growth_gb"] < report["peak_rss_gb"] < 1
    assert np.isnan(report["largest_difference_ev"]) or report["largest_difference_ev"] < 1e-8
    assert capsys.readouterr().out == ""  # printing is the command line's
    printed = atomref.format_report(report)
    assert "2,000 frames as ready tensors" in printed
    assert "ratio per frame" in printed


def test_a_slice_larger_than_the_whole_is_the_whole():
    report = atomref.run(n_frames=500, slice_frames=5_000, repeats=1)
    assert report["chgnet_slice_frames"] == 500
