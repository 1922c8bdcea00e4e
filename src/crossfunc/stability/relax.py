"""Relax many crystals at once: FIRE over atoms and cell, one batched forward pass per step.

Each crystal follows the path that ASE's `FIRE(FrechetCellFilter(atoms))` would take; only the loop over crystals is
gone. The cell moves as `lattice = lattice_0 @ expm(U).T` with the generalised coordinate U x n_atoms, so its volume
cannot change sign.
"""

from dataclasses import dataclass

import numpy as np

from crossfunc.potential.crystals import Crystals, concatenate_ranges
from crossfunc.units import ev_per_a3_from_gpa

CONVERGED, NOT_CONVERGED, REFUSED, EXPLODED = "converged", "not converged", "refused", "exploded"
OVERLAPPING = "overlapping"

_DT, _MAX_STEP_A, _DT_MAX, _N_MIN = 0.1, 0.2, 1.0, 5  # ASE's FIRE defaults
_GROW, _SHRINK, _ALPHA, _ALPHA_SHRINK = 1.1, 0.5, 0.1, 0.99
_VOLUME_RATIO = (0.2, 5.0)
_CLOSEST_A = 0.6  # H2 has 0.74; no two atoms of a crystal come closer, but potentials have minima there


@dataclass(frozen=True)
class Relaxation:
    """Relaxed crystals in the order given, with what happened to each.

    Attributes
    ----------
    crystals : Crystals
        Final geometry; of a crystal that was refused or exploded, the last good one.
    energy_per_atom_ev : ndarray, shape (n,)
        NaN where the crystal was refused.
    max_force_ev_per_a : ndarray, shape (n,)
        Largest generalised force (atoms and cell) at the end.
    n_steps : ndarray of int, shape (n,)
    status : ndarray of str, shape (n,)
        "converged", "not converged" (out of steps), "refused" (no graph), "exploded", or "overlapping" (forces are
        small, but two atoms sit on top of each other: no result).
    messages : dict of int to str
        Why, for those that were refused, exploded or overlap.
    """

    crystals: Crystals
    energy_per_atom_ev: np.ndarray
    max_force_ev_per_a: np.ndarray
    n_steps: np.ndarray
    status: np.ndarray
    messages: dict[int, str]


def relax(
    model, structures, *, fmax=0.05, cell: bool = True, max_steps: int = 500, progress: bool = False
) -> Relaxation:
    """Relax structures until every generalised force is below `fmax` (eV/Å).

    Parameters
    ----------
    model : CHGNet, AseModel or ASE Calculator
        From `load_model` or `load_calculator`.
    structures : Crystals, or sequence of pymatgen Structure or ASE Atoms
    fmax : float
        As ASE counts it with a FrechetCellFilter: largest norm over the atoms' forces and the cell's three rows.
    cell : bool
        False keeps the lattices.
    max_steps : int
    progress : bool
        Show a bar of crystals that are done.

    Returns
    -------
    Relaxation

    Raises
    ------
    CalculatorError
        A calculator without forces, or without stress where the cell is to move.
    """
    from tqdm import tqdm

    from crossfunc.potential.ase_model import AseModel, as_model

    model = as_model(model)
    if isinstance(model, AseModel):
        model.require("forces", remedy="nothing can be relaxed without")
        if cell:
            model.require("stress", remedy="keep the cells as they are (cell=False)")
    start = structures if isinstance(structures, Crystals) else Crystals.from_structures(structures)
    state = _FireState(start, cell)
    with tqdm(total=len(start), desc="relax", disable=not progress) as bar:
        for step in range(max_steps + 1):
            active = np.flatnonzero(state.status == NOT_CONVERGED)
            if len(active) == 0:
                break
            forces = state.evaluate(model, active)
            done = state.settle(active, forces, fmax, step)
            bar.update(int(done.sum()))
            if step < max_steps:
                state.advance(active[~done], forces[~np.repeat(done, start.n_atoms[active] + 3)])
    return state.result()


class _FireState:
    """Generalised coordinates (atoms in the undeformed cell, then n_atoms x U) and FIRE's velocities, flat."""

    def __init__(self, start: Crystals, cell: bool):
        self.start, self.cell = start, cell
        n = len(start)
        self.rows = start.n_atoms + 3
        self.row_starts = np.cumsum(self.rows) - self.rows
        self.x = np.zeros((self.rows.sum(), 3))
        self.atom_rows = np.arange(len(start.atomic_numbers)) + 3 * start.owners
        self.x[self.atom_rows] = start.positions_a
        self.velocity = np.zeros_like(self.x)
        self.dt = np.full(n, _DT)
        self.alpha = np.full(n, _ALPHA)
        self.n_downhill = np.zeros(n, dtype=int)
        self.frac, self.lattices = start.frac_coords.copy(), start.lattices_a.copy()
        self.energy = np.full(n, np.nan)
        self.fmax = np.full(n, np.nan)
        self.n_steps = np.zeros(n, dtype=int)
        self.status = np.full(n, NOT_CONVERGED, dtype=object)
        self.messages: dict[int, str] = {}

    def _rows_of(self, crystals: np.ndarray) -> np.ndarray:
        return concatenate_ranges(self.row_starts[crystals], self.rows[crystals])

    def _cell_rows(self, crystals: np.ndarray) -> np.ndarray:
        return (self.row_starts + self.start.n_atoms)[crystals][:, None] + np.arange(3)

    def _geometry(self, crystals: np.ndarray) -> tuple[Crystals, np.ndarray, np.ndarray]:
        """Return the crystals as they stand, with U and the deformation gradient expm(U)."""
        from scipy.linalg import expm  # torch's may wait for a second thread, longer than these small matrices take

        u = self.x[self._cell_rows(crystals)] / self.start.n_atoms[crystals][:, None, None]
        deformation = expm(u)
        chosen = self.start.take(crystals)
        lattices = chosen.lattices_a @ deformation.transpose(0, 2, 1)
        atoms = self.x[self.atom_rows[self.start.atom_indices(crystals)]]
        inverse = np.linalg.inv(chosen.lattices_a)
        frac = np.einsum("ni,nij->nj", atoms, inverse[chosen.owners])
        return Crystals(chosen.atomic_numbers, frac, lattices, chosen.n_atoms), u, deformation

    def evaluate(self, model, active: np.ndarray) -> np.ndarray:
        """Energies and generalised forces of the active crystals; those that cannot go on get NaN forces."""
        from crossfunc.potential.chgnet import predict

        crystals, u, deformation = self._geometry(active)
        output = predict(model, crystals, strict=False)
        for k, reason in output["refused"].items():
            self.messages[int(active[k])] = reason
        forces = np.concatenate(output["forces_ev_per_a"])
        ratio = np.abs(np.linalg.det(crystals.lattices_a) / np.linalg.det(self.start.lattices_a[active]))
        bad = (ratio < _VOLUME_RATIO[0]) | (ratio > _VOLUME_RATIO[1]) | ~np.isfinite(output["energy_per_atom_ev"])
        for k in np.flatnonzero(bad & ~np.isin(np.arange(len(active)), list(output["refused"]))):
            ok = np.isfinite(output["energy_per_atom_ev"][k])
            self.messages[int(active[k])] = f"volume changed {ratio[k]:.2f}-fold" if ok else "its energy is not finite"
        good = ~bad
        self.energy[active[good]] = output["energy_per_atom_ev"][good]
        self.lattices[active[good]] = crystals.lattices_a[good]
        keep = good[crystals.owners]
        self.frac[self.start.atom_indices(active)[keep]] = crystals.frac_coords[keep]
        general = np.full((self.rows[active].sum(), 3), np.nan)
        starts = np.cumsum(self.rows[active]) - self.rows[active]
        atom_rows = np.arange(len(forces)) + 3 * crystals.owners
        general[atom_rows] = np.einsum("ni,nij->nj", forces, deformation[crystals.owners])
        volumes = np.abs(np.linalg.det(crystals.lattices_a))
        virial = -ev_per_a3_from_gpa(output["stress_gpa"]) * volumes[:, None, None]
        cell_force = _log_deformation_force(u, deformation, virial) / crystals.n_atoms[:, None, None]
        general[(starts + crystals.n_atoms)[:, None] + np.arange(3)] = cell_force if self.cell else 0.0
        general[np.repeat(bad, self.rows[active])] = np.nan
        return general

    def settle(self, active: np.ndarray, forces: np.ndarray, fmax: float, step: int) -> np.ndarray:
        """Record convergence or failure; return which of the active crystals are done."""
        starts = np.cumsum(self.rows[active]) - self.rows[active]
        largest = np.sqrt(np.maximum.reduceat((forces**2).sum(axis=1), starts))
        failed = np.isnan(largest)
        converged = ~failed & (largest < fmax)
        self.fmax[active[~failed]] = largest[~failed]
        self.n_steps[active] = step
        self.status[active[converged]] = CONVERGED
        self.status[active[failed]] = REFUSED if step == 0 else EXPLODED
        for k in active[converged]:
            atoms = self.start.atom_indices([k])
            closest = _closest_a(self.frac[atoms] @ self.lattices[k], self.lattices[k])
            if closest < _CLOSEST_A:
                self.status[k] = OVERLAPPING
                self.messages[int(k)] = f"forces are small, but two atoms are {closest:.2f} Å apart"
        return failed | converged

    def advance(self, active: np.ndarray, forces: np.ndarray) -> None:
        """Take one FIRE step, every crystal with its own time step and mixing."""
        if len(active) == 0:
            return
        rows, lengths = self._rows_of(active), self.rows[active]
        starts = np.cumsum(lengths) - lengths

        def dot(a, b):
            return np.add.reduceat((a * b).sum(axis=1), starts)

        velocity = self.velocity[rows]
        power = dot(forces, velocity)
        downhill = power > 0
        ff, vv = dot(forces, forces), dot(velocity, velocity)
        mix = np.where(downhill, self.alpha[active], 0.0)
        along = mix * np.sqrt(vv / np.where(ff > 0, ff, 1.0))
        keep = np.where(downhill, 1 - mix, 0.0)  # uphill: stop
        velocity = np.repeat(keep, lengths)[:, None] * velocity + np.repeat(along, lengths)[:, None] * forces
        self._adapt(active, downhill, moving=vv > 0)
        velocity += np.repeat(self.dt[active], lengths)[:, None] * forces
        move = np.repeat(self.dt[active], lengths)[:, None] * velocity
        length = np.sqrt(dot(move, move))
        scale = np.where(length > _MAX_STEP_A, _MAX_STEP_A / np.where(length > 0, length, 1.0), 1.0)
        self.velocity[rows] = velocity
        self.x[rows] += np.repeat(scale, lengths)[:, None] * move

    def _adapt(self, active: np.ndarray, downhill: np.ndarray, moving: np.ndarray) -> None:
        dt, alpha, n = self.dt[active], self.alpha[active], self.n_downhill[active]
        faster = downhill & (n > _N_MIN)
        slower = ~downhill & moving  # ASE's very first step, from rest, changes nothing
        self.dt[active] = np.where(faster, np.minimum(dt * _GROW, _DT_MAX), np.where(slower, dt * _SHRINK, dt))
        self.alpha[active] = np.where(faster, alpha * _ALPHA_SHRINK, np.where(slower, _ALPHA, alpha))
        self.n_downhill[active] = np.where(downhill, n + 1, 0)

    def result(self) -> Relaxation:
        crystals = Crystals(self.start.atomic_numbers, self.frac, self.lattices, self.start.n_atoms)
        return Relaxation(crystals, self.energy, self.fmax, self.n_steps, self.status.astype(str), self.messages)


def _closest_a(positions_a: np.ndarray, lattice_a: np.ndarray) -> float:
    """Shortest distance of two atoms, Å; infinite where it is no concern."""
    from vesin import NeighborList

    (distances,) = NeighborList(cutoff=_CLOSEST_A, full_list=False).compute(positions_a, lattice_a, True, "d")
    return float(distances.min(initial=np.inf))


def _log_deformation_force(u: np.ndarray, deformation: np.ndarray, virial: np.ndarray) -> np.ndarray:
    """-dE/dU for F = expm(U): the adjoint Fréchet derivative of expm at Uᵀ, applied to virial @ F⁻ᵀ."""
    from scipy.linalg import expm

    slope = virial @ np.linalg.inv(deformation).transpose(0, 2, 1)
    block = np.zeros((len(u), 6, 6))
    block[:, :3, :3] = block[:, 3:, 3:] = u.transpose(0, 2, 1)
    block[:, :3, 3:] = slope
    return expm(block)[:, :3, 3:]
