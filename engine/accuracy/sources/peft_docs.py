"""huggingface/peft: docs/source/accelerate/deepspeed.md and fsdp.md, Llama-2-70B on two or eight devices.

Read: both pages with their accelerate configurations and command lines.
"""

from typing import Literal

from ...specs.workload import Sharding, Stack, Workload
from ..case import (
    Case,
    adapter_of,
    checkpointing_of,
    counter_of,
    device_of,
    listed,
    method_word,
    micro_batch,
    num_ranks,
    quantization_of,
    sequence_tokens,
)
from ..row import NotScored, Row
from ..shapes import config_of, spec_of

ENGINES = ("hf-sft",)
ASSUMPTIONS = listed("""
- GB are 1e9 bytes as nvidia-smi shows them: both pages show screenshots.
- Texts are packed to 2,048 tokens; LoRA of rank 8 on all linear layers with dropout 0.1; FlashAttention-2.
- bf16 adapters where weights are bf16 and not under autocast (DeepSpeed: fp32 master copies in the
  optimizer; FSDP1: pure bf16 with quantized weights, fp32 with bf16 autocast otherwise).
- 4-bit weights are stored as bf16, double quantized, and sharded.
- transformers of early 2024: fp32 logits, dropped before the backward pass.
""")
STACK = Stack(
    torch="2.2.1", transformers="4.39.0", trl="0.7.11", peft="0.9.0", accelerate="0.28.0",
    bitsandbytes="0.43.0", deepspeed="0.13.1",
)  # fmt: skip


def case_of(row: Row) -> Case:
    """Return the step of ``examples/sft/train.py`` that a row was measured at."""
    if method_word(row) != "lora":
        raise NotScored("only the pages' LoRA and QLoRA are looked up")
    config = config_of(row)
    quantization = quantization_of(row)
    sharding = _sharding(row)
    is_autocast = sharding.backend == "fsdp1" and quantization is None
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method="lora",
        adapter=adapter_of(row, {}, dropout=0.1),
        quantization=quantization,
        weights="bf16",
        trainable="fp32" if is_autocast else "bf16",
        autocast="bf16" if is_autocast else None,
        optimizer="adamw_torch",
        gradient_accumulation_steps=4,
        checkpointing=checkpointing_of(row),
        attention="flash",
        packing=True,
        loss="logits-fp32",
        sharding=sharding,
        trainer="transformers",
        stack=STACK,
        device_name=device_of(row),
    )
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)


def _sharding(row: Row) -> Sharding:
    ranks = num_ranks(row)
    per_node = min(ranks, 8)
    words = f"{row.text('engine')} {row.text('stage')}"
    place: Literal["none", "cpu"] = "none" if row.text("offload") in {"", "none"} else "cpu"
    if "zero-3" in words or "zero3" in words or "deepspeed" in words:
        return Sharding(
            backend="zero", num_ranks=ranks, ranks_per_node=per_node, num_shards=ranks, zero_stage=3,
            master="fp32", offload_optimizer=place, offload_parameters=place,
        )  # fmt: skip
    if "fsdp" in words or "full_shard" in words:
        return Sharding(
            backend="fsdp1", num_ranks=ranks, ranks_per_node=per_node, num_shards=ranks,
            offload_optimizer=place, offload_parameters=place,
        )  # fmt: skip
    raise NotScored("neither FSDP nor ZeRO-3")
