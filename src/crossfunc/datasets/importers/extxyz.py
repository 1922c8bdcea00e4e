"""Anyone's own pair of functionals: extended XYZ files or ASE databases, with their keys and units as options."""

import codecs
import gzip
import io
import json
import os
import re
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.importers.frame_rows import FrameRows, RowError, structure_digest
from crossfunc.datasets.importers.import_run import FrameSink, ImportSummary, Inspect, complete_import
from crossfunc.datasets.schema import ENERGY_KINDS, DatasetError
from crossfunc.datasets.writer import DatasetWriter
from crossfunc.symbols import ELEMENT_SYMBOLS, N_ELEMENTS
from crossfunc.units import EV_PER_HARTREE, STRESS_UNITS, VIRIAL_UNITS, UnitError, gpa_per_unit

if TYPE_CHECKING:
    from ase import Atoms

MAX_ATOMS = 100_000
MAX_FRAME_BYTES = 64_000_000
_LINE_BYTES = 1_000_000
_DATABASES = (".db",)
ENERGY_UNITS = ("ev", "ev/atom", "mev/atom", "hartree", "rydberg")
FORCE_UNITS = ("ev/a", "hartree/bohr", "rydberg/bohr")
ALL_STRESS_UNITS = (*STRESS_UNITS, *VIRIAL_UNITS)
MOMENTS = ("number", "length", "x", "y", "z")
"""How a magnetic moment stands in the file: as one number, or as three: their length or one component is read."""


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
        One of `ENERGY_UNITS`, `FORCE_UNITS`, `crossfunc.units.STRESS_UNITS` or, for a virial of the whole cell in eV,
        `VIRIAL_UNITS`. ASE's convention is eV, eV/Å and eV/Å³ with tension positive.
    stress_order : str
        One of `STRESS_ORDERS`: where a stress has six numbers, which component each is.
    moments : str
        One of `MOMENTS`; for three numbers per moment, "length" or the axis to read.
    leave_out : tuple of str
        Columns that are labels, or look like some, and are not wanted.
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
    stress_order: str = "voigt"
    moments: str = "number"
    leave_out: tuple[str, ...] = ()


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
        A key that no frame has (the keys there are named), columns that look like the labels that are missing, a
        material or structure whose frames have different compositions, a file that cannot be cut into frames, mostly
        bad rows.

    Notes
    -----
    Without a key for materials, frames of one formula are one material: no structure can then end up on both sides of
    a split. Without a key for structures, frames with the same atoms in the same places are one structure. Ids are
    the text that stands in the file: "1_10", "007" and "225 1" stay what they are.
    """
    started = time.perf_counter()
    keys = keys or Keys()
    energy_factor, per_atom = _energy_factor(keys.energy_unit)
    scale = {"stress_gpa": _stress_factor(keys.stress_unit), "forces_ev_per_a": _force_factor(keys.force_unit)}
    if keys.stress_order not in STRESS_ORDERS:
        raise DatasetError(f"stress order {keys.stress_order!r} is none of {', '.join(STRESS_ORDERS)}.")
    if keys.moments not in MOMENTS:
        raise DatasetError(f"moments {keys.moments!r} is none of {', '.join(MOMENTS)}.")
    _check_energy_kinds(energy_kinds)
    _refuse_one_file(low, high)
    described = describe_functionals(*functionals, energy_kinds=energy_kinds)
    sides = zip((low, high), (one["key"] for one in described.values()), energy_kinds, strict=True)
    readers = [_Reader(Path(f), name, kind, keys, energy_factor, per_atom) for f, name, kind in sides if f is not None]
    with DatasetWriter(out, overwrite=overwrite) as writer:
        sink = FrameSink(writer, scale=scale)
        for reader in readers:
            sink.read(reader.rows())
            reader.require_labels()
        for reader in readers:
            reader.refuse_unread_labels()
            sink.notes += reader.notes()
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
        named = {"material_id": keys.material_id, "structure_id": keys.structure_id}
        summary = complete_import(sink, meta, n_bytes, started, inspect=inspect, named_by=named)
    if len(readers) == 2 and not summary.n_pairs:
        summary.notes.append(
            "no pairs: no frames of the two files are one structure or one material; name an entry that both files "
            "have with --structure-key or --material-key"
        )
    return summary


def _refuse_one_file(low: str | os.PathLike | None, high: str | os.PathLike) -> None:
    if low is not None and Path(low).is_file() and Path(high).is_file() and Path(low).samefile(high):
        raise DatasetError(f"{low}: given for both functionals, whose energies would be the same; give a file of each.")


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


def _stress_factor(unit: str) -> float:
    if unit not in ALL_STRESS_UNITS:
        raise UnitError(f"stress unit {unit!r} is none of {', '.join(ALL_STRESS_UNITS)}")
    return VIRIAL_UNITS[unit] if unit in VIRIAL_UNITS else gpa_per_unit(unit)


def _force_factor(unit: str) -> float:
    from ase.units import Bohr

    factors = {"ev/a": 1.0, "hartree/bohr": EV_PER_HARTREE / Bohr, "rydberg/bohr": EV_PER_HARTREE / 2 / Bohr}
    if unit not in factors:
        raise DatasetError(f"force unit {unit!r} is none of {', '.join(FORCE_UNITS)}.")
    return factors[unit]


@dataclass(frozen=True)
class _Frame:
    """One frame as ASE reads it, and the text of its entries before anything was made of it.

    Of a database there is no comment line.
    """

    atoms: "Atoms"
    texts: Callable[[str], str | None]
    comment: str = ""

    def refuse_repeats(self, keys: Iterable[str]) -> None:
        """Raise RowError where the comment line has one of these entries twice: ASE takes the last."""
        for key in keys:
            if self.comment.count(f"{key}=") > 1:
                entry_text(self.comment, key)


class _Reader:
    """Reads the frames of one file, and remembers which labels it met."""

    def __init__(self, path: Path, functional: str, kind: str, keys: Keys, energy_factor: float, per_atom: bool):
        self.path, self.functional, self.kind, self.keys = path, functional, kind, keys
        self.energy_factor, self.per_atom = energy_factor, per_atom
        self.is_virial = keys.stress_unit in VIRIAL_UNITS
        self.refused: Counter = Counter()
        self.met: set[str] = set()
        self.found: set[str] = set()
        self.unread: dict[str, Unread] = {}
        self.suspects: dict[str, Unread] = {}

    def rows(self) -> Iterator[tuple[str, Callable]]:
        read = _read_database if self.path.suffix in _DATABASES else _read_blocks
        for number, load in enumerate(read(self.path)):
            identifier = f"{self.functional}/{self.path.name}#{number}"
            yield identifier, lambda rows, row, i=identifier, load=load: self._try(rows, row, i, load)

    def _try(self, rows: FrameRows, row: int, identifier: str, load: Callable) -> None:
        try:
            self._add(rows, row, identifier, load())
        except RowError as error:
            self.refused[str(error)] += 1
            raise

    def require_labels(self) -> None:
        """Raise unless frames can be used, every label that was asked for by name occurs, and energies at least."""
        if self.refused and not self.found:
            ((reason, n),) = self.refused.most_common(1)
            raise DatasetError(f"{self.path}: nothing written: none of its frames can be used; {n} x {reason}.")
        if not self.refused and not self.found:
            raise DatasetError(f"{self.path}: nothing written: it holds no frames.")
        asked = {"energy": self.keys.energy}
        asked |= {k: getattr(self.keys, k) for k in _OPTIONAL if getattr(self.keys, k) != getattr(Keys, k)}
        asked = {k: name for k, name in asked.items() if name and name not in {*self.met, *self.keys.leave_out}}
        if asked:
            named = ", ".join(f"{k} key {name!r}" for k, name in asked.items())
            raise DatasetError(
                f"{self.path}: no frame has the {named}; its keys are {', '.join(sorted(self.found)) or 'none'}. "
                "Name the right one with --energy-key, --forces-key, --stress-key, --magmoms-key."
            )

    def refuse_unread_labels(self) -> None:
        """Raise where a frame lacks a kind of label and has a column that may be it."""
        if self.suspects:
            lines = "\n  ".join(one.describe() for one in self.suspects.values())
            names = " ".join(f"--leave-out {one.name}" for one in self.suspects.values())
            raise DatasetError(
                f"{self.path}: nothing written: its frames have columns that look like labels and are not read:\n"
                f"  {lines}\nName those that are labels, and leave the others out knowingly: {names}."
            )

    def notes(self) -> list[str]:
        """What is numeric, has a value per atom or the size of a tensor, and is not read."""
        if not self.unread:
            return []
        listed = ", ".join(f"{one.name} ({one.shape})" for one in self.unread.values())
        return [f"{self.path.name}: not read: {listed}"]

    def _add(self, rows: FrameRows, row: int, identifier: str, frame: _Frame) -> None:
        atoms = frame.atoms
        numbers = atoms.numbers
        frame.refuse_repeats(("Lattice", "Properties", "pbc", *(getattr(self.keys, k) for k in ("energy", *_OPTIONAL))))
        if len(numbers) == 0:
            raise RowError("the frame has no atoms")
        if not atoms.pbc.all():
            raise RowError('not periodic in all directions; put it in a cell with pbc="T T T"')
        if numbers.min() < 1 or numbers.max() > N_ELEMENTS:
            raise RowError(_unknown_elements(numbers))
        if abs(np.linalg.det(atoms.cell.array)) < 1e-3:
            raise RowError("lattice_a spans no volume")
        results = {} if atoms.calc is None else atoms.calc.results
        self.found |= {*results, *atoms.info, *(k for k in atoms.arrays if k not in ("numbers", "positions"))}
        energy = _number(self._value(atoms, results, self.keys.energy), self.keys.energy)
        energy *= self.energy_factor / (1 if self.per_atom else len(atoms))
        coords = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
        structure = (numbers.tolist(), atoms.cell.array.ravel().tolist(), coords.ravel().tolist())
        labels = {
            "forces_ev_per_a": _array(self._value(atoms, results, self.keys.forces), self.keys.forces, 3 * len(atoms)),
            "stress_gpa": self._stress(frame, results),
            "magmoms_mub": self._moments(atoms, results),
        }
        texts = {
            "frame_id": identifier,
            "material_id": self._text(frame, self.keys.material_id) or atoms.get_chemical_formula(empirical=True),
            "functional": self.functional,
            "energy_kind": self.kind,
            "source": self.path.name,
            "structure_id": self._text(frame, self.keys.structure_id) or structure_digest("", *structure),
        }
        rows.append(row, texts, structure, energy, **labels)
        there = dict(zip(("forces", "stress", "magmoms"), labels.values(), strict=True))
        self._list_unread(atoms, results, {kind for kind, values in there.items() if values is None})

    def _value(self, atoms, results: dict, key: str):
        for place in (results, atoms.info, atoms.arrays) if key not in self.keys.leave_out else ():
            if key in place:
                self.met.add(key)
                return place[key]
        return None

    def _stress(self, frame: _Frame, results: dict) -> list[float] | None:
        atoms, key = frame.atoms, self.keys.stress
        stress = self._value(atoms, results, key)
        if stress is None:
            return None
        if frame.comment and key in results:  # of nine numbers, ASE has kept one triangle
            stress = _numbers_in(entry_text(frame.comment, key) or "") or stress
        of_ase = key in results and not isinstance(stress, list)  # ASE has put these six into its own order
        tensor = _tensor(stress, key, "voigt" if of_ase else self.keys.stress_order)
        return [value / atoms.cell.volume for value in tensor] if self.is_virial else tensor

    def _moments(self, atoms, results: dict) -> list[float] | None:
        values, key, n = self._value(atoms, results, self.keys.magmoms), self.keys.magmoms, len(atoms)
        if values is None:
            return None
        shape = np.shape(values)
        if shape == (n, 3):
            if self.keys.moments == "number":
                raise RowError(
                    f"{key} has three numbers per moment (non-collinear): read their length with --moments length, or "
                    "one component with --moments x, y or z"
                )
            vectors = np.reshape(_array(values, key, 3 * n), (n, 3))
            if self.keys.moments == "length":
                return np.linalg.norm(vectors, axis=1).tolist()
            return vectors[:, "xyz".index(self.keys.moments)].tolist()
        if self.keys.moments != "number":
            raise RowError(
                f"{key} has shape {shape}, where --moments {self.keys.moments} reads three numbers per moment"
            )
        return _array(values, key, n)

    def _list_unread(self, atoms, results: dict, missing: set[str]) -> None:
        read = {getattr(self.keys, k) for k in ("energy", *_OPTIONAL, "material_id", "structure_id")}
        for place in (results, atoms.info, atoms.arrays):
            for name, values in place.items():
                if name in read or name in _NO_LABELS or name in self.keys.leave_out:
                    continue
                unread = Unread.of(name, values, len(atoms), in_columns=place is atoms.arrays)
                if unread is not None:
                    self.unread.setdefault(name, unread)
                    if unread.may_be in missing:
                        self.suspects.setdefault(name, unread)

    def _text(self, frame: _Frame, key: str | None) -> str | None:
        if key is None:
            return None
        text = frame.texts(key)
        if not text:
            raise RowError(f"no {key} in the comment line")
        return text


_NO_LABELS = {"numbers", "positions", "tags", "masses", "momenta", "initial_magmoms", "initial_charges", "energies"}
_MOMENT_WORDS = ("mag", "mom", "spin")
_NUMBER_WORDS = ("energ", "enthalp", "pressure")  # a second energy may be the one that was meant
_ONE_OF_THREE = re.compile(r"(f|\w*force\w*?)_?[xyz]", re.IGNORECASE)
_ONE_COMPONENT = "a component per atom"
_OPTIONS = {
    "forces": "--forces-key {name}",
    "stress": "--stress-key {name}",
    "virial": "--stress-key {name} --stress-unit ev-virial",
    "magmoms": "--magmoms-key {name}",
}


@dataclass(frozen=True)
class Unread:
    """A column that nothing reads although it has the shape of a label.

    Attributes
    ----------
    name, shape : str
    may_be : str
        "forces", "stress" or "magmoms"; "" for a number per atom that no name makes a moment, and for one of a frame.
    """

    name: str
    shape: str
    may_be: str

    @classmethod
    def of(cls, name: str, values, n_atoms: int, *, in_columns: bool) -> "Unread | None":
        """Return what a value of one frame looks like; None where it is no numbers of a label's shape.

        What stands outside the columns of atoms is a tensor where it could be both.
        """
        array = np.asarray((_numbers_in(values) or values) if isinstance(values, str) and not in_columns else values)
        if array.dtype.kind not in "fi":
            return None
        is_moment = any(word in name.lower() for word in _MOMENT_WORDS)
        if array.shape == () and any(word in name.lower() for word in _NUMBER_WORDS):
            return cls(name, "a number", "")
        if array.shape in ((6,), (9,), (3, 3)) and not in_columns:
            return cls(name, f"{array.size} numbers", "stress")
        if array.shape == (n_atoms, 3) and (array.dtype.kind == "f" or is_moment):
            return cls(name, "3 numbers per atom", "magmoms" if is_moment else "forces")
        if array.shape == (n_atoms,) and in_columns and _ONE_OF_THREE.fullmatch(name):
            return cls(name, _ONE_COMPONENT, "forces")
        if array.shape == (n_atoms,) and (in_columns or is_moment):
            return cls(name, "a number per atom", "magmoms" if is_moment else "")
        return None

    def describe(self) -> str:
        """The column, and the option that reads it."""
        if self.shape == _ONE_COMPONENT:
            return f"{self.name} ({self.shape}): in Properties make one column of the three, forces:R:3"
        kind = "virial" if self.may_be == "stress" and "vir" in self.name.lower() else self.may_be
        return f"{self.name} ({self.shape}): {_OPTIONS[kind].format(name=self.name)}"


def _unknown_elements(numbers: np.ndarray) -> str:
    from ase.data import chemical_symbols

    strange = sorted({int(z) for z in numbers if not 1 <= z <= N_ELEMENTS})
    names = [f"{chemical_symbols[z]} (Z = {z})" if 0 <= z < len(chemical_symbols) else f"Z = {z}" for z in strange]
    return f"unknown element {', '.join(names)}; only {N_ELEMENTS} elements ({ELEMENT_SYMBOLS[0]} to Pu) are known"


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


_ASYMMETRY = 0.05  # of the largest component: more than printed digits and finite differences leave


def _numbers_in(text: str) -> list[float] | None:
    """The numbers of a text that holds nothing else but brackets and commas, as [[1, 0, 0], [0, 1, 0], [0, 0, 1]]."""
    try:
        return [float(word) for word in _BRACKETS.sub(" ", text).split()] or None
    except ValueError:
        return None


STRESS_ORDERS = {"voigt": (0, 5, 4, 5, 1, 3, 4, 3, 2), "vasp": (0, 3, 5, 3, 1, 4, 5, 4, 2)}
"""Which of six numbers stands where in the tensor: xx yy zz yz xz xy as ASE has them, xx yy zz xy yz zx as VASP."""


def _tensor(value, key: str, order: str) -> list[float]:
    array = np.asarray((_numbers_in(value) or value) if isinstance(value, str) else value)
    if array.dtype.kind not in "fi" or array.size not in (6, 9):
        raise RowError(f"{key} needs 6 numbers (in the order of --stress-order) or 9, found {array.size}")
    flat = array.astype(float).ravel().tolist()
    for row, column in ((0, 1), (0, 2), (1, 2)) if array.size == 9 else ():
        one, other = flat[3 * row + column], flat[3 * column + row]
        if abs(one - other) > _ASYMMETRY * max(map(abs, flat)):
            pair = f"{'xyz'[row]}{'xyz'[column]} {one:g}, {'xyz'[column]}{'xyz'[row]} {other:g}"
            raise RowError(f"{key} is not symmetric ({pair}), as a stress is; correct it, or --leave-out {key}")
    return flat if array.size == 9 else [flat[k] for k in STRESS_ORDERS[order]]


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
    number, frame, blank = 0, 0, 0
    while first := lines.readline(_LINE_BYTES):
        number += 1
        if number == 1:
            first = _without_mark(path, first)
        if not first.strip():
            blank += len(first)
            if blank > _LINE_BYTES:
                raise DatasetError(f"{path}, line {number}: more than 1 MB of nothing: no extended XYZ file.")
            continue
        try:
            n_atoms = int(first)
        except ValueError:
            reason = (
                "the frame before it may have more or fewer lines than it says" if frame else "no extended XYZ file"
            )
            raise DatasetError(
                f"{path}, line {number}: {first[:40]!r} where the number of atoms of frame {frame} is expected; "
                f"{reason}."
            ) from None
        if not 0 <= n_atoms <= MAX_ATOMS:
            raise DatasetError(f"{path}, line {number}: {n_atoms} atoms in frame {frame}; up to {MAX_ATOMS} are read.")
        block = [first, *_limited(path, (lines.readline(_LINE_BYTES) for _ in range(n_atoms + 1)))]
        if not block[-1]:
            raise DatasetError(f"{path}: the file ends within frame {frame} (line {number}): it was cut off.")
        number, frame = number + n_atoms + 1, frame + 1
        yield lambda block=block: _parse_block(b"".join(block))


def _without_mark(path: Path, line: bytes) -> bytes:
    """The first line of a file without the mark that Windows' editors put before it."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DatasetError(f"{path}: text of two bytes a letter (UTF-16); save it as UTF-8.")
    return line.removeprefix(codecs.BOM_UTF8)


def _limited(path: Path, lines: Iterator[bytes]) -> Iterator[bytes]:
    """Pass the lines on until they are too much for one frame."""
    size = 0
    for line in lines:
        size += len(line)
        if size > MAX_FRAME_BYTES:
            raise DatasetError(f"{path}: one frame of more than {MAX_FRAME_BYTES // 10**6} MB: no extended XYZ file.")
        yield line


_BRACKETS = re.compile(r"[][{}(),]")
_NESTED = re.compile(r"""=\s*\[\s*(\[[^"']*?\])\s*\]""")  # ASE ends an array at its first bracket


def _parse_block(block: bytes) -> _Frame:
    import ase.io

    try:
        text = block.decode("utf-8")
        count, _, text = text.partition("\n")
        written, _, rest = text.partition("\n")
        comment = _NESTED.sub(lambda m: f'="{_BRACKETS.sub(" ", m[1])}"', written)
        atoms = ase.io.read(io.StringIO("\n".join((count, comment, rest))), format="extxyz", index=0)
        return _Frame(atoms, lambda key: entry_text(written, key), comment)
    except UnicodeDecodeError:
        raise RowError("holds bytes that are not UTF-8") from None
    except KeyError as error:
        symbol = str(error.args[0])
        if symbol not in rest.split():
            raise RowError(f"ASE cannot read the frame (KeyError: {error})") from None
        raise RowError(f"unknown element {symbol[:20]!r}; write one of H to Pu, as Fe for Fe3+ and H for D") from None
    except Exception as error:  # whatever its parser meets in a bad frame, that frame is left out and told
        raise RowError(f"ASE cannot read the frame ({type(error).__name__}: {str(error)[:100]})") from None


def entry_text(comment: str, key: str) -> str | None:
    """Return the text of an entry of a comment line, key=text or key="text", exactly as it stands there.

    ASE makes numbers, truth values and arrays of what looks like them: of 1_10, 007, T, 225 1 and 1e5.

    Raises
    ------
    RowError
        The key is there twice.
    """
    found = [(name, value) for name, value in _entries(comment) if name == key]
    if len(found) > 1:
        raise RowError(f"{key} occurs twice in the comment line")
    return found[0][1] if found else None


_CLOSING = {"'": "'", '"': '"', "{": "}", "[": "]"}


def _entries(comment: str) -> Iterator[tuple[str, str | None]]:
    """Cut a comment line into keys and texts by the rules of ASE's reader; None for a key without a value."""
    parts: list[str] = []
    current, until, escaped, is_open = [], None, False, False
    for char in f"{comment.strip()} ":
        if escaped:
            current.append(char)
            escaped = False
        elif char == "\\":
            escaped = is_open = True
        elif until:
            if char == until:
                until = None
            else:
                current.append(char)
        elif char in _CLOSING:
            until, is_open = _CLOSING[char], True
        elif char.isspace():
            if current or parts or is_open:
                parts.append("".join(current))
                yield parts[0], "=".join(parts[1:]) if len(parts) > 1 else None
            parts, current, is_open = [], [], False
        elif char == "=":
            parts.append("".join(current))
            current = []
        else:
            current.append(char)


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
    values = {**row.key_value_pairs, **row.data}
    atoms.info |= values
    return _Frame(atoms, lambda key: _plain_text(values.get(key), key))


def _plain_text(value, key: str) -> str | None:
    """The text of a value in a database; a number is written as it prints."""
    if value is None or isinstance(value, str):
        return value
    if np.ndim(value) or isinstance(value, dict | bool | np.bool_ | float | np.floating):
        raise RowError(f"{key} is {value!r:.60}, which is no id; store it as text")
    return str(value)
