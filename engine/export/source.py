"""Finds out what there is to export, a run's trained model or a checkpoint, and in which form it lies."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..checkpoints import MANIFEST, list_checkpoints, verify
from ..errors import BadInput, Refused
from ..rundir import RunFolder

FSDP_SHARDS = "pytorch_model_fsdp_0"
"""Name of accelerate 1.15 (utils/fsdp_utils.py, ``save_fsdp_model``)."""


class Form(StrEnum):
    """How weights lie in a folder."""

    ADAPTER = "adapter"
    WHOLE = "whole"
    FSDP_SHARDS = "fsdp-shards"
    """A part for each rank, in torch's distributed format; of an adapter run the adapter alone."""
    ZERO = "zero"
    """A part for each rank, in DeepSpeed's format, with all weights in float32."""

    @property
    def is_shared_out(self) -> bool:
        """Whether the weights have to be put together before they are a model's."""
        return self not in {Form.ADAPTER, Form.WHOLE}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is exported."""

    folder: Path
    form: Form
    name: str
    """``model``, or the checkpoint's name."""


def find_source(run: RunFolder, checkpoint: str | None, *, in_float32: bool = False) -> Source:
    """Return what a run has to export: its trained model, or the checkpoint of that name when it is whole.

    Args:
        run: The run.
        checkpoint: Name of a folder in ``checkpoints``, or ``None``.
        in_float32: Prefer what an engine keeps in float32 to a rounded copy beside it.

    Raises:
        BadInput: There is no such checkpoint, or it is not whole.
        Refused: The run left no model, or in a form that cannot be read.
    """
    if checkpoint is not None:
        folder = _checked(run, checkpoint)
    elif run.final_model.is_dir():
        folder = run.final_model
    else:
        raise _without_model(run)
    form = _form(folder, in_float32=in_float32)
    if form is None:
        raise Refused(
            f"{folder}: holds no weights that can be exported",
            hint=_instead(run, folder) or "see: ftwiz logs",
        )
    return Source(folder=folder, form=form, name=folder.name)


def _checked(run: RunFolder, name: str) -> Path:
    folders = {folder.name: folder for folder in list_checkpoints(run.checkpoints)}
    if name not in folders:
        known = ", ".join(folders) or "none"
        raise BadInput(f"{run.id} has no checkpoint {name!r}", hint=f"checkpoints of this run: {known}")
    if reason := verify(folders[name]):
        others = [other for other in _finished(run) if other != name]
        raise BadInput(
            f"{name}: not a whole checkpoint: {reason}",
            hint=f"export another one: {', '.join(others)}" if others else "no other one was finished",
        )
    return folders[name]


def _finished(run: RunFolder) -> list[str]:
    return [folder.name for folder in list_checkpoints(run.checkpoints) if (folder / MANIFEST).is_file()]


def _without_model(run: RunFolder) -> Refused:
    names = _finished(run)
    if names:
        hint = f"export its newest checkpoint: --checkpoint {names[0]}"
    else:
        hint = f"it has no checkpoint either; let it train to its end: ftwiz resume {run.id}"
    return Refused(f"{run.id} has no trained model: it did not get to its end", hint=hint)


def _form(folder: Path, *, in_float32: bool) -> Form | None:
    if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file():
        return Form.ADAPTER
    has_zero = (folder / "latest").is_file() and any(folder.glob("global_step*/*optim_states.pt"))
    is_whole = any((folder / f"model.safetensors{ending}").is_file() for ending in ("", ".index.json"))
    if has_zero and (in_float32 or not is_whole):
        return Form.ZERO
    if is_whole:
        return Form.WHOLE
    return Form.FSDP_SHARDS if (folder / FSDP_SHARDS / ".metadata").is_file() else None


def _instead(run: RunFolder, folder: Path) -> str | None:
    if folder != run.final_model and run.final_model.is_dir():
        return "export the trained model: without --checkpoint"
    others = [name for name in _finished(run) if name != folder.name]
    return f"export another checkpoint: --checkpoint {others[0]}" if others else None
