"""What a reader moves computes in the page, by keyboard too, and treats names as text."""

import re

import numpy as np
import pandas as pd
import pytest

from crossfunc.lessons.figures.widgets import reach_of_references, two_references

TABLE = pd.DataFrame(
    {
        "formula": ["LiF", "Li", "F", "Li2F</script><b>"],
        "Li": [0.5, 1.0, 0.0, 2 / 3],
        "F": [0.5, 0.0, 1.0, 1 / 3],
        "difference_ev": [-1.0, 1.0, -3.0, -1 / 3],
    }
)
NEEDED = pd.Series({"Li": 0.2, "W": -12.0, "O": 3.0})


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A page with both widgets."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    widgets = [two_references(TABLE, ("Li", "F")), reach_of_references(NEEDED, learning_rate=1e-3, n_steps=1000)]
    file.write_text("<!doctype html><html><body>" + "".join(w.html for w in widgets) + "</body></html>")
    browser.get(file.as_uri())
    return browser


def test_moving_the_references_of_two_elements_reaches_the_least_squares_answer(page):
    box = page.find_elements("class name", "xf-widget")[0]
    words = box.find_element("tag name", "p")
    wrong = np.abs(TABLE["difference_ev"]).mean()
    assert words.text == f"Mean error of 4 materials: {1000 * wrong:.0f} meV/atom."
    box.find_element("tag name", "button").click()
    assert words.text == "Mean error of 4 materials: 0 meV/atom."
    assert [s.get_attribute("aria-valuetext") for s in box.find_elements("tag name", "input")] == [
        "1.00 eV/atom",
        "-3.00 eV/atom",
    ]


def test_a_slider_moves_by_keyboard_and_says_what_it_is(page):
    from selenium.webdriver.common.keys import Keys

    box = page.find_elements("class name", "xf-widget")[1]
    words = box.find_element("tag name", "p")
    assert words.text == "The learning rates add up to 0.50 eV: 1 of 3 elements can arrive."
    rate = box.find_elements("tag name", "input")[0]
    for _ in range(10):
        rate.send_keys(Keys.ARROW_RIGHT)
    assert words.text == "The learning rates add up to 5.0 eV: 2 of 3 elements can arrive."
    assert rate.get_attribute("aria-valuetext") == "1.0e-2"


def test_names_from_data_are_text(page):
    titles = [t.get_attribute("textContent") for t in page.find_elements("css selector", "circle title")]
    assert "Li2F</script><b>" in titles
    assert page.find_elements("tag name", "b") == []


def test_the_same_data_give_the_same_page_and_other_data_another_id():
    one, other = (reach_of_references(n, learning_rate=1e-3, n_steps=10) for n in (NEEDED, NEEDED + 1))
    assert one.html == reach_of_references(NEEDED, learning_rate=1e-3, n_steps=10).html
    ids = [re.search(r'id="(xf-widget-\w+)"', w.html)[1] for w in (one, other)]
    assert ids[0] != ids[1]


def test_a_reader_without_scripts_is_told_what_it_is():
    bundle = two_references(TABLE, ("Li", "F"))._repr_mimebundle_()
    assert bundle["text/plain"].startswith("<interactive: move the references of Li and F")
