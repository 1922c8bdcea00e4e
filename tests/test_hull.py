"""Decomposition energies and hull distances against pymatgen's PhaseDiagram, and the entries they are made of."""

import gzip
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.stability import (
    HullError,
    as_entries,
    entries_from_dataset,
    entries_from_pymatgen,
    hull,
    read_entries,
)
from crossfunc.symbols import ELEMENT_SYMBOLS

# Two elements, Li2O 1.0 eV/atom below them, Li2O2 0.9 eV/atom.
TEXTBOOK = {"Li": -2.0, "O2": -4.0, "Li2O": -8 / 3 - 1.0, "Li2O2": -3.0 - 0.9}


def table(energies, **labels):
    return xf.EntryTable.from_columns(list(energies), list(energies), list(energies.values()), **labels)


def random_entries(n_elements, n_entries, seed):
    """Compounds of up to n_elements elements with polymorphs, scaled duplicates, and elements in two forms."""
    rng = np.random.default_rng(seed)
    symbols = rng.choice(ELEMENT_SYMBOLS[:83], n_elements, replace=False)
    entries = []
    for k in range(n_entries):
        size = rng.integers(1, n_elements + 1) if k >= 2 * n_elements else 1
        chosen = [symbols[k % n_elements]] if k < 2 * n_elements else rng.choice(symbols, size, replace=False)
        composition = Composition({symbol: int(rng.integers(1, 5)) for symbol in chosen})
        spread = np.var([list(symbols).index(s) for s in chosen])
        energy = -1.0 - 0.2 * spread + rng.normal(0, 0.1)
        entries.append(ComputedEntry(composition, energy * composition.num_atoms, entry_id=f"r-{k}"))
        if k % 7 == 0:  # the same phase in a cell twice as large
            entries.append(ComputedEntry(composition * 2, 2 * energy * composition.num_atoms, entry_id=f"r-{k}-twice"))
    return entries


def assert_as_pymatgen(entries, report):
    diagram = PhaseDiagram(entries)
    for entry, row in zip(entries, report.itertuples(), strict=True):
        assert row.status == "ok"
        assert row.e_above_hull_ev_per_atom == pytest.approx(diagram.get_e_above_hull(entry), abs=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mixture, energy = diagram.get_decomp_and_phase_separation_energy(entry)
        assert row.decomposition_energy_ev_per_atom == pytest.approx(energy, abs=1e-6)
        assert sum(one["amount"] for one in row.competitors) == pytest.approx(1)
        if not entry.is_element:
            assert_same_mixture(entry, mixture, row.competitors, entries)


def assert_same_mixture(entry, expected, found, entries):
    """The same phases and amounts, or, if others, ones that cost the same and have the target's composition."""
    by_id = {one.entry_id: one for one in entries}
    theirs = {one.composition.reduced_formula: amount for one, amount in expected.items() if amount > 1e-6}
    ours = {one["formula"]: one["amount"] for one in found if one["amount"] > 1e-6}
    if theirs.keys() == ours.keys():
        assert ours == pytest.approx(theirs, abs=1e-5)
        return
    cost = [sum(one.energy_per_atom * amount for one, amount in expected.items())]
    cost += [sum(by_id[one["id"]].energy_per_atom * one["amount"] for one in found)]
    assert cost[0] == pytest.approx(cost[1], abs=1e-6)
    for element in entry.composition:
        share = sum(by_id[one["id"]].composition.get_atomic_fraction(element) * one["amount"] for one in found)
        assert share == pytest.approx(entry.composition.get_atomic_fraction(element), abs=1e-8)


# --- the numbers ---


def test_a_textbook_system_by_hand():
    report = xf.hull_report(None, table(TEXTBOOK)).set_index("id")
    # Li2O2 = 3/4 Li2O + 1/4 O by atoms: 0.9 - 0.75 below, so 0.15 eV/atom stable
    assert report.loc["Li2O2", "decomposition_energy_ev_per_atom"] == pytest.approx(-0.15)
    assert report.loc["Li2O2", "e_above_hull_ev_per_atom"] == 0
    amounts = {one["formula"]: one["amount"] for one in report.loc["Li2O2", "competitors"]}
    assert amounts == pytest.approx({"Li2O": 0.75, "O2": 0.25})
    # Li2O = 2/3 Li2O2 + 1/3 Li by atoms: 1.0 - 0.6
    assert report.loc["Li2O", "decomposition_energy_ev_per_atom"] == pytest.approx(-0.4)
    assert report.loc["Li", "decomposition_energy_ev_per_atom"] == 0


def test_one_target_against_competitors_with_or_without_itself():
    entries = table(TEXTBOOK)
    assert xf.decomposition_energy(("Li2O2", -3.9), entries) == pytest.approx(-0.15)
    assert xf.decomposition_energy(entries.take([3]), entries.take([0, 1, 2])) == pytest.approx(-0.15)
    with_pymatgen = [PDEntry(formula, e * Composition(formula).num_atoms) for formula, e in TEXTBOOK.items()]
    assert xf.decomposition_energy(with_pymatgen[3], with_pymatgen) == pytest.approx(-0.15)


def test_polymorphs_leave_each_other_out_but_not_from_the_hull():
    entries = table(TEXTBOOK | {"Li4O4": -3.8})  # 0.1 eV/atom above the other Li2O2
    report = xf.hull_report(None, entries).set_index("id")
    assert report.loc["Li4O4", "e_above_hull_ev_per_atom"] == pytest.approx(0.1)
    assert report.loc["Li4O4", "decomposition_energy_ev_per_atom"] == pytest.approx(-0.05)
    assert report.loc["Li4O4", "formula"] == "Li2O2"


def test_a_new_target_below_the_hull_has_a_negative_distance():
    report = xf.hull_report(table({"LiO3": -5.0}), table(TEXTBOOK))
    assert report["e_above_hull_ev_per_atom"][0] < -1
    assert report["e_above_hull_ev_per_atom"][0] == report["decomposition_energy_ev_per_atom"][0]


@pytest.mark.parametrize("n_elements", [1, 2, 3, 4, 5, 6])
def test_random_systems_are_as_in_pymatgen(n_elements):
    entries = random_entries(n_elements, 12 + 8 * n_elements, seed=n_elements)
    assert_as_pymatgen(entries, xf.hull_report(entries, entries))


@pytest.mark.parametrize("seed", range(4))
def test_subsystems_in_a_larger_table_are_as_in_pymatgen(seed):
    many = [e for k in range(3) for e in random_entries(4, 30, seed=10 * seed + k)]
    many = [ComputedEntry(e.composition, e.energy, entry_id=f"{k}") for k, e in enumerate(many)]
    report = xf.hull_report(many, many)
    for k in np.random.default_rng(seed).choice(len(many), 12, replace=False):
        elements = set(many[k].composition)
        system = [e for e in many if elements.issuperset(e.composition)]
        diagram = PhaseDiagram(system)
        assert report["e_above_hull_ev_per_atom"][k] == pytest.approx(diagram.get_e_above_hull(many[k]), abs=1e-6)
        expected = diagram.get_phase_separation_energy(many[k])
        assert report["decomposition_energy_ev_per_atom"][k] == pytest.approx(expected, abs=1e-6)


@pytest.mark.real_data
def test_every_entry_of_li_fe_o_is_as_in_pymatgen(real_data_folder):
    file = real_data_folder / "li_fe_o_entries.json.gz"
    entries = [ComputedStructureEntry.from_dict(row) for row in json.loads(gzip.decompress(file.read_bytes()))]
    read = xf.read_entries(file)
    np.testing.assert_allclose(read.energy_per_atom_ev, [entry.energy_per_atom for entry in entries], atol=1e-12)
    assert set(read.energy_kind) == {"mp2020"}
    assert (read.energy_kind == entries_from_pymatgen(entries).energy_kind).all()
    assert len(read) == 375
    assert_as_pymatgen(entries, xf.hull_report(None, read))


# --- invariances ---


def test_order_zero_of_energy_and_workers_change_nothing():
    entries = as_entries(random_entries(4, 60, seed=3))
    report = xf.hull_report(None, entries)
    order = np.random.default_rng(0).permutation(len(entries))
    columns = ["e_above_hull_ev_per_atom", "decomposition_energy_ev_per_atom"]
    shuffled = xf.hull_report(None, entries.take(order))
    np.testing.assert_allclose(shuffled[columns], report[columns].iloc[order], atol=1e-9)
    shift = entries.X @ np.linspace(-50, 50, entries.X.shape[1])
    shifted = xf.hull_report(None, entries.with_energies(entries.energy_per_atom_ev + shift))
    np.testing.assert_allclose(shifted[columns], report[columns], atol=1e-9)
    pd.testing.assert_frame_equal(xf.hull_report(None, entries, n_jobs=2), report)


def test_targets_of_one_large_system_are_shared_out(monkeypatch):
    entries = as_entries(random_entries(3, 60, seed=5))
    report = xf.hull_report(None, entries)
    monkeypatch.setattr(hull, "_TARGETS_PER_PIECE", 7)
    monkeypatch.setattr(hull, "_PIECES_PER_TASK", 2)
    pd.testing.assert_frame_equal(xf.hull_report(None, entries), report)


def test_highs_answers_where_the_simplex_has_no_proof(monkeypatch):
    entries = as_entries(random_entries(5, 60, seed=2))
    report = xf.hull_report(None, entries)
    monkeypatch.setattr(hull, "_simplex", lambda *_: None)
    columns = ["e_above_hull_ev_per_atom", "decomposition_energy_ev_per_atom"]
    np.testing.assert_allclose(xf.hull_report(None, entries)[columns], report[columns], atol=1e-9)


def test_the_simplex_stops_without_proof_rather_than_go_round():
    A = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    assert hull._simplex(A, np.array([0.0, 0.0, np.nan]), np.array([0.3, 0.7])) is None


def test_many_elements_are_gathered_by_looking_at_every_system():
    symbols = ELEMENT_SYMBOLS[:12]
    entries = table(dict.fromkeys(symbols, -1.0) | {"".join(symbols): -1.5, "HHe": -2.0})
    report = xf.hull_report(None, entries).set_index("id")
    # HHe holds a sixth of the atoms, 1 eV/atom below the elements
    assert report.loc["".join(symbols), "decomposition_energy_ev_per_atom"] == pytest.approx(-0.5 + 1 / 6)


# --- what cannot be done ---


def test_targets_without_a_hull_say_why_and_the_others_keep_their_results():
    entries = table(TEXTBOOK | {"Na2O": -3.0})
    targets = table({"Li2O2": -3.9, "LiFeO2": -5.0, "Na2O2": -4.0})
    report = xf.hull_report(targets, entries)
    assert report["status"].str.startswith(("ok", "outside", "no entry")).tolist() == [True] * 3
    assert "none of them holds Fe" in report["status"][1]
    assert "element Na" in report["status"][2]
    assert report["decomposition_energy_ev_per_atom"][0] == pytest.approx(-0.15)
    assert report["decomposition_energy_ev_per_atom"].isna().tolist() == [False, True, True]
    with pytest.raises(HullError, match=r"LiFeO2: outside .* Fe"):
        xf.decomposition_energy(("LiFeO2", -5.0), entries)


def test_mixed_functionals_and_energy_kinds_are_refused_by_name():
    kinds = ["raw", "raw", "mp2020", "raw"]
    mixed = table(TEXTBOOK, functional="gga", energy_kind=kinds)
    with pytest.raises(HullError, match=r"energy kind .*raw \(3: Li, O2, Li2O2\); mp2020 \(1: Li2O\)"):
        xf.hull_report(None, mixed)
    low, high = table(TEXTBOOK, functional="gga"), table({"LiO": -3.0}, functional="r2scan")
    with pytest.raises(HullError, match=r"functional .*r2scan \(1: LiO\)"):
        xf.hull_report(high, low)


@pytest.mark.parametrize(
    ("ids", "formulas", "energies", "message"),
    [
        ([], [], [], "no entries"),
        (["a", "b", "a"], ["Li", "O2", "Li2O"], [-1, -2, -3], "a occurs more than once"),
        (["a", "b"], ["Li", "O2"], [-1, np.nan], "energy of b is not finite"),
        (["a", "b"], ["Li", "Qq2"], [-1, -2], "b .*unknown element 'Qq'"),
        (["a", "b"], ["Li"], [-1, -2], "2 ids, 1 compositions"),
    ],
)
def test_tables_that_cannot_be_right_are_refused(ids, formulas, energies, message):
    with pytest.raises(HullError, match=message):
        xf.EntryTable.from_columns(ids, formulas, energies)


def test_entries_cannot_be_changed_in_place():
    entries = table(TEXTBOOK)
    with pytest.raises(ValueError, match="read-only"):
        entries.energy_per_atom_ev[0] = 0.0
    with pytest.raises(AttributeError):
        entries.ids = []


# --- where entries come from ---


def corrected_entries():
    """Raw GGA and GGA+U entries, corrected by pymatgen's MP2020 scheme."""
    rows = [("Fe", "GGA", {}), ("O2", "GGA", {}), ("Li", "GGA", {}), ("Li2O", "GGA", {}), ("LiFe", "GGA", {}),
            ("LiFeO2", "GGA+U", {"Fe": 5.3, "Li": 0, "O": 0})]  # fmt: skip
    entries = [
        ComputedEntry(f, -9.0, entry_id=f, parameters={"run_type": run, "hubbards": u, "potcar_symbols": []})
        for f, run, u in rows
    ]
    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scheme.process_entries(entries, inplace=False)


def test_what_needs_no_correction_counts_as_corrected_and_what_lacks_one_does_not():
    entries = corrected_entries()
    assert set(entries_from_pymatgen(entries).energy_kind) == {"mp2020"}  # Fe, O2, Li and LiFe have no adjustments
    forgotten = ComputedEntry("Li2O", -9.0, entry_id="bare", parameters={"run_type": "GGA"})
    read = entries_from_pymatgen([*entries, forgotten])
    assert dict(zip(read.ids, read.energy_kind, strict=True))["bare"] == "raw"
    with pytest.raises(HullError, match=r"raw \(1: bare\)"):
        xf.hull_report(None, read)
    intermetallic = ComputedEntry("Li3Fe", -9.0, entry_id="alone", parameters={"run_type": "GGA"})
    assert xf.hull_report([intermetallic], entries)["status"].tolist() == ["ok"]


def test_json_gives_the_same_entries_as_pymatgen(tmp_path):
    entries = corrected_entries()
    rows = [entry.as_dict() for entry in entries]
    (tmp_path / "entries.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "entries.json.gz").write_bytes(gzip.compress(json.dumps({"entries": rows}).encode()))
    for name in ("entries.json", "entries.json.gz"):
        pd.testing.assert_frame_equal(
            xf.read_entries(tmp_path / name).to_pandas(), entries_from_pymatgen(entries).to_pandas()
        )


def test_tables_on_disk_are_read_back(tmp_path):
    entries = table(TEXTBOOK, functional="r2scan", energy_kind="raw")
    entries.to_pandas().to_csv(tmp_path / "entries.csv", index=False)
    entries.to_pandas().to_parquet(tmp_path / "entries.parquet")
    for name in ("entries.csv", "entries.parquet"):
        pd.testing.assert_frame_equal(xf.read_entries(tmp_path / name).to_pandas(), entries.to_pandas())


def test_a_file_imports_nothing_it_names(tmp_path):
    row = {"@module": "os", "@class": "system", "composition": {"Li": 1}, "energy": -1.0}
    (tmp_path / "evil.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(HullError, match="entry 0 is a system; known are ComputedEntry"):
        xf.read_entries(tmp_path / "evil.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "not readable as JSON"),
        (b"\x1f\x8b broken", "not readable as JSON"),
        (b"3", "expected a list"),
        (b"[]", "no entries"),
        (b'[{"energy": 1}]', "entry 0 has no composition"),
        (b'[{"composition": {"Li": 1}, "energy": "x"}]', "entry 0 cannot be read"),
        (b'[{"composition": {"Li": 0}, "energy": 1}]', "entry 0 cannot be read"),
        (b'[{"composition": {"Li": 1}, "energy": NaN, "entry_id": "mp-1"}]', "energy of mp-1 is not finite"),
        (b'[{"composition": {"Li": 1}, "energy": 1, "energy_adjustments": [{"@class": "Q"}]}]', "adjustment 'Q'"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(HullError, match=rf"bad\.json.*{message}"):
        xf.read_entries(tmp_path / "bad.json")


def test_a_missing_file_and_a_table_without_its_columns_are_refused(tmp_path):
    with pytest.raises(HullError, match=r"none\.json: no such file"):
        xf.read_entries(tmp_path / "none.json")
    (tmp_path / "t.csv").write_text("id,formula\na,Li\n", encoding="utf-8")
    with pytest.raises(HullError, match="no column composition, energy_per_atom_ev"):
        xf.read_entries(tmp_path / "t.csv")


def test_a_dataset_gives_entries_of_one_functional():
    surrogate = xf.open_dataset("surrogate")
    for functional, kind in (("gga", "mp2020"), ("r2scan", "raw")):
        entries = entries_from_dataset(surrogate, functional=functional)
        assert set(entries.functional) == {functional}
        assert set(entries.energy_kind) == {kind}
        assert len(entries) == len(surrogate.pairs) + 88
    assert (xf.hull_report(entries.take(np.arange(20)), entries)["status"] == "ok").all()
    with pytest.raises(HullError, match="no functional 'hf'; it has gga"):
        entries_from_dataset(surrogate, functional="hf")


# --- the command ---


def test_the_command_prints_a_list_with_a_row_a_target(tmp_path):
    table(TEXTBOOK | {"Na2O": -3.0}).to_pandas().to_csv(tmp_path / "entries.csv", index=False)
    printed = CliRunner().invoke(app, ["hull", str(tmp_path / "entries.csv"), "--json"])
    rows = json.loads(printed.stdout)
    assert [row["id"] for row in rows] == ["Li", "O2", "Li2O", "Li2O2", "Na2O"]
    assert rows[3]["decomposition_energy_ev_per_atom"] == pytest.approx(-0.15)
    assert {one["formula"] for one in rows[3]["competitors"]} == {"Li2O", "O2"}
    assert rows[4]["e_above_hull_ev_per_atom"] is None
    assert "element Na" in rows[4]["status"]


def test_the_command_takes_targets_and_prints_a_table(tmp_path):
    table(TEXTBOOK).to_pandas().to_csv(tmp_path / "entries.csv", index=False)
    table({"LiO": -3.8, "FeO": -1.0}).to_pandas().to_csv(tmp_path / "targets.csv", index=False)
    arguments = ["hull", str(tmp_path / "entries.csv"), "--targets", str(tmp_path / "targets.csv")]
    printed = CliRunner().invoke(app, arguments).stdout
    assert "0.750 Li2O + 0.250 O2" in printed
    assert "1 of 2 targets have no result" in printed
    failed = CliRunner().invoke(app, ["hull", str(tmp_path / "none.json")])
    assert failed.exit_code == 1
    assert "no such file" in failed.stderr


# --- formulas that look like something else, kinds that nobody stated ---


@pytest.mark.parametrize(
    ("formulas", "targets"),
    [
        (["Na", "N2", "NaN"], "NaN"),  # sodium nitride
        (["In", "F2", "InF"], "InF"),  # not infinity
        (["NaN"] * 1 + ["Na", "N2"], "NaN"),
        (["No1", "Ne"], None),  # nobelium is beyond the table
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_formulas_stay_text(tmp_path, formulas, targets, suffix):
    table = pd.DataFrame({"id": ["007", "NA", "1e5"][: len(formulas)], "composition": formulas})
    table["energy_per_atom_ev"] = -np.arange(1.0, len(formulas) + 1)
    path = tmp_path / f"table.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    if targets is None:
        with pytest.raises(HullError, match=r"007 .*unknown element 'No'"):
            read_entries(path)
        return
    entries = read_entries(path)
    assert entries.ids.tolist() == table["id"].tolist()
    assert targets in entries.compositions


@pytest.mark.parametrize("formula", ["TRUE", "None", "1e5", "nan", "inf", "", "Inf"])
def test_what_is_no_formula_is_refused_with_its_row(tmp_path, formula):
    path = tmp_path / "table.csv"
    path.write_text(f"id,composition,energy_per_atom_ev\na,Na,-1\nb7,{formula},-2\n")
    with pytest.raises(HullError, match=r"b7 \(row 1"):
        read_entries(path)


@pytest.mark.parametrize("energy", ["", "nan", "low", "-1,5", "TRUE"])
def test_an_energy_that_is_no_number_is_refused_with_its_row(tmp_path, energy):
    path = tmp_path / "table.csv"
    path.write_text(f'id,composition,energy_per_atom_ev\na,Na,-1\nb7,Na,"{energy}"\n')
    with pytest.raises(HullError, match=rf"row 1 \(b7\): energy_per_atom_ev is '{energy}', no number"):
        read_entries(path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("energy_per_atom_ev", ["-1", "x"], r"row 1 \(b7\): energy_per_atom_ev is 'x', no number"),
        ("energy_per_atom_ev", [True, False], r"row 0 \(a\): energy_per_atom_ev is True, no number"),
        ("energy_per_atom_ev", [-1.0, None], r"row 1 \(b7\): energy_per_atom_ev is nan, no number"),
        ("id", ["a", None], "row 1 has no id"),
        ("id", [1.5, float("nan")], "row 1 has no id"),
    ],
)
def test_typed_tables_are_read_as_strictly_as_text(tmp_path, column, values, message):
    table = pd.DataFrame({"id": ["a", "b7"], "composition": ["Na", "Cl"], "energy_per_atom_ev": [-1.0, -2.0]})
    table[column] = values
    table.to_parquet(tmp_path / "table.parquet")
    for given in (tmp_path / "table.parquet", table):
        with pytest.raises(HullError, match=message):
            read_entries(given) if given is not table else xf.hull_report(None, table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,composition,energy_per_atom_ev,energy_per_atom_ev\na,Na,-1,-9\n", "two columns energy_per_atom_ev"),
        ("id,composition,composition,energy_per_atom_ev\na,Na,Cl,-1\n", "two columns composition"),
        ("id,composition,energy_per_atom_ev\na,Na,-1\n,Cl,-2\n", "row 1 has no id"),
    ],
)
def test_a_table_that_says_two_things_or_names_nothing_is_refused(tmp_path, content, message):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(HullError, match=message):
        read_entries(tmp_path / "table.csv")


def test_a_table_reader_that_took_a_formula_for_a_number_is_named():
    table = pd.DataFrame({"composition": ["Na", float("nan")], "energy_per_atom_ev": [-1.0, -2.0]})
    with pytest.raises(xf.energies.CompositionError, match=r"row 1 .*NaN, InF and TRUE .*keep_default_na=False"):
        xf.composition_matrix(table)


@pytest.mark.parametrize(
    ("species", "formula"),
    [
        ({"Fe3+": 2, "O2-": 3}, "Fe2O3"),
        ({"Fe3+,spin=5": 2, "O2-,spin=0": 3}, "Fe2O3"),
        ({"Fe2+,spin=4": 1, "Fe3+,spin=5": 2, "O2-": 4}, "Fe3O4"),
        ({"Mn,spin=-1": 1, "Mn,spin=1": 1, "O": 2}, "Mn2O2"),
        ({"Na0+": 1.0}, "Na1"),
    ],
)
def test_species_with_charge_and_spin_are_their_elements(tmp_path, species, formula):
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([{"composition": species, "energy": -1.0, "entry_id": "e"}]))
    assert Composition(read_entries(path).compositions[0]) == Composition(formula)


@pytest.mark.parametrize(
    ("species", "message"),
    [
        ({"Am3+": 1, "O2-": 1}, r"e cannot be read .*'Am3\+' is none of the 94 elements H to Pu"),
        ({"X0+": 1}, r"'X0\+' is none of the 94 elements"),
        ({"D": 2, "O": 1}, "'D' is none of the 94 elements"),
        ({}, "e cannot be read .*its composition is empty"),
        ({"Fe3": 1}, "'Fe3' is none of the 94 elements"),
    ],
)
def test_what_is_no_element_is_refused_with_the_entry(tmp_path, species, message):
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([{"composition": species, "energy": -1.0, "entry_id": "e"}]))
    with pytest.raises(HullError, match=message):
        read_entries(path)


def test_entries_of_unclear_kind_name_the_option_that_says_it(tmp_path):
    oxide = {"composition": {"Li": 2, "O": 1}, "energy": -14.0, "entry_id": "oxide"}
    stated = {"parameters": {"run_type": "GGA"}}
    elements = [{"composition": {e: 1}, "energy": -2.0, "entry_id": e} | stated for e in ("Li", "O")]
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([oxide, *elements]))
    refused = CliRunner().invoke(app, ["hull", str(path)])
    assert refused.exit_code == 1
    assert "--functional" in refused.output
    refused = CliRunner().invoke(app, ["hull", str(path), "--functional", "gga"])
    assert refused.exit_code == 1
    assert "not stated (1: oxide)" in refused.output
    assert "--energy-kind raw or mp2020" in refused.output
    done = CliRunner().invoke(app, ["hull", str(path), "--functional", "gga", "--energy-kind", "raw"])
    assert done.exit_code == 0, done.output


def test_an_empty_cell_states_no_kind(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,composition,energy_per_atom_ev,energy_kind\na,Na,-1,raw\nb,Cl,-2,\n")
    assert read_entries(path).energy_kind.tolist() == ["raw", "not stated"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--energy-kind", "mp2020"], "--energy-kind mp2020 says otherwise than 2 of 3 entries, which state raw: a, c"),
        (["--functional", "r2scan"], "--functional r2scan says otherwise than 3 of 3 entries, which state GGA: a, b"),
        (["--energy-kind", "rawr"], "--energy-kind rawr: an energy kind is one of raw, mp2020, mixed"),
        (["--functional", "PBE", "--energy-kind", "raw"], None),
    ],
)
def test_an_option_adds_to_what_a_table_states_and_overrules_nothing(tmp_path, options, said):
    rows = "a,Na,-1.3,GGA,raw\nb,Cl2,-1.8,GGA,\nc,NaCl,-3.4,GGA,raw\n"
    (tmp_path / "e.csv").write_text(f"id,composition,energy_per_atom_ev,functional,energy_kind\n{rows}")
    done = CliRunner().invoke(app, ["hull", str(tmp_path / "e.csv"), *options])
    assert done.exit_code == (0 if said is None else 1), done.output
    assert said is None or said in done.output


def test_an_option_does_not_overrule_the_corrections_of_entries(tmp_path):
    (tmp_path / "e.json").write_text(json.dumps([entry.as_dict() for entry in corrected_entries()]))
    with pytest.raises(HullError, match=r"--energy-kind raw says otherwise than \d of \d entries, which state mp2020"):
        read_entries(tmp_path / "e.json", energy_kind="raw")
    with pytest.raises(HullError, match=r"--functional r2scan says otherwise than .* which state gga"):
        entries_from_pymatgen(corrected_entries(), functional="r2scan")
    read = read_entries(tmp_path / "e.json", functional="PBE", energy_kind="mp2020")
    assert set(read.energy_kind) == {"mp2020"}


@pytest.mark.parametrize("row", [{"energy": True}, {"energy": "-1"}, {"composition": {"Li": True}}])
def test_what_is_no_number_in_json_is_not_taken_for_one(tmp_path, row):
    (tmp_path / "e.json").write_text(json.dumps([{"composition": {"Li": 1}, "energy": -1.9, "entry_id": "e"} | row]))
    with pytest.raises(HullError, match=r"e cannot be read .* is .*, no number"):
        read_entries(tmp_path / "e.json")
