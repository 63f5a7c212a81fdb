"""What a run's plan and job say, read leniently: a screen must open on a run of any version."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ...engine.rundir import RunFolder
from .view import Facts, Predicted

MAX_BYTES = 4 << 20


def read_facts(run: RunFolder) -> Facts:
    """Return what was planned; unknown is ``None``."""
    plan = _object(_load(run))
    strategy = _object(plan.get("strategy"))
    model, method, stage = _job(run)
    launch = plan.get("launch")
    is_command = isinstance(launch, list) and all(isinstance(word, str) for word in launch)
    return Facts(
        backend=_of(str, strategy.get("backend")),
        device_kind=_of(str, strategy.get("device_kind")),
        num_processes=_of(int, strategy.get("num_processes")),
        model=model,
        method=method,
        stage=stage,
        command=shlex.join(launch) if is_command and isinstance(launch, list) else None,
        flops_per_second=_flops(plan, strategy),
        predicted=_predicted(plan.get("predicted")),
    )


def _load(run: RunFolder) -> Any:
    try:
        if run.plan_file.stat().st_size > MAX_BYTES:
            return None
        return json.loads(run.plan_file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _job(run: RunFolder) -> tuple[str | None, str | None, str | None]:
    """Find model, method and stage among the first lines of job.yaml, without a YAML reader's import."""
    try:
        text = run.job_file.read_bytes()[:65536].decode("utf8", "replace")
    except OSError:
        return None, None, None
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if not colon or line.lstrip().startswith("#"):
            continue
        if key and not key[0].isspace():
            section = key.strip("\"' {")
        found.setdefault(f"{section}.{key.strip()}", value.split(" #")[0].strip().strip("\"'"))
    stage = found.get("stage.kind") or found.get("stage.stage")
    return found.get("model.name_or_path") or None, found.get("method.kind") or None, stage or None


def _flops(plan: Mapping[str, Any], strategy: Mapping[str, Any]) -> float | None:
    devices = _object(plan.get("machine")).get("devices")
    used = plan.get("device_indices")
    if not isinstance(devices, list) or not isinstance(used, list) or not used:
        return None
    each = [
        _object(device).get("dense_bf16_flops_per_second")
        for device in devices
        if _object(device).get("index") in used
    ]
    known = [float(value) for value in each if isinstance(value, int | float)]
    num = _of(int, strategy.get("num_processes")) or len(known)
    return sum(known) * num / len(known) if known and len(known) == len(each) else None


def _predicted(body: Any) -> Predicted | None:
    if not isinstance(body, dict):
        return None
    found = _object(body.get("groups")).items()
    groups = {str(name): size for name, size in found if type(size) is int and size > 0}
    speed = body.get("tokens_per_second")
    return Predicted(
        allocated_bytes=_of(int, body.get("allocated_bytes")),
        process_bytes=_of(int, body.get("process_bytes")),
        host_bytes=_of(int, body.get("host_bytes")),
        tokens_per_second=float(speed) if isinstance(speed, int | float) else None,
        groups=groups,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _of(wanted: type, value: Any) -> Any:
    return value if isinstance(value, wanted) and not isinstance(value, bool) else None
