"""Commands killed at random times: never status 0 with work undone, always resumable or whole.

The long form, ten kills by each signal of each command, is `python tests/kill_commands.py`.
"""

import kill_commands
import pytest


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return folder, {command.name: command for command in kill_commands.commands(folder)}


@pytest.mark.parametrize(
    "name",
    ["finetune", "run", "data import", "hull", "figures", pytest.param("make book", marks=pytest.mark.book)],
)
def test_a_command_that_is_killed_loses_nothing(shared, tmp_path, name):
    folder, known = shared
    if name == "figures":
        kill_commands.prepare_figures(known["run"], folder)
    rows = kill_commands.kill_often(known[name], tmp_path / "kills", 1, signals=("TERM", "KILL"), seed=1)
    assert [row["then"] for row in rows] == ["the same outcome"] * 2
