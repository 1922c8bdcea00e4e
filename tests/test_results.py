"""What a lesson records, as people and the claims table read it."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from crossfunc.lessons import LessonResults, ResultsError, format_value, load_results
from crossfunc.lessons.results import seed_range

SURROGATE = SimpleNamespace(name="surrogate", label_notice="surrogate labels, not DFT")


@pytest.fixture
def results(tmp_path):
    results = LessonResults("03_atomref", tmp_path / "results", SURROGATE)
    results.record("pearson", 0.1 + 0.2, title="Pearson r, <raw>", paper=0.2233, why="other materials")
    results.record(
        "mae", np.float64(18.42), title="MAE", unit="meV/atom", interval=(18.1, 18.7), paper="about 20", note="3 seeds"
    )
    return results


def test_saved_numbers_come_back_with_full_precision(results):
    path = results.save()
    content = load_results(path.parent)["03_atomref"]
    assert content == json.loads(path.read_text())
    assert (content["dataset"], content["label_notice"]) == ("surrogate", "surrogate labels, not DFT")
    first, second = content["results"]
    assert first["value"] == 0.30000000000000004
    assert first["paper"] == 0.2233
    assert second["interval"] == [18.1, 18.7]
    assert second["paper"] == "about 20"


def test_saving_twice_writes_the_same_bytes_and_leaves_no_draft(results):
    before = results.save().read_bytes()
    assert results.save().read_bytes() == before
    assert [p.name for p in results.folder.iterdir()] == ["03_atomref.json"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = LessonResults("03_atomref", dataset="surrogate")
    results.record("n", 3, title="Number")
    assert results.save() is None
    assert results.save_table("sweep", pd.DataFrame({"a": [1]})) is None
    assert list(tmp_path.iterdir()) == []
    assert results.to_dict()["dataset"] == "surrogate"


def test_the_table_says_paper_ours_and_why(results):
    table = results.table()
    assert list(table.data.columns) == ["quantity", "paper says", "we get", "why they differ"]
    assert table.data.to_numpy().tolist() == [
        ["Pearson r, <raw>", "0.2233", "0.300", "other materials"],
        ["MAE", "about 20", "18.4 ± 0.3 meV/atom (3 seeds)", ""],
    ]


def test_the_table_renders_the_same_way_every_time_with_the_notice_and_escaped(results):
    html = results.table().to_html()
    assert html == results.table().to_html()
    assert "<caption>surrogate labels, not DFT</caption>" in html
    assert "Pearson r, &lt;raw&gt;" in html


def test_running_a_cell_again_replaces_its_result(results):
    results.record("pearson", 0.5, title="Pearson r, <raw>")
    assert [r["value"] for r in results.to_dict()["results"]] == [0.5, 18.42]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, np.float32("nan")])
def test_a_value_that_is_no_finite_number_is_refused(results, value):
    with pytest.raises(ResultsError, match=r"03_atomref: result 'gap': .* is no result"):
        results.record("gap", value, title="Gap")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key": "Bad-Key", "value": 1, "title": "t"}, "'Bad-Key' must be lower case"),
        ({"key": "a", "value": 1, "title": " "}, "needs a title"),
        ({"key": "a", "value": "1", "title": "t"}, r"expected a number, got '1' \(str\)"),
        ({"key": "a", "value": True, "title": "t"}, "expected a number, got True"),
        ({"key": "a", "value": None, "title": "t"}, "expected a number, got None"),
        ({"key": "a", "value": 1, "title": "t", "interval": (2, 1)}, r"interval \(2.0, 1.0\) is the wrong way round"),
        ({"key": "a", "value": 1, "title": "t", "interval": (0, np.nan)}, "interval: nan is no result"),
        ({"key": "a", "value": 1, "title": "t", "paper": np.inf}, "paper: inf is no result"),
        ({"key": "mae", "value": 1, "title": "RMSE"}, "'mae' is already used for 'MAE'"),
    ],
)
def test_what_cannot_be_recorded_is_named(results, given, message):
    with pytest.raises(ResultsError, match=message):
        results.record(given.pop("key"), given.pop("value"), **given)


def test_tables_are_written_beside_the_results(results):
    table = pd.DataFrame({"element": ["Fe", "O"], "shift_ev": [-0.1, 1 / 3]})
    csv = results.save_table("per_element", table)
    assert csv.name == "03_atomref.per_element.csv"
    assert csv.read_bytes() == b"element,shift_ev\nFe,-0.1\nO,0.3333333333333333\n"
    parquet = results.save_table("per_element.parquet", table)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), table)
    with pytest.raises(ResultsError, match=r"table name '\.\./x' must be like"):
        results.save_table("../x", table)


def test_tables_are_not_taken_for_results(results):
    results.save()
    results.save_table("per_element", pd.DataFrame({"a": [1]}))
    assert list(load_results(results.folder)) == ["03_atomref"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not a results file of lesson 03_atomref"),
        ('{"lesson": "03_atomref"}', "not a results file"),
        ('{"lesson": "01_x", "dataset": null, "label_notice": "", "results": []}', "not a results file"),
        ('{"lesson": "03_atomref", "dataset": null, "label_notice": "", "results": [{}]}', "results without a key"),
    ],
)
def test_a_corrupt_results_file_is_named_with_the_remedy(results, content, message):
    results.save().write_text(content)
    with pytest.raises(ResultsError, match=rf"03_atomref.json: {message}.*run `crossfunc run 03_atomref --force`"):
        load_results(results.folder)


def test_missing_results_are_named(results, tmp_path):
    results.save()
    with pytest.raises(ResultsError, match=r"04_methods.json: the results file is missing"):
        load_results(results.folder, ["03_atomref", "04_methods"])
    with pytest.raises(ResultsError, match="no results file here"):
        load_results(tmp_path / "nowhere")


def test_an_interval_of_too_few_materials_is_none():
    assert LessonResults("lesson").record("a", 1.0, (np.nan, float("nan")), title="t").interval is None


@pytest.mark.parametrize(
    ("value", "interval", "unit", "expected"),
    [
        (0.096, None, "", "0.096"),
        (0.22331, None, "", "0.223"),
        (0.2233, None, "", "0.2233"),  # as the paper prints it
        (974.0, None, "", "974"),
        (238247, None, "frames", "238,247 frames"),
        (-0.0, None, "", "0"),
        (12.345, None, "eV", "12.3 eV"),
        (0.999644, None, "", "0.9996"),  # a correlation that is not perfect
        (1234.5, None, "", "1234"),
        (0.000012345, None, "", "1.23e-05"),
        (18.4213, (18.12, 18.72), "meV/atom", "18.4 ± 0.3 meV/atom"),
        (0.9231, (0.9091, 0.9371), "", "0.923 ± 0.014"),  # first digit 1: two digits
        (0.9231, (0.90, 0.93), "", "0.923 (0.900 to 0.930)"),  # not symmetric
        (1234.0, (1134.0, 1334.0), "", "1230 ± 100"),
        (5.0, (5.0, 5.0), "", "5"),
        (-0.001, (-0.301, 0.299), "eV", "0.0 ± 0.3 eV"),  # never "-0.0"
        (None, None, "eV", ""),
    ],
)
def test_numbers_are_written_with_the_digits_they_deserve(value, interval, unit, expected):
    assert format_value(value, interval, unit) == expected


def test_an_interval_that_is_clear_of_zero_does_not_read_as_if_it_held_it():
    assert format_value(163.5, (13.7, 332.5), "meV/atom") == "160 (10 to 330) meV/atom"
    assert format_value(-163.5, (-332.5, -13.7)) == "-160 (-330 to -10)"
    assert format_value(3.0, (-157.0, 163.0)) == "0 ± 160"
    assert format_value(330.0, (180.0, 480.0)) == "330 ± 150"


def test_a_range_over_seeds_needs_two_of_them():
    assert seed_range([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert seed_range([3.0]) is None
