"""modelscope/ms-swift 1.x: ``scripts/benchmark/test_memory_time`` and Benchmark.md, A100-80GB, early 2024.

Read: docs/source_en/LLM/Benchmark.md and swift/llm/utils/argument.py of the time.
"""

from dataclasses import replace

from ...specs.workload import LossHead, Stack, Workload
from ..case import (
    Case,
    adapter_of,
    attention_of,
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
from ..shapes import Layout, config_of, spec_of

ENGINES = ("ms-swift",)
ASSUMPTIONS = listed("""
- Texts of 91 to 19,548 tokens (mean 3,234), cut at max_length and never packed: the longest one of every
  table is max_length. Steps of many lengths leave the allocator with more than one step of the longest
  needs; nothing is added for that.
- LoRA: bf16 weights, fp32 adapters (lora_dtype), bf16 autocast, dropout 0.05, torch's AdamW.
- Full fine-tuning: bf16 weights and optimizer states, no second copy (dtype AUTO).
- transformers 4.36: all logits; fp32 logits of Llama-like models and ChatGLM3, of Qwen and Baichuan2 a
  shifted copy that autocast makes fp32.
- Models with fused query, key and value (Qwen, ChatGLM3, Baichuan2) are built as Phi-3, which has it too.
""")
FUSED = ("qwen-", "chatglm", "baichuan")
"""Beginnings of models whose own code has one layer for query, key and value."""
NAMES = {
    "fused": {"qkv (model default)": "qkv_proj", "c_attn": "qkv_proj"},
    "separate": {"qkv (model default)": "q_proj k_proj v_proj"},
}
STACK = Stack(
    torch="2.1.1", transformers="4.36.2", trl=None, peft="0.7.1", accelerate="0.25.0", bitsandbytes="0.41.3",
    deepspeed=None,
)  # fmt: skip


SHIFTED = ("qwen-", "baichuan")
"""Beginnings of models whose own code makes a shifted copy of the logits and no fp32 one."""


def _loss(row: Row) -> LossHead:
    return "logits-shifted" if row.text("arch").startswith(SHIFTED) else "logits-fp32"


def case_of(row: Row) -> Case:
    """Return the step of ``swift sft`` that a row was measured at."""
    if "910" in row.text("gpu"):
        raise NotScored("an NPU, whose sequence length was not published")
    if num_ranks(row) > 1:
        raise NotScored("layers spread over devices by device_map, which ftwiz does not do")
    method = method_word(row)
    layout: Layout = "fused" if row.text("arch").startswith(FUSED) else "separate"
    config = config_of(row, layout)
    quantization = quantization_of(row)
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method=method,
        weights="bf16",
        trainable="bf16",
        optimizer="adamw_torch",
        gradient_accumulation_steps=16,
        varied_lengths=True,
        checkpointing=checkpointing_of(row),
        attention=attention_of(row),
        loss=_loss(row),
        trainer="transformers",
        stack=STACK,
        device_name=device_of(row),
    )
    if method == "lora":
        adapter = adapter_of(row, NAMES[layout], dropout=0.05)
        workload = replace(
            workload,
            adapter=adapter,
            quantization=quantization,
            trainable="fp32",
            autocast="bf16",
            upcast_frozen=quantization is not None and quantization.kind == "nf4",
        )
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)
