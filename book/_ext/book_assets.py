"""Serve MathJax and plotly.js from the book itself; plotly.js (4.8 MB) only to pages with an interactive figure."""

from docutils import nodes

SERVED = "_served"  # beside _static, because Jupyter Book loads every script in _static on every page


def serve(app, config):
    """Let Sphinx copy the scripts that book/build.py staged, and name the book beside its logo."""
    config.html_static_path.append(SERVED)
    config.html_theme_options["logo"] = {"text": "crossfunc"}


def add_plotly(app, pagename, templatename, context, doctree):
    """Add the script to a page whose document tree holds a plotly figure."""
    if doctree is None:
        return
    if any("plotly-graph-div" in raw.astext() for raw in doctree.findall(nodes.raw)):
        app.add_js_file("plotly.min.js", loading_method="defer")


def setup(app):
    """Register the hooks and the style sheet."""
    # Jupyter Book sets this one for sphinx-comments, which is not loaded (see _config.yml).
    app.add_config_value("comments_config", {}, "env")
    app.connect("config-inited", serve)
    app.connect("html-page-context", add_plotly)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
