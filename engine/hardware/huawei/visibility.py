"""ASCEND_RT_VISIBLE_DEVICES, read as the CANN runtime reads it.

Source: GetVisibleDevices in src/runtime/core/src/runtime.cc of github.com/hicann/runtime at 681ef76, and its
unit tests (rt_utest_runtime.cc), whose cases are ours too. The order rule came with CANN 8; CANN 6.3 and
older took ``3,2,1`` and gave the devices in that order.
"""

import re
from dataclasses import dataclass

ENV = "ASCEND_RT_VISIBLE_DEVICES"
_MOST_CHARACTERS = 128
"""The runtime looks no further."""
_LIST = re.compile(r"[0-9]+(?:,[0-9]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Visible:
    """Logic ids in the order in which they become ``npu:0``, ``npu:1``, and why there are none."""

    logic_ids: tuple[int, ...] = ()
    refused: str | None = None
    """The runtime answers with an error instead of a count."""


def visible(value: str | None, count: int) -> Visible:
    """Return which of ``count`` devices a process with this value sees.

    Unset is all. Read are the ids before the first character that is neither digit nor single comma, and
    before the first id that no device has. An id below its predecessor, or one that was there before, leaves
    none at all.
    """
    if value is None:
        return Visible(logic_ids=tuple(range(count)))
    found = _LIST.match(value[:_MOST_CHARACTERS])
    picked: list[int] = []
    for entry in found[0].split(",") if found else ():
        logic = int(entry)
        if logic >= count:
            break
        if picked and logic < picked[-1]:
            return Visible(refused=f"{ENV}={value[:_MOST_CHARACTERS]}: ids must be in ascending order")
        if logic in picked:
            return Visible(refused=f"{ENV}={value[:_MOST_CHARACTERS]}: id {logic} is there twice")
        picked.append(logic)
        if len(picked) == count:
            break
    if not picked:
        return Visible(refused=f"{ENV}={value[:_MOST_CHARACTERS]}: names none of the {count} devices")
    return Visible(logic_ids=tuple(picked))
