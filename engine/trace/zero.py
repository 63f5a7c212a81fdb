"""DeepSpeed's ZeRO 2 and 3 between backward pass and update, which its own engine cannot run without data.

What it allocates, in its order and on its streams. Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py
(setup_buckets, reduce_independent_p_g_buckets_and_remove_grads, copy_grads_in_partition,
independent_gradient_partition_epilogue, get_grad_norm_direct, step) and stage3.py (_prepare_sub_group).
Flat buffers have the size that they have at full depth, however few layers are traced.
"""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..memory.state_key import LATE_BUCKETS_SINCE
from ..memory.zero_buffers import reduce_bucket
from ..specs.workload import Workload
from . import optimizers
from .build import DTYPES
from .layers import blocks, text_config
from .tracer import StorageTracer

_SUB_GROUP_ELEMENTS = 10**9
"""``sub_group_size`` when the file does not say otherwise."""
_GATHERS = 3
"""Stage that spreads the parameters too."""


class Engine:
    """Takes every gradient as it is made, and updates one rank's part."""

    def __init__(
        self,
        bare: Any,
        trained: list[nn.Parameter],
        workload: Workload,
        tracer: StorageTracer,
        more_layers: int,
    ) -> None:
        sharding = workload.sharding
        self._workload, self._tracer = workload, tracer
        self._shards, self._stage = sharding.num_shards, sharding.zero_stage
        self._dtype, self._master_dtype = DTYPES[workload.trainable], DTYPES[sharding.master or "fp32"]
        self._sizes = sorted({parameter.numel() for parameter in trained}, reverse=True)
        layers = blocks(bare)
        inside = sum(p.numel() for layer in layers for p in layer.parameters() if p.requires_grad)
        whole = sum(parameter.numel() for parameter in trained) + inside * more_layers // len(layers)
        self._elements = -(-whole // self._shards)
        self._bucket_elements = reduce_bucket(sharding, int(text_config(bare).hidden_size))
        self._stream = torch.cpu.Stream() if sharding.overlap_comm else None
        numbers = tuple(map(int, re.findall(r"\d{1,6}", workload.stack.deepspeed or "")[:3]))
        self._is_late = not numbers or numbers >= LATE_BUCKETS_SINCE
        self._buckets: list[Tensor] = []
        self._waiting: list[Tensor] = []
        self._filled = 0
        self._gradients: Tensor | None = None
        self._averaged: Tensor | None = None

    def start(self) -> None:
        """Make the second copy, and for a moment the gradients that the states are sized by."""
        with self._tracer.grouped("optimizer"):
            self._masters = [nn.Parameter(self._flat(size, self._master_dtype)) for size in self._groups()]
            self._optimizer = optimizers.make(self._workload.optimizer, self._masters)
            self._flat(self._groups()[0], torch.float32)
        if self._stage == _GATHERS:
            with self._tracer.grouped("gradients"):
                self._averaged = self._flat(self._elements, self._dtype)
            self._make_buckets(1)

    def _groups(self) -> list[int]:
        """Elements that are updated together."""
        if self._stage != _GATHERS:
            return [self._elements]
        most = self._workload.sharding.sub_group_elements or _SUB_GROUP_ELEMENTS
        full, rest = divmod(self._elements, most)
        return [most] * full + [rest] * (rest > 0)

    def before_backward(self) -> None:
        """Make the buckets where they are made ahead of the loss's backward pass (deepspeed < 0.18.3)."""
        if self._stage != _GATHERS and not self._is_late:
            self._make_buckets(1 if self._stream is None else 2)

    def _make_buckets(self, number: int) -> None:
        """Two of them overlap."""
        with self._tracer.grouped("buffers"):
            self._buckets = [self._flat(self._bucket_elements, self._dtype) for _ in range(number)]

    def take(self, parameter: nn.Parameter) -> None:
        """Copy a gradient into the bucket; one that is larger than the bucket stays until it is reduced."""
        size, gradient = parameter.numel(), parameter.grad
        if not self._buckets:
            self._make_buckets(1 if self._stream is None else 2)
        if self._filled + size > self._bucket_elements:
            self._reduce()
        self._filled += size
        parameter.grad = None
        if size > self._bucket_elements and gradient is not None:
            self._tracer.regroup(gradient, "gradients")
            self._waiting.append(gradient)

    def _reduce(self) -> None:
        if self._filled and self._gradients is None and self._stage != _GATHERS:
            with self._reducing(), self._tracer.grouped("gradients"):
                self._gradients = self._flat(self._elements, self._dtype)
        self._waiting.clear()
        self._filled = 0

    def _reducing(self) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = (
            nullcontext() if self._stream is None else torch.cpu.stream(self._stream)
        )
        return stream

    def after_backward(self) -> None:
        """Add the gradients to those of the micro batches before."""
        self._reduce()
        if self._stage == _GATHERS:
            return
        if self._averaged is None:
            self._averaged = self._gradients
        self._gradients = None
        self._buckets = []

    def step(self) -> None:
        """Measure the gradients in double, make a flat fp32 copy of them, and update the second copy."""
        for size in self._sizes:
            self._flat(min(size, self._elements), torch.float64)
        for master in self._masters:
            with self._tracer.grouped("gradients"):
                flat = self._flat(master.numel(), self._dtype)
                master.grad = flat.to(self._master_dtype)
                del flat
            if self._stage != _GATHERS:
                self._averaged = None
            self._optimizer.step()
            master.grad = None

    @staticmethod
    def _flat(elements: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(elements, dtype=dtype, device="cpu")
