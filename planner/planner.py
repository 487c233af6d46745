"""The port of every planner: a view in, patches out one by one as they are written, and how it ended.

`plan` is an ordinary coroutine with its deadlines inside. It sends on a bounded stream, so a slow orchestrator holds
it back; cancelling it cancels whatever it waits for. It must not know who reads the other end.
"""

from __future__ import annotations

from typing import Literal, Protocol

import anyio
import msgspec
from anyio.abc import ObjectSendStream

from protocol.errors import PlannerAbstained, PlannerFailed, PlanRefused, Problem
from protocol.patch import Patch
from protocol.task import Output, Plan, TaskSpec

from .view import PlanView

OutcomeKind = Literal["complete", "truncated", "refused", "abstained", "failed", "unaffordable"]


class PlanOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a planner's call ended.

    complete: the plan is whole. truncated: what was sent is good, more was meant. refused: it asks for something that
    can't be (`problems`). abstained: this planner can't serve the request (`nearest` names skills). failed: no answer.
    unaffordable: what was left of the budget is too little to ask.
    `planner` says who planned: "catalog", "template:NAME", "scripted", "llm:MODEL".
    """

    kind: OutcomeKind
    message: str = ""
    hint: str = ""
    planner: str = ""
    nearest: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    price: float = 0.0


class Planner(Protocol):
    """What the engine runs. `name` is shown to people and kept in the journal. One that doesn't read `view.examples`
    says `learns = False`."""

    @property
    def name(self) -> str: ...

    @property
    def replans(self) -> bool:
        """Whether it can answer a digest: its runs are then re-planned on a failure, unless told otherwise."""
        ...

    async def plan(self, view: PlanView, patches: ObjectSendStream[Patch]) -> PlanOutcome:
        """Send patches in the order in which they may be applied, then return. Closes the stream in every case."""
        ...


async def collect(planner: Planner, view: PlanView) -> tuple[Plan, PlanOutcome]:
    """Run a planner to its end and put its patches together: what `asterism plan` shows.

    Raises: PlannerAbstained, PlanRefused, PlannerFailed when there is no plan to show.
    """
    tasks: dict[str, TaskSpec] = {}
    outputs: tuple[Output, ...] = ()
    outcome = PlanOutcome("failed", "the planner did not return")
    send, receive = anyio.create_memory_object_stream[Patch](16)

    async def run() -> None:
        nonlocal outcome
        async with send:
            outcome = await planner.plan(view, send)

    async with receive, anyio.create_task_group() as group:
        group.start_soon(run)
        async for patch in receive:
            tasks |= {task.id: task for task in patch.tasks}
            outputs = patch.outputs if patch.outputs is not None else outputs
    if outcome.kind == "abstained":
        raise PlannerAbstained(outcome.message, hint=outcome.hint)
    if outcome.kind == "failed":
        raise PlannerFailed(outcome.message, hint=outcome.hint)
    if outcome.kind in ("refused", "unaffordable"):
        raise PlanRefused(outcome.message, hint=outcome.hint, problems=outcome.problems)
    return Plan(tasks=tuple(tasks.values()), outputs=outputs), outcome
