"""The shape of a model, read from its configuration and never guessed from its name."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import prod

NOT_LANGUAGE = frozenset({"vision_tower", "projector", "audio_tower"})
"""Groups of what turns pictures and sound into tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterGroups:
    """Parameters by what they are for. A tied output layer counts once, as embedding."""

    embedding: int = 0
    attention: int = 0
    mlp: int = 0
    experts: int = 0
    shared_experts: int = 0
    router: int = 0
    norms: int = 0
    lm_head: int = 0
    linear_attention_ssm: int = 0
    per_layer_input_altup: int = 0
    vision_tower: int = 0
    projector: int = 0
    audio_tower: int = 0
    other: int = 0

    def items(self) -> Iterator[tuple[str, int]]:
        """Yield every group with its parameters."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    @property
    def num_total(self) -> int:
        """All parameters."""
        return sum(count for _, count in self.items())

    @property
    def num_language(self) -> int:
        """What is left without the towers and projectors of other kinds of input."""
        return sum(count for name, count in self.items() if name not in NOT_LANGUAGE)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearShape:
    """Linear layers of one place in the model. The output layer is one, also when it is tied."""

    path: str
    """Inside its block, for example ``self_attn.q_proj``; outside of blocks from the model's root."""
    num_in: int
    num_out: int
    bias: bool = False
    count: int = 1
    group: str
    """Field of ParameterGroups."""

    @property
    def suffix(self) -> str:
        """The last part of the path, by which adapters are aimed."""
        return self.path.rpartition(".")[2]

    @property
    def num_weights(self) -> int:
        """Weights of all of them, without biases: what a 4-bit loader packs."""
        return self.num_in * self.num_out * self.count

    @property
    def num_parameters(self) -> int:
        """Parameters of all of them, also when they are tied to another's."""
        return self.num_weights + (self.num_out * self.count if self.bias else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedParameter:
    """Weights of all experts of a layer in one tensor that is no linear layer."""

    path: str
    shape: tuple[int, ...]
    count: int
    """Layers that have it."""

    @property
    def suffix(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def num_parameters(self) -> int:
        """Parameters of all layers."""
        return prod(self.shape) * self.count


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherModule:
    """Embeddings, normalisations, convolutions, routers: what is neither linear layer nor fused experts."""

    path: str
    shape: tuple[int, ...]
    bias: bool
    count: int
    group: str

    @property
    def num_parameters(self) -> int:
        """Parameters of all of them."""
        return self.count * (prod(self.shape) + (self.shape[-1] if self.bias else 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class FsdpUnit:
    """Blocks that transformers does not split: what is gathered at a time."""

    block_class: str
    num_parameters: int
    """Of one block."""
    count: int
    is_nested: bool = False
    """It lies inside another unit, which counts its parameters too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCount:
    """Every parameter of a model, counted. Equal to what transformers builds, to the parameter."""

    groups: ParameterGroups
    num_active: int
    """Parameters of the language part that one token uses."""
    linears: tuple[LinearShape, ...] = ()
    fused: tuple[FusedParameter, ...] = ()
    others: tuple[OtherModule, ...] = ()
    units: tuple[FsdpUnit, ...] = ()

    @property
    def num_outside_units(self) -> int:
        """Parameters of the root: what no unit holds."""
        return self.groups.num_total - sum(
            unit.num_parameters * unit.count for unit in self.units if not unit.is_nested
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsShape:
    """A mixture of experts."""

    num_experts: int
    num_experts_per_token: int
    intermediate_size: int
    """Width of one expert."""
    num_layers: int
    """Layers that have experts."""
    shared_intermediate_size: int = 0
    """Width of what every token passes beside its experts; 0 when there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentAttention:
    """Ranks and widths of multi-head latent attention."""

    q_lora_rank: int | None
    """``None``: queries are not compressed."""
    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int

    @property
    def qk_head_dim(self) -> int:
        """Width of a query or key head."""
        return self.qk_rope_head_dim + self.qk_nope_head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionTower:
    """What looks at pictures."""

    num_layers: int | None
    hidden_size: int | None
    num_heads: int | None = None
    intermediate_size: int | None = None
    patch_size: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What the planner knows of a model. Counts are per whole model; unknown is ``None``."""

    model_type: str
    architecture: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    """Longest sequence in tokens that the position embedding was made for."""
    published_packing: str | None = None
    """How the weights are packed in its files: ``gptq``, ``awq``, ``mxfp4``; of bitsandbytes with the bits,
    ``bitsandbytes-4bit``, and ``-float`` where the bits are kept in a float type."""
    num_heads: int | None = None
    num_kv_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    """Width of a dense MLP."""
    tie_word_embeddings: bool | None = None
    """The output layer is the embedding."""
    sliding_window_tokens: int | None = None
    layer_types: tuple[str, ...] | None = None
    """One name per layer, as its configuration says, for example ``sliding_attention``."""
    experts: ExpertsShape | None = None
    latent: LatentAttention | None = None
    vision: VisionTower | None = None
    parameters: ParameterCount | None = None
    unknown_reason: str | None = None
    """Why the parameters are not known."""

    @property
    def num_parameters(self) -> int | None:
        """All parameters."""
        return self.parameters.groups.num_total if self.parameters else None

    @property
    def num_active_parameters(self) -> int | None:
        """Parameters of the language part that one token uses."""
        return self.parameters.num_active if self.parameters else None
