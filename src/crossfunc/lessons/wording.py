"""The lessons' MyST as words for a slide, and as Markdown that any Jupyter shows.

Roles and admonitions are the book's: outside it they are raw text between braces. What they point at is said in words,
so that no sentence is left with a hole.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from crossfunc.lessons.sources import spoken_number

__all__ = [
    *("as_markdown", "as_words", "figure_numbers", "headline", "kept_figures", "page_titles", "sentence"),
    "without_answers",
]

LONGEST_HEADLINE = 88
_ROLE = re.compile(r"\{(\w+(?::\w+)?)\}`([^`]*)`")
_IN_BRACKETS = re.compile(r"\s*\((?:see )?\{(?:numref|eq|doc|cite(?::\w)?)\}`[^`]*`\)")
_EQUATION = re.compile(r"(\w+) \{eq\}`[^`]*`")
_ASKS = frozenset("by fit fits for from in minimise minimises of on reading solve solves that with".split())
_LABEL = re.compile(r"\$\$(.*?)\$\$ \((eq-[\w-]+)\)", re.S)
_DIRECTIVE = re.compile(r"^:::+\{(\w+)\} ?([^\n]*)\n((?::[a-z]+: [^\n]*\n)*)(.*?)^:::+$", re.S | re.M)
_ANSWER = re.compile(r"\n?:::\{admonition\} Answers?\n.*?\n:::\n?", re.S)
_KEPT_FIGURE = re.compile(r"^:::\{lesson-figure\} (\S+) (fig-[\w-]+)\n:kept: (\S+)\n:::$", re.M)
_MATHS = re.compile(r"^```\{math\}\n(?::label: (eq-[\w-]+)\n)?(.*?)^```$", re.S | re.M)
_LESSON = re.compile(r"(?:.*/)?(\d\d[a-z]?)_\w+$")
_KEY = re.compile(r"([a-z]+)(\d{4})\w*")
_NAMED = re.compile(r'name="(fig-[\w-]+)"')
_GREEK = {
    "partial": "∂",
    "alpha": "α",
    "beta": "β",
    "eta": "η",
    "lambda": "λ",
    "sigma": "σ",
    "approx": "≈",
    "times": "×",
    "le": "≤",
}


def page_titles(folder: Path) -> dict[str, str]:
    """Return the first heading of each page of the book's folder, by the name that `{doc}` gives it."""
    titles = {}
    for path in sorted(folder.glob("*.md")):
        first, *_ = path.read_text(encoding="utf-8").splitlines() or [""]
        titles[path.stem] = first.removeprefix("# ")
    return titles


def figure_numbers(text: str, number: str) -> dict[str, str]:
    """Return "7.3" for the third figure that lesson 7 names, by its name."""
    names = dict.fromkeys(_NAMED.findall(text))
    return {name: f"{spoken_number(number)}.{k}" for k, name in enumerate(names, start=1)}


def kept_figures(text: str) -> list[tuple[str, str, str]]:
    """Return lesson, name and profile of each figure of a longer run that a lesson's source shows."""
    return _KEPT_FIGURE.findall(re.sub(r"^# ?", "", text, flags=re.M))


def as_words(text: str, titles: Mapping[str, str] | None = None, numbers: Mapping[str, str] | None = None) -> str:
    """Return Markdown as words for a slide: roles said in words, no marks of emphasis or mathematics.

    Parameters
    ----------
    text : str
    titles : mapping, optional
        Titles of the book's pages, from `page_titles`.
    numbers : mapping, optional
        Number of each named figure; a figure without one is "the figure".
    """
    text = _IN_BRACKETS.sub("", text)
    # "The law (7) is a line" loses its number without loss, "shape of (5)" does not.
    text = _EQUATION.sub(lambda found: f"{found[1]} the equation" if found[1].lower() in _ASKS else found[1], text)
    text = _ROLE.sub(lambda found: _say(found, titles or {}, numbers or {}), text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\\(\w+)", _command, text)
    return " ".join(re.sub(r"[$`*{}\\]", "", text).split())


def as_markdown(text: str, titles: Mapping[str, str] | None = None) -> str:
    """Return MyST as Markdown: admonitions as quotations, labels of equations beside them, roles in words."""
    text = _MATHS.sub(lambda found: f"$${found[2].strip()}$$" + (f" ({found[1]})" if found[1] else ""), text)
    text = _LABEL.sub(lambda found: f"$${found[1]} \\tag{{{found[2]}}}$$", text)
    text = _KEPT_FIGURE.sub(lambda found: f"> The book shows `{found[2]}` of a longer run here.", text)
    text = _DIRECTIVE.sub(lambda found: _quotation(found[1], found[2], found[4]), text)
    return _ROLE.sub(lambda found: _say(found, titles or {}, {}, mark="`"), text)


def without_answers(text: str) -> str:
    """Return MyST without the admonitions that hold answers."""
    return _ANSWER.sub("\n", text)


def _quotation(kind: str, title: str, body: str) -> str:
    heading = title or kind.capitalize()
    return "\n".join(["> " + line if line else ">" for line in [f"**{heading}**", "", *body.strip().splitlines()]])


def _say(found: re.Match, titles: Mapping[str, str], numbers: Mapping[str, str], mark: str = "") -> str:
    """Say in words what a role points at; names that stand in the notebook itself between two marks."""
    role, target = found[1], found[2]
    words, _, inner = target.partition("<")
    if inner:
        return words.strip()
    if role == "numref" and target in numbers:
        return f"figure {numbers[target]}"
    if role == "numref":
        return f"the figure {mark}{target}{mark}" if mark else "the figure"
    if role == "eq":
        return f"({target})" if mark else "The equation"
    if role == "doc" and (lesson := _LESSON.match(target)):
        return f"lesson {spoken_number(lesson[1])}"
    if role == "doc":
        name = target.strip("/").rpartition("/")[2]
        return f"the page “{titles.get(name, name.replace('_', ' '))}”"
    if role.startswith("cite"):
        return "; ".join(_KEY.sub(_author_and_year, key.strip()) for key in target.split(","))
    return target


def _author_and_year(key: re.Match) -> str:
    return f"{key[1].capitalize()} {key[2]}"


def _command(found: re.Match) -> str:
    """A command of TeX as a letter, as itself, or as nothing where it only chooses a type face."""
    return _GREEK.get(found[1], "" if found[1].startswith(("math", "hat")) else found[1])


def headline(caption: str) -> str:
    """Return the first thing that a caption says, at a length that a slide's title holds."""
    text = re.split(r" \((?=[^()]*\)\.?$)|; |\. ", caption)[0].rstrip(". ")
    if len(text) <= LONGEST_HEADLINE:
        return text
    clause = text[:LONGEST_HEADLINE].rpartition(", ")[0]
    return clause if len(clause) > LONGEST_HEADLINE // 4 else text[:LONGEST_HEADLINE].rpartition(" ")[0] + " …"


def sentence(text: str) -> str:
    """Return words as a sentence: a capital in front, a full stop behind."""
    text = text.strip()
    return text if not text else text[0].upper() + text[1:].rstrip(".") + "."
