"""A thermo document of the Materials Project, reduced to what the tables need; and the tables made of many."""

import math
from collections import defaultdict
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from crossfunc.datasets.schema import FRAMES, REJECTED_COLUMNS
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

THERMO_TYPES = {"gga": ("GGA_GGA+U",), "r2scan": ("R2SCAN", "r2SCAN")}
"""What a document of each functional may be called; the first is what to ask for."""
ENERGY_KIND = {"gga": "mp2020", "r2scan": "raw"}
TOLERANCE_EV_PER_ATOM = 1e-4
"""Two statements of one energy in a document agree within rounding."""
_LICENCES = {"BY-C": "CC-BY-4.0", "BY-NC": "CC-BY-NC-4.0"}


@dataclass(frozen=True)
class Document:
    """One material in one functional; `reason` says why it cannot be used, and is empty when it can.

    `energy_per_atom_ev` is as labelled (GGA/GGA+U with MP2020 corrections, r²SCAN without any), `raw_` without.
    """

    material_id: str
    functional: str
    reason: str = ""
    energy_per_atom_ev: float = math.nan
    raw_energy_per_atom_ev: float = math.nan
    formation_energy_per_atom_ev: float | None = None
    atomic_numbers: list[int] = field(default_factory=list)
    lattice_a: list[float] = field(default_factory=list)
    frac_coords: list[float] = field(default_factory=list)
    magmoms_mub: list[float] | None = None
    source: str = ""
    licence: str = "CC-BY-4.0"

    def to_dict(self) -> dict:
        """Return plain values that JSON can hold."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value == value}  # NaN is the default, and no JSON

    @property
    def n_atoms(self) -> int:
        """Atoms in the cell."""
        return len(self.atomic_numbers)

    @property
    def counts(self) -> dict[int, int]:
        """Atoms of each atomic number in the cell, lightest first."""
        numbers, counts = np.unique(self.atomic_numbers, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    @property
    def reduced(self) -> dict[int, int]:
        """`counts` divided by their greatest common divisor."""
        divisor = math.gcd(*self.counts.values())
        return {z: n // divisor for z, n in self.counts.items()}


def read_document(document: dict, functional: str) -> Document:
    """Return a thermo document as it came from the server, reduced and checked; never raises for what it holds."""
    material_id = str(document.get("material_id"))
    try:
        return _read(document, material_id, functional)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"document not as documented ({type(error).__name__}: {str(error)[:80]})"
        return Document(material_id=material_id, functional=functional, reason=reason)


def _read(document: dict, material_id: str, functional: str) -> Document:
    def refuse(reason: str) -> Document:
        return Document(material_id=material_id, functional=functional, reason=reason)

    if document["thermo_type"] not in THERMO_TYPES[functional]:
        return refuse(f"thermo type {document['thermo_type']} where {THERMO_TYPES[functional][0]} was asked for")
    entries = document["entries"]
    if document["energy_type"] not in entries:
        return refuse(f"no entry of its energy type {document['energy_type']}")
    entry = entries[document["energy_type"]]
    energy, raw = float(document["energy_per_atom"]), float(document["uncorrected_energy_per_atom"])
    formation = document.get("formation_energy_per_atom")
    structure = _read_structure(entry["structure"])
    stated = float(entry["energy"]) / len(structure["atomic_numbers"])
    if not abs(stated - raw) <= TOLERANCE_EV_PER_ATOM:
        return refuse(f"its entry says {stated:.5f} eV/atom without corrections, the document {raw:.5f}")
    if ENERGY_KIND[functional] == "raw" and not abs(energy - raw) <= TOLERANCE_EV_PER_ATOM:
        return refuse(f"a correction of {energy - raw:.5f} eV/atom, where r²SCAN energies carry none")
    meta = document.get("builder_meta") or {}
    return Document(
        material_id=material_id,
        functional=functional,
        energy_per_atom_ev=energy,
        raw_energy_per_atom_ev=raw,
        formation_energy_per_atom_ev=None if formation is None else float(formation),
        **structure,
        source=f"materials-project {entry.get('entry_id') or material_id}",
        licence=_LICENCES.get(meta.get("license") or "BY-C", str(meta.get("license"))),
    )


def _read_structure(structure: dict) -> dict:
    """Return a pymatgen structure dictionary as flat lists; refuses mixed sites."""
    numbers, coords, magmoms = [], [], []
    for site in structure["sites"]:
        (species,) = site["species"]
        if species.get("occu", 1) != 1:
            raise ValueError("a site that is not fully occupied")
        numbers.append(ATOMIC_NUMBERS[str(species["element"])])
        coords += [float(x) for x in site["abc"]]
        magmoms.append((site.get("properties") or {}).get("magmom"))
    lattice = [float(x) for row in structure["lattice"]["matrix"] for x in row]
    known = [m for m in magmoms if isinstance(m, int | float)]
    return {
        "atomic_numbers": numbers,
        "lattice_a": lattice,
        "frac_coords": coords,
        "magmoms_mub": [float(m) for m in known] if len(known) == len(magmoms) else None,
    }


def build_tables(documents: list[Document]) -> dict:
    """Return `pairs`, `frames`, `elements` and `rejected` of all documents, in the order of the materials.

    Pairs are materials with usable documents in both functionals and the same composition; the others are in the
    ledger with their reasons. The r²SCAN formation energies are the documents' own, relative to r²SCAN elements.
    """
    good = [d for d in documents if not d.reason]
    rejected = [("frames", k, f"{d.material_id}/{d.functional}", d.reason) for k, d in enumerate(documents) if d.reason]
    by_material: dict[str, dict[str, Document]] = defaultdict(dict)
    for document in good:
        by_material[document.material_id][document.functional] = document
    rows = []
    for k, (material_id, found) in enumerate(by_material.items()):
        reason = _why_no_pair(found)
        if reason:
            rejected.append(("pairs", k, material_id, reason))
        else:
            rows.append(_pair(found["gga"], found["r2scan"]))
    elements = _ground_states(good)
    return {
        "pairs": pd.DataFrame(rows) if rows else None,
        "frames": _frames(good) if good else None,
        "elements": elements if len(elements) else None,
        "rejected": pd.DataFrame(rejected, columns=REJECTED_COLUMNS),
    }


def _why_no_pair(found: dict[str, Document]) -> str:
    lacking = [name for name in THERMO_TYPES if name not in found]
    if lacking:
        return f"no usable {lacking[0]} document"
    if found["gga"].reduced != found["r2scan"].reduced:
        return "another composition in r²SCAN than in GGA/GGA+U"
    return ""


def _pair(gga: Document, r2scan: Document) -> dict:
    correction = gga.energy_per_atom_ev - gga.raw_energy_per_atom_ev
    formation = gga.formation_energy_per_atom_ev
    return {
        "material_id": gga.material_id,
        "composition": _formula(gga.counts),
        "n_atoms": gga.n_atoms,
        "low_energy_per_atom_ev": gga.energy_per_atom_ev,
        "high_energy_per_atom_ev": r2scan.energy_per_atom_ev,
        "low_formation_energy_per_atom_ev": _number(formation),
        "high_formation_energy_per_atom_ev": _number(r2scan.formation_energy_per_atom_ev),
        "low_uncorrected_energy_per_atom_ev": gga.raw_energy_per_atom_ev,
        # MP2020 corrects compounds only, so the elements' energies are the same with and without.
        "low_uncorrected_formation_energy_per_atom_ev": _number(formation) - correction,
        "formula": _formula(gga.reduced, ones=False),
        "licence": max(gga.licence, r2scan.licence, key=len),
    }


def _frames(documents: list[Document]) -> pa.Table:
    values = {
        "frame_id": [f"{d.material_id}/{d.functional}" for d in documents],
        "material_id": [d.material_id for d in documents],
        "functional": [d.functional for d in documents],
        "energy_kind": [ENERGY_KIND[d.functional] for d in documents],
        "atomic_numbers": [d.atomic_numbers for d in documents],
        "lattice_a": [d.lattice_a if len(d.lattice_a) == 9 else None for d in documents],
        "frac_coords": [d.frac_coords for d in documents],
        "energy_per_atom_ev": [d.energy_per_atom_ev for d in documents],
        "forces_ev_per_a": [None] * len(documents),
        "stress_gpa": [None] * len(documents),
        "magmoms_mub": [d.magmoms_mub for d in documents],
        "source": [d.source for d in documents],
    }
    table = pa.table(values, schema=pa.schema([column.field for column in FRAMES]))
    return table.append_column("licence", pa.array([d.licence for d in documents], pa.string()))


def _ground_states(documents: list[Document]) -> pd.DataFrame:
    """Return the lowest energy of each element in each functional, as labelled there."""
    lowest: dict[tuple[int, str], float] = {}
    for d in documents:
        if len(d.counts) == 1:
            key = (d.atomic_numbers[0], d.functional)
            lowest[key] = min(d.energy_per_atom_ev, lowest.get(key, math.inf))
    rows = [
        {
            "element": ELEMENT_SYMBOLS[z - 1],
            "functional": functional,
            "energy_kind": ENERGY_KIND[functional],
            "energy_per_atom_ev": energy,
        }
        for (z, functional), energy in sorted(lowest.items())
    ]
    return pd.DataFrame(rows, columns=["element", "functional", "energy_kind", "energy_per_atom_ev"])


def _formula(counts: dict[int, int], *, ones: bool = True) -> str:
    return "".join(f"{ELEMENT_SYMBOLS[z - 1]}{n if n > 1 or ones else ''}" for z, n in counts.items())


def _number(value: float | None) -> float:
    return np.nan if value is None else value
