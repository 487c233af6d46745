"""The planner that asks a model, over real HTTP: every end of an answer has its outcome, and nothing hangs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from planner.catalog_planner import CatalogPlanner
from planner.llm_planner import LlmPlanner
from planner.planner import Planner, PlanOutcome, collect
from planner.prompt import first_messages
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Dialogue, Fault, Turn, Usage
from planner.scripted.mishap import mishaps
from planner.scripted.server import ScriptedServer
from planner.view import PlanView
from planner.wire_form import plan_schema
from protocol.builtin import BUILTINS
from protocol.chat import ChatRequest, tokens_in
from protocol.chat_client import open_chat
from protocol.digest import Digest, TaskDigest
from protocol.patch import Patch
from protocol.setting import LlmDefaults

SCAN: dict[str, Any] = {"id": "scan", "on": [], "when": [], "skill": "fs.find", "args": {"path": "logs"}}
COUNT: dict[str, Any] = {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}}}
PLAN = json.dumps({"tasks": [SCAN, COUNT], "outputs": [{"name": "n", "ref": "count"}]})
WRONG = PLAN.replace("text.count", "text.cuont")
NOTATION = "find(logs, *.log) -> count(ERROR) each"
VIEW = PlanView("count the errors", skills=BUILTINS, deadline_s=20.0)


async def ask(
    dialogue: Dialogue | Callable[[Asked], Turn], view: PlanView = VIEW, fallback: Planner | None = None, **more: Any
) -> tuple[PlanOutcome, list[Patch], ScriptedServer]:
    patches: list[Patch] = []
    send, receive = anyio.create_memory_object_stream[Patch](16)
    async with ScriptedServer(dialogue, **more) as server:
        chat = open_chat(LlmDefaults(base_url=server.base_url, first_token=0.3, stall=0.3), {})

        async def read() -> None:
            async with receive:
                async for patch in receive:
                    patches.append(patch)

        with anyio.fail_after(view.deadline_s + 5):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                outcome = await LlmPlanner(chat, fallback).plan(view, send)
    return outcome, patches, server


def ids(patches: list[Patch]) -> list[str]:
    return [task.id for patch in patches for task in patch.tasks]


def test_tasks_leave_while_the_model_writes() -> None:
    async def main() -> None:
        turn = Turn(text=PLAN, faults=(Fault("hold", '"logs"}}'),))
        async with ScriptedServer(Dialogue(turn)) as server:
            send, receive = anyio.create_memory_object_stream[Patch](16)
            planner = LlmPlanner(open_chat(LlmDefaults(base_url=server.base_url), {}))
            async with receive, anyio.create_task_group() as group:
                group.start_soon(planner.plan, VIEW, send)
                first = await receive.receive()
                asked = await server.request(0)
                await asked.holding.wait()
                assert [task.id for task in first.tasks] == ["scan"]
                assert "count" not in asked.text
                asked.release()
                rest = [patch async for patch in receive]
        assert ids(rest) == ["count"]
        assert rest[-1].outputs

    anyio.run(main)


def test_cancelling_closes_the_socket() -> None:
    async def main() -> None:
        async with ScriptedServer(Dialogue(Turn(text=PLAN, faults=(Fault("stall", '"logs"}}'),)))) as server:
            send, receive = anyio.create_memory_object_stream[Patch](16)
            planner = LlmPlanner(open_chat(LlmDefaults(base_url=server.base_url), {}))
            async with receive, anyio.create_task_group() as group:
                group.start_soon(planner.plan, VIEW, send)
                await receive.receive()
                group.cancel_scope.cancel()
            with anyio.fail_after(5):
                await (await server.request(0)).closed.wait()

    anyio.run(main)


def test_one_further_question_names_each_problem_and_mends_the_plan() -> None:
    outcome, patches, server = anyio.run(ask, Dialogue(WRONG, json.dumps({"tasks": [COUNT]})))
    assert (outcome.kind, outcome.calls, outcome.planner) == ("complete", 2, "llm:scripted")
    assert ids(patches) == ["scan", "count"]
    assert patches[-1].outputs
    said = server.asked[1].said
    assert "UnknownSkill at tasks/1/skill" in said
    assert "did you mean text.count?" in said
    assert "accepted and may be running: scan." in said
    assert outcome.tokens_in > 0 < outcome.tokens_out


def test_what_stays_wrong_is_refused_with_its_reasons_and_the_rest_stays() -> None:
    outcome, patches, server = anyio.run(ask, Dialogue(WRONG, WRONG, WRONG))
    assert ids(patches) == ["scan"]
    assert (outcome.kind, outcome.calls) == ("refused", 2)
    assert [one.code for one in outcome.problems] == ["UnknownSkill", "UnknownReference"]
    assert len(server.asked) == 2


def test_an_answer_cut_by_its_limit_is_continued() -> None:
    turn = Turn(text=PLAN[: PLAN.index(', {"id": "count"')], finish="length")
    rest = json.dumps({"tasks": [COUNT], "outputs": [{"name": "n", "ref": "count"}]})
    outcome, patches, server = anyio.run(ask, Dialogue(turn, rest))
    assert outcome.kind == "complete"
    assert ids(patches) == ["scan", "count"]
    assert "CutOff at document" in server.asked[1].said
    outcome, patches, _ = anyio.run(ask, Dialogue(turn, Turn(text="", finish="length")))
    assert (outcome.kind, ids(patches)) == ("truncated", ["scan"])


def test_a_plan_that_is_too_large_is_not_asked_for_again() -> None:
    many = [{"id": f"t{i}", "skill": "flow.echo", "args": {"value": i}} for i in range(510)]
    outcome, patches, server = anyio.run(ask, Dialogue(Turn(text=json.dumps({"tasks": many}), times=0)))
    assert (outcome.kind, outcome.calls, len(server.asked)) == ("refused", 1, 1)
    assert len(ids(patches)) == 500
    assert "split the request" in outcome.hint


WHOLE = ("complete", ["scan", "count"])
PART = ("truncated", ["scan"])
NONE = ("failed", [])
ENDS: dict[str, tuple[str, list[str]]] = {
    "stall after the last token": WHOLE,
    "cut after the last token": WHOLE,
    "no [DONE]": WHOLE,
    "no finish reason": WHOLE,
    "no finish reason and no [DONE]": WHOLE,
    "truncated": WHOLE,
    "filtered": WHOLE,
    "one document though a stream was asked for": WHOLE,
    "CRLF": WHOLE,
    "bytes cut anywhere": WHOLE,
    "endless": WHOLE,
    "refusal": ("refused", []),
    "empty plan": ("abstained", []),
}


@pytest.mark.parametrize("name", mishaps(Turn(text=PLAN)))
def test_every_fault_of_a_server_has_its_outcome(name: str) -> None:
    view = PlanView("count", skills=BUILTINS, deadline_s=2.0)
    outcome, patches, server = anyio.run(ask, Dialogue(mishaps(Turn(text=PLAN))[name]), view)
    assert (outcome.kind, ids(patches)) == ENDS.get(name, NONE)
    assert outcome.message
    assert outcome.kind != "failed" or outcome.hint
    assert all(asked.ended for asked in server.asked), "its socket is closed"


@pytest.mark.parametrize("kind", ["stall", "cut", "garbage", "error"])
def test_what_was_sent_before_a_fault_stays(kind: Any) -> None:
    turn = Turn(text=PLAN, faults=(Fault(kind, '"count"', text="{nonsense"),), times=0)
    outcome, patches, _ = anyio.run(ask, Dialogue(turn), PlanView("count", skills=BUILTINS, deadline_s=3.0))
    assert (outcome.kind, ids(patches)) == PART


def test_the_deadline_is_the_callers() -> None:
    view = PlanView("count", skills=BUILTINS, deadline_s=0.4)
    outcome, _, server = anyio.run(ask, Dialogue(Turn(text=PLAN, rate=5)), view)
    assert outcome.kind == "failed"
    assert "0.4 s" in outcome.message or "did not answer" in outcome.message
    assert server.asked[0].ended == "closed"


def test_the_catalog_plans_what_the_model_could_not_and_it_is_said() -> None:
    view = PlanView(NOTATION, skills=BUILTINS)
    outcome, patches, _ = anyio.run(ask, Dialogue(Turn(status=500)), view, CatalogPlanner())
    assert (outcome.kind, outcome.planner) == ("complete", "catalog")
    assert len(ids(patches)) == 2
    assert "llm:scripted could not plan: HTTP 500" in outcome.message


def test_neither_of_them_can_and_the_model_s_fault_is_what_is_told() -> None:
    outcome, patches, _ = anyio.run(ask, Dialogue(Turn(status=401)), VIEW, CatalogPlanner())
    assert (outcome.kind, patches) == ("failed", [])
    assert "401" in outcome.message
    assert "OPENAI_API_KEY" in outcome.hint
    assert outcome.nearest


@pytest.mark.parametrize("turn", [Turn(refusal="No."), Turn(text='{"tasks": [], "outputs": []}')])
def test_a_model_that_says_no_is_not_gone_round(turn: Turn) -> None:
    outcome, patches, _ = anyio.run(ask, Dialogue(turn), PlanView(NOTATION, skills=BUILTINS), CatalogPlanner())
    assert outcome.kind in ("refused", "abstained")
    assert (outcome.planner, patches) == ("llm:scripted", [])


def test_a_plan_that_was_cut_off_at_its_very_end_is_complete_without_a_further_task() -> None:
    """A restart lost the call when all its tasks were there: only the outputs are missing."""
    digest = Digest("plan", base=1, tasks=(TaskDigest("scan", "fs.find", "succeeded"),))
    view = PlanView("find the logs", skills=BUILTINS, deadline_s=20.0, base=1, digest=digest)
    last = '{"tasks":[],"outputs":[{"name":"files","ref":"scan/files"}]}'
    outcome, patches, _ = anyio.run(ask, Dialogue(last), view)
    assert outcome.kind == "complete"
    assert [one.name for patch in patches for one in patch.outputs or ()] == ["files"]


def test_a_model_that_was_not_chosen_is_a_persons_to_choose() -> None:
    more = {"models": ("one", "two")}
    outcome, patches, server = anyio.run(lambda: ask(Dialogue(PLAN), fallback=CatalogPlanner(), **more))
    assert (outcome.kind, patches, server.asked) == ("refused", [], [])
    assert "one, two" in outcome.message
    assert "ASTERISM_MODEL" in outcome.hint


@pytest.mark.parametrize("profile", ["openai", "vllm", "llama.cpp", "ollama", "generic", "holding"])
def test_every_kind_of_server_is_planned_with(profile: str) -> None:
    outcome, patches, _ = anyio.run(lambda: ask(Dialogue(PLAN), profile=profile))
    assert (outcome.kind, ids(patches)) == WHOLE, outcome
    assert outcome.calls == 1


def test_only_so_many_skills_are_shown_and_those_that_fit_are_among_them() -> None:
    async def main() -> str:
        async with ScriptedServer(Dialogue(PLAN)) as server:
            chat = open_chat(LlmDefaults(base_url=server.base_url), {})
            planner = LlmPlanner(chat, shortlist=6, pinned=("flow.echo", "none.such"))
            await collect(planner, PlanView("count the errors in log files and hash them", skills=BUILTINS))
            return server.asked[0].said

    said = anyio.run(main)
    shown = [line.partition("(")[0] for line in said.splitlines() if ") -> " in line and not line.startswith("name(")]
    assert len(shown) == 6
    assert {"text.count", "file.hash", "flow.echo"} <= set(shown)


@pytest.mark.parametrize(
    ("left", "calls", "kind"),
    [
        ({"tokens_left": 500}, 0, "unaffordable"),
        ({"tokens_left": 18_000}, 1, "refused"),
        ({"tokens_left": 60_000}, 2, "refused"),
        ({"price_left": 0.001}, 0, "unaffordable"),
        ({"price_left": 0.03}, 1, "refused"),
        ({"price_left": 9.0}, 2, "refused"),
        ({"calls_left": 0}, 0, "unaffordable"),
        ({"calls_left": 1}, 1, "refused"),
        ({"calls_left": 2}, 2, "refused"),
    ],
)
def test_a_question_that_could_cost_more_than_is_left_is_not_asked(left: dict[str, Any], calls: int, kind: str) -> None:
    async def main() -> tuple[PlanOutcome, int]:
        turn = Turn(text=WRONG, times=0, usage=Usage(9_000, 300))
        async with ScriptedServer(Dialogue(turn)) as server:
            llm = LlmDefaults(base_url=server.base_url, price_in=2.0, price_out=8.0)
            planner = LlmPlanner(open_chat(llm, {}), prices=(2.0, 8.0))
            send, receive = anyio.create_memory_object_stream[Patch](16)
            async with receive:
                return await planner.plan(PlanView("count", skills=BUILTINS, **left), send), len(server.asked)

    outcome, asked = anyio.run(main)
    assert (outcome.kind, outcome.calls, asked) == (kind, calls, calls)


def test_an_answer_may_be_no_longer_than_is_left() -> None:
    few = BUILTINS[:5]
    asking = tokens_in(ChatRequest(first_messages(PlanView(VIEW.request, skills=few), few), plan_schema(few)))
    view = PlanView(VIEW.request, skills=few, tokens_left=asking + 1000)
    _, _, server = anyio.run(ask, Dialogue(PLAN), view)
    assert 900 < server.asked[0].body["max_completion_tokens"] <= 1000


def test_what_was_heard_of_an_answer_that_was_left_is_counted() -> None:
    view = PlanView("count", skills=BUILTINS, deadline_s=0.6)
    outcome, _, _ = anyio.run(ask, Dialogue(Turn(text=PLAN, rate=40)), view)
    assert outcome.tokens_in > 1000
    assert outcome.tokens_out > 2
