"""The debate: rows of the page of claims with the verdicts and numbers of that page, from kept runs and fresh ones."""

import json
import re
from types import SimpleNamespace

import pytest
import yaml

from crossfunc.lessons import claims as rules
from crossfunc.lessons import course as courses
from crossfunc.lessons.debate import (
    RULE_OF_VERDICTS,
    Ruling,
    Verdict,
    debate_text,
    rulings,
    sheet_lines,
    slips_page,
)
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


def test_a_claim_has_its_rule_and_numbers_and_apart_from_them_a_verdict_on_each_kind_of_labels(checkout):
    plan = SimpleNamespace(lesson=SimpleNamespace(stem="01_x"), results=checkout.root / "results")
    checkout.write(plan.results, "DFT, GPAW", -0.75, note="3 seeds")
    assert rulings(checkout.root, ["They agree."], [plan])["They agree."] == Ruling(
        "It holds if “Slope q” is below −0.5. Where it is made: Fig. 9.",
        ["on DFT: −0.75 ± 0.12 eV (3 seeds)", "on surrogate labels: −0.25 ± 0.12 eV"],
        [
            Verdict("on DFT", "holds", number="−0.75 ± 0.12 eV"),
            Verdict("on surrogate labels", "does not hold here", number="−0.25 ± 0.12 eV"),
        ],
        "What surrogate labels can say: Decided by few steps. It is −0.25 ± 0.12 eV for other reasons.",
        "Slope q",
        "below −0.5",
    )


def test_what_a_run_needs_is_for_both_sides_and_its_reason_names_no_key(checkout):
    (checkout.root / "notebooks").mkdir()
    said = {"01_x": {"steps": {"title": "Steps of {n}"}, "r": {"title": "Slope"}}}
    (checkout.root / "notebooks" / "results.yml").write_text(yaml.safe_dump(said))
    needing = CLAIM | {"needs": {"r < 0": "it rises", "steps > 9": "the run was short"}}
    (checkout.root / "book" / "claims.yml").write_text(yaml.safe_dump([needing]))
    ruling = rulings(checkout.root, ["They agree."], [])["They agree."]
    assert ruling.rule.endswith(" A run cannot judge it if it rises, or if the run was short.")
    (verdict,) = ruling.verdicts
    reason = "because an older run did not record “Steps of n”"
    assert verdict == Verdict("on surrogate labels", "unclear", reason, "−0.25 ± 0.12 eV")


def test_a_run_that_is_kept_judges_where_no_lesson_was_executed(checkout):
    ruling = rulings(checkout.root, ["They agree."], [])["They agree."]
    assert ruling.verdicts == [Verdict("on surrogate labels", "does not hold here", number="−0.25 ± 0.12 eV")]
    (checkout.root / "book" / "kept" / "surrogate" / "01_x.json").unlink()
    assert rulings(checkout.root, ["They agree."], [])["They agree."] == Ruling(
        "No run has judged it here: execute 01_x."
    )


def test_a_claim_that_the_page_does_not_have_or_cannot_judge_is_named(checkout):
    with pytest.raises(LessonError, match=r"book/claims.yml has no claim 'They differ.': write it as it stands there"):
        rulings(checkout.root, ["They differ."], [])
    (checkout.root / "book" / "claims.yml").write_text(yaml.safe_dump([CLAIM | {"holds": "about right"}]))
    with pytest.raises(LessonError, match=r"debate: .*'They agree.': mend holds"):
        rulings(checkout.root, ["They agree."], [])
    (checkout.root / "book" / "claims.yml").unlink()
    assert rulings(checkout.root, ["They agree."], []) == {}  # a checkout without a page of claims


DEBATE = [{"claim": "They agree.", "for": ["They do."], "against": ["Not all."], "close": "Some do."}]


def test_arguments_stand_behind_the_verdicts_and_alone_without_any():
    ruling = Ruling("It holds if so.", ["on DFT: 3 ± 1"], [Verdict("on DFT", "holds")], "Little.")
    arguments = "For the claim:\n\n- They do.\n\nAgainst it:\n\n- Not all.\n\nTo close: Some do.\n"
    said = "It holds if so.\n\n- on DFT: 3 ± 1\n\nVerdict:\n\n- on DFT: **holds**\n\nLittle.\n"
    assert f"## They agree.\n\n{said}\n{arguments}" in debate_text(DEBATE, {"They agree.": ruling})
    alone = debate_text(DEBATE, {})
    assert f"## They agree.\n\n{arguments}" in alone
    assert "converged" not in alone
    assert RULE_OF_VERDICTS in alone


def test_a_slip_has_rule_and_numbers_on_both_halves_and_one_side_on_each_and_no_verdict():
    ruling = Ruling("It holds if <b>so</b>.", ["on DFT: 3 ± 1"], [Verdict("on DFT", "unclear", "too short")], "Little.")
    page = slips_page([*DEBATE, DEBATE[0] | {"claim": "Again."}], {"They agree.": ruling})
    first, second = page.split("<section>")[1:]
    upper, lower = first.split("</div><div>")
    for half in (upper, lower):
        assert "They agree." in half
        assert "It holds if &lt;b&gt;so&lt;/b&gt;." in half  # a title from data is text
        assert "on DFT: 3 ± 1" in half
        assert RULE_OF_VERDICTS in half
    assert ("They do." in upper, "They do." in lower) == (True, False)
    assert ("Not all." in upper, "Not all." in lower) == (False, True)
    assert "Again." in second
    assert "too short" not in page
    assert "Little." not in page
    assert "Some do." not in page  # a sentence to close with says the verdict
    assert "<script" not in page
    assert "min-height: 11cm" in page  # two halves fit on A4 and on Letter, with margins


def test_slips_say_whether_a_run_meets_what_the_claim_needs_and_the_sheet_what_follows(checkout):
    needs = {"r < 0": "it is not below zero", "r < -9": "it does not go far", "steps > 9": "it has no steps"}
    (checkout.root / "book" / "claims.yml").write_text(yaml.safe_dump([CLAIM | {"needs": needs}], sort_keys=False))
    found = rulings(checkout.root, ["They agree."], [])
    (number,) = found["They agree."].numbers
    facts = "It is below zero: yes. It does go far: no. It has steps: not recorded"
    assert number == f"on surrogate labels: −0.25 ± 0.12 eV. {facts}"
    assert facts in slips_page(DEBATE, found)
    assert "- on surrogate labels −0.25 ± 0.12 eV: **unclear**, it does not go far" in sheet_lines(DEBATE, found)


def test_a_claim_on_the_sheet_has_verdicts_with_numbers_and_why_the_best_of_each_side_and_how_to_close():
    verdicts = [
        Verdict("on DFT", "holds", "", "−3 ± 1 eV"),
        Verdict("on surrogate labels", "unclear", "too short", "2 eV"),
        Verdict("on others", "unclear", "too short", "3 eV"),
        Verdict("at last", "does not hold here", "", "4 ± 1 eV"),
    ]
    found = {"They agree.": Ruling("It holds.", ["n"], verdicts, "Little.", "Slope", "below −0.5")}
    sides = {"for": ["They do.", "Second."], "against": ["Not all.", "Third."]}
    lines = sheet_lines([DEBATE[0] | sides, DEBATE[0] | {"claim": "Again."}], found)
    end = lines.index("### 2. Again.")
    assert lines[:end] == [
        "### 1. They agree.",
        "",
        "It holds if “Slope” is below −0.5.",
        "",
        "- on DFT −3 ± 1 eV: **holds**, the whole interval is below −0.5",
        "- on surrogate labels 2 eV; on others 3 eV: **unclear**, too short",
        "- at last 4 ± 1 eV: **does not hold here**, the whole interval is not below −0.5",
        "- best for: They do.",
        "- best against: Not all.",
        "- to close: Some do.",
        "",
    ]
    assert lines[end:] == ["### 2. Again.", "", *lines[7:end]]  # a checkout without claims
    assert "- No run." in sheet_lines(DEBATE, {"They agree.": Ruling("No run.")})


def test_an_interval_that_reaches_across_is_a_reason(checkout):
    checkout.write(checkout.root / "book" / "kept" / "surrogate", "model, CHGNet", -0.5)
    (verdict,) = rulings(checkout.root, ["They agree."], [])["They agree."].verdicts
    assert verdict[:3] == ("on surrogate labels", "unclear", "the interval reaches across")


def test_every_reason_behind_a_need_has_a_negation_to_take_out(root):
    reasons = {reason for claim in rules.read_claims(root) for reason in claim.get("needs", {}).values()}
    assert len(reasons) > 4
    assert [reason for reason in reasons if not re.search(r"\b(?:not|no) ", reason)] == []


def test_every_row_of_the_books_debate_is_judged_and_no_role_and_no_key_is_left(root):
    course = courses.read_course(own_lessons() / "course.yml")
    claims = [one["claim"] for one in course.debate]
    found = rulings(root, claims, [])
    text, slips = debate_text(course.debate, found), slips_page(course.debate, found)
    assert text.count("It holds if “") == len(claims) == 6
    assert not re.search(r"\{\w+\}|No run", text)
    verdicts = re.findall(r"^- on [\w ]+: \*\*([\w ]+)\*\*", text, re.M)
    assert len(verdicts) >= len(claims)
    assert set(verdicts) <= set(rules.VERDICTS)
    assert not re.search(r"\b[a-z0-9]+_[a-z0-9_]+\b", text + re.sub(r"<style>.*</style>", "", slips, flags=re.S))
    assert not re.search(r"\d.*\*\*(holds|unclear|does not)", text)  # a verdict stands on a line of its own
    assert "<strong>holds" not in slips
    assert slips.count("<section>") == len(claims)


def test_a_claim_of_the_book_takes_few_lines_of_the_sheet_and_names_no_key(root):
    course = courses.read_course(own_lessons() / "course.yml")
    claims = [one["claim"] for one in course.debate]
    text = "\n".join(sheet_lines(course.debate, rulings(root, claims, [])))
    blocks = [block.strip().splitlines() for block in text.split("### ")[1:]]
    assert [block[0] for block in blocks] == [f"{k}. {claim}" for k, claim in enumerate(claims, start=1)]
    assert max(len([line for line in block if line]) for block in blocks) <= 8
    assert text.count(": **") >= len(claims)
    assert not re.search(r"\b[a-z0-9]+_[a-z0-9_]+\b|\{\w+\}", text)
    closing = [one["close"] for one in course.debate]
    assert [said for said in closing if not (said[0].isupper() and said.endswith(".") and len(said) < 240)] == []
    assert len({said for one in course.debate for said in (one["for"][0], one["against"][0], one["close"])}) == 18
