"""The embedded dataset: what was planned, what lies in the package, and that the generator makes it again."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

import crossfunc as xf
from crossfunc.datasets import check_dataset, split_by_material
from crossfunc.datasets.store import PACKAGED
from crossfunc.energies import composition_matrix, fit_atomref, published_atomref
from crossfunc.potential import Crystals
from crossfunc.surrogate import generate
from crossfunc.surrogate.formation import with_formation_energies
from crossfunc.surrogate.generate import (
    HIGHEST_FORMATION_EV_PER_ATOM,
    LABEL_NOTICE,
    label_materials,
    make_surrogate,
)
from crossfunc.surrogate.plan import DENSE_ELEMENTS, WIDE_ELEMENTS, plan_materials
from crossfunc.surrogate.prototypes import build_crystal, closest_contact, prototypes
from crossfunc.symbols import ELEMENT_SYMBOLS

MEGABYTE = 1e6


@pytest.fixture(scope="module")
def plan():
    return plan_materials(seed=0)


@pytest.fixture(scope="module")
def surrogate():
    return xf.open_dataset(PACKAGED / "surrogate")


@pytest.mark.parametrize("name", prototypes())
def test_every_prototype_gives_its_formula_with_touching_atoms(name):
    elements = ("Na", "Cl", "O")[: len(prototypes()[name].formula)]
    numbers, coords, lattice = build_crystal(name, elements)
    counts = np.array([(numbers == {"Na": 11, "Cl": 17, "O": 8}[e]).sum() for e in elements])
    assert (counts * prototypes()[name].formula[0] == np.array(prototypes()[name].formula) * counts[0]).all()
    assert 0.7 < closest_contact(numbers, coords, lattice) <= 1 / 0.72


def test_the_plan_depends_on_the_seed_alone(plan):
    assert plan_materials(seed=0) == plan
    assert plan_materials(seed=1) != plan


def test_the_plan_repeats_no_material_and_covers_every_element(plan):
    assert len({m.material_id for m in plan}) == len(plan)
    assert {e for m in plan for e in m.elements} == set(WIDE_ELEMENTS)
    assert {e for m in plan if m.tier == "dense" for e in m.elements} == set(DENSE_ELEMENTS)


def test_the_wide_tier_holds_every_element_both_checkpoints_have_a_reference_for(surrogate):
    known = ~np.isnan(published_atomref("0.3.0").energies_ev) & ~np.isnan(published_atomref("r2scan").energies_ev)
    expected = {ELEMENT_SYMBOLS[k] for k in np.flatnonzero(known)}
    X = composition_matrix(surrogate.pairs)
    present = {ELEMENT_SYMBOLS[k] for k in np.flatnonzero(np.asarray(X.sum(axis=0)).ravel())}
    assert present == expected == set(WIDE_ELEMENTS)


def test_both_tiers_are_as_large_as_promised(surrogate):
    tiers = surrogate.pairs["tier"].value_counts()
    assert tiers["wide"] + tiers["dense"] >= 2500
    assert tiers["dense"] >= 400
    dense = surrogate.pairs[surrogate.pairs["tier"] == "dense"]
    per_element = (composition_matrix(dense) > 0).sum(axis=0)
    assert all(per_element[ELEMENT_SYMBOLS.index(e)] >= 12 for e in DENSE_ELEMENTS)


def test_every_dense_material_has_frames_off_and_along_its_path_with_all_labels(surrogate):
    frames = surrogate.frames.filter(pc.equal(surrogate.frames["functional"], "r2scan"))
    dense = frames.filter(pc.starts_with(frames["source"], "dense: "))
    for name in ("forces_ev_per_a", "stress_gpa", "magmoms_mub"):
        assert dense[name].null_count == 0
    sources = defaultdict(set)
    for material, source in zip(dense["material_id"].to_pylist(), dense["source"].to_pylist(), strict=True):
        sources[material].add(source.removeprefix("dense: "))
    assert len(sources) == (surrogate.pairs["tier"] == "dense").sum()
    assert all({"strained", "rattled", "relaxed"} <= found for found in sources.values())
    assert all(sum(s.startswith("path-") for s in found) == 3 for found in sources.values())
    gga = surrogate.frames.filter(pc.equal(surrogate.frames["functional"], "gga"))
    both = {i.removesuffix("/gga") for i in gga["frame_id"].to_pylist()}
    assert {i.removesuffix("/r2scan") for i in dense["frame_id"].to_pylist()} <= both


def test_references_fitted_on_four_fifths_of_the_dense_tier_are_determined(surrogate):
    frames = surrogate.frames
    dense = pc.and_(pc.equal(frames["functional"], "r2scan"), pc.starts_with(frames["source"], "dense: "))
    frames = frames.filter(dense)
    materials = frames["material_id"].to_pylist()
    train = split_by_material(materials, (0.8, 0.1, 0.1), seed=0)["train"]
    fit = fit_atomref(composition_matrix(frames.take(train)), frames["energy_per_atom_ev"].to_numpy()[train])
    assert fit.rank == fit.n_elements == len(DENSE_ELEMENTS)
    assert len(fit.null_space_elements) == 0


def test_no_two_atoms_are_closer_than_sixty_percent_of_their_covalent_radii(surrogate):
    crystals = Crystals.from_frames(surrogate.frames)
    parts = zip(
        crystals.split(crystals.atomic_numbers), crystals.split(crystals.frac_coords), crystals.lattices_a, strict=True
    )
    assert min(closest_contact(*part) for part in parts) > 0.6


def test_a_formation_energy_is_empty_where_an_element_has_no_crystal_and_never_zero():
    pairs = pd.DataFrame(
        {
            "composition": ["Li", "Li", "O2", "Li2O", "NaO", "Na2Li"],
            "low_energy_per_atom_ev": [-1.9, -2.0, -5.0, -4.5, -4.0, -3.0],
        },
        index=[3, 1, 4, 7, 5, 9],
    )
    found = with_formation_energies(pairs, ["low_energy_per_atom_ev"])
    # Li2O: -4.5 - (2 * -2 - 5) / 3
    expected = [0.1, 0.0, 0.0, -1.5, np.nan, np.nan]
    assert found["low_formation_energy_per_atom_ev"].to_numpy() == pytest.approx(expected, nan_ok=True)
    assert list(pairs) == ["composition", "low_energy_per_atom_ev"]


def test_a_compound_of_an_element_whose_crystals_were_all_rejected_has_no_formation_energy():
    """The generator, from records in which sodium has no crystal."""
    records = []
    for name, elements, energy in (("bcc", ("Li",), -2.0), ("B2", ("Li", "Na"), -1.9)):
        cell = build_crystal(name, elements)
        material = {"prototype": name, "elements": elements, "tier": "wide"}
        structures, energies = {"gga": cell, "r2scan": cell}, {"gga": energy, "r2scan": energy - 1}
        records.append({"material": material, "energies": energies, "structures": structures})
    pairs = generate._pairs(records)
    for side in ("low", "low_uncorrected", "high"):
        found = pairs[f"{side}_formation_energy_per_atom_ev"].to_numpy()
        assert found == pytest.approx([0.0, np.nan], nan_ok=True)


def test_formation_energies_are_zero_for_ground_states_and_bounded_for_all(surrogate):
    pairs = surrogate.pairs
    elemental = pairs[pairs["composition"].isin(ELEMENT_SYMBOLS)]
    for name in ("low_uncorrected_formation_energy_per_atom_ev", "high_formation_energy_per_atom_ev"):
        assert np.allclose(elemental.groupby("composition")[name].min(), 0, atol=2e-6)
    for name in ("low_formation_energy_per_atom_ev", "high_formation_energy_per_atom_ev"):
        assert pairs[name].min() > -6  # fluorides of rare earths, the most stable compounds there are, reach about -4.5
    assert pairs["high_formation_energy_per_atom_ev"].max() <= HIGHEST_FORMATION_EV_PER_ATOM
    # The GGA labeller has no say in the selection; it must still agree that nothing is far above its elements.
    assert pairs["low_formation_energy_per_atom_ev"].max() < 2 * HIGHEST_FORMATION_EV_PER_ATOM


def test_many_systems_hold_eight_or_more_formulas(surrogate):
    dense = surrogate.pairs[surrogate.pairs["tier"] == "dense"]
    systems = [frozenset(c for c in ELEMENT_SYMBOLS if c in _symbols(f)) for f in dense["composition"]]
    formulas = list(dense["composition"])
    rich = [
        target
        for target in set(systems)
        if len(target) in (2, 3) and len({f for f, s in zip(formulas, systems, strict=True) if s <= target}) >= 8
    ]
    assert len(rich) >= 20
    assert {len(s) for s in rich} == {2, 3}


def _symbols(formula):
    import re

    return set(re.findall(r"[A-Z][a-z]?", formula))


def test_the_package_ships_it_whole_and_small(surrogate):
    size = sum(file.stat().st_size for file in (PACKAGED / "surrogate").iterdir())
    assert size < 6 * MEGABYTE
    assert check_dataset(PACKAGED / "surrogate").ok
    assert surrogate.label_notice == LABEL_NOTICE
    assert len(surrogate.rejected) > 0


def test_a_sample_made_again_has_the_same_energies(surrogate, plan):
    kept = set(surrogate.pairs["material_id"])
    sample = [m for m in plan if m.material_id in kept][::400]
    pairs = surrogate.pairs.set_index("material_id")
    frames = dict(
        zip(surrogate.frames["frame_id"].to_pylist(), surrogate.frames["energy_per_atom_ev"].to_pylist(), strict=True)
    )
    assert len(sample) >= 8
    for material, record in zip(sample, label_materials(sample, seed=0), strict=True):
        row = pairs.loc[material.material_id]
        assert record["energies"]["gga"] == pytest.approx(row["low_energy_per_atom_ev"], abs=1e-4)
        assert record["energies"]["r2scan"] == pytest.approx(row["high_energy_per_atom_ev"], abs=1e-4)
        for frame in record.get("frames", []):
            stored = frames[f"{material.material_id}/{frame['source']}/r2scan"]
            assert frame["r2scan_energy"] == pytest.approx(stored, abs=1e-4)


def test_a_killed_generation_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from crossfunc.surrogate import generate

    small = [m for m in plan_materials(seed=0) if m.elements in {("Li",), ("O",), ("Mg",), ("Li", "O"), ("Mg", "O")}]
    small = [m for m in small if m.tier == "dense"]
    monkeypatch.setattr(generate, "plan_materials", lambda seed: small)
    monkeypatch.setattr(generate, "CHUNK", 6)
    calls, label = [], generate.label_materials

    def dies_in_the_second_chunk(materials, seed):
        calls.append(len(materials))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return label(materials, seed)

    monkeypatch.setattr(generate, "label_materials", dies_in_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        make_surrogate(tmp_path / "small", progress=False)
    assert not (tmp_path / "small").exists()
    resumed = make_surrogate(tmp_path / "small", progress=False)
    assert calls.count(6) <= len(small) // 6 + 1  # the finished chunk was not made twice
    assert set(resumed.pairs["tier"]) == {"dense"}
    monkeypatch.setattr(generate, "label_materials", label)
    undisturbed = make_surrogate(tmp_path / "again", progress=False)
    assert resumed.frames.equals(undisturbed.frames)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
