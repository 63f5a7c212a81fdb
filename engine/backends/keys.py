"""What the keys of the written files mean, why they stand there so, and what else they could be. Data.

One table per file. The reasons become the comments in the YAML, all of it is what ``plan --explain`` tells.
Sources without a version are accelerate 1.15, DeepSpeed 0.19.8, transformers 5.23, trl 1.16 and peft 0.21.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Key(NamedTuple):
    """One key of a file."""

    what: str
    why: str | Mapping[str, str] = ""
    """Why it stands there: always, or by its value as YAML writes it. Empty where it is the usual value."""
    otherwise: str = ""
    """What else it could be, and what that costs; or the pin that decides it."""
    source: str = ""
    field: str = ""
    """The field of ``Strategy`` that it says, whose reason is the plan's."""

    def reason(self, value: str) -> str:
        """Return why this value stands there; empty for the usual one."""
        return self.why if isinstance(self.why, str) else self.why.get(value, "")


ACCELERATE: Mapping[str, Key] = {
    "compute_environment": Key(
        "where accelerate starts the ranks", otherwise="AMAZON_SAGEMAKER; ftwiz has no use for it"
    ),
    "debug": Key(
        "whether accelerate checks the shapes of every exchange",
        otherwise="true: slow, finds ranks that disagree",
    ),
    "distributed_type": Key(
        "accelerate's word for the engine",
        {
            "DEEPSPEED": "its settings are in deepspeed.json",
        },
        "plan.backend",
        "utils/dataclasses.py, DistributedType; measured",
        "backend",
    ),
    "machine_rank": Key("which of the nodes this file is for, from 0", otherwise="launch.sh --node-rank"),
    "main_process_ip": Key(
        "name or address of node 0, where all ranks meet",
        "node 0; every node must reach it",
        "ftwiz plan --hosts, or launch.sh --master HOST:PORT",
    ),
    "main_process_port": Key(
        "port of node 0 where all ranks meet", "must be free on node 0", "launch.sh --master HOST:PORT"
    ),
    "main_training_function": Key("only for TPU notebooks"),
    "mixed_precision": Key(
        "number format of the forward pass",
        otherwise="plan.mixed_precision; fp16 can overflow, no is float32: twice the memory",
        field="mixed_precision",
    ),
    "num_machines": Key("nodes of the run", otherwise="--machine '2 nodes x 8xH100'", field="num_nodes"),
    "num_processes": Key(
        "ranks of the whole run",
        "the total of all nodes, not of one",
        "plan.num_processes",
        "utils/launch.py divides it by num_machines",
        "num_processes",
    ),
    "rdzv_backend": Key(
        "how nodes find each other",
        {"c10d": "accelerate 1.15 takes it from the command line only: --rdzv_backend c10d, as in launch.sh"},
        "ftwiz plan --rendezvous: static needs a rank for each node, c10d does not",
        "torch 2.13, distributed/run.py",
    ),
    "same_network": Key(
        "whether torchrun gets the meeting point as address and port",
        otherwise="accelerate takes it from the command line only, and either way works",
        source="commands/launch.py, _validate_launch_command (measured)",
    ),
    "use_cpu": Key(
        "keep off accelerators",
        {"true": "trains on the CPU; MULTI_CPU for its ranks would silently start one"},
        "plan.device",
        field="device_kind",
    ),
    "fsdp_version": Key(
        "1: FullyShardedDataParallel, 2: fully_shard",
        "without it accelerate takes 1, and transformers 2",
        "version 1 is on its way out and ignores fsdp_reshard_after_forward",
        "commands/launch.py; measured",
    ),
    "fsdp_reshard_after_forward": Key(
        "drop a layer's gathered weights after its forward pass",
        {"false": "kept for the backward pass: a gather less for each layer, if the memory is there"},
        "plan.reshard_after_forward; false is faster and holds all layers at once",
        "torch 2.13, fully_shard",
        "reshard_after_forward",
    ),
    "fsdp_offload_params": Key(
        "keep weights, gradients and optimizer states in host memory",
        {"true": "the devices cannot hold them"},
        "plan.offload_parameters; true moves every layer over PCIe in every pass",
        "torch 2.13, CPUOffloadPolicy",
        "offload_parameters",
    ),
    "fsdp_auto_wrap_policy": Key(
        "which modules are split and gathered as one",
        "the layers that the model names itself; without it nothing is wrapped but the whole",
        "SIZE_BASED_WRAP fails with version 2 (measured); NO_WRAP gathers the model at once",
        "utils/dataclasses.py; transformers, _no_split_modules",
    ),
    "fsdp_state_dict_type": Key(
        "what a checkpoint is made of",
        {"FULL_STATE_DICT": "rank 0 gathers and writes everything: slow, and much host memory"},
        "plan.state_dict; sharded is written by all ranks at once, and the final model is whole either way",
        field="state_dict",
    ),
    "fsdp_cpu_ram_efficient_loading": Key(
        "only the first rank of a node reads the weights, and sends the others their parts",
        {"false": "packed weights cannot be sent, so every rank packs all for itself"},
        "false needs host memory for a model per rank while it loads",
        "utils/fsdp_utils.py, fsdp2_prepare_model",
    ),
    "fsdp_activation_checkpointing": Key(
        "accelerate's way of recomputing activations",
        "the trainer does it (train.yaml); this one forgets the random state, and dropout would differ",
        "plan.gradient_checkpointing",
        "utils/fsdp_utils.py: preserve_rng_state=False",
        "gradient_checkpointing",
    ),
    "parallelism_config_dp_replicate_size": Key(
        "copies of the model",
        "hybrid: each group of ranks holds a copy, so weights are gathered inside of it only",
        "plan.shard_size; one copy over all ranks needs least memory, and gathers over the network",
        "parallelism_config.py",
        "shard_size",
    ),
    "parallelism_config_dp_shard_size": Key(
        "ranks that hold one copy together",
        otherwise="plan.shard_size",
        source="parallelism_config.py",
        field="shard_size",
    ),
    "deepspeed_config_file": Key(
        "where DeepSpeed's own settings are",
        "accelerate refuses what both files could say",
        source="utils/dataclasses.py, _deepspeed_config_checks",
    ),
    "deepspeed_multinode_launcher": Key(
        "who starts the ranks of other nodes",
        "each node starts its own; pdsh would write all variables, with secrets, to an open file",
        "pdsh, openmpi, mpich, nossh, slurm",
        "DeepSpeed, launcher/runner.py: .deepspeed_env (measured)",
    ),
    "zero3_init_flag": Key(
        "split the model while it is loaded",
        {"true": "no device ever holds all of it"},
        "false loads the whole model on every rank first",
        "transformers, integrations/deepspeed.py",
        "zero_stage",
    ),
}
"""accelerate.yaml."""

DEEPSPEED: Mapping[str, Key] = {
    "train_batch_size": Key(
        "sequences of an optimizer step", "micro batch x accumulation x ranks", "train.global_batch_size"
    ),
    "train_micro_batch_size_per_gpu": Key(
        "sequences of a forward pass", otherwise="plan.micro_batch_size", field="micro_batch_size"
    ),
    "gradient_accumulation_steps": Key(
        "micro batches of an optimizer step",
        "must be that of train.yaml: transformers refuses two answers",
        "follows from train.global_batch_size and plan.micro_batch_size",
        "transformers, integrations/deepspeed.py",
        "gradient_accumulation_steps",
    ),
    "gradient_clipping": Key("longest gradient", otherwise="train.max_grad_norm"),
    "zero_allow_untested_optimizer": Key(
        "take optimizers that DeepSpeed has not tried",
        "the trainer's optimizers are torch's",
        "false refuses most",
    ),
    "zero_force_ds_cpu_optimizer": Key(
        "insist on DeepSpeed's own Adam for offloaded states",
        "this optimizer is none of its Adams, or cannot be compiled here",
        "true would make Adam of it without a word",
        "accelerate, utils/deepspeed.py",
    ),
    "bf16.enabled": Key("compute in bfloat16", otherwise="plan.mixed_precision", field="mixed_precision"),
    "fp16.enabled": Key("compute in float16", otherwise="plan.mixed_precision", field="mixed_precision"),
    "fp16.loss_scale": Key(
        "factor on the loss; 0 finds it by trying", otherwise="a fixed number overflows or vanishes"
    ),
    "fp16.initial_scale_power": Key(
        "the first factor tried is 2 to this", otherwise="lower skips fewer first steps"
    ),
    "zero_optimization.stage": Key(
        "what is split over the ranks: 1 optimizer states, 2 and gradients, 3 and weights",
        otherwise="plan.zero_stage; each further stage holds less and, from 3 on, gathers every layer",
        source="arXiv 1910.02054",
        field="zero_stage",
    ),
    "zero_optimization.contiguous_gradients": Key(
        "copy gradients into one buffer as they come", otherwise="false fragments memory"
    ),
    "zero_optimization.overlap_comm": Key(
        "reduce gradients while others are computed",
        "true has made gradients NaN",
        "true may be a little faster",
        "DeepSpeed issues 5294, 5347; LLaMA-Factory issues 4850, 8137",
    ),
    "zero_optimization.reduce_bucket_size": Key(
        "gradients that are reduced at once",
        "the square of the width, as transformers' auto",
        "larger: faster, more memory",
    ),
    "zero_optimization.allgather_bucket_size": Key(
        "updated weights that are gathered at once",
        "DeepSpeed's own 500 million hold 2 GB of float32",
        "larger: a little faster, more memory",
        "DeepSpeed's ZeRO tutorial",
    ),
    "zero_optimization.stage3_prefetch_bucket_size": Key(
        "weights that are gathered ahead",
        "0.9 of the square of the width, as transformers' auto",
        "larger: faster, more memory",
    ),
    "zero_optimization.stage3_param_persistence_threshold": Key(
        "smaller weights stay whole on every rank",
        "ten widths, as transformers' auto",
        "larger: fewer small gathers, more memory",
    ),
    "zero_optimization.stage3_max_live_parameters": Key(
        "most weights that are gathered at once", otherwise="less memory, more gathers"
    ),
    "zero_optimization.stage3_max_reuse_distance": Key(
        "weights used again so soon are not dropped", otherwise="less memory, more gathers"
    ),
    "zero_optimization.sub_group_size": Key(
        "weights that the optimizer updates at once", otherwise="smaller: less memory in the update"
    ),
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": Key(
        "join the weights when the model is saved",
        "without it no model can be loaded from what is saved",
        "false saves faster",
    ),
    "offload_optimizer.device": Key(
        "where optimizer states live",
        otherwise="plan.offload_optimizer; on the host the update is slower",
        field="offload_optimizer",
    ),
    "offload_param.device": Key(
        "where weights live while no layer needs them",
        otherwise="plan.offload_parameters",
        field="offload_parameters",
    ),
    "pin_memory": Key(
        "host memory that devices read directly", otherwise="false: slower, and the system may swap it out"
    ),
    "nvme_path": Key("folder on the disk", otherwise="plan.nvme_path", field="nvme_path"),
    "aio.block_size": Key("bytes of a read or write", otherwise="what DeepSpeed's ds_nvme_tune finds best"),
    "aio.queue_depth": Key(
        "reads and writes in flight", otherwise="what DeepSpeed's ds_nvme_tune finds best"
    ),
    "aio.overlap_events": Key("go on while reads and writes are in flight"),
}
"""deepspeed.json."""

TRAINER: Mapping[str, Key] = {
    "dtype": Key(
        "number format that the weights are loaded in",
        {"float32": "what is trained needs the digits", "bfloat16": "", "float16": ""},
        "follows from method.kind and plan.mixed_precision; trl's own default is float32: twice the memory",
        "trl, ModelConfig.dtype",
    ),
    "load_in_4bit": Key(
        "pack the weights that are only read", otherwise="plan.quantization", field="quantization"
    ),
    "load_in_8bit": Key(
        "pack the weights that are only read", otherwise="plan.quantization", field="quantization"
    ),
    "bnb_4bit_quant_type": Key(
        "the 16 values that 4 bits stand for", otherwise="fp4: as many bits, less exact"
    ),
    "bnb_4bit_use_double_quant": Key(
        "pack the scales too", "saves 0.37 bits a weight", "false", "arXiv 2305.14314, section 3"
    ),
    "bnb_4bit_compute_dtype": Key(
        "number format that packed weights are multiplied in", otherwise="plan.mixed_precision"
    ),
    "bnb_4bit_quant_storage": Key(
        "type that the packed bits are kept in",
        {
            "bfloat16": "only a float type is split over the ranks; uint8 would stay whole on each",
            "float16": "only a float type is split over the ranks; uint8 would stay whole on each",
            "float32": "only a float type is split over the ranks; uint8 would stay whole on each",
        },
        "uint8 where nothing splits the weights",
        "accelerate, utils/fsdp_utils.py; measured",
    ),
    "lora_alpha": Key("scale of the adapter", otherwise="method.lora_alpha; trl's own default is 32"),
    "per_device_train_batch_size": Key(
        "sequences of a forward pass", otherwise="plan.micro_batch_size", field="micro_batch_size"
    ),
    "per_device_eval_batch_size": Key("sequences of an evaluating pass", otherwise="plan.micro_batch_size"),
    "learning_rate": Key(
        "peak step size",
        otherwise="train.learning_rate; trl's own defaults are made for training all weights",
    ),
    "max_grad_norm": Key("longest gradient", otherwise="train.max_grad_norm"),
    "activation_checkpointing": Key(
        "compute activations again in the backward pass",
        otherwise="plan.gradient_checkpointing; a third slower, far less memory",
        source="arXiv 1604.06174",
        field="gradient_checkpointing",
    ),
    "bf16": Key("compute in bfloat16", otherwise="plan.mixed_precision", field="mixed_precision"),
    "fp16": Key("compute in float16", otherwise="plan.mixed_precision", field="mixed_precision"),
    "ddp_backend": Key("how ranks talk", "DeepSpeed on the CPU; accelerate would not choose one"),
    "ddp_timeout": Key(
        "seconds that a rank waits for the others in one exchange",
        "longer than a checkpoint takes; a hang ends after it",
        "train.extra: {ddp_timeout: 7200}; years, as recipes have it, mean that a hang never ends",
        field="timeout_seconds",
    ),
    "logging_nan_inf_filter": Key(
        "hide losses that are no number",
        "a dead run would log 0.0",
        source="transformers, trainer.py; measured",
    ),
    "save_total_limit": Key(
        "checkpoints that are kept",
        {"null": "the worker deletes old ones after a newer one is whole"},
        "train.save_total_limit",
    ),
    "include_num_input_tokens_seen": Key("count tokens", {"non_padding": "padding would count as speed"}),
    "ddp_find_unused_parameters": Key(
        "look for weights without gradients", otherwise="true: slower; ours all have one"
    ),
    "dataloader_pin_memory": Key("host memory that devices read directly", {"false": "there is no device"}),
    "report_to": Key(
        "where the trainer reports to",
        otherwise="train.extra: {report_to: tensorboard}; ftwiz watch reads events.jsonl",
    ),
    "disable_tqdm": Key("no progress bars", "they would make the logs unreadable"),
    "use_cpu": Key("keep off accelerators", otherwise="plan.device", field="device_kind"),
    "output_dir": Key("where checkpoints go, in the run folder"),
    "eval_strategy": Key("when to evaluate", otherwise="train.eval_steps"),
    "save_strategy": Key("when to save", otherwise="train.save_steps"),
    "completion_only_loss": Key("learn the completions only", otherwise="train.assistant_only_loss"),
    "assistant_only_loss": Key("learn the assistant's messages only", otherwise="train.assistant_only_loss"),
    "gradient_accumulation_steps": Key(
        "micro batches of an optimizer step",
        otherwise="follows from train.global_batch_size and plan.micro_batch_size",
        field="gradient_accumulation_steps",
    ),
}
"""train.yaml: what a job does not say by the same name."""


def commented(body: str, table: Mapping[str, Key]) -> str:
    """Return YAML with the reasons behind the values that have one.

    Args:
        body: Lines ``key: value``, indented or not.
        table: What is known of the keys.
    """
    return "".join(_commented(line, table) for line in body.splitlines(keepends=True))


def _commented(line: str, table: Mapping[str, Key]) -> str:
    name, colon, value = line.rstrip("\n").partition(": ")
    known = table.get(name.strip())
    reason = known.reason(value.strip()) if known and colon else ""
    return f"{line.rstrip()}  # {reason}\n" if reason else line
