"""Anyone's own pair of functionals: extended XYZ files or ASE databases, with their keys and units as options."""

import gzip
import io
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.importers.frame_rows import FrameRows, RowError, structure_digest
from crossfunc.datasets.importers.import_run import FrameSink, ImportSummary, Inspect, complete_import
from crossfunc.datasets.schema import ENERGY_KINDS, DatasetError
from crossfunc.datasets.writer import DatasetWriter
from crossfunc.symbols import N_ELEMENTS
from crossfunc.units import EV_PER_HARTREE, gpa_per_unit

MAX_ATOMS = 100_000
MAX_FRAME_BYTES = 64_000_000
_LINE_BYTES = 1_000_000
_DATABASES = (".db",)
ENERGY_UNITS = ("ev", "ev/atom", "mev/atom", "hartree", "rydberg")
FORCE_UNITS = ("ev/a", "hartree/bohr", "rydberg/bohr")


@dataclass(frozen=True)
class Keys:
    """Where a file keeps its labels, and in which units.

    Attributes
    ----------
    energy, forces, stress, magmoms : str
        Names in the comment line, among the columns, or of ASE's calculator results.
    structure_id, material_id : str or None
        Comment-line entries that say which structure a frame is (to pair the two files) and which material it belongs
        to (never split between training and test).
    energy_unit, force_unit, stress_unit : str
        Of `ENERGY_UNITS`, `FORCE_UNITS`, `crossfunc.units.STRESS_UNITS`. ASE's convention is eV, eV/Å and eV/Å³ with
        tension positive.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    magmoms: str = "magmoms"
    structure_id: str | None = None
    material_id: str | None = None
    energy_unit: str = "ev"
    force_unit: str = "ev/a"
    stress_unit: str = "ev/a3"


def import_extxyz(
    low: str | os.PathLike | None,
    high: str | os.PathLike,
    out: str | os.PathLike,
    *,
    functionals: tuple[str, str] = ("low functional", "high functional"),
    energy_kinds: tuple[str, str] = ("raw", "raw"),
    keys: Keys | None = None,
    licence: str = "not stated",
    citation: str = "not stated",
    label_notice: str | None = None,
    overwrite: bool = False,
    inspect: Inspect | None = None,
) -> ImportSummary:
    """Import two files, one per functional, as extended XYZ (.xyz, .extxyz, also .gz) or ASE databases (.db).

    Parameters
    ----------
    low, high : str or path
        The file of the functional to start from, and of the one to get to. Without the first (None) there are frames
        to train on, but no pairs.
    out : str or path
        The dataset folder to make.
    functionals : tuple of two str
        Their names in prose; the keys in the tables are made of them.
    energy_kinds : tuple of two str
        "raw", or "mp2020" for energies that hold the Materials Project's corrections.
    keys : Keys, optional
        Names and units of the labels.
    licence, citation : str
        Licence and citation of the data, for `dataset.json`.
    label_notice : str, optional
        What every figure and table made from these labels says of them; by default the two functionals.
    overwrite : bool
    inspect : callable, optional
        Given a sample of the frames before anything is put in place; raises to refuse the import.

    Returns
    -------
    ImportSummary

    Raises
    ------
    DatasetError
        A key that no frame has (the keys there are named), a file that cannot be cut into frames, mostly bad rows.

    Notes
    -----
    Without a key for materials, frames of one formula are one material: no structure can then end up on both sides of
    a split. Without a key for structures, frames with the same atoms in the same places are one structure.
    """
    started = time.perf_counter()
    keys = keys or Keys()
    energy_factor, per_atom = _energy_factor(keys.energy_unit)
    scale = {"stress_gpa": gpa_per_unit(keys.stress_unit), "forces_ev_per_a": _force_factor(keys.force_unit)}
    _check_energy_kinds(energy_kinds)
    described = describe_functionals(*functionals, energy_kinds=energy_kinds)
    sides = zip((low, high), (one["key"] for one in described.values()), energy_kinds, strict=True)
    readers = [_Reader(Path(f), name, kind, keys, energy_factor, per_atom) for f, name, kind in sides if f is not None]
    with DatasetWriter(out, overwrite=overwrite) as writer:
        sink = FrameSink(writer, scale=scale)
        for reader in readers:
            sink.read(reader.rows())
            reader.require_labels()
        meta = {
            "version": "1",
            "licence": licence,
            "citation": citation,
            "provenance": f"imported from {' and '.join(r.path.name for r in readers)} by crossfunc",
            "functionals": described,
            "label_notice": label_notice or f"Labels: {functionals[0]} and {functionals[1]}, from the user's own files",
            "keys": asdict(keys),
        }
        n_bytes = sum(reader.path.stat().st_size for reader in readers)
        by_material = keys.material_id is not None
        return complete_import(sink, meta, n_bytes, started, inspect=inspect, by_material=by_material)


def _check_energy_kinds(kinds: tuple[str, str]) -> None:
    unknown = sorted(set(kinds) - set(ENERGY_KINDS))
    if unknown:
        raise DatasetError(f"energy kind {unknown[0]!r} is none of {', '.join(ENERGY_KINDS)}.")


def _energy_factor(unit: str) -> tuple[float, bool]:
    """Return eV per unit, and whether it is per atom already."""
    factors = {
        "ev": (1.0, False),
        "ev/atom": (1.0, True),
        "mev/atom": (1e-3, True),
        "hartree": (EV_PER_HARTREE, False),
        "rydberg": (EV_PER_HARTREE / 2, False),
    }
    if unit not in factors:
        raise DatasetError(f"energy unit {unit!r} is none of {', '.join(ENERGY_UNITS)}.")
    return factors[unit]


def _force_factor(unit: str) -> float:
    from ase.units import Bohr

    factors = {"ev/a": 1.0, "hartree/bohr": EV_PER_HARTREE / Bohr, "rydberg/bohr": EV_PER_HARTREE / 2 / Bohr}
    if unit not in factors:
        raise DatasetError(f"force unit {unit!r} is none of {', '.join(FORCE_UNITS)}.")
    return factors[unit]


class _Reader:
    """Reads the frames of one file, and remembers which labels it met."""

    def __init__(self, path: Path, functional: str, kind: str, keys: Keys, energy_factor: float, per_atom: bool):
        self.path, self.functional, self.kind, self.keys = path, functional, kind, keys
        self.energy_factor, self.per_atom = energy_factor, per_atom
        self.met: set[str] = set()
        self.found: set[str] = set()

    def rows(self) -> Iterator[tuple[str, Callable]]:
        read = _read_database if self.path.suffix in _DATABASES else _read_blocks
        for number, load in enumerate(read(self.path)):
            identifier = f"{self.functional}/{self.path.name}#{number}"
            yield identifier, lambda rows, row, i=identifier, load=load: self._add(rows, row, i, load())

    def require_labels(self) -> None:
        """Raise unless every label that was asked for by name occurs, and energies at least."""
        asked = {"energy": self.keys.energy}
        asked |= {k: getattr(self.keys, k) for k in _OPTIONAL if getattr(self.keys, k) != getattr(Keys, k)}
        asked = {k: name for k, name in asked.items() if name and name not in self.met}
        if asked:
            named = ", ".join(f"{k} key {name!r}" for k, name in asked.items())
            raise DatasetError(
                f"{self.path}: no frame has the {named}; its keys are {', '.join(sorted(self.found)) or 'none'}. "
                "Name the right one with --energy-key, --forces-key, --stress-key, --magmoms-key."
            )

    def _add(self, rows: FrameRows, row: int, identifier: str, atoms) -> None:
        numbers = atoms.numbers
        if len(numbers) == 0:
            raise RowError("the frame has no atoms")
        if not atoms.pbc.all():
            raise RowError('not periodic in all directions; put it in a cell with pbc="T T T"')
        if numbers.min() < 1 or numbers.max() > N_ELEMENTS:
            raise RowError(f"unknown element; only {N_ELEMENTS} elements (H to Pu) are known")
        if abs(np.linalg.det(atoms.cell.array)) < 1e-3:
            raise RowError("lattice_a spans no volume")
        results = {} if atoms.calc is None else atoms.calc.results
        self.found |= {*results, *atoms.info, *(k for k in atoms.arrays if k not in ("numbers", "positions"))}
        energy = _number(self._value(atoms, results, self.keys.energy), self.keys.energy)
        energy *= self.energy_factor / (1 if self.per_atom else len(atoms))
        coords = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
        structure = (numbers.tolist(), atoms.cell.array.ravel().tolist(), coords.ravel().tolist())
        stress = self._value(atoms, results, self.keys.stress)
        labels = {
            "forces_ev_per_a": _array(self._value(atoms, results, self.keys.forces), self.keys.forces, 3 * len(atoms)),
            "stress_gpa": None if stress is None else _tensor(stress, self.keys.stress),
            "magmoms_mub": _array(self._value(atoms, results, self.keys.magmoms), self.keys.magmoms, len(atoms)),
        }
        structure_id = self._text(atoms, self.keys.structure_id) or structure_digest("", *structure)
        texts = {
            "frame_id": identifier,
            "material_id": self._text(atoms, self.keys.material_id) or atoms.get_chemical_formula(empirical=True),
            "functional": self.functional,
            "energy_kind": self.kind,
            "source": self.path.name,
            "structure_id": structure_id,
        }
        rows.append(row, texts, structure, energy, **labels)

    def _value(self, atoms, results: dict, key: str):
        for place in (results, atoms.info, atoms.arrays):
            if key in place:
                self.met.add(key)
                return place[key]
        return None

    def _text(self, atoms, key: str | None) -> str | None:
        if key is None:
            return None
        if atoms.info.get(key) in (None, ""):
            raise RowError(f"no {key} in the comment line")
        return str(atoms.info[key])


_OPTIONAL = ("forces", "stress", "magmoms")


def _number(value, key: str) -> float:
    array = np.asarray(value)
    if value is None or array.size != 1 or array.dtype.kind not in "fi":
        raise RowError(f"no number under the energy key {key!r}" if value is None else f"{key} is not a number")
    return float(array.reshape(()))


def _array(value, key: str, size: int) -> list[float] | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "fi" or array.size != size:
        raise RowError(f"{key} needs {size} numbers, found {array.size} of type {array.dtype}")
    return array.astype(float).ravel().tolist()


def _tensor(value, key: str) -> list[float]:
    array = np.asarray(value)
    if array.dtype.kind not in "fi" or array.size not in (6, 9):
        raise RowError(f"{key} needs 6 numbers (xx yy zz yz xz xy) or 9, found {array.size}")
    flat = array.astype(float).ravel().tolist()
    return flat if array.size == 9 else [flat[k] for k in (0, 5, 4, 5, 1, 3, 4, 3, 2)]


def _read_blocks(path: Path) -> Iterator[Callable]:
    """Cut an extended XYZ file into frames; each is parsed on its own, so that a bad one leaves the others alone."""
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if raw.read(2) == b"\x1f\x8b" else raw
            raw.seek(0)
            lines = io.BufferedReader(stream, 1_000_000) if stream is not raw else raw
            yield from _cut_blocks(path, lines)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path}: the gzip stream is damaged or cut ({error}); fetch it again.") from error
    except OSError as error:
        raise DatasetError(f"{path}: not readable ({error.strerror or error}).") from error


def _cut_blocks(path: Path, lines) -> Iterator[Callable]:
    number, frame = 0, 0
    while first := lines.readline(_LINE_BYTES):
        number += 1
        if not first.strip():
            continue
        try:
            n_atoms = int(first)
        except ValueError:
            raise DatasetError(
                f"{path}, line {number}: {first[:40]!r} where the number of atoms of frame {frame} is expected; the "
                "frame before it may have more or fewer lines than it says."
            ) from None
        if not 0 <= n_atoms <= MAX_ATOMS:
            raise DatasetError(f"{path}, line {number}: {n_atoms} atoms in frame {frame}; up to {MAX_ATOMS} are read.")
        block = [first, *_limited(path, (lines.readline(_LINE_BYTES) for _ in range(n_atoms + 1)))]
        if not block[-1]:
            raise DatasetError(f"{path}: the file ends within frame {frame} (line {number}): it was cut off.")
        number, frame = number + n_atoms + 1, frame + 1
        yield lambda block=block: _parse_block(b"".join(block))


def _limited(path: Path, lines: Iterator[bytes]) -> Iterator[bytes]:
    """Pass the lines on until they are too much for one frame."""
    size = 0
    for line in lines:
        size += len(line)
        if size > MAX_FRAME_BYTES:
            raise DatasetError(f"{path}: one frame of more than {MAX_FRAME_BYTES // 10**6} MB: no extended XYZ file.")
        yield line


def _parse_block(block: bytes):
    import ase.io

    try:
        return ase.io.read(io.StringIO(block.decode("utf-8")), format="extxyz", index=0)
    except UnicodeDecodeError:
        raise RowError("holds bytes that are not UTF-8") from None
    except Exception as error:  # whatever its parser meets in a bad frame, that frame is left out and told
        raise RowError(f"ASE cannot read the frame ({type(error).__name__}: {str(error)[:100]})") from None


def _read_database(path: Path) -> Iterator[Callable]:
    import ase.db

    if not path.is_file():
        raise DatasetError(f"{path}: not readable (no such file).")
    try:
        for row in ase.db.connect(path, type="db", serial=True).select(sort="id"):
            yield lambda row=row: _from_row(row)
    except (sqlite3.DatabaseError, json.JSONDecodeError, KeyError) as error:
        raise DatasetError(f"{path}: not readable as an ASE database ({error}).") from error


def _from_row(row):
    try:
        atoms = row.toatoms()
    except Exception as error:  # as above
        raise RowError(f"ASE cannot read the row ({type(error).__name__}: {str(error)[:100]})") from None
    atoms.info |= {**row.key_value_pairs, **row.data}
    return atoms
