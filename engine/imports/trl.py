"""Keys of a YAML for ``trl sft --config``: its script's, its trainer's and its model's arguments.

Source: trl 1.16, scripts/utils.py (ScriptArguments), trainer/sft_config.py and trainer/model_config.py.
"""

from .hf_arguments import ARGUMENTS
from .reasons import KERNELS, TEMPLATE, WEIGHTS
from .rows import Role, Row, drop, extra, refuse, table, take, use
from .trl_other import OTHER
from .values import modules, when_true

_MODEL: tuple[Row, ...] = (
    take("model_name_or_path", "model.name_or_path"),
    take("model_revision", "model.revision", off=(None, "main")),
    take("trust_remote_code", "model.trust_remote_code"),
    *drop(WEIGHTS, "dtype", "torch_dtype", "bnb_4bit_quant_storage"),
    *drop(KERNELS, "attn_implementation", "use_flash_attn"),
    take("use_peft", "method.kind", when_true("lora", "full"), default="full"),
    take("lora_r", "method.r", default=16),
    take("lora_alpha", "method.lora_alpha", default=32),
    take("lora_dropout", "method.lora_dropout", default=0.05),
    take("lora_target_modules", "method.target_modules", modules),
    take("lora_modules_to_save", "method.modules_to_save", modules),
    take("lora_target_parameters", "method.target_parameters"),
    *refuse("causal language models only", "lora_task_type", off=(None, "CAUSAL_LM")),
    take("use_rslora", "method.use_rslora", off=(None, False)),
    take("use_dora", "method.use_dora", off=(None, False)),
    take("load_in_4bit", "plan.quantization", when_true("nf4"), off=(None, False)),
    take("load_in_8bit", "plan.quantization", when_true("int8"), off=(None, False)),
    *refuse("ftwiz quantizes to nf4; leave it out", "bnb_4bit_quant_type", off=(None, "nf4")),
    *drop("ftwiz decides on double quantization with the strategy", "use_bnb_nested_quant"),
    *refuse("model arguments are keys of a job; leave it out", "model_init_kwargs"),
)  # fmt: skip

_DATA: tuple[Row, ...] = (
    use("dataset_name", Role.DATA),
    use("datasets", Role.DATA),
    *drop("a job names its file: data.path", "dataset_config", "dataset_train_split", "dataset_test_split"),
    *drop("columns are found by their names: data.columns", "dataset_text_field"),
    *refuse("streaming is not there yet; data.num_rows takes the first rows of a large file",
            "dataset_streaming"),
    take("max_length", "train.max_length", default=1024),
    take("max_seq_length", "train.max_length"),
    take("packing", "train.packing"),
    take("assistant_only_loss", "train.assistant_only_loss"),
    take("completion_only_loss", "train.assistant_only_loss"),
    *drop(TEMPLATE, "chat_template"),
    *drop("not in trl 1.16", "ignore_bias_buffers", "tokenizer_name_or_path", "use_unsloth", "env"),
)  # fmt: skip

_TRAINER: tuple[Row, ...] = (
    take("learning_rate", "train.learning_rate", default=2e-5),
    *extra("router_aux_loss_coef", "chat_template_path", "dataset_kwargs", "dataset_num_proc", "eos_token",
           "pad_token", "shuffle_dataset", "truncation_mode", "packing_strategy", "pad_to_multiple_of",
           "eval_packing", "activation_offloading"),
    use("loss_type", Role.LOSS),
    *extra("padding_free", off=(None, False)),
)  # fmt: skip

_OWN = table(_MODEL, _DATA, _TRAINER, OTHER)
KEYS = {**{key: row for key, row in ARGUMENTS.items() if key not in _OWN}, **_OWN}
"""Every key that is known."""
