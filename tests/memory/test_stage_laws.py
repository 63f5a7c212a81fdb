"""Laws that hold for every kind of training: what ``ftwiz`` makes of a recipe, estimated whole."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.workload import Recipe, recipe_workload, sharding_for
from ftwiz.engine.models import Adapter, catalogue
from ftwiz.engine.specs.estimate import PHASES, Estimate
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Method, Quantization, Stage

pytestmark = pytest.mark.timeout(240)
NAMES = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-30B-A3B", "google/gemma-2-2b")
MODELS = tuple(catalogue.spec(found) for name in NAMES if (found := catalogue.find(name)) is not None)
STAGES: tuple[Stage, ...] = get_args(Stage)
EASY = settings(max_examples=60, deadline=None)
ROUNDING = 0.001
"""Share that padding of shards and rounding of blocks may add."""


def told(
    stage: Stage, model: ModelSpec, method: Method = "lora", ranks: int = 1, **changes: object
) -> Estimate:
    sharding = sharding_for(
        "zero3" if ranks > 1 else "single", num_ranks=ranks, ranks_per_node=ranks, precision="bf16"
    )
    recipe = Recipe(
        **{  # type: ignore[arg-type] - fields of any kind
            "sequence_tokens": 512, "stage": stage, "method": method, "sharding": sharding,
            "adapter": Adapter(rank=16) if method == "lora" else None, "expandable_segments": True,
            "device_name": "NVIDIA H200",
        } | changes
    )  # fmt: skip
    return estimate(recipe_workload(recipe, model))


MODEL, STAGE = st.sampled_from(MODELS), st.sampled_from(STAGES)
METHOD = st.sampled_from(("lora", "full"))


def test_the_models_are_there() -> None:
    assert len(MODELS) == len(NAMES)


@EASY
@given(
    STAGE, MODEL, METHOD, st.integers(16, 4096), st.integers(1, 6), st.integers(1, 2048), st.integers(1, 4)
)
def test_more_tokens_and_sequences_never_need_less(
    stage: Stage, model: ModelSpec, method: Method, tokens: int, batch: int, longer: int, larger: int
) -> None:
    least, long, wide = (
        told(stage, model, method, sequence_tokens=n, micro_batch_size=b)
        for n, b in ((tokens, batch), (tokens + longer, batch), (tokens, batch + larger))
    )
    assert least.process_bytes <= long.process_bytes * (1 + ROUNDING)
    assert least.process_bytes <= wide.process_bytes * (1 + ROUNDING)


@EASY
@given(STAGE, MODEL, st.sampled_from((1, 2, 4, 8)))
def test_qlora_needs_no_more_than_lora_and_that_no_more_than_full(
    stage: Stage, model: ModelSpec, ranks: int
) -> None:
    full, lora = told(stage, model, "full", ranks), told(stage, model, "lora", ranks)
    assert lora.process_bytes <= full.process_bytes
    if ranks == 1 and not model.experts:  # packed weights are not cut by ZeRO-3, nor fused experts packed
        packed = told(stage, model, "lora", quantization=Quantization(kind="nf4"))
        assert packed.phase_bytes("save", "device") <= lora.phase_bytes("save", "device")


@EASY
@given(STAGE, MODEL, METHOD, st.sampled_from((2, 4, 8)))
def test_more_shards_never_need_more(stage: Stage, model: ModelSpec, method: Method, ranks: int) -> None:
    fewer, more = (told(stage, model, method, number) for number in (ranks, 2 * ranks))
    assert more.allocated_bytes <= fewer.allocated_bytes * (1 + ROUNDING)


@EASY
@given(STAGE, MODEL, METHOD)
def test_terms_add_up_and_have_a_source(stage: Stage, model: ModelSpec, method: Method) -> None:
    found = told(stage, model, method)
    for phase in PHASES:
        terms = found.phase_terms(phase, "device")
        assert sum(term.num_bytes for term in terms) == found.phase_bytes(phase, "device")
    assert found.allocated_bytes == max(found.phase_bytes(phase, "device") for phase in PHASES)
    assert all(term.num_bytes >= 0 and term.source and term.formula for term in found.terms)


@EASY
@given(MODEL, METHOD, st.sampled_from(("rm", "dpo", "orpo", "simpo")))
def test_a_pair_needs_no_less_than_one_of_its_sequences(
    model: ModelSpec, method: Method, stage: Stage
) -> None:
    """Of ``rm`` there is no output layer, so only what the layers keep is compared."""
    pair, single = told(stage, model, method, micro_batch_size=2), told("sft", model, method)
    phase = "backward start"
    kept = (
        sum(t.num_bytes for t in found.phase_terms(phase, "device") if t.group == "activations")
        for found in (pair, single)
    )
    assert next(kept) >= next(kept)
