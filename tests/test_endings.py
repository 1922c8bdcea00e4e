"""However a command ends before its work is done, its status is not 0 and one sentence says why."""

import concurrent.futures.process
import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from small_checkouts import CLI
from typer.testing import CliRunner

import crossfunc.datasets
from crossfunc.cli import app
from crossfunc.datasets import DatasetError
from crossfunc.endings import Stopped, describe_ending, signals_raise, status_of


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (KeyboardInterrupt(), "stopped from the keyboard", 130),
        (Stopped("SIGTERM"), r"stopped by a signal \(SIGTERM\)", 143),
        (Stopped("SIGHUP"), "its terminal was closed", 129),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y: No space left on device; make room", 1),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: Read-only file system; choose a folder that can", 1),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied; choose a file or folder", 1),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "File name too long; choose a shorter", 1),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), "a file is in the way", 1),
        (OSError(errno.EMFILE, "Too many open files", "/x"), "allow more open files", 1),
        (MemoryError(), "not enough memory; give it more", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory", 1),
        (RuntimeError("can't start new thread"), "no more threads can be started", 1),
        (concurrent.futures.process.BrokenProcessPool("died"), "a worker process was killed.*fewer jobs", 1),
        (DatasetError("x: wrong."), "x: wrong.", 1),
    ],
)
def test_each_ending_is_a_sentence(error, said, status):
    import re

    assert re.search(said, describe_ending(error)), describe_ending(error)
    assert status_of(error) == status
    assert "the same command goes on" in describe_ending(error, how_to_go_on="the same command goes on.") or status == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_whose_exception_python_drops_comes_again(name):
    class Finalised:
        def __del__(self):
            signal.raise_signal(getattr(signal, name))  # what is raised here is dropped

    def work():
        Finalised()
        for _ in range(500):
            time.sleep(0.01)

    with signals_raise(), pytest.raises(KeyboardInterrupt):
        work()


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), RuntimeError("shape"), BrokenPipeError(32, "x")])
def test_what_is_a_bug_stays_one(error):
    assert describe_ending(error) is None


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), OSError(errno.ENOSPC, "full", "/x"), Stopped("SIGTERM")]
)
def test_a_command_that_is_ended_from_outside_says_so(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(crossfunc.datasets, "list_datasets", fail)
    called = CliRunner().invoke(app, ["data", "list"])
    assert called.exit_code == status_of(error) != 0
    assert called.stderr.startswith("error: ")
    assert "Traceback" not in called.output


def test_signals_raise_inside_and_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    with pytest.raises(Stopped, match="SIGTERM"), signals_raise():
        signal.raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with signals_raise():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_command_that_is_stopped_ends_with_the_signals_status(tmp_path, name):
    code = (
        "import os, sys, threading, time, signal\n"
        "import crossfunc.datasets\n"
        "def slow(*a, **k):\n    print('there', flush=True); time.sleep(60)\n"
        "crossfunc.datasets.list_datasets = slow\n"
        "from crossfunc.cli import app; app(['data', 'list'])"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **options) as process:
        process.stdout.readline()
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert err.startswith("error: stopped ")
    assert len(err.splitlines()) == 1


def test_a_full_disk_behind_the_output_is_told():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*CLI, "data", "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device; make room" in done.stderr
    assert "Traceback" not in done.stderr


# --- machines that give little ---


def limited(arguments, **limits):
    """Run a command under limits of the system."""

    def set_limits():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    # Python writes what it compiles without looking how much of it went to the disk: half a module would stay behind.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    options = {"capture_output": True, "text": True, "timeout": 300, "env": environment}
    return subprocess.run([*CLI, *map(str, arguments)], **options, preexec_fn=set_limits)


@pytest.fixture(scope="module")
def frames_file(tmp_path_factory):
    from kill_commands import make_frames

    return make_frames(tmp_path_factory.mktemp("frames") / "frames.extxyz")


def assert_told(done, *words):
    assert done.returncode not in (0, -signal.SIGSEGV), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert any(word in done.stderr for word in words), done.stderr


def test_an_import_onto_a_full_disk_is_told_and_leaves_nothing(frames_file, tmp_path):
    arguments = ["data", "import", "extxyz", "-", frames_file, "--out", tmp_path / "out", "--no-check"]
    assert_told(limited(arguments, FSIZE=20_000), "is the disk full", "make room", "ulimit -f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["a file in the way", "a name too long", "a link in a circle"])
def test_a_folder_that_cannot_be_is_told(frames_file, tmp_path, where):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    out = {"a file in the way": "file/out", "a name too long": "x" * 300, "a link in a circle": "circle"}[where]
    done = limited(["data", "import", "extxyz", "-", frames_file, "--out", tmp_path / out, "--no-check"])
    assert_told(done, "in the way", "too long", "circle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "file"]


def test_few_open_files_suffice_for_an_import(frames_file, tmp_path):
    arguments = ["data", "import", "extxyz", "-", frames_file, "--out", tmp_path / "out", "--no-check"]
    done = limited(arguments, NOFILE=64)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["data", "list"], ["hull", "x.csv"], ["run"], ["atomref", "surrogate"]])
def test_a_limit_under_which_libraries_would_hang_is_told(command):
    """OpenBLAS asks for memory for ever where there is none."""
    done = limited(command, AS=400_000_000)
    assert_told(done, "not enough memory: the limit (ulimit -v) is 381 MB")
