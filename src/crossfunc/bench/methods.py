"""What a training step of every method costs beside a plain one, and what it takes before the first step.

Steps are those of `finetune` itself, from crystals to new weights, timed from the start of one batch to the start of
the next. Methods take turns, so that a slow minute of the machine is shared by all.
"""

import statistics
import time
from typing import Any

import numpy as np

from crossfunc.bench.progress import tell
from crossfunc.bench.train import frames_of

PLAIN = "model-aware-trained"
LIMIT = 1.3
"""A method whose step costs more than this times a plain one says why."""


def run(n_frames: int = 16, n_steps: int = 6, rounds: int = 3, *, methods=None, threads: int | None = None) -> dict:
    """Time the steps of all methods that start from the pretrained model with model-aware references.

    Parameters
    ----------
    n_frames : int
        Frames of a batch, from the embedded dataset's dense tier.
    n_steps : int
        Timed in a run, after one that does not count.
    rounds : int
        Runs of each method, in turns; the median of all steps is reported.
    methods : sequence of str, optional
        Others than all.
    threads : int, optional
        Threads of PyTorch.

    Returns
    -------
    dict
        `ms_per_step`, `ratio` (to the plain step), `seconds_to_first_step`, `n_trained` (parameters) by method;
        frames of a batch, `n_source_frames` that join it on average, rounds, threads, versions.
    """
    import torch

    from crossfunc.training.methods import METHODS, STARTS

    keys = list(methods or [key for key in METHODS if key not in STARTS])
    keys = [PLAIN, *(key for key in keys if key != PLAIN)]
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        frames = frames_of("surrogate", n_frames * (n_steps + 2) + 2)
        seconds: dict[str, list[float]] = {key: [] for key in keys}
        starts: dict[str, list[float]] = {key: [] for key in keys}
        counts = {}
        for k in range(rounds):
            for key in keys:
                tell(f"round {k + 1} of {rounds}: {key}")
                clock = train_and_time(key, frames, n_frames, n_steps)
                seconds[key] += clock.seconds
                starts[key].append(clock.seconds_to_first_step)
                counts[key] = clock.n_trained
    finally:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(before)
    ms = {key: 1e3 * statistics.median(values) for key, values in seconds.items()}
    strategies = {key: METHODS[key].strategy for key in keys}
    return {
        "ms_per_step": ms,
        "ratio": {key: value / ms[PLAIN] for key, value in ms.items()},
        "seconds_to_first_step": {key: statistics.median(values) for key, values in starts.items()},
        "n_trained": counts,
        "n_source_frames": {key: s.source_share * n_frames if s else 0 for key, s in strategies.items()},
        "frames": n_frames,
        "steps": n_steps,
        "rounds": rounds,
        "threads": n_threads,
        "torch": torch.__version__,
    }


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    lines = [
        f"{report['frames']} frames per step, {report['threads']} threads, torch {report['torch']}, median of "
        f"{report['steps'] * report['rounds']} steps",
        f"{'method':<22}{'ms/step':>10}{'ratio':>8}{'to first step s':>17}{'trained':>10}{'source frames':>15}",
    ]
    for key, ms in report["ms_per_step"].items():
        columns = [report[name][key] for name in ("ratio", "seconds_to_first_step", "n_trained", "n_source_frames")]
        lines.append(f"{key:<22}{ms:>10.1f}{columns[0]:>8.2f}{columns[1]:>17.1f}{columns[2]:>10}{columns[3]:>15.3g}")
    slow = [key for key, ratio in report["ratio"].items() if ratio > LIMIT]
    lines += [
        f"{key}: more than {LIMIT} x a plain step; {report['n_source_frames'][key]:.3g} source frames join a step"
        for key in slow
    ]
    rare = [key for key, n in report["n_source_frames"].items() if 0 < n < 1]
    lines += [
        f"{key}: a source frame joins one step in several, which a median does not show; take more frames per step"
        for key in rare
    ]
    return "\n".join(lines)


def train_and_time(key: str, frames, n_frames: int, n_steps: int, **settings: Any):
    """Train by a method for some steps; return a callback that kept the times.

    Parameters
    ----------
    key : str
        Key of a method in `METHODS`.
    frames : LabelledFrames
        At least `n_frames * (n_steps + 2) + 2`.
    n_frames, n_steps : int
        Frames per step, and steps that are timed, after one that does not count.
    **settings
        As `finetune` takes them.

    Returns
    -------
    Callback
        `seconds` of each step, `seconds_to_first_step`, `n_trained` (parameters).
    """
    from lightning.pytorch.callbacks import Callback

    from crossfunc.training import finetune

    class Clock(Callback):
        """Times between the starts of batches."""

        def __init__(self):
            self.marks: list[float] = []
            self.began = time.perf_counter()
            self.n_trained = 0

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # noqa: ARG002
            self.marks.append(time.perf_counter())
            self.n_trained = sum(p.numel() for p in pl_module.model.parameters() if p.requires_grad)

        @property
        def seconds(self) -> list[float]:
            return np.diff(self.marks)[1:].tolist()

        @property
        def seconds_to_first_step(self) -> float:
            return self.marks[0] - self.began

    n = n_frames * (n_steps + 2)
    split = {"train": np.arange(n), "validation": np.arange(n, n + 2)}
    clock = Clock()
    defaults: dict[str, Any] = {
        "n_epochs": 1,
        "batch_size": n_frames,
        "learning_rate": 1e-6,
        "accelerator": "cpu",
        "progress": False,
    }
    settings = defaults | settings
    finetune(key, frames, split=split, callbacks=[clock], **settings)
    return clock
