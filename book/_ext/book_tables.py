"""What the book's directives write, as MyST, and its way into their page."""

from docutils import nodes
from docutils.statemachine import StringList


def parse_lines(directive, lines, *classes):
    """Let MyST parse what a directive wrote; return the nodes, in a container where classes are given."""
    container = nodes.container(classes=list(classes))
    directive.state.nested_parse(StringList(lines, source=directive.name), directive.content_offset, container)
    return [container] if classes else container.children


def list_table(header, rows, widths=None, caption=""):
    """Return the MyST lines of a table; a fence of tildes, because one of backticks allows none in the caption."""
    options = [":header-rows: 1", *([f":widths: {widths}"] if widths else [])]
    lines = [f"~~~{{list-table}} {caption}".rstrip(), *options, ""]
    for row in (header, *rows):
        lines += [f"{'* -' if k == 0 else '  -'} {' '.join(str(cell).split())}" for k, cell in enumerate(row)]
    return [*lines, "~~~", ""]
