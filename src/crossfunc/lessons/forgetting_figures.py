"""Figures of the lesson on forgetting: each function draws on axes that it is given."""

from collections.abc import Mapping

from crossfunc.lessons.figures import COLORS

LOOKS = {
    "pretrained": ("gga", "P"),
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
}
"""Colour (a key of `COLORS`) by family, and marker, of every method on these figures."""


def draw_plane(ax, points, *, names: Mapping[str, str], x: str, y: str) -> None:
    """Draw error in the target against error in the source, one point a method and seed.

    Parameters
    ----------
    ax : Axes
    points : DataFrame
        Columns `method`, x and y; a row a run.
    names : mapping of str to str
        Method to what the legend calls it.
    x, y : str
        Columns.
    """
    for method, rows in points.groupby("method", sort=False):
        color, marker = LOOKS[method]
        ax.scatter(rows[x], rows[y], color=COLORS[color], marker=marker, s=46, label=names[method], zorder=3)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1)
    ax.margins(y=0.08)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def draw_kinds(ax, table) -> None:
    """Draw errors of each method by kind of source frames: a row per method, a marker a kind.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        Methods by their names as index, kinds as columns.
    """
    markers = ("o", "s", "D", "v", "^")
    rows = range(len(table))
    for kind, marker, color in zip(
        table.columns, markers, ("r2scan", "fit", "method_3", "method_1", "gga"), strict=False
    ):
        ax.plot(table[kind], rows, marker, color=COLORS[color], label=kind, ms=6)
    ax.set_yticks(rows, table.index)
    ax.invert_yaxis()
    ax.set_xscale("symlog", linthresh=1)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, fontsize=8)


def draw_dimers(axes, curves: Mapping[str, Mapping[str, tuple]]) -> None:
    """Draw energies of dimers against their distance, each curve from its own farthest point.

    Parameters
    ----------
    axes : sequence of Axes
        One a dimer.
    curves : mapping
        Dimer to label of a curve ("PBE", "before", a method) to (distances in Å, energies in eV).
    """
    styles = (("identity", "o"), ("gga", "-"), ("method_3", "--"), ("fit", "-."), ("r2scan", ":"))
    for ax, (dimer, lines) in zip(axes, curves.items(), strict=True):
        for (label, (distance, energy)), (color, style) in zip(lines.items(), styles, strict=False):
            ax.plot(distance, energy - energy[-1], style, color=COLORS[color], label=label, ms=3)
        ax.set(xlabel=f"{dimer} distance (Å)")
        ax.axhline(0, color=COLORS["gga"], lw=0.6)
    axes[0].set_ylabel("energy against far apart (eV)")
    axes[-1].legend(fontsize=8)
