"""Verdicts on other potentials: tables and paragraphs from the files that `crossfunc bench verdicts` wrote."""

import json
from pathlib import Path

from book_tables import list_table, parse_lines
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

HEADER = ("model", "speaks", "as it is", "new references", "with a prior", "composition alone", "slope of forces")


def read_verdicts(folder):
    """Return the verdicts of one dataset, by file name; a folder without any stops the build."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ExtensionError(
            f"{folder}: no verdicts; make them with: crossfunc bench verdicts DATASET --out book/verdicts/{folder.name}"
        )
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def verdict_lines(verdicts):
    """Return the MyST lines of one dataset: a table of all models, then what to do with each."""
    first = verdicts[0]
    caption = f"`{first['dataset']}`, labels {first['labels']}; {_size(verdicts)}. {first['label_notice']}."
    lines = list_table(HEADER, [_row(one) for one in verdicts], caption=caption)
    for one in verdicts:
        lines += [f"**{one['model']}.** {one['advice']}", f"Largest offsets: {largest_offsets(one)}.", ""]
    return lines


def largest_offsets(one, n=5):
    """The elements that most is to be added for, in eV with their standard errors; those that the data fix alone."""
    fixed = {symbol: row for symbol, row in one["elements"].items() if row["determined"] and row["std_error_ev"]}
    chosen = sorted(fixed, key=lambda symbol: -abs(fixed[symbol]["offset_ev"]))[:n]
    named = (f"{symbol} {fixed[symbol]['offset_ev']:+.2f} ± {fixed[symbol]['std_error_ev']:.2f}" for symbol in chosen)
    return f"{', '.join(named)} eV".replace("-", "−") if chosen else "none that the data fix"


def _size(verdicts):
    """How much was judged; a range where the models refused different frames."""
    counts = sorted({(one["n_frames"], one["n_materials"]) for one in verdicts})
    shown = [f"{frames} frames of {materials} materials" for frames, materials in (counts[0], counts[-1])]
    return shown[0] if counts[0] == counts[-1] else " to ".join(shown)


def _row(one):
    rows = {row["references"]: row for row in one["errors"]}
    cells = [_error(rows.get(name)) for name in HEADER_ROWS]
    forces = one["forces"]
    usable = forces and forces["mae_of_zero"] >= NEARLY_RELAXED_EV_PER_A
    return (one["model"], _spoken(one["functional"]), *cells, _slope(forces) if usable else "not judged")


def _slope(forces):
    """Slope of predicted on labelled forces with its interval, where there are materials enough for one."""
    if forces["slope_low"] is None:
        return f"{forces['slope']:.2f}"
    return f"{forces['slope']:.2f} ({forces['slope_low']:.2f} to {forces['slope_high']:.2f})"


HEADER_ROWS = ("as it is", "model-aware references", "with a prior", "composition alone")
NEARLY_RELAXED_EV_PER_A = 0.05


def _spoken(functional):
    if functional["spoken"]:
        return functional["spoken"]
    return f"zero of {functional['zero']}" if functional["zero"] else "cannot be told"


def _error(row):
    """Mean error with its standard error in meV/atom."""
    if row is None or row["mae_ev_per_atom"] is None:
        return "not known"
    mean, error = 1000 * row["mae_ev_per_atom"], 1000 * (row["std_error_ev_per_atom"] or 0)
    return f"{mean:,.0f} ± {error:,.0f}" if mean >= 100 else f"{mean:.1f} ± {error:.1f}"


class Verdicts(SphinxDirective):
    """All datasets that there are verdicts on, or the one that is named."""

    optional_arguments = 1

    def run(self):
        """Nest the tables where the directive stands."""
        root = Path(self.env.app.config.crossfunc_root) / "book" / "verdicts"
        names = self.arguments or sorted(path.name for path in root.glob("*") if path.is_dir())
        lines = []
        for name in names:
            lines += verdict_lines(read_verdicts(root / name))
        return parse_lines(self, lines, "xf-datasheet")


def setup(app):
    """Register the directive."""
    app.add_directive("verdicts", Verdicts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
