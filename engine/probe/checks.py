"""Everything that can fail in a job, before it fails: its files, its plan, and the machine as it is now."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..doctor import Finding
from ..doctor import Level as DoctorLevel
from ..errors import FtwizError
from ..job import LoadedJob
from ..known import known_here, known_of
from ..memory import estimate
from ..memory.verdict import place_verdict, shared_verdict, verdict
from ..prepare import Prepared, check_stack, prepare
from ..rundir import runs_root
from ..specs.estimate import Estimate, Verdict
from ..specs.machine import Device, Machine
from ..specs.workload import Workload
from ..supervise.measured import workload_here
from .model_checks import look_at_data, look_at_model
from .result import Level, Result, guarded, ok, problem, size, warning

LITTLE_BYTES = 20 << 30
"""Free space below which a checkpoint of a model that could not be counted may not fit."""
DOCTORS = (
    "hardware",
    "torch",
    "packages",
    "compiled",
    "shared memory",
    "limits",
    "environment",
    "accelerate",
)
"""Checks of the doctor that say something of this job; the others are about machines in general."""
LEVELS = {"fits": Level.OK, "tight": Level.WARNING, "no": Level.PROBLEM, "unknown": Level.WARNING}
"""Of the words of a verdict."""
SMALLER = "lower plan.micro_batch_size or train.max_length, or measure it: ftwiz check JOB --smoke 3"
MORE_DISK = "free space, lower train.save_total_limit, or choose another disk: FTWIZ_HOME=FOLDER"


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a job is checked against."""

    machine: Machine
    environ: Mapping[str, str]

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return runs_root(self.environ)


def check_job(loaded: LoadedJob, around: Surroundings) -> Iterator[Result]:
    """Yield what is found, check by check. Never raises for what is wrong with the job or the machine."""
    job = loaded.job
    yield ok("job", f"{loaded.path}: every key and value is known")
    yield from guarded("model", lambda: look_at_model(job, around.environ))
    yield from guarded("data", lambda: look_at_data(job))
    yield from guarded("stack", look_at_stack)
    try:
        prepared = prepare(loaded, around.machine, measured=known_of(around.environ, around.machine))
    except FtwizError as error:
        # What is wrong with model or data has been said: once is enough.
        yield problem("plan", error.message, error.hint)
    else:
        yield from guarded("plan", lambda: look_at_plan(prepared))
        yield from guarded("devices", lambda: look_at_devices(prepared, around.machine))
        yield from guarded("memory", lambda: look_at_memory(prepared, around))
    yield from guarded("output", lambda: look_at_output(around.runs))


def look_at_stack() -> Iterator[Result]:
    """Report whether what a rank imports is installed; which versions fit is the doctor's."""
    check_stack()
    yield ok("stack", "everything that a rank imports is installed")


def look_at_plan(prepared: Prepared) -> Iterator[Result]:
    """Report how it would be run, and whether the ranks can meet."""
    strategy = prepared.plan.strategy
    check_stack(strategy.backend, packs=strategy.quantization != "none")
    ranks = "1 rank" if strategy.num_processes == 1 else f"{strategy.num_processes} ranks"
    times = strategy.gradient_accumulation_steps
    shares = f"micro batch {strategy.micro_batch_size}" + (f" x {times}" if times > 1 else "")
    yield ok("plan", f"{strategy.backend}, {ranks} on {strategy.device_kind}, {shares}")
    if strategy.num_processes > 1:
        yield look_at_port()


def look_at_port() -> Result:
    """Try to listen where the ranks would meet: on a free port of this host."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return ok("port", f"ranks can meet here (port {server.getsockname()[1]} was free)")
    except OSError as error:
        return problem(
            "port", f"no port can be opened on this host: {error.strerror}", "look at its firewall"
        )


def look_at_devices(prepared: Prepared, machine: Machine) -> Iterator[Result]:
    """Report what is free on the devices of the plan, and who else is there."""
    devices = planned_devices(prepared, machine)
    if not devices:
        host = machine.host
        yield ok(
            "devices", f"the CPU: {host.num_cpus or 'n/a'} cores, {size(host.available_bytes)} of memory free"
        )
        return
    for device in devices:
        others = [process for process in device.processes if process.pid != os.getpid()]
        what = f"{device.kind}:{device.index} {device.name}: {size(device.free_bytes)} free"
        if others:
            names = ", ".join(f"{one.name or 'a process'} (pid {one.pid or 'n/a'})" for one in others[:3])
            yield warning("devices", f"{what}; in use by {names}", "wait for it, or pin other devices")
        else:
            yield ok("devices", what)


def look_at_memory(prepared: Prepared, around: Surroundings) -> Iterator[Result]:
    """Report whether it fits: by what was measured on this machine, else by the estimate."""
    loaded, plan = prepared.loaded, prepared.plan
    devices = planned_devices(prepared, around.machine)
    workload = workload_here(loaded.job, plan.strategy, devices)
    if workload is None:
        yield warning("memory", "the shape of the model is not known here, so nothing is estimated")
        return
    found, how = best_estimate(workload, around, devices)
    if not found.terms:
        yield warning(
            "memory", "there is no estimate for such a job", "measure it: ftwiz check JOB --smoke 3"
        )
        return
    fits = _device_verdict(found, devices, around.machine, plan.strategy.num_processes)
    yield _judged("memory", fits, how, SMALLER)
    if devices and not devices[0].unified_memory:
        host = place_verdict(found, "host", around.machine.host.available_bytes)
        yield _judged("host memory", host, how, SMALLER)
    yield from _look_at_disk(found, around.runs)


def best_estimate(
    workload: Workload, around: Surroundings, devices: Sequence[Device]
) -> tuple[Estimate, str]:
    """Return the estimate to go by, and in a few words where it is from."""
    modelled = estimate(workload)
    found = known_here(around.environ, around.machine, devices)(workload, modelled)
    return (modelled, "estimated") if found is None else (found, found.basis)


def planned_devices(prepared: Prepared, machine: Machine) -> tuple[Device, ...]:
    """Return the devices that the plan has chosen."""
    kind, indices = prepared.plan.strategy.device_kind, prepared.plan.device_indices
    return tuple(device for device in machine.devices if device.kind == kind and device.index in indices)


def look_at_output(runs: Path) -> Iterator[Result]:
    """Report whether a run folder could be made: a file is written where it would stand."""
    place = next(path for path in (runs, *runs.absolute().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".ftwiz-check-") as file:
            file.write(b"well")
            file.flush()
    except OSError as error:
        yield problem("output", f"{runs}: cannot be written: {error.strerror}", "choose: FTWIZ_HOME=FOLDER")
        return
    yield ok("output", f"runs can be written to {runs}: {size(shutil.disk_usage(place).free)} free")


def look_at_findings(findings: Sequence[Finding]) -> Iterator[Result]:
    """Report what the doctor found that matters to a job; all of it: ``ftwiz doctor``."""
    serious = {DoctorLevel.ERROR: problem, DoctorLevel.WARNING: warning}
    shown = [one for one in findings if one.level in serious and one.check in DOCTORS]
    for finding in shown:
        advice = finding.advice
        if finding.command:
            advice = f"{advice}: {finding.command}" if advice else finding.command
        yield serious[finding.level](finding.check, finding.what, advice)
    if not shown:
        yield ok("machine", "the doctor finds nothing that keeps this job from running")


def _device_verdict(found: Estimate, devices: Sequence[Device], machine: Machine, num_ranks: int) -> Verdict:
    if not devices:
        host = machine.host
        return shared_verdict(found, host.available_bytes, host.total_bytes, num_ranks=num_ranks)
    known = [device.free_bytes for device in devices if device.free_bytes is not None]
    fullest = min(known) if len(known) == len(devices) else None
    if devices[0].unified_memory:
        return shared_verdict(found, fullest, devices[0].total_bytes, num_ranks=num_ranks)
    return verdict(found, fullest, devices[0].total_bytes)


def _judged(check: str, found: Verdict, how: str, advice: str) -> Result:
    level = LEVELS[found.word]
    text = f"{found.word}: {found.text} ({how})"
    return Result(check=check, level=level, what=text, advice=None if level is Level.OK else advice)


def _look_at_disk(found: Estimate, runs: Path) -> Iterator[Result]:
    place = next(path for path in (runs, *runs.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if found.disk_bytes:
        yield _judged("disk", place_verdict(found, "disk", free), "estimated", MORE_DISK)
    elif free < LITTLE_BYTES:
        yield warning("disk", f"only {size(free)} are free for checkpoints", "choose: FTWIZ_HOME=FOLDER")
