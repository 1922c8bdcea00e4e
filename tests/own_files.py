"""Files as a user brings them: two functionals in extended XYZ, cut out of the embedded dataset."""

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from crossfunc.datasets import open_dataset
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.units import EV_PER_A3_TO_GPA

SOURCES = ("dense: relaxed", "dense: strained", "dense: path-0")
ELEMENTS = {"Li", "Fe", "O"}


def to_ase(row):
    """A frame as a user has it: energy of the cell, stress in eV/Å³, no magnetic moments."""
    cell, coords = np.reshape(row["lattice_a"], (3, 3)), np.reshape(row["frac_coords"], (-1, 3))
    info = {"material": row["material_id"]}
    atoms = Atoms(row["atomic_numbers"], cell=cell, scaled_positions=coords, pbc=True, info=info)
    labels = {"energy": row["energy_per_atom_ev"] * len(atoms)}
    if row["forces_ev_per_a"] is not None:
        labels["forces"] = np.reshape(row["forces_ev_per_a"], (-1, 3))
        stress = np.reshape(row["stress_gpa"], (3, 3)) / EV_PER_A3_TO_GPA
        labels["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def write_pair(folder, elements=ELEMENTS):
    """Write gga.extxyz and r2scan.extxyz; return their paths."""
    rows = [
        row
        for row in open_dataset("surrogate").frames.to_pylist()
        if row["source"] in SOURCES and {ELEMENT_SYMBOLS[z - 1] for z in row["atomic_numbers"]} <= elements
    ]
    files = [folder / f"{functional}.extxyz" for functional in ("gga", "r2scan")]
    for file in files:
        write(file, [to_ase(row) for row in rows if row["functional"] == file.stem], format="extxyz")
    return files
