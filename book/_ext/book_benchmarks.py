"""``{benchmark} NAME``: the measurement in book/benchmarks/NAME.json, made by ``crossfunc bench NAME --json``."""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


def benchmark_tables(path):
    """Return (caption, header, rows) of each table of a measurement; a file that is missing stops the build.

    Single numbers share the first table; figures by batch and by step get one each.
    """
    if not path.is_file():
        raise ExtensionError(f"{path}: missing; make it with: crossfunc bench {path.stem} --json > {path}")
    return list(_tables(json.loads(path.read_text(encoding="utf-8"))))


def _tables(measured, outer=""):
    single = [(_words(key), _inline(value)) for key, value in measured.items() if not _is_nested(value)]
    if single:
        yield outer, ("measured", ""), single
    for key, value in measured.items():
        if not _is_nested(value):
            continue
        caption = f"{outer}, {_words(key)}" if outer else _words(key)
        if not all(isinstance(inner, dict) for inner in value.values()):
            yield from _tables(value, caption)
            continue
        flat = {name: dict(_flatten(inner)) for name, inner in value.items()}
        columns = list(dict.fromkeys(column for row in flat.values() for column in row))
        rows = [(name, *(_digits(row.get(column)) for column in columns)) for name, row in flat.items()]
        yield caption, ("", *columns), rows


def _flatten(measured, outer=""):
    for key, value in measured.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{outer}{_words(key)}, ")
        else:
            yield outer + _words(key), value


def _is_nested(value):
    return isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values())


def _inline(value):
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_digits(inner)}" for name, inner in value.items())
    return _digits(value)


def _words(name):
    return str(name).replace("_", " ")


def _digits(value):
    if value is None:
        return "not measured"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Benchmark(SphinxDirective):
    """Tables of a committed measurement."""

    required_arguments = 1

    def run(self):
        """List what was measured under the names that the benchmark prints."""
        path = Path(self.config.crossfunc_root) / "book" / "benchmarks" / f"{self.arguments[0]}.json"
        lines = []
        for caption, header, rows in benchmark_tables(path):
            lines += [f"```{{list-table}} {caption}", ":header-rows: 1", ""]
            for row in (header, *rows):
                lines += [f"{'* -' if k == 0 else '  -'} {cell}" for k, cell in enumerate(row)]
            lines += ["```", ""]
        container = nodes.container(classes=["xf-datasheet"])
        self.state.nested_parse(StringList(lines, source="benchmark"), self.content_offset, container)
        return [container]


def setup(app):
    """Register the directive."""
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
