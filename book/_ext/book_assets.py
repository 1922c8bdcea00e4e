"""Serve MathJax and plotly.js from the book itself; plotly.js (4.8 MB) is fetched by `_static/interactive.js` alone."""

SERVED = "_served"  # beside _static, because Jupyter Book loads every script in _static on every page


def serve(app, config):
    """Let Sphinx copy the scripts that book/build.py staged, and name the book beside its logo."""
    config.html_static_path.append(SERVED)
    config.html_theme_options["logo"] = {"text": "crossfunc"}


def setup(app):
    """Register the hook."""
    # Jupyter Book sets this one for sphinx-comments, which is not loaded (see _config.yml).
    app.add_config_value("comments_config", {}, "env")
    app.connect("config-inited", serve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
