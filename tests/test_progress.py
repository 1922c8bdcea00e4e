"""The page that says how far the units of a lesson are."""

import pytest

from crossfunc.lessons.progress import seconds_left, write_progress_page
from crossfunc.training.units import UnitState

WHOLE = [UnitState("a", "whole", 100, 100, 60.0), UnitState("b", "whole", 100, 100, 120.0)]
OPEN = [UnitState("c", "stopped", 40, 100, 30.0), UnitState("d", "waiting", 0, None, 0.0)]


def test_what_is_left_is_the_mean_of_whole_units_less_what_the_others_have_had():
    assert seconds_left([*WHOLE, *OPEN]) == pytest.approx(60 + 90)
    assert seconds_left(OPEN) is None
    assert seconds_left(WHOLE) == 0


def test_units_that_train_nothing_are_no_measure_of_those_that_do():
    untrained = UnitState("references-only", "whole", 0, None, 2.0)
    assert seconds_left([untrained, *WHOLE, *OPEN]) == pytest.approx(150)


def test_the_page_counts_whole_units_and_reads_itself_again(tmp_path):
    page = write_progress_page(tmp_path / "units", "07, profile converged", [*WHOLE, *OPEN])
    text = page.read_text(encoding="utf-8")
    assert "2 of 4 units are whole; about 0.0 hours" in text
    assert text.count("<tr>") == 1 + 4
    assert "<td>40 of 100</td>" in text
    assert 'http-equiv="refresh"' in text


def test_names_on_the_page_are_text(tmp_path):
    page = write_progress_page(tmp_path, "<b>", [UnitState("<script>alert(1)</script>", "waiting", 0, None, 0.0)])
    assert "<script>" not in page.read_text(encoding="utf-8")
