"""A job in a folder, and the one line that a wrong one gets."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput, ExitCode
from ftwiz.engine.job import load_job, parse_job

SMALLEST = "model: {name_or_path: Qwen/Qwen3-0.6B}\ndata: {path: rows.jsonl}\n"


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """A folder with ``rows.jsonl`` in it."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf8")
    return folder


def _one_line(call: Callable[[], object]) -> BadInput:
    with pytest.raises(BadInput) as caught:
        call()
    error = caught.value
    assert error.exit_code == ExitCode.BAD_INPUT
    for line in (error.message, error.hint or ""):
        assert line.isprintable(), "no line breaks and nothing that a terminal would obey"
        assert len(line) < 1500
    return error


@pytest.fixture
def refusal_of_text() -> Callable[..., BadInput]:
    """``refusal_of_text("a: 1")``: the error of parsing it as job.yaml."""

    def refuse(text: str, overrides: Sequence[str] = ()) -> BadInput:
        return _one_line(lambda: parse_job(text, name="job.yaml", base=Path("/jobs"), overrides=overrides))

    return refuse


@pytest.fixture
def refusal_of_train() -> Callable[[str], BadInput]:
    """``refusal_of_train("seed: -1")``: the error of a job that is wrong in that line only, its line 4."""

    def refuse(line: str) -> BadInput:
        text = f"{SMALLEST}train:\n  {line}\n"
        return _one_line(lambda: parse_job(text, name="job.yaml", base=Path("/jobs")))

    return refuse


@pytest.fixture
def refusal_of_file() -> Callable[..., BadInput]:
    """``refusal_of_file(path)``: the error of loading it."""

    def refuse(path: Path, overrides: Sequence[str] = ()) -> BadInput:
        return _one_line(lambda: load_job(path, overrides=overrides))

    return refuse
