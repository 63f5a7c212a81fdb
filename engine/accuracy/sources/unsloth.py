"""unslothai/unsloth: the README's table of the longest context that a card holds, its column HF + FA2.

Read: README.md, "Context length benchmarks" (December 2024). Its other column is Unsloth's own kernels, which
are not modelled.
"""

from ...specs.workload import Stack, Workload
from ..case import (
    Case,
    adapter_of,
    checkpointing_of,
    counter_of,
    listed,
    micro_batch,
    optimizer_of,
    quantization_of,
    sequence_tokens,
)
from ..row import NotScored, Row
from ..shapes import config_of, spec_of

ENGINES = ("hf+fa2", "unsloth")
ASSUMPTIONS = listed("""
- TRL's SFTTrainer with QLoRA: packed weights, everything else fp32 (prepare_model_for_kbit_training), fp32
  adapters, bf16 autocast, gradient checkpointing, 8-bit AdamW as in Unsloth's notebooks.
- transformers before 4.45: fp32 logits that live through the backward pass.
- The longest context fills what torch finds on a card of that size: tensors plus the driver's share are
  compared with it. The cards were not named; the usual one of each size is taken.
""")
CARD_GIB = {8: 7.7, 12: 11.6, 16: 15.0, 24: 23.55, 40: 39.4, 48: 47.4, 80: 79.15}
"""Nominal GB -> GiB that torch reports as total: RTX 3060 Ti, RTX 3060, T4, RTX 4090, A100-40GB, RTX A6000,
A100-80GB (torch.cuda.get_device_properties in public logs)."""
SHORT = {name: f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")} | {
    "mlp": "gate_proj up_proj down_proj"
}
STACK = Stack(
    torch="2.5.1", transformers="4.44.2", trl="0.12.0", peft="0.13.2", accelerate="1.1.0",
    bitsandbytes="0.44.1", deepspeed=None,
)  # fmt: skip


def case_of(row: Row) -> Case:
    """Return the longest step that a card held."""
    if row.text("engine").startswith("unsloth"):
        raise NotScored("Unsloth's own kernels are not modelled")
    config = config_of(row)
    size = row.count("measured", high=1024)
    if size not in CARD_GIB:
        raise NotScored(f"what is usable of a card of {size} GB is not known")
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method="lora",
        adapter=adapter_of(row, SHORT),
        quantization=quantization_of(row),
        weights="bf16",
        trainable="fp32",
        autocast="bf16",
        upcast_frozen=True,
        optimizer=optimizer_of(row, default="adamw_8bit"),
        checkpointing=checkpointing_of(row),
        attention="flash",
        loss="logits-fp32",
        keeps_output=True,
        trainer="transformers",
        stack=STACK,
    )
    return Case(
        workload=workload,
        config=config,
        counter=counter_of(row),
        measured_bytes=round(CARD_GIB[size] * 2**30),
    )
