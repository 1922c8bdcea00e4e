"""A course: editions with and without solutions, checks that know right from wrong, quizzes, slides, a hand-out."""

import ast
import base64
import builtins
import json
import re
from collections import Counter
from dataclasses import replace

import pytest
import yaml

from crossfunc.lessons import course as courses
from crossfunc.lessons import course_file, group_outcomes, group_sheets, printed_pages, wording
from crossfunc.lessons.course_texts import contents_text
from crossfunc.lessons.plans import plan_run
from crossfunc.lessons.run import run_lessons
from crossfunc.lessons.running_sheet import EXERCISE, as_text, running_blocks
from crossfunc.lessons.sources import LessonError, find_lessons, own_lessons
from crossfunc.lessons.verdicts import CALLS, CLOSEST

LESSON = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # References move

# %% [markdown]
# **Goal**: see that {term}`references <element reference>` move, $c_j$ too.

# %% tags=["parameters"]
n = 3  # points
dataset = "surrogate"  # labels
elements = ["Li"]  # of the system
binary = ["Li", "O"]  # two of them
ternary = ["Li"]  # three of them
by_hand = "Li2O"  # for the ruler

# %% [markdown]
# ## Who goes

# %% [markdown] tags=["slide"]
# - **Method 1** goes.
# - **Method 2** stays.
#
# And no other.

# %%
import matplotlib.pyplot as plt
from crossfunc.lessons import figures
fig, ax = plt.subplots()
ax.plot(range(n))
figures.show(fig, alt="A rising line.", caption="It rises ({numref}`fig-06-line`)", name="fig-06-line")

# %% [markdown]
# :::{admonition} Exercise 1
# Does it rise?
# :::

# %% tags=["hide-cell"]
# Solution: it does.
secret = n + 1
print("the solution's output")

# %% [markdown]
# ## Check yourself
#
# **1.** Why?
#
# :::{admonition} Answer
# :class: dropdown
# Because of the secret reason.
# :::
#
# **2.** And then?
#
# :::{admonition} Answer
# :class: dropdown
# Nothing.
# :::

# %% [markdown]
# :::{lesson-figure} 06_x fig-06-line
# :kept: long
# :::

# %% [markdown]
# ## Recap
#
# - A line rises in {numref}`fig-06-line` of {doc}`04_four_methods`.
# - It has **three** points.
"""
COURSE = {
    "exercises": {
        "06.1": {
            "minutes": 7,
            "ask": "It goes ...",
            "choices": ["up", "down"],
            "right": "up",
            "answer": "It rises.",
            "value": {"ask": "How high?", "expression": "max(range(n + 1))", "relative": 0.1},
        }
    },
    "quiz": {"06": [{"ask": "Up?", "choices": ["yes", "no"], "right": "yes", "because": "It rises."}]},
    "groups": [{"name": "an oxide", "elements": ["Li", "Fe", "O"], "binary": ["Fe", "O"], "by_hand": "Fe2O3"}],
    "figures": {"fig-06-line": {"say": "Look at the end.", "ask": "Why?", "answer": "It rises."}},
    "plans": {
        "One day": [
            {"from": "9:00", "to": "10:00", "what": "The line", "lessons": ["06"], "exercises": ["06.1"], "tasks": 2}
        ]
    },
    "debate": [{"claim": "Total energies agree.", "for": ["They do."], "against": ["Not all."], "close": "Some do."}],
    "slides": {"06": {"goal": "See it move.", "lists": {"Who goes": "Read it."}, "recap": "Keep the line."}},
}
CLAIM = {
    "claim": "Total energies agree.",
    "where": "Fig. 1",
    "result": "03_y:r",
    "holds": "< -0.5",
    "limits": "Not {result}`03_y:r@dft`.",
}
RESULT = {"key": "r", "title": "Pearson's $r$", "value": -0.7, "unit": "", "paper": 0.1, "why": "", "note": "1 seed"}
KEPT_RESULTS = {
    "lesson": "03_y",
    "dataset": "pbe-r2scan",
    "label_notice": "",
    "labelled_by": "DFT, GPAW",
    "results": [RESULT | {"interval": [-0.8, -0.6]}],
}


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""One pixel."""

PAGE = """# Functionals

See {doc}`claims`.

## Why two

Electrons repel each other. That is hard.

- PBE is cheap. It is old.
- r²SCAN is not:

$$E = T$$

| what | is |
|---|---|
| a | table |

## On paper

:::{admonition} Questions
1. Which?
:::

:::{admonition} Answers
:class: dropdown
1. The secret one.
:::
"""


LIVE = """# Lessons live

```{laboratory}
```

Move something.

:::{admonition} Answer
:class: dropdown
The secret one.
:::

(laboratory-labels)=
## About the book
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A course of one executed lesson."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "_config.yml").touch()
    (root / "package").mkdir()
    (root / "notebooks" / "06_x.py").write_text(LESSON)
    (root / "book").mkdir()
    kept = root / "book" / "kept" / "long"
    kept.mkdir(parents=True)
    note = {"figures": {"fig-06-line": {"alt": "A longer line.", "caption": "It rises further"}}}
    (kept / "06_x.run.json").write_text(json.dumps(note))
    (kept / "06_x.fig-06-line.png").write_bytes(PNG)
    (root / "book" / "claims.md").write_text("# The paper's claims\n")
    (root / "book" / "claims.yml").write_text(yaml.safe_dump([CLAIM]))
    (kept.parent / "dft").mkdir()
    (kept.parent / "dft" / "03_y.json").write_text(json.dumps(KEPT_RESULTS))
    (root / "book" / "functionals.md").write_text(PAGE)
    (root / "book" / "laboratory.md").write_text(LIVE)
    (root / "notebooks" / "profiles" / "smoke.yml").write_text("{}")
    (root / "notebooks" / "course.yml").write_text(yaml.safe_dump(COURSE))
    plans = plan_run(root, "smoke", package=root / "package")
    (run,) = run_lessons(plans)
    assert run.ok, run.message
    out = root / "course"
    course = courses.read_course(root / "notebooks" / "course.yml")
    written, notice = courses.write_course(plans, out, course)
    assert not notice  # nothing in the lesson is interactive
    return out, written, plans, course


def sheet_of(course, plans):
    return as_text(running_blocks(course, plans))


def test_students_without_python_get_a_page_that_computes_for_itself(made):
    file = made[0] / "students" / "laboratory.html"
    html = file.read_text()
    assert file in made[1]
    assert "<title>Lessons live</title>" in html
    assert 'class="xf-widget"' in html
    assert "Move something." in html
    assert "secret" not in html
    assert "About the book" not in html


def text_of(path):
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells), cells


def test_students_get_no_solution_no_answer_and_no_output(made):
    text, cells = text_of(made[0] / "students" / "06_x.ipynb")
    assert "secret" not in text
    assert "Nothing." not in text
    assert not any(cell.get("outputs") for cell in cells)
    assert "**1.** Why?" in text
    assert "**2.** And then?" in text
    assert "# About 7 minutes." in text
    assert "check('06.1', ...)" in text
    assert "figures.show" in text  # the rest of the lesson is there


def test_the_students_edition_runs_as_it_is_handed_out(made, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    folder = made[0] / "students"
    notebook = nbformat.read(folder / "06_x.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    said = [o["data"]["text/plain"] for c in notebook.cells for o in c.get("outputs", []) if "execute_result" in str(o)]
    assert said in (["'It goes ... up; down'", "'How high?'"], ["'It goes ... down; up'", "'How high?'"])


def test_a_number_is_compared_with_that_of_the_run_it_is_asked_in(made, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    folder = made[0] / "students"
    notebook = nbformat.read(folder / "06_x.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.source == "# How high?\ncheck('06.1', value=...)")
    cell.source = "said = [check('06.1', value=v) for v in (3, 3.29, 3.31, -3)], check('06.1', value=np_three)\nsaid"
    at = next(k for k, one in enumerate(notebook.cells) if "parameters" in one.metadata.get("tags", ()))
    notebook.cells[at].source += "\nimport numpy as np\nnp_three = np.float32(3)"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    *many, of_numpy = re.findall(r"'(right|not yet)", cell.outputs[-1]["data"]["text/plain"])
    assert many == ["right", "right", "not yet", "not yet"]
    assert of_numpy == "right"
    assert "max(range" not in (folder / "answers.json").read_text()


def test_a_number_that_cannot_be_compared_is_refused_with_what_to_do(made):
    file = made[0] / "students" / "answers.json"
    assert courses.check("06.1", value=..., file=file) == "How high?"
    assert courses.check("06.1", value=5, file=file, names={"n": 5}) == "right"
    with pytest.raises(
        LessonError, match=r"exercise 06.1: this notebook has no such number yet \(NameError: .*'n'.*run all cells"
    ):
        courses.check("06.1", value=3, file=file, names={})
    with pytest.raises(LessonError, match=r"exercise 06.1: 'three' is no number"):
        courses.check("06.1", value="three", file=file, names={"n": 3})
    with pytest.raises(LessonError, match=r"exercise 02: these data have no such number"):
        courses.expected_number("02", "float('nan')", {})
    without = json.loads(file.read_text())
    del without["06.1"]["value"]
    other = file.with_name("without.json")
    other.write_text(json.dumps(without))
    with pytest.raises(LessonError, match=r"exercise 06.1: asks for no number"):
        courses.check("06.1", value=3, file=other)


def test_a_lesson_has_the_answers_of_its_own_exercises_alone(own_course):
    assert sorted(courses.answers(own_course, ["04"])) == ["04.1", "04.2"]
    assert sorted(courses.answers(own_course, ["04b", "05"])) == ["04b.1", "04b.2", "05.1", "05.2"]
    assert courses.answers(own_course, []) == {}


def test_instructors_have_the_executed_solution_in_sight(made):
    text, cells = text_of(made[0] / "instructors" / "06_x.ipynb")
    assert "secret = n + 1" in text
    assert "the solution's output" in json.dumps(cells)
    assert not any("hide" in tag for cell in cells for tag in cell["metadata"].get("tags", []))
    plan = (made[0] / "instructors" / "answers.md").read_text()
    assert "| 06.1 | 7 | It rises. | up |" in plan
    assert "6. References move (7 minutes of exercises)" in plan


def test_an_answer_is_right_wrong_or_refused_with_the_choices(made):
    file = made[0] / "students" / "answers.json"
    assert courses.check("06.1", "up", file=file) == "right"
    assert courses.check("06.1", " Up. ", file=file) == "right"
    assert courses.check("06.1", "down", file=file).startswith("not yet")
    assert courses.check("06.1", file=file).startswith("It goes ...")
    with pytest.raises(LessonError, match=r"'left' is none of the choices: (up; down|down; up)"):
        courses.check("06.1", "left", file=file)
    with pytest.raises(LessonError, match=r"no exercise '06.9'; there are: 06.1"):
        courses.check("06.9", "up", file=file)
    with pytest.raises(LessonError, match=r"run the notebook in the folder it came in"):
        courses.check("06.1", "up", file=file.with_name("gone.json"))
    assert '"up"' not in file.read_text().split('"right"')[1]


def test_the_page_on_functionals_goes_to_the_students_as_plain_markdown(made):
    page = (made[0] / "students" / "functionals.md").read_text()
    assert page.startswith("# Functionals\n\nSee the page “The paper's claims”.\n")
    assert "> 1. Which?" in page
    assert "secret" not in page
    assert "secret" in (made[0] / "instructors" / "functionals.md").read_text()


def test_a_page_has_a_slide_for_each_section_with_first_sentences(made):
    from pptx import Presentation

    front, section, paper = Presentation(made[0] / "slides" / "functionals.pptx").slides
    assert paper.placeholders[1].text == "Which?"
    assert front.shapes.title.text == "Functionals"
    assert section.shapes.title.text == "Why two"
    assert section.placeholders[1].text == "Electrons repel each other.\nPBE is cheap.\nE = T.\na: table."


def test_what_to_say_at_the_slides_of_a_page_stands_in_their_notes_and_on_the_sheet(made, tmp_path):
    from pptx import Presentation

    plans, course = made[2:]
    said = {"Why two": "Look at both."}
    courses.write_course(plans, tmp_path / "course", replace(course, primer=said))
    deck = Presentation(tmp_path / "course" / "slides" / "functionals.pptx")
    notes = [slide.notes_slide.notes_text_frame.text if slide.has_notes_slide else "" for slide in deck.slides]
    assert notes == ["", "Say: Look at both.", ""]


def test_slides_without_a_figure_have_what_to_say_in_their_notes_and_on_the_sheet(made):
    from pptx import Presentation

    for deck in ("all", "06_x"):
        slides = Presentation(made[0] / "slides" / f"{deck}.pptx").slides
        notes = [slide.notes_slide.notes_text_frame.text if slide.has_notes_slide else "" for slide in slides]
        assert [notes[k] for k in (0, 1, 4)] == ["Say: See it move.", "Say: Read it.", "Say: Keep the line."]
    sheet = (made[0] / "instructors" / "running-sheet.md").read_text()
    assert "- slide 1: the goal\n  - say: See it move.\n- slide 2: Who goes\n  - say: Read it.\n" in sheet
    assert "- slide 5: Recap\n  - say: Keep the line.\n" in sheet


def test_every_slide_of_the_book_without_a_figure_has_what_to_say(own_course):
    """The sheet alone is enough: no slide leaves whoever teaches without words."""
    for lesson in find_lessons(own_lessons()):
        cells, heading, headings = lesson.notebook().cells, "", []
        for cell in [cell for cell in cells if cell.cell_type == "markdown"]:
            heading = next(iter(re.findall(r"^## (.*)$", cell.source, re.M)), heading)
            headings += [heading] if "slide" in cell.metadata.get("tags", []) else []
        about = own_course.slides[lesson.number]
        assert list(about.get("lists", {})) == headings, lesson.stem
        assert ("recap" in about) == any(cell.source.startswith("## Recap") for cell in cells), lesson.stem
        said = [about["goal"], about.get("recap", "."), *about.get("lists", {}).values()]
        assert [words for words in said if not words.endswith(".") and not words.endswith("?")] == [], lesson.stem
        assert max(map(len, said)) < 220, lesson.stem
    assert set(own_course.slides) == {lesson.number for lesson in find_lessons(own_lessons())}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slides": {"06": {"goal": "G.", "end": "E."}}}, r"slides of lesson 06: needs the fields goal, and no others"),
        ({"slides": {"06": {"recap": "R."}}}, r"slides of lesson 06: needs the fields goal"),
        (
            {"debate": [{"claim": "It is.", "for": ["F."], "against": ["A."]}]},
            r"It is.: needs the fields against, claim, close, for",
        ),
    ],
)
def test_words_at_slides_and_to_close_with_have_their_fields(tmp_path, changes, message):
    (tmp_path / "course.yml").write_text(yaml.safe_dump(COURSE | changes))
    with pytest.raises(LessonError, match=message):
        courses.read_course(tmp_path / "course.yml")


def test_the_key_of_the_quiz_has_the_question_the_letter_and_why(own_course):
    (line,) = courses.quiz_key(courses.Course({}, COURSE["quiz"], []), "06")
    assert re.fullmatch(r"\*\*1 [ab]\*\*: Up\? \*\*yes\*\*\. It rises\. \*not: [ab]\) no\*", line)
    (first, _) = courses.quiz_key(own_course, "04b")
    letter = first[4]
    quiz = courses.quiz_text(own_course, ["04b"])
    assert f"   - {letter}) about as far per step\n" in quiz.partition("\n2. ")[0]
    for number in own_course.quiz:
        for one, key in zip(own_course.quiz[number], courses.quiz_key(own_course, number), strict=True):
            others = re.split(r"; (?=[a-d]\) )", re.search(r" \*not: ([^*]*)\*$", key)[1])
            assert {other[3:] for other in others} == set(one["choices"]) - {one["right"]}
            assert key[4] not in [other[0] for other in others]
            assert all(f"   - {other}\n" in courses.quiz_text(own_course, [number]) for other in others)
            assert "\n" not in key
    asked = (
        "A reference is pulled a thousand times harder. With Adam it moves ... **about as far per step**. Adam divides"
    )
    assert asked in first


def test_a_mail_to_students_asks_for_what_the_readme_of_the_project_says(made, root):
    mail = (made[0] / "students-mail.md").read_text()
    assert made[0] / "students-mail.md" in made[1]
    said = mail.partition("```text\n")[2].partition("\n```")[0]
    commands = [line.strip() for line in said.splitlines() if line.startswith("       ")]
    assert commands == ["git clone ADDRESS crossfunc", "cd crossfunc", "make book"]
    readme = (root / "README.md").read_text(encoding="utf-8")
    for words in ("make book", "Python 3.11 or 3.12", "build/html/index.html"):
        assert words in said
        assert words in readme
    assert "functionals.md" in said
    first = (made[0] / "README.md").read_text()
    assert "`students-mail.md`" in first
    assert "about 15 with one server" in first


def test_the_sheet_has_the_quiz_so_that_no_other_file_is_opened(own_course):
    for parts in own_course.plans.values():
        for part in [part for part in parts if part.get("quiz")]:
            assert "questions and key are at the end of this sheet" in part["what"]


def test_one_deck_holds_all_lessons_and_the_running_sheet_names_its_slides(made):
    from pptx import Presentation

    titles = [slide.shapes.title.text for slide in Presentation(made[0] / "slides" / "all.pptx").slides]
    sheet = (made[0] / "instructors" / "running-sheet.md").read_text()
    assert titles == ["6. References move", "Who goes", "It rises", "Longer run: It rises further", "Recap"]
    for k, title in enumerate(titles[1:], start=2):
        assert f"\n- slide {k}: {title}\n" in sheet
    assert "**06.1** (7 min). Does it rise?\n\n→ It rises." in sheet
    assert (made[0] / "students" / "quiz.md").read_text() == (made[0] / "students" / "quiz-6.md").read_text()
    assert "running-sheet.md" in (made[0] / "README.md").read_text()


@pytest.fixture(scope="module")
def own_course():
    return courses.read_course(own_lessons() / "course.yml")


def test_each_figure_of_the_day_has_what_to_say_and_none_is_of_another_book(own_course):
    lessons = {number for parts in own_course.plans.values() for part in parts for number in part["lessons"]}
    text = {lesson.number: lesson.text for lesson in find_lessons(own_lessons())}
    named = {name for number in lessons for name in re.findall(r'name="(fig-[\w-]+)"', text[number])}
    kept = {f"{name}-{profile}" for n in lessons for _, name, profile in wording.kept_figures(text[n])}
    assert named | kept == set(own_course.figures)
    assert all(one["say"].endswith((".", "?")) and one["ask"].endswith("?") for one in own_course.figures.values())
    assert all(one["answer"].endswith(".") for one in own_course.figures.values())


def test_every_argument_is_a_sentence(own_course):
    """A comma outside of quotes had cut two of them in half."""
    said = [text for one in own_course.debate for text in (*one["for"], *one["against"], one["close"])]
    assert len(said) > 20
    assert [text for text in said if not (text[0].isupper() and text.endswith("."))] == []


def test_the_plans_are_those_of_the_page_for_those_who_teach(own_course, root):
    page = (root / "book" / "teach.md").read_text(encoding="utf-8")
    assert list(own_course.plans) == ["One day", "Five hours", "Three hours"]
    for name, parts in own_course.plans.items():
        table = page.partition(f"## {name}")[2].partition("\n## ")[0]
        times = re.findall(r"^\| (\d+:\d\d) \| (\d+:\d\d) \|", table, re.M)
        assert times == [(part["from"], part["to"]) for part in parts], name
        asked = {spoken.replace("4b.", "04b.") for spoken in re.findall(r"\b\d+b?\.\d\b", table.partition("**The")[0])}
        wanted = {key.lstrip("0").replace("4b.", "04b.") for part in parts for key in part["exercises"]}
        assert asked == wanted, name


def test_a_plan_has_the_time_of_its_exercises(own_course):
    """Five hours are five without lunch, three are three, and a group's tasks are those of its sheet."""
    worked = {}
    for name, parts in own_course.plans.items():
        lunch = [part for part in parts if part["what"] == "Lunch"]
        clock = [
            (course_file.clock_minutes(part["to"], name) - course_file.clock_minutes(part["from"], name))
            for part in parts
        ]
        rest = [
            (course_file.clock_minutes(part["to"], name) - course_file.clock_minutes(part["from"], name))
            for part in lunch
        ]
        worked[name] = (sum(clock) - sum(rest)) / 60
    assert (worked["Five hours"], worked["Three hours"]) == (5, 3)
    sheet = group_sheets.group_text("A", own_course.groups[0], "06_x", NoPhases())
    assert [int(n) for n in re.findall(r"^\d\. \((\d+) minutes", sheet, re.M)] == list(course_file.TASK_MINUTES)


class NoPhases:
    """Stands for a table of phases without rows."""

    attrs = {"label_notice": ""}  # noqa: RUF012

    def to_numpy(self):
        return []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "9:50"}, r"One day, from 9:00 to 9:50: its exercises and tasks take 52 minutes, and there are 50"),
        ({"to": "8:50"}, r"from 9:00 to 8:50: each part begins when the one before it ends, and ends later"),
        ({"to": 590}, r"590 is no time; write it in quotes"),
        ({"exercises": ["06.9"]}, r"there is no exercise 06.9"),
        ({"hint": "x"}, r"One day from 9:00: needs the fields exercises, from, lessons, to, what"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(tmp_path, changes, message):
    (part,) = COURSE["plans"]["One day"]
    (tmp_path / "course.yml").write_text(yaml.safe_dump(COURSE | {"plans": {"One day": [part | changes]}}))
    with pytest.raises(LessonError, match=message):
        courses.read_course(tmp_path / "course.yml")


def test_parts_of_a_plan_follow_on_each_other(tmp_path):
    (part,) = COURSE["plans"]["One day"]
    late = part | {"from": "10:05", "to": "11:00"}
    (tmp_path / "course.yml").write_text(yaml.safe_dump(COURSE | {"plans": {"One day": [part, late]}}))
    with pytest.raises(LessonError, match="from 10:05 to 11:00: each part begins when the one before it ends"):
        courses.read_course(tmp_path / "course.yml")


def test_a_question_before_its_figure_has_a_slide_without_headline_and_answer(made, tmp_path):
    from pptx import Presentation

    from crossfunc.lessons.slides import write_slides

    plans, course = made[2:]
    about = {"fig-06-line": course.figures["fig-06-line"] | {"before": True, "more": "Later."}}
    slides = list(Presentation(write_slides(plans, tmp_path / "a.pptx", remarks=about)).slides)
    question, figure = slides[2:4]
    said = "\n".join(frame.text for frame in texts(question)) + question.notes_slide.notes_text_frame.text
    assert question.placeholders[1].text == "Why?"
    assert "rise" not in said.lower()
    assert not [shape for shape in question.shapes if shape.shape_type == 13]
    assert figure.shapes.title.text == "It rises"
    noted = "Say: Look at the end.\nAnswer: It rises.\nFor questions: Later.\n\nA rising"
    assert figure.notes_slide.notes_text_frame.text.startswith(noted)
    sheet = sheet_of(replace(course, figures=about), plans)
    one = "- slide 3: Before the next figure\n  - ask: Why?\n- slide 4: It rises\n  - say: Look at the end.\n"
    assert one + "  - answer: It rises.\n  - for questions: Later.\n- slide 5: Longer run: It rises further\n" in sheet
    assert "| 1 to 6 |" in sheet


def test_a_headline_of_its_own_stands_above_a_figure_and_in_its_caption(made, tmp_path):
    from pptx import Presentation

    from crossfunc.lessons.slides import write_slides

    about = {"fig-06-line": made[3].figures["fig-06-line"] | {"headline": "A line"}}
    slide = Presentation(write_slides(made[2], tmp_path / "a.pptx", remarks=about)).slides[2]
    assert slide.shapes.title.text == "A line"
    assert [s.text for s in texts(slide) if s.text.startswith("Figure")] == ["Figure 6.1. A line. Profile smoke."]


def test_a_figure_that_a_run_did_not_draw_has_no_slide_and_the_sheet_says_what_it_needs(made, tmp_path):
    plans, course = made[2:]
    notebook = json.loads(plans[0].notebook.read_text())
    for cell in notebook["cells"]:
        cell.pop("outputs", None)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / plans[0].notebook.name).write_text(json.dumps(notebook))
    bare = [replace(plans[0], folder=tmp_path)]
    needed = {"fig-06-line": course.figures["fig-06-line"] | {"before": True, "needs": "data of others"}}
    for figures, why in ((needed, "which needs data of others"), (course.figures, "which this run did not draw")):
        sheet = sheet_of(replace(course, figures=figures), bare)
        assert f"- no slide: `fig-06-line`, {why}\n" in sheet
        assert "- slide 3: Longer run: It rises further\n- slide 4: Recap\n" in sheet
        assert "Look at the end." not in sheet


def test_what_the_book_does_not_ship_is_named_where_a_figure_needs_it(own_course):
    """A figure that needs other data is shown behind a condition, and its words name the file."""
    lessons = {name: lesson for lesson in find_lessons(own_lessons()) for name in re.findall(NAMED, lesson.text)}
    needing = {name: one["needs"] for name, one in own_course.figures.items() if "needs" in one}
    assert set(needing) == {"fig-03-few", "fig-06-dft", "fig-06-experiment"}
    for name, needs in needing.items():
        assert re.search(rf'^ +name="{name}"', lessons[name].text, re.M)
        assert not re.search(rf'^    name="{name}"', lessons[name].text, re.M)  # not at the top of a cell
        assert "CROSSFUNC_DATA" in needs


NAMED = r'name="(fig-[\w-]+)"'


def test_a_guess_is_asked_for_before_the_figure(own_course):
    guessed = {name for name, one in own_course.figures.items() if re.search("(?i)guess|before you see", one["ask"])}
    assert guessed <= {name for name, one in own_course.figures.items() if one.get("before")}
    assert {"fig-01-totals", "fig-03-story", "fig-03-shifts"} <= {
        k for k, v in own_course.figures.items() if "before" in v
    }


def test_the_running_sheet_begins_with_the_day_and_says_what_to_say(made):
    from pptx import Presentation

    out, _, plans, course = made
    sheet = (out / "instructors" / "running-sheet.md").read_text()
    assert "| 9:00 | 10:00 | The line | 1 to 5 | 06.1, the sheet's tasks 1 to 2 (52 min) |" in sheet
    key = (out / "instructors" / "groups.md").read_text()
    (of_group,) = re.findall(r"^- \*\*A\*\*: .*$", key, re.M)
    head = (
        f"## Lesson 6. References move\n\nWhen: 9:00 to 10:00.\n\n{group_sheets.LEVER}\n\nOn the sheet of each group:\n"
    )
    first, second = sheet.partition(head)[2].split("What the second task comes to in group A is not known yet")
    assert first.startswith("\n1. leave one compound out")
    assert "\n2. `verdicts.close_calls(points)` in the notebook" in first
    assert "\n3. " not in first  # the plan has two tasks
    assert "Fe2O3 is what is left out of the drawing:\n\n| phase | share of O | formation energy (eV/atom) |\n" in first
    assert "\n| Fe3O4 | 4/7 (0.571) | -1.538 |\n" in first
    lever = "of Fe3O4 (2/3 − 3/5) / (2/3 − 4/7) = 0.700; 0.700 × (−1.538) + 0.300 × (−1.240) = −1.449; "
    lever += "−1.565 − (−1.449) = −0.116 (−0.117 before rounding)"
    assert f"|\n\n{of_group}\n  - {lever}\n\nWith a ruler it comes out" in first
    assert "Good answers say *why*" in second
    assert "\n→ It rises. Right choice: **up**.\n\nIt prints:\n\n```text\nthe solution's output\n```\n" in second
    assert f"\n{group_sheets.GOOD_ANSWER}\n\nThe slides:\n\n- slide 1: the goal\n" in sheet
    assert "- slide 3: It rises\n  - say: Look at the end.\n  - ask: Why?\n  - answer: It rises.\n" in sheet
    assert "**06.1** (7 min). Does it rise?" in sheet
    notes = [slide.notes_slide.notes_text_frame.text for slide in Presentation(out / "slides" / "all.pptx").slides]
    assert "Say: Look at the end.\nAsk: Why?\nAnswer: It rises.\n\nA rising line." in notes
    skipped = replace(course, figures={"fig-06-line": {"say": "S.", "ask": "A?", "answer": "B.", "skip": True}})
    assert "- slide 3: It rises (may be skipped)" in sheet_of(skipped, plans)
    (part,) = course.plans["One day"]
    other = replace(course, plans={"One day": [part], "Two days": [part | {"lessons": ["06", "07"]}]})
    sheet = sheet_of(other, plans)
    assert "## One day" in sheet
    assert "## Two days" not in sheet  # the deck does not have its slides


def test_students_have_a_start_and_instructors_both_sides_of_a_claim(made):
    out, written, *_ = made
    assert 'check("03.2")' in (out / "students" / "START.md").read_text()
    debate = (out / "instructors" / "debate.md").read_text()
    said = (
        "## Total energies agree.\n\nIt holds if “Pearson's r” is below −0.5. Where it is made: Fig. 1; the paper's "
        "number is 0.1.\n\n- on DFT: −0.70 ± 0.10 (1 seed)\n\nVerdict:\n\n- on DFT: **holds**\n"
    )
    assert said in debate
    slips = (out / "print" / "debate-slips.html").read_text()
    assert "−0.70 ± 0.10" in slips
    assert "holds</strong>" not in slips
    assert "\n\nFor the claim:\n\n- They do.\n\nAgainst it:\n\n- Not all.\n" in debate
    assert {out / "students" / "START.md", out / "instructors" / "debate.md"} <= set(written)


def test_what_is_printed_lies_in_one_folder_and_the_first_page_says_how_often(made):
    out, written, *_ = made
    printed = {path.name for path in (out / "print").iterdir()}
    assert printed == {"group-sheets.html", "debate-slips.html", "quiz.html", "handout.pdf"}
    assert {out / "print" / name for name in printed} <= set(written)
    first = (out / "README.md").read_text()
    assert {name for name in printed if f"`print/{name}`" in first} == printed
    assert "systems for 1 groups, A to A." in first
    assert "one of 1 claims" in first
    assert "The Littlest JupyterHub" in first
    for name in set(re.findall(r"`((?:instructors|students|slides|print)/[\w.-]+)`", first)):
        assert (out / name).exists(), name
    assert "Up?" in (out / "print" / "quiz.html").read_text()
    assert "It rises." not in (out / "print" / "quiz.html").read_text()
    for page in ("print/group-sheets.html", "print/debate-slips.html", "instructors/running-sheet.html"):
        assert not re.search("<script|src=.http|url\\(http", (out / page).read_text())


def test_a_course_without_groups_says_nothing_of_them(made):
    first = contents_text(made[3], {"print/quiz.html", "print/debate-slips.html"})
    assert "| `print/quiz.html` | one each |" in first
    assert "group-sheets" not in first
    assert "## Groups" not in first
    assert "\n\n## The room" in first


def test_the_running_sheet_as_a_page_has_the_figures_of_the_slides(made):
    out, *_ = made
    page = (out / "instructors" / "running-sheet.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # the lesson's own, and that of the longer run
    first = page.split('<div class="beside">')[1]
    assert "<strong>slide 3</strong>: It rises" in first
    assert "<strong>answer</strong>: It rises." in first
    assert "The secret one." in page  # the answer to the question on functionals
    assert "Look at the end." in (out / "instructors" / "running-sheet.md").read_text()


def test_a_course_for_one_plan_has_its_exercises_on_sheet_and_answers_and_all_in_the_notebooks(made, tmp_path):
    plans, course = made[2:]
    (part,) = course.plans["One day"]
    two = replace(course, plans=course.plans | {"No work": [part | {"exercises": [], "tasks": 0}]})
    courses.write_course(plans, tmp_path / "course", two, day="No work")
    sheet = (tmp_path / "course" / "instructors" / "running-sheet.md").read_text()
    assert "## No work" in sheet
    assert "## One day" not in sheet
    assert "06.1" not in sheet
    assert "06.1" not in (tmp_path / "course" / "instructors" / "answers.md").read_text()
    other = replace(course, exercises={"06.2": course.exercises["06.1"]})
    assert "06.1" not in courses.answers_text(other, plans)  # nor what its solution prints
    assert "check('06.1', ...)" in text_of(tmp_path / "course" / "students" / "06_x.ipynb")[0]


def test_the_command_takes_the_lessons_of_a_plan_and_names_those_that_there_are(made, monkeypatch):
    from typer.testing import CliRunner

    from crossfunc.cli import app

    root, asked = made[0].parent, []
    monkeypatch.setattr(courses, "write_course", lambda plans, *_, **more: asked.append((plans, more)) or ([], ""))
    call = ["course", "--profile", "smoke", "--root", str(root), "--out", str(root / "no"), "--plan"]
    refused = CliRunner().invoke(app, [*call, "Two days"])
    assert refused.exit_code == 1
    assert "no plan 'Two days'; course.yml has: One day" in " ".join(refused.output.split())
    assert CliRunner().invoke(app, [*call, "One day"]).exit_code == 0
    ((plans, more),) = asked
    assert [plan.lesson.number for plan in plans] == ["06"]
    assert more["day"] == "One day"


@pytest.mark.parametrize(
    ("tasks", "options", "executed"),
    [
        (2, ["--plan", "One day"], True),
        (1, ["--plan", "One day"], False),
        (2, [], False),
        (2, ["--plan", "One day", "--no-groups"], False),
        (1, ["--plan", "One day", "--groups"], True),
        (2, ["--groups"], True),
    ],
)
def test_groups_are_executed_where_a_plan_needs_it_unless_something_else_is_said(
    made, tmp_path, monkeypatch, tasks, options, executed
):
    from typer.testing import CliRunner

    from crossfunc.cli import app

    (part,) = COURSE["plans"]["One day"]
    elsewhere = {"from": "10:00", "to": "11:30", "what": "No lesson of groups", "lessons": [], "exercises": []}
    plans = {
        "One day": [part | {"tasks": tasks}, elsewhere | {"tasks": 3}],
        "Other": [part | {"tasks": 3, "to": "11:30"}],
    }
    given, asked = replace(made[3], plans=plans), []
    monkeypatch.setattr(courses, "read_course", lambda path: given)

    def stand_in(*_, run_groups, report, **__):
        asked.append(run_groups)
        report("group A: \x1b[31mdone")
        return [], ""

    monkeypatch.setattr(courses, "write_course", stand_in)
    call = ["course", "--profile", "smoke", "--root", str(made[0].parent), "--out", str(tmp_path / "no")]
    done = CliRunner().invoke(app, [*call, *options])
    assert done.exit_code == 0, done.output
    assert asked == [executed]
    assert "group A: \\x1b[31mdone" in done.output


def test_the_real_plans_execute_groups_for_one_day_and_five_hours(own_course):
    needing = [name for name in own_course.plans if courses.needs_outcomes(own_course, name)]
    assert needing == ["One day", "Five hours"]


ROW = dict(zip([*CALLS, *CLOSEST], ("none", "Fe*O*", "<b>FeO", 2.0, -30.0), strict=True))


def test_what_groups_come_to_is_executed_once_and_stands_on_sheet_and_page(made, tmp_path, monkeypatch):
    ran, said = [], []
    outcome = group_outcomes.Outcome("none  FeO", {"Method 1": ROW})
    monkeypatch.setattr(group_outcomes, "outcome_of", lambda task, letter, _: ran.append((task, letter)) or outcome)
    monkeypatch.setattr(group_outcomes, "_FILLED", "figures.show(")  # what this lesson has
    plans, folder = [replace(plan, folder=tmp_path / "smoke") for plan in made[2]], tmp_path / "course" / "instructors"

    def write(course=made[3], **more):
        courses.write_course(made[2], tmp_path / "course", course, students=plans, report=said.append, **more)
        return (folder / "running-sheet.md").read_text(), (folder / "groups.md").read_text()

    sheet, key = write()
    assert (ran, said) == ([], [])
    assert "in group A is not known yet: give the command that made this course with `--groups`" in sheet
    assert "is not known yet" in key
    write(run_groups=True)
    ((task, letter),) = ran
    assert letter == "A"
    assert "elements = ['Li', 'Fe', 'O']" in json.dumps(task)
    sheet, key = write()  # kept from before, and so it costs nothing
    assert len(ran) == 1
    assert [line.partition(", one")[0] for line in said] == ["executing lesson 6 for group A", "group A: done in 0 s"]
    assert (
        "- **A**: Method 1 misses Fe\\*O\\*.\n  - Closest call of Method 1: \\<b\\>FeO, unstable by 2.0 meV/atom"
        in sheet
    )
    assert "not known yet" not in sheet + key
    assert "```text\nnone  FeO\n```" in key
    assert "misses Fe*O*.\n<ul>\n<li>Closest" in (folder / "running-sheet.html").read_text()
    assert "&lt;b&gt;FeO, unstable" in (folder / "running-sheet.html").read_text()
    (part,) = made[3].plans["One day"]
    page = (folder / "running-sheet.html").read_text()
    grey = "".join(re.findall(r'<div class="later">(.*?)</div>', page, re.S))
    assert "What the second task comes to at the students" in grey
    assert "misses Fe*O*" in grey
    assert "Good answers" not in grey
    assert "first task, to do by hand" not in grey
    sheet, _ = write(replace(made[3], plans={"One day": [part | {"tasks": 3}]}))
    assert (
        f"The third task, for all: a number with its interval, and a sentence on it. {group_sheets.THIRD_ANSWER}"
        in sheet
    )
    by_hand = replace(made[3], plans={"One day": [part | {"tasks": 1}]})
    sheet, _ = write(by_hand)
    assert "Group A's first task, to do by hand before you teach; Fe2O3" in sheet
    assert "Where a well-known oxide lies above the hull" in sheet
    assert "The third task" not in sheet
    assert "second task" not in sheet
    assert "Good answers" not in sheet


def test_the_hand_out_has_the_methods_of_a_lesson(made, monkeypatch, tmp_path):
    from crossfunc.lessons import slides
    from crossfunc.lessons.figures import handout

    drawn, draw = [], handout.draw_handout
    monkeypatch.setattr(handout, "draw_handout", lambda *given: drawn.append(given[1]) or draw(*given))
    slides.write_handout(made[2], tmp_path / "a.pdf")
    assert drawn == [[("6. References move", drawn[0][0][1]), ("Who goes", ["Method 1 goes.", "Method 2 stays."])]]


def test_the_hand_out_of_all_lessons_is_one_page_with_room_for_its_figure(own_course):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from crossfunc.lessons.figures.handout import draw_handout

    sections = []
    for lesson in find_lessons(own_lessons()):
        cells = lesson.notebook().cells
        for recap in [cell.source for cell in cells if cell.source.startswith("## Recap")]:
            points = [wording.as_words(line[2:]) for line in recap.splitlines() if line.startswith("- ")]
            sections.append((f"{lesson.number}. Lesson", [points[own_course.handout[lesson.number] - 1]]))
        for listed in [cell.source for cell in cells if "slide" in cell.metadata.get("tags", [])][:1]:
            points = [wording.as_words(line[2:]) for line in listed.splitlines() if line.startswith("- ")]
            sections.append(("Which four methods?", points))
    assert len(sections) == 11
    assert [point[:8] for point in dict(sections)["Which four methods?"]] == [f"Method {k}" for k in range(1, 5)]
    page = draw_handout("Title", sections, PNG)
    draw = FigureCanvasAgg(page).get_renderer()
    (figure,) = page.axes
    assert figure.get_position().height > 0.15
    lowest = min(text.get_window_extent(draw).y0 for text in page.texts if text.get_text().strip())
    assert lowest > figure.get_position(original=True).y1 * page.bbox.height


def test_the_key_shows_what_solutions_print(made):
    key = (made[0] / "instructors" / "answers.md").read_text()
    assert (
        "The solution of 06.1 prints, at the sizes of the profile smoke:\n\n```text\nthe solution's output\n```" in key
    )
    assert key.count("prints, at the sizes") == 1  # the students' sizes are the same


def test_pictures_and_warnings_of_a_solution_are_no_text():
    as_text = courses._as_text
    assert as_text({"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]}) == "a\nb"
    assert as_text({"output_type": "stream", "name": "stderr", "text": "warned"}) == ""
    assert as_text({"data": {"text/plain": "4", "text/html": "<b>4</b>"}}) == "4"
    assert as_text({"data": {"text/plain": "<Figure>", "image/png": "x"}}) == ""


def test_sheets_are_printed_each_on_paper_of_its_own():
    page = printed_pages.sheets("T <i>", ["# One\n\n| a | b |\n|---|---|\n| 1 | <b>2</b> |\n", "# Two\n"], grid=True)
    assert "<title>T &lt;i&gt;</title>" in page
    assert page.count("<section>") == page.count("class='grid'") == 2
    assert "<td>1</td>" in page
    assert "&lt;b&gt;2&lt;/b&gt;" in page  # names from data are text
    assert page.endswith("</body></html>\n")


def test_a_field_that_a_figure_does_not_have_is_refused(tmp_path):
    content = COURSE | {"figures": {"fig-06-line": {"say": "S.", "asks": "A?"}}}
    (tmp_path / "course.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(LessonError, match=r"fig-06-line: needs the fields answer, ask, say"):
        courses.read_course(tmp_path / "course.yml")


def test_only_the_instructors_quiz_has_answers(made):
    own = (made[0] / "students" / "quiz-6.md").read_text()
    key = (made[0] / "instructors" / "quiz.md").read_text()
    assert "1. Up?" in own
    assert "It rises." not in own
    letter = "a" if "   - a) yes" in own else "b"
    assert f"**{letter}**: It rises." in key


def test_slides_have_goal_figures_with_words_and_recap(made):
    from pptx import Presentation

    slides = list(Presentation(made[0] / "slides" / "06_x.pptx").slides)
    titles = [slide.shapes.title.text for slide in slides]
    assert titles == ["6. References move", "Who goes", "It rises", "Longer run: It rises further", "Recap"]
    assert slides[1].placeholders[1].text == "Method 1 goes.\nMethod 2 stays."
    assert slides[0].placeholders[1].text == "See that references move, c_j too."
    assert any(
        "Figures of the profile smoke. The lesson's words were written for laptop" in s.text for s in texts(slides[0])
    )
    assert any(s.text == "Figure 6.1. It rises. Profile smoke." for s in texts(slides[2]))
    (picture,) = [shape for shape in slides[2].shapes if shape.shape_type == 13]
    assert picture._element.nvPicPr.cNvPr.get("descr") == "A rising line."
    assert picture.top + picture.height <= 6858000
    deck = Presentation(made[0] / "slides" / "06_x.pptx")
    assert deck.slide_width * 9 == deck.slide_height * 16
    for slide in deck.slides:  # what the template places is centred on the wider slide
        assert all(abs(2 * s.left + s.width - deck.slide_width) < 3 for s in slide.placeholders)
    assert any("It rises further. Profile long." in s.text for s in texts(slides[3]))  # as the book keeps it
    assert slides[4].placeholders[1].text == "A line rises in figure 6.1 of lesson 4.\nIt has three points."


def texts(slide):
    return [shape.text_frame for shape in slide.shapes if shape.has_text_frame]


def test_an_interactive_figure_is_a_picture_or_its_description(made, tmp_path):
    from pptx import Presentation

    from crossfunc.lessons.slides import write_slides

    (plan,) = made[2]
    notebook = json.loads(plan.notebook.read_text())
    note = {"alt": "A bar.", "caption": "Bars (labels).", "name": "fig-06-bar"}
    shown = {
        "output_type": "display_data",
        "data": {"application/vnd.plotly.v1+json": {}},
        "metadata": {"crossfunc": note},
    }
    notebook["cells"].append({"cell_type": "code", "source": "", "metadata": {}, "outputs": [shown]})
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / plan.notebook.name).write_text(json.dumps(notebook))
    changed = replace(plan, folder=tmp_path)
    png = made[0] / "line.png"
    import matplotlib.pyplot as plt

    plt.figure().savefig(png)
    described = Presentation(write_slides([changed], tmp_path / "a.pptx")).slides[3]
    drawn = Presentation(write_slides([changed], tmp_path / "b.pptx", None, {"fig-06-bar": png.read_bytes()})).slides[3]
    assert any(s.text == "Interactive: open the lesson. A bar." for s in texts(described))
    (picture,) = [shape for shape in drawn.shapes if shape.shape_type == 13]
    assert picture._element.nvPicPr.cNvPr.get("descr") == "A bar."
    assert drawn.shapes.title.text == described.shapes.title.text == "Bars"


def test_the_hand_out_is_one_page_and_groups_have_a_notebook_of_their_own(made):
    from crossfunc.datasets import open_dataset
    from crossfunc.lessons import verdicts

    assert (made[0] / "print" / "handout.pdf").read_bytes().startswith(b"%PDF")
    folder = made[0] / "groups" / "A-Li-Fe-O"
    text, cells = text_of(folder / "06_x.ipynb")
    assert "elements = ['Li', 'Fe', 'O']\nbinary = ['Fe', 'O']\nternary = ['Li', 'Fe', 'O']\nby_hand = 'Fe2O3'" in text
    assert "secret" not in text
    assert not any(cell.get("outputs") for cell in cells)
    assert courses.check("06.1", "up", file=folder / "answers.json") == "right"
    sheet = (folder / "sheet.md").read_text()
    phases = verdicts.lowest_phases(open_dataset("surrogate"), ["Fe", "O"])
    fe2o3 = phases.set_index("phase").loc["Fe2O3"]
    assert f"| Fe2O3 | 3/5 (0.600) | {fe2o3['formation_energy_ev_per_atom']:.3f} |" in sheet
    assert "Leave Fe2O3 out of the table" in sheet
    left, right, energy = verdicts.decompose(phases, "Fe2O3")
    answer = (made[0] / "instructors" / "groups.md").read_text()
    assert f"- **A**: Fe2O3 → {left} + {right}, {energy:+.3f} eV/atom" in answer
    assert list(phases["phase"])[:: len(phases) - 1] == ["Fe", "O"]
    assert phases["share"].is_monotonic_increasing
    assert "not DFT" in sheet
    assert "run 06" not in sheet  # that one would hold the solutions


def test_the_lever_rule_gives_what_the_phase_diagram_gives():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    from crossfunc.datasets import open_dataset
    from crossfunc.lessons import verdicts

    for binary, name in ((["Fe", "O"], "Fe2O3"), (["Co", "O"], "CoO"), (["V", "O"], "V2O3"), (["Mn", "O"], "Mn2O3")):
        phases = verdicts.lowest_phases(open_dataset("surrogate"), binary)
        entries = [
            PDEntry(Composition(f), e * Composition(f).num_atoms, f) for f, _, e in phases.to_numpy() if f != name
        ]
        left, right, energy = verdicts.decompose(phases, name)
        own = phases.set_index("phase").loc[name, "formation_energy_ev_per_atom"]
        rest = PhaseDiagram(entries)
        assert energy == pytest.approx(own - rest.get_hull_energy_per_atom(Composition(name)))
        assert {left, right} == {entry.name for entry in rest.get_decomposition(Composition(name))}
    with pytest.raises(LessonError, match="no phase XeO"):
        verdicts.decompose(phases, "XeO")


def test_a_point_of_the_hand_out_stands_alone(own_course):
    """It hangs on a wall without the lesson: no figure that is not there, and nothing that another point has named."""
    for lesson in find_lessons(own_lessons()):
        recap = [cell.source for cell in lesson.notebook().cells if cell.source.startswith("## Recap")]
        if not recap:
            continue
        points = [line[2:] for line in recap[0].splitlines() if line.startswith("- ")]
        said = wording.as_words(points[own_course.handout[lesson.number] - 1])
        assert not re.search(r"figure|\btheirs\b|^It |out of it\b", said), lesson.stem
        assert len(said) < 200, lesson.stem


def test_students_work_at_the_size_of_the_profile(made):
    (plan, *_), course = made[2:]
    (name, declared), *_ = ((n, d) for n, d in plan.lesson.parameters.items() if isinstance(d.default, int))
    larger = replace(plan, parameters=plan.parameters | {name: declared.default + 7})
    sources = ["".join(cell["source"]) for cell in courses.student_notebook(larger, course)["cells"]]
    said = f"# Values of the profile {plan.profile} in place of the lesson's own.\n# The text was written for laptop"
    at = next(k for k, text in enumerate(sources) if text.startswith("# Values of the profile"))
    assert sources[at].startswith(said)
    assert sources[at].endswith(f"\n{name} = {declared.default + 7}")
    assert f"{name} =" in sources[at - 1]  # right after the lesson's own


def test_an_exercise_without_its_entry_is_named(made):
    plans, course = made[2:]
    with pytest.raises(LessonError, match=r"exercise 06.1 is not in course.yml"):
        courses.student_notebook(plans[0], courses.Course({}, course.quiz, course.groups))


def test_a_lesson_that_is_not_fresh_is_no_course(made, tmp_path):
    (plan,), course = made[2:]
    root, kept = plan.lesson.path.parents[1], plan.lesson.text
    plan.lesson.path.write_text(kept + "\n# changed\n")
    try:
        with pytest.raises(LessonError, match="fresh lessons only"):
            courses.write_course(plan_run(root, "smoke", package=root / "package"), tmp_path, course)
    finally:
        plan.lesson.path.write_text(kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": "left"}, "06.1: the right answer 'left' is not among the choices"),
        ({"hint": "x"}, "06.1: needs the fields answer, ask, choices, minutes, right"),
        ({"value": {"ask": "?", "expression": "1"}}, "06.1: value needs ask, expression and one of absolute and rel"),
        ({"value": {"ask": "?", "expression": "1 +", "absolute": 1}}, "06.1: the expression of value is no Python"),
        ({"value": {"ask": "?", "expression": "1", "absolute": "1e-6"}}, "06.1: the tolerance of value must be a num"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, message):
    wrong = {**COURSE, "exercises": {"06.1": COURSE["exercises"]["06.1"] | change}}
    (tmp_path / "course.yml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(LessonError, match=message):
        courses.read_course(tmp_path / "course.yml")


# --- the book's own course ---


def test_every_exercise_of_the_book_has_minutes_a_check_and_an_answer(root):
    course = courses.read_course(root / "notebooks" / "course.yml")
    asked = [
        f"{lesson.number}.{number}"
        for lesson in find_lessons(root / "notebooks")
        for number in EXERCISE.findall(lesson.text)
    ]
    assert sorted(asked) == sorted(course.exercises)
    assert set(course.quiz) == {lesson.number for lesson in find_lessons(root / "notebooks")}


def test_a_quiz_has_two_questions_for_each_lesson(own_course):
    assert {number: len(several) for number, several in own_course.quiz.items() if len(several) != 2} == {}


def with_value(own_course):
    return {key: one["value"] for key, one in own_course.exercises.items() if "value" in one}


def test_numbers_are_asked_for_from_the_first_lesson_to_the_last(own_course):
    asked = {key.partition(".")[0] for key in with_value(own_course)}
    assert len(with_value(own_course)) >= 8
    assert {"01", "03", "04", "04b", "05", "06", "10"} <= asked


def test_what_a_number_is_computed_from_is_bound_before_the_exercise_and_by_no_solution(own_course, root):
    for lesson in find_lessons(root / "notebooks"):
        bound, exercise = set(dir(builtins)), None
        for cell in lesson.notebook().cells:
            if cell.cell_type == "markdown":
                if number := EXERCISE.search(cell.source):
                    exercise = f"{lesson.number}.{number[1]}"
                    tree = ast.parse(with_value(own_course).get(exercise, {}).get("expression", "0"))
                    names = {node.id: type(node.ctx) for node in ast.walk(tree) if isinstance(node, ast.Name)}
                    own = {node.target.id for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)}
                    assert names.keys() - own <= bound, exercise
            elif courses.SOLUTION_TAG not in cell.metadata.get("tags", []):
                for node in ast.walk(ast.parse(cell.source)):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        bound |= {alias.asname or alias.name for alias in node.names}
                    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        bound.add(node.id)


def test_the_number_of_a_closed_form_is_what_the_library_finds(own_course):
    import numpy as np

    import crossfunc as xf

    X = xf.composition_matrix(["Li2O", "LiO2", "Fe2O3", "FeO", "Li", "Fe", "LiFeO2"])
    energies = np.array([-4.8, -4.9, -6.7, -6.4, -1.9, -8.5, -6.0])
    plain, moved = (xf.fit_atomref(X, e).remove(X, e) for e in (energies, energies + 5.0))
    value = with_value(own_course)["03.2"]
    assert np.abs(plain - moved).max() == pytest.approx(float(value["expression"]), abs=value["absolute"])

    said = {"functional": "r2scan", "energy_kind": "raw", "source": "a toy"}
    formulas = ["Li2O", "Li2O2", "Fe2O3", "FeO", "Li", "Fe", "O2", "LiFeO2"]
    before = xf.EntryTable.from_columns(formulas, formulas, [-4.8, -4.9, -6.7, -6.4, -1.9, -8.5, -4.5, -6.0], **said)
    after = before.with_energies(before.energy_per_atom_ev + 0.05)
    of_both = [xf.hull_report(None, table)["decomposition_energy_ev_per_atom"] for table in (before, after)]
    value = with_value(own_course)["06.1"]
    assert np.abs(np.subtract(*of_both)).max() == pytest.approx(
        float(value["expression"]), abs=value["absolute"] / 1000
    )


def test_right_answers_do_not_stand_in_one_place(root):
    course = courses.read_course(root / "notebooks" / "course.yml")
    places = Counter(courses.shuffled(one["choices"], key).index(one["right"]) for key, one in course.exercises.items())
    assert len(places) == 3
    assert max(places.values()) < 0.7 * len(course.exercises)


def test_each_group_has_phases_enough_for_a_hull(root):
    from pymatgen.core import Composition

    from crossfunc.datasets import open_dataset

    formulas = [Composition(c) for c in open_dataset("surrogate").pairs["composition"].unique()]
    for group in courses.read_course(root / "notebooks" / "course.yml").groups:
        inside = {c.reduced_formula for c in formulas if {e.symbol for e in c.elements} <= set(group["elements"])}
        assert len(inside) >= 8, group["name"]
        assert Composition(group["by_hand"]).reduced_formula in inside
