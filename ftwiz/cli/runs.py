"""The commands about runs that exist: runs, logs and stop."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ..engine import supervise
from ..engine.errors import BadInput, ExitCode, FtwizError
from ..engine.rundir import RunFolder, find, list_runs, runs_root
from ..engine.specs.events import StepEvent
from ..engine.specs.run import RunRecord, RunState
from ..engine.telemetry import Follower, decode
from ..tui.text import NOT_AVAILABLE, duration, number, safe
from .follow import ending, say

POLL_SECONDS = 0.2
WAIT_NOTE_SECONDS = 15.0
EVENT_TAIL_BYTES = 64 << 10
# What colours and moves the cursor, whole; `safe` makes harmless whatever is left of it.
_SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[@-Z\\-_]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A run as one line of the list; unknown is ``None``."""

    run: RunFolder
    record: RunRecord | None
    step: StepEvent | None
    devices: str | None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the runs as a JSON list.")
@click.option("--watch", "watching", is_flag=True, help="On one screen: enter opens a run, space marks one.")
def runs(*, as_json: bool, watching: bool) -> None:
    """List the runs, newest first."""
    root = runs_root(os.environ)
    if watching:
        from .watch import choose_and_watch

        choose_and_watch(root)
        return
    listed = [_listed(run) for run in list_runs(root)]
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in listed], indent=2))
        return
    if not listed:
        say([f"no runs in {root}; start one with: ftwiz run JOB.yaml"])
        return
    for line in _aligned([("RUN", "STATE", "STEP", "LOSS", "AGE", "DEVICES", "HOST"), *map(_row, listed)]):
        click.echo(line)


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Wait for more until the run is over.")
@click.option("--rank", type=click.IntRange(min=0), default=0, help="Which rank; 0 when absent.")
@click.option("--launcher", is_flag=True, help="What the launch command wrote instead.")
@click.option("--lines", type=click.IntRange(min=0), default=100, help="How many of the last lines; 100.")
def logs(run: str | None, *, following: bool, rank: int, launcher: bool, lines: int) -> None:
    """Print what a rank wrote; of the newest run when none is named."""
    folder = find(runs_root(os.environ), run)
    path = folder.launcher_log if launcher else folder.rank_log(rank)
    if not path.exists() and not following:
        known = ", ".join(sorted(log.stem for log in folder.log_folder.glob("*.log"))) or "none yet"
        raise BadInput(f"{folder.id} has no {path.name}", hint=f"logs of this run: {known}")
    log = Follower(path, tail_bytes=_tail_bytes(path, lines))
    with contextlib.suppress(KeyboardInterrupt):
        for line in _lines(log, folder, following=following, newest=lines):
            click.echo(harmless(line))


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--now", is_flag=True, help="Do not save; end it at once.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is over; on when absent.")
def stop(run: str | None, *, now: bool, wait: bool) -> int:
    """Save a checkpoint and stop a run; the one that is alive when none is named."""
    folder = find(runs_root(os.environ), run) if run else _only_living(runs_root(os.environ))
    record = supervise.tend(folder)
    if record.state.is_over and record.state is not RunState.LOST:
        say([f"{folder.id} is over already: {record.reason or record.state}"])
        return ExitCode.OK
    supervise.request_stop(folder, now=now)
    say([f"{folder.id} ends at once" if now else f"{folder.id} saves a checkpoint and stops"])
    if not wait:
        return ExitCode.OK
    try:
        _wait(folder)
    except KeyboardInterrupt:
        say([f"{folder.id} goes on stopping; see: ftwiz runs"])
        return ExitCode.INTERRUPTED
    say(ending(folder))
    return ExitCode.RUN_FAILED if supervise.status(folder).state is RunState.FAILED else ExitCode.OK


def harmless(line: bytes) -> str:
    """Return a line of a log that cannot command the terminal; of a progress bar its last state."""
    text = _SEQUENCES.sub("", line.decode(errors="replace")).rstrip("\r")
    return "    ".join(safe(part) for part in text.rpartition("\r")[2].split("\t"))


def _lines(log: Follower, run: RunFolder, *, following: bool, newest: int) -> Iterator[bytes]:
    first = log.poll()
    yield from first[len(first) - newest :] if newest < len(first) else first
    while following:
        over = supervise.tend(run).state.is_over
        yield from log.poll()
        if over and not log.behind:
            return
        time.sleep(POLL_SECONDS)


def _tail_bytes(path: Path, lines: int) -> int:
    """Return how far before its end a log has to be read for so many lines."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        position = end = file.seek(0, os.SEEK_END)
        found = 0
        while position > 0 and found <= lines:
            size = min(position, 1 << 16)
            position -= size
            file.seek(position)
            found += file.read(size).count(b"\n")
        return max(1, end - position)
    return 1 << 16


def _only_living(root: Path) -> RunFolder:
    living = [run for run in list_runs(root) if _lives(run)]
    if not living:
        raise BadInput(f"no run in {root} is alive", hint="see: ftwiz runs")
    if len(living) > 1:
        names = ", ".join(run.id for run in living[:4])
        raise BadInput(f"{len(living)} runs are alive: {names}", hint="say which: ftwiz stop RUN")
    return living[0]


def _lives(run: RunFolder) -> bool:
    with contextlib.suppress(FtwizError):
        record = supervise.tend(run)
        return record.state is not RunState.CREATED and not record.state.is_over
    return False


def _wait(run: RunFolder) -> None:
    """Wait until nothing of the run lives; say now and then that it still does."""
    began = noted = time.monotonic()
    while True:
        record = supervise.status(run)
        if record.state.is_over and not (record.state is RunState.LOST and supervise.leftovers(record)):
            return
        if time.monotonic() - noted >= WAIT_NOTE_SECONDS:
            noted = time.monotonic()
            say([f"still stopping after {duration(noted - began)}; at once: ftwiz stop {run.id} --now"])
        time.sleep(POLL_SECONDS)


def _listed(run: RunFolder) -> Listed:
    try:
        record = supervise.tend(run)
    except FtwizError:
        return Listed(run=run, record=None, step=None, devices=None)
    return Listed(run=run, record=record, step=_last_step(run), devices=_devices(run))


def _last_step(run: RunFolder) -> StepEvent | None:
    """Return the newest step of a run, looked for at the end of its events."""
    tail = Follower(run.events_file, tail_bytes=EVENT_TAIL_BYTES)
    events = (decode(line) for line in reversed(tail.poll()))
    found = next((event for event in events if isinstance(event, StepEvent)), None)
    tail.close()
    return found


def _devices(run: RunFolder) -> str | None:
    try:
        strategy = json.loads(run.plan_file.read_bytes())["strategy"]
        return f"{int(strategy['num_processes'])}x{strategy['device_kind']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _row(one: Listed) -> tuple[str, ...]:
    if one.record is None:
        return (one.run.id, "unreadable", *[NOT_AVAILABLE] * 5)
    step = f"{one.step.step}/{one.step.max_steps}" if one.step else NOT_AVAILABLE
    loss = number(one.step.loss) if one.step else NOT_AVAILABLE
    age = duration(max(0.0, time.time() - one.record.created_at))
    return (one.run.id, one.record.state, step, loss, age, one.devices or NOT_AVAILABLE, one.record.host)


def _as_json(one: Listed) -> dict[str, Any]:
    record = asdict(one.record) if one.record else {"id": one.run.id, "state": None}
    step = {"step": one.step.step, "max_steps": one.step.max_steps, "loss": one.step.loss} if one.step else {}
    return record | {"path": str(one.run.path), "devices": one.devices, "progress": step or None}


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    clean = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
