"""``{public-names} MODULE``: a table of a module's public names, then each one's own documentation by autodoc.

The names come from the module's ``__all__``, so the page cannot list what is gone or miss what is new.
"""

import importlib
import inspect
import re

from book_tables import parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


def public_names(module, seen=()):
    """Return (name, object) of a module's public names that are not among the objects already documented."""
    if not hasattr(module, "__all__"):
        raise ExtensionError(f"{module.__name__} has no __all__: the API page lists the names it holds.")
    pairs = [(name, getattr(module, name)) for name in module.__all__]
    return [(name, thing) for name, thing in pairs if not inspect.ismodule(thing) and id(thing) not in seen]


def first_line(thing):
    """Return the first paragraph of a docstring on one line; empty for data, whose docstring is its type's."""
    if not (inspect.isroutine(thing) or inspect.isclass(thing)):
        return ""
    return plain_to_rst(" ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()))


def plain_to_rst(line):
    """Turn a line of a docstring, written to be read as text, into reStructuredText: `code` and norms as ||x||."""
    parts = re.split(r"(``.+?``|:\w[\w:]*:`.+?`|`.+?`)", line)
    for i, part in enumerate(parts):
        if i % 2 == 0:  # between the pieces of code
            parts[i] = part.replace("|", r"\|")
        elif part.startswith("`") and not part.startswith("``"):
            parts[i] = f"`{part}`"
    return "".join(parts)


def read_docstring(app, what, name, thing, options, lines):
    """Do so for every docstring, before napoleon reads its sections."""
    lines[:] = [plain_to_rst(line) for line in lines]


def entry(module, name, thing):
    """Return the autodoc lines of one name."""
    if inspect.isclass(thing):
        members = [] if issubclass(thing, BaseException) else ["   :members:"]
        return [f".. autoclass:: {module}.{name}", *members]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {module}.{name}"]
    return [f".. py:data:: {module}.{name}", "", f"   ``{_short(thing)}``"]


def _short(thing, limit=300):
    text = " ".join(repr(thing).replace("`", "'").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


class PublicNames(SphinxDirective):
    """Overview and documentation of the public names of a module."""

    required_arguments = 1

    def run(self):
        """Write the overview as a table and the rest as autodoc directives."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        seen = self.env.temp_data.setdefault("crossfunc_documented", set())
        pairs = public_names(module, seen)
        seen.update(id(thing) for _, thing in pairs)
        if not pairs:
            return []
        lines = ["````{eval-rst}", ".. list-table::", "   :widths: 34 66", "   :class: xf-names", ""]
        for each, thing in pairs:
            role = "class" if inspect.isclass(thing) else "func" if inspect.isroutine(thing) else "data"
            lines += [f"   * - :py:{role}:`{each} <{name}.{each}>`", f"     - {first_line(thing)}"]
        lines.append("")
        for each, thing in pairs:
            lines += [*entry(name, each, thing), ""]
        return parse_lines(self, [*lines, "````"])


def setup(app):
    """Register the directive."""
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # napoleon has 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
