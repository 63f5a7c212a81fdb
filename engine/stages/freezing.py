"""Chooses which of a model's own weights are trained. Imports the training stack when it is called."""

from collections.abc import Iterable
from typing import Any

from ..errors import BadInput

_TOWERS = ("vision", "visual", "audio", "image")


def freeze(model: Any, num_layers: int, names: Iterable[str]) -> None:
    """Train the last layers and the modules of some names; nothing else.

    Args:
        model: As it was loaded.
        num_layers: How many of the last layers of the language part.
        names: Ends of names of further modules: ``lm_head``, ``model.norm``.

    Raises:
        BadInput: There are fewer layers, or no module of a name.
    """
    layers = _layers(model)
    if num_layers > len(layers):
        raise BadInput(
            f"method.num_trainable_layers: {num_layers} layers cannot be trained: the model has {len(layers)}"
        )
    chosen = [*layers[-num_layers:], *(module for name in names for module in _named(model, name))]
    model.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    for module in chosen:
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.dtype.is_floating_point)


def _layers(model: Any) -> list[Any]:
    from torch import nn

    number = model.config.get_text_config().num_hidden_layers
    found: list[nn.ModuleList] = [
        part
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == number and not _is_tower(name)
    ]
    if not found:
        raise BadInput("method.kind freeze: this model has no list of layers", hint="take lora or full")
    largest: nn.ModuleList = max(found, key=_num_elements)
    return list(largest)


def _num_elements(part: Any) -> int:
    return sum(one.numel() for one in part.parameters())


def _is_tower(name: str) -> bool:
    return any(word in name for word in _TOWERS)


def _named(model: Any, name: str) -> list[Any]:
    found = [module for path, module in model.named_modules() if f".{path}".endswith(f".{name}")]
    if not found:
        raise BadInput(
            f"method.modules_to_save: the model has no module {name!r}",
            hint="the end of a name as the model prints it: embed_tokens, norm, lm_head",
        )
    return found
