"""What the page on the paper's run computes: from the profile's sizes and the committed measurements, nothing typed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import book_costs  # noqa: E402
from sphinx.errors import ExtensionError  # noqa: E402

from crossfunc.lessons import first_epoch  # noqa: E402
from crossfunc.lessons.units import CASES  # noqa: E402


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0707, "0.071 s"),
        (80.8, "81 s"),
        (119, "119 s"),
        (121, "2.02 min"),
        (3 * 3600, "3 h"),
        (60 * 86_400, "60 days"),
        (1_000_000 * 86_400, "1,000,000 days"),
    ],
)
def test_times_are_written_as_people_say_them(seconds, text):
    assert book_costs.duration(seconds) == text


def test_the_cost_of_a_frame_is_the_measured_one_times_its_share_of_atoms():
    train = json.loads((ROOT / "book" / "benchmarks" / "train.json").read_text())
    seconds, flop = book_costs.cost_per_frame(ROOT)
    assert train["atoms_per_frame"]["MgAl2O4"] == 14
    assert seconds == pytest.approx(train["ms_per_frame"]["MgAl2O4"]["ours"] * 31 / 14 / 1000)
    assert flop == pytest.approx(train["mflop_per_frame"]["MgAl2O4"]["ours"] * 31 / 14 * 1e6)


def test_frames_are_those_of_the_paper_profile():
    n = book_costs.frames_trained(ROOT)
    assert n["one method, one seed"] == 190_598 * 50  # 8:1:1 of 238,247 frames, 50 epochs
    assert n["Table 1 and Fig. 3 (lesson 4)"] == 7 * 190_598 * 50  # four methods and three more runs
    five = book_costs.paper_parameters(ROOT, "05_gradient_diagnostics")
    assert five["n_epochs"] > 1  # lesson 5 watches until forces turn, not for one epoch
    assert n["Fig. 3a (lesson 5)"] == 3 * five["n_seeds"] * five["n_train"] * five["n_epochs"]
    sizes = book_costs.paper_parameters(ROOT, "07_scaling_laws")["sizes"]
    assert n["Fig. 6 (lesson 7)"] == (3 * len(sizes) + 1) * 600_000 * 16


def test_the_runs_counted_are_those_that_the_lessons_make():
    trained = [name for name in CASES if name not in ("references-only", "model-aware")]
    assert len(trained) == sum(book_costs.RUNS_OF_LESSON_4.values())
    seven = book_costs.paper_parameters(ROOT, "07_scaling_laws")
    assert len(seven["curves"]) == book_costs.CURVES_OF_LESSON_7
    assert len(first_epoch.STARTS) == book_costs.STARTS_OF_LESSON_5


def test_full_size_means_full_size():
    (imported, _, references, training) = book_costs.measured_rows(ROOT)
    assert imported[0] == "import of 238,247 frames"
    assert references[0] == "element references of 238,247 frames"
    assert training[0] == "training on 200,000 frames of 31 atoms"
    measured = json.loads((ROOT / "book" / "benchmarks" / "import.json").read_text())
    assert measured["peak_rss_gb"] <= 1.0  # the bars of the import
    assert measured["speedup"] >= 3.0


def test_hours_follow_from_arithmetic_and_the_assumed_rate():
    _, flop = book_costs.cost_per_frame(ROOT)
    stage, n_frames, _, total, *times = book_costs.training_rows(ROOT)[0]
    assert stage == "one method, one seed"
    assert n_frames == "9,529,900"
    assert float(total) == pytest.approx(9_529_900 * flop, rel=0.05)
    assert times == [book_costs.duration(9_529_900 * flop / (rate * 1e12)) for rate in (1, 5, 20)]


def test_a_missing_measurement_stops_the_build(tmp_path):
    shutil.copytree(ROOT / "book" / "benchmarks", tmp_path / "book" / "benchmarks")
    (tmp_path / "book" / "benchmarks" / "train.json").unlink()
    with pytest.raises(ExtensionError, match="crossfunc bench train --json"):
        book_costs.cost_per_frame(tmp_path)
