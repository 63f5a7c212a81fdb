"""What each choice would save: the same recipe with one thing changed, estimated again. Pure.

Changes stand in the order of what they cost the user: first those that leave the training as it is, then
those that train something else, last those that need other hardware.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..models import num_trainable
from ..specs.adapter import ALL_LINEAR, Adapter
from ..specs.estimate import Estimate, Verdict
from ..specs.machine import CPU
from ..specs.model import ModelSpec
from ..specs.workload import Quantization, Sharding, Stack
from .ledger import estimate
from .workload import BackendName, OffloadName, Recipe, recipe_workload, sharding_for

ATTENTION_ONLY = ("q_proj", "v_proj")
"""Layers that the paper on LoRA adapts (arXiv 2106.09685, section 4.2)."""
LEAST_TOKENS = 256
"""A sequence is not proposed to be shorter."""


SHARDED: tuple[tuple[BackendName, str], ...] = (
    ("zero2", "ZeRO-2: gradients and optimizer sharded"),
    ("zero3", "ZeRO-3: weights sharded too"),
    ("fsdp", "FSDP: everything sharded"),
)


SHARDABLE = frozenset({"nf4", "fp4"})


class Change(NamedTuple):
    """One thing that could be chosen otherwise."""

    text: str
    option: str
    """As it is typed."""
    recipe: Recipe
    same_training: bool = True
    """Every step computes the same, as far as rounding goes."""
    needs_hardware: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What a change does."""

    texts: tuple[str, ...]
    options: tuple[str, ...]
    same_training: bool
    needs_hardware: bool
    process_bytes: int
    host_bytes: int
    """What a node's host then holds."""
    delta_bytes: int
    """Below zero: it saves."""
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Whose memory, against what is free."""

    recipe: Recipe
    model: ModelSpec
    stack: Stack
    judge: Callable[[Estimate], Verdict]
    can_offload: bool = True
    """The host has a memory of its own."""


def effects(question: Question) -> tuple[Effect, ...]:
    """Return what every single change would do, the cheapest first."""
    now = _estimate(question, question.recipe).process_bytes
    return tuple(_effect(question, now, (change,)) for change in _changes(question, question.recipe))


def cheapest_fit(question: Question) -> Effect | None:
    """Return the cheapest change that makes it fit, or two, or as many as it takes, or ``None``."""
    now = _estimate(question, question.recipe).process_bytes
    singles = list(_here(question, question.recipe))
    one = _first_fit(question, now, ((change,) for change in singles))
    if one is not None:
        return one
    many = _together(question, now)
    if many is None:
        return None
    pairs = [(a, b) for a in singles for b in _here(question, a.recipe) if _name(a) != _name(b)]
    pairs.sort(key=lambda pair: not (pair[0].same_training and pair[1].same_training))
    return _first_fit(question, now, pairs) or many


def _first_fit(question: Question, now: int, choices: Iterable[tuple[Change, ...]]) -> Effect | None:
    made = (_effect(question, now, taken) for taken in choices)
    return next((effect for effect in made if effect.verdict.word == "fits"), None)


def _here(question: Question, recipe: Recipe) -> Iterator[Change]:
    return (change for change in _changes(question, recipe) if not change.needs_hardware)


def _together(question: Question, now: int) -> Effect | None:
    """Take the change that saves most, again and again, until it fits."""
    recipe, best = question.recipe, now
    taken: dict[str, Change] = {}
    while True:
        sizes = {
            change: _estimate(question, change.recipe).process_bytes for change in _here(question, recipe)
        }
        change = min(sizes, key=sizes.__getitem__, default=None)
        if change is None or sizes[change] >= best:
            return None
        taken.pop(_name(change), None)  # --seq 512 after --seq 1024 takes its place
        taken[_name(change)] = change
        recipe, best = change.recipe, sizes[change]
        if _effect(question, now, tuple(taken.values())).verdict.word == "fits":
            return _without_needless(question, now, list(taken.values()))


def _without_needless(question: Question, now: int, taken: list[Change]) -> Effect:
    """Leave out what turned out not to be needed, the dearest first."""
    for place in reversed(range(len(taken))):
        fewer = _replayed(question, [change.text for change in (*taken[:place], *taken[place + 1 :])])
        if fewer and _effect(question, now, tuple(fewer)).verdict.word == "fits":
            taken = fewer
    return _effect(question, now, tuple(taken))


def _replayed(question: Question, texts: list[str]) -> list[Change]:
    """Make the same changes again from the start; none when one of them is not to be had any more."""
    recipe, made = question.recipe, []
    for text in texts:
        change = next((change for change in _changes(question, recipe) if change.text == text), None)
        if change is None:
            return []
        made.append(change)
        recipe = change.recipe
    return made


def _changes(question: Question, recipe: Recipe) -> Iterator[Change]:
    """Yield what could be chosen otherwise, the cheapest first."""
    yield from _same_training(recipe)
    if _can_shard(recipe):
        yield from _engines(recipe)
    if question.can_offload and recipe.device_kind != CPU:
        yield from _offloads(recipe)
    yield from _other_training(recipe, question.model)
    yield from _hardware(recipe)


def _can_shard(recipe: Recipe) -> bool:
    """Of packed weights only 4-bit ones of bitsandbytes can be sharded."""
    return recipe.quantization is None or recipe.quantization.kind in SHARDABLE


def _name(change: Change) -> str:
    return change.option.partition(" ")[0]


def _estimate(question: Question, recipe: Recipe) -> Estimate:
    return estimate(recipe_workload(recipe, question.model, stack=question.stack))


def _effect(question: Question, now: int, taken: tuple[Change, ...]) -> Effect:
    found = _estimate(question, taken[-1].recipe)
    return Effect(
        texts=tuple(change.text for change in taken),
        options=tuple(change.option for change in taken),
        same_training=all(change.same_training for change in taken),
        needs_hardware=any(change.needs_hardware for change in taken),
        process_bytes=found.process_bytes,
        host_bytes=found.host_bytes,
        delta_bytes=found.process_bytes - now,
        verdict=question.judge(found),
    )


def _same_training(recipe: Recipe) -> Iterator[Change]:
    if recipe.optimizer == "adamw_torch" and recipe.sharding.backend != "zero":
        fused = replace(recipe, optimizer="adamw_torch_fused")
        yield Change("the fused optimizer", "--optim adamw_torch_fused", fused)
    if recipe.micro_batch_size > 1:
        times = recipe.gradient_accumulation_steps * recipe.micro_batch_size
        one = replace(recipe, micro_batch_size=1, gradient_accumulation_steps=times)
        yield Change("one sequence at a time, accumulated", f"--micro-batch 1 --accumulation {times}", one)
    if recipe.checkpointing == "none":
        yield Change("gradient checkpointing", "--checkpointing", replace(recipe, checkpointing="full"))


def _engines(recipe: Recipe) -> Iterator[Change]:
    now = recipe.sharding
    if now.num_ranks > 1:
        for name, text in SHARDED:
            other = _sharded(recipe, name)
            if _shards_more(other.sharding, now):
                yield Change(text, f"--backend {name}", other)


def _offloads(recipe: Recipe) -> Iterator[Change]:
    now = recipe.sharding
    stage = now.zero_stage or 2
    if now.backend != "fsdp" and now.offload_optimizer == "none":
        names: dict[int, BackendName] = {1: "zero1", 2: "zero2", 3: "zero3"}
        moved = _sharded(recipe, names[stage], "optimizer")
        option = f"--backend {names[stage]} --offload optimizer"
        yield Change("optimizer in the host's memory", option, moved)
    if now.offload_parameters == "none" and _can_shard(recipe):
        engine: BackendName = "fsdp" if now.backend == "fsdp" else "zero3"
        moved = _sharded(recipe, engine, "all")
        yield Change("weights and optimizer in the host's memory", f"--backend {engine} --offload all", moved)


def _shards_more(other: Sharding, now: Sharding) -> bool:
    """FSDP shards as much as ZeRO-3, so that neither is proposed in place of the other."""
    order = {"single": 0, "ddp": 0, "zero": now.zero_stage, "fsdp": 3, "fsdp1": 3}
    return (3 if other.backend == "fsdp" else other.zero_stage) > order[now.backend]


def _sharded(recipe: Recipe, name: BackendName, offload: OffloadName = "none") -> Recipe:
    now = recipe.sharding
    sharding = sharding_for(
        name,
        num_ranks=now.num_ranks,
        ranks_per_node=now.ranks_per_node,
        precision=recipe.precision,
        offload=offload,
    )
    return replace(recipe, sharding=sharding)


def _other_training(recipe: Recipe, model: ModelSpec) -> Iterator[Change]:
    if recipe.optimizer.startswith("adamw_torch") and recipe.sharding.backend in ("single", "ddp"):
        packed = replace(recipe, optimizer="adamw_bnb_8bit")
        yield Change("optimizer states in 8 bits", "--optim adamw_bnb_8bit", packed, same_training=False)
    adapter = recipe.adapter
    can_adapt = num_trainable(model, Adapter()).refusal is None
    if recipe.method == "lora" and adapter is not None:
        yield from _smaller_adapter(recipe, adapter, model)
        if recipe.quantization is None and recipe.device_kind != CPU:
            packed = replace(recipe, quantization=Quantization(kind="nf4"))
            yield Change("QLoRA: frozen weights in 4 bits", "--method qlora", packed, same_training=False)
    elif recipe.method == "full" and can_adapt:
        small = replace(recipe, method="lora", adapter=Adapter())
        yield Change("LoRA in place of all weights", "--method lora", small, same_training=False)
        if recipe.device_kind != CPU:
            packed = replace(small, quantization=Quantization(kind="nf4"))
            yield Change("QLoRA in place of all weights", "--method qlora", packed, same_training=False)
    half = recipe.sequence_tokens // 2
    if half >= LEAST_TOKENS:
        shorter = replace(recipe, sequence_tokens=half)
        yield Change("half the length", f"--seq {half}", shorter, same_training=False)


def _smaller_adapter(recipe: Recipe, adapter: Adapter, model: ModelSpec) -> Iterator[Change]:
    less = replace(adapter, targets=ATTENTION_ONLY)
    if adapter.targets == (ALL_LINEAR,) and num_trainable(model, less).refusal is None:
        fewer = replace(recipe, adapter=less)
        option = f"--targets {','.join(ATTENTION_ONLY)}"
        yield Change("adapters on queries and values only", option, fewer, same_training=False)
    if adapter.modules_to_save:
        bare = replace(recipe, adapter=replace(adapter, modules_to_save=()))
        yield Change("no whole modules trained", "without --modules-to-save", bare, same_training=False)


def _hardware(recipe: Recipe) -> Iterator[Change]:
    now = recipe.sharding
    if recipe.device_kind == CPU or not _can_shard(recipe):
        return
    twice = now.num_ranks * 2
    shards = twice if now.num_shards == now.num_ranks and now.backend in ("zero", "fsdp") else now.num_shards
    more = replace(now, num_ranks=twice, ranks_per_node=max(now.ranks_per_node, 2), num_shards=shards)
    if now.backend in ("single", "ddp"):
        more = sharding_for("fsdp", num_ranks=twice, ranks_per_node=twice, precision=recipe.precision)
    text = f"{twice} devices and {'FSDP' if more.backend == 'fsdp' else 'ZeRO'}"
    option = f"--devices {twice}" + (" --backend fsdp" if now.backend in ("single", "ddp") else "")
    times = max(1, recipe.gradient_accumulation_steps // 2)
    recipe = replace(recipe, sharding=more, gradient_accumulation_steps=times)
    yield Change(text, option, recipe, needs_hardware=True)
