"""Which mixers and MLPs a model has, and in how many layers, by the names of its modules. Pure."""

from dataclasses import replace

from ..specs.model import LinearShape
from .blocks import Mlp, Norm
from .blocks_attention import Attention
from .blocks_mixers import Latent, Recurrent, delta_rule_width
from .blocks_moe import Moe
from .blocks_parts import Parts
from .blocks_torch import Weight

Mixer = Attention | Latent | Recurrent | None
WIDE_ROUTERS = frozenset(
    {"deepseek_v2", "deepseek_v3", "glm4_moe", "glm4_moe_lite", "kimi_k2", "ernie4_5_moe"}
)
"""Routers that compute in float32."""
WIDE_CHANCES = frozenset(
    {"deepseek_v2", "deepseek_v3", "glm4_moe", "glm4_moe_lite", "kimi_k2", "mixtral", "minimax_m2"}
)
"""Routers whose chances stay float32."""
UNTURNED = frozenset({"gpt2", "opt", "bloom", "nemotron_h", "jamba"})
"""Models that do not turn queries and keys by their position."""
ACTIVATIONS = {"gpt2": "gelu-python", "phi": "gelu-python", "nemotron_h": "relu2"}


def mixers(parts: Parts) -> list[tuple[Mixer, int]]:
    """Return attention and what stands for it, with the number of layers that have it."""
    outs = parts.named(
        "o_proj", "dense", "c_proj", "out_proj", within=("attn", "attention", "mixer", "mamba", "conv")
    )
    found: list[tuple[Mixer, int]] = [
        (mixer, out.count) for out in outs if (mixer := _mixer(parts, out)) is not None
    ]
    rest = parts.num_layers - sum(number for _, number in found)
    return found + ([(None, rest)] if rest > 0 else [])


def _mixer(parts: Parts, out: LinearShape) -> Mixer:
    prefix = out.path.rpartition(".")[0]
    inside = {part.suffix: part for part in parts.linears if part.path.startswith(f"{prefix}.")}
    if "kv_a_proj_with_mqa" in inside:
        return _latent(parts, out, inside)
    if any(name in inside for name in ("in_proj", "in_proj_qkvz", "in_proj_qkv", "output_gate")):
        return _recurrent(parts, out, inside)
    return _attention(parts, out, inside)


def _latent(parts: Parts, out: LinearShape, inside: dict[str, LinearShape]) -> Latent | None:
    shape, heads = parts.model.latent, parts.model.num_heads
    if shape is None or not heads:
        return None
    core = Attention(
        heads,
        heads,
        shape.qk_head_dim,
        parts.weight(out),
        kernel=parts.formats.kernel,
        value_dim=shape.v_head_dim,
    )
    down, up = inside.get("q_a_proj"), inside.get("q_b_proj")
    return Latent(
        core, shape.qk_rope_head_dim, shape.kv_lora_rank,
        parts.weight(inside["kv_a_proj_with_mqa"]), parts.weight(inside["kv_b_proj"]),
        parts.norm("kv_a_layernorm", shape.kv_lora_rank),
        query=parts.weight(inside["q_proj"]) if "q_proj" in inside else None,
        query_down=parts.weight(down) if down else None,
        query_up=parts.weight(up) if up else None,
        query_norm=parts.norm("q_a_layernorm", down.num_out) if down else None,
    )  # fmt: skip


def _recurrent(parts: Parts, out: LinearShape, inside: dict[str, LinearShape]) -> Recurrent:
    """Width of the scan: the delta rule's copies, or (state spaces) input, output and step."""
    prefix = out.path.rpartition(".")[0]
    sizes = {part.path: part.shape for part in parts.others if part.path.startswith(f"{prefix}.")}
    conv = next((shape[0] for path, shape in sizes.items() if "conv" in path.rpartition(".")[2]), 0)
    heads = next((shape[0] for path, shape in sizes.items() if path.endswith("dt_bias")), 1)
    names = [name for name in inside if name not in (out.suffix, "x_proj", "dt_proj")]
    is_delta = any(name.startswith("in_proj_qkv") for name in names)
    value_dim = max(1, out.num_in // heads)
    kept = (
        delta_rule_width(value_heads=heads, key_dim=value_dim, value_dim=value_dim)
        if is_delta
        else 3 * out.num_in
    )
    return Recurrent(
        tuple(parts.weight(inside[name]) for name in names), parts.weight(out), conv, kept,
        gate_width=out.num_in if is_delta else 0,
    )  # fmt: skip


def _attention(parts: Parts, out: LinearShape, inside: dict[str, LinearShape]) -> Attention | None:
    fused = next((inside[name] for name in ("qkv_proj", "query_key_value", "c_attn") if name in inside), None)
    if fused:
        return _fused(parts, out, fused)
    prefix, heads = out.path.rpartition(".")[0], parts.model.num_heads or 1
    same = [
        part
        for part in parts.linears
        if part.path.startswith(f"{prefix}.") and part.suffix in ("q_proj", "k_proj", "v_proj")
    ]
    query = next((part for part in same if part.suffix == "q_proj" and part.num_out % out.num_in == 0), None)
    if query is None:
        return None
    head_dim = max(1, out.num_in // heads)
    key = next((part for part in same if part.suffix == "k_proj" and part.num_out % head_dim == 0), query)
    value = next((part for part in same if part.suffix == "v_proj" and part.num_out == key.num_out), key)
    kv_heads = max(1, key.num_out // head_dim)
    return Attention(
        heads, kv_heads, head_dim, parts.weight(out),
        query=parts.weight(query), key=parts.weight(key), value=parts.weight(value),
        kernel=parts.formats.kernel, is_gated=query.num_out == 2 * out.num_in,
        query_norm=_head_norm(parts, "q_norm", heads, head_dim),
        key_norm=_head_norm(parts, "k_norm", kv_heads, head_dim),
        rotates=parts.model.model_type not in UNTURNED,
        softcap=parts.model.model_type == "gemma2",
        has_sinks=parts.model.model_type == "gpt_oss",
    )  # fmt: skip


def _fused(parts: Parts, out: LinearShape, fused: LinearShape) -> Attention:
    heads = parts.model.num_heads or 1
    head_dim = max(1, out.num_in // heads)
    return Attention(
        heads, max(1, (fused.num_out - out.num_in) // (2 * head_dim)), head_dim, parts.weight(out),
        fused=parts.weight(fused), splits_once=fused.suffix != "qkv_proj",
        kernel=parts.formats.kernel, rotates=parts.model.model_type not in UNTURNED,
    )  # fmt: skip


def _head_norm(parts: Parts, name: str, heads: int, head_dim: int) -> Norm | None:
    found = next((part for part in parts.others if part.path.endswith(f".{name}")), None)
    if found is None:
        return None
    is_per_head = found.shape[-1] == head_dim
    spec = parts.norm(name, heads * head_dim, count=heads if is_per_head else 1)
    return replace(spec, kind="layer-plain") if spec.kind == "layer" else spec


def mlps(parts: Parts) -> list[tuple[Mlp | Moe | None, int]]:
    """Return MLPs and experts, with the number of layers that have them."""
    names = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "w2", "output_linear")
    downs = parts.named(*names, within=("mlp", "feed_forward", "fc2", "mixer"))
    found: list[tuple[Mlp | Moe | None, int]] = [
        (dense, down.count)
        for down in downs
        if ("shared_expert" not in down.path) and (dense := _dense(parts, down))
    ]
    experts = _moe(parts)
    if experts:
        number = parts.model.experts.num_layers if parts.model.experts else parts.num_layers
        found.append((experts, number))
    rest = parts.num_layers - sum(number for _, number in found)
    return found + ([(None, rest)] if rest > 0 else [])


def _dense(parts: Parts, down: LinearShape) -> Mlp | None:
    prefix = down.path.rpartition(".")[0]
    inside = {
        part.suffix: part
        for part in parts.linears
        if part.path.rpartition(".")[0] == prefix and (part.num_out in (down.num_in, 2 * down.num_in))
    }
    activation = ACTIVATIONS.get(parts.model.model_type, "activation")
    both = inside.get("gate_up_proj") or inside.get("input_linear")
    if both:
        return Mlp(parts.weight(both), parts.weight(down), is_fused=True, activation=activation)
    up = next((inside[n] for n in ("up_proj", "fc1", "c_fc", "dense_h_to_4h", "w3") if n in inside), None)
    if up is None:
        return None
    gate = next((inside[n] for n in ("gate_proj", "w1") if n in inside), None)
    return Mlp(
        parts.weight(up), parts.weight(down), parts.weight(gate) if gate else None, activation=activation
    )


def _moe(parts: Parts) -> Moe | None:
    experts, count = parts.model.experts, parts.model.parameters
    if experts is None or count is None or not count.fused:
        return None
    hidden, width = parts.model.hidden_size or 0, experts.intermediate_size
    formats = parts.formats
    is_biased = parts.model.model_type == "gpt_oss"

    def weight(name: str, num_in: int, num_out: int) -> Weight:
        lora = parts.fused_lora("down" if name == "experts down" else "gate_up")
        return Weight(name, num_in, num_out, formats.other_bytes, formats.trained, None, lora, is_biased)

    # Llama 4 runs every expert on every token (models/llama4, Llama4TextMoe).
    is_dense = parts.model.model_type in {"llama4", "llama4_text"}
    chosen = experts.num_experts if is_dense else experts.num_experts_per_token
    up, down = weight("experts up", hidden, 2 * width), weight("experts down", width, hidden)
    is_adapted = formats.trained or parts.is_aimed_at("gate")
    router = Weight("router", hidden, experts.num_experts, formats.other_bytes, is_adapted)
    shared = next(
        (part for part in parts.linears if "shared" in part.path and part.suffix == "down_proj"), None
    )
    gate = next((part for part in parts.linears if part.suffix == "shared_expert_gate"), None)
    return Moe(
        experts.num_experts, chosen, router, up, down,
        computes_router_wide=parts.model.model_type in WIDE_ROUTERS,
        keeps_chances_wide=parts.model.model_type in WIDE_CHANCES,
        clamps_gate=parts.model.model_type == "gpt_oss",
        shared=_dense(parts, shared) if shared else None,
        shared_gate=parts.weight(gate) if gate else None,
    )  # fmt: skip
