"""Counts a model that no closed form knows: transformers builds it without weights, in a process of its own.

Needs the training stack. Nothing that came with the model is run, and nothing is downloaded.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..models.parts import Block, Body, Piece, Sort, count
from ..specs.model import ModelSpec

TIME_LIMIT_SECONDS = 120.0
_LEFT_OUT = frozenset({"auto_map", "quantization_config", "model_type"})

SCRIPT = r"""
import json, sys, warnings
warnings.simplefilter("ignore")
import torch, transformers
from transformers.pytorch_utils import Conv1D

transformers.logging.set_verbosity_error()
given = json.load(sys.stdin)
config = transformers.AutoConfig.for_model(given["model_type"], **given["config"])
named = getattr(transformers, given["architecture"] or "", None)
is_model = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
with torch.device("meta"):
    model = named(config) if is_model else transformers.AutoModelForCausalLM.from_config(config)
head = model.get_output_embeddings()
stops = set(getattr(model, "_no_split_modules", None) or ())
units = {name: type(part).__name__ for name, part in model.named_modules() if type(part).__name__ in stops}
pieces = []
seen = set()
for name, module in model.named_modules():
    own = [(key, value) for key, value in module.named_parameters(recurse=False)]
    if not own:
        continue
    inside = [unit for unit in units if name == unit or name.startswith(unit + ".")]
    unit = min(inside, key=len) if inside else None
    is_linear = isinstance(module, (torch.nn.Linear, Conv1D))
    kind = "head" if module is head else "linear" if is_linear else type(module).__name__
    for key, value in own:
        shape = list(value.shape)
        if is_linear and key == "weight" and not isinstance(module, Conv1D):
            shape = shape[::-1]
        pieces.append([unit, units.get(unit), name, key, kind, shape, id(value) in seen])
        seen.add(id(value))
print("\n" + json.dumps(pieces))
"""
"""Prints one row per parameter tensor: unit, its class, module, key, kind, shape, seen before."""


def with_exact_count(spec: ModelSpec, config: Mapping[str, object]) -> ModelSpec:
    """Return the spec with its parameters counted by transformers itself.

    A model that transformers cannot build leaves the spec as it is, with the reason.

    Args:
        spec: What `spec_from_config` made of the configuration; it has refused what could run code.
        config: The contents of config.json.
    """
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return replace(
            spec, unknown_reason=f"{spec.unknown_reason}; counting it needs {' and '.join(missing)}"
        )
    given = {
        "model_type": spec.model_type,
        "architecture": spec.architecture,
        "config": {key: value for key, value in config.items() if key not in _LEFT_OUT},
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps(given),
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return replace(spec, unknown_reason=f"counting it took more than {TIME_LIMIT_SECONDS:.0f} s")
    except (OSError, TypeError, ValueError) as error:
        return replace(spec, unknown_reason=f"{spec.unknown_reason}; {error}")
    if done.returncode:
        return replace(spec, unknown_reason=f"transformers cannot build it: {_last_error(done.stderr)}")
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    heads = [row for row in rows if row[4] == "head" and row[3] == "weight"]
    return replace(
        spec,
        parameters=count(_body(rows)),
        tie_word_embeddings=bool(heads[0][6]) if heads else None,
        unknown_reason=None,
    )


def _last_error(text: str) -> str:
    """Return what was raised, on one line."""
    lines = text.strip().splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    shown = " ".join(lines[starts[-1] :] if starts else lines[-1:])
    return " ".join(shown.split())[:200] or "no message"


def _body(rows: list[list[Any]]) -> Body:
    """One block per unit, and one for the rest; layers of one shape become one block with a count."""
    units: dict[str | None, tuple[str | None, list[list[Any]]]] = {}
    for row in rows:
        units.setdefault(row[0], (row[1], []))[1].append(row)
    blocks: dict[tuple[str | None, tuple[Piece, ...]], int] = {}
    for unit, (name, inside) in units.items():
        key = (name, _pieces(unit, inside))
        blocks[key] = blocks.get(key, 0) + 1
    return Body(tuple(Block(pieces, number, name) for (name, pieces), number in blocks.items()))


def _pieces(unit: str | None, rows: list[list[Any]]) -> tuple[Piece, ...]:
    modules: dict[str, list[list[Any]]] = {}
    for row in rows:
        modules.setdefault(row[2], []).append(row)
    return tuple(piece for name, own in modules.items() for piece in _module(name, unit, own))


def _module(name: str, unit: str | None, rows: list[list[Any]]) -> list[Piece]:
    path = name.removeprefix(f"{unit}.") if unit else name
    kind = rows[0][4]
    weight = next((row for row in rows if row[3] == "weight" and len(row[5]) == 2), None)  # noqa: PLR2004 - in, out
    if kind in {"linear", "head"} and weight is not None:
        is_head = kind == "head"
        group = "embedding" if is_head and weight[6] else "lm_head" if is_head else _group(name, kind)
        has_bias = any(row[3] == "bias" for row in rows)
        place = "lm_head" if is_head else path
        return [Piece(place, group, tuple(weight[5]), Sort.LINEAR, has_bias, is_tied=bool(weight[6]))]
    return [
        Piece(f"{path}.{key}", _group(f"{name}.{key}", kind), tuple(shape) or (1,), _sort(name, shape))
        for _, _, _, key, _, shape, seen in rows
        if not seen
    ]


def _sort(name: str, shape: list[int]) -> Sort:
    return Sort.FUSED if len(shape) == 3 and "experts" in name else Sort.OTHER  # noqa: PLR2004 - experts, out, in


_GROUPS = (
    ("projector", ("projector", "merger", "connector")),
    ("vision_tower", ("vision", "visual", "image_encoder")),
    ("audio_tower", ("audio", "speech")),
    ("norms", ("norm", "ln_", "layernorm")),
    ("shared_experts", ("shared_expert", "shared_mlp")),
    ("experts", ("experts",)),
    ("router", ("router", "gate.weight")),
    ("linear_attention_ssm", ("mamba", "mixer", "linear_attn", "ssm", "conv1d")),
    ("attention", ("attn", "attention")),
    ("mlp", ("mlp", "feed_forward", "ffn", "fc1", "fc2", "dense")),
)
"""Group -> parts of names; the first that fits counts. The total does not depend on it."""


def _group(name: str, kind: str) -> str:
    if "Embedding" in kind:
        return "embedding"
    lower = name.lower()
    return next((group for group, parts in _GROUPS if any(part in lower for part in parts)), "other")
