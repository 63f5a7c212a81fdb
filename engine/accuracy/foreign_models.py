"""Models of litgpt, torchtitan and torchtune as shapes: every projection a matrix of its own."""

from collections.abc import Mapping
from dataclasses import replace

from ..specs.model import ModelSpec
from .row import Dims, NotScored, Row
from .shapes import CONTEXT_TOKENS, spec_of

PLAIN: Mapping[str, str] = {
    "phi-1": "phi", "phi-2": "phi", "stablelm": "gpt_neox", "pythia": "gpt_neox", "gpt-neox": "gpt_neox",
    "redpajama": "gpt_neox", "dolly": "gpt_neox", "falcon": "falcon",
}  # fmt: skip
"""Beginning of an architecture's name -> its type; an MLP of two layers."""
GATED: Mapping[str, str] = {
    "phi-3": "phi3", "gemma-2b": "gemma", "gemma-7b": "gemma", "mistral": "mistral", "llama": "llama",
    "codellama": "llama", "tinyllama": "llama", "yi": "llama", "qwen": "qwen2",
}  # fmt: skip
"""The same for gated MLPs."""


def type_of(name: str, dims: Dims) -> str:
    """Return the model type that transformers gives an architecture.

    Raises:
        NotScored: Nobody has looked up what it is.
    """
    table = GATED if dims.is_gated else PLAIN
    found = [start for start in table if name.startswith(start)]
    if not found:
        raise NotScored(f"what the trainer runs for {name or 'this model'} is not looked up")
    return table[max(found, key=len)]


def config_for(row: Row, *, ties: bool) -> dict[str, object]:
    """Return a configuration with the matrices of a row's model: Llama's, or Phi's where the MLP has two.

    Args:
        row: Says the widths.
        ties: The output layer is the embedding where the row says so; otherwise it never is.

    Raises:
        NotScored: The widths were not published.
    """
    dims = row.dims
    if dims is None:
        raise NotScored("the widths of the model were not published")
    kind, prefix = ("llama", "Llama") if dims.is_gated else ("phi", "Phi")
    config: dict[str, object] = {
        "model_type": kind,
        "architectures": [f"{prefix}ForCausalLM"],
        "hidden_size": dims.hidden_size,
        "intermediate_size": dims.intermediate_size,
        "num_hidden_layers": dims.num_layers,
        "num_attention_heads": dims.num_heads,
        "num_key_value_heads": dims.num_kv_heads,
        "vocab_size": dims.vocab_size,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": dims.is_tied and ties,
    }
    if dims.is_gated:
        config["head_dim"] = dims.head_dim
    return config


def spec_for(row: Row, *, ties: bool) -> ModelSpec:
    """Return the shape of a row's model, of the type that decides its operations."""
    dims = row.dims
    if dims is None:
        raise NotScored("the widths of the model were not published")
    spec = spec_of(config_for(row, ties=ties), row.id)
    return replace(spec, model_type=type_of(row.text("arch") or row.text("model"), dims))
