"""Slides of a lesson and one page for the wall, from the figures, goals and recaps of executed lessons."""

import base64
import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from crossfunc.files import write_atomically
from crossfunc.lessons import wording
from crossfunc.lessons.exports import PLOTLY, named_figures
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.profiles import DEFAULT_PROFILE
from crossfunc.lessons.sources import spoken_number

__all__ = [
    "MORE",
    "RECAP",
    "Slide",
    "cell_text",
    "draw_interactive",
    "figure_pictures",
    "figures_without_slide",
    "lesson_title",
    "page_slide_titles",
    "slide_titles",
    "write_handout",
    "write_page_slides",
    "write_slides",
]

LONGER = "Longer run: "
QUESTION = "Before the next figure"
RECAP = "Recap"
MORE = "for questions"
STORY_FIGURE = "fig-03-story"
SLIDE_TAG = "slide"
_HEADLINE_PT, _CAPTION_PT, _RECAP_PT, _QUESTION_PT = 24, 12, 20, 28
_WIDTH_OVER_HEIGHT = 16 / 9


class Slide(NamedTuple):
    """A slide's title, the figure that it shows or asks about, what of its remarks is for it; words; its list."""

    title: str
    figure: str = ""
    remarks: tuple[str, ...] = ()
    say: str = ""
    points: tuple[str, ...] = ()


def lesson_title(plan: Plan) -> str:
    """Return "3. Element references bring the functionals together"."""
    for cell in _cells(plan):
        if (text := cell_text(cell)).startswith("# "):
            return f"{spoken_number(plan.lesson.stem)}. {text.splitlines()[0].removeprefix('# ')}"
    return plan.lesson.stem


def draw_interactive(plans: Iterable[Plan]) -> tuple[dict[str, bytes], str]:
    """Return a picture of each interactive figure as it looks before anyone touches it, and why there is none.

    A browser draws them, once for all lessons; without one the pictures are empty and the reason is not.
    """
    from crossfunc.lessons.figures import FigureError, write_interactive

    specs = {
        note["name"]: data[PLOTLY] for plan in plans for note, data in named_figures(plan.notebook) if PLOTLY in data
    }
    if not specs:
        return {}, ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_interactive(specs, Path(folder), ("png",))
        except FigureError as error:
            return {}, str(error)
        return {name: (Path(folder) / f"{name}.png").read_bytes() for name in specs}, ""


def write_slides(
    plans: Iterable[Plan],
    path: Path,
    titles: Mapping[str, str] | None = None,
    drawn: Mapping[str, bytes] | None = None,
    remarks: Mapping[str, Mapping[str, Any]] | None = None,
    said: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the slides of lessons: the goal of each, what it lists under the tag "slide", its named figures, its recap.

    PowerPoint's format, which LibreOffice and Keynote read too, because slides are edited before they are shown. A
    figure has a headline above it and its whole caption below, with the profile that it was drawn at; its description
    is the alternative text and stands in the notes.

    Parameters
    ----------
    plans : iterable of Plan
        Plans of executed lessons, one after another in one deck.
    path : path
    titles : mapping, optional
        Titles of the book's pages, from `wording.page_titles`.
    drawn : mapping, optional
        Pictures of interactive figures, from `draw_interactive`; a slide without one shows the description.
    remarks : mapping, optional
        Name of a figure to what to `say`, to `ask` and to `answer`, which stand in the notes above the description.
        With `before`, the question has a slide of its own in front of the figure's, so that nobody has read the answer
        off a headline; `headline` stands above the figure in place of its caption's first words, and `more` comes last.
    said : mapping, optional
        Number of a lesson to what to say at its slides without a figure, for their notes: at its `goal`, at its
        `recap`, and at its `lists` by their headings.
    """
    deck = _new_deck()
    for plan in plans:
        _add_lesson(deck, plan, titles, drawn, remarks or {}, (said or {}).get(plan.lesson.number, {}))
    return _save(deck, path)


def write_page_slides(
    text: str, path: Path, titles: Mapping[str, str] | None = None, say: Mapping[str, str] | None = None
) -> Path:
    """Write the slides of a page of the book: a slide for each section, with the first sentence of each paragraph.

    What there is to `say` at a slide, by its title, stands in its notes.
    """
    deck = _new_deck()
    (title, points), *sections = _page_slides(text, titles)
    front = deck.slides.add_slide(deck.slide_layouts[0])
    _fill(front.shapes.title, title, 40)
    _fill(front.placeholders[1], "\n".join(points), 22)
    slides = [(title, front), *((title, _add_points(deck, title, points)) for title, points in sections)]
    for title, slide in slides:
        _note_say(slide, (say or {}).get(title))
    return _save(deck, path)


def page_slide_titles(text: str) -> list[str]:
    """Return the titles of the slides of a page of the book, in their order."""
    return [title for title, _ in _page_slides(text, None)]


def _page_slides(text: str, titles: Mapping[str, str] | None) -> list[tuple[str, list[str]]]:
    """Title and points of each slide of a page: its front, and each section that has points."""
    head, *sections = re.split(r"^## ", text, flags=re.M)
    found = [(head.splitlines()[0].removeprefix("# "), _first_sentences(head.partition("\n")[2], titles))]
    for section in sections:
        heading, _, body = section.partition("\n")
        if points := _first_sentences(body, titles):
            found.append((wording.as_words(heading), points))
    return found


def slide_titles(
    plan: Plan,
    remarks: Mapping[str, Mapping[str, Any]] | None = None,
    said: Mapping[str, Any] | None = None,
    titles: Mapping[str, str] | None = None,
) -> list[Slide]:
    """Return the title of each of a lesson's slides, in their order, with its figure and what is said at it.

    A figure whose remarks have `before` is asked about on a slide of its own, in front of it; `said` is of slides
    without a figure, as `write_slides` takes it for each lesson. A slide with a list has the lines of it, in which
    `titles` name the book's pages.
    """
    said = said or {}
    of_lists = said.get("lists", {})
    slides = [Slide(lesson_title(plan), say=said.get("goal", ""))]
    lists = _lists(plan, titles)
    slides += [Slide(heading, say=of_lists.get(heading, ""), points=tuple(points)) for heading, points in lists]
    for note, *_ in _figures(plan):
        name = note["name"]
        about = (remarks or {}).get(name, {})
        if about.get("before"):
            slides.append(Slide(QUESTION, name, ("ask",)))
        parts = ("say", "answer") if about.get("before") else ("say", "ask", "answer")
        slides.append(Slide(_headline(note, about), name, parts if about else ()))
    recap = _recap(plan, titles)
    return [*slides, *([Slide(RECAP, say=said.get("recap", ""), points=tuple(recap))] if recap else [])]


def _headline(note: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """What stands above a figure: as `course.yml` words it where the caption would answer the question."""
    return note.get("run", "") + (about.get("headline") or wording.headline(wording.as_words(note["caption"])))


def figures_without_slide(plan: Plan, remarks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the figures with remarks that a lesson names, and that its run did not draw."""
    shown = {note["name"] for note, *_ in _figures(plan)}
    named = list(wording.figure_numbers(plan.lesson.text, plan.lesson.number))
    named += [f"{name}-{profile}" for _, name, profile in wording.kept_figures(plan.lesson.text)]
    return [name for name in named if name in remarks and name not in shown]


def figure_pictures(plan: Plan, drawn: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the picture of each figure on a lesson's slides, by its name; interactive ones from `draw_interactive`."""
    found = {note["name"]: png or (drawn or {}).get(note["name"]) for note, png, _ in _figures(plan)}
    return {name: png for name, png in found.items() if png}


def _figures(plan: Plan) -> list[tuple[Mapping[str, str], bytes | None, str]]:
    """Each figure that a lesson shows, and then those of longer runs that it shows: words, picture if any, profile."""
    found: list = []
    for note, data in named_figures(plan.notebook):
        png = base64.b64decode(data["image/png"]) if "image/png" in data else None
        found.append((note, png, plan.profile))
    kept = plan.lesson.path.parents[1] / "book" / "kept"
    for lesson, name, profile in wording.kept_figures(plan.lesson.text):
        about, png_file = kept / profile / f"{lesson}.run.json", kept / profile / f"{lesson}.{name}.png"
        if about.is_file() and png_file.is_file():
            note = json.loads(about.read_text(encoding="utf-8"))["figures"][name]
            found.append((note | {"name": f"{name}-{profile}", "run": LONGER}, png_file.read_bytes(), profile))
    return found


def _add_lesson(deck, plan: Plan, titles, drawn: Mapping[str, bytes] | None, remarks: Mapping, words: Mapping) -> None:
    front = deck.slides.add_slide(deck.slide_layouts[0])
    _fill(front.shapes.title, lesson_title(plan), 40)
    _fill(front.placeholders[1], _goal(plan, titles), 22)
    _add_note(deck, front, _sizes(plan))
    _note_say(front, words.get("goal"))
    for heading, points in _lists(plan, titles):
        _note_say(_add_points(deck, heading, points), words.get("lists", {}).get(heading))
    numbers = wording.figure_numbers(plan.lesson.text, plan.lesson.number)
    for note, png, profile in _figures(plan):
        picture = png or (drawn or {}).get(note["name"])
        about = remarks.get(note["name"], {})
        said = [f"{kind.capitalize()}: {about[kind]}" for kind in ("say", "ask", "answer") if about]
        said += [f"{MORE.capitalize()}: {about['more']}"] if "more" in about else []
        if about.get("before"):
            asked = _add_points(deck, QUESTION, [about["ask"]], _QUESTION_PT)
            asked.notes_slide.notes_text_frame.text = "\n".join(["The figure is on the next slide.", said.pop(1)])
        number = f"Figure {numbers.get(note['name'], '')}".strip()
        slide = _add_figure(deck, note, about, picture, number, profile)
        slide.notes_slide.notes_text_frame.text = "\n".join([*said, "", note["alt"]] if about else [note["alt"]])
    if points := _recap(plan, titles):
        _note_say(_add_points(deck, RECAP, points), words.get("recap"))


def _note_say(slide, words: str | None) -> None:
    """Put what there is to say into a slide's notes."""
    if words:
        slide.notes_slide.notes_text_frame.text = f"Say: {words}"


def _add_points(deck, heading: str, points: Sequence[str], size: int = _RECAP_PT):
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    _fill(slide.shapes.title, wording.as_words(heading), 32)
    _fill(slide.placeholders[1], "\n".join(points), size)
    return slide


def _new_deck():
    """An empty deck of 16:9, as projectors are; the template's is 4:3, so what it places is widened with it."""
    from pptx import Presentation
    from pptx.util import Emu

    deck = Presentation()
    wider = _WIDTH_OVER_HEIGHT * deck.slide_height / deck.slide_width
    for page in (deck.slide_master, *deck.slide_layouts):
        for shape in page.placeholders:
            if shape.element.spPr.xfrm is not None:  # others inherit their place
                shape.left, shape.width = Emu(round(shape.left * wider)), Emu(round(shape.width * wider))
    deck.slide_width = Emu(round(deck.slide_width * wider))
    return deck


def _save(deck, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    deck.save(buffer)
    return write_atomically(path, buffer.getvalue())


def _lists(plan: Plan, titles: Mapping[str, str] | None) -> list[tuple[str, list[str]]]:
    """Heading and points of each cell under the tag "slide": what a lesson wants on a slide beside its figures."""
    numbers, found, heading = wording.figure_numbers(plan.lesson.text, plan.lesson.number), [], ""
    for cell in _cells(plan):
        if cell["cell_type"] != "markdown":
            continue
        lines = cell_text(cell).splitlines()
        heading = next((line.removeprefix("## ") for line in lines if line.startswith("## ")), heading)
        if SLIDE_TAG in cell["metadata"].get("tags", []):
            points = [wording.as_words(line[2:], titles, numbers) for line in lines if line.startswith("- ")]
            found.append((heading, points))
    return found


def _first_sentences(text: str, titles: Mapping[str, str] | None) -> list[str]:
    """The first sentence of each paragraph and point of a list, equations, rows of tables, and questions in full.

    Answers and all else in admonitions are left out.
    """
    text = re.sub(r":::\{admonition\} Answers?\n.*?\n:::\n?", "", text, flags=re.S)
    text = re.sub(r"\$\$(.*?)\$\$[^\n]*", lambda found: f"- {found[1].strip(' .')}", text, flags=re.S)
    text = re.sub(r"^\|.*\n\|[-|: ]+\|\n", "", text, flags=re.M)  # heads of tables
    text = re.sub(r"^\| (.*?) \| (.*?) \|.*$", r"- \1: \2", text, flags=re.M)
    questions = [line[3:] for line in text.splitlines() if re.match(r"\d\. ", line)]
    text = re.sub(r":::\{.*?\n:::\n?", "", text, flags=re.S)
    blocks = [block.strip() for block in re.split(r"\n\s*\n|\n(?=- )", text)]
    lines = [block.removeprefix("- ").splitlines()[0] for block in blocks if block and not block.startswith("|")]
    first = [re.split(r"(?<=[a-z)])\. ", wording.as_words(line, titles))[0].rstrip(".") for line in lines]
    points = [words + "." for words in first if not words.endswith(":")]
    return points + [wording.as_words(line, titles) for line in questions]


def _sizes(plan: Plan) -> str:
    said = f"Figures of the profile {plan.profile}."
    if plan.profile == DEFAULT_PROFILE:
        return said
    return f"{said} The lesson's words were written for {DEFAULT_PROFILE}: where a figure differs, its size is why."


def _add_figure(deck, note: Mapping[str, str], about: Mapping, png: bytes | None, number: str, profile: str):
    """Add a figure's slide; a headline of its own stands in the caption as well, before what the labels are."""
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    caption = wording.as_words(note["caption"])
    if own := about.get("headline"):
        labels = re.search(r" \([^()]*\)\.?$", caption)
        caption = own + (labels[0] if labels else "")
    title, margin = slide.shapes.title, int(0.04 * deck.slide_width)
    title.left, title.top, title.width, title.height = margin, margin, deck.slide_width - 2 * margin, 850_000
    _fill(title, _headline(note, about), _HEADLINE_PT)
    top, bottom = title.top + title.height, int(0.87 * deck.slide_height)
    if png is None:
        box = slide.shapes.add_textbox(margin, top, deck.slide_width - 2 * margin, bottom - top)
        box.text_frame.word_wrap = True
        _fill(box, f"Interactive: open the lesson. {note['alt']}", 18)
    else:
        picture = slide.shapes.add_picture(BytesIO(png), 0, 0)
        scale = min((deck.slide_width - 2 * margin) / picture.width, (bottom - top) / picture.height)
        picture.width, picture.height = int(picture.width * scale), int(picture.height * scale)
        picture.left, picture.top = (deck.slide_width - picture.width) // 2, top
        picture._element.nvPicPr.cNvPr.set("descr", note["alt"])
    _add_note(deck, slide, f"{number}. {caption.rstrip('.')}. Profile {profile}.")
    return slide


def _add_note(deck, slide, text: str) -> None:
    """Put small words at the foot of a slide."""
    margin = int(0.04 * deck.slide_width)
    top = int(0.88 * deck.slide_height)
    box = slide.shapes.add_textbox(margin, top, deck.slide_width - 2 * margin, deck.slide_height - top)
    box.text_frame.word_wrap = True
    _fill(box, text, _CAPTION_PT)


def _fill(shape, text: str, points: int) -> None:
    """Put text into a shape at a size that leaves room for the longest of its kind."""
    from pptx.util import Pt

    frame = shape.text_frame
    frame.text = text
    for run in [run for paragraph in frame.paragraphs for run in paragraph.runs]:
        run.font.size = Pt(points)  # of the run: a paragraph's own size is lost when someone edits it


def _cells(plan: Plan) -> list[dict[str, Any]]:
    return json.loads(plan.notebook.read_text(encoding="utf-8"))["cells"]


def cell_text(cell: Mapping[str, Any]) -> str:
    """Return a cell's source, which a file may hold as one text or line by line."""
    return "".join(cell["source"])


def _goal(plan: Plan, titles: Mapping[str, str] | None) -> str:
    found = re.search(r"\*\*Goal\*\*: (.*)", "\n".join(cell_text(cell) for cell in _cells(plan)))
    return wording.sentence(wording.as_words(found[1], titles)) if found else ""


def _recap(plan: Plan, titles: Mapping[str, str] | None) -> list[str]:
    numbers = wording.figure_numbers(plan.lesson.text, plan.lesson.number)
    for cell in _cells(plan):
        if cell["cell_type"] == "markdown" and cell_text(cell).startswith("## Recap"):
            lines = [line[2:] for line in cell_text(cell).splitlines() if line.startswith("- ")]
            return [wording.as_words(line, titles, numbers) for line in lines]
    return []


def write_handout(
    plans: Sequence[Plan],
    path: Path,
    titles: Mapping[str, str] | None = None,
    chosen: Mapping[str, int] | None = None,
) -> Path:
    """Write one page for the wall: a point of each lesson's recap, its first list, and the figure of lesson 3's story.

    A list is what a lesson has on a slide under the tag "slide"; the first of lesson 4 is that of the four methods.

    Parameters
    ----------
    plans : sequence of Plan
        Plans of executed lessons.
    path : path
    titles : mapping, optional
        Titles of the book's pages.
    chosen : mapping, optional
        Number of a lesson to the point of its recap, from 1; the first where none is named.
    """
    from crossfunc.lessons.figures.handout import draw_handout

    sections: list[tuple[str, list[str]]] = []
    story, caption = None, ""
    for plan in plans:
        at = (chosen or {}).get(plan.lesson.number, 1) - 1
        points = _recap(plan, titles)[at : at + 1] or [_goal(plan, titles)]
        sections.append((lesson_title(plan), points))
        sections += _lists(plan, titles)[:1]
        for note, data in named_figures(plan.notebook):
            if note["name"] == STORY_FIGURE and "image/png" in data:
                story = base64.b64decode(data["image/png"])
                caption = wording.as_words(note["caption"])
    path.parent.mkdir(parents=True, exist_ok=True)
    foot = " ".join([caption, _sizes(plans[0])] if plans else [])
    page = draw_handout("Carrying a potential over to another functional", sections, story, foot)
    buffer = BytesIO()
    page.savefig(buffer, format="pdf")
    return write_atomically(path, buffer.getvalue())
