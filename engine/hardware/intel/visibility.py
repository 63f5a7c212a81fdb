"""Which devices Level Zero and SYCL show: tiles, ZE_AFFINITY_MASK, then ONEAPI_DEVICE_SELECTOR."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HIERARCHY = "ZE_FLAT_DEVICE_HIERARCHY"
MASK = "ZE_AFFINITY_MASK"
SELECTOR = "ONEAPI_DEVICE_SELECTOR"
_ENTRY = re.compile(r"(\d{1,4})(?:\.(\d{1,4}))?")
_FILTER = re.compile(r"(\*|gpu|\d{1,4})(?:\.(\*|\d{1,4}))?")

Place = tuple[int, int | None]
"""Card, and tile of it; None is the whole card."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Places in the order of the process, and what is wrong with the variables."""

    places: tuple[Place, ...]
    problem: str | None = None


def visible(environ: Mapping[str, str], num_tiles: Sequence[int]) -> Visible:
    """Return the places that a process sees of cards with so many tiles each.

    Level Zero makes each tile a device (FLAT, the default) or each card (COMPOSITE). The mask is a filter: it
    changes no order, and entries that name nothing are ignored. SYCL's selector then counts what is left.
    """
    is_flat = environ.get(HIERARCHY, "FLAT").strip().upper() != "COMPOSITE"
    places: list[Place] = [
        place
        for card, count in enumerate(num_tiles)
        for place in ([(card, tile) for tile in range(count)] if is_flat and count > 1 else [(card, None)])
    ]
    mask = environ.get(MASK, "").strip()
    if mask:
        places = _masked(mask, places, num_tiles, is_flat=is_flat)
    selector = environ.get(SELECTOR, "").strip().lower()
    return _selected(selector, places, num_tiles) if selector else Visible(tuple(places))


def _masked(mask: str, places: list[Place], num_tiles: Sequence[int], *, is_flat: bool) -> list[Place]:
    entries = [found for entry in mask.split(",") if (found := _ENTRY.fullmatch(entry.strip())) is not None]
    if is_flat:
        wanted = {int(entry[1]) for entry in entries if entry[2] is None}
        return [place for number, place in enumerate(places) if number in wanted]
    kept: list[Place] = []
    for card, _ in places:
        own = [entry[2] for entry in entries if int(entry[1]) == card]
        tiles = {int(tile) for tile in own if tile is not None and int(tile) < num_tiles[card]}
        if None in own or len(tiles) > 1:
            kept.append((card, None))
        elif tiles:
            kept.append((card, tiles.pop() if num_tiles[card] > 1 else None))
    return kept


def _selected(selector: str, places: list[Place], num_tiles: Sequence[int]) -> Visible:
    terms = [term.strip() for term in selector.split(";") if term.strip()]
    accepted: set[Place] = set()
    refused: set[Place] = set()
    for term in terms:
        backend, colon, filters = term.removeprefix("!").partition(":")
        if not colon or not filters:
            return Visible((), f"{SELECTOR}={selector} is not backend:devices: SYCL refuses to start")
        if backend in {"level_zero", "*"}:
            group = refused if term.startswith("!") else accepted
            for one in filters.split(","):
                group |= _fitting(one.strip(), places, num_tiles)
    if all(term.startswith("!") for term in terms):
        accepted |= set(places)
    return Visible(tuple(sorted(accepted - refused, key=lambda place: (place[0], place[1] or 0))))


def _fitting(one: str, places: list[Place], num_tiles: Sequence[int]) -> set[Place]:
    found = _FILTER.fullmatch(one)
    if found is None:
        return set()
    roots = [place for number, place in enumerate(places) if found[1] in {"*", "gpu", f"{number}"}]
    if found[2] is None:
        return set(roots)
    return {
        (card, tile)
        for card, root_tile in roots
        if root_tile is None and num_tiles[card] > 1
        for tile in range(num_tiles[card])
        if found[2] in {"*", f"{tile}"}
    }
