"""What is written reads back as the same job, and reads well."""

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.job import dump_job, parse_job
from ftwiz.engine.job.writer import flow, scalar
from ftwiz.engine.specs.job import Data, Job, Method, Model, PlanPins, RunOptions, Train

TRICKY = [
    "no",
    "1e-4",
    "ftwiz:demo",
    "-x",
    "a: b",
    "a #b",
    "~",
    "null",
    "",
    " ",
    "two\nlines",
    "\tx",
    "010",
    "---",
    "é",
]
WORDS = st.one_of(st.sampled_from(TRICKY), st.text(max_size=40))
NAMES = st.text(min_size=1, max_size=100)
PATHS = st.one_of(st.sampled_from(TRICKY), st.text(max_size=60)).map(lambda text: f"/{text}")
ARGUMENTS = st.from_regex(r"x_[A-Za-z0-9_]{0,98}", fullmatch=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | WORDS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
COUNTS = st.integers(1, 1_000_000_000)

JOBS = st.builds(
    Job,
    model=st.builds(
        Model,
        name_or_path=PATHS | st.sampled_from(["ftwiz:demo", "Qwen/Qwen3-0.6B", "gpt2", "1e5"]),
        revision=st.none() | st.text(min_size=1, max_size=200),
        trust_remote_code=st.booleans(),
    ),
    data=st.builds(
        Data,
        path=PATHS,
        format=st.sampled_from(["auto", "alpaca", "text"]),
        columns=st.dictionaries(NAMES, NAMES, max_size=4),
        system=st.none() | WORDS | st.text(alphabet="a \n#:-'\"", max_size=60),
        num_rows=st.none() | COUNTS,
        eval_path=st.none() | PATHS,
        eval_fraction=st.floats(0, 0.5),
    ),
    method=st.builds(
        Method,
        kind=st.sampled_from(["lora", "full"]),
        r=st.integers(1, 4096),
        lora_alpha=st.floats(0, 65536, exclude_min=True),
        target_modules=st.just("all-linear") | st.lists(WORDS, max_size=4).map(tuple),
    ),
    train=st.builds(
        Train,
        learning_rate=st.just("auto") | st.floats(0, 10, exclude_min=True),
        warmup_steps=st.floats(0, 1e9),
        max_steps=st.none() | COUNTS,
        packing=st.booleans(),
        extra=st.dictionaries(ARGUMENTS, VALUES, max_size=4),
    ),
    plan=st.builds(
        PlanPins,
        num_processes=st.just("auto") | COUNTS,
        gradient_checkpointing=st.just("auto") | st.booleans(),
        mixed_precision=st.sampled_from(["auto", "no", "bf16"]),
    ),
    run=st.builds(
        RunOptions, name=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
    ),
)
LAW = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@given(JOBS)
@LAW
def test_what_is_written_reads_back_as_the_same_job(job: Job) -> None:
    text = dump_job(job)
    assert parse_job(text, name="job.yaml", base=Path("/nowhere/at/all")).job == job
    assert all(line.isprintable() for line in text.split("\n"))


@given(VALUES)
@LAW
def test_other_readers_of_yaml_read_the_same_values(value: object) -> None:
    assert yaml.safe_load(f"key: {flow(value)}") == {"key": value}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-05, "2.0e-05"),
        (1e16, "1.0e+16"),
        (0.1, "0.1"),
        (3.0, "3.0"),
        (sys.float_info.max, "1.7976931348623157e+308"),
        (True, "true"),
        (None, "null"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("ftwiz:demo", "ftwiz:demo"),
        ("no", '"no"'),
        ("1e-4", '"1e-4"'),
        ("12:30", '"12:30"'),
        ("-x", '"-x"'),
        ("a\x1b", '"a\\u001b"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_values_are_written_as_a_person_would(value: object, text: str) -> None:
    assert scalar(value) == text


def test_a_small_job_is_a_small_file_with_a_word_on_each_line() -> None:
    job = Job(
        model=Model(name_or_path="ftwiz:demo"),
        data=Data(path="/d/rows.jsonl"),
        train=Train(learning_rate=2e-4),
    )
    assert dump_job(job).splitlines()[-13:] == [
        "stage: sft  # Kind of training",
        "",
        "method:  # Which weights are trained",
        "  kind: lora  # lora trains small added matrices (little memory); full trains every weight",
        "",
        "train:  # How it is trained",
        "  num_train_epochs: 3.0  # Passes over the data",
        (
            "  # Sequences per optimizer step, all devices together (rm, dpo, orpo, simpo: pairs; "
            "grpo, rloo: sampled"
        ),
        "  # answers)",
        "  global_batch_size: 16",
        "  max_length: 1024       # Longest sequence in tokens; longer ones are cut",
        "  # Peak step size; auto is what suits stage and method: 2e-4 for sft with lora, 2e-5 with full",
        "  learning_rate: 0.0002",
    ]


def test_a_text_of_several_lines_is_written_as_a_block() -> None:
    job = Job(model=Model(name_or_path="gpt2"), data=Data(path="/d", system="You add.\n\nBe short."))
    assert "  system: |-\n    You add.\n\n    Be short.\n" in dump_job(job)


def test_no_line_is_long() -> None:
    extra = {"optim_args": "x" * 30, "label_smoothing_factor": 0.5}
    job = Job(
        model=Model(name_or_path="gpt2"), data=Data(path="/d", num_rows=5), train=Train(extra=extra, seed=1)
    )
    assert max(map(len, dump_job(job).splitlines())) <= 110
