"""The shape of a model from its configuration: pure, and never from its name."""

from ..specs.adapter import Adapter
from .config import TooLong, spec_from_config
from .families import model_types
from .trainable import Trainable, num_trainable

__all__ = ["Adapter", "TooLong", "Trainable", "model_types", "num_trainable", "spec_from_config"]
