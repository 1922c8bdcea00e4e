"""Plots of gradients: how hard an error pulls, what layers feel, and how energy and forces go on together."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from crossfunc.lessons.figures.methods import draw_free
from crossfunc.lessons.figures.style import COLORS, wide


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
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
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


def draw_course(axes, cosines, forces, colors, names, zero=np.nan):
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
    zero : float
        Force error of predicting zero; NaN draws no line.

    Returns
    -------
    sequence of matplotlib.axes.Axes
    """
    above, below = axes
    draw_free(below, {"predict zero": zero})
    for start, name in names.items():
        draw_band(above, cosines[cosines["start"] == start], "fraction", "cosine_with_energy", colors[start], name)
        draw_band(below, forces[forces["start"] == start], "epoch", "force", colors[start], name)
    above.axhline(0, color=COLORS["identity"], lw=1, ls="--")
    above.set(ylabel="cosine of energy\nand force gradients", ylim=(-1, 1))
    below.set(xlabel="epoch", ylabel="force MAE,\nvalidation (meV/Å)")
    return axes


START_COLORS = {"3": COLORS["method_3"], "4": COLORS["method_4"], "model-aware": COLORS["fit"]}
"""Colour of a run by its method."""

_DASHES = ("-", "--", "-.", ":")


def pulls(errors, delta: float, names):
    """The figure of `draw_pulls`.

    Parameters
    ----------
    errors : dict of str to array_like
        Method to energy errors at the start, eV/atom.
    delta : float
    names : dict of str to str
        Method to its references in words.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ax = plt.subplots()
    named = {names[start]: error for start, error in errors.items()}
    draw_pulls(ax, named, delta, {names[start]: START_COLORS[start] for start in errors})
    return fig


def layer_norms(records, layers, names):
    """Norm of the whole gradient over the first epoch, one panel per layer and one line per start.

    Parameters
    ----------
    records : pandas.DataFrame
        Columns `start`, `seed`, `layer`, `term`, `fraction` and `norm`.
    layers : sequence of str
    names : dict of str to str
        Method to its references in words.

    Returns
    -------
    matplotlib.figure.Figure
    """
    total = records[records["term"] == "total"]
    fig, axes = plt.subplots(2, -(-len(layers) // 2), figsize=wide(), sharex=True)
    for ax, layer in zip(axes.flat, layers, strict=False):
        for start, name in names.items():
            rows = total[(total["layer"] == layer) & (total["start"] == start)]
            draw_band(ax, rows, "fraction", "norm", START_COLORS[start], name)
        ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylim=(0, None))
        ax.ticklabel_format(axis="y", scilimits=(-1, 3), useMathText=True)
        ax.yaxis.get_offset_text().set_fontsize("small")
        ax.text(0.6, 1.02, layer, ha="center", va="bottom", transform=ax.transAxes)
    fig.supxlabel("fraction of the first epoch")
    fig.supylabel("norm of the gradient")
    fig.tight_layout()
    return _with_legend(fig, axes.flat[0], len(names))


def term_norms(records, terms, names):
    """Norm of each term's gradient over the first epoch, one panel per start, mean over seeds, logarithmic.

    Parameters
    ----------
    records : pandas.DataFrame
        As for `layer_norms`, with a column `step`.
    terms : sequence of str
        Those that are labelled.
    names : dict of str to str

    Returns
    -------
    matplotlib.figure.Figure
    """
    network = records[records["layer"] == "network"]
    shades = plt.colormaps["viridis"](np.linspace(0, 0.85, len(_DASHES)))
    fig, axes = plt.subplots(1, len(names), figsize=wide(), sharey=True)
    for ax, (start, name) in zip(axes, names.items(), strict=True):
        for term, shade, dashes in zip(terms, shades, _DASHES, strict=False):
            rows = network[(network["start"] == start) & (network["term"] == term)]
            ax.plot(rows.groupby("step")["norm"].mean(), color=shade, ls=dashes, label=term)
        ax.set(yscale="log", xlabel="optimiser step")
        ax.text(0.5, 1.02, name, ha="center", va="bottom", transform=ax.transAxes)
    axes[0].set(ylabel="norm of the term's gradient")
    fig.tight_layout()
    return _with_legend(fig, axes[0], len(terms))


def draw_shares(ax, share, names):
    """Two bars for each start, energy's share of the loss and of the gradient, filled up by all other terms.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    share : DataFrame
        `loss` and `gradient`, %, a row for each start.
    names : dict of str to str

    Returns
    -------
    matplotlib.axes.Axes
    """
    places = {(start, what): 2.6 * k + j for k, start in enumerate(share.index) for j, what in enumerate(share)}
    energy = [share.loc[start, what] for start, what in places]
    ax.barh(list(places.values()), energy, color=COLORS["gga"], label="energy")
    ax.barh(list(places.values()), [100 - v for v in energy], left=energy, color="#d9d9d9", label="all other terms")
    ax.set_yticks(list(places.values()), [f"{names[start]}: {what}" for start, what in places])
    ax.set(xlim=(0, 100), xlabel="share in the first epoch (%)")
    ax.invert_yaxis()
    return ax


def shares(share, names):
    """The figure of `draw_shares`, with a legend."""
    fig, ax = plt.subplots(figsize=(7.0, 0.4 * share.size + 1.0))
    draw_shares(ax, share, names)
    fig.tight_layout()
    return _with_legend(fig, ax, 2)


def cosines(records, angles, layers, names):
    """Cosines of energy and force gradients by layer over the first epoch, and of the whole gradient with the forces'.

    Parameters
    ----------
    records : pandas.DataFrame
        As for `layer_norms`, with a column `cosine_with_energy`.
    angles : pandas.DataFrame
        Index: method; columns ("whole and forces", "mean" | "min" | "max").
    layers : sequence of str
    names : dict of str to str

    Returns
    -------
    matplotlib.figure.Figure
    """
    forces = records[records["term"] == "forces"]
    fig, (left, right) = plt.subplots(1, 2, figsize=wide(), sharey=True, width_ratios=(3, 1))
    for k, (start, name) in enumerate(names.items()):
        of_layer = forces[forces["start"] == start].groupby("layer")["cosine_with_energy"]
        style = {"fmt": "Dos"[k], "color": START_COLORS[start], "capsize": 2}
        x = np.arange(len(layers)) + 0.2 * (k - 1)
        left.errorbar(x, of_layer.mean()[[*layers]], of_layer.std()[[*layers]], label=name, **style)
        mean, low, high = angles.loc[start, "whole and forces"]
        right.errorbar([k], [mean], [[mean - low], [high - mean]], **style)
    for ax, ticks in ((left, layers), (right, names.values())):
        ax.axhline(0, color=COLORS["identity"], lw=1, ls="--")
        ax.set(ylim=(-1.05, 1.05))
        ax.set_xticks(range(len(ticks)), ticks, rotation=35, ha="right")
    left.set(ylabel="cosine of two gradients")
    right.set(xlim=(-0.5, len(names) - 0.5))
    left.legend(loc="lower left", ncols=3)
    for ax, words in ((left, "energy and forces, first epoch"), (right, "whole loss and forces, start")):
        ax.annotate(words, (0.01, 1), xycoords="axes fraction", va="bottom")
    fig.tight_layout()
    return fig


def course(cosines_table, forces, names, zero=np.nan):
    """The figure of `draw_course`, with a legend."""
    fig, axes = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5.2))
    draw_course(axes, cosines_table, forces, START_COLORS, names, zero)
    axes[1].legend()
    fig.tight_layout()
    return fig


def _with_legend(fig, ax, n_columns: int):
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, ncols=n_columns, loc="lower center", bbox_to_anchor=(0.5, 1))
    return fig
