"""What a training file says of its engine by way of another: ``deepspeed:``, ``fsdp:``, ``fsdp_config:``."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ..errors import BadInput, Refused
from ..job.files import shown, shown_path
from ..job.tree import Node
from .deepspeed import OWN_FILES
from .formats import DEEPSPEED, FSDP_OPTIONS, Format
from .reading import find, read_foreign
from .rows import How
from .sheet import Sheet, Taken, change_of, translate

_FORMATS: dict[str, Format] = {
    "deepspeed": DEEPSPEED,
    "deepspeed_config_file": DEEPSPEED,
    "fsdp_config": FSDP_OPTIONS,
}
_FSDP_WORDS: dict[str, dict[str, object]] = {
    "full_shard": {"plan.reshard_after_forward": True},
    "shard_grad_op": {"plan.reshard_after_forward": False},
    "offload": {"plan.offload_parameters": "cpu"},
    "auto_wrap": {},
    "true": {},
}
"""Words of ``fsdp:`` (transformers 4.x training_args.py, ``FSDPOption``) and what they pin."""


def follow(sheet: Sheet, path: Path, *, without: Collection[str] = ()) -> list[Sheet]:
    """Import what a file names or holds of its engine.

    Args:
        sheet: The file; notes and problems are put there.
        path: Where it lies.
        without: Keys that the user chose to go without.
    """
    found = []
    for one in sheet.follows:
        name = one.key.rsplit(".", 1)[-1]
        if one.value in ("", [], False):
            _note(sheet, one, How.DROP, "the same without it")
        elif name == "fsdp":
            found.append(_fsdp_words(sheet, one))
        elif isinstance(one.node.value, dict):
            _note(sheet, one, How.FOLLOW, "its keys follow")
            found.append(translate(one.node, _FORMATS[name], without=without))
        elif isinstance(one.value, str):
            found.append(_file(sheet, one, path, without))
        else:
            sheet.problems.append(BadInput(f"{one.said} is a file or keys; got {shown(one.value)}"))
    return found


def _file(sheet: Sheet, one: Taken, path: Path, without: Collection[str]) -> Sheet:
    """Read the file that is named; LLaMA-Factory's own ones are known without it."""
    form = _FORMATS[one.key.rsplit(".", 1)[-1]]
    name = str(one.value)
    place = find(name, path)
    if place is not None:
        _note(sheet, one, How.FOLLOW, f"read from {shown_path(place)}")
        return translate(read_foreign(place, form).root, form, without=without)
    own = OWN_FILES.get(name.rsplit("/", 1)[-1]) if form is DEEPSPEED else None
    if own is None:
        sheet.problems.append(
            BadInput(
                f"{one.said}: there is no {shown_path(name)}, neither beside the file nor above it",
                hint=f"put it there, or go without it: --drop {one.key}",
            )
        )
        own = {}
    else:
        said = ", ".join(f"{key}: {value}" for key, value in own.items())
        _note(sheet, one, How.TAKE, "LLaMA-Factory's own file of this name, which is not here", ours=said)
    return _pins(one, {**form.implied, **own}, form)


def _fsdp_words(sheet: Sheet, one: Taken) -> Sheet:
    """Read ``full_shard auto_wrap offload``, as text or as a list."""
    words = one.value if isinstance(one.value, list) else str(one.value).replace(",", " ").split()
    pins: dict[str, object] = dict(FSDP_OPTIONS.implied)
    for word in (str(word).lower() for word in words):
        if word not in _FSDP_WORDS:
            sheet.problems.append(
                Refused(
                    f"{one.said}: {shown(word)}: is not taken here; {' and '.join(_FSDP_WORDS)} are",
                    hint="no_shard is plan.backend: ddp; hybrid_shard is plan.shard_size: ranks of a group",
                )
            )
        pins |= _FSDP_WORDS.get(word, {})
    _note(sheet, one, How.TAKE, "", ours=", ".join(f"{key}: {value}" for key, value in pins.items()))
    return _pins(one, pins, FSDP_OPTIONS)


def _pins(one: Taken, pins: dict[str, object], form: Format) -> Sheet:
    taken = [replace(one, target=target, value=value) for target, value in pins.items()]
    return Sheet(format=form, root=Node(value={}, origin=one.node.origin, line=one.node.line), taken=taken)


def _note(sheet: Sheet, one: Taken, how: How, reason: str, *, ours: str | None = None) -> None:
    value = str(one.value) if isinstance(one.value, str) else "..."
    sheet.changes.append(change_of(one.node, key=one.key, value=value, how=how, ours=ours, reason=reason))
