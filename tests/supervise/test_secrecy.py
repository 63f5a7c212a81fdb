"""What a run leaves for others: nothing to read, nothing to talk to, and nothing of it is unpickled."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftwiz.engine.specs.run import RunState

Make = Callable[..., Any]
HOOK = """
import os, sys

def hook(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["FTWIZ_TEST_PICKLES"], "a") as file:
            file.write(f"{sys.argv[:4]} {arguments[:2]}\\n")

sys.addaudithook(hook)
"""


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that forbids nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_whatever_the_umask_nobody_else_may_read_a_run(standin: Make) -> None:
    run = standin("--steps", "5").start()
    assert run.wait_until_over().state is RunState.FINISHED
    paths = [run.run.path, *run.run.path.rglob("*")]
    loose = [path for path in paths if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert loose == []


def test_the_supervisor_listens_nowhere(standin: Make) -> None:
    run = standin().start()
    run.wait_for_step(3)
    supervisor = psutil.Process(run.supervisor.pid)
    assert [found for found in supervisor.net_connections("all") if found.status == psutil.CONN_LISTEN] == []
    assert supervisor.net_connections("inet") == []


def test_no_process_but_a_rank_unpickles_anything(
    standin: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, hook = tmp_path / "pickles", tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("FTWIZ_TEST_PICKLES", str(heard))
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setenv("FTWIZ_HOME", str(tmp_path))
    code = "import pickle; pickle.loads(pickle.dumps(print))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert heard.exists(), "the hook hears nothing"
    heard.unlink()
    run = standin("--steps", "5").start()
    run.wait_until_over()
    for words in (["runs", "--json"], ["watch", run.run.id, "--once", "--json"], ["logs", run.run.id]):
        done = subprocess.run(
            [sys.executable, "-m", "ftwiz", *words], capture_output=True, check=False, cwd=tmp_path
        )
        assert done.returncode in {0, 2}, done.stderr
    assert not heard.exists(), heard.read_text()


def test_deepspeed_is_not_started_by_pdsh_which_writes_the_environment_into_a_file() -> None:
    from ftwiz.engine.backends import backend
    from ftwiz.engine.specs.job import Job
    from ftwiz.engine.specs.plan import Strategy

    strategy = Strategy(
        backend="zero",
        device_kind="cpu",
        num_processes=2,
        micro_batch_size=1,
        gradient_accumulation_steps=8,
        gradient_checkpointing=False,
        mixed_precision="no",
        zero_stage=2,
    )
    job = Job.model_validate({"model": {"name_or_path": "a/b"}, "data": {"path": "rows.jsonl"}})
    files = backend("zero").files(strategy, job, None)
    assert "deepspeed_multinode_launcher: standard" in files["accelerate.yaml"]
