"""Whole units of a lesson under `units/PROFILE/LESSON` of a checkout, in git: hours of training, a file or two each.

A run that takes many sittings is committed unit by unit, and a lesson whose text or figures change is executed again
from what its units left, without training.
"""

from pathlib import Path

from crossfunc.files import write_atomically
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.sources import LessonError

__all__ = ["check_keepable", "fetch_units", "keep_unit", "kept_units_folder"]

_SUFFIXES = (".npz", ".json")
"""In the order in which they are copied: a unit is whole with its second file."""


def kept_units_folder(plan: Plan) -> Path:
    """Return the folder in git of a lesson's units, beside the notebooks; two pages of one lesson share them."""
    from crossfunc.lessons.units import units_folder

    return plan.lesson.path.parent.parent / "units" / plan.profile / units_folder(plan.results, plan.lesson.stem).name


def fetch_units(plan: Plan) -> list[str]:
    """Put kept units where the lesson looks for its own, but for those that it has; return their names.

    Whether a unit is of this lesson's data and values is for its reader to say: each file holds what it was made from.
    """
    if not plan.parameters.get("keep_runs") or plan.overridden:
        return []
    from crossfunc.lessons.units import units_folder

    kept, folder = kept_units_folder(plan), units_folder(plan.results, plan.lesson.stem)
    names = [file.stem for file in sorted(kept.glob("*.json"))]
    others = [name for name in names if (folder / f"{name}.json").is_file() and _differ(name, kept, folder)]
    own = _whole_units(plan, folder) if others else frozenset()
    names = [name for name in names if not (folder / f"{name}.json").is_file() or (name in others and name not in own)]
    for name in names:
        _copy(name, kept, folder)
    return names


def _differ(name: str, one: Path, other: Path) -> bool:
    """Whether any file of a unit in the first folder is another, or missing, in the second."""
    pairs = [(one / f"{name}{suffix}", other / f"{name}{suffix}") for suffix in _SUFFIXES]
    return any(a.is_file() and not (b.is_file() and a.read_bytes() == b.read_bytes()) for a, b in pairs)


def _whole_units(plan: Plan, folder: Path) -> frozenset[str]:
    """Names of the units in a folder that are whole and of this plan's data and values."""
    from crossfunc.datasets import open_dataset
    from crossfunc.lessons.lesson_runs import runs_of
    from crossfunc.training.units import PRETRAINED, progress

    frames, units = runs_of(plan.lesson.stem, open_dataset(plan.dataset), plan.parameters)
    states = progress(units, frames, folder, plan.parameters.get("pretrained", PRETRAINED))
    return frozenset(state.name for state in states if state.state == "whole")


def check_keepable(plan: Plan) -> None:
    """Refuse to keep units of other values under a profile's name, where its own would be replaced.

    Raises
    ------
    LessonError
        Names the parameters that are not the profile's.
    """
    if plan.overridden:
        raise LessonError(
            f"units/{plan.profile} keeps units of that profile's values, and {', '.join(plan.overridden)} "
            f"{'is another' if len(plan.overridden) == 1 else 'are others'}: leave out --keep, or write the values "
            "into a profile of their own."
        )


def keep_unit(plan: Plan, name: str) -> Path:
    """Copy the files of a whole unit into the checkout; return the folder.

    Raises
    ------
    LessonError
        The plan has other values than its profile.
    """
    from crossfunc.lessons.units import units_folder

    check_keepable(plan)
    kept = kept_units_folder(plan)
    _copy(name, units_folder(plan.results, plan.lesson.stem), kept)
    return kept


def _copy(name: str, source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for suffix in _SUFFIXES:
        if (file := source / f"{name}{suffix}").is_file():
            write_atomically(target / file.name, file.read_bytes())
