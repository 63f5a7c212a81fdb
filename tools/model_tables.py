"""Write the tables that engine/models reads: transformers' defaults, and the catalogue of models.

python tools/model_tables.py defaults            needs the training stack
python tools/model_tables.py catalogue CORPUS    needs the folder with models.json
"""

import json
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

ROOM = Path(__file__).resolve().parent.parent / "engine" / "models"
KEPT = (
    "family",
    "size_label",
    "torch_dtype",
    "license",
    "license_basis",
    "gated",
    "gated_basis",
)


def main() -> None:
    """Write one table."""
    if sys.argv[1:] == ["defaults"]:
        _write(ROOM / "defaults.json", _defaults())
    elif len(sys.argv) == 3 and sys.argv[1] == "catalogue":  # noqa: PLR2004 - a word and a folder
        _write(ROOM / "catalogue.json", _catalogue(Path(sys.argv[2]) / "models.json"))
    else:
        sys.exit(__doc__)


def _defaults() -> dict[str, Any]:
    """Return what transformers takes a key for that a config.json leaves out."""
    import transformers  # noqa: PLC0415 - only this table needs the stack

    from ftwiz.engine.models.families import model_types  # noqa: PLC0415 - the same

    source = "\n".join(path.read_text(encoding="utf8") for path in ROOM.glob("*.py"))
    read = set(re.findall(r'"(\w+)"', source))
    auto = transformers.AutoConfig
    known = transformers.CONFIG_MAPPING
    todo = {name: known[name] for name in model_types() if name in known}
    values: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    while todo:
        name, kind = todo.popitem()
        values[name] = {
            field.name: _plain(field.default)
            for field in fields(kind)
            if field.name in read and field.default not in (MISSING, None)
        }
        for section, part in (getattr(kind, "sub_configs", None) or {}).items():
            actual = type(getattr(kind(), section, None)) if part is auto else part
            if not hasattr(actual, "model_type"):
                continue
            found = {"type": actual.model_type, "is_open": part is auto}
            sections.setdefault(name, {})[section] = found
            if actual.model_type not in values:
                todo[actual.model_type] = actual
    return {"transformers": transformers.__version__, "sections": sections, "values": values}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _catalogue(path: Path) -> dict[str, Any]:
    rows = json.loads(path.read_bytes())
    return {"models": [_row(row) for row in rows]}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"id": row["id"], "aliases": row["aliases"]}
    found |= {name: _public(row[name]) for name in KEPT if row[name] is not None}
    found["num_parameters"] = row["params_meta"]
    if row["config_is_surrogate"]:
        found["is_surrogate"] = True
    found["sources"] = [_public(source) for source in row["source"]]
    found["config"] = _facts(row["config"])
    return found


def _public(value: Any) -> Any:
    """Leave out the numbers of look-ups that nobody else can follow."""
    return re.sub(r",?\s*\b\w+ id \d{8,}", "", value).strip() if isinstance(value, str) else value


USELESS = re.compile(
    r"(\w*_token_id|\w*_token_index|\w*_dropout|initializer_range|\w*_eps|\w*_epsilon|hidden_act\w*|use_cache"
    r"|auto_map|rope_\w+|transformers_version|torch_dtype|dtype|\w*_pdrop|pretraining_tp|routed_scaling_factor"
    r"|activation_sparsity_pattern|quantization_config|\w*aux_loss\w*|output_router_logits|label_names"
    r"|\w*softcapping|embedding_multiplier|residual_multiplier|logits_scaling|attention_multiplier"
    r"|time_step_(min|max|floor|limit)|mscale\w*|compress_rope_theta)"
)
"""Keys that change neither a shape nor a count of bytes."""


def _facts(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _facts(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not USELESS.fullmatch(key)
    }


def _short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _write(path: Path, table: dict[str, Any]) -> None:
    """One row per line: small, and a change is read as one."""
    lines = []
    for key, part in table.items():
        if isinstance(part, list):
            rows = ",\n".join(_short(row) for row in part)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        elif isinstance(part, dict):
            rows = ",\n".join(f"{json.dumps(k)}:{_short(v)}" for k, v in sorted(part.items()))
            lines.append(f"{json.dumps(key)}: {{\n{rows}\n}}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(part)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf8")
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
