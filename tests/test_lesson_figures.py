"""Each figure of a lesson, drawn from a table of a few rows: what it shows is in the axes that it returns."""

from io import BytesIO
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from crossfunc.lessons import figures
from crossfunc.lessons.figures import elements, handout, hulls, references

pytestmark = pytest.mark.usefixtures("fresh_style")


@pytest.fixture
def ax():
    return plt.subplots()[1]


IMPORTANCE = pd.DataFrame(
    {
        "shap_mean": [0.010, 0.030, np.nan, 0.005],
        "shap_std": [0.001, 0.002, np.nan, 0.0],
        "permutation_mean": [0.02, 0.06, np.nan, -0.01],  # shuffling noise can help by chance
        "permutation_std": [0.0, 0.0, np.nan, 0.0],
        "gain_mean": [0.25, 0.5, np.nan, 0.25],
        "gain_std": [0.0, 0.1, np.nan, 0.0],
        "n_rows": [4, 3, 0, 2],
    },
    index=["H", "O", "Tc", "Fe"],
)


def test_importance_map_leaves_absent_elements_blank_and_keeps_the_colours_it_is_given():
    figure = figures.importance_map(IMPORTANCE, (0, 83))
    colored = [trace for trace in figure.data if trace.zmax is not None]
    assert {(trace.zmin, trace.zmax) for trace in colored} == {(0, 83)}
    hover = [text for trace in figure.data if trace.text is not None for row in trace.text for text in row]
    (oxygen,) = [text for text in hover if text.startswith("Oxygen (O)")]
    assert "30" in oxygen  # meV/atom
    assert oxygen.endswith("± 2.0 over seeds, 3 materials")
    assert "Technetium (Tc)" in hover  # and nothing more


def test_a_map_of_gain_shows_shares_in_percent():
    table = pd.DataFrame({"gain_mean": [0.75, 0.25], "gain_std": [0.1, 0.02], "n_rows": [3, 2]}, ["O", "Fe"])
    figure = figures.importance_map(table, measure="gain")
    hover = [text for trace in figure.data if trace.text is not None for row in trace.text for text in row]
    (iron,) = [text for text in hover if text.startswith("Iron (Fe)")]
    assert "25" in iron
    assert iron.endswith("± 2.0 % over seeds, 2 materials")


def test_share_bars_are_percent_in_the_order_of_the_table(ax):
    shares = pd.DataFrame(
        {"with corrections": [0.4, 0.6], "without corrections": [0.7, 0.3]}, index=["anions", "all others"]
    )
    assert figures.share_bars(shares, ax) is ax
    assert [bar.get_width() for bar in ax.patches] == [40.0, 60.0, 70.0, 30.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["anions", "all others"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top
    assert ax.patches[0].get_facecolor() == mpl.colors.to_rgba(figures.COLORS["r2scan"])


def test_measure_shares_are_of_the_sum_over_all_elements_and_negative_ones_count_as_none(ax):
    assert figures.measure_shares(IMPORTANCE, ["O", "H"], ax) is ax
    heights = [np.array(container.lines[0].get_ydata(), dtype=float) for container in ax.containers]
    np.testing.assert_allclose(heights, [[100 * 30 / 45, 100 * 10 / 45], [75, 25], [50, 25]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["shap", "permutation", "gain"]


def test_measure_shares_have_their_spread_on_either_side_as_a_share_of_the_same_sum(ax):
    """Of SHAP 45 meV/atom in all: 2 and 1 meV/atom on oxygen and hydrogen; of gain 0.1 of 1 on oxygen alone."""
    figures.measure_shares(IMPORTANCE, ["O", "H"], ax)
    lengths = []
    for container in ax.containers:
        (bars,) = container.lines[2]
        low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
        middle = np.array(container.lines[0].get_ydata(), dtype=float)
        np.testing.assert_allclose(high - middle, middle - low, atol=1e-9)
        lengths.append(high - middle)
    np.testing.assert_allclose(lengths, [[200 / 45, 100 / 45], [0, 0], [10, 0]], atol=1e-9)


def test_shift_against_z_names_the_material_on_hover():
    pairs = pd.DataFrame({"material_id": ["a", "b", "c"], "composition": ["H2", "O2", "Fe"]})
    functionals = (SimpleNamespace(name="PBE"), SimpleNamespace(name="HSE06"))
    mine = SimpleNamespace(pairs=pairs, functionals=functionals)
    figure = figures.shift_against_z([1, 8, 26], [-1.0, -8.0, -26.0], mine)
    assert list(figure.data[0].customdata[2]) == ["c", "Fe"]
    assert figure.layout.yaxis.title.text == "HSE06 − PBE (eV/atom)"
    assert len(figure.data) == 1  # no identity line between unlike quantities


# --- hulls and verdicts ---

VERDICTS = pd.DataFrame({"reference_ev": [-0.1, 0.2, -0.3, 0.05], "model_ev": [-0.2, -0.1, -0.3, 0.01]})


def test_scheme_has_two_rows_of_steps_between_start_and_end(ax):
    assert figures.two_hulls_scheme(ax) is ax
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("hull") == 2
    assert {"relaxed\ncrystals", "how far apart?\nsame verdict?", "from a model"} <= set(texts)
    assert len([text for text in ax.texts if getattr(text, "arrow_patch", None)]) == 10  # five arrows in each row


def test_verdict_panel_draws_energies_in_mev_and_keeps_the_panels_alike(ax):
    assert figures.verdict_panel(VERDICTS, "Method 4", "method_4", ax) is ax
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets()[1], [200, -100])
    assert ax.get_xlim() == ax.get_ylim() == (-5e3, 5e3)


def test_the_tinted_quarters_of_a_verdict_panel_are_where_model_and_reference_differ_in_sign(ax):
    """Two points on either side of zero are in a tint where one says stable (below zero) and the other does not."""
    figures.verdict_panel(VERDICTS, "Method 4", "method_4", ax)
    for x, y, tinted in ((-50, 50, True), (50, -50, True), (50, 50, False), (-50, -50, False)):
        at = ax.transData.transform((x, y))
        inside = [patch.get_window_extent().contains(*at) for patch in ax.patches]
        assert sum(inside) == tinted, (x, y)


def test_verdict_panels_are_three_beside_each_other_and_none_is_empty():
    keys = {"a": "gga", "b": "method_1", "c": "method_2", "d": "method_3"}
    fig = figures.verdict_panels(dict.fromkeys(keys, VERDICTS), keys)
    assert [ax.texts[0].get_text() for ax in fig.axes] == ["a", "b", "c", "d"]
    assert len({round(ax.get_position().x0, 3) for ax in fig.axes}) == 3
    numbered = [any(t.get_visible() and t.get_text() for t in ax.get_xticklabels()) for ax in fig.axes]
    assert numbered == [False, True, True, True]  # the lowest of each column
    seven = figures.verdict_panels(dict.fromkeys("abcdefg", VERDICTS), dict.fromkeys("abcdefg", "gga"))
    assert len({round(ax.get_position().x0, 3) for ax in seven.axes}) == 4


def test_errors_by_distance_name_the_parts_and_show_both_quantities():
    parts = pd.DataFrame({"error": [10.0, 30.0], "wrong": [50.0, 0.0]}, index=["1–9", "9–80"])
    error, wrong = figures.errors_by_distance({"GGA": parts, "other": parts}, {"GGA": "gga", "other": "r2scan"}).axes
    assert [label.get_text() for label in error.get_xticklabels()] == ["1–9", "9–80"]
    assert list(wrong.lines[0].get_ydata()) == [50.0, 0.0]
    assert wrong.lines[0].get_xdata()[0] < wrong.lines[1].get_xdata()[0]  # equal values stay visible
    assert error.get_yscale() == "log"


def test_experiment_parity_has_the_identity_and_a_legend_of_words(ax):
    figures.experiment_parity([-1.0, np.nan, -2.0], {("gga", "PBE: MAE 9"): [-1.1, -1.0, -2.2]}, ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["PBE: MAE 9"]
    assert len(ax.lines) == 1
    assert "measured" in ax.get_xlabel()


def test_hulls_show_their_phases_and_the_ternary_names_its_corners():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    energies = {"Li": 0.0, "Fe": 0.0, "O": 0.0, "Li2O": -6.0, "Fe2O3": -8.0, "LiFeO2": -8.0}
    diagram = PhaseDiagram([PDEntry(Composition(formula), energy) for formula, energy in energies.items()])
    figure = figures.ternary_hull(diagram, list(energies), ["Li", "Fe", "O"])
    names = [trace.text[0].replace("\u00a0", "") for trace in figure.data if trace.mode == "text"]
    assert sorted(names) == sorted(["Li<sub>2</sub>O", "<br>Fe<sub>2</sub>O<sub>3</sub>", "LiFeO<sub>2</sub>"])
    assert figure.layout.height == 520


def triangle_of(energies):
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    return PhaseDiagram([PDEntry(Composition(f), e, name=name) for name, (f, e) in energies.items()])


def test_a_triangle_has_its_elements_at_the_corners_and_compounds_between_them(ax):
    elements = {symbol: (symbol, 0.0) for symbol in ("F", "Mg", "K")}
    diagram = triangle_of(elements | {"one": ("KF", -4.0), "two": ("MgF2", -3.0), "three": ("KMgF", -2.0)})
    assert hulls.hull_triangle(diagram, ("F", "Mg", "K"), {"one": "1", "two": "2", "three": "3"}, "r2scan", ax) is ax
    top = np.sqrt(3) / 2
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert places["F"] == pytest.approx((0.5, top + 0.03))
    assert places["Mg"] == pytest.approx((0, -0.03))
    assert places["K"] == pytest.approx((1, -0.03))
    assert places["1"] == pytest.approx((0.75, top / 2))  # half way from K to F
    assert places["2"] == pytest.approx((1 / 3, top * 2 / 3))  # two thirds of the way from Mg to F
    assert places["3"] == pytest.approx((0.5, top / 3))  # in the middle
    dots = {tuple(np.round(line.get_xydata()[0], 3)): line for line in ax.lines}
    faces = [dots[x, y].get_markerfacecolor() for x, y in ((0.75, 0.433), (0.333, 0.577), (0.5, 0.289))]
    assert faces == [figures.COLORS["r2scan"], figures.COLORS["r2scan"], "white"]  # KMgF falls into KF and Mg
    assert {line.get_marker() for line in ax.lines} == {figures.MARKERS["r2scan"]}
    assert [places_color(ax, n) for n in "123"] == ["white", "white", "black"]
    facets = [sorted(map(tuple, np.round(patch.get_xy()[:3], 3).tolist())) for patch in ax.patches]
    assert sorted(facets) == [
        [(0, 0), (0.333, 0.577), (0.75, 0.433)],
        [(0, 0), (0.75, 0.433), (1, 0)],
        [(0.333, 0.577), (0.5, 0.866), (0.75, 0.433)],
    ]


def places_color(ax, name):
    return next(text.get_color() for text in ax.texts if text.get_text() == name)


def test_formation_energies_are_a_line_for_each_compound_from_above(ax):
    table = pd.DataFrame({"PBE": [-1.0, -3.0], "r²SCAN": [-1.5, -2.0]}, index=["MgF2", "KF"])
    assert hulls.formation_lines(table, {"PBE": "gga", "r²SCAN": "r2scan"}, ax) is ax
    (between,) = ax.collections
    assert [path.vertices.tolist() for path in between.get_paths()] == [[[-1.5, 0], [-1, 0]], [[-3, 1], [-2, 1]]]
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[-1, 0], [-3, 1]], [[-1.5, 0], [-2, 1]]]
    assert [line.get_marker() for line in ax.lines] == [figures.MARKERS["gga"], figures.MARKERS["r2scan"]]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["1  MgF2", "2  KF"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["PBE", "r²SCAN"]
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "formation energy (eV/atom)"


def test_a_hand_out_reads_from_top_to_bottom_with_its_figure_under_the_words():
    picture = BytesIO()
    plt.imsave(picture, np.zeros((2, 3, 3)), format="png")
    long = "word " * 40  # 200 letters: three lines
    page = handout.draw_handout(
        "On $5", [("Lesson 1", ["short", long]), ("Lesson 2", ["end"])], picture.getvalue(), "A"
    )
    assert page.get_size_inches().tolist() == [8.27, 11.69]
    title, *body, foot = page.texts
    assert (title.get_text(), foot.get_text()) == ("On $5", "A")
    assert [text.get_text().split("\n")[0][:11] for text in body] == [
        "Lesson 1",
        "•  short",
        "•  word wor",
        "Lesson 2",
        "•  end",
    ]
    assert body[2].get_text().count("\n") == 2
    heights = [text.get_position()[1] for text in page.texts]
    steps = -np.diff(heights[1:-1])
    assert steps == pytest.approx([0.0185, 0.0155, 3 * 0.0155 + 0.009, 0.0185])
    assert not any(text.get_parse_math() for text in page.texts)
    (ax,) = page.axes
    assert ax.images[0].get_array().shape[:2] == (2, 3)
    place = ax.get_position(original=True)
    assert foot.get_position()[1] < place.y0
    assert place.y1 == pytest.approx(heights[-2] - 0.0155 - 0.009 - 0.005)
    assert handout.draw_handout("Title", [], None).axes == []


def test_error_stages_have_one_line_per_dataset_on_a_logarithmic_axis(ax):
    stages = {"as it comes": 5000.0, "new references": 80.0, "fine-tuned": 60.0}
    figures.error_stages({"mine": stages, "fluorides, DFT": stages}, ax)
    assert [list(line.get_ydata()) for line in ax.lines] == [[5000.0, 80.0, 60.0]] * 2
    assert [line.get_marker() for line in ax.lines] == ["o", "s"]
    assert ax.get_yscale() == "log"


def test_before_and_after_prints_the_correlation_of_each_panel():
    x = [0.0, 1.0, 2.0, 3.0]
    axes = figures.before_and_after({"total": (x, [0, -1, -2, -3]), "rest": (x, x)}, ["PBE", "r²SCAN"])
    assert [ax.texts[0].get_text() for ax in axes] == ["r = -1.000", "r = 1.000"]
    assert axes[1].get_xlabel() == "r²SCAN rest (eV/atom)"
    lines = [line for ax in axes for line in ax.lines]
    assert [(line.get_xy1(), line.get_slope()) for line in lines] == [((1.5, 1.5), 1)] * 2  # y = x, through the mean


# --- element references ---

SHIFTS = pd.DataFrame(
    {
        "fitted": [-0.1, -1.2, -8.0, -15.5],
        "std_error": [0.01, 0.05, 0.1, 0.1],
        "free_atom": [np.nan] * 4,
        "published": [-0.03, -0.7, -9.2, -24.7],
        "published_atom": [0.0, -1.2, np.nan, -24.4],
    },
    index=["H", "O", "Ge", "Ba"],
)


def test_shift_evidence_draws_the_sources_that_have_values_in_order_of_the_table(ax):
    assert references.draw_shift_evidence(SHIFTS, ("PBE", "r²SCAN"), ax) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["fitted to these data", "published tables (VASP)", "free atom, VASP"]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(SHIFTS.index)
    fitted = ax.containers[0].lines[0]
    np.testing.assert_allclose(np.array(fitted.get_ydata(), dtype=float), SHIFTS["fitted"])
    assert "r²SCAN − PBE" in ax.get_ylabel()
    (bars,) = ax.containers[0].lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends.mean(axis=1), SHIFTS["fitted"])
    np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, SHIFTS["std_error"])
    assert all(not container.lines[2] for container in ax.containers[1:]), "a bar where no error is known"


def test_the_scheme_multiplies_fractions_by_references(ax):
    figures.reference_scheme({"O": (0.6, -5.0), "Fe": (0.4, -8.0)}, ax)
    texts = [text.get_text() for text in ax.texts]
    assert "=  -6.20 eV/atom" in texts
    assert {"H\n0", "O\n0.6", "Fe\n0.4", "Pu\n0"} <= set(texts)  # the row
    assert {"H", "O  -5.00", "Fe  -8.00", "Pu"} <= set(texts)  # the column
    assert texts.count("…") == 6


def test_text_on_a_tile_is_dark_where_the_eye_sees_a_light_colour():
    green, red, blue = (elements._luminance(rgb) for rgb in ((0, 1, 0), (1, 0, 0), (0, 0, 1)))
    assert 1 > green > red > blue > 0
    assert elements._luminance((1, 1, 1, 1)) == pytest.approx(1)


def test_shift_evidence_of_many_elements_names_some_of_them(ax):
    many = pd.concat([SHIFTS] * 25)
    references.draw_shift_evidence(many, ("a", "b"), ax)
    assert 20 < len(ax.get_xticks()) <= 45


def test_few_points_are_drawn_larger_than_many():
    few, many = np.linspace(-1, 0, 30), np.linspace(-1, 0, 3000)
    sizes = [
        figures.before_and_after({"one": (x, x), "two": (x, x)}, ("a", "b"))[0].collections[0].get_sizes()[0]
        for x in (few, many)
    ]
    assert sizes[0] > 2 * sizes[1]
