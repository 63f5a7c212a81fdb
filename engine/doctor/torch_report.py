"""What the installed torch says of itself, asked in a short-lived process of its own."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..hardware.system import System, ToolError
from .ask_torch import MARK

_SCRIPT = Path(__file__).with_name("ask_torch.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchReport:
    """Answers of torch; what was not answered is ``None``."""

    is_installed: bool = True
    failure: str | None = None
    """Why it did not answer to the end: one line."""
    version: str | None = None
    cuda: str | None = None
    """CUDA version that it was built for; ``None`` in builds for CPU or ROCm."""
    hip: str | None = None
    arch_list: tuple[str, ...] = ()
    """``sm_90``, ``compute_90`` (PTX), ``gfx942``."""
    cuda_available: bool | None = None
    cuda_count: int | None = None
    cuda_why_not: str | None = None
    driver_cuda: int | None = None
    """Newest CUDA version that the driver knows, as 12040 for 12.4."""
    npu_available: bool | None = None
    npu_why_not: str | None = None
    xpu_available: bool | None = None
    xpu_why_not: str | None = None
    mps_available: bool | None = None
    mps_why_not: str | None = None
    companions: tuple[tuple[str, str | None], ...] = ()
    """Of each installed package with code compiled for torch, why it cannot be imported, or ``None``."""


def ask(system: System, *, seconds: float, python: str = sys.executable) -> TorchReport:
    """Ask the torch that ``python`` would train with.

    Args:
        system: Whose environment the process gets.
        seconds: When to give up; what was answered until then is kept.
        python: The interpreter that starts the ranks.
    """
    if python == sys.executable and find_spec("torch") is None:
        return TorchReport(is_installed=False)
    try:
        # -P: neither the folder of the script nor the current one may put its files before torch's.
        return read(system.run(python, "-P", str(_SCRIPT), seconds=seconds))
    except ToolError as error:
        return read(error.output, failure=_why(error, seconds))


def read(text: str, *, failure: str | None = None) -> TorchReport:
    """Return the report in what the process printed; lines that are not answers are passed over."""
    values: dict[str, Any] = {}
    companions: dict[str, str | None] = {}
    for answer in _answers(text):
        if isinstance(answer.get("companion"), str):
            companions[answer["companion"]] = _text(answer.get("failure"))
        else:
            values |= answer
    arch_list = values.get("arch_list")
    return TorchReport(
        failure=_text(values.get("import_failure")) or failure,
        version=_text(values.get("version")),
        cuda=_text(values.get("cuda")),
        hip=_text(values.get("hip")),
        arch_list=tuple(map(str, arch_list)) if isinstance(arch_list, list) else (),
        cuda_available=_truth(values.get("cuda_available")),
        cuda_count=_count(values.get("cuda_count")),
        cuda_why_not=_text(values.get("cuda_why_not")),
        driver_cuda=_count(values.get("driver_cuda")),
        npu_available=_truth(values.get("npu_available")),
        npu_why_not=_text(values.get("npu_why_not")),
        xpu_available=_truth(values.get("xpu_available")),
        xpu_why_not=_text(values.get("xpu_why_not")),
        mps_available=_truth(values.get("mps_available")),
        mps_why_not=_text(values.get("mps_why_not")),
        companions=tuple(companions.items()),
    )


def _why(error: ToolError, seconds: float) -> str:
    if error.hangs:
        return f"no answer in {seconds:g} s"
    why = error.why.partition(":")[0]
    killed = re.fullmatch(r"exit code -(\d+)", why)
    if killed:
        why = f"killed by signal {killed[1]}"
    said = [line.strip() for line in error.output.splitlines() if line.strip() and MARK not in line]
    return f"{why}: {said[-1][:200]}" if said else why


def _answers(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        _, mark, body = line.partition(MARK)  # a library's unfinished line may stand before it
        if not mark:
            continue
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            continue
        if isinstance(answer, dict):
            yield answer


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
