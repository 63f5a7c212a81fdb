"""The wizard line by line: same questions, same job file, also on a terminal that can do nothing."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pexpect
import pytest
from textual.widgets import Input

from ftwiz.engine.job import LoadedJob, load_job
from ftwiz.engine.specs.machine import Machine
from ftwiz.tui.plain import run_plain_wizard
from ftwiz.tui.wizard import WizardResult
from ftwiz.tui.wizard.app import WizardApp

pytestmark = pytest.mark.timeout(60)

ANSWERS = {
    "model": "Qwen/Qwen3-0.6B",
    "data": "sums.jsonl",
    "goal": "chat",
    "method": "lora",
    "settings": "train.max_length=512",
    "name": "my-sums",
}
IN_TERMINAL = """
import sys
from pathlib import Path
from ftwiz.engine.job import load_job
from ftwiz.engine.specs.machine import Host, Machine
from ftwiz.tui.plain import run_plain_wizard
machine = Machine(host=Host(name="box", num_cpus=8))
print(run_plain_wizard(machine, preset=load_job(Path("presets/demo.yaml"))))
"""
Talk = Callable[..., tuple[WizardResult | None, list[str]]]


@pytest.fixture
def talk(cpu_box: Machine, preset: LoadedJob) -> Talk:
    """Answer line by line; returns the result and everything that was said, prompts included."""

    def run(*lines: str, machine: Machine = cpu_box) -> tuple[WizardResult | None, list[str]]:
        said: list[str] = []
        left = iter(lines)

        def ask(prompt: str, *, complete: Callable[[str], Sequence[str]] | None = None) -> str:
            said.append(prompt)
            line = next(left, None)
            if line is None:
                raise EOFError
            return line

        return run_plain_wizard(machine, preset=preset, ask=ask, write=said.append), said

    return run


def test_enter_takes_every_default_and_starts_the_demo(talk: Talk, folder: Path) -> None:
    result, said = talk("", "", "", "", "", "", "", "")
    assert result == WizardResult(job=load_job(folder / "demo.yaml").job, path=Path("demo.yaml"), launch=True)
    assert said[0] == "no accelerator found: training on 8 CPUs, 60.0 GiB of 64.0 GiB memory free"
    assert "  questions and answers, 540 rows to train on, 60 held out" in said
    assert "  Reverse the word: w0 -> 0w" in said
    assert "plan: the CPU, 32 sequences at once, float32" in said


async def test_both_faces_write_the_same_file_from_the_same_answers(
    talk: Talk, folder: Path, cpu_box: Machine, preset: LoadedJob
) -> None:
    result, _ = talk(*ANSWERS.values(), "plain.yaml", "no")
    assert result is not None
    assert not result.launch
    app = WizardApp(cpu_box, preset)
    async with app.run_test() as pilot:
        for field in ("model", "data", "settings", "name"):
            app.query_one(f"#{field}", Input).value = ANSWERS[field]
            await pilot.pause()
        await pilot.press("c", "down", "down", "down", "right")
        await pilot.press("ctrl+s")
        while len(app.screen_stack) == 1:
            await pilot.pause(0.05)
        app.screen.query_one("#path", Input).value = "screen.yaml"
        await pilot.pause()
        await pilot.press("enter")
    plain, screen = ((folder / f"{face}.yaml").read_text(encoding="utf8") for face in ("plain", "screen"))
    assert plain == screen
    job = load_job(folder / "plain.yaml").job
    assert (job.model.name_or_path, job.method.kind, job.run.name) == ("Qwen/Qwen3-0.6B", "lora", "my-sums")
    assert job.data.path == str(folder / "sums.jsonl")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((":quit",), "left; nothing was written"),
        ((), "left; nothing was written"),
        ((":help",), "  The model that training starts from. Local folder"),
        ((":why",), "  no command :why. "),
        (("./nowhere",), "no such file or directory"),
        (("", "nowhere.jsonl"), "  nowhere.jsonl: cannot be read: No such file or directory"),
        (("", "", "", "dora"), "  dora is no method: lora or qlora or full"),
        (("", "", "", "", "", "two words"), "  letters, digits, dots"),
    ],
)
def test_commands_and_mistakes_are_answered_and_nothing_is_written(
    talk: Talk, folder: Path, lines: tuple[str, ...], said: str
) -> None:
    result, spoken = talk(*lines)
    assert result is None
    assert any(said in line for line in spoken)
    assert not list(folder.glob("*.yaml"))


def test_back_asks_again_and_shows_the_answer_that_was_given(talk: Talk) -> None:
    _, said = talk("Qwen/Qwen3-0.6B", "sums.jsonl", ":back", ":back", "", "")
    prompts = [line for line in said if line.endswith("]: ")]
    assert prompts[2].startswith("Goal")
    assert prompts[3].endswith("[sums.jsonl]: ")
    assert prompts[4].endswith("[Qwen/Qwen3-0.6B]: ")
    assert prompts[5].endswith("[sums.jsonl]: ")


def test_back_from_the_file_asks_for_the_name_again(talk: Talk, folder: Path) -> None:
    result, _ = talk("", "", "", "", "", "", ":back", "other", "", "no")
    assert result is not None
    assert (result.path, result.launch) == (Path("other.yaml"), False)
    assert load_job(folder / "other.yaml").name == "other"


def test_a_file_that_is_there_is_replaced_only_when_told_so(talk: Talk, folder: Path) -> None:
    (folder / "demo.yaml").write_text("precious", encoding="utf8")
    result, said = talk("", "", "", "", "", "", "demo.yaml", "", "demo.yaml", ":quit")
    assert result is None
    assert (folder / "demo.yaml").read_text(encoding="utf8") == "precious"
    result, said = talk("", "", "", "", "", "", "nowhere/a.yaml", "no", "demo.yaml", "yes", "no")
    assert "  nowhere/a.yaml: cannot be written: No such file or directory" in said
    assert result is not None
    assert load_job(folder / "demo.yaml").job == result.job


def test_a_terminal_cannot_be_commanded_by_a_file(talk: Talk, folder: Path) -> None:
    (folder / "x.jsonl").write_text('{"question": "\\u001b[2Jhi", "answer": "\\u202eyo"}\n', encoding="utf8")
    _, said = talk("", "x.jsonl")
    assert "  \ufffd[2Jhi -> yo" in said


@pytest.fixture(params=["dumb", "xterm-256color"])
def terminal(
    request: pytest.FixtureRequest, preset: LoadedJob, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator["pexpect.spawn[str]"]:
    """A real pseudo terminal that runs the plain wizard."""
    monkeypatch.setenv("TERM", request.param)
    child = pexpect.spawn(
        sys.executable, ["-c", IN_TERMINAL], timeout=20, encoding="utf8", dimensions=(24, 200)
    )
    yield child
    child.close(force=True)


def test_a_real_terminal_is_asked_line_by_line(terminal: "pexpect.spawn[str]", folder: Path) -> None:
    for prompt, answer in (
        ("Model: local folder", ":help"),
        ("The model that training starts from", None),
        ("Model: local folder", ""),
        ("Data: a .jsonl", "sums.jsonl"),
        ("200 rows", None),
        ("Goal: chat", ""),
        ("Method: lora, qlora or full", "lora"),
        ("Settings: key=value", ""),
        ("Name of the run", ""),
        ("plan: the CPU", None),
        ("Job file", ""),
        ("Start training now", "no"),
    ):
        terminal.expect_exact(prompt)
        if answer is not None:
            terminal.send(f"{answer}\r")
    terminal.expect_exact("WizardResult(")
    terminal.expect(pexpect.EOF)
    job = load_job(folder / "sums-lora.yaml").job
    assert (job.model.name_or_path, job.method.kind) == ("ftwiz:demo", "lora")


def test_control_c_leaves_without_a_traceback(terminal: "pexpect.spawn[str]", folder: Path) -> None:
    terminal.expect_exact("Model: local folder")
    terminal.sendcontrol("c")
    terminal.expect_exact("left; nothing was written")
    terminal.expect(pexpect.EOF)
    assert "Traceback" not in str(terminal.before)
    assert not list(folder.glob("*.yaml"))
