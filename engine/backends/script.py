"""Renders what a person starts by hand: launch.sh for every node, and a batch script for SLURM. Text only."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..specs.machine import CPU
from ..specs.plan import Cluster, Strategy
from .launch import ACCELERATE_FILE, RENDEZVOUS_ID, RUN_FOLDER, WORKER_MODULE
from .visibility import ALLOCATOR_NAMES

LAUNCH_SCRIPT = "launch.sh"
SBATCH_SCRIPT = "job.sbatch"
WORKER = ("-m", WORKER_MODULE, RUN_FOLDER)


class Shell(str):
    """A word of a command that the shell is to expand, written as it stands."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """What the scripts need to know."""

    strategy: Strategy
    cluster: Cluster
    python: str
    environment: Mapping[str, str]
    launch: tuple[str, ...]
    """accelerate's command on one node."""
    slots: tuple[int, ...] | None = None
    """Chosen devices of a node as the driver counts them; ``None``: all, or not known."""
    name: str = "ftwiz"
    grace_seconds: int = 300
    """From the signal before the time limit to the limit itself."""
    host_cpus: int | None = None
    is_whole_node: bool = True

    @property
    def is_many(self) -> bool:
        """Whether there are several nodes."""
        return self.strategy.num_nodes > 1


def launch_script(script: Script) -> str:
    """Return launch.sh: starts the ranks of one node by any of the launchers."""
    commands = _commands(script)
    cases = "".join(f'  {name}) exec {_line(words)} "$@" ;;\n' for name, words in commands.items())
    known = ", ".join(commands)
    body = _MANY if script.is_many else _ONE
    return body.format(
        launchers=" | ".join(commands),
        nodes=script.strategy.num_nodes,
        last=script.strategy.num_nodes - 1,
        master=_master(script),
        port=script.cluster.port,
        exports="".join(_export(name, value) for name, value in script.environment.items()),
        cases=cases,
        known=known,
    )


def _master(script: Script) -> str:
    hosts = script.cluster.hosts
    return shlex.quote(hosts[0]) if hosts else ""


def _commands(script: Script) -> dict[str, list[str]]:
    """Return the words of every launcher's command, without the worker's own arguments."""
    if script.strategy.backend == "single":
        return {"accelerate": [*script.launch], "python": [script.python, *WORKER]}
    commands = {"accelerate": _accelerate(script), "torchrun": _torchrun(script)}
    if script.strategy.backend == "zero" and _can_include(script):
        commands["deepspeed"] = _deepspeed(script)
    return commands


def _accelerate(script: Script) -> list[str]:
    if not script.is_many:
        return [*script.launch]
    launcher = [script.python, "-m", "accelerate.commands.launch", "--config_file", ACCELERATE_FILE]
    where = ["--main_process_ip", Shell('"$MASTER_ADDR"'), "--main_process_port", Shell('"$MASTER_PORT"')]
    how = ["--rdzv_backend", "c10d"] if script.cluster.rendezvous == "c10d" else []
    return [*launcher, "--machine_rank", Shell('"$NODE_RANK"'), *where, *how, *WORKER]


def _torchrun(script: Script) -> list[str]:
    strategy = script.strategy
    torchrun = [script.python, "-m", "torch.distributed.run"]
    ranks = ["--nproc-per-node", str(strategy.ranks_per_node)]
    if not script.is_many:
        return [*torchrun, "--standalone", *ranks, *WORKER]
    nodes = ["--nnodes", str(strategy.num_nodes), *ranks]
    if script.cluster.rendezvous == "c10d":
        endpoint = Shell('"$MASTER_ADDR:$MASTER_PORT"')
        meet = ["--rdzv-backend", "c10d", "--rdzv-id", RENDEZVOUS_ID, "--rdzv-endpoint", endpoint]
        return [*torchrun, *nodes, *meet, *WORKER]
    where = ["--master-addr", Shell('"$MASTER_ADDR"'), "--master-port", Shell('"$MASTER_PORT"')]
    return [*torchrun, *nodes, "--node-rank", Shell('"$NODE_RANK"'), *where, *WORKER]


def _can_include(script: Script) -> bool:
    """Whether DeepSpeed's launcher can be told which devices: it ignores which are visible."""
    is_chosen = any(name.endswith("VISIBLE_DEVICES") for name in script.environment)
    return not is_chosen or script.slots is not None


def _deepspeed(script: Script) -> list[str]:
    strategy = script.strategy
    runner = [script.python, "-m", "deepspeed.launcher.runner", "--no_local_rank", "--master_port"]
    runner.append(Shell('"$MASTER_PORT"'))
    module = ["--module", WORKER_MODULE, RUN_FOLDER]
    hosts = script.cluster.names(strategy.num_nodes) if script.is_many else ("localhost",)
    if script.slots is not None:
        slots = ",".join(map(str, script.slots))
        chosen = ["--include", "@".join(f"{host}:{slots}" for host in hosts)]
    else:
        chosen = ["--num_gpus", str(strategy.ranks_per_node)]
    if not script.is_many:
        # No file of that name: a /job/hostfile that happens to be there would be taken without a word.
        return [*runner, "--hostfile", "/dev/null", *chosen, *module]
    where = ["--hostfile", "hostfile", "--no_ssh", "--node_rank", Shell('"$NODE_RANK"')]
    return [*runner, *where, "--master_addr", Shell('"$MASTER_ADDR"'), *chosen, *module]


def _line(words: Iterable[str]) -> str:
    return " ".join(word if isinstance(word, Shell) else shlex.quote(word) for word in words)


def _export(name: str, value: str) -> str:
    """What the user has set of the allocator stays."""
    if name in ALLOCATOR_NAMES:
        return f'export {name}="${{{name}:-{value}}}"\n'
    return f"export {name}={shlex.quote(value)}\n"


_ONE = """\
#!/bin/sh
# Starts the ranks of this run by hand, without the supervisor: no states, no device samples.
#   ./launch.sh [--launcher {launchers}] [--resume-from checkpoint-40]
cd "$(dirname "$0")" || exit 1
LAUNCHER="${{LAUNCHER:-accelerate}}"
if [ "${{1:-}}" = --launcher ]; then
  LAUNCHER="${{2:?--launcher needs a name: {known}}}"
  shift 2
fi
mkdir -p -m 700 control exit log checkpoints || exit 1
# DeepSpeed's launcher finds no free port by itself.
[ "$LAUNCHER" != deepspeed ] || [ -n "${{MASTER_PORT:-}}" ] || MASTER_PORT=$((20000 + $$ % 12000))
{exports}case "$LAUNCHER" in
{cases}esac
echo "launch.sh: no launcher '$LAUNCHER'; there are: {known}" >&2
exit 2
"""
_MANY = """\
#!/bin/sh
# Starts the ranks of one of {nodes} nodes by hand, without the supervisor. On each, where these files are:
#   ./launch.sh --node-rank 0..{last} --master HOST[:PORT] [--launcher {launchers}] [--resume-from ...]
# The rank counts computers, not devices; the master is node 0, and all nodes name the same one.
# Or set NODE_RANK, MASTER_ADDR, MASTER_PORT and LAUNCHER in the environment; SLURM's node id is taken too.
cd "$(dirname "$0")" || exit 1
LAUNCHER="${{LAUNCHER:-accelerate}}"
NODE_RANK="${{NODE_RANK:-${{SLURM_NODEID:-}}}}"
MASTER_ADDR="${{MASTER_ADDR:-{master}}}"
MASTER_PORT="${{MASTER_PORT:-{port}}}"
while [ $# -gt 1 ]; do
  case "$1" in
    --node-rank) NODE_RANK="$2" ;;
    --master)
      MASTER_ADDR="${{2%%:*}}"
      [ "$MASTER_ADDR" = "$2" ] || MASTER_PORT="${{2#*:}}" ;;
    --launcher) LAUNCHER="$2" ;;
    *) break ;;
  esac
  shift 2
done
case "$NODE_RANK" in
  '' | *[!0-9]*) echo "launch.sh: which node is this? --node-rank 0 to {last}" >&2; exit 2 ;;
esac
[ "$NODE_RANK" -le {last} ] || {{ echo "launch.sh: --node-rank $NODE_RANK: 0 to {last}" >&2; exit 2; }}
[ -n "$MASTER_ADDR" ] || {{ echo "launch.sh: where is node 0? --master HOST[:PORT]" >&2; exit 2; }}
mkdir -p -m 700 control exit log checkpoints || exit 1
{exports}case "$LAUNCHER" in
{cases}esac
echo "launch.sh: no launcher '$LAUNCHER'; there are: {known}" >&2
exit 2
"""


def batch_script(script: Script) -> str:
    """Return job.sbatch: one launcher on each node, saved before the time limit and queued again."""
    options = "".join(f"#SBATCH --{option}\n" for option in _sbatch_options(script))
    return _SBATCH.format(options=options, python=shlex.quote(script.python))


def _sbatch_options(script: Script) -> list[str]:
    strategy, given = script.strategy, script.cluster.sbatch or ()
    ours = {
        "job-name": script.name,
        "nodes": str(strategy.num_nodes),
        "ntasks-per-node": "1",
        **({} if strategy.device_kind == CPU else {"gpus-per-node": str(strategy.ranks_per_node)}),
        **({} if script.host_cpus is None else {"cpus-per-task": str(script.host_cpus)}),
        **({"exclusive": "", "mem": "0"} if script.is_whole_node else {}),
        "signal": f"B:USR1@{script.grace_seconds}",
        "requeue": "",
        "open-mode": "append",
        "output": "slurm-%j.log",
    }
    theirs = dict(option.partition("=")[::2] for option in given)
    return [f"{name}={value}" if value else name for name, value in (ours | theirs).items()]


_SBATCH = """\
#!/bin/bash
# Submit it from this folder, which every node must see:  sbatch job.sbatch
# SLURM tells it before the time limit: it saves, puts itself back into the queue and goes on from there.
# To stop it with a checkpoint for good:  touch control/stop
{options}
cd "${{SLURM_SUBMIT_DIR:-.}}" && [ -f plan.json ] || {{ echo "submit it where plan.json is" >&2; exit 2; }}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
export MASTER_ADDR MASTER_PORT
mkdir -p -m 700 control exit log checkpoints
rm -f control/stop exit/rank-*.json

is_over=0
save_and_stop() {{ is_over=1; touch control/stop; }}
trap save_and_stop USR1 TERM

newest=$({python} -c '
from pathlib import Path
from ftwiz.engine.checkpoints import newest_whole
found = newest_whole(Path("checkpoints"))
print(found.name if found else "")
') || exit 1
srun --kill-on-bad-exit=1 ./launch.sh ${{newest:+--resume-from "$newest"}} &
ranks=$!
wait "$ranks"; code=$?
while kill -0 "$ranks" 2>/dev/null; do wait "$ranks"; code=$?; done  # a signal ends a wait, not the ranks

grep -qs '"status": "stopped"' exit/rank-0.json || exit "$code"
[ "$is_over" = 0 ] || scontrol requeue "$SLURM_JOB_ID"
exit 75
"""
