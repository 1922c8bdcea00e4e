"""What a model and a dataset say of each other, and what to do about it."""

from crossfunc.advice.advise import Advice, advise
from crossfunc.advice.verdict import Verdict, VerdictError, judge_predictions, verdict

__all__ = ["Advice", "Verdict", "VerdictError", "advise", "judge_predictions", "verdict"]
