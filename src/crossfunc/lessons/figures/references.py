"""Plots about element references: what a prior is worth, and the errors that references alone leave."""

from crossfunc.lessons.figures.style import COLORS

_PRIORS = {
    "refit": ("plain refit", "method_4", "o", "-"),
    "trend": ("model-aware, prior q Z²", "gga", "s", "-"),
    "published": ("model-aware, prior: published shift", "fit", "^", "-"),
    "table": ("published shift alone, no fit", "identity", "", "--"),
}


def draw_few_materials(ax, table):
    """Error against the number of materials that references were fitted to, mean and range over draws.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    table : pandas.DataFrame
        From `crossfunc.lessons.real_pairs.compare_few_materials`: `n`, `draw` and a column for each prior, meV/atom.

    Returns
    -------
    matplotlib.axes.Axes
    """
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
    ax.legend()
    return ax
