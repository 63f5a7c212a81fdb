"""The files and commands of the engines, re-read by accelerate's own parser."""

from pathlib import Path

import pytest

from ftwiz.engine.backends import BACKENDS, backend
from ftwiz.engine.specs.job import Job, PlanPins
from ftwiz.engine.specs.plan import Strategy

JOB = Job.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}})


def strategy(name: str, kind: str, ranks: int, **fields: object) -> Strategy:
    settings: dict[str, object] = {
        "backend": name,
        "device_kind": kind,
        "num_processes": ranks,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "mixed_precision": "no" if kind == "cpu" else "bf16",
    }
    return Strategy(**(settings | fields))  # type: ignore[arg-type]


STRATEGIES = [
    strategy("single", "cpu", 1),
    strategy("single", "cuda", 1),
    strategy("ddp", "cpu", 2),
    strategy("ddp", "cuda", 8),
    strategy("ddp", "npu", 4),
    strategy("ddp", "xpu", 2),
    strategy("fsdp", "cuda", 8),
    strategy("fsdp", "cpu", 2),
]


@pytest.mark.parametrize("chosen", STRATEGIES, ids=lambda s: f"{s.backend}-{s.device_kind}")
def test_accelerate_reads_its_file_as_it_was_meant(chosen: Strategy, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    from accelerate.commands.config.config_args import load_config_from_file

    files = backend(chosen.backend).files(chosen, JOB, None)
    assert set(files) == {"accelerate.yaml"}
    path = tmp_path / "accelerate.yaml"
    path.write_text(files["accelerate.yaml"], encoding="utf8")
    read = load_config_from_file(str(path))
    assert read.num_processes == chosen.num_processes
    assert read.use_cpu == (chosen.device_kind == "cpu")
    assert str(read.mixed_precision) == chosen.mixed_precision
    assert (str(read.distributed_type.value) == "NO") == (chosen.backend == "single")


def test_every_command_is_a_list_that_keeps_spaces_together() -> None:
    python = "/opt/my python/bin/python; rm -rf x"
    for engine in BACKENDS:
        chosen = strategy(engine.NAME, "cpu", 2)
        for command in (engine.launch_command(chosen, python), *engine.by_hand_commands(chosen, python)):
            assert command[0] == python
            assert command[-2:] == ["ftwiz.engine.worker", "."]


@pytest.mark.parametrize("name", ["ddp", "zero", "fsdp"])
def test_torchrun_is_asked_for_all_ranks(name: str) -> None:
    command = backend(name).by_hand_commands(strategy(name, "cuda", 8), "python")[0]
    assert command[command.index("--nproc-per-node") + 1] == "8"


@pytest.mark.parametrize("name", ["ddp", "zero", "fsdp"])
def test_accelerate_is_left_to_find_a_free_port(name: str) -> None:
    command = backend(name).launch_command(strategy(name, "cuda", 8), "python")
    assert command[command.index("--main_process_port") + 1] == "0"


@pytest.mark.parametrize("engine", BACKENDS, ids=lambda engine: engine.NAME)
def test_an_engine_without_pins_offers_ways_that_differ_and_keep_the_batch(engine: object) -> None:
    base = strategy(engine.NAME, "cuda", 4)  # type: ignore[attr-defined]
    offered = engine.strategies(base, PlanPins())  # type: ignore[attr-defined]
    assert len(set(offered)) == len(offered) > 0
    assert {(way.backend, way.global_batch_size) for way in offered} == {(base.backend, 16)}
    assert all(rule.text and rule.source for rule in engine.RULES)  # type: ignore[attr-defined]
