"""What an export takes on host and disk, said and checked before anything is loaded."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput, FtwizError, Refused
from ..hardware.host import read_host
from ..job.local_models import find_cached, hub_cache
from ..job.model_folder import read_config
from ..models import spec_from_config
from .source import FSDP_SHARDS, Form, Source
from .wanted import DTYPE_BYTES

GIB = 1 << 30
_FLOAT32 = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Bytes that an export takes; unknown is ``None``. The libraries themselves are not counted."""

    host_bytes: int | None
    disk_bytes: int | None
    host_formula: str
    """How the bytes on the host come about."""

    def check(self, output: Path) -> None:
        """Make sure that the host and the disk of ``output`` have room.

        Raises:
            Refused: One of them has not; the message has both figures.
        """
        available = read_host().available_bytes
        if self.host_bytes is not None and available is not None and self.host_bytes > available:
            raise Refused(
                f"the export takes {_gib(self.host_bytes)} of host memory ({self.host_formula}), "
                f"and {_gib(available)} are available",
                hint="stop what else runs here, or take --dtype bf16, --adapter-only or a larger host",
            )
        free = shutil.disk_usage(output).free
        if self.disk_bytes is not None and self.disk_bytes > free:
            raise Refused(
                f"the export takes {_gib(self.disk_bytes)}, and {_gib(free)} are free on {output}",
                hint="free space, take --dtype bf16 or --adapter-only, or choose another disk with -o",
            )


def base_config(model: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config.json of the base, local or in the Hugging Face cache; ``None`` when not there."""
    name = str(model["name_or_path"])
    if name.startswith("/"):
        folder: Path | None = Path(name)
    else:
        cached = find_cached(hub_cache(os.environ), name, revision=model.get("revision"))
        folder = cached.folder if cached else None
    return None if folder is None else _config(folder)


def stored_dtype(source: Source, base: Mapping[str, Any] | None) -> str:
    """Return the format that nothing is lost in: an adapter's base's, or the one that was trained.

    What is put together from parts is float32: engines keep what they train in that.
    """
    if source.form.is_shared_out and base is None:
        return "float32"
    config = base if source.form is not Form.WHOLE else _config(source.folder)
    found = (config or {}).get("dtype") or (config or {}).get("torch_dtype")
    return str(found) if found in DTYPE_BYTES else "float32"


def check_base(base: Mapping[str, Any] | None, name: str) -> None:
    """Make sure that a base's weights can be merged into.

    Raises:
        Refused: They are published packed in few bits.
    """
    packing = (base or {}).get("quantization_config")
    if packing:
        kind = packing.get("quant_method", "packed") if isinstance(packing, dict) else "packed"
        raise Refused(
            f"{name}: its weights are published packed ({kind}), and an adapter is never merged into such",
            hint="export the adapter with --adapter-only, or merge it into the unpacked model of that family",
        )


def check_checkpoint(method: Mapping[str, Any], run_id: str) -> None:
    """Make sure that a checkpoint's adapter fits the base as it was published.

    Raises:
        Refused: It is PiSSA's, which fits only what is left of the base, until the run has ended.
    """
    if str(method.get("init_lora_weights")).startswith("pissa"):
        raise Refused(
            "a checkpoint of PiSSA holds an adapter that does not fit the base as it was published",
            hint=f"its trained model does: ftwiz resume {run_id}, then export without --checkpoint",
        )


def needs_of(source: Source, base: Mapping[str, Any] | None, *, dtype: str, adapter_only: bool) -> Need:
    """Return what an export takes.

    Args:
        source: What is exported.
        base: Configuration of the base; ``None`` when it is not known.
        dtype: torch's name of the format that is written.
        adapter_only: Nothing of the base is loaded.
    """
    trained = sum(path.stat().st_size for path in weight_files(source))
    if adapter_only:
        return Need(host_bytes=trained, disk_bytes=trained, host_formula="the adapter")
    config = _config(source.folder) if source.form is Form.WHOLE else base
    count = _num_parameters(config)
    if count is None:
        return Need(host_bytes=None, disk_bytes=None, host_formula="the model's size is not known")
    weights = count * DTYPE_BYTES[dtype]
    formula = f"{count:,} weights x {DTYPE_BYTES[dtype]} B"
    if source.form is Form.ZERO:  # the optimizer's parts hold more than the weights
        trained, beside = count * _FLOAT32, "as many x 4 B in parts"
    else:
        beside = "the adapter" if source.form is Form.ADAPTER else "the parts"
    if source.form is Form.WHOLE:
        return Need(host_bytes=weights, disk_bytes=weights, host_formula=formula)
    return Need(host_bytes=weights + trained, disk_bytes=weights, host_formula=f"{formula} + {beside}")


def weight_files(source: Source) -> list[Path]:
    """Return the files that hold the weights of a source."""
    patterns = {
        Form.ADAPTER: "adapter_model.safetensors",
        Form.WHOLE: "model*.safetensors",
        Form.FSDP_SHARDS: f"{FSDP_SHARDS}/*.distcp",
        Form.ZERO: "global_step*/*optim_states.pt",
    }
    return sorted(source.folder.glob(patterns[source.form]))


def _num_parameters(config: Mapping[str, Any] | None) -> int | None:
    if config is None:
        return None
    plain = {key: value for key, value in config.items() if key != "auto_map"}
    try:
        parameters = spec_from_config(plain, where="config.json").parameters
    except FtwizError:
        return None
    return None if parameters is None else parameters.groups.num_total


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(json.dumps(read_config(folder / "config.json"), default=str))
    except (BadInput, OSError):
        return None
    return found


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB"
