"""Weights, gradients and optimizer states, with numbers that a reader can check by hand."""

import pytest

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.memory.state_key import key_of
from ftwiz.engine.memory.states import rank_states, state_terms
from ftwiz.engine.memory.tensors import elements
from ftwiz.engine.models import Adapter
from ftwiz.engine.specs.estimate import Term
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Workload

from .conftest import LLAMA, fsdp, full, known, lora, qlora, small_llama, zero

LLAMA_8B = 8_030_261_248
RANK_16 = 41_943_040
"""Parameters of LoRA with rank 16 on every linear layer of it."""


def lines(workload: Workload) -> dict[str, Term]:
    return {term.name: term for term in state_terms(workload)}


def sizes(workload: Workload) -> dict[str, int]:
    return {name: term.num_bytes for name, term in lines(workload).items()}


def test_full_fine_tuning_in_16_bits_takes_eight_bytes_a_parameter(llama8b: ModelSpec) -> None:
    found = sizes(full(llama8b, clips_gradients=False))
    assert found["weights"] == found["gradients"] == 2 * LLAMA_8B
    assert found["optimizer states"] == 4 * LLAMA_8B + 291 * 512
    assert lines(full(llama8b))["weights"].formula == "8,030,261,248 x 2 B"


def test_a_tied_output_layer_is_counted_once() -> None:
    model = known("meta-llama/Llama-3.2-1B")
    assert sizes(full(model))["weights"] == 2 * 1_235_814_400


def test_qlora_packs_linear_layers_only(llama8b: ModelSpec) -> None:
    found = sizes(qlora(llama8b))
    linear = 32 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 4096 * 14336 * 3)
    assert found["packed weights"] == linear // 2
    assert found["weights that are not packed"] == (LLAMA_8B - linear) * 2
    assert 8 * (found["packed weights"] + found["scales of packed weights"]) / linear == pytest.approx(
        4.127, 1e-3
    )
    assert found["adapter weights"] == 2 * RANK_16


def test_qlora_of_fused_experts_hardly_packs_anything() -> None:
    """Transformers 5 keeps experts in tensors that are no layers: 55 GiB of Qwen3-30B-A3B stay in 16 bits."""
    found = sizes(qlora(known("Qwen/Qwen3-30B-A3B"), adapter=Adapter(targets=("q_proj",))))
    assert found["weights that are not packed"] / 2**30 == pytest.approx(55.2, abs=0.2)
    assert found["packed weights"] < 2**29


def test_the_upcast_touches_all_that_is_not_packed(llama8b: ModelSpec) -> None:
    """As peft 0.21.2 does it (prepare_model_for_kbit_training); it passes over gptq, aqlm, eetq and hqq."""
    plain, cast = (sizes(qlora(llama8b, upcast_frozen=flag)) for flag in (False, True))
    name = "weights that are not packed"
    assert cast[name] == 2 * plain[name]
    for kind in ("gptq", "aqlm", "eetq", "hqq"):
        how = Quantization(kind=kind)  # type: ignore[arg-type]
        assert sizes(qlora(llama8b, quantization=how, upcast_frozen=True))[name] == plain[name]


def test_dora_adds_its_magnitudes_and_oft_its_blocks(llama8b: ModelSpec) -> None:
    targets = ("q_proj",)
    plain, dora, oft = (
        sizes(lora(llama8b, adapter=adapter))["adapter weights"]
        for adapter in (
            Adapter(targets=targets),
            Adapter(targets=targets, use_dora=True),
            Adapter(targets=targets, kind="oft"),
        )
    )
    assert dora - plain == 32 * 4096 * 4
    assert oft == 32 * (4096 // 32) * (32 * 31 // 2) * 4


def test_saved_modules_are_held_twice_and_keep_their_format(llama8b: ModelSpec) -> None:
    """As peft 0.21.2 does it: adapters are float32, a copy of bfloat16 stays bfloat16."""
    found = sizes(lora(llama8b, adapter=Adapter(modules_to_save=("lm_head",))))
    head = 128256 * 4096
    assert found["weights"] == 2 * LLAMA_8B
    assert found["copies of saved modules"] == head * 2
    assert found["adapter gradients"] == RANK_16 * 4 + head * 2
    assert found["optimizer states"] == pytest.approx(2 * (RANK_16 * 4 + head * 2), rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_peft_trains_in_the_formats_that_are_counted() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = {key: value for key, value in LLAMA.items() if key != "model_type"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).to(torch.bfloat16)
    model = peft.get_peft_model(
        model,
        peft.LoraConfig(r=8, target_modules="all-linear", use_dora=True, modules_to_save=["embed_tokens"]),
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adapter = Adapter(rank=8, use_dora=True, modules_to_save=("embed_tokens",))
    key = key_of(lora(small_llama(), adapter=adapter))
    counted = sum(elements(parts) * size for parts, size in key.groups)
    assert counted == sum(parameter.nbytes for parameter in trained)


def test_freezing_trains_the_last_layers_alone(llama8b: ModelSpec) -> None:
    found = sizes(full(llama8b, method="freeze", num_trainable_layers=2, trainable="fp32"))
    block = 218_112_000
    assert found["trained weights"] == 2 * block * 4
    assert found["weights"] == (LLAMA_8B - 2 * block) * 2
    assert found["gradients"] == 2 * block * 4
    for number in (0, 33, None):
        with pytest.raises(BadInput, match="layers cannot be trained"):
            state_terms(full(llama8b, method="freeze", num_trainable_layers=number))


def test_gradients_live_through_the_forward_pass_only_with_accumulation(llama8b: ModelSpec) -> None:
    once, often = (lines(full(llama8b, gradient_accumulation_steps=n)) for n in (1, 4))
    assert once["gradients"].phases == ("backward end", "optimizer")
    assert once["gradients of the output layer"].num_bytes == 128256 * 4096 * 2
    assert {"forward", "head", "backward start"} <= set(often["gradients"].phases)
    assert "gradients of the output layer" not in often


def test_an_optimizer_in_the_backward_pass_holds_one_gradient(llama8b: ModelSpec) -> None:
    found = sizes(full(llama8b, optimizer_in_backward=True))
    assert found["gradient in use"] == 128256 * 4096 * 2
    assert "gradients" not in found
    assert "gradients" not in sizes(full(llama8b, optimizer="lomo"))


def test_the_foreach_step_makes_a_copy(llama8b: ModelSpec) -> None:
    assert sizes(full(llama8b, optimizer="adamw_torch"))["optimizer temporaries"] == 2 * LLAMA_8B
    assert "optimizer temporaries" not in sizes(full(llama8b, optimizer="adamw_torch_fused"))


def test_deepspeed_holds_sixteen_bytes_a_parameter_and_cuts_them_by_stage(llama8b: ModelSpec) -> None:
    """Rajbhandari et al., arXiv 1910.02054, figure 1: 2 + 2 + 12 bytes; K = 12."""
    ranks = 8
    wanted = {1: 2 + 2 + 12 / ranks, 2: 2 + (2 + 12) / ranks, 3: 16 / ranks}
    for stage, size in wanted.items():
        terms = state_terms(full(llama8b, sharding=zero(stage, ranks)))
        held = sum(term.num_bytes for term in terms if "backward end" in term.phases)
        assert held == pytest.approx(size * LLAMA_8B, rel=1e-4), stage


def test_what_is_offloaded_leaves_the_device(llama8b: ModelSpec) -> None:
    sharding = zero(3, offload_optimizer="cpu", offload_parameters="nvme")
    workload = full(llama8b, sharding=sharding)
    where = {term.name: term.place for term in rank_states(key_of(workload))}
    assert where["weights"] == "disk"
    assert (
        where["optimizer states"] == where["second copy of trained weights"] == where["gradients"] == "host"
    )
    assert not state_terms(workload)
    everything = full(llama8b, sharding=fsdp(8, offload_parameters="cpu"))
    assert {term.place for term in rank_states(key_of(everything)) if term.name != "gradient norms"} == {
        "host"
    }


def test_a_reference_model_is_a_second_copy(llama8b: ModelSpec) -> None:
    assert sizes(full(llama8b, reference_model=True))["reference model"] == 2 * LLAMA_8B
    cut = sizes(full(llama8b, reference_model=True, sharding=zero(3)))
    assert cut["reference model"] == pytest.approx(2 * LLAMA_8B / 8, rel=1e-4)


def test_badam_trains_a_block_at_a_time(llama8b: ModelSpec) -> None:
    """Table 1 of arXiv 2404.02827: 2 M + 16 M / D bytes for M parameters in D blocks."""
    found = sizes(full(llama8b, optimizer="badam"))
    assert found["gradients"] == 218_112_000 * 2
    assert found["optimizer states"] == 218_112_000 * 12


def test_an_adapter_that_peft_refuses_is_refused() -> None:
    with pytest.raises(Refused, match="no layer is named nothing"):
        state_terms(lora(small_llama(), adapter=Adapter(targets=("nothing",))))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be estimated: no config"):
        state_terms(full(ModelSpec(model_type="x", unknown_reason="no config")))
