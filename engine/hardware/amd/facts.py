"""What a gfx target can do, by what the instruction set has; sources are named at each table."""

import re
from dataclasses import dataclass

MATRIX_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""MFMA or WMMA instructions on bf16: AMD's CDNA 1 to 4 and RDNA 3 and 4 instruction set guides. torch answers
True on every AMD device (torch/cuda/__init__.py, is_bf16_supported) and emulates on the others."""
FP8 = ("gfx94", "gfx95", "gfx12")
"""torch/testing/_internal/common_cuda.py, evaluate_platform_supports_fp8 (gfx95: ROCm 6.5, gfx12: 6.3).
gfx94 has the FNUZ formats, the others the OCP ones."""
FLASH_ATTENTION_2 = ("gfx90a", "gfx942", "gfx950")
"""The architectures that flash-attention's setup.py lets its composable-kernel build have."""
FLASH_ATTENTION_2_BY_TRITON = ("gfx908", "gfx10", "gfx11", "gfx12")
"""flash-attention's Triton backend may run there; nobody promises it: unknown."""
INTEGRATED = (
    *("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103"),
    *("gfx1150", "gfx1151", "gfx1152", "gfx1153"),
)
"""GPUs inside a processor (LLVM, AMDGPUUsage, table of processors, type APU)."""
TRAINABLE_INTEGRATED = ("gfx1150", "gfx1151", "gfx1152", "gfx1153")
"""Those that ROCm gives the host's memory beyond the part that the BIOS sets aside."""
MI300A = 0x74A0
"""PCI device of the one gfx942 that shares its memory with the host."""
_DOUBLE_ZERO = re.compile(r"(gfx1[0-9][0-9])0([0-9a-f])$")
"""rocm-smi of ROCm 6.2 writes gfx11001 where it means gfx1101."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Abilities:
    """What can be said of a gfx target; ``None`` is unknown."""

    bf16: bool | None = None
    fp8: bool | None = None
    flash_attention_2: bool | None = None
    flash_attention_3: bool | None = None


def abilities(architecture: str | None) -> Abilities:
    """Return what a device with this gfx target can do."""
    if architecture is None:
        return Abilities()
    by_triton = architecture.startswith(FLASH_ATTENTION_2_BY_TRITON)
    return Abilities(
        bf16=architecture.startswith(MATRIX_BF16),
        fp8=architecture.startswith(FP8),
        flash_attention_2=True if architecture in FLASH_ATTENTION_2 else None if by_triton else False,
        flash_attention_3=False,  # Hopper only
    )


def architecture(text: str | None) -> str | None:
    """Return ``gfx942`` of ``gfx942:sramecc+:xnack-``, ``amdgcn-amd-amdhsa--gfx942`` or ``GFX942``."""
    found = re.search(r"gfx[0-9a-f]{3,6}", (text or "").lower())
    return None if found is None else _DOUBLE_ZERO.sub(r"\1\2", found[0])


def from_target_version(version: int) -> str | None:
    """Return the gfx target of the kernel's number: 90402 is gfx942, 90010 is gfx90a, 110001 is gfx1101."""
    major, minor, step = version // 10000, version // 100 % 100, version % 100
    return None if major == 0 else f"gfx{major}{minor:x}{step:x}"


def is_unified(target: str | None, device_id: int | None) -> bool:
    """Whether device and host share one memory."""
    return target in INTEGRATED or (target == "gfx942" and device_id == MI300A)
