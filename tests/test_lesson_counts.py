"""What a lesson weighs: short cells in sight, more words than code, drawing in the package, cells in any order.

`pytest -s tests/test_lesson_counts.py -k table` prints the counts of every lesson.
"""

import ast
import functools
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossfunc.lessons.declared import FILE, read_declarations
from crossfunc.lessons.sources import Lesson

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.py"))
COURSE = [path for path in LESSONS if int(path.stem[:2]) <= 8]  # the eight lessons that the goals are counted over
MAX_LINES_OF_THE_COURSE = 1900
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


@dataclass(frozen=True)
class Counts:
    """Counts of one lesson; a solution is folded on purpose and counts as code, not as hidden."""

    n_cells: int
    median_visible_lines: float
    n_code_lines: int
    hidden_percent: float
    solution_percent: float
    words_per_line: float
    helpers_that_draw: tuple[str, ...]


def code_lines(source):
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def tags(cell):
    return set(cell.metadata.get("tags", ()))


def is_solution(cell):
    return cell.source.startswith("# Solution")


@functools.cache
def count(path):
    cells = Lesson(path).notebook().cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    prose = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    lengths = {id(cell): len(code_lines(cell.source)) for cell in code}
    n_lines = sum(lengths.values())
    solutions = sum(lengths[id(cell)] for cell in code if is_solution(cell))
    hidden = sum(lengths[id(cell)] for cell in code if tags(cell) & HIDDEN and not is_solution(cell))
    visible = [lengths[id(cell)] for cell in code if not tags(cell) & HIDDEN]
    return Counts(
        len(code),
        statistics.median(visible),
        n_lines,
        100 * hidden / n_lines,
        100 * solutions / n_lines,
        len(re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*", prose)) / n_lines,
        tuple(helpers_that_draw(path.read_text(encoding="utf-8"))),
    )


def helpers_that_draw(source):
    """Functions of a lesson that touch an axes, a figure or plotly."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            if names & {"plt", "ax", "axes", "fig", "figure", "figures"}:
                yield node.name


def test_the_counts_of_every_lesson_as_a_table():
    lines = ["lesson                  cells  median  lines  hidden  solutions  words/line  helpers that draw"]
    for path in LESSONS:
        c = count(path)
        lines.append(
            f"{path.stem:23} {c.n_cells:5} {c.median_visible_lines:7.1f} {c.n_code_lines:6} {c.hidden_percent:6.0f}% "
            f"{c.solution_percent:9.0f}% {c.words_per_line:11.1f}  {', '.join(c.helpers_that_draw) or '-'}"
        )
    total = sum(count(path).n_code_lines for path in COURSE)
    lines.append(f"lessons 1 to 8: {total} code lines, {MAX_LINES_OF_THE_COURSE} at most")
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert total <= MAX_LINES_OF_THE_COURSE


@each_lesson
def test_a_lesson_is_text_and_short_cells(path):
    counts = count(path)
    assert counts.median_visible_lines <= 7, "move code into src/, or split long cells"
    assert counts.hidden_percent <= 20, "move what is hidden into src/"
    assert counts.words_per_line >= 6, "say more, or compute less in the lesson"
    assert counts.helpers_that_draw == (), "figures are functions of crossfunc.lessons.figures"


@each_lesson
def test_a_lesson_draws_with_the_package_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"plt", "ax", "axes"}
    assert not attributes & {"COLORS", "MARKERS", "set_xlabel", "update_layout"}


# --- any cell after any other ---


def bound_and_read(source):
    """Names that a cell binds, and those that it reads before it binds them itself."""
    bound, read = set(), set()
    for statement in ast.parse(source).body:
        inner = {arg.arg for node in ast.walk(statement) if isinstance(node, ast.arguments) for arg in arguments(node)}
        stores = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        loads = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            bound.add(statement.name)
            read |= loads - stores - inner - bound
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            stores = {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        hidden = scoped_names(statement)
        targets = stores - hidden
        # A loop or an assignment reads its right side first; names that it binds itself come from there alone.
        comes_first = loads - bound - inner - hidden
        if isinstance(statement, ast.For | ast.With | ast.If | ast.Try):
            named = {n.target.id for n in ast.walk(statement) if isinstance(n, ast.NamedExpr)}
            comes_first -= named if isinstance(statement, ast.If) else targets
        read |= comes_first
        if isinstance(statement, ast.AugAssign):
            read |= targets - bound
        bound |= targets
    return bound, read


def arguments(node):
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg))]


def scoped_names(statement):
    """Names that live inside comprehensions alone."""
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            for generator in node.generators:
                found |= {n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)}
    return found


def unsafe_names(sources):
    """Names that two cells bind and another one reads without binding: which value it gets depends on the order."""
    cells = [bound_and_read(source) for source in sources]
    twice = {name for bound, _ in cells for name in bound if sum(name in b for b, _ in cells) > 1}
    return sorted(name for name in twice if any(name in read for _, read in cells))


CHANGERS = {"add", "append", "extend", "insert", "popitem", "setdefault", "update"}
"""Methods that change what they are called on; `pop`, `remove` and `clear` are names of other methods here as well."""


def changed_elsewhere(sources):
    """What a cell changes in place though another one makes it: a second run of either finds it changed."""
    makes = [bound_and_read(source)[0] for source in sources]
    found = set()
    for k, source in enumerate(sources):
        others = set().union(*(bound for n, bound in enumerate(makes) if n != k)) - makes[k]
        found |= {name for name in changed_names(ast.parse(source)) if name in others}
    return sorted(found)


def changed_names(tree):
    """Names of which an item, an attribute or, by a method of `CHANGERS`, the contents are changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield owner(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            yield owner(node.func)


def owner(node):
    """The name that a chain of items and attributes starts with."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def test_what_is_made_in_one_cell_and_changed_in_another_is_found():
    assert changed_elsewhere(["options = {}", "options['n'] = 2"]) == ["options"]
    assert changed_elsewhere(["options = {}", "options['n']['m'] += 2"]) == ["options"]
    assert changed_elsewhere(["options = {}", "del options['n']"]) == ["options"]
    assert changed_elsewhere(["atoms = make()", "atoms.calc = 1"]) == ["atoms"]
    assert changed_elsewhere(["rows = []", "for k in (1, 2):\n    rows.append(k)"]) == ["rows"]
    assert changed_elsewhere(["options = {}\noptions['n'] = 2", "print(options['n'])"]) == []
    assert changed_elsewhere(["rows = []", "more = []\nmore.append(rows[0])"]) == []


def test_a_name_bound_twice_and_read_elsewhere_is_found():
    assert unsafe_names(["rows = 1", "print(rows)", "rows = 2"]) == ["rows"]
    assert unsafe_names(["rows = 1\nprint(rows)", "rows = 2\nprint(rows)"]) == []
    assert unsafe_names(["n = 1", "n += 1"]) == ["n"]
    assert unsafe_names(["for k in (1, 2):\n    print(k)", "[k for k in (1, 2)]"]) == []
    assert unsafe_names(["def f():\n    return a", "a = 1", "a = 2"]) == ["a"]


@each_lesson
def test_any_cell_can_be_run_again_after_any_other(path):
    sources = [cell.source for cell in Lesson(path).notebook().cells if cell.cell_type == "code"]
    found = changed_elsewhere(sources)
    assert not found, f"made in one cell and changed in another one; make a new one there: {', '.join(found)}"
    found = unsafe_names(sources)
    assert not found, f"bound in two cells and read in another one; rename one of each: {', '.join(found)}"


# --- what the lessons record ---


def source_of(path, function):
    """Source of a function of a module, and of the functions of that module that it calls."""
    text = path.read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    wanted, found = [function], {}
    while wanted:
        name = wanted.pop()
        found[name] = ast.get_source_segment(text, functions[name])
        names = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
        wanted += names & functions.keys() - found.keys()
    return "\n".join(found.values())


@each_lesson
def test_every_recorded_key_is_declared_and_every_declared_key_recorded_somewhere(path):
    helpers = ROOT / "src" / "crossfunc" / "lessons"
    source = path.read_text(encoding="utf-8")
    for module, function in set(re.findall(r"\b(\w+)\.(record_\w+)\(", source)):  # what records for the lesson
        source += source_of(helpers / f"{module}.py", function)
    declared = read_declarations(NOTEBOOKS / FILE)[path.stem]
    literal = set(re.findall(r"record\(\s*\"([a-z0-9_]+)\"", source))
    assert literal <= declared.keys()
    patterns = [re.sub(r"\{[^}]*\}", "[a-z0-9_]+", key) for key in re.findall(r"record\(\s*f\"([^\"]+)\"", source)]
    unused = [k for k in declared if k not in literal and not any(re.fullmatch(p, k) for p in patterns)]
    assert unused == []
