"""Rows are shown as transformers writes them, and what is marked as learned is what the trainer learns."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.data import RowShape
from ftwiz.engine.stages import building, chat
from ftwiz.engine.worker.spelling import Spelled, Speller

SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}
ANSWER, OTHER = {"role": "assistant", "content": "Uno."}, {"role": "assistant", "content": "Dos."}
CHAT = [SYSTEM, ASKED, ANSWER, {"role": "user", "content": "Two?"}, OTHER]
UNMARKED = (
    "{%- for message in messages %}\n[{{ message.role }}]{{ message['content'] | trim }}<|end|>"
    "{%- endfor %}{% if add_generation_prompt %}\n[assistant]{% endif %}"
)
WITH_TOOLS = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for message in messages %}"
    "[{{ message['role'] }}]{{ message['content'] }}{% for call in message.tool_calls or [] %}"
    "{{ call.function | tojson }}{% endfor %}\n{% endfor %}"
)
CALL = {
    "role": "assistant", "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "wetter", "arguments": {"ort": "Köln"}}}],
}  # fmt: skip


def speller(tiny_model: Path, tmp_path: Path, template: str | None = "own") -> Speller:
    folder = tmp_path / "tokenizer"
    shutil.copytree(tiny_model, folder)
    if template != "own":
        (folder / "chat_template.jinja").unlink()
    if template not in {"own", None}:
        (folder / "chat_template.jinja").write_text(str(template), encoding="utf8")
    return Speller(folder)


def spelled(
    one: Speller, row: dict[str, Any], shape: RowShape, *, answers_only: bool = True
) -> list[Spelled]:
    return one.spell(row, shape, answers_only=answers_only)


def learned(texts: list[Spelled]) -> list[list[str]]:
    return [[piece.text for piece in text.pieces if piece.is_learned] for text in texts]


@pytest.mark.parametrize("template", ["own", UNMARKED])
def test_a_conversation_is_written_as_transformers_writes_it(
    tiny_model: Path, tmp_path: Path, template: str
) -> None:
    from transformers import AutoTokenizer

    one = speller(tiny_model, tmp_path, template)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    [text] = spelled(one, {"messages": CHAT}, "messages")
    assert text.text == tokenizer.apply_chat_template(CHAT, tokenize=False)
    tokens = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=True)["input_ids"]
    assert one.num_tokens(text.text) == len(tokens)


def test_calls_of_tools_are_written_as_transformers_writes_them(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    one = speller(tiny_model, tmp_path, WITH_TOOLS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    tools = [{"type": "function", "function": {"name": "wetter", "parameters": {"ort": "Größe"}}}]
    messages = [ASKED, CALL, {"role": "tool", "content": "7°"}, ANSWER]
    [text] = spelled(one, {"messages": messages, "tools": tools}, "messages")
    assert text.text == tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    assert one.lost({"messages": messages}, [text]) is None


@pytest.mark.parametrize("template", ["own", UNMARKED, None])
def test_the_answers_are_marked_as_learned_and_nothing_else(
    tiny_model: Path, tmp_path: Path, template: str | None
) -> None:
    one = speller(tiny_model, tmp_path, template)
    [[first, second]] = learned(spelled(one, {"messages": CHAT}, "messages"))
    assert (first.strip(), second.strip()) == ("Uno.<|end|>", "Dos.<|end|>")
    [whole] = spelled(one, {"messages": CHAT}, "messages", answers_only=False)
    assert [piece.is_learned for piece in whole.pieces] == [True]


def test_of_a_pair_both_answers_are_shown(tiny_model: Path, tmp_path: Path) -> None:
    one = speller(tiny_model, tmp_path)
    pair = {"prompt": [SYSTEM, ASKED], "chosen": [ANSWER], "rejected": [OTHER]}
    texts = spelled(one, pair, "preference")
    assert [text.title for text in texts] == ["chosen", "rejected"]
    assert learned(texts) == [["Uno.<|end|>"], ["Dos.<|end|>"]]
    rated = {"prompt": [ASKED], "completion": [ANSWER], "label": False}
    assert spelled(one, rated, "unpaired")[0].title == "disliked"
    assert learned(spelled(one, {"prompt": [ASKED], "answer": "x"}, "prompt_only")) == [[]]
    assert learned(spelled(one, {"text": "Once."}, "text")) == [["Once.<|end|>"]]


def test_what_a_template_leaves_out_is_said(tiny_model: Path, tmp_path: Path) -> None:
    one = speller(
        tiny_model, tmp_path, UNMARKED.replace("for message in messages", "for message in messages[1:]")
    )
    row = {"messages": CHAT}
    assert one.lost(row, spelled(one, row, "messages")) == "texts of system"
    row = {"messages": [SYSTEM, ASKED, CALL, ANSWER]}
    assert one.lost(row, spelled(one, row, "messages")) == "texts of system"
    row = {"messages": [ASKED, CALL, ANSWER]}
    two = Speller(tiny_model)
    assert two.lost(row, spelled(two, row, "messages")) == "calls of tools"


def test_a_template_that_refuses_or_is_broken_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    one = speller(tiny_model, tmp_path, "{{ raise_exception('no system role') }}")
    with pytest.raises(BadInput, match="the chat template refuses the row: no system role"):
        spelled(one, {"messages": CHAT}, "messages")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{% if %}", encoding="utf8")
    with pytest.raises(BadInput, match="the chat template is broken"):
        Speller(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf8")
    with pytest.raises(BadInput, match=r"tokenizer\.json: "):
        Speller(tmp_path / "tokenizer")
    with pytest.raises(BadInput, match=r"has no tokenizer\.json"):
        Speller(tmp_path)


def test_a_template_may_stand_in_the_configuration(tiny_model: Path, tmp_path: Path) -> None:
    one = speller(tiny_model, tmp_path, None)
    assert not one.has_template
    place = tmp_path / "tokenizer" / "tokenizer_config.json"
    config = json.loads(place.read_text(encoding="utf8"))
    config["chat_template"] = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    config["eos_token"] = {"content": "<|end|>"}
    place.write_text(json.dumps(config), encoding="utf8")
    again = Speller(tmp_path / "tokenizer")
    assert spelled(again, {"messages": CHAT}, "messages", answers_only=False)[0].text == "y"
    assert again.special["eos_token"] == "<|end|>"  # noqa: S105 - no password


def test_a_data_set_changes_no_row() -> None:
    other = json.loads(json.dumps(CALL).replace('"ort"', '"place"').replace("wetter", "weather"))
    rows = [{"messages": [ASKED, CALL]}, {"messages": [ASKED, other]}, {"messages": [ASKED, ANSWER]}]
    assert list(building.dataset(rows)) == rows
    mixed = [{"prompt": [ASKED], "answer": 1}, {"prompt": [ASKED], "answer": "one"}]
    assert list(building.dataset(mixed)) == mixed


def test_calls_that_a_template_leaves_out_are_not_trained_on(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    chat.check_tools(tokenizer, [{"messages": CHAT}])
    with pytest.raises(BadInput, match="chat template leaves such calls out"):
        chat.check_tools(tokenizer, [{"messages": CHAT}, {"messages": [ASKED, CALL, ANSWER]}])
    tokenizer.chat_template = WITH_TOOLS
    chat.check_tools(tokenizer, [{"messages": [ASKED, CALL, ANSWER]}])
