"""Read a JSON file of any size object by object, in memory that depends on the largest object only.

The bytes are cut where brackets close, a block at a time with numpy, and each piece is parsed on its own: one that is
not JSON is told apart from its neighbours, and nothing is held but the block and the piece.
"""

import gzip
import hashlib
import io
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfunc.datasets.schema import DatasetError

BLOCK_BYTES = 4_000_000
MAX_OBJECT_BYTES = 64_000_000
"""An object larger than this is no frame of a crystal; the largest of MPtrj (444 atoms) has 0.15 MB."""
_OPEN, _CLOSE, _QUOTE, _BACKSLASH = 1, -1, 2, 3
_CLASS = np.zeros(256, dtype=np.int8)
_CLASS[list(b"{[")], _CLASS[list(b"}]")], _CLASS[ord('"')], _CLASS[ord("\\")] = _OPEN, _CLOSE, _QUOTE, _BACKSLASH
_KEY = re.compile(rb'\s*(,?)\s*"([^"\\]*)"\s*:\s*')


@dataclass(frozen=True)
class Piece:
    """One value of the file.

    Attributes
    ----------
    keys : tuple of str
        The keys that lead to it, outermost first; array elements have their position as text.
    text : bytes
        The value as it stands in the file.
    is_object : bool
        False for anything but an object where objects were expected.
    """

    keys: tuple[str, ...]
    text: bytes
    is_object: bool = True


class ByteSource:
    """Blocks of a file, gunzipped where its first bytes say so, with the checksum of the file as it lies on disk.

    Attributes
    ----------
    path : Path
    n_bytes : int
        Unpacked bytes read so far.
    """

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES):
        self.path, self.block_bytes, self.n_bytes = Path(path), block_bytes, 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Checksum of what has been read of the file; of all of it once the blocks are exhausted."""
        return self._digest.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes, the next block being read while the last one is worked on.

        Raises
        ------
        DatasetError
            No such file, or a gzip stream that is damaged or ends early.
        """
        with ThreadPoolExecutor(1) as ahead:
            blocks = self._read()
            future = ahead.submit(next, blocks, b"")
            while block := future.result():
                future = ahead.submit(next, blocks, b"")
                self.n_bytes += len(block)
                yield block

    def _read(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as raw:
                tee = _HashedReader(raw, self._digest)
                if raw.read(2) == b"\x1f\x8b":
                    raw.seek(0)
                    with gzip.GzipFile(fileobj=tee) as stream:
                        yield from iter(lambda: stream.read(self.block_bytes), b"")
                else:
                    raw.seek(0)
                    yield from iter(lambda: tee.read(self.block_bytes), b"")
                while tee.read(self.block_bytes):  # what follows a gzip member belongs to the checksum
                    pass
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{self.path}: the gzip stream is damaged or cut ({error}); fetch it again.") from error
        except OSError as error:
            raise DatasetError(f"{self.path}: not readable ({error.strerror or error}).") from error


class _HashedReader:
    """A file that keeps the checksum of what is read from it."""

    def __init__(self, raw, digest):
        self._raw, self._digest = raw, digest

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._digest.update(data)
        return data

    def seek(self, offset: int) -> int:
        """Refuse: the checksum is of all bytes, in their order."""
        raise io.UnsupportedOperation(f"seek to {offset}")


def split_json(source: ByteSource, brackets: str) -> Iterator[Piece]:
    """Yield every value that lies as deep as there are brackets, in the order of the file.

    Parameters
    ----------
    source : ByteSource
    brackets : str
        Those that lie around the values, outermost first: "{{" for `{material: {frame: value}}`, "[" for the members
        of one array, "" for a file with one value per line.

    Yields
    ------
    Piece
        Also for values that are no objects, and for values without brackets that lie less deep (`is_object` False):
        nothing is passed over.

    Raises
    ------
    DatasetError
        With the byte: text between the pieces that is not JSON, other brackets than these, brackets that do not
        match, a file that ends early, or an object of more than `MAX_OBJECT_BYTES`.
    """
    splitter = _Splitter(source, brackets.encode())
    buffer = b""
    for block in source.blocks():
        buffer = buffer + block
        if splitter.offset == 0 and buffer:
            buffer = _without_byte_order_mark(buffer, source.path)
        pieces, used = splitter.cut(buffer)
        yield from pieces
        splitter.offset += used
        buffer = buffer[used:]
        if len(buffer) > MAX_OBJECT_BYTES + source.block_bytes:
            raise splitter.error(f"one value of more than {MAX_OBJECT_BYTES // 10**6} MB", "this is no such dataset.")
    yield from splitter.finish(buffer)


def _without_byte_order_mark(buffer: bytes, path: Path) -> bytes:
    if buffer[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DatasetError(f"{path}: the text is UTF-16, JSON is UTF-8; convert it (iconv -f UTF-16 -t UTF-8).")
    return b"   " + buffer[3:] if buffer[:3] == b"\xef\xbb\xbf" else buffer


class _Splitter:
    """Where in the tree of brackets the cut is, and the rules of JSON between the pieces."""

    def __init__(self, source: ByteSource, brackets: bytes):
        self.source, self.brackets, self.target = source, brackets, len(brackets)
        self.offset = 0  # bytes of the file that lie before the buffer
        self.stack: list[int] = []  # open brackets, outermost first
        self.keys: list[str] = []
        self.is_first = [True]
        self.count = [0]

    def error(self, what: str, remedy: str = "Fetch it again, or correct it.", at: int = 0) -> DatasetError:
        where = "/".join(self.keys)
        where = f" in {where[:200]}" if where else ""
        return DatasetError(f"{self.source.path}: {what}{where}, near byte {self.offset + at}: {remedy}")

    def cut(self, buffer: bytes) -> tuple[list[Piece], int]:
        """Return the pieces that end in the buffer, and how much of it is done with."""
        pieces: list[Piece] = []
        position, start = 0, -1
        floor = len(self.stack)
        for bracket, level in _shallow_brackets(buffer, floor, self.target):
            is_open = buffer[bracket] in b"{["
            if level < 0:
                raise self.error("a bracket closes that was never opened", at=bracket)
            if is_open and level == self.target + 1:  # a value begins
                start = bracket
            elif not is_open and level == self.target:  # and ends; nothing is taken from a buffer that lacks its end
                pieces += self._between(buffer[position:start], position, opens=True)
                text = buffer[start : bracket + 1]
                pieces.append(Piece((*self.keys, self._key), text, is_object=text[:1] == b"{"))
                position = bracket + 1
            elif is_open:
                pieces += self._between(buffer[position:bracket], position, opens=True)
                self._descend(buffer[bracket], bracket)
                position = bracket + 1
            else:
                pieces += self._between(buffer[position:bracket], position, opens=False)
                self._ascend(buffer[bracket], bracket)
                position = bracket + 1
        return pieces, position

    def finish(self, buffer: bytes) -> list[Piece]:
        """Raise unless the file ends where its outermost value ends."""
        if self.stack:
            raise self.error("the file ends before its brackets close: it was cut off", "fetch it again.")
        rest = buffer.strip()
        if not rest and self.count[0]:
            return []
        if not rest:
            raise DatasetError(f"{self.source.path}: the file is empty; fetch it again.")
        if rest[:1] in b"{[":
            raise self.error("the file ends before its brackets close: it was cut off", "fetch it again.")
        if self.target == 0 and self.count[0]:
            return [Piece((str(self.count[0]),), rest[:200], is_object=False)]
        raise self.error(f"text that is no JSON object: {_shown(rest)}", at=len(buffer) - len(rest))

    def _descend(self, bracket: int, at: int) -> None:
        if len(self.stack) == 0 and self.count[0] > 1:
            raise self.error("a second value after the first one", at=at)
        if self.stack:
            self.keys.append(self._key)
        expected = self.brackets[len(self.stack)]
        if bracket != expected:
            raise self.error(f"{chr(bracket)!r} where {chr(expected)!r} is expected", "the layout is another one.", at)
        self.stack.append(bracket)
        self.is_first.append(True)
        self.count.append(0)

    def _ascend(self, bracket: int, at: int) -> None:
        opened = self.stack.pop()
        if (opened, bracket) not in ((ord("{"), ord("}")), (ord("["), ord("]"))):
            raise self.error(f"{chr(opened)!r} is closed by {chr(bracket)!r}", at=at)
        self.is_first.pop()
        self.count.pop()
        if self.stack:
            self.keys.pop()

    def _between(self, text: bytes, at: int, *, opens: bool) -> list[Piece]:
        """Read what stands between two brackets: the key of what opens, and values that have no brackets."""
        if not self.stack:
            return self._between_lines(text, at)
        if self.stack[-1] == ord("{") and opens:
            match = _KEY.fullmatch(text)
            if match and bool(match[1]) != self.is_first[-1]:
                return self._take_key(match[2])
        return self._read_members(text, at, opens=opens)

    def _take_key(self, raw: bytes) -> list[Piece]:
        self.is_first[-1] = False
        self.count[-1] += 1
        self._key = raw.decode("utf-8", errors="backslashreplace")
        return []

    def _between_lines(self, text: bytes, at: int) -> list[Piece]:
        if self.target == 0:
            lines = [line for line in text.split(b"\n") if line.strip()]
            pieces = [Piece((str(self.count[0] + k),), line[:200], is_object=False) for k, line in enumerate(lines)]
            self.count[0] += len(lines) + 1
            self._key = str(self.count[0] - 1)
            return pieces
        if text.strip():
            raise self.error(f"text that is no JSON object: {_shown(text.strip())}", at=at)
        self.count[0] += 1
        self._key = ""
        return []

    def _read_members(self, text: bytes, at: int, *, opens: bool) -> list[Piece]:
        """The rare case: values without brackets among the others, escaped keys, arrays, or text that is not JSON."""
        is_object = self.stack[-1] == ord("{")
        body = text.strip()
        if not body and not opens:
            return []
        if not self.is_first[-1]:
            if body[:1] != b",":
                raise self.error(f"a comma is missing before {_shown(body)}", at=at)
            body = body[1:]
        left, right = ("{", "}") if is_object else ("[", "]")
        try:
            members = json.loads(
                left + body.decode("utf-8", errors="backslashreplace") + ("null" if opens else "") + right,
                object_pairs_hook=list,
            )
        except (json.JSONDecodeError, RecursionError) as error:
            raise self.error(f"text that is not JSON: {_shown(body)}", at=at) from error
        if not is_object:
            members = [(str(self.count[-1] + k), value) for k, value in enumerate(members)]
        if not members:
            raise self.error("a comma too many", at=at)
        self.is_first[-1] = False
        self.count[-1] += len(members)
        if opens:
            self._key = str(members.pop()[0])
        return [Piece((*self.keys, str(k)), json.dumps(v).encode(), is_object=False) for k, v in members]


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", errors="backslashreplace"))


def _shallow_brackets(buffer: bytes, floor: int, target: int) -> Iterator[tuple[int, int]]:
    """Yield (position, depth after it) of the brackets outside strings that touch depth `target` or less."""
    classes = _CLASS[np.frombuffer(buffer, dtype=np.uint8)]
    where = np.flatnonzero(classes)
    kind = classes[where]
    if b"\\" in buffer:
        where, kind = _without_escaped_quotes(where, kind)
    is_quote = kind == _QUOTE
    outside = ~is_quote & (np.cumsum(is_quote, dtype=np.int32) & 1 == 0)
    where, kind = where[outside], kind[outside]
    depth = floor + np.cumsum(kind, dtype=np.int64)
    shallow = np.flatnonzero(depth - (kind == _OPEN) <= target)
    return zip(where[shallow].tolist(), depth[shallow].tolist(), strict=True)


def _without_escaped_quotes(where: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop backslashes, and the quotes that an odd run of them escapes."""
    slashes = where[kind == _BACKSLASH]
    first = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    lengths = np.diff(np.append(first, len(slashes)))
    after = slashes[first] + lengths
    escaped = np.isin(where, after[lengths % 2 == 1]) & (kind == _QUOTE)
    keep = ~escaped & (kind != _BACKSLASH)
    return where[keep], kind[keep]


def first_bytes(path: Path, size: int = 100_000) -> bytes:
    """Return the beginning of the unpacked file, without leading white space.

    Raises
    ------
    DatasetError
        No such file, or a damaged gzip stream.
    """
    blocks = ByteSource(path, size).blocks()
    return b"".join(itertools.islice(blocks, 1)).lstrip(b"\xef\xbb\xbf \t\r\n")
