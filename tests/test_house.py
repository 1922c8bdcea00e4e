"""House rules that a machine can check: one dependency list, imports downhill, nothing derived or private in git."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "crossfunc"
# A module may import from its own part and from those before it.
ORDER = (
    *("symbols", "units", "bootstrap", "vendor", "plain_text", "errors", "overrides", "endings", "files", "waiting"),
    *("datasets", "energies", "potential", "label_checks", "training", "stability", "advice", "surrogate", "dft"),
    *("lessons", "bench", "cluster", "cli"),
)
HEAVY = ("torch", "chgnet", "matplotlib", "plotly", "xgboost", "pymatgen", "sklearn", "ase", "seaborn")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def files():
    """Files that are in git or about to be, with those that are text as text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def imported(source):
    """Names of the modules that Python source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# --- one list of dependencies ---


def test_environment_yml_only_points_to_the_dependency_list_of_pyproject(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, through_pip = environment["dependencies"]
    assert python == f"python{project['requires-python']}"
    assert pip == "pip"
    assert set(through_pip) == {"pip"}
    constraints, package = through_pip["pip"]
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[(.+)\]", package)[1].split(",")
    assert set(extras) <= set(project["optional-dependencies"])


def test_makefile_installs_extras_that_exist(project):
    lists = re.findall(r"-e '\.\[(.+)\]'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(lists) == 2  # what everything needs, and what computes labels
    assert {extra for names in lists for extra in names.split(",")} <= set(project["optional-dependencies"])


# --- imports ---


def test_imports_run_downhill_only():
    uphill = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if part == "__init__":
            continue
        assert part in ORDER, f"{path.relative_to(ROOT)}: give {part!r} its place in ORDER"
        for name in imported(path.read_text(encoding="utf-8")):
            other = (*name.split("."), "")[1]
            if name.startswith("crossfunc.") and ORDER.index(other) > ORDER.index(part):
                uphill.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not uphill


def test_only_figures_imports_plotting_libraries():
    plotting = {"matplotlib", "plotly", "seaborn", "pymatviz"}
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent != PACKAGE / "lessons" / "figures"
        for name in imported(path.read_text(encoding="utf-8"))
        if name.split(".")[0] in plotting
    ]
    assert not found


@pytest.mark.parametrize("name", ["METRICS", "check_frames", "check_labels"])
def test_a_name_has_one_meaning(name):
    """Errors of a target, what is looked for in frames, what is refused: names that once stood for several things."""
    defined = re.compile(rf"^(def )?{name}\b( =|\(|:)", re.MULTILINE)
    found = [path.name for path in PACKAGE.rglob("*.py") if defined.search(path.read_text(encoding="utf-8"))]
    assert len(found) <= 1


def run_python(code):
    return subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)


def test_import_crossfunc_is_light():
    code = f"import sys, crossfunc; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_a_run_is_planned_without_what_only_its_lessons_need():
    plan = f"from crossfunc.lessons.plans import plan_run; plan_run(pathlib.Path({str(ROOT)!r}), 'smoke')"
    code = f"import pathlib, sys; {plan}; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_import_crossfunc_has_no_side_effects(tmp_path):
    code = f"""
import json, logging, os, random, sys, warnings
import numpy as np, pandas, pyarrow.parquet, scipy.sparse, yaml  # its own dependencies may do as they like
os.chdir({str(tmp_path)!r})
def state():
    return repr((warnings.filters, random.getstate(), np.random.get_state()[1].tolist(), np.geterr(), dict(os.environ),
                 logging.getLogger().handlers, logging.getLogger().level, sys.path, os.listdir()))
before = state()
import crossfunc
print(before == state())
"""
    done = run_python(code)
    assert done.stdout.strip() == "True"
    assert done.stderr == ""


def test_the_library_raises_errors_of_its_own_kinds_only():
    """They reach people as sentences; a plain ValueError is a bug, and shows its traceback."""
    caught_where_raised = {"stability/entry_sources.py", "datasets/importers/thermo_documents.py"}
    caught_where_raised |= {"datasets/parquet_sizes.py", "lessons/sources.py"}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            raised = node.exc if isinstance(node, ast.Raise) else None
            name = getattr(getattr(raised, "func", raised), "id", None)
            if name == "ValueError" and str(path.relative_to(PACKAGE)) not in caught_where_raised:
                found.append(f"{path.relative_to(PACKAGE)}, line {node.lineno}")
    assert not found


def test_types_are_checked_in_every_module():
    """A module that is not clean stays out of the package; none is put on a list of exceptions."""
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert mypy["files"] == ["src/crossfunc"]
    assert "exclude" not in mypy
    assert not [part for part in (mypy, *mypy.get("overrides", [])) if part.get("ignore_errors")]
    ignoring = re.compile(r"^# *mypy:|# *type: *ignore(?!\[)", re.MULTILINE)
    assert not [path.name for path in PACKAGE.rglob("*.py") if ignoring.search(path.read_text(encoding="utf-8"))]


def test_what_the_commands_print_goes_through_say():
    """typer.echo would let text of others command the terminal."""
    assert (PACKAGE / "cli.py").read_text(encoding="utf-8").count("typer.echo(") == 1


def test_files_are_put_in_place_by_the_one_atomic_writer():
    """Renames of files are in files.py; folders have their own, in datasets/store.py."""
    allowed = {"files.py", "datasets/transfer.py"}  # a download gets its name when all of it is there
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(draft|fresh|scratch|temporary|part|tmp)\)?\.replace\(|os\.replace\(", line)
        if str(path.relative_to(PACKAGE)) not in allowed
    ]
    assert not found


def test_no_process_is_waited_for_that_has_ended():
    """A multiprocessing.Pool replaces a worker that was killed, forgets its task and waits for it without end."""
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert not [str(path) for path, text in texts.items() if re.search(r"\.Pool\(|multiprocessing import .*Pool", text)]


# --- what is in git ---


def test_no_notebook_or_other_derived_file_is_tracked(files):
    derived = [f for f in files if f.suffix == ".ipynb" or {"build", ".venv", "__pycache__"} & set(f.parts[:-1])]
    assert not derived


def test_no_large_file_is_tracked(files):
    # The packaged dataset is the one exception: a few MB, so that every page runs without a download.
    limit = {True: 10_000_000, False: 500_000}
    large = [f for f in files if f.stat().st_size > limit["packaged" in f.parts]]
    assert not large


def test_no_file_names_a_place_on_one_machine(files):
    places = re.compile(r"(?<![\w.~$}/])/(?:" + "|".join(["work/", "root/", r"home/\w", r"Users/\w"]) + ")")
    # Tests of path hiding need paths to hide.
    checked = [f for f in files if f.parent.name != "tests"]
    found = [(f.name, m[0]) for f in checked for m in places.finditer(text_of(f))]
    assert not found


def test_no_file_names_a_package_index(files):
    words = [
        "pypi" + r"\.org",
        "pythonhosted" + r"\.org",
        "download" + r"\.pytorch",
        "index" + "-url",
        "find" + "-links",
    ]
    found = [(f.name, m[0]) for f in files for m in re.finditer("|".join(words), text_of(f))]
    assert not found


def test_every_shell_script_and_the_ci_entry_is_executable(files):
    scripts = [f for f in files if text_of(f).startswith("#!")]
    assert ROOT / ".ci" / "run" in scripts
    assert [f for f in scripts if not f.stat().st_mode & 0o100] == []


# --- what a newcomer reads first ---


def test_badges_say_what_the_package_says(project):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    badges = dict(re.findall(r"\[!\[([^:\]]+?)(?:: [^\]]+)?\]\(https://img\.shields\.io/badge/(\S+)-\w+\)\]", readme))
    pythons = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert badges.pop(f"Python {' | '.join(pythons)}") == f"python-{'%20%7C%20'.join(pythons)}"
    assert badges.pop("Licence") == f"licence-{project['license']}"
    assert badges.pop("Paper").removeprefix("paper-arXiv%3A") == project["urls"]["Paper"].rpartition("/")[2]
    assert badges == {}  # a badge of checks or of a release needs a place where they run


def test_readme_is_short_and_names_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 80
    assert "make book" in readme
    assert "make test" in readme


def test_links_of_the_front_pages_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"


def test_version_is_the_same_everywhere(project):
    import crossfunc

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == project["version"] == crossfunc.__version__
    assert re.search(rf"^## {re.escape(project['version'])}\b", changelog, re.MULTILINE)


def test_citation_cites_the_software_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["doi"] == "10.1038/s41524-025-01796-y"
    assert paper["authors"][0]["family-names"] == "Huang"


# --- make ---


def fake_python(folder, *, version_ok=True):
    """A stand-in for Python whose pip always fails."""
    script = folder / "python"
    script.write_text(
        "#!/bin/sh\n"
        f'case "$1" in -c) exit {0 if version_ok else 1};; esac\n'
        # -m venv DIR: a virtual environment whose interpreter fails at everything
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; printf "#!/bin/sh\\nexit 1\\n" > "$3/bin/python"; '
        'chmod +x "$3/bin/python"; exit 0; fi\nexit 1\n'
    )
    script.chmod(0o755)
    return script


def make(venv, python):
    command = ["make", "--no-print-directory", f"VENV={venv}", f"PYTHON={python}", f"{venv}/.installed"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_make_says_which_python_it_needs(tmp_path):
    done = make(tmp_path / "venv", fake_python(tmp_path, version_ok=False))
    assert done.returncode
    assert "needs Python 3.11 or 3.12 (chgnet has no packages for newer ones)" in done.stderr
    done = make(tmp_path / "venv", tmp_path / "no-such-python")
    assert done.returncode
    assert "not found: install Python 3.11 or 3.12" in done.stderr


def test_an_install_that_failed_is_tried_again(tmp_path):
    venv = tmp_path / "venv"
    done = make(venv, fake_python(tmp_path))
    assert done.returncode
    assert "Installing crossfunc" in done.stdout
    assert (venv / "bin" / "python").exists()
    assert not (venv / ".installed").exists()
