"""What the value of a parameter may be, and how the run time moves with it, written once in `parameters.yml`.

The file lies beside the lessons. The runner refuses a value out of its range before anything runs, and the book's page
of parameters prints the ranges, so that what a page promises is what is checked.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from crossfunc.errors import InputError

FILE = "parameters.yml"
TIMES = {
    "proportional": "in proportion",
    "grows": "grows",
    "shrinks": "shrinks",
    "none": "none",
    "": "—",
}
"""How the run time moves with a larger value, and in words; "" where nobody knows."""
_MANY = 8


@dataclass(frozen=True)
class Limits:
    """Range of a parameter, of each entry where it is a list, and how the run time of its lesson moves with it."""

    at_least: float | None = None
    above: float | None = None
    one_of: tuple[Any, ...] = ()
    time: str = ""

    def complaint(self, value: Any) -> str:
        """Return what is wrong with a value, as "must be at least 1"; nothing where it is None or all is well."""
        for item in value if isinstance(value, list) else [value]:
            if self.one_of and item is not None and item not in self.one_of:
                return f"must be {self.words}"
            if isinstance(item, bool) or not isinstance(item, (int, float)):
                continue
            lowest = -math.inf if self.at_least is None else self.at_least
            if not math.isfinite(item) or item < lowest or (self.above is not None and item <= self.above):
                return f"must be {self.words or 'finite'}"
        return ""

    @property
    def words(self) -> str:
        """The range as people say it: "at least 1", "above 0", "one of raw, mp2020"; nothing where there is none."""
        if len(self.one_of) > _MANY:
            return f"one of {len(self.one_of)} names, from {self.one_of[0]} to {self.one_of[-1]}"
        if self.one_of:
            return f"one of {', '.join(map(str, self.one_of))}"
        if self.above is not None:
            return f"above {self.above:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"


def read_limits(path: Path) -> dict[str, Limits]:
    """Read `parameters.yml` as name -> limits; without the file, nothing is limited.

    Raises
    ------
    InputError
        Not YAML, or an entry that no parameter has; the message names file and parameter.
    """
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path.name}: not readable as YAML ({error}).") from error
    known = {field.name for field in fields(Limits)}
    found = {}
    for name, entry in content.items():
        if not isinstance(entry, dict) or set(entry) - known or entry.get("time", "") not in TIMES:
            takes = f"{', '.join(sorted(known))}; time is one of {', '.join(filter(None, TIMES))}"
            raise InputError(f"{path.name}: {name} takes {takes}.")
        found[name] = Limits(**entry | {"one_of": _choices(entry.get("one_of", ()), f"{path.name}: {name}")})
    return found


def _choices(given: str | Sequence[Any], where: str) -> tuple[Any, ...]:
    """Return the values themselves, or those that a name like `crossfunc.units:STRESS_UNITS` stands for."""
    if not isinstance(given, str):
        return tuple(given)
    module, _, name = given.partition(":")
    try:
        return tuple(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: one_of names {given!r}, which holds no values ({error}).") from error
