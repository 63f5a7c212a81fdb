"""A model's linear layers and norms by name, in their formats, with their packing and adapters. Pure."""

from dataclasses import dataclass
from functools import lru_cache

from ..models.trainable import adapter_tensors
from ..specs.adapter import Adapter
from ..specs.model import NOT_LANGUAGE, LinearShape, ModelSpec
from .blocks import Norm
from .blocks_torch import Lora, Weight

GEMMA = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma4", "qwen3_next", "qwen3_5"})
"""Norms that multiply by one plus their weight, in float32."""
WIDE = frozenset({"olmo2", "olmo3", "olmoe", "nemotron_h"})
"""Norms that multiply by their weight in float32."""


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
    num_trained_layers: int | None = None
    """The last layers alone are trained; not the embedding, not the output layer."""


class Parts:
    """Finds a model's parts by the names of its modules."""

    def __init__(self, model: ModelSpec, formats: Formats) -> None:
        assert model.parameters is not None
        self.model, self.formats = model, formats
        self.linears = [part for part in model.parameters.linears if part.group not in NOT_LANGUAGE]
        self.others = [part for part in model.parameters.others if part.group not in NOT_LANGUAGE]
        self.num_layers = model.num_layers or 1

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
        if adapter is None or not self.is_aimed_at(path):
            return None
        return Lora(adapter.rank, self.formats.adapter_bytes, adapter.dropout > 0, adapter.use_dora)

    def is_aimed_at(self, path: str) -> bool:
        """Say whether a layer or a tensor of experts gets an adapter, as PEFT translates the names."""
        adapter = self.formats.adapter
        return adapter is not None and path in _targets(self.model, adapter)

    def fused_lora(self, name: str) -> Lora | None:
        """Return the adapter of the experts' tensors of a name."""
        adapter, count = self.formats.adapter, self.model.parameters
        if adapter is None or count is None:
            return None
        aimed = _targets(self.model, adapter)
        part = next((part for part in count.fused if part.suffix.startswith(name)), None)
        rank = aimed.get(part.path) if part else None
        return Lora(rank // part.shape[0], self.formats.adapter_bytes) if rank and part else None

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

    def named(self, *names: str, within: tuple[str, ...]) -> list[LinearShape]:
        """Return linear layers of these names, somewhere within modules of those."""
        return [
            part
            for part in self.linears
            if part.suffix in names and any(word in part.path for word in within) and part.group != "lm_head"
        ]


@lru_cache(maxsize=512)
def _targets(model: ModelSpec, adapter: Adapter) -> dict[str, int]:
    """Return the first side (the rank, of experts together) of every adapter by its path."""
    found: dict[str, int] = {}
    for tensor in adapter_tensors(model, adapter):
        found.setdefault(tensor.path, tensor.shape[0])
    return found
