"""Batches side by side: one thread of PyTorch for each batch, where threads inside an operation would wait for another.

On two cores a training step with one batch on each is a quarter faster than the same step with two threads in every
operation, and its results do not depend on how many threads there are.
"""

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, lru_cache

import torch

from crossfunc.potential.graphs import MAX_ANGLES

_MAX_ANGLES_ON_GPU = 300_000  # a training step keeps 41 kB per angle (measured on a CPU): 12 GB
_MAX_ANGLES_COMPILED = 12_000  # fused operations keep fewer intermediate results, so that more fit near the caches
_KEPT_BYTES = 256 * 2**20
_LOOK_S = 5.0


def map_batches(function: Callable, batches: Iterable, *, n_threads: int | None = None) -> Iterator:
    """Yield `function(batch)` for every batch, in order.

    Parameters
    ----------
    function : callable
        Must not change what other batches read.
    batches : iterable
        Taken in this thread, a few ahead of the results.
    n_threads : int, optional
        Batches at a time; as many as PyTorch has threads if not given. Use 1 for work on a GPU.
    """
    n_threads = n_threads or torch.get_num_threads()
    if n_threads == 1:
        yield from map(function, batches)
        return
    pool, mode = _pool(n_threads, os.getpid()), _mode()
    pending: deque[Future] = deque()
    for batch in batches:
        pending.append(pool.submit(_call, function, batch, mode))
        if len(pending) > n_threads:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def for_each(function: Callable, pieces: list, *, n_threads: int) -> None:
    """Call `function(piece)` for every piece, in any order; return when all are done."""
    if len(pieces) < 2 or n_threads == 1:
        for piece in pieces:
            function(piece)
        return
    pool, mode = _pool(n_threads, os.getpid()), _mode()
    for done in [pool.submit(_call, function, piece, mode) for piece in pieces]:
        done.result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep operations to this thread: others that OpenMP has woken spin a while, on cores that pieces of work need."""
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


def n_batches_at_a_time(device: torch.device) -> int:
    """Return how many batches to work on at a time on this device: one per core, but one alone on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def max_angles_on(device: torch.device, *, compiled: bool = False) -> int:
    """Return the size of batches that suits a device: near the caches of a CPU, large enough to keep a GPU busy."""
    if device.type != "cpu":
        return _MAX_ANGLES_ON_GPU
    return _MAX_ANGLES_COMPILED if compiled else MAX_ANGLES


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed for the next batch; return whether it could be told.

    A training step frees and asks for the same few hundred megabytes again and again. By default much of that goes back
    to the system and is paged in anew, tens of thousands of pages per step. It holds for the whole process.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    settings = {-3: _KEPT_BYTES, -1: 4 * _KEPT_BYTES, -2: _KEPT_BYTES // 4}  # mmap threshold, trim threshold, top pad
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def _mode() -> tuple[bool, bool]:
    """Whether this thread records gradients, and whether it only infers: both are settings of a thread."""
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def _call(function, batch, mode: tuple[bool, bool]):
    _choose_core()
    grad, inference = mode
    with torch.inference_mode() if inference else torch.set_grad_enabled(grad):
        return function(batch)


@cache
def _pool(n_threads: int, _process: int) -> ThreadPoolExecutor:  # threads do not survive a fork
    return ThreadPoolExecutor(
        n_threads, thread_name_prefix="batch", initializer=_settle, initargs=(iter(_cores_for(n_threads)),)
    )


def _cores_for(n_threads: int) -> Sequence[int | None]:
    """A core for each thread where there are as many as threads, else the system's choice.

    The threads hand the interpreter to each other thousands of times per step, and Linux moves a thread that is woken
    to the core of the one that woke it, where it waits for its turn: a twentieth to a tenth of a step.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores if len(cores) == n_threads else [None] * n_threads


def _settle(cores: Iterator[int | None]) -> None:
    torch.set_num_threads(1)
    _OF_THREAD.core, _OF_THREAD.tied = next(cores), False
    _choose_core()


_OF_THREAD = threading.local()


def _choose_core() -> None:
    """Tie this thread to its core while the machine is ours; where others work too, let it go where there is room.

    A core that somebody else has as well is half a core: tied to it, a thread holds up the others.
    """
    core = _OF_THREAD.core
    if core is None:
        return
    alone = _has_the_machine(int(time.monotonic() / _LOOK_S))
    if alone != _OF_THREAD.tied:
        with suppress(OSError):  # a sandbox may forbid it: then it is only slower
            os.sched_setaffinity(0, {core} if alone else _allowed_cores())  # of this thread
        _OF_THREAD.tied = alone


@lru_cache(maxsize=1)
def _has_the_machine(_moment: int) -> bool:
    """Whether no more is running than there are cores; looked up every few seconds."""
    try:
        return os.getloadavg()[0] <= (os.cpu_count() or 1) + 0.5
    except OSError:
        return True


@cache
def _allowed_cores() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(os.getpid()))  # of the main thread, which is never tied
