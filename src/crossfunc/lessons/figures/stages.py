"""Errors at the stages of a transfer."""

import matplotlib.pyplot as plt

from crossfunc.lessons.figures.style import COLORS


def error_stages(errors, ax=None):
    """Energy error of a model as it comes, with new references and fine-tuned; one line per dataset.

    Parameters
    ----------
    errors : mapping
        Dataset -> {stage: MAE in meV/atom}, the stages in the order of the axis; at most two datasets.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    looks = (("o", "method_4"), ("s", "r2scan"))
    for (name, stages), (marker, color) in zip(errors.items(), looks, strict=False):
        ax.plot(list(stages), list(stages.values()), marker=marker, ms=7, color=COLORS[color], label=name)
    ax.set(yscale="log", ylabel="energy MAE, held out (meV/atom)")
    ax.legend()
    return ax
