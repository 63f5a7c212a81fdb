"""The shape of a model, read from its configuration and never guessed from its name."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What the planner knows of a model. Counts are per whole model; unknown is ``None``."""

    model_type: str
    architecture: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    """Longest sequence in tokens that the position embedding was made for."""
