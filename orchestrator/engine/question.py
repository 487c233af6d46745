"""Requests that wait for their answer, which comes once what it says is on disk.

Invariant: every one is answered or told why not: also when the disk becomes full, and when the engine ends. It must not
know what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from protocol.errors import AsterismError, Unavailable


class _Question:
    __slots__ = ("done", "error", "patient", "value")

    def __init__(self, patient: bool) -> None:
        self.done = anyio.Event()
        self.patient = patient
        self.value: Any = None
        self.error: AsterismError | None = None


class Questions:
    """Numbered by `reply`, which starts at 1: 0 is nobody's."""

    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._asked = 0

    async def ask(self, post: Callable[[int], None], patient: bool) -> Any:
        """Hand a number to `post` and wait for its answer; a `patient` one waits for a disk that is full, too.

        Raises: the error it was answered with.
        """
        self._asked += 1
        reply, question = self._asked, _Question(patient)
        self._open[reply] = question
        try:
            post(reply)
            await question.done.wait()
        finally:
            del self._open[reply]
        if question.error is not None:
            raise question.error
        return question.value

    def answer(self, reply: int, value: Any = None, error: AsterismError | None = None) -> None:
        """The first answer counts; a number that nobody waits for is dropped."""
        question = self._open.get(reply)
        if question is not None and not question.done.is_set():
            question.value, question.error = value, error
            question.done.set()

    def disk_full(self) -> None:
        """What they asked for may have been decided: it is written down, and counts, once there is room."""
        for reply, question in self._open.items():
            if not question.patient:
                self.answer(reply, error=_unsaid())

    def close(self) -> None:
        for reply in self._open:
            self.answer(reply, error=stopped())


def _unsaid() -> Unavailable:
    return Unavailable(
        "the disk of the server became full before this was written down: it counts once there is room",
        hint="make room there (asterism gc), then look whether it did (asterism ps), or ask again under the same --id",
    )


def stopped() -> Unavailable:
    return Unavailable("the server is stopping", hint="start it again, or wait for it: nothing on disk is lost")
