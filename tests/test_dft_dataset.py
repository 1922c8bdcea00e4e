"""The shipped dataset pbe-r2scan holds what it was asked to hold: the bars on its plan, asked of the data."""

import numpy as np
import pytest

from crossfunc.datasets import check_dataset, open_dataset
from crossfunc.datasets.coverage import ENOUGH_MATERIALS, HEAVY_Z, count_structures, materials_per_element
from crossfunc.dft.evidence import count
from crossfunc.dft.labels import LARGEST_NET_FORCE_EV_PER_A, free_atoms
from crossfunc.dft.settings import FUNCTIONALS
from crossfunc.lessons.dft_hulls import ternary_systems
from crossfunc.symbols import ATOMIC_NUMBERS


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The dataset of the package, and none of that name that CROSSFUNC_DATA has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSFUNC_DATA", str(tmp_path_factory.mktemp("none")))
        dataset = open_dataset("pbe-r2scan")
    assert dataset.path.parent.name == "packaged"
    return dataset


@pytest.fixture(scope="module")
def frames(shipped):
    return shipped.need_frames().to_pandas()


def test_structures_and_materials(shipped, frames):
    counts = count(frames)
    assert count_structures(shipped.frames) == counts["structures"]
    assert counts["structures"] >= 800
    assert counts["materials"] >= 100


def test_every_structure_has_both_functionals_with_energy_forces_and_stress(frames):
    structure = frames["frame_id"].str.rsplit("/", n=1).str[0]
    per_structure = frames.groupby(structure)["functional"].agg(set)
    assert all(keys == set(FUNCTIONALS) for keys in per_structure)
    labels = frames[["energy_per_atom_ev", "forces_ev_per_a", "stress_gpa"]]
    assert all(np.isfinite(np.concatenate([np.ravel(value) for value in labels[key]])).all() for key in labels)


def test_elements_are_in_enough_materials_the_heavy_ones_too(frames):
    common = materials_per_element(frames)
    common = common[common >= ENOUGH_MATERIALS]
    assert len(common) >= 28
    assert sum(ATOMIC_NUMBERS[symbol] >= HEAVY_Z for symbol in common.index) >= 6


def test_two_ternary_systems_have_eight_phases_elements_included(shipped):
    systems = ternary_systems(shipped)
    whole = systems[[not missing for missing in systems["missing"]]]
    assert (whole["n_compounds"] + 3 >= 8).sum() >= 2


def test_the_check_prints_what_the_bars_are_about(shipped, frames):
    said = "\n".join(finding.message for finding in check_dataset(shipped.path).findings)
    counts, common = count(frames), materials_per_element(frames)
    heavy = [symbol for symbol in common.index if ATOMIC_NUMBERS[symbol] >= HEAVY_Z]
    assert f"{counts['structures']} structures of {counts['materials']} materials" in said
    assert f"{counts['heavy_elements']} of them heavy (Z >= 55): {' '.join(heavy)}" in said
    enough = common[common >= ENOUGH_MATERIALS]
    n_heavy = len(set(enough.index) & set(heavy))
    assert f"{len(enough)} elements in 6 materials or more, {n_heavy} of them heavy" in said
    (system, n_compounds, _), *_ = ternary_systems(shipped).itertuples(index=False)
    assert f"{'-'.join(system)} {n_compounds + 3}" in said


def test_every_element_has_a_reference_and_a_free_atom_in_both_functionals(shipped, frames):
    symbols = set(materials_per_element(frames).index)
    atoms = free_atoms(shipped)
    assert symbols <= set(atoms.index)
    assert np.isfinite(atoms[list(FUNCTIONALS)]).all(axis=None)
    for functional in FUNCTIONALS:
        rows = shipped.elements[shipped.elements["functional"] == functional]
        assert symbols <= set(rows.loc[rows["energy_per_atom_ev"].notna(), "element"])
        assert rows["free_atom_energy_ev"].notna().all()


def test_frames_are_of_several_kinds(frames):
    """Equilibrium, strained in volume and in shape, and rattled."""
    assert set(frames["source"]) == {"equilibrium", "volume", "sheared", "rattled"}
    n_atoms = frames["atomic_numbers"].map(len)
    assert n_atoms.min() == 1
    assert n_atoms.max() >= 10


def test_no_net_force_is_above_the_gate(frames):
    assert frames["net_force_ev_per_a"].max() <= LARGEST_NET_FORCE_EV_PER_A


def test_the_folder_stays_small(shipped):
    assert sum(file.stat().st_size for file in shipped.path.iterdir()) <= 5e6
