"""Packed weights against the tensors that the libraries really make of them."""

import math
from typing import Any

import pytest

from ftwiz.engine.memory.quantized import SOURCES, exact_bytes, packed_bytes, pieces
from ftwiz.engine.memory.tensors import Part, inventory
from ftwiz.engine.models import catalogue, spec_from_config
from ftwiz.engine.specs.workload import Quantization, Workload

pytestmark = pytest.mark.timeout(120)
SHAPES = ((64, 64), (4096, 256), (333, 37), (16, 4112))


def bytes_of(shape: tuple[int, ...], **how: Any) -> list[int]:
    return [math.ceil(number * size) for number, size in pieces(shape, Quantization(**how))]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("block", [64, 128])
def test_four_bits_are_what_bitsandbytes_packs(
    shape: tuple[int, int], kind: str, double: bool, block: int
) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.zeros(shape, dtype=torch.bfloat16)
    packed, state = functional.quantize_4bit(
        weight, blocksize=block, compress_statistics=double, quant_type=kind
    )
    expected = [packed.nbytes, state.absmax.nbytes]
    if double:
        expected += [state.state2.absmax.nbytes, state.offset.nbytes]
    assert bytes_of(shape, kind=kind, double_quant=double, block_size=block) == [*expected, state.code.nbytes]


def test_eight_bits_are_what_bitsandbytes_packs() -> None:
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("bitsandbytes.nn")
    layer = modules.Linear8bitLt(64, 96, bias=False, has_fp16_weights=False).to("cpu")
    layer(torch.zeros(2, 64))
    assert bytes_of((96, 64), kind="int8") == [layer.weight.nbytes, layer.state.SCB.nbytes]


@pytest.mark.parametrize(
    ("how", "bits"),
    [
        ({"kind": "nf4"}, 4.127),  # QLoRA, arXiv 2305.14314: 0.127 bits per parameter
        ({"kind": "nf4", "double_quant": False}, 4.5),
        ({"kind": "int8"}, 8.0),
        ({"kind": "gptq", "block_size": 128}, 4.16),
        ({"kind": "awq", "block_size": 128}, 4.16),
        ({"kind": "hqq"}, 4.5),
        ({"kind": "aqlm", "bits": 2}, 2.5),
        ({"kind": "eetq"}, 8.0),
        ({"kind": "fp8"}, 8.002),
        ({"kind": "mxfp4"}, 4.25),
    ],
)
def test_bits_per_weight_are_those_that_the_papers_give(how: dict[str, Any], bits: float) -> None:
    taken = 8 * sum(bytes_of((4096, 4096), **how)) / 4096**2
    assert taken == pytest.approx(bits, rel=0.01)
    assert how["kind"] in SOURCES


def test_rounding_adds_only_the_allocator_s_blocks() -> None:
    how = Quantization(kind="nf4")
    parts = (Part("q_proj", (333, 37), 3, "block", is_matrix=True),)
    exact, rounded = exact_bytes(parts, how), sum(packed_bytes(parts, how))
    assert 0 < rounded - exact <= 3 * 5 * 511 + 1024


def test_every_tensor_of_the_catalogue_is_there_once() -> None:
    for model in catalogue.models():
        parts = inventory(catalogue.spec(model))
        assert sum(part.total for part in parts) == model.num_parameters, model.id


def test_a_tiny_model_is_packed_where_transformers_packs_it() -> None:
    """Which layers become 4-bit, and that fused experts stay as they are."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("bitsandbytes")
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    config = {
        "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32,
        "num_experts": 4, "num_experts_per_tok": 2, "vocab_size": 128, "tie_word_embeddings": False,
    }  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
        model = replace_with_bnb_linear(
            model,
            modules_to_not_convert=get_keys_to_not_convert(model),
            quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True),
        )
    real = sum(
        layer.in_features * layer.out_features
        for layer in model.modules()
        if type(layer).__name__ == "Linear4bit"
    )
    from ftwiz.engine.memory.cuts import holdings_of

    spec = spec_from_config(config, where="tests")
    workload = Workload(model=spec, sequence_tokens=64, quantization=Quantization(kind="nf4"))
    held = holdings_of(workload)
    assert sum(part.total for part in held.packed) == real
    assert {part.path for part in held.plain} >= {"mlp.experts.gate_up_proj", "lm_head", "embed_tokens"}
