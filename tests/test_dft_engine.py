"""The engine: refused before anything is computed, and the shipped labels computed again where GPAW is installed."""

import ast
import builtins
import dataclasses
import importlib.util
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from crossfunc.dft import settings
from crossfunc.dft.checks import run_checks
from crossfunc.dft.engine import (
    EngineError,
    NotConverged,
    _both,
    check_engine,
    make_atoms,
    make_calculator,
    pulay_gpa,
    refuse_uncomputable,
)
from crossfunc.dft.plan import Material, plan_atoms, plan_frames
from crossfunc.dft.settings import CONVERGENCE

FRAMES = plan_frames(n_steps=1)
HAS_GPAW = importlib.util.find_spec("gpaw") is not None
needs_gpaw = pytest.mark.skipif(not HAS_GPAW, reason="GPAW is not installed (pip install 'crossfunc[dft]')")


def test_ci_computes_with_gpaw():
    """The tests below must not be skipped unnoticed where everything is meant to be installed."""
    assert HAS_GPAW or not os.environ.get("CI")


def test_a_missing_gpaw_is_said_with_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "gpaw":
            raise ImportError("No module named 'gpaw'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineError, match=r"crossfunc\[dft\].*pbe-r2scan needs neither"):
        check_engine()
    with pytest.raises(EngineError, match=r"crossfunc\[dft\]"):
        run_checks(("derivatives",))


def test_every_way_to_install_names_the_release_that_labels_come_from():
    root = Path(__file__).resolve().parents[1]
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dft"]
    major, minor = map(int, settings.GPAW_RELEASE.split("."))
    assert f"gpaw>={settings.GPAW_RELEASE},<{major}.{minor + 1}" in extra
    of_conda = f"conda install -c conda-forge gpaw={settings.GPAW_RELEASE} gpaw-data"
    for file in ("book/datasets.md", "src/crossfunc/cli.py"):
        text = " ".join((root / file).read_text(encoding="utf-8").split())
        assert of_conda in text, file
        assert "apt-get install libxc-dev libopenblas-dev libfftw3-dev" in text, file


def test_every_numerical_setting_is_in_one_module_with_its_reason():
    """A literal in capitals elsewhere in the engine or the grid's functional would be a setting without its place."""
    folder = Path(settings.__file__).parent
    tree = ast.parse((folder / "settings.py").read_text(encoding="utf-8"))
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "__all__":
            reason = tree.body[number + 1]
            assert isinstance(reason, ast.Expr), ast.unparse(node.targets[0])
            assert isinstance(reason.value, ast.Constant)
    for name in ("engine.py", "vacuum.py"):
        body = ast.parse((folder / name).read_text(encoding="utf-8")).body
        set_here = [ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)]
        assert set(set_here) <= {"__all__", "REACH_A"}, name  # REACH_A refuses, and enters no label


@needs_gpaw
def test_an_old_libxc_is_said(monkeypatch):
    import gpaw.xc

    def unknown(name, *args, **kwargs):
        raise NameError(f'Unknown functional: "{name}".')

    monkeypatch.setattr(gpaw.xc, "XC", unknown)
    with pytest.raises(EngineError, match=r"does not know r2SCAN.*came with libxc 5\.1\.0\. .*build GPAW") as caught:
        check_engine()
    assert ".)" not in str(caught.value)


@needs_gpaw
def test_an_element_without_a_dataset_is_named():
    plutonium = Material("Pu-fcc", "fcc", ("Pu",), "metal")
    with pytest.raises(EngineError, match=r"No PBE dataset for Pu"):
        check_engine([plutonium])


@needs_gpaw
def test_a_check_names_the_elements_without_a_dataset(monkeypatch):
    import gpaw

    monkeypatch.setattr(gpaw, "setup_paths", [])
    with pytest.raises(EngineError, match=r"No PBE dataset for .*Li.*pip install gpaw-data"):
        run_checks(("derivatives",))


@needs_gpaw
def test_versions_are_told():
    versions = check_engine([f.material for f in FRAMES])
    assert set(versions) == {"gpaw", "gpaw-data", "ase", "libxc"}
    assert "unknown" not in versions.values()


@needs_gpaw
def test_what_gpaw_did_to_numpy_ended_with_the_test_that_loaded_it():
    """Where GPAW sees pytest it fills every empty array with NaN: figures and tables of later tests got them."""
    assert np.empty(1, dtype=object)[0] is None


def test_a_crystal_with_an_isolated_atom_is_refused():
    frame = next(f for f in FRAMES if f.frame_id == "NaCl-rock-salt-00")
    far = dataclasses.replace(frame, lattice_a=tuple(4 * x for x in frame.lattice_a))
    with pytest.raises(EngineError, match=r"NaCl-rock-salt-00: atom 1 has no neighbour.*plan_atoms"):
        refuse_uncomputable([far])
    refuse_uncomputable([frame, *plan_atoms()])


def test_a_metal_without_k_points_is_refused():
    frame = next(f for f in FRAMES if f.frame_id == "Al-fcc-00")
    settings = dataclasses.replace(frame.settings, k_mesh=(1, 1, 1))
    with pytest.raises(EngineError, match=r"Al-fcc-00: a metal with one k-point"):
        refuse_uncomputable([dataclasses.replace(frame, settings=settings)])


def test_the_pulay_term_is_two_thirds_of_the_slope():
    """1 meV per eV at 600 eV in 100 Å³ is 2/3 * 600 * 1e-3 / 100 eV/Å³ = 4e-3 eV/Å³ = 0.641 GPa."""
    assert pulay_gpa(1e-3, 600, 100) == pytest.approx(0.64087, abs=1e-5)


def _barium():
    (frame,) = (f for f in FRAMES if f.frame_id == "Ba-bcc-00")
    return dataclasses.replace(frame, settings=dataclasses.replace(frame.settings, k_mesh=(2, 2, 2), cutoff_ev=250.0))


@needs_gpaw
def test_barium_is_a_metal():
    """Its entropy is not zero: free energy and energy at zero broadening differ."""
    found = _both(_barium(), 250.0, derivatives=False)
    for functional in ("pbe", "r2scan"):
        assert found[functional]["energy_ev"] - found[functional]["free_energy_ev"] > 1e-3


@needs_gpaw
def test_a_metal_whose_bands_are_all_full_is_refused(monkeypatch):
    monkeypatch.setattr("crossfunc.dft.engine._bands", lambda frame: {})
    with pytest.raises(NotConverged, match="highest of 5 bands of this metal holds electrons"):
        _both(_barium(), 250.0, derivatives=False)


@needs_gpaw
@pytest.mark.parametrize("symbol", ["Ba", "O"])
def test_a_density_that_is_not_found_is_a_result_and_no_fault_of_the_machine(monkeypatch, symbol):
    """A crystal is tried with slow mixing once more, a free atom has no density to mix."""
    import gpaw

    tried = []

    def diverge(frame, cutoff_ev, *, careful):
        tried.append(careful)
        raise gpaw.KohnShamConvergenceError("Did not converge!")

    monkeypatch.setattr("crossfunc.dft.engine._run", diverge)
    frame = _barium() if symbol == "Ba" else _small_atom(symbol)
    with pytest.raises(NotConverged, match=r"no self-consistent density was found \(Did not converge!\)"):
        _both(frame, 250.0)
    assert tried == ([False, True] if symbol == "Ba" else [False])


def _small_atom(symbol: str):
    """A free atom in a box that is too small for labels, but quick."""
    (frame,) = plan_atoms([symbol])
    settings = dataclasses.replace(frame.settings, cutoff_ev=250.0, grid=(28, 28, 32))
    return dataclasses.replace(frame, lattice_a=tuple(np.diag((6.0, 6.2, 6.4)).ravel()), settings=settings)


@needs_gpaw
def test_direct_minimisation_finds_what_mixing_densities_finds():
    from gpaw import Davidson, FermiDirac, MixerSum

    atoms = make_atoms(frame := _small_atom("O"))
    energies = []
    mixed = {
        "eigensolver": Davidson(3), "mixer": MixerSum(0.25, 5, 1.0), "occupations": FermiDirac(0.0, fixmagmom=True),
        "symmetry": {}, "convergence": CONVERGENCE,
    }  # fmt: skip
    for options in ({}, mixed):
        atoms.calc = make_calculator(frame, **options)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], abs=5e-4)
    assert atoms.get_magnetic_moment() == pytest.approx(2, abs=1e-4)


@needs_gpaw
def test_an_open_d_shell_converges_in_both_functionals():
    """Where densities are mixed, electrons of nearly equal energy may change places without end."""
    found = _both(_small_atom("Ti"), 250.0, derivatives=False)
    assert all(labels["iterations"] < 250 for labels in found.values())
    assert found["r2scan"]["energy_ev"] < found["pbe"]["energy_ev"]


@needs_gpaw
def test_shipped_labels_are_computed_again_on_this_machine():
    """An equilibrium and a rattled frame of three materials: 1 meV/atom and 5 meV/Å."""
    from crossfunc.dft.checks import RECOMPUTED, check_recomputed

    for material_id in RECOMPUTED:
        table = check_recomputed(material_id)
        assert len(table) == 4
        assert table["energy_mev_per_atom"].max() < 1, table
        assert table["force_mev_per_a"].max() < 5, table
