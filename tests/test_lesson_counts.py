"""What a lesson weighs: short cells in sight, more words than code, drawing in the package, cells in any order.

`pytest -s tests/test_lesson_counts.py -k table` prints the counts of every lesson.
"""

import ast
import functools
import importlib
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import crossfunc as xf
from crossfunc.lessons.declared import FILE, read_declarations
from crossfunc.lessons.sources import Lesson

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.py"))
COURSE = [path for path in LESSONS if int(path.stem[:2]) <= 8]  # the eight lessons that the goals are counted over
MAX_LINES_OF_THE_COURSE = 1900
MAX_HIDDEN_PERCENT = 20
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


def test_the_course_hides_no_more_than_a_fifth_of_its_lines_with_the_solutions_counted_as_hidden():
    lines = [c.n_code_lines for c in map(count, COURSE)]
    hidden = [c.n_code_lines * (c.hidden_percent + c.solution_percent) / 100 for c in map(count, COURSE)]
    assert 100 * sum(hidden) / sum(lines) <= MAX_HIDDEN_PERCENT


@each_lesson
def test_a_lesson_is_text_and_short_cells(path):
    counts = count(path)
    assert counts.median_visible_lines <= 7, "move code into src/, or split long cells"
    assert counts.hidden_percent <= MAX_HIDDEN_PERCENT, "move what is hidden into src/"
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


# --- one way to say it ---


@each_lesson
def test_what_the_package_offers_is_called_by_that_name(path):
    imports = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
    ]
    given = {(alias.name, node.module) for node in imports for alias in node.names}
    found = {name for name, module in given if xf._HOME.get(name) == module}
    assert found == set(), "write xf.NAME"


# --- what the lessons record ---


WITHOUT_WORDS = {"09_what_is_forgotten"}
"""Lessons that still record keys of which their source says nothing; none is to be added."""


def functions_of(tree, function):
    """A function of a module, and the functions of that module that it calls."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    wanted, found = [function], {}
    while wanted:
        name = wanted.pop()
        found[name] = functions[name]
        names = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
        wanted += names & functions.keys() - found.keys()
    return list(found.values())


def recorded(nodes, in_keys):
    """Patterns of the keys that are recorded in some code.

    An f-string's gap may be filled by anything, or by what the module's `IN_KEYS` says of its expression. A function
    that hands on the key that it was given is passed over: its calls say what that is.
    """
    patterns = set()
    for node in nodes:
        handed_on = {arg.arg for f in ast.walk(node) if isinstance(f, ast.FunctionDef) for arg in arguments(f.args)}
        for call in ast.walk(node):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            called = call.func
            if getattr(called, "attr", getattr(called, "id", "")) == "record" and not is_name(call.args[0], handed_on):
                patterns.add(pattern_of(call.args[0], in_keys))
    return patterns


def is_name(node, names):
    return isinstance(node, ast.Name) and node.id in names


def pattern_of(node, in_keys):
    if isinstance(node, ast.Constant):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern_of(part, in_keys) for part in node.values)
    text = ast.unparse(node.value if isinstance(node, ast.FormattedValue) else node)
    return f"({'|'.join(map(re.escape, in_keys[text]))})" if text in in_keys else ANYTHING


ANYTHING = "[a-z0-9_]+"


def has_words(pattern):
    """Whether a pattern says anything of the keys that it stands for."""
    return re.search("[a-z]", pattern.replace(ANYTHING, "")) is not None


def patterns_of(path):
    """Patterns of the keys of a lesson: its own, and those of the functions that record for it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    patterns = recorded([tree], {})
    for call in ast.walk(tree):
        name = call.func if isinstance(call, ast.Call) else None
        if isinstance(name, ast.Attribute) and name.attr.startswith("record_") and isinstance(name.value, ast.Name):
            helper = importlib.import_module(f"crossfunc.lessons.{name.value.id}")
            source = ast.parse(Path(helper.__file__).read_text(encoding="utf-8"))
            patterns |= recorded(functions_of(source, name.attr), getattr(helper, "IN_KEYS", {}))
    return patterns


def test_a_key_that_is_all_gap_has_no_words():
    code = ast.parse("record('one')\nresults.record(f'{short}')\nrecord(f'mae_{short}')\nrecord(key_of(a))")
    assert recorded([code], {"key_of(a)": ["x_a", "x_b"]}) == {"one", ANYTHING, f"mae_{ANYTHING}", "(x_a|x_b)"}
    assert recorded([code], {"short": ["gga"], "key_of(a)": ["x"]}) == {"one", "(gga)", "mae_(gga)", "(x)"}
    assert [has_words(p) for p in ("one", ANYTHING, f"{ANYTHING}_{ANYTHING}", f"mae_{ANYTHING}", "(gga)")] == [
        *(True, False, False, True, True),
    ]
    handing_on = ast.parse("def f():\n    def record(key):\n        results.record(key)\n    record(f'n_{k}')")
    assert recorded([handing_on], {}) == {f"n_{ANYTHING}"}


@pytest.mark.parametrize(
    ("lesson", "kept", "bogus"),
    [
        ("04_four_methods", "energy_mae_method_4", "energy_mae_bogus"),
        ("04_four_methods", "force_slope_method_3", "force_bogus_method_3"),
        ("05_gradient_diagnostics", "force_change_refit", "force_change_bogus"),
        ("05_gradient_diagnostics", "cosine_whole_and_forces_aware", "cosine_bogus_gga"),
        ("07_scaling_laws", "energy_n0_refitted", "energy_n0_bogus"),
        ("08_own_pair", "magmom_mae_fine_tuned", "magmom_mae_bogus"),
    ],
)
def test_a_key_that_nothing_records_is_found(lesson, kept, bogus):
    patterns = patterns_of(NOTEBOOKS / f"{lesson}.py")
    assert any(re.fullmatch(p, kept) for p in patterns)
    assert not any(re.fullmatch(p, bogus) for p in patterns)
    assert not any(re.fullmatch(p, "bogus") for p in patterns)


@each_lesson
def test_every_recorded_key_is_declared_and_every_declared_key_recorded_somewhere(path):
    patterns, declared = patterns_of(path), read_declarations(NOTEBOOKS / FILE)[path.stem]
    empty = [p for p in patterns if not has_words(p)]
    assert bool(empty) == (path.stem in WITHOUT_WORDS), "a key that is all gap: write its words where it is recorded"
    literal = {p for p in patterns if re.fullmatch("[a-z0-9_]+", p)}
    assert literal <= declared.keys()
    assert [key for key in declared if not any(re.fullmatch(p, key) for p in patterns)] == []
