"""From the widths of a published model to its configuration and shape.

The catalogue's configuration is taken when its widths are those of the row; a model that nobody can build any
more is one of the same matrices that transformers builds.
"""

from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import cache
from typing import Literal

from ..errors import FtwizError
from ..models import catalogue, spec_from_config
from ..specs.model import ModelSpec
from .row import Dims, NotScored, Row

CONTEXT_TOKENS = 32768
"""Of models made from widths: it sizes no tensor of a training step."""
Layout = Literal["separate", "fused"]
"""Whether query, key and value are three linear layers or one."""


@cache
def known_config(name: str, dims: Dims) -> Mapping[str, object] | None:
    """Return the catalogue's configuration of these widths whose name is most like ``name``."""
    wanted = _widths(dims)
    found = [model for model in catalogue.models() if _config_widths(model.id) == wanted]
    if not found:
        return None
    best = max(found, key=lambda model: max(_likeness(name, other) for other in (model.id, *model.aliases)))
    return best.config


def config_of(row: Row, layout: Layout = "separate") -> dict[str, object]:
    """Return a configuration that transformers builds the model of a row from.

    Raises:
        NotScored: The row does not say the widths of its model.
    """
    dims = row.dims
    if dims is None:
        raise NotScored("the widths of the model were not published")
    known = known_config(row.text("arch") or row.text("model"), dims)
    if known is not None and layout == "separate":
        return dict(known)
    if not dims.is_gated:
        raise NotScored("a model without a gated MLP that the catalogue does not know")
    return _llama_like(dims, layout)


def spec_of(config: Mapping[str, object], where: str) -> ModelSpec:
    """Return the shape of a configuration.

    Raises:
        NotScored: Its parameters cannot be counted.
    """
    try:
        spec = spec_from_config(config, where=where)
    except FtwizError as error:
        raise NotScored(f"the model's shape: {error.message}") from None
    if spec.parameters is None:
        raise NotScored(f"the model's parameters are not known: {spec.unknown_reason}")
    return spec


def _llama_like(dims: Dims, layout: Layout) -> dict[str, object]:
    """A model of root mean square norms, rotary positions and a gated MLP.

    ``fused`` is built as Phi-3, the one such model of transformers whose query, key and value are one matrix.
    """
    kinds = {
        "fused": ("phi3", "Phi3"),
        "separate": ("qwen2", "Qwen2") if dims.has_qkv_bias else ("llama", "Llama"),
    }
    model_type, prefix = kinds[layout]
    if layout == "fused" and dims.head_dim * dims.num_heads != dims.hidden_size:
        raise NotScored("heads wider than the model, in a fused layer")
    config: dict[str, object] = {
        "model_type": model_type,
        "architectures": [f"{prefix}ForCausalLM"],
        "hidden_size": dims.hidden_size,
        "intermediate_size": dims.intermediate_size,
        "num_hidden_layers": dims.num_layers,
        "num_attention_heads": dims.num_heads,
        "num_key_value_heads": dims.num_kv_heads,
        "vocab_size": dims.vocab_size,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": dims.is_tied,
    }
    if model_type == "llama":
        config["head_dim"] = dims.head_dim
    if model_type == "phi3":
        config |= {"original_max_position_embeddings": CONTEXT_TOKENS, "pad_token_id": 0}
    return config


def _widths(dims: Dims) -> tuple[object, ...]:
    return (dims.hidden_size, dims.num_layers, dims.intermediate_size, dims.num_heads, dims.num_kv_heads,
            dims.head_dim, dims.vocab_size, dims.is_tied)  # fmt: skip


@cache
def _config_widths(name: str) -> tuple[object, ...] | None:
    model = catalogue.find(name)
    assert model is not None
    try:
        spec = catalogue.spec(model)
    except FtwizError:
        return None
    if spec.experts or spec.vision:
        return None
    return (spec.hidden_size, spec.num_layers, spec.intermediate_size, spec.num_heads, spec.num_kv_heads,
            spec.head_dim, spec.vocab_size, bool(spec.tie_word_embeddings))  # fmt: skip


def _likeness(first: str, second: str) -> float:
    return SequenceMatcher(None, _plain(first), _plain(second)).ratio()


def _plain(name: str) -> str:
    return name.rpartition("/")[2].lower().replace("-", "").replace("_", "")
