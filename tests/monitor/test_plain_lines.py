"""The plain form of recorded runs, word by word, and the JSON forms."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import StepEvent
from ftwiz.engine.telemetry import decode, encode, read_events
from ftwiz.tui.monitor import plain
from ftwiz.tui.text import width_of

Recorded = Callable[[str], RunFolder]
GOLDEN = Path(__file__).parent / "plain"


def told(run: RunFolder, width: int | None = None) -> str:
    lines: list[str] = []
    plain.follow_plain(run, lines.append, until_done=False, width=width)
    return "\n".join(lines).replace(str(run.path.parent), "/runs") + "\n"


@pytest.mark.parametrize("name", ["demo", "nan", "failed", "resumed"])
def test_a_run_is_told_in_these_words(recorded: Recorded, name: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    text = told(recorded(name))
    assert text == golden.read_text(encoding="utf8"), f"if it is better now, write {golden.name} again"


def test_no_line_is_wider_than_the_terminal(recorded: Recorded) -> None:
    assert max(width_of(line) for line in told(recorded("nan"), width=60).splitlines()) <= 60


def test_a_long_run_is_told_in_few_lines(recorded: Recorded) -> None:
    run = recorded("running")
    steps = (StepEvent(t=1000.0 + number / 50, step=number, max_steps=20_000) for number in range(1, 20_001))
    run.events_file.write_bytes(b"".join(map(encode, steps)))
    lines = [line for line in told(run).splitlines() if "  step  " in line]
    assert 50 < len(lines) <= 102
    assert "20000/20000" in lines[-1]


def test_a_slow_run_is_told_at_least_every_minute(recorded: Recorded) -> None:
    run = recorded("running")
    steps = (StepEvent(t=1000.0 + number * 10, step=number, max_steps=10**6) for number in range(1, 61))
    run.events_file.write_bytes(b"".join(map(encode, steps)))
    assert len([line for line in told(run).splitlines() if "  step  " in line]) == 10


def test_json_lines_are_the_events(recorded: Recorded) -> None:
    run = recorded("demo")
    lines: list[str] = []
    plain.follow_json(run, lines.append)
    assert [decode(line.encode()) for line in lines] == read_events(run.events_file)


def test_a_snapshot_is_plain_json_with_what_a_script_asks_for(recorded: Recorded) -> None:
    found = json.loads(json.dumps(plain.snapshot(recorded("demo")), allow_nan=False))
    assert found["state"] == "finished"
    assert (found["step"], found["max_steps"]) == (400, 400)
    assert found["loss"] < 0.1
    assert found["exact_match"]["before"] == 0.0
    assert found["exact_match"]["now"] > 0.5
    assert len(found["samples"]) == 12
    assert found["samples"][0]["now"]["step"] == 400
    assert found["devices"]["host"]["memory_total_bytes"] > 0
    assert found["remaining_seconds"] is None


def test_a_snapshot_of_a_broken_run_has_no_number_that_json_lacks(recorded: Recorded) -> None:
    found = json.loads(json.dumps(plain.snapshot(recorded("nan")), allow_nan=False))
    assert found["loss"] == "nan"
    assert found["diagnosis"]["cause"] == "nan"
    assert not any(isinstance(value, float) and math.isnan(value) for value in found.values())


def test_a_snapshot_of_a_run_without_steps_says_null(recorded: Recorded) -> None:
    found = plain.snapshot(recorded("failed"))
    assert found["step"] is None
    assert found["loss"] is None
    assert found["exact_match"] == {"before": None, "now": None}


def test_plain_output_needs_no_screen_library() -> None:
    code = (
        "import sys, ftwiz.tui.monitor.plain\n"
        "print([name for name in ('textual', 'torch', 'numpy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
