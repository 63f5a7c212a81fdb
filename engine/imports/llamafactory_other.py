"""LLaMA-Factory's fields that are not about training: export, chatting, other engines, benchmarks."""

from .reasons import CHATTING, FOLDER, PLANNED
from .rows import Role, Row, drop, only_with, refuse, take, use

_EXPORT = "exporting is a command: train with ftwiz, then ftwiz export RUN -o FOLDER"
_ENGINE = "is an engine that ftwiz does not have; plan.backend: zero or fsdp splits the model over devices"
_PROFILER = "the profiler is not there yet; ftwiz watch shows step time, utilisation and memory"

OTHER: tuple[Row, ...] = (
    take("learning_rate", "train.learning_rate", default=5e-5),
    *refuse(_EXPORT, "export_dir"),
    *only_with("export_dir", "export_size", "export_device", "export_quantization_bit",
               "export_quantization_dataset", "export_quantization_nsamples", "export_quantization_maxlen",
               "export_legacy_format", "export_hub_model_id"),
    *refuse(CHATTING, "infer_backend", off=(None,)),
    *only_with("chatting", "vllm_maxlen", "vllm_gpu_util", "vllm_enforce_eager", "vllm_max_lora_rank",
               "vllm_config", "sglang_maxlen", "sglang_mem_fraction", "sglang_tp_size", "sglang_config",
               "sglang_lora_backend", "use_kv_cache"),
    *drop("answers that a run shows are the most likely ones: run.sample_max_new_tokens is their length",
          "do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "repetition_penalty",
          "length_penalty", "skip_special_tokens"),
    take("max_new_tokens", "run.sample_max_new_tokens"),
    *refuse(f"KTransformers {_ENGINE}", "use_kt"),
    *only_with("use_kt", "kt_cpu_activation", "kt_weight_path", "kt_non_expert_weight_path",
               "kt_expert_checkpoint_path", "kt_use_lora_experts", "kt_lora_expert_num",
               "kt_lora_expert_intermediate_size", "kt_config", "_kt_inference_config", "_kt_config_handle",
               "_kt_adapter_artifact_path"),
    *refuse(f"Megatron {_ENGINE}", "use_mca", "use_megatron_bridge"),
    *only_with("use_megatron_bridge", "megatron_bridge_args"),
    *refuse(f"HyperParallel {_ENGINE}", "use_hyper_parallel"),
    *only_with("use_hyper_parallel", "hyper_parallel_args", "hyper_parallel_cp_size"),
    use("ray_num_workers", Role.RANKS),
    *drop("Ray is not used; ftwiz starts the ranks itself", "ray_init_kwargs", "ray_run_name",
          "ray_storage_path", "placement_strategy", "resources_per_worker"),
    *drop(PLANNED, "master_addr", "master_port"),
    *refuse(_PROFILER, "enable_torch_profiler", "profile_modules"),
    *only_with("enable_torch_profiler", "profiler_output_dir", "profiler_wait_steps", "profiler_warmup_steps",
               "profiler_active_steps", "profiler_repeat", "profiler_record_shapes",
            "profiler_profile_memory",
               "profiler_with_stack"),
    *refuse("training in fp8 is not there yet; plan.mixed_precision: bf16", "fp8"),
    *only_with("fp8", "fp8_backend", "fp8_enable_fsdp_float8_all_gather"),
    *refuse("benchmarks are not there yet; lm-eval takes the finished folder", "task"),
    *only_with("task", "task_dir", "batch_size", "lang", "n_shot", "save_dir", "download_mode"),
    *drop(FOLDER, "overwrite_output_dir"),
)  # fmt: skip
"""Sources: hparams/{model,generating,evaluation,training,finetuning}_args.py at ff6d4d12e."""
