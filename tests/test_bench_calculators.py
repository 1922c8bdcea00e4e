"""The benchmarks of calculators and the verdicts for the book, at a size for tests."""

import json

import pytest

import crossfunc as xf
from crossfunc.bench import calculators as benchmark
from crossfunc.bench import verdicts
from crossfunc.bench.verdicts import MODELS, Published

TOY = Published("", "calculators:Toy", {"shift": 0.2}, "ase")
ABSENT = Published("", "no_such_package:Calc", {}, "no_such_package")


@pytest.fixture
def dataset(tmp_path):
    """Forty frames of the embedded dataset, small ones."""
    surrogate = xf.open_dataset("surrogate", verify=False)
    table = surrogate.frames
    rows = [k for k, numbers in enumerate(table["atomic_numbers"].to_pylist()) if len(numbers) <= 4][:400:10]
    meta = {k: v for k, v in surrogate.meta.items() if k not in ("files", "generator")}

    def write(n):
        xf.write_dataset(tmp_path / "few", meta=meta | {"name": "few"}, frames=table.take(rows[:n]), overwrite=True)
        return tmp_path / "few"

    return write


def test_verdicts_are_written_once_for_the_same_data(dataset, tmp_path):
    out, said = tmp_path / "verdicts", []
    options = {"functional": "r2scan", "models": {"Toy, one": TOY, "Absent": ABSENT}, "report": said.append}
    (file,) = verdicts.run(str(dataset(40)), out, **options)
    assert file.name == "toy-one.json"
    assert [path.name for path in out.iterdir()] == ["toy-one.json"]
    first = json.loads(file.read_text(encoding="utf-8"))
    assert first["model"] == "Toy, one"
    assert said[1] == "Absent: left out, no_such_package is not installed"
    file.write_text(json.dumps(first | {"model": "kept"}))
    verdicts.run(str(dataset(40)), out, **options)
    assert json.loads(file.read_text())["model"] == "kept"
    verdicts.run(str(dataset(30)), out, **options)  # other data: made anew
    assert json.loads(file.read_text())["model"] == "Toy, one"


def test_numbers_have_six_digits():
    assert verdicts.rounded({"a": [1 / 3, 12345.6789, None, True, 7]}) == {"a": [0.333333, 12345.7, None, True, 7]}


def test_the_books_models_are_named_in_code_and_need_no_download():
    assert len(MODELS) >= 4
    assert {one.package for one in MODELS.values()} == {"chgnet", "sevenn", "diep"}


def test_a_small_run_reports_every_figure():
    measured = benchmark.run(n_structures=3, repeats=1)
    assert measured["n_structures"] == 3
    assert measured["route_over_ase"] == pytest.approx(measured["route_seconds"] / measured["ase_one_by_one_seconds"])
    # float32: two implementations of one function
    assert measured["largest_energy_difference_ev_per_atom"] < 1e-5
    assert measured["largest_force_difference_ev_per_a"] < 1e-3
    printed = benchmark.format_report(measured)
    assert "route in 2 processes" in printed.replace("_", " ")
