"""How a command ends before its work is done: by a signal, a full disk, too little memory, a worker that was killed.

Whatever it was, the status is not 0, and one sentence says what happened and how to go on.
"""

import concurrent.futures
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator

__all__ = ["MachineError", "Stopped", "check_machine", "describe_ending", "signals_raise", "status_of"]

# SIGINT raises KeyboardInterrupt already; queues warn with the last three before they kill
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_WORDS = {
    "SIGINT": "stopped from the keyboard",
    "SIGHUP": "stopped because its terminal was closed (SIGHUP)",
}
_REMEDIES = {
    errno.ENOSPC: "make room, or choose another folder",
    errno.EDQUOT: "make room, or choose another folder",
    errno.EFBIG: "the limit on the size of a file (ulimit -f) is too low",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a file or folder that you may read and write",
    errno.EPERM: "choose a file or folder that you may read and write",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a file is in the way where a folder is needed; choose another name",
    errno.EEXIST: "a file or a link to nowhere is in the way where a folder is needed; choose another name",
    errno.EISDIR: "a folder is in the way where a file is needed; choose another name",
    errno.ELOOP: "its links lead in a circle; choose another name",
    errno.ENOENT: "check the name, and whether a link on the way leads nowhere",
    errno.EMFILE: "allow more open files (ulimit -n 1024)",
    errno.ENFILE: "allow more open files (ulimit -n 1024)",
    errno.EAGAIN: "allow more processes (ulimit -u), or use fewer jobs and threads",
    errno.ENOMEM: "give it more memory (ulimit -v, the queue's limit), or use fewer jobs and smaller batches",
}
# what may be over when the same command is given again; the others need another command
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EIO}
_MEMORY = "give it more memory (ulimit -v, the queue's limit), or use fewer jobs and smaller batches"
_THREADS = "allow more processes (ulimit -u), or use fewer jobs and threads"


_LEAST_ADDRESS_BYTES = 2 * 2**30
_AGAIN_S = 0.05


class MachineError(ValueError):
    """A machine whose limits let nothing run; the message says which and what it takes."""


class Stopped(KeyboardInterrupt):
    """A signal ended the work; handled by libraries as Ctrl-C is.

    Attributes
    ----------
    signal_name : str
    """

    def __init__(self, signal_name: str):
        super().__init__(signal_name)
        self.signal_name = signal_name


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and what queues send raise `Stopped` in the block, so that what is open is closed and said.

    A signal that is ignored (nohup) or has a handler stays as it is. One that comes while Python runs a callback whose
    exceptions it drops (a finaliser, the import system's own) is sent again, or the work would go on as if none had.
    """

    def stop(number, _frame) -> None:
        raise Stopped(signal.Signals(number).name)

    dropped = sys.unraisablehook

    def send_again(unraisable) -> None:
        error = unraisable.exc_value
        if not isinstance(error, KeyboardInterrupt):
            dropped(unraisable)
            return
        number = getattr(signal, getattr(error, "signal_name", "SIGINT"))
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    changed = []
    if threading.current_thread() is threading.main_thread():
        changed = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        changed = [number for number in changed if signal.getsignal(number) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = dropped
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def check_machine() -> None:
    """Raise MachineError where a limit is so low that libraries would hang instead of failing.

    OpenBLAS asks for memory again and again, for ever, where `ulimit -v` does not grant it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_BYTES:
        raise MachineError(
            f"not enough memory: the limit (ulimit -v) is {limit // 2**20} MB, and at least "
            f"{_LEAST_ADDRESS_BYTES // 2**20} MB are needed, for models 8192; raise it or the queue's limit."
        )


def status_of(error: BaseException) -> int:
    """Return the exit status for what ended a command: 128 + number of a signal, as shells have it, else 1."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + getattr(signal, getattr(error, "signal_name", "SIGINT"))
    return 1


def describe_ending(error: BaseException, *, how_to_go_on: str = "") -> str | None:
    """Say in one sentence what ended a command and how to go on; None for what is neither the user's nor the machine's.

    Parameters
    ----------
    error : BaseException
        A signal, an error of the system (OSError), too little memory, a worker process that died, or a ValueError of
        one of crossfunc's own kinds.
    how_to_go_on : str
        Added where the work can be continued.
    """
    after = f" {how_to_go_on}" if how_to_go_on else ""
    if isinstance(error, KeyboardInterrupt):
        name = getattr(error, "signal_name", "SIGINT")
        return f"{_WORDS.get(name, f'stopped by a signal ({name})')}.{after}"
    if isinstance(error, UnicodeEncodeError) and isinstance(error.object, str):
        return f"{error.object}: a file name must be text in UTF-8; choose another name."
    if isinstance(error, ValueError) and type(error).__module__.startswith("crossfunc."):
        return str(error)
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        return f"{_describe_os_error(error)}.{after if error.errno in _PASSING else ''}"
    if _is_lack_of_memory(error):
        return f"not enough memory; {_MEMORY}.{after}"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"no more threads can be started; {_THREADS}.{after}"
    if isinstance(error, concurrent.futures.BrokenExecutor):
        return (
            "a worker process was killed, most often because memory ran out; "
            f"use fewer jobs, or a machine with more memory.{after}"
        )
    return None


def _describe_os_error(error: OSError) -> str:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the output or a file"
    reason = error.strerror or str(error).splitlines()[0] if str(error) else type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{where}: {reason}" + (f"; {remedy}" if remedy else "")


def _is_lack_of_memory(error: BaseException) -> bool:
    """MemoryError, what Arrow makes of it, and PyTorch's two kinds, of the CPU and of a GPU."""
    if isinstance(error, MemoryError):
        return True
    words = ("not enough memory", "t allocate memory", "out of memory", "bad_alloc", "malloc of size", "map segment")
    return isinstance(error, RuntimeError | ImportError) and any(word in str(error) for word in words)
