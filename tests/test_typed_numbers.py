"""No number with a unit is typed on a page unless it is listed with a reason: what is measured is referred to."""

import re

import pytest
import yaml

PLAIN = r"\d+(?:,\d{3})*(?:\.\d+)?"
UNIT = (
    r"(?:m?eV/(?:atom|Å)|m?eV/O atom|m?eV(?![/\w])|GPa|μB|kBar|%|percent"
    r"|Å|K(?![-\w])|[kMG]B|bytes|ms|(?<=[  -])s(?!/)|seconds?|minutes?|hours?|nights?|days?|steps?|×)"
)
SEVERAL = rf"[-−]?{PLAIN}(?:(?:\s?–\s?|(?:,|\s(?:and|to|or))\s)[-−]?{PLAIN})*"
NUMBER = re.compile(rf"(?<![\w.{{-])(?P<numbers>{SEVERAL})[  -]?(?P<unit>{UNIT})(?!\w)")


def prose(path):
    """The sentences of a page or of a lesson's Markdown cells: without code, formulas, roles and figures' words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        cells = [c for c in re.split(r"^# %%", text, flags=re.MULTILINE) if c.startswith(" [markdown]")]
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for c in cells for line in c.splitlines()[1:])
    for code in (r"```.*?```", r"`[^`]*`", r"\$[^$]*\$"):
        text = re.sub(code, "", text, flags=re.DOTALL)
    return text


def typed(text):
    """Each number with the unit behind it, of a range and of "1 and 2 GPa" both."""
    return [
        f"{number} {found['unit']}"
        for found in NUMBER.finditer(text)
        for number in re.findall(rf"[-−]?{PLAIN}", re.sub(r"(?<=\d)\s?–", " ", found["numbers"]))
    ]


@pytest.fixture(scope="module")
def pages(root):
    return [*sorted((root / "book").glob("*.md")), root / "README.md", *sorted((root / "notebooks").glob("[0-9]*.py"))]


@pytest.fixture(scope="module")
def allowed(root):
    return yaml.safe_load((root / "tests" / "typed_numbers.yml").read_text(encoding="utf-8"))


def test_every_typed_number_is_listed_with_its_reason(root, pages, allowed):
    found = []
    for page in pages:
        name = page.relative_to(root).as_posix()
        found += [f"{name}: {number}" for number in typed(prose(page)) if number not in allowed.get(name, {})]
    assert not found, "refer to a result instead, or give a reason in tests/typed_numbers.yml"


def test_a_number_that_is_not_typed_any_more_has_no_reason(root, pages, allowed):
    there = {page.relative_to(root).as_posix(): typed(prose(page)) for page in pages}
    stale = [f"{name}: {number}" for name, of in allowed.items() for number in of if number not in there.get(name, [])]
    assert not stale, "take them out of tests/typed_numbers.yml"


def test_every_reason_is_a_sentence_of_some_length(allowed):
    assert all(len(reason) > 10 for reasons in allowed.values() for reason in reasons.values())


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("an error of 83 meV/atom", ["83 meV/atom"]),
        ("between 1.46 and 2.4 GPa", ["1.46 GPa", "2.4 GPa"]),
        ("moved by 0.05–0.15 Å, or −3 to 4 K", ["0.05 Å", "0.15 Å", "−3 K", "4 K"]),
        ("25, 20 and 10 minutes", ["25 minutes", "20 minutes", "10 minutes"]),
        ("move it by ±0.01 Å", ["0.01 Å"]),
        ("3.3 GB, below 20 MB, 20,000 steps, 1.5× as fast", ["3.3 GB", "20 MB", "20,000 steps", "1.5 ×"]),
        ("a 2-hour lecture, 90 s, 12 ms", ["2 hour", "90 s", "12 ms"]),
        ("Γ and 4 k-points, 3 samples, the 1s shell, K2O and 2 kB", ["2 kB"]),
        ("about −0.7 eV for each oxygen", ["−0.7 eV"]),
        ("at 98 % of its value, 42% here", ["98 %", "42 %"]),
        ("50 epochs of 512 frames", []),
        ("`0.1 eV` and $3\\,\\%$ and {result}`04:x`", []),
        ("Fig. 3 and lesson 4", []),
    ],
)
def test_what_counts_as_a_number_with_a_unit(tmp_path, text, numbers):
    (tmp_path / "page.md").write_text(f"{text}\n\n```text\n10 eV\n```\n", encoding="utf-8")
    assert typed(prose(tmp_path / "page.md")) == numbers


def test_code_cells_of_a_lesson_are_not_prose(tmp_path):
    (tmp_path / "01_x.py").write_text("# %% [markdown]\n# off by 3 eV\n\n# %%\nx = 1  # 5 eV\n", encoding="utf-8")
    assert typed(prose(tmp_path / "01_x.py")) == ["3 eV"]
