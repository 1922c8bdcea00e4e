"""Where an ASE calculator comes from: something importable, named on the command line or in Python, and its arguments.

Nothing that a *file* names is imported. Building one may not reach the network unless that is allowed: a model that
downloads its weights in the middle of a run is neither repeatable nor sure to be there tomorrow.
"""

import contextlib
import importlib
import json
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["CalculatorError", "CalculatorSource", "parse_arguments", "without_network"]

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "")


class CalculatorError(ValueError):
    """A calculator that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class CalculatorSource:
    """How to make a calculator, in this process or in another one: picklable, and called without arguments.

    Attributes
    ----------
    path : str
        `package.module:name`, a class or a function.
    arguments : dict
        Keyword arguments of plain values.
    allow_download : bool
        True lets it reach the network while it is built.
    """

    path: str
    arguments: dict = field(default_factory=dict)
    allow_download: bool = False

    def __post_init__(self):
        """Refuse what is no import path before anything is imported."""
        if not _PATH.fullmatch(self.path):
            raise CalculatorError(
                f"calculator {self.path!r}: write package.module:name, for example ase.calculators.emt:EMT; a module "
                "of your own needs its folder in PYTHONPATH."
            )

    @property
    def name(self) -> str:
        """The path, and the arguments where there are some."""
        return f"{self.path} {json.dumps(self.arguments)}" if self.arguments else self.path

    def __call__(self):
        """Import and build it.

        Raises
        ------
        CalculatorError
            Not installed, no such name, arguments it does not take, a download that is not allowed, or whatever it
            raises itself.
        """
        with _quietly(), _told(f"calculator {self.path}", self.allow_download):
            return self._find()(**self.arguments)

    def _find(self):
        """The class or function that the path names."""
        module_name, _, name = self.path.partition(":")
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or module_name
            if f"{module_name}.".startswith(f"{missing}."):
                remedy = "install the package that has it, or mend the name"
            else:
                remedy = f"{module_name} needs it; install it, too"
            raise CalculatorError(f"calculator {self.path}: no module {missing!r} here; {remedy}.") from error
        for part in name.split("."):
            if not hasattr(found, part):
                raise CalculatorError(f"calculator {self.path}: {module_name} has no {part!r}; mend the name.")
            found = getattr(found, part)
        if not callable(found):
            raise CalculatorError(
                f"calculator {self.path}: a {type(found).__name__}, not a class or function; name one."
            )
        return found


def parse_arguments(text: str | None) -> dict:
    """Arguments of a calculator from JSON, as the command line takes them.

    Raises
    ------
    CalculatorError
        The text is no JSON object.
    """
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise CalculatorError(f"--calculator-args {text}: not JSON ({error}); write '{{\"name\": value}}'.") from error
    if not isinstance(arguments, dict):
        raise CalculatorError(f"--calculator-args {text}: not a JSON object; write '{{\"name\": value}}'.")
    return arguments


class _Offline(threading.local):
    depth = 0
    wanted: str | None = None


_OFFLINE = _Offline()
_HOOK_LOCK = threading.Lock()
_hook_is_there = False


@contextlib.contextmanager
def without_network(allowed: bool = False) -> Iterator[_Offline]:
    """Refuse connections of this thread to other hosts; what is yielded has the last one refused as `wanted`.

    Parameters
    ----------
    allowed : bool
        True refuses nothing.

    Notes
    -----
    Other threads, and this machine's own services, are left alone. A guard against surprise, not against malice: code
    that is imported can do anything.
    """
    global _hook_is_there  # an audit hook cannot be taken away again
    with _HOOK_LOCK:
        if not _hook_is_there:
            sys.addaudithook(_refuse_network)
            _hook_is_there = True
    before, _OFFLINE.wanted = _OFFLINE.wanted, None
    _OFFLINE.depth += not allowed
    try:
        yield _OFFLINE
    finally:
        _OFFLINE.depth -= not allowed
        _OFFLINE.wanted = before


def _refuse_network(event: str, arguments: tuple) -> None:
    """Audit hook: raise where a thread that is offline asks for another host."""
    if not event.startswith("socket.") or not _OFFLINE.depth:
        return
    host = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    if host is not None and host not in (*_LOCAL_HOSTS, socket.gethostname()):
        _OFFLINE.wanted = str(host)
        raise ConnectionRefusedError(f"crossfunc keeps calculators off the network ({host})")


@contextlib.contextmanager
def _told(who: str, allow_download: bool) -> Iterator[None]:
    """Turn whatever goes wrong into one sentence."""
    with without_network(allow_download) as offline:
        try:
            yield
        except CalculatorError:
            raise
        except Exception as error:
            if offline.wanted:
                raise CalculatorError(
                    f"{who} wants to download from {offline.wanted}: fetch its files first and name them in its "
                    "arguments, or allow it (--allow-download)."
                ) from error
            raise CalculatorError(f"{who} cannot be built: {first_line(error)}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what a package prints out of our output, and its warning filters out of the process."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        yield


def first_line(error: BaseException) -> str:
    """Type and first line of an error, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
