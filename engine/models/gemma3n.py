"""Gemma 3n: inputs per layer, alternating updates, low-rank residuals, shared keys and values."""

from .decoder import attention, ends, gated_mlp, norms
from .facts import Facts, Unknown
from .parts import Block, Body, Piece, layers, linear, norm, other

MODEL_TYPES = frozenset({"gemma3n", "gemma3n_text"})
ALTUP = "per_layer_input_altup"
TOWER, PROJECTOR, AUDIO = "vision_tower", "projector", "audio_tower"

TIMM_TOWERS = {"mobilenetv5_300m_enc": 294_126_912}
"""Picture encoders that timm builds -> parameters, recorded; all are convolutions, none is a linear layer."""

NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "post_per_layer_input_norm",
    "altup.router_norm",
    "laurel.post_laurel_norm",
)


def body(facts: Facts) -> Body:
    """Return the blocks of the language part, and of the towers when the model has them."""
    if facts.model_type == "gemma3n_text":
        return _language(facts)
    text, vision, audio = (facts.section(f"{name}_config") for name in ("text", "vision", "audio"))
    if text is None or vision is None or audio is None:
        raise Unknown("a part of text_config, vision_config and audio_config is missing")
    tied = {"tie_word_embeddings": facts.flag("tie_word_embeddings", default=True)}
    language = Facts({**text.config, **tied}, text.where, text.kind)
    towers = (*_vision(vision, text.hidden_size), *_audio(audio, text.hidden_size))
    return Body(towers) + _language(language)


def _language(facts: Facts) -> Body:
    widths = facts.value("intermediate_size")
    if isinstance(widths, list):
        per_layer = facts.wholes("intermediate_size")
    else:
        per_layer = (facts.whole("intermediate_size"),) * facts.num_layers
    if len(per_layer) != facts.num_layers:
        raise Unknown("intermediate_size does not name every layer")
    first_shared = facts.num_layers - (facts.optional("num_kv_shared_layers") or 0)
    kinds = [(width, layer >= first_shared) for layer, width in enumerate(per_layer)]
    common = (*norms(facts.hidden_size, NORMS), *_per_layer(facts))

    def make(kind: tuple[int, bool]) -> tuple[Piece, ...]:
        width, is_shared = kind
        return (*_attention(facts, is_shared=is_shared), *gated_mlp(facts.hidden_size, width), *common)

    before, after = ends(facts, tied=True)
    return Body(before + layers("Gemma3nTextDecoderLayer", kinds, make) + after + _root(facts))


def _attention(facts: Facts, *, is_shared: bool) -> tuple[Piece, ...]:
    bias = facts.flag("attention_bias", default=False)
    pieces = attention(facts, qkv_bias=bias, out_bias=bias, qk_norm="head")
    own = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm")
    return tuple(piece for piece in pieces if not (is_shared and piece.path in own))


def _per_layer(facts: Facts) -> tuple[Piece, ...]:
    hidden, width = facts.hidden_size, facts.whole("hidden_size_per_layer_input")
    streams, rank = facts.whole("altup_num_inputs"), facts.whole("laurel_rank")
    return (
        other("altup.correct_output_scale", ALTUP, hidden),
        linear("altup.correction_coefs", streams, streams, ALTUP),
        linear("altup.prediction_coefs", streams, streams * streams, ALTUP),
        linear("altup.modality_router", hidden, streams, "router"),
        linear("laurel.linear_left", hidden, rank, ALTUP),
        linear("laurel.linear_right", rank, hidden, ALTUP),
        linear("per_layer_input_gate", hidden, width, ALTUP),
        linear("per_layer_projection", width, hidden, ALTUP),
    )


def _root(facts: Facts) -> tuple[Block, ...]:
    hidden, width = facts.hidden_size, facts.whole("hidden_size_per_layer_input")
    all_layers = facts.num_layers * width
    streams = range(facts.whole("altup_num_inputs") - 1)
    return (
        Block(
            (
                other(
                    "embed_tokens_per_layer",
                    "embedding",
                    facts.whole("vocab_size_per_layer_input"),
                    all_layers,
                ),
                linear("per_layer_model_projection", hidden, all_layers, ALTUP),
                norm("per_layer_projection_norm", width),
                *(linear(f"altup_projections.{stream}", hidden, hidden, ALTUP) for stream in streams),
                *(linear(f"altup_unembed_projections.{stream}", hidden, hidden, ALTUP) for stream in streams),
            )
        ),
    )


def _embedder(facts: Facts, hidden: int, group: str) -> Block:
    width = facts.hidden_size
    return Block(
        (
            other("embedding", group, facts.vocab_size, width),
            other("hard_embedding_norm", group, width),
            other("soft_embedding_norm", group, width),
            linear("embedding_projection", width, hidden, group),
        )
    )


def _vision(vision: Facts, hidden: int) -> tuple[Block, ...]:
    name = vision.text("architecture") or "mobilenetv5_300m_enc"
    if name not in TIMM_TOWERS:
        raise Unknown(f"the picture encoder {name!r} is built by timm")
    tower = other("timm_model", TOWER, TIMM_TOWERS[name])
    return (Block((tower,), unit="TimmWrapperModel"), _embedder(vision, hidden, PROJECTOR))


def _audio(audio: Facts, hidden: int) -> tuple[Block, ...]:
    width, heads = audio.hidden_size, audio.whole("conf_num_attention_heads")
    first, second = audio.wholes("sscp_conv_channel_size")
    rows = audio.whole("input_feat_size") // 4
    outside = (
        other("subsample_conv_projection", AUDIO, 9 * first + first + 9 * first * second + second),
        linear("input_proj_linear", rows * second, width, AUDIO),
    )
    forward = ("ffw_layer_start", "ffw_layer_end")
    square = ("relative_position_embedding.pos_proj", "q_proj", "k_proj", "v_proj")
    layer = (
        *(linear(f"{name}.ffw_layer_1", width, 4 * width, AUDIO) for name in forward),
        *(linear(f"{name}.ffw_layer_2", 4 * width, width, AUDIO) for name in forward),
        *(linear(f"attention.attn.{name}", width, width, AUDIO) for name in square),
        linear("attention.post", width, width, AUDIO),
        other("attention.attn.per_dim_scale", AUDIO, width // heads),
        linear("lconv1d.linear_start", width, 2 * width, AUDIO),
        linear("lconv1d.linear_end", width, width, AUDIO),
        other("lconv1d.depthwise_conv1d", AUDIO, width, audio.whole("conf_conv_kernel_size")),
        other("norms", AUDIO, 9, width),
    )
    return (
        Block(outside),
        Block(layer, audio.whole("conf_num_hidden_layers")),
        _embedder(audio, hidden, AUDIO),
    )
