"""Two shallow traces tell the full depth; every case is traced whole, too. One process answers them all."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.train

LLAMA = {
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MIXTURE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "head_dim": 32,
}
SLIDING = {
    **LLAMA,
    "model_type": "gemma3_text",
    "num_hidden_layers": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 4,
    "head_dim": 32,
    "sliding_window": 64,
}
LATENT = {
    **LLAMA,
    "model_type": "deepseek_v3",
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "num_hidden_layers": 7,
}
FULL = {"method": "full", "weights": "fp32", "trainable": "fp32", "autocast": "bf16"}
LORA = {
    "method": "lora",
    "adapter": {"targets": ["o_proj"], "rank": 4},
    "autocast": "bf16",
}
FSDP = {"sharding": {"backend": "fsdp", "num_ranks": 4, "num_shards": 4}}
ZERO2 = {
    "sharding": {
        "backend": "zero", "num_ranks": 4, "num_shards": 4, "zero_stage": 2, "master": "fp32",
        "reduce_bucket_elements": 4096, "overlap_comm": True,
    },
    "gradient_accumulation_steps": 2,
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": (LLAMA, FULL),
    "full without checkpointing": (LLAMA, {**FULL, "checkpointing": "none", "optimizer": "adamw_torch"}),
    "packed weights": (LLAMA, {**LORA, "quantization": {"kind": "nf4"}, "trainable": "bf16"}),
    "fsdp": (LLAMA, {**FULL, **FSDP}),
    "zero 2": (LLAMA, {**FULL, **ZERO2, "weights": "bf16", "trainable": "bf16"}),
    "dpo": (LLAMA, {**LORA, "stage": "dpo"}),
    "mixture of experts": (MIXTURE, LORA),
    "sliding windows": (SLIDING, {**LORA, "checkpointing": "none"}),
    "latent attention": (LATENT, LORA),
}
MOST_OFF = 0.001

ASK = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import torch, transformers
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
from ftwiz.engine.exact.wire import workload_from_json
from ftwiz.engine.trace.run import answer
out = {}
for name, (config, values) in json.load(sys.stdin).items():
    workload = workload_from_json({"sequence_tokens": 128, "micro_batch_size": 2, **values})
    out[name] = [answer(workload, config, whole=whole) for whole in (False, True)]
print(json.dumps(out), file=sys.__stdout__, flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(CASES),
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


@pytest.mark.parametrize("case", CASES)
def test_two_depths_tell_every_phase_of_the_full_depth(
    case: str, answers: dict[str, list[dict[str, Any]]]
) -> None:
    extrapolated, whole = answers[case]
    assert len(whole["traced_layers"]) == 1
    assert len(extrapolated["traced_layers"]) == 2
    for phase, peak in whole["phases"].items():
        assert extrapolated["phases"][phase]["bytes"] == pytest.approx(peak["bytes"], rel=MOST_OFF), phase
    assert extrapolated["allocated_bytes"] == pytest.approx(whole["allocated_bytes"], rel=MOST_OFF)


@pytest.mark.parametrize("case", CASES)
def test_the_groups_of_a_phase_add_up_to_it(case: str, answers: dict[str, list[dict[str, Any]]]) -> None:
    for found in answers[case]:
        for phase in found["phases"].values():
            assert sum(phase["groups"].values()) == pytest.approx(phase["bytes"], abs=len(phase["groups"]))
        assert found["reserved_bytes"] >= found["allocated_bytes"]


def test_the_update_holds_two_moments_and_a_copy_of_foreach(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    groups = answers["full without checkpointing"][1]["phases"]["optimizer"]["groups"]
    assert groups["gradients"] == pytest.approx(groups["weights"], rel=0.01)
    assert groups["optimizer"] == pytest.approx(3 * groups["gradients"], rel=0.02)


def test_a_rank_of_four_holds_a_quarter_of_the_states(answers: dict[str, list[dict[str, Any]]]) -> None:
    alone, sharded = (answers[case][1]["phases"]["forward"]["groups"] for case in ("full", "fsdp"))
    assert sharded["optimizer"] == pytest.approx(alone["optimizer"] / 4, rel=0.05)
    assert sharded["buffers"] > 0


def test_zero_2_keeps_the_gradients_of_both_micro_batches_and_two_copies_for_the_update(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    whole = answers["zero 2"][1]["phases"]
    part = whole["forward"]["groups"]["weights"] / 4
    assert whole["backward end"]["groups"]["gradients"] == pytest.approx(2 * part, rel=0.2)
    assert whole["optimizer"]["groups"]["gradients"] == pytest.approx(4 * part, rel=0.05)
    assert whole["optimizer"]["groups"]["optimizer"] == pytest.approx(6 * part, rel=0.05)
    assert whole["backward start"]["groups"]["buffers"] == pytest.approx(2 * 4096 * 2, abs=512)


def test_what_a_stream_reserves_serves_no_other(answers: dict[str, list[dict[str, Any]]]) -> None:
    """FSDP gathers on streams of its own, so that it reserves more than it would on one."""
    whole = answers["fsdp"][1]
    assert (
        whole["reserved_bytes"] > whole["allocated_bytes"] + whole["phases"]["forward"]["groups"]["buffers"]
    )
