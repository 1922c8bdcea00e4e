"""How long lessons took: noted beside the results, read by the book."""

import json

import pytest

from crossfunc.lessons.sources import LessonError
from crossfunc.lessons.timings import TIMINGS_FILE, read_timings, record_timing


def test_each_lesson_keeps_its_last_time(tmp_path):
    record_timing(tmp_path, "02_y", 3.14159)
    record_timing(tmp_path, "01_x", 1.0, jobs=2)
    record_timing(tmp_path, "02_y", 5.0)
    timings = read_timings(tmp_path)
    assert list(timings) == ["01_x", "02_y"]
    assert (timings["01_x"]["seconds"], timings["01_x"]["jobs"]) == (1.0, 2)
    assert (timings["02_y"]["seconds"], timings["02_y"]["jobs"]) == (5.0, 1)
    assert timings["01_x"]["cores"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == [TIMINGS_FILE]  # no draft is left


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(LessonError, match=rf"timings\.json: missing.*crossfunc run --profile {tmp_path.name} --force"):
        read_timings(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not readable as JSON"), (json.dumps({"01_x": {}}), "an entry without seconds")]
)
def test_a_file_that_somebody_else_wrote_is_refused(tmp_path, content, message):
    (tmp_path / TIMINGS_FILE).write_text(content)
    with pytest.raises(LessonError, match=message):
        read_timings(tmp_path)
