"""What the checks look at: the box, its devices, the installed packages, and what torch says of itself.

The two slow answers, the machine and torch's, are gathered in the background while other checks run.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

from packaging.utils import canonicalize_name

from ..hardware.system import System
from ..specs.machine import Device, Machine
from .torch_report import TorchReport

T = TypeVar("T")


class Awaited(Generic[T]):
    """A value that a thread of its own finds out; whoever asks waits for it until the time is up."""

    def __init__(self, find_out: Callable[[], T], *, seconds: float) -> None:
        self._value: T | None = None
        self._failure: str | None = None
        self._deadline = time.monotonic() + seconds
        self._thread = threading.Thread(target=self._run, args=(find_out,), daemon=True)
        self._thread.start()

    def get(self) -> T | None:
        """Return the value, or ``None`` when it did not come in time or could not be found out."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        return self._value

    @property
    def failure(self) -> str | None:
        """Why there is no value."""
        if self._value is not None:
            return None
        return self._failure or "no answer in time"

    def _run(self, find_out: Callable[[], T]) -> None:
        try:
            self._value = find_out()
        except Exception as error:  # noqa: BLE001 - a doctor reports what fails, and goes on
            self._failure = f"{type(error).__name__}: {error}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """The machine and the installation under examination."""

    system: System
    machine_answer: Awaited[Machine]
    torch_answer: Awaited[TorchReport]
    versions: Mapping[str, str]
    """Version of every installed distribution, by its normalized name."""
    runs: Path
    """Folder of all runs, which may not exist yet."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that training would inherit."""
        return self.system.environ

    @property
    def machine(self) -> Machine | None:
        """What is in the box; ``None`` when it did not answer in time."""
        return self.machine_answer.get()

    @property
    def torch(self) -> TorchReport | None:
        """What the installed torch says of itself; ``None`` when it did not answer in time."""
        return self.torch_answer.get()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The accelerators that a run could use: neither lost nor split; none when they are unknown."""
        devices = self.machine.devices if self.machine is not None else ()
        return tuple(device for device in devices if not (device.is_lost or device.partitioned))


def installed_versions() -> dict[str, str]:
    """Return the version of every installed distribution, by its normalized name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:  # an interrupted installation leaves folders without either
            found.setdefault(canonicalize_name(name), version)
    return found
