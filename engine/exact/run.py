"""Asks the tracing process one question, under a time limit."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import BadInput, ExitCode, Refused
from ..specs.workload import Workload
from .wire import workload_to_json

TIME_LIMIT_SECONDS = 120.0
_MODULE = f"{__package__.rpartition('.')[0]}.trace"
_SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    "TORCHDYNAMO_DISABLE": "1",  # bitsandbytes compiles while it is imported, which takes seconds
}


def ask(
    workload: Workload,
    config: Mapping[str, Any],
    *,
    whole: bool = False,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> dict[str, Any]:
    """Return the answer of ``python -m ftwiz.engine.trace``.

    Args:
        workload: What is trained how.
        config: The contents of the model's config.json.
        whole: Trace every layer instead of extrapolating from two depths.
        time_limit_seconds: The process is ended after this.

    Raises:
        BadInput: The configuration or the workload is wrong.
        Refused: The stack is missing, the model cannot be built, or it takes too long.
    """
    request = {"workload": workload_to_json(workload), "config": dict(config), "whole": whole}
    try:
        done = subprocess.run(
            [sys.executable, "-m", _MODULE],
            input=json.dumps(request),
            env={**os.environ, **_SURROUNDINGS},
            capture_output=True,
            text=True,
            timeout=time_limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(
            f"the exact estimate took more than {time_limit_seconds:.0f} s",
            hint="use the estimate without --exact",
        ) from error
    except (OSError, TypeError, ValueError) as error:
        raise Refused(f"the exact estimate cannot be asked: {error}") from error
    return _read(done)


def _read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = done.stdout.strip().splitlines()
    try:
        result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        result = {}
    if done.returncode == 0 and "phases" in result:
        return result
    kind = BadInput if done.returncode == ExitCode.BAD_INPUT else Refused
    raise kind(
        str(result.get("error") or f"the exact estimate failed: {_last_line(done)}"),
        hint=result.get("hint") or "use the estimate without --exact",
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return " ".join(lines[-1].split())[:200] if lines else f"exit code {done.returncode}"
