"""Watches every storage that torch makes and drops: when, how large, what for.

A dispatch mode sees the results of all operations; weak references tell when a storage dies; FSDP's
``resize_`` of storages counts as a new one. Works on fake tensors, which have sizes and no data.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Size, Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from . import kernels

BLOCK_BYTES = 512
"""The CUDA allocator gives multiples of this (torch 2.13, c10/core/AllocatorConfig.h: kMinBlockSize)."""


@dataclass(slots=True)
class Held:
    """A storage as the trace knows it."""

    op: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    """Weights, gradients, optimizer, activations, logits or buffers; the last word counts."""
    num_bytes: int = 0
    """As the allocator rounds them."""
    layer: int | None = None
    """Whose it is."""
    is_parameter: bool = False
    is_packed: bool = False
    """A parameter of a layer whose weights are quantized."""
    is_sharded: bool = False
    """It is one rank's part."""
    stream: int = 0
    """Which stream asked for it; 0 is the one that computes."""


@dataclass(frozen=True, slots=True)
class Event:
    """One storage made (bytes above 0) or dropped (below 0)."""

    uid: int
    num_bytes: int
    phase: str
    segment: int = 0
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a run: one layer's pass, or what happens outside of layers."""

    run: int
    """Number of the pass that it is part of."""
    layer: int | None = None


@dataclass(slots=True)
class Trace:
    """All events of a run in order, and what the storages are."""

    events: list[Event] = field(default_factory=list)
    held: dict[int, Held] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=lambda: [Segment(0)])


def rounded(num_bytes: int) -> int:
    """Return what the allocator gives for a request, in bytes."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def storages(tensor: Tensor) -> list[UntypedStorage]:
    """Return the storages under a tensor; of a sharded one those of its local part."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        parts = (getattr(tensor, name) for name in names)
        return [storage for part in parts if isinstance(part, Tensor) for storage in storages(part)]
    try:
        return [tensor.untyped_storage()]
    except NotImplementedError:  # sparse and other layouts without one
        return []


class StorageTracer(TorchDispatchMode):  # type: ignore[misc]
    """Records the storages of everything that runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.phase = "load"
        self.group = "activations"
        self.summed_in_place: frozenset[Size] = frozenset()
        """Shapes of weights that are used at several places."""
        self._live: dict[int, tuple[int, weakref.ref[UntypedStorage]]] = {}
        self._next = 0
        self._last_owner: int | None = None
        self._resize: Callable[..., Any] | None = None
        self._computing = torch.cpu.current_stream()
        self._streams: dict[Any, int] = {}

    def track(
        self, tensor: Tensor, group: str, op: str, *, layer: int | None = None, is_packed: bool = False
    ) -> None:
        """Count a tensor that was there before."""
        for storage in storages(tensor):
            if self._add(storage, tensor, op, group):
                held = self.trace.held[self._next]
                held.is_packed, held.is_parameter = is_packed, isinstance(tensor, nn.Parameter)
                held.layer, held.is_sharded = layer, is_traceable_wrapper_subclass(tensor)

    def regroup(self, tensor: Tensor, group: str) -> None:
        """Say what a tensor turned out to be for."""
        for storage in storages(tensor):
            if entry := self._live.get(id(storage)):
                self.trace.held[entry[0]].group = group

    def segment(self, *, layer: int | None = None, goes_on: bool = False) -> None:
        """Begin a segment.

        Args:
            layer: Whose pass it is.
            goes_on: It belongs to the same pass through the layers as the one before.
        """
        before = self.trace.segments[-1].run
        self.trace.segments.append(Segment(before if goes_on else before + 1, layer))

    @property
    def layer(self) -> int | None:
        """Whose segment it is now."""
        return self.trace.segments[-1].layer

    @contextmanager
    def grouped(self, group: str) -> Iterator[None]:
        """Count what is made inside for a group."""
        before, self.group = self.group, group
        try:
            yield
        finally:
            self.group = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kernels.is_sum_of_gradients(func.__name__, args, self.summed_in_place):
            return args[0].add_(args[1])
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self._hold_scratch(func.__name__, out)
            leaves: list[Any] = [out]
        elif isinstance(out, tuple | list):
            leaves = tree_leaves(out)
        else:
            return out
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                for storage in storages(leaf):
                    if id(storage) not in self._live:
                        self._add(storage, leaf, func.__name__, self.group)
                        self.trace.held[self._next].layer = self._owner(args, place)
        return out

    def _hold_scratch(self, name: str, out: Tensor) -> None:
        num_bytes = rounded(kernels.scratch_bytes(name, out))
        if not num_bytes:
            return
        self._add_all(out, name)  # the result is there while the scratch is
        self._next += 1
        uid = self._next
        dtype = str(out.dtype).removeprefix("torch.")
        self.trace.held[uid] = Held(f"{name} scratch", tuple(out.shape), dtype, self.group, num_bytes)
        self._tell(uid, num_bytes)
        self._tell(uid, -num_bytes)

    def _add_all(self, tensor: Tensor, op: str) -> None:
        for storage in storages(tensor):
            if self._add(storage, tensor, op, self.group):
                self.trace.held[self._next].layer = self.layer

    def _owner(self, arguments: tuple[Any, ...], place: int) -> int | None:
        """Whose layer a result belongs to: the segment's; in the update that of what it is made from."""
        if self.layer is not None or self.group != "optimizer":
            return self.layer
        for argument in arguments:
            part = argument
            if isinstance(argument, tuple | list):
                part = argument[place] if place < len(argument) else None
            if isinstance(part, Tensor):
                for storage in storages(part):
                    if entry := self._live.get(id(storage)):
                        self._last_owner = self.trace.held[entry[0]].layer
                        return self._last_owner
        return self._last_owner

    def __enter__(self) -> Self:
        original, tracer = UntypedStorage.resize_, self

        def resize(storage: UntypedStorage, size: int) -> Any:
            entry = tracer._live.get(id(storage))
            before = storage.nbytes()
            result = original(storage, size)
            if entry is not None and storage.nbytes() != before:
                tracer._resized(storage, entry[0])
            return result

        self._resize = original
        UntypedStorage.resize_ = resize
        super().__enter__()
        return self

    def __exit__(self, *details: object) -> Any:
        UntypedStorage.resize_ = self._resize
        return super().__exit__(*details)

    def _add(self, storage: UntypedStorage, tensor: Tensor, op: str, group: str) -> bool:
        key = id(storage)
        if key in self._live:
            return False
        held = Held(op, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), group)
        self._begin(storage, held)
        return True

    def _begin(self, storage: UntypedStorage, held: Held) -> None:
        self._next += 1
        key, uid = id(storage), self._next
        held.num_bytes = rounded(storage.nbytes())
        held.stream = self._stream()
        self.trace.held[uid] = held
        self._live[key] = uid, weakref.ref(storage, lambda _: self._end(key, uid))
        if held.num_bytes:
            self._tell(uid, held.num_bytes)

    def _tell(self, uid: int, num_bytes: int) -> None:
        segment, stream = len(self.trace.segments) - 1, self.trace.held[uid].stream
        self.trace.events.append(Event(uid, num_bytes, self.phase, segment, stream))

    def _stream(self) -> int:
        """Number the streams as they come; torch counts a CPU's, which do nothing, as it does a GPU's."""
        current = torch.cpu.current_stream()
        if current is self._computing:
            return 0
        return self._streams.setdefault(current, len(self._streams) + 1)

    def _end(self, key: int, uid: int) -> None:
        entry = self._live.get(key)
        if entry is None or entry[0] != uid:
            return
        del self._live[key]
        if num_bytes := self.trace.held[uid].num_bytes:
            self._tell(uid, -num_bytes)

    def _resized(self, storage: UntypedStorage, uid: int) -> None:
        held = self.trace.held[uid]
        self._end(id(storage), uid)
        self._begin(storage, Held(held.op, held.shape, held.dtype, held.group, layer=self.layer))
