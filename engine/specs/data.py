"""What a data file turned out to be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NamedFormat = Literal[
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "self_instruct",
    "text",
    "preference",
    "preference_implicit",
    "preference_alpaca",
    "preference_sharegpt",
    "unpaired",
    "unpaired_alpaca",
    "unpaired_messages",
    "unpaired_sharegpt",
    "prompt_only",
]
"""Layout of a row in the file."""
DataFormat = NamedFormat | Literal["mixed"]
"""``mixed`` for several files of different layouts."""

RowShape = Literal["messages", "prompt_completion", "text", "preference", "unpaired", "prompt_only"]
"""Columns that a row has for the trainer.

- ``messages``: ``{"messages"}``
- ``prompt_completion``: ``{"prompt", "completion"}``
- ``text``: ``{"text"}``
- ``preference``: ``{"prompt", "chosen", "rejected"}``
- ``unpaired``: ``{"prompt", "completion", "label"}``, the label true for an answer to learn and false for one
  to avoid
- ``prompt_only``: ``{"prompt"}`` and every other column of the file as it is, for reward functions

Messages, prompt, completion, chosen and rejected are lists of ``{"role", "content"}``; an assistant's message
may have ``tool_calls``. Every shape but ``text`` may have ``tools``, a list of JSON schemas.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """What the first rows and the length of a data file say, before all of it is read."""

    path: str
    """The first file, or the name that the job gives it."""
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
    paths: tuple[str, ...] = ()
    """All files, as the job names them, when it was read from files."""
    note: str | None = None
    """What a person should know and that is no error: columns that are not used, messages left out."""
