"""The recorded models: each was built by transformers on the meta device and counted there."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NUM_ROWS = 193


class Rows(NamedTuple):
    """Recorded models by id, and recorded counts of trainable parameters."""

    models: dict[str, dict[str, Any]]
    trainable: tuple[dict[str, Any], ...]


@cache
def _rows(corpus: Path) -> Rows:
    models = json.loads((corpus / "models.json").read_bytes())
    trainable = json.loads((corpus / "lora_counts.json").read_bytes())["rows"]
    return Rows({row["id"]: row for row in models}, tuple(trainable))


@pytest.fixture(scope="session")
def recorded(corpus: Path) -> Rows:
    """All recorded rows."""
    rows = _rows(corpus)
    assert len(rows.models) == NUM_ROWS
    return rows
