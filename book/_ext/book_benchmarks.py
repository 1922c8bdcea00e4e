"""``{benchmark} NAME``: the measurement in book/benchmarks/NAME.json, made by ``crossfunc bench NAME --json``."""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


def benchmark_rows(path):
    """Return (what, value) pairs of a measurement; a file that is missing stops the build."""
    if not path.is_file():
        raise ExtensionError(f"{path}: missing; make it with: crossfunc bench {path.stem} --json > {path}")
    measured = json.loads(path.read_text(encoding="utf-8"))
    return [(what, _digits(value)) for what, value in _flatten(measured)]


def _flatten(measured, outer=()):
    """One row a number: tables inside a measurement become "speed, batch, step"."""
    for key, value in measured.items():
        names = (*outer, str(key).replace("_", " ") if not outer else str(key))
        if isinstance(value, dict):
            yield from _flatten(value, names)
        else:
            yield ", ".join(names), value


def _digits(value):
    if value is None:
        return "not measured"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Benchmark(SphinxDirective):
    """Table of a committed measurement."""

    required_arguments = 1

    def run(self):
        """List what was measured under the names that the benchmark prints."""
        path = Path(self.config.crossfunc_root) / "book" / "benchmarks" / f"{self.arguments[0]}.json"
        lines = ["```{list-table}", ":widths: 60 40", ""]
        for what, value in benchmark_rows(path):
            lines += [f"* - {what}", f"  - {value}"]
        container = nodes.container(classes=["xf-datasheet"])
        self.state.nested_parse(StringList([*lines, "```"], source="benchmark"), self.content_offset, container)
        return [container]


def setup(app):
    """Register the directive."""
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
