"""Isolated atoms: the shift of a functional without any crystal."""

import gzip
import json

import numpy as np
import pandas as pd

from crossfunc.energies import free_atom_shifts_ev, published_shift
from crossfunc.energies.free_atoms import vasp_free_atoms
from crossfunc.symbols import ATOMIC_NUMBERS


def test_each_element_has_both_energies_in_order():
    atoms = vasp_free_atoms()
    assert list(atoms.columns) == ["pbe", "r2scan"]
    assert atoms.notna().all().all()
    assert atoms.index.map(ATOMIC_NUMBERS).is_monotonic_increasing
    assert {"H", "O", "W", "Na", "Pu"} <= set(atoms.index)
    assert not {"Po", "At", "Rn", "Fr", "Ra"} & set(atoms.index)


def test_dimers_pulled_apart_have_the_shift_of_two_atoms(real_data_folder):
    """Another group, another recipe: diatomic curves of matbench-discovery at their largest distance."""
    with gzip.open(real_data_folder / "dimers_pbe_r2scan.json.gz", "rt") as file:
        dimers = pd.Series(free_atom_shifts_ev(json.load(file)))
    atoms = vasp_free_atoms()
    apart = (dimers - (atoms["r2scan"] - atoms["pbe"])).dropna().abs()
    assert len(apart) > 60
    assert apart.median() < 0.3


def test_the_published_references_follow_the_free_atoms():
    atoms = vasp_free_atoms()
    prior = published_shift()
    fitted = pd.Series(prior.shift_ev[atoms.index.map(ATOMIC_NUMBERS) - 1], atoms.index)
    known = np.array([prior.origin[ATOMIC_NUMBERS[symbol] - 1] == "published" for symbol in atoms.index])
    both = pd.DataFrame({"fitted": fitted, "atom": atoms["r2scan"] - atoms["pbe"]})[known]
    assert both.corr().iloc[0, 1] > 0.98
