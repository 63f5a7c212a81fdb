"""Published measurements of litgpt, torchtitan and torchtune as workloads.

What a row does not say is looked up in the project's code and configurations of the day:
``ASSUMPTIONS`` lists it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..specs.adapter import Adapter
from ..specs.workload import DTYPE_BYTES, Sharding, Stack, Workload
from .case import checkpointing_of, listed, micro_batch, num_ranks, quantization_of, sequence_tokens
from .foreign_models import config_for, spec_for
from .row import NotScored, Row

MAX_RANK, MAX_DEGREE = 1 << 16, 1 << 16
ASSUMPTIONS = listed("""
- litgpt, tutorials/resource-tables.md: code of the day the table was added (2023-10-27; adapters 2024-01-18);
  its RMSNorm computes in float32 since 2023-10-24, although the table names a commit a week older. 128
  sequences a step, so that gradients are there in every pass; the longest sample comes first.
- litgpt, config_hub/finetune: code of 2024-04-26, phi-3 of 2024-07-05, llama-3.2 of 2024-09-27; every batch
  is as long as the limit of 512 tokens, also the one before, whose logits (and with bitsandbytes 0.42 the
  inputs of its 4-bit products) are still held.
- litgpt: lightning makes logits float32; dropout 0.05 on the input of every adapter; embedding and output
  layer are two tensors in every model; the output layer is quantized too.
- torchtitan: fp32 parameters, gradients and AdamW states, sharded; bf16 gathered weights, fp32 reduction;
  foreach AdamW until 2025; expandable segments (run_train.sh); tensors of float8 products as of bf16.
- torchtune: bf16 for everything; fused AdamW, as its configurations for adapters say; packed sequences;
  configurations of recipes/configs at 1814feb.
""")


def workload_of_row(row: Row | Mapping[str, object]) -> Workload:
    """Return the step that a row was measured at.

    Args:
        row: A measurement, read or as its file has it.

    Raises:
        NotScored: The row does not say enough, or contradicts itself.
    """
    read = row if isinstance(row, Row) else Row(id=str(row.get("id") or "row"), fields=row)
    engine = read.text("engine")
    makers: dict[str, Callable[[Row], Workload]] = {
        "litgpt-2023": _litgpt,
        "litgpt-2024": _litgpt,
        "torchtitan": _torchtitan,
        "torchtune": _torchtune,
    }
    if engine not in makers:
        raise NotScored(f"engine {engine!r} is no foreign trainer")
    return makers[engine](read)


def config_of_row(row: Row) -> dict[str, object]:
    """Return a configuration with the matrices of a row's model."""
    return config_for(row, ties=not row.text("engine").startswith("litgpt"))


# litgpt

GATED_TARGETS = {
    "q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj",),
    "mlp": ("gate_proj", "up_proj", "down_proj"), "head": ("lm_head",),
}  # fmt: skip
PLAIN_TARGETS = {**GATED_TARGETS, "o": ("dense",), "mlp": ("fc1", "fc2")}
ADAPTERS = {"adapter": "llama-adapter", "adapter_v2": "llama-adapter-v2"}
NO_STACK = Stack(torch=None, transformers=None, trl=None, peft=None, accelerate=None, bitsandbytes=None,
                 deepspeed=None)  # fmt: skip
TABLE_STACK = replace(NO_STACK, torch="2.1.0", bitsandbytes="0.41.1", trainer="2023-10-27")
ADAPTER_STACK = replace(TABLE_STACK, bitsandbytes="0.41.0", trainer="2024-01-18")
HUB_STACK = replace(NO_STACK, torch="2.2.0", bitsandbytes="0.42.0", trainer="2024-04-26")
HUB_DAYS = {"llama-3.2": "2024-09-27", "llama-3.1": "2024-07-24", "phi-3": "2024-07-05"}
"""Beginning of a model's name -> day of its configurations; the others are of 2024-04-26."""
TABLE_ACCUMULATION, HUB_ACCUMULATION = 128, 8
DROPOUT = 0.05


def _litgpt(row: Row) -> Workload:
    is_table = row.text("engine") == "litgpt-2023"
    if num_ranks(row) > 1:
        raise NotScored("FSDP1 with frozen weights: gradients of whole flat parameters, not modelled")
    method = row.text("method")
    quantization = quantization_of(row)
    if quantization:
        quantization = replace(quantization, quantizes_head=True)
    is_mixed = "mixed" in row.text("precision")
    adapter = _litgpt_adapter(row) if method != "full" else None
    batch = micro_batch(row)
    workload = Workload(
        model=spec_for(row, ties=False),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=batch,
        method="full" if method == "full" else "lora",
        adapter=adapter,
        quantization=quantization,
        weights="fp32" if is_mixed else "bf16",
        trainable="fp32" if is_mixed else "bf16",
        autocast="bf16" if is_mixed else None,
        optimizer="paged_adamw_32bit" if quantization else "adamw_torch",
        clips_gradients=False,
        gradient_accumulation_steps=max(2, (TABLE_ACCUMULATION if is_table else HUB_ACCUMULATION) // batch),
        checkpointing=checkpointing_of(row),
        attention="sdpa",
        loss="chunked-128",
        trainer="litgpt",
        stack=_litgpt_stack(row, is_table=is_table),
        device_name=row.text("gpu").upper() or None,
    )
    _check_holds_states(workload, row)
    return workload


def _litgpt_stack(row: Row, *, is_table: bool) -> Stack:
    if is_table:
        return ADAPTER_STACK if row.text("method") in ADAPTERS else TABLE_STACK
    name = row.text("arch") or row.text("model")
    days = [day for start, day in HUB_DAYS.items() if name.startswith(start)]
    return replace(HUB_STACK, trainer=days[0]) if days else HUB_STACK


def _litgpt_adapter(row: Row) -> Adapter:
    method = row.text("method")
    if method in ADAPTERS:
        return Adapter(kind=ADAPTERS[method])
    if method not in ("lora", "qlora"):
        raise NotScored(f"method {method!r} is not one of litgpt's")
    dims = row.dims
    table = GATED_TARGETS if dims is None or dims.is_gated else PLAIN_TARGETS
    unknown = [name for name in row.targets() if name not in table]
    if unknown or not row.targets():
        raise NotScored(f"lora_targets {', '.join(unknown) or 'was not published'}")
    targets = tuple(target for name in row.targets() for target in table[name])
    return Adapter(rank=row.count("lora_r", high=MAX_RANK), targets=targets, dropout=DROPOUT)


def _check_holds_states(w: Workload, row: Row) -> None:
    """Refuse full fine-tuning below weights, gradients and AdamW states: it did not run on one device so."""
    count = w.model.num_parameters or 0
    least = count * DTYPE_BYTES[w.weights] * 4
    if w.method == "full" and row.measured_bytes < least:
        raise NotScored(f"inconsistent: less than weights, gradients and AdamW states, {least:,} B")


# torchtitan

TITAN_STACK = replace(NO_STACK, torch="2.6.0", trainer="2024-12-26")
TITAN_DAYS = {
    "llama3_h100_202412": "2024-12-26",
    "float8nocompile": "2025-01-15",
    "workflows/training": "2025-03-01",
}
"""Part of a source's name -> day of the code."""
B200_DAY = "2025-08-14"
FUSED_SINCE = "2025-06-01"
"""torchtitan's AdamW is fused unless told otherwise since ``optimizer.implementation``."""


def _torchtitan(row: Row) -> Workload:
    if row.text("method") != "full":
        raise NotScored("torchtitan trains all weights")
    ranks, tensor, context = num_ranks(row), _degree(row, "tp"), _degree(row, "cp")
    if _degree(row, "pp") > 1 or "pp" in row.text("stage"):
        raise NotScored("pipeline stages are not modelled")
    day = _titan_day(row)
    return Workload(
        model=spec_for(row, ties=True),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method="full",
        weights="fp32",
        trainable="fp32",
        autocast="bf16",
        optimizer="adamw_torch_fused" if day >= FUSED_SINCE else "adamw_torch",
        checkpointing=checkpointing_of(row),
        attention="flash",
        loss="logits-fp32",
        compiles=row.flag("compile") is True,
        sharding=Sharding(
            backend="fsdp",
            num_ranks=ranks,
            ranks_per_node=min(ranks, 8),
            num_shards=ranks // tensor,
            reduce="fp32",
            tensor_parallel=tensor,
            context_parallel=context,
        ),
        trainer="torchtitan",
        stack=replace(TITAN_STACK, trainer=day),
        device_name=row.text("gpu").upper() or None,
        expandable_segments=True,
    )


def _titan_day(row: Row) -> str:
    if any(card in row.text("gpu") for card in ("b200", "mi300")):
        return B200_DAY
    days = [day for part, day in TITAN_DAYS.items() if part in row.text("source")]
    return days[0] if days else str(TITAN_STACK.trainer)


def _degree(row: Row, name: str) -> int:
    return row.count(name, high=MAX_DEGREE, default=1)


# torchtune

TUNE_TARGETS = {
    "q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj",), "output": ("o_proj",),
    "q_proj": ("q_proj",), "k_proj": ("k_proj",), "v_proj": ("v_proj",), "output_proj": ("o_proj",),
    "o_proj": ("o_proj",), "mlp": ("gate_proj", "up_proj", "down_proj"),
}  # fmt: skip
TUNE_STACK = replace(NO_STACK, torch="2.5.1", trainer="2024-11-18")


def _torchtune(row: Row) -> Workload:
    if num_ranks(row) > 1:
        raise NotScored("torchtune on several devices is not looked up")
    method, quantization = row.text("method"), quantization_of(row)
    if method not in ("full", "lora", "qlora"):
        raise NotScored(f"method {method!r} is not one of torchtune's")
    is_full, loss = method == "full", row.text("loss")
    return Workload(
        model=spec_for(row, ties=True),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method="full" if is_full else "lora",
        adapter=None if is_full else _tune_adapter(row),
        quantization=quantization,
        weights="bf16",
        trainable="bf16",
        optimizer=_tune_optimizer(row),
        optimizer_in_backward=_says(
            row, "in_bwd", "in bwd", "in backward", "in-backward", "fused in backward"
        ),
        clips_gradients=False,
        checkpointing=checkpointing_of(row),
        offloads_activations="activation" in row.text("offload"),
        attention="flex",
        packing=True,
        loss="chunked" if "chunk" in loss else "logits-fp32",
        compiles=row.flag("compile") is True,
        trainer="torchtune",
        stack=TUNE_STACK,
        device_name=row.text("gpu").upper() or None,
    )


def _says(row: Row, *words: str) -> bool:
    text = " ".join(row.text(name) for name in ("optimizer", "optimizer_detail", "note", "stage"))
    return any(word in text for word in words)


def _tune_adapter(row: Row) -> Adapter:
    unknown = [name for name in row.targets() if name not in TUNE_TARGETS]
    if unknown or not row.targets():
        raise NotScored(f"lora_targets {', '.join(unknown) or 'was not published'}")
    targets = tuple(dict.fromkeys(target for name in row.targets() for target in TUNE_TARGETS[name]))
    return Adapter(rank=row.count("lora_r", high=MAX_RANK), targets=targets)


def _tune_optimizer(row: Row) -> str:
    """Return the optimizer by the name that Hugging Face gives it."""
    name = row.text("optimizer")
    for word, found in (
        ("paged", "paged_adamw_8bit" if "8" in name else "paged_adamw_32bit"),
        ("4bit", "adamw_torch_4bit"),
        ("4-bit", "adamw_torch_4bit"),
        ("8bit", "adamw_torch_8bit" if "ao" in name else "adamw_bnb_8bit"),
        ("8-bit", "adamw_torch_8bit" if "ao" in name else "adamw_bnb_8bit"),
        ("fused", "adamw_torch_fused"),
        ("adamw", "adamw_torch_fused"),
    ):
        if word in name:
            return found
    raise NotScored(f"optimizer {name!r} is not known")
