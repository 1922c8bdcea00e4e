"""A training step of several processes that share a machine, beside one of a single process on as many threads.

Each run is a script of its own, since Lightning starts the other processes by running the script again. Runs take
turns.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from crossfunc.bench.methods import train_and_time
from crossfunc.bench.progress import tell
from crossfunc.bench.train import frames_of
from crossfunc.files import write_atomically

_METHOD = "4"


class DevicesError(RuntimeError):
    """A run that ended without a result; the message is its last line."""


def run(devices: int = 2, *, n_frames: int = 64, n_steps: int = 8, rounds: int = 3) -> dict:
    """Time the steps of `finetune(..., devices=1)` and of `devices` processes, all threads shared out among them.

    Parameters
    ----------
    devices : int
        Processes on this machine's processor.
    n_frames : int
        Frames per step, over all processes together.
    n_steps, rounds : int
        Steps that are timed in a run, and runs of either kind, in turns.

    Returns
    -------
    dict
        `ms_per_step` by number of processes, `alone_over_together` (time of a step: 1 where sharing costs nothing),
        `threads` in all.
    """
    from joblib import cpu_count

    n_threads = max(devices, cpu_count())
    seconds: dict[int, list[float]] = {1: [], devices: []}
    for k in range(rounds):
        for n in seconds:
            tell(f"round {k + 1} of {rounds}: {_processes(n)}")
            seconds[n] += _run_script(n, n_threads // n, n_frames, n_steps)
    ms = {n: 1e3 * statistics.median(values) for n, values in seconds.items()}
    return {
        "ms_per_step": {_processes(n): value for n, value in ms.items()},
        "alone_over_together": ms[1] / ms[devices],
        "frames": n_frames,
        "steps": n_steps,
        "rounds": rounds,
        "threads": n_threads,
    }


def _run_script(n: int, n_threads: int, n_frames: int, n_steps: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        numbers = map(str, (n, n_frames, n_steps))
        environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
        command = [sys.executable, "-m", "crossfunc.bench.devices", str(out), *numbers]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)  # noqa: S603
        if done.returncode or not out.exists():
            raise DevicesError((done.stderr.strip() or "no message").splitlines()[-1])
        return json.loads(out.read_text(encoding="utf-8"))


def format_report(report: dict) -> str:
    """The measurements as lines for the terminal."""
    lines = [f"{report['frames']} frames per step, {report['threads']} threads in all"]
    lines += [f"{name:<14}{ms:8.1f} ms" for name, ms in report["ms_per_step"].items()]
    return "\n".join([*lines, f"alone over together: {report['alone_over_together']:.2f}"])


def _processes(n: int) -> str:
    return f"{n} process" if n == 1 else f"{n} processes"


def main(out: str, devices: str, n_frames: str, n_steps: str) -> None:
    """In each process of a run: train; the first one writes what the steps took."""
    from crossfunc.training.fit import is_first_process

    n, steps = int(n_frames), int(n_steps)
    frames = frames_of("surrogate", n * (steps + 2) + 2)
    clock = train_and_time(_METHOD, frames, n, steps, devices=int(devices))
    if is_first_process():
        write_atomically(out, json.dumps(clock.seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
