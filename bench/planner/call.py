"""One call of a planner on its own, without an engine: everything it sent and how it ended, within a limit.

It must not know which planner.
"""

from __future__ import annotations

import time
from typing import Final

import anyio
import msgspec

from planner.planner import Planner, PlanOutcome
from planner.view import PlanView
from protocol.patch import Patch
from protocol.task import Output, TaskSpec

ROOM: Final = 16
GRACE_S: Final = 2.0
"""How much longer than its own deadline a call may take before it counts as one that hangs."""


class Called(msgspec.Struct, frozen=True):
    """`outcome` None: it hung, and was stopped."""

    patches: tuple[Patch, ...]
    outcome: PlanOutcome | None
    seconds: float

    @property
    def tasks(self) -> list[TaskSpec]:
        """In the order in which they were sent."""
        return [task for patch in self.patches for task in patch.tasks]

    @property
    def outputs(self) -> list[Output]:
        return [output for patch in self.patches for output in patch.outputs or ()]


async def call(planner: Planner, view: PlanView) -> Called:
    """Let it plan; stop it GRACE_S after its deadline."""
    found: list[Patch] = []
    outcome: PlanOutcome | None = None
    send, receive = anyio.create_memory_object_stream[Patch](ROOM)

    async def read() -> None:
        async for patch in receive:
            found.append(patch)

    began = time.monotonic()
    with anyio.move_on_after(view.deadline_s + GRACE_S):
        async with receive, anyio.create_task_group() as group:
            group.start_soon(read)
            outcome = await planner.plan(view, send)
    return Called(tuple(found), outcome, time.monotonic() - began)
