"""Plots about element references: what a prior is worth, and the errors that references alone leave."""

import matplotlib.pyplot as plt
import numpy as np

from crossfunc.lessons.figures.style import COLORS, wide

_PRIORS = {
    "refit": ("plain refit", "method_4", "o", "-"),
    "trend": ("model-aware, prior q Z²", "gga", "s", "-"),
    "published": ("model-aware, prior: published shift", "fit", "^", "-"),
    "table": ("published shift alone, no fit", "identity", "", "--"),
}


def draw_few_materials(table, ax=None):
    """Error against the number of materials that references were fitted to, mean and range over draws.

    Parameters
    ----------
    table : pandas.DataFrame
        From `crossfunc.lessons.real_pairs.compare_few_materials`: `n`, `draw` and a column for each prior, meV/atom.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    for name, (label, key, marker, dashes) in _PRIORS.items():
        by_n = table.groupby("n")[name]
        color = COLORS[key]
        ax.plot(by_n.mean(), label=label, color=color, marker=marker, ls=dashes)
        if marker:
            ax.fill_between(by_n.mean().index, by_n.quantile(0.1), by_n.quantile(0.9), color=color, alpha=0.15, lw=0)
    sizes = sorted(table["n"].unique())
    ax.set(xscale="log", yscale="log", xlabel="materials fitted to", ylabel="MAE on other materials (meV/atom)")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ticks = [v for v in (50, 100, 200, 500, 1000, 2000, 5000) if ax.get_ylim()[0] <= v <= ax.get_ylim()[1]]
    ax.set_yticks(ticks, [f"{v:g}" for v in ticks])
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return ax


_SOURCES = {
    "fitted": ("fitted to these data", "r2scan", "o"),
    "free_atom": ("free atom, same code", "fit", "x"),
    "published": ("published tables (VASP)", "gga", "s"),
    "published_atom": ("free atom, VASP", "method_4", "+"),
}


def draw_shift_evidence(table, names, ax=None):
    """Shift of each element's reference, by where it comes from.

    Parameters
    ----------
    table : pandas.DataFrame
        From `crossfunc.lessons.references.shift_evidence`: index symbol, in order of atomic number; `fitted` with
        `std_error`, and other sources; eV. A source without any value is left out.
    names : (str, str)
        Names of the low and of the high functional.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots(figsize=wide())[1]
    x = np.arange(len(table))
    for column, (label, key, marker) in _SOURCES.items():
        if column not in table or table[column].isna().all():
            continue
        style = {"color": COLORS[key], "label": label, "mfc": "none" if marker == "s" else COLORS[key]}
        error = table["std_error"] if column == "fitted" else None
        ax.errorbar(x, table[column], error, fmt=marker, ms=7 if marker in "x+" else 5, capsize=2, lw=1, **style)
    ax.axhline(0, color=COLORS["identity"], lw=0.6)
    some = slice(None, None, -(-len(table) // _SYMBOLS_ABREAST))
    ax.set_xticks(x[some], table.index[some], fontsize=8)
    ax.set(xlabel="element, in order of atomic number", ylabel=f"{names[1]} − {names[0]} reference (eV/atom)")
    ax.legend()
    return ax


_SYMBOLS_ABREAST = 36
