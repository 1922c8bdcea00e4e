"""Lessons on data that are not the book's: what they lack is said, and what does not hold is said, too."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from crossfunc.datasets import Dataset, DatasetError, describe_functionals
from crossfunc.lessons import LessonResults, own_data
from crossfunc.lessons.own_data import check_claim, describe_lack, fit_size_limit, stop_here


def dataset(name="mine", frames=None):
    return Dataset(name, {"functionals": describe_functionals("PBE", "HSE06")}, Path(name), {"frames": frames})


def table(functional="hse06", forces=None):
    columns = {"functional": [functional], "forces_ev_per_a": pa.array([forces], pa.list_(pa.float64()))}
    return pa.table(columns | {"stress_gpa": pa.array([None], pa.list_(pa.float64()))})


# --- claims ---


def test_a_claim_that_holds_says_nothing(capsys):
    check_claim(True, "water is wet", dataset())
    assert capsys.readouterr().out == ""


def test_a_claim_that_fails_on_own_data_is_told_and_fails_nothing(capsys):
    check_claim(np.bool_(False), "water is dry", dataset())
    assert capsys.readouterr().out == "On mine this does not hold: water is dry.\n"


def test_a_claim_that_fails_on_the_books_data_is_an_error():
    with pytest.raises(AssertionError, match="water is dry"):
        check_claim(False, "water is dry", dataset("surrogate"))


# --- what is lacking ---


@pytest.mark.parametrize(
    ("frames", "targets", "said"),
    [
        (None, (), "needs frames in HSE06"),
        (table("gga"), (), "no frames in HSE06"),
        (table(), ("forces", "stress"), "No frame in HSE06 has forces or stress"),
        (table(forces=[0.0] * 3), ("forces",), ""),
        (table(), (), ""),
    ],
)
def test_what_frames_lack_is_said_in_a_sentence(frames, targets, said):
    found = describe_lack(dataset(frames=frames), *targets)
    assert said in found
    assert bool(found) == bool(said)


# --- the size of crystals ---


@pytest.mark.parametrize(
    ("n_atoms", "limit", "raised"),
    [
        ([2] * 30 + [40] * 10, 4, 4),  # enough
        ([40] * 30, 4, 40),  # none below: the smallest that leave as many as wanted
        (list(range(10, 70)), 4, 59),  # the fiftieth
        ([2, 3], 4, 4),  # no more to be had
        ([2] * 10 + [9] * 2, 4, 9),  # as many as there are
    ],
)
def test_a_limit_that_leaves_too_few_crystals_is_raised_and_told(n_atoms, limit, raised, capsys):
    assert fit_size_limit(np.array(n_atoms), limit, 50) == raised
    assert (f"raised to {raised}" in capsys.readouterr().out) == (raised != limit)


# --- the end of a lesson ---


def test_a_script_ends_and_keeps_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own_data, "_shell", lambda: None)
    results = LessonResults("01_x", tmp_path)
    results.record("n", 3, title="Rows")
    with pytest.raises(SystemExit) as stopped:
        stop_here("No pairs here.", results)
    assert stopped.value.code == 0
    assert "No pairs here." in capsys.readouterr().out
    assert json.loads((tmp_path / "01_x.json").read_text())["results"][0]["value"] == 3


def test_the_cells_after_the_end_run_and_do_nothing(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr(own_data, "_shell", lambda: shell)
    try:
        shell.run_cell("before = 1")
        stop_here("No pairs here.")
        done = shell.run_cell("after = 1\nraise ValueError")
        assert done.success
        assert "before" in shell.user_ns
        assert "after" not in shell.user_ns
    finally:
        shell.history_manager.end_session()


# --- tables of one kind or another ---


def pairs_of(n):
    names = [f"{side}_{kind}energy_per_atom_ev" for kind in ("", "formation_") for side in ("low", "high")]
    return pd.DataFrame({"composition": ["H2"] * n} | dict.fromkeys(names, 1.0))


def test_energies_of_both_functionals_or_else_the_frames():
    mine = SimpleNamespace(pairs=pairs_of(2), frames=None)
    assert list(own_data.energy_table(mine)) == ["composition", *own_data.ENERGIES]
    rows = pa.table({"material_id": ["a"], "functional": ["r2scan"], "energy_per_atom_ev": [-1.0]})
    assert own_data.energy_table(SimpleNamespace(pairs=None, frames=rows)).shape == (1, 3)


def test_frames_of_one_functional_are_counted_or_else_the_pairs():
    rows = pa.table({"functional": ["pbe", "hse06"], "material_id": ["a", "b"]})
    counted, unit = own_data.rows_of(dataset(frames=rows))
    assert (list(own_data.as_series(counted["material_id"])), unit) == (["b"], "n_frames")
    counted, unit = own_data.rows_of(SimpleNamespace(frames=None, pairs=pairs_of(2)))
    assert (len(counted), unit) == (2, "n_materials")


def test_too_few_formation_energies_are_told(capsys):
    known = pairs_of(4)
    assert own_data.describe_lack_of_formation(SimpleNamespace(pairs=known), at_least=4) == ""
    assert "4 materials have" in own_data.describe_lack_of_formation(SimpleNamespace(pairs=known), at_least=5)
    assert "0 materials have" in own_data.describe_lack_of_formation(SimpleNamespace(pairs=None), at_least=1)
    assert len(own_data.formation_energies(known)) == 4
    assert len(own_data.formation_energies(known[["composition"]])) == 0
    assert "no formation energies" in capsys.readouterr().out


def test_real_files_and_datasets_are_found_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", f"{tmp_path / 'nowhere'}:{tmp_path}")
    assert own_data.find_real_file("entries.json") is None
    (tmp_path / "entries.json").write_text("{}")
    assert own_data.find_real_file("entries.json") == tmp_path / "entries.json"
    assert own_data.open_if_there("no-such-dataset") is None
    assert own_data.open_if_there("surrogate", "elements").name == "surrogate"


def test_a_dataset_that_is_here_and_damaged_is_told_and_not_taken_for_one_that_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset.json").write_text('{"name": "mi')
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        own_data.open_if_there("mine")
