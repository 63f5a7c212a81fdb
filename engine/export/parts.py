"""Puts together on the CPU what an engine wrote as a part for each rank. Imports the training stack."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import BadInput, Refused
from .source import FSDP_SHARDS, Form

_OUTER = "model."
"""What accelerate 1.15 puts before every name in the parts (utils/fsdp_utils.py, ``save_fsdp_model``)."""


def read(form: Form, folder: Path) -> dict[str, Any]:
    """Return every weight that was saved, whole, by the name that the model knows it by.

    Raises:
        Refused: The library that wrote the parts is missing.
    """
    return _read_zero(folder) if form is Form.ZERO else _read_fsdp(folder / FSDP_SHARDS)


def model_of(weights: Mapping[str, Any], model: Mapping[str, Any], where: str, *, gives_rewards: bool) -> Any:
    """Return a model with these weights, shaped as its base is.

    Args:
        weights: All of them, by name.
        model: The section ``model`` of train.yaml, with the format that is wanted.
        where: Folder or hub id of the base.
        gives_rewards: It has a head with one output.

    Raises:
        BadInput: These are not the weights of that model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    trusted = {"trust_remote_code": model["trust_remote_code"]}
    more = {"num_labels": 1} if gives_rewards else {}
    config = AutoConfig.from_pretrained(where, revision=model["revision"], **trusted, **more)
    kind = AutoModelForSequenceClassification if gives_rewards else AutoModelForCausalLM
    built = kind.from_config(config, dtype=getattr(torch, model["dtype"]), **trusted)
    known = {name: one.shape for name, one in built.state_dict().items()}
    for name, one in weights.items():
        if name not in known or known[name] != one.shape:
            raise BadInput(
                f"{name}: is no weight of {where}", hint="the base has changed since it was trained"
            )
    missing = built.load_state_dict(weights, strict=False).missing_keys
    built.tie_weights()
    tied = set(built.all_tied_weights_keys)
    if untied := [name for name in missing if name not in tied]:
        raise BadInput(f"{untied[0]}: is missing from the checkpoint", hint="export another checkpoint")
    return built


def _read_zero(folder: Path) -> dict[str, Any]:
    if find_spec("deepspeed") is None:
        raise Refused(
            "putting together ZeRO's parts needs deepspeed, which this Python does not have",
            hint="pip install 'ftwiz[deepspeed]', or leave out --dtype fp32 when the checkpoint has a model",
        )
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    found: dict[str, Any] = get_fp32_state_dict_from_zero_checkpoint(str(folder))
    return found


def _read_fsdp(folder: Path) -> dict[str, Any]:
    import torch
    from torch.distributed import checkpoint

    about = checkpoint.FileSystemReader(folder).read_metadata().state_dict_metadata
    weights = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in about.items()}
    checkpoint.load(weights, checkpoint_id=folder, no_dist=True)
    return {name.removeprefix(_OUTER): one for name, one in weights.items()}
