"""``ftwiz plan``: files for many nodes, written where nothing foreign is lost, every key explained."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftwiz.cli.explain import entries, explanation
from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import load_job
from ftwiz.engine.prepare import Prepared, prepare
from ftwiz.engine.rundir import write_plan
from ftwiz.engine.specs.plan import Cluster

MANY = "2 nodes x 8xH100+2TB"
TRL_DEFAULTS_ARE_TRAPS = {"learning_rate", "report_to", "ddp_timeout"}


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 4, encoding="utf8")
    body = {
        "model": {"name_or_path": "meta-llama/Llama-3.1-8B"},
        "data": {"path": "rows.jsonl"},
        "train": {"max_length": 2048, "global_batch_size": 32},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(body), encoding="utf8")
    return path


@pytest.fixture
def planned(job_file: Path) -> Callable[..., Prepared]:
    def plan(*overrides: str, machine: str = MANY, cluster: Cluster | None = None) -> Prepared:
        return prepare(load_job(job_file, overrides=overrides), parse_machine(machine), cluster=cluster)

    return plan


ENGINES = [
    ("plan.backend=single",),
    ("plan.backend=ddp",),
    ("plan.backend=zero", "plan.zero_stage=2", "plan.offload_optimizer=cpu"),
    ("plan.backend=zero", "plan.zero_stage=3", "plan.offload_optimizer=nvme", "plan.nvme_path=/mnt/a"),
    ("plan.backend=fsdp", "plan.quantization=nf4", "plan.num_processes=16"),
    ("plan.backend=fsdp", "plan.shard_size=8", "plan.num_processes=16"),
]


@pytest.mark.parametrize("overrides", ENGINES, ids=" ".join)
def test_every_key_of_every_file_is_explained(
    overrides: tuple[str, ...], planned: Callable[..., Prepared]
) -> None:
    found = planned(*overrides, cluster=Cluster(sbatch=("partition=gpu",)))
    places = set()
    for entry in entries(found):
        places.add(entry.place)
        assert entry.key.what, entry.name
        assert "passed on by this name" not in entry.key.what, entry.name
        assert explanation(found, entry.name).startswith(f"{entry.name} = ") or "\n\n" in explanation(
            found, entry.name
        )
    assert {"plan", "accelerate.yaml", "train.yaml", "job.sbatch", "job.yaml"} <= places


def test_an_unknown_key_is_answered_with_the_nearest(planned: Callable[..., Prepared]) -> None:
    found = planned("plan.backend=ddp")
    with pytest.raises(BadInput, match="no key 'num_proceses'") as caught:
        explanation(found, "num_proceses")
    assert "num_processes" in str(caught.value.hint)
    with pytest.raises(BadInput, match="no key of this plan, but of others: 1: Fully"):
        explanation(found, "fsdp_version")


def test_an_explanation_holds_the_plans_own_reason(planned: Callable[..., Prepared]) -> None:
    found = planned("plan.backend=ddp")
    (reason,) = [reason for reason in found.plan.reasons if reason.about == "num_processes"]
    words = " ".join(explanation(found, "num_processes").split())
    assert reason.text in words
    assert "the total of all nodes, not of one" in words


def test_what_trl_would_guess_is_always_written(planned: Callable[..., Prepared]) -> None:
    for method in ("lora", "full"):
        train = yaml.safe_load(planned(f"method.kind={method}").files["train.yaml"])
        assert set(train["trainer"]) >= TRL_DEFAULTS_ARE_TRAPS
        assert train["model"]["dtype"] in {"bfloat16", "float32"}
        assert ("lora_alpha" in train["method"]) == (method == "lora")


def test_sharded_packed_weights_are_kept_in_a_float_type(planned: Callable[..., Prepared]) -> None:
    text = planned(*ENGINES[4]).files["train.yaml"]
    assert yaml.safe_load(text)["model"]["quantization"]["bnb_4bit_quant_storage"] == "bfloat16"
    assert "bnb_4bit_quant_storage: bfloat16  # only a float type is split over the ranks" in text


def test_ranks_wait_longer_than_a_save_and_never_for_years(planned: Callable[..., Prepared]) -> None:
    def waits(*overrides: str) -> int:
        train: dict[str, Any] = yaml.safe_load(planned(*overrides).files["train.yaml"])
        seconds: int = train["trainer"]["ddp_timeout"]
        return seconds

    assert waits("plan.backend=ddp") == 1800
    full = waits("method.kind=full", "plan.backend=fsdp")
    assert 1800 < full <= 21_600
    assert full % 60 == 0


@pytest.mark.parametrize("model", ["openai-community/gpt2", "Qwen/Qwen2.5-0.5B"])
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_all_ranks_of_all_nodes_share_the_global_batch(
    model: str, nodes: int, planned: Callable[..., Prepared]
) -> None:
    overrides = (f"model.name_or_path={model}", "train.max_length=512", "plan.backend=fsdp")
    found = planned(
        *overrides, "plan.num_processes=" + str(4 * nodes), machine=f"{nodes} nodes x 4xA100-80GB"
    )
    strategy = found.plan.strategy
    assert (strategy.num_processes, strategy.num_nodes, strategy.ranks_per_node) == (4 * nodes, nodes, 4)
    assert strategy.global_batch_size == 32
    assert len(found.plan.device_indices) == 4


def test_a_number_of_ranks_that_nodes_cannot_share_is_refused(planned: Callable[..., Prepared]) -> None:
    with pytest.raises(Refused, match="is 11, which 2 nodes of 8 devices cannot share"):
        planned("plan.backend=ddp", "plan.num_processes=11", "train.global_batch_size=11")


def test_nodes_without_accelerators_train_one_rank_each(planned: Callable[..., Prepared]) -> None:
    tiny = ("model.name_or_path=openai-community/gpt2", "train.max_length=64", "plan.backend=ddp")
    strategy = planned(*tiny, machine="2 nodes x 8cpu+64GB").plan.strategy
    assert (strategy.num_processes, strategy.num_nodes) == (2, 2)


def test_the_same_plan_can_be_written_again_and_another_one_over_it(
    planned: Callable[..., Prepared], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    write_plan(folder, planned("plan.backend=zero", "plan.zero_stage=2").files)
    assert (folder / "deepspeed.json").is_file()
    other = planned("plan.backend=ddp").files
    for _ in range(2):
        write_plan(folder, other)
    assert {path.name for path in folder.iterdir()} == {*other, "written.json"}
    assert all((folder / name).read_text(encoding="utf8") == text for name, text in other.items())


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("mine", encoding="utf8"),
    "a link": lambda path: path.symlink_to("/etc/hostname"),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_ours_stays(what: str, planned: Callable[..., Prepared], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    files = planned("plan.backend=ddp").files
    write_plan(folder, files)
    (folder / "train.yaml").unlink()
    FOREIGN[what](folder / "train.yaml")
    with pytest.raises(Refused, match=r"train\.yaml: is not what ftwiz wrote"):
        write_plan(folder, {**files, "launch.sh": "other"})
    assert (folder / "launch.sh").read_text(encoding="utf8") == files["launch.sh"]


def test_a_run_folder_is_no_place_for_a_plan(tmp_path: Path, finished_run: Path) -> None:
    with pytest.raises(BadInput, match="is a run folder"):
        write_plan(finished_run, {"plan.json": "{}"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hosts", "a"), "--hosts names 1 nodes, and the machine has 2"),
        (("--hosts", "a,a"), "--hosts names 1 nodes"),
        (("--hosts", "a;rm,b"), "'a;rm' is no host name"),
        (("--hosts", "a:99999,b"), "'99999' is no port"),
        (("--sbatch", "--partition=x"), "is no option"),
        (("--sbatch", "comment=a b\n"), "is no option"),
        (("--explain", "learning_rat"), "did you mean learning_rate"),
    ],
)
def test_a_wrong_word_is_one_line(
    options: tuple[str, ...], words: str, job_file: Path, run_ftwiz: Callable[..., Any]
) -> None:
    done = run_ftwiz("plan", job_file, "--machine", MANY, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_writing_says_a_line_for_each_file(
    job_file: Path, run_ftwiz: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = (
        "--hosts",
        "alpha:29700,beta",
        "--slurm",
        "--set",
        "plan.backend=zero",
        "--set",
        "plan.num_processes=16",
    )
    done = run_ftwiz("plan", job_file, "--machine", MANY, "--write", out, *options)
    assert done.returncode == 0, done.stderr
    names = [re.split(r"\s{2,}", line)[0].rpartition("/")[2] for line in done.stdout.splitlines()]
    assert names == [
        "job.yaml",
        "train.yaml",
        "accelerate.yaml",
        "accelerate-node-1.yaml",
        "deepspeed.json",
        "hostfile",
        "launch.sh",
        "job.sbatch",
        "plan.json",
    ]
    assert yaml.safe_load((out / "accelerate-node-1.yaml").read_text())["main_process_ip"] == "alpha"
    assert (out / "hostfile").read_text().splitlines()[-2:] == ["alpha slots=8", "beta slots=8"]
    assert json.loads((out / "plan.json").read_text())["strategy"]["num_nodes"] == 2
