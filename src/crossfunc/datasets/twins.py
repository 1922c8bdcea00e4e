"""One crystal under two names: twins, which would leak from training to test if nobody looked.

A material id says what somebody called a crystal. Two ids can stand for one crystal: sites that a structure type treats
alike filled both ways (NiTi and TiNi of the CsCl type), or two types that relax into the same one.
"""

import itertools
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from crossfunc.datasets.schema import DatasetError

TOLERANCES = {"ltol": 0.1, "stol": 0.1, "angle_tol": 3}
"""Of pymatgen's StructureMatcher: relative lengths, displacements over (V/N)^(1/3), degrees."""


def find_twins(
    material_ids: Sequence[str], structures: Sequence, functionals: Sequence[str] | None = None
) -> list[tuple[str, ...]]:
    """Groups of ids that stand for one crystal, by pymatgen's StructureMatcher on primitive cells.

    Parameters
    ----------
    material_ids : sequence of str
        An id may come several times, with its structure in several functionals; it is then alike if one of them is.
    structures : sequence of pymatgen Structure
        In the order of the ids. Only those of one reduced formula are compared.
    functionals : sequence of str, optional
        Functional of each structure: only those of one functional are compared. By default the first structure of every
        id is taken for one functional, the second of every id for another.

    Returns
    -------
    list of tuple of str
        Each group in the order in which its ids first came; ids without a twin are in none. Likeness is passed on: if
        A matches B and B matches C, the three are one group.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(**TOLERANCES, primitive_cell=True, scale=True)
    first = {name: k for k, name in reversed(list(enumerate(material_ids)))}
    leader = {name: name for name in first}

    def root(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    alike: dict[tuple, list] = defaultdict(list)
    classes = _turns(material_ids) if functionals is None else functionals
    with _quiet_noble_gases():
        for name, structure, one_class in zip(material_ids, structures, classes, strict=True):
            alike[structure.composition.reduced_formula, one_class].append((name, structure))
        for crystals in alike.values():
            for (one, a), (other, b) in itertools.combinations(crystals, 2):
                if root(one) != root(other) and matcher.fit(a, b):
                    early, late = sorted((root(one), root(other)), key=first.__getitem__)
                    leader[late] = early
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(first, key=first.__getitem__):
        groups[root(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _turns(names: Sequence[str]) -> list[int]:
    """How often each name has come before."""
    seen: dict[str, int] = defaultdict(int)
    turns = []
    for name in names:
        turns.append(seen[name])
        seen[name] += 1
    return turns


def find_twin_materials(frames) -> list[tuple[str, ...]]:
    """Groups of material ids that stand for one crystal, as `find_twins` gives them, for the frames of a dataset.

    A material's structure is its frame of lowest energy per atom, in each functional; two materials are one crystal if
    they are alike in any. A material without frames in a functional is compared in the others.

    Parameters
    ----------
    frames : pyarrow Table
        `Dataset.frames`.

    Raises
    ------
    DatasetError
        No frames: there are no structures to compare.
    """
    if frames is None or not frames.num_rows:
        raise DatasetError("the dataset has no frames, so there are no crystals to compare: import frames first.")
    material, structures, functionals = zip(*_ground_frames(frames), strict=True)
    return find_twins(material, structures, functionals)


def _ground_frames(frames) -> Iterator[tuple[str, object, str]]:
    """Material id, structure of the frame of lowest energy and functional, functional by functional."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.core.periodic_table import Element

    light = frames.select(["material_id", "functional", "energy_per_atom_ev"]).to_pandas()
    energy = light["energy_per_atom_ev"].fillna(np.inf)
    rows = energy.groupby([light["functional"], light["material_id"]], sort=False).idxmin()
    for functional in dict.fromkeys(light["functional"]):
        for name, row in rows[functional].items():
            cell = frames.slice(int(row), 1).to_pylist()[0]
            species = [Element.from_Z(z) for z in cell["atomic_numbers"]]
            coords = np.reshape(cell["frac_coords"], (-1, 3))
            yield name, Structure(Lattice(np.reshape(cell["lattice_a"], (3, 3))), species, coords), functional


@contextmanager
def _quiet_noble_gases():
    """Leave out pymatgen's remark that helium, neon and argon have no electronegativity."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        yield
