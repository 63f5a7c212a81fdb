"""InfiniBand and RoCE ports, by which several nodes would train together; from /sys/class/infiniband."""

import re
from typing import Literal

from ..specs.machine import NetworkPort
from .system import System

_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) Gb/sec")
_LAYERS: dict[str, Literal["infiniband", "ethernet"]] = {"InfiniBand": "infiniband", "Ethernet": "ethernet"}


def read_ports(system: System) -> tuple[NetworkPort, ...]:
    """Return every port of every adapter, active or not; Ethernet as link layer is RoCE."""
    folders = system.glob("/sys/class/infiniband/*/ports/*")
    names = sorted(((path.parent.parent.name, path.name) for path in folders), key=_by_number)
    return tuple(_port(system, adapter, number) for adapter, number in names)


def _port(system: System, adapter: str, number: str) -> NetworkPort:
    folder = f"/sys/class/infiniband/{adapter}/ports/{number}"
    state = system.read(f"{folder}/state")  # "4: ACTIVE"
    rate = _RATE.match(system.read(f"{folder}/rate") or "")  # "400 Gb/sec (4X NDR)"
    return NetworkPort(
        name=f"{adapter}/{number}",
        link_layer=_LAYERS.get(system.read(f"{folder}/link_layer") or ""),
        is_active=state.endswith("ACTIVE") if state else None,
        bits_per_second=float(rate[1]) * 1e9 if rate else None,
    )


def _by_number(names: tuple[str, str]) -> list[str]:
    """Sort mlx5_10 behind mlx5_9."""
    return [part.zfill(8) for part in re.split(r"([0-9]+)", "/".join(names))]
