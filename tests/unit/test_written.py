"""A plan in the form that a strict schema wants: it obeys, and the planner reads the very same plan back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench import code
from planner.catalog import Catalog
from planner.scripted.constraint import instance, obeys, stray
from planner.scripted.written import written
from planner.template import shipped_folder
from planner.wire_form import plan_schema, read_output, read_task
from protocol.builtin import BUILTINS
from workers.skill import Skill

SKILLS = (*BUILTINS, *(one.spec for one in vars(code).values() if isinstance(one, Skill)))
CATALOG = Catalog(SKILLS)
SCHEMA = plan_schema(SKILLS)
CHOICE: dict[str, Any] = {
    "type": "object",
    "properties": {"choice": {"type": "string", "enum": ["a", "b"]}, "why": {"type": ["string", "null"]}},
    "required": ["choice", "why"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", [path.stem for path in shipped_folder().glob("*.json")])
def test_a_plan_obeys_the_planner_s_schema_and_is_read_back_as_it_was(name: str) -> None:
    plan = msgspec.json.decode((shipped_folder() / f"{name}.json").read_bytes())["plan"]
    found = written(plan, SCHEMA)
    assert stray(found, SCHEMA) == ""
    for task, meant in zip(found["tasks"], plan["tasks"], strict=True):
        assert list(task) == ["id", "on", "when", "skill", "args", "approve"]
        read = {key: one for key, one in read_task(task, CATALOG).items() if one not in ([], False)}
        assert read == {key: one for key, one in meant.items() if one not in ([], False)}
    assert [read_output(one) for one in found["outputs"]] == plan["outputs"]


def test_what_obeys_comes_back_as_it_is_and_what_cannot_obey_stays_wrong() -> None:
    assert written({"why": None, "choice": "b"}, CHOICE) == {"why": None, "choice": "b"}
    assert written({"choice": "b"}, CHOICE) == {"choice": "b", "why": None}
    for value in ({"choice": "c"}, {"choice": "a", "more": 1}, ["a"], "a", None):
        assert stray(written(value, CHOICE), CHOICE)


def test_the_least_that_obeys_a_schema_obeys_it() -> None:
    for schema in (CHOICE, SCHEMA, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"const": 7}):
        assert stray(instance(schema), schema) == ""
    assert not obeys("{", CHOICE)
    assert not obeys("{}", CHOICE)
