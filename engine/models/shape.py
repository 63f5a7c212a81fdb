"""From a checked configuration to all that is known of a model: widths, layer types, parameters."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ..specs.model import LatentAttention, ModelSpec, VisionTower
from . import mla, parts, vision
from .facts import MAX_LAYERS, Facts, Unknown
from .families import family_of

Value = TypeVar("Value")


def with_shape(spec: ModelSpec, facts: Facts) -> ModelSpec:
    """Return the spec with what the configuration says of its widths, and its parameters counted.

    A count that cannot be known is ``None``, with the reason in ``unknown_reason``.

    Raises:
        BadInput: A number that is used is out of bounds.
    """
    text = facts.section("text_config", "llm_config", "language_config") or facts
    spec = replace(
        spec,
        num_heads=text.optional("num_attention_heads", "n_head", "num_heads", low=1),
        num_kv_heads=_known(lambda: _kv_heads(text)),
        head_dim=_known(lambda: text.head_dim),
        intermediate_size=_width(text),
        sliding_window_tokens=_window(text),
        layer_types=_known(text.layer_types),
        latent=_latent(text),
        vision=_vision(facts),
    )
    return _counted(spec, facts)


def _counted(spec: ModelSpec, facts: Facts) -> ModelSpec:
    family = family_of(facts.model_type)
    if family is None:
        return replace(spec, unknown_reason=f"no closed form for model_type {facts.model_type!r}")
    try:
        body = family.body(facts)
    except Unknown as reason:
        return replace(spec, unknown_reason=str(reason))
    count = parts.count(body)
    heads = [piece for block in body.blocks for piece in block.pieces if piece.path == "lm_head"]
    text = facts.section("text_config", "llm_config", "language_config")
    text = vision.language(facts) if facts.model_type in vision.MODEL_TYPES else text or facts
    return replace(
        spec,
        # What the file leaves out is what transformers takes for it: only then is the rest counted.
        num_layers=spec.num_layers or text.num_layers,
        hidden_size=spec.hidden_size or text.hidden_size,
        vocab_size=spec.vocab_size or text.vocab_size,
        max_position_embeddings=spec.max_position_embeddings
        or text.optional("max_position_embeddings", "n_positions", low=1),
        tie_word_embeddings=any(piece.is_tied for piece in heads) if heads else None,
        experts=body.experts,
        parameters=count,
    )


def _known(read: Callable[[], Value]) -> Value | None:
    try:
        return read()
    except Unknown:
        return None


def _kv_heads(text: Facts) -> int:
    if text.model_type == "falcon" and not text.flag("new_decoder_architecture", default=False):
        return 1 if text.flag("multi_query", default=True) else text.num_heads
    return text.whole("num_key_value_heads", "num_kv_heads", default=text.num_heads)


def _width(text: Facts) -> int | None:
    """Some files hold one width per layer."""
    if isinstance(text.value("intermediate_size"), list):
        return max(text.wholes("intermediate_size"), default=None)
    return text.optional("intermediate_size", "n_inner", "ffn_dim", low=1)


def _window(text: Facts) -> int | None:
    """Files say 0, null or ``use_sliding_window: false`` when there is none."""
    if not text.flag("use_sliding_window", default=True):
        return None
    return text.optional("sliding_window") or None


def _latent(text: Facts) -> LatentAttention | None:
    return _known(lambda: mla.latent(text)) if text.optional("kv_lora_rank") else None


def _vision(facts: Facts) -> VisionTower | None:
    tower = facts.section("vision_config")
    if tower is None:
        return None
    return VisionTower(
        num_layers=tower.optional("num_hidden_layers", "depth", low=1, high=MAX_LAYERS),
        hidden_size=tower.optional("embed_dim", "hidden_size", low=1),
        num_heads=tower.optional("num_attention_heads", "num_heads", "attention_heads"),
        intermediate_size=tower.optional("intermediate_size"),
        patch_size=None if isinstance(tower.value("patch_size"), list) else tower.optional("patch_size"),
    )
