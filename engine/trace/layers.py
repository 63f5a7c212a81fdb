"""Finds a model's layers, what repeats among them, and cuts the repetitions out."""

from dataclasses import dataclass
from typing import Any

from torch import nn

_MIN_MIDDLE = 3
"""Fewest repeated layers of the shallower trace: the first, one between, the last."""
_MIN_STEP = 2
"""Fewest layers that the deeper trace has more."""
_LAYER_FACTS = ("attention_type", "layer_type", "is_sliding", "sliding_window", "use_rope", "is_moe")


@dataclass(frozen=True, kw_only=True, slots=True)
class Depths:
    """Which layers two shallow traces keep, and how many times their difference is missing in them."""

    shallow: tuple[int, ...]
    deep: tuple[int, ...]
    missing: float
    """Value at full depth = shallow + (deep - shallow) * missing."""
    window: tuple[int, int, int]
    """Layers of the deeper model from, up to, which are there so many times more at full depth."""


def text_config(model: Any) -> Any:
    """Return the configuration of the language part."""
    return model.config.get_text_config()


def blocks(model: Any) -> nn.ModuleList:
    """Return the layers of the language part.

    Raises:
        LookupError: No list of modules has as many members as the configuration has layers.
    """
    number = text_config(model).num_hidden_layers
    found = [
        part
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == number and not _is_tower(name)
    ]
    if not found:
        raise LookupError("no list of layers")
    return max(found, key=lambda part: sum(p.numel() for p in part.parameters()))


def _is_tower(name: str) -> bool:
    return any(word in name for word in ("vision", "visual", "audio", "image"))


def depths(model: Any, *, alternates: bool = False) -> Depths | None:
    """Return which layers to trace; ``None``: all of them, because too few repeat.

    Args:
        model: On the meta device.
        alternates: Every second layer is treated otherwise than the one before.
    """
    if getattr(text_config(model), "num_kv_shared_layers", 0):
        return None  # late layers look into early ones: none can be cut out
    try:
        kinds = _kinds(model)
    except LookupError:
        return None
    return depths_of([(kind, number % 2) for number, kind in enumerate(kinds)] if alternates else kinds)


def depths_of(kinds: list[Any]) -> Depths | None:
    """Return which layers to trace, given what each layer is.

    The list is read as a head, a repeated group, and a tail shorter than the group.
    """
    total = len(kinds)
    best: tuple[int, int, int] | None = None
    for head in range(min(total, 8)):
        for period in range(1, 13):
            count = _repeats(kinds, head, period)
            tail = total - head - count * period
            if count < 2 or tail >= max(period, 4):  # noqa: PLR2004 - twice is a repetition
                continue
            cost = head + period * max(2, -(-_MIN_MIDDLE // period)) + tail
            if best is None or cost < best[0]:
                best = cost, head, period
    if best is None:
        return None
    _, head, period = best
    return _chosen(kinds, head, period)


def _chosen(kinds: list[Any], head: int, period: int) -> Depths | None:
    count = _repeats(kinds, head, period)
    few = -(-_MIN_MIDDLE // period)
    more = few + -(-_MIN_STEP // period)
    if more >= count:
        return None
    tail = range(head + count * period, len(kinds))

    def keep(groups: int) -> tuple[int, ...]:
        return (*range(head + groups * period), *tail)

    start = head + (more - 1) * period // 2
    return Depths(
        shallow=keep(few),
        deep=keep(more),
        missing=(count - few) / (more - few),
        window=(start, start + period, count - more),
    )


def _repeats(kinds: list[Any], head: int, period: int) -> int:
    group = kinds[head : head + period]
    count = 0
    while kinds[head + count * period : head + (count + 1) * period] == group:
        count += 1
    return count


def _kinds(model: Any) -> list[Any]:
    found = blocks(model)
    lists = [
        value
        for value in vars(text_config(model)).values()
        if isinstance(value, list | tuple) and len(value) == len(found)
    ]
    return [
        (
            type(block).__name__,
            tuple((name, tuple(p.shape), p.requires_grad) for name, p in block.named_parameters()),
            tuple(str(value[number]) for value in lists),
            tuple(
                str(getattr(part, fact))
                for part in block.modules()
                for fact in _LAYER_FACTS
                if hasattr(part, fact)
            ),
        )
        for number, block in enumerate(found)
    ]


def cut(model: Any, keep: tuple[int, ...]) -> None:
    """Leave only some layers in a model and its configuration, in place."""
    found = blocks(model)
    config = text_config(model)
    total = len(found)
    for name, value in list(vars(config).items()):
        if isinstance(value, list | tuple) and len(value) == total:
            setattr(config, name, [value[number] for number in keep])
    config.num_hidden_layers = len(keep)
    kept = [found[number] for number in keep]
    del found[:]
    found.extend(kept)
