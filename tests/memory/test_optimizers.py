"""What optimizers keep, against the optimizers themselves on the CPU."""

from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.memory.optimizers import RULES, Stretch, rule_of, state_bytes, step_products

pytestmark = pytest.mark.timeout(180)
SHAPES = ((64, 128), (300, 77), (96, 64), (513,), (3,))
STRETCHES = tuple(Stretch(shape, 1, is_matrix=len(shape) > 1) for shape in SHAPES)
NOT_TRAINER = {"muon", "adam_mini", "badam"}
REAL = (
    "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "ademamix",
    "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit",
    "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit",
    "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
)  # fmt: skip
"""Those that run on a CPU with what is installed."""


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def test_every_name_of_the_trainer_has_a_rule() -> None:
    arguments = pytest.importorskip("transformers.training_args")
    assert {name.value for name in arguments.OptimizerNames} == set(RULES) - NOT_TRAINER


def real_bytes(torch: Any, name: str, dtype: Any, folder: Any) -> int:
    """Take one step and add up what is kept, without counters and 8-bit tables."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir=str(folder), optim=name, use_cpu=True, report_to="none")
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    parameters = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in SHAPES]
    optimizer = kind(parameters, **options)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = (
        value
        for parameter in parameters
        for key, value in optimizer.state[parameter].items()
        if hasattr(value, "nbytes") and not key.startswith(("qmap", "step", "RMS"))
    )
    return sum(value.nbytes for value in kept)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("size", [4, 2])
@pytest.mark.filterwarnings("ignore")
def test_states_are_those_of_the_real_optimizer(torch: Any, name: str, size: int, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("bitsandbytes")
    real = real_bytes(torch, name, torch.float32 if size == 4 else torch.bfloat16, tmp_path)
    kept = state_bytes(rule_of(name), STRETCHES, size)
    assert sum(product.value for product in kept.products) == real


def test_muon_keeps_one_momentum_of_a_matrix(torch: Any) -> None:
    parameter = torch.nn.Parameter(torch.ones(64, 128, dtype=torch.bfloat16))
    optimizer = torch.optim.Muon([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    real = sum(value.nbytes for value in optimizer.state[parameter].values() if hasattr(value, "nbytes"))
    kept = state_bytes(rule_of("muon"), [Stretch((64, 128), 1, is_matrix=True)], 2)
    assert sum(product.value for product in kept.products) == real == 64 * 128 * 2


def test_small_tensors_keep_float32_states_in_eight_bits() -> None:
    small = state_bytes(rule_of("adamw_8bit"), [Stretch((4095,), 1)], 2)
    large = state_bytes(rule_of("adamw_8bit"), [Stretch((4096,), 1)], 2)
    assert sum(product.value for product in small.products) == 4095 * 2 * 4
    assert sum(product.value for product in large.products) == 4096 * 2 + 16 * 2 * 4


def test_only_large_tensors_are_paged() -> None:
    pages = [
        state_bytes(rule_of("paged_adamw_32bit"), [Stretch((size,), 1)], 4).paged_bytes
        for size in (99_999, 100_000)
    ]
    assert pages == [0, 800_256]


def test_galore_keeps_what_its_paper_says() -> None:
    """Table 1 of arXiv 2403.03507 for a matrix m x n, m <= n: m r + 2 n r."""
    kept = state_bytes(rule_of("galore_adamw"), [Stretch((1024, 4096), 1, is_matrix=True)], 2)
    assert sum(product.value for product in kept.products) == 2 * (1024 * 128 + 2 * 4096 * 128)


def test_the_foreach_step_copies_all_and_the_fused_step_nothing() -> None:
    copies = {
        name: step_products(rule_of(name), STRETCHES, 4) for name in ("adamw_torch", "adamw_torch_fused")
    }
    number = sum(stretch.size for stretch in STRETCHES)
    assert [product.value for product in copies["adamw_torch"]] == [number * 4]
    assert copies["adamw_torch_fused"] == ()


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="'adamm' is not known") as caught:
        rule_of("adamm")
    assert "adamw_torch_fused" in (caught.value.hint or "")
