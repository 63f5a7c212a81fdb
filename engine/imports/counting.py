"""Values of ours that come of several of theirs: the global batch, and when to evaluate and save."""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import BadInput
from ..job.files import shown
from ..job.writer import flow
from ..stages.methods import READS
from .rows import How, Role
from .sheet import SAME, Sheet, Taken, change_of

MOST_PISSA_STEPS = 999
_AT_NO_TIME = ("no", False)
_NO_PROCESSES = "for one device; --processes N says how many there were"


def global_batch(sheets: Sequence[Sheet], processes: int | None) -> Taken | None:
    """Return the global batch: said outright, or micro batch x accumulation x ranks.

    Args:
        sheets: Every file.
        processes: Ranks that the user says there were.

    Raises:
        BadInput: One of them is no positive whole number.
    """
    total = _said(sheets, Role.TOTAL)
    micro, accumulation, ranks = (_said(sheets, role) for role in (Role.MICRO, Role.ACCUMULATION, Role.RANKS))
    if total is not None:
        _explain(sheets, total, "said outright")
        return _result(total, _count(total))
    if micro is None:
        _explain(sheets, None, "counts only with a micro batch")
        return None
    counts = [_count(micro), _count(accumulation) if accumulation else 1]
    num_ranks = processes or (_count(ranks) if ranks else None)
    product = counts[0] * counts[1] * (num_ranks or 1)
    known = f"on {num_ranks} device{'s' * (num_ranks != 1)}" if num_ranks else _NO_PROCESSES
    result = _result(micro, product)
    _explain(sheets, result, f"{counts[0]} x {counts[1]} {known}; ftwiz plans how it is split")
    return result


def _result(one: Taken, value: int) -> Taken:
    return Taken(
        target="train.global_batch_size", value=value, key=one.key, node=one.node, is_default=one.is_default
    )  # fmt: skip


def _said(sheets: Sequence[Sheet], role: Role) -> Taken | None:
    """Return what was said first, rather than a default; ``auto`` says nothing."""
    found = [one for sheet in sheets for one in sheet.used.get(role, ()) if one.value not in (None, "auto")]
    return next((one for one in found if not one.is_default), found[0] if found else None)


def _count(one: Taken) -> int:
    value = one.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:  # noqa: PLR2004 - as train.global_batch_size
        raise BadInput(f"{one.said} is a whole number from 1; got {shown(one.value)}")
    return value


def _explain(sheets: Sequence[Sheet], result: Taken | None, reason: str) -> None:
    ours = f"train.global_batch_size: {result.value}" if result else None
    for sheet in sheets:
        for role in (Role.TOTAL, Role.MICRO, Role.ACCUMULATION, Role.RANKS):
            for one in sheet.used.get(role, ()):
                if not one.is_default:
                    note(sheet, one, ours, reason)
                    reason = ""  # once is enough


def note(sheet: Sheet, one: Taken, ours: str | None, reason: str) -> None:
    """Put a line into the diff for a value that was counted."""
    sheet.changes.append(
        change_of(
            one.node,
            key=one.key,
            value=flow(one.value)[:60],
            how=How.USE if ours else How.DROP,
            ours=ours,
            reason=reason,
        )
    )


def rhythm(sheet: Sheet) -> None:
    """Let the strategies, by steps or by epochs, decide on the steps that a training file says."""
    for role, target in ((Role.EVAL_WHEN, "train.eval_steps"), (Role.SAVE_WHEN, "train.save_steps")):
        said = sheet.used.get(role, ())
        for one in said:
            steps = [taken for taken in sheet.taken if taken.target == target]
            if one.value == "steps" and not steps and role is Role.EVAL_WHEN:
                _steps_of_logging(sheet, one)
            elif one.value != "steps":
                _take_out(sheet, steps, one)
            if not one.is_default:
                what = "by steps" if one.value == "steps" else "at the end; say more often with it"
                note(sheet, one, None, f"{target} decides: {what}")


def _steps_of_logging(sheet: Sheet, one: Taken) -> None:
    """``eval_steps`` that is not said is ``logging_steps`` (transformers 5.23, training_args.py)."""
    every = next((taken.value for taken in sheet.taken if taken.target == "train.logging_steps"), 500)
    sheet.taken.append(
        Taken(target="train.eval_steps", value=every, key=one.key, node=one.node, is_default=True)
    )


def _take_out(sheet: Sheet, steps: list[Taken], one: Taken) -> None:
    for taken in steps:
        _take_out_as(sheet, taken, f"{SAME}: {one.key} is {one.value}")


def _iterations(sheet: Sheet) -> None:
    """LLaMA-Factory says in a key of its own in how many iterations PiSSA finds its matrices; -1: exactly."""
    for one in sheet.used.get(Role.PISSA_STEPS, ()):
        begun = [taken for taken in sheet.taken if taken.target == "method.init_lora_weights"]
        steps = one.value
        is_whole = isinstance(steps, int) and not isinstance(steps, bool)
        if not is_whole or not (steps == -1 or 1 <= steps <= MOST_PISSA_STEPS):  # type: ignore[operator] # is_whole
            raise BadInput(f"{one.said} is -1 or a whole number from 1; got {shown(steps)}")
        value = "pissa" if steps == -1 else f"pissa_niter_{steps}"
        for taken in begun:
            sheet.taken[sheet.taken.index(taken)] = replace(taken, value=value)
        ours = f"method.init_lora_weights: {value}" if begun else None
        note(sheet, one, ours, "" if begun else "counts only with pissa_init")


def _unread(sheet: Sheet, kind: object) -> None:
    """Take out options of other methods: these tools pass over them in silence."""
    for taken in [*sheet.taken]:
        section, _, name = taken.target.partition(".")
        if section == "method" and kind not in READS.get(name, {kind}):
            _take_out_as(sheet, taken, f"method.kind: {kind} does not read it")


def _take_out_as(sheet: Sheet, taken: Taken, reason: str) -> None:
    sheet.taken.remove(taken)
    for index, change in enumerate(sheet.changes):
        if change.key == taken.key and not taken.is_default:
            sheet.changes[index] = replace(change, how=How.DROP, ours=None, reason=reason)


def method(sheet: Sheet, *, default_alpha: bool) -> None:
    """Leave out what a full fine-tuning has no use for; LLaMA-Factory's alpha is twice the rank."""
    _iterations(sheet)
    kinds = [one.value for one in sheet.taken if one.target == "method.kind"]
    _unread(sheet, kinds[0] if kinds else "lora")
    ranks = [one for one in sheet.taken if one.target == "method.r"]
    if kinds == ["full"]:
        sheet.taken = [
            one
            for one in sheet.taken
            if one.target == "method.kind" or not (one.is_default and one.target.startswith("method."))
        ]
    elif default_alpha and ranks and all(one.target != "method.lora_alpha" for one in sheet.taken):
        rank = ranks[0].value
        if isinstance(rank, int) and not isinstance(rank, bool) and rank > 0:
            sheet.taken.append(
                Taken(
                    target="method.lora_alpha", value=2 * rank, key="lora_alpha", node=ranks[0].node,
                    is_default=True,
                )
            )  # fmt: skip
