"""Every stage, trained for real on the CPU with every method: one process works one run after another."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import AlertEvent, EvalEvent, LogEvent, SampleEvent, StepEvent

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]

STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "grpo", "rloo")
METHODS = ("full", "lora")
SAMPLING = {"grpo", "rloo"}
BOTH = [(stage, method) for stage in STAGES for method in METHODS]
STEPS, SAVED = 12, 6
FILES = {"pt": "text", "sft": "pairs", "kto": "rated", "grpo": "asked", "rloo": "asked"}
WORDS = ["red", "green", "blue", "sun", "moon", "tree", "bird", "fish"]

REWARDS = """
def odd_tokens(completion_ids, completions, wanted):
    assert len(wanted) == len(completions) == len(completion_ids)
    assert isinstance(completions[0][-1]["content"], str)
    return [sum(token % 2 for token in tokens) / 12 for tokens in completion_ids]

def broken(completions):
    return [1 / 0 for _ in completions]

def short(completions):
    return [0.0]
"""

WORK = """
import json, os, sys
from pathlib import Path
from ftwiz.engine.errors import FtwizError
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.worker.peaks import Peaks
from ftwiz.engine.worker.session import run_session
from ftwiz.engine.worker.settings import Rank
from ftwiz.engine.worker.voice import Voice

report, *todo = sys.argv[1:]
rank, said = Rank(rank=0, local_rank=0, world_size=1), {}
for one in todo:
    folder, _, checkpoint = one.partition("@")
    run = RunFolder(Path(folder))
    try:
        run_session(run, rank, Voice(run, rank), peaks=Peaks(0), resume_from=checkpoint or None)
    except FtwizError as error:
        said[folder] = error.message
    Path(report).write_text(json.dumps(said))
os._exit(0)
"""

PLAIN = """
import json, os, sys
import trl, yaml
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

name, train_yaml, report = sys.argv[1:]
settings = yaml.safe_load(open(train_yaml))
rows = load_dataset("json", data_files=settings["data"]["path"], split="train")
if name == "KTO":
    rows = rows.shuffle(seed=settings["trainer"]["seed"])
where = settings["model"]["name_or_path"]
arguments = settings["trainer"] | {"output_dir": report + "-out", "save_strategy": "no"}
trainer = getattr(trl, name + "Trainer")(
    model=AutoModelForCausalLM.from_pretrained(where, dtype="float32"),
    args=getattr(trl, name + "Config")(**arguments),
    train_dataset=rows,
    processing_class=AutoTokenizer.from_pretrained(where),
)
trainer.train()
json.dump([entry["loss"] for entry in trainer.state.log_history if "loss" in entry], open(report, "w"))
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Trained:
    """All runs, after they ended."""

    lab: Any
    runs: Mapping[tuple[str, str], RunFolder]
    resumed: Mapping[str, RunFolder]
    others: Mapping[str, RunFolder]
    said: Mapping[str, str]

    def steps(self, stage: str, method: str) -> list[StepEvent]:
        """Return the steps of one run."""
        found: list[StepEvent] = self.lab.events(self.runs[stage, method], StepEvent)
        return found


def write_data(folder: Path) -> None:
    """Write the rows that each stage trains on, and a file of each that is held out."""
    chance = random.Random(0)  # noqa: S311 - rows, no secrets
    for suffix, num_rows in (("", 40), ("-eval", 4)):
        rows: dict[str, list[dict[str, object]]] = {
            name: [] for name in ("pairs", "preference", "rated", "asked", "text")
        }
        for _ in range(num_rows):
            words = " ".join(chance.choices(WORDS, k=3))
            prompt = [{"role": "user", "content": f"Say {words}"}]
            good, bad = ([{"role": "assistant", "content": text}] for text in (words, words.upper()))
            rows["pairs"].append({"messages": prompt + good})
            rows["preference"].append({"prompt": prompt, "chosen": good, "rejected": bad})
            rows["rated"] += [
                {"prompt": prompt, "completion": good, "label": True},
                {"prompt": prompt, "completion": bad, "label": False},
            ]
            rows["asked"].append({"prompt": prompt, "wanted": words})
            rows["text"].append({"text": words})
        for name, found in rows.items():
            text = "".join(json.dumps(row) + "\n" for row in found)
            (folder / f"{name}{suffix}.jsonl").write_text(text, encoding="utf8")
    (folder / "rewards.py").write_text(REWARDS, encoding="utf8")


def make(lab: Any, stage: str, method: str, **sections: Any) -> RunFolder:
    """Make a run of a stage, ready to be worked."""
    name = FILES.get(stage, "preference")
    rollout = {
        "reward_functions": [f"{lab.folder}/rewards.py:odd_tokens"],
        "num_generations": 8,
        "max_completion_length": 12,
    }
    rate = 1e-2 if method == "lora" or stage in SAMPLING else 3e-3
    run: RunFolder = lab.make(
        stage=stage,
        strategy={"micro_batch_size": 32 if stage in SAMPLING else 8},
        method={"kind": method, **({"r": 8} if method == "lora" else {})},
        data={
            "path": str(lab.folder / f"{name}.jsonl"),
            "eval_path": str(lab.folder / f"{name}-eval.jsonl"),
            "eval_fraction": 0.0,
        },
        train={
            "max_steps": STEPS,
            "save_steps": SAVED,
            "learning_rate": rate,
            "lr_scheduler_type": "constant",
        }
        | sections.get("train", {}),
        rollout=(rollout if stage in SAMPLING else {}) | sections.get("rollout", {}),
        run={"num_samples": 2, "sample_max_new_tokens": 4},
        **{name: section for name, section in sections.items() if name not in {"train", "rollout"}},
    )
    return run


def copied(run: RunFolder) -> RunFolder:
    """A run as it is made, to be worked from another's checkpoint."""
    twin = run.path.with_name(run.path.name + "-resumed")
    shutil.copytree(run.path, twin)
    return RunFolder(twin)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, lab_of: Callable[[Path], Any]) -> Trained:
    """Every stage with every method; resumed ones; a chain of three stages; and what goes wrong."""
    lab = lab_of(tmp_path_factory.mktemp("stages"))
    write_data(lab.folder)
    # A frozen output layer of random numbers bounds what an adapter can say: adapters that are rewarded learn
    # on a model that was tuned.
    runs = {("sft", "full"): make(lab, "sft", "full")}
    on_tuned = {"model": {"name_or_path": str(runs["sft", "full"].final_model)}}
    for stage, method in BOTH[:2] + BOTH[4:] + BOTH[3:4]:
        is_rewarded = stage in SAMPLING and method == "lora"
        runs[stage, method] = make(lab, stage, method, **(on_tuned if is_rewarded else {}))
    resumed = {stage: copied(runs[stage, "lora"]) for stage in STAGES}
    tuned = on_tuned | {"train": {"max_steps": 4}}
    scorer = make(lab, "rm", "lora", **tuned)
    no_function: dict[str, object] = {"reward_functions": []}
    by_model = no_function | {"reward_model": str(scorer.final_model)}
    by_whole = no_function | {"reward_model": str(runs["rm", "full"].final_model)}
    by_none = no_function | {"reward_model": str(runs["sft", "full"].final_model)}
    others = {
        "scorer": scorer,
        "chain": make(lab, "rloo", "lora", rollout=by_model, **tuned),
        "whole reward model": make(lab, "grpo", "lora", rollout=by_whole, train={"max_steps": 2}),
        "no reward model": make(lab, "grpo", "lora", rollout=by_none),
        "broken": make(
            lab, "grpo", "lora", rollout={"reward_functions": [f"{lab.folder}/rewards.py:broken"]}
        ),
        "short": make(lab, "rloo", "lora", rollout={"reward_functions": [f"{lab.folder}/rewards.py:short"]}),
        "no room": make(lab, "grpo", "lora", train={"max_length": 16}),
        "mixed": make(
            lab, "dpo", "full", preference={"loss_type": "ipo", "sft_weight": 0.5}, train={"max_steps": 2}
        ),
        "precomputed": make(lab, "dpo", "full", preference={"precompute_reference": True}),
    }
    work(lab, [str(run.path) for run in (*runs.values(), *others.values())])
    for stage, twin in resumed.items():
        kept = f"checkpoint-{SAVED}"
        shutil.copytree(runs[stage, "lora"].checkpoints / kept, twin.checkpoints / kept)
    said = work(lab, [f"{run.path}@checkpoint-{SAVED}" for run in resumed.values()])
    said |= json.loads((lab.folder / "report-0.json").read_text())
    return Trained(lab=lab, runs=runs, resumed=resumed, others=others, said=said)


def work(lab: Any, todo: list[str]) -> dict[str, str]:
    """Work runs one after another in one process, and return what went wrong by folder."""
    report = lab.folder / f"report-{len(list(lab.folder.glob('report-*.json')))}.json"
    done = lab.python("-c", WORK, str(report), *todo, cwd=lab.folder, TQDM_DISABLE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(report.read_text())
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of(events: list[StepEvent], name: str) -> list[float]:
    return [event.metrics[name] for event in events]


@pytest.mark.parametrize(("stage", "method"), [pair for pair in BOTH if pair[0] not in SAMPLING])
def test_the_loss_falls(trained: Trained, stage: str, method: str) -> None:
    steps = trained.steps(stage, method)
    assert [event.step for event in steps] == list(range(1, STEPS + 1))
    losses = [event.loss or 0.0 for event in steps]
    assert mean(losses[-3:]) < 0.97 * mean(losses[:3]), losses
    assert all(event.grad_norm and event.tokens_per_second for event in steps)
    assert trained.lab.events(trained.runs[stage, method], EvalEvent)[-1].loss < losses[0]


@pytest.mark.parametrize(("stage", "method"), [pair for pair in BOTH if pair[0] in SAMPLING])
def test_the_reward_rises(trained: Trained, stage: str, method: str) -> None:
    rewards = of(trained.steps(stage, method), "reward")
    least = 0.1 if method == "full" else 0.0  # twelve steps of an adapter move little, and sampling is noisy
    assert mean(rewards[-3:]) > mean(rewards[:3]) + least, rewards


@pytest.mark.parametrize(
    ("stage", "margin"),
    [("rm", "margin"), *((stage, "rewards/margins") for stage in ("dpo", "kto", "orpo", "simpo"))],
)
@pytest.mark.parametrize("method", METHODS)
def test_the_margin_between_good_and_bad_answers_rises(
    trained: Trained, stage: str, method: str, margin: str
) -> None:
    margins = of(trained.steps(stage, method), margin)
    assert mean(margins[-3:]) > mean(margins[:3]), margins


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("pt", {"mean_token_accuracy", "entropy"}),
        ("rm", {"accuracy", "margin", "mean_reward"}),
        ("dpo", {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"}),
        ("kto", {"kl", "rewards/chosen", "rewards/rejected", "rewards/margins"}),
        ("orpo", {"nll_loss", "log_odds_ratio", "rewards/accuracies"}),
        ("simpo", {"rewards/accuracies", "rewards/margins"}),
        ("grpo", {"reward", "reward_std", "rewards/odd_tokens/mean", "completions/mean_length"}),
        ("rloo", {"reward", "kl", "rewards/odd_tokens/mean", "completions/mean_length"}),
    ],
)
def test_a_step_tells_what_its_stage_measures(trained: Trained, stage: str, names: set[str]) -> None:
    assert names <= trained.steps(stage, "lora")[-1].metrics.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_tokens_are_counted_in_every_stage(trained: Trained, stage: str) -> None:
    counts = [event.num_tokens or 0 for event in trained.steps(stage, "full")]
    assert 0 < counts[0] < counts[-1]
    assert sorted(counts) == counts


def test_texts_fill_their_sequences(trained: Trained) -> None:
    rows = [json.loads(line)["text"] for line in (trained.lab.folder / "text.jsonl").read_text().splitlines()]
    by_hand = sum(len(text) + 1 for text in rows)  # bytes are tokens here, and each text has an end
    steps = trained.steps("pt", "full")
    one_pass = [event.num_tokens for event in steps if event.epoch is not None and event.epoch <= 1]
    assert one_pass[-1] == by_hand


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(trained: Trained, stage: str) -> None:
    whole = trained.steps(stage, "lora")[SAVED:]
    again = trained.lab.events(trained.resumed[stage], StepEvent)
    assert [event.step for event in again] == list(range(SAVED + 1, STEPS + 1))
    assert [event.loss for event in again] == [event.loss for event in whole]
    assert [(event.epoch, event.num_tokens) for event in again] == [
        (event.epoch, event.num_tokens) for event in whole
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_samples_are_told_where_there_is_something_to_ask(trained: Trained, stage: str) -> None:
    run = trained.runs[stage, "lora"]
    samples = trained.lab.events(run, SampleEvent)
    assert bool(samples) == (stage not in {"pt", "rm"})
    assert not any("no samples" in event.message for event in trained.lab.events(run, LogEvent))
    if stage == "dpo":
        answers = [
            json.loads(line)
            for line in (trained.lab.folder / "preference-eval.jsonl").read_text().splitlines()
        ]
        assert [event.reference for event in samples[:2]] == [
            row["chosen"][0]["content"] for row in answers[:2]
        ]
    if stage in SAMPLING:
        assert {event.reference for event in samples} == {None}
        assert trained.lab.events(run, EvalEvent)[-1].exact_match is None


@pytest.mark.parametrize(("name", "stage"), [("DPO", "dpo"), ("KTO", "kto"), ("SFT", "sft")])
def test_the_losses_are_those_of_a_plain_script(trained: Trained, name: str, stage: str) -> None:
    lab, report = trained.lab, trained.lab.folder / f"plain-{stage}.json"
    run = trained.runs[stage, "full"]
    done = lab.python("-c", PLAIN, name, str(run.train_file), str(report), cwd=lab.folder, TQDM_DISABLE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert lab.losses(run) == json.loads(report.read_text())


def test_a_tuned_model_is_rewarded_by_a_model_that_was_trained_from_it(trained: Trained) -> None:
    assert trained.others["chain"].path.as_posix() not in trained.said
    steps = trained.lab.events(trained.others["chain"], StepEvent)
    assert [event.step for event in steps] == [1, 2, 3, 4]
    assert all("rewards/reward_model/mean" in event.metrics for event in steps)
    assert any(event.metrics["reward_std"] > 0 for event in steps)
    whole = trained.lab.events(trained.others["whole reward model"], StepEvent)
    assert all("rewards/reward_model/mean" in event.metrics for event in whole)


def test_a_reward_model_is_a_classifier_with_one_output(trained: Trained) -> None:
    config = json.loads((trained.runs["rm", "full"].final_model / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    adapter = json.loads((trained.others["scorer"].final_model / "adapter_config.json").read_text())
    assert "score" in adapter["modules_to_save"]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("broken", "/rewards.py:broken: line 8: ZeroDivisionError: division by zero"),
        ("short", "/rewards.py:short: returned 1 rewards for 32 answers"),
        ("no reward model", "gives no rewards: it has no head with one output"),
        ("no room", "no prompt has at most 4 tokens: train.max_length less rollout.max_completion_length"),
    ],
)
def test_what_goes_wrong_with_rewards_is_one_line(trained: Trained, which: str, message: str) -> None:
    said = trained.said[str(trained.others[which].path)]
    assert message in said
    assert "\n" not in said


def test_answers_can_be_learned_beside_preferences(trained: Trained) -> None:
    mixed = trained.lab.events(trained.others["mixed"], StepEvent)
    assert [event.step for event in mixed] == [1, 2]
    assert mixed[0].loss > trained.steps("dpo", "full")[0].loss


def test_a_reference_that_was_asked_before_gives_the_same_losses(trained: Trained) -> None:
    before = trained.lab.losses(trained.others["precomputed"])
    assert before == pytest.approx(trained.lab.losses(trained.runs["dpo", "full"]), rel=1e-4)


def test_nothing_else_went_wrong(trained: Trained) -> None:
    wrong = {"broken", "short", "no reward model", "no room"}
    assert trained.said.keys() == {str(trained.others[name].path) for name in wrong}
    alerts = [trained.lab.events(run, AlertEvent) for run in trained.runs.values()]
    assert not any(alerts)
