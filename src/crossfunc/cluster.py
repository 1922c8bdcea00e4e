"""Send the work that joblib spreads over processes to a Dask cluster instead; nothing else changes.

Relaxations, hulls and predictions are cut into tasks that know nothing of each other and are given to
`joblib.Parallel`. Inside `use_cluster` joblib gives them to Dask, which moves tasks of a worker that died to others.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ClusterError", "use_cluster"]

LOCAL = "local"
_SECONDS_TO_CONNECT = 30


class ClusterError(ValueError):
    """A cluster that cannot be used; the message says which and what to do."""


@contextlib.contextmanager
def use_cluster(address: str | None, *, n_workers: int | None = None) -> Iterator:
    """Run every `joblib.Parallel` of the block on a Dask cluster, whatever its `n_jobs`.

    Parameters
    ----------
    address : str or None
        Address of a scheduler (`tcp://host:8786`), the path of its scheduler file (as `dask scheduler --scheduler-file`
        and dask-jobqueue write it), or "local" for worker processes on this machine. None: joblib as usual.
    n_workers : int, optional
        Processes of a local cluster; default: one per core.

    Yields
    ------
    distributed.Client or None

    Raises
    ------
    ClusterError
        Dask is not installed, nobody answers at the address, or there is no such scheduler file.

    Notes
    -----
    Workers need the same crossfunc and the same versions of its dependencies. Tasks that write files (as
    `make-surrogate` does) need a folder that every worker sees. Each worker should have one thread.
    """
    if address is None:
        yield None
        return
    import joblib

    with _connect(address, n_workers) as client, joblib.parallel_config(backend="dask", client=client):
        yield client


@contextlib.contextmanager
def _connect(address: str, n_workers: int | None) -> Iterator:
    """A client of the cluster; a local cluster ends with the block."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ClusterError("--cluster needs Dask: pip install 'crossfunc[cluster]'") from error
    with contextlib.ExitStack() as stack:
        if address == LOCAL:
            options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": "ERROR"}
            where = stack.enter_context(LocalCluster(n_workers=n_workers or os.cpu_count(), **options))
        else:
            where = _scheduler(address)
        try:
            client = Client(where, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"--cluster {address}: no Dask scheduler answers ({error}). Give the address that "
                f"`dask scheduler` prints, its scheduler file, or {LOCAL!r}."
            ) from error
        yield stack.enter_context(client)


def _scheduler(address: str) -> str:
    """The address, read from the scheduler file if it is one."""
    import json

    if "://" in address:
        return address
    path = Path(address)
    if not path.is_file():
        raise ClusterError(
            f"--cluster {address}: neither an address (tcp://host:8786) nor a scheduler file nor {LOCAL!r}."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))["address"]
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{path}: no scheduler file of Dask ({type(error).__name__}: {error}).") from error
