"""Which weights are trained, as train.yaml says it, and what of it contradicts. Pure."""

from collections.abc import Iterator, Mapping

from ..specs.job import Job
from ..specs.method import Method
from ..specs.optimizers import LOW_RANK

CONFIGS: Mapping[str, str] = {"lora": "LoraConfig", "oft": "OFTConfig"}
"""Kinds that add weights -> the class of peft."""
COMMENTS: Mapping[str, str] = {
    "lora": "small added matrices are trained (the arguments of peft.LoraConfig)",
    "oft": "small rotations of the weights are trained (the arguments of peft.OFTConfig)",
    "full": "every weight is trained",
    "freeze": "the last layers are trained, and modules that are named",
}
NOT_PEFTS = frozenset({"kind", "loraplus_lr_ratio"})
"""Keys of the section that peft's configuration does not take."""
READS: Mapping[str, frozenset[str]] = {
    "use_dora": frozenset({"lora"}),
    "use_rslora": frozenset({"lora"}),
    "init_lora_weights": frozenset({"lora"}),
    "loraplus_lr_ratio": frozenset({"lora"}),
    "oft_block_size": frozenset({"oft"}),
    "num_trainable_layers": frozenset({"freeze"}),
    "modules_to_save": frozenset({"lora", "oft", "freeze"}),
}
"""Keys of ``method`` -> kinds that read them."""
PLAIN_OPTIMIZERS = frozenset({"adamw_torch", "adamw_torch_fused", "sgd"})
"""Those that LoRA+ has been run with; peft 0.21.2 hands them its groups of weights."""
NOISY = frozenset({"sft"})

Contradiction = tuple[str, str, str]
"""Dotted key, what is wrong, what to do."""


def section(chosen: Method) -> dict[str, object]:
    """Return the section ``method`` of train.yaml: what differs from peft's own is written out."""
    saved: dict[str, object] = {}
    if chosen.modules_to_save:
        saved = {"modules_to_save": list(chosen.modules_to_save)}
    if chosen.kind == "full":
        return {"kind": "full"}
    if chosen.kind == "freeze":
        return {"kind": "freeze", "num_trainable_layers": chosen.num_trainable_layers, **saved}
    targets = chosen.target_modules
    targeted = {"target_modules": targets if isinstance(targets, str) else list(targets)}
    if chosen.kind == "oft":
        return {"kind": "oft", "r": 0, "oft_block_size": chosen.oft_block_size, **targeted, **saved}
    variants: dict[str, object] = {
        "use_dora": chosen.use_dora or None,
        "use_rslora": chosen.use_rslora or None,
        "init_lora_weights": None if chosen.init_lora_weights == "default" else chosen.init_lora_weights,
        "loraplus_lr_ratio": chosen.loraplus_lr_ratio,
    }
    return {
        "kind": "lora",
        "r": chosen.r,
        "lora_alpha": float(chosen.lora_alpha),
        "lora_dropout": chosen.lora_dropout,
        **targeted,
        **{name: value for name, value in variants.items() if value is not None},
        **saved,
    }


def contradictions(job: Job) -> Iterator[Contradiction]:
    """Yield what of method and optimizer does not go together."""
    yield from _unread(job.method)
    yield from _lora_variants(job)
    yield from _optimizer(job)
    if job.train.neftune_noise_alpha is not None and job.stage not in NOISY:
        text = f"stage {job.stage} learns without noise; it belongs to sft"
        yield ("train.neftune_noise_alpha", text, "take it out")


def _unread(chosen: Method) -> Iterator[Contradiction]:
    for name, kinds in READS.items():
        default = Method.model_fields[name].get_default()
        if getattr(chosen, name) != default and chosen.kind not in kinds:
            text = f"kind {chosen.kind} does not read it; it belongs to {', '.join(sorted(kinds))}"
            yield (f"method.{name}", text, "take it out, or change method.kind")


def _lora_variants(job: Job) -> Iterator[Contradiction]:
    chosen = job.method
    if chosen.starts_from_weights and job.plan.quantization in {"nf4", "int8"}:
        text = "PiSSA takes the weights apart, and packed ones cannot be"  # peft 0.21.2: TypeError
        yield ("method.init_lora_weights", text, "default, or plan.quantization: none")
    if chosen.starts_from_weights and chosen.use_dora:
        text = "PiSSA is turned to a plain LoRA when it is saved, and DoRA cannot be"  # peft 0.21.2
        yield ("method.init_lora_weights", text, "take one of init_lora_weights and use_dora out")
    if chosen.loraplus_lr_ratio is not None and job.train.optim not in PLAIN_OPTIMIZERS:
        text = f"LoRA+ gives the optimizer groups of its own, and is run with {_listed(PLAIN_OPTIMIZERS)}"
        yield ("train.optim", text, "take one of them, or take method.loraplus_lr_ratio out")


def _optimizer(job: Job) -> Iterator[Contradiction]:
    name = job.train.optim
    if name in LOW_RANK and job.method.adds_weights:
        text = f"{name} saves memory on whole matrices, and {job.method.kind} trains small ones already"
        yield ("train.optim", text, "adamw_torch_fused, or method.kind: full")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
