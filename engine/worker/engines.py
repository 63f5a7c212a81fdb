"""What an engine asks of a rank: its variables before the stack is imported, and two repairs on the CPU.

After ``enter`` a rank is the same whichever launcher started it: ``accelerate launch`` sets these variables,
torchrun and DeepSpeed's launcher do not.
"""

import os
from typing import Any

from ..backends import backend
from ..errors import Refused
from ..specs.machine import CPU
from ..specs.plan import Strategy
from .settings import Rank


def enter(strategy: Strategy) -> None:
    """Make accelerate and transformers of this process take the planned engine.

    To be called before the trainer's arguments are made: they join the ranks, and loading the model already
    goes by the engine.

    Raises:
        Refused: The engine is not installed.
    """
    for name, value in backend(strategy.backend).environment(strategy).items():
        os.environ.setdefault(name, value)
    if strategy.backend == "zero":
        _check_deepspeed()
    if strategy.device_kind != CPU:
        return
    if strategy.backend == "zero":
        _keep_deepspeed_from_compiling()
    if strategy.backend == "fsdp":
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", CPU)
        _let_accelerate_shard_on_the_cpu()


def reads_weights(strategy: Strategy, rank: Rank) -> bool:
    """Whether this rank reads the weights from the disk.

    With fsdp the first one does and sends the others their parts (``fsdp_cpu_ram_efficient_loading``), so the
    host holds one copy while the model is loaded, not one for each rank. Packed weights cannot be sent: every
    rank reads and packs all. ZeRO-3 splits while it reads.
    """
    return strategy.backend != "fsdp" or strategy.quantization != "none" or rank.local_rank == 0


def save_whole(trainer: Any, folder: str) -> None:
    """Write the model as one that ``from_pretrained`` reads. All ranks call it together.

    With sharded checkpoints the trainer's own ``save_model`` would write nothing and say nothing
    (transformers 5.23, trainer.py).
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(folder)


def forget_order(trainer: Any) -> None:
    """Have ZeRO-3 learn anew in which order layers are used. To be called after answering, before training.

    DeepSpeed gathers ahead what the last forward passes used next. Answers use the output layer, which trl's
    loss gathers by itself: it would meet one that is on its way (deepspeed 0.19.8, trl 1.16; measured:
    "Cannot partition a param in flight").
    """
    offload = getattr(getattr(trainer.model_wrapped, "optimizer", None), "parameter_offload", None)
    if offload is None:
        return
    coordinator = offload.get_param_coordinator()
    if not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()  # noqa: SLF001 - there is no other door


def _check_deepspeed() -> None:
    from importlib.util import find_spec

    if find_spec("deepspeed") is None:
        raise Refused(
            "plan.backend zero needs deepspeed, which this Python does not have",
            hint="install ftwiz[deepspeed], or set plan.backend to fsdp",
        )


def _keep_deepspeed_from_compiling() -> None:
    """Let gloo reduce, as every other engine does on the CPU.

    DeepSpeed would compile a reduction in shared memory on first use: minutes without a word, and a start
    that is killed meanwhile leaves a lock that all later ones wait for (0.19.8, comm/torch.py,
    ``build_shm_op``, which builds what this table calls compatible).
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def _let_accelerate_shard_on_the_cpu() -> None:
    """Let accelerate take FSDP for gloo ranks on the CPU.

    Its table knows accelerators only and silently makes it DDP (accelerate 1.15, state.py). What torch then
    does is the same; only host memory cannot be pinned for a device that is not there.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.fsdp import CPUOffloadPolicy

    original = AcceleratorState.__init__

    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin is None or self.distributed_type != DistributedType.MULTI_CPU:
            return
        if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
            plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)
        if self.mixed_precision != "no":
            plugin.set_mixed_precision(self.mixed_precision)
        self.fsdp_plugin = plugin
        self.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # noqa: SLF001 - both hold it

    AcceleratorState.__init__ = initialise
