"""A published measurement as a question to the tiers: a workload, and which number to compare it with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..specs.adapter import ALL_LINEAR, Adapter
from ..specs.estimate import Estimate
from ..specs.workload import AttentionKind, Checkpointing, Quantization, Workload
from .row import NotScored, Row

Counter = Literal["allocated", "reserved", "process", "card"]
"""What was counted. ``card``: the longest sequence that a card holds was searched, so that tensors and the
driver's share fill it."""

COUNTERS: tuple[tuple[str, Counter], ...] = (
    ("process", "process"), ("nvidia-smi", "process"), ("nvml", "process"), ("reserved", "reserved"),
    ("alloc", "allocated"), ("active", "allocated"),
)  # fmt: skip
"""Word in a counter's name -> what it counts; of several, the one that stands first."""
MAX_TOKENS = 1 << 24
MAX_BATCH = 1 << 16
MAX_RANKS = 1 << 20
MAX_RANK = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a script did, and what was measured of it."""

    workload: Workload
    config: Mapping[str, object]
    """A config.json that transformers builds the model from."""
    counter: Counter
    measured_bytes: int
    missing: str | None = None
    """What nobody knows of the measurement, so that it is shown but not counted."""


def listed(text: str) -> tuple[str, ...]:
    """Return the sentences of a list whose items begin with a dash."""
    return tuple(" ".join(item.split()) for item in f"\n{text}".split("\n- ") if item.strip())


def predicted_bytes(estimate: Estimate, counter: Counter) -> int:
    """Return the number of an estimate that a counter shows."""
    if counter == "allocated":
        return estimate.allocated_bytes
    if counter == "reserved":
        return estimate.reserved_bytes
    if counter == "process":
        return estimate.process_bytes
    return estimate.allocated_bytes + estimate.phase_bytes(estimate.peak_phase, "driver")


def counter_of(row: Row) -> Counter:
    """Return what was counted, from the name that the row gives its counter.

    Raises:
        NotScored: The name says that it is no measurement of one device.
    """
    name = row.text("counter")
    for word, reason in (
        ("estimate", "an estimate, no measurement"),
        ("about", 'an "about" figure whose counter was not published'),
        ("bound", "a bound, no measurement"),
        ("activation memory only", "activations alone, and a bound"),
    ):
        if word in name:
            raise NotScored(reason)
    if row.text("kind") == "max_context":
        return "card"
    places = [(name.find(word), counter) for word, counter in COUNTERS if word in name]
    return min(places)[1] if places else "process"


def check_kind(row: Row) -> None:
    """Refuse what is no training step that was measured."""
    reasons = {
        "inference": "inference, not a training step",
        "estimate": "an estimate, no measurement",
        "op": "one operation, not a training step",
        "lower_bound": "a bound, no measurement",
        "upper_bound": "a bound, no measurement",
    }
    kind = row.text("kind")
    if kind in reasons:
        raise NotScored(reasons[kind])
    if kind not in {"train", "max_context"}:
        raise NotScored(f"kind {kind!r} is not known" if kind else "kind was not published")


def check_specified(row: Row) -> None:
    """Refuse a row whose own file says that conditions are missing, and say which."""
    if row.fields.get("fully_specified") is not False:
        return
    note = row.text("note")
    for word in ("inconsistent", "probably at model init"):
        if word in note:
            raise NotScored(f"its own note: {note}")
    missing = [name for name in ("seq_len", "micro_batch") if row.fields.get(name) is None]
    names = " and ".join(missing)
    raise NotScored(f"{names} not published" if missing else "not fully specified")


def sequence_tokens(row: Row) -> int:
    """Return the tokens of a sequence."""
    return row.count("seq_len", high=MAX_TOKENS)


def micro_batch(row: Row) -> int:
    """Return the sequences of a forward pass."""
    return row.count("micro_batch", high=MAX_BATCH)


def num_ranks(row: Row) -> int:
    """Return the devices of the whole run; one when the row does not say."""
    return row.count("n_gpus", high=MAX_RANKS, default=1)


def device_of(row: Row) -> str | None:
    """Return the card's name as the row writes it."""
    name = row.fields.get("gpu")
    return name if isinstance(name, str) and name else None


def checkpointing_of(row: Row) -> Checkpointing:
    """Return which layers keep only their input."""
    value = row.fields.get("grad_ckpt")
    if isinstance(value, bool):
        return "full" if value else "none"
    words: dict[str, Checkpointing] = {
        "selective-op": "selective-op", "every-2nd-layer": "every-2nd", "every-2nd": "every-2nd",
        "full": "full", "none": "none",
    }  # fmt: skip
    found = words.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise NotScored("grad_ckpt is not known")
    return found


def attention_of(row: Row, default: AttentionKind = "flash") -> AttentionKind:
    """Return the attention kernel. ``flash/sdpa`` of a source is what its script asks for."""
    name = row.text("attn")
    if "eager" in name:
        return "eager"
    if "flex" in name:
        return "flex"
    if "flash" in name or "fa2" in name:
        return default if "sdpa" in name else "flash"
    return "sdpa" if "sdpa" in name else default


def adapter_of(row: Row, names: Mapping[str, str], *, dropout: float = 0.0) -> Adapter:
    """Return the LoRA adapter of a row.

    Args:
        row: Says rank and targets.
        names: The source's word for a layer -> its name in the model that is built.
        dropout: Of the source's script.
    """
    targets = row.targets()
    if not targets:
        raise NotScored("lora_targets was not published")
    found: list[str] = []
    for target in targets:
        found += names.get(target, target).split()
    chosen = (ALL_LINEAR,) if ALL_LINEAR in found else tuple(dict.fromkeys(found))
    return Adapter(
        rank=row.count("lora_r", high=MAX_RANK),
        targets=chosen,
        use_dora=row.flag("use_dora") is True,
        dropout=dropout,
    )


def quantization_of(row: Row) -> Quantization | None:
    """Return how the frozen weights of a row are packed.

    Raises:
        NotScored: In a way that is not known.
    """
    name = row.text("quant")
    if not name or name == "none":
        return None
    if "nf4" in name:
        storage: Literal["bf16", "uint8"] = "bf16" if "bf16 storage" in name else "uint8"
        return Quantization(kind="nf4", double_quant="dq" in name or "double" in name, storage=storage)
    found = re.fullmatch(r"gptq-int([2-8])", name)
    if found:
        return Quantization(kind="gptq", bits=int(found[1]), block_size=128, double_quant=False)
    if name in {"int8", "llm.int8"}:
        return Quantization(kind="int8", bits=8, double_quant=False)
    raise NotScored(f"quant {name!r} is not known")


def optimizer_of(row: Row, default: str = "adamw_torch") -> str:
    """Return the optimizer by the name that Hugging Face gives it."""
    name = row.text("optimizer")
    words = {
        "": default, "adamw": default, "adamw_torch": "adamw_torch", "adamw(fused)": "adamw_torch_fused",
        "adamw_8bit": "adamw_8bit", "adamw_bnb_8bit": "adamw_bnb_8bit", "adam8bit": "adamw_bnb_8bit",
        "8bit": "adamw_bnb_8bit", "adamw8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit",
        "paged_adamw": "paged_adamw_32bit", "sgd": "sgd", "lion": "lion", "muon": "muon", "lora-fa": default,
        "adamw_torch_fused": "adamw_torch_fused", "fused": "adamw_torch_fused",
    }  # fmt: skip
    if name not in words:
        raise NotScored(f"optimizer {name!r} is not known")
    return words[name]


def method_word(row: Row) -> Literal["full", "lora"]:
    """Return whether everything or an adapter is trained.

    Raises:
        NotScored: Something that is not modelled is.
    """
    name = row.text("method")
    if name == "full":
        return "full"
    if name in {"lora", "qlora", "qlora_gptq", "lora_emb", "dora", "qdora"}:
        return "lora"
    if name == "peft:oft":
        return "lora"
    if name.startswith("peft:"):
        raise NotScored(f"{name.removeprefix('peft:')} is not modelled: ftwiz does not train it")
    raise NotScored(f"method {name!r} is not modelled" if name else "method was not published")
