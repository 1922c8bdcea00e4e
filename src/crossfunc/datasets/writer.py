"""Write a dataset folder batch by batch: bounded memory, all of it or nothing, equal input gives equal bytes."""

import contextlib
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crossfunc.datasets.functionals import Functional, mark_columns, parse_functionals
from crossfunc.datasets.schema import TABLES, DatasetError, split_rows, validate_table
from crossfunc.datasets.store import (
    META_FILE,
    _check_meta,
    _replace_folder,
    _sha256,
    check_target,
    target_folder,
)
from crossfunc.files import LOCK_FILE, FolderInUse, locked_folder

ZSTD_LEVEL = 3
RowCheck = Callable[[pa.Table], Iterator[tuple[np.ndarray, str]]]
_LEDGER = pa.schema([("table", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("reason", pa.string())])
_LEDGER_ROWS = 50_000
_SHOWN = 300  # characters of an id or a reason that the ledger keeps: a file must not blow it up


class DatasetWriter:
    """A dataset folder in the making.

    Frames go to disk as they come, in a hidden folder beside the target that becomes the target in one rename. What a
    killed import left there is removed by the next one. Use it as a context manager: an exception leaves nothing.

    Parameters
    ----------
    path : str or path
    overwrite : bool
        Replace an existing dataset; otherwise an existing folder is an error.

    Attributes
    ----------
    scratch : Path
        The hidden folder.
    n_frames : int
        Frames written so far.
    reasons : collections.Counter
        How many rows each reason has kept out.
    functionals : set of str
        Keys of the functionals of the frames written so far.

    Raises
    ------
    DatasetError
        The target exists, or another import is writing it at this moment.
    """

    def __init__(self, path: str | os.PathLike, *, overwrite: bool = False):
        self.path = target_folder(path)
        check_target(self.path, overwrite)
        self.scratch = self.path.with_name(f".{self.path.name}.partial")
        self.n_frames = 0
        self.reasons: Counter[str] = Counter()
        self.functionals: set[str] = set()
        self._ids = _SeenIds()
        self._ledger: list[tuple] = []
        self._files: dict[str, pq.ParquetWriter] = {}
        self._pending: Future | None = None
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "DatasetWriter":
        if self.scratch.is_symlink():
            raise DatasetError(f"{self.scratch}: a link is in the way of the import; remove it.")
        try:
            self._held.enter_context(locked_folder(self.scratch))
        except FolderInUse as error:
            raise DatasetError(
                f"{self.path}: another import is writing this dataset now; wait for it, or stop it."
            ) from error
        with contextlib.ExitStack() as undo:
            undo.push(self._held)
            self._clear_scratch()
            undo.pop_all()
        self._thread = ThreadPoolExecutor(1)
        return self

    def _clear_scratch(self) -> None:
        """Remove what a killed import left; anything else is somebody's."""
        for left_over in self.scratch.iterdir():
            if left_over.name == LOCK_FILE:
                continue
            if left_over.is_dir() or left_over.suffix not in (".parquet", ".json"):
                raise DatasetError(f"{self.scratch}: holds {left_over.name}, which no import left; move it away.")
            left_over.unlink()

    def __exit__(self, *exception) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        for file in self._files.values():
            with contextlib.suppress(OSError, pa.ArrowException):
                file.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._held.close()

    def add_frames(self, table: pa.Table, source_rows: np.ndarray, checks: Iterable[RowCheck] = ()) -> pa.Table:
        """Check a batch, write its good rows as one row group and put the others into the ledger.

        Parameters
        ----------
        table : pyarrow.Table
            In the columns of the frames schema; extra columns are kept.
        source_rows : ndarray of int
            Where in its source each row stood, for the ledger.
        checks : iterable of callables, optional
            Given the rows that fit the schema, each yields (mask of rows, reason) for those to leave out.

        Returns
        -------
        pyarrow.Table
            The good rows.
        """
        table, reasons = split_rows(table, "frames", file=f"{self.path.name}/frames.parquet")
        reasons = np.array(reasons, dtype=object)
        ids = table["frame_id"].to_pylist()
        good = np.flatnonzero(reasons == "")
        for check in checks:
            for bad, reason in check(table.take(pa.array(good))):
                hit = good[bad]
                reasons[hit[reasons[hit] == ""]] = reason
        good = np.flatnonzero(reasons == "")
        again = self._ids.add([ids[k] for k in good])
        reasons[good[again]] = "frame_id occurs twice; ids must be unique"
        for k in np.flatnonzero(reasons != ""):
            self.reject("frames", source_rows[k], ids[k], reasons[k])
        table = table.filter(pa.array(reasons == ""))
        self.n_frames += table.num_rows
        self.functionals |= set(pc.unique(table["functional"]).to_pylist())
        if table.num_rows:
            self._write("frames", table)
        return table

    def reject(self, table: str, row: int, identifier: str, reason: str) -> None:
        """Put one row into the ledger."""
        self.reasons[reason[:_SHOWN]] += 1
        self._ledger.append((table, int(row), str(identifier)[:_SHOWN], reason[:_SHOWN]))
        if len(self._ledger) >= _LEDGER_ROWS:
            self._write_ledger()

    def read_frames(self, columns: list[str], optional: Sequence[str] = ()) -> pa.Table:
        """Read columns of the frames written so far, those of the optional ones that there are; ends their writing."""
        self._close("frames")
        file = self.scratch / "frames.parquet"
        there = pq.read_schema(file).names
        return pq.read_table(file, columns=[*columns, *(name for name in optional if name in there)])

    def add_table(self, kind: str, table: pa.Table, functionals: tuple[Functional, Functional]) -> None:
        """Write pairs or elements as a whole; `functionals` are the dataset's."""
        keys = [one.key for one in functionals]
        good, _ = validate_table(table, kind, file=f"{self.path.name}/{kind}.parquet", functionals=keys)
        self._write(kind, mark_columns(good, functionals) if kind == "pairs" else good)

    def commit(self, meta: dict) -> Path:
        """Write the ledger and `dataset.json`, and put the folder in its place.

        Raises
        ------
        DatasetError
            No frame was written, or the description lacks something.
        """
        _check_meta(meta, str(self.path / META_FILE))
        keys = {one.key for one in parse_functionals(meta["functionals"], str(self.path / META_FILE))}
        if not self.functionals <= keys:
            strange = ", ".join(sorted(self.functionals - keys))
            raise DatasetError(
                f"{self.path}: frames of {strange}, but the description has {', '.join(sorted(keys))} only."
            )
        if self._ledger:
            self._write_ledger()
        for kind in list(self._files):
            self._close(kind)
        files = {}
        for kind in (*TABLES, "rejected"):
            file = self.scratch / f"{kind}.parquet"
            if file.exists():
                files[file.name] = {"sha256": _sha256(file), "rows": pq.read_metadata(file).num_rows}
        text = json.dumps({**meta, "files": files}, indent=2, ensure_ascii=False) + "\n"
        (self.scratch / META_FILE).write_text(text, encoding="utf-8")
        (self.scratch / LOCK_FILE).unlink(missing_ok=True)
        self.scratch.chmod(0o755)
        _replace_folder(self.scratch, self.path)
        return self.path

    def _write_ledger(self) -> None:
        columns = list(zip(*self._ledger, strict=True))
        arrays = [pa.array(values, type=field.type) for values, field in zip(columns, _LEDGER, strict=True)]
        self._write("rejected", pa.table(arrays, schema=_LEDGER))
        self._ledger = []

    def _write(self, kind: str, table: pa.Table) -> None:
        """Hand one row group to the writing thread; at most one waits, so memory stays bounded."""
        if kind not in self._files:
            self._files[kind] = _open_parquet(self.scratch / f"{kind}.parquet", table.schema)
        elif table.schema != self._files[kind].schema:
            table = table.cast(self._files[kind].schema)
        self._wait()
        self._pending = self._thread.submit(self._files[kind].write_table, table.combine_chunks(), table.num_rows)

    def _wait(self) -> None:
        if self._pending is not None:
            try:
                self._pending.result()
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{self.path}: cannot be written ({error}); is the disk full?") from error
            self._pending = None

    def _close(self, kind: str) -> None:
        self._wait()
        if kind in self._files:
            try:
                self._files.pop(kind).close()
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{self.path}: cannot be written ({error}); is the disk full?") from error


def _open_parquet(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    plain = schema.remove_metadata()
    text = [field.name for field in plain if pa.types.is_string(field.type)]
    return pq.ParquetWriter(
        file,
        plain,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=text,  # no two numbers are alike; of functionals and sources there are few
        write_page_checksum=True,
    )


class _SeenIds:
    """Which ids have come by, as 128-bit digests in a few sorted arrays: 16 bytes an id, whatever its length."""

    def __init__(self):
        self._runs: list[np.ndarray] = []

    def add(self, ids: list[str]) -> np.ndarray:
        """Return which of the ids came by before, as a mask, and remember all."""
        digests = b"".join(hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids)
        keys = np.frombuffer(digests, dtype="S16") if ids else np.empty(0, dtype="S16")
        seen = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            place = np.searchsorted(run, keys)
            place[place == len(run)] = 0
            seen |= run[place] == keys
        new = np.unique(keys[~seen])
        if len(new):
            self._runs.append(new)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort()
            self._runs.append(merged)
        return seen
