"""Fine-tuning: the paper's methods and later ones through one loop, on whatever labels a dataset has."""

from crossfunc.training.evaluate import EvaluationError, FramePredictions, evaluate, predict_frames
from crossfunc.training.fit import FinetuneResult, finetune
from crossfunc.training.forgetting import Forgetting, forgetting, measure_forgetting
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.methods import METHODS, STARTS, Method, MethodError, Start, find_method, start_model
from crossfunc.training.scaling import DataEfficiency, PowerLaw, ScalingError, data_efficiency, fit_power_law
from crossfunc.training.settings import Settings
from crossfunc.training.source import Source, split_source
from crossfunc.training.strategies import Strategy, StrategyError

__all__ = [
    "METHODS",
    "STARTS",
    "TARGETS",
    "DataEfficiency",
    "EvaluationError",
    "FinetuneResult",
    "Forgetting",
    "FramePredictions",
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
    "data_efficiency",
    "evaluate",
    "find_method",
    "finetune",
    "fit_power_law",
    "forgetting",
    "measure_forgetting",
    "predict_frames",
    "split_source",
    "start_model",
]
