"""Keys of a DeepSpeed JSON.

Source: DeepSpeed 0.19.8, runtime/config.py, runtime/constants.py and runtime/zero/config.py. ``auto`` is what
transformers fills in, and asks for nothing.
"""

from .reasons import PLANNED, WATCHED
from .rows import Role, Row, drop, refuse, table, take, use
from .values import optimizer, when_true, words

_AUTO = (None, "auto")
_OFFLOADS = words({"none": "none", "cpu": "cpu", "nvme": "nvme"})
_BUCKETS = "sizes of buffers are written with the plan"

_ZERO: tuple[Row, ...] = (
    take("zero_optimization.stage", "plan.zero_stage", default=0),
    take("zero_optimization.offload_optimizer.device", "plan.offload_optimizer", _OFFLOADS),
    take("zero_optimization.offload_optimizer.nvme_path", "plan.nvme_path"),
    take("zero_optimization.offload_param.device", "plan.offload_parameters", _OFFLOADS),
    take("zero_optimization.offload_param.nvme_path", "plan.nvme_path"),
    *drop(
        _BUCKETS,
        *(f"zero_optimization.{name}" for name in (
            "allgather_partitions", "allgather_bucket_size", "overlap_comm", "reduce_scatter",
            "reduce_bucket_size", "contiguous_gradients", "round_robin_gradients", "sub_group_size",
            "use_multi_rank_bucket_allreduce", "load_from_fp32_weights", "ignore_unused_parameters",
            "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "max_live_parameters",
            "stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_module_granularity_threshold",
            "stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save",
            "stage3_use_all_reduce_for_fetch_params", "max_reuse_distance", "leaf_module",
            "allgather_sequential", "cpu_offload_param", "pipeline_loading_checkpoint",
            "module_granularity_threshold", "parameter_alignment", "compute_grad_norm",
            "save_muon_momentum_buffer_in_memory", "stage3_model_persistence_threshold",
            "param_persistence_threshold", "prefetch_bucket_size", "model_persistence_threshold",
            "elastic_checkpoint", "memory_efficient_linear", "log_trace_cache_warnings",
            "use_all_reduce_for_fetch_params", "gather_16bit_weights_on_model_save", "legacy_stage1",
            "override_module_apply", "zero_hpz_partition_size", "enable_sanity_checks",
            "cpu_offload_use_pin_memory",
        )),
        *(f"zero_optimization.offload_{what}.{name}" for what in ("optimizer", "param") for name in (
            "pin_memory", "buffer_count", "buffer_size", "max_in_cpu", "fast_init", "ratio", "pipeline_read",
            "pipeline_write", "super_offload", "cpuadam_cores_perc",
        )),
    ),
    take("zero_optimization.cpu_offload", "plan.offload_optimizer", when_true("cpu"), off=(None, False)),
    take("zero_optimization.cpu_offload_params", "plan.offload_parameters", when_true("cpu"),
         off=(None, False)),
    *refuse(
        "sending quantized weights or gradients (ZeRO++) is not there yet; the same stage without",
        *(f"zero_optimization.{name}" for name in (
            "zero_quantized_weights", "zero_quantized_gradients", "zero_quantized_nontrainable_weights",
            "zeropp_loco_param", "mics_shard_size", "mics_hierarchical_params_gather", "zenflow",
        )), off=(None, False, -1),
    ),
)  # fmt: skip

_TRAIN: tuple[Row, ...] = (
    use("train_batch_size", Role.TOTAL),
    use("train_micro_batch_size_per_gpu", Role.MICRO),
    use("gradient_accumulation_steps", Role.ACCUMULATION),
    take("gradient_clipping", "train.max_grad_norm", off=_AUTO),
    take("optimizer.type", "train.optim", optimizer, off=_AUTO),
    take("optimizer.params.lr", "train.learning_rate", off=_AUTO),
    take("optimizer.params.weight_decay", "train.weight_decay", off=_AUTO),
    take("optimizer.params.eps", "train.extra.adam_epsilon", off=_AUTO),
    *refuse("betas are two arguments here: go without it and write train.extra: {adam_beta1: ..}",
            "optimizer.params.betas", off=(*_AUTO, (0.9, 0.999))),
    *drop("torch's own AdamW is used", "optimizer.params.torch_adam", "optimizer.params.adam_w_mode",
          "optimizer.params.fused", "optimizer.params.bias_correction"),
    take("scheduler.type", "train.lr_scheduler_type", words(
        {"WarmupDecayLR": "linear", "WarmupLR": "constant_with_warmup", "WarmupCosineLR": "cosine",
         "warmupdecaylr": "linear", "warmuplr": "constant_with_warmup", "warmupcosinelr": "cosine"},
    ), off=_AUTO),
    take("scheduler.params.warmup_num_steps", "train.warmup_steps", off=_AUTO),
    take("scheduler.params.warmup_max_lr", "train.learning_rate", off=_AUTO),
    *drop("the schedule rises from zero and ends with the last step", "scheduler.params.warmup_min_lr",
          "scheduler.params.total_num_steps", "scheduler.params.warmup_type",
          "scheduler.params.warmup_min_ratio", "scheduler.params.cos_min_ratio"),
    take("bf16.enabled", "plan.mixed_precision", when_true("bf16"), off=(*_AUTO, False)),
    take("bfloat16.enabled", "plan.mixed_precision", when_true("bf16"), off=(*_AUTO, False)),
    take("fp16.enabled", "plan.mixed_precision", when_true("fp16"), off=(*_AUTO, False)),
    *drop(PLANNED, *(f"fp16.{name}" for name in (
        "auto_cast", "loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis", "min_loss_scale",
        "consecutive_hysteresis", "fp16_master_weights_and_grads")), "bf16.immediate_grad_update",
          "bf16.check_grad_overflow", "bf16.bf16_master_weights_and_grads", "bf16.bf16_optimizer_states"),
)  # fmt: skip

_OTHER: tuple[Row, ...] = (
    *drop(PLANNED, "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "prescale_gradients",
          "gradient_predivide_factor", "sparse_gradients", "communication_data_type", "disable_allgather",
          "seq_parallel_communication_data_type", "data_types", "activation_checkpointing", "aio",
          "torch_autocast", "graph_harvesting", "use_data_before_expert_parallelism",
          "gradient_accumulation_dtype"),
    *drop(WATCHED, "steps_per_print", "wall_clock_breakdown", "dump_state", "memory_breakdown",
          "flops_profiler", "tensorboard", "wandb", "csv_monitor", "comet", "comms_logger", "timers",
          "comms_config", "monitor_config"),
    *drop("checkpoints are written by the run", "checkpoint", "nebula"),
    *drop("a note", "_comment", "comment"),
    *refuse("tensor parallel is not there yet; plan.zero_stage: 3 splits the weights as well",
            "tensor_parallel"),
    *refuse("this part of DeepSpeed is not there yet; leave it out", "amp", "elasticity", "autotuning",
            "curriculum_learning", "data_efficiency", "compression_training", "sparse_attention", "pipeline",
            "hybrid_engine", "eigenvalue", "progressive_layer_drop", "quantize_training", "compile",
            "sequence_parallel_size", "weight_quantization", "checkpoint_engine"),
)  # fmt: skip

KEYS = table(_ZERO, _TRAIN, _OTHER)
"""Every key that is known."""

OWN_FILES: dict[str, dict[str, object]] = {
    "ds_z0_config.json": {"plan.zero_stage": 0},
    "ds_z2_config.json": {"plan.zero_stage": 2},
    "ds_z2_offload_config.json": {"plan.zero_stage": 2, "plan.offload_optimizer": "cpu"},
    "ds_z3_config.json": {"plan.zero_stage": 3},
    "ds_z3_fp8_config.json": {"plan.zero_stage": 3, "plan.offload_optimizer": "cpu"},
    "ds_z3_offload_config.json": {
        "plan.zero_stage": 3, "plan.offload_optimizer": "cpu", "plan.offload_parameters": "cpu",
    },
}  # fmt: skip
"""What LLaMA-Factory's own examples/deepspeed files say (at ff6d4d12e), for a file that came without them.

axolotl's ``deepspeed_configs`` are read where they lie.
"""
