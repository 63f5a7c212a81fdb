"""The run folder: the whole interface between training and the world.

The only code that knows the folder's file names.
"""

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import BadInput
from .specs.run import Attempt, Diagnosis, ProcessIdentity, RunRecord, RunState

RUNS_ENV = "FTWIZ_HOME"
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


def runs_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of all runs: ``$FTWIZ_HOME/runs``, or ``./runs`` when that is unset."""
    home = environ.get(RUNS_ENV)
    return Path(home) / "runs" if home else Path("runs")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run, and reading and writing of its record. Mode 0700, files 0600."""

    path: Path

    @property
    def id(self) -> str:
        """Name of the folder, which is the run's id."""
        return self.path.name

    @property
    def job_file(self) -> Path:
        """The job as asked, with absolute paths."""
        return self.path / "job.yaml"

    @property
    def plan_file(self) -> Path:
        """What was decided and why."""
        return self.path / "plan.json"

    @property
    def train_file(self) -> Path:
        """What the worker reads: model, data, trainer arguments."""
        return self.path / "train.yaml"

    @property
    def launch_script(self) -> Path:
        """The launch command; runs verbatim by hand."""
        return self.path / "launch.sh"

    @property
    def record_file(self) -> Path:
        """run.json."""
        return self.path / "run.json"

    @property
    def events_file(self) -> Path:
        """Events of rank 0 and of the supervisor."""
        return self.path / "events.jsonl"

    @property
    def devices_files(self) -> list[Path]:
        """Device samples, one file a node, by name."""
        return sorted(self.path.glob("devices-*.jsonl"))

    def devices_file(self, node: int) -> Path:
        """Device samples of one node."""
        return self.path / f"devices-{node}.jsonl"

    @property
    def log_folder(self) -> Path:
        """Output of supervisor, launcher and ranks."""
        return self.path / "log"

    def rank_log(self, rank: int) -> Path:
        """Stdout and stderr of one rank."""
        return self.log_folder / f"rank-{rank}.log"

    @property
    def launcher_log(self) -> Path:
        """Output of the launch command."""
        return self.log_folder / "launcher.log"

    @property
    def supervisor_log(self) -> Path:
        """Output of the supervisor; empty when all is well."""
        return self.log_folder / "supervisor.log"

    @property
    def exit_folder(self) -> Path:
        """Exit record of every rank of the newest attempt."""
        return self.path / "exit"

    def exit_file(self, rank: int) -> Path:
        """Exit record of one rank."""
        return self.exit_folder / f"rank-{rank}.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint folders ``checkpoint-STEP``."""
        return self.path / "checkpoints"

    @property
    def final_model(self) -> Path:
        """The trained model or adapter, written at the end."""
        return self.path / "model"

    @property
    def stop_request(self) -> Path:
        """The worker saves and stops when this file appears."""
        return self.path / "control" / "stop"

    @property
    def save_request(self) -> Path:
        """The worker saves a checkpoint when this file appears, and removes it."""
        return self.path / "control" / "save"

    @property
    def lock_file(self) -> Path:
        """Held by the living supervisor."""
        return self.path / "run.lock"

    def read_record(self) -> RunRecord:
        """Read run.json.

        Raises:
            BadInput: There is no record, or it cannot be read.
        """
        try:
            return _record(json.loads(self.record_file.read_text(encoding="utf8")))
        except FileNotFoundError:
            raise BadInput(f"{self.path}: not a run folder (no run.json)") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self.record_file}: cannot be read: {error}") from error

    def write_record(self, record: RunRecord) -> None:
        """Replace run.json atomically."""
        write_atomically(self.record_file, json.dumps(asdict(record), indent=2) + "\n")


def create(root: Path, name: str, *, files: Mapping[str, str], now: float | None = None) -> RunFolder:
    """Make a new run folder with the planned files in it. The caller writes the first record.

    Args:
        root: Folder of all runs; made when missing, mode 0700.
        name: Run name; letters, digits, dots, dashes and underscores.
        files: Text of every planned file by name. ``*.sh`` become executable.
        now: Unix time for the folder name; the clock when absent.
    """
    assert _ID.match(name), name
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    path = root / f"{name}-{stamp}"
    while True:
        try:
            path.mkdir(mode=0o700)
            break
        except FileExistsError:
            path = root / f"{name}-{stamp}-{secrets.token_hex(2)}"
    run = RunFolder(path.resolve())
    for folder in (run.log_folder, run.checkpoints, run.exit_folder, run.stop_request.parent):
        folder.mkdir(mode=0o700)
    for file_name, text in files.items():
        write_atomically(run.path / file_name, text, mode=0o700 if file_name.endswith(".sh") else 0o600)
    return run


def list_runs(root: Path) -> list[RunFolder]:
    """Return every run folder under ``root``, newest first."""
    if not root.is_dir():
        return []
    found = [RunFolder(path) for path in root.iterdir() if (path / "run.json").is_file()]
    return sorted(found, key=lambda run: run.record_file.parent.stat().st_ctime, reverse=True)


def find(root: Path, wanted: str | None) -> RunFolder:
    """Return the run called ``wanted``: its id, a unique prefix of it, or a run folder's path.

    ``None`` is the newest run.

    Raises:
        BadInput: None or several match, or the name would leave the runs folder.
    """
    runs = list_runs(root)
    if wanted is None:
        if not runs:
            raise BadInput(f"no runs in {root}", hint="start one with: ftwiz run JOB.yaml")
        return runs[0]
    if "/" in wanted and Path(wanted, "run.json").is_file():
        return RunFolder(Path(wanted).resolve())
    if not _ID.match(wanted):
        raise BadInput(f"{wanted!r} is not a run id", hint="see: ftwiz runs")
    exact = [run for run in runs if run.id == wanted]
    matching = exact or [run for run in runs if run.id.startswith(wanted)]
    if not matching:
        raise BadInput(f"no run {wanted!r} in {root}", hint="see: ftwiz runs")
    if len(matching) > 1:
        names = ", ".join(run.id for run in matching[:4])
        raise BadInput(f"{wanted!r} fits {len(matching)} runs: {names}", hint="give more of the id")
    return matching[0]


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write beside, then rename over: readers see the old text or the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _record(body: dict[str, Any]) -> RunRecord:
    attempts = tuple(
        Attempt(**(attempt | {"launcher": _identity(attempt["launcher"])})) for attempt in body["attempts"]
    )
    return RunRecord(
        **(
            body
            | {
                "state": RunState(body["state"]),
                "supervisor": _identity(body["supervisor"]),
                "attempts": attempts,
                "diagnosis": Diagnosis(**body["diagnosis"]) if body["diagnosis"] else None,
            }
        )
    )


def _identity(body: dict[str, Any] | None) -> ProcessIdentity | None:
    return ProcessIdentity(**body) if body else None
