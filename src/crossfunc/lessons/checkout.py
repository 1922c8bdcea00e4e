"""The book's sources as a folder to build in, from the package alone: what a clone has, for who has the wheel."""

import shutil
import subprocess
import sys
from pathlib import Path

from crossfunc.files import write_atomically
from crossfunc.lessons.sources import LessonError, own_lessons, shipped_folder, shown

__all__ = ["build_book", "write_checkout"]

BESIDE = ("_config.yml", "CHANGELOG.md")
"""Files beside `book/` that it is built with."""

MARKER = ".crossfunc-book"
"""Written first of all: only a folder that holds it is this command's own, and may be written anew."""


def own_book() -> Path:
    """Return the folder of this package's pages."""
    return shipped_folder("book")


def write_checkout(out: Path) -> Path:
    """Write lessons, pages and configuration of the book into a folder, where `build_book` finds them.

    Parameters
    ----------
    out : path
        Made if it is not there. What an earlier call wrote is renewed; executed lessons under `build/` stay.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    LessonError
        The package came without its pages, or the folder holds something else.
    """
    book = own_book()
    beside = [book / name if (book / name).is_file() else book.parent / name for name in BESIDE]
    if not (book / "build.py").is_file() or not all(path.is_file() for path in beside):
        raise LessonError(f"{book}: the book's pages did not come with this package; clone the repository instead.")
    if (out / ".git").exists():
        raise LessonError(f"{shown(out)}: is a clone; run `make book` there.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise LessonError(f"{shown(out)}: holds other files; name an empty folder, or one that this command made.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / MARKER, "Made by `crossfunc book`, which writes notebooks/ and book/ anew each time.\n")
    for source, name in ((own_lessons(), "notebooks"), (book, "book")):
        new = out / f".{name}.new"
        for old in (new, out / name):
            if old.exists():
                shutil.rmtree(old)
        shutil.copytree(source, new, ignore=shutil.ignore_patterns("__pycache__", *BESIDE))
        new.rename(out / name)
    for path in beside:
        shutil.copy2(path, out / path.name)
    return out


def build_book(root: Path, profile: str) -> Path:
    """Build the pages of a folder whose lessons are executed; return the first page.

    Raises
    ------
    LessonError
        The build failed; what it said is on standard error.
    """
    command = [sys.executable, str(root / "book" / "build.py"), "--profile", profile, "--root", str(root)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode:
        raise LessonError(f"{shown(root)}: the book was not built; the reason stands above.")
    return Path(done.stdout.strip().removeprefix("Ready: "))
