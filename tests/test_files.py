"""Files whole or not at all, folders that one process writes at a time."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossfunc.files import (
    LOCK_FILE,
    FolderInUse,
    check_writable,
    locked_folder,
    put_in_place,
    remove_drafts,
    write_atomically,
)


@pytest.mark.parametrize("name", ["a", "x" * 255, "ä" * 127, "日" * 85, "a b # c", ".hidden"])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path, name):
    write_atomically(tmp_path / name, "old")
    write_atomically(tmp_path / name, b"new")
    assert (tmp_path / name).read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_draft_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    draft, path, done = tmp_path / "a.part", tmp_path / "a", []
    draft.write_text("new")
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda number: done.append((os.fstat(number).st_ino, path.read_text())))
    number = draft.stat().st_ino
    put_in_place(draft, path)
    assert done == [(number, "old")]
    assert (path.read_text(), draft.exists()) == ("new", False)


# Not through `write_atomically`, and why.
WRITES_OTHERWISE = {
    "src/crossfunc/files.py": "is the writer",
    "src/crossfunc/potential/checkpoints.py": "its write_bytes calls the writer, and says what a full disk means",
    "src/crossfunc/training/module.py": "calls that one, as do the next two",
    "src/crossfunc/training/run_folder.py": "calls that one",
    "src/crossfunc/training/units.py": "calls that one",
    "src/crossfunc/datasets/writer.py": "into a hidden folder that takes its name in one step",
    "src/crossfunc/datasets/migrate.py": "into a hidden folder that takes its name in one step",
    "src/crossfunc/datasets/store.py": "into a hidden folder that takes its name in one step",
    "src/crossfunc/bench/memory.py": "made-up data in a temporary folder",
    "src/crossfunc/bench/imports.py": "made-up data in a temporary folder",
    "src/crossfunc/bench/progress.py": "a switch of the kernel",
    "src/crossfunc/lessons/written_folder.py": "moves files that are whole, from a draft beside the folder",
    "src/crossfunc/lessons/checkout.py": "the checkout that a book is built in, written anew with each call",
    "book/build.py": "the staging folder of a build, made anew, and pages that take their place in one step",
    "book/_ext/book_finish.py": "pages of a build that has not been put in place",
    "book/_ext/book_results.py": "the staging folder of a build",
    "book/_ext/book_forecasts.py": "the staging folder of a build",
    "book/_ext/book_benchmarks.py": "the staging folder of a build",
    "book/_ext/book_laboratory.py": "the staging folder of a build",
}
_WRITES = re.compile(
    r"\.write_(text|bytes)\(|\bwrite_bytes\(|shutil\.copy(2|file|tree)?\b|\.replace\(folder|savefig\((?!buffer)|"
    r"\.open\(\"w|\.rename\((?!columns|index|key)"
)


def test_no_file_is_written_but_by_the_one_writer_or_for_a_reason():
    root = Path(__file__).resolve().parents[1]
    sources = [*(root / "src").rglob("*.py"), *(root / "book").glob("*.py"), *(root / "book" / "_ext").glob("*.py")]
    found = {str(path.relative_to(root)) for path in sources if _WRITES.search(path.read_text(encoding="utf-8"))}
    assert found == WRITES_OTHERWISE.keys()


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_permissions_stay(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o640)
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, step, error):
    write_atomically(tmp_path / "file", "old")

    def fail(*_, **__):
        raise error

    target = {"fsync": (os, "fsync"), "fchmod": ("pathlib.Path.chmod",), "replace": ("pathlib.Path.replace",)}[step]
    monkeypatch.setattr(*target, fail)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "file", "new")
    monkeypatch.undo()
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


HOLD = """
import sys, time
from crossfunc.files import locked_folder
with locked_folder(sys.argv[1]):
    print(1, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_and_free_when_it_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(FolderInUse, match="another process is writing here now"), locked_folder(tmp_path):
            pass
        other.kill()
        other.wait()
    with locked_folder(tmp_path):
        assert (tmp_path / LOCK_FILE).exists()
    assert list(tmp_path.iterdir()) == []


def test_one_after_another_in_one_process_and_errors_inside_reach_the_caller(tmp_path):
    for error in (FileNotFoundError, KeyboardInterrupt, StopIteration):
        with pytest.raises((error, RuntimeError)), locked_folder(tmp_path):
            raise error
    with locked_folder(tmp_path / "new" / "folder") as folder, pytest.raises(FolderInUse), locked_folder(folder):
        pass


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked_folder(tmp_path):
        pass


def test_drafts_of_killed_writes_are_removed_and_nothing_else(tmp_path):
    for name in (".run.json.abc.part", "data.part", ".hidden", "file"):
        (tmp_path / name).write_text("x")
    remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "data.part", "file"]


def test_a_lock_is_not_waited_for(tmp_path):
    clock = time.monotonic()
    with locked_folder(tmp_path), pytest.raises(FolderInUse), locked_folder(tmp_path):
        pass
    assert time.monotonic() - clock < 5


def test_whether_a_file_can_be_written_is_known_before_the_work(tmp_path):
    check_writable(tmp_path / "new.json")
    (tmp_path / "old.json").write_text("kept")
    check_writable(tmp_path / "old.json")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "kept"
    with pytest.raises(FileNotFoundError) as raised:
        check_writable(tmp_path / "not there" / "new.json")
    assert raised.value.filename == str(tmp_path / "not there" / "new.json")  # not the draft's name
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)


def test_an_error_names_the_file_and_not_its_draft(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        write_atomically(tmp_path / "not there" / "new.json", "text")
    assert raised.value.filename == str(tmp_path / "not there" / "new.json")
