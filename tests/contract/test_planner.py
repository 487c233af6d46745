"""What every planner owes the engine, on each planner that needs no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from planner.catalog_planner import CatalogPlanner
from planner.planner import Planner, PlanOutcome, collect
from planner.scripted.planner import Script, ScriptedPlanner
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.errors import PlannerAbstained, PlanRefused
from protocol.patch import Patch

ECHO: dict[str, Any] = {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": 1}}]}
NEXT: dict[str, Any] = {"tasks": [{"id": "b", "skill": "flow.echo", "args": {"value": {"ref": "a"}}}], "outputs": []}
VIEW = PlanView("echo(1) as a -> echo as b", skills=BUILTINS)


def scripted() -> Planner:
    return ScriptedPlanner([(0, ECHO), (0, NEXT)])


def catalog() -> Planner:
    return CatalogPlanner()


def abstaining() -> Planner:
    return ScriptedPlanner()


@pytest.mark.parametrize("make", [scripted, catalog])
def test_patches_arrive_in_an_order_in_which_they_can_be_applied(make: Callable[[], Planner]) -> None:
    plan, outcome = anyio.run(collect, make(), VIEW)
    assert outcome.kind == "complete"
    assert outcome.planner
    assert [task.id for task in plan.tasks] == ["a", "b"]


@pytest.mark.parametrize("make", [scripted, catalog, abstaining])
def test_the_stream_is_closed_when_the_call_is_over(make: Callable[[], Planner]) -> None:
    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[Patch](16)
        async with receive, anyio.create_task_group() as group:
            group.start_soon(make().plan, VIEW, send)
            _ = [patch async for patch in receive]  # ends only when the planner closes its side

    anyio.run(main)


@pytest.mark.parametrize("make", [scripted, catalog])
def test_a_reader_that_does_not_read_holds_it_back_and_cancelling_ends_it(make: Callable[[], Planner]) -> None:
    async def main() -> bool:
        send, receive = anyio.create_memory_object_stream[Patch](0)
        async with receive, anyio.create_task_group() as group:
            ended = anyio.Event()

            async def run() -> None:
                try:
                    await make().plan(VIEW, send)
                finally:
                    ended.set()

            group.start_soon(run)
            await receive.receive()
            group.cancel_scope.cancel()
        return ended.is_set()

    assert anyio.run(main)


def test_no_plan_is_an_error_with_the_reason() -> None:
    with pytest.raises(PlannerAbstained):
        anyio.run(collect, CatalogPlanner(), PlanView("make me a sandwich", skills=BUILTINS))
    with pytest.raises(PlanRefused):
        anyio.run(collect, CatalogPlanner(), PlanView("hash(a, b)", skills=BUILTINS))


def test_a_script_plays_one_call_after_the_other_on_the_clock_it_is_given() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    failed = PlanOutcome("truncated", "cut off", tokens_out=7)
    planner = ScriptedPlanner(Script(((1.5, ECHO), (0.5, NEXT)), failed), [(0, {"why": "again", **NEXT})], sleep=sleep)

    async def main() -> tuple[list[Patch], list[PlanOutcome]]:
        patches: list[Patch] = []
        outcomes: list[PlanOutcome] = []
        for view in (VIEW, PlanView("again", digest={"failed": ["a"]}, base=4), VIEW):
            send, receive = anyio.create_memory_object_stream[Patch](16)
            async with receive:
                outcomes.append(await planner.plan(view, send))
                patches += [patch async for patch in receive]
        return patches, outcomes

    patches, outcomes = anyio.run(main)
    assert slept == [1.5, 0.5]
    assert [patch.base for patch in patches] == [-1, -1, 4]
    assert [(one.kind, one.tokens_out, one.planner) for one in outcomes] == [
        ("truncated", 7, "scripted"),
        ("complete", 0, "scripted"),
        ("abstained", 0, "scripted"),
    ]
    assert len(planner.views) == 3


def test_a_script_that_says_nonsense_is_refused_and_one_that_hangs_fails_in_time() -> None:
    async def main(planner: ScriptedPlanner, view: PlanView) -> PlanOutcome:
        send, receive = anyio.create_memory_object_stream[Patch](16)
        async with receive:
            return await planner.plan(view, send)

    outcome = anyio.run(main, ScriptedPlanner([(0, '{"tasks": [{"id": "A"}]}')]), VIEW)
    assert outcome.kind == "refused"
    assert outcome.problems
    hanging = ScriptedPlanner([(0, ECHO)], sleep=anyio.sleep)
    hanging.scripts[0] = Script(((3600.0, ECHO),))
    assert anyio.run(main, hanging, PlanView("x", deadline_s=0.01)).kind == "failed"
