"""The commands on the page "Bring your own functional pair", given one after another as a reader would."""

import re
import shlex
from pathlib import Path

import pytest
from own_files import write_pair
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import describe_functionals, open_dataset

PAGE = Path(__file__).resolve().parents[1] / "notebooks" / "08_own_pair.py"


def commands():
    """Every command of the page as a list of words, without its first."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"# ```bash\n(.*?)# ```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n#", "").replace("# ", "").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("crossfunc ")]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What each command of the page printed, by its first words."""
    folder = tmp_path_factory.mktemp("page")
    write_pair(folder)
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands():
            if words[0] == "run" or "mp-r2scan" in words or "fluorides" in words:
                continue  # executed by the page itself and by test_lessons_on_own_data
            few = [{"50": "1"}.get(word, word) for word in words]  # epochs
            done = CliRunner().invoke(app, few)
            assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"
            printed[" ".join(words[:2])] = done.output
        printed["dataset"] = open_dataset(folder / "own-pair")
        printed["files"] = {path.name for path in Path("run").iterdir()}
    return printed


def test_the_page_has_each_step_as_a_command(given):
    assert [*given][:5] == ["data import", "data check", "atomref own-pair", "finetune --method", "evaluate --model"]


def test_two_files_become_a_dataset_with_pairs(given):
    dataset = given["dataset"]
    assert len(dataset.pairs) > 20
    assert set(dataset.pairs["pairing"]) == {"same structure"}
    assert dataset.meta["functionals"] == describe_functionals("GGA/GGA+U", "r²SCAN", energy_kinds=("mp2020", "raw"))
    assert set(dataset.frames["energy_kind"].to_pylist()) == {"mp2020", "raw"}


def test_the_report_measures_units_signs_and_corrections(given):
    report = given["data check"]
    assert "r2scan stress_gpa: GPa, tension positive, as measured" in report
    assert "r2scan forces_ev_per_a: eV/Å, as measured" in report
    assert "gga energy_kind: mp2020" in report
    assert "own-pair: usable" in report


def test_references_and_a_model_come_out_and_are_measured(given):
    assert "Refit" in given["atomref own-pair"]
    assert {"best.pt", "best.safetensors", "history.csv", "run.json"} <= given["files"]
    assert re.search(r"test .*\d", given["evaluate --model"])
