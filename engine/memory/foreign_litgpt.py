"""The training step of Lightning-AI/litgpt, as its code was from October 2023 to 2024. Pure."""

from ..errors import Refused
from ..specs.estimate import Term
from ..specs.workload import Workload
from .foreign_litgpt_facts import LAYOUTS, Method, Step
from .foreign_litgpt_model import walk
from .foreign_ops import Packing, shape_of
from .tape_sizes import Walked

SOURCE = "Lightning-AI/litgpt, litgpt/{model,lora,adapter,adapter_v2,utils}.py at the date of the measurement"
ADAPTERS: dict[str, Method] = {"llama-adapter": "adapter", "llama-adapter-v2": "adapter_v2"}
"""Kinds of ``Adapter`` that only litgpt trains."""
NAMES = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "dense": "o",
    "mlp": "mlp",
    "lm_head": "head",
}
"""What targets of an adapter are called here."""
RELEASES_INPUT = (0, 43, 2)
"""Version of bitsandbytes whose 4-bit product lets go of its input (9e75374)."""
LATEST = "2024-10-01"


def walk_of(w: Workload) -> Walked:
    """Return what a step of a workload holds.

    Raises:
        Refused: litgpt has no such model, or its operations are not written down.
    """
    return walk(step_of(w))


def step_of(w: Workload) -> Step:
    """Return what decides what a step holds.

    Raises:
        Refused: litgpt has no such model, or its operations are not written down.
    """
    shape, layout = shape_of(w.model), LAYOUTS.get(w.model.model_type)
    if shape is None or layout is None:
        raise Refused(f"litgpt's operations for {w.model.model_type} are not written down")
    adapter, packed = w.adapter, w.quantization
    method: Method = "full" if w.method == "full" else ADAPTERS.get(adapter.kind if adapter else "", "lora")
    return Step(
        shape=shape,
        layout=layout,
        date=w.stack.trainer or LATEST,
        method=method,
        sequence=w.sequence_tokens,
        batch=w.micro_batch_size,
        rank=adapter.rank if adapter and method == "lora" else 0,
        targets=frozenset(NAMES.get(name, "mlp") for name in adapter.targets) if adapter else frozenset(),
        dropout=bool(adapter and adapter.dropout),
        packing=_packing(w) if packed else "none",
        packs_scales=bool(packed and packed.double_quant),
        autocast=w.autocast is not None,
        checkpoints=w.checkpointing == "full",
    )


def _packing(w: Workload) -> Packing:
    numbers = tuple(int(part) for part in (w.stack.bitsandbytes or "").split(".") if part.isdecimal())
    return "bnb-keeps-input" if numbers < RELEASES_INPUT else "bnb"


def extra_terms(w: Workload) -> tuple[Term, ...]:
    """Return nothing: what a step holds is on the tape."""
    del w
    return ()
