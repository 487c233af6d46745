"""Whoever waits for a run hears of its end, also where that falls between two questions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import anyio
import pytest

from orchestrator.client import live
from orchestrator.client.live import AGAIN_S, AsyncLive
from orchestrator.client.reader import Reader


class Told:
    """A reader of a run that says these states in turn, and whose watches end without a word."""

    def __init__(self, *states: str) -> None:
        self._states = list(states)

    async def ask(self, method: str, run: int) -> dict[str, Any]:
        return {"state": self._states.pop(0)}

    async def events(self, run: int, **_: Any) -> AsyncGenerator[Any, None]:
        for row in ():
            yield row


@pytest.mark.parametrize(
    ("states", "pauses"),
    [
        (("succeeded",), []),
        (("running", "succeeded"), [0.0]),
        (("running", "running", "running", "failed"), [0.0, AGAIN_S, AGAIN_S]),
    ],
)
def test_a_run_that_settles_as_its_watch_begins_is_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], pauses: list[float]
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(live.anyio, "sleep", sleep)
    run = AsyncLive(cast(Reader, Told(*states)), 1, lambda: None)
    assert anyio.run(run.wait) == states[-1]
    assert slept == pauses
