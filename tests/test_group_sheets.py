"""Sheets of the groups: what the second task prints, and what those who teach have of it."""

import re
from fractions import Fraction

import pandas as pd

from crossfunc.datasets import open_dataset
from crossfunc.lessons import group_outcomes, group_sheets, verdicts
from crossfunc.lessons.course_file import read_course
from crossfunc.lessons.group_outcomes import Outcome
from crossfunc.lessons.sources import find_lessons, own_lessons


def test_a_closest_call_is_named_where_no_verdict_is_wrong():
    report = pd.DataFrame({"id": ["A", "B", "C"], "reference_ev": [-0.2, 0.1, 0.3], "model_ev": [-0.1, 0.002, None]})
    right, wrong = report, report.assign(model_ev=[0.05, -0.04, 0.001])
    table = verdicts.close_calls({"right": right, "wrong": wrong, "empty": report.iloc[:0]})
    assert table.columns.tolist() == [*verdicts.CALLS, *verdicts.CLOSEST]
    assert table.loc["right"].tolist() == ["none", "none", "B", 2.0, 100.0]
    assert table.loc["wrong"].tolist() == ["B", "A", "C", 1.0, 300.0]
    assert table.loc["empty"].tolist()[:2] == ["none", "none"]
    many = pd.DataFrame({"id": [*"ABCDE"], "reference_ev": [-0.2] * 5, "model_ev": [0.1] * 5})
    assert verdicts.close_calls({"many": many}).loc["many"].tolist()[:2] == ["none", "A, B, 3 more"]


def test_lesson_6_fills_points_in_one_cell_and_the_sheet_asks_for_what_it_imports():
    (lesson,) = [one for one in find_lessons(own_lessons()) if one.number == "06"]
    cells = [one.source for one in lesson.notebook().cells if one.cell_type == "code"]
    assert len([source for source in cells if group_outcomes._FILLED in source]) == 1
    assert any("    verdicts,\n" in source for source in cells)
    group = {"name": "an oxide", "binary": ["Fe", "O"], "by_hand": "Fe2O3"}
    phases = pd.DataFrame({"phase": [], "share": [], "energy": []})
    phases.attrs["label_notice"] = ""
    assert "`verdicts.close_calls(points)`" in group_sheets.group_text("A", group, "06_x", phases)


FOUND = [("A", "Fe2O3", "Fe + O", "-1.000 eV/atom"), ("B", "NiO", "Ni + O", "-2.000 eV/atom")]
START, OTHER = "GGA model as it comes", "model-aware, then trained"


def row(in_vain, missed, *closest):
    return dict(zip([*verdicts.CALLS, *verdicts.CLOSEST], (in_vain, missed, *closest), strict=True))


def key_of(**rows):
    """The line of group A where these rows, by the last word of a model's name, are not as all others."""
    names = {name.split()[-1]: name for name in (START, *verdicts.METHODS, OTHER)}
    as_reference = row("none", "none", "FeO", -30.0, -40.0)
    calls = {name: rows.get(f"m_{word}", as_reference) for word, name in names.items()}
    calls[verdicts.PUBLISHED] = rows.get("published", row("none", "none", "Fe3O4", -1.0, -1.0))
    lines = group_sheets.second_task_lines({"A": Outcome("", calls)})
    at, line = next((k, line) for k, line in enumerate(lines) if line.startswith("- **A**: "))
    own = [line.removeprefix("- **A**: "), *(after[4:] for after in lines[at + 1 :] if after.startswith("  - "))]
    return " ".join(own)


def test_the_key_has_what_each_group_sees_or_how_to_get_it():
    known = group_sheets.key_text(FOUND[:1], {"A": Outcome("model  none  FeO", {})})
    assert "- **A**: Fe2O3 → Fe + O, -1.000 eV/atom" in known
    assert "Group A sees:\n\n```text\nmodel  none  FeO\n```" in known
    assert "`--groups`" not in known
    unknown = group_sheets.key_text(FOUND, {"A": Outcome("model", {})})
    assert "What the second task comes to in group B is not known yet" in unknown
    assert "in groups A and B is not known yet: give the command" in group_sheets.key_text(FOUND, {})


def test_the_page_on_groups_has_what_the_sheet_says_of_good_answers():
    page = " ".join(group_sheets.key_text(FOUND, {}).split())
    for gist in (group_sheets.FIRST_ANSWER, group_sheets.GOOD_ANSWER, group_sheets.THIRD_ANSWER):
        assert " ".join(gist.split()) in page
    assert "Good answers say *why*" in group_sheets.GOOD_ANSWER
    assert "by construction: that is no success" in group_sheets.GOOD_ANSWER
    assert "the labels are why" in group_sheets.FIRST_ANSWER
    assert group_sheets.THIRD_ANSWER.startswith("Good sentences on what it cannot show name")


NUMBER = r"\(?(−?\d+(?:\.\d{3}|/\d+))\)?"


def numbers_of(line):
    """The numbers of a sum and its lever rule; the last is None where it needs no other than the rounded one."""
    lever = r"of \S+ \({1} − {1}\) / \({1} − {1}\) = {0}; "
    pattern = lever + r"{0} × {0} \+ {0} × {0} = {0}; {0} − {0} = {0}(?: \((−?\d+\.\d{{3}}) before rounding\))?"
    found = re.fullmatch(pattern.format(NUMBER, r"([\d/]+)"), line)
    assert found, line
    return [number and Fraction(number.replace("−", "-")) for number in found.groups()]


def test_the_first_task_is_solved_with_the_numbers_of_each_groups_sheet():
    dataset = open_dataset("surrogate")
    groups = read_course(own_lessons() / "course.yml").groups
    assert len(groups) == 6
    for group in groups:
        phases, name = verdicts.lowest_phases(dataset, group["binary"]), group["by_hand"]
        left, right, energy = verdicts.decompose(phases, name)
        line = group_sheets.lever_line(phases, name, left, right, energy)
        far, at, end, near, lever, a, of_left, b, of_right, band, own, again, found, exact = numbers_of(line)
        assert (far - at) / (end - near) == lever == a
        assert a + b == 1
        assert abs(band - (a * of_left + b * of_right)) <= Fraction("0.0005")
        assert band == again
        assert found == own - band
        sheet = group_sheets.group_text("A", group, "06_x", phases)
        places = {}
        for phase, value in ((left, of_left), (right, of_right), (name, own)):
            (place,) = re.findall(rf"^\| {phase} \| (\S+)(?: \(\S+\))? \| {float(value):.3f} \|$", sheet, re.M)
            places[phase] = Fraction(place)
        assert (far, at, end, near) == (places[right], places[name], places[right], places[left])
        assert f"{energy:.3f}" == f"{float(found if exact is None else exact):.3f}"
        assert abs(found - energy) < 0.002


def test_a_sum_has_no_minus_before_a_zero_and_the_exact_number_where_rounding_shows():
    rows = [("A", 0.0, -0.0001), ("AB", 0.5, -0.0004), ("B", 1.0, 0.25)]
    phases = pd.DataFrame(rows, columns=["phase", "share", "energy"])
    assert group_sheets.lever_line(phases, "AB", "A", "B", -0.12535) == (
        "of A (1 − 1/2) / (1 − 0) = 0.500; 0.500 × 0.000 + 0.500 × 0.250 = 0.125; 0.000 − 0.125 = −0.125"
    )
    line = group_sheets.lever_line(phases.replace(-0.0004, -0.0006), "AB", "A", "B", -0.12555)
    assert line.endswith("; 0.500 × 0.000 + 0.500 × 0.250 = 0.125; −0.001 − 0.125 = −0.126")
    assert group_sheets.lever_line(phases, "AB", "A", "B", -0.1266).endswith(" = −0.125 (−0.127 before rounding)")


def test_models_that_agree_share_the_words_of_a_line():
    assert key_of(
        m_1=row("none", "Fe2O3, FeO, 4 more", "Li2O", 2.2, -1792.6), m_3=row("FeO2", "none", "FeO", -35, -40)
    ) == (
        "Method 1 misses Fe2O3, FeO, 4 more; Method 3 looks in vain for FeO2; no other model judges otherwise. "
        "Closest call of all but Method 1: FeO, stable by 30.0 to 35.0 meV/atom (reference: stable by 40.0); "
        "of Method 1: Li2O, unstable by 2.2 meV/atom (reference: stable by 1792.6)."
    )
    assert key_of().startswith("No model judges otherwise than the reference. Closest call of all: FeO, stable by 30.0")
    both, missed = row("X", "Y", "FeO", 5.0, -40.0), row("none", "Y", "FeO", -5.0, -40.0)
    assert key_of(m_1=both, **{f"m_{k}": missed for k in ("comes", "2", "3", "4", "trained")}).startswith(
        "All but Method 1 miss Y; Method 1 misses Y and looks in vain for X. "
        "Closest call of all: FeO, stable by 5.0 or unstable by 5.0 meV/atom"
    )
    nothing = row("none", "none", None, None, None)
    names = ("comes", "1", "2", "3", "4", "trained")
    assert key_of(**{f"m_{k}": nothing for k in names}) == "No model judges otherwise than the reference."


def test_the_model_that_made_the_labels_is_no_success_and_named_where_it_differs():
    assert "ublished" not in key_of()
    assert key_of(published=row("none", "Fe3O4", "Fe3O4", 1.0, -1.0)).startswith(
        "Published r²SCAN model misses Fe3O4; no"
    )


def test_names_of_data_are_text_on_sheet_and_page():
    line = key_of(m_1=row("<b>*X*</b>", "none", "[a](b)_c_", 2.0, 1.0))
    assert "\\<b\\>\\*X\\*\\</b\\>" in line
    assert "\\[a\\](b)\\_c\\_" in line
    first = group_sheets.key_lines([("A", "*X*", "<i> + O", "-1.000 eV/atom")])
    assert first == ["**A**: \\*X\\* → \\<i\\> + O, -1.000 eV/atom"]
    key = group_sheets.key_text(FOUND[:1], {"A": Outcome("```\n# X\x1b", {})})
    assert "````text\n```\n# X\\x1b\n````" in key
