"""The plan of our own DFT: what is computed is a pure function of the seed."""

from collections import Counter

import numpy as np
import pytest

from crossfunc.dft.plan import (
    LOWEST_DISTANCE,
    RECIPE,
    _shortest,
    _start_cells,
    free_atom_moment_mub,
    plan_atoms,
    plan_frames,
    plan_materials,
    plan_run,
)
from crossfunc.dft.settings import HARD
from crossfunc.symbols import ATOMIC_NUMBERS

PLAN = plan_frames()


def test_the_plan_is_as_large_and_as_diverse_as_the_datasheet_says():
    materials = plan_materials()
    count = Counter(e for m in materials for e in set(m.elements))
    assert len(materials) >= 100
    assert len({m.material_id for m in materials}) == len(materials)
    common = [e for e, n in count.items() if n >= 6]
    assert len(common) >= 28
    assert sum(ATOMIC_NUMBERS[e] >= 55 for e in common) >= 6
    assert len(PLAN) >= 1500


def test_every_element_has_an_elemental_reference():
    alone = {m.elements[0] for m in plan_materials() if len(m.elements) == 1}
    assert {e for m in plan_materials() for e in m.elements} == alone


@pytest.mark.parametrize("system", ["K-Mg-F", "Ba-Ti-O", "Ba-Hf-O"])
def test_ternary_systems_hold_eight_phases_or_more(system):
    within = set(system.split("-"))
    phases = [m for m in plan_materials() if set(m.elements) <= within]
    assert len(phases) >= 8
    assert any(set(m.elements) == within for m in phases)


def test_the_same_seed_gives_the_same_frames_and_another_seed_others():
    again = plan_frames(seed=0)
    assert again == PLAN
    other = {f.frame_id: f for f in plan_frames(seed=1)}
    rattled = [f for f in PLAN if f.step.kind == "rattled" and len(f.atomic_numbers) > 1]
    assert all(other[f.frame_id].frac_coords != f.frac_coords for f in rattled)
    still = [f for f in PLAN if f.step.kind in ("equilibrium", "volume")]
    assert all(other[f.frame_id] == f for f in still)


def test_a_shorter_recipe_is_the_beginning_of_a_longer_one():
    assert plan_frames(n_steps=3) == PLAN[: len(plan_frames(n_steps=3))]
    assert [f.order for f in PLAN] == sorted(f.order for f in PLAN)


def test_no_frame_has_atoms_closer_than_its_start_cell_allows():
    for frame in PLAN:
        cell = _start_cells().get(frame.material.material_id)
        if cell is None or frame.step.kind == "volume":
            continue
        start = _shortest(np.reshape(cell["frac_coords"], (-1, 3)), np.reshape(cell["lattice_a"], (3, 3)))
        now = _shortest(np.reshape(frame.frac_coords, (-1, 3)), np.reshape(frame.lattice_a, (3, 3)))
        assert now > LOWEST_DISTANCE * start, frame.frame_id


def test_rattles_reach_what_the_recipe_says():
    """The displacements' standard deviation, over insulators, in each rattled step (damped ones make it smaller)."""
    for k, step in enumerate(RECIPE):
        if not step.rattle_a:
            continue
        moves = []
        for frame in PLAN:
            if frame.order != k or frame.material.binding != "insulator":
                continue
            cell = _start_cells()[frame.material.material_id]
            shift = np.reshape(frame.frac_coords, (-1, 3)) - np.reshape(cell["frac_coords"], (-1, 3))
            shift -= np.round(shift)
            moves.append(shift @ np.reshape(frame.lattice_a, (3, 3)))
        spread = np.concatenate([m.ravel() for m in moves]).std()
        assert 0.6 * step.rattle_a < spread < 1.05 * step.rattle_a


def test_settings_are_the_same_for_all_frames_of_a_material():
    settings = {}
    for frame in PLAN:
        assert settings.setdefault(frame.material.material_id, frame.settings) == frame.settings


def test_the_grid_carries_the_plane_waves_of_every_frame():
    """GPAW's own condition: the cutoff in hartree is at most half of (pi / h)^2, with 25 eV to spare."""
    hartree_ev, bohr_a = 27.211386, 0.529177
    for frame in PLAN:
        lattice = np.reshape(frame.lattice_a, (3, 3))
        spacing_bohr = np.linalg.norm(lattice, axis=1) / frame.settings.grid / bohr_a
        assert (frame.settings.cutoff_ev + 25) / hartree_ev <= 0.5 * (np.pi / spacing_bohr.max()) ** 2, frame.frame_id


def test_hard_elements_get_the_higher_cutoff_and_metals_more_k_points():
    for frame in PLAN:
        hard = bool(HARD & set(frame.material.elements))
        assert frame.settings.cutoff_ev == (700 if hard else 500)
        if frame.material.binding == "metal":
            assert (
                min(frame.settings.k_mesh) >= 2 or max(np.linalg.norm(np.reshape(frame.lattice_a, (3, 3)), axis=1)) > 8
            )


KEEP_AN_AXIS = ("semiconductor", "semimetal")
RATTLED = [f for f in PLAN if f.step.kind == "rattled" and f.material.binding in KEEP_AN_AXIS]


def turned_about_its_axis(lattice, coords):
    """Cell vectors and coordinates after a third of a turn about a + b + c or, in hexagonal cells, about c; by hand."""
    a, b, c = lattice
    if abs(a @ b / np.linalg.norm(a) / np.linalg.norm(b) + 0.5) < 1e-4 and abs(c @ a) < 1e-3:
        x, y, z = coords.T
        return np.array([b, -a - b, c]), np.stack([-y, x - y, z], axis=1)
    return np.roll(lattice, -1, axis=0), np.roll(coords, 1, axis=1)


def test_rattled_semiconductors_keep_a_threefold_axis_where_they_have_one():
    """Angles and lengths stay, and atoms pass into each other, but for one translation that is the same for all."""
    found = set()
    for frame in RATTLED:
        lattice, coords = np.reshape(frame.lattice_a, (3, 3)), np.reshape(frame.frac_coords, (-1, 3))
        new_lattice, turned = turned_about_its_axis(lattice, coords)
        if frame.material.prototype in ("black-phosphorus", "litharge"):
            continue
        np.testing.assert_allclose(new_lattice @ new_lattice.T, lattice @ lattice.T, atol=2e-6)
        numbers = np.array(frame.atomic_numbers)
        apart = turned[:, None] - coords[None]
        offsets = [
            t for t in apart[0] if all(near(turned - t, coords[numbers == n], numbers == n) for n in set(numbers))
        ]
        assert offsets, frame.frame_id
        found.add(frame.material.prototype)
    assert {"zinc-blende", "half-Heusler", "calcium-boride", "wurtzite", "cadmium-iodide", "selenium"} <= found


def near(points, of_element, chosen):
    """Whether each of the chosen points lies on one of an element's atoms."""
    apart = points[chosen][:, None] - of_element[None]
    return np.abs(apart - np.round(apart)).max(axis=2).min(axis=1).max() < 1e-6


def test_a_threefold_axis_takes_no_more_of_a_displacement_than_its_direction():
    """Relative shift of two atoms on the axis, over many frames: its mean square is that of three directions."""
    squares = []
    for frame in RATTLED:
        if len(frame.atomic_numbers) == 2:
            start = np.diff(np.reshape(_start_cells()[frame.material.material_id]["frac_coords"], (-1, 3)), axis=0)
            apart = np.diff(np.reshape(frame.frac_coords, (-1, 3)), axis=0) - start
            shift = (apart - np.round(apart)) @ np.reshape(frame.lattice_a, (3, 3))
            squares.append(float(np.sum(shift**2)) / frame.step.rattle_a**2)
    assert len(squares) > 60
    assert 0.7 * 6 < np.mean(squares) < 1.3 * 6  # two atoms, three directions each; a few are damped


def test_meshes_are_as_dense_as_the_plan_says_for_each_kind():
    by_id = {f.material.material_id: f.settings.k_mesh for f in PLAN}
    assert by_id["LiMgP-half-Heusler"] == (6, 6, 6)  # planes 3.4 Å apart
    assert by_id["GaAs-zinc-blende"] == (8, 8, 8)  # planes 3.26 Å apart, and a length of its own
    assert by_id["C-diamond"] == (10, 10, 10)
    assert by_id["KCl-rock-salt"] == (3, 3, 3)
    assert by_id["NaCl-rock-salt"] == (5, 5, 5)  # a length of its own
    assert by_id["AlN-wurtzite"] == (8, 8, 4)
    assert by_id["TiS2-cadmium-iodide"] == (11, 11, 6)  # a semimetal
    assert by_id["KTaO3-perovskite"] == (5, 5, 5)  # of a small gap, and cubic
    assert by_id["TiO2-rutile"] == (3, 3, 5)  # of a small gap
    assert by_id["LaAlO3-perovskite"] == (3, 3, 3)
    assert by_id["Al-fcc"] == (16, 16, 16)
    assert by_id["LiAu-B2"] == (10, 10, 10)
    assert by_id["Al2Pt-antifluorite"] == (6, 6, 6)


def test_atoms_are_polarised_by_hunds_rule_and_stand_in_a_box_of_three_different_sides():
    atoms = {f.material.elements[0]: f for f in plan_atoms()}
    assert set(atoms) == {e for m in plan_materials() for e in m.elements}
    assert atoms["N"].settings.moment_mub == 3 == free_atom_moment_mub("N")
    assert atoms["W"].settings.moment_mub == 4
    assert atoms["Mg"].settings.moment_mub == 0
    sides = np.diag(np.reshape(atoms["Cs"].lattice_a, (3, 3)))
    assert len(set(sides)) == 3


def test_a_run_computes_what_fixes_the_minima_before_atoms_and_the_rest():
    frames = plan_run()
    assert len(frames) == len(PLAN) + len(plan_atoms())
    first_atom = next(k for k, f in enumerate(frames) if f.material.binding == "atom")
    early = {(f.material.material_id, f.step.kind) for f in frames[:first_atom]}
    assert all((m.material_id, "equilibrium") in early for m in plan_materials())


@pytest.mark.parametrize("n_steps", [0, len(RECIPE) + 1])
def test_a_recipe_of_impossible_length_is_refused(n_steps):
    with pytest.raises(ValueError, match="1 to"):
        plan_frames(n_steps=n_steps)
