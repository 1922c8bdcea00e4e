"""The look of every figure: size, colours, markers, axis texts."""

import matplotlib as mpl
import numpy as np

COLORS = {
    "gga": "#9a9a9a",
    "r2scan": "#0b5fa5",
    "identity": "#4d4d4d",
    "fit": "#b3470b",
    "method_1": "#f2b134",
    "method_2": "#d9707f",
    "method_3": "#2a8a68",
    "method_4": "#4b2a85",
}
"""Fixed colours, one meaning each: safe for colour-blind readers, ordered by lightness so that grey print works."""

MARKERS = {
    "gga": "s",
    "r2scan": "o",
    "identity": "x",
    "fit": "^",
    "method_1": "v",
    "method_2": "s",
    "method_3": "D",
    "method_4": "o",
}
"""The second cue beside colour."""

LABELS = {
    "element_reference_shift_ev": "element reference, r²SCAN − GGA/GGA+U (eV/atom)",
    "n_frames": "frames that contain the element",
    "n_materials": "materials that contain the element",
    "importance": "share of the explained energy difference",
}
"""Axis text by column name, so that a name and its unit cannot drift apart; of energies see `dataset.label(column)`."""

STYLE = {
    "figure.figsize": (6.4, 4.2),
    "figure.dpi": 144,
    "savefig.dpi": 144,
    # An opaque white ground: transparent figures turn unreadable in the dark theme.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=[COLORS[k] for k in ("r2scan", "method_1", "method_3", "method_2", "gga")]),
    "axes.grid": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "image.cmap": "viridis",
    "svg.hashsalt": "crossfunc",
}
PIXELS_PER_CSS_PIXEL = 1.5  # 144 dpi shown at 96: sharp on fine screens, and every figure's text has the same size
PLOTLY_FONT = {"family": "DejaVu Sans, Verdana, sans-serif", "size": 13, "color": "#222222"}
NOTE_BOX = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#cccccc", "alpha": 0.9}


class FigureError(ValueError):
    """A figure that cannot be drawn or shown as asked; the message names the remedy."""


def use_style():
    """Set size, resolution, font, ground and colour cycle for every figure that follows."""
    mpl.rcParams.update(STYLE)


def wide():
    """Size of a figure with two panels side by side, inches."""
    return 9.2, 4.2


def finite_pair(x, y):
    """Two columns of equal length as float arrays; a value that is not finite is an error."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise FigureError(f"x has shape {x.shape} and y {y.shape}: both need one value per material.")
    bad = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if len(bad):
        raise FigureError(f"{len(bad)} of {len(x)} points are not finite (first: row {bad[0]}): leave them out first.")
    if len(x) < 3:
        raise FigureError(f"{len(x)} points cannot show a correlation: give at least three.")
    return x, y
