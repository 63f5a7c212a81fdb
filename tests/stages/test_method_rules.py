"""What of method, optimizer and engine does not go together is said before anything starts."""

from typing import Any

import pytest

from ftwiz.engine.backends import backend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.stages import problems

LORA: dict[str, Any] = {"kind": "lora"}
FULL: dict[str, Any] = {"kind": "full"}
PISSA: dict[str, Any] = {"init_lora_weights": "pissa_niter_16"}


def job(**sections: Any) -> Job:
    return Job.model_validate({"model": {"name_or_path": "/m"}, "data": {"path": "/d/a.jsonl"}} | sections)


@pytest.mark.parametrize(
    ("sections", "key", "text"),
    [
        ({"method": {"kind": "full", "use_dora": True}}, "method.use_dora", "kind full does not read it"),
        ({"method": {"oft_block_size": 8}}, "method.oft_block_size", "it belongs to oft"),
        (
            {"method": PISSA, "plan": {"quantization": "nf4"}},
            "method.init_lora_weights",
            "packed ones cannot be",
        ),
        ({"method": {**PISSA, "use_dora": True}}, "method.init_lora_weights", "DoRA cannot be"),
        (
            {"method": {"loraplus_lr_ratio": 16}, "train": {"optim": "adafactor"}},
            "train.optim",
            "adamw_torch, adamw_torch_fused, sgd",
        ),
        ({"method": LORA, "train": {"optim": "galore_adamw"}}, "train.optim", "trains small ones already"),
        (
            {"stage": "dpo", "train": {"neftune_noise_alpha": 5}},
            "train.neftune_noise_alpha",
            "belongs to sft",
        ),
    ],
)
def test_what_contradicts_itself_is_named_by_its_key(sections: dict[str, Any], key: str, text: str) -> None:
    found = [problem for problem in problems(job(**sections)) if problem.key == key]
    assert len(found) == 1
    assert text in found[0].text
    assert found[0].hint


@pytest.mark.parametrize(
    ("engine", "sections", "text"),
    [
        ("zero", {"method": PISSA}, "plan.zero_stage 2"),
        ("fsdp", {"method": PISSA}, "plan.backend ddp"),
        ("fsdp", {"method": {"modules_to_save": ["lm_head"]}}, "plan.backend zero or ddp"),
        ("fsdp", {"train": {"optim": "adamw_bnb_8bit"}}, "bitsandbytes cannot step"),
        ("fsdp", {"train": {"optim": "adagrad"}}, "adagrad"),
        ("zero", {"train": {"optim": "adagrad"}}, "adagrad"),
        ("zero", {"method": FULL, "train": {"optim": "apollo_adamw"}}, "whole matrices"),
        ("fsdp", {"method": FULL, "train": {"optim": "galore_adafactor"}}, "whole matrices"),
        ("ddp", {"method": FULL, "train": {"optim": "galore_adamw_layerwise"}}, "layer by layer"),
    ],
)
def test_an_engine_says_which_methods_and_optimizers_it_cannot_do(
    engine: str, sections: dict[str, Any], text: str
) -> None:
    broken = [rule.text for rule in backend(engine).RULES if rule.broken(job(**sections), ())]
    assert any(text in found for found in broken), broken


@pytest.mark.parametrize("engine", ["single", "ddp", "zero", "fsdp"])
@pytest.mark.parametrize(
    "method", [{"use_dora": True}, {"kind": "oft"}, {"kind": "freeze"}, {"loraplus_lr_ratio": 16}]
)
def test_what_ran_on_two_ranks_is_let_through(engine: str, method: dict[str, Any]) -> None:
    chosen = job(method=method)
    assert problems(chosen) == []
    assert not [rule.text for rule in backend(engine).RULES if rule.broken(chosen, ())]


def test_zero_2_takes_pissa() -> None:
    chosen = job(method=PISSA, plan={"backend": "zero", "zero_stage": 2})
    assert not [rule.text for rule in backend("zero").RULES if rule.broken(chosen, ())]
