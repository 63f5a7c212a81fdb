"""What the files and processes of an attempt tell: turns them into ``policy.Facts``. Signals nobody."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..health import Health
from ..rundir import RunFolder
from ..specs.events import AlertEvent, DevicesEvent, EndEvent, Event, RankEvent, StateEvent, StepEvent
from ..specs.run import ProcessIdentity
from ..telemetry import EventFollower
from . import process
from .policy import Facts, describe_exit
from .stall import Stall, what_is_seen


@dataclass(kw_only=True)
class Watch:
    """Follows one attempt. ``look`` reads what is new; the rest is what was found so far."""

    run: RunFolder
    grace_seconds: float
    marker: str
    since: float | None = None
    """Unix time at which the attempt began, for one that is taken over in its course."""
    launcher: ProcessIdentity | None = None
    launcher_exited_at: float | None = None
    launcher_code: int | None = None
    num_processes: int = 1
    stop_asked_at: float | None = None
    stop_now_at: float | None = None
    restart_asked_at: float | None = None
    stalled: str | None = None
    """The newest standstill in words, while it lasts."""
    rank_failed_at: float | None = None
    failed_rank: str | None = None
    vanished_rank: int | None = None
    """A rank that was gone without an exit record."""
    end: EndEvent | None = None
    ended_at: float | None = None
    has_progress: bool = False
    last_step: StepEvent | None = None
    alerts: list[AlertEvent] = field(default_factory=list)
    findings: list[AlertEvent] = field(default_factory=list)
    """What the rules of health saw since the supervisor last took it from here."""
    ranks: dict[int, tuple[int, ProcessIdentity | None]] = field(default_factory=dict)
    """Pid by rank, and who had it when the rank made itself known: ``None`` when it was dead by then."""
    exit_records: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Pass over what earlier attempts wrote."""
        self._health = Health()
        self.stall = Stall()
        self._follower = EventFollower(self.run.events_file)
        while (events := self._follower.poll()) or self._follower.behind:
            for event in events:
                if self.since is not None and event.t >= self.since:
                    self._take(event)
                else:
                    self._health.feed(event)  # an earlier attempt's: only what is usual is learnt from it

    def facts(self) -> Facts:
        """Return what is known now."""
        return Facts(
            now=time.monotonic(),
            grace_seconds=self.grace_seconds,
            num_processes=self.num_processes,
            launcher_exited_at=self.launcher_exited_at,
            launcher_code=self.launcher_code,
            stop_asked_at=self.stop_asked_at,
            stop_now_at=self.stop_now_at,
            restart_asked_at=self.restart_asked_at,
            rank_failed_at=self.rank_failed_at,
            failed_rank=self.failed_rank,
            end=self.end,
            ended_at=self.ended_at,
        )

    def look(self, *, being_ended: bool) -> None:
        """Read new events, the stop request, the exit records, and whether the ranks live.

        Args:
            being_ended: We have begun to end processes: a rank that is gone is our own doing.
        """
        for event in self._follower.poll():
            self._take(event)
            self.findings += self._health.feed(event)
        self._read_stop_request()
        dead = [rank for rank, (_, known) in self.ranks.items() if known is None or not process.alive(known)]
        self._read_exit_records()  # after the look at the dead: a rank writes its record and then dies
        if not being_ended and self.rank_failed_at is None:
            self._look_for_failed_rank(dead)
        if self.launcher_exited_at is not None:
            self.num_processes = len(self.members())

    def members(self) -> list[ProcessIdentity]:
        """Return every living process of the run, other than the supervisor."""
        return process.members(self.marker, root=os.getpid())

    def look_at_devices(self, sample: DevicesEvent) -> None:
        """Take a sample of the devices and the host."""
        self.findings += self._health.feed(sample)

    def look_for_stall(self) -> None:
        """Note it when nothing has been heard for far longer than a step takes."""
        now = time.monotonic()
        if self.stall.told_at is None:
            self.stalled = None  # it went on
        if self.end is not None or self.stop_asked_at is not None or not self.stall.is_new(now):
            return
        ranks = {rank: known for rank, (_, known) in self.ranks.items() if known is not None}
        step = self.last_step.step if self.last_step else None
        silent = f"nothing was heard for {self.stall.silent_seconds(now):.0f} s since step {step}"
        self.stalled = f"{silent}: {what_is_seen(ranks, self.run.log_folder)}"
        self.findings.append(
            AlertEvent(t=time.time(), level="warning", code="stall", message=self.stalled, step=step)
        )

    def ask_to_stop(self, *, now: bool = False) -> None:
        """Note that the run shall stop."""
        moment = time.monotonic()
        self.stop_asked_at = self.stop_asked_at or moment
        if now:
            self.stop_now_at = self.stop_now_at or moment

    def close(self) -> None:
        """Read the last events and let go of the file."""
        self.look(being_ended=True)
        self._follower.close()

    def _take(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case AlertEvent():
                self.alerts.append(event)
            case StateEvent():
                pass  # our own word is no sign of life
            case StepEvent():
                self.has_progress, self.last_step = True, event
                self.stall.step(now)
            case _:
                self.stall.sign(now)
                self._take_sign(event, now)

    def _take_sign(self, event: Event, now: float) -> None:
        match event:
            case RankEvent():
                self.has_progress = True
                if event.host == socket.gethostname():
                    self.ranks[event.rank] = (event.pid, process.identify(event.pid))
            case EndEvent():
                self.end, self.ended_at = event, now

    def _read_stop_request(self) -> None:
        if self.run.stop_now_request.exists():
            self.ask_to_stop(now=True)
        elif self.run.stop_request.exists():
            self.ask_to_stop()

    def _read_exit_records(self) -> None:
        for path in self.run.exit_folder.glob("rank-*.json"):
            rank = path.stem.removeprefix("rank-")
            if not rank.isdigit() or int(rank) in self.exit_records:
                continue
            try:
                body = json.loads(path.read_text(encoding="utf8"))
            except (OSError, ValueError):
                continue  # half written: the next look reads it
            if isinstance(body, dict):
                self.exit_records[int(rank)] = body

    def _look_for_failed_rank(self, dead: list[int]) -> None:
        for rank, record in self.exit_records.items():
            if record.get("status") == "failed":
                self._rank_failed(f"rank {rank} failed: {record.get('error') or 'it says no reason'}")
                return
        for rank in dead:
            if rank not in self.exit_records:
                self.vanished_rank = rank
                self._rank_failed(f"rank {rank} died without a word (pid {self.ranks[rank][0]})")
                return

    def _rank_failed(self, what: str) -> None:
        # The launcher's death takes its ranks along and is then the cause, not the ranks.
        if self.launcher_code is not None and self.launcher_code < 0:
            what = f"the launcher {describe_exit(self.launcher_code)}"
        self.rank_failed_at, self.failed_rank = time.monotonic(), what
