"""MatPES: records of static calculations in PBE and in r²SCAN, one JSON array or one record per line, also gzipped.

Units: total energy in eV, eV/Å, and stress in VASP's kBar (compression positive) as xx, yy, zz, yz, xz, xy.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.importers.frame_rows import (
    FrameRows,
    RowError,
    checked_number,
    checked_numbers,
    flat_numbers,
    parse_structure,
)
from crossfunc.datasets.importers.import_run import FrameSink, ImportSummary, Inspect, complete_import, rows_of
from crossfunc.datasets.importers.mp_r2scan import parse_object
from crossfunc.datasets.json_stream import ByteSource, Piece, first_bytes, split_json
from crossfunc.datasets.schema import DatasetError
from crossfunc.datasets.writer import DatasetWriter
from crossfunc.units import gpa_per_unit

_FUNCTIONALS = ("pbe", "r2scan")
_NEEDED = {"structure", "energy", "forces", "stress", "matpes_id", "functional"}
_VOIGT = (0, 5, 4, 5, 1, 3, 4, 3, 2)  # where the nine entries of the tensor stand in xx, yy, zz, yz, xz, xy
MAGMOMS = ("none", "bader")


def import_matpes(
    files: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    stress_unit: str = "vasp-kbar",
    magmoms: str = "none",
    overwrite: bool = False,
    inspect: Inspect | None = None,
) -> ImportSummary:
    """Import MatPES, the PBE release, the r²SCAN release or both; with both, structures labelled twice become pairs.

    Parameters
    ----------
    files : sequence of str or path
        One file per functional.
    out : str or path
        The dataset folder to make.
    stress_unit : str
        One of `crossfunc.units.STRESS_UNITS`; the releases are in "vasp-kbar".
    magmoms : {"none", "bader"}
        Bader moments are another quantity than the projected ones CHGNet is trained on, so they are left out unless
        asked for. Those in the structures may be the initial ones and are never taken.
    overwrite : bool
    inspect : callable, optional
        Given a sample of the frames before anything is put in place; raises to refuse the import.

    Returns
    -------
    ImportSummary

    Raises
    ------
    DatasetError
        A file that is not JSON, ends early, or has another layout; two files of one functional; mostly bad rows.
    """
    started = time.perf_counter()
    paths = [Path(f) for f in files]
    if not 1 <= len(paths) <= 2 or magmoms not in MAGMOMS:
        raise DatasetError(f"matpes takes one file or two, and magmoms of {', '.join(MAGMOMS)}.")
    sources = [ByteSource(path) for path in paths]
    readers = [_Reader(path.name.removesuffix(".gz"), magmoms) for path in paths]
    with DatasetWriter(out, overwrite=overwrite) as writer:
        sink = FrameSink(writer, scale={"stress_gpa": gpa_per_unit(stress_unit)})
        for source, reader in zip(sources, readers, strict=True):
            brackets = "[" if first_bytes(source.path)[:1] == b"[" else ""
            sink.read(rows_of(split_json(source, brackets), reader.read_row))
        found = [reader.functional for reader in readers]
        if len(found) == 2 and found[0] == found[1] is not None:
            raise DatasetError(f"{paths[0]} and {paths[1]} are both {found[0]}: give the PBE and the r²SCAN release.")
        sums = "; ".join(f"{s.path.name} (sha256 {s.sha256})" for s in sources)
        meta = {
            "version": "-".join(s.sha256[:12] for s in sources),
            "licence": "BSD-3-Clause (MatPES)",
            "citation": "A. D. Kaplan et al., arXiv:2503.04070 (2025)",
            "provenance": f"imported from {sums} by crossfunc, stress read as {stress_unit}, magmoms: {magmoms}",
            "functionals": describe_functionals("PBE", "r²SCAN"),
            "labelled_by": "DFT, VASP",
            "label_notice": "DFT labels: MatPES, PBE and r²SCAN single points, uncorrected energies",
        }
        return complete_import(sink, meta, sum(s.n_bytes for s in sources), started, inspect=inspect)


class _Reader:
    """Reads the records of one file; the first one says which functional the file is of."""

    def __init__(self, source: str, magmoms: str):
        self.source, self.magmoms = source, magmoms
        self.functional: str | None = None

    def read_row(self, piece: Piece, rows: FrameRows, row: int) -> None:
        record = parse_object(piece)
        missing = _NEEDED - record.keys()
        if missing:
            raise RowError(f"{', '.join(sorted(missing))} missing")
        functional = str(record["functional"]).lower()
        if functional not in _FUNCTIONALS:
            raise RowError(f"functional is {str(record['functional'])[:20]!r}, neither PBE nor r2SCAN")
        self.functional = self.functional or functional
        if functional != self.functional:
            raise RowError(
                f"functional is {record['functional']} in a file of {self.functional}: functionals are mixed"
            )
        if not isinstance(record["matpes_id"], str) or not record["matpes_id"]:
            raise RowError("matpes_id is no text")
        structure = parse_structure(record["structure"])
        n_atoms = len(structure[0])
        stated = record.get("nsites", n_atoms)
        if stated != n_atoms:
            raise RowError(f"nsites is {str(stated)[:10]}, but the structure has {n_atoms} sites")
        energy = checked_number(record["energy"], "energy") / n_atoms
        labels = {
            "forces_ev_per_a": flat_numbers(record["forces"], n_atoms, "forces"),
            "stress_gpa": tensor_of(record["stress"], "stress"),
            "magmoms_mub": self._magmoms(record, n_atoms),
        }
        provenance = record.get("provenance")
        origin = provenance.get("original_mp_id") if isinstance(provenance, dict) else None
        texts = {
            "frame_id": f"{record['matpes_id']}/{functional}",
            "material_id": origin if isinstance(origin, str) and origin else record["matpes_id"],
            "functional": functional,
            "energy_kind": "raw",
            "source": self.source,
            "structure_id": record["matpes_id"],
        }
        try:
            rows.append(row, texts, structure, energy, **labels)
        except OverflowError:
            raise RowError("a number is out of range") from None

    def _magmoms(self, record: dict, n_atoms: int) -> list[float] | None:
        values = record.get("bader_magmoms") if self.magmoms == "bader" else None
        if values is None:
            return None
        if not isinstance(values, list) or len(values) != n_atoms:
            raise RowError(f"bader_magmoms needs {n_atoms} values")
        return checked_numbers(values, "bader_magmoms")


def tensor_of(stress, name: str) -> list[float]:
    """Return nine entries, row by row, of a stress given as 3 x 3 or as xx, yy, zz, yz, xz, xy.

    Raises
    ------
    RowError
    """
    if isinstance(stress, list) and len(stress) == 6:
        six = checked_numbers(stress, name)
        return [six[k] for k in _VOIGT]
    return flat_numbers(stress, 3, name)
