"""Keys of LLaMA-Factory's second generation (its ``v1`` folder): another file format under the same name.

Source: hiyouga/LLaMA-Factory at ff6d4d12e, src/llamafactory/v1/config and v1/plugins.
"""

from .reasons import CHATTING, FOLDER, KERNELS, PLANNED, TEMPLATE
from .rows import Role, Row, drop, only_with, refuse, table, take, use
from .values import last_layers, modules, when_true, words

_PARALLEL = "tensor and context parallel are not there yet; plan.backend: fsdp splits the model"

_METHOD: tuple[Row, ...] = (
    take("peft_config.name", "method.kind", words({"lora": "lora", "freeze": "freeze"}), default="full"),
    take("peft_config.r", "method.r", default=8),
    take("peft_config.lora_alpha", "method.lora_alpha", default=16),
    take("peft_config.lora_dropout", "method.lora_dropout", default=0.05),
    take("peft_config.target_modules", "method.target_modules", modules),
    take("peft_config.use_rslora", "method.use_rslora", off=(None, False)),
    take("peft_config.use_dora", "method.use_dora", off=(None, False)),
    take("peft_config.modules_to_save", "method.modules_to_save", modules),
    *refuse("training on top of an adapter is not there yet; merge it into the model first",
            "peft_config.adapter_name_or_path"),
    *refuse("exporting is a command: train with ftwiz, then ftwiz export RUN -o FOLDER",
            "peft_config.export_dir"),
    *only_with("peft_config.export_dir", "peft_config.export_size", "peft_config.infer_dtype",
               "peft_config.export_hub_model_id", "peft_config.export_device",
               "peft_config.export_legacy_format"),
    take("peft_config.freeze_trainable_layers", "method.num_trainable_layers", last_layers),
    *refuse("whole layers are trained; leave it out, or say all", "peft_config.freeze_trainable_modules",
            off=(None, "all")),
    take("peft_config.freeze_extra_modules", "method.modules_to_save", modules),
    *drop("what is trained is always float32", "peft_config.cast_trainable_params_to_fp32"),
)  # fmt: skip

_ENGINE: tuple[Row, ...] = (
    take("dist_config.name", "plan.backend",
         words({"fsdp2": "fsdp", "fsdp": "fsdp", "deepspeed": "zero", "ddp": "ddp"},
               later={"fsdpturbo": "expert parallel is not there yet; plan.backend: fsdp"})),
    *refuse("loading from such a folder is not there yet; name a folder with safetensors as the model",
            "dist_config.dcp_path"),
    *refuse(_PARALLEL, "dist_config.ep_size", "cp_size", off=(None, 1)),
    *only_with("expert parallel", "dist_config.ep_dispatcher"),
    *only_with("cp_size", "cp_mode"),
    *drop(PLANNED, "dist_config.mixed_precision", "dist_config.reshard_after_forward",
          "dist_config.offload_params", "dist_config.pin_memory", "dist_config.config_file", "dp_size",
          "mp_replicate_size", "mp_shard_size", "dist_timeout", "init_config"),
    *drop(KERNELS, "flash_attn", "kernel_config"),
    *drop("sft on text takes a language model", "model_class"),
    take("bf16", "plan.mixed_precision", when_true("bf16"), off=(None, False)),
    take("enable_activation_checkpointing", "plan.gradient_checkpointing"),
    take("quant_config.quantization_bit", "plan.quantization", words({4: "nf4", 8: "int8"})),
    *refuse("other methods than bitsandbytes are not there yet; plan.quantization: nf4", "quant_config.name",
            off=(None, "bnb", "auto")),
    *refuse("ftwiz quantizes to nf4; leave it out", "quant_config.quantization_type", off=(None, "nf4")),
    *drop("ftwiz decides on double quantization with the strategy", "quant_config.double_quantization"),
)  # fmt: skip

_TRAIN: tuple[Row, ...] = (
    take("model", "model.name_or_path"),
    take("trust_remote_code", "model.trust_remote_code"),
    *drop(TEMPLATE, "custom_chat_template"),
    use("train_dataset", Role.DATA),
    use("eval_dataset", Role.EVAL_DATA),
    use("micro_batch_size", Role.MICRO, default=1),
    use("global_batch_size", Role.TOTAL),
    take("batching_strategy", "train.packing",
         words({"normal": False, "padding_free": False, "dynamic_batching": False},
               later={"dynamic_padding_free": "packing: true comes nearest"}), off=(None, "normal")),
    *drop("rows are prepared by the trainer", "batching_workers"),
    take("cutoff_len", "train.max_length", default=2048),
    take("learning_rate", "train.learning_rate", default=1e-4),
    take("num_train_epochs", "train.num_train_epochs", default=3.0),
    take("max_steps", "train.max_steps"),
    take("max_grad_norm", "train.max_grad_norm", default=1.0),
    take("optim_config.name", "train.optim", words({"adamw": "adamw_torch_fused"})),
    take("lr_scheduler_config.name", "train.lr_scheduler_type", default="constant"),
    take("lr_scheduler_config.warmup_ratio", "train.warmup_steps", off=(None, 0), default=0.0),
    take("optim_config.wd", "train.weight_decay", default=0.01),
    take("seed", "train.seed"),
    take("full_determinism", "train.extra.full_determinism", off=(None, False)),
    *refuse("a checkpoint of another tool cannot be gone on from; start anew", "resume_from_checkpoint"),
    take("save_steps", "train.save_steps"),
    *drop("save_steps decides; without it a checkpoint is saved at the end", "save_epochs"),
    *drop("checkpoints load in transformers as they are", "save_ckpt_as_hf"),
    take("save_total_limit", "train.save_total_limit"),
    take("logging_steps", "train.logging_steps"),
    use("pref_loss", Role.LOSS),
    take("pref_beta", "preference.beta"),
    take("pref_ftx", "preference.sft_weight", off=(None, 0)),
    take("simpo_gamma", "preference.simpo_gamma"),
    take("dpo_label_smoothing", "preference.label_smoothing", off=(None, 0)),
    take("ld_alpha", "train.extra.ld_alpha", off=(None, 1)),
    *drop(FOLDER, "output_dir"),
    *drop(CHATTING, "sample_backend"),
    take("max_new_tokens", "run.sample_max_new_tokens"),
)  # fmt: skip

KEYS = table(_METHOD, _ENGINE, _TRAIN)
"""Every key of its training files."""
