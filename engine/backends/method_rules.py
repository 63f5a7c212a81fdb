"""Incompatibilities of engines with methods and optimizers."""

from ..specs.job import Job
from ..specs.optimizers import BNB, LAYERWISE, LOW_RANK
from ..specs.plan import Rule

WHOLE_MATRICES = Rule(
    broken=lambda job, _devices: job.train.optim in LOW_RANK,
    text="GaLore and APOLLO project whole matrices, and this engine hands the optimizer parts of them; "
    "plan.backend single or ddp",
    source="deepspeed 0.19.8 flattens groups; torch 2.13 FSDP cuts rows; LLaMA-Factory refuses it too",
)
NO_ADAGRAD = Rule(
    broken=lambda job, _devices: job.train.optim == "adagrad",
    text="adagrad begins before the weights are split, and loses them; train.optim rmsprop does not",
    source="torch 2.13, optim/adagrad.py makes its states at once (measured: KeyError, IndexError)",
)
NO_BITSANDBYTES = Rule(
    broken=lambda job, _devices: job.train.optim in BNB,
    text="bitsandbytes cannot step over split weights; adamw_torch_fused can, or plan.backend zero or ddp",
    source='bitsandbytes 0.50.2: "does not have a sharding strategy registered" (measured)',
)
NO_SAVED_MODULES = Rule(
    broken=lambda job, _devices: job.method.adds_weights and bool(job.method.modules_to_save),
    text="method.modules_to_save learns otherwise there than on one rank; plan.backend zero or ddp",
    source="measured: two gloo ranks with lm_head beside LoRA, peft 0.21.2, torch 2.13; zero 3 learns alike",
)
ONE_PROCESS = Rule(
    broken=lambda job, _devices: job.train.optim in LAYERWISE,
    text="layer by layer the optimizer steps before ranks have met; the same name without _layerwise",
    source='transformers 5.23, trainer_optimizer.py: "does not support DDP"',
)


def _splits_weights(job: Job) -> bool:
    return job.plan.zero_stage not in {0, 1, 2}


PISSA_SPLIT_BY_ZERO = Rule(
    broken=lambda job, _devices: job.method.starts_from_weights and _splits_weights(job),
    text="PiSSA takes whole weights apart, and zero 3 splits them while they are read; plan.zero_stage 2, "
    "or plan.backend ddp",
    source="peft 0.21.2, tuners/lora/layer.py, pissa_init: torch.linalg.svd of the weight",
)
PISSA_SPLIT_BY_FSDP = Rule(
    broken=lambda job, _devices: job.method.starts_from_weights,
    text="PiSSA takes whole weights apart, and with fsdp the first rank alone has read them; "
    "plan.backend ddp, or zero with plan.zero_stage 2",
    source="accelerate 1.15, cpu_ram_efficient_loading; peft 0.21.2, pissa_init",
)
