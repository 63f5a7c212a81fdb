"""What the trace leaves out: refused where it decides, noted where it does not."""

from collections.abc import Mapping

from ..errors import Refused
from ..specs.workload import Workload
from .tracer import Trace

_HINT = "use the estimate without --exact"
_FOREIGN = ("litgpt", "torchtitan", "torchtune")
_BITSANDBYTES = ("nf4", "fp4", "int8")


def check(workload: Workload) -> None:
    """Refuse what cannot be traced.

    Raises:
        Refused: Naming the choice.
    """
    sharding = workload.sharding
    if workload.trainer in _FOREIGN:
        raise Refused(
            f"the exact estimate would trace transformers' model, where {workload.trainer} has its own",
            hint=_HINT,
        )
    if sharding.tensor_parallel > 1 or sharding.context_parallel > 1:
        raise Refused("the exact estimate cannot split layers or sequences over ranks", hint=_HINT)
    if workload.checkpointing == "selective-op":
        raise Refused("the exact estimate cannot keep single operations' results (selective-op)", hint=_HINT)
    if workload.offloads_activations:
        raise Refused("the exact estimate cannot move activations to the host", hint=_HINT)


def notes(workload: Workload, installed: Mapping[str, str | None]) -> list[str]:
    """Return what was traced otherwise than asked, a sentence each."""
    found = [
        f"traced with {name} {version}, asked about {asked}"
        for name, version in installed.items()
        if (asked := getattr(workload.stack, name, None)) is not None
        and version is not None
        and version.partition("+")[0] != asked
    ]
    said = {
        "traced as it runs without torch.compile": workload.compiles,
        "sampling the answers is not traced": workload.stage in ("grpo", "rloo"),
        "FSDP1 is traced as FSDP2": workload.sharding.backend == "fsdp1",
        "kernels' sizes are those of CUDA": workload.device_kind != "cuda",
        "the packing is a stand-in: bytes per weight and a copy of one layer while it computes": (
            workload.quantization is not None and workload.quantization.kind not in _BITSANDBYTES
        ),
    }
    return [*found, *(text for text, holds in said.items() if holds)]


def on_the_device(trace: Trace, workload: Workload) -> Trace:
    """Return a trace without what FSDP keeps on the host: sharded weights, gradients, optimizer states.

    Source: torch 2.13, distributed/fsdp: CPUOffloadPolicy. A gradient counts as moved once it is reduced.
    """
    sharding = workload.sharding
    if sharding.backend not in ("fsdp", "fsdp1") or sharding.offload_parameters != "cpu":
        return trace
    moved = {
        uid
        for uid, held in trace.held.items()
        if held.group in ("gradients", "optimizer") or (held.is_parameter and held.is_sharded)
    }
    trace.events = [event for event in trace.events if event.uid not in moved]
    return trace
