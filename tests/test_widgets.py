"""What a reader moves computes in the page, by keyboard too, and treats names as text."""

import re
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from crossfunc.lessons.figures.widgets import parity_over_epochs, reach_of_references, two_references

TABLE = pd.DataFrame(
    {
        "formula": ["LiF", "Li", "F", "Li2F</script><b>"],
        "Li": [0.5, 1.0, 0.0, 2 / 3],
        "F": [0.5, 0.0, 1.0, 1 / 3],
        "difference_ev": [-1.0, 1.0, -3.0, -1 / 3],
    }
)
NEEDED = pd.Series({"Li": 0.2, "W": -12.0, "O": 3.0})

LABELS = {"energy": np.array([-1.0, 0.0, 2.0]), "forces": np.array([-0.5, 0.5])}
ROWS = {
    "3": [
        {"epoch": 0.0, "energy": [1.0, 2.0, 4.0], "forces": [-0.5, 0.5]},
        {"epoch": 0.5, "energy": [0.0, 1.0, 3.0], "forces": [-0.6, 0.6]},
        {"epoch": 1.0, "energy": [-1.0, 0.0, 2.0], "forces": [-0.7, 0.7]},
    ],
    "4": [{"epoch": e, "energy": [-1.0, 0.0, 2.1], "forces": [-0.5, 0.5]} for e in (0.0, 0.5, 1.0)],
}
RUNS = {key: SimpleNamespace(labels=LABELS, rows=rows) for key, rows in ROWS.items()}
NAMES = {"3": "old <b>references</b>", "4": "refitted"}


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A page with every widget."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    widgets = [
        two_references(TABLE, ("Li", "F")),
        reach_of_references(NEEDED, learning_rate=1e-3, n_steps=1000),
        parity_over_epochs(RUNS, NAMES),
    ]
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


def circles_of(box):
    return [float(c.get_attribute("cy")) for c in box.find_elements("css selector", "circle")]


def test_a_run_is_played_by_keyboard_and_says_the_errors_of_each_time(page):
    from selenium.webdriver.common.keys import Keys

    box = page.find_elements("class name", "xf-widget")[2]
    words, when = box.find_element("tag name", "p"), box.find_element("tag name", "input")
    old, new = NAMES.values()
    assert words.text == f"Mean errors: {old} 2,000 meV/atom and 0 meV/Å; {new} 33 meV/atom and 0 meV/Å."
    before = circles_of(box)
    assert len(before) == 2 * 3 + 2 * 2
    when.send_keys(Keys.ARROW_RIGHT)
    when.send_keys(Keys.ARROW_RIGHT)
    assert when.get_attribute("aria-valuetext") == "1"
    assert words.text == f"Mean errors: {old} 0 meV/atom and 200 meV/Å; {new} 33 meV/atom and 0 meV/Å."
    after = circles_of(box)
    assert all(new > old for new, old in zip(after[:3], before[:3], strict=True))  # energies come down to the line
    assert after[3:6] == before[3:6]  # the other run stands still
    x, y = (
        [float(c.get_attribute(name)) for c in box.find_elements("css selector", "circle")][:3] for name in ("cx", "cy")
    )
    assert np.ptp(np.add(x, y)) < 1e-3  # on the diagonal


def test_the_button_plays_to_the_end_and_begins_again(page):
    box = page.find_elements("class name", "xf-widget")[2]
    button, when = box.find_element("tag name", "button"), box.find_element("tag name", "input")
    button.click()  # at the end after the test above, or at the beginning
    assert button.text == "Stop"
    until = time.monotonic() + 30
    while button.text == "Stop" and time.monotonic() < until:
        time.sleep(0.1)
    assert (button.text, when.get_attribute("value")) == ("Play", "2")


def test_many_points_are_drawn_in_part_and_judged_in_full():
    labels = {"energy": np.arange(1000.0), "forces": np.arange(10.0)}
    wrong = (labels["energy"] + np.where(np.arange(1000) == 1, 1.0, 0.0)).tolist()
    run = SimpleNamespace(labels=labels, rows=[{"epoch": 0.0, "energy": wrong, "forces": labels["forces"].tolist()}])
    html = parity_over_epochs({"3": run}, NAMES, most_points=4).html
    assert '"labels": [0.0, 333.0, 666.0, 999.0]' in html
    assert '"errors": [[1.0]]' in html  # of the one that is not drawn


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
