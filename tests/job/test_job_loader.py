"""Layers, sources, paths and overrides of a job; hostile names are case I9."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.job import LoadedJob, Source, load_job, parse_job

STAGES = "pt, sft, rm, dpo, kto, orpo, simpo, grpo, rloo"

Refuse = Callable[..., BadInput]
SMALLEST = "model: {name_or_path: Qwen/Qwen3-0.6B}\ndata: {path: rows.jsonl}\n"
pytestmark = pytest.mark.timeout(20)


def parse(text: str, *overrides: str) -> LoadedJob:
    return parse_job(text, name="job.yaml", base=Path("/jobs"), overrides=overrides)


def test_every_value_knows_who_decided_it() -> None:
    loaded = parse(
        f"{SMALLEST}train: {{seed: 1, max_length: 64}}\n", "train.seed=2", "data.columns.prompt=question"
    )
    assert loaded.job.train.seed == 2
    assert loaded.sources["train.seed"] is Source.COMMAND_LINE
    assert loaded.sources["data.columns"] is Source.COMMAND_LINE
    assert loaded.sources["train.max_length"] is Source.FILE
    assert loaded.sources["train.optim"] is Source.DEFAULT
    assert loaded.sources["version"] is Source.DEFAULT
    assert str(Source.COMMAND_LINE) == "command line"


def test_sources_name_every_key_of_the_job() -> None:
    loaded = parse(SMALLEST)
    for dotted in loaded.sources:
        value: object = loaded.job
        for key in dotted.split("."):
            value = getattr(value, key)
    assert len(loaded.sources) > 40


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.learning_rate=1e-4", "train", "learning_rate", 1e-4),
        ("train.packing=true", "train", "packing", True),
        ("method.target_modules=[q_proj, v_proj]", "method", "target_modules", ("q_proj", "v_proj")),
        ("data.system=You are: helpful # really", "data", "system", "You are: helpful # really"),
        ("data.system=*a &b !c %d @e", "data", "system", "*a &b !c %d @e"),
        ("data.system=no", "data", "system", "no"),
        ("data.system=a=b", "data", "system", "a=b"),
        ("data.system=two\nlines", "data", "system", "two\nlines"),
        ('model.revision="1234567"', "model", "revision", "1234567"),
        ("data.columns={prompt: q}", "data", "columns", {"prompt": "q"}),
        ("data.num_rows=", "data", "num_rows", None),
        (" train.seed = 7 ", "train", "seed", 7),
        ("train.extra.adam_beta2=0.98", "train", "extra", {"adam_beta2": 0.98}),
    ],
)
def test_an_override_is_read_by_the_rules_of_the_file(
    override: str, section: str, key: str, value: object
) -> None:
    loaded = parse(SMALLEST, override)
    assert getattr(getattr(loaded.job, section), key) == value
    assert loaded.sources[f"{section}.{key}"] is Source.COMMAND_LINE


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.lerning_rate=1",
            ("--set train.lerning_rate: unknown key 'lerning_rate' in train; did you mean 'learning_rate'?"),
        ),
        (
            "train.seed=-1",
            "--set train.seed: train.seed must be a whole number from 0 to 4,294,967,295; got -1",
        ),
        (
            "train.seed=010",
            "--set train.seed: 010 is octal to some readers and 10 to others; write 10, or quote it",
        ),
        ("train.seed", "--set 'train.seed': is not KEY=VALUE"),
        ("=1", "--set '=1': is not KEY=VALUE"),
        ("train..seed=1", "--set 'train..seed=1': is not KEY=VALUE"),
        ("stage.kind=1", f"--set stage.kind: stage must be one of {STAGES}; got keys and values"),
        (
            "method.target_modules=[q_proj",
            ("--set method.target_modules: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ),
        ("data.system=!!python/name:os.system", None),
        (
            "train.extra={a: !!python/name:os.system x}",
            (
                "--set train.extra: the tag "
                "'tag:yaml.org,2002:python/name:os.system' is not allowed; nothing in a job file is run"
            ),
        ),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(
    refusal_of_text: Refuse, override: str, message: str | None
) -> None:
    if message is None:  # plain text, however it looks
        assert parse(SMALLEST, override).job.data.system == override.partition("=")[2]
    else:
        assert refusal_of_text(SMALLEST, [override]).message == message


def test_a_section_whose_lines_are_all_commented_out_is_as_if_absent() -> None:
    assert parse(f"{SMALLEST}train:\n#  seed: 1\nplan: null\n").job == parse(SMALLEST).job


def test_paths_of_the_file_start_at_the_file_and_those_of_set_at_the_current_folder(
    job_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    (other / "model").mkdir(parents=True)
    (other / "here.jsonl").write_text("{}\n")
    (job_folder / "my-model").mkdir()
    monkeypatch.chdir(other)
    path = job_folder / "job.yaml"
    path.write_text(
        "model: {name_or_path: my-model}\ndata: {path: rows.jsonl, eval_path: ../jobs/rows.jsonl}\n"
    )
    job = load_job(Path("../jobs/job.yaml")).job
    assert job.model.name_or_path == str(job_folder / "my-model")
    assert job.data.path == str(job_folder / "rows.jsonl")
    assert job.data.eval_path is not None
    assert Path(job.data.eval_path).samefile(job_folder / "rows.jsonl")
    job = load_job(path, overrides=["data.path=here.jsonl", "model.name_or_path=./model"]).job
    assert (job.data.path, job.model.name_or_path) == (str(other / "here.jsonl"), str(other / "model"))


def test_home_is_expanded(job_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(job_folder))
    path = job_folder / "job.yaml"
    path.write_text("model: {name_or_path: ftwiz:demo}\ndata: {path: ~/rows.jsonl}\n")
    loaded = load_job(path)
    assert loaded.job.data.path == str(job_folder / "rows.jsonl")
    assert loaded.job.model.name_or_path == "ftwiz:demo"


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "gpt2", "_org/x.y"])
def test_model_ids_stay_as_they_are(job_folder: Path, name: str) -> None:
    path = job_folder / "job.yaml"
    path.write_text(f"model: {{name_or_path: {name}}}\ndata: {{path: rows.jsonl}}\n")
    assert load_job(path).job.model.name_or_path == name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("./gone", "no such file or directory: "),
        ("/gone/model", "no such file or directory: /gone/model"),
        ("~/gone", "no such file or directory: "),
        ("a/b/c", "'a/b/c' is neither a folder here nor a model id like Qwen/Qwen3-0.6B"),
        ("my model", "is neither a folder here nor a model id"),
        ("ftwiz:dmeo", "there is ftwiz:demo"),
        ("rows.jsonl", "is not a folder: "),
        ('"a\\0b"', "is neither a folder"),
        ('"/a\\0b"', "a path cannot hold a NUL character"),
        (f"./{'x' * 256}", "file name too long"),
    ],
)
def test_a_model_that_cannot_be_is_named_with_line_and_key(
    job_folder: Path, refusal_of_file: Refuse, name: str, part: str
) -> None:
    path = job_folder / "job.yaml"
    path.write_text(f"data: {{path: rows.jsonl}}\nmodel:\n  name_or_path: {name}\n")
    message = refusal_of_file(path).message
    assert message.startswith(f"{path}:3: model.name_or_path: ")
    assert part in message


def test_data_that_is_not_there_is_named_with_line_and_key(job_folder: Path, refusal_of_file: Refuse) -> None:
    path = job_folder / "job.yaml"
    path.write_text("model: {name_or_path: gpt2}\ndata:\n  path: gone.jsonl\n  eval_path: .\n")
    error = refusal_of_file(path)
    assert error.message == f"{path}:3: data.path: no such file or directory: {job_folder}/gone.jsonl"
    assert error.hint == f"then: {path}:4: data.eval_path: is a folder, not a data file: {job_folder}"
    error = refusal_of_file(path, ["data.path=gone", "data.eval_path=null"])
    assert error.message.startswith("--set data.path: data.path: no such file or directory: ")


@pytest.mark.parametrize(
    "name",
    [
        "sp ace.jsonl",
        "übung 訓練.jsonl",
        "two\nlines.jsonl",
        "-rf.jsonl",
        "$(touch PWN).jsonl",
        "`touch PWN`;touch PWN.jsonl",
        "'quotes\".jsonl",
        "#hash: colon.jsonl",
        "esc\x1b[2J.jsonl",
        f"{'n' * 249}.jsonl",
    ],
)
def test_files_with_hostile_names_are_found_and_nothing_is_run(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name.removesuffix(".jsonl")
    folder.mkdir()
    data = folder / name
    data.write_text("{}\n")
    path = folder / f"{name.removesuffix('.jsonl')}.yaml"
    path.write_text("model: {name_or_path: gpt2}\ndata: {path: x}\n")
    loaded = load_job(path, overrides=[f"data.path={data}"])
    assert loaded.job.data.path == str(data)
    assert loaded.path == path
    assert not list(tmp_path.rglob("PWN"))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("saved", "saved"),
        ("my job (1)", "my-job-1"),
        ("übung", "ubung"),
        ("訓練", "run"),
        ("-rf", "rf"),
        ("$(touch PWN)", "touch-PWN"),
        ("..", "run"),
        ("n" * 250, "n" * 64),
    ],
)
def test_a_run_gets_a_name_that_suits_a_folder(stem: str, name: str) -> None:
    assert parse_job(SMALLEST, name=f"{stem}.yaml", base=Path("/jobs")).name == name


def test_a_run_named_in_the_job_keeps_its_name() -> None:
    assert parse(f"{SMALLEST}run: {{name: mine}}\n").name == "mine"


def test_a_path_that_is_no_text_is_refused(job_folder: Path, refusal_of_file: Refuse) -> None:
    path = job_folder / "job.yaml"
    path.write_text(SMALLEST)
    message = refusal_of_file(path, ["data.path=caf\udce9.jsonl"]).message
    assert message.startswith("--set data.path: data.path must be text")
