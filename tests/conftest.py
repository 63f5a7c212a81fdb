"""What every room's tests may use: real data, a real tiny model, and the command line as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"

TINY_MODEL = """
import sys
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Bytes as tokens: every text can be written, and nothing has to be learned from a corpus.
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
tokens = Tokenizer(models.BPE({token: i for i, token in enumerate(special + alphabet)}, []))
tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokens.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=tokens, pad_token="<|pad|>", eos_token="<|end|>",
    additional_special_tokens=special[2:], model_max_length=256,
)
tokenizer.chat_template = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
))
model.save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
"""


class RunFtwiz(Protocol):
    """``run_ftwiz("plan", "job.yaml", timeout=20)``: the finished process, its output as text."""

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ftwiz`` to its end; ``env`` is added to a clean environment, ``text`` is its input."""


def clean_environment(home: Path) -> dict[str, str]:
    """Return an environment as a fresh login has it: no settings of the caller, no network, one thread."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FTWIZ_HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "huggingface"),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _require(condition: bool, reason: str) -> None:
    if not condition and IN_CI:
        pytest.fail(reason)
    if not condition:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Callable[[bool, str], None]:
    """``require(condition, reason)``: skip with the reason, or fail in CI, where nothing may be missing."""
    return _require


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of recorded and real data: ``$FTWIZ_CORPUS``, or ``../shared/corpus`` beside the checkout."""
    path = Path(os.environ.get("FTWIZ_CORPUS") or ROOT.parent / "shared" / "corpus")
    if not path.is_dir():
        pytest.skip(f"no corpus in {path}: set FTWIZ_CORPUS")
    return path.resolve()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty FTWIZ_HOME."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def run_ftwiz(home: Path) -> RunFtwiz:
    """Run the command line as a user does: a process of its own, a clean environment, runs in ``home``."""

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ftwiz", *map(str, arguments)],
            cwd=cwd or home,
            env=clean_environment(home) | dict(env or {}),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Llama with two layers and a byte tokenizer, as a local Hugging Face folder; same every time."""
    folder = tmp_path_factory.mktemp("tiny-model")
    done = subprocess.run(
        [sys.executable, "-c", TINY_MODEL, str(folder)],
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def qa_rows(tmp_path: Path) -> Path:
    """Forty question/answer rows in a .jsonl file."""
    path = tmp_path / "rows.jsonl"
    rows = ({"question": f"What is {n} plus {n}?", "answer": str(n + n)} for n in range(40))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


@pytest.fixture
def finished_run(home: Path) -> Path:
    """A run folder in ``home`` as a finished run of eight steps leaves it; nothing was trained."""
    from ftwiz import __version__
    from ftwiz.engine.rundir import create
    from ftwiz.engine.specs.events import EndEvent, StateEvent, StepEvent
    from ftwiz.engine.specs.run import Attempt, RunRecord, RunState
    from ftwiz.engine.telemetry import EventLog

    start = 1_700_000_000.0
    run = create(home / "runs", "finished", files={"job.yaml": "version: 1\n"}, now=start)
    attempt = Attempt(number=1, started_at=start, ended_at=start + 9, exit_code=0)
    run.write_record(
        RunRecord(
            id=run.id,
            name="finished",
            state=RunState.FINISHED,
            created_at=start,
            host="testhost",
            ftwiz_version=__version__,
            attempts=(attempt,),
        )
    )
    log = EventLog(run.events_file)
    log.append(StateEvent(t=start, state="running", attempt=1))
    for step in range(1, 9):
        log.append(StepEvent(t=start + step, step=step, max_steps=8, loss=4.0 / step, learning_rate=1e-3))
    log.append(EndEvent(t=start + 9, status="finished", step=8, max_steps=8))
    log.append(StateEvent(t=start + 9, state="finished", attempt=1))
    log.close()
    run.rank_log(0).write_text("training is over\n", encoding="utf8")
    return run.path
