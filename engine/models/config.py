"""config.json's contents -> ModelSpec: bounds on every number used, and no key that could run code."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import BadInput
from ..specs.model import ModelSpec
from .facts import Facts, shown
from .shape import with_shape

_TEXT_SECTIONS = ("text_config", "llm_config", "language_config")
"""Where models of several kinds of input keep the shape of their language model."""

_NAMES = {
    "num_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "vocab_size": ("vocab_size", "n_vocab"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
}
"""Field of ModelSpec -> keys that hold it, the most usual first."""

_HIGHEST = {
    "num_layers": 10_000,
    "hidden_size": 1_000_000,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""Far above any model there is, far below what would ask for petabytes."""

_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class TooLong:
    """Stands for a whole number with more digits than any count has."""

    num_digits: int

    def __repr__(self) -> str:
        return f"a number of {self.num_digits:,} digits"


def spec_from_config(
    config: Mapping[str, object], *, where: str, trust_remote_code: bool = False
) -> ModelSpec:
    """Return the shape of a model.

    Args:
        config: The contents of its config.json.
        where: What messages call it: the file's path.
        trust_remote_code: The user allows the code that comes with the model.

    Raises:
        BadInput: A key is missing, out of bounds, or could run code; the message names it.
    """
    _refuse_dangers(config, where, trust_remote_code=trust_remote_code)
    sections = [config, *(part for name in _TEXT_SECTIONS if isinstance(part := config.get(name), Mapping))]
    counts = {field: _count(sections, field, where) for field in _NAMES}
    spec = ModelSpec(
        model_type=_model_type(config, where),
        architecture=_architecture(config, where),
        num_layers=counts["num_layers"],
        hidden_size=counts["hidden_size"],
        vocab_size=counts["vocab_size"],
        max_position_embeddings=counts["max_position_embeddings"],
        published_packing=_published_packing(config),
    )
    return with_shape(spec, Facts(config, where))


def _published_packing(config: Mapping[str, object]) -> str | None:
    """Return how published weights are packed, as transformers calls it; of bitsandbytes with the bits."""
    packing = config.get("quantization_config")
    method = packing.get("quant_method") if isinstance(packing, Mapping) else None
    if not isinstance(packing, Mapping) or not isinstance(method, str) or len(method) > _MAX_TEXT:
        return None
    if method != "bitsandbytes":
        return method.lower() if method.isprintable() else None
    if packing.get("load_in_8bit") is True:
        return "bitsandbytes-8bit"
    is_float = str(packing.get("bnb_4bit_quant_storage")) in {"bfloat16", "float16", "float32"}
    return "bitsandbytes-4bit-float" if is_float else "bitsandbytes-4bit"


def _model_type(config: Mapping[str, object], where: str) -> str:
    value = config.get("model_type")
    if value is None:
        raise BadInput(f"{where}: model_type is missing: this is not the config.json of a transformers model")
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _MAX_TEXT:
        raise BadInput(f"{where}: model_type must be a name; got {shown(value)}")
    return value


def _architecture(config: Mapping[str, object], where: str) -> str | None:
    value = config.get("architectures")
    if value is None or value == []:
        return None
    first = value[0] if isinstance(value, list) else None
    if not isinstance(first, str) or not first.isprintable() or len(first) > _MAX_TEXT:
        raise BadInput(f"{where}: architectures must be a list of names; got {shown(value)}")
    return first


def _count(sections: list[Mapping[str, object]], field: str, where: str) -> int | None:
    """Every spelling that is there is checked; the first one counts."""
    found: list[int] = []
    for section in sections:
        for name in _NAMES[field]:
            value = section.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _HIGHEST[field]:
                allowed = f"a whole number from 1 to {_HIGHEST[field]:,}"
                raise BadInput(f"{where}: {name} must be {allowed}; got {shown(value)}")
            found.append(value)
    return found[0] if found else None


def _refuse_dangers(config: Mapping[str, object], where: str, *, trust_remote_code: bool) -> None:
    for path, value in _walk(config):
        name = path[-1]
        reason = _danger(path, value, trust_remote_code=trust_remote_code)
        if reason is None and isinstance(value, TooLong):
            reason = f"is {value!r}"
        if reason is None and isinstance(value, float) and math.isnan(value):
            reason = "is not a number (NaN)"
        if reason:
            dotted = ".".join(path) if len(path) <= 4 else f"...{name}"  # noqa: PLR2004 - a line's worth
            raise BadInput(f"{where}: {_key(dotted)} {reason}", hint=_hint(name))


def _danger(path: tuple[str, ...], value: object, *, trust_remote_code: bool) -> str | None:
    """Return why a key could make transformers run code that came with the model, or ``None``."""
    name = path[-1]
    if name == "auto_map" and not trust_remote_code:
        return "names Python code that comes with the model, which is off"
    if name == "trust_remote_code" and value is not False and not trust_remote_code:
        return "wants to switch on code that comes with the model, which only you may"
    # Many harmless files hold `_attn_implementation_autoset: true`: transformers 4.46 to 4.55 wrote it.
    if name.startswith("_attn_implementation") and not isinstance(value, bool):
        return "is internal to transformers and can make it load code; no model needs it in its file"
    is_module = "module" in name and isinstance(value, str)  # lists name layers, a text names an import
    if "quantization_config" in path and is_module:
        return "names a Python module to import"
    return None


def _hint(name: str) -> str | None:
    if name in {"auto_map", "trust_remote_code"}:
        return "if you have read that code and trust it: model.trust_remote_code: true"
    return "remove the key" if name.startswith("_attn_implementation") else None


def _walk(config: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield every key at any depth with its path and value, without recursion."""
    pending: list[tuple[tuple[str, ...], object]] = [((), config)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Mapping):
            children = [((*path, str(key)), inner) for key, inner in value.items()]
            yield from children
            pending += children
        elif isinstance(value, list):
            # An element stands under its list's key.
            yield from ((path, inner) for inner in value if isinstance(inner, float | TooLong))
            pending += [(path, inner) for inner in value if isinstance(inner, Mapping | list)]


def _key(name: str) -> str:
    return name if name.isprintable() else ascii(name)
