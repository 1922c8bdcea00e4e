"""Values that a command line gives by name, `-p name=value`, read as YAML without surprises."""

import re
from collections.abc import Iterable
from typing import Any

import yaml

from crossfunc.errors import InputError

__all__ = ["PlainYaml", "parse_overrides"]


_MERGE = "tag:yaml.org,2002:merge"


class PlainYaml(yaml.SafeLoader):
    """YAML without surprises: `No` is a chemical element, 1e-3 is a number, a key given twice is an error.

    `<<` stands for the keys of another mapping, as YAML 1.1 has it.
    """

    def construct_mapping(self, node, deep=False):
        """Return the mapping; a key that occurs twice is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


PlainYaml.add_constructor(_MERGE, PlainYaml.construct_scalar)  # anywhere but as a key it is text
_NUMBER_START = list("-+.0123456789")
PlainYaml.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("merge", r"<<", ["<"]),
    ("bool", r"true|false|True|False", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", _NUMBER_START),
    ("float", r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?", _NUMBER_START),
):
    PlainYaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse_overrides(items: Iterable[str], option: str = "-p") -> dict[str, Any]:
    """Return `name=value` texts of a command's option as a dictionary.

    A value is a number (12, 1e-3), `true` or `false`, a list ([Fe, O]), a text between quotes, nothing (None), as in
    YAML; anything else is the text as it stands, with every ` #`, `: ` or `&` in it.

    Raises
    ------
    InputError
        A text that is no `name=value`, a name given twice, or a value that cannot be read; names the option.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise InputError(f"{option} {item}: expected name=value.")
        if name in overrides:
            raise InputError(f"{option} {item}: `{name}` is given twice.")
        try:
            overrides[name] = _read_value(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError(f"{option} {item}: the value cannot be read as YAML ({error}).") from error
    return overrides


def _read_value(text: str) -> Any:
    """Read one value; a text that is not written as YAML's is itself."""
    bare = text.strip()
    if bare[:1] in ("[", "{", "'", '"'):
        tokens = list(yaml.scan(text, Loader=PlainYaml))
        end = max(token.end_mark.index for token in tokens if not isinstance(token, yaml.StreamEndToken))
        if text[end:].strip():
            raise yaml.YAMLError(f"{text[end:].strip()!r} would be left out; put all of it between quotes")
        return yaml.load(text, Loader=PlainYaml)  # noqa: S506, a SafeLoader
    loader = PlainYaml("")
    tag = loader.resolve(yaml.ScalarNode, bare, (True, False))
    if tag == "tag:yaml.org,2002:str":
        return bare
    return loader.construct_object(yaml.ScalarNode(tag, bare))
