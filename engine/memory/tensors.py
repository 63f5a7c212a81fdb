"""The tensors of a model and of what is trained on it, one by one: thresholds and shards need them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Literal

from ..errors import BadInput, Refused
from ..models.trainable import adapter_tensors, num_trainable
from ..specs.adapter import Adapter
from ..specs.model import NOT_LANGUAGE, FusedParameter, LinearShape, ModelSpec, OtherModule
from ..specs.workload import Method, Quantization

Where = Literal["block", "embedding", "head", "rest"]
"""A part of a block; the input embedding; the output layer; what is left (last norm, projectors)."""
HEADS = frozenset({"lm_head", "score", "embed_out", "output"})
EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings", "tok_embeddings"})
OUTSIDE = frozenset({"norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f", "wpe"})
LLAMA_ADAPTERS = frozenset({"llama-adapter", "llama-adapter-v2"})
"""What only litgpt trains; the few tensors are counted with its operations (foreign_litgpt.py)."""
PACKS_EXPERTS = frozenset({"fp8", "mxfp4"})
"""Packings of transformers 5 that know fused experts; the others replace linear layers only."""


@dataclass(frozen=True, slots=True)
class Part:
    """Equal tensors of a model."""

    path: str
    shape: tuple[int, ...]
    """As torch keeps it, rows first."""
    count: int
    where: Where
    is_matrix: bool = False
    """The weight of a linear layer, without its bias."""

    @property
    def size(self) -> int:
        """Elements of one."""
        return prod(self.shape)

    @property
    def total(self) -> int:
        """Elements of all."""
        return self.size * self.count

    def local(self, shards: int) -> int:
        """Elements of one on the rank that holds most, cut along the rows (FSDP2)."""
        return -(-self.shape[0] // shards) * prod(self.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Holdings:
    """What a run holds of a model, each tensor once. Compared by identity, so that it is a quick key."""

    model: ModelSpec
    packed: tuple[Part, ...]
    """Frozen, in few bits."""
    plain: tuple[Part, ...]
    """The model's own, not packed; frozen where ``trained_plain`` does not hold it."""
    trained: tuple[Part, ...]
    """What has gradients: the model's own tensors, or adapters and copies."""
    added: tuple[Part, ...]
    """Adapters: beside the model's own tensors."""
    copies: tuple[Part, ...]
    """Whole modules that are trained in a copy; part of ``trained``."""

    @property
    def num_trained(self) -> int:
        """Elements with gradients."""
        return elements(self.trained)


def elements(parts: Iterable[Part]) -> int:
    """Return the elements of all."""
    return sum(part.total for part in parts)


def largest(parts: Iterable[Part]) -> int:
    """Return the elements of the largest one; 0 of none."""
    return max((part.size for part in parts), default=0)


@lru_cache(maxsize=256)
def inventory(model: ModelSpec) -> tuple[Part, ...]:
    """Return every tensor of a model; a tied output layer is the embedding.

    Raises:
        Refused: The parameters are not known.
    """
    count = model.parameters
    if count is None:
        raise Refused(f"the memory of this model cannot be estimated: {model.unknown_reason}")
    parts: list[Part] = []
    for shape in count.linears:
        if not _is_tied_head(shape):
            parts += _of_linear(shape, model)
    parts += [Part(fused.path, fused.shape, fused.count, "block") for fused in count.fused]
    for module in count.others:
        where = _where(module, model)
        parts.append(Part(module.path, module.shape, module.count, where))
        if module.bias:
            parts.append(Part(f"{module.path}.bias", module.shape[-1:], module.count, where))
    return tuple(part for part in parts if part.total)


@lru_cache(maxsize=1024)
def holdings(
    model: ModelSpec,
    method: Method,
    adapter: Adapter | None,
    *,
    num_trainable_layers: int | None = None,
    trained_modules: tuple[str, ...] = (),
    quantization: Quantization | None = None,
) -> Holdings:
    """Return what a run holds.

    Raises:
        Refused: The parameters are not known, or PEFT refuses the adapter.
        BadInput: Layers to train are named and not there.
    """
    parts = inventory(model)
    packed = tuple(part for part in parts if quantization is not None and _is_packed(part, quantization))
    plain = tuple(part for part in parts if part not in packed)
    if method == "full":
        return Holdings(model, packed, plain, plain, (), ())
    if method == "freeze":
        last = _last_layers(plain, model, num_trainable_layers or 0)
        return Holdings(model, packed, plain, (*last, *_further(plain, trained_modules)), (), ())
    adapter = adapter or Adapter()
    if adapter.kind in LLAMA_ADAPTERS:
        return Holdings(model, packed, plain, (), (), ())
    refusal = num_trainable(model, adapter).refusal
    if refusal is not None:
        raise Refused(f"this adapter cannot be trained: {refusal}")
    added = tuple(
        Part(tensor.path, tensor.shape, tensor.count, _where_named(tensor.path, "block"))
        for tensor in adapter_tensors(model, adapter)
    )
    copies = tuple(part for name in adapter.modules_to_save for part in _named(model, name))
    return Holdings(model, packed, plain, (*added, *copies), added, copies)


@lru_cache(maxsize=256)
def headless(model: ModelSpec) -> ModelSpec:
    """Return a model without its output layer, as a reward model is (transformers, modeling_layers.py)."""
    count = model.parameters
    if count is None:
        return model
    linears = tuple(shape for shape in count.linears if shape.path not in HEADS)
    counted = replace(count, linears=linears, groups=replace(count.groups, lm_head=0))
    return replace(model, parameters=counted, tie_word_embeddings=False)


def _is_tied_head(shape: LinearShape) -> bool:
    return shape.path in HEADS and shape.group == "embedding"


def _of_linear(shape: LinearShape, model: ModelSpec) -> list[Part]:
    where = _where(shape, model)
    parts = [Part(shape.path, (shape.num_out, shape.num_in), shape.count, where, is_matrix=True)]
    if shape.bias:
        parts.append(Part(f"{shape.path}.bias", (shape.num_out,), shape.count, where))
    return parts


def _where(part: LinearShape | OtherModule, model: ModelSpec) -> Where:
    repeats = part.count > 1 or (model.num_layers or 0) <= 1
    usual: Where = "block" if repeats and part.group != "projector" else "rest"
    return _where_named(part.path, usual)


def _where_named(path: str, usual: Where) -> Where:
    last = path.rpartition(".")[2]
    if last in HEADS:
        return "head"
    if last in EMBEDDINGS:
        return "embedding"
    return "rest" if path in OUTSIDE else usual


def _is_packed(part: Part, quantization: Quantization) -> bool:
    """Transformers 5.23 leaves out the output layer and whatever is tied to it (quantizers/base.py)."""
    is_fused = len(part.shape) == 3  # noqa: PLR2004 - experts, out, in
    if is_fused and part.where == "block":
        return quantization.kind in PACKS_EXPERTS
    if not part.is_matrix or quantization.kind == "mxfp4":
        return False
    return part.where != "head" or quantization.quantizes_head


def _last_layers(plain: tuple[Part, ...], model: ModelSpec, wanted: int) -> tuple[Part, ...]:
    """The last layers of the language part; of a kind that not every layer has, the same share."""
    layers = model.num_layers or 0
    if not 0 < wanted <= layers:
        raise BadInput(f"{wanted} layers cannot be trained: the model has {layers}")
    language = {shape.path for shape in _parts(model) if getattr(shape, "group", "") not in NOT_LANGUAGE}
    kept = (
        (part, (2 * part.count * wanted + layers) // (2 * layers))
        for part in plain
        if part.where == "block" and part.path.removesuffix(".bias") in language
    )
    return tuple(Part(part.path, part.shape, count, "block", part.is_matrix) for part, count in kept if count)


def _further(plain: tuple[Part, ...], names: tuple[str, ...]) -> tuple[Part, ...]:
    """Modules outside the layers that are trained by name; of a tied output layer the embedding."""
    outside = tuple(part for part in plain if part.where != "block")
    is_tied = not any(part.where == "head" for part in outside)
    wanted = {"embed_tokens" if is_tied and name in HEADS else name for name in names}
    return tuple(
        part
        for part in outside
        if any(f".{name}." in f".{part.path}." for name in wanted)
        or (is_tied and part.where == "embedding" and wanted & EMBEDDINGS)
    )


def _parts(model: ModelSpec) -> tuple[LinearShape | FusedParameter | OtherModule, ...]:
    count = model.parameters
    return () if count is None else (*count.linears, *count.fused, *count.others)


def _named(model: ModelSpec, name: str) -> list[Part]:
    """What PEFT copies of a module to save: all that is in it; a tied one becomes its own."""
    parts: list[Part] = []
    for shape in _parts(model):
        if f".{name}." not in f".{shape.path}.":
            continue
        if isinstance(shape, LinearShape):
            parts += _of_linear(shape, model)
        elif isinstance(shape, OtherModule):
            where = _where(shape, model)
            parts.append(Part(shape.path, shape.shape, shape.count, where))
            if shape.bias:
                parts.append(Part(f"{shape.path}.bias", shape.shape[-1:], shape.count, where))
        else:
            parts.append(Part(shape.path, shape.shape, shape.count, "block"))
    return parts
