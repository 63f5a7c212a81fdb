"""All 251 fields of LLaMA-Factory's argument classes, and how each becomes ours.

Source: hiyouga/LLaMA-Factory at ff6d4d12e (0.9.6.dev0), src/llamafactory/hparams. Two classes may have a
field of the same name; it has one row. What they inherit from transformers stands in ``hf_arguments``.
"""

from .hf_arguments import ARGUMENTS
from .llamafactory_other import OTHER
from .reasons import EVALUATED, IMAGES, KERNELS, PLANNED, PREPARED, SECRETS, TEMPLATE, WATCHED, WEIGHTS
from .rows import Role, Row, Table, drop, only_with, refuse, secret, table, take, use
from .values import held_out, last_layers, modules, negated, when_true, words

_QUANTIZED = "; plan.quantization: nf4 with method.kind: lora"
_LITTLE_MEMORY = "is not there yet; for as little memory: method.kind: lora, or plan.offload_optimizer: cpu"
_LOW_RANK = (
    "its rank, interval and scale have other defaults in transformers; say them there: train.optim: {optim}, "
    "train.extra: {{optim_args: ...}}; for as little memory: method.kind: lora"
)

STAGES = words(
    {"sft": "sft", "pt": "pt", "rm": "rm", "dpo": "dpo", "kto": "kto"},
    later={"ppo": "PPO is gone from TRL; a reward model (stage rm), then rloo or grpo took its place"},
)
_METHODS = words(
    {"lora": "lora", "full": "full", "freeze": "freeze", "oft": "oft"},
)

_METHOD: tuple[Row, ...] = (
    take("stage", "stage", STAGES),
    take("finetuning_type", "method.kind", _METHODS, default="lora"),
    take("lora_rank", "method.r", default=8),
    take("lora_alpha", "method.lora_alpha"),
    take("lora_dropout", "method.lora_dropout"),
    take("lora_target", "method.target_modules", modules),
    take("additional_target", "method.modules_to_save", modules),
    take("loraplus_lr_ratio", "method.loraplus_lr_ratio"),
    *refuse("peft's 1e-6 is taken; leave it out", "loraplus_lr_embedding", off=(None, 1e-6, "1e-6", "1e-06")),
    take("use_rslora", "method.use_rslora", off=(None, False)),
    take("use_dora", "method.use_dora", off=(None, False)),
    take("pissa_init", "method.init_lora_weights", when_true("pissa_niter_16"), off=(None, False)),
    use("pissa_iter", Role.PISSA_STEPS),
    *drop("a finished PiSSA adapter is always turned to a plain LoRA", "pissa_convert"),
    *refuse("training on top of an adapter is not there yet; merge it into the model first",
            "adapter_name_or_path", "create_new_adapter"),
    *drop("counts only with adapter_name_or_path", "adapter_folder"),
    take("freeze_trainable_layers", "method.num_trainable_layers", last_layers),
    *refuse("whole layers are trained; leave it out, or say all", "freeze_trainable_modules",
            off=(None, "all")),
    take("freeze_extra_modules", "method.modules_to_save", modules),
    take("oft_block_size", "method.oft_block_size", off=(None, 0)),
    take("oft_target", "method.target_modules", modules),
    *refuse("the size of the blocks is given instead: oft_block_size", "oft_rank", off=(None, 0)),
    *refuse("rotations are trained without dropout; leave it out", "module_dropout", off=(None, 0)),
    *refuse("block expansion is not there yet; method.kind: lora", "use_llama_pro"),
    *refuse("weights purely in bf16 are not there yet; plan.mixed_precision: bf16", "pure_bf16"),
)  # fmt: skip

_PREFERENCE: tuple[Row, ...] = (
    take("pref_beta", "preference.beta"),
    take("pref_ftx", "preference.sft_weight", off=(None, 0)),
    *refuse("a BCO loss beside another is not there; preference.loss_type: bco_pair is BCO alone",
            "pref_bco_weight", off=(None, 0)),
    use("pref_loss", Role.LOSS),
    take("dpo_label_smoothing", "preference.label_smoothing", off=(None, 0)),
    take("simpo_gamma", "preference.simpo_gamma"),
    take("kto_chosen_weight", "preference.desirable_weight"),
    take("kto_rejected_weight", "preference.undesirable_weight"),
    take("ld_alpha", "train.extra.ld_alpha", off=(None, 1)),
    *refuse("the reference is the model as it was before training; start from the other model instead",
            "ref_model"),
    *only_with("ref_model", "ref_model_adapters", "ref_model_quantization_bit"),
    *only_with("stage ppo", "ppo_buffer_size", "ppo_epochs", "ppo_score_norm", "ppo_target",
               "ppo_whiten_rewards", "reward_model", "reward_model_adapters", "reward_model_quantization_bit",
               "reward_model_type"),
)  # fmt: skip

_OPTIMIZERS: tuple[Row, ...] = (
    *refuse(_LOW_RANK.format(optim="galore_adamw"), "use_galore"),
    *only_with("use_galore", "galore_target", "galore_rank", "galore_update_interval", "galore_scale",
               "galore_proj_type", "galore_layerwise"),
    *refuse(_LOW_RANK.format(optim="apollo_adamw"), "use_apollo"),
    *only_with("use_apollo", "apollo_target", "apollo_rank", "apollo_update_interval", "apollo_scale",
               "apollo_proj", "apollo_proj_type", "apollo_scale_type", "apollo_layerwise",
               "apollo_scale_front"),
    *refuse(f"BAdam {_LITTLE_MEMORY}", "use_badam"),
    *only_with("use_badam", "badam_mode", "badam_start_block", "badam_switch_mode", "badam_switch_interval",
               "badam_update_ratio", "badam_mask_mode", "badam_verbose"),
    *refuse("Adam-mini is not there yet; train.optim: adafactor holds less than AdamW",
            "use_adam_mini"),
    *refuse("Muon is not there yet; train.optim: adamw_torch_fused", "use_muon"),
    take("use_dft_loss", "train.extra.loss_type", when_true("dft"), off=(None, False)),
    *refuse("the ASFT loss is not in TRL; the plain loss, or train.extra: {loss_type: dft}", "use_asft_loss"),
    *only_with("use_asft_loss", "asft_alpha"),
    *refuse("the EAFT loss is not in TRL; the plain loss, or train.extra: {loss_type: dft}", "use_eaft_loss"),
    *only_with("use_eaft_loss", "eaft_alpha"),
)  # fmt: skip

_RUN: tuple[Row, ...] = (
    *drop("training on text trains no such part", "freeze_vision_tower", "freeze_multi_modal_projector"),
    *refuse(IMAGES, "freeze_language_model"),
    *drop(EVALUATED, "compute_accuracy", "eval_on_each_dataset", "eval_num_beams"),
    take("disable_shuffling", "train.extra.train_sampling_strategy", when_true("sequential"),
         off=(None, False)),
    *refuse("stopping early is not there yet; max_steps, and ftwiz stop", "early_stopping_steps"),
    *drop(WATCHED, "plot_loss", "include_effective_tokens_per_second", "print_param_status"),
    take("use_swanlab", "train.extra.report_to", when_true("swanlab"), off=(None, False)),
    *drop("set by the environment: SWANLAB_PROJECT, SWANLAB_MODE and their like", "swanlab_project",
          "swanlab_workspace", "swanlab_run_name", "swanlab_mode", "swanlab_logdir"),
    *secret(SECRETS, "swanlab_api_key", "swanlab_lark_webhook_url", "swanlab_lark_secret"),
)  # fmt: skip

_DATA: tuple[Row, ...] = (
    use("dataset", Role.DATA),
    use("eval_dataset", Role.EVAL_DATA),
    use("dataset_dir", Role.DATA_FOLDER),
    *drop(TEMPLATE, "template", "tool_format", "enable_thinking", "preserve_thinking"),
    take("cutoff_len", "train.max_length", default=2048),
    take("train_on_prompt", "train.assistant_only_loss", negated, default=True),
    *refuse("learning the last answer only is not there yet; assistant_only_loss learns all answers",
            "mask_history"),
    *refuse("streaming is not there yet; data.num_rows takes the first rows of a large file", "streaming"),
    *only_with("streaming", "buffer_size"),
    use("mix_strategy", Role.MIXING),
    use("interleave_probs", Role.SHARES),
    *drop(PREPARED, "overwrite_cache", "preprocessing_batch_size", "data_shared_file_system"),
    take("preprocessing_num_workers", "train.extra.dataset_num_proc"),
    take("max_samples", "data.num_rows"),
    *drop("padding is never learned", "ignore_pad_token_for_loss"),
    take("val_size", "data.eval_fraction", held_out, off=(None, 0)),
    take("packing", "train.packing"),
    *refuse("packing that keeps examples apart needs a kernel that is not there yet; packing: true "
            "packs without", "neat_packing"),
    take("default_system", "data.system"),
    *drop(PREPARED, "tokenized_path"),
    *refuse(IMAGES, "media_dir", "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan",
            "crop_to_patches", "video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen",
            "use_audio_in_video", "audio_sampling_rate"),
)  # fmt: skip

_MODEL: tuple[Row, ...] = (
    take("model_name_or_path", "model.name_or_path"),
    take("model_revision", "model.revision", off=(None, "main")),
    take("trust_remote_code", "model.trust_remote_code"),
    *drop("the Hugging Face cache is used: HF_HOME", "cache_dir", "offload_folder"),
    *drop("transformers 5 has one kind of tokenizer and always loads this way", "use_fast_tokenizer",
          "low_cpu_mem_usage"),
    *refuse("new tokens are not there yet; add them to the tokenizer and the model first", "resize_vocab",
            "add_tokens", "add_special_tokens", "new_special_tokens_config", "split_special_tokens"),
    *only_with("new_special_tokens_config", "init_special_tokens"),
    *refuse("longer positions are not there yet; set them in the model's config.json", "rope_scaling"),
    *drop(KERNELS, "flash_attn", "use_v1_kernels"),
    *refuse("transformers does not have it; leave it out", "shift_attn", "mixture_of_depths"),
    *refuse("unsloth is not there yet; the same LoRA trains without it, slower", "use_unsloth"),
    *drop(PLANNED, "use_unsloth_gc", "use_reentrant_gc", "quantization_device_map"),
    take("enable_liger_kernel", "train.extra.use_liger_kernel", off=(None, False)),
    take("moe_aux_loss_coef", "train.extra.router_aux_loss_coef"),
    take("disable_gradient_checkpointing", "plan.gradient_checkpointing", negated, off=(None, False)),
    *drop(WEIGHTS, "upcast_layernorm", "upcast_lmhead_output", "infer_dtype"),
    *refuse("training from nothing is not there yet; name a model with weights", "train_from_scratch"),
    *secret(SECRETS, "hf_hub_token", "ms_hub_token", "om_hub_token"),
    take("quantization_bit", "plan.quantization",
         words({4: "nf4", 8: "int8", "4": "nf4", "8": "int8"},
               later=dict.fromkeys((1, 2, 3, 5, 6), f"ftwiz quantizes to 4 or 8 bits{_QUANTIZED}"))),
    *refuse(f"other methods than bitsandbytes are not there yet{_QUANTIZED}", "quantization_method",
            off=(None, "bnb", "bitsandbytes")),
    *refuse("ftwiz quantizes to nf4; leave it out", "quantization_type", off=(None, "nf4")),
    *drop("ftwiz decides on double quantization with the strategy", "double_quantization"),
    *drop("worked out when training starts", "compute_dtype", "device_map", "model_max_length",
          "block_diag_attn"),
)  # fmt: skip


def _merged(own: Table) -> Table:
    shared = {key: row for key, row in ARGUMENTS.items() if key not in own}
    return {**own, **shared}


FIELDS = table(_METHOD, _PREFERENCE, _OPTIMIZERS, _RUN, _DATA, _MODEL, OTHER)
"""LLaMA-Factory's own fields; ``dataset`` and its kin are read by ``datasets``."""
KEYS = _merged(FIELDS)
"""Every key that its training files may hold."""
