"""What trials do to runs, and what they demand of them."""

from lab import ENDLESS, Lab, Lost, Seen, wait_for

from ftwiz.engine import checkpoints
from ftwiz.engine.specs.run import RunState


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Lost(what)


def started(lab: Lab, *settings: str) -> Seen:
    """Start an endless run without a terminal."""
    done = lab.call("run", str(lab.job), "--detach", *sets(lab, *ENDLESS, *settings))
    demand(done.returncode == 0, f"it does not start: {done.stderr[-300:]}")
    return lab.newest(len(lab.runs))


def sets(lab: Lab, *settings: str) -> list[str]:
    command = lab.run_command(*settings)
    return command[command.index("--set") :]


def can_go_on(lab: Lab, seen: Seen) -> None:
    """Resume, see a step from where the newest whole checkpoint stands, and end it."""
    newest = checkpoints.newest_whole(seen.run.checkpoints)
    done = lab.call("resume", seen.run.id, "--detach")
    demand(done.returncode == 0, f"it cannot be resumed: {done.stderr[-300:]}")
    attempt = len(seen.run.read_record().attempts)
    wanted = checkpoints.step_of(newest) if newest else 0
    pids = {event.pid for event in seen.events if event.kind == "rank"}
    wait_for(
        lambda: (
            any(event.kind == "rank" and event.pid not in pids for event in seen.events)
            or seen.record.state.is_over
        ),
        "the resumed ranks do not come up",
        seconds=180,
    )
    count = len(seen.steps)
    wait_for(lambda: len(seen.steps) > count or seen.record.state.is_over, "no step after resuming")
    wait_for(lambda: seen.record.state is not RunState.LAUNCHING, "it stays in state launching", seconds=10)
    record = seen.run.read_record()
    demand(record.state is RunState.RUNNING, f"resumed it is {record.state}: {record.reason}")
    demand(attempt == len(record.attempts), "another attempt was begun")
    demand(record.attempts[-1].resumed_from == (newest.name if newest else None), "resumed from another one")
    demand((wanted or 0) < seen.steps[-1].step, "it did not go on from its checkpoint")


def stop_now(lab: Lab, seen: Seen) -> None:
    lab.call("stop", seen.run.id, "--now")
    seen.until_over()
