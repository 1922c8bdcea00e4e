"""Files that are there whole or not at all, and folders that one process writes at a time."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FolderInUse", "check_writable", "locked_folder", "put_in_place", "remove_drafts", "write_atomically"]

LOCK_FILE = ".lock"
DRAFT_SUFFIX = ".part"
_DRAFT_NAME = 50  # characters of the name, of four bytes at most, beside 14 of the draft's own: 255 is a name's limit
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class FolderInUse(ValueError):  # noqa: N818 - a state, not a mistake
    """Another process writes the folder at this moment."""


def write_atomically(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a file so that whoever looks finds the old content or the new one, never a part; return its path.

    Parameters
    ----------
    path : str or path
        A link is followed: what it points to gets the new content. A device or a pipe is written to.
    content : str or bytes
        Text is written as UTF-8 with the line ends it has.

    Raises
    ------
    OSError
        The folder does not exist or cannot be written, or the disk is full; the old content stays.
    """
    path = Path(os.path.realpath(path))
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing to replace; a folder is refused
        path.write_bytes(data)
        return path
    descriptor, draft = _draft_of(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(draft).chmod(_file_mode(path))
        put_in_place(Path(draft), path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        raise
    return path


def put_in_place(draft: Path, path: Path) -> None:
    """Give a file that is whole its name in one step, with its bytes on the disk before anybody finds it there.

    Parameters
    ----------
    draft, path : Path
        In one folder.
    """
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def check_writable(path: str | os.PathLike) -> None:
    """Find out before long work whether a file can be written; nothing is left behind.

    Raises
    ------
    OSError
        As `write_atomically` would at the end; a folder is in the way, or the file's own folder does not exist.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.exists() or path.is_file():
        descriptor, draft = _draft_of(path)
        os.close(descriptor)
        Path(draft).unlink()


def _draft_of(path: Path) -> tuple[int, str]:
    """An open file beside the one that is to be written; an error names the latter."""
    try:
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_DRAFT_NAME]}.", suffix=DRAFT_SUFFIX)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None


def _file_mode(path: Path) -> int:
    """The old file's permissions, or those that this user's new files get."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def remove_drafts(folder: str | os.PathLike) -> None:
    """Remove what writes that were killed left in a folder; only for whoever holds it (`locked_folder`)."""
    for draft in Path(folder).glob(f".*{DRAFT_SUFFIX}"):
        draft.unlink(missing_ok=True)


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

    Notes
    -----
    On Windows, and on file systems without locks, a second process at the same time is not noticed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder) as lock:
        try:
            yield folder
        finally:
            if _is_open_file(folder / LOCK_FILE, lock):
                with contextlib.suppress(OSError):
                    (folder / LOCK_FILE).unlink()


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[int]:
    """Open the lock file and lock it; the one who had it before may have removed it in between."""
    while True:
        with (folder / LOCK_FILE).open("w", encoding="ascii") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                pass
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise FolderInUse(
                        f"{folder}: another process is writing here now; wait for it, or stop it."
                    ) from error
            if _is_open_file(folder / LOCK_FILE, file.fileno()):
                yield file.fileno()
                return


def _is_open_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
