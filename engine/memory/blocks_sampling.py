"""What sampling answers holds: keys and values of every token so far, logits of the next one. Pure."""

from ..specs.estimate import Term
from ..specs.workload import DTYPE_BYTES, Workload

SOURCE = (
    "transformers 5.23, cache_utils.py (DynamicCache), generation/utils.py (float32 scores of the last token)"
)
SCORES = 3
"""float32 copies of the next token's logits: the scores, those that are warped, and their softmax."""


def sampling_terms(w: Workload) -> tuple[Term, ...]:
    """Return what is held at the end of the longest answers.

    trl 1.16 samples the answers of all micro batches of a step at once (``steps_per_generation``).
    """
    model, item_bytes = w.model, DTYPE_BYTES[w.autocast or w.weights]
    if not model.num_layers or not model.vocab_size:
        return ()
    width = _cache_width(w)
    answers = w.micro_batch_size * w.gradient_accumulation_steps
    tokens = answers * w.sequence_tokens
    return (
        Term(
            name="keys and values of the answers",
            group="activations",
            num_bytes=_cached_layers(w) * tokens * width * item_bytes,
            phases=("generate",),
            formula=f"{_cached_layers(w)} layers x {tokens:,} tokens x {width:,} x {item_bytes} B",
            source=SOURCE,
        ),
        Term(
            name="logits of the next token",
            group="logits",
            num_bytes=answers * model.vocab_size * (4 * SCORES + item_bytes),
            phases=("generate",),
            formula=f"{answers:,} answers x {model.vocab_size:,} x {4 * SCORES + item_bytes} B",
            source=SOURCE,
        ),
    )


def _cache_width(w: Workload) -> int:
    """Keys and values of one token and layer; latent attention caches what they are made of."""
    model = w.model
    if model.latent:
        return model.latent.kv_lora_rank + model.latent.qk_rope_head_dim
    heads = model.num_kv_heads or model.num_heads or 1
    return 2 * heads * (model.head_dim or 0)


def _cached_layers(w: Workload) -> int:
    """Layers whose cache grows with the answer."""
    if w.model.layer_types is None:
        return w.model.num_layers or 0
    return sum("linear" not in name and name not in ("mamba", "conv") for name in w.model.layer_types)
