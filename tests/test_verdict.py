"""The verdict on a model: against least squares by hand, made-up functionals with known answers, and real data."""

import dataclasses
import gzip
import json
from pathlib import Path

import calculators
import numpy as np
import pytest
from ase.build import bulk
from scipy.sparse import csr_array
from small_frames import small_frames, with_labels
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.advice import Verdict, VerdictError, judge_predictions, verdict
from crossfunc.advice.offsets import (
    Sample,
    fit_offsets,
    held_out_residuals,
    material_means,
    nearest_zero,
    published_zeros,
)
from crossfunc.advice.spoken import LabelSet, label_sets, spoken_functional
from crossfunc.advice.words import report, what_to_do
from crossfunc.cli import app
from crossfunc.energies import material_folds, published_atomref
from crossfunc.potential import CalculatorError, Crystals, load_model, predict
from crossfunc.training.evaluate import FramePredictions
from crossfunc.training.labels import LabelledFrames

ELEMENTS = ("Li", "O", "Na", "Cl", "Fe", "Cu")


def made_up(n_materials=60, frames_each=2, seed=0):
    """Frames of random compositions of six elements; labels and forces are filled in by the tests."""
    rng = np.random.default_rng(seed)
    triples, materials = [], []
    for m in range(n_materials):
        numbers = rng.choice([3, 8, 11, 17, 26, 29], rng.integers(2, 7))
        for _ in range(frames_each):
            coords = rng.uniform(size=(len(numbers), 3))
            triples.append((numbers, coords, 6 * np.eye(3)))
            materials.append(f"m{m}")
    crystals = Crystals.from_arrays(triples)
    n, n_atoms = len(crystals), len(crystals.atomic_numbers)
    return LabelledFrames(
        crystals,
        np.zeros(n),
        rng.normal(0, 1, (n_atoms, 3)).astype(np.float32),
        rng.normal(0, 5, (n, 3, 3)).astype(np.float32),
        np.full(n_atoms, np.nan, dtype=np.float32),
        np.array([f"f{k}" for k in range(n)]),
        np.array(materials),
    )


def bonding(frames, seed, size=0.1):
    """Energy per atom that is not linear in the composition, the same for the frames of a material."""
    rng = np.random.default_rng(seed)
    _, group = np.unique(frames.material_ids, return_inverse=True)
    return rng.normal(0, size, group.max() + 1)[group]


def by_elements(frames, *values):
    """Energy per atom that is linear in the composition."""
    table = np.zeros(94)
    table[[2, 7, 10, 16, 25, 28]] = values
    return frames.composition @ table


def predictions_of(frames, energy, *, force_factor=1.0, stress_factor=1.0):
    """What a model predicts that has these energies, and forces and stresses in proportion to the labels."""
    return FramePredictions(
        frames,
        np.arange(len(frames)),
        energy,
        frames.forces_ev_per_a.astype(float) * force_factor,
        frames.stress_gpa.astype(float) * stress_factor,
        np.full(len(frames.crystals.atomic_numbers), np.nan),
    )


def judged(frames, labels, predicted, **options):
    """A verdict on made-up numbers; labels as the only set, of no published functional."""
    frames = with_labels(frames, energy_per_atom_ev=labels)
    sets = options.pop("sets", [LabelSet("mine", "raw", labels)])
    factors = {k: options.pop(k) for k in ("force_factor", "stress_factor") if k in options}
    predictions = predictions_of(frames, predicted, **factors)
    return judge_predictions(predictions, sets, model="toy", dataset="made up", label_notice="made up", **options)


# --- offsets ---


def test_offsets_are_least_squares():
    frames = made_up(frames_each=1)
    rng = np.random.default_rng(1)
    labels, predicted = rng.normal(-4, 1, len(frames)), rng.normal(-4, 1, len(frames))
    found = judged(frames, labels, predicted).offsets
    X = frames.composition.toarray()[:, [2, 7, 10, 16, 25, 28]]
    expected, squares, *_ = np.linalg.lstsq(X, labels - predicted, rcond=None)
    np.testing.assert_allclose(found.energies_ev[[2, 7, 10, 16, 25, 28]], expected, atol=1e-9)
    variance = squares[0] / (len(frames) - 6)
    errors = np.sqrt(variance * np.diag(np.linalg.inv(X.T @ X)))
    np.testing.assert_allclose(found.std_error_ev[[2, 7, 10, 16, 25, 28]], errors, rtol=1e-6)


def test_values_of_a_material_are_averaged_in_the_order_of_the_ids():
    assert material_means(np.array([1.0, 10.0, 3.0, 5.0]), np.array(["b", "a", "b", "b"])).tolist() == [10, 3]
    assert material_means(np.array([]), np.array([], dtype=str)).tolist() == []


def test_the_nearest_zero_leaves_least_and_each_material_counts_once():
    def sample(labels):
        X = csr_array(np.eye(94)[[2, 2, 2, 7]])  # three frames of lithium, one of oxygen
        ids = np.array(["Li", "Li", "Li", "O"])
        return Sample(X, np.array(labels) + 0.5, np.full(4, 0.5), ids)

    lithium, oxygen = np.zeros(94), np.zeros(94)
    lithium[2], oxygen[7] = -1.0, -2.0
    zeros = {"lithium": lithium, "oxygen": oxygen}
    assert nearest_zero(sample([-1.0, -1.0, -1.0, 0.0]), zeros) is lithium
    assert nearest_zero(sample([-1.0, -1.0, -1.0, -2.0]), zeros) is oxygen  # 1 eV is left, against 2
    assert not nearest_zero(sample([0.1, 0.1, 0.1, 0.1]), zeros).any()
    assert not nearest_zero(sample([1.0, 1.0, 1.0, 0.0]), zeros).any()
    assert not nearest_zero(sample([-1.0, -1.0, -1.0, 0.0]), {}).any()


def test_held_out_errors_are_those_of_fits_to_the_other_materials():
    frames = made_up(40)
    rng = np.random.default_rng(2)
    labels, predicted = rng.normal(-4, 1, len(frames)), rng.normal(-4, 1, len(frames))
    inside = rng.normal(-3, 1, 94)
    sample = Sample(frames.composition, labels, predicted, frames.material_ids)
    found = held_out_residuals(sample, {}, inside)
    X, folds = frames.composition.toarray(), material_folds(frames.material_ids, 5, 0)
    columns = np.flatnonzero(X.any(axis=0))
    network = predicted - X @ inside
    for name, target, base in (
        ("model-aware references", labels - predicted, predicted),
        ("plain references", labels, network),
        ("composition alone", labels, 0.0),
    ):
        for k in range(5):
            train, test = folds != k, folds == k
            c, *_ = np.linalg.lstsq(X[train][:, columns], target[train], rcond=None)  # two frames a material: equal
            by_hand = labels[test] - (base + X[:, columns] @ c)[test]
            np.testing.assert_allclose(found[name][test], by_hand, atol=1e-8)


def test_what_is_linear_in_the_composition_is_told_from_what_is_not():
    frames = made_up()
    shift = by_elements(frames, -1, -2, -3, -4, -5, -6)
    base = bonding(frames, 0, 0.5)
    found = judged(frames, base + shift + bonding(frames, 1, 0.05), base)
    rows = {row["references"]: row["mae_ev_per_atom"] for row in found.errors}
    assert rows["as it is"] > 2
    assert rows["model-aware references"] < 0.06
    assert rows["composition alone"] > 0.3
    assert found.linear["explained_offset"] > 0.99
    assert found.linear["refit"]
    assert "Add the offsets below before any training" in found.advice
    twice = judged(frames, base + bonding(frames, 1, 0.5), base)
    assert twice.linear["explained_offset"] < 0.2
    assert "Leave its references alone" in twice.advice


def test_a_good_model_is_left_as_it_is():
    frames = made_up()
    base = bonding(frames, 0, 0.5)
    assert "Take it as it is" in judged(frames, base + bonding(frames, 1, 0.01), base).advice


def test_plain_references_are_advised_against_where_they_count_twice():
    frames = made_up()
    inside = np.full(94, -3.0)
    network = by_elements(frames, 0.5, -1, 0.3, -0.8, 0.9, 0.2) + bonding(frames, 0, 0.3)
    predicted = frames.composition @ inside + network
    labels = predicted + by_elements(frames, -5, -6, -7, -8, -9, -5) + bonding(frames, 1, 0.02)
    found = judged(frames, labels, predicted, inside=inside)
    rows = {row["references"]: row["mae_ev_per_atom"] for row in found.errors}
    assert rows["plain references"] > 5 * rows["model-aware references"]
    assert "Do not refit to the labels' energies alone" in found.advice


# --- the functional ---


@pytest.mark.parametrize("taught", [0, 1])
def test_the_functional_is_recognised_whatever_the_zero_of_energy(taught):
    frames = made_up(80)
    low = bonding(frames, 0, 0.5)
    high = low + by_elements(frames, -1, -2, -3, -4, -5, -6) + bonding(frames, 1, 0.08)
    sets = [LabelSet("one", "raw", low), LabelSet("other", "raw", high)]
    # A zero of its own: nearer to the wrong functional's than to the right one's.
    model = (low, high)[taught] + by_elements(frames, *(-0.9 if not taught else 0.9) * np.arange(1, 7.0))
    model += bonding(frames, 2, 0.02)
    found = spoken_functional(frames.composition, model, frames.material_ids, sets)
    assert found["spoken"] == ("one", "other")[taught]
    assert found["candidates"][taught]["support"] > 0.95
    wrong = found["candidates"][1 - taught]
    assert wrong["mae_as_it_is_ev_per_atom"] < found["candidates"][taught]["mae_as_it_is_ev_per_atom"]


def test_a_model_that_knows_nothing_but_composition_speaks_no_functional():
    frames = made_up(80)
    low = bonding(frames, 0, 0.5)
    sets = [LabelSet("one", "raw", low), LabelSet("other", "raw", low + bonding(frames, 1, 0.8))]
    for said in (np.full(len(frames), -3.0), by_elements(frames, -1, -2, -3, -4, -5, -6)):
        found = spoken_functional(frames.composition, said, frames.material_ids, sets)
        assert found["candidates"][0]["support"] > 0.95  # for its labels spread less, and for nothing else
        assert (found["spoken"], found["knows_bonding"]) == (None, False)
        assert "It speaks none of them" in judged(frames, low, said, sets=sets).advice
    assert spoken_functional(frames.composition, 0.8 * low, frames.material_ids, sets)["spoken"] == "one"


def test_a_model_between_two_functionals_is_not_forced_to_one():
    frames = made_up(80)
    low, difference = bonding(frames, 0, 0.5), bonding(frames, 1, 0.08)
    sets = [LabelSet("one", "raw", low), LabelSet("other", "raw", low + difference)]
    model = low + difference / 2 + bonding(frames, 2, 0.02)
    found = spoken_functional(frames.composition, model, frames.material_ids, sets)
    assert found["spoken"] is None
    assert sum(one["support"] for one in found["candidates"]) == pytest.approx(1)
    advice = judged(frames, low, model, sets=sets).advice
    assert "cannot be told from 80 materials" in advice


@pytest.mark.parametrize("offsets", [np.zeros(6), np.array([-1, -2, -3, -4, -5, -6.0])])
def test_of_labels_that_differ_by_offsets_alone_none_is_said_to_be_spoken(offsets):
    frames = made_up(80)
    low, model = bonding(frames, 0, 0.5), bonding(frames, 0, 0.5) + bonding(frames, 2, 0.02)
    twice = [LabelSet("one", "raw", low), LabelSet("other", "raw", low + by_elements(frames, *offsets))]
    far = LabelSet("far", "raw", low + bonding(frames, 1, 0.4))
    for sets in (twice, [twice[0], far, twice[1]]):
        found = spoken_functional(frames.composition, model, frames.material_ids, sets)
        assert found["spoken"] is None
        assert found["tied"] == ["one", "other"]
        assert found["knows_bonding"] is True
        assert max(one["support"] for one in found["candidates"]) == 0
        assert "Whether it speaks one or other cannot be told" in judged(frames, low, model, sets=sets).advice


@pytest.mark.parametrize(
    ("table", "said"), [("MPtrj", "MP2020-corrected"), ("MPF", "uncorrected"), ("MP-r2SCAN", "r²SCAN of")]
)
def test_a_published_zero_is_recognised_from_labels_of_one_functional(table, said):
    frames = made_up(60)
    base = bonding(frames, 0, 0.5)
    labels = base + published_atomref("MP-r2SCAN").predict(frames.composition) + bonding(frames, 1, 0.05)
    predicted = base + published_atomref(table).predict(frames.composition)
    found = judged(frames, labels, predicted, sets=[LabelSet("r2scan", "raw", labels)])
    assert said in found.functional["zero"]
    assert f"It has the zero of energy of {found.functional['zero']}" in found.advice


def test_a_zero_of_its_own_is_none_of_the_published_ones():
    frames = made_up(60)
    labels = bonding(frames, 0, 0.5) + published_atomref("MP-r2SCAN").predict(frames.composition)
    found = judged(frames, labels, bonding(frames, 0, 0.5), sets=[LabelSet("r2scan", "raw", labels)])
    assert found.functional["zero"] is None
    assert "none of the published ones" in found.advice
    assert published_zeros("pbesol", "raw") == {}


def test_labels_of_another_code_have_no_published_zero():
    dataset = xf.open_dataset("pbe-r2scan", verify=False)
    sets = label_sets(dataset, LabelledFrames.from_dataset(dataset, "high"))
    assert [(one.functional, one.zeros) for one in sets] == [("r2scan", {}), ("pbe", {})]
    frames = made_up(60)
    labels = bonding(frames, 0, 0.5) + published_atomref("MP-r2SCAN").predict(frames.composition)
    predicted = bonding(frames, 0, 0.5) + published_atomref("MPtrj").predict(frames.composition)
    errors = {}
    for applies in (True, False):
        found = judged(frames, labels, predicted, sets=[LabelSet("r2scan", "raw", labels, applies)])
        assert bool(found.functional["zeros"]) == (found.functional["zero"] is not None) == applies
        errors[applies] = {row["references"]: row["mae_of_all_ev_per_atom"] for row in found.errors}["with a prior"]
    assert errors[True] < 1e-6 < errors[False]  # the published shift is exact here, and was taken


def test_labels_of_the_same_crystal_are_found_in_the_dataset(two_functionals):
    opened = xf.open_dataset(two_functionals)
    frames = LabelledFrames.from_dataset(opened, "r2scan")
    first, second, *derived = label_sets(opened, frames)
    assert (first.functional, second.functional) == ("r2scan", "gga")
    np.testing.assert_array_equal(first.energy_per_atom_ev, frames.energy_per_atom_ev)
    low = LabelledFrames.from_dataset(opened, "gga")
    expected = {str(i).rsplit("/", 1)[0]: e for i, e in zip(low.frame_ids, low.energy_per_atom_ev, strict=True)}
    for frame_id, energy in zip(frames.frame_ids, second.energy_per_atom_ev, strict=True):
        wanted = expected.get(str(frame_id).rsplit("/", 1)[0], np.nan)
        assert energy == wanted or (np.isnan(energy) and np.isnan(wanted))
    assert np.isfinite(second.energy_per_atom_ev).sum() > 20
    assert [one.name for one in derived] == ["GGA/GGA+U, uncorrected"]


# --- units and slopes ---


@pytest.mark.parametrize(
    ("factor", "unit"), [(1, "eV"), (23.0605, "kcal/mol"), (96.485, "kJ/mol"), (1 / 27.2114, "Hartree"), (1e3, "meV")]
)
def test_the_unit_of_energies_is_measured(factor, unit):
    frames = made_up()
    labels = by_elements(frames, -1, -5, -2, -3, -8, -4) + bonding(frames, 0, 0.5)
    found = judged(frames, labels, factor * (labels + bonding(frames, 1, 0.02)))
    assert found.energy["unit"] == unit
    assert ("Mend the units first: its energies" in found.advice) == (factor != 1)


def test_an_energy_of_the_atom_where_that_of_the_cell_belongs_is_noticed():
    frames = made_up()
    labels = by_elements(frames, -1, -5, -2, -3, -8, -4) + bonding(frames, 0, 0.5)
    found = judged(frames, labels, (labels + bonding(frames, 1, 0.02)) / frames.crystals.n_atoms)
    assert found.energy["unit"] == "eV per atom"


@pytest.mark.parametrize(
    ("target", "factor", "unit", "is_right"),
    [
        ("forces", 1.0, "eV/Å", True),
        ("forces", -1.0, "eV/Å of the gradient (opposite sign)", False),
        ("forces", 23.06, "kcal/mol/Å", False),
        ("stress", 1.0, "eV/Å³", True),
        ("stress", 160.2, "GPa", False),
        ("stress", -1.0, "eV/Å³, compression positive", False),
        ("stress", 1602.0, "kbar", False),
    ],
)
def test_units_and_signs_of_derivatives_are_measured(target, factor, unit, is_right):
    frames = made_up()
    labels = bonding(frames, 0, 0.5)
    key = "force_factor" if target == "forces" else "stress_factor"
    found = judged(frames, labels, labels, **{key: factor})
    measured = getattr(found, target)
    assert (measured["unit"], measured["is_right"]) == (unit, is_right)
    assert ("Mend the units first" in found.advice) != is_right


def test_a_soft_model_is_called_soft():
    frames = made_up()
    labels = bonding(frames, 0, 0.5)
    found = judged(frames, labels, labels, force_factor=0.7)
    assert found.forces["slope"] == pytest.approx(0.7, abs=1e-6)
    assert found.forces["mae"] == pytest.approx(0.3 * found.forces["mae_of_zero"], rel=1e-5)
    assert "It is too soft: forces are 0.70 of the labels'" in found.advice
    assert "too" not in judged(frames, labels, labels).advice


@pytest.mark.parametrize(("n_materials", "factor"), [(4, 0.7), (4, 1.0), (5, 0.7)])
def test_a_slope_of_few_materials_has_no_interval_and_softness_cannot_be_told(n_materials, factor):
    frames = made_up(n_materials, frames_each=4)
    labels = bonding(frames, 0, 0.5)
    found = judged(frames, labels, labels, force_factor=factor)
    assert np.isnan([found.forces["slope_low"], found.forces["slope_high"]]).tolist() == [n_materials < 5] * 2
    assert found.forces["slope"] == pytest.approx(factor, abs=1e-6)
    unclear = "Whether it is too soft or too stiff cannot be told: forces are 0.70 of the labels', of 4 materials."
    assert (unclear in found.advice) == (n_materials < 5 and factor < 1)
    assert ("too few materials for an interval" in str(found)) == (n_materials < 5)


def test_forces_of_relaxed_frames_are_not_judged():
    frames = made_up()
    frames = with_labels(frames, forces_ev_per_a=frames.forces_ev_per_a / 100)
    labels = bonding(frames, 0, 0.5)
    assert "nearly relaxed" in judged(frames, labels, labels, force_factor=3.0).advice


def test_a_dataset_without_forces_has_no_verdict_on_them():
    frames = made_up()
    frames = with_labels(frames, forces_ev_per_a=frames.forces_ev_per_a * np.nan)
    labels = bonding(frames, 0, 0.5)
    assert judged(frames, labels, labels).forces is None


# --- the rest ---


def test_a_frame_far_out_is_named():
    frames = made_up()
    labels = bonding(frames, 0, 0.5)
    wrong = labels.copy()
    wrong[17] += 1.5
    found = judged(frames, wrong, labels)
    assert [one["frame_id"] for one in found.outliers] == ["f17"]
    assert found.outliers[0]["label_minus_model_ev_per_atom"] == pytest.approx(1.5, abs=0.15)
    (outlier,) = found.outliers
    assert f"Look at {outlier['formula']} ({outlier['material_id']}, frame f17) first" in found.advice
    assert f"outlier {outlier['material_id']}, frame f17 {outlier['formula']}: " in str(found)


def test_a_frame_that_is_named_after_its_material_is_named_once():
    frames = made_up()
    named = dataclasses.replace(frames, frame_ids=np.array([f"{name}/r2scan" for name in frames.material_ids]))
    labels = bonding(frames, 0, 0.5)
    wrong = labels.copy()
    wrong[17] += 1.5
    assert f"({named.frame_ids[17]})" in judged(named, wrong, labels).advice


def test_json_holds_all_that_the_words_are_made_of():
    frames = made_up()
    found = judged(frames, bonding(frames, 0, 0.5), bonding(frames, 1, 0.5))
    plain = json.loads(found.to_json(), parse_constant=pytest.fail)  # neither NaN nor infinity
    assert plain["advice"] == what_to_do(plain) == found.advice
    assert report(plain) == str(found)
    assert set(plain["elements"]) == set(ELEMENTS)


def test_too_few_materials_are_refused_in_one_sentence():
    frames = made_up(3)
    with pytest.raises(VerdictError, match=r"made up: 3 materials have an energy and a prediction; a verdict needs 4"):
        judged(frames, bonding(frames, 0), bonding(frames, 1))


# --- calculators with other references ---


def test_with_references_moves_energies_and_nothing_else():
    atoms = bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1)
    atoms.rattle(0.05, seed=0)
    offsets = np.full(94, np.nan)
    offsets[[10, 16]] = -2.0, 0.5
    inner = calculators.Toy()
    atoms.calc = xf.with_references(inner, offsets)
    other = atoms.copy()
    other.calc = inner
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy() + 2 * -2.0 + 2 * 0.5, abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_array_equal(atoms.get_forces(), other.get_forces())
    np.testing.assert_array_equal(atoms.get_stress(), other.get_stress())
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    inside = np.full(94, -1.0)
    atoms.calc = xf.with_references(inner, offsets, inside=inside)
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy() + 2 * -1.0 + 2 * 1.5, abs=1e-12)


def test_with_references_names_an_element_without_one_and_refuses_other_shapes():
    atoms = bulk("MgO", "rocksalt", a=4.2)
    offsets = np.full(94, np.nan)
    offsets[7] = 1.0
    atoms.calc = xf.with_references(calculators.Toy(), offsets)
    with pytest.raises(CalculatorError, match="no element reference for Mg"):
        atoms.get_potential_energy()
    with pytest.raises(CalculatorError, match="give 94 energies"):
        xf.with_references(calculators.Toy(), [1.0, 2.0])
    with pytest.raises(CalculatorError, match="is no ASE calculator"):
        xf.with_references("0.3.0", offsets)


def test_offsets_of_a_verdict_mend_the_calculator(two_functionals):
    model = load_model("0.3.0")
    before = verdict(model, two_functionals, functional="r2scan")
    mended = xf.with_references(model, before.offsets)
    frames = LabelledFrames.from_dataset(two_functionals, "r2scan")
    after = xf.evaluate(mended, frames)
    predicted = predict(model, frames.crystals, derivatives=False)["energy_per_atom_ev"]
    sample = Sample(frames.composition, frames.energy_per_atom_ev, predicted, frames.material_ids)
    left = np.abs(fit_offsets(sample).remove(sample.X, sample.difference_ev)).mean()
    assert after["energy_mae_mev_per_atom"] == pytest.approx(1000 * left, abs=0.05)
    assert after["energy_mae_mev_per_atom"] < 200 < xf.evaluate(model, frames)["energy_mae_mev_per_atom"]


# --- datasets and the command line ---


@pytest.fixture(scope="module")
def two_functionals(tmp_path_factory):
    """A part of the embedded dataset: small crystals of few elements, labelled in both functionals."""
    surrogate = xf.open_dataset("surrogate", verify=False)
    table = surrogate.frames
    known = {3, 8, 11, 12, 9, 17, 13}
    rows = [
        k
        for k, (numbers, source) in enumerate(
            zip(table["atomic_numbers"].to_pylist(), table["source"].to_pylist(), strict=True)
        )
        if len(numbers) <= 6 and set(numbers) <= known and source.startswith("dense") and "path" not in source
    ]
    meta = {k: v for k, v in surrogate.meta.items() if k not in ("files", "generator")}
    out = tmp_path_factory.mktemp("data") / "light"
    xf.write_dataset(out, meta=meta | {"name": "light"}, frames=table.take(rows))
    return out


@pytest.mark.parametrize(("model", "spoken"), [("0.3.0", "GGA/GGA+U, MP2020-corrected"), ("r2scan", "r²SCAN")])
def test_published_models_speak_what_they_were_taught(two_functionals, model, spoken):
    found = verdict(load_model(model), two_functionals, functional="r2scan", name=model)
    assert isinstance(found, Verdict)
    assert found.functional["spoken"] == spoken


def test_verdict_on_the_command_line(two_functionals, tmp_path):
    file = tmp_path / "offsets.json"
    chgnet = ("--calculator", "crossfunc.potential.calculator:CHGNetCalculator")
    options = ("--functional", "r2scan", "--references", str(file))
    done = CliRunner().invoke(app, ["verdict", str(two_functionals), *chgnet, *options, "--json"])
    assert done.exit_code == 0, done.output
    plain = json.loads(done.stdout)
    assert plain["functional"]["spoken"] == "GGA/GGA+U, MP2020-corrected"
    assert plain["model"] == chgnet[1]
    written = xf.AtomRefFit.from_json(file)
    assert written.energies_ev[7] == pytest.approx(plain["elements"]["O"]["offset_ev"])
    said = CliRunner().invoke(app, ["verdict", str(two_functionals), "--model", "0.3.0", "--functional", "r2scan"])
    assert "It speaks GGA/GGA+U, MP2020-corrected" in said.output
    assert "plain references" in said.output


def test_a_verdict_that_fails_writes_nothing(two_functionals, tmp_path):
    file = tmp_path / "offsets.json"
    done = CliRunner().invoke(
        app, ["verdict", str(two_functionals), "--calculator", "calculators:WrongShape", "--functional", "r2scan",
              "--references", str(file)]
    )  # fmt: skip
    assert done.exit_code == 1
    assert "not what ASE calculators return" in done.output
    assert not file.exists()


# --- real data ---


def mp_pairs(folder, max_atoms):
    """Materials Project structures with energies in both functionals, as frames and label sets."""
    with gzip.open(folder / "mp_paired_structures.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    from pymatgen.core import Structure

    rows = [row for row in rows if len(row["structure"]["sites"]) <= max_atoms]
    crystals = Crystals.from_structures(Structure.from_dict(row["structure"]) for row in rows)
    n, n_atoms = len(crystals), len(crystals.atomic_numbers)
    ids = np.array([row["material_id"] for row in rows])
    energies = {key: np.array([row[f"{key}_energy_per_atom_ev"] for row in rows]) for key in ("gga_mp2020", "r2scan")}
    frames = LabelledFrames(
        crystals,
        energies["r2scan"],
        np.full((n_atoms, 3), np.nan, dtype=np.float32),
        np.full((n, 3, 3), np.nan, dtype=np.float32),
        np.full(n_atoms, np.nan, dtype=np.float32),
        ids,
        ids,
    )
    from crossfunc.advice.spoken import _uncorrected

    gga = LabelSet("gga", "mp2020", energies["gga_mp2020"])
    return frames, [LabelSet("r2scan", "raw", energies["r2scan"]), gga, _uncorrected(gga, frames)]


def speaks(model, frames, sets):
    """Name of the functional that a model speaks on real data."""
    predicted = predict(model, frames.crystals, derivatives=False)["energy_per_atom_ev"]
    return spoken_functional(frames.composition, predicted, frames.material_ids, sets)["spoken"]


@pytest.mark.real_data
def test_on_real_dft_published_models_speak_what_they_were_taught(real_data_folder):
    frames, sets = mp_pairs(real_data_folder, 6)
    assert speaks(load_model("r2scan"), frames, sets) == "r²SCAN"
    assert speaks(load_model("0.3.0"), frames, sets) == "GGA/GGA+U, MP2020-corrected"


@pytest.mark.real_data
@pytest.mark.parametrize(("modal", "spoken"), [("R2SCAN", "r²SCAN"), ("PBE", "GGA/GGA+U, uncorrected")])
def test_on_real_dft_both_modalities_of_sevennet_are_recognised(real_data_folder, modal, spoken):
    pytest.importorskip("sevenn", reason="sevenn is no dependency: its wheel is needed for this test alone")
    model = xf.load_calculator("sevenn.calculator:SevenNetCalculator", {"model": "7net-mf-0", "modal": modal})
    frames, sets = mp_pairs(real_data_folder, 6)
    assert speaks(model, frames, sets) == spoken


@pytest.mark.parametrize(("modal", "spoken"), [("R2SCAN", "r²SCAN"), ("PBE", "PBE")])
def test_on_our_own_dft_both_modalities_of_sevennet_are_recognised(modal, spoken):
    pytest.importorskip("sevenn", reason="sevenn is no dependency: its wheel is needed for this test alone")
    model = xf.load_calculator("sevenn.calculator:SevenNetCalculator", {"model": "7net-mf-0", "modal": modal})
    dataset = xf.open_dataset("pbe-r2scan")
    frames = LabelledFrames.from_dataset(dataset, "high")
    _, first = np.unique(frames.material_ids, return_index=True)
    frames = frames.take(np.sort(first))
    assert speaks(model, frames, label_sets(dataset, frames)) == spoken


@pytest.mark.parametrize(("data", "low"), [("pbe-r2scan", "PBE"), ("mp-pairs", "GGA/GGA+U, uncorrected")])
def test_the_kept_verdicts_name_what_each_modality_of_sevennet_was_taught(data, low):
    kept = Path(__file__).resolve().parent.parent / "book" / "verdicts" / data
    for modal, spoken in (("r2scan", "r²SCAN"), ("pbe", low)):
        document = json.loads((kept / f"sevennet-mf-0-{modal}.json").read_text(encoding="utf-8"))
        assert document["functional"]["spoken"] == spoken


def test_the_kept_verdicts_are_of_the_shipped_frames():
    kept = Path(__file__).resolve().parent.parent / "book" / "verdicts" / "pbe-r2scan"
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(kept.glob("*.json"))]
    n_frames = len(LabelledFrames.from_dataset("pbe-r2scan", "high"))
    assert len(found) == 5
    assert {document["n_frames"] for document in found} == {n_frames}


def test_small_frames_have_a_verdict_too():
    frames = small_frames(24)
    found = judge_predictions(
        predictions_of(frames, frames.energy_per_atom_ev + 0.1),
        [LabelSet("r2scan", "raw", frames.energy_per_atom_ev)],
        model="toy",
        dataset="few",
    )
    assert found.energy["unit"] is None  # more elements than materials could settle
    assert found.advice
