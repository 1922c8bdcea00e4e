"""Fine-tuning: four methods through one loop, on whatever labels a dataset has."""

from crossfunc.training.evaluate import EvaluationError, FramePredictions, evaluate, predict_frames
from crossfunc.training.fit import FinetuneResult, finetune
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.methods import METHODS, Method, MethodError, Start, find_method, start_model
from crossfunc.training.scaling import DataEfficiency, PowerLaw, ScalingError, data_efficiency, fit_power_law
from crossfunc.training.settings import Settings

__all__ = [
    "METHODS",
    "TARGETS",
    "DataEfficiency",
    "EvaluationError",
    "FinetuneResult",
    "FramePredictions",
    "LabelledFrames",
    "Method",
    "MethodError",
    "PowerLaw",
    "ScalingError",
    "Settings",
    "Start",
    "data_efficiency",
    "evaluate",
    "find_method",
    "finetune",
    "fit_power_law",
    "predict_frames",
    "start_model",
]
