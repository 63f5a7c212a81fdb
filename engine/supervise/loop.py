"""The supervisor of one attempt: launches, follows, stops, ends and writes down what happened.

Decides nothing itself: ``policy`` says when something is ended and what the ending is called.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from .. import hardware
from ..rundir import RunFolder
from ..specs.events import AlertEvent, Event, StateEvent
from ..specs.machine import Machine
from ..specs.run import Attempt, Diagnosis, RunRecord, RunState
from ..telemetry import EventLog
from . import policy, process
from .diagnose import UNKNOWN, diagnose
from .evidence import LogMarks, gather, newest_checkpoint, oom_kills
from .launch import Launch, environment, joined, marker_of, spawn
from .measured import remember
from .sampler import Sampler
from .watch import Watch

TICK_SECONDS = 0.2
RETRY_SECONDS = 1.0
LAST_WRITE_SECONDS = 60.0
"""How long a full disk may hold up the record of the ending."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Handled and never ignored: a handled signal is back at its default in the programs that we start.
HARMLESS_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2, signal.SIGPIPE)


class Supervisor:
    """Owns every process of one attempt of a run, from the launch to the last exit."""

    def __init__(
        self, run: RunFolder, launch: Launch, *, grace_seconds: float, resume_from: str | None = None
    ) -> None:
        self._run = run
        self._launch = launch
        self._grace_seconds = grace_seconds
        self._resume_from = resume_from
        self._record = run.read_record()
        self._record_is_written = True
        self._unwritten: list[Event] = []
        self._complained: set[Path] = set()
        self._retry_at = 0.0
        self._marker = marker_of(self._record)
        self._popen: subprocess.Popen[bytes] | None = None
        self._stop_signalled = False
        self._child_died = False
        self._terminated = False

    def work(self) -> RunRecord:
        """Launch, follow to the end and return the final record. The caller holds the run's lock."""
        self._handle_signals()
        process.become_subreaper()
        for left in process.kill_all(self._marker):
            _say(f"process {left.pid} of an earlier attempt cannot be killed")
        _clear(self._run)
        self._events = EventLog(self._run.events_file)
        self._watch = Watch(run=self._run, grace_seconds=self._grace_seconds, marker=self._marker)
        self._marks = LogMarks(self._run)
        self._oom_kills = oom_kills()
        machine = hardware.detect()
        if self._start_launcher(machine.host.num_cpus or 1):
            self._follow(machine)
        self._finish()
        return self._record

    def adopt(self) -> RunRecord:
        """Take over an attempt whose supervisor is gone, follow it to its end and return the final record.

        The launcher is nobody's child by now, so its exit status is lost; rank 0's last event and the exit
        records of the ranks say how the run ended.
        """
        self._handle_signals()
        process.become_subreaper()
        before, attempt = self._record.supervisor, self._record.attempts[-1]
        self._events = EventLog(self._run.events_file)
        self._watch = Watch(
            run=self._run,
            grace_seconds=self._grace_seconds,
            marker=self._marker,
            since=attempt.started_at,
            launcher=attempt.launcher,
        )
        self._marks = LogMarks(self._run, attempt.log_bytes)
        self._oom_kills = oom_kills()
        self._record = replace(self._record, supervisor=process.identify(os.getpid()))
        who = f"pid {before.pid}" if before else "nobody"
        self._enter(self._record.state, f"taken over: its supervisor ({who}) was gone")
        self._follow(hardware.detect())
        self._finish()
        return self._record

    def _follow(self, machine: Machine) -> None:
        """Sample, watch and move until nothing of the attempt is left."""
        sampler = Sampler(self._run, machine)
        sampler.start()
        seen = None
        while not policy.is_over(self._watch.facts()):
            self._wait()
            self._watch.look(being_ended=self._terminated)
            newest = sampler.newest
            if newest is not None and newest is not seen:
                self._watch.look_at_devices(newest)
                seen = newest
            self._watch.look_for_stall()
            self._tell_findings()
            self._move()
            self._end_by_force()
        sampler.stop()

    def _tell_findings(self) -> None:
        for finding in self._watch.findings:
            self._append(finding)
        self._watch.findings.clear()

    def _start_launcher(self, num_cpus: int) -> bool:
        """Start the ranks and write the record that tells ``start`` that we are here."""
        resume = ["--resume-from", self._resume_from] if self._resume_from else []
        environ = environment(
            joined(os.environ, self._launch.environment),
            marker=self._marker,
            num_processes=self._launch.num_processes,
            num_cpus=num_cpus,
            grace_seconds=self._grace_seconds,
        )
        number = len(self._record.attempts) + 1
        attempt = Attempt(
            number=number,
            started_at=time.time(),
            resumed_from=self._resume_from,
            log_bytes=self._marks.sizes,
        )
        self._record = replace(
            self._record,
            host=socket.gethostname(),
            supervisor=process.identify(os.getpid()),
            attempts=(*self._record.attempts, attempt),
            diagnosis=None,
            resumable_from=None,
        )
        try:
            self._popen = spawn((*self._launch.argv, *resume), self._run, environ)
        except OSError as error:
            self._watch.failed_rank = f"{self._launch.argv[0]}: cannot be started: {error.strerror}"
            self._watch.rank_failed_at = time.monotonic()
        else:
            self._watch.launcher = process.identify(self._popen.pid)
            self._change_attempt(launcher=self._watch.launcher)
        self._enter(RunState.LAUNCHING, f"resumes from {self._resume_from}" if self._resume_from else None)
        return self._popen is not None

    def _wait(self) -> None:
        """Sleep a tick, or until a signal comes; then take the exit status of whoever died."""
        with contextlib.suppress(InterruptedError):
            ready, _, _ = select.select([self._wakeup], [], [], TICK_SECONDS)
            if ready:
                os.read(self._wakeup, 4096)
        if self._stop_signalled:
            self._stop_signalled = False
            self._request_stop_of_worker()
            self._watch.ask_to_stop()
        self._take_launcher_exit()
        if self._child_died:
            self._child_died = False
            process.reap_orphans()

    def _take_launcher_exit(self) -> None:
        if self._watch.launcher_exited_at is not None:
            return
        if self._popen is None:  # adopted: not our child
            launcher = self._watch.launcher
            is_gone, code = launcher is None or not process.alive(launcher), None
        else:
            code = self._popen.poll()
            is_gone = code is not None
        if is_gone:
            self._watch.launcher_exited_at = time.monotonic()
            self._watch.launcher_code = code
            self._change_attempt(exit_code=code)

    def _move(self) -> None:
        """Follow the table of states; write what a full disk has held up."""
        if self._watch.has_progress:
            self._try_move("progress", None)
        if self._watch.stop_asked_at is not None:
            now = self._watch.stop_now_at is not None
            self._try_move("stop asked", "stops at once" if now else "saves and stops")
        waiting = self._unwritten or not self._record_is_written
        if waiting and time.monotonic() >= self._retry_at:
            self._write_record()

    def _try_move(self, what: str, reason: str | None) -> None:
        state = policy.TRANSITIONS.get((self._record.state, what))
        if state is not None:
            self._enter(state, reason)

    def _end_by_force(self) -> None:
        facts = self._watch.facts()
        forced = policy.deadline(facts)
        if forced is None or facts.now < forced.terminate_at:
            return
        number = signal.SIGKILL if facts.now >= forced.kill_at else signal.SIGTERM
        if number is signal.SIGTERM and self._terminated:
            return
        members = self._watch.members()
        if members and not self._terminated:
            _say(f"{forced.why}: ending {len(members)} processes")
        for identity in members:
            process.send(identity, number)
        self._terminated = True

    def _request_stop_of_worker(self) -> None:
        try:
            self._run.stop_request.touch(mode=0o600)
        except OSError as error:
            _say(f"{self._run.stop_request}: cannot be written: {error.strerror}")

    def _finish(self) -> None:
        self._watch.close()
        facts = self._watch.facts()
        state, reason = policy.verdict(facts)
        newest = newest_checkpoint(self._run)
        diagnosis = self._diagnose(newest) if state is RunState.FAILED else None
        if diagnosis is not None and diagnosis.cause != UNKNOWN:
            reason = diagnosis.message
        if left := self._watch.members():
            reason += f"; process {left[0].pid} cannot be killed"
        self._change_attempt(ended_at=time.time())
        self._record = replace(self._record, diagnosis=diagnosis, resumable_from=newest)
        if diagnosis is not None:
            self._append(
                AlertEvent(t=time.time(), level="error", code=diagnosis.cause, message=diagnosis.message)
            )
        if complaint := remember(self._run, replace(self._record, state=state)):
            _say(complaint)
        self._enter(state, reason)
        deadline = time.monotonic() + LAST_WRITE_SECONDS
        while not self._record_is_written and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)
            self._write_record()
        self._events.close()

    def _diagnose(self, newest: str | None) -> Diagnosis:
        evidence = gather(
            self._run,
            self._watch,
            self._marks,
            new_oom_kills=oom_kills() - self._oom_kills,
            ended_by_us=self._terminated and self._watch.rank_failed_at is not None,
        )
        found = diagnose(evidence)
        if newest is None or found.command is not None:
            return found
        return replace(found, command=f"ftwiz resume {self._run.id}")

    def _enter(self, state: RunState, reason: str | None) -> None:
        """Move to a state: the event first, so that whoever waits for the record has all events."""
        self._record = replace(self._record, state=state, reason=reason)
        number = len(self._record.attempts)
        self._append(StateEvent(t=time.time(), state=state, attempt=number, reason=reason))
        self._write_record()

    def _append(self, event: Event) -> None:
        self._unwritten.append(event)
        self._write_events()

    def _write_events(self) -> None:
        """Write what is waiting; what a full disk refuses waits on."""
        try:
            while self._unwritten:
                self._events.append(self._unwritten[0])
                del self._unwritten[0]
        except OSError as error:
            self._complain(self._run.events_file, error)

    def _write_record(self) -> None:
        if self._unwritten:
            self._write_events()
        try:
            self._run.write_record(self._record)
        except OSError as error:
            self._complain(self._run.record_file, error)
            self._record_is_written = False
        else:
            self._record_is_written = True

    def _complain(self, path: Path, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if path not in self._complained:
            self._complained.add(path)
            _say(f"{path}: {error.strerror}; trying again")

    def _change_attempt(self, **values: object) -> None:
        *before, last = self._record.attempts
        self._record = replace(self._record, attempts=(*before, replace(last, **values)))  # type: ignore[arg-type]

    def _handle_signals(self) -> None:
        self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        for number in HARMLESS_SIGNALS:
            signal.signal(number, _on_harmless)
        signal.signal(signal.SIGCHLD, self._on_child)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_signalled = True

    def _on_child(self, _number: int, _frame: FrameType | None) -> None:
        self._child_died = True


def _on_harmless(_number: int, _frame: FrameType | None) -> None:
    pass


def _clear(run: RunFolder) -> None:
    """Remove the requests and exit records that an earlier attempt has left."""
    for path in (run.stop_request, run.stop_now_request, run.save_request, *run.exit_folder.glob("*.json")):
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    """Write a line to supervisor.log, which is our stderr."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        sys.stderr.flush()
