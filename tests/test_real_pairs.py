"""Real crystals in lessons: what is read, what is refused, and comparisons with known answers."""

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crossfunc.datasets import DatasetError
from crossfunc.energies import composition_matrix, published_shift
from crossfunc.lessons import LessonResults
from crossfunc.lessons.judging import ENERGY, REFITTED
from crossfunc.lessons.real_pairs import (
    DIFFERENCES,
    FROZEN_STARTS,
    TRAINED,
    UNTRAINED,
    PairedCrystals,
    compare_few_materials,
    compare_frozen_starts,
    compare_trained,
    find_file,
    frozen_table,
    read_paired_crystals,
    record_few,
    record_frozen,
    record_trained,
    trained_table,
)
from crossfunc.potential import Crystals, element_references, load_model, predict


def made_up(n=120, noise=0.05):
    """Binary oxides whose r²SCAN energies are a model's plus the published shift and a little noise."""
    rng = np.random.default_rng(0)
    metals = ["Li", "Mg", "Al", "Ti", "Fe", "Zr", "W", "La"]
    formulas = [f"{metals[k % 8]}{k % 3 + 1}O{k % 4 + 1}" for k in range(n)]
    X = composition_matrix(formulas)
    predicted = rng.normal(-6, 1, n)
    high = predicted + X @ published_shift().shift_ev + rng.normal(0, noise, n)
    ids = np.array([f"m{k}" for k in range(n)])
    return PairedCrystals(ids, X, high, predicted, predicted, rng.normal(size=(n, 5)), np.full(94, -3.0))


def test_a_known_shift_needs_few_materials_and_an_unknown_one_many():
    table = compare_few_materials(made_up(), [5, 60], n_draws=4, n_test=40)
    mean = table.groupby("n")[["trend", "published", "table"]].mean()
    assert len(table) == 8
    assert mean.loc[5, "published"] < 70  # the noise is 50 meV/atom
    assert mean.loc[5, "trend"] > 3 * mean.loc[5, "published"]
    assert mean.loc[60, "trend"] < 100
    assert np.allclose(mean["table"], mean["table"].iloc[0])


def test_frozen_starts_are_all_judged_on_the_same_crystals():
    found = compare_frozen_starts(made_up(n=60), n_splits=3)
    assert list(found) == list(FROZEN_STARTS)
    assert all(len(row["error"]) == 60 for row in found.values())
    assert found["3: GGA references"]["before"] > 1000
    assert found["model-aware, published shift as prior"]["before"] < 100
    assert found["3: GGA references"]["after"] > found["4: published table"]["after"]


def recorded(lesson, record, found):
    """Rows by key that a function records, with the book's own declarations."""
    results = LessonResults(lesson)
    record(results, found)
    return {row["key"]: row for row in results.to_dict()["results"]}


def test_references_alone_are_recorded_beside_what_a_regression_makes_of_them():
    found = compare_frozen_starts(made_up(n=60), n_splits=3)
    rows = recorded("04_four_methods", record_frozen, found)
    assert len(rows) == 2 * len(FROZEN_STARTS)
    of_table = found["4: published table"]
    for key, value, scatter in (("n0", "before", "scatter_before"), ("frozen", "after", "scatter")):
        row = rows[f"real_{key}_4_published_table"]
        assert row["value"] == of_table[value]
        assert row["interval"] == pytest.approx((row["value"] - of_table[scatter], row["value"] + of_table[scatter]))
        assert row["note"].startswith("60 crystals")
    assert of_table["before"] == pytest.approx(50 * np.sqrt(2 / np.pi), rel=0.3)  # the noise that was put in
    shown = frozen_table(found).data
    assert list(shown.index) == list(FROZEN_STARTS)
    assert "error" not in shown


def test_few_materials_are_recorded_for_refit_prior_and_table():
    few = compare_few_materials(made_up(), [10, 30], n_draws=4, n_test=40)
    rows = recorded("03_atomref_correlation", record_few, few)
    assert set(rows) == {"real_few_10", "real_few_30", "real_few_refit_10", "real_few_refit_30", "real_few_table"}
    of_ten = few[few["n"] == 10]
    assert rows["real_few_refit_10"]["value"] == pytest.approx(of_ten["refit"].mean())
    assert rows["real_few_10"]["value"] == pytest.approx(of_ten["published"].mean())
    assert rows["real_few_table"]["value"] == pytest.approx(of_ten["table"].mean())
    assert "80 % of 4 draws" in rows["real_few_refit_10"]["note"]


@pytest.fixture(scope="module")
def model():
    return load_model("0.3.0")


@pytest.fixture(scope="module")
def salts(model):
    """Salts of two atoms, whose r²SCAN energies are the model's plus the published shift, and some noise."""
    pairs = [(a, b) for a in ("Li", "Na", "K", "Rb", "Cs") for b in ("F", "Cl", "Br", "I")]
    structures = [
        Structure(Lattice.from_parameters(4, 4, 4, 60, 60, 60), pair, [[0, 0, 0], [0.5, 0.5, 0.5]]) for pair in pairs
    ]
    crystals, X = Crystals.from_structures(structures), composition_matrix([a + b for a, b in pairs])
    predicted = predict(model, crystals, derivatives=False)["energy_per_atom_ev"]
    high = predicted + X @ published_shift().shift_ev + np.random.default_rng(0).normal(0, 0.02, len(pairs))
    ids, nothing = np.array([a + b for a, b in pairs]), np.zeros((len(pairs), 0))
    return PairedCrystals(ids, X, high, predicted, predicted, nothing, element_references(model), crystals)


@pytest.fixture(scope="module")
def trained(salts, model):
    return compare_trained(salts, model, 2, n_seeds=2, batch_size=4)


def test_a_network_is_trained_on_energies_alone_and_judged_on_other_materials(salts, trained):
    frames = salts.frames
    assert {target: int(n.sum()) for target, n in frames.label_counts.items()} == {
        "energy": 20,
        "forces": 0,
        "stress": 0,
        "magmoms": 0,
    }
    for split in trained.judged.splits.values():
        parts = [set(frames.material_ids[rows]) for rows in split.values()]
        assert not set.intersection(*parts[:2])
        assert not parts[2] & (parts[0] | parts[1])
        assert len(parts[0]) == 14
    assert trained.n_steps == 8
    assert trained.judged.names == {*UNTRAINED, *TRAINED}
    assert all(len(errors) == 2 for errors in trained.training.values())
    assert set(trained.training) == set(TRAINED)


def test_training_begins_with_the_references_that_its_row_names(trained):
    """Methods 2 and 3 have the whole offset to make up for, and the published table has none of it."""
    offset = trained.left("GGA references").value
    assert offset > 1000
    for name in "23":
        assert trained.training[name][0] > offset / 2
        assert trained.left(name).value > offset / 2  # eight steps do not make up for eV
        assert trained.left(name, REFITTED).value < offset / 10
    assert trained.left("published table").value < 40  # the noise is 20 meV/atom
    assert trained.training["4 on the published table"][0] < 200


def test_untrained_rows_are_those_that_the_pairs_give_themselves(salts, trained):
    for name, how in (
        ("plain refit", {"aware": False, "prior": "trend"}),
        ("model-aware references", {"aware": True, "prior": "published"}),
    ):
        seed, split = next(iter(trained.judged.splits.items()))
        left = salts.left(salts.fit(split["train"], **how).energies_ev)[split["test"]]
        assert trained.judged.scores.loc[(name, seed), ENERGY] == pytest.approx(1000 * np.abs(left).mean(), abs=0.1)


def test_what_training_comes_to_is_recorded_and_shown_beside_what_costs_nothing(trained):
    rows = recorded("04_four_methods", record_trained, trained)
    assert len(rows) == len(UNTRAINED) + 3 * len(TRAINED) + len(DIFFERENCES)
    for key, (one, other, metric) in DIFFERENCES.items():
        paired = rows[f"real_trained_{key}"]["value"]
        assert paired == pytest.approx(trained.left(one, metric).value - trained.left(other, metric).value, abs=1e-6)
        assert key.endswith("_refitted") == (metric == REFITTED)
    assert rows["real_trained_fit_method_3"]["value"] == pytest.approx(np.mean(trained.training["3"]))
    assert "2 splits, 8 steps" in rows["real_trained_method_3"]["note"]
    shown = trained_table(trained).data
    assert list(shown["starts from"]) == [start for _, start in TRAINED.values()]
    assert shown.loc["Method 3", "trained"].startswith(f"{trained.left('3').value:,.0f}")


def test_without_passes_nothing_is_trained_and_without_crystals_nothing_can_be(salts, model):
    assert compare_trained(salts, model, 0) is None
    with pytest.raises(DatasetError, match="read them from a file"):
        compare_trained(made_up(n=10), model, 1)


def test_a_file_is_read_and_large_cells_are_left_out(tmp_path):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    energies = {"r2scan_energy_per_atom_ev": -5.0, "gga_mp2020_energy_per_atom_ev": -3.4}
    rows = [
        {"material_id": name, "structure": s.as_dict(), **energies}
        for name, s in (("cube", salt), ("cell", salt.get_primitive_structure()))
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    model = load_model("0.3.0")
    both, one = read_paired_crystals(file, model), read_paired_crystals(file, model, max_atoms=2)
    assert both.material_ids.tolist() == ["cube", "cell"]
    assert one.material_ids.tolist() == ["cell"]
    assert both.predicted_ev[0] == pytest.approx(both.predicted_ev[1], abs=1e-4)
    np.testing.assert_allclose(both.features[0], both.features[1], atol=1e-4)
    np.testing.assert_allclose(both.left(both.base_ev), both.high_ev - both.predicted_ev)
    assert both.frames.crystals.n_atoms.tolist() == [8, 2]
    np.testing.assert_allclose(both.frames.energy_per_atom_ev, -5.0)
    file.write_text(json.dumps({**rows[0], "r2scan_energy_per_atom_ev": None}))
    with pytest.raises(DatasetError, match=r"pairs\.jsonl, line 1: no r2scan_energy_per_atom_ev"):
        read_paired_crystals(file, model)


def test_files_are_looked_for_where_the_data_are(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(tmp_path))
    assert find_file("pairs.jsonl") is None
    (tmp_path / "pairs.jsonl").write_text("")
    assert find_file("pairs.jsonl") == tmp_path / "pairs.jsonl"
    monkeypatch.setenv("CROSSFUNC_DATA", "")
    assert find_file("pairs.jsonl") is None
