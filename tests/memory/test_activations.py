"""The terms of a forward and a backward pass: they add up, explain themselves and obey the laws."""

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.memory.activations import activation_terms
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.estimate import PhaseName, Term
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Checkpointing, Quantization, Sharding, Workload

PHASES: tuple[PhaseName, ...] = ("forward", "head", "backward start", "backward end")


def _model(layers: int = 16, width: int = 2048, vocabulary: int = 128256) -> ModelSpec:
    config = {
        "model_type": "llama", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 16,
        "num_key_value_heads": 4, "intermediate_size": 4 * width, "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }  # fmt: skip
    return spec_from_config(config, where="test")


LORA = Workload(model=_model(), sequence_tokens=2048, adapter=Adapter(), autocast="bf16")
FULL = Workload(
    model=_model(), sequence_tokens=2048, method="full", weights="fp32", trainable="fp32", autocast="bf16"
)


def _bytes(terms: tuple[Term, ...], phase: PhaseName) -> int:
    return sum(term.num_bytes for term in terms if phase in term.phases)


def _peak(w: Workload) -> int:
    terms = activation_terms(w)
    return max(_bytes(terms, phase) for phase in PHASES)


@pytest.mark.parametrize("workload", [LORA, FULL, replace(LORA, attention="eager", checkpointing="none")])
def test_every_formula_gives_its_bytes_on_a_calculator(workload: Workload) -> None:
    for term in activation_terms(workload):
        text = term.formula.replace(" x ", " * ")
        text = re.sub(r"\b(layers|tokens|positions|B)\b", "", text).replace(",", "")
        assert eval(text) == term.num_bytes, term.formula  # noqa: S307 - our own text


def test_every_phase_of_the_pass_has_terms_and_no_other() -> None:
    assert {phase for term in activation_terms(LORA) for phase in term.phases} == set(PHASES)


def test_a_checkpointed_model_of_thirty_two_layers_keeps_thirty_two_inputs() -> None:
    w = replace(FULL, model=_model(layers=32), weights="bf16", autocast=None)
    at_head = {term.name: term for term in activation_terms(w) if term.phases == ("head",)}
    assert at_head["kept for the backward pass"].formula == "2,048 tokens x (62 x 2,048) B"
    assert at_head["embedding output"].formula == "2,048 tokens x (2 x 2,048) B", "the first layer's input"


def test_an_answer_takes_less_than_a_millisecond() -> None:
    activation_terms(LORA)
    start = time.perf_counter()
    for tokens in range(1000, 1100):
        activation_terms(replace(LORA, sequence_tokens=tokens))
    assert (time.perf_counter() - start) / 100 < 0.002, "a millisecond, on a machine that is busy"


def test_a_model_of_unknown_shapes_is_bounded_from_above() -> None:
    unknown = ModelSpec(model_type="new", num_layers=16, hidden_size=2048)
    w = replace(LORA, model=unknown, checkpointing="none", autocast=None)
    assert _peak(w) > 16 * 2048 * 2048 * 20
    assert activation_terms(replace(w, model=ModelSpec(model_type="new"))) == ()


def test_shards_do_not_change_activations_but_gathered_weights_need_no_copies() -> None:
    two = replace(FULL, sharding=Sharding(backend="fsdp", num_ranks=2, num_shards=2))
    eight = replace(FULL, sharding=Sharding(backend="fsdp", num_ranks=8, num_shards=8))
    assert activation_terms(two) == activation_terms(eight)
    assert not any("copies of weights" in term.name for term in activation_terms(two))
    assert any("copies of weights" in term.name for term in activation_terms(FULL))


def test_a_preference_pair_is_two_sequences() -> None:
    pair = replace(LORA, stage="dpo")
    assert _peak(pair) == _peak(replace(LORA, micro_batch_size=2))


modes = st.sampled_from(["none", "every-2nd", "full"])
workloads = st.builds(
    lambda layers, tokens, batch, checkpointing, method, loss: replace(
        LORA if method != "full" else FULL,
        model=_model(layers=layers),
        sequence_tokens=tokens,
        micro_batch_size=batch,
        checkpointing=checkpointing,
        quantization=Quantization(kind="nf4") if method == "qlora" else None,
        loss=loss,
    ),
    st.integers(1, 40),
    st.integers(64, 8192),
    st.integers(1, 8),
    modes,
    st.sampled_from(["lora", "qlora", "full"]),
    st.sampled_from(["fused-tiles", "logits", "liger", "cce"]),
)


@settings(deadline=None, max_examples=50)
@given(workloads)
def test_no_term_is_negative(w: Workload) -> None:
    assert all(term.num_bytes > 0 for term in activation_terms(w))


@settings(deadline=None, max_examples=50)
@given(workloads)
def test_more_tokens_never_take_less(w: Workload) -> None:
    longer = replace(w, sequence_tokens=w.sequence_tokens + 512)
    assert _peak(longer) >= _peak(w)


@settings(deadline=None, max_examples=50)
@given(workloads)
def test_more_layers_never_take_less(w: Workload) -> None:
    layers = (w.model.num_layers or 0) + 2
    assert _peak(replace(w, model=_model(layers=layers))) >= _peak(w)


@settings(deadline=None, max_examples=50)
@given(workloads)
def test_a_larger_vocabulary_never_takes_less(w: Workload) -> None:
    layers = w.model.num_layers or 0
    assert _peak(replace(w, model=_model(layers=layers, vocabulary=200_000))) >= _peak(w)


@settings(deadline=None, max_examples=50)
@given(workloads)
def test_recomputing_more_layers_never_keeps_more(w: Workload) -> None:
    def kept(mode: Checkpointing) -> int:
        terms = activation_terms(replace(w, checkpointing=mode))
        return sum(
            term.num_bytes
            for term in terms
            if term.name == "kept for the backward pass" and term.phases == ("backward start",)
        )

    if (w.model.num_layers or 0) % 2 == 0:
        assert kept("full") <= kept("every-2nd") <= kept("none")


def test_frozen_layers_keep_nothing() -> None:
    some = replace(
        FULL, method="freeze", num_trainable_layers=4, checkpointing="none", weights="bf16", autocast=None
    )
    more = replace(some, num_trainable_layers=8)
    every = replace(some, method="full", num_trainable_layers=None)
    assert _peak(some) < _peak(more) < _peak(every)


def test_a_reference_pass_keeps_nothing_and_stays_below_the_training_pass() -> None:
    terms = activation_terms(replace(LORA, stage="dpo"))
    assert 0 < _bytes(terms, "reference") < max(_bytes(terms, phase) for phase in PHASES)


def test_answers_cost_two_times_the_width_of_the_keys_per_token_and_layer() -> None:
    w = replace(LORA, stage="grpo", micro_batch_size=2, gradient_accumulation_steps=4)
    (cache,) = [term for term in activation_terms(w) if term.name == "keys and values of the answers"]
    assert cache.num_bytes == 16 * (8 * 2048) * (2 * 4 * 128) * 2
    assert cache.phases == ("generate",)


def test_a_tied_embedding_is_added_to_the_output_layers_gradient_at_the_very_end() -> None:
    tied = replace(FULL.model, tie_word_embeddings=True)
    w = replace(FULL, model=tied, sequence_tokens=256)
    embedding = 128256 * 2048 * 4
    assert _bytes(activation_terms(w), "backward end") > embedding
    assert _bytes(activation_terms(replace(w, model=FULL.model)), "backward end") < embedding
