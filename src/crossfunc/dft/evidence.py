"""What the dataset's own tables say of it: counts, minima, solids, net forces, shifts, forces of a model, costs."""

import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pandas as pd

from crossfunc.bootstrap import FEWEST, Estimate, mean_error
from crossfunc.datasets import Dataset
from crossfunc.datasets.coverage import HEAVY_Z
from crossfunc.datasets.schema import DatasetError
from crossfunc.dft.checks import BETWEEN
from crossfunc.dft.equation_of_state import _birch_murnaghan
from crossfunc.dft.labels import (
    IN_PROSE,
    LARGEST_NET_FORCE_EV_PER_A,
    SIDES_OF,
    by_material,
    fit_minimum,
    free_atoms,
    read_records,
)
from crossfunc.dft.plan import plan_materials
from crossfunc.dft.settings import FUNCTIONALS
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS
from crossfunc.units import EV_PER_A3_TO_GPA

LARGEST_NET_FORCE_MEV_PER_A = 1000 * LARGEST_NET_FORCE_EV_PER_A


def count(frames: pd.DataFrame) -> dict[str, int]:
    """Count structures, materials, elements and heavy elements (Z >= 55) of a frames table."""
    numbers = np.unique(np.concatenate(frames["atomic_numbers"].to_list()))
    return {
        "structures": int(frames["frame_id"].str.rsplit("/", n=1).str[0].nunique()),
        "materials": int(frames["material_id"].nunique()),
        "elements": len(numbers),
        "heavy_elements": int((numbers >= HEAVY_Z).sum()),
    }


def frames_by_kind(frames: pd.DataFrame) -> pd.DataFrame:
    """Count structures and materials by kind of frame, and say how large their forces and stresses are.

    Parameters
    ----------
    frames : DataFrame
        Frames of a dataset, in both functionals.

    Returns
    -------
    DataFrame
        Index kind, with "all" at the end; `structures`, `materials`, `largest_force_ev_per_a` (component) and
        `largest_force_in` (the structure that has it), `largest_stress_gpa` (component), and `without_force`, the
        percentage of structures in which no functional has a force component above 0.02 eV/Å.
    """
    table = pd.DataFrame(
        {
            "structure": frames["frame_id"].str.rsplit("/", n=1).str[0],
            "material_id": frames["material_id"],
            "kind": frames["source"],
            "force": [np.abs(forces).max() for forces in frames["forces_ev_per_a"]],
            "stress": [np.abs(stress).max() for stress in frames["stress_gpa"]],
        }
    )
    groups = [(kind, table[table["kind"] == kind]) for kind in table["kind"].value_counts().index]
    rows = {}
    for kind, some in [*groups, ("all", table)]:
        of_structures = some.groupby("structure")["force"].max()
        rows[kind] = {
            "structures": len(of_structures),
            "materials": some["material_id"].nunique(),
            "largest_force_ev_per_a": some["force"].max(),
            "largest_force_in": some.loc[some["force"].idxmax(), "structure"],
            "largest_stress_gpa": some["stress"].max(),
            "without_force": 100 * float((of_structures <= _MOVED_EV_PER_A).mean()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def without_rattled(frames: pd.DataFrame) -> pd.DataFrame:
    """Count materials and those without a rattled frame, and how many of the latter have one atom per cell.

    Parameters
    ----------
    frames : DataFrame
        Frames of a dataset.

    Returns
    -------
    DataFrame
        Index kind of crystal, as the plan has it; `materials`, `without_rattled`, `of_one_atom`.
    """
    bindings = {material.material_id: material.binding for material in plan_materials()}
    first = frames.drop_duplicates("material_id").set_index("material_id")
    rattled = frames.loc[frames["source"] == "rattled", "material_id"]
    table = pd.DataFrame({"binding": [bindings.get(name, "other") for name in first.index]}, index=first.index)
    table["without"] = ~table.index.isin(rattled)
    table["of_one"] = table["without"] & (first["atomic_numbers"].map(len) == 1)
    groups = table.groupby("binding")
    return pd.DataFrame(
        {"materials": groups.size(), "without_rattled": groups["without"].sum(), "of_one_atom": groups["of_one"].sum()}
    )


def account(dataset: Dataset) -> pd.Series:
    """Say where each structure is that was computed: in the frames, in the ledger, a molecule or an isolated atom.

    Parameters
    ----------
    dataset : Dataset
        With its records.

    Returns
    -------
    Series
        `shipped` (structures of the frames), `in_ledger` (crystals whose labels are not shipped), `molecules`,
        `isolated_atoms`, and `all`, their sum.
    """
    records, _ = read_records(dataset.records)
    structures = set(dataset.need_frames().to_pandas()["frame_id"].str.rsplit("/", n=1).str[0])
    found = dict.fromkeys(["shipped", "in_ledger", "molecules", "isolated_atoms"], 0)
    for record in records:
        if record["pbe"]["raw_stress_gpa"] is None:
            where = "isolated_atoms" if len(record["atomic_numbers"]) == 1 else "molecules"
        else:
            where = "shipped" if record["frame_id"] in structures else "in_ledger"
        found[where] += 1
    return pd.Series({**found, "all": len(records)})


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
    points: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []
    minima = {}
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
    for row in dataset.need_pairs().to_dict("records"):
        material = alone.get(row["material_id"])
        known = None if material is None else _collected(dcdft, material)
        if material is None or not known:
            continue
        found = {}
        for end, ours, theirs in (("", "volume_a3_per_atom", "volume"), ("_bulk", "bulk_modulus_gpa", "B")):
            low, high = row[f"low_{ours}"], row[f"high_{ours}"]
            measured, all_electron = known[f"exp_{theirs}"], known[f"wien2k_{theirs}"]
            found[f"pbe_minus_measured{end}"] = 100 * (low / measured - 1)
            found[f"r2scan_minus_measured{end}"] = 100 * (high / measured - 1)
            found[f"pbe_minus_all_electron{end}"] = 100 * (low / all_electron - 1)
        rows[material.elements[0]] = found
    order = sorted(rows, key=ATOMIC_NUMBERS.__getitem__)
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


def solid_errors(solids: pd.DataFrame) -> dict[str, Estimate]:
    """Mean absolute deviations of `elemental_solids`, percent, with intervals over solids, by the results' keys."""
    names = {
        "volume_pbe": "pbe_minus_measured",
        "volume_r2scan": "r2scan_minus_measured",
        "volume_all_electron": "pbe_minus_all_electron",
        "bulk_all_electron": "pbe_minus_all_electron_bulk",
    }
    if solids.empty:
        return {}
    return {key: mean_error(solids[column].abs(), solids.index) for key, column in names.items()}


def published_solids(dataset: Dataset) -> pd.DataFrame:
    """Compare crystals with PBE and r2SCAN values of other codes, as kept in `published_solids.csv`.

    Returns
    -------
    DataFrame
        Index material, of those with a published value that the dataset has, and the metals of the kept check `minima`
        beside them; columns `functional`, `volume_a3_per_atom`, `published_volume_a3_per_atom`, `volume_off`,
        `bulk_modulus_gpa`, `published_bulk_modulus_gpa` and `bulk_off` (deviations in percent; the last two are NaN
        where no bulk modulus is published).

    Notes
    -----
    PBE: mean of two all-electron codes for cubic oxides, E. Bosoni et al., Nat. Rev. Phys. 6, 45 (2024); for metals
    WIEN2k, K. Lejaeghere et al., Science 351, aad3000 (2016), as `ase.collections.dcdft` has it. r2SCAN:
    lattice parameters of elements for r2SCAN01 (eta = 0.01 instead of 0.001), which the first project keeps in its
    repository aiidateam/acwf-verification-scripts (MIT), commit 78be1b4, as
    0-preliminary-do-not-run/unaries/lattice_parameters_unaries-verification-r2SCAN01-v1.json: preliminary, and not part
    of the publication. Bulk moduli in r2SCAN: H. Liu et al., J. Chem. Phys. 160, 024102 (2024), at second hand, as the
    repository alexwelcing/lupine collects them in data/targets_0K.json (commit 8cd1bde).
    """
    with resources.files("crossfunc.dft").joinpath("published_solids.csv").open(encoding="utf-8") as file:
        known = pd.read_csv(file, keep_default_na=False, na_values=[""])
    ours = pd.concat([_minima_of(dataset), kept_check("minima")]).drop_duplicates(["material_id", "functional"])
    both = known.rename(columns={name: f"published_{name}" for name in _COMPARED}).merge(ours)
    for name, off in _COMPARED.items():
        both[off] = 100 * (both[name] / both[f"published_{name}"] - 1)
    columns = [column for name, off in _COMPARED.items() for column in (name, f"published_{name}", off)]
    return both.set_index("material_id").rename_axis("material")[["functional", *columns]]


_COMPARED = {"volume_a3_per_atom": "volume_off", "bulk_modulus_gpa": "bulk_off"}


def _minima_of(dataset: Dataset) -> pd.DataFrame:
    """Minima of a dataset's pairs, a row for each material and functional."""
    pairs = dataset.need_pairs()
    sides = [
        pd.DataFrame({"material_id": pairs["material_id"], "functional": functional})
        .assign(**{name: pairs[f"{side}_{name}"] for name in _COMPARED})
        for side, functional in SIDES_OF.items()
    ]  # fmt: skip
    return pd.concat(sides)


def published_errors(solids: pd.DataFrame) -> dict[str, Estimate]:
    """Mean absolute deviations of `published_solids`, percent, with intervals over materials, by the results' keys."""
    found = {}
    for functional, rows in solids.groupby("functional"):
        for key, column in (("volume", "volume_off"), ("bulk", "bulk_off")):
            values = rows[column].dropna().abs()
            if len(values):
                found[f"{key}_{functional}"] = mean_error(values, values.index)
    return found


def net_forces_mev_per_a(dataset: Dataset) -> dict[str, np.ndarray]:
    """Net force of each shipped frame, by functional key, meV/Å."""
    table = dataset.need_frames().select(["functional", "net_force_ev_per_a"]).to_pandas()
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
    """Net force by functional, number of grid points along an axis and, where it has none, libxc's clamp, meV/Å."""
    names = table["functional"] + "_" + table["points"].astype(str) + np.where(table["clamped"], "", "_unclamped")
    return dict(zip(names, table["net_force_mev_per_a"], strict=True))


def worst_derivatives(table: pd.DataFrame) -> dict[str, float]:
    """Largest deviation from finite differences: forces in meV/Å, stress in GPa."""
    off = table["difference"].abs()
    is_force = table["quantity"].str.startswith("force")
    return {"force": 1000 * off[is_force].max(), "stress": off[~is_force].max()}


CONVERGENCE_BARS = {"energy_mev_per_atom": 2.0, "force_mev_per_a": 10.0, "stress_gpa": 0.3}
"""What finer settings may change in the difference of two frames, in their forces and in their stress."""


def worst_convergence(table: pd.DataFrame) -> dict[str, float]:
    """Largest change with finer settings, meV/atom, meV/Å and GPa: of a functional, and `between` the two."""
    of_between = table["functional"] == BETWEEN
    found: dict[str, float] = {}
    for prefix, rows in (("", table[~of_between]), ("between_", table[of_between])):
        for name, key in zip(("energy", "force", "stress"), CONVERGENCE_BARS, strict=True):
            found |= {f"{prefix}{name}": float(rows[key].max())} if len(rows) else {}
    return found


_IN_WORDS = {"energy_mev_per_atom": "{:.1f} meV/atom", "force_mev_per_a": "{:.0f} meV/Å", "stress_gpa": "{:.2f} GPa"}


def convergence_in_words(table: pd.DataFrame) -> str:
    """Say which finer settings change more than they may, in which materials and by how much in each functional."""
    bars = ", ".join(_IN_WORDS[key].format(bar) for key, bar in CONVERGENCE_BARS.items())
    said = []
    for (material, finer), rows in table.groupby(["material_id", "finer"], sort=False):
        by = rows.set_index("functional")
        over = [key for key, bar in CONVERGENCE_BARS.items() if (by[key].drop(BETWEEN, errors="ignore") > bar).any()]
        values = [
            " and ".join(
                f"{_IN_WORDS[key].format(by.loc[functional, key])} ({name})" for functional, name in IN_PROSE.items()
            )
            for key in over
        ]
        said += [f"- {material}, {finer}: {'; '.join(values)}"] if over else []
    lines = (
        [f"Finer settings change no functional by more than {bars}, but for:", "", *said, ""]
        if said
        else [f"No finer setting changes a functional by more than {bars}."]
    )
    between = table[table["functional"] == BETWEEN]
    if len(between):
        most = ", ".join(_IN_WORDS[key].format(between[key].max()) for key in CONVERGENCE_BARS)
        alike = all(between[key].max() <= bar for key, bar in CONVERGENCE_BARS.items())
        lines.append(
            f"What r²SCAN has over PBE changes by {most} at most"
            + (": what settings leave out is in both alike." if alike else ".")
        )
    return "\n".join(lines)


def k_points_summary(table: pd.DataFrame) -> dict[str, float]:
    """Number of crystals, how many of them a denser mesh changes by more than it may, and the medians.

    Parameters
    ----------
    table : DataFrame
        Rows of the check "k-points".
    """
    found = {"crystals": float(len(table)), "over": float(len(over_bars(table)))}
    names = zip(("energy", "force", "stress"), CONVERGENCE_BARS, strict=True)
    return found | {f"median_{name}": float(table[key].median()) for name, key in names}


def over_bars(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with an energy, a force or a stress above its bar, those with the largest force first."""
    over = np.any([table[key] > bar for key, bar in CONVERGENCE_BARS.items()], axis=0)
    return table[over].sort_values("force_mev_per_a", ascending=False)


TOTAL_ENERGY_BAR_MEV_PER_ATOM = 5.0
"""What denser k-points may change in the energy of a crystal, and so in a formation energy."""


def energies_off(table: pd.DataFrame) -> tuple[dict[str, float], pd.DataFrame]:
    """Summarise the check "total-energy": crystals, how many above a bar, the median; and those rows, worst first.

    Parameters
    ----------
    table : DataFrame
        Rows of the check "total-energy". Its energies are held against `TOTAL_ENERGY_BAR_MEV_PER_ATOM`, its forces and
        stresses, which symmetry leaves in some first frames, against `CONVERGENCE_BARS`.

    Returns
    -------
    summary : dict
        `crystals`, `over` the bar of the energy, `derivatives_over` those of force or stress, and the `median` energy.
    rows : DataFrame
        Those above any bar.
    """
    energy = table["energy_mev_per_atom"].abs()
    far = energy > TOTAL_ENERGY_BAR_MEV_PER_ATOM
    derivatives = {key: bar for key, bar in CONVERGENCE_BARS.items() if key != "energy_mev_per_atom"}
    bent = np.any([table[key] > bar for key, bar in derivatives.items()], axis=0)
    counts = {"crystals": len(table), "over": far.sum(), "derivatives_over": bent.sum(), "median": energy.median()}
    rows = table[far | bent].sort_values("energy_mev_per_atom", key=abs, ascending=False)
    return {key: float(value) for key, value in counts.items()}, rows


def same_structures(frames: pd.DataFrame) -> pd.DataFrame:
    """Return one row per structure with its energy per atom in `pbe` and `r2scan`, eV/atom."""
    table = frames.assign(structure=frames["frame_id"].str.rsplit("/", n=1).str[0])
    both = {
        key: rows.set_index("structure")["energy_per_atom_ev"].rename(key) for key, rows in table.groupby("functional")
    }
    first = table[table["functional"] == "pbe"].set_index("structure")[["material_id", "atomic_numbers"]]
    return first.join(list(both.values()), how="inner")


def shift_draws(X, difference_ev, material_ids, *, n: int = 1000, seed: int = 0) -> np.ndarray:
    """Shifts of the element references, refitted to materials that are drawn again and again.

    Parameters
    ----------
    X : shape (n_rows, 94)
        Atomic fractions.
    difference_ev : array_like, shape (n_rows,)
        High minus low energy of the same structures, eV/atom.
    material_ids : array_like, shape (n_rows,)
        As in the fits themselves, each material counts once.
    n, seed : int

    Returns
    -------
    ndarray, shape (n, 94)
        eV/atom; NaN where a draw does not determine the element.
    """
    from crossfunc.energies import fit_atomref

    _, group = np.unique(material_ids, return_inverse=True)
    n_materials = group.max() + 1
    each = 1 / np.bincount(group)[group]
    shares = np.full(n_materials, 1 / n_materials)
    found = np.full((n, len(ELEMENT_SYMBOLS)), np.nan)
    for k, times in enumerate(np.random.default_rng(seed).multinomial(n_materials, shares, n)):
        fit = fit_atomref(X, np.asarray(difference_ev), weights=times[group] * each)
        found[k] = np.where(fit.determined, fit.energies_ev, np.nan)
    return found


def shifts_three_ways(dataset: Dataset, fits: dict, draws: np.ndarray, X, material_ids) -> pd.DataFrame:
    """Shift of each element's reference, r2SCAN minus PBE, from three sources.

    Parameters
    ----------
    dataset : Dataset
    fits : dict of str to AtomRefFit
        Fits in "pbe" and in "r2scan", by these names.
    draws : ndarray, shape (n, 94)
        From `shift_draws`.
    X, material_ids
        As for `shift_draws`.

    Returns
    -------
    DataFrame
        Index element, eV: `ours` with `low` and `high` (95 % over materials; NaN for elements in few of them),
        `published` (VASP), `free_atom` (ours) and `free_atom_vasp`; `n_materials` with the element.
    """
    from crossfunc.energies import published_atomref
    from crossfunc.energies.free_atoms import vasp_free_atoms

    ours = fits["r2scan"].energies_ev - fits["pbe"].energies_ev
    published = published_atomref("MP-r2SCAN").energies_ev - published_atomref("MPtrj").energies_ev
    table = pd.DataFrame({"ours": ours, "published": published}, index=list(ELEMENT_SYMBOLS))
    first = np.unique(material_ids, return_index=True)[1]
    table["n_materials"] = np.asarray((X[first] > 0).sum(axis=0)).ravel()
    enough = (table["n_materials"] >= FEWEST).to_numpy()
    table["low"], table["high"] = np.full((2, len(table)), np.nan)
    table.loc[enough, ["low", "high"]] = np.nanquantile(draws[:, enough], _ENDS, axis=0).T
    atoms = free_atoms(dataset)
    table["free_atom"] = (atoms["r2scan"] - atoms["pbe"]).reindex(table.index)
    of_vasp = vasp_free_atoms()
    table["free_atom_vasp"] = (of_vasp["r2scan"] - of_vasp["pbe"]).reindex(table.index)
    return table[table["ours"].notna()]


_ENDS = (0.025, 0.975)


def explained_by_atoms(table: pd.DataFrame) -> dict[str, float]:
    """How much of the gap between two codes' shifts is there in their free atoms already, where no bond is.

    Parameters
    ----------
    table : DataFrame
        From `shifts_three_ways`.

    Returns
    -------
    dict
        `n_atoms` with all four shifts; `slope` and `cosine` of the gap between the fitted shifts (published minus ours)
        on the gap between the free atoms (VASP's minus ours), through the origin: 1 and 1 where the atoms explain it.
    """
    some = table.dropna(subset=["ours", "published", "free_atom", "free_atom_vasp"])
    fitted, atomic = some["published"] - some["ours"], some["free_atom_vasp"] - some["free_atom"]
    length = float(np.linalg.norm(fitted) * np.linalg.norm(atomic))
    if not len(some) or not length:
        return {"n_atoms": len(some), "slope": float("nan"), "cosine": float("nan")}
    return {
        "n_atoms": len(some),
        "slope": float(fitted @ atomic / (atomic @ atomic)),
        "cosine": float(fitted @ atomic / length),
    }


def compare_shifts(table: pd.DataFrame, draws: np.ndarray, n_materials: int) -> dict[str, Estimate]:
    """Agreement of our shifts with the published ones: rank correlation, and the slope up to and after krypton.

    Parameters
    ----------
    table : DataFrame
        Index element; `ours` and `published`.
    draws : ndarray, shape (n, 94)
        From `shift_draws`; each is compared as the table is, which gives the intervals.
    n_materials : int
        Behind the draws.
    """
    columns = [ATOMIC_NUMBERS[symbol] - 1 for symbol in table.index]
    both = table[["ours", "published"]]
    whole = _agreement_of_shifts(both)
    drawn = pd.DataFrame([_agreement_of_shifts(both.assign(ours=draw[columns]).dropna()) for draw in draws])
    found = {}
    for key, ends in drawn.reindex(columns=list(whole)).quantile(_ENDS).items():
        low, high = ends if n_materials >= FEWEST else (np.nan, np.nan)
        found[key] = Estimate(whole[key], float(low), float(high), n_materials)
    return found


def _agreement_of_shifts(table: pd.DataFrame) -> dict[str, float]:
    z = table.index.map(ATOMIC_NUMBERS)
    light, heavy = table[z <= _KRYPTON], table[z > _KRYPTON]
    rank = table["ours"].rank().corr(table["published"].rank())
    found = {"rank_correlation": float(rank), "slope_light": _slope(light)}
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
        Random numbers and resamples of the bootstrap over materials.

    Returns
    -------
    DataFrame
        Index `model_pbe`, `model_r2scan`, `functionals`, `zero`; `mae` (eV/Å), `slope` and `cosine` of predicted on
        labelled forces (null for zero), each with the ends of its interval over materials in `mae_low`, `mae_high` ...
        Frames whose forces vanish by symmetry are left out.
    """
    from crossfunc.potential import load_model
    from crossfunc.training import LabelledFrames
    from crossfunc.training.evaluate import predict_frames

    labels = {key: LabelledFrames.from_dataset(dataset, key) for key in SIDES_OF.values()}
    moved = np.array([np.abs(f).max() > _MOVED_EV_PER_A for f in _per_frame(labels["pbe"])])
    labels = {key: frames.take(np.flatnonzero(moved)) for key, frames in labels.items()}
    seen = predict_frames(load_model(model), labels["pbe"])
    pbe, r2scan = (labels[key].take(seen.positions) for key in ("pbe", "r2scan"))
    cases = {
        "model_pbe": seen,
        "model_r2scan": replace(seen, frames=r2scan),
        "functionals": replace(seen, frames=r2scan, forces_ev_per_a=pbe.forces_ev_per_a),
        "zero": replace(seen, forces_ev_per_a=np.zeros_like(pbe.forces_ev_per_a)),
    }
    return pd.DataFrame({name: _agreement(predicted, seed, n) for name, predicted in cases.items()}).T


_MOVED_EV_PER_A = 0.02


def _per_frame(frames) -> list[np.ndarray]:
    return np.split(frames.forces_ev_per_a, np.cumsum(frames.crystals.n_atoms)[:-1])


def _agreement(predicted, seed: int, n: int) -> dict[str, float]:
    """Error, slope and cosine of the forces of a `FramePredictions`, each with its ends; NaN where there is none."""
    from crossfunc.training.baselines import force_agreement

    found = force_agreement(predicted, n_bootstrap=n, seed=seed)
    return {
        column: getattr(found[name], end) if name in found else float("nan")
        for name in ("mae", "slope", "cosine")
        for end, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high"))
    }


def costs(dataset: Dataset) -> pd.DataFrame:
    """Return what each structure cost, both functionals together.

    Returns
    -------
    DataFrame
        `material_id, kind, is_crystal` (no box), `n_atoms, k_points` (irreducible), `size` (their product), `cpu_s`
        (without the two further cutoffs of equilibrium frames) and `peak_memory_gb` (largest of the process so far).
    """
    records, _ = read_records(dataset.records)
    rows = [
        {
            "material_id": r["material_id"],
            "kind": r["kind"],
            "is_crystal": r["pbe"]["raw_stress_gpa"] is not None,
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


def cost_exponents(table: pd.DataFrame, *, n: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Fit log t = c + a log(atoms) + b log(irreducible k-points) to the processor times of crystals.

    Parameters
    ----------
    table : DataFrame
        From `costs`.
    n, seed : int
        Resamples and random numbers of the bootstrap over materials.

    Returns
    -------
    dict of str to Estimate
        `atoms` and `k_points`, the exponents; empty where atoms or k-points do not vary.
    """
    crystals = table[table["is_crystal"] & (table["cpu_s"] > 0)]
    sizes = np.log(crystals[["n_atoms", "k_points"]].to_numpy(dtype=float))
    X, y = np.column_stack([np.ones(len(sizes)), sizes]), np.log(crystals["cpu_s"].to_numpy(dtype=float))
    if np.linalg.matrix_rank(X) < X.shape[1]:
        return {}
    _, group = np.unique(crystals["material_id"], return_inverse=True)
    n_materials = int(group.max()) + 1
    draws = np.full((n, 3), np.nan)
    shares = np.full(n_materials, 1 / n_materials)
    for k, times in enumerate(np.random.default_rng(seed).multinomial(n_materials, shares, n)):
        root = np.sqrt(times[group])
        draws[k], _, rank, _ = np.linalg.lstsq(X * root[:, None], y * root)
        if rank < X.shape[1]:
            draws[k] = np.nan
    whole = np.linalg.lstsq(X, y)[0]
    ends = np.nanquantile(draws, _ENDS, axis=0) if n_materials >= FEWEST else np.full((2, 3), np.nan)
    return {
        key: Estimate(float(whole[k]), float(ends[0, k]), float(ends[1, k]), n_materials)
        for k, key in ((1, "atoms"), (2, "k_points"))
    }


_CELL_SIZES = {"1 or 2": (1, 2), "3 or 4": (3, 4), "5 or more": (5, 10_000), "all": (1, 10_000)}


def memory_bounds(table: pd.DataFrame) -> pd.DataFrame:
    """Bound the memory of crystals from above: the smallest record among the frames of each.

    A process records the largest memory that it has held so far, for the frame at hand or for one before it.

    Parameters
    ----------
    table : DataFrame
        From `costs`.

    Returns
    -------
    DataFrame
        Index atoms in the cell, with "all" at the end; `crystals`, and `median_gb` of their bounds.
    """
    crystals = table[table["is_crystal"]].groupby("material_id").agg({"n_atoms": "first", "peak_memory_gb": "min"})
    rows = {}
    for name, (fewest, most) in _CELL_SIZES.items():
        bounds = crystals.loc[crystals["n_atoms"].between(fewest, most), "peak_memory_gb"]
        if len(bounds):
            rows[name] = {"crystals": len(bounds), "median_gb": float(bounds.median())}
    return pd.DataFrame.from_dict(rows, orient="index")
