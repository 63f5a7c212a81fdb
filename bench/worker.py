"""Measures the worker against the plain TRL script in one run: start to first step, tokens/s, losses.

usage: python bench/worker.py [--steps 400] [--pairs 7] [--write FILE]

Both train the demo model on the same rows with the same arguments, taking turns, so that a busy machine slows
both. Prints a table; writes nothing unless --write.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ftwiz.engine.data import inspect
from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import StepEvent
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import train_file
from ftwiz.engine.telemetry import read_events

HERE = Path(__file__).resolve().parent
MAX_EXTRA_START_SECONDS = 1.0
MIN_SPEED_RATIO = 0.99
WARM_UP_STEPS = 5
STRATEGY = Strategy(
    backend="single",
    device_kind="cpu",
    num_processes=1,
    micro_batch_size=16,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="no",
)
BUILD = "from ftwiz.engine.worker.demo import folder; print(folder(lambda _: None))"


@dataclass(frozen=True)
class Figures:
    """One training, measured from outside."""

    first_step_seconds: float
    """From the start of the process to the end of its first step."""
    tokens_per_second: float
    losses: list[float]


def main() -> None:
    """Take turns, print the table, and exit with 1 when a figure of ours is missed."""
    parser = argparse.ArgumentParser(description="Measure the worker against a plain TRL script.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = _measure(Path(folder), steps=options.steps, pairs=options.pairs)
    table, met = _table(pairs)
    print(table)
    if options.write:
        options.write.write_text(table + "\n", encoding="utf8")
    sys.exit(0 if met else 1)


def _measure(folder: Path, *, steps: int, pairs: int) -> list[tuple[Figures, Figures]]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "FTWIZ_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    model = subprocess.run(
        [sys.executable, "-c", BUILD], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    rows = _rows(folder)
    measured = []
    for turn in range(pairs):
        run = _run(folder, model, rows, steps)
        plain = folder / f"plain-{turn}.json"
        commands = [
            [sys.executable, str(HERE / "plain_trl.py"), str(run.train_file), str(plain)],
            [sys.executable, "-m", "ftwiz.engine.worker", str(run.path)],
        ]
        started = []
        for command in commands:
            started.append(time.time())
            subprocess.run(command, env=environment, check=True, capture_output=True, cwd=folder)
        measured.append((_of_script(plain, started[0]), _of_worker(run, started[1])))
    return measured


def _rows(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    lines = (HERE.parent / "presets" / "demo" / "train.jsonl").read_text(encoding="utf8").splitlines()
    rows = (json.loads(line) for line in lines)
    text = (json.dumps({"question": row["prompt"], "answer": row["completion"]}) + "\n" for row in rows)
    path.write_text("".join(text), encoding="utf8")
    return path


def _run(folder: Path, model: str, rows: Path, steps: int) -> RunFolder:
    job = Job.model_validate(
        {
            "model": {"name_or_path": model},
            "data": {"path": str(rows)},
            "method": {"kind": "full"},
            "train": {"max_steps": steps, "max_length": 64, "learning_rate": 3e-3},
            "run": {"num_samples": 0},
        }
    )
    files = {
        "train.yaml": train_file(job, STRATEGY, inspect(job.data)),
        "plan.json": json.dumps({"strategy": asdict(STRATEGY)}),
    }
    return create(folder / "runs", "bench", files=files)


def _of_script(report: Path, started: float) -> Figures:
    body = json.loads(report.read_text(encoding="utf8"))
    return _figures(started, body["times"], body["losses"], body["num_tokens"])


def _of_worker(run: RunFolder, started: float) -> Figures:
    steps = [event for event in read_events(run.events_file) if isinstance(event, StepEvent)]
    losses = [event.loss or 0.0 for event in steps]
    return _figures(started, [event.t for event in steps], losses, steps[-1].num_tokens or 0)


def _figures(started: float, times: list[float], losses: list[float], num_tokens: int) -> Figures:
    share = (len(times) - WARM_UP_STEPS) / len(times)
    return Figures(
        first_step_seconds=times[0] - started,
        tokens_per_second=num_tokens * share / (times[-1] - times[WARM_UP_STEPS - 1]),
        losses=losses,
    )


def _table(pairs: list[tuple[Figures, Figures]]) -> tuple[str, bool]:
    extra = statistics.median(ours.first_step_seconds - plain.first_step_seconds for plain, ours in pairs)
    ratio = statistics.median(ours.tokens_per_second / plain.tokens_per_second for plain, ours in pairs)
    equal = all(ours.losses == plain.losses for plain, ours in pairs)
    lines = [f"{'':22}{'plain TRL':>12}{'worker':>12}{'':4}wanted"]
    for name, field in (("start to first step, s", "first_step_seconds"), ("tokens/s", "tokens_per_second")):
        plain, ours = (statistics.median(getattr(pair[side], field) for pair in pairs) for side in (0, 1))
        lines.append(f"{name:22}{plain:12.2f}{ours:12.2f}")
    lines += [
        f"{'worker later by, s':22}{'':12}{extra:12.2f}{'':4}at most {MAX_EXTRA_START_SECONDS}",
        f"{'worker speed ratio':22}{'':12}{ratio:12.3f}{'':4}at least {MIN_SPEED_RATIO}",
        f"{'losses equal':22}{'':12}{'yes' if equal else 'NO':>12}{'':4}every step",
    ]
    return "\n".join(lines), extra <= MAX_EXTRA_START_SECONDS and ratio >= MIN_SPEED_RATIO and equal


if __name__ == "__main__":
    main()
