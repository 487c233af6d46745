"""A fleet of real processes whose planner asks a model that this process plays: the scripted server, over real HTTP.

One orchestrator, one worker with room for everything, the LLM planner. What is told of a run is read from its events
and from when the server wrote each token; both go by clocks that start at the same wall clock. Invariant: whatever
happens, every process that was started here is gone. It must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from orchestrator.client.client import AsyncClient
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Turn
from planner.scripted.server import MODEL, ScriptedServer
from protocol.clock import RunClock
from protocol.errors import NotFound, RunFailed

from ..scenario import Machine, Scenario
from .makespan import Played
from .sample import Document, task_ends, text_of
from .simulated_model import TOKEN

WORKER: Final = Machine("bench-1", slots=4)
PLANNER: Final = "llm"


class Timeline(msgspec.Struct, frozen=True):
    """One run, each time as the clocks show it. `began` and `ended` are of the winning attempts."""

    submitted: float
    planned: float
    settled: float
    state: str
    document: float
    written: Mapping[str, float]
    dispatched: Mapping[str, float]
    began: Mapping[str, float]
    ended: Mapping[str, float]

    def played(self) -> Played:
        written = {name: at - self.submitted for name, at in self.written.items()}
        return Played(written, self.document - self.submitted, self.settled - self.submitted, self.state == "succeeded")

    def busy_s(self) -> float:
        """While the planner was writing: how long at least one task ran."""
        busy, reached = 0.0, self.submitted
        for begin, end in sorted((self.began[name], self.ended[name]) for name in self.ended):
            begin, end = max(begin, reached), min(end, self.planned)
            busy += max(0.0, end - begin)
            reached = max(reached, end)
        return busy


class Stage:
    """`async with Stage() as stage`, then `play` plans, several at a time if you like."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ or {}
        self._turns: dict[str, Turn] = {}
        self._asked: dict[str, Asked] = {}
        self._stack = AsyncExitStack()
        self.fleet: Scenario
        self.client: AsyncClient
        self.server: ScriptedServer

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.server = await stack.enter_async_context(ScriptedServer(self._turn, clock=RunClock()))
            self.fleet = Scenario()
            self.fleet.environ = {
                **{key: value for key, value in self.fleet.environ.items() if not key.startswith("OPENAI_")},
                "OPENAI_BASE_URL": self.server.base_url,
                "ASTERISM_MODEL": MODEL,
                **self._environ,
            }
            await stack.enter_async_context(self.fleet)
            self.client = await stack.enter_async_context(self.fleet.client())
            await self.fleet.start_worker(self.client, WORKER)
            await self.fleet.joined(self.client, WORKER.name)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def play(self, plan: Document, token_s: float, *, streamed: bool) -> Timeline:
        """Request something for which the model writes this plan; how it went.

        Not `streamed`: the server buffers the reply, and sends it when it is complete. Raises: RunFailed.
        """
        text = text_of(plan)
        request = f"play plan number {len(self._turns) + 1}"
        self._turns[request] = Turn(
            text=text, rate=1 / token_s if token_s else 0.0, token_chars=TOKEN, unstreamed=not streamed
        )
        live = await self.client.submit(request, planner=PLANNER)
        state = await live.wait()
        rows = [row async for row in live.events()]
        if state != "succeeded":
            raise RunFailed(f"{live.name} is {state}: {_words(rows)}", hint="a plan of the bench should have succeeded")
        return _timeline(rows, state, plan, text, self._asked[request], streamed)

    def _turn(self, asked: Asked) -> Turn:
        for request in reversed(self._turns):
            if f"{request}\n" in f"{asked.said}\n" or f'{request}"' in asked.said:
                self._asked[request] = asked
                return self._turns[request]
        raise NotFound("nothing was requested that this asks for")


def _timeline(
    rows: list[dict[str, Any]], state: str, plan: Document, text: str, asked: Asked, streamed: bool
) -> Timeline:
    at: dict[str, dict[str, float]] = {"attempt_dispatched": {}, "attempt_ended": {}, "began": {}}
    once: dict[str, float] = {}
    for row in rows:
        kind, when = row["kind"], row["at"]
        if kind in at:
            at[kind][row["task"]] = when
        if kind == "attempt_ended":
            at["began"][row["task"]] = when - row["usage"]["run_s"]
        once[kind] = when
    written, document = _written(asked, plan, text) if streamed else ({}, asked.ended_at)
    return Timeline(
        submitted=once["run_submitted"],
        planned=once["plan_closed"],
        settled=once["run_settled"],
        state=state,
        document=document,
        written=written,
        dispatched=at["attempt_dispatched"],
        began=at["began"],
        ended=at["attempt_ended"],
    )


def _written(asked: Asked, plan: Document, text: str) -> tuple[dict[str, float], float]:
    """When the token with each task's closing brace was written, and the last one."""
    ends = list(zip(task_ends(text, plan), (task["id"] for task in plan["tasks"]), strict=True))
    found: dict[str, float] = {}
    done = 0
    for when, part in asked.written:
        done += len(part)
        while ends and ends[0][0] <= done:
            found[ends.pop(0)[1]] = when
    return found, asked.written[-1][0]


def _words(rows: list[dict[str, Any]]) -> str:
    return "; ".join(str(row["message"]) for row in rows if row.get("message"))
