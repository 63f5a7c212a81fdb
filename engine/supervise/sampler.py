"""Samples devices and host once a second, in a thread: a driver that hangs must not hold up an ending."""

import contextlib
import os
import shutil
import threading
import time
from dataclasses import replace

from .. import hardware
from ..rundir import RunFolder
from ..specs.events import DevicesEvent
from ..specs.machine import Machine
from ..telemetry import EventLog
from . import process

PERIOD_SECONDS = 1.0
TREE_PERIOD_SECONDS = 5.0
"""The process table of a large host takes tens of milliseconds to read."""


class Sampler:
    """Writes ``devices-<node>.jsonl`` until it is stopped."""

    def __init__(self, run: RunFolder, machine: Machine, *, node: int = 0) -> None:
        self._file = run.devices_file(node)
        self._machine = machine
        self._over = threading.Event()
        self.newest: DevicesEvent | None = None
        self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin sampling."""
        self._thread.start()

    def stop(self) -> None:
        """End sampling; a reading that hangs is left behind."""
        self._over.set()
        self._thread.join(timeout=2)

    def _free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self._file.parent).free
        except OSError:
            return None

    def _work(self) -> None:
        try:
            log = EventLog(self._file)
        except OSError:
            return
        pids: set[int] = set()
        read_at = float("-inf")
        while not self._over.is_set():
            if time.monotonic() - read_at >= TREE_PERIOD_SECONDS or not pids:
                pids = process.descendants(os.getpid(), process.table())
                read_at = time.monotonic()
            host = replace(hardware.host_reading(pids), run_disk_free_bytes=self._free_bytes())
            event = DevicesEvent(t=time.time(), host=host, devices=hardware.sample(self._machine))
            self.newest = event
            with contextlib.suppress(OSError):  # a full disk costs samples, never the run
                log.append(event)
            self._over.wait(PERIOD_SECONDS)
        log.close()
