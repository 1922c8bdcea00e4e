"""The benchmark of methods, at a size for tests."""

import pytest

from crossfunc.bench import methods as benchmark


def test_a_small_run_reports_every_method_beside_the_plain_step():
    report = benchmark.run(2, 1, 1, methods=["lora", "replay"], threads=1)
    assert list(report["ms_per_step"]) == ["model-aware-trained", "lora", "replay"]
    assert report["ratio"]["model-aware-trained"] == 1
    for key, ms in report["ms_per_step"].items():
        assert report["ratio"][key] == pytest.approx(ms / report["ms_per_step"]["model-aware-trained"])
        assert report["seconds_to_first_step"][key] > 0
    assert report["n_trained"]["lora"] < report["n_trained"]["replay"] == report["n_trained"]["model-aware-trained"]
    assert report["n_source_frames"] == {"model-aware-trained": 0, "lora": 0, "replay": 0.4}
    report["ratio"] |= {"lora": 1.0, "replay": 1.5}
    printed = benchmark.format_report(report)
    assert "replay: more than 1.3 x a plain step; 0.4 source frames join a step" in printed
    assert "replay: a source frame joins one step in several, which a median does not show" in printed
    assert "lora: more" not in printed
    assert "2 frames per step, 1 threads" in printed
