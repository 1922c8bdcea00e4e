"""The Lightning module: what one optimiser step, one validation and one checkpoint are."""

import functools
import io
import math
import time
from collections.abc import Sequence

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crossfunc.potential.checkpoints import write_bytes
from crossfunc.potential.forward import forward
from crossfunc.potential.native import is_native
from crossfunc.potential.parallel import map_batches, max_angles_on, n_batches_at_a_time
from crossfunc.training.batches import step_loader
from crossfunc.training.labels import METRICS, TARGETS, LabelledFrames
from crossfunc.training.loss import LossSettings, batch_loss
from crossfunc.training.settings import Settings, learning_rate_at
from crossfunc.training.steps import differentiate_parts
from crossfunc.training.strategies import Pull, Strategy
from crossfunc.training.tally import Tally

COLUMNS = (
    *("epoch", "step", "learning_rate", "train_loss", "validation_loss"),
    *(f"{part}_{name}" for part in ("train", "validation") for name in METRICS.values()),
    *(f"{target}_loss_share" for target in TARGETS),
    *("gradient_norm", "seconds"),
)
"""Columns of the history; NaN where there are no labels, and for training at epoch 0."""

_NORM_PIECE = 16_384
VALIDATION_BATCH = 64  # frames; the bound on angles cuts them to what fits


class TrainingError(ValueError):
    """A run that cannot start or go on; the message says what is wrong and what to change."""


class SummedGradients(DDPStrategy):
    """Lightning's process handling without DistributedDataParallel around the model.

    Each process divides its losses by label counts of the whole batch, so gradients have to be summed, not averaged;
    a process whose frames have no angles has no gradient for the angle layers, where DDP's reducer would wait for one;
    and the forces' double backward runs through the same parameters twice, which it does not expect. The module adds
    up one flat gradient instead.
    """

    def configure_ddp(self) -> None:
        """Give every process the weights of the first, in place of wrapping the model."""
        for tensor in self.model.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


class TrainingModule(pl.LightningModule):
    """A CHGNet, its frames and settings, in the terms of Lightning.

    Parameters
    ----------
    model : CHGNet
        Trained in place; parameters without `requires_grad` stay as they are.
    frames : LabelledFrames
    split : dict of str to ndarray
        Indices of `train` and `validation`.
    settings : Settings
    n_steps : int
        Optimiser steps of the whole run.
    strategy : Strategy, optional
        What the method adds to the loop; the model is prepared by it.
    stiffness : Tensor or float, optional
        Strength of the strategy's pull to the weights that the model has now.
    source_rows : ndarray, optional
        Frames that join the steps beside those of the split, as many as the strategy says.
    n_parts : int, optional
        Cut every step into a multiple of this many parts; default: one for each thread. Not how many are computed at
        a time: with equal parts, a run has equal weights whatever number of threads it has.

    Attributes
    ----------
    history : list of dict
        One row a validation; part of the checkpoint.
    best_state : dict of str to Tensor
        Weights with the lowest validation loss so far, on the CPU; part of the checkpoint.
    rate : float
        Learning rate of the last step, of parameters whose factor on it is 1.
    """

    def __init__(
        self,
        model,
        frames: LabelledFrames,
        split: dict[str, np.ndarray],
        settings: Settings,
        n_steps: int,
        *,
        strategy: Strategy | None = None,
        stiffness=None,
        source_rows: np.ndarray | None = None,
        n_parts: int | None = None,
    ):
        super().__init__()
        self.n_parts = n_parts
        self.automatic_optimization = False
        self.model = model
        self.ema = _averaged(model, settings.ema_decay)
        self.frames, self.split, self.settings, self.n_steps = frames, split, settings, n_steps
        self.loss_settings = loss_settings(settings)
        self.model_dtype = next(model.parameters()).dtype
        self.strategy, self.source_rows = strategy or Strategy(), source_rows
        seen = split["train"] if source_rows is None else np.concatenate([split["train"], source_rows])
        self.derivatives = needs_derivatives(frames, seen, settings)
        self.is_pulled = stiffness is not None
        if self.is_pulled:  # buffers: a resumed run is pulled to the start, not to where it went on
            start = _flat([p for p in model.parameters() if p.requires_grad])
            self.register_buffer("pull_start", start)
            self.register_buffer("pull_stiffness", torch.as_tensor(stiffness).to(start))
        self.history: list[dict] = []
        self.rate = math.nan
        self.best_state: dict[str, torch.Tensor] = {}
        self.best_loss = math.inf
        self.n_epochs_done = self.n_steps_done = self.n_without_gain = 0
        self.has_new_row = False
        self.on_row = lambda: None
        self._rank, self._n_processes, self._validation, self._root_device = 0, 1, None, None

    @property
    def validated_model(self):
        """The weights that are validated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken, or the validation loss has not fallen for too long."""
        patience = self.settings.early_stopping_patience
        return self.n_steps_done >= self.n_steps or (patience is not None and self.n_without_gain >= patience)

    # --- what Lightning asks for ---

    def train_dataloader(self):
        """Batches of this process, from the epoch at which the run stands."""
        self._rank, self._n_processes = self.trainer.global_rank, self.trainer.world_size
        self._root_device = self.device  # Lightning moves the module back to the CPU when it is done
        self._loader = self._batches("train", shuffle=True)
        self._loader.set_epoch(self.n_epochs_done)  # Lightning makes its first iterator before it says the epoch
        self._validation = self._batches("validation")
        return self._loader

    def configure_optimizers(self):
        """Adam or AdamW over the trainable parameters, whose gradients are views of one flat vector."""
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._gradient = self._trainable[0].new_zeros(sum(p.numel() for p in self._trainable))
        views = self._gradient.split([p.numel() for p in self._trainable])
        self._views = [view.view_as(p) for view, p in zip(views, self._trainable, strict=True)]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.settings.optimizer]
        return kind(self._groups(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True)

    def _groups(self) -> list[dict]:
        """Trainable parameters by the factor on their learning rate; one group where it is 1 for all."""
        groups: dict[float, list] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self.strategy.rate_factor(name), []).append(parameter)
        return [{"params": members, "factor": factor} for factor, members in groups.items()]

    def transfer_batch_to_device(self, batch, device, dataloader_idx):  # noqa: ARG002, Lightning's signature
        """Move a batch and bring its floating-point tensors to the model's precision."""
        return batch.to(device, self.model_dtype)

    def training_step(self, batch, batch_idx: int) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Take one optimiser step on one batch, part by part; return this process's share of its loss."""
        self._gradient.zero_()
        for parameter, view in zip(self._trainable, self._views, strict=True):
            parameter.grad = view  # whoever set it to None would cut the parameter off
        total = self._gradient.new_zeros(())
        for part in differentiate_parts(
            self.model,
            batch,
            self._trainable,
            self.loss_settings,
            derivatives=self.derivatives,
            compile=self.settings.compile,
        ):
            total += part.loss
            self._tally.add(part.terms, part.abs_errors, batch.n_labels)
            found = [(v, g) for v, g in zip(self._views, part.gradients, strict=True) if g is not None]
            torch._foreach_add_(*map(list, zip(*found, strict=True)))
        self._tally.count(batch.n_labels)
        if batch.weight != 1:  # so that a frame counts the same in a step with source frames and in one without
            self._gradient *= batch.weight
        self._step()
        return {"loss": total}

    def _step(self) -> None:
        """Add the gradient up over processes, clip it, step, and move the average."""
        if self._n_processes > 1:
            torch.distributed.all_reduce(self._gradient)
        if self.is_pulled:  # the same on every process, so after the sum
            self._gradient += Pull(self.pull_start, self.pull_stiffness).gradient(_flat(self._trainable))
        # a sum in pieces that one thread adds up: the same to the last bit with any number of threads
        norm = torch.stack(torch._foreach_norm(self._gradient.split(_NORM_PIECE))).norm()
        self._norms += norm
        if self.settings.gradient_clip is not None:
            self._gradient *= (self.settings.gradient_clip / (norm + 1e-12)).clamp(max=1.0)
        optimizer = self.optimizers()
        self.rate = learning_rate_at(self.n_steps_done, self.n_steps, self.settings)
        for group in optimizer.param_groups:
            group["lr"] = self.rate * group.get("factor", 1.0)
        optimizer.step()  # within it, `GivenRates` sets another rate
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.n_steps_done += 1
        if self.n_steps_done >= self.n_steps:
            self.trainer.should_stop = True

    # --- epochs and rows of the history ---

    def on_train_start(self) -> None:
        """Measure the model as it comes: the row of epoch 0, without which nobody sees what training did."""
        if not self.history:
            self.add_first_row()
        self._new_row()

    def add_first_row(self) -> None:
        """Add the row of epoch 0; errors and losses of training are not known there."""
        self._new_row()
        self._add_row({})

    def on_train_epoch_end(self) -> None:
        """Count the epoch; at every so many, and at the last, validate and add a row."""
        self.n_epochs_done += 1
        self._loader.set_epoch(self.n_epochs_done)
        finished = self.n_steps_done >= self.n_steps
        self.has_new_row = finished or self.n_epochs_done % self.settings.validate_every_n_epochs == 0
        if self.has_new_row:
            self._add_row(self._training_figures())
            self._new_row()
            self.trainer.should_stop |= self.is_done

    def _new_row(self) -> None:
        self._tally = Tally(self.device)
        self._norms = torch.zeros((), device=self.device, dtype=self.model_dtype)
        self._row_start = (self.n_steps_done, time.perf_counter())

    def _training_figures(self) -> dict:
        loss, shares, metrics = self._tally.read(self._n_processes)
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {self.n_epochs_done}: the training loss is {loss}. Lower learning_rate, add warmup_steps or "
                "set gradient_clip. What earlier epochs wrote is still there."
            )
        n_steps = max(1, self.n_steps_done - self._row_start[0])
        figures = {"learning_rate": self.rate, "train_loss": loss, "gradient_norm": (self._norms / n_steps).item()}
        figures |= {f"train_{name}": value for name, value in metrics.items()}
        return figures | {f"{target}_loss_share": share for target, share in shares.items()}

    def _add_row(self, figures: dict) -> None:
        measured = self.evaluate(self.validated_model, "validation")
        loss = measured["loss"]
        if not math.isfinite(loss):
            raise TrainingError(f"epoch {self.n_epochs_done}: the validation loss is {loss}; lower learning_rate.")
        figures = {
            "epoch": self.n_epochs_done,
            "step": self.n_steps_done,
            "validation_loss": loss,
            **{f"validation_{name}": value for name, value in measured.items() if "_mae_" in name},
            "seconds": time.perf_counter() - self._row_start[1],
            **figures,
        }
        row = {column: math.nan if figures.get(column) is None else figures[column] for column in COLUMNS}
        self.history.append(row)
        self.n_without_gain += 1
        if loss < self.best_loss:
            self.best_loss, self.n_without_gain = loss, 0
            self.best_state = copy_weights(self.validated_model)
        self.on_row()
        if self.logger is not None:
            self.logger.log_metrics({k: v for k, v in row.items() if not math.isnan(v)}, self.n_steps_done)

    def evaluate(self, model, part: str) -> dict:
        """Loss and errors of a model on one part of the split, shared among the processes."""
        loader = self._validation if part == "validation" and self._validation else self._batches(part)
        derivatives = needs_derivatives(self.frames, self.split[part])
        tally = measure(model.to(self._root_device or self.device), loader, self.loss_settings, derivatives=derivatives)
        loss, _, metrics = tally.read(self._n_processes)
        # None without labels, as an error without labels is: files hold no NaN.
        found = loss if any(tally.n_labels.values()) else None
        return {"n_frames": len(self.split[part]), "loss": found, **metrics}

    def _batches(self, part: str, *, shuffle: bool = False):
        native = is_native(self.model)
        compiled = self.settings.compile and not native
        return step_loader(
            self.frames,
            self.split[part],
            batch_size=self.settings.batch_size if shuffle else VALIDATION_BATCH,
            seed=self.settings.seed,
            shuffle=shuffle,
            rank=self._rank,
            world_size=self._n_processes,
            max_angles=self.settings.max_angles or max_angles_on(self.device, compiled=compiled),
            n_parts=self.n_parts or n_batches_at_a_time(self.device),
            n_workers=self.settings.n_workers,
            source=self.source_rows if shuffle else None,
            source_share=self.strategy.source_share,
            source_apart=self.strategy.has_source_readout,
            keep_bonds=True,
            with_incidences=not native,
        )

    # --- checkpoints ---

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add history, best weights and counters; plain values and tensors, so that nothing is unpickled."""
        checkpoint["crossfunc"] = {name: getattr(self, name) for name in _STATE}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take them back."""
        for name in _STATE:
            setattr(self, name, checkpoint["crossfunc"][name])


_STATE = ("history", "best_state", "best_loss", "n_epochs_done", "n_steps_done", "n_without_gain")


def measure(model, loader, settings: LossSettings, *, derivatives: bool) -> Tally:
    """Sum losses and errors of a model over all batches of a loader, without the graph that training needs."""
    parameter = next(model.parameters())
    tally = Tally(parameter.device)

    def compare(part, n_labels):
        output = forward(model, part.graphs, derivatives=derivatives)
        return batch_loss(output, part.labels, n_labels, settings)[1:]

    with torch.no_grad():
        for batch in loader:
            parts = batch.to(parameter.device, parameter.dtype).micro
            compute = functools.partial(compare, n_labels=batch.n_labels)
            for terms, abs_errors in map_batches(compute, parts, n_threads=n_batches_at_a_time(parameter.device)):
                tally.add(terms, abs_errors, batch.n_labels)
            tally.count(batch.n_labels)
    return tally


def needs_derivatives(frames: LabelledFrames, indices: np.ndarray, settings: Settings | None = None) -> bool:
    """Whether forces or stresses are labelled in these frames and, if settings are given, count in the loss."""
    weights = {"forces": 1.0, "stress": 1.0} if settings is None else settings.weights
    return any(weights[target] and frames.labelled(target)[indices].any() for target in ("forces", "stress"))


def loss_settings(settings: Settings) -> LossSettings:
    """Return the part of the settings that the loss needs."""
    return LossSettings(kind=settings.loss, delta=settings.huber_delta, **settings.weights)


def _flat(parameters) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


def copy_weights(model) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _averaged(model, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.n_averaged += 1  # start from the weights before training; torch would start from those after one step
    return average.requires_grad_(False)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints by way of a file of another name: whoever reads finds the former one or the new one, never half."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:  # noqa: ARG002, Lightning's signature
        """Write a checkpoint."""
        stream = io.BytesIO()
        torch.save(checkpoint, stream)
        write_bytes(path, stream.getvalue())


class RunWriter(Checkpoint):
    """Writes the run folder at every row of the history, after all other callbacks have seen it."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: TrainingModule) -> None:
        """Write models and, last of all, the checkpoint."""
        if pl_module.has_new_row:
            self.folder.save(trainer, pl_module)


class GivenRates(Callback):
    """Sets the learning rate of each step, just before it, in place of the settings' schedule.

    Parameters
    ----------
    rates : sequence of float
        One for each step; the last one holds for any after it.
    """

    def __init__(self, rates: Sequence[float]):
        self.rates = rates

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002, Lightning's signature
        """Set the rate, times the factor of each group of parameters, and tell the module, which writes it down."""
        module.rate = float(self.rates[min(module.n_steps_done, len(self.rates) - 1)])
        for group in optimizer.param_groups:
            group["lr"] = module.rate * group.get("factor", 1.0)


def given_rates(callbacks: Sequence) -> np.ndarray | None:
    """Learning rates that a `GivenRates` among callbacks sets, None without one; of several, the last has its way."""
    found = [one.rates for one in callbacks if isinstance(one, GivenRates)]
    return np.asarray(found[-1], dtype=np.float64) if found else None


class ErrorBar(TQDMProgressBar):
    """Lightning's progress bar with the errors of the epoch so far, read only when the bar is drawn."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: TrainingModule) -> dict:
        """Return what stands behind the bar."""
        errors = pl_module._tally.peek(trainer.world_size)
        shown = {"energy_mae_mev_per_atom": "E meV/atom", "force_mae_mev_per_a": "F meV/Å"}
        return {shown[name]: f"{value:.1f}" for name, value in errors.items()}
