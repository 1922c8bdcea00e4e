"""`results.yml`: a lesson records a key and a value, and the file says what the number is."""

import re
from types import SimpleNamespace

import pytest
import yaml

from crossfunc.lessons import LessonResults, ResultsError
from crossfunc.lessons.declared import DeclarationError, find_declarations, read_declarations, unused_keys
from crossfunc.lessons.sources import own_lessons

FILE = """
03_atomref:
  pearson: {title: Pearson r, paper: 0.22, where: Fig. 2a, why: "{differs}"}
  mae: {title: "Error, {model}", unit: meV/atom, note: "{n} seeds"}
  dft: {title: From DFT, when: CROSSFUNC_DATA holds entries}
"""
SURROGATE = SimpleNamespace(name="surrogate", label_notice="", meta={"differs_from_paper": "made by a model"})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "results.yml"
    path.write_text(FILE)
    return path


def recorder(file, lesson="03_atomref"):
    return LessonResults(lesson, None, SURROGATE, declared=file)


def test_words_come_from_the_file_and_their_gaps_from_the_lesson(file):
    results = recorder(file)
    results.record("pearson", 0.31, (0.25, 0.36))
    results.record("mae", 12.0, model="Method 4", n=3)
    first, second = results.to_dict()["results"]
    assert (first["title"], first["paper"], first["why"]) == ("Pearson r", 0.22, "made by a model")
    assert first["interval"] == (0.25, 0.36)
    assert (second["title"], second["unit"], second["note"]) == ("Error, Method 4", "meV/atom", "3 seeds")
    assert "where" not in first


@pytest.mark.parametrize(
    ("key", "fields", "message"),
    [
        ("perason", {}, "result 'perason' is not in results.yml"),
        ("mae", {"model": "Method 4"}, "asks for n: give it"),
        ("mae", {"model": "Method 4", "n": 3, "k": 1}, r"has no \{k\} there"),
        ("pearson", {"title": "another"}, r"has no \{title\} there"),
    ],
)
def test_a_key_or_a_gap_that_does_not_fit_is_named(file, key, fields, message):
    with pytest.raises(ResultsError, match=rf"03_atomref: .*{message}"):
        recorder(file).record(key, 1.0, **fields)


def test_a_lesson_without_a_section_says_everything_itself(file):
    results = recorder(file, "04_other")
    results.record("n", 3, title="Number", note="of rows")
    assert results.to_dict()["results"][0]["title"] == "Number"
    with pytest.raises(TypeError, match=r"not in results\.yml"):
        results.record("m", 3)


def test_a_promised_key_that_was_not_recorded_is_told_and_a_conditional_one_is_not(file):
    declared = read_declarations(file)
    assert unused_keys("03_atomref", ["pearson"], declared) == ["mae"]
    assert unused_keys("03_atomref", ["pearson", "mae"], declared) == []
    assert unused_keys("04_other", [], declared) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("03_atomref: {a: {unit: eV}}", "03_atomref: a needs a title"),
        ("03_atomref: {a: {title: t, papr: 1}}", "03_atomref: a: no such entry: papr"),
        ("03_atomref: 1", "03_atomref needs keys"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_a_file_that_says_nothing_useful_is_refused(tmp_path, text, message):
    path = tmp_path / "results.yml"
    path.write_text(text)
    with pytest.raises(DeclarationError, match=rf"results.yml: .*{message}"):
        read_declarations(path)


def test_the_file_beside_the_lesson_goes_before_the_packages_own(file):
    assert find_declarations(file.parent) == file
    file.unlink()
    assert find_declarations(file.parent) == own_lessons() / "results.yml"
    assert (own_lessons() / "01_data_statistics.py").is_file()


def test_the_papers_numbers_say_where_they_stand():
    for lesson, section in read_declarations(own_lessons() / "results.yml").items():
        for key, entry in section.items():
            if entry.paper is not None:
                assert entry.where, f"{lesson}: {key}: where in the paper?"
                assert entry.why, f"{lesson}: {key}: why do the numbers differ?"


# --- the paper's numbers ---


def derived(key):
    """Operation and the two entries that a key of `results.yml` is made from, by its name; None for any other."""
    if found := re.fullmatch(r"(\w+?)_(\d)_minus_(\d)", key):
        quantity, one, other = found.groups()
        return "-", f"{quantity}_mae_method_{one}", f"{quantity}_mae_method_{other}"
    if found := re.fullmatch(r"ratio_(\d)_to_(\d)", key):
        return "/", *(f"energy_mae_method_{method}" for method in found.groups())
    return None


def test_differences_and_ratios_of_the_papers_numbers_are_those_of_their_entries():
    declared = yaml.safe_load((own_lessons() / "results.yml").read_text(encoding="utf-8"))
    checked = []
    for lesson, rows in declared.items():
        for key, row in rows.items():
            made = derived(key)
            if made is None or not isinstance(row.get("paper"), int | float):
                continue
            sign, *names = made
            one, other = (rows[name]["paper"] for name in names)
            right = one - other if sign == "-" else one / other
            digits = len(str(row["paper"]).partition(".")[2])
            assert round(right, digits) == row["paper"], (
                f"{lesson}: {key} is {row['paper']}, its entries give {right:g}"
            )
            checked.append(key)
    assert len(checked) >= 3
