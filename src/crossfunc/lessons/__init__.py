"""What the lessons share: the runner, the results they leave behind and (imported by name) their figures."""

from crossfunc.lessons.freshness import check_fresh
from crossfunc.lessons.results import LessonResults, ResultsError, format_value, load_results
from crossfunc.lessons.run import run_lessons
from crossfunc.lessons.sources import LessonError

__all__ = [
    "LessonError",
    "LessonResults",
    "ResultsError",
    "check_fresh",
    "format_value",
    "load_results",
    "run_lessons",
]
