"""Examples for a planner: which earlier requests are like a new one, and how many of them it needs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner.example import Example, choose, difficulty, example_of, key_of, rank, tokens, usable
from protocol.builtin import BUILTINS
from protocol.plan import parse_plan

SKILLS = {spec.name for spec in BUILTINS}
TASK: dict[str, Any] = {"id": "say", "skill": "flow.echo", "args": {"value": 1}}
PLAN = json.dumps({"tasks": [TASK]})


def example(request: str, plan: str = PLAN) -> Example:
    return Example(request, plan)


POOL = [
    example("count the errors in every log of logs"),
    example("hash every file in the archive folder"),
    example("resize the photos and pack them into an archive"),
    example("fetch the page of the weather service and save it"),
    example("统计日志中的错误"),
]


@pytest.mark.parametrize(
    ("request_text", "nearest"),
    [
        ("How many errors are in each log file?", 0),
        ("hashes of all files in the folder", 1),
        ("pack the photos", 2),
        ("save the weather page", 3),
        ("日志中有多少错误", 4),
    ],
)
def test_the_likest_request_comes_first(request_text: str, nearest: int) -> None:
    assert rank(request_text, POOL)[0][1] == POOL[nearest]


def test_what_is_about_something_else_is_not_shown() -> None:
    assert choose("book a flight to Paris", POOL) == ()
    assert choose("", POOL) == ()
    assert choose("hash it", []) == ()


def test_a_simple_request_gets_one_example_and_a_hard_one_those_that_cover_it() -> None:
    assert choose("hash every file", POOL) == (POOL[1],)
    hard = (
        "fetch the weather page and save it, then resize the photos of it, then hash every file"
        " and count the errors in each log"
    )
    assert difficulty("hash every file") < difficulty(hard)
    assert set(choose(hard, POOL)) == set(POOL[:4])
    assert len(choose(hard, POOL, most=2)) == 2


def test_an_equal_request_needs_no_second_example() -> None:
    twin = example("count the errors in every log of logs and hash the archive folder")
    assert choose(POOL[0].request + ".", [twin, *POOL]) == (POOL[0],)


def test_a_second_example_that_says_the_same_is_left_out() -> None:
    same = [example(f"count the errors of log{i}, then sort them, then save them") for i in range(9)]
    assert len(choose("count the errors, then sort them, then save them, and then hash each", same)) == 1


def test_the_budget_of_tokens_holds() -> None:
    assert choose("hash every file", POOL, budget=tokens(POOL[1]) - 1) == ()
    assert choose("hash every file", POOL, budget=tokens(POOL[1])) == (POOL[1],)


def test_an_example_is_what_the_parser_reads_back() -> None:
    document = {
        "inputs": [{"name": "dir", "default": "secret-place"}],
        "run": {"deadline": "5m"},
        "tasks": [
            {"id": "scan", "skill": "fs.find", "args": {"path": {"ref": "input/dir"}}, "retry": {"max": 5}},
            {"id": "count", "on": ["gpu"], "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}}},
        ],
        "outputs": [{"name": "counts", "ref": "count"}],
    }
    plan = parse_plan(document)
    found = example_of(" count \n everything ", plan)
    assert found is not None
    assert found.request == "count everything"
    assert found.inputs == ("dir",)
    assert "secret-place" not in found.plan
    read = parse_plan(found.plan, inputs=found.inputs)
    assert [task.id for task in read.tasks] == ["scan", "count"]
    assert read.tasks[1] == plan.tasks[1]
    assert read.outputs == plan.outputs
    assert [list(task) for task in json.loads(found.plan)["tasks"]] == [
        ["id", "skill", "args"],
        ["id", "on", "skill", "args"],
    ]


@pytest.mark.parametrize("more", [{"after": ["say"]}, {"map": {"chunk": 5}}, {"alt": ["fs.read"]}, {"effect": "once"}])
def test_a_plan_that_needs_more_keys_than_a_planner_writes_is_no_example(more: dict[str, Any]) -> None:
    plan = parse_plan({"tasks": [TASK, {**TASK, "id": "other", **more}]})
    assert example_of("say it", plan) is None


def test_an_example_with_a_skill_that_is_gone_or_a_damaged_plan_is_not_usable() -> None:
    assert usable(POOL[0], SKILLS)
    assert not usable(POOL[0], SKILLS - {"flow.echo"})
    for damaged in (
        "",
        "{",
        '{"tasks": []}',
        PLAN[:-1],
        '{"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": {"ref": "b"}}}]}',
    ):
        assert not usable(example("x", damaged), SKILLS)


def test_requests_that_differ_in_case_blanks_and_end_marks_are_one() -> None:
    assert key_of(" Count  THE errors! ") == key_of("count the\nerrors")
    assert key_of("count the errors") != key_of("count the error")
