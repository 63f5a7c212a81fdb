"""The options of ``ftwiz estimate``: every combination is a recipe or one line; nothing else ever happens."""

import importlib.util
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.cli.estimate import answer
from ftwiz.cli.estimate_input import (
    ATTENTIONS,
    BACKENDS,
    CONFLICTS,
    METHODS,
    OFFLOADS,
    PRECISIONS,
    QUANTIZATIONS,
    STAGES,
    Options,
    recipe_of,
    words,
)
from ftwiz.cli.estimate_target import Target, target
from ftwiz.cli.group import run_group
from ftwiz.cli.show_estimate import Report
from ftwiz.engine.errors import BadInput, FtwizError, Refused
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.models import catalogue
from ftwiz.engine.specs.machine import Device, Host, Machine
from ftwiz.engine.specs.model import ModelSpec

GIB = 1 << 30
PLAIN = Options(
    model="openai-community/gpt2",
    method="lora",
    rank=None,
    targets=(),
    modules_to_save=(),
    trainable_layers=None,
    stage="sft",
    seq=1024,
    micro_batch=1,
    accumulation=None,
    backend=None,
    offload="none",
    devices=None,
    machine=None,
    optim="adamw_torch",
    checkpointing=None,
    attention=None,
    quant=None,
    packing=False,
    dtype=None,
    exact=False,
    as_json=False,
    explain=False,
)


@cache
def spec(name: str = "openai-community/gpt2") -> ModelSpec:
    known = catalogue.find(name)
    assert known is not None
    return catalogue.spec(known)


def place(machine: str = "2x4090", num_ranks: int | None = None) -> Target:
    return target(parse_machine(machine), num_ranks=num_ranks)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "packed weights cannot be trained": ({"quant": "nf4", "method": "full"}, "2x4090"),
    "belong to adapters": ({"rank": 8, "method": "full"}, "2x4090"),
    "OFT has blocks": ({"rank": 8, "method": "oft"}, "2x4090"),
    "belongs to --method freeze": ({"trainable_layers": 2}, "2x4090"),
    "is one process": ({"backend": "single", "devices": 2}, "2x4090"),
    "Apple device": ({"machine": "2xM3"}, "2xM3"),
    "nothing can be shared": ({"backend": "ddp"}, "4090"),
    "nothing to shard between": ({"backend": "zero3"}, "4090"),
    "shards inside each of several nodes": ({"backend": "hsdp"}, "2x4090"),
    "in the host's memory already": ({"backend": "zero2", "offload": "optimizer"}, "8cpu+64GB"),
    "shares the host's memory": ({"backend": "zero3", "offload": "all"}, "GH200"),
    "needs an engine": ({"offload": "all"}, "2x4090"),
    "FSDP moves weights, gradients and optimizer together": (
        {"backend": "fsdp", "offload": "optimizer"},
        "2x4090",
    ),
    "only ZeRO-3 and FSDP": ({"backend": "zero2", "offload": "all"}, "2x4090"),
    "ZeRO-Infinity": ({"backend": "fsdp", "offload": "nvme"}, "2x4090"),
    "only 4-bit weights": ({"quant": "int8", "backend": "fsdp"}, "2x4090"),
    "refuses it on the CPU": ({"dtype": "fp16"}, "8cpu"),
    "cannot be packed": ({"stage": "dpo", "packing": True}, "2x4090"),
    "cannot run FlashAttention-2": ({"attention": "flash"}, "V100"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_combined_is_refused_with_what_to_do(text: str) -> None:
    changed, machine = REFUSED[text]
    shares = machine == "GH200"
    where = place("H100" if shares else machine)
    with pytest.raises(BadInput, match=text.replace("(", r"\(")) as refused:
        recipe_of(replace(PLAIN, **changed), replace(where, shares_host=shares), spec())
    assert refused.value.hint


def test_every_conflict_has_been_tried() -> None:
    assert len(REFUSED) == len(CONFLICTS)


def test_defaults_are_those_of_a_job() -> None:
    recipe = recipe_of(PLAIN, place(), spec())
    assert (recipe.sharding.backend, recipe.sharding.num_ranks, recipe.precision) == ("ddp", 2, "bf16")
    assert recipe.gradient_accumulation_steps * recipe.sharding.num_ranks == 16
    assert (recipe.optimizer, recipe.checkpointing) == ("adamw_torch", "full")


def test_the_cpu_computes_in_float32_without_checkpointing() -> None:
    recipe = recipe_of(PLAIN, place("16cpu+64GB"), spec())
    assert (recipe.precision, recipe.checkpointing, recipe.sharding.num_ranks) == ("no", "none", 1)


def test_qlora_is_lora_on_four_bits() -> None:
    recipe = recipe_of(replace(PLAIN, method="qlora"), place(), spec())
    assert recipe.method == "lora"
    assert recipe.quantization is not None
    assert (recipe.quantization.kind, recipe.quantization.bits) == ("nf4", 4)


def test_a_misspelt_layer_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="no layer is named q_porj") as refused:
        recipe_of(replace(PLAIN, targets=("q_porj",)), place(), spec("Qwen/Qwen3-0.6B"))
    assert refused.value.hint == "did you mean q_proj or v_proj?"


def test_names_may_be_repeated_and_hold_commas() -> None:
    assert words(("a, b", "c.d"), "--targets") == ("a", "b", "c.d")
    with pytest.raises(BadInput, match="names; 200 are enough"):
        words((",".join(["q_proj"] * 201),), "--targets")


def device(index: int, free_gib: int, **changed: Any) -> Device:
    return Device(
        kind="cuda", index=index, name="card", total_bytes=24 * GIB, free_bytes=free_gib * GIB, **changed
    )


def test_the_fullest_of_the_emptiest_devices_decides() -> None:
    machine = Machine(
        host=Host(name="here", num_cpus=8, available_bytes=8 * GIB),
        devices=(device(0, 2), device(1, 20), device(2, 10), device(3, 24, is_lost=True)),
    )
    assert target(machine, num_ranks=2).free_bytes == 10 * GIB
    assert target(machine, num_ranks=None).free_bytes == 2 * GIB
    with pytest.raises(BadInput, match="--devices 4: there are 3"):
        target(machine, num_ranks=4)


def test_devices_that_cannot_be_used_are_refused() -> None:
    machine = Machine(host=Host(name="here", num_cpus=8), devices=(device(0, 2, is_lost=True),))
    with pytest.raises(Refused, match="none of the devices"):
        target(machine, num_ranks=None)


def test_ranks_of_several_nodes_are_split_evenly() -> None:
    found = place("2 nodes x 8xH100", 16)
    assert (found.num_ranks, found.ranks_per_node) == (16, 8)
    with pytest.raises(BadInput, match="cannot be split over nodes"):
        place("2 nodes x 8xH100", 12)


OPTIONS = st.builds(
    replace,
    st.just(PLAIN),
    model=st.sampled_from(["openai-community/gpt2", "Qwen/Qwen3-0.6B", "mistralai/Mixtral-8x7B-v0.1"]),
    method=st.sampled_from(list(METHODS)),
    rank=st.none() | st.integers(1, 4096),
    targets=st.just(()) | st.sampled_from([("q_proj",), ("all-linear",), ("q_proj,nothing",)]),
    modules_to_save=st.just(()) | st.sampled_from([("embed_tokens",), ("lm_head,embed_tokens",)]),
    stage=st.sampled_from(STAGES),
    seq=st.integers(1, 100_000_000),
    micro_batch=st.integers(1, 1_000_000),
    accumulation=st.none() | st.integers(1, 1_000_000),
    backend=st.none() | st.sampled_from(BACKENDS),
    offload=st.sampled_from(OFFLOADS),
    devices=st.none() | st.integers(1, 20),
    machine=st.sampled_from(["4090", "2x4090+64GB", "8xA100-80GB+1TB", "2 nodes x 8xH100", "8cpu+16GB"]),
    optim=st.sampled_from(["adamw_torch", "adamw_bnb_8bit", "adafactor", "galore_adamw", "sgd", "nothing"]),
    checkpointing=st.none() | st.booleans(),
    attention=st.none() | st.sampled_from(ATTENTIONS),
    quant=st.none() | st.sampled_from(list(QUANTIZATIONS)),
    packing=st.booleans(),
    dtype=st.none() | st.sampled_from(list(PRECISIONS)),
)


def answered(options: Options) -> tuple[str, Report | None]:
    try:
        return "", answer(options)
    except FtwizError as error:
        return error.message, None


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(options=OPTIONS)
def test_any_options_are_answered_or_refused_in_one_line(options: Options) -> None:
    refusal, report = answered(options)
    if report is None:
        assert refusal
        assert "\n" not in refusal
        return
    estimate = report.estimate
    assert all(term.num_bytes >= 0 for term in estimate.terms)
    assert math.isfinite(estimate.uncertainty)
    assert report.overall.word in ("fits", "tight", "no", "unknown")
    if report.device.word == "fits":
        assert report.device.free_bytes is not None
        assert report.device.needed_bytes <= report.device.free_bytes


@pytest.fixture
def without_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where transformers is not installed: what no closed form knows is not counted for ten seconds."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else find(name, *rest)
    )


def value() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    )


KEYS = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"),
    *("num_key_value_heads", "head_dim", "tie_word_embeddings", "max_position_embeddings", "sliding_window"),
    *("num_local_experts", "num_experts_per_tok", "layer_types", "text_config", "vision_config"),
    *("quantization_config", "architectures", "auto_map"),
)
TYPES = ("llama", "gpt2", "qwen3_moe", "mixtral", "deepseek_v3", "gemma3", "mamba", "jamba", "gpt_oss")


@settings(
    max_examples=150,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kind=st.sampled_from(TYPES), odd=st.dictionaries(st.sampled_from(KEYS), value(), max_size=4))
def test_any_configuration_is_answered_or_refused_in_one_line(
    kind: str, odd: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], without_stack: None
) -> None:
    plain = {
        "model_type": kind,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "vocab_size": 256,
    }
    (tmp_path / "config.json").write_text(json.dumps(plain | odd))
    code = run_group(["estimate", str(tmp_path), "--machine", "4090"])
    said = capsys.readouterr()
    assert code in (0, 2, 3)
    if code:
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert len(said.err.splitlines()) <= 2
