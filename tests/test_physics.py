"""What physics demands of every checkpoint the book uses: forces and stress are slopes, symmetries are exact."""

import numpy as np
import pytest
from oracle import as_crystals, in_other_basis, random_crystals, supercell, unimodular

from crossfunc.potential import load_model, predict
from crossfunc.potential.chgnet import CHECKPOINTS
from crossfunc.units import ev_per_a3_from_gpa

TOLERANCE = 1e-10  # of energies, relative; of the rest relative to the largest component
STENCIL = ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12))  # fourth-order central difference
STEP = 1e-4  # Å, or ten times a strain; near straight angles the energy bends within 1e-3 Å


@pytest.fixture(scope="module", params=CHECKPOINTS)
def model(request):
    return load_model(request.param).double()


def distorted_perovskite(seed):
    rng = np.random.default_rng(seed)
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    lattice = 3.9 * (np.eye(3) + rng.normal(0, 0.03, (3, 3)))
    return np.array([38, 25, 8, 8, 8]), sites + rng.normal(0, 0.02, sites.shape), lattice


CELLS = {
    "perovskite": distorted_perovskite(0),
    "skewed": next(t for t in random_crystals(11, 30) if len(t[0]) == 4),
    "one atom": ([26], [[0.3, 0.1, 0.9]], 2.8 * (1 - 2 * np.eye(3)) / 2 + 0.05 * np.arange(9).reshape(3, 3) / 9),
    "no angles": ([19, 55], [[0.02, 0, 0], [0.5, 0.52, 0.5]], 5.3 * np.eye(3) + 0.1 * np.tri(3)),
}


@pytest.fixture(params=CELLS)
def cell(request):
    numbers, coords, lattice = CELLS[request.param]
    return np.asarray(numbers), np.asarray(coords, dtype=float), np.asarray(lattice)


def slopes(model, crystals_at, directions):
    """dE/dt of the total energy along each direction, energies of all displaced crystals from one call."""
    moved = [crystals_at(t * STEP, d) for d in directions for t, _ in STENCIL]
    energies = predict(model, as_crystals(moved), derivatives=False)["energy_per_atom_ev"] * len(moved[0][0])
    return energies.reshape(len(directions), len(STENCIL)) @ [weight for _, weight in STENCIL] / STEP


# --- slopes ---


def test_forces_are_minus_the_slope_of_the_energy(model, cell):
    numbers, coords, lattice = cell
    forces = predict(model, as_crystals([cell]))["forces_ev_per_a"][0]
    directions = np.eye(forces.size).reshape(-1, *forces.shape)
    found = slopes(model, lambda t, d: (numbers, coords + t * d @ np.linalg.inv(lattice), lattice), directions)
    np.testing.assert_allclose(forces.ravel(), -found, rtol=0, atol=1e-7 * max(1, np.abs(forces).max()))


def test_stress_is_the_slope_with_strain_per_volume_tension_positive(model, cell):
    numbers, coords, lattice = cell
    stress = ev_per_a3_from_gpa(predict(model, as_crystals([cell]))["stress_gpa"][0])
    directions = np.eye(9).reshape(9, 3, 3) / 10
    found = 10 * slopes(model, lambda t, d: (numbers, coords, lattice @ (np.eye(3) + t * d)), directions)
    virial = stress.ravel() * abs(np.linalg.det(lattice))
    np.testing.assert_allclose(virial, found, rtol=0, atol=1e-7 * max(1, np.abs(virial).max()))
    np.testing.assert_allclose(stress, stress.T, atol=1e-10)


def test_a_cell_under_pressure_has_negative_stress(model):
    numbers, coords, lattice = distorted_perovskite(1)
    squeezed, stretched = predict(model, as_crystals([(numbers, coords, f * lattice) for f in (0.93, 1.06)]))[
        "stress_gpa"
    ]
    assert np.trace(squeezed) < 0 < np.trace(stretched)


def test_forces_add_up_to_nothing(model, cell):
    forces = predict(model, as_crystals([cell]))["forces_ev_per_a"][0]
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-10)


# --- symmetries ---


def assert_same(output, energy, forces, stress, magmoms):
    scale = max(1, np.abs(forces).max()), max(1, np.abs(stress).max())
    np.testing.assert_allclose(output["energy_per_atom_ev"][0], energy, rtol=TOLERANCE)
    np.testing.assert_allclose(output["forces_ev_per_a"][0], forces, rtol=0, atol=TOLERANCE * scale[0])
    np.testing.assert_allclose(output["stress_gpa"][0], stress, rtol=0, atol=TOLERANCE * scale[1])
    np.testing.assert_allclose(output["magmoms_mub"][0], magmoms, rtol=0, atol=TOLERANCE)


def both(model, cell, changed):
    """Outputs of the crystal as four arrays, and those of the changed one."""
    before = predict(model, as_crystals([cell]))
    keys = "energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub"
    return [before[key][0] for key in keys], predict(model, as_crystals([changed]))


def test_a_supercell_has_the_same_energy_per_atom_and_stress_and_repeats_the_rest(model, cell):
    (energy, forces, stress, magmoms), output = both(model, cell, supercell(cell, (2, 1, 2)))
    assert_same(output, energy, np.repeat(forces, 4, axis=0), stress, np.repeat(magmoms, 4))


def test_permuting_the_atoms_permutes_what_belongs_to_them(model, cell):
    numbers, coords, lattice = cell
    order = np.random.default_rng(2).permutation(len(numbers))
    (energy, forces, stress, magmoms), output = both(model, cell, (numbers[order], coords[order], lattice))
    assert_same(output, energy, forces[order], stress, magmoms[order])


@pytest.mark.parametrize("handedness", [1, -1])
def test_turning_or_mirroring_the_crystal_turns_forces_and_stress_with_it(model, cell, handedness):
    numbers, coords, lattice = cell
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn *= handedness * np.linalg.det(turn)
    (energy, forces, stress, magmoms), output = both(model, cell, (numbers, coords, lattice @ turn))
    assert_same(output, energy, forces @ turn, turn.T @ stress @ turn, magmoms)


def test_moving_the_crystal_or_an_atom_by_a_lattice_vector_changes_nothing(model, cell):
    numbers, coords, lattice = cell
    vectors = np.random.default_rng(4).integers(-3, 4, coords.shape)
    before, output = both(model, cell, (numbers, coords + np.array([0.37, -1.2, 0.64]) + vectors, lattice))
    assert_same(output, *before)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_other_vectors_of_the_same_lattice_change_nothing(model, cell, seed):
    before, output = both(model, cell, in_other_basis(cell, unimodular(np.random.default_rng(seed), n_steps=3)))
    assert_same(output, *before)


def test_neighbours_in_a_batch_change_nothing(model):
    together = predict(model, as_crystals(CELLS.values()))
    for k, cell in enumerate(CELLS.values()):
        before, _ = both(model, cell, cell)
        assert_same({key: values[k : k + 1] for key, values in together.items() if key != "refused"}, *before)
