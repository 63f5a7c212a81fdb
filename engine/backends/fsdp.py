"""PyTorch FSDP 2: weights, gradients and optimizer states are split over the ranks, layer by layer.

Version 2 (``fully_shard``) always: accelerate would take version 1 where the file does not say.
Sources: torch 2.13, accelerate 1.15 (utils/fsdp_utils.py, utils/dataclasses.py).
"""

from dataclasses import replace
from itertools import product

from ..specs.job import Job, PlanPins
from ..specs.machine import CPU
from ..specs.model import ModelSpec
from ..specs.plan import Cluster, Offload, Rule, Strategy
from .launch import node_files, ranks_command, torchrun_command
from .method_rules import (
    NO_ADAGRAD,
    NO_BITSANDBYTES,
    NO_SAVED_MODULES,
    PISSA_SPLIT_BY_FSDP,
    WHOLE_MATRICES,
)
from .rules import NOT_APPLE, NOT_REENTRANT, OWN_MEMORY, WHOLE_8_BIT, WHOLE_DEVICES, offloads_to

NAME = "fsdp"
VERSION = 2
PINS = frozenset(
    {"reshard_after_forward", "shard_size", "offload_optimizer", "offload_parameters", "state_dict"}
)
RULES = (
    NOT_APPLE,
    WHOLE_DEVICES,
    NOT_REENTRANT,
    OWN_MEMORY,
    WHOLE_8_BIT,
    WHOLE_MATRICES,
    NO_ADAGRAD,
    NO_BITSANDBYTES,
    NO_SAVED_MODULES,
    PISSA_SPLIT_BY_FSDP,
    Rule(
        broken=lambda job, _devices: offloads_to(job.plan, "nvme"),
        text="fsdp offloads to host memory only; a disk takes plan.backend zero",
        source="torch 2.13, distributed/fsdp: CPUOffloadPolicy is the only one",
    ),
    Rule(
        broken=lambda job, _devices: (
            "auto" not in {job.plan.offload_optimizer, job.plan.offload_parameters}
            and job.plan.offload_optimizer != job.plan.offload_parameters
        ),
        text="fsdp offloads weights and optimizer states together; plan.offload_* say different things",
        source="torch 2.13, distributed/fsdp: CPUOffloadPolicy",
    ),
    Rule(
        broken=lambda job, _devices: job.plan.shard_size == 1,
        text="plan.shard_size 1 splits nothing, which is plan.backend ddp",
        source="definition",
    ),
    Rule(
        broken=lambda job, _devices: job.train.optim == "adafactor",
        text="adafactor cannot step over split weights; train.optim adamw_torch_fused can",
        source='transformers 5.23, optimization.py: "mixed torch.Tensor and DTensor" (measured)',
    ),
)


def strategies(base: Strategy, pins: PlanPins) -> tuple[Strategy, ...]:
    """Return what is kept on the device for how long, the fastest first."""
    reshards = (False, True) if pins.reshard_after_forward == "auto" else (pins.reshard_after_forward,)
    shards = _shard_sizes(base, pins)
    return tuple(
        replace(
            base,
            reshard_after_forward=reshard,
            shard_size=shard_size,
            offload_optimizer=place,
            offload_parameters=place,
            state_dict="full" if pins.state_dict == "full" else "sharded",
        )
        for place, shard_size, reshard in product(_places(pins), shards, reshards)
    )


def _shard_sizes(base: Strategy, pins: PlanPins) -> tuple[int | None, ...]:
    """All ranks together, or the ranks of a node, which then gather over its own links only."""
    if pins.shard_size != "auto":
        return (None if pins.shard_size == base.num_processes else pins.shard_size,)
    is_worth_it = base.num_nodes > 1 and base.ranks_per_node > 1
    return (base.ranks_per_node, None) if is_worth_it else (None,)


def _places(pins: PlanPins) -> tuple[Offload, ...]:
    pinned = {pins.offload_optimizer, pins.offload_parameters} - {"auto"}
    if not pinned:
        return ("none", "cpu")
    return ("cpu",) if "cpu" in pinned else ("none",)


def files(
    strategy: Strategy,
    job: Job,  # noqa: ARG001 - it is not asked
    model: ModelSpec | None,  # noqa: ARG001 - nor is it
    cluster: Cluster | None = None,
) -> dict[str, str]:
    """Return accelerate.yaml; it holds everything that version 2 reads and nothing of version 1."""
    settings: dict[str, object] = {
        "distributed_type": "FSDP",
        "mixed_precision": strategy.mixed_precision,
        "use_cpu": strategy.device_kind == CPU,
        "fsdp_config": {
            "fsdp_version": VERSION,
            "fsdp_reshard_after_forward": strategy.reshard_after_forward,
            "fsdp_offload_params": strategy.offload_parameters == "cpu",
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_state_dict_type": _state_dict_type(strategy),
            "fsdp_cpu_ram_efficient_loading": strategy.quantization == "none",
            "fsdp_activation_checkpointing": False,
        },
    }
    if strategy.shard_size is not None:
        settings["parallelism_config"] = {
            "parallelism_config_dp_replicate_size": strategy.num_processes // strategy.shard_size,
            "parallelism_config_dp_shard_size": strategy.shard_size,
        }
    return node_files(_comment(strategy), strategy, settings, cluster)


def _comment(strategy: Strategy) -> str:
    ranks = "1 rank" if strategy.num_processes == 1 else f"{strategy.num_processes} ranks"
    hybrid = "" if strategy.shard_size is None else f", a copy of the model on every {strategy.shard_size}"
    return f"accelerate launch: FSDP {VERSION}, {ranks}{hybrid}"


def _state_dict_type(strategy: Strategy) -> str:
    return {"sharded": "SHARDED_STATE_DICT", "full": "FULL_STATE_DICT"}[strategy.state_dict]


def launch_command(strategy: Strategy, python: str) -> list[str]:
    """Return ``accelerate launch`` of this node's ranks, which are counted in the file."""
    return ranks_command(strategy, python)


def by_hand_commands(strategy: Strategy, python: str) -> tuple[list[str], ...]:
    """Return the equivalent torchrun."""
    return (torchrun_command(strategy, python),)


def environment(strategy: Strategy) -> dict[str, str]:
    """Return what ``accelerate launch`` tells its ranks of accelerate.yaml (accelerate 1.15)."""
    variables = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": str(VERSION),
        "FSDP_RESHARD_AFTER_FORWARD": str(strategy.reshard_after_forward).lower(),
        "FSDP_OFFLOAD_PARAMS": str(strategy.offload_parameters == "cpu").lower(),
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": _state_dict_type(strategy),
        "FSDP_CPU_RAM_EFFICIENT_LOADING": str(strategy.quantization == "none").lower(),
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    }
    if strategy.shard_size is not None:
        copies = strategy.num_processes // strategy.shard_size
        variables |= {
            "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
            "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": str(copies),
            "PARALLELISM_CONFIG_DP_SHARD_SIZE": str(strategy.shard_size),
        }
    return variables
