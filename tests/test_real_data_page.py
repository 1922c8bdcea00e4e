"""The page on real data prints what the commands print, and the page on the paper's run names what exists."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets.registry import public_datasets

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")


def blocks(page, language):
    """The fenced blocks of one language on a page."""
    text = (ROOT / "book" / page).read_text(encoding="utf-8")
    return [block.strip("\n") for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def commands(page):
    """The commands of `crossfunc` on a page, in order, as lists of words."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].split()[1:] for line in lines if line.startswith("crossfunc ")]


# --- every command on these pages exists ---


@pytest.mark.parametrize("page", ["real_data.md", "paper_run.md"])
def test_commands_and_options_on_the_page_exist(page):
    assert commands(page)
    for words in commands(page):
        names = []
        while "Commands:" in (shown := CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200"}).output):
            names.append(words[len(names)])
        assert [w for w in words if w.startswith("--") and w not in shown] == [], " ".join(words)


def test_the_papers_run_makes_every_dataset_that_its_profile_names():
    profile = yaml.safe_load((ROOT / "notebooks" / "profiles" / "paper.yml").read_text(encoding="utf-8"))
    named = {profile["defaults"]["dataset"]}
    named |= {values["dataset"] for values in profile["lessons"].values() if "dataset" in values}
    named -= {"surrogate", "pbe-r2scan"}  # come with the package
    made = {words[words.index("--out") + 1] for words in commands("paper_run.md") if words[:2] == ["data", "import"]}
    assert {f"data/{name}" for name in named} == made
    fetched = {words[2] for words in commands("paper_run.md") if words[:2] == ["data", "fetch"]}
    assert fetched <= set(public_datasets())
    assert ["run", "--profile", "paper"] in commands("paper_run.md")


def test_the_page_says_what_is_measured_what_is_extrapolated_and_that_there_was_no_gpu():
    text = (ROOT / "book" / "paper_run.md").read_text(encoding="utf-8")
    for said in ("*measured*", "*extrapolated*", "No GPU was at hand", "two cores"):
        assert said in text


# --- the outputs on the page ---


def assert_alike(printed, written):
    """The same words, and numbers to a few percent: they depend on the last digits of float32."""
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", written)
    found, said = ([float(n) for n in NUMBER.findall(text)] for text in (printed, written))
    assert found == pytest.approx(said, rel=0.05, abs=0.011)


def flip_stress(frame):
    frame["stress"] = [[-x for x in row] for row in frame["stress"]]


def total_energy(frame):
    frame["energy_per_atom"] *= len(frame["structure"]["sites"])


def call_manganese_iron(frame):
    for site in frame["structure"]["sites"]:
        for species in site["species"]:
            species["element"] = {"Mn": "Fe"}.get(species["element"], species["element"])


@pytest.fixture
def fluorides(real_data_folder, tmp_path, monkeypatch):
    """The real file, with the working directory in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return json.loads((real_data_folder / "tm_fluorides_r2scan.json").read_text())


def run_import(content):
    Path("frames.json").write_text(json.dumps(content))
    return CliRunner().invoke(app, ["data", "import", "mp-r2scan", "frames.json", "--out", "fluorides"])


@pytest.mark.real_data
def test_the_report_on_the_page_is_what_the_command_prints(fluorides):
    assert run_import(fluorides).exit_code == 0
    report = CliRunner().invoke(app, ["data", "check", "fluorides"])
    assert report.exit_code == 0
    assert_alike(report.output.strip(), blocks("real_data.md", "text")[0])


@pytest.mark.real_data
@pytest.mark.parametrize(("damage", "block"), [(flip_stress, 1), (total_energy, 2), (call_manganese_iron, 3)])
def test_damaged_files_are_refused_with_the_words_on_the_page(fluorides, damage, block):
    for frames in fluorides.values():
        for frame in frames.values():
            damage(frame)
    done = run_import(fluorides)
    assert done.exit_code == 1
    assert_alike(done.output.strip(), blocks("real_data.md", "text")[block])
    assert not Path("fluorides").exists()
