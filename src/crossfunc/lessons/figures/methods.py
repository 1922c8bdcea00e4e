"""Plots of a comparison of methods: histories, errors, parity, and which weights have moved."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from crossfunc.lessons.figures.style import COLORS, MARKERS, FigureError, wide


def look_of(method: str) -> dict:
    """Colour, marker and line of a method: "1" to "4" have their own, variants of them are dashed, others a fit's."""
    key = f"method_{method[:1]}"
    if len(method) == 1 and key in COLORS:
        return {"color": COLORS[key], "marker": MARKERS[key], "ls": "-"}
    return {"color": COLORS.get(key, COLORS["fit"]), "marker": "^", "ls": "--"}


def draw_histories(ax, table, *, train=None):
    """Errors against epochs, mean and range over seeds; one line per method.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    table : pandas.DataFrame
        Columns `method`, `seed`, `epoch` and `validation`; with `train`, also that column.
    train : str, optional
        Column that is drawn dotted beside the validation, as the paper's Figs. 3b and 3c have it.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    FigureError
        No row with an error.
    """
    if table["validation"].isna().all():
        raise FigureError("no epoch has a validation error: draw only what is labelled.")
    for method, rows in table.groupby("method", sort=False):
        look = look_of(method)
        by_epoch = rows.groupby("epoch")["validation"]
        label = f"Method {method}" if len(method) == 1 else method
        # Method 3 lies on top of Method 2, whose marker is therefore larger.
        ax.plot(by_epoch.mean(), label=label, ms=9 if method == "2" else 5, **look)
        ax.fill_between(by_epoch.mean().index, by_epoch.min(), by_epoch.max(), alpha=0.18, lw=0, color=look["color"])
        if train is not None:
            ax.plot(rows.groupby("epoch")[train].mean(), ls=":", color=look["color"])
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


FREE_LINES = ((0, (1, 2)), (0, (6, 2)), (0, (3, 1, 1, 1)))
"""Dashes of the errors that cost no training."""


def draw_free(ax, free):
    """Horizontal grey lines at errors that cost no training, named at their right end where curves leave more room.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    free : dict of str to float
        Name to error; NaN is not drawn.

    Returns
    -------
    matplotlib.axes.Axes
    """
    there = {name: error for name, error in free.items() if np.isfinite(error)}
    sides = {name: _room_at_end(ax, error) for name, error in there.items()}  # before these lines are curves, too
    for dashes, (name, error) in zip(cycle(FREE_LINES), there.items(), strict=False):
        ax.axhline(error, color=COLORS["identity"], lw=1, ls=dashes)
        ax.annotate(
            name, (1, error), xycoords=("axes fraction", "data"), xytext=(-2, 2 * sides[name]),
            textcoords="offset points", ha="right", va="bottom" if sides[name] > 0 else "top", fontsize="x-small",
            color=COLORS["identity"], zorder=1,  # no curve is hidden
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )  # fmt: skip
    return ax


def _room_at_end(ax, error):
    """1 where the next curve's end is further above a line than below it, and -1 elsewhere."""
    ends = [line.get_ydata()[-1] for line in ax.get_lines() if len(line.get_ydata())]
    ax.get_ylim()  # limits are found only when asked for, and places depend on them
    at, *others = ax.transData.transform([(0, y) for y in [error, *(end for end in ends if np.isfinite(end))]])[:, 1]
    above, below = (min((sign * (y - at) for y in others if sign * (y - at) >= 0), default=np.inf) for sign in (1, -1))
    return 1 if above >= below else -1


def histories(panels, free=None):
    """Error histories side by side, one panel per quantity, the first one logarithmic.

    Parameters
    ----------
    panels : dict of str to pandas.DataFrame
        Text of the y axis to a table as `draw_histories` takes it, with a column `train`; those without any
        validation error are left out.
    free : dict of str to dict, optional
        Text of the y axis to errors that cost no training, as `draw_free` takes them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    there = {label: table for label, table in panels.items() if table["validation"].notna().any()}
    fig, axes = plt.subplots(1, len(there), figsize=wide(), squeeze=False)
    axes[0, 0].set_yscale("log")
    for ax, (label, table) in zip(axes[0], there.items(), strict=True):
        draw_free(draw_histories(ax, table, train="train"), (free or {}).get(label, {}))
        ax.set_ylabel(label)
    fig.tight_layout()
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return fig


def errors_by_method(panels, free=None):
    """Errors of all methods, one panel per quantity and one row per method; more than four panels stand in two rows.

    Parameters
    ----------
    panels : dict of str to pandas.DataFrame
        Text of the x axis to rows as `draw_errors` takes them.
    free : dict of str to float, optional
        Text of the x axis to an error that costs nothing; NaN draws no line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    width, height = wide()
    n_methods, n_panels = len(next(iter(panels.values()))), len(panels)
    n_columns = n_panels if n_panels <= _PANELS_ABREAST else -(-n_panels // 2)
    n_rows = -(-n_panels // n_columns)
    size = (width, n_rows * max(height, 0.27 * n_methods + 1.2))
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, sharey=True, squeeze=False)
    for ax in axes.flat[n_panels:]:
        ax.remove()
    for ax, (label, rows) in zip(axes.flat, panels.items(), strict=False):
        line = (free or {}).get(label, np.nan)
        draw_errors(ax, rows, free=line if np.isfinite(line) else None)
        ax.set_xlabel(label)
    fig.tight_layout()
    return fig


_PANELS_ABREAST = 4


def draw_errors(ax, rows, *, free=None):
    """Errors of methods as dots with intervals, one row per method, logarithmic; hollow where not `trained`.

    An interval that reaches zero ends in an arrow, at half of the smallest number that is drawn: there is no zero on a
    logarithmic axis.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    rows : pandas.DataFrame
        Indexed by the method; columns `value`, `low`, `high` (NaN: no interval), `trained` (bool) and `paper` (NaN: the
        paper has none, else a tick is drawn). Rows whose value is NaN stay empty.
    free : float, optional
        Error that costs nothing, drawn as a line.

    Returns
    -------
    matplotlib.axes.Axes
    """
    numbers = rows[["value", "low", "paper"]].to_numpy(float)
    edge = 0.5 * numbers[numbers > 0].min(initial=free or np.inf)
    for k, (method, row) in enumerate(rows.iterrows()):
        if not np.isfinite(row["value"]) or row["value"] <= 0:
            continue
        look = look_of(method.removeprefix("Method "))
        ends = None
        if np.isfinite(row["low"]):
            ends = [[row["value"] - (row["low"] if row["low"] > 0 else edge)], [row["high"] - row["value"]]]
        face = look["color"] if row["trained"] else "white"
        style = {"fmt": look["marker"], "color": look["color"], "mfc": face, "ms": 7, "capsize": 2}
        ax.errorbar([row["value"]], [k], xerr=ends, **style)
        if row["low"] <= 0:
            ax.plot(edge, k, "<", color=look["color"], ms=5)
        if np.isfinite(row["paper"]):
            ax.plot(row["paper"], k, "|", color=look["color"], ms=12)
    if free is not None:
        ax.axvline(free, color=COLORS["identity"], lw=1, ls="--")
    ax.set(yticks=range(len(rows)), yticklabels=rows.index, ylim=(len(rows) - 0.5, -0.5))
    return mark_decades(ax)


def mark_decades(ax):
    """Few and plain labels on a logarithmic x axis."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    steps = (1,) if high > 50 * low else (1, 3)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 10 * low else steps))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#e6e6e6", lw=0.6)
    return ax


def draw_parity(ax, labels, predicted, method: str, unit: str, slope=None):
    """Predictions against labels with y = x, the error in the title, and the slope through the origin if given."""
    ax.axline((0, 0), slope=1, color=COLORS["identity"], lw=1, ls="--")
    color = look_of(method)["color"]
    ax.scatter(labels, predicted, s=7, alpha=0.4, lw=0, color=color)
    text = f"Method {method}\nMAE {np.abs(np.subtract(labels, predicted)).mean():.2g} {unit}"
    if slope is not None:
        ax.axline((0, 0), slope=slope, color=color, lw=1)
        text += f", slope {slope:.2f}"
    ax.set_title(text, size=9, loc="left")
    ax.set_xlabel(f"label ({unit})")
    return ax


def parity_grid(points, slopes):
    """Parity of energies above and of forces below, one column per method; no row of forces where none is labelled.

    Parameters
    ----------
    points : dict of (str, str) to (array, array)
        (method, "energy" or "forces") to labels and predictions.
    slopes : dict of str to float
        Method to the slope of its forces, drawn as a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    methods = list(dict.fromkeys(method for method, _ in points))
    rows = {"energy": ("energy − references", "eV/atom")}
    if len(points[methods[0], "forces"][0]):
        rows["forces"] = ("force component", "eV/Å")
    width, height = wide()
    size = (width, 0.62 * height * len(rows))
    fig, axes = plt.subplots(len(rows), len(methods), figsize=size, sharex="row", sharey="row", squeeze=False)
    for (row, (quantity, unit)), line in zip(rows.items(), axes, strict=True):
        for method, ax in zip(methods, line, strict=True):
            slope = slopes[method] if row == "forces" and np.isfinite(slopes[method]) else None
            draw_parity(ax, *points[method, row], method, unit, slope)
        together = np.concatenate([values for method in methods for values in points[method, row]])
        margin = 0.05 * np.ptp(together)
        ends = together.min() - margin, together.max() + margin
        line[0].set(xlim=ends, ylim=ends)  # one range for both axes of the row: y = x has one slope everywhere
        line[0].set_ylabel(f"predicted {quantity}")
    fig.tight_layout()
    return fig


def moved(change, published=None):
    """The figure of `draw_moved`, with a legend above it."""
    fig, ax = plt.subplots()
    draw_moved(ax, change, published)
    fig.tight_layout()
    handles, names = ax.get_legend_handles_labels()
    fig.legend(handles, names, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return fig


def draw_moved(ax, change, published=None):
    """Relative change of the weights block by block, mean and range over seeds, in % of their length.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    change : dict of str to pandas.DataFrame
        Method to a table with a row for each seed and a column for each block, as fractions.
    published : pandas.Series, optional
        The same for a published checkpoint, drawn as stars.

    Returns
    -------
    matplotlib.axes.Axes
    """
    blocks = list(next(iter(change.values())).columns)
    for k, (method, table) in enumerate(change.items()):
        percent, look = 100 * table, look_of(method)
        ends = [percent.mean() - percent.min(), percent.max() - percent.mean()]
        at = np.arange(len(blocks)) + 0.22 * (k - 1)
        style = {"fmt": look["marker"], "color": look["color"], "ms": 5, "label": f"Method {method}"}
        ax.errorbar(percent.mean(), at, xerr=ends, **style)
    if published is not None:
        at = np.arange(len(blocks)) + 0.22 * (len(change) - 1)
        ax.plot(100 * published[blocks], at, "*", ms=9, color=COLORS["r2scan"], label="published checkpoint")
    ax.set(yticks=range(len(blocks)), yticklabels=blocks, xlabel="change of the weights (% of their length)")
    mark_decades(ax).invert_yaxis()
    return ax
