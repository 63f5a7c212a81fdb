"""Files that are broken, hostile or nobody's: one line, in no time, and never a traceback."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.errors import BadInput, FtwizError
from ftwiz.engine.imports import FORMATS, Wishes, import_files
from ftwiz.engine.imports.formats import Format
from ftwiz.engine.job.writer import flow

Written = Callable[..., Path]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
GOOD = "model_name_or_path: Qwen/Qwen3-0.6B\nstage: sft\n"


def first_problem(path: Path, *, rows: Path | None) -> FtwizError:
    try:
        return import_files([path], Wishes(data=rows)).problems[0]
    except FtwizError as error:
        return error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("just a word", "is no configuration"),
        ("- a\n- b\n", "is no configuration"),
        ("a: b: c\n", "not valid YAML"),
        ("a: " + "[" * 100_000, "nested more than 16 deep"),
        (BOMB, "more than 10,000 values"),
        ("stage: !!python/object/apply:os.system [ls]\n", "is not allowed"),
        ("stage: sft\nstage: dpo\n", "a second time"),
        ("hello: world\nfoo: bar\n", "is no file that ftwiz knows"),
        ("# " + "x" * 300_000, "KiB"),
        ("stage: sft\n---\nstage: sft\n", "a second document"),
        ("\x00stage: sft\n", "NUL"),
    ],
    ids=range(12),
)
def test_a_broken_file_is_one_line_at_once(written: Written, text: str, reason: str) -> None:
    path = written(text)
    started = time.monotonic()
    with pytest.raises(BadInput, match=reason) as caught:
        import_files([path], Wishes())
    assert time.monotonic() - started < 1
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(BadInput, match=reason):
            import_files([path], Wishes())


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one(written: Written, rows: Path) -> None:
    path = written(f"{GOOD}lora_rnak: 8\n")
    first = import_files([path], Wishes(data=rows)).problems[0]
    assert first.message == f"{path}:3: LLaMA-Factory has no key 'lora_rnak'; did you mean 'lora_rank'?"
    assert first.hint == "mend it, or go without it: --drop lora_rnak"
    assert isinstance(first, BadInput)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lora_rank: eight", "lora_rank (method.r) must be a whole number from 1 to 4,096; got 'eight'"),
        ("lora_rank: -1", "lora_rank (method.r) must be"),
        ("lora_rank: [8]", "lora_rank (method.r) must be"),
        ("learning_rate: .nan", "learning_rate (train.learning_rate) must be"),
        ("learning_rate: 1e400", "learning_rate (train.learning_rate) must be"),
        ("cutoff_len: 99999999999999999999", "cutoff_len (train.max_length) must be"),
        ("per_device_train_batch_size: 0", "per_device_train_batch_size is a whole number from 1; got 0"),
        ("per_device_train_batch_size: many", "is a whole number from 1; got 'many'"),
        ("warmup_ratio: 2", "warmup_ratio is a share from 0 to below 1; got 2"),
        ("bf16: maybe", "bf16 is true or false; got 'maybe'"),
        ("stage: banana", "stage is one of"),
        ("dataset: 3", "dataset is the name of a data set; got 3"),
        ("deepspeed: 3", "deepspeed is a file or keys; got 3"),
        ("deepspeed: no/such.json", "there is no no/such.json"),
        ("deepspeed: {zero_optimization: 3}", "zero_optimization is keys and values; got 3"),
        ("deepspeed: {zero_optimisation: {stage: 2}}", "did you mean 'zero_optimization"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(written: Written, rows: Path, line: str, message: str) -> None:
    text = GOOD.replace("stage: sft\n", "") if line.startswith("stage") else GOOD
    path = written(f"{text}template: x\n{line}\n")
    first = first_problem(path, rows=None if line.startswith("dataset") else rows)
    assert message in first.message
    assert first.message.startswith(f"{path}:{3 if line.startswith('stage') else 4}: ")
    assert first.exit_code == 2


def test_data_that_does_not_fit_is_refused_with_its_line(written: Written, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\n', encoding="utf8")
    done = import_files([written(GOOD)], Wishes(data=bad))
    assert done.job is None
    assert "bad.jsonl:1" in done.problems[0].message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(FORMATS), data=st.data())
def test_whatever_a_key_holds_the_answer_is_a_job_or_a_line(
    form: Format, data: st.DataObject, tmp_path: Path, rows: Path
) -> None:
    keys = data.draw(st.lists(st.sampled_from(sorted(form.keys)), min_size=1, max_size=4, unique=True))
    lines = [f'"{key}": {flow(data.draw(VALUES))}' for key in keys if "." not in key]
    path = tmp_path / "theirs.yaml"
    path.write_text("\n".join(lines) or "a: 1", encoding="utf8", errors="replace")
    try:
        done = import_files([path], Wishes(form=form.name, data=rows))
    except FtwizError as error:
        messages = [error.message]
    else:
        messages = [problem.message for problem in done.problems]
        assert (done.job is None) == bool(messages)
    assert all("\n" not in message for message in messages)
