"""Which crystals are computed, how each is displaced, and with which settings: a pure function of the seed."""

import csv
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from crossfunc.dft.settings import (
    ATOM_BOX_A,
    BOX_A,
    CUTOFF_EV,
    GRID_SPACING_A,
    HARD,
    K_LENGTH_A,
    LONG_A,
    METAL_K_LENGTH_A,
    WIDTH_EV,
)
from crossfunc.errors import InputError
from crossfunc.surrogate.prototypes import Prototype, prototypes, read_prototypes
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

__all__ = [
    "RECIPE",
    "Frame",
    "Material",
    "Settings",
    "Step",
    "frames_of",
    "plan_atoms",
    "plan_frames",
    "plan_materials",
    "plan_run",
]

THREEFOLD = ("semiconductor", "semimetal")
"""Crystals whose rattled frames keep a threefold axis where there is one, which pays for their meshes."""
BOND_A = {"H": 0.741, "N": 1.098, "O": 1.208, "F": 1.412, "Cl": 1.988}
"""Measured bond lengths of the molecules (Huber and Herzberg 1979), where their frames start."""
UNPAIRED_MOLECULES = {"O": 2}
LOWEST_DISTANCE = 0.68
"""Of the start cell's shortest contact: displacements that bring two atoms closer are damped."""


@dataclass(frozen=True)
class Step:
    """One entry of the recipe: what is done to a start cell.

    Attributes
    ----------
    kind : {"equilibrium", "volume", "rattled", "sheared"}
    strain : float
        Isotropic linear strain.
    shear : float
        Amplitude of a random symmetric strain (of `sheared`: of a tetragonal one, which keeps most symmetry).
    rattle_a : float
        Standard deviation of each coordinate's displacement, Å.
    """

    kind: str
    strain: float = 0.0
    shear: float = 0.0
    rattle_a: float = 0.0


RECIPE = (
    Step("equilibrium"),
    Step("rattled", 0.0, 0.02, 0.10),
    Step("volume", -0.03),
    Step("volume", 0.03),
    Step("rattled", 0.02, 0.02, 0.05),
    Step("rattled", -0.02, 0.03, 0.15),
    Step("rattled", 0.03, 0.04, 0.08),
    Step("sheared", 0.0, 0.04),
    Step("rattled", -0.01, 0.03, 0.12),
    Step("rattled", 0.01, 0.05, 0.15),
)
"""Frames of a material in the order in which they are computed; each material gets the first before any the second."""
_EARLY_STEPS = 4
_MOLECULE_RECIPE = tuple(Step("equilibrium" if s == 0 else "volume", s) for s in (0.0, -0.03, 0.03, -0.06, 0.06, 0.10))


@dataclass(frozen=True)
class Material:
    """A crystal or molecule of the plan.

    Attributes
    ----------
    material_id : str
        Formula and structure type.
    prototype : str
    elements : tuple of str
    binding : {"insulator", "semiconductor", "semimetal", "metal", "molecule", "atom"}
        Decides on k-points and broadening.
    k_length_a : float, optional
        In place of what `K_LENGTH_A` has for its binding.
    """

    material_id: str
    prototype: str
    elements: tuple[str, ...]
    binding: str
    k_length_a: float | None = None


@dataclass(frozen=True)
class Settings:
    """Numerical settings of a material, the same for all its frames so that energies are smooth.

    Attributes
    ----------
    cutoff_ev : float
        Largest kinetic energy of a plane wave.
    k_mesh : tuple of int
    grid : tuple of int
        Points of the real-space grid along each axis; densities use twice as many.
    width_ev : float
        Width of the Fermi function.
    moment_mub : float or None
        Fixed spin moment; None: not spin-polarised.
    """

    cutoff_ev: float
    k_mesh: tuple[int, int, int]
    grid: tuple[int, int, int]
    width_ev: float
    moment_mub: float | None = None


@dataclass(frozen=True)
class Frame:
    """One structure to compute in both functionals.

    Attributes
    ----------
    frame_id : str
        Material and number in its recipe.
    material : Material
    step : Step
    atomic_numbers : tuple of int
    frac_coords : tuple of float
        3 per atom, rounded as they are stored.
    lattice_a : tuple of float
        9 numbers, row vectors.
    settings : Settings
    """

    frame_id: str
    material: Material
    step: Step
    atomic_numbers: tuple[int, ...]
    frac_coords: tuple[float, ...]
    lattice_a: tuple[float, ...]
    settings: Settings

    @property
    def order(self) -> int:
        """Number in the recipe."""
        return int(self.frame_id.rsplit("-", 1)[1])


@cache
def plan_materials() -> tuple[Material, ...]:
    """Return the materials of the plan, from `materials.csv` beside this module."""
    text = resources.files("crossfunc.dft").joinpath("materials.csv").read_text(encoding="utf-8")
    return tuple(_material(row) for row in csv.DictReader(text.splitlines()))


def _material(row: dict[str, str]) -> Material:
    elements = tuple(row["elements"].split("-"))
    if row["binding"] == "molecule":
        return Material(f"{elements[0]}2-molecule", "molecule", elements, "molecule")
    counts = dft_prototypes()[row["prototype"]].formula
    formula = "".join(f"{e}{n if n > 1 else ''}" for e, n in zip(elements, counts, strict=True))
    length = float(row["k_length_a"]) if row["k_length_a"] else None
    return Material(f"{formula}-{row['prototype']}", row["prototype"], elements, row["binding"], length)


@cache
def dft_prototypes() -> dict[str, Prototype]:
    """Return the surrogate's structure types and those that only this plan uses, by name."""
    text = resources.files("crossfunc.dft").joinpath("prototypes.csv").read_text(encoding="utf-8")
    return {**prototypes(), **read_prototypes(text)}


@cache
def _start_cells() -> dict[str, dict]:
    """Start cells: prototypes relaxed by CHGNet's r2scan checkpoint and brought back to their full symmetry."""
    return json.loads(resources.files("crossfunc.dft").joinpath("start_cells.json").read_text(encoding="utf-8"))


def plan_frames(seed: int = 0, n_steps: int = len(RECIPE)) -> list[Frame]:
    """List the frames of the crystals and molecules, breadth first.

    Parameters
    ----------
    seed : int
        Drives every displacement. Each frame's depends on the seed and its own id alone, so that longer recipes and
        more materials leave what is computed valid.
    n_steps : int
        How far to go in the recipe.

    Returns
    -------
    list of Frame
    """
    if not 1 <= n_steps <= len(RECIPE):
        raise InputError(f"n_steps is {n_steps}; the recipe has 1 to {len(RECIPE)} steps.")
    frames = []
    for k in range(n_steps):
        for material in plan_materials():
            frame = _frame(material, k, seed)
            if frame is not None:
                frames.append(frame)
    return frames


def plan_run(seed: int = 0, n_steps: int = len(RECIPE)) -> list[Frame]:
    """List all that a run computes: frames as in `plan_frames`, the isolated atoms after what fixes E(V)."""
    frames = plan_frames(seed, n_steps)
    early = [f for f in frames if f.order < _EARLY_STEPS]
    return early + plan_atoms() + frames[len(early) :]


def plan_atoms(elements: list[str] | None = None) -> list[Frame]:
    """List the isolated, spin-polarised atoms of the plan's elements, in order of atomic number.

    Parameters
    ----------
    elements : list of str, optional
        Default: all elements of the plan.

    Returns
    -------
    list of Frame
    """
    chosen = {e for m in plan_materials() for e in m.elements} if elements is None else set(elements)
    return [_atom(symbol) for symbol in ELEMENT_SYMBOLS if symbol in chosen]


def frames_of(material: Material, atoms, kinds: Sequence[str]) -> list[Frame]:
    """List the frames of a crystal that is not in the plan's table, with the steps and settings of one that is.

    Parameters
    ----------
    material : Material
    atoms : ase.Atoms
        Start cell.
    kinds : sequence of str
        Which steps of the recipe: those of these kinds.

    Returns
    -------
    list of Frame
    """
    cell = {
        "numbers": atoms.numbers.tolist(),
        "lattice_a": np.asarray(atoms.cell).ravel().tolist(),
        "frac_coords": atoms.get_scaled_positions().ravel().tolist(),
    }
    steps = [k for k, step in enumerate(RECIPE) if step.kind in kinds]
    return [frame for k in steps if (frame := _displaced(material, cell, k, seed=0)) is not None]


def frame_id_of(material_id: str, k: int) -> str:
    """Return the id of a material's frame: what it is made of, and its number in the recipe."""
    return f"{material_id}-{k:02d}"


@cache
def materials_of_frames() -> dict[str, str]:
    """Return the material of every frame id of the plan, for records that were kept without it."""
    alone = {e for material in plan_materials() for e in material.elements}
    materials = [material.material_id for material in plan_materials()] + [f"{symbol}-atom" for symbol in alone]
    return {frame_id_of(material_id, k): material_id for material_id in materials for k in range(len(RECIPE))}


def _frame(material: Material, k: int, seed: int) -> Frame | None:
    if material.binding == "molecule":
        return _molecule(material, k)
    return _displaced(material, _start_cells()[material.material_id], k, seed)


def _displaced(material: Material, cell: dict, k: int, seed: int) -> Frame | None:
    step = RECIPE[k]
    numbers = np.array(cell["numbers"])
    lattice = np.array(cell["lattice_a"]).reshape(3, 3)
    coords = np.array(cell["frac_coords"]).reshape(-1, 3)
    if len(numbers) == 1 and step.rattle_a:
        if k > 5:
            return None  # one atom has no forces: strained cells of it say all that there is
        step = Step("sheared", step.strain, 2 * step.shear)
    frame_id = frame_id_of(material.material_id, k)
    rng = np.random.default_rng([seed, zlib.crc32(frame_id.encode())])
    new_lattice, new_coords = _displace(coords, lattice, numbers, step, material.binding, rng)
    settings = _settings(material, lattice, len(numbers))
    return Frame(frame_id, material, step, tuple(numbers.tolist()), _flat(new_coords), _flat(new_lattice), settings)


def _displace(coords, lattice, numbers, step, binding, rng) -> tuple[np.ndarray, np.ndarray]:
    """Strain and rattle a cell; some symmetry is kept where it spares k-points.

    In metals strains and shifts are along the axes (mirror planes); in semiconductors and semimetals with a threefold
    axis they are what it allows.
    """
    random = rng.uniform(-1, 1, (3, 3))
    strain = (random + random.T) / 2
    if step.kind == "sheared":
        strain = np.diag([1.0, -0.5, -0.5])
    elif binding == "metal":
        strain = np.diag(np.diag(strain))
    shifts = rng.normal(0, 1, coords.shape)
    if binding == "metal":
        shifts[:, :2] = 0
    elif binding in THREEFOLD and step.kind == "rattled" and (turn := _third_of_a_turn(coords, lattice, numbers)):
        strain, shifts = _invariant(strain, shifts, *turn)
    shifts -= shifts.mean(axis=0)
    reach = LOWEST_DISTANCE * _shortest(coords, lattice)
    for damping in (1.0, 0.8, 0.6, 0.4, 0.2):
        new_lattice = np.round(lattice @ (np.eye(3) * (1 + step.strain) + damping * step.shear * strain), 8)
        moved = coords + damping * step.rattle_a * shifts @ np.linalg.inv(new_lattice)
        new_coords = np.round(moved - np.floor(np.round(moved, 8)), 8) + 0.0
        if _shortest(new_coords, new_lattice) > reach:
            return new_lattice, new_coords
    raise AssertionError("a fifth of the displacement brings atoms too close: wrong start cell")


_TURNS = (
    ((0, 1, 0), (0, 0, 1), (1, 0, 0)),  # about a + b + c: cubic and rhombohedral primitive cells
    ((0, 1, 0), (-1, -1, 0), (0, 0, 1)),  # about c: hexagonal cells
)
"""What thirds of a turn make of the cell vectors a, b, c, a row each, in terms of these."""


def _third_of_a_turn(coords, lattice, numbers) -> tuple[np.ndarray, np.ndarray] | None:
    """A third of a turn that the crystal has: its map of (row) vectors, and the atom that each atom goes to."""
    gram = lattice @ lattice.T
    for turn in map(np.array, _TURNS):
        if not np.allclose(turn @ gram @ turn.T, gram, atol=1e-4 * gram.max()):
            continue
        turned = coords @ turn
        for image in np.flatnonzero(numbers == numbers[0]):  # of the first atom, which gives the translation
            apart = (turned + coords[image] - turned[0])[:, None] - coords[None]
            distances = np.linalg.norm((apart - np.round(apart)) @ lattice, axis=2)
            distances[numbers[:, None] != numbers] = np.inf
            if distances.min(axis=1).max() < 1e-2:
                return np.linalg.inv(lattice) @ turn @ lattice, distances.argmin(axis=1)
    return None


def _invariant(strain, shifts, turn, goes_to) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a strain and of shifts that a third of a turn leaves as they are.

    Shifts grow by sqrt(3), because of three directions one is left to an atom on the axis.
    """
    strains, moved = [strain], [shifts]
    for _ in range(2):
        strains.append(turn.T @ strains[-1] @ turn)
        following = np.empty_like(shifts)
        following[goes_to] = moved[-1] @ turn
        moved.append(following)
    return np.mean(strains, axis=0), np.sqrt(3) * np.mean(moved, axis=0)


def _shortest(coords: np.ndarray, lattice: np.ndarray) -> float:
    from vesin import NeighborList

    cutoff = 1.2 * np.cbrt(abs(np.linalg.det(lattice)) / len(coords)) + 1.0
    neighbours = NeighborList(cutoff=cutoff, full_list=False)
    (distances,) = neighbours.compute(points=coords @ lattice, box=lattice, periodic=True, quantities="d")
    return float(distances.min()) if len(distances) else cutoff


def _settings(material: Material, lattice: np.ndarray, n_atoms: int) -> Settings:
    hard = bool(HARD & set(material.elements))
    planes_a = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)  # distance of the lattice planes along each axis
    usual = METAL_K_LENGTH_A.get(n_atoms) if material.binding == "metal" else None
    length = material.k_length_a or usual or K_LENGTH_A[material.binding]
    mesh = np.maximum(np.where(planes_a < LONG_A, 2, 1), np.ceil(length / planes_a - 1e-6).astype(int))
    n_points = np.linalg.norm(lattice, axis=1) / GRID_SPACING_A[hard]
    return Settings(CUTOFF_EV[hard], three_ints(mesh), _grid(n_points), WIDTH_EV[material.binding])


def _grid(at_least: np.ndarray) -> tuple[int, int, int]:
    """Grid points along each axis: even, with no prime factor above 7, so that transforms are fast."""
    return three_ints([next(n for n in range(int(np.ceil(p)), 10_000) if _is_smooth(n)) for p in at_least])


def _is_smooth(n: int) -> bool:
    if n % 2:
        return False
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


def _molecule(material: Material, k: int) -> Frame | None:
    if k >= len(_MOLECULE_RECIPE):
        return None
    (symbol,), step = material.elements, _MOLECULE_RECIPE[k]
    half = BOND_A[symbol] * (1 + step.strain) / 2 / BOX_A[2]
    settings = _box_settings(symbol, BOX_A, UNPAIRED_MOLECULES.get(symbol))
    coords = (0.5, 0.5, round(0.5 - half, 8), 0.5, 0.5, round(0.5 + half, 8))
    numbers = (ATOMIC_NUMBERS[symbol],) * 2
    frame_id = frame_id_of(material.material_id, k)
    return Frame(frame_id, material, step, numbers, coords, _flat(np.diag(BOX_A)), settings)


def _atom(symbol: str) -> Frame:
    material = Material(f"{symbol}-atom", "atom", (symbol,), "atom")
    settings = _box_settings(symbol, ATOM_BOX_A, free_atom_moment_mub(symbol))
    lattice = _flat(np.diag(ATOM_BOX_A))
    step = Step("equilibrium")
    frame_id = frame_id_of(material.material_id, 0)
    return Frame(frame_id, material, step, (ATOMIC_NUMBERS[symbol],), (0.5, 0.5, 0.5), lattice, settings)


def free_atom_moment_mub(symbol: str) -> float:
    """Return the spin moment of an atom's ground state by Hund's first rule, from ASE's table."""
    from ase.data import ground_state_magnetic_moments

    return float(ground_state_magnetic_moments[ATOMIC_NUMBERS[symbol]])


def _box_settings(symbol: str, sides_a: tuple[float, ...], moment_mub: float | None) -> Settings:
    hard = symbol in HARD
    grid = _grid(np.array(sides_a) / GRID_SPACING_A[hard])
    return Settings(CUTOFF_EV[hard], (1, 1, 1), grid, 0.0, moment_mub)


def _flat(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values).ravel())


def three_ints(values) -> tuple[int, int, int]:
    """Return three integers, of a mesh or a grid."""
    first, second, third = (int(v) for v in values)
    return first, second, third
