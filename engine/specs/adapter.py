"""What is trained beside or instead of a model's own weights."""

from dataclasses import dataclass

ALL_LINEAR = "all-linear"
PEFT_DEFAULT = "peft-default"
"""No targets are named: PEFT takes those of its table for the model type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """What is trained beside or instead of the model's own weights."""

    kind: str = "lora"
    """``lora`` (rsLoRA and PiSSA count the same) or ``oft``."""
    rank: int = 16
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Ends of names, or ``all-linear``, or ``peft-default``."""
    target_parameters: tuple[str, ...] = ()
    """Ends of names of tensors that are no layers, such as ``mlp.experts.gate_up_proj``."""
    use_dora: bool = False
    dropout: float = 0.0
    """Share of the adapter's input dropped; above 0 mask and output are kept for the backward pass."""
    oft_block_size: int = 32
    modules_to_save: tuple[str, ...] = ()
    """Ends of names of modules that are trained whole, in a copy."""
