"""Fine-tuning: the paper's methods and later ones through one loop, on whatever labels a dataset has."""

from crossfunc.training.baselines import (
    frame_errors,
    last_refit_ev,
    refit_references,
    refitted_energy_errors,
    slope_and_cosine,
    why_not_quote,
    zero_errors,
)
from crossfunc.training.evaluate import EvaluationError, FramePredictions, evaluate, predict_frames
from crossfunc.training.fit import FinetuneResult, finetune
from crossfunc.training.forgetting import Forgetting, forgetting, measure_forgetting
from crossfunc.training.frozen import (
    FrozenCorrection,
    FrozenModel,
    cross_validate_frozen,
    fit_frozen_correction,
    fit_frozen_model,
)
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.methods import (
    METHODS,
    STARTS,
    Method,
    MethodError,
    Start,
    find_method,
    fit_references,
    start_model,
)
from crossfunc.training.scaling import DataEfficiency, PowerLaw, ScalingError, data_efficiency, fit_power_law
from crossfunc.training.settings import Settings
from crossfunc.training.source import Source, split_source
from crossfunc.training.strategies import Strategy, StrategyError
from crossfunc.training.taught import labels_to_teach

__all__ = [
    "METHODS",
    "STARTS",
    "TARGETS",
    "DataEfficiency",
    "EvaluationError",
    "FinetuneResult",
    "Forgetting",
    "FramePredictions",
    "FrozenCorrection",
    "FrozenModel",
    "LabelledFrames",
    "Method",
    "MethodError",
    "PowerLaw",
    "ScalingError",
    "Settings",
    "Source",
    "Start",
    "Strategy",
    "StrategyError",
    "cross_validate_frozen",
    "data_efficiency",
    "evaluate",
    "find_method",
    "finetune",
    "fit_frozen_correction",
    "fit_frozen_model",
    "fit_power_law",
    "fit_references",
    "forgetting",
    "frame_errors",
    "labels_to_teach",
    "last_refit_ev",
    "measure_forgetting",
    "predict_frames",
    "refit_references",
    "refitted_energy_errors",
    "slope_and_cosine",
    "split_source",
    "start_model",
    "why_not_quote",
    "zero_errors",
]
