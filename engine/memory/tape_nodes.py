"""What a tape is made of inside: bytes with a count of their holders, operations, gradients that gather."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tape_sizes import Part


class Storage:
    """Bytes that one or more tensors share."""

    __slots__ = ("part", "refs")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.refs = 0


class Slot:
    """Where the gradient of a tensor gathers."""

    __slots__ = ("grad", "part")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.grad: Storage | None = None

    def take(self) -> Storage:
        """Return the gradient, which is nobody's from then on."""
        assert self.grad
        gradient, self.grad = self.grad, None
        return gradient


@dataclass(slots=True)
class Frame:
    """A part of the forward pass that is run again by the backward pass."""

    rerun: Callable[[], None]
    source: tuple[Storage, ...]
    num_kept: int = 0
    num_left: int = 0
    again: "list[Storage] | None" = None
    """What the second run kept."""


@dataclass(slots=True)
class Node:
    """An operation that waits for its backward pass."""

    outs: tuple[Slot, ...]
    inputs: tuple[tuple[Slot, bool], ...]
    """Where gradients go; whether the incoming gradient itself is passed on (a sum, a view)."""
    kept: Sequence[Storage]
    scratch: Sequence[Part]
    weight_gradients: Sequence[Part]
    frame: Frame | None = None
    first: int = 0
    last: int = 0
    """Of a frame: which of the tensors that its second run keeps are this operation's."""
    held: Sequence[Storage] = ()
    """What it holds although its frame is run again."""
