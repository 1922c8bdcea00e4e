"""Lesson 7's tables and its rule: above what costs nothing, no exponent, no factor and no lower limit."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_frames import small_frames, with_labels

from crossfunc.datasets import open_dataset
from crossfunc.lessons import learning_curves
from crossfunc.lessons.results import LessonResults
from crossfunc.lessons.units import (
    plan_scaling,
    scaling_units,
    unit_of_few,
    units_at_chgnets_rates,
    untrained_units,
)
from crossfunc.training.baselines import refit_references
from crossfunc.training.evaluate import FramePredictions, evaluate
from crossfunc.training.units import identify, run_units

SETTINGS = {"batch_size": 16, "learning_rate": 1e-3}
OPTIONS = {"n_bootstrap": 50, "seed": 0}
AT_ZERO = pd.DataFrame(
    {"energy": [430.0, 66.0, np.nan], "force": [110.0, 110.0, 200.0], "stress": [1.4, 1.4, 2.0]},
    ["refitted", "model-aware", "predict zero"],
)


def curves(transfer, scratch, force_scratch=(150, 120, 90), stress_scratch=1.0, force_transfer=(100, 80, 60)):
    """Energy errors at N = 10, 100, 1000 of two seeds that agree."""
    rows = [
        {"method": m, "n": n, "seed": seed, "energy": e, "force": f, "stress": stress_scratch}
        for m, energies, forces in (("transfer", transfer, force_transfer), ("scratch", scratch, force_scratch))
        for n, e, f in zip((10, 100, 1000), energies, forces, strict=True)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def off_by(frames, energy_ev, forces_ev_per_a):
    """Predictions that miss each frame's labels by so much."""
    energies, owners = frames.energy_per_atom_ev + energy_ev, frames.crystals.owners
    forces = frames.forces_ev_per_a + np.asarray(forces_ev_per_a)[owners][:, None]
    return FramePredictions(frames, np.arange(len(frames)), energies, forces, frames.stress_gpa, frames.magmoms_mub)


def seen_of(errors):
    """Predictions on frames of twelve materials that miss all labels by what the table says."""
    frames = small_frames(12)
    frames = with_labels(frames, material_ids=np.array([f"m{k}" for k in range(12)]))
    rows = errors.itertuples()
    return {
        (row.method, row.n, row.seed): off_by(frames, row.energy / 1000, np.full(12, row.force / 1000)) for row in rows
    }


def worth(errors, at_zero=AT_ZERO):
    return learning_curves.worth_of_frames(errors, at_zero, seen_of(errors), **OPTIONS)


LEARNED = curves((60, 30, 15), (65, 50, 40))


# --- the rule ---


def test_curves_below_what_costs_nothing_are_quoted():
    laws, reasons = learning_curves.fit_laws(LEARNED, AT_ZERO, ["transfer", "scratch"], **OPTIONS)
    assert set(reasons.values()) == {""}
    assert laws["energy", "transfer"].exponent == pytest.approx(np.log10(2))
    factors, limits, reasons = worth(LEARNED)
    assert factors["energy"].n.tolist() == [10]  # at larger N scratch would have to be followed too far
    assert limits["energy"].to_dict() == {100: 10.0, 1000: 1.0}
    assert limits["force"].to_dict() == {100: 10.0, 1000: 1.0}
    assert reasons == {"energy": "", "force": ""}


@pytest.mark.parametrize("above", [(239, 175, 104), (60, 67, 15), (60, 30, 66)])
def test_energies_above_model_aware_references_give_no_exponent_no_factor_and_no_limit_there(above):
    errors = curves(above, (65, 50, 40))
    laws, reasons = learning_curves.fit_laws(errors, AT_ZERO, ["transfer", "scratch"], **OPTIONS)
    assert laws["energy", "transfer"] is None
    assert "transfer is not below an error that costs nothing (66)" in reasons["energy", "transfer"]
    factors, limits, _ = worth(errors)
    assert factors["energy"] is None
    for n, error in zip((10, 100, 1000), above, strict=True):
        assert error < 66 or n not in limits["energy"].index


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"force_scratch": (354, 329, 201)}, "errs by 201 meV/Å in force, predicting zero by 200"),
        ({"force_scratch": (354, 329, 200)}, "predicting zero by 200"),  # as good is not better
        ({"stress_scratch": 2.2}, "errs by 2.2 GPa in stress, predicting zero by 2"),
    ],
)
def test_scratch_without_forces_or_stresses_gives_no_factor_in_any_metric(options, said):
    errors = curves((60, 30, 15), (65, 50, 40), **options)
    factors, limits, reasons = worth(errors)
    assert factors == {"energy": None, "force": None}
    assert not len(limits["energy"])
    assert not len(limits["force"])
    assert all(said in why for why in reasons.values())


def test_data_without_stress_are_judged_by_their_forces():
    at_zero = AT_ZERO.assign(stress=np.nan)
    assert learning_curves.why_no_factor(LEARNED.assign(stress=np.nan), at_zero) == ""


def test_forces_of_scratch_are_held_against_zero_and_those_of_transfer_against_the_untrained_network():
    assert learning_curves.free_error(AT_ZERO, "force", "scratch") == 200
    assert learning_curves.free_error(AT_ZERO, "force", "transfer") == 110
    assert learning_curves.free_error(AT_ZERO, "energy", "scratch") == 66


def test_transfer_that_leads_by_its_start_alone_has_no_limit():
    errors = curves((60, 30, 15), (65, 50, 40), force_transfer=(115, 112, 111), force_scratch=(190, 185, 180))
    assert not len(learning_curves.measured_limits(errors, AT_ZERO, seen_of(errors), "force"))


def test_transfer_that_leads_within_the_scatter_of_its_seeds_has_no_limit():
    errors = curves((60, 30, 15), (65, 50, 40), force_transfer=(80, 70, 60), force_scratch=(150, 120, 82))
    by_all = learning_curves.measured_limits(errors, AT_ZERO, seen_of(errors), "force")
    assert by_all.to_dict() == {10: 100.0, 100: 10.0, 1000: 1.0}
    errors["force"] += np.where(errors["seed"] == 0, 30, -30) * (errors["method"] == "transfer")
    assert not len(learning_curves.measured_limits(errors, AT_ZERO, seen_of(errors), "force"))


def test_a_limit_counts_from_the_largest_size_of_scratch_itself():
    errors = curves((60, 30, 15), (65, 50, 40))
    errors = errors[(errors["method"] == "transfer") | (errors["n"] < 1000)]
    limits = learning_curves.measured_limits(errors, AT_ZERO, seen_of(errors), "force")
    assert limits.to_dict() == {10: 10.0, 100: 1.0, 1000: 0.1}


def test_a_flat_or_distant_law_of_scratch_is_not_followed():
    noisy = curves((60, 30, 15), (65, 50, 40))
    noisy.loc[noisy["method"] == "scratch", "energy"] = [65, 60, 60, 65, 64, 59]
    with pytest.raises(learning_curves.ScalingError, match="exponent of scratch may be zero"):
        learning_curves.factor_within_reach(noisy, AT_ZERO, "energy", **OPTIONS)
    far = curves((20, 10, 5), (65, 60, 55))
    with pytest.raises(learning_curves.ScalingError, match="beyond 10 times the largest run"):
        learning_curves.factor_within_reach(far, AT_ZERO, "energy", **OPTIONS)


def test_a_factor_takes_both_curves():
    alone = LEARNED[LEARNED["method"] == "transfer"]
    assert "there is no scratch" in learning_curves.why_no_factor(alone, AT_ZERO)


def test_two_sizes_make_no_law_and_the_reason_is_given():
    few = LEARNED[LEARNED["n"] < 1000]
    laws, reasons = learning_curves.fit_laws(few, AT_ZERO, ["transfer"], **OPTIONS)
    assert laws["energy", "transfer"] is None
    assert "2 different sizes" in reasons["energy", "transfer"]


# --- in words ---


def test_sentences_follow_the_numbers():
    assert "lowest energy error without training is 66 meV/atom (*model-aware*)" in learning_curves.free_in_words(
        AT_ZERO
    )
    laws = learning_curves.fit_laws(LEARNED, AT_ZERO, ["transfer", "scratch"], **OPTIONS)
    assert "- **energy, transfer**: b = 0.30 (0.30 to 0.30), R² = 1.00, N from 10 to 1,000." in (
        learning_curves.laws_in_words(*laws)
    )
    above = curves((239, 175, 104), (65, 50, 40))
    laws = learning_curves.fit_laws(above, AT_ZERO, ["transfer"], **OPTIONS)
    said = learning_curves.laws_in_words(*laws)
    assert "energy, transfer**: transfer is not below" in said
    assert "energy, transfer**: b" not in said
    assert learning_curves.end_in_words(LEARNED, AT_ZERO, "energy") == (
        "Energy errors at N = 1,000 (meV/atom): transfer 15 and scratch 40; without training 66 (model-aware)"
    )


def test_what_a_frame_is_worth_is_said_or_why_nothing_is():
    found = worth(LEARNED)
    assert "as measured more than 10 at N = 100" in learning_curves.worth_in_words(*found)
    assert learning_curves.limits_in_words(found[1]) == "energy more than 10 at N = 100; force more than 10 at N = 100"
    none = worth(curves((60, 30, 15), (65, 50, 40), stress_scratch=9.0))
    said = learning_curves.worth_in_words(*none)
    assert said.startswith("- **energy**: no factor. Scratch at its largest N = 1,000 errs by 9 GPa in stress")
    assert learning_curves.limits_in_words(none[1]) == ""


def test_budgets_are_said_by_ratio_and_by_how_often_frames_were_seen():
    force = learning_curves.COLUMNS["force"]
    runs = pd.DataFrame({"n": [10, 10, 1000, 1000], "method": ["transfer", "scratch"] * 2})
    runs[f"validation_{force}"], runs[f"train_{force}"] = [50.0, 90.0, 30.0, 80.0], [10.0, 30.0, 25.0, 20.0]
    table = learning_curves.overfit(runs, n_seen=4000)
    assert table.loc[10, "transfer"] == 5
    assert table["times each frame is seen"].tolist() == [400, 4]
    assert learning_curves.budget_in_words(table) == (
        "At N = 1,000, where each frame is seen 4.0 times, for transfer (1.2) steps are the limit, not frames and for "
        "scratch (4.0) more frames would still help."
    )
    lacking = table.astype({"transfer": float})
    lacking.loc[1000, "scratch"] = np.nan
    assert "scratch" not in learning_curves.budget_in_words(lacking)
    assert "looks at 50% of its frames" in learning_curves.budget_in_words(learning_curves.overfit(runs, n_seen=500))


def test_a_schedule_is_judged_seed_by_seed():
    ours = pd.DataFrame({"seed": [0, 1], "energy": [100.0, 200.0], "force": [50.0, 50.0]})
    theirs = pd.DataFrame({"seed": [1, 0], "energy": [180.0, 95.0], "force": [55.0, 45.0]})
    changes = learning_curves.schedule_changes(theirs, ours)
    assert changes.loc[0].tolist() == pytest.approx([-5, -10])
    assert changes.loc[1].tolist() == pytest.approx([-10, 10])
    said = learning_curves.schedule_in_words(changes)
    assert "the energy error by -8 % (lower for each of 2 seeds)" in said
    assert "the force error by +0 % (lower for some seeds and higher for others)" in said


def test_a_curves_rows_are_its_own_and_its_end_is_its_own_largest_size():
    errors = LEARNED[(LEARNED["method"] == "transfer") | (LEARNED["n"] < 1000)]  # scratch ends at 100
    assert learning_curves.of_curve(errors, "scratch").index.tolist() == [6, 7, 8, 9]
    assert learning_curves.of_curve(errors, "scratch")["n"].tolist() == [10, 10, 100, 100]
    last = learning_curves.at_largest(errors, "scratch")
    assert (last["n"].tolist(), last["energy"].tolist(), last["seed"].tolist()) == ([100, 100], [50, 50], [0, 1])
    assert learning_curves.at_largest(errors, "transfer")["n"].tolist() == [1000, 1000]
    assert len(learning_curves.of_curve(errors, "published")) == 0


def test_seeds_are_counted_once_and_said_in_words():
    assert learning_curves.seeds_of(LEARNED) == "2 seeds"
    assert learning_curves.seeds_of(LEARNED.assign(seed=7)) == "1 seed"


def test_errors_over_materials_weigh_frames_by_their_labels():
    every = small_frames(24)
    small, large = (np.flatnonzero(every.crystals.n_atoms == n)[0] for n in (2, 4))
    two = with_labels(every.take([small, large]), material_ids=np.array(["a", "b"]))
    seen = [off_by(two, [0.010, -0.030], [0.1, 0.4])]
    energy, force = (learning_curves.error_of(seen, metric) for metric in ("energy", "force"))
    assert energy.value == pytest.approx(20)
    assert energy.interval is None  # of two materials
    assert force.value == pytest.approx(300, rel=1e-5)  # (2 · 100 + 4 · 400) / 6


def test_an_error_over_materials_and_seeds_is_the_same_in_whatever_order_the_seeds_come():
    frames = small_frames(12)
    two_each = with_labels(frames, material_ids=np.array([f"m{k // 2}" for k in range(12)]))
    low, high = (off_by(two_each, np.repeat([0.01, 0.03], 6) * k, np.full(12, 0.05)) for k in (1, 2))
    alone = learning_curves.error_of([low], "energy")
    assert alone.value == pytest.approx(20)
    assert alone.low < 20 < alone.high
    both, turned = (learning_curves.error_of(several, "energy") for several in ([low, high], [high, low]))
    assert both.value == pytest.approx(30)
    assert both.interval == pytest.approx(turned.interval)
    assert both.high - both.low > alone.high - alone.low  # runs that differ widen it
    assert learning_curves.error_of([low, high], "force").interval == pytest.approx((50, 50), rel=1e-5)


# --- with models ---


@pytest.fixture(scope="module")
def small():
    """Two sizes of transfer on a handful of the smallest frames."""
    given = {"seed": 0, "n_seeds": 1, "sizes": [2, 4], "n_validation": 3, "max_atoms": 2, "max_steps": 1}
    given |= {"batch_size": 2, "learning_rate": 1e-3, "n_looks": 1, "curves": ["transfer"]}
    frames, pool, validation, sizes, references = plan_scaling(open_dataset("pbe-r2scan"), given)
    units = scaling_units(frames, pool, validation, references, given | {"sizes": sizes})
    free = untrained_units(pool, validation, references, given)
    done, without = (run_units(list(several.values()), frames) for several in (units, free))
    return SimpleNamespace(
        frames=frames,
        held_out=(held_out := frames.take(validation)),
        free=free,
        units=units,
        done=done,
        seen=learning_curves.predictions(units, done, held_out),
        untrained=dict(zip(free, without, strict=True)),
        at_start=learning_curves.predictions(free, without, held_out),
    )


def test_untrained_rows_share_their_forces_and_zero_is_among_them(small):
    assert learning_curves.counted(small.held_out).startswith("3 frames of ")
    assert list(small.untrained) == ["refitted", "model-aware"]  # the pretrained model as it comes is the start already
    at_zero = learning_curves.errors_at_zero(small.untrained, small.held_out)
    assert at_zero.loc["refitted", "force"] == at_zero.loc["model-aware", "force"]
    assert np.isnan(at_zero.loc["predict zero", "energy"])
    labels = np.abs(small.held_out.forces_ev_per_a.astype(float)).mean()
    assert at_zero.loc["predict zero", "force"] == pytest.approx(1000 * labels)


def test_runs_are_the_last_rows_of_their_histories_and_are_recorded(small, tmp_path):
    runs = learning_curves.last_errors(small.seen, small.done, small.frames, 2)
    errors = learning_curves.short(runs)
    assert errors["n"].tolist() == [2, 4]
    column = "validation_energy_mae_mev_per_atom"
    assert errors["energy"].tolist() == [run.history[column].iloc[-1] for run in small.done]
    assert {"train_energy_mae_mev_per_atom", "train_force_mae_mev_per_a"} <= set(runs.columns)
    assert learning_curves.mean_errors(errors).columns.tolist() == [
        "energy (meV/atom), transfer",
        "force (meV/Å), transfer",
    ]
    last, own = small.done[-1], runs.iloc[-1]
    some = np.random.default_rng(int(own["seed"])).permutation(last.split["train"])[:2]
    refitted = refit_references(last.last_model, small.frames.take(some))
    by_hand = evaluate(refitted, small.frames.take(last.split["validation"]))["energy_mae_mev_per_atom"]
    assert own["refitted"] == pytest.approx(by_hand, rel=1e-4)
    assert learning_curves.mean_refitted(runs).loc[4, "transfer"] == own["refitted"]

    at_zero = learning_curves.errors_at_zero(small.untrained, small.held_out)
    results = LessonResults("07_scaling_laws", tmp_path)
    learning_curves.record_refitted(results, runs)
    largest, note = list(small.seen.values())[-1:], {"n_pool": len(small.free["refitted"].split["train"]), "n_steps": 1}
    learning_curves.record_errors(
        results,
        at_zero,
        small.at_start,
        errors,
        {"transfer": largest},
        **note,
    )
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert found["energy_largest_transfer"]["value"] == pytest.approx(errors["energy"].iloc[-1])
    assert found["energy_largest_transfer"]["interval"] is None  # three validation materials
    assert found["force_n0_refitted"]["value"] == at_zero.loc["refitted", "force"]
    assert found["refitted_largest_transfer"]["value"] == pytest.approx(own["refitted"])


def test_a_run_at_the_schedules_own_rates_is_the_run_itself(small):
    (unit,) = units_at_chgnets_rates(small.units)
    assert unit.learning_rates[0] == 1e-3  # one step, at the first rate
    assert identify(unit, small.frames) != identify(replace(unit, learning_rates=None), small.frames)
    done = run_units([unit], small.frames)
    seen = learning_curves.predictions({("transfer", 2, 0): unit}, done, small.held_out)
    again = learning_curves.last_errors(seen, done, small.frames, 2)
    ours = learning_curves.short(learning_curves.last_errors(small.seen, small.done, small.frames, 2))
    changes = learning_curves.schedule_changes(learning_curves.short(again), ours[ours["n"] == 2])
    assert changes.loc[0].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_references_of_a_few_frames_are_fitted_to_the_smallest_subset(small):
    few = unit_of_few(small.units, small.free)
    assert len(few.split["train"]) == 2
    assert np.array_equal(few.split["validation"], small.free["refitted"].split["validation"])
    (run,) = run_units([few], small.frames)
    assert "2 training frames" in run.references.source


def test_an_exponent_whose_interval_holds_zero_is_no_law():
    flat = curves((60, 58, 61), (65, 50, 40))
    laws, reasons = learning_curves.fit_laws(flat, AT_ZERO.assign(energy=1000.0, force=1000.0), ["transfer"], **OPTIONS)
    assert laws["energy", "transfer"] is None
    assert "the error may not fall at all" in reasons["energy", "transfer"]


def test_scratch_and_transfer_are_compared_frame_by_frame(small, tmp_path):
    untrained = small.untrained
    results = LessonResults("07_scaling_laws", tmp_path)
    last = list(small.seen.values())[-1]
    finals = {"transfer": [last], "scratch": [last]}
    learning_curves.record_pairs(results, finals, small.at_start)
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert found["energy_scratch_minus_transfer"]["value"] == found["force_scratch_minus_transfer"]["value"] == 0
    own = small.done[-1].history["validation_energy_mae_mev_per_atom"].iloc[-1]
    free = untrained["refitted"].history["validation_energy_mae_mev_per_atom"].iloc[0]
    assert found["energy_transfer_minus_n0"]["value"] == pytest.approx(own - free, abs=0.1)
    force = small.done[-1].history["validation_force_mae_mev_per_a"].iloc[-1]
    zero = learning_curves.zero_errors(small.held_out)["force_mae_mev_per_a"]
    assert found["force_scratch_minus_zero"]["value"] == pytest.approx(force - zero, abs=0.1)
    assert "energy_scratch_minus_zero" not in found
    assert learning_curves.record_pairs(results, {"transfer": []}, small.at_start) is None


def test_what_is_kept_of_a_unit_is_enough_for_all_that_is_recorded(small, tmp_path):
    """With `keep_runs`, a lesson reads whole units, which hold predictions and no model."""
    for planned in (small.units, small.free):
        run_units(list(planned.values()), small.frames, tmp_path)
    kept = run_units(list(small.units.values()), small.frames, tmp_path)
    without = run_units(list(small.free.values()), small.frames, tmp_path)
    at_start = learning_curves.predictions(small.free, without, small.held_out)
    seen = learning_curves.predictions(small.units, kept, small.held_out)
    runs = learning_curves.last_errors(seen, kept, small.frames, 2)
    expected = learning_curves.last_errors(small.seen, small.done, small.frames, 2)
    pd.testing.assert_series_equal(runs["refitted"], expected["refitted"], rtol=1e-4)
    untrained = dict(zip(small.free, without, strict=True))
    at_zero = learning_curves.errors_at_zero(untrained, small.held_out)
    results, note = LessonResults("07_scaling_laws", tmp_path), {"n_pool": 4, "n_steps": 1}
    last = list(seen.values())[-1:]
    errors = learning_curves.short(runs)
    learning_curves.record_errors(results, at_zero, at_start, errors, {"transfer": last}, **note)
    learning_curves.record_pairs(results, {"transfer": last, "scratch": last}, at_start)
    assert {"energy_n0_model_aware", "force_scratch_minus_n0"} <= {r["key"] for r in results.to_dict()["results"]}


def test_laws_and_factors_are_recorded_where_there_are_any():
    results = LessonResults("07_scaling_laws")
    laws, _ = learning_curves.fit_laws(LEARNED, AT_ZERO, ["transfer", "scratch"], **OPTIONS)
    factors, limits, _ = worth(LEARNED)
    learning_curves.record_laws(results, laws | {("energy", "model-aware"): None})
    learning_curves.record_worth(results, factors, limits, LEARNED)
    changes = pd.DataFrame({"energy": [-5.0, -1.0], "force": [1.0, 3.0]})
    unit = SimpleNamespace(split={"train": np.arange(16)}, settings=SETTINGS, learning_rates=[1e-3, 9e-4])
    learning_curves.record_schedule(results, changes, unit)
    found = {one["key"]: one for one in results.to_dict()["results"]}
    assert found["energy_exponent_transfer"]["note"] == "N from 10 to 1000, R² = 1.00; 95 % interval"
    assert "energy_exponent_model_aware" not in found
    assert found["energy_factor_at_least"]["value"] == 10
    assert found["schedule_energy"]["interval"] == (-5.0, -1.0)
    assert found["schedule_final_rate"]["value"] == 90


# --- have they arrived? ---


def looked_at(*errors):
    steps = np.arange(len(errors)) * 10
    table = {"step": steps, "validation_energy_mae_mev_per_atom": errors, "validation_force_mae_mev_per_a": 7.0}
    return SimpleNamespace(history=pd.DataFrame(table))


def test_curves_that_still_fall_in_their_last_fifth_are_named_and_the_largest_n_is_recorded():
    runs = {("transfer", 8, 0): looked_at(9, 8, 7, 7, 7, 7), ("transfer", 32, 0): looked_at(9, 8, 7, 7, 7, 7)}
    runs |= {("scratch", 8, 0): looked_at(9, 8, 7, 7, 10, 9), ("scratch", 32, 0): looked_at(9, 8, 7, 7, 10, 5)}
    runs |= {("scratch", 32, 1): looked_at(9, 8, 7, 7, 10, 9)}
    results = LessonResults("07_scaling_laws")
    said = learning_curves.record_last_fifths(results, runs, runs.values())
    assert "the energy error still falls by more than 5% for scratch at N = 8 (10%) and scratch at N = 32 (30%)" in said
    assert "no force error falls by more than 5%" in said
    found = {one["key"]: one for one in results.to_dict()["results"]}
    scratch = found["energy_last_fifth_scratch"]
    assert (scratch["value"], *scratch["interval"]) == pytest.approx((30, 10, 50))
    assert (found["energy_last_fifth_transfer"]["value"], found["energy_last_fifth_transfer"]["interval"]) == (0, None)
    assert {key.rpartition("_")[2] for key in found} == {"transfer", "scratch"}


def test_runs_that_were_looked_at_four_times_have_no_last_fifth():
    results = LessonResults("07_scaling_laws")
    said = learning_curves.record_last_fifths(results, {("transfer", 8, 0): None}, [looked_at(9, 8, 7, 6, 5)])
    assert "fewer than 5 times (`n_looks`)" in said
    assert not results.to_dict()["results"]
