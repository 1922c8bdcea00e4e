"""Tables of the checks, with an engine of known energies: what they must say is worked out by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from crossfunc.dft import checks, evidence, labels
from crossfunc.dft.equation_of_state import EquationOfState

OF_R2SCAN = 3
"""All that the engine below has in r2SCAN is three times what it has in PBE."""
GPA_PER_EV_A3 = 160.21766208
"""1.602176e-19 J over 1e-30 m³, in GPa."""


def engine_of(monkeypatch, law):
    """Put a law in place of GPAW; return the settings and convergence of all frames that are computed."""
    from ase.calculators.calculator import Calculator

    class Known(Calculator):
        implemented_properties = ("energy", "free_energy", "forces", "stress")

        def __init__(self, frame):
            super().__init__()
            self.frame = frame

        def calculate(self, atoms=None, properties=(), system_changes=()):
            name = {"PBE": "pbe", "MGGA_X_R2SCAN+MGGA_C_R2SCAN": "r2scan"}[self.parameters.get("xc", "PBE")]
            free_ev, forces, stress_gpa = law(self.frame)
            times = {"pbe": 1, "r2scan": OF_R2SCAN}[name]
            voigt = [stress_gpa[i][j] / GPA_PER_EV_A3 for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
            self.results = {
                "energy": -1e3,  # extrapolated to no width: forces are no derivatives of this one
                "free_energy": times * free_ev,
                "forces": times * np.array(forces),
                "stress": times * np.array(voigt),
            }

    computed = []

    def make_calculator(frame, *, convergence):
        computed.append((frame, convergence))
        return Known(frame)

    monkeypatch.setattr(checks, "make_calculator", make_calculator)
    return computed


def lattice_of(frame):
    return np.reshape(frame.lattice_a, (3, 3))


def volume_of(frame):
    a, b, c = lattice_of(frame)
    return abs(a @ np.cross(b, c))


# --- derivatives ---


@pytest.fixture
def springs(monkeypatch):
    """Frame in a field of springs, and the table of its derivatives.

    The first atom, displaced by u, has ½ 2 eV/Å² |u - (0.1, 0.2, -0.3) Å|²: a force of (0.2, 0.4, -0.6) eV/Å at u = 0.
    The cell has 0.05 eV/Å³ x V, so a mean stress of 0.05 eV/Å³, and 7 eV for every plane wave over those of the frame
    as it is: their number goes as V x cutoff^(3/2). The labels are off by 0.002 eV/Å and by 0.3 GPa.
    """
    frame = checks.find_frame("MgO-rock-salt-01")  # no two vectors of its cell are alike
    n_atoms, volume = len(frame.atomic_numbers), volume_of(frame)

    def law(other):
        moved = (np.reshape(other.frac_coords, (-1, 3)) - np.reshape(frame.frac_coords, (-1, 3)))[0] @ lattice_of(frame)
        waves = volume_of(other) / volume * (other.settings.cutoff_ev / frame.settings.cutoff_ev) ** 1.5 - 1
        spring = np.sum((moved - [0.1, 0.2, -0.3]) ** 2)
        forces = np.zeros((n_atoms, 3))
        forces[0] = [0.202, 0.4, -0.598]
        mean = 0.05 * GPA_PER_EV_A3 + 0.3
        stress = [[mean - 2, 1.0, 0.0], [1.0, mean - 1, 0.0], [0.0, 0.0, mean + 3]]
        return spring + 0.05 * volume_of(other) + 7 * waves, forces, stress

    computed = engine_of(monkeypatch, law)
    return frame, checks.check_derivatives(frame), computed


def test_forces_and_mean_stress_are_the_slopes_of_a_known_energy(springs):
    frame, table, _ = springs
    assert set(table["frame_id"]) == {frame.frame_id}
    assert dict(zip(table["quantity"], table["unit"], strict=True)) == {
        "force x": "eV/Å",
        "force z": "eV/Å",
        "mean stress": "GPa",
    }
    gpa = 0.05 * GPA_PER_EV_A3
    slopes = {"force x": 0.2, "force z": -0.6, "mean stress": gpa * (1 + 0.004**2 / 3)}  # (1+h)³ - (1-h)³ = 6h + 2h³
    labels = {"force x": 0.202, "force z": -0.598, "mean stress": gpa + 0.3}
    for name, times in (("pbe", 1), ("r2scan", OF_R2SCAN)):
        rows = table[table["functional"] == name].set_index("quantity")
        assert list(rows.index) == list(slopes)
        for quantity, slope in slopes.items():
            assert rows.loc[quantity, "finite_difference"] == pytest.approx(times * slope, rel=1e-7), (name, quantity)
            assert rows.loc[quantity, "analytical"] == pytest.approx(times * labels[quantity], rel=1e-9)
            off = times * (labels[quantity] - slope)
            assert rows.loc[quantity, "difference"] == pytest.approx(off, abs=1e-6)


def test_atoms_and_cells_are_moved_to_both_sides_at_fixed_plane_waves_and_tight_convergence(springs):
    frame, _, computed = springs
    others = [other for other, _ in computed]
    assert len(others) == 1 + 2 + 2 + 2
    assert [convergence for _, convergence in computed] == [checks.TIGHT] * len(others)
    coords = [np.reshape(other.frac_coords, (-1, 3)) @ lattice_of(frame) for other in others[:5]]
    moved = np.array([at - coords[0] for at in coords[1:]])
    np.testing.assert_allclose(moved[:, 0], 0.01 * np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]]), atol=1e-9)
    assert np.abs(moved[:, 1:]).max() < 1e-12
    for other, scale in zip(others[5:], (1.004, 0.996), strict=True):
        np.testing.assert_allclose(lattice_of(other), scale * lattice_of(frame), rtol=1e-12)
        assert other.frac_coords == frame.frac_coords
        cutoff_ev = frame.settings.cutoff_ev / (scale * scale)
        assert other.settings == dataclasses.replace(frame.settings, cutoff_ev=pytest.approx(cutoff_ev, rel=1e-12))


# --- convergence ---


@pytest.fixture
def unconverged(monkeypatch):
    """Table of a crystal whose labels depend on cutoff and k-points in a known way.

    An atom has -0.01 meV for each eV of the cutoff and 90 meV over the k-points along an axis, three times as much in
    the second frame. There the z force of the second atom has 0.1 meV/Å for each eV, and its x force -0.18 eV/Å over
    the k-points. Stress at fixed plane waves: 2 MPa for each eV on one axis and 0.9 GPa over the k-points in one shear,
    less the Pulay part, which for an energy linear in the cutoff is -2/3 cutoff/V dE/dcutoff on every axis.
    """

    def law(frame):
        n_atoms, cutoff_ev, (k, *_) = len(frame.atomic_numbers), frame.settings.cutoff_ev, frame.settings.k_mesh
        weight = {"00": 1, "01": 3}[frame.frame_id[-2:]]
        forces = np.full((n_atoms, 3), 0.5)
        forces[1] = [-0.18 / k, 0.0, 1e-4 * cutoff_ev]
        stress = np.diag([0.002 * cutoff_ev, 0, 0])
        stress[1, 2] = stress[2, 1] = 0.9 / k
        slope = -1e-5 * n_atoms
        stress -= np.eye(3) * 2 / 3 * cutoff_ev / volume_of(frame) * slope * GPA_PER_EV_A3
        return weight * n_atoms * (-1e-5 * cutoff_ev + 0.09 / k), forces, stress

    computed = engine_of(monkeypatch, law)
    return checks.check_convergence("MgO-rock-salt"), computed


def test_finer_settings_change_differences_of_two_frames_by_what_is_known(unconverged):
    table, _ = unconverged
    assert set(table["material_id"]) == {"MgO-rock-salt"}
    numbers = ["energy_mev_per_atom", "force_mev_per_a", "stress_gpa"]
    cutoff = np.array([0.01 * 200 * (3 - 1), 0.1 * 200, 0.002 * 200])  # 700 to 900 eV: 4 meV, 20 meV/Å, 0.4 GPa
    k_points = np.array([90 / 18 * (3 - 1), 180 / 18, 0.9 / 18])  # 1/6 - 1/9 = 1/18: 10 meV, 10 meV/Å, 0.05 GPa
    found = table.set_index(["finer", "functional"])[numbers]
    assert len(found) == 6
    for finer, errors in (("cutoff 900 eV", cutoff), ("k-points 9x9x9", k_points)):
        for functional, times in (("pbe", 1), ("r2scan", OF_R2SCAN), ("r2scan - pbe", OF_R2SCAN - 1)):
            np.testing.assert_allclose(found.loc[(finer, functional)], times * errors, rtol=1e-6)


def test_one_setting_at_a_time_is_made_finer_and_the_cutoffs_slope_is_taken_at_the_first_frame(unconverged):
    """The plan has 700 eV, 6x6x6 and 20 points: at 900 eV 20 x sqrt(9/7) = 22.7 points, and so 24, an even number."""
    _, computed = unconverged
    assert {tuple(convergence.items()) for _, convergence in computed} == {tuple(checks.CONVERGENCE.items())}
    seen = [(f.frame_id[-2:], f.settings.cutoff_ev, f.settings.k_mesh[0], f.settings.grid[0]) for f, _ in computed]
    frames = ("00", "01", "00", "00")
    assert seen == [
        *zip(frames, (700, 700, 725, 675), [6] * 4, [20] * 4, strict=True),
        *zip(frames, (900, 900, 925, 875), [6] * 4, [24] * 4, strict=True),
        *zip(frames, (700, 700, 725, 675), [9] * 4, [20] * 4, strict=True),
    ]


# --- grid ---


def test_net_forces_and_deviations_fall_with_the_grid_as_they_are_known_to(monkeypatch):
    """Of n points, two atoms are pulled by 0.216/n eV/Å along x and 0.288/n along y: together by 0.36/n, as 3-4-5."""

    def law(frame):
        (n, *others) = frame.settings.grid
        assert others == [n, n]
        forces = np.zeros((len(frame.atomic_numbers), 3))
        forces[:2, 2] = [1.0, -1.0]  # a real force, which cancels
        forces[0, 0] += 0.216 / n
        forces[1, 1] -= 0.288 / n
        return 0.0, forces, np.zeros((3, 3))

    computed = engine_of(monkeypatch, law)
    monkeypatch.setattr(checks, "libxc_clamps", lambda: True)  # where it is asked, GPAW would be
    frame = checks.find_frame("SrTiO3-perovskite-01")
    table = checks.check_grid(frame)
    assert [convergence for _, convergence in computed] == [checks.CONVERGENCE] * 3
    for other, _ in computed:
        assert dataclasses.replace(other.settings, grid=frame.settings.grid) == frame.settings
    of_pbe = {24: (15.0, 4.0), 28: (90 / 7, 16 / 7), 36: (10.0, 0.0)}  # 360/n, and 288 (1/n - 1/36)
    expected = [
        (frame.frame_id, name, n, times * net, times * off)
        for n, (net, off) in of_pbe.items()
        for name, times in (("pbe", 1), ("r2scan", OF_R2SCAN))
    ]
    columns = ["frame_id", "functional", "points", "net_force_mev_per_a", "force_mev_per_a"]
    pd.testing.assert_frame_equal(table[columns], pd.DataFrame(expected, columns=columns))
    assert evidence.grid_net_forces(table.assign(clamped=True))["r2scan_24"] == pytest.approx(45)


# --- what is made of tables ---


def test_a_gap_of_fits_that_is_half_that_of_the_atoms_has_a_slope_of_a_half():
    """Gaps (1, 2) and (2, 4): the slope is 10/20, in the same direction; with (2, 1) it is 8/20, at 8/(√5 √20)."""
    table = pd.DataFrame({"ours": [1.0, 2.0], "free_atom": [0.5, -1.0], "free_atom_vasp": [2.5, 3.0]})
    found = evidence.explained_by_atoms(table.assign(published=[2.0, 4.0]))
    assert found == {"n_atoms": 2, "slope": pytest.approx(0.5), "cosine": pytest.approx(1)}
    found = evidence.explained_by_atoms(table.assign(published=[3.0, 3.0]))
    assert found == {"n_atoms": 2, "slope": pytest.approx(0.4), "cosine": pytest.approx(0.8)}


def test_each_deviation_of_solids_comes_from_the_column_of_its_name():
    columns = ("pbe_minus_measured", "r2scan_minus_measured", "pbe_minus_all_electron", "pbe_minus_all_electron_bulk")
    solids = pd.DataFrame([(2.0, -1.0, 3.0, -4.0), (4.0, 1.0, -5.0, -6.0)], ["Si", "Ge"], columns)
    found = {key: estimate.value for key, estimate in evidence.solid_errors(solids).items()}
    assert found == {"volume_pbe": 3, "volume_r2scan": 1, "volume_all_electron": 4, "bulk_all_electron": 5}


def test_minima_are_energies_and_residuals_of_an_atom_and_the_volume_of_a_cell(monkeypatch):
    """Two atoms with -8 eV, 6 meV off the curve at most: -4 eV and 3 meV each."""
    fit = EquationOfState(-8.0, 19.0, 160.0, 4.0, 0.006, True)
    monkeypatch.setattr(labels, "fit_minimum", lambda frames, name: fit)
    slope = {"de_dcutoff": 0.0}
    frame = {"atomic_numbers": [12, 8], "kind": "volume", "pbe": slope, "r2scan": slope}
    rows = labels.minima_table([frame | {"frame_id": f"MgO-rock-salt-0{k}"} for k in (0, 2, 3)])
    assert rows["functional"].tolist() == ["pbe", "r2scan"]
    for row in rows.to_dict("records"):
        numbers = [row[key] for key in ("energy_per_atom_ev", "residual_mev", "volume_a3", "bulk_modulus_gpa")]
        assert numbers == pytest.approx([-4, 3, 19, 160])
