"""Drawing of lessons 3, 4, 5 and 7: tables of a few rows in, axes out, every element where the number says."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from crossfunc.bootstrap import Estimate
from crossfunc.lessons import figures
from crossfunc.lessons.figures import dft, gradients, methods, references, scaling
from crossfunc.training import data_efficiency, fit_power_law


@pytest.fixture
def ax():
    figures.use_style()
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def corners_of(band):
    return {tuple(np.round(corner, 6).tolist()) for corner in band.get_paths()[0].vertices}


def test_histories_are_means_over_seeds_with_their_range(ax):
    table = pd.DataFrame(
        [("4", 0, 0, 10.0), ("4", 1, 0, 20.0), ("4", 0, 1, 4.0), ("4", 1, 1, 8.0)],
        columns=["method", "seed", "epoch", "validation"],
    ).assign(train=1.0)
    methods.draw_histories(ax, table, train="train")
    solid, dotted = ax.get_lines()
    assert solid.get_ydata().tolist() == [15.0, 6.0]
    assert dotted.get_linestyle() == ":"
    assert dotted.get_ydata().tolist() == [1.0, 1.0]
    assert ax.get_legend_handles_labels()[1] == ["Method 4"]
    with pytest.raises(figures.FigureError, match="no epoch has a validation error"):
        methods.draw_histories(ax, table.assign(validation=np.nan))


def test_the_band_of_a_history_is_the_range_over_seeds_at_each_epoch(ax):
    rows = [
        ("4", seed, epoch, value)
        for epoch, of in enumerate(((10, 20, 60), (4, 5, 12)))
        for seed, value in enumerate(of)
    ]
    methods.draw_histories(ax, pd.DataFrame(rows, columns=["method", "seed", "epoch", "validation"]))
    assert ax.get_lines()[0].get_ydata().tolist() == [30, 7]
    (band,) = ax.collections
    assert corners_of(band) == {(0, 10), (0, 60), (1, 4), (1, 12)}


def test_a_method_of_the_paper_has_its_own_look_and_a_variant_of_it_is_dashed():
    looks = [methods.look_of(method) for method in "1234"]
    assert [look["color"] for look in looks] == [figures.COLORS[f"method_{k}"] for k in (1, 2, 3, 4)]
    assert [look["marker"] for look in looks] == [figures.MARKERS[f"method_{k}"] for k in (1, 2, 3, 4)]
    assert {look["ls"] for look in looks} == {"-"}
    assert methods.look_of("3, no refit") == {"color": figures.COLORS["method_3"], "marker": "^", "ls": "--"}
    for other in ("model-aware", "5"):
        assert methods.look_of(other) == {"color": figures.COLORS["fit"], "marker": "^", "ls": "--"}


@pytest.mark.parametrize(
    ("span", "steps"), [((20, 150), [20, 50, 100]), ((20, 900), [30, 100, 300]), ((2, 3000), [10, 100, 1000])]
)
def test_few_labels_stand_on_an_axis_over_decades(ax, span, steps):
    ax.set_xlim(*span)
    assert methods.mark_decades(ax) is ax
    assert ax.get_xscale() == "log"
    ax.figure.canvas.draw()
    shown = [tick for tick in ax.get_xticks() if span[0] <= tick <= span[1]]
    assert shown == pytest.approx(steps)
    assert ax.xaxis.get_major_formatter()(300.0) == "300"
    assert ax.xaxis.get_minor_formatter()(40.0) == ""


def test_what_costs_no_training_is_a_named_line(ax):
    methods.draw_free(ax, {"predict zero": 200.0, "untrained": np.nan})
    (line,) = ax.get_lines()
    assert set(line.get_ydata()) == {200.0}
    assert [text.get_text() for text in ax.texts] == ["predict zero"]


def test_what_costs_no_training_is_named_on_the_side_where_no_curve_ends(ax):
    ax.set_yscale("log")
    ax.plot([0, 1], [900.0, 300.0])  # ends just above the first line, and far above the second
    ax.plot([0, 1], [900.0, 40.0])  # ends just below the second
    methods.draw_free(ax, {"refitted": 250.0, "model-aware": 50.0})
    assert [text.get_verticalalignment() for text in ax.texts] == ["top", "bottom"]
    assert [np.sign(text.xyann[1]) for text in ax.texts] == [-1, 1]
    bare = ax.figure.add_subplot()
    methods.draw_free(bare, {"predict zero": 200.0})
    assert [text.get_verticalalignment() for text in bare.texts] == ["bottom"]


def test_errors_have_a_dot_a_tick_for_the_paper_and_the_line_of_what_is_free(ax):
    rows = pd.DataFrame(
        {
            "value": [100.0, 30.0, np.nan],
            "low": [80.0, np.nan, np.nan],
            "high": [130.0, np.nan, np.nan],
            "trained": [False, True, True],
            "paper": [np.nan, 17.0, 26.0],
        },
        index=["model-aware", "Method 4", "Method 3"],
    )
    methods.draw_errors(ax, rows, free=50.0)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["model-aware", "Method 4", "Method 3"]
    assert len(ax.containers) == 2  # Method 3 has no value
    assert ax.containers[0].lines[0].get_markerfacecolor() == "white"
    ticks = [line for line in ax.get_lines() if line.get_marker() == "|" and line.get_markersize() == 12]
    assert [float(line.get_xdata()[0]) for line in ticks] == [17.0]
    assert any(list(line.get_xdata()) == [50.0, 50.0] for line in ax.get_lines())
    assert ax.get_ylim() == (2.5, -0.5)


def test_an_error_has_its_interval_from_end_to_end_and_none_where_it_is_not_known(ax):
    rows = pd.DataFrame(
        {"value": [100.0, 30.0, 9.0], "low": [80.0, 0.0, np.nan], "high": [150.0, 70.0, np.nan], "trained": True},
        index=["model-aware", "Method 4", "Method 3"],
    )
    methods.draw_errors(ax, rows.assign(paper=[np.nan, 6.0, np.nan]))
    ends = [segment.tolist() for one in ax.containers for bars in one.lines[2] for segment in bars.get_segments()]
    assert ends == [[[80, 0], [150, 0]], [[3, 1], [70, 1]]]  # for zero half of 6, the smallest number drawn


def test_an_interval_that_reaches_zero_ends_in_an_arrow_and_stretches_no_axis(ax):
    rows = pd.DataFrame(
        {"value": [100.0, 40.0], "low": [0.0, 30.0], "high": [130.0, 50.0], "trained": True, "paper": np.nan},
        index=["Method 3", "Method 4"],
    )
    methods.draw_errors(ax, rows, free=20.0)
    (arrow,) = (line for line in ax.get_lines() if line.get_marker() == "<")
    assert (float(arrow.get_xdata()[0]), float(arrow.get_ydata()[0])) == (10.0, 0.0)
    assert 1 < ax.get_xlim()[0] < 10


def test_parity_says_error_and_slope_and_is_never_flatter_than_it_is(ax):
    methods.draw_parity(ax, np.array([-1.0, 1.0]), np.array([-1.5, 1.5]), "3", "eV/Å", slope=1.5)
    assert ax.get_title(loc="left") == "Method 3\nMAE 0.5 eV/Å, slope 1.50"
    low, high = ax.get_ylim()
    assert low <= ax.get_xlim()[0]
    assert high >= ax.get_xlim()[1]


def test_blocks_that_moved_are_percent_and_the_published_checkpoint_is_among_them(ax):
    change = {"3": pd.DataFrame({"a": [0.01, 0.03], "b": [0.1, 0.1]}), "4": pd.DataFrame({"a": [0.02], "b": [0.05]})}
    methods.draw_moved(ax, change, pd.Series({"b": 0.12, "a": 0.08}))
    first = ax.containers[0].lines[0]
    assert first.get_xdata().tolist() == pytest.approx([2.0, 10.0])
    stars = next(line for line in ax.get_lines() if line.get_marker() == "*")
    assert stars.get_xdata().tolist() == pytest.approx([8.0, 12.0])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


# --- whole figures ---


@pytest.fixture
def close():
    figures.use_style()
    yield
    plt.close("all")


def test_a_quantity_without_labels_has_no_panel(close):
    table = pd.DataFrame([("4", 0, 0, 10.0), ("4", 0, 1, 4.0)], columns=["method", "seed", "epoch", "validation"])
    table["train"] = 1.0
    fig = methods.histories({"energy": table, "force": table.assign(validation=np.nan)})
    assert [ax.get_ylabel() for ax in fig.axes] == ["energy"]
    assert fig.axes[0].get_yscale() == "log"


def test_every_quantity_has_its_own_line_of_what_is_free(close):
    rows = pd.DataFrame(
        {"value": [3.0], "low": [2.0], "high": [4.0], "trained": [True], "paper": [np.nan]}, ["Method 4"]
    )
    fig = methods.errors_by_method({"energy": rows, "force": rows}, {"energy": np.nan, "force": 9.0})
    vertical = [[line for line in ax.get_lines() if list(line.get_xdata()) == [9.0, 9.0]] for ax in fig.axes]
    assert [len(lines) for lines in vertical] == [0, 1]
    assert [ax.get_xlabel() for ax in fig.axes] == ["energy", "force"]


def test_five_quantities_stand_in_two_rows_that_read_the_same_way(close):
    rows = pd.DataFrame(
        {"value": [3.0, 2.0], "low": np.nan, "high": np.nan, "trained": True, "paper": np.nan}, ["Method 3", "Method 4"]
    )
    names = ["energy", "after a last refit", "force", "stress", "magmom"]
    fig = methods.errors_by_method(dict.fromkeys(names, rows) | {"magmom": rows.assign(value=0.5)})
    assert [ax.get_xlabel() for ax in fig.axes] == names
    assert len({round(ax.get_position().y0, 3) for ax in fig.axes}) == 2
    assert len({ax.get_ylim() for ax in fig.axes}) == 1
    assert fig.axes[4].containers[0].lines[0].get_xdata().tolist() == [0.5]
    few = methods.errors_by_method(dict.fromkeys(names[:4], rows))
    assert len({round(ax.get_position().y0, 3) for ax in few.axes}) == 1
    assert fig.get_size_inches()[1] == 2 * few.get_size_inches()[1]
    many = methods.errors_by_method({"energy": pd.concat([rows] * 12)})
    assert many.get_size_inches()[1] > few.get_size_inches()[1]  # each method keeps its line


def test_parity_leaves_a_row_of_forces_out_where_there_are_none(close):
    some, none = (np.array([0.0, 1.0]), np.array([0.0, 2.0])), (np.array([]), np.array([]))
    with_forces = {(m, q): some for m in "34" for q in ("energy", "forces")}
    grid = methods.parity_grid(with_forces, {"3": 1.5, "4": np.nan})
    assert len(grid.axes) == 4
    for row in (grid.axes[:2], grid.axes[2:]):
        assert len({ends for ax in row for ends in (ax.get_xlim(), ax.get_ylim())}) == 1
    without = {(m, q): some if q == "energy" else none for m in "34" for q in ("energy", "forces")}
    assert len(methods.parity_grid(without, {"3": np.nan, "4": np.nan}).axes) == 2


def test_gradients_have_a_panel_for_each_layer_and_each_start(close):
    names = {"3": "GGA references", "4": "refitted", "model-aware": "model-aware"}
    rows = [
        {
            "start": s,
            "seed": 0,
            "layer": layer,
            "term": t,
            "fraction": f,
            "step": f * 10,
            "norm": k + f + 10 * (layer == "b"),
            "cosine_with_energy": 0.25 * k,
        }
        for k, s in enumerate(names, start=1)
        for layer in ("a", "b", "network")
        for t in ("total", "energy", "forces")
        for f in (0.0, 0.5)
    ]
    records = pd.DataFrame(rows)
    fig = gradients.layer_norms(records, ["a", "b"], names)
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["a", "b"]
    assert fig.axes[0].get_lines()[0].get_ydata().tolist() == [1.0, 1.5]
    assert fig.axes[1].get_lines()[0].get_ydata().tolist() == [11.0, 11.5]
    fig = gradients.term_norms(records, ["energy", "forces"], names)
    assert [ax.texts[0].get_text() for ax in fig.axes] == list(names.values())
    assert [line.get_label() for line in fig.axes[0].get_lines()] == ["energy", "forces"]
    assert [ax.get_lines()[1].get_ydata().tolist() for ax in fig.axes] == [[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]
    columns = pd.MultiIndex.from_product([["whole and forces"], ["mean", "min", "max"]])
    angles = pd.DataFrame([[0.5, 0.4, 0.8]] * 3, list(names), columns)
    fig = gradients.cosines(records, angles, ["a", "b"], names)
    left, right = fig.axes
    assert [one.lines[0].get_ydata().tolist() for one in left.containers] == [[k, k] for k in (0.25, 0.5, 0.75)]
    (bar,) = right.containers[0].lines[2]
    assert bar.get_segments()[0][:, 1] == pytest.approx([0.4, 0.8])
    assert right.containers[0].lines[0].get_ydata().tolist() == [0.5]


def test_cosines_have_the_standard_deviation_of_their_layer_on_either_side(close):
    """Of 0.1 and 0.5 the mean is 0.3, and the deviation of two is their distance over the square root of two."""
    names = {"3": "GGA references"}
    records = pd.DataFrame({"start": "3", "layer": ["a", "a", "b", "b"], "term": "forces"})
    columns = pd.MultiIndex.from_product([["whole and forces"], ["mean", "min", "max"]])
    angles = pd.DataFrame([[0.5, 0.4, 0.8]], ["3"], columns)
    fig = gradients.cosines(records.assign(cosine_with_energy=[0.1, 0.5, -0.2, 0.0]), angles, ["b", "a"], names)
    (bars,) = fig.axes[0].containers[0].lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends.mean(axis=1), [-0.1, 0.3])
    np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, [0.2 / np.sqrt(2), 0.4 / np.sqrt(2)])


def test_few_materials_show_each_prior(ax):
    same = {"published": 170.0, "table": 188.0}
    rows = [{"n": n, "draw": d, "refit": 900 / n, "trend": 700 / n, **same} for n in (10, 30) for d in (0, 1)]
    references.draw_few_materials(pd.DataFrame(rows), ax)
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.get_lines()}
    assert lines["model-aware, prior: published shift"] == [170.0, 170.0]
    assert lines["plain refit"] == [90.0, 30.0]
    assert len(ax.get_legend().get_texts()) == 4


def test_the_band_of_few_materials_leaves_a_tenth_of_the_draws_out_on_either_side(ax):
    """Of errors 100, 110 ... 200 in eleven draws a tenth lies below 110, nine tenths below 190; the mean is 150."""
    rows = [{"n": n, "draw": d, "refit": (100 + 10 * d) * 10 / n} for n in (10, 100) for d in range(11)]
    references.draw_few_materials(pd.DataFrame(rows).assign(trend=1.0, published=2.0, table=3.0), ax)
    assert ax.get_lines()[0].get_xydata().tolist() == [[10, 150], [100, 15]]
    bands = [corners_of(band) for band in ax.collections]
    assert bands == [
        {(10, 110), (10, 190), (100, 11), (100, 19)},
        {(10, 1), (100, 1)},
        {(10, 2), (100, 2)},
    ]  # and none for the table, which is fitted to nothing


def test_pulls_have_a_histogram_a_start_and_a_line_that_saturates(ax):
    gradients.draw_pulls(ax, {"refit": [0.01, 5.0], "GGA": [20.0]}, 0.1, {"refit": "C0", "GGA": "C1"})
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["refit", "GGA"]
    (right,) = [other for other in ax.figure.axes if other is not ax]
    pull = right.get_lines()[0]
    assert pull.get_ydata().max() == 1
    assert np.interp(0.05, pull.get_xdata(), pull.get_ydata()) == pytest.approx(0.5, abs=0.02)


def test_a_band_is_the_range_over_seeds_about_their_mean(ax):
    table = pd.DataFrame({"seed": [0, 1, 0, 1], "step": [0, 0, 5, 5], "norm": [1.0, 3.0, 10.0, 20.0], "other": 0.0})
    assert gradients.draw_band(ax, table, "step", "norm", "C3", "total") is ax
    (line,) = ax.get_lines()
    assert line.get_xydata().tolist() == [[0, 2], [5, 15]]
    assert (line.get_label(), line.get_color()) == ("total", "C3")
    (band,) = ax.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(0, 1), (0, 3), (5, 10), (5, 20)}
    assert len(ax.get_legend_handles_labels()[1]) == 1


def test_the_course_has_cosines_above_and_forces_below():
    figures.use_style()
    fig, axes = plt.subplots(2, 1)
    when = {"start": ["3"] * 2, "seed": [0, 0]}
    cosines = pd.DataFrame({**when, "fraction": [0.0, 1.0], "cosine_with_energy": [0.1, 0.2]})
    forces = pd.DataFrame({"start": ["3"] * 2, "seed": [0, 0], "epoch": [0, 1], "force": [110.0, 200.0]})
    gradients.draw_course(axes, cosines, forces, {"3": "C0"}, {"3": "GGA references"}, zero=300.0)
    assert axes[0].get_lines()[0].get_ydata().tolist() == [0.1, 0.2]
    free, course = axes[1].get_lines()
    assert set(free.get_ydata()) == {300.0}
    assert course.get_ydata().tolist() == [110.0, 200.0]
    plt.close(fig)


def test_a_curve_without_a_law_is_dotted_and_what_is_free_is_dashed(ax):
    runs = pd.DataFrame(
        {"method": ["transfer"] * 3 + ["scratch"] * 3, "n": [10, 100, 1000] * 2, "e": [60, 40, 20, 300, 200, 100]}
    )
    law = fit_power_law([10, 100, 1000], [60, 40, 20], n_bootstrap=50)
    scaling.draw_learning_curves(
        ax, runs, "e", {"transfer": law, "scratch": None}, {"model-aware": 66.0, "predict zero": 200.0}
    )
    dotted = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert [line.get_ydata().tolist() for line in dotted] == [[300.0, 200.0, 100.0]]
    labels = ax.get_legend_handles_labels()[1]
    assert "N = 0, model-aware" in labels
    assert "predict zero" in labels
    assert sum(label.startswith("b = ") for label in labels) == 1


def test_a_law_has_the_band_of_its_interval_over_the_sizes_it_was_fitted_to(ax):
    """A law of 1000/n from a fifth below to a quarter above: 80 to 125 at 10 frames, 0.8 to 1.25 at 1000."""
    law = SimpleNamespace(
        n=np.array([1000, 10, 100]),
        exponent=1.0,
        r2=0.5,
        predict=lambda n: 1000 / n,
        interval=lambda n: (800 / n, 1250 / n),
    )
    runs = pd.DataFrame({"method": "transfer", "n": [10, 1000], "e": [100.0, 1.0]})
    scaling.draw_learning_curves(ax, runs, "e", {"transfer": law}, {})
    (curve,) = (line for line in ax.get_lines() if line.get_label() == "b = 1.00, R² = 0.50")
    assert curve.get_xydata()[[0, -1]] == pytest.approx(np.array([[10, 100], [1000, 1]]))
    (band,) = ax.collections
    ends = {corner for corner in corners_of(band) if corner[0] in (10, 1000)}
    assert ends == {(10, 80), (10, 125), (1000, 0.8), (1000, 1.25)}


def test_worth_says_so_where_there_is_no_factor(ax):
    empty = pd.Series(dtype=float)
    scaling.draw_worth(ax, {"energy": None, "force": None}, {"energy": empty, "force": empty}, [10, 100])
    assert [text.get_text() for text in ax.texts] == ["no factor may be quoted from these runs"]


def test_worth_draws_laws_and_limits(ax):
    n = [10, 100, 1000]
    factor = data_efficiency(n, [30, 20, 12], n, [90, 60, 40], n_bootstrap=50)
    limits = {"energy": pd.Series([50.0], index=[10]), "force": pd.Series(dtype=float)}
    scaling.draw_worth(ax, {"energy": factor, "force": None}, limits, [10, 100, 1000])
    labels = ax.get_legend_handles_labels()[1]
    assert "energy, more than this" in labels
    assert any(label.startswith("energy, law") for label in labels)


def test_a_factor_has_its_interval_and_a_limit_a_line_upwards(ax):
    """An interval without an upper end is drawn to ten times the factor, a limit to twice its height."""
    table = pd.DataFrame(
        {"n": [10, 100], "factor": [4.0, 3.0], "low": [2.0, 1.5], "high": [9.0, np.inf], "extrapolated": [False, True]}
    )
    limits = {"energy": pd.Series(dtype=float), "force": pd.Series([50.0], index=[100])}
    worth = {"energy": SimpleNamespace(table=lambda: table), "force": None}
    scaling.draw_worth(ax, worth, limits, [10, 100])
    of_law, of_limit = ([segment.tolist() for segment in lines.get_segments()] for lines in ax.collections)
    assert of_law == [[[10, 2], [10, 9]], [[100, 1.5], [100, 30]]]
    assert of_limit == [[[104, 50], [104, 100]]]
    inside, beyond, _, even = ax.get_lines()
    assert (inside.get_xydata().tolist(), beyond.get_xydata().tolist()) == ([[10, 4]], [[100, 3]])
    assert beyond.get_label() == "energy, law beyond the runs made"
    assert set(even.get_ydata()) == {1}  # a frame that is worth one


def test_learning_curves_have_a_panel_for_each_error_and_say_where_no_law_is_quoted(close):
    errors = pd.DataFrame(
        {"method": ["transfer"] * 4, "n": [10, 100, 10, 100], "energy": [60, 40, 64, 44], "force": 9.0}
    )
    at_zero = pd.DataFrame(
        {"energy": [50.0, 70.0, np.nan], "force": [8.0, 8.0, 200.0]}, ["model-aware", "refitted", "predict zero"]
    )
    laws = {("energy", "transfer"): None, ("force", "transfer"): None}
    fig = scaling.learning_curves(errors, laws, at_zero)
    assert [ax.get_ylabel() for ax in fig.axes] == ["validation energy MAE (meV/atom)", "validation force MAE (meV/Å)"]
    assert fig._supxlabel.get_text() == "dotted: means; no law is quoted"
    dotted = [line for line in fig.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert [line.get_ydata().tolist() for line in dotted] == [[62.0, 42.0]]
    law = fit_power_law([10, 100, 1000], [60, 40, 20], n_bootstrap=50)
    fig = scaling.learning_curves(errors, {("energy", "transfer"): law, ("force", "transfer"): None}, at_zero)
    named = [[label.startswith("b = ") for label in ax.get_legend_handles_labels()[1]] for ax in fig.axes]
    assert [any(labels) for labels in named] == [True, False]  # a law stands in the panel of its own error
    assert scaling.free_lines(at_zero, "energy") == {"model-aware": 50.0, "refitted": 70.0}
    assert scaling.free_lines(at_zero, "force") == {"no training": 8.0, "predict zero": 200.0}


def test_schedules_are_named_by_the_frames_that_have_so_few_batches(close):
    fig = scaling.schedules({1: [1.0, 0.9], 10: [1.0, 0.1]}, [1.0, 0.5, 0.1], batch_size=8)
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.texts] == [" N ≤ 8", " N > 72"]
    theirs, _, ours = (line.get_ydata().tolist() for line in ax.get_lines())
    assert theirs == [1.0, 0.9]
    assert ours == [1.0, 0.5, 0.1]


def test_schedules_run_from_the_first_to_the_last_step_whatever_their_number(ax):
    assert scaling.draw_schedules(ax, {1: [1.0, 0.9, 0.8], 2: [1.0, 0.6], 5: [1.0, 0.2]}, [1.0, 0.5], 10) is ax
    *theirs, ours = ax.get_lines()
    assert [line.get_xdata().tolist() for line in theirs] == [[0, 0.5, 1], [0, 1], [0, 1]]
    assert [(text.get_text(), text.xy) for text in ax.texts] == [
        (" N ≤ 10", (1, 0.8)),
        (" N ≤ 20", (1, 0.6)),
        (" N > 40", (1, 0.2)),
    ]
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in theirs]
    assert ours.get_xydata().tolist() == [[0, 1], [1, 0.5]]
    assert (ours.get_label(), ours.get_linestyle()) == ("here, for every N", "--")


def test_a_figure_of_limits_alone_has_triangles(close):
    limits = {"energy": pd.Series([50.0], index=[10]), "force": pd.Series(dtype=float)}
    fig = scaling.frames_worth({"energy": None, "force": None}, limits, [10, 100])
    assert [line.get_ydata().tolist() for line in fig.axes[0].get_lines() if line.get_marker() == "^"] == [[50.0]]


def test_volumes_of_solids_stand_beside_their_mean_and_its_interval(ax):
    table = pd.DataFrame({"pbe": [3.0, -1.0], "r2scan": [1.0, 0.5]}, index=["Si", "Ge"])
    means = {"pbe": Estimate(2.0, 1.0, 3.0, 9), "r2scan": Estimate(0.75, np.nan, np.nan, 2)}
    dft.volume_errors(table, means, ax)
    assert [line.get_ydata().tolist() for line in ax.get_lines()[:2]] == [[3.0, -1.0], [1.0, 0.5]]
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said == ["PBE, mean absolute deviation 2.0 (1.0 to 3.0) %", "r²SCAN, mean absolute deviation 0.8 %"]


def test_element_shifts_have_intervals_where_there_is_one(ax):
    table = pd.DataFrame(
        {"ours": [-1.0, -2.0], "published": [-1.5, -4.0], "low": [-1.2, np.nan], "high": [-0.9, np.nan]}, ["Li", "Pb"]
    )
    dft.element_shifts_three_ways(table, ax)
    (bars,) = ax.collections
    drawn = [path.vertices[:, 1].tolist() for path in bars.get_paths() if np.isfinite(path.vertices).all()]
    assert drawn == [[-1.2, -0.9]]
    assert [line.get_label() for line in ax.get_lines()[:2]] == ["fitted to our DFT", "published tables (VASP)"]


# --- whole figures, as the lessons call them ---


def test_energy_curves_have_each_functionals_points_on_its_line(ax):
    rows = [("pbe", 10.0, 5.0), ("pbe", 11.0, 0.0), ("r2scan", 9.0, 4.0), ("r2scan", 10.0, 1.0)]
    table = pd.DataFrame(rows, columns=["functional", "volume_a3_per_atom", "energy_mev_per_atom"])
    dft.energy_curves(table, table, ax)
    line, dots, other_line, other_dots = ax.get_lines()
    assert line.get_xydata().tolist() == dots.get_xydata().tolist() == [[10, 5], [11, 0]]
    assert other_line.get_xydata().tolist() == other_dots.get_xydata().tolist() == [[9, 4], [10, 1]]
    assert dots.get_color() == line.get_color() != other_line.get_color()
    assert ax.get_legend_handles_labels()[1] == ["PBE", "r²SCAN"]


def test_k_point_errors_stand_by_kind_and_pass_their_bar_in_another_look():
    figures.use_style()
    table = pd.DataFrame(
        [
            ("metal", 0.5, 12.0, 0.1),
            ("insulator", 0.1, 1.0, 0.01),
            ("insulator", 3.0, 0.0, 0.02),
            ("metal", 0.2, 2.0, 0.2),
        ],
        columns=["binding", "energy_mev_per_atom", "force_mev_per_a", "stress_gpa"],
    )
    bars = {"energy_mev_per_atom": 2.0, "force_mev_per_a": 10.0, "stress_gpa": 0.3}
    fig = dft.k_point_errors(table, bars)
    energy, force, stress = fig.axes
    assert [label.get_text() for label in energy.get_yticklabels()] == ["insulators", "metals"]
    for ax, bar in zip(fig.axes, bars.values(), strict=True):
        assert ax.get_lines()[-1].get_xdata()[0] == bar
    crosses = {
        ax.get_xlabel(): np.concatenate(
            [line.get_xdata() for line in ax.get_lines() if line.get_marker() == "X"]
        ).tolist()
        for ax in fig.axes
    }
    assert crosses == {"energy difference (meV/atom)": [3.0], "forces (meV/Å)": [12.0], "stress (GPa)": []}
    dots = np.concatenate([line.get_xdata() for line in force.get_lines() if line.get_marker() == "o"])
    assert dots.tolist() == [1.0, 0.01, 2.0]  # what symmetry makes zero stands at the left edge
    heights = np.concatenate([line.get_ydata() for line in stress.get_lines() if line.get_marker() == "o"])
    assert heights.tolist() == [-0.3, 0.3, 0.7, 1.3]
    plt.close(fig)


def test_net_forces_count_what_symmetry_makes_zero_and_mark_the_limit(ax):
    dft.net_forces({"pbe": [0.0, 1.0, 1.0], "r2scan": [35.0]}, 20.0, ax)  # above the limit, and shown
    labels = ax.get_legend_handles_labels()[1]
    assert "PBE (1 of 3 zero by symmetry)" in labels
    assert "r²SCAN (0 of 1 zero by symmetry)" in labels
    (limit,) = ax.get_lines()
    assert limit.get_xdata() == [20.0, 20.0]
    heights = [patch.get_xy()[:, 1].max() for patch in ax.patches]
    assert sorted(heights) == [1, 2]


def test_costs_are_points_by_kind_on_two_logarithmic_axes(ax):
    table = pd.DataFrame({"size": [1, 10, 100], "cpu_s": [2.0, 20.0, 3.0], "kind": ["a", "a", "b"]})
    dft.cost_against_size(table, ax)
    first, second = ax.get_lines()
    assert first.get_xydata().tolist() == [[1, 2], [10, 20]]
    assert second.get_xydata().tolist() == [[100, 3]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_pulls_and_courses_have_a_curve_for_each_start():
    figure = gradients.pulls({"3": [0.5, -0.2], "4": [0.0]}, 0.1, {"3": "GGA references", "4": "refitted"})
    assert {"GGA references", "refitted"} <= set(figure.axes[0].get_legend_handles_labels()[1])
    plt.close(figure)


def test_moved_blocks_are_percent_with_stars_for_the_published_model():
    change = {"4": pd.DataFrame({"readout": [0.1, 0.3], "embedding": [0.01, 0.01]})}
    figure = methods.moved(change, pd.Series({"readout": 0.5, "embedding": 0.02}))
    (ax,) = figure.axes
    dots, stars = ax.containers[0].lines[0], ax.get_lines()[-1]
    assert dots.get_xdata().tolist() == pytest.approx([20, 1])
    assert stars.get_xdata().tolist() == pytest.approx([50, 2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["published checkpoint", "Method 4"]
    plt.close(figure)


def test_a_hull_names_its_phases_on_hover():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    entries = [PDEntry(Composition(f), e) for f, e in (("Li", 0.0), ("O", 0.0), ("Li2O", -6.0), ("LiO", -1.0))]
    figure = figures.hull_plot(PhaseDiagram(entries))
    said = " ".join(str(trace.hovertext) + str(trace.text) for trace in figure.data)
    assert "Li" in said
    assert "O" in said
    assert figure.layout.height == 520
    assert len(figure.data) >= 2


def test_shares_fill_a_bar_for_the_loss_and_one_for_the_gradient_of_each_start():
    share = pd.DataFrame({"loss": [90.0, 20.0], "gradient": [60.0, 10.0]}, index=["3", "4"])
    ax = plt.figure().subplots()
    gradients.draw_shares(ax, share, {"3": "old", "4": "new"})
    assert [bar.get_width() for bar in ax.patches[:4]] == [90, 60, 20, 10]
    assert [bar.get_x() + bar.get_width() for bar in ax.patches[4:]] == [100] * 4
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "old: loss",
        "old: gradient",
        "new: loss",
        "new: gradient",
    ]
    assert len(gradients.shares(share, {"3": "old", "4": "new"}).axes) == 1
