"""Schemas that every model server takes, and the way back from what is written by them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.builtin import BUILTINS
from protocol.schema import check, check_schema
from protocol.strict_schema import MAX_LEVELS, loosen, outside, record, strict

REF = record(ref={"type": "string"})
KINDS = ("string", "file", "integer", "number", "boolean", "null", "array", "object")
LEAVES = st.sampled_from(
    [
        *({"type": kind} for kind in KINDS),
        {},
        {"enum": ["a", "b"]},
        {"enum": [1, "a", None]},
        {"const": "x"},
        {"type": "string", "maxLength": 3, "default": "x", "nullable": True},
        {"type": "integer", "minimum": 1, "maximum": 4},
    ]
)


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def closed(properties: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": [*properties][:1]}

    return (
        inner.map(lambda one: {"type": "array", "items": one, "maxItems": 4})
        | st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some})
        | inner.map(lambda one: {"type": "object", "additionalProperties": one})
        | st.dictionaries(st.sampled_from(["a", "json", "ref", "type"]), inner, max_size=3).map(closed)
    )


PARAMS = st.dictionaries(st.sampled_from("pqrs"), st.recursive(LEAVES, _wider, max_leaves=8)).map(
    lambda properties: {"type": "object", "properties": properties, "required": [*properties][1:]}
)


@settings(max_examples=200, deadline=None)
@given(PARAMS, st.integers(1, 5))
def test_every_schema_of_a_skill_has_a_form_in_the_subset(params: dict[str, Any], level: int) -> None:
    if not check_schema(params):
        wrapped = strict(params, (REF,), level=level)
        for _ in range(level - 1):
            wrapped = record(inner=wrapped)
        assert outside(wrapped) == []


@pytest.mark.parametrize("skill", BUILTINS, ids=lambda one: one.name)
def test_built_in_skills_are_in_the_subset_and_their_empty_arguments_come_back(skill: Any) -> None:
    made = strict(skill.params)
    assert outside(made) == []
    assert made["required"] == list(skill.params["properties"])
    nothing = dict.fromkeys(name for name in made["required"] if name not in skill.params["required"])
    assert loosen(skill.params, nothing) == {}


def test_null_means_left_out_only_where_it_may_be() -> None:
    params = {
        "properties": {"a": {"type": "string"}, "b": {"type": "string", "nullable": True}, "c": {"items": {}}},
        "type": "object",
        "required": ["b"],
    }
    assert loosen(params, {"a": None, "b": None, "c": None, "d": None}) == {"b": None, "d": None}


def test_what_cannot_be_spelled_is_written_as_text() -> None:
    params: dict[str, Any] = {
        "type": "object",
        "properties": {
            "json": {},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "rows": {"type": "array"},
        },
        "required": ["json"],
    }
    written = {"json": {"json": '{"x": [1, {"ref": "a"}]}'}, "headers": {"json": '{"k": "v"}'}, "rows": [{"json": "3"}]}
    found = loosen(params, written)
    assert found == {"json": {"x": [1, {"ref": "a"}]}, "headers": {"k": "v"}, "rows": [3]}
    assert check(params, found, refs=True) == []
    assert loosen(params, {"json": {"json": "{"}, "rows": {"ref": "a/rows"}}) == {
        "json": {"json": "{"},
        "rows": {"ref": "a/rows"},
    }


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "items": {"type": "string"}}, ""),
        ({**record(), "anyOf": [record()]}, "/anyOf"),
        (record(a={"type": "string", "pattern": "x"}), "/a/pattern"),
        (record(a={"$ref": "#/$defs/a"}), "/a/$ref"),
        ({**record(a={"type": "string"}), "required": []}, "/required"),
        ({"type": "object", "properties": {}, "required": []}, "/additionalProperties"),
        (record(a={"type": "array"}), "/a/items"),
        (record(a={"type": "file"}), "/a/type"),
        (record(a={"allOf": [{"type": "string"}]}), "/a/allOf"),
        (record(**{f"a{i}": {"type": "string", "enum": ["x" * 60]} for i in range(2000)}), ""),
    ],
)
def test_what_a_server_may_refuse_is_found(schema: dict[str, Any], said: str) -> None:
    assert said in [problem.where for problem in outside(schema)]


def test_depth_is_bounded() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(MAX_LEVELS):
        deep = record(a=deep)
    assert "depth" in outside(deep)[0].where
    assert outside(strict(deep)) == []
