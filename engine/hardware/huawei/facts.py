"""What follows from the name that ``npu-smi`` gives a chip: architecture, bf16, and whether it trains.

Sources: the SoC table of torch_npu (NpuVariables.cpp: 910A, 910B without digit, 910ProA, 910ProB and
910PremiumA are one generation, 910B1 and so on the next), github.com/vllm-project/vllm-ascend/issues/9294 and
github.com/hiyouga/LlamaFactory/issues/4339 (no bf16 on the first), ms-swift's table of training products.
"""

import re
from dataclasses import dataclass

INFERENCE_ONLY = "an inference chip: torch_npu does not train on it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a chip. Unknown is ``None``."""

    architecture: str | None = None
    supports_bf16: bool | None = None
    trains: bool | None = None


_GENERATIONS: tuple[tuple[re.Pattern[str], bool | None, bool], ...] = (
    (re.compile(r"910(?:PremiumA|ProA|ProB|A|B)"), False, True),
    (re.compile(r"910B[1-9][0-9A-Z-]*"), True, True),
    (re.compile(r"910C|910_9[0-9A-Z]*|950[0-9A-Z_]*"), True, True),
    (re.compile(r"310"), False, False),
    (re.compile(r"310[PB][0-9]?"), None, False),
)
"""Name without ``Ascend``, bf16 in hardware, can be trained on."""
_A3 = "Ascend910"
"""A3's chips (910_93) call themselves no more than that; 910A writes a letter behind it."""
_A3_ARCHITECTURE = "Ascend910_93"


def facts(*names: str | None) -> Facts:
    """Return the facts of the first of several names that says what the chip is."""
    for name in names:
        if name == _A3:
            return Facts(architecture=_A3_ARCHITECTURE, supports_bf16=True, trains=True)
        short = short_name(name or "")
        for pattern, bf16, trains in _GENERATIONS:
            if pattern.fullmatch(short):
                return Facts(architecture=f"Ascend{short}", supports_bf16=bf16, trains=trains)
    return Facts()


def short_name(name: str) -> str:
    """Return ``910B3`` of ``Ascend 910B3``, ``Ascend910B3`` and ``910B3``."""
    return name.removeprefix("Ascend").strip()


def full_name(name: str) -> str:
    """Return the name with its family: ``Ascend 910B3``; a name that has it already stays as it is."""
    return name if name.startswith("Ascend") else f"Ascend {name}"
