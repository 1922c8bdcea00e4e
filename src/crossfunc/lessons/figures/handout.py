"""One page for the wall: what each lesson says, and one figure."""

from io import BytesIO
from textwrap import fill

A4_IN = (8.27, 11.69)
_LETTERS_PER_LINE = 118


def draw_handout(title: str, sections: list[tuple[str, str]], png: bytes | None):
    """Return the page as a matplotlib figure.

    Parameters
    ----------
    title : str
    sections : list of (str, str)
        Heading and words of each lesson, from top to bottom.
    png : bytes or None
        The figure under them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    page = Figure(figsize=A4_IN)
    page.text(0.08, 0.95, title, size=16, weight="bold", parse_math=False)
    height = 0.915
    for heading, words in sections:
        lines = fill(words, _LETTERS_PER_LINE)
        page.text(0.08, height, heading, size=9.5, weight="bold", va="top", parse_math=False)
        page.text(0.08, height - 0.016, lines, size=7.5, va="top", linespacing=1.3, parse_math=False)
        height -= 0.028 + 0.0135 * (lines.count("\n") + 1)
    if png is not None:
        ax = page.add_axes((0.08, 0.04, 0.84, max(0.1, height - 0.06)))
        ax.imshow(imread(BytesIO(png)))
        ax.axis("off")
    return page
