"""Lessons 1 to 7 on imported data with one option: an own pair of files, real frames of one functional, pairs alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_files import write_pair

from crossfunc.datasets.importers.extxyz import Keys, import_extxyz
from crossfunc.datasets.importers.mp_r2scan import import_mp_frames
from crossfunc.lessons import load_results


@pytest.fixture(scope="module")
def own_pair(tmp_path_factory):
    """Two extended XYZ files cut out of the embedded dataset, imported under names of other functionals."""
    folder = tmp_path_factory.mktemp("own")
    names = ("low", "high")
    return import_extxyz(*write_pair(folder), folder / "own", keys=Keys(material_id="material"), functionals=names).path


FEWER = [
    *("n_epochs=1", "n_start_epochs=1", "n_train_frames=24", "n_eval_frames=8", "n_train=16", "n_validation=8"),
    *("max_steps=3", "n_seeds=1", "n_trees=20", "n_draws=2"),
]
"""Smaller still than the smallest profile: that a lesson runs is asked here, not what it finds."""


def run_lessons(root, dataset, out, *lessons, data=""):
    """Execute lessons in their smallest form; return their results and all that they printed, by number."""
    command = [Path(sys.executable).with_name("crossfunc"), "run", *lessons, "--profile", "smoke", "--out", out]
    command += ["--jobs", "2"]  # the test itself only waits
    options = [f"dataset={dataset}", *(FEWER if "04" in lessons else [])]
    options = [word for option in options for word in ("-p", option)]
    environment = os.environ | {"CROSSFUNC_DATA": str(data)}
    done = subprocess.run([*command, *options], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = {}
    for path in (out / "notebooks").glob("*.ipynb"):
        outputs = [o for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", [])]
        printed[path.name[:2]] = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")
    return {name[:2]: content for name, content in load_results(out / "results").items()}, printed


# --- an own pair ---


@pytest.fixture(scope="module")
def on_own_pair(root, own_pair, tmp_path_factory):
    lessons = [f"0{k}" for k in range(1, 8)]
    return run_lessons(root, own_pair, tmp_path_factory.mktemp("lessons"), *lessons)


def values(results, lesson):
    return {r["key"]: r["value"] for r in results[lesson]["results"]}


def test_all_seven_lessons_run_on_an_imported_pair_and_name_its_labels(on_own_pair):
    results, _ = on_own_pair
    assert sorted(results) == [f"0{k}" for k in range(1, 8)]
    for content in results.values():
        assert content["dataset"] == "own"
        assert content["label_notice"] == "Labels: low and high, from the user's own files"


def test_the_lessons_find_in_the_pair_what_was_put_into_it(on_own_pair):
    results, _ = on_own_pair
    assert values(results, "03")["pearson_refitted"] > values(results, "03")["pearson_none"]
    energies = values(results, "04")
    assert energies["energy_mae_method_3"] > energies["energy_mae_method_4"]  # the offset of the two labellers is eV
    assert "magmom_mae_method_4" not in values(results, "04")  # no labels, no number
    assert values(results, "06")["n_compounds"] > 5
    assert values(results, "07")


def test_what_does_not_hold_on_the_pair_is_told_and_stops_nothing(on_own_pair):
    _, printed = on_own_pair
    # A handful of light elements hides the offset that the lesson shows.
    assert "On own this does not hold: total energies hardly correlate" in printed["03"]


# --- real frames of one functional ---


@pytest.fixture(scope="module")
def on_fluorides(root, real_data_folder, tmp_path_factory):
    """The seven lessons on real frames in r2SCAN: no energies of the other functional, no elements."""
    folder = tmp_path_factory.mktemp("real")
    import_mp_frames(real_data_folder / "tm_fluorides_r2scan.json", folder / "fluorides")
    lessons = [f"0{k}" for k in range(1, 8)]
    return run_lessons(root, folder / "fluorides", folder / "out", *lessons)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("lesson", "said"),
    [
        ("01", "Nothing to correlate without energies of both."),
        ("02", "0 materials have formation energies in both functionals"),
        ("03", "No material has both functionals in these data"),
        ("04", "0 frames have at most 4 atoms, so the limit is raised"),
        ("05", "0 frames have at most 4 atoms, so the limit is raised"),
        ("06", "A hull starts from its elements"),
        ("07", "0 frames have at most 4 atoms, so the limit is raised"),
    ],
)
def test_lessons_say_what_real_frames_of_one_functional_lack_and_go_on(on_fluorides, lesson, said):
    _, printed = on_fluorides
    assert said in printed[lesson]


@pytest.mark.real_data
def test_lessons_learn_from_real_frames_what_they_can(on_fluorides):
    results, _ = on_fluorides
    assert values(results, "01")["n_rows"] == 137
    assert values(results, "01")["n_elements"] == 10
    energies = values(results, "04")
    assert energies["energy_mae_method_3"] > energies["energy_mae_method_4"]  # GGA references on r2SCAN labels of DFT
    assert values(results, "05")["gradient_ratio"] > 1
    assert values(results, "07")


# --- pairs alone ---


@pytest.mark.real_data
def test_lessons_that_need_frames_say_so_where_there_are_pairs_alone(root, real_data_folder, tmp_path):
    _, printed = run_lessons(root, "mp-thermo-pairs", tmp_path, "05", "07", "08", data=real_data_folder)
    for lesson in ("05", "07"):
        assert "needs frames in" in printed[lesson]
    assert "This page starts from files; mp-thermo-pairs is a dataset already" in printed["08"]
