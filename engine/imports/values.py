"""From their values to ours: what the rows of the tables convert with."""

import re
from collections.abc import Mapping

from ..specs.method import INIT_WEIGHTS
from .rows import NOTHING, Convert, NotYet, Wrong

_HIGHEST_SHARE = 0.5


def words(choices: Mapping[object, object], *, later: Mapping[object, str] | None = None) -> Convert:
    """Return a converter of words.

    Args:
        choices: Their word -> our value.
        later: Their word -> what to do instead, for those that ftwiz does not do.
    """

    def convert(value: object) -> object:
        known = value.lower() if isinstance(value, str) else value
        if later and _is_word(known) and known in later:
            raise NotYet(later[known])
        if _is_word(known) and known in choices:
            return choices[known]
        names = ", ".join(str(word) for word in (*choices, *(later or ())))
        raise Wrong(f"is one of {names}")

    return convert


def _is_word(value: object) -> bool:
    return isinstance(value, str | int | bool | float)


def when_true(value: object, otherwise: object = NOTHING) -> Convert:
    """Return a converter of a switch: on means ``value``."""

    def convert(switch: object) -> object:
        if not isinstance(switch, bool):
            raise Wrong("is true or false")
        return value if switch else otherwise

    return convert


def negated(value: object) -> object:
    """Return the opposite of a switch."""
    return when_true(False, True)(value)  # noqa: FBT003 - the two values of the switch


def modules(value: object) -> object:
    """Return layers that get an adapter: ``all``, ``q_proj,v_proj`` or a list."""
    if isinstance(value, str):
        if value.strip() in {"all", "all-linear", "all_linear"}:
            return "all-linear"
        if re.search(r"[\\^$*+?()|\[\]]", value):
            raise NotYet("a pattern is not taken here; list the layers: q_proj,v_proj")
        value = [word.strip() for word in value.split(",") if word.strip()]
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return "all-linear" if value in (["all"], ["all-linear"]) else value
    raise Wrong("is all, or names of layers")


def share_of_steps(value: object) -> object:
    """Return a warm-up ratio as steps: below 1 ours is a share of all steps, as transformers 5 has it."""
    number = _number(value)
    if 0 <= number < 1:
        return number
    raise Wrong("is a share from 0 to below 1")


def held_out(value: object) -> object:
    """Return the share of rows that are held out; a number of rows cannot be one."""
    number = _number(value)
    if number >= 1 and number == int(number):
        raise NotYet("a number of rows is not taken; give the share of them: 0.05")
    if 0 <= number <= _HIGHEST_SHARE:
        return number
    raise NotYet("ftwiz holds out half of the rows at most; give a share up to 0.5")


def run_name(value: object) -> object:
    """Return a run's name in the letters that a folder may have."""
    if not isinstance(value, str):
        raise Wrong("is text")
    return re.sub(r"[^A-Za-z0-9._]+", "-", value).strip("-._")[:64] or NOTHING


def whole_steps(value: object) -> object:
    """Return a number of steps; a share of all steps has no answer before the data is counted."""
    number = _number(value)
    if 0 < number < 1:
        raise NotYet("a share of all steps is not taken; give a number of steps")
    if number != int(number) or number < 1:
        raise Wrong("is a number of steps")
    return int(number)


def sampling(value: object) -> object:
    """Return how transformers 5 says that examples of like length come together."""
    return when_true("group_by_length")(value)


def last_layers(value: object) -> object:
    """Return how many of the last layers are trained; below 0 LLaMA-Factory means the first ones."""
    number = _number(value)
    if number <= 0:
        raise NotYet("ftwiz trains the last layers; give how many, from 1")
    return value


def initial_weights(value: object) -> object:
    """Return what LoRA's matrices begin as."""
    if value is True:
        return NOTHING
    if isinstance(value, str) and re.fullmatch(INIT_WEIGHTS, value):
        return value
    raise NotYet("is not there yet; gaussian, pissa and pissa_niter_16 are")


def trackers(value: object) -> object:
    """Return the services that follow the run; none is none."""
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(word, str) for word in listed):
        raise Wrong("is the name of a service, or a list of them")
    return NOTHING if listed in ([], ["none"]) else value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong("is a number")
    if not abs(value) < 1e15:  # noqa: PLR2004 - also false for what is no number; int() of more is absurd
        raise Wrong("is a number of sensible size")
    return value


_SAME_STEPS = {
    "adamw_hf": "adamw_torch",
    "adamw_bnb_32bit": "adamw_torch",
    "paged_adamw": "paged_adamw_32bit",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_lion": "paged_lion_32bit",
    "rmsprop_bnb": "rmsprop_bnb_32bit",
    "adamw_apex_fused": "adamw_torch_fused",
    "adamw_torch_npu_fused": "adamw_torch_fused",
    "adamw_torch_xla": "adamw_torch",
    "adamw": "adamw_torch",
}
"""Other names, and other ways to take the same steps of AdamW in 32 bits."""


def optimizer(value: object) -> object:
    """Return an optimizer's name; other makes of the same one become torch's."""
    if not isinstance(value, str):
        raise Wrong("is the name of an optimizer")
    return _SAME_STEPS.get(value.lower(), value)
