"""The benchmark of the training step, at a size for tests."""

import re

import numpy as np
import pytest
import torch

from crossfunc.bench import train
from crossfunc.bench.progress import tell


def test_both_steps_minimise_the_same_loss_on_the_same_frames():
    frames = train.frames_of("SrTiO3", 2)
    ours, chgnets = train.Step(frames), train.chgnet_step(frames)
    for _ in range(2):  # the second step starts from what the first one made
        assert ours() == pytest.approx(chgnets(), rel=1e-4)


def test_the_surrogate_batch_is_of_labelled_frames_and_drawn_by_the_seed():
    first, again, other = (train.frames_of("surrogate", 4, seed) for seed in (1, 1, 2))
    assert (first.frame_ids == again.frame_ids).all()
    assert (first.frame_ids != other.frame_ids).any()
    assert np.isfinite(first.forces_ev_per_a).all()
    with pytest.raises(ValueError, match="no batch 'NaCl'; there are MgO, SrTiO3, MgAl2O4, surrogate"):
        train.frames_of("NaCl", 1)


def test_products_in_place_and_in_backward_passes_are_counted():
    a, b, c = torch.rand(3, 5, requires_grad=True), torch.rand(5, 7, requires_grad=True), torch.rand(3, 7)
    assert train.count_flop(lambda: torch.mm(a, b).sum().backward()) == 3 * 2 * 3 * 5 * 7
    assert train.count_flop(lambda: c.addmm_(a.detach(), b.detach())) == 2 * 3 * 5 * 7


def test_a_small_run_reports_every_figure_and_tells_the_first_as_they_come(capfd):
    report = train.run({"MgO": 2, "surrogate": 2}, repeats=1, threads=1)
    told = capfd.readouterr()
    assert told.out == ""  # it is the report's alone
    assert re.search(r"surrogate, 2 frames, round 1 of 1: chgnet [\d.]+ ms, ours [\d.]+ ms", told.err)
    for measured in (report, report["without_page_faults"] or report):
        ratios = [by["chgnet"] / by["ours"] for by in measured["ms_per_frame"].values()]
        assert measured["speedup"] == pytest.approx(np.prod(ratios) ** (1 / 2))
        assert measured["speedup_compiled"] is None
        assert set(measured["share"]) == {"MgO", "surrogate"}
    flop, rate, ms = (report[key]["MgO"] for key in ("mflop_per_frame", "gflop_per_s", "ms_per_frame"))
    assert 0 < flop["ours"] < flop["chgnet"] / 2
    assert rate["ours"] == pytest.approx(flop["ours"] / ms["ours"])
    assert report["share"]["MgO"]["ours"] == pytest.approx(rate["ours"] / report["matmul_gflop_per_s"]["thin"])
    assert report["threads"] == 1
    assert report["device"] == "cpu"
    assert report["peak_memory_gb"] is None  # the GPU's, where there is one
    assert report["atoms_per_frame"]["MgO"] == 2
    printed = train.format_report(report)
    assert "default allocator" in printed
    assert "matrix products alone" in printed


def test_a_ratio_of_times_is_the_geometric_mean_over_batches():
    ms = {"MgO": {"chgnet": 10.0, "ours": 5.0}, "surrogate": {"chgnet": 8.0, "ours": 1.0}}
    assert train.mean_ratio(ms, "chgnet", "ours") == pytest.approx(4)  # of 2 and 8
    assert train.mean_ratio(ms, "ours", "chgnet") == pytest.approx(1 / 4)


def test_a_closed_terminal_ends_no_measurement(monkeypatch):
    class Gone:
        def write(self, _text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    tell("round 1 of 7")
