"""The memory panel: what a plan takes on every device, host and disk, whether it fits, and for how long."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from textual.content import Content

from ...engine.memory.verdict import GIB, usable_bytes
from ...engine.specs.machine import CPU, Device, Machine
from ...engine.specs.plan import Plan
from ..text import fit, safe, size
from .check import Review
from .fix import Fix
from .measure import GROUPS, grouped, speed_words

Part = tuple[str, Any]
OTHERS: Final = ("in use", "$other")
MOST_BARS: Final = 4
"""More devices that are all alike share one bar."""
COLOURS: Final = {name: colour for name, _, colour in GROUPS} | dict([OTHERS])
_VERDICTS: Final = {"fits": "$success", "tight": "$warning", "no": "$error", "unknown": "$warning"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """What one device holds at the peak, and what it has."""

    name: str
    parts: tuple[tuple[str, int], ...]
    """Name of a group -> bytes, in the order of ``GROUPS``; then what others hold."""
    total_bytes: int | None

    @property
    def taken_bytes(self) -> int:
        """All parts together."""
        return sum(num for _, num in self.parts)


def bars(plan: Plan, machine: Machine) -> list[Bar]:
    """Return a bar for each device that is used; of a CPU run, one for the host's memory."""
    found = plan.estimate
    if found is None:
        return []
    host, ranks = machine.host, plan.strategy.ranks_per_node
    parts = grouped(found)
    if plan.strategy.device_kind == CPU:
        together = [(name, num * ranks) for name, num in parts]
        extra = found.host_bytes
        whole = [(name, num + (extra if name == "rest" else 0)) for name, num in together]
        return [_bar("memory", whole, host.available_bytes, host.total_bytes)]
    chosen = [one for one in machine.devices if one.index in plan.device_indices] or list(machine.devices)
    found_bars = [_bar(_name(one), parts, _free(one), one.total_bytes) for one in chosen]
    alike = len({(bar.parts, bar.total_bytes) for bar in found_bars}) == 1
    if alike and len(found_bars) > MOST_BARS:
        first, last = chosen[0], chosen[-1]
        return [replace(found_bars[0], name=f"{first.kind} {first.index}-{last.index}")]
    return found_bars


def _free(device: Device) -> int | None:
    return usable_bytes(device.free_bytes, device.total_bytes)


def _name(device: Device) -> str:
    return f"{device.kind} {device.index}"


def _bar(name: str, parts: Iterable[tuple[str, int]], free: int | None, total: int | None) -> Bar:
    in_use = total - free if total is not None and free is not None else 0
    return Bar(name=name, parts=(*parts, (OTHERS[0], max(0, in_use))), total_bytes=total)


def cells(bar: Bar, width: int) -> list[tuple[str, int]]:
    """Return how many cells each part of a bar gets; what is there gets at least one. Free is the rest.

    Where more is needed than there is, the bar is as long as what is needed.
    """
    whole = max(bar.total_bytes or 0, bar.taken_bytes) or 1
    given = [(name, max(1, round(num / whole * width)) if num else 0) for name, num in bar.parts]
    while sum(num for _, num in given) > width:
        largest = max(range(len(given)), key=lambda index: given[index][1])
        if given[largest][1] <= 1:
            break
        given[largest] = (given[largest][0], given[largest][1] - 1)
    return given


def drawn(bar: Bar, width: int) -> list[Part]:
    """Draw a bar: each part begins with its letter, so that it can be read without colour too."""
    parts: list[Part] = []
    used = 0
    for name, num in cells(bar, width):
        if num:
            parts += [(name[0].upper(), f"$background on {COLOURS[name]}"), ("█" * (num - 1), COLOURS[name])]
            used += num
    parts.append(("·" * max(0, width - used), "$faint"))
    return parts


def verdict_parts(review: Review) -> list[Part]:
    """Return the verdict in a word, and how much is left or lacking."""
    plan = review.plan
    if plan is None or plan.verdict is None:
        return [("memory not known: ", "$warning"), ("this model's shape is not known here", "$dim")]
    found = plan.verdict
    colour = f"{_VERDICTS[found.word]} bold"
    word = "does not fit" if found.word == "no" else "fits" if found.word == "fits" else found.word
    if found.free_bytes is None:
        return [(word, colour), (f"  needs {size(found.needed_bytes)}; what is free is not known", "$dim")]
    left = found.free_bytes - found.needed_bytes
    told = f"{size(left)} to spare" if left >= 0 else f"{size(-left)} short"
    return [(word, colour), (f"  {told}, margin counted", "$foreground")]


def places_words(plan: Plan, machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield what is taken on the host and on the disk, of what is free there."""
    found = plan.estimate
    if found is None:
        return
    host = usable_bytes(machine.host.available_bytes, machine.host.total_bytes)
    told = "; what is free is not known" if host is None else f" of {size(host)} free"
    yield "host", f"{size(found.host_bytes)}{told}"
    disk = next((one for one in machine.disks if "runs" in one.holds), None)
    free = f" of {size(disk.free_bytes)} free" if disk else ""
    yield "disk", f"{size(found.disk_bytes)}{free}"


def panel(review: Review, machine: Machine, fix: Fix | None, width: int) -> Content:
    """Return the whole panel, for a place of its own."""
    if review.plan is None:
        return Content.assemble(("Memory\n", "$bright bold"), (_why_nothing(review), "$dim"))
    plan = review.plan
    lines: list[Part] = [("Memory  ", "$bright bold"), *verdict_parts(review), ("\n", "")]
    found = bars(plan, machine)
    room = max(8, width - 25)
    for bar in found[:MOST_BARS]:
        lines += [(fit(bar.name, 9), "$dim"), *drawn(bar, room)]
        lines += [(f" {_of(bar)}\n", "$foreground")]
    if len(found) > MOST_BARS:
        lines.append((f"        and {len(found) - MOST_BARS} more\n", "$dim"))
    if found:
        lines += _legend(found[0])
    for name, words in places_words(plan, machine):
        lines += [(f"{name}    ", "$dim"), (f"{words}\n", "$foreground")]
    speed, _, how_long = speed_words(review).partition(", ")
    lines += [("speed   ", "$dim"), (speed, "$foreground")]
    lines += [(f"\n        {how_long}", "$foreground")] if how_long else []
    return Content.assemble(*lines, *_fix_parts(fix))


def compact(review: Review, machine: Machine, fix: Fix | None, width: int) -> Content:
    """Return the fullest device's bar, the verdict and the speed, for a small screen."""
    if review.plan is None:
        return Content.assemble((_why_nothing(review), "$dim"))
    found = bars(review.plan, machine)
    lines: list[Part] = []
    if found:
        fullest = max(found, key=lambda bar: bar.taken_bytes / (bar.total_bytes or 1))
        lines += drawn(fullest, max(10, width - 18))
        lines.append((f" {_of(fullest)}\n", "$foreground"))
    lines += verdict_parts(review)
    lines += [(f"\n{speed_words(review)}", "$dim"), *_fix_parts(fix)]
    return Content.assemble(*lines)


def _of(bar: Bar) -> str:
    total = "n/a" if bar.total_bytes is None else f"{bar.total_bytes / GIB:,.1f}"
    return f"{bar.taken_bytes / GIB:,.1f}/{total} GiB"


def _legend(bar: Bar) -> list[Part]:
    parts: list[Part] = []
    shown = [(name, num) for name, num in bar.parts if num]
    for index, (name, num) in enumerate(shown):
        is_last_in_line = index % 2 == 1 or index == len(shown) - 1
        text = fit(f"{name} {size(num)}", 22)
        parts += [(name[0].upper(), f"$background on {COLOURS[name]}"), (f" {text}", "$foreground")]
        parts.append(("\n" if is_last_in_line else "", ""))
    return parts


def _fix_parts(fix: Fix | None) -> list[Part]:
    if fix is None:
        return []
    return [("\nf7", "$primary bold"), (f" {safe(fix.words)}: {safe(fix.effect)}", "$warning")]


def _why_nothing(review: Review) -> str:
    return "shown as soon as the answers can be used" if review.job is None else "no plan: see below"
