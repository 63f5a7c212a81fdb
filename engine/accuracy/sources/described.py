"""Runs that nobody looked up: nothing is known of their scripts but what their rows say."""

from dataclasses import replace
from typing import Literal

from ...specs.workload import DType, LossHead, Sharding, Workload
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
    optimizer_of,
    quantization_of,
    sequence_tokens,
)
from ..row import NotScored, Row
from ..shapes import config_of, spec_of

ENGINES = ("hf", "transformers", "trl", "deepspeed", "badam")
ASSUMPTIONS = listed("""
- Rows of Hugging Face scripts that are described by their own fields alone, with the rules of the installed
  versions: adapters are fp32 and everything not packed beside 4 or 8 bits too; "fp32 master" is DeepSpeed's
  second copy under ZeRO and fp32 weights under autocast otherwise.
""")
LOSSES: dict[str, LossHead] = {
    "": "logits", "ce_full": "logits", "ce_full_fp32": "logits-fp32", "ce_chunked": "chunked", "cce": "cce",
    "liger": "liger", "flce": "liger", "liger_flce": "liger", "fused": "fused-tiles",
}  # fmt: skip
SHORT = {name: f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")} | {
    "mlp": "gate_proj up_proj down_proj"
}


def case_of(row: Row) -> Case:
    """Return the step that a row describes."""
    method = method_word(row)
    config = config_of(row)
    loss = LOSSES.get(row.text("loss"))
    if loss is None:
        raise NotScored(f"loss {row.text('loss')!r} is not known")
    sharding = _sharding(row)
    workload = Workload(
        model=spec_of(config, row.id),
        sequence_tokens=sequence_tokens(row),
        micro_batch_size=micro_batch(row),
        method=method,
        optimizer=optimizer_of(row),
        checkpointing=checkpointing_of(row),
        attention=attention_of(row, default="sdpa"),
        loss=loss,
        compiles=row.flag("compile") is True,
        sharding=sharding,
        trainer="trl" if row.text("engine").startswith("trl") else "transformers",
        device_name=device_of(row),
    )
    workload = _in_formats(workload, row)
    if method == "lora":
        quantization = quantization_of(row)
        workload = replace(
            workload,
            adapter=adapter_of(row, SHORT),
            quantization=quantization,
            upcast_frozen=quantization is not None and quantization.kind in {"nf4", "int8"},
            trainable="fp32" if sharding.backend != "zero" else workload.weights,
        )
    return Case(workload=workload, config=config, counter=counter_of(row), measured_bytes=row.measured_bytes)


def _in_formats(workload: Workload, row: Row) -> Workload:
    words = row.text("precision")
    short: DType = "fp16" if "fp16" in words else "bf16"
    if words.strip() == "fp32":
        return replace(workload, weights="fp32", trainable="fp32")
    if workload.sharding.backend == "zero":
        master: DType | None = "fp32" if "master" in words or "bf16 states" not in words else None
        return replace(
            workload, weights=short, trainable=short, sharding=replace(workload.sharding, master=master)
        )
    if "fp32" in words:
        return replace(workload, weights="fp32", trainable="fp32", autocast=short)
    mixed = "autocast" in words or "mixed" in words or "amp" in words
    return replace(workload, weights=short, trainable=short, autocast=short if mixed else None)


ZERO_STAGES: tuple[tuple[str, Literal[1, 2, 3]], ...] = (("3", 3), ("2", 2), ("1", 1))


def _sharding(row: Row) -> Sharding:
    ranks, stage = num_ranks(row), row.text("stage")
    place: Literal["none", "cpu"] = "none" if row.text("offload") in {"", "none"} else "cpu"
    common = Sharding(num_ranks=ranks, ranks_per_node=min(ranks, 8), num_shards=ranks)
    if stage in {"", "none", "ddp"}:
        return replace(common, backend="ddp" if ranks > 1 else "single", num_shards=1)
    levels = [level for digit, level in ZERO_STAGES if "zero" in stage and digit in stage]
    if levels:
        common = replace(common, backend="zero", zero_stage=levels[0], offload_optimizer=place)
        return replace(common, offload_parameters=place) if levels[0] == 3 else common  # noqa: PLR2004 - ZeRO-3
    if "shard" in stage or "fsdp" in stage:
        backend: Literal["fsdp", "fsdp1"] = "fsdp" if "fsdp2" in stage else "fsdp1"
        return replace(common, backend=backend, offload_optimizer=place, offload_parameters=place)
    raise NotScored(f"stage {stage!r} is not known")
