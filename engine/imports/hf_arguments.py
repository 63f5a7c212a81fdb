"""Keys of transformers' TrainingArguments, which LLaMA-Factory, TRL and others hand through.

Source: transformers 5.23 training_args.py; the names that it no longer has are those of 4.x.
"""

from .reasons import EVALUATED, FOLDER, GONE, HERE, MEASURED, NO_UPLOAD, PLANNED, SECRETS, WATCHED
from .rows import Role, Row, drop, extra, follow, only_with, refuse, secret, table, take, use
from .values import optimizer, run_name, sampling, share_of_steps, trackers, when_true, whole_steps

_NO_BEST = (
    "choosing the best checkpoint is not there yet; keep several with save_total_limit and compare them"
)

_TRAINED: tuple[Row, ...] = (
    take("num_train_epochs", "train.num_train_epochs"),
    take("max_steps", "train.max_steps", off=(None, -1, 0)),
    take("lr_scheduler_type", "train.lr_scheduler_type", default="linear"),
    take("warmup_steps", "train.warmup_steps", off=(None, 0), default=0.0),
    take("warmup_ratio", "train.warmup_steps", share_of_steps, off=(None, 0)),
    take("optim", "train.optim", optimizer, default="adamw_torch_fused"),
    take("weight_decay", "train.weight_decay"),
    take("max_grad_norm", "train.max_grad_norm"),
    take("seed", "train.seed"),
    use("per_device_train_batch_size", Role.MICRO, default=8),
    use("gradient_accumulation_steps", Role.ACCUMULATION, default=1),
    take("group_by_length", "train.extra.train_sampling_strategy", sampling),
    *refuse(
        "it changes the global batch in silence; ftwiz plans the micro batch and keeps the global one",
        "auto_find_batch_size",
    ),
)

_RHYTHM: tuple[Row, ...] = (
    take("logging_steps", "train.logging_steps", whole_steps),
    take("eval_steps", "train.eval_steps", whole_steps),
    take("save_steps", "train.save_steps", whole_steps, default=500),
    take("save_total_limit", "train.save_total_limit"),
    use("eval_strategy", Role.EVAL_WHEN, default="no"),
    use("evaluation_strategy", Role.EVAL_WHEN),
    use("save_strategy", Role.SAVE_WHEN, default="steps"),
    *drop("train.logging_steps decides", "logging_strategy"),
    *refuse(_NO_BEST, "load_best_model_at_end"),
    *only_with("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    *drop("a checkpoint is always whole, so that a run can go on", "save_only_model"),
    *drop("checkpoints are written once, where the run folder is", "save_on_each_node"),
    *drop("ftwiz saves when it is told to stop, by itself", "enable_jit_checkpoint"),
)

_MACHINE: tuple[Row, ...] = (
    take("bf16", "plan.mixed_precision", when_true("bf16"), off=(None, False, "auto")),
    *drop("bf16 where the devices have it, fp16 where not: planned", "fp16"),
    take("gradient_checkpointing", "plan.gradient_checkpointing"),
    take("activation_checkpointing", "plan.gradient_checkpointing"),
    take("use_cpu", "plan.device", when_true("cpu"), off=(None, False)),
    take("no_cuda", "plan.device", when_true("cpu"), off=(None, False)),
    take("use_mps_device", "plan.device", when_true("mps"), off=(None, False)),
    follow("deepspeed", "its stage and offload become pins"),
    follow("fsdp_config", "its options become pins"),
    follow("fsdp", "its words become pins"),
    *refuse("tensor and context parallel are not there yet; plan.backend: zero or fsdp",
            "parallelism_config"),
    *drop(
        PLANNED,
        *("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", "ddp_timeout", "ddp_backend"),
        *("ddp_find_unused_parameters", "ddp_static_graph", "ddp_broadcast_buffers", "local_rank"),
        *("accelerator_config", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap"),
    ),
)  # fmt: skip

_PASSED: tuple[Row, ...] = (
    *extra(
        *("lr_scheduler_kwargs", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("optim_target_modules", "average_tokens_across_devices", "tf32", "torch_compile"),
        *("torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config"),
        *("torch_empty_cache_steps", "logging_first_step", "logging_nan_inf_filter", "eval_delay"),
        *("eval_on_start", "eval_accumulation_steps", "full_determinism", "data_seed"),
        *("dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory"),
        *("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_in_order"),
        *("dataloader_multiprocessing_context", "train_sampling_strategy", "ddp_bucket_cap_mb"),
        *("log_level", "log_level_replica", "log_on_each_node", "project", "trackio_space_id"),
        *("trackio_bucket_id", "trackio_static_space_id", "bf16_full_eval", "fp16_full_eval"),
    ),
    take("neftune_noise_alpha", "train.neftune_noise_alpha", off=(None, 0)),
    *extra("label_smoothing_factor", off=(None, 0)),
    take("report_to", "train.extra.report_to", trackers),
)

_RUN: tuple[Row, ...] = (
    take("run_name", "run.name", run_name),
    *drop(FOLDER, "output_dir", "overwrite_output_dir", "logging_dir"),
    *drop(
        EVALUATED,
        *("per_device_eval_batch_size", "prediction_loss_only", "eval_do_concat_batches", "do_eval"),
        *("eval_use_gather_object", "include_for_metrics", "batch_eval_metrics"),
        *("include_inputs_for_metrics", "label_names"),
    ),
    *drop(MEASURED, "include_num_input_tokens_seen", "include_tokens_per_second", "skip_memory_metrics"),
    *drop(WATCHED, "disable_tqdm", "debug"),
    *drop(NO_UPLOAD, "push_to_hub", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
    *drop(NO_UPLOAD, "hub_revision", "push_to_hub_model_id", "push_to_hub_organization"),
    *secret(SECRETS, "hub_token", "push_to_hub_token"),
    *refuse(
        "a checkpoint of another tool cannot be gone on from; start anew, or name it as the model",
        "resume_from_checkpoint",
    ),
    *drop("counts only for a run that goes on", "ignore_data_skip",
            "restore_callback_states_from_checkpoint"),
    *drop(HERE, "do_train"),
    *refuse("ftwiz trains; predicting with a finished model is not there yet", "do_predict"),
    *drop(
        "counts only for predicting",
        *("predict_with_generate", "generation_max_length", "generation_num_beams", "generation_config"),
    ),
    *drop("columns are chosen by the data's format", "remove_unused_columns", "length_column_name"),
    *drop("weights are saved as safetensors, always", "save_safetensors"),
    *drop(
        GONE,
        *("fp16_backend", "half_precision_backend", "fp16_opt_level", "tpu_num_cores", "tpu_metrics_debug"),
        *("jit_mode_eval", "use_ipex", "torchdynamo", "sortish_sampler", "use_legacy_prediction_loop"),
        *("past_index", "xpu_backend", "ray_scope", "mp_parameters", "dispatch_batches", "split_batches"),
        *("per_gpu_eval_batch_size", "use_cache"),
    ),
)  # fmt: skip

ARGUMENTS = table(_TRAINED, _RHYTHM, _MACHINE, _PASSED, _RUN)
"""Rows by key, without ``learning_rate``, whose default is each tool's own."""
