"""What NVIDIA's numbers mean: compute capability, failure codes, clock limits, shared memory. Pure."""

import re
from dataclasses import replace

from ...specs.machine import Device, Problem

VENDOR = "nvidia"
KIND = "cuda"
UNNAMED = "NVIDIA device"

FIRST_BF16 = (8, 0)
"""Ampere. torch.cuda.is_bf16_supported() is also true on older cards, which emulate it slowly."""
FIRST_FLASH_ATTENTION_2 = (8, 0)
"""flash-attn 2 is built for 8.0, 9.0, 10.0, 11.0, 12.0, which run on cards between; Turing has version 1."""
FLASH_ATTENTION_3 = (9, 0)
"""Its authors name Hopper as requirement. Some builds add 8.0 and 8.7; none runs on 8.6, 8.9 or Blackwell."""
FIRST_FP8 = (8, 9)
"""Ada: the first tensor cores with E4M3 and E5M2."""

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, NOT_LOADED, NO_LIBRARY = 3, 4, 6, 9, 12
LOST, RESET_REQUIRED, MISMATCH, NO_RESOURCES, GONE, UNKNOWN = 15, 16, 18, 23, 28, 999

FAILURES: dict[int, tuple[str, str]] = {
    NOT_SUPPORTED: (
        "not supported",
        "this platform does not support NVML: use the nvidia-smi and driver that came with it",
    ),
    NO_PERMISSION: (
        "no permission",
        "let this user open /dev/nvidia* (group video, the batch system's or the container's device rules)",
    ),
    NOT_LOADED: (
        "the driver is not loaded",
        "load it with `modprobe nvidia`; after a kernel update reinstall the driver (dkms status) and reboot",
    ),
    NO_LIBRARY: (
        "libnvidia-ml.so.1 is not here",
        "install the NVIDIA driver, or run ldconfig if nvidia-smi works; start a container with `--gpus all`",
    ),
    LOST: (
        "the card is lost",
        "it fell off the bus: look for `Xid` in dmesg, reboot or power-cycle; leave the card out until then",
    ),
    RESET_REQUIRED: (
        "the card needs a reset",
        "end its processes and run `nvidia-smi --gpu-reset` as root, or reboot",
    ),
    MISMATCH: (
        "driver and library have different versions",
        "the driver was upgraded while loaded: reboot; in a container restart it",
    ),
    NO_RESOURCES: (
        "insufficient resources",
        "the container or batch job may not reach it (cgroup devices), or other jobs hold all its resources",
    ),
    GONE: (
        "the card is gone",
        "the hardware fell off the bus: look for `Xid` in dmesg, reboot or power-cycle",
    ),
    UNKNOWN: (
        "unknown error",
        "a container loses its devices at `systemctl daemon-reload`: restart it; elsewhere see dmesg",
    ),
}
"""NVML's return codes that a user can do something about: what it is, and what to do."""

_SAID = (
    (re.compile(r"couldn't communicate with the NVIDIA driver", re.IGNORECASE), NOT_LOADED),
    (re.compile(r"driver/library version mismatch", re.IGNORECASE), MISMATCH),
    (re.compile(r"driver not loaded", re.IGNORECASE), NOT_LOADED),
    (re.compile(r"gpu is lost|unable to determine the device handle", re.IGNORECASE), LOST),
    (re.compile(r"requires reset|reset required", re.IGNORECASE), RESET_REQUIRED),
    (re.compile(r"insufficient permissions|no permission", re.IGNORECASE), NO_PERMISSION),
    (re.compile(r"insufficient (external )?(resources|power)", re.IGNORECASE), NO_RESOURCES),
    (re.compile(r"initialize NVML: not supported", re.IGNORECASE), NOT_SUPPORTED),
    (re.compile(r"unknown error", re.IGNORECASE), UNKNOWN),
)
"""How nvidia-smi words the same failures."""

_EVENTS = (
    ("power", 0x004 | 0x080),
    ("heat", 0x020 | 0x040),
)
_HARDWARE_SLOWDOWN = 0x008
_UNIFIED = re.compile(r"\b(GB10|N1X?|Tegra|Xavier|Orin|Thor|Jetson)\b", re.IGNORECASE)


def problem(code: int, call: str, *, source: str = "NVML", evidence: str = "") -> Problem:
    """Return a failure in one line, with what to do about it."""
    what, advice = FAILURES.get(code, ("it failed", None))
    tail = f"; {evidence}" if evidence else ""
    return Problem(source=source, message=f"{source} {call}: {what} (code {code}){tail}", advice=advice)


def code_of(said: str) -> int | None:
    """Return the NVML code that a message of nvidia-smi stands for."""
    return next((code for pattern, code in _SAID if pattern.search(said)), None)


def with_capability(device: Device, capability: tuple[int, int] | None) -> Device:
    """Return a device with what its compute capability tells; as it is when that is unknown."""
    if capability is None:
        return device
    return replace(
        device,
        architecture=f"sm_{capability[0]}{capability[1]}",
        supports_bf16=capability >= FIRST_BF16,
        supports_fp8=capability >= FIRST_FP8,
        supports_flash_attention_2=capability >= FIRST_FLASH_ATTENTION_2,
        supports_flash_attention_3=capability == FLASH_ATTENTION_3,
    )


def throttle_reasons(bits: int | None) -> tuple[str, ...]:
    """Return why the clock is held back, from NVML's clocks event reasons.

    Idle and application clocks are somebody's wish, not a limit. The hardware bit comes with a cause of its
    own (heat, power brake), or alone.
    """
    if not bits:
        return ()
    found = [word for word, mask in _EVENTS if bits & mask]
    if bits & _HARDWARE_SLOWDOWN and not bits & (0x040 | 0x080):
        found.append("hardware")
    return tuple(found)


def has_unified_memory(name: str, *, is_memory_unknown: bool, machine: str) -> bool:
    """Whether a device has no memory of its own, by its name, or by a silent driver on an ARM board.

    GH200 and GB200 answer with their own HBM and are no such case.
    """
    return bool(_UNIFIED.search(name)) or (is_memory_unknown and machine == "aarch64")
