"""The tracer sees storages come and go, on tensors without data and on real ones."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ftwiz.engine.specs.workload import Quantization
from ftwiz.engine.trace.extrapolate import peaks
from ftwiz.engine.trace.quantized import quantize
from ftwiz.engine.trace.tracer import StorageTracer, Trace


def _held(trace: Trace) -> int:
    return sum(event.num_bytes for event in trace.events)


def test_a_tensor_counts_from_its_making_to_its_last_reference() -> None:
    with FakeTensorMode(), StorageTracer() as tracer:
        kept = torch.empty(1000, dtype=torch.float32)
        view = kept[10:]
        assert _held(tracer.trace) == 4096  # rounded up to blocks of 512 B
        del kept
        assert _held(tracer.trace) == 4096
        del view
        assert _held(tracer.trace) == 0


def test_a_resized_storage_counts_anew() -> None:
    with StorageTracer() as tracer:
        tensor = torch.empty(2048, dtype=torch.uint8)
        tensor.untyped_storage().resize_(0)
        assert _held(tracer.trace) == 0
        tensor.untyped_storage().resize_(1024)
        assert _held(tracer.trace) == 1024


def test_the_peak_of_a_phase_names_what_was_alive() -> None:
    with FakeTensorMode(), StorageTracer() as tracer:
        tracer.phase = "forward"
        one = torch.empty(1024, dtype=torch.uint8)
        with tracer.grouped("logits"):
            torch.empty(4096, dtype=torch.uint8)
        del one
    peak = peaks(tracer.trace)["forward"]
    assert peak.total == 5120
    assert peak.groups["logits"] == 4096
    assert [(count, size) for _, count, size, _ in peak.biggest] == [(1, 4096), (1, 1024)]


def test_real_and_fake_tensors_give_the_same_trace() -> None:
    def step() -> list[int]:
        layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 8))
        rows = torch.zeros(32, 64)
        with StorageTracer() as tracer:
            layers(rows).sum().backward()
            return sorted(event.num_bytes for event in tracer.trace.events)

    real = step()
    with FakeTensorMode():
        assert step() == real


def test_a_packed_layer_has_the_bytes_of_the_real_one() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    weight = torch.randn(256, 192)
    packed, state = bnb.functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    parts = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(192, 256, bias=False, device="meta")

        def get_output_embeddings(self) -> None:
            return None

    model = Model()
    quantize(model, Quantization(kind="nf4"), torch.bfloat16)
    ours = [*model.linear.parameters(), *model.linear.buffers()]
    assert sorted(t.numel() * t.itemsize for t in ours) == sorted(t.numel() * t.itemsize for t in parts)
