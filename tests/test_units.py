"""Runs that know nothing of each other: stopped and gone on with, read back when whole, and never taken for others."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.energies import fit_atomref, published_tables_apply
from crossfunc.errors import InputError
from crossfunc.lessons import four_methods
from crossfunc.lessons.lesson_runs import OF_UNITS, runs_of
from crossfunc.lessons.profiles import load_profile, resolve_parameters
from crossfunc.lessons.sources import Lesson, LessonError, own_lessons
from crossfunc.lessons.units import (
    CASES,
    PAPERS_TABLE,
    PLAIN_CASES,
    PLAIN_START,
    TAUGHT,
    case_units,
    make_runs,
    method_splits,
    plan_scaling,
    rows_to_judge,
    scaling_start,
    scaling_units,
    start_unit,
    taught_labels,
    unit_name,
    units_folder,
    usable_frames,
)
from crossfunc.potential.recorded import NotRecordedError
from crossfunc.training.baselines import last_refit_ev
from crossfunc.training.evaluate import predict_frames
from crossfunc.training.fit import _Run
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.run_folder import RunError, identify_given
from crossfunc.training.source import label_with_model, replace_labels
from crossfunc.training.taught import labels_to_teach, low_labels
from crossfunc.training.units import (
    Unit,
    identify,
    progress,
    progress_table,
    read_results,
    read_unit,
    run_units,
    with_starts,
)

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
    assert all((tmp_path / f"{u.name}{s}").stat().st_size < 40_000 for u in units for s in (".json", ".npz"))
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
    (tmp_path / f"{unit.name}.json").unlink()
    (measured_again,) = run_units([unit], frames, tmp_path)  # trains nothing, and has cost all that it took to train
    assert measured_again.seconds == resumed.seconds
    for run in (resumed, measured_again):
        assert run.seconds_in_all > run.seconds > 0


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


def test_what_one_pretrained_model_has_made_is_not_read_back_for_another(frames, units, moved, tmp_path):
    """Only the default model adds nothing to an identity, so that units from before there was a choice stay valid."""
    start, unit = chain(units, moved, steps=1)
    path = tmp_path / "other.pt"
    xf.save_model(xf.load_model("r2scan"), path)
    for one in (units[0], unit):
        found = {identify(one, frames, given) for given in ("0.3.0", "r2scan", path)}
        assert len(found) == 3
        assert identify(one, frames) in found
        assert identify(one, frames, identify_given(path)) in found
    folder = tmp_path / "units"
    (first,) = run_units([unit], frames, folder)
    assert read_unit(unit, frames, folder) is not None
    assert read_unit(unit, frames, folder, path) is None
    assert {state.state for state in progress([start, unit], frames, folder, path)} == {"stopped"}
    with pytest.raises(InputError, match="2 of 2 units are not whole"):
        read_results([start, unit], frames, folder, path)
    with pytest.raises(RunError, match="holds another run"):
        run_units([unit], frames, folder, pretrained=path)
    shutil.rmtree(folder / "runs")
    (other,) = run_units([unit], frames, folder, pretrained=path)
    assert other.metrics["test"] != first.metrics["test"]
    assert read_unit(unit, frames, folder, path).metrics == other.metrics
    assert {state.state for state in progress([start, unit], frames, folder, path)} == {"whole"}


def test_two_units_of_one_name_are_an_error(frames, units):
    with pytest.raises(ValueError, match="share the name 'method-4-seed0'"):
        run_units([units[0], units[0]], frames)


# --- the record of a unit ---


def test_a_record_answers_for_its_split_as_the_model_did_and_for_nothing_else(frames, units, tmp_path):
    unit = replace(units[0], split={"train": np.arange(10), "validation": np.arange(12, 18), "test": np.arange(18, 24)})
    (recorded,), (run,) = run_units([unit], frames, tmp_path), run_units([unit], frames)
    for which in ("model", "last_model"):
        there, kept = getattr(run, which), getattr(recorded, which)
        for part in unit.split.values():
            one, other = (predict_frames(model, frames.take(part)) for model in (there, kept))
            np.testing.assert_array_equal(other.energy_per_atom_ev, one.energy_per_atom_ev)
            for name in ("forces_ev_per_a", "stress_gpa", "magmoms_mub"):
                np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(xf.element_references(kept), xf.element_references(there))
        np.testing.assert_array_equal(
            last_refit_ev(kept, frames.take(unit.split["train"])),
            last_refit_ev(there, frames.take(unit.split["train"])),
        )
        moved = [four_methods.block_changes({0: model}, {0: xf.load_model("0.3.0")}) for model in (there, kept)]
        pd.testing.assert_frame_equal(moved[1], moved[0], rtol=1e-5)
    assert recorded.metrics == run.metrics
    pd.testing.assert_frame_equal(recorded.history.drop(columns="seconds"), run.history.drop(columns="seconds"))
    np.testing.assert_array_equal(recorded.references.energies_ev, run.references.energies_ev)
    assert recorded.settings == run.settings
    with pytest.raises(NotRecordedError, match=r"last model of method-4-seed0 was not asked about crystal 1 \("):
        xf.predict(recorded.last_model, frames.crystals.take([0, 11]))


def test_a_unit_is_read_back_from_its_two_files_alone_and_not_from_damaged_ones(frames, units, tmp_path, monkeypatch):
    (first,) = run_units([units[0]], frames, tmp_path)
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setattr("crossfunc.training.fit._Run.train", lambda *_, **__: pytest.fail("trained again"))
    (again,) = run_units([units[0]], frames, tmp_path)
    assert again.metrics == first.metrics
    record = tmp_path / "method-4-seed0.npz"
    record.write_bytes(record.read_bytes()[:-1])
    assert read_unit(units[0], frames, tmp_path) is None
    record.unlink()
    assert progress([units[0]], frames, tmp_path)[0].state == "waiting"


def test_a_start_of_which_only_the_record_is_left_is_made_again_for_who_starts_from_it(frames, units, moved, tmp_path):
    start, unit = chain(units, moved)
    run_units([start], frames, tmp_path)
    shutil.rmtree(tmp_path / "runs")
    done = []
    (run,) = run_units([unit], frames, tmp_path, report=done.append)
    assert done == ["start", "from-start"]
    (undisturbed,) = run_units([unit], frames)
    np.testing.assert_array_equal(xf.element_references(run.model), xf.element_references(undisturbed.model))


def test_units_that_the_checkout_keeps_are_found_by_the_next_run(tmp_path):
    notebooks = tmp_path / "notebooks"
    shutil.copytree(own_lessons(), notebooks, ignore=shutil.ignore_patterns("__pycache__"))
    small = ["max_steps=2", "n_train_frames=40", "n_eval_frames=6", "n_start_epochs=0", "n_seeds=1"]
    profile = yaml.safe_load((notebooks / "profiles" / "converged.yml").read_text())
    profile["lessons"]["04_four_methods"] |= yaml.safe_load("\n".join(small).replace("=", ": "))
    (notebooks / "profiles" / "converged.yml").write_text(yaml.safe_dump(profile))
    (tmp_path / "_config.yml").touch()
    call = ["units", "04", "--root", str(tmp_path), "--only", "references-only", "--only", "model-aware-seed0"]
    made = CliRunner().invoke(app, [*call, "--keep"])
    assert "2 of 2 units are whole" in made.output, made.output
    kept = tmp_path / "units" / "converged" / "04_four_methods"
    assert sorted(file.suffix for file in kept.iterdir()) == [".json", ".json", ".npz", ".npz"]
    shutil.rmtree(tmp_path / "build")
    again = CliRunner().invoke(app, [*call, "--status"])
    assert "2 of 2 units are whole" in again.output, again.output


# --- units that start from the model of another ---


@pytest.fixture(scope="module")
def moved(frames):
    """The same crystals with other energies, as another code would give them."""
    return replace_labels(frames, energy_per_atom_ev=frames.energy_per_atom_ev + 0.5)


def chain(units, moved, steps=2, keep="last"):
    """A start that learns other labels, and a unit that begins at its model; no step of its own."""
    split = units[0].split
    start = Unit("start", "4", 0, split, settings={"max_steps": steps, "batch_size": 4}, frames=moved, keep=keep)
    return start, Unit("from-start", "3", 0, split, settings={"n_epochs": 0}, start=start)


def test_a_unit_begins_at_the_last_weights_of_its_start(frames, units, moved, tmp_path):
    start, unit = chain(units, moved)
    done = []
    (run,) = run_units([unit], frames, tmp_path, report=done.append)
    assert done == ["start", "from-start"]
    (alone,) = run_units([start], frames)
    assert all(change == 0 for change, _ in run.last_model.weight_changes.values())
    begun = predict_frames(alone.last_model, frames)
    np.testing.assert_array_equal(predict_frames(run.model, frames).energy_per_atom_ev, begun.energy_per_atom_ev)
    of_start, of_unit = (json.loads((tmp_path / f"{name}.json").read_text()) for name in done)
    assert of_unit["start"] == "start"
    assert of_start["start"] is None
    rows = start.split["test"]
    judged = xf.evaluate(alone.last_model, moved, rows=rows)  # the weights it stands for, on its own labels
    assert of_start["errors"]["energy_mae_mev_per_atom"] == pytest.approx(judged["energy_mae_mev_per_atom"], rel=1e-4)


def test_starts_are_made_once_and_both_are_read_back(frames, units, moved, tmp_path, monkeypatch):
    start, unit = chain(units, moved)
    twin = Unit("other", "4", 0, unit.split, settings={"n_epochs": 0}, start=start)
    assert [u.name for u in with_starts([unit, twin, start], frames)] == ["start", "from-start", "other"]
    first = run_units([unit, twin, start], frames, tmp_path)
    assert [run.method.key for run in first] == ["3", "4", "4"]
    monkeypatch.setattr("crossfunc.training.fit._Run.train", lambda *_, **__: pytest.fail("trained again"))
    again = run_units([unit, twin, start], frames, tmp_path)
    assert [run.metrics["test"] for run in again] == [run.metrics["test"] for run in first]
    assert {state.state for state in progress([start, unit, twin], frames, tmp_path)} == {"whole"}


def test_what_a_unit_starts_from_is_part_of_its_identity(frames, units, moved):
    start, unit = chain(units, moved)
    same = identify(unit, frames)
    assert identify(chain(units, moved)[1], frames) == same
    others = [chain(units, moved, steps=3)[1], chain(units, moved, keep="best")[1], chain(units, frames)[1]]
    others += [Unit("from-start", "3", 0, unit.split, settings={"n_epochs": 0})]
    assert len({same} | {identify(other, frames) for other in others}) == 5
    with pytest.raises(InputError, match="share the name 'start'"):
        run_units([start, chain(units, moved, steps=3)[1]], frames)


def test_progress_reads_like_a_table(frames, units, tmp_path):
    table = progress_table(progress(units, frames, tmp_path))
    assert table.index.tolist() == ["method-4-seed0", "published-seed0"]
    assert table["state"].tolist() == ["waiting", "waiting"]


# --- the lessons' units ---

LESSON_4 = {
    "seed": 0, "n_seeds": 2, "n_train_frames": 60, "n_eval_frames": 10, "n_epochs": 2, "max_steps": None,
    "batch_size": 8, "learning_rate": 1e-3, "n_workers": 0, "max_atoms": 4, "validate_every_n_epochs": 1,
    "n_start_epochs": 3,
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
    by_steps = case_units(frames, LESSON_4 | {"max_steps": 7})["1", 0].settings
    assert by_steps["max_steps"] == 7
    assert "n_epochs" not in by_steps


def test_only_labels_that_a_model_has_not_made_itself_are_taught():
    dft, surrogate = open_dataset("pbe-r2scan"), open_dataset("surrogate")
    frames = usable_frames(dft, 4, 40, need_forces=True)
    low = labels_to_teach(dft, frames)
    np.testing.assert_array_equal(low.crystals.frac_coords, frames.crystals.frac_coords)
    assert not np.allclose(low.energy_per_atom_ev, frames.energy_per_atom_ev, atol=0.01)
    made_by_chgnet = usable_frames(surrogate, 2, 40, need_forces=False)
    assert low_labels(surrogate, made_by_chgnet).labelled("energy").all()
    assert labels_to_teach(surrogate, made_by_chgnet) is None
    base = xf.load_model("0.3.0")
    crystal = frames.take(np.arange(4))
    as_own = pytest.MonkeyPatch()
    with as_own.context() as patch:  # a dataset with the model's own labels of everything
        patch.setattr("crossfunc.training.taught.low_labels", lambda *_: label_with_model(base, crystal))
        assert labels_to_teach(dft, crystal, base) is None


def test_low_labels_lie_beside_the_high_ones_frame_by_frame():
    dft = open_dataset("pbe-r2scan")
    frames = usable_frames(dft, 4, 40, need_forces=True)
    order = np.random.default_rng(0).permutation(len(frames))[:30]
    low = low_labels(dft, frames.take(order))
    stem = {name.rsplit("/", 1)[0]: row for row, name in enumerate(dft.frames["frame_id"].to_pylist())
            if dft.frames["functional"][row].as_py() == "pbe"}  # fmt: skip
    for name, energy in zip(frames.frame_ids[order], low.energy_per_atom_ev, strict=True):
        assert dft.frames["energy_per_atom_ev"][stem[name.rsplit("/", 1)[0]]].as_py() == energy
    strained = frames.crystals.take(order)
    moved = replace_labels(frames.take(order), crystals=type(strained)(
        strained.atomic_numbers, strained.frac_coords + 0.01, strained.lattices_a, strained.n_atoms))  # fmt: skip
    assert low_labels(dft, moved) is None


def test_low_labels_that_cannot_be_read_are_not_taken_for_labels_that_are_not_there():
    dft = open_dataset("pbe-r2scan")
    frames = usable_frames(dft, 4, 40, need_forces=True)
    table = dft.frames
    is_low = np.asarray(table["functional"]) == "pbe"

    def of(frames_table):
        return replace(dft, _tables={"frames": frames_table})

    def with_column(name, values):
        place = table.column_names.index(name)
        return of(table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type)))

    first_low = np.arange(len(table)) == np.flatnonzero(is_low)[0]
    mixed = with_column("energy_kind", np.where(first_low, "mp2020", np.asarray(table["energy_kind"])))
    empty = with_column("energy_per_atom_ev", np.where(is_low, np.nan, np.asarray(table["energy_per_atom_ev"])))
    for broken, said in ((mixed, "mix energies of kind"), (empty, "has an energy")):
        for read in (low_labels, labels_to_teach):
            with pytest.raises(DatasetError, match=said):
                read(broken, frames)
    with pytest.raises(DatasetError, match="b3lyp"):
        low_labels(dft, frames, "b3lyp")
    for without in (of(table.filter(~is_low)), of(None)):
        assert low_labels(without, frames) is None
        assert labels_to_teach(without, frames) is None


def test_on_dft_all_cases_start_from_what_their_training_frames_were_taught():
    dft = open_dataset("pbe-r2scan")
    frames, units = runs_of("04_four_methods", dft, LESSON_4)
    low = taught_labels(dft, frames, LESSON_4)
    assert not published_tables_apply(dft)
    assert published_tables_apply(open_dataset("surrogate"))
    names = {unit.name for unit in units if unit.seed == 0}
    cases = [case for case in (*CASES, *PLAIN_CASES, TAUGHT) if case != PAPERS_TABLE]
    assert names == {unit_name(case, 0) for case in cases}
    for seed, split in method_splits(frames, LESSON_4).items():
        mine = {unit.name: unit for unit in units if unit.seed == seed}
        start = mine[unit_name(TAUGHT, seed)]
        assert start.keep == "last"
        assert start.frames.fingerprint() == low.fingerprint()
        assert np.array_equal(start.split["train"], split["train"])
        assert not set(frames.material_ids[start.split["train"]]) & set(frames.material_ids[split["test"]])
        for case in CASES:
            if case != PAPERS_TABLE:
                assert mine[unit_name(case, seed)].start is start
        assert all(mine[unit_name(case, seed)].start is None for case in PLAIN_CASES)
    assert taught_labels(dft, frames, LESSON_4 | {"n_start_epochs": 0}) is None


def test_a_start_leaves_frames_without_low_labels_out():
    dft = open_dataset("pbe-r2scan")
    frames = usable_frames(dft, 4, 40, need_forces=True)
    low = taught_labels(dft, frames, LESSON_4)
    energies = low.energy_per_atom_ev.copy()
    energies[::3] = np.nan
    split = method_splits(frames, LESSON_4)[0]
    start = start_unit(replace_labels(low, energy_per_atom_ev=energies), split, 0, LESSON_4)
    assert set(start.split["train"]) == {row for row in split["train"] if row % 3}


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


ON_DFT = LESSON_7 | {
    "n_start_epochs": 1, "max_steps": 1, "sizes": [4, 10**6], "n_seeds": 1, "n_validation": 8,
    "curves": ["transfer", "model-aware", PLAIN_START, "published", "scratch"],
}  # fmt: skip


def test_curves_on_our_own_dft_begin_with_a_start_that_all_cheap_labels_taught():
    dataset = open_dataset("pbe-r2scan")
    frames, pool, validation, sizes, references = plan_scaling(dataset, ON_DFT)
    assert sizes == [4, len(pool)]  # all there is, in place of a size that does not fit
    assert "published" not in references  # the table is VASP's
    assert not set(frames.material_ids[pool]) & set(frames.material_ids[validation])
    start = scaling_start(dataset, frames, pool, validation, ON_DFT)
    assert len(start.split["train"]) == len(pool)
    units = scaling_units(frames, pool, validation, references, ON_DFT | {"sizes": sizes}, start)
    starts = {curve: unit.start for (curve, n, _), unit in units.items() if n == 4}
    assert starts == {"transfer": start, "model-aware": start, PLAIN_START: None, "scratch": None}
    assert np.array_equal(units["model-aware", 4, 0].fit_to, pool)
    without = scaling_units(frames, pool, validation, references, ON_DFT | {"sizes": sizes})
    assert {curve for curve, _, _ in without} == {"transfer", "model-aware", "scratch"}
    assert scaling_start(dataset, frames, pool, validation, LESSON_7) is None  # no epochs, no start
    surrogate = open_dataset("surrogate")
    assert scaling_start(surrogate, *plan_scaling(surrogate, LESSON_7)[:3], ON_DFT) is None  # its own labels


def test_references_are_fitted_to_other_rows_where_a_unit_says_so_and_a_start_is_not_made_twice(monkeypatch):
    dataset = open_dataset("pbe-r2scan")
    frames, pool, validation, sizes, references = plan_scaling(dataset, ON_DFT)
    start = scaling_start(dataset, frames, pool, validation, ON_DFT)
    parameters = ON_DFT | {"sizes": sizes[:1], "curves": ["model-aware"]}
    (unit,) = scaling_units(frames, pool, validation, references, parameters, start).values()
    (taught,) = run_units([start], frames)
    from crossfunc.training import units as module

    made = []
    inner = module.run_unit
    monkeypatch.setattr(
        module, "run_unit", lambda one, *rest, **more: made.append(one.name) or inner(one, *rest, **more)
    )
    (run,) = run_units([unit], frames, made={start.name: taught})
    assert made == [unit.name]
    expected = xf.finetune(
        "model-aware", frames, split={"train": pool, "validation": validation}, prior="trend", progress=False,
        pretrained=start.model_of(taught),
    ).references  # fmt: skip
    np.testing.assert_allclose(run.references.energies_ev, expected.energies_ev, atol=1e-5)
    assert identify(unit, frames) != identify(replace(unit, fit_to=pool[:5]), frames)


def test_frames_that_tell_nothing_are_not_judged_unless_there_are_no_others():
    frames = LabelledFrames.from_dataset(open_dataset("pbe-r2scan"), "high")
    rows = np.arange(len(frames))
    moved = np.array([np.abs(forces).max() > 1e-3 for forces in frames.crystals.split(frames.forces_ev_per_a)])
    of_all = fit_atomref(frames.composition, frames.energy_per_atom_ev)
    fixed = of_all.is_determined_for(frames.composition)
    assert 5 < (moved & fixed).sum() < len(rows)
    assert np.array_equal(rows_to_judge(frames, rows, of_all), np.flatnonzero(moved & fixed))
    of_one = fit_atomref(frames.composition[:1], frames.energy_per_atom_ev[:1])
    assert np.array_equal(rows_to_judge(frames, rows, of_one), np.flatnonzero(moved))
    still = rows[~moved]
    assert np.array_equal(rows_to_judge(frames, still, of_all), still)


def test_names_of_units_are_names_of_files():
    assert unit_name("4 on the published table", 1) == "method-4-on-the-published-table-seed1"
    assert unit_name("model-aware, then trained", 0) == "model-aware-then-trained-seed0"
    assert unit_name("transfer", 2, 800) == "transfer-n800-seed2"


def test_the_command_counts_what_is_whole_and_runs_nothing_when_asked_for_the_status(root, tmp_path):
    call = ["units", "04", "--profile", "smoke", "--status", "--root", str(root), "--out", str(tmp_path)]
    shown = CliRunner().invoke(app, [*call, "--only", "method-4"])
    assert shown.exit_code == 0, shown.output
    assert "0 of 2 units are whole" in shown.output  # Method 4 from the start taught PBE, and from 0.3.0
    assert "method-4-start-as-published-seed0" in shown.output
    assert not (tmp_path / "units").exists()
    wrong = CliRunner().invoke(app, [*call, "--only", "method-9"])
    assert wrong.exit_code != 0


def test_a_lesson_without_units_says_which_have_them():
    with pytest.raises(LessonError, match=", ".join(OF_UNITS)):
        runs_of("01_data_statistics", open_dataset("surrogate"), {})


# --- two pages of one lesson ---


def test_the_second_page_reads_the_runs_of_the_first_and_trains_what_is_not_there(tmp_path, monkeypatch):
    given = LESSON_4 | {"n_seeds": 1, "n_train_frames": 8, "n_eval_frames": 2, "max_steps": 1, "batch_size": 2}
    given |= {"pretrained": "0.3.0", "keep_runs": False, "n_jobs": 1}
    frames = usable_frames(open_dataset("surrogate"), 2, 12, need_forces=False)
    planned = {key: unit for key, unit in case_units(frames, given).items() if key[0] in "134"}
    trained, train = [], _Run.train

    def watched(run, *arguments, **options):
        trained.append(run.method.key)
        return train(run, *arguments, **options)

    monkeypatch.setattr("crossfunc.training.fit._Run.train", watched)
    results = tmp_path / "results"
    first = make_runs(planned, frames, results, given, cases="34", anew=True)
    assert sorted(trained) == ["3", "4"]
    second = make_runs(planned, frames, results, given, cases="13")
    assert trained[2:] == ["1"]
    assert sorted(second) == [("1", 0), ("3", 0)]
    for name, weights in first["3", 0].last_model.state_dict().items():
        np.testing.assert_array_equal(second["3", 0].last_model.state_dict()[name], weights)
    assert first["3", 0].metrics["test"] == second["3", 0].metrics["test"]
    assert not list((tmp_path / "shared").rglob("*.json.tmp"))
    other = {key: replace(unit, settings=unit.settings | {"max_steps": 2}) for key, unit in planned.items()}
    make_runs(other, frames, results, given, cases="3")  # other values, another folder, no complaint
    make_runs(planned, frames, results, given, cases="3", anew=True)  # the first page trains whatever is there
    make_runs(planned, frames, None, given, cases="3")  # nothing to share through
    assert trained[3:] == ["3", "3", "3"]
    assert len(list((tmp_path / "shared" / "04_four_methods").iterdir())) == 1


@pytest.mark.parametrize("profile", [None, *sorted(path.stem for path in (own_lessons() / "profiles").glob("*.yml"))])
def test_both_pages_of_lesson_4_run_with_the_same_values(profile):
    notebooks = own_lessons()
    one, two = (Lesson(notebooks / f"{name}.py") for name in ("04_four_methods", "04b_what_moved"))
    if profile is None:
        values = [{name: p.default for name, p in lesson.parameters.items()} for lesson in (one, two)]
    else:
        values = [resolve_parameters(lesson, load_profile(notebooks, profile)) for lesson in (one, two)]
    of_its_own = values[1].pop("n_orders")
    orders = {"converged": 2, "converged-surrogate": 2, "gpu": 0, "paper": 0, "real": 0}
    assert of_its_own == orders.get(profile, 1)
    assert {name: values[0][name] for name in values[1]} == values[1]


def test_both_pages_of_lesson_4_have_the_same_units(tmp_path):
    given, dft = LESSON_4 | {"n_seeds": 1}, open_dataset("pbe-r2scan")
    one, two = (runs_of(lesson, dft, given) for lesson in ("04_four_methods", "04b_what_moved"))
    assert [identify(unit, one.frames) for unit in one.units] == [identify(unit, two.frames) for unit in two.units]
    assert units_folder(tmp_path, "04b_what_moved") == units_folder(tmp_path, "04_four_methods")
    more = runs_of("04b_what_moved", dft, given | {"n_orders": 2}).units[len(two.units) :]
    assert [unit.name for unit in more] == [f"method-{m}-seed0-order{k}" for m in "14" for k in (1, 2)]
    first = next(unit for unit in two.units if unit.name == "method-4-seed0")
    assert more[2].seed == 1
    assert all(map(np.array_equal, more[2].split.values(), first.split.values()))
    assert identify(replace(more[2], seed=0), two.frames) == identify(first, two.frames)
