"""Labels that are not what they are said to be: measured on the data and against published models, then refused."""

from crossfunc.label_checks.faults import WrongLabelError, add_label_findings, find_label_faults, refuse_wrong_labels
from crossfunc.label_checks.units import Scale, scale_against_model

__all__ = [
    "Scale",
    "WrongLabelError",
    "add_label_findings",
    "find_label_faults",
    "refuse_wrong_labels",
    "scale_against_model",
]
