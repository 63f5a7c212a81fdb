"""What a stage is asked for that it cannot do, said with file, line and key; and rewards."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import parse_job
from ftwiz.engine.memory.workload import workload_of
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.data import DataSummary
from ftwiz.engine.specs.job import DpoLoss, Job, Preference, Rollout
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import STAGES, check_arguments, problems, rules, stage, train_file
from ftwiz.engine.stages.rewards import function

NAMES = [module.NAME for module in STAGES]
HEAD = "model: {name_or_path: ftwiz:demo}\ndata: {path: rows.jsonl}\n"
REWARDED = {"rollout": {"reward_functions": ["/r.py:f"]}}
STRATEGY = Strategy(
    backend="single",
    device_kind="cpu",
    num_processes=1,
    micro_batch_size=8,
    gradient_accumulation_steps=2,
    gradient_checkpointing=False,
    mixed_precision="no",
)
SHAPE = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "vocab_size": 32000,
}


def job(name: str, **sections: Any) -> Job:
    """A job of a stage with nothing that it could stumble over."""
    rewarded = REWARDED if name in rules.SAMPLING else {}
    body = {"model": {"name_or_path": "/m"}, "data": {"path": "/d"}, "stage": name, **rewarded, **sections}
    return Job.model_validate(body)


def arguments(name: str, **sections: Any) -> dict[str, Any]:
    """The arguments of a stage's trainer."""
    shape = stage(name).SHAPES[0]
    data = DataSummary(path="/d", format="text", shape=shape, num_rows=9, num_eval_rows=1)
    found: dict[str, Any] = stage(name).trainer_arguments(job(name, **sections), STRATEGY, data)
    return found


def refusal(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        parse_job(HEAD + text, name="job.yaml", base=Path("/"))
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: ppo", "job.yaml:3: stage: ppo is not there: trl removed it; train a reward model first"),
        (
            "stage: dpo\npreference: {loss_type: simpo}",
            "job.yaml:4: preference.loss_type: simpo is a stage of its",
        ),
        ("stage: dpo\npreference: {loss_type: kto_pair}", "write stage: kto, which takes pairs too"),
        ("stage: dpo\npreference: {loss_type: sft}", "set preference.sft_weight"),
        (
            "stage: dpo\npreference: {loss_type: sigmoidal}",
            "preference.loss_type must be one of sigmoid, hinge",
        ),
        ("preference: {beta: 0.3}", "job.yaml:3: preference.beta: stage sft does not read it"),
        ("stage: kto\npreference: {simpo_gamma: 0.3}", "preference.simpo_gamma: stage kto does not read it"),
        ("stage: dpo\nrollout: {temperature: 0.3}", "it belongs to grpo and rloo"),
        ("stage: dpo\ntrain: {packing: true}", "job.yaml:4: train.packing: stage dpo cannot put several"),
        ("stage: kto\ntrain: {assistant_only_loss: false}", "stage kto always learns from the answers only"),
        (
            "stage: dpo\npreference: {loss_type: hinge, label_smoothing: 0.1}",
            "preference.label_smoothing: loss_type hinge knows no smoothing",
        ),
        ("stage: dpo\npreference: {loss_type: exo_pair}", "must be above 0 with loss_type exo_pair"),
        ("stage: grpo", "job.yaml:3: rollout: stage grpo needs rewards, and none are named"),
        (
            "stage: grpo\nrollout: {reward_functions: [a.py:f], reward_weights: [1, 2]}",
            "there are 1 rewards and 2 weights",
        ),
        (
            "stage: rloo\nrollout: {reward_functions: [a.py:f], num_generations: 5}",
            "5 answers to each prompt do not divide train.global_batch_size 16",
        ),
        (
            "stage: rloo\nrollout: {reward_functions: [a.py:f], max_completion_length: 2000}",
            "leaves no room for a prompt in train.max_length 1024",
        ),
        (
            "stage: rloo\nrollout: {reward_functions: [a.py:f], scale_rewards: group}",
            "rloo divides by the spread of the batch or by nothing",
        ),
        (
            "stage: rloo\nrollout: {reward_functions: [a.py:f], loss_type: grpo}",
            "stage rloo does not read it",
        ),
        ("stage: rloo\nrollout: {reward_weights: [a]}", "rollout.reward_weights must be a list of numbers"),
    ],
)
def test_a_contradiction_is_refused_where_it_is_written(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_has_a_job_without_problems(name: str) -> None:
    assert problems(job(name)) == []


def test_every_key_of_a_stage_is_read_by_one() -> None:
    assert rules.READS.keys() == Preference.model_fields.keys()
    assert set(Rollout.model_fields) >= rules.ONLY_GRPO
    assert all(set(NAMES) >= stages for stages in rules.READS.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_every_stage_is_planned_with_its_bytes(name: str, kind: str) -> None:
    wanted = job(name, method={"kind": kind})
    spec = spec_from_config(SHAPE, where="config.json")
    plan = recommend(wanted, spec, parse_machine("1xA100-80GB"))
    assert plan.estimate is not None
    assert plan.estimate.reserved_bytes > 0
    assert plan.verdict is not None
    assert plan.verdict.word == "fits"
    assert train_file_of(wanted, plan.strategy).startswith("# What every rank")


def train_file_of(wanted: Job, strategy: Strategy) -> str:
    shape = stage(wanted.stage).SHAPES[0]
    return train_file(wanted, strategy, DataSummary(path="/d", format="text", shape=shape, num_rows=9))


def test_a_second_model_is_counted_where_one_is_held() -> None:
    spec = spec_from_config(SHAPE, where="config.json")

    def holds(name: str, kind: str = "full", **sections: Any) -> bool:
        wanted = job(name, method={"kind": kind}, **sections)
        return workload_of(wanted, spec, STRATEGY).reference_model

    assert [name for name in NAMES if holds(name)] == ["dpo", "kto", "rloo"]
    assert not any(holds(name, "lora") for name in NAMES)
    assert not holds("dpo", preference={"precompute_reference": True})
    held_to = REWARDED["rollout"] | {"beta": 0.1}
    assert holds("grpo", rollout=held_to)
    assert not holds("rloo", rollout=held_to | {"beta": 0.0})
    sampled = workload_of(job("grpo", rollout=held_to | {"num_generations": 4}), spec, STRATEGY)
    assert (sampled.num_generations, sampled.completion_tokens) == (4, 256)


def test_a_comparing_stage_never_gets_one_sequence_at_once() -> None:
    spec = spec_from_config(SHAPE, where="config.json")
    many = job("kto", train={"max_length": 16384, "global_batch_size": 4}, method={"kind": "full"})
    assert recommend(many, spec, parse_machine("1xA100-80GB")).strategy.micro_batch_size >= 2
    with pytest.raises(BadInput, match="at least 2"):
        recommend(job("kto", train={"global_batch_size": 1}), spec, parse_machine("1xA100-80GB"))


def test_a_rate_that_is_not_given_follows_stage_and_method() -> None:
    rates = {name: arguments(name)["learning_rate"] for name in NAMES}
    assert rates == {module.NAME: module.LEARNING_RATES["lora"] for module in STAGES}
    assert arguments("dpo", method={"kind": "full"})["learning_rate"] == 5e-7
    assert arguments("dpo", train={"learning_rate": 0.5})["learning_rate"] == 0.5


def test_preferences_reach_the_trainers_under_their_names() -> None:
    mixed = arguments("dpo", preference={"loss_type": "ipo", "sft_weight": 0.5, "beta": 0.2})
    assert (mixed["loss_type"], mixed["loss_weights"], mixed["beta"]) == (["ipo", "sft"], [1.0, 0.5], 0.2)
    assert arguments("simpo", preference={"sft_weight": 0.5})["cpo_alpha"] == 0.5
    assert (arguments("simpo")["beta"], arguments("simpo")["simpo_gamma"]) == (2.0, 1.0)
    rated = arguments("kto", preference={"desirable_weight": 2.0, "precompute_reference": True})
    assert (rated["desirable_weight"], rated["precompute_ref_log_probs"]) == (2.0, True)
    assert (arguments("grpo")["beta"], arguments("rloo")["beta"]) == (0.0, 0.05)


@pytest.mark.parametrize(
    ("name", "extra"), [("dpo", "beta"), ("kto", "loss_type"), ("grpo", "num_generations")]
)
def test_extra_cannot_undo_what_a_stage_decides(name: str, extra: str) -> None:
    with pytest.raises(BadInput, match=rf"train\.extra: {extra}"):
        arguments(name, train={"extra": {extra: 1}})


@pytest.mark.train
@pytest.mark.parametrize("name", NAMES)
def test_no_default_of_trl_slips_in(name: str, tmp_path: Path) -> None:
    """Where trl's default is another than transformers', train.yaml says the value."""
    from transformers import TrainingArguments

    planned = arguments(name, train={"eval_steps": 5}) | {"output_dir": str(tmp_path)}
    config = check_arguments(name, planned)
    usual = {one.name: one.default for one in fields(TrainingArguments)}
    changed = {one.name for one in fields(config) if one.name in usual and one.default != usual[one.name]}
    said = planned.keys() | {"gradient_checkpointing"}  # its new name is activation_checkpointing
    assert changed <= said
    kept = {key: getattr(config, key) for key in planned if key != "report_to"}
    assert {key for key, value in kept.items() if getattr(value, "value", value) != planned[key]} == set()


@pytest.mark.train
def test_the_losses_of_a_pair_are_those_that_the_installed_trainer_knows() -> None:
    """Any other name passes its configuration and fails with the first loss."""
    import inspect

    from trl import DPOTrainer

    source = inspect.getsource(DPOTrainer)
    listed = re.search(r"Unknown loss type: .*?\[(.*?)\]", source, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == {*get_args(DpoLoss), "sft"}


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    """A file of reward functions."""
    path = tmp_path / "rewards.py"
    path.write_text(
        "from neighbour import WORTH\n"
        "def plain(prompts, completions):\n    return [WORTH for _ in completions]\n"
        "def all_of_it(**columns):\n    return [len(columns), None]\n"
        "def word(completions):\n    return 'ab'\n"
    )
    (tmp_path / "neighbour.py").write_text("WORTH = 2\n")
    return path


def test_a_reward_function_gets_what_it_names(rewards: Path) -> None:
    given = {"prompts": ["p", "p"], "completions": ["a", "b"], "completion_ids": [[1], [2]], "wanted": [1, 2]}
    plain = function(f"{rewards}:plain")
    assert plain(**given) == [2.0, 2.0]
    assert plain.__name__ == "plain"
    assert function(f"{rewards}:all_of_it")(**given) == [4.0, None]


def test_what_a_reward_function_does_wrong_is_one_line(rewards: Path) -> None:
    with pytest.raises(BadInput, match="word: must return a list of numbers; it returned str"):
        function(f"{rewards}:word")(prompts=["p", "p"], completions=["a", "b"])
    with pytest.raises(BadInput, match="has no function nothing"):
        function(f"{rewards}:nothing")
    rewards.write_text("import no_such_module_anywhere\n")
    with pytest.raises(BadInput, match=r"rewards\.py: line 1: ModuleNotFoundError"):
        function(f"{rewards}:plain")


def test_reward_functions_are_looked_for_and_not_run(rewards: Path) -> None:
    from ftwiz.engine.job.paths import function_problem

    rewards.write_text("raise SystemExit('was run')\ndef brevity(completions): ...\n")
    assert function_problem(f"{rewards}:brevity") is None
    assert "has no function length; there are brevity" in str(function_problem(f"{rewards}:length"))
    assert "is no file and function" in str(function_problem("brevity"))
    rewards.write_text("def brevity(:\n")
    assert "rewards.py:1: is not Python: invalid syntax" in str(function_problem(f"{rewards}:brevity"))
