"""A job of the tiny model, ready to be checked."""

from collections.abc import Callable
from pathlib import Path

import pytest

JOB = """version: 1
model: {{name_or_path: {model}}}
data: {{path: {rows}, eval_fraction: 0.2}}
method: {{kind: full}}
train: {{max_steps: 50, global_batch_size: {batch}, max_length: {length}}}
plan: {{micro_batch_size: {micro}}}
run: {{num_samples: 2, sample_max_new_tokens: 2}}
"""


@pytest.fixture
def make_job(tmp_path: Path, tiny_model: Path, qa_rows: Path) -> Callable[..., Path]:
    """``make_job(length=128)``: the file of a job; ``model`` and ``rows`` change where they are."""

    def make(
        *,
        length: int = 128,
        batch: int = 8,
        micro: int = 8,
        model: Path | None = None,
        rows: Path | None = None,
    ) -> Path:
        path = tmp_path / "job.yaml"
        text = JOB.format(
            model=model or tiny_model, rows=rows or qa_rows, length=length, batch=batch, micro=micro
        )
        path.write_text(text, encoding="utf8")
        return path

    return make
