"""The walk that ftwiz is made for: log in, accept the demo, watch it, lose the line, come back, stop it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.checkpoints import newest_whole
from ftwiz.engine.rundir import RunFolder, list_runs
from ftwiz.engine.specs.events import StepEvent
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.telemetry import read_events

pytestmark = [pytest.mark.e2e, pytest.mark.train, pytest.mark.timeout(400)]

SIZES = [pytest.param(120, 40, id="120x40"), pytest.param(80, 24, id="80x24")]


def _steps(run: RunFolder) -> int:
    return max(
        (event.step for event in read_events(run.events_file) if isinstance(event, StepEvent)), default=0
    )


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_a_run_outlives_the_login_that_started_it(
    columns: int,
    rows: int,
    ssh_server: Any,
    open_terminal: Callable[..., Any],
    home: Path,
    ftwiz_processes: Callable[[], list[str]],
    eventually: Callable[[Callable[[], bool], float], bool],
) -> None:
    first = open_terminal(ssh_server.login(), columns=columns, rows=rows)
    first.wait_for(r"box\$")
    first.run(f"cd {home}; clear; ftwiz")
    first.wait_for("Start training", seconds=20)
    first.press("Enter")
    first.wait_for("Write the job and start training", seconds=10)
    assert not (home / "demo.yaml").exists(), "nothing is written before the last key"
    first.press("Enter")
    first.wait_for(r"RUNNING[^\0]*loss +\d", seconds=90)

    assert (home / "demo.yaml").is_file()
    (run,) = list_runs(home / "runs")
    before = _steps(run)
    first.kill_program()
    assert eventually(lambda: _steps(run) > before + 5, 60), "training stopped with the login"
    assert run.read_record().state is RunState.RUNNING

    second = open_terminal(ssh_server.login(), columns=columns, rows=rows)
    second.wait_for(r"box\$")
    second.run("clear; ftwiz watch")
    second.wait_for(r"RUNNING[^\0]*loss +\d", seconds=20)
    second.press("q")
    second.wait_for(r"box\$", seconds=10)
    assert run.read_record().state is RunState.RUNNING, "leaving the monitor ended the run"

    second.run("clear; ftwiz stop; echo code=$?")
    second.wait_for(r"code=0", seconds=60)
    assert eventually(lambda: run.read_record().state.is_over, 60)
    assert run.read_record().state is RunState.STOPPED
    assert newest_whole(run.checkpoints) is not None
    assert eventually(lambda: not ftwiz_processes(), 20), ftwiz_processes()
