"""Which job a command is about: a file, or a preset."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..engine.job import LoadedJob


def load(job: Path | None, preset: str | None, overrides: tuple[str, ...]) -> "LoadedJob":
    """Return the job of a file or of a preset, with what the command line overrides.

    Raises:
        click.UsageError: Neither is given, or both.
        BadInput: The job is wrong; the message says where.
    """
    from ..engine.job import load_job, load_preset

    if (job is None) == (preset is None):
        raise click.UsageError("give a job file or --preset NAME")
    if preset is not None:
        return load_preset(preset, overrides)
    assert job is not None
    return load_job(job, overrides=overrides)
