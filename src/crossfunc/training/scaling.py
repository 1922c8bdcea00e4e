"""Scaling laws: error = a N^-b from learning curves, and how many scratch frames one transfer frame is worth."""

from dataclasses import dataclass, field

import numpy as np

from crossfunc.bootstrap import student_stretch

LEVEL = 0.95
"""Probability of the intervals unless another is asked for."""


class ScalingError(ValueError):
    """Learning curves to which no power law can be fitted; the message says which value is in the way."""


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law, error(N) = prefactor x N^-exponent.

    Attributes
    ----------
    prefactor : float
        Error that the law has at N = 1, in the unit of the errors.
    exponent : float
        Positive where the error falls.
    r2 : float
        Coefficient of determination of log error over the points fitted; NaN for errors that are all equal.
    prefactor_interval, exponent_interval : tuple of float
        Percentile bootstrap intervals with probability `level`.
    level : float
    resampled : str
        "runs" where the laws of several runs were compared, "seeds" where every size has several errors, else
        "residuals".
    n, error : ndarray
        The points fitted.
    n_left_out : int
        How many points lay below `n_min`.
    samples : ndarray, shape (n_bootstrap, 2)
        Logarithm of the prefactor, and exponent, of every bootstrap sample.
    """

    prefactor: float
    exponent: float
    r2: float
    prefactor_interval: tuple[float, float]
    exponent_interval: tuple[float, float]
    level: float
    resampled: str
    n: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)
    n_left_out: int = 0
    samples: np.ndarray = field(repr=False, default=None)

    def predict(self, n) -> np.ndarray:
        """Error at `n` frames, prefactor x n^-exponent; same shape as `n`."""
        return self.prefactor * _sizes(n) ** -self.exponent

    def interval(self, n) -> tuple[np.ndarray, np.ndarray]:
        """Bootstrap interval of the law (not of a single new run) at `n` frames: lower and upper errors."""
        logs = self.samples[:, 0] - np.multiply.outer(np.log(_sizes(n)), self.samples[:, 1])
        low, high = _quantiles(np.exp(logs), self.level)
        return low, high

    def covers(self, n) -> np.ndarray:
        """Whether `n` lies between the smallest and the largest size fitted."""
        n = np.asarray(n, dtype=float)
        slack = 1e-9  # a size found by solving the law may miss a measured one by rounding
        return (n >= self.n.min() * (1 - slack)) & (n <= self.n.max() * (1 + slack))

    def summary(self) -> str:
        """One line: the law, its exponent's interval, R² and what it was fitted to."""
        low, high = self.exponent_interval
        return (
            f"error = {self.prefactor:.3g} x N^{-self.exponent:.3f} ({self.level:.0%} interval of the exponent "
            f"{low:.3f} to {high:.3f}, {self.resampled} resampled; R² = {self.r2:.3f}; {len(self.n)} errors at "
            f"{len(np.unique(self.n))} sizes from {self.n.min():,.0f} to {self.n.max():,.0f})"
        )


@dataclass(frozen=True)
class DataEfficiency:
    """How many scratch frames one transfer frame is worth: N_scratch(same error) / N_transfer.

    Attributes
    ----------
    n : ndarray, shape (k,)
        Numbers of transfer frames at which it was evaluated.
    factor, low, high : ndarray, shape (k,)
        Frames from scratch per transfer frame, with its interval; `high` is inf where some fits never get there.
    n_scratch : ndarray, shape (k,)
        Scratch frames that give the error of `n` transfer frames, factor x n.
    extrapolated : ndarray of bool, shape (k,)
        True where `n_scratch` or `n` lies outside the sizes that were measured.
    mean_factor : float
    mean_factor_interval : tuple of float
        Geometric mean of the factor over `n`, with its interval.
    level : float
    transfer, scratch : PowerLaw
    """

    n: np.ndarray
    factor: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_scratch: np.ndarray
    extrapolated: np.ndarray
    mean_factor: float
    mean_factor_interval: tuple[float, float]
    level: float
    transfer: PowerLaw = field(repr=False)
    scratch: PowerLaw = field(repr=False)

    def table(self):
        """Return a pandas table, one row for each N."""
        import pandas as pd

        columns = ("n", "factor", "low", "high", "n_scratch", "extrapolated")
        return pd.DataFrame({name: getattr(self, name) for name in columns})

    def summary(self) -> str:
        """One line per N, which says where the law is used beyond the scratch runs that were made."""
        lines = []
        for row in self.table().itertuples():
            beyond = ""
            if row.extrapolated:
                beyond = f"; an extrapolation, scratch was measured from {_range(self.scratch)}"
                if not self.transfer.covers(row.n):
                    beyond += f" and transfer from {_range(self.transfer)}"
            lines.append(
                f"at N = {row.n:,.0f} one transfer frame is worth {row.factor:.3g} scratch frames ({self.level:.0%} "
                f"interval {row.low:.3g} to {row.high:.3g}): {_count(row.n_scratch)} from scratch{beyond}"
            )
        return "\n".join(lines)


def fit_power_law(
    n, error, *, runs=None, n_min=None, n_bootstrap: int = 2000, seed: int = 0, level: float = LEVEL
) -> PowerLaw:
    """Fit error = a N^-b by least squares in log-log, with bootstrap intervals.

    Parameters
    ----------
    n : array_like, shape (n_points,)
        Number of training frames; a size appears once for every run (seed) made with it.
    error : array_like, shape (n_points,)
        For example the energy MAE in meV/atom; the prefactor has its unit.
    runs : array_like, shape (n_points,), optional
        Which points have their split, or their start, in common: the seed of each run. Such points lie above or below
        the law together.
    n_min : float, optional
        Sizes below it are left out and counted, so N = 0 may stay in the arrays. The paper fits above 1,000 frames.
    n_bootstrap : int
    seed : int
        Seed of the bootstrap's resamples.
    level : float
        Probability of the intervals.

    Returns
    -------
    PowerLaw

    Raises
    ------
    ScalingError
        Arrays of different lengths, a size or error that is not positive and finite, or fewer than 3 sizes.

    Notes
    -----
    Every point counts once. Where several `runs` have the same sizes, each has a law of its own, the law is their mean,
    and samples are drawn with the covariance of that mean: of the laws, or, where these agree by more than the scatter
    of runs about them lets expect, of that scatter. Without `runs`, errors are resampled within each size where
    all sizes have several, else the residuals of the fit, as if no two points had anything in common. All are stretched
    for the degrees of freedom they lack: by sqrt(k / (k - 1)), or sqrt(n / (n - 2)), as draws from few vary less than
    new runs would, and from the normal to Student's t. 90 % intervals from 3 runs hold the true exponent in 90 % of
    simulated cases, also where every run has a slope of its own; resampled within sizes they then hold it in fewer.
    They hold the scatter between runs, not a curve that is no power law: look at R² and at the points.
    Source: Fig. 6 of the paper; lesson 7.
    """
    if not 0 < level < 1:
        raise ScalingError(f"level must lie between 0 and 1, got {level}.")
    n, error, runs, n_left_out = _check_curve(n, error, runs, n_min)
    x, y = np.log(n), np.log(error)
    intercept, slope = _fit_lines(x, y[None])[0]
    fitted = intercept + slope * x
    total = ((y - y.mean()) ** 2).sum() if np.ptp(y) > 0 else np.nan
    samples, resampled = _sample_lines(x, y, runs, n_bootstrap, np.random.default_rng(seed), level)
    samples = samples * [1, -1]  # the exponent is the slope, turned round
    low, high = _quantiles(samples, level, axis=0)
    return PowerLaw(
        prefactor=float(np.exp(intercept)),
        exponent=float(-slope),
        r2=float(1 - ((y - fitted) ** 2).sum() / total),
        prefactor_interval=(float(np.exp(low[0])), float(np.exp(high[0]))),
        exponent_interval=(float(low[1]), float(high[1])),
        level=level,
        resampled=resampled,
        n=n,
        error=error,
        n_left_out=n_left_out,
        samples=samples,
    )


def data_efficiency(
    n_transfer,
    error_transfer,
    n_scratch,
    error_scratch,
    *,
    runs_transfer=None,
    runs_scratch=None,
    at=None,
    n_min=None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> DataEfficiency:
    """How many scratch frames one transfer frame is worth: (a_s / error_transfer(N))^(1 / b_s) / N.

    Parameters
    ----------
    n_transfer, error_transfer, n_scratch, error_scratch : array_like
        The two learning curves, as for `fit_power_law`; errors in the same unit.
    runs_transfer, runs_scratch : array_like, optional
        As `runs` of `fit_power_law`. The two laws are drawn apart, also where both curves have the same runs.
    at : float or array_like, optional
        Transfer sizes N to evaluate at; default: every transfer size that was fitted.
    n_min, n_bootstrap, seed, level
        As for `fit_power_law`; `n_min` holds for both curves.

    Returns
    -------
    DataEfficiency
        `extrapolated` marks every N whose answer lies beyond the scratch runs that were made.

    Raises
    ------
    ScalingError
        As `fit_power_law`, naming the curve; or a scratch error that does not fall with N.
    """
    options = {"n_min": n_min, "n_bootstrap": n_bootstrap, "level": level}
    # Two streams, because one seed for both curves would tie their resamples together.
    seeds = np.random.SeedSequence(seed).spawn(2)
    transfer = _fit_named("transfer", n_transfer, error_transfer, runs=runs_transfer, seed=seeds[0], **options)
    scratch = _fit_named("scratch", n_scratch, error_scratch, runs=runs_scratch, seed=seeds[1], **options)
    if scratch.exponent <= 0:
        raise ScalingError(
            f"scratch: its error does not fall with N (exponent {scratch.exponent:.3g}), so no number of scratch "
            "frames matches transfer; train longer or on more sizes."
        )
    n = np.unique(transfer.n) if at is None else np.atleast_1d(_sizes(at))
    log_factor = _log_factor(_point(transfer), _point(scratch), n)[0]
    drawn = _log_factor(transfer.samples, scratch.samples, n)
    low, high = (np.exp(bound) for bound in _quantiles(drawn, level, axis=0))
    mean_low, mean_high = _quantiles(drawn.mean(axis=1), level)
    needed = np.exp(log_factor) * n
    return DataEfficiency(
        n=n,
        factor=np.exp(log_factor),
        low=low,
        high=high,
        n_scratch=needed,
        extrapolated=~(scratch.covers(needed) & transfer.covers(n)),
        mean_factor=float(np.exp(log_factor.mean())),
        mean_factor_interval=(float(np.exp(mean_low)), float(np.exp(mean_high))),
        level=level,
        transfer=transfer,
        scratch=scratch,
    )


def _check_curve(n, error, runs, n_min) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Points that a fit may use, their runs, and how many points `n_min` left out."""
    n, error = np.asarray(n, dtype=float).ravel(), np.asarray(error, dtype=float).ravel()
    if len(n) != len(error):
        raise ScalingError(f"{len(n)} sizes but {len(error)} errors; give one error for every size.")
    if runs is not None and np.shape(runs) != error.shape:
        raise ScalingError(f"{np.size(runs)} runs but {len(error)} errors; say for every error which run it is of.")
    keep = np.ones(len(n), dtype=bool) if n_min is None else ~(n < n_min)  # NaN stays, to be refused below
    for k in np.flatnonzero(keep & ~(np.isfinite(n) & (n > 0))):
        raise ScalingError(f"point {k}: N = {n[k]:g} has no logarithm; n_min=1 leaves N = 0 out of the fit.")
    for k in np.flatnonzero(keep & ~(np.isfinite(error) & (error > 0))):
        raise ScalingError(f"point {k} (N = {n[k]:g}): an error of {error[k]:g} is not positive and finite.")
    n_sizes = len(np.unique(n[keep]))
    if n_sizes < 3:
        above = "" if n_min is None else f" of at least n_min = {n_min:g}"
        raise ScalingError(f"{n_sizes} different sizes{above}: a power law needs 3 or more.")
    return n[keep], error[keep], None if runs is None else np.asarray(runs)[keep], int((~keep).sum())


def _fit_named(name: str, n, error, **options) -> PowerLaw:
    try:
        return fit_power_law(n, error, **options)
    except ScalingError as failure:
        raise ScalingError(f"{name}: {failure}") from None


def _fit_lines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Intercept and slope of the least-squares line through every row of y, shape (rows, 2)."""
    centred = x - x.mean()
    slopes = y @ centred / (centred**2).sum()
    return np.stack([y.mean(axis=1) - slopes * x.mean(), slopes], axis=1)


def _sample_lines(x, y, runs, n_bootstrap: int, rng, level: float) -> tuple[np.ndarray, str]:
    """Draw lines as new runs would have them, shape (n_bootstrap, 2), and say what was resampled."""
    centre = _fit_lines(x, y[None])[0]
    curves = None if runs is None else _curve_of_each_run(x, y, runs)
    if curves is not None:
        covariance = _scatter_of_lines(*curves, level) / len(curves[1])
        return centre + rng.multivariate_normal(np.zeros(2), covariance, n_bootstrap, method="svd"), "runs"
    _, owner, counts = np.unique(x, return_inverse=True, return_counts=True)
    by_seed = counts.min() >= 2
    if by_seed:
        draws, n_free = _resample_seeds(y, owner, counts, n_bootstrap, rng), len(y) - len(counts)
    else:
        intercept, slope = centre
        draws, n_free = _resample_residuals(y, intercept + slope * x, n_bootstrap, rng), len(y) - 2
    return centre + student_stretch(level, n_free) * (_fit_lines(x, draws) - centre), (
        "seeds" if by_seed else "residuals"
    )


def _curve_of_each_run(x, y, runs) -> tuple[np.ndarray, np.ndarray] | None:
    """Sizes, and errors of every run at them, (k, n); None unless two runs or more have the same sizes, once each."""
    names = np.unique(runs)
    order = np.lexsort((x, runs))
    sizes = len(np.unique(x))
    if len(names) < 2 or len(y) != sizes * len(names):
        return None
    of_runs = x[order].reshape(len(names), sizes)
    if not (np.array_equal(np.sort(runs), np.repeat(names, sizes)) and (of_runs == of_runs[0]).all()):
        return None
    return of_runs[0], y[order].reshape(len(names), sizes)


def _scatter_of_lines(x: np.ndarray, curves: np.ndarray, level: float) -> np.ndarray:
    """Covariance of intercept and slope of one run, stretched for the few runs that it is known from.

    Few slopes may agree by luck. What runs scatter about lines of their own is a lower bound to what their slopes do:
    deviations from the mean curve are used, so that a curve that is no line adds nothing.
    """
    k, n = curves.shape
    centred, deviations = x - x.mean(), curves - curves.mean(axis=0)
    heights, slopes = _fit_lines(centred, deviations).T  # heights at the mean size, where they say nothing of slopes
    left = deviations - heights[:, None] - np.multiply.outer(slopes, centred)
    n_free = (k - 1) * (n - 2)
    of_height, of_slope = (student_stretch(level, k - 1) * of_runs.std(ddof=1) for of_runs in (heights, slopes))
    of_left = student_stretch(level, n_free) * np.sqrt((left**2).sum() / n_free / (centred**2).sum())
    together = np.corrcoef(heights, slopes)[0, 1] if of_slope > of_left and of_height > 0 else 0.0
    of_slope = max(of_slope, of_left)
    covariance = np.array([[of_height**2, together * of_height * of_slope], [0, of_slope**2]])
    covariance[1, 0] = covariance[0, 1]
    to_intercept = np.array([[1, -x.mean()], [0, 1]])
    return to_intercept @ covariance @ to_intercept.T


def _resample_seeds(y, owner, counts, n_bootstrap: int, rng) -> np.ndarray:
    """Draw as many errors as each size has from that size, shape (n_bootstrap, n_points)."""
    order = np.argsort(owner, kind="stable")
    starts = np.cumsum(counts) - counts
    pick = rng.random((n_bootstrap, len(y))) * counts[owner]
    drawn = y[order[starts[owner] + pick.astype(int)]]
    means = (np.bincount(owner, weights=y) / counts)[owner]
    return means + np.sqrt(counts / (counts - 1))[owner] * (drawn - means)


def _resample_residuals(y, fitted, n_bootstrap: int, rng) -> np.ndarray:
    """Put residuals, stretched by sqrt(n / (n - 2)), back on the line, shape (n_bootstrap, n_points)."""
    residuals = (y - fitted) * np.sqrt(len(y) / (len(y) - 2))
    return fitted + rng.choice(residuals, size=(n_bootstrap, len(y)))


def _point(law: PowerLaw) -> np.ndarray:
    """The fit itself in the form of its bootstrap samples, shape (1, 2)."""
    return np.array([[np.log(law.prefactor), law.exponent]])


def _log_factor(transfer: np.ndarray, scratch: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Log of scratch frames per transfer frame for rows of (log prefactor, exponent), shape (rows, len(n))."""
    log_error = transfer[:, :1] - transfer[:, 1:] * np.log(n)
    exponent = scratch[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = (scratch[:, :1] - log_error) / exponent - np.log(n)
    return np.where(exponent > 0, factor, np.inf)  # a curve that does not fall never gets there


def _quantiles(values: np.ndarray, level: float, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound; values of the sample itself, so that inf stays inf and never makes a NaN."""
    tail = (1 - level) / 2
    return (
        np.quantile(values, tail, axis=axis, method="lower"),
        np.quantile(values, 1 - tail, axis=axis, method="higher"),
    )


def _sizes(n) -> np.ndarray:
    n = np.asarray(n, dtype=float)
    if not (np.isfinite(n).all() and (n > 0).all()):
        raise ScalingError(f"a power law holds for positive numbers of frames, got {n}.")
    return n


def _range(law: PowerLaw) -> str:
    return f"{law.n.min():,.0f} to {law.n.max():,.0f} frames"


def _count(n: float) -> str:
    """A number of frames; far beyond any dataset only its size means something."""
    return f"{n:,.0f}" if n < 1e9 else f"{n:.1e}"
