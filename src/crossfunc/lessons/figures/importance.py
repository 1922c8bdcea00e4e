"""Which elements a model needs: maps over the periodic table, shares of groups, one measure beside another."""

import matplotlib.pyplot as plt
import numpy as np

from crossfunc.lessons.figures.elements import periodic_table_interactive
from crossfunc.lessons.figures.style import COLORS


def importance_map(table, limits=None, measure="shap"):
    """Periodic table of the importance of each element, its spread over seeds on hover.

    Parameters
    ----------
    table : DataFrame
        The table of an `ElementImportance`: index element; `shap_mean`, `shap_std` in eV/atom, the same two of
        `permutation` and `gain`, and `n_rows`.
    limits : (float, float), optional
        Ends of the colours, in the map's unit, for maps that are compared; default: the map's own.
    measure : {"shap", "permutation", "gain"}, default "shap"
        Mean |SHAP| is shown in meV/atom, the others as shares of their sum over all elements.

    Returns
    -------
    plotly.graph_objects.Figure
        Hand it to :func:`show`.
    """
    known = table.dropna(subset=[f"{measure}_mean"])
    scale, label, unit = (
        (1000, "mean |SHAP| (meV/atom)", "")
        if measure == "shap"
        else (100 / known[f"{measure}_mean"].clip(lower=0).sum(), f"share of {measure} (%)", " %")
    )
    spread = scale * known[f"{measure}_std"]
    hover = {
        element: f"± {spread[element]:.1f}{unit} over seeds, {known.loc[element, 'n_rows']:.0f} materials"
        for element in known.index
    }
    return periodic_table_interactive(scale * known[f"{measure}_mean"], label, fmt=".1f", hover=hover, limits=limits)


def share_bars(shares, ax=None):
    """Bars of the share of importance on groups of elements, with and without energy corrections.

    Parameters
    ----------
    shares : DataFrame
        One row per group, columns "with corrections" and "without corrections"; fractions of one.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    colors = {"with corrections": COLORS["r2scan"], "without corrections": COLORS["gga"]}
    shares.mul(100).plot.barh(ax=ax, color=colors, width=0.75)
    ax.invert_yaxis()
    ax.set(xlabel="share of the summed importance (%)", ylabel="")
    return ax


def measure_shares(table, elements, ax=None):
    """Share of each importance measure on some elements, with its spread over seeds.

    Parameters
    ----------
    table : DataFrame
        The table of an `ElementImportance`: index element; `<measure>_mean` and `<measure>_std` of each measure.
    elements : sequence of str
        Shown from left to right.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    for k, (measure, marker) in enumerate({"shap": "o", "permutation": "s", "gain": "v"}.items()):
        percent = 100 / table[f"{measure}_mean"].clip(lower=0).sum()
        share, spread = (percent * table.loc[elements, f"{measure}_{part}"] for part in ("mean", "std"))
        beside = np.arange(len(elements)) + 0.2 * (k - 1)
        ax.errorbar(beside, share, spread, fmt=marker, label=measure, capsize=2)
    ax.set(xticks=range(len(elements)), xticklabels=elements, ylabel="share of the measure's sum (%)")
    ax.legend()
    return ax
