"""Folders that a command writes anew: what it wrote goes, what somebody else wrote or changed stays."""

import contextlib

import pytest

from crossfunc.lessons.sources import LessonError
from crossfunc.lessons.written_folder import MANIFEST, check_own, draft_folder, move_in


def write(folder, **files):
    """Write a course of these files, as the command does."""
    check_own(folder)
    draft = draft_folder(folder)
    for name, text in files.items():
        path = draft / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    move_in(draft, folder)


def there(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert MANIFEST in found
    return found - {MANIFEST}


def test_a_second_call_replaces_and_removes_what_the_first_has_written(tmp_path):
    write(tmp_path / "course", README="1", slides__01="a", slides__02="b")
    write(tmp_path / "course", README="2", slides__01="a")
    assert there(tmp_path / "course") == {"README", "slides/01"}
    assert (tmp_path / "course" / "README").read_text() == "2"
    write(tmp_path / "course", README="2")
    assert not (tmp_path / "course" / "slides").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["course"]  # no draft is left


def test_what_somebody_has_put_there_stays(tmp_path):
    write(tmp_path / "course", slides__01="a")
    (tmp_path / "course" / "slides" / "mine").write_text("mine")
    write(tmp_path / "course", README="1")
    assert there(tmp_path / "course") == {"README", "slides/mine"}


def test_a_file_that_somebody_has_changed_is_named_and_nothing_is_touched(tmp_path):
    write(tmp_path / "course", slides__01="a", slides__02="b")
    (tmp_path / "course" / "slides" / "01").write_text("with my own remarks")
    with pytest.raises(LessonError, match=r"changed since this command wrote it: slides/01\. Move"):
        write(tmp_path / "course", slides__01="new")
    assert (tmp_path / "course" / "slides" / "01").read_text() == "with my own remarks"
    (tmp_path / "course" / "slides" / "01").unlink()  # moved away, as the message says
    write(tmp_path / "course", slides__01="new")
    assert there(tmp_path / "course") == {"slides/01"}


def test_a_folder_of_others_is_refused(tmp_path):
    (tmp_path / "README").write_text("mine")
    with pytest.raises(LessonError, match="holds other files"):
        check_own(tmp_path)


@pytest.mark.parametrize("stopped_after", range(4))
def test_a_call_that_is_stopped_anywhere_is_made_good_by_the_next(tmp_path, monkeypatch, stopped_after):
    from pathlib import Path

    write(tmp_path / "course", README="1", slides__01="a", slides__02="b")
    calls, replace = [], Path.replace

    def stop(self, target):
        if "course.new" in str(self.parent):
            calls.append(self)
            if len(calls) > stopped_after:
                raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with contextlib.suppress(KeyboardInterrupt):
            write(tmp_path / "course", README="2", slides__01="new", slides__03="c")
    write(tmp_path / "course", README="3", slides__01="newer")
    assert there(tmp_path / "course") == {"README", "slides/01"}
    assert (tmp_path / "course" / "slides" / "01").read_text() == "newer"


def test_a_list_that_names_files_outside_the_folder_removes_none_of_them(tmp_path):
    (tmp_path / "outside").write_text("mine")
    write(tmp_path / "course", README="1")
    (tmp_path / "course" / MANIFEST).write_text('{"../outside": ["x"], "README": []}')
    (tmp_path / "course" / "README").unlink()
    write(tmp_path / "course", README="2")
    assert (tmp_path / "outside").read_text() == "mine"
