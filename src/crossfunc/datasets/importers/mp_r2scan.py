"""MP-r2SCAN and MPtrj: one JSON of `{material: {frame: {structure, energy_per_atom, force, stress, magmom, ...}}}`.

Units as VASP writes them: eV/atom, eV/Å, µB, and stress in kBar with compression positive, so GPa = -0.1 x kBar.
"""

import os
import time
from pathlib import Path

import orjson

from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.importers.frame_rows import (
    FrameRows,
    RowError,
    checked_number,
    checked_numbers,
    flat_numbers,
    kind_of,
    parse_structure,
)
from crossfunc.datasets.importers.import_run import FrameSink, ImportSummary, Inspect, complete_import, rows_of
from crossfunc.datasets.json_stream import ByteSource, Piece, first_bytes, split_json
from crossfunc.datasets.schema import DatasetError
from crossfunc.datasets.writer import DatasetWriter
from crossfunc.units import gpa_per_unit

ENERGY_TOLERANCE_EV = 1e-4
"""How far energy_per_atom may be from total / n: the files hold eight digits of a total of up to thousands of eV."""
_FUNCTIONALS = ("GGA/GGA+U", "r²SCAN")
_ENERGY_KINDS = ("mp2020", "raw")
_KINDS = {
    "mp-r2scan": {
        "functional": "r2scan",
        "energy_kind": "raw",
        "total": "uncorrected_total_energy",
        "licence": "CC BY 4.0",
        "citation": "X. Huang et al., npj Comput. Mater. (2025), s41524-025-01796-y; doi 10.6084/m9.figshare.28245650",
        "label_notice": "DFT labels: MP-r2SCAN, r²SCAN frames of the Materials Project, uncorrected energies",
    },
    "mptrj": {
        "functional": "gga",
        "energy_kind": "mp2020",
        "total": "corrected_total_energy",
        "licence": "CC BY 4.0",
        "citation": "B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023); doi 10.6084/m9.figshare.23713842",
        "label_notice": "DFT labels: MPtrj, GGA/GGA+U frames of the Materials Project with MP2020 corrections",
    },
}


def import_mp_frames(
    file: str | os.PathLike,
    out: str | os.PathLike,
    *,
    kind: str = "mp-r2scan",
    stress_unit: str = "vasp-kbar",
    overwrite: bool = False,
    inspect: Inspect | None = None,
) -> ImportSummary:
    """Import MP-r2SCAN or MPtrj, JSON or gzipped JSON, in bounded memory.

    Parameters
    ----------
    file, out : str or path
        The download, and the dataset folder to make.
    kind : {"mp-r2scan", "mptrj"}
        Which of the two; the layouts are alike but for functional and corrections.
    stress_unit : str
        One of `crossfunc.units.STRESS_UNITS`. Both downloads are in "vasp-kbar".
    overwrite : bool
    inspect : callable, optional
        Given a sample of the frames before anything is put in place; raises to refuse the import.

    Returns
    -------
    ImportSummary

    Raises
    ------
    DatasetError
        A file that is not JSON, ends early, or has another layout; mostly bad rows; what `inspect` raises. The target
        is then as it was before. Single bad rows go to `rejected.parquet`.
    """
    started = time.perf_counter()
    description, file = _KINDS[kind], Path(file)
    _check_layout(file, kind)
    source = ByteSource(file)
    read_row = _reader(description, file.name.removesuffix(".gz"))
    with DatasetWriter(out, overwrite=overwrite) as writer:
        sink = FrameSink(writer, scale={"stress_gpa": gpa_per_unit(stress_unit)})
        sink.read(rows_of(split_json(source, "{{"), read_row))
        meta = {
            "version": source.sha256[:12],
            "licence": description["licence"],
            "citation": description["citation"],
            "provenance": f"imported from {file.name} (sha256 {source.sha256}), stress read as {stress_unit}",
            "functionals": describe_functionals(*_FUNCTIONALS, energy_kinds=_ENERGY_KINDS),
            "label_notice": description["label_notice"],
            "labelled_by": "DFT, VASP",
        }
        return complete_import(sink, meta, source.n_bytes, started, inspect=inspect)


def _check_layout(file: Path, kind: str) -> None:
    """Refuse what is plainly another file before reading gigabytes of it."""
    start = first_bytes(file)
    if start[:1] == b"[":
        raise DatasetError(
            f"{file}: a list; {kind} is an object of materials. MatPES is a list: `crossfunc data import matpes`."
        )
    is_mptrj = b'"corrected_total_energy"' in start
    if is_mptrj and kind == "mp-r2scan":
        raise DatasetError(
            f"{file}: its frames have corrected_total_energy, so this is MPtrj (GGA/GGA+U, MP2020-corrected): "
            "`crossfunc data import mptrj`."
        )
    if kind == "mptrj" and b'"energy_per_atom"' in start and not is_mptrj:
        raise DatasetError(
            f"{file}: its frames have no corrected_total_energy, so this is not MPtrj; for MP-r2SCAN use "
            "`crossfunc data import mp-r2scan`."
        )


def parse_object(piece: Piece) -> dict:
    """Parse one piece of JSON.

    Raises
    ------
    RowError
        Not JSON (NaN is none), not UTF-8, or no object.
    """
    if not piece.is_object:
        raise RowError(f"{piece.text[:40].decode('utf-8', 'backslashreplace')} where a frame (an object) is expected")
    try:
        return orjson.loads(piece.text)
    except orjson.JSONDecodeError as error:
        raise RowError(_json_fault(piece.text, error)) from None


def _json_fault(text: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return "holds bytes that are not UTF-8"
    for word in (b"NaN", b"Infinity"):
        if word in text:
            return f"holds {word.decode()}, which is not JSON and no label"
    return f"is not JSON ({error.msg})"


def _reader(description: dict, source: str):
    functional, energy_kind, total_key = description["functional"], description["energy_kind"], description["total"]

    def read_row(piece: Piece, rows: FrameRows, row: int) -> None:
        frame = parse_object(piece)
        missing = _NEEDED - frame.keys()
        if missing:
            raise RowError(f"{', '.join(sorted(missing))} missing")
        material_id, frame_id = piece.keys
        if frame.get("mp_id", material_id) != material_id:
            raise RowError(f"mp_id is {str(frame['mp_id'])[:40]!r}, but it is filed under another material")
        structure = parse_structure(frame["structure"])
        n_atoms = len(structure[0])
        stated = str(frame.get("functional") or frame.get("run_type") or "").lower()
        if stated and ("scan" in stated) != (functional == "r2scan"):
            raise RowError(f"functional {stated[:20]!r} among frames of {functional}: functionals are mixed")
        energy = checked_number(frame["energy_per_atom"], "energy_per_atom")
        _check_total(energy, frame.get(total_key), n_atoms, total_key)
        magmom = frame.get("magmom")
        if magmom is not None and (not isinstance(magmom, list) or len(magmom) != n_atoms):
            size = f"{len(magmom)} values" if isinstance(magmom, list) else kind_of(magmom)
            raise RowError(f"magmom is {size} where {n_atoms} are expected")
        labels = {
            "forces_ev_per_a": flat_numbers(frame["force"], n_atoms, "force"),
            "stress_gpa": flat_numbers(frame["stress"], 3, "stress"),
            "magmoms_mub": None if magmom is None else checked_numbers(magmom, "magmom"),
        }
        texts = {
            "frame_id": frame_id,
            "material_id": material_id,
            "functional": functional,
            "energy_kind": energy_kind,
            "source": source,
        }
        try:
            rows.append(row, texts, structure, energy, **labels)
        except OverflowError:
            raise RowError("a number is out of range") from None

    return read_row


_NEEDED = {"structure", "energy_per_atom", "force", "stress"}


def _check_total(energy_per_atom_ev: float, total, n_atoms: int, key: str) -> None:
    """Refuse an energy that is not the total over the number of atoms, where the file has the total too."""
    if total is None:
        return
    total = checked_number(total, key)
    if abs(energy_per_atom_ev - total / n_atoms) <= ENERGY_TOLERANCE_EV:
        return
    if n_atoms > 1 and abs(energy_per_atom_ev - total) <= ENERGY_TOLERANCE_EV:
        raise RowError("energy_per_atom is the total energy of the cell; divide it by the number of atoms")
    raise RowError(f"energy_per_atom is not {key} / number of atoms")
