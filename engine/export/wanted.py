"""What is to be exported from where, as it goes to the process that does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DTYPE_BYTES: Mapping[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of a weight by torch's name of its format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One export. Only text and numbers: it crosses a process as JSON."""

    folder: str
    """Folder with what was trained."""
    form: str
    """One of ``source.Form``."""
    tokenizer: str
    """Folder or hub id of the tokenizer that goes along."""
    stage: str
    model: Mapping[str, Any]
    """The section ``model`` of train.yaml: the base."""
    method: Mapping[str, Any]
    dtype: str
    """torch's name of the format that is written."""
    shard_size: str
    adapter_only: bool
    output: str
    """An empty folder, which becomes the export when all is in it."""
