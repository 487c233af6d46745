"""Which runs become examples for planners, and which never do."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from bench.simulator import Simulator
from orchestrator.core import stimulus as s
from orchestrator.core.state import State
from orchestrator.engine.example_desk import ExampleDesk
from orchestrator.engine.skill_view import known_skills
from planner.example import Example
from planner.view import PlanView
from protocol.outcome import Failure
from protocol.plan import parse_patch
from protocol.task import RunSettings

TASK: dict[str, Any] = {"id": "work", "skill": "sim.work", "args": {"value": 1}}


def bad(job: Any) -> Any:
    yield 0.01
    return Failure("Bad", "as told")


def planned(sim: Simulator, request: str, *documents: dict[str, Any]) -> int:
    """A run that a planner planned, to its end."""
    run = sim.request(words=request)
    call = sim.planner_calls[-1].call
    for document in documents or ({"tasks": [TASK]},):
        patch = parse_patch(document, author="planner")
        sim.ask(lambda reply, patch=patch: s.PatchProposed(reply, run, patch, call=call))
    sim.handle(s.PlanFinished(run, call))
    sim.settle()
    return run


def offered(sim: Simulator | State, request: str, desk: ExampleDesk | None = None, **more: Any) -> tuple[Example, ...]:
    state = sim if isinstance(sim, State) else sim.state
    view = PlanView(request, skills=known_skills(state), **more)
    return anyio.run((desk or ExampleDesk(3)).offer, view, state).examples


def test_a_planned_request_that_succeeded_is_an_example_for_the_like() -> None:
    sim = Simulator()
    run = planned(
        sim,
        "Count the errors of the week",
        {"tasks": [TASK]},
        {
            "tasks": [{**TASK, "id": "more", "args": {"value": {"ref": "work/value"}}}],
            "outputs": [{"name": "o", "ref": "more"}],
        },
    )
    (example,) = offered(sim, "count errors of the day")
    assert (example.run, example.request) == (run, "Count the errors of the week")
    assert [task["id"] for task in json.loads(example.plan)["tasks"]] == ["work", "more"]
    assert json.loads(example.plan)["outputs"] == [{"name": "o", "ref": "more"}]
    assert offered(sim, "book a flight") == ()


def test_it_is_still_there_after_a_restart_and_gone_with_its_run() -> None:
    sim = Simulator()
    run = planned(sim, "count the errors")
    sim.crash()
    sim.advance(5.0)
    desk = ExampleDesk(3)
    assert [one.run for one in offered(sim, "count the errors", desk)] == [run]
    sim.ask(lambda reply: s.RemoveRequested(reply, run))
    assert offered(sim, "count the errors", desk) == ()


def test_of_equal_requests_the_newest_counts() -> None:
    sim = Simulator()
    planned(sim, "count the errors")
    newest = planned(sim, "Count  the errors!", {"tasks": [{**TASK, "id": "better"}]})
    (example,) = offered(sim, "count the errors")
    assert example.run == newest


def test_what_failed_was_edited_or_replanned_is_no_example() -> None:
    sim = Simulator(program={"bad": bad})
    planned(sim, "count the errors", {"tasks": [{**TASK, "id": "bad"}]})
    run = sim.request(words="count the errors")
    call = sim.planner_calls[-1].call
    patch = parse_patch({"tasks": [{**TASK, "args": {"value": 1, "run_s": 2.0}}]}, author="planner")
    sim.ask(lambda reply: s.PatchProposed(reply, run, patch, call=call))
    sim.handle(s.PlanFinished(run, call))
    person = parse_patch({"tasks": [{**TASK, "id": "mine"}]}, author="person:ann")
    sim.ask(lambda reply: s.PatchProposed(reply, run, person))
    sim.settle()
    assert sim.states(run) == {"work": "succeeded", "mine": "succeeded"}
    assert offered(sim, "count the errors") == ()


def test_what_running_tasks_spawned_is_no_part_of_the_plan() -> None:
    def family(job: Any) -> Any:
        child = yield "spawn", {"skill": "sim.work", "args": {"value": 7}}
        yield "join", {"ids": [child["id"]]}
        return {"value": 1}

    sim = Simulator(program={"work": family})
    run = planned(sim, "count the errors", {"tasks": [{**TASK, "id": "work", "skill": "sim.parent"}]})
    assert len(sim.state.runs[run].tasks) == 2
    (example,) = offered(sim, "count the errors")
    assert [task["id"] for task in json.loads(example.plan)["tasks"]] == ["work"]


def test_a_declared_output_does_not_excuse_a_failed_task() -> None:
    sim = Simulator(program={"bad": bad})
    document = {"tasks": [TASK, {**TASK, "id": "bad"}], "outputs": [{"name": "o", "ref": "work"}]}
    run = planned(sim, "count the errors", document)
    assert sim.state.runs[run].state.state == "succeeded"  # type: ignore[union-attr]
    assert offered(sim, "count the errors") == ()


@pytest.mark.parametrize(
    "secret",
    [
        "count the errors with the password hunter22!",
        "count the errors using sk-abcdefghijklmnop1234",
        "count the errors of https://ann:s3cret@example.com/log",
        "count the errors, api_key=zx81zx81zx81",
        "count the errors of 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_looks_like_a_credential_is_never_shown_to_a_model(secret: str) -> None:
    sim = Simulator()
    planned(sim, secret)
    planned(sim, "count the errors again", {"tasks": [{**TASK, "args": {"value": secret}}]})
    assert offered(sim, "count the errors") == ()


@pytest.mark.parametrize(
    "plain",
    [
        "count the errors in examples/logs/2024-01-02T10-11-12-errors-of-the-week.log",
        "count the token errors of the secret service",
        "count the errors of password resets in logs",
    ],
)
def test_what_only_speaks_of_such_things_may_be_shown(plain: str) -> None:
    sim = Simulator()
    planned(sim, plain)
    assert [one.request for one in offered(sim, "count the errors")] == [plain]


def test_a_pair_whose_skills_are_no_longer_there_is_not_offered() -> None:
    sim = Simulator()
    planned(sim, "count the errors")
    view = PlanView("count the errors", skills=())
    assert anyio.run(ExampleDesk(3).offer, view, sim.state).examples == ()


def test_a_replan_gets_none_and_zero_turns_it_off() -> None:
    sim = Simulator()
    planned(sim, "count the errors")
    assert offered(sim, "count the errors", digest={}) == ()
    assert offered(sim, "count the errors", ExampleDesk(0)) == ()


def test_inputs_are_only_names() -> None:
    sim = Simulator()
    patch = parse_patch({"tasks": [{**TASK, "args": {"value": {"ref": "input/place"}}}]}, author="planner")
    made = sim.ask(
        lambda reply: s.Submitted(
            reply, "count the errors", "", "ann", RunSettings(), {"place": b'"cellar"'}, "w1", plan=True
        )
    )
    run, call = int(made["run"]), sim.planner_calls[-1].call
    sim.ask(lambda reply: s.PatchProposed(reply, run, patch, call=call))
    sim.handle(s.PlanFinished(run, call))
    sim.settle()
    (example,) = offered(sim, "count the errors")
    assert example.inputs == ("place",)
    assert "cellar" not in example.plan + example.request


def test_many_runs_cost_a_bounded_look_and_the_newest_are_offered() -> None:
    sim = Simulator()
    for _ in range(3):
        planned(sim, "count the errors")
    state, source = sim.state, sim.state.runs[3]
    for number in range(4, 7000):
        state.runs[number] = source
    desk = ExampleDesk(3)
    assert len(offered(state, "count the errors", desk)) == 1
    assert len(desk._judged) == 500
