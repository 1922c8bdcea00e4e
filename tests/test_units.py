"""Runs that know nothing of each other: stopped and gone on with, read back when whole, and never taken for others."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.datasets import open_dataset
from crossfunc.lessons.sources import LessonError
from crossfunc.lessons.units import CASES, method_units, plan_scaling, runs_of, scaling_units, unit_name, usable_frames
from crossfunc.training.run_folder import RunError
from crossfunc.training.units import Unit, identify, progress, progress_table, read_results, run_units

SMALL = {"max_steps": 4, "batch_size": 4}


@pytest.fixture(scope="module")
def frames():
    every = usable_frames(open_dataset("surrogate"), 2, 40, need_forces=True)
    return every.take(np.arange(0, len(every), max(1, len(every) // 24))[:24])


@pytest.fixture
def units(frames):
    split = {"train": np.arange(12), "validation": np.arange(12, 18), "test": np.arange(18, 24)}
    return [
        Unit("method-4-seed0", "4", 0, split, settings=SMALL),
        Unit("published-seed0", "4", 0, split, references="MP-r2SCAN", settings=SMALL),
    ]


def test_units_leave_a_small_file_each_and_are_read_back(frames, units, tmp_path, monkeypatch):
    assert [s.state for s in progress(units, frames, tmp_path)] == ["waiting", "waiting"]
    with pytest.raises(ValueError, match="2 of 2 units are not whole, first of all method-4-seed0"):
        read_results(units, frames, tmp_path)
    done = []
    first = run_units(units, frames, tmp_path, report=done.append)
    assert done == ["method-4-seed0", "published-seed0"]
    assert [s.state for s in progress(units, frames, tmp_path)] == ["whole", "whole"]
    assert all((tmp_path / f"{u.name}.json").stat().st_size < 20_000 for u in units)
    results = read_results(units, frames, tmp_path)
    assert results[0]["errors"]["energy_mae_mev_per_atom"] == pytest.approx(
        first[0].metrics["test"]["energy_mae_mev_per_atom"], rel=1e-4
    )
    assert results[0]["n_steps"] == 4
    assert results[1]["references"] == "MP-r2SCAN"
    assert len(results[0]["by_frame"]["energy"]) == len(results[0]["by_frame"]["material_id"]) == 6
    monkeypatch.setattr("crossfunc.training.fit._Run.train", lambda *_, **__: pytest.fail("trained again"))
    again = run_units(units, frames, tmp_path)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(xf.element_references(one.model), xf.element_references(two.model))
        assert one.metrics["test"] == two.metrics["test"]


def test_a_unit_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(frames, units, tmp_path):
    from lightning.pytorch.callbacks import Callback

    class Killed(Callback):
        def on_train_epoch_end(self, trainer, module):
            if module.n_steps_done >= 3:
                raise KeyboardInterrupt

    unit = units[0]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        xf.finetune("4", frames, out=tmp_path / "runs" / unit.name, split=unit.split, prior="trend", seed=0,
                    progress=False, callbacks=[Killed()], **SMALL)  # fmt: skip
    (state,) = progress([unit], frames, tmp_path)
    assert state.state == "stopped"
    assert state.n_steps == 4
    (resumed,) = run_units([unit], frames, tmp_path)
    (undisturbed,) = run_units([unit], frames)
    assert resumed.metrics["test"]["force_mae_mev_per_a"] == undisturbed.metrics["test"]["force_mae_mev_per_a"]


def test_a_result_of_other_frames_or_settings_does_not_count(frames, units, tmp_path):
    (tmp_path / "method-4-seed0.json").write_text(
        json.dumps({"unit": "method-4-seed0", "identity": "of another run", "errors": {}, "by_frame": {}})
    )
    assert progress(units, frames, tmp_path)[0].state == "waiting"
    (tmp_path / "method-4-seed0.json").write_text('{"unit": "cut off')
    assert progress(units, frames, tmp_path)[0].state == "waiting"


def test_a_folder_with_another_run_of_this_name_is_refused(frames, units, tmp_path):
    none = {"n_epochs": 0}
    first = Unit("a", "3", 0, units[0].split, settings=none)
    run_units([first], frames, tmp_path)
    with pytest.raises(RunError, match="holds another run"):
        run_units([Unit("a", "3", 1, units[0].split, settings=none)], frames, tmp_path)


def test_everything_that_decides_the_numbers_is_part_of_the_identity(frames, units):
    unit = units[0]
    same = identify(unit, frames)
    assert identify(units[0], frames) == same
    others = [
        Unit(unit.name, "3", 0, unit.split, settings=SMALL),
        Unit(unit.name, "4", 1, unit.split, settings=SMALL),
        Unit(unit.name, "4", 0, unit.split, settings=SMALL | {"max_steps": 5}),
        Unit(unit.name, "4", 0, unit.split, settings=SMALL, references="MP-r2SCAN"),
        Unit(unit.name, "4", 0, unit.split, settings=SMALL, references=xf.published_atomref("MP-r2SCAN")),
        Unit(unit.name, "4", 0, unit.split, settings=SMALL, prior="published"),
        Unit(unit.name, "4", 0, unit.split | {"test": np.arange(18, 23)}, settings=SMALL),
    ]
    found = {identify(other, frames) for other in others} | {identify(unit, frames.take(np.arange(23)))}
    assert same not in found
    assert len(found) == len(others) + 1


def test_two_units_of_one_name_are_an_error(frames, units):
    with pytest.raises(ValueError, match="share the name 'method-4-seed0'"):
        run_units([units[0], units[0]], frames)


def test_progress_reads_like_a_table(frames, units, tmp_path):
    table = progress_table(progress(units, frames, tmp_path))
    assert table.index.tolist() == ["method-4-seed0", "published-seed0"]
    assert table["state"].tolist() == ["waiting", "waiting"]


# --- the lessons' units ---

LESSON_4 = {
    "seed": 0, "n_seeds": 2, "n_train_frames": 60, "n_eval_frames": 10, "n_epochs": 2, "max_steps": None,
    "batch_size": 8, "learning_rate": 1e-3, "n_workers": 0, "max_atoms": 4, "validate_every_n_epochs": 1,
}  # fmt: skip
LESSON_7 = {
    "seed": 0, "n_seeds": 2, "sizes": [8, 16], "n_validation": 16, "max_atoms": 2, "max_steps": 3, "batch_size": 4,
    "learning_rate": 1e-3, "n_looks": 1, "curves": ["transfer", "published", "scratch"],
}  # fmt: skip


def test_all_runs_of_a_seed_differ_in_the_method_and_in_nothing_else():
    frames, units = runs_of("04_four_methods", open_dataset("surrogate"), LESSON_4)
    assert len(units) == 2 * len(CASES)
    assert len({unit.name for unit in units}) == len(units)
    for seed in (0, 1):
        mine = [unit for unit in units if unit.seed == seed]
        for part, rows in mine[0].split.items():
            assert all(np.array_equal(unit.split[part], rows) for unit in mine)
        trained = [
            unit.settings for unit in mine if unit.name.split("-seed")[0] not in ("references-only", "model-aware")
        ]
        assert all(settings == trained[0] for settings in trained)
        train, test = (set(frames.material_ids[mine[0].split[part]]) for part in ("train", "test"))
        assert not train & test
    assert {unit.references for unit in units} == {None, "pretrained", "MP-r2SCAN"}


def test_steps_go_before_epochs_where_both_are_given():
    frames = usable_frames(open_dataset("surrogate"), 4, 80, need_forces=False)
    by_steps = method_units(frames, LESSON_4 | {"max_steps": 7})[0].settings
    assert by_steps["max_steps"] == 7
    assert "n_epochs" not in by_steps


def test_curves_have_equal_budgets_nested_frames_and_one_table_of_references_each():
    dataset = open_dataset("surrogate")
    frames, pool, validation, sizes, references = plan_scaling(dataset, LESSON_7)
    units = scaling_units(frames, pool, validation, references, LESSON_7 | {"sizes": sizes})
    assert len(units) == 2 * 2 * 3
    assert references["published"] == "MP-r2SCAN"
    assert references["transfer"] is references["scratch"]
    for seed in (0, 1):
        small, large = (units["transfer", n, seed].split["train"] for n in (8, 16))
        assert set(small) < set(large)
        assert np.array_equal(units["scratch", 8, seed].split["train"], small)
    assert len({unit.settings["max_steps"] for unit in units.values()}) == 1


def test_names_of_units_are_names_of_files():
    assert unit_name("4 on the published table", 1) == "method-4-on-the-published-table-seed1"
    assert unit_name("model-aware, then trained", 0) == "model-aware-then-trained-seed0"
    assert unit_name("transfer", 2, 800) == "transfer-n800-seed2"


def test_the_command_counts_what_is_whole_and_runs_nothing_when_asked_for_the_status(root, tmp_path):
    call = ["units", "04", "--profile", "smoke", "--status", "--root", str(root), "--out", str(tmp_path)]
    shown = CliRunner().invoke(app, [*call, "--only", "method-4"])
    assert shown.exit_code == 0, shown.output
    assert "0 of 2 units are whole" in shown.output  # Method 4, and Method 4 on the published table
    assert "method-4-on-the-published-table-seed0" in shown.output
    assert not (tmp_path / "units").exists()
    wrong = CliRunner().invoke(app, [*call, "--only", "method-9"])
    assert wrong.exit_code != 0


def test_a_lesson_without_units_says_which_have_them():
    with pytest.raises(LessonError, match="04_four_methods and 07_scaling_laws"):
        runs_of("01_data_statistics", open_dataset("surrogate"), {})
