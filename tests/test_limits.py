"""Every command on a full disk, in a read-only place, on one core, with little memory, with few open files.

Each works there, or ends with a sentence and a status other than 0; no traceback, and nothing half-written.
"""

import json
import os
import subprocess
import sys

import limited_commands
import pytest
import yaml
from kill_commands import make_dataset, make_entries, make_frames
from own_files import write_pair
from small_checkouts import write_checkout
from test_course import COURSE
from test_course import LESSON as COURSE_LESSON
from test_import_matpes import record

from crossfunc.bench.imports import write_synthetic_json
from crossfunc.cli import app
from crossfunc.datasets.importers.extxyz import Keys, import_extxyz
from crossfunc.lessons.plans import plan_run
from crossfunc.lessons.run import run_lessons

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")]

NAMES = list(limited_commands.command_lines(limited_commands.ROOT, limited_commands.ROOT, ""))
SHORT = [name for name in NAMES if name not in limited_commands.LONG]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """What the commands work on."""
    folder = tmp_path_factory.mktemp("inputs")
    make_dataset(folder / "data")
    make_frames(folder / "frames.extxyz")
    make_entries(folder / "entries.csv")
    for name in ("pairs", "old"):
        import_extxyz(*write_pair(folder, {"Li", "O"}), folder / name, keys=Keys(material_id="material"))
    write_synthetic_json(folder / "mp.json", 20)
    text = (folder / "mp.json").read_text().replace('"uncorrected_total_energy"', '"corrected_total_energy"')
    (folder / "mptrj.json").write_text(text)
    (folder / "matpes.json").write_text(json.dumps([record(k, energy=-10.0 - k) for k in range(12)]))
    _, cells = COURSE_LESSON.split("# %% [markdown]\n# # References move\n", 1)
    for name, stem in (("checkout", "01_x"), ("course", "06_x")):
        root = write_checkout(folder / name, {stem: cells})
        (root / "notebooks" / "course.yml").write_text(yaml.safe_dump(COURSE))
        (run,) = run_lessons(plan_run(root, "smoke"))
        assert run.ok, run.message
    return folder


@pytest.fixture(scope="session", params=limited_commands.LIMITS)
def endings(request, inputs, tmp_path_factory):
    """How each command ends under one limit."""
    place = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    found, err, names = {}, "", limited_commands.short_names(request.param)
    # Python writes what it compiles without looking how much of it went to the disk: half a module would stay behind.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    while names:
        command = [sys.executable, limited_commands.__file__, inputs, place, request.param, *names]
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        ended = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {one["command"]: one for one in ended}
        if not ended:  # a process of its own was not enough for this command
            err += f"{names[0]}: {done.stderr}"
        # What twenty commands load adds up; the command that finds no room left is the first of a new process.
        names = names[max(len(ended), 1) :]
    return request.param, place, found, err


def commands_of(group, before=""):
    """Names of all commands, those of a group with the group's before them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_no_command_is_forgotten():
    import typer.main

    assert sorted(commands_of(typer.main.get_command(app))) == sorted(NAMES)


@pytest.mark.parametrize("name", SHORT)
def test_a_command_works_or_says_why_not(endings, name):
    limit, place, found, err = endings
    if name not in limited_commands.short_names(limit):
        pytest.skip("takes a minute, and writes as the imports do")
    assert name in found, f"{limit}: the process ended before or at this command: {err[-2000:]}"
    status, said, trace = (found[name][key] for key in ("status", "said", "trace"))
    assert trace == "", trace[-3000:]
    assert "Traceback" not in said or (name == "run" and " failed (" in said), said  # of a lesson's cell
    if status != 0:
        assert "error: " in said or "not " in said, said
    if limit == "one core":
        assert status == 0 or name in NEED_MORE, said
    if limit in ("full disk", "read-only") and name not in (*limited_commands.WITHOUT_FILES, *NEED_MORE):
        assert status != 0, said
        assert not any(place.rglob("*.parquet")), "half-written"


NEED_MORE = (
    "data fetch",
    "data import materials-project",
    "data make-dft",
    "data check-dft",
    "bench verdicts",
    "bench students",
)
"""Commands that need a network, a key or another package, and say so."""
