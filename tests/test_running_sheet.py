"""The running sheet: numbers on students' screens, what the book's pages say aloud, figures beside their words."""

import base64
import json
import re
from fractions import Fraction
from io import BytesIO
from types import SimpleNamespace

import nbformat
import pytest
from test_course import COURSE, PAGE, PNG

from crossfunc.lessons import course as courses
from crossfunc.lessons import course_file, declared, four_methods, running_sheet, wording
from crossfunc.lessons.debate import Ruling, Verdict
from crossfunc.lessons.figures import references as draw
from crossfunc.lessons.running_sheet import Aside, Block, read_asides, running_page
from crossfunc.lessons.slides import slide_titles
from crossfunc.lessons.sources import LessonError, find_lessons, own_lessons

TEACH = """# Teach

1. Print.
2. Say once, early, which labels a page shows: {term}`DFT`, mostly.

**The board before lesson 3.** Two elements.
Their sum gives $a + b$.

**The board in lesson 4b.** A step.
A second one.

**Who and what, in a line each.** “The paper” is one.
CHGNet is {term}`a network <CHGNet>`.

**Six rows.** No.
"""


@pytest.fixture
def book(tmp_path):
    (tmp_path / "teach.md").write_text(TEACH)
    (tmp_path / "functionals.md").write_text(PAGE)
    return tmp_path


def test_board_labels_and_questions_come_from_the_pages_of_the_book(book):
    found = read_asides(book)
    assert found.boards == {"03": ["Two elements.", "Their sum gives a + b."]}
    assert found.boards_within == {"04b": ["A step.", "A second one."]}
    assert found.labels == "Say once, early, which labels a page shows: DFT, mostly."
    assert found.look_ups == ("“The paper” is one.", "CHGNet is a network.")
    assert found.primer == ("Functionals", "Why two", "On paper")
    assert found.questions == (("Which?", "The secret one."),)
    assert read_asides(book / "not there") == Aside()


def test_a_page_that_lost_what_the_sheet_takes_from_it_is_named(book):
    (book / "teach.md").write_text(TEACH.replace("The board before", "On the board before"))
    with pytest.raises(
        LessonError, match=r"teach.md: the running sheet takes a paragraph “\*\*The board before lesson"
    ):
        read_asides(book)
    (book / "teach.md").write_text(TEACH)
    (book / "functionals.md").write_text(PAGE.replace("1. The secret", "The secret"))
    with pytest.raises(LessonError, match=r"functionals.md: 1 questions and 0 answers"):
        read_asides(book)


def test_the_books_own_pages_have_board_labels_and_three_questions(root):
    found = read_asides(root / "book", wording.page_titles(root / "book"))
    assert (list(found.boards), list(found.boards_within)) == (["03"], ["04b"])
    assert len(found.boards["03"]) > 3
    assert not re.search(r"[{}`$\\\\]", "".join(found.boards_within["04b"]))
    assert len(found.questions) == 3
    assert len(found.look_ups) == 6
    course = courses.read_course(root / "notebooks" / "course.yml")
    assert tuple(course.primer) == found.primer  # something to say at each slide
    assert not re.search(r"[{}`$]", " ".join(found.look_ups))
    assert not re.search(r"[{}`$\\\\]", "".join(found.boards["03"]) + found.labels + str(found.questions))


def test_the_fit_on_the_board_is_right(root):
    import numpy as np

    said = " ".join(read_asides(root / "book").boards["03"]).replace("−", "-")
    fractions = np.array([[1 / 2, 1 / 2], [2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    shift = np.array([float(x) for x in re.search(r"AB (\S+), A₂B (\S+), AB₂ (\S+)\. ", said).groups()])
    (aa, ab, a), (ba, bb, b) = np.column_stack([fractions.T @ fractions, fractions.T @ shift]) * 36
    assert f"{aa:.0f} a + {ab:.0f} b = {a:.1f} and {ba:.0f} a + {bb:.0f} b = {b:.1f}" in said
    whole = f"Their sum is {aa + ab:.0f} (a + b) = {a + b:.1f}, so a + b = {(a + b) / (aa + ab):.1f} eV"
    rest = f"their difference {aa - ab:.0f} (a - b) = {a - b:.1f}, so a - b = {(a - b) / (aa - ab):.1f} eV"
    a, b = np.linalg.lstsq(fractions, shift, rcond=None)[0]
    assert f"{whole}, and {rest}, which makes a = {a:.2f} and b = {b:.2f} eV" in said
    sums = re.search(
        r"squared shares, ([\d/+ ]+), and 25/36 that of their products, ([\d/+ ]+); .* differences, ", said
    )
    for written, right in zip(sums.groups(), (aa, ab), strict=True):
        assert sum(Fraction(term) for term in written.split("+")) == Fraction(round(right), 36)
    on_the_right = re.search(r"stand shares times differences, (.+?) and (.+?)\. Their sum", said).groups()
    for written, right in zip(on_the_right, fractions.T @ shift, strict=True):
        terms = re.findall(r"-\s?(?:(\d)·)?([\d.]+)/(\d)", written)
        assert len(terms) == 3
        assert -sum(float(times or 1) * float(over) / float(by) for times, over, by in terms) == pytest.approx(right)
    assert f"only a + b is known, {2 * shift[0]:.1f} eV now" in said
    left = [f"{x:+.2f}" for x in shift - fractions @ [a, b]]
    assert f"What is left is {left[0]}, {left[1]} and {left[2]}:" in said


def test_the_lines_on_the_board_of_lesson_4b_are_right_and_stand_there_alone(root):
    import math

    said = " ".join(read_asides(root / "book").boards_within["04b"])
    rate, mean, way, steps, rare, length = (
        float(found.replace(",", ""))
        for found in re.search(
            r"moves a reference by (\S+) eV per step.* n times (\S+) eV, and (\S+) eV takes (\S+) steps.*"
            r"so 1 eV takes (\S+) steps.*on our DFT, (\d+) eV",
            said,
        ).groups()
    )
    assert f"at {rate:g} a pull" in said
    assert (mean, steps) == (rate / 2, way / mean)
    assert "one step in four shows has a quarter of the mean and half of the root mean square" in said
    assert rare == steps * math.sqrt(4)
    course = courses.read_course(root / "notebooks" / "course.yml")
    assert f"farthest way is about {length:.0f} eV" in course.exercises["04b.1"]["paper"]
    file = (root / "notebooks" / "course.yml").read_text(encoding="utf-8")
    assert "root mean square" not in file
    assert course.figures["fig-04-moved"]["say"].endswith("Then the board.")


def plan_of(folder, profile, rows):
    folder.mkdir()
    about = {"lesson": "06_x", "dataset": "d", "label_notice": "", "labelled_by": "", "results": rows}
    (folder / "06_x.json").write_text(json.dumps(about))
    lesson = SimpleNamespace(number="06", stem="06_x")
    return SimpleNamespace(lesson=lesson, profile=profile, results=folder)


def row(key, value, interval=None):
    told = {"title": f"Title of ${key}$", "unit": "eV", "paper": None, "why": "", "note": ""}
    return {"key": key, "value": value, "interval": interval, **told}


@pytest.fixture
def sizes(tmp_path):
    slides = plan_of(tmp_path / "a", "laptop", [row("r", 2.0, [1.0, 3.0]), row("gone", 1.0)])
    return slides, plan_of(tmp_path / "b", "smoke", [row("r", 4.0, [3.0, 5.0])])


def screens(plans, students):
    course = SimpleNamespace(screens={"06": ["r", "gone"]})
    own = {one.lesson.number: one for one in students}
    return running_sheet._screen_lines(course, plans[0], own.get("06")), running_sheet._missing_screens(
        course, plans, own
    )


def test_students_numbers_stand_beside_those_of_the_slides(sizes, monkeypatch):
    slides, own = sizes
    monkeypatch.setattr(running_sheet, "check_lesson", lambda plan: None)
    lines, missing = screens([slides], [own])
    assert lines == [
        "On their screens (for the room; profile smoke; group A's system, each other group sees its own):",
        "",
        "- Title of r: 4.0 ± 1.0 eV (slides: 2.0 ± 1.0 eV)",
        "- Title of gone: not recorded at these sizes",
        "",
    ]
    assert missing == []
    assert screens([slides], [slides])[0][2] == "- Title of r: 2.0 ± 1.0 eV"  # the same sizes need no comparison
    assert screens([slides], [])[0] == []


@pytest.fixture
def sheet_of_slides(sizes, monkeypatch):
    """The sheet of a lesson with slides of these titles, as text."""
    monkeypatch.setattr(running_sheet, "check_lesson", lambda plan: None)
    monkeypatch.setattr(running_sheet, "lesson_title", lambda _: "6. It")
    monkeypatch.setattr(running_sheet, "figures_without_slide", lambda *_: [])
    lesson = SimpleNamespace(number="06", stem="06_x", notebook=lambda: SimpleNamespace(cells=[]))
    plan, small = (SimpleNamespace(**(vars(one) | {"lesson": lesson})) for one in sizes)

    def sheet(titles, students=False, **more):
        monkeypatch.setattr(running_sheet, "slide_titles", lambda *_: titles)
        course = course_file.Course({}, {}, [], screens={"06": ["r"]})
        given = {"students": [small]} if students else {}
        return running_sheet.as_text(running_sheet.running_blocks(course, [plan], **given, **more))

    return sheet


TITLES = [running_sheet.Slide("6. It"), running_sheet.Slide("It rises")]


def test_a_list_of_numbers_or_of_a_board_ends_before_the_slides_begin(sheet_of_slides):
    """One list would run into the other."""
    for more in ({"students": True}, {"aside": Aside({"06": ["Draw."]})}):
        text = sheet_of_slides(TITLES, **more)
        assert "\n\nThe slides:\n\n- slide 2: It rises\n" in text
    assert "On the board first:\n\n- Draw.\n" in text
    assert "The slides" not in sheet_of_slides(TITLES)


def test_a_board_within_a_lesson_stands_before_the_recap_that_sums_it_up(sheet_of_slides):
    within = {"aside": Aside(boards_within={"06": ["Draw.", "Wipe."]})}
    board = "\n- slide 2: It rises\n- the board:\n  - Draw.\n  - Wipe.\n"
    assert board in sheet_of_slides(TITLES, **within)
    recap = running_sheet.Slide("Recap", say="Keep it.")
    assert f"{board}- slide 3: Recap\n  - say: Keep it.\n" in sheet_of_slides([*TITLES, recap], **within)
    assert "the board" not in sheet_of_slides(TITLES)


def test_the_goal_is_on_the_sheet_where_something_is_said_at_it(sheet_of_slides):
    front = TITLES[0]._replace(say="See it.")
    assert "\n- slide 1: the goal\n  - say: See it.\n- slide 2: It rises\n" in sheet_of_slides([front, TITLES[1]])
    assert "slide 1" not in sheet_of_slides(TITLES)


def test_where_students_sizes_were_not_executed_the_sheet_says_what_does_it(sizes, monkeypatch):
    slides, own = sizes
    monkeypatch.setattr(running_sheet, "check_lesson", lambda plan: "stale" if plan is own else None)
    lines, (said, _) = screens([slides], [own])
    assert lines == []
    assert "`crossfunc run 06 --profile smoke`, and then the command that made this sheet" in said
    monkeypatch.setattr(running_sheet, "check_lesson", lambda plan: "stale")
    lines, missing = screens([slides], [slides])  # the slides' own sizes are known, whatever else is said of them
    assert lines
    assert missing == []


def test_what_is_said_of_labels_names_the_lessons_of_the_day():
    said = "DFT in lessons 3, 4b and 10, surrogate in lessons 1 and 2; lessons 3 and 6 have more, lesson 5 not."
    assert running_sheet._of_taught(said, ["01", "03", "04b", "06"]) == (
        "DFT in lessons 3 and 4b, surrogate in lesson 1; lessons 3 and 6 have more, lesson 5 not."
    )


def test_a_figure_of_several_sources_begins_with_which_marker_is_which():
    said = {key: one["say"] for key, one in courses.read_course(own_lessons() / "course.yml").figures.items()}
    first = said["fig-03-agreement"].partition(". ")[0]
    drawn = [marker for _, _, marker in draw._SOURCES.values()]
    words = {"o": "Blue dots", "x": "orange crosses", "s": "grey squares", "+": "violet pluses"}
    assert [first.index(words[marker]) for marker in drawn] == sorted(first.index(word) for word in words.values())
    assert first.index("with GPAW") < first.index("grey squares") < first.index("with VASP")
    assert said["fig-04-moved"].startswith("Stars are the published r²SCAN checkpoint, the paper's own Method 4")
    assert "our own DFT" in said["fig-04-moved"].partition(". ")[0]


def test_rows_of_the_errors_of_each_method_are_pointed_at_from_the_top_to_the_foot():
    said = courses.read_course(own_lessons() / "course.yml").figures["fig-04-errors"]["say"]
    steps = re.split(r" \(\d\) ", said)[1:]
    rows = ["model-aware", "1", "2", "3", "4", "model-aware, then trained", four_methods.PUBLISHED]
    assert [four_methods.ROWS.index(row) for row in rows] == sorted(map(four_methods.ROWS.index, rows))
    named = ["hollow ones at the top", "Method 1", "Methods 2 and 3", "Method 4", "hollow row at the foot"]
    assert [name in step for name, step in zip(named, steps, strict=True)] == [True] * 5
    assert "“model-aware, then trained”" in steps[3]
    assert not re.search(r"\d+(?:\.\d+)? (?:meV|eV|GPa|%)", said)


def test_an_exercise_on_paper_has_the_numbers_of_its_lesson_and_names_slides_of_figures():
    course = courses.read_course(own_lessons() / "course.yml")
    lessons = {lesson.number: lesson for lesson in find_lessons(own_lessons())}
    on_paper = {key: one["paper"] for key, one in course.exercises.items() if "paper" in one}
    assert list(on_paper) == ["04b.1"]
    for key, words in on_paper.items():
        number, _, k = key.partition(".")
        asked = lessons[number].text.partition(f"Exercise {k}\n")[2].partition(":::")[0]
        figures = running_sheet._SLIDE.findall(words)
        assert set(figures) <= set(course.figures)
        bare = running_sheet._SLIDE.sub("", words)
        assert set(re.findall(r"\d[\d.,]*\d", bare)) <= set(re.findall(r"\d[\d.,]*\d", asked))
        assert not re.search(r"[`\[]", bare)  # nothing that is in a notebook alone


def test_every_lesson_of_a_plan_says_what_its_minutes_go_to_and_they_add_up():
    course = courses.read_course(own_lessons() / "course.yml")
    parts = [part for parts in course.plans.values() for part in parts]
    assert [part for part in parts if part["what"] not in {"Break", "Lunch"} and "minutes" not in part] == []
    (day,) = (part for part in course.plans["One day"] if part["lessons"] == ["03"])
    assert course_file.inside(day, course) == "the board 12, figures 23, exercises 25 min"
    with pytest.raises(LessonError, match="from 10:35 to 11:35: its minutes come to 61, exercises included, of 60"):
        course_file._check_plan([day | {"minutes": {"the board": 13, "figures": 23}}], course, "plan")


def test_quiz_and_debate_stand_behind_the_lessons_of_a_plan_that_has_them():
    part = {"from": "9:00", "to": "9:30", "what": "Both", "lessons": [], "exercises": [], "quiz": True, "debate": True}
    claim = {"claim": "They agree.", "for": ["They do."], "against": ["Not all."], "close": "Some do."}
    course = course_file.Course({}, {}, [], plans={"Day": [part]}, debate=[claim])
    rulings = {"They agree.": Ruling(verdicts=[Verdict("on DFT", "unclear", "too short", "3 ± 9")])}
    aside = Aside(quiz={"01": ["1 b: It goes **up**. So."], "02": ["1 c: No."]}, rulings=rulings)
    blocks = running_sheet._after_lessons(aside, course.plans, course, ["01"])
    assert [block.text.split(":")[0] for block in blocks if block.later and block.text] == [
        *("- lesson 1", "  - 1 b", "- best for", "- best against")
    ]
    text = "\n".join(block.text for block in blocks)
    assert "## The quiz\n\nWhen: 9:00 to 9:30.\n\n" in text
    assert "- lesson 1\n  - 1 b: It goes **up**. So.\n" in text
    assert "1 c: No" not in text
    assert "\n### 1. They agree.\n\n- on DFT 3 ± 9: **unclear**, too short\n- best for: They do.\n" in text
    assert "\n- to close: Some do.\n" in text
    bare = {"Day": [{key: value for key, value in part.items() if key not in {"quiz", "debate"}}]}
    assert running_sheet._after_lessons(aside, bare, course, ["01"]) == []


def test_what_the_sheet_reads_is_recorded_by_the_lessons_of_the_plans():
    course = courses.read_course(own_lessons() / "course.yml")
    known = declared.read_declarations(own_lessons() / declared.FILE)
    stems = {lesson.number: lesson.stem for lesson in find_lessons(own_lessons())}
    assert set(course.screens) == {number for name in course.plans for number in course_file.lessons_of(course, name)}
    for number, keys in course.screens.items():
        assert set(keys) <= known[stems[number]].keys(), number


def test_a_figure_stands_beside_its_words_and_names_are_text():
    blocks = [Block("## Lesson <i>"), Block("- slide 2: It rises\n  - say: Look.", "fig-a"), Block("- slide 3: Recap")]
    page = running_page(blocks, {"fig-a": PNG})
    before, beside = page.split('<div class="beside">')
    assert "Lesson &lt;i&gt;" in before
    assert beside.index("data:image/png;base64,") < beside.index("<strong>say</strong>: Look.")
    assert beside.index("Look.") < beside.index("</div></div>") < beside.index("<strong>slide 3</strong>: Recap")
    assert "<script" not in page
    assert "http" not in page
    assert 'class="beside"' not in running_page(blocks, {})  # words stay where there is no picture


def test_what_is_for_the_room_is_grey_on_the_page_and_a_line_at_its_top_says_so():
    skipped = Block("- slide 2: It rises (may be skipped)", "fig-a", later=True)
    blocks = [Block("# Sheet"), Block("- read"), Block("- wait", later=True), Block("- too", later=True), skipped]
    page = running_page([*blocks, Block("- again")], {"fig-a": PNG})
    first, *grey = page.split('<div class="later">')
    assert first.index("<h1>Sheet</h1>") < first.index(f"<p>{running_sheet._OF_GREY}</p>") < first.index("read")
    assert [part.count("<li>") for part in (first, *grey)] == [1, 2, 2]
    assert grey[0].rstrip().endswith("</div>")
    assert grey[1].startswith('<div class="beside">')
    assert grey[1].index("skipped") < grey[1].index("</div></div></div>") < grey[1].index("again")
    assert ".later {" in page
    assert "is grey" not in running_sheet.as_text(blocks)
    assert "is grey" not in running_page(blocks[:2], {})


def test_what_waits_for_questions_stands_behind_the_answer_in_grey():
    course = course_file.Course({}, {}, [], figures={"fig-a": {"say": "S.", "ask": "A?", "answer": "B.", "more": "M."}})
    shown = running_sheet.Slide("It rises", "fig-a", ("say", "ask", "answer"))
    block = running_sheet._slide_block(3, shown, course)
    assert block.text.endswith("\n  - answer: B.\n  - for questions: M.")
    assert "M." not in running_sheet._slide_block(2, shown._replace(remarks=("ask",)), course).text
    assert '<li class="later">for questions: M.</li>' in running_page([Block("# Sheet"), block], {})


def test_wrong_options_of_the_quiz_are_small_on_the_page():
    page = running_page([Block("# Sheet"), Block("- **1 b**: Up? *not: a) <no>; c) never*")], {})
    assert '<em class="not">not: a) &lt;no&gt;; c) never</em>' in page
    assert ".not {" in page


def later(blocks, wanted):
    """Whether what has these words is grey."""
    (found,) = {block.later for block in blocks if wanted in block.text}
    return found


def test_screens_exercises_and_slides_to_skip_are_grey_and_slides_are_not(sizes, monkeypatch):
    monkeypatch.setattr(running_sheet, "check_lesson", lambda plan: None)
    monkeypatch.setattr(running_sheet, "lesson_title", lambda _: "6. It")
    monkeypatch.setattr(running_sheet, "figures_without_slide", lambda *_: [])
    shown = [running_sheet.Slide("6. It"), running_sheet.Slide("Up", "fig-a", ("say",)), running_sheet.Slide("On")]
    monkeypatch.setattr(running_sheet, "slide_titles", lambda *_: shown)
    lesson = SimpleNamespace(number="06", stem="06_x", notebook=lambda: SimpleNamespace(cells=[]))
    plan, small = (SimpleNamespace(**(vars(one) | {"lesson": lesson})) for one in sizes)
    exercise = {"minutes": 5, "ask": "Which way?", "answer": "It rises.", "right": "up"}
    exercises = {"06.1": exercise, "06.2": exercise | {"ask": "Why?", "answer": "It goes Up, so."}}
    figures = {"fig-a": {"say": "Look.", "skip": True}}
    part = {"from": "9:00", "to": "9:30", "what": "It", "lessons": [], "exercises": [], "debate": True}
    claim = {"claim": "They agree.", "for": ["They do."], "against": ["Not all."], "close": "Some do."}
    course = course_file.Course(
        exercises, {}, [], screens={"06": ["r"]}, figures=figures, plans={"Day": [part]}, debate=[claim]
    )
    printed = {"06.1": "1\n\n2\n3", "06.2": "x  \\\n1  2"}
    aside = Aside(groups=(Block("- the key", later=True), Block("A good one.")), printed=printed)
    blocks = running_sheet.running_blocks(course, [plan], students=[small], aside=aside)
    of_exercises = ("Which way?", "→ It rises.", "It prints")  # an answer says nothing without its question
    for words in (
        "On their screens",
        "Title of r",
        "the key",
        "slide 2: Up",
        *of_exercises,
        "best for",
        "best against",
    ):
        assert later(blocks, words), words
    for words in ("A good one.", "The slides:", "slide 3: On", "to close", "### 1. They"):
        assert not later(blocks, words), words
    text = running_sheet.as_text(blocks)
    assert "\n→ It rises. Right choice: **up**.\n\nIt prints first:\n\n```text\n1\n2\n```\n" in text
    assert "\n→ It goes Up, so.\n\n" in text  # the answer has the choice, and a broken table is left out
    assert text.count("```") == 2


def test_lines_of_a_list_stand_on_the_sheet_below_what_is_said(sheet_of_slides):
    listed = running_sheet.Slide("Which?", say="Read.", points=("One: a.", "Two: b."))
    text = sheet_of_slides([TITLES[0], listed])
    assert "\n- slide 2: Which?\n  - say: Read.\n  - on the slide:\n    - One: a.\n    - Two: b.\n" in text


def test_what_a_recap_shows_stands_on_the_sheet_in_grey():
    recap = running_sheet.Slide(running_sheet.RECAP, say="Keep it.", points=("One: a.", "Two: b."))
    blocks = running_sheet._slide_blocks([(1, TITLES[0]), (2, recap)], course_file.Course({}, {}, []), ["a line"])
    text = running_sheet.as_text(blocks)
    assert text.endswith("- slide 2: Recap\n  - say: Keep it.\n  - on the slide: One: a. Two: b.\n")
    assert [block.later for block in blocks] == [False, False, True]


def test_the_four_methods_are_the_lines_of_lesson_4(tmp_path):
    (lesson,) = [one for one in find_lessons(own_lessons()) if one.number == "04"]
    executed = tmp_path / "04.ipynb"
    executed.write_text(nbformat.writes(lesson.notebook()))
    plan = SimpleNamespace(lesson=lesson, notebook=executed, profile="laptop")
    slides = {slide.title: slide.points for slide in slide_titles(plan)}
    assert [line[:8] for line in slides["Which four methods?"]] == [f"Method {k}" for k in (1, 2, 3, 4)]


def test_pictures_on_the_page_are_small():
    from PIL import Image

    from crossfunc.lessons.printed_pages import thumbnail

    buffer = BytesIO()
    Image.effect_noise((1400, 1000), 80).convert("RGBA").save(buffer, "PNG")
    small = thumbnail(buffer.getvalue())
    assert Image.open(BytesIO(small)).size == (640, 457)
    assert len(base64.b64encode(small)) * 40 < 15e6  # even noise; figures are a tenth of it


def test_a_plan_has_its_exercises_and_lessons_alone():
    course = courses.read_course(own_lessons() / "course.yml")
    short = courses.of_plan(course, "Three hours")
    assert list(short.plans) == ["Three hours"]
    assert sorted(short.exercises) == ["01.1", "03.1"]
    assert courses.lessons_of(course, "Three hours") == ["01", "03", "04", "06"]
    with pytest.raises(LessonError, match=r"no plan 'Two days'; course.yml has: One day, Five hours, Three hours"):
        courses.lessons_of(course, "Two days")


def test_a_plan_whose_lessons_are_not_all_taught_is_refused(tmp_path):
    (part,) = COURSE["plans"]["One day"]
    given = {"plans": {"Long": [part | {"lessons": ["06", "07"]}]}, "debate": ()}
    course = course_file.Course(COURSE["exercises"], COURSE["quiz"], COURSE["groups"], **given)
    plan = SimpleNamespace(lesson=SimpleNamespace(number="06"))
    with pytest.raises(LessonError, match=r"the plan 'Long' teaches lessons 07 too: name them, or no lesson at all"):
        courses.write_course([plan], tmp_path, course, day="Long")


def test_questions_of_the_page_stand_in_the_plan():
    (part,) = COURSE["plans"]["One day"]
    course = course_file.Course(COURSE["exercises"], {}, [])
    cell = running_sheet._plan_lines("One day", [part | {"questions": True}], course, {"06": []})[-1]
    assert cell.endswith("| 06.1, the sheet's tasks 1 to 2, the page's questions, aloud (52 min) |")
    alone = part | {"questions": True, "exercises": [], "tasks": 0}
    assert running_sheet._plan_lines("", [alone], course, {"06": []})[-1].endswith("| the page's questions, aloud |")
