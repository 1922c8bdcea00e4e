"""What is gained and lost: the figures of lesson 9 and the numbers behind them, from tables of a few rows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small_frames import small_frames

import crossfunc as xf
from crossfunc.bootstrap import Estimate
from crossfunc.lessons import LessonResults, figures, forgetting
from crossfunc.lessons.declared import read_declarations
from crossfunc.lessons.figures.forgetting import LOOKS, draw_plane
from crossfunc.lessons.judging import REFITTED
from crossfunc.lessons.profiles import load_profile, resolve_parameters
from crossfunc.lessons.sources import find_lessons, own_lessons, select_lessons
from crossfunc.potential import element_references
from crossfunc.potential.direct import DirectModel
from crossfunc.training import start_model
from crossfunc.training.dimers import DIMERS_FILE
from crossfunc.training.forgetting import COLUMNS, COUNTS
from crossfunc.training.methods import find_method
from crossfunc.training.source import FORMS, KINDS
from crossfunc.training.units import identify, run_unit

pytestmark = pytest.mark.usefixtures("fresh_style")


POINTS = pd.DataFrame(
    {
        "method": ["pretrained", "4", "4"],
        "target_energy": [100.0, 50.0, 60.0],
        "source_energy": [0.0, 20.0, 30.0],
        "target_force": [90.0, 80.0, 70.0],
        "source_force": [1.0, 2.0, 3.0],
    }
)


def test_every_method_has_a_name_and_a_look():
    assert set(LOOKS) == set(forgetting.NAMES) == {*forgetting.UNTRAINED, *forgetting.CASES}


def test_gained_and_lost_is_energies_beside_forces_one_legend_for_both():
    energies, forces = figures.gained_and_lost(POINTS, forgetting.NAMES).axes
    drawn = [collection.get_offsets().tolist() for collection in energies.collections]
    assert drawn == [[[100, 0]], [[50, 20], [60, 30]]]
    assert [c.get_offsets().tolist() for c in forces.collections] == [[[90, 1]], [[80, 2], [70, 3]]]
    assert energies.get_legend() is None
    assert [t.get_text() for t in forces.get_legend().get_texts()] == ["pretrained, not trained", "Method 4"]
    assert energies.get_xlabel() == "energy error, target (meV/atom)"
    low, high = energies.get_ylim()
    assert low <= 0  # an error of zero is on the axis
    assert high > 30  # and so is the largest
    assert not forces.lines
    zero = {"target_force": 120.0, "source_force": 40.0}
    _, forces = figures.gained_and_lost(POINTS, forgetting.NAMES, zero).axes
    upright, level = forces.lines
    assert (upright.get_xdata()[0], level.get_ydata()[0]) == (120, 40)
    assert forces.get_legend().get_texts()[-1].get_text() == "no force predicted"


def test_a_plane_is_linear_over_a_small_span_and_each_method_has_its_own_marker():
    ax = plt.subplots()[1]
    points = POINTS.assign(method=["4", "lora", "4"], near=[20.0, 30.0, 50.0], wide=[2.0, 20.0, 300.0])
    assert draw_plane(ax, points, names=forgetting.NAMES, x="near", y="wide") is ax
    four, lora = ax.collections
    assert four.get_offsets().tolist() == [[20, 2], [50, 300]]
    assert lora.get_offsets().tolist() == [[30, 20]]
    assert [c.get_label() for c in ax.collections] == [forgetting.NAMES["4"], forgetting.NAMES["lora"]]
    assert mpl.colors.same_color(lora.get_facecolor()[0], figures.COLORS[LOOKS["lora"][0]])
    assert not np.array_equal(four.get_paths()[0].vertices, lora.get_paths()[0].vertices)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    reaching_zero = plt.subplots()[1]
    draw_plane(reaching_zero, points.assign(wide=[0.0, 0.2, 3.0]), names=forgetting.NAMES, x="wide", y="near")
    assert (reaching_zero.get_xscale(), reaching_zero.get_yscale()) == ("symlog", "linear")


def test_lost_by_kind_has_the_first_method_on_top():
    table = pd.DataFrame({"near": [1.0, 2.0], "far": [10.0, 20.0]}, index=["one", "two"])
    ax = figures.lost_by_kind(table)
    assert [(line.get_label(), line.get_xdata().tolist()) for line in ax.lines] == [("near", [1, 2]), ("far", [10, 20])]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two"]
    assert ax.yaxis_inverted()


def test_dimers_are_drawn_from_far_apart():
    curves = {"O–O": {"PBE": (np.array([1.0, 2.0]), np.array([-3.0, -1.0]))}}
    (ax,) = figures.dimer_curves(curves).axes
    assert ax.lines[0].get_ydata().tolist() == [-2, 0]
    assert ax.get_xlabel() == "O–O distance (Å)"


# --- the numbers ---


def run_of(model, energies, forces, materials=tuple("abcdef")):
    """A run as far as `Learned` looks at it: its model, and what it has forgotten."""
    kinds = ["near"] * (len(materials) - 1) + ["dimers"]
    each = {"kind": kinds, "material_id": materials, COLUMNS[0]: energies, COLUMNS[1]: forces}
    errors = pd.DataFrame(each | {"n_energies": 1, "n_force_components": [3, 6, 9, 12, 15, 6]})
    means = {c: errors.groupby("kind").apply(lambda g, c=c: np.average(g[c], weights=g[COUNTS[c]])) for c in COUNTS}
    rows = pd.DataFrame(means).add_suffix("_after").join(errors.groupby("kind")[[*COUNTS.values()]].sum())
    for column in COUNTS:
        rows[f"{column}_before"] = 0.0
    rows[f"{COLUMNS[1]}_zero"] = 50.0
    rows["n_frames"] = errors.groupby("kind").size()
    return SimpleNamespace(model=model, forgetting=SimpleNamespace(table=rows, frame_errors=errors))


@pytest.fixture(scope="module")
def learned():
    frames = small_frames()
    rows = np.arange(len(frames))
    splits = {0: {"train": rows[::2], "validation": rows[:1], "test": rows[1::2]}}
    model = xf.load_model("0.3.0")
    other = xf.load_model("r2scan")
    before = run_of(xf.start_model("model-aware", frames.take(rows[::2])).model, [9.0] * 6, [9.0] * 6)
    runs = {
        ("pretrained", 0): before,
        ("taught start", 0): SimpleNamespace(model=None, forgetting=None),  # no method
        ("l2-sp, stiff", 0): SimpleNamespace(model=None, forgetting=None),
        ("4", 0): run_of(model, [4.0, 4, 4, 4, 4, 900], [8.0] * 6),
        ("replay", 0): run_of(other, [1.0, 1, 1, 1, 6, 900], [7.0] * 6),
        ("ewc", 0): run_of(other, [1.0] * 6, [10.0, 9, 8, 7, 6, 5]),
    }
    return forgetting.Learned(runs, frames, splits)


def test_points_hold_the_pretrained_model_first_and_no_dimers(learned):
    points = learned.points.set_index("method")
    assert list(points.index) == ["pretrained", "4", "replay", "ewc"]
    assert points["source_energy"].tolist() == [0, 4, 2, 1]  # before training; then means without the dimer
    assert points["source_force"].tolist()[:3] == [0, 8, 7]
    assert points.loc["4", "target_force"] != points.loc["replay", "target_force"]
    refitted = learned._judged.scores[REFITTED]
    assert points["target_refitted"].to_dict() == {name: refitted[name, 0] for name in points.index}
    assert learned.by_kind.to_dict() == {"near": {"4": 4.0, "replay": 2.0, "ewc": 1.0}}
    ranges = learned.ranges()
    assert ranges.loc["Method 4", "source energy"] == "4 (4–4)"
    test = learned._judged.frames.take(learned.splits[0]["test"])
    of_target = 1000 * np.nanmean(np.abs(test.forces_ev_per_a))
    assert learned.zero == {"target_force": pytest.approx(of_target, rel=1e-5), "source_force": 50}
    assert ranges.loc["predicting no force"].tolist() == ["–", "–", f"{of_target:.0f}", "50", "–"]


def test_what_methods_lost_on_dimers_is_a_table_with_the_start_first(learned):
    table = learned.dimers
    assert list(table.index) == ["before training", "Method 4", "replay", forgetting.NAMES["ewc"]]
    assert table["energy"].tolist() == [0, 900, 900, 1]
    assert table["force"].tolist() == [0, 8, 7, 5]


def test_all_that_pages_may_quote_is_recorded_under_declared_keys(learned):
    results = LessonResults("09_what_is_forgotten", None, xf.open_dataset("pbe-r2scan"))
    forgetting.record_errors(results, learned)
    forgetting.record_differences(results, learned)
    found = {one["key"]: one for one in results.to_dict()["results"]}
    names = {"target_energy", "target_force", "source_energy", "source_force"}
    errors = {f"{name}_{key}" for name in (*names, "target_refitted") for key in ("pretrained", "4", "replay", "ewc")}
    zero = {"target_force_zero", "source_force_zero"}
    assert set(found) == errors | zero | {f"{name}_{key}_minus_4" for name in names for key in ("replay", "ewc")}
    assert found["source_energy_replay_minus_4"]["value"] == -2
    assert found["source_force_ewc_minus_4"]["value"] == pytest.approx((30 + 54 + 72 + 84 + 90) / 45 - 8)
    promised = set(read_declarations(own_lessons() / "results.yml")["09_what_is_forgotten"])
    later = [key.replace("-", "_") for key in (*forgetting.LATER, forgetting.RIDGE)]
    assert promised >= {f"{name}_{key}_minus_4" for name in names for key in later}
    methods = [key.replace("-", "_") for key in (*forgetting.UNTRAINED, *forgetting.CASES)]
    assert promised >= {f"{name}_{key}" for name in (*names, "target_refitted") for key in methods}


def test_a_claim_without_source_frames_far_from_training_is_unclear_and_not_recorded(learned, monkeypatch):
    monkeypatch.setattr(forgetting, "PUBLISHED", {"replay": "source", "ewc": "target"})
    monkeypatch.setattr(forgetting, "PLAIN", "4")
    results = LessonResults("a_lesson_of_its_own", None, xf.open_dataset("pbe-r2scan"))
    recorded = []
    monkeypatch.setattr(results, "record", lambda key, *_, **__: recorded.append(key))
    assert learned.far_kinds() == []
    table = forgetting.compare_published(results, learned)
    assert table.loc["energy in the source: replay"].tolist() == ["no such frames", "unclear"]
    assert recorded == ["target_energy_ewc_minus_plain", "target_force_ewc_minus_plain"]


def test_the_page_says_which_methods_still_fall():
    def run(*errors):
        steps = np.arange(len(errors)) * 10
        return SimpleNamespace(history=pd.DataFrame({"step": steps, f"validation_{forgetting.ENERGY}": errors}))

    runs = {("1", 0): run(100, 90, 80, 70, 60, 30), ("replay", 0): run(*[9] * 6), ("pretrained", 0): run(5)}
    results = LessonResults("09_what_is_forgotten", None, xf.open_dataset("pbe-r2scan"))
    said = forgetting.record_arrival(results, runs)
    assert "50% (Method 1 (scratch)), 0% (replay)" in said
    assert "the errors of Method 1 (scratch) measure the budget as well" in said
    found = {one["key"]: one["value"] for one in results.to_dict()["results"]}
    assert found == {"last_fifth_method_1": 50, "last_fifth_replay": 0}
    said = forgetting.record_arrival(LessonResults("09_what_is_forgotten"), {("replay", 0): run(*[9] * 6)})
    assert said.endswith("so this says that the schedule is over.")
    untold = "No method's runs were all validated 5 times"
    assert forgetting.record_arrival(results, {("pretrained", 0): run(5)}).startswith(untold)
    seldom = {("1", 0): run(100, 90, 80, 70), ("replay", 0): run(*[9] * 4)}  # six epochs, a look every two
    nothing = LessonResults("09_what_is_forgotten")
    assert forgetting.record_arrival(nothing, seldom).startswith(untold)
    assert nothing.to_dict()["results"] == []


def test_differences_are_paired_by_material(learned):
    found = learned.difference("source", "energy", "replay", "4")
    assert found.value == -2
    assert found.n_materials == 5
    assert found.verdict == "unclear"  # four gain three, one loses two
    assert learned.difference("source", "force", "replay", "4").interval == (-1, -1)
    force = learned.difference("target", "force", "replay", "4")
    points = learned.points.set_index("method")["target_force"]
    assert force.n_materials > 1
    assert np.isfinite(force.value)
    assert np.sign(force.value) == np.sign(points["replay"] - points["4"])


def test_a_difference_is_that_of_the_tabulated_errors(learned):
    """Forces by component: a frame of many atoms has many of them."""
    points = learned.points.set_index("method")
    for where in ("target", "source"):
        for what in ("energy", "force"):
            for one, other in (("ewc", "4"), ("replay", "ewc")):
                column = points[f"{where}_{what}"]
                found = learned.difference(where, what, one, other).value
                assert found == pytest.approx(column[one] - column[other], rel=1e-5), (where, what)
    by_frame = np.mean([10, 9, 8, 7, 6])
    assert points.loc["ewc", "source_force"] == pytest.approx((30 + 54 + 72 + 84 + 90) / 45)
    assert points.loc["ewc", "source_force"] != pytest.approx(by_frame)


def test_no_kinds_are_no_frames_and_not_all_of_them(learned):
    for kinds in ([], ["a kind that nobody has"]):
        found = learned.difference("source", "energy", "replay", "4", kinds)
        assert np.isnan(found.value)
        assert (found.n_materials, found.interval, found.verdict) == (0, None, "unclear")


def test_what_is_kept_far_from_training_is_judged_there_alone(learned):
    tables = [run.forgetting.frame_errors for run in learned.runs.values()]
    before = [table["kind"].copy() for table in tables]
    try:
        for table in tables:
            table["kind"] = [KINDS[0], KINDS[0], KINDS[1], KINDS[3], KINDS[3], "dimers"]
        assert learned.far_kinds() == [KINDS[1], KINDS[3]]
        found = learned.difference("source", "energy", "replay", "4", learned.far_kinds())
        assert (found.value, found.n_materials) == (pytest.approx((1 - 4 + 1 - 4 + 6 - 4) / 3), 3)
    finally:
        for table, kinds in zip(tables, before, strict=True):
            table["kind"] = kinds


def test_a_method_is_named_best_only_where_both_differences_are_clear(learned, monkeypatch):
    verdicts = {("energy", "target"): -1.0, ("energy", "source"): -1.0, ("force", "target"): -1.0}

    def difference(where, what, _one, _other, _kinds=None):
        value = verdicts.get((what, where), 0.0)
        return Estimate(value, value - 0.5, value + 0.5, 9)

    monkeypatch.setattr(learned, "difference", difference)
    assert learned.better_than("4", "energy") == {"replay": "better, better", "ewc": "better, better"}
    said = forgetting.best_in_words(learned)
    assert (
        "**Energy**: clearly lower than Method 4 in target *and* source: elastic weight consolidation and replay."
        in said
    )
    assert "**Force**: no method is clearly lower than Method 4 in target *and* source; in one" in said


def test_a_choice_names_the_lowest_error_and_all_that_cannot_be_told_from_it(learned):
    table = forgetting.choices(learned)
    assert list(table.index) == ["energy, target", "force, target", "energy, source", "force, source"]
    names = forgetting.NAMES
    assert table.loc["energy, source"].tolist() == [names["ewc"], "replay"]  # 1 against 2, and the interval holds zero
    assert table.loc["force, source"].tolist() == ["replay", names["ewc"]]  # Method 4 is higher on every material


def test_validation_and_test_hold_no_element_that_training_lacks():
    target = xf.LabelledFrames.from_dataset(xf.open_dataset("pbe-r2scan"), "high")
    for split in forgetting.split_frames(target, range(3), 96, 32).values():
        known = np.asarray((target.composition[split["train"]] > 0).sum(axis=0)).ravel() > 0
        for part in ("validation", "test"):
            assert not np.asarray(target.composition[split[part]] @ ~known).any()


SMALL = {
    "seed": 3,
    "n_seeds": 2,
    "n_train": 12,
    "n_eval": 4,
    "n_source": 24,
    "max_atoms": 2,
    "n_start_epochs": 1,
    "n_epochs": 1,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "n_jobs": 1,
    "keep_runs": True,
}


@pytest.fixture(scope="module")
def dimers(tmp_path_factory):
    """A folder that holds the curves of dimers."""
    folder = tmp_path_factory.mktemp("dimers")
    curve = [(1.2, -10.0), (2.0, -6.0)]
    dimers_at(folder / DIMERS_FILE, O_O=curve, Fe_Fe=curve, Na_Na=curve)
    return folder


@pytest.fixture
def planned(dimers, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(dimers))
    return forgetting.plan_runs(xf.open_dataset("pbe-r2scan"), SMALL)


def test_a_seed_has_a_unit_for_each_case_and_all_differ_in_the_method_alone(planned):
    assert {seed for _, seed in planned.units} == set(planned.splits) == {3, 4}
    cases = ["taught start", "pretrained", "references-only", "delta-ridge", *forgetting.CASES]
    assert [case for case, seed in planned.units if seed == 4] == cases
    assert [case for case, seed in planned.units if seed == 3] == [*cases, "l2-sp, stiff"]
    for (case, seed), unit in planned.units.items():
        start = planned.units["taught start", seed]
        if case == "taught start":
            assert unit.source is None
            assert unit.frames.fingerprint() != planned.target.fingerprint()  # the source's labels
            continue
        assert unit.start is start
        assert unit.split is planned.splits[seed]
        assert unit.source is planned.source
        untrained = case in forgetting.UNTRAINED
        method = case if case == "references-only" else "model-aware"
        assert (unit.method, unit.frozen) == (method, case == "delta-ridge") if untrained else True
        assert (unit.settings == {}) is untrained
    stiff, plain = planned.units["l2-sp, stiff", 3], planned.units["l2-sp", 3]
    assert (stiff.method, stiff.options) == ("l2-sp", {"strength": 100 * find_method("l2-sp").strategy.strength})
    assert plain.options == {}


def test_nothing_is_taught_where_no_epoch_is_asked_for(dimers, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(dimers))
    found = forgetting.plan_runs(xf.open_dataset("pbe-r2scan"), SMALL | {"n_start_epochs": 0, "n_seeds": 1})
    assert ("taught start", 3) not in found.units
    assert all(unit.start is None for unit in found.units.values())
    assert found.units["pretrained", 3].also is not None  # its dimers are those before training


def test_the_lessons_runs_are_read_back_from_small_files_and_say_the_same(planned, dimers, tmp_path, monkeypatch):
    some = ("taught start", "pretrained", "references-only", "delta-ridge", "3", "replay", "l2-sp, stiff")
    few = planned._replace(
        splits={3: planned.splits[3]},
        beyond=replace(planned.beyond, splits={3: planned.beyond.splits[3]}),
        units={(case, seed): unit for (case, seed), unit in planned.units.items() if case in some and seed == 3},
    )
    results = tmp_path / "results"
    made = forgetting.make_runs(few, SMALL | {"keep_runs": False}, results)  # models, kept nowhere
    kept = forgetting.make_runs(few, SMALL, results)
    folder = tmp_path / "units" / "09_what_is_forgotten"
    shutil.rmtree(folder / "runs")
    monkeypatch.setattr("crossfunc.training.fit.finetune", None)  # nothing is trained once more
    back = forgetting.make_runs(few, SMALL, results)
    tables, beyond = [], []
    for runs in (made, kept, back):
        learned = forgetting.Learned(runs, few.target, few.splits, few.beyond)
        beyond.append(learned.beyond.table())
        tables.append(learned.points.set_index("method"))
        for what in ("energy", "force"):
            column = tables[-1][f"source_{what}"]
            found = learned.difference("source", what, "replay", "3").value
            assert found == pytest.approx(column["replay"] - column["3"], rel=1e-3, abs=2e-4)  # kept to 1e-4
    assert list(tables[0].index) == ["pretrained", "references-only", "delta-ridge", "3", "replay"]
    assert beyond[0].notna().all(axis=None)
    assert list(beyond[0]) == ["energy", "force", "slope", "volume", "bulk"]
    for other in beyond[1:]:
        pd.testing.assert_frame_equal(beyond[0], other, rtol=2e-3, atol=1e-3)
    plain = tables[2].loc["references-only"]
    for name in ("target_force", "source_energy", "source_force"):  # references alone
        assert plain[name] == pytest.approx(tables[2].loc["pretrained", name], rel=1e-3, abs=1e-2)
    assert abs(plain["target_energy"] - tables[2].loc["pretrained", "target_energy"]) > 1
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=2e-4)
    pd.testing.assert_frame_equal(tables[1], tables[2])
    assert back["3", 3].seconds_in_all > back["3", 3].seconds > 0
    before, after = (tables[2].loc[key, "target_force"] for key in ("pretrained", "delta-ridge"))
    assert after == pytest.approx(before, rel=1e-4)  # a ridge moves no force
    shown = {
        "before": forgetting.model_before(few, back, 3),
        "3": back["3", 3].model,
        "ridge": back["delta-ridge", 3].model,
    }
    curves = forgetting.curves_of_dimers(dimers / DIMERS_FILE, shown, ("O",))["O–O"]
    assert list(curves) == ["PBE", "before", "3"]  # the ridge was not asked about dimers, and is left out
    before = forgetting.model_before(few, made, 3)
    own = forgetting.curves_of_dimers(dimers / DIMERS_FILE, {"before": before}, ("O",))["O–O"]
    np.testing.assert_allclose(curves["before"][1], own["before"][1], atol=1e-4)


def test_a_unit_with_another_source_or_strength_is_another(planned):
    unit = planned.units["replay", 3]
    fewer = replace(unit, source=planned.source.take(np.arange(10)))
    stronger = replace(unit, options={"n_frames": 3})
    frozen = replace(unit, frozen=True)
    unnamed = replace(unit, prototypes=None)
    named = {identify(u, planned.target) for u in (unit, fewer, stronger, frozen, unnamed)}
    assert len(named) == 5
    assert identify(replace(unit, also=planned.target), planned.target) == identify(unit, planned.target)


def test_source_frames_fill_up_where_the_target_has_all_materials():
    dataset = xf.open_dataset("pbe-r2scan")
    target, source = forgetting.draw_frames(dataset, "pbe", n_wanted=16, n_source=20, max_atoms=2, seed=0)
    assert len(source) == 20
    assert len(set(source.material_ids) - set(target.material_ids)) > 0
    assert max(target.crystals.n_atoms) <= 2


@pytest.mark.parametrize("profile", ["laptop", "converged"])
def test_every_seed_is_judged_near_training_and_far_from_it(profile):
    """The claim on replay is about frames far from training; of other chemistry alone a seed may have none."""
    folder = Path(__file__).parents[1] / "notebooks"
    (lesson,) = select_lessons(find_lessons(folder), ["09"])
    parameters = resolve_parameters(lesson, load_profile(folder, profile))
    planned = forgetting.plan_runs(xf.open_dataset(parameters["dataset"]), parameters)
    for seed in planned.splits:
        held_out = planned.origin(seed).held_out
        assert {KINDS[0], FORMS[0], KINDS[-1]} <= set(held_out) <= set(KINDS) - {FORMS[1]}
        assert len(np.unique(held_out[FORMS[0]].material_ids)) >= 10
        trained = set(planned.target.material_ids[planned.splits[seed]["train"]])
        of_trained = {planned.prototypes[m] for m in trained if m in planned.prototypes}
        assert not of_trained & {planned.prototypes[m] for m in held_out[FORMS[0]].material_ids}


def test_source_cells_may_be_larger_than_the_targets_and_never_smaller():
    dataset, options = xf.open_dataset("pbe-r2scan"), {"n_wanted": 16, "n_source": 1000, "seed": 0}
    target, source = forgetting.draw_frames(dataset, "pbe", max_atoms=3, **options)
    assert (max(target.crystals.n_atoms), max(source.crystals.n_atoms)) == (3, forgetting.SOURCE_MAX_ATOMS)
    _, source = forgetting.draw_frames(dataset, "pbe", max_atoms=1000, **options)
    assert max(source.crystals.n_atoms) > forgetting.SOURCE_MAX_ATOMS


def test_splits_keep_materials_apart():
    frames = small_frames()
    for parts in forgetting.split_frames(frames, range(2), 4, 2).values():
        materials = [set(frames.material_ids[rows]) for rows in parts.values()]
        assert not materials[0] & materials[1] | materials[0] & materials[2] | materials[1] & materials[2]


def dimers_at(path, **curves):
    """Write the PBE curves of dimers, of (distance in Å, total energy in eV) and no force."""

    def of(points):
        distances, energies = zip(*points, strict=True)
        n = len(points)
        return {"distances": distances, "energies": energies, "forces": [[[0] * 3] * 2] * n, "magmoms": [None] * n}

    path.write_text(json.dumps({"PBE": {name.replace("_", "-"): of(points) for name, points in curves.items()}}))
    return path


def test_a_ridge_is_fitted_to_the_training_frames_beside_the_units_own_start(planned):
    unit = replace(planned.units["delta-ridge", 3], start=None)
    run = run_unit(unit, planned.target, None, xf.load_model("r2scan"))
    train = planned.target.take(unit.split["train"])
    aware = start_model("model-aware", train, pretrained="r2scan").model
    np.testing.assert_array_equal(element_references(run.model.network), element_references(aware))
    assert run.model.correction.n_crystals == len(train)
    table = run.forgetting.table
    assert table.loc["dimers", "n_frames"] == 6
    before, after = (table[f"{forgetting.FORCE}_{when}"].tolist() for when in ("before", "after"))
    assert after == pytest.approx(before, rel=1e-6, nan_ok=True)


class Constant(DirectModel):
    """Predicts one energy for every crystal, eV/atom."""

    def __init__(self, energy_per_atom_ev):
        self.energy = energy_per_atom_ev

    def predict(self, crystals, *, derivatives=True, strict=True, progress=False):
        assert not derivatives
        return {"energy_per_atom_ev": np.full(len(crystals), self.energy) - np.arange(len(crystals)), "refused": {}}


def test_curves_of_dimers_are_total_energies_against_the_distance(tmp_path):
    of_oxygen = [(1.2, -10.0), (2.0, -6.0), (4.5, -3.0)]
    path = dimers_at(tmp_path / "dimers.json", O_O=of_oxygen, Fe_Fe=[(2.5, -5.0)], Na_Na=[(3.0, 0.0)])
    curves = forgetting.curves_of_dimers(path, {"one": Constant(-1.0), "two": Constant(-4.0)}, ("O", "Fe"))
    assert list(curves) == ["O–O", "Fe–Fe"]
    assert list(curves["O–O"]) == ["PBE", "one", "two"]
    for label, energies in {"PBE": [-10, -6, -3], "one": [-2, -4, -6], "two": [-8, -10, -12]}.items():
        distance, energy = curves["O–O"][label]
        assert distance == pytest.approx([1.2, 2.0, 4.5])
        assert energy == pytest.approx(energies)
    assert [values.tolist() for values in curves["Fe–Fe"]["one"]] == [[pytest.approx(2.5)], [-2]]
