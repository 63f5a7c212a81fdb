"""Optimizers: torch's own where it has one, and stand-ins with the real bytes of state for others.

Names are those of transformers' ``optim`` (training_args.py, OptimizerNames).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput

_SMALL = 4096
"""bitsandbytes 0.50.2 keeps fp32 state below this (optim/optimizer.py: min_8bit_size)."""
_PAGED_FROM = 100_000
"""Smallest tensor whose state bitsandbytes pages (optim/optimizer.py: get_state_buffer)."""
_BLOCK = 256
"""Values that share a scale in 8-bit state (optim/optimizer.py; torchao optim, block_size)."""
_BLOCK_4BIT = 128
"""torchao OptimState4bit: block_size."""
_ADDS_IN_PLACE_SINCE = (2, 1)
"""First torch whose foreach Adam adds epsilon in place."""
State = Callable[[nn.Parameter], list[Tensor]]


class StandIn(torch.optim.Optimizer):  # type: ignore[misc]
    """Makes its state at the first step and changes nothing."""

    def __init__(self, parameters: Iterable[nn.Parameter], state: State) -> None:
        super().__init__(parameters, {"lr": 1e-4})
        self._make = state

    def step(self, closure: Any = None) -> None:
        """Make what is missing."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter]["tensors"] = self._make(parameter)


def make(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that transformers would build for a name.

    Raises:
        BadInput: The name is unknown.
    """
    if name in _TORCH:
        kind, arguments = _TORCH[name]
        made: torch.optim.Optimizer = kind(parameters, lr=1e-4, **arguments)
        return made
    if name == "adafactor":
        from transformers.optimization import Adafactor

        factored: torch.optim.Optimizer = Adafactor(
            parameters, scale_parameter=False, relative_step=False, lr=1e-4
        )
        return factored
    paged = name.startswith("paged_")
    plain = name.removeprefix("paged_")
    if plain in _STATES:
        return StandIn(parameters, _paged(_STATES[plain]) if paged else _STATES[plain])
    known = sorted([*_TORCH, *_STATES, "adafactor"])
    raise BadInput(
        f"the exact estimate does not know the optimizer {name!r}", hint="known: " + ", ".join(known)
    )


@contextmanager
def as_of(torch_version: str | None) -> Iterator[None]:
    """Let foreach Adam make as many copies as that torch did: before 2.1 it added epsilon out of place.

    Source: pytorch/pytorch#104898, torch/optim/adamw.py, _multi_tensor_adamw.
    """
    if torch_version is None or _release(torch_version) >= _ADDS_IN_PLACE_SINCE:
        yield
        return
    real, held = torch._foreach_add_, list[Any]([None])

    def add(tensors: list[Tensor], other: Any, **rest: Any) -> None:
        if isinstance(other, float):
            held[0] = torch._foreach_add(tensors, other)  # noqa: SLF001 - lives until the next group's is made
        else:
            real(tensors, other, **rest)

    torch._foreach_add_ = add
    try:
        yield
    finally:
        torch._foreach_add_ = real


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else _ADDS_IN_PLACE_SINCE


_TORCH: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw_torch": (torch.optim.AdamW, {"foreach": True}),  # torch's choice on a GPU
    "adamw_torch_fused": (torch.optim.AdamW, {"fused": True}),
    "adamw_torch_foreach": (torch.optim.AdamW, {"foreach": True}),
    "adamw_torch_loop": (torch.optim.AdamW, {"foreach": False}),
    "sgd": (torch.optim.SGD, {"foreach": True}),
    "sgd_momentum": (torch.optim.SGD, {"foreach": True, "momentum": 0.9}),
    "rmsprop": (torch.optim.RMSprop, {"foreach": True}),
    "adagrad": (torch.optim.Adagrad, {"foreach": True}),
}


def _moments(count: int, dtype: torch.dtype | None = None) -> State:
    return lambda p: [torch.zeros_like(p, dtype=dtype) for _ in range(count)]


def _packed(count: int, block: int = _BLOCK, per_byte: int = 1) -> State:
    def state(parameter: nn.Parameter) -> list[Tensor]:
        size, device = parameter.numel(), parameter.device
        if size < _SMALL:
            return _moments(count, torch.float32)(parameter)
        sizes = -(-size // per_byte), -(-size // block)
        return [
            torch.zeros(number, dtype=dtype, device=device)
            for _ in range(count)
            for number, dtype in zip(sizes, (torch.uint8, torch.float32), strict=True)
        ]

    return state


def _paged(state: State) -> State:
    """State of large tensors lies in managed memory, which torch's allocator does not count."""
    return lambda p: [torch.empty(0)] if p.numel() >= _PAGED_FROM else state(p)


_STATES: dict[str, State] = {
    "adamw_bnb_8bit": _packed(2),
    "adamw_8bit": _packed(2),
    "adamw_32bit": _moments(2, torch.float32),
    "adamw_torch_8bit": _packed(2),
    "adamw_torch_4bit": _packed(2, _BLOCK_4BIT, 2),
    "ademamix": _moments(3, torch.float32),
    "ademamix_8bit": _packed(3),
    "lion": _moments(1, torch.float32),
    "lion_32bit": _moments(1, torch.float32),
    "lion_8bit": _packed(1),
    "rmsprop_bnb": _moments(1, torch.float32),
    "rmsprop_bnb_8bit": _packed(1),
}
