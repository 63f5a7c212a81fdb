"""Asks several questions at the same time and waits only so long for the answers."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class NoAnswer(Exception):  # noqa: N818 - read as a sentence
    """A question was not answered in time."""


class _Question(Generic[Answer]):
    def __init__(self, name: str, ask: Callable[[], Answer]) -> None:
        self.answer: Answer | Exception = NoAnswer()
        self._ask = ask
        self.thread = threading.Thread(target=self._work, name=f"hardware-{name}", daemon=True)

    def _work(self) -> None:
        try:
            self.answer = self._ask()
        except Exception as error:  # noqa: BLE001 - one broken driver must not take the others along
            self.answer = error


def ask_together(
    questions: Mapping[str, Callable[[], Answer]], *, seconds: float
) -> dict[str, Answer | Exception]:
    """Return every answer by its name, or what was raised instead; ``NoAnswer`` when the time is over.

    A call into a driver that hangs cannot be ended from outside: its thread is left behind, and does not
    keep the process alive.
    """
    asked = {name: _Question(name, ask) for name, ask in questions.items()}
    for question in asked.values():
        question.thread.start()
    deadline = time.monotonic() + seconds
    for question in asked.values():
        question.thread.join(max(0.0, deadline - time.monotonic()))
    return {name: question.answer for name, question in asked.items()}
