"""Tables of the book's directives, as MyST."""


def list_table(header, rows, widths=None, caption=""):
    """Return the MyST lines of a table."""
    options = [":header-rows: 1", *([f":widths: {widths}"] if widths else [])]
    lines = [f"```{{list-table}} {caption}".rstrip(), *options, ""]
    for row in (header, *rows):
        lines += [f"{'* -' if k == 0 else '  -'} {' '.join(str(cell).split())}" for k, cell in enumerate(row)]
    return [*lines, "```", ""]
