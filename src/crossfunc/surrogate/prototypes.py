"""Crystal structure prototypes: space group, cell shape and sites, ready to be filled with elements.

Coordinates are the usual ones of the Strukturbericht types; whatever symmetry leaves free is only a starting value,
since every crystal is relaxed afterwards. Cell lengths are relative: `build_crystal` sets the scale.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

THIRD, TWO_THIRDS = 1 / 3, 2 / 3


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
    bonding : {"element", "ionic", "dimer", "metallic"}
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


def _proto(name, space_group, cell, sites, formula, bonding, anions="", *, hexagonal=False) -> Prototype:
    parsed = []
    for site in sites.split("; "):
        label, *coordinates = site.split()
        parsed.append((label, tuple(_number(c) for c in coordinates)))
    return Prototype(name, space_group, cell, tuple(parsed), formula, bonding, anions, hexagonal)


def _number(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


_CUBIC = (1, 1, 1)
_LIST = [
    # Elements
    _proto("fcc", "Fm-3m", _CUBIC, "A 0 0 0", (1,), "element"),
    _proto("bcc", "Im-3m", _CUBIC, "A 0 0 0", (1,), "element"),
    _proto("hcp", "P6_3/mmc", (1, 1, 1.62), "A 1/3 2/3 1/4", (1,), "element", hexagonal=True),
    _proto("dhcp", "P6_3/mmc", (1, 1, 3.24), "A 0 0 0; A 1/3 2/3 1/4", (1,), "element", hexagonal=True),
    _proto("simple-cubic", "Pm-3m", _CUBIC, "A 0 0 0", (1,), "element"),
    _proto("diamond", "Fd-3m", _CUBIC, "A 0 0 0", (1,), "element"),
    _proto("beta-tin", "I4_1/amd", (1, 1, 0.546), "A 0 0 0", (1,), "element"),
    _proto("indium", "I4/mmm", (1, 1, 1.52), "A 0 0 0", (1,), "element"),
    _proto("arsenic", "R-3m", (1, 1, 2.8), "A 0 0 0.227", (1,), "element", hexagonal=True),
    _proto("alpha-mercury", "R-3m", (1, 1, 1.93), "A 0 0 0", (1,), "element", hexagonal=True),
    _proto("selenium", "P3_121", (1, 1, 1.136), "A 0.225 0 1/3", (1,), "element", hexagonal=True),
    _proto("iodine", "Cmce", (7.27, 4.79, 9.79), "A 0 0.154 0.117", (1,), "element"),
    _proto("black-phosphorus", "Cmce", (3.31, 10.48, 4.38), "A 0 0.102 0.081", (1,), "element"),
    _proto("gallium", "Cmce", (4.52, 7.66, 4.53), "A 0 0.155 0.081", (1,), "element"),
    _proto("alpha-uranium", "Cmcm", (2.85, 5.87, 4.95), "A 0 0.1025 1/4", (1,), "element"),
    _proto("alpha-nitrogen", "Pa-3", _CUBIC, "A 0.054 0.054 0.054", (1,), "element"),
    _proto("graphite", "P6_3/mmc", (1, 1, 2.72), "A 0 0 1/4; A 1/3 2/3 1/4", (1,), "element", hexagonal=True),
    _proto(
        "alpha-boron",
        "R-3m",
        (4.91, 4.91, 12.57),
        "A 0.119 -0.119 0.891; A 0.197 -0.197 0.024",
        (1,),
        "element",
        hexagonal=True,
    ),
    # Binary, one to one
    _proto("rock-salt", "Fm-3m", _CUBIC, "A 0 0 0; B 1/2 1/2 1/2", (1, 1), "ionic", "B"),
    _proto("cesium-chloride", "Pm-3m", _CUBIC, "A 0 0 0; B 1/2 1/2 1/2", (1, 1), "ionic", "B"),
    _proto("zinc-blende", "F-43m", _CUBIC, "A 0 0 0; B 1/4 1/4 1/4", (1, 1), "ionic", "B"),
    _proto("wurtzite", "P6_3mc", (1, 1, 1.63), "A 1/3 2/3 0; B 1/3 2/3 3/8", (1, 1), "ionic", "B", hexagonal=True),
    _proto("nickel-arsenide", "P6_3/mmc", (1, 1, 1.39), "A 0 0 0; B 1/3 2/3 1/4", (1, 1), "ionic", "B", hexagonal=True),
    _proto("litharge", "P4/nmm", (1, 1, 1.26), "A 0 1/2 0.237; B 0 0 0", (1, 1), "ionic", "B"),
    _proto(
        "boron-nitride", "P6_3/mmc", (1, 1, 2.66), "A 1/3 2/3 1/4; B 1/3 2/3 3/4", (1, 1), "ionic", "B", hexagonal=True
    ),
    _proto("B2", "Pm-3m", _CUBIC, "A 0 0 0; B 1/2 1/2 1/2", (1, 1), "metallic"),
    _proto("L1_0", "P4/mmm", (2.8, 2.8, 3.67), "A 0 0 0; B 1/2 1/2 1/2", (1, 1), "metallic"),
    _proto("chromium-boride", "Cmcm", (2.97, 7.86, 2.93), "A 0 0.146 1/4; B 0 0.44 1/4", (1, 1), "metallic"),
    _proto("iron-silicide", "P2_13", _CUBIC, "A 0.137 0.137 0.137; B 0.842 0.842 0.842", (1, 1), "metallic"),
    _proto("tungsten-carbide", "P-6m2", (1, 1, 0.976), "A 0 0 0; B 1/3 2/3 1/2", (1, 1), "carbide", hexagonal=True),
    _proto("rock-salt-carbide", "Fm-3m", _CUBIC, "A 0 0 0; B 1/2 1/2 1/2", (1, 1), "carbide"),
    # Binary, one to two
    _proto("fluorite", "Fm-3m", _CUBIC, "A 0 0 0; B 1/4 1/4 1/4", (1, 2), "ionic", "B"),
    _proto("antifluorite", "Fm-3m", _CUBIC, "A 1/4 1/4 1/4; B 0 0 0", (2, 1), "ionic", "B"),
    _proto("cuprite", "Pn-3m", _CUBIC, "A 1/4 1/4 1/4; B 0 0 0", (2, 1), "ionic", "B"),
    _proto("rutile", "P4_2/mnm", (1, 1, 0.644), "A 0 0 0; B 0.305 0.305 0", (1, 2), "ionic", "B"),
    _proto("anatase", "I4_1/amd", (1, 1, 2.51), "A 0 0 0; B 0 0 0.208", (1, 2), "ionic", "B"),
    _proto("cristobalite", "Fd-3m", _CUBIC, "A 0 0 0; B 1/8 1/8 1/8", (1, 2), "ionic", "B"),
    _proto("cadmium-iodide", "P-3m1", (1, 1, 1.6), "A 0 0 0; B 1/3 2/3 1/4", (1, 2), "ionic", "B", hexagonal=True),
    _proto("cadmium-chloride", "R-3m", (1, 1, 4.8), "A 0 0 0; B 0 0 0.255", (1, 2), "ionic", "B", hexagonal=True),
    _proto(
        "molybdenite", "P6_3/mmc", (1, 1, 3.9), "A 1/3 2/3 1/4; B 1/3 2/3 0.621", (1, 2), "ionic", "B", hexagonal=True
    ),
    _proto(
        "cotunnite",
        "Pnma",
        (7.62, 4.53, 9.05),
        "A 0.246 1/4 0.09; B 0.858 1/4 0.07; B 0.478 1/4 0.837",
        (1, 2),
        "ionic",
        "B",
    ),
    _proto("xenon-fluoride", "I4/mmm", (1, 1, 1.62), "A 0 0 0; B 0 0 0.238", (1, 2), "ionic", "B"),
    _proto("pyrite", "Pa-3", _CUBIC, "A 0 0 0; B 0.385 0.385 0.385", (1, 2), "dimer", "B"),
    _proto("calcium-peroxide", "I4/mmm", (1, 1, 1.65), "A 0 0 0; B 0 0 0.39", (1, 2), "dimer", "B"),
    _proto("molybdenum-silicide", "I4/mmm", (1, 1, 2.45), "A 0 0 0; B 0 0 1/3", (1, 2), "metallic"),
    _proto("copper-aluminide", "I4/mcm", (1, 1, 0.8), "A 0 0 1/4; B 0.158 0.658 0", (1, 2), "metallic"),
    _proto("aluminium-boride", "P6/mmm", (1, 1, 1.08), "A 0 0 0; B 1/3 2/3 1/2", (1, 2), "metallic", hexagonal=True),
    _proto("Laves-C15", "Fd-3m", _CUBIC, "A 0 0 0; B 5/8 5/8 5/8", (1, 2), "metallic"),
    _proto(
        "Laves-C14",
        "P6_3/mmc",
        (1, 1, 1.63),
        "A 1/3 2/3 0.062; B 0 0 0; B 0.8305 0.661 1/4",
        (1, 2),
        "metallic",
        hexagonal=True,
    ),
    # Binary, one to three
    _proto("rhenium-oxide", "Pm-3m", _CUBIC, "A 0 0 0; B 1/2 0 0", (1, 3), "ionic", "B"),
    _proto("aluminium-fluoride", "R-3c", (1, 1, 2.53), "A 0 0 0; B 0.57 0 1/4", (1, 3), "ionic", "B", hexagonal=True),
    _proto("iron-chloride", "R-3", (1, 1, 2.87), "A 0 0 1/3; B 1/3 0 1/12", (1, 3), "ionic", "B", hexagonal=True),
    _proto(
        "uranium-chloride",
        "P6_3/m",
        (1, 1, 0.58),
        "A 1/3 2/3 1/4; B 0.39 0.30 1/4",
        (1, 3),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto(
        "lithium-nitride",
        "P6/mmm",
        (1, 1, 1.06),
        "A 0 0 1/2; A 1/3 2/3 0; B 0 0 0",
        (3, 1),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto(
        "sodium-arsenide",
        "P6_3/mmc",
        (1, 1, 1.77),
        "A 0 0 1/4; A 1/3 2/3 0.583; B 1/3 2/3 1/4",
        (3, 1),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto("lithium-bismuthide", "Fm-3m", _CUBIC, "A 1/2 1/2 1/2; A 1/4 1/4 1/4; B 0 0 0", (3, 1), "ionic", "B"),
    _proto("L1_2", "Pm-3m", _CUBIC, "A 0 0 0; B 0 1/2 1/2", (1, 3), "metallic"),
    _proto("D0_3", "Fm-3m", _CUBIC, "A 0 0 0; B 1/2 1/2 1/2; B 1/4 1/4 1/4", (1, 3), "metallic"),
    _proto("D0_19", "P6_3/mmc", (1, 1, 0.8), "A 1/3 2/3 1/4; B 0.833 0.666 1/4", (1, 3), "metallic", hexagonal=True),
    _proto("D0_22", "I4/mmm", (1, 1, 2.23), "A 0 0 0; B 0 0 1/2; B 0 1/2 1/4", (1, 3), "metallic"),
    _proto("A15", "Pm-3n", _CUBIC, "A 0 0 0; B 1/4 0 1/2", (1, 3), "metallic"),
    # Binary, other ratios
    _proto("corundum", "R-3c", (1, 1, 2.73), "A 0 0 0.352; B 0.306 0 1/4", (2, 3), "ionic", "B", hexagonal=True),
    _proto(
        "lanthanum-oxide",
        "P-3m1",
        (1, 1, 1.56),
        "A 1/3 2/3 0.245; B 0 0 0; B 1/3 2/3 0.645",
        (2, 3),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto(
        "bismuth-telluride",
        "R-3m",
        (1, 1, 6.96),
        "A 0 0 0.4; B 0 0 0; B 0 0 0.212",
        (2, 3),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto(
        "magnesium-bismuthide",
        "P-3m1",
        (1, 1, 1.58),
        "A 0 0 0; A 1/3 2/3 0.63; B 1/3 2/3 0.23",
        (3, 2),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto(
        "silicon-nitride",
        "P6_3/m",
        (1, 1, 0.383),
        "A 0.174 0.769 1/4; B 1/3 2/3 1/4; B 0.329 0.031 1/4",
        (3, 4),
        "ionic",
        "B",
        hexagonal=True,
    ),
    _proto("thorium-phosphide", "I-43d", _CUBIC, "A 3/8 0 1/4; B 0.083 0.083 0.083", (3, 4), "ionic", "B"),
    _proto(
        "nickel-aluminide",
        "P-3m1",
        (1, 1, 1.21),
        "A 1/3 2/3 0.149; B 0 0 0; B 1/3 2/3 0.648",
        (2, 3),
        "metallic",
        hexagonal=True,
    ),
    _proto("barium-aluminide", "I4/mmm", (1, 1, 2.5), "A 0 0 0; B 0 1/2 1/4; B 0 0 0.38", (1, 4), "metallic"),
    _proto(
        "calcium-cupride",
        "P6/mmm",
        (1, 1, 0.8),
        "A 0 0 0; B 1/3 2/3 0; B 1/2 0 1/2",
        (1, 5),
        "metallic",
        hexagonal=True,
    ),
    _proto("calcium-boride", "Pm-3m", _CUBIC, "A 0 0 0; B 0.2 1/2 1/2", (1, 6), "boride"),
    _proto("diboride", "P6/mmm", (1, 1, 1.08), "A 0 0 0; B 1/3 2/3 1/2", (1, 2), "boride", hexagonal=True),
    # Ternary
    _proto("perovskite", "Pm-3m", _CUBIC, "A 0 0 0; B 1/2 1/2 1/2; C 1/2 1/2 0", (1, 1, 3), "ionic", "C"),
    _proto("antiperovskite", "Pm-3m", _CUBIC, "B 0 0 0; C 1/2 1/2 1/2; A 1/2 1/2 0", (3, 1, 1), "ionic", "BC"),
    _proto(
        "hexagonal-perovskite",
        "P6_3/mmc",
        (1, 1, 0.83),
        "A 1/3 2/3 3/4; B 0 0 0; C 0.16 0.32 1/4",
        (1, 1, 3),
        "ionic",
        "C",
        hexagonal=True,
    ),
    _proto(
        "ilmenite",
        "R-3",
        (1, 1, 2.77),
        "A 0 0 0.355; B 0 0 0.146; C 0.3175 0.0237 0.245",
        (1, 1, 3),
        "ionic",
        "C",
        hexagonal=True,
    ),
    _proto(
        "lithium-niobate",
        "R3c",
        (1, 1, 2.69),
        "A 0 0 0.28; B 0 0 0; C 0.048 0.343 0.064",
        (1, 1, 3),
        "ionic",
        "C",
        hexagonal=True,
    ),
    _proto(
        "calcite", "R-3c", (1, 1, 3.42), "A 0 0 0; B 0 0 1/4; C 0.257 0 1/4", (1, 1, 3), "oxyanion", "C", hexagonal=True
    ),
    _proto("spinel", "Fd-3m", _CUBIC, "A 0 0 0; B 5/8 5/8 5/8; C 0.387 0.387 0.387", (1, 2, 4), "ionic", "C"),
    _proto(
        "mixed-valence-spinel", "Fd-3m", _CUBIC, "A 0 0 0; A 5/8 5/8 5/8; B 0.387 0.387 0.387", (3, 4), "ionic", "B"
    ),
    _proto(
        "layered-oxide", "R-3m", (1, 1, 5.0), "A 0 0 1/2; B 0 0 0; C 0 0 0.26", (1, 1, 2), "ionic", "C", hexagonal=True
    ),
    _proto(
        "delafossite", "R-3m", (1, 1, 5.7), "A 0 0 0; B 0 0 1/2; C 0 0 0.11", (1, 1, 2), "ionic", "C", hexagonal=True
    ),
    _proto("chalcopyrite", "I-42d", (1, 1, 1.97), "A 0 0 0; B 0 0 1/2; C 1/4 1/4 1/8", (1, 1, 2), "ionic", "C"),
    _proto(
        "lithium-manganate",
        "C2/m",
        (4.937, 8.532, 5.03, 109.46),
        "A 0 1/2 0; A 0 0 1/2; A 0 0.661 1/2; B 0 0.167 0; C 0.219 0 0.227; C 0.254 0.321 0.223",
        (2, 1, 3),
        "ionic",
        "C",
    ),
    _proto(
        "potassium-nickel-fluoride",
        "I4/mmm",
        (1, 1, 3.3),
        "A 0 0 0.355; B 0 0 0; C 0 1/2 0; C 0 0 0.155",
        (2, 1, 4),
        "ionic",
        "C",
    ),
    _proto("scheelite", "I4_1/a", (1, 1, 2.17), "A 0 0 1/2; B 0 0 0; C 0.241 0.151 0.086", (1, 1, 4), "ionic", "C"),
    _proto("zircon", "I4_1/amd", (1, 1, 0.9), "A 0 0 0; B 0 0 1/2; C 0 0.18 0.34", (1, 1, 4), "ionic", "C"),
    _proto(
        "lithium-phosphate",
        "Pmn2_1",
        (6.12, 5.24, 4.85),
        "A 0.248 0.328 0.986; A 1/2 0.843 0.989; B 0 0.824 0; C 0.208 0.686 0.896; C 0 0.106 0.905; C 1/2 0.189 0.821",
        (3, 1, 4),
        "ionic",
        "C",
    ),
    _proto("matlockite", "P4/nmm", (1, 1, 1.76), "A 0 1/2 0.206; B 0 0 0; C 0 1/2 0.65", (1, 1, 1), "ionic", "BC"),
    _proto("hexachloroplatinate", "Fm-3m", _CUBIC, "A 1/4 1/4 1/4; B 0 0 0; C 0.24 0 0", (2, 1, 6), "ionic", "C"),
    _proto("half-Heusler", "F-43m", _CUBIC, "A 0 0 0; B 1/4 1/4 1/4; C 1/2 1/2 1/2", (1, 1, 1), "metallic"),
    _proto("Heusler", "Fm-3m", _CUBIC, "A 1/4 1/4 1/4; B 0 0 0; C 1/2 1/2 1/2", (2, 1, 1), "metallic"),
    _proto(
        "thorium-chromium-silicide", "I4/mmm", (1, 1, 2.6), "A 0 0 0; B 0 1/2 1/4; C 0 0 0.375", (1, 2, 2), "metallic"
    ),
    _proto(
        "titanium-nickel-silicide",
        "Pnma",
        (6.15, 3.67, 7.02),
        "A 0.021 1/4 0.18; B 0.142 1/4 0.561; C 0.765 1/4 0.623",
        (1, 1, 1),
        "metallic",
    ),
    _proto(
        "zirconium-beryllium-silicide",
        "P6_3/mmc",
        (1, 1, 1.94),
        "A 0 0 0; B 1/3 2/3 1/4; C 1/3 2/3 3/4",
        (1, 1, 1),
        "metallic",
        hexagonal=True,
    ),
]
PROTOTYPES = {p.name: p for p in _LIST}


@cache
def _template(name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Labels, fractional coordinates and lattice of the primitive cell."""
    from pymatgen.core import Lattice, Structure

    proto = PROTOTYPES[name]
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
        raise ValueError(f"prototype {name}: its sites give {counts}, expected a multiple of {proto.formula}")
    return labels, primitive.frac_coords, primitive.lattice.matrix / 10


def build_crystal(name: str, elements: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill a prototype with elements, scaled so that its tightest contact equals the sum of covalent radii.

    Parameters
    ----------
    name : str
        A key of `PROTOTYPES`.
    elements : tuple of str
        One symbol a label.

    Returns
    -------
    atomic_numbers (n,), frac_coords (n, 3), lattice_a (3, 3)
    """
    from crossfunc.symbols import ATOMIC_NUMBERS

    labels, coords, lattice = _template(name)
    proto = PROTOTYPES[name]
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


def _contacts(
    numbers: np.ndarray, coords: np.ndarray, lattice: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms and their distance over the sum of radii, for everything near the closest contact."""
    from vesin import NeighborList

    radii = contact_radii_a()[numbers]
    spacing = np.cbrt(abs(np.linalg.det(lattice)) / len(numbers))
    i, j, d = NeighborList(cutoff=2.5 * spacing, full_list=False).compute(
        points=coords @ lattice, box=lattice, periodic=True, quantities="ijd"
    )
    return i, j, d / (radii[i] + radii[j])


@cache
def contact_radii_a() -> np.ndarray:
    """Covalent radii by atomic number, Å; noble gases by half their nearest-neighbour distance in the solid."""
    from ase.data import atomic_numbers, covalent_radii

    radii = covalent_radii.copy()
    for symbol, distance in {"He": 3.0, "Ne": 3.15, "Ar": 3.76, "Kr": 4.0, "Xe": 4.34}.items():
        radii[atomic_numbers[symbol]] = distance / 2
    return radii
