"""Make the embedded dataset: build, relax with both labellers, check, label, write."""

import contextlib
import hashlib
import json
import os
import shutil
import zlib
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from crossfunc.datasets import Dataset
from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.schema import FRAMES, REJECTED_COLUMNS
from crossfunc.datasets.store import check_target, target_folder
from crossfunc.files import locked_folder, remove_drafts, write_atomically
from crossfunc.surrogate.formation import with_formation_energies
from crossfunc.surrogate.plan import DENSE_ELEMENTS, N_DENSE, N_WIDE, Material, plan_materials
from crossfunc.surrogate.prototypes import build_crystal, closest_contact, contact_range, prototypes
from crossfunc.surrogate.twins import write_without_twins
from crossfunc.symbols import ATOMIC_NUMBERS

NAME = "surrogate"
LABELLERS = {"gga": "0.3.0", "r2scan": "r2scan"}
ENERGY_KIND = {"gga": "mp2020", "r2scan": "raw"}  # CHGNet 0.3.0 was trained on MP2020-corrected energies
LABEL_NOTICE = "surrogate labels: predicted by published CHGNet checkpoints, not DFT"

FMAX_EV_PER_A = 0.05
MAX_STEPS = 300
CHUNK = 50
CLOSEST_CONTACT = 0.6  # of the sum of covalent radii
LARGEST_GAP = 1.9  # an atom farther than this from everything has left its crystal
VOLUME_RATIO = 1.3  # beyond it the two labellers found different structures
HIGHEST_FORMATION_EV_PER_ATOM = 1.0
STRAIN, RATTLE_A = 0.03, 0.06
PATH_STRAIN, PATH_RATTLE_A = 0.05, 0.10
PATH_STEPS = (3, 7)
SMALL_CELL = 3  # displacing the atoms of smaller cells would leave most forces zero by symmetry


def make_surrogate(
    out: str | os.PathLike,
    *,
    seed: int = 0,
    n_limit: int | None = None,
    n_jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Generate the embedded dataset from its seed and write it as a dataset folder.

    Parameters
    ----------
    out : str or path
        Folder to write. Finished chunks are kept beside it until the end, so a killed run goes on where it stopped.
    seed : int
        Drives the choice of materials and every displacement.
    n_limit : int, optional
        Make only this many compounds, beside the elemental crystals that they need (for trying things out).
    n_jobs : int
        Worker processes.
    overwrite : bool
        Replace an existing dataset.
    progress : bool
        Show a bar.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        The folder exists and `overwrite` is not set, or is no dataset.
    FolderInUse
        Another process makes the same dataset.

    Notes
    -----
    The labels are predictions of two published CHGNet checkpoints, not DFT: see the datasheet page of the book.
    """
    out = target_folder(out)
    check_target(out, overwrite)  # now, not after half an hour
    plan = plan_materials(seed=seed)
    if n_limit is not None:
        plan = _small_plan(plan, n_limit)
    chunks = [plan[k : k + CHUNK] for k in range(0, len(plan), CHUNK)]
    parts = out.with_name(f".{out.name}-parts-{_plan_hash(plan, seed)}")
    with locked_folder(parts):
        remove_drafts(parts)
        records = _run_chunks(chunks, parts, seed, n_jobs, progress)
        dataset = _write(out, records, seed=seed, overwrite=overwrite)
        shutil.rmtree(parts, ignore_errors=True)
    return dataset


def label_materials(materials: list[Material], seed: int = 0) -> list[dict]:
    """Build, relax and label some materials; each record depends on its material and the seed alone.

    Parameters
    ----------
    materials : list of Material
    seed : int

    Returns
    -------
    list of dict
        `material`, and either `reason` (why it is rejected) or `energies` (functional to eV/atom), `structures` and
        `frames`.
    """
    from crossfunc.potential import Crystals
    from crossfunc.stability import Relaxation, relax

    start = Crystals.from_arrays(build_crystal(m.prototype, m.elements) for m in materials)
    relaxed: dict[str, Relaxation] = {}
    for functional in ("gga", "r2scan"):
        # The second labeller starts where the first one ended: nearer, and in the same basin.
        start = relaxed["gga"].crystals if relaxed else start
        relaxed[functional] = relax(_model(functional), start, fmax=FMAX_EV_PER_A, max_steps=MAX_STEPS)
    geometry = {functional: _triples(r.crystals) for functional, r in relaxed.items()}
    records: list[dict] = []
    for k, material in enumerate(materials):
        cells = {functional: geometry[functional][k] for functional in relaxed}
        status = {functional: r.status[k] for functional, r in relaxed.items()}
        reason = _why_reject(status, cells)
        records.append({"material": asdict(material), "reason": reason, "structures": cells})
    accepted = [r for r in records if not r["reason"]]
    _add_energies(accepted)
    _add_frames([r for r in accepted if r["material"]["tier"] == "dense"], seed)
    return records


@cache
def _model(functional: str):
    from crossfunc.potential import load_model

    # In float32 the energy of some crystals changed by over 1e-4 eV/atom with what else was in the batch.
    return load_model(LABELLERS[functional]).double()


def _small_plan(plan: list[Material], n: int) -> list[Material]:
    """A spread of n compounds, and the elemental crystals that their formation energies need."""
    compounds = [m for m in plan if len(m.elements) > 1]
    chosen = compounds[:: max(1, len(compounds) // n)][:n]
    needed = {e for m in chosen for e in m.elements}
    return [m for m in plan if len(m.elements) == 1 and m.elements[0] in needed] + chosen


def _plan_hash(plan: list[Material], seed: int) -> str:
    settings = [FMAX_EV_PER_A, MAX_STEPS, STRAIN, RATTLE_A, PATH_STRAIN, PATH_RATTLE_A, PATH_STEPS, seed]
    text = json.dumps([settings, [m.material_id for m in plan]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _run_chunks(chunks: list[list[Material]], parts: Path, seed: int, n_jobs: int, progress: bool) -> list[dict]:
    from joblib import Parallel, delayed
    from tqdm import tqdm

    jobs = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_run_chunk)(chunk, parts.absolute() / f"{k:04d}.json", seed) for k, chunk in enumerate(chunks)
    )
    done = list(tqdm(jobs, total=len(chunks), desc="relax and label", disable=not progress))
    return [record for chunk in done for record in chunk]


def _run_chunk(materials: list[Material], part: Path, seed: int) -> list[dict]:
    import torch

    with contextlib.suppress(OSError, ValueError):  # not there, or damaged: made below
        return json.loads(part.read_text(encoding="utf-8"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads add up in any order, and one process per core is faster
    try:
        records = label_materials(materials, seed)
    finally:
        torch.set_num_threads(threads)
    write_atomically(part, json.dumps(records))
    return records


def _triples(crystals) -> list[tuple]:
    """Geometry rounded as it will be stored, so that labels belong to exactly what a reader gets."""
    atoms = zip(crystals.split(crystals.atomic_numbers), crystals.split(crystals.frac_coords), strict=True)
    return [
        (numbers.tolist(), _round_frac(coords).tolist(), np.round(lattice, 6).tolist())
        for lattice, (numbers, coords) in zip(crystals.lattices_a, atoms, strict=True)
    ]


def _round_frac(coords: np.ndarray) -> np.ndarray:
    return np.round(coords - np.floor(np.round(coords, 6)), 6) + 0.0


def _why_reject(status: dict[str, str], cells: dict[str, tuple]) -> str:
    for functional, word in status.items():
        if word != "converged":
            return f"relaxation with {LABELLERS[functional]}: {word}"
    volumes = {}
    for functional, (numbers, coords, lattice) in cells.items():
        nearest, gap = contact_range(np.array(numbers), np.array(coords), np.array(lattice), LARGEST_GAP)
        if nearest < CLOSEST_CONTACT:
            return f"two atoms at {nearest:.2f} of the sum of covalent radii ({functional})"
        if gap > LARGEST_GAP:
            return f"an atom is {gap:.1f} sums of covalent radii away from all others ({functional})"
        volumes[functional] = abs(np.linalg.det(lattice))
    ratio = max(volumes.values()) / min(volumes.values())
    return f"the two relaxed volumes differ {ratio:.2f}-fold" if ratio > VOLUME_RATIO else ""


def _predict(functional: str, triples: list[tuple], *, derivatives: bool = False) -> dict:
    from crossfunc.potential import Crystals, predict

    return predict(_model(functional), Crystals.from_arrays(triples), derivatives=derivatives)


def _add_energies(records: list[dict]) -> None:
    for record in records:
        record["energies"] = {}
    for functional in LABELLERS:
        if records:
            energies = _predict(functional, [r["structures"][functional] for r in records])["energy_per_atom_ev"]
            for record, energy in zip(records, energies, strict=True):
                record["energies"][functional] = round(float(energy), 6)


def _add_frames(records: list[dict], seed: int) -> None:
    """Frames off and along the r2SCAN relaxation path, with both labels."""
    if not records:
        return
    frames = [(record, source, cell) for record in records for source, cell in _displaced(record, seed)]
    frames += _path_frames([f for f in frames if f[1] == "path-0"])
    frames += [(record, "relaxed", record["structures"]["r2scan"]) for record in records]
    triples = [cell for _, _, cell in frames]
    r2scan, gga = _predict("r2scan", triples, derivatives=True), _predict("gga", triples)
    for record in records:
        record["frames"] = []
    for k, (record, source, cell) in enumerate(frames):
        record["frames"].append(
            {
                "source": source,
                "structure": cell,
                "gga_energy": round(float(gga["energy_per_atom_ev"][k]), 6),
                "r2scan_energy": round(float(r2scan["energy_per_atom_ev"][k]), 6),
                "forces": (np.round(r2scan["forces_ev_per_a"][k], 5) + 0.0).ravel().tolist(),
                "stress": (np.round(r2scan["stress_gpa"][k], 4) + 0.0).ravel().tolist(),
                "magmoms": np.round(r2scan["magmoms_mub"][k], 4).tolist(),
            }
        )


def _displaced(record: dict, seed: int) -> list[tuple[str, tuple]]:
    name = Material(**record["material"]).material_id
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    relaxed = record["structures"]["r2scan"]
    return [
        ("strained", _displace(relaxed, rng, STRAIN, 0.0)),
        ("rattled", _displace(_enlarge(relaxed), rng, 0.0, RATTLE_A)),
        ("path-0", _displace(_enlarge(relaxed), rng, PATH_STRAIN, PATH_RATTLE_A)),
    ]


def _enlarge(cell: tuple) -> tuple:
    """Double small cells along their shortest vector."""
    numbers, coords, lattice = (np.array(part) for part in cell)
    if len(numbers) > SMALL_CELL:
        return cell
    axis = int(np.argmin(np.linalg.norm(lattice, axis=1)))
    lattice[axis] *= 2
    coords[:, axis] /= 2
    second = coords.copy()
    second[:, axis] += 0.5
    return np.tile(numbers, 2).tolist(), np.vstack([coords, second]).tolist(), lattice.tolist()


def _displace(cell: tuple, rng: np.random.Generator, strain: float, rattle_a: float) -> tuple:
    """Apply a random symmetric strain and random displacements, smaller ones where atoms would come too close."""
    numbers, coords, lattice = (np.array(part) for part in cell)
    random_strain = rng.normal(0, 1, (3, 3))
    shifts = rng.normal(0, 1, coords.shape)
    for damping in (1.0, 0.7, 0.5, 0.3, 0.1):
        new_lattice = np.round(lattice @ (np.eye(3) + damping * strain * (random_strain + random_strain.T) / 2), 6)
        moved = _round_frac(coords + damping * rattle_a * shifts @ np.linalg.inv(new_lattice))
        if closest_contact(numbers, moved, new_lattice) > CLOSEST_CONTACT:
            return numbers.tolist(), moved.tolist(), new_lattice.tolist()
    return cell


def _path_frames(starts: list[tuple]) -> list[tuple]:
    """Frames after some steps of an r2SCAN relaxation from the displaced start."""
    from crossfunc.potential import Crystals
    from crossfunc.stability import relax

    crystals, found, steps = Crystals.from_arrays(cell for _, _, cell in starts), [], 0
    for more in PATH_STEPS:
        crystals = relax(_model("r2scan"), crystals, fmax=FMAX_EV_PER_A, max_steps=more).crystals
        steps += more
        cells = _triples(crystals)
        found += [(record, f"path-{steps}", cell) for (record, _, _), cell in zip(starts, cells, strict=True)]
    return found


def _write(out: Path, records: list[dict], *, seed: int, overwrite: bool) -> Dataset:
    rejected = [(r["material"], r["reason"]) for r in records if r["reason"]]
    kept = [r for r in records if not r["reason"]]
    elements = _ground_states(kept)
    pairs = _pairs(kept)
    formation = pairs["high_formation_energy_per_atom_ev"]
    too_high = formation > HIGHEST_FORMATION_EV_PER_ATOM
    rejected += [
        (record["material"], f"formation energy {energy:.2f} eV/atom: these elements do not make this structure")
        for record, high, energy in zip(kept, too_high, formation, strict=True)
        if high
    ]
    kept = [r for r, high in zip(kept, too_high, strict=True) if not high]
    ledger = pd.DataFrame(
        [("pairs", k, Material(**m).material_id, reason) for k, (m, reason) in enumerate(rejected)],
        columns=REJECTED_COLUMNS,
    )
    meta = _meta(seed, n_built=len(records), n_rejected=len(ledger))
    return write_without_twins(
        out,
        meta=meta,
        frames=_frames(kept),
        pairs=pairs[~too_high].reset_index(drop=True),
        elements=elements,
        rejected=ledger,
        overwrite=overwrite,
    )


def _ground_states(records: list[dict]) -> pd.DataFrame:
    rows = [
        {"element": r["material"]["elements"][0], "functional": functional, "energy_kind": ENERGY_KIND[functional],
         "energy_per_atom_ev": energy, "structure_type": r["material"]["prototype"]}
        for r in records if len(r["material"]["elements"]) == 1
        for functional, energy in r["energies"].items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    lowest = table.loc[table.groupby(["element", "functional"])["energy_per_atom_ev"].idxmin()]
    order = lowest["element"].map(ATOMIC_NUMBERS)
    return lowest.assign(z=order).sort_values(["functional", "z"]).drop(columns="z").reset_index(drop=True)


def _pairs(records: list[dict]) -> pd.DataFrame:
    from crossfunc.energies import mp2020_correction_per_atom_ev

    materials = [Material(**{**r["material"], "elements": tuple(r["material"]["elements"])}) for r in records]
    pairs = pd.DataFrame(
        {
            "material_id": [m.material_id for m in materials],
            "composition": [m.formula for m in materials],
            "n_atoms": [len(r["structures"]["gga"][0]) for r in records],
            "low_energy_per_atom_ev": [r["energies"]["gga"] for r in records],
            "high_energy_per_atom_ev": [r["energies"]["r2scan"] for r in records],
            "prototype": [m.prototype for m in materials],
            "tier": [m.tier for m in materials],
        }
    )
    structures = _structures(records)
    correction = mp2020_correction_per_atom_ev(pairs["composition"], structures=structures)
    pairs["low_uncorrected_energy_per_atom_ev"] = (pairs["low_energy_per_atom_ev"] - correction).round(6)
    return with_formation_energies(pairs, [f"{name}_energy_per_atom_ev" for name in ("low", "low_uncorrected", "high")])


def _structures(records: list[dict]) -> list:
    from crossfunc.potential import Crystals

    return Crystals.from_arrays(r["structures"]["gga"] for r in records).to_structures()


def _frames(records: list[dict]) -> pa.Table:
    rows = []
    for record in records:
        material = Material(**record["material"])
        blank = {"forces": None, "stress": None, "magmoms": None}
        if material.tier == "wide":
            cell = record["structures"]["r2scan"]
            rows.append(_row(material, "r2scan", "relaxed", cell, record["energies"]["r2scan"], blank))
        for frame in record.get("frames", []):
            rows.append(_row(material, "r2scan", frame["source"], frame["structure"], frame["r2scan_energy"], frame))
            rows.append(_row(material, "gga", frame["source"], frame["structure"], frame["gga_energy"], blank))
        cell = record["structures"]["gga"]
        rows.append(_row(material, "gga", "relaxed-gga", cell, record["energies"]["gga"], blank))
    schema = pa.schema([column.field for column in FRAMES])
    return pa.Table.from_pylist(rows, schema=schema)


def _row(material: Material, functional: str, source: str, cell: tuple, energy: float, labels: dict) -> dict:
    numbers, coords, lattice = cell
    return {
        "frame_id": f"{material.material_id}/{source}/{functional}",
        "material_id": material.material_id,
        "functional": functional,
        "energy_kind": ENERGY_KIND[functional],
        "atomic_numbers": numbers,
        "lattice_a": np.ravel(lattice).tolist(),
        "frac_coords": np.ravel(coords).tolist(),
        "energy_per_atom_ev": energy,
        "forces_ev_per_a": labels["forces"],
        "stress_gpa": labels["stress"],
        "magmoms_mub": labels["magmoms"],
        "source": f"{material.tier}: {source}",
    }


def _meta(seed: int, *, n_built: int, n_rejected: int) -> dict:
    from importlib.metadata import version

    return {
        "name": NAME,
        "version": "3",
        "licence": "MIT (crossfunc); predicted with the CHGNet checkpoints 0.3.0 and r2scan (chgnet, modified BSD)",
        "citation": (
            "B. Deng et al., Nature Machine Intelligence 5, 1031 (2023); X. Huang et al., arXiv:2504.05565 (2025)"
        ),
        "provenance": (
            f"made by `crossfunc data make-surrogate` with seed {seed}: {n_built} crystals from {len(prototypes())} "
            f"prototypes, relaxed by CHGNet 0.3.0 and by CHGNet r2scan, {n_rejected} rejected (see rejected.parquet)"
        ),
        "functionals": describe_functionals(
            "GGA/GGA+U", "r²SCAN", energy_kinds=(ENERGY_KIND["gga"], ENERGY_KIND["r2scan"])
        ),
        "label_notice": LABEL_NOTICE,
        "labelled_by": "model, CHGNet",
        "differs_from_paper": "there DFT; here two CHGNet models, one fine-tuned from the other, and other materials",
        "generator": {
            "seed": seed,
            "planned": {"wide": N_WIDE, "dense": N_DENSE},
            "dense_elements": list(DENSE_ELEMENTS),
            "labellers": LABELLERS,
            "fmax_ev_per_a": FMAX_EV_PER_A,
            "max_steps": MAX_STEPS,
            "closest_contact": CLOSEST_CONTACT,
            "highest_formation_energy_ev_per_atom": HIGHEST_FORMATION_EV_PER_ATOM,
            "strain": [STRAIN, PATH_STRAIN],
            "rattle_a": [RATTLE_A, PATH_RATTLE_A],
            "made_with": {name: version(name) for name in ("chgnet", "torch", "pymatgen", "vesin")},
        },
    }
