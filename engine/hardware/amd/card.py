"""What one source says of one AMD device; sources are laid over each other, the surest first."""

from dataclasses import dataclass, fields

from ...specs.machine import DeviceProcess


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A device as a tool or the kernel shows it; what is not said is ``None``."""

    number: int | None = None
    """The tool's own number of it."""
    bus_id: str | None = None
    uuid: str | None = None
    """``GPU-5c88007d760374f3``, as HIP_VISIBLE_DEVICES takes it."""
    name: str | None = None
    architecture: str | None = None
    device_id: int | None = None
    """PCI device."""
    total_bytes: int | None = None
    used_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    clock_mhz: float | None = None
    numa_node: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    partition: str | None = None
    processes: tuple[DeviceProcess, ...] = ()

    def over(self, other: "Card | None") -> "Card":
        """Return this card with its gaps filled from another reading of the same device."""
        if other is None:
            return self
        values = {}
        for field in fields(self):
            mine = getattr(self, field.name)
            values[field.name] = getattr(other, field.name) if mine is None or mine == () else mine
        return Card(**values)


def join(cards: tuple[Card, ...], others: tuple[Card, ...]) -> tuple[Card, ...]:
    """Lay cards over those of another source: by bus, by UUID, or by number where neither is known."""
    return tuple(card.over(_same(card, others)) for card in cards)


def _same(card: Card, others: tuple[Card, ...]) -> Card | None:
    for key in ("bus_id", "uuid", "number"):
        mine = getattr(card, key)
        known = [other for other in others if getattr(other, key) is not None]
        if mine is not None and known:
            same = [other for other in known if getattr(other, key) == mine]
            return same[0] if same else None
    return None


def gpu_uuid(serial: str | None) -> str | None:
    """Return a unique id (``0x5c88007d760374f3``) the way the runtime writes it."""
    digits = (serial or "").strip().lower().removeprefix("gpu-").removeprefix("0x")
    if not digits or len(digits) > 16 or set(digits) - set("0123456789abcdef") or not digits.strip("0"):  # noqa: PLR2004 - 64 bits
        return None
    return f"GPU-{digits:0>16}"
