"""``{teachers} FIRST SECOND``: how far the labels of two datasets with the same crystals lie apart."""

from book_tables import list_table, parse_lines
from sphinx.util.docutils import SphinxDirective

HEADER = ("property", "mean distance", "median distance", "mean size", "slope", "number")


def teacher_lines(table, caption):
    """Return the MyST lines of a table of `teacher_spread`."""
    rows = [
        (
            row.property,
            f"{row.mean:.3g} {row.unit}",
            f"{row.median:.3g} {row.unit}",
            f"{row.size:.3g} {row.unit}" if row.size == row.size else "—",
            f"{row.slope:.2f}" if row.slope == row.slope else "—",
            f"{row.n:,}",
        )
        for row in table.itertuples()
    ]
    return list_table(HEADER, rows, caption=caption)


class Teachers(SphinxDirective):
    """Table of two datasets by name or folder."""

    required_arguments = 2

    def run(self):
        """Compare the two when the page is built."""
        import crossfunc as xf
        from crossfunc.surrogate.spread import teacher_spread

        first, second = (xf.open_dataset(name) for name in self.arguments)
        caption = f"{second.labelled_by} against {first.labelled_by}, the same crystals"
        lines = teacher_lines(teacher_spread(first, second), caption)
        return parse_lines(self, lines, "xf-datasheet")


def setup(app):
    """Register the directive."""
    app.add_directive("teachers", Teachers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
