"""Estimators that are a formula: accelerate, DeepSpeed, EleutherAI's cookbook, LLaMA-Factory's table."""

from ...specs.model import ModelSpec
from ...specs.workload import Workload
from ..case import Case

BILLION = 10**9
FACTORY_FULL_AMP = 18
FACTORY_FULL_PURE = 8
FACTORY_LORA = 2
FACTORY_QLORA_PER_BIT = 1 / 8
"""GB per billion parameters: 18x, 8x, 2x, and x, x/2, x/4 for 8, 4 and 2 bits."""


def accelerate(case: Case) -> int | None:
    """Return accelerate's "Training using Adam": the largest of its four figures.

    With fp32 the step holds 4 x the fp32 model, with mixed precision the optimizer 2 x.
    """
    workload = case.workload
    if workload.method != "full" or _num_shards(workload) > 1:
        return None
    fp32_bytes = 4 * _parameters(workload.model)
    return fp32_bytes * (4 if workload.weights == "fp32" and workload.autocast is None else 2)


def deepspeed(case: Case) -> int | None:
    """Return DeepSpeed's estimate of the device's model states.

    ZeRO-2: 2 B a parameter and 18 B shared; ZeRO-3: 4 B of the largest layer and 18 B shared.
    """
    workload = case.workload
    sharding = workload.sharding
    if sharding.backend != "zero" or workload.method != "full" or sharding.zero_stage < 2:  # noqa: PLR2004 - ZeRO-2
        return None
    total = _parameters(workload.model)
    ranks = sharding.num_ranks
    if sharding.zero_stage == 2:  # noqa: PLR2004 - ZeRO-2
        return 2 * total + (0 if sharding.offload_optimizer != "none" else 18 * total // ranks)
    largest = 4 * _largest_layer(workload.model)
    if sharding.offload_parameters != "none":
        return largest
    if sharding.offload_optimizer != "none":
        return largest + 2 * total // ranks
    return largest + 18 * total // ranks


def cookbook(case: Case) -> int | None:
    """Return the cookbook's memory per device, with its defaults where a row says nothing.

    Defaults: mixed precision, 4 B gradients, 12 B of optimizer state, allgather buckets of 5e8 elements,
    1e9 live parameters, no miscellaneous memory.
    """
    workload, model = case.workload, case.workload.model
    if workload.method != "full":
        return None
    hidden, layers, heads = model.hidden_size or 0, model.num_layers or 0, model.num_heads or 0
    kv_ratio = (model.num_kv_heads or heads) / heads if heads else 1
    width = model.intermediate_size or 4 * hidden
    embedding = 2 * (model.vocab_size or 0) * hidden + hidden * workload.sequence_tokens
    norms = 8 * hidden * layers + 2 * hidden
    attention = int(2 * (1 + kv_ratio) * layers * hidden * hidden)
    parameters = embedding + norms + attention + 3 * layers * hidden * width
    ranks = workload.sharding.num_ranks
    stage = _zero_stage(workload)
    weights = 2 * parameters / (ranks if stage == 3 else 1)  # noqa: PLR2004 - ZeRO-3
    gradients = 4 * parameters / (ranks if stage >= 2 else 1)  # noqa: PLR2004 - ZeRO-2
    optimizer = 12 * parameters / (ranks if stage >= 1 else 1)
    buffers = 0.0
    if ranks > 1 and stage >= 1:
        buffers = 2 * 5e8 + (2 * 1e9 if stage == 3 else 0)  # noqa: PLR2004 - ZeRO-3
    a_token = 34.0 if workload.checkpointing != "none" else 34 + 5 * heads * workload.sequence_tokens / hidden
    activations = workload.tokens * hidden * layers * a_token
    return round(weights + gradients + optimizer + buffers + activations)


def llama_factory(case: Case) -> int | None:
    """Return the table's gigabytes: so many per billion parameters, whatever the length."""
    workload = case.workload
    if workload.sharding.num_ranks > 1:
        return None
    if workload.method == "full":
        mixed = workload.autocast is not None or workload.sharding.master is not None
        factor: float = FACTORY_FULL_AMP if mixed else FACTORY_FULL_PURE
    elif workload.quantization:
        factor = workload.quantization.bits * FACTORY_QLORA_PER_BIT
    else:
        factor = FACTORY_LORA
    return round(factor * _parameters(workload.model))


def _parameters(model: ModelSpec) -> int:
    assert model.num_parameters is not None
    return model.num_parameters


def _largest_layer(model: ModelSpec) -> int:
    """DeepSpeed takes the module with most parameters of its own: the embedding, or a linear layer."""
    assert model.parameters is not None
    return max(
        (model.vocab_size or 0) * (model.hidden_size or 0),
        *(linear.num_weights // linear.count for linear in model.parameters.linears),
    )


def _num_shards(workload: Workload) -> int:
    return workload.sharding.num_shards


def _zero_stage(workload: Workload) -> int:
    sharding = workload.sharding
    if sharding.backend in {"fsdp", "fsdp1"}:
        return 3 if sharding.num_shards > 1 else 0
    return sharding.zero_stage
