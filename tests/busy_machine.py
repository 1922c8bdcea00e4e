"""Measure how much slower lessons get on a machine that others use as well.

    python tests/busy_machine.py                     # lessons 2, 4, 5 of profile smoke, alone and beside four others
    python tests/busy_machine.py --others 8 --profile laptop 02

Beside n processes that compute without end, c cores give a command that can use c of them its share, c / (c + n) of the
machine; a lesson may get slower by what it lost, and its processor time must stay what it was: what is more was burnt
by waiting.
"""

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from small_checkouts import CLI

ROOT = Path(__file__).resolve().parent.parent
MOST_TIME, MOST_PROCESSOR_TIME = 4.0, 1.3  # times what a lesson takes alone; status 1 beyond


def spin() -> None:
    """Compute without end."""
    while True:
        sum(range(100_000))


@contextlib.contextmanager
def company(n_others: int) -> Iterator[None]:
    """Keep so many processes computing meanwhile."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(n_others)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def adopt_orphans() -> None:
    """Become the parent of what a kernel leaves, such as worker processes, so that their time is counted, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and processor seconds of a command and all that it started."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.monotonic() - clock
    time.sleep(2)  # workers notice that their parent is gone
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure what is asked for, and print a line for each lesson."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", default=["02", "04", "05"])
    parser.add_argument("--others", type=int, default=4, help="processes beside the lesson")
    parser.add_argument("--profile", default="smoke")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sys.stdout.write(f"{cores} cores; load before: {os.getloadavg()[0]:.1f}\n")
    adopt_orphans()
    too_much = False
    for lesson in given.lessons:
        found = []
        for n_others in (0, given.others):
            with tempfile.TemporaryDirectory() as scratch, company(n_others):
                out = Path(scratch) / "out"
                options = ["--profile", given.profile, "--root", str(ROOT), "--out", str(out), "--force"]
                found.append(measure([*CLI, "run", lesson, *options]))
                shutil.rmtree(out, ignore_errors=True)
        (wall, cpu), (busy_wall, busy_cpu) = found
        sys.stdout.write(
            f"lesson {lesson}: alone {wall:.0f} s ({cpu:.0f} s of processors); beside {given.others} others "
            f"{busy_wall:.0f} s ({busy_cpu:.0f} s): {busy_wall / wall:.1f} times as long, {busy_cpu / cpu:.2f} times "
            f"the processor time; its share alone would make it {(cores + given.others) / cores:.1f} times as long\n"
        )
        sys.stdout.flush()
        too_much |= busy_wall > MOST_TIME * wall or busy_cpu > MOST_PROCESSOR_TIME * cpu
    sys.exit(int(too_much))


if __name__ == "__main__":
    main()
