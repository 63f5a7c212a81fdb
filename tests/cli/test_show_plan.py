"""A plan as it is read: nothing is wider than the terminal, and nothing is lost."""

import json
from pathlib import Path

import pytest

from ftwiz.cli.show import plan_text
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import load_job
from ftwiz.engine.prepare import Prepared, prepare


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    tmp_path.joinpath("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 4)
    job = {
        "version": 1,
        "model": {"name_or_path": "meta-llama/Llama-3.1-8B"},
        "data": {"path": "rows.jsonl"},
        "method": {"kind": "full"},
        "train": {"max_length": 2048, "global_batch_size": 32},
    }
    tmp_path.joinpath("job.yaml").write_text(json.dumps(job))
    return prepare(load_job(tmp_path / "job.yaml"), parse_machine("8xA100-80GB"))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_plan_fits_the_terminal_and_says_everything(prepared: Prepared, width: int) -> None:
    text = plan_text(prepared, width)
    assert max(map(len, text.splitlines())) < width
    words = " ".join(text.split())
    for reason in (*prepared.plan.reasons, *prepared.plan.rejected):
        assert all(word in words for word in reason.text.split())


def test_without_a_terminal_every_reason_is_one_line(prepared: Prepared) -> None:
    lines = plan_text(prepared).splitlines()
    assert len(lines) == 1 + len(prepared.plan.reasons) + len(prepared.plan.rejected)
