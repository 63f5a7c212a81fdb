"""How many rows of each file are trained on, and in which order: mixing by shares. Pure arithmetic."""

from collections.abc import Sequence
from math import ceil, floor
from typing import Literal, TypeVar

Item = TypeVar("Item")
Mixing = Literal["first_exhausted", "all_exhausted"]


def shares(nums: Sequence[int], weights: Sequence[float], mixing: Mixing) -> list[int]:
    """Return how many rows of each file are taken.

    Args:
        nums: Rows of each file.
        weights: Their shares, in any unit; none for all rows of all files.
        mixing: Whether the first file that has no more rows ends it, or the last.

    The names are those of ``datasets.interleave_datasets``, which draws rows; here shares are kept to a row:
    total = min(rows / weight) x sum of weights, or max for ``all_exhausted``.
    """
    if not weights:
        return list(nums)
    each = [num / weight for num, weight in zip(nums, weights, strict=True)]
    if mixing == "first_exhausted":
        scale = min(each)
        return [min(num, max(1, floor(scale * w + 1e-9))) for num, w in zip(nums, weights, strict=True)]
    scale = max(each)
    return [max(num, ceil(scale * w - 1e-9)) for num, w in zip(nums, weights, strict=True)]


def taken(items: Sequence[Item], num: int) -> list[Item]:
    """Return ``num`` items: spread evenly over them when there are more, again from the start when fewer."""
    if num >= len(items):
        return [items[index % len(items)] for index in range(num)]
    return [items[index * len(items) // num] for index in range(num)]


def woven(parts: Sequence[Sequence[Item]]) -> list[Item]:
    """Return all items of all parts, each part spread evenly over the whole."""
    places = [
        ((index + 0.5) / len(part), which, item)
        for which, part in enumerate(parts)
        for index, item in enumerate(part)
    ]
    return [item for _, _, item in sorted(places, key=lambda place: place[:2])]
