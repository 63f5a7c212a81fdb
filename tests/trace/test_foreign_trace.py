"""litgpt's own models, traced: against the list of their operations, which was written down apart."""

import sys
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from ftwiz.engine.memory.foreign_litgpt import walk_of
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.workload import Quantization, Stack, Workload
from ftwiz.engine.trace.foreign_run import serves, traced
from ftwiz.engine.trace.run import answer

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512, "intermediate_size": 1536,
    "num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64,
    "vocab_size": 8192, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
ATTENTION = Adapter(rank=8, targets=("q_proj", "v_proj"), dropout=0.05)
WHOLE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
NF4 = Quantization(kind="nf4", double_quant=True, quantizes_head=True)


def step(**changes: Any) -> Workload:
    day = changes.pop("day", "2023-10-27")
    kind = changes.pop("kind", "llama")
    config = CONFIG | changes.pop("config", {})
    workload = Workload(
        model=replace(spec_from_config(config, where="test"), model_type=kind), sequence_tokens=500,
        micro_batch_size=2, adapter=ATTENTION, trainable="bf16", optimizer="adamw_torch",
        gradient_accumulation_steps=64, checkpointing="none", loss="chunked-128", trainer="litgpt",
        stack=Stack(bitsandbytes="0.41.1", trainer=day),
    )  # fmt: skip
    return replace(workload, **changes)


STEPS = {
    "adapters on queries and values": step(),
    "adapters everywhere": step(adapter=replace(ATTENTION, targets=WHOLE), day="2024-09-27"),
    "four bits": step(quantization=NF4),
    "four bits, the step before still held": step(quantization=NF4, day="2024-04-26"),
    "shared keys": step(config={"num_key_value_heads": 2}),
    "a trained prompt": step(adapter=Adapter(kind="llama-adapter"), day="2024-01-18"),
    "a trained prompt and scales": step(adapter=Adapter(kind="llama-adapter-v2"), day="2024-01-18"),
    "branches side by side": step(kind="gpt_neox"),
    "all weights": step(method="full", adapter=None, day="2024-04-26"),
    "autocast": step(weights="fp32", trainable="fp32", autocast="bf16"),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_trace_and_the_list_of_operations_agree(name: str) -> None:
    """Kept activations, per phase, within 3 % of each other."""
    workload = STEPS[name]
    peaks, _, _ = traced(workload)
    walked = walk_of(workload)
    for moment in ("forward", "head"):
        found = sum(peaks[moment].groups[group] for group in ("activations", "logits"))
        listed = walked.peak(workload.tokens, workload.sequence_tokens, moment).num_bytes
        assert listed == pytest.approx(found, rel=0.03), moment


def test_the_exact_tier_answers_for_litgpt() -> None:
    workload = step()
    assert serves(workload)
    assert not serves(replace(workload, trainer="trl"))
    bare = replace(workload, model=replace(workload.model, num_layers=None, parameters=None))
    found = answer(bare, CONFIG)
    assert found["layers"] == CONFIG["num_hidden_layers"]
    assert found["allocated_bytes"] == max(phase["bytes"] for phase in found["phases"].values())
    assert "torch" in found["versions"]
    assert "torch" in sys.modules
