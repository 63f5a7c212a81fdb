"""What a device holds beside tensors: figures that others published for real devices."""

from dataclasses import replace

import pytest

from ftwiz.engine.memory.overhead import (
    CHANNEL_BYTES,
    CUBLAS_BYTES,
    dynamic_bytes,
    fixed_overhead,
    logits_block,
    overhead_notes,
    overhead_terms,
)
from ftwiz.engine.memory.states import state_terms
from ftwiz.engine.specs.estimate import PHASES, Term
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Sharding, Workload

from .conftest import fsdp, full, lora, zero

MIB = 2**20


def sizes(workload: Workload) -> dict[str, int]:
    return {term.name: term.num_bytes for term in fixed_overhead(workload)}


def test_a_matrix_workspace_is_what_torch_s_snapshot_shows() -> None:
    """8519680 bytes: discuss.pytorch.org, topic 178671."""
    assert CUBLAS_BYTES == 8_519_680


@pytest.mark.parametrize(
    ("name", "workspace", "context"),
    [
        ("Tesla T4", 8_519_680, 141),
        ("NVIDIA RTX 6000 Ada Generation", 8_519_680, 426),
        ("NVIDIA H100 80GB HBM3", 32 * MIB, 616),
        ("NVIDIA A100-SXM4-80GB", 8_519_680, 616),
        ("NVIDIA T400 4GB", 8_519_680, 616),
        (None, 8_519_680, 616),
    ],
)
def test_cards_are_known_by_their_names(
    llama8b: ModelSpec, name: str | None, workspace: int, context: int
) -> None:
    found = sizes(lora(llama8b, device_name=name))
    assert found == {"matrix workspaces": 2 * workspace, "context": context * MIB}


def test_nccl_takes_on_a100_about_what_was_measured(llama8b: ModelSpec) -> None:
    """NVIDIA/nccl#964: 688 MiB a communicator of more than two A100."""
    name = "NVIDIA A100-SXM4-80GB"
    found = sizes(full(llama8b, device_name=name, sharding=fsdp(4)))
    assert CHANNEL_BYTES == 9_633_792
    assert found["communication buffers"] == pytest.approx(688 * MIB, rel=0.05)
    hybrid = sizes(full(llama8b, device_name=name, sharding=fsdp(16, num_shards=8)))
    assert hybrid["communication buffers"] == 2 * found["communication buffers"]


def test_other_kinds_say_what_is_not_known(llama8b: ModelSpec) -> None:
    ranks = Sharding(backend="ddp", num_ranks=2, ranks_per_node=2)
    npu = lora(llama8b, device_kind="npu", sharding=ranks)
    assert sizes(npu) == {"communication buffers": 400_000_000}
    assert "npu" in overhead_notes(npu)[0]
    cpu = lora(llama8b, device_kind="cpu")
    assert not overhead_terms(cpu, state_terms(cpu))
    assert not overhead_notes(cpu)


def step(num_bytes: int) -> Term:
    return Term(
        name="activations",
        group="activations",
        num_bytes=num_bytes,
        phases=("head",),
        formula="1",
        source="test",
    )


def test_gaps_grow_with_what_comes_and_goes(llama8b: ModelSpec) -> None:
    def gaps(workload: Workload, size: int = 10**10) -> int:
        terms = overhead_terms(workload, (*state_terms(workload), step(size)))
        return sum(term.num_bytes for term in terms if term.place == "reserved")

    plain = lora(llama8b)
    assert gaps(plain) == 2_200_000_000
    assert gaps(lora(llama8b, checkpointing="none")) == 600_000_000
    assert gaps(lora(llama8b, varied_lengths=True)) == 4_200_000_000
    assert gaps(lora(llama8b, expandable_segments=True)) == 22 * MIB
    assert gaps(plain, 2 * 10**10) == 2 * gaps(plain)


def test_the_share_is_that_of_the_largest_phase() -> None:
    small = Term(name="x", group="logits", num_bytes=5, phases=("forward",), formula="5 B", source="test")
    assert dynamic_bytes([step(7), small], counts_gradients=False) == (7, 0)
    held = Term(name="y", group="weights", num_bytes=9, phases=("forward",), formula="9 B", source="test")
    assert dynamic_bytes([step(7), small, held], counts_gradients=False) == (5, 5)


def test_a_head_that_holds_all_logits_takes_one_more_of_its_largest_tensors(llama8b: ModelSpec) -> None:
    """Gradients and optimizer states are born in the blocks that the first pass's logits have left."""
    tokens, vocabulary = 2048, llama8b.vocab_size or 0
    wide = lora(llama8b, sequence_tokens=tokens, loss="logits-shifted", autocast="bf16")
    assert logits_block(wide) == tokens * vocabulary * 4
    assert (
        logits_block(lora(llama8b, sequence_tokens=tokens, loss="logits-shifted")) == tokens * vocabulary * 2
    )
    assert logits_block(lora(llama8b, sequence_tokens=tokens, loss="logits", stage="dpo")) == (
        2 * tokens * vocabulary * 4
    )
    for other in (lora(llama8b), lora(llama8b, loss="logits", checkpointing="none")):
        assert logits_block(other) == 0
    logits = replace(step(13 * tokens * vocabulary), group="logits")
    found = [t for t in overhead_terms(wide, (*state_terms(wide), logits)) if t.place == "reserved"]
    assert sum(t.num_bytes for t in found) == logits_block(wide)


def test_unpacked_integers_leave_a_block_that_kept_weights_take(llama8b: ModelSpec) -> None:
    """auto-gptq: 4 bytes for every element of the largest weight, where a layer is computed again."""
    packed = lora(llama8b, quantization=Quantization(kind="gptq", double_quant=False))
    assert gaps_of(packed) == gaps_of(lora(llama8b)) + 14336 * 4096 * 4
    kept = replace(packed, checkpointing="none")
    assert gaps_of(kept) == gaps_of(lora(llama8b, checkpointing="none"))


def gaps_of(workload: Workload) -> int:
    found = overhead_terms(workload, (*state_terms(lora(workload.model)), step(10**10)))
    return sum(term.num_bytes for term in found if term.place == "reserved")


def test_deepspeed_of_old_gives_one_rank_buffers_for_a_network(llama8b: ModelSpec) -> None:
    alone = full(llama8b, sharding=zero(2, 1))
    old = replace(alone, stack=replace(alone.stack, torch="2.0.1"))
    for workload, size in ((old, 64 * MIB), (alone, 0), (replace(old, sharding=Sharding()), 0)):
        found = overhead_terms(workload, state_terms(workload))
        assert sum(t.num_bytes for t in found if t.name == "communication buffers") == size


def test_overhead_is_named_in_every_phase(llama8b: ModelSpec) -> None:
    workload = lora(llama8b)
    terms = overhead_terms(workload, state_terms(workload))
    assert all(term.phases == PHASES for term in terms if term.place != "device")
    assert {term.place for term in terms} == {"device", "driver"}
