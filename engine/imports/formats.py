"""The tools whose files are imported, and how a file is told to be one of them: by its keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from . import accelerate, axolotl, deepspeed, llamafactory, llamafactory_v1, trl
from .rows import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A tool's file."""

    name: str
    """What ``--from`` calls it."""
    title: str
    """For messages and comments."""
    keys: Table
    marks: frozenset[str]
    """Keys at the top that this tool has and the others have not."""
    implied: Mapping[str, object] = field(default_factory=dict)
    """What such a file says by being one."""
    unsaid: tuple[tuple[str, str, str], ...] = ()
    """What such a file never says and we have to: key, ours, reason."""
    trains: bool = True
    """Whether it says what is trained; else only how."""


LLAMAFACTORY = Format(
    name="llamafactory", title="LLaMA-Factory", keys=llamafactory.KEYS,
    marks=frozenset({
        "stage", "finetuning_type", "template", "cutoff_len", "lora_rank", "lora_target", "dataset",
        "dataset_dir", "infer_backend", "export_dir", "quantization_bit",
    }),
)  # fmt: skip
LLAMAFACTORY_V1 = Format(
    name="llamafactory-v1", title="LLaMA-Factory v1", keys=llamafactory_v1.KEYS,
    unsaid=(("stage", "stage: sft", "its command says it, not the file: llamafactory-cli sft or dpo"),),
    marks=frozenset({
        "model", "model_class", "kernel_config", "dist_config", "train_dataset", "peft_config",
        "quant_config", "sample_backend", "batching_strategy",
    }),
)  # fmt: skip
ACCELERATE = Format(
    name="accelerate", title="accelerate", keys=accelerate.KEYS, trains=False,
    marks=frozenset({
        "distributed_type", "compute_environment", "num_machines", "num_processes", "machine_rank",
        "main_training_function", "deepspeed_config", "rdzv_backend", "downcast_bf16",
    }),
)  # fmt: skip
DEEPSPEED = Format(
    name="deepspeed", title="DeepSpeed", keys=deepspeed.KEYS, trains=False,
    implied={"plan.backend": "zero"},
    marks=frozenset({
        "zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping",
        "zero_allow_untested_optimizer", "steps_per_print",
    }),
)  # fmt: skip
TRL = Format(
    name="trl", title="TRL", keys=trl.KEYS,
    marks=frozenset({
        "dataset_name", "use_peft", "lora_r", "lora_target_modules", "dataset_text_field", "load_in_4bit",
        "max_seq_length", "attn_implementation", "dtype", "torch_dtype", "assistant_only_loss", "max_length",
        "dataset_train_split",
    }),
)  # fmt: skip
AXOLOTL = Format(
    name="axolotl", title="axolotl", keys=axolotl.KEYS,
    marks=frozenset({
        "base_model", "datasets", "sequence_len", "adapter", "num_epochs", "val_set_size", "sample_packing",
        "lora_target_linear", "dataset_prepared_path", "micro_batch_size", "optimizer", "lr_scheduler",
    }),
)  # fmt: skip
FSDP_OPTIONS = Format(
    name="fsdp", title="FSDP", keys=accelerate.FSDP_OPTIONS, marks=frozenset(), trains=False,
    implied={"plan.backend": "fsdp"},
)  # fmt: skip
"""Not a file that one imports, but what ``fsdp_config`` of a training file names or holds."""

FORMATS = (LLAMAFACTORY, LLAMAFACTORY_V1, ACCELERATE, DEEPSPEED, TRL, AXOLOTL)


def recognise(keys: Mapping[str, object]) -> Format | None:
    """Return the tool that a file with these keys at its top is for: the one most of whose own keys it has.

    Of equals the one that knows more of all keys; ``None`` when no tool's own key is there.
    """
    scores = [
        (
            len(one.marks & keys.keys()),
            sum(key in {known.split(".")[0] for known in one.keys} for key in keys),
            one,
        )
        for one in FORMATS
    ]
    best = max(scores, key=lambda score: score[:2])
    return best[2] if best[0] else None


def nearest_key(key: str, known: Table) -> str:
    """Return ``; did you mean 'key'?``, or nothing when no key is near."""
    close = get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
