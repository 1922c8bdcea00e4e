"""Lessons as they are written: where they lie, which parameters they declare, which of them a name stands for.

A lesson is `notebooks/NN_topic.py`, a py:percent file with one cell tagged `parameters`; `NNb_topic.py` is its second
page.
"""

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from crossfunc.errors import InputError
from crossfunc.lessons.limits import FILE as LIMITS_FILE
from crossfunc.lessons.limits import Limits, read_limits

RESULTS_PARAMETER = "results_dir"
"""Given to a lesson that declares it: the folder for its results file. It never decides whether a lesson is fresh."""

FIGURES_VARIABLE = "CROSSFUNC_FIGURES"
"""Environment variable with the folder into which `figures.show` writes named figures as SVG and PDF."""

_LESSON_GLOBS = ("[0-9][0-9]_*.py", "[0-9][0-9][b-z]_*.py")
_NUMBER = re.compile(r"(\d+)([b-z]?)")
_KINDS = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict, "None": type(None)}


class LessonError(ValueError):
    """A lesson, profile or parameter that cannot be used; the message names it and the remedy."""


def find_root(start: str | os.PathLike | None = None) -> Path:
    """Return the checkout that `start` (default: the working directory) lies in.

    Raises
    ------
    LessonError
        No folder upwards holds both `notebooks/` and `_config.yml`.
    """
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks").is_dir() and (folder / "_config.yml").is_file():
            return folder
    raise LessonError(
        f"{start}: not inside a checkout of the book (no folder upwards holds notebooks/ and _config.yml). "
        "Clone the repository and run this there, or give --root; `crossfunc run 01 --out DIR` runs the lessons that "
        "came with the package."
    )


def own_lessons() -> Path:
    """Return the folder of the lessons of this package."""
    return shipped_folder("notebooks")


def shipped_folder(name: str) -> Path:
    """Return a folder that travels with this package: inside it in a wheel, beside `src` in a checkout."""
    inside = package_folder() / "lessons" / name
    return inside if inside.is_dir() else package_folder().parents[1] / name


def place_lessons(
    root: Path | None = None, notebooks: Path | None = None, out: Path | None = None
) -> tuple[Path, Path | None]:
    """Return the checkout that a run belongs to, and the folder of its lessons (None: the checkout's own).

    Outside a checkout, `out` lets the lessons that came with the package run; nothing else is written then.

    Raises
    ------
    LessonError
        Neither a checkout nor `out`.
    """
    if root is None and out and notebooks:
        return Path.cwd(), notebooks.resolve()
    try:
        return find_root(root), notebooks.resolve() if notebooks else None
    except LessonError:
        if root is not None or out is None or not own_lessons().is_dir():
            raise
        return Path.cwd(), own_lessons()


def package_folder() -> Path:
    """Return the folder of the crossfunc package that the lessons will import."""
    return Path(__file__).resolve().parents[1]


def shown(path: Path) -> str:
    """Return a path as people at the working directory would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a lesson: its default, the kinds of value it takes (empty: any) and what its line says of it."""

    name: str
    default: Any
    kinds: tuple[str, ...]
    meaning: str = ""
    limits: Limits = field(default_factory=Limits)

    def accept(self, value: Any, where: str) -> Any:
        """Return `value` in the parameter's kind (an int becomes a float where a float is wanted), or raise."""
        try:
            value = _convert(value, self.kinds)
            if isinstance(value, list):
                inner = _kinds_of_items(self.default)
                value = [_convert(item, inner) for item in value]
        except TypeError:
            hint = f" To give it as text, quote it: -p '{self.name}=\"{value}\"'." if "str" in self.kinds else ""
            raise LessonError(
                f"{where}: parameter `{self.name}` takes {' or '.join(self.kinds)} (default {self.default!r}), "
                f"got {value!r} ({type(value).__name__}).{hint}"
            ) from None
        if complaint := self.limits.complaint(value):
            raise LessonError(f"{where}: parameter `{self.name}` {complaint}, got {value!r}.")
        return value

    @property
    def takes(self) -> str:
        """Kinds and range in words: "int, at least 1", "list of str", "int or None"; nothing where anything goes."""
        inner = _kinds_of_items(self.default)
        kinds = [f"list of {inner[0]}" if kind == "list" and inner else kind for kind in self.kinds]
        each = "each " if self.limits.words and "list" in self.kinds else ""
        return ", ".join(filter(None, (" or ".join(kinds), each + self.limits.words)))


def _convert(value: Any, kinds: Sequence[str]) -> Any:
    if not kinds:
        return value
    for kind in kinds:
        if type(value) is _KINDS[kind]:
            return value
    if "float" in kinds and type(value) is int:
        return float(value)
    if "int" in kinds and type(value) is float and value.is_integer():
        return int(value)  # 1e4 is how people write ten thousand
    raise TypeError


def _kinds_of_items(default: Any) -> tuple[str, ...]:
    kinds = {type(item).__name__ for item in default} if isinstance(default, list) else set()
    return tuple(kinds) if len(kinds) == 1 else ()


@dataclass(frozen=True)
class Lesson:
    """One lesson source, `notebooks/NN_topic.py`, or the second page of one, `notebooks/NNb_topic.py`."""

    path: Path

    @property
    def stem(self) -> str:
        """The lesson's name, `NN_topic`."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The lesson's number as its file has it: "04", "04b" for its second page."""
        return self.stem.partition("_")[0]

    @property
    def source_name(self) -> str:
        """The source as people call it, `notebooks/NN_topic.py`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    def notebook(self):
        """Return the lesson as a fresh, unexecuted notebook node."""
        jupytext = import_book_tool("jupytext")
        notebook = jupytext.reads(self.text, fmt="py:percent")
        notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook.metadata["language_info"] = {"name": "python"}
        return notebook

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that the lesson declares, by name."""
        cells = [c for c in self.notebook().cells if "parameters" in c.metadata.get("tags", [])]
        if len(cells) != 1:
            counted = "no cell is" if not cells else f"{len(cells)} cells are"
            raise LessonError(
                f'{self.source_name}: {counted} tagged `parameters`; tag exactly one: # %% tags=["parameters"]'
            )
        found = _read_parameters(cells[0].source, self.source_name)
        try:
            limits = read_limits(self.path.parent / LIMITS_FILE)
        except InputError as error:
            raise LessonError(str(error)) from error
        return {name: replace(p, limits=limits.get(name, Limits())) for name, p in found.items()}

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Stems of the lessons whose results this one reads (`crossfunc: {needs: [...]}` in its header)."""
        needs = self.notebook().metadata.get("crossfunc", {}).get("needs", [])
        return (needs,) if isinstance(needs, str) else tuple(needs)

    def line_of(self, cell_source: str) -> int | None:
        """Return the line of the source file on which a code cell starts."""
        position = self.text.find(cell_source) if cell_source else -1
        return None if position < 0 else self.text.count("\n", 0, position) + 1


def _read_parameters(source: str, where: str) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    comments = _comments(source)
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        target, value, annotation = None, None, None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign):
            target, value, annotation = node.target, node.value, node.annotation
        try:
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError
            default = ast.literal_eval(value)
        except ValueError:
            raise LessonError(
                f"{where}: line {node.lineno} of the `parameters` cell is `{ast.unparse(node)}`; "
                "every line there must be `name = literal`, so that a profile can replace it."
            ) from None
        kinds = _kinds(annotation, default, f"{where}: `{target.id}`")
        # A long line is written over several, and its comment stands on any of them.
        said = filter(None, map(comments.get, range(node.lineno, (node.end_lineno or node.lineno) + 1)))
        found[target.id] = Parameter(target.id, default, kinds, " ".join(said))
    return found


def _comments(source: str) -> dict[int, str]:
    """Return the text of the comment on each line that has one."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _kinds(annotation: ast.expr | None, default: Any, where: str) -> tuple[str, ...]:
    if annotation is not None:
        kinds = tuple(part.split("[")[0].strip() for part in ast.unparse(annotation).split("|"))
    else:
        kinds = () if default is None else (type(default).__name__,)
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise LessonError(f"{where} is of kind {', '.join(unknown)}; a parameter is one of {', '.join(_KINDS)}.")
    return kinds


def find_lessons(folder: Path) -> list[Lesson]:
    """Return the lessons of a folder in the order of their numbers."""
    lessons = [Lesson(path) for path in sorted(path for glob in _LESSON_GLOBS for path in folder.glob(glob))]
    if not lessons:
        raise LessonError(f"{folder}: no lesson here (a lesson is a file NN_topic.py).")
    return lessons


def spoken_number(stem: str) -> str:
    """Return a lesson's number as people say it: "4" for 04_four_methods, "4b" for its second page."""
    return stem.partition("_")[0].lstrip("0")


def select_lessons(lessons: Sequence[Lesson], names: Iterable[str] = ()) -> list[Lesson]:
    """Return the lessons that `names` (number, stem or unique prefix) stand for, in order; all without names."""
    names = list(names)
    chosen = {_select_lesson(lessons, name).stem for name in names}
    return [lesson for lesson in lessons if not names or lesson.stem in chosen]


def _select_lesson(lessons: Sequence[Lesson], name: str) -> Lesson:
    stem = Path(name).stem if name.endswith((".py", ".ipynb")) else name
    given = _NUMBER.fullmatch(stem)
    number = f"{int(given[1]):02d}{given[2]}_" if given else None
    exact = [lesson for lesson in lessons if lesson.stem == stem]
    hits = exact or [lesson for lesson in lessons if lesson.stem.startswith(number or stem)]
    if len(hits) == 1:
        return hits[0]
    listed = ", ".join(lesson.stem for lesson in hits or lessons)
    raise LessonError(
        f"lesson {name!r} is ambiguous: {listed}." if hits else f"no lesson {name!r}; there are: {listed}."
    )


def import_book_tool(name: str):
    """Import a package of the extra `book`, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LessonError(f"running lessons needs {name}: pip install 'crossfunc[book]'") from error
