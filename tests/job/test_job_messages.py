"""A wrong key or value is named with its place, what is allowed and what was meant: cases I1 and I2."""

from collections.abc import Callable
from typing import get_args

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.job.schema import allowed, fields
from ftwiz.engine.specs.method import Optimizer

STAGES = "pt, sft, rm, dpo, kto, orpo, simpo, grpo, rloo"

Refuse = Callable[..., BadInput]
pytestmark = pytest.mark.timeout(20)

NUMBERS = [
    dotted for dotted, schema in fields() if "number from" in f"{allowed(schema)} from".split(" or ")[-1]
]


def test_a_misspelt_key_is_named_with_its_line_section_and_what_was_meant(refusal_of_train: Refuse) -> None:
    error = refusal_of_train("lerning_rate: 1e-4")
    assert error.message == "job.yaml:4: unknown key 'lerning_rate' in train; did you mean 'learning_rate'?"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("learning_rat: 1", "did you mean 'learning_rate'?"),
        ("micro_batch_size: 2", "did you mean 'plan.micro_batch_size'?"),
        ("lora_alpah: 2", "did you mean 'method.lora_alpha'?"),
        ("zzzz: 2", "known here: num_train_epochs, max_steps, "),
    ],
)
def test_what_was_meant_is_looked_for_here_first_then_everywhere(
    refusal_of_train: Refuse, line: str, meant: str
) -> None:
    assert meant in refusal_of_train(line).message


@pytest.mark.parametrize(
    "word", ["word", ".nan", ".inf", "-.inf", "-1", "-1e300", "1e300", "true", "[1]", "{a: 1}"]
)
@pytest.mark.parametrize("dotted", NUMBERS)
def test_a_number_out_of_range_is_named_with_its_range(
    refusal_of_text: Refuse, dotted: str, word: str
) -> None:
    section, key = dotted.split(".")
    message = refusal_of_text(f"{section}:\n\n  {key}: {word}\n").message
    expected = allowed(dict(fields())[dotted])
    assert message.startswith(f"job.yaml:3: {dotted} must be {expected}; got ")


def test_there_are_numbers_in_that_test() -> None:
    assert len(NUMBERS) >= 12


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate: -1", "train.learning_rate must be auto or a number above 0 and at most 10; got -1"),
        ("learning_rate: 0", "train.learning_rate must be auto or a number above 0 and at most 10; got 0"),
        (
            "learning_rate: ato",
            (
                "train.learning_rate must be auto or a number above 0 and at most 10; got 'ato'; "
                "did you mean 'auto'?"
            ),
        ),
        ("max_steps: 0", "train.max_steps must be a whole number from 1 to 1,000,000,000; got 0"),
        ("max_steps: 1e3", "train.max_steps must be a whole number from 1 to 1,000,000,000; got 1e3"),
        ("packing: yes", "train.packing must be true or false; got 'yes'"),
        ("seed:", "train.seed must be a whole number from 0 to 4,294,967,295; got nothing"),
        (
            "optim: adamw_troch",
            (
                f"train.optim must be one of {', '.join(get_args(Optimizer))}; "
                "got 'adamw_troch'; did you mean 'adamw_torch'?"
            ),
        ),
        (
            "extra: {hub_token: hf_abc}",
            (
                "train.extra.hub_token is a secret; ftwiz takes it from the environment "
                "(HF_TOKEN, ...) and never from a file"
            ),
        ),
        ("extra: {seed: 1}", "train.extra.seed is a key of its own; write train.seed"),
        (
            "extra: {'a b': 1}",
            "train.extra.a b is no name of a trainer argument (letters, digits, underscores)",
        ),
        (
            "extra: {x: [1, .nan]}",
            ("train.extra.x must be made of text, finite numbers, true, false, null, lists and keys"),
        ),
        ("extra: 5", "train.extra must be keys and values; got 5"),
    ],
)
def test_a_wrong_value_gets_one_sensible_line(refusal_of_train: Refuse, line: str, message: str) -> None:
    assert refusal_of_train(line).message == f"job.yaml:4: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: 5", "model must be keys and values; got 5"),
        ("version: 2", "version must be 1; got 2"),
        ("stage: dpp", f"stage must be one of {STAGES}; got 'dpp'; did you mean 'dpo'?"),
        (
            "run: {name: ../x}",
            (
                "run.name must be up to 64 letters, digits and ._- that begin with a letter or digit; "
                "got '../x'"
            ),
        ),
        (
            "data: {path: 1e-4}",
            "data.path must be text of 1 to 4,096 characters or a list of text; got 1e-4; put it in quotes",
        ),
        ("data: {columns: {prompt: 3}}", "data.columns.prompt must be text; got 3; put it in quotes"),
        (
            "method: {target_modules: [q, 1]}",
            "method.target_modules must be all-linear or a list of text; got a list",
        ),
        ("learning_rate: 1", "unknown key 'learning_rate'; did you mean 'train.learning_rate'?"),
    ],
)
def test_sections_and_texts_are_told_in_the_same_form(
    refusal_of_text: Refuse, text: str, message: str
) -> None:
    assert refusal_of_text(text).message == f"job.yaml:1: {message}"


def test_what_is_missing_is_named_at_its_section(refusal_of_text: Refuse) -> None:
    error = refusal_of_text("# a job\ndata: {path: x}\nmodel:\n")
    assert error.message == "job.yaml:3: model.name_or_path is missing"


def test_several_mistakes_come_in_the_order_of_the_file(refusal_of_text: Refuse) -> None:
    text = "train:\n  seed: -1\n  lr: 2\nplan:\n  backend: dpp\n"
    error = refusal_of_text(text)
    assert error.message.startswith("job.yaml:2: train.seed ")
    assert error.hint is not None
    assert error.hint.startswith("then: job.yaml:3: unknown key 'lr' in train")
    assert error.hint.endswith("(and 3 more)")


def test_a_secret_is_never_repeated(refusal_of_train: Refuse) -> None:
    for line in (
        "extra: {hub_token: hf_verysecret}",
        "hub_token: hf_verysecret",
        "extra: {wandb_api_key: hf_verysecret}",
    ):
        error = refusal_of_train(line)
        assert "hf_verysecret" not in f"{error.message}{error.hint}"
