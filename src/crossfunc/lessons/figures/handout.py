"""One page for the wall: what each lesson says, and one figure."""

from collections.abc import Sequence
from io import BytesIO
from textwrap import fill

A4_IN = (8.27, 11.69)
_HEADING_PT, _WORDS_PT = 11.5, 10
_LETTERS_PER_LINE = 96


def draw_handout(title: str, sections: Sequence[tuple[str, Sequence[str]]], png: bytes | None, foot: str = ""):
    """Return the page as a matplotlib figure.

    Parameters
    ----------
    title : str
    sections : sequence of (str, sequence of str)
        Heading and points of each lesson, from top to bottom.
    png : bytes or None
        The figure under them.
    foot : str
        Small words at the end of the page.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    page = Figure(figsize=A4_IN)
    page.text(0.07, 0.955, title, size=18, weight="bold", parse_math=False)
    height = 0.93
    for heading, points in sections:
        page.text(0.07, height, heading, size=_HEADING_PT, weight="bold", va="top", parse_math=False)
        height -= 0.0185
        for point in points:
            lines = fill(point, _LETTERS_PER_LINE, initial_indent="•  ", subsequent_indent="    ")
            page.text(0.07, height, lines, size=_WORDS_PT, va="top", linespacing=1.25, parse_math=False)
            height -= 0.0155 * (lines.count("\n") + 1)
        height -= 0.009
    if png is not None:
        ax = page.add_axes((0.07, 0.045, 0.86, max(0.1, height - 0.05)))
        ax.imshow(imread(BytesIO(png)))
        ax.axis("off")
    page.text(0.07, 0.012, fill(foot, 135), size=7.5, va="bottom", parse_math=False)
    return page
