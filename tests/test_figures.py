"""Figures say what they show, in words too, and look the same every time."""

import json
import re
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from crossfunc.lessons import figures
from crossfunc.lessons.figures import FigureError

SURROGATE = SimpleNamespace(label_notice="surrogate labels: predicted, not DFT")
DFT = SimpleNamespace(label_notice="")
X = np.array([-1.0, -2.0, -3.0, -4.0])
Y = np.array([-2.0, -4.0, -6.0, -8.0])  # y = 2 x, so Pearson's r is exactly 1 and the slope 2


pytestmark = pytest.mark.usefixtures("fresh_style")


@pytest.fixture
def displayed(monkeypatch):
    """Collect what `show` displays, as (data, metadata)."""
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kw: seen.append((data, kw.get("metadata"))))
    return seen


# --- style ---


def lightness(color):
    """CIE L* of a colour, 0 black to 100 white."""
    rgb = np.array(mpl.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


@pytest.mark.parametrize("family", [("gga", "r2scan"), ("method_1", "method_2", "method_3", "method_4")])
def test_colours_get_darker_in_order_so_grey_print_tells_them_apart(family):
    steps = -np.diff([lightness(figures.COLORS[name]) for name in family])
    assert (steps > 5).all(), steps


def test_every_functional_and_method_has_a_marker_of_its_own_kind():
    assert set(figures.MARKERS) <= set(figures.COLORS)
    methods = [figures.MARKERS[f"method_{i}"] for i in (1, 2, 3, 4)]
    assert len(set(methods)) == 4


def test_use_style_gives_an_opaque_white_ground_for_both_themes():
    figures.use_style()
    figure, _ = plt.subplots()
    assert figure.get_facecolor() == (1, 1, 1, 1)


def test_a_pair_of_columns_becomes_floats_or_says_what_is_wrong_with_it():
    x, y = figures.style.finite_pair([1, 2, 3], (4, 5, 6))
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert x.dtype == y.dtype == float
    with pytest.raises(FigureError, match=r"2 of 4 points are not finite \(first: row 1\)"):
        figures.style.finite_pair([1, np.inf, 3, 4], [1, 2, np.nan, 4])
    with pytest.raises(FigureError, match=r"x has shape \(3,\) and y \(2,\)"):
        figures.style.finite_pair([1, 2, 3], [1, 2])
    with pytest.raises(FigureError, match=r"shape \(3, 1\)"):
        figures.style.finite_pair([[1], [2], [3]], [[1], [2], [3]])
    with pytest.raises(FigureError, match="2 points cannot show a correlation"):
        figures.style.finite_pair([1, 2], [1, 2])


def test_wide_panels_are_wider_than_a_single_figure():
    assert figures.wide()[0] > figures.style.STYLE["figure.figsize"][0]


def test_every_label_of_an_energy_names_its_unit():
    assert all("(eV/atom)" in text for name, text in figures.LABELS.items() if name.endswith(("_ev", "_per_atom_ev")))


# --- caption ---


def test_caption_ends_with_the_label_notice_word_for_word():
    assert figures.caption("Energies hardly correlate.", SURROGATE) == (
        "Energies hardly correlate (surrogate labels: predicted, not DFT)."
    )


def test_caption_of_dft_data_or_of_no_data_stays_as_it_is():
    assert figures.caption("Energies hardly correlate", DFT) == "Energies hardly correlate"
    assert figures.caption("A schematic", None) == "A schematic"


# --- joint plot ---


def test_joint_plot_prints_pearson_count_and_slope():
    grid = figures.joint_energy_plot(X, Y, x_label="n_materials", y_label="y (eV/atom)", fit=True)
    (note,) = [text.get_text() for text in grid.ax_joint.texts]
    assert note == "Pearson r = 1.000\nn = 4\nslope = 2.00"
    assert grid.ax_joint.get_xlabel() == "materials that contain the element"
    assert grid.ax_joint.get_ylabel() == "y (eV/atom)"
    assert grid.ax_joint.get_title() == ""


def test_joint_plot_shows_the_same_correlation_when_one_energy_is_shifted_or_scaled():
    notes = [
        figures.joint_energy_plot(X, y, x_label="x", y_label="y").ax_joint.texts[0].get_text() for y in (Y, 3 * Y + 7)
    ]
    assert notes[0] == notes[1]


def test_joint_plot_draws_the_identity_only_on_request():
    counts = [
        len(figures.joint_energy_plot(X, Y, x_label="x", y_label="y", identity=flag).ax_joint.lines)
        for flag in (False, True)
    ]
    assert counts == [0, 1]


def test_the_lines_of_a_joint_plot_are_the_identity_and_the_fit_with_its_intercept():
    """By hand: y = 2 x + 7 of x = -1 to -4, whose mean is -2.5."""
    ax = figures.joint_energy_plot(X, Y + 7, x_label="x", y_label="y", identity=True, fit=True).ax_joint
    identity, fitted = ax.lines
    assert (identity.get_xy1(), identity.get_slope()) == ((-2.5, -2.5), 1)
    assert fitted.get_xy1() == (0, pytest.approx(7))
    assert fitted.get_slope() == pytest.approx(2)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 2.0, np.nan], [1.0, 2.0, 3.0], r"1 of 3 points are not finite \(first: row 2\)"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"x has shape \(2,\) and y \(3,\)"),
        ([1.0, 2.0], [1.0, 2.0], "2 points cannot show a correlation"),
    ],
)
def test_joint_plot_refuses_points_it_would_have_to_drop(x, y, message):
    with pytest.raises(FigureError, match=message):
        figures.joint_energy_plot(x, y, x_label="x", y_label="y")


# --- periodic tables ---

VALUES = {"H": 10.0, "O": 1000.0, "La": 1.0, "Fe": np.nan}


def tiles(ax):
    """Text in the tiles of a static table: symbol, then number if there is one."""
    return [text.get_text() for text in ax.texts]


def test_static_table_writes_values_and_leaves_absent_elements_blank():
    shown = tiles(figures.periodic_table(VALUES, "n_materials"))
    assert shown[:2] == ["H", "10"]
    assert shown[shown.index("O") + 1] == "1.0k"
    assert shown[shown.index("Fe") + 1] == "Co"  # NaN: no number
    assert shown[shown.index("He") + 1] == "Li"  # absent: no number
    assert len([s for s in shown if re.fullmatch("[A-Z][a-z]?", s)]) == 94


def test_static_table_draws_into_the_axes_it_is_given():
    _, ax = plt.subplots()
    assert figures.periodic_table(VALUES, "n_materials", ax=ax) is ax


def test_diverging_colours_are_symmetric_about_zero():
    norm, _ = figures.elements._color_scale(
        figures.elements._element_values({"H": -1.0, "O": 3.0}, log=False), False, True
    )
    assert (norm.vmin, norm.vmax) == (-3.0, 3.0)


def test_interactive_table_has_the_value_on_hover_and_nothing_on_absent_elements():
    figure = figures.periodic_table_interactive(VALUES, "n_materials", log=True, hover={"O": "oxides"})
    hover = {text for trace in figure.data if trace.text is not None for row in trace.text for text in row}
    assert any(text.startswith("Oxygen (O)<br>Value") and text.endswith("oxides") for text in hover)
    assert "Iron (Fe)" in hover
    assert "Helium (He)" in hover
    assert "materials that contain the element" in figure.to_json()


@pytest.mark.parametrize("draw", [figures.periodic_table, figures.periodic_table_interactive])
@pytest.mark.parametrize(
    ("values", "log", "message"),
    [
        ({"Xx": 1.0}, False, "Xx: not an element from H to Pu"),
        ({"H": np.nan}, False, "no element has a value"),
        ({"H": 0.0, "O": 1.0}, True, "need positive values; not so for H"),
    ],
)
def test_tables_refuse_what_they_cannot_colour(draw, values, log, message):
    with pytest.raises(FigureError, match=message):
        draw(values, "n_materials", log=log)


# --- parity ---


def parity(**changes):
    given = {"x_label": "x", "y_label": "y", "names": ["a", "b", "c", "d"], "compositions": ["H", "He", "Li", "Be"]}
    return figures.parity_hover(X, Y, **given | changes)


def test_parity_hover_names_material_and_composition():
    points = parity().data[-1]
    assert [tuple(row) for row in points.customdata] == [("a", "H"), ("b", "He"), ("c", "Li"), ("d", "Be")]
    assert "%{customdata[0]}" in points.hovertemplate
    assert "%{customdata[1]}" in points.hovertemplate


def test_parity_hover_refuses_names_that_do_not_match_the_points():
    with pytest.raises(FigureError, match="3 names and 4 compositions for 4 points"):
        parity(names=["a", "b", "c"])


# --- show ---


def test_show_notes_alt_text_caption_and_name_on_a_static_figure(displayed):
    figures.use_style()
    figure, _ = plt.subplots()
    figures.show(figure, alt="An empty plot.", caption="Nothing yet", name="fig-01-none", dataset=SURROGATE)
    (data, metadata), (line, line_metadata) = displayed
    note = metadata["crossfunc"]
    assert note["alt"] == metadata["image/png"]["alt"] == "An empty plot."
    assert note["caption"] == "Nothing yet (surrogate labels: predicted, not DFT)."
    assert note["name"] == "fig-01-none"
    assert re.fullmatch(r"\d+px", note["width"])
    assert set(data) == {"image/png", "text/plain"}
    assert line.data == f"*{note['caption']}*"
    assert line_metadata == {"crossfunc": {"role": "caption"}}
    assert plt.get_fignums() == []  # else the notebook shows it twice


def test_show_writes_an_interactive_figure_that_needs_no_other_host(displayed):
    figures.show(parity(), alt='Two "functionals" <compared>.')
    ((data, _),) = displayed
    page = data["text/html"]
    assert 'role="group"' in page
    assert 'aria-label="Two &quot;functionals&quot; &lt;compared&gt;."' in page
    assert not re.search(r"(src|href)=", page)
    assert json.dumps(data["application/vnd.plotly.v1+json"])


def test_show_gives_the_same_page_for_the_same_figure_and_another_id_for_another(displayed):
    for figure in (parity(), parity(), parity(compositions=["H", "H", "H", "H"])):
        figures.show(figure, alt="A plot.")
    first, second, third = (data["text/html"] for data, _ in displayed)
    assert first == second
    assert re.search('id="(.+?)"', first)[1] != re.search('id="(.+?)"', third)[1]


def test_show_cannot_be_broken_out_of_by_a_name(displayed):
    figures.show(parity(names=["</script>", "b", "c", "d"]), alt="A plot.")
    assert displayed[0][0]["text/html"].count("</script>") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alt": " "}, "needs alt text"),
        ({"alt": "A plot.", "name": "fig-x"}, "needs a caption: a named figure"),
        ({"alt": "A plot.", "dataset": SURROGATE}, "needs a caption: surrogate data"),
    ],
)
def test_show_refuses_a_figure_without_its_words(displayed, options, message):
    with pytest.raises(FigureError, match=message):
        figures.show(plt.figure(), **options)
    assert displayed == []
