"""What benchmarks share: what they say while they measure, a folder, a process to measure in, and its memory."""

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path


def tell(text: str) -> None:
    """Write one line to stderr at once, so that stdout holds the report alone; a terminal that is gone ends nothing."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        pass


@contextlib.contextmanager
def scratch_folder(place: str | os.PathLike | None) -> Iterator[Path]:
    """Make a folder in a place, which is made if it is not there (None: the system's), and remove it afterwards."""
    if place is not None:
        Path(place).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        yield Path(scratch)


def in_fresh_process(function: Callable, /, *args, **kwargs):
    """Call a function in a process that nothing ran in before, and give what it returns.

    Raises
    ------
    BrokenExecutor
        The process ended before it had an answer.
    Exception
        What the function raised.

    Notes
    -----
    No pool: its helper thread may find no memory to start, and then a pool waits without end.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args, kwargs))
    with receiver:
        with sender:
            process.start()
        try:
            failed, answer = receiver.recv()  # the other end is the process's alone: it is closed where that ends
        except EOFError:
            process.join()
            raise BrokenExecutor(f"the measuring process ended with status {process.exitcode}") from None
        except BaseException:
            process.terminate()
            raise
    process.join()
    if failed:
        raise answer
    return answer


def _answer(sender, function: Callable, args: tuple, kwargs: dict) -> None:
    """Send what a function returns, or raises."""
    with sender:
        try:
            sender.send((False, function(*args, **kwargs)))
        except Exception as error:
            sender.send((True, error))


def held_gb() -> float:
    """Memory that this process holds now, in GB; any peak before is forgotten.

    Raises
    ------
    OSError
        The system does not tell (Linux does, in /proc).
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status_gb("VmRSS")


def status_gb(field: str) -> float:
    """One entry of /proc/self/status in GB: VmRSS, what the process holds, or VmHWM, the most that it held.

    Raises
    ------
    OSError
        As `held_gb`.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e9
    raise OSError(f"no {field} in /proc/self/status")
