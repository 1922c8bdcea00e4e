"""What costs nothing: predicting zero, a last refit of references, and the rule that forbids quoting a curve."""

from dataclasses import replace

import numpy as np
import pytest

from crossfunc.bootstrap import BootstrapError
from crossfunc.datasets import open_dataset
from crossfunc.energies import AtomRefError
from crossfunc.potential import element_references, load_model, set_element_references
from crossfunc.training import (
    LabelledFrames,
    evaluate,
    frame_errors,
    last_refit_ev,
    predict_frames,
    refit_references,
    refitted_energy_errors,
    slope_and_cosine,
    why_not_quote,
    zero_errors,
)
from crossfunc.training.baselines import force_agreement, predict_zero, slope_and_cosine_of


@pytest.fixture(scope="module")
def frames():
    every = LabelledFrames.from_dataset(open_dataset("surrogate"))
    small = np.flatnonzero(every.labelled("forces") & (every.crystals.n_atoms <= 4))
    return every.take(small[::25])


@pytest.fixture(scope="module")
def model():
    return load_model("0.3.0")


@pytest.fixture(scope="module")
def seen(model, frames):
    return predict_frames(model, frames)


def test_zero_errors_are_the_mean_sizes_of_the_labels(frames):
    found = zero_errors(frames)
    assert found["energy_mae_mev_per_atom"] is None
    assert found["force_mae_mev_per_a"] == pytest.approx(1000 * np.abs(frames.forces_ev_per_a).mean(), rel=1e-5)
    assert found["stress_mae_gpa"] == pytest.approx(np.abs(frames.stress_gpa).mean(), rel=1e-5)
    assert found["magmom_mae_mub"] == pytest.approx(np.abs(frames.magmoms_mub).mean(), rel=1e-5)


def test_zero_is_predicted_of_every_frame_in_its_place_and_of_no_energy(frames):
    some = frames.take([2, 0, 1])
    found = predict_zero(some)
    assert found.frames is some
    assert found.positions.tolist() == [0, 1, 2]
    assert np.isnan(found.energy_per_atom_ev).all()
    for name in ("forces_ev_per_a", "stress_gpa", "magmoms_mub"):
        predicted = getattr(found, name)
        assert predicted.shape == getattr(some, name).shape
        assert not predicted.any()


def test_zero_errors_know_what_is_not_labelled(frames):
    every = LabelledFrames.from_dataset(open_dataset("surrogate"))
    wide = every.take(np.flatnonzero(~every.labelled("forces"))[:3])
    assert zero_errors(wide)["force_mae_mev_per_a"] is None
    assert zero_errors(frames.take([0]))["force_mae_mev_per_a"] is not None


def test_a_last_refit_undoes_any_change_of_references_and_touches_nothing_else(model, frames):
    rng = np.random.default_rng(0)
    bent = refit_references(model, frames)
    set_element_references(bent, np.nan_to_num(element_references(model)) + rng.normal(0, 3, 94), source="bent")
    one, other = refit_references(model, frames, ridge=1e-6), refit_references(bent, frames, ridge=1e-6)
    first, second = evaluate(one, frames), evaluate(other, frames)
    assert first["energy_mae_mev_per_atom"] == pytest.approx(second["energy_mae_mev_per_atom"], abs=1)
    assert first["energy_mae_mev_per_atom"] < 0.1 * evaluate(model, frames)["energy_mae_mev_per_atom"]
    before = evaluate(model, frames)
    for name in ("force_mae_mev_per_a", "stress_mae_gpa", "magmom_mae_mub"):
        assert first[name] == before[name] == second[name]


def test_one_network_with_three_sets_of_references_has_one_error_after_a_last_refit(model, frames):
    """At the default, where the test frames are of other materials than the training frames, by eV/atom."""
    rng = np.random.default_rng(3)
    ids = np.unique(frames.material_ids)
    train = frames.take(np.flatnonzero(np.isin(frames.material_ids, ids[: 2 * len(ids) // 3])))
    known = np.asarray((train.composition > 0).sum(axis=0)).ravel() > 0
    inside = np.asarray(frames.composition[:, ~known].sum(axis=1)).ravel() == 0
    test = frames.take(np.flatnonzero(inside & ~np.isin(frames.material_ids, train.material_ids)))
    found = []
    for shift in (np.zeros(94), rng.normal(0, 5, 94), np.linspace(0, -20, 94)):
        bent = refit_references(model, train)
        set_element_references(bent, np.nan_to_num(element_references(model)) + shift, source="bent")
        after = refitted_energy_errors(predict_frames(bent, test), last_refit_ev(bent, train))
        found.append(np.nanmean(after))
    assert np.ptp(found) < 0.02 * found[0] + 0.1


def test_errors_after_a_last_refit_are_those_of_the_refitted_model(model, frames, seen):
    quick = refitted_energy_errors(seen, last_refit_ev(model, frames))
    slow = frame_errors(predict_frames(refit_references(model, frames), frames), "energy")
    np.testing.assert_allclose(quick, slow, atol=0.05)  # meV/atom: float32 energies


def test_a_last_refit_leaves_the_given_model_alone_and_needs_an_energy(model, frames):
    before = element_references(model)
    refit_references(model, frames.take([0, 1]))
    np.testing.assert_array_equal(element_references(model), before)
    blind = frames.take([0, 1])
    blind.energy_per_atom_ev[:] = np.nan
    with pytest.raises(AtomRefError, match="none of the 2 training frames"):
        refit_references(model, blind)


@pytest.mark.parametrize("target", ["energy", "forces", "stress", "magmoms"])
def test_errors_of_frames_add_up_to_the_error_of_all(seen, target):
    metric = dict(
        zip(
            ("energy", "forces", "stress", "magmoms"),
            ("energy_mae_mev_per_atom", "force_mae_mev_per_a", "stress_mae_gpa", "magmom_mae_mub"),
            strict=True,
        )
    )[target]
    error = frame_errors(seen, target)
    weight = seen.frames.crystals.n_atoms if target in ("forces", "magmoms") else np.ones(len(error))
    assert np.average(error, weights=weight) == pytest.approx(seen.metrics()[metric], rel=1e-6)


def test_a_frame_without_a_label_has_no_error(seen):
    seen.frames.energy_per_atom_ev[3], kept = np.nan, seen.frames.energy_per_atom_ev[3]
    assert np.flatnonzero(np.isnan(frame_errors(seen, "energy"))).tolist() == [3]
    seen.frames.energy_per_atom_ev[3] = kept


def test_slope_and_cosine_of_scaled_and_of_random_forces(seen):
    labels = seen.frames.forces_ev_per_a.astype(float)
    before = seen.forces_ev_per_a.copy()
    seen.forces_ev_per_a[:] = 1.5 * labels
    assert slope_and_cosine(seen) == pytest.approx((1.5, 1.0), rel=1e-5)
    seen.forces_ev_per_a[:] = np.random.default_rng(0).normal(size=labels.shape)
    assert abs(slope_and_cosine(seen)[1]) < 0.1
    seen.forces_ev_per_a[:] = before
    seen.forces_ev_per_a[:] = 0
    assert np.isnan(slope_and_cosine(seen)).all()
    seen.forces_ev_per_a[:] = before
    slope, cosine = slope_and_cosine(seen)
    assert 0.9 < slope < 1.6
    assert cosine > 0.9


def test_slope_and_cosine_are_nan_where_all_labels_or_all_predictions_are_zero():
    labels, predicted = np.array([3.0, 4.0, 0.0], dtype=np.float32), np.array([0.0, 8.0, 6.0])
    assert slope_and_cosine_of(labels, predicted) == pytest.approx((32 / 25, 32 / 50))
    assert slope_and_cosine_of(predicted, labels) == pytest.approx((32 / 100, 32 / 50))
    assert np.isnan(slope_and_cosine_of(0 * labels, predicted)).all()
    assert np.isnan(slope_and_cosine_of(labels, 0 * predicted)).all()


def test_forces_that_every_second_frame_lacks_a_prediction_of_agree_on_the_others(frames):
    forces = frames.forces_ev_per_a.astype(float)
    forces[frames.crystals.owners % 2 == 1] = np.nan
    same = replace(predict_zero(frames), forces_ev_per_a=forces)
    assert slope_and_cosine(same) == pytest.approx((1, 1))
    found = force_agreement(same, n_bootstrap=50)
    assert (found["mae"].value, found["mae"].n_materials) == (0, len(set(frames.material_ids[::2])))
    for what in ("slope", "cosine"):
        assert (found[what].value, *found[what].interval) == pytest.approx((1, 1, 1))
    with pytest.raises(BootstrapError, match="nothing is labelled"):
        force_agreement(replace(same, forces_ev_per_a=np.full_like(forces, np.nan)))


# --- the rule ---


def test_a_curve_below_what_costs_nothing_may_be_quoted():
    assert why_not_quote([10, 100, 1000], [60, 40, 20], 66) == ""


@pytest.mark.parametrize("error", [[239, 175, 104, 77], [80, 60, 50, 40], [60, 66, 50, 40]])
def test_a_curve_that_is_anywhere_above_it_may_not(error):
    """The first is the energy curve of transfer in a run that this project once quoted a factor of 11 from."""
    why = why_not_quote([60, 200, 625, 2000], error, 66, what="transfer")
    assert "transfer is not below an error that costs nothing (66)" in why
    assert "no exponent and no factor" in why


def test_the_rule_looks_at_the_mean_of_the_seeds_and_names_the_sizes():
    n, error = [10, 10, 100, 100, 1000, 1000], [70, 60, 66, 70, 10, 10]
    assert "at N = 100:" in why_not_quote(n, error, 66)
    assert "at N = 1,000" in why_not_quote([1000], [float("nan")], 66)  # an error that is no number is below nothing
