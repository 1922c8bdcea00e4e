"""Forecasts of errors: intervals on made-up curves of known laws, the stand-ins, and the kept test of all cases."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import crossfunc as xf
from crossfunc.advice import pilots
from crossfunc.advice.curves import EnergyTask, ForceTask, energy_task, halvings, learning_curve, mean_by_material
from crossfunc.advice.forecast import CALIBRATION, Calibration, SeenCurve, calibrate, fit_forecast
from crossfunc.bench import forecasts
from crossfunc.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "book" / "benchmarks" / "forecasts.json"
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import book_forecasts  # noqa: E402


def made_up_curves(n, seed, exponent=0.3, scatter=0.1, level=2.0):
    """Curves of power laws with scattered exponents, read off few materials."""
    rng = np.random.default_rng(seed)
    seen, ahead, truth = [], [], []
    for _ in range(n):
        b = exponent + scatter * rng.normal()
        m = int(rng.choice([10, 40, 80]))
        at = round(0.8 * m)
        error = 100.0 * rng.uniform(0.5, 2) * at**-b
        told = error * math.exp(math.sqrt(level / m) * rng.normal())
        seen.append(SeenCurve(at, told, b + 0.3 * rng.normal(), m))
        ahead.append(8 * at)
        truth.append(error * 8**-b)
    return seen, ahead, truth


def test_intervals_learnt_on_some_curves_hold_on_others():
    learnt = calibrate(*made_up_curves(200, seed=0))
    assert learnt.level == pytest.approx(2.0, rel=0.5)
    assert 0 <= learnt.slope < 0.5  # exponents seen are mostly noise here
    inside = [
        low <= truth <= high
        for one, n, truth in zip(*made_up_curves(400, seed=1), strict=True)
        for _, low, high in [fit_forecast(one, learnt).at(n)]
    ]
    assert 0.74 <= np.mean(inside) <= 0.86


def test_a_forecast_starts_at_what_was_seen_and_widens():
    forecast = fit_forecast(SeenCurve(64, 50.0, 0.3, 80), Calibration(0.3, 0.0, 1.0, 0.2, 1.3, 20))
    middle, low, high = forecast.at(64)
    assert middle == pytest.approx(50.0)
    assert low < 50.0 < high
    ratios = [b / a for _, a, b in (forecast.at(n) for n in (64, 128, 512))]
    assert ratios == sorted(ratios)
    assert forecast.at(512)[0] == pytest.approx(50.0 * 8**-0.3)


def test_materials_needed_are_those_at_which_the_error_is_reached():
    forecast = fit_forecast(SeenCurve(64, 50.0, 0.3, 80), Calibration(0.3, 0.0, 1.0, 0.1, 1.3, 20))
    middle, low, high = forecast.needed_for(30.0)
    assert forecast.at(middle)[0] == pytest.approx(30.0, rel=0.01)
    assert low < middle < high
    assert forecast.needed_for(60.0)[0] == 64  # there already
    flat = fit_forecast(SeenCurve(64, 50.0, 0.0, 80), Calibration(0.0, 0.0, 0.0, 0.02, 1.0, 20))
    assert math.isinf(flat.needed_for(1.0)[0])
    with pytest.raises(InputError, match="above zero"):
        forecast.needed_for(0.0)


def test_few_curves_teach_nothing():
    with pytest.raises(InputError, match="ten at least"):
        calibrate(*made_up_curves(5, seed=0))


@pytest.fixture(scope="module")
def smooth_task():
    """Energies that are a smooth function of the features: a stand-in learns them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    return EnergyTask(x, np.tanh(x[:, 0]) + 0.3 * x[:, 1], np.array([f"m{k}" for k in range(200)]), np.arange(200))


def test_a_learning_curve_falls_and_repeats_itself(smooth_task):
    curve = learning_curve(smooth_task, smooth_task.material_ids, halvings(200), n_draws=3)
    means = curve.table.groupby("n_materials")["error"].mean()
    assert list(means.index) == [20, 40, 80, 160]
    assert means.iloc[-1] < 0.6 * means.iloc[0]
    again = learning_curve(smooth_task, smooth_task.material_ids[::-1], halvings(200), n_draws=3)
    assert again.table.equals(curve.table)
    assert curve.seen.n == 160
    assert curve.seen.exponent > 0


def test_errors_of_a_material_are_averaged_in_the_order_of_the_ids():
    found = mean_by_material(np.array([1.0, 10.0, 3.0, 5.0]), np.array(["b", "a", "b", "b"]))
    assert found.tolist() == [10, 3]


def test_a_curve_needs_materials(smooth_task):
    with pytest.raises(InputError, match="5 materials"):
        learning_curve(smooth_task, smooth_task.material_ids[:5], [2, 4])


def test_references_of_an_energy_task_come_from_other_materials():
    rng = np.random.default_rng(1)
    X = np.zeros((60, 94))
    X[np.arange(60), rng.integers(3, 6, 60)] = 0.5
    X[np.arange(60), rng.integers(7, 9, 60)] += 0.5
    shift = rng.normal(0, 5, 94)
    ids = np.array([f"m{k // 2}" for k in range(60)])
    noise = 0.01 * rng.normal(size=60)
    task = energy_task(rng.normal(size=(60, 3)), X, X @ shift + noise, ids)
    assert np.abs(task.residual_ev).mean() < 0.05  # of 5 eV
    lonely = np.zeros((1, 94))
    lonely[0, 90] = 1.0  # an element of one material: nothing else fixes it
    features = rng.normal(size=(61, 3))
    with_lonely = energy_task(features, np.vstack([X, lonely]), np.append(X @ shift, -9.0), np.append(ids, "alone"))
    assert "alone" not in with_lonely.material_ids
    known = energy_task(
        features, np.vstack([X, lonely]), np.append(X @ shift, -9.0), np.append(ids, "alone"), np.full(94, -9.0)
    )
    assert known.residual_ev[known.material_ids == "alone"] == pytest.approx(0, abs=0.01)


def test_a_force_correction_finds_a_softening_and_turns_with_the_crystal():
    rng = np.random.default_rng(2)
    features, forces = rng.normal(size=(300, 5)), rng.normal(size=(300, 3))
    labels = (1.2 + 0.1 * features[:, :1]) * forces
    materials = np.repeat([f"m{k}" for k in range(30)], 10)
    task = ForceTask(features, forces, labels, materials)
    names = task.material_ids
    assert task.errors(names[:24], names[24:]).mean() < 5  # meV/Å; the model alone is off by some 170
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = ForceTask(features, forces @ turn, labels @ turn, materials)
    weights_see_the_same = turned._normal[names[0]][0]
    assert np.allclose(weights_see_the_same, task._normal[names[0]][0])


# --- the kept test ---


@pytest.fixture(scope="module")
def kept():
    return json.loads(KEPT.read_text(encoding="utf-8"))


def test_the_kept_cases_are_enough_and_the_coverage_is_what_they_say(kept):
    cases = kept["cases"]
    assert len(cases) >= 30
    assert {case["dataset"] for case in cases} == set(forecasts.DATASETS)
    assert all(case["n"] == kept["ahead"] * case["n_seen"] and case["n_pilot"] < case["n"] for case in cases)
    assert all(case["inside"] == (case["low"] <= case["found"] <= case["high"]) for case in cases)
    assert kept["coverage"]["altogether"]["n_inside"] == sum(case["inside"] for case in cases)
    assert kept["coverage"]["altogether"]["share_inside"] >= 0.7


def test_no_dataset_is_judged_with_what_it_taught(kept):
    cases = [
        forecasts.Case(
            one["dataset"], one["target"], one["materials"], one["pilot"],
            SeenCurve(one["n_seen"], one["error_seen"], one["exponent_seen"], one["n_pilot"]),
            one["n"], one["found"], one["n_judged"], one["unit"],
        )
        for one in kept["cases"]
    ]  # fmt: skip
    again = forecasts.judge(cases)
    for name, row in kept["coverage"].items():
        assert again["coverage"][name] == pytest.approx(row, rel=1e-12), name  # the last digit is the machine's
    for name, learnt in kept["calibration_without"].items():
        assert learnt["n_cases"] == sum(case.dataset != name for case in cases)
    changed = [case for case in cases if case.dataset != "surrogate"]
    assert asdict(forecasts._learn(changed)) == pytest.approx(kept["calibration_without"]["surrogate"])


def test_the_shipped_calibration_is_the_kept_one(kept):
    assert asdict(CALIBRATION) == pytest.approx(kept["calibration"], rel=1e-4)


def test_the_page_shows_every_case_that_missed(kept):
    text = "\n".join(book_forecasts.coverage_lines(kept))
    missed = [case for case in kept["cases"] if not case["inside"]]
    assert text.count(" with ") >= 2 * len(missed)
    for case in missed:
        assert f"{case['dataset']}, {case['target']}, {case['materials']}" in text


def test_the_figure_has_a_panel_for_each_target_and_a_point_for_each_case(kept):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context():
        figure, alt = book_forecasts.calibration_figure(kept)
        panels = {ax.get_title(): ax for ax in figure.axes}
        assert set(panels) == set(kept["targets"])
        for target, ax in panels.items():
            cases = [case for case in kept["cases"] if case["target"] == target]
            points = [line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1]
            assert points == [[case["found"], case["forecast"]] for case in cases]
        assert "logarithmic" in alt
        plt.close(figure)


# --- training beside the stand-in ---


class Learner:
    """Stands for fine-tuning: an error that falls with the materials, `better` than the stand-in."""

    def __init__(self, better):
        self.better = better

    def __call__(self, model, frames, task, train, held, *, n_epochs, seed):
        return self.better * float(task.errors(train, held, seed).mean()), 2.0, len(train)


def test_a_pilot_is_the_ratio_of_training_to_the_stand_in_on_the_same_materials(monkeypatch, smooth_task):
    task = smooth_task
    monkeypatch.setattr(pilots, "trained_error", Learner(0.5))
    pilot = pilots.run_pilot(None, None, task, task.material_ids[:40], n_epochs=5, n_draws=3)
    assert pilot.ratio == pytest.approx(0.5)
    assert pilot.error == pytest.approx(0.5 * pilot.stand_in)
    assert (pilot.seconds, pilot.n_train_frames, pilot.n_draws) == (6.0, 32.0, 3)


def test_training_is_judged_on_energies_without_references_and_on_materials_it_has_not_seen():
    dataset = xf.open_dataset("pbe-r2scan")
    every = xf.LabelledFrames.from_dataset(dataset, "high")
    frames = every.take(np.flatnonzero(every.crystals.n_atoms <= 2)[:40])
    model = xf.load_model("0.3.0")
    begun = xf.predict(model, frames.crystals, derivatives=False)["energy_per_atom_ev"]
    left = np.linspace(-0.02, 0.02, len(frames))
    rows = np.arange(1, len(frames))  # a task may have left frames out
    names = np.unique(frames.material_ids[rows])
    task = EnergyTask(np.zeros((len(rows), 1)), left[rows], frames.material_ids[rows], rows)
    train, held = names[:-2], names[-2:]
    error, seconds, n = pilots.trained_error(model, frames, task, train, held, n_epochs=1)
    assert n == np.isin(frames.material_ids[rows], train).sum()
    assert seconds > 0
    # The labels of the code are eV away; what references leave is 20 meV/atom at most, and an epoch is not much.
    assert np.abs(frames.energy_per_atom_ev - begun).mean() > 1
    assert 0 < error < 100


def test_forecasts_are_held_against_training_with_and_without_the_pilots_ratio():
    seen, flat = SeenCurve(8, 100.0, 0.0, 10), Calibration(0.0, 0.0, 1e-4, 0.02, 1.0, 20)
    half = pilots.Pilot(5, 3, 50.0, 100.0, 0.5, 6.0, 8.0)
    same = {"dataset": "a", "seen": seen, "pilot": half, "n": 64}
    cases = [same | {"draw": k, "found": found} for k, found in enumerate((50.1, 99.9, 49.9))]
    judged = forecasts.judge_trained(cases, {"a": flat})
    of = judged["coverage"]["altogether"]
    assert (of["stand-in"]["n_inside"], of["corrected"]["n_inside"]) == (1, 2)
    assert of["corrected"]["found_over_forecast"] == pytest.approx(50.1 / 50, rel=1e-6)
    assert judged["coverage"]["a"] == of
    assert "training, corrected" in forecasts.format_report(
        {"level": 0.8, "ahead": 8, "coverage": {}, "trained": judged}
    )
