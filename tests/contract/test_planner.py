"""What every planner owes the engine, on each of the three; the model's server is scripted, its HTTP is real."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import pytest

from planner.catalog_planner import CatalogPlanner
from planner.llm_planner import LlmPlanner
from planner.planner import Planner, PlanOutcome, collect
from planner.scripted.dialogue import Dialogue
from planner.scripted.planner import Script, ScriptedPlanner
from planner.scripted.server import ScriptedServer
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.chat_client import open_chat
from protocol.errors import PlannerAbstained, PlanRefused
from protocol.patch import Patch
from protocol.setting import LlmDefaults

ECHO: dict[str, Any] = {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": 1}}]}
NEXT: dict[str, Any] = {"tasks": [{"id": "b", "skill": "flow.echo", "args": {"value": {"ref": "a"}}}], "outputs": []}
VIEW = PlanView("echo(1) as a -> echo as b", skills=BUILTINS)


T = TypeVar("T")
Make = Callable[[str], Planner]
"""Of the base URL of a server that plays the plan; who needs none ignores it."""


def scripted(url: str) -> Planner:
    return ScriptedPlanner([(0, ECHO), (0, NEXT)])


def catalog(url: str) -> Planner:
    return CatalogPlanner()


def llm(url: str) -> Planner:
    return LlmPlanner(open_chat(LlmDefaults(base_url=url), {}))


def abstaining(url: str) -> Planner:
    return ScriptedPlanner()


def silenced(url: str) -> Planner:
    return llm("http://127.0.0.1:9/v1")


def played(make: Make, use: Callable[[Planner], Awaitable[T]]) -> T:
    """What `use` makes of the planner, while the server is there."""

    async def main() -> T:
        text = json.dumps({"tasks": [*ECHO["tasks"], *NEXT["tasks"]], "outputs": []})
        async with ScriptedServer(Dialogue(text)) as server:
            return await use(make(server.base_url))

    return anyio.run(main)


@pytest.mark.parametrize("make", [scripted, catalog, llm])
def test_patches_arrive_in_an_order_in_which_they_can_be_applied(make: Make) -> None:
    plan, outcome = played(make, lambda planner: collect(planner, VIEW))
    assert outcome.kind == "complete"
    assert outcome.planner
    assert [task.id for task in plan.tasks] == ["a", "b"]


@pytest.mark.parametrize("make", [scripted, catalog, llm, abstaining, silenced])
def test_the_stream_is_closed_when_the_call_is_over(make: Make) -> None:
    async def use(planner: Planner) -> None:
        send, receive = anyio.create_memory_object_stream[Patch](16)
        async with receive, anyio.create_task_group() as group:
            group.start_soon(planner.plan, VIEW, send)
            _ = [patch async for patch in receive]  # ends only when the planner closes its side

    played(make, use)


@pytest.mark.parametrize("make", [scripted, catalog, llm])
def test_a_reader_that_does_not_read_holds_it_back_and_cancelling_ends_it(make: Make) -> None:
    async def use(planner: Planner) -> bool:
        send, receive = anyio.create_memory_object_stream[Patch](0)
        async with receive, anyio.create_task_group() as group:
            ended = anyio.Event()

            async def run() -> None:
                try:
                    await planner.plan(VIEW, send)
                finally:
                    ended.set()

            group.start_soon(run)
            await receive.receive()
            group.cancel_scope.cancel()
        return ended.is_set()

    assert played(make, use)


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
