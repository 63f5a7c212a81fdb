"""What a data file turned out to be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DataFormat = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text"]
"""Layout of a row in the file."""

RowShape = Literal["messages", "prompt_completion", "text"]
"""Columns that a row has for the trainer: ``{"messages"}``, ``{"prompt", "completion"}`` or ``{"text"}``.

Messages, prompt and completion are lists of ``{"role", "content"}``.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """What the first rows and the length of a data file say, before all of it is read."""

    path: str
    format: DataFormat
    shape: RowShape
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of each column that is used -> its name in the file."""
    num_rows: int | None = None
    """Rows to train on; ``None`` when the file is too large to be counted cheaply."""
    num_eval_rows: int | None = 0
    """Rows held out, from the same file or from another."""
    first_row: Mapping[str, object] = field(default_factory=dict)
    """The first row as the trainer gets it."""
    note: str | None = None
    """What a person should know and that is no error: columns that are not used, messages left out."""
