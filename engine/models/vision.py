"""Models that see: a language model of another family, a tower, and a projector between them."""

from collections.abc import Callable
from dataclasses import dataclass

from . import dense, gemma4, linear_attention, moe, qwen_vision, towers
from .decoder import attention, ends, gated_mlp, norms
from .facts import Facts, Unknown
from .parts import Block, Body, Family, Piece, layers, linear, other

PROJECTOR = "projector"
TEXTS: tuple[Family, ...] = (dense, moe, linear_attention, gemma4)
"""Families that a tower can stand before."""


@dataclass(frozen=True, slots=True)
class Seeing:
    """A model's configuration and its parts."""

    facts: Facts
    text: Facts
    vision: Facts


TEXT_TIES = frozenset({"llama4", "mllama"})
"""Models whose language part decides whether its output layer is tied; of others it is the whole model."""

EITHER_TIES = frozenset({"llava", "glm4v", "qwen2_vl", "qwen2_5_vl"})
"""Models in which it is enough when one of the two says so."""


def body(facts: Facts) -> Body:
    """Return the blocks of a model that sees."""
    vision = facts.section("vision_config")
    if vision is None:
        raise Unknown("vision_config is missing")
    text = language(facts)
    return Body(TOWERS[facts.model_type](Seeing(facts, text, vision))) + _language_body(facts, text)


def language(facts: Facts) -> Facts:
    """Return the language part; older files write it beside the picture part."""
    text = facts.section("text_config", "llm_config", "language_config") or facts
    config = dict(text.config)
    if facts.model_type not in TEXT_TIES:
        is_tied = facts.flag("tie_word_embeddings", default=False)
        is_tied |= facts.model_type in EITHER_TIES and text.flag("tie_word_embeddings", default=False)
        config["tie_word_embeddings"] = is_tied
    kind = text.model_type if text is not facts else f"{facts.model_type}_text"
    return Facts(config, facts.where, kind)


def _language_body(facts: Facts, text: Facts) -> Body:
    if facts.model_type == "mllama":
        return _mllama_text(text)
    build = next((family.body for family in TEXTS if text.model_type in family.MODEL_TYPES), None)
    if build is not None:
        return build(text)
    raise Unknown(f"the language part {text.model_type!r} is not in the closed form")


def _qwen2_vl(model: Seeing) -> tuple[Block, ...]:
    return qwen_vision.qwen2(model.vision)


def _qwen2_5_vl(model: Seeing) -> tuple[Block, ...]:
    return qwen_vision.qwen2_5(model.vision)


def _qwen3_vl(model: Seeing) -> tuple[Block, ...]:
    units = {
        "qwen3_vl": "Qwen3VLVisionBlock",
        "qwen3_vl_moe": "Qwen3VLMoeVisionBlock",
        "qwen3_5": "Qwen3_5VisionBlock",
        "qwen3_5_moe": "Qwen3_5MoeVisionBlock",
    }
    return qwen_vision.qwen3(model.vision, units[model.facts.model_type])


def _glm4v(model: Seeing) -> tuple[Block, ...]:
    return qwen_vision.glm4(model.vision)


def _gemma3(model: Seeing) -> tuple[Block, ...]:
    width = model.vision.hidden_size
    projector = (
        other("mm_input_projection_weight", PROJECTOR, width, model.text.hidden_size),
        other("mm_soft_emb_norm", PROJECTOR, width),
    )
    return (*towers.siglip(model.vision), Block(projector))


def _gemma4(model: Seeing) -> tuple[Block, ...]:
    hidden = model.text.hidden_size
    projector = linear("embed_vision.embedding_projection", model.vision.hidden_size, hidden, PROJECTOR)
    audio = model.facts.section("audio_config")
    heard = towers.gemma4_audio(audio, hidden) if audio is not None else ()
    return (*towers.gemma4(model.vision), Block((projector,)), *heard)


def _mistral3(model: Seeing) -> tuple[Block, ...]:
    width, hidden = model.vision.hidden_size, model.text.hidden_size
    bias = model.facts.flag("multimodal_projector_bias", default=False)
    merged = width * model.facts.whole("spatial_merge_size", default=2) ** 2
    projector = (
        other("norm", PROJECTOR, width),
        linear("patch_merger.merging_layer", merged, width, PROJECTOR),
        linear("linear_1", width, hidden, PROJECTOR, bias=bias),
        linear("linear_2", hidden, hidden, PROJECTOR, bias=bias),
    )
    return (*towers.pixtral(model.vision), Block(projector))


def _llava(model: Seeing) -> tuple[Block, ...]:
    if model.vision.model_type != "clip_vision_model":
        raise Unknown(f"the picture part {model.vision.model_type!r} is not in the closed form")
    hidden, bias = model.text.hidden_size, model.facts.flag("multimodal_projector_bias", default=True)
    chosen = model.facts.value("vision_feature_layer")
    num_features = len(chosen) if isinstance(chosen, list) else 1
    projector = (
        linear("linear_1", model.vision.hidden_size * num_features, hidden, PROJECTOR, bias=bias),
        linear("linear_2", hidden, hidden, PROJECTOR, bias=bias),
    )
    return (*towers.clip(model.vision), Block(projector))


def _internvl(model: Seeing) -> tuple[Block, ...]:
    ratio = model.facts.value("downsample_ratio") or 0.5
    if not isinstance(ratio, int | float) or not 0.01 <= ratio <= 1:  # noqa: PLR2004 - a sane share
        raise Unknown("downsample_ratio is not between 0 and 1")
    width, hidden = round(model.vision.hidden_size / ratio**2), model.text.hidden_size
    projector = (
        Piece("layer_norm", PROJECTOR, (width,), bias=True),
        linear("linear_1", width, hidden, PROJECTOR, bias=True),
        linear("linear_2", hidden, hidden, PROJECTOR, bias=True),
    )
    return (*towers.internvl(model.vision), Block(projector))


def _llama4(model: Seeing) -> tuple[Block, ...]:
    projector = linear("linear_1", model.vision.whole("vision_output_dim"), model.text.hidden_size, PROJECTOR)
    return (*towers.llama4(model.vision), Block((projector,)))


def _mllama(model: Seeing) -> tuple[Block, ...]:
    width = model.vision.whole("vision_output_dim")
    projector = linear("multi_modal_projector", width, model.text.hidden_size, PROJECTOR, bias=True)
    return (*towers.mllama(model.vision), Block((projector,)))


def _mllama_text(text: Facts) -> Body:
    """A Llama whose embedding has eight rows more than its output, and layers that look at the picture."""
    hidden = text.hidden_size
    if text.value("cross_attention_layers") is None:
        raise Unknown("cross_attention_layers is missing")
    crossing = set(text.wholes("cross_attention_layers"))
    common = (*gated_mlp(hidden, text.whole("intermediate_size")), *norms(hidden))
    plain = (*attention(text), *common)
    cross = (
        *attention(text, prefix="cross_attn.", qk_norm="head"),
        other("cross_attn_attn_gate", "attention", 1),
        other("cross_attn_mlp_gate", "other", 1),
        *common,
    )
    _, after = ends(text, tied=None)
    kinds = [layer in crossing for layer in range(text.num_layers)]
    blocks = layers("MllamaSelfAttentionDecoderLayer", [k for k in kinds if not k], lambda _: plain)
    blocks += layers("MllamaCrossAttentionDecoderLayer", [k for k in kinds if k], lambda _: cross)
    embedding = other("embed_tokens", "embedding", text.vocab_size + 8, hidden)
    return Body((Block((embedding,)), *blocks, *after))


TOWERS: dict[str, Callable[[Seeing], tuple[Block, ...]]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl,
    "qwen3_5": _qwen3_vl,
    "qwen3_5_moe": _qwen3_vl,
    "glm4v": _glm4v,
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "mistral3": _mistral3,
    "llava": _llava,
    "internvl": _internvl,
    "llama4": _llama4,
    "mllama": _mllama,
}
"""Model type -> its tower and projector."""

MODEL_TYPES = frozenset(TOWERS)
