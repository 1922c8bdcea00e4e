"""What histories say of a comparison of runs: whether they began with one network, and whether they have arrived."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfunc.lessons.sources import LessonError
from crossfunc.training.labels import METRICS
from crossfunc.training.methods import find_method
from crossfunc.training.strategies import Delta

if TYPE_CHECKING:
    from crossfunc.training.result import FinetuneResult
    from crossfunc.training.units import Unit

__all__ = ["FEWEST_LOOKS", "SAME_MEV_PER_A", "STILL_FALLING", "check_one_start", "last_fifth", "training_error"]

SAME_MEV_PER_A = 1e-2
"""Mean force errors of one network on the same frames agree to this on any machine; those of two networks do not."""

SAME_IN_SINGLE_PRECISION_MEV_PER_A = 5e-2
"""As above where a network is computed by PyTorch in single precision, as it is with a correction beside it. Against
double precision, single force components of `pbe-r2scan` were then off by up to 0.7 meV/Å and mean errors by 0.012; by
the compiled library, by 0.005 and 0.00001."""

STILL_FALLING = 0.05
"""A run whose validation error falls by more than this share in its last fifth has not arrived."""

FEWEST_LOOKS = 5
"""With fewer validations after the first step, evenly spread, a run's last fifth holds none but the one at its end."""

_FORCE = "validation_force_mae_mev_per_a"


def check_one_start(units: Mapping[Any, "Unit"], runs: "Iterable[FinetuneResult]") -> None:
    """Refuse units of one start whose forces before training differ: references cannot change a force.

    Parameters
    ----------
    units : mapping to Unit
        Those of one comparison, whatever they are called. Units without a start begin with one pretrained model; those
        from scratch are passed over. Only units with the same validation frames and labels are held against each other.
    runs : iterable of FinetuneResult
        In the order of the units.

    Raises
    ------
    LessonError
        Units that began with different networks; names two of them and what to do.
    """
    first: dict[tuple, tuple[str, float]] = {}
    for unit, run in zip(units.values(), runs, strict=True):
        if find_method(unit.method).start == "scratch" or _FORCE not in run.history:
            continue
        before = float(run.history[_FORCE].iloc[0])
        start = unit.start.name if unit.start is not None else ""
        rows = np.ascontiguousarray(unit.split["validation"], dtype=np.int64).tobytes()
        labels = "" if unit.frames is None else unit.frames.fingerprint()
        name, expected = first.setdefault((start, labels, rows), (unit.name, before))
        is_corrected = isinstance(find_method(unit.method).strategy, Delta)
        if abs(before - expected) > (SAME_IN_SINGLE_PRECISION_MEV_PER_A if is_corrected else SAME_MEV_PER_A):
            whose = f"the start {start!r}" if start else "the pretrained model"
            again = f"units that begin with {start!r}, and that one," if start else "units of the older one"
            raise LessonError(
                f"units {name!r} and {unit.name!r} both say that they begin with {whose}, but before any training "
                f"their force errors on the same validation frames are {expected:.4g} and {before:.4g} meV/Å: they "
                f"began with different networks, as when a start is made again on another machine. Delete all {again} "
                "and make them on one machine."
            )


def training_error(history) -> float:
    """Lowest error in the energies of a run's own training frames, meV/atom; NaN of a run without a step."""
    return float(history[f"train_{METRICS['energy']}"].min())


def last_fifth(history, metric: str) -> float:
    """Return by how much of itself a validation error fell in the last fifth of a run's steps.

    Parameters
    ----------
    history : DataFrame
        History of a `FinetuneResult`.
    metric : str
        Without "validation_" in front.

    Returns
    -------
    float
        1 - end / before, from the last validation that the first four fifths hold, which may lie before their end;
        negative where the error rose. NaN with fewer than `FEWEST_LOOKS` validations after step 0, or none in the first
        four fifths: "before" would be the last third of a run, or all of it.
    """
    seen = history[["step", f"validation_{metric}"]].dropna()
    before = seen[seen["step"] <= 0.8 * seen["step"].max()]
    if (seen["step"] > 0).sum() < FEWEST_LOOKS or before.empty:
        return float("nan")
    return float(1 - seen.iloc[-1, 1] / before.iloc[-1, 1])
