"""Which devices the ranks may see: the environment variable of each vendor, in the form that cannot shift.

A UUID names a card whatever else fails or is hidden; where a runtime takes none, its own index is written.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ..specs.machine import Device


class _Variable(NamedTuple):
    name: str
    by: Literal["uuid", "physical_index"]


_VARIABLES: Mapping[str, _Variable] = {
    "nvidia": _Variable("CUDA_VISIBLE_DEVICES", "uuid"),
    "amd": _Variable("HIP_VISIBLE_DEVICES", "uuid"),
    # The CANN runtime takes logic ids in ascending order only (its source, visible device parsing).
    "huawei": _Variable("ASCEND_RT_VISIBLE_DEVICES", "physical_index"),
}
_CUDA_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""CUDA counts the fastest card first unless told so, and drivers report in bus order."""
ALLOCATOR = "PYTORCH_ALLOC_CONF"
ALLOCATOR_NAMES = (ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Names that torch 2.13 reads the allocator's settings from. What the user sets wins over ours."""
_GROWING = {ALLOCATOR: "expandable_segments:True"}
"""Without it batches of many lengths leave gaps as large again as what they need (torch's CUDA notes)."""


def grows_segments(devices: Sequence[Device]) -> bool:
    """Whether the allocator is told to grow its segments on these devices: on NVIDIA's."""
    return bool(devices) and devices[0].vendor == "nvidia"


def can_be_shown(chosen: tuple[Device, ...], among: tuple[Device, ...]) -> bool:
    """Whether a variable can make a process see just these: each has a name that no other device has."""
    variable = _VARIABLES.get(chosen[0].vendor or "") if chosen else None
    if variable is None:
        return False
    names = [getattr(device, variable.by) for device in among]
    return all(names.count(getattr(device, variable.by)) == 1 for device in chosen) and None not in names


def visible_environment(chosen: tuple[Device, ...], among: tuple[Device, ...]) -> dict[str, str]:
    """Return the variables that make a process see just the chosen devices, and use their memory well.

    Args:
        chosen: The devices to train on, of one vendor, in order of their index.
        among: Every device of that kind that a process sees without them.

    Returns:
        No choice of devices when all are chosen, or when they cannot be shown alone.
    """
    vendor = chosen[0].vendor or "" if chosen else ""
    order = _CUDA_ORDER | _GROWING if vendor == "nvidia" else {}
    if len(chosen) == len(among) or not can_be_shown(chosen, among):
        return order
    variable = _VARIABLES[vendor]
    return {variable.name: ",".join(str(getattr(device, variable.by)) for device in chosen), **order}
