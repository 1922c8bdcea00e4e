"""Plots of gradients: how hard an error pulls, what layers feel, and how energy and forces go on together."""

import numpy as np

from crossfunc.lessons.figures.style import COLORS


def draw_pulls(ax, errors, delta: float, colors):
    """Histograms of energy errors, logarithmic, with the pull of one frame of the Huber loss as a line.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    errors : dict of str to array_like
        Name of a start to its energy errors, eV/atom.
    delta : float
        Where the loss becomes linear, eV/atom.
    colors : dict of str to str

    Returns
    -------
    matplotlib.axes.Axes
    """
    bins = np.geomspace(1e-3, 1e2, 61)
    for name, error in errors.items():
        size = np.clip(np.abs(error), bins[0], bins[-1])
        ax.hist(size, bins, alpha=0.6, color=colors[name], label=name)
    ax.set(xscale="log", xlabel="energy error at the start, |ε| (eV/atom)", ylabel="training frames")
    right, line = ax.twinx(), COLORS["identity"]
    right.plot(bins, np.minimum(bins / delta, 1), color=line)
    right.set(ylim=(0, 1.2), yticks=[0, 0.5, 1])
    right.set_ylabel("line: pull of one frame, |h′| / δ")
    right.spines["right"].set_visible(True)
    ax.legend(loc="upper left")
    return ax


def draw_band(ax, table, x: str, y: str, color: str, label: str):
    """Mean over seeds as a line, their range as a band.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    table : pandas.DataFrame
        One row for each seed and value of `x`.
    x, y : str
        Columns.
    color, label : str

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = table.groupby(x)[y]
    ax.plot(values.mean(), color=color, label=label)
    ax.fill_between(values.mean().index, values.min(), values.max(), color=color, alpha=0.2, lw=0)
    return ax


def draw_course(axes, cosines, forces, colors, names):
    """Cosine of energy and force gradients over several epochs, and below it the force error on validation frames.

    Parameters
    ----------
    axes : sequence of two matplotlib.axes.Axes
    cosines : pandas.DataFrame
        Columns `start`, `seed`, `fraction` (epochs) and `cosine_with_energy`.
    forces : pandas.DataFrame
        Columns `start`, `seed`, `epoch` and `force` (meV/Å).
    colors, names : dict
        Start to colour and to name.

    Returns
    -------
    sequence of matplotlib.axes.Axes
    """
    above, below = axes
    for start, name in names.items():
        draw_band(above, cosines[cosines["start"] == start], "fraction", "cosine_with_energy", colors[start], name)
        draw_band(below, forces[forces["start"] == start], "epoch", "force", colors[start], name)
    above.axhline(0, color=COLORS["identity"], lw=1, ls="--")
    above.set(ylabel="cosine of energy\nand force gradients", ylim=(-0.6, 1))
    below.set(xlabel="epoch", ylabel="force MAE,\nvalidation (meV/Å)")
    return axes
