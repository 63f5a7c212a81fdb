"""The model of the embedded demo: a tiny Llama and a letter tokenizer, built from a seed on first use.

Nothing is downloaded. It knows nothing at first: every weight is random. Rotary base 30 instead of the usual
10,000 suits its short sequences, where neighbouring letters are all that matters.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from ..checkpoints import verify, write_manifest

NAME = "ftwiz:demo"
SEED = 0
SPECIAL = ["<|pad|>", "<|end|>", "<|unknown|>", "<|system|>", "<|user|>", "<|assistant|>"]
LETTERS = ["\n", *map(chr, range(ord(" "), ord("~") + 1))]
"""Printable ASCII: what the untrained model babbles can be read, and shown on any terminal."""
MAX_TOKENS = 256
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": MAX_TOKENS,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 30.0},
}

_RECIPE = repr((SEED, SPECIAL, LETTERS, CHAT_TEMPLATE, SHAPE)).encode()
VERSION = f"demo-{xxhash.xxh3_64_hexdigest(_RECIPE)[:8]}"
"""Name of the folder: another recipe is another model, so an old one is never taken for the new."""


def folder(narrate: Callable[[str], None]) -> Path:
    """Return the folder of the demo model; builds it when it is missing or damaged.

    Several processes may ask at once: each builds beside, one rename wins, all get the same bytes.
    """
    path = _cache() / VERSION
    if verify(path) is None:
        return path
    narrate("building the demo model from its seed")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{VERSION}-"))
    try:
        _build(building)
        assert {"config.json", "model.safetensors"} <= {file.name for file in building.iterdir()}
        write_manifest(building)
        _put(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return path


def _cache() -> Path:
    if home := os.environ.get("FTWIZ_HOME"):
        return Path(home).resolve() / "models"
    import platformdirs

    return Path(platformdirs.user_cache_dir("ftwiz")) / "models"


def _put(building: Path, path: Path) -> None:
    try:
        building.rename(path)
    except OSError:  # something is there already
        if verify(path) is None:
            return  # another process was faster
        shutil.rmtree(path, ignore_errors=True)
        building.rename(path)


def _build(path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    tokenizer.save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **SHAPE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        LlamaForCausalLM(config).save_pretrained(path)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    # Letters as tokens: the model must see them to turn words around. A BPE without merges leaves them alone.
    vocabulary = {token: number for number, token in enumerate(SPECIAL + LETTERS)}
    tokens = Tokenizer(models.BPE(vocabulary, [], unk_token=SPECIAL[2]))
    tokens.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        unk_token=SPECIAL[2],
        additional_special_tokens=SPECIAL[3:],
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
