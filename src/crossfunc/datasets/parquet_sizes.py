"""What a parquet file unpacks to, learned from a few bytes of it: a small file must not fill the memory.

The footer is read here and not by pyarrow, which ends the process where a damaged one is asked for a column.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["MAX_EXPANSION", "UnpacksTooLarge", "check_unpacked_size"]

MAX_EXPANSION = 1000
"""A table that unpacks to more than this many times its file is taken for corrupt, and not read."""

_MAGIC = b"PAR1"
_BYTE_ARRAY = 6  # of a text, 4 bytes are counted here for its place in a dictionary; its letters by `_text_bytes`
_BYTES_PER_VALUE = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8, _BYTE_ARRAY: 4}
_DEEPEST = 24
_BATCH_ROWS = 4096


class UnpacksTooLarge(ValueError):  # noqa: N818 - a state of the file
    """A parquet file that unpacks to more than its size justifies; the message says to how much."""


def check_unpacked_size(file: Path, n_rows: int | None = None) -> None:
    """Raise unless a table unpacks to what its size and the recorded number of rows can justify.

    Parameters
    ----------
    file : path
    n_rows : int, optional
        That there should be.

    Raises
    ------
    UnpacksTooLarge
        It would unpack to more than `MAX_EXPANSION` times its size, or has another number of rows.
    OSError, pyarrow.ArrowException
        It cannot be read.
    """
    size = file.stat().st_size
    footer = _read_footer(file, size)
    found = _number(footer, 3)
    n_bytes = sum(_group_bytes(footer, group) for group in _structs(footer, 4))
    if (n_rows is not None and found != n_rows) or n_bytes > MAX_EXPANSION * size:
        where = "" if n_rows is None else f", where dataset.json says {n_rows} rows"
        raise UnpacksTooLarge(f"says it holds {found} rows in {n_bytes} bytes{where} and the file has {size} bytes")
    n_bytes = 0
    for more in _text_bytes(file):
        n_bytes += more
        if n_bytes > MAX_EXPANSION * size:
            raise UnpacksTooLarge(f"its texts unpack to more than {n_bytes} bytes, and the file has {size} bytes")


def _group_bytes(footer: dict, group: dict) -> int:
    """What one row group asks to allocate; runs of one value are short on disk but not in memory."""
    widest = max((_number(element, 2) for element in _structs(footer, 2)), default=0)  # of fixed-length values
    columns = [column[3] for column in _structs(group, 1) if isinstance(column.get(3), dict)]
    per_column = [
        max(_number(c, 6), _number(c, 5) * _BYTES_PER_VALUE.get(_number(c, 1), max(widest, 8))) for c in columns
    ]
    return max(_number(group, 2), 8 * _number(group, 3) * len(columns), sum(per_column))


def _text_bytes(file: Path) -> Iterator[int]:
    """Bytes of the texts of a batch after another, without unpacking them from their dictionaries."""
    with pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        texts = [field.name for field in schema if _holds_text(field.type)]
    if not texts:
        return
    with pq.ParquetFile(file, read_dictionary=_text_paths(schema, texts), pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=texts, use_threads=False):
            yield sum(_array_bytes(column) for column in batch.columns)


def _text_paths(schema: pa.Schema, names: list[str]) -> list[str]:
    """Paths of the text leaves, as parquet has them."""
    return [name + path for name in names for path in _leaf_paths(schema.field(name).type)]


def _leaf_paths(kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [f".list.element{path}" for path in _leaf_paths(kind.value_type)]
    if pa.types.is_struct(kind):
        return [
            f".{kind.field(k).name}{path}" for k in range(kind.num_fields) for path in _leaf_paths(kind.field(k).type)
        ]
    return [""]


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(k).type) for k in range(kind.num_fields))
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _array_bytes(array: pa.Array) -> int:
    """Bytes of an array's texts when every one is written out."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary)
        return pc.sum(lengths.take(array.indices)).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(_array_bytes(part) for part in array.flatten())
    if pa.types.is_nested(kind):
        return _array_bytes(array.flatten())
    return array.nbytes


# --- the footer: Thrift's compact protocol, as far as it is needed ---


def _read_footer(file: Path, size: int) -> dict:
    with file.open("rb") as stream:
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        n_bytes = int.from_bytes(tail[:4], "little")
        if len(tail) < 8 or tail[4:] != _MAGIC or n_bytes > size - 12:
            raise pa.ArrowInvalid("it has no parquet footer")
        stream.seek(size - 8 - n_bytes)
        data = stream.read(n_bytes)
    try:
        return _Thrift(data).struct(0)
    except (IndexError, ValueError, OverflowError) as error:
        raise pa.ArrowInvalid("its footer is damaged") from error


def _number(struct: dict, key: int) -> int:
    value = struct.get(key, 0)
    if not isinstance(value, int) or value < 0:
        raise pa.ArrowInvalid("its footer holds a number that makes no sense")
    return value


def _structs(struct: dict, key: int) -> list[dict]:
    values = struct.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise pa.ArrowInvalid("its footer is damaged")
    return values


class _Thrift:
    """A reader of one message: structs as {field number: value}."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError

    def integer(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, n_bytes: int) -> None:
        self.place += n_bytes
        if self.place > len(self.data):
            raise IndexError

    def struct(self, depth: int) -> dict:
        fields, number = {}, 0
        while (header := self.byte()) & 0x0F:
            number = number + (header >> 4) if header >> 4 else self.integer()
            kind = header & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self.value(kind, depth + 1)
        return fields

    def value(self, kind: int, depth: int):
        if depth > _DEEPEST:
            raise ValueError
        if kind in (1, 2, 3):  # truth values in lists, bytes
            return self.byte()
        if kind in (4, 5, 6):
            return self.integer()
        if kind == 7:
            return self.skip(8)
        if kind == 8:
            return self.skip(self.varint())
        if kind in (9, 10):
            header = self.byte()
            length = header >> 4 if header >> 4 < 15 else self.varint()
            if length > len(self.data):
                raise ValueError
            return [self.value(header & 0x0F, depth + 1) for _ in range(length)]
        if kind == 11:
            length = self.varint()
            kinds = self.byte() if length else 0
            if length > len(self.data):
                raise ValueError
            return [(self.value(kinds >> 4, depth + 1), self.value(kinds & 0x0F, depth + 1)) for _ in range(length)]
        if kind == 12:
            return self.struct(depth)
        raise ValueError
