"""Energies, forces and stress of one frame in PBE and r2SCAN by GPAW, with the settings of `crossfunc.dft.settings`.

Plane waves and the projector augmented-wave method, through ASE.
"""

import os
import resource
import time
from importlib import metadata

import numpy as np

from crossfunc.datasets.schema import DatasetError
from crossfunc.dft.plan import Frame, Material
from crossfunc.dft.settings import (
    ATOM_CONVERGENCE,
    CAREFUL_MIXING,
    CONVERGENCE,
    CUTOFF_STEP_EV,
    EMPTY_BANDS,
    EMPTY_BANDS_PER_ATOM,
    FULL,
    FUNCTIONALS,
    GPAW_RELEASE,
    K_LENGTH_A,
    MAX_ITERATIONS,
    METALLIC,
    MIXING,
    OLDEST_LIBXC,
    SYMMETRY_TOLERANCE,
)
from crossfunc.dft.vacuum import make_functional
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.units import EV_PER_A3_TO_GPA

__all__ = ["FUNCTIONALS", "EngineError", "NotConverged", "check_engine", "compute_frame", "refuse_uncomputable"]


class EngineError(DatasetError):
    """GPAW cannot compute this here; the message says why and what to do."""


class NotConverged(EngineError):  # noqa: N818 - a result, not a mistake
    """GPAW works and gives this frame no labels: it would not on any machine, so the frame belongs into the ledger."""


def check_engine(materials: list[Material] | None = None) -> dict[str, str]:
    """Say which GPAW computes, or what is missing, before anything is computed.

    Parameters
    ----------
    materials : list of Material, optional
        Their elements must have a PBE dataset.

    Returns
    -------
    dict
        Versions of GPAW, its datasets, libxc and ASE.

    Raises
    ------
    EngineError
        GPAW or its datasets are not installed, libxc has no r2SCAN, or an element has no dataset.
    """
    try:
        import gpaw
        from gpaw.xc import XC
    except ImportError as error:
        raise EngineError(
            f"DFT needs GPAW ({error}). On Debian: apt-get install libxc-dev libopenblas-dev libfftw3-dev, then "
            f"pip install 'crossfunc[dft]'; with conda: conda install -c conda-forge gpaw={GPAW_RELEASE} gpaw-data. "
            "The shipped dataset pbe-r2scan needs neither."
        ) from error
    try:
        XC(FUNCTIONALS["r2scan"])
    except (NameError, KeyError, ValueError) as error:
        raise EngineError(
            f"GPAW's libxc does not know r2SCAN ({str(error).rstrip('.')}): it came with libxc {OLDEST_LIBXC}. "
            "Install that or a newer libxc and build GPAW again."
        ) from error
    elements = {e for m in materials or () for e in m.elements}
    missing = sorted(e for e in elements if not _has_dataset(e))
    if missing:
        raise EngineError(
            f"No PBE dataset for {', '.join(missing)}: pip install gpaw-data, or leave materials with "
            f"{'it' if len(missing) == 1 else 'them'} out of the plan."
        )
    return {"gpaw": gpaw.__version__, **{name: _version(name) for name in ("gpaw-data", "ase")}, "libxc": _libxc()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _libxc() -> str:
    from gpaw import get_libraries

    return str(get_libraries().get("libxc") or "unknown")


def _has_dataset(symbol: str) -> bool:
    from pathlib import Path

    from gpaw import setup_paths

    return any((Path(folder) / f"{symbol}.PBE{end}").exists() for folder in setup_paths for end in ("", ".gz"))


def compute_frame(frame: Frame) -> dict:
    """Compute one frame in PBE and then, from its density, in r2SCAN.

    Parameters
    ----------
    frame : Frame

    Returns
    -------
    dict
        `frame_id` and the input (`atomic_numbers`, `frac_coords`, `lattice_a`), and under `pbe` and `r2scan`:
        `energy_ev` (of the cell, extrapolated to zero broadening), `free_energy_ev` (whose derivatives the forces
        are), `forces_ev_per_a`, `raw_stress_gpa` (9 numbers, tension positive, without the Pulay correction; null in a
        box), `net_force_ev_per_a`, `iterations`, `k_points`, `cpu_s`; of equilibrium frames of crystals also
        `de_dcutoff` (eV per eV); `peak_memory_gb` of the process.

    Raises
    ------
    NotConverged
        No self-consistent density was found, with slow mixing either, or a metal has too few bands.
    """
    record: dict = {
        "frame_id": frame.frame_id,
        "atomic_numbers": list(frame.atomic_numbers),
        "frac_coords": list(frame.frac_coords),
        "lattice_a": list(frame.lattice_a),
    }
    in_box = frame.material.binding in ("molecule", "atom")
    record.update(_both(frame, frame.settings.cutoff_ev, derivatives=True, stress=not in_box))
    if frame.step.kind == "equilibrium" and not in_box:
        high, low = (
            _both(frame, frame.settings.cutoff_ev + sign * CUTOFF_STEP_EV, derivatives=False) for sign in (1, -1)
        )
        for name in FUNCTIONALS:
            slope = (high[name]["free_energy_ev"] - low[name]["free_energy_ev"]) / (2 * CUTOFF_STEP_EV)
            record[name]["de_dcutoff"] = slope
            record[name]["cutoff_cpu_s"] = round(high[name]["cpu_s"] + low[name]["cpu_s"], 2)
    record["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 3)
    return record


def refuse_uncomputable(frames: list[Frame]) -> None:
    """Refuse frames whose settings cannot give labels, before anything is computed.

    Raises
    ------
    EngineError
        An atom of a crystal without neighbours, or a metal without k-points; names the frame and the remedy.
    """
    for frame in frames:
        if frame.material.binding in ("molecule", "atom"):
            continue
        lattice, coords = np.reshape(frame.lattice_a, (3, 3)), np.reshape(frame.frac_coords, (-1, 3))
        alone = _atom_without_neighbours(coords, lattice)
        if alone is not None:
            raise EngineError(
                f"{frame.frame_id}: atom {alone + 1} has no neighbour within {REACH_A:g} Å, so it is a free atom and "
                "needs a spin-polarised calculation in a box: use crossfunc.dft.plan.plan_atoms, or correct the cell."
            )
        if frame.material.binding in METALLIC and max(frame.settings.k_mesh) == 1:
            raise EngineError(
                f"{frame.frame_id}: a metal with one k-point; its energy would be off by tenths of an eV. Give a mesh "
                "whose number of points times the distance of the lattice planes is "
                f"{K_LENGTH_A['metal']:g} Å or more."
            )


REACH_A = 6.0
"""Beyond it CHGNet sees no neighbour either."""


def _atom_without_neighbours(coords: np.ndarray, lattice: np.ndarray) -> int | None:
    from vesin import NeighborList

    neighbours = NeighborList(cutoff=REACH_A, full_list=True)
    (first,) = neighbours.compute(points=coords @ lattice, box=lattice, periodic=True, quantities="i")
    alone = np.setdiff1d(np.arange(len(coords)), first)
    return int(alone[0]) if len(alone) else None


def pulay_gpa(de_dcutoff: float, cutoff_ev: float, volume_a3: float) -> float:
    """Return the Pulay correction of the mean stress, 2/3 E_cut/V dE/dE_cut (Dacosta, Nielsen and Kunc 1986).

    A fixed cutoff means more plane waves in a larger cell, which lowers the energy a little beside the real change;
    the stress of a fixed set of plane waves lacks that part. Here it is *added*, so that stress is the derivative of
    the energy at converged cutoff (tension positive).
    """
    return 2 / 3 * cutoff_ev / volume_a3 * de_dcutoff * EV_PER_A3_TO_GPA


def make_atoms(frame: Frame):
    """Return the frame as ASE's Atoms."""
    from ase import Atoms

    symbols = [ELEMENT_SYMBOLS[z - 1] for z in frame.atomic_numbers]
    coords = np.reshape(frame.frac_coords, (-1, 3))
    atoms = Atoms(symbols, cell=np.reshape(frame.lattice_a, (3, 3)), pbc=True, scaled_positions=coords)
    if frame.settings.moment_mub:
        atoms.set_initial_magnetic_moments([frame.settings.moment_mub / len(atoms)] * len(atoms))
    return atoms


def make_calculator(frame: Frame, *, cutoff_ev: float | None = None, careful: bool = False, **options):
    """Return GPAW set up for a frame in PBE; `options` go to GPAW as they are."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one frame per core: more threads only wait for each other
    from gpaw import GPAW, PW, FermiDirac, Mixer, MixerSum

    settings = frame.settings
    polarised = settings.moment_mub is not None
    mixing = CAREFUL_MIXING if careful else MIXING
    arguments = {
        "mode": PW(cutoff_ev or settings.cutoff_ev),
        "xc": FUNCTIONALS["pbe"],
        "kpts": {"size": settings.k_mesh, "gamma": True},
        "gpts": settings.grid,
        "occupations": FermiDirac(settings.width_ev, fixmagmom=polarised),
        "convergence": CONVERGENCE,
        "mixer": (MixerSum if polarised else Mixer)(*mixing),
        "symmetry": {"tolerance": SYMMETRY_TOLERANCE},
        "spinpol": polarised,
        "maxiter": MAX_ITERATIONS[careful],
        "txt": None,
        **_bands(frame),
        **_direct_minimisation(frame),
    }
    return GPAW(**{**arguments, **options})


def _both(frame: Frame, cutoff_ev: float, **what) -> dict[str, dict]:
    """Both functionals; once more with slow mixing where the fast one fails and densities are mixed at all."""
    from gpaw import KohnShamConvergenceError

    reason = ""
    for careful in (False,) if _direct_minimisation(frame) else (False, True):
        try:
            return _run(frame, cutoff_ev, careful=careful, **what)
        except KohnShamConvergenceError as error:
            reason = str(error)
    raise NotConverged(f"no self-consistent density was found ({reason})")


def _run(frame: Frame, cutoff_ev: float, *, careful: bool, **what) -> dict[str, dict]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GPAW warns of libxc's enforced curvature for every frame: see the page
        atoms = make_atoms(frame)
        atoms.calc = make_calculator(frame, cutoff_ev=cutoff_ev, careful=careful)
        results = {"pbe": _labels(atoms, **what)}
        _check_bands(frame, atoms.calc)
        atoms.calc.set(xc=_r2scan(frame))
        results["r2scan"] = _labels(atoms, **what)
        _check_bands(frame, atoms.calc)
    return results


def _direct_minimisation(frame: Frame) -> dict:
    """Options of GPAW that find a free atom's orbitals by minimising the energy, with no density mixed (Ivanov 2021).

    Each orbital of an open shell holds one electron throughout. Where electrons go to the lowest orbitals of each step
    instead, those of nearly equal energy change places without end: potassium, lanthanum, platinum.
    Source: Ivanov et al., J. Chem. Theory Comput. 17, 5034 (2021).
    """
    if frame.material.binding != "atom":
        return {}
    return {
        "eigensolver": {"name": "etdm-fdpw", "converge_unocc": False},
        "mixer": {"backend": "no-mixing"},
        "occupations": {"name": "fixed-uniform"},
        "symmetry": "off",
        "nbands": -(int(np.ceil((frame.settings.moment_mub or 0) / 2)) + 2),
        "convergence": ATOM_CONVERGENCE,
        "maxiter": MAX_ITERATIONS[True],
    }


def _bands(frame: Frame) -> dict[str, int]:
    """Options of GPAW that give a metal empty bands; a negative number counts those beyond the electrons."""
    if frame.material.binding not in METALLIC:
        return {}
    return {"nbands": -(EMPTY_BANDS + EMPTY_BANDS_PER_ATOM * len(frame.atomic_numbers))}


def _check_bands(frame: Frame, calculator) -> None:
    if frame.material.binding not in METALLIC:
        return
    weights = calculator.get_k_point_weights()
    top = max(calculator.get_occupation_numbers(k)[-1] / w for k, w in enumerate(weights))
    if top > 2 * FULL:
        raise NotConverged(
            f"the highest of {calculator.get_number_of_bands()} bands of this metal holds electrons "
            f"({top / 2:.2g} of a full band), so higher ones are missing; raise EMPTY_BANDS in crossfunc.dft.settings."
        )


def _r2scan(frame: Frame):
    """What GPAW takes as r2SCAN; in a box with vacuum lifted where grids break the bound of exact densities."""
    name = FUNCTIONALS["r2scan"]
    return make_functional(name) if frame.material.binding in ("molecule", "atom") else name


def _labels(atoms, *, derivatives: bool, stress: bool = False) -> dict:
    start = time.process_time()
    labels: dict = {
        "free_energy_ev": float(atoms.get_potential_energy(force_consistent=True)),
        "energy_ev": float(atoms.get_potential_energy()),
    }
    if derivatives:
        forces = atoms.get_forces()
        labels["forces_ev_per_a"] = np.round(forces, 6).ravel().tolist()
        labels["net_force_ev_per_a"] = round(float(np.linalg.norm(forces.sum(axis=0))), 6)
        tensor = atoms.get_stress(voigt=False) * EV_PER_A3_TO_GPA if stress else None
        labels["raw_stress_gpa"] = None if tensor is None else np.round(tensor, 5).ravel().tolist()
    labels["iterations"] = int(atoms.calc.get_number_of_iterations())
    labels["k_points"] = len(atoms.calc.get_ibz_k_points())
    labels["cpu_s"] = round(time.process_time() - start, 2)
    return labels
