"""The runs of every lesson that is made of units, by the lesson's name: what `crossfunc units` makes one by one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from crossfunc.datasets import Dataset
from crossfunc.lessons import forgetting
from crossfunc.lessons.sources import LessonError
from crossfunc.lessons.units import (
    LESSON_4,
    LESSON_4B,
    LESSON_7,
    LESSON_9,
    order_units,
    plan_methods,
    plan_scaling,
    scaling_start,
    scaling_units,
    unit_of_few,
    units_at_chgnets_rates,
    untrained_units,
)
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.units import Unit

__all__ = ["OF_UNITS", "Runs", "runs_of"]

OF_UNITS = (LESSON_4, LESSON_4B, LESSON_7, LESSON_9)


class Runs(NamedTuple):
    """What a lesson trains: the frames that splits point into, and the units."""

    frames: LabelledFrames
    units: list[Unit]


def runs_of(lesson: str, dataset: Dataset, parameters: Mapping[str, Any]) -> Runs:
    """Units of a lesson from its parameters.

    Raises
    ------
    LessonError
        A lesson without units.
    """
    if lesson in (LESSON_4, LESSON_4B):
        frames, planned = plan_methods(dataset, parameters)
        orders = order_units(planned, parameters.get("n_orders", 0))
        return Runs(frames, [*planned.values(), *orders.values()])
    if lesson == LESSON_7:
        frames, pool, validation, sizes, references = plan_scaling(dataset, parameters)
        start = scaling_start(dataset, frames, pool, validation, parameters)
        given = {**parameters, "sizes": sizes}
        curves = scaling_units(frames, pool, validation, references, given, start)
        untrained = untrained_units(pool, validation, references, given, start)
        few, others = unit_of_few(curves, untrained), units_at_chgnets_rates(curves)
        starts = [] if start is None else [start]
        return Runs(frames, [*starts, *untrained.values(), *curves.values(), *others, few])
    if lesson == LESSON_9:
        of_lesson = forgetting.plan_runs(dataset, parameters)
        return Runs(of_lesson.target, list(of_lesson.units.values()))
    raise LessonError(f"lesson {lesson} is not made of units; {', '.join(OF_UNITS)} are.")
