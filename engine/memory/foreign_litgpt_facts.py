"""What litgpt's code and configurations say of a training step: dates, layouts, formats. Pure.

Sources: Lightning-AI/litgpt at 8641822 (2023-10-16), 0f021f3 (2024-01-18), 5895df1 (2024-04-26) and 00af8b0
(2024-09-27): config.py, model.py, lora.py, adapter.py, rmsnorm.py, finetune/. The dates below are those of
the commits that changed the code.
"""

from dataclasses import dataclass
from typing import Literal

from .foreign_ops import Kind, Packing, Shape

Method = Literal["full", "lora", "adapter", "adapter_v2"]
FLASH_HEAD = 192
"""Widest head that flash attention trains on every card. Its output is laid out as the queries are, which
litgpt joins head by head, so that putting heads side by side copies (torch 2.1 to 2.13, flash_api.cpp:
``empty_like(q)``); the memory-efficient kernel lays it out token by token."""
CHUNK_TOKENS = 128
FIRST_ADAPTED_LAYER = 2
"""``adapter_start_layer`` of LLaMA-Adapter."""
PROMPT_TOKENS = 10
"""``adapter_prompt_length``; the kernel that takes a mask pads it to a multiple of 8 keys."""
PADDED_PROMPT = 16
FLOAT32_NORMS = "2023-10-24"
"""6178c7c: RMSNorm computes in float32 (before, in the format of its input)."""
SIXTEEN_BIT_SCALES = "2024-02-23"
"""7c15749: the normed input is cast before it is multiplied with the weights."""
FLOAT32_SCALES = "2024-07-23"
"""916a84c: and after it again."""
NO_LONGEST_FIRST = "2024-02-29"
"""73baa2d: until then the longest sample came first, before which no step had left anything behind; since
then any step follows one as long as itself, whose logits and graph live until the new logits are there."""
PADS_IN_PLACE = "2024-05-06"
"""f84b610: the adapter's output is copied into zeros in place."""
CHUNKS_FULL_LOSS = "2024-01-01"
"""Before, full fine-tuning asked for the loss of all tokens at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What ``Config`` says of an architecture."""

    norm: Literal["layer", "rms"] = "rms"
    is_parallel: bool = False
    """Attention and MLP both read the layer's input."""
    shares_norm: bool = False
    is_gated: bool = True
    scales_embedding: bool = False
    rotary_percent: int = 100


LAYOUTS: dict[str, Layout] = {
    "llama": Layout(),
    "mistral": Layout(),
    "phi3": Layout(),
    "gemma": Layout(scales_embedding=True),
    "gpt_neox": Layout(norm="layer", is_parallel=True, is_gated=False, rotary_percent=25),
    "phi": Layout(norm="layer", is_parallel=True, shares_norm=True, is_gated=False, rotary_percent=50),
    "falcon": Layout(norm="layer", is_parallel=True, shares_norm=True, is_gated=False),
}
"""By the model type of transformers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Everything that decides what a step holds."""

    shape: Shape
    layout: Layout
    date: str
    method: Method
    sequence: int
    batch: int
    rank: int = 0
    targets: frozenset[str] = frozenset()
    dropout: bool = False
    packing: Packing = "none"
    packs_scales: bool = False
    autocast: bool = False
    checkpoints: bool = False

    def kind(self, place: str) -> Kind:
        """Return how the linear layer at a place is stored and trained."""
        return Kind(
            trained=self.method == "full",
            rank=self.rank if place in self.targets else 0,
            dropout=self.dropout,
            packing=self.packing,
            packs_scales=self.packs_scales,
            scales_output=self.method == "adapter_v2",
        )

    @property
    def trains_norms(self) -> bool:
        """Weights of normalisations are trained."""
        return self.method in ("full", "adapter_v2")

    @property
    def chunks_head(self) -> bool:
        """The output layer runs on 128 tokens at a time, and a list keeps all logits."""
        return self.method != "full"
