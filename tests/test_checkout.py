"""The book from the package alone: its sources in a folder of their own."""

import pytest
import yaml
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.lessons import checkout
from crossfunc.lessons.plans import plan_run
from crossfunc.lessons.sources import LessonError, find_root


def test_a_folder_gets_all_that_a_clone_has(tmp_path, root):
    out = checkout.write_checkout(tmp_path / "book")
    assert find_root(out) == out
    for folder in ("notebooks", "book"):
        want = {p.relative_to(root) for p in (root / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        assert {p.relative_to(out) for p in (out / folder).rglob("*") if p.is_file()} == want
    assert {p.name for p in out.iterdir()} == {"notebooks", "book", checkout.MARKER, *checkout.BESIDE}
    assert plan_run(out, "smoke")[0].lesson.path == out / "notebooks" / "01_data_statistics.py"
    toc = yaml.safe_load((out / "book" / "_toc.yml").read_text(encoding="utf-8"))
    assert toc["root"] == "index"


def test_a_second_call_renews_the_sources_and_leaves_what_was_executed(tmp_path):
    out = checkout.write_checkout(tmp_path / "book")
    (out / "build").mkdir()
    (out / "build" / "kept").touch()
    (out / "notebooks" / "gone.py").touch()
    checkout.write_checkout(out)
    assert (out / "build" / "kept").exists()
    assert not (out / "notebooks" / "gone.py").exists()


def test_folders_of_others_are_refused(tmp_path, root):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(LessonError, match="holds other files"):
        checkout.write_checkout(tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    (tmp_path / "clone" / "_config.yml").touch()
    with pytest.raises(LessonError, match="is a clone; run `make book` there"):
        checkout.write_checkout(tmp_path / "clone")


def test_a_book_of_somebody_else_and_an_unpacked_archive_are_refused(tmp_path, monkeypatch):
    """Both have a `_config.yml` and a `notebooks/`, and neither is this command's to remove."""
    other = tmp_path / "other"
    (other / "notebooks").mkdir(parents=True)
    (other / "_config.yml").touch()
    (other / "notebooks" / "mine.ipynb").write_text("{}")
    with pytest.raises(LessonError, match="holds other files"):
        checkout.write_checkout(other)
    assert (other / "notebooks" / "mine.ipynb").exists()
    monkeypatch.setattr(checkout, "own_lessons", lambda: other / "notebooks")
    with pytest.raises(LessonError, match="holds other files"):
        checkout.write_checkout(other)


def test_a_call_that_was_stopped_is_made_good_by_the_next(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkout.shutil, "copytree", stop)
        with pytest.raises(KeyboardInterrupt):
            checkout.write_checkout(tmp_path / "book")
    out = checkout.write_checkout(tmp_path / "book")
    assert (out / "notebooks" / "01_data_statistics.py").is_file()
    assert not list(out.glob(".*.new"))


def test_a_package_without_pages_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "own_book", lambda: tmp_path / "none")
    with pytest.raises(LessonError, match="clone the repository instead"):
        checkout.write_checkout(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_build_that_fails_is_said(tmp_path):
    out = checkout.write_checkout(tmp_path / "book")
    with pytest.raises(LessonError, match="the book was not built"):
        checkout.build_book(out, "smoke")  # no lesson was executed


def test_the_command_asks_for_a_folder_and_refuses_one_of_others(tmp_path):
    asked = CliRunner().invoke(app, ["book"])
    assert asked.exit_code == 2
    assert "--out" in asked.output
    (tmp_path / "notes.txt").touch()
    assert CliRunner().invoke(app, ["book", "--out", str(tmp_path)]).exit_code == 1
