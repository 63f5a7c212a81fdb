"""Step time of a strategy on a machine, with its arithmetic: pure, and honest about how sure it is."""

from .flops import per_token
from .step import predict

__all__ = ["per_token", "predict"]
