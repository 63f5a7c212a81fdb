"""Reads this machine's devices for a screen, in a thread: asking drivers takes seconds."""

import os
import threading
import time

from ..engine import hardware
from ..engine.specs.events import DevicesEvent

PERIOD_SECONDS = 1.0


class LocalDevices:
    """Samples once a second from its first question on; ends with the process."""

    def __init__(self) -> None:
        self._newest: DevicesEvent | None = None
        self._thread = threading.Thread(target=self._work, name="ftwiz-devices", daemon=True)

    def newest(self) -> DevicesEvent | None:
        """Return the newest sample; ``None`` until there is one."""
        if not self._thread.is_alive():
            self._thread.start()
        return self._newest

    def _work(self) -> None:
        machine = hardware.detect(os.environ)
        while True:
            self._newest = DevicesEvent(
                t=time.time(), host=hardware.host_reading(set()), devices=hardware.sample(machine)
            )
            time.sleep(PERIOD_SECONDS)
