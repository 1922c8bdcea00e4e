"""How long each lesson of a profile took when it was last executed: `build/<profile>/timings.json`.

The times lie beside the notebooks and results, not in them: two runs of an unchanged lesson give the same bytes.
"""

import json
import os
from pathlib import Path

from crossfunc.files import write_atomically
from crossfunc.lessons.sources import LessonError

TIMINGS_FILE = "timings.json"


def record_timing(folder: Path, lesson: str, seconds: float, jobs: int = 1) -> None:
    """Keep the seconds that a lesson took, with the number of cores and of lessons that ran side by side."""
    path = folder / TIMINGS_FILE
    timings = read_timings(folder) if path.is_file() else {}
    timings[lesson] = {"seconds": round(seconds, 1), "cores": os.cpu_count(), "jobs": jobs}
    write_atomically(path, json.dumps(dict(sorted(timings.items())), indent=1) + "\n")


def read_timings(folder: Path) -> dict[str, dict[str, float | None]]:
    """Return lesson -> `{seconds, cores, jobs}` of a profile's folder.

    Raises
    ------
    LessonError
        No file, or one that is not what `record_timing` writes.
    """
    path = folder / TIMINGS_FILE
    remedy = f"run the lessons again: crossfunc run --profile {folder.name} --force"
    try:
        timings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LessonError(f"{path}: missing, so nothing says how long a lesson takes; {remedy}") from None
    except ValueError as error:
        raise LessonError(f"{path}: not readable as JSON ({error}); delete it and {remedy}") from error
    if not all(isinstance(entry, dict) and "seconds" in entry for entry in timings.values()):
        raise LessonError(f"{path}: an entry without seconds; delete it and {remedy}")
    return timings
