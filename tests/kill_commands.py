"""Kill commands at random times, and see that nothing is lost and nothing unfinished ends with status 0.

    python tests/kill_commands.py                       # ten kills by each of TERM, INT and KILL of each command
    python tests/kill_commands.py --kills 2 finetune    # fewer, of one command

Every command is first left in peace once; that is the outcome which the killed and resumed one must have, byte for byte
where the command says so. A kill falls anywhere between start and end of the undisturbed run.
"""

import argparse
import dataclasses
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from small_checkouts import CLI, write_checkout

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = ("TERM", "INT", "KILL")
LESSON = """\
# %% tags=["parameters"]
n = 3
results_dir = None

# %% [markdown]
# **Run time**: short.

# %%
import time
from crossfunc.lessons import LessonResults
time.sleep(0.5)

# %%
results = LessonResults("{stem}", results_dir)
results.record("n", n, title="a number")
results.save()

# %%
import matplotlib.pyplot as plt
from crossfunc.lessons import figures
fig, ax = plt.subplots()
ax.plot(range(n))
figures.show(fig, alt="A rising line.", caption="It rises", name="fig-{number}-line")
"""


@dataclasses.dataclass
class Command:
    """A command in a folder of its own: how to call it, and what it leaves."""

    name: str
    words: Callable[[Path], list[str]]
    outcome: Callable[[Path, str], dict]  # folder, stdout -> what must be the same
    resumes: bool  # whether a finished call may simply be given again
    prepare: Callable[[Path], object] = lambda _: None  # what the folder holds before the first call
    is_group: bool = False  # whether a signal goes to all its processes, as from a terminal


# --- what the commands work on ---


def make_dataset(folder: Path) -> Path:
    """A dataset of a few small frames of the embedded one."""
    import pyarrow as pa

    from crossfunc.datasets import open_dataset, write_dataset

    data = open_dataset("surrogate", verify=False)
    sizes = np.diff(data.frames["atomic_numbers"].combine_chunks().offsets.to_numpy())
    # the functional that most frames with forces are of
    labelled = np.asarray(data.frames["forces_ev_per_a"].is_valid())
    chosen = np.flatnonzero(labelled & (sizes > 1) & (sizes <= 3))[::7][:16]
    meta = {key: value for key, value in data.meta.items() if key != "files"}
    write_dataset(folder, meta=meta, frames=data.frames.take(pa.array(chosen)))
    return folder


def make_frames(file: Path) -> Path:
    """Frames as a user brings them."""
    from ase.build import bulk
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    draw, frames = np.random.default_rng(0), []
    for k in range(400):
        atoms = bulk("NaCl", "rocksalt", a=5.6 + 0.001 * k)
        atoms.rattle(0.02, seed=k)
        atoms.info["material"] = f"m{k % 40}"
        atoms.calc = SinglePointCalculator(
            atoms, energy=-6.8 + 0.01 * draw.normal(), forces=draw.normal(0, 0.1, (2, 3))
        )
        frames.append(atoms)
    write(file, frames, format="extxyz")
    return file


def make_entries(file: Path) -> Path:
    """A table of entries for a hull."""
    draw, rows = random.Random(0), ["id,composition,energy_per_atom_ev"]
    elements = "Li Na K Mg Ca Fe O S F Cl".split()
    rows += [f"{e},{e},0.0" for e in elements]
    for k in range(800):
        some = draw.sample(elements, 3)
        formula = "".join(f"{e}{draw.randrange(1, 4)}" for e in some)
        rows.append(f"c{k},{formula},{draw.uniform(-2, 0.1):.4f}")
    file.write_text("\n".join(rows) + "\n")
    return file


def make_checkout(root: Path) -> Path:
    """A checkout of two short lessons."""
    return write_checkout(root, {f"{n}_x": LESSON.format(stem=f"{n}_x", number=n) for n in ("01", "02")})


def make_book_checkout(root: Path) -> Path:
    """A checkout that `make book` makes a book of: its tools, one lesson, two pages."""
    write_checkout(root, {"01_x": LESSON.format(stem="01_x", number="01")})
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("__pycache__", "*.md", "kept"))
    for name in ("Makefile", "CHANGELOG.md", "_config.yml"):
        shutil.copy2(ROOT / name, root / name)
    (root / "book" / "index.md").write_text("# A book\n\nSee {doc}`notebooks/01_x`.\n")
    (root / "book" / "parameters.md").write_text("# Parameters\n\nNone.\n")
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts:\n- caption: Lessons\n  chapters:\n"
        "  - file: notebooks/01_x\n- caption: More\n  chapters:\n  - file: parameters\n"
    )
    tools = root / "tools" / "bin"
    tools.mkdir(parents=True)
    for name, command in (("python", CLI[:1]), ("crossfunc", CLI)):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (tools / name).chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", "tools/.installed"):  # the stamp last, so nothing is installed
        (root / name).touch()
    return root


def book_of(folder: Path) -> dict[str, bytes]:
    """The pages that are published, without what says how long a lesson took."""
    pages = files_of(folder / "build" / "smoke" / "html", skip=("searchindex.js", "environment.pickle", ".buildinfo"))
    time_text = re.compile(rb"\d+ s on \d+ cores|\d+ min \d+ s on \d+ cores")
    return {name: time_text.sub(b"", page) for name, page in pages.items()}


def commands(shared: Path) -> list[Command]:
    """The commands, on inputs that are made once in `shared`."""
    dataset = str(make_dataset(shared / "data"))
    frames, entries = str(make_frames(shared / "frames.extxyz")), str(make_entries(shared / "entries.csv"))
    checkout = make_checkout(shared / "checkout")
    run = [*CLI, "run", "--profile", "smoke", "--root", str(checkout)]
    return [
        Command(
            "finetune",
            lambda folder: [
                *(*CLI, "finetune", "--method", "4", "--dataset", dataset, "--out", str(folder / "out")),
                *("--epochs", "3", "--batch-size", "4"),
            ],
            lambda folder, _: trained(folder / "out"),
            resumes=True,
        ),
        Command(
            "run",
            lambda folder: [*run, "--out", str(folder / "out")],
            lambda folder, _: files_of(folder / "out", skip=("timings.json",)),
            resumes=True,
        ),
        Command(
            "data import",
            lambda folder: [
                *(*CLI, "data", "import", "extxyz", "-", frames, "--out", str(folder / "out"), "--no-check"),
                *("--material-key", "material"),
            ],
            lambda folder, _: files_of(folder / "out"),
            resumes=False,
        ),
        Command(
            "data make-surrogate",
            lambda folder: [*CLI, "data", "make-surrogate", "--limit", "1", "--out", str(folder / "out")],
            lambda folder, _: files_of(folder / "out"),
            resumes=False,
        ),
        Command(
            "hull",
            lambda _: [*CLI, "hull", entries, "--functional", "r2scan", "--energy-kind", "raw"],
            lambda _, printed: {"printed": printed},
            resumes=True,
        ),
        Command(
            "figures",
            lambda folder: [
                *(*CLI, "figures", "--profile", "smoke", "--root", str(checkout), "--static"),
                *("--out", str(folder / "out")),
            ],
            lambda folder, _: files_of(folder / "out"),
            resumes=True,
        ),
        Command(
            "make book",
            lambda folder: [
                *("make", "-s", "-C", str(folder / "checkout"), "book", "PROFILE=smoke", "VENV=tools"),
            ],
            lambda folder, _: book_of(folder / "checkout"),
            resumes=True,
            prepare=lambda folder: make_book_checkout(folder / "checkout"),
            is_group=True,
        ),
    ]


def files_of(folder: Path, skip=()) -> dict[str, bytes]:
    """Every file that is not hidden, by its name."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in skip]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if not p.name.startswith(".")}


def trained(folder: Path) -> dict:
    """What a training run comes to, without how long it took."""
    import json

    import pandas as pd

    if not (folder / "run.json").exists() or json.loads((folder / "run.json").read_text())["metrics"] is None:
        return {}
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds").to_csv()
    names = ("best.safetensors", "best.pt", "last.pt", "references.json")
    found = {name: (folder / name).read_bytes() for name in names}
    return found | {"history": history, "metrics": json.loads((folder / "run.json").read_text())["metrics"]}


# --- killing ---


def call(command: Command, folder: Path, *, kill: tuple[str, float] | None = None) -> tuple[int, str, str, bool]:
    """Run a command, perhaps killed; return status, stdout, stderr, and whether it was still running at the kill."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command.words(folder),
        **options,
        start_new_session=command.is_group,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        ran = False
        if kill is not None:
            name, seconds = kill
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                ran = True
                number = getattr(signal, f"SIG{name}")
                os.killpg(process.pid, number) if command.is_group else process.send_signal(number)
        out, err = process.communicate(timeout=900)
    return process.returncode, out, err, ran


def kill_often(command: Command, folder: Path, n_kills: int, signals=SIGNALS, seed: int = 0) -> list[dict]:
    """Kill a command at random times, then let it finish; return a row for each signal.

    Raises
    ------
    AssertionError
        Unfinished work with status 0, a stop without a sentence, or another outcome than in peace.
    """
    peace = folder / "peace"
    peace.mkdir(parents=True)
    command.prepare(peace)
    clock = time.monotonic()
    status, printed, err, _ = call(command, peace)
    seconds = time.monotonic() - clock
    assert status == 0, f"{command.name}, left in peace, ended with {status}: {err[-2000:]}"
    expected, draw, rows = command.outcome(peace, printed), random.Random(seed), []
    assert expected
    for name in signals:
        place = folder / name
        place.mkdir()
        command.prepare(place)
        statuses, finished, told = [], 0, 0
        for _ in range(n_kills):
            status, printed, err, ran = call(command, place, kill=(name, draw.uniform(0, seconds)))
            statuses.append(status)
            where = f"{command.name}, {name}, status {status}: {err[-2000:]}"
            # in the first tenth of a second, while Python itself starts, nothing of ours can answer
            assert "Traceback" not in err or err.rstrip().endswith("KeyboardInterrupt"), where
            if status == 0:  # the work was done before the signal came
                assert command.outcome(place, printed) == expected, where
                finished += 1
            else:
                assert ran, where
                told += "stopped" in err
            if not command.resumes and (place / "out").exists():  # whole, or it would not be there
                assert command.outcome(place, printed) == expected, where
                shutil.rmtree(place / "out")
        status, printed, err, _ = call(command, place)
        assert status == 0, f"{command.name}, resumed after {name}: {status}: {err[-2000:]}"
        assert command.outcome(place, printed) == expected, f"{command.name}: resumed after {name} it differs"
        rows.append(
            {
                "command": command.name,
                "signal": name,
                "kills": n_kills,
                "finished before": finished,
                "said so": told,
                "statuses": " ".join(str(s) for s in sorted(set(statuses))),
                "then": "the same outcome",
            }
        )
    return rows


def main() -> None:
    """Kill what is asked for, and print a table."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="COMMAND", help="default: all")
    parser.add_argument("--kills", type=int, default=10, help="by each signal, of each command")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        shared = Path(scratch) / "shared"
        shared.mkdir()
        known = {command.name: command for command in commands(shared)}
        rows = []
        for name in given.names or known:
            if name == "figures":
                prepare_figures(known["run"], shared)
            rows += kill_often(known[name], Path(scratch) / name.replace(" ", "-"), given.kills, seed=given.seed)
            sys.stdout.write(f"{pd.DataFrame(rows[-len(SIGNALS) :]).to_string(index=False)}\n")
            sys.stdout.flush()


def prepare_figures(run: Command, shared: Path) -> None:
    """Execute the lessons whose figures are exported."""
    words = [word for word in run.words(shared) if word not in ("--out", str(shared / "out"))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    main()
