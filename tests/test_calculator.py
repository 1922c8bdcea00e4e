"""The ASE calculator against chgnet's own, in a relaxation and in molecular dynamics."""

import contextlib
import copy
import io
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

import crossfunc as xf
from crossfunc.potential.calculator import CHGNetCalculator
from crossfunc.potential.graphs import GraphError
from crossfunc.vendor import import_chgnet


@pytest.fixture(scope="module", params=["0.3.0", "r2scan"])
def model(request):
    return xf.load_model(request.param)


def crystals():
    """Cubic, skewed, one-atom and strained cells, atoms away from their places."""
    cells = [bulk("MgO", "rocksalt", 4.2), bulk("NiO", "rocksalt", 4.2, cubic=True), bulk("Cu"), bulk("Ti")]
    for seed, atoms in enumerate(cells):
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * np.eye(3)[[1, 2, 0]]), scale_atoms=True)
        atoms.rattle(0.08, seed=seed)
    return cells


def chgnets_own(model):
    with contextlib.redirect_stdout(io.StringIO()):  # its constructor prints
        return import_chgnet("chgnet.model.dynamics").CHGNetCalculator(model, use_device="cpu")


def results(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "energy": atoms.get_potential_energy() / len(atoms),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
            "stress matrix": atoms.get_stress(voigt=False),
            "magmoms": atoms.get_magnetic_moments(),
        }


@pytest.mark.parametrize("index", range(4))
def test_numbers_are_those_of_chgnets_calculator(model, index):
    ours, theirs = (results(crystals()[index], calculator(model)) for calculator in (CHGNetCalculator, chgnets_own))
    exact = results(crystals()[index], CHGNetCalculator(copy.deepcopy(model).double()))
    for name, value in ours.items():
        # chgnet computes in float32: we may be as far from it as twice what it is from float64
        rounding = 5e-6 + 2 * np.abs(theirs[name] - exact[name]).max()
        assert rounding < 1e-3
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=rounding, err_msg=name)


def test_stress_is_the_slope_of_the_energy_in_ases_sign():
    atoms = crystals()[0]
    atoms.calc = CHGNetCalculator(xf.load_model("r2scan").double())
    stress, step = atoms.get_stress(voigt=False), 1e-5
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.calc = atoms.calc
        strained.set_cell(atoms.cell.array @ (np.eye(3) + sign * step * np.diag([1, 0, 0])), scale_atoms=True)
        energies.append(strained.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step)
    np.testing.assert_allclose(stress[0, 0] * atoms.get_volume(), slope, rtol=1e-5)


def test_energy_grows_with_the_number_of_atoms_and_forces_do_not():
    atoms = crystals()[0]
    atoms.calc = calculator = CHGNetCalculator("r2scan")
    large = atoms.repeat((2, 1, 1))
    large.calc = CHGNetCalculator(calculator.model)
    assert large.get_potential_energy() == pytest.approx(2 * atoms.get_potential_energy(), abs=2e-5)
    np.testing.assert_allclose(large.get_forces()[: len(atoms)], atoms.get_forces(), atol=5e-5)
    np.testing.assert_allclose(large.get_stress(), atoms.get_stress(), atol=5e-6)


def test_a_model_is_run_once_for_one_geometry_and_only_as_far_as_asked(model, monkeypatch):
    calls = []
    from crossfunc.potential import calculator as module

    predict = module.predict
    monkeypatch.setattr(module, "predict", lambda *a, **k: calls.append(k["derivatives"]) or predict(*a, **k))
    atoms = crystals()[0]
    atoms.calc = CHGNetCalculator(model)
    atoms.get_potential_energy()
    atoms.get_magnetic_moments()
    assert calls == [False]
    atoms.get_forces()
    atoms.get_stress()
    atoms.get_potential_energy()
    assert calls == [False, True]
    atoms.rattle(0.01, seed=1)
    atoms.get_forces()
    assert calls == [False, True, True]


def test_a_relaxation_ends_where_chgnets_does(model):
    ours, theirs = crystals()[0], crystals()[0]
    ours.calc, theirs.calc = CHGNetCalculator(model), chgnets_own(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = [FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=100) for atoms in (ours, theirs)]
    assert done == [True, True]
    np.testing.assert_allclose(ours.get_volume(), theirs.get_volume(), rtol=1e-4)
    np.testing.assert_allclose(ours.get_potential_energy(), theirs.get_potential_energy(), atol=1e-4)


def test_dynamics_keep_the_energy(model):
    atoms = bulk("MgO", "rocksalt", 4.2, cubic=True)
    atoms.calc = CHGNetCalculator(model)
    atoms.set_velocities(np.random.default_rng(0).normal(0, 0.04, (len(atoms), 3)))  # some 300 K
    before, kinetic = atoms.get_total_energy(), atoms.get_kinetic_energy()
    VelocityVerlet(atoms, 1 * units.fs).run(10)
    assert abs(atoms.get_kinetic_energy() - kinetic) > 0.01  # it moved
    assert atoms.get_total_energy() == pytest.approx(before, abs=1e-3 * len(atoms))


def test_a_calculator_takes_a_name_and_is_a_public_name():
    assert xf.CHGNetCalculator is CHGNetCalculator
    named, loaded = CHGNetCalculator("r2scan").model, xf.load_model("r2scan")
    assert torch.equal(named.composition_model.fc.weight, loaded.composition_model.fc.weight)
    with pytest.raises(ValueError, match="neither one of"):
        CHGNetCalculator("no-such-model")


def test_isolated_atoms_are_all_named(model):
    atoms = Atoms("MgO2", positions=[[0, 0, 0], [2, 0, 0], [10, 10, 10]], cell=[20] * 3, pbc=True)
    atoms.calc = CHGNetCalculator(model)
    with pytest.raises(GraphError, match=r"MgO2: isolated, no neighbour within 6 Å: atom 2 \(O\)"):
        atoms.get_potential_energy()
    spread = Atoms("MgO", positions=[[0, 0, 0], [10, 10, 10]], cell=[20] * 3, pbc=True)
    spread.calc = atoms.calc
    with pytest.raises(GraphError, match=r"atom 0 \(Mg\), 1 \(O\)"):
        spread.get_forces()


def test_other_impossible_cells_are_refused_with_the_reason(model):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]], cell=[4] * 3, pbc=True)
    atoms.calc = CHGNetCalculator(model)
    with pytest.raises(GraphError, match="two atoms lie on one spot"):
        atoms.get_forces()
    molecule = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]])
    molecule.calc = atoms.calc
    with pytest.raises(ValueError, match="not periodic"):
        molecule.get_forces()


UNKNOWN = {
    "americium": (Atoms("AmO", [[0, 0, 0], [2, 0, 0]], cell=[4] * 3, pbc=True), r"atom 0 is Am \(Z = 95\)"),
    "oganesson": (Atoms([8, 118], [[0, 0, 0], [2, 0, 0]], cell=[4] * 3, pbc=True), r"atom 1 is Og \(Z = 118\)"),
    "a ghost": (Atoms("OX", [[0, 0, 0], [2, 0, 0]], cell=[4] * 3, pbc=True), "atom 1 is Z = 0"),
    "nothing": (Atoms(cell=[4] * 3, pbc=True), "structure 0 has no atoms"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_chgnet_has_no_element_for_is_named_with_its_atom(case):
    atoms, said = UNKNOWN[case]
    atoms = atoms.copy()
    atoms.calc = CHGNetCalculator("0.3.0")
    with pytest.raises(ValueError, match=said) as caught:
        atoms.get_potential_energy()
    assert type(caught.value).__name__ == "CrystalError"


def test_structures_of_pymatgen_too():
    from pymatgen.core import DummySpecies, Lattice, Molecule, Structure

    model, cell, spots = xf.load_model("0.3.0"), Lattice.cubic(4), [[0] * 3, [0.5] * 3]
    for structure, said in (
        (
            Structure(cell, ["O", "Am"], spots),
            "structure 1: atom 1 is Am, which is none of the 94 elements from H to Pu",
        ),
        (Structure(cell, [DummySpecies("X"), "O"], spots), "structure 1: atom 0 is X"),
        (Structure(cell, [], []), "structure 1 has no atoms"),
        (Molecule(["O"], [[0] * 3]), "structure 1 is a Molecule, which has no lattice"),
    ):
        with pytest.raises(ValueError, match=said):
            xf.predict(model, [Structure(cell, ["Mg", "O"], spots), structure])


def test_nothing_of_other_atoms_is_left_after_a_direct_call():
    """`calculate` alone resets nothing in ASE: forces of the crystal before would be served as those of this one."""
    calculator = CHGNetCalculator("0.3.0")
    first, second, *_ = crystals()
    calculator.calculate(first, ["forces"])
    calculator.calculate(second)
    assert set(calculator.results) == {"energy", "free_energy", "magmoms"}
    alone = CHGNetCalculator("0.3.0")
    np.testing.assert_array_equal(calculator.get_property("forces", second), alone.get_property("forces", second))
