"""`finetune`: a method, a dataset, and a folder in; a trained CHGNet with its history out."""

import contextlib
import copy
import logging
import math
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crossfunc.datasets import Dataset
from crossfunc.endings import Stopped
from crossfunc.potential.checkpoints import element_references
from crossfunc.training.forgetting import measure_forgetting, with_dimers
from crossfunc.training.inputs import read_frames, read_settings, read_split, refuse_unusable_parts
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.methods import Method, as_model, find_method, start_model
from crossfunc.training.result import FinetuneResult, read_back
from crossfunc.training.run_folder import RunFolder, describe_run, plain_models
from crossfunc.training.settings import Settings
from crossfunc.training.source import SourceSplit, join_frames, make_source, split_source
from crossfunc.training.strategies import Strategy


def finetune(
    method: str | int | Method,
    dataset: str | os.PathLike | Dataset | LabelledFrames,
    *,
    out: str | os.PathLike | None = None,
    functional: str = "high",
    split: Mapping[str, Sequence[int]] | Sequence[float] | None = None,
    pretrained="0.3.0",
    references=None,
    prior="auto",
    source=None,
    options: Mapping[str, Any] | None = None,
    callbacks: Sequence = (),
    resume: bool = True,
    progress: bool = True,
    **settings: Any,
) -> FinetuneResult:
    r"""Train a CHGNet on the labels of one functional, by one of `METHODS`.

    Each optimiser step minimises, over one batch of frames, :math:`\sum_t w_t \langle h_\delta(y_t - \hat y_t)\rangle`
    with targets :math:`t` energy per atom, force and stress components and magnetic moments; the mean runs over the
    labels that are there. See `crossfunc.training.loss`.

    Parameters
    ----------
    method : str, int or Method
        Key or number of one of `METHODS`: where weights and element references start, and what is trained.
    dataset : str, path, Dataset or LabelledFrames
    out : str or path, optional
        Folder of the run: models, history, checkpoint. Called again with the same folder, data and settings, a run
        that was killed goes on from its last checkpoint (on the CPU with bit-identical weights at the end, whatever
        number of threads or workers it goes on with; with other devices up to rounding, which is noted), and one that
        has finished is read back.
    functional : str
        "high", "low", or a functional's key or name; whose frames of the dataset to take.
    split : dict, or three floats, optional
        Indices (among the frames of this functional) of `train`, `validation` and, optionally, `test`; or fractions
        of the materials. By default 8:1:1 by material with `split_seed`.
    pretrained : str, path or CHGNet
        Where methods that start from trained weights take them.
    references : optional
        Element references to use instead of those that the method would fit; see `start_model`. "MP-r2SCAN" is the
        published table, with which the paper's own Method 4 was trained.
    prior : str or array_like, shape (94,)
        What refitted references are pulled to: "auto", "trend", "published" or shifts in eV; see `start_model`.
    source : LabelledFrames, Dataset, SourceSplit, str or path, optional
        Frames of the functional that the pretrained model comes from, for methods that hold on to it and for the
        report of what was forgotten; "auto" takes those of the dataset's other functional or, where it has none, the
        training structures with the pretrained model's own labels. None: "auto" for methods that need them, else no
        report. See `crossfunc.training.source`.
    options : mapping, optional
        Other values of the fields of the method's strategy, for example `{"rank": 4}`.
    callbacks : sequence of lightning.pytorch.Callback
        A `GivenRates` alone among them is part of what a run in a folder is: with other rates it is another run.
    resume : bool
        False refuses a folder that holds a run already, even the same one.
    progress : bool
        Show Lightning's progress bar.
    **settings
        Any field of `Settings`: `n_epochs`, `batch_size`, `learning_rate`, `seed`, `devices` ...

    Returns
    -------
    FinetuneResult

    Raises
    ------
    SettingsError, StrategyError, DatasetError, GraphError, AtomRefError
        Before anything is computed: settings that do not exist or make no sense, frames without labels or without a
        graph, elements without a reference.
    RunError
        The folder holds another run; all differences are listed.
    CheckpointError
        A model that cannot be read, or a file that cannot be written (a full disk); what was written stays whole.
    FolderInUse
        Another process runs in the folder at this moment.
    TrainingError
        The loss became NaN or infinite.
    TrainingStopped
        A process that builds graphs was killed.
    KeyboardInterrupt
        Stopped by Ctrl-C or SIGTERM; the same call goes on from the last checkpoint.

    Notes
    -----
    Several devices or nodes go through Lightning: with `devices=4` from a script, under `torchrun` or under SLURM.
    Every step is then computed by all of them together: `batch_size` does not change its meaning, and neither do
    losses and weights, but for rounding. In a notebook, train on one device.
    """
    method = find_method(method).with_options(options or {})
    chosen = read_settings(method, settings, out)
    frames, name, functional = read_frames(dataset, functional)
    parts = read_split(frames, split, chosen)
    refuse_unusable_parts(frames, parts, chosen, name)
    origin = None
    if source is not None or method.needs_source:
        given = None if isinstance(source, str) and source == "auto" else source
        origin = split_source(given, dataset, functional, frames, parts, seed=chosen.split_seed)
    folder = None
    if out is not None and is_first_process():
        about = {"functional": functional, "pretrained": pretrained, "references": references, "name": name}
        about |= {"prior": prior, "source": origin if method.needs_source else None}
        about |= {"learning_rates": _rates_of(callbacks)}
        folder = RunFolder(out, describe_run(method, chosen, frames, parts, **about), method.strategy)
        finished = folder.read_finished(resume=resume)
        if finished is not None:
            done = read_back(folder, finished, method, chosen, parts)
            _read_back_rows(callbacks, folder.load_checkpoint)
            is_whole = done.forgetting is not None and done.forgetting.frame_errors is not None
            if origin is None or (is_whole and finished.get("judged_on") == _judged_on(origin)):
                return done
            return measure_run(done, origin, pretrained)
    elif out is not None:
        folder = RunFolder(out, {}, method.strategy)  # of the first process; the others only read its checkpoint
    run = _Run(method, chosen, frames, parts, folder, origin)
    with folder.held() if folder is not None and is_first_process() else contextlib.nullcontext():
        run.start(pretrained, references, prior)
        run.train(callbacks, progress=progress)
        return run.result(pretrained)


def _read_back_rows(callbacks: Sequence, load_checkpoint: Callable) -> None:
    """Give recorders the rows of a run whose steps are all done; without any, nothing is loaded to ask."""
    if not callbacks:
        return
    from crossfunc.training.recorder import Recorder

    recorders = [callback for callback in callbacks if isinstance(callback, Recorder)]
    if recorders:
        state = load_checkpoint()
        for recorder in recorders:
            recorder.read_back(state)


def _rates_of(callbacks: Sequence):
    """Learning rates that callbacks set step by step; without callbacks, Lightning is not loaded to ask."""
    if not callbacks:
        return None
    from crossfunc.training.module import given_rates

    return given_rates(callbacks)


class TrainingStopped(ValueError):  # noqa: N818 - a state, not a mistake
    """A run that was ended from outside; the message says by what and how to go on."""


class _Run:
    """The stages of one call of `finetune`."""

    def __init__(
        self,
        method: Method,
        settings: Settings,
        frames: LabelledFrames,
        split: dict,
        folder,
        origin: SourceSplit | None,
    ):
        self.method, self.settings, self.frames, self.split, self.folder = method, settings, frames, split, folder
        self.origin = origin

    def start(self, pretrained, references, prior) -> None:
        """Make the model that training starts from."""
        import torch

        from crossfunc.training.module import TrainingModule

        train = self.frames.take(self.split["train"])
        others = np.concatenate([rows for part, rows in self.split.items() if part != "train"])
        with torch.random.fork_rng(devices=[]):  # chgnet draws weights before it loads others over them
            source = self._make_source(pretrained) if self.method.needs_source else None
            model, self.references, self.notes = start_model(
                self.method,
                train,
                pretrained=pretrained,
                seed=self.settings.seed,
                references=references,
                prior=prior,
                other_frames=self.frames.take(others),
                source=source,
            )
            stiffness, source_rows = self._apply_strategy(model, source)
        if self.settings.precision == "64":
            model = model.double()
        steps_per_epoch = math.ceil(len(train) / self.settings.batch_size)
        self.n_steps = self.settings.max_steps or self.settings.n_epochs * steps_per_epoch
        self.n_epochs = math.ceil(self.n_steps / steps_per_epoch)
        n_parts = None
        if self.folder is not None and is_first_process():
            self.references = self.folder.keep_references(self.references)
            self.notes = (*self.notes, *self.folder.description["resumed"])
            n_parts = self.folder.computed_with["n_parts"]
        self.module = TrainingModule(
            model,
            self.frames,
            self.split,
            self.settings,
            self.n_steps,
            strategy=self.method.strategy,
            stiffness=stiffness,
            source_rows=source_rows,
            n_parts=n_parts,
        )

    def _make_source(self, pretrained):
        strategy = self.method.strategy
        return make_source(
            self.origin.pool, as_model(pretrained), seed=self.settings.split_seed, n_frames=strategy.n_frames
        )

    def _apply_strategy(self, model, source) -> tuple:
        """Stiffness of the pull, and rows of the source frames that join the steps, after they joined the frames."""
        from crossfunc.training.module import loss_settings

        strategy = self.method.strategy
        if source is not None:
            labels = "labels of their own" if source.labelled_by == "data" else "the starting model's own labels"
            self.notes = (*self.notes, f"{len(source.frames)} source frames with {labels}.")
        if strategy is None:
            return None, None
        if not strategy.source_share:
            return strategy.stiffness(model, source, loss_settings(self.settings)), None
        replayed = source.frames
        if not strategy.has_source_readout:
            replayed = source.moved_to(element_references(model))
        n = len(self.frames)
        self.frames = join_frames(self.frames, replayed)
        return None, np.arange(n, len(self.frames))

    def train(self, callbacks: Sequence, *, progress: bool) -> None:
        """Run Lightning's loop, from the last checkpoint where there is one."""
        from crossfunc.potential.parallel import keep_freed_memory

        state = None if self.folder is None else self.folder.load_checkpoint()
        if state is not None:
            self.module.load_state_dict(state["state_dict"])
            self.module.on_load_checkpoint(state)
            if is_first_process():
                self.folder.save_history(self.module.history)  # a row may have been written after this checkpoint
        if self.n_steps == 0:
            self.module.to("cuda" if _accelerator(self.settings.accelerator) == "gpu" else "cpu").add_first_row()
        elif self.module.is_done:
            _read_back_rows(callbacks, lambda: state)
        else:
            keep_freed_memory()
            with (
                quiet_lightning(),
                _matmul(self.settings.precision),
                _told_endings(),
                tempfile.TemporaryDirectory() as scratch,
            ):
                trainer = self._trainer(callbacks, progress, self.folder.path if self.folder else scratch)
                trainer.fit(self.module, ckpt_path=self.folder and self.folder.checkpoint, weights_only=True)

    def _trainer(self, callbacks: Sequence, progress: bool, root):
        import lightning.pytorch as pl
        from lightning.pytorch.callbacks import Checkpoint

        from crossfunc.training.module import ErrorBar, RunWriter, SummedGradients, WholeFiles

        s = self.settings
        writer = [] if self.folder is None else [RunWriter(self.folder)]
        callbacks = [*callbacks, *([ErrorBar()] if progress else []), *writer]
        if self.folder is not None and is_first_process():
            self.module.on_row = lambda: self.folder.save_history(self.module.history)
        alone = s.devices == 1 and s.n_nodes == 1
        return pl.Trainer(
            accelerator=_accelerator(s.accelerator),
            devices=s.devices,
            num_nodes=s.n_nodes,
            strategy="auto" if alone else SummedGradients(),
            precision="32-true",  # "64" is our own: Lightning would copy every batch once more
            max_epochs=self.n_epochs,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            logger=self._logger(),
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,  # the module validates: also after the last step of an unfinished epoch
            use_distributed_sampler=False,
            default_root_dir=root,
        )

    def _logger(self):
        if self.settings.logger != "tensorboard":
            return False
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(self.folder.path, name=None, version="tensorboard")

    def result(self, pretrained) -> FinetuneResult:
        """Measure the best model, complete the folder, and return everything."""
        import pandas as pd

        module = self.module
        best, last = copy.deepcopy(module.model), copy.deepcopy(module.model)
        last.load_state_dict(module.validated_model.state_dict())
        best.load_state_dict(module.best_state)
        measured = [part for part in ("validation", "test") if len(self.split.get(part, ()))]
        metrics = {part: module.evaluate(best, part) for part in measured}
        seconds = sum(row["seconds"] for row in module.history)
        strategy = self.method.strategy or Strategy()
        plain, source_model = plain_models(best.cpu().eval(), strategy)
        last, _ = plain_models(last.cpu().eval(), strategy)
        if self.folder is not None and is_first_process():
            folder = self.folder
            if self.n_steps == 0:
                for names in (folder.best_files, folder.last_files):
                    folder.save_model(module.model, module.best_state, names)
                folder.save_history(module.history)
        done = FinetuneResult(
            plain,
            last,
            pd.DataFrame(module.history),
            metrics,
            self.references,
            seconds,
            None if self.folder is None else self.folder.path,
            tuple(self.notes),
            self.method,
            self.settings,
            self.split,
            source_model=source_model,
        )
        if not is_first_process():
            return done
        if self.origin is not None:
            done = measure_run(done, self.origin, pretrained)
        if self.folder is not None:
            results = {"metrics": metrics, "seconds": seconds, "notes": list(self.notes)}
            if done.forgetting is not None and self.origin is not None:
                results["forgetting"] = done.forgetting.to_dict(with_frames=True)
                results["judged_on"] = _judged_on(self.origin)
            self.folder.finish(**results)
        return done


def _judged_on(origin: SourceSplit) -> dict[str, str]:
    """What a report of forgetting is of: the fingerprint of the frames of each kind."""
    return {kind: frames.fingerprint() for kind, frames in with_dimers(origin.held_out).items()}


def measure_run(done: FinetuneResult, origin: SourceSplit, pretrained) -> FinetuneResult:
    """The run with its errors in the source functional, on frames that no step has seen and on dimers if there are any.

    Parameters
    ----------
    done : FinetuneResult
    origin : SourceSplit
    pretrained
        The model that it started from.
    """
    model = done.model if done.source_model is None else done.source_model
    held_out = with_dimers(origin.held_out)
    return replace(
        done, forgetting=measure_forgetting(model, as_model(pretrained), held_out, seed=done.settings.split_seed)
    )


def _accelerator(asked: str) -> str:
    import torch

    if asked != "auto":
        return asked
    return "gpu" if torch.cuda.is_available() else "cpu"  # Lightning's own choice would include devices without float64


def is_first_process() -> bool:
    """Whether this is the process that writes and prints."""
    return _rank() == 0


def _rank() -> int:
    """Number of this process among all of them; 0 where there is one."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0)


@contextlib.contextmanager
def _matmul(precision: str) -> Iterator[None]:
    """Let matrix products use TF32 if asked to, and put PyTorch's setting back afterwards."""
    import torch

    before = torch.get_float32_matmul_precision()
    try:
        if precision == "tf32":
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _told_endings() -> Iterator[None]:
    """Let what stopped Lightning's loop be seen: it makes status 1 of Ctrl-C, and of SIGTERM status 0."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise Stopped("SIGTERM") from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingStopped(
            "a process that builds graphs ahead was killed, most often because memory ran out; use fewer workers "
            "(n_workers=0). What earlier epochs wrote is kept: the same call goes on from there."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """No tips, no list of devices, no advice on workers, while our own loop is running; warnings of others stay."""
    from lightning.fabric.utilities.warnings import PossibleUserWarning

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 with PyTorch 2.13
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
