"""Where each method starts: the pretrained model bit for bit, or shifted by composition and by nothing else."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import open_dataset
from crossfunc.energies import AtomRefError, fit_atomref, published_atomref
from crossfunc.potential import (
    Crystals,
    element_references,
    load_model,
    predict,
    scratch_model,
    set_element_references,
)
from crossfunc.symbols import ATOMIC_NUMBERS
from crossfunc.training import METHODS, STARTS
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.methods import MethodError, find_method, start_model

OUTPUTS = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")


@pytest.fixture(scope="module")
def surrogate():
    """Frames of the dense tier, every tenth."""
    frames = LabelledFrames.from_dataset(open_dataset("surrogate"))
    return frames.take(np.flatnonzero(frames.labelled("forces"))[::10])


@pytest.fixture(scope="module")
def parts(surrogate):
    """Training frames, and others that hold no element the training frames lack."""
    train, rest = surrogate.take(np.arange(0, len(surrogate), 2)), surrogate.take(np.arange(1, len(surrogate), 2))
    covered = np.asarray(rest.composition[:, ~np.isin(np.arange(94), train.composition.indices)].sum(axis=1)).ravel()
    return train, rest.take(np.flatnonzero(covered == 0)[:40])


@pytest.fixture(scope="module")
def pretrained():
    return load_model("0.3.0")


def made_up(compositions, energies, materials=None):
    """Frames of simple cubic cells with the given atomic numbers; no labels but energies."""
    crystals = Crystals.from_arrays(
        (z, np.linspace(0, 1, len(z), endpoint=False)[:, None] * [1, 0, 0], np.diag([2.5 * len(z), 3, 3]))
        for z in compositions
    )
    n, n_atoms = len(crystals), len(crystals.atomic_numbers)
    ids = np.array([f"f{k}" for k in range(n)])
    missing = np.full((n_atoms, 3), np.nan, np.float32), np.full((n, 3, 3), np.nan, np.float32)
    moments = np.full(n_atoms, np.nan, np.float32)
    materials = ids if materials is None else np.array(materials)
    return LabelledFrames(crystals, np.array(energies, dtype=float), *missing, moments, ids, materials)


def assert_same_outputs(first, second, keys=OUTPUTS):
    for key in keys:
        for one, two in zip(first[key], second[key], strict=True):
            np.testing.assert_array_equal(one, two)


# --- the table ---


def test_the_methods_are_those_of_the_paper_and_two_without_training():
    starts = [METHODS[key] for key in STARTS]
    assert [(m.number, m.start, m.references, m.train_references) for m in starts] == [
        (1, "scratch", "refit", False),
        (2, "pretrained", "pretrained", True),
        (3, "pretrained", "pretrained", False),
        (4, "pretrained", "refit", False),
        (None, "pretrained", "refit", False),
        (None, "pretrained", "model-aware", False),
    ]
    assert [key for key, method in METHODS.items() if not method.train_network] == ["references-only", "model-aware"]
    assert all(key == method.key for key, method in METHODS.items())
    assert list(METHODS)[: len(STARTS)] == list(STARTS)
    assert not any(method.strategy for method in starts)


def test_methods_after_the_paper_start_from_model_aware_references_and_train():
    later = [method for key, method in METHODS.items() if key not in STARTS]
    assert {(m.number, m.start, m.references, m.train_references, m.train_network) for m in later} == {
        (None, "pretrained", "model-aware", False, True)
    }
    assert [m.key for m in later if m.strategy is None] == ["model-aware-trained"]


def test_the_help_of_finetune_and_the_recipe_name_every_method():
    said = " ".join(CliRunner().invoke(app, ["finetune", "--help"], env={"COLUMNS": "200"}).output.split())
    without_help = [key for key in METHODS if key not in re.split(r"[\s,;.]+", said)]
    recipe = (Path(__file__).parents[1] / "book" / "recipe.md").read_text(encoding="utf-8")
    without_recipe = [key for key in METHODS if key not in STARTS and f"`{key}`" not in recipe]
    assert not without_help, f"name in the help of `crossfunc finetune --method` (cli.py): {without_help}"
    assert not without_recipe, f"say in book/recipe.md whom it is for: {without_recipe}"


def test_the_table_of_methods_cannot_be_changed():
    with pytest.raises(TypeError):
        METHODS["5"] = METHODS["4"]
    with pytest.raises(AttributeError):
        METHODS["4"].train_references = True


def test_methods_are_found_by_key_by_number_and_by_themselves():
    assert find_method(4) is find_method("4") is find_method(METHODS["4"]) is METHODS["4"]
    for wrong in (5, "transfer", None):
        with pytest.raises(MethodError, match=r"there are 1: from scratch.*model-aware"):
            find_method(wrong)


# --- identity at the start ---


@pytest.mark.parametrize("method", [2, 3])
def test_methods_2_and_3_start_as_the_pretrained_model_bit_for_bit(method, parts, pretrained):
    train, other = parts
    model, references, notes = start_model(method, train, other_frames=other)
    assert references is None
    assert notes == ()
    one, two = model.state_dict(), pretrained.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert_same_outputs(predict(model, other.crystals), predict(pretrained, other.crystals))


@pytest.mark.parametrize("method", [4, "references-only", "model-aware"])
def test_refitted_references_change_energies_by_composition_and_nothing_else(method, parts, pretrained):
    train, other = parts
    model, references, _ = start_model(method, train)
    before, after = predict(pretrained, other.crystals), predict(model, other.crystals)
    assert_same_outputs(before, after, OUTPUTS[1:])  # exactly
    change = element_references(model) - element_references(pretrained)
    shift = after["energy_per_atom_ev"] - before["energy_per_atom_ev"]
    np.testing.assert_allclose(shift, other.composition @ change, atol=2e-5)  # float32 energies
    assert np.abs(shift).max() > 5
    np.testing.assert_array_equal(element_references(model), references.energies_ev.astype(np.float32))


def test_method_1_has_fresh_weights_of_its_seed_and_the_references_of_method_4(parts):
    train, _ = parts
    one, references, _ = start_model(1, train, seed=3)
    four = start_model(4, train)
    expected, found = scratch_model(3).state_dict(), one.state_dict()
    names = [name for name in expected if not name.startswith("composition_model")]
    assert all(torch.equal(found[name], expected[name]) for name in names)
    np.testing.assert_array_equal(references.energies_ev, four.references.energies_ev)
    np.testing.assert_array_equal(element_references(one), element_references(four.model))


def test_what_is_trained_is_what_the_method_says(parts):
    for method in STARTS:
        method, model = METHODS[method], start_model(method, parts[0]).model
        weight = model.composition_model.fc.weight
        assert weight.requires_grad == method.train_references
        assert all(p.requires_grad for p in model.parameters() if p is not weight)


def test_a_given_model_is_copied_and_stays_as_it_is(parts, pretrained):
    before = element_references(pretrained)
    model = start_model(4, parts[0], pretrained=pretrained).model
    np.testing.assert_array_equal(element_references(pretrained), before)
    assert not np.array_equal(element_references(model), before)


# --- the refit ---


def test_a_refit_brings_r2scan_energies_close_where_the_pretrained_references_do_not(parts, pretrained):
    train, other = parts
    errors = {}
    for method in (3, 4, "model-aware"):
        predicted = predict(start_model(method, train).model, other.crystals)["energy_per_atom_ev"]
        errors[method] = np.abs(predicted - other.energy_per_atom_ev).mean()
    assert errors[4] < errors[3] / 5
    assert errors["model-aware"] < errors[4]


def test_on_plenty_of_data_the_refit_is_plain_least_squares(surrogate):
    fit = start_model(4, surrogate).references
    plain = fit_atomref(surrogate.composition, surrogate.energy_per_atom_ev, material_ids=surrogate.material_ids)
    seen = np.isfinite(plain.energies_ev)
    assert np.abs((fit.energies_ev - plain.energies_ev)[seen]).mean() < 0.1


def test_model_aware_references_leave_no_mean_error_per_element(surrogate):
    surrogate = surrogate.take(np.arange(0, len(surrogate), 3))
    model, fit, _ = start_model("model-aware", surrogate)
    assert fit.source.startswith("model-aware refit")
    left = surrogate.energy_per_atom_ev - predict(model, surrogate.crystals)["energy_per_atom_ev"]
    _, group, count = np.unique(surrogate.material_ids, return_inverse=True, return_counts=True)
    X = surrogate.composition
    weighted = X.T @ (left / count[group])  # the gradient of the least-squares sum, but for the ridge
    assert np.abs(weighted).max() < 0.02 * np.abs(X.T @ (surrogate.energy_per_atom_ev / count[group])).max()


def test_elements_not_in_the_training_frames_are_estimated_from_their_neighbours_and_noted():
    """Copper between nickel and zinc, from energies that are exactly the published r2SCAN references."""
    truth = published_atomref("r2scan").energies_ev
    numbers = [z for z in range(1, 84) if z not in (29, 70)]
    train = made_up([[z] for z in numbers], truth[np.array(numbers) - 1])
    other = made_up([[29], [29, 8], [8]], [0, 0, 0])
    model, fit, notes = start_model(4, train, other_frames=other)
    copper = ATOMIC_NUMBERS["Cu"] - 1
    assert abs(fit.energies_ev[copper] - truth[copper]) < 0.5
    pretrained_error = abs(published_atomref("0.3.0").energies_ev[copper] - truth[copper])
    assert pretrained_error > 5  # what keeping the pretrained reference would cost
    assert element_references(model)[copper] == np.float32(fit.energies_ev[copper])
    (note,) = notes
    assert "No training energy holds Cu:" in note
    assert "2 validation or test frames" in note
    assert start_model(4, train).notes == ()  # nobody needs it


def test_rank_deficient_training_frames_give_references_close_to_the_truth_and_a_note():
    """Only MgO: any split of its energy between Mg and O fits; plain least squares gives both the same."""
    truth = published_atomref("r2scan").energies_ev
    mean = (truth[11] + truth[7]) / 2
    train = made_up([[12, 8], [12, 8, 12, 8]], [mean, mean])
    _, fit, notes = start_model(4, train)
    assert fit.rank == 1
    assert abs((fit.energies_ev[11] + fit.energies_ev[7]) / 2 - mean) < 0.01
    plain = fit_atomref(train.composition, train.energy_per_atom_ev).energies_ev
    assert abs(fit.energies_ev[11] - truth[11]) < 0.5 * abs(plain[11] - truth[11])
    assert "fix the references of O, Mg only in combination" in notes[0]


def test_given_references_that_no_training_energy_fixes_are_noted_as_given():
    """A learning curve's references are fitted once, to all of its frames; elements of the validation may be new."""
    train, other = made_up([[12, 8], [12]], [-4.5, -4.0]), made_up([[29, 8]], [-3.0])
    given = start_model(4, train).references
    _, _, notes = start_model(4, train, references=given, other_frames=other)
    assert "No training energy holds Cu: their references are as given" in notes[0]


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_few_training_frames_give_references_of_a_sensible_size(surrogate, n):
    for seed in range(3):
        few = surrogate.take(np.random.default_rng(seed).choice(len(surrogate), n, replace=False))
        fit = start_model(4, few, other_frames=surrogate).references
        error = np.abs(surrogate.energy_per_atom_ev - fit.predict(surrogate.composition))
        unfitted = np.abs(surrogate.energy_per_atom_ev - published_atomref("0.3.0").predict(surrogate.composition))
        assert np.isfinite(fit.energies_ev).all()
        assert error.mean() < 0.6 * unfitted.mean()


def test_frames_without_an_energy_do_not_take_part_in_the_refit():
    frames = made_up([[8], [12], [12, 8], [26]], [-5.0, -4.0, -4.5, np.nan])
    full = made_up([[8], [12], [12, 8]], [-5.0, -4.0, -4.5])
    model, fit, notes = start_model(4, frames, other_frames=frames)
    np.testing.assert_array_equal(fit.energies_ev, start_model(4, full).references.energies_ev)
    assert "No training energy holds Fe" in notes[0]
    assert np.isfinite(element_references(model)[25])


def test_frames_of_one_material_count_as_one():
    once = made_up([[8], [12]], [-5.0, -4.0], ["a", "b"])
    often = made_up([[8], [8], [8], [12]], [-5.2, -5.0, -4.8, -4.0], ["a", "a", "a", "b"])
    first, second = (start_model(4, frames).references.energies_ev for frames in (once, often))
    np.testing.assert_allclose(first, second, atol=1e-10)


def test_a_refit_without_any_energy_is_an_error():
    frames = made_up([[8], [12]], [np.nan, np.nan])
    for method in (1, 4, "model-aware"):
        with pytest.raises(AtomRefError, match="none of the 2 training frames has an energy"):
            start_model(method, frames)
    assert start_model(3, frames).references is None


# --- elements without a reference ---


def test_an_element_without_reference_in_the_pretrained_model_is_named():
    frames = made_up([[8], [70, 8]], [-5.0, -30.0])
    with pytest.raises(AtomRefError, match=r"no element reference for Yb \(frame f1; 1 frames with Yb\)"):
        start_model(3, frames, pretrained="r2scan")
    with pytest.raises(AtomRefError, match="no element reference for Yb"):
        start_model(4, frames.take([0]), pretrained="r2scan", other_frames=frames)


@pytest.mark.parametrize("method", [4, "model-aware"])
def test_a_refit_gives_such_an_element_its_reference(method):
    frames = made_up([[8]] * 30 + [[70]] * 30, [-5.0] * 30 + [-38.0] * 30)
    model, fit, _ = start_model(method, frames, pretrained="r2scan")
    if method == 4:
        assert fit.energies_ev[69] == pytest.approx(-38, abs=0.1)
    predicted = predict(model, frames.take([59]).crystals)["energy_per_atom_ev"][0]
    alone = predict(load_model("r2scan"), frames.take([59]).crystals)["energy_per_atom_ev"][0]
    assert predicted - alone == pytest.approx(fit.energies_ev[69], abs=1e-4)


def test_a_model_without_references_can_be_refitted():
    model = load_model("0.3.0")
    model.composition_model = None
    frames = made_up([[8], [12], [12, 8]] * 20, [-5.0, -4.0, -4.5] * 20)
    fit = start_model(4, frames, pretrained=model).references
    np.testing.assert_allclose(fit.energies_ev[[7, 11]], [-5, -4], atol=0.02)


# --- references given ---


def test_given_references_replace_those_of_the_method(parts):
    train, _ = parts
    published = published_atomref("MP-r2SCAN")
    seen = np.isfinite(published.energies_ev)
    for given in ("MP-r2SCAN", published, published.energies_ev):
        model, fit, _ = start_model(4, train, references=given)
        np.testing.assert_array_equal(element_references(model)[seen], published.energies_ev[seen].astype(np.float32))
    assert "MP-r2SCAN" in start_model(1, train, references="MP-r2SCAN").references.source
    shift = fit.energies_ev - published_atomref("0.3.0").energies_ev
    assert shift[70] < shift[69] < shift[68]  # Yb, absent, moves as its neighbours Tm and Lu; chgnet adds 0 for it


def test_method_1_can_take_the_gga_references_for_an_ablation(parts, pretrained):
    model, fit, _ = start_model(1, parts[0], references="pretrained")
    assert fit is None
    np.testing.assert_array_equal(element_references(model), element_references(pretrained))
    assert model.model_args["element_references"] == "those of 0.3.0"


def test_impossible_references_are_refused(parts):
    train, _ = parts
    with pytest.raises(AtomRefError, match="no published element references 'PBE'"):
        start_model(4, train, references="PBE")
    with pytest.raises(AtomRefError, match=r"references have shape \(3,\)"):
        start_model(4, train, references=np.zeros(3))
    with pytest.raises(MethodError, match="there is no model to be aware of"):
        start_model(1, train, references="model-aware")


def test_trained_references_of_a_given_model_are_its_own(parts):
    model = load_model("0.3.0")
    set_element_references(model, np.full(94, -7.0))
    again = start_model(2, parts[0], pretrained=model).model
    assert (element_references(again) == -7).all()
    assert again.composition_model.fc.weight.requires_grad
