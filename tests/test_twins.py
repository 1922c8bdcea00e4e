"""No crystal under two names: what counts as one, and that no split of an embedded dataset has one on both sides."""

import itertools
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

import crossfunc as xf
from crossfunc.datasets import (
    DatasetError,
    find_twin_materials,
    find_twins,
    leave_composition_out,
    leave_prototype_out,
    split_by_material,
)
from crossfunc.datasets.store import PACKAGED
from crossfunc.potential import Crystals
from crossfunc.surrogate import generate
from crossfunc.surrogate.twins import drop_twins, without_twins

EMBEDDED = sorted(folder.name for folder in PACKAGED.iterdir() if (folder / "dataset.json").is_file())


def cesium_chloride(one, other, a=3.0):
    return Structure(Lattice.cubic(a), [one, other], [[0, 0, 0], [0.5, 0.5, 0.5]])


# --- what is one crystal ---


def test_sites_filled_the_other_way_round_are_one_crystal_where_the_type_treats_them_alike():
    rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Ni", "Ti"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structures = [cesium_chloride("Ni", "Ti"), rock_salt, cesium_chloride("Ti", "Ni", a=3.05)]
    assert find_twins(["NiTi", "salt", "TiNi"], structures) == [("NiTi", "TiNi")]


def test_a_supercell_is_the_crystal_itself_and_another_formula_is_not():
    cell = cesium_chloride("Ni", "Ti")
    assert find_twins(["a", "b", "c"], [cell, cell * (2, 1, 1), cesium_chloride("Ni", "Al")]) == [("a", "b")]


def test_likeness_is_passed_on_in_the_order_of_the_ids():
    cell = cesium_chloride("Ni", "Ti")
    assert find_twins(["c", "a", "b"], [cell, cell, cell]) == [("c", "a", "b")]
    assert find_twins([], []) == []


def test_two_materials_alike_in_one_functional_are_one():
    far = Structure(Lattice.tetragonal(3.0, 4.6), ["Ni", "Ti"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    ids = ["a", "a", "b", "b"]
    assert find_twins(ids, [cesium_chloride("Ni", "Ti"), far, cesium_chloride("Ti", "Ni"), far]) == [("a", "b")]
    assert find_twins(ids, [cesium_chloride("Ni", "Ti"), far, far, cesium_chloride("Ti", "Ni")]) == []


def test_twins_are_sought_in_each_functional_also_where_a_material_lacks_one():
    far = Structure(Lattice.tetragonal(3.0, 4.6), ["Ni", "Ti"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    near, other = cesium_chloride("Ni", "Ti"), cesium_chloride("Ti", "Ni")
    assert find_twins(["a", "a", "b"], [far, near, other], ["low", "high", "high"]) == [("a", "b")]
    assert find_twins(["a", "a", "b"], [far, near, other], ["low", "high", "low"]) == []
    rows = [("a", "gga", far), ("b", "r2scan", other), ("a", "r2scan", near), ("a", "r2scan", far)]
    table = [
        {
            "material_id": name,
            "functional": functional,
            "energy_per_atom_ev": -float(len(rows) - k),
            "atomic_numbers": [site.specie.Z for site in crystal],
            "lattice_a": crystal.lattice.matrix.ravel().tolist(),
            "frac_coords": crystal.frac_coords.ravel().tolist(),
        }
        for k, (name, functional, crystal) in enumerate(rows)
    ]
    assert find_twin_materials(pa.Table.from_pylist(table)) == [("a", "b")]


def test_a_dataset_without_frames_has_no_crystals_to_compare():
    with pytest.raises(DatasetError, match="no frames"):
        find_twin_materials(None)


# --- the embedded datasets ---


@pytest.fixture(scope="module", params=EMBEDDED)
def embedded(request):
    return xf.open_dataset(PACKAGED / request.param)


@pytest.fixture(scope="module")
def alike(embedded):
    """Pairs of material ids that pymatgen's matcher calls one crystal, without the library's own search."""
    frames = embedded.frames
    light = frames.select(["material_id", "functional", "energy_per_atom_ev"]).to_pandas()
    rows = light.groupby(["functional", "material_id"])["energy_per_atom_ev"].idxmin()
    matcher = StructureMatcher(ltol=0.1, stol=0.1, angle_tol=3, primitive_cell=True)
    found = set()
    for functional in light["functional"].unique():
        chosen = frames.take(rows[functional].to_numpy())
        by_formula = {}
        for name, structure in zip(
            chosen["material_id"].to_pylist(), Crystals.from_frames(chosen).to_structures(), strict=True
        ):
            by_formula.setdefault(structure.composition.reduced_formula, []).append((name, structure))
        for group in by_formula.values():
            found |= {(a, b) for (a, x), (b, y) in itertools.combinations(group, 2) if matcher.fit(x, y)}
    return found


def test_no_two_materials_of_an_embedded_dataset_are_one_crystal(alike):
    assert alike == set()


def test_no_split_of_an_embedded_dataset_has_a_crystal_on_both_sides(embedded, alike):
    ids = np.array(embedded.frames["material_id"].to_pylist())
    known = embedded.pairs.set_index("material_id")
    there = np.isin(ids, known.index)
    ids = ids[there]
    splits = [split_by_material(ids, seed=0), leave_composition_out(ids, known.loc[ids, "composition"])]
    if "prototype" in known:
        splits.append(leave_prototype_out(ids, known.loc[ids, "prototype"]))
    for parts in splits:
        where = {name: part for part, rows in parts.items() for name in ids[rows]}
        assert all(where[a] == where[b] for a, b in alike)


def test_the_ledger_of_the_surrogate_names_every_twin_and_the_one_that_stayed():
    surrogate = xf.open_dataset(PACKAGED / "surrogate")
    twins = surrogate.rejected[surrogate.rejected["reason"].str.startswith("the same crystal as ")]
    stayed = twins["reason"].str.removeprefix("the same crystal as ")
    assert len(twins) == 53
    assert set(stayed) <= set(surrogate.pairs["material_id"])
    assert not set(twins["id"]) & set(surrogate.pairs["material_id"])
    assert not set(twins["id"]) & set(surrogate.frames["material_id"].to_pylist())
    assert dict(zip(twins["id"], stayed, strict=True))["FeLiO2-layered-oxide"] == "LiFeO2-layered-oxide"


def test_the_surrogate_without_its_twins_is_what_the_generator_writes(tmp_path, monkeypatch):
    """Made again: some materials with their twins, of which the generator must leave what the package holds."""
    surrogate = xf.open_dataset(PACKAGED / "surrogate")
    plan = generate.plan_materials(seed=0)
    wanted, needed = {"AlNi-B2", "NiAl-B2"}, {("Al",), ("Ni",)}
    small = [m for m in plan if m.material_id in wanted or m.elements in needed]
    monkeypatch.setattr(generate, "plan_materials", lambda seed: small)
    made = generate.make_surrogate(tmp_path / "small", progress=False)
    assert {m.material_id for m in small} - set(made.pairs["material_id"]) == {"NiAl-B2"} == set(made.rejected["id"])
    shipped = surrogate.pairs.set_index("material_id").loc[made.pairs["material_id"]]
    numbers = [name for name in shipped if shipped[name].dtype == float]
    for name in numbers:
        np.testing.assert_allclose(made.pairs[name], shipped[name], atol=1e-4)
    ids = set(made.frames["frame_id"].to_pylist())
    shipped_frames = surrogate.frames.filter(
        pc.is_in(surrogate.frames["material_id"], value_set=pa.array(list(shipped.index)))
    )
    assert ids == set(shipped_frames["frame_id"].to_pylist())


def test_dropping_twins_twice_changes_nothing(tmp_path):
    surrogate = xf.open_dataset(PACKAGED / "surrogate")
    again = drop_twins(surrogate, tmp_path / "again")
    assert again.frames.equals(surrogate.frames)
    pd.testing.assert_frame_equal(again.pairs, surrogate.pairs)
    pd.testing.assert_frame_equal(again.elements, surrogate.elements)
    assert again.meta == surrogate.meta


def test_formation_energies_follow_the_ground_states_that_stay():
    """Two names for one copper, the dropped one lower in the low functional: its compound's energy must follow."""
    cell = Structure(Lattice.cubic(2.55), ["Cu"], [[0, 0, 0]])
    other = cesium_chloride("Cu", "Al")
    crystals = {"Cu-a": cell, "Cu-b": cell, "Al-a": Structure(Lattice.cubic(3.0), ["Al"], [[0, 0, 0]]), "CuAl": other}
    low = {"Cu-a": -4.0, "Cu-b": -4.2, "Al-a": -3.0, "CuAl": -4.0}
    high = {"Cu-a": -14.1, "Cu-b": -14.0, "Al-a": -7.0, "CuAl": -11.0}
    pairs = pd.DataFrame(
        {
            "material_id": list(crystals),
            "composition": ["Cu", "Cu", "Al", "CuAl"],
            "prototype": ["a", "b", "a", "c"],
            "low_energy_per_atom_ev": low.values(),
            "high_energy_per_atom_ev": high.values(),
            "low_formation_energy_per_atom_ev": [0.2, 0.0, 0.0, -0.4],
            "high_formation_energy_per_atom_ev": [0.0, 0.1, 0.0, -0.45],
        }
    )
    elements = pd.DataFrame(
        [("Cu", "gga", -4.2, "b"), ("Al", "gga", -3.0, "a"), ("Cu", "r2scan", -14.1, "a"), ("Al", "r2scan", -7.0, "a")],
        columns=["element", "functional", "energy_per_atom_ev", "structure_type"],
    )
    rows = [
        {
            "material_id": name,
            "functional": functional,
            "energy_per_atom_ev": energy[name],
            "atomic_numbers": [site.specie.Z for site in crystal],
            "lattice_a": crystal.lattice.matrix.ravel().tolist(),
            "frac_coords": crystal.frac_coords.ravel().tolist(),
        }
        for name, crystal in crystals.items()
        for functional, energy in (("gga", low), ("r2scan", high))
    ]
    kept, frames, ground, dropped = without_twins(pairs, pa.Table.from_pylist(rows), elements)
    assert dropped[["id", "reason"]].to_numpy().tolist() == [["Cu-b", "the same crystal as Cu-a"]]
    assert frames.num_rows == 6
    assert kept["low_formation_energy_per_atom_ev"].tolist() == [0.0, 0.0, -0.5]  # -4.0 - (-4.0 - 3.0)/2
    assert kept["high_formation_energy_per_atom_ev"].tolist() == [0.0, 0.0, -0.45]
    assert ground.loc[0, ["energy_per_atom_ev", "structure_type"]].tolist() == [-4.0, "a"]


def test_dropping_twins_keeps_what_was_computed(tmp_path):
    """Records of the calculations have no second copy; `--overwrite` writes over the dataset's own folder."""
    dft = xf.open_dataset("pbe-r2scan")
    own = tmp_path / "pbe-r2scan"
    shutil.copytree(dft.path, own)
    drop_twins(own, own, overwrite=True)
    assert xf.open_dataset(own).records.equals(dft.records)


def test_a_twin_without_a_pair_goes_and_the_one_of_the_pairs_stays():
    frames, pairs = [], []
    for name, functionals, crystal in (
        ("b", ("gga",), cesium_chloride("Ni", "Ti")),
        ("a", ("gga", "r2scan"), cesium_chloride("Ti", "Ni")),
        ("c", ("gga", "r2scan"), cesium_chloride("Fe", "Ti")),
    ):
        row = {
            "material_id": name,
            "energy_per_atom_ev": -5.0,
            "atomic_numbers": [site.specie.Z for site in crystal],
            "lattice_a": crystal.lattice.matrix.ravel().tolist(),
            "frac_coords": crystal.frac_coords.ravel().tolist(),
        }
        frames += [row | {"functional": one, "frame_id": f"{name}/{one}"} for one in functionals]
        if len(functionals) == 2:
            energies = {"low_energy_per_atom_ev": -5.0, "high_energy_per_atom_ev": -9.0}
            pairs.append({"material_id": name, "composition": crystal.composition.formula, **energies})
    elements = pd.DataFrame(columns=["element", "functional", "energy_kind", "energy_per_atom_ev"])
    kept, left, _, ledger = without_twins(pd.DataFrame(pairs), pa.Table.from_pylist(frames), elements)
    assert list(kept["material_id"]) == ["a", "c"]
    assert "b" not in left["material_id"].to_pylist()
    assert ledger.to_dict("records") == [{"table": "frames", "row": 0, "id": "b", "reason": "the same crystal as a"}]
