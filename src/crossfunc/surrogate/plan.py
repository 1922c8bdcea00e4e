"""Which elements go into which prototypes: charge balance for ionic types, any metals for metallic ones."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np

from crossfunc.surrogate.prototypes import Prototype, contact_radii_a, prototypes
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

UNREFERENCED = ("Yb", "Po", "At", "Rn", "Fr", "Ra")
"""Elements the r2SCAN checkpoint has no reference for."""
WIDE_ELEMENTS = tuple(s for s in ELEMENT_SYMBOLS if s not in UNREFERENCED)
DENSE_ELEMENTS = tuple("Li Na K Mg Ca Sr Ba Al Si Ti V Cr Mn Fe Co Ni Cu Zn Y Zr Nb Mo La N P O S Se F Cl".split())
OXIDE_SYSTEMS = tuple(
    (alkali, metal, "O") for alkali in ("Li", "Na", "Mg") for metal in ("Ti", "V", "Mn", "Fe", "Co", "Ni")
)
ALLOY_SYSTEMS = tuple(
    tuple(pair.split("-")) for pair in "Ni-Al Ti-Al Fe-Al Mg-Al Cu-Zn Ti-Ni Zr-Cu La-Ni Y-Co Ca-Mg".split()
)
"""Chemical systems filled as far as the prototypes go, so that their hulls hold many phases."""
N_WIDE, N_DENSE = 2750, 750

CATION_CHARGES = {
    **dict.fromkeys("Li Na K Rb Cs".split(), (1,)),
    **dict.fromkeys("Be Mg Ca Sr Ba Zn Cd".split(), (2,)),
    **dict.fromkeys("B Al Sc Y La Nd Pm Gd Dy Ho Er Tm Lu Ac".split(), (3,)),
    **dict.fromkeys("Ce Pr Tb".split(), (3, 4)),
    **dict.fromkeys("Sm Eu".split(), (2, 3)),
    **dict.fromkeys("Zr Hf Th Si C".split(), (4,)),
    **dict.fromkeys("Sn Pb Ge Pt Pd".split(), (2, 4)),
    **dict.fromkeys("Ga In Tl".split(), (1, 3)),
    **dict.fromkeys("As Sb Bi".split(), (3, 5)),
    **dict.fromkeys("Ru Rh Ir Os".split(), (3, 4)),
    **dict.fromkeys("Np Pu".split(), (3, 4)),
    **dict.fromkeys("Se Te".split(), (4, 6)),
    "Ti": (2, 3, 4), "V": (2, 3, 4, 5), "Cr": (2, 3, 4, 6), "Mn": (2, 3, 4), "Fe": (2, 3), "Co": (2, 3, 4),
    "Ni": (2, 3, 4), "Cu": (1, 2), "Ag": (1,), "Au": (1, 3), "Hg": (1, 2), "Nb": (2, 4, 5), "Ta": (4, 5), "Mo": (4, 6),
    "W": (4, 6), "Tc": (4,), "Re": (4, 6), "U": (3, 4, 5, 6), "Pa": (4, 5), "P": (5,), "N": (5,), "S": (6,),
}  # fmt: skip
ANION_CHARGES = {
    **dict.fromkeys("H F Cl Br I".split(), -1),
    **dict.fromkeys("O S Se Te".split(), -2),
    **dict.fromkeys("N P As Sb Bi".split(), -3),
    "C": -4,
}
_DIMERS = {"O": -1, "S": -1, "Se": -1, "Te": -1}
_OXYANIONS = {"calcite": {"C": 4, "N": 5, "B": 3}}
_NONMETALS = set("H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe".split())
_METALLOIDS = set("Si Ge As Sb P".split())
_METAL_ELEMENTS = ("fcc", "bcc", "hcp", "dhcp")
_SPECIAL_ELEMENTS = {
    "fcc": "He Ne Ar Kr Xe", "bcc": "He Ne Ar Kr Xe", "hcp": "He Ne Ar Kr Xe", "simple-cubic": "P Te As Sb Bi Se",
    "diamond": "C Si Ge Sn", "beta-tin": "Si Ge Sn", "indium": "In Sn Ga Mn", "arsenic": "P As Sb Bi Te",
    "alpha-mercury": "Hg Cd Pb", "selenium": "S Se Te", "iodine": "H N O F Cl Br I",
    "black-phosphorus": "P As N", "gallium": "Ga", "alpha-uranium": "U Ce Pa Np Pu",
    "alpha-nitrogen": "H N O F Cl Br I",
    "graphite": "C B", "alpha-boron": "B",
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """One crystal to build: a prototype filled with elements."""

    prototype: str
    elements: tuple[str, ...]
    tier: str

    @property
    def formula(self) -> str:
        """Reduced formula in the prototype's order, for example LiMn2O4."""
        counts = prototypes()[self.prototype].formula
        return "".join(f"{e}{n if n > 1 else ''}" for e, n in zip(self.elements, counts, strict=True))

    @property
    def material_id(self) -> str:
        """Formula and prototype, which together name the material."""
        return f"{self.formula}-{self.prototype}"


def plan_materials(*, seed: int = 0, n_wide: int = N_WIDE, n_dense: int = N_DENSE) -> list[Material]:
    """Choose the materials of both tiers, balanced over elements and structure types.

    Parameters
    ----------
    seed : int
    n_wide, n_dense : int
        About how many materials to build in each tier; some are lost in relaxation.

    Returns
    -------
    list of Material
        Without repeats; elemental crystals of the dense tier's elements belong to the dense tier.
    """
    rng = np.random.default_rng(seed)
    wide, dense = _fills(WIDE_ELEMENTS), _fills(DENSE_ELEMENTS)
    chosen = _Choice(rng)
    chosen.add_elements(dense, "dense")
    chosen.add_systems(dense, OXIDE_SYSTEMS, must_hold="O", per_formula=2)
    chosen.add_systems(dense, ALLOY_SYSTEMS, per_formula=2)
    chosen.add_balanced(dense, n_dense - len(chosen.materials), "dense")
    n_before = len(chosen.materials)
    chosen.forget_balance()
    chosen.add_elements(wide, "wide")
    chosen.add_balanced(wide, n_before + n_wide - len(chosen.materials), "wide")
    return chosen.materials


class _Choice:
    """Materials chosen so far, and how often each element occurs among them."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.materials: list[Material] = []
        self.taken: set[str] = set()
        self.counts: Counter[str] = Counter()

    def add(self, material: Material) -> bool:
        if material.material_id in self.taken:
            return False
        self.taken.add(material.material_id)
        self.materials.append(material)
        self.counts.update(material.elements)
        return True

    def add_elements(self, fills: dict, tier: str) -> None:
        """Add every elemental crystal that is not there yet."""
        for proto, options in fills.items():
            for elements in options:
                if len(elements) == 1:
                    self.add(Material(proto, elements, tier))

    def forget_balance(self) -> None:
        self.counts.clear()

    def add_systems(self, fills: dict, systems: tuple, per_formula: int, must_hold: str = "") -> None:
        """Add every formula of these chemical systems (with a given element), in a few structure types each."""
        by_formula = defaultdict(list)
        within = [frozenset(s) for s in systems]
        for proto, options in fills.items():
            for elements in options:
                if must_hold and must_hold not in elements:
                    continue
                if len(elements) > 1 and any(s.issuperset(elements) for s in within):
                    material = Material(proto, elements, "dense")
                    by_formula[material.formula].append(material)
        for group in by_formula.values():
            for k in sorted(self.rng.permutation(len(group))[:per_formula]):
                self.add(group[k])

    def add_balanced(self, fills: dict, n: int, tier: str) -> None:
        """Go round the structure types; each takes the fill, among a few drawn, whose elements are rarest so far."""
        pools = {proto: [f for f in options if len(f) > 1] for proto, options in fills.items()}
        while n > 0 and any(pools.values()):
            for proto, pool in pools.items():
                if not pool or n <= 0:
                    continue
                tickets = self.rng.integers(len(pool), size=min(_TICKETS, len(pool)))
                rarity = [sum(self.counts[e] for e in pool[k]) / len(pool[k]) for k in tickets]
                elements = pool.pop(int(tickets[int(np.argmin(rarity))]))
                n -= self.add(Material(proto, elements, tier))


_TICKETS = 24


@cache
def _fills(elements: tuple[str, ...]) -> dict[str, list[tuple[str, ...]]]:
    """All ways to fill each prototype with these elements."""
    makers = {"element": _fill_element, "metallic": _fill_metallic, "carbide": _fill_carbide, "boride": _fill_boride}
    return {p.name: makers.get(p.bonding, _fill_ionic)(p, elements) for p in prototypes().values()}


def _is_metal(symbol: str) -> bool:
    return symbol not in _NONMETALS


def _fill_element(proto: Prototype, elements: tuple[str, ...]):
    special = set(_SPECIAL_ELEMENTS.get(proto.name, "").split())
    metals = {e for e in elements if _is_metal(e)} if proto.name in _METAL_ELEMENTS else set()
    return [(e,) for e in elements if e in special | metals]


def _fill_metallic(proto: Prototype, elements: tuple[str, ...]):
    metals = [e for e in elements if _is_metal(e) or e in _METALLOIDS]
    fills = itertools.permutations(metals, len(proto.formula))
    # Two metalloids make a covalent compound, which these types do not describe.
    return [f for f in fills if sum(e in _METALLOIDS for e in f) <= 1 and f[0] not in _METALLOIDS]


def _fill_carbide(_proto: Prototype, elements: tuple[str, ...]):
    metals = "Ti V Cr Zr Nb Mo Hf Ta W Sc Y La Ce Pr Nd Th U".split()
    return [(m, x) for m in metals if m in elements for x in ("C", "N") if x in elements]


def _fill_boride(_proto: Prototype, elements: tuple[str, ...]):
    metals = (
        "Mg Ca Sr Ba Sc Y La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Lu Ti V Cr Mn Fe Zr Nb Mo Hf Ta W Re Ru Os Th U Np Pu Al"
    )
    return [(m, "B") for m in metals.split() if m in elements and "B" in elements]


def _fill_ionic(proto: Prototype, elements: tuple[str, ...]):
    options: list[list[tuple[str, tuple[int, ...]]]] = []
    for label in proto.labels:
        if label in proto.anions:
            anions = _DIMERS if proto.bonding == "dimer" else ANION_CHARGES
            options.append([(e, (anions[e],)) for e in elements if e in anions])
        elif proto.name == "xenon-fluoride":
            options.append([(e, (2,)) for e in ("Kr", "Xe") if e in elements])
        else:
            centres = _OXYANIONS.get(proto.name) if label == "B" else None
            table = {e: (q,) for e, q in centres.items()} if centres else CATION_CHARGES
            options.append([(e, table[e]) for e in elements if e in table])
    fills = []
    for combination in itertools.product(*options):
        symbols = tuple(e for e, _ in combination)
        charges = [q for _, q in combination]
        if len(set(symbols)) == len(symbols) and _is_neutral(proto, charges) and _sizes_fit(proto, symbols):
            fills.append(symbols)
    return fills


def _is_neutral(proto: Prototype, charges: list[tuple[int, ...]]) -> bool:
    if proto.name == "mixed-valence-spinel":
        return {2, 3} <= set(charges[0]) and charges[1] == (-2,)
    return any(sum(n * q for n, q in zip(proto.formula, qs, strict=True)) == 0 for qs in itertools.product(*charges))


def _sizes_fit(proto: Prototype, symbols: tuple[str, ...]) -> bool:
    radius = {label: contact_radii_a()[ATOMIC_NUMBERS[s]] for label, s in zip(proto.labels, symbols, strict=True)}
    soft_nonmetal = {"C", "N", "S", "P"} & {
        s for s, label in zip(symbols, proto.labels, strict=True) if label not in proto.anions
    }
    if soft_nonmetal and not (set(symbols) & {"O", "F", "S"} - soft_nonmetal):
        return False  # these are cations only towards oxygen and fluorine
    if proto.name in {
        "perovskite",
        "hexagonal-perovskite",
        "potassium-nickel-fluoride",
        "scheelite",
        "zircon",
        "calcite",
    }:
        return radius["A"] > radius["B"]
    if proto.name == "matlockite":
        return radius["B"] < radius["C"]
    if proto.name == "antiperovskite":
        return symbols[1] != symbols[2]
    return True
