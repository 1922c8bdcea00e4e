"""Minima of metals that the dataset lacks, with a curve of known minimum in the place of the engine."""

import numpy as np
import pytest
from ase.collections import dcdft

from crossfunc.datasets import DatasetError
from crossfunc.dft import solids
from crossfunc.dft.equation_of_state import _birch_murnaghan
from crossfunc.dft.evidence import kept_check
from crossfunc.dft.plan import plan_frames
from crossfunc.units import EV_PER_A3_TO_GPA

MODULI_GPA = {"pbe": 150.0, "r2scan": 170.0}
VOLUMES_A3 = {"pbe": 15.3, "r2scan": 14.9}
DE_DCUTOFF = -1e-4


def volume_of(frame):
    return abs(np.linalg.det(np.reshape(frame.lattice_a, (3, 3))))


def engine(volumes_a3):
    """An engine whose energies and stresses are those of a curve; the stress lacks its Pulay term, as GPAW's does."""

    def compute(frame):
        record = {}
        for name, modulus_gpa in MODULI_GPA.items():
            volume = volume_of(frame)
            energy, pressure = _birch_murnaghan(volume, -5.0, volumes_a3[name], modulus_gpa / EV_PER_A3_TO_GPA, 5.0)
            pulay = 2 / 3 * frame.settings.cutoff_ev / volume * DE_DCUTOFF
            stress = -(pressure + pulay) * EV_PER_A3_TO_GPA * np.eye(3)
            record[name] = {"energy_ev": energy, "raw_stress_gpa": stress.ravel().tolist()}
            if frame.step.kind == "equilibrium":
                record[name]["de_dcutoff"] = DE_DCUTOFF
        return record

    return compute


@pytest.mark.parametrize("material_id", solids.SOLIDS)
def test_frames_are_one_atom_at_three_volumes_about_that_of_all_electron_pbe(material_id):
    middle, small, large = solids.solid_frames(material_id)
    known = dcdft.data[material_id.split("-")[0]]["wien2k_volume"]
    assert len(middle.atomic_numbers) == 1
    assert volume_of(middle) == pytest.approx(known, rel=1e-6)
    assert volume_of(small) / known == pytest.approx(0.97**3, rel=1e-6)
    assert volume_of(large) / known == pytest.approx(1.03**3, rel=1e-6)
    assert small.settings == middle.settings == large.settings


def test_a_metal_of_the_plan_gets_the_settings_that_the_plan_has_for_its_kind():
    """Its cell starts from another volume than the plan's, so that its mesh may have a point more or less."""
    ours = solids.solid_frames("W-bcc")[0].settings
    planned = next(frame.settings for frame in plan_frames() if frame.frame_id == "W-bcc-00")
    assert (ours.cutoff_ev, ours.width_ev, ours.moment_mub) == (planned.cutoff_ev, planned.width_ev, None)
    assert np.abs(np.subtract(ours.k_mesh, planned.k_mesh)).max() <= 1


def test_minima_are_those_of_each_functionals_curve(monkeypatch):
    monkeypatch.setattr(solids, "compute_frame", engine(VOLUMES_A3))
    table = solids.compute_minima("Pd-fcc").set_index("functional")
    assert table["material_id"].unique().tolist() == ["Pd-fcc"]
    for name, modulus_gpa in MODULI_GPA.items():
        assert table.loc[name, "volume_a3_per_atom"] == pytest.approx(VOLUMES_A3[name], rel=1e-5)
        assert table.loc[name, "bulk_modulus_gpa"] == pytest.approx(modulus_gpa, rel=1e-3)
        assert table.loc[name, "derivative"] == pytest.approx(5.0, rel=1e-2)


def test_a_minimum_outside_the_volumes_is_refused(monkeypatch):
    monkeypatch.setattr(solids, "compute_frame", engine({**VOLUMES_A3, "r2scan": 12.0}))
    with pytest.raises(DatasetError, match="Pd-fcc: the minimum in r2scan lies outside the volumes"):
        solids.compute_minima("Pd-fcc")


def test_another_solid_is_refused_with_those_there_are():
    with pytest.raises(DatasetError, match="no solid 'Fe-bcc': choose from Cu-fcc, Pd-fcc"):
        solids.solid_frames("Fe-bcc")


def test_the_kept_table_has_every_metal_in_both_functionals():
    kept = kept_check("minima")
    assert sorted(zip(kept["material_id"], kept["functional"], strict=True)) == sorted(
        (material_id, name) for material_id in solids.SOLIDS for name in MODULI_GPA
    )
