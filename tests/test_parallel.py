"""Batches side by side: the same results in the same order, errors and gradient mode included."""

import os
import threading
import time

import pytest
import torch

from crossfunc.potential import parallel
from crossfunc.potential.parallel import map_batches


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_results_come_in_the_order_of_the_batches_whoever_is_done_first(n_threads):
    def slow_first(k):
        time.sleep(0.02 if k == 0 else 0)
        return k

    assert list(map_batches(slow_first, range(7), n_threads=n_threads)) == list(range(7))


def test_batches_are_taken_as_they_are_needed_so_that_a_long_list_does_not_fill_the_memory():
    taken = []
    results = map_batches(lambda k: k, (taken.append(k) or k for k in range(100)), n_threads=2)
    next(results)
    assert len(taken) <= 4


def test_each_batch_has_one_thread_of_pytorch_for_itself():
    def look(_):
        time.sleep(0.01)
        return torch.get_num_threads(), threading.get_ident()

    seen = list(map_batches(look, range(4), n_threads=2))
    assert {threads for threads, _ in seen} == {1}
    assert len({ident for _, ident in seen}) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are tied to cores on Linux only")
def test_threads_have_a_core_each_where_there_are_as_many_as_cores_and_any_core_elsewhere(monkeypatch):
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))  # a quiet machine
    parallel._has_the_machine.cache_clear()

    def look(_):
        time.sleep(0.01)
        return frozenset(os.sched_getaffinity(0))

    alone = set(map_batches(look, range(4 * len(cores)), n_threads=len(cores)))
    assert alone == ({frozenset([core]) for core in cores} if len(cores) > 1 else {frozenset(cores)})
    assert set(map_batches(look, range(4), n_threads=len(cores) + 1)) == {frozenset(cores)}
    assert os.sched_getaffinity(0) == cores  # of the caller
    monkeypatch.setattr(os, "getloadavg", lambda: (len(cores) + 8.0, 0, 0))  # eight others
    parallel._has_the_machine.cache_clear()
    assert set(map_batches(look, range(4 * len(cores)), n_threads=len(cores))) == {frozenset(cores)}
    parallel._has_the_machine.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are tied to cores on Linux only")
def test_batches_are_computed_where_a_sandbox_forbids_to_tie_threads_to_cores(monkeypatch):
    refused = []

    def forbid(*_):
        refused.append(1)
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))
    parallel._has_the_machine.cache_clear()
    parallel._pool.cache_clear()
    assert list(map_batches(lambda k: k, range(4), n_threads=2)) == list(range(4))
    assert refused
    parallel._pool.cache_clear()


def test_an_error_in_a_batch_reaches_the_caller():
    def fail(k):
        if k == 1:
            raise ValueError("batch 1")
        return k

    with pytest.raises(ValueError, match="batch 1"):
        list(map_batches(fail, range(3), n_threads=2))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_gradient_mode_is_that_of_the_caller(n_threads):
    with torch.no_grad():
        assert not any(map_batches(lambda _: torch.is_grad_enabled(), range(3), n_threads=n_threads))
    assert all(map_batches(lambda _: torch.is_grad_enabled(), range(3), n_threads=n_threads))
