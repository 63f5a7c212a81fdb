"""The kind of training: what a file says of it in several keys, and which of its keys it has no use for."""

from collections.abc import Mapping
from dataclasses import replace

from ..errors import Refused
from ..job.files import shown, shown_path
from ..specs.job import Job
from ..stages import STAGES
from ..stages.rules import PACKING, READS, SAMPLING, WHOLE_TEXTS
from .counting import note
from .formats import LLAMAFACTORY, LLAMAFACTORY_V1, TRL
from .rows import How, NotYet, Role
from .sheet import UNSAID, Sheet, Taken, fitted
from .trl_other import LEARNING_RATES

NAMES = tuple(module.NAME for module in STAGES)
_PAIRS = frozenset({"dpo", "orpo", "simpo"})
_COUNTS: Mapping[str, frozenset[str]] = {
    **{f"preference.{name}": stages for name, stages in READS.items()},
    **{f"rollout.{name}": SAMPLING for name in type(Job.model_fields["rollout"].get_default(
        call_default_factory=True)).model_fields},
    "train.packing": PACKING,
    "train.assistant_only_loss": WHOLE_TEXTS,
    "train.extra.ld_alpha": frozenset({"dpo"}),
    "train.extra.center_rewards_coefficient": frozenset({"rm"}),
}  # fmt: skip
"""Keys of ours -> the stages that read them."""
_LOSSES = {"dpo": "preference.loss_type", "grpo": "rollout.loss_type"}
_OTHER_LOSSES = {"sft": "train.extra.loss_type", "pt": "train.extra.loss_type"}
_KTO_PAIR = "kto_pair is gone from TRL; stage kto takes pairs too: --drop pref_loss, and stage: kto"


def settle(sheet: Sheet, told: str | None) -> None:
    """Find the stage, and leave out what it does not read.

    Args:
        sheet: A training file.
        told: The stage that the user names for a file that does not say it.
    """
    said = next((one for one in sheet.taken if one.target == "stage"), None)
    if said is None and told is not None:
        said = Taken(target="stage", value=told, key="--stage", node=sheet.root)
        sheet.taken.append(said)
        sheet.changes = [
            change for change in sheet.changes if (change.key, change.value) != ("stage", UNSAID)
        ]
    elif said is not None and told is not None and said.value != told:
        sheet.problems.append(Refused(f"{said.said}: {shown(said.value)}, and --stage says {told}"))
    if said is None:
        _check_others(sheet)
    stage = _settle_loss(sheet, str(said.value) if said else "sft")
    _settle_beta(sheet, stage)
    if sheet.format.name in {LLAMAFACTORY.name, LLAMAFACTORY_V1.name} and stage == "simpo":
        _default(sheet, "preference.beta", 0.1, "pref_beta")
        _default(sheet, "preference.simpo_gamma", 0.5, "simpo_gamma")
    if sheet.format is TRL and stage in LEARNING_RATES:
        _default(sheet, "train.learning_rate", LEARNING_RATES[stage], "learning_rate")
    for one in [one for one in sheet.taken if stage not in _COUNTS.get(one.target, frozenset({stage}))]:
        _leave_out(sheet, one, stage)


def _check_others(sheet: Sheet) -> None:
    """Ask for the stage of a file that does not say it and holds keys of other trainers than sft's."""
    if sheet.format is not TRL:
        return
    found = [one for one in sheet.taken if "sft" not in _COUNTS.get(one.target, {"sft"})]
    found += sheet.used.get(Role.BETA, [])
    for one in found[:1]:
        stages = _COUNTS.get(one.target, _PAIRS | SAMPLING | {"kto"})
        names = " | ".join(name for name in NAMES if name in stages)
        sheet.problems.append(
            Refused(f"{one.said}: is for another trainer than sft", hint=f"say which: --stage {names}")
        )


def _settle_loss(sheet: Sheet, stage: str) -> str:
    """Read the loss, which for pairs may be a stage of its own; return the stage."""
    for one in sheet.used.get(Role.LOSS, ()):
        loss = one.value[0] if isinstance(one.value, list) and len(one.value) == 1 else one.value
        if stage in _PAIRS and loss in {"orpo", "simpo"}:
            sheet.taken = [taken for taken in sheet.taken if taken.target != "stage"]
            sheet.taken.append(replace(one, target="stage", value=loss))
            note(sheet, one, f"stage: {loss}", "a stage of its own")
            stage = str(loss)
        elif stage == "dpo" and loss == "kto_pair":
            sheet.problems.append(Refused(f"{one.said}: {_KTO_PAIR}"))
        elif stage in _LOSSES or (sheet.format is TRL and stage in _OTHER_LOSSES and loss != "nll"):
            _take_loss(sheet, one, _LOSSES.get(stage) or _OTHER_LOSSES[stage], loss)
        else:
            note(sheet, one, None, f"stage {stage} has one loss")
    return stage


def _settle_beta(sheet: Sheet, stage: str) -> None:
    """Read TRL's ``beta``, which is a key of preferences and of sampling."""
    for one in sheet.used.get(Role.BETA, ()):
        target = "rollout.beta" if stage in SAMPLING else "preference.beta"
        taken = replace(one, target=target)
        sheet.taken.append(taken)
        note(sheet, one, f"{target}: {one.value}", "")


def _take_loss(sheet: Sheet, one: Taken, target: str, loss: object) -> None:
    try:
        value = fitted(target, loss)
    except NotYet as error:
        sheet.problems.append(Refused(f"{one.said}: {shown(loss)}: {error}"))
    else:
        sheet.taken.append(replace(one, target=target, value=value))
        note(sheet, one, f"{target}: {value}", "")


def _default(sheet: Sheet, target: str, value: float, key: str) -> None:
    """Put in what the tool does when the file says nothing, in place of its default for other stages."""
    sheet.taken = [one for one in sheet.taken if one.target != target or not one.is_default]
    if all(one.target != target for one in sheet.taken):
        sheet.taken.append(Taken(target=target, value=value, key=key, node=sheet.root, is_default=True))


def _leave_out(sheet: Sheet, one: Taken, stage: str) -> None:
    sheet.taken.remove(one)
    if one.is_default:
        return
    stages = ", ".join(name for name in NAMES if name in _COUNTS[one.target])
    reason = (
        "always packed" if (stage, one.target) == ("pt", "train.packing") else f"counts only for {stages}"
    )
    file, line = shown_path(one.node.origin.name), one.node.key_line or one.node.line
    sheet.changes = [
        replace(change, how=How.DROP, ours=None, reason=reason)
        if (change.file, change.line, change.key) == (file, line, one.key)
        else change
        for change in sheet.changes
    ]
