"""What other trainers' models keep, against sums that can be done by hand from their code."""

from dataclasses import replace

import pytest

from ftwiz.engine.errors import Refused
from ftwiz.engine.memory.activations import activation_terms
from ftwiz.engine.memory.foreign_litgpt import walk_of as litgpt_walk
from ftwiz.engine.memory.foreign_pool import Pool, mapped_bytes
from ftwiz.engine.memory.foreign_terms import foreign_activation_terms
from ftwiz.engine.memory.foreign_torchtitan import walk_of as titan_walk
from ftwiz.engine.memory.foreign_torchtune import walk_of as tune_walk
from ftwiz.engine.memory.tape_sizes import Part
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.estimate import PhaseName, Term
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Sharding, Stack, Workload

HIDDEN, MLP, LAYERS, VOCAB, HEADS, TOKENS = 512, 1536, 8, 4096, 8, 1024
KEYS = 128
LORA = Adapter(rank=8, targets=("q_proj", "v_proj"), dropout=0.05)
LIT = Workload(
    model=ModelSpec(model_type="llama"), sequence_tokens=TOKENS, method="lora", adapter=LORA,
    trainable="bf16", gradient_accumulation_steps=128, checkpointing="none", loss="chunked-128",
    trainer="litgpt", stack=Stack(bitsandbytes="0.41.1", trainer="2023-10-27"),
)  # fmt: skip


def spec(kv_heads: int = HEADS, model_type: str = "llama") -> ModelSpec:
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN, "intermediate_size": MLP,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": kv_heads,
        "head_dim": HIDDEN // HEADS, "vocab_size": VOCAB, "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }  # fmt: skip
    return replace(spec_from_config(config, where="test"), model_type=model_type)


def phase_bytes(terms: tuple[Term, ...], phase: PhaseName) -> int:
    return sum(term.num_bytes for term in terms if phase in term.phases and term.place == "device")


def kept_per_layer(w: Workload, phase: PhaseName = "forward") -> float:
    """Bytes per token and layer, from two depths of the same model."""

    def held(layers: int) -> int:
        deeper = replace(w, model=replace(w.model, num_layers=layers))
        walk = {"litgpt": litgpt_walk, "torchtitan": titan_walk, "torchtune": tune_walk}[w.trainer]
        return walk(deeper).peak(w.tokens, w.sequence_tokens, phase).num_bytes

    return (held(12) - held(8)) / 4 / w.tokens


def test_litgpts_lora_keeps_what_its_code_says() -> None:
    w = replace(LIT, model=spec())
    norms = 2 * (4 * HIDDEN + 4)  # RMSNorm keeps a float32 copy of its input, and a root
    qkv = 2 * 3 * HIDDEN  # the values are a view of the joined projection
    rotated = 2 * 2 * HIDDEN
    adapter = (
        (2 + 1) * HIDDEN + 2 * 2 * 8 + 2 * 2 * HIDDEN
    )  # dropped input, mask, low rank, index_copy's source
    attention = 2 * HIDDEN + 4 * HEADS
    mlp = 3 * 2 * MLP
    positions = 8 * 2 * HIDDEN / TOKENS  # where index_copy writes, once per layer
    assert kept_per_layer(w) == norms + qkv + rotated + adapter + attention + mlp + positions


def test_bitsandbytes_before_0_43_2_holds_the_input_of_every_product() -> None:
    packed = replace(LIT, model=spec(), quantization=Quantization(kind="nf4", quantizes_head=True))
    later = replace(packed, stack=replace(packed.stack, bitsandbytes="0.43.2"))
    inputs = (
        2 * HIDDEN * 3 + 2 * MLP
    )  # joined projection, attention's output side by side, two norms less one
    assert kept_per_layer(packed) - kept_per_layer(later) == inputs


def test_a_later_litgpt_holds_the_step_before_too() -> None:
    w = replace(LIT, model=spec(), quantization=Quantization(kind="nf4", quantizes_head=True))
    later = replace(w, stack=replace(w.stack, bitsandbytes="0.42.0", trainer="2024-02-29"))
    later_norms = replace(later, stack=replace(later.stack, trainer="2024-02-28"))
    assert kept_per_layer(later) - kept_per_layer(later_norms) == 2 * HIDDEN * 3 + 2 * MLP


def test_logits_of_litgpt_are_float32_twice() -> None:
    narrow, wide = (replace(spec(), vocab_size=vocab) for vocab in (VOCAB, 2 * VOCAB))
    heads = [
        phase_bytes(foreign_activation_terms(replace(LIT, model=model)), "head") for model in (narrow, wide)
    ]
    chunks = 2 * 128 * 4  # gradients of a chunk's log-softmax and of its logits
    assert heads[1] - heads[0] == VOCAB * (8 * TOKENS + chunks)


def test_titan_keeps_every_second_product_with_selective_checkpointing() -> None:
    w = replace(
        LIT, model=spec(kv_heads=2), method="full", adapter=None, weights="fp32", autocast="bf16",
        checkpointing="selective-op", trainer="torchtitan", stack=Stack(trainer="2024-12-26"),
        sharding=Sharding(backend="fsdp", num_ranks=8, num_shards=8, reduce="fp32"), expandable_segments=True,
    )  # fmt: skip
    products = 2 * (HIDDEN + KEYS + HIDDEN + MLP + HIDDEN) + 4 * HEADS
    assert kept_per_layer(w, "head") == 2 * HIDDEN + products
    assert kept_per_layer(replace(w, compiles=True), "head") == 2 * HIDDEN + products - 2 * HIDDEN
    assert kept_per_layer(replace(w, checkpointing="full"), "head") == 2 * HIDDEN


def test_a_compiled_layer_keeps_what_products_and_attention_read() -> None:
    w = replace(LIT, model=spec(kv_heads=2), method="full", adapter=None, trainer="torchtune", compiles=True)
    norms = 2 * (2 * HIDDEN + 4 + 2 * HIDDEN)
    assert kept_per_layer(w, "head") == norms + 2 * 4 * HIDDEN + 4 * HEADS + 3 * 2 * MLP


def head_bytes_per_word(w: Workload) -> float:
    """Bytes per token and word of the vocabulary, in the phase of the loss."""
    tops = [
        tune_walk(replace(w, model=replace(spec(), vocab_size=words))).peak(TOKENS, TOKENS, "head").num_bytes
        for words in (16 * VOCAB, 17 * VOCAB)
    ]
    return (tops[1] - tops[0]) / VOCAB / TOKENS


def test_torchtunes_loss_holds_less_in_chunks() -> None:
    w = replace(LIT, method="full", adapter=None, trainer="torchtune", loss="logits-fp32")
    assert head_bytes_per_word(w) == 12  # log-softmax, its gradient, that of the logits
    assert head_bytes_per_word(replace(w, compiles=True)) == 8  # logits and their gradient
    compiled_chunks = head_bytes_per_word(replace(w, compiles=True, loss="chunked"))
    weight_gradients = 2 * 2 * HIDDEN / TOKENS  # that of a chunk, and the sum of those before
    assert compiled_chunks - weight_gradients <= 2 + 2 / 8


def test_activations_of_a_foreign_trainer_come_from_its_own_list() -> None:
    w = replace(LIT, model=spec())
    assert activation_terms(w) == foreign_activation_terms(w)


def test_a_model_that_is_not_written_down_is_refused() -> None:
    with pytest.raises(Refused, match="not written down"):
        foreign_activation_terms(replace(LIT, model=spec(model_type="mamba")))


def test_a_hole_that_is_too_small_makes_the_pool_grow() -> None:
    pages = 20 << 20
    pool = Pool()
    first, second = pool.take(pages // 2), pool.take(pages // 2)
    assert pool.mapped == pages
    pool.give(first, pages // 2)
    third = pool.take(pages)
    assert pool.mapped == 2 * pages
    pool.give(second, pages // 2)
    pool.give(third, pages)
    assert pool.take(2 * pages) == 0
    assert pool.mapped == 2 * pages


def test_a_pool_maps_at_least_what_is_held() -> None:
    big, small = Part("a", "", 30 << 20, 1, "fixed"), Part("b", "", 25 << 20, 1, "fixed")
    trail = [(1, big), (2, small), (-1, big), (3, small), (-2, small), (-3, small)]
    assert mapped_bytes(trail, 1, 1) == 60 << 20
