"""What every importer does with its rows: check, write, pair, sum up."""

import contextlib
import gc
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets.functionals import parse_functionals
from crossfunc.datasets.importers.frame_rows import ISOLATED, FrameRows, RowError, impossible_rows, isolated_rows
from crossfunc.datasets.importers.pairing import add_elements_and_pairs, refuse_shared_ids
from crossfunc.datasets.schema import DatasetError
from crossfunc.datasets.writer import DatasetWriter

MAX_BAD_SHARE = 0.5
"""More bad rows than this and it is the file, or how it is read, that is wrong: nothing is written."""
_EARLY_ROWS = 2000  # as many bad rows, and not one good: no need to read gigabytes more

Inspect = Callable[[pa.Table], None]


@dataclass
class ImportSummary:
    """What came of an import.

    Attributes
    ----------
    path : Path
    n_frames, n_rejected, n_materials, n_pairs : int
    reasons : Counter
        How many rows each reason has kept out.
    notes : list of str
        What else there is to know: columns that were not read, checks that had nothing to measure.
    """

    path: Path
    n_frames: int
    n_rejected: int
    n_materials: int
    n_pairs: int
    n_bytes: int
    seconds: float
    reasons: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict:
        """The summary as plain values, for JSON."""
        return {**asdict(self), "path": str(self.path), "reasons": dict(self.reasons)}

    def __str__(self) -> str:
        text = f"{self.path}: {self.n_frames:,} frames of {self.n_materials:,} materials"
        if self.n_pairs:
            text += f", {self.n_pairs:,} pairs"
        if self.n_rejected:
            most = "; ".join(f"{n} x {reason}" for reason, n in self.reasons.most_common(3))
            text += f"; {self.n_rejected:,} rows left out, listed in rejected.parquet ({most})"
        text += f"; {self.n_bytes / 1e6:,.0f} MB in {self.seconds:.1f} s"
        return "\n".join([text, *(f"note: {note}" for note in self.notes)])


class Sample:
    """Frames for checks of units: those of the materials with the smallest digests, the same ones for the same file.

    Whole relaxations rather than single frames, so that energies can be compared with stresses between neighbours. Each
    functional has its share, whichever comes first in the file.

    Parameters
    ----------
    n_frames : int
        In all; a functional that has fewer than its share leaves the rest to the others.
    n_per_material : int
        Frames of one material in one functional: those that come first.
    max_atoms : int
        Larger crystals are left out: they cost the most and tell no more.
    n_large, largest_atoms : int
        So many of the smallest crystals above `max_atoms`, of at most `largest_atoms`, stand in for a functional that
        has no smaller one.
    """

    def __init__(
        self,
        n_frames: int = 256,
        n_per_material: int = 16,
        max_atoms: int = 100,
        *,
        n_large: int = 16,
        largest_atoms: int = 1000,
    ):
        self.n_frames, self.n_per_material, self.max_atoms = n_frames, n_per_material, max_atoms
        self.n_large, self.largest_atoms = n_large, largest_atoms
        self._shares: dict[str, _Share] = {}
        self._n_seen = 0

    def add(self, table: pa.Table) -> None:
        """Consider the frames of one more batch."""
        places = np.arange(self._n_seen, self._n_seen + table.num_rows)
        self._n_seen += table.num_rows
        table = table.append_column("_place", pa.array(places))
        for functional in pc.unique(table["functional"]).to_pylist():
            share = self._shares.setdefault(functional, _Share(self))
            share.add(table.filter(pc.equal(table["functional"], functional)))

    @property
    def frames(self) -> pa.Table | None:
        """The frames chosen so far, in the order they came; None where all are too large."""
        kept = [share.kept for share in self._shares.values() if share.kept is not None]
        parts = [part.slice(0, n) for part, n in zip(kept, _fair_parts(self.n_frames, kept), strict=True)]
        parts += [share.large for share in self._shares.values() if share.kept is None and share.large is not None]
        if not parts:
            return None
        return pa.concat_tables(parts).sort_by("_place").drop_columns("_place").combine_chunks()

    @property
    def note(self) -> str:
        """Why there is nothing to measure; an empty text if there is."""
        if self.frames is not None:
            return ""
        return (
            f"units and signs were not measured: every frame has more than {self.largest_atoms} atoms; add some "
            "smaller ones to have them checked"
        )


class _Share:
    """What a sample keeps of one functional: never more than the whole sample holds, and a few large crystals."""

    def __init__(self, limits: Sample):
        self.limits = limits
        self.kept: pa.Table | None = None  # smallest digest first, frames of a material in the order they came
        self.large: pa.Table | None = None
        self._largest = np.uint64(2**64 - 1)

    def add(self, table: pa.Table) -> None:
        n_atoms = np.asarray(table["atomic_numbers"].combine_chunks().value_lengths())
        if self.kept is None:
            self._add_large(table, n_atoms)
        small = (n_atoms <= self.limits.max_atoms) & (_digests_of(table) <= self._largest)
        if not small.any():
            return
        new = table.take(pa.array(np.flatnonzero(small)))
        both = new if self.kept is None else pa.concat_tables([self.kept, new])
        digests = _digests_of(both)
        chosen = np.argsort(digests, kind="stable")
        _, first, count = np.unique(digests[chosen], return_index=True, return_counts=True)
        turn = np.arange(len(chosen)) - np.repeat(first, count)
        chosen = chosen[turn < self.limits.n_per_material][: self.limits.n_frames]
        if len(chosen) == self.limits.n_frames:
            self._largest = digests[chosen[-1]]
        self.kept = both.take(pa.array(chosen))

    def _add_large(self, table: pa.Table, n_atoms: np.ndarray) -> None:
        wanted = np.flatnonzero((n_atoms > self.limits.max_atoms) & (n_atoms <= self.limits.largest_atoms))
        if len(wanted) == 0:
            return
        new = table.take(pa.array(wanted))
        both = new if self.large is None else pa.concat_tables([self.large, new])
        sizes = np.asarray(both["atomic_numbers"].combine_chunks().value_lengths())
        self.large = both.take(pa.array(np.sort(np.argsort(sizes, kind="stable")[: self.limits.n_large])))


def _digests_of(table: pa.Table) -> np.ndarray:
    """Digest of each row's material."""
    names = table["material_id"].combine_chunks().dictionary_encode()
    digests = np.array([_digest(name) for name in names.dictionary.to_pylist()], dtype=np.uint64)
    return digests[np.asarray(names.indices)]


def _fair_parts(n: int, tables: list[pa.Table]) -> list[int]:
    """How many rows of each table make n in all, as equal as the tables' lengths allow."""
    parts = [0] * len(tables)
    by_length = sorted(range(len(tables)), key=lambda k: tables[k].num_rows)
    for turn, k in enumerate(by_length):
        parts[k] = min(tables[k].num_rows, n // (len(tables) - turn))
        n -= parts[k]
    return parts


def _digest(identifier: str) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little")


class FrameSink:
    """Takes rows, writes them in batches, and keeps what the end of an import needs.

    Parameters
    ----------
    writer : DatasetWriter
    scale : dict of str to float
        Factors from the source's units to the schema's.
    """

    def __init__(self, writer: DatasetWriter, scale: dict[str, float] | None = None):
        self.writer, self.scale = writer, scale or {}
        self.rows = FrameRows()
        self.n_rows = 0
        self.sample = Sample()
        self.notes: list[str] = []

    def read(self, rows: Iterable[tuple[str, Callable]]) -> None:
        """Take (id, function that adds the row); what a function refuses goes to the ledger.

        Raises
        ------
        DatasetError
            Thousands of rows and not one of them good.
        """
        with _no_garbage_collection():
            self._read(rows)
        self.flush()

    def _read(self, rows: Iterable[tuple[str, Callable]]) -> None:
        for identifier, add in rows:
            try:
                add(self.rows, self.n_rows)
            except RowError as error:
                self.writer.reject("frames", self.n_rows, identifier, str(error))
                if self.n_rows >= _EARLY_ROWS and self.writer.n_frames == 0 and len(self.rows) == 0:
                    self._refuse_bad_file(final=False)
            self.n_rows += 1
            if self.rows.is_full:
                self.flush()

    def flush(self) -> None:
        """Check and write the rows at hand."""
        if len(self.rows) == 0:
            return
        rows, self.rows = self.rows, FrameRows()
        table, source_rows = rows.to_table(self.scale), np.asarray(rows.source_rows)
        good = self.writer.add_frames(table, source_rows, checks=[impossible_rows, isolated_rows])
        if good.num_rows:
            self.sample.add(good)

    def finish(self, inspect: Inspect | None = None) -> None:
        """Refuse a file that is mostly bad, or whose sample `inspect` refuses.

        Raises
        ------
        DatasetError
        """
        n_bad = sum(n for reason, n in self.writer.reasons.items() if not reason.startswith(ISOLATED))
        if self.writer.n_frames == 0 or n_bad > MAX_BAD_SHARE * max(self.n_rows, 1):
            self._refuse_bad_file(final=True)
        if inspect is not None and self.sample.frames is None:
            self.notes.append(self.sample.note)
        elif inspect is not None:
            inspect(self.sample.frames)

    def _refuse_bad_file(self, *, final: bool) -> None:
        n_bad = sum(self.writer.reasons.values())
        most = "\n  ".join(f"{n} x {reason}" for reason, n in self.writer.reasons.most_common(3))
        if not self.n_rows and final:
            raise DatasetError(f"{self.writer.path}: nothing written: the source holds no frames.")
        seen = f"{n_bad} of {self.n_rows} rows" if final else f"the first {n_bad} rows"
        raise DatasetError(
            f"{self.writer.path}: nothing written: {seen} are unusable.\n  {most}\n"
            "So many are no accident: is this the right importer, and are its units and keys the file's?"
        )


@contextlib.contextmanager
def _no_garbage_collection():
    """Parsed JSON has no cycles, but its many objects make Python look for some again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def complete_import(
    sink: FrameSink,
    meta: dict,
    n_bytes: int,
    started: float,
    *,
    inspect: Inspect | None,
    named_by: dict[str, str | None] | None = None,
) -> ImportSummary:
    """End an import of frames: have the sample inspected, add elements and pairs, put all in place, and sum up.

    Parameters
    ----------
    sink : FrameSink
        With all rows read.
    meta : dict
        For `dataset.json`; its name is the folder's, and how pairs and elements came to be is added.
    n_bytes : int
        Read from the source.
    started : float
        `time.perf_counter()` when the import began.
    inspect : callable or None
        See `FrameSink.finish`.
    named_by : dict, optional
        See `add_elements_and_pairs`.
    """
    writer = sink.writer
    if named_by and writer.n_frames:
        refuse_shared_ids(writer, named_by)
    sink.finish(inspect)
    functionals = parse_functionals(meta["functionals"], str(writer.path / "dataset.json"))
    n_materials, n_pairs, extra = add_elements_and_pairs(writer, functionals, named_by=named_by)
    writer.commit({"name": writer.path.name, **meta, **extra})
    n_rejected = sum(writer.reasons.values())
    seconds = time.perf_counter() - started
    return ImportSummary(
        writer.path,
        writer.n_frames,
        n_rejected,
        n_materials,
        n_pairs,
        n_bytes,
        seconds,
        writer.reasons,
        sink.notes,
    )


def rows_of(pieces: Iterable, read_row: Callable) -> Iterator[tuple[str, Callable]]:
    """Turn pieces of a file into what `FrameSink.read` takes."""
    for piece in pieces:
        yield "/".join(piece.keys), _bound(read_row, piece)


def _bound(read_row: Callable, piece) -> Callable:
    return lambda rows, row: read_row(piece, rows, row)
