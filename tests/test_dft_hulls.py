"""Hulls of three elements in two functionals, from a made-up dataset whose numbers can be done in one's head."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from crossfunc.datasets import write_dataset
from crossfunc.datasets.functionals import describe_functionals
from crossfunc.lessons import dft_hulls, figures

SYSTEM = ("F", "Mg", "K")
GROUND_EV = {"F": (-2.0, -4.0), "Mg": (-1.5, -7.0), "K": (-1.0, -20.0)}
"""PBE and r²SCAN; the shift is tens of eV for K, and must not be seen in any hull."""

FORMATION_EV = {
    "KF-rock-salt": ({"K": 1, "F": 1}, (-2.8, -2.9)),
    "KF-cesium-chloride": ({"K": 1, "F": 1}, (-2.7, -2.8)),
    "MgF2-rutile": ({"Mg": 1, "F": 2}, (-3.6, -3.7)),
    "KMgF3-perovskite": ({"K": 1, "Mg": 1, "F": 3}, (-3.38, -3.28)),  # KF + MgF2 in shares of 2/5 and 3/5
}


def make_dataset(folder, elements=SYSTEM):
    meta = {
        "name": "made-up",
        "version": "1",
        "licence": "CC0-1.0",
        "citation": "none",
        "provenance": "made up",
        "label_notice": "made-up numbers",
        "functionals": describe_functionals("PBE", "r²SCAN", keys=("pbe", "r2scan")),
    }
    pairs = []
    for material_id, (counts, formation) in FORMATION_EV.items():
        n_atoms = sum(counts.values())
        zero = [sum(n * GROUND_EV[e][k] for e, n in counts.items()) / n_atoms for k in (0, 1)]
        formula = "".join(f"{e}{n}" for e, n in counts.items())
        energies = {f"{side}_energy_per_atom_ev": formation[k] + zero[k] for k, side in enumerate(("low", "high"))}
        pairs.append({"material_id": material_id, "composition": formula, "n_atoms": n_atoms, **energies})
    ground = [
        {"element": e, "functional": key, "energy_kind": "raw", "energy_per_atom_ev": GROUND_EV[e][k]}
        for e in elements
        for k, key in enumerate(("pbe", "r2scan"))
    ]
    return write_dataset(folder / "made-up", meta=meta, pairs=pd.DataFrame(pairs), elements=pd.DataFrame(ground))


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path)


def test_the_system_with_all_elements_and_most_compounds_comes_first(dataset):
    systems = dft_hulls.ternary_systems(dataset)
    assert systems.loc[0].to_dict() == {"system": SYSTEM, "n_compounds": 4, "missing": ()}
    assert ("O", "Ti", "Sr") in set(systems["system"])  # planned, and not there yet
    assert dft_hulls.describe_lack(systems, "made-up") == ""


def test_what_is_missing_is_named_element_by_element(tmp_path):
    systems = dft_hulls.ternary_systems(make_dataset(tmp_path, elements=("F", "Mg")))
    said = dft_hulls.describe_lack(systems, "made-up").splitlines()
    assert said[0] == "made-up has no system of three elements with all of them and 3 compounds yet."
    assert said[1] == "F-Mg-K: 4 compounds; still missing: K."


def test_an_element_counts_with_an_energy_in_both_functionals(dataset):
    one = dataset.elements[(dataset.elements["element"] != "Mg") | (dataset.elements["functional"] == "pbe")]
    dataset.__dict__["elements"] = one
    assert dict(dft_hulls.ternary_systems(dataset).iloc[0])["missing"] == ("Mg",)


def test_formation_and_decomposition_energies_know_no_references(dataset):
    table = dft_hulls.hull_in_both(dataset, SYSTEM).compounds
    assert list(table.index) == ["MgF2-rutile", "KMgF3-perovskite", "KF-rock-salt", "KF-cesium-chloride"]
    assert table["formula"].tolist() == ["MgF2", "KMgF3", "KF", "KF"]
    for k, name in enumerate(("PBE", "r²SCAN")):
        expected = {material: formation[k] for material, (_, formation) in FORMATION_EV.items()}
        assert table["formation_ev", name].to_dict() == pytest.approx(expected)
    of_perovskite = table.loc["KMgF3-perovskite", "decomposition_ev"]
    assert of_perovskite["PBE"] == pytest.approx(-3.38 + 0.4 * 2.8 + 0.6 * 3.6)
    assert of_perovskite["r²SCAN"] == pytest.approx(-3.28 + 0.4 * 2.9 + 0.6 * 3.7)  # not stable there


def test_the_hull_says_how_far_formation_energies_move_and_which_verdicts_change(dataset):
    hull, said = dft_hulls.find_hull(str(dataset.path))
    assert said == "F-Mg-K is whole, with 4 compounds."
    assert hull.formation_step().value == pytest.approx(-50)  # meV/atom: three times -100, once +100
    assert hull.formation_step().interval is None  # four compounds are too few
    assert hull.verdicts_that_differ() == ["KMgF3-perovskite"]
    assert hull.describe().startswith("MgF2-rutile -3.60 (PBE) and -3.70 eV/atom (r²SCAN); ")


def test_without_a_whole_system_there_is_no_hull_but_a_sentence(tmp_path):
    assert dft_hulls.find_hull("no-such-dataset")[0] is None
    hull, said = dft_hulls.find_hull(str(make_dataset(tmp_path, elements=("F",)).path))
    assert hull is None
    assert "still missing: Mg, K." in said


def test_hulls_side_by_side_fill_what_is_stable_and_number_compounds_as_the_lines_do(dataset):
    plt.switch_backend("Agg")
    hull = dft_hulls.hull_in_both(dataset, SYSTEM)
    formation_ev = hull.formation_ev
    low, high, lines = figures.hulls_side_by_side(hull.diagrams, formation_ev, SYSTEM, hull.looks).axes
    assert [ax.get_title() for ax in (low, high)] == ["PBE", "r²SCAN"]
    for ax, key, n_stable in ((low, "gga", 3), (high, "r2scan", 2)):
        filled = [line for line in ax.lines if line.get_markerfacecolor() == figures.COLORS[key]]
        assert len(filled) == n_stable
        # of the two forms of KF the lower one is drawn; corners carry symbols
        assert sorted(text.get_text() for text in ax.texts) == ["1", "2", "3", "F", "K", "Mg"]
    assert [t.get_text() for t in lines.get_yticklabels()] == [f"{n}  {m}" for n, m in enumerate(formation_ev.index, 1)]
    assert [line.get_label() for line in lines.lines] == ["PBE", "r²SCAN"]
    assert lines.lines[0].get_xdata().tolist() == formation_ev["PBE"].tolist()
    assert mpl.colors.same_color(lines.lines[1].get_color(), figures.COLORS["r2scan"])
    plt.close("all")
