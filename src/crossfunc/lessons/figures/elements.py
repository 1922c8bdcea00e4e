"""Periodic tables as heat maps, and the scheme of a composition row times element references."""

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

from crossfunc.lessons.figures.style import COLORS, LABELS, PLOTLY_FONT, FigureError, wide

_PALE_DIVERGING = [[0.0, "#6aa9d8"], [0.5, "#ffffff"], [1.0, "#e08a76"]]  # dark text stays readable at both ends


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
        width=None, height=470, autosize=True, paper_bgcolor="white", font=PLOTLY_FONT | {"size": 10}, title=None
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
