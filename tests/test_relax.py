"""Batched relaxation against ASE's FIRE with a Fréchet cell filter, step by step, and on cells that misbehave."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.stress import full_3x3_to_voigt_6_stress
from pymatgen.core import Lattice, Structure

from crossfunc.potential import load_model, predict
from crossfunc.stability import relax
from crossfunc.units import ev_per_a3_from_gpa


@pytest.fixture(scope="module")
def model():
    return load_model("0.3.0").double()


class FlatCalculator(Calculator):
    """The same potential for ASE, one crystal at a time."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, model):
        super().__init__()
        self.model = model

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        output = predict(self.model, [atoms])
        stress = full_3x3_to_voigt_6_stress(ev_per_a3_from_gpa(output["stress_gpa"][0]))
        energy = output["energy_per_atom_ev"][0] * len(atoms)
        self.results = {"energy": energy, "forces": output["forces_ev_per_a"][0], "stress": stress}


def distorted(seed, atoms):
    rng = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    return atoms


def starting_cells():
    return [
        distorted(0, bulk("MgO", "rocksalt", a=4.4)),
        distorted(1, bulk("Cu", "fcc", a=3.5)),
        distorted(2, bulk("GaAs", "zincblende", a=5.8) * (2, 1, 1)),
    ]


@pytest.mark.parametrize("n_steps", [1, 2, 7, 25])
def test_every_step_is_the_one_ase_takes(model, n_steps):
    result = relax(model, starting_cells(), fmax=1e-9, max_steps=n_steps)
    for k, atoms in enumerate(starting_cells()):
        atoms.calc = FlatCalculator(model)
        FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-9, steps=n_steps)
        # float64 rounding through matrix exponentials and n_steps of dynamics
        np.testing.assert_allclose(result.crystals.lattices_a[k], atoms.cell.array, atol=1e-9)
        ours = result.crystals.split(result.crystals.positions_a)[k]
        np.testing.assert_allclose(ours, atoms.positions, atol=1e-9)


def test_converged_crystals_are_where_ase_converges(model):
    result = relax(model, starting_cells(), fmax=0.02)
    assert result.status.tolist() == ["converged"] * 3
    assert (result.max_force_ev_per_a < 0.02).all()
    for k, atoms in enumerate(starting_cells()):
        atoms.calc = FlatCalculator(model)
        optimiser = FIRE(FrechetCellFilter(atoms), logfile=None)
        optimiser.run(fmax=0.02, steps=500)
        assert optimiser.nsteps == result.n_steps[k]
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(result.energy_per_atom_ev[k], abs=1e-10)


def test_a_crystal_relaxes_the_same_alone_and_in_company(model):
    together = relax(model, starting_cells(), fmax=0.05)
    alone = relax(model, starting_cells()[1:2], fmax=0.05)
    assert together.energy_per_atom_ev[1] == pytest.approx(alone.energy_per_atom_ev[0], abs=1e-12)
    assert together.n_steps[1] == alone.n_steps[0]


def test_a_fixed_cell_stays_as_it_is(model):
    result = relax(model, starting_cells(), fmax=0.05, cell=False)
    for k, atoms in enumerate(starting_cells()):
        np.testing.assert_array_equal(result.crystals.lattices_a[k], atoms.cell.array)


def test_too_few_steps_are_reported_not_hidden(model):
    result = relax(model, starting_cells(), fmax=1e-6, max_steps=3)
    assert result.status.tolist() == ["not converged"] * 3
    assert result.n_steps.tolist() == [3, 3, 3]
    assert np.isfinite(result.energy_per_atom_ev).all()


def test_bad_cells_are_reported_in_place_and_do_not_harm_the_others(model):
    overlapping = Atoms("MgO", scaled_positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)
    isolated = Atoms("He", cell=[20, 20, 20], pbc=True)
    good = starting_cells()[0]
    result = relax(model, [overlapping, good, isolated], fmax=0.05)
    assert result.status.tolist() == ["refused", "converged", "refused"]
    assert "one spot" in result.messages[0]
    assert "isolated" in result.messages[2]
    assert np.isnan(result.energy_per_atom_ev[[0, 2]]).all()


def test_a_left_handed_cell_relaxes_to_the_energy_of_its_mirror_image(model):
    right = bulk("MgO", "rocksalt", a=4.4)
    left = right.copy()
    left.set_cell(right.cell.array[[1, 0, 2]], scale_atoms=False)
    result = relax(model, [right, left], fmax=0.01)
    assert result.status.tolist() == ["converged"] * 2
    assert np.linalg.det(result.crystals.lattices_a[0]) * np.linalg.det(result.crystals.lattices_a[1]) < 0
    assert result.energy_per_atom_ev[0] == pytest.approx(result.energy_per_atom_ev[1], abs=1e-6)


# --- cells that misbehave: converge or are reported, never a silent success ---


def overlapping_pair(distance_a):
    atoms = bulk("MgO", "rocksalt", a=4.2)
    atoms.positions[1] = atoms.positions[0] + [distance_a, 0, 0]
    return atoms


def mirrored(atoms):
    atoms.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)
    return atoms


def stretched(atoms, *factors):
    atoms.set_cell(atoms.cell.array @ np.diag(factors), scale_atoms=True)
    return atoms


def misbehaving_cells():
    mgo = bulk("MgO", "rocksalt", a=4.25)
    return {
        "left-handed, distorted": mirrored(distorted(4, mgo.copy())),
        "left-handed, stretched": stretched(mirrored(mgo.copy()), 1.0, 0.8, 1.3),
        "left-handed, close pair": mirrored(overlapping_pair(0.5)),
        "needle of eight cells": distorted(5, bulk("Cu", "fcc", a=3.6) * (1, 1, 8)),
        "needle, drawn out": stretched(mgo.copy(), 0.7, 0.7, 3.0),
        "needle, empty": Atoms("MgO", scaled_positions=[[0, 0, 0], [0, 0, 0.05]], cell=[2.2, 2.2, 40], pbc=True),
        "pressed to a third": stretched(mgo.copy(), 0.7, 0.7, 0.7),
        "blown up threefold": stretched(mgo.copy(), 1.45, 1.45, 1.45),
        "sheared by 45 degrees": stretched(mgo.copy(), 1, 1, 1),
        "atoms 0.5 A apart": overlapping_pair(0.5),
        "atoms 0.05 A apart": overlapping_pair(0.05),
        "flat": stretched(mgo.copy(), 1.0, 1.0, 0.55),
    }


@pytest.fixture(scope="module")
def misbehaved(model):
    cells = misbehaving_cells()
    sheared = cells["sheared by 45 degrees"]
    sheared.set_cell(sheared.cell.array @ np.array([[1, 0, 0], [0.6, 1, 0], [0, 0.6, 1]]), scale_atoms=True)
    return cells, relax(model, list(cells.values()), fmax=0.05, max_steps=60)


def test_every_misbehaving_cell_converges_or_is_reported(misbehaved):
    cells, result = misbehaved
    assert len(result.status) == len(cells)
    assert set(result.status) <= {"converged", "not converged", "refused", "exploded", "overlapping"}
    for k, status in enumerate(result.status):
        assert (status in ("refused", "exploded", "overlapping")) == (k in result.messages), list(cells)[k]


def test_no_volume_changes_its_sign_or_vanishes(misbehaved):
    cells, result = misbehaved
    before = np.array([np.linalg.det(atoms.cell.array) for atoms in cells.values()])
    after = np.linalg.det(result.crystals.lattices_a)
    assert (np.sign(after) == np.sign(before)).all()
    ratio = after / before
    assert ((ratio > 0.19) & (ratio < 5.1)).all()


def test_what_is_called_converged_has_small_forces_when_looked_at_again(model, misbehaved):
    cells, result = misbehaved
    converged = np.flatnonzero(result.status == "converged")
    assert len(converged) >= 3
    again = predict(model, result.crystals.take(converged))
    for j, k in enumerate(converged):
        name = list(cells)[k]
        assert again["energy_per_atom_ev"][j] == pytest.approx(result.energy_per_atom_ev[k], abs=1e-9), name
        assert np.linalg.norm(again["forces_ev_per_a"][j], axis=1).max() < 0.06, name  # the filter turns them slightly
        assert result.max_force_ev_per_a[k] < 0.05, name
    assert not np.isnan(result.energy_per_atom_ev[converged]).any()


def test_what_is_called_converged_has_no_two_atoms_on_one_spot(misbehaved):
    cells, result = misbehaved
    converged = np.flatnonzero(result.status == "converged")
    structures = result.crystals.take(converged).to_structures()
    for k, structure in zip(converged, structures, strict=True):
        closest = min(neighbor.nn_distance for site in structure for neighbor in structure.get_neighbors(site, 4.0))
        assert closest > 0.6, list(cells)[k]  # H2, the closest pair there is, has 0.74


def test_company_does_not_matter_to_a_misbehaving_cell(model, misbehaved):
    cells, result = misbehaved
    k = list(cells).index("left-handed, stretched")
    alone = relax(model, [cells["left-handed, stretched"]], fmax=0.05, max_steps=60)
    assert alone.status[0] == result.status[k]
    assert alone.n_steps[0] == result.n_steps[k]


# --- a potential that drives a crystal apart ---


class Diverging:
    """CHGNet's answers, but copper is pulled apart, or gets no number, from its third evaluation on."""

    def __init__(self, what):
        self.what, self.evaluations = what, 0

    def __call__(self, model, crystals, **options):
        output = predict(model, crystals, **options)
        self.evaluations += 1
        copper = [k for k in range(len(crystals)) if crystals.formula(k) == "Cu"]
        if self.evaluations >= 3 and self.what == "pulled":
            output["stress_gpa"][copper] = -3000 * np.eye(3)  # outwards
        if self.evaluations >= 3 and self.what == "no number":
            output["energy_per_atom_ev"][copper] = np.nan
        return output


@pytest.mark.parametrize(("what", "message"), [("pulled", r"volume changed 5\.\d\d-fold"), ("no number", "not finite")])
def test_a_relaxation_that_diverges_is_reported_and_the_others_are_kept(model, monkeypatch, what, message):
    alone = relax(model, starting_cells()[:1], fmax=0.05)
    monkeypatch.setattr("crossfunc.potential.chgnet.predict", Diverging(what))
    result = relax(model, starting_cells()[:2], fmax=0.05, max_steps=100)
    assert result.status.tolist() == ["converged", "exploded"]
    assert list(result.messages) == [1]
    assert re.search(message, result.messages[1])
    assert result.energy_per_atom_ev[0] == pytest.approx(alone.energy_per_atom_ev[0], abs=1e-9)
    # the last good geometry, with the energy that it has
    last = predict(model, result.crystals.take([1]))["energy_per_atom_ev"]
    assert result.energy_per_atom_ev[1] == pytest.approx(last[0], abs=1e-9)


def test_a_disordered_structure_and_an_empty_list_are_refused_before_anything_is_computed(model, monkeypatch):
    monkeypatch.setattr("crossfunc.potential.chgnet.predict", pytest.fail)
    disordered = Structure(Lattice.cubic(4), [{"Li": 0.5, "Na": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match=r"structure 1 \(Na0\.5 Li0\.5 O1\) is disordered"):
        relax(model, [bulk("Cu", "fcc", a=3.6), disordered])
    with pytest.raises(ValueError, match="no crystals given"):
        relax(model, [])
