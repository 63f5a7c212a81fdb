"""Wall time of training alone: evaluations, samples and saves between two steps are left out."""

from collections.abc import Callable
from time import perf_counter


class Stopwatch:
    """Measures laps, and forgets the time between ``pause`` and ``go_on``."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._started: float | None = None
        self._paused_at: float | None = None
        self._paused_seconds = 0.0

    @property
    def started(self) -> bool:
        """Whether a lap is being measured."""
        return self._started is not None

    def start(self) -> None:
        """Begin a lap now."""
        self._started, self._paused_at, self._paused_seconds = self._clock(), None, 0.0

    def pause(self) -> None:
        """Stop counting; a second call moves nothing."""
        if self._paused_at is None:
            self._paused_at = self._clock()

    def go_on(self) -> None:
        """Count again."""
        if self._paused_at is not None:
            self._paused_seconds += self._clock() - self._paused_at
            self._paused_at = None

    def lap_seconds(self) -> float:
        """Return the counted seconds since the lap began, and begin the next."""
        assert self._started is not None
        self.go_on()
        now = self._clock()
        seconds = now - self._started - self._paused_seconds
        self._started, self._paused_seconds = now, 0.0
        return seconds
