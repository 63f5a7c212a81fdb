"""Command lines and accelerate files that all backends share."""

import yaml

WORKER_MODULE = "ftwiz.engine.worker"
RUN_FOLDER = "."
"""Ranks start in the run folder, so that its files read the same wherever it is moved."""
ACCELERATE_FILE = "accelerate.yaml"


def worker_command(python: str) -> list[str]:
    """Return the arguments that start one rank without a launcher."""
    return [python, "-m", WORKER_MODULE, RUN_FOLDER]


def accelerate_command(python: str, *options: str) -> list[str]:
    """Return ``accelerate launch`` of the worker, by module so that it needs no PATH."""
    launcher = [python, "-m", "accelerate.commands.launch", "--config_file", ACCELERATE_FILE]
    return [*launcher, *options, "-m", WORKER_MODULE, RUN_FOLDER]


def torchrun_command(python: str, num_processes: int) -> list[str]:
    """Return torchrun of the worker on one machine, on a free port."""
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    return [*torchrun, "-m", WORKER_MODULE, RUN_FOLDER]


def accelerate_file(comment: str, settings: dict[str, object]) -> str:
    """Return the text of accelerate.yaml with the keys that every engine needs.

    ``num_processes`` is the total of all machines, not of one.
    """
    common: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "machine_rank": 0,
        "main_training_function": "main",
        "num_machines": 1,
        "rdzv_backend": "static",
        "same_network": True,
    }
    body: str = yaml.safe_dump(common | settings, sort_keys=True, default_flow_style=False)
    return f"# {comment}\n{body}"
