"""Sizes of what a tape holds: sums that are written down once and evaluated for any batch."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Per = Literal["token", "pair", "fixed"]
"""What a width is counted for: each token, each token and position of its sequence, or once."""
AXES: dict[Per, int] = {"token": 0, "pair": 1, "fixed": 2}
"""Part of a Size that holds it."""


class Size(NamedTuple):
    """Bytes per token, per token and position of its sequence, and fixed."""

    token: int = 0
    pair: int = 0
    fixed: int = 0

    def at(self, tokens: int, sequence: int) -> int:
        """Return the bytes of so many tokens in sequences of such a length."""
        return (self.token + self.pair * sequence) * tokens + self.fixed


class Part(NamedTuple):
    """Tensors that are alive at a moment: of one name, section, width and format."""

    name: str
    section: str
    """Where in the model they were made, for example ``layer``; ``gradient``, ``weight gradient``."""
    width: int
    item_bytes: int
    per: Per

    @property
    def size(self) -> Size:
        """Bytes of one of them."""
        return _size(self.width, self.item_bytes, self.per)


@dataclass(frozen=True, slots=True)
class Moment:
    """The peak of a phase."""

    num_bytes: int
    alive: Counter[Part]
    """What is held, and how many of each."""


def _size(width: int, item_bytes: int, per: Per) -> Size:
    number = width * item_bytes
    return Size(
        number if per == "token" else 0, number if per == "pair" else 0, number if per == "fixed" else 0
    )


@dataclass(frozen=True, slots=True)
class Highest:
    """A moment that is a phase's peak for some batches."""

    size: Size
    alive: Counter[Part]


@dataclass(frozen=True, slots=True)
class Walked:
    """What a tape found, for batches of any size."""

    phases: Mapping[str, tuple[Highest, ...]]

    def peak(self, tokens: int, sequence: int, *phases: str, extra: Size = Size()) -> Moment:  # noqa: B008 - frozen
        """Return the largest moment of some phases.

        Args:
            tokens: Tokens of a batch.
            sequence: Tokens of a sequence.
            phases: Which.
            extra: Held besides; does not change which moment it is, as it is the same for all of them.
        """
        moments = [moment for phase in phases for moment in self.phases.get(phase, ())]
        if not moments:
            return Moment(extra.at(tokens, sequence), Counter())
        highest = max(moments, key=lambda moment: moment.size.at(tokens, sequence))
        return Moment(highest.size.at(tokens, sequence) + extra.at(tokens, sequence), highest.alive)


def frontier(moments: Iterable[tuple[Size, int]]) -> list[tuple[Size, int]]:
    """Leave out moments that another one surpasses for every batch."""
    kept: list[tuple[Size, int]] = []
    for size, index in sorted(moments, reverse=True):
        if not any(all(a >= b for a, b in zip(other, size, strict=True)) for other, _ in kept):
            kept.append((size, index))
    return kept


def written(parts: Counter[Part]) -> str:
    """Return a formula of parts, ready for a calculator: ``tokens x (6 x 4,096 + 8 x 14,336) B + ...``.

    Bytes of one width are added up.
    """
    axes: dict[Per, Counter[int]] = {"token": Counter(), "pair": Counter(), "fixed": Counter()}
    for part, number in parts.items():
        axes[part.per][part.width] += part.item_bytes * number
    pieces = [f"{before}({_sum(axes[per])}) B" for per, before in _WORDS.items() if axes[per]]
    return " + ".join(pieces) or "0 B"


def _sum(widths: Counter[int]) -> str:
    return " + ".join(f"{item_bytes:,} x {width:,}" for width, item_bytes in sorted(widths.items()))


_WORDS: dict[Per, str] = {"token": "tokens x ", "pair": "tokens x sequence x ", "fixed": ""}
