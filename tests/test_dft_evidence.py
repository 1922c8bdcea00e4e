"""What the tables say of our own DFT, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from crossfunc.dft import evidence
from crossfunc.dft.plan import plan_materials


def frames(rows):
    return pd.DataFrame(rows, columns=["frame_id", "material_id", "functional", "atomic_numbers", "energy_per_atom_ev"])


TABLE = frames(
    [
        ("CsCl-b2-00/pbe", "CsCl-b2", "pbe", [55, 17], -1.0),
        ("CsCl-b2-00/r2scan", "CsCl-b2", "r2scan", [55, 17], -9.0),
        ("CsCl-b2-01/pbe", "CsCl-b2", "pbe", [55, 17], -0.9),
        ("CsCl-b2-01/r2scan", "CsCl-b2", "r2scan", [55, 17], -8.8),
        ("Cl-x-00/pbe", "Cl-x", "pbe", [17, 17], -2.0),
    ]
)


def test_structures_are_counted_once_and_caesium_is_heavy():
    assert evidence.count(TABLE) == {"structures": 3, "materials": 2, "elements": 2, "heavy_elements": 1}
    assert evidence.materials_per_element(TABLE).to_dict() == {"Cl": 2, "Cs": 1}


def test_same_structures_leaves_out_what_one_functional_lacks():
    pair = evidence.same_structures(TABLE)
    assert list(pair.index) == ["CsCl-b2-00", "CsCl-b2-01"]
    assert (pair["r2scan"] - pair["pbe"]).tolist() == pytest.approx([-8.0, -7.9])


def test_worst_deviations_are_in_the_units_of_the_results():
    table = pd.DataFrame({"quantity": ["force x", "force z", "mean stress"], "difference": [-0.002, 0.001, -0.03]})
    found = evidence.worst_derivatives(table)
    assert found == pytest.approx({"force": 2.0, "stress": 0.03})


def test_agreement_of_forces_has_slope_cosine_and_an_interval_over_materials():
    true = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, -1.0], [1.0, 1.0, 0]])
    found = evidence._agreement(0.8 * true, true, np.array(["a", "a", "b", "b"]), seed=0, n=200)
    assert found["slope"] == pytest.approx(0.8)
    assert found["cosine"] == pytest.approx(1.0)
    assert found["mae"] == pytest.approx(0.2 * 6 / 12)
    assert found["low"] <= found["mae"] <= found["high"]
    assert np.isnan(evidence._agreement(0 * true, true, np.array(["a"] * 4), 0, 10)["cosine"])


def test_the_collected_solids_are_those_of_the_plans_structure():
    from ase.collections import dcdft

    known = {m.material_id: evidence._collected(dcdft, m) for m in plan_materials() if len(m.elements) == 1}
    assert known["Si-diamond"]["wien2k_volume"] == pytest.approx(20.453)
    assert known["Al-fcc"]["exp_volume"] == pytest.approx(16.27, abs=0.01)
    assert known["C-graphite"] is None
    assert known["P-black-phosphorus"] is None


def test_shifts_are_compared_up_to_and_after_krypton():
    table = pd.DataFrame(
        {"ours": [-1.0, -2.0, -5.0, -10.0], "published": [-1.0, -2.0, -15.0, -30.0]}, ["Li", "O", "Sr", "Au"]
    )
    found = evidence.compare_shifts(table)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["slope_light"] == pytest.approx(1.0)
    assert found["slope_heavy"] == pytest.approx(3.0)
