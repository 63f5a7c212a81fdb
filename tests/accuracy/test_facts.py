"""What each source's script did, as a workload. The rows are made up; only the facts are the source's."""

from typing import Any

import pytest

from ftwiz.engine.accuracy.case import Case
from ftwiz.engine.accuracy.rivals import fitcheck, formulas
from ftwiz.engine.accuracy.row import Row
from ftwiz.engine.accuracy.sources import SOURCES, UNSCORED, case_of
from ftwiz.engine.accuracy.summary import figures

QWEN: dict[str, Any] = {
    "h": 4096, "L": 32, "f": 11008, "nh": 32, "kv": 32, "hd": 128, "V": 151936, "qkv_bias": True,
}  # fmt: skip
SMALL = {"h": 3072, "L": 28, "f": 8192, "nh": 24, "kv": 8, "hd": 128, "V": 128256, "tied": True}
COMMON: dict[str, Any] = {
    "kind": "train", "seq_len": 1024, "micro_batch": 1, "grad_ckpt": True, "lora_r": 64, "n_gpus": 1,
    "lora_targets": ["all-linear"], "counter": "unspecified (GB)", "measured_bytes": 10**10, "stage": "none",
    "offload": "none", "attn": "flash/sdpa", "optimizer": "adamw", "arch": "qwen-7b", "arch_dims": QWEN,
}  # fmt: skip


def case(**fields: Any) -> Case:
    return case_of(Row(id="made-up", fields=COMMON | fields))


def test_qwens_lora_has_fp32_adapters_under_autocast_and_drops_the_output() -> None:
    found = case(engine="qwen-finetune.py (HF Trainer)", method="lora").workload
    assert (found.weights, found.trainable, found.autocast) == ("bf16", "fp32", "bf16")
    assert (found.loss, found.keeps_output) == ("logits-shifted", False)
    assert found.adapter is not None
    assert found.adapter.modules_to_save == ()
    assert found.model.num_parameters == pytest.approx(7.72e9, rel=0.002)


def test_qwens_mlp_has_two_layers_before_its_last() -> None:
    found = case(engine="qwen-finetune.py", method="lora").workload.model.parameters
    assert found is not None
    shapes = {shape.suffix: (shape.num_in, shape.num_out, shape.count) for shape in found.linears}
    assert shapes["gate_proj"] == shapes["up_proj"] == (4096, 11008, 32)
    assert "gate_up_proj" not in shapes


def test_batches_of_unknown_tokens_are_named_as_what_is_missing() -> None:
    swift = case(engine="ms-swift 1/2", method="lora", counter="max_memory_reserved", lora_targets=["c_attn"])
    assert swift.missing is not None
    assert swift.missing.startswith("not fully specified")
    assert case(engine="qwen-finetune.py", method="lora").missing is None


def test_qwens_lora_with_embeddings_trains_copies_of_both() -> None:
    found = case(engine="qwen-finetune.py", method="lora_emb").workload
    assert found.adapter is not None
    assert found.adapter.modules_to_save == ("embed_tokens", "lm_head")


def test_qwens_q_lora_is_zero_2_on_one_device_with_fp32_masters() -> None:
    row = {"engine": "qwen-finetune.py", "method": "qlora_gptq", "quant": "gptq-int4", "precision": "fp16"}
    found = case(**row).workload
    assert found.quantization is not None
    assert (found.quantization.kind, found.quantization.bits) == ("gptq", 4)
    assert (found.sharding.backend, found.sharding.zero_stage, found.sharding.num_ranks) == ("zero", 2, 1)
    assert (found.trainable, found.sharding.master) == ("fp16", "fp32")


def test_qwens_full_fine_tuning_is_zero_3_also_on_one_device() -> None:
    for ranks in (1, 2):
        found = case(engine="qwen-finetune.py", method="full", n_gpus=ranks).workload
        assert (found.sharding.zero_stage, found.sharding.num_shards) == (3, ranks)


def test_fsdp_qlora_keeps_fp32_logits_and_ddp_shares_nothing() -> None:
    row = {"engine": "fsdp_qlora", "method": "qlora", "quant": "nf4-dq bf16 storage", "n_gpus": 2}
    llama = {"arch": "llama-2-7b", "arch_dims": QWEN | {"V": 32000, "qkv_bias": False}}
    spread = case(**row, **llama, stage="FSDP1 FULL_SHARD", offload="params cpu", lora_targets=["q", "mlp"])
    assert spread.workload.keeps_output
    assert spread.workload.loss == "logits-fp32"
    assert spread.workload.sharding.num_shards == 2
    assert spread.workload.sharding.offload_parameters == "cpu"
    assert spread.workload.quantization is not None
    assert spread.workload.quantization.storage == "bf16"
    assert spread.workload.adapter is not None
    assert spread.workload.adapter.targets == ("q_proj", "gate_proj", "up_proj", "down_proj")
    assert spread.config["model_type"] == "llama"
    assert case(**row, **llama, stage="DDP(FSDP NO_SHARD)").workload.sharding.num_shards == 1


def test_the_peft_suites_oft_has_blocks_of_its_width_by_their_number() -> None:
    row = {"engine": "hf-raw-loop", "arch": "llama-3.2-3b", "arch_dims": SMALL, "grad_ckpt": False}
    found = case(**row, method="peft:oft", lora_r=32, lora_targets=["q_proj", "v_proj"]).workload
    assert found.adapter is not None
    assert (found.adapter.kind, found.adapter.oft_block_size) == ("oft", 96)
    assert case(**row, method="lora", lora_targets=["q_proj"], use_dora=True).workload.adapter.use_dora  # type: ignore[union-attr]


def test_the_longest_context_is_compared_with_what_a_card_holds() -> None:
    row = {"engine": "hf+FA2 (TRL)", "kind": "max_context", "method": "qlora", "quant": "nf4-dq"}
    found = case(**row, measured=24, unit="GB", counter="max context", measured_bytes=None)
    assert found.counter == "card"
    assert found.measured_bytes == round(23.55 * 2**30)
    assert found.workload.upcast_frozen


def test_a_t4_row_is_a_plain_loop_without_autocast() -> None:
    row = {
        "engine": "hf-fitcheck-loop",
        "method": "qlora",
        "quant": "nf4",
        "precision": "fp16",
        "attn": "eager",
    }
    found = case(**row, counter="max_memory_allocated").workload
    assert (found.trainer, found.autocast, found.attention) == ("loop", None, "eager")
    assert found.upcast_frozen
    assert found.keeps_output


@pytest.mark.parametrize(
    ("name", "counter"),
    [
        ("max_memory_reserved (GiB)", "reserved"),
        ("torch.cuda.max_memory_allocated()/1e9", "allocated"),
        ("peak active", "allocated"),
        ("unspecified (GB)", "process"),
        ("nvidia-smi", "process"),
        ("process memory (reserved + context)", "process"),
        ("sampled alloc", "allocated"),
    ],
)
def test_a_counter_is_found_by_its_words(name: str, counter: str) -> None:
    assert case(engine="qwen-finetune.py", method="lora", counter=name).counter == counter


def test_every_source_says_what_it_assumes() -> None:
    for source in SOURCES:
        assert source.assumptions, source.title
        assert source.engines
    assert not {start for source in SOURCES for start in source.engines} & UNSCORED.keys()


def full(**fields: Any) -> Case:
    return case(**{"engine": "qwen-finetune.py", "method": "full"} | fields)


def test_rivals_formulas_are_theirs() -> None:
    count = full().workload.model.num_parameters
    assert count is not None
    assert formulas.deepspeed(full(n_gpus=2)) == 4 * 151936 * 4096 + 18 * count // 2
    assert formulas.accelerate(full()) == 8 * count
    assert formulas.accelerate(full(n_gpus=2)) is None
    assert formulas.llama_factory(full(method="lora")) == 2 * count
    assert formulas.llama_factory(full()) == 18 * count
    states = formulas.cookbook(full())
    assert states is not None
    assert states == pytest.approx(18 * count + 34 * 1024 * 4096 * 32, rel=0.02)


def test_fitcheck_is_asked_only_where_it_claims_to_know() -> None:
    pytest.importorskip("fitcheck")
    lora = case(engine="qwen-finetune.py", method="lora")
    found = fitcheck.predict(lora)
    assert found is not None
    assert 17e9 < found < 40e9
    assert fitcheck.predict(case(engine="qwen-finetune.py", method="lora_emb")) is None
    assert fitcheck.predict(full(n_gpus=2)) is None


def test_figures_are_of_absolute_errors_and_the_bias_is_signed() -> None:
    found = figures([-0.04, 0.2, -0.1, 0.0])
    assert found is not None
    assert (found.median, found.p90, found.worst) == (pytest.approx(0.07), 0.2, 0.2)
    assert (found.num_near, found.num_wide, found.bias) == (2, 3, pytest.approx(-0.02))
    assert figures([]) is None


@pytest.mark.parametrize(
    ("fields", "backend", "formats"),
    [
        ({"engine": "deepspeed", "stage": "ZeRO-2", "n_gpus": 8}, "zero", ("bf16", "bf16", None)),
        ({"engine": "trl", "precision": "bf16 autocast"}, "single", ("bf16", "bf16", "bf16")),
        ({"engine": "accelerate", "stage": "FSDP2", "n_gpus": 8}, "fsdp", ("fp32", "fp32", "bf16")),
        ({"engine": "hf", "precision": "fp32", "n_gpus": 2}, "ddp", ("fp32", "fp32", None)),
    ],
)
def test_a_run_that_nobody_looked_up_is_what_its_row_says(
    fields: dict[str, Any], backend: str, formats: tuple[str, str, str | None]
) -> None:
    found = case(**{"method": "full", "precision": "bf16"} | fields).workload
    assert found.sharding.backend == backend
    assert (found.weights, found.trainable, found.autocast) == formats
    assert (found.sharding.master == "fp32") == (backend == "zero")
