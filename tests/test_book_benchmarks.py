"""Lists and growth in the pages of measurements; what else they show is tested in test_book.py."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from crossfunc.cli import bench_app

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import book_benchmarks  # noqa: E402


def rows(noun, *numbers):
    return [
        {f"n_{noun}": n, "median_seconds_per_target": 1e-3 * n, "pymatgen_median_seconds_per_target": 1e-2 * n}
        for n in numbers
    ]


@pytest.fixture
def drawn():
    with mpl.rc_context():
        figure, alt = book_benchmarks.growth_figure(
            {
                "seconds": 1.0,
                "growth_with_entries": rows("entries", 1_000, 32_000),
                "growth_with_elements": rows("elements", 1, 6),
            }
        )
        yield figure, alt
        plt.close(figure)


def test_a_list_of_measurements_is_a_table_with_a_column_for_each(tmp_path):
    path = tmp_path / "relax.json"
    other = [
        {"frame_id": "a", "converged": True, "energy_per_atom_ev": -8.13827},
        {"frame_id": "b", "converged": False, "energy_per_atom_ev": -8.15370},
    ]
    path.write_text(json.dumps({"seconds": 2.5, "runs": [2.0, 3.0], "other_basin": other, "nothing": []}))
    single, listed = book_benchmarks.benchmark_tables(path)
    assert single[2] == [("time (s)", "2.5"), ("runs", "2, 3"), ("nothing", "none")]
    energies = ("energy (eV/atom)", "-8.13827", "-8.1537")
    assert listed == (
        "crystals that end in another basin",
        ("frame id", "a", "b"),
        [("converged", "yes", "no"), energies],
    )


def test_growth_has_a_panel_for_each_list_with_the_measured_points(drawn):
    figure, _ = drawn
    assert [ax.get_xlabel() for ax in figure.axes] == ["number of entries", "number of elements"]
    ours, theirs = figure.axes[0].get_lines()
    assert ours.get_xydata().tolist() == [[1_000, 1_000], [32_000, 32_000]]
    assert theirs.get_ydata().tolist() == [10_000, 320_000]
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "linear"]
    assert figure.axes[0].get_yscale() == "log"


def test_growth_is_told_in_words(drawn):
    _, alt = drawn
    assert alt.startswith("2 panels")
    assert "this library, from 1 to 6 ms between 1 and 6 elements" in alt
    assert "pymatgen, from 10,000 to 320,000 ms between 1,000 and 32,000 entries" in alt


def test_the_committed_measurement_of_hulls_can_be_drawn():
    path = ROOT / "book" / "benchmarks" / "hull.json"
    measured = book_benchmarks.read_benchmark(path)
    assert {key for key in measured if key.startswith("growth_")} == {"growth_with_entries", "growth_with_elements"}
    figure, _ = book_benchmarks.growth_figure(measured)
    assert len(figure.axes) == 2
    plt.close(figure)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("n_frames", "number of frames"),
        ("peak_rss_gb", "peak memory (GB)"),
        ("check_seconds", "check time (s)"),
        ("seconds_per_target", "time per target (s)"),
        ("seconds_fit", "fit time (s)"),
        ("seconds_to_compile", "time to compile (s)"),
        ("ms_per_frame", "time per frame (ms)"),
        ("mb_per_s", "speed (MB/s)"),
        ("matmul_gflop_per_s", "speed of matrix products, thin and large (GFLOP/s)"),
        ("memcpy_mb_per_s", "memcpy speed (MB/s)"),
        ("largest_difference_ev_per_atom", "largest difference (eV/atom)"),
        ("chgnet_volume_per_atom_a3", "chgnet volume (Å³/atom)"),
        ("largest_difference_ev", "largest difference (eV)"),
        ("fmax_ev_per_a", "limit on the forces (eV/Å)"),
        ("chgnet_n_converged", "chgnet number of converged"),
        ("5", "5"),
        ("MgAl2O4", "MgAl2O4"),
    ],
)
def test_keys_are_shown_as_words_with_their_units(key, words):
    assert book_benchmarks._words(key) == words


def test_stages_are_drawn_with_the_power_of_their_time():
    made = [{"size": 10**k, "seconds": 1e-3 * 10**k, "memory_gb": 1e-4 * 2**k} for k in range(4)]
    stages = {
        name: {"of": "frames", "rows": made, "time_exponent": power} for name, power in (("import", 1.0), ("hull", 0.5))
    }
    stages["hull"]["rows"] = [row | {"memory_gb": None} for row in made]  # of a system that does not tell
    with mpl.rc_context():
        figure, alt = book_benchmarks.stages_figure({"stages": stages})
        time, memory = figure.axes
        assert [line.get_ydata().tolist() for line in time.lines] == [[row["seconds"] for row in made]] * 2
        assert [len(line.get_xdata()) for line in memory.lines] == [4, 0]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [
            "import (frames): 1.00",
            "hull (frames): 0.50",
        ]
        plt.close(figure)
    assert "import, time as size to the 1.00; hull, time as size to the 0.50" in alt


def test_the_committed_growth_has_all_stages_at_all_sizes():
    from crossfunc.bench.growth import STAGES

    stages = json.loads((ROOT / "book" / "benchmarks" / "growth.json").read_text())["stages"]
    assert {name: [row["size"] for row in stage["rows"]] for name, stage in stages.items()} == {
        name: list(stage.sizes) for name, stage in STAGES.items()
    }


def test_the_headline_has_a_bar_for_each_committed_ratio_beside_a_named_peer():
    rows = book_benchmarks.headline_rows(ROOT / "book" / "benchmarks")
    assert len(rows) == len(book_benchmarks.HEADLINE) >= 6
    train = json.loads((ROOT / "book" / "benchmarks" / "train.json").read_text())["speedup"]
    assert rows[0] == ("training step", "chgnet's Trainer", train)
    with mpl.rc_context():
        figure, alt = book_benchmarks.headline_figure(rows)
    ax = figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [ratio for *_, ratio in rows]
    assert f"training step, beside chgnet's Trainer: {train:.1f}" in alt
    assert ax.texts[0].get_text() == f"{train:.0f} ×"
    plt.close(figure)


def test_what_was_not_measured_has_no_row_and_only_the_first_table_is_open(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"seconds": 1.0, "peak_memory_gb": None, "ms_per_frame": {"MgO": {"ours": 1.0}}}))
    first, second = book_benchmarks.benchmark_tables(path)
    assert first[2] == [("time (s)", "1")]
    assert second[0] == "time per frame (ms)"


def test_no_committed_measurement_shows_a_bare_key():
    for path in sorted((ROOT / "book" / "benchmarks").glob("*.json")):
        if path.stem in ("forecasts", "growth"):  # pages of their own
            continue
        for caption, header, rows in book_benchmarks.benchmark_tables(path):
            for words in (caption, *header, *(row[0] for row in rows)):
                assert "_" not in words, (path.stem, words)


@pytest.mark.parametrize("path", sorted((ROOT / "book" / "benchmarks").glob("*.json")), ids=lambda path: path.stem)
def test_each_measurement_names_a_command_that_there_is(path):
    name, *options = book_benchmarks.COMMANDS.get(path.stem, path.stem).split()
    shown = CliRunner().invoke(bench_app, [name, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, f"{path.name}: no command `crossfunc bench {name}`"
    words = shown.output.split()
    assert "--json" in words
    assert all(option in words for option in options if option.startswith("--"))


def test_a_measurement_that_is_missing_says_the_command_that_makes_it(tmp_path):
    with pytest.raises(book_benchmarks.ExtensionError, match="crossfunc bench train --peers --json > "):
        book_benchmarks.read_benchmark(tmp_path / "peers.json")
