"""The options of ``ftwiz estimate`` made into a recipe, or the one line that says why they cannot be."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

from ..engine.backends import grows_segments
from ..engine.errors import BadInput
from ..engine.memory.optimizers import RULES
from ..engine.memory.workload import (
    BackendName,
    OffloadName,
    Recipe,
    sharding_for,
)
from ..engine.models import num_trainable
from ..engine.specs.adapter import ALL_LINEAR, Adapter
from ..engine.specs.job import Method as JobMethod
from ..engine.specs.job import Train
from ..engine.specs.machine import CPU
from ..engine.specs.model import ModelSpec
from ..engine.specs.plan import Precision
from ..engine.specs.workload import AttentionKind, Quantization, Stage
from .estimate_target import Target

METHODS: Mapping[str, str] = {
    "full": "full",
    "freeze": "freeze",
    **dict.fromkeys(("lora", "qlora", "dora", "rslora", "pissa", "oft"), "lora"),
}
"""What can be asked for -> Workload.method."""
STAGES: tuple[str, ...] = get_args(Stage)
BACKENDS: tuple[str, ...] = get_args(BackendName)
OFFLOADS: tuple[str, ...] = get_args(OffloadName)
ATTENTIONS: tuple[str, ...] = get_args(AttentionKind)
QUANTIZATIONS: Mapping[str, float] = {
    **dict.fromkeys(("nf4", "fp4", "gptq", "awq", "hqq", "mxfp4"), 4.0),
    **dict.fromkeys(("int8", "eetq", "fp8"), 8.0),
    "aqlm": 2.0,
}
"""Kind -> bits of a packed weight."""
PRECISIONS: Mapping[str, Precision] = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}
GLOBAL_BATCH: int = Train.model_fields["global_batch_size"].default
DEFAULT_LAYERS = 2
"""freeze: layers that are trained (LLaMA-Factory, freeze_trainable_layers)."""
GROUP = 128
"""Weights that share a scale in nearly all GPTQ and AWQ files."""
MOST_NAMES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What was typed; ``None`` where nothing was."""

    model: str
    method: str
    rank: int | None
    targets: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    trainable_layers: int | None
    stage: str
    seq: int
    micro_batch: int
    accumulation: int | None
    backend: str | None
    offload: str
    devices: int | None
    machine: str | None
    optim: str
    checkpointing: bool | None
    attention: str | None
    quant: str | None
    packing: bool
    dtype: str | None
    exact: bool
    as_json: bool
    explain: bool


class Conflict(NamedTuple):
    """Choices that cannot be combined."""

    is_there: Callable[[Options, Target], bool]
    text: str
    """``{backend}`` and the like stand for what was typed."""
    hint: str


def _shards_weights(options: Options) -> bool:
    return options.backend in ("zero3", "fsdp", "fsdp-keep", "hsdp")


def _is_adapter(options: Options) -> bool:
    return METHODS[options.method] == "lora"


CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        lambda o, _: o.quant is not None and not _is_adapter(o),
        "--quant {quant} with --method {method}: packed weights cannot be trained",
        "train adapters beside them: --method qlora",
    ),
    Conflict(
        lambda o, _: bool(o.rank or o.targets or o.modules_to_save) and not _is_adapter(o),
        "--rank, --targets and --modules-to-save belong to adapters, not to --method {method}",
        "leave them out, or train adapters: --method lora",
    ),
    Conflict(
        lambda o, _: o.rank is not None and o.method == "oft",
        "--rank: OFT has blocks and no rank",
        "leave --rank out, or take --method lora",
    ),
    Conflict(
        lambda o, _: o.trainable_layers is not None and o.method != "freeze",
        "--trainable-layers belongs to --method freeze, not to {method}",
        "--method freeze",
    ),
    Conflict(
        lambda o, _: o.backend == "single" and (o.devices or 1) > 1,
        "--backend single is one process; --devices asks for {devices}",
        "--backend ddp, or --devices 1",
    ),
    Conflict(
        lambda o, t: t.kind == "mps" and t.num_ranks > 1 and o.backend != "single",
        "--machine {machine}: one process trains on an Apple device; torch connects no two of them",
        "--devices 1",
    ),
    Conflict(
        lambda o, t: o.backend == "ddp" and t.num_ranks == 1,
        "--backend ddp: nothing can be shared by one device",
        "--backend single, or more devices: --machine 2x...",
    ),
    Conflict(
        lambda o, t: o.backend not in (None, "single", "ddp") and t.num_ranks == 1 and o.offload == "none",
        "--backend {backend} on one device: there is nothing to shard between",
        "--backend single; or use the host's memory: --offload optimizer or all",
    ),
    Conflict(
        lambda o, t: o.backend == "hsdp" and t.num_ranks == t.ranks_per_node,
        "--backend hsdp shards inside each of several nodes, and there is one",
        "--backend fsdp",
    ),
    Conflict(
        lambda o, t: o.offload != "none" and t.kind == CPU,
        "--offload {offload}: without an accelerator everything is in the host's memory already",
        "leave --offload out",
    ),
    Conflict(
        lambda o, t: o.offload in ("optimizer", "all") and t.shares_host,
        "--offload {offload}: this device shares the host's memory, so nothing would be saved",
        "leave --offload out",
    ),
    Conflict(
        lambda o, _: o.offload != "none" and o.backend in (None, "single", "ddp"),
        "--offload {offload} needs an engine that can move what it shards",
        "--backend zero2 for the optimizer; --backend zero3 or fsdp for everything",
    ),
    Conflict(
        lambda o, _: o.offload == "optimizer" and o.backend in ("fsdp", "fsdp-keep", "hsdp"),
        "--offload optimizer: FSDP moves weights, gradients and optimizer together",
        "--offload all, or --backend zero2",
    ),
    Conflict(
        lambda o, _: o.offload == "all" and o.backend in ("zero1", "zero2"),
        "--offload all: only ZeRO-3 and FSDP can move the weights",
        "--backend zero3, or --offload optimizer",
    ),
    Conflict(
        lambda o, _: o.offload == "nvme" and o.backend != "zero3",
        "--offload nvme is ZeRO-Infinity, a part of ZeRO-3",
        "--backend zero3",
    ),
    Conflict(
        lambda o, _: o.quant not in (None, "nf4", "fp4") and _shards_weights(o),
        "--quant {quant} with --backend {backend}: only 4-bit weights of bitsandbytes can be sharded",
        "--quant nf4, or --backend ddp or zero2",
    ),
    Conflict(
        lambda o, t: o.dtype == "fp16" and t.kind == CPU,
        "--dtype fp16: transformers refuses it on the CPU",
        "--dtype bf16 or fp32",
    ),
    Conflict(
        lambda o, _: o.packing and o.stage not in ("pt", "sft"),
        "--packing: {stage} compares whole examples, which cannot be packed",
        "leave --packing out",
    ),
    Conflict(
        lambda o, t: (
            o.attention == "flash" and bool(t.fullest and t.fullest.supports_flash_attention_2 is False)
        ),
        "--attention flash: this device cannot run FlashAttention-2",
        "--attention sdpa",
    ),
)
"""Every line of refusal, with what to do. The first that is there speaks."""


def recipe_of(options: Options, target: Target, model: ModelSpec) -> Recipe:
    """Return the recipe that was asked for, on those devices.

    Raises:
        BadInput: The options cannot be combined, or not with this model.
    """
    _check(options, target)
    backend = _backend(options, target)
    ranks = 1 if backend == "single" else target.num_ranks
    precision = _precision(options, target)
    adapter = _adapter(options) if _is_adapter(options) else None
    if adapter is not None:
        _check_adapter(model, adapter)
    accumulation = options.accumulation or max(1, GLOBAL_BATCH // (ranks * options.micro_batch))
    checkpointing = target.kind != CPU if options.checkpointing is None else options.checkpointing
    values: dict[str, Any] = {"method": METHODS[options.method], "stage": options.stage}
    return Recipe(
        sequence_tokens=options.seq,
        micro_batch_size=options.micro_batch,
        gradient_accumulation_steps=accumulation,
        adapter=adapter,
        num_trainable_layers=_layers(options, model),
        quantization=_quantization(options),
        precision=precision,
        optimizer=_optimizer(options.optim),
        checkpointing="full" if checkpointing else "none",
        attention=_attention(options),
        packing=options.packing,
        sharding=sharding_for(
            backend,
            num_ranks=ranks,
            ranks_per_node=min(ranks, target.ranks_per_node),
            precision=precision,
            offload=_offload(options),
        ),
        device_kind=target.kind,
        device_name=None if target.kind == CPU else target.name,
        expandable_segments=target.fullest is not None and grows_segments((target.fullest,)),
        **values,
    )


def words(texts: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Return the names of an option that may be repeated and may hold commas.

    Raises:
        BadInput: One is empty, or no name.
    """
    found = tuple(name.strip() for text in texts for name in text.split(","))
    bad = next((name for name in found if not name.replace("_", "").replace(".", "").isalnum()), None)
    if bad is not None and bad != ALL_LINEAR:
        raise BadInput(f"{option}: {bad[:60]!r} is no name of a layer", hint=f"{option} q_proj,v_proj")
    if len(found) > MOST_NAMES:
        raise BadInput(f"{option}: {len(found):,} names; {MOST_NAMES} are enough for any model")
    return found


def _check(options: Options, target: Target) -> None:
    typed = {name: getattr(options, name) for name in ("backend", "devices", "dtype", "machine")}
    typed |= {name: getattr(options, name) for name in ("method", "offload", "quant", "stage")}
    for conflict in CONFLICTS:
        if conflict.is_there(options, target):
            raise BadInput(conflict.text.format(**typed), hint=conflict.hint)


def _backend(options: Options, target: Target) -> BackendName:
    if options.backend is None:
        return "single" if target.num_ranks == 1 else "ddp"
    return next(name for name in get_args(BackendName) if name == options.backend)


def _offload(options: Options) -> OffloadName:
    return next(name for name in get_args(OffloadName) if name == options.offload)


def _attention(options: Options) -> AttentionKind | None:
    return next((name for name in get_args(AttentionKind) if name == options.attention), None)


def _precision(options: Options, target: Target) -> Precision:
    """As the planner decides it: bfloat16 where the device computes in it, float32 on the CPU."""
    if options.dtype is not None:
        return PRECISIONS[options.dtype]
    if target.kind == CPU:
        return "no"
    supports = target.fullest.supports_bf16 if target.fullest else None
    if supports is None:
        return "no"
    return "bf16" if supports else "fp16"


def _adapter(options: Options) -> Adapter:
    default = JobMethod()
    targets = words(options.targets, "--targets") if options.targets else (ALL_LINEAR,)
    if ALL_LINEAR in targets and len(targets) > 1:
        raise BadInput("--targets: all-linear takes every layer, so nothing can stand beside it")
    saved = words(options.modules_to_save, "--modules-to-save") if options.modules_to_save else ()
    adapter = Adapter(rank=options.rank or default.r, targets=targets, modules_to_save=saved)
    if options.method == "oft":
        return replace(adapter, kind="oft")
    return replace(adapter, use_dora=options.method == "dora")


def _check_adapter(model: ModelSpec, adapter: Adapter) -> None:
    found = num_trainable(model, adapter)
    if found.refusal is None:
        return
    names = sorted({shape.suffix for shape in model.parameters.linears} if model.parameters else ())
    near = [close for name in adapter.targets for close in difflib.get_close_matches(name, names, n=2)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"its layers: {', '.join(names)[:200]}"
    raise BadInput(f"--targets {','.join(adapter.targets)}: {found.refusal}", hint=hint)


def _layers(options: Options, model: ModelSpec) -> int | None:
    if options.method != "freeze":
        return None
    layers = options.trainable_layers or DEFAULT_LAYERS
    if model.num_layers is not None and layers > model.num_layers:
        raise BadInput(f"--trainable-layers {layers}: the model has {model.num_layers}")
    return layers


def _quantization(options: Options) -> Quantization | None:
    kind: Any = options.quant or ("nf4" if options.method == "qlora" else None)
    if kind is None:
        return None
    block = GROUP if kind in ("gptq", "awq") else Quantization(kind=kind).block_size
    return Quantization(kind=kind, bits=QUANTIZATIONS[kind], block_size=block)


def _optimizer(name: str) -> str:
    if name in RULES:
        return name
    near = difflib.get_close_matches(name, RULES, n=3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "usual ones: adamw_torch_fused, adamw_bnb_8bit, adafactor"
    )
    raise BadInput(f"--optim {name[:60]!r} is no optimizer that is known", hint=hint)
