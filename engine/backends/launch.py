"""Command lines and accelerate files that all backends share, on one node and on several."""

from collections.abc import Mapping

import yaml

from ..specs.plan import Cluster, Strategy
from .keys import ACCELERATE, commented

WORKER_MODULE = "ftwiz.engine.worker"
RUN_FOLDER = "."
"""Ranks start in the run folder, so that its files read the same wherever it is moved."""
ACCELERATE_FILE = "accelerate.yaml"
RENDEZVOUS_ID = "ftwiz"
"""Name under which the nodes of a c10d rendezvous find each other; the port tells runs apart."""


def worker_command(python: str) -> list[str]:
    """Return the arguments that start one rank without a launcher."""
    return [python, "-m", WORKER_MODULE, RUN_FOLDER]


def accelerate_command(python: str, *options: str, file: str = ACCELERATE_FILE) -> list[str]:
    """Return ``accelerate launch`` of the worker, by module so that it needs no PATH."""
    launcher = [python, "-m", "accelerate.commands.launch", "--config_file", file]
    return [*launcher, *options, "-m", WORKER_MODULE, RUN_FOLDER]


def ranks_command(strategy: Strategy, python: str) -> list[str]:
    """Return ``accelerate launch`` of several ranks: on a free port, or of node 0 as its file says."""
    return accelerate_command(python, *(() if strategy.num_nodes > 1 else ("--main_process_port", "0")))


def torchrun_command(strategy: Strategy, python: str) -> list[str]:
    """Return torchrun of the worker on one node, on a free port."""
    torchrun = [python, "-m", "torch.distributed.run", "--standalone"]
    ranks = ["--nproc-per-node", str(strategy.ranks_per_node)]
    return [*torchrun, *ranks, "-m", WORKER_MODULE, RUN_FOLDER]


def accelerate_file(
    comment: str, strategy: Strategy, settings: Mapping[str, object], cluster: Cluster, *, node_rank: int = 0
) -> str:
    """Return the text of accelerate.yaml with the keys that every engine needs, and why.

    Args:
        comment: The first line.
        strategy: ``num_processes`` of the file is the total of all nodes, not of one.
        settings: What the engine adds.
        cluster: The nodes, where there are several.
        node_rank: The node that the file is for.
    """
    common: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "machine_rank": node_rank,
        "main_training_function": "main",
        "num_machines": strategy.num_nodes,
        "num_processes": strategy.num_processes,
        "rdzv_backend": "static",
        "same_network": True,
    }
    if strategy.num_nodes > 1:
        common |= {
            "main_process_ip": cluster.names(strategy.num_nodes)[0],
            "main_process_port": cluster.port,
            "rdzv_backend": cluster.rendezvous,
        }
    body: str = yaml.safe_dump(common | dict(settings), sort_keys=True, default_flow_style=False)
    return f"# {comment}\n{commented(body, ACCELERATE)}"


def node_files(
    comment: str, strategy: Strategy, settings: Mapping[str, object], cluster: Cluster | None
) -> dict[str, str]:
    """Return accelerate.yaml, which is node 0's, and the same for every other node by name."""
    where = cluster or Cluster()
    names = {0: ACCELERATE_FILE} | {rank: node_file(rank) for rank in range(1, strategy.num_nodes)}
    return {
        name: accelerate_file(comment, strategy, settings, where, node_rank=rank)
        for rank, name in names.items()
        if rank < MOST_NODE_FILES
    }


MOST_NODE_FILES = 64
"""Nodes that get a file of their own; launch.sh tells the node's rank on the command line anyway."""


def node_file(rank: int) -> str:
    """Return the name of a node's accelerate file."""
    return f"accelerate-node-{rank}.yaml"
