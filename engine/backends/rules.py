"""Incompatibilities that several engines share."""

from ..specs.job import Job, PlanPins
from ..specs.machine import Device
from ..specs.plan import Rule


def offloads_to(pins: PlanPins, *places: str) -> bool:
    """Whether something is pinned to live in one of these places."""
    return pins.offload_optimizer in places or pins.offload_parameters in places


def _whole_devices(job: Job, devices: tuple[Device, ...]) -> bool:
    return job.plan.num_processes != 1 and any(device.partition is not None for device in devices)


WHOLE_DEVICES = Rule(
    broken=_whole_devices,
    text="ranks need whole devices: a process sees one slice of a partitioned card",
    source="NVIDIA Multi-Instance GPU user guide, on CUDA device enumeration",
)
OWN_MEMORY = Rule(
    broken=lambda job, devices: (
        offloads_to(job.plan, "cpu") and any(device.unified_memory for device in devices)
    ),
    text="device and host share one memory here, so offloading to the host saves nothing",
    source="definition of unified memory",
)
NOT_APPLE = Rule(
    broken=lambda _job, devices: any(device.kind == "mps" for device in devices),
    text="it does not train on Apple's GPU",
    source="accelerate 1.15, state.py: no distributed type for mps",
)
