"""Asks torch about itself: a script of its own, run under a time limit; torch is never in our own process.

Prints one marked JSON line per question as soon as it is answered, so that a later question that hangs or
kills the process does not take the earlier answers along. Imports nothing of ftwiz.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

MARK = "ftwiz-answer "
COMPANIONS = ("torchvision", "torchaudio", "flash_attn", "bitsandbytes")
"""Packages with compiled code that must fit torch; transformers imports the first two when they are there."""


def answer(**values: object) -> None:
    """Print one answer."""
    print(MARK + json.dumps(values), flush=True)  # noqa: T201 - the line is the interface


def one_line(failure: BaseException) -> str:
    """Return what went wrong as one short line."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {' '.join(lines[:3])}"[:400]


def tried(question: Callable[[], object]) -> tuple[object, str | None]:
    """Return the answer to a question, or why there is none."""
    try:
        return question(), None
    except Exception as failure:  # noqa: BLE001 - whatever a broken stack raises is the answer
        return None, one_line(failure)


def ask_cuda(torch: Any) -> None:
    """Tell whether CUDA (or HIP, under the same name) works, and why not."""
    available, why = tried(torch.cuda.is_available)
    count, _ = tried(torch.cuda.device_count)
    if not available and why is None:
        _, why = tried(torch.cuda.init)
    driver, _ = tried(lambda: driver_version(torch))
    answer(cuda_available=bool(available), cuda_count=count, cuda_why_not=why, driver_cuda=driver)


def driver_version(torch: Any) -> object:
    """Return the newest CUDA version that the driver knows; torch has no public name for it."""
    return torch._C._cuda_getDriverVersion()  # noqa: SLF001


def arch_list(torch: Any) -> list[str]:
    """Return what the build has code for; torch.cuda.get_arch_list() is empty without a device."""
    return (torch._C._cuda_getArchFlags() or "").split()  # noqa: SLF001


def ask_backend(torch: Any, name: str) -> None:
    """Tell whether another backend of torch works: npu, xpu or mps."""
    backend = torch.backends.mps if name == "mps" else getattr(torch, name, None)
    if backend is None:
        return
    available, why = tried(backend.is_available)
    answer(**{f"{name}_available": bool(available), f"{name}_why_not": why})


def main() -> None:
    """Ask everything."""
    torch: Any
    torch, failure = tried(lambda: importlib.import_module("torch"))
    if torch is None:
        answer(import_failure=failure)
        return
    architectures, _ = tried(lambda: arch_list(torch))
    answer(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        arch_list=architectures or [],
    )
    ask_cuda(torch)
    if importlib.util.find_spec("torch_npu"):
        _, failure = tried(lambda: importlib.import_module("torch_npu"))
        if failure:
            answer(npu_available=False, npu_why_not=failure)
    for backend in ("npu", "xpu", "mps"):
        tried(partial(ask_backend, torch, backend))
    for companion in COMPANIONS:
        if importlib.util.find_spec(companion):
            _, failure = tried(partial(importlib.import_module, companion))
            answer(companion=companion, failure=failure)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # some drivers hang when the interpreter takes them down
