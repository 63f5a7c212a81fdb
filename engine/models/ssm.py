"""State-space models, and hybrids of them with attention: Mamba, Jamba, Granite 4, Nemotron-H, LFM2."""

from math import ceil

from ..specs.model import ExpertsShape
from .decoder import attention, ends, fused_experts, gated_mlp, norms, plain_mlp
from .facts import Facts, Unknown
from .parts import Body, Piece, fused, layers, linear, norm, other

SSM = "linear_attention_ssm"
MODEL_TYPES = frozenset(
    {"mamba", "falcon_mamba", "falcon_h1", "jamba", "granitemoehybrid", "nemotron_h", "lfm2"}
)


def body(facts: Facts) -> Body:
    """Return the blocks of a state-space model or hybrid."""
    makers = {
        "mamba": _mamba,
        "falcon_mamba": _mamba,
        "falcon_h1": _falcon_h1,
        "jamba": _jamba,
        "granitemoehybrid": _granite,
        "nemotron_h": _nemotron,
        "lfm2": _lfm2,
    }
    return makers[facts.model_type](facts)


def _first_mamba(
    facts: Facts, prefix: str, *, width: int, state: int, kernel: int, rank: int
) -> tuple[Piece, ...]:
    """The mixer of Mamba 1."""
    hidden = facts.hidden_size
    return (
        other(f"{prefix}A_log", SSM, width, state),
        other(f"{prefix}D", SSM, width),
        other(f"{prefix}conv1d", SSM, width, kernel + 1),  # one more: its bias
        linear(f"{prefix}in_proj", hidden, 2 * width, SSM),
        linear(f"{prefix}x_proj", width, rank + 2 * state, SSM),
        linear(f"{prefix}dt_proj", rank, width, SSM, bias=True),
        linear(f"{prefix}out_proj", width, hidden, SSM),
    )


def _second_mamba(
    facts: Facts, prefix: str, *, heads: int, width: int, groups: int, state: int, has_norm: bool
) -> tuple[Piece, ...]:
    """The mixer of Mamba 2."""
    hidden = facts.hidden_size
    kernel = facts.whole("conv_kernel", "mamba_d_conv", default=4)
    convolved = width + 2 * groups * state
    pieces = (
        *(other(prefix + name, SSM, heads) for name in ("dt_bias", "A_log", "D")),
        other(f"{prefix}conv1d", SSM, convolved, kernel + 1),  # one more: its bias
        linear(f"{prefix}in_proj", hidden, width + convolved + heads, SSM),
        linear(f"{prefix}out_proj", width, hidden, SSM),
    )
    return (*pieces, norm(f"{prefix}norm", width)) if has_norm else pieces


def _without_bias(facts: Facts, *names: str) -> None:
    """Refuse to count what no released model has."""
    for name in names:
        if facts.flag(name, default=False):
            raise Unknown(f"{name} of {facts.model_type} is not in the closed form")


def _with_bias(facts: Facts, name: str) -> None:
    if not facts.flag(name, default=True):
        raise Unknown(f"{facts.model_type} without {name} is not in the closed form")


def _mamba(facts: Facts) -> Body:
    _without_bias(facts, "use_bias")
    _with_bias(facts, "use_conv_bias")
    hidden, state = facts.hidden_size, facts.whole("state_size", default=16)
    width = facts.whole("intermediate_size", default=facts.whole("expand", default=2) * hidden)
    is_auto = facts.text("time_step_rank") == "auto"
    rank = ceil(hidden / 16) if is_auto else facts.whole("time_step_rank", default=ceil(hidden / 16))
    pieces = (
        norm("norm", hidden),
        *_first_mamba(
            facts,
            "mixer.",
            width=width,
            state=state,
            kernel=facts.whole("conv_kernel", default=4),
            rank=rank,
        ),
    )
    name = "Mamba" if facts.model_type == "mamba" else "FalconMamba"
    before, after = ends(facts, tied=True, embedding="embeddings", final_norm="norm_f")
    kinds = ["mixer"] * facts.num_layers
    blocks = layers(f"{name}Block", kinds, lambda _: pieces, inner=(f"{name}Mixer", "mixer."))
    return Body(before + blocks + after)


def _falcon_h1(facts: Facts) -> Body:
    _without_bias(facts, "mamba_proj_bias", "projectors_bias", "mlp_bias")
    _with_bias(facts, "mamba_conv_bias")
    hidden, bias = facts.hidden_size, facts.flag("attention_bias", default=False)
    pieces = (
        *gated_mlp(hidden, facts.whole("intermediate_size"), prefix="feed_forward."),
        *_second_mamba(
            facts,
            "mamba.",
            heads=facts.whole("mamba_n_heads"),
            width=facts.whole("mamba_d_ssm", default=facts.whole("mamba_expand", default=2) * hidden),
            groups=facts.whole("mamba_n_groups", default=1),
            state=facts.whole("mamba_d_state"),
            has_norm=facts.flag("mamba_rms_norm", default=False),
        ),
        *attention(facts, qkv_bias=bias, out_bias=bias),
        *norms(hidden, ("input_layernorm", "pre_ff_layernorm")),
    )
    before, after = ends(facts, tied=False, final_norm="final_layernorm")
    return Body(before + layers("FalconH1DecoderLayer", ["h"] * facts.num_layers, lambda _: pieces) + after)


def _jamba(facts: Facts) -> Body:
    _without_bias(facts, "mamba_proj_bias")
    _with_bias(facts, "mamba_conv_bias")
    hidden, width = facts.hidden_size, facts.whole("intermediate_size")
    experts = facts.whole("num_experts")
    state = facts.whole("mamba_d_state", default=16)
    is_auto = facts.text("mamba_dt_rank") == "auto"
    rank = ceil(hidden / 16) if is_auto else facts.whole("mamba_dt_rank")

    def make(kind: tuple[bool, bool]) -> tuple[Piece, ...]:
        is_attention, is_sparse = kind
        mixer: tuple[Piece, ...] = attention(facts)
        if not is_attention:
            mixer = (
                *_first_mamba(
                    facts,
                    "mamba.",
                    width=facts.whole("mamba_expand", default=2) * hidden,
                    state=state,
                    kernel=facts.whole("mamba_d_conv", default=4),
                    rank=rank,
                ),
                norm("mamba.dt_layernorm", rank),
                norm("mamba.b_layernorm", state),
                norm("mamba.c_layernorm", state),
            )
        mlp = (
            fused_experts(experts, hidden, width, prefix="feed_forward.", router="router")
            if is_sparse
            else gated_mlp(hidden, width, prefix="feed_forward.")
        )
        return (*mixer, *mlp, *norms(hidden, ("input_layernorm", "pre_ff_layernorm")))

    kinds = _jamba_kinds(facts, experts)
    before, after = ends(facts, tied=False, final_norm="final_layernorm")
    blocks = layers("JambaMambaDecoderLayer", [kind for kind in kinds if not kind[0]], make)
    blocks += layers("JambaAttentionDecoderLayer", [kind for kind in kinds if kind[0]], make)
    return Body(
        before + blocks + after,
        _experts(facts, "num_experts", width=width, num_layers=sum(sparse for _, sparse in kinds)),
    )


def _jamba_kinds(facts: Facts, experts: int) -> list[tuple[bool, bool]]:
    attention_period = facts.whole("attn_layer_period", default=8)
    attention_offset = facts.whole("attn_layer_offset", default=4, low=0)
    expert_period = facts.whole("expert_layer_period", default=2)
    expert_offset = facts.whole("expert_layer_offset", default=1, low=0)
    return [
        (
            layer % attention_period == attention_offset,
            layer % expert_period == expert_offset and experts > 1,
        )
        for layer in range(facts.num_layers)
    ]


def _experts(facts: Facts, key: str, *, width: int, num_layers: int, shared: int = 0) -> ExpertsShape:
    return ExpertsShape(
        num_experts=facts.whole(key),
        num_experts_per_token=facts.whole("num_experts_per_tok", low=0),
        intermediate_size=width,
        num_layers=num_layers,
        shared_intermediate_size=shared,
    )


def _granite(facts: Facts) -> Body:
    _without_bias(facts, "mamba_proj_bias")
    _with_bias(facts, "mamba_conv_bias")
    hidden, bias = facts.hidden_size, facts.flag("attention_bias", default=False)
    shared, experts = facts.whole("shared_intermediate_size"), facts.optional("num_local_experts") or 0
    width = facts.whole("intermediate_size")
    common: tuple[Piece, ...] = (
        linear("shared_mlp.input_linear", hidden, 2 * shared, "shared_experts"),
        linear("shared_mlp.output_linear", shared, hidden, "shared_experts"),
        *norms(hidden),
    )
    if experts:
        common += fused_experts(experts, hidden, width, prefix="block_sparse_moe.", router="router")

    def make(kind: str) -> tuple[Piece, ...]:
        if kind != "mamba":
            return common + attention(facts, qkv_bias=bias, out_bias=bias)
        return common + _second_mamba(
            facts,
            "mamba.",
            heads=facts.whole("mamba_n_heads"),
            width=facts.whole("mamba_expand", default=2) * hidden,
            groups=facts.whole("mamba_n_groups", default=1),
            state=facts.whole("mamba_d_state"),
            has_norm=True,
        )

    before, after = ends(facts, tied=False)
    blocks = layers("GraniteMoeHybridDecoderLayer", facts.layer_types(), make)
    if not experts:
        return Body(before + blocks + after)
    shape = _experts(facts, "num_local_experts", width=width, num_layers=facts.num_layers, shared=shared)
    return Body(before + blocks + after, shape)


def _nemotron(facts: Facts) -> Body:
    _without_bias(facts, "use_bias", "mlp_bias", "mamba_proj_bias")
    if facts.optional("moe_latent_size"):
        raise Unknown("moe_latent_size of nemotron_h is not in the closed form")
    pattern = facts.text("hybrid_override_pattern")
    if pattern is None or set(pattern) - set("M-*E"):
        raise Unknown("hybrid_override_pattern is missing or has a letter that is not known")
    hidden = facts.hidden_size
    heads = facts.whole("mamba_num_heads")
    mixers = {
        "M": lambda: _second_mamba(
            facts,
            "mixer.",
            heads=heads,
            width=heads * facts.whole("mamba_head_dim"),
            groups=facts.whole("n_groups", "mamba_n_groups"),
            state=facts.whole("ssm_state_size"),
            has_norm=True,
        ),
        "-": lambda: plain_mlp(
            hidden,
            facts.whole("intermediate_size"),
            names=("mixer.up_proj", "mixer.down_proj"),
            bias=False,
        ),
        "*": lambda: attention(facts, prefix="mixer."),
        "E": lambda: _nemotron_experts(facts),
    }
    before, after = ends(facts, tied=None, embedding="embeddings", final_norm="norm_f")
    blocks = layers("NemotronHBlock", pattern, lambda kind: (norm("norm", hidden), *mixers[kind]()))
    num_sparse = pattern.count("E")
    if not num_sparse:
        return Body(before + blocks + after)
    width = facts.whole("moe_intermediate_size")
    shared = _nemotron_shared(facts)
    shape = _experts(facts, "n_routed_experts", width=width, num_layers=num_sparse, shared=shared)
    return Body(before + blocks + after, shape)


def _nemotron_shared(facts: Facts) -> int:
    number = facts.optional("n_shared_experts") or 0
    return number and number * facts.whole("moe_shared_expert_intermediate_size")


def _nemotron_experts(facts: Facts) -> tuple[Piece, ...]:
    hidden, number = facts.hidden_size, facts.whole("n_routed_experts")
    width, shared = facts.whole("moe_intermediate_size"), _nemotron_shared(facts)
    names = ("mixer.shared_experts.up_proj", "mixer.shared_experts.down_proj")
    return (
        fused("mixer.experts.up_proj", number, width, hidden),
        fused("mixer.experts.down_proj", number, hidden, width),
        other("mixer.gate", "router", number, hidden),
        *(plain_mlp(hidden, shared, names=names, bias=False, group="shared_experts") if shared else ()),
    )


def _lfm2(facts: Facts) -> Body:
    _without_bias(facts, "conv_bias")
    hidden = facts.hidden_size
    width = _lfm2_width(facts)
    common = (
        linear("feed_forward.w1", hidden, width, "mlp"),
        linear("feed_forward.w3", hidden, width, "mlp"),
        linear("feed_forward.w2", width, hidden, "mlp"),
        *norms(hidden, ("operator_norm", "ffn_norm")),
    )

    def make(kind: str) -> tuple[Piece, ...]:
        if kind == "full_attention":
            names = ("q_layernorm", "k_layernorm")
            return common + attention(facts, qk_norm="head", out="out_proj", norm_names=names)
        return (
            *common,
            other("conv.conv", SSM, hidden, facts.whole("conv_L_cache", default=3)),
            linear("conv.in_proj", hidden, 3 * hidden, SSM),
            linear("conv.out_proj", hidden, hidden, SSM),
        )

    before, after = ends(facts, tied=True, final_norm="embedding_norm")
    return Body(before + layers("Lfm2DecoderLayer", facts.layer_types(), make) + after)


def _lfm2_width(facts: Facts) -> int:
    width = facts.whole("intermediate_size", "block_ff_dim")
    if not facts.flag("block_auto_adjust_ff_dim", default=True):
        return width
    if facts.value("block_ffn_dim_multiplier") not in {None, 1}:
        raise Unknown("block_ffn_dim_multiplier other than 1 is not in the closed form")
    multiple = facts.whole("block_multiple_of", default=256)
    return multiple * ceil(2 * width // 3 / multiple)
