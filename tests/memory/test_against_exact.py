"""The fast tier against the exact one on a few small steps; tools/memory_grid.py compares hundreds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from ftwiz.engine.exact.answer import traced_terms
from ftwiz.engine.exact.wire import workload_to_json
from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.ledger import completed
from ftwiz.engine.memory.workload import Recipe, recipe_workload, sharding_for
from ftwiz.engine.models import Adapter, spec_from_config
from ftwiz.engine.specs.estimate import Estimate
from ftwiz.engine.specs.workload import Quantization, Workload

DENSE_BOUND, EXPERTS_BOUND = 0.03, 0.05
SECONDS = 120
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
NEOX: dict[str, Any] = {
    "model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6,
    "num_attention_heads": 8, "vocab_size": 50304, "tie_word_embeddings": False,
}  # fmt: skip
GEMMA: dict[str, Any] = {
    "model_type": "gemma2", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 64000,
    "tie_word_embeddings": True,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 512, "intermediate_size": 1408, "moe_intermediate_size": 256,
    "num_experts": 16, "num_experts_per_tok": 4, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
FSDP = sharding_for("fsdp", num_ranks=4, ranks_per_node=4, precision="bf16")
CASES: dict[str, tuple[dict[str, Any], Recipe, float]] = {
    "full fine-tuning that keeps everything": (
        LLAMA,
        Recipe(sequence_tokens=1024, micro_batch_size=2, method="full", checkpointing="none"),
        DENSE_BOUND,
    ),
    "8 bits, which hold their inputs past checkpointing": (
        LLAMA,
        Recipe(sequence_tokens=2048, adapter=Adapter(), quantization=Quantization(kind="int8")),
        DENSE_BOUND,
    ),
    "QLoRA of layer norms, which autocast makes float32": (
        NEOX,
        Recipe(
            sequence_tokens=1024, adapter=Adapter(dropout=0.05), quantization=Quantization(kind="nf4"),
            checkpointing="none",
        ),
        DENSE_BOUND,
    ),
    "FSDP of tied embeddings": (
        GEMMA, Recipe(sequence_tokens=512, method="full", sharding=FSDP), DENSE_BOUND,
    ),
    "DPO, whose reference runs beside the policy's activations": (
        LLAMA,
        Recipe(sequence_tokens=512, stage="dpo", adapter=Adapter(), checkpointing="none"),
        DENSE_BOUND,
    ),
    "LoRA of experts, whose weights are made in full": (
        EXPERTS, Recipe(sequence_tokens=512, adapter=Adapter(), checkpointing="none"), EXPERTS_BOUND,
    ),
}  # fmt: skip
ANSWER_ALL = """
import json, sys
import torch
from ftwiz.engine.exact.wire import workload_from_json
from ftwiz.engine.trace.run import answer
torch.set_num_threads(1)
requests, out = json.load(sys.stdin), sys.stdout
sys.stdout = sys.stderr
answers = [answer(workload_from_json(workload), config) for workload, config in requests]
out.write(json.dumps(answers))
out.flush()
"""


def _workload(config: dict[str, Any], recipe: Recipe) -> Workload:
    return recipe_workload(recipe, spec_from_config(config, where="tests"))


@pytest.fixture(scope="module")
def traced() -> dict[str, Any]:
    """All answers of one process, which imports the libraries once."""
    requests = [(workload_to_json(_workload(config, recipe)), config) for config, recipe, _ in CASES.values()]
    done = subprocess.run(
        [sys.executable, "-c", ANSWER_ALL],
        input=json.dumps(requests),
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCHDYNAMO_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.train
@pytest.mark.parametrize("name", CASES)
def test_both_tiers_agree_on(name: str, traced: dict[str, Any]) -> None:
    config, recipe, bound = CASES[name]
    workload = _workload(config, recipe)
    estimated = Estimate(tier="exact", terms=traced_terms(traced[name]), uncertainty=0.0, basis="")
    exact = completed(estimated, workload)
    fast = estimate(workload)
    assert fast.allocated_bytes == pytest.approx(exact.allocated_bytes, rel=bound)


def test_paged_states_are_on_the_device_and_not_torchs() -> None:
    recipe = Recipe(sequence_tokens=512, method="full", optimizer="adamw_8bit")
    own = estimate(_workload(LLAMA, recipe))
    paged = estimate(_workload(LLAMA, replace(recipe, optimizer="paged_adamw_8bit")))
    moved = own.phase_bytes("optimizer") - paged.phase_bytes("optimizer")
    assert moved > 0
    assert paged.phase_bytes("optimizer", "driver") == own.phase_bytes("optimizer", "driver") + moved
