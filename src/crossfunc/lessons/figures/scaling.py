"""Plots of learning curves, and of what one frame is worth in another's."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from crossfunc.lessons.figures.style import COLORS, MARKERS, wide

CURVES = {
    "transfer": "method_4",
    "scratch": "method_1",
    "model-aware": "fit",
    "plain start": "method_3",
    "published": "r2scan",
}
"""Curve to its colour's name."""

UNITS = {"energy": "meV/atom", "force": "meV/Å"}
"""Panels of the learning curves."""


def draw_learning_curves(ax, runs, column: str, laws, lines):
    """Validation errors against the number of training frames, log-log, with laws where one may be quoted.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    runs : pandas.DataFrame
        One row per run: `method`, `n` and the error in `column`.
    column : str
    laws : dict of str to PowerLaw or None
        Curves to draw; None: dotted means, no law.
    lines : dict of str to float
        What costs no training, drawn dashed.

    Returns
    -------
    matplotlib.axes.Axes
    """
    for name, law in laws.items():
        key = CURVES[name]
        curve, style = runs[runs["method"] == name], {"color": COLORS[key]}
        ax.plot(curve["n"], curve[column], MARKERS.get(key, "^"), label=name, **style)
        if law is None:
            ax.plot(curve.groupby("n")[column].mean(), ls=":", **style)
            continue
        n = np.geomspace(law.n.min(), law.n.max(), 50)
        ax.plot(n, law.predict(n), label=f"b = {law.exponent:.2f}, R² = {law.r2:.2f}", **style)
        ax.fill_between(n, *law.interval(n), alpha=0.2, lw=0, **style)
    shades = CURVES | {"predict zero": "identity"}
    for name, error in lines.items():
        label = name if name.startswith(("predict", "no ")) else f"N = 0, {name}"
        ax.axhline(error, label=label, color=COLORS[shades.get(name, "method_4")], ls="--", lw=1)
    sizes = sorted(runs["n"].unique())
    ax.set(xscale="log", yscale="log", xlabel="training frames N")
    ax.set_xticks(sizes, [f"{n:,.0f}" for n in sizes])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ticks = [v * 10**k for k in range(-1, 5) for v in (1, 2, 5)]
    ticks = [v for v in ticks if low <= v <= high]
    ax.set_yticks(ticks, [f"{v:g}" for v in ticks])
    return ax


def draw_worth(ax, worth, limits, sizes):
    """Scratch frames that one transfer frame is worth, from laws (dots) and from measured limits (triangles).

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    worth : dict of str to DataEfficiency or None
        By metric, "energy" and "force".
    limits : dict of str to pandas.Series
        By metric: transfer size to the factor that is exceeded; may be empty.
    sizes : sequence of int
        Ticks.

    Returns
    -------
    matplotlib.axes.Axes
    """
    looks = zip(worth, "os", ("r2scan", "fit"), (0.96, 1.04), strict=True)
    for metric, mark, color, aside in looks:
        color, limit = COLORS[color], limits[metric]
        if worth[metric]:
            _draw_law(ax, worth[metric], mark, color, metric)
        if len(limit):
            x = limit.index * aside
            ax.plot(x, limit, "^", color=color, ms=7, label=f"{metric}, more than this")
            ax.vlines(x, limit, 2 * limit, color=color, lw=1)
    ax.axhline(1, color=COLORS["identity"], lw=1, ls="--")
    ax.set(xscale="log", yscale="log", xlabel="transfer frames N")
    ax.set(ylabel="scratch frames per transfer frame")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:,g}")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.minorticks_off()
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    else:
        ax.text(0.5, 0.6, "no factor may be quoted from these runs", transform=ax.transAxes, ha="center")
    return ax


def _draw_law(ax, factor, mark: str, color: str, label: str) -> None:
    t = factor.table()
    high = t["high"].where(np.isfinite(t["high"]), 10 * t["factor"])
    ax.vlines(t["n"], t["low"], high, color=color)
    for beyond, face in ((False, color), (True, "white")):
        at = t[t["extrapolated"] == beyond]
        text = f"{label}, law{' beyond the runs made' if beyond else ''}"
        ax.plot(at["n"], at["factor"], mark, label=text, mfc=face, color=color, ms=6)


def draw_schedules(ax, theirs, ours, batch_size: int):
    """Learning rates over their first value during training: one line for each number of batches, ours dashed.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    theirs : dict of int to array_like
        Batches in an epoch to the rate of every step; the largest number stands for all above it.
    ours : array_like
        Rates of this package's schedule, for any number of batches.
    batch_size : int

    Returns
    -------
    matplotlib.axes.Axes
    """
    shades = plt.colormaps["viridis"](np.linspace(0.85, 0, len(theirs)))
    for (n_batches, rates), shade in zip(theirs.items(), shades, strict=True):
        is_last = n_batches == max(theirs)
        few = f" N > {(n_batches - 1) * batch_size}" if is_last else f" N ≤ {n_batches * batch_size}"
        ax.plot(np.linspace(0, 1, len(rates)), rates, color=shade, lw=2.5)
        ax.annotate(few, (1, rates[-1]), color=shade, va="center")
    ax.plot(np.linspace(0, 1, len(ours)), ours, label="here, for every N", color=COLORS["method_1"], ls="--")
    ax.set(xlabel="share of the training done", xlim=(0, 1.15), xticks=[0, 0.5, 1])
    ax.set_ylabel("learning rate / first learning rate")
    ax.legend(loc="lower left")
    return ax


# --- whole figures ---


def learning_curves(errors, laws, at_zero):
    """Errors of energy and force side by side, with laws that may be quoted and what costs no training.

    Parameters
    ----------
    errors : pandas.DataFrame
        One row per run: `method`, `n`, `energy` and `force`.
    laws : dict of tuple to PowerLaw or None
        (metric, curve) to its law; None: dotted means, no law.
    at_zero : pandas.DataFrame
        Errors without training, a row for each start and one for predicting zero.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, axes = plt.subplots(1, len(UNITS), figsize=wide())
    for ax, (metric, unit) in zip(axes, UNITS.items(), strict=True):
        found = {name: law for (of, name), law in laws.items() if of == metric}
        draw_learning_curves(ax, errors, metric, found, free_lines(at_zero, metric))
        ax.set_ylabel(f"validation {metric} MAE ({unit})")
        ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    if None in laws.values():
        fig.supxlabel("dotted: means; no law is quoted", fontsize="small")
    fig.tight_layout()
    return fig


def free_lines(at_zero, metric: str) -> dict[str, float]:
    """Return what costs no training as dashed lines: references do not touch forces, so these share one."""
    lines = at_zero[metric].dropna().to_dict()
    if metric != "force":
        return lines
    kept = {name: lines[name] for name in ("plain start", "predict zero") if name in lines}
    return {"no training": lines["refitted"]} | kept


def frames_worth(worth, limits, sizes):
    """Return a figure of what one transfer frame is worth in frames of scratch; see `draw_worth`."""
    fig, ax = plt.subplots()
    draw_worth(ax, worth, limits, sizes)
    return fig


def schedules(theirs, ours, batch_size: int):
    """Return a figure of learning rates by the number of batches in an epoch; see `draw_schedules`."""
    fig, ax = plt.subplots()
    draw_schedules(ax, theirs, ours, batch_size)
    return fig
