"""Drawings of our own DFT: energy against volume, forces that add up, solids beside measurements, shifts, costs."""

import matplotlib.pyplot as plt
import numpy as np

from crossfunc.lessons.figures.style import COLORS, MARKERS

NAMES = {"pbe": ("PBE", "gga"), "r2scan": ("r²SCAN", "r2scan")}
"""Functional key: its name in prose, and whose colour and marker it has."""


def energy_curves(points, curves, ax=None):
    """Energy per atom against volume per atom of one material, each functional from its own minimum.

    Parameters
    ----------
    points, curves : DataFrame
        Columns `functional` ("pbe", "r2scan"), `volume_a3_per_atom`, `energy_mev_per_atom` (above the minimum): what
        was computed, and the fitted curve.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    for key, (name, look) in NAMES.items():
        line = curves[curves["functional"] == key]
        dots = points[points["functional"] == key]
        ax.plot(line["volume_a3_per_atom"], line["energy_mev_per_atom"], color=COLORS[look])
        ax.plot(
            dots["volume_a3_per_atom"],
            dots["energy_mev_per_atom"],
            MARKERS[look],
            color=COLORS[look],
            label=name,
            markersize=7,
        )
    ax.set(xlabel="volume (Å³/atom)", ylabel="energy above the minimum (meV/atom)")
    ax.legend()
    return ax


def net_forces(net_force_mev_per_a, limit_mev_per_a, ax=None):
    """Histogram of the net force of each frame, with the limit above which none is shipped.

    Parameters
    ----------
    net_force_mev_per_a : dict of str to array_like
        By functional key, meV/Å.
    limit_mev_per_a : float
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    bins = np.geomspace(1e-2, 2 * limit_mev_per_a, 40)
    for key, values in net_force_mev_per_a.items():
        name, look = NAMES[key]
        some = np.asarray(values, float)
        moving = some[some > bins[0]]
        label = f"{name} ({len(some) - len(moving)} of {len(some)} zero by symmetry)"
        ax.hist(moving, bins, histtype="step", color=COLORS[look], label=label, linewidth=1.8)
    ax.axvline(limit_mev_per_a, color=COLORS["fit"], linestyle="--", label="not shipped above")
    ax.set(xscale="log", xlabel="net force of a frame (meV/Å)", ylabel="frames")
    ax.legend()
    return ax


def k_point_errors(table, bars, axes=None):
    """What denser k-points change in each crystal, by kind of crystal: energies, forces, stresses, each with its bar.

    Parameters
    ----------
    table : DataFrame
        A row per crystal: `binding`, `energy_mev_per_atom`, `force_mev_per_a`, `stress_gpa`.
    bars : dict of str to float
        What each of the three columns may reach.
    axes : sequence of matplotlib.axes.Axes, optional
        Three.

    Returns
    -------
    matplotlib.figure.Figure
    """
    axes = plt.subplots(1, 3, sharey=True, figsize=(9, 2.8))[1] if axes is None else np.asarray(axes)
    kinds = sorted(table["binding"].unique())
    for ax, (column, bar), label in zip(axes, bars.items(), _CHANGES, strict=True):
        lowest = 1e-3 * bar
        for k, kind in enumerate(kinds):
            values = np.maximum(table.loc[table["binding"] == kind, column], lowest)
            height = k + np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else [k]
            over = values > bar
            for some, look, marker in ((~over, "identity", "o"), (over, "fit", "X")):
                ax.plot(values[some], np.asarray(height)[some], marker, color=COLORS[look], alpha=0.6, markersize=4)
        ax.axvline(bar, color=COLORS["identity"], linestyle="--")
        ax.set(xscale="log", xlabel=label, xlim=(0.7 * lowest, None))
    axes[0].set_yticks(range(len(kinds)), [f"{kind}s" for kind in kinds])
    axes[0].figure.tight_layout()
    return axes[0].figure


_CHANGES = ("energy difference (meV/atom)", "forces (meV/Å)", "stress (GPa)")


def element_shifts_three_ways(table, ax=None):
    """Shift of each element's reference between the functionals: our fit, the published tables, the free atom.

    Parameters
    ----------
    table : DataFrame
        Index element, in order of atomic number; columns `ours`, `published` and, where known, `free_atom`, and the
        ends `low` and `high` of an interval of `ours`; eV.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots(figsize=(9.2, 4.2))[1]
    looks = {
        "ours": ("fitted to our DFT", "o", COLORS["r2scan"]),
        "published": ("published tables (VASP)", "s", COLORS["gga"]),
        "free_atom": ("free atom, our DFT", "x", COLORS["fit"]),
    }
    x = np.arange(len(table))
    for column, (label, marker, color) in looks.items():
        if column in table and table[column].notna().any():
            ax.plot(x, table[column], marker, color=color, label=label, markersize=6)
    if {"low", "high"} <= {*table.columns}:
        ax.vlines(x, table["low"], table["high"], color=COLORS["r2scan"], linewidth=1.2)
    ax.axhline(0, color=COLORS["identity"], linewidth=0.6)
    ax.set(xticks=x, xticklabels=table.index, ylabel="r²SCAN − PBE (eV/atom)")
    ax.tick_params(axis="x", labelsize=8)
    ax.legend()
    return ax


def cost_against_size(table, ax=None):
    """Processor time of a frame in both functionals against atoms times k-points, both axes logarithmic.

    Parameters
    ----------
    table : DataFrame
        Columns `size` (atoms times irreducible k-points), `cpu_s` and `kind` (of the frame).
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    for kind, rows in table.groupby("kind"):
        ax.plot(rows["size"], rows["cpu_s"], "o", label=kind, alpha=0.6, markersize=4)
    ax.set(xscale="log", yscale="log", xlabel="atoms × irreducible k-points", ylabel="processor time (s)")
    ax.legend()
    return ax


def volume_errors(table, means, ax=None):
    """Deviation of the volumes of elemental solids from measured ones, in both functionals.

    Parameters
    ----------
    table : DataFrame
        Index element; columns `pbe` and `r2scan`, percent.
    means : dict of str to Estimate
        Mean absolute deviation in "pbe" and "r2scan", percent, with its interval over solids; named in the legend.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots(figsize=(9.2, 4.2))[1]
    x = np.arange(len(table))
    for key, (name, look) in NAMES.items():
        ax.plot(
            x, table[key], MARKERS[look], color=COLORS[look], label=f"{name}, {_in_words(means[key])}", markersize=6
        )
    ax.axhline(0, color=COLORS["identity"], linewidth=0.8)
    ax.set(xticks=x, xticklabels=table.index, ylabel="volume, computed − measured (%)")
    ax.legend()
    return ax


def _in_words(mean) -> str:
    """Mean absolute deviation with its interval, where there are solids enough for one."""
    ends = "" if mean.interval is None else f" ({mean.low:.1f} to {mean.high:.1f})"
    return f"mean absolute deviation {mean.value:.1f}{ends} %"
