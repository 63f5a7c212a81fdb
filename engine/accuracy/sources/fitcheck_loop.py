"""Anassbzdd/fitcheck: ``scripts/measure.py`` on a Tesla T4, September 2026.

Read: scripts/measure.py, scripts/requirements-measure.txt, data/measurements/README.md.
"""

from dataclasses import replace

from ...specs.workload import AttentionKind, DType, Stack, Workload
from ..case import (
    Case,
    adapter_of,
    checkpointing_of,
    counter_of,
    device_of,
    listed,
    method_word,
    micro_batch,
    optimizer_of,
    quantization_of,
    sequence_tokens,
)
from ..row import NotScored, Row
from ..shapes import config_of, spec_of

ENGINES = ("hf-fitcheck-loop",)
ASSUMPTIONS = listed("""
- A plain loop around transformers without autocast; random tokens of the full length, no padding.
- Adapters are fp32 (peft); of quantized models everything that is not packed becomes fp32
  (prepare_model_for_kbit_training), so that the stream between layers and the logits are fp32 too.
- torch's AdamW, no gradient clipping; the output object lives through the backward pass.
- sdpa is pinned to the memory-efficient kernel, and key and value heads are repeated to the query's.
- Process memory is what the allocator keeps plus what the driver reports besides.
""")
STACK = Stack(torch="2.10.0", transformers="5.13.0", trl=None, deepspeed=None)
COMPUTE: dict[str, DType] = {"fp16": "fp16", "bf16": "bf16", "fp32": "fp32"}
SHORT = {name: f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")} | {
    "mlp": "gate_proj up_proj down_proj"
}


def case_of(row: Row) -> Case:
    """Return the step of ``measure.py`` that a row was measured at."""
    method = method_word(row)
    config = config_of(row)
    quantization = quantization_of(row)
    words = row.text("precision").split()
    compute = COMPUTE.get(words[0]) if words else None
    if compute is None:
        raise NotScored("precision is not known")
    attention: AttentionKind = "eager" if "eager" in row.text("attn") else "sdpa"
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method=method,
        quantization=quantization,
        weights=compute,
        trainable=compute,
        upcast_frozen=quantization is not None,
        optimizer=optimizer_of(row),
        clips_gradients=False,
        checkpointing=checkpointing_of(row),
        attention=attention,
        loss="logits",
        keeps_output=True,
        trainer="loop",
        stack=STACK,
        device_name=device_of(row),
    )
    if method == "lora":
        workload = replace(workload, adapter=adapter_of(row, SHORT), trainable="fp32")
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)
