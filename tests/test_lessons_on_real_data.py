"""Lessons 1 to 3 and 6 on real DFT data: the numbers that the lessons' own code must find there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossfunc.lessons import load_results

PAIRS = "mp-thermo-pairs"
LESSONS = ("01_data_statistics", "02_feature_importance", "03_atomref_correlation")
HULL_LESSON = "06_hull_workflow"

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def found(root, real_data_folder, tmp_path_factory):
    """Results of the three lessons on the Materials Project pairs, as (lesson number, key) -> value."""
    out = tmp_path_factory.mktemp("real")
    command = [Path(sys.executable).with_name("crossfunc"), "run", "01", "02", "03", "-p", f"dataset={PAIRS}"]
    environment = os.environ | {"CROSSFUNC_DATA": str(real_data_folder)}
    subprocess.run([*command, "--profile", "smoke", "--out", out], cwd=root, env=environment, check=True)
    results = load_results(out / "results", LESSONS)
    return {(name[:2], r["key"]): r["value"] for name, content in results.items() for r in content["results"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("01", "pearson_total"), 0.096),  # total energies hardly correlate
        (("03", "pearson_published"), 0.958),  # minus the references that chgnet ships
        (("03", "pearson_refitted"), 0.981),  # minus references refitted to these materials
        (("03", "pearson_low_only"), 0.141),  # minus the GGA references only
    ],
)
def test_lessons_find_the_known_correlations_of_the_974_real_pairs(found, key, value):
    assert found[key] == pytest.approx(value, abs=5e-4)  # the third digit


def test_lessons_count_what_the_table_holds(found):
    assert found["01", "n_rows"] == 974
    assert found["01", "n_elements"] == 79


def test_corrections_move_importance_to_the_anions_on_real_data(found):
    assert found["02", "r2_with"] > 0.7
    assert found["02", "anion_share_with"] > found["02", "anion_share_without"] + 10


def test_model_aware_references_beat_a_plain_refit_on_real_data(found):
    assert found["03", "n0_aware"] < found["03", "n0_refit"] < found["03", "n0_none"]


@pytest.fixture(scope="module")
def hull_lesson(root, real_data_folder, tmp_path_factory):
    """Results of lesson 6, which looks for DFT entries and pairs beside its dataset, as key -> value."""
    if not (real_data_folder / "li_fe_o_entries.json.gz").is_file():
        pytest.skip("DFT entries: set CROSSFUNC_DATA to a folder with li_fe_o_entries.json.gz")
    out = tmp_path_factory.mktemp("hull")
    command = [Path(sys.executable).with_name("crossfunc"), "run", "06", "--profile", "smoke", "--out", out]
    environment = os.environ | {"CROSSFUNC_DATA": str(real_data_folder)}
    subprocess.run(command, cwd=root, env=environment, check=True)
    return {r["key"]: r["value"] for r in load_results(out / "results", [HULL_LESSON])[HULL_LESSON]["results"]}


@pytest.mark.parametrize(("key", "value"), [("experiment_mae_gga", 157), ("experiment_mae_r2scan", 79)])
def test_hull_lesson_finds_the_known_errors_of_dft_against_experiment(hull_lesson, key, value):
    assert hull_lesson[key] == pytest.approx(value, abs=0.5)  # meV/atom, 974 materials


def test_hull_lesson_finds_the_dft_hull_of_li_fe_o(hull_lesson):
    assert hull_lesson["li_fe_o_entries"] == 375
    assert hull_lesson["li_fe_o_stable"] == 11  # the lesson compares every hull distance with pymatgen's
