"""What a trace of one step cannot see is added to it, and nothing twice."""

from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.ledger import REPLAYED, completed
from ftwiz.engine.memory.workload import Recipe, recipe_workload
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.estimate import PHASES, Estimate, Term
from ftwiz.engine.specs.workload import Workload

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "vocab_size": 1024,
}


def workload(*, packing: bool = False) -> Workload:
    recipe = Recipe(sequence_tokens=512, method="full", packing=packing)
    return recipe_workload(recipe, spec_from_config(CONFIG, where="a test"))


def traced() -> Estimate:
    term = Term(
        name="activations",
        group="activations",
        num_bytes=1 << 30,
        phases=PHASES,
        formula="1,073,741,824 B",
        source="a trace",
    )
    return Estimate(tier="exact", terms=(term,), uncertainty=0.05, basis="a test", notes=("traced",))


def test_context_host_and_disk_are_added() -> None:
    found = completed(traced(), workload())
    fast = estimate(workload())
    assert found.terms[0] == traced().terms[0]
    assert found.phase_bytes("forward", "driver") == fast.phase_bytes("forward", "driver") > 0
    assert (found.host_bytes, found.disk_bytes) == (fast.host_bytes, fast.disk_bytes)
    assert (found.tier, found.uncertainty, found.basis) == ("exact", 0.05, "a test")
    assert "traced" in found.notes


def test_what_the_trace_replays_is_not_counted_again() -> None:
    names = [term.name for term in completed(traced(), workload()).terms]
    assert REPLAYED in [term.name for term in estimate(workload()).terms]
    assert REPLAYED not in names
    twice = completed(completed(traced(), workload()), workload())
    assert [term.name for term in twice.terms] == names


def test_lengths_that_vary_cost_the_allocator_more_than_the_one_that_was_traced() -> None:
    varied = completed(traced(), workload()).reserved_bytes
    assert varied > completed(traced(), workload(packing=True)).reserved_bytes
