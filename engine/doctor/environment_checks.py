"""Environment variables and files that change a run behind its back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .finding import Finding, Level, note, ok, warning
from .hub import home_folder
from .patient import Patient
from .words import some

VISIBLE = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "HABANA_VISIBLE_DEVICES",
    "MLU_VISIBLE_DEVICES",
    "MUSA_VISIBLE_DEVICES",
)
NOTHING = {"", "-1", "NoDevFiles", "none", "void"}
ALLOCATOR, OLD_ALLOCATORS = "PYTORCH_ALLOC_CONF", ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher gives to its ranks; outside of one they are left over from another program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Biting:
    """A variable that costs something when it is set to one of some values."""

    name: str
    values: frozenset[str] | None
    """``None`` is any but the empty one."""
    level: Level
    what: str
    advice: str


_ON = frozenset({"1", "true", "True", "TRUE", "on", "ON"})
BITING = (
    Biting(
        name="CUDA_LAUNCH_BLOCKING",
        values=_ON,
        level=Level.WARNING,
        what="every CUDA kernel is waited for: training is slow",
        advice="good for finding an error, not for training",
    ),
    Biting(
        name="ASCEND_LAUNCH_BLOCKING",
        values=_ON,
        level=Level.WARNING,
        what="every NPU kernel is waited for: training is slow",
        advice="good for finding an error, not for training",
    ),
    Biting(
        name="NCCL_P2P_DISABLE",
        values=_ON,
        level=Level.WARNING,
        what="devices may not talk to each other directly, also where NVLink joins them",
        advice="needed on some consumer cards only",
    ),
    Biting(
        name="NCCL_IB_DISABLE",
        values=_ON,
        level=Level.NOTE,
        what="NCCL does not use InfiniBand or RoCE",
        advice="unset it where machines are joined by them",
    ),
    Biting(
        name="NCCL_DEBUG",
        values=frozenset({"INFO", "TRACE"}),
        level=Level.NOTE,
        what="NCCL writes a lot into the logs",
        advice="NCCL_DEBUG=WARN is enough until something fails",
    ),
    Biting(
        name="TORCH_DISTRIBUTED_DEBUG",
        values=frozenset({"DETAIL", "INFO"}),
        level=Level.NOTE,
        what="torch checks every collective: training is slower",
        advice="good for finding an error, not for training",
    ),
    Biting(
        name="HSA_OVERRIDE_GFX_VERSION",
        values=None,
        level=Level.WARNING,
        what="ROCm is told that the card is another one",
        advice="unset it unless this card is known to need it: results may be wrong",
    ),
    Biting(
        name="TORCH_DEVICE_BACKEND_AUTOLOAD",
        values=frozenset({"0"}),
        level=Level.NOTE,
        what="torch does not load backends like torch-npu by itself",
        advice="unset it on machines with NPUs",
    ),
    Biting(
        name="PYTHONPATH",
        values=None,
        level=Level.NOTE,
        what="modules from other folders stand before the installed ones",
        advice="unset it unless you need it: mixed versions fail in odd ways",
    ),
)


def look(patient: Patient) -> Iterator[Finding]:
    """Report variables that are set and bite."""
    environ = patient.environ
    findings = [
        *_hidden(environ),
        *_allocator(environ),
        *_threads(patient),
        *_left_over(environ),
        *(_finding(one, environ[one.name]) for one in BITING if _bites(one, environ.get(one.name))),
    ]
    yield from findings
    if not findings:
        yield ok("no variable that changes a run behind its back")


def look_at_accelerate(patient: Patient) -> Iterator[Finding]:
    """Report accelerate's own default file, which a plain ``accelerate launch`` picks up unasked."""
    folder = home_folder(patient.environ) / "accelerate"
    for name in ("default_config.yaml", "default_config.json"):
        path = folder / name
        if path.is_file():
            yield note(
                "accelerate has a default configuration",
                evidence=str(path),
                advice="ftwiz gives its own file and does not read it; a plain accelerate launch does",
            )
            return


def _hidden(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in VISIBLE:
        value = environ.get(name)
        if value is None or value.strip() not in NOTHING:
            continue
        if value.strip() == "NoDevFiles":
            evidence = "a SLURM node without devices for this job, as login nodes are"
        else:
            evidence = f"{name} is set to {value!r}"
        yield warning(
            f"{name} hides every device: training would run on the CPU",
            evidence=evidence,
            advice="unset it, or name the devices to use",
            command=f"unset {name}",
        )


def _allocator(environ: Mapping[str, str]) -> Iterator[Finding]:
    old = next((name for name in OLD_ALLOCATORS if environ.get(name)), None)
    if old is None:
        return
    if environ.get(ALLOCATOR) and environ[ALLOCATOR] != environ[old]:
        yield warning(
            f"{ALLOCATOR} and {old} differ: only one of them counts",
            evidence=f"{environ[ALLOCATOR]!r} and {environ[old]!r}",
            advice=f"keep {ALLOCATOR}",
            command=f"unset {old}",
        )
    elif not environ.get(ALLOCATOR):
        yield note(
            f"{old} is the older name of {ALLOCATOR}", advice=f"newer versions of torch want {ALLOCATOR}"
        )


def _threads(patient: Patient) -> Iterator[Finding]:
    value = patient.environ.get("OMP_NUM_THREADS", "").strip()
    machine = patient.machine
    num_cpus = machine.host.num_cpus if machine is not None else None
    if not value or num_cpus is None:
        return
    if not value.isdigit() or int(value) == 0:
        yield warning(
            f"OMP_NUM_THREADS={value} is not a number of threads",
            advice="unset it: ftwiz sets it for every rank",
        )
        return
    ranks = max(1, len(patient.devices))
    if int(value) * ranks > num_cpus:
        yield note(
            f"OMP_NUM_THREADS={value}: {ranks} rank{'s' if ranks > 1 else ''} with so many threads each, "
            f"on {num_cpus} CPUs",
            advice="unset it: ftwiz divides the CPUs among the ranks",
            command="unset OMP_NUM_THREADS",
        )
    elif int(value) == 1 and not patient.devices and num_cpus > 1:
        yield note(
            f"OMP_NUM_THREADS=1: training on the CPU uses one of {num_cpus}",
            advice="unset it: ftwiz gives each rank its share",
            command="unset OMP_NUM_THREADS",
        )


def _left_over(environ: Mapping[str, str]) -> Iterator[Finding]:
    ours = sorted(
        name for name in environ if name.startswith(("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_"))
    )
    if ours:
        yield warning(
            f"left over from another launch: {some(ours)}",
            evidence="accelerate reads them in every rank, over what ftwiz planned",
            advice="unset them",
            command=f"unset {' '.join(ours)}",
        )
    ranks = [name for name in LAUNCHER if name in environ]
    if ranks and "SLURM_PROCID" not in environ:
        yield warning(
            f"left over from a launcher: {some(ranks)}",
            evidence="a run on one device may wait for ranks that do not exist",
            advice="unset them: ftwiz starts the ranks itself",
            command=f"unset {' '.join(ranks)}",
        )


def _bites(one: Biting, value: str | None) -> bool:
    return bool(value) and (one.values is None or value in one.values)


def _finding(one: Biting, value: str) -> Finding:
    return Finding(
        level=one.level,
        what=f"{one.name}: {one.what}",
        evidence=f"{one.name}={value}",
        advice=one.advice,
        command=f"unset {one.name}",
    )
