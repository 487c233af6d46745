"""The parts of a play without a fleet: the sequential twin, the script, the store."""

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bench.cross_device.case import Answer, Case, Loaded, Said
from bench.cross_device.check import Finding
from bench.cross_device.play import Play
from bench.cross_device.script import Script
from bench.cross_device.sequence import in_turn, is_chain
from bench.cross_device.store import NAME, Store
from bench.cross_device.suite import Order, Step, open_steps, suite
from planner.scripted.asked import Asked
from planner.scripted.request import HttpRequest
from protocol.errors import NotFound, UsageError
from protocol.plan import parse_plan

PLAN = {
    "tasks": [
        {"id": "a", "skill": "fs.find", "args": {"path": "x"}},
        {"id": "b", "skill": "fs.find", "args": {"path": "y"}, "map": {"chunk": 1}},
        {"id": "c", "skill": "text.count", "args": {"file": {"ref": "b/files[]/file"}}, "after": ["a"]},
        {"id": "d", "skill": "flow.echo", "args": {"value": {"ref": ["c", "a"]}}},
        {"id": "e", "skill": "flow.echo", "args": {"value": 1}, "when": [{"ref": "d", "is": "failed"}]},
        {"id": "f", "skill": "flow.echo", "args": {"value": 1}, "when": [{"ref": "a", "is": "succeeded"}]},
    ]
}


def test_a_chain_is_known_by_what_its_tasks_need() -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "a", "skill": "x"},
        {"id": "b", "skill": "x", "args": {"of": {"ref": "a/value"}}},
        {"id": "c", "skill": "x", "after": ["b"]},
    ]
    assert is_chain({"tasks": tasks})
    assert not is_chain(PLAN)
    for other in ({"after": ["a"]}, {"after": ["b"], "on": ["all"]}, {"args": {"each": {"ref": "b[]"}}}):
        assert not is_chain({"tasks": [*tasks[:2], {"id": "c", "skill": "x", **other}]})


def test_the_sequential_twin_waits_for_one_task_after_the_other() -> None:
    tasks = {task["id"]: task for task in in_turn(PLAN)["tasks"]}
    parse_plan({"tasks": [*tasks.values()]})
    assert tasks["b"]["when"] == [{"ref": "a", "is": "finished"}]
    assert tasks["b"]["map"] == {"chunk": 1, "limit": 1}
    assert tasks["c"]["after"] == ["a", "b"]
    assert "when" not in tasks["d"]
    assert tasks["e"]["when"] == PLAN["tasks"][4]["when"]
    assert tasks["f"]["when"] == [{"ref": "a", "is": "succeeded"}, {"ref": "e", "is": "finished"}]
    assert in_turn({"edits": [1]}) == {"edits": [1]}


def asked(*messages: str, tools: bool = False) -> Asked:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text} for text in messages]}
    if tools:
        body["tools"] = [{}]
    return Asked(0, HttpRequest("POST", "/v1/chat/completions", {}, msgspec.json.encode(body)), 0.0)


SYSTEM = "You plan for Asterism: ..."
STATE = '# Request\nr\n# State of the graph\n{"kind":"%s","base":1,"tasks":[{"id":"a"}]}\nbase: 1'
CASE = Case(
    "c", "content", "t", "r", PLAN, (), (),
    replans=(Said({"tasks": [], "edits": [{"op": "give_up", "id": "a"}]}), Said(text="done", match="tell me")),
    answers=(Answer("ship*", "approve"), Answer("ask", "answer", 7)),
)  # fmt: skip


def test_the_model_says_the_plan_then_the_replies_then_nothing_new() -> None:
    script = Script(CASE)
    plan = script.turn(asked(SYSTEM, "# Request\nr"))
    assert msgspec.json.decode(plan.text) == PLAN
    assert script.turn(asked(SYSTEM, "# Request\nr", "nonsense", "A part of that can't be used")) == plan
    cut = msgspec.json.decode(script.turn(asked(SYSTEM, STATE % "plan")).text)
    assert [task["id"] for task in cut["tasks"]] == ["b", "c", "d", "e", "f"]
    replan = script.turn(asked(SYSTEM, STATE % "replan"))
    assert "give_up" in replan.text
    assert script.turn(asked(SYSTEM, STATE % "replan")) == replan
    assert msgspec.json.decode(script.turn(asked(SYSTEM, STATE % "review")).text) == {"tasks": [], "edits": []}
    assert script.turn(asked("You are an agent", "tell me", tools=True)).text == "done"
    with pytest.raises(NotFound):
        script.turn(asked("You are an agent", "tell me more", tools=True))


def test_the_person_answers_what_the_case_says() -> None:
    script = Script(CASE)
    assert script.answer("ship.3", "approve", "reject") == CASE.answers[0]
    assert script.answer("t7", "approve", "reject") is None
    assert script.answer("t7", "approve", "reject", loose=True) == CASE.answers[0]
    assert script.answer("ask", "approve", "reject") is None
    assert script.answer("ask", "answer") == CASE.answers[1]


def test_plays_are_kept_and_a_torn_one_is_not(tmp_path: Path) -> None:
    settings = {"seed": 1}
    store = Store(tmp_path / "out", settings)
    good = Play(case="a", category="content", findings=(Finding("check", "x", True),), recovery_s=(0.5,))
    store.note("links as they are", "")
    store.keep(good)
    store.keep(Play(case="b", category="content", problem="no machine"))
    with (tmp_path / "out" / NAME).open("ab") as file:
        file.write(b'{"case": "torn')
    again = Store(tmp_path / "out", settings)
    assert [one.case for one in again.plays] == ["a", "b"]
    assert again.plays[0] == good
    again.note("links as they are", "shaped links")
    assert Store(tmp_path / "out", settings).notes == ("links as they are", "shaped links")
    again.keep(msgspec.structs.replace(good, case="c"))
    assert [one.case for one in Store(tmp_path / "out", settings).plays] == ["a", "b", "c"]
    with pytest.raises(UsageError, match="plays of another suite"):
        Store(tmp_path / "out", {"seed": 2})
    (tmp_path / "out" / NAME).write_bytes(b"{nonsense\n")
    with pytest.raises(UsageError, match="can't be used"):
        Store(tmp_path / "out", settings)


def test_steps_are_counted_as_they_are_played_and_a_twin_that_none_needs_is_not() -> None:
    wide, chain, kept = (msgspec.structs.replace(CASE, name=name) for name in ("wide", "chain", "kept"))
    steps = [Step(case, sequential, "", 0) for case in (wide, chain, kept) for sequential in (False, True)]
    good = Play(case="", category="content", findings=(Finding("check", "x", True),))
    plays = {step.key: good for step in steps if step.case is kept}
    counted = []
    for step in open_steps(steps, plays):
        counted.append((step.case.name, step.sequential, step.number, step.of))
        plays[step.key] = msgspec.structs.replace(good, report={"width": {"max": 2 if step.case.name == "wide" else 1}})
    assert counted == [("wide", False, 1, 4), ("wide", True, 2, 4), ("chain", False, 3, 4)]


def test_a_suite_that_was_kept_whole_says_where_it_was_played(tmp_path: Path) -> None:
    order = Order()
    store = Store(tmp_path, order.settings())
    store.note("a network namespace each")
    for sequential in (False, True):
        store.keep(Step(CASE, sequential, "", 0).wanted(order))
    found = anyio.run(suite, order, Loaded((CASE,)), Store(tmp_path, order.settings()), lambda step, play: None)
    assert len(found.plays) == 2
    assert found.notes == ("a network namespace each",)
