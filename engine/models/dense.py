"""Dense decoders of the Llama kind: one table of what each family adds to or leaves out of it."""

from dataclasses import dataclass

from .decoder import NORMS, attention, ends, gated_mlp, norms
from .facts import Facts
from .parts import Body, Piece, layers, linear, other

GEMMA_NORMS = (*NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """How a family differs from Llama. A text is the key that decides; a yes or no is always so."""

    unit: str
    qkv_bias: str | bool = "attention_bias"
    out_bias: str | bool = "attention_bias"
    mlp_bias: str | bool = False
    bias_by_default: bool = False
    """What the keys above mean when they are not set."""
    qk_norm: str | None = None
    norms: tuple[str, ...] = NORMS
    mlp: str = "gated"
    fused_qkv: bool = False
    tied: bool = False
    """What tie_word_embeddings means when it is not set."""


VARIANTS = {
    "llama": Variant(unit="LlamaDecoderLayer", mlp_bias="mlp_bias"),
    "mistral": Variant(unit="MistralDecoderLayer", qkv_bias=False, out_bias=False),
    "ministral": Variant(unit="MinistralDecoderLayer", qkv_bias=False, out_bias=False),
    "ministral3": Variant(unit="Ministral3DecoderLayer", qkv_bias=False, out_bias=False, tied=True),
    "qwen2": Variant(unit="Qwen2DecoderLayer", qkv_bias=True, out_bias=False),
    "qwen2_vl_text": Variant(unit="Qwen2VLDecoderLayer", qkv_bias=True, out_bias=False),
    "qwen2_5_vl_text": Variant(unit="Qwen2_5_VLDecoderLayer", qkv_bias=True, out_bias=False),
    "qwen3": Variant(unit="Qwen3DecoderLayer", qk_norm="head"),
    "qwen3_vl_text": Variant(unit="Qwen3VLTextDecoderLayer", qk_norm="head", tied=True),
    "olmo2": Variant(unit="Olmo2DecoderLayer", qk_norm="full", norms=POST_NORMS),
    "olmo3": Variant(unit="Olmo3DecoderLayer", qk_norm="full", norms=POST_NORMS),
    "granite": Variant(unit="GraniteDecoderLayer", mlp_bias="mlp_bias"),
    "smollm3": Variant(unit="SmolLM3DecoderLayer", mlp_bias="mlp_bias", tied=True),
    "seed_oss": Variant(
        unit="SeedOssDecoderLayer",
        out_bias="attention_out_bias",
        mlp_bias="mlp_bias",
    ),
    "ernie4_5": Variant(
        unit="Ernie4_5DecoderLayer", qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", tied=True
    ),
    "exaone4": Variant(
        unit="Exaone4DecoderLayer", qkv_bias=False, out_bias=False, qk_norm="head", norms=POST_NORMS
    ),
    "apertus": Variant(
        unit="ApertusDecoderLayer",
        qk_norm="head",
        norms=("attention_layernorm", "feedforward_layernorm"),
        mlp="xielu",
    ),
    "glm": Variant(unit="GlmDecoderLayer", out_bias=False, mlp="fused"),
    "glm4": Variant(
        unit="Glm4DecoderLayer",
        out_bias=False,
        mlp="fused",
        norms=(*NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "glm4v_text": Variant(
        unit="Glm4vTextDecoderLayer",
        qkv_bias=True,
        out_bias=False,
        mlp="fused",
        norms=(*NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "cohere": Variant(unit="CohereDecoderLayer", norms=("input_layernorm",), tied=True),
    "cohere2": Variant(unit="Cohere2DecoderLayer", norms=("input_layernorm",), tied=True),
    "phi3": Variant(unit="Phi3DecoderLayer", qkv_bias=False, out_bias=False, fused_qkv=True, mlp="fused"),
    "gemma": Variant(unit="GemmaDecoderLayer", tied=True),
    "gemma2": Variant(unit="Gemma2DecoderLayer", norms=GEMMA_NORMS, tied=True),
    "gemma3_text": Variant(unit="Gemma3DecoderLayer", qk_norm="head", norms=GEMMA_NORMS, tied=True),
}
"""Model type -> how it differs; read off transformers 5.23 and held by the recorded counts."""

MODEL_TYPES = frozenset(VARIANTS)


def body(facts: Facts) -> Body:
    """Return the blocks of a dense decoder."""
    variant = VARIANTS[facts.model_type]
    pieces = (
        *_attention(facts, variant),
        *_mlp(facts, variant),
        *norms(facts.hidden_size, variant.norms, bias=False),
    )
    before, after = ends(facts, tied=variant.tied)
    return Body(before + layers(variant.unit, ["layer"] * facts.num_layers, lambda _: pieces) + after)


def _flag(facts: Facts, variant: Variant, key: str | bool) -> bool:  # noqa: FBT001 - a field's value
    return key if isinstance(key, bool) else facts.flag(key, default=variant.bias_by_default)


def _attention(facts: Facts, variant: Variant) -> tuple[Piece, ...]:
    if variant.fused_qkv:
        heads = facts.num_heads * facts.head_dim
        return (
            linear("self_attn.o_proj", heads, facts.hidden_size, "attention"),
            linear(
                "self_attn.qkv_proj",
                facts.hidden_size,
                heads + 2 * facts.num_kv_heads * facts.head_dim,
                "attention",
            ),
        )
    pieces = attention(
        facts,
        qkv_bias=_flag(facts, variant, variant.qkv_bias),
        out_bias=_flag(facts, variant, variant.out_bias),
        qk_norm=variant.qk_norm,
    )
    if facts.model_type == "cohere" and facts.flag("use_qk_norm", default=False):
        head = facts.head_dim
        pieces += (
            other("self_attn.q_norm", "norms", facts.num_heads, head),
            other("self_attn.k_norm", "norms", facts.num_kv_heads, head),
        )
    return pieces


def _mlp(facts: Facts, variant: Variant) -> tuple[Piece, ...]:
    hidden, width = facts.hidden_size, facts.whole("intermediate_size")
    down = linear("mlp.down_proj", width, hidden, "mlp")
    if variant.mlp == "fused":
        return (linear("mlp.gate_up_proj", hidden, 2 * width, "mlp"), down)
    if variant.mlp == "xielu":
        return (linear("mlp.up_proj", hidden, width, "mlp"), down, other("mlp.act_fn", "mlp", 2))
    return gated_mlp(hidden, width, bias=_flag(facts, variant, variant.mlp_bias))
