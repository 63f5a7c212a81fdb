"""Answer.AI's fsdp_qlora: ``train.py`` on two RTX 3090 or 4090, February and March 2024.

Read: train.py and benchmarks_03_2024.md, whose command line names what differs from the script's defaults.
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

ENGINES = ("fsdp_qlora",)
ASSUMPTIONS = listed("""
- Dummy data: every sequence has the full context length; no attention mask is passed.
- The script's defaults: rank 64 on q, k, v, gate, up and down projection, dropout 0.1, pure bf16, torch's
  AdamW, no gradient clipping, peft's adapters cast to the weights' bf16 (peft 0.8).
- FSDP1 with flat parameters (use_orig_params=False): every decoder layer is a unit and every linear layer
  of an adapter its own; DDP is FSDP's NO_SHARD; CPU offload keeps parameters, gradients and optimizer on
  the host.
- transformers 4.38: the logits are fp32 and the output object with them lives through the backward pass.
""")
MLP = "gate_proj up_proj down_proj"
NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "mlp": MLP}
STACK = Stack(
    torch="2.2.0", transformers="4.38.2", trl=None, peft="0.8.2", accelerate="0.27.2", bitsandbytes="0.43.0",
    deepspeed=None,
)  # fmt: skip


def case_of(row: Row) -> Case:
    """Return the step of ``train.py`` that a row was measured at."""
    if method_word(row) != "lora":
        raise NotScored("only LoRA and QLoRA of this script are looked up")
    config = config_of(row)
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method="lora",
        adapter=adapter_of(row, NAMES, dropout=0.1),
        quantization=quantization_of(row),
        weights="bf16",
        trainable="bf16",
        optimizer="adamw_torch",
        clips_gradients=False,
        checkpointing=checkpointing_of(row),
        attention="sdpa",
        loss="logits-fp32",
        keeps_output=True,
        offloads_activations="activation" in row.text("offload"),
        sharding=_sharding(row),
        trainer="loop",
        stack=STACK,
        device_name=device_of(row),
    )
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)


def _sharding(row: Row) -> Sharding:
    ranks = num_ranks(row)
    stage, offload = row.text("stage"), row.text("offload")
    if "no_shard" in stage or "ddp" in stage:
        shards = 1
    elif "full_shard" in stage or "fsdp" in stage:
        shards = ranks
    else:
        raise NotScored(f"stage {stage!r} is not known")
    place: Literal["none", "cpu"] = "cpu" if "cpu" in offload else "none"
    return Sharding(
        backend="fsdp1",
        num_ranks=ranks,
        ranks_per_node=min(ranks, 8),
        num_shards=shards,
        offload_optimizer=place,
        offload_parameters=place,
    )
