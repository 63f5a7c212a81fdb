"""Trace one case: ``python tools/trace_case.py MODEL key=value ...``, MODEL from the catalogue or a folder.

Keys are the fields of a Workload (``sequence_tokens=4096 method=lora checkpointing=none``), those of its
parts with a dot (``adapter.rank=8 quantization.kind=nf4 sharding.backend=fsdp``), and ``whole=true``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from ftwiz.engine.exact.run import ask
from ftwiz.engine.exact.wire import workload_from_json
from ftwiz.engine.models import catalogue

PARTS = ("adapter", "quantization", "sharding", "stack")


def main() -> None:
    """Print the phases of the case."""
    name, *pairs = sys.argv[1:]
    values: dict[str, Any] = {"sequence_tokens": 2048}
    for pair in pairs:
        key, _, text = pair.partition("=")
        part, _, field = key.rpartition(".")
        place = values.setdefault(part, {}) if part in PARTS else values
        place[field if part in PARTS else key] = yaml.safe_load(text)
    whole = bool(values.pop("whole", False))
    as_json = bool(values.pop("json", False))
    if values.get("method", "lora") == "lora":
        values.setdefault("adapter", {})
    config = _config(name)
    values["model_type"] = config["model_type"]
    result = ask(workload_from_json(values), config, whole=whole)
    print(json.dumps(result, indent=1) if as_json else _table(result))


def _config(name: str) -> dict[str, Any]:
    file = Path(name) / "config.json"
    if file.is_file():
        config: dict[str, Any] = json.loads(file.read_bytes())
        return config
    model = catalogue.find(name)
    if model is None:
        sys.exit(f"error: {name}: neither a folder nor in the catalogue")
    return dict(model.config)


def _table(result: dict[str, Any]) -> str:
    gib = 1 << 30
    lines = []
    for phase, peak in result["phases"].items():
        groups = "  ".join(f"{group} {value / gib:.3f}" for group, value in peak["groups"].items())
        lines.append(f"{phase:15} {peak['bytes'] / gib:9.3f} GiB   {groups}")
    top = max(result["phases"].values(), key=lambda peak: peak["bytes"])
    lines += [
        f"   {num / gib:9.4f} GiB  {count:5} x {what} ({group})" for what, count, num, group in top["biggest"]
    ]
    lines.append(
        f"allocated {result['allocated_bytes'] / gib:.3f}  reserved {result['reserved_bytes'] / gib:.3f}"
    )
    lines.append(f"layers {result['layers']} traced {result['traced_layers']} {result['seconds']}")
    return "\n".join([*lines, *result["notes"], f"peak rss {result['peak_rss_bytes'] / gib:.2f} GiB"])


if __name__ == "__main__":
    main()
