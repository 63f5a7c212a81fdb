"""Builds the model of a workload without weights: real transformers, real peft, first on the meta device."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import BadInput, Refused
from ..specs.workload import DType, Workload
from . import attention, quantized

DTYPES: dict[DType, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
_NOT_OF_THE_MODEL = frozenset({"auto_map", "quantization_config", "dtype", "torch_dtype"})
"""Keys of config.json that name code or files of others, or that the workload decides."""


def on_meta(workload: Workload, config: Mapping[str, Any]) -> Any:
    """Return the whole model on the meta device.

    Args:
        workload: Decides number format and attention.
        config: The contents of config.json.

    Raises:
        Refused: transformers cannot build it.
    """
    from transformers import AutoConfig

    given = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}
    model_type = given.pop("model_type", None)
    if not isinstance(model_type, str):
        raise BadInput("config.json: model_type is missing", hint="give the folder of a transformers model")
    name = attention.register(workload.attention)
    arguments = {"dtype": DTYPES[workload.weights], "attn_implementation": name}
    try:
        made = AutoConfig.for_model(model_type, **given)
        made.use_cache = False
        with torch.device("meta"):
            return _kind(workload, made).from_config(made, **arguments)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Refused(
            f"transformers cannot build this model for a trace: {text}",
            hint="use the estimate without --exact",
        ) from error


def _kind(workload: Workload, config: Any) -> Any:
    """The class that trl's trainer of the stage loads."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForSequenceClassification,
    )

    if workload.stage == "rm":
        config.num_labels, config.pad_token_id = 1, 0
        return AutoModelForSequenceClassification
    kinds = AutoModelForCausalLM, AutoModelForImageTextToText
    return next((kind for kind in kinds if type(config) in kind._model_mapping), kinds[0])  # noqa: SLF001 - the only way to ask


def prepare(model: Any, workload: Workload) -> Any:
    """Quantize, freeze and adapt a model on the meta device, as the worker and trl do.

    Returns:
        The model, wrapped by peft when adapters are trained.
    """
    if workload.quantization is not None:
        compute = DTYPES[workload.autocast or workload.weights]
        quantized.quantize(model, workload.quantization, compute)
    if workload.method == "lora":
        return _adapt(model, workload)
    if workload.method == "freeze":
        _freeze_all_but_last(model, workload.num_trainable_layers or 1)
    return model


def frozen_copy(model: Any) -> Any:
    """Return another model of the same shape on meta, without gradients."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.requires_grad = False
    return copied


def as_fake(model: Any, workload: Workload) -> None:
    """Give every parameter and buffer a fake storage in its final number format; ties are kept.

    Runs inside a fake tensor mode.
    """
    made: dict[int, Any] = {}
    for place, module in model.named_modules():
        for name, parameter in list(module._parameters.items()):  # noqa: SLF001 - replaced in place
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = _fake_parameter(parameter, f"{place}.{name}", workload)
                module._parameters[name] = made[id(parameter)]  # noqa: SLF001
        for name, buffer in list(module._buffers.items()):  # noqa: SLF001
            if buffer is not None:
                if id(buffer) not in made:
                    made[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
                module._buffers[name] = made[id(buffer)]  # noqa: SLF001


def _fake_parameter(parameter: nn.Parameter, name: str, workload: Workload) -> nn.Parameter:
    dtype = parameter.dtype
    if parameter.requires_grad and not _keeps_format(name, workload):
        # trl 1.16 leaves DoRA's magnitudes as they are; DeepSpeed gives the whole module one format.
        is_kept = "magnitude" in name and workload.sharding.backend != "zero"
        dtype = torch.float32 if is_kept else DTYPES[workload.trainable]
    elif workload.upcast_frozen and dtype in (torch.bfloat16, torch.float16):
        dtype = torch.float32
    empty = torch.empty(parameter.shape, dtype=dtype, device="cpu")
    return nn.Parameter(empty, requires_grad=parameter.requires_grad)


def _keeps_format(name: str, workload: Workload) -> bool:
    """Say whether it is a copy of a saved module: peft casts its own layers' weights alone."""
    return ".modules_to_save." in name and workload.sharding.backend != "fsdp"


def _adapt(model: Any, workload: Workload) -> Any:
    import peft

    adapter = workload.adapter
    if adapter is None:
        raise BadInput("method lora needs an adapter")
    targets: Any = "all-linear" if adapter.targets == ("all-linear",) else list(adapter.targets)
    task = "SEQ_CLS" if workload.stage == "rm" else "CAUSAL_LM"
    common: dict[str, Any] = {"task_type": task, "target_modules": targets}
    if adapter.modules_to_save:
        common["modules_to_save"] = list(adapter.modules_to_save)
    if adapter.kind == "oft":
        chosen = peft.OFTConfig(r=0, oft_block_size=adapter.oft_block_size, **common)
    else:
        if adapter.target_parameters:
            common["target_parameters"] = list(adapter.target_parameters)
        chosen = peft.LoraConfig(
            r=adapter.rank, lora_dropout=adapter.dropout, use_dora=adapter.use_dora, **common
        )
    try:
        with torch.device("meta"):
            return peft.get_peft_model(model, chosen, autocast_adapter_dtype=False, low_cpu_mem_usage=True)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise Refused(f"peft cannot adapt this model: {text}", hint="name other target modules") from error


def _freeze_all_but_last(model: Any, num_layers: int) -> None:
    from .layers import blocks

    for parameter in model.parameters():
        parameter.requires_grad = False
    for block in list(blocks(model))[-num_layers:]:
        for parameter in block.parameters():
            parameter.requires_grad_(parameter.dtype.is_floating_point)
