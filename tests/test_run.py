"""The runner on lessons of a few lines, in checkouts that the tests write."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest

from crossfunc.errors import InputError
from crossfunc.files import FolderInUse
from crossfunc.lessons import run as runner
from crossfunc.lessons import traces
from crossfunc.lessons.freshness import check_fresh
from crossfunc.lessons.plans import hash_package, plan_run, planned_dataset, public_parameters
from crossfunc.lessons.profiles import Profile, resolve_parameters
from crossfunc.lessons.run import run_lessons
from crossfunc.lessons.sources import Lesson, LessonError, find_root, own_lessons, place_lessons
from crossfunc.overrides import parse_overrides

HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   {extra}
# ---

# %% [markdown]
# # Title

"""
FIRST = """
# %% tags=["parameters"]
n = 3  # how many
scale = 0.5
label = "ab"
sizes = [1, 2]
limit: int | None = 10
results_dir = None

# %%
import os, sys, tempfile, warnings
from pathlib import Path
warnings.warn("look here")
print(os.getcwd(), Path.home(), sys.prefix, results_dir, tempfile.gettempdir(), object())
print({"a", "b", "c"}, file=sys.stderr)
Path(results_dir, "01_first.json").write_text(str(n))
n * scale

# %%
import uuid
from IPython.display import HTML
name = uuid.uuid4()
HTML(f'<div id="{name}"></div><script>draw("{name}", "{uuid.uuid4()}")</script>')
"""
SECOND = """
# %% tags=["parameters"]
dataset = "none-of-that-name"

# %%
print(dataset)
"""
PROFILE = "defaults: {n: 4}\nlessons: {01_first: {sizes: [5]}}\n"


def write_checkout(root, **lessons):
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "_config.yml").touch()
    (root / "package").mkdir()
    (root / "package" / "code.py").write_text("x = 1\n")
    for stem, body in lessons.items():
        write_lesson(root, stem.removeprefix("lesson_"), body)
    (root / "notebooks" / "profiles" / "smoke.yml").write_text("{}")
    return root


def write_lesson(root, stem, body, extra="crossfunc: {}"):
    (root / "notebooks" / f"{stem}.py").write_text(HEADER.format(extra=extra) + dedent(body))


def plan(root, *names, overrides=None, profile="smoke"):
    return plan_run(root, profile, names, overrides, package=root / "package")


def run(root, *names, overrides=None, force=False, jobs=1):
    return run_lessons(plan(root, *names, overrides=overrides), force=force, jobs=jobs)


def problems(root, **options):
    return [str(p) for p in check_fresh(root, "smoke", package=root / "package", **options)]


@pytest.fixture(scope="module", autouse=True)
def broken_kernel(tmp_path_factory):
    """A registered `python3` kernel that cannot start: the runner must not depend on what is registered."""
    folder = tmp_path_factory.mktemp("jupyter")
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["/nonexistent/python"], "display_name": "no", "language": "python"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A checkout whose first lesson was run once; tests that change it work on a copy."""
    root = write_checkout(tmp_path_factory.mktemp("executed") / "checkout", lesson_01_first=FIRST)
    (root / "notebooks" / "profiles" / "smoke.yml").write_text(PROFILE)
    (done,) = run(root)
    assert done.status == "done", done.message
    return root


@pytest.fixture
def checkout(executed, tmp_path):
    return shutil.copytree(executed, tmp_path / "checkout")


@pytest.fixture
def two_lessons(tmp_path):
    return write_checkout(tmp_path / "checkout", lesson_01_first=FIRST, lesson_02_second=SECOND)


# --- the saved notebook ---


def test_executed_notebook_shows_profile_values_and_not_the_results_folder(executed):
    saved = json.loads((executed / "build/smoke/notebooks/01_first.ipynb").read_text())
    (injected,) = [c for c in saved["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
    assert "".join(injected["source"]) == "# Values of this run (profile: smoke)\nn = 4\nsizes = [5]"
    assert saved["metadata"]["crossfunc"]["parameters"] == {
        "n": 4,
        "scale": 0.5,
        "label": "ab",
        "sizes": [5],
        "limit": 10,
    }
    assert saved["metadata"]["crossfunc"]["profile"] == "smoke"
    assert (executed / "build/smoke/results/01_first.json").read_text() == "4"


def test_saved_notebook_names_no_place_no_time_and_no_address(executed):
    text = (executed / "build/smoke/notebooks/01_first.ipynb").read_text()
    places = [str(executed), tempfile.gettempdir(), sys.prefix, str(Path.home()) + "/"]
    words = ["ipykernel_", "start_time", "end_time", "duration", "papermill", "iopub", "results_dir = '", "0x7"]
    assert [word for word in places + words if word in text] == []
    stream = json.loads(text)["cells"][3]["outputs"][0]["text"][0]
    assert stream == "notebooks ~ PYTHON build/smoke/results TEMPORARY <object object at 0x...>\n"


def test_warnings_stay_visible(executed):
    text = (executed / "build/smoke/notebooks/01_first.ipynb").read_text()
    assert "<cell>:3: UserWarning: look here" in text


def test_two_runs_write_the_same_bytes(checkout):
    path = checkout / "build/smoke/notebooks/01_first.ipynb"
    before = path.read_bytes()
    (again,) = run(checkout, force=True)
    assert again.status == "done"
    assert path.read_bytes() == before


def test_random_element_names_stay_consistent_within_an_output(executed):
    saved = json.loads((executed / "build/smoke/notebooks/01_first.ipynb").read_text())
    html = "".join(saved["cells"][4]["outputs"][0]["data"]["text/html"])
    first, second, third = traces._UUID.findall(html)
    assert first == second != third


def test_styler_names_become_fixed():
    html = '<style>#T_1a2b3_row0_col0 {}</style><table id="T_1a2b3"><td id="T_1a2b3_row0_col0">T_1a2b3f</td></table>'
    fixed = traces._fix_ids(html, "seed")
    assert fixed == traces._fix_ids(html.replace("1a2b3", "ffff0").replace("ffff0f", "1a2b3f"), "seed")
    assert fixed.count("1a2b3") == 1  # what only looks like the name is left alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{root}/notebooks/data.csv: bad", "notebooks/data.csv: bad"),
        ("in {root}.", "in .."),  # the checkout itself is "."
        ("{root}-other/file", "{root}-other/file"),  # a neighbour is not the checkout, but still a temporary place
        ('File "/opt/x/lib/python3.11/site-packages/torch/a.py", line 2', 'File "site-packages/torch/a.py", line 2'),
        ("/home/jane/data and /Users/jane/data", "~/data and ~/data"),
        ("ran by jane.doe on node-17", "ran by USER on HOST"),
        ("1/3 and Fe/O and root mean square", "1/3 and Fe/O and root mean square"),
    ],
)
def test_places_and_people_are_hidden_in_text(two_lessons, monkeypatch, text, expected):
    monkeypatch.setattr(traces.socket, "gethostname", lambda: "node-17")
    monkeypatch.setattr(traces.getpass, "getuser", lambda: "jane.doe")
    hide = traces._Hider(plan(two_lessons, "01")[0], two_lessons / "scratch")
    expected = expected.format(root=two_lessons).replace(tempfile.gettempdir(), "TEMPORARY")
    assert hide(text.format(root=two_lessons)) == expected


def test_a_plain_word_that_is_a_user_name_is_kept(two_lessons, monkeypatch):
    monkeypatch.setattr(traces.getpass, "getuser", lambda: "iron")
    hide = traces._Hider(plan(two_lessons, "01")[0], two_lessons / "scratch")
    assert hide("iron has two oxides") == "iron has two oxides"


def test_hiding_takes_no_longer_for_each_letter_of_a_figure_that_has_more(two_lessons):
    """A figure is one word of a megabyte; a pattern that starts anew at each of its letters takes minutes."""
    hide = traces._Hider(plan(two_lessons, "01")[0], two_lessons / "scratch")
    figure = "QUJD" * 50_000
    started = time.process_time()
    assert (
        hide(f"'{figure}' /a/ipykernel_1/2.py /b/site-packages/numpy.py") == f"'{figure}' <cell> site-packages/numpy.py"
    )
    assert time.process_time() - started < 2


def test_a_lesson_with_default_values_only_shows_no_injected_cell(tmp_path):
    body = '# %% tags=["parameters"]\nresults_dir = None\n\n# %%\nassert results_dir\n'
    root = write_checkout(tmp_path / "c", lesson_01_plain=body)
    (done,) = run(root)
    assert done.status == "done", done.message
    saved = json.loads((root / "build/smoke/notebooks/01_plain.ipynb").read_text())
    assert [cell["cell_type"] for cell in saved["cells"]] == ["markdown", "code", "code"]


def test_on_a_terminal_a_bar_counts_the_cells(checkout, capfd):
    run_lessons(plan(checkout), force=True, show_bars=True)
    assert re.search(r"01_first: +\d+%.* \d/5 ", capfd.readouterr().err)  # four cells and the injected one


# --- freshness ---


def test_a_fresh_lesson_is_not_run_again(checkout):
    assert problems(checkout) == []
    (again,) = run(checkout)
    assert (again.status, again.seconds) == ("fresh", 0)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "names"),
    [
        ("notebooks/01_first.py", "how many", "number", "source (notebooks/01_first.py)"),
        ("package/code.py", "1", "2", "package"),
        ("notebooks/profiles/smoke.yml", "n: 4", "n: 6", "parameters (n: 4 -> 6)"),
        ("build/smoke/results/01_first.json", "4", "5", "results (01_first.json)"),
    ],
)
def test_a_changed_input_makes_the_lesson_stale_and_is_named(checkout, file, old, new, names):
    edit(checkout / file, old, new)
    assert problems(checkout) == [f"01_first: stale: changed since it was run: {names}"]


@pytest.mark.parametrize("name", ["dataset.json", "checks.json", "materials.csv", "kernels.cpp"])
def test_packaged_data_are_part_of_the_package(checkout, name):
    """Lesson 10 reads tables of kept checks: when these change, its page is stale."""
    before = hash_package(checkout / "package")
    (checkout / "package" / "data").mkdir()
    (checkout / "package" / "data" / name).write_text("{}")
    assert hash_package(checkout / "package") != before


def test_a_lost_results_file_makes_the_lesson_stale(checkout):
    (checkout / "build/smoke/results/01_first.json").unlink()
    assert problems(checkout) == ["01_first: stale: changed since it was run: results (01_first.json)"]


def test_an_override_makes_the_profiles_notebook_stale(checkout):
    (stale,) = check_fresh(
        checkout, "smoke", overrides={"scale": 1}, out=checkout / "build/smoke", package=checkout / "package"
    )
    assert stale.kind == "stale"
    assert "parameters (scale: 0.5 -> 1.0)" in stale.message


def test_a_missing_notebook_is_reported_with_the_command(two_lessons):
    (first, second) = problems(two_lessons)
    assert first.startswith("01_first: missing: ")
    assert first.endswith("run `crossfunc run 01_first`")
    assert second.startswith("02_second: missing: ")


def test_a_notebook_with_an_error_output_is_refused(checkout):
    path = checkout / "build/smoke/notebooks/01_first.ipynb"
    saved = json.loads(path.read_text())
    saved["cells"][-1]["outputs"] = [{"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}]
    path.write_text(json.dumps(saved))
    assert problems(checkout) == ["01_first: failed: code cell 4 raised ValueError: no"]


def test_a_notebook_with_a_cell_that_never_ran_is_refused(checkout):
    path = checkout / "build/smoke/notebooks/01_first.ipynb"
    saved = json.loads(path.read_text())
    saved["cells"][-1]["execution_count"] = None
    path.write_text(json.dumps(saved))
    assert problems(checkout) == ["01_first: failed: code cell 4 was never executed"]


def test_a_notebook_of_unknown_origin_is_stale(checkout):
    path = checkout / "build/smoke/notebooks/01_first.ipynb"
    path.write_text('{"cells": [], "metadata": {}}')
    assert "was not written by `crossfunc run`" in problems(checkout)[0]


def test_an_executed_notebook_without_a_lesson_is_reported(checkout):
    path = checkout / "build/smoke/notebooks/01_first.ipynb"
    shutil.copy(path, path.with_name("07_gone.ipynb"))
    (orphan,) = problems(checkout)
    assert orphan.startswith("07_gone: stale: its lesson is gone; delete ")
    assert problems(checkout, names=["01"]) == []


def test_a_dataset_that_changed_makes_the_lesson_stale_wherever_it_lies(tmp_path):
    root = write_checkout(tmp_path / "c", lesson_02_second=SECOND)
    for place in ("here", "there"):
        (tmp_path / place / "toy").mkdir(parents=True)
        (tmp_path / place / "toy" / "dataset.json").write_text('{"name": "toy"}')
    (one,) = plan(root, overrides={"dataset": str(tmp_path / "here/toy")})
    (other,) = plan(root, overrides={"dataset": str(tmp_path / "there/toy")})
    assert one.inputs == other.inputs
    (tmp_path / "there" / "toy" / "dataset.json").write_text('{"name": "toy", "version": 2}')
    (other,) = plan(root, overrides={"dataset": str(tmp_path / "there/toy")})
    assert {key for key in one.inputs if one.inputs[key] != other.inputs[key]} == {"data"}


# --- failures ---


def test_a_failing_cell_is_shown_and_the_old_notebook_is_gone(checkout):
    edit(checkout / "notebooks/01_first.py", "n * scale", "assert n < 0, 'n is not negative'")
    (failed,) = run(checkout)
    assert failed.status == "failed"
    assert "lesson 01_first, cell 3 of 4 (notebooks/01_first.py, line 23) failed:" in failed.message
    assert "\n    assert n < 0, 'n is not negative'" in failed.message
    assert "AssertionError: n is not negative" in failed.message
    assert "\x1b" not in failed.message
    assert not (checkout / "build/smoke/notebooks/01_first.ipynb").exists()
    assert not list((checkout / "build/smoke/results").iterdir())
    kept = checkout / "build/smoke/notebooks/01_first.failed.ipynb"
    assert "n is not negative" in kept.read_text()
    assert str(checkout) not in kept.read_text()
    assert problems(checkout)[0].startswith("01_first: failed: see ")


def test_after_a_repair_the_failed_notebook_is_gone(checkout):
    kept = checkout / "build/smoke/notebooks/01_first.failed.ipynb"
    kept.write_text("{}")
    (done,) = run(checkout)
    assert done.status == "done"
    assert not kept.exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("import os; os._exit(3)", r"cell 3 of 4 \(notebooks/01_bad.py, line 17\) failed: the kernel died"),
        ("raise SystemExit(0)", "lesson 01_bad failed: code cell 2 raised SystemExit"),
        ("open('stray.txt', 'w').close()", r"lesson 01_bad wrote into notebooks/: stray.txt"),
    ],
)
def test_what_is_no_clean_run_fails(tmp_path, cell, message):
    body = f'# %% tags=["parameters"]\nn = 1\n\n# %%\n{cell}\n\n# %%\nprint(n)\n'
    root = write_checkout(tmp_path / "c", lesson_01_bad=body)
    (failed,) = run(root)
    assert failed.status == "failed"
    assert re.search(message, failed.message), failed.message
    assert not (root / "build/smoke/notebooks/01_bad.ipynb").exists()
    assert (root / "build/smoke/notebooks/01_bad.failed.ipynb").exists()


def test_lessons_that_need_a_failed_one_are_not_run_and_others_are(tmp_path):
    parameters = '# %% tags=["parameters"]\nn = 1\n\n# %%\n'
    root = write_checkout(tmp_path / "c", lesson_01_bad=parameters + "1 / 0\n", lesson_03_free=parameters + "n\n")
    write_lesson(root, "02_needy", parameters + "n\n", extra="crossfunc: {needs: [01_bad]}")
    runs = run(root, jobs=2)
    assert [r.status for r in runs] == ["failed", "not run", "done"]
    assert runs[1].message == "needs 01_bad, which failed"


def test_a_change_in_a_needed_lesson_makes_the_needy_one_stale(two_lessons):
    write_lesson(two_lessons, "03_needy", SECOND, extra="crossfunc: {needs: [01_first]}")
    (before,) = plan(two_lessons, "03")
    edit(two_lessons / "notebooks/01_first.py", "how many", "number")
    (after,) = plan(two_lessons, "03")
    assert {key for key in before.inputs if before.inputs[key] != after.inputs[key]} == {"needs"}


@pytest.fixture
def needy(tmp_path):
    """A lesson that reads what another has left, where that is there."""
    parameters = '# %% tags=["parameters"]\nresults_dir = None\n\n# %%\nfrom pathlib import Path\n'
    root = write_checkout(
        tmp_path / "checkout", lesson_01_first=parameters + "Path(results_dir, '01_first.json').write_text('1')\n"
    )
    reads = 'left = Path(results_dir, "01_first.json")\nprint(left.read_text() if left.is_file() else "nothing")\n'
    write_lesson(root, "02_needy", parameters + reads, extra="crossfunc: {needs: [01_first]}")
    return root


def test_what_a_needed_lesson_has_left_since_makes_the_needy_one_stale(needy):
    """Run alone, it found nothing; its inputs would be the same after the other lesson has run."""
    assert [done.status for done in run(needy, "02")] == ["done"]
    assert [done.status for done in run(needy, "01")] == ["done"]
    assert problems(needy) == ["02_needy: stale: changed since it was run: what lesson 01_first left"]
    assert [done.status for done in run(needy)] == ["fresh", "done"]
    assert problems(needy) == []


def test_a_lesson_does_not_read_what_a_stale_one_has_left(needy):
    assert all(done.status == "done" for done in run(needy))
    edit(needy / "notebooks/01_first.py", "'1'", "'2'")
    (done,) = run(needy, "02")
    assert done.status == "not run"
    assert "reads what lesson 01_first left, and that is stale" in done.message
    assert "`crossfunc run 01 02`" in done.message
    assert [done.status for done in run(needy)] == ["done", "done"]


def test_a_file_that_a_parameter_names_is_an_input_and_its_place_is_in_no_output(tmp_path, monkeypatch):
    (tmp_path / "private").mkdir()
    model = tmp_path / "private" / "mine.pt"
    model.write_text("one")
    lesson = '# %% tags=["parameters"]\nmodel = "0.3.0"\n\n# %%\nprint(model)\n'
    root = write_checkout(tmp_path / "checkout", lesson_01_first=lesson)
    monkeypatch.chdir(tmp_path)
    given = {"model": "private/mine.pt"}  # meant from here, and the lesson runs elsewhere
    (done,) = run(root, overrides=given)
    assert done.status == "done", done.message
    saved = (root / "build/smoke-custom/notebooks/01_first.ipynb").read_text()
    assert "mine.pt" in saved
    assert "private" not in saved
    assert problems(root, overrides=given) == []
    model.write_text("two")
    assert problems(root, overrides=given) == ["01_first: stale: changed since it was run: files"]


def test_a_folder_here_is_not_taken_for_the_data_of_a_profile(tmp_path, monkeypatch):
    """The lesson runs in another folder and opens the shipped data; its record says so wherever it was planned."""
    lesson = '# %% tags=["parameters"]\ndataset = "pbe-r2scan"\n\n# %%\n1\n'
    root = write_checkout(tmp_path / "checkout", lesson_01_first=lesson)
    (before,) = plan(root)
    (tmp_path / "here" / "pbe-r2scan").mkdir(parents=True)
    (tmp_path / "here" / "pbe-r2scan" / "dataset.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    (after,) = plan(root)
    assert after.inputs == before.inputs
    assert planned_dataset("pbe-r2scan").is_absolute()


def test_another_dataset_does_not_go_where_another_profile_has_its_run(two_lessons):
    (two_lessons / "notebooks/profiles/smoke-surrogate.yml").write_text("{}")
    (first, _) = plan(two_lessons, overrides={"dataset": "surrogate"})
    assert first.folder.name == "smoke-surrogate-other"
    (first, _) = plan(two_lessons, profile="smoke-surrogate")
    assert first.folder.name == "smoke-surrogate"


def test_lessons_that_need_each_other_are_an_error(two_lessons):
    write_lesson(two_lessons, "03_a", SECOND, extra="crossfunc: {needs: [04_b]}")
    write_lesson(two_lessons, "04_b", SECOND, extra="crossfunc: {needs: [03_a]}")
    with pytest.raises(LessonError, match="04_b: `needs` names 03_a"):
        plan(two_lessons)


# --- which lessons ---


@pytest.mark.parametrize("name", ["1", "01", "01_first", "01_f", "notebooks/01_first.py"])
def test_a_lesson_is_found_by_number_stem_or_prefix(two_lessons, name):
    assert [p.lesson.stem for p in plan(two_lessons, name)] == ["01_first"]


def test_a_second_page_has_a_name_of_its_own_and_comes_after_the_first(two_lessons):
    write_lesson(two_lessons, "01b_more", SECOND)
    for name in ("01b", "1b", "01b_more"):
        assert [p.lesson.stem for p in plan(two_lessons, name)] == ["01b_more"]
    assert [p.lesson.stem for p in plan(two_lessons, "1")] == ["01_first"]
    assert [p.lesson.stem for p in plan(two_lessons)] == ["01_first", "01b_more", "02_second"]
    assert [p.lesson.number for p in plan(two_lessons)] == ["01", "01b", "02"]


def test_no_name_means_all_lessons_in_order(two_lessons):
    assert [p.lesson.stem for p in plan(two_lessons)] == ["01_first", "02_second"]


def test_names_are_run_in_the_lessons_order_and_once(two_lessons):
    assert [p.lesson.stem for p in plan(two_lessons, "02", "01", "02_second")] == ["01_first", "02_second"]


def test_unknown_and_ambiguous_lessons_are_listed(two_lessons):
    with pytest.raises(LessonError, match=r"no lesson '07'; there are: 01_first, 02_second"):
        plan(two_lessons, "07")
    with pytest.raises(LessonError, match=r"'0' is ambiguous|no lesson '0'"):
        plan(two_lessons, "0")
    write_lesson(two_lessons, "01_fourth", SECOND)
    with pytest.raises(LessonError, match="ambiguous: 01_first, 01_fourth"):
        plan(two_lessons, "01_f")


def test_outside_a_checkout_the_error_says_what_is_looked_for(tmp_path):
    with pytest.raises(LessonError, match=r"no folder upwards holds notebooks/ and _config\.yml"):
        find_root(tmp_path)


def test_outside_a_checkout_the_packages_own_lessons_run_into_a_folder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_lessons(out=tmp_path / "out") == (tmp_path, own_lessons())
    with pytest.raises(LessonError, match="`crossfunc run 01 --out DIR` runs the lessons that came with the package"):
        place_lessons()
    with pytest.raises(LessonError, match="not inside a checkout"):
        place_lessons(root=tmp_path, out=tmp_path / "out")


def test_the_checkout_is_found_from_below(two_lessons):
    assert find_root(two_lessons / "notebooks" / "profiles") == two_lessons.resolve()


def test_another_dataset_gets_its_own_folder(two_lessons):
    assert plan(two_lessons)[0].folder.name == "smoke"
    assert plan(two_lessons, overrides={"dataset": "none-of-that-name"})[0].folder.name == "smoke"
    assert plan(two_lessons, overrides={"dataset": "other data/mp_pairs.csv"})[0].folder.name == "smoke-mp-pairs"


@pytest.mark.parametrize(
    ("overrides", "folder", "overridden"),
    [
        ({"n": 4}, "smoke-custom", ("n",)),
        ({"n": 4, "label": "x"}, "smoke-custom", ("label", "n")),
        ({"n": 4, "dataset": "other"}, "smoke-other-custom", ("dataset", "n")),
        ({"dataset": "other"}, "smoke-other", ("dataset",)),
        ({"n": 3.0, "scale": 0.5, "dataset": "none-of-that-name"}, "smoke", ()),  # what the profile says anyway
    ],
)
def test_other_values_than_the_profiles_get_their_own_folder(two_lessons, overrides, folder, overridden):
    for each in plan(two_lessons, overrides=overrides):
        assert each.folder == two_lessons.resolve() / "build" / folder
        assert each.overridden == overridden


def test_what_counts_as_another_value_is_decided_by_the_profile(two_lessons):
    (two_lessons / "notebooks/profiles/smoke.yml").write_text("defaults: {n: 7}")
    assert plan(two_lessons, "01", overrides={"n": 7})[0].folder.name == "smoke"
    assert plan(two_lessons, "01", overrides={"n": 3})[0].folder.name == "smoke-custom"  # the lesson's own default


def test_a_value_that_only_a_needed_lesson_has_otherwise_counts_too(two_lessons):
    write_lesson(two_lessons, "03_needy", FIRST.replace("n = 3", "n = 5"), extra="crossfunc: {needs: [01_first]}")
    (needy,) = plan(two_lessons, "03", overrides={"n": 5})
    assert (needy.folder.name, needy.overridden) == ("smoke-custom", ("n",))


def test_a_given_folder_is_taken_whatever_the_values(two_lessons, tmp_path):
    (first,) = plan_run(two_lessons, "smoke", ["01"], {"n": 4}, out=tmp_path / "o", package=two_lessons / "package")
    assert first.folder == (tmp_path / "o").resolve()


def test_a_run_with_other_values_leaves_the_profiles_notebook_fresh(checkout):
    before = (checkout / "build/smoke/notebooks/01_first.ipynb").read_bytes()
    (done,) = run(checkout, overrides={"n": 9})
    assert done.status == "done", done.message
    assert (checkout / "build/smoke/notebooks/01_first.ipynb").read_bytes() == before
    assert (checkout / "build/smoke-custom/results/01_first.json").read_text() == "9"
    assert problems(checkout) == []
    assert problems(checkout, overrides={"n": 9}) == []


def test_a_relative_dataset_folder_is_meant_from_where_the_command_was_given(two_lessons, tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "dataset.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    (_, second) = plan(two_lessons, overrides={"dataset": "toy"})
    assert second.parameters["dataset"] == str(tmp_path / "toy")
    assert public_parameters(second.parameters) == {"dataset": "toy"}


# --- parameters ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=<<", "<<"),
        ("a=[<<, 1]", ["<<", 1]),
        ("a=12", 12),
        ("a=1e-3", 0.001),
        ("a=-.5", -0.5),
        ("a=1_000", 1000),
        ("a=true", True),
        ("a=[Fe, O]", ["Fe", "O"]),
        ("a=[N, No, Y]", ["N", "No", "Y"]),  # elements, not truth values
        ("a=12:30", "12:30"),  # not a number in base 60
        ("a=2025-01-01", "2025-01-01"),
        ("a='12'", "12"),
        ("a=b=c", "b=c"),
        ("a=", None),
        ("a=PBEsol #2", "PBEsol #2"),  # no comment of YAML, and so on
        ("a=/data/my #3/frames.xyz", "/data/my #3/frames.xyz"),
        ("a=#2", "#2"),
        ("a=PBE: new", "PBE: new"),
        ("a=&x y", "&x y"),
        ("a=!own tag", "!own tag"),
        ("a=@home", "@home"),
        ("a=- x", "- x"),
        ("a='a #b'", "a #b"),
    ],
)
def test_values_are_read_as_plain_yaml(text, value):
    assert parse_overrides([text]) == {"a": value}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["n"], "expected name=value"),
        (["1n=2"], "expected name=value"),
        (["n=1", "n=2"], "`n` is given twice"),
        (["n=[1"], "cannot be read as YAML"),
        (["n=[1, 2] # two"], "'# two' would be left out"),
    ],
)
def test_malformed_overrides_are_errors(items, message):
    with pytest.raises(InputError, match=message):
        parse_overrides(items)
    with pytest.raises(InputError, match=r"^--set "):
        parse_overrides(items, "--set")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scale": 2}, ("scale", 2.0)),  # an int where a float is wanted
        ({"n": 1e4}, ("n", 10_000)),  # a whole float where an int is wanted
        ({"limit": None}, ("limit", None)),  # allowed by its annotation
        ({"sizes": [1e2, 3]}, ("sizes", [100, 3])),
        ({"label": "x"}, ("label", "x")),
    ],
)
def test_sensible_values_are_taken(two_lessons, given, expected):
    name, value = expected
    (first,) = plan(two_lessons, "01", overrides=given)
    assert first.parameters[name] == value
    assert type(first.parameters[name]) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 12}, r"`label` takes str \(default 'ab'\), got 12 \(int\). To give it as text, quote it"),
        ({"n": "many"}, r"`n` takes int \(default 3\), got 'many' \(str\)"),
        ({"n": 2.5}, r"`n` takes int"),
        ({"n": True}, r"`n` takes int"),
        ({"n": None}, r"`n` takes int .* got None"),
        ({"sizes": ["a"]}, r"`sizes` takes list"),
        ({"results_dir": "x"}, "the runner sets this one"),
        ({"m": 1}, r"-p m: no selected lesson declares it. Declared: label='ab', limit=10, n=3, scale=0.5, sizes="),
    ],
)
def test_values_of_the_wrong_kind_and_unknown_names_are_errors(two_lessons, given, message):
    with pytest.raises(LessonError, match=message):
        plan(two_lessons, "01", overrides=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, r"-p, lesson 01_first: parameter `n` must be at least 1, got 0\."),
        ({"scale": 0}, r"`scale` must be above 0, got 0\.0"),
        ({"scale": float("nan")}, "`scale` must be above 0"),
        ({"sizes": [3, -1]}, r"`sizes` must be at least 1, got \[3, -1\]"),
        ({"label": "xyz"}, "`label` must be one of ab, x, got 'xyz'"),
    ],
)
def test_values_out_of_their_range_are_errors_before_anything_runs(two_lessons, given, message):
    limits = (
        "{n: {at_least: 1}, scale: {above: 0}, sizes: {at_least: 1}, limit: {at_least: 1}, label: {one_of: [ab, x]}}"
    )
    (two_lessons / "notebooks" / "parameters.yml").write_text(limits)
    with pytest.raises(LessonError, match=message):
        plan(two_lessons, "01", overrides=given)
    (first,) = plan(two_lessons, "01", overrides={"limit": None, "n": 1})
    assert first.parameters["n"] == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("{n: {at_most: 3}}", r"parameters\.yml: n takes above, at_least, one_of, time"),
        ("{n: {time: often}}", "time is one of proportional, grows"),
        ("{n: {one_of: 'crossfunc.units:NOT_THERE'}}", "n: one_of names 'crossfunc.units:NOT_THERE', which holds no"),
        ("{n: [", r"parameters\.yml: not readable as YAML"),
    ],
)
def test_a_file_of_ranges_that_says_nothing_sensible_is_an_error(two_lessons, limits, message):
    (two_lessons / "notebooks" / "parameters.yml").write_text(limits)
    with pytest.raises(LessonError, match=message):
        plan(two_lessons, "01")


def test_the_comment_of_a_line_that_is_written_over_several_is_its_own(two_lessons):
    path = two_lessons / "notebooks" / "01_first.py"
    head = '# %% tags=["parameters"]\nn = 1  # how many\n'
    path.write_text(head + "file: str | None = (\n    None  # which one\n)\ncurves = [  # what is drawn\n    'a',\n]\n")
    assert [p.meaning for p in Lesson(path).parameters.values()] == ["how many", "which one", "what is drawn"]


def test_a_range_may_be_that_of_the_library(two_lessons):
    (two_lessons / "notebooks" / "parameters.yml").write_text("label: {one_of: 'crossfunc.symbols:ELEMENT_SYMBOLS'}")
    with pytest.raises(LessonError, match="`label` must be one of 94 names, from H to Pu, got 'Uue'"):
        plan(two_lessons, "01", overrides={"label": "Uue"})


def test_a_parameter_that_some_selected_lesson_declares_is_given_to_that_one(two_lessons):
    first, second = plan(two_lessons, overrides={"n": 7})
    assert first.parameters["n"] == 7
    assert "n" not in second.parameters


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("# %%\nn = 1\n", "no cell is tagged `parameters`"),
        ('# %% tags=["parameters"]\nn = 1\n\n# %% tags=["parameters"]\nm = 1\n', "2 cells are tagged"),
        ('# %% tags=["parameters"]\nn = 1 + len("a")\n', "line 1 of the `parameters` cell is `n = 1 [+] len"),
        ('# %% tags=["parameters"]\nimport os\n', "line 1 of the `parameters` cell is `import os`"),
        ('# %% tags=["parameters"]\nn: Path = 1\n', "`n` is of kind Path"),
    ],
)
def test_a_parameters_cell_must_be_one_cell_of_literals(tmp_path, body, message):
    root = write_checkout(tmp_path / "c", lesson_01_x=body)
    with pytest.raises(LessonError, match=message):
        plan(root)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("defaults: {typo: 1}", "`defaults` names typo, which no lesson declares"),
        ("lessons: {01_first: {typo: 1}}", "01_first.py has no parameter typo; it declares label='ab'"),
        ("lessons: {09_none: {n: 1}}", "no lesson 09_none; there are: 01_first, 02_second"),
        ("lessons: {01_first: {n: many}}", "profiles/smoke.yml, lesson 01_first: parameter `n` takes int"),
        ("lessons: {01_first: 3}", "`01_first` must map parameters to values"),
        ("lesson: {}", "has the keys defaults, description, lessons"),
        ("defaults: {n: 1, n: 2}", "n given twice"),
        ("defaults: [", "not readable as YAML"),
    ],
)
def test_a_profile_with_a_mistake_is_an_error(two_lessons, profile, message):
    (two_lessons / "notebooks/profiles/smoke.yml").write_text(profile)
    with pytest.raises(LessonError, match=message):
        plan(two_lessons)


def test_an_unknown_profile_lists_those_there_are(two_lessons):
    with pytest.raises(LessonError, match=r"no profile 'huge' .* there are: smoke"):
        plan(two_lessons, profile="huge")


def test_the_order_of_precedence_is_default_profile_lesson_override(two_lessons):
    profile = Profile("p", defaults={"n": 1, "scale": 1.0}, lessons={"01_first": {"n": 2}})
    lesson = Lesson(two_lessons / "notebooks/01_first.py")
    assert resolve_parameters(lesson, profile)["n"] == 2
    assert resolve_parameters(lesson, profile, {"n": 3})["n"] == 3
    assert resolve_parameters(lesson, profile)["scale"] == 1.0
    assert resolve_parameters(lesson, profile)["label"] == "ab"


def test_the_kernel_sees_data_folders_as_they_are_seen_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSFUNC_DATA", os.pathsep.join(["data", "/elsewhere"]))
    spec = runner.kernel_manager_class(tmp_path)().kernel_spec
    assert spec.env["CROSSFUNC_DATA"].split(os.pathsep) == [str(tmp_path / "data"), "/elsewhere"]
    assert spec.argv[0] == sys.executable


def test_a_broken_pipe_in_a_cell_is_no_lack_of_the_machine():
    assert runner._describe_lack(SimpleNamespace(ename="BrokenPipeError", evalue="[Errno 32] Broken pipe")) == ""
    full = runner._describe_lack(SimpleNamespace(ename="OSError", evalue="[Errno 28] No space left on device: 'x'"))
    assert "make room" in full


# --- ended from outside, two at a time, data that are not here ---


SLOW = """
# %% tags=["parameters"]
n = 1

# %%
import time
print("begun", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_the_run_and_not_only_the_lesson(tmp_path, name):
    """nbclient would call it a dead kernel, and go on with the next lesson."""
    root = write_checkout(tmp_path / "checkout", lesson_01_slow=SLOW, lesson_02_next=SECOND)
    command = "from crossfunc.cli import app; app()"
    arguments = [sys.executable, "-c", command, "run", "--profile", "smoke", "--root", str(root)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lock = root / "build" / "smoke" / ".lock"
        while not lock.exists() and process.poll() is None:
            time.sleep(0.05)
        with pytest.raises(FolderInUse, match="another process is writing here now"):
            run_lessons(plan_run(root, "smoke"))
        time.sleep(2)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + getattr(signal, name), err
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [err.splitlines()[-1]]
    assert err.splitlines()[-1].startswith("error: stopped ")
    assert "the same command goes on where it was" in err
    assert "02_next" not in out
    assert not lock.exists()
    assert [p.kind for p in check_fresh(root, "smoke")] == ["missing", "missing"]


def test_a_dataset_that_is_not_here_is_refused_before_a_kernel_starts(two_lessons, monkeypatch):
    monkeypatch.setattr(runner, "run_lesson", lambda *_, **__: pytest.fail("a kernel was started"))
    for name in ("/nowhere", "no-such-name", "./gone/data"):
        with pytest.raises(LessonError, match=f"lesson 02_second: no dataset '{name}'"):
            run(two_lessons, overrides={"dataset": name})
    assert not (two_lessons / "build").exists()


LEAKY = """
# %% tags=["parameters"]
results_dir = None
leak = False

# %%
import os
from pathlib import Path
key = os.environ["MP_API_KEY"]
print("key", key, os.environ["ADDRESS"], os.environ["MY_TOKEN"])
if leak:
    Path(results_dir, "01_leaky.json").write_text(key)
"""


def test_keys_tokens_and_users_of_addresses_are_in_no_output(tmp_path, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "sEcReTkEy1234567890")
    monkeypatch.setenv("MY_TOKEN", "tok-987654321")
    monkeypatch.setenv("ADDRESS", "https://me:hunter22@example.org/a?token=abcdef123&x=1")
    root = write_checkout(tmp_path / "checkout", lesson_01_leaky=LEAKY)
    (done,) = run(root)
    assert done.ok, done.message
    (leaky,) = run_lessons(plan(root, overrides={"leak": True}))
    assert "wrote a key, a token or a user of an address into 01_leaky.json" in leaky.message
    for file in (root / "build").rglob("*"):
        if file.is_file():
            text = file.read_text(errors="replace")
            for secret in ("sEcReTkEy1234567890", "tok-987654321", "hunter22", "abcdef123"):
                assert secret not in text, file
    assert "<MP_API_KEY>" in (root / "build/smoke/notebooks/01_leaky.ipynb").read_text()
