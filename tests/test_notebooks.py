"""The lessons' sources: what the runner, the book and a reader in an editor rely on."""

import ast
import itertools
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import list_datasets, open_dataset
from crossfunc.lessons.limits import read_limits
from crossfunc.lessons.profiles import load_profile, resolve_parameters
from crossfunc.lessons.sources import Lesson, find_lessons
from crossfunc.lessons.units import STARTS

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.py"))
PROFILES = sorted((NOTEBOOKS / "profiles").glob("*.yml"))
MAX_CODE_LINES = 20
MAX_FOLDED_LINES = 35

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def header(path):
    """The YAML header of a py:percent file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# ---", f"{path.name}: no jupytext header"
    end = lines.index("# ---", 1)
    return yaml.safe_load("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[1:end]))["jupyter"]


def code_lines(source):
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def toc_files(entry):
    """Every `file:` of a table of contents, in order."""
    if isinstance(entry, list):
        return [file for item in entry for file in toc_files(item)]
    if not isinstance(entry, dict):
        return []
    own = [entry["file"]] if "file" in entry else []
    return own + [file for value in entry.values() for file in toc_files(value)]


def test_there_are_lessons_and_nothing_else_among_them():
    assert LESSONS, "notebooks/ holds no lesson"
    assert [lesson.path for lesson in find_lessons(NOTEBOOKS)] == LESSONS


def test_lessons_and_table_of_contents_name_the_same_in_the_same_order():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    named = [file for file in toc_files(toc) if "notebooks/" in file]
    assert [Path(file).name for file in named] == [path.stem for path in LESSONS]


def test_no_executed_notebook_lies_among_the_sources():
    assert list(NOTEBOOKS.rglob("*.ipynb")) == []


@each_lesson
def test_header_parses_and_holds_no_version(path):
    jupyter = header(path)
    assert jupyter["kernelspec"]["name"] == "python3"
    assert jupyter["kernelspec"]["language"] == "python"
    assert "language_info" not in jupyter
    versions = [key for key in jupyter.get("jupytext", {}).get("text_representation", {}) if "version" in key]
    assert versions == [], f"{path.name}: {', '.join(versions)} change with every tool; remove them from the header"


@each_lesson
def test_lesson_starts_with_its_title(path):
    first = Lesson(path).notebook().cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@each_lesson
def test_lesson_declares_parameters_and_where_its_results_go(path):
    assert Lesson(path).parameters  # raises unless exactly one cell of literals is tagged
    assert {"dataset", "results_dir"} <= Lesson(path).parameters.keys()


@each_lesson
def test_no_cell_is_longer_than_a_reader_can_follow(path):
    long = {}
    for cell in Lesson(path).notebook().cells:
        # The code of a figure is folded away on the page; alternative text and captions make it longer.
        limit = MAX_FOLDED_LINES if "hide-input" in cell.metadata.get("tags", ()) else MAX_CODE_LINES
        if cell.cell_type == "code" and len(code_lines(cell.source)) > limit:
            long[f"line {Lesson(path).line_of(cell.source)}"] = len(code_lines(cell.source))
    assert long == {}, f"{path.name}: cells of more than {MAX_CODE_LINES} lines of code"


def is_course_lesson(path):
    """The lessons of the course; a page with commands for one's own data has no exercises."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    parts = [part for part in toc["parts"] if part["caption"] in ("Lessons", "After the paper")]
    return path.stem in {Path(file).name for file in toc_files(parts)}


each_course_lesson = pytest.mark.parametrize(
    "path", [path for path in LESSONS if is_course_lesson(path)], ids=lambda path: path.stem
)


@each_course_lesson
def test_lesson_opens_with_its_goal_box(path):
    box = next(cell.source for cell in Lesson(path).notebook().cells if ":class: tip" in cell.source)
    for part in ("Goal", "You need", "You will be able to", "Paper", "Run time"):
        assert f"**{part}**: " in box, f"{path.name}: the goal box lacks {part!r}"


@each_course_lesson
def test_lesson_has_exercises_with_folded_solutions_that_run(path):
    cells = Lesson(path).notebook().cells
    exercises = [k for k, cell in enumerate(cells) if "{admonition} Exercise" in cell.source]
    assert len(exercises) >= 2
    for k in exercises:
        solution = cells[k + 1]
        assert solution.cell_type == "code"
        assert solution.source.startswith("# Solution: ")
        assert "hide-cell" in solution.metadata["tags"]


@each_course_lesson
def test_lesson_has_concept_checks_with_folded_answers(path):
    (checks,) = [cell.source for cell in Lesson(path).notebook().cells if "## Check yourself" in cell.source]
    questions = re.findall(r"^\*\*\d\.\*\* .*\?$", checks, flags=re.MULTILINE)
    assert len(questions) >= 2
    assert checks.count(":::{admonition} Answer\n:class: dropdown") == len(questions)


@each_course_lesson
def test_lesson_closes_with_a_recap_and_the_papers_numbers_beside_ours(path):
    *_, recap, table = Lesson(path).notebook().cells
    assert recap.source.startswith("## Recap")
    assert table.source.rstrip().endswith("results.table()")


@each_lesson
def test_each_parameter_says_what_it_is(path):
    lines = list(Lesson(path).parameters.values())
    # Two lines may share the comment of the first, three may not.
    silent = [b.name for a, b in itertools.pairwise([lines[0], *lines]) if not (a.meaning or b.meaning)]
    assert silent == []
    assert lines[0].meaning


@each_lesson
def test_each_parameter_says_what_it_takes_and_its_default_is_in_the_range(path):
    for name, parameter in Lesson(path).parameters.items():
        assert parameter.takes or name == "results_dir"
        assert parameter.accept(parameter.default, "here") == parameter.default
        if {"int", "float"} & set(parameter.kinds):
            assert parameter.limits.words, f"{name}: give notebooks/parameters.yml its range"


def test_ranges_are_those_of_parameters_that_a_lesson_has():
    declared = {name for path in LESSONS for name in Lesson(path).parameters}
    assert set(read_limits(NOTEBOOKS / "parameters.yml")) - declared == set()


def test_curves_may_be_all_that_the_library_draws():
    # A name of the module would load PyTorch wherever a run is planned.
    assert read_limits(NOTEBOOKS / "parameters.yml")["curves"].one_of == tuple(STARTS)


@each_lesson
def test_lesson_is_python(path):
    ast.parse(path.read_text(encoding="utf-8"))


@each_lesson
def test_lesson_needs_only_lessons_before_it(path):
    assert set(Lesson(path).needs) <= {other.stem for other in LESSONS if other.stem < path.stem}


def test_the_profiles_are_those_that_the_command_line_names():
    names = "converged-surrogate converged dft gpu laptop paper real sevennet smoke surrogate"
    assert [path.stem for path in PROFILES] == names.split()
    said = CliRunner().invoke(app, ["run", "--help"]).output
    assert [path.stem for path in PROFILES if not re.search(rf"\b{path.stem}\b", said)] == []


@pytest.mark.parametrize("path", PROFILES, ids=[path.stem for path in PROFILES])
def test_no_profile_asks_a_shipped_dataset_for_more_structures_than_it_has(path):
    """Before: a GPU asked our DFT for thousands of training frames, and the page of parameters showed them."""
    shipped = {name for name, folder in list_datasets().items() if folder.is_relative_to(ROOT / "src")}
    assert shipped
    profile = load_profile(NOTEBOOKS, path.stem)
    for lesson in find_lessons(NOTEBOOKS):
        values = resolve_parameters(lesson, profile)
        if values.get("dataset") in shipped:
            held = n_frames(values["dataset"])
            asked = [values.get(name, 0) for name in ("n_train_frames", "n_train", "n_eval_frames", "n_validation")]
            assert max([*asked, *values.get("sizes", [])]) <= held, lesson.stem


@cache
def n_frames(dataset):
    """Of the functional that has most."""
    return max(Counter(open_dataset(dataset).need_frames()["functional"].to_pylist()).values())


@pytest.mark.parametrize("path", PROFILES, ids=[path.stem for path in PROFILES])
def test_profile_names_only_lessons_and_parameters_that_exist(path):
    profile = load_profile(NOTEBOOKS, path.stem)  # raises for a lesson that does not exist
    lessons = find_lessons(NOTEBOOKS)
    for lesson in lessons:
        resolve_parameters(lesson, profile)  # raises for a parameter that the lesson lacks, or a wrong kind of value
    assert set(profile.defaults) <= {name for lesson in lessons for name in lesson.parameters}
    assert profile.description


@pytest.mark.parametrize("name", ["smoke", "laptop", "converged"])
def test_a_size_can_be_left_out_of_the_learning_curve_and_a_law_still_be_fitted(name):
    """Exercise 7.1 fits a law, which takes three points, to all sizes but the largest."""
    (lesson,) = [one for one in find_lessons(NOTEBOOKS) if one.stem == "07_scaling_laws"]
    chosen = resolve_parameters(lesson, load_profile(NOTEBOOKS, name))
    assert len([size for size in chosen["sizes"] if size >= chosen["n_min"]]) >= 4
