"""What a lesson found, beside what the paper says: one JSON file per lesson, the only source of the claims table."""

import json
import math
import numbers
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossfunc.files import write_atomically
from crossfunc.lessons.declared import DeclarationError, find_declarations, read_declarations
from crossfunc.plain_text import in_html

_KEY = re.compile(r"[a-z][a-z0-9_]*")
_FIELDS = {"lesson", "dataset", "label_notice", "results"}
_TEXTS = {"title": "", "unit": "", "paper": None, "why": "", "note": ""}
COLUMNS = ("quantity", "paper says", "we get", "why they differ")


class ResultsError(ValueError):
    """A result that cannot be recorded or a results file that cannot be read; the message names it."""


@dataclass(frozen=True)
class Result:
    """One number of a lesson; `paper` is the paper's number (or its words), `interval` our (low, high)."""

    key: str
    value: float
    title: str
    unit: str = ""
    paper: float | str | None = None
    interval: tuple[float, float] | None = None
    why: str = ""
    note: str = ""

    def row(self) -> dict[str, str]:
        """Return the result as a row of the table that people read."""
        paper = self.paper if isinstance(self.paper, str) else format_value(self.paper, unit=self.unit)
        ours = format_value(self.value, self.interval, self.unit)
        cells = (self.title, paper, f"{ours} ({self.note})" if self.note else ours, self.why)
        return dict(zip(COLUMNS, cells, strict=True))


class LessonResults:
    """The results of one lesson, in the order in which they were recorded.

    Parameters
    ----------
    lesson : str
        The lesson's name, `NN_topic`.
    folder : path, optional
        Where `save` writes; None keeps everything in memory, as when a reader runs the lesson by hand.
    dataset : Dataset or str, optional
        The data behind the numbers; a Dataset's label notice travels with them.
    declared : path, optional
        The `results.yml` that says what each key is; default: the one in the lesson's folder.
    """

    def __init__(
        self,
        lesson: str,
        folder: str | os.PathLike | None = None,
        dataset: Any = None,
        *,
        declared: str | os.PathLike | None = None,
    ):
        self.lesson = lesson
        self.folder = None if folder is None else Path(folder)
        self.dataset = None if dataset is None else str(getattr(dataset, "name", dataset))
        self.label_notice = str(getattr(dataset, "label_notice", ""))
        self.labelled_by = str(getattr(dataset, "labelled_by", ""))
        self._results: dict[str, Result] = {}
        self._of_dataset = {"differs": getattr(dataset, "meta", {}).get("differs_from_paper", "other materials")}
        for functional in getattr(dataset, "functionals", ()):
            self._of_dataset[functional.side] = functional.name
        try:
            self._declared = read_declarations(Path(declared) if declared else find_declarations()).get(lesson, {})
        except DeclarationError as error:
            raise ResultsError(str(error)) from error

    def record(
        self,
        key: str,
        value: float,
        interval: tuple[float, float] | None = None,
        **fields: Any,
    ) -> Result:
        """Record one number under a key that is unique in the lesson.

        What the number is stands in `results.yml`: title, unit, the paper's number, why the two differ and a note. A
        lesson that has no section there gives them here.

        Parameters
        ----------
        key : str
            Lower case letters, digits and underscores; claims refer to it as `lesson:key`.
        value : float
            Kept with full precision.
        interval : (float, float), optional
            Lower and upper end of our value's interval; both NaN where there are too few materials for one.
        fields
            For a lesson with a section in `results.yml`: a value for each `{name}` in the texts of this key
            (the dataset fills in `{low}` and `{high}`, its functionals, and `{differs}`, why its numbers are not
            the paper's). For any other:
            `title` (the quantity in words), `unit`, `paper` (what the paper says, in the same unit), `why` (the two
            differ) and `note` (what the reader must know about our value: "3 seeds").

        Raises
        ------
        ResultsError
            A value that is no finite number, an interval the wrong way round, a key used for something else or not
            declared, a text that lacks a value.
        """
        if not _KEY.fullmatch(key):
            raise ResultsError(f"{self.lesson}: result key {key!r} must be lower case letters, digits and underscores.")
        given = self._texts(key, fields)
        title, unit, paper, why, note = (given[name] for name in ("title", "unit", "paper", "why", "note"))
        if not title.strip():
            raise ResultsError(f"{self.lesson}: result {key!r} needs a title.")
        if key in self._results and self._results[key].title != title:
            raise ResultsError(f"{self.lesson}: result {key!r} is already used for {self._results[key].title!r}.")
        where = f"{self.lesson}: result {key!r}"
        if interval is not None and all(isinstance(end, numbers.Real) and math.isnan(end) for end in interval):
            interval = None
        if interval is not None:
            low, high = (_finite(end, f"{where}, interval") for end in interval)
            if low > high:
                raise ResultsError(f"{where}: the interval ({low}, {high}) is the wrong way round.")
            interval = (low, high)
        if paper is not None and not isinstance(paper, str):
            paper = _finite(paper, f"{where}, paper")
        result = Result(key, _finite(value, where), title, unit, paper, interval, why, note)
        self._results[key] = result  # running a cell again replaces what it recorded
        return result

    def paper(self, key: str) -> float | str | None:
        """Return the paper's number (or words) that `results.yml` has for a key, None if the paper has none."""
        return self._declared[key].paper if key in self._declared else None

    def _texts(self, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        """What people read beside the value: as declared, or as given by a lesson that declares nothing."""
        if not self._declared:
            unknown = fields.keys() - _TEXTS.keys()
            if unknown or "title" not in fields:
                raise TypeError(
                    f"record(...) of {self.lesson}, which is not in results.yml, takes {', '.join(_TEXTS)}."
                )
            return _TEXTS | fields
        if key not in self._declared:
            raise ResultsError(f"{self.lesson}: result {key!r} is not in results.yml: say there what it is.")
        try:
            return self._declared[key].filled(fields, self._of_dataset, f"{self.lesson}: result {key!r}")
        except DeclarationError as error:
            raise ResultsError(str(error)) from error

    def to_dict(self) -> dict:
        """Return what the results file holds."""
        return {
            "lesson": self.lesson,
            "dataset": self.dataset,
            "label_notice": self.label_notice,
            "labelled_by": self.labelled_by,
            "results": [asdict(result) for result in self._results.values()],
        }

    def table(self):
        """Return "quantity | paper says | we get | why they differ" as a table for a notebook (a pandas Styler)."""
        import pandas as pd

        rows = [result.row() for result in self._results.values()]
        styler = pd.DataFrame(rows, columns=list(COLUMNS)).style
        styler = styler.set_uuid(re.sub(r"\W", "-", self.lesson)).hide(axis="index").format(escape="html")
        styler = styler.set_properties(**{"text-align": "left", "white-space": "normal"})
        return styler.set_caption(in_html(self.label_notice)) if self.label_notice else styler

    def save(self) -> Path | None:
        """Write `<folder>/<lesson>.json` in one step and return its path; without a folder, do nothing."""
        if self.folder is None:
            return None
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return _write(self.folder, f"{self.lesson}.json", text.encode())

    def save_table(self, name: str, table) -> Path | None:
        """Write a table beside the results, as `<lesson>.<name>.csv`, or as parquet if `name` ends in `.parquet`."""
        stem, _, suffix = name.partition(".")
        if not _KEY.fullmatch(stem) or suffix not in {"", "csv", "parquet"}:
            raise ResultsError(f"{self.lesson}: table name {name!r} must be like `per_element` or `sweep.parquet`.")
        if self.folder is None:
            return None
        if suffix == "parquet":
            content = table.to_parquet(index=False)
        else:
            content = table.to_csv(index=False, lineterminator="\n").encode()
        return _write(self.folder, f"{self.lesson}.{stem}.{suffix or 'csv'}", content)


def _write(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, content)
    return folder / name


def _finite(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ResultsError(f"{where}: expected a number, got {value!r} ({type(value).__name__}).")
    if not math.isfinite(value):
        raise ResultsError(f"{where}: {float(value)} is no result; find out why it is not a number.")
    return float(value)


def load_results(folder: str | os.PathLike, lessons: Iterable[str] | None = None) -> dict[str, dict]:
    """Read the results files of a folder, as lesson to `{lesson, dataset, label_notice, results}`.

    Parameters
    ----------
    folder : path
    lessons : iterable of str, optional
        Lessons whose file must be there; default: whatever the folder holds, at least one.

    Raises
    ------
    ResultsError
        A file that is missing or not what `LessonResults.save` writes; the message names it.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.json")) if lessons is None else [folder / f"{name}.json" for name in lessons]
    if not paths:
        raise ResultsError(f"{folder}: no results file here; run the lessons with `crossfunc run`.")
    return {path.stem: _read_results(path) for path in paths}


def load_if_recorded(folder: Path, lesson: str) -> dict | None:
    """Return what a lesson recorded; None where it recorded nothing, or was not executed into this folder."""
    return load_results(folder, [lesson])[lesson] if (folder / f"{lesson}.json").is_file() else None


def _read_results(path: Path) -> dict:
    remedy = f"run `crossfunc run {path.stem} --force`."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path}: the results file is missing; {remedy}") from None
    except ValueError as error:
        raise ResultsError(f"{path}: not readable as JSON ({error}); {remedy}") from error
    if not isinstance(content, dict) or not set(content) >= _FIELDS or content["lesson"] != path.stem:
        raise ResultsError(f"{path}: not a results file of lesson {path.stem}; {remedy}")
    keys = [result.get("key") if isinstance(result, dict) else None for result in content["results"]]
    if None in keys or len(set(keys)) < len(keys):
        raise ResultsError(f"{path}: results without a key, or with the same one; {remedy}")
    return content


def seed_range(of_seeds: Iterable[float]) -> tuple[float, float] | None:
    """Return the smallest and the largest value over seeds; None for one seed, which has no spread."""
    values = list(of_seeds)
    return (float(min(values)), float(max(values))) if len(values) > 1 else None


def count_seeds(n: int) -> str:
    """Return how many seeds there are, in words: "1 seed", "3 seeds"."""
    return f"{n} seed{'s' * (n > 1)}"


def listed(words: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def format_value(value: float | None, interval: tuple[float, float] | None = None, unit: str = "") -> str:
    """Return a number with as many digits as it deserves: "0.096", "974", "18.4 ± 0.3 meV/atom".

    Without an interval, whole numbers and numbers of at most four digits are left as they are, others get three
    significant digits. With one, its half-width is rounded to one digit (two if that digit is 1) and the value to the
    same place; an interval that is clearly not symmetric, or whose rounding would reach zero where it does not, is
    written as "18.4 (18.1 to 19.2)".
    """
    if value is None:
        return ""
    unit = f" {unit}" if unit else ""
    if interval is None or interval[0] == interval[1]:
        return _plain(value) + unit
    low, high = interval
    half = (high - low) / 2
    places = _places(half)
    reaches_zero = low * high > 0 and round(abs(value), places) <= round(half, places)
    if reaches_zero or abs((high + low) / 2 - value) > 0.2 * half:
        return f"{_fixed(value, places)} ({_fixed(low, places)} to {_fixed(high, places)}){unit}"
    return f"{_fixed(value, places)} ± {_fixed(half, places)}{unit}"


def _places(uncertainty: float) -> int:
    """Decimal places of an uncertainty with one significant digit, two if the first is 1."""
    exponent = math.floor(math.log10(uncertainty))
    digits = 1 if round(uncertainty / 10**exponent, 1) < 2 else 0
    return digits - exponent


def _fixed(value: float, places: int) -> str:
    value = round(value, places) + 0.0  # never "-0.0"
    return f"{value:{',' if abs(value) >= 10_000 else ''}.{max(places, 0)}f}"


def _plain(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return _fixed(value, 0)
    if float(f"{value:.4g}") == value:
        return f"{value:.4g}"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    places = max(2 - math.floor(math.log10(abs(value))), 0)
    while abs(value) < 1 and round(abs(value), places) == 1 and places < 8:
        places += 1  # what is less than one (a correlation, a share) does not read as one
    return _fixed(value, places)
