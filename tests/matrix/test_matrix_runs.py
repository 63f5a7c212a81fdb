"""Choices of which docs/support-matrix.md says that they work: trained with here, several in one run."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftwiz.engine.rundir import list_runs
from ftwiz.engine.specs.events import StepEvent
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.telemetry import read_events

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]

QUESTION, ANSWER = "What is {n} plus {n}?", "It is {n} times two."
ROWS: dict[str, Callable[[str, str], dict[str, object]]] = {
    "messages": lambda q, a: {
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    },
    "sharegpt": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
    "text": lambda q, a: {"text": f"{q} {a}"},
}
TOGETHER = {
    "messages": [
        "train.optim=adafactor",
        "plan.gradient_checkpointing=true",
        "train.assistant_only_loss=true",
    ],
    "sharegpt": ["train.optim=sgd", "plan.mixed_precision=bf16", "method.kind=full"],
    "alpaca": ["train.optim=adamw_torch_fused", "train.packing=true", "train.assistant_only_loss=false"],
    "text": [
        "train.neftune_noise_alpha=5",
        "train.lr_scheduler_type=linear",
        "plan.quantization=nf4",
        "plan.mixed_precision=bf16",
    ],
}
"""Format of the rows, and what else is tried in the same run."""


@pytest.mark.parametrize("format_name", TOGETHER)
def test_a_run_with_these_choices_trains(
    format_name: str, tiny_model: Path, tmp_path: Path, home: Path, run_ftwiz: Callable[..., Any]
) -> None:
    rows = (ROWS[format_name](QUESTION.format(n=n), ANSWER.format(n=n)) for n in range(24))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    job = tmp_path / "job.yaml"
    body = {
        "model": {"name_or_path": str(tiny_model)},
        "data": {"path": "rows.jsonl", "format": format_name},
        "train": {"max_steps": 4, "global_batch_size": 4, "max_length": 128},
        "run": {"num_samples": 0},
    }
    job.write_text(yaml.safe_dump(body), encoding="utf8")
    chosen = [part for override in TOGETHER[format_name] for part in ("--set", override)]
    done = run_ftwiz("run", "--no-tui", job, *chosen, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = list_runs(home / "runs")
    assert run.read_record().state is RunState.FINISHED
    losses = [event.loss for event in read_events(run.events_file) if isinstance(event, StepEvent)]
    assert len(losses) == 4
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
