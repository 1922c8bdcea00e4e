"""Whole units of a lesson under `units/PROFILE/LESSON` of a checkout, in git: hours of training, a file or two each.

A run that takes many sittings is committed unit by unit, and a lesson whose text or figures change is executed again
from what its units left, without training.
"""

from pathlib import Path

from crossfunc.files import write_atomically
from crossfunc.lessons.plans import Plan

__all__ = ["fetch_units", "keep_unit", "kept_units_folder"]

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
    names = [file.stem for file in sorted(kept.glob("*.json")) if not (folder / file.name).exists()]
    for name in names:
        _copy(name, kept, folder)
    return names


def keep_unit(plan: Plan, name: str) -> Path:
    """Copy the files of a whole unit into the checkout; return the folder."""
    from crossfunc.lessons.units import units_folder

    kept = kept_units_folder(plan)
    _copy(name, units_folder(plan.results, plan.lesson.stem), kept)
    return kept


def _copy(name: str, source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for suffix in _SUFFIXES:
        if (file := source / f"{name}{suffix}").is_file():
            write_atomically(target / file.name, file.read_bytes())
