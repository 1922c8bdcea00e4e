"""Words at a figure that are read off its run."""

from types import SimpleNamespace

import pytest

from crossfunc.lessons import read_off as module
from crossfunc.lessons.read_off import read_off


def result(key, title, value):
    return {"key": key, "title": title, "value": value}


ROWS = [
    result("energy_mae_method_3", "Energy error: Method 3", 90.0),
    result("energy_mae_aware", "Energy error: model-aware, then trained", 40.0),
    result("energy_mae_start", "Energy error: start", 80.0),
    result("energy_mae_method_4", "Energy error: Method 4", 70.0),
    result("force_mae_start", "Force error: start", 50.0),
    result("force_mae_same", "Force error: the same network", 50.0 - 1e-12),
]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("energy_mae_start", "“model-aware, then trained” and “Method 4”"),
        ("energy_mae_aware", "none"),
        ("force_mae_start", "none"),  # the same network's error, and no row of energies
        ("force_mae_other", "this run did not record it"),
    ],
)
def test_rows_below_another_are_named(monkeypatch, asked, said):
    monkeypatch.setattr(module, "load_if_recorded", lambda path, stem: {"results": ROWS} if stem == "04_x" else None)
    plans = [SimpleNamespace(lesson=SimpleNamespace(number=n, stem=f"{n}_x"), results=None) for n in ("04", "07")]
    words = {"answer": f"Below: {{rows below {asked}}}.", "skip": True}
    found = read_off({"fig-04-errors": words, "fig-07-curves": words}, plans)
    assert found["fig-04-errors"] == {"answer": f"Below: {said}.", "skip": True}
    assert found["fig-07-curves"]["answer"] == "Below: this run did not record it."
