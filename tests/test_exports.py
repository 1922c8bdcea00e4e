"""Figures for slides: written from fresh lessons, with the words that belong to them."""

import shutil

import pytest
from small_checkouts import HEADER, write_checkout

from crossfunc.lessons.exports import export_figures
from crossfunc.lessons.figures import FigureError, write_interactive
from crossfunc.lessons.plans import plan_run
from crossfunc.lessons.run import run_lessons
from crossfunc.lessons.sources import LessonError

LESSON = """\
# %% tags=["parameters"]
n = 3  # points

# %%
import matplotlib.pyplot as plt
from crossfunc.lessons import figures
fig, ax = plt.subplots()
ax.plot(range(n))
figures.show(fig, alt="A rising line.", caption="It rises", name="fig-01-line")

# %%
fig, ax = plt.subplots()
figures.show(fig, alt="Nothing.", caption="No name, no file")
"""


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """One lesson with a named and a nameless figure, executed."""
    root = tmp_path_factory.mktemp("checkout")
    write_checkout(root, {"01_x": LESSON})
    (root / "package").mkdir()
    plans = plan_run(root, "smoke", package=root / "package")
    (run,) = run_lessons(plans)
    assert run.ok, run.message
    return plans


def test_named_figures_come_as_svg_and_pdf_with_caption_and_description(plans, tmp_path):
    written = export_figures(plans, tmp_path / "out")
    assert [path.name for path in written] == ["fig-01-line.svg", "fig-01-line.pdf"]
    svg, pdf = (path.read_bytes() for path in written)
    assert b"<svg" in svg[:1000]
    assert pdf.startswith(b"%PDF")
    assert "\n".join((tmp_path / "out" / "captions.md").read_text().split("\n")[2:5]) == (
        "**fig-01-line** (01_x): It rises.\n\nShown: A rising line."
    )


def test_two_runs_give_the_same_bytes(plans, tmp_path):
    before = {path.name: path.read_bytes() for path in plans[0].figures.iterdir()}
    run_lessons(plans, force=True)
    assert {path.name: path.read_bytes() for path in plans[0].figures.iterdir()} == before


def test_only_the_formats_asked_for_are_written(plans, tmp_path):
    assert [path.suffix for path in export_figures(plans, tmp_path, formats=["pdf"])] == [".pdf"]


def test_figures_of_stale_lessons_are_refused(plans, tmp_path):
    source = plans[0].lesson.path
    source.write_text(HEADER + LESSON + "\n# %%\nn\n")
    try:
        changed = plan_run(source.parent.parent, "smoke", package=source.parent.parent / "package")
        with pytest.raises(LessonError, match=r"fresh lessons only:\n01_x: stale: .*notebooks/01_x\.py"):
            export_figures(changed, tmp_path)
    finally:
        source.write_text(HEADER + LESSON)


def test_a_figure_that_was_not_kept_is_named_with_the_remedy(plans, tmp_path):
    kept = tmp_path / "kept"
    shutil.move(plans[0].figures, kept)
    try:
        with pytest.raises(LessonError, match=r"fig-01-line\.svg: missing; .*crossfunc run 01_x --profile smoke"):
            export_figures(plans, tmp_path / "out")
    finally:
        shutil.move(kept, plans[0].figures)


def test_without_a_browser_the_error_says_what_to_do(monkeypatch, tmp_path):
    import plotly.io

    def refuse(*args, **kwargs):
        raise RuntimeError("no browser")

    monkeypatch.setattr(plotly.io, "write_images", refuse)
    with pytest.raises(FigureError, match=r"fig-a: .*\(no browser\).*--static"):
        write_interactive({"fig-a": {"data": [], "layout": {}}}, tmp_path)


def test_the_command_says_which_lessons_to_run_first(tmp_path):
    from typer.testing import CliRunner

    from crossfunc.cli import app

    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    (tmp_path / "notebooks" / "01_x.py").write_text(HEADER + LESSON)
    (tmp_path / "notebooks" / "profiles" / "smoke.yml").write_text("{}")
    options = ["--root", str(tmp_path), "--profile", "smoke", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["figures", *options])
    assert done.exit_code == 1
    assert "01_x: missing" in done.output
    assert "crossfunc run 01_x" in done.output
    assert not (tmp_path / "out").exists()
