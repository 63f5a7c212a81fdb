"""What the fields of a strategy, variables and options of SLURM mean, and what else they could be. Data."""

from collections.abc import Mapping

from .keys import Key

STRATEGY: Mapping[str, Key] = {
    "backend": Key(
        "the engine: who holds what of the state of training",
        otherwise="plan.backend: single, ddp (a copy on each device), zero or fsdp (split over them)",
        source="arXiv 1910.02054; torch, fully_shard",
    ),
    "device_kind": Key("kind of device that is trained on", otherwise="plan.device"),
    "num_processes": Key("ranks of the whole run, one on each device", otherwise="plan.num_processes"),
    "num_nodes": Key("computers that the ranks are spread over", otherwise="--machine '2 nodes x 8xH100'"),
    "micro_batch_size": Key(
        "sequences of a rank in one forward pass",
        otherwise="plan.micro_batch_size; more is faster as long as it fits, and the global batch stays",
    ),
    "gradient_accumulation_steps": Key(
        "forward and backward passes of an optimizer step",
        otherwise="follows from train.global_batch_size, the ranks and plan.micro_batch_size",
    ),
    "gradient_checkpointing": Key(
        "compute activations again in the backward pass instead of keeping them",
        otherwise="plan.gradient_checkpointing; true is a third slower and holds one layer's activations",
        source="arXiv 1604.06174",
    ),
    "mixed_precision": Key(
        "number format of the forward pass",
        otherwise="plan.mixed_precision; bf16 where devices can, fp16 can overflow, no is float32",
    ),
    "shard_size": Key(
        "ranks that hold one copy of what is split together; null is all of them, or nothing is split",
        otherwise="plan.shard_size (fsdp); smaller groups hold more and gather over faster links",
    ),
    "zero_stage": Key(
        "zero: 1 splits optimizer states over the ranks, 2 gradients too, 3 weights too",
        otherwise="plan.zero_stage; each stage holds less, and 3 gathers every layer in every pass",
        source="arXiv 1910.02054",
    ),
    "offload_optimizer": Key(
        "where optimizer states live instead of on the device",
        otherwise="plan.offload_optimizer: none, cpu, nvme; the update is then done by the CPU",
        source="arXiv 2101.06840",
    ),
    "offload_parameters": Key(
        "where weights live while no layer needs them",
        otherwise="plan.offload_parameters: none, cpu, nvme; every layer crosses PCIe in every pass",
        source="arXiv 2104.07857",
    ),
    "nvme_path": Key("folder on the disk that nvme means", otherwise="plan.nvme_path"),
    "reshard_after_forward": Key(
        "fsdp: drop a layer's gathered weights after the forward pass",
        otherwise="plan.reshard_after_forward; false saves a gathering of every layer and holds all of them",
    ),
    "state_dict": Key(
        "fsdp: checkpoints of one file per rank (sharded), or of one that rank 0 writes (full)",
        otherwise="plan.state_dict; the final model is whole either way",
    ),
    "quantization": Key(
        "how the frozen weights are packed: nf4 (QLoRA), int8, none",
        otherwise="plan.quantization; packed weights are less memory, less exact, slower per token",
        source="arXiv 2305.14314",
    ),
    "timeout_seconds": Key(
        "longest that a rank waits for the others in one exchange",
        otherwise="train.extra: {ddp_timeout: 7200}; years, as recipes have it, mean that a hang never ends",
    ),
}
"""By field of ``Strategy``."""

ENVIRONMENT: Mapping[str, Key] = {
    "CUDA_VISIBLE_DEVICES": Key(
        "which NVIDIA cards the ranks see", "by UUID, which names a card whatever else is hidden"
    ),
    "HIP_VISIBLE_DEVICES": Key(
        "which AMD cards the ranks see", "by UUID, which names a card whatever else is hidden"
    ),
    "ASCEND_RT_VISIBLE_DEVICES": Key(
        "which Ascend cards the ranks see", "the runtime takes ids in ascending order"
    ),
    "CUDA_DEVICE_ORDER": Key("how CUDA counts cards", "as drivers do; else the fastest comes first"),
    "PYTORCH_ALLOC_CONF": Key(
        "settings of torch's allocator",
        "segments that grow leave no gaps between batches of many lengths; your own setting wins",
        source="torch 2.13, CUDA notes",
    ),
}
"""Variables that launch.sh exports."""

SBATCH: Mapping[str, Key] = {
    "job-name": Key("name in the queue", otherwise="--sbatch job-name=NAME"),
    "nodes": Key("computers", otherwise="--machine '2 nodes x 8xH100'", field="num_nodes"),
    "ntasks-per-node": Key("programs that srun starts on each node", "one launcher, which starts the ranks"),
    "gpus-per-node": Key("devices of each node", otherwise="plan.num_processes"),
    "cpus-per-task": Key("CPU cores of each node", otherwise="--sbatch cpus-per-task=N"),
    "exclusive": Key("nobody else on these nodes", "all devices of a node are used"),
    "mem": Key("host memory of each node", "0 is all of it", "--sbatch mem=64G"),
    "signal": Key(
        "USR1 to the script so many seconds before the time limit",
        "long enough for a step and a checkpoint",
        "--sbatch signal=B:USR1@SECONDS",
    ),
    "requeue": Key("may be put back into the queue", "a node that fails, or the time limit, is no end"),
    "open-mode": Key("append to the output of earlier turns"),
    "output": Key("where the script's own output goes", otherwise="--sbatch output=FILE"),
    "time": Key("time limit; the partition's own where it is absent", otherwise="--sbatch time=24:00:00"),
    "partition": Key("queue", otherwise="--sbatch partition=NAME"),
}
"""job.sbatch."""
