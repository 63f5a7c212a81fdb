"""How busy NVIDIA devices are, asked of NVML once a second."""

import pynvml

from ...specs.machine import Device, DeviceReading
from . import facts, nvml
from .nvml import Card


def read(devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per device.

    Raises:
        NvmlError: The driver cannot be used at all.
    """
    nvml.start()
    return tuple(_reading(device) for device in devices)


def _reading(device: Device) -> DeviceReading:
    if device.uuid is not None:
        card = nvml.card_of(device.uuid)
    else:
        card = nvml.card_at(device.index if device.physical_index is None else device.physical_index)
    total, used, pids = _memory(card, device)
    around = card if device.partition is None else nvml.card_around(card) or Card(None)
    rates = card.ask(pynvml.nvmlDeviceGetUtilizationRates)
    temperature = around.ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
    clock = around.ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
    return DeviceReading(
        index=device.index,
        name=device.name,
        utilization_percent=None if rates is None else float(rates.gpu),
        memory_used_bytes=used,
        memory_total_bytes=total,
        temperature_celsius=None if temperature is None else float(temperature),
        # the power of a card is not a slice's: it would be counted once for each of them
        power_watts=_watts(card.ask(pynvml.nvmlDeviceGetPowerUsage)),
        power_limit_watts=_watts(card.ask(pynvml.nvmlDeviceGetEnforcedPowerLimit)),
        clock_mhz=None if clock is None else float(clock),
        throttle_reasons=facts.throttle_reasons(_events(around)),
        pids=pids,
        is_lost=card.is_lost,
    )


def _memory(card: Card, device: Device) -> tuple[int | None, int | None, tuple[int, ...]]:
    """Return total and used bytes and who holds them.

    Of a memory shared with the host only what device processes hold counts as used: the host's own programs
    are shown where the host is.
    """
    held = nvml.processes(card)
    pids = tuple(sorted(held))
    if device.unified_memory:
        known = [used for used in held.values() if used is not None]
        return device.total_bytes, sum(known) if len(known) == len(held) and not card.is_lost else None, pids
    memory = nvml.memory(card)
    if memory is None or not memory.total:
        return device.total_bytes, None, pids
    return memory.total, memory.used, pids


def _events(card: Card) -> int | None:
    """Return the bits that say why the clock is held back, by their name before driver 535 if need be."""
    bits = card.ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    if bits is None and card.code == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
        bits = card.ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    return bits


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
