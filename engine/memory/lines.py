"""Builds terms whose formula a calculator can check: products of real numbers, and what is left. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..specs.estimate import PHASES, Group, PhaseName, Place, Term

ALLOCATOR_ROUNDING_BYTES = 512
"""Sizes on a device are rounded up to this (torch 2.13.0, CUDACachingAllocator, ``kMinBlockSize``)."""
HELD: tuple[PhaseName, ...] = tuple(phase for phase in PHASES if phase != "load")
"""From the first step on."""


def rounded(num_bytes: int) -> int:
    """Return what the allocator takes for a tensor of these bytes."""
    return -(-num_bytes // ALLOCATOR_ROUNDING_BYTES) * ALLOCATOR_ROUNDING_BYTES


@dataclass(frozen=True, slots=True)
class Product:
    """``number x size B / shards``."""

    number: int
    size: float
    """Bytes of one."""
    shards: int = 1

    @property
    def value(self) -> int:
        """Bytes, rounded down."""
        size = self.size
        whole = int(size)
        return (self.number * whole if whole == size else int(self.number * size)) // self.shards

    @property
    def text(self) -> str:
        """As a person would type it."""
        size = f"{int(self.size):,}" if self.size == int(self.size) else f"{self.size:.12g}"
        text = f"{self.number:,} x {size} B"
        return text if self.shards == 1 else f"{text} / {self.shards:,}"


def sum_text(products: Iterable[Product], num_bytes: int) -> str:
    """Return the formula of a sum; what rounding adds is its last summand."""
    kept = [product for product in products if product.number]
    rest = num_bytes - sum(product.value for product in kept)
    parts = [product.text for product in kept]
    if rest or not parts:
        parts.append(f"{rest:,} B")
    return " + ".join(parts)


def term(
    name: str,
    group: Group,
    products: Iterable[Product],
    phases: tuple[PhaseName, ...],
    *,
    source: str,
    num_bytes: int | None = None,
    place: Place = "device",
) -> tuple[Term, ...]:
    """Return one line, or none when it holds nothing.

    Args:
        name: Few plain words.
        group: What it is for.
        products: What it is the sum of.
        phases: When it is held.
        source: Where the formula comes from.
        num_bytes: The exact sum, with rounding; at least that of the products.
        place: Where it is.
    """
    listed = tuple(products)
    total = sum(product.value for product in listed) if num_bytes is None else num_bytes
    if total <= 0 or not phases:
        return ()
    formula = sum_text(listed, total)
    return (
        Term(
            name=name,
            group=group,
            num_bytes=total,
            phases=phases,
            formula=formula,
            source=source,
            place=place,
        ),
    )
