"""Showing a figure: words, label notice, and the bytes that JupyterLab and the book draw."""

import base64
import hashlib
import html
import io
import json
import os
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from crossfunc.files import write_atomically
from crossfunc.lessons.figures.style import PIXELS_PER_CSS_PIXEL, STYLE, FigureError
from crossfunc.lessons.sources import FIGURES_VARIABLE
from crossfunc.plain_text import in_markdown


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
        book["crossfunc"]["width"] = f"{round(width / PIXELS_PER_CSS_PIXEL)}px"
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
    with mpl.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"], "pdf.fonttype": 42}):
        for kind, dates in (("svg", ("Date", "Creator")), ("pdf", ("CreationDate", "Producer"))):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, bbox_inches="tight", metadata=dict.fromkeys(dates))
            write_atomically(folder / f"{name}.{kind}", buffer.getvalue())


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
