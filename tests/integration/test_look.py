"""Looking at a run shows only what is on disk, however fast the run goes on meanwhile."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from orchestrator.engine.engine import Engine
from orchestrator.journal.journal import Commit, LogLine, Record
from orchestrator.journal.memory import MemoryJournal
from orchestrator.service.service import Service
from protocol.security import Principal

ADA = Principal("ada", "admin")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class SlowJournal(MemoryJournal):
    """Commits one append at a time, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Commit, Callable[[], None] | None]] = []

    def append(
        self,
        records: Sequence[Record],
        logs: Sequence[LogLine] = (),
        notify: Callable[[], None] | None = None,
        **_: Any,
    ) -> Commit:
        commit = Commit()
        self.waiting.append((commit, notify))
        return commit

    async def let_one_through(self) -> None:
        while not self.waiting:
            await anyio.lowlevel.checkpoint()
        commit, notify = self.waiting.pop(0)
        commit.settle()
        if notify is not None:
            notify()


class Place:
    def touch(self) -> None:
        """Nobody idles here."""


@pytest.mark.anyio
async def test_a_look_waits_for_all_that_it_shows_to_be_on_disk() -> None:
    journal = SlowJournal()
    engine = Engine(Machine(State(journal=journal.id)), journal, lambda: 1000.0)
    parts: dict[str, Any] = dict.fromkeys(inspect.signature(Service).parameters)
    service = Service(**parts | {"engine": engine, "place": Place()})
    answers: list[str] = []

    async def look() -> None:
        found = msgspec.json.decode(await service.invoke(ADA, "status", b'{"run": 1}'))
        answers.append(found["state"])

    async def decided(stimulus: s.Stimulus, count: int) -> None:
        engine.post(stimulus)
        while len(journal.waiting) < count:
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(engine.begin, 1)
        await journal.let_one_through()
        await group.start(engine.run)
        engine.post(s.Submitted(0, "wait for me", "", "person:ada", settings=s.RunSettings(), home="here"))
        await journal.let_one_through()
        await decided(s.PauseRequested(0, 1, "ada"), 1)
        group.start_soon(look)
        await anyio.lowlevel.checkpoint()
        await decided(s.CancelRequested(0, 1, "", "ada"), 2)
        await journal.let_one_through()
        while not answers:
            await anyio.lowlevel.checkpoint()
        assert len(journal.waiting) == 1
        assert "cancel" not in answers[0]
        group.start_soon(look)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(answers) == 1
        await journal.let_one_through()
        while len(answers) < 2:
            await anyio.lowlevel.checkpoint()
        assert answers[1] != answers[0]
        group.cancel_scope.cancel()
