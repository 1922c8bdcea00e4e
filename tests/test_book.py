"""The book is built strictly, from fresh lessons only, and every page of it works in a browser without a network."""

import base64
import functools
import gzip
import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import numpy as np
import pandas as pd
import pytest
import yaml

from crossfunc import lessons
from crossfunc.datasets import open_dataset
from crossfunc.lessons import claims as verdicts_by_rule

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("book_build", ROOT / "book" / "build.py")
book_build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book_build)  # puts book/_ext on the path

import book_api  # noqa: E402
import book_benchmarks  # noqa: E402
import book_claims  # noqa: E402
import book_datasheet  # noqa: E402
import book_files  # noqa: E402
import book_finish  # noqa: E402
import book_fresh  # noqa: E402
import book_kept  # noqa: E402
import book_rerun  # noqa: E402
import book_results  # noqa: E402
import book_students  # noqa: E402
from conftest import SECRETS  # noqa: E402
from sphinx.errors import ExtensionError  # noqa: E402

LESSONS = book_fresh.lessons(ROOT)
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


# --- what the directives write ---


def test_docstrings_meant_to_be_read_become_restructured_text():
    line = "c = argmin ||X c - y||, see `fit`: |r|, ``code`` and :func:`fit`"
    assert book_api.plain_to_rst(line) == r"c = argmin \|\|X c - y\|\|, see ``fit``: \|r\|, ``code`` and :func:`fit`"


def test_every_room_that_people_import_from_is_on_the_api_page():
    import pkgutil

    import crossfunc

    text = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\{public-names\} crossfunc\.(\w+)", text))
    rooms = {module.name for module in pkgutil.iter_modules(crossfunc.__path__) if module.ispkg}
    assert rooms - shown == {"bench", "dft", "lessons", "surrogate"}  # what the book itself is made with


def test_a_module_without_a_list_of_public_names_cannot_be_on_the_api_page():
    with pytest.raises(ExtensionError, match="bare has no __all__"):
        book_api.public_names(SimpleNamespace(__name__="bare"))


def results_file(folder, **changes):
    row = {"key": "r", "title": "Pearson", "value": 0.5, "unit": "", "paper": 0.09, "interval": None}
    row |= {"why": "other\nmaterials", "note": ""} | changes
    content = {"lesson": "01_x", "dataset": "surrogate", "label_notice": "not DFT", "results": [row]}
    content["labelled_by"] = "model, CHGNet"
    path = folder / "build" / "p" / "results" / "01_x.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return content


def test_claims_table_has_lesson_data_notice_both_values_and_the_reason(tmp_path):
    results_file(tmp_path)
    content = book_results.read_results(tmp_path, "p", "01_x")
    text = "\n".join(book_results.claims_table("01_x", content, content["results"]))
    assert "{doc}`/notebooks/01_x`" in text
    assert "Dataset `surrogate` (not DFT)." in text
    row = text[text.index("* - Pearson") :]
    assert [float(cell.split()[1]) for cell in row.splitlines()[1:3]] == [0.5, 0.09]
    assert "\n  - other materials\n" in row  # one line, or the table would end here


def test_claims_table_says_when_the_paper_has_no_number():
    content = {"dataset": "d", "label_notice": "", "results": []}
    row = {"title": "t", "value": 3, "unit": "eV", "paper": None, "interval": None, "why": "", "note": "1 seed"}
    other = row | {"title": "u", "paper": 4}
    table = book_results.claims_table("01_x", content, [row, other])
    assert "* - t\n  - 3 eV (1 seed)\n  - —\n* - u\n" in "\n".join(table)
    assert "  - Why they differ" not in table  # a column of dashes says nothing
    alone = book_results.claims_table("01_x", content, [row])
    assert "* - Claim\n  - Here\n* - t\n  - 3 eV (1 seed)\n~~~" in "\n".join(alone)


def test_a_missing_results_file_or_key_stops_the_build(tmp_path):
    content = results_file(tmp_path)
    with pytest.raises(ExtensionError, match=r"02_y\.json: the results file is missing"):
        book_results.read_results(tmp_path, "p", "02_y")
    with pytest.raises(ExtensionError, match="lesson '01_x' has no result 'slope'; it has: r"):
        book_results.find_result(content, "slope", "01_x")


def test_a_declared_key_that_a_lesson_did_not_record_stops_the_build(tmp_path):
    results_file(tmp_path)  # records r
    (tmp_path / "notebooks").mkdir()
    declared = "01_x: {r: {title: R}, s: {title: S}, t: {title: T, when: DFT}}"
    (tmp_path / "notebooks" / "results.yml").write_text(declared)
    with pytest.raises(ExtensionError, match=r"'01_x' did not record s, which notebooks/results\.yml declares"):
        book_results.read_results(tmp_path, "p", "01_x")


def test_a_kept_run_has_the_papers_number_as_it_is_declared_now_and_its_own_as_it_was(tmp_path):
    content = results_file(tmp_path, paper=0.09)
    folder = tmp_path / "book" / "kept" / "long"
    folder.mkdir(parents=True)
    (folder / "01_x.json").write_text(json.dumps(content))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "results.yml").write_text("01_x: {r: {title: R, paper: 0.1}}")
    (row,) = book_results.read_results(tmp_path, None, "01_x", kept="long")["results"]
    assert (row["value"], row["paper"]) == (0.5, 0.1)
    (tmp_path / "notebooks" / "results.yml").write_text("01_x: {s: {title: S}}")  # the key is gone: as it was
    (row,) = book_results.read_results(tmp_path, None, "01_x", kept="long")["results"]
    assert row["paper"] == 0.09


def executed_cell(*notes):
    outputs = [
        {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {"crossfunc": n}} for n in notes
    ]
    return {"cell_type": "code", "metadata": {}, "source": "show()", "outputs": outputs}


def test_a_shown_figure_becomes_a_numbered_figure_with_alternative_text():
    note = {"alt": "A plot.", "caption": "Energies", "name": "fig-1", "width": "400px"}
    cell = executed_cell(note, {"role": "caption"})
    book_build.dress_figures(cell, "01_x.ipynb")
    assert cell["metadata"]["mystnb"] == {
        "image": {"alt": "A plot.", "width": "400px"},
        "figure": {"caption": "Energies", "name": "fig-1"},
    }
    assert len(cell["outputs"]) == 1  # the caption line is for JupyterLab


@pytest.mark.parametrize(("width", "classes"), [("640px", None), ("871px", "xf-wide")])
def test_a_figure_of_several_panels_is_marked_so_that_it_scrolls_on_a_phone(width, classes):
    cell = executed_cell({"alt": "Two panels.", "caption": "", "name": "", "width": width})
    book_build.dress_figures(cell, "01_x.ipynb")
    assert cell["metadata"]["mystnb"]["image"].get("classes") == classes


def test_two_figures_in_one_cell_are_refused():
    note = {"alt": "A plot.", "caption": "", "name": ""}
    with pytest.raises(book_build.BuildError, match=r"01_x\.ipynb: one cell shows 2 figures"):
        book_build.dress_figures(executed_cell(note, note), "01_x.ipynb")


def test_a_figure_that_no_lesson_shows_is_refused_with_the_names_there_are(tmp_path):
    path = tmp_path / "build" / "p" / "notebooks" / "01_x.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": [executed_cell({"alt": "a", "caption": "c", "name": "fig-1"})]}))
    png, note = book_results.lesson_figure(tmp_path, "p", "01_x", "fig-1")
    assert (png, note["alt"]) == (b"\0\0\0", "a")
    with pytest.raises(LookupError, match="under the name 'fig-2'; named figures: fig-1"):
        book_results.lesson_figure(tmp_path, "p", "01_x", "fig-2")


@pytest.fixture
def long_run(tmp_path, monkeypatch):
    """A checkout with an executed lesson of a long profile, and a function that keeps it."""
    import crossfunc.lessons
    from crossfunc.lessons import plans

    content = results_file(tmp_path, value=0.25)
    home = tmp_path / "build" / "p"
    (home / "results" / "01_x.runs.csv").write_text("n,error\n1,2\n")
    (home / "results" / "01_x.method-4.pt").write_bytes(b"weights")
    (home / "timings.json").write_text('{"01_x": {"seconds": 3000, "cores": 2, "jobs": 1}}')
    (home / "notebooks").mkdir()
    note = {"alt": "a", "caption": "c", "name": "fig-1", "role": "figure"}
    (home / "notebooks" / "01_x.ipynb").write_text(json.dumps({"cells": [executed_cell(note)]}))
    declared = {"max_steps": 100, "seed": 0, "dataset": "surrogate", "results_dir": None}
    declared = {name: SimpleNamespace(default=value) for name, value in declared.items()}
    values = {"max_steps": 1000, "seed": 0, "dataset": str(tmp_path / "own")}
    plan = plans.Plan(SimpleNamespace(stem="01_x", parameters=declared), "p", values, {}, home)
    monkeypatch.setattr(plans, "plan_run", lambda *_: [plan])
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.md").write_text("```{lesson-figure} 01_x fig-1\n:kept: p\n```\n")
    problems = []
    monkeypatch.setattr(crossfunc.lessons, "check_fresh", lambda *_, **__: problems)
    return SimpleNamespace(
        root=tmp_path, content=content, problems=problems, keep=lambda: book_kept.keep_run(tmp_path, "p", "01")
    )


def test_a_kept_run_is_read_back_without_the_build_folder(long_run):
    folder = long_run.keep()
    shutil.rmtree(long_run.root / "build")
    assert folder == long_run.root / "book" / "kept" / "p"
    assert book_results.read_results(long_run.root, "laptop", "01_x", kept="p") == long_run.content
    about = book_kept.read_kept(long_run.root, "p", "01_x")
    assert about["parameters"] == {"max_steps": 1000, "dataset": "own"}  # no path of a machine
    assert about["timing"]["seconds"] == 3000
    png, note = book_kept.kept_figure(long_run.root, "p", "01_x", "fig-1")
    assert (png, note) == (b"\0\0\0", {"alt": "a", "caption": "c"})
    assert sorted(p.name for p in folder.iterdir()) == [
        *("01_x.fig-1.png", "01_x.json", "01_x.run.json", "01_x.runs.csv")  # and no model
    ]
    with pytest.raises(LookupError, match="no figure 'fig-2'; there are: fig-1"):
        book_kept.kept_figure(long_run.root, "p", "01_x", "fig-2")


def test_a_kept_run_has_only_the_figures_that_a_page_shows(long_run):
    page = long_run.root / "book" / "page.md"
    page.write_text("```{lesson-figure} 01_x fig-1\n:kept: another\n```\n{lesson-figure} 01_x fig-1\n")
    folder = long_run.keep()
    assert book_kept.read_kept(long_run.root, "p", "01_x")["figures"] == {}
    assert not list(folder.glob("*.png"))
    with pytest.raises(LookupError, match="once this page is written, keep the run again: make it with"):
        book_kept.kept_figure(long_run.root, "p", "01_x", "fig-1")
    (long_run.root / "notebooks").mkdir()
    (long_run.root / "notebooks" / "04_y.py").write_text("# :::{lesson-figure} 01_x fig-1\n# :kept: p\n# :::\n")
    assert (long_run.keep() / "01_x.fig-1.png").is_file()


def test_no_figure_is_kept_that_no_page_shows(root):
    for about in sorted((root / verdicts_by_rule.KEPT).glob("*/*.run.json")):
        profile, lesson = about.parent.name, about.name.removesuffix(".run.json")
        shown = book_kept.shown_figures(root, profile, lesson)
        assert set(book_kept.read_kept(root, profile, lesson)["figures"]) == shown
        found = {png.name.split(".")[1] for png in about.parent.glob(f"{lesson}.*.png")}
        assert found == shown, f"{profile} {lesson}"


def test_a_kept_run_of_other_labels_than_the_books_says_so_where_it_is_shown(long_run, monkeypatch):
    folder = long_run.keep()
    assert "data" not in json.loads((folder / "01_x.run.json").read_text())  # of a folder of one's own
    monkeypatch.setattr(verdicts_by_rule, "data_of", lambda _: {"name": "own", "version": "3"})
    monkeypatch.setattr(verdicts_by_rule, "CONVERGED", ("p",))
    folder = long_run.keep()
    about = book_kept.read_kept(long_run.root, "p", "01_x")
    assert about["data"]["version"] == "3"
    assert book_kept.older_labels(about) == ""
    monkeypatch.setattr(verdicts_by_rule, "data_of", lambda _: {"name": "own", "version": "4"})
    said = "Made on version 3 of the labels `own`; this book has version 4."
    assert book_kept.older_labels(about) == said
    assert book_kept.kept_figure(long_run.root, "p", "01_x", "fig-1")[1]["caption"] == f"c {said}"
    (found,) = [c for c in book_claims.results_by_labels(long_run.root, "p", "01_x").values() if c["kept"] == "p"]
    claim = {"result": "01_x:r", "holds": "> 0"}
    monkeypatch.setattr(verdicts_by_rule, "find_result", lambda *_, **__: found["results"][0])
    assert "converged, version 3 of the labels" in book_claims.judged(claim, found)[1]


def test_packaged_datasets_have_the_version_that_a_kept_run_is_compared_with():
    version = open_dataset("pbe-r2scan").meta["version"]
    assert verdicts_by_rule.data_of("pbe-r2scan") == {"name": "pbe-r2scan", "version": version}
    assert verdicts_by_rule.data_of("/somewhere/own") is None


def test_keeping_a_run_again_leaves_nothing_of_the_former_one(long_run):
    (long_run.keep() / "01_x.old.csv").write_text("n\n")
    assert not (long_run.keep() / "01_x.old.csv").exists()


def test_only_a_fresh_run_is_kept(long_run):
    from crossfunc.lessons import LessonError

    long_run.problems.append("01_x: stale: its source has changed")
    with pytest.raises(LessonError, match="only a fresh run is kept: 01_x: stale"):
        long_run.keep()
    assert not (long_run.root / "book" / "kept").exists()


def test_a_kept_run_that_is_missing_stops_the_build_and_names_the_commands(tmp_path):
    with pytest.raises(ExtensionError, match=r"crossfunc run 07 --profile long && make keep PROFILE=long LESSON=07"):
        book_kept.read_kept(tmp_path, "long", "07_scaling_laws")


def test_datasheet_counts_what_the_tables_hold():
    reference = {"Li": -1.0, "O": -4.0, "Na": -2.0, "Cl": -3.0}
    counts = [{"Li": 2, "O": 1}, {"Li": 1}, {"O": 1}, {"Li": 1, "O": 1}, {"Li": 3, "O": 1}]
    counts += [{"Na": 1, "Cl": 1}, {"Na": 1}, {"Cl": 1}, {"Na": 2, "Cl": 1}, {"Na": 1, "Cl": 2}]
    pairs = pd.DataFrame(
        {
            "material_id": [f"m-{k}" for k in range(10)],
            "composition": ["".join(f"{e}{n}" for e, n in c.items()) for c in counts],
            "n_atoms": [sum(c.values()) for c in counts],
            "high_energy_per_atom_ev": [sum(n * reference[e] for e, n in c.items()) / sum(c.values()) for c in counts],
            "tier": ["wide", "dense"] * 5,
        }
    )
    from crossfunc.datasets import Functional

    functionals = (Functional("low", "PBE", "pbe", "mp2020"), Functional("high", "r²SCAN", "r2scan", "raw"))
    dataset = SimpleNamespace(
        label_notice="not DFT",
        meta={
            "licence": "MIT",
            "files": {"pairs.parquet": {}},
            "functionals": {},
            "generator": {"seed": 7, "max_steps": 500, "elements": ["Li", "O"]},
        },
        pairs=pairs,
        elements=pd.DataFrame(
            {
                "element": ["Li", "Li", "O"],
                "functional": ["pbe", "r2scan", "pbe"],
                "energy_kind": ["mp2020", "raw", "mp2020"],
                "energy_per_atom_ev": [-1.0, -2.0, -3.0],
            }
        ),
        frames=None,
        rejected=pd.DataFrame({"id": ["x"]}),
        functionals=functionals,
        functional=lambda which: functionals[which == "high"],
    )
    facts = dict(book_datasheet.datasheet_rows(dataset))
    assert facts["Labels"] == "not DFT"
    assert facts["Materials with both functionals"] == "10"
    assert facts["Elements in them"] == "4"
    assert facts["Atoms per cell"] == "1 to 4"
    known = facts["r²SCAN references fitted on 80 % of the materials, pairs"]
    assert known == "rank 4 for 4 elements; mean error 0.000 eV/atom on 2 held-out materials"  # exactly linear
    assert facts["Elemental references"] == "2 elements"
    assert "Hulls of three elements" not in facts  # no system has its three elements
    assert facts["Rows left out, with a reason each"] == "1"
    assert (facts["Licence"], facts["Functionals"]) == (
        "MIT",
        "PBE with MP2020 corrections (low) and r²SCAN (high)",
    )
    assert (facts["Generator: `seed`"], facts["Generator: `elements`"]) == ("7", "Li, O")
    assert "Files" not in facts


def test_a_benchmark_shows_what_was_measured_and_how_to_measure_it(tmp_path):
    path = tmp_path / "atomref.json"
    with pytest.raises(ExtensionError, match="crossfunc bench atomref --json"):
        book_benchmarks.benchmark_tables(path)
    path.write_text('{"n_frames": 238247, "seconds_fit": 0.0246754, "backend": "numpy"}')
    rows = [("number of frames", "238,247"), ("fit time (s)", "0.0247"), ("backend", "numpy")]
    assert book_benchmarks.benchmark_tables(path) == [("", ("measured", ""), rows)]


def test_a_benchmark_with_figures_by_batch_and_step_has_a_table_for_each(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(
        '{"speedup": 4.5, "ms_per_frame": {"MgO": {"chgnet": 60.0, "ours": 15.0}}, "gpu": {"peak_gb": null}}'
    )
    single, by_batch = book_benchmarks.benchmark_tables(path)
    assert single[2] == [("chgnet's time over ours", "4.5"), ("gpu", "peak (GB) not measured")]
    assert by_batch == ("time per frame (ms)", ("", "chgnet", "ours"), [("MgO", "60", "15")])


def test_a_run_of_units_is_kept_only_when_all_are_whole(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from crossfunc.lessons import LessonError, lesson_runs
    from crossfunc.training import units as training_units
    from crossfunc.training.units import UnitState

    states = [UnitState("method-4-seed0", "whole", 9, 9, 1.0), UnitState("method-3-seed0", "stopped", 4, 9, 0.5)]
    monkeypatch.setattr(lesson_runs, "runs_of", lambda *_: (None, []))
    monkeypatch.setattr(training_units, "progress", lambda *_: states)
    lesson = SimpleNamespace(stem="04_four_methods", number="04")
    values = {"dataset": "surrogate", "keep_runs": True}
    plan = SimpleNamespace(
        lesson=lesson, profile="converged", parameters=values, dataset=values["dataset"], results=tmp_path / "results"
    )
    with pytest.raises(
        LessonError, match=r"1 of 2 units are not whole, first of all method-3-seed0: crossfunc units 04"
    ):
        book_kept.check_units(plan)
    states.pop()
    book_kept.check_units(plan)
    plan.parameters = {"dataset": "surrogate"}  # a lesson that keeps no runs has none to count
    states.append(UnitState("x", "waiting", 0, None, 0.0))
    book_kept.check_units(plan)
    plan.parameters = values
    lesson.stem = "05_gradient_diagnostics"  # not made of units
    book_kept.check_units(plan)


def test_table_1_has_all_six_columns_with_the_papers_numbers(tmp_path):
    def find(_root, _profile, lesson):
        keys = {"04_four_methods": ("energy", "force", "magmom"), "06_hull_workflow": ("decomposition", "formation")}
        rows = [
            {"key": f"{q}_mae_method_{k}", "value": 10.0 * k, "interval": None, "unit": "x", "paper": 1.0 * k}
            for q in keys[lesson]
            for k in (1, 2, 3, 4)
        ]
        return {"DFT" if lesson.startswith("04") else "surrogate": {"results": rows}}

    rows = [
        tuple(cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row)
        for row in book_claims.table_1_rows(tmp_path, "p", "DFT", find)
    ]
    last, lowest = "40<br>[4]", "**10**<br>[**1**]"
    assert rows[3] == ("4 transfer, refitted", last, last, "—", last, "—", "—")
    assert rows[0] == ("1 from scratch", lowest, lowest, "—", lowest, "—", "—")
    rows = book_claims.table_1_rows(tmp_path, "p", "surrogate", find)
    assert [len(row) for row in rows] == [7] * 4
    assert [cell == "—" for cell in rows[3][1:]] == [True] * 4 + [False] * 2


def test_the_lowest_error_of_a_column_is_marked_and_what_its_interval_cannot_tell_from_it():
    low, near, far = ({"value": v, "interval": i} for v, i in ((10, [8, 12]), (13, [11.5, 15]), (30, [20, 40])))
    assert book_claims.best_of([far, None, near, low]) == [near, low]
    bare = [
        {"value": v, "interval": None, "unit": "eV", "paper": p} for v, p in ((2.0, 5.0), (1.0, None), (3.0, "n/a"))
    ]
    assert book_claims.best_of(bare) == [bare[1]]
    assert book_claims.best_of([None, None]) == []
    cells = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in book_claims._marked([bare[0], None, bare[1]])]
    assert cells == ["2<br>[**5**]", "—", "**1**<br>[—]"]
    wide = {"value": 200.0, "interval": [160.0, 220.0], "unit": "", "paper": 45.0}
    (cell,) = book_claims._marked([wide])
    assert cell.replace("\N{NO-BREAK SPACE}", " ") == "**200**<br>(160 to 220)<br>[**45**]"


# --- the page of claims ---


def claims_checkout(folder, rule, interval=None, **changes):
    """A checkout with one result and one claim about it."""
    (folder / "book").mkdir()
    claim = {"claim": "They agree.", "where": "Fig. 9", "result": "01_x:r", "holds": rule, "limits": "Not much."}
    (folder / "book" / "claims.yml").write_text(yaml.safe_dump([claim | changes]))
    results_file(folder, interval=interval)
    return folder


@pytest.mark.parametrize(
    ("rule", "interval", "verdict"),
    [
        ("< 0.6", [0.4, 0.55], "holds"),
        ("< 0.6", None, "unclear"),  # nothing says how far another draw would be
        ("< 0.6", [0.4, 0.7], "unclear"),
        ("> 0.6", [0.4, 0.7], "unclear"),
        ("> 0.6", [0.4, 0.55], "does not hold here"),
        ("= 8", [8, 8], "holds"),
        ("= 8", [6, 8], "unclear"),
        ("= 8", [6, 9], "unclear"),
        ("= 8", [0.4, 0.7], "does not hold here"),
        ("= 8", None, "unclear"),
        ("± 0.6", [0.4, 0.55], "holds"),
        ("± 0.6", [-0.7, 0.55], "unclear"),
        ("± 0.6", [-0.7, 0.7], "unclear"),
        ("± 0.6", [0.65, 0.7], "does not hold here"),
        ("± 0.6", [-0.9, -0.7], "does not hold here"),
    ],
)
def test_the_verdict_follows_from_the_rule_and_the_interval(tmp_path, rule, interval, verdict):
    verdicts, [row] = book_claims.summary_rows(claims_checkout(tmp_path, rule, interval), "p")
    assert verdicts == {"DFT": [], "surrogate": [verdict], "teacher": [], "other": []}
    assert row[0] == "They agree. (Fig. 9)"
    assert row[3] == "—"
    assert row[4].startswith(f"**{verdict}**: 0.5")
    assert row[5] == "Not much."  # labels are those of a network


@pytest.mark.parametrize(
    ("need", "is_met"),
    [("r > 0.3", True), ("r > 0.45", False), ("r < r", False), ("gone > 0", False), ("r < gone", False)],
)
def test_a_run_that_did_not_get_far_enough_leaves_a_claim_unclear_and_says_why(tmp_path, need, is_met):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55], needs={need: "too short"})
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert verdicts["surrogate"] == ["holds" if is_met else "unclear"]
    why = "because an older run did not record gone" if "gone" in need else "too short"
    assert row[4].startswith("**holds**: 0.5" if is_met else f"**unclear**, {why}: 0.5")


def test_what_a_short_run_cannot_say_is_not_said_beside_one_in_which_every_method_arrived(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55], short="Decided by few steps.")
    assert book_claims.summary_rows(root, "p")[1][0][5] == "Decided by few steps. Not much."
    keep_beside(root, "converged-surrogate", "model, CHGNet", "surrogate")
    row = book_claims.summary_rows(root, "p")[1][0]
    assert "`surrogate`, converged" in row[4]
    assert row[5] == "Not much."


@pytest.mark.parametrize(
    ("kept", "fall", "said"),
    [("converged-surrogate", 4.9, "converged"), ("converged", 5.1, "longer run"), ("dft", 5.1, "")],
)
def test_a_long_run_with_a_method_that_still_falls_is_not_called_converged(kept, fall, said):
    rows = [{"key": "energy", "value": 50.0}, {"key": "last_fifth_method_3", "value": fall}]
    assert verdicts_by_rule.how_far({"kept": kept, "results": rows}) == said
    assert verdicts_by_rule.how_far({"kept": kept, "results": rows[:1]}) == said.replace("longer run", "converged")


def test_no_limit_that_stands_beside_any_run_speaks_of_the_steps_of_a_short_one(root):
    never_long = ("06_hull_workflow",)  # no profile runs it until every method has arrived
    for claim in book_claims.read_claims(root):
        if claim["result"].partition(":")[0] not in never_long:
            assert not re.search(r"step|budget|this page|short|learned no", claim["limits"]), claim["claim"]


def test_a_need_that_is_no_rule_stops_the_build(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55], needs={"r about 3": "too short"})
    with pytest.raises(ExtensionError, match="mend needs"):
        book_claims.read_claims(root)


def test_the_order_of_methods_has_an_equals_sign_where_a_difference_is_unclear():
    rows = [
        {"key": f"energy_mae_method_{k}", "value": v, "paper": p}
        for k, v, p in zip("1234", (30.0, 20.0, 21.0, 10.0), (27, 26, 26, 17), strict=True)
    ]
    assert book_claims.order_of_methods({"results": rows}, "energy") == "4 ? 2 ? 3 ? 1"
    differences = {"energy_4_minus_2": [-12, -8], "energy_3_minus_2": [-1, 3], "energy_3_minus_1": None}
    rows += [{"key": key, "interval": ends} for key, ends in differences.items()]
    assert book_claims.order_of_methods({"results": rows}, "energy") == "4 < 2 = 3 = 1"
    assert book_claims.order_in_paper({"results": rows}, "energy") == "4 < 2 = 3 < 1"
    assert book_claims.order_of_methods({"results": rows}, "magmom") == "—"
    assert book_claims.order_in_paper({"results": rows}, "magmom") == "—"


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, "agrees", "clear and as in the paper: 4 < 2, 4 < 3, 4 < 1, 2 < 1, 3 < 1"),
        (
            {"energy_3_minus_1": [-5, 1]},
            "unclear",
            "clear and as in the paper: 4 < 2, 4 < 3, 4 < 1, 2 < 1; unclear: 3 < 1",
        ),
        ({"energy_3_minus_1": None}, "unclear", "unclear: 3 < 1"),
        ({"energy_3_minus_1": "gone"}, "unclear", "unclear: 3 < 1"),
        ({"energy_1_minus_2": [-4, -1], "energy_2_minus_1": "gone"}, "contradicts", "the other way round: 1 < 2"),
        ({"energy_3_minus_2": [5, 9]}, "agrees", "2 < 1, 3 < 1"),  # equal numbers in the paper say nothing
    ],
)
def test_the_papers_order_is_judged_by_the_paired_differences_of_all_methods(changes, verdict, said):
    rows = [
        {"key": f"energy_mae_method_{k}", "value": 9.0, "interval": None, "paper": p}
        for k, p in zip("1234", (27, 26, 26, 17), strict=True)
    ]
    gaps = {f"energy_{a}_minus_{b}": [-4, -1] for a, b in ("43", "42", "41", "31", "21")} | changes
    rows += [{"key": key, "value": 0.0, "interval": ends} for key, ends in gaps.items() if ends != "gone"]
    found, pairs = book_claims.order_verdict({"results": rows}, "energy")
    assert found == verdict
    assert said in pairs
    assert book_claims.order_verdict({"results": rows}, "magmom") == ("", "")
    early = {"result": "04_x:energy_2_minus_1", "needs": {"steps > 9": "too few"}}
    if verdict == "agrees":  # a run that is too short for a claim decides nothing about its pair
        found, pairs = book_claims.order_verdict({"results": rows}, "energy", [early])
        assert (found, pairs.partition("; ")[2]) == ("unclear", "unclear: 2 < 1")
        trained = {"key": "train_energy_mae_method_2", "value": 30.0, "interval": None}
        unfitted = {"result": "04_x:energy_2_minus_1", "needs": {"train_energy_mae_method_2 < 20": "not fitted"}}
        found, pairs = book_claims.order_verdict({"results": [*rows, trained]}, "energy", [unfitted])
        assert found == "unclear"
        assert pairs.count("2") == pairs.partition("unclear: ")[2].count("2") > 1  # no pair with it is decided
        fitted = trained | {"value": 10.0}
        assert book_claims.order_verdict({"results": [*rows, fitted]}, "energy", [unfitted])[0] == "agrees"
        of_forces = unfitted | {"result": "04_x:force_2_minus_1"}
        assert book_claims.order_verdict({"results": [*rows, trained]}, "energy", [of_forces])[0] == "agrees"


def test_every_column_of_table_1_has_an_order_and_a_verdict_on_each_kind_of_labels():
    def rows_of(quantities):
        return [
            *({"key": f"{q}_mae_method_{k}", "value": float(k), "paper": float(k)} for q in quantities for k in "1234"),
            *({"key": f"{q}_{a}_minus_{b}", "interval": [1, 2]} for q in quantities for a, b in ("43", "32", "21")),
        ]

    of_lessons = {
        "04_four_methods": {"DFT": ("energy", "force", "stress"), "surrogate": ("energy", "force", "stress", "magmom")},
        "06_hull_workflow": {"surrogate": ("decomposition", "formation")},
    }

    def find(_root, _profile, lesson):
        return {kind: {"results": rows_of(quantities)} for kind, quantities in of_lessons[lesson].items()}

    rows, kinds = book_claims.order_rows(None, "p", find, claims=[])
    assert kinds == ["DFT", "surrogate"]
    assert [row[0] for row in rows] == [name for name, *_ in book_claims.TABLE_1]
    assert all(row[1] == "1 < 2 < 3 < 4" for row in rows)
    assert rows[0][2].startswith("1 < 2 < 3 < 4<br>**unclear**; clear and as in the paper: 1 < 2, 2 < 3, 3 < 4")
    assert [row[2] for row in rows[3:]] == ["—"] * 3  # neither moments nor hulls of these labels
    assert all("**unclear**" in row[3] for row in rows)


def test_claims_of_others_stand_in_a_table_of_their_own(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55], by="others", where="arXiv:1234.56789")
    verdicts, rows = book_claims.summary_rows(root, "p")
    text = "\n".join(book_claims.summary_tables(book_claims.read_claims(root), rows))
    assert verdicts["surrogate"] == ["holds"]
    assert "Claims of others" in text
    assert "They agree. (arXiv:1234.56789)" in text
    assert "Claims of the paper" not in text  # no table without a row


def keep_beside(root, name="dft", labelled_by="DFT, GPAW", dataset="pbe-r2scan", **changes):
    """A kept run of the same lesson, on other labels."""
    content = json.loads((root / "build" / "p" / "results" / "01_x.json").read_text())
    content["results"][0] |= changes
    content |= {"labelled_by": labelled_by, "dataset": dataset}
    folder = root / "book" / "kept" / name
    folder.mkdir(parents=True)
    (folder / "01_x.json").write_text(json.dumps(content))


def test_each_kind_of_labels_has_a_verdict_of_its_own_run(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55])
    keep_beside(root, value=0.7, interval=[0.65, 0.75])
    verdicts, [row] = book_claims.summary_rows(root, "p")
    keep_beside(root, "sevennet", "model, SevenNet-MF-0", "surrogate-sevennet", interval=[0.5, 0.8])
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert verdicts == {"DFT": ["does not hold here"], "surrogate": ["holds"], "teacher": ["unclear"], "other": []}
    assert row[3] == "**does not hold here**: 0.70 ± 0.05 (`pbe-r2scan`)"
    of_surrogate, of_another = row[4].split("<br>")
    assert of_surrogate.startswith("**holds**: 0.5")
    assert of_another.startswith("**unclear**: 0.5")
    assert of_another.endswith("(`surrogate-sevennet`)")


def test_a_kept_run_that_is_older_than_a_claim_is_passed_over(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55])
    keep_beside(root, "converged-surrogate", "model, CHGNet", "surrogate", key="another")
    keep_beside(root, key="another")
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert verdicts["surrogate"] == ["holds"]
    assert "converged" not in row[4]
    assert (verdicts["DFT"], row[3]) == ([], "—")
    assert book_claims.verdicts_in_both(root, "p") == []


@pytest.mark.parametrize(
    ("on_dft", "said"),
    [
        ([0.65, 0.75], "Of 1 claims that both kinds of labels judge, 1 has another verdict on DFT than on surrogate"),
        ([0.5, 0.75], "and in none of these DFT contradicts them."),
        ([0.41, 0.52], "DFT gives all 1 claims that both kinds of labels judge the verdict of surrogate labels."),
    ],
)
def test_the_page_says_where_dft_contradicts_the_surrogate(tmp_path, on_dft, said):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55])
    assert book_claims.differences_in_words(book_claims.verdicts_in_both(root, "p")) == []  # on one kind only
    keep_beside(root, interval=on_dft)
    lines = book_claims.differences_in_words(book_claims.verdicts_in_both(root, "p"))
    assert said in lines[0]
    if on_dft[0] > 0.6:
        assert "in 1 of these DFT contradicts them" in lines[0]
        assert lines[-1] == "- They agree. (Fig. 9): **does not hold here** on DFT, *holds* on surrogate labels."


def test_claims_that_dft_contradicts_come_before_those_it_leaves_open():
    claim = {"claim": "A.", "where": "Fig. 1"}
    both = [
        (claim, "unclear", "holds"),
        (claim, "holds", "holds"),
        (claim | {"claim": "B."}, "holds", "does not hold here"),
    ]
    lines = book_claims.differences_in_words(both)
    assert "Of 3 claims" in lines[0]
    assert [line[2] for line in lines if line.startswith("- ")] == ["B", "A"]
    assert lines.index(":class: dropdown") == 5  # between the two: only contradictions are seen at once


def test_a_claim_that_one_kind_of_labels_cannot_judge_is_judged_on_the_other(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55], only="DFT")
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert (verdicts["surrogate"], row[3], row[4]) == ([], "—", "—")
    keep_beside(root, interval=[0.4, 0.55])
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert (verdicts["DFT"], verdicts["surrogate"], *row[4:]) == (["holds"], [], "—", "—")


KEPT_FOR_CLAIMS = {
    "surrogate": ("surrogate", {"03", "04", "05", "07", "09"}),
    "sevennet": ("teacher", {"03", "04", "05", "07", "09"}),
    "converged": ("DFT", {"04", "04b", "07", "09"}),
    "converged-surrogate": ("surrogate", {"04", "04b", "07"}),
    "dft": ("DFT", {"02", "06"}),
}
OLDER: dict[tuple[str, str], set[str]] = {}
"""What kept runs are too old to have recorded: empty, and to be emptied where a new key makes it otherwise."""


@pytest.mark.parametrize("profile", KEPT_FOR_CLAIMS)
def test_kept_runs_have_all_that_the_claims_ask_of_them(root, profile):
    kind, wanted = KEPT_FOR_CLAIMS[profile]
    kept = {path.name.removesuffix(".run.json") for path in book_kept.kept_folder(root, profile).glob("*.run.json")}
    assert {lesson.partition("_")[0] for lesson in kept} >= wanted
    for lesson in kept:
        content = book_results.read_results(root, None, lesson, kept=profile)
        assert verdicts_by_rule.kind_of(content) == kind
        claims = [c for c in book_claims.read_claims(root) if c["result"].partition(":")[0] == lesson]
        asked = {key for c in claims if c.get("only", kind) == kind for key in verdicts_by_rule.keys_of(c)}
        lacking = asked - {row["key"] for row in content["results"]}
        assert lacking == OLDER.get((profile, lesson), set()), f"{profile}: {lesson}"


def claim_on(root, result):
    (claim,) = [claim for claim in book_claims.read_claims(root) if claim["result"] == result]
    return claim


@pytest.mark.parametrize("profile", ["surrogate", "sevennet"])
def test_transfer_above_what_costs_nothing_does_not_beat_scratch(root, profile):
    claim = claim_on(root, "07_scaling_laws:energy_scratch_minus_transfer")
    content = book_results.read_results(root, None, "07_scaling_laws", kept=profile)
    assert book_claims.judged(claim | {"needs": {}}, content)[0] == "holds"  # and scratch is far behind
    verdict, cell = book_claims.judged(claim, content)
    assert (verdict, cell.split(":")[0]) == ("unclear", f"**unclear**, {next(iter(claim['needs'].values()))}")
    low = {"value": 1.0, "interval": [0.5, 1.5]}
    rows = [row | (low if row["key"] == "energy_largest_transfer" else {}) for row in content["results"]]
    assert book_claims.judged(claim, content | {"results": rows})[0] == "holds"


@pytest.mark.parametrize("other", "234")
def test_no_energy_is_held_against_scratch_before_it_has_fitted_its_training_energies(root, other):
    claim = claim_on(root, f"04_four_methods:energy_{other}_minus_1")
    content = book_results.read_results(root, None, "04_four_methods", kept="converged")
    assert book_claims.unmet_need(claim, content) == ""
    early = {"value": 300.0, "interval": [250.0, 350.0]}
    rows = [row | (early if row["key"] == "train_energy_mae_method_1" else {}) for row in content["results"]]
    why = "Method 1 has not come down to its own training energies"
    assert book_claims.unmet_need(claim, content | {"results": rows}) == why
    late = [row | (early if row["key"].startswith("train_energy_mae_method_") else {}) for row in content["results"]]
    neither = book_claims.unmet_need(claim, content | {"results": late})
    if other == "4":
        assert neither == why  # of Method 4 the claim asks nothing
    else:
        assert neither == f"neither Method {other} nor Method 1 has come down to its own training energies"


def test_every_profile_that_the_claims_read_is_held_to_their_keys(root):
    read = {*verdicts_by_rule.CONVERGED, *verdicts_by_rule.OTHER_LABELS}
    there = {path.name for path in (root / verdicts_by_rule.KEPT).iterdir()}
    assert read & there <= set(KEPT_FOR_CLAIMS)
    assert set(verdicts_by_rule.CONVERGED) <= set(KEPT_FOR_CLAIMS)


def test_all_that_needs_real_crystals_is_kept_for_builds_without_them(root):
    """Every number that lessons 3 and 4 record where the Materials Project's crystals are at hand."""
    declared = yaml.safe_load((ROOT / "notebooks" / "results.yml").read_text(encoding="utf-8"))
    wanted = {(lesson, key) for lesson, rows in declared.items() for key in rows if key.startswith("real_")}
    kept = {
        (lesson, row["key"])
        for lesson in {lesson for lesson, _ in wanted}
        for row in book_results.read_results(root, None, lesson, kept="real")["results"]
    }
    assert wanted <= kept
    page = (ROOT / "book" / "claims.md").read_text(encoding="utf-8")
    assert all(f"{lesson}:{key}@real" in page for lesson, key in wanted)


def test_labels_of_unknown_origin_are_not_called_dft(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55])
    path = root / "build" / "p" / "results" / "01_x.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labelled_by": ""}))
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert verdicts["other"] == ["holds"]
    assert row[3].endswith("labels of unknown origin")


def test_a_claim_may_compare_two_results_and_knows_both_intervals():
    rows = {"a": {"value": 1.0, "interval": [0.9, 1.1]}, "b": {"value": 2.0, "interval": [1.05, 3.0]}}
    assert verdicts_by_rule.judge(rows["a"], "< b", rows.get) == "unclear"  # 1.1 is not below 1.05
    rows["b"]["interval"] = [1.5, 3.0]
    assert verdicts_by_rule.judge(rows["a"], "< b", rows.get) == "holds"
    assert verdicts_by_rule.judge(rows["a"], "> b", rows.get) == "does not hold here"
    rows["b"]["interval"] = None  # one seed: no verdict at all
    assert verdicts_by_rule.judge(rows["a"], "< b", rows.get) == "unclear"


def test_verdicts_are_counted_in_words():
    assert book_claims.count_verdicts(["holds", "unclear", "holds"]) == "2 hold, 1 is unclear"
    assert book_claims.count_verdicts(["does not hold here"]) == "1 does not hold here"


def test_a_changed_result_changes_the_verdict_and_the_number(tmp_path):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55])
    path = root / "build" / "p" / "results" / "01_x.json"
    changed = json.loads(path.read_text())
    changed["results"][0] |= {"value": 0.875, "interval": [0.8, 0.95]}
    path.write_text(json.dumps(changed))
    verdicts, [row] = book_claims.summary_rows(root, "p")
    assert verdicts["surrogate"] == ["does not hold here"]
    assert ": 0.88 ± 0.07 " in row[4]


def test_a_results_file_is_read_once_for_all_claims_and_again_when_it_changes(tmp_path, monkeypatch):
    root = claims_checkout(tmp_path, "< 0.6", [0.4, 0.55])
    claims = book_claims.read_claims(root) * 5
    (root / "book" / "claims.yml").write_text(yaml.safe_dump(claims))
    opened, load = [], lessons.load_results
    monkeypatch.setattr(lessons, "load_results", lambda *given: opened.append(given) or load(*given))
    assert len(book_claims.summary_rows(root, "p")[1]) == 5
    assert len(opened) == 1
    path = root / "build" / "p" / "results" / "01_x.json"
    path.write_text(path.read_text().replace('"value": 0.5', '"value": 0.54'))
    assert ": 0.5" in book_claims.summary_rows(root, "p")[1][0][4]
    assert book_results.read_results(root, "p", "01_x")["results"][0]["value"] == 0.54
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"result": "02_y:r"}, r"02_y\.json: the results file is missing"),
        ({"result": "01_x:slope"}, "has no result 'slope'; it has: r"),
        ({"holds": "< slope"}, "has no result 'slope'; it has: r"),
        ({"holds": "about right"}, "'They agree.': mend holds"),
        ({"by": "somebody"}, "'They agree.': mend by"),
    ],
)
def test_a_claim_without_its_number_or_rule_stops_the_build(tmp_path, changes, message):
    with pytest.raises(ExtensionError, match=message):
        book_claims.summary_rows(claims_checkout(tmp_path, "< 0.6", **changes), "p")


def test_another_students_table_has_intervals_and_verdicts():
    def run(method, seed, energy):
        errors = {"energy": energy, "forces": [30.0] * 6, "stress": [0.5] * 6}
        about = {"student": "N", "dataset": "d", "label_notice": "made up", "settings": {"n_steps": 9, "batch_size": 2}}
        zero = {"forces": [70.0] * 6, "stress": [0.9] * 6}
        about |= {"method": method, "seed": seed, "errors": errors, "errors_of_zero": zero}
        return about | {"material_ids": list("abcdef")}

    low, high = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], [11.0, 12.0, 13.0, 12.0, 11.0, 12.0]
    runs = {"3": [run("3", k, high) for k in range(2)], "4": [run("4", k, low) for k in range(2)]}
    text = "\n".join(book_students.student_lines(runs))
    assert "predicting zero\n  - —\n  - 70 (70 to 70)\n  - 0.9 (0.9 to 0.9)" in text
    assert "Method 4: trained, references refitted to the labels\n  - 1.5 (" in text
    assert "Method 4 less Method 3\n  - **lower**: −10.3 (−" in text
    assert "**unclear**: 0 (0 to 0)" in text
    assert book_students._number(4853.7) == "4,854"
    assert "2 seeds, 9 steps of 2 frames" in text
    assert book_students.not_made("d") == "Not measured: no run on `d` is kept yet."


def test_the_answer_for_another_network_follows_its_paired_differences():
    def of(*verdicts):
        return {t: SimpleNamespace(verdict=v) for t, v in zip(("energy", "forces", "stress"), verdicts, strict=True)}

    made = {("4", "3"): of("lower", "higher", "unclear"), ("model-aware", "4"): of("lower", "lower", "lower")}
    assert book_students.answer(made) == (
        "Against frozen references (Method 3), refitted ones (Method 4) end lower in energy, higher in forces and "
        "unclear in stress. Against Method 4, training from model-aware references ends lower in energy, lower in "
        "forces and lower in stress."
    )


# --- what rerunners read ---


def test_the_lessons_that_a_gpu_helps_are_those_that_train():
    from crossfunc.lessons.sources import own_lessons

    lessons = own_lessons().glob("[0-9]*.py")
    trains = sorted({int(path.name[:2]) for path in lessons if "\nbatch_size" in path.read_text(encoding="utf-8")})
    page = (ROOT / "book" / "rerun.md").read_text(encoding="utf-8")
    first, last = map(int, re.search(r"Lessons (\d+) to (\d+) train and profit", page).groups())
    assert trains == list(range(first, last + 1))


def test_every_dataset_of_the_package_has_a_heading_on_the_page_of_datasets():
    page = (ROOT / "book" / "datasets.md").read_text(encoding="utf-8")
    packaged = ROOT / "src" / "crossfunc" / "datasets" / "packaged"
    names = {path.name for path in packaged.iterdir() if (path / "dataset.json").is_file()}
    assert set(re.findall(r"^## .*: `([\w-]+)`$", page, re.MULTILINE)) == names
    (said,) = re.findall(r"^Three datasets come with the book.*: (.*)\.$", page, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", said)) == names


def test_each_parameter_has_its_meaning_range_default_and_the_values_of_profiles_that_differ(tmp_path):
    from crossfunc.lessons.profiles import Profile
    from crossfunc.lessons.sources import Lesson

    path = tmp_path / "01_x.py"
    path.write_text('# %% tags=["parameters"]\nfmax = 0.05  # relax until then, eV/Å\nresults_dir = None  # a folder\n')
    (tmp_path / "parameters.yml").write_text("fmax: {above: 0, time: shrinks}")
    profiles = [Profile("laptop"), Profile("smoke", lessons={"01_x": {"fmax": 1.0}}), Profile("gpu")]
    assert book_rerun.parameter_rows(Lesson(path), profiles) == [
        ("`fmax`", "relax until then, eV/Å", "float, above 0", "`0.05`", "smoke `1.0`", "shrinks"),
        ("`results_dir`", "a folder", "folder", "set by the runner", "", "none"),
    ]
    path.write_text('# %% tags=["parameters"]\nfmax = 0.05\n')
    with pytest.raises(ExtensionError, match="`fmax` has no comment that says what it is"):
        book_rerun.parameter_rows(Lesson(path), profiles)


def test_the_goal_box_says_how_long_the_lesson_took():
    cells = [{"cell_type": "markdown", "source": "**Paper**: Fig. 1. **Run time**: ten seconds.\n:::"}]
    timings = {"01_x": {"seconds": 130.2, "cores": 2, "jobs": 1}}
    book_files.with_measured_time(cells, "01_x", timings, "smoke")
    expected = "**Run time**: 2 min 10 s on 2 cores (profile smoke, when this book was made)."
    assert cells[0]["source"] == f"**Paper**: Fig. 1. {expected}\n:::"
    with pytest.raises(ExtensionError, match="02_y: its goal box has no"):
        book_files.with_measured_time([{"cell_type": "markdown", "source": "# Title"}], "02_y", timings, "smoke")
    with pytest.raises(ExtensionError, match="02_y: no time is known"):
        book_files.time_text("02_y", timings, "smoke")


def test_pictures_are_loaded_when_the_reader_comes_near_and_the_logo_at_once():
    page = '<img alt="logo" src="_static/logo.svg"/><img alt="A plot." src="../_images/a.png" />'
    lazy = '<img loading="lazy" alt="A plot." src="../_images/a.png" />'
    assert book_finish.finish_page(page) == '<img alt="logo" src="_static/logo.svg"/>' + lazy


def test_pages_keep_one_set_of_icons_and_a_bibliography_is_a_list():
    page = (
        '<link rel="preload" as="font" type="font/woff2" crossorigin href="_static/vendor/fontawesome/6/w/s.woff2" />'
        '<script src="../_static/vendor/fontawesome/6.5.2/js/all.min.js?digest=1"></script><script src="a.js"></script>'
        '<div role="list"><div role="doc-biblioentry">A paper</div></div>'
    )
    kept = '<script src="a.js"></script><div role="list"><div role="listitem">A paper</div></div>'
    assert book_finish.finish_page(page) == kept


def test_binder_installs_what_environment_yml_lists():
    here, binder = (
        yaml.safe_load((ROOT / folder / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
        for folder in (".", ".binder")
    )
    assert binder[0] == "python=3.12"  # repo2docker ignores a range and takes its own default
    assert binder[1] == here[1] == "pip"
    constraints, package = here[2]["pip"]
    assert binder[2]["pip"] == [constraints.replace("-c ", "-c ../"), package.replace("-e .", "-e ..")]
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)


# --- the build ---


def build(root):
    command = [sys.executable, str(ROOT / "book" / "build.py"), "--profile", "smoke", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | SECRETS)


@pytest.fixture(scope="session")
def site(smoke_run, root):
    """Folder of the smoke book, built strictly from lessons executed just now."""
    done = build(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return smoke_run / "html"


@pytest.fixture
def checkout(smoke_run, root, tmp_path):
    """What the build reads, in a place where it may be broken."""
    for name in ("book", "notebooks"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "CHANGELOG.md"):
        shutil.copy2(root / name, tmp_path / name)
    for name in ("notebooks", "results"):
        shutil.copytree(smoke_run / name, tmp_path / "build" / "smoke" / name)
    shutil.copy2(smoke_run / "timings.json", tmp_path / "build" / "smoke")
    assert book_fresh.complaint(tmp_path, "smoke") is None  # whatever fails below, fails for its own reason
    return tmp_path


def edit_source(root):
    source = root / "notebooks" / f"{LESSONS[0]}.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# %%\nseed\n", encoding="utf-8")


def remove_notebook(root):
    (root / "build" / "smoke" / "notebooks" / f"{LESSONS[0]}.ipynb").unlink()


def fail_last_cell(root):
    path = root / "build" / "smoke" / "notebooks" / f"{LESSONS[0]}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    last = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][-1]
    last["outputs"] = [{"output_type": "error", "ename": "AssertionError", "evalue": "r is 0.1", "traceback": []}]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def edit_results(root):
    path = root / "build" / "smoke" / "results" / f"{LESSONS[0]}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"value": ', '"value": 1'), encoding="utf-8")


def forget_lesson(root):
    toc = root / "book" / "_toc.yml"
    toc.write_text(toc.read_text(encoding="utf-8").replace(f"      - file: notebooks/{LESSONS[0]}\n", ""))


@pytest.mark.book
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edit_source, "stale"),
        (remove_notebook, "missing"),
        (fail_last_cell, "AssertionError: r is 0.1"),
        (edit_results, "stale"),
        (forget_lesson, "book/_toc.yml does not list it"),
    ],
)
def test_a_book_is_not_built_from_lessons_that_are_not_fit_to_print(checkout, damage, reason):
    damage(checkout)
    done = build(checkout)
    assert done.returncode != 0
    assert LESSONS[0] in done.stderr
    assert reason in done.stderr
    assert not (checkout / "build" / "smoke" / "html").exists()
    # Sphinx itself refuses as well, however it is started.
    config = SimpleNamespace(crossfunc_root=str(checkout), crossfunc_profile="smoke")
    with pytest.raises(ExtensionError, match="not fit to print"):
        book_fresh.refuse_stale(None, config)


def test_a_build_that_bypasses_the_staging_is_refused():
    with pytest.raises(ExtensionError, match="make book"):
        book_fresh.refuse_stale(None, SimpleNamespace(crossfunc_root="", crossfunc_profile=""))


@pytest.mark.book
def test_every_broken_reference_fails_the_strict_build(checkout):
    page = checkout / "book" / "rerun.md"
    broken = [
        *("{term}`no such term`", "{cite:p}`nobody1900`", "{numref}`fig-none`", "[a link](nowhere.md)"),
        "{py:func}`crossfunc.no_such_function`",
    ]
    page.write_text("\n\n".join([page.read_text(encoding="utf-8"), *broken]), encoding="utf-8")
    done = build(checkout)
    assert done.returncode != 0
    named = ("no such term", "nobody1900", "fig-none", "nowhere.md", "crossfunc.no_such_function")
    assert [name for name in named if name not in done.stderr] == []
    assert not (checkout / "build" / "smoke" / "html").exists()


@pytest.mark.book
def test_the_smoke_book_leaves_the_readers_book_alone(site, root):
    assert site == book_build.site(root, "smoke")
    assert site != book_build.site(root, "laptop") == root / "build" / "html"


@pytest.mark.book
def test_every_page_of_the_table_of_contents_is_built(site):
    assert [page for page in PAGES if not (site / f"{page}.html").is_file()] == []


@pytest.mark.book
def test_each_lesson_offers_its_source_its_notebook_and_its_results(site, smoke_run, root):
    from bs4 import BeautifulSoup

    for lesson in LESSONS:
        page = site / "notebooks" / f"{lesson}.html"
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        offered = {Path(link["href"]).name: page.parent / link["href"] for link in soup.select("a.download")}
        sources = [root / "notebooks" / f"{lesson}.py", smoke_run / "notebooks" / f"{lesson}.ipynb"]
        for file in [*sources, smoke_run / "results" / f"{lesson}.json"]:
            assert offered[file.name].read_bytes() == file.read_bytes()


@pytest.mark.book
def test_the_page_of_claims_shows_the_numbers_of_this_build(site, smoke_run, root):
    text = (site / "claims.html").read_text(encoding="utf-8")
    verdicts, rows = book_claims.summary_rows(root, "smoke")
    assert len(rows) >= 10
    assert verdicts["DFT"]
    assert verdicts["surrogate"]
    assert verdicts["teacher"]
    cells = [one for row in rows for cell in row[3:5] for one in cell.split("<br>") if one != "—"]
    for cell in cells:
        verdict, because, number = re.fullmatch(r"\*\*(.+?)\*\*(?:, (.+?))?: (.+)", cell).groups()
        assert verdict in text
        assert (because or "") in text
        assert number.split()[0] in text


@pytest.mark.book
def test_internal_links_lead_to_pages_and_places_that_exist(site):
    from bs4 import BeautifulSoup

    soups = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.rglob("*.html")}
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        for link in soup.find_all("a", href=True):
            target, anchor = urldefrag(urljoin(path.as_uri(), link["href"]))
            if urlsplit(target).scheme != "file":
                continue
            file = Path(unquote(urlsplit(target).path))
            if not file.is_file() or (anchor and file in anchors and unquote(anchor) not in anchors[file]):
                broken.append(f"{path.relative_to(site)}: {link['href']}")
    assert broken == []


@pytest.mark.book
def test_keys_tokens_and_folders_of_the_user_are_in_nothing_that_is_written(site, smoke_run, root):
    words = (*SECRETS.values(), "pAsSwOrD42", f"{root}/", f"{Path.home()}/", f"{Path(sys.prefix)}/")
    found = []
    for path in smoke_run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [f"{path.relative_to(smoke_run)}: {word}" for word in words if word.encode() in content]
    assert found == []


@pytest.mark.book
def test_no_directive_is_left_as_text(site):
    from bs4 import BeautifulSoup

    left, found = re.compile(r"(```|~~~|:::)\{"), []
    for path in site.rglob("*.html"):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for code in soup.find_all(["pre", "code"]):  # where a page explains how to write one
            code.decompose()
        found += [f"{path.relative_to(site)}: {line}" for line in soup.get_text().splitlines() if left.search(line)]
    assert found == []


@pytest.mark.book
def test_every_lesson_page_says_what_its_labels_are(site, smoke_run):
    for lesson in LESSONS:
        notice = json.loads((smoke_run / "results" / f"{lesson}.json").read_text(encoding="utf-8"))["label_notice"]
        assert notice in (site / "notebooks" / f"{lesson}.html").read_text(encoding="utf-8")


# --- in a browser ---


READY = """
const done = arguments[arguments.length - 1];
const images = [...document.images];
const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
(async () => {
  if (window.MathJax && MathJax.startup) { await MathJax.startup.promise; }
  if (document.fonts) { await document.fonts.ready; }
  if (arguments[0]) {  // as a reader who goes to the end of the page
    images.forEach(image => { image.loading = 'eager'; });
    const figures = [...document.querySelectorAll('.plotly-graph-div')];
    for (const figure of figures) {
      figure.scrollIntoView({behavior: 'instant'});
      for (let i = 0; i < 400 && !figure.querySelector('.main-svg'); i++) {
        await sleep(25);
      }
    }
  }
  for (let i = 0; i < 200 && !images.every(image => image.complete || image.loading === 'lazy'); i++) {
    await sleep(25);
  }
  done(true);
})();
"""
BLANK_IMAGES = """
return [...document.images].filter(image => {
  if (!image.naturalWidth) { return true; }
  const canvas = document.createElement('canvas');
  const w = canvas.width = Math.min(image.naturalWidth, 400);
  const h = canvas.height = Math.min(image.naturalHeight, 400);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0, w, h);
  const pixels = new Uint32Array(context.getImageData(0, 0, w, h).data.buffer);
  return pixels.every(pixel => pixel === pixels[0]);
}).map(image => image.src);
"""
EMPTY_IMAGES = "return [...document.images].filter(image => !image.naturalWidth).map(image => image.src);"
SILENT_IMAGES = """
return [...document.querySelectorAll('article img')].filter(image => !image.alt).map(image => image.src).concat(
  [...document.querySelectorAll('.plotly-graph-div')].filter(f => !f.ariaLabel || f.role !== 'group').map(f => f.id));
"""
RAW_MATH = """
return [...document.querySelectorAll('.math')].filter(element => {
  const drawn = element.querySelector('mjx-container svg');
  return !drawn || drawn.getBoundingClientRect().width < 2 || element.querySelector('[data-mml-node="merror"]');
}).map(element => element.textContent.slice(0, 80));
"""

PLACE = """
arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});
const box = arguments[0].getBoundingClientRect();
return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};
"""
AXE = """
const [context, rules, done] = arguments;
axe.run(context, {resultTypes: ['violations'], preload: false, ...rules}).then(result => done(result.violations
  .filter(found => ['serious', 'critical'].includes(found.impact))
  .flatMap(found => found.nodes.map(node => `${found.id}: ${node.html.slice(0, 150)} ${node.failureSummary}`))));
"""
SETTLED = """
const [scheme, done] = arguments;
const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
(async () => {
  await sleep(400);  // the theme waits for the end of a change of size before it acts
  for (let i = 0; i < 80 && document.documentElement.dataset.theme !== scheme; i++) { await sleep(25); }
  const unreached = box => box.scrollWidth > box.clientWidth + 1 && box.tabIndex !== 0;
  for (let i = 0; i < 80 && [...document.querySelectorAll('pre')].some(unreached); i++) { await sleep(25); }
  const ended = document.getAnimations().map(animation => animation.finished.catch(() => null));
  await Promise.race([Promise.all(ended), sleep(2000)]);  // some never end, as that of a hidden element
  done(document.documentElement.dataset.theme);
})();
"""
TOO_WIDE = """
const clipped = e => e && (getComputedStyle(e).overflowX !== 'visible' || clipped(e.parentElement));
const wide = e => e.getBoundingClientRect().right > screen.width + 1 && !clipped(e.parentElement);
return [...document.querySelectorAll('article *')].filter(wide).map(e => e.outerHTML.slice(0, 120));
"""


PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
VIEWS = {
    "desktop, light": (None, "light"),
    "desktop, dark": (None, "dark"),
    "phone, dark": (PHONE, "dark"),
    "phone, light": (PHONE, "light"),
}
# All of axe's rules once; those that the colours or the width may break, in each view that has others.
COLOURS = ["color-contrast", "link-in-text-block"]
ANYTHING_ELSE = {"rules": {rule: {"enabled": False} for rule in COLOURS}}
AXE_RULES = {
    "desktop, light": [ANYTHING_ELSE, {"runOnly": COLOURS}],
    "desktop, dark": [{"runOnly": COLOURS}],
    "phone, light": [{"runOnly": ["scrollable-region-focusable"]}],
}
# Contrast is nine tenths of axe's time, and a colour is that of its rule in the style sheet: the first rows of a table
# stand for those below, the first entry of a section of the API for the others, and the code of the first lesson for
# that of the others.
COLOURED_ALIKE = ["tbody tr:nth-child(n+4)", "mjx-container", "dl.py ~ dl.py"]
CODE_ALIKE = [".cell_input"]
FIRST_LESSON = f"notebooks/{LESSONS[0]}"


def axe_context(page, rules):
    """What axe looks at for some of its rules: all of a page, but for what has the colours of something else there."""
    alike = COLOURED_ALIKE + (CODE_ALIKE if page != FIRST_LESSON else [])
    return {"include": [["html"]], "exclude": [[one] for one in alike] if rules.get("runOnly") == COLOURS else []}


FIRST_VIEW_BYTES = 1_500_000  # compressed, all files of a page together


@dataclass
class Visit:
    """What opening one page in the browser brought to light; faults that depend on the view are named with it."""

    complaints: list = field(default_factory=list)
    remote: list = field(default_factory=list)
    blank_images: list = field(default_factory=list)
    silent_images: list = field(default_factory=list)
    blank_figures: list = field(default_factory=list)
    raw_math: list = field(default_factory=list)
    too_wide: list = field(default_factory=list)
    wrong_theme: list = field(default_factory=list)
    barriers: list = field(default_factory=list)
    first_view: dict = field(default_factory=dict)
    libraries: list = field(default_factory=list)
    images: int = 0
    figures: int = 0
    equations: int = 0


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that keeps its log to itself."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    """Address of a local server of the book."""
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def logged(browser, home):
    """Return console complaints and the addresses asked for since the last look."""
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return complaints, urls


def remote(urls, home):
    """Those of the addresses that are another host's."""
    return [url for url in urls if not url.startswith((home, "data:", "blob:"))]


@functools.cache
def compressed_size(path):
    """Bytes of a file as a web server sends it: gzip, except what is compressed already."""
    content = path.read_bytes()
    return len(content) if path.suffix in {".png", ".woff2"} else len(gzip.compress(content, 6))


def weigh(urls, home, folder):
    """Compressed bytes of each file of the site that was asked for."""
    paths = {folder / unquote(urlsplit(url).path).lstrip("/") for url in urls if url.startswith(home)}
    return {path.name: compressed_size(path) for path in paths if path.is_file()}


def ink(png):
    """Share of the pixels that are not ground: an empty plot has its frame and buttons, some thousandths."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=int)
    ground = np.bincount(pixels.ravel()).argmax()
    return np.mean(np.abs(pixels - ground) > 20)


def picture(browser, element):
    """PNG of one element, as the reader sees it."""
    place = browser.execute_script(PLACE, element)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": place | {"scale": 1}})
    return base64.b64decode(shot["data"])


def shows_something(browser, element, least_ink):
    """Tell whether an element is more than its ground; on a busy machine paint may come a moment late."""
    for _ in range(5):
        if ink(picture(browser, element)) >= least_ink:
            return True
        time.sleep(0.4)
    return False


def set_view(browser, view):
    """Make the browser a desktop or a phone whose owner likes it light or dark."""
    size, scheme = VIEWS[view]
    if size:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    else:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    wish = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})
    return size, scheme


def look(browser, page, view, seen, axe):
    """Add to `seen` what is wrong with the page in one view."""
    from selenium.webdriver.common.by import By

    size, scheme = set_view(browser, view)
    if browser.execute_async_script(SETTLED, scheme) != scheme:
        seen.wrong_theme.append(view)
    browser.execute_async_script(READY, True)
    for figure in browser.find_elements(By.CSS_SELECTOR, ".plotly-graph-div"):
        if not shows_something(browser, figure, 0.01):
            seen.blank_figures.append(f"{view}: {figure.get_attribute('id')}")
    for image in browser.find_elements(By.CSS_SELECTOR, "article img"):
        if image.is_displayed() and not shows_something(browser, image, 0.001):
            seen.blank_images.append(f"{view}: {image.get_attribute('src')}")
    if size and browser.execute_script("return document.documentElement.scrollWidth") > size["width"]:
        seen.too_wide.append(f"{view}: {browser.execute_script(TOO_WIDE)}")
    for rules in AXE_RULES.get(view, ()) if axe else ():
        barriers = browser.execute_async_script(AXE, axe_context(page, rules), rules)
        seen.barriers += [f"{view}: {found}" for found in barriers]


def visit(browser, home, page, *, views=tuple(VIEWS), folder=None, axe=None):
    """Open a page, look at it in each view, and tell what was found."""
    set_view(browser, views[0])
    browser.get("about:blank")  # what the page before still had under way is none of this one's
    browser.get_log("performance")
    browser.get(f"{home}{page}.html")
    browser.execute_async_script(READY, False)
    complaints, asked = logged(browser, home)
    assert any(url.startswith(home) for url in asked), "the log of requests is empty: nothing was checked"
    seen = Visit(first_view=weigh(asked, home, folder) if folder else {})
    if axe:
        browser.execute_script(axe)
    for view in views:
        look(browser, page, view, seen, axe)
    # An image read from disk may not be put on a canvas; only that it has a size can be seen then.
    seen.blank_images += browser.execute_script(BLANK_IMAGES if home.startswith("http") else EMPTY_IMAGES)
    seen.silent_images = browser.execute_script(SILENT_IMAGES)
    seen.raw_math = browser.execute_script(RAW_MATH)
    for kind, selector in (("images", "article img"), ("figures", ".plotly-graph-div"), ("equations", ".math")):
        setattr(seen, kind, browser.execute_script(f"return document.querySelectorAll('{selector}').length"))
    later = logged(browser, home)
    seen.complaints, urls = complaints + later[0], asked + later[1]
    seen.remote = remote(urls, home)
    seen.libraries = [url for url in urls if url.split("?")[0].endswith("/plotly.min.js")]
    return seen


@pytest.fixture(scope="module")
def visits(browser, address, site):
    """Every page opened once and looked at in every view."""
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    pages = [*PAGES, "genindex", "search"]
    found = {page: visit(browser, address, page, folder=site, axe=axe) for page in pages}
    set_view(browser, next(iter(VIEWS)))
    return found


def faults(visits, kind):
    return {page: getattr(seen, kind) for page, seen in visits.items() if getattr(seen, kind)}


@pytest.mark.book
def test_no_page_complains_in_the_console(visits):
    assert faults(visits, "complaints") == {}


@pytest.mark.book
def test_no_page_asks_another_host_for_anything(visits):
    assert faults(visits, "remote") == {}


@pytest.mark.book
def test_every_image_is_there_and_not_blank(visits):
    assert faults(visits, "blank_images") == {}
    assert sum(seen.images for seen in visits.values()) >= 1 + len(LESSONS)  # the story, and one a lesson at least


@pytest.mark.book
def test_every_image_and_figure_has_alternative_text(visits):
    assert faults(visits, "silent_images") == {}


@pytest.mark.book
def test_every_interactive_figure_is_drawn(visits):
    assert faults(visits, "blank_figures") == {}
    assert sum(seen.figures for seen in visits.values()) >= 1


@pytest.mark.book
def test_all_math_is_typeset(visits):
    assert faults(visits, "raw_math") == {}
    assert visits["notation"].equations > 5


@pytest.mark.book
def test_pages_fit_a_phone(visits):
    assert faults(visits, "too_wide") == {}


@pytest.mark.book
def test_pages_are_light_or_dark_as_the_reader_likes(visits):
    assert faults(visits, "wrong_theme") == {}


@pytest.mark.book
def test_no_page_has_a_serious_barrier_for_readers_with_disabilities(visits):
    found = faults(visits, "barriers")
    assert found == {}, "\n".join(f"{page}: {line}" for page, lines in found.items() for line in lines)


@pytest.mark.book
def test_the_first_view_of_each_page_is_light(visits):
    heavy = {page: seen.first_view for page, seen in visits.items() if sum(seen.first_view.values()) > FIRST_VIEW_BYTES}
    assert heavy == {}
    assert all("index.html" in seen.first_view for page, seen in visits.items() if page == "index")


@pytest.mark.book
def test_the_library_of_interactive_figures_is_loaded_once_and_only_where_there_are_any(visits):
    loaded = {page: len(seen.libraries) for page, seen in visits.items()}
    assert loaded == {page: int(seen.figures > 0) for page, seen in visits.items()}


@pytest.mark.book
def test_search_finds_a_word(browser, address):
    from selenium.webdriver.common.by import By

    browser.get(f"{address}search.html?q=formation")
    for _ in range(100):
        found = [item.get_attribute("href") for item in browser.find_elements(By.CSS_SELECTOR, "ul.search li a")]
        if any("glossary.html" in href for href in found):
            break
        time.sleep(0.05)
    assert any("glossary.html" in href for href in found), found
    complaints, urls = logged(browser, address)
    assert (complaints, remote(urls, address)) == ([], [])


@pytest.mark.book
def test_the_book_can_be_read_from_disk_without_a_server(browser, site):
    home = f"{site.as_uri()}/"
    pages = [page for page in ("notation", f"notebooks/{LESSONS[0]}") if page in PAGES]
    seen = {page: visit(browser, home, page, views=list(VIEWS)[:1]) for page in pages}
    found = {page: (v.complaints, v.remote, v.raw_math, v.blank_images, v.blank_figures) for page, v in seen.items()}
    assert found == dict.fromkeys(seen, ([], [], [], [], []))
