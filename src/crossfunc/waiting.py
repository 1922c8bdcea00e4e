"""Threads that wait sleep, so that a machine shared with others is not heated by waiting.

OpenMP's threads wait for each other by spinning: on a quiet machine that saves microseconds. Where another process has
the core of one of them, the others spin for its whole turn, thousands of times per second.
"""

import os

__all__ = ["SLEEP_WHILE_WAITING", "sleep_while_waiting"]

SLEEP_WHILE_WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # PyTorch's, XGBoost's and scikit-learn's OpenMP
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's
    "OPENBLAS_THREAD_TIMEOUT": "4",  # NumPy's and SciPy's linear algebra: 2^4 ticks, its least
}
"""Environment variables, read once by each library as it is loaded."""


def sleep_while_waiting() -> None:
    """Set what the environment does not set already, for the libraries that this process and its children load."""
    for name, value in SLEEP_WHILE_WAITING.items():
        os.environ.setdefault(name, value)
