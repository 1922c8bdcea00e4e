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
    assert all((ROOT / name).exists() for name in included)
    inside = build["wheel"]["force-include"]
    assert inside["notebooks"] == "crossfunc/lessons/notebooks"
    assert inside["book"] == "crossfunc/lessons/book"
    assert {f"crossfunc/lessons/book/{name}" for name in BESIDE} == {inside[name] for name in BESIDE}
    assert all((ROOT / name).exists() for name in inside)


def test_issue_forms_and_the_checklist_are_there():
    for form in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        assert yaml.safe_load(form.read_text(encoding="utf-8"))
    assert "make check" in (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
