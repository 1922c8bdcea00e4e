"""One look for every figure of the book, and the few plots it repeats.

A lesson calls :func:`use_style` once, draws with the functions below (each takes an ``ax``, except where the library
underneath needs a whole figure), and hands the result to :func:`show`, which carries the alternative text, the
caption and the dataset's label notice into JupyterLab and into the book alike.
"""

import base64
import hashlib
import html
import io
import json
import math
import os
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crossfunc.lessons.sources import FIGURES_VARIABLE
from crossfunc.plain_text import in_markdown

COLORS = {
    "gga": "#9a9a9a",
    "r2scan": "#0b5fa5",
    "identity": "#4d4d4d",
    "fit": "#b3470b",
    "method_1": "#f2b134",
    "method_2": "#d9707f",
    "method_3": "#2a8a68",
    "method_4": "#4b2a85",
}
"""Fixed colours, one meaning each: safe for colour-blind readers, ordered by lightness so that grey print works."""

MARKERS = {"gga": "s", "r2scan": "o", "method_1": "v", "method_2": "s", "method_3": "D", "method_4": "o"}
"""The second cue beside colour."""

LABELS = {
    "gga_energy_per_atom_ev": "GGA/GGA+U energy (eV/atom)",
    "gga_mp2020_energy_per_atom_ev": "GGA/GGA+U energy, MP2020 corrected (eV/atom)",
    "r2scan_energy_per_atom_ev": "r²SCAN energy (eV/atom)",
    "gga_formation_energy_per_atom_ev": "GGA/GGA+U formation energy (eV/atom)",
    "gga_mp2020_formation_energy_per_atom_ev": "GGA/GGA+U formation energy, MP2020 corrected (eV/atom)",
    "r2scan_formation_energy_per_atom_ev": "r²SCAN formation energy (eV/atom)",
    "gga_scaled_energy_per_atom_ev": "GGA/GGA+U energy − element references (eV/atom)",
    "r2scan_scaled_energy_per_atom_ev": "r²SCAN energy − element references (eV/atom)",
    "element_reference_shift_ev": "element reference, r²SCAN − GGA/GGA+U (eV/atom)",
    "n_frames": "frames that contain the element",
    "n_materials": "materials that contain the element",
    "importance": "share of the explained energy difference",
}
"""Axis text by column name, so that a name and its unit cannot drift apart."""

_STYLE = {
    "figure.figsize": (6.4, 4.2),
    "figure.dpi": 144,
    "savefig.dpi": 144,
    # An opaque white ground: transparent figures turn unreadable in the dark theme.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=[COLORS[k] for k in ("r2scan", "method_1", "method_3", "method_2", "gga")]),
    "axes.grid": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "image.cmap": "viridis",
    "svg.hashsalt": "crossfunc",
}
_PALE_DIVERGING = [[0.0, "#6aa9d8"], [0.5, "#ffffff"], [1.0, "#e08a76"]]  # dark text stays readable at both ends
_PIXELS_PER_CSS_PIXEL = 1.5  # 144 dpi shown at 96: sharp on fine screens, and every figure's text has the same size
_PLOTLY_FONT = {"family": "DejaVu Sans, Verdana, sans-serif", "size": 13, "color": "#222222"}


class FigureError(ValueError):
    """A figure that cannot be drawn or shown as asked; the message names the remedy."""


def use_style():
    """Set size, resolution, font, ground and colour cycle for every figure that follows."""
    mpl.rcParams.update(_STYLE)


def wide():
    """Size of a figure with two panels side by side, inches."""
    return 9.2, 4.2


def caption(text, dataset=None):
    """Caption of a figure: the text, followed by the label notice of the dataset it was drawn from.

    Parameters
    ----------
    text : str
        What the figure shows, about eight words.
    dataset : Dataset, optional
        Its `label_notice` is repeated word for word; None for a figure that shows no data.

    Returns
    -------
    str
    """
    return _with_notice(text, _notice(dataset))


def _notice(dataset):
    return in_markdown(dataset.label_notice.strip().rstrip(".")) if dataset is not None else ""


def _with_notice(text, notice):
    return f"{text.strip().rstrip('.')} ({notice})." if notice else text.strip()


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

    x, y = _finite_pair(x, y)
    color = COLORS.get(color or "r2scan", color)
    grid = sns.JointGrid(x=x, y=y, height=4.8, ratio=5, space=0.12)
    alpha = float(np.clip(300 / len(x), 0.25, 0.8))
    grid.plot_joint(sns.scatterplot, s=14, color=color, alpha=alpha, linewidth=0)
    grid.plot_marginals(sns.histplot, bins=40, color=color, element="step", alpha=0.35, linewidth=0.8)
    ax = grid.ax_joint
    note = f"Pearson r = {np.corrcoef(x, y)[0, 1]:.3f}\nn = {len(x):,}"
    if identity:
        ax.axline((x.mean(), x.mean()), slope=1, color=COLORS["identity"], lw=1, ls="--", zorder=1)
    if fit:
        slope, intercept = np.polyfit(x, y, 1)
        ax.axline((0, intercept), slope=slope, color=COLORS["fit"], lw=1.4)
        note += f"\nslope = {slope:.2f}"
    # Lower right is empty in every positively correlated cloud.
    ax.text(0.98, 0.03, note, transform=ax.transAxes, ha="right", va="bottom", bbox=_NOTE_BOX)
    grid.set_axis_labels(LABELS.get(x_label, x_label), LABELS.get(y_label, y_label))
    return grid


_NOTE_BOX = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#cccccc", "alpha": 0.9}


def periodic_table(values, label, *, log=False, diverging=False, fmt=None, ax=None):
    """Periodic-table heat map, static: the one for print and for the README.

    Parameters
    ----------
    values : mapping or Series
        Element symbol -> value. Elements that are absent or NaN stay blank: absent is not zero.
    label : str
        Text of the colour bar: a key of `LABELS`, or the text itself.
    log : bool
        Logarithmic colours; values must then be positive.
    diverging : bool
        Colours symmetric about zero, for shifts of either sign.
    fmt : str, optional
        Format of the number in a tile; default three significant digits, thousands as "k".
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    series = _element_values(values, log=log)
    if ax is None:
        _, ax = plt.subplots(figsize=(9.2, 5.2))
    norm, cmap = _color_scale(series, log, diverging)
    for symbol, row, column in _positions():
        value = series.get(symbol, math.nan)
        known = not math.isnan(value)
        face = cmap(norm(value)) if known else "#f4f4f4"
        ax.add_patch(plt.Rectangle((column, -row), 0.94, 0.94, facecolor=face, edgecolor="#bdbdbd", linewidth=0.4))
        ink = "white" if known and _luminance(face) < 0.45 else "#222222" if known else "#a3a3a3"
        ax.text(column + 0.47, -row + (0.6 if known else 0.47), symbol, ha="center", va="center", color=ink, size=9)
        if known:
            text = _tile_text(value, fmt)
            ax.text(column + 0.47, -row + 0.24, text, ha="center", va="center", color=ink, size=6)
    ax.set(xlim=(0.9, 19.04), ylim=(-9.5, 0.04), aspect="equal")
    ax.set_axis_off()
    inset = ax.inset_axes([0.2, 0.86, 0.4, 0.035])
    scale = mpl.cm.ScalarMappable(norm=norm, cmap=cmap)
    bar = ax.figure.colorbar(scale, cax=inset, orientation="horizontal")
    bar.ax.xaxis.set_ticks_position("bottom")
    bar.set_label(LABELS.get(label, label), size=9)
    bar.ax.xaxis.set_label_position("top")
    bar.outline.set_linewidth(0.4)
    return ax


def periodic_table_interactive(values, label, *, log=False, diverging=False, fmt=None, hover=None):
    """Periodic-table heat map with the value of each element on hover, drawn by pymatviz.

    Parameters
    ----------
    values, label, log, diverging, fmt
        As in :func:`periodic_table`.
    hover : mapping, optional
        Element symbol -> further line of the hover box.

    Returns
    -------
    plotly.graph_objects.Figure
        Hand it to :func:`show`.
    """
    from pymatviz import ptable_heatmap

    series = _element_values(values, log=log)
    title = LABELS.get(label, label)
    known = series.dropna()
    span = known.abs().max()
    figure = ptable_heatmap(
        series.to_dict(),
        colorscale=_PALE_DIVERGING if diverging else "viridis",
        log=log,
        fmt=(lambda value: _tile_text(value, fmt)),
        cscale_range=(-span, span) if diverging else (None, None),
        colorbar={"title": title, "tickformat": ".3g"} if log else {"title": title},
        hover_data=dict(hover or {}),
        nan_color="#f4f4f4",
        font_colors=["#222222"] if diverging else [],
        label_map=dict.fromkeys(["", "nan"], ""),
        element_symbol_map={s: f"<span style='color:#a3a3a3'>{s}</span>" for s in _all_symbols() - set(known.index)},
        gap=3,
        font_size=10,
    )
    figure.update_layout(
        width=None, height=470, autosize=True, paper_bgcolor="white", font=_PLOTLY_FONT | {"size": 10}, title=None
    )
    # Eighteen columns are unreadable on a phone: below this width the page scrolls the figure instead.
    figure.update_layout(meta={"min_width_px": 600})
    return figure


def reference_scheme(parts, ax=None):
    """Draw a composition row times a column of element references (paper Fig. 2a).

    Parameters
    ----------
    parts : mapping
        Element symbol -> (atomic fraction, reference in eV/atom), in the order of the atomic numbers.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    if ax is None:
        _, ax = plt.subplots(figsize=wide())
    cells = [("H", 0.0, None)]
    for symbol, (fraction, energy) in parts.items():
        cells += [("…", None, None), (symbol, fraction, energy)]
    cells += [("…", None, None), ("Pu", 0.0, None)]
    n, middle = len(cells), len(cells) / 2
    for k, (symbol, fraction, energy) in enumerate(cells):
        used = bool(fraction)
        row_text = symbol if fraction is None else f"{symbol}\n{fraction:g}"
        column_text = symbol if fraction is None else f"{symbol}  {energy:.2f}" if used else symbol
        _box(ax, k, middle - 0.5, 1, row_text, used)
        _box(ax, n + 1, n - 1 - k, 2.2, column_text, used)
    total = sum(fraction * energy for fraction, energy in parts.values())
    ax.text(n + 0.5, middle, "·", size=24, ha="center", va="center")
    ax.text(n + 3.5, middle, f"=  {total:.2f} eV/atom", size=12, va="center")
    ax.text(middle, middle + 0.75, "composition row  $x$", ha="center", size=11)
    ax.text(n + 2.1, n + 0.2, "references  $c$  (eV)", ha="center", size=11)
    ax.set(xlim=(-0.1, n + 7), ylim=(-0.1, n + 0.9))
    ax.set_axis_off()
    return ax


def _box(ax, x, y, width, text, used):
    face, ink = (COLORS["r2scan"], "white") if used else ("#f4f4f4", "#6f6f6f")
    ax.add_patch(plt.Rectangle((x, y), 0.96 * width, 0.96, facecolor=face, edgecolor="#bdbdbd", linewidth=0.4))
    ax.text(x + 0.48 * width, y + 0.48, text, ha="center", va="center", color=ink, size=9)


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

    x, y = _finite_pair(x, y)
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
        font=_PLOTLY_FONT,
    )
    return figure


def show(figure, *, alt, caption=None, name=None, dataset=None):
    """Display a figure with its alternative text, caption and label notice, in JupyterLab and in the book alike.

    A matplotlib figure becomes a PNG; a named one is also written as SVG and PDF to the folder that the environment
    variable `CROSSFUNC_FIGURES` names, if it does. A plotly figure becomes an empty box beside its
    description, which the book's own script draws with the plotly.js the book serves (nothing is fetched from
    elsewhere), and the MIME type that JupyterLab draws on its own.
    The book turns caption and name into a numbered figure that `{numref}` can cite.

    Parameters
    ----------
    figure : matplotlib Figure or Axes, seaborn grid, or plotly Figure
    alt : str
        What a reader who cannot see the figure needs to know: kind of plot, axes, and what it shows.
    caption : str, optional
        About eight words; the label notice is added to it.
    name : str, optional
        Label such as `fig-01-totals`.
    dataset : Dataset, optional
        Where the points come from; its `label_notice` ends the caption.

    Raises
    ------
    FigureError
        No alternative text, a name without a caption, or data without a caption to carry its notice.
    """
    from IPython.display import Markdown, display

    notice = _notice(dataset)
    if not alt or not alt.strip():
        raise FigureError("show(...) needs alt text: say what the figure shows to a reader who cannot see it.")
    if caption is None and (name or notice):
        raise FigureError(f"show(...) needs a caption: {'a named figure' if name else 'surrogate data'} carries one.")
    text = _with_notice(caption, notice) if caption else ""
    # The book's build reads this entry and makes a numbered figure of the output.
    book = {"crossfunc": {"alt": alt.strip(), "caption": text, "name": name or ""}}
    if hasattr(figure, "to_plotly_json"):
        data = _plotly_bundle(figure, alt.strip())
        display(data, raw=True, metadata=book)
    else:
        if name and (folder := os.environ.get(FIGURES_VARIABLE)):
            _write_vectors(figure, Path(folder), name)
        png, height, width = _png(figure)
        book["crossfunc"]["width"] = f"{round(width / _PIXELS_PER_CSS_PIXEL)}px"
        plain = f"<figure, {width} x {height} pixels>"
        alt_of_png = {"image/png": {"alt": alt.strip()}}
        display({"image/png": png, "text/plain": plain}, raw=True, metadata=book | alt_of_png)
    if text:
        display(Markdown(f"*{text}*"), metadata={"crossfunc": {"role": "caption"}})


def _write_vectors(figure, folder, name):
    """Write a static figure for slides and print; no date makes two runs differ."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = getattr(figure, "figure", figure)
    # Names inside the file that do not change from run to run; in a PDF, text that can be selected and edited.
    with mpl.rc_context({"svg.hashsalt": _STYLE["svg.hashsalt"], "pdf.fonttype": 42}):
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        figure.savefig(folder / f"{name}.pdf", bbox_inches="tight", metadata={"CreationDate": None, "Producer": None})


def _png(figure):
    figure = getattr(figure, "figure", figure)
    buffer = io.BytesIO()
    # No creation date or version: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)  # the inline backend would show it a second time
    raw = buffer.getvalue()
    width, height = (int.from_bytes(raw[i : i + 4], "big") for i in (16, 20))
    return base64.b64encode(raw).decode(), height, width


def _plotly_bundle(figure, alt):
    spec = json.loads(figure.to_json())
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    # The id comes from the content: the same figure gives the same page, and two figures never share one.
    identity = "plotly-" + hashlib.sha256((text + alt).encode()).hexdigest()[:16]
    layout = spec.get("layout", {})
    style = f"height:{layout.get('height', 450)}px"
    if least := (layout.get("meta") or {}).get("min_width_px"):
        style += f";min-width:{least}px"
    safe = text.replace("</", "<\\/")
    page = (
        # A group, not an image: the figure's own buttons must stay reachable for a screen reader.
        f'<div class="xf-plotly"><div id="{identity}" class="plotly-graph-div" role="group" '
        f'aria-label="{html.escape(alt, quote=True)}" style="{style}"></div>\n'
        f'<script type="application/json">{safe}</script></div>'
    )
    return {"application/vnd.plotly.v1+json": spec, "text/html": page, "text/plain": f"<interactive figure: {alt}>"}


def write_interactive(specs, folder, formats=("svg", "pdf")):
    """Write interactive figures as they look before anyone touches them, with a Chromium or Chrome on this machine.

    Parameters
    ----------
    specs : mapping
        Name -> plotly's figure as a dictionary, as an executed notebook holds it.
    folder : path
        Gets `<name>.<format>`.
    formats : sequence of str

    Raises
    ------
    FigureError
        No browser, or no kaleido, which drives it.
    """
    import plotly.graph_objects as go
    import plotly.io

    figures = [go.Figure(spec) for spec in specs.values() for _ in formats]
    files = [str(Path(folder) / f"{name}.{suffix}") for name in specs for suffix in formats]
    heights = [figure.layout.height or 450 for figure in figures]
    try:
        plotly.io.write_images(figures, files, width=900, height=heights)
    except (RuntimeError, ValueError) as error:
        raise FigureError(
            f"{', '.join(specs)}: interactive figures are drawn by a browser, and that failed ({error}). Install "
            "Chromium or Chrome and kaleido (pip install kaleido), or ask for the static figures alone (--static)."
        ) from error


def _finite_pair(x, y):
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise FigureError(f"x has shape {x.shape} and y {y.shape}: both need one value per material.")
    bad = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if len(bad):
        raise FigureError(f"{len(bad)} of {len(x)} points are not finite (first: row {bad[0]}): leave them out first.")
    if len(x) < 3:
        raise FigureError(f"{len(x)} points cannot show a correlation: give at least three.")
    return x, y


def _element_values(values, *, log):
    from crossfunc.symbols import ATOMIC_NUMBERS

    series = pd.Series(values, dtype=float)
    unknown = sorted(set(series.index) - set(ATOMIC_NUMBERS))
    if unknown:
        raise FigureError(f"{', '.join(map(str, unknown))}: not an element from H to Pu; use symbols as keys.")
    if not series.notna().any():
        raise FigureError("no element has a value: there is nothing to colour.")
    if log and (series <= 0).any():
        names = ", ".join(series.index[series <= 0])
        raise FigureError(f"logarithmic colours need positive values; not so for {names} (NaN leaves a tile blank).")
    return series


def _positions():
    """Yield (symbol, row, column) of every element, lanthanides and actinides in their own rows below."""
    from pymatviz.utils import df_ptable

    from crossfunc.symbols import ATOMIC_NUMBERS

    for symbol, period, group in zip(df_ptable.index, df_ptable["row"], df_ptable["column"], strict=True):
        if symbol in ATOMIC_NUMBERS:
            yield symbol, period if period < 8 else period - 0.6, int(group)


def _all_symbols():
    from pymatviz.utils import df_ptable

    return set(df_ptable.index)


def _color_scale(series, log, diverging):
    low, high = float(series.min()), float(series.max())
    if log:
        return mpl.colors.LogNorm(low, max(high, low * 1.001)), mpl.colormaps["viridis"]
    if diverging:
        span = max(abs(low), abs(high)) or 1.0
        return mpl.colors.Normalize(-span, span), mpl.colormaps["RdBu_r"]
    return mpl.colors.Normalize(low, high if high > low else low + 1), mpl.colormaps["viridis"]


def _tile_text(value, fmt):
    if fmt:
        return format(value, fmt)
    if abs(value) >= 1e4:
        return f"{value / 1000:.0f}k"
    if abs(value) >= 1e3:
        return f"{value / 1000:.1f}k"
    return f"{value:.3g}"


def _luminance(rgba):
    red, green, blue = rgba[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue
