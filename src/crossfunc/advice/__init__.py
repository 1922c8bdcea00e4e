"""What a model and a dataset say of each other, and what to do about it."""

from crossfunc.advice.verdict import Verdict, VerdictError, judge_predictions, verdict

__all__ = ["Verdict", "VerdictError", "judge_predictions", "verdict"]
