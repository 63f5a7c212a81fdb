"""fitcheck-llm, asked as a library, for the comparison alone: the group ``accuracy`` installs it."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ...specs.adapter import ALL_LINEAR
from ...specs.workload import Workload
from ..case import Case

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
OPTIMIZERS = {
    "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_8bit": "adam8bit", "sgd": "sgd",
    "adamw_bnb_8bit": "adam8bit", "paged_adamw_8bit": "adam8bit",
}  # fmt: skip
CARDS = (
    ("t4", "t4"), ("h100", "h100"), ("a100-40", "a100-40"), ("l40s", "l40s"), ("3090", "3090"),
    ("4090", "4090"), ("a10", "a10"),
)  # fmt: skip
"""Part of a device's name -> fitcheck's key; the first that fits."""
OTHER_CARD = "a100-80"
CONTEXT_MIB = 500
"""What fitcheck counts for the driver."""
MIB = 2**20


def is_installed() -> bool:
    """Say whether fitcheck can be asked."""
    return find_spec("fitcheck") is not None


def predict(case: Case) -> int | None:
    """Return fitcheck's bytes in the tier of the counter: tensors, allocator or process."""
    workload = case.workload
    targets = _targets(workload)
    if not is_installed() or workload.sharding.num_ranks > 1 or targets is None:
        return None
    fitcheck = import_module("fitcheck")
    try:
        training = _training(fitcheck, workload, targets)
        report = fitcheck.estimate(_model(fitcheck, workload), training, fitcheck.get_gpu(_card(workload)))
    except (ValueError, KeyError):
        return None
    mib = report.total_mib
    if case.counter == "allocated":
        mib -= report.overhead_mib
    elif case.counter == "reserved":
        mib -= CONTEXT_MIB
    return round(float(mib) * MIB)


def _targets(workload: Workload) -> list[str] | None:
    """Return what is adapted, in fitcheck's names; empty for full fine-tuning, ``None`` where it has none."""
    if workload.method == "full":
        return []
    adapter = workload.adapter
    if adapter is None or adapter.kind != "lora" or adapter.modules_to_save or adapter.use_dora:
        return None
    if adapter.targets == (ALL_LINEAR,):
        return list(TARGETS)
    found = list(dict.fromkeys(name for target in adapter.targets for name in FUSED.get(target, (target,))))
    return found if set(found) <= set(TARGETS) else None


def _training(fitcheck: Any, workload: Workload, targets: list[str]) -> Any:
    quantization = workload.quantization
    if workload.optimizer not in OPTIMIZERS or (quantization and quantization.kind not in {"nf4", "int8"}):
        raise ValueError("fitcheck does not model it")
    rank = workload.adapter.rank if workload.adapter and workload.method == "lora" else None
    return fitcheck.TrainingConfig(
        precision=workload.autocast or workload.weights,
        quantization=quantization.kind if quantization else "none",
        double_quant=bool(quantization and quantization.kind == "nf4" and quantization.double_quant),
        optimizer=OPTIMIZERS[workload.optimizer],
        optimizer_dtype="bf16" if workload.trainable == "bf16" and rank is None else "fp32",
        batch_size=workload.micro_batch_size,
        seq_len=workload.sequence_tokens,
        lora_rank=rank,
        lora_targets=targets or list(TARGETS),
        grad_checkpoint=workload.checkpointing != "none",
        flash_attn=workload.attention != "eager",
    )


def _model(fitcheck: Any, workload: Workload) -> Any:
    model = workload.model
    return fitcheck.ModelConfig(
        name=model.model_type,
        num_params=model.num_parameters,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads or model.num_heads,
        intermediate_size=model.intermediate_size,
        vocab_size=model.vocab_size,
        head_dim=model.head_dim,
        tie_word_embeddings=bool(model.tie_word_embeddings),
    )


def _card(workload: Workload) -> str:
    name = (workload.device_name or "").lower()
    return next((key for part, key in CARDS if part in name), OTHER_CARD)
