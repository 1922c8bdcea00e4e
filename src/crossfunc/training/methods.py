"""The paper's four methods, two without training, and those after the paper: where a run starts, and what it trains.

A method is a value, not code: one loop trains them all. What differs is decided here, before the first step, and by
the strategy that a method may have.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crossfunc.energies import (
    AtomRefError,
    AtomRefFit,
    elements_present,
    fit_atomref,
    fit_model_aware_atomref,
    published_atomref,
    published_shift,
)
from crossfunc.energies.priors import PUBLISHED_RIDGE
from crossfunc.potential import load_model, predict
from crossfunc.potential.checkpoints import element_references, scratch_model, set_element_references
from crossfunc.symbols import ELEMENT_SYMBOLS, N_ELEMENTS
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.strategies import (
    Delta,
    ElasticWeights,
    LoRA,
    PullToStart,
    ReadoutOnly,
    Replay,
    SoftFreezing,
    Strategy,
    StrategyError,
    TwoReadouts,
    change_strategy,
)

if TYPE_CHECKING:
    from chgnet.model import CHGNet

    from crossfunc.training.source import Source

REFIT_RIDGE = 0.01
"""Pull of refitted references towards the trend in Z, in materials: nothing beside ten materials with an element."""

_Z_SQUARED = np.arange(1, N_ELEMENTS + 1, dtype=np.float64) ** 2
_PREDICTED_AT_A_TIME = 512  # frames whose graphs are in memory


class MethodError(ValueError):
    """A method that does not exist; the message lists those that do."""


@dataclass(frozen=True)
class Method:
    """Where a run starts and what it trains.

    Attributes
    ----------
    key : str
        The name in `METHODS`.
    number : int or None
        The paper's number.
    name : str
        For prose, tables and legends.
    start : "scratch" or "pretrained"
        Weights of the network.
    references : "pretrained", "refit" or "model-aware"
        Element references: those in the pretrained model; fitted to the training energies; or fitted to what the
        pretrained model leaves of them.
    train_references : bool
        Whether training moves the references.
    train_network : bool
        False: no training unless epochs are asked for.
    strategy : Strategy, optional
        What it adds to the plain loop.
    """

    key: str
    number: int | None
    name: str
    start: str
    references: str
    train_references: bool = False
    train_network: bool = True
    strategy: Strategy | None = None

    @property
    def trains(self) -> list[str]:
        """What training moves: "network", "references"."""
        return ["network"] * self.train_network + ["references"] * self.train_references

    @property
    def needs_source(self) -> bool:
        """Whether it reads frames of the source functional."""
        return self.strategy is not None and self.strategy.needs_source

    def with_options(self, options: Mapping) -> "Method":
        """Return the method with other values of its strategy's fields, for example `{"rank": 4}`."""
        return replace(self, strategy=change_strategy(self.strategy, options)) if options else self


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.key: method
        for method in (
            Method("1", 1, "from scratch, refitted references", "scratch", "refit"),
            Method("2", 2, "transfer, trainable references", "pretrained", "pretrained", train_references=True),
            Method("3", 3, "transfer, frozen references", "pretrained", "pretrained"),
            Method("4", 4, "transfer, refitted references", "pretrained", "refit"),
            Method("references-only", None, "refitted references, no training", "pretrained", "refit", False, False),
            Method("model-aware", None, "model-aware references", "pretrained", "model-aware", False, False),
            *(
                Method(key, None, name, "pretrained", "model-aware", strategy=strategy)
                for key, name, strategy in (
                    ("model-aware-trained", "model-aware, then trained", None),
                    ("readout-only", "readout only", ReadoutOnly()),
                    ("soft-freezing", "soft freezing", SoftFreezing()),
                    ("lora", "LoRA", LoRA()),
                    ("l2-sp", "pull to the start (L2-SP)", PullToStart()),
                    ("ewc", "elastic weight consolidation", ElasticWeights()),
                    ("replay", "replay", Replay()),
                    ("two-readouts", "two readouts", TwoReadouts()),
                    ("delta", "delta learning", Delta()),
                )
            ),
        )
    }
)
"""Methods by key: "1" to "4" of the paper's Table 1, two without training, and those after the paper.

"references-only" is what method 4 starts from: N = 0 in a scaling law. "model-aware" fits the references to what the
pretrained model gets wrong; asked for epochs, it goes on to train the network with these references frozen, as
"model-aware-trained" always does. All after it start from there too, each with a strategy of its own
(`crossfunc.training.strategies`).
"""

STARTS = ("1", "2", "3", "4", "references-only", "model-aware")
"""Methods that differ in where they start: the paper's four, and the two without training."""


class Start(NamedTuple):
    """What `start_model` returns."""

    model: "CHGNet"
    """The CHGNet to train."""
    references: AtomRefFit | None
    """Its element references, where they were fitted or given; None where they are those of the pretrained model."""
    notes: tuple[str, ...]
    """What a reader of the results should know: elements and combinations that the training frames do not fix."""


def find_method(method: str | int | Method) -> Method:
    """Return a method by key, number or itself.

    Raises
    ------
    MethodError
        No such method; lists all.
    """
    if isinstance(method, Method):
        return method
    found = METHODS.get(str(method))
    if found is None:
        listed = "; ".join(f"{m.key}: {m.name}" for m in METHODS.values())
        raise MethodError(f"no method {method!r}; there are {listed}.")
    return found


def start_model(
    method: str | int | Method,
    frames_train: LabelledFrames,
    *,
    pretrained="0.3.0",
    seed: int = 0,
    references=None,
    prior="auto",
    other_frames: LabelledFrames | None = None,
    source: "Source | None" = None,
) -> Start:
    """Build the model that a method starts to train.

    Parameters
    ----------
    method : str, int or Method
    frames_train : LabelledFrames
        References are fitted to these alone, each material counted once.
    pretrained : str, path or CHGNet
        For `load_model`; a model is copied.
    seed : int
        Seed of fresh weights (method 1).
    references : optional
        Other element references than the method's: "pretrained", "refit", "model-aware", the name of a published set
        ("MP-r2SCAN"), an `AtomRefFit`, or an array of shape (94,) in eV/atom. Scaling laws give all points of a curve
        the references fitted to its largest training set.
    prior : str or array_like, shape (94,)
        What refitted references are pulled to: the pretrained ones plus a shift. "trend", q Z²; "published", the shift
        from GGA/GGA+U to r2SCAN of `published_shift`; an array of shifts in eV/atom; or "auto", whichever of the two
        leaves less of the training energies before any fit.
    other_frames : LabelledFrames, optional
        Validation and test frames, for their elements only: what the training frames say nothing about is noted.
    source : Source, optional
        Frames of the source functional, for methods that need them: "ewc", "replay", "two-readouts".

    Returns
    -------
    Start
        `model`, `references`, `notes`; the model on the CPU, in float32.

    Raises
    ------
    MethodError
        No such method.
    StrategyError
        A method that needs source frames without any.
    AtomRefError
        An element without any reference in the frames (names it), or a refit without a labelled energy.
    CheckpointError
        From `load_model`.

    Notes
    -----
    A plain least-squares refit leaves elements that are not in the training frames without a reference, and splits
    what it sees only in combination in a way no element has. Both would cost tens of eV/atom, for the shift between
    functionals grows steeply with Z (to -73 eV for Pu). It is smooth in Z, though: within 0.3 eV on average between
    chgnet's published tables, each element from its neighbours. So refits are pulled, by `REFIT_RIDGE` and along
    directions the data do not fix entirely, towards the pretrained references plus q Z², q from the training frames;
    and elements not seen get q Z² plus what the elements on either side leave of it. Lesson 4. Where both functionals
    are those of the published tables, their shift is the better prior: on 10 materials of the Materials Project it
    brings model-aware references from 0.8 to 0.2 eV/atom (lesson 3), and elements not seen get it as it is.
    """
    method = find_method(method)
    base = copy.deepcopy(as_model(pretrained)).float().cpu()  # a model trained in double precision stays so in memory
    chosen = method.references if references is None else references
    base_ev = element_references(base)
    if method.start == "scratch" and isinstance(chosen, str) and chosen == "model-aware":
        raise MethodError(
            f"method {method.key} starts from fresh weights: there is no model to be aware of; use 'refit'."
        )
    fit, notes, shift = _make_references(chosen, base, base_ev, frames_train, prior)
    model = base if method.start == "pretrained" else scratch_model(seed)
    energies = base_ev if fit is None else fit.energies_ev
    everything = [frames_train] if other_frames is None else [frames_train, other_frames]
    _check_coverage(energies, everything)
    if fit is not None or method.start == "scratch":
        origin = f"those of {_name(pretrained)}" if fit is None else fit.source
        set_element_references(model, np.nan_to_num(energies), source=origin)
    if model.composition_model is not None:
        model.composition_model.fc.weight.requires_grad_(method.train_references)
    if method.strategy is not None:
        if method.needs_source and source is None:
            raise StrategyError(f"method {method.key} needs frames of the source functional: give source=...")
        method.strategy.prepare(model, source, seed=seed)
    return Start(model, fit, (*notes, *_note_unseen(fit, shift, frames_train, other_frames)))


def as_model(pretrained):
    """Return a model that is given as one, or by name or path."""
    return pretrained if hasattr(pretrained, "model_args") else load_model(pretrained)


class _Shift(NamedTuple):
    """What refitted references are pulled to, as a shift of the pretrained ones."""

    ev: np.ndarray  # (94,)
    ridge: float  # materials
    words: str
    slope: float | None = None  # of the trend; then elements not seen also get what their neighbours leave of it

    def extend(self, fit: AtomRefFit, base_ev: np.ndarray) -> np.ndarray:
        """The fitted references, and those of elements not seen."""
        if self.slope is None:
            return np.where(fit.seen, fit.energies_ev, base_ev + self.ev)
        return _extend(fit.energies_ev, fit.seen, base_ev, self.slope)


def _make_references(
    chosen, base, base_ev: np.ndarray, frames: LabelledFrames, prior
) -> tuple[AtomRefFit | None, list[str], _Shift | None]:
    """The references a run starts with (None: those of the pretrained model), what to know about them, the prior."""
    if not isinstance(chosen, str) or chosen not in ("pretrained", "refit", "model-aware"):
        given = published_atomref(chosen) if isinstance(chosen, str) else chosen
        given = given if isinstance(given, AtomRefFit) else _from_array(given)
        energies = _extend(given.energies_ev, np.isfinite(given.energies_ev), base_ev, None)
        return replace(given, energies_ev=energies), [], None
    if chosen == "pretrained":
        return None, [], None
    rows = np.flatnonzero(frames.labelled("energy"))
    if not len(rows):
        raise AtomRefError(f"none of the {len(frames)} training frames has an energy to fit references to.")
    predicted = _predict_energies(base, frames, rows) if chosen == "model-aware" else None
    labels = frames.composition[rows], frames.energy_per_atom_ev[rows], frames.material_ids[rows]
    fit, shift = _fit_references(*labels, base_ev, predicted, prior)
    return fit, _note_combinations(fit, shift), shift


def fit_references(X, energy_per_atom_ev, material_ids, base_ev, *, predicted_per_atom_ev=None, prior="auto"):
    """Element references as `start_model` fits them, from arrays: refitted, or with predictions model-aware.

    Parameters
    ----------
    X : sparse array, shape (n_rows, 94)
        Atomic fractions.
    energy_per_atom_ev : array_like, shape (n_rows,)
        Labels.
    material_ids : array_like, shape (n_rows,)
    base_ev : array_like, shape (94,)
        References of the pretrained model; NaN where it has none.
    predicted_per_atom_ev : array_like, shape (n_rows,), optional
        The pretrained model's energies: the references are then those that correct it.
    prior : str or array_like
        As for `start_model`.

    Returns
    -------
    AtomRefFit
        With a value for every element that `base_ev` has; `source` names the prior.
    """
    arrays = [np.asarray(values, float) for values in (energy_per_atom_ev, base_ev)]
    predicted = None if predicted_per_atom_ev is None else np.asarray(predicted_per_atom_ev, float)
    return _fit_references(X, arrays[0], np.asarray(material_ids), arrays[1], predicted, prior)[0]


def _fit_references(X, energies, ids, base_ev: np.ndarray, predicted, prior) -> tuple[AtomRefFit, _Shift]:
    """References about the pretrained ones, moved by the prior's shift; `predicted`: to what the model leaves."""
    start = _fill_gaps(base_ev) if predicted is None else np.nan_to_num(base_ev)  # what a model does add, if only 0
    shift = _choose_shift(prior, X, energies - (X @ start if predicted is None else predicted), ids)
    options = {"material_ids": ids, "ridge": shift.ridge}
    if predicted is None:
        fit, words = fit_atomref(X, energies, prior=start + shift.ev, **options), "refit"
    else:
        fit = fit_model_aware_atomref(X, energies, predicted + X @ shift.ev, start + shift.ev, **options)
        words = "model-aware refit"
    source = f"{words} to {len(energies)} training frames; prior: {shift.words}"
    return replace(fit, energies_ev=shift.extend(fit, base_ev), source=source), shift


def _choose_shift(prior, X, difference: np.ndarray, material_ids: np.ndarray) -> _Shift:
    """The prior asked for; "auto" is the one that leaves less of the difference, each material counted once."""
    if isinstance(prior, str) and prior not in _PRIORS:
        raise AtomRefError(f"no prior {prior!r}: choose one of {', '.join(_PRIORS)}, or give {N_ELEMENTS} shifts in eV")
    if not isinstance(prior, str):
        given = np.array(prior, dtype=np.float64)
        if given.shape != (N_ELEMENTS,) or not np.isfinite(given).all():
            raise AtomRefError(f"prior has shape {given.shape}: give {N_ELEMENTS} finite shifts in eV/atom, H to Pu")
        return _Shift(given, PUBLISHED_RIDGE, "given shifts")
    slope = _slope(X, difference, material_ids)
    trend = _Shift(slope * _Z_SQUARED, REFIT_RIDGE, "the trend with Z", slope)
    if prior == "trend":
        return trend
    published = _Shift(published_shift().shift_ev, PUBLISHED_RIDGE, "the published shift to r2SCAN")
    if prior == "published":
        return published
    _, group, count = np.unique(material_ids, return_inverse=True, return_counts=True)
    return min(trend, published, key=lambda s: np.average(np.abs(difference - X @ s.ev), weights=1 / count[group]))


_PRIORS = ("auto", "trend", "published")


def _predict_energies(model, frames: LabelledFrames, rows: np.ndarray) -> np.ndarray:
    """Energies per atom that a model predicts, a few hundred frames at a time."""
    parts = np.split(rows, range(_PREDICTED_AT_A_TIME, len(rows), _PREDICTED_AT_A_TIME))
    crystals = (frames.crystals.take(part) for part in parts)
    return np.concatenate([predict(model, c, derivatives=False)["energy_per_atom_ev"] for c in crystals])


def _slope(X, difference: np.ndarray, material_ids: np.ndarray) -> float:
    """Slope q of the trend: least squares of difference = q X Z², each material counted once."""
    _, group, count = np.unique(material_ids, return_inverse=True, return_counts=True)
    weights, trend = 1 / count[group], X @ _Z_SQUARED
    return float((weights * trend) @ difference / ((weights * trend) @ trend))


def _extend(energies_ev: np.ndarray, seen: np.ndarray, base_ev: np.ndarray, slope: float | None) -> np.ndarray:
    """Add references for elements not seen: the pretrained ones, plus q Z², plus what the seen neighbours leave."""
    known = seen & np.isfinite(energies_ev) & np.isfinite(base_ev)
    shift = energies_ev - base_ev
    if slope is None:
        slope = (
            float(shift[known] @ _Z_SQUARED[known] / (_Z_SQUARED[known] @ _Z_SQUARED[known])) if known.any() else 0.0
        )
    trend = slope * _Z_SQUARED
    everywhere = np.arange(N_ELEMENTS)
    left = np.interp(everywhere, everywhere[known], (shift - trend)[known]) if known.any() else np.zeros(N_ELEMENTS)
    return np.where(seen, energies_ev, base_ev + trend + left)


def _fill_gaps(base_ev: np.ndarray) -> np.ndarray:
    """The pretrained references, those it lacks interpolated in Z: where a refit starts from, nothing more."""
    known = np.flatnonzero(np.isfinite(base_ev))
    return np.interp(np.arange(N_ELEMENTS), known, base_ev[known]) if len(known) else np.zeros(N_ELEMENTS)


def _from_array(given) -> AtomRefFit:
    energies = np.array(given, dtype=np.float64)
    if energies.shape != (N_ELEMENTS,) or np.isinf(energies).any():
        raise AtomRefError(f"references have shape {energies.shape}: give {N_ELEMENTS} energies or NaN, H to Pu.")
    return AtomRefFit(
        energies_ev=energies,
        std_error_ev=np.full(N_ELEMENTS, np.nan),
        determined=np.isfinite(energies),
        frames_per_element=None,
        materials_per_element=None,
        null_space=np.zeros((0, N_ELEMENTS)),
        rank=None,
        n_frames=None,
        n_materials=None,
        rmse_ev_per_atom=float("nan"),
        mae_ev_per_atom=float("nan"),
        source="given array",
    )


def _check_coverage(energies_ev: np.ndarray, several: list[LabelledFrames]) -> None:
    for frames in several:
        lacking = [symbol for symbol in frames.elements() if np.isnan(energies_ev[ELEMENT_SYMBOLS.index(symbol)])]
        if lacking:
            with_it = frames.frames_with(lacking[0])
            raise AtomRefError(
                f"no element reference for {', '.join(lacking)} (frame {frames.frame_ids[with_it[0]]}; {len(with_it)} "
                f"frames with {lacking[0]}): the pretrained model has none and the training frames give none. Leave "
                "these frames out, train on frames with the element by a method that refits, or pass references=..."
            )


def _note_combinations(fit: AtomRefFit, shift: _Shift) -> list[str]:
    if not fit.null_space_elements:
        return []
    return [
        f"The training frames fix the references of {', '.join(fit.null_space_elements)} only in combination; how they "
        f"share it follows the pretrained references and {shift.words}."
    ]


def _note_unseen(
    fit: AtomRefFit | None, shift: _Shift | None, frames: LabelledFrames, other_frames: LabelledFrames | None
) -> list[str]:
    if fit is None or fit.frames_per_element is None or other_frames is None:
        return []
    needed = elements_present(frames.composition) + elements_present(other_frames.composition)
    unseen = [s for k, s in enumerate(ELEMENT_SYMBOLS) if s in needed and not fit.frames_per_element[k]]
    if not unseen:
        return []
    n_frames = len(np.unique(np.concatenate([other_frames.frames_with(symbol) for symbol in unseen])))
    moved = "as given" if shift is None else f"the pretrained ones moved by {_describe_shift(shift, unseen)}"
    return [
        f"No training energy holds {', '.join(unseen)}: their references are {moved}, good to some tenths of an eV at "
        f"best; {n_frames} validation or test frames hold them."
    ]


def _describe_shift(shift: _Shift, symbols: list[str]) -> str:
    if shift.words != "the published shift to r2SCAN":
        return shift.words
    return f"{shift.words} ({published_shift().describe(symbols)})"


def _name(pretrained) -> str:
    return os.fspath(pretrained) if isinstance(pretrained, (str, os.PathLike)) else "the given model"
