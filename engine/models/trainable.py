"""How many parameters an adapter trains: what PEFT 0.21.2 really does with transformers 5.23.

PEFT aims at linear layers by the end of their names. Of some mixtures of experts, transformers 5 keeps the
experts as tensors and the router as a module that is no linear layer; for those PEFT translates the old
names, so that ``all-linear`` and ``gate_proj`` adapt the fused experts, and no longer the layers of that name
beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..specs.adapter import ALL_LINEAR, PEFT_DEFAULT, Adapter
from ..specs.model import FusedParameter, LinearShape, ModelSpec, OtherModule, ParameterCount

_MIXTRAL = {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"}
_QWEN2_MOE = {
    "gate": "gate.weight",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}
RENAMED = {
    **dict.fromkeys(("mixtral", "minimax", "minimax_m2"), _MIXTRAL),
    **dict.fromkeys(
        (
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "ernie4_5_moe",
            "glm4_moe",
            "glm4_moe_lite",
            "qwen3_moe",
            "qwen3_next",
            "olmoe",
        ),
        _QWEN2_MOE,
    ),
}
"""Model type -> old name of a layer -> parameter that it became (peft, transformers_weight_conversion.py)."""

DEFAULT_TARGETS = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "gpt_neo", "gptj"), ("q_proj", "v_proj")),
    **dict.fromkeys(
        ("llama", "llama4", "mistral", "opt", "qwen2", "qwen3", "stablelm"), ("q_proj", "v_proj")
    ),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    **dict.fromkeys(("bloom", "gpt_neox", "chatglm", "falcon"), ("query_key_value",)),
    "codegen": ("qkv_proj",),
    "mpt": ("Wqkv",),
    "nemotron_h": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
}
"""Model type -> layers that LoRA takes when none are named (peft 0.21.2, utils/constants.py)."""

NO_LORA = {
    "out_proj": frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}),
}
"""Layers that PEFT refuses to adapt, by model type (peft/tuners/tuners_utils.py)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainable:
    """What an adapter trains, or why PEFT refuses it."""

    num_adapter: int | None
    num_saved: int = 0
    """In copies of whole modules."""
    layers: tuple[tuple[str, int], ...] = ()
    """Adapted layers and tensors: the end of the name, and how many."""
    refusal: str | None = None

    @property
    def num_parameters(self) -> int | None:
        """All that is trained."""
        return None if self.num_adapter is None else self.num_adapter + self.num_saved


@dataclass(frozen=True, slots=True)
class _Aim:
    """Names after PEFT's translation."""

    modules: tuple[str, ...] | None
    """``None``: every linear layer but the output."""
    parameters: tuple[str, ...] = ()
    doubled: bool = False
    """Gate and up projection are one tensor, and get the rank of both."""


@dataclass(frozen=True, slots=True)
class AdapterTensor:
    """Equal tensors that an adapter adds."""

    path: str
    """Of what they adapt."""
    shape: tuple[int, ...]
    """As torch keeps them, rows first."""
    count: int


class _Refused(Exception):  # noqa: N818 - PEFT's answer, not our failure
    pass


def num_trainable(spec: ModelSpec, adapter: Adapter) -> Trainable:
    """Return how many parameters an adapter trains on a model.

    Source: peft 0.21.2 on transformers 5.23, run on the meta device for every recorded model.
    """
    count = spec.parameters
    if count is None:
        return Trainable(num_adapter=None, refusal=spec.unknown_reason)
    try:
        return _count(spec.model_type, count, adapter)
    except _Refused as reason:
        return Trainable(num_adapter=None, refusal=str(reason))


def adapter_tensors(spec: ModelSpec, adapter: Adapter) -> tuple[AdapterTensor, ...]:
    """Return the tensors that ``num_trainable`` counts as the adapter; none where PEFT refuses it.

    Copies of whole modules are not among them.
    """
    count = spec.parameters
    if count is None or num_trainable(spec, adapter).num_adapter is None:
        return ()
    if adapter.targets == (PEFT_DEFAULT,):
        adapter = _with_default_targets(spec.model_type, adapter)
    aim = _aim(spec.model_type, count, adapter)
    tensors = [
        AdapterTensor(shape.path, sides, shape.count)
        for shape in count.linears
        if _is_hit(shape, aim)
        for sides in _sides(shape, adapter)
    ]
    if adapter.kind != "lora":
        return tuple(tensors)
    for name, number, (num_out, num_in) in _routers(count, aim):
        tensors += [AdapterTensor(name, sides, number) for sides in _pair(num_out, num_in, adapter.rank)]
    for part in count.fused:
        if any(_ends(part.path, name) for name in aim.parameters):
            num_experts, first, second = part.shape
            rank = num_experts * _fused_rank(part, adapter, aim)
            tensors += [AdapterTensor(part.path, sides, part.count) for sides in _pair(first, second, rank)]
    return tuple(tensors)


def _sides(shape: LinearShape, adapter: Adapter) -> tuple[tuple[int, ...], ...]:
    if adapter.kind == "oft":
        block = _oft_block(shape.num_in, adapter.oft_block_size)
        return ((shape.num_in // block, block * (block - 1) // 2),)
    magnitude = ((shape.num_out,),) if adapter.use_dora else ()
    return (*_pair(shape.num_out, shape.num_in, adapter.rank), *magnitude)


def _pair(num_out: int, num_in: int, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (rank, num_in), (num_out, rank)


def _fused_rank(parameter: FusedParameter, adapter: Adapter, aim: _Aim) -> int:
    return adapter.rank * (2 if aim.doubled and parameter.suffix == "gate_up_proj" else 1)


def _count(model_type: str, count: ParameterCount, adapter: Adapter) -> Trainable:
    if adapter.targets == (PEFT_DEFAULT,):
        adapter = _with_default_targets(model_type, adapter)
    aim = _aim(model_type, count, adapter)
    linears = [shape for shape in count.linears if _is_hit(shape, aim)]
    fused = [
        parameter
        for parameter in count.fused
        if adapter.kind == "lora" and any(_ends(parameter.path, name) for name in aim.parameters)
    ]
    routers = _routers(count, aim) if adapter.kind == "lora" else []
    _refuse_wrapped(count, aim)
    _refuse(model_type, adapter, linears, has_tensors=bool(fused or routers))
    trained = [(shape.suffix, shape.count, _of_linear(shape, adapter)) for shape in linears]
    trained += [(name, number, number * adapter.rank * sum(sides)) for name, number, sides in routers]
    trained += [(part.suffix, part.count, _of_fused(part, adapter, aim)) for part in fused]
    if not trained:
        raise _Refused(f"no layer is named {' or '.join(adapter.targets)}")
    return Trainable(
        num_adapter=sum(parameters for _, _, parameters in trained),
        num_saved=sum(_saved(count, name) for name in adapter.modules_to_save),
        layers=_merged(trained),
    )


def _with_default_targets(model_type: str, adapter: Adapter) -> Adapter:
    # PEFT's translation of the names of fused experts drops the defaults that its table has for them.
    if model_type in RENAMED or model_type not in DEFAULT_TARGETS:
        raise _Refused(f"PEFT has no default targets for {model_type}: name them, or take all-linear")
    return replace(adapter, targets=DEFAULT_TARGETS[model_type])


def _merged(trained: Sequence[tuple[str, int, int]]) -> tuple[tuple[str, int], ...]:
    totals: dict[str, int] = {}
    for name, number, _ in trained:
        totals[name] = totals.get(name, 0) + number
    return tuple(totals.items())


def _aim(model_type: str, count: ParameterCount, adapter: Adapter) -> _Aim:
    is_all = adapter.targets == (ALL_LINEAR,)
    renamed = RENAMED.get(model_type) if adapter.kind == "lora" else None
    if renamed is None:
        return _Aim(None if is_all else adapter.targets, adapter.target_parameters)
    names = (
        {shape.suffix for shape in count.linears if shape.path != "lm_head"} | renamed.keys()
        if is_all
        else set(adapter.targets)
    )
    old = {name: _last(name) for name in names if _last(name) in renamed}
    halves = {_last(name) for name in old} & {name for name, new in renamed.items() if new == "gate_up_proj"}
    if len(halves) == 1:
        raise _Refused(f"{halves.pop()} alone cannot be adapted: it is one tensor with its other half")
    return _Aim(
        tuple(sorted(names - old.keys())),
        (*adapter.target_parameters, *sorted({renamed[name] for name in old.values()})),
        doubled=bool(halves),
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _is_hit(shape: LinearShape, aim: _Aim) -> bool:
    if aim.modules is None:
        return shape.path != "lm_head"
    return any(_ends(shape.path, name) for name in aim.modules)


def _routers(count: ParameterCount, aim: _Aim) -> list[tuple[str, int, tuple[int, int]]]:
    """Routers that are no linear layers but hold one weight that is aimed at."""
    if "gate.weight" not in aim.parameters:
        return []
    return [
        (_last(module.path), module.count, (module.shape[0], module.shape[1]))
        for module in count.others
        if module.group == "router" and _last(module.path) == "gate" and len(module.shape) > 1
    ]


def _refuse_wrapped(count: ParameterCount, aim: _Aim) -> None:
    """Gemma 4's towers keep a linear layer inside a module of the usual name, which PEFT cannot adapt."""
    for shape in count.linears:
        outer = shape.path.removesuffix(".linear")
        if outer != shape.path and any(_ends(outer, name) for name in aim.modules or ()):
            raise _Refused(f"PEFT does not adapt {_last(outer)} of the tower; all-linear works")


def _refuse(model_type: str, adapter: Adapter, linears: Sequence[LinearShape], *, has_tensors: bool) -> None:
    if adapter.kind != "lora":
        if model_type == "gpt2":
            raise _Refused("OFT does not work on the Conv1D layers of gpt2")
        return
    for shape in linears:
        if model_type in NO_LORA.get(shape.suffix, ()):
            raise _Refused(f"PEFT does not adapt {shape.suffix} of {model_type}")
    if adapter.use_dora and has_tensors:
        raise _Refused("DoRA does not work on fused experts and routers")


def _of_linear(shape: LinearShape, adapter: Adapter) -> int:
    if adapter.kind == "oft":
        block = _oft_block(shape.num_in, adapter.oft_block_size)
        return shape.count * (shape.num_in // block) * (block * (block - 1) // 2)
    magnitude = shape.num_out if adapter.use_dora else 0
    return shape.count * (adapter.rank * (shape.num_in + shape.num_out) + magnitude)


def _of_fused(parameter: FusedParameter, adapter: Adapter, aim: _Aim) -> int:
    if len(parameter.shape) != 3:  # noqa: PLR2004 - experts, out, in
        raise _Refused(f"{parameter.suffix} is no matrix")
    num_experts, first, second = parameter.shape
    return parameter.count * _fused_rank(parameter, adapter, aim) * num_experts * (first + second)


def _oft_block(num_in: int, wanted: int) -> int:
    """Return the size nearest to the wanted one that divides the width; of two, the smaller."""
    if wanted >= num_in:
        return num_in
    higher = next(size for size in range(wanted, num_in + 1) if num_in % size == 0)
    lower = next(size for size in range(wanted, 0, -1) if num_in % size == 0)
    return lower if wanted - lower <= higher - wanted else higher


def _saved(count: ParameterCount, name: str) -> int:
    """Every module of that name is copied with all that is in it; a tied one becomes its own.

    PEFT passes over a name that no module has.
    """
    parts: tuple[LinearShape | OtherModule | FusedParameter, ...]
    parts = (*count.linears, *count.others, *count.fused)
    return sum(part.num_parameters for part in parts if f".{name}." in f".{part.path}.")
