"""The ranks of a run together: one agreed number, a common wait, and whether all are what was planned."""

import os
import socket
import time
from datetime import timedelta
from typing import Any

from ..errors import Refused
from ..specs.events import RankEvent
from ..specs.plan import Strategy
from .census import take
from .settings import Rank

PATIENCE = timedelta(hours=6)
"""Longest wait for another rank that is busy (saving, generating). A rank that died is noticed at once."""
DDP_CLASS = "DistributedDataParallel"
MOST_PADDING = 0.25
"""Parts are made equal by padding, which weighs most in tiny models; a part that is a whole is far above."""


class Group:
    """The ranks' own gloo group, beside whatever the engine uses: works on any device, disturbs nothing.

    With one rank there is nobody to ask or to wait for.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self._group: Any = None
        if rank.world_size > 1:
            import torch.distributed

            self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)

    def from_first(self, number: int) -> int:
        """Return rank 0's number on every rank."""
        if self._group is None:
            return number
        import torch
        import torch.distributed

        box = torch.tensor([number])
        torch.distributed.broadcast(box, src=0, group=self._group)
        return int(box.item())

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self._group is not None:
            import torch.distributed

            torch.distributed.barrier(group=self._group)

    def gather(self, item: Any) -> list[Any]:
        """Return every rank's item, by rank, on every rank."""
        if self._group is None:
            return [item]
        import torch.distributed

        items: list[Any] = [None] * self.rank.world_size
        torch.distributed.all_gather_object(items, item, group=self._group)
        return items


def check_world(rank: Rank, strategy: Strategy) -> None:
    """Fail before anything is loaded when the launcher started another number of ranks.

    Raises:
        Refused: It did.
    """
    if rank.world_size != strategy.num_processes:
        raise Refused(
            f"the launcher started {rank.world_size} ranks, and the plan is {strategy.num_processes}",
            hint="start the run with ftwiz run, or with its launch.sh",
        )


def describe_rank(rank: Rank, trainer: Any) -> RankEvent:
    """Return what this rank has become, after the trainer has prepared the model."""
    census = take(trainer)
    return RankEvent(
        t=time.time(),
        rank=rank.rank,
        local_rank=rank.local_rank,
        world_size=trainer.accelerator.num_processes,
        host=socket.gethostname(),
        pid=os.getpid(),
        device=str(trainer.accelerator.device),
        engine=type(trainer.model_wrapped).__name__,
        num_parameters=census.num_parameters,
        num_trainable_parameters=census.num_trainable_parameters,
        parameter_bytes=census.parameter_bytes,
        sharding=census.sharding,
        num_shards=census.num_shards,
        num_local_parameters=census.num_local_parameters,
        num_optimizer_parameters=census.num_optimizer_parameters,
        packing=census.packed.packing,
        num_packed_parameters=census.packed.num_weights,
        packed_bytes=census.packed.num_bytes,
    )


def check_ranks(ranks: list[RankEvent], strategy: Strategy) -> None:
    """Compare what the ranks have become with the plan.

    Raises:
        Refused: One of them is something else; the message names it.
    """
    for event in ranks:
        if reason := _differs(event, strategy):
            raise Refused(
                f"rank {event.rank} is not what was planned: {reason}",
                hint="accelerate or the launcher did something else; see log/",
            )


def _differs(event: RankEvent, strategy: Strategy) -> str | None:
    if event.world_size != strategy.num_processes:
        return f"it is one of {event.world_size} ranks, not of {strategy.num_processes}"
    if event.device.partition(":")[0] != strategy.device_kind:
        return f"it is on {event.device}, not on {strategy.device_kind}"
    wants_ddp = strategy.backend == "ddp" and strategy.num_processes > 1
    if (event.engine == DDP_CLASS) != wants_ddp:
        return f"its model is a {event.engine}, and the backend is {strategy.backend}"
    return _packs_otherwise(event, strategy) or _splits_otherwise(event, strategy)


def _packs_otherwise(event: RankEvent, strategy: Strategy) -> str | None:
    """Find weights that are not packed as planned, or not split. A model may have been published packed."""
    planned = strategy.quantization
    if planned not in {"none", event.packing}:
        return f"its weights are packed as {event.packing or 'nothing'}, and {planned} is planned"
    bits = {"nf4": 4, "int8": 8}.get(event.packing or "")
    if bits is None:
        return None
    shards = strategy.num_shards if strategy.splits_weights else 1
    most = event.num_packed_parameters * bits / 8 / shards * (1 + MOST_PADDING)
    if event.packed_bytes > most:
        return f"it holds {event.packed_bytes:,} bytes of packed weights, and {shards} ranks share them"
    return None


def _splits_otherwise(event: RankEvent, strategy: Strategy) -> str | None:
    planned = {"zero": f"zero-{strategy.zero_stage}", "fsdp": "fsdp2"}.get(strategy.backend)
    if event.sharding != planned:
        return f"it runs {event.sharding or 'nothing that splits'}, and {planned or 'nothing'} is planned"
    if event.num_shards != strategy.num_shards:
        return f"its smallest split is over {event.num_shards} ranks, not over {strategy.num_shards}"
    if strategy.splits_weights:
        most = event.num_parameters / strategy.num_shards * (1 + MOST_PADDING)
        if event.num_local_parameters is None or event.num_local_parameters > most:
            return f"it holds {event.num_local_parameters} of {event.num_parameters} weights"
    most = event.num_trainable_parameters / strategy.num_shards * (1 + MOST_PADDING)
    if event.num_optimizer_parameters is not None and event.num_optimizer_parameters > most:
        return (
            f"its optimizer holds {event.num_optimizer_parameters} of {event.num_trainable_parameters} "
            f"trained weights, and {strategy.num_shards} ranks share them"
        )
    return None
