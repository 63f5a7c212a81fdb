"""Turns each row of a file into rows that a stage trains on; what teaches nothing is left out and told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..specs.data import DataFormat, RowShape
from .cells import Cells, unread_keys
from .rules import Layout
from .words import Message, Row, TrainRow, type_name

EMPTY = "question or answer is empty"
SAME = "chosen and rejected are the same"
_RESERVED = frozenset(
    {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"}
)
"""Names that trl 1.16 hands to reward functions itself (grpo_trainer.py, _calculate_rewards)."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one row of a file."""

    rows: tuple[TrainRow, ...] = ()
    left_out: tuple[str, ...] = ()
    """Why, for each row that is not among them."""
    is_cut: bool = False
    """Whether messages at the end were left out, because nobody answers them."""


def convert(row: Row, layout: Layout, *, system: str | None, where: str) -> Converted:
    """Turn one row of a file into rows for the trainer.

    Raises:
        BadInput: A column is missing or holds something else than the format says.
    """
    cells = Cells(row, layout, where)
    found = [
        turned for one in _CONVERTERS[layout.rule.format](cells, system) for turned in _turned(one, cells)
    ]
    is_cut = any(_cut(one) for one in found if layout.shape == "messages")
    rows, left_out = [], []
    tools = cells.tools()
    for one in found:
        _check_start(one, cells)
        reason = _nothing_to_learn(one, layout.shape)
        if reason:
            left_out.append(reason)
        else:
            rows.append({**one, "tools": tools} if tools else one)
    return Converted(tuple(rows), tuple(left_out), is_cut)


def unused_columns(row: Row, layout: Layout) -> list[str]:
    """Return the columns, and the keys of messages, that nothing reads."""
    columns = layout.columns
    kept = row if layout.shape == "prompt_only" else columns.values()
    return [*(name for name in row if name not in kept), *unread_keys(row, columns)]


def _conversation(cells: Cells, system: str | None) -> list[TrainRow]:
    name = next(iter(cells.layout.rule.required))
    messages = cells.messages(name)
    if not any(message["role"] != "system" for message in messages):
        raise cells.bad(f"{cells.column(name)} has no turns")
    return [{"messages": _with_system(messages, cells, system)}]


def _alpaca_prompt(cells: Cells, system: str | None) -> list[Message]:
    history: list[Message] = []
    pairs = cells.value("history") or []
    if not isinstance(pairs, list):
        raise cells.bad(f"{cells.column('history')} is {type_name(pairs)}, not a list of pairs")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:  # noqa: PLR2004 - a question and an answer
            raise cells.bad(f"{cells.column('history')} holds something else than [question, answer]")
        history.append(_user(cells.as_text(pair[0], "a question of history")))
        history.append(_assistant(cells.as_text(pair[1], "an answer of history")))
    question = "\n".join(part for part in (cells.text("instruction"), cells.text("input")) if part)
    return _with_system([*history, _user(question)], cells, system)


def _alpaca(cells: Cells, system: str | None) -> list[TrainRow]:
    return [{"prompt": _alpaca_prompt(cells, system), "completion": [_assistant(cells.text("output"))]}]


def _self_instruct(cells: Cells, _system: str | None) -> list[TrainRow]:
    instances, column = cells.value("instances"), cells.column("instances")
    if not isinstance(instances, list):
        raise cells.bad(f"{column} is {type_name(instances)}, not a list")
    rows: list[TrainRow] = []
    for index, instance in enumerate(instances):
        what = f"{column}[{index}]"
        if not isinstance(instance, dict):
            raise cells.bad(f"{what} is {type_name(instance)}, not an input with its output")
        given = cells.as_text(instance.get("input") or "", f"{what}.input")
        question = "\n".join(part for part in (cells.text("instruction"), given) if part)
        answer = cells.as_text(instance.get("output"), f"{what}.output")
        rows.append({"prompt": [_user(question)], "completion": [_assistant(answer)]})
    return rows


def _prompt(cells: Cells, system: str | None) -> list[Message]:
    if "instruction" in cells.layout.columns:
        return _alpaca_prompt(cells, system)
    value = cells.value("prompt")
    if isinstance(value, list) and value and isinstance(value[0], str):  # mt-bench: the first turn is asked
        messages = [_user(cells.as_text(value[0], f"{cells.column('prompt')}[0]"))]
    elif cells.is_chat("prompt"):
        messages = cells.messages("prompt")
    else:
        messages = [_user(cells.text("prompt"))]
    return _with_system(messages, cells, system)


def _completion(cells: Cells, name: str) -> list[Message]:
    if not cells.is_chat(name):
        return [_assistant(cells.text(name))]
    messages = cells.messages(name)
    _check_answer(messages, cells, name)
    return messages


def _check_answer(messages: list[Message], cells: Cells, name: str) -> None:
    roles = [message["role"] for message in messages]
    ends = {*roles[:1], *roles[-1:]}
    if not {*roles} <= {"assistant", "tool"} or ends - {"assistant"}:
        raise cells.bad(f"{cells.column(name)} holds a message that is not the assistant's")


def _prompt_completion(cells: Cells, system: str | None) -> list[TrainRow]:
    return [{"prompt": _prompt(cells, system), "completion": _completion(cells, "completion")}]


def _prompt_only(cells: Cells, system: str | None) -> list[TrainRow]:
    return [_for_rewards(_prompt(cells, system), cells)]


def _text(cells: Cells, _system: str | None) -> list[TrainRow]:
    return [{"text": cells.text("text")}]


def _preference(cells: Cells, system: str | None) -> list[TrainRow]:
    """A question with two answers; answers may repeat the question when all three are messages."""
    prompt, sides = _prompt(cells, system), {}
    for name in ("chosen", "rejected"):
        if not cells.is_chat(name):
            sides[name] = [_assistant(cells.text(name))]
            continue
        messages = _after(prompt, cells.messages(name))
        _check_answer(messages, cells, name)
        sides[name] = messages
    return [{"prompt": prompt, **sides}]


def _after(prompt: list[Message], messages: list[Message]) -> list[Message]:
    """Return messages without the prompt that they begin with."""
    starts_with_system = bool(messages) and messages[0]["role"] == "system"
    shared = [one for one in prompt if starts_with_system or one["role"] != "system"]
    return messages[len(shared) :] if messages[: len(shared)] == shared else messages


def _preference_implicit(cells: Cells, system: str | None) -> list[TrainRow]:
    chosen, rejected = cells.messages("chosen"), cells.messages("rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == len(chosen) == len(rejected):  # the same answer twice: told later, as in any format
        shared = max((i for i, one in enumerate(chosen) if one["role"] != "assistant"), default=-1) + 1
    if shared == 0:
        raise cells.bad("chosen and rejected begin differently, so there is no question that both answer")
    _check_answer(chosen[shared:], cells, "chosen")
    _check_answer(rejected[shared:], cells, "rejected")
    prompt = _with_system(chosen[:shared], cells, system)
    return [{"prompt": prompt, "chosen": chosen[shared:], "rejected": rejected[shared:]}]


def _preference_sharegpt(cells: Cells, system: str | None) -> list[TrainRow]:
    prompt = _with_system(cells.messages("conversations"), cells, system)
    sides = {}
    for name in ("chosen", "rejected"):
        sides[name] = (
            _after(prompt, cells.messages(name)) if cells.is_chat(name) else [_assistant(cells.text(name))]
        )
        _check_answer(sides[name], cells, name)
    return [{"prompt": prompt, **sides}]


def _preference_alpaca(cells: Cells, system: str | None) -> list[TrainRow]:
    prompt = _alpaca_prompt(cells, system)
    return [{"prompt": prompt, **{name: _completion(cells, name) for name in ("chosen", "rejected")}}]


def _unpaired_chat(cells: Cells, system: str | None) -> list[TrainRow]:
    [row] = _conversation(cells, system)
    messages = row["messages"]
    assert isinstance(messages, list)
    if messages[-1]["role"] != "assistant":
        raise cells.bad("the conversation does not end with the answer that is rated")
    return [{"prompt": messages[:-1], "completion": messages[-1:], "label": cells.label()}]


def _unpaired(cells: Cells, system: str | None) -> list[TrainRow]:
    return [{**_prompt_completion(cells, system)[0], "label": cells.label()}]


def _unpaired_alpaca(cells: Cells, system: str | None) -> list[TrainRow]:
    return [{**_alpaca(cells, system)[0], "label": cells.label()}]


_CONVERTERS: Mapping[DataFormat, Callable[[Cells, str | None], list[TrainRow]]] = {
    "messages": _conversation,
    "sharegpt": _conversation,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "self_instruct": _self_instruct,
    "text": _text,
    "preference": _preference,
    "preference_implicit": _preference_implicit,
    "preference_alpaca": _preference_alpaca,
    "preference_sharegpt": _preference_sharegpt,
    "unpaired": _unpaired,
    "unpaired_alpaca": _unpaired_alpaca,
    "unpaired_messages": _unpaired_chat,
    "unpaired_sharegpt": _unpaired_chat,
    "prompt_only": _prompt_only,
}


def _turned(row: TrainRow, cells: Cells) -> list[TrainRow]:
    """Return a row in the shape that the stage wants."""
    if cells.layout.rule.shape == cells.layout.shape:
        return [row]
    if cells.layout.shape == "unpaired":
        sides = (("chosen", True), ("rejected", False))
        if row["chosen"] == row["rejected"]:
            return [row]  # told to be the same
        return [{"prompt": row["prompt"], "completion": row[side], "label": label} for side, label in sides]
    if "prompt" in row:
        prompt, answer = row["prompt"], row["completion"]
    else:
        messages = row["messages"]
        assert isinstance(messages, list)
        last = len(messages) - 1 if messages[-1]["role"] == "assistant" else len(messages)
        prompt, answer = messages[:last], messages[last:]
    assert isinstance(prompt, list)
    assert isinstance(answer, list)
    return [_for_rewards(prompt, cells, answer=answer[-1]["content"] if answer else None)]


def _for_rewards(prompt: list[Message], cells: Cells, *, answer: str | None = None) -> TrainRow:
    """Return a prompt with the other columns of its row, which reward functions get by their names."""
    columns = cells.layout.columns
    asked = {columns[name] for name in columns if name not in {"completion", "output", "prompt"}}
    asked |= {columns["prompt"]} - {"turns"} if "prompt" in columns else set()
    kept = {name: value for name, value in cells.row.items() if name not in asked | {"completion", "prompt"}}
    taken = _RESERVED & kept.keys()
    if taken:
        raise cells.bad(f"the column {min(taken)} has a name that reward functions get from the trainer")
    if answer is not None and not any(columns.get(name) in kept for name in ("completion", "output")):
        kept.setdefault("answer", answer)
    return {"prompt": prompt, **kept}


def _cut(row: TrainRow) -> bool:
    """Take messages off the end that nobody answers; say whether there were any."""
    messages = row["messages"]
    assert isinstance(messages, list)
    before = len(messages)
    if any(message["role"] == "assistant" for message in messages):
        while messages[-1]["role"] != "assistant":
            messages.pop()
    return len(messages) < before


def _check_start(row: TrainRow, cells: Cells) -> None:
    """Refuse a conversation that the assistant starts, or in which it says nothing."""
    shape = cells.layout.shape
    messages = row.get("messages" if shape == "messages" else "prompt")
    if shape == "text" or not isinstance(messages, list):
        return
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if roles and roles[0] != "user":
        raise cells.bad("the conversation starts with the assistant; chat templates need the user first")
    if shape == "messages" and "assistant" not in roles:
        raise cells.bad("the conversation has no assistant message: nothing to learn from")


_SIDES: Mapping[RowShape, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion"),
    "prompt_only": ("prompt",),
}


def _nothing_to_learn(row: TrainRow, shape: RowShape) -> str | None:
    if shape == "text":
        return None if str(row["text"]).strip() else "the text is empty"
    if shape != "prompt_only" and "chosen" in row and row["chosen"] == row["rejected"]:
        return SAME
    sides = {name: row[name] for name in _SIDES[shape]}
    said = all(isinstance(side, list) and _says_something(side, name) for name, side in sides.items())
    return None if said else EMPTY


def _says_something(messages: list[Message], name: str) -> bool:
    wanted = [one for one in messages if one["role"] != "system"]
    if name == "messages":
        wanted = [one for one in wanted if one["role"] == "assistant"]
    return any(one.get("tool_calls") or one["content"].strip() for one in wanted)


def _with_system(messages: list[Message], cells: Cells, system: str | None) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        return messages
    wanted = cells.text("system") or system
    return [{"role": "system", "content": wanted}, *messages] if wanted else messages


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}
