"""Crystal structure prototypes: space group, cell shape and sites, ready to be filled with elements.

Coordinates are the usual ones of the Strukturbericht types; whatever symmetry leaves free is only a starting value,
since every crystal is relaxed afterwards. Cell lengths are relative: `build_crystal` sets the scale.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from crossfunc.errors import InputError


@dataclass(frozen=True)
class Prototype:
    """A structure type with labelled sites.

    Attributes
    ----------
    name : str
    space_group : str
        Hermann-Mauguin symbol, origin choice 1 and hexagonal axes where there is a choice.
    cell : tuple of float
        a, b, c (relative), then beta in degrees if it is not 90; gamma is 120 where `hexagonal`.
    sites : tuple of (label, coordinates)
        One entry per orbit; labels are A, B, C for what gets substituted.
    formula : tuple of int
        Atoms per label in the primitive cell's reduced formula, to check the space group's work.
    bonding : {"element", "ionic", "dimer", "oxyanion", "metallic", "carbide", "boride"}
        How elements may be chosen: see `crossfunc.surrogate.plan`.
    anions : str
        Labels that carry the negative charge (ionic and dimer).
    hexagonal : bool
    """

    name: str
    space_group: str
    cell: tuple[float, ...]
    sites: tuple[tuple[str, tuple[float, float, float]], ...]
    formula: tuple[int, ...]
    bonding: str
    anions: str = ""
    hexagonal: bool = False

    @property
    def labels(self) -> str:
        """The labels to fill, in order."""
        return "ABC"[: len(self.formula)]


@cache
def prototypes() -> dict[str, Prototype]:
    """Return all prototypes by name, from `prototypes.csv` beside this module."""
    return read_prototypes(
        resources.files("crossfunc.surrogate").joinpath("prototypes.csv").read_text(encoding="utf-8")
    )


def read_prototypes(table: str) -> dict[str, Prototype]:
    """Return the prototypes of a CSV text in the layout of `prototypes.csv`, by name."""
    return {row["name"]: _read_row(row) for row in csv.DictReader(table.splitlines())}


def _read_row(row: dict[str, str]) -> Prototype:
    sites = []
    for site in row["sites"].split("; "):
        label, x, y, z = site.split()
        sites.append((label, (_number(x), _number(y), _number(z))))
    return Prototype(
        name=row["name"],
        space_group=row["space_group"],
        cell=tuple(float(x) for x in row["cell"].split()),
        sites=tuple(sites),
        formula=tuple(int(n) for n in row["formula"].split()),
        bonding=row["bonding"],
        anions=row["anions"],
        hexagonal=row["axes"] == "hexagonal",
    )


def _number(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


@cache
def _template(name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Labels, fractional coordinates and lattice of the primitive cell."""
    from pymatgen.core import Lattice, Structure

    proto = prototypes()[name]
    a, b, c, *angle = proto.cell
    lattice = Lattice.from_parameters(a, b, c, 90, angle[0] if angle else 90, 120 if proto.hexagonal else 90)
    stand_in = {"A": "Na", "B": "Cl", "C": "O"}
    species = [stand_in[label] for label, _ in proto.sites]
    scaled = Lattice(lattice.matrix * 10)  # far enough apart that no two sites merge
    full = Structure.from_spacegroup(proto.space_group, scaled, species, [xyz for _, xyz in proto.sites], tol=1e-3)
    primitive = full.get_primitive_structure(tolerance=1e-3)
    back = {symbol: label for label, symbol in stand_in.items()}
    labels = "".join(back[site.specie.symbol] for site in primitive)
    counts = np.array([labels.count(label) for label in proto.labels])
    if (counts * sum(proto.formula) != np.array(proto.formula) * len(labels)).any():
        raise InputError(f"prototype {name}: its sites give {counts}, expected a multiple of {proto.formula}")
    return labels, primitive.frac_coords, primitive.lattice.matrix / 10


def build_crystal(name: str, elements: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill a prototype with elements, scaled so that its tightest contact equals the sum of covalent radii.

    Parameters
    ----------
    name : str
        A key of `prototypes()`.
    elements : tuple of str
        One symbol per label.

    Returns
    -------
    atomic_numbers (n,), frac_coords (n, 3), lattice_a (3, 3)
    """
    from crossfunc.symbols import ATOMIC_NUMBERS

    labels, coords, lattice = _template(name)
    proto = prototypes()[name]
    numbers = np.array([ATOMIC_NUMBERS[elements["ABC".index(label)]] for label in labels])
    negative = np.array([label in proto.anions for label in labels])
    i, j, ratio = _contacts(numbers, coords, lattice)
    alike = (negative[i] == negative[j]) & bool(proto.anions)
    return numbers, coords, lattice / (ratio / np.where(alike, LIKE_CHARGES_MAY_OVERLAP, 1.0)).min()


LIKE_CHARGES_MAY_OVERLAP = 0.72
"""Ions of one sign may start this much closer than their covalent radii: their real radii depend on the charge."""


def closest_contact(numbers: np.ndarray, coords: np.ndarray, lattice: np.ndarray) -> float:
    """Return the smallest distance between atoms in units of the sum of their covalent radii (Cordero et al. 2008)."""
    return float(_contacts(numbers, coords, lattice)[2].min())


def contact_range(numbers: np.ndarray, coords: np.ndarray, lattice: np.ndarray, reach: float) -> tuple[float, float]:
    """Return the closest contact of all and that of the loosest atom, in sums of covalent radii; inf beyond `reach`."""
    i, j, ratio = _contacts(numbers, coords, lattice, 2 * reach * contact_radii_a()[numbers].max())
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, i, ratio)
    np.minimum.at(nearest, j, ratio)
    return float(nearest.min()), float(nearest.max())


def _contacts(
    numbers: np.ndarray, coords: np.ndarray, lattice: np.ndarray, cutoff_a: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms and their distance over the sum of radii, up to a cutoff that holds the closest contact."""
    from vesin import NeighborList

    radii = contact_radii_a()[numbers]
    if cutoff_a is None:
        cutoff_a = 2.5 * np.cbrt(abs(np.linalg.det(lattice)) / len(numbers))
    i, j, d = NeighborList(cutoff=cutoff_a, full_list=False).compute(
        points=coords @ lattice, box=lattice, periodic=True, quantities="ijd"
    )
    i, j = i.astype(np.int64), j.astype(np.int64)
    return i, j, d / (radii[i] + radii[j])


@cache
def contact_radii_a() -> np.ndarray:
    """Covalent radii by atomic number, Å; noble gases by half their nearest-neighbour distance in the solid."""
    from ase.data import atomic_numbers, covalent_radii

    radii = covalent_radii.copy()
    for symbol, distance in {"He": 3.0, "Ne": 3.15, "Ar": 3.76, "Kr": 4.0, "Xe": 4.34}.items():
        radii[atomic_numbers[symbol]] = distance / 2
    return radii
