"""The debate: rows of the page of claims with the verdicts and numbers of that page, from kept runs and fresh ones."""

import json
import re
from types import SimpleNamespace

import pytest
import yaml

from crossfunc.lessons import claims as rules
from crossfunc.lessons import course as courses
from crossfunc.lessons.debate import debate_text, verdict_lines
from crossfunc.lessons.sources import LessonError, own_lessons

CLAIM = {
    "claim": "They agree.",
    "where": "Fig. 9",
    "result": "01_x:r",
    "holds": "< -0.5",
    "short": "Decided by few steps.",
    "limits": "It is {result}`01_x:r@surrogate` for other reasons.",
}


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one claim, a kept run on surrogate labels, and a function that writes results."""

    def write(folder, labelled_by, value, **changes):
        row = {"key": "r", "title": "Slope $q$", "value": value, "unit": "eV", "paper": None, "why": "", "note": ""}
        row |= {"interval": [value - 0.125, value + 0.125]} | changes
        about = {"lesson": "01_x", "dataset": "d", "label_notice": "", "labelled_by": labelled_by, "results": [row]}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "01_x.json").write_text(json.dumps(about))

    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims.yml").write_text(yaml.safe_dump([CLAIM]))
    write(tmp_path / "book" / "kept" / "surrogate", "model, CHGNet", -0.25)
    return SimpleNamespace(root=tmp_path, write=write)


def test_a_claim_has_its_rule_and_a_verdict_with_its_number_on_each_kind_of_labels(checkout):
    plan = SimpleNamespace(lesson=SimpleNamespace(stem="01_x"), results=checkout.root / "results")
    checkout.write(plan.results, "DFT, GPAW", -0.75, note="3 seeds")
    assert verdict_lines(checkout.root, ["They agree."], [plan])["They agree."] == [
        "It holds if “Slope q” is below −0.5. Where it is made: Fig. 9.",
        "",
        "- on DFT, **holds**: −0.75 ± 0.12 eV (`d`); 3 seeds",
        "- on surrogate labels, **does not hold here**: −0.25 ± 0.12 eV (`d`)",
        "",
        "What surrogate labels can say: Decided by few steps. It is −0.25 ± 0.12 eV for other reasons.",
        "",
    ]


def test_a_run_that_is_kept_judges_where_no_lesson_was_executed(checkout):
    (_, _, only, *_) = verdict_lines(checkout.root, ["They agree."], [])["They agree."]
    assert only.startswith("- on surrogate labels, **does not hold here**")
    (checkout.root / "book" / "kept" / "surrogate" / "01_x.json").unlink()
    assert verdict_lines(checkout.root, ["They agree."], [])["They agree."] == [
        "No run has judged it here: execute 01_x.",
        "",
    ]


def test_a_claim_that_the_page_does_not_have_or_cannot_judge_is_named(checkout):
    with pytest.raises(LessonError, match=r"book/claims.yml has no claim 'They differ.': write it as it stands there"):
        verdict_lines(checkout.root, ["They differ."], [])
    (checkout.root / "book" / "claims.yml").write_text(yaml.safe_dump([CLAIM | {"holds": "about right"}]))
    with pytest.raises(LessonError, match=r"debate: .*'They agree.': mend holds"):
        verdict_lines(checkout.root, ["They agree."], [])
    (checkout.root / "book" / "claims.yml").unlink()
    assert verdict_lines(checkout.root, ["They agree."], []) == {}  # a checkout without a page of claims


def test_arguments_stand_behind_the_verdicts_and_alone_without_any():
    debate = [{"claim": "They agree.", "for": ["They do."], "against": ["Not all."]}]
    arguments = "For the claim:\n\n- They do.\n\nAgainst it:\n\n- Not all.\n"
    assert f"## They agree.\n\nIt holds.\n\n{arguments}" in debate_text(debate, {"They agree.": ["It holds.", ""]})
    alone = debate_text(debate, {})
    assert f"## They agree.\n\n{arguments}" in alone
    assert "converged" not in alone


def test_every_row_of_the_books_debate_is_judged_and_no_role_is_left(root):
    course = courses.read_course(own_lessons() / "course.yml")
    claims = [one["claim"] for one in course.debate]
    text = debate_text(course.debate, verdict_lines(root, claims, []))
    assert text.count("It holds if “") == len(claims) == 6
    assert not re.search(r"\{\w+\}|No run", text)
    verdicts = re.findall(r"^- on [\w ]+, \*\*([\w ]+)\*\*", text, re.M)
    assert len(verdicts) >= len(claims)
    assert set(verdicts) <= set(rules.VERDICTS)
