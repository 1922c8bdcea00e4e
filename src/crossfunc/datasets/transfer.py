"""One file over HTTP: resumed after an interruption, never longer than announced, in place only when it is right."""

import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossfunc.datasets.web import (
    PATIENCE,
    FetchError,
    Interrupted,
    Patience,
    announced_length,
    check_status,
    check_url,
    open_url,
    persist,
    read_body,
    shown,
)
from crossfunc.files import put_in_place, write_atomically

SPARE_BYTES = 64_000_000
"""Left free on the disk beyond what the download needs."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its source announces it.

    Attributes
    ----------
    name, url : str
    size : int
        Bytes; never more are written.
    checksums : dict
        md5 or sha256 -> hex digits; empty where the source announces none.
    trusted_host : str, optional
        The mirror that the user named: this host may use http.
    """

    name: str
    url: str
    size: int
    checksums: dict[str, str]
    trusted_host: str | None = None


def download(remote: RemoteFile, folder: Path, *, patience: Patience = PATIENCE, bar=None) -> Path:
    """Download a file into a folder, going on where an interrupted download stopped.

    Bytes go to `NAME.part`; only when size and checksum are right does it get its name (atomically). An interrupted
    download goes on with a Range request, but only if the server still has the same file (If-Range with its ETag).

    Parameters
    ----------
    remote : RemoteFile
    folder : Path
        Must exist.
    patience : Patience
    bar : tqdm, optional
        Moved to the number of bytes at hand.

    Returns
    -------
    Path

    Raises
    ------
    FetchError
        Unreachable, refused, no space, longer than announced, or another content than announced, twice.
    """
    part = folder / f"{remote.name}.part"
    with _locked(folder):
        for last in (False, True):
            _complete(remote, part, patience, bar)
            wrong = find_mismatch(part, remote.checksums)
            if wrong is None:
                put_in_place(part, folder / remote.name)
                _note(part).unlink(missing_ok=True)
                return folder / remote.name
            _discard(part)
            if last:
                raise FetchError(
                    f"{shown(remote.url)}: downloaded twice in full, and {wrong}. Nothing was kept. The "
                    "source has changed, or something on the way alters the file: try another network or mirror."
                )
    raise AssertionError("unreachable")


def find_mismatch(file: Path, checksums: dict[str, str]) -> str | None:
    """Return how a file's checksum differs from those given, None if each agrees."""
    for algorithm, expected in checksums.items():
        found = file_checksum(file, algorithm)
        if found != expected:
            return f"its {algorithm} is {found} where {expected} was announced"
    return None


def file_checksum(file: Path, algorithm: str) -> str:
    """Return a file's md5 or sha256 as hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def check_space(folder: Path, n_bytes: int) -> None:
    """Raise FetchError unless the disk has room for so many bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if n_bytes + SPARE_BYTES > free:
        raise FetchError(
            f"{folder}: {n_bytes + SPARE_BYTES:,} bytes are needed and {free:,} are free on this disk; "
            "make room, or choose another folder with --out."
        )


# --- one attempt after another ---


def _complete(remote: RemoteFile, part: Path, patience: Patience, bar) -> None:
    """Fill the partial file up to its announced size."""
    check_url(remote.url, remote.trusted_host)
    state = {"best": 0}

    def attempt(deadline: float):
        offset = _resumable(part, remote)
        if bar is not None:
            bar.update(offset - bar.n)
        if offset < remote.size or not part.exists():
            _transfer(remote, part, offset, patience, bar, deadline)

    def progressed() -> bool:
        size = part.stat().st_size if part.exists() else 0
        better, state["best"] = size > state["best"], max(size, state["best"])
        return better

    persist(attempt, remote.url, patience, str(part), progressed, n_bytes=remote.size)


def _transfer(remote: RemoteFile, part: Path, offset: int, patience: Patience, bar, deadline: float) -> None:
    headers = {}
    if offset:
        headers = {"Range": f"bytes={offset}-", "If-Range": json.loads(_note(part).read_text())["etag"]}
    with open_url(remote.url, headers, patience, remote.trusted_host, deadline) as response:
        if response.status_code == 416:
            _discard(part)
            raise Interrupted("the server does not have the part that is missing; starting again")
        check_status(response, remote.url, remote.trusted_host)
        resumed = response.status_code == 206
        if resumed and not offset:
            raise Interrupted("the server sends a part where the whole was asked for")
        if resumed:
            _check_range(response, offset, remote, part)
        _check_length(response, remote, offset if resumed else 0)
        if not resumed:  # the whole file: the server knows no ranges, or the file has changed there
            _start_over(part, remote, response)
            if bar is not None:
                bar.update(-bar.n)
        _append(response, part, remote, bar, deadline)


def _append(response, part: Path, remote: RemoteFile, bar, deadline: float) -> None:
    size = part.stat().st_size if part.exists() else 0
    with part.open("ab") as stream:
        for chunk in read_body(response, remote.size - size + 1, deadline):
            size += len(chunk)
            if size > remote.size:
                break
            try:
                stream.write(chunk)
                stream.flush()
            except OSError as error:
                raise FetchError(
                    f"{part}: cannot be written ({error.strerror}); make room, and run the same command again."
                ) from error
            if bar is not None:
                bar.update(len(chunk))
    if size > remote.size:
        _discard(part)
        raise FetchError(
            f"{shown(remote.url)}: the server sends more than the {remote.size:,} bytes announced; "
            "stopped, and nothing was kept. The file has changed at its source: try again later, or another mirror."
        )
    if size < remote.size:
        raise Interrupted(f"the connection ended after {size:,} of {remote.size:,} bytes")


# --- what an answer must look like ---


def _check_range(response, offset: int, remote: RemoteFile, part: Path) -> None:
    found = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    note = json.loads(_note(part).read_text())
    etag = response.headers.get("ETag", note["etag"])
    if found is None or int(found[1]) != offset or found[3] not in ("*", str(remote.size)) or etag != note["etag"]:
        _discard(part)
        raise Interrupted("the server answered with another part or another file; starting again")


def _check_length(response, remote: RemoteFile, offset: int) -> None:
    """Refuse an answer that announces another length than the record does, before any of it is written."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Interrupted(f"the server packed the file ({response.headers['Content-Encoding']}) though asked not to")
    length = announced_length(response)
    if length is not None and length != remote.size - offset:
        raise Interrupted(f"the server announces {length:,} bytes where {remote.size - offset:,} are due")


# --- the partial file ---


def _note(part: Path) -> Path:
    """The file that says what the partial file is a part of."""
    return part.with_name(f"{part.name}.json")


def _identity(remote: RemoteFile) -> dict:
    return {"size": remote.size, "checksums": remote.checksums}


def _resumable(part: Path, remote: RemoteFile) -> int:
    """Return how many bytes of this very file are at hand; anything that cannot be told apart is thrown away."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        size = part.stat().st_size
    except (OSError, ValueError):
        _discard(part)
        return 0
    same = isinstance(note, dict) and note.get("of") == _identity(remote) and size <= remote.size
    # Without a strong ETag the server cannot be asked "the same file still?", so its bytes are not glued together.
    if not same or (size < remote.size and not note.get("etag")):
        _discard(part)
        return 0
    return size


def _start_over(part: Path, remote: RemoteFile, response) -> None:
    etag = response.headers.get("ETag", "")
    _discard(part)  # first: the note must never describe other bytes than those beside it
    note = {"of": _identity(remote), "etag": etag if etag.startswith('"') else ""}
    write_atomically(_note(part), json.dumps(note))


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path):
    """Keep a second process from writing to the same folder; the lock goes with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows: the checksum alone protects there
        yield
        return
    handle = os.open(folder, os.O_RDONLY)  # the folder itself: what was fetched is all that lies in it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise FetchError(f"{folder}: another process is downloading to it; wait for that one.") from None
    finally:
        os.close(handle)
