"""NVIDIA devices, read through NVML (the library under nvidia-smi) without opening a CUDA context.

Devices are in PCI order; set CUDA_DEVICE_ORDER=PCI_BUS_ID where a machine mixes models of cards.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import pynvml

from ..specs.machine import Device, DeviceReading, Link
from .system import System
from .vendor import Found

VENDOR = "nvidia"
KIND = "cuda"
VISIBLE_ENV = "CUDA_VISIBLE_DEVICES"
FIRST_BF16_CAPABILITY = (8, 0)
"""Ampere. torch.cuda.is_bf16_supported() is also true on older cards, which emulate it slowly."""
_FAILURES = (pynvml.NVMLError, OSError, AttributeError, ValueError)
"""What the binding raises when a driver is missing, broken or older than the call."""

Answer = TypeVar("Answer")


def is_present(_system: System) -> bool:
    """Whether NVML answers with at least one device."""
    return bool(_handles())


def inventory(system: System) -> Found:
    """Return the devices that CUDA would show to a process with this environment, in that order."""
    handles = _handles()
    uuids = [_text(pynvml.nvmlDeviceGetUUID, handle) for handle in handles]
    chosen = visible(system.environ.get(VISIBLE_ENV), uuids)
    return Found(devices=tuple(_device(index, handles[physical]) for index, physical in enumerate(chosen)))


def usage(_system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per CUDA device; a card that no longer answers stays, with every figure None."""
    return tuple(_reading(device) for device in devices if device.vendor == VENDOR)


def links(_system: System, _devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return no links yet."""
    return ()


def visible(value: str | None, uuids: list[str | None]) -> list[int]:
    """Return the positions that CUDA_VISIBLE_DEVICES picks from the devices with these UUIDs.

    As the CUDA runtime does it: unset is all, the first entry that names no device ends the list, a UUID may
    be shortened as long as it is unique, and a device named twice leaves none at all.
    """
    if value is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in value.split(","):
        position = _position(entry.strip(), uuids)
        if position is None:
            break
        chosen.append(position)
    return chosen if len(set(chosen)) == len(chosen) else []


def _position(entry: str, uuids: list[str | None]) -> int | None:
    if entry.isascii() and entry.isdigit():
        return int(entry) if int(entry) < len(uuids) else None
    if not entry.startswith("GPU-"):
        return None
    matching = [index for index, uuid in enumerate(uuids) if uuid is not None and uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


@cache
def _start() -> None:
    """Start NVML once a process; a failure raises and is tried again at the next call."""
    pynvml.nvmlInit()


def _ask(question: Callable[..., Answer], *arguments: object) -> Answer | None:
    try:
        return question(*arguments)
    except _FAILURES:
        return None


def _text(question: Callable[..., Any], *arguments: object) -> str | None:
    answer = _ask(question, *arguments)
    if isinstance(answer, bytes):
        return answer.decode("utf8", errors="replace")
    return answer if isinstance(answer, str) and answer else None


def _handles() -> list[Any]:
    try:
        _start()
        count = int(pynvml.nvmlDeviceGetCount())
    except _FAILURES:
        return []
    handles = (_ask(pynvml.nvmlDeviceGetHandleByIndex, index) for index in range(count))
    return [handle for handle in handles if handle is not None]


def _device(index: int, handle: Any) -> Device:
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Device(
        kind=KIND,
        vendor=VENDOR,
        index=index,
        name=_text(pynvml.nvmlDeviceGetName, handle) or "NVIDIA device",
        uuid=_text(pynvml.nvmlDeviceGetUUID, handle),
        total_bytes=None if memory is None else int(memory.total),
        free_bytes=None if memory is None else int(memory.free),
        supports_bf16=None if capability is None else tuple(capability) >= FIRST_BF16_CAPABILITY,
    )


def _reading(device: Device) -> DeviceReading:
    handle = _find(device)
    if handle is None:
        return DeviceReading(index=device.index, name=device.name, memory_total_bytes=device.total_bytes)
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    temperature = _ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    milliwatts = _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
    return DeviceReading(
        index=device.index,
        name=device.name,
        utilization_percent=None if rates is None else float(rates.gpu),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=device.total_bytes if memory is None else int(memory.total),
        temperature_celsius=None if temperature is None else float(temperature),
        power_watts=None if milliwatts is None else milliwatts / 1000,
    )


def _find(device: Device) -> Any:
    """Return the handle by UUID: positions shift when a card falls off the bus."""
    try:
        _start()
    except _FAILURES:
        return None
    if device.uuid is None:
        return _ask(pynvml.nvmlDeviceGetHandleByIndex, device.index)
    return _ask(pynvml.nvmlDeviceGetHandleByUUID, device.uuid)
