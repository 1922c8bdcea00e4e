"""`finetune`: what it writes, what it returns, what it refuses, and the same losses as chgnet's own trainer."""

import contextlib
import errno
import io
import json
import logging
import math
import multiprocessing
import os
import signal
import warnings
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_frames import joined, small_frames, thirds, with_labels
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.datasets import DatasetError, describe_functionals
from crossfunc.energies import AtomRefError
from crossfunc.files import FolderInUse, locked_folder
from crossfunc.potential.checkpoints import CheckpointError, element_references
from crossfunc.potential.graphs import GraphError
from crossfunc.training import LabelledFrames, finetune
from crossfunc.training.batches import step_order
from crossfunc.training.methods import MethodError
from crossfunc.training.module import COLUMNS, GivenRates, TrainingError
from crossfunc.training.run_folder import RunError
from crossfunc.training.settings import SettingsError
from crossfunc.training.source import replace_labels
from crossfunc.vendor import import_chgnet

SPLIT = thirds(24)


@pytest.fixture(scope="module")
def frames():
    return small_frames(24)


def train(frames, method=4, **settings):
    settings = {"n_epochs": 2, "batch_size": 8, "split": SPLIT, "progress": False} | settings
    return finetune(method, frames, **settings)


def weights(model):
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


class StepLosses(Callback):
    def __init__(self):
        self.losses, self.orders, self.norms = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.orders.append(np.sort(np.concatenate([part.indices for part in batch.micro])).tolist())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.norms.append(torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]).norm())


# --- a run ---


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        return train(frames, out=out), printed.getvalue()


def test_training_lowers_the_loss_and_says_nothing_without_a_bar(run):
    result, printed = run
    loss = result.history["validation_loss"]
    assert loss.iloc[-1] < loss.iloc[0]
    assert printed == ""


def test_history_has_one_row_an_epoch_and_one_before_training(run):
    history = run[0].history
    assert tuple(history.columns) == COLUMNS
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["step"].tolist() == [0, 2, 4]
    assert history["learning_rate"].iloc[-1] == pytest.approx(1e-5)
    shares = history.filter(like="_loss_share").iloc[1:].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    assert history.iloc[1:].notna().all(axis=None)
    assert history["train_loss"].isna().tolist() == [True, False, False]


def test_the_folder_holds_models_that_stock_chgnet_loads(run):
    result = run[0]
    names = {"run.json", "history.csv", "last.ckpt", "best.pt", "best.safetensors", "last.pt", "references.json"}
    assert {file.name for file in result.out.iterdir()} == names
    with contextlib.redirect_stdout(io.StringIO()):
        stock = import_chgnet("chgnet.model").CHGNet.from_file(str(result.out / "best.pt"))
    assert torch.equal(weights(stock), weights(result.model))
    assert torch.equal(weights(xf.load_model(result.out / "best.safetensors")), weights(result.model))
    assert torch.equal(weights(xf.load_model(result.out / "last.pt")), weights(result.last_model))
    pd.testing.assert_frame_equal(pd.read_csv(result.out / "history.csv", engine="python"), result.history)


def test_metrics_are_the_errors_of_the_best_model_on_each_part(run, frames):
    result = run[0]
    assert set(result.metrics) == {"validation", "test"}
    test = frames.take(SPLIT["test"])
    predicted = xf.predict(result.model, test.crystals)
    metrics = result.metrics["test"]
    error = predicted["energy_per_atom_ev"] - test.energy_per_atom_ev
    assert metrics["energy_mae_mev_per_atom"] == pytest.approx(1000 * np.abs(error).mean(), rel=1e-4)
    error = np.concatenate(predicted["forces_ev_per_a"]) - test.forces_ev_per_a
    assert metrics["force_mae_mev_per_a"] == pytest.approx(1000 * np.abs(error).mean(), rel=1e-3)
    assert metrics["stress_mae_gpa"] == pytest.approx(
        np.abs(predicted["stress_gpa"] - test.stress_gpa).mean(), rel=1e-3
    )
    error = np.concatenate(predicted["magmoms_mub"]) - np.abs(test.magmoms_mub)
    assert metrics["magmom_mae_mub"] == pytest.approx(np.abs(error).mean(), rel=1e-3)
    assert result.metrics["validation"]["loss"] == result.history["validation_loss"].min()


def test_run_json_says_what_the_run_was(run):
    about = json.loads((run[0].out / "run.json").read_text())
    assert about["method"] == "4"
    assert about["settings"]["batch_size"] == 8
    assert about["split"]["train"]["n_frames"] == 16
    assert about["metrics"] == run[0].metrics
    assert {"torch", "chgnet", "lightning", "crossfunc"} <= set(about["versions"])


def test_a_finished_run_is_read_back_at_once(run, frames):
    again = train(frames, out=run[0].out)
    assert torch.equal(weights(again.model), weights(run[0].model))
    assert torch.equal(weights(again.last_model), weights(run[0].last_model))
    assert again.metrics == run[0].metrics
    pd.testing.assert_frame_equal(again.history, run[0].history)
    np.testing.assert_array_equal(again.references.energies_ev, run[0].references.energies_ev)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(run, frames):
    random_state = torch.get_rng_state()
    same, other = train(frames), train(frames, seed=1)
    assert torch.equal(weights(same.last_model), weights(run[0].last_model))
    assert not torch.equal(weights(other.last_model), weights(run[0].last_model))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_nothing_is_left_behind_where_nobody_asked(frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    levels = logging.getLogger("lightning.pytorch").level
    filters = list(warnings.filters)
    assert train(frames, n_epochs=1).out is None
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger("lightning.pytorch").level == levels
    assert warnings.filters == filters


def test_a_progress_bar_shows_both_errors(frames, capsys):
    train(frames, n_epochs=1, progress=True)
    printed = capsys.readouterr().out
    assert "E meV/atom" in printed
    assert "F meV/Å" in printed


# --- the same numbers as chgnet's own trainer ---


def chgnet_batches(frames, order, batch_size):
    """Graphs and labels of the same steps, as chgnet's data loader would give them."""
    graph = import_chgnet("chgnet.graph").CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3)
    for start in range(0, len(order), batch_size):
        part = frames.take(order[start : start + batch_size])
        moments = [torch.tensor(m) for m in part.crystals.split(part.magmoms_mub)]
        yield (
            [graph(structure) for structure in part.crystals.to_structures()],
            {
                "e": torch.tensor(part.energy_per_atom_ev, dtype=torch.float32),
                "f": [torch.tensor(f) for f in part.crystals.split(part.forces_ev_per_a)],
                "s": [torch.tensor(s) for s in part.stress_gpa],
                "m": [None if torch.isnan(m).any() else m.abs() for m in moments],
            },
        )


def test_the_first_twenty_losses_are_those_of_chgnets_trainer():
    """Same batches, Adam, constant rate, Huber loss 3/1/0.1/1; some frames without moments."""
    frames = small_frames(40, max_atoms=5)
    moments = frames.magmoms_mub.copy()
    moments[frames.crystals.owners % 7 == 0] = np.nan
    frames = with_labels(frames, magmoms_mub=moments)
    split = {"train": np.arange(40), "validation": np.array([0])}
    overlapping = joined(frames, with_labels(frames.take([0]), frame_ids=np.array(["again"])))
    split["validation"] = np.array([40])
    ours = StepLosses()
    settings = {"n_epochs": 2, "batch_size": 4, "final_learning_rate_fraction": 1.0}
    finetune(3, overlapping, split=split, callbacks=[ours], progress=False, **settings)

    model = xf.load_model("0.3.0")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = import_chgnet("chgnet.trainer").Trainer(
            model,
            targets="efsm",
            criterion="Huber",
            energy_loss_ratio=3,
            force_loss_ratio=1,
            stress_loss_ratio=0.1,
            mag_loss_ratio=1,
            learning_rate=1e-3,
            scheduler="CosLR",
            scheduler_params={"decay_fraction": 1},
            use_device="cpu",
        )
        theirs = []
        criterion = trainer.criterion
        trainer.criterion = lambda *given: (out := criterion(*given), theirs.append(out["loss"].item()))[0]
        for epoch in range(2):
            order = step_order(40, seed=0, epoch=epoch)
            trainer._train(list(chgnet_batches(frames, order, 4)), epoch)
    assert len(theirs) == 20
    np.testing.assert_allclose(ours.losses, theirs, rtol=1e-4)


# --- what settings do ---


def test_every_frame_is_seen_once_an_epoch_in_an_order_of_its_own(frames):
    seen = StepLosses()
    train(frames, callbacks=[seen])
    first, second = seen.orders[:2], seen.orders[2:]
    assert sorted(chain(*first)) == sorted(chain(*second)) == SPLIT["train"].tolist()
    assert first != second


def test_steps_in_many_parts_are_the_same_steps(frames):
    whole, parts = (train(frames, precision="64", **more) for more in ({}, {"max_angles": 200}))
    torch.testing.assert_close(weights(parts.last_model), weights(whole.last_model), rtol=0, atol=1e-10)


def test_workers_that_build_graphs_ahead_change_nothing(frames):
    alone, ahead = train(frames), train(frames, n_workers=1)
    assert torch.equal(weights(alone.last_model), weights(ahead.last_model))


def test_max_steps_gives_every_training_set_the_same_budget(frames):
    few = {**SPLIT, "train": SPLIT["train"][:3]}
    for split, epochs in ((SPLIT, 3), (few, 5)):
        result = train(frames, split=split, max_steps=5, validate_every_n_epochs=2, final_learning_rate_fraction=0.5)
        assert result.history["step"].iloc[-1] == 5
        assert result.history["epoch"].iloc[-1] == epochs
        assert result.history["learning_rate"].iloc[-1] == pytest.approx(5e-4)
    assert result.history["epoch"].tolist() == [0, 2, 4, 5]


def test_clipping_bounds_the_gradient_that_the_optimiser_sees(frames):
    free, clipped = StepLosses(), StepLosses()
    train(frames, n_epochs=1, callbacks=[free])
    result = train(frames, n_epochs=1, gradient_clip=0.01, callbacks=[clipped])
    assert min(free.norms) > 0.01
    assert max(clipped.norms) == pytest.approx(0.01, rel=1e-4)
    assert result.history["gradient_norm"].iloc[-1] > 0.01  # reported as it was


def test_the_moving_average_is_what_is_validated_and_kept(frames):
    plain, slow = train(frames), train(frames, ema_decay=1.0)
    start = train(frames, n_epochs=0)
    assert torch.equal(weights(slow.last_model), weights(start.model))  # an average that never moves
    assert len(set(slow.history["validation_loss"])) == 1
    assert slow.history["train_loss"].iloc[1] == plain.history["train_loss"].iloc[1]
    fast = train(frames, ema_decay=0.0)
    assert torch.equal(weights(fast.last_model), weights(plain.last_model))


def test_early_stopping_counts_validations_without_gain_and_the_best_model_is_kept(frames, tmp_path):
    settings = {"learning_rate": 0.05, "n_epochs": 20, "early_stopping_patience": 2, "out": tmp_path / "run"}
    result = train(frames, final_learning_rate_fraction=1.0, **settings)
    loss = result.history["validation_loss"]
    assert len(loss) < 21
    assert loss.idxmin() == len(loss) - 3 == result.best_epoch
    assert result.metrics["validation"]["loss"] == pytest.approx(loss.min(), rel=1e-6)
    again = train(frames, final_learning_rate_fraction=1.0, **settings)
    assert len(again.history) == len(loss)


def test_double_precision_is_double_all_the_way(frames):
    result = train(frames, precision="64", n_epochs=1)
    assert next(result.model.parameters()).dtype == torch.float64


def test_mixed_precision_is_asked_of_the_gpu_and_taken_back(frames):
    class Look(Callback):
        def on_train_batch_end(self, *_):
            self.found = torch.get_float32_matmul_precision()

    look = Look()
    result = train(frames, precision="tf32", n_epochs=1, callbacks=[look])
    assert look.found == "high"
    assert torch.get_float32_matmul_precision() == "highest"
    assert next(result.model.parameters()).dtype == torch.float32


def test_adamw_decays_what_adam_leaves(frames):
    adam, adamw = train(frames), train(frames, optimizer="adamw", weight_decay=10.0)
    assert weights(adamw.last_model)[:-94].norm() < weights(adam.last_model)[:-94].norm()


def test_tensorboard_writes_into_the_run(frames, tmp_path):
    train(frames, n_epochs=1, logger="tensorboard", out=tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    with pytest.raises(SettingsError, match="tensorboard writes into the run folder"):
        train(frames, logger="tensorboard")


# --- methods ---


def test_only_method_two_moves_the_references(frames):
    published = element_references(xf.load_model("0.3.0"))
    for method in (2, 3):
        moved = element_references(train(frames, method, n_epochs=1).last_model) != published
        assert moved[np.isfinite(published)].any() == (method == 2)


def test_references_only_takes_no_step_and_model_aware_only_if_told(frames, tmp_path):
    result = train(frames, "references-only", out=tmp_path / "run", n_epochs=0)
    assert result.history["step"].tolist() == [0]
    assert result.metrics["validation"]["loss"] == result.history["validation_loss"][0]
    again = train(frames, "references-only", out=tmp_path / "run", n_epochs=0)
    assert again.metrics == result.metrics
    four = train(frames, 4)
    assert four.history["validation_loss"][0] == result.history["validation_loss"][0]
    aware = finetune("model-aware", frames, split=SPLIT, progress=False)
    assert len(aware.history) == 1
    assert len(train(frames, "model-aware", n_epochs=1).history) == 2
    with pytest.raises(SettingsError, match="references-only does not train"):
        train(frames, "references-only")


# --- labels that are missing ---


def test_a_test_part_without_labels_has_no_errors_and_ends_the_run_as_any(frames, tmp_path):
    """Files hold no NaN: the run failed when all its training was done, and again at each call."""
    split = thirds(len(frames))
    rows = split["test"]
    atoms = frames.crystals.atom_indices(rows)
    labels = {name: getattr(frames, name).copy() for name in ("energy_per_atom_ev", "stress_gpa")}
    labels |= {name: getattr(frames, name).copy() for name in ("forces_ev_per_a", "magmoms_mub")}
    for name, values in labels.items():
        values[rows if name in ("energy_per_atom_ev", "stress_gpa") else atoms] = np.nan
    bare = replace_labels(frames, **labels)
    options = {"split": split, "n_epochs": 1, "out": tmp_path / "run"}
    first, again = (train(bare, **options) for _ in range(2))
    assert first.metrics["test"]["loss"] is None
    assert first.metrics["validation"]["loss"] > 0
    assert again.metrics == first.metrics


def test_labels_missing_in_some_frames_leave_the_others_alone(frames):
    stress, moments = frames.stress_gpa.copy(), frames.magmoms_mub.copy()
    stress[::2] = np.nan
    moments[:] = np.nan
    result = train(with_labels(frames, stress_gpa=stress, magmoms_mub=moments))
    assert torch.isfinite(weights(result.last_model)).all()
    assert result.history["magmoms_loss_share"].iloc[-1] == 0
    assert result.metrics["test"]["magmom_mae_mub"] is None
    assert result.metrics["test"]["stress_mae_gpa"] > 0


def test_energies_alone_train_without_derivatives(frames):
    nothing = np.full_like(frames.forces_ev_per_a, np.nan)
    bare = with_labels(frames, forces_ev_per_a=nothing, stress_gpa=np.full_like(frames.stress_gpa, np.nan))
    result = train(bare)
    assert result.metrics["test"]["force_mae_mev_per_a"] is None
    assert result.history["energy_loss_share"].iloc[-1] > 0
    ignored = train(frames, force_weight=0, stress_weight=0)
    assert ignored.metrics["test"]["force_mae_mev_per_a"] > 0  # measured, though not trained on
    torch.testing.assert_close(weights(ignored.last_model), weights(result.last_model), rtol=0, atol=1e-6)


def test_frames_without_any_label_are_refused_before_training(frames):
    empty = {
        name: np.full_like(getattr(frames, name), np.nan)
        for name in ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")
    }
    with pytest.raises(DatasetError, match="none of the 16 train frames has a label with a weight"):
        train(with_labels(frames, **empty))
    no_energy = with_labels(frames, energy_per_atom_ev=empty["energy_per_atom_ev"])
    with pytest.raises(AtomRefError, match="none of the 16 training frames has an energy"):
        train(no_energy)
    assert train(no_energy, 3, n_epochs=1).metrics["test"]["energy_mae_mev_per_atom"] is None


def test_an_element_without_reference_is_refused_by_name(frames):
    numbers = frames.crystals.atomic_numbers.copy()
    numbers[frames.crystals.owners == 0] = 84  # no Po in the data of that checkpoint
    crystals = type(frames.crystals)(
        numbers, frames.crystals.frac_coords, frames.crystals.lattices_a, frames.crystals.n_atoms
    )
    with pytest.raises(AtomRefError, match="no element reference for Po"):
        train(with_labels(frames, crystals=crystals), 3, pretrained="r2scan")


def test_a_frame_without_graph_is_refused_before_training(frames):
    lattices = frames.crystals.lattices_a.copy()
    lattices[5] *= 10
    crystals = type(frames.crystals)(
        frames.crystals.atomic_numbers, frames.crystals.frac_coords, lattices, frames.crystals.n_atoms
    )
    with pytest.raises(GraphError, match=str(frames.frame_ids[5])):
        train(with_labels(frames, crystals=crystals))


# --- other bad input ---


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": [0, 1]}, "expected train, validation and perhaps test, got train"),
        ({"train": [0], "validation": [1], "tset": [2]}, "got train, validation, tset"),
        ({"train": [0, 1], "validation": [1, 2]}, "more than once, first of all"),
        ({"train": [0, 99], "validation": [1]}, "between 0 and 23"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(frames, split, message):
    with pytest.raises(SettingsError, match=message):
        train(frames, split=split)


def test_a_part_without_frames_is_refused(frames):
    with pytest.raises(DatasetError, match="no validation frames"):
        train(frames, split={"train": [0, 1], "validation": []})


def test_fractions_split_by_material(frames):
    result = train(frames, split=(0.5, 0.25, 0.25), n_epochs=0, method="references-only")
    groups = [set(frames.material_ids[rows]) for rows in result.split.values()]
    assert not groups[0] & groups[1]
    assert sum(len(rows) for rows in result.split.values()) == 24


def test_unknown_methods_and_models_are_refused(frames, tmp_path):
    with pytest.raises(MethodError, match="no method 5"):
        train(frames, 5)
    file = tmp_path / "model.pt"
    file.write_bytes(b"PK\x03\x04 half an archive")
    with pytest.raises(CheckpointError, match="truncated"):
        train(frames, pretrained=file)


def test_without_lightning_the_remedy_is_named(frames, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'crossfunc\[train\]'"):
        train(frames)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_written(frames, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch 1: the (training|validation) loss is nan"):
        train(frames, learning_rate=1e30, out=tmp_path / "run", n_epochs=3)
    assert pd.read_csv(tmp_path / "run" / "history.csv")["epoch"].tolist() == [0]


# --- resuming ---


class Stop(Callback):
    """Ends a run as a crash would, in the middle of an epoch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.n_steps_done == self.step:
            raise InterruptedError


@pytest.fixture(scope="module")
def whole(frames):
    """Weights of a run in one go, with everything that has a state."""
    return train(frames, n_epochs=3, ema_decay=0.9, gradient_clip=1.0, warmup_steps=2)


@pytest.mark.parametrize("step", [0, 1, 3, 5])
def test_a_run_goes_on_where_it_was(frames, whole, tmp_path, step):
    settings = {"n_epochs": 3, "ema_decay": 0.9, "gradient_clip": 1.0, "warmup_steps": 2, "out": tmp_path / "run"}
    with pytest.raises(InterruptedError):
        train(frames, callbacks=[Stop(step)], **settings)
    resumed = train(frames, **settings)
    assert torch.equal(weights(resumed.last_model), weights(whole.last_model))
    assert torch.equal(weights(resumed.model), weights(whole.model))
    timeless = [column for column in COLUMNS if column != "seconds"]
    pd.testing.assert_frame_equal(resumed.history[timeless], whole.history[timeless])


@pytest.mark.parametrize("n_writes", [1, 2, 4, 6, 8, 11, 13])
def test_a_disk_that_fills_up_at_any_file_loses_nothing(frames, run, tmp_path, monkeypatch, n_writes):
    """Files are written in the order run, history, then history, best (2), last, checkpoint every epoch, run."""
    left = [n_writes]

    def fill_up(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
            train(frames, out=out)
    assert not list(out.glob(".*"))
    for file in out.glob("*.pt"):
        xf.load_model(file)
    resumed = train(frames, out=out)
    assert torch.equal(weights(resumed.last_model), weights(run[0].last_model))
    assert resumed.history["epoch"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_to_the_same_bytes_with_another_number_of_threads(frames, tmp_path, first, then):
    settings, before = {"n_epochs": 2, "gradient_clip": 1.0}, torch.get_num_threads()
    try:
        torch.set_num_threads(first)
        train(frames, out=tmp_path / "peace", **settings)
        with pytest.raises(InterruptedError):
            train(frames, out=tmp_path / "run", callbacks=[Stop(3)], **settings)
        torch.set_num_threads(then)
        resumed = train(frames, out=tmp_path / "run", **settings)
    finally:
        torch.set_num_threads(before)
    for name in ("best.safetensors", "best.pt", "last.pt", "references.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "peace" / name).read_bytes(), name
    assert json.loads((tmp_path / "run" / "run.json").read_text())["computed_with"]["n_parts"] == first
    assert not any("rounding" in note for note in resumed.notes)


def test_a_run_that_goes_on_with_other_parts_says_that_it_rounds_otherwise(frames, tmp_path):
    with pytest.raises(InterruptedError):
        train(frames, out=tmp_path / "run", callbacks=[Stop(3)])
    resumed = train(frames, out=tmp_path / "run", max_angles=50)
    assert "max_angles None before, 50 now" in resumed.notes[-1]
    assert "but for the rounding" in resumed.notes[-1]
    assert train(frames, out=tmp_path / "run", max_angles=50).notes == resumed.notes  # read back


class Signal(Callback):
    """Sends this process a signal at a step."""

    def __init__(self, number, step=3):
        self.number, self.step = number, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.n_steps_done == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_an_interruption_and_never_a_quiet_end(frames, run, tmp_path, name):
    """Lightning ends the process with status 0 after SIGTERM, 1 after Ctrl-C, and leaves Ctrl-C without effect."""
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(frames, out=tmp_path / "run", callbacks=[Signal(getattr(signal, name))])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    resumed = train(frames, out=tmp_path / "run")
    assert torch.equal(weights(resumed.last_model), weights(run[0].last_model))


def test_a_worker_that_is_killed_is_told(frames, tmp_path):
    class Kill(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            for child in multiprocessing.active_children():
                with contextlib.suppress(ProcessLookupError):  # it ended by itself in between
                    os.kill(child.pid, signal.SIGKILL)
                child.join()

    with pytest.raises(ValueError, match=r"a process that builds graphs ahead was killed.*n_workers=0"):
        train(frames, out=tmp_path / "run", callbacks=[Kill()], n_workers=1, n_epochs=20)


def test_two_runs_in_one_folder_refuse_each_other(frames, tmp_path):
    with locked_folder(tmp_path / "run"), pytest.raises(FolderInUse, match="another process is writing here now"):
        train(frames, out=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_start_that_was_killed_in_its_first_write_is_no_other_run(frames, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".run.json.k2x9.part").write_text('{"method": "4", "func')
    (out / ".lock").touch()
    train(frames, out=out, n_epochs=0)
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("where", ["a file", "under a file", "a link to nowhere"])
def test_a_folder_that_cannot_be_made_is_told(frames, tmp_path, where):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "no" / "where")
    out = {"a file": "file", "under a file": "file/run", "a link to nowhere": "link"}[where]
    with pytest.raises(RunError, match=r"choose another"):
        train(frames, out=tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_another_run_is_left_alone(run, frames):
    out = run[0].out
    with pytest.raises(RunError) as caught:
        train(frames, 3, out=out, learning_rate=2e-3, seed=4)
    message = str(caught.value)
    assert "method: '4' there, '3' now" in message
    assert "learning_rate: 0.001 there, 0.002 now" in message
    assert "seed: 0 there, 4 now" in message
    assert "batch_size" not in message
    energies = frames.energy_per_atom_ev + 0.001
    with pytest.raises(RunError, match=r"data\.fingerprint"):
        train(with_labels(frames, energy_per_atom_ev=energies), out=out)
    with pytest.raises(RunError, match=r"split\.train\.sha256|split\.train"):
        train(frames, out=out, split={**SPLIT, "train": SPLIT["train"][::-1]})
    with pytest.raises(RunError, match="holds a run already"):
        train(frames, out=out, resume=False)
    train(frames, out=out, n_workers=2, logger="csv", compile=True)  # where and how fast, not what


def test_given_rates_are_written_down_and_other_ones_are_another_run(frames, tmp_path):
    given = {"out": tmp_path / "run", "n_epochs": 2, "batch_size": 8}
    n_steps = int(train(frames, **given | {"out": None}).history["step"].iloc[-1])
    rates = np.linspace(1e-4, 2e-4, n_steps)
    first = train(frames, callbacks=[GivenRates(rates)], **given)
    assert first.history["learning_rate"].tolist()[1:] == [rates[n_steps // 2 - 1], rates[-1]]
    again = train(frames, callbacks=[GivenRates(rates.tolist())], **given)
    assert torch.equal(weights(again.model), weights(first.model))
    for other in ((GivenRates(2 * rates),), ()):
        with pytest.raises(RunError, match="learning_rates: '"):
            train(frames, callbacks=other, **given)


def test_a_folder_with_something_else_is_left_alone(frames, tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(RunError, match=r"exists and holds no run\.json"):
        train(frames, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_checkpoint_is_named_and_the_models_stay(frames, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InterruptedError):
        train(frames, out=out, callbacks=[Stop(3)])
    whole = (out / "last.ckpt").read_bytes()
    (out / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"last\.ckpt: cannot be read .* Delete it to start the run anew"):
        train(frames, out=out)
    xf.load_model(out / "best.pt")
    (out / "last.ckpt").unlink()
    assert train(frames, out=out).history["epoch"].tolist() == [0, 1, 2]


# --- the command ---


def write_small(path, frames):
    import pyarrow as pa

    crystals = frames.crystals
    n_atoms = len(crystals.atomic_numbers)
    xyz = [frames.forces_ev_per_a, crystals.frac_coords]
    forces, coords = ([part.ravel().tolist() for part in crystals.split(values)] for values in xyz)
    assert n_atoms == crystals.n_atoms.sum()
    table = pa.table(
        {
            "frame_id": frames.frame_ids,
            "material_id": frames.material_ids,
            "functional": ["r2scan"] * len(frames),
            "energy_kind": ["raw"] * len(frames),
            "atomic_numbers": [z.tolist() for z in crystals.split(crystals.atomic_numbers)],
            "lattice_a": crystals.lattices_a.reshape(-1, 9).tolist(),
            "frac_coords": coords,
            "energy_per_atom_ev": frames.energy_per_atom_ev,
            "forces_ev_per_a": forces,
            "stress_gpa": frames.stress_gpa.reshape(-1, 9).tolist(),
            "magmoms_mub": [m.tolist() for m in crystals.split(frames.magmoms_mub)],
        }
    )
    words = ("name", "version", "licence", "citation", "provenance", "label_notice")
    meta = dict.fromkeys(words, "small") | {"functionals": describe_functionals("GGA", "r²SCAN")}
    return xf.write_dataset(path, meta=meta, frames=table)


def test_the_command_trains_and_prints_what_came_out(frames, tmp_path):
    from crossfunc.cli import app

    write_small(tmp_path / "data", frames)
    command = ["finetune", "--method", "4", "--dataset", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    options = ["--epochs", "1", "--batch-size", "8", "--set", "energy_weight=2", "--set", "precision=64"]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    assert "energy_mae_mev_per_atom" in done.output
    assert "method 4: transfer, refitted references" in done.output
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["settings"]["energy_weight"] == 2
    assert about["data"]["name"] == "small"
    again = CliRunner().invoke(app, [*command, *options, "--json"])
    printed = json.loads(again.stdout)
    assert printed["metrics"] == about["metrics"]
    assert printed["n_epochs"] == 1
    assert not math.isnan(printed["seconds"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "9"], "no method '9'"),
        (["--method", "4", "--dataset", "nowhere"], "no dataset 'nowhere'"),
        (["--method", "4", "--set", "epochs=3"], "no setting 'epochs'; did you mean n_epochs?"),
        (["--method", "4", "--set", "seed"], "--set seed: expected name=value"),
        (["--method", "4", "--learning-rate", "-1"], "learning_rate: expected a number >= 0"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_block(tmp_path, options, message):
    from crossfunc.cli import app

    command = ["finetune", "--dataset", "surrogate", "--out", str(tmp_path / "run"), *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert done.output.startswith("error: ")
    assert message in done.output
    assert not (tmp_path / "run").exists()


def test_frames_are_the_same_from_a_dataset_or_in_arrays(frames, tmp_path):
    dataset = write_small(tmp_path / "data", frames)
    assert LabelledFrames.from_dataset(dataset).fingerprint() == frames.fingerprint()
