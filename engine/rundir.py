"""The run folder: the whole interface between training and the world.

The only code that knows the folder's file names.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import BadInput, Refused
from .specs.run import Attempt, Diagnosis, ProcessIdentity, RunRecord, RunState

RUNS_ENV = "FTWIZ_HOME"
WRITTEN_FILE = "written.json"
"""In a folder of ``ftwiz plan --write``: the sha256 of every file that was written, by name."""
MOST_WRITTEN_BYTES = 64 << 20
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

    def former_plan_file(self, attempt: int) -> Path:
        """The plan of an attempt that was followed by one with another plan."""
        return self.path / f"plan-{attempt}.json"

    @property
    def reserve_file(self) -> Path:
        """Space that the living supervisor keeps for its last words."""
        return self.path / ".reserve"

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
    def stop_now_request(self) -> Path:
        """The supervisor ends the run without saving when this file appears; the worker does not look."""
        return self.path / "control" / "stop-now"

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
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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

    Raises:
        Refused: The folder cannot be made or filled: no permission, no space, a file in the way.
    """
    assert _ID.fullmatch(name), name
    assert all("/" not in file_name for file_name in files), sorted(files)
    try:
        _make_private(root)
        run = RunFolder(_new_folder(root, f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"))
    except OSError as error:
        raise _cannot_write(root, error) from error
    try:
        for folder in (run.log_folder, run.checkpoints, run.exit_folder, run.stop_request.parent):
            _make_private(folder)
        for file_name, text in files.items():
            write_atomically(run.path / file_name, text, mode=0o700 if file_name.endswith(".sh") else 0o600)
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        raise _cannot_write(run.path, error) from error
    return run


def write_plan(folder: Path, files: Mapping[str, str]) -> None:
    """Write planned files into a folder that is no run: to look at, to keep, or to be started by hand.

    What an earlier plan wrote is replaced or goes, as long as nobody has changed it since.

    Raises:
        Refused: The folder holds a file of one of these names that is not ours, or cannot be written.
        BadInput: It is a run folder.
    """
    assert all("/" not in name for name in files), sorted(files)
    if (folder / "run.json").exists():
        raise BadInput(f"{folder} is a run folder", hint="write the plan into another one")
    listed = folder / WRITTEN_FILE
    try:
        _make_private(folder)
        known = _written(listed)
        for name, text in files.items():
            if _digest(folder / name) not in {None, known.get(name), _sha256(text.encode())}:
                raise Refused(
                    f"{folder / name}: is not what ftwiz wrote, and stays",
                    hint="write into another folder, or move that file away",
                )
        for name in known.keys() - files.keys():
            if "/" not in name and _digest(folder / name) == known[name]:
                (folder / name).unlink()
        for name, text in files.items():
            is_script = name.endswith((".sh", ".sbatch"))
            write_atomically(folder / name, text, mode=0o700 if is_script else 0o600)
        body = {name: _sha256(text.encode()) for name, text in files.items()}
        write_atomically(listed, json.dumps(body, indent=2) + "\n")
    except OSError as error:
        raise Refused(
            f"{folder}: cannot be written: {error.strerror}", hint="choose another folder"
        ) from error


def _written(listed: Path) -> dict[str, str]:
    """Return the digests of what an earlier plan wrote; nothing when that is not known."""
    try:
        body = json.loads(listed.read_text(encoding="utf8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(digest) for name, digest in body.items()} if isinstance(body, dict) else {}


def _digest(path: Path) -> str | None:
    """Return the digest of a file; ``None`` when there is none, and a word for what cannot be ours."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_WRITTEN_BYTES:
        return "foreign"
    return _sha256(path.read_bytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def list_runs(root: Path) -> list[RunFolder]:
    """Return every run folder under ``root``, newest first. A broken record does not hide its run."""
    try:
        with os.scandir(root.resolve()) as entries:
            runs = [RunFolder(Path(entry.path)) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Refused(f"{root}: cannot be read: {error.strerror}") from error
    dated = [(created, run.id, run) for run in runs if (created := _created_at(run)) is not None]
    return [run for _, _, run in sorted(dated, key=lambda item: item[:2], reverse=True)]


def find(root: Path, wanted: str | None) -> RunFolder:
    """Return the run called ``wanted``: its id, a unique prefix of it, or a run folder's path.

    ``None`` is the newest run. A path may not climb (``..``) and may not be a link.

    Raises:
        BadInput: None or several match, or the name is not one of a run.
    """
    if wanted is not None and "/" in wanted:
        return _run_at(wanted)
    if wanted is not None and not _ID.fullmatch(wanted):
        raise BadInput(f"{wanted!r} is not a run id", hint="see: ftwiz runs")
    runs = list_runs(root)
    if wanted is None:
        if not runs:
            raise BadInput(f"no runs in {root}", hint="start one with: ftwiz run JOB.yaml")
        return runs[0]
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


def _run_at(wanted: str) -> RunFolder:
    path = Path(wanted)
    if ".." in path.parts:
        raise BadInput(f"{wanted!r}: a run's path may not contain '..'", hint="see: ftwiz runs")
    try:
        if path.is_symlink():
            raise BadInput(f"{wanted!r} is a link, not a run folder", hint="name the folder it points to")
        is_run = (path / "run.json").is_file()
    except (OSError, ValueError):
        is_run = False
    if not is_run:
        raise BadInput(f"{wanted!r} is not a run folder (no run.json)", hint="see: ftwiz runs")
    return RunFolder(path.resolve())


def _created_at(run: RunFolder) -> float | None:
    """Return when the run was made: from its record, or from its folder when the record is broken."""
    try:
        return float(json.loads(run.record_file.read_bytes())["created_at"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _folder_time(run.path)


def _folder_time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _make_private(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0700, whatever the umask says."""
    if folder.is_dir():
        return
    _make_private(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(0o700)


def _new_folder(root: Path, wanted: str) -> Path:
    path = root / wanted
    while True:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            path = root / f"{wanted}-{secrets.token_hex(2)}"
        else:
            path.chmod(0o700)
            return path.resolve()


def _cannot_write(path: Path, error: OSError) -> Refused:
    return Refused(
        f"{path}: cannot be written: {error.strerror}",
        hint=f"choose another place for runs with {RUNS_ENV}=FOLDER",
    )


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
