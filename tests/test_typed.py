"""Type checkers and editors see what the package offers: a marker file, and a stub for the names imported on demand."""

import sys
from pathlib import Path

import crossfunc

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "crossfunc"
STUB = PACKAGE / "__init__.pyi"


def stub() -> str:
    """The stub's text: one import for each name of the table of contents."""
    homes = sorted(crossfunc._HOME.items(), key=lambda item: (item[1], item[0]))
    imports = [f"from {home} import {name} as {name}" for name, home in homes]
    head = "# What an editor and a type checker see of `xf.*`; written by `python tests/test_typed.py`."
    return "\n".join([head, "", *imports, "", "__version__: str", ""])


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_the_stub_names_what_can_be_imported():
    there = STUB.read_text(encoding="utf-8").splitlines()
    assert sorted(there) == sorted(stub().splitlines()), "run `python tests/test_typed.py`, then `make format`"


if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGE.parent))
    STUB.write_text(stub(), encoding="utf-8")
