"""From a model's shape to its layers: which pieces of ``blocks*`` they are, and how many of each. Pure.

What the shape does not say (which norms come before, which activation, what runs beside what) follows from
the names of the modules, which are those of transformers 5.23.
"""

from collections import Counter
from dataclasses import dataclass, replace

from ..specs.adapter import ALL_LINEAR, Adapter
from ..specs.model import NOT_LANGUAGE, LinearShape, ModelSpec, OtherModule
from .blocks import Mlp, Norm
from .blocks_attention import Attention
from .blocks_moe import Moe
from .blocks_torch import Lora, Weight

GEMMA = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma4", "qwen3_next", "qwen3_5"})
"""Norms that multiply by one plus their weight, in float32."""
WIDE = frozenset({"olmo2", "olmo3", "olmoe", "nemotron_h"})
"""Norms that multiply by their weight in float32."""
PARALLEL = frozenset({"gpt_neox", "phi", "cohere", "cohere2"})
"""Attention and MLP run beside each other."""
BEFORE_ATTENTION = (
    "input_layernorm", "ln_1", "operator_norm", "attention_layernorm", "self_attn_layer_norm", "norm",
)  # fmt: skip
BEFORE_MLP = ("pre_feedforward_layernorm", "ln_2", "ffn_norm", "feedforward_layernorm", "pre_ff_layernorm")
AFTER_ATTENTION = ("post_self_attn_layernorm",)
AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
ACTIVATIONS = {"gpt2": "gelu-python", "nemotron_h": "relu2"}


@dataclass(frozen=True, slots=True)
class Formats:
    """Number formats and what is trained, as far as layers go."""

    weight_bytes: int
    other_bytes: int
    """Of what a loader does not pack: norms, embedding, output layer."""
    trained: bool
    """The model's own weights are trained."""
    packing: str | None = None
    adapter: Adapter | None = None
    adapter_bytes: int = 4
    kernel: str = "sdpa"


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    mixer: Attention | None
    mlp: Mlp | Moe | None
    before: Norm | None = None
    before_mlp: Norm | None = None
    after: Norm | None = None
    after_mlp: Norm | None = None
    is_parallel: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A model's layers by kind, in order of their first appearance, and what stands around them."""

    kinds: tuple[tuple[Layer, int], ...]
    hidden: int
    embedding: Weight
    norm: Norm
    head: Weight
    is_tied: bool
    head_dim: int
    scales_embedding: bool = False
    softcaps_logits: bool = False


def program_of(model: ModelSpec, formats: Formats) -> Program | None:
    """Return a model's layers, or ``None`` when its shapes are not known."""
    count = model.parameters
    if count is None or not count.linears or not model.hidden_size:
        return None
    reader = _Reader(model, formats)
    kinds = reader.kinds()
    if not kinds:
        return None
    return Program(
        kinds=kinds,
        hidden=model.hidden_size,
        embedding=reader.embedding(),
        norm=reader.norm("norm", model.hidden_size, final=True),
        head=reader.head(),
        is_tied=bool(model.tie_word_embeddings),
        head_dim=model.head_dim or 0,
        scales_embedding=model.model_type.startswith("gemma"),
        softcaps_logits=model.model_type in {"gemma2", "gemma3n", "gemma4"},
    )


class _Reader:
    """Finds a model's parts by the names of its modules."""

    def __init__(self, model: ModelSpec, formats: Formats) -> None:
        assert model.parameters is not None
        self.model, self.formats = model, formats
        self.linears = [part for part in model.parameters.linears if part.group not in NOT_LANGUAGE]
        self.others = [part for part in model.parameters.others if part.group not in NOT_LANGUAGE]
        self.num_layers = model.num_layers or 1

    def kinds(self) -> tuple[tuple[Layer, int], ...]:
        """Pair mixers with MLPs: dense ones stand before experts."""
        mixers, mlps = self._mixers(), self._mlps()
        paired: list[tuple[Layer, int]] = []
        while mixers and mlps:
            (mixer, left), (mlp, right) = mixers.pop(0), mlps.pop(0)
            number = min(left, right)
            paired.append((self._layer(mixer, mlp), number))
            if left > number:
                mixers.insert(0, (mixer, left - number))
            if right > number:
                mlps.insert(0, (mlp, right - number))
        return tuple(paired)

    def _layer(self, mixer: Attention | None, mlp: Mlp | Moe | None) -> Layer:
        hidden = self.model.hidden_size or 0
        names = {part.path for part in self.others if part.count > 1 or part.path != "norm"}
        first = _first(BEFORE_ATTENTION, names)
        before_mlp = _first(BEFORE_MLP, names)
        has_both = "pre_feedforward_layernorm" in names
        after, after_mlp = _first(AFTER_ATTENTION, names), _first(AFTER_MLP, names)
        if has_both or first is None:
            after = after or ("post_attention_layernorm" if "post_attention_layernorm" in names else None)
        elif before_mlp is None:
            before_mlp = "post_attention_layernorm" if "post_attention_layernorm" in names else None
        if self.model.model_type == "opt":
            before_mlp = "final_layer_norm"
        return Layer(
            mixer, mlp,
            before=self.norm(first, hidden) if first else None,
            before_mlp=self.norm(before_mlp, hidden) if before_mlp else None,
            after=self.norm(after, hidden) if after else None,
            after_mlp=self.norm(after_mlp, hidden) if after_mlp else None,
            is_parallel=self.model.model_type in PARALLEL or (
                self.model.model_type == "falcon" and before_mlp is None
            ),
        )  # fmt: skip

    # pieces

    def norm(self, name: str, width: int, *, count: int = 1, final: bool = False) -> Norm:
        """Return a normalisation of one of the layers."""
        found = next((part for part in self.others if part.path.rpartition(".")[2] == name), None)
        has_bias = bool(found and found.bias) or (final and self._has_final_bias())
        return Norm(
            name,
            width,
            self._norm_kind(has_bias=has_bias),
            self.formats.other_bytes,
            self.formats.trained,
            count,
        )

    def _has_final_bias(self) -> bool:
        return any(part.bias for part in self.others if part.group == "norms")

    def _norm_kind(self, *, has_bias: bool) -> str:
        kind = self.model.model_type
        if kind.startswith("cohere"):
            return "layer-plain"
        if has_bias:
            return "layer"
        if kind in GEMMA or kind.startswith(("gemma", "qwen3_next", "qwen3_5")):
            return "rms-plus-one"
        return "rms-wide" if kind in WIDE else "rms"

    def weight(self, shape: LinearShape) -> Weight:
        """Return a linear layer with its packing and adapter."""
        formats = self.formats
        return Weight(
            shape.suffix,
            shape.num_in,
            shape.num_out,
            formats.weight_bytes,
            is_trained=formats.trained,
            packing=formats.packing,
            lora=self._lora(shape.path),
            has_bias=shape.bias,
        )

    def _lora(self, path: str) -> Lora | None:
        adapter = self.formats.adapter
        if adapter is None or not is_target(path, adapter):
            return None
        return Lora(adapter.rank, self.formats.adapter_bytes, adapter.dropout > 0, adapter.use_dora)

    def embedding(self) -> Weight:
        """Return the embedding."""
        saved = self._is_saved("embed_tokens", "wte", "word_embeddings", "embed_in", "embeddings")
        return Weight(
            "embedding", self.model.vocab_size or 0, self.model.hidden_size or 0,
            self.formats.other_bytes, is_trained=self.formats.trained or saved,
        )  # fmt: skip

    def head(self) -> Weight:
        """Return the output layer."""
        return Weight(
            "output layer", self.model.hidden_size or 0, self.model.vocab_size or 0,
            self.formats.other_bytes, is_trained=self.formats.trained or self._is_saved("lm_head"),
        )  # fmt: skip

    def _is_saved(self, *names: str) -> bool:
        adapter = self.formats.adapter
        return bool(adapter and any(name in adapter.modules_to_save for name in names))

    # mixers

    def _mixers(self) -> list[tuple[Attention | None, int]]:
        outs = self._all("o_proj", "dense", "c_proj", "out_proj", within=("attn", "attention", "mixer"))
        found: list[tuple[Attention | None, int]] = [
            (mixer, out.count) for out in outs if (mixer := self._attention(out)) is not None
        ]
        rest = self.num_layers - sum(number for _, number in found)
        return found + ([(None, rest)] if rest > 0 else [])

    def _attention(self, out: LinearShape) -> Attention | None:
        prefix = out.path.rpartition(".")[0]
        inside = {part.suffix: part for part in self.linears if part.path.startswith(f"{prefix}.")}
        fused = next(
            (inside[name] for name in ("qkv_proj", "query_key_value", "c_attn") if name in inside), None
        )
        heads = self.model.num_heads or 1
        kv_heads = self.model.num_kv_heads or heads
        if fused:
            head_dim = out.num_in // heads
            return Attention(
                heads,
                kv_heads,
                head_dim,
                self.weight(out),
                splits_once=fused.suffix != "qkv_proj",
                fused=self.weight(fused),
                kernel=self._kernel(),
            )
        same = [
            part
            for part in self.linears
            if part.path.startswith(f"{prefix}.") and part.suffix in ("q_proj", "k_proj", "v_proj")
        ]
        query = next(
            (part for part in same if part.suffix == "q_proj" and part.num_out % out.num_in == 0), None
        )
        if query is None:
            return None
        head_dim = out.num_in // heads
        keys = [part for part in same if part.suffix == "k_proj"]
        key = keys[0] if keys else query
        value = next((part for part in same if part.suffix == "v_proj"), key)
        return Attention(
            heads, max(1, key.num_out // head_dim), head_dim, self.weight(out),
            query=self.weight(query), key=self.weight(key), value=self.weight(value),
            kernel=self._kernel(), is_gated=query.num_out == 2 * out.num_in,
            query_norm=self._head_norm("q_norm", heads, head_dim),
            key_norm=self._head_norm("k_norm", max(1, key.num_out // head_dim), head_dim),
            rotates=self.model.model_type not in {"opt", "bloom"},
        )  # fmt: skip

    def _head_norm(self, name: str, heads: int, head_dim: int) -> Norm | None:
        found = next((part for part in self.others if part.path.endswith(f".{name}")), None)
        if found is None:
            return None
        is_per_head = found.shape[-1] == head_dim
        spec = self.norm(name, heads * head_dim, count=heads if is_per_head else 1)
        return replace(spec, kind="layer-plain") if spec.kind == "layer" else spec

    def _kernel(self) -> str:
        return self.formats.kernel

    # MLPs

    def _mlps(self) -> list[tuple[Mlp | Moe | None, int]]:
        names = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "w2")
        downs = self._all(*names, within=("mlp", "feed_forward", "fc2", "mixer"))
        found: list[tuple[Mlp | Moe | None, int]] = [
            (dense, down.count)
            for down in downs
            if "shared" not in down.path and (dense := self._dense(down))
        ]
        experts = self._moe()
        if experts:
            number = self.model.experts.num_layers if self.model.experts else self.num_layers
            found.append((experts, number))
        rest = self.num_layers - sum(number for _, number in found)
        return found + ([(None, rest)] if rest > 0 else [])

    def _dense(self, down: LinearShape) -> Mlp | None:
        prefix = down.path.rpartition(".")[0]
        inside = {
            part.suffix: part
            for part in self.linears
            if part.path.rpartition(".")[0] == prefix and (part.num_out in (down.num_in, 2 * down.num_in))
        }
        activation = ACTIVATIONS.get(self.model.model_type, "activation")
        if "gate_up_proj" in inside:
            return Mlp(
                self.weight(inside["gate_up_proj"]), self.weight(down), is_fused=True, activation=activation
            )
        up = next((inside[n] for n in ("up_proj", "fc1", "c_fc", "dense_h_to_4h", "w3") if n in inside), None)
        if up is None:
            return None
        gate = next((inside[n] for n in ("gate_proj", "w1") if n in inside), None)
        return Mlp(
            self.weight(up), self.weight(down), self.weight(gate) if gate else None, activation=activation
        )

    def _moe(self) -> Moe | None:
        experts, count = self.model.experts, self.model.parameters
        if experts is None or count is None or not count.fused:
            return None
        hidden, width = self.model.hidden_size or 0, experts.intermediate_size
        formats = self.formats
        up = Weight("experts up", hidden, 2 * width, formats.other_bytes, is_trained=formats.trained)
        down = Weight("experts down", width, hidden, formats.other_bytes, is_trained=formats.trained)
        router = Weight(
            "router", hidden, experts.num_experts, formats.other_bytes, is_trained=formats.trained
        )
        shared = next(
            (part for part in self.linears if "shared" in part.path and part.suffix == "down_proj"), None
        )
        gate = next((part for part in self.linears if part.suffix == "shared_expert_gate"), None)
        return Moe(
            experts.num_experts, experts.num_experts_per_token, router, up, down,
            shared=self._dense(shared) if shared else None,
            shared_gate=self.weight(gate) if gate else None,
        )  # fmt: skip

    def _all(self, *names: str, within: tuple[str, ...]) -> list[LinearShape]:
        return [
            part
            for part in self.linears
            if part.suffix in names and any(word in part.path for word in within) and part.group != "lm_head"
        ]


def is_target(path: str, adapter: Adapter) -> bool:
    """Say whether a linear layer gets an adapter. Source: peft 0.21.2, tuners_utils.py."""
    if path == "lm_head" and adapter.targets == (ALL_LINEAR,):
        return False
    return adapter.targets == (ALL_LINEAR,) or any(
        path == name or path.endswith(f".{name}") for name in adapter.targets
    )


def _first(names: tuple[str, ...], there: set[str]) -> str | None:
    return next((name for name in names if name in there), None)


def counted(others: list[OtherModule]) -> Counter[str]:
    """Count modules by name."""
    return Counter({part.path: part.count for part in others})
