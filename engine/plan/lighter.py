"""The next plan after one that ran out of memory: less on the device, the same training."""

from collections.abc import Iterator
from dataclasses import replace

from ..backends import BACKENDS, backend
from ..specs.estimate import Estimate
from ..specs.job import Job
from ..specs.machine import Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Plan, Reason, Strategy
from ..specs.workload import Stack
from .choices import broken_rule, divisors, usable_devices
from .search import Option, Question, look, timed

SHARES = (0.8, 0.6, 0.4)
"""Most that the first, second and third lighter plan may need of what the failed one was estimated at. The
estimate was too low here, nobody knows by how much: each further failure asks for a larger step."""


def lighter_plan(
    job: Job,
    model: ModelSpec | None,
    machine: Machine,
    *,
    failed: Plan,
    keeps_state: bool,
    time_number: int = 1,
    stack: Stack | None = None,
) -> Plan | None:
    """Return the fastest plan that is clearly lighter than the failed one, with its ranks and global batch.

    Args:
        job: What the user wants; what it pins stays.
        model: Its shape; without it only the micro batch and checkpointing can be compared.
        machine: What is in the box.
        failed: Strategy, devices and environment of the attempt that ran out of memory.
        keeps_state: The state of a checkpoint is to be read: only what does not change its form may change.
        time_number: How often this run has run out of memory, from 1.
        stack: Versions of the training libraries.

    Returns:
        ``None`` when nothing lighter is left.
    """
    if model is None or model.parameters is None:
        found = _next_without_estimate(job, failed.strategy)
        return None if found is None else _plan(failed, found)
    devices = usable_devices(job.plan, machine)
    used = tuple(device for device in devices if device.index in failed.device_indices)
    question = Question(
        job=job, model=model, machine=machine, devices_for=lambda count: used[:count], stack=stack
    )
    before = look(question, failed.strategy).estimate
    options = [look(question, way) for way in _ways(job, failed.strategy, devices, keeps_state=keeps_state)]
    best = _pick(question, before, options, SHARES[min(time_number, len(SHARES)) - 1])
    if best is None:
        return None
    return _plan(failed, best.strategy, best, before)


def change(before: Strategy, after: Strategy) -> str:
    """Say in a few words what one strategy does otherwise than another."""
    parts = []
    if before.micro_batch_size != after.micro_batch_size:
        parts.append(
            f"micro batch {before.micro_batch_size} -> {after.micro_batch_size}, accumulation "
            f"{before.gradient_accumulation_steps} -> {after.gradient_accumulation_steps}"
        )
    if before.gradient_checkpointing != after.gradient_checkpointing:
        parts.append(
            "with gradient checkpointing" if after.gradient_checkpointing else "all activations kept"
        )
    if _form(before) != _form(after):
        stage = f" stage {after.zero_stage}" if after.backend == "zero" else ""
        moved = [
            name
            for name, place in (
                ("optimizer states", after.offload_optimizer),
                ("weights", after.offload_parameters),
            )
            if place != "none"
        ]
        parts.append(f"{after.backend}{stage}" + (f", {' and '.join(moved)} offloaded" if moved else ""))
    return "; ".join(parts) or "the same plan"


def _form(strategy: Strategy) -> tuple[object, ...]:
    """Return what the form of a checkpoint depends on."""
    return (
        strategy.backend,
        strategy.num_processes,
        strategy.zero_stage,
        strategy.shard_size,
        strategy.offload_optimizer,
        strategy.offload_parameters,
        strategy.state_dict,
        strategy.quantization,
    )


def _ways(
    job: Job, failed: Strategy, devices: tuple[Device, ...], *, keeps_state: bool
) -> Iterator[Strategy]:
    pins = job.plan
    checkpointings = (
        (False, True) if pins.gradient_checkpointing == "auto" else (pins.gradient_checkpointing,)
    )
    for checkpointing in checkpointings:
        base = replace(failed, gradient_checkpointing=checkpointing)
        for way in (base,) if keeps_state else _engines(job, base, devices):
            for size in _micro_batches(job, way):
                times = job.train.global_batch_size // way.num_processes // size
                yield replace(way, micro_batch_size=size, gradient_accumulation_steps=times)


def _engines(job: Job, base: Strategy, devices: tuple[Device, ...]) -> Iterator[Strategy]:
    yield base
    if base.num_processes == 1 and not devices:
        return
    for engine in BACKENDS:
        wanted = job.plan.backend
        if wanted not in {"auto", engine.NAME} or broken_rule(engine, job, devices) is not None:
            continue
        if (engine.NAME == "single") != (base.num_processes == 1) and engine.NAME in {"single", "ddp"}:
            continue
        if base.device_kind == "cpu" and base.backend != engine.NAME:
            continue  # sharding the memory of one host saves nothing
        bare = replace(
            base,
            backend=engine.NAME,  # type: ignore[arg-type]  # a module's NAME is not a Literal
            zero_stage=0,
            shard_size=None,
            offload_optimizer="none",
            offload_parameters="none",
        )
        yield from backend(engine.NAME).strategies(bare, job.plan)


def _micro_batches(job: Job, way: Strategy) -> list[int]:
    if job.plan.micro_batch_size != "auto":
        return [job.plan.micro_batch_size]
    return divisors(job.train.global_batch_size // way.num_processes)


def _pick(question: Question, before: Estimate, options: list[Option], share: float) -> Option | None:
    limit = before.allocated_bytes
    fine = [one for one in options if one.estimate.allocated_bytes <= share * limit]
    if fine:
        return max((timed(question, one) for one in fine), key=lambda one: (one.fits, one.pace))
    lightest = min(options, key=lambda one: one.estimate.allocated_bytes, default=None)
    return lightest if lightest and lightest.estimate.allocated_bytes < limit else None


def _next_without_estimate(job: Job, failed: Strategy) -> Strategy | None:
    smaller = [size for size in _micro_batches(job, failed) if size < failed.micro_batch_size]
    if smaller:
        size = max(smaller)
        times = job.train.global_batch_size // failed.num_processes // size
        return replace(failed, micro_batch_size=size, gradient_accumulation_steps=times)
    if job.plan.gradient_checkpointing == "auto" and not failed.gradient_checkpointing:
        return replace(failed, gradient_checkpointing=True)
    return None


def _plan(
    failed: Plan, strategy: Strategy, option: Option | None = None, before: Estimate | None = None
) -> Plan:
    text = f"the plan before it ran out of memory: {change(failed.strategy, strategy)}"
    if option is not None and before is not None and before.allocated_bytes:
        share = option.estimate.allocated_bytes / before.allocated_bytes
        text += f"; {share:.0%} of its memory by the estimate"
    return Plan(
        strategy=strategy,
        device_indices=failed.device_indices,
        environment=failed.environment,
        reasons=(Reason(about="recovery", text=text),),
        estimate=option.estimate if option else None,
        verdict=option.verdict if option else None,
        speed=option.speed if option else None,
    )
