"""A checkout with lessons of a few lines, and how a script calls the command line as users do."""

import sys
from pathlib import Path

CLI = (sys.executable, "-c", "from crossfunc.cli import app; app()")

HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Title

"""


def write_checkout(root: Path, lessons: dict[str, str], profiles=("smoke",)) -> Path:
    """Write a checkout: lessons by their stem, each the cells that follow its header and title."""
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "_config.yml").touch()
    for name in profiles:
        (root / "notebooks" / "profiles" / f"{name}.yml").write_text("{}")
    for stem, cells in lessons.items():
        (root / "notebooks" / f"{stem}.py").write_text(HEADER + cells)
    return root
