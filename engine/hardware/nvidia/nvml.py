"""The one door to the driver: NVML through pynvml, without a CUDA context and without an exception."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import pynvml

from . import facts

LIBRARY = "libnvidia-ml.so.1"
NO_ANSWER = (OSError, AttributeError, TypeError, ValueError)
"""What the binding raises besides its own errors when a library is broken or older than the call."""
_LOST = (facts.LOST, facts.GONE)
_UNREACHABLE = (*_LOST, facts.NOT_FOUND, facts.UNKNOWN)
"""What is said instead of a handle for a card that was there before."""
_NVLINK_INDEX, _READ_INDEX, _WRITE_INDEX = 2, 0, 1

Answer = TypeVar("Answer")


class NvmlError(Exception):
    """NVML did not answer a question about the whole box."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {code}")
        self.call = call
        self.code = code


class Card:
    """A card, or a slice of one, to be asked; one that says that it is lost is not asked again.

    What it does not support, or its driver does not know, is ``None``.
    """

    __slots__ = ("code", "handle", "is_lost")

    def __init__(self, handle: Any, code: int | None = None) -> None:
        self.handle = handle
        self.code = code
        """NVML's last failure, if there was one."""
        self.is_lost = code in _UNREACHABLE

    def ask(self, call: Callable[..., Answer], *arguments: object, **named: object) -> Answer | None:
        """Return the answer to one question."""
        if self.is_lost or self.handle is None:
            return None
        try:
            return call(self.handle, *arguments, **named)
        except pynvml.NVMLError as error:
            self.code = error.value
            self.is_lost = error.value in _LOST
        except NO_ANSWER:
            self.code = None
        return None

    def text(self, call: Callable[..., Any], *arguments: object) -> str | None:
        """Return an answer that is a text."""
        answer = self.ask(call, *arguments)
        return text_of(answer)


class Memory:
    """Bytes of a device: total = used + free + reserved, where the driver tells them apart (since 510)."""

    __slots__ = ("free", "reserved", "total", "used")

    def __init__(self, answer: Any) -> None:
        self.total = int(answer.total)
        self.free = int(answer.free)
        self.used = int(answer.used)
        self.reserved = int(answer.reserved) if hasattr(answer, "reserved") else None


def start() -> None:
    """Start NVML, once in a process; a failure is tried again at the next call.

    Raises:
        NvmlError: The driver cannot be used.
    """
    try:
        _start()
    except pynvml.NVMLError as error:
        raise NvmlError("nvmlInit", error.value) from error
    except NO_ANSWER as error:
        raise NvmlError("nvmlInit", facts.NO_LIBRARY) from error


def count() -> int:
    """Return the number of cards.

    Raises:
        NvmlError: The driver does not say.
    """
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        raise NvmlError("nvmlDeviceGetCount", error.value) from error
    except NO_ANSWER as error:
        raise NvmlError("nvmlDeviceGetCount", facts.UNKNOWN) from error


def card_at(position: int) -> Card:
    """Return a card by its position in bus order; a lost one has no handle, and a ``code`` that says why."""
    try:
        return Card(pynvml.nvmlDeviceGetHandleByIndex(position))
    except pynvml.NVMLError as error:
        return Card(None, error.value)
    except NO_ANSWER:
        return Card(None)


def card_of(uuid: str) -> Card:
    """Return a card or slice by UUID: positions shift when a card falls off the bus."""
    try:
        return Card(_handle(uuid))
    except pynvml.NVMLError as error:
        return Card(None, error.value)
    except NO_ANSWER:
        return Card(None)


def slices(card: Card) -> list[Card]:
    """Return the slices of a card in MIG mode; an empty slot says "not found" and does not end the list."""
    num_slots = card.ask(pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0
    handles = (card.ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, slot) for slot in range(num_slots))
    return [Card(handle) for handle in handles if handle is not None]


def card_around(piece: Card) -> Card | None:
    """Return the card that a slice is cut from."""
    handle = piece.ask(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle)
    return None if handle is None else Card(handle)


def memory(card: Card) -> Memory | None:
    """Return total, free, used and reserved bytes; older drivers count the reserved part as used."""
    answer = card.ask(pynvml.nvmlDeviceGetMemoryInfo, version=pynvml.nvmlMemory_v2)
    if answer is None and card.code != facts.NOT_SUPPORTED:
        answer = card.ask(pynvml.nvmlDeviceGetMemoryInfo)
    return None if answer is None else Memory(answer)


def processes(card: Card) -> dict[int, int | None]:
    """Return the bytes that each process holds by its pid; ``None`` where the driver keeps them to itself."""
    found: dict[int, int | None] = {}
    for newest, older in (
        (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2),
        (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
    ):
        answer = card.ask(newest)
        if answer is None and card.code == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            answer = card.ask(older)
        for process in answer or ():
            used = process.usedGpuMemory
            before = found.get(process.pid)
            # a process that computes and draws stands in both lists with the same figure
            found[process.pid] = before if used is None else max(int(used), before or 0)
    return found


def process_name(pid: int) -> str | None:
    """Return what the driver knows of a process's name."""
    try:
        return text_of(pynvml.nvmlSystemGetProcessName(pid))
    except (pynvml.NVMLError, *NO_ANSWER):
        return None


def is_peer(first: Card, second: Card, *, over_nvlink: bool = False) -> bool | None:
    """Whether one card may read and write the other's memory; ``None`` when the driver does not know."""
    wanted = (_NVLINK_INDEX,) if over_nvlink else (_READ_INDEX, _WRITE_INDEX)
    answers = [first.ask(pynvml.nvmlDeviceGetP2PStatus, second.handle, index) for index in wanted]
    if any(answer is None or answer == pynvml.NVML_P2P_STATUS_UNKNOWN for answer in answers):
        return None
    return all(answer == pynvml.NVML_P2P_STATUS_OK for answer in answers)


@cache
def _start() -> None:
    pynvml.nvmlInit()


@cache
def _handle(uuid: str) -> Any:
    """A handle lives as long as NVML does; looking it up wakes cards. A failure is not kept."""
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


def text_of(answer: object) -> str | None:
    """Return an answer of the binding as text: it gives bytes for some fields."""
    if isinstance(answer, bytes):
        answer = answer.decode("utf8", errors="replace")
    return answer.strip() or None if isinstance(answer, str) else None
