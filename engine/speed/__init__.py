"""Step time of a strategy on a machine, with its arithmetic: pure, and honest about how sure it is."""

from .correct import alike, corrected
from .flops import per_token
from .moving import GATHERING
from .step import predict

__all__ = ["GATHERING", "alike", "corrected", "per_token", "predict"]
