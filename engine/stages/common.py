"""Arguments that every trainer takes, and what a stage is. Pure: it knows no training stack."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BadInput
from ..specs.data import DataSummary
from ..specs.job import Job, Train
from ..specs.machine import CPU
from ..specs.optimizers import LOW_RANK
from ..specs.plan import Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """Where a trainer lives in the installed trl: its module, and the names of its two classes."""

    module: str
    trainer: str
    config: str

    @property
    def shown_config(self) -> str:
        """What a person looks its arguments up by."""
        return f"{self.module}.{self.config}"


DECIDED_ELSEWHERE: Mapping[str, str] = {
    "per_device_train_batch_size": "plan.micro_batch_size",
    "per_gpu_train_batch_size": "plan.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "gradient_checkpointing": "plan.gradient_checkpointing",
    "activation_checkpointing": "plan.gradient_checkpointing",
    "bf16": "plan.mixed_precision",
    "fp16": "plan.mixed_precision",
    "use_cpu": "plan.device",
    "fsdp": "plan.backend",
    "fsdp_config": "plan.backend",
    "deepspeed": "plan.backend",
    "parallelism_config": "plan.backend",
    "ddp_backend": "plan.backend",
    "completion_only_loss": "train.assistant_only_loss",
    "eval_strategy": "train.eval_steps",
    "save_strategy": "train.save_steps",
    "model_init_kwargs": "model",
    "trust_remote_code": "model.trust_remote_code",
    "resume_from_checkpoint": "ftwiz resume",
    "beta": "preference.beta (grpo, rloo: rollout.beta)",
    "loss_weights": "preference.sft_weight",
    "label_smoothing": "preference.label_smoothing",
    "cpo_alpha": "preference.sft_weight",
    "simpo_gamma": "preference.simpo_gamma",
    "desirable_weight": "preference.desirable_weight",
    "undesirable_weight": "preference.undesirable_weight",
    "precompute_ref_log_probs": "preference.precompute_reference",
    "num_generations": "rollout.num_generations",
    "max_completion_length": "rollout.max_completion_length",
    "temperature": "rollout.temperature",
    "top_p": "rollout.top_p",
    "reward_weights": "rollout.reward_weights",
    "scale_rewards": "rollout.scale_rewards",
    "normalize_advantages": "rollout.scale_rewards",
    "generation_batch_size": "train.global_batch_size",
    "steps_per_generation": "train.global_batch_size",
}
"""Arguments that ``train.extra`` may not set -> where they are decided."""

KEPT = ("output_dir", "include_num_input_tokens_seen", "disable_tqdm", "save_only_model", "push_to_hub")
"""Arguments that resume and the event log rely on."""


def arguments(
    job: Job,
    strategy: Strategy,
    data: DataSummary,
    own: Mapping[str, object],
    *,
    learning_rates: Mapping[str, float],
) -> dict[str, object]:
    """Return the arguments of a trainer by name, exactly as they will be passed.

    Args:
        job: What the user wants.
        strategy: How the machine does it.
        data: What the data file turned out to be.
        own: Those that only this stage's trainer takes; they win over what all take.
        learning_rates: What ``auto`` is, by method.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    extra = job.train.extra
    _check_extra(extra, own)
    own = dict(own)
    counts_tokens = own.pop("include_num_input_tokens_seen", "non_padding")
    return {
        "output_dir": "checkpoints",
        **_batches(strategy),
        **_optimization(job, learning_rates),
        **own,
        **_precision(strategy),
        **_rhythm(job.train, has_eval=data.num_eval_rows != 0),
        "include_num_input_tokens_seen": counts_tokens,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": strategy.device_kind != CPU,
        "report_to": "none",
        "ddp_timeout": strategy.timeout_seconds,
        "disable_tqdm": True,
        **extra,
    }


def _check_extra(extra: Mapping[str, object], own: Mapping[str, object]) -> None:
    for name in extra:
        if where := DECIDED_ELSEWHERE.get(name):
            raise BadInput(f"train.extra: {name} is decided elsewhere", hint=f"use {where}")
        if name in KEPT or name in own:
            raise BadInput(
                f"train.extra: {name} cannot be changed", hint="take it out: ftwiz needs it as it is"
            )


def _batches(strategy: Strategy) -> dict[str, object]:
    return {
        "per_device_train_batch_size": strategy.micro_batch_size,
        "gradient_accumulation_steps": strategy.gradient_accumulation_steps,
        "per_device_eval_batch_size": strategy.micro_batch_size,
    }


def _optimization(job: Job, learning_rates: Mapping[str, float]) -> dict[str, object]:
    train = job.train
    usual = learning_rates["lora" if job.method.adds_weights else "full"]
    rate = usual if train.learning_rate == "auto" else train.learning_rate
    length: dict[str, object] = {"num_train_epochs": train.num_train_epochs}
    if train.max_steps is not None:
        length = {"max_steps": train.max_steps}
    return {
        **length,
        "learning_rate": rate,
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": train.optim,
        # GaLore and APOLLO treat matrices of layers on their own, and want them named (transformers 5.23).
        **({"optim_target_modules": "all-linear"} if train.optim in LOW_RANK else {}),
        **({} if train.neftune_noise_alpha is None else {"neftune_noise_alpha": train.neftune_noise_alpha}),
        "seed": train.seed,
    }


def _precision(strategy: Strategy) -> dict[str, object]:
    # With use_cpu accelerate would not see DeepSpeed, which takes the CPU by itself where there is no other
    # device; then only the way that ranks talk must be said (accelerate 1.15, state.py).
    is_zero_on_cpu = strategy.backend == "zero" and strategy.device_kind == CPU
    return {
        "use_cpu": strategy.device_kind == CPU and not is_zero_on_cpu,
        **({"ddp_backend": "gloo"} if is_zero_on_cpu else {}),
        "bf16": strategy.mixed_precision == "bf16",
        "fp16": strategy.mixed_precision == "fp16",
        "activation_checkpointing": strategy.gradient_checkpointing,
    }


def _rhythm(train: Train, *, has_eval: bool) -> dict[str, object]:
    """Return when to log, evaluate and save. The worker also evaluates and saves after the last step."""
    evaluates = has_eval and train.eval_steps is not None
    return {
        "logging_steps": train.logging_steps,
        # With the filter a run whose loss is NaN logs 0.0.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluates else "no",
        **({"eval_steps": train.eval_steps} if evaluates else {}),
        "save_strategy": "no" if train.save_steps is None else "steps",
        **({} if train.save_steps is None else {"save_steps": train.save_steps}),
        # Old checkpoints are deleted by the worker, after the manifest of a newer one stands.
        "save_total_limit": None,
    }
