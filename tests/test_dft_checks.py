"""Checks of our own labels, as far as nothing is computed: which frames, what is refused, and tables as text."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.dft import checks
from crossfunc.dft.evidence import kept_check, over_bars
from crossfunc.dft.labels import read_records
from crossfunc.dft.plan import plan_frames


def test_a_frame_of_the_plan_is_found_by_its_id():
    frame = checks.find_frame("MgO-rock-salt-01")
    assert frame.frame_id == "MgO-rock-salt-01"
    assert sorted(frame.atomic_numbers) == [8, 12]
    with pytest.raises(DatasetError, match="no frame 'MgO-rock-salt-99' in the plan; ids are MATERIAL-NN"):
        checks.find_frame("MgO-rock-salt-99")


def test_every_check_is_applied_to_frames_of_the_plan():
    of_frames = checks.DERIVATIVE_FRAMES + checks.GRID_FRAMES
    of_materials = [f"{m}-{k:02d}" for m in checks.CONVERGENCE_MATERIALS + checks.RECOMPUTED for k in (0, 1)]
    assert {*of_frames, *of_materials} <= {frame.frame_id for frame in plan_frames()}


def test_an_unknown_check_is_refused_before_the_engine_is_looked_for(monkeypatch):
    monkeypatch.setattr(checks, "check_engine", lambda materials: pytest.fail("looked for the engine"))
    with pytest.raises(
        DatasetError,
        match="no check bands, phonons: choose from derivatives, convergence, k-points, total-energy, grid, "
        "recompute, minima",
    ):
        checks.run_checks(("grid", "phonons", "bands"))


def test_checks_run_case_by_case_and_say_so(monkeypatch):
    told = []
    monkeypatch.setattr(checks, "check_engine", lambda materials: told.append("engine"))
    monkeypatch.setattr(checks, "CHECKS", {"one": (twice, ("a", "b")), "other": (None, ("c",))})
    tables = checks.run_checks(("one",), report=told.append)
    assert told == ["engine", "one: a", "one: b"]
    assert tables == {"one": [{"frame_id": f"{c}-01", "off": off} for c in "ab" for off in (0.0, 1.0)]}


def test_elements_of_the_cases_that_are_missing_must_have_a_dataset(monkeypatch):
    """Before: the first frame of such an element ended the command with a traceback of GPAW."""
    asked = []
    monkeypatch.setattr(checks, "check_engine", asked.extend)
    monkeypatch.setattr(
        checks, "CHECKS", {"one": (twice, ("LiAu-B2-01", "MgO-rock-salt-01")), "two": (twice, lambda: ("Pt-fcc",))}
    )
    checks.run_checks(("one", "two"), known={"one": [{"frame_id": "MgO-rock-salt-01"}]})
    assert {material.material_id for material in asked} == {"LiAu-B2", "Pt-fcc"}


def test_of_derivatives_symmetry_makes_some_alike_or_zero_as_the_check_says():
    table = kept_check("derivatives").set_index(["frame_id", "functional", "quantity"])["analytical"]
    for functional in ("pbe", "r2scan"):
        gallium = table["GaAs-zinc-blende-01", functional]
        assert gallium["force x"] == pytest.approx(gallium["force z"], abs=1e-3)
        assert table["LiAu-B2-01", functional, "force x"] == pytest.approx(0, abs=1e-3)


def twice(case):
    return pd.DataFrame({"frame_id": [f"{case}-01"] * 2, "off": [0.0, 1.0]})


def test_a_long_check_keeps_each_case_as_it_ends_and_goes_on_where_it_was(monkeypatch):
    told, kept = [], []
    monkeypatch.setattr(checks, "check_engine", lambda materials: None)
    monkeypatch.setattr(checks, "CHECKS", {"one": (twice, lambda: ("a", "b", "c"))})
    whole = checks.run_checks(keep=lambda tables: kept.append(json.loads(json.dumps(tables))), names=("one",))
    assert [len(tables["one"]) for tables in kept] == [2, 4, 6]
    again = checks.run_checks(("one",), report=told.append, known={**kept[1], "grid": [{"frame_id": "x"}]})
    assert told == ["one: c"]
    assert again == {**whole, "grid": [{"frame_id": "x"}]}  # tables that nobody asked for stay


@pytest.mark.parametrize("text", ["", "[]", '{"bands": []}', '{"grid": [{"points": 24}]}', '{"grid": 3}'])
def test_a_file_that_holds_no_checks_is_not_completed(tmp_path, text):
    (tmp_path / "checks.json").write_text(text)
    with pytest.raises(DatasetError, match=r"checks.json: no tables of checks.*leave out --missing"):
        checks.read_tables(tmp_path / "checks.json")


def test_k_points_are_made_denser_by_half_and_nothing_else_changes():
    before = checks.find_frame("AlN-wurtzite-00").settings
    after = checks.denser_k_points(before)
    assert (before.k_mesh, after.k_mesh) == ((8, 8, 4), (12, 12, 6))
    assert dataclasses.replace(after, k_mesh=before.k_mesh) == before


class Denser:
    """An engine whose labels are those of a record, moved by what is known."""

    def __init__(self, free_ev, forces, stress_gpa):
        self.free_ev, self.forces, self.stress_gpa = free_ev, forces, stress_gpa

    def calculate(self, atoms):
        from ase.calculators.singlepoint import SinglePointCalculator

        stress = np.reshape(self.stress_gpa, (3, 3)) / 160.21766208
        voigt = [stress[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
        return SinglePointCalculator(
            atoms, energy=self.free_ev, free_energy=self.free_ev, forces=self.forces, stress=voigt
        )


def test_denser_k_points_are_compared_with_the_shipped_rows(monkeypatch):
    """By hand: the difference of the two frames moves by 3 meV/atom, one force by 20 meV/Å, one stress by 0.5 GPa."""
    frames = [checks.find_frame(f"MgO-rock-salt-{k:02d}") for k in (0, 1)]
    shipped = {r["frame_id"]: r for r in read_records(open_dataset("pbe-r2scan").records)[0]}
    meshes = []

    def calculator(frame, *, convergence):
        assert convergence == checks.CONVERGENCE  # that of the shipped rows
        meshes.append(frame.settings.k_mesh)
        pbe = shipped[frame.frame_id]["pbe"]
        forces, stress = np.reshape(pbe["forces_ev_per_a"], (-1, 3)).copy(), np.array(pbe["raw_stress_gpa"])
        moved = frame.frame_id.endswith("01")
        forces[1, 2] -= 0.020 * moved
        stress[0] += 0.5 * moved
        free_ev = pbe["free_energy_ev"] + len(forces) * (0.010 + 0.003 * moved)
        return Denser(free_ev, forces, stress).calculate(checks.make_atoms(frame))

    monkeypatch.setattr(checks, "make_calculator", calculator)
    (row,) = checks.check_k_points("MgO-rock-salt").to_dict("records")
    assert meshes == [(9, 9, 9)] * len(frames)
    assert (row["binding"], row["mesh"], row["denser"]) == ("insulator", "6x6x6", "9x9x9")
    found = [row[key] for key in ("energy_mev_per_atom", "force_mev_per_a", "stress_gpa")]
    np.testing.assert_allclose(found, [3.0, 20.0, 0.5], atol=2e-5)
    (row,) = checks.check_total_energy("MgO-rock-salt").to_dict("records")
    assert (len(meshes), row["denser"]) == (3, "9x9x9")
    found = [row[key] for key in ("energy_mev_per_atom", "force_mev_per_a", "stress_gpa")]
    np.testing.assert_allclose(found, [-10.0, 0.0, 0.0], atol=2e-5)  # shipped minus denser, of the first frame
    for check in (checks.check_k_points, checks.check_total_energy):
        with pytest.raises(DatasetError, match=r"Xx has (0 frames|no frame) in the dataset"):
            check("Xx")


def test_a_check_is_run_on_the_cases_that_are_asked_for(monkeypatch):
    monkeypatch.setattr(checks, "check_engine", lambda materials: None)
    monkeypatch.setattr(checks, "CHECKS", {"one": (twice, ("a", "b", "c")), "other": (twice, lambda: ("d",))})
    tables = checks.run_checks(("one", "other"), only=("c", "a"), known={"one": [{"frame_id": "a-01"}]})
    assert [row["frame_id"] for row in tables["one"]] == ["a-01", "c-01", "c-01"]
    assert tables["other"] == []
    with pytest.raises(DatasetError, match="no case e in one, other: cases are crystals or frames"):
        checks.run_checks(("one", "other"), only=("a", "e"))


def test_metals_without_a_dataset_are_asked_for_too(monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "check_engine", asked.extend)
    monkeypatch.setattr(checks, "CHECKS", {"minima": (twice, ("Ag-fcc",))})
    checks.run_checks(("minima",))
    assert [material.elements for material in asked] == [("Ag",)]


def test_of_crystals_whose_meshes_were_made_denser_one_is_still_off_as_lesson_10_says():
    table = kept_check("k-points").set_index("material_id")
    again = "KTaO3 BaTiO3 PbTiO3 TiO2-rutile BAs AlAs LiAlSi Na3OCl CsPbBr3".split()
    rows = table[[name.startswith(tuple(again)) for name in table.index]]
    assert len(rows) == len(again)
    assert set(over_bars(rows.reset_index())["material_id"]) == {"CsPbBr3-perovskite"}


def test_crystals_are_those_of_the_dataset_with_so_many_frames():
    every, five = checks.crystals(), checks.crystals(at_least=5)
    assert set(five) < set(every)
    assert "MgO-rock-salt" in five
    assert not [name for name in every if name.endswith(("molecule", "-atom"))]


@pytest.mark.parametrize(("check", "at_least"), [("k-points", 2), ("total-energy", 1)])
def test_kept_k_points_are_those_of_the_plan_and_of_shipped_crystals(check, at_least):
    """Rows of an earlier plan would speak of meshes that no label has."""
    rows = kept_check(check).to_dict("records")
    assert {row["material_id"] for row in rows} <= set(checks.crystals(at_least=at_least))
    for row in rows:
        mesh = checks.find_frame(f"{row['material_id']}-00").settings.k_mesh
        assert row["mesh"] == "x".join(map(str, mesh)), row["material_id"]
