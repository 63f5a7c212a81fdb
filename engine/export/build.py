"""Loads what was trained, merges or converts it, and writes it as Hugging Face does. Torch lives here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BadInput, Refused
from ..stages import rm
from ..stages.building import adapter
from ..stages.chat import fit_template
from ..stages.methods import CONFIGS
from ..worker.loading import load_model, load_tokenizer, locate
from . import parts
from .source import Form
from .wanted import Wanted

Narrate = Callable[[str], None]


def build(wanted: Wanted, narrate: Narrate) -> dict[str, Any]:
    """Write the files of an export into ``wanted.output``; return what was written.

    Raises:
        BadInput: A model or tokenizer cannot be loaded.
        Refused: It cannot be merged, or does not fit into the number format.
    """
    narrate("importing the training stack")
    tokenizer = _tokenizer(wanted, narrate)
    if wanted.adapter_only:
        _write_adapter(wanted, narrate)
    else:
        model = _model(wanted, narrate)
        if model.config.pad_token_id is None:  # a reward model looks for the last token before the padding
            model.config.pad_token_id = tokenizer.pad_token_id
        _check_finite(model, wanted)
        narrate(f"writing {wanted.dtype} weights in shards of at most {wanted.shard_size}")
        model.save_pretrained(wanted.output, max_shard_size=wanted.shard_size)
    tokenizer.save_pretrained(wanted.output)
    files = sorted(Path(wanted.output).iterdir())
    return {
        "files": [file.name for file in files],
        "num_bytes": sum(file.stat().st_size for file in files),
        "num_shards": sum(file.suffix == ".safetensors" for file in files),
    }


def _model(wanted: Wanted, narrate: Narrate) -> Any:
    """Return the whole model in the wanted format."""
    form = Form(wanted.form)
    if form is Form.ADAPTER or (form.is_shared_out and wanted.method["kind"] in CONFIGS):
        return _merged(wanted, narrate)
    section = {**wanted.model, "dtype": wanted.dtype}
    if form is Form.WHOLE:
        narrate(f"loading {wanted.folder}")
        return load_model({**section, "revision": None}, wanted.folder, gives_rewards=_gives_rewards(wanted))
    narrate(f"putting together the parts of {wanted.folder}")
    weights = parts.read(form, Path(wanted.folder))
    return parts.model_of(weights, section, locate(section, narrate), gives_rewards=_gives_rewards(wanted))


def _merged(wanted: Wanted, narrate: Narrate) -> Any:
    """Return the base, never packed, with the adapter in its weights."""
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict

    section = {**wanted.model, "dtype": wanted.dtype}
    where = locate(section, narrate)
    narrate(f"loading {section['name_or_path']} in {wanted.dtype}")
    base = load_model(section, where, gives_rewards=_gives_rewards(wanted))
    narrate("merging the adapter")
    if wanted.form == Form.ADAPTER:
        wrapped = PeftModel.from_pretrained(base, wanted.folder)
    else:
        wrapped = get_peft_model(base, _adapter_config(wanted))
        weights = parts.read(Form(wanted.form), Path(wanted.folder))
        loaded = set_peft_model_state_dict(wrapped, weights)
        if loaded.unexpected_keys:
            raise Refused(f"{wanted.folder}: weights of another adapter: {loaded.unexpected_keys[0]}")
    try:
        return wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise Refused(
            f"peft cannot merge this adapter: {' '.join(str(error).split())[:240]}",
            hint="export it beside its base with --adapter-only",
        ) from error


def _write_adapter(wanted: Wanted, narrate: Narrate) -> None:
    import torch
    from peft import PeftConfig
    from safetensors.torch import load_file, save_file

    narrate(f"writing the adapter in {wanted.dtype}")
    folder = Path(wanted.folder)
    if wanted.form == Form.ADAPTER:
        config = PeftConfig.from_pretrained(wanted.folder)
        weights = load_file(folder / "adapter_model.safetensors")
    else:
        config, weights = _adapter_config(wanted), parts.read(Form(wanted.form), folder)
    config.base_model_name_or_path = wanted.model["name_or_path"]
    config.revision = wanted.model["revision"]
    config.inference_mode = True
    dtype = getattr(torch, wanted.dtype)
    ready = {
        name: one.to(dtype).contiguous() if one.is_floating_point() else one for name, one in weights.items()
    }
    save_file(ready, Path(wanted.output) / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(wanted.output)


def _adapter_config(wanted: Wanted) -> Any:
    return adapter(wanted.method, "SEQ_CLS" if _gives_rewards(wanted) else "CAUSAL_LM")


def _tokenizer(wanted: Wanted, narrate: Narrate) -> Any:
    tokenizer = load_tokenizer(wanted.model, locate({"name_or_path": wanted.tokenizer}, narrate))
    fit_template(tokenizer, narrate)
    return tokenizer


def _gives_rewards(wanted: Wanted) -> bool:
    return wanted.stage == rm.NAME


def _check_finite(model: Any, wanted: Wanted) -> None:
    """float16 ends at 65504; what is larger would be infinite without a word."""
    bad = next((name for name, one in model.named_parameters() if not one.isfinite().all()), None)
    if bad is not None and wanted.dtype == "float16":
        raise Refused(f"{bad}: does not fit into float16", hint="take --dtype bf16 or fp32")
    if bad is not None:
        raise BadInput(f"{bad}: is not finite: the training went wrong", hint="export an earlier checkpoint")
