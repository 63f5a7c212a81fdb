"""The files of several nodes, read back by accelerate, by torch's launcher and by DeepSpeed's."""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ftwiz.engine.backends import backend
from ftwiz.engine.backends.script import Script, batch_script, launch_script
from ftwiz.engine.specs.job import Job, PlanPins
from ftwiz.engine.specs.plan import Cluster, Rendezvous, Strategy

JOB = Job.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}})
DDP = Strategy(
    backend="ddp",
    device_kind="cuda",
    num_processes=16,
    num_nodes=2,
    micro_batch_size=2,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="bf16",
)
ZERO = replace(DDP, backend="zero", zero_stage=3)
FSDP = replace(DDP, backend="fsdp")
HOSTS = ("alpha", "beta")


def told_torchrun(way: Strategy, rank: int, rendezvous: Rendezvous, folder: Path) -> argparse.Namespace:
    """Return what accelerate asks of torch's launcher when it is started with a node's file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    cluster = Cluster(hosts=HOSTS, port=29501, rendezvous=rendezvous)
    for name, text in backend(way.backend).files(way, JOB, None, cluster).items():
        (folder / name).write_text(text, encoding="utf8")
    name = folder / ("accelerate.yaml" if rank == 0 else f"accelerate-node-{rank}.yaml")
    options = ["--rdzv_backend", "c10d"] if rendezvous == "c10d" else []
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", str(name), *options, "-m", "worker"])
    parsed, defaults, _ = _validate_launch_command(arguments)
    if way.backend == "zero":
        parsed.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    (prepare_deepspeed_cmd_env if way.backend == "zero" else prepare_multi_gpu_env)(parsed)
    found: argparse.Namespace = parsed
    return found


@pytest.mark.parametrize("way", [DDP, ZERO, FSDP], ids=lambda way: way.backend)
@pytest.mark.parametrize("rank", [0, 1])
def test_accelerate_starts_the_ranks_of_a_node_and_knows_its_place(
    way: Strategy, rank: int, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    told = told_torchrun(way, rank, "static", tmp_path)
    assert (told.nnodes, told.nproc_per_node, told.node_rank) == ("2", "8", rank)
    assert (told.rdzv_backend, told.rdzv_endpoint) == ("static", "alpha:29501")
    assert told.num_processes == 16


def test_c10d_is_told_where_to_meet_and_on_the_command_line_that_it_is_meant(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    told = told_torchrun(DDP, 1, "c10d", tmp_path)
    assert (told.rdzv_backend, told.rdzv_endpoint) == ("c10d", "alpha:29501")
    text = launch_script(script(DDP, cluster=Cluster(rendezvous="c10d")))
    assert '--main_process_port "$MASTER_PORT" --rdzv_backend c10d' in text
    assert '--rdzv-endpoint "$MASTER_ADDR:$MASTER_PORT"' in text


def test_deepspeed_reads_the_hostfile_and_the_choice_of_devices(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    files = backend("zero").files(ZERO, JOB, None, Cluster(hosts=HOSTS))
    (tmp_path / "hostfile").write_text(files["hostfile"], encoding="utf8")
    code = (
        "import json\n"
        "from deepspeed.launcher.runner import fetch_hostfile, parse_inclusion_exclusion as chosen\n"
        "pool = fetch_hostfile('hostfile')\n"
        "found = [dict(pool), chosen(pool, 'alpha:2,3@beta:2,3', '')]\n"
        "print(); print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    slots, included = yaml.safe_load(done.stdout.splitlines()[-1])
    assert slots == {"alpha": 8, "beta": 8}
    assert included == {"alpha": [2, 3], "beta": [2, 3]}


def script(way: Strategy, **fields: object) -> Script:
    launch = tuple(backend(way.backend).launch_command(way, "/opt/my python"))
    cluster = Cluster(hosts=HOSTS, sbatch=("partition=gpu", "time=12:00:00"))
    settings = {"strategy": way, "cluster": cluster, "environment": {}, "launch": launch}
    return Script(python="/opt/my python", **(settings | fields))  # type: ignore[arg-type]


ONE = {"num_nodes": 1, "num_processes": 8}
WAYS = [DDP, ZERO, FSDP, *(replace(way, num_nodes=1, num_processes=8) for way in (DDP, ZERO, FSDP))]
SINGLE = replace(DDP, backend="single", num_nodes=1, num_processes=1)


@pytest.mark.parametrize("way", [*WAYS, SINGLE], ids=lambda way: f"{way.backend}-{way.num_nodes}")
def test_shells_take_the_scripts(way: Strategy) -> None:
    made = script(way)
    for shell, text in (("sh", launch_script(made)), ("bash", batch_script(made))):
        subprocess.run([shell, "-n"], input=text, text=True, timeout=10, check=True)


def test_each_launcher_has_a_line_and_deepspeed_only_where_it_belongs() -> None:
    lines = {way.backend: launch_script(script(way)) for way in (DDP, ZERO, FSDP, SINGLE)}
    assert "  deepspeed) " in lines["zero"]
    assert not any("  deepspeed) " in lines[name] for name in ("ddp", "fsdp", "single"))
    assert all("  torchrun) " in lines[name] for name in ("ddp", "zero", "fsdp"))
    assert 'MASTER_ADDR="${MASTER_ADDR:-alpha}"' in lines["ddp"]


def test_deepspeed_is_told_the_chosen_devices_because_it_ignores_which_are_visible() -> None:
    shown = {"CUDA_VISIBLE_DEVICES": "GPU-2,GPU-3"}
    two = replace(ZERO, num_processes=4)
    assert "--include alpha:2,3@beta:2,3" in launch_script(script(two, environment=shown, slots=(2, 3)))
    alone = replace(two, num_nodes=1, num_processes=2)
    text = launch_script(script(alone, environment=shown, slots=(2, 3)))
    assert "--hostfile /dev/null --include localhost:2,3" in text
    assert "deepspeed)" not in launch_script(script(alone, environment=shown))


def test_the_batch_script_asks_for_what_the_plan_needs() -> None:
    text = batch_script(script(DDP, name="seventy", grace_seconds=240, host_cpus=96))
    options = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        "job-name=seventy",
        "nodes=2",
        "ntasks-per-node=1",
        "gpus-per-node=8",
        "cpus-per-task=96",
        "exclusive",
        "mem=0",
        "signal=B:USR1@240",
        "requeue",
        "open-mode=append",
        "output=slurm-%j.log",
        "partition=gpu",
        "time=12:00:00",
    ]


def test_fsdp_offers_a_copy_on_each_node_before_one_over_all() -> None:
    sizes = [way.shard_size for way in backend("fsdp").strategies(FSDP, PlanPins(offload_parameters="none"))]
    assert sizes == [8, 8, None, None]
    one = replace(FSDP, num_nodes=1)
    assert {way.shard_size for way in backend("fsdp").strategies(one, PlanPins())} == {None}


def test_one_node_has_one_file_and_nothing_of_others() -> None:
    files = backend("zero").files(replace(ZERO, num_nodes=1, num_processes=8), JOB, None)
    assert set(files) == {"accelerate.yaml", "deepspeed.json"}
    body = yaml.safe_load(files["accelerate.yaml"])
    assert (body["num_machines"], body["num_processes"]) == (1, 8)
    assert "main_process_ip" not in body
