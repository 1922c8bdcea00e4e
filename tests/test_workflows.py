"""What runs elsewhere is what runs here: workflows call targets of the Makefile, on Pythons the project declares."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from crossfunc.lessons.checkout import BESIDE

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])


def jobs(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()


def commands(path):
    return [step["run"] for job in jobs(path) for step in job["steps"] if "run" in step]


def test_there_is_a_workflow_for_each_thing():
    assert [path.stem for path in WORKFLOWS] == ["book", "check", "lessons", "release", "weekly"]


@each_workflow
def test_workflows_call_targets_that_exist(path):
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    called = {target for command in commands(path) for target in re.findall(r"\bmake (?!.*-)([a-z]+)", command)}
    assert called <= targets
    assert called or ".ci/run" in " ".join(commands(path)) or path.stem == "check"


@each_workflow
def test_workflows_have_a_time_limit_and_few_rights(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(content["permissions"]) == {"contents"}
    for job in content["jobs"].values():
        assert "timeout-minutes" in job or job["steps"][-1].get("uses", "").startswith("actions/deploy-pages")


def test_the_pythons_are_those_that_the_project_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {c.rsplit(" ", 1)[1] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))
    assert set(check["jobs"]["check"]["strategy"]["matrix"]["python"]) == declared


def test_the_source_archive_holds_what_the_two_commands_need():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    included = [name.strip("/") for name in build["sdist"]["include"]]
    assert {"Makefile", "constraints.txt", "environment.yml", "_config.yml", "CONTRIBUTING.md"} <= set(included)
    assert "units" in included  # kept units, from which lessons are executed again; the folder comes with the first
    assert all((ROOT / name).exists() for name in included if name != "units")
    inside = build["wheel"]["force-include"]
    assert inside["notebooks"] == "crossfunc/lessons/notebooks"
    assert inside["book"] == "crossfunc/lessons/book"
    assert {f"crossfunc/lessons/book/{name}" for name in BESIDE} == {inside[name] for name in BESIDE}
    assert all((ROOT / name).exists() for name in inside)


@pytest.mark.parametrize("name", ["release", "weekly"])
def test_a_wheel_alone_builds_the_book_where_nobody_looks(name):
    said = "\n".join(commands(ROOT / ".github" / "workflows" / f"{name}.yml"))
    assert "make dist" in said
    assert re.search(r"pip\" install .*\[book,course,train\]", said)
    assert re.search(
        r"cd \"\$RUNNER_TEMP\" && user/bin/crossfunc book --profile smoke --out book\ntest -f book/build", said
    )


def test_the_source_archive_is_checked_before_it_is_released():
    said = "\n".join(commands(ROOT / ".github" / "workflows" / "release.yml"))
    assert re.search(r"tar xzf dist/\*\.tar\.gz .*\ncd .* && make check", said)


def test_the_book_is_built_for_a_pull_request_that_touches_what_it_is_made_of():
    content = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    paths = content[True]["pull_request"]["paths"]  # YAML reads the key "on" as a truth value
    assert {"book/**", "notebooks/**", "src/**", "_config.yml", "pyproject.toml", "constraints.txt"} <= set(paths)


def test_actions_and_packages_are_kept_up_to_date():
    content = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    assert {one["package-ecosystem"] for one in content["updates"]} == {"github-actions", "pip"}


def test_every_upper_bound_below_the_next_major_version_has_its_reason():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounds = [line for line in lines if re.search(r'^\s+"[\w-]+>=[\d.]+(\.post\d+)?,<', line)]
    minor = [line for line in bounds if re.search(r",<\d+\.\d+\"", line) and "#" not in line]
    assert minor == [], "say in a comment why the version that comes next is not taken"


def test_issue_forms_and_the_checklist_are_there():
    for form in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        assert yaml.safe_load(form.read_text(encoding="utf-8"))
    assert "make check" in (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
