"""The first look into a very long event log: pieces from all over it, then more of them, then its end.

Ten gigabytes are not read to draw a hundred columns: what lies between the pieces is not seen. The end is
always read whole.
"""

import os
from pathlib import Path

from ...engine.specs.events import Event, LogEvent, StateEvent
from ...engine.telemetry import decode
from ..text import size as size_words

LARGE_BYTES = 192 << 20
"""Longer logs are sampled; a shorter one is read whole, in some seconds."""
TAIL_BYTES = 1 << 20
PIECE_BYTES = 4 << 10
ROUNDS = (300, 3000)
"""Pieces of the first look and of the second one."""


class Sampling:
    """Reads pieces of a log.

    Args:
        path: The log.
        size: Its length in bytes now.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._rounds = list(ROUNDS)

    @property
    def is_over(self) -> bool:
        """Whether the last look was taken; what follows is the end, ``TAIL_BYTES`` long."""
        return not self._rounds

    def next_look(self) -> list[Event]:
        """Return the events of the next, finer look, from the beginning to the end of the log."""
        end = self._size - TAIL_BYTES
        num_pieces = min(self._rounds.pop(0), max(1, end // (2 * PIECE_BYTES)))
        note = LogEvent(
            t=0.0, message=f"a log of {size_words(self._size)}: pieces of it are shown, and its end"
        )
        events: list[Event] = []
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            for number in range(num_pieces):
                offset = end * number // num_pieces
                data = os.pread(descriptor, PIECE_BYTES * (16 if number == 0 else 1), offset)
                lines = data.split(b"\n")[0 if number == 0 else 1 : -1]
                found = [event for line in lines if (event := decode(line)) is not None]
                # A piece without its neighbours cannot tell that an attempt began: only the steps count.
                events += found if number == 0 else [one for one in found if not isinstance(one, StateEvent)]
            tail = os.pread(descriptor, TAIL_BYTES, end) if self._rounds else b""
            events += [event for line in tail.split(b"\n")[1:] if (event := decode(line)) is not None]
        finally:
            os.close(descriptor)
        return [*events, *([note] if events and not self._rounds else [])]
