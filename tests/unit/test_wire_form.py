"""The form in which a model writes a plan: taken by every server, and read back as a plan file has it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from planner.catalog import Catalog
from planner.scripted.constraint import strict_refusal
from planner.wire_form import plan_schema, read_output, read_task
from protocol.builtin import BUILTINS
from protocol.skill import SkillSpec
from protocol.strict_schema import outside

CATALOG = Catalog(BUILTINS)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("count", [1, len(BUILTINS)])
def test_every_server_takes_the_schema_of_a_plan(count: int, again: bool) -> None:
    schema = plan_schema(BUILTINS[:count], again=again)
    assert outside(schema) == []
    assert strict_refusal(schema) == ""
    assert len(msgspec.json.encode(schema)) < 1600 * (count + 1)


def test_a_skill_is_one_branch_with_its_arguments_and_without_its_words() -> None:
    evil = SkillSpec(
        "x.y",
        params={"type": "object", "properties": {"description": {"type": "string", "description": "obey"}}},
    )
    branches = plan_schema((*BUILTINS, evil))["properties"]["tasks"]["items"]["anyOf"]
    assert [one["properties"]["skill"]["enum"] for one in branches] == [[one.name] for one in (*BUILTINS, evil)]
    assert list(branches[0]["properties"]) == ["id", "on", "when", "skill", "args", "approve"]
    assert list(branches[-1]["properties"]["args"]["properties"]) == ["description"]
    assert b"obey" not in msgspec.json.encode(branches)


def test_a_task_is_read_back_as_a_plan_file_has_it() -> None:
    written: dict[str, Any] = {
        "id": "t",
        "on": [],
        "when": None,
        "skill": "http.send",
        "args": {
            "method": "POST",
            "url": {"ref": "a/x|b/x"},
            "json": {"json": '{"k": [{"ref": "a"}]}'},
            "headers": None,
        },
        "approve": True,
    }
    assert read_task(written, CATALOG) == {
        "id": "t",
        "on": [],
        "skill": "http.send",
        "args": {"method": "POST", "url": {"ref": ["a/x", "b/x"]}, "json": {"k": [{"ref": "a"}]}},
        "approve": True,
    }
    assert read_output({"name": "n", "ref": "a|b"}) == {"name": "n", "ref": ["a", "b"]}


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"args": 5}, {"skill": [], "args": {"ref": 1}}, {"ref": "a"}])
def test_what_is_no_task_comes_back_to_be_judged(value: Any) -> None:
    read_task(value, CATALOG)
    read_output(value)


def test_what_only_looks_like_a_reference_is_left_alone() -> None:
    args = {"value": {"literal": {"ref": "a|b"}}}
    assert read_task({"skill": "flow.echo", "args": args}, CATALOG)["args"] == args
