"""A workload survives the way to the tracing process and back."""

import json
from dataclasses import replace

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.exact.wire import workload_from_json, workload_to_json
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Sharding, Workload

WORKLOAD = Workload(
    model=ModelSpec(model_type="llama"),
    sequence_tokens=512,
    adapter=Adapter(rank=8, targets=("q_proj", "v_proj")),
    quantization=Quantization(kind="nf4"),
    sharding=Sharding(backend="fsdp", num_ranks=8, num_shards=4),
)


@pytest.mark.parametrize(
    "workload", [WORKLOAD, replace(WORKLOAD, adapter=None, quantization=None, method="full")]
)
def test_a_workload_comes_back_as_it_went(workload: Workload) -> None:
    assert workload_from_json(json.loads(json.dumps(workload_to_json(workload)))) == workload


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(BadInput, match="sharding has no 'shards'"):
        workload_from_json({"model_type": "llama", "sequence_tokens": 1, "sharding": {"shards": 2}})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadInput, match="sequence_tokens"):
        workload_from_json({"model_type": "llama"})
