"""The benchmark of imports, at a size for tests."""

import json

import pytest

from crossfunc.bench import imports


def test_the_made_up_file_has_the_layout_and_the_size_of_the_papers(tmp_path):
    n_bytes = imports.write_synthetic_json(tmp_path / "a.json", 500)
    content = json.loads((tmp_path / "a.json").read_text())
    frames = [frame for material in content.values() for frame in material.values()]
    assert len(frames) == 500
    assert len({key for material in content.values() for key in material}) == 500
    sizes = [len(frame["structure"]["sites"]) for frame in frames]
    assert sum(sizes) / 500 == pytest.approx(31, rel=0.1)
    assert n_bytes / 500 == pytest.approx(9_000, rel=0.15)
    assert frames[9]["energy_per_atom"] == pytest.approx(frames[9]["uncorrected_total_energy"] / sizes[9])


def test_a_small_run_reports_every_figure_and_removes_its_files(tmp_path, capsys):
    report = imports.run(400, 100, folder=tmp_path, repeats=1)
    assert list(tmp_path.iterdir()) == []
    assert report["n_frames"] == 400
    assert report["speedup"] == pytest.approx(report["slice_baseline_seconds"] / report["slice_seconds"])
    assert report["mb_per_s"] == pytest.approx(report["n_bytes"] / 1e6 / report["seconds"])
    assert report["peak_rss_gb"] is None or 0 < report["peak_rss_gb"] < 1
    assert report["check_seconds"] > 0
    assert capsys.readouterr().out == ""  # printing is the command line's
    printed = imports.format_report(report)
    assert "json.load + from_dict" in printed
    assert "peak memory" in printed
