"""Lessons' MyST as words for slides and as Markdown that any Jupyter shows."""

import re

import pytest

from crossfunc.lessons import wording
from crossfunc.lessons.sources import find_lessons

TITLES = {"claims": "Claims of the paper"}


@pytest.mark.parametrize(
    ("myst", "words"),
    [
        ("A law is a line in {numref}`fig-7`; quote it.", "A law is a line in figure 7.2; quote it."),
        ("A law is a line in {numref}`fig-9`; quote it.", "A law is a line in the figure; quote it."),
        ("Solve {eq}`eq-x` first.", "Solve the equation first."),
        (
            "A law {eq}`eq-x` is a line, the shape of {eq}`eq-y` is not.",
            "A law is a line, the shape of the equation is not.",
        ),
        ("{eq}`eq-x` holds.", "The equation holds."),
        ("Forces end above ({numref}`fig-7`).", "Forces end above."),
        ("A {term}`element reference <x>` $c_j$, **bold** ({numref}`fig-1`).", "A element reference c_j, bold."),
        ("follow {doc}`04_four_methods` and {doc}`/notebooks/04b_what_moved`", "follow lesson 4 and lesson 4b"),
        ("see {doc}`claims`, {doc}`the recipe <recipe>`", "see the page “Claims of the paper”, the recipe"),
        ("as {cite:t}`huang2025crossfunctional` say", "as Huang 2025 say"),
        (r"a rate $\eta$ of $\mathbf{x}$ `code`", "a rate η of x code"),
        ("[a link](https://example.org)", "a link"),
    ],
)
def test_words_have_no_role_and_no_hole(myst, words):
    assert wording.as_words(myst, TITLES, {"fig-7": "7.2"}) == words


def test_markdown_for_any_jupyter():
    myst = (
        "See {numref}`fig-7`, {eq}`eq-a` and {doc}`claims`.\n\n"
        ":::{admonition} Exercise 1\n:class: tip\nDoes it *rise*?\n\n- once\n:::\n\nAfter.\n\n"
        "$$E = X \\mu$$ (eq-a)\n\n```{math}\n:label: eq-b\na = b\n```\n"
    )
    assert wording.as_markdown(myst, TITLES) == (
        "See the figure `fig-7`, (eq-a) and the page “Claims of the paper”.\n\n"
        "> **Exercise 1**\n>\n> Does it *rise*?\n>\n> - once\n\nAfter.\n\n"
        "$$E = X \\mu \\tag{eq-a}$$\n\n$$a = b \\tag{eq-b}$$\n"
    )


def test_figures_of_longer_runs_are_found_in_a_lessons_source():
    source = "# %% [markdown]\n# Its histories:\n#\n# :::{lesson-figure} 04_x fig-04-y\n# :kept: converged\n# :::\n"
    assert wording.kept_figures(source) == [("04_x", "fig-04-y", "converged")]
    assert wording.kept_figures("# none") == []


def test_a_figure_of_a_longer_run_is_said_to_be_in_the_book():
    myst = "Its histories:\n\n:::{lesson-figure} 04_four_methods fig-04-histories\n:kept: converged\n:::\n\nAfter."
    assert wording.as_markdown(myst) == (
        "Its histories:\n\n> The book shows `fig-04-histories` of a longer run here.\n\nAfter."
    )


def test_no_lesson_leaves_a_role_or_an_admonition(root):
    titles = wording.page_titles(root / "book")
    assert titles["claims"]
    for lesson in find_lessons(root / "notebooks"):
        for cell in lesson.notebook().cells:
            if cell.cell_type == "markdown":
                text = wording.as_markdown(cell.source, titles)
                assert not re.search(r"\{[\w:-]+\}`|^:::|^```\{", text, re.M), (lesson.stem, text)
                words = wording.as_words(cell.source, titles)
                assert not re.search(r"\{[\w:-]+\}`", words), (lesson.stem, words)


@pytest.mark.parametrize(
    ("caption", "title"),
    [
        ("A hull, and what is above it (surrogate labels: not DFT).", "A hull, and what is above it"),
        ("Errors of four methods; bars are seeds.", "Errors of four methods"),
        ("Test error: 3 meV/atom", "Test error: 3 meV/atom"),
        ("word " * 40, ("word " * 17).strip() + " …"),
        ("First clause of some length, " + "and then more " * 10, "First clause of some length"),
    ],
)
def test_a_headline_fits_on_a_slide(caption, title):
    assert wording.headline(caption) == title
    assert len(wording.headline(caption)) <= wording.LONGEST_HEADLINE + 2


def test_figures_are_counted_in_the_order_of_the_lesson():
    text = 'name="fig-04-a",\nname="fig-04-b"\nname="fig-04-a"'
    assert wording.figure_numbers(text, "04b") == {"fig-04-a": "4b.1", "fig-04-b": "4b.2"}


@pytest.mark.parametrize(("text", "said"), [("see that.", "See that."), ("", ""), (" a b ", "A b.")])
def test_a_sentence_has_a_capital_and_a_stop(text, said):
    assert wording.sentence(text) == said
