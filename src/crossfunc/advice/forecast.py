r"""How large an error will be with more materials than there are, as an interval that was tested.

A learning curve of a few dozen materials is nearly flat within its noise, and read ahead by itself it promises
nothing. What other curves did ahead is known, however: :math:`\log e(N) = \log e(n) - b \log(N/n)` with
:math:`b = \alpha + \beta b_\text{seen}`, and :math:`\alpha, \beta` and the scatter :math:`\tau` of :math:`b` are learnt
from curves of other data. The half width is :math:`q\sqrt{\lambda/m + (\tau\log(N/n))^2}`: :math:`\lambda/m` is the
variance of :math:`\log e` over the m materials looked at, learnt as well, for few materials do not show how large an
error can be that is rare, and :math:`q` the conformal factor with which intervals of other data would have held what
they promise.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from crossfunc.errors import InputError

__all__ = ["CALIBRATION", "LEVEL", "Calibration", "Forecast", "SeenCurve", "calibrate", "fit_forecast"]

LEVEL = 0.8
"""Probability of the intervals."""
_LARGEST = 1e7
_STEEPEST = 1.5
_LEAST = 0.02  # scatter of an exponent: few curves may agree by luck


@dataclass(frozen=True)
class Calibration:
    """What curves of other data teach: see the module.

    Attributes
    ----------
    intercept, slope : float
        Exponent ahead = intercept + slope x exponent seen.
    level : float
        Variance of log(error) of a curve, times the materials that it looked at.
    scatter : float
        Standard deviation of the exponent ahead around that.
    factor : float
        Conformal factor of the half width for `LEVEL`.
    n_cases : int
        Curves it was learnt from.
    """

    intercept: float
    slope: float
    level: float
    scatter: float
    factor: float
    n_cases: int


@dataclass(frozen=True)
class SeenCurve:
    """What is read off a learning curve.

    Attributes
    ----------
    n : int
        Largest number of training materials.
    error : float
        Mean error with these, in the curve's unit.
    exponent : float
        Exponent of the power law through the sizes seen.
    n_materials : int
        All that were looked at, training and held out.
    """

    n: int
    error: float
    exponent: float
    n_materials: int

    @classmethod
    def of(cls, table, n_materials: int) -> "SeenCurve":
        """Read a table of `learning_curve`.

        Raises
        ------
        InputError
            Errors at fewer than two sizes, or none above zero.
        """
        means = table.groupby("n_materials")["error"].mean()
        if len(means) < 2 or not (np.isfinite(means).all() and (means > 0).all()):
            raise InputError(f"a learning curve needs errors above zero at two sizes at least, not {len(means)}.")
        slope = np.polyfit(np.log(means.index), np.log(means), 1)[0]
        return cls(int(means.index[-1]), float(means.iloc[-1]), -float(slope), n_materials)


@dataclass(frozen=True)
class Forecast:
    """Error against number of training materials, with its interval.

    Attributes
    ----------
    seen : SeenCurve
    exponent : float
        Ahead of what was seen.
    calibration : Calibration
    """

    seen: SeenCurve
    exponent: float
    calibration: Calibration

    def scale(self, n: float) -> float:
        """Standard deviation of log(error) at n materials, before the conformal factor."""
        ahead = math.log(n / self.seen.n)
        return math.hypot(math.sqrt(self.calibration.level / self.seen.n_materials), self.calibration.scatter * ahead)

    def at(self, n: float) -> tuple[float, float, float]:
        """Return the middle and the ends of the interval of the error with n materials."""
        middle = math.log(self.seen.error) - self.exponent * math.log(n / self.seen.n)
        half = self.calibration.factor * self.scale(n)
        return math.exp(middle), math.exp(middle - half), math.exp(middle + half)

    def needed_for(self, error: float) -> tuple[float, float, float]:
        """Return the middle and the ends of the number of materials at which the error is reached.

        Infinite where the interval's end never gets there below ten million; the number seen where it is there already.
        """
        if not (np.isfinite(error) and error > 0):
            raise InputError(f"error {error!r}: give one above zero.")
        sizes = np.exp(np.linspace(math.log(self.seen.n), math.log(_LARGEST), 2000))
        bounds = np.array([self.at(n) for n in sizes])
        found = []
        for k in (0, 1, 2):
            there = np.flatnonzero(bounds[:, k] <= error)
            found.append(float(max(sizes[there[0]], self.seen.n)) if len(there) else math.inf)
        middle, low, high = found
        return middle, low, high


def fit_forecast(seen: SeenCurve, calibration: Calibration | None = None) -> Forecast:
    """Forecast what a curve does beyond the sizes that were seen.

    Parameters
    ----------
    seen : SeenCurve
    calibration : Calibration, optional
        Default: that of the embedded datasets, `CALIBRATION`.
    """
    calibration = calibration or CALIBRATION
    steep = calibration.intercept + calibration.slope * seen.exponent
    return Forecast(seen, float(np.clip(steep, 0.0, _STEEPEST)), calibration)


def calibrate(seen: list[SeenCurve], n, truth, level: float = LEVEL) -> Calibration:
    """Learn from curves whose end is known.

    Parameters
    ----------
    seen : list of SeenCurve
    n, truth : array_like
        For each curve the number of materials ahead and the error found there.
    level : float
        Probability that the intervals shall have.

    Raises
    ------
    InputError
        Fewer than ten curves.
    """
    if len(seen) < 10:
        raise InputError(f"{len(seen)} curves: calibration needs ten at least.")
    n, truth = np.asarray(n, float), np.asarray(truth, float)
    ahead = np.log(n / np.array([one.n for one in seen]))
    fallen = np.log([one.error for one in seen]) - np.log(truth)
    known, weight = (np.array([getattr(one, name) for one in seen], float) for name in ("exponent", "n_materials"))
    intercept, slope = _line(known, fallen / ahead, weight)
    left = fallen - ahead * np.clip(intercept + slope * known, 0.0, _STEEPEST)
    terms = np.column_stack([1 / weight, ahead**2])
    (variance_level, variance_exponent), _ = nnls(terms, left**2)
    draft = Calibration(
        intercept, slope, float(variance_level), float(np.sqrt(max(variance_exponent, _LEAST**2))), 1.0, len(seen)
    )
    scores = [abs(one) / fit_forecast(c, draft).scale(size) for one, c, size in zip(left, seen, n, strict=True)]
    rank = min(len(scores), math.ceil((len(scores) + 1) * level))
    return replace(draft, factor=float(np.sort(scores)[rank - 1]))


def _line(seen: np.ndarray, found: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted line of exponents ahead on exponents seen; a slope between nothing and all of what was seen."""
    share = weight / weight.sum()
    mean_seen, mean_found = share @ seen, share @ found
    variance = share @ (seen - mean_seen) ** 2
    slope = float(np.clip(share @ ((seen - mean_seen) * (found - mean_found)) / variance, 0, 1)) if variance else 0.0
    return float(mean_found - slope * mean_seen), slope


CALIBRATION = Calibration(0.139398, 0.202446, 4.853568, 0.02, 1.141819, 104)
"""Learnt from all embedded datasets by `crossfunc bench forecasts`; the test suite holds it to the kept file."""
