"""huggingface/accelerate: ``benchmarks/fsdp2``, Qwen2.5-1.5B on eight H100.

Read: main.py, utils.py, measure_utils.py and README.md.
"""

from ...specs.workload import Sharding, Stack, Workload
from ..case import (
    Case,
    checkpointing_of,
    counter_of,
    device_of,
    listed,
    method_word,
    micro_batch,
    num_ranks,
    optimizer_of,
    sequence_tokens,
)
from ..row import Row
from ..shapes import config_of, spec_of
from . import described

ENGINES = ("accelerate",)
ASSUMPTIONS = listed("""
- FSDP2 through accelerate with mixed precision bf16: fp32 parameters, gradients and AdamW states, sharded;
  computed in bf16 under autocast.
- A plain loop: the output object lives through the backward pass, no gradient clipping.
""")
STACK = Stack(torch="2.6.0", transformers="4.49.0", trl=None, peft=None, bitsandbytes=None, deepspeed=None)


def case_of(row: Row) -> Case:
    """Return the step of ``main.py`` that a row was measured at."""
    if method_word(row) != "full" or "fsdp2" not in f"{row.text('engine')} {row.text('stage')}":
        return described.case_of(row)
    config = config_of(row)
    ranks = num_ranks(row)
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method="full",
        weights="fp32",
        trainable="fp32",
        autocast="bf16",
        optimizer=optimizer_of(row),
        clips_gradients=False,
        checkpointing=checkpointing_of(row),
        attention="sdpa",
        loss="logits",
        keeps_output=True,
        sharding=Sharding(backend="fsdp", num_ranks=ranks, ranks_per_node=min(ranks, 8), num_shards=ranks),
        trainer="loop",
        stack=STACK,
        device_name=device_of(row),
    )
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)
