"""What a configuration leaves out is what transformers takes for it: both build the same from nothing."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ftwiz.engine.models import defaults, model_types, spec_from_config

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch, transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as causal, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as seeing,
)

transformers.logging.set_verbosity_error()
counts = {"transformers": transformers.__version__}
for config in json.load(sys.stdin):
    name = config.pop("model_type")
    model = getattr(transformers, seeing.get(name) or causal.get(name, ""), None)
    try:
        with torch.device("meta"):
            built = model(transformers.AutoConfig.for_model(name, **config))
        counts[name] = sum(parameter.numel() for parameter in built.parameters())
    except Exception as error:
        counts[name] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(counts))
"""
SECTIONS = ("text_config", "vision_config", "audio_config")


def nearly_empty(model_type: str) -> dict[str, Any]:
    """A model with parts says that it has them, and nothing else."""
    parts = [name for name in SECTIONS if defaults.section(model_type, name, {})]
    return {"model_type": model_type, **{name: {} for name in parts}}


@pytest.mark.train
@pytest.mark.timeout(240)
def test_what_is_left_out_counts_as_transformers_counts_it() -> None:
    configs = [nearly_empty(name) for name in model_types()]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(configs),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=230,
        check=True,
    )
    built = json.loads(done.stdout.splitlines()[-1])
    assert built.pop("transformers") == json.loads(defaults.FILE.read_bytes())["transformers"]
    counted = {name: count for name, count in built.items() if isinstance(count, int)}
    assert len(counted) > 50
    wrong = {}
    for name, count in counted.items():
        spec = spec_from_config(nearly_empty(name), where=name)
        if spec.num_parameters not in {None, count}:
            wrong[name] = (spec.num_parameters, count)
    assert not wrong


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("google/gemma-3-4b-it", ("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")),
        ("Qwen/Qwen3.5-35B-A3B", ("num_experts", "head_dim", "linear_num_value_heads", "vocab_size")),
        ("llava-hf/llava-1.5-7b-hf", ("hidden_size", "num_hidden_layers", "intermediate_size")),
    ],
)
def test_released_files_that_leave_out_the_usual_are_counted(
    recorded: Any, name: str, left_out: tuple[str, ...]
) -> None:
    row = recorded.models[name]
    text = {key: value for key, value in row["config"]["text_config"].items() if key not in left_out}
    spec = spec_from_config(row["config"] | {"text_config": text}, where=name)
    assert spec.num_parameters == row["params_meta"]
    assert spec.vocab_size == row["vocab_size"]


def test_null_is_said_and_no_default() -> None:
    config = {"model_type": "mixtral", "num_key_value_heads": None, "num_attention_heads": 8}
    assert spec_from_config(config, where="x").num_kv_heads == 8
    assert spec_from_config({"model_type": "llama", "hidden_size": None}, where="x").unknown_reason == (
        "hidden_size is missing"
    )
