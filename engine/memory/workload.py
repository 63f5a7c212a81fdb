"""What our trainer makes of a job: number formats, attention, loss head, reference model. Pure.

``Recipe`` holds what somebody chose; ``recipe_workload`` adds what follows from it with these versions of
the libraries. A saved job and its strategy are one recipe (``workload_of``), options of a command another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..backends import grows_segments
from ..specs.adapter import ALL_LINEAR, Adapter
from ..specs.job import Job
from ..specs.machine import Device
from ..specs.model import ModelSpec
from ..specs.plan import Precision, Strategy
from ..specs.workload import (
    AttentionKind,
    Checkpointing,
    DType,
    LossHead,
    Method,
    Quantization,
    Sharding,
    Stack,
    Stage,
    Workload,
)

COMPUTE: dict[Precision, DType] = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
"""Format of matrix products, by ``mixed_precision``."""
PREFERENCE: frozenset[Stage] = frozenset({"rm", "dpo", "kto", "orpo", "simpo"})
"""Stages whose examples differ in length within a batch of one, so that there is always padding."""
REFERENCE: frozenset[Stage] = frozenset({"dpo", "kto", "rloo"})
"""Stages that compare with the model as it was. trl 1.16: GRPOConfig.beta is 0, RLOOConfig.beta 0.05."""
SAMPLING: frozenset[Stage] = frozenset({"grpo", "rloo"})
FULL_LOGITS: frozenset[Stage] = frozenset({"orpo", "simpo"})
"""Trainers that hold all logits: trl/experimental/orpo and cpo of 1.16."""
EAGER_ONLY = frozenset({"gemma2", "gpt_oss", "deepseek_v4"})
"""Models for which transformers 5.23 has no sdpa (``_supports_sdpa = False``)."""
FUSED_HEAD_SINCE = (1, 16)
"""First version of trl of which we know that it never builds the logits (``add_fused_lm_head``)."""
BackendName = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-keep", "hsdp"]
"""Engine and what it shards. ``fsdp-keep`` does not drop gathered layers after the forward pass (ZeRO-2 of
FSDP), ``hsdp`` shards inside a node and keeps a copy on each."""
OffloadName = Literal["none", "optimizer", "all", "nvme"]
ZERO_STAGES: dict[str, Literal[1, 2, 3]] = {"zero1": 1, "zero2": 2, "zero3": 3}
MOST_DIGITS = 5
"""Of a version's number; what is longer is none."""
KBIT = frozenset({"nf4", "fp4", "int8"})
"""What bitsandbytes packs; trl 1.16 makes adapters on it bfloat16 (sft_trainer.py, l. 908)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is chosen of a training step."""

    sequence_tokens: int
    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    stage: Stage = "sft"
    method: Method = "lora"
    adapter: Adapter | None = None
    """Of ``lora``."""
    num_trainable_layers: int | None = None
    """Of ``freeze``."""
    trained_modules: tuple[str, ...] = ()
    """Of ``freeze``: names of further modules."""
    quantization: Quantization | None = None
    precision: Precision = "bf16"
    """``mixed_precision`` of the trainer."""
    optimizer: str = "adamw_torch_fused"
    clips_gradients: bool = True
    checkpointing: Checkpointing = "full"
    attention: AttentionKind | None = None
    """``None``: what transformers takes for the model and its batches."""
    packing: bool = False
    reference_model: bool | None = None
    """A frozen copy of the model is held beside it; ``None``: as the stage does by default."""
    num_generations: int = 8
    """grpo, rloo: answers per prompt."""
    completion_tokens: int = 256
    """grpo, rloo: longest sampled answer."""
    sharding: Sharding = field(default_factory=Sharding)
    device_kind: str = "cuda"
    device_name: str | None = None
    expandable_segments: bool = False
    """The allocator grows its segments: ftwiz tells it to on NVIDIA's devices."""


def workload_of(
    job: Job,
    model: ModelSpec,
    strategy: Strategy,
    *,
    stack: Stack | None = None,
    devices: Sequence[Device] = (),
) -> Workload:
    """Return one optimizer step of a rank of a job.

    Args:
        job: What the user wants.
        model: Its shape.
        strategy: How the machine does it.
        stack: Versions of the libraries; ``None``: those that ftwiz is tested with.
        devices: The accelerators of the ranks, as far as they are known; alike, so the first one counts.
    """
    recipe = Recipe(
        sequence_tokens=job.train.max_length,
        micro_batch_size=strategy.micro_batch_size,
        gradient_accumulation_steps=strategy.gradient_accumulation_steps,
        stage=job.stage,
        method="lora" if job.method.kind == "oft" else job.method.kind,
        adapter=_adapter(job),
        num_trainable_layers=job.method.num_trainable_layers if job.method.kind == "freeze" else None,
        trained_modules=job.method.modules_to_save if job.method.kind == "freeze" else (),
        quantization=packing_of(strategy),
        precision=strategy.mixed_precision,
        optimizer=job.train.optim,
        clips_gradients=job.train.max_grad_norm > 0,
        checkpointing="full" if strategy.gradient_checkpointing else "none",
        packing=job.train.packing,
        reference_model=_holds_reference(job),
        num_generations=job.rollout.num_generations,
        completion_tokens=job.rollout.max_completion_length,
        sharding=sharding_of(strategy),
        device_kind=strategy.device_kind,
        device_name=devices[0].name if devices else None,
        expandable_segments=grows_segments(devices),
    )
    return recipe_workload(recipe, model, stack=stack)


def recipe_workload(recipe: Recipe, model: ModelSpec, *, stack: Stack | None = None) -> Workload:
    """Return the workload of a recipe: what is chosen, and what follows from it."""
    stack = stack or Stack()
    weights, trainable, autocast = number_formats(recipe)
    return Workload(
        model=model,
        sequence_tokens=recipe.sequence_tokens,
        micro_batch_size=recipe.micro_batch_size,
        stage=recipe.stage,
        method=recipe.method,
        adapter=recipe.adapter if recipe.method == "lora" else None,
        num_trainable_layers=recipe.num_trainable_layers if recipe.method == "freeze" else None,
        trained_modules=recipe.trained_modules if recipe.method == "freeze" else (),
        quantization=_stored(recipe, weights),
        weights=weights,
        trainable=trainable,
        autocast=autocast,
        upcast_frozen=_upcasts_frozen(recipe),
        optimizer=recipe.optimizer,
        clips_gradients=recipe.clips_gradients,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        checkpointing=recipe.checkpointing,
        attention=recipe.attention or usual_attention(recipe, model),
        packing=recipe.packing,
        # Only packed batches all have the same length, and texts that were cut into full sequences.
        varied_lengths=not recipe.packing and recipe.stage != "pt",
        loss=_loss_head(recipe, stack),
        reference_model=_has_reference(recipe),
        num_generations=recipe.num_generations,
        completion_tokens=recipe.completion_tokens,
        sharding=recipe.sharding,
        stack=stack,
        device_kind=recipe.device_kind,
        device_name=recipe.device_name,
        expandable_segments=recipe.expandable_segments,
    )


def _holds_reference(job: Job) -> bool:
    """Whether training holds a second, frozen copy of the model: with an adapter it is switched off instead.

    Reference answers that are computed before training leave none; grpo and rloo hold one only when they are
    held to it (trl 1.16, grpo_trainer.py and rloo_trainer.py: ``beta == 0.0``).
    """
    if job.method.adds_weights:
        return False
    if job.stage in SAMPLING:
        beta = job.rollout.beta
        return job.stage in REFERENCE if beta == "auto" else beta > 0
    return job.stage in REFERENCE and not job.preference.precompute_reference


def _has_reference(recipe: Recipe) -> bool:
    if recipe.reference_model is not None:
        return recipe.reference_model
    return recipe.method != "lora" and recipe.stage in REFERENCE


def packing_of(strategy: Strategy) -> Quantization | None:
    """Return how the worker packs frozen weights (engine/stages/trainfile.py, ``packing``)."""
    if strategy.quantization == "none":
        return None
    if strategy.quantization == "int8":
        return Quantization(kind="int8", bits=8, storage="int8")
    return Quantization(kind="nf4")


def number_formats(recipe: Recipe) -> tuple[DType, DType, DType | None]:
    """Return the formats of loaded weights, of what is trained, and of matrix products where it differs.

    Sources: engine/stages/trainfile.py (weights_dtype); peft 0.21.2, cast_adapter_dtype (adapters are
    float32); trl 1.16, sft_trainer.py l. 908 (bfloat16 on bitsandbytes; with fp16 ftwiz makes them float32
    again, engine/worker/packed.py); accelerate 1.15, accelerator.py l. 564 to 606 (autocast with every engine
    but DeepSpeed, which turns the whole module to its format).
    """
    compute = COMPUTE[recipe.precision]
    if recipe.sharding.backend == "zero":
        return compute, compute, None
    if recipe.method != "lora":
        return "fp32", "fp32", None if compute == "fp32" else compute
    is_kbit = recipe.quantization is not None and recipe.quantization.kind in KBIT
    return (
        compute,
        "bf16" if is_kbit and compute != "fp16" else "fp32",
        None if compute == "fp32" else compute,
    )


def usual_attention(recipe: Recipe, model: ModelSpec) -> AttentionKind:
    """Return how transformers 5.23 computes attention when nothing is asked for.

    Its sdpa needs no mask tensor while no token is masked (masking_utils.py, _ignore_causal_mask_sdpa). A
    batch of several sequences is padded, a packed one keeps its examples apart, and a window is a mask.
    """
    if model.model_type in EAGER_ONLY:
        return "eager"
    window = model.sliding_window_tokens
    is_windowed = window is not None and recipe.sequence_tokens >= window
    is_padded = recipe.micro_batch_size > 1 or recipe.stage in PREFERENCE | SAMPLING
    return "sdpa-mask" if recipe.packing or is_padded or is_windowed else "sdpa"


def sharding_of(strategy: Strategy) -> Sharding:
    """Return how a strategy spreads the state of training.

    FSDP moves parameters, gradients and optimizer together (torch 2.13, CPUOffloadPolicy).
    """
    is_fsdp = strategy.backend == "fsdp"
    return Sharding(
        backend=strategy.backend,
        num_ranks=strategy.num_processes,
        ranks_per_node=strategy.ranks_per_node,
        num_shards=strategy.num_shards,
        zero_stage=strategy.zero_stage,
        reshard_after_forward=strategy.reshard_after_forward,
        master=master_format(strategy.mixed_precision) if strategy.backend == "zero" else None,
        offload_optimizer=strategy.offload_parameters if is_fsdp else strategy.offload_optimizer,
        offload_parameters=strategy.offload_parameters,
        # Nobody sends packed weights to other ranks: accelerate 1.15, utils/fsdp_utils.py,
        # model_has_params4bit; transformers 5.23, modeling_utils.py, get_init_context.
        loads_on_rank_0=strategy.quantization == "none",
    )


def master_format(precision: Precision) -> DType | None:
    """Return the format of DeepSpeed's second copy of trained weights: float32 beside 16-bit ones."""
    return None if precision == "no" else "fp32"


def _adapter(job: Job) -> Adapter | None:
    method = job.method
    if not method.adds_weights:
        return None
    targets = method.target_modules
    is_lora = method.kind == "lora"
    return Adapter(
        kind=method.kind,
        rank=method.r,
        targets=(ALL_LINEAR,) if targets == ALL_LINEAR else tuple(targets),
        use_dora=method.use_dora,
        dropout=method.lora_dropout if is_lora else 0.0,
        oft_block_size=method.oft_block_size,
        modules_to_save=method.modules_to_save,
    )


def _stored(recipe: Recipe, weights: DType) -> Quantization | None:
    """Packed bytes are sharded only in a float type (peft 0.21, docs: fsdp.md and deepspeed.md)."""
    quantization, sharding = recipe.quantization, recipe.sharding
    is_spread = sharding.backend == "fsdp" or sharding.zero_stage == ZERO_STAGES["zero3"]
    if quantization is None or quantization.kind not in ("nf4", "fp4") or not is_spread:
        return quantization
    return replace(quantization, storage=weights)


def _upcasts_frozen(recipe: Recipe) -> bool:
    """The trainers of ORPO and SimPO still call peft's prepare_model_for_kbit_training; the others do not."""
    is_kbit = recipe.quantization is not None and recipe.quantization.kind in KBIT
    return is_kbit and recipe.stage in FULL_LOGITS


def _loss_head(recipe: Recipe, stack: Stack) -> LossHead:
    """With autocast, accelerate makes every output of the model float32, also its logits."""
    has_tiles = stack.trl is not None and version(stack.trl) >= FUSED_HEAD_SINCE
    if has_tiles and recipe.stage not in FULL_LOGITS | {"rm"}:
        return "fused-tiles"
    has_autocast = recipe.precision != "no" and recipe.sharding.backend != "zero"
    return "logits-fp32" if has_autocast else "logits"


def version(text: str) -> tuple[int, int]:
    """Return major and minor number of a version; 0 for what is no number."""
    parts = [*text.split("."), "0", "0"][:2]
    major, minor = (int(part) if part.isdecimal() and len(part) <= MOST_DIGITS else 0 for part in parts)
    return major, minor


def sharding_for(
    backend: BackendName,
    *,
    num_ranks: int,
    ranks_per_node: int,
    precision: Precision,
    offload: OffloadName = "none",
) -> Sharding:
    """Return how a named engine spreads the state of training.

    Args:
        backend: Its name.
        num_ranks: Ranks of the whole run.
        ranks_per_node: Ranks of one node.
        precision: ``mixed_precision``.
        offload: What leaves the device; ``all`` is parameters and optimizer, ``nvme`` the same to a disk.
    """
    plain = Sharding(num_ranks=num_ranks, ranks_per_node=ranks_per_node)
    place: Literal["none", "cpu", "nvme"]
    place = "none" if offload == "none" else "nvme" if offload == "nvme" else "cpu"
    if backend in ("single", "ddp"):
        return replace(plain, backend="single" if backend == "single" else "ddp")
    if backend in ("zero1", "zero2", "zero3"):
        stage = ZERO_STAGES[backend]
        return replace(
            plain,
            backend="zero",
            zero_stage=stage,
            num_shards=num_ranks,
            master=master_format(precision),
            offload_optimizer=place,
            offload_parameters=place if backend == "zero3" and offload != "optimizer" else "none",
        )
    return replace(
        plain,
        backend="fsdp",
        num_shards=ranks_per_node if backend == "hsdp" else num_ranks,
        reshard_after_forward=backend != "fsdp-keep",
        offload_optimizer=place,
        offload_parameters=place,
    )
