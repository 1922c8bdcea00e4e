"""The values that lessons run with: a profile, `notebooks/profiles/NAME.yml`, and what the command line sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crossfunc.lessons.sources import RESULTS_PARAMETER, Lesson, LessonError, find_lessons
from crossfunc.overrides import PlainYaml

DEFAULT_PROFILE = "laptop"
_PROFILE_KEYS = {"description", "defaults", "lessons"}


@dataclass(frozen=True)
class Profile:
    """One scale at which to run the lessons: values for parameters, common ones and per lesson."""

    name: str
    description: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lessons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The profile's file as people call it."""
        return f"notebooks/profiles/{self.name}.yml"


def load_profile(notebooks: Path, name: str) -> Profile:
    """Read `profiles/<name>.yml` of a notebooks folder.

    Raises
    ------
    LessonError
        No such profile (the message lists those there are), no YAML, unknown keys, or a lesson that does not exist.
    """
    path = notebooks / "profiles" / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
        raise LessonError(f"no profile {name!r} in {path.parent}; there are: {known}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=PlainYaml) or {}  # noqa: S506, a SafeLoader
    except yaml.YAMLError as error:
        raise LessonError(f"{path}: not readable as YAML ({error}).") from error
    if not isinstance(content, dict) or set(content) - _PROFILE_KEYS:
        raise LessonError(f"{path}: a profile has the keys {', '.join(sorted(_PROFILE_KEYS))}, and no others.")
    profile = Profile(
        name, content.get("description") or "", content.get("defaults") or {}, content.get("lessons") or {}
    )
    stems = {lesson.stem for lesson in find_lessons(notebooks)}
    unknown = sorted(set(profile.lessons) - stems)
    if unknown:
        raise LessonError(f"{path}: no lesson {', '.join(unknown)}; there are: {', '.join(sorted(stems))}.")
    for stem, values in {"defaults": profile.defaults, **profile.lessons}.items():
        if not isinstance(values or {}, dict):
            raise LessonError(f"{path}: `{stem}` must map parameters to values, got {values!r}.")
    return profile


def resolve_parameters(lesson: Lesson, profile: Profile, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the value of every parameter of a lesson: its default, then the profile's, then the override.

    Raises
    ------
    LessonError
        The profile names a parameter that the lesson lacks, or a value of the wrong kind.
    """
    values = {name: p.default for name, p in lesson.parameters.items() if name != RESULTS_PARAMETER}
    own = profile.lessons.get(lesson.stem) or {}
    unknown = sorted(set(own) - set(values))
    if unknown:
        raise LessonError(
            f"{profile.file}: {lesson.source_name} has no parameter {', '.join(unknown)}; "
            f"it declares {_describe_parameters([lesson])}."
        )
    sources = ((profile.file, profile.defaults), (profile.file, own), ("-p", overrides or {}))
    for where, given in sources:
        for name in sorted(values.keys() & given.keys()):
            values[name] = lesson.parameters[name].accept(given[name], f"{where}, lesson {lesson.stem}")
    return values


def check_names(lessons: Sequence[Lesson], overrides: Mapping[str, Any]) -> None:
    """Raise LessonError for an override that none of the lessons declares, or that only the runner may set."""
    if RESULTS_PARAMETER in overrides:
        raise LessonError(f"-p {RESULTS_PARAMETER}: the runner sets this one; say where to write with --out.")
    declared = {name for lesson in lessons for name in lesson.parameters}
    unknown = sorted(set(overrides) - declared)
    if unknown:
        raise LessonError(
            f"-p {', '.join(unknown)}: no selected lesson declares it. Declared: {_describe_parameters(lessons)}."
        )


def check_defaults(profile: Profile, lessons: Sequence[Lesson]) -> None:
    """Raise LessonError for a name among a profile's `defaults` that none of `lessons`, all there are, declares."""
    unknown = sorted(set(profile.defaults) - {name for lesson in lessons for name in lesson.parameters})
    if unknown:
        raise LessonError(
            f"{profile.file}: `defaults` names {', '.join(unknown)}, which no lesson declares. "
            f"Declared: {_describe_parameters(lessons)}."
        )


def _describe_parameters(lessons: Sequence[Lesson]) -> str:
    declared = {
        f"{p.name}={p.default!r}": None
        for lesson in lessons
        for p in lesson.parameters.values()
        if p.name != RESULTS_PARAMETER
    }
    return ", ".join(sorted(declared)) or "nothing"
