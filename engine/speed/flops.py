"""Floating-point operations of a step, by architecture and by what is trained.

Sources: Kaplan et al. 2020, arXiv 2001.08361 (2 operations per weight and token forward, twice that
backward); Dao 2023, arXiv 2307.08691 (attention: 4 x length x width, halved by causality, 2.5 times that
backward).
"""

from dataclasses import dataclass
from functools import lru_cache

from ..models import num_trainable
from ..specs.adapter import Adapter
from ..specs.model import ModelSpec
from ..specs.workload import Workload

ATTENTION_BACKWARD = 2.5
"""Times the forward pass; the scores are computed again (FlashAttention-2, section 2.3)."""
CHECKPOINTED = {"none": 0.0, "full": 1.0, "every-2nd": 0.5, "selective-op": 0.4}
"""Share of the forward pass that is computed a second time. selective-op keeps every second matrix product
and attention (torchtitan's policy), so less than half of the products are repeated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Operations per token of one rank."""

    forward: float
    backward: float
    recomputed: float

    @property
    def total(self) -> float:
        """All of a step's operations per token."""
        return self.forward + self.backward + self.recomputed


def per_token(workload: Workload) -> Flops:
    """Return the operations per token of a workload whose model's parameters are known."""
    products = 2.0 * num_multiplied(workload.model)
    attention = _attention(workload.model, workload.sequence_tokens)
    adapter = 2.0 * num_adapter(workload.model, workload.adapter) if workload.method == "lora" else 0.0
    forward = products + attention + adapter
    backward = products * _backward_products(workload) + ATTENTION_BACKWARD * attention + 2 * adapter
    head = 2.0 * (workload.model.vocab_size or 0) * (workload.model.hidden_size or 0)
    recomputed = (forward - head) * CHECKPOINTED[workload.checkpointing]
    if workload.loss == "fused-tiles":
        recomputed += head  # its backward pass computes the scores of every tile again
    return Flops(forward=forward, backward=backward, recomputed=recomputed)


def _backward_products(workload: Workload) -> float:
    """Gradients of inputs always; gradients of weights only where weights are trained."""
    if workload.method == "full":
        return 2.0
    layers = workload.model.num_layers
    if workload.method == "freeze" and layers:
        return 2.0 * min(workload.num_trainable_layers or layers, layers) / layers
    return 1.0


@lru_cache(maxsize=64)
def num_multiplied(spec: ModelSpec) -> int:
    """Return how many weights a token is multiplied with: active ones, the output layer once, no look-ups."""
    count = spec.parameters
    if count is None or spec.num_active_parameters is None:
        return 0
    return spec.num_active_parameters - (
        0 if spec.tie_word_embeddings else count.groups.embedding + count.groups.per_layer_input_altup
    )


@lru_cache(maxsize=64)
def num_packed(spec: ModelSpec) -> int:
    """Return how many weights a loader packs: those of linear layers but the output layer."""
    if spec.parameters is None:
        return 0
    return sum(linear.num_weights for linear in spec.parameters.linears if linear.path != "lm_head")


@lru_cache(maxsize=64)
def num_adapter(spec: ModelSpec, adapter: Adapter | None) -> int:
    """Return the parameters of an adapter; of the usual one when none is given."""
    return num_trainable(spec, adapter or Adapter()).num_adapter or 0


@lru_cache(maxsize=256)
def _attention(spec: ModelSpec, length: int) -> float:
    """Scores and their use, of all layers, per token; a window bounds what a token sees."""
    if not (spec.num_layers and spec.num_heads):
        return 0.0
    if spec.latent is not None:
        width = spec.num_heads * (spec.latent.qk_head_dim + spec.latent.v_head_dim) / 2
    else:
        width = spec.num_heads * (spec.head_dim or (spec.hidden_size or 0) // spec.num_heads)
    return sum(4.0 * width * seen for seen in _seen_tokens(spec, length))


def _seen_tokens(spec: ModelSpec, length: int) -> list[float]:
    """Return how many earlier tokens one token looks at on average, layer by layer."""
    whole = length / 2
    window = min(spec.sliding_window_tokens or length, length)
    windowed = window - window * window / (2 * length)
    kinds = spec.layer_types or ("full_attention",) * (spec.num_layers or 0)
    seen = {"sliding_attention": windowed, "chunked_attention": windowed}
    return [seen.get(kind, whole if "full" in kind or kind == "attention" else 0.0) for kind in kinds]
