"""Pages of HTML for paper: Markdown and pictures in one file, without scripts and without a network."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

__all__ = ["beside", "halves", "page", "render", "sheets", "thumbnail"]

_WIDTH_PX, _COLOURS = 640, 64
_STYLE = """
@page { margin: 1.5cm; }
body { font: 11pt/1.4 sans-serif; margin: 2em auto; max-width: 19cm; }
@media print { body { margin: 0; max-width: none; } }
h1, h2, h3 { break-after: avoid; line-height: 1.2; }
table { border-collapse: collapse; } td, th { border: 1px solid #999; padding: 2px 8px; vertical-align: top; }
tr, li, pre { break-inside: avoid; } pre { overflow-x: auto; white-space: pre-wrap; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """Return a page of HTML around a body that is HTML already; the title is text."""
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    return f"{head}<style>{_STYLE}{style}</style></head><body>\n{body}\n</body></html>\n"


def render(text: str) -> str:
    """Return Markdown as HTML; names from data are text in it, never markup."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def sheets(title: str, texts: Iterable[str], *, grid: bool = False) -> str:
    """Return Markdown texts as one page of HTML, each on paper of its own, if wanted with a grid below to draw on."""
    below = "<div class='grid'></div>" if grid else ""
    return page(title, "\n".join(f"<section>{render(text)}{below}</section>" for text in texts), _OF_SHEETS)


_OF_SHEETS = """
section + section { break-before: page; }
.grid { height: 9cm; margin-top: 1em; border: 1px solid #999;
  background: linear-gradient(#ccc 1px, transparent 1px) 0 0 / 5mm 5mm,
  linear-gradient(90deg, #ccc 1px, transparent 1px) 0 0 / 5mm 5mm; -webkit-print-color-adjust: exact;
  print-color-adjust: exact; }
"""


def beside(picture: bytes, words: str) -> str:
    """Return HTML with a small picture at the left of words that are HTML already."""
    shown = f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}" alt="">'
    return f'<div class="beside"><div>{shown}</div><div>{words}</div></div>'


def thumbnail(png: bytes) -> bytes:
    """Return a picture at a width of at most 640 pixels and in at most 64 colours, so that a page of many is small."""
    from PIL import Image

    image = Image.open(BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image).convert("RGB")
    flat.thumbnail((_WIDTH_PX, 2 * _WIDTH_PX))
    buffer = BytesIO()
    flat.quantize(_COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def halves(upper: Sequence[str], lower: Sequence[str]) -> str:
    """Return pairs of Markdown texts as HTML, each pair on a sheet that is cut in the middle."""
    pairs = zip(upper, lower, strict=True)
    both = (f"<section><div>{render(a)}</div><div>{render(b)}</div></section>" for a, b in pairs)
    return "\n".join(both)
