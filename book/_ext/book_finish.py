"""Last touches on the pages: what the theme loads twice goes, and what it names wrongly for screen readers is mended.

The theme brings its icons both as fonts and as a script that draws them again (1.5 MB); the fonts are enough. It also
has each page fetch two fonts of which no icon is used.
"""

import re
from pathlib import Path

from sphinx.errors import ExtensionError

_ICONS = "vendor/fontawesome"
_ICON_SCRIPT = re.compile(rf'\s*<script src="[^"]*{_ICONS}[^"]*/js/all\.min\.js[^"]*"></script>')
_ICON_PRELOADS = re.compile(rf'\s*<link rel="preload" as="font"[^>]*{_ICONS}[^>]*/>')
_PICTURES = re.compile(r'<img (?=[^>]*src="[^"]*_images/)')
_UNUSED = ("js/all.min.js*", "webfonts/*.ttf", "webfonts/fa-brands-*", "webfonts/fa-regular-*")
_UNUSED_CLASSES = re.compile(r'class="[^"]*\b(fa-brands|fab|fa-regular|far)\b')


def finish_page(html):
    """Return the page without the second set of icons, its pictures loaded when near, its bibliography as a list."""
    html = _ICON_PRELOADS.sub("", _ICON_SCRIPT.sub("", html))
    html = _PICTURES.sub('<img loading="lazy" ', html)
    return html.replace('role="doc-biblioentry"', 'role="listitem"')


def finish(app, exception):
    """Rewrite every page, and delete the files that no page asks for any more."""
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    for page in folder.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        if found := _UNUSED_CLASSES.search(html):
            raise ExtensionError(f"{page.name} shows an icon of a set that is left out: {found[0]}")
        page.write_text(finish_page(html), encoding="utf-8")
    if "js/all.min.js" in (folder / "index.html").read_text(encoding="utf-8"):
        raise ExtensionError("the theme writes its icon script in another way than book_finish.py expects.")
    for icons in (folder / "_static" / _ICONS).iterdir():
        for pattern in _UNUSED:
            for path in icons.glob(pattern):
                path.unlink()


def setup(app):
    """Register the hook."""
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
