"""The shape of a model from its configuration: pure, and never from its name."""

from .config import TooLong, spec_from_config

__all__ = ["TooLong", "spec_from_config"]
