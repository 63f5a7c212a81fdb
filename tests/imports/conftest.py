"""What the tests of importing share: rows to train on, and files written from text."""

from collections.abc import Callable
from pathlib import Path

import pytest

ROW = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A data file with a few conversations."""
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW * 8, encoding="utf8")
    return path


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """``written("a: 1", name="x.yaml")``: the file with this text."""

    def write(text: str, name: str = "theirs.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
        return path

    return write
