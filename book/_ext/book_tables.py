"""Tables of the book's directives, as MyST."""


def list_table(header, rows, widths=None, caption=""):
    """Return the MyST lines of a table; a fence of tildes, because one of backticks allows none in the caption."""
    options = [":header-rows: 1", *([f":widths: {widths}"] if widths else [])]
    lines = [f"~~~{{list-table}} {caption}".rstrip(), *options, ""]
    for row in (header, *rows):
        lines += [f"{'* -' if k == 0 else '  -'} {' '.join(str(cell).split())}" for k, cell in enumerate(row)]
    return [*lines, "~~~", ""]
