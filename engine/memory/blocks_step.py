"""One forward and backward pass of a model on a tape, short: a layer or two of each kind stand for all.

Layers of a kind keep the same tensors, so what the left out ones keep is added to the phases in which they
keep it. This is exact: the same rule makes a traced model of few layers stand for one of many.
"""

from collections import Counter
from dataclasses import dataclass, field

from .blocks import Norm, mlp, norm
from .blocks_attention import attention
from .blocks_mixers import Latent, Recurrent, latent_attention, recurrent
from .blocks_model import Layer, Program
from .blocks_moe import Moe, moe
from .blocks_torch import Torch
from .heads import Head, head
from .tape import Tape, Tensor
from .tape_sizes import Part, Walked

FORWARD, HEAD_FORWARD, HEAD, EMBEDDING = "forward", "head forward", "head", "embedding"
"""Phases of a tape; those of a kind of layers have its index behind them."""
WEIGHT_COPIES = "weight copies"


@dataclass(frozen=True, slots=True)
class Rules:
    """How a step is run, as far as its tensors go."""

    checkpointing: str = "none"
    autocast: int | None = None
    caches_casts: bool = True
    counts_weight_gradients: bool = True
    lands_gradients: bool = True
    needs_input_grad: bool = False
    """The embedding's output needs a gradient, although nothing before it is trained."""
    kernel: str = "sdpa"
    head_kind: str = "fused-tiles"
    keeps_output: bool = False
    widens_output: bool = False
    fills_tiles: bool = True
    num_frozen_layers: int = 0
    is_float16: bool = False
    casts_layers: bool = False
    """FSDP2 casts what a layer returns to the format it is gathered in (MixedPrecisionPolicy)."""


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind."""

    number: int
    """How many there are (pairs, where every second one is checkpointed)."""
    cached: Counter[Part]
    """What each adds to what is held until the forward pass ends."""
    kept: Counter[Part]
    """What each keeps until its backward pass."""
    num_walked: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a tape found."""

    walked: Walked
    groups: tuple[Group, ...]
    is_tied: bool = False
    lands_gradients: bool = True
    embedding_gradient: Part | None = None
    """Made last, when the embedding is trained."""
    after_forward: Counter[Part] = field(default_factory=Counter)
    """What is held between the forward and the backward pass."""


@dataclass(slots=True)
class _Run:
    t: Torch
    program: Program
    rules: Rules
    marks: list[tuple[int, str]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    index: int = 0
    """Of the kind of layers that is run."""


def step(program: Program, rules: Rules) -> Step:
    """Run a step."""
    tape = Tape(lands_gradients=rules.lands_gradients)
    t = Torch(tape, rules.autocast, rules.caches_casts, rules.counts_weight_gradients, rules.is_float16)
    run = _Run(t, program, rules)
    tape.phase, tape.section = FORWARD + " 0", "batch"
    batch = tape.tensor("token ids, labels and mask", 3, 8)
    x, tables = _backbone(run, batch)
    head_starts = tape.num_operations
    t.layer = "head"
    tape.phase, tape.section = HEAD_FORWARD, "head"
    x_normed = norm(t, x, program.norm)
    del x
    spec = Head(
        program.head, rules.head_kind, program.softcaps_logits, rules.keeps_output, rules.widens_output,
        rules.fills_tiles,
    )  # fmt: skip
    loss, held = head(t, x_normed, spec)
    del x_normed
    t.leave_autocast()
    after_forward = tape.alive()
    tape.phase = HEAD
    if loss.needs_grad:
        _backward(run, loss, head_starts)
    del held, batch, tables
    weight, lands = program.embedding, rules.lands_gradients and rules.counts_weight_gradients
    is_tied = program.is_tied and rules.head_kind != "score"
    return Step(
        tape.walked(), tuple(run.groups), is_tied, lands,
        weight.part() if weight.is_trained and rules.counts_weight_gradients else None, after_forward,
    )  # fmt: skip


def _backbone(run: _Run, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
    tape, rules = run.t.tape, run.rules
    x = _embed(run, batch)
    inputs = tape.same(x)
    tape.section = "tables"
    tables = [tape.tensor("position tables", 2 * run.program.head_dim, x.item_bytes)]
    if rules.kernel in ("sdpa-mask", "eager"):
        item_bytes = 1 if rules.kernel == "sdpa-mask" else x.item_bytes
        tables.append(tape.tensor("attention mask", 1, item_bytes, per="pair"))
    tape.section = "layer"
    for index, (layer, count) in enumerate(run.program.kinds):
        tape.phase = f"{FORWARD} {index}"
        run.index = index
        x = _layers(run, x, layer, count)
    del inputs
    return x, tables


def _embed(run: _Run, batch: Tensor) -> Tensor:
    t, tape, rules = run.t, run.t.tape, run.rules
    weight = run.program.embedding
    tape.section = "embedding"
    trains = t.landing([weight.part()]) if weight.is_trained else []
    x = tape.op([], "embedding output", weight.num_out, weight.item_bytes, keeps=[batch], trains=trains)
    if rules.needs_input_grad and not x.needs_grad:
        x = tape.detach(x, needs_grad=True)
    return t.times(x, "scaled embedding") if run.program.scales_embedding else x


def _layers(run: _Run, x: Tensor, layer: Layer, count: int) -> Tensor:
    index, tape, is_paired = run.index, run.t.tape, run.rules.checkpointing == "every-2nd" and count > 1
    number = count // 2 if is_paired else count
    num_walked, before, kept = min(number, 2), tape.alive(), Counter[Part]()
    for walked in range(num_walked):
        if walked == num_walked - 1:
            before = tape.alive()
        run.marks.append(
            (tape.num_operations, f"back {index} {'last' if walked == num_walked - 1 else 'first'}")
        )
        run.t.layer = f"{index} {walked}"
        x = _unit(run, x, layer, is_paired=is_paired)
        kept = tape.alive()
    kept.subtract(before)
    run.groups.append(Group(number, +kept, _after_forward(run.rules, +kept), num_walked))
    return x


def _after_forward(rules: Rules, kept: Counter[Part]) -> Counter[Part]:
    """Autocast's copies of weights end with the forward pass, but for layers that keep their activations."""
    divisor = {"none": 1, "every-2nd": 2}.get(rules.checkpointing)
    left: Counter[Part] = Counter()
    for part, number in kept.items():
        is_copy = part.section == WEIGHT_COPIES
        left[part] = (number // divisor if divisor else 0) if is_copy else number
    return +left


def _unit(run: _Run, x: Tensor, layer: Layer, *, is_paired: bool) -> Tensor:
    t, mode = run.t, run.rules.checkpointing
    name = t.layer

    def again(x: Tensor) -> Tensor:
        t.layer = name
        try:
            with t.tape.within("layer"):
                return _run_unit(run, x, layer)
        finally:
            if t.tape.recomputes:
                t.leave_autocast()

    if mode == "full" or is_paired or mode == "every-2nd":
        x = t.tape.checkpoint(again, x)
        t.layer = f"{name} plain"
        return _run_unit(run, x, layer) if is_paired else x
    return _run_unit(run, x, layer)


def _run_unit(run: _Run, x: Tensor, layer: Layer) -> Tensor:
    out = run_layer(run.t, x, layer)
    if run.rules.casts_layers and run.t.autocast:
        return run.t.to(out, run.t.autocast, "layer output cast")
    return out


def run_layer(t: Torch, x: Tensor, layer: Layer) -> Tensor:
    """Run a decoder layer."""
    if layer.is_parallel:
        return _parallel(t, x, layer)
    x = _mixed(t, x, layer)
    return _fed(t, x, layer)


def _mixed(t: Torch, x: Tensor, layer: Layer) -> Tensor:
    if layer.mixer is None:
        return x
    inner = _norm(t, x, layer.before)
    inner = _mix(t, inner, layer)
    inner = _norm(t, inner, layer.after)
    return t.add(x, inner, "residual")


def _mix(t: Torch, x: Tensor, layer: Layer) -> Tensor:
    mixer = layer.mixer
    if isinstance(mixer, Latent):
        return latent_attention(t, x, mixer)
    if isinstance(mixer, Recurrent):
        return recurrent(t, x, mixer)
    assert mixer is not None
    return attention(t, x, mixer)


def _fed(t: Torch, x: Tensor, layer: Layer) -> Tensor:
    if layer.mlp is None:
        return x
    inner = _norm(t, x, layer.before_mlp)
    inner = _feed(t, inner, layer)
    inner = _norm(t, inner, layer.after_mlp)
    return t.add(x, inner, "residual")


def _feed(t: Torch, x: Tensor, layer: Layer) -> Tensor:
    assert layer.mlp is not None
    return moe(t, x, layer.mlp) if isinstance(layer.mlp, Moe) else mlp(t, x, layer.mlp)


def _norm(t: Torch, x: Tensor, spec: Norm | None) -> Tensor:
    return norm(t, x, spec) if spec else x


def _parallel(t: Torch, x: Tensor, layer: Layer) -> Tensor:
    assert layer.mixer is not None
    if layer.before_mlp:
        mixed = _mix(t, _norm(t, x, layer.before), layer)
        fed = _feed(t, _norm(t, x, layer.before_mlp), layer)
    else:
        inner = _norm(t, x, layer.before)
        mixed, fed = _mix(t, inner, layer), _feed(t, inner, layer)
    return t.add(t.add(mixed, fed, "both branches"), x, "residual")


def _backward(run: _Run, loss: Tensor, head_starts: int) -> None:
    tape = run.t.tape
    tape.backward(loss, until=head_starts)
    for start, phase in reversed(run.marks):
        tape.phase = phase
        tape.resume(until=start)
    tape.phase = EMBEDDING
    tape.resume()
