"""Which devices CUDA shows to a process, from its environment. Pure; the rules are those of torch 2.13.

Beyond torch's rules: MIG slices, of which a process sees only one (NVIDIA's MIG guide: a process enumerates
one compute instance, and no whole card beside it).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...specs.machine import Device, Problem

VISIBLE_ENV = "CUDA_VISIBLE_DEVICES"
ORDER_ENV = "CUDA_DEVICE_ORDER"
_LEADING_NUMBER = re.compile(r"[+-]?[0-9]+")
_NOTHING_WANTED = {"", "-1", "NoDevFiles"}
"""Set on purpose; SLURM writes the last one for a step that asked for no card."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A card or a slice of one, before the environment is asked; slices follow their card."""

    device: Device
    alias: str | None = None
    """The name of a slice before driver 470: ``MIG-GPU-<uuid>/<instance>/<compute instance>``."""


def visible(value: str | None, uuids: Sequence[str | None]) -> list[int]:
    """Return the positions of the whole cards that CUDA_VISIBLE_DEVICES picks.

    Unset is all. The first entry decides between numbers and UUIDs, the first that names no card of that form
    ends the list, a UUID may be shortened as long as it is unique, and a card named twice leaves none at all.
    """
    if value is None:
        return list(range(len(uuids)))
    if value.startswith("GPU-"):
        return _by_uuid(value.split(","), uuids)
    return _by_number(value.split(","), len(uuids))


def choose(value: str | None, entries: Sequence[Entry]) -> tuple[Device, ...]:
    """Return what a process may use, ``index`` as torch numbers it.

    With the variable unset every slice is offered, since a run can be given any one of them; the cards that
    they are cut from come last, for nothing runs on them.
    """
    cards = [entry.device for entry in entries if entry.device.partition is None]
    slices = [entry for entry in entries if entry.device.partition is not None]
    if value is not None and value.startswith("MIG-"):
        chosen = _slice(value.split(",")[0], slices)
    elif value is None:
        whole = [device for entry in entries if not (device := entry.device).partitioned or device.partition]
        chosen = whole + [card for card in cards if card.partitioned]
    else:
        chosen = _expand([cards[at] for at in visible(value, [card.uuid for card in cards])], slices)
    return tuple(replace(device, index=index) for index, device in enumerate(chosen))


def problems(environ: Mapping[str, str], entries: Sequence[Entry], num_shown: int) -> tuple[Problem, ...]:
    """Return what is wrong with the variables: ignored entries, numbers that may mean other cards."""
    value = environ.get(VISIBLE_ENV)
    num_named = len((value or "").split(","))
    found = []
    if value is not None and value.strip() not in _NOTHING_WANTED and num_shown < num_named:
        found.append(
            Problem(
                source=VISIBLE_ENV,
                message=f"{VISIBLE_ENV}={value[:200]}: CUDA shows {num_shown} of its {num_named} entries",
                advice="the first entry that names no device ends the list, one named twice empties it, "
                "and of slices one is shown",
            )
        )
    cards = [entry.device for entry in entries if entry.device.partition is None]
    names = {card.name for card in cards if not card.is_lost}
    is_by_uuid = value is not None and value.startswith(("GPU-", "MIG-"))
    if len(names) > 1 and not is_by_uuid and environ.get(ORDER_ENV) != "PCI_BUS_ID":
        found.append(
            Problem(
                source=ORDER_ENV,
                message=f"{ORDER_ENV} is not PCI_BUS_ID: CUDA numbers the fastest of different cards first, "
                "and this list is in bus order",
                advice=f"export {ORDER_ENV}=PCI_BUS_ID, or name cards by UUID",
            )
        )
    return tuple(found)


def _by_number(words: Sequence[str], num_cards: int) -> list[int]:
    """A number is read as C's strtoul reads it: ``1gpu2`` is 1."""
    numbers: list[int] = []
    for word in words:
        match = _LEADING_NUMBER.match(word.strip())
        number = int(match.group()[:20]) if match else -1
        if number in numbers:
            return []
        if number < 0:
            break
        numbers.append(number)
    beyond = next((at for at, number in enumerate(numbers) if number >= num_cards), len(numbers))
    return numbers[:beyond]


def _by_uuid(words: Sequence[str], uuids: Sequence[str | None]) -> list[int]:
    chosen: list[int] = []
    known: list[str] = []
    for word in words:
        if word in known:
            return []
        if not word.startswith("GPU-"):
            break
        known.append(word)
    for word in known:
        matching = [at for at, uuid in enumerate(uuids) if uuid is not None and uuid.startswith(word)]
        if len(matching) != 1:
            break
        if matching[0] in chosen:
            return []
        chosen += matching
    return chosen


def _slice(word: str, slices: Sequence[Entry]) -> list[Device]:
    exact = [entry.device for entry in slices if word in (entry.device.uuid, entry.alias)]
    if exact:
        return exact[:1]
    close = [entry.device for entry in slices if (entry.device.uuid or "").startswith(word)]
    return close if len(close) == 1 else []


def _expand(cards: Sequence[Device], slices: Sequence[Entry]) -> list[Device]:
    """Return the cards; or, when one is split, the first slice alone, which is all that CUDA shows."""
    for card in cards:
        if card.partitioned:
            own = [s.device for s in slices if s.device.physical_index == card.physical_index]
            if own:
                return own[:1]
    return [card for card in cards if not card.partitioned]
