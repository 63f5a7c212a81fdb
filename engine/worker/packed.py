"""Frozen weights in 4 or 8 bits: how they are loaded, what keeps their adapters right, what is really packed.

bitsandbytes 0.50.2 does the packing while transformers 5.23 reads the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..errors import Refused
from ..specs.machine import CPU
from ..specs.plan import Packing, Strategy

LAYERS: Mapping[str, Packing] = {"Linear4bit": "nf4", "Linear8bitLt": "int8"}
"""Classes of bitsandbytes. peft's around them have the same names, and other modules."""


def check_installed(strategy: Strategy) -> None:
    """Fail before anything is loaded when weights cannot be packed here.

    Raises:
        Refused: bitsandbytes is not installed.
    """
    if strategy.quantization != "none" and find_spec("bitsandbytes") is None:
        raise Refused(
            f"plan.quantization {strategy.quantization} needs bitsandbytes, which this Python does not have",
            hint="pip install 'ftwiz[quant]', or set plan.quantization to none",
        )


def loading_arguments(model: Mapping[str, Any], strategy: Strategy) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told besides the format.

    FSDP moves layer after layer to the device and cuts it there. Packed in host memory first, no device ever
    holds the whole; transformers itself would put all of it onto each.
    """
    packing = model.get("quantization")
    if packing is None:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    arguments = {name: _torch_dtype(torch, value) for name, value in packing.items()}
    on_host = strategy.backend == "fsdp" and strategy.device_kind != CPU
    place = {"device_map": {"": CPU}} if on_host else {}
    return {"quantization_config": BitsAndBytesConfig(**arguments), **place}


def _torch_dtype(torch: Any, value: object) -> object:
    found = getattr(torch, value, None) if isinstance(value, str) else None
    return found if isinstance(found, torch.dtype) else value


def after_loading(model: Any, strategy: Strategy) -> None:
    """Have FSDP allowed to move what was packed in host memory, and packed weights left as they are.

    accelerate takes packed weights in another place than where they are trained for a mistake (1.15,
    accelerator.py, ``prepare_model``). On CPUs with AVX512-BF16 a layer that answers would pack its weights
    anew, with losses, and fail where they have fewer than 64 columns (bitsandbytes 0.50.2,
    ``Linear4bit.forward``): answers while training would spoil what is trained on.
    """
    if strategy.backend == "fsdp" and hasattr(model, "hf_device_map"):
        del model.hf_device_map
    for layer in _layers(model):
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def settle(trainer: Any, strategy: Strategy) -> None:
    """Keep adapters in the format that they are planned in, also when they come back from a checkpoint.

    trl 1.16 makes them bfloat16 on packed weights (sft_trainer.py), and peft 0.21 float32 when it reads them
    back: a resumed run would hold twice as much and learn otherwise (measured). With float16 they are
    float32: its gradients are scaled, and devices that compute in float16 are those without bfloat16.
    """
    if strategy.quantization == "none":
        return
    import torch

    trained = {name: one for name, one in trainer.model.named_parameters() if one.requires_grad}
    if strategy.mixed_precision == "fp16":
        for parameter in trained.values():
            parameter.data = parameter.data.to(torch.float32)
    formats = {name: parameter.dtype for name, parameter in trained.items()}
    read = trainer._load_from_checkpoint  # noqa: SLF001 - there is no other door

    def load(checkpoint: str, model: Any = None) -> None:
        read(checkpoint, model)
        for name, parameter in (model or trainer.model).named_parameters():
            if name in formats and parameter.dtype != formats[name]:
                parameter.data = parameter.data.to(formats[name])

    trainer._load_from_checkpoint = load  # noqa: SLF001 - see above


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What is packed of a model, in this rank."""

    packing: str | None
    """``nf4``, ``int8``; ``partly`` when some of the layers that should be packed are not."""
    num_weights: int
    """Of the whole model, as many as they are unpacked."""
    num_bytes: int
    """Of this rank's part of their bits, without scales."""


def find(model: Any, local_part: Any) -> Found:
    """Look at every layer that bitsandbytes has made.

    Args:
        model: The trainer's model, after the engine has taken it.
        local_part: Returns the tensor that this rank holds of a parameter.
    """
    layers = _layers(model)
    if not layers:
        return Found(packing=None, num_weights=0, num_bytes=0)
    kinds = {LAYERS[type(layer).__name__] if _is_packed(layer, local_part) else "none" for layer in layers}
    held = [local_part(layer.weight) for layer in layers]
    return Found(
        packing=kinds.pop() if len(kinds) == 1 else "partly",
        num_weights=sum(layer.in_features * layer.out_features for layer in layers),
        num_bytes=sum(part.numel() * part.element_size() for part in held),
    )


def _layers(model: Any) -> list[Any]:
    return [
        module
        for module in model.modules()
        if type(module).__module__.startswith("bitsandbytes.") and type(module).__name__ in LAYERS
    ]


def _is_packed(layer: Any, local_part: Any) -> bool:
    if type(layer).__name__ == "Linear4bit":
        state = layer.quant_state
        return state is not None and state.quant_type == "nf4"
    return str(local_part(layer.weight).dtype) == "torch.int8"
