"""What came of a run, in a few lines, read from its events."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..engine.rundir import RunFolder
from ..engine.specs.events import EvalEvent, SampleEvent, StepEvent
from ..engine.telemetry import Follower, decode, follow
from ..tui.text import number, percent, safe, shorten

NUM_SAMPLES = 3
PROMPT_CELLS = 40
ANSWER_CELLS = 24
TAIL_BYTES = 64 << 10
"""End of the event log in which the newest step is looked for."""


@dataclass
class _Read:
    first: StepEvent | None = None
    last: StepEvent | None = None
    matches: list[float] = field(default_factory=list)
    before: dict[int, SampleEvent] = field(default_factory=dict)
    after: dict[int, SampleEvent] = field(default_factory=dict)


def outcome(run: RunFolder) -> Iterator[str]:
    """Yield first and last loss, exact match, a few answers before and after, and where the model is."""
    read = _read(run)
    if read.first is not None and read.last is not None:
        yield f"  loss      {number(read.first.loss)} → {number(read.last.loss)}"
    if read.matches:
        yield f"  exact     {percent(read.matches[0])} → {percent(read.matches[-1])}"
    for index in sorted(read.after)[:NUM_SAMPLES]:
        before, after = read.before[index], read.after[index]
        if before.step != after.step:
            yield f"  sample    {_cut(after.prompt, PROMPT_CELLS)}: {_answer(before)} → {_answer(after)}"
    if run.final_model.is_dir():
        yield f"  model     {run.final_model}"


def last_step(run: RunFolder) -> StepEvent | None:
    """Return the newest step of a run, read from the end of its events."""
    tail = Follower(run.events_file, tail_bytes=TAIL_BYTES)
    events = (decode(line) for line in reversed(tail.poll()))
    found = next((event for event in events if isinstance(event, StepEvent)), None)
    tail.close()
    return found


def _read(run: RunFolder) -> _Read:
    read = _Read()
    for event in follow(run.events_file, until=lambda: True):
        if isinstance(event, StepEvent) and event.loss is not None:
            read.first, read.last = read.first or event, event
        elif isinstance(event, EvalEvent) and event.exact_match is not None:
            read.matches.append(event.exact_match)
        elif isinstance(event, SampleEvent):
            read.before.setdefault(event.index, event)
            read.after[event.index] = event
    return read


def _answer(sample: SampleEvent) -> str:
    return _cut(sample.completion, ANSWER_CELLS) or "(nothing)"


def _cut(text: str, width: int) -> str:
    return shorten(safe(text).strip(), width)
