"""Files that are there whole or not at all, and folders that one process writes at a time."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FolderInUse", "locked_folder", "write_atomically"]

LOCK_FILE = ".lock"


class FolderInUse(ValueError):  # noqa: N818 - a state, not a mistake
    """Another process writes the folder at this moment."""


def write_atomically(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a file so that whoever looks finds the old content or the new one, never a part; return its path.

    Parameters
    ----------
    path : str or path
        A link is followed: what it points to gets the new content.
    content : str or bytes
        Text is written as UTF-8 with the line ends it has.

    Raises
    ------
    OSError
        The folder does not exist or cannot be written, or the disk is full; the old content stays.
    """
    path = Path(os.path.realpath(path))
    data = content.encode() if isinstance(content, str) else content
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(_file_mode(path))
        Path(draft).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        raise
    return path


def _file_mode(path: Path) -> int:
    """The old file's permissions, or those that this user's new files get."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Hold a folder for this process, by a lock that the system lets go of when the process ends, however it ends.

    Parameters
    ----------
    folder : str or path
        Made if it is not there.

    Raises
    ------
    FolderInUse
        Another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w", encoding="ascii") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not on Windows; there a second process at the same time is not noticed
            pass
        except OSError as error:
            raise FolderInUse(f"{folder}: another process is writing here now; wait for it, or stop it.") from error
        yield folder
