"""What a layer keeps is what its operations keep: the formulas of the papers come out of the rules."""

import pytest

from ftwiz.engine.memory.blocks_model import program_of
from ftwiz.engine.memory.blocks_parts import Formats
from ftwiz.engine.memory.blocks_step import Rules, Step, step
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.model import ModelSpec

H, F, HEADS, KV_HEADS, D = 4096, 14336, 32, 8, 128
A, K = HEADS * D, KV_HEADS * D
LLAMA = {
    "model_type": "llama", "hidden_size": H, "num_hidden_layers": 32, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "intermediate_size": F, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip
SMALL = 4 * HEADS + 4 + 4
"""Statistics of attention and of two norms."""


def _model(**changes: object) -> ModelSpec:
    return spec_from_config({**LLAMA, **changes}, where="test")


def _step(formats: Formats, rules: Rules | None = None, **changes: object) -> Step:
    program = program_of(_model(**changes), formats)
    assert program is not None
    return step(program, rules or Rules())


def _kept(found: Step) -> int:
    (group,) = found.groups
    return sum(part.size.token * number for part, number in group.kept.items())


def test_a_llama_layer_that_is_trained_keeps_what_was_counted_by_hand() -> None:
    found = _step(Formats(2, 2, trained=True))
    assert _kept(found) == 16 * H + 4 * A + 4 * K + 8 * F + SMALL


def test_a_checkpointed_layer_keeps_its_input() -> None:
    assert _kept(_step(Formats(2, 2, trained=True), Rules(checkpointing="full"))) == 2 * H


def test_every_second_layer_of_a_pair_keeps_everything() -> None:
    found = _step(Formats(2, 2, trained=True), Rules(checkpointing="every-2nd"))
    assert found.groups[0].number == 16
    assert _kept(found) == 2 * H + 16 * H + 4 * A + 4 * K + 8 * F + SMALL


def test_a_frozen_base_drops_the_inputs_of_its_layers_and_adapters_keep_theirs() -> None:
    queries_only = Adapter(rank=16, targets=("q_proj",))
    found = _step(Formats(2, 2, trained=False, adapter=queries_only, adapter_bytes=2))
    rank = 2 * 16
    assert _kept(found) == 10 * H + 4 * A + 4 * K + 6 * F + rank + SMALL


def test_float32_adapters_without_autocast_keep_a_float32_copy_of_their_input_each() -> None:
    two = Adapter(rank=16, targets=("q_proj", "k_proj"))
    narrow = _kept(_step(Formats(2, 2, trained=False, adapter=two, adapter_bytes=2)))
    wide = _kept(_step(Formats(2, 2, trained=False, adapter=two, adapter_bytes=4)))
    # one shared bfloat16 input becomes two float32 copies; the results between A and B widen as well
    assert wide - narrow == 2 * 4 * H - 2 * H + 2 * 2 * 16


def test_autocast_keeps_a_copy_of_each_float32_weight_until_the_forward_pass_ends() -> None:
    rules = Rules(checkpointing="full", autocast=2)
    (group,) = _step(Formats(4, 4, trained=True), rules).groups
    weights = 2 * (2 * H * A + 2 * H * K + 3 * H * F)
    assert sum(part.size.fixed * n for part, n in group.cached.items()) == weights
    assert sum(part.size.fixed * n for part, n in group.kept.items()) == 0
    (plain,) = _step(Formats(4, 4, trained=True), Rules(autocast=2)).groups
    assert sum(part.size.fixed * n for part, n in plain.kept.items()) == weights


def test_eager_attention_keeps_scores_of_every_head_and_flash_keeps_none() -> None:
    (eager,) = _step(Formats(2, 2, trained=True, kernel="eager"), Rules(kernel="eager")).groups
    (flash,) = _step(Formats(2, 2, trained=True, kernel="flash"), Rules(kernel="flash")).groups
    # softmax's float32 output and the bfloat16 copy that the values are multiplied with
    assert sum(part.size.pair * n for part, n in eager.kept.items()) == HEADS * (4 + 2)
    assert sum(part.size.pair * n for part, n in flash.kept.items()) == 0


def test_unpacking_four_bit_weights_takes_the_largest_of_them_for_a_moment() -> None:
    adapter = Adapter(rank=16)
    formats = Formats(2, 2, trained=False, packing="4bit", adapter=adapter, adapter_bytes=2)
    found = _step(formats, Rules(checkpointing="full", needs_input_grad=True))
    peak = found.walked.peak(1, 1, "back 0 last")
    assert max(part.size.fixed for part in peak.alive) == 2 * H * F


@pytest.mark.parametrize(
    ("head", "keeps_output", "bytes_per_word"),
    [
        ("logits", False, 12),  # kept log probabilities, their gradient, the gradient of float32 logits
        ("logits", True, 14),  # and the logits of the output
        ("logits-fp32", True, 16),
        ("chunked", False, 4),
        ("fused-tiles", False, 0),
        ("liger", False, 0),
        ("cce", False, 0),
    ],
)
def test_heads_hold_what_their_kind_says_per_logit(
    head: str, keeps_output: bool, bytes_per_word: int
) -> None:
    def held(vocabulary: int) -> int:
        formats = Formats(2, 2, trained=False, adapter=Adapter())
        found = _step(formats, Rules(head_kind=head, keeps_output=keeps_output), vocab_size=vocabulary)
        return max(moment.size.token for moment in found.walked.phases["head"])

    assert (held(128_000) - held(64_000)) / 64_000 == bytes_per_word


def test_a_mixture_of_experts_counts_the_experts_of_a_token() -> None:
    shape = {
        "model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
        "hidden_size": 2048, "head_dim": 128, "num_key_value_heads": 4,
    }  # fmt: skip
    (more,) = _step(Formats(2, 2, trained=True), **shape).groups
    (fewer,) = _step(Formats(2, 2, trained=True), **{**shape, "num_experts_per_tok": 4}).groups
    width, hidden = 768, 2048
    per_expert = 2 * (hidden + 2 * width + width + width + hidden)
    one = (
        sum(p.size.token * n for p, n in more.kept.items())
        - sum(p.size.token * n for p, n in fewer.kept.items())
    ) / 4
    assert per_expert < one < 1.02 * per_expert
