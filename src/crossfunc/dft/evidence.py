"""What the dataset's own tables say of it: counts, minima, solids, net forces, shifts, forces of a model, costs."""

import json
from importlib import resources

import numpy as np
import pandas as pd

from crossfunc.datasets import Dataset
from crossfunc.datasets.schema import DatasetError
from crossfunc.dft.engine import FUNCTIONALS
from crossfunc.dft.equation_of_state import _birch_murnaghan
from crossfunc.dft.labels import (
    LARGEST_NET_FORCE_EV_PER_A,
    SIDES_OF,
    by_material,
    fit_minimum,
    free_atoms,
    read_records,
)
from crossfunc.dft.plan import plan_materials
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS
from crossfunc.units import EV_PER_A3_TO_GPA

LARGEST_NET_FORCE_MEV_PER_A = 1000 * LARGEST_NET_FORCE_EV_PER_A
HEAVY_Z = 55


def count(frames: pd.DataFrame) -> dict[str, int]:
    """Count structures, materials, elements and heavy elements (Z >= 55) of a frames table."""
    numbers = np.unique(np.concatenate(frames["atomic_numbers"].to_list()))
    return {
        "structures": int(frames["frame_id"].str.rsplit("/", n=1).str[0].nunique()),
        "materials": int(frames["material_id"].nunique()),
        "elements": len(numbers),
        "heavy_elements": int((numbers >= HEAVY_Z).sum()),
    }


def materials_per_element(frames: pd.DataFrame) -> pd.Series:
    """Return how many materials hold each element; index symbol, in order of atomic number."""
    first = frames.drop_duplicates("material_id")
    numbers = np.concatenate([np.unique(row) for row in first["atomic_numbers"]])
    found, counts = np.unique(numbers, return_counts=True)
    return pd.Series(counts, index=[ELEMENT_SYMBOLS[z - 1] for z in found], name="n_materials")


def energy_curve(dataset: Dataset, material_id: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return computed points, fitted curves and minima of E(V) of one material in both functionals.

    Returns
    -------
    points, curves : DataFrame
        `functional, volume_a3_per_atom, energy_mev_per_atom` (above the minimum).
    minima : DataFrame
        Index functional; `volume_a3_per_atom`, `bulk_modulus_gpa`, `derivative`.

    Raises
    ------
    DatasetError
        The material has fewer than three volumes.
    """
    records = by_material(read_records(dataset.records)[0]).get(material_id, [])
    frames = [r for r in records if r["kind"] in ("equilibrium", "volume")]
    if len(frames) < 3:
        raise DatasetError(f"{material_id}: {len(frames)} volumes in {dataset.name}; a curve needs three.")
    n_atoms = len(frames[0]["atomic_numbers"])
    points, curves, minima = [], [], {}
    for name in FUNCTIONALS:
        fit = fit_minimum(frames, name)
        volumes = np.array([abs(np.linalg.det(np.reshape(r["lattice_a"], (3, 3)))) for r in frames])
        energies = np.array([r[name]["energy_ev"] for r in frames])
        grid = np.linspace(volumes.min(), volumes.max(), 80)
        energy, _ = _birch_murnaghan(
            grid, fit.energy_ev, fit.volume_a3, fit.bulk_modulus_gpa / EV_PER_A3_TO_GPA, fit.derivative
        )
        for table, v, e in ((points, volumes, energies), (curves, grid, energy)):
            table.append(_curve(name, v / n_atoms, 1000 * (e - fit.energy_ev) / n_atoms))
        minima[name] = [fit.volume_a3 / n_atoms, fit.bulk_modulus_gpa, fit.derivative]
    columns = ["volume_a3_per_atom", "bulk_modulus_gpa", "derivative"]
    return pd.concat(points), pd.concat(curves), pd.DataFrame.from_dict(minima, orient="index", columns=columns)


def _curve(name: str, volume, energy) -> pd.DataFrame:
    return pd.DataFrame({"functional": name, "volume_a3_per_atom": volume, "energy_mev_per_atom": energy})


def elemental_solids(dataset: Dataset) -> pd.DataFrame:
    """Compare elemental solids with measurements and with all-electron PBE, as collected by ASE.

    Returns
    -------
    DataFrame
        Index element, of those whose structure here is the one of the collection; deviations in percent:
        `pbe_minus_measured`, `r2scan_minus_measured`, `pbe_minus_all_electron` of the volume, and the same three of
        the bulk modulus with `_bulk` at the end.

    Notes
    -----
    K. Lejaeghere et al., Science 351, aad3000 (2016); `ase.collections.dcdft`. Measured values are without zero-point
    motion.
    """
    from ase.collections import dcdft

    rows, alone = {}, {m.material_id: m for m in plan_materials() if len(m.elements) == 1}
    for row in dataset.pairs.to_dict("records"):
        material = alone.get(row["material_id"])
        known = material and _collected(dcdft, material)
        if not known:
            continue
        found = {}
        for end, ours, theirs in (("", "volume_a3_per_atom", "volume"), ("_bulk", "bulk_modulus_gpa", "B")):
            low, high = row[f"low_{ours}"], row[f"high_{ours}"]
            measured, all_electron = known[f"exp_{theirs}"], known[f"wien2k_{theirs}"]
            found[f"pbe_minus_measured{end}"] = 100 * (low / measured - 1)
            found[f"r2scan_minus_measured{end}"] = 100 * (high / measured - 1)
            found[f"pbe_minus_all_electron{end}"] = 100 * (low / all_electron - 1)
        rows[material.elements[0]] = found
    order = sorted(rows, key=ATOMIC_NUMBERS.get)
    return pd.DataFrame.from_dict({e: rows[e] for e in order}, orient="index")


_STRUCTURES = {
    **dict.fromkeys("Li Na K Cs Ba Ta W".split(), "bcc"),
    **dict.fromkeys("Al Ca Sr Pt Au Pb".split(), "fcc"),
    **dict.fromkeys("Mg Ti Zr Hf Zn".split(), "hcp"),
    **dict.fromkeys("Si Ge".split(), "diamond"),
}
"""Elements of the plan whose structure in the collection is the plan's too."""


def _collected(dcdft, material) -> dict | None:
    (symbol,) = material.elements
    if _STRUCTURES.get(symbol) != material.prototype:
        return None
    known = dcdft.data.get(symbol, {})
    return known if known.get("exp_volume") and known.get("exp_B") else None


def solid_errors(solids: pd.DataFrame) -> dict[str, float]:
    """Mean absolute deviations of `elemental_solids`, percent, by the keys of the results file."""
    if solids.empty:
        return {}
    mean = solids.abs().mean()
    return {
        "volume_pbe": mean["pbe_minus_measured"],
        "volume_r2scan": mean["r2scan_minus_measured"],
        "volume_all_electron": mean["pbe_minus_all_electron"],
        "bulk_all_electron": mean["pbe_minus_all_electron_bulk"],
    }


def net_forces_mev_per_a(dataset: Dataset) -> dict[str, np.ndarray]:
    """Net force of each shipped frame, by functional key, meV/Å."""
    table = dataset.frames.select(["functional", "net_force_ev_per_a"]).to_pandas()
    return {
        key: 1000 * table.loc[table["functional"] == key, "net_force_ev_per_a"].to_numpy() for key in SIDES_OF.values()
    }


def kept_check(name: str) -> pd.DataFrame:
    """Return the table of a check as `crossfunc data check-dft` last wrote it, from `checks.json` beside this module.

    Raises
    ------
    DatasetError
        It was not kept.
    """
    tables = json.loads(resources.files("crossfunc.dft").joinpath("checks.json").read_text(encoding="utf-8"))
    if name not in tables:
        raise DatasetError(f"check {name!r} is not kept; those that are: {', '.join(tables)}.")
    return pd.DataFrame(tables[name])


def grid_net_forces(table: pd.DataFrame) -> dict[str, float]:
    """Net force by functional and number of grid points along an axis, meV/Å."""
    names = table["functional"] + "_" + table["points"].astype(str)
    return dict(zip(names, table["net_force_mev_per_a"], strict=True))


def worst_derivatives(table: pd.DataFrame) -> dict[str, float]:
    """Largest deviation from finite differences: forces in meV/Å, stress in GPa."""
    off = table["difference"].abs()
    is_force = table["quantity"].str.startswith("force")
    return {"force": 1000 * off[is_force].max(), "stress": off[~is_force].max()}


def worst_convergence(table: pd.DataFrame) -> dict[str, float]:
    """Largest change with finer settings: meV/atom, meV/Å, GPa."""
    return {
        "energy": table["energy_mev_per_atom"].max(),
        "force": table["force_mev_per_a"].max(),
        "stress": table["stress_gpa"].max(),
    }


def same_structures(frames: pd.DataFrame) -> pd.DataFrame:
    """Return one row per structure with its energy per atom in `pbe` and `r2scan`, eV/atom."""
    table = frames.assign(structure=frames["frame_id"].str.rsplit("/", n=1).str[0])
    both = {
        key: rows.set_index("structure")["energy_per_atom_ev"].rename(key) for key, rows in table.groupby("functional")
    }
    first = table[table["functional"] == "pbe"].set_index("structure")[["material_id", "atomic_numbers"]]
    return first.join(list(both.values()), how="inner")


def shifts_three_ways(dataset: Dataset, fits: dict) -> pd.DataFrame:
    """Shift of each element's reference, r2SCAN minus PBE, eV: `ours`, `published` (VASP), `free_atom` (ours)."""
    from crossfunc.energies import published_atomref

    ours = fits["r2scan"].energies_ev - fits["pbe"].energies_ev
    published = published_atomref("MP-r2SCAN").energies_ev - published_atomref("MPtrj").energies_ev
    table = pd.DataFrame({"ours": ours, "published": published}, index=list(ELEMENT_SYMBOLS))
    atoms = free_atoms(dataset)
    table["free_atom"] = (atoms["r2scan"] - atoms["pbe"]).reindex(table.index)
    return table[table["ours"].notna()]


def compare_shifts(table: pd.DataFrame) -> dict[str, float]:
    """Agreement of our shifts with the published ones: rank correlation, and the slope up to and after krypton."""
    z = table.index.map(ATOMIC_NUMBERS)
    light, heavy = table[z <= _KRYPTON], table[z > _KRYPTON]
    rank = table["ours"].corr(table["published"], method="spearman")
    found = {"rank_correlation": rank, "slope_light": _slope(light)}
    return found | ({"slope_heavy": _slope(heavy)} if len(heavy) > 1 else {})


_KRYPTON = 36


def _slope(table: pd.DataFrame) -> float:
    """Slope of published shifts against ours, through the origin."""
    return float((table["published"] @ table["ours"]) / (table["ours"] @ table["ours"]))


def force_agreement(dataset: Dataset, model: str, *, seed: int = 0, n: int = 1000) -> pd.DataFrame:
    """Compare forces: a model with both functionals, the functionals with each other, and zero with PBE.

    Parameters
    ----------
    dataset : Dataset
    model : str
        Name or path.
    seed, n : int
        Of the bootstrap over materials.

    Returns
    -------
    DataFrame
        Index `model_pbe`, `model_r2scan`, `functionals`, `zero`; `mae` with `low` and `high` (95 % over materials),
        eV/Å; `slope` and `cosine` of predicted on labelled forces (null for zero). Frames whose forces vanish by
        symmetry are left out.
    """
    from crossfunc.potential import load_model
    from crossfunc.training import LabelledFrames
    from crossfunc.training.evaluate import predict_frames

    labels = {key: LabelledFrames.from_dataset(dataset, key) for key in SIDES_OF.values()}
    moved = np.array([np.abs(f).max() > _MOVED_EV_PER_A for f in _per_frame(labels["pbe"])])
    labels = {key: frames.take(np.flatnonzero(moved)) for key, frames in labels.items()}
    predicted = predict_frames(load_model(model), labels["pbe"]).forces_ev_per_a
    true = {key: frames.forces_ev_per_a.astype(float) for key, frames in labels.items()}
    cases = {
        "model_pbe": (predicted, true["pbe"]),
        "model_r2scan": (predicted, true["r2scan"]),
        "functionals": (true["pbe"], true["r2scan"]),
        "zero": (np.zeros_like(true["pbe"]), true["pbe"]),
    }
    groups = np.repeat(labels["pbe"].material_ids, labels["pbe"].crystals.n_atoms)
    return pd.DataFrame({name: _agreement(a, b, groups, seed, n) for name, (a, b) in cases.items()}).T


_MOVED_EV_PER_A = 0.02


def _per_frame(frames) -> list[np.ndarray]:
    return np.split(frames.forces_ev_per_a, np.cumsum(frames.crystals.n_atoms)[:-1])


def _agreement(predicted, true, groups, seed: int, n: int) -> dict[str, float]:
    error = np.abs(predicted - true).mean(axis=1)
    names, at = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(at, error), np.bincount(at)
    draws = np.random.default_rng(seed).integers(len(names), size=(n, len(names)))
    low, high = np.quantile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), [0.025, 0.975])
    square = (true * true).sum()
    dot, length = (predicted * true).sum(), np.sqrt((predicted * predicted).sum())
    return {
        "mae": error.mean(),
        "low": low,
        "high": high,
        "slope": dot / square if length else np.nan,
        "cosine": dot / (length * np.sqrt(square)) if length else np.nan,
    }


def costs(dataset: Dataset) -> pd.DataFrame:
    """Return `kind, n_atoms, k_points, size, cpu_s, peak_memory_gb` of each structure, both functionals together."""
    records, _ = read_records(dataset.records)
    rows = [
        {
            "kind": r["kind"],
            "n_atoms": len(r["atomic_numbers"]),
            "k_points": r["pbe"]["k_points"],
            "size": len(r["atomic_numbers"]) * r["pbe"]["k_points"],
            "cpu_s": sum(r[name]["cpu_s"] for name in FUNCTIONALS),
            "peak_memory_gb": r["peak_memory_gb"],
        }
        for r in records
    ]
    return pd.DataFrame(rows)


def cost_summary(table: pd.DataFrame) -> dict[str, float]:
    """Median seconds of a frame, hours of all, and the largest memory of a process."""
    return {
        "cpu_median": table["cpu_s"].median(),
        "cpu_hours": table["cpu_s"].sum() / 3600,
        "memory": table["peak_memory_gb"].max(),
    }
