"""Which devices the ranks may see: the environment variable of each vendor, in the form that cannot shift.

A UUID names a card whatever else fails or is hidden; where a runtime takes none, its own index is written.
"""

from collections.abc import Mapping
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


def visible_environment(chosen: tuple[Device, ...], among: tuple[Device, ...]) -> dict[str, str]:
    """Return the variables that make a process see just the chosen devices.

    Args:
        chosen: The devices to train on, of one vendor, in order of their index.
        among: Every device of that kind that a process sees without them.

    Returns:
        No choice of devices when all are chosen, when the vendor has no variable that is known to us, or
        when a device cannot be named.
    """
    if not chosen:
        return {}
    variable = _VARIABLES.get(chosen[0].vendor or "")
    order = _CUDA_ORDER if chosen[0].vendor == "nvidia" else {}
    names = [getattr(device, variable.by) for device in chosen] if variable else []
    if variable is None or len(chosen) == len(among) or None in names:
        return dict(order)
    return {variable.name: ",".join(str(name) for name in names), **order}
