"""DeepSpeed ZeRO: optimizer states (stage 1), gradients (2) and weights (3) are split over the ranks.

Sources: Rajbhandari et al. 2020, arXiv 1910.02054; DeepSpeed 0.19.8; accelerate 1.15; transformers 5.23.
"""

import json
from dataclasses import replace
from itertools import product

from ..specs.job import Job, PlanPins
from ..specs.machine import CPU
from ..specs.model import ModelSpec
from ..specs.plan import Cluster, Offload, Rule, Strategy, ZeroStage
from .launch import RUN_FOLDER, WORKER_MODULE, node_files, ranks_command, torchrun_command
from .method_rules import NO_ADAGRAD, PISSA_SPLIT_BY_ZERO, WHOLE_MATRICES
from .rules import NOT_APPLE, OWN_MEMORY, WHOLE_8_BIT, WHOLE_DEVICES, offloads_to

NAME = "zero"
DEEPSPEED_FILE = "deepspeed.json"
HOSTFILE = "hostfile"
HOSTFILE_HEAD = """\
# The nodes for DeepSpeed's own launcher, and the ranks of each: deepspeed --hostfile hostfile
# Without that option it reads /job/hostfile where there is one, and otherwise trains on this computer alone.
"""
PINS = frozenset({"zero_stage", "offload_optimizer", "offload_parameters", "nvme_path"})
STAGES: tuple[ZeroStage, ...] = (1, 2, 3)
"""Stages worth offering; stage 0 is DDP in DeepSpeed's hands, and taken only when it is pinned."""
PLACES: tuple[Offload, ...] = ("none", "cpu")
"""Places worth offering; a disk needs a path, so it is taken only when it is pinned."""

ALLGATHER_BUCKET_ELEMENTS = 200_000_000
"""Stages 1, 2: updated weights are gathered in pieces of so many. DeepSpeed's own 500 million would hold
2 GB of float32; its ZeRO tutorial takes this one."""
REDUCE_BUCKET_ELEMENTS = 50_000_000
"""Gradients are reduced in pieces of so many, where the width of the model is not known."""
SUB_GROUP_ELEMENTS = 1_000_000_000
MAX_LIVE_ELEMENTS = 1_000_000_000
"""Stage 3: most weights gathered at once; DeepSpeed's default, as is the sub group."""
ADAM = frozenset({"adamw_torch", "adamw_torch_fused"})
PERSISTENCE_ELEMENTS = 100_000
"""Stage 3: smaller weights stay whole on every rank, where the width of the model is not known."""

_WEIGHTS_NEED_3 = Rule(
    broken=lambda job, _devices: (
        job.plan.offload_parameters in {"cpu", "nvme"} and job.plan.zero_stage not in {"auto", 3}
    ),
    text="weights can only be offloaded where they are split: plan.zero_stage 3",
    source="DeepSpeed 0.19.8, runtime/zero/config.py: offload_param is for stage 3",
)
_NVME_NEEDS_3 = Rule(
    broken=lambda job, _devices: offloads_to(job.plan, "nvme") and job.plan.zero_stage not in {"auto", 3},
    text="only plan.zero_stage 3 offloads to nvme",
    source="DeepSpeed 0.19.8, runtime/zero/config.py",
)
_NVME_NEEDS_PATH = Rule(
    broken=lambda job, _devices: offloads_to(job.plan, "nvme") and job.plan.nvme_path is None,
    text="offloading to nvme needs plan.nvme_path, a folder on that disk",
    source="DeepSpeed 0.19.8, runtime/zero/offload_config.py",
)
_PATH_NEEDS_NVME = Rule(
    broken=lambda job, _devices: job.plan.nvme_path is not None and not offloads_to(job.plan, "nvme"),
    text="plan.nvme_path is given, and nothing is offloaded to nvme",
    source="definition",
)
_NOTHING_SPLIT = Rule(
    broken=lambda job, _devices: job.plan.zero_stage == 0 and offloads_to(job.plan, "cpu", "nvme"),
    text="plan.zero_stage 0 splits nothing, and what is not split cannot be offloaded",
    source="DeepSpeed 0.19.8, runtime/engine.py",
)
_FLAT_PARTS = Rule(
    broken=lambda job, _devices: job.train.optim == "adafactor" and job.plan.zero_stage != 0,
    text="adafactor saves its memory on matrices, and zero hands it flat parts; adamw_torch_fused fits",
    source="measured: stage 3 learns otherwise than one rank; deepspeed 0.19.8 flattens groups",
)
_CPU_IN_FLOAT32 = Rule(
    broken=lambda job, devices: not devices and job.plan.mixed_precision in {"bf16", "fp16"},
    text="on the CPU zero computes in float32 only",
    source="transformers 5.23, training_args.py: 16 bits need use_cpu, which hides DeepSpeed from accelerate",
)
_8_BIT_IS_WHOLE = Rule(
    broken=lambda job, devices: WHOLE_8_BIT.broken(job, devices) and job.plan.zero_stage == 3,  # noqa: PLR2004 - a stage
    text=WHOLE_8_BIT.text,
    source=WHOLE_8_BIT.source,
)
RULES = (
    NOT_APPLE,
    WHOLE_DEVICES,
    OWN_MEMORY,
    _NOTHING_SPLIT,
    _WEIGHTS_NEED_3,
    _NVME_NEEDS_3,
    _NVME_NEEDS_PATH,
    _PATH_NEEDS_NVME,
    _FLAT_PARTS,
    _CPU_IN_FLOAT32,
    _8_BIT_IS_WHOLE,
    WHOLE_MATRICES,
    NO_ADAGRAD,
    PISSA_SPLIT_BY_ZERO,
)


def strategies(base: Strategy, pins: PlanPins) -> tuple[Strategy, ...]:
    """Return the stages with what each can offload, the fastest first."""
    stages = STAGES if pins.zero_stage == "auto" else (pins.zero_stage,)
    optimizers = PLACES if pins.offload_optimizer == "auto" else (pins.offload_optimizer,)
    parameters = PLACES if pins.offload_parameters == "auto" else (pins.offload_parameters,)
    offered = [
        replace(
            base,
            zero_stage=stage,
            offload_optimizer=optimizer,
            offload_parameters=weights,
            nvme_path=pins.nvme_path,
        )
        for weights, optimizer, stage in product(parameters, optimizers, stages)
        if _is_possible(stage, optimizer, weights) and not (stage == 3 and base.quantization == "int8")  # noqa: PLR2004
    ]
    return tuple(offered)


def _is_possible(stage: ZeroStage, optimizer: Offload, weights: Offload) -> bool:
    if weights != "none" or optimizer == "nvme":
        return stage == 3  # noqa: PLR2004 - a stage
    return optimizer == "none" or stage > 0


def files(
    strategy: Strategy, job: Job, model: ModelSpec | None, cluster: Cluster | None = None
) -> dict[str, str]:
    """Return accelerate.yaml, deepspeed.json, and of several nodes the hostfile.

    accelerate refuses any setting that both could hold, so it names the file and nothing else
    (accelerate 1.15, utils/dataclasses.py, ``_deepspeed_config_checks``).
    """
    settings: dict[str, object] = {
        "distributed_type": "DEEPSPEED",
        "use_cpu": False,  # DeepSpeed itself takes the CPU where there is nothing else
        "deepspeed_config": {
            "deepspeed_config_file": DEEPSPEED_FILE,
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": strategy.zero_stage == 3,  # noqa: PLR2004 - a stage
        },
    }
    comment = f"accelerate launch: DeepSpeed ZeRO-{strategy.zero_stage}, {_ranks(strategy.num_processes)}"
    body = json.dumps(deepspeed_settings(strategy, job, model), indent=2)
    files = node_files(comment, strategy, settings, cluster) | {DEEPSPEED_FILE: body + "\n"}
    if strategy.num_nodes > 1:
        names = (cluster or Cluster()).names(strategy.num_nodes)
        files[HOSTFILE] = HOSTFILE_HEAD + "".join(
            f"{name} slots={strategy.ranks_per_node}\n" for name in names
        )
    return files


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


def deepspeed_settings(strategy: Strategy, job: Job, model: ModelSpec | None) -> dict[str, object]:
    """Return deepspeed.json: numbers, no ``auto``, so that every reader of it sees the same."""
    precision = strategy.mixed_precision
    settings: dict[str, object] = {
        "train_batch_size": strategy.global_batch_size,
        "train_micro_batch_size_per_gpu": strategy.micro_batch_size,
        "gradient_accumulation_steps": strategy.gradient_accumulation_steps,
        "gradient_clipping": job.train.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16", "loss_scale": 0, "initial_scale_power": 16},
        "zero_optimization": _zero(strategy, model),
    }
    if strategy.offload_optimizer != "none" and not takes_cpu_adam(strategy, job):
        settings["zero_force_ds_cpu_optimizer"] = False
    if "nvme" in {strategy.offload_optimizer, strategy.offload_parameters}:
        settings["aio"] = {"block_size": 1_048_576, "queue_depth": 8, "overlap_events": True}
    return settings


def takes_cpu_adam(strategy: Strategy, job: Job) -> bool:
    """Whether offloaded optimizer states are stepped by DeepSpeed's own Adam, which is made for it.

    accelerate 1.15 would make it of any optimizer, also of those that are no Adam, without a word
    (utils/deepspeed.py, ``map_pytorch_optim_to_deepspeed``). It must be compiled, so not on the CPU, where
    torch's is as near.
    """
    offloads = strategy.offload_optimizer != "none"
    return offloads and strategy.device_kind != CPU and job.train.optim in ADAM


def _zero(strategy: Strategy, model: ModelSpec | None) -> dict[str, object]:
    settings: dict[str, object] = {
        "stage": strategy.zero_stage,
        "contiguous_gradients": True,
        # With it gradients become NaN: DeepSpeed issues 5294, 5347; LLaMA-Factory issues 4850, 8137.
        "overlap_comm": False,
        "reduce_bucket_size": reduce_bucket_elements(model),
    }
    if strategy.zero_stage == 3:  # noqa: PLR2004 - a stage
        settings |= {
            "stage3_prefetch_bucket_size": prefetch_bucket_elements(model),
            "stage3_param_persistence_threshold": persistence_elements(model),
            "stage3_max_live_parameters": MAX_LIVE_ELEMENTS,
            "stage3_max_reuse_distance": MAX_LIVE_ELEMENTS,
            "sub_group_size": SUB_GROUP_ELEMENTS,
            # Without it no model can be loaded from what is saved.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    else:
        settings["allgather_bucket_size"] = ALLGATHER_BUCKET_ELEMENTS
    if strategy.offload_optimizer != "none":
        settings["offload_optimizer"] = _offload(strategy, strategy.offload_optimizer)
    if strategy.offload_parameters != "none":
        settings["offload_param"] = _offload(strategy, strategy.offload_parameters)
    return settings


def _offload(strategy: Strategy, place: Offload) -> dict[str, object]:
    path = {"nvme_path": strategy.nvme_path} if place == "nvme" else {}
    return {"device": place, **path, "pin_memory": strategy.device_kind != CPU}


def reduce_bucket_elements(model: ModelSpec | None) -> int:
    """Return how many gradients are reduced at once.

    The square of the width, as transformers' ``auto`` takes (5.23, integrations/deepspeed.py).
    """
    width = model.hidden_size if model else None
    return REDUCE_BUCKET_ELEMENTS if width is None else width * width


def prefetch_bucket_elements(model: ModelSpec | None) -> int:
    """Return how many weights stage 3 gathers ahead; transformers' ``auto``: 0.9 of the width's square."""
    return int(0.9 * reduce_bucket_elements(model))


def persistence_elements(model: ModelSpec | None) -> int:
    """Return below how many elements stage 3 keeps a weight whole; transformers' ``auto``: ten widths."""
    width = model.hidden_size if model else None
    return PERSISTENCE_ELEMENTS if width is None else 10 * width


def launch_command(strategy: Strategy, python: str) -> list[str]:
    """Return ``accelerate launch`` of this node's ranks, which are counted in the file."""
    return ranks_command(strategy, python)


def by_hand_commands(strategy: Strategy, python: str) -> tuple[list[str], ...]:
    """Return torchrun, and DeepSpeed's own launcher."""
    ranks = str(strategy.ranks_per_node)
    deepspeed = [python, "-m", "deepspeed.launcher.runner", "--num_gpus", ranks, "--no_local_rank"]
    return torchrun_command(strategy, python), [*deepspeed, "--module", WORKER_MODULE, RUN_FOLDER]


def environment(strategy: Strategy) -> dict[str, str]:
    """Return what ``accelerate launch`` tells its ranks of accelerate.yaml (accelerate 1.15)."""
    initialises_split = strategy.zero_stage == 3  # noqa: PLR2004 - a stage
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": DEEPSPEED_FILE,
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": str(initialises_split).lower(),
    }
