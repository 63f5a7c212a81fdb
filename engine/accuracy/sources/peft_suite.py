"""huggingface/peft: ``method_comparison/MetaMathQA/run.py``, Llama-3.2-3B on an L40S.

Read: run.py, data.py, utils.py and default_training_params.json.
"""

from dataclasses import replace

from ...specs.adapter import Adapter
from ...specs.workload import Stack, Workload
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

ENGINES = ("hf-raw-loop",)
ASSUMPTIONS = listed("""
- The longest batch has seq_len tokens, the cut of the script (max_seq_length 768): how long the longest
  text really is was not published, so the prediction is an upper bound.
- A plain loop: bf16 model, fp32 adapters without autocast (autocast_adapter_dtype), torch's AdamW,
  gradients clipped, batches padded (so that scaled_dot_product_attention gets a mask), transformers' own
  loss, and the output object lives until the next step.
- LoRA-FA, MiCA and BD-LoRA are counted as LoRA of their rank: they differ in less than 1 % of the total.
""")
OFT_WIDTH = 3072
"""Inputs of q_proj and v_proj of Llama-3.2-3B: OFT's ``r`` is a number of blocks."""
STACK = Stack(torch="2.13.0", transformers="5.13.0", trl=None, deepspeed=None, bitsandbytes=None)


def case_of(row: Row) -> Case:
    """Return the step of ``run.py`` that a row was measured at."""
    method = method_word(row)
    config = config_of(row)
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method=method,
        quantization=quantization_of(row),
        weights="bf16",
        trainable="bf16",
        optimizer=optimizer_of(row),
        checkpointing=checkpointing_of(row),
        attention="sdpa-mask",
        loss="logits",
        keeps_output=True,
        trainer="loop",
        stack=STACK,
        device_name=device_of(row),
    )
    if method == "lora":
        adapter = _oft(row) if row.text("method") == "peft:oft" else adapter_of(row, {})
        workload = replace(workload, adapter=adapter, trainable="fp32")
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)


def _oft(row: Row) -> Adapter:
    if row.targets() != ("q_proj", "v_proj"):
        raise NotScored("OFT on other layers than q_proj and v_proj")
    blocks = row.count("lora_r", high=OFT_WIDTH)
    return Adapter(kind="oft", targets=row.targets(), oft_block_size=OFT_WIDTH // blocks)
