"""Step time of a strategy on a machine, with its arithmetic: pure, and honest about how sure it is."""

from .correct import alike, corrected
from .flops import per_token
from .links import talks_over_bus
from .step import predict

__all__ = ["alike", "corrected", "per_token", "predict", "talks_over_bus"]
