"""What benchmarks share: what they say while they measure, and a folder to work in."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
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
