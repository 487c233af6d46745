"""protocol/schema.py: values against the closed subset, and files inside them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.builtin import BUILTINS
from protocol.schema import MAX_PROBLEMS, _check, check, check_schema, files_in, has_files, map_files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)
WORDS = st.sampled_from(["type", "properties", "items", "enum", "anyOf", "nullable", "required", "$ref", "maximum"])


def _valued(depth: int = 0) -> st.SearchStrategy[tuple[dict[str, Any], Any]]:
    """A schema and a value that fits it."""
    leaves = st.one_of(
        st.tuples(st.just({"type": "string"}), st.text(max_size=5)),
        st.tuples(st.just({"type": "integer"}), st.integers()),
        st.tuples(st.just({"type": "number"}), st.floats(allow_nan=False, allow_infinity=False)),
        st.tuples(st.just({"type": "boolean"}), st.booleans()),
        st.tuples(st.just({"type": "string", "nullable": True}), st.none()),
        st.tuples(st.just({"type": "file"}), st.just("file://here/a")),
        st.integers(0, 9).map(lambda one: ({"enum": [one, "x"]}, one)),
    )
    if depth >= 3:
        return leaves
    deeper = _valued(depth + 1)
    lists = st.tuples(deeper, st.integers(0, 3)).map(
        lambda made: ({"type": "array", "items": made[0][0]}, [made[0][1]] * made[1])
    )
    records = st.dictionaries(st.text(min_size=1, max_size=5), deeper, max_size=3).map(
        lambda made: (
            {
                "type": "object",
                "properties": {name: one[0] for name, one in made.items()},
                "required": list(made),
                "additionalProperties": False,
            },
            {name: one[1] for name, one in made.items()},
        )
    )
    unions = deeper.map(lambda one: ({"anyOf": [{"type": "null"}, one[0]]}, one[1]))
    return st.one_of(leaves, lists, records, unions)


@given(_valued())
def test_a_value_made_for_a_schema_fits_it(made: tuple[dict[str, Any], Any]) -> None:
    schema, value = made
    assert check_schema(schema) == []
    assert check(schema, value) == []


@given(_valued(), JSON)
def test_no_value_raises(made: tuple[dict[str, Any], Any], value: Any) -> None:
    assert len(check(made[0], value)) <= MAX_PROBLEMS


@given(JSON | st.dictionaries(WORDS, JSON, max_size=5))
def test_no_announced_schema_raises(schema: Any) -> None:
    check_schema(schema)


@given(_valued())
def test_mapping_files_to_themselves_changes_nothing(made: tuple[dict[str, Any], Any]) -> None:
    schema, value = made
    assert map_files(schema, value, lambda text: text) == value
    assert not files_in(schema, value) or has_files(schema)


RECORD = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 3}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "value", "found"),
    [
        ({"type": "string"}, 1, [("SchemaType", "")]),
        ({"type": "integer"}, True, [("SchemaType", "")]),
        ({"type": "integer"}, 2.0, []),
        ({"type": "integer"}, 2.5, [("SchemaType", "")]),
        ({"type": "number"}, float("nan"), [("SchemaType", "")]),
        ({"type": "string", "nullable": True}, None, []),
        ({"type": "file"}, "", [("SchemaType", "")]),
        ({"enum": [1]}, True, [("SchemaEnum", "")]),
        ({"const": "a"}, "b", [("SchemaEnum", "")]),
        ({"type": "array", "maxItems": 1}, [1, 2], [("SchemaLength", "")]),
        ({"type": "array", "items": {"type": "string"}}, ["a", 1, 2], [("SchemaType", "/1"), ("SchemaType", "/2")]),
        (
            RECORD,
            {"n": 10, "other": 1},
            [("SchemaRequired", "/name"), ("SchemaUnknown", "/other"), ("SchemaRange", "/n")],
        ),
        (RECORD, {"name": "long", "n": -1}, [("SchemaLength", "/name"), ("SchemaRange", "/n")]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "x"}, [("SchemaType", "/a")]),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [], [("SchemaType", "")]),
        ({"anyOf": [{"type": "string"}, RECORD]}, {"name": 1}, [("SchemaType", "/name")]),
    ],
)
def test_every_problem_is_named_with_its_place(schema: Any, value: Any, found: list[tuple[str, str]]) -> None:
    assert sorted((one.code, one.where) for one in check(schema, value)) == sorted(found)


def test_references_fit_anything_where_values_are_not_known_yet() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "items": {"type": "array"}}}
    assert check(schema, {"n": {"ref": "a/b"}, "items": [{"ref": "a"}]}, refs=True) == []
    assert check(schema, {"n": {"literal": "x"}}, refs=True)[0].where == "/n"
    assert check(schema, {"n": {"ref": "a/b"}})[0].code == "SchemaType"


def test_deep_values_and_schemas_do_not_overflow() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert check({"type": "array", "items": {"type": "array"}}, value) == []
    union: Any = {"type": "integer"}
    for _ in range(200):
        union = {"anyOf": [union]}
    assert [one.code for one in check(union, 1)] == ["SchemaDepth"]


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"$ref": "#/x"}, "SchemaKeyword"),
        ({"type": "string", "pattern": "a"}, "SchemaKeyword"),
        ({"type": ["string"]}, "SchemaInvalid"),
        ({"type": "date"}, "SchemaInvalid"),
        ({"enum": []}, "SchemaInvalid"),
        ({"properties": {"a": 1}}, "SchemaInvalid"),
        ({"properties": {}, "required": ["a"]}, "SchemaInvalid"),
        ({"items": {"items": {"items": {"items": {"items": {"items": {"items": {"items": {}}}}}}}}}, "SchemaDepth"),
        ({"description": "x" * 70_000}, "SchemaTooLarge"),
        ("string", "SchemaInvalid"),
        ({"type": {1, 2}}, "SchemaInvalid"),
    ],
)
def test_what_is_outside_the_subset_is_refused(schema: Any, code: str) -> None:
    assert code in [one.code for one in check_schema(schema)]


def test_every_built_in_announces_schemas_of_the_subset() -> None:
    for spec in BUILTINS:
        assert check_schema(spec.params) == []
        assert check_schema(spec.result) == []


def test_only_declared_files_are_found_and_text_beside_a_file_stays_text() -> None:
    either = {"anyOf": [{"type": "file"}, {"type": "string"}, {"type": "array", "items": {"type": "file"}}]}
    schema = {
        "type": "object",
        "properties": {
            "f": {"type": "file"},
            "many": {"type": "array", "items": {"type": "object", "properties": {"f": {"type": "file"}}}},
            "text": {"type": "string"},
            "either": {"type": "array", "items": either},
        },
    }
    value = {
        "f": "a.txt",
        "many": [{"f": "file://w/b", "g": "file://w/no"}],
        "text": "file://w/no",
        "either": ["plain", "file://w/c", ["file://w/d"]],
    }
    assert files_in(schema, value) == ["a.txt", "file://w/b", "file://w/c", "file://w/d"]
    changed = map_files(schema, value, lambda text: "<" + text)
    assert changed["f"] == "<a.txt"
    assert changed["many"] == [{"f": "<file://w/b", "g": "file://w/no"}]
    assert changed["either"] == ["plain", "<file://w/c", ["<file://w/d"]]
    assert value["f"] == "a.txt"


def test_the_short_way_through_says_what_the_whole_check_says() -> None:
    """Usual objects are told by the types of their values alone: nothing may pass there that would not pass."""
    parts: list[dict[str, object]] = [{}, {"description": "any"}, {"type": "string", "description": "t"}]
    parts += [{"type": kind} for kind in ("integer", "number", "boolean", "null", "array", "object", "file")]
    parts += [{"type": "integer", "minimum": 5}, {"type": "array", "items": {"type": "integer"}}]
    parts += [{"type": "string", "nullable": True}, {"enum": [1, "a"]}]
    values: list[object] = [1, True, 2.0, 2.5, "a", "", None, [], ["a"], {}, {"a": 1}]
    values += [{"ref": "t/x"}, {"literal": 1}, {"literal": {"ref": "t"}}, {"secret": "KEY"}]
    for part in parts:
        for closed in (True, False):
            schema = {
                "type": "object",
                "properties": {"a": part},
                "required": ["a"],
                "additionalProperties": not closed,
            }
            for value in (*({"a": one} for one in values), {}, {"a": 1, "b": 2}, [], 3, None, {"literal": {"a": 1}}):
                for refs in (False, True):
                    assert check(schema, value, "at", refs=refs) == _check(schema, value, "at", refs, 0), (
                        schema,
                        value,
                    )
