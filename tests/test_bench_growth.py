"""Growth of time and memory with size, at sizes for tests."""

import json
from dataclasses import replace

import numpy as np
import pytest

from crossfunc.bench import growth
from crossfunc.bench.progress import in_fresh_process

NAMES = ("import", "references", "training step")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("growth")
    stages = {name: replace(growth.STAGES[name], sizes=growth.STAGES[name].sizes[:2]) for name in NAMES}
    found = growth.run(stages=stages, folder=folder)
    assert not list(folder.iterdir())  # what was made is gone
    return found


def test_every_stage_has_a_row_for_each_size(report):
    assert tuple(report["stages"]) == NAMES
    for name, stage in report["stages"].items():
        assert [row["size"] for row in stage["rows"]] == list(growth.STAGES[name].sizes[:2])
        assert all(row["seconds"] > 0 for row in stage["rows"])
    assert json.loads(json.dumps(report)) == report


def test_the_report_names_stages_sizes_and_what_they_count(report):
    said = growth.format_report(report)
    for name in NAMES:
        assert name in said
        assert growth.STAGES[name].of in said


@pytest.mark.parametrize("name", growth.STAGES)
def test_every_stage_can_be_measured(name, tmp_path):
    times, _ = growth._calls(growth.STAGES[name], growth.STAGES[name].sizes[0], tmp_path, 1)
    assert len(times) == 1


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_is_that_of_a_power_law(power):
    rows = [{"size": n, "seconds": 3e-4 * n**power} for n in (10, 100, 1_000)]
    assert growth.exponent(rows) == pytest.approx(power)
    assert growth.exponent(rows[:1]) is None


def eighty_megabytes(folder):
    stage = growth.Stage("bytes", (1, 2), lambda size, _: lambda: np.ones(size * 5_000_000).sum())
    return growth._calls(stage, 2, folder, 1)


def test_memory_is_what_a_call_adds(tmp_path):
    times, memory_gb = in_fresh_process(eighty_megabytes, tmp_path)  # what earlier tests hold would be counted off
    assert len(times) == 1
    if memory_gb is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert memory_gb == pytest.approx(0.08, abs=0.01)


def test_sizes_span_three_decades_or_what_can_be_made():
    for name, stage in growth.STAGES.items():
        assert stage.sizes[-1] >= 500 * stage.sizes[0], name
