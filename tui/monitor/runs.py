"""All runs on one screen: state, progress, a small picture of the loss; enter opens one, space marks one."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from ...engine.errors import FtwizError
from ...engine.rundir import RunFolder
from ...engine.specs.events import StepEvent
from ...engine.specs.run import RunRecord
from ...engine.telemetry import decode
from ..lean import LeanApp
from ..text import NOT_AVAILABLE, duration, fit, number, safe
from ..widgets.lines import Lines, Row, Span, cut, heading
from ..widgets.theme import THEMES, theme_for
from .history import LARGEST
from .panels import STATE_STYLES

_PIECES, _PIECE_BYTES = 24, 2048
_BLOCKS = "▁▂▃▄▅▆▇█"
_PERIOD_SECONDS = 1.0
_FRESH_SECONDS = 3.0
_TITLES = "state       step              loss  left      loss over the run"
_KEYS: Row = (
    ("enter ", "key"),
    ("open   ", "dim"),
    ("space ", "key"),
    ("mark to compare   ", "dim"),
    ("q ", "key"),
    ("leave", "dim"),
)


@dataclass(frozen=True, slots=True)
class Known:
    """What was read of a run, and when."""

    record: RunRecord | None
    losses: tuple[float, ...]
    last: StepEvent | None
    read_at: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the user opened, and what to draw beside it."""

    run: RunFolder
    compare: str | None = None


def read_known(run: RunFolder, status: Callable[[RunFolder], RunRecord], now: float) -> Known:
    """Return how a run stands, from small pieces of its log."""
    record = None
    with contextlib.suppress(FtwizError):
        record = status(run)
    steps = glimpse(run.events_file)
    losses = tuple(step.loss for step in steps if step.loss is not None and abs(step.loss) < LARGEST)
    return Known(record, losses, steps[-1] if steps else None, now)


def glimpse(path: Path) -> list[StepEvent]:
    """Return some steps of a log from all over it, the newest among them."""
    found: list[StepEvent] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        end = os.fstat(descriptor).st_size
        for piece in range(_PIECES + 1):
            newest = piece == _PIECES
            offset = max(0, end - 8 * _PIECE_BYTES) if newest else end * piece // _PIECES
            data = os.pread(descriptor, _PIECE_BYTES * (8 if newest else 1), offset)
            lines = data.split(b"\n")[0 if offset == 0 else 1 : -1]
            steps = [event for line in lines if isinstance(event := decode(line), StepEvent)]
            found += steps[-1:] if newest else steps[:1]
    except OSError:
        return found
    finally:
        os.close(descriptor)
    return found


class Runs(LeanApp[Chosen | None]):
    """Lists runs and says which one is to be opened.

    Args:
        runs: Asked for every second; newest first.
        status: How a run stands.
        clock: Unix time.
    """

    CSS_PATH = ["../widgets/lines.tcss", "monitor.tcss"]  # noqa: RUF012 - textual's variable
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape,ctrl+c", "leave"),
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", "move(-10)"),
        Binding("pagedown", "move(10)"),
        Binding("enter", "open"),
        Binding("space", "mark"),
        Binding("ctrl+l", "redraw"),
    ]

    def __init__(
        self,
        runs: Callable[[], Sequence[RunFolder]],
        *,
        status: Callable[[RunFolder], RunRecord],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = theme_for(os.environ).name
        self.is_ascii = bool(os.environ.get("FTWIZ_ASCII"))
        self._list, self._status, self._clock = runs, status, clock
        self._runs: list[RunFolder] = []
        self._known: dict[str, Known] = {}
        self._at = 0
        self._marked: str | None = None

    def compose(self) -> ComposeResult:
        """One list over the whole screen."""
        yield Lines(id="runs")

    def on_mount(self) -> None:
        """Look now, and again every second."""
        self._look()
        self.set_interval(_PERIOD_SECONDS, self._look)

    def on_resize(self) -> None:
        """Fit the new size."""
        self._draw()

    def action_leave(self) -> None:
        """Open none."""
        self.exit(None)

    def action_move(self, by: int) -> None:
        """Go to another run."""
        self._at = max(0, min(len(self._runs) - 1, self._at + by))
        self._draw()

    def action_mark(self) -> None:
        """Mark a run to be drawn beside the one that is opened; again: no mark."""
        if self._runs:
            here = self._runs[self._at].id
            self._marked = None if self._marked == here else here
            self._draw()

    def action_open(self) -> None:
        """Open the run, beside the marked one if that is another."""
        if self._runs:
            run = self._runs[self._at]
            self.exit(Chosen(run, None if self._marked == run.id else self._marked))

    def _look(self) -> None:
        here = self._runs[self._at].id if self._runs else None
        self._runs = list(self._list())
        ids = [run.id for run in self._runs]
        self._at = ids.index(here) if here in ids else min(self._at, max(0, len(ids) - 1))
        self._draw()

    def _draw(self) -> None:
        height, width = self.size.height, self.size.width - 2
        found = self.query(Lines)
        if width < 1 or not found:
            return
        room = max(1, height - 3)
        first = max(0, min(self._at - room // 2, len(self._runs) - room))
        shown = self._runs[first : first + room]
        rows: list[Row] = [
            heading([("runs", "title"), (f"  {len(self._runs)}", "dim")], width),
            cut([(f"  {'run':<{_name_width(width)}}  {_TITLES}", "dim")], width),
        ]
        rows += [self._row(run, width, is_here=first + at == self._at) for at, run in enumerate(shown)]
        rows += [()] * (height - 1 - len(rows))
        rows.append(_KEYS)
        found.first().show(rows)

    def _row(self, run: RunFolder, width: int, *, is_here: bool) -> Row:
        known = self._of(run)
        record, last = known.record, known.last
        state = record.state.value if record else "unreadable"
        style = STATE_STYLES.get(record.state, "accent") if record else "error"
        left = None
        if last and last.step_seconds and record and not record.state.is_over:
            left = (last.max_steps - last.step) * last.step_seconds
        step = f"{last.step:,}/{last.max_steps:,}" if last else NOT_AVAILABLE
        mark = "*" if run.id == self._marked else " "
        spans: list[Span] = [
            ("▸" if is_here else " ", "key"),
            (f"{mark}{fit(safe(run.id), _name_width(width))}  ", "bright" if is_here else "text"),
            (f"{state:<11} ", style),
            (f"{step:<15} ", "text"),
            (f"{number(last.loss if last else None):>6}  ", "bright"),
            (f"{duration(left) if left is not None else '':<9} ", "dim"),
            (blocks(known.losses, 20), "curve"),
        ]
        return cut(spans, width)

    def _of(self, run: RunFolder) -> Known:
        """Read a run that is in sight: one that is over once, a living one every few seconds."""
        now = self._clock()
        known = self._known.get(run.id)
        is_over = known is not None and known.record is not None and known.record.state.is_over
        if known is None or now - known.read_at > (30 * _FRESH_SECONDS if is_over else _FRESH_SECONDS):
            known = replace(read_known(run, self._status, now), read_at=now)
            self._known[run.id] = known
        return known


def _name_width(width: int) -> int:
    """Return the cells of an id: what the other columns leave."""
    return max(12, min(40, width - 78))


def blocks(values: Sequence[float], width: int) -> str:
    """Return a picture of one row, ``width`` cells wide at most: the lowest value is the lowest block."""
    if len(values) < 2:  # noqa: PLR2004 - a single value has no course
        return ""
    low, high = min(values), max(values)
    most = len(values) - 1
    picked = [values[at * most // (width - 1)] for at in range(width)] if most >= width else values
    span = (high - low) or 1.0
    return "".join(
        _BLOCKS[min(len(_BLOCKS) - 1, int((value - low) / span * len(_BLOCKS)))] for value in picked
    )
