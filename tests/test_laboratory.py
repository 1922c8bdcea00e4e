"""Lessons 1 to 3 in a page: what it computes is what the library computes, from one file and nothing else."""

import functools
import gzip
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from crossfunc.datasets import open_dataset
from crossfunc.energies import composition_matrix, fit_atomref, pearson
from crossfunc.energies.atomref import judge
from crossfunc.errors import InputError
from crossfunc.lessons import laboratory
from crossfunc.lessons.figures import widgets
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

NOTHING, GROUND, OWN, LOW_FROM_BOTH = range(4)
TENTH, FIFTH, MOST, ALL = 5, 7, 13, 15  # steps of the slider: 10, 20, 80 and 100 %
STATE = """
const box = document.querySelector(".xf-widget"), wish = arguments[0];
const [dataset, shown] = box.querySelectorAll("select"), [heaviest, share] = box.querySelectorAll("input[type=range]");
function move(control, value, event) {
  if (control.value === String(value)) { return; }
  control.value = value;
  control.dispatchEvent(new Event(event));
}
move(dataset, wish.dataset, "change");
const [again, back] = [...box.querySelectorAll("fieldset > button")];
if (box.querySelector("[aria-pressed=true]")) { back.click(); }
move(shown, wish.shown ?? 0, "change");
move(heaviest, wish.heaviest ?? heaviest.max, "input");
move(share, wish.share ?? 13, "input");
box.querySelectorAll("input[type=radio]")[wish.mode].click();
for (let k = 0; k < (wish.draws ?? 0); k++) { again.click(); }
for (const symbol of wish.out ?? []) {
  [...box.querySelectorAll(".xf-lab-elements button")].find(b => b.firstChild.textContent === symbol).click();
}
const words = [...box.querySelectorAll("p")].map(p => p.textContent);
return {...box.state, words: words, tiles: box.state.tiles, table: box.querySelector("table").textContent};
"""


@functools.cache
def tables(name):
    """X, both energies and both formation energies of a dataset."""
    dataset = open_dataset(name)
    pairs = dataset.pairs
    energies = [pairs[f.column()].to_numpy() for f in dataset.functionals]
    formation = [pairs[f.column(formation=True)].to_numpy() for f in dataset.functionals]
    return composition_matrix(pairs), energies, formation


@pytest.fixture(scope="module")
def book_page(root):
    return (root / "book" / "laboratory.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def kept(book_page, tmp_path_factory):
    """The one file that people keep."""
    file = tmp_path_factory.mktemp("kept") / "laboratory.html"
    file.write_text(laboratory.one_file(book_page), encoding="utf-8")
    return file


@pytest.fixture
def page(browser, kept):
    """That file opened from disk, as the test before left it."""
    if browser.current_url != kept.as_uri():
        browser.get(kept.as_uri())
    return browser


def state_of(page, **wish):
    return page.execute_script(STATE, wish)


def expected(name, mode, fitted, judged_from):
    """What the library says of the same rows: energies that are left of the rows that can be judged."""
    X, energies, formation = tables(name)
    fits = [fit_atomref(X[fitted], energy[fitted]) for energy in energies]
    if mode in (NOTHING, GROUND):
        rows = np.array(judged_from)
        return rows, [e[rows] for e in (energies if mode == NOTHING else formation)], fits
    _, ok, *_ = judge(fits[0], X[judged_from], energies[0][judged_from])
    rows = np.array(judged_from)[ok]
    takes = fits if mode == OWN else [fits[0], fits[0]]
    return rows, [fit.remove(X[rows], energy[rows]) for fit, energy in zip(takes, energies, strict=True)], fits


SMALL, LARGE = range(2)
CASES = [
    *((SMALL, mode, MOST, out) for mode in (NOTHING, GROUND, OWN, LOW_FROM_BOTH) for out in ([], ["O"])),
    *((SMALL, OWN, share, out) for share in (TENTH, FIFTH, ALL) for out in ([], ["O", "Si"])),
    *((LARGE, mode, MOST, []) for mode in (NOTHING, GROUND, OWN)),
    *((LARGE, OWN, share, ["P"]) for share in (TENTH, MOST)),
]


@pytest.mark.parametrize(("dataset", "mode", "share", "out"), CASES)
def test_the_page_computes_what_the_library_computes(page, dataset, mode, share, out):
    name = laboratory.DATASETS[dataset]
    X, *_ = tables(name)
    state = state_of(page, dataset=dataset, mode=mode, share=share, out=out)
    kept = np.ones(X.shape[0], dtype=bool)
    for symbol in out:
        kept &= X[:, [ATOMIC_NUMBERS[symbol] - 1]].toarray().ravel() == 0
    fitted, kept = state["fitted"], set(np.flatnonzero(kept).tolist())
    assert set(fitted) <= kept
    shares = {TENTH: 0.1, FIFTH: 0.2, MOST: 0.8, ALL: 1.0}
    assert len(fitted) == (len(kept) if mode < OWN else int(shares[share] * len(kept) + 0.5))
    others = sorted(kept - set(fitted)) or fitted
    rows, (low, high), fits = expected(name, mode, fitted, others)
    assert sorted(state["judged"]) == sorted(rows.tolist())
    assert state["rank"] == fits[1].rank
    if len(rows) > 2:
        assert state["r"] == pytest.approx(pearson(low, high).r, abs=1e-6)
    else:
        assert "too few materials" in state["table"]
    assert state["difference"] == pytest.approx(np.abs(high - low).mean(), abs=1e-6)
    apart = rows[np.argsort(-np.abs(high - low))[:4]]
    assert state["furthest"] == apart.tolist()
    columns = [ATOMIC_NUMBERS[symbol] - 1 for symbol in state["symbols"]]
    for side, fit in zip(("low", "high"), fits, strict=True):
        found = np.array([state[side].get(str(k), np.nan) for k in range(len(columns))], dtype=float)
        np.testing.assert_allclose(found, fit.energies_ev[columns], rtol=0, atol=1e-6)
    assert [tile["isDetermined"] for tile in state["tiles"]] == fits[1].determined[columns].tolist()


def test_the_words_beside_the_figure_say_what_was_computed(page):
    total = state_of(page, dataset=0, mode=NOTHING)
    said, apart = total["words"][:2]
    n_materials = tables("pbe-r2scan")[0].shape[0]
    assert said == (
        f"Total energies of {n_materials} materials in PBE and r²SCAN differ by {total['difference']:.2f} eV/atom "
        f"on average; r = {total['r']:.3f}."
    )
    assert re.fullmatch(r"Furthest apart: (\S+ \([\w-]+\) −[\d.]+ eV/atom(; )?){4}\.", apart)
    own = state_of(page, dataset=0, mode=OWN, share=TENTH)
    n_others = n_materials - len(own["fitted"])
    assert (
        f"were fitted to {len(own['fitted'])} materials; judged are {len(own['judged'])} of the other"
        in own["words"][0]
    )
    assert f"{n_others}, for the rest hold an element or a combination that the fit does not fix." in own["words"][0]
    both = state_of(page, dataset=0, mode=LOW_FROM_BOTH)
    assert f"leaves the mean difference at {both['difference']:.2f} eV/atom" in both["words"][0]
    assert both["before"]["difference"] == pytest.approx(both["difference"], abs=1e-9)
    flattering = state_of(page, dataset=0, mode=OWN, share=ALL)
    assert "judged on the same, which flatters them" in flattering["words"][0]
    nothing = state_of(page, dataset=0, mode=NOTHING, out=total["symbols"])
    assert nothing["words"][0] == "No material is left."


def test_each_material_is_drawn_where_its_energies_are(page):
    _, (low, high), _ = tables("pbe-r2scan")
    state = state_of(page, dataset=0, mode=NOTHING)
    path = page.find_element("css selector", "path[stroke-linecap]").get_attribute("d")
    x, y = np.array(re.findall(r"M([\d.]+) ([\d.]+)h0", path), dtype=float).T
    assert len(x) == len(state["judged"])
    order = np.argsort(-np.abs(high - low))
    scale = np.ptp(x) / np.ptp(high)
    np.testing.assert_allclose(x - x[0], scale * (high[order] - high[order[0]]), atol=0.2)
    np.testing.assert_allclose(y - y[0], scale * 340 / 345 * (low[order[0]] - low[order]), atol=0.2)
    on_line = 62 + 345 * (350 - y) / 340  # where the dashed line has this height
    np.testing.assert_allclose(x - on_line, scale * (high - low)[order], atol=0.3)


def test_each_draw_takes_other_materials_and_an_element_put_back_brings_the_former_ones(page):
    first = state_of(page, dataset=0, mode=OWN)["fitted"]
    assert state_of(page, dataset=0, mode=OWN)["fitted"] == first
    state_of(page, dataset=0, mode=OWN, out=["O"])
    assert state_of(page, dataset=0, mode=OWN)["fitted"] == first
    assert set(state_of(page, dataset=0, mode=OWN, draws=1)["fitted"]) != set(first)


def test_the_heaviest_element_leaves_out_what_is_heavier(page):
    X, *_ = tables("pbe-r2scan")
    symbols = state_of(page, dataset=0, mode=NOTHING)["symbols"]
    state = state_of(page, dataset=0, mode=NOTHING, heaviest=symbols.index("Cl") + 1)
    light = X[:, ATOMIC_NUMBERS["Cl"] :].sum(axis=1) == 0
    assert sorted(state["judged"]) == np.flatnonzero(light).tolist()
    slider = page.find_element("css selector", "input[type=range]")
    assert slider.get_attribute("aria-valuetext") == "Cl"


def test_tiles_show_shift_difference_and_number_and_what_the_fit_does_not_fix(page):
    X, (low, high), _ = tables("pbe-r2scan")
    script = "return [...document.querySelectorAll('.xf-lab-elements button')].map(b => b.lastChild.textContent)"
    symbols = state_of(page, dataset=0, mode=NOTHING, shown=2)["symbols"]
    counts = dict(zip(symbols, page.execute_script(script), strict=True))
    present = (X > 0).sum(axis=0)
    assert counts == {s: str(present[ATOMIC_NUMBERS[s] - 1]) for s in counts}
    state_of(page, dataset=0, mode=NOTHING, shown=1)
    oxides = X[:, [ATOMIC_NUMBERS["O"] - 1]].toarray().ravel() > 0
    mean = 1000 * np.abs(high - low)[oxides].mean()
    assert dict(zip(counts, page.execute_script(script), strict=True))["O"] == f"{mean:.0f}"
    few = state_of(page, dataset=0, mode=OWN, share=3, shown=0)  # 5 %: seven materials
    shown = dict(zip(counts, page.execute_script(script), strict=True))
    fit = fit_atomref(X[few["fitted"]], (high - low)[few["fitted"]])
    for symbol, text in shown.items():
        j = ATOMIC_NUMBERS[symbol] - 1
        if not fit.seen[j]:
            assert text == ""
        elif not fit.determined[j]:
            assert text == "?"
        else:
            assert float(text.replace("−", "-")) == pytest.approx(fit.energies_ev[j], abs=0.051)
    assert {"", "?"} < set(shown.values())


def test_every_control_is_reached_and_moved_by_keyboard_and_has_a_name(page):
    from selenium.webdriver.common.keys import Keys

    state_of(page, dataset=0, mode=NOTHING)
    unnamed = """return [...document.querySelectorAll('.xf-widget :is(input, select, button)')].filter(
      c => !(c.labels && c.labels.length && c.labels[0].textContent.trim()) && !c.textContent.trim()).length"""
    assert page.execute_script(unnamed) == 0
    tiles = page.find_elements("css selector", ".xf-lab-elements button")
    stops = [tile for tile in tiles if tile.get_attribute("tabindex") == "0"]
    assert [tile.text.split()[0] for tile in stops] == ["H"]  # one stop of the Tab key
    stops[0].send_keys(Keys.ARROW_DOWN)
    at = page.switch_to.active_element
    assert at.text.split()[0] == "Li"
    at.send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ARROW_UP)  # nothing is above boron
    at = page.switch_to.active_element
    assert at.text.split()[0] == "B"
    at.send_keys(Keys.SPACE)
    assert at.get_attribute("aria-pressed") == "true"
    X, *_ = tables("pbe-r2scan")
    with_boron = int((X[:, [ATOMIC_NUMBERS["B"] - 1]].toarray() > 0).sum())
    judged = page.execute_script("return document.querySelector('.xf-widget').state.judged")
    assert len(judged) == X.shape[0] - with_boron
    radio = page.find_elements("css selector", "input[type=radio]")
    radio[0].send_keys(Keys.ARROW_DOWN)
    assert radio[1].is_selected()
    said = page.find_element("css selector", ".xf-widget p")
    assert said.get_attribute("aria-live") == "polite"
    assert said.text.startswith("What is subtracted takes the mean difference from")


def test_the_file_asks_for_nothing_and_complains_of_nothing(browser, kept):
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(kept.as_uri())
    state_of(browser, dataset=1, mode=OWN)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert kept.as_uri() in asked
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_the_page_is_light(book_page):
    assert len(gzip.compress(laboratory.one_file(book_page).encode())) < 100_000


HOSTILE = "</script><b>x"


def hostile_dataset():
    """Two elements and their compounds, exactly linear, with names that would be markup."""
    names = ["Li", "F", "LiF", "Li2F", "LiF2"]
    X = composition_matrix(names).toarray()[:, [2, 8]]
    columns = {"composition": names, "prototype": [HOSTILE] * 5}
    for side, c in (("low", [-1.0, -2.0]), ("high", [-3.0, -5.0])):
        columns[f"{side}_energy_per_atom_ev"] = X @ c
        columns[f"{side}_formation_energy_per_atom_ev"] = np.zeros(5)
    real = open_dataset("pbe-r2scan")
    given = {"name": HOSTILE, "label_notice": HOSTILE, "pairs": pd.DataFrame(columns)}
    return SimpleNamespace(**given, functionals=tuple(replace(f, name=HOSTILE) for f in real.functionals))


def test_names_from_data_are_text(browser, tmp_path):
    widget = widgets.laboratory([laboratory.energies_for_page(hostile_dataset())])
    (tmp_path / "page.html").write_text(f"<!doctype html><html><body>{widget.html}</body></html>", encoding="utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    text = browser.find_element("tag name", "body").text
    assert f"LiF ({HOSTILE})" in text
    assert browser.find_elements("tag name", "b") == []
    assert browser.find_element("css selector", "option").text == HOSTILE


# --- what is written into the page ---


@pytest.mark.parametrize("name", laboratory.DATASETS)
def test_energies_come_out_of_the_page_as_they_are_in_the_dataset(name):
    written = json.loads(json.dumps(laboratory.energies_for_page(open_dataset(name))))
    X, energies, formation = tables(name)
    again = composition_matrix(written["formulas"].split(" "))
    np.testing.assert_allclose(again.toarray(), X.toarray(), atol=1e-12)
    columns = [ATOMIC_NUMBERS[symbol] - 1 for symbol, *_ in written["elements"]]
    for side, energy, formed in zip(("low", "high"), energies, formation, strict=True):
        np.testing.assert_allclose(written[side], energy, rtol=0, atol=1e-7)
        ground = again[:, columns] @ np.array(written["ground"][side])
        np.testing.assert_allclose(np.array(written[side]) - ground, formed, rtol=0, atol=1e-6)


def test_every_element_stands_where_pymatgen_puts_it():
    from pymatgen.core import Element

    for symbol in ELEMENT_SYMBOLS:
        element = Element(symbol)
        row, column = laboratory.table_place(symbol)
        if element.is_lanthanoid or element.is_actinoid:
            assert row == element.row + 2
            assert column == 3 + element.Z - (57 if element.is_lanthanoid else 89)
        else:
            assert (row, column) == (element.row, element.group)


def test_data_that_the_page_cannot_show_are_refused_by_name():
    real = open_dataset("pbe-r2scan")
    given = {"name": "own", "label_notice": "", "functionals": real.functionals}
    with pytest.raises(InputError, match="own: no table of pairs"):
        laboratory.energies_for_page(SimpleNamespace(**given, pairs=None))
    pairs = real.pairs.head(4).copy()
    pairs.loc[0, "high_formation_energy_per_atom_ev"] = np.nan
    with pytest.raises(InputError, match="own: not every material has a formation energy"):
        laboratory.energies_for_page(SimpleNamespace(**given, pairs=pairs))
    pairs["composition"] = ["Ca(OH)2", "Li", "Na", "K"]
    with pytest.raises(InputError, match=r"own: 'Ca\(OH\)2': write formulas"):
        laboratory.energies_for_page(SimpleNamespace(**given, pairs=pairs))


# --- the answers ---


def number(text):
    return float(text.split()[0])


def ends(text):
    return [float(end) for end in re.findall(r"[\d.]+", text)[:2]]


def test_the_answers_are_what_the_page_says(page):
    found = laboratory.answers()
    total = state_of(page, dataset=0, mode=NOTHING)
    assert (found["n"], found["all_r"]) == (str(len(total["judged"])), f"{total['r']:.3f}")
    light = state_of(page, dataset=0, mode=NOTHING, heaviest=total["symbols"].index("Cl") + 1)
    assert (found["light_n"], found["light_r"]) == (str(len(light["judged"])), f"{light['r']:.3f}")
    assert found["light_difference"] == f"{light['difference']:.2f} eV/atom"
    formation = state_of(page, dataset=0, mode=GROUND)
    assert found["formation_difference"] == f"{1000 * formation['difference']:.0f} meV/atom"
    left = dict(zip(formation["symbols"], (tile["left"] for tile in formation["tiles"]), strict=True))
    assert found["most_symbol"] == max(left, key=left.get)
    without = {s: state_of(page, dataset=0, mode=GROUND, out=[s])["difference"] for s in formation["symbols"]}
    assert found["key_symbol"] == min(without, key=without.get)
    assert found["key_without"] == f"{1000 * without[found['key_symbol']]:.0f} meV/atom"
    assert found["many_fitted"] == str(len(state_of(page, dataset=0, mode=OWN, share=MOST)["fitted"]))
    assert found["few_fitted"] == str(len(state_of(page, dataset=0, mode=OWN, share=TENTH)["fitted"]))


def test_the_sentences_around_the_answers_are_true_of_the_numbers():
    found = laboratory.answers()
    assert number(found["light_r"]) > number(found["all_r"])  # "goes up"
    assert number(found["light_difference"]) < number(found["all_difference"])
    assert found["most_symbol"] != found["key_symbol"]  # "both answers are right, to two questions"
    assert number(found["key_without"]) < number(found["most_without"]) < number(found["formation_difference"])
    assert number(found["most_n"]) < number(found["key_n"])
    assert ends(found["few_judged"])[1] < number(found["few_others"])  # "the rest"
    few, many = ends(found["few_difference"]), ends(found["many_difference"])
    assert few[0] < many[0] < many[1] < few[1]  # "a matter of luck"
    X, (low, high), _ = tables("pbe-r2scan")
    shift = fit_atomref(X, high - low)
    heavy = np.flatnonzero(shift.determined) >= ATOMIC_NUMBERS["Kr"]
    of_heavy, of_light = (np.abs(shift.energies_ev[shift.determined][rows]) for rows in (heavy, ~heavy))
    assert of_heavy.min() > np.median(of_light)  # "changes most for heavy elements"


def test_the_book_shows_every_answer_and_no_other(book_page, root, monkeypatch):
    shown = set(re.findall(r"\{laboratory\}`(\w+)`", book_page))
    assert shown == set(laboratory.answers())
    monkeypatch.syspath_prepend(str(root / "book" / "_ext"))
    import book_laboratory
    from sphinx.errors import ExtensionError

    role = book_laboratory.Answer()
    role.text = role.rawtext = "all_r"
    (node,), _ = role.run()
    assert node.astext() == laboratory.answers()["all_r"]
    role.text = "gone"
    with pytest.raises(ExtensionError, match="no answer 'gone'; it has: n, light_n"):
        role.run()


def test_the_one_file_has_the_tasks_and_no_answers(book_page):
    html = laboratory.one_file(book_page, {})
    assert html.count("<h3>Lesson") == 3
    text = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert not re.search(r"\{[a-z-]+\}`|:::|Answer", text)
    assert not re.search(r"""(src|href)=["']|fetch\(|import\(""", html)
    with pytest.raises(InputError, match="the page shows no laboratory"):
        laboratory.one_file("# Another page\n")
