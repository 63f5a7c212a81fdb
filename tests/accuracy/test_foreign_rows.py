"""Measurements of litgpt, torchtitan and torchtune: what their rows become, and how near the answers are."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from ftwiz.engine.accuracy.case import counter_of, predicted_bytes
from ftwiz.engine.accuracy.foreign import config_of_row, workload_of_row
from ftwiz.engine.accuracy.row import NotScored, Row
from ftwiz.engine.memory import estimate

DIMS = {"h": 512, "L": 8, "f": 1536, "nh": 8, "kv": 8, "hd": 64, "V": 4096, "tied": True, "gated": True}
ROW: dict[str, Any] = {
    "id": "made up", "arch": "llama-2-7b", "arch_dims": DIMS, "kind": "train", "method": "lora",
    "quant": None, "precision": "bf16", "optimizer": "adamw", "lora_r": 8,
    "lora_targets": ["q", "v"], "seq_len": 1024,
    "micro_batch": 1, "grad_ckpt": False, "loss": "ce_chunked128", "engine": "litgpt-2023", "n_gpus": 1,
    "stage": "none", "gpu": "A100-40GB", "counter": "max_memory_allocated", "measured_bytes": 1 << 30,
}  # fmt: skip


def row(**changes: Any) -> Row:
    return Row(id="made up", fields=ROW | changes)


def test_a_litgpt_row_is_of_the_day_of_its_table() -> None:
    assert workload_of_row(row()).stack.trainer == "2023-10-27"
    assert workload_of_row(row(method="adapter_v2")).stack.trainer == "2024-01-18"
    assert workload_of_row(row(engine="litgpt-2024", arch="llama-3.2-1b")).stack.trainer == "2024-09-27"


def test_litgpt_ties_nothing_and_packs_the_output_layer() -> None:
    w = workload_of_row(row(method="qlora", quant="nf4"))
    assert w.model.tie_word_embeddings is False
    assert w.quantization is not None
    assert w.quantization.quantizes_head
    assert w.quantization.double_quant is False


def test_mixed_precision_of_litgpt_is_autocast_over_float32() -> None:
    w = workload_of_row(row(precision="bf16-mixed (fp32 weights)"))
    assert (w.weights, w.autocast) == ("fp32", "bf16")


def test_a_row_may_be_given_as_its_file_has_it() -> None:
    assert workload_of_row(ROW) == workload_of_row(row())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": "trl"}, "no foreign trainer"),
        ({"n_gpus": 2}, "FSDP1"),
        ({"method": "galore"}, "not one of litgpt's"),
        ({"lora_targets": None}, "lora_targets"),
        ({"arch_dims": None}, "widths"),
        ({"arch": "mamba-3b"}, "not looked up"),
        ({"method": "full", "measured_bytes": 1000}, "inconsistent"),
        ({"engine": "torchtitan"}, "trains all weights"),
        ({"engine": "torchtitan", "method": "full", "stage": "FSDP2+TP8+PP8"}, "pipeline"),
        ({"engine": "torchtune", "optimizer": "sophia"}, "sophia"),
    ],
)
def test_a_row_that_is_not_understood_says_why(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotScored, match=reason):
        workload_of_row(row(**changes))


def test_titans_degrees_divide_its_ranks() -> None:
    w = workload_of_row(row(engine="torchtitan", method="full", n_gpus=64, tp=8, cp=2, stage="FSDP2+TP8"))
    assert (w.sharding.num_shards, w.sharding.tensor_parallel, w.tokens) == (8, 8, 512)
    assert w.expandable_segments


def test_torchtunes_options_are_read() -> None:
    w = workload_of_row(
        row(engine="torchtune", optimizer="ao 8bit, optimizer_in_bwd", offload="activations",
            loss="ce_chunked", compile=True, grad_ckpt=True)
    )  # fmt: skip
    assert w.optimizer_in_backward
    assert w.offloads_activations
    assert (w.optimizer, w.loss, w.compiles) == ("adamw_torch_8bit", "chunked", True)


def test_a_configuration_has_the_widths_of_the_row() -> None:
    assert config_of_row(row())["hidden_size"] == DIMS["h"]
    assert config_of_row(row(engine="torchtune"))["tie_word_embeddings"] is True


# Bounds of the figures of docs/accuracy.md, a little wider: median and worst share.
BOUNDS = {"litgpt-2023": (0.01, 0.02), "litgpt-2024": (0.015, 0.03), "torchtitan": (0.04, 0.12)}


@pytest.mark.parametrize("engine", BOUNDS)
def test_published_measurements_are_met(engine: str, corpus: Path) -> None:
    errors = []
    for fields in json.loads((corpus / "memory" / "measured.json").read_text(encoding="utf8")):
        if fields["engine"] != engine or fields["kind"] != "train" or not fields["fully_specified"]:
            continue
        found = Row(id=fields["id"], fields=fields)
        predicted = predicted_bytes(estimate(workload_of_row(found)), counter_of(found))
        errors.append(abs(predicted / found.measured_bytes - 1))
    usual, worst = BOUNDS[engine]
    assert len(errors) > 5
    assert median(errors) < usual
    assert max(errors) < worst
