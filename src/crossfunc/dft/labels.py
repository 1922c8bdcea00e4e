"""From the records of a run to the dataset: Pulay-corrected labels, minima, formation energies, free atoms, ledger."""

import json
from collections import defaultdict
from dataclasses import asdict

import numpy as np
import pandas as pd
import pyarrow as pa

from crossfunc.datasets import Dataset, DatasetError, write_dataset
from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.schema import FRAMES, REJECTED_COLUMNS
from crossfunc.dft.engine import pulay_gpa
from crossfunc.dft.equation_of_state import EquationOfState, fit_bond, fit_equation_of_state
from crossfunc.dft.plan import RECIPE, Material, dft_prototypes, materials_of_frames, plan_materials
from crossfunc.dft.settings import (
    ATOM_CONVERGENCE,
    CONVERGENCE,
    CUTOFF_EV,
    CUTOFF_STEP_EV,
    EMPTY_BANDS,
    EMPTY_BANDS_PER_ATOM,
    FUNCTIONALS,
    GRID_SPACING_A,
    K_LENGTH_A,
    METAL_K_LENGTH_A,
    WIDTH_EV,
)
from crossfunc.stability import formation_energy_per_atom_ev
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

__all__ = [
    "LARGEST_NET_FORCE_EV_PER_A",
    "free_atoms",
    "minima_table",
    "read_records",
    "records_table",
    "write_labels",
]

NAME = "pbe-r2scan"
VERSION = "4"
"""Of the labels: goes up when settings or frames change. 1 had sparse and shifted k-point meshes, which left more than
100 meV/Å in rattled semiconductors and perovskites, 2 still sparse ones in insulators of small gaps; 3 lacked E(V) of
four crystals, and graphite."""
LARGEST_NET_FORCE_EV_PER_A = 0.020
"""Forces must add up to zero; a frame whose grid leaves more than this is not shipped."""
LABEL_NOTICE = "density-functional theory: PBE and r²SCAN computed with GPAW by this book"
EOS_KINDS = ("equilibrium", "volume")


def records_table(records: list[dict], failures: list[dict]) -> pa.Table:
    """Return the run's records as one Arrow table, so that they travel with the dataset and a run can go on from it."""
    rows = [_record_row(record) for record in records]
    rows += [
        {**_names(f), **{key: f[key] for key in _INPUT_KEYS}, "settings": _json(f["settings"]),
         "reason": f["reason"]}
        for f in failures
    ]  # fmt: skip
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["frame_id"]), schema=_RECORDS)


def read_records(table: pa.Table) -> tuple[list[dict], list[dict]]:
    """Return records and failures as `records_table` was given them."""
    records, failures = [], []
    for row in table.to_pylist():
        inputs = {**_names(row), **{key: row[key] for key in _INPUT_KEYS}}
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
        ("material_id", pa.string()),
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
    row = {**_names(record), "settings": _json(record["settings"]), "reason": None}
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
        groups[_names(record)["material_id"]].append(record)
    return dict(groups)


def _names(record: dict) -> dict[str, str]:
    """Frame and material of a record; records from before there was a column for it have the plan's material."""
    frame_id = record["frame_id"]
    return {
        "frame_id": frame_id,
        "material_id": record.get("material_id") or materials_of_frames().get(frame_id, frame_id),
    }


def fit_minimum(records: list[dict], name: str) -> EquationOfState:
    """Return the minimum of one functional's E(V) through a crystal's equilibrium and volume frames."""
    frames = [r for r in records if r["kind"] in EOS_KINDS]
    slope = _de_dcutoff(records, name)
    if slope is None:
        raise DatasetError(f"no minimum in {name}: {_NO_EQUILIBRIUM}.")
    volumes = [abs(np.linalg.det(np.reshape(r["lattice_a"], (3, 3)))) for r in frames]
    pressures = [-np.trace(corrected_stress_gpa(r, name, slope)) / 3 for r in frames]
    return fit_equation_of_state(volumes, [r[name]["energy_ev"] for r in frames], pressures)


def free_atoms(dataset: Dataset) -> pd.DataFrame:
    """Return the energies of the isolated atoms that a run has computed, spin-polarised in a box.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    pandas.DataFrame
        Index `element`, in order of atomic number; columns `pbe` and `r2scan`, eV, counted as the energies of the
        dataset's crystals are. No rows where the dataset keeps no record of a free atom.
    """
    table = dataset.records
    found = pd.DataFrame(columns=["frame_id", *FUNCTIONALS]) if table is None else _energies_ev(table)
    found = found[found["frame_id"].str.endswith(_ATOM)].dropna()
    found = found.assign(element=found["frame_id"].str.removesuffix(_ATOM)).set_index("element")
    return found[list(FUNCTIONALS)].astype(float).sort_index(key=lambda symbols: symbols.map(ATOMIC_NUMBERS))


_ATOM = "-atom-00"


def _energies_ev(records: pa.Table) -> pd.DataFrame:
    columns = {f"{name}_energy_ev": name for name in FUNCTIONALS}
    return records.select(["frame_id", *columns]).to_pandas().rename(columns=columns)


def _de_dcutoff(records: list[dict], name: str) -> float | None:
    """The cutoff's slope of a material, measured at its equilibrium frame; None where that frame is missing."""
    return next((r[name]["de_dcutoff"] for r in records if "de_dcutoff" in r[name]), None)


def minima_table(records: list[dict]) -> pd.DataFrame:
    """Return energy, volume and bulk modulus of each material at the minimum of both functionals.

    Parameters
    ----------
    records : list of dict
        Records of a run.

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
    return pd.DataFrame(rows, columns=_MINIMA if rows else None)


_MINIMA = (
    *("material_id", "n_atoms", "functional", "energy_per_atom_ev", "volume_a3", "bulk_modulus_gpa", "residual_mev"),
    *("bond_a", "inside"),
)


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
            return f"net force of {1000 * net:.1f} meV/Å in {name}: more than {1000 * LARGEST_NET_FORCE_EV_PER_A:.0f}"
    return None


def write_labels(
    records: list[dict], failures: list[dict], out, *, engine: dict[str, str], seed: int = 0, overwrite: bool = False
) -> Dataset:
    """Write the dataset of a run: frames in both functionals, pairs at their minima, elements, free atoms, ledger.

    Parameters
    ----------
    records, failures : list of dict
        What a run left; see `crossfunc.dft.run`.
    out : str or path
        Folder to write.
    engine : dict
        Versions, as `check_engine` returns them.
    seed : int
        Seed of the plan.
    overwrite : bool
        Replace a dataset that is there already.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        No frame can be labelled yet, or the folder is in the way.
    """
    crystals, ledger = _labelled(records)
    ledger += [("frames", k, f["frame_id"], f["reason"]) for k, f in enumerate(failures)]
    if not crystals:
        raise DatasetError("no crystal has both its equilibrium frame and labels yet; compute more frames first.")
    minima = minima_table(records)
    elements = _elements(minima, records)
    pairs = _pairs(minima, elements)
    return write_dataset(
        out,
        meta=_meta(records, engine, seed, _extrapolated(minima)),
        frames=pa.Table.from_pylist(crystals, schema=_FRAMES_SCHEMA),
        pairs=None if pairs.empty else pairs,
        elements=None if elements.empty else elements,
        rejected=pd.DataFrame(ledger, columns=REJECTED_COLUMNS),
        records=records_table(records, failures),
        overwrite=overwrite,
    )


_FRAMES_SCHEMA = pa.schema([column.field for column in FRAMES] + [pa.field("net_force_ev_per_a", pa.float64())])


def _labelled(records: list[dict]) -> tuple[list[dict], list[tuple]]:
    """Rows of the frames table, and of the ledger; molecules and atoms in boxes are no frames."""
    materials = {m.material_id: m for m in plan_materials()}
    rows: list[dict] = []
    ledger: list[tuple] = []
    for material_id, frames in by_material(records).items():
        material = materials.get(material_id)
        if material is None or material.binding == "molecule":
            continue
        measured = {name: _de_dcutoff(frames, name) for name in FUNCTIONALS}
        slopes = {name: slope for name, slope in measured.items() if slope is not None}
        for record in frames:
            reason = rejection(record) if len(slopes) == len(measured) else _NO_EQUILIBRIUM
            if reason:
                ledger.append(("frames", len(ledger), record["frame_id"], reason))
            else:
                rows += [_frame_row(record, name, material, slope) for name, slope in slopes.items()]
    return rows, ledger


_NO_EQUILIBRIUM = "its material has no equilibrium frame, so the Pulay part of its stress is not known"


def _frame_row(record: dict, name: str, material: Material, de_dcutoff: float) -> dict:
    n_atoms = len(record["atomic_numbers"])
    return {
        "frame_id": f"{record['frame_id']}/{name}",
        "material_id": material.material_id,
        "functional": name,
        "energy_kind": "raw",
        "atomic_numbers": record["atomic_numbers"],
        "lattice_a": record["lattice_a"],
        "frac_coords": record["frac_coords"],
        "energy_per_atom_ev": round(record[name]["energy_ev"] / n_atoms, 7),
        "forces_ev_per_a": (np.round(record[name]["forces_ev_per_a"], 5) + 0.0).tolist(),
        "stress_gpa": (np.round(corrected_stress_gpa(record, name, de_dcutoff), 4) + 0.0).ravel().tolist(),
        "magmoms_mub": None,  # not spin-polarised: there is no moment that could be a label
        "source": record["kind"],
        "net_force_ev_per_a": record[name]["net_force_ev_per_a"],
    }


def _elements(minima: pd.DataFrame, records: list[dict]) -> pd.DataFrame:
    """Lowest elemental crystal or molecule of each element and functional, and the free atom where it is computed."""
    if minima.empty:
        return pd.DataFrame()
    materials = {m.material_id: m for m in plan_materials()}
    alone = minima[[len(materials[i].elements) == 1 for i in minima["material_id"]]]
    alone = alone.assign(element=[materials[i].elements[0] for i in alone["material_id"]])
    lowest = alone.loc[alone.groupby(["element", "functional"])["energy_per_atom_ev"].idxmin()]
    atoms = {
        (ELEMENT_SYMBOLS[r["atomic_numbers"][0] - 1], name): r[name]["energy_ev"]
        for r in records if _names(r)["material_id"].endswith("-atom") for name in FUNCTIONALS
    }  # fmt: skip
    table = pd.DataFrame(
        {
            "element": lowest["element"],
            "functional": lowest["functional"],
            "energy_kind": "raw",
            "energy_per_atom_ev": lowest["energy_per_atom_ev"].round(7),
            "structure_type": [materials[i].prototype for i in lowest["material_id"]],
            "free_atom_energy_ev": [
                atoms.get(key, np.nan) for key in zip(lowest["element"], lowest["functional"], strict=True)
            ],
        }
    )
    order = table["element"].map(ATOMIC_NUMBERS)
    return table.assign(z=order).sort_values(["functional", "z"]).drop(columns="z").reset_index(drop=True)


def _pairs(minima: pd.DataFrame, elements: pd.DataFrame) -> pd.DataFrame:
    """Both functionals' minima of each material, with formation energies where all its elements have a reference."""
    if minima.empty:
        return pd.DataFrame()
    materials = {m.material_id: m for m in plan_materials()}
    ground = elements.set_index(["functional", "element"])["energy_per_atom_ev"]
    known = {name: ground[ground.index.get_level_values(0) == name].droplevel(0).to_dict() for name in FUNCTIONALS}
    rows = []
    for material_id, both in minima.groupby("material_id", sort=False):
        counts = _composition(materials[material_id])
        entry = {
            "material_id": material_id,
            "composition": "".join(f"{e}{n if n > 1 else ''}" for e, n in counts.items()),
            "n_atoms": int(both["n_atoms"].iloc[0]),
            "prototype": materials[material_id].prototype,
        }
        for side, name in SIDES_OF.items():
            row = both[both["functional"] == name].iloc[0]
            entry[f"{side}_energy_per_atom_ev"] = round(float(row["energy_per_atom_ev"]), 7)
            (formation,) = formation_energy_per_atom_ev(
                [entry["composition"]], [row["energy_per_atom_ev"]], known[name], missing="nan"
            )
            entry[f"{side}_formation_energy_per_atom_ev"] = round(float(formation), 7)
            entry[f"{side}_volume_a3_per_atom"] = float(row["volume_a3"]) / entry["n_atoms"]
            entry[f"{side}_bulk_modulus_gpa"] = float(row["bulk_modulus_gpa"])
        rows.append(entry)
    return pd.DataFrame(rows)


SIDES_OF = {"low": "pbe", "high": "r2scan"}


def _composition(material: Material) -> dict[str, int]:
    if material.binding == "molecule":
        return {material.elements[0]: 1}
    return dict(zip(material.elements, dft_prototypes()[material.prototype].formula, strict=True))


def _extrapolated(minima: pd.DataFrame) -> list[str]:
    """Minima that lie outside the volumes they were fitted to: "Cs-bcc in PBE"."""
    if minima.empty:
        return []
    out = minima[~minima["inside"].astype(bool)]
    return [f"{row.material_id} in {IN_PROSE[row.functional]}" for row in out.itertuples()]


IN_PROSE = {"pbe": "PBE", "r2scan": "r²SCAN"}
"""What people call the functionals."""


def _meta(records: list[dict], engine: dict[str, str], seed: int, extrapolated: list[str]) -> dict:
    return {
        "name": NAME,
        "version": VERSION,
        "licence": (
            "CC-BY-4.0 (crossfunc). Computed with GPAW (GPL-3.0-or-later) and its PAW datasets gpaw-data "
            "(GPL-3.0-or-later): numbers that a program computes are not a work derived from it, and no part of either "
            "is included"
        ),
        "citation": "crossfunc, dataset pbe-r2scan; GPAW: J. J. Mortensen et al., J. Chem. Phys. 160, 092503 (2024)",
        "provenance": (
            f"made by `crossfunc data make-dft` with seed {seed}: {len(records)} structures of the plan, each in PBE "
            "and in r²SCAN; pairs and elements at the minimum of E(V) through three volumes at fixed shape "
            "(molecules: of the energy against bond length)"
        ),
        "functionals": describe_functionals(IN_PROSE["pbe"], IN_PROSE["r2scan"], keys=("pbe", "r2scan")),
        "label_notice": LABEL_NOTICE,
        "labelled_by": "DFT, GPAW",
        "differs_from_paper": (
            "there VASP, thousands of magnetic and large cells, GGA+U; here GPAW, closed shells, 1 to 12 atoms, no +U"
        ),
        "generator": {
            "seed": seed,
            "engine": engine,
            "cutoff_ev": {"with B, C, N, O, F": CUTOFF_EV[True], "others": CUTOFF_EV[False]},
            "grid_spacing_a": {"with B, C, N, O, F": GRID_SPACING_A[True], "others": GRID_SPACING_A[False]},
            "k_length_a": {
                **K_LENGTH_A,
                **{f"metal, atoms per cell: {n}": length for n, length in METAL_K_LENGTH_A.items()},
                **{m.material_id: m.k_length_a for m in plan_materials() if m.k_length_a},
            },
            "width_ev": WIDTH_EV,
            "empty_bands_of_metals": {"per cell": EMPTY_BANDS, "per atom": EMPTY_BANDS_PER_ATOM},
            "convergence": CONVERGENCE,
            "convergence_of_free_atoms": ATOM_CONVERGENCE,
            "cutoff_step_ev": CUTOFF_STEP_EV,
            "largest_net_force_ev_per_a": LARGEST_NET_FORCE_EV_PER_A,
            "minima_outside_the_volumes": extrapolated,
            "recipe": [asdict(step) for step in RECIPE],
        },
    }
