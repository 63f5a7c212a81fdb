"""The supervisor of one attempt: launches, follows, stops, ends and writes down what happened.

Decides nothing itself: ``policy`` says when something is ended and what the ending is called.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import replace
from types import FrameType

from .. import hardware
from ..rundir import RunFolder
from ..specs.machine import Machine
from ..specs.run import Attempt, Diagnosis, RunRecord, RunState
from . import policy, process
from .diagnose import UNKNOWN, diagnose
from .evidence import LogMarks, gather, newest_checkpoint, oom_kills
from .launch import Launch, environment, joined, marker_of, read_launch, spawn
from .ledger import Ledger, say
from .measured import remember
from .preflight import clear_dead_locks
from .recover import Next, Policy, explain, what_next
from .sampler import Sampler
from .watch import Watch

TICK_SECONDS = 0.2
LAST_WRITE_SECONDS = 60.0
"""How long a full disk may hold up the record of the ending."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Handled and never ignored: a handled signal is back at its default in the programs that we start.
HARMLESS_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2, signal.SIGPIPE)


class Supervisor:
    """Owns every process of a run, from the launch to the last exit, also of attempts after a failure."""

    def __init__(
        self,
        run: RunFolder,
        launch: Launch,
        *,
        grace_seconds: float,
        resume_from: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._run = run
        self._launch = launch
        self._grace_seconds = grace_seconds
        self._resume_from = resume_from
        self._policy = policy or Policy()
        self._ledger = Ledger(run)
        self._marker = marker_of(self._ledger.record)
        self._popen: subprocess.Popen[bytes] | None = None
        self._stop_signalled = False
        self._child_died = False
        self._terminated = False
        self._refusal: str | None = None
        """Why no attempt follows although the job asks for one."""

    def work(self) -> RunRecord:
        """Launch, follow to the end and return the final record. The caller holds the run's lock."""
        self._handle_signals()
        process.become_subreaper()
        machine = hardware.detect()
        for note in clear_dead_locks(os.environ):
            self._ledger.alert("warning", "build_lock", note)
        self._attempt(machine, None)
        self._finish(machine)
        return self._ledger.record

    def adopt(self) -> RunRecord:
        """Take over an attempt whose supervisor is gone, follow it to its end and return the final record.

        The launcher is nobody's child by now, so its exit status is lost; rank 0's last event and the exit
        records of the ranks say how the run ended.
        """
        self._handle_signals()
        process.become_subreaper()
        before, attempt = self._ledger.record.supervisor, self._ledger.record.attempts[-1]
        self._watch = Watch(
            run=self._run,
            grace_seconds=self._grace_seconds,
            marker=self._marker,
            since=attempt.started_at,
            launcher=attempt.launcher,
        )
        self._marks = LogMarks(self._run, attempt.log_bytes)
        self._oom_kills = oom_kills()
        self._ledger.change(supervisor=process.identify(os.getpid()))
        who = f"pid {before.pid}" if before else "nobody"
        self._ledger.enter(self._ledger.record.state, f"taken over: its supervisor ({who}) was gone")
        machine = hardware.detect()
        self._follow(machine)
        self._finish(machine)
        return self._ledger.record

    def _attempt(self, machine: Machine, following: Next | None) -> None:
        """Launch the ranks and follow them until nothing of them is left."""
        for left in process.kill_all(self._marker):
            say(f"process {left.pid} of an earlier attempt cannot be killed")
        _clear(self._run)
        self._watch = Watch(run=self._run, grace_seconds=self._grace_seconds, marker=self._marker)
        self._marks = LogMarks(self._run)
        self._oom_kills = oom_kills()
        self._popen, self._terminated = None, False
        if self._start_launcher(machine.host.num_cpus or 1, following):
            self._follow(machine)

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
            self._obey_stall()
            self._move()
            self._end_by_force()
        sampler.stop()

    def _tell_findings(self) -> None:
        for finding in self._watch.findings:
            self._ledger.append(finding)
        self._watch.findings.clear()

    def _obey_stall(self) -> None:
        """Do what the job asks for when the run stands still."""
        if self._watch.stalled is None or self._watch.stop_asked_at is not None:
            return
        if self._policy.on_stall == "stop":
            self._request_stop_of_worker()
            self._watch.ask_to_stop()
        elif self._policy.on_stall == "restart":
            self._watch.restart_asked_at = self._watch.restart_asked_at or time.monotonic()

    def _start_launcher(self, num_cpus: int, following: Next | None) -> bool:
        """Start the ranks and write the record that tells ``start`` that we are here."""
        resume = ["--resume-from", self._resume_from] if self._resume_from else []
        environ = environment(
            joined(os.environ, self._launch.environment),
            marker=self._marker,
            num_processes=self._launch.num_processes,
            num_cpus=num_cpus,
            grace_seconds=self._grace_seconds,
        )
        attempt = Attempt(
            number=len(self._ledger.record.attempts) + 1,
            started_at=time.time(),
            resumed_from=self._resume_from,
            recovers_from=following.cause if following else None,
            change=following.change if following else None,
            log_bytes=self._marks.sizes,
        )
        self._ledger.add_attempt(attempt)
        self._ledger.change(
            host=socket.gethostname(),
            supervisor=process.identify(os.getpid()),
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
            self._ledger.change_attempt(launcher=self._watch.launcher)
        self._ledger.enter(RunState.LAUNCHING, _why_launched(self._resume_from, following))
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
            self._ledger.change_attempt(exit_code=code)

    def _move(self) -> None:
        """Follow the table of states; write what a full disk has held up."""
        if self._watch.has_progress:
            self._try_move("progress", None)
        if self._watch.stop_asked_at is not None:
            now = self._watch.stop_now_at is not None
            self._try_move("stop asked", "stops at once" if now else "saves and stops")
        self._ledger.retry()

    def _try_move(self, what: str, reason: str | None) -> None:
        state = policy.TRANSITIONS.get((self._ledger.record.state, what))
        if state is not None:
            self._ledger.enter(state, reason)

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
            say(f"{forced.why}: ending {len(members)} processes")
        for identity in members:
            process.send(identity, number)
        self._terminated = True

    def _request_stop_of_worker(self) -> None:
        try:
            self._run.stop_request.touch(mode=0o600)
        except OSError as error:
            say(f"{self._run.stop_request}: cannot be written: {error.strerror}")

    def _finish(self, machine: Machine) -> None:
        """Write down how the attempt ended, and begin those that the job asks for after a failure."""
        state, reason = self._conclude()
        while (following := self._what_follows(state)) is not None:
            self._launch, self._resume_from = read_launch(self._run), following.resume_from
            for note in following.skipped:
                self._ledger.alert("warning", "checkpoint_skipped", note)
            self._attempt(machine, following)
            state, reason = self._conclude()
        if self._refusal is not None:
            reason = f"{reason}; {self._refusal}"
        self._ledger.enter(state, reason)
        self._ledger.close(seconds=LAST_WRITE_SECONDS)

    def _conclude(self) -> tuple[RunState, str]:
        """Say how the newest attempt ended, and why; what it took is kept."""
        self._watch.close()
        state, reason = policy.verdict(self._watch.facts())
        newest = newest_checkpoint(self._run)
        diagnosis = self._diagnose(newest) if state is RunState.FAILED else None
        if diagnosis is not None and diagnosis.cause != UNKNOWN:
            reason = diagnosis.message
        if left := self._watch.members():
            reason += f"; process {left[0].pid} cannot be killed"
        self._ledger.change_attempt(ended_at=time.time())
        self._ledger.change(diagnosis=diagnosis, resumable_from=newest)
        if diagnosis is not None:
            self._ledger.alert("error", diagnosis.cause, diagnosis.message)
        if complaint := remember(self._run, replace(self._ledger.record, state=state)):
            say(complaint)
        return state, reason

    def _what_follows(self, state: RunState) -> Next | None:
        """Return the attempt that the job asks for; why none can be made is kept in ``_refusal``."""
        self._refusal, diagnosis = None, self._ledger.record.diagnosis
        stops = self._run.stop_request.exists() or self._run.stop_now_request.exists()
        if state is not RunState.FAILED or diagnosis is None or stops or self._stop_signalled:
            return None
        try:
            found = what_next(
                self._run,
                self._policy,
                diagnosis,
                self._ledger.record.attempts,
                has_progress=self._watch.has_progress,
            )
        except Exception as error:  # noqa: BLE001 - the ending must be written whatever a new plan runs into
            found = f"no further attempt could be prepared: {type(error).__name__}: {error}"
        self._refusal = found if isinstance(found, str) else None
        return found if isinstance(found, Next) else None

    def _diagnose(self, newest: str | None) -> Diagnosis:
        evidence = gather(
            self._run,
            self._watch,
            self._marks,
            new_oom_kills=oom_kills() - self._oom_kills,
            ended_by_us=self._terminated and self._watch.rank_failed_at is not None,
        )
        peaks = [record.get("peaks") or {} for record in self._watch.exit_records.values()]
        found = diagnose(evidence)
        try:
            found = explain(self._run, found, peaks=peaks)
        except Exception as error:  # noqa: BLE001 - what would fit is a help, and no reason to lose the ending
            say(f"what would fit cannot be said: {type(error).__name__}: {error}")
        if newest is None or found.command is not None:
            return found
        return replace(found, command=f"ftwiz resume {self._run.id}")

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


def _why_launched(resume_from: str | None, following: Next | None) -> str | None:
    parts = [f"recovers from {following.cause}: {following.change}"] if following else []
    parts += [f"resumes from {resume_from}"] if resume_from else []
    return "; ".join(parts) or None
