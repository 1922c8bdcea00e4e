"""Words that stand alone: what is shown without its neighbours must not lean on them, and rates say "per"."""

import ast
import itertools
import re
from pathlib import Path

import click
import pytest
import typer.main
import yaml

from crossfunc.cli import app
from crossfunc.lessons.sources import Lesson

ROOT = Path(__file__).resolve().parents[1]
LEANS = re.compile(
    r"^(and|but|or|also|they|it|its|their|theirs|those|of|likewise|as above|the same|the others?|the second one|"
    r"the first one|drives|wanted|two at least|whose sizes|what your)\b|\blikewise\b|\bthe same\.$|"
    r"^as (on|in|for) [`\w]+( [`\w]+)?\.$|\b(has that|of these)$|: small ones",
    re.IGNORECASE,
)
UNITS = (
    "second|step|optimiser step|epoch|frame|atom|model|core|functional|material|element|row|target|method|worker|"
    "process|batch|structure|crystal|compound|machine|seed|panel|label|node|GPU|split|line|term|file|curve|size|"
    "moment|fold|system|dataset|layer|edge|bond|point|lesson"
)
COUNTED = (
    "one|once|twice|frames|steps|times|rows?|values?|panels?|pages|features|lines?|arrays?|shifts?|signs|batch|ms|µs|"
    "kB|MB|fs|eV|eV/Å|eV/atom|entries|components?|numbers?"
)
NUMBER = r"one|two|three|four|five|ten|\d[\d.,]*"
# Between a number and "a unit" these make another sentence of it: "one part of a split", "one run settles a frame".
BREAKS = (
    "is|are|was|has|have|as|than|in|for|by|with|to|on|of a|near|under|from|that|and|or|at|per|into|be|when|if|where|"
    "what|whether|before|after|which|between|over|without|about|through|but|until|because|how|makes?|gives?|share|leaves|"
    "settles|cannot|keep|holds?"
)
AFTER = "of|that|which|with|from|for|alone|at a time|to"
DISTRIBUTIVE = re.compile(
    rf"\b(?:({COUNTED})|({NUMBER})(?: (?!(?:{BREAKS})\b)(?:of each )?[\w²/-]+){{1,3}}) an? ({UNITS})\b(?! ({AFTER}))",
    re.IGNORECASE,
)
ALLOWED = ("Of the ten first elements",)  # "of them, so many": a whole sentence
NO_RATES = {
    "Once a model": "as soon as one",
    "3. Choose a method": "a step's number",
    "two functionals a dataset": "two of them, which the dataset holds",
}


ALONE = (
    "all phases made of these",
    "DFT and experiment, if it has that",
    "drives folds and resampling",
    "As for `crossfunc run`.",
    "Whose sizes to take.",
    "Wanted for the energy, in meV/atom.",
    "Two at least; default: the embedded ones.",
    "what your files have",
    "larger frames are left out: small ones are cheap",
)


def test_the_patterns_find_what_they_are_for():
    for text in (
        "Of that split.",
        "raw or mp2020, likewise.",
        "The same.",
        "and no longer than this",
        "Of the data.",
        *ALONE,
    ):
        assert LEANS.search(text), text
    for text in ("Seed of the split.", "Officially free.", "Order of the frames.", "One per core."):
        assert not LEANS.search(text), text
    rates = ("frames an optimiser step", "one a core", "times an epoch", "one panel a model", "one a functional")
    more = (
        "One prediction a frame",
        "one run of each method a split",
        "2 fs a step",
        "64 numbers an atom",
        "One file a functional",
    )
    for text in (*rates, *more):
        assert DISTRIBUTIVE.search(text), text
    for text in (
        "frames per optimiser step",
        "times in an epoch",
        "one of a functional",
        "one part of a split",
        "in one file that a model has",
    ):
        assert not DISTRIBUTIVE.search(text), text


def lessons():
    return sorted((ROOT / "notebooks").glob("[0-9]*.py"))


def parameters():
    for path in lessons():
        for name, line in Lesson(path).parameters.items():
            if line.meaning:
                yield f"{path.stem}: {name}", line.meaning


def options(command=None, name="crossfunc"):
    command = command or typer.main.get_command(app)
    for parameter in command.params:
        if text := getattr(parameter, "help", None):
            yield f"{name} {parameter.name}", text
    if isinstance(command, click.Group) or hasattr(command, "commands"):
        for inner, sub in command.commands.items():
            yield from options(sub, f"{name} {inner}")


def claims():
    for claim in yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8")):
        yield claim["claim"], claim["claim"]
        yield f"limits of: {claim['claim']}", claim["limits"]


def results():
    for lesson, section in yaml.safe_load((ROOT / "notebooks" / "results.yml").read_text(encoding="utf-8")).items():
        for key, entry in section.items():
            yield f"{lesson}: {key}", entry["title"]


def docstrings():
    for path in sorted((ROOT / "src" / "crossfunc").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}", text.splitlines()[0]


WHOLE_SENTENCES = ("Of each group of twins the first material stays",)
ENTRY = re.compile(r"^[\w*, ]+( : .*)?$")


def described(docstring):
    """First lines of what a docstring says of each parameter, attribute or returned value."""
    lines = docstring.splitlines()
    for before, line in itertools.pairwise(lines):
        is_deeper = len(line) - len(line.lstrip()) > len(before) - len(before.lstrip())
        if line.strip() and is_deeper and ENTRY.match(before.strip()):
            yield line.strip()


def parameter_lines():
    package = ROOT / "src" / "crossfunc"
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                yield from ((path.relative_to(package).as_posix(), line) for line in described(text))


def test_a_line_on_a_parameter_can_be_read_without_its_neighbours():
    text = "Do it.\n\nParameters\n----------\nseed : int\n    Of the folds.\nn, m : int\n    Numbers\n    of them."
    assert list(described(text)) == ["Of the folds.", "Numbers"]
    found = {(where, line) for where, line in parameter_lines() if re.match(r"Of\b", line)}
    found = {(where, line) for where, line in found if not line.startswith(WHOLE_SENTENCES)}
    assert sorted(found) == []


@pytest.mark.parametrize("texts", [parameters, options, claims, results, docstrings], ids=lambda f: f.__name__)
def test_what_is_shown_alone_can_be_read_alone(texts):
    found = [f"{where}: {text}" for where, text in texts() if LEANS.search(text) and not text.startswith(ALLOWED)]
    assert found == []


def sources():
    yield from sorted((ROOT / "src").rglob("*.py"))
    yield from lessons()
    yield from sorted((ROOT / "book").glob("*.md"))
    yield from (ROOT / "book" / "claims.yml", ROOT / "README.md", ROOT / "CONTRIBUTING.md")


def test_rates_say_per():
    found, met = [], set()
    for path in sources():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if hit := DISTRIBUTIVE.search(line):
                met.add(hit[0])
                if not {hit[0], str(path.relative_to(ROOT))} & NO_RATES.keys():
                    found.append(f"{path.relative_to(ROOT)}:{number}: {hit[0]}")
                    continue
                met.add(str(path.relative_to(ROOT)))
    assert found == []
    assert NO_RATES.keys() - met == set(), "an exception that nothing needs: take it out"


def test_what_is_counted_twice_is_a_difference_of_bonding_and_not_bonding():
    """A plain refit counts twice how far this set's average bonding is from the pretraining set's, and no more."""
    paths = [*sources(), ROOT / "notebooks" / "course.yml", ROOT / "notebooks" / "results.yml"]
    lines = [(path, line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    found = [(path, line) for path, line in lines if "bonding" in line.lower() and "twice" in line]
    assert len(found) >= 6
    assert [f"{path.name}: {line}" for path, line in found if "ifference" not in line] == []


COMMAND = re.compile(r"^(crossfunc|pytest|python|jupyter|jupytext|papermill)\b", re.MULTILINE)
ACTIVATES = ("activated environment", "source .venv/bin/activate", "with `.venv` activated", "activate the environment")


def first_command(text):
    """Where a page first tells the reader to type a command of the environment; None if it never does."""
    blocks = re.finditer(r"^```bash\n.*?^```", text, re.DOTALL | re.MULTILINE)
    return next((block.start() for block in blocks if COMMAND.search(block[0])), None)


def pages():
    yield from sorted((ROOT / "book").glob("*.md"))
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    yield from lessons()


def test_a_page_says_where_its_commands_live_before_the_first_of_them():
    assert first_command("Say\n\n```bash\ncrossfunc run 03\n```\n") == 5
    assert first_command("Say `crossfunc`, then\n\n```bash\nmake book\n```\n") is None
    lacking = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            text = "\n".join(line.removeprefix("# ") for line in text.splitlines())
        at = len(text) if path.name == "CONTRIBUTING.md" else first_command(text)
        if at is not None and not any(word in text[:at] for word in ACTIVATES):
            lacking.append(str(path.relative_to(ROOT)))
    assert lacking == []
