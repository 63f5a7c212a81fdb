"""What optimizers need and cannot do, as data: packages, engines, methods."""

from collections.abc import Mapping
from dataclasses import dataclass

from .method import Optimizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """What an optimizer needs besides the training stack."""

    module: str
    """What Python imports."""
    install: str
    """What a person types."""


BITSANDBYTES = Package(module="bitsandbytes", install="pip install 'ftwiz[quant]'")
GALORE_TORCH = Package(module="galore_torch", install="pip install --no-deps galore-torch")
APOLLO_TORCH = Package(module="apollo_torch", install="pip install --no-deps apollo-torch")

GALORE: frozenset[str] = frozenset(
    {"galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise"}
)
APOLLO: frozenset[str] = frozenset({"apollo_adamw", "apollo_adamw_layerwise"})
LOW_RANK = GALORE | APOLLO
"""Project the gradient of whole matrices."""
LAYERWISE: frozenset[str] = frozenset({"galore_adamw_layerwise", "apollo_adamw_layerwise"})
"""Use every gradient as soon as it is there."""
BNB: tuple[Optimizer, ...] = (
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "rmsprop_bnb_32bit",
    "rmsprop_bnb_8bit",
)
"""Made by bitsandbytes. Source: transformers 5.23, trainer_optimizer.py, _get_bitsandbytes_optimizer."""

PACKAGES: Mapping[str, Package] = {
    **dict.fromkeys(BNB, BITSANDBYTES),
    **dict.fromkeys(sorted(GALORE), GALORE_TORCH),
    **dict.fromkeys(sorted(APOLLO), APOLLO_TORCH),
}
"""Optimizer -> what it needs. Source: transformers 5.23, trainer_optimizer.py."""
