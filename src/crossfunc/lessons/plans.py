"""What a run is made from: each lesson with its values, its inputs and the folder that its outcome goes to."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossfunc.lessons.declared import FILE as DECLARATIONS
from crossfunc.lessons.declared import DeclarationError, read_declarations
from crossfunc.lessons.profiles import DEFAULT_PROFILE, check_defaults, check_names, load_profile, resolve_parameters
from crossfunc.lessons.sources import (
    RESULTS_PARAMETER,
    Lesson,
    LessonError,
    find_lessons,
    package_folder,
    select_lessons,
)

ABSENT = "not run"
"""Instead of a sha256: a lesson that others read has not been executed here, and they do without."""


@dataclass(frozen=True)
class Plan:
    """One lesson with everything that decides its outcome, and where that outcome goes."""

    lesson: Lesson
    profile: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    folder: Path
    overridden: tuple[str, ...] = ()  # parameters of the run, in whichever lesson, whose value is not the profile's
    needed: tuple["Plan", ...] = ()  # the same run's plans of the lessons whose results this one reads

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.folder / "notebooks" / f"{self.lesson.stem}.ipynb"

    @property
    def dataset(self) -> Any:
        """What the lesson's dataset is opened by, wherever the command was given."""
        return planned_dataset(self.parameters["dataset"])

    @property
    def failed_notebook(self) -> Path:
        """What was executed before a cell failed."""
        return self.notebook.with_suffix(".failed.ipynb")

    @property
    def results(self) -> Path:
        """The folder of the results files."""
        return self.folder / "results"

    @property
    def figures(self) -> Path:
        """The folder of this lesson's named figures as SVG and PDF."""
        return self.folder / "figures" / self.lesson.stem

    @property
    def results_files(self) -> list[Path]:
        """The files that this lesson left in the results folder."""
        stem = self.lesson.stem
        return sorted(p for p in self.results.glob(f"{stem}.*") if p.is_file())

    @property
    def injected(self) -> dict[str, Any]:
        """The values that the kernel is given: those that are not the lesson's defaults, and the results folder."""
        results = {RESULTS_PARAMETER: str(self.results)} if RESULTS_PARAMETER in self.lesson.parameters else {}
        return self._changed | results

    @property
    def shown(self) -> dict[str, Any]:
        """The values that are not the lesson's defaults, as they may be saved: without a place on this machine."""
        return public_parameters(self._changed)

    @property
    def _changed(self) -> dict[str, Any]:
        declared = self.lesson.parameters
        return {name: value for name, value in self.parameters.items() if value != declared[name].default}

    def needed_now(self) -> dict[str, str]:
        """Return, by lesson, a sha256 of what each needed lesson was made from and left here, or that it has not run.

        `inputs` says what a needed lesson would be made from; this says what this lesson reads.
        """
        return {plan.lesson.stem: plan.executed_now() for plan in self.needed}

    def executed_now(self) -> str:
        """Return a sha256 of what the executed notebook here says of its run, or `ABSENT`."""
        try:
            record = json.loads(self.notebook.read_text(encoding="utf-8"))["metadata"]["crossfunc"]
        except (OSError, ValueError, KeyError, TypeError):
            return ABSENT
        return sha256_of(record)

    def hash_results(self) -> dict[str, str]:
        """Return the sha256 of each results file, by name."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.results_files}


def plan_run(
    root: Path,
    profile: str = DEFAULT_PROFILE,
    names: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    out: Path | None = None,
    notebooks: Path | None = None,
    package: Path | None = None,
) -> list[Plan]:
    """Decide which lessons run with which values, and into which folder; nothing is executed or written.

    Parameters
    ----------
    root : path
        The checkout.
    profile : str
    names : iterable of str
        Numbers, stems or unique prefixes; none for all lessons.
    overrides : dict, optional
        Values that go before the profile's.
    out : path, optional
        Instead of `build/<profile>`, which the book is made from. What does not have the profile's values goes to
        another folder: `build/<profile>-<dataset>` for another dataset, with `-custom` at its end for anything else.
    notebooks, package : path, optional
        Instead of `root/notebooks` and of the imported package.

    Raises
    ------
    LessonError
        Unknown lesson, profile or parameter; a value of the wrong kind; no `parameters` cell.
    """
    notebooks = notebooks or root / "notebooks"
    overrides = _anchor_paths(dict(overrides or {}))
    lessons = {lesson.stem: lesson for lesson in find_lessons(notebooks)}
    selected = select_lessons(list(lessons.values()), names)
    scale = load_profile(notebooks, profile)
    check_names(selected, overrides)
    if len(selected) == len(lessons):
        check_defaults(scale, selected)
    package_sha256 = hash_package(package or package_folder())
    try:
        declared = read_declarations(notebooks / DECLARATIONS)
    except DeclarationError as error:
        raise LessonError(str(error)) from error
    values: dict[str, dict[str, Any]] = {}
    inputs: dict[str, dict[str, str]] = {}
    overridden: set[str] = set()

    def inputs_of(stem: str, asked_by: tuple[str, ...] = ()) -> dict[str, str]:
        if stem not in lessons or stem in asked_by:
            raise LessonError(f"{asked_by[-1]}: `needs` names {stem}, which is no other lesson before it.")
        if stem not in inputs:
            lesson = lessons[stem]
            usual, values[stem] = (resolve_parameters(lesson, scale, given) for given in (None, overrides))
            overridden.update(name for name in usual if values[stem][name] != usual[name])
            own = hash_inputs(lesson, values[stem], package_sha256)
            if stem in declared:
                own["declared results"] = sha256_of({key: asdict(entry) for key, entry in declared[stem].items()})
            needed = [inputs_of(other, (*asked_by, stem)) for other in lesson.needs]
            if needed:
                own["needs"] = sha256_of([total_of(other) for other in needed])
            inputs[stem] = own
        return inputs[stem]

    for lesson in selected:
        inputs_of(lesson.stem)
    profiles = {path.stem for path in (notebooks / "profiles").glob("*.yml")}
    folder = Path(out or root / "build" / _folder_name(profile, overrides, overridden, profiles)).resolve()

    def plan_of(lesson: Lesson) -> Plan:
        needed = tuple(plan_of(lessons[other]) for other in lesson.needs)
        stem = lesson.stem
        return Plan(lesson, profile, values[stem], inputs[stem], folder, tuple(sorted(overridden)), needed)

    return [plan_of(lesson) for lesson in selected]


def _folder_name(profile: str, overrides: Mapping[str, Any], overridden: Set[str], profiles: Set[str]) -> str:
    """A folder with the name of a profile holds that profile's own values, so other values never go there."""
    data = f"-{_slug(overrides['dataset'])}" if "dataset" in overridden else ""
    name = profile + data + ("-custom" if overridden - {"dataset"} else "")
    return f"{name}-other" if overridden and name in profiles else name


def _anchor_paths(overrides: dict[str, Any]) -> dict[str, Any]:
    """A relative file or folder is meant from where the command was given; the lesson runs elsewhere."""
    for name, given in overrides.items():
        if isinstance(given, str) and given:
            path = Path(given).expanduser()
            is_data = name == "dataset" and (path.is_file() or (path / "dataset.json").is_file())
            if is_data or (os.sep in given and path.exists()):
                overrides[name] = str(path.resolve())
    return overrides


def planned_dataset(given: Any) -> Any:
    """Return what a plan's dataset is opened by: the folder of a known name, anything else as it is.

    A folder of that name in the working directory is not meant: the lesson runs elsewhere, and one that was meant is
    given by its full path here.
    """
    from crossfunc.datasets import list_datasets

    return list_datasets().get(given, given) if isinstance(given, str) else given


def check_dataset(given: Any, whose: str = "") -> None:
    """Refuse the name of a dataset that is not here; anything but a text is left to who reads it.

    Raises
    ------
    LessonError
        Says where datasets are looked for, after `whose`.
    """
    from crossfunc.datasets import DatasetError, find_dataset

    if isinstance(given, str):
        try:
            find_dataset(planned_dataset(given))
        except DatasetError as error:
            raise LessonError(f"{whose}{error}") from None


def _slug(dataset: Any) -> str:
    name = Path(str(dataset)).stem if str(dataset).endswith(".csv") else Path(str(dataset)).name
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "data"


def hash_inputs(lesson: Lesson, parameters: Mapping[str, Any], package_sha256: str) -> dict[str, str]:
    """Return one sha256 per kind of input: the lesson's source, the package, the parameters and the data."""
    given = dict(parameters)
    inputs = {"source": sha256_of(lesson.text), "package": package_sha256}
    if "dataset" in given:
        inputs["data"] = _hash_dataset(given["dataset"])
    files = {name: _hash_file(Path(value)) for name, value in given.items() if name != "dataset" and _is_place(value)}
    if files:
        inputs["files"] = sha256_of(files)
    inputs["parameters"] = sha256_of(public_parameters(given))  # the same data in another place are the same data
    return inputs


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()


def _hash_file(path: Path) -> str:
    if (path / "dataset.json").is_file():
        return _hash_dataset(path)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "not found here"


def total_of(inputs: Mapping[str, str]) -> str:
    """Return the one sha256 that stands for all inputs."""
    return sha256_of(dict(inputs))


_SOURCES = frozenset({".py", ".cpp", ".yml", ".json", ".csv"})


def hash_package(folder: Path) -> str:
    """Return a sha256 of the package's source, its tables and, by their `dataset.json`, its packaged data."""
    files = [p for p in folder.rglob("*") if p.suffix in _SOURCES]
    content = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return sha256_of(content)


def _hash_dataset(name_or_path: Any) -> str:
    try:
        from crossfunc.datasets import DatasetError, dataset_fingerprint
    except ImportError:
        return "unknown: this build of crossfunc has no datasets"
    try:
        return dataset_fingerprint(planned_dataset(str(name_or_path)))
    except DatasetError:
        return f"not found here: {public_dataset(name_or_path)}"


def public_dataset(value: Any) -> Any:
    """Return a dataset's name as it may be saved: the last part of a path, anything else as it is."""
    return Path(value).name if isinstance(value, str) and os.sep in value else value


def public_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as they may be saved: files and datasets without the places where they lie."""
    return {k: public_dataset(v) if k == "dataset" or _is_place(v) else v for k, v in parameters.items()}


def sha256_of(value: Any) -> str:
    """Return the sha256 of a text, or of the JSON of anything else; hexadecimal."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
