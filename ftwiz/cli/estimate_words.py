"""How the parts of an estimate are called: methods, engines, phases, sizes."""

from collections.abc import Sequence

from ..engine.memory.workload import REFERENCE, SAMPLING, Recipe
from ..engine.specs.adapter import ALL_LINEAR
from ..engine.specs.estimate import PHASES, PhaseName
from ..engine.specs.workload import Workload

GIB, MIB = 1 << 30, 1 << 20


def method_text(recipe: Recipe) -> str:
    """Return how a method is called: ``QLoRA (nf4), r = 16, all-linear``."""
    adapter = recipe.adapter
    if adapter is None:
        last = (
            f"the last {recipe.num_trainable_layers} layers" if recipe.method == "freeze" else "all weights"
        )
        return f"training {last}"
    name = "OFT" if adapter.kind == "oft" else "DoRA" if adapter.use_dora else "LoRA"
    if recipe.quantization is not None:
        name = f"Q{name}" if recipe.quantization.kind == "nf4" else f"{name} on {recipe.quantization.kind}"
    rank = "" if adapter.kind == "oft" else f" r={adapter.rank}"
    where = "all linear layers" if adapter.targets == (ALL_LINEAR,) else " ".join(adapter.targets)
    saved = f", {' '.join(adapter.modules_to_save)} whole" if adapter.modules_to_save else ""
    return f"{name}{rank} on {where}{saved}"


def engine_text(recipe: Recipe) -> str:
    """Return how the engine is called: ``ZeRO-3 with the optimizer on the host``."""
    sharding = recipe.sharding
    name = {"single": "one process", "ddp": "DDP", "zero": f"ZeRO-{sharding.zero_stage}"}.get(
        sharding.backend, "FSDP"
    )
    where = {"none": "", "cpu": "the host", "nvme": "NVMe"}
    if sharding.offload_parameters != "none":
        return f"{name} with weights and optimizer on {where[sharding.offload_parameters]}"
    if sharding.offload_optimizer != "none":
        return f"{name} with the optimizer on {where[sharding.offload_optimizer]}"
    return name


def phases_of(workload: Workload) -> tuple[PhaseName, ...]:
    """Return the phases that such a run has: only some stages sample answers or ask a reference model."""
    absent = {"generate"} if workload.stage not in SAMPLING else set()
    absent |= {"reference"} if workload.stage not in REFERENCE else set()
    return tuple(phase for phase in PHASES if phase not in absent)


def phases_text(phases: Sequence[PhaseName], among: Sequence[PhaseName] = PHASES) -> str:
    """Return when bytes are held: ``always``, ``forward to optimizer``, ``load, save``.

    Args:
        phases: When they are.
        among: The phases that the run has.
    """
    held = [place for place, phase in enumerate(among) if phase in phases]
    if not held:
        return "never"
    runs = [[held[0], held[0]]]
    for place in held[1:]:
        if place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    if runs == [[0, len(among) - 1]]:
        return "always"
    texts = [among[a] if a == b else f"{among[a]} to {among[b]}" for a, b in runs]
    return ", ".join(texts)


def phase_text(phase: PhaseName) -> str:
    """Return a phase in words."""
    return {
        "load": "while the model is loaded",
        "generate": "while answers are sampled",
        "reference": "in the reference model's pass",
        "forward": "at the end of the forward pass",
        "head": "at the loss",
        "backward start": "at the start of the backward pass",
        "backward end": "at the end of the backward pass",
        "optimizer": "at the optimizer's step",
        "save": "while a checkpoint is written",
    }[phase]


def gib(num_bytes: float) -> str:
    """Return bytes in GiB; in MiB below a tenth."""
    if abs(num_bytes) < GIB / 10:
        return f"{num_bytes / MIB:,.1f} MiB"
    return f"{num_bytes / GIB:,.1f} GiB"


def unit(peak: float) -> str:
    """Return the unit of a table whose largest number is ``peak`` bytes."""
    return "GiB" if peak >= GIB else "MiB"


def number(num_bytes: float, peak: float) -> str:
    """Return a number of that table."""
    return f"{num_bytes / (GIB if unit(peak) == 'GiB' else MIB):,.2f}"
