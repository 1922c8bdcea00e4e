"""MP2020 corrections on and off."""

import gzip
import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from crossfunc.energies.corrections import (
    CorrectionError,
    add_raw_gga,
    apply_mp2020,
    mp2020_correction_per_atom_ev,
    mp2020_corrections,
    mp_hubbard_u_ev,
    remove_mp2020,
)

LI2O = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.62), ["Li", "O"], [[0.25, 0.25, 0.25], [0, 0, 0]])
#: Two O atoms 1.3 Å apart: a superoxide.
KO2 = Structure(Lattice.tetragonal(4.03, 6.7), ["K", "O", "O"], [[0, 0, 0], [0, 0, 0.403], [0, 0, 0.597]])


@pytest.mark.parametrize(
    ("formula", "expected_ev_per_atom"),
    [
        ("Li2O", -0.687 / 3),  # oxide: -0.687 eV per O
        ("Li6O3", -0.687 / 3),
        ("Fe2O3", (3 * -0.687 + 2 * -2.256) / 5),  # and GGA/GGA+U mixing, -2.256 eV per Fe
        ("CoF2", (2 * -0.462 - 1.638) / 3),
        ("Fe2S3", 3 * -0.503 / 5),  # no U with S
        ("TiO2", 2 * -0.687 / 3),  # no U for Ti
        ("NaCl", -0.614 / 2),
        ("Li2O2", -0.465 / 2),  # peroxide by its formula
        ("KO2", 2 * -0.161 / 3),  # superoxide
        ("KO3", 0),  # ozonide
        ("CuSO4", 4 * -0.687 / 6),  # S is +6: a sulfate
        ("SF2", 2 * -0.462 / 3),  # S is +2: no sulfide either
        ("Na2S", -0.503 / 3),
        ("H2O", -0.687 / 3),  # H is +1: no hydride
        ("LiH", -0.179 / 2),
        ("Fe", 0),
        ("O2", 0),
        ("NiAl", 0),
    ],
)
def test_hand_computed_corrections(formula, expected_ev_per_atom):
    assert mp2020_correction_per_atom_ev([formula])[0] == pytest.approx(expected_ev_per_atom, abs=1e-12)


def test_a_structure_with_oxidation_states_is_the_same_material():
    decorated = LI2O.copy()
    decorated.add_oxidation_state_by_element({"Li": 1, "O": -2})
    found = mp2020_corrections(["Li2O", "Li2O"], structures=[LI2O, decorated])
    assert found["correction_per_atom_ev"].tolist() == pytest.approx([-0.687 / 3] * 2)
    assert decorated[0].specie.oxi_state == 1  # what was given stays as it is


def test_parts_add_up_and_say_what_was_assumed():
    table = mp2020_corrections(["Fe2O3", "Li2O2", "CuSO4", "NaCl"])
    np.testing.assert_allclose(
        table["anion_per_atom_ev"] + table["hubbard_per_atom_ev"], table["correction_per_atom_ev"]
    )
    assert table["hubbard_per_atom_ev"].tolist() == pytest.approx([2 * -2.256 / 5, 0, 0, 0])
    assert table["oxide_type"].tolist() == ["oxide", "peroxide", "oxide", ""]
    assert table["oxide_type_source"].tolist() == ["assumed", "formula", "assumed", ""]
    assert table["sulfide_type_source"].tolist() == ["", "", "oxidation states", ""]
    assert (table["reason"] == "").all()


def test_hints_structures_and_given_types_decide_the_kind_of_oxide_in_turn():
    table = pd.DataFrame(
        {
            "material_id": list("abcde"),
            "composition": ["Li4O4", "Ti2O4", "K1O2", "K1O2", "K4O12"],
            "chemistry": ["oxide", "peroxide", "oxide", "superoxide", "superoxide"],
        }
    )
    result = mp2020_corrections(
        table, structures=[None, None, KO2, KO2, None], oxide_type=[None, None, None, "peroxide", None]
    )
    assert result.index.tolist() == list("abcde")
    assert result["oxide_type"].tolist() == ["peroxide", "peroxide", "superoxide", "peroxide", "ozonide"]
    assert result["oxide_type_source"].tolist() == ["formula", "chemistry", "structure", "given", "formula"]
    assert result["correction_per_atom_ev"].tolist() == pytest.approx(
        [-0.465 / 2, 2 * -0.465 / 3, 2 * -0.161 / 3, 2 * -0.465 / 3, 0]
    )


def test_chemistry_decides_between_sulfide_and_sulfate():
    table = pd.DataFrame({"composition": ["Na2SO4"] * 3, "chemistry": ["oxide|sulfate", "sulfide", None]})
    result = mp2020_corrections(table)
    assert result["sulfide_type"].tolist() == ["sulfate", "sulfide", "sulfate"]
    assert result["correction_per_atom_ev"].diff().iloc[1] == pytest.approx(-0.503 / 7)


def test_a_larger_cell_or_another_order_of_symbols_changes_nothing():
    small = mp2020_correction_per_atom_ev(["Fe2O3", "LiFePO4", "Na3N", "CaSiO3"])
    large = mp2020_correction_per_atom_ev(["O9Fe6", "P4O16Fe4Li4", "N2Na6", "Ca2 Si2 O6"])
    np.testing.assert_allclose(small, large)


def test_structure_and_formula_agree_for_a_plain_oxide():
    by_structure = mp2020_corrections(["Li8O4"], structures=[LI2O])
    assert by_structure["oxide_type_source"].tolist() == ["structure"]
    assert by_structure["correction_per_atom_ev"][0] == pytest.approx(mp2020_correction_per_atom_ev(["Li2O"])[0])


def test_hubbard_u_is_the_projects_rule():
    assert mp_hubbard_u_ev("Fe2O3") == {"Fe": 5.3}
    assert mp_hubbard_u_ev("LiCoF3") == {"Co": 3.32}
    assert mp_hubbard_u_ev("Fe2S3") == {}
    assert mp_hubbard_u_ev("Fe") == {}
    assert set(mp_hubbard_u_ev("CoCrFeMnMoNiVWTiO20")) == {"Co", "Cr", "Fe", "Mn", "Mo", "Ni", "V", "W"}


def test_plain_gga_gets_the_anion_part_only():
    assert mp2020_correction_per_atom_ev(["Fe2O3"], hubbard=False)[0] == pytest.approx(3 * -0.687 / 5)


def test_another_u_than_the_projects_cannot_be_corrected():
    """GGA+U with U = 2.5 eV (chgnet issue 220): named, never corrected in silence."""
    runs = [{"Fe": 5.3}, {"Fe": 2.5}, {}]
    values = mp2020_correction_per_atom_ev(["Fe2O3"] * 3, hubbard=runs, on_error="nan")
    assert np.isfinite(values).tolist() == [True, False, False]
    table = mp2020_corrections(["Fe2O3"] * 3, hubbard=runs)
    assert "Invalid U value of 2.5 on Fe, expected 5.3" in table["reason"][1]
    assert "Invalid U value of 0.0 on Fe" in table["reason"][2]
    with pytest.raises(CorrectionError, match=r"1 \(Fe2O3\): not compatible with MP2020: Invalid U value.*2 such"):
        mp2020_correction_per_atom_ev(["Fe2O3"] * 3, hubbard=runs)


def test_a_formula_that_cannot_be_read_is_named():
    table = mp2020_corrections(pd.DataFrame({"material_id": ["mp-1", "mp-2"], "composition": ["LiF", "Xx2"]}))
    assert table["reason"].tolist()[0] == ""
    assert "unknown element 'Xx'" in table["reason"]["mp-2"]
    with pytest.raises(CorrectionError, match=r"mp-2 \(Xx2\)"):
        mp2020_correction_per_atom_ev(pd.DataFrame({"material_id": ["mp-2"], "composition": ["Xx2"]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"oxide_type": ["suboxide"]}, "0: oxide type 'suboxide' is none of oxide"),
        ({"oxide_type": []}, "0 oxide types for 1 compositions"),
        ({"structures": [None, None]}, "2 structures for 1 compositions"),
        ({"structures": [KO2]}, "0: the structure is KO2, the composition Li2O"),
        ({"hubbard": []}, "0 hubbard for 1"),
        ({"on_error": "ignore"}, "choose 'raise' or 'nan'"),
        ({"compositions": "Li2O"}, r"give a list, \['Li2O'\]"),
        ({"compositions": pd.DataFrame({"energy": [1.0]})}, "no column 'composition' or 'formula'"),
    ],
)
def test_inputs_that_do_not_match_are_refused(arguments, message):
    with pytest.raises(CorrectionError, match=message):
        mp2020_correction_per_atom_ev(**({"compositions": ["Li2O"]} | arguments))


def test_no_warning_leaves_and_the_filters_stay():
    before = warnings.filters[:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mp2020_corrections(["KO5F7", "Li2O"])
    assert warnings.filters == before


def test_apply_and_remove_undo_each_other():
    correction = mp2020_correction_per_atom_ev(["Li2O", "Fe2O3"])
    raw = np.array([-4.5, -6.5])
    np.testing.assert_allclose(apply_mp2020(raw, correction), raw + correction)
    np.testing.assert_allclose(remove_mp2020(apply_mp2020(raw, correction), correction), raw)


def test_raw_gga_is_filled_where_it_is_missing_only():
    pairs = pd.DataFrame(
        {
            "material_id": ["a", "b", "c"],
            "composition": ["Li2O", "Li2O", "NiAl"],
            "low_uncorrected_energy_per_atom_ev": [np.nan, -4.5, np.nan],
            "low_energy_per_atom_ev": [-5.0, -5.0, -5.0],
            "low_formation_energy_per_atom_ev": [-2.0, -2.0, np.nan],
        }
    )
    filled = add_raw_gga(pairs)
    assert filled["low_uncorrected_energy_per_atom_ev"].tolist() == pytest.approx([-5 + 0.229, -4.5, -5])
    assert filled["low_uncorrected_formation_energy_per_atom_ev"].tolist()[:2] == pytest.approx([-2 + 0.229, -1.5])
    assert np.isnan(filled["low_uncorrected_formation_energy_per_atom_ev"][2])
    assert filled["mp2020_correction_per_atom_ev"].tolist() == pytest.approx([-0.229, -0.5, 0])
    assert filled["mp2020_oxide_type_source"].tolist() == ["assumed", "assumed", ""]
    assert "low_uncorrected_formation_energy_per_atom_ev" not in pairs
    with pytest.raises(CorrectionError, match="no column 'low_energy_per_atom_ev'"):
        add_raw_gga(pairs[["composition"]])


def test_a_material_without_a_correction_stays_nan_with_its_reason():
    pairs = pd.DataFrame({"composition": ["Xx", "LiF"], "low_energy_per_atom_ev": [-5.0, -4.0]})
    filled = add_raw_gga(pairs)
    assert np.isnan(filled["low_uncorrected_energy_per_atom_ev"][0])
    assert "unknown element" in filled["mp2020_reason"][0]
    assert filled["low_uncorrected_energy_per_atom_ev"][1] == pytest.approx(-4 + 0.462 / 2)


@pytest.mark.real_data
def test_375_real_entries_get_the_corrections_that_pymatgen_gives_them(real_data_folder):
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    with gzip.open(real_data_folder / "li_fe_o_entries.json.gz", "rt") as stream:
        entries = [ComputedStructureEntry.from_dict(entry) for entry in json.load(stream)]
    stored = np.array([entry.correction_per_atom for entry in entries])
    arguments = {
        "compositions": [entry.composition.formula for entry in entries],
        "structures": [entry.structure for entry in entries],
        "oxide_type": [entry.data["oxide_type"] for entry in entries],
    }
    by_rule = mp2020_correction_per_atom_ev(**arguments)
    by_run = mp2020_correction_per_atom_ev(**arguments, hubbard=[entry.parameters["hubbards"] for entry in entries])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processed = MaterialsProject2020Compatibility().process_entries(entries)
    assert len(processed) == len(entries) == 375
    theirs = np.array([entry.correction_per_atom for entry in entries])
    assert np.count_nonzero(theirs) > 300
    for mine in (by_rule, by_run):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
        np.testing.assert_allclose(mine, stored, atol=1e-9)


@pytest.mark.real_data
def test_real_formulas_alone_give_what_their_structures_give(real_data_folder):
    with gzip.open(real_data_folder / "mp_paired_structures.jsonl.gz", "rt") as stream:
        structures = [Structure.from_dict(json.loads(line)["structure"]) for line in stream]
    formulas = [structure.formula for structure in structures]
    np.testing.assert_allclose(
        mp2020_correction_per_atom_ev(formulas),
        mp2020_correction_per_atom_ev(formulas, structures=structures),
        atol=1e-9,
    )


@pytest.mark.real_data
def test_the_real_pairs_are_corrected_in_seconds(real_data_folder):
    pairs = pd.read_csv(real_data_folder / "mp_thermo_pairs.csv").rename(
        columns={"mp_id": "material_id"}
        | {f"gga_mp2020_{what}_per_atom_ev": f"low_{what}_per_atom_ev" for what in ("energy", "formation_energy")}
    )
    clock = time.process_time()
    filled = add_raw_gga(pairs)
    assert time.process_time() - clock < 30
    assert (filled["mp2020_reason"] == "").all()
    assert filled["low_uncorrected_energy_per_atom_ev"].notna().all()
    superoxide = filled.set_index("material_id").loc["mp-1866"]
    assert superoxide["mp2020_oxide_type"] == "superoxide"
