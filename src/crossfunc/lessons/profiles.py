"""The values that lessons run with: a profile, `notebooks/profiles/NAME.yml`, and what the command line sets."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crossfunc.lessons.sources import RESULTS_PARAMETER, Lesson, LessonError, find_lessons

DEFAULT_PROFILE = "laptop"
_PROFILE_KEYS = {"description", "defaults", "lessons"}


class _PlainYaml(yaml.SafeLoader):
    """YAML without surprises: `No` is a chemical element, 1e-3 is a number, a key given twice is an error."""

    def construct_mapping(self, node, deep=False):
        """Return the mapping; a key that occurs twice is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_NUMBER_START = list("-+.0123456789")
_PlainYaml.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false|True|False", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", _NUMBER_START),
    ("float", r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?", _NUMBER_START),
):
    _PlainYaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """Return `-p name=value` texts as a dictionary.

    A value is a number (12, 1e-3), `true` or `false`, a list ([Fe, O]), a text between quotes, nothing (None), as in
    YAML; anything else is the text as it stands, with every ` #`, `: ` or `&` in it.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise LessonError(f"-p {item}: expected name=value.")
        if name in overrides:
            raise LessonError(f"-p {item}: `{name}` is given twice.")
        try:
            overrides[name] = _read_value(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise LessonError(f"-p {item}: the value cannot be read as YAML ({error}).") from error
    return overrides


def _read_value(text: str) -> Any:
    """Read one value; a text that is not written as YAML's is itself."""
    bare = text.strip()
    if bare[:1] in ("[", "{", "'", '"'):
        tokens = list(yaml.scan(text, Loader=_PlainYaml))
        end = max(token.end_mark.index for token in tokens if not isinstance(token, yaml.StreamEndToken))
        if text[end:].strip():
            raise yaml.YAMLError(f"{text[end:].strip()!r} would be left out; put all of it between quotes")
        return yaml.load(text, Loader=_PlainYaml)  # noqa: S506, a SafeLoader
    loader = _PlainYaml("")
    tag = loader.resolve(yaml.ScalarNode, bare, (True, False))
    if tag == "tag:yaml.org,2002:str":
        return bare
    return loader.construct_object(yaml.ScalarNode(tag, bare))


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
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainYaml) or {}  # noqa: S506, a SafeLoader
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
