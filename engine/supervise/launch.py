"""The command that starts the ranks: read from the plan, given an environment, started in its own session."""

import json
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backends import ALLOCATOR_NAMES
from ..errors import BadInput
from ..rundir import RunFolder
from ..specs.run import RunRecord
from .process import MARKER

SHUTDOWN_MARGIN_SECONDS = 60
"""Torch's launcher must not cut the grace period short; we end what is left ourselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What plan.json says about starting."""

    argv: tuple[str, ...]
    num_processes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    """Which devices the ranks see. Empty on another host than the plan's: its devices have other names."""
    devices: tuple[str, ...] = ()
    """What the ranks train on, by UUID where the driver tells it. Empty on the CPU and on another host."""


def read_launch(run: RunFolder) -> Launch:
    """Read the launch command of a run.

    Raises:
        BadInput: plan.json is missing or is not a plan.
    """
    try:
        body: Any = json.loads(run.plan_file.read_text(encoding="utf8"))
        argv, num_processes = body["launch"], body["strategy"]["num_processes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{run.plan_file}: cannot be read: {error}") from error
    if not (isinstance(argv, list) and argv and all(isinstance(item, str) for item in argv)):
        raise BadInput(f"{run.plan_file}: launch: must be a list of strings")
    if type(num_processes) is not int or num_processes < 1:
        raise BadInput(f"{run.plan_file}: strategy.num_processes: must be 1 or more")
    return Launch(
        argv=tuple(argv),
        num_processes=num_processes,
        environment=_planned_environment(run, body),
        devices=_planned_devices(body),
    )


def _planned_devices(body: Mapping[str, Any]) -> tuple[str, ...]:
    machine: Any = body.get("machine")
    if not _is_here(machine):
        return ()
    by_index = {
        device.get("index"): str(device.get("uuid") or f"{device.get('kind')}-{device.get('index')}")
        for device in machine.get("devices") or ()
    }
    return tuple(by_index[index] for index in body.get("device_indices") or () if index in by_index)


def _is_here(machine: Any) -> bool:
    host = machine.get("host") if isinstance(machine, dict) else None
    return isinstance(host, dict) and host.get("name") == socket.gethostname()


def _planned_environment(run: RunFolder, body: Mapping[str, Any]) -> dict[str, str]:
    planned = body.get("environment", {})
    if not (isinstance(planned, dict) and all(isinstance(value, str) for value in planned.values())):
        raise BadInput(f"{run.plan_file}: environment: must map names to strings")
    return planned if _is_here(body.get("machine")) else {}


def marker_of(record: RunRecord) -> str:
    """Return the mark that every process of a run carries: one for all its attempts, no other run's."""
    return f"{record.id}@{record.created_at!r}"


def joined(inherited: Mapping[str, str], planned: Mapping[str, str]) -> dict[str, str]:
    """Add the planned variables; settings of the allocator only where the user has none of any name."""
    if any(name in inherited for name in ALLOCATOR_NAMES):
        planned = {name: value for name, value in planned.items() if name not in ALLOCATOR_NAMES}
    return {**inherited, **planned}


def environment(
    inherited: Mapping[str, str], *, marker: str, num_processes: int, num_cpus: int, grace_seconds: float
) -> dict[str, str]:
    """Return the environment of the launcher and its ranks.

    Args:
        inherited: The environment of whoever started the run; its own settings win where they are the user's.
        marker: Mark of the run's processes.
        num_processes: Ranks on this host.
        num_cpus: CPUs that they share.
        grace_seconds: Time that a stopping run gets.
    """
    shutdown = str(int(grace_seconds) + SHUTDOWN_MARGIN_SECONDS)
    ours = {
        MARKER: marker,
        "PYTHONUNBUFFERED": "1",
        # torch.distributed.run reads its options from PET_*, accelerate launch through its parser too
        # (torch 2.13, run.py and argparse_util.py): without this it takes SIGHUP back from nohup.
        "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT",
        "PET_SHUTDOWN_TIMEOUT": shutdown,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": shutdown,
    }
    defaults = {
        # Torch gives every rank of several one thread, and all ranks all CPUs when started by hand.
        "OMP_NUM_THREADS": str(max(1, num_cpus // num_processes)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    return defaults | dict(inherited) | ours


def spawn(argv: tuple[str, ...], run: RunFolder, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the launcher in a session of its own, in the run folder, with its output in a file.

    Signals that we ignore would stay ignored in the child; the supervisor therefore handles and never
    ignores them, and handled signals start out at their defaults in a new program.

    Raises:
        OSError: The program cannot be started.
    """
    with run.launcher_log.open("ab") as log:
        return subprocess.Popen(
            argv,
            cwd=run.path,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
