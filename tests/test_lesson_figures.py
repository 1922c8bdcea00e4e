"""Each figure of a lesson, drawn from a table of a few rows: what it shows is in the axes that it returns."""

from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from crossfunc.lessons import figures


@pytest.fixture(autouse=True)
def fresh_style():
    plt.switch_backend("Agg")
    with mpl.rc_context():
        yield
    plt.close("all")


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


def test_shift_against_z_names_the_material_on_hover():
    pairs = pd.DataFrame({"material_id": ["a", "b", "c"], "composition": ["H2", "O2", "Fe"]})
    functionals = (SimpleNamespace(name="PBE"), SimpleNamespace(name="HSE06"))
    mine = SimpleNamespace(pairs=pairs, functionals=functionals)
    figure = figures.shift_against_z([1, 8, 26], [-1.0, -8.0, -26.0], mine)
    assert list(figure.data[0].customdata[2]) == ["c", "Fe"]
    assert figure.layout.yaxis.title.text == "HSE06 − PBE (eV/atom)"
    assert len(figure.data) == 1  # no identity line between unlike quantities
