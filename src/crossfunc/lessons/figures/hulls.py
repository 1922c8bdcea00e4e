"""Hulls and verdicts: the scheme of a comparison, hulls of two and three elements, models against a reference."""

import matplotlib.pyplot as plt
import numpy as np

from crossfunc.lessons.figures.style import COLORS, MARKERS, wide

_WRONG = {"color": "#f4e3e3", "lw": 0}
_SMALL = {"color": COLORS["identity"], "lw": 1, "ls": "--"}


def two_hulls_scheme(ax=None):
    """Two rows of steps from the same crystals to one comparison: the dataset's energies, and a model's.

    Parameters
    ----------
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots(figsize=wide())[1]
    start = _step(ax, 0, 0, "relaxed\ncrystals", "#f0f0f0", "#222222")
    end = _step(ax, 5.7, 0, "how far apart?\nsame verdict?", "#f0f0f0", "#222222")
    rows = {
        1: ("r2scan", "from the dataset", "labelled\nenergies"),
        -1: ("method_4", "from a model", "relax each\nwith the model"),
    }
    for y, (color, title, first) in rows.items():
        ax.text(0.7, 1.6 * y, title, va="center", size=10)
        before = start
        for x, text in enumerate([first, "hull", "competing\nphases", "decomposition\nenergy"], start=1):
            step = _step(ax, 1.15 * x, y, text, COLORS[color])
            _arrow(ax, before, step)
            before = step
        _arrow(ax, before, end)
    ax.set(xlim=(-0.5, 6.3), ylim=(-1.8, 1.8))
    ax.set_axis_off()
    return ax


def _step(ax, x, y, text, face, ink="white"):
    look = {"boxstyle": "round,pad=0.6", "ec": "none", "fc": face}
    return ax.text(x, y, text, bbox=look, color=ink, ha="center", va="center", size=9)


def _arrow(ax, a, b):
    ends = {"patchA": a.get_bbox_patch(), "patchB": b.get_bbox_patch()}
    look = {"arrowstyle": "->", "color": COLORS["identity"]} | ends
    ax.annotate("", b.get_position(), a.get_position(), arrowprops=look)


def hull_plot(diagram, **options):
    """Hull of a chemical system, interactive, drawn by pymatgen: a point names its phase on hover.

    Parameters
    ----------
    diagram : pymatgen PhaseDiagram
        Phase diagram of two or three elements.
    options
        For pymatgen's `PDPlotter`.

    Returns
    -------
    plotly.graph_objects.Figure
        Hand it to :func:`show`.
    """
    from pymatgen.analysis.phase_diagram import PDPlotter

    figure = PDPlotter(diagram, backend="plotly", show_unstable=0.5, **options).get_plot()
    figure.update_layout(width=None, height=520, autosize=True, title=None)
    figure.update_layout(font_size=13, margin={"l": 60, "t": 40, "b": 50})
    figure.update_xaxes(title_font_size=14)
    figure.update_yaxes(title_font_size=14)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    return figure


def ternary_hull(diagram, stable, symbols):
    """Hull of three elements from above, the formulas of its stable compounds beside their corners.

    Parameters
    ----------
    diagram : pymatgen PhaseDiagram
    stable : sequence of str
        Formulas on the hull; the elements need no name.
    symbols : sequence of str
        Top, left and right corner.

    Returns
    -------
    plotly.graph_objects.Figure
        Hand it to :func:`show`.
    """
    from pymatgen.core import Composition
    from pymatgen.util.string import htmlify

    figure = hull_plot(diagram, ternary_style="2d")
    phases = [phase for phase in map(Composition, stable) if len(phase) > 1]
    places = [[phase.get_atomic_fraction(symbol) for symbol in symbols] for phase in phases]
    lower = sorted(c for a, _, c in places if a == 0)
    for phase, (a, b, c) in zip(phases, places, strict=True):
        text, side = _beside(htmlify(phase.reduced_formula), a, b, lower.index(c) % 2 if a == 0 else 0)
        figure.add_scatterternary(
            a=[a],
            b=[b],
            c=[c],
            text=[text],
            mode="text",
            textposition=side,
            textfont={"size": 13, "color": "#111111"},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
    return figure


def _beside(name, a, b, turn):
    """Where the name of a corner stands: inside to the left, on the right edge outside, below the lower edge."""
    pad = 3 * "\u00a0"
    if a == 0:  # along the lower edge, to either side in turn
        return f"<br>{name}", ("bottom left", "bottom right")[turn]
    if b == 0:
        return f"{pad}{name}", "middle right"
    return f"{name}{pad}{pad}", "middle left"


def hulls_side_by_side(hulls, formation_ev, symbols, keys):
    """Hulls of the same three elements in several functionals from above, and the compounds' formation energies.

    Parameters
    ----------
    hulls : mapping
        Functional -> pymatgen PhaseDiagram of three elements, whose entries are named by compound.
    formation_ev : DataFrame
        Index: names of the compounds, numbered from above; a column for each functional, eV/atom.
    symbols : sequence of str
        Top, left and right corner.
    keys : mapping
        Functional -> key of `COLORS` and `MARKERS`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    width, height = wide()
    heights = [0.95 * height, 0.5 + 0.26 * len(formation_ev)]
    fig = plt.figure(figsize=(width, sum(heights)))
    grid = fig.add_gridspec(2, len(hulls), height_ratios=heights)
    for k, (name, diagram) in enumerate(hulls.items()):
        numbers = {compound: str(n) for n, compound in enumerate(formation_ev.index, start=1)}
        ax = hull_triangle(diagram, symbols, numbers, keys[name], fig.add_subplot(grid[0, k]))
        ax.set_title(name, size=10)
    formation_lines(formation_ev, keys, fig.add_subplot(grid[1, :]))
    fig.tight_layout()
    return fig


def hull_triangle(diagram, symbols, numbers, key, ax):
    """Hull of three elements from above: stable compounds filled, others open, each with its number; returns the axes.

    Of several phases of one composition the lowest is drawn, of compounds those that the elements form at all.
    """
    for facet in diagram.facets:
        corners = [_on_triangle(diagram.qhull_entries[k].composition, symbols) for k in facet]
        ax.fill(*zip(*corners, strict=True), fill=False, ec=COLORS["identity"], lw=0.9)
    ink = "black" if key == "gga" else "white"  # on the colour of the marker
    for entry in diagram.qhull_entries:
        x, y = _on_triangle(entry.composition, symbols)
        if entry.is_element:
            aside = {"ha": "center", "va": "bottom" if y > 0 else "top"}
            ax.text(x, y + (0.03 if y > 0 else -0.03), entry.composition.elements[0].symbol, **aside)
            continue
        on_hull = entry in diagram.stable_entries
        face = COLORS[key] if on_hull else "white"
        ax.plot(x, y, MARKERS[key], ms=13, mfc=face, mec=COLORS[key], zorder=3)
        ax.text(x, y, numbers[entry.name], size=8, color=ink if on_hull else "black", ha="center", va="center_baseline")
    ax.set(xlim=(-0.1, 1.1), ylim=(-0.12, 0.98), aspect="equal")
    ax.set_axis_off()
    return ax


def _on_triangle(composition, symbols):
    """Place of a composition in a triangle of side 1 with its corners top, left and right."""
    top, _, right = (composition.get_atomic_fraction(symbol) for symbol in symbols)
    return right + top / 2, top * np.sqrt(3) / 2


def formation_lines(formation_ev, keys, ax):
    """Formation energy of each compound in each functional, one line per compound; returns the axes."""
    rows = np.arange(len(formation_ev))
    ax.hlines(rows, formation_ev.min(axis=1), formation_ev.max(axis=1), color=COLORS["gga"], lw=1)
    for name, values in formation_ev.items():
        ax.plot(values, rows, MARKERS[keys[name]], color=COLORS[keys[name]], label=name, ms=6)
    ax.set_yticks(rows, [f"{n}  {name}" for n, name in enumerate(formation_ev.index, start=1)])
    ax.invert_yaxis()
    ax.set(xlabel="formation energy (eV/atom)")
    ax.margins(y=0.12)
    ax.legend(fontsize=8)
    return ax


def verdict_panels(points, keys):
    """Decomposition energies of each model against the reference; where the verdict is wrong the ground is tinted.

    Parameters
    ----------
    points : mapping
        Model -> DataFrame with `reference_ev` and `model_ev`, eV/atom, one row per compound.
    keys : mapping
        Model -> key of `COLORS` and `MARKERS`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per model, three beside each other; four where two rows of three are not enough.
    """
    columns = 4 if len(points) > 6 else min(3, len(points))
    rows = -(-len(points) // columns)
    width, height = wide()
    size = (width, 2.1 * height * rows / max(3, columns))
    fig, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(points) :]:
        ax.remove()
    for (name, table), ax in zip(points.items(), axes.flat, strict=False):
        verdict_panel(table, name, keys[name], ax)
        if columns > 3:  # narrow panels
            ax.tick_params(axis="x", labelsize=7)
            ax.texts[0].set_size(8)
    for ax in axes.flat[max(0, len(points) - columns) : len(points)]:
        ax.tick_params(labelbottom=True)  # the lowest of its column
    fig.supxlabel("reference decomposition energy (meV/atom)", size=10)
    fig.supylabel("the model's (meV/atom)", size=10)
    fig.tight_layout()
    return fig


def verdict_panel(table, name, key, ax):
    """One panel of :func:`verdict_panels`; returns the axes."""
    ax.axhspan(0, 5e3, xmax=0.5, **_WRONG)
    ax.axhspan(-5e3, 0, xmin=0.5, **_WRONG)
    ax.axline((0, 0), (1, 1), **_SMALL)
    x, y = 1000 * table["reference_ev"], 1000 * table["model_ev"]
    ax.scatter(x, y, s=16, alpha=0.8, lw=0, color=COLORS[key], marker=MARKERS[key])
    for scale in (ax.set_xscale, ax.set_yscale):
        scale("symlog", linthresh=20, linscale=0.3)
    ticks = [-1000, -100, 0, 100, 1000]
    ax.set(xlim=(-5e3, 5e3), ylim=(-5e3, 5e3), xticks=ticks, yticks=ticks)
    ax.text(0.04, 0.96, name, transform=ax.transAxes, va="top", size=9)
    return ax


def errors_by_distance(binned, keys):
    """Mean error and wrong verdicts of each model, by the size of the reference decomposition energy.

    Parameters
    ----------
    binned : mapping
        Model -> DataFrame, one row per part: `error` in meV/atom, `wrong` in %; the index names the part.
    keys : mapping
        Model -> key of `COLORS` and `MARKERS`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, axes = plt.subplots(1, 2, figsize=wide())
    aside = np.linspace(-0.2, 0.2, len(binned))  # equal values stay visible
    for (name, table), dodge in zip(binned.items(), aside, strict=True):
        look = {"color": COLORS[keys[name]], "marker": MARKERS[keys[name]], "ls": ":", "lw": 0.8, "ms": 6}
        for ax, quantity in zip(axes, ("error", "wrong"), strict=True):
            ax.plot(np.arange(len(table)) + dodge, table[quantity], label=name, **look)
    axes[0].set(ylabel="MAE of $E_\\mathrm{d}$ (meV/atom)", yscale="log")
    axes[0].set_ylim(bottom=1)
    axes[1].set(ylabel="wrong verdicts (%)")
    parts = next(iter(binned.values())).index
    for ax in axes:
        ax.set(xlabel="|reference $E_\\mathrm{d}$| (meV/atom)")
        ax.set_xticks(range(len(parts)), parts, size=8)
        ax.margins(x=0.12)
    axes[0].legend(fontsize=8, loc="lower left", ncols=2)
    fig.tight_layout()
    return fig


def experiment_parity(measured, computed, ax=None):
    """Computed against measured formation energies, one colour per functional.

    Parameters
    ----------
    measured : array_like, shape (n_materials,), eV/atom
        NaN where nobody measured.
    computed : mapping
        (key of `COLORS`, words of the legend) -> array_like, shape (n_materials,), eV/atom.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or plt.subplots()[1]
    ax.axline((0, 0), slope=1, **_SMALL)
    for (key, words), values in computed.items():
        dots = {"color": COLORS[key], "marker": MARKERS[key]}
        ax.scatter(measured, values, s=9, alpha=0.5, lw=0, label=words, **dots)
    ax.set(xlabel="measured formation energy (eV/atom)", ylabel="computed (eV/atom)")
    ax.legend()
    return ax
