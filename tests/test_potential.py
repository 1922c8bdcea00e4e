"""Loading models and predicting with them; exact parity is in test_parity, physics in test_physics."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Lattice, Structure

from crossfunc.potential import Crystals, load_model, predict
from crossfunc.potential.graphs import GraphError, build_graphs


def rock_salt(a=4.2):
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def perovskite(a=3.9):
    return Structure.from_spacegroup("Pm-3m", Lattice.cubic(a), ["Sr", "Ti", "O"], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0]])


def fcc(symbol, a):
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [symbol], [[0, 0, 0]]).get_primitive_structure()


def distorted(structure, seed, displacement=0.1):
    rng = np.random.default_rng(seed)
    moved = structure.copy()
    moved = Structure(
        moved.lattice.matrix @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))),
        moved.species,
        moved.frac_coords + rng.normal(0, displacement, (len(moved), 3)) / 5,
    )
    return moved


@pytest.fixture(scope="module", params=["0.3.0", "r2scan"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def double():
    return load_model("r2scan").double()


def test_flat_forward_gives_chgnets_numbers_for_every_kind_of_cell(model):
    cells = [rock_salt(), perovskite(), fcc("Cu", 3.6), fcc("Xe", 6.2), rock_salt().get_primitive_structure()]
    cells = [distorted(cell, seed) for seed, cell in enumerate(cells)]
    ours = predict(model, cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model.predict_structure(cells)
    for k, reference in enumerate(theirs):
        # float32 rounding of energies near -100 eV/atom, of forces and of stresses
        assert ours["energy_per_atom_ev"][k] == pytest.approx(reference["e"], abs=1e-5)
        np.testing.assert_allclose(ours["forces_ev_per_a"][k], reference["f"], atol=2e-4)
        np.testing.assert_allclose(ours["stress_gpa"][k], reference["s"], atol=5e-3)
        np.testing.assert_allclose(ours["magmoms_mub"][k], reference["m"].ravel(), atol=1e-5)


def test_batching_does_not_change_a_crystals_energy(double):
    cells = [distorted(rock_salt(), 1), fcc("Cu", 3.6), distorted(perovskite(), 2)]
    together = predict(double, cells)["energy_per_atom_ev"]
    alone = [predict(double, [cell])["energy_per_atom_ev"][0] for cell in cells]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_small_batches_and_one_large_batch_agree():
    crystals = Crystals.from_structures([distorted(rock_salt(), s) for s in range(5)] + [fcc("Cu", 3.6)])
    batches = list(build_graphs(crystals, max_angles=1))
    assert len(batches) == 6
    assert sorted(k for indices, _ in batches for k in indices) == list(range(6))


def test_energies_alone_agree_with_energies_beside_forces(double):
    cell = distorted(rock_salt(), 6)
    alone = predict(double, [cell], derivatives=False)
    assert "forces_ev_per_a" not in alone
    assert alone["energy_per_atom_ev"][0] == pytest.approx(predict(double, [cell])["energy_per_atom_ev"][0], abs=1e-12)


def test_ase_atoms_and_pymatgen_structures_are_the_same_crystal(model):
    cell = distorted(rock_salt(), 7)
    atoms = Atoms(cell.atomic_numbers, scaled_positions=cell.frac_coords, cell=cell.lattice.matrix, pbc=True)
    energies = predict(model, [cell, atoms], derivatives=False)["energy_per_atom_ev"]
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)


def test_an_isolated_atom_is_refused_by_name(model):
    lonely = Structure(Lattice.cubic(9), ["He"], [[0, 0, 0]])
    with pytest.raises(GraphError, match=r"crystal 1 \(He\): atom 0 is isolated"):
        predict(model, [rock_salt(), lonely])
    output = predict(model, [rock_salt(), lonely], strict=False)
    assert np.isfinite(output["energy_per_atom_ev"][0])
    assert np.isnan(output["energy_per_atom_ev"][1])
    assert "isolated" in output["refused"][1]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True), "two atoms lie on one spot"),
        (Atoms("H", positions=[[0, 0, 0]], cell=[4, 4, 0], pbc=True), "no volume"),
        (Atoms("H", positions=[[np.nan, 0, 0]], cell=[4, 4, 4], pbc=True), "NaN"),
    ],
)
def test_impossible_cells_are_refused_with_the_reason(model, cell, message):
    with pytest.raises(GraphError, match=message):
        predict(model, [cell])


def test_molecules_without_a_periodic_cell_are_refused(model):
    with pytest.raises(ValueError, match="structure 0 is not periodic"):
        predict(model, [Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]])])


def test_disordered_structures_are_refused(model):
    mixed = Structure(Lattice.cubic(4), [{"Mg": 0.5, "Ca": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match=r"structure 0 .* disordered"):
        predict(model, [mixed])


def test_unknown_model_names_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither one of 0\.3\.0, r2scan nor a checkpoint file"):
        load_model("0.9.9")
    file = tmp_path / "model.pth.tar"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="not a CHGNet checkpoint"):
        load_model(file)


def test_loading_a_model_leaves_warnings_and_stdout_alone(capsys):
    before = list(warnings.filters)
    load_model("0.3.0")
    assert warnings.filters == before
    assert capsys.readouterr().out == ""


def test_crystals_survive_the_way_to_pymatgen_and_back():
    cells = [rock_salt(), fcc("Cu", 3.6)]
    back = Crystals.from_structures(cells).take([1, 0]).to_structures()
    assert [c.reduced_formula for c in back] == ["Cu", "MgO"]
    np.testing.assert_allclose(back[1].lattice.matrix, cells[0].lattice.matrix)
