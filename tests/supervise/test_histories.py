"""What a run's folder says after everything that can happen to its processes, and that none is left."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from ftwiz.engine import supervise
from ftwiz.engine.errors import ExitCode, Refused
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise import process

pytestmark = pytest.mark.timeout(120)
Make = Callable[..., Any]
Wait = Callable[..., Any]


def test_a_run_goes_from_launching_over_running_to_finished(standin: Make) -> None:
    run = standin("--steps", "5").start()
    record = run.wait_until_over()
    assert run.states == ["launching", "running", "finished"]
    assert record.reason == "finished at step 5 of 5"
    assert record.attempts[0].exit_code == 0
    assert record.attempts[0].ended_at is not None
    assert record.resumable_from == "checkpoint-5"
    assert supervise.exit_code(record) == ExitCode.OK
    assert run.processes == []


def test_devices_and_host_are_sampled_every_second(standin: Make) -> None:
    run = standin("--steps", "60").start()
    run.wait_until_over()
    lines = run.run.devices_file(0).read_text().splitlines()
    assert len(lines) >= 3
    assert '"run_memory_bytes":' in lines[-1]


def test_stop_saves_and_the_run_can_go_on_from_there(standin: Make, wait_for: Wait) -> None:
    run = standin().start()
    run.wait_for_step(3)
    supervise.request_stop(run.run)
    record = run.wait_until_over()
    assert run.states == ["launching", "running", "stopping", "stopped"]
    assert supervise.exit_code(record) == ExitCode.RESUMABLE
    name = supervise.resume(run.run)
    assert name == record.resumable_from
    wait_for(lambda: run.states.count("running") == 2)
    assert run.record.attempts[1].resumed_from == name
    assert not run.run.stop_request.exists()
    assert run.record.resumable_from is None


def test_a_stop_without_a_checkpoint_is_not_resumable(standin: Make) -> None:
    run = standin("--deaf", grace_seconds=0.5).start()
    run.wait_for_step(1)
    supervise.request_stop(run.run)
    record = run.wait_until_over(seconds=15)
    assert record.state is RunState.STOPPED
    assert supervise.exit_code(record) == ExitCode.RUN_FAILED
    assert supervise.resume(run.run) is None


def test_a_worker_that_ignores_everything_is_killed_after_the_grace_period(standin: Make) -> None:
    run = standin("--deaf", "--ignore-term", "--hide", grace_seconds=1).start()
    run.wait_for_step(3)
    asked = time.monotonic()
    supervise.request_stop(run.run)
    record = run.wait_until_over(seconds=20)
    assert 5 < time.monotonic() - asked < 10
    assert record.state is RunState.STOPPED
    assert run.processes == []


def test_stop_now_does_not_wait_for_the_grace_period(standin: Make) -> None:
    run = standin("--deaf", "--ignore-term", grace_seconds=300).start()
    run.wait_for_step(3)
    asked = time.monotonic()
    supervise.request_stop(run.run, now=True)
    record = run.wait_until_over(seconds=20)
    assert time.monotonic() - asked < 6
    assert record.reason == "stopped at once, without saving"
    assert run.processes == []


def test_a_killed_launcher_leaves_no_orphan_and_the_run_failed_within_five_seconds(standin: Make) -> None:
    run = standin("--ignore-term", "--hide").start()
    run.wait_for_step(3)
    ranks = [process.identify(run.rank_pid(rank)) for rank in (0, 1)]
    hidden = process.descendants(run.supervisor.pid, process.table())
    killed = time.monotonic()
    os.kill(run.launcher.pid, signal.SIGKILL)
    record = run.wait_until_over(seconds=10)
    assert time.monotonic() - killed < 5
    assert record.state is RunState.FAILED
    assert record.attempts[0].exit_code == -signal.SIGKILL
    assert record.diagnosis is not None
    assert record.diagnosis.cause == "killed"
    assert "signal 9" in record.diagnosis.message
    assert all(identity is not None and not process.alive(identity) for identity in ranks)
    assert len(hidden) == 5
    assert not any(process.identify(pid) for pid in hidden)


@pytest.mark.parametrize("flags", [(), ("--ignore-term",)], ids=["polite", "ignoring SIGTERM"])
def test_a_killed_rank_ends_the_others_within_five_seconds_and_is_named(
    standin: Make, flags: tuple[str, ...]
) -> None:
    run = standin(*flags).start()
    run.wait_for_step(1)  # as early as can be: the supervisor may not have read of the rank before it is dead
    killed = time.monotonic()
    os.kill(run.rank_pid(1), signal.SIGKILL)
    record = run.wait_until_over(seconds=10)
    assert time.monotonic() - killed < 5
    assert record.state is RunState.FAILED
    assert record.diagnosis is not None
    assert "rank 1" in record.diagnosis.message
    assert supervise.exit_code(record) == ExitCode.RUN_FAILED
    assert run.processes == []


def test_a_rank_that_fails_is_named_with_its_own_words(standin: Make) -> None:
    run = standin("--fail-with", "OSError: [Errno 28] No space left on device: 'model.safetensors'").start()
    record = run.wait_until_over(seconds=15)
    assert record.state is RunState.FAILED
    assert record.diagnosis is not None
    assert record.diagnosis.cause == "disk_full"
    assert "model.safetensors" in str(record.diagnosis.evidence)
    assert record.reason == "the disk is full"
    alerts = [event for event in run.events if event.kind == "alert"]
    assert [alert.code for alert in alerts] == ["disk_full"]


def test_an_abort_after_the_end_record_is_a_finished_run(standin: Make) -> None:
    run = standin("--steps", "4", "--abort-after-end").start()
    record = run.wait_until_over()
    assert record.state is RunState.FINISHED
    assert record.attempts[0].exit_code == 1
    assert supervise.exit_code(record) == ExitCode.OK


def test_a_launcher_that_exits_0_without_an_end_record_has_failed(standin: Make) -> None:
    run = standin("--launcher-exits", "0").start()
    record = run.wait_until_over()
    assert record.state is RunState.FAILED
    assert record.reason == "training ended early: the launcher exited with code 0"


def test_sigterm_to_the_supervisor_saves_and_stops(standin: Make) -> None:
    run = standin().start()
    run.wait_for_step(3)
    os.kill(run.supervisor.pid, signal.SIGTERM)
    record = run.wait_until_over()
    assert record.state is RunState.STOPPED
    assert record.resumable_from is not None


def test_a_hangup_does_not_touch_the_run(standin: Make) -> None:
    run = standin().start()
    run.wait_for_step(3)
    os.kill(run.supervisor.pid, signal.SIGHUP)
    step = max(event.step for event in run.events if event.kind == "step")
    run.wait_for_step(step + 20)
    assert run.record.state is RunState.RUNNING


def test_a_second_start_on_a_live_run_is_refused_and_names_it(standin: Make) -> None:
    run = standin().start()
    with pytest.raises(Refused, match=str(run.supervisor.pid)) as refusal:
        supervise.start(run.run)
    assert refusal.value.exit_code == ExitCode.REFUSED
    with pytest.raises(Refused):
        supervise.resume(run.run)
    assert len(run.record.attempts) == 1


def test_a_finished_run_is_not_resumed_and_not_stopped(standin: Make) -> None:
    run = standin("--steps", "2").start()
    run.wait_until_over()
    with pytest.raises(Refused, match="finished"):
        supervise.resume(run.run)
    with pytest.raises(Refused, match="not running"):
        supervise.request_stop(run.run)


def test_a_run_whose_supervisor_was_killed_is_lost_and_its_ranks_can_still_be_stopped(
    standin: Make, wait_for: Wait
) -> None:
    run = standin().start()
    run.wait_for_step(3)
    os.kill(run.supervisor.pid, signal.SIGKILL)
    wait_for(lambda: run.record.state is RunState.LOST)
    assert f"pid {run.supervisor.pid}" in str(run.record.reason)
    step = max(event.step for event in run.events if event.kind == "step")
    run.wait_for_step(step + 5)
    with pytest.raises(Refused, match="still trains"):
        supervise.resume(run.run)
    supervise.request_stop(run.run)
    wait_for(lambda: not run.processes)
    name = supervise.resume(run.run)
    assert name is not None
    run.wait_for_step(int(name.removeprefix("checkpoint-")) + 1)


def test_a_run_of_another_boot_is_lost_by_the_reboot(standin: Make) -> None:
    run = standin("--steps", "2").start()
    record = run.wait_until_over()
    former = dataclasses.replace(run.supervisor, boot_id="another boot")
    run.run.write_record(dataclasses.replace(record, state=RunState.RUNNING, supervisor=former))
    assert (run.record.state, run.record.reason) == (RunState.LOST, "the host was rebooted")
    assert run.record.resumable_from == "checkpoint-2"
    assert supervise.exit_code(run.record) == ExitCode.RUN_FAILED


def test_a_run_on_another_host_is_believed_until_it_falls_silent(standin: Make) -> None:
    run = standin("--steps", "2").start()
    record = run.wait_until_over()
    elsewhere = dataclasses.replace(record, state=RunState.RUNNING, host="elsewhere")
    run.run.write_record(elsewhere)
    assert run.record.state is RunState.RUNNING
    with pytest.raises(Refused, match="running on elsewhere"):
        supervise.start(run.run)
    for path in (run.run.record_file, *run.run.devices_files):
        os.utime(path, (1e9, 1e9))
    assert run.record.state is RunState.LOST
    assert "elsewhere" in str(run.record.reason)


def test_stop_now_ends_what_a_lost_run_has_left(standin: Make, wait_for: Wait) -> None:
    run = standin("--deaf", "--ignore-term").start()
    run.wait_for_step(3)
    os.kill(run.supervisor.pid, signal.SIGKILL)
    wait_for(lambda: run.record.state is RunState.LOST)
    supervise.request_stop(run.run, now=True)
    assert run.processes == []


def test_the_ending_is_recorded_also_when_no_event_can_be_written(standin: Make) -> None:
    run = standin()
    run.run.events_file.symlink_to("/dev/full")
    run.start()
    record = run.wait_until_over()
    assert record.state is RunState.FAILED
    assert record.diagnosis is not None
    assert record.diagnosis.cause == "disk_full"
    assert "No space left on device" in str(record.diagnosis.evidence)
    assert "No space left on device; trying again" in run.run.supervisor_log.read_text()


def test_a_supervisor_that_cannot_start_says_why(standin: Make) -> None:
    run = standin()
    run.run.path.joinpath("job.yaml").write_text("version: 1\nmodle: {}\n")
    with pytest.raises(Refused, match="modle"):
        run.start()


def test_a_command_that_does_not_exist_fails_the_run(standin: Make) -> None:
    run = standin()
    plan = run.run.plan_file.read_text().replace('"--ranks"', '"--no-such-flag"')
    run.run.plan_file.write_text(plan)
    run.start()
    record = run.wait_until_over()
    assert record.state is RunState.FAILED
    assert record.diagnosis is not None
    assert "--no-such-flag" in str(record.diagnosis.evidence)
