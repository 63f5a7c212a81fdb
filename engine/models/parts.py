"""What models are made of: pieces, blocks of pieces, and the sums over them."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Protocol, TypeVar

from ..specs.model import (
    NOT_LANGUAGE,
    ExpertsShape,
    FsdpUnit,
    FusedParameter,
    LinearShape,
    OtherModule,
    ParameterCount,
    ParameterGroups,
)
from .facts import Facts

Kind = TypeVar("Kind", bound=Hashable)


class Sort(Enum):
    """What a piece is to those who load, shard and adapt it."""

    LINEAR = "linear"
    FUSED = "fused experts"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Piece:
    """One module's parameters."""

    path: str
    group: str
    shape: tuple[int, ...]
    """Of a linear layer (in, out)."""
    sort: Sort = Sort.OTHER
    bias: bool = False
    is_tied: bool = False
    """Its weights are another piece's."""

    @property
    def num_parameters(self) -> int:
        """Own parameters."""
        own = 0 if self.is_tied else prod(self.shape)
        return own + (self.shape[-1] if self.bias else 0)


@dataclass(frozen=True, slots=True)
class Block:
    """Pieces that stand together, as often as the model repeats them."""

    pieces: tuple[Piece, ...]
    count: int = 1
    unit: str | None = None
    """Class of an FSDP unit; ``None`` for what belongs to the root."""
    inner: tuple[str, str] | None = None
    """A unit inside the unit: its class, and the path that its pieces start with."""

    @property
    def num_parameters(self) -> int:
        """Of one block."""
        return sum(piece.num_parameters for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Body:
    """All blocks of a model."""

    blocks: tuple[Block, ...]
    experts: ExpertsShape | None = None

    def __add__(self, other: "Body") -> "Body":
        return Body(self.blocks + other.blocks, self.experts or other.experts)


class Family(Protocol):
    """One file of this room."""

    MODEL_TYPES: frozenset[str]
    """Values of ``model_type`` that it knows."""

    def body(self, facts: Facts) -> Body:
        """Return the blocks of a model.

        Raises:
            Unknown: The configuration leaves open, or asks for, what the closed form cannot know.
            BadInput: A number is out of bounds.
        """


def linear(path: str, num_in: int, num_out: int, group: str, *, bias: bool = False) -> Piece:
    """Return a linear layer."""
    return Piece(path, group, (num_in, num_out), Sort.LINEAR, bias)


def fused(path: str, *shape: int) -> Piece:
    """Return a tensor that holds a weight of every expert."""
    return Piece(path, "experts", shape, Sort.FUSED)


def other(path: str, group: str, *shape: int) -> Piece:
    """Return parameters that nothing treats specially."""
    return Piece(path, group, shape)


def norm(path: str, width: int, *, bias: bool = False) -> Piece:
    """Return a normalisation."""
    return Piece(path, "norms", (width,), bias=bias)


def layers(
    unit: str,
    kinds: Iterable[Kind],
    make: Callable[[Kind], tuple[Piece, ...]],
    *,
    inner: tuple[str, str] | None = None,
) -> tuple[Block, ...]:
    """Return the blocks of a stack of layers: each kind is made once and counted."""
    return tuple(Block(make(kind), count, unit, inner) for kind, count in Counter(kinds).items())


def count(body: Body) -> ParameterCount:
    """Return the sums over a model."""
    groups: Counter[str] = Counter()
    sorts: dict[Sort, Counter[Piece]] = {sort: Counter() for sort in Sort}
    for block in body.blocks:
        for piece in block.pieces:
            groups[piece.group] += piece.num_parameters * block.count
            sorts[piece.sort][piece] += block.count
    totals = ParameterGroups(**groups)
    return ParameterCount(
        groups=totals,
        num_active=_active(totals, body.experts),
        linears=tuple(_linear_shape(piece, number) for piece, number in sorts[Sort.LINEAR].items()),
        fused=tuple(
            FusedParameter(path=piece.path, shape=piece.shape, count=number)
            for piece, number in sorts[Sort.FUSED].items()
        ),
        others=tuple(
            OtherModule(path=piece.path, shape=piece.shape, bias=piece.bias, count=number, group=piece.group)
            for piece, number in sorts[Sort.OTHER].items()
        ),
        units=_units(body.blocks),
    )


def _active(groups: ParameterGroups, experts: ExpertsShape | None) -> int:
    if experts is None or not experts.num_experts:
        return groups.num_language
    used = groups.experts * experts.num_experts_per_token // experts.num_experts
    return groups.num_language - groups.experts + used


def _linear_shape(piece: Piece, number: int) -> LinearShape:
    num_in, num_out = piece.shape
    return LinearShape(
        path=piece.path, num_in=num_in, num_out=num_out, bias=piece.bias, count=number, group=piece.group
    )


def _units(blocks: tuple[Block, ...]) -> tuple[FsdpUnit, ...]:
    found: Counter[tuple[str, int, bool]] = Counter()
    for block in blocks:
        if block.unit:
            found[block.unit, block.num_parameters, False] += block.count
        if block.inner:
            name, start = block.inner
            inside = sum(piece.num_parameters for piece in block.pieces if piece.path.startswith(start))
            found[name, inside, True] += block.count
    return tuple(
        FsdpUnit(block_class=name, num_parameters=size, count=number, is_nested=is_nested)
        for (name, size, is_nested), number in found.items()
    )


def is_language(piece: Piece | LinearShape) -> bool:
    """Say whether it belongs to the language part."""
    return piece.group not in NOT_LANGUAGE
