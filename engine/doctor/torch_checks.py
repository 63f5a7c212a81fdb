"""Whether the installed torch can use the devices that are in the box, and if not, why."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..specs.machine import Device
from .finding import Finding, error, note, ok, warning
from .patient import Patient
from .torch_report import TorchReport

LEAST_DRIVER = {13: 580, 12: 525, 11: 450}
"""Oldest driver series for a major CUDA version (NVIDIA, CUDA compatibility, minor version compatibility)."""
BUILDS = "https://pytorch.org/get-started/locally"
_FIRST_BF16_TEXT = "bf16 needs compute capability 8.0 (Ampere) or newer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """A sentence of the CUDA runtime, and what it means."""

    pattern: re.Pattern[str]
    what: str
    advice: str
    command: str | None = None


# Numbers are those of cudaError_t (CUDA runtime API, data types), which torch prints as "Error 802: ...".
REASONS: tuple[Reason, ...] = (
    Reason(
        pattern=re.compile(r"driver on your system is too old|Error 35\b|insufficient for CUDA runtime"),
        what="the NVIDIA driver is older than the CUDA that torch was built for",
        advice=f"update the driver, or install a torch built for an older CUDA: {BUILDS}",
    ),
    Reason(
        pattern=re.compile(r"Error 802\b|system not yet initialized"),
        what="the NVSwitch fabric is not up: the fabric manager does not run",
        advice="start the fabric manager; its version must be the driver's",
        command="sudo systemctl start nvidia-fabricmanager",
    ),
    Reason(
        pattern=re.compile(r"Error 80[34]\b|unsupported display driver|forward compatibility was attempted"),
        what="another libcuda stands before the driver's own",
        advice="take CUDA's compat folder out of LD_LIBRARY_PATH, or remove the package cuda-compat",
    ),
    Reason(
        pattern=re.compile(r"Error 999\b|CUDA unknown error|Error 304\b|OS call failed"),
        what="the driver answers nvidia-smi but not CUDA",
        advice="in a container: restart it (it loses its devices when systemd reloads); on the host: "
        "load the module nvidia_uvm, or reboot",
        command="sudo modprobe nvidia_uvm",
    ),
    Reason(
        pattern=re.compile(r"Error (46|2)\b|devices? (is|are) busy or unavailable|CUDA error: out of memory"),
        what="every device is taken: full, or in exclusive mode",
        advice="see who holds them with nvidia-smi; wait, or choose other devices",
    ),
    Reason(
        pattern=re.compile(r"No CUDA GPUs|no CUDA-capable device|Error 10[01]\b|invalid device ordinal"),
        what="CUDA sees no device",
        advice="look at CUDA_VISIBLE_DEVICES, and whether the container was started with --gpus all",
    ),
    Reason(
        pattern=re.compile(r"no NVIDIA driver"),
        what="torch finds no NVIDIA driver",
        advice="install the driver; in a container: start it with --gpus all",
    ),
)


def look(patient: Patient) -> Iterator[Finding]:
    """Compare what torch was built for, and what it sees, with the devices in the box."""
    torch = patient.torch
    if torch is None or not torch.is_installed:
        return
    if torch.version is None:
        yield _silent(torch)
        return
    if torch.failure is not None:
        yield warning(
            f"torch did not answer every question: {torch.failure}",
            evidence=_build(torch),
            advice="a driver or library below torch hangs or crashes: wait longer, or look at the driver",
            command="ftwiz doctor --wait 60",
        )
    problems = list(_problems(patient, torch))
    yield from problems
    if not problems:
        yield ok(f"torch {_build(torch)}{_sees(patient, torch)}")
    yield from _weak_precision(patient.devices)


def fits(architecture: str, arch_list: tuple[str, ...]) -> bool:
    """Whether code for one of ``arch_list`` runs on a device: built for it, or as PTX for it or an older one.

    CUDA code runs on later minor versions of the same major (sm_80 on 8.6), PTX on everything later;
    ``sm_90a`` only on 9.0, ``sm_120f`` on its family. HIP code runs on its own gfx only.
    """
    if architecture.startswith("gfx"):
        return architecture.partition(":")[0] in {arch.partition(":")[0] for arch in arch_list}
    wanted = _capability(architecture)
    if wanted is None:
        return True
    return any(_runs(arch, wanted) for arch in arch_list)


def _runs(arch: str, wanted: tuple[int, int]) -> bool:
    built = _capability(arch)
    if built is None:
        return False
    if arch.endswith("a"):
        return built == wanted
    if arch.startswith("compute_"):
        return built <= wanted
    return built[0] == wanted[0] and built[1] <= wanted[1]


def _capability(architecture: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[af]?", architecture)
    return (int(found[1]), int(found[2])) if found else None


def _silent(torch: TorchReport) -> Finding:
    if torch.failure is not None and torch.failure.startswith("no answer"):
        return warning(
            f"torch gave {torch.failure}",
            advice="the first import is slow on network disks: try again, or wait longer",
            command="ftwiz doctor --wait 60",
        )
    return error(
        "torch is installed and cannot be imported",
        evidence=torch.failure,
        advice=f"install it again, in the build that fits the driver: {BUILDS}",
    )


def _problems(patient: Patient, torch: TorchReport) -> Iterator[Finding]:
    devices = patient.devices
    nvidia = [device for device in devices if device.kind == "cuda" and device.vendor in {None, "nvidia"}]
    amd = [device for device in devices if device.kind == "cuda" and device.vendor not in {None, "nvidia"}]
    if nvidia:
        yield from _nvidia(patient, torch, nvidia)
    if amd and torch.hip is None:
        yield _wrong_build(torch, amd, "ROCm")
    elif amd:
        yield from _seen(torch, amd)
    for kind, available, why in (
        ("xpu", torch.xpu_available, torch.xpu_why_not),
        ("mps", torch.mps_available, torch.mps_why_not),
    ):
        there = [device for device in devices if device.kind == kind]
        if there and not available:
            yield error(
                f"torch cannot use {_count(there)}",
                evidence=why or f"torch.{kind}.is_available() is False; torch {_build(torch)}",
                advice=f"install a torch built for {kind}: {BUILDS}",
            )


def _nvidia(patient: Patient, torch: TorchReport, devices: list[Device]) -> Iterator[Finding]:
    if torch.cuda is None:
        yield _wrong_build(torch, devices, "CUDA")
        return
    too_old = _old_driver(patient, torch)
    if too_old is not None:
        yield too_old
    else:
        yield from _seen(torch, devices)


def _wrong_build(torch: TorchReport, devices: list[Device], wanted: str) -> Finding:
    return error(
        f"torch {torch.version} was not built for {wanted}: it cannot use {_count(devices)}",
        evidence=f"torch.version.cuda is {torch.cuda}, torch.version.hip is {torch.hip}",
        advice=f"install the {wanted} build of the same version: {BUILDS}",
    )


def _old_driver(patient: Patient, torch: TorchReport) -> Finding | None:
    text = patient.system.read("/proc/driver/nvidia/version") or ""
    found = re.search(r"\b(\d{3})\.\d+(\.\d+)?\b", text)
    major = int((torch.cuda or "0").partition(".")[0]) if (torch.cuda or "0")[0].isdigit() else 0
    least = LEAST_DRIVER.get(major)
    if found is None or least is None or int(found[1]) >= least or torch.cuda_available:
        return None
    return error(
        f"driver {found[0]} is too old for CUDA {torch.cuda}, which torch was built for",
        evidence=f"/proc/driver/nvidia/version; CUDA {major} needs driver {least} or newer",
        advice=f"update the driver, or install a torch built for an older CUDA: {BUILDS}",
    )


def _seen(torch: TorchReport, devices: list[Device]) -> Iterator[Finding]:
    if torch.cuda_available is False:
        yield _not_available(torch, devices)
        return
    if torch.cuda_count is not None and torch.cuda_count < len(devices):
        yield warning(
            f"torch sees {torch.cuda_count} of {_count(devices)}",
            evidence="torch.cuda.device_count(); a process uses one slice of a partitioned card at most",
            advice="look at CUDA_VISIBLE_DEVICES; name the devices by UUID (see: ftwiz devices)",
        )
    strangers = [device for device in devices if not _is_built_for(device, torch)]
    if strangers:
        names = ", ".join(sorted({f"{device.name} ({device.architecture})" for device in strangers}))
        yield error(
            f"torch {torch.version} has no code for {names}",
            evidence=f"built for {' '.join(torch.arch_list)}",
            advice=f"install a torch whose build names {strangers[0].architecture}: {BUILDS}",
        )


def _is_built_for(device: Device, torch: TorchReport) -> bool:
    return device.architecture is None or not torch.arch_list or fits(device.architecture, torch.arch_list)


def _not_available(torch: TorchReport, devices: list[Device]) -> Finding:
    why = torch.cuda_why_not or ""
    known = next((reason for reason in REASONS if reason.pattern.search(why)), None)
    if known is None:
        return error(
            f"torch {_build(torch)} cannot use {_count(devices)}",
            evidence=why or "torch.cuda.is_available() is False",
            advice=f"compare the driver with the build of torch: {BUILDS}",
        )
    return error(known.what, evidence=why, advice=known.advice, command=known.command)


def _build(torch: TorchReport) -> str:
    built = f"CUDA {torch.cuda}" if torch.cuda else f"ROCm {torch.hip}" if torch.hip else None
    return f"{torch.version}, built for {built}" if built else f"{torch.version}"


def _sees(patient: Patient, torch: TorchReport) -> str:
    if torch.cuda_available and torch.cuda_count:
        return f", sees {torch.cuda_count} device{'s' if torch.cuda_count > 1 else ''}"
    return "" if patient.devices else "; nothing to see but the CPU"


def _weak_precision(devices: tuple[Device, ...]) -> Iterator[Finding]:
    weak = [device for device in devices if device.supports_bf16 is False]
    if weak:
        names = ", ".join(sorted({device.name for device in weak}))
        yield note(
            f"no bf16 in hardware: {names}",
            evidence=f"{_FIRST_BF16_TEXT}; torch's own check is also true for emulation"
            if weak[0].kind == "cuda"
            else None,
            advice="ftwiz does not plan bf16 there; do not pin it either",
        )


def _count(devices: list[Device]) -> str:
    names = sorted({device.name for device in devices})
    return f"{len(devices)} x {names[0]}" if len(names) == 1 else f"{len(devices)} devices"
