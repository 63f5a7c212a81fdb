"""A tape of operations: which tensors a training step holds, when, and which of them the peak is made of.

A model is written down as the operations that it runs, in their order, on tensors that have a size and no
contents. The tape keeps the books as torch does: a tensor lives as long as a name of the program holds it
(Python's own reference count: a local dies with its function) or an operation kept it for the backward pass.
``backward`` then walks back over the operations, makes their gradients and lets go of what they kept.

Sizes are sums of three parts, so that one walk answers for every batch: bytes per token, bytes per token and
position of its sequence (attention scores, masks), and fixed bytes (copies of weights).

    tape = Tape()
    x = tape.tensor("layer input", hidden, 2, needs_grad=True)    # 2 B x hidden per token
    y = tape.op([x], "up", width, 2, keeps=[x])                   # a linear layer that is trained
    y = tape.op([y], "gelu", width, 2, keeps=[y])
    y = tape.op([y], "down", hidden, 2, keeps=[y])
    tape.phase = "backward"
    tape.backward(y)
    tape.walked().peak(4096, 4096, "backward")                    # Moment: bytes, and what is alive

Sources: torch 2.13, ``csrc/autograd/engine.cpp`` (order of the walk, when gradients are added in place),
``utils/checkpoint.py`` (recomputation stops at the last kept tensor).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from .tape_nodes import Frame, Node, Slot, Storage
from .tape_sizes import AXES, Highest, Part, Per, Size, Walked, frontier

GRADIENT = "gradient"
WEIGHT_GRADIENT = "weight gradient"
"""Sections of what the backward pass makes."""


class Tensor:
    """A name that a program holds for a tensor. It ends when Python lets go of it."""

    __slots__ = ("_slot", "_storage", "_tape", "width")

    def __init__(self, tape: "Tape", storage: Storage, slot: Slot | None, width: int | None = None) -> None:
        self._tape, self._storage, self._slot = tape, storage, slot
        self.width = width or storage.part.width
        storage.refs += 1

    def __del__(self) -> None:
        self._tape._drop(self._storage)  # noqa: SLF001 - the tape's own handle

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return self._storage.part.item_bytes

    @property
    def per(self) -> Per:
        """What the width is counted for."""
        return self._storage.part.per

    @property
    def needs_grad(self) -> bool:
        """Whether the backward pass reaches it."""
        return self._slot is not None


class _Stop(Exception):  # noqa: N818 - not an error: everything that is needed was recomputed
    pass


class Tape:
    """Books of one step on one device."""

    def __init__(self, *, lands_gradients: bool = True) -> None:
        """Start with nothing held.

        Args:
            lands_gradients: The gradients of weights stay (section ``weight gradient``). Otherwise they are
                dropped as soon as they are made: they are added to gradients that somebody else counts.
        """
        self.phase = ""
        """Name that peaks are filed under from now on."""
        self.section = ""
        """Section of tensors made from now on."""
        self.trail: list[tuple[int, Part]] | None = None
        """When it is a list: every tensor made (its number) and dropped (below 0), in order."""
        self._lands = lands_gradients
        self._nodes: list[Node] = []
        self._frame: Frame | None = None
        self._again: list[Storage] | None = None
        self._stop_at = 0
        self._total = [0, 0, 0]
        self._log: list[tuple[Part, int]] = []
        self._moments: dict[str, list[tuple[Size, int]]] = {}

    def tensor(
        self, name: str, width: int, item_bytes: int, *, per: Per = "token", needs_grad: bool = False
    ) -> Tensor:
        """Return a tensor that no operation of this tape made."""
        part = Part(name, self.section, width, item_bytes, per)
        return Tensor(self, self._allocate(part), Slot(part) if needs_grad else None)

    def op(  # noqa: PLR0913 - what an operation is
        self,
        inputs: Sequence[Tensor],
        name: str,
        width: int,
        item_bytes: int,
        *,
        per: Per = "token",
        keeps: Iterable[Tensor] = (),
        holds: Iterable[Tensor] = (),
        passes: bool = False,
        keeps_output: bool = False,
        shares: Tensor | None = None,
        trains: Sequence[Part] = (),
        forward_scratch: Sequence[Part] = (),
        backward_scratch: Sequence[Part] = (),
    ) -> Tensor:
        """Run an operation and return its output.

        Args:
            inputs: Tensors that gradients flow back to, if they need one.
            name: Of the output.
            width: Elements of the output per token (or as ``per`` says).
            item_bytes: Bytes of an element.
            per: What the width is counted for.
            keeps: What is kept for the backward pass; a tensor kept twice costs once.
            holds: What it holds past checkpointing: attributes of a function's ``ctx`` are not recomputed.
            passes: The gradient of the output is that of the inputs (sums): no new tensor.
            keeps_output: The output is kept too.
            shares: The output is a view of this tensor.
            trains: Gradients of weights that the backward pass makes.
            forward_scratch: Held only while it runs.
            backward_scratch: Held only while its backward runs.
        """
        part = Part(name, self.section, width, item_bytes, per)
        needs_grad = bool(trains) or any(tensor._slot for tensor in inputs)  # noqa: SLF001 - own handle
        slot = Slot(part) if needs_grad else None
        first = self._frame.num_kept if self._frame else 0
        kept = self._keep(keeps) if slot else []
        storage = shares._storage if shares else self._allocate(part)  # noqa: SLF001 - own handle
        output = Tensor(self, storage, slot, width)
        self._flash(forward_scratch)
        if slot is None:
            return output
        if keeps_output:
            kept += self._keep([output])
        if self._again is None:
            targets = tuple((tensor._slot, passes) for tensor in inputs if tensor._slot)  # noqa: SLF001
            node = Node((slot,), targets, kept, backward_scratch, trains, self._frame, first)
            node.last = self._frame.num_kept if self._frame else 0
            node.held = self._hold(holds)
            self._nodes.append(node)
        return output

    def _keep(self, tensors: Iterable[Tensor]) -> list[Storage]:
        """Hold tensors for the backward pass: now, or (inside a checkpoint) when they are made again."""
        kept: list[Storage] = []
        for tensor in tensors:
            storage = tensor._storage  # noqa: SLF001 - own handle
            if self._again is not None:
                storage.refs += 1
                self._again.append(storage)
                if len(self._again) == self._stop_at:
                    raise _Stop
            elif self._frame:
                self._frame.num_kept += 1
            else:
                storage.refs += 1
                kept.append(storage)
        return kept

    def _hold(self, tensors: Iterable[Tensor]) -> list[Storage]:
        held = [tensor._storage for tensor in tensors]  # noqa: SLF001 - own handle
        for storage in held:
            storage.refs += 1
        return held

    def split(self, x: Tensor, *pieces: tuple[str, int]) -> list[Tensor]:
        """Return views of a tensor by name and width; their gradients are joined to one of the full width."""
        storage, before = x._storage, self._frame.num_kept if self._frame else 0  # noqa: SLF001 - own handle
        parts = [Part(name, self.section, width, x.item_bytes, x.per) for name, width in pieces]
        slots = [Slot(part) if x._slot else None for part in parts]  # noqa: SLF001 - own handle
        if x._slot and self._again is None:  # noqa: SLF001 - own handle
            outs = tuple(slot for slot in slots if slot)
            self._nodes.append(Node(outs, ((x._slot, False),), (), (), (), self._frame, before, before))  # noqa: SLF001
        return [Tensor(self, storage, slot, part.width) for slot, part in zip(slots, parts, strict=True)]

    def same(self, tensor: Tensor) -> Tensor:
        """Return another name for a tensor (a view)."""
        return Tensor(self, tensor._storage, tensor._slot, tensor.width)  # noqa: SLF001 - own handle

    def detach(self, tensor: Tensor, *, needs_grad: bool = False) -> Tensor:
        """Return the tensor without its history; ``needs_grad``: the backward pass ends in it."""
        slot = Slot(tensor._storage.part) if needs_grad else None  # noqa: SLF001 - own handle
        return Tensor(self, tensor._storage, slot)  # noqa: SLF001 - own handle

    @contextmanager
    def within(self, section: str) -> Iterator[None]:
        """Name the section of what is made inside."""
        before, self.section = self.section, section
        try:
            yield
        finally:
            self.section = before

    def checkpoint(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run ``run(x)`` keeping only ``x``; the backward pass runs it again.

        Args:
            run: Takes the input; whatever else it uses must be held by others.
            x: Input.
        """
        if self._frame or self._again is not None:
            return run(x)
        storage = x._storage  # noqa: SLF001 - own handle
        storage.refs += 1
        slot = x._slot  # noqa: SLF001 - own handle

        def rerun() -> None:
            run(Tensor(self, storage, slot))

        self._frame = Frame(rerun, (storage,))
        try:
            output = run(x)
        finally:
            frame, self._frame = self._frame, None
        frame.num_left = frame.num_kept
        if not frame.num_kept:
            self._release(frame.source)
        return output

    def backward(self, loss: Tensor, *, until: int = 0) -> None:
        """Walk back from a tensor, whose gradient is made first.

        Args:
            loss: Where to start.
            until: Operations made before this many stay for a later walk (see ``num_operations``).
        """
        slot = loss._slot  # noqa: SLF001 - own handle
        assert slot is not None
        if slot.grad is None:
            slot.grad = self._make(slot.part, GRADIENT)
        self.resume(until=until)

    def resume(self, *, until: int = 0) -> None:
        """Walk on back over operations that are left, to those made before ``until``."""
        while len(self._nodes) > until:
            self._step(self._nodes.pop())

    @property
    def recomputes(self) -> bool:
        """Whether a checkpoint is being run again."""
        return self._again is not None

    @property
    def num_operations(self) -> int:
        """Operations that wait for the backward pass."""
        return len(self._nodes)

    def _step(self, node: Node) -> None:
        gradients = [slot.take() for slot in node.outs if slot.grad]
        if not gradients:
            self._release((*node.kept, *node.held))
            return
        gradient = gradients[0]
        kept = self._kept_of(node)
        made: list[tuple[Slot, Storage]] = []
        for slot, passes in node.inputs:
            if passes and slot.part.size == gradient.part.size:
                gradient.refs += 1
                made.append((slot, gradient))
            else:
                made.append((slot, self._make(slot.part, GRADIENT)))
        landed = [self._make(part, WEIGHT_GRADIENT) for part in node.weight_gradients]
        self._flash(node.scratch)
        self._release(gradients)
        self._release((*kept, *node.held))
        self._leave(node)
        if not self._lands:
            self._release(landed)
        for slot, storage in made:
            self._accumulate(slot, storage)

    def _kept_of(self, node: Node) -> Sequence[Storage]:
        frame = node.frame
        if frame is None:
            return node.kept
        if node.first == node.last:
            return ()
        if frame.again is None:
            frame.again = self._again = []
            self._stop_at = frame.num_kept
            try:
                frame.rerun()
            except _Stop:
                pass
            finally:
                self._again = None
        return frame.again[node.first : node.last]

    def _leave(self, node: Node) -> None:
        """Let go of a checkpoint's input when nothing of it is waited for any more."""
        frame = node.frame
        if frame and node.first < node.last:
            frame.num_left -= node.last - node.first
            if not frame.num_left:
                self._release(frame.source)

    def _accumulate(self, slot: Slot, new: Storage) -> None:
        """Add in place where torch does: into a gradient that nobody else holds."""
        old = slot.grad
        if old is None:
            slot.grad = new
            return
        if old.refs > 1:
            slot.grad = self._make(slot.part, GRADIENT)
            self._drop(old)
        self._drop(new)

    def _make(self, part: Part, section: str) -> Storage:
        storage = self._allocate(part._replace(section=section))
        storage.refs += 1
        return storage

    def _allocate(self, part: Part) -> Storage:
        self._count(part, 1)
        self._file()
        storage = Storage(part)
        if self.trail is not None:
            self.trail.append((id(storage), part))
        return storage

    def _count(self, part: Part, number: int) -> None:
        axis = AXES[part.per]
        self._total[axis] += part.width * part.item_bytes * number
        self._log.append((part, number))

    def _file(self) -> None:
        self._moments.setdefault(self.phase, []).append((Size(*self._total), len(self._log)))

    def _flash(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._count(part, 1)
        if parts:
            self._file()
        for part in parts:
            self._count(part, -1)
        if self.trail is not None:
            numbers = range(1, len(parts) + 1)  # no address is as low
            self.trail += [
                *zip(numbers, parts, strict=True),
                *((-n, p) for n, p in zip(numbers, parts, strict=True)),
            ]

    def _drop(self, storage: Storage) -> None:
        storage.refs -= 1
        if storage.refs == 0:
            self._count(storage.part, -1)
            if self.trail is not None:
                self.trail.append((-id(storage), storage.part))

    def _release(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            self._drop(storage)

    def alive(self) -> Counter[Part]:
        """Return what is held now."""
        return self._alive_at(len(self._log))

    def _alive_at(self, index: int) -> Counter[Part]:
        alive: Counter[Part] = Counter()
        for part, number in self._log[:index]:
            alive[part] += number
        return +alive

    def walked(self) -> "Walked":
        """Return the moments that can be a phase's peak, whatever the batch."""
        return Walked(
            {
                phase: tuple(Highest(size, self._alive_at(index)) for size, index in frontier(moments))
                for phase, moments in self._moments.items()
            }
        )
