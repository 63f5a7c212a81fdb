"""The wizard's screen, driven by keys: what is typed is checked, and nothing is written before the end."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from ftwiz.engine.job import LoadedJob, load_job
from ftwiz.engine.specs.machine import Machine
from ftwiz.tui.wizard import WizardResult
from ftwiz.tui.wizard.app import WizardApp

pytestmark = pytest.mark.timeout(60)


Settle = Callable[[Pilot[WizardResult]], Awaitable[None]]


@dataclass
class Driver:
    """A running wizard and short ways to use it."""

    app: WizardApp
    pilot: Pilot[WizardResult]
    settled: Settle

    async def press(self, *keys: str) -> None:
        """Press keys one after the other, and wait for what they start."""
        for key in keys:
            await self.pilot.press(key)
        await self.settled(self.pilot)

    async def type(self, text: str) -> None:
        """Replace what the focused field holds."""
        field = self.app.screen.focused
        assert isinstance(field, Input), field
        field.value = text
        await self.settled(self.pilot)

    def says(self, widget: str) -> str:
        """Return the text of a part of the screen."""
        return str(self.app.screen.query_one(f"#{widget}", Static).render())

    @property
    def focused(self) -> str | None:
        """Name of the field that has the focus."""
        focused = self.app.screen.focused
        return None if focused is None else focused.id


Open = Callable[..., AbstractAsyncContextManager[Driver]]


@pytest.fixture
def wizard(cpu_box: Machine, preset: LoadedJob, settle: Settle) -> Open:
    @asynccontextmanager
    async def open_wizard(
        machine: Machine = cpu_box, size: tuple[int, int] = (120, 40)
    ) -> AsyncIterator[Driver]:
        app = WizardApp(machine, preset)
        async with app.run_test(size=size) as pilot:
            driver = Driver(app, pilot, settle)
            await driver.settled(driver.pilot)
            yield driver

    return open_wizard


def job_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.yaml"))


async def test_enter_and_enter_again_writes_the_demo_and_launches_it(wizard: Open, folder: Path) -> None:
    async with wizard() as driver:
        await driver.press("enter")
        assert job_files(folder) == []
        await driver.press("enter")
    result = driver.app.return_value
    assert result == WizardResult(job=load_job(folder / "demo.yaml").job, path=Path("demo.yaml"), launch=True)
    assert result.job.train.learning_rate == 1e-3
    assert result.job.data.eval_fraction == 0.1


async def test_a_file_that_is_named_is_looked_into_as_it_is_typed(wizard: Open) -> None:
    async with wizard() as driver:
        await driver.press("c", "enter")
        assert driver.focused == "data"
        await driver.type("sums.jsonl")
        note = driver.says("data-note")
        assert "questions and answers, 200 rows, 2 % of them held out" in note
        assert "What is 0 plus 0? -> 0" in note
        assert driver.app.draft.answers.name == "sums-full"
        assert driver.app.query_one("#name", Input).value == "sums-full"
        assert "sums.jsonl" in driver.says("file")


@pytest.mark.parametrize(
    ("field", "text", "problem"),
    [
        ("model", "", "type a folder, a model id"),
        ("model", "./nowhere", "no such file or directory"),
        ("model", "./empty", "config.json"),
        ("model", "what is this", "neither a folder here nor a model id"),
        ("data", "", "type the path of"),
        ("data", "nowhere.jsonl", "nowhere.jsonl: cannot be read: No such file or directory"),
        ("data", "empty", "is a folder, not a data file"),
        ("data", "presets/demo.yaml", "unknown kind of file '.yaml'"),
        ("data", "a\u202eb.jsonl", "character that cannot be shown"),
        ("name", "", "type a name"),
        ("name", "two words", "letters, digits, dots"),
        ("name", "../up", "letters, digits, dots"),
    ],
)
async def test_what_cannot_be_used_is_said_at_its_field_and_cannot_be_written(
    wizard: Open, folder: Path, field: str, text: str, problem: str
) -> None:
    async with wizard() as driver:
        driver.app.query_one(f"#{field}").focus()
        await driver.pilot.pause()
        await driver.type(text)
        assert problem in driver.says(f"{field}-note")
        assert driver.app.query_one(f"#{field}-note").has_class("problem")
        await driver.press("f2")
        assert driver.focused == field
        await driver.press("ctrl+s")
        assert len(driver.app.screen_stack) == 1
        await driver.press("ctrl+q")
    assert driver.app.return_value is None
    assert job_files(folder) == []


async def test_a_wrong_row_is_named_with_file_and_line(wizard: Open, folder: Path) -> None:
    rows = [{"question": "a", "answer": "b"}, {"question": "a", "answer": None}]
    (folder / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    async with wizard() as driver:
        await driver.press("c", "enter")
        await driver.type("bad.jsonl")
        assert driver.says("data-note") == "bad.jsonl:2: answer is null"


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 12)])
async def test_one_can_go_back_and_every_answer_stays(wizard: Open, size: tuple[int, int]) -> None:
    async with wizard(size=size) as driver:
        await driver.press("c")
        await driver.type("Qwen/Qwen3-0.6B")
        await driver.press(*["enter"] * 5)
        assert driver.focused == "name"
        back = (("escape", "settings"), ("ctrl+b", "method"), ("up", "goal"), ("up", "data"), ("up", "model"))
        for key, field in back:
            await driver.press(key)
            assert driver.focused == field
        assert driver.app.query_one("#model", Input).value == "Qwen/Qwen3-0.6B"
        await driver.press(*["down"] * 6)
        assert driver.focused == "start"


async def test_q_is_a_letter_in_a_field_and_leaves_elsewhere(wizard: Open, folder: Path) -> None:
    async with wizard() as driver:
        await driver.press("c", "end", "q")
        assert driver.app.query_one("#model", Input).value == "ftwiz:demoq"
        await driver.press("down", "down", "q")
    assert driver.app.return_value is None
    assert job_files(folder) == []


async def test_what_suits_the_demo_is_not_kept_for_another_model(wizard: Open) -> None:
    async with wizard() as driver:
        await driver.press("c")
        await driver.type("Qwen/Qwen3-0.6B")
        job = driver.app.review.job
        assert job is not None
        assert (job.train.learning_rate, job.train.max_length, job.method.kind) == ("auto", 1024, "full")
        assert job.data.eval_fraction == 0.1


async def test_rows_of_ones_own_are_held_out_when_there_are_enough(wizard: Open, folder: Path) -> None:
    (folder / "few.jsonl").write_text('{"question": "a", "answer": "b"}\n', encoding="utf8")
    async with wizard() as driver:
        await driver.press("c", "enter")
        for name, share in (("sums.jsonl", 0.02), ("few.jsonl", 0.0)):
            await driver.type(name)
            assert driver.app.review.job is not None
            assert driver.app.review.job.data.eval_fraction == share


async def test_another_method_takes_its_own_learning_rate(wizard: Open) -> None:
    async with wizard() as driver:
        await driver.press("c", "enter", "enter", "enter", "right")
        assert "little memory" in driver.says("method-note")
        job = driver.app.review.job
        assert job is not None
        assert (job.method.kind, job.train.learning_rate) == ("lora", "auto")
        await driver.press("left")
        assert driver.app.draft.answers.method == "full"


async def test_a_name_that_was_chosen_stays(wizard: Open) -> None:
    async with wizard() as driver:
        await driver.press("c", *["enter"] * 5)
        await driver.type("mine")
        await driver.press(*["escape"] * 4)
        await driver.type("sums.jsonl")
        assert driver.app.draft.answers.name == "mine"


async def test_a_file_that_is_there_is_replaced_only_after_a_second_enter(wizard: Open, folder: Path) -> None:
    (folder / "demo.yaml").write_text("precious", encoding="utf8")
    async with wizard() as driver:
        await driver.press("ctrl+s")
        assert driver.app.screen.query_one("#path", Input).value == "demo-2.yaml"
        await driver.type("demo.yaml")
        await driver.press("enter")
        assert "is there already: Enter again replaces it" in driver.says("path-note")
        await driver.type("other.yaml")
        await driver.type("demo.yaml")
        await driver.press("enter")
        assert (folder / "demo.yaml").read_text(encoding="utf8") == "precious"
        await driver.press("enter")
    assert driver.app.return_value == WizardResult(
        job=load_job(folder / "demo.yaml").job, path=Path("demo.yaml"), launch=False
    )


async def test_a_path_that_cannot_be_written_is_said_and_can_be_changed(wizard: Open, folder: Path) -> None:
    async with wizard() as driver:
        await driver.press("f2")
        reasons = {"nowhere/a.yaml": "No such file", "empty": "is a folder", "": "is a folder"}
        for path, reason in reasons.items():
            await driver.type(path)
            await driver.press("enter")
            assert reason in driver.says("path-note")
        await driver.press("escape")
        assert len(driver.app.screen_stack) == 1
        await driver.press("f2", "enter")
    assert job_files(folder) == ["demo.yaml"]


async def test_tab_completes_a_path_and_goes_on_when_there_is_nothing_to_complete(wizard: Open) -> None:
    async with wizard() as driver:
        await driver.press("c", "tab")
        assert driver.focused == "data"
        await driver.type("su")
        await driver.press("tab")
        assert driver.app.query_one("#data", Input).value == "sums.jsonl"
        assert driver.focused == "data"
        await driver.press("tab")
        assert driver.focused == "goal"
        await driver.press("shift+tab")
        await driver.type("emp")
        await driver.press("tab")
        assert driver.app.query_one("#data", Input).value == "empty/"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("f1",), "Writes these answers into a job file"),
        (("question_mark",), "Writes these answers into a job file"),
        (("c", "f1"), "The model that training starts from. Local folder"),
        (("c", "down", "f1"), "The examples that the model learns from"),
        (("c", "down", "down", "down", "question_mark"), "lora trains small added matrices"),
        (("c", "down", "down", "f1"), "What the model is to learn"),
        (("c", *["down"] * 5, "f1"), "What you will call this training"),
    ],
)
async def test_help_tells_what_a_field_is(wizard: Open, keys: tuple[str, ...], words: str) -> None:
    async with wizard() as driver:
        await driver.press(*keys)
        assert words in str(driver.app.screen.query_one(".text", Static).render())
        await driver.press("escape")
        assert len(driver.app.screen_stack) == 1


async def test_a_narrow_screen_shows_the_job_file_on_request(wizard: Open) -> None:
    async with wizard(size=(80, 24)) as driver:
        side, form = driver.app.query_one("#side"), driver.app.query_one("#form")
        assert (side.display, form.display) == (False, True)
        await driver.press("f3")
        assert (side.display, form.display) == (True, False)
        await driver.press("f3")
        assert (side.display, form.display) == (False, True)


async def test_the_plan_of_a_machine_is_told_in_words(wizard: Open, gpu_box: Machine) -> None:
    async with wizard(gpu_box) as driver:
        assert "2 x NVIDIA L40S, 46.0 GiB of 48.0 GiB free each" in driver.says("header")
        plan = driver.says("plan")
        assert plan.startswith("2 devices side by side, 16 sequences at once, 32 per step, bfloat16")
        assert "one rank on each of 2 devices" in plan


async def test_what_files_hold_cannot_command_the_screen(wizard: Open, folder: Path) -> None:
    rows = {"question": "\x1b[2J[bold red]boo[/]", "answer": "\u202eevil", "[/x]": 1}
    (folder / "[red]x[b].jsonl").write_text(json.dumps(rows), encoding="utf8")
    async with wizard() as driver:
        await driver.press("c", "enter")
        await driver.type("[red]x[b].jsonl")
        note = driver.says("data-note")
        assert "[bold red]boo[/] -> evil" in note
        assert "\x1b" not in note


@pytest.mark.parametrize("seed", range(2))
async def test_no_row_of_keys_ends_it_badly_or_writes_a_file(wizard: Open, folder: Path, seed: int) -> None:
    moves = ["tab", "shift+tab", "up", "down", "left", "right", "escape", "ctrl+b", "home", "end", "c", "f1"]
    edits = ["f3", "space", "backspace", "delete", "ctrl+k", "a", "slash", "full_stop", "question_mark"]
    chosen = random.Random(seed).choices(moves + edits, k=40)  # noqa: S311 - which keys, not secrets
    async with wizard(size=(80, 24)) as driver:
        for number, key in enumerate(chosen):
            await driver.pilot.press(key)
            if number % 20 == 0:
                await driver.pilot.resize_terminal(*((40, 10), (120, 40), (80, 24))[number // 20 % 3])
        await driver.settled(driver.pilot)
        assert driver.app.is_running
    assert job_files(folder) == []
