"""Are the labels what they say? Finite differences, convergence of differences, recomputed frames: as tables.

Each check computes afresh with the committed engine; what it found is kept beside the book's page "Our own DFT", which
prints the command.
"""

import dataclasses
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from crossfunc.datasets.schema import DatasetError
from crossfunc.dft.engine import check_engine, make_atoms, make_calculator, pulay_gpa
from crossfunc.dft.plan import Frame, Material, Settings, plan_frames, plan_materials, three_ints
from crossfunc.dft.settings import CONVERGENCE, CUTOFF_STEP_EV, FUNCTIONALS
from crossfunc.dft.solids import SOLIDS, compute_minima
from crossfunc.units import EV_PER_A3_TO_GPA

__all__ = [
    "CHECKS",
    "check_convergence",
    "check_derivatives",
    "check_k_points",
    "check_total_energy",
    "crystals",
    "find_frame",
    "run_checks",
]

TIGHT = {"density": 1e-6, "eigenstates": 1e-9, "energy": 1e-7}
"""Converged further than labels are, so that differences of energies are exact to 0.1 meV/Å."""
STEP_A = 0.01
STRAIN_STEP = 0.004
DERIVATIVE_FRAMES = (
    "LiF-rock-salt-01",
    "GaAs-zinc-blende-01",
    "BaF2-fluorite-01",
    "SrTiO3-perovskite-01",
    "LiAu-B2-01",
)
"""An ionic crystal, a semiconductor, a fluorite with a heavy metal, a perovskite, a metal with a heavy element."""
CONVERGENCE_MATERIALS = (
    "MgO-rock-salt",
    "NaCl-rock-salt",
    "GaAs-zinc-blende",
    "LiAu-B2",
    "CaF2-fluorite",
)
CUTOFF_ABOVE_EV = 200.0
BETWEEN = "r2scan - pbe"
"""What one functional has over the other, as a row of its own where convergence is told."""


def find_frame(frame_id: str) -> Frame:
    """Return a frame of the plan by its id."""
    found = _planned().get(frame_id)
    if found is None:
        raise DatasetError(f"no frame {frame_id!r} in the plan; ids are MATERIAL-NN, as in the records of a run.")
    return found


@cache
def _planned() -> dict[str, Frame]:
    return {frame.frame_id: frame for frame in plan_frames()}


def check_derivatives(frame: Frame) -> pd.DataFrame:
    """Compare forces and mean stress with central differences of the free energy, in both functionals.

    Parameters
    ----------
    frame : Frame
        A rattled crystal. What symmetry is left in it (the plan keeps some where it spares k-points) may make
        components alike or zero: in the kept table x and z of GaAs are alike, and x of LiAu is zero.

    Returns
    -------
    pandas.DataFrame
        `frame_id, functional, quantity, analytical, finite_difference, difference, unit`. Forces (eV/Å) of the first
        atom along two axes, displaced by 0.01 Å. Of stress the mean alone (GPa), no shear, at *fixed plane waves*: the
        cell is scaled by 1 ± 0.004 and the cutoff by the inverse square, which keeps the set of waves as it is.
    """
    base, _ = _energies(frame, derivatives=True)
    rows = []
    for axis in (0, 2):
        ends = [_energies(_moved(frame, axis, sign * STEP_A))[1] for sign in (1, -1)]
        for name in FUNCTIONALS:
            slope = -(ends[0][name] - ends[1][name]) / (2 * STEP_A)
            rows.append(_compared(frame, name, f"force {'xyz'[axis]}", base[name]["forces"][0, axis], slope, "eV/Å"))
    volume_a3 = abs(np.linalg.det(np.reshape(frame.lattice_a, (3, 3))))
    ends = [_energies(_scaled(frame, 1 + sign * STRAIN_STEP))[1] for sign in (1, -1)]
    for name in FUNCTIONALS:
        slope = (ends[0][name] - ends[1][name]) / (2 * STRAIN_STEP) / 3 / volume_a3 * EV_PER_A3_TO_GPA
        mean = float(np.trace(base[name]["stress"])) / 3
        rows.append(_compared(frame, name, "mean stress", mean, slope, "GPa"))
    return pd.DataFrame(rows)


def _compared(frame: Frame, name: str, quantity: str, analytical: float, slope: float, unit: str) -> dict:
    return {
        "frame_id": frame.frame_id,
        "functional": name,
        "quantity": quantity,
        "analytical": float(analytical),
        "finite_difference": float(slope),
        "difference": float(analytical - slope),
        "unit": unit,
    }


def _energies(
    frame: Frame, *, derivatives: bool = False, convergence: dict = TIGHT, names: Sequence[str] = tuple(FUNCTIONALS)
) -> tuple[dict, dict]:
    """Derivatives if asked for, and the free energy, of the functionals named, PBE first."""
    found, free = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = make_atoms(frame)
        atoms.calc = make_calculator(frame, convergence=convergence)
        for name in names:
            if name != "pbe":
                atoms.calc.set(xc=FUNCTIONALS[name])
            free[name] = float(atoms.get_potential_energy(force_consistent=True))
            if derivatives:
                stress = atoms.get_stress(voigt=False) * EV_PER_A3_TO_GPA
                found[name] = {"forces": atoms.get_forces(), "stress": stress}
    return found, free


def _moved(frame: Frame, axis: int, by_a: float) -> Frame:
    lattice = np.reshape(frame.lattice_a, (3, 3))
    coords = np.reshape(frame.frac_coords, (-1, 3)).copy()
    coords[0] += by_a * np.eye(3)[axis] @ np.linalg.inv(lattice)
    return dataclasses.replace(frame, frac_coords=tuple(coords.ravel().tolist()))


def _scaled(frame: Frame, by: float) -> Frame:
    """The cell scaled, with the cutoff that keeps the number of plane waves."""
    settings = dataclasses.replace(frame.settings, cutoff_ev=frame.settings.cutoff_ev / by**2)
    return dataclasses.replace(frame, lattice_a=tuple(by * x for x in frame.lattice_a), settings=settings)


def check_convergence(material_id: str) -> pd.DataFrame:
    """Compare differences between an equilibrium and a rattled frame with those of finer settings.

    Parameters
    ----------
    material_id : str

    Returns
    -------
    pandas.DataFrame
        `material_id, functional` (also "r2scan - pbe", what one functional has over the other), `finer` (which setting
        was made finer, and to what), `energy_mev_per_atom` (error of the energy difference of the two frames),
        `force_mev_per_a` and `stress_gpa` (largest error of a component in the rattled frame, stress with the Pulay
        term of each cutoff).
    """
    frames = [find_frame(f"{material_id}-{k:02d}") for k in (0, 1)]
    ours = _difference(frames)
    rows = []
    for label, finer in _finer_settings(frames[0]).items():
        better = _difference([dataclasses.replace(f, settings=finer) for f in frames])
        missing = {name: {key: ours[name][key] - better[name][key] for key in ours[name]} for name in FUNCTIONALS}
        missing[BETWEEN] = {key: missing["r2scan"][key] - missing["pbe"][key] for key in missing["pbe"]}
        for name, errors in missing.items():
            error = {key: np.abs(values).max() for key, values in errors.items()}
            rows.append(
                {
                    "material_id": material_id,
                    "functional": name,
                    "finer": label,
                    "energy_mev_per_atom": float(1000 * error["energy"]),
                    "force_mev_per_a": float(1000 * error["forces"]),
                    "stress_gpa": float(error["stress"]),
                }
            )
    return pd.DataFrame(rows)


def check_k_points(material_id: str, dataset=None) -> pd.DataFrame:
    """Compare shipped PBE labels of two frames with those of a denser mesh: what k-points leave out is alike in r²SCAN.

    Parameters
    ----------
    material_id : str
        Crystal with at least two frames in the dataset.
    dataset : Dataset, optional
        Default: the shipped one.

    Returns
    -------
    pandas.DataFrame
        A row: `material_id, binding, mesh, denser, energy_mev_per_atom` (error of the energy difference between the
        first frame and the first that is rattled or sheared), `force_mev_per_a` and `stress_gpa` (largest error of a
        component in the latter).
    """
    (first, second), records = _two_frames(material_id, dataset)
    (first_ev, *_), (second_ev, force, stress) = (_against_denser(f, records[f.frame_id]) for f in (first, second))
    return _denser_row(first, abs(second_ev - first_ev), force, stress)


def check_total_energy(material_id: str, dataset=None) -> pd.DataFrame:
    """Compare the shipped PBE labels of a crystal's first frame with those of a denser mesh: its energy as it is.

    What k-points leave out of all frames alike is in no difference between them, but it is in a formation energy.

    Parameters
    ----------
    material_id : str
        Crystal in the dataset.
    dataset : Dataset, optional
        Default: the shipped one.

    Returns
    -------
    pandas.DataFrame
        A row: `material_id, binding, mesh, denser, energy_mev_per_atom` (shipped minus denser), `force_mev_per_a` and
        `stress_gpa` (largest error of a component).
    """
    records = {r["frame_id"]: r for r in _records(dataset) if r["material_id"] == material_id}
    if not records:
        raise DatasetError(f"{material_id} has no frame in the dataset.")
    frame = find_frame(min(records))
    return _denser_row(frame, *_against_denser(frame, records[frame.frame_id]))


def _against_denser(frame: Frame, record: dict) -> tuple[float, float, float]:
    """Shipped PBE labels minus those of a denser mesh: energy (eV/atom), and largest deviation of force and stress."""
    denser = dataclasses.replace(frame, settings=denser_k_points(frame.settings))
    found, free_ev = _energies(denser, derivatives=True, convergence=CONVERGENCE, names=("pbe",))
    shipped = record["pbe"]
    return (
        (shipped["free_energy_ev"] - free_ev["pbe"]) / len(frame.atomic_numbers),
        float(np.abs(np.subtract(shipped["forces_ev_per_a"], found["pbe"]["forces"].ravel())).max()),
        float(np.abs(np.subtract(shipped["raw_stress_gpa"], found["pbe"]["stress"].ravel())).max()),
    )


def _denser_row(frame: Frame, energy_ev: float, force_ev_per_a: float, stress_gpa: float) -> pd.DataFrame:
    row = {
        "material_id": frame.material.material_id,
        "binding": frame.material.binding,
        "mesh": _in_text(frame.settings.k_mesh),
        "denser": _in_text(denser_k_points(frame.settings).k_mesh),
        "energy_mev_per_atom": float(1000 * energy_ev),
        "force_mev_per_a": 1000 * force_ev_per_a,
        "stress_gpa": stress_gpa,
    }
    return pd.DataFrame([row])


def _two_frames(material_id: str, dataset) -> tuple[list[Frame], dict[str, dict]]:
    """The first frame of a crystal, and the first that is rattled or sheared or else the second, with all records."""
    records = {r["frame_id"]: r for r in _records(dataset) if r["material_id"] == material_id}
    if len(records) < 2:
        raise DatasetError(f"{material_id} has {len(records)} frames in the dataset; two are compared.")
    first, *others = sorted(records)
    moved = [i for i in others if records[i]["kind"] in ("rattled", "sheared")]
    return [find_frame(frame_id) for frame_id in (first, (moved or others)[0])], records


def crystals(dataset=None, *, at_least: int = 1) -> tuple[str, ...]:
    """Return the crystals of a dataset (default: the shipped one) with so many frames or more, in the plan's order."""
    count = Counter(r["material_id"] for r in _records(dataset) if r["pbe"]["raw_stress_gpa"] is not None)
    return tuple(m.material_id for m in plan_materials() if count[m.material_id] >= at_least)


def _records(dataset) -> list[dict]:
    from crossfunc.datasets import open_dataset
    from crossfunc.dft.labels import NAME, read_records

    return read_records((dataset or open_dataset(NAME)).records)[0]


def denser_k_points(settings: Settings) -> Settings:
    """Return settings with half as many k-points again along each axis."""
    return dataclasses.replace(settings, k_mesh=three_ints(int(np.ceil(1.5 * n)) for n in settings.k_mesh))


def _in_text(mesh: Sequence[int]) -> str:
    return "x".join(map(str, mesh))


def _finer_settings(frame: Frame) -> dict:
    settings = frame.settings
    cutoff_ev = settings.cutoff_ev + CUTOFF_ABOVE_EV
    denser = denser_k_points(settings)
    grid = three_ints(2 * int(np.ceil(n * np.sqrt(cutoff_ev / settings.cutoff_ev) / 2)) for n in settings.grid)
    return {
        f"cutoff {cutoff_ev:.0f} eV": dataclasses.replace(settings, cutoff_ev=cutoff_ev, grid=grid),
        f"k-points {_in_text(denser.k_mesh)}": denser,
    }


def _difference(frames: Sequence[Frame]) -> dict[str, dict]:
    """Energy per atom of the second frame over the first; forces and corrected stress of the second."""
    (_, first), (derived, second) = (
        _energies(f, derivatives=k == 1, convergence=CONVERGENCE) for k, f in enumerate(frames)
    )
    n_atoms = len(frames[0].atomic_numbers)
    slopes = _cutoff_slopes(frames[0])
    volume_a3 = abs(np.linalg.det(np.reshape(frames[1].lattice_a, (3, 3))))
    return {
        name: {
            "energy": np.array((second[name] - first[name]) / n_atoms),
            "forces": derived[name]["forces"],
            "stress": derived[name]["stress"]
            + np.eye(3) * pulay_gpa(slopes[name], frames[0].settings.cutoff_ev, volume_a3),
        }
        for name in FUNCTIONALS
    }


def _cutoff_slopes(frame: Frame) -> dict[str, float]:
    ends = []
    for sign in (1, -1):
        settings = dataclasses.replace(frame.settings, cutoff_ev=frame.settings.cutoff_ev + sign * CUTOFF_STEP_EV)
        ends.append(_energies(dataclasses.replace(frame, settings=settings), convergence=CONVERGENCE)[1])
    return {name: (ends[0][name] - ends[1][name]) / (2 * CUTOFF_STEP_EV) for name in FUNCTIONALS}


GRID_FRAMES = ("SrTiO3-perovskite-01",)
GRIDS = (24, 28, 36)
"""Points along each axis: about what GPAW takes at this cutoff, what the plan takes, and more."""


def libxc_clamps() -> bool:
    """Return whether libxc holds r2SCAN's kinetic energy density at Weizsäcker's bound.

    A library that does has one energy for all density gradients beyond the bound, and derivatives that are not those
    of this energy; one that is built with -DDISABLE_FHC=ON goes on as the functional does.
    """
    from gpaw.xc.libxc import LibXC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functional = LibXC(FUNCTIONALS["r2scan"])
    density, tau = np.array([[0.1]]), np.array([[0.02]])
    at_bound = 8 * density * tau
    energies = []
    for sigma in (at_bound, 2 * at_bound):
        energy, *derivatives = np.zeros(1), *(np.zeros((1, 1)) for _ in range(3))
        functional.calculate(energy, density, derivatives[0], sigma, derivatives[1], tau, derivatives[2])
        energies.append(float(energy[0]))
    return energies[0] == energies[1]


def check_grid(frame: Frame) -> pd.DataFrame:
    """Compute a frame with several real-space grids: net force, and how far forces are from the finest grid's.

    The kept table has rows of two libraries: that of Debian, and the same release built without the clamp, with which
    the command was run as `LD_PRELOAD=libxc.so.9 crossfunc data check-dft grid`.

    Parameters
    ----------
    frame : Frame
        Frame of a cubic cell.

    Returns
    -------
    pandas.DataFrame
        `frame_id, functional, clamped` (`libxc_clamps`), `points, net_force_mev_per_a, force_mev_per_a` (largest
        component off the finest).
    """
    found, clamped = {}, libxc_clamps()
    for n in GRIDS:
        settings = dataclasses.replace(frame.settings, grid=(n, n, n))
        some = dataclasses.replace(frame, settings=settings)
        found[n] = _energies(some, derivatives=True, convergence=CONVERGENCE)[0]
    rows = []
    for n, by_functional in found.items():
        for name in FUNCTIONALS:
            forces, finest = by_functional[name]["forces"], found[GRIDS[-1]][name]["forces"]
            rows.append(
                {
                    "frame_id": frame.frame_id,
                    "functional": name,
                    "clamped": clamped,
                    "points": n,
                    "net_force_mev_per_a": float(1000 * np.linalg.norm(forces.sum(axis=0))),
                    "force_mev_per_a": float(1000 * np.abs(forces - finest).max()),
                }
            )
    return pd.DataFrame(rows)


RECOMPUTED = ("SiC-zinc-blende", "CsCl-cesium-chloride", "NaH-rock-salt")
"""Crystals with frames computed again by every run of the tests: cheap, one with the higher cutoff and the mesh of a
semiconductor, one of a heavy element, one of a metal and hydrogen."""


def check_recomputed(material_id: str, dataset=None) -> pd.DataFrame:
    """Compute an equilibrium and a rattled frame again and compare with the shipped rows.

    Parameters
    ----------
    material_id : str
    dataset : Dataset, optional
        Default: the shipped one.

    Returns
    -------
    pandas.DataFrame
        `frame_id, functional, energy_mev_per_atom, force_mev_per_a`: differences, of forces the largest component.
    """
    from crossfunc.datasets import open_dataset
    from crossfunc.dft.engine import compute_frame
    from crossfunc.dft.labels import NAME

    shipped = {row["frame_id"]: row for row in (dataset or open_dataset(NAME)).need_frames().to_pylist()}
    rows = []
    for frame in (find_frame(f"{material_id}-{k:02d}") for k in (0, 1)):
        record = compute_frame(frame)
        for name in FUNCTIONALS:
            row = shipped[f"{frame.frame_id}/{name}"]
            energy = record[name]["energy_ev"] / len(frame.atomic_numbers)
            moved = np.abs(np.subtract(record[name]["forces_ev_per_a"], row["forces_ev_per_a"])).max()
            rows.append(
                {
                    "frame_id": frame.frame_id,
                    "functional": name,
                    "energy_mev_per_atom": float(1000 * abs(energy - row["energy_per_atom_ev"])),
                    "force_mev_per_a": float(1000 * moved),
                }
            )
    return pd.DataFrame(rows)


CHECKS: dict[str, tuple[Callable, tuple[str, ...] | Callable[[], tuple[str, ...]]]] = {
    "derivatives": (lambda name: check_derivatives(find_frame(name)), DERIVATIVE_FRAMES),
    "convergence": (check_convergence, CONVERGENCE_MATERIALS),
    "k-points": (check_k_points, lambda: crystals(at_least=2)),
    "total-energy": (check_total_energy, crystals),
    "grid": (lambda name: check_grid(find_frame(name)), GRID_FRAMES),
    "recompute": (check_recomputed, RECOMPUTED),
    "minima": (compute_minima, tuple(SOLIDS)),
}
"""Name of a check: its function and what it is applied to."""


def run_checks(
    names: Sequence[str] = tuple(CHECKS),
    report: Callable[[str], None] = lambda _: None,
    *,
    only: Sequence[str] = (),
    known: Mapping[str, list[dict]] | None = None,
    keep: Callable[[dict[str, list[dict]]], None] = lambda _: None,
) -> dict:
    """Run checks and return their tables as lists of rows.

    Parameters
    ----------
    names : sequence of str
        Keys of `CHECKS`.
    report : callable
        Told what is being computed.
    only : sequence of str
        Cases, each of at least one of these checks; empty: all.
    known : mapping, optional
        Tables of an earlier call: cases that have rows in them are not computed again.
    keep : callable
        Given all tables after each case, so that a long run can go on where it was ended.

    Returns
    -------
    dict of str to list of dict
        Also tables of `known` that were not asked for.

    Raises
    ------
    DatasetError
        There is no such check, or none of these has such a case.
    EngineError
        GPAW is missing or lacks something, such as the dataset of an element of these cases, before anything is
        computed.
    """
    unknown = sorted(set(names) - set(CHECKS))
    if unknown:
        raise DatasetError(f"no check {', '.join(unknown)}: choose from {', '.join(CHECKS)}.")
    tables = {name: list(rows) for name, rows in (known or {}).items()}
    cases = {name: _cases(name, only) for name in names}
    if foreign := sorted(set(only) - {case for those in cases.values() for case in those}):
        raise DatasetError(
            f"no case {', '.join(foreign)} in {', '.join(names)}: cases are crystals or frames, as a table's rows have "
            "them (MgO-rock-salt, SrTiO3-perovskite-01)."
        )
    missing = {name: _missing(those, tables.get(name, [])) for name, those in cases.items()}
    check_engine(_materials_of([case for those in missing.values() for case in those]))
    for name, those in missing.items():
        rows = tables.setdefault(name, [])
        for case in those:
            report(f"{name}: {case}")
            rows += CHECKS[name][0](case).to_dict("records")
            keep(tables)
    return tables


def _cases(name: str, only: Sequence[str]) -> list[str]:
    """What a check is applied to, or those of it that are asked for, in the order asked."""
    given = CHECKS[name][1]
    every = given() if callable(given) else given
    return [case for case in only if case in every] if only else list(every)


def _missing(cases: Sequence[str], rows: list[dict]) -> list[str]:
    return [case for case in cases if not any(_is_of(row, case) for row in rows)]


def _materials_of(cases: Sequence[str]) -> list[Material]:
    """Materials that cases name, or frames of theirs."""
    named = {*cases, *(case.rpartition("-")[0] for case in cases)}
    return [material for material in (*plan_materials(), *SOLIDS.values()) if material.material_id in named]


def read_tables(path: Path) -> dict[str, list[dict]]:
    """Read tables that `run_checks` returned and that were written as JSON.

    Raises
    ------
    DatasetError
        The file is none of these; names it.
    """
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        fits = all(
            name in CHECKS and all("frame_id" in r or "material_id" in r for r in t) for name, t in tables.items()
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DatasetError(f"{path}: no tables of checks ({error}); leave out --missing to write it anew.") from error
    if not fits:
        raise DatasetError(f"{path}: no tables of checks; leave out --missing to write it anew.")
    return tables


def _is_of(row: Mapping, case: str) -> bool:
    """Whether a row is of a case: of this frame or material, or of a frame of this material."""
    named = row.get("material_id") or row["frame_id"]
    return named == case or named.rpartition("-")[0] == case


def as_text(tables: dict[str, list[dict]]) -> str:
    """Return the tables for a terminal."""
    parts = [
        f"{name}\n{pd.DataFrame(rows).to_string(index=False, float_format='%.4f')}" for name, rows in tables.items()
    ]
    return "\n\n".join(parts)
