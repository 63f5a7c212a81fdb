"""Keys of an ``accelerate config`` file.

Source: accelerate 1.15, commands/config/config_args.py (ClusterConfig), utils/dataclasses.py and
commands/config/cluster.py for the keys inside of ``deepspeed_config`` and ``fsdp_config``.
"""

from .reasons import PLANNED
from .rows import NOTHING, Role, Row, drop, follow, refuse, table, take, use
from .values import when_true, words

_NODES = "nodes belong to the machine, not to the job: ftwiz plan --machine"
_FSDP1 = "only PyTorch FSDP 1 has it; ftwiz trains with FSDP 2"
_OFFLOADS = words({"none": "none", "cpu": "cpu", "nvme": "nvme"})
_TYPES = words(
    {"no": NOTHING, False: NOTHING, "multi_gpu": "ddp", "multi_cpu": "ddp", "multi_npu": "ddp",
     "multi_xpu": "ddp", "multi_mlu": "ddp", "multi_musa": "ddp", "multi_hpu": "ddp", "multi_sdaa": "ddp",
     "multi_neuron": "ddp", "fsdp": "fsdp", "deepspeed": "zero"},
    later={"megatron_lm": "Megatron-LM is not there yet; plan.backend: fsdp or zero",
           "tpu": "TPUs are not there yet", "xla": "TPUs are not there yet"},
)  # fmt: skip

_FSDP: tuple[Row, ...] = tuple(
    row
    for prefix in ("", "fsdp_")
    for row in (
        take(f"{prefix}reshard_after_forward", "plan.reshard_after_forward", words(
            {True: True, False: False, "true": True, "false": False, "full_shard": True,
             "shard_grad_op": False, "hybrid_shard": True})),
        take(f"{prefix}sharding_strategy", "plan.reshard_after_forward", words(
            {"full_shard": True, 1: True, "1": True, "shard_grad_op": False, 2: False, "2": False},
            later={word: why for words_, why in (
                (("no_shard", 3, "3"), "it splits nothing; take fsdp out: plan.backend ddp is the same"),
                (("hybrid_shard", 4, "4", "hybrid_shard_zero2", 5, "5"),
                 "write FULL_SHARD here, and then plan.shard_size with the ranks of one group"),
            ) for word in words_})),
        take(f"{prefix}offload_params", "plan.offload_parameters", when_true("cpu"), off=(None, False)),
        take(f"{prefix}state_dict_type", "plan.state_dict", words(
            {"full_state_dict": "full", "sharded_state_dict": "sharded"},
            later={"local_state_dict": "FSDP 2 does not have it; SHARDED_STATE_DICT"})),
        take(f"{prefix}activation_checkpointing", "plan.gradient_checkpointing"),
        *drop(PLANNED, f"{prefix}auto_wrap_policy", f"{prefix}transformer_layer_cls_to_wrap",
              f"{prefix}min_num_params", f"{prefix}cpu_ram_efficient_loading", f"{prefix}version",
              f"{prefix}cpu_offload_pin_memory", f"{prefix}mixed_precision_policy",
            f"{prefix}ignored_modules",
              f"{prefix}final_state_dict_type", f"{prefix}ignored_params"),
        *drop(_FSDP1, f"{prefix}backward_prefetch", f"{prefix}backward_prefetch_policy",
              f"{prefix}forward_prefetch", f"{prefix}sync_module_states", f"{prefix}use_orig_params",
              f"{prefix}limit_all_gathers"),
    )
)  # fmt: skip
FSDP_OPTIONS = table(_FSDP, drop("only for TPUs", "xla", "xla_fsdp_v2", "xla_fsdp_grad_ckpt",
                                 "xla_fsdp_settings"))  # fmt: skip
"""Keys of an ``fsdp_config``, with and without the prefix."""

_DEEPSPEED: tuple[Row, ...] = (
    take("zero_stage", "plan.zero_stage"),
    take("offload_optimizer_device", "plan.offload_optimizer", _OFFLOADS),
    take("offload_param_device", "plan.offload_parameters", _OFFLOADS),
    take("offload_optimizer_nvme_path", "plan.nvme_path", off=(None, "none", "None")),
    take("offload_param_nvme_path", "plan.nvme_path", off=(None, "none", "None")),
    use("gradient_accumulation_steps", Role.ACCUMULATION),
    take("gradient_clipping", "train.max_grad_norm", off=(None, "auto")),
    follow("deepspeed_config_file", "its stage and offload become pins"),
    *drop(PLANNED, "zero3_init_flag", "zero3_save_16bit_model", "deepspeed_moe_layer_cls_names",
          "deepspeed_hostfile", "deepspeed_multinode_launcher", "deepspeed_exclusion_filter",
          "deepspeed_inclusion_filter", "train_micro_batch_size_per_gpu"),
)  # fmt: skip

_REST: tuple[Row, ...] = (
    take("distributed_type", "plan.backend", _TYPES),
    take("mixed_precision", "plan.mixed_precision", words(
        {"no": "no", False: "no", "fp16": "fp16", "bf16": "bf16"},
        later={"fp8": "training in fp8 is not there yet; bf16"})),
    take("use_cpu", "plan.device", when_true("cpu"), off=(None, False)),
    use("num_processes", Role.RANKS),
    use("gradient_accumulation_steps", Role.ACCUMULATION),
    *drop(_NODES, "num_machines", "machine_rank", "main_process_ip", "main_process_port", "rdzv_backend",
          "same_network", "mpirun_config"),
    *drop("devices are chosen at the start: CUDA_VISIBLE_DEVICES", "gpu_ids"),
    *drop(PLANNED, "compute_environment", "debug", "enable_cpu_affinity", "main_training_function"),
    *drop("only for TPUs and cloud machines", "downcast_bf16", "tpu_name", "tpu_zone", "tpu_use_cluster",
          "tpu_use_sudo", "tpu_vm", "tpu_env", "command_file", "commands"),
    *refuse("training in fp8 is not there yet; mixed_precision: bf16", "fp8_config"),
    *refuse("tensor and context parallel are not there yet; plan.backend: fsdp or zero", "parallelism_config",
            "megatron_lm_config", "parallelism_config_dp_replicate_size"),
    *refuse("compiling is the trainer's: go without it and write train.extra: {torch_compile: true}",
            "dynamo_config", "dynamo_backend", off=(None, False, "NO", "no")),
)  # fmt: skip

KEYS = {
    **table(_REST),
    **table(_FSDP, under="fsdp_config."),
    **table(_DEEPSPEED, under="deepspeed_config."),
}
"""Every key that is known."""
