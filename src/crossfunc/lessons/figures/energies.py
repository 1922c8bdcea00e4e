"""One energy against another: with marginal histograms, or with names on hover."""

import matplotlib.pyplot as plt
import numpy as np

from crossfunc.energies import correlation_text
from crossfunc.lessons.figures.style import COLORS, LABELS, NOTE_BOX, PLOTLY_FONT, FigureError, finite_pair, wide


def joint_energy_plot(x, y, *, x_label, y_label, color=None, identity=False, fit=False):
    """Scatter of one energy against another with marginal histograms and Pearson's r (paper Figs. 1b and 2b).

    Parameters
    ----------
    x, y : array_like, shape (n_materials,)
        Energies, eV/atom. Rows where either is NaN are an error: leave them out knowingly.
    x_label, y_label : str
        A key of `LABELS`, or the axis text itself.
    color : str, optional
        Key of `COLORS` or a colour; default the r²SCAN blue.
    identity : bool
        Draw y = x.
    fit : bool
        Draw the least-squares line and print its slope.

    Returns
    -------
    seaborn.JointGrid
        `.figure` is the figure, `.ax_joint` the scatter.

    Raises
    ------
    FigureError
        Lengths differ, a value is not finite, or fewer than three points.
    """
    import seaborn as sns

    x, y = finite_pair(x, y)
    color = COLORS.get(color or "r2scan", color)
    grid = sns.JointGrid(x=x, y=y, height=4.8, ratio=5, space=0.12)
    alpha = float(np.clip(300 / len(x), 0.25, 0.8))
    grid.plot_joint(sns.scatterplot, s=14, color=color, alpha=alpha, linewidth=0)
    grid.plot_marginals(
        sns.histplot, bins=int(np.clip(len(x) / 3, 8, 40)), color=color, element="step", alpha=0.35, linewidth=0.8
    )
    ax = grid.ax_joint
    note = f"Pearson r = {correlation_text(np.corrcoef(x, y)[0, 1])}\nn = {len(x):,}"
    if identity:
        ax.axline((x.mean(), x.mean()), slope=1, color=COLORS["identity"], lw=1, ls="--", zorder=1)
    if fit:
        slope, intercept = np.polyfit(x, y, 1)
        ax.axline((0, intercept), slope=slope, color=COLORS["fit"], lw=1.4)
        note += f"\nslope = {slope:.2f}"
    # Lower right is empty in every positively correlated cloud.
    ax.text(0.98, 0.03, note, transform=ax.transAxes, ha="right", va="bottom", bbox=NOTE_BOX)
    grid.set_axis_labels(LABELS.get(x_label, x_label), LABELS.get(y_label, y_label))
    return grid


def parity_hover(x, y, *, x_label, y_label, names, compositions, color=None, identity=True):
    """Scatter of one energy against another whose hover names the material and its composition.

    Parameters
    ----------
    x, y : array_like, shape (n_materials,)
        Energies, eV/atom; finite.
    x_label, y_label : str
        A key of `LABELS`, or the axis text itself.
    names, compositions : sequence of str, shape (n_materials,)
        Material id and formula.
    color : str, optional
        Key of `COLORS` or a colour; default the r²SCAN blue.
    identity : bool
        Draw y = x.

    Returns
    -------
    plotly.graph_objects.Figure
        Hand it to :func:`show`.

    Raises
    ------
    FigureError
        Lengths differ, a value is not finite, or fewer than three points.
    """
    import plotly.graph_objects as go

    x, y = finite_pair(x, y)
    names, compositions = list(names), list(compositions)
    if not len(names) == len(compositions) == len(x):
        raise FigureError(
            f"{len(names)} names and {len(compositions)} compositions for {len(x)} points: give one of each per point."
        )
    figure = go.Figure()
    if identity:
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
        line = {"color": COLORS["identity"], "dash": "dash", "width": 1}
        figure.add_scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        # Three decimals are a thousandth of an eV, all a hover shows, and a third of the page's weight.
        x=np.round(x, 3).tolist(),
        y=np.round(y, 3).tolist(),
        mode="markers",
        marker={"color": COLORS.get(color or "r2scan", color), "size": 6, "opacity": 0.6},
        customdata=list(zip(names, compositions, strict=True)),
        hovertemplate="<b>%{customdata[1]}</b><br>%{customdata[0]}<br>x = %{x:.3f}<br>y = %{y:.3f}<extra></extra>",
        showlegend=False,
    )
    axis = {"zeroline": False, "gridcolor": "#e6e6e6", "linecolor": "#666666", "showline": True}
    figure.update_xaxes(title=LABELS.get(x_label, x_label), **axis)
    figure.update_yaxes(title=LABELS.get(y_label, y_label), **axis)
    figure.update_layout(
        height=480,
        autosize=True,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font=PLOTLY_FONT,
    )
    return figure


def shift_against_z(mean_z, difference, dataset):
    """Scatter of the energy difference of two functionals against the mean atomic number; a hover names the material.

    Parameters
    ----------
    mean_z : array_like, shape (n_materials,)
    difference : array_like, shape (n_materials,), eV/atom
        Energy in the high functional minus that in the low one.
    dataset : Dataset
        Its pairs are the materials, its functionals the words on the axis.

    Returns
    -------
    plotly.graph_objects.Figure
        Hand it to :func:`show`.
    """
    low, high = dataset.functionals
    return parity_hover(
        mean_z,
        difference,
        x_label="mean atomic number",
        y_label=f"{high.name} − {low.name} (eV/atom)",
        names=dataset.pairs["material_id"],
        compositions=dataset.pairs["composition"],
        identity=False,
    )


def before_and_after(panels, names, axes=None):
    """Two scatter plots of one functional against the other: total energies, and the same minus element references.

    Parameters
    ----------
    panels : dict of str to (array_like, array_like), each of shape (n_materials,), eV/atom
        Title of a panel to the energies in the high functional (x) and in the low one (y).
    names : (str, str)
        Names of the low and of the high functional.
    axes : sequence of matplotlib.axes.Axes, optional

    Returns
    -------
    sequence of matplotlib.axes.Axes
    """
    axes = plt.subplots(1, len(panels), figsize=wide())[1] if axes is None else axes
    for ax, (title, (x, y)) in zip(axes, panels.items(), strict=True):
        x, y = finite_pair(x, y)
        few = np.clip(100 / len(x), 0, 1)  # points that are few are drawn large and dark
        ax.scatter(x, y, s=7 + 18 * few, alpha=0.35 + 0.45 * few, linewidth=0, color=COLORS["r2scan"])
        ax.axline((x.mean(), x.mean()), slope=1, color=COLORS["identity"], lw=1, ls="--")
        ax.set(xlabel=f"{names[1]} {title} (eV/atom)", ylabel=f"{names[0]} (eV/atom)")
        r = correlation_text(np.corrcoef(x, y)[0, 1])
        ax.text(0.03, 0.97, f"r = {r}", transform=ax.transAxes, va="top", fontsize=12)
    axes[0].figure.tight_layout()
    return axes
