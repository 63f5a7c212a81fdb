"""The files and commands of the engines, re-read by accelerate's own parser."""

from pathlib import Path

import pytest

from ftwiz.engine.backends import BACKENDS, backend
from ftwiz.engine.specs.plan import Strategy


def strategy(name: str, kind: str, ranks: int) -> Strategy:
    return Strategy(
        backend=name,  # type: ignore[arg-type]
        device_kind=kind,
        num_processes=ranks,
        micro_batch_size=4,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        mixed_precision="no" if kind == "cpu" else "bf16",
    )


STRATEGIES = [
    strategy("single", "cpu", 1),
    strategy("single", "cuda", 1),
    strategy("ddp", "cpu", 2),
    strategy("ddp", "cuda", 8),
    strategy("ddp", "npu", 4),
    strategy("ddp", "xpu", 2),
]


@pytest.mark.parametrize("chosen", STRATEGIES, ids=lambda s: f"{s.backend}-{s.device_kind}")
def test_accelerate_reads_its_file_as_it_was_meant(chosen: Strategy, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    from accelerate.commands.config.config_args import load_config_from_file

    files = backend(chosen.backend).files(chosen)
    assert set(files) == {"accelerate.yaml"}
    path = tmp_path / "accelerate.yaml"
    path.write_text(files["accelerate.yaml"], encoding="utf8")
    read = load_config_from_file(str(path))
    assert read.num_processes == chosen.num_processes
    assert read.use_cpu == (chosen.device_kind == "cpu")
    assert str(read.mixed_precision) == chosen.mixed_precision
    assert (str(read.distributed_type.value) == "NO") == (chosen.backend == "single")


def test_the_launch_command_is_a_list_that_keeps_spaces_together() -> None:
    python = "/opt/my python/bin/python; rm -rf x"
    for engine in BACKENDS:
        chosen = strategy(engine.NAME, "cpu", 2)
        for command in (engine.launch_command(chosen, python), engine.by_hand_command(chosen, python)):
            assert command[0] == python
            assert command[-3:] == ["-m", "ftwiz.engine.worker", "."]


def test_ddp_asks_torchrun_for_all_its_ranks() -> None:
    command = backend("ddp").by_hand_command(strategy("ddp", "cuda", 8), "python")
    assert command[command.index("--nproc-per-node") + 1] == "8"


def test_ddp_lets_accelerate_find_a_free_port() -> None:
    command = backend("ddp").launch_command(strategy("ddp", "cuda", 8), "python")
    assert command[command.index("--main_process_port") + 1] == "0"
