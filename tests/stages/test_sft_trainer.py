"""How rows meet tokenizers: with a template, with one that marks no answers, and with none at all."""

from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.stages import Parts, chat, check_arguments, sft

pytestmark = pytest.mark.train

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Uno."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Dos."},
]
UNMARKED = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


class Told:
    """Collects what was narrated."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.lines.append(line)


def build(model: Path, tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> tuple[Any, Told]:
    """Return a real trainer on the tiny model, and what was told; ``template`` replaces the chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if "template" in changes:
        tokenizer.chat_template = changes.pop("template")
    arguments = {
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
    }
    told = Told()
    parts = Parts(
        config=check_arguments("sft", arguments | changes),
        model=AutoModelForCausalLM.from_pretrained(model),
        tokenizer=tokenizer,
        method={"kind": "full"},
        train_rows=rows,
        eval_rows=[],
        callbacks=[],
        narrate=told,
    )
    return sft.trainer(parts), told


def learned(trainer: Any) -> list[str]:
    """Return the text of every row that the loss looks at."""
    return [
        trainer.processing_class.decode([token for token in row["labels"] if token != -100])
        for row in trainer.train_dataset
    ]


def test_every_answer_of_a_conversation_is_learned_and_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    trainer, _ = build(tiny_model, tmp_path, [{"messages": CHAT}], assistant_only_loss=True)
    assert learned(trainer) == ["Uno.<|end|>Dos.<|end|>"]


def test_all_is_learned_when_that_is_wanted(tiny_model: Path, tmp_path: Path) -> None:
    trainer, _ = build(tiny_model, tmp_path, [{"messages": CHAT}], assistant_only_loss=False)
    assert "Be brief." in learned(trainer)[0]


def test_a_template_that_marks_no_answers_gets_a_row_for_each_answer(
    tiny_model: Path, tmp_path: Path
) -> None:
    trainer, told = build(
        tiny_model, tmp_path, [{"messages": CHAT}], assistant_only_loss=True, template=UNMARKED
    )
    assert learned(trainer) == ["Uno.<|end|>", "Dos.<|end|>"]
    whole = trainer.processing_class.decode(trainer.train_dataset[1]["input_ids"])
    assert whole.endswith("[user]Two?<|end|>[assistant]Dos.<|end|>")
    assert "the chat template does not mark answers: one row for each of 2 answers" in told.lines


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ({"messages": CHAT[1:3]}, {"assistant_only_loss": True}),
        ({"prompt": CHAT[1:2], "completion": CHAT[2:3]}, {"completion_only_loss": True}),
    ],
)
def test_a_base_model_without_a_template_learns_from_plain_text(
    tiny_model: Path, tmp_path: Path, row: dict[str, Any], flags: dict[str, bool]
) -> None:
    trainer, told = build(tiny_model, tmp_path, [row], template=None, **flags)
    whole = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert whole.startswith("### User:\nOne?\n\n### Assistant:\nUno.<|end|>")
    assert learned(trainer)[0].startswith("Uno.<|end|>")
    assert "One?" not in learned(trainer)[0]
    assert any("no chat template" in line for line in told.lines)


def test_a_template_that_refuses_a_conversation_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    no_system = "{{ raise_exception('System role not supported') }}"
    strict = "{% if messages[0]['role'] == 'system' %}" + no_system + "{% endif %}"
    row = {"prompt": CHAT[:2], "completion": CHAT[2:3]}
    with pytest.raises(BadInput) as caught:
        build(tiny_model, tmp_path, [row], template=strict + UNMARKED, completion_only_loss=True)
    assert caught.value.message == (
        "the model's chat template refuses a conversation: System role not supported"
    )


def test_plain_text_is_learned_whole(tiny_model: Path, tmp_path: Path) -> None:
    trainer, _ = build(tiny_model, tmp_path, [{"text": "Once upon a time."}])
    assert learned(trainer) == ["Once upon a time.<|end|>"]


def test_the_plain_template_asks_for_an_answer_as_it_was_learned() -> None:
    from jinja2 import Environment

    text = chat.PLAIN_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    template = Environment(autoescape=False).from_string(text)  # noqa: S701 - no HTML
    asked = template.render(messages=CHAT[1:2], add_generation_prompt=True, eos_token="<e>")  # noqa: S106 - no password
    answered = template.render(messages=CHAT[1:3], eos_token="<e>")  # noqa: S106 - no password
    assert answered.startswith(asked + "Uno.<e>")


def test_every_planned_argument_is_known_to_the_installed_trainer(tmp_path: Path) -> None:
    import yaml

    from ftwiz.engine.specs.data import DataSummary
    from ftwiz.engine.specs.job import Job
    from ftwiz.engine.specs.plan import Strategy
    from ftwiz.engine.stages import train_file

    job = Job.model_validate(
        {
            "model": {"name_or_path": "/m"},
            "data": {"path": "/d"},
            "train": {"eval_steps": 5, "save_steps": 5, "extra": {"adam_beta2": 0.98}},
        }
    )
    strategy = Strategy(
        backend="single",
        device_kind="cpu",
        num_processes=1,
        micro_batch_size=2,
        gradient_accumulation_steps=8,
        gradient_checkpointing=True,
        mixed_precision="bf16",
    )
    data = DataSummary(path="/d", format="messages", shape="messages", num_rows=9, num_eval_rows=1)
    planned = yaml.safe_load(train_file(job, strategy, data))["trainer"] | {"output_dir": str(tmp_path)}
    config = check_arguments("sft", planned)
    kept = {name: getattr(config, name) for name in planned}
    enums = {name: getattr(value, "value", value) for name, value in kept.items()}
    assert {name for name in planned if enums[name] != planned[name]} <= {"report_to"}
    assert config.gradient_checkpointing is True
