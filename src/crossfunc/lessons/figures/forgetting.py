"""What is gained and lost: errors in the target against errors in the source, by kind of frames, and dimers."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from crossfunc.lessons.figures.style import COLORS, wide

LOOKS = {
    "pretrained": ("gga", "P"),
    "references-only": ("gga", "X"),
    "1": ("method_1", "v"),
    "3": ("method_3", "D"),
    "4": ("method_4", "o"),
    "model-aware-trained": ("fit", "^"),
    "readout-only": ("r2scan", "s"),
    "soft-freezing": ("r2scan", "d"),
    "lora": ("r2scan", "X"),
    "l2-sp": ("method_2", "<"),
    "ewc": ("method_2", ">"),
    "replay": ("method_3", "p"),
    "two-readouts": ("method_3", "h"),
    "delta": ("identity", "*"),
    "delta-ridge": ("identity", "x"),
}
"""Colour (a key of `COLORS`) by family, and marker, of every method on these figures."""

_FACTOR = 3  # between largest and smallest error; a smaller span is drawn as it is
_DECADES = 50  # over a larger span only powers of ten have room for their numbers
_KIND_LOOKS = (("r2scan", "o"), ("fit", "s"), ("method_3", "D"), ("method_1", "v"), ("gga", "^"))
_CURVE_LOOKS = (("identity", "o"), ("gga", "-"), ("method_3", "--"), ("fit", "-."), ("r2scan", ":"))


def gained_and_lost(points, names: Mapping[str, str], zero: Mapping[str, float] | None = None):
    """Error in the target against error in the source, energies and forces beside each other.

    Parameters
    ----------
    points : DataFrame
        One row per method and seed: `method`, and `target_energy`, `source_energy` (meV/atom), `target_force`,
        `source_force` (meV/Å).
    names : mapping of str to str
        What the legend calls a method.
    zero : mapping of str to float, optional
        Force errors of predicting none, `target_force` and `source_force`: dotted lines.

    Returns
    -------
    matplotlib.figure.Figure
    """
    width, height = wide()
    fig, axes = plt.subplots(1, 2, figsize=(width, height))
    for ax, what, unit in zip(axes, ("energy", "force"), ("meV/atom", "meV/Å"), strict=True):
        draw_plane(ax, points, names=names, x=f"target_{what}", y=f"source_{what}")
        ax.set(xlabel=f"{what} error, target ({unit})", ylabel=f"{what} error, source ({unit})")
    if zero:
        axes[1].axvline(zero["target_force"], color=COLORS["gga"], ls=":", lw=1.0, label="no force predicted")
        axes[1].axhline(zero["source_force"], color=COLORS["gga"], ls=":", lw=1.0)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    fig.tight_layout()
    return fig


def draw_plane(ax, points, *, names: Mapping[str, str], x: str, y: str):
    """Draw two columns of `points` against each other, one marker per method and seed; returns the axes."""
    for method, rows in points.groupby("method", sort=False):
        color, marker = LOOKS[method]
        ax.scatter(rows[x], rows[y], color=COLORS[color], marker=marker, s=46, label=names[method], zorder=3)
    ax.margins(0.08)
    _scale(ax, "x", points[x])
    _scale(ax, "y", points[y])
    return ax


def _scale(ax, which: str, values) -> None:
    """Make an axis logarithmic where its errors span a factor, with zero on it where they reach down to it."""
    low, high = values.min(), values.max()
    if high < _FACTOR * low:
        return
    axis, scale = getattr(ax, f"{which}axis"), getattr(ax, f"set_{which}scale")
    if low < 1:
        scale("symlog", linthresh=1)
        ax.set(**{f"{which}lim": (-0.3, 1.6 * max(1, high))})
    else:
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _DECADES * low else (1,)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def lost_by_kind(table, ax=None):
    """Energy error of each method in the source, a marker for each kind of frames.

    Parameters
    ----------
    table : DataFrame
        Methods by their names as index, kinds of source frames as columns; meV/atom.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    rows = range(len(table))
    for kind, (color, marker) in zip(table.columns, _KIND_LOOKS, strict=False):
        ax.plot(table[kind], rows, marker, color=COLORS[color], label=kind, ms=6)
    ax.set_yticks(rows, table.index)
    ax.invert_yaxis()
    _scale(ax, "x", table.stack())
    ax.grid(axis="x", alpha=0.3)
    ax.set(xlabel="energy error in the source after a refit (meV/atom)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, fontsize=8)
    ax.figure.tight_layout()
    return ax


def dimer_curves(curves: Mapping[str, Mapping[str, tuple]]):
    """Energies of dimers against their distance, each curve from its own farthest point.

    Parameters
    ----------
    curves : mapping
        Dimer to label of a curve ("PBE", "before", a method) to (distances in Å, energies in eV).

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dimer.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=wide(), squeeze=False)
    for ax, (dimer, lines) in zip(axes.flat, curves.items(), strict=True):
        for (label, (distance, energy)), (color, style) in zip(lines.items(), _CURVE_LOOKS, strict=False):
            ax.plot(distance, energy - energy[-1], style, color=COLORS[color], label=label, ms=3)
        ax.set(xlabel=f"{dimer} distance (Å)")
        ax.axhline(0, color=COLORS["gga"], lw=0.6)
    axes[0, 0].set_ylabel("energy against far apart (eV)")
    axes[0, -1].legend(fontsize=8)
    fig.tight_layout()
    return fig
