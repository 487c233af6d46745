"""A fleet of real processes whose planner asks a model that this process plays: the scripted server, over real HTTP.

One orchestrator, one worker with room for everything, the LLM planner. What is told of a run is read from its events
and from when the server wrote each token; both go by clocks that start at the same wall clock. Invariant: whatever
happens, every process that was started here is gone. It must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import msgspec

from orchestrator.client.client import AsyncClient
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Turn
from planner.scripted.server import MODEL, ScriptedServer
from protocol.clock import RunClock
from protocol.errors import NotFound, RunFailed

from ..scenario import Machine, Scenario
from .sample import COMPACT, Document, task_ends, text_of
from .simulated_model import TOKEN
from .timeline import Timeline, timeline

WORKER: Final = Machine("bench-1", slots=4)
PLANNER: Final = "llm"


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
            model = {"OPENAI_BASE_URL": self.server.base_url, "ASTERISM_MODEL": MODEL}
            self.fleet = Scenario(environ={**model, **self._environ})
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
        text = text_of(plan, COMPACT)
        request = f"play plan number {len(self._turns) + 1}"
        self._turns[request] = Turn(
            text=text, rate=1 / token_s if token_s else 0.0, token_chars=TOKEN, unstreamed=not streamed
        )
        live = await self.client.submit(request, planner=PLANNER)
        state = await live.wait()
        found = timeline([row async for row in live.events()])
        if state != "succeeded":
            raise RunFailed(f"{live.name} is {state}: {found.said}", hint="a plan of the bench should have succeeded")
        asked = self._asked[request]
        written, document = _written(asked, plan, text) if streamed else ({}, asked.ended_at)
        return msgspec.structs.replace(found, written=written, document=document)

    def _turn(self, asked: Asked) -> Turn:
        for request in reversed(self._turns):
            if f"\n{request}\n" in f"\n{asked.said}\n":  # a line of its own; those of earlier runs stand in quotes
                self._asked[request] = asked
                return self._turns[request]
        raise NotFound("nothing was requested that this asks for")


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
