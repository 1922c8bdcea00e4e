"""The benchmark beside other toolkits, at a size for tests."""

import math

import pytest

from crossfunc.bench import peers
from crossfunc.bench.train import frames_of


def test_toolkits_take_turns_and_absent_ones_are_named(monkeypatch):
    fakes = {"idle": ("json", lambda frames: ((lambda: 0.0), len(frames))), "absent": ("no_such_module", None)}
    monkeypatch.setattr(peers, "PEERS", fakes)
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"of {package}")
    monkeypatch.setattr(peers, "PACKAGES", peers.PACKAGES | {"idle": "idle"})
    report = peers.run({"MgO": 2, "surrogate": 2}, repeats=1, threads=1)
    assert report["not_installed"] == ["absent"]
    assert report["n_parameters"]["idle"] == 2
    assert report["n_parameters"]["crossfunc"] == 412_431
    assert report["versions"]["idle"] == "of idle"
    ratios = [ms["chgnet"] / ms["crossfunc"] for ms in report["ms_per_frame"].values()]
    assert report["ratio"]["chgnet"] == pytest.approx(math.sqrt(math.prod(ratios)))
    said = peers.format_report(report)
    assert "absent: not installed" in said
    assert f"chgnet takes {report['ratio']['chgnet']:.2f} x the time of crossfunc" in said


@pytest.mark.parametrize("name", peers.PEERS)
def test_an_installed_toolkit_trains(name):
    module, make = peers.PEERS[name]
    pytest.importorskip(module)
    step, n_parameters = make(frames_of("MgO", 2))
    losses = [step() for _ in range(5)]
    assert all(map(math.isfinite, losses))
    assert len(set(losses)) > 1
    assert 2e5 < n_parameters < 8e5  # like CHGNet's 412,431
