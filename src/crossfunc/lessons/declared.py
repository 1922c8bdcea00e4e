"""What a recorded number is: title, unit, the paper's number and why they differ, written once in `results.yml`.

The file lies beside the lessons and has a section for each. A lesson records a key and a value; everything that people
read beside the value stands in the file, where it can be checked against the paper in one sitting.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from crossfunc.lessons.sources import own_lessons

FILE = "results.yml"


class DeclarationError(ValueError):
    """`results.yml` cannot be read, or does not say what a lesson records; the message names lesson and key."""


@dataclass(frozen=True)
class Declared:
    """What stands in the file under one key.

    `where` is the figure or table of the paper, `when` the condition under which a lesson records the key at all
    (empty: always). Title, why and note may hold `{names}`, filled in by the lesson.
    """

    title: str
    unit: str = ""
    paper: float | str | None = None
    where: str = ""
    why: str = ""
    note: str = ""
    when: str = ""

    def filled(self, given: Mapping[str, Any], of_dataset: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return title, unit, paper, why and note with every `{name}` replaced.

        Parameters
        ----------
        given : mapping
            Values of the lesson; each must be asked for.
        of_dataset : mapping
            Values that may be asked for.
        where : str
            Lesson and key, for messages.

        Raises
        ------
        DeclarationError
            A name without a value, or a value without its name.
        """
        texts = {name: getattr(self, name) for name in ("title", "why", "note")}
        asked = {name for text in texts.values() for _, name, _, _ in string.Formatter().parse(text) if name}
        values = {**of_dataset, **given}
        if lacking := asked - values.keys():
            raise DeclarationError(f"{where}: {FILE} asks for {', '.join(sorted(lacking))}: give it to record(...).")
        if spare := given.keys() - asked:
            raise DeclarationError(f"{where}: {FILE} has no {{{'}, {'.join(sorted(spare))}}} there: leave it out.")
        return {name: text.format(**values) for name, text in texts.items()} | {"unit": self.unit, "paper": self.paper}


def find_declarations(start: Path | None = None) -> Path:
    """Return the `results.yml` in a folder (default: where the kernel runs), or that of the book's own lessons."""
    here = (start or Path.cwd()) / FILE
    return here if here.is_file() else own_lessons() / FILE


def read_declarations(path: Path) -> dict[str, dict[str, Declared]]:
    """Read `results.yml` as lesson -> key -> what is recorded; without the file, nothing is declared.

    Raises
    ------
    DeclarationError
        Not YAML, a key without a title, or an entry that no number has; the message names file, lesson and key.
    """
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path.name}: not readable as YAML ({error}).") from error
    known = {field.name for field in fields(Declared)}
    declared: dict[str, dict[str, Declared]] = {}
    for lesson, section in content.items():
        if lesson.startswith("_"):
            continue  # text that several entries share
        if not isinstance(section, dict):
            raise DeclarationError(f"{path.name}: {lesson} needs keys, each with a title.")
        for key, entry in section.items():
            if not isinstance(entry, dict) or not str(entry.get("title", "")).strip():
                raise DeclarationError(f"{path.name}: {lesson}: {key} needs a title.")
            if unknown := sorted(entry.keys() - known):
                raise DeclarationError(
                    f"{path.name}: {lesson}: {key}: no such entry: {', '.join(unknown)}; there are "
                    f"{', '.join(sorted(known))}."
                )
        declared[lesson] = {key: Declared(**entry) for key, entry in section.items()}
    return declared


def unused_keys(lesson: str, recorded, declared: Mapping[str, Mapping[str, Declared]]) -> list[str]:
    """Return the keys that `results.yml` promises for a lesson in every run, and that it did not record."""
    promised = {key for key, entry in declared.get(lesson, {}).items() if not entry.when}
    return sorted(promised - set(recorded))
