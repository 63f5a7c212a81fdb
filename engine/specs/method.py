"""The section ``method`` of the job, which weights are trained, and the names of optimizers."""

from typing import Annotated, Literal

from pydantic import Field

from .section import Names, Section

INIT_WEIGHTS = r"^(default|gaussian|pissa|pissa_niter_[1-9][0-9]{0,2})$"
"""Of ``LoraConfig.init_lora_weights`` (peft 0.21.2); ``default`` is its ``True``."""

Optimizer = Literal[
    "adamw_torch_fused",
    "adamw_torch",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "adafactor",
    "adagrad",
    "rmsprop",
    "rmsprop_bnb_32bit",
    "rmsprop_bnb_8bit",
    "sgd",
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "apollo_adamw",
    "apollo_adamw_layerwise",
]
"""Names of transformers 5.23 (``OptimizerNames``)."""


class Method(Section):
    """Which weights are trained."""

    kind: Literal["lora", "full", "freeze", "oft"] = "lora"
    """lora trains small added matrices (little memory); full trains every weight. freeze trains the last
    layers alone, oft small rotations of the weights."""
    r: int = Field(default=16, ge=1, le=4096)
    """LoRA: rank of the added matrices. More learns more and costs more memory."""
    lora_alpha: float = Field(default=32, gt=0, le=65536)
    """LoRA: scale of the update; twice the rank is usual."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """LoRA: share of the adapter's input dropped while training."""
    target_modules: Literal["all-linear"] | Names = "all-linear"
    """LoRA, OFT: layers that get an adapter; all-linear takes every linear layer but the output head."""
    use_dora: bool = False
    """LoRA: learn the length of every row of weights apart from its direction (DoRA). Slower, more memory."""
    use_rslora: bool = False
    """LoRA: scale by lora_alpha / sqrt(r) instead of lora_alpha / r, for high ranks (rsLoRA)."""
    init_lora_weights: Annotated[str, Field(pattern=INIT_WEIGHTS)] = "default"
    """LoRA: what the added matrices begin as: default (nothing added), gaussian, pissa (the largest part of
    the weights, by their singular values) or pissa_niter_16 (the same, sooner found by 16 iterations)."""
    loraplus_lr_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None
    """LoRA: the second matrix learns so many times faster than the first (LoRA+); its paper takes 16."""
    oft_block_size: int = Field(default=32, ge=2, le=4096)
    """OFT: width of the blocks that are rotated; where it does not divide a layer the nearest that does."""
    num_trainable_layers: int = Field(default=2, ge=1, le=10_000)
    """freeze: how many of the last layers are trained."""
    modules_to_save: Names = ()
    """LoRA, OFT, freeze: further modules that are trained whole, by the end of their names: [lm_head]."""

    @property
    def adds_weights(self) -> bool:
        """Whether an adapter is trained beside the model's own weights, which are only read."""
        return self.kind in {"lora", "oft"}

    @property
    def starts_from_weights(self) -> bool:
        """Whether the adapter begins as a part of the model's own weights (PiSSA)."""
        return self.kind == "lora" and self.init_lora_weights.startswith("pissa")
