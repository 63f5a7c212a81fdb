"""From a loaded job to a run folder: ``prepare`` is the dry run, ``write`` only puts down what it returned.

Nothing is written, downloaded or started by ``prepare``; torch is looked for and never imported.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from .backends import backend
from .backends.keys import TRAINER, commented
from .backends.script import LAUNCH_SCRIPT, SBATCH_SCRIPT, Script, batch_script, launch_script
from .calibration import NEWEST, calibration_file, past_steps, read_calibrations
from .data import DataSummary, inspect
from .errors import Refused
from .job import LoadedJob, dump_job, model_spec
from .memory.host import DataVolume
from .plan import Measured, recommend
from .plan.timeout import grace_seconds, with_timeout
from .rundir import RunFolder, create
from .specs.estimate import Estimate
from .specs.job import Job
from .specs.machine import Machine
from .specs.model import ModelSpec
from .specs.plan import Backend, Cluster, Plan
from .specs.run import RunRecord, RunState
from .specs.speed import PastStep
from .stack import installed_stack
from .stages import train_file

STACK = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
"""What a rank imports; the extra ``train`` installs it."""
ENGINE_STACK: Mapping[Backend, tuple[str, ...]] = {"zero": ("deepspeed",)}
"""What an engine needs beside it."""
PACKING_STACK = ("bitsandbytes",)
"""What packed weights need beside it."""
EXTRAS: Mapping[str, set[str]] = {"train": {*STACK}, "deepspeed": {"deepspeed"}, "quant": {"bitsandbytes"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Everything that a run will be, before any of it exists."""

    loaded: LoadedJob
    plan: Plan
    data: DataSummary
    launch: tuple[str, ...]
    """Arguments that start the ranks, in the run folder."""
    files: Mapping[str, str]
    """Text of every file of the new run folder by name."""


def check_stack(backend_name: Backend | None = None, *, packs: bool = False) -> None:
    """Make sure that the training stack is installed, without importing it.

    Args:
        backend_name: The engine that will be used, when it is known.
        packs: Whether frozen weights will be packed.

    Raises:
        Refused: A package is missing.
    """
    wanted = (*STACK, *ENGINE_STACK.get(backend_name or "single", ()), *(PACKING_STACK if packs else ()))
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        extra = ",".join(
            name for name, packages in EXTRAS.items() if name == "train" or packages & {*missing}
        )
        raise Refused(
            f"training needs {', '.join(missing)}, which this Python does not have",
            hint=_install_command(extra),
        )


def _install_command(extra: str) -> str:
    # pipx and uv keep their environments without pip: a command that cannot run would be no help.
    if find_spec("pip"):
        return f"{sys.executable} -m pip install 'ftwiz[{extra}]'"
    return (
        f"install ftwiz with its extra: pipx install --force 'ftwiz[{extra}]', "
        f"or uv tool install 'ftwiz[{extra}]'"
    )


def prepare(
    loaded: LoadedJob,
    machine: Machine,
    *,
    python: str = sys.executable,
    cluster: Cluster | None = None,
    measured: Measured | None = None,
) -> Prepared:
    """Check the job against the model and the data, decide the plan and render every file.

    Args:
        loaded: The job with its sources.
        machine: What it will run on.
        python: Interpreter that starts the ranks.
        cluster: Where the nodes are and how they meet, for the files of several; with SLURM's batch script
            where it has options for it.
        measured: What probes and runs on such devices took (engine/probe, ``known_of``).

    Raises:
        BadInput: Model, data or pinned choices are wrong.
        Refused: The machine does not have what is pinned.
    """
    job = loaded.job
    model = model_spec(job)
    data = inspect(job.data, stage=job.stage)
    past, size = _past_steps(job, machine), _volume(data)
    plan = recommend(job, model, machine, stack=installed_stack(), past=past, measured=measured, data=size)
    return render(loaded, machine, plan, data, model=model, python=python, cluster=cluster)


def _volume(data: DataSummary) -> DataVolume:
    """Return the bytes of the data's files, as far as they are here."""
    files = [Path(path) for path in data.paths]
    return DataVolume(raw_bytes=sum(file.stat().st_size for file in files if file.is_file()) or None)


def _past_steps(job: Job, machine: Machine) -> tuple[PastStep, ...]:
    """Return what steps took on this machine; nothing for a machine that is somewhere else."""
    if machine.host.name != socket.gethostname():
        return ()
    kind = machine.device_kind if job.plan.device == "auto" else job.plan.device
    return past_steps(read_calibrations(calibration_file(os.environ), most=NEWEST), machine, kind)


def render(
    loaded: LoadedJob,
    machine: Machine,
    plan: Plan,
    data: DataSummary,
    *,
    model: ModelSpec | None,
    python: str = sys.executable,
    cluster: Cluster | None = None,
) -> Prepared:
    """Render every file of a run whose plan is decided."""
    job, cluster = loaded.job, cluster or Cluster()
    plan = with_timeout(plan, job, model, machine)
    engine = backend(plan.strategy.backend)
    launch = engine.launch_command(plan.strategy, python)
    script = _script(loaded, machine, plan, cluster=cluster, launch=launch)
    files = {
        "job.yaml": dump_job(job),
        "train.yaml": commented(train_file(job, plan.strategy, data), TRAINER),
        **engine.files(plan.strategy, job, model, cluster),
        LAUNCH_SCRIPT: launch_script(script),
        **({} if cluster.sbatch is None else {SBATCH_SCRIPT: batch_script(script)}),
        "plan.json": _plan_file(loaded, machine, plan, launch),
    }
    return Prepared(loaded=loaded, plan=plan, data=data, launch=tuple(launch), files=files)


def write(prepared: Prepared, root: Path) -> RunFolder:
    """Make the run folder of a prepared run under ``root``, in state created.

    Raises:
        Refused: The folder cannot be made.
    """
    now = time.time()
    name = prepared.loaded.job.run.name or prepared.loaded.name
    run = create(root, name, files=prepared.files, now=now)
    record = RunRecord(
        id=run.id,
        name=name,
        state=RunState.CREATED,
        created_at=now,
        host=socket.gethostname(),
        ftwiz_version=__version__,
    )
    run.write_record(record)
    return run


def _plan_file(loaded: LoadedJob, machine: Machine, plan: Plan, launch: list[str]) -> str:
    body = {
        "version": 1,
        "strategy": asdict(plan.strategy),
        "reasons": [asdict(reason) for reason in plan.reasons],
        "rejected": [asdict(rejected) for rejected in plan.rejected],
        "predicted": _predicted(plan),
        "launch": launch,
        "device_indices": plan.device_indices,
        "environment": dict(plan.environment),
        "machine": asdict(machine),
        "sources": {key: str(source) for key, source in loaded.sources.items()},
    }
    return json.dumps(body, indent=2) + "\n"


def _predicted(plan: Plan) -> dict[str, object] | None:
    """Return what the run is expected to take, to be held against what it takes."""
    found = plan.estimate
    if found is None:
        return None
    return {
        "tier": found.tier,
        "allocated_bytes": found.allocated_bytes,
        "reserved_bytes": found.reserved_bytes,
        "process_bytes": found.process_bytes,
        "host_bytes": found.host_bytes,
        "disk_bytes": found.disk_bytes,
        "peak_phase": found.peak_phase,
        "uncertainty": found.uncertainty,
        "groups": _groups(found),
        "verdict": plan.verdict.word if plan.verdict else None,
        "tokens_per_second": plan.speed.tokens_per_second if plan.speed else None,
        "step_seconds": plan.speed.step_seconds if plan.speed else None,
    }


def _groups(found: Estimate) -> dict[str, int]:
    """Return what the device holds at the peak, by what it is for."""
    groups: dict[str, int] = {}
    for place in ("device", "reserved", "driver"):
        for term in found.phase_terms(found.peak_phase, place):
            groups[term.group] = groups.get(term.group, 0) + term.num_bytes
    return groups


def _script(
    loaded: LoadedJob, machine: Machine, plan: Plan, *, cluster: Cluster, launch: list[str]
) -> Script:
    strategy = plan.strategy
    chosen = [device for device in machine.devices if device.index in plan.device_indices]
    slots = tuple(device.physical_index for device in chosen if device.physical_index is not None)
    is_chosen = any(name.endswith("VISIBLE_DEVICES") for name in plan.environment)
    return Script(
        strategy=strategy,
        cluster=cluster,
        python=launch[0],
        environment=plan.environment,
        launch=tuple(launch),
        slots=slots if is_chosen and len(slots) == strategy.ranks_per_node else None,
        name=loaded.job.run.name or loaded.name,
        grace_seconds=grace_seconds(plan),
        host_cpus=machine.host.num_cpus,
        is_whole_node=strategy.ranks_per_node == len(machine.devices),
    )
