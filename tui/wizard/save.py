"""Writes the job file at the end of the wizard, and finds paths for it and completions for paths typed."""

import os
from dataclasses import dataclass
from pathlib import Path

from ...engine.data.read import KINDS
from ...engine.errors import BadInput
from ...engine.job import dump_job
from ...engine.specs.job import Job

MAX_COMPLETIONS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class WizardResult:
    """What the wizard leaves behind: a job file that is written, and whether it is to be launched."""

    job: Job
    path: Path
    launch: bool


def free_path(name: str, folder: Path) -> Path:
    """Return a path for a new job file: ``NAME.yaml``, or ``NAME-2.yaml`` when that is taken."""
    path, number = folder / f"{name}.yaml", 1
    while os.path.lexists(path):
        number += 1
        path = folder / f"{name}-{number}.yaml"
    return path


def write_job(job: Job, path: Path, *, overwrite: bool = False) -> None:
    """Write the job file.

    Raises:
        BadInput: The file is there and ``overwrite`` was not said, or it cannot be written.
    """
    text = dump_job(job)
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; name a file in it")
    try:
        with path.open("w" if overwrite else "x", encoding="utf8") as file:
            file.write(text)
    except FileExistsError:
        raise BadInput(f"{path}: is there already") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"{path}: cannot be written: {reason}") from error


def typed_path(text: str) -> Path:
    """Return the path that somebody typed; ``~`` is the home folder."""
    return Path(os.path.expanduser(text.strip()))  # noqa: PTH111 - Path's raises for an unknown user's home


def completions(text: str, *, files: tuple[str, ...] = KINDS) -> list[str]:
    """Return what a path that was begun may become: folders (with a slash) and files of these kinds."""
    head, tail = os.path.split(text)
    folder = typed_path(head) if head else Path()
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(tail) or (entry.name.startswith(".") and not tail):
                    continue
                if entry.is_dir():
                    found.append(os.path.join(head, entry.name, ""))  # noqa: PTH118 - keeps ~ and ./ as typed
                elif entry.name.lower().endswith(files) and entry.is_file():
                    found.append(os.path.join(head, entry.name))  # noqa: PTH118
    except (OSError, ValueError):
        return []
    return sorted(found, key=lambda path: (path.endswith("/"), path))[:MAX_COMPLETIONS]
