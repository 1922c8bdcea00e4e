"""What benchmarks share: what they say while they measure, a folder to work in, and a process to measure in."""

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
        The process ended before it had an answer; a `multiprocessing.Pool` would wait for it without end.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()
