"""From the records of a run to the dataset: Pulay-corrected labels, minima, formation energies, free atoms, ledger."""

import json
from collections import defaultdict

import numpy as np
import pandas as pd
import pyarrow as pa

from crossfunc.dft.engine import FUNCTIONALS, pulay_gpa
from crossfunc.dft.equation_of_state import EquationOfState, fit_bond, fit_equation_of_state
from crossfunc.dft.plan import Material, plan_materials

__all__ = ["LARGEST_NET_FORCE_EV_PER_A", "minima_table", "read_records", "records_table"]

NAME = "pbe-r2scan"
LARGEST_NET_FORCE_EV_PER_A = 0.020
"""Forces must add up to zero; a frame whose grid leaves more than this is not shipped."""
LABEL_NOTICE = "density-functional theory: PBE and r²SCAN computed with GPAW by this book"
EOS_KINDS = ("equilibrium", "volume")


def records_table(records: list[dict], failures: list[dict]) -> pa.Table:
    """Return the run's records as one Arrow table, so that they travel with the dataset and a run can go on from it."""
    rows = [_record_row(record) for record in records]
    rows += [
        {"frame_id": f["frame_id"], **{key: f[key] for key in _INPUT_KEYS}, "settings": _json(f["settings"]),
         "reason": f["reason"]}
        for f in failures
    ]  # fmt: skip
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["frame_id"]), schema=_RECORDS)


def read_records(table: pa.Table) -> tuple[list[dict], list[dict]]:
    """Return records and failures as `records_table` was given them."""
    records, failures = [], []
    for row in table.to_pylist():
        inputs = {"frame_id": row["frame_id"], **{key: row[key] for key in _INPUT_KEYS}}
        inputs["settings"] = json.loads(row["settings"])
        if row["reason"]:
            failures.append({**inputs, "reason": row["reason"]})
            continue
        labels = {
            name: {key: row[f"{name}_{key}"] for key in _LABEL_TYPES if row[f"{name}_{key}"] is not None
                   or key == "raw_stress_gpa"}
            for name in FUNCTIONALS
        }  # fmt: skip
        records.append({**inputs, **labels, **{key: row[key] for key in _COST_KEYS}})
    return records, failures


_LABEL_TYPES = {
    "energy_ev": pa.float64(),
    "free_energy_ev": pa.float64(),
    "forces_ev_per_a": pa.list_(pa.float64()),
    "raw_stress_gpa": pa.list_(pa.float64()),
    "net_force_ev_per_a": pa.float64(),
    "iterations": pa.int32(),
    "k_points": pa.int32(),
    "cpu_s": pa.float64(),
    "de_dcutoff": pa.float64(),
    "cutoff_cpu_s": pa.float64(),
}
_INPUT_KEYS = ("atomic_numbers", "frac_coords", "lattice_a", "kind")
_COST_KEYS = ("peak_memory_gb", "wall_s")
_RECORDS = pa.schema(
    [
        ("frame_id", pa.string()),
        ("atomic_numbers", pa.list_(pa.int16())),
        ("frac_coords", pa.list_(pa.float64())),
        ("lattice_a", pa.list_(pa.float64())),
        ("kind", pa.string()),
        ("settings", pa.string()),
        *((f"{name}_{key}", dtype) for name in FUNCTIONALS for key, dtype in _LABEL_TYPES.items()),
        *((key, pa.float64()) for key in _COST_KEYS),
        ("reason", pa.string()),
    ]
)


def _record_row(record: dict) -> dict:
    row = {"frame_id": record["frame_id"], "settings": _json(record["settings"]), "reason": None}
    row |= {key: record[key] for key in (*_INPUT_KEYS, *_COST_KEYS)}
    for name in FUNCTIONALS:
        row |= {f"{name}_{key}": record[name].get(key) for key in _LABEL_TYPES}
    return row


def _json(settings: dict) -> str:
    return json.dumps(settings, sort_keys=True)


def corrected_stress_gpa(record: dict, name: str, de_dcutoff: float) -> np.ndarray:
    """Return a record's stress with the Pulay term of its material; 3x3, GPA, tension positive."""
    volume_a3 = abs(np.linalg.det(np.reshape(record["lattice_a"], (3, 3))))
    stress = np.reshape(record[name]["raw_stress_gpa"], (3, 3)).astype(float)
    return stress + np.eye(3) * pulay_gpa(de_dcutoff, record["settings"]["cutoff_ev"], volume_a3)


def by_material(records: list[dict]) -> dict[str, list[dict]]:
    """Group records by material, each in the order of the recipe."""
    groups = defaultdict(list)
    for record in sorted(records, key=lambda r: r["frame_id"]):
        groups[record["frame_id"].rsplit("-", 1)[0]].append(record)
    return dict(groups)


def fit_minimum(records: list[dict], name: str) -> EquationOfState:
    """Return the minimum of one functional's E(V) through a crystal's equilibrium and volume frames."""
    frames = [r for r in records if r["kind"] in EOS_KINDS]
    slope = _de_dcutoff(records, name)
    volumes = [abs(np.linalg.det(np.reshape(r["lattice_a"], (3, 3)))) for r in frames]
    pressures = [-np.trace(corrected_stress_gpa(r, name, slope)) / 3 for r in frames]
    return fit_equation_of_state(volumes, [r[name]["energy_ev"] for r in frames], pressures)


def _de_dcutoff(records: list[dict], name: str) -> float | None:
    """The cutoff's slope of a material, measured at its equilibrium frame; None where that frame is missing."""
    return next((r[name]["de_dcutoff"] for r in records if "de_dcutoff" in r[name]), None)


def minima_table(records: list[dict]) -> pd.DataFrame:
    """Return energy, volume and bulk modulus of each material at the minimum of both functionals.

    Parameters
    ----------
    records : list of dict
        Of a run.

    Returns
    -------
    pandas.DataFrame
        `material_id, elements, n_atoms, functional, energy_per_atom_ev, volume_a3, bulk_modulus_gpa, residual_mev,
        inside`; of molecules `volume_a3` is null and `bond_a` the bond length. Materials with too few frames are left
        out.
    """
    groups, rows = by_material(records), []
    for material in plan_materials():
        frames = groups.get(material.material_id, [])
        for name in FUNCTIONALS:
            minimum = _minimum(frames, name, material)
            if minimum:
                n_atoms = len(frames[0]["atomic_numbers"])
                rows.append({"material_id": material.material_id, "n_atoms": n_atoms, "functional": name, **minimum})
    return pd.DataFrame(rows)


def _minimum(frames: list[dict], name: str, material: Material) -> dict | None:
    usable = [f for f in frames if f["kind"] in EOS_KINDS]
    n_atoms = len(frames[0]["atomic_numbers"]) if frames else 0
    if material.binding == "molecule":
        if len(usable) < 4:
            return None
        lengths = [_bond_a(f) for f in usable]
        bond_a, energy = fit_bond(lengths, [f[name]["energy_ev"] for f in usable])
        return {"energy_per_atom_ev": energy / n_atoms, "bond_a": bond_a, "inside": True}
    if len(usable) < 3 or _de_dcutoff(frames, name) is None:
        return None
    fit = fit_minimum(frames, name)
    return {
        "energy_per_atom_ev": fit.energy_ev / n_atoms,
        "volume_a3": fit.volume_a3,
        "bulk_modulus_gpa": fit.bulk_modulus_gpa,
        "residual_mev": 1000 * fit.largest_residual_ev / n_atoms,
        "inside": fit.inside,
    }


def _bond_a(record: dict) -> float:
    a, b = np.reshape(record["frac_coords"], (2, 3)) @ np.reshape(record["lattice_a"], (3, 3))
    return float(np.linalg.norm(a - b))


def rejection(record: dict) -> str | None:
    """Return why a frame's labels are not shipped, or None."""
    for name in FUNCTIONALS:
        net = record[name]["net_force_ev_per_a"]
        if net > LARGEST_NET_FORCE_EV_PER_A:
            return f"net force of {1000 * net:.0f} meV/Å in {name}: more than {1000 * LARGEST_NET_FORCE_EV_PER_A:.0f}"
    return None
