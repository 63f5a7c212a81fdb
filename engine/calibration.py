"""What runs and probes on this machine really took, a line each in ``calibration.jsonl``.

Lines are appended with one ``write()`` under a lock; what is torn, foreign, huge or hostile is passed over by
readers. When the file is full it is put aside as ``calibration.jsonl.1``, in place of the one before.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import xxhash
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from .specs.estimate import Estimate
from .specs.machine import Machine
from .specs.speed import PastStep
from .specs.workload import Workload

FILE_NAME = "calibration.jsonl"
HOME_ENV = "FTWIZ_HOME"
MAX_FILE_BYTES = 4 << 20
"""About two thousand runs; with the file put aside, twice that is kept."""
MAX_LINE_BYTES = 64 << 10
MAX_RANKS = 64
"""Ranks that a line lists; all are in its maximum."""
SIZE_TOLERANCE = 0.01
"""Drivers report the size of one kind of card slightly differently from version to version."""
WARM_UP_STEPS = 2
"""Steps that compile, tune and allocate; they say nothing of the speed."""
NEWEST = 500
"""Lines that a plan looks at: half a megabyte of them are read in a few hundredths of a second."""
_TOKENS = frozenset({"sequence_tokens", "micro_batch_size", "gradient_accumulation_steps"})

Bytes = Annotated[int, Field(ge=0, lt=1 << 62)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=500)]
Facts = Annotated[Mapping[Text, Text | bool | int | float | None], Field(max_length=100)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Peak bytes of one rank, or the largest of all ranks; ``None`` is not known."""

    allocated_bytes: Bytes | None = None
    """In tensors on the device."""
    reserved_bytes: Bytes | None = None
    """Kept by torch's allocator on the device."""
    process_bytes: Bytes | None = None
    """On the device, as its driver counts the process."""
    host_bytes: Bytes | None = None
    """Resident on the host."""
    grown_bytes: Bytes | None = None
    """Resident on the host beyond what there was before the model was loaded. On the CPU these are the
    tensors, and what the allocator of the C library keeps around them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """One run or probe: where it was, what it did, what was predicted and what was measured."""

    version: Literal[1] = 1
    t: Rate
    """Unix time of its end."""
    source: Literal["run", "probe"]
    """A probe fills every sequence to its full length; a run takes the rows as they come."""
    outcome: Literal["finished", "stopped", "failed"]
    cause: Text | None = None
    """Of a failure: the supervisor's word, ``device_oom``."""
    ftwiz: Text
    device_kind: Text
    device_name: Text | None = None
    """Of the CPU where there is no accelerator."""
    device_bytes: Bytes | None = None
    driver: Text | None = None
    versions: Facts = field(default_factory=dict)
    strategy: Facts = field(default_factory=dict)
    num_ranks: Count
    what: Text = ""
    """Model, stage and method for a reader."""
    key: Text | None = None
    """Equal for workloads that differ only in tokens (``workload_key``)."""
    sequence_tokens: Count
    micro_batch_size: Count
    batch_tokens: Count | None = None
    """Largest micro batch that was seen, padding included."""
    predicted: Usage | None = None
    """By the fast estimate."""
    measured: Usage | None = None
    """Largest of all ranks, of the whole attempt."""
    load: Usage | None = None
    """Up to the first step."""
    steps: Usage | None = None
    """Of training steps and evaluations."""
    ranks: Annotated[tuple[Usage, ...], Field(max_length=MAX_RANKS)] = ()
    """Of the whole attempt, by rank."""
    tokens_per_second: Rate | None = None
    """Median of the steps after warming up."""
    step_seconds: Rate | None = None
    predicted_tokens_per_second: Rate | None = None
    """By arithmetic alone, for sequences as long as they were."""
    predicted_step_seconds: Rate | None = None
    num_steps: Count = 0

    @property
    def tokens(self) -> int:
        """Tokens of the largest micro batch: as seen, or as planned."""
        return self.batch_tokens or self.sequence_tokens * self.micro_batch_size


_LINE: TypeAdapter[Calibration] = TypeAdapter(Calibration)


def calibration_file(environ: Mapping[str, str]) -> Path:
    """Return ``$FTWIZ_HOME/calibration.jsonl``, or a file of the user's where that is unset."""
    home = environ.get(HOME_ENV)
    return Path(home) / FILE_NAME if home else platformdirs.user_data_path("ftwiz") / FILE_NAME


def workload_key(workload: Workload) -> str:
    """Return what is equal for workloads that differ only in how many tokens are taken at once.

    Of accumulation it matters only whether there is any: gradients then live through the forward pass.
    """
    facts = {name: value for name, value in asdict(workload).items() if name not in _TOKENS}
    facts["accumulates"] = workload.gradient_accumulation_steps > 1
    canonical = to_json(_without_defaults(facts), inf_nan_mode="strings")
    return xxhash.xxh3_128_hexdigest(canonical)


def usage_of(estimate: Estimate) -> Usage:
    """Return what an estimate predicts, in the words of a measurement."""
    return Usage(
        allocated_bytes=estimate.allocated_bytes,
        reserved_bytes=estimate.reserved_bytes,
        process_bytes=estimate.process_bytes,
        host_bytes=estimate.host_bytes,
    )


def encode(row: Calibration) -> bytes:
    """Return a row as one JSON line with its newline."""
    return _LINE.dump_json(row, exclude_none=True) + b"\n"


def decode(line: bytes) -> Calibration | None:
    """Return the row of one line, or ``None`` when it is not one of ours. Unknown fields are ignored."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        return _LINE.validate_json(line)
    except (ValidationError, RecursionError):
        return None


def append_calibration(path: Path, row: Calibration) -> None:
    """Append a row as one line.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _open_locked(path)
    try:
        line = encode(row)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # the line before was torn
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def read_calibrations(path: Path, *, most: int | None = None) -> tuple[Calibration, ...]:
    """Return every row that can be read, oldest first. Never raises: a file that is not there has none.

    Args:
        path: The file; the one that was put aside is read before it.
        most: Look at so many lines at most, the newest.
    """
    lines = [line for name in (_aside(path), path) for line in _lines(name) if line]
    rows = (decode(line) for line in (lines if most is None else lines[-most:]))
    return tuple(row for row in rows if row is not None)


def past_steps(rows: Iterable[Calibration], machine: Machine, device_kind: str) -> tuple[PastStep, ...]:
    """Return what steps on such devices were predicted to take, and took.

    Args:
        rows: What was read.
        machine: The one that is planned for; of its devices of that kind the first counts.
        device_kind: Torch's word.
    """
    device = next((one for one in machine.devices if one.kind == device_kind), None)
    name = device.name if device else machine.host.cpu_name
    size = device.total_bytes if device else machine.host.total_bytes
    return tuple(
        PastStep(
            backend=str(row.strategy.get("backend")),
            predicted_seconds=row.predicted_step_seconds,
            measured_seconds=row.step_seconds,
        )
        for row in rows
        if row.predicted_step_seconds
        and row.step_seconds
        and row.outcome != "failed"
        and row.num_steps > WARM_UP_STEPS
        and row.device_kind == device_kind
        and row.device_name == name
        and _same_size(row.device_bytes, size)
    )


def match(
    rows: Iterable[Calibration],
    key: str,
    *,
    device_kind: str,
    device_name: str | None = None,
    device_bytes: int | None = None,
) -> tuple[Calibration, ...]:
    """Return the rows that say something about a workload on a device: same workload but for its tokens.

    Args:
        rows: What was read.
        key: ``workload_key`` of the workload. It holds the versions of the stack.
        device_kind: Torch's word.
        device_name: ``None`` takes any.
        device_bytes: ``None`` takes any.
    """
    return tuple(
        row
        for row in rows
        if row.key == key
        and row.device_kind == device_kind
        and (device_name is None or row.device_name in {None, device_name})
        and _same_size(row.device_bytes, device_bytes)
    )


def _same_size(one: int | None, other: int | None) -> bool:
    return one is None or other is None or abs(one - other) <= SIZE_TOLERANCE * max(one, other)


def _without_defaults(value: Any) -> Any:
    """Leave out what is empty, so that an empty field that is added later changes no key."""
    if isinstance(value, Mapping):
        kept = {str(name): _without_defaults(item) for name, item in value.items()}
        return {name: kept[name] for name in sorted(kept) if not _is_empty(kept[name])}
    if isinstance(value, tuple | list | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_without_defaults(item) for item in items]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ({}, [], "")


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _open_locked(path: Path) -> int:
    """Return the file that stands under this name now, locked; a full one is put aside first."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            with contextlib.suppress(
                OSError
            ):  # a file system without locks: a line is one write() all the same
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            is_current = _is_file_of(descriptor, path)
            if is_current and os.fstat(descriptor).st_size < MAX_FILE_BYTES:
                return descriptor
            if is_current:
                path.replace(_aside(path))
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name: another process may have put it aside meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lines(path: Path) -> list[bytes]:
    """Return the lines of a file in bounded memory; of a file that is far too large those at its end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return []
    try:
        beyond = os.fstat(descriptor).st_size - 2 * MAX_FILE_BYTES
        return os.pread(descriptor, 2 * MAX_FILE_BYTES, max(0, beyond)).split(b"\n")
    except OSError:  # a folder, or a pipe
        return []
    finally:
        os.close(descriptor)
