"""QwenLM/Qwen: ``finetune.py`` and the table of its README, on A100-80GB with torch 2.0.

Read: finetune.py, finetune/*.sh, finetune/ds_config_zero{2,3}.json and the history of README.md.
"""

from dataclasses import replace

from ...specs.adapter import Adapter
from ...specs.model import LinearShape, ModelSpec
from ...specs.workload import Quantization, Sharding, Stack, Workload
from ..case import (
    Case,
    check_kind,
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

ENGINES = ("qwen-finetune",)
ASSUMPTIONS = listed("""
- GB are 1e9 bytes and were read with nvidia-smi (the counter was not published).
- Inputs are padded to the full length (finetune.py, preprocess).
- Plain LoRA is of the chat model: finetune.py trains embedding and output layer of every other one, which
  the table calls LoRA (emb).
- peft 0.5.0: the table dates from 2023-10-11 and peft 0.6, which casts adapters to the model's bf16, from
  2023-11-02. So adapters are fp32 under bf16 autocast (finetune_lora_single_gpu.sh: --bf16).
- Q-LoRA is finetune_qlora_single_gpu.sh: fp16, DeepSpeed ZeRO-2 on one device with fp32 master copies of
  the adapters, buckets of 2e8 elements, overlapped.
- Full fine-tuning is finetune_ds.sh: bf16, DeepSpeed ZeRO-3 with Hugging Face's automatic bucket sizes,
  also on one device.
- LoRA of the 72B model is ZeRO-3, LoRA on two nodes ZeRO-2 (the default of finetune_lora_ds.sh).
- transformers 4.32-4.37 with Qwen's own model: all logits. Under autocast the softmax is fp32; DeepSpeed
  computes without autocast, so that there the softmax has the format of the logits. The output is dropped
  before the backward pass.
- Qwen's own modelling code fuses query, key and value, not gate and up (w2 and w1). The exact tier builds it
  as Phi-3, which fuses both.
""")

TARGETS = ("qkv_proj", "o_proj", "gate_up_proj", "gate_proj", "up_proj", "down_proj")
"""c_attn, c_proj, w1 and w2 of finetune.py in Phi-3's names, and in those of its MLP when it is split."""
STACK = Stack(
    torch="2.0.1", transformers="4.33.0", trl=None, peft="0.5.0", accelerate="0.23.0", bitsandbytes=None,
    deepspeed="0.10.3",
)  # fmt: skip
BUCKET_ELEMENTS = 200_000_000


def case_of(row: Row) -> Case:
    """Return the step of ``finetune.py`` that a row was measured at."""
    check_kind(row)
    method = method_word(row)
    config = config_of(row, "fused")
    base = Workload(
        model=_with_split_mlp(spec_of(config, row.id)),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method=method,
        optimizer="adamw_torch",
        gradient_accumulation_steps=8,
        checkpointing=checkpointing_of(row),
        attention="flash",
        loss="logits-shifted",
        trainer="transformers",
        stack=STACK,
        device_name=device_of(row),
    )
    workload = _full(base, row) if method == "full" else _lora(base, row)
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)


def _with_split_mlp(model: ModelSpec) -> ModelSpec:
    """Return Phi-3's shape with two layers for gate and up, as modeling_qwen.py has them."""
    count = model.parameters
    assert count is not None
    linears: list[LinearShape] = []
    for shape in count.linears:
        if shape.suffix != "gate_up_proj":
            linears.append(shape)
            continue
        prefix = shape.path.removesuffix("gate_up_proj")
        linears += [
            replace(shape, path=f"{prefix}{name}", num_out=shape.num_out // 2)
            for name in ("gate_proj", "up_proj")
        ]
    return replace(model, parameters=replace(count, linears=tuple(linears)))


def _full(base: Workload, row: Row) -> Workload:
    ranks = num_ranks(row)
    return replace(
        base,
        weights="bf16",
        trainable="bf16",
        sharding=_zero(3, ranks, ranks),
        optimizer="adamw_torch_fused",
    )


def _lora(base: Workload, row: Row) -> Workload:
    quantization = quantization_of(row)
    saved = ("embed_tokens", "lm_head") if row.text("method") == "lora_emb" else ()
    if row.targets() not in {("all-linear",), ("c_attn", "c_proj", "w1", "w2")}:
        raise NotScored("targets that finetune.py does not have")
    adapter = Adapter(
        rank=row.count("lora_r", high=1 << 16), targets=TARGETS, dropout=0.05, modules_to_save=saved
    )
    base = replace(base, adapter=adapter, quantization=quantization)
    if quantization:
        return _quantized(base, quantization)
    stage = row.text("stage")
    if "zero" not in stage:
        return replace(base, weights="bf16", trainable="fp32", autocast="bf16")
    ranks = num_ranks(row)
    sharding = _zero(3, ranks, ranks) if "3" in stage else _zero(2, ranks, min(ranks, 2))
    return replace(
        base,
        weights="bf16",
        trainable="bf16",
        sharding=sharding,
        optimizer="adamw_torch_fused",
    )


def _quantized(base: Workload, quantization: Quantization) -> Workload:
    return replace(
        base,
        weights="fp16",
        trainable="fp16",
        quantization=quantization,
        sharding=_zero(2, 1, 1),
        optimizer="adamw_torch_fused",
    )


def _zero(stage: int, ranks: int, per_node: int) -> Sharding:
    """DeepSpeed's AdamW of the configuration is its FusedAdam, which makes no temporary copies."""
    common = Sharding(
        backend="zero",
        num_ranks=ranks,
        ranks_per_node=per_node,
        num_shards=ranks,
        master="fp32",
        overlap_comm=True,
    )
    if stage == 3:  # noqa: PLR2004 - ZeRO-3
        return replace(common, zero_stage=3, sub_group_elements=10**9, max_live_parameters=10**9)
    return replace(
        common,
        zero_stage=2,
        reduce_bucket_elements=BUCKET_ELEMENTS,
        allgather_bucket_elements=BUCKET_ELEMENTS,
    )
